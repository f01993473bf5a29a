"""The Mega-MMDF builder on generated copies."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import datasets
import pytest
from dataset_factory import corpus_notes, rows_of, streamed, touch, write_clip
from datasets import load_dataset

import dataset_scripts
from dataset_scripts.errors import CorpusNotFoundError, CorpusWarning, MetadataError, MissingFilesError
from dataset_scripts.schema import FEATURES

dataset_scripts.register()
datasets.disable_progress_bars()
stream = partial(streamed, "mega_mmdf")

TRACKS = {"RARV": (0, 0), "RAFV": (1, 0), "FARV": (0, 1), "FAFV": (1, 1)}
LISTS = {"train": "train", "val": "validation", "test": "test"}


def lists() -> dict[str, list[str]]:
    """Return the paths of each list, as the corpus writes them."""
    return {
        name: [f"Mega-MMDF/{kind}/part_1/{name}_{i}.mp4" for kind in TRACKS for i in range(3)]
        for name in LISTS
    }


def attributes() -> dict[str, dict[str, object]]:
    about: dict[str, dict[str, object]] = {path: {"fps": 25} for paths in lists().values() for path in paths}
    about["Mega-MMDF/RAFV/part_1/train_0.mp4"]["partial_fake_segments"] = [0.5, 1.25]
    about["Mega-MMDF/FARV/part_1/train_0.mp4"]["partial_fake_segments"] = [[0, 1], [2, 2.5]]
    about["Mega-MMDF/FAFV/part_1/train_0.mp4"]["partial_fake_segments"] = None
    return about


def write_copy(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "attributes.json").write_text(json.dumps(attributes()))
    for name, paths in lists().items():
        (root / f"{name}.json").write_text(json.dumps(paths))
        for path in paths:
            touch(root / path.removeprefix("Mega-MMDF/"))
    return root


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return write_copy(tmp_path_factory.mktemp("corpora") / "Mega-MMDF")


def test_rows_agree_with_the_lists(copy, recwarn):
    splits = stream(copy)
    assert not corpus_notes(recwarn)
    assert list(splits) == list(LISTS.values())
    segments = {}
    for name, split in LISTS.items():
        assert [f"Mega-MMDF/{row['path']}" for row in splits[split]] == lists()[name]
        for row in splits[split]:
            kind = row["path"].split("/")[0]
            assert (row["kind"], (row["video_label"], row["audio_label"])) == (kind, TRACKS[kind])
            assert row["label"] == max(TRACKS[kind])
            assert row["video"]["path"] == str(copy / row["path"])
            assert (row["generator"], row["audio_generator"]) == tuple(
                None if fake else "real" for fake in TRACKS[kind]
            )
            segments[row["path"]] = row["fake_segments"]
    assert segments["RAFV/part_1/train_0.mp4"] == [[0.5, 1.25]]
    assert segments["FARV/part_1/train_0.mp4"] == [[0, 1], [2, 2.5]]
    assert segments["FAFV/part_1/train_0.mp4"] is None and segments["RARV/part_1/train_0.mp4"] == []
    assert len(stream(copy, "all")["full"]) == 36


def test_streaming_equals_loading(copy, tmp_path):
    loaded = load_dataset("mega_mmdf", data_dir=str(copy), cache_dir=str(tmp_path))
    assert {split: rows_of(rows) for split, rows in loaded.items()} == stream(copy)
    assert list(loaded["test"].features) == [*FEATURES, "kind"]


def test_what_is_missing_is_named(tmp_path):
    root = write_copy(tmp_path / "copy")
    (root / "val.json").unlink()
    about = attributes()
    del about["Mega-MMDF/RARV/part_1/test_0.mp4"]
    about["Mega-MMDF/FARV/part_1/train_0.mp4"]["partial_fake_segments"] = [-0.5, 1]
    (root / "attributes.json").write_text(json.dumps(about))
    (root / "test.json").write_text(json.dumps([path.replace("/", "\\") for path in lists()["test"]]))
    with pytest.warns(CorpusWarning) as caught:
        splits = stream(root)
    notes = " ".join(corpus_notes(caught))
    for words in (
        "12 video files in",
        "this copy has no val.json",
        "1 clips have fake segments that begin before 0",
        "1 clips are not in attributes.json, such as RARV/part_1/test_0.mp4",
    ):
        assert words in notes
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 12, "test": 12}
    (root / "FAFV").rename(tmp_path / "gone")
    with pytest.raises(MissingFilesError, match="6 of 24 files are missing: all 3 of 'train, FAFV'"):
        stream(root)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test.json", {"a": 1}, "expected a list of paths"),
        ("test.json", [3], r"test\.json, entry 0: expected a path"),
        ("test.json", ["Mega-MMDF/a.mp4"], "names 0 of RARV, RAFV, FARV, FAFV"),
        ("test.json", ["Mega-MMDF/RARV/FAFV/a.mp4"], "names 2 of RARV"),
        ("test.json", ["Mega-MMDF/RARV/part_1/train_0.mp4"], "is listed already, in train"),
        ("attributes.json", ["a"], "expected an object with the attributes"),
        (
            "attributes.json",
            {"Mega-MMDF/RARV/part_1/train_0.mp4": {"partial_fake_segments": [1, 2]}},
            "label is real but fake_segments",
        ),
        (
            "attributes.json",
            {"Mega-MMDF/FAFV/part_1/train_0.mp4": {"partial_fake_segments": "all"}},
            "expected",
        ),
    ],
)
def test_wrong_files(tmp_path, name, content, message):
    root = write_copy(tmp_path / "copy")
    (root / name).write_text(json.dumps(content))
    with pytest.raises(MetadataError, match=message):
        stream(root)


def test_wrong_folders(tmp_path):
    root = write_copy(tmp_path / "copy")
    (root / "test.json").write_text("[")
    with pytest.raises(MetadataError, match="not JSON"):
        stream(root)
    (root / "attributes.json").unlink()
    with pytest.raises(CorpusNotFoundError, match=r"looked for attributes\.json and one of the lists"):
        stream(root)


def test_a_clip_is_decoded(tmp_path):
    root = write_copy(tmp_path / "copy")
    write_clip(root / lists()["train"][0].removeprefix("Mega-MMDF/"))
    found = load_dataset(
        "mega_mmdf", data_dir=str(root), cache_dir=str(tmp_path / "cache"), split="train", streaming=True
    )
    assert next(iter(found))["video"].metadata.num_frames == 8

"""The DFDC builder on generated copies with some of the parts."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import datasets
import pytest
from dataset_factory import corpus_notes, rows_of, streamed, touch, write_clip
from dataset_trees.dfdc import (
    file_name,
    held_out_rows,
    part_rows,
    write_dfdc,
    write_held_out,
    write_part,
)
from datasets import load_dataset

import dataset_scripts
from dataset_scripts import dfdc
from dataset_scripts.errors import CorpusNotFoundError, CorpusWarning, MetadataError, MissingFilesError
from dataset_scripts.schema import FEATURES

dataset_scripts.register()
datasets.disable_progress_bars()

PARTS = (0, 7, 49)
PARTLY = "3 of the 50 training parts are there, without 1-6, 8-48:"


@pytest.fixture(autouse=True)
def known_counts(monkeypatch):
    """Let the generated copies have the known size, so that only other warnings appear."""
    monkeypatch.setattr(dfdc, "_KNOWN_ROWS", {"train": 300, "validation": 6, "test": 6})


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("corpora") / "DFDC"
    write_dfdc(root, PARTS)
    return root


stream = partial(streamed, "dfdc")


def paths(rows) -> list[str]:
    return [row["path"] for row in rows]


def test_rows_agree_with_the_tables(copy):
    with pytest.warns(CorpusWarning) as caught:
        splits = stream(copy)
    (said,) = corpus_notes(caught)
    assert PARTLY in said
    assert list(splits) == ["train", "validation", "test"]
    listed = {
        f"dfdc_train_part_{part}/{name}": cells for part in PARTS for name, cells in part_rows(part).items()
    }
    assert paths(splits["train"]) == list(listed)
    for row in splits["train"]:
        cells = listed[row["path"]]
        folder, _ = row["path"].split("/")
        fake = cells["label"] == "FAKE"
        assert row["video"] == {"path": str(copy / row["path"]), "bytes": None}
        assert Path(row["video"]["path"]).is_file()
        assert row["label"] == int(fake)
        assert row["source"] == (f"{folder}/{cells['original']}" if fake else None)
        assert row["part"] == folder
    for split in ("validation", "test"):
        assert [(row["path"], row["label"]) for row in splits[split]] == [
            (f"{split}/{name}", label) for name, label in held_out_rows(split)
        ]
        assert {(row["part"], row["source"]) for row in splits[split]} == {(split, None)}
    for row in (row for rows in splits.values() for row in rows):
        track = 0 if row["label"] == 0 else None  # the release does not say which track of a fake is fake
        assert (row["video_label"], row["audio_label"]) == (track, track)
        assert row["generator"] == row["audio_generator"] == (None if row["label"] else "real")
        assert row["fake_segments"] == (None if row["label"] else [])
        assert (row["identity"], row["language"], row["audio"]) == (None, None, None)


def test_all_and_streaming(copy, tmp_path):
    full = stream(copy, "all")["full"]
    assert full == [row for rows in stream(copy).values() for row in rows]
    loaded = load_dataset("dfdc", "all", data_dir=str(copy), cache_dir=str(tmp_path), split="full")
    assert rows_of(loaded) == full
    assert list(loaded.features) == [*FEATURES, "part"]


def test_other_places_of_the_parts(tmp_path):
    """Below train/, with a leading zero, and in a folder named after the archive; `path` stays the official one."""
    root = tmp_path / "above" / "DFDC"
    write_part(root / "train" / "dfdc_train_part_00", 0)
    write_part(root / "train" / "dfdc_train_part_07" / "dfdc_train_part_7", 7)
    write_part(root / "DFDC_train_part_49", 49)
    touch(root / "dfdc_train_part_50" / "metadata.json")  # there are 50
    write_held_out(root, "validation")
    rows = held_out_rows("test")
    for name, _ in rows:
        touch(root / "test" / "videos" / name)
    table = {name: {"is_fake": label, "augmentations": {}} for name, label in rows}
    (root / "test" / "metadata.json").write_text(json.dumps(table))
    write_dfdc(tmp_path / "plain", PARTS)
    here, there = stream(tmp_path / "above", "all")["full"], stream(tmp_path / "plain", "all")["full"]
    assert [{**row, "video": None} for row in here] == [{**row, "video": None} for row in there]
    assert here[6]["video"]["path"] == str(
        root / "train/dfdc_train_part_07/dfdc_train_part_7" / file_name(7_000)
    )
    assert all(Path(row["video"]["path"]).is_file() for row in here)


def test_validation_from_whole_parts(tmp_path):
    parts = tuple(range(0, 40, 2))
    write_dfdc(tmp_path, parts, held_out=("test",))
    with pytest.warns(CorpusWarning, match="the validation split is dfdc_train_part_") as caught:
        splits = stream(tmp_path)
    assert any("has no validation split of the release" in message for message in corpus_notes(caught))
    of = {split: {row["part"] for row in rows} for split, rows in splits.items()}
    assert len(of["validation"]) == 2 and of["test"] == {"test"}
    assert of["train"] | of["validation"] == {f"dfdc_train_part_{part}" for part in parts}
    assert not of["train"] & of["validation"]
    assert stream(tmp_path, seed=1)["validation"] != splits["validation"]
    # With fewer parts, the held-out ones are still the first in the same order.
    for part in of["train"] - {sorted(of["train"])[0]}:
        shutil.rmtree(tmp_path / part)
    (left,) = {row["part"] for row in stream(tmp_path)["validation"]}
    assert left in of["validation"]


def test_parts_of_the_release_that_are_absent(tmp_path):
    write_held_out(tmp_path, "test")
    with pytest.warns(CorpusWarning, match="this copy has no validation and no train split"):
        assert list(stream(tmp_path)) == ["test"]
    write_part(tmp_path / "dfdc_train_part_3", 3)
    with pytest.warns(CorpusWarning, match="1 of the 50 training parts are there, without 0-2, 4-49"):
        assert list(stream(tmp_path)) == ["train", "test"]  # one part is not divided


def test_all_parts_are_counted(tmp_path, monkeypatch):
    write_dfdc(tmp_path, tuple(range(50)))
    with pytest.warns(CorpusWarning) as caught:
        stream(tmp_path)
        monkeypatch.setattr(dfdc, "_KNOWN_ROWS", {"train": 119_154, "validation": 4_000, "test": 5_000})
        stream(tmp_path)
    assert [m.removeprefix("dfdc: ") for m in corpus_notes(caught)] == [
        "validation has 6 clips, not the published 4,000.",
        "test has 6 clips, not the published 5,000.",
        "train has 300 clips, not the published 119,154.",
    ]


def test_missing_files(tmp_path):
    write_dfdc(tmp_path, PARTS)
    gone = [*part_rows(7)][:2]
    for name in gone:
        (tmp_path / "dfdc_train_part_7" / name).unlink()
    with pytest.raises(MissingFilesError, match=r"2 of 30 files are missing: 2 of 6 of 'dfdc_train_part_7'"):
        stream(tmp_path, missing_files=str(tmp_path / "gone.txt"))
    assert (tmp_path / "gone.txt").read_text().splitlines() == [f"dfdc_train_part_7/{n}" for n in gone]
    with pytest.warns(CorpusWarning, match="Their rows are left out"):
        assert len(stream(tmp_path, "all", max_missing=0.1)["full"]) == 28


def test_folders_without_clips_or_tables(tmp_path):
    write_dfdc(tmp_path, PARTS)
    for name in part_rows(7):
        (tmp_path / "dfdc_train_part_7" / name).unlink()
    (tmp_path / "test" / "labels.csv").unlink()
    with pytest.warns(CorpusWarning) as caught:
        splits = stream(tmp_path)
    assert {row["part"] for row in splits["train"]} == {"dfdc_train_part_0", "dfdc_train_part_49"}
    said = corpus_notes(caught)
    expected = (
        "folders that are not used: dfdc_train_part_7 (no clips), test (no labels.csv or metadata.json)"
    )
    assert any(expected in message for message in said)
    assert any("without 1-48" in message for message in said)


def test_originals_of_absent_parts_and_unlisted_files(tmp_path):
    rows = part_rows(0)
    fake = next(name for name, cells in rows.items() if cells["label"] == "FAKE")
    rows[fake]["original"] = file_name(7_000)  # of part 7
    write_part(tmp_path / "dfdc_train_part_0", 0, rows)
    touch(tmp_path / "dfdc_train_part_0" / "extra.mp4")
    with pytest.warns(CorpusWarning) as caught:
        found = {row["path"]: row for row in stream(tmp_path, "all")["full"]}
    assert found[f"dfdc_train_part_0/{fake}"]["source"] is None
    said = corpus_notes(caught)
    assert any("1 fakes have no source" in m for m in said)
    assert any("1 mp4 files" in m and "dfdc_train_part_0/extra.mp4" in m for m in said)
    write_part(tmp_path / "dfdc_train_part_7", 7)
    with pytest.warns(
        CorpusWarning, match="1 fakes of train and validation have their original in the other"
    ):
        stream(tmp_path)
    found = {row["path"]: row for row in stream(tmp_path, "all")["full"]}
    assert found[f"dfdc_train_part_0/{fake}"]["source"] == f"dfdc_train_part_7/{file_name(7_000)}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a.mp4": {"label": "FALSE"}}', r"metadata\.json, a\.mp4, label: label 'FALSE' is not known"),
        ('{"a.mp4": {"split": "train"}}', r"a\.mp4: no label; it has split"),
        ('{"a.txt": {"label": "REAL"}}', "'a.txt' is not an mp4 file"),
        ('{"a.mp4": "REAL"}', "expected {"),
        ('[{"file": "a.mp4"}]', "expected {"),
        ('{"a.mp4": {"label": ', "is not JSON .*complete"),
        ("{}", "has no rows"),
    ],
)
def test_edited_tables(tmp_path, text, message):
    write_dfdc(tmp_path, (0,))
    (tmp_path / "dfdc_train_part_0" / "metadata.json").write_text(text)
    with pytest.raises(MetadataError, match=message):
        stream(tmp_path)


def test_edited_labels(tmp_path):
    write_dfdc(tmp_path, (0, 7))
    table = tmp_path / "test" / "labels.csv"
    text = table.read_text()
    table.write_text(text.replace(",0", ",2", 1))
    with pytest.raises(MetadataError, match=r"labels\.csv, line 2, label: label '2' is not known"):
        stream(tmp_path)
    table.write_text(text.replace("filename", "file"))
    with pytest.raises(MetadataError, match="expected the columns filename and label"):
        stream(tmp_path)
    table.write_text(text + text.splitlines()[1] + "\n")
    with pytest.raises(MetadataError, match=r"line 8: .* is listed twice"):
        stream(tmp_path)
    table.write_text(text)
    rows = part_rows(7)
    first = next(iter(part_rows(0)))
    write_part(tmp_path / "dfdc_train_part_7", 7, {**rows, first: {"label": "REAL"}})
    assert len(stream(tmp_path, "all")["full"]) == 24  # once
    write_part(tmp_path / "dfdc_train_part_7", 7, {**rows, first: {"label": "FAKE"}})
    with pytest.raises(MetadataError, match="other labels in dfdc_train_part_0 and dfdc_train_part_7"):
        stream(tmp_path)


def test_wrong_folders(copy, tmp_path):
    with pytest.raises(CorpusNotFoundError, match="dfdc_train_part_0 to dfdc_train_part_49"):
        stream(copy / "dfdc_train_part_0")
    touch(tmp_path / "train_sample_videos" / "metadata.json")
    with pytest.raises(CorpusNotFoundError, match="found train_sample_videos"):
        stream(tmp_path)
    touch(tmp_path / "test" / "a.mp4")
    with pytest.raises(CorpusNotFoundError, match=r"each with metadata\.json or labels\.csv"):
        stream(tmp_path)


def test_a_clip_can_be_decoded(tmp_path):
    write_dfdc(tmp_path / "copy", PARTS)
    name = next(iter(part_rows(0)))
    write_clip(tmp_path / "copy/dfdc_train_part_0" / name, frames=8)
    found = load_dataset(
        "dfdc", data_dir=str(tmp_path / "copy"), cache_dir=str(tmp_path / "cache"), split="train[:1]"
    )
    assert found[0]["path"] == f"dfdc_train_part_0/{name}"
    assert len(found[0]["video"]) == 8

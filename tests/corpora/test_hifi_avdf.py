"""The HiFi-AVDF builder on generated copies."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import datasets
import pytest
from dataset_factory import corpus_notes, rows_of, streamed, touch, write_clip
from datasets import load_dataset

import dataset_scripts
from dataset_scripts.errors import CorpusNotFoundError, CorpusWarning, MetadataError, ProtocolError
from dataset_scripts.schema import FEATURES

dataset_scripts.register()
datasets.disable_progress_bars()
stream = partial(streamed, "hifi_avdf")

GENERATORS = ("kling2.5", "seedance1.0", "veo3.1", "wan2.5")
HEADER = ["video_path", "audio_label", "visual_label", "overall_label"]


def table(generator: str, pairs: int = 20) -> list[list[object]]:
    """Return the rows of a generator: genuine clips, each before the clip made after it. Half of them are everywhere."""
    rows = []
    for i in range(pairs):
        name = f"speaker_{i:03d}" if i % 2 else f"{generator}_{i:03d}"
        rows += [[f"{generator}/{name}.mp4", 0, 0, 0], [f"{generator}/{name}_generated.mp4", 1, 1, 1]]
    return rows


def write_table(path: Path, rows: list[list[object]], header: list[str] = HEADER) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def write_copy(root: Path, generators: tuple[str, ...] = GENERATORS) -> Path:
    for generator in generators:
        write_table(root / f"{generator}.csv", table(generator))
        for path, *_ in table(generator):
            touch(root / str(path))
    touch(root / "README.md")
    return root


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return write_copy(tmp_path_factory.mktemp("corpora") / "HiFi-AVDF")


def test_rows_agree_with_the_tables(copy, recwarn):
    splits = stream(copy)
    assert not corpus_notes(recwarn)
    rows = splits["full"]
    assert [row["path"] for row in rows] == [path for name in GENERATORS for path, *_ in table(name)]
    for row in rows:
        fake = "_generated" in row["path"]
        generator = row["path"].split("/")[0] if fake else "real"
        assert row["video"]["path"] == str(copy / row["path"])
        assert (row["label"], row["video_label"], row["audio_label"]) == (fake, fake, fake)
        assert (row["generator"], row["audio_generator"]) == (generator, generator)
        assert row["source"] == (row["path"].replace("_generated", "") if fake else None)
        assert row["fake_segments"] == (None if fake else [])


def test_clips_of_one_name_stay_together(copy):
    splits = stream(copy, "source_70_30")
    names = {
        split: {row["path"].split("/")[1].replace("_generated", "") for row in rows}
        for split, rows in splits.items()
    }
    assert (
        not (names["train"] | names["validation"]) & names["test"]
        and not names["train"] & names["validation"]
    )
    sizes = {split: len(found) for split, found in names.items()}
    assert sizes == {"train": 32, "validation": 3, "test": 15}  # 10 in every folder, 10 in each one only
    for rows in splits.values():
        assert 2 * sum(row["label"] for row in rows) == len(rows)
    assert sum(map(len, splits.values())) == 160


def test_a_generator_is_held_out(copy):
    splits, all_splits = stream(copy, "held_out_veo3.1"), stream(copy, "source_70_30")
    for split, rows in splits.items():
        expected = [
            row for row in all_splits[split] if row["path"].startswith("veo3.1/") == (split == "test")
        ]
        assert rows == expected and rows


def test_paths_in_other_forms(tmp_path, copy):
    root = write_copy(tmp_path / "copy")
    for generator in GENERATORS:
        rows = table(generator)
        rows[0][0] = f"./{rows[0][0]}"
        rows[1][0] = f"/data/HiFi-AVDF/{rows[1][0]}"
        rows[2][0] = str(rows[2][0]).split("/")[1]
        rows[3][0] = str(rows[3][0]).replace("/", "\\")
        write_table(root / f"{generator}.csv", rows)
    found, expected = stream(root)["full"], stream(copy)["full"]
    assert [row["path"] for row in found] == [row["path"] for row in expected]


def test_streaming_equals_loading(copy, tmp_path):
    loaded = load_dataset("hifi_avdf", data_dir=str(copy), cache_dir=str(tmp_path))
    assert {split: rows_of(rows) for split, rows in loaded.items()} == stream(copy)
    assert list(loaded["full"].features) == list(FEATURES)


def test_some_generators_new_ones_and_strays(tmp_path):
    root = write_copy(tmp_path / "copy", ("veo3.1", "sora2"))
    touch(root / "veo3.1" / "other.mp4")
    (root / "notes.csv").write_text("a,b\n")
    rows = table("sora2")
    write_table(root / "sora2.csv", rows[1:])
    with pytest.warns(CorpusWarning) as caught:
        found = stream(root)["full"]
    notes = " ".join(corpus_notes(caught))
    assert "no table of kling2.5, wan2.5, seedance1.0" in notes and "veo3.1/other.mp4" in notes
    assert "1 fakes have no source" in notes and "sora2/sora2_000.mp4" in notes
    assert {row["generator"] for row in found} == {"real", "veo3.1", "sora2"} and len(found) == 79
    with pytest.raises(ProtocolError, match=r"no test clip of wan2\.5"):
        stream(root, "held_out_wan2.5")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["veo3.1/a.mp4", 0, 2, 1], "line 2, column visual_label: label '2' is not known"),
        (["veo3.1/a.mp4", 0, 1, 0], "line 2: veo3.1/a.mp4: label is real but video_label is fake"),
        (["veo3.1/a.avi", 0, 0, 0], "expected the path of an mp4 file, got 'veo3.1/a.avi'"),
        (["../a.mp4", 0, 0, 0], "expected the path of an mp4 file"),
        (["", 0, 0, 0], "expected the path of an mp4 file, got ''"),
    ],
)
def test_wrong_rows(tmp_path, row, message):
    write_table(write_copy(tmp_path / "copy") / "veo3.1.csv", [row])
    with pytest.raises(MetadataError, match=message):
        stream(tmp_path / "copy")


def test_wrong_tables_and_folders(tmp_path):
    root = write_copy(tmp_path / "copy")
    write_table(root / "veo3.1.csv", [*table("veo3.1"), table("veo3.1")[0]])
    with pytest.raises(MetadataError, match=r"line 42: veo3\.1/veo3\.1_000\.mp4 is listed twice"):
        stream(root)
    write_table(root / "veo3.1.csv", [], ["path", "label"])
    with pytest.raises(MetadataError, match="has no column video_path, audio_label"):
        stream(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusNotFoundError, match=r"kling2\.5\.csv"):
        stream(tmp_path / "empty")


def test_a_clip_is_decoded(tmp_path):
    write_clip(write_copy(tmp_path / "copy") / str(table("kling2.5")[0][0]))
    found = load_dataset(
        "hifi_avdf", data_dir=str(tmp_path / "copy"), cache_dir=str(tmp_path / "cache"), streaming=True
    )
    assert next(iter(found["full"]))["video"].metadata.num_frames == 8

"""The builder of the user's own clips."""

from __future__ import annotations

import csv
import json
import os
import unicodedata
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_factory import rows_of, streamed, touch, write_clip
from datasets import load_dataset

import dataset_scripts
from dataset_scripts.corpus import SOUND_SUFFIXES
from dataset_scripts.errors import (
    CorpusNotFoundError,
    CorpusWarning,
    MetadataError,
    MissingFilesError,
    ProtocolError,
)
from dataset_scripts.schema import FEATURES
from modeling_avlmm.cli.detect.inputs import MEDIA_SUFFIXES

dataset_scripts.register()
datasets.disable_progress_bars()


stream = partial(streamed, "avfolder")


def labels(rows: list[dict]) -> dict[str, int]:
    return {row["path"]: row["label"] for row in rows}


def write_table(root: Path, rows: list[dict], suffix: str = "csv", media: bool = True) -> None:
    root.mkdir(parents=True, exist_ok=True)
    table = root / f"metadata.{suffix}"
    if suffix == "csv":
        with open(table, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == "jsonl":
        table.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    else:
        pq.write_table(pa.Table.from_pylist(rows), table)
    for row in rows if media else []:
        if row.get("file_name"):
            touch(root / row["file_name"])


def test_class_folders(tmp_path):
    for path in ("Real/a.mp4", "real2/x.txt", "fake/b.MOV", "fake/lipsync/deep/c.mkv", "fake/swap/d.mp4"):
        touch(tmp_path / path)
    rows = stream(tmp_path)["full"]
    assert labels(rows) == {
        "Real/a.mp4": 0,
        "fake/b.MOV": 1,
        "fake/lipsync/deep/c.mkv": 1,
        "fake/swap/d.mp4": 1,
    }
    assert [row["generator"] for row in rows] == ["real", None, "lipsync", "swap"]
    assert [(row["video_label"], row["audio_label"]) for row in rows] == [(0, 0)] + [(None, None)] * 3
    assert rows[0]["video"] == {"path": str(tmp_path / "Real/a.mp4"), "bytes": None}
    assert list(rows[0]) == list(FEATURES)


def test_numbered_class_folders(tmp_path):
    for path in ("0/a.mp4", "1/b.mp4"):
        touch(tmp_path / path)
    assert labels(stream(tmp_path)["full"]) == {"0/a.mp4": 0, "1/b.mp4": 1}  # fake is 1


def test_split_folders(tmp_path):
    for path in ("train/real/a.mp4", "train/fake/gan/b.mp4", "val/real/c.mp4", "test/fake/d.mp4"):
        touch(tmp_path / path)
    splits = stream(tmp_path)
    assert {split: labels(rows) for split, rows in splits.items()} == {
        "train": {"train/fake/gan/b.mp4": 1, "train/real/a.mp4": 0},
        "validation": {"val/real/c.mp4": 0},
        "test": {"test/fake/d.mp4": 1},
    }
    assert splits["train"][0]["generator"] == "gan"
    with pytest.raises(ProtocolError, match=r"splits of its own \(test, train, validation\)"):
        stream(tmp_path, "split")
    touch(tmp_path / "real" / "e.mp4")
    with pytest.raises(MetadataError, match=r"1 of 5 clips have no split, such as real/e\.mp4"):
        stream(tmp_path)


def test_files_outside_the_classes_are_reported(tmp_path):
    for path in ("real/a.mp4", "fake/b.mp4", "raw/c.mp4", "d.mp4"):
        touch(tmp_path / path)
    with pytest.warns(CorpusWarning, match="2 media files are in neither"):
        assert len(stream(tmp_path)["full"]) == 2


def test_clips_that_lie_elsewhere_are_told(tmp_path):
    touch(tmp_path / "elsewhere" / "deep" / "a.mp4")
    root = tmp_path / "clips"
    for path in ("real/own.mp4", "fake/own.mp4"):
        touch(root / path)
    (root / "real" / "inside.mp4").symlink_to(root / "fake" / "own.mp4")
    with warnings.catch_warnings():
        warnings.simplefilter("error", CorpusWarning)
        assert len(stream(root)["full"]) == 3
    (root / "real" / "one.mp4").symlink_to(tmp_path / "elsewhere" / "deep" / "a.mp4")
    (root / "fake" / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(CorpusWarning, match="2 clips lie outside of .*such as fake/linked/deep/a.mp4"):
        assert len(stream(root)["full"]) == 5


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_metadata_files(tmp_path, suffix):
    full = {
        "file_name": "clips/b.mp4",
        "label": "Fake",
        "video_label": "real",
        "audio_label": "1",
        "generator": "none",
        "audio_generator": "xtts",
        "language": "fr",
        "identity": "p1",
        "source": "clips/a.mp4",
        "fake_segments": [[0.5, 1.25], [2.0, 3.0]],
        "split": "valid",
        "audio_file_name": "sound/b.wav",
    }
    if suffix == "csv":
        full["fake_segments"] = json.dumps(full["fake_segments"])
    bare = {
        **dict.fromkeys(full),
        "file_name": "clips/a.mp4",
        "label": "0",
        "identity": "p1",
        "split": "train",
    }
    touch(tmp_path / "sound" / "b.wav")
    write_table(tmp_path, [bare, full], suffix)
    splits = stream(tmp_path)
    (real,), (fake,) = splits["train"], splits["validation"]
    assert fake == {
        "video": {"path": str(tmp_path / "clips/b.mp4"), "bytes": None},
        "audio": str(tmp_path / "sound/b.wav"),
        "label": 1,
        "video_label": 0,
        "audio_label": 1,
        "generator": "real",
        "audio_generator": "xtts",
        "language": "fr",
        "identity": "p1",
        "source": "clips/a.mp4",
        "fake_segments": [[0.5, 1.25], [2.0, 3.0]],
        "path": "clips/b.mp4",
    }
    assert (real["label"], real["video_label"], real["audio_label"], real["fake_segments"]) == (0, 0, 0, [])
    assert (real["audio"], real["language"], real["source"], real["generator"]) == (None, None, None, "real")


@pytest.mark.parametrize(
    ("value", "other"), [(0, 1), (0.0, 1.0), ("0", "1"), ("real", "fake"), (" REAL ", "FAKE")]
)
def test_accepted_labels(tmp_path, value, other):
    write_table(
        tmp_path, [{"file_name": "a.mp4", "label": value}, {"file_name": "b.mp4", "label": other}], "jsonl"
    )
    assert labels(stream(tmp_path)["full"]) == {"a.mp4": 0, "b.mp4": 1}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"label": "genuine"}, "column label: label 'genuine' is not known; use real .or 0. and fake"),
        ({"label": True}, "label True is not known"),
        ({"label": 2}, "label 2 is not known"),
        ({"label": None}, "no label"),
        ({"label": "fake", "audio_label": "?"}, "column audio_label"),
        (
            {"label": "real", "audio_label": "fake"},
            "label is real but video_label is None and audio_label is fake",
        ),
        ({"label": "fake", "audio_label": 0, "video_label": 0}, "label is fake but video_label is real"),
        ({"label": "fake", "fake_segments": "1-2"}, "fake_segments"),
        ({"label": "fake", "fake_segments": [[2, 1]]}, r"\[start, end\]"),
        ({"label": "real", "fake_segments": [[1, 2]]}, "label is real but fake_segments"),
        ({"label": "fake", "split": "holdout"}, "column split: 'holdout'"),
        ({"label": "fake", "file_name": "../b.mp4"}, "inside it"),
        ({"label": "fake", "file_name": "/b.mp4"}, "inside it"),
        ({"label": "fake", "file_name": None}, "no file_name"),
        ({"label": "fake", "file_name": "./a.mp4"}, r"a\.mp4 is already in .*line 1"),
        ({"label": "fake", "lable": "fake"}, "'lable'.*Did you mean 'label'"),
    ],
)
def test_malformed_rows(tmp_path, row, message):
    good = {"file_name": "a.mp4", "label": "real"}
    write_table(tmp_path, [good, {"file_name": "b.mp4", **row}], "jsonl", media=False)
    touch(tmp_path / "a.mp4")
    with pytest.raises(MetadataError, match=rf"metadata\.jsonl, line 2.*{message}"):
        stream(tmp_path)


def test_malformed_files(tmp_path):
    table = tmp_path / "metadata.jsonl"
    for text, message in (("{", "line 1: not JSON"), ("[1]", "expected an object"), ("", "has no rows")):
        table.write_text(text)
        with pytest.raises(MetadataError, match=message):
            stream(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,label\na.mp4,real,3\n")
    with pytest.raises(MetadataError, match=r"metadata\.csv and metadata\.jsonl: keep one"):
        stream(tmp_path)
    table.unlink()
    with pytest.raises(MetadataError, match="line 2: more cells"):
        stream(tmp_path)


def test_unused_columns_and_unlisted_files_are_reported(tmp_path):
    write_table(tmp_path, [{"file_name": "a.mp4", "label": "real", "camera": "x"}])
    touch(tmp_path / "b.mp4")
    with pytest.warns(CorpusWarning) as caught:
        assert len(stream(tmp_path)["full"]) == 1
    said = " ".join(str(warning.message) for warning in caught)
    assert "unused columns: camera" in said
    assert "1 video files are not in metadata.csv" in said


def test_missing_clips_and_sounds(tmp_path):
    rows = [
        {"file_name": f"clips/{i}.mp4", "label": i % 2, "audio_file_name": f"sound/{i}.wav"} for i in range(4)
    ]
    write_table(tmp_path / "data", rows)
    for i in (0, 1):
        touch(tmp_path / "data" / "sound" / f"{i}.wav")
    (tmp_path / "data" / "clips" / "1.mp4").unlink()
    settings = {"missing_files": str(tmp_path / "gone.txt")}
    with pytest.raises(
        MissingFilesError, match="3 of 8 files are missing: 1 of 4 of 'clips', 2 of 4 of 'sound'"
    ):
        stream(tmp_path / "data", **settings)
    assert (tmp_path / "gone.txt").read_text().split() == ["clips/1.mp4", "sound/2.wav", "sound/3.wav"]
    with pytest.warns(CorpusWarning, match="3 of 8 files are missing"):
        assert list(labels(stream(tmp_path / "data", max_missing=0.5, **settings)["full"])) == ["clips/0.mp4"]


def groups(splits: dict[str, list[dict]], name: str) -> list[set[str]]:
    return [{row[name] for row in rows} for rows in splits.values()]


def test_split_by_identity(tmp_path):
    rows = [
        {"file_name": f"{person}/{clip}.mp4", "label": ["real", "fake"][clip % 2], "identity": f"p{person}"}
        for person in range(20)
        for clip in range(4)
    ]
    write_table(tmp_path, rows)
    splits = stream(tmp_path, "split")
    assert [len(found) for found in groups(splits, "identity")] == [14, 2, 4]
    assert len(set.union(*groups(splits, "identity"))) == 20
    assert Counter(path for found in splits.values() for path in labels(found)) == Counter(
        row["file_name"] for row in rows
    )
    assert stream(tmp_path, "split", seed=1)["test"] != splits["test"]


def test_split_without_identity_keeps_a_clip_with_its_fakes(tmp_path):
    rows = []
    for i in range(20):
        rows.append({"file_name": f"real/{i}.mp4", "label": "real", "identity": "known" if i == 0 else None})
        rows += [
            {"file_name": f"fake/{i}_{k}.mp4", "label": "fake", "source": f"real/{i}.mp4"} for k in range(3)
        ]
    write_table(tmp_path, rows)
    splits = stream(tmp_path, "split")
    origins = [{Path(row["path"]).stem.split("_")[0] for row in found} for found in splits.values()]
    assert [len(found) for found in origins] == [14, 2, 4]
    assert sum(len(found) for found in splits.values()) == 80


def test_split_of_class_folders_has_both_classes(tmp_path):
    for i in range(20):
        touch(tmp_path / "real" / f"{i}.mp4")
        touch(tmp_path / "fake" / f"{i}.mp4")
    splits = stream(tmp_path, "split")
    sizes = {split: Counter(row["label"] for row in rows) for split, rows in splits.items()}
    assert sizes == {"train": {0: 14, 1: 14}, "validation": {0: 2, 1: 2}, "test": {0: 4, 1: 4}}


def test_loading_equals_streaming_and_decodes(tmp_path):
    root = tmp_path / "data"
    for path in ("real/a.mp4", "fake/b.mp4"):
        write_clip(root / path, frames=6)
    loaded = load_dataset("avfolder", data_dir=str(root), cache_dir=str(tmp_path / "cache"))
    assert {split: rows_of(rows) for split, rows in loaded.items()} == stream(root)
    for row in loaded["full"]:
        assert row["video"].metadata.num_frames == 6
        assert row["video"].metadata.average_fps == pytest.approx(25)
    whole = load_dataset("avfolder", data_dir=str(root), cache_dir=str(tmp_path / "cache"), split="all")
    assert whole["path"] == loaded["full"]["path"]  # "all" is every split of any config


def test_a_changed_folder_or_table_is_read_again(tmp_path):
    settings = {"data_dir": str(tmp_path / "data"), "cache_dir": str(tmp_path / "cache"), "split": "full"}
    touch(tmp_path / "data" / "real" / "a.mp4")
    assert len(load_dataset("avfolder", **settings)) == 1
    touch(tmp_path / "data" / "fake" / "b.mp4")
    assert len(load_dataset("avfolder", **settings)) == 2
    write_table(tmp_path / "data", [{"file_name": "real/a.mp4", "label": "real"}], media=False)
    with pytest.warns(CorpusWarning, match="1 video files are not in"):
        assert load_dataset("avfolder", **settings)["label"][:] == [0]
    write_table(tmp_path / "data", [{"file_name": "real/a.mp4", "label": "fake"}], media=False)
    with pytest.warns(CorpusWarning, match="1 video files are not in"):
        assert load_dataset("avfolder", **settings)["label"][:] == [1]


def test_an_unchanged_folder_comes_from_the_cache(tmp_path, monkeypatch):
    touch(tmp_path / "data" / "real" / "a.mp4")
    settings = {"data_dir": str(tmp_path / "data"), "cache_dir": str(tmp_path / "cache")}
    first = load_dataset("avfolder", **settings)
    from dataset_scripts.avfolder import AVFolder

    monkeypatch.setattr(AVFolder, "read", lambda *_: pytest.fail("built again"))
    assert load_dataset("avfolder", **settings)["full"].cache_files == first["full"].cache_files


def test_wrong_folders(tmp_path):
    touch(tmp_path / "videos" / "a.mp4")
    with pytest.raises(CorpusNotFoundError, match=r"looked for one of metadata\.csv.*found videos"):
        stream(tmp_path)
    touch(tmp_path / "empty" / "real" / "notes.txt")
    with pytest.raises(CorpusNotFoundError, match="no media file in the real/ and fake/ folders"):
        stream(tmp_path / "empty")
    with pytest.raises(ValueError, match="doesn't have a 'max_mising' key"):
        stream(tmp_path / "empty", max_mising=0.5)


def test_splits_may_be_inside_the_classes(tmp_path):
    """They were taken for generators, and everything for one split."""
    for path in ("real/train/a.mp4", "real/test/b.mp4", "fake/train/swap/c.mp4", "fake/swap/test/d.mp4"):
        touch(tmp_path / path)
    splits = stream(tmp_path)
    assert {split: labels(rows) for split, rows in splits.items()} == {
        "train": {"real/train/a.mp4": 0, "fake/train/swap/c.mp4": 1},
        "test": {"real/test/b.mp4": 0, "fake/swap/test/d.mp4": 1},
    }
    assert {row["generator"] for rows in splits.values() for row in rows} == {"real", "swap"}
    touch(tmp_path / "fake" / "e.mp4")
    with pytest.raises(MetadataError, match=r"1 of 5 clips have no split, such as fake/e\.mp4"):
        stream(tmp_path)


def test_every_ending_that_detect_looks_at_is_a_clip(tmp_path):
    for number, suffix in enumerate(sorted(MEDIA_SUFFIXES)):
        touch(tmp_path / ("fake/kind" if number % 2 else "real") / f"{number}{suffix}")
    touch(tmp_path / "real" / "0.3gp.txt")
    with pytest.warns(CorpusWarning, match="1 files are neither video nor sound by their endings"):
        rows = stream(tmp_path)["full"]
    assert len(rows) == len(MEDIA_SUFFIXES)
    sounds = {row["path"]: row for row in rows if row["path"].endswith(SOUND_SUFFIXES)}
    assert all(row["video_label"] is None and row["generator"] is None for row in sounds.values())
    assert all(row["audio_label"] == row["label"] for row in sounds.values())
    assert {row["audio_generator"] for row in sounds.values()} == {"real", "kind"}


def test_the_sound_beside_a_video_is_no_clip(tmp_path):
    for path in ("real/a.mp4", "real/a.wav", "fake/b.mp4"):
        touch(tmp_path / path)
    with pytest.warns(CorpusWarning, match="1 sound files have the name of a video .* real/a.wav"):
        assert set(labels(stream(tmp_path)["full"])) == {"real/a.mp4", "fake/b.mp4"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_names_of_a_table_in_any_unicode_are_found_on_disk(tmp_path, encoding):
    """Spreadsheets save UTF-16, and macOS stores é in two parts."""
    on_disk, written = (unicodedata.normalize(form, "é가.mp4") for form in ("NFD", "NFC"))
    touch(tmp_path / on_disk)
    (tmp_path / "metadata.csv").write_text(f"file_name,label\n{written},fake\n", encoding=encoding)
    (row,) = stream(tmp_path)["full"]
    assert row["path"] == on_disk and Path(row["video"]["path"]).exists()


def test_another_encoding_is_told_with_the_files_name(tmp_path):
    touch(tmp_path / "a.mp4")
    (tmp_path / "metadata.csv").write_text("file_name,label,identity\na.mp4,fake,가나\n", encoding="cp949")
    with pytest.raises(MetadataError, match=r"metadata\.csv is not text in UTF-8 .*iconv -f CP949"):
        stream(tmp_path)


def test_file_names_that_are_not_utf8(tmp_path):
    """A table holds UTF-8 only: such files are read by links, and shown with their foreign bytes."""
    data, folder = tmp_path / "data", os.fsdecode("가".encode("cp949"))
    write_clip(tmp_path / "a.mp4")
    (data / "fake" / folder).mkdir(parents=True)
    (tmp_path / "a.mp4").rename(data / "fake" / folder / "a.mp4")
    touch(data / "real" / "b.mp4")
    with pytest.warns(
        CorpusWarning, match=r"1 files have names that are not UTF-8, such as .*\\xb0\\xa1/a\.mp4"
    ):
        table = load_dataset("avfolder", data_dir=str(data), cache_dir=str(tmp_path / "cache"))["full"]
    rows = {row["path"]: row for row in table.cast_column("video", datasets.Video(decode=False))}
    fake = rows["fake/\\xb0\\xa1/a.mp4"]
    assert fake["generator"] == "\\xb0\\xa1" and fake["label"] == 1
    assert Path(fake["video"]["path"]).read_bytes() == (data / "fake" / folder / "a.mp4").read_bytes()

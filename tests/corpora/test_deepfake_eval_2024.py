"""The Deepfake-Eval-2024 builder on generated copies."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import datasets
import pytest
from dataset_factory import corpus_notes, rows_of, streamed, touch, write_clip
from datasets import load_dataset

import dataset_scripts
from dataset_scripts import deepfake_eval_2024
from dataset_scripts.errors import CorpusNotFoundError, CorpusWarning, MetadataError, MissingFilesError
from dataset_scripts.schema import FEATURES

dataset_scripts.register()
datasets.disable_progress_bars()
stream = partial(streamed, "deepfake_eval_2024")

VIDEO = ["Filename", "Date", "Video Ground Truth", "Audio Ground Truth", "Public Comments", "Finetuning Set"]
AUDIO = ["Filename", "Date", "Ground Truth", "Public Comments", "Finetuning Set"]
# Picture, sound -> label of the video, label of the picture protocol; None: left out.
LABELS = {
    ("Fake", "Fake"): (1, 1),
    ("Fake", "Real"): (1, 1),
    ("Fake", "Unknown"): (1, 1),
    ("Real", "Fake"): (1, 0),
    ("Real", "Real"): (0, 0),
    ("Real", "Unknown"): (None, 0),
    ("Unknown", "Fake"): (1, None),
    ("Unknown", "Real"): (None, None),
    ("Unknown", "Unknown"): (None, None),
}


def write_table(path: Path, header: list[str], rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def video_rows(copies: int = 10) -> list[list[str]]:
    """Return rows of the table of videos: every pair of labels, in both sets."""
    return [
        [f"{len(LABELS) * n + i:02d}_-x.mp4", "2024-11-14", *pair, 'a "comment", with a comma', part]
        for part, first in (("train", 0), ("test", copies))
        for n in range(first, first + (copies if part == "train" else 2))
        for i, pair in enumerate(LABELS)
    ]


def sound_rows() -> list[list[str]]:
    kinds = [".wav", ".mp3", ".m4a", ".mp4"]
    return [
        [
            f"sound{i}{kinds[i % 4]}",
            "2024-04-23",
            ("Real", "Fake")[i % 2],
            "",
            ("Train", "Test")[i % 3 == 0],
        ]
        for i in range(24)
    ]


def write_copy(root: Path, videos: list[list[str]] | None = None, links: str = "") -> Path:
    videos = video_rows() if videos is None else videos
    for kind, header, rows in (("video", VIDEO, videos), ("audio", AUDIO, sound_rows())):
        write_table(root / f"{kind}-metadata-publish{links}.csv", header, rows)
        for row in rows:
            touch(root / f"{kind}-data" / row[0])
    touch(root / "README.md")
    touch(root / "image-data" / "a.jpg")
    return root


@pytest.fixture(autouse=True)
def known_size(monkeypatch):
    monkeypatch.setattr(deepfake_eval_2024, "_KNOWN_SOUNDS", len(sound_rows()))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return write_copy(tmp_path_factory.mktemp("corpora") / "Deepfake-Eval-2024")


@pytest.mark.parametrize(("protocol", "place"), [("video", 0), ("picture", 1)])
def test_labels_of_every_pair(copy, protocol, place):
    with pytest.warns(CorpusWarning, match=r"of 108 files are left out, such as video-data/") as caught:
        splits = stream(copy, protocol)
    assert len(corpus_notes(caught)) == 1
    assert list(splits) == ["train", "validation", "test"]
    rows = {row["path"]: row for members in splits.values() for row in members}
    expected = {f"video-data/{row[0]}": LABELS[(row[2], row[3])][place] for row in video_rows()}
    assert {path: row["label"] for path, row in rows.items()} == {
        path: label for path, label in expected.items() if label is not None
    }
    names = {"Real": 0, "Fake": 1, "Unknown": None}
    for cells in video_rows():
        row = rows.get(f"video-data/{cells[0]}")
        if row is not None:
            assert row["video"]["path"] == str(copy / row["path"])
            assert row["video_label"] == names[cells[2]]
            assert row["audio_label"] == (names[cells[3]] if protocol == "video" else None)
            assert (row["generator"] == "real") == (row["video_label"] == 0)
            assert row["date"] == "2024-11-14"


def test_sets_are_published_and_a_tenth_of_train_is_validation(copy):
    splits = stream(copy)
    sets = {f"video-data/{row[0]}": row[5] for row in video_rows()}
    assert {sets[row["path"]] for row in splits["test"]} == {"test"}
    trained = [*splits["train"], *splits["validation"]]
    assert {sets[row["path"]] for row in trained} == {"train"}
    assert (len(splits["validation"]), len(trained)) == (6, 60)
    assert sum(row["label"] for row in splits["validation"]) == 5  # as in train, where five of six are fake
    assert len(stream(copy, "all")["full"]) == 72
    assert stream(copy, seed=1)["test"] == splits["test"]
    assert stream(copy, seed=1)["validation"] != splits["validation"]


def test_sound_files(copy, recwarn):
    splits = stream(copy, "sound")
    assert not corpus_notes(recwarn)
    rows = [row for members in splits.values() for row in members]
    assert sorted(row["path"] for row in rows) == sorted(f"audio-data/{row[0]}" for row in sound_rows())
    for row in rows:
        assert row["label"] == row["audio_label"]
        assert (row["video_label"], row["generator"]) == (None, None)
        assert row["audio_generator"] == (None if row["label"] else "real")
    assert len(splits["test"]) == 8


def test_streaming_equals_loading(copy, tmp_path):
    loaded = load_dataset("deepfake_eval_2024", data_dir=str(copy), cache_dir=str(tmp_path))
    assert {split: rows_of(rows) for split, rows in loaded.items()} == stream(copy)
    assert list(loaded["test"].features) == [*FEATURES, "date"]


def test_tables_with_links_and_the_folder_above(copy, tmp_path):
    write_copy(tmp_path / "above" / "Deepfake-Eval-2024", links="-with-links")
    found, expected = stream(tmp_path / "above"), stream(copy)
    assert {s: [r["path"] for r in rows] for s, rows in found.items()} == {
        s: [r["path"] for r in rows] for s, rows in expected.items()
    }


def test_missing_stray_and_unassigned_files(tmp_path):
    rows = video_rows()
    rows[0][5] = ""
    rows.append(rows[4])  # there twice, the same
    write_copy(tmp_path / "copy", rows)
    touch(tmp_path / "copy" / "video-data" / "other.mp4")
    (tmp_path / "copy" / "video-data" / rows[1][0]).unlink()
    with pytest.raises(MissingFilesError, match="1 of 72 files are missing: 1 of 72 of 'video-data'"):
        stream(tmp_path / "copy")
    with pytest.warns(CorpusWarning) as caught:
        splits = stream(tmp_path / "copy", max_missing=0.1)
    notes = " ".join(corpus_notes(caught))
    assert "1 media files in" in notes and "video-data/other.mp4" in notes
    assert f"1 files are in neither set, train or test, such as video-data/{rows[0][0]}" in notes
    assert sum(map(len, splits.values())) == 70


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows[0].__setitem__(2, "Maybe"),
            "line 2, column Video Ground Truth: 'Maybe' is none of",
        ),
        (lambda rows: rows[0].__setitem__(5, "dev"), "column Finetuning Set: 'dev' is none of train, test"),
        (lambda rows: rows[1].__setitem__(0, rows[0][0]), "is described differently in"),
        (lambda rows: rows[0].__setitem__(0, " "), "line 2: no Filename"),
        (lambda rows: rows[0].append("more"), "line 2: more cells than the header"),
        (lambda rows: rows.clear(), "has no labelled rows"),
    ],
)
def test_wrong_tables(tmp_path, change, message):
    rows = video_rows()
    write_copy(tmp_path / "copy", rows)
    change(rows)
    write_table(tmp_path / "copy" / "video-metadata-publish.csv", VIDEO, rows)
    with pytest.raises(MetadataError, match=message):
        stream(tmp_path / "copy")


def test_wrong_folders(tmp_path, copy):
    with pytest.raises(
        CorpusNotFoundError, match=r"looked for one of the tables video-metadata-publish\.csv"
    ):
        stream(tmp_path)
    write_table(tmp_path / "copy" / "audio-metadata-publish.csv", AUDIO, sound_rows())
    with pytest.raises(
        MetadataError, match=r"no video-metadata-publish\.csv, which the protocol video reads"
    ):
        stream(tmp_path / "copy")
    write_table(tmp_path / "copy" / "video-metadata-publish.csv", AUDIO, sound_rows())
    with pytest.raises(MetadataError, match="has no column Video Ground Truth, Audio Ground Truth; it has"):
        stream(tmp_path / "copy")


def test_a_clip_is_decoded(tmp_path):
    rows = [row for row in video_rows() if row[5] == "test"]
    write_copy(tmp_path / "copy", rows)
    write_clip(tmp_path / "copy" / "video-data" / rows[0][0])
    found = load_dataset(
        "deepfake_eval_2024",
        "all",
        data_dir=str(tmp_path / "copy"),
        cache_dir=str(tmp_path / "cache"),
        streaming=True,
    )
    assert next(iter(found["full"]))["video"].metadata.num_frames == 8

"""The TalkingHeadBench builder on generated copies."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import datasets
import pytest
from dataset_factory import corpus_notes, rows_of, streamed, touch, write_clip
from datasets import load_dataset

import dataset_scripts
from dataset_scripts import talkingheadbench
from dataset_scripts.errors import (
    CorpusNotFoundError,
    CorpusWarning,
    MetadataError,
    MissingFilesError,
    ProtocolError,
)
from dataset_scripts.schema import FEATURES

dataset_scripts.register()
datasets.disable_progress_bars()
stream = partial(streamed, "talkingheadbench")

LIST = "real/real_dataset_split_official_ff++.json"
FAKES = {
    "fake/Hallo/train/00023--7lHr2ZNlULA_4--Hallo.mp4": ("train", "Hallo", "7lHr2ZNlULA_4"),
    "fake/Hallo/val/00024---5be_UPkLRw_4--Hallo.mp4": ("validation", "Hallo", "-5be_UPkLRw_4"),
    "fake/LivePortrait/test/00025--a--b_1--LivePortrait.mp4": ("test", "LivePortrait", "a--b_1"),
    "fake/LivePortrait/test/odd.mp4": ("test", "LivePortrait", None),
    "fake/additional_dataset/Hallo3/00006-abc_0.mp4": ("test", "Hallo3", "abc_0"),
    "fake/additional_dataset/Hallo3/00007--abc_1.mp4": ("test", "Hallo3", "-abc_1"),
    "fake/additional_dataset/MAGI-1/10452.mp4": ("test", "MAGI-1", None),
}
GENUINE = {
    "Train": {"FaceForensics++": ["000.mp4", "001.mp4"], "CelebV-HQ": ["7lHr2ZNlULA_4.mp4"]},
    "Val": {"FaceForensics++": ["002.mp4"], "CelebV-HQ": ["-5be_UPkLRw_4.mp4"]},
    "Test": {"FaceForensics++": ["003.mp4", "001.mp4"], "CelebV-HQ": ["abc_0.mp4"]},
}


def write_copy(root: Path, genuine: bool = True) -> Path:
    for path in FAKES:
        touch(root / path)
        touch(root / "audio" / "fake" / f"{Path(path).stem}.wav")
    (root / "real").mkdir()
    (root / LIST).write_text(json.dumps(GENUINE))
    for block in GENUINE.values() if genuine else ():
        for origin, names in block.items():
            for name in names:
                touch(root / "real" / origin.lower() / "videos" / name)
    touch(root / "audio" / "ff++" / "000.wav")
    return root


@pytest.fixture(autouse=True)
def known_size(monkeypatch):
    monkeypatch.setattr(talkingheadbench, "_KNOWN_FAKES", len(FAKES))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return write_copy(tmp_path_factory.mktemp("corpora") / "TalkingHeadBench")


def test_rows_agree_with_list_and_folders(copy, recwarn):
    splits = stream(copy)
    assert not corpus_notes(recwarn)
    rows = {row["path"]: (split, row) for split, members in splits.items() for row in members}
    for path, (split, generator, driver) in FAKES.items():
        found, row = rows.pop(path)
        assert (found, row["generator"], row["driver"]) == (split, generator, driver)
        assert (row["label"], row["video_label"], row["audio_label"]) == (1, 1, 0)
        assert row["audio"] == str(copy / "audio" / "fake" / f"{Path(path).stem}.wav")
        assert (row["audio_generator"], row["source"], row["origin"]) == ("real", None, None)
    expected = {
        f"real/FaceForensics++/{number}.mp4": split
        for number, split in (("000", "train"), ("001", "test"), ("002", "validation"), ("003", "test"))
    } | {
        f"real/CelebV-HQ/{name}": block
        for name, block in (
            ("7lHr2ZNlULA_4.mp4", "train"),
            ("-5be_UPkLRw_4.mp4", "validation"),
            ("abc_0.mp4", "test"),
        )
    }
    assert {path: split for path, (split, _) in rows.items()} == expected
    for path, (_, row) in rows.items():
        origin = path.split("/")[1]
        assert row["origin"] == origin and row["label"] == 0
        assert row["video"]["path"] == str(copy / "real" / origin.lower() / "videos" / path.split("/")[2])
    assert rows["real/FaceForensics++/000.mp4"][1]["audio"] == str(copy / "audio" / "ff++" / "000.wav")


def test_other_protocols(copy):
    unseen, official = stream(copy, "unseen_generators"), stream(copy)
    assert unseen["train"] == official["train"] and unseen["validation"] == official["validation"]
    assert {row["generator"] for row in unseen["test"]} == {"real", "Hallo3", "MAGI-1"}
    assert len(stream(copy, "all")["full"]) == 14


def test_streaming_equals_loading(copy, tmp_path):
    loaded = load_dataset("talkingheadbench", data_dir=str(copy), cache_dir=str(tmp_path))
    assert {split: rows_of(rows) for split, rows in loaded.items()} == stream(copy)
    assert list(loaded["test"].features) == [*FEATURES, "driver", "origin"]


def test_without_genuine_clips_or_some(tmp_path):
    root = write_copy(tmp_path / "copy", genuine=False)
    with pytest.warns(CorpusWarning, match="like one of the 7 genuine clips"):
        assert {row["label"] for rows in stream(root).values() for row in rows} == {1}
    touch(root / "real" / "000.mp4")
    touch(root / "real" / "other.mp4")
    with pytest.raises(MissingFilesError, match="6 of 14 files are missing: all 3 of 'real, CelebV-HQ'"):
        stream(root)
    touch(root / "fake" / "Hallo" / "more" / "a.mp4")
    with pytest.warns(CorpusWarning) as caught:
        train = stream(root, max_missing=0.9)["train"]
    notes = " ".join(corpus_notes(caught))
    assert "real/other.mp4" in notes and "fake/Hallo/more/a.mp4" in notes
    assert [row["path"] for row in train if not row["label"]] == ["real/FaceForensics++/000.mp4"]
    touch(root / "real" / "again" / "000.mp4")
    with pytest.raises(MetadataError, match="000 is there 2 times"):
        stream(root)
    (root / LIST).unlink()
    with pytest.warns(CorpusWarning, match=r"this copy has no real/real_dataset_split_official_ff\+\+\.json"):
        assert len(stream(root, "all")["full"]) == 7


@pytest.mark.parametrize(
    "text",
    ["[", "[]", "{}", '{"Train": []}', '{"Train": {"CelebV-HQ": "a.mp4"}}', '{"Test": {"CelebV-HQ": [1]}}'],
)
def test_wrong_lists(tmp_path, text):
    root = write_copy(tmp_path / "copy")
    (root / LIST).write_text(text)
    with pytest.raises(MetadataError, match="real_dataset_split_official"):
        stream(root)


def test_wrong_folders(tmp_path):
    (tmp_path / "fake" / "else").mkdir(parents=True)
    with pytest.raises(CorpusNotFoundError, match="looked for the folder fake/ with one of LivePortrait"):
        stream(tmp_path)
    touch(tmp_path / "fake" / "Hallo" / "train" / "1--a--Hallo.mp4")
    with pytest.raises(ProtocolError, match="no clip in fake/additional_dataset"):
        stream(tmp_path, "unseen_generators")


def test_a_clip_is_decoded(tmp_path):
    write_clip(write_copy(tmp_path / "copy", genuine=False) / next(iter(FAKES)))
    found = load_dataset(
        "talkingheadbench", data_dir=str(tmp_path / "copy"), cache_dir=str(tmp_path / "cache"), streaming=True
    )
    assert next(iter(found["train"]))["video"].metadata.num_frames == 8

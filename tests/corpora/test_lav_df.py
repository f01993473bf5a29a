"""The LAV-DF builder on generated copies."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import datasets
import pytest
from dataset_factory import rows_of, streamed, touch, write_clip
from dataset_trees.lav_df import lav_df_rows, write_lav_df
from datasets import load_dataset

import dataset_scripts
from dataset_scripts import lav_df
from dataset_scripts.errors import CorpusNotFoundError, CorpusWarning, MetadataError, MissingFilesError
from dataset_scripts.schema import FEATURES

dataset_scripts.register()
datasets.disable_progress_bars()

SPLITS = {"train": "train", "dev": "validation", "test": "test"}


@pytest.fixture(autouse=True)
def known_counts(monkeypatch):
    """Let the generated copies have the known size, so that only other warnings appear."""
    sizes = {folder: sum(row["split"] == folder for row in lav_df_rows()) for folder in SPLITS}
    monkeypatch.setattr(lav_df, "_KNOWN_ROWS", sizes)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("corpora") / "LAV-DF"
    write_lav_df(root)
    return root


stream = partial(streamed, "lav_df")


def test_rows_agree_with_the_metadata(copy, recwarn):
    splits = stream(copy)
    assert not [w for w in recwarn if issubclass(w.category, CorpusWarning)]
    assert list(splits) == ["train", "validation", "test"]
    for folder, split in SPLITS.items():
        listed = [row for row in lav_df_rows() if row["split"] == folder]
        assert [row["path"] for row in splits[split]] == [row["file"] for row in listed]
        for row, entry in zip(splits[split], listed, strict=True):
            seen, heard = entry["modify_video"], entry["modify_audio"]
            assert row["video"] == {"path": str(copy / entry["file"]), "bytes": None}
            assert (row["label"], row["video_label"], row["audio_label"]) == (seen or heard, seen, heard)
            assert row["generator"] == ("wav2lip" if seen else "real")
            assert row["audio_generator"] == ("sv2tts" if heard else "real")
            assert row["source"] == entry["original"]
            assert row["fake_segments"] == entry["fake_periods"]
            assert (row["audio"], row["identity"], row["language"]) == (None, None, None)
            for name in ("duration", "video_frames", "audio_frames", "audio_channels"):
                assert row[name] == entry[name]
    assert [row["modify_type"] for row in splits["test"][:4]] == [
        "real",
        "visual_modified",
        "audio_modified",
        "both_modified",
    ]


def test_subsets_are_those_of_the_authors(copy):
    """The conditions of the authors' evaluation script, on every split."""
    kept = {
        "subset_for_visual_only": lambda m: not (m["modify_video"] is False and m["modify_audio"] is True),
        "subset_for_audio_only": lambda m: not (m["modify_video"] is True and m["modify_audio"] is False),
        "all": lambda m: True,
    }
    for protocol, condition in kept.items():
        splits = stream(copy, protocol)
        expected = [row["file"] for row in lav_df_rows() if condition(row)]
        assert [row["path"] for rows in splits.values() for row in rows] == expected
        assert list(splits) == (["full"] if protocol == "all" else ["train", "validation", "test"])


def test_either_table(copy, tmp_path):
    write_lav_df(tmp_path / "LAV-DF", full=True)
    here, there = stream(tmp_path, "all")["full"], stream(copy, "all")["full"]  # the folder above
    assert [{**row, "video": None} for row in here] == [{**row, "video": None} for row in there]


def test_streaming_equals_loading(copy, tmp_path):
    loaded = load_dataset("lav_df", data_dir=str(copy), cache_dir=str(tmp_path))
    assert {split: rows_of(rows) for split, rows in loaded.items()} == stream(copy)
    assert list(loaded["test"].features) == [
        *FEATURES,
        "modify_type",
        "duration",
        "video_frames",
        "audio_frames",
        "audio_channels",
    ]


def test_sources_without_a_folder_and_without_a_row(tmp_path):
    rows = lav_df_rows()
    genuine = rows[0]["file"]
    rows[1]["original"] = str(genuine).removeprefix("train/")
    rows[2]["original"] = str(genuine).removeprefix("train/").removesuffix(".mp4")
    rows[3]["original"] = "train/999999.mp4"
    write_lav_df(tmp_path, rows)
    with pytest.warns(CorpusWarning, match="1 fakes have no source"):
        found = stream(tmp_path)["train"]
    assert [row["source"] for row in found[:4]] == [None, genuine, genuine, None]


def test_missing_files_and_parts(tmp_path):
    root = tmp_path / "copy"
    rows = write_lav_df(root)
    (root / rows[0]["file"]).unlink()
    with pytest.raises(MissingFilesError, match="1 of 24 files are missing: 1 of 8 of 'train'"):
        stream(root)
    with pytest.warns(CorpusWarning, match="Their rows are left out"):
        assert [row["path"] for row in stream(root, max_missing=0.05)["train"]] == [
            row["file"] for row in rows[1:8]
        ]
    (root / "train").rename(tmp_path / "elsewhere")
    with pytest.raises(MissingFilesError, match=r"no folder train.*parts=\['dev', 'test'\]"):
        stream(root)
    with pytest.warns(CorpusWarning, match="only test is loaded"):
        splits = stream(root, parts=["test"])
    assert {split: [row["path"] for row in found] for split, found in splits.items()} == {
        "test": [row["file"] for row in rows if row["split"] == "test"]
    }
    with pytest.raises(ValueError, match=r"no part 'tests'; .*Did you mean 'test'"):
        stream(root, parts=["tests"])
    with pytest.raises(ValueError, match="`parts` is a list"):
        stream(root, parts="test")


def test_wrong_folders(tmp_path):
    write_lav_df(tmp_path / "LAV-DF")
    with pytest.raises(CorpusNotFoundError, match=r"metadata\.min\.json or metadata\.json, and the folders"):
        stream(tmp_path / "LAV-DF" / "train")
    (tmp_path / "other" / "test").mkdir(parents=True)
    (tmp_path / "other" / "metadata.json").write_text('{"a.mp4": {"label": "FAKE"}}')
    with pytest.raises(MetadataError, match="character 0: expected a JSON list"):
        stream(tmp_path / "other", parts=["test"])


@pytest.mark.parametrize(
    ("number", "edit", "message"),
    [
        (1, {"split": "val"}, "split 'val' is none of train, dev, test"),
        (1, {"modify_video": 1}, "entry 1, modify_video: expected true or false, got 1"),
        (1, {"fake_periods": [[0.5]]}, "entry 1, fake_periods: expected"),
        (1, {"fake_periods": 0.5}, "entry 1, fake_periods: expected"),
        (0, {"fake_periods": [[0.5, 0.9]]}, "label is real but fake_segments"),
        (1, {"file": "train/000000.mp4"}, "entry 1: train/000000.mp4 is listed twice"),
    ],
)
def test_edited_metadata(tmp_path, number, edit, message):
    rows = lav_df_rows()
    rows[number].update(edit)
    write_lav_df(tmp_path, rows)
    with pytest.raises(MetadataError, match=message):
        stream(tmp_path)


def test_a_missing_field(tmp_path):
    write_lav_df(tmp_path, [{k: v for k, v in row.items() if k != "fake_periods"} for row in lav_df_rows()])
    with pytest.raises(MetadataError, match="entry 0: no fake_periods; it has file, n_fakes"):
        stream(tmp_path)


def test_strange_segments_and_counts(tmp_path):
    rows = lav_df_rows()[:-1]
    rows[1]["fake_periods"] = [[-0.02, 0.4], [1.0, 1.0]]
    rows[2]["fake_periods"] = []
    write_lav_df(tmp_path, rows)
    touch(tmp_path / "train" / "999999.mp4")
    with pytest.warns(CorpusWarning) as caught:
        train = stream(tmp_path)["train"]
    assert train[1]["fake_segments"] == [[0.0, 0.4]]
    assert (train[2]["label"], train[2]["fake_segments"]) == (1, None)
    said = [str(w.message) for w in caught]
    assert any("1 clips have fake segments" in m and "train/000001.mp4" in m for m in said)
    assert any("1 fakes have no fake_periods, such as train/000002.mp4" in m for m in said)
    assert any("test 7 clips, not the known train 8, dev 8, test 8" in m for m in said)
    assert any("1 mp4 files" in m and "train/999999.mp4" in m for m in said)


def test_a_clip_can_be_decoded(tmp_path):
    rows = write_lav_df(tmp_path / "copy")
    write_clip(tmp_path / "copy" / rows[0]["file"], frames=8)
    found = load_dataset(
        "lav_df", data_dir=str(tmp_path / "copy"), cache_dir=str(tmp_path / "cache"), split="train[:1]"
    )
    assert len(found[0]["video"]) == 8

"""The builders of AV-Deepfake1M and AV-Deepfake1M++ on generated copies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import pytest
from dataset_factory import corpus_notes, rows_of, touch, write_clip
from dataset_factory import streamed as stream
from dataset_trees.av_deepfake1m import (
    KINDS,
    first_edition_rows,
    second_edition_rows,
    write_part,
    write_test,
)
from datasets import load_dataset

import dataset_scripts
from dataset_scripts.av_deepfake1m import AVDeepfake1M
from dataset_scripts.av_deepfake1m_pp import AVDeepfake1MPlusPlus
from dataset_scripts.errors import CorpusNotFoundError, CorpusWarning, MetadataError, MissingFilesError
from dataset_scripts.schema import FEATURES

dataset_scripts.register()
datasets.disable_progress_bars()

FIRST, SECOND = "av_deepfake1m", "av_deepfake1m_pp"
SPLITS = {"train": "train", "val": "validation"}


@pytest.fixture(autouse=True)
def known_counts(monkeypatch):
    """Let the generated copies have the known size, so that only other warnings appear."""
    monkeypatch.setattr(AVDeepfake1M, "KNOWN_ROWS", {"train": 12, "val": 12})
    monkeypatch.setattr(AVDeepfake1MPlusPlus, "KNOWN_ROWS", {"val": 12})


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("corpora") / "AV-Deepfake1M"
    for split in SPLITS:
        write_part(root, split, first_edition_rows(split))
    return root


@pytest.fixture(scope="module")
def second(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("corpora") / "AV-Deepfake1M-PlusPlus"
    for split in SPLITS:
        write_part(root, split, second_edition_rows(split))
    return root


@pytest.mark.parametrize(
    ("name", "rows_in"), [(FIRST, first_edition_rows), (SECOND, second_edition_rows)], ids=[FIRST, SECOND]
)
def test_rows_agree_with_the_metadata(name, rows_in, first, second, recwarn):
    root = first if name == FIRST else second
    splits = stream(name, root)
    assert not corpus_notes(recwarn)
    assert list(splits) == ["train", "validation"]
    for folder, split in SPLITS.items():
        listed = rows_in(folder)
        assert [row["path"] for row in splits[split]] == [f"{folder}/{entry['file']}" for entry in listed]
        for row, entry in zip(splits[split], listed, strict=True):
            _, seen, heard = KINDS[entry["modify_type"]]
            assert row["video"] == {"path": str(root / row["path"]), "bytes": None}
            assert Path(row["video"]["path"]).is_file()
            assert (row["label"], row["video_label"], row["audio_label"]) == (seen or heard, seen, heard)
            picture = entry["video_model"] if name == SECOND else "Talklip"
            assert row["generator"] == (picture if seen else "real")
            assert row["audio_generator"] == ("yourtts" if heard else "real")
            for column in ("fake_segments", "visual_fake_segments", "audio_fake_segments", "modify_type"):
                assert row[column] == entry[column]
            assert (row["video_frames"], row["audio_frames"]) == (
                entry["video_frames"],
                entry["audio_frames"],
            )
            genuine = row["path"].rsplit("/", 1)[0] + "/real.mp4"
            assert row["source"] == (genuine if seen or heard else None)
            assert (row["audio"], row["language"]) == (None, None)


def test_people_and_origins(first, second):
    assert [row["identity"] for row in stream(FIRST, first)["validation"][::4]] == [
        "id00900",
        "id00901",
        "id00902",
    ]
    rows = stream(SECOND, second)["validation"][::4]
    assert [(row["origin"], row["identity"]) for row in rows] == [
        ("vox_celeb_2", "id00017"),
        ("lrs3", "0Fi83BHQsMA"),
        ("silent_videos", "subject_12"),
    ]


def test_columns_protocols_and_loading(first, second, tmp_path):
    common = ["modify_type", "visual_fake_segments", "audio_fake_segments", "video_frames", "audio_frames"]
    for name, root, own in ((FIRST, first, common), (SECOND, second, [*common, "origin"])):
        loaded = load_dataset(name, "all", data_dir=str(root), cache_dir=str(tmp_path), split="full")
        assert list(loaded.features) == [*FEATURES, *own]
        full = stream(name, root, "all")["full"]
        assert rows_of(loaded) == full == [row for rows in stream(name, root).values() for row in rows]
    assert AVDeepfake1M.GROUP_COLUMNS == ("modify_type",)
    assert AVDeepfake1MPlusPlus.GROUP_COLUMNS == ("modify_type", "origin")


def test_hyphens_and_paths_of_other_copies(first, tmp_path):
    """`both-modified`, paths that begin with the split, and an archive unpacked in a folder of its name."""
    rows = first_edition_rows("val")
    write_part(tmp_path / "copy", "val", rows, inside="val")
    for row in rows:
        row["modify_type"] = row["modify_type"].replace("_", "-")
        row["file"] = f"val/{row['file']}"
    (tmp_path / "copy" / "val_metadata.json").write_text(json.dumps(rows))
    found = stream(FIRST, tmp_path / "copy")["validation"]
    expected = stream(FIRST, first)["validation"]
    assert [{**row, "video": None} for row in found] == [{**row, "video": None} for row in expected]
    assert found[3]["video"]["path"] == str(tmp_path / "copy" / "val" / rows[3]["file"])
    assert Path(found[3]["video"]["path"]).is_file()


def test_the_test_split_is_left_out(tmp_path):
    write_part(tmp_path, "val", first_edition_rows("val"))
    write_test(tmp_path)
    with pytest.warns(CorpusWarning) as caught:
        assert list(stream(FIRST, tmp_path)) == ["validation"]
    (said,) = corpus_notes(caught)
    assert "test, test_files.txt: the test split is published without labels" in said


def test_parts_that_were_not_downloaded(first, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(first, root)
    shutil.rmtree(root / "train")
    with pytest.raises(
        MissingFilesError, match=r"metadata for train, val but no folder train.*parts=\['val'\]"
    ):
        stream(FIRST, root)
    expected = [row["path"] for row in stream(FIRST, first)["validation"]]
    splits = stream(FIRST, root, parts=["val"])
    assert {split: [row["path"] for row in rows] for split, rows in splits.items()} == {
        "validation": expected
    }
    (root / "train_metadata.json").unlink()
    assert list(stream(FIRST, root)) == ["validation"]
    with pytest.raises(CorpusNotFoundError, match=r"no train_metadata\.json in"):
        stream(FIRST, root, parts=["train"])
    with pytest.raises(ValueError, match="no part 'validation'; there are train, val"):
        stream(FIRST, root, parts=["validation"])


def test_missing_files(tmp_path):
    rows = first_edition_rows("val")
    write_part(tmp_path / "copy", "val", rows)
    (tmp_path / "copy" / "val" / rows[1]["file"]).unlink()
    touch(tmp_path / "copy" / "val" / "id00900" / "extra.mp4")
    with pytest.raises(MissingFilesError, match="1 of 12 files are missing: 1 of 12 of 'val'"):
        stream(FIRST, tmp_path / "copy", missing_files=str(tmp_path / "gone.txt"))
    assert (tmp_path / "gone.txt").read_text() == f"val/{rows[1]['file']}\n"
    with pytest.warns(CorpusWarning) as caught:
        found = stream(FIRST, tmp_path / "copy", max_missing=0.1)["validation"]
    assert len(found) == 11
    assert any("1 mp4 files" in m and "val/id00900/extra.mp4" in m for m in corpus_notes(caught))


def test_editions_are_told_apart(first, second):
    with pytest.raises(MetadataError, match=r"is of AV-Deepfake1M\+\+; load `av_deepfake1m_pp`"):
        stream(FIRST, second)
    with pytest.raises(MetadataError, match=r"no video_model.*load `av_deepfake1m` instead"):
        stream(SECOND, first)


def test_originals_outside_of_the_release(tmp_path):
    rows = second_edition_rows("val")
    rows[0]["original"] = None  # the genuine clip does not name its origin
    rows[5]["original"] = "val/lrs3/0Fi83BHQsMA/00002/real.mp4"
    write_part(tmp_path, "val", rows)
    with pytest.warns(CorpusWarning, match="3 fakes have no source"):
        found = stream(SECOND, tmp_path)["validation"]
    assert [row["source"] for row in found[1:4]] == [None] * 3
    assert found[5]["source"] == "val/lrs3/0Fi83BHQsMA/00002/real.mp4"


def test_types_that_the_segments_contradict(tmp_path):
    rows = first_edition_rows("val")
    rows[1]["audio_fake_segments"] = [[0.5, 1]]  # visual_modified
    rows[2]["fake_segments"] = rows[2]["audio_fake_segments"] = []  # audio_modified
    rows[3]["visual_fake_segments"] = None  # both_modified, not given
    rows[5]["visual_fake_segments"] = rows[5]["fake_segments"] = [[-0.25, 0.5], [1, 1]]
    write_part(tmp_path, "val", rows)
    with pytest.warns(CorpusWarning) as caught:
        found = stream(FIRST, tmp_path)["validation"]
    labels = [(row["label"], row["video_label"], row["audio_label"]) for row in found[1:4]]
    assert labels == [(1, None, None), (1, 0, 1), (1, 1, 1)]
    assert [row["generator"] for row in found[1:4]] == [None, "real", "Talklip"]
    assert found[2]["fake_segments"] is None
    assert found[3]["visual_fake_segments"] is None
    assert found[5]["fake_segments"] == found[5]["visual_fake_segments"] == [[0.0, 0.5]]
    said = corpus_notes(caught)
    assert len(said) == 3
    assert any("1 fakes have a modify_type that contradicts" in m and rows[1]["file"] in m for m in said)
    assert any("1 fakes have no fake_segments" in m and rows[2]["file"] in m for m in said)
    assert any("1 clips have fake segments that begin before 0" in m for m in said)


@pytest.mark.parametrize(
    ("number", "edit", "message"),
    [
        (1, {"modify_type": "lip_modified"}, "entry 1: modify_type 'lip_modified' is none of real"),
        (0, {"audio_fake_segments": [[1, 2]]}, "entry 0: .* is real and has fake segments"),
        (0, {"fake_segments": [[1, 2]]}, "label is real but fake_segments"),
        (1, {"visual_fake_segments": [1, 2]}, "entry 1, visual_fake_segments: expected"),
        (1, {"file": "id00900/21Uxsk56VDQ/00000/real.mp4"}, "entry 1: val/id00900.* is listed twice"),
    ],
)
def test_edited_metadata(tmp_path, number, edit, message):
    rows = first_edition_rows("val")
    rows[number].update(edit)
    write_part(tmp_path, "val", rows)
    with pytest.raises(MetadataError, match=message):
        stream(FIRST, tmp_path)


def test_metadata_that_are_cut_off(tmp_path):
    write_part(tmp_path, "val", first_edition_rows("val"))
    path = tmp_path / "val_metadata.json"
    text = path.read_text()
    path.write_text(text[:-300])
    with pytest.raises(MetadataError, match=r"entry 11 is not JSON \(.*\), or is cut off"):
        stream(FIRST, tmp_path)
    path.write_text("[]")
    with pytest.raises(MetadataError, match=r"val_metadata\.json has no rows"):
        stream(FIRST, tmp_path)
    path.write_text(text.replace("modify_type", "type"))
    with pytest.raises(MetadataError, match="entry 0: no modify_type; it has file"):
        stream(FIRST, tmp_path)


def test_unknown_size_warns(tmp_path, monkeypatch):
    monkeypatch.setattr(AVDeepfake1M, "KNOWN_ROWS", {"train": 746_180, "val": 57_340})
    write_part(tmp_path, "val", first_edition_rows("val"))
    with pytest.warns(CorpusWarning, match=r"val_metadata\.json lists 12 clips, not the known 57,340"):
        stream(FIRST, tmp_path)


def test_wrong_folders(first):
    assert stream(FIRST, first.parent) == stream(FIRST, first)  # the folder above
    with pytest.raises(CorpusNotFoundError, match=r"train_metadata\.json or val_metadata\.json"):
        stream(FIRST, first / "val")


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_a_clip_can_be_decoded(name, tmp_path):
    rows = first_edition_rows("val") if name == FIRST else second_edition_rows("val")
    write_part(tmp_path / "copy", "val", rows)
    write_clip(tmp_path / "copy" / "val" / rows[0]["file"], frames=8)
    found = load_dataset(
        name, data_dir=str(tmp_path / "copy"), cache_dir=str(tmp_path / "cache"), split="validation[:1]"
    )
    assert len(found[0]["video"]) == 8

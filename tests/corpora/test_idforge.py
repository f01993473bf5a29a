"""The IDForge builder on generated copies."""

from __future__ import annotations

from functools import partial

import datasets
import pytest
from dataset_factory import rows_of, streamed, touch, write_clip
from dataset_trees.idforge import idforge_lists, write_idforge, write_idforge_v2
from datasets import load_dataset

import dataset_scripts
from dataset_scripts import idforge
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

COLUMNS = ["category", "session", "text_manipulation", "audio_shuffled"]
# As in the table of the corpus: folder -> picture fake, sound fake.
LABELS = {
    "pristine": (0, 0),
    "face_audiomismatch_textmismatch": (1, 0),
    "face_rvc_textmismatch": (1, 1),
    "face_tts": (1, 1),
    "face_tts_textgen": (1, 1),
    "lip_audiomismatch_textmismatch": (1, 0),
    "lip_rvc_textmismatch": (1, 1),
    "lip_tts_textgen": (1, 1),
    "rvc_textmismatch": (0, 1),
    "tts_textgen": (0, 1),
    "tts_textmismatch": (0, 1),
}


@pytest.fixture(autouse=True)
def known_size(monkeypatch):
    """Let the generated copies have the known size, so that only other warnings appear."""
    monkeypatch.setattr(idforge, "_KNOWN_VALIDATION", len(idforge_lists()["val"]))


stream = partial(streamed, "idforge")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpora") / "IDForge_v1"
    write_idforge(root)
    return root


def test_rows_agree_with_lists_and_names(copy, recwarn):
    splits = stream(copy)
    assert not [warning for warning in recwarn if issubclass(warning.category, CorpusWarning)]
    assert list(splits) == ["train", "validation", "test"]
    lists = idforge_lists()
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        rows = splits[split]
        assert [row["path"] for row in rows] == lists[name]
        assert {row["category"] for row in rows} == set(LABELS)
        for row in rows:
            picture, sound = LABELS[row["category"]]
            assert row["video"] == {"path": str(copy / "main" / row["path"]), "bytes": None}
            assert (row["video_label"], row["audio_label"]) == (picture, sound)
            assert row["label"] == max(picture, sound)
            kind, person, session, _ = row["path"].split("/")
            assert (row["category"], row["identity"], row["session"]) == (kind, person, session)
            assert row["audio_generator"] == (
                "rvc" if "rvc" in kind else "tortoise" if "tts" in kind else "real"
            )
            assert row["audio_shuffled"] == ("audiomismatch" in kind)
            assert row["language"] == "en"
            assert row["fake_segments"] == ([] if kind == "pristine" else None)


def test_methods_and_sources_of_single_clips(copy):
    rows = {row["path"]: row for rows in stream(copy).values() for row in rows}
    swap = rows["face_tts_textgen/id00/id00_03/id00_scene_0015_2_simswap.mp4"]  # not the prefix face_tts
    assert (swap["generator"], swap["text_manipulation"], swap["source"]) == (
        "simswap-wav2lip",
        "textgen",
        None,
    )
    assert rows["face_tts/id00/id00_03/id00_scene_0017_0_roop.mp4"]["text_manipulation"] is None
    lips = rows["lip_rvc_textmismatch/id00/id00_03/id00_scene_0012-1.mp3.mp4"]
    assert (lips["generator"], lips["text_manipulation"]) == ("wav2lip", "textmismatch")
    assert lips["source"] == "pristine/id00/id00_03/id00_scene_0012-1.mp4"
    voice = rows["rvc_textmismatch/id00/id00_03/id00_scene_0058.mp3.mp4"]
    assert (voice["generator"], voice["source"]) == ("real", "pristine/id00/id00_03/id00_scene_0058.mp4")
    assert (
        rows["tts_textgen/id00/id00_03/id00_03-314.mp4"]["source"] == "pristine/id00/id00_03/id00_03-314.mp4"
    )
    assert rows["tts_textmismatch/id00/id00_03/id00_scene_0099-7.mp4"]["source"] is None
    genuine = rows["pristine/id00/id00_03/id00_scene_0058.mp4"]
    assert (genuine["generator"], genuine["source"]) == ("real", None)


def test_streaming_equals_loading(copy, tmp_path):
    loaded = load_dataset("idforge", data_dir=str(copy), cache_dir=str(tmp_path))
    assert {split: rows_of(rows) for split, rows in loaded.items()} == stream(copy)
    assert list(loaded["test"].features) == [*FEATURES, *COLUMNS]
    assert set(idforge.IDForge.GROUP_COLUMNS) <= set(COLUMNS)


def test_all_needs_no_lists_and_official_names_the_absent_ones(tmp_path):
    lists = write_idforge(tmp_path / "copy", place="elsewhere")
    rows = stream(tmp_path / "copy", "all")["full"]
    assert [row["path"] for row in rows] == sorted(line for lines in lists.values() for line in lines)
    with pytest.raises(ProtocolError, match=r"no list train\.csv and no list val\.csv and no list test\.csv"):
        stream(tmp_path / "copy")


@pytest.mark.parametrize("place", ["", "IDForge_v1", "main"])
def test_lists_and_folders_are_found_where_users_have_them(tmp_path, place):
    write_idforge(tmp_path / "copy", place=place)
    expected = stream(tmp_path / "copy")
    assert stream(tmp_path / "copy" / "main") == expected
    lines = {split: [row["path"] for row in rows] for split, rows in expected.items()}
    assert lines == dict(zip(("train", "validation", "test"), idforge_lists().values(), strict=True))


def test_another_table_above_the_folder_is_not_a_list(tmp_path):
    write_idforge(tmp_path / "copy" / "IDForge")
    (tmp_path / "copy" / "train.csv").write_text("file_name,label\na.mp4,real\n")
    assert len(stream(tmp_path / "copy" / "IDForge" / "main")["test"]) == len(idforge_lists()["test"])


def test_lists_in_other_spellings(tmp_path):
    lists = idforge_lists()
    write_idforge(tmp_path / "copy")
    lines = [f".\\main\\{line}".replace("/", "\\") for line in lists["val"]]
    (tmp_path / "copy" / "main" / "val.csv").write_text(
        "\ufeff" + "\r\n".join(["", *lines, lines[0]]) + "\r\n"
    )
    with pytest.warns(CorpusWarning, match="1 lines of the lists repeat a clip"):
        validation = stream(tmp_path / "copy")["validation"]
    assert [row["path"] for row in validation] == lists["val"]


def test_missing_parts_are_named(tmp_path):
    lists = write_idforge(tmp_path / "copy")
    (tmp_path / "copy" / "main" / "face_tts").rename(tmp_path / "gone")
    with pytest.raises(MissingFilesError, match=r"6 of \d+ files are missing: all 6 of 'face_tts'"):
        stream(tmp_path / "copy")
    with pytest.warns(CorpusWarning, match="Their rows are left out"):
        train = stream(tmp_path / "copy", max_missing=0.5)["train"]
    assert [r["path"] for r in train] == [p for p in lists["train"] if not p.startswith("face_tts/")]


def test_stray_files_and_odd_names_are_noted(tmp_path):
    lists = idforge_lists()
    lists["train"].append("face_tts/id00/id00_03/id00_scene_0017_1_deepfakes.mp4")
    write_idforge(tmp_path / "copy", lists)
    touch(tmp_path / "copy" / "main" / "pristine" / "id00" / "id00_03" / "extra.mp4")
    with pytest.warns(CorpusWarning) as caught:
        train = stream(tmp_path / "copy")["train"]
    said = [str(warning.message) for warning in caught]
    assert any("1 video files" in m and "pristine/id00/id00_03/extra.mp4" in m for m in said)
    assert any("1 clips of the face_ folders name none of infoswap, roop, simswap" in m for m in said)
    assert (train[-1]["label"], train[-1]["generator"]) == (1, None)


def test_edited_lists(tmp_path, monkeypatch):
    lists = idforge_lists()
    write_idforge(tmp_path / "copy")
    main = tmp_path / "copy" / "main"
    (main / "test.csv").write_text("pristine/id00/a.mp4\npristin/id00/b.mp4\n")
    with pytest.raises(MetadataError, match=r"test\.csv, line 2: .*Did you mean 'pristine'"):
        stream(tmp_path / "copy")
    (main / "test.csv").write_text(f"{lists['train'][0]}\n")
    with pytest.raises(MetadataError, match=r"line 1: .* is in the train list too"):
        stream(tmp_path / "copy")
    (main / "test.csv").write_text("".join(f"{line}\n" for line in lists["test"]))
    monkeypatch.setattr(idforge, "_KNOWN_VALIDATION", 17_343)
    with pytest.warns(CorpusWarning, match="not the known 17,343"):
        stream(tmp_path / "copy")


def test_wrong_folders(tmp_path):
    write_idforge_v2(tmp_path / "IDForge_v2")
    for folder in (tmp_path / "IDForge_v2", tmp_path):
        with pytest.raises(CorpusNotFoundError, match=r"is IDForge v2.*Take IDForge v1"):
            stream(folder)
    (tmp_path / "other" / "clips").mkdir(parents=True)
    with pytest.raises(CorpusNotFoundError, match=r"pristine/ and face_tts/.*found clips"):
        stream(tmp_path / "other")
    touch(tmp_path / "empty" / "pristine" / "readme.txt")
    with pytest.raises(CorpusNotFoundError, match="no video file in the folders pristine"):
        stream(tmp_path / "empty")


def test_a_clip_is_decoded(tmp_path):
    write_idforge(tmp_path / "copy")
    first = idforge_lists()["val"][0]
    write_clip(tmp_path / "copy" / "main" / first)
    found = load_dataset(
        "idforge",
        data_dir=str(tmp_path / "copy"),
        cache_dir=str(tmp_path / "cache"),
        split="validation",
        streaming=True,
    )
    assert next(iter(found))["video"].metadata.num_frames == 8

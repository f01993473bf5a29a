"""The PolyGlotFake builder on generated copies."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial

import datasets
import pytest
from dataset_factory import corpus_notes, rows_of, streamed, touch, write_clip
from dataset_trees.polyglotfake import polyglot_clips, write_json, write_polyglotfake
from datasets import load_dataset

import dataset_scripts
from dataset_scripts import polyglotfake
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

COLUMNS = ["source_language", "origin", "age", "sex"]
METHODS = {
    "Bark": "bark",
    "MicroTts": "microtts",
    "Tacotron": "tacotron",
    "Vall": "vall-e-x",
    "Xtts": "xtts",
    "Wav2Lip": "wav2lip",
    "video_retalking": "video_retalking",
}


@pytest.fixture(autouse=True)
def known_size(monkeypatch):
    """Let the generated copies have the known size, so that only other warnings appear."""
    fakes = sum("_to_" in clip["filename"] for clip in polyglot_clips())
    monkeypatch.setattr(
        polyglotfake, "_KNOWN", {"genuine clips": len(polyglot_clips()) - fakes, "fakes": fakes}
    )


stream = partial(streamed, "polyglotfake")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpora") / "PolyGlotFake"
    write_polyglotfake(root)
    return root


def test_rows_agree_with_names_and_json(copy, recwarn):
    rows = {row["path"]: row for row in stream(copy, "all")["full"]}
    assert corpus_notes(recwarn) == []
    clips = polyglot_clips()
    assert len(rows) == len(clips)
    for clip in clips:
        row = rows[f"{clip['folder']}/{clip['filename']}"]
        assert row["video"] == {"path": str(copy / row["path"]), "bytes": None}
        fake = "tts_technique" in clip
        assert (row["label"], row["video_label"], row["audio_label"]) == (fake, fake, fake)
        assert row["generator"] == (METHODS[clip["sync_tech"]] if fake else "real")
        assert row["audio_generator"] == (METHODS[clip["tts_technique"]] if fake else "real")
        assert row["language"] == (clip["target_lang"] if fake else clip["lang"])
        assert row["source_language"] == (clip["raw_lang"] if fake else clip["lang"])
        name = clip["filename"].split("_to_")[0].removesuffix(".mp4")
        assert row["source"] == (f"real/{row['source_language']}/{name}.mp4" if fake else None)
        number = int(name.split("_")[1])
        assert row["origin"] == f"URL:https://video.example/{row['source_language']}/{max(number, 2)}"
        assert (row["age"], row["sex"], row["identity"]) == (str(20 + number), "female", None)
        assert row["fake_segments"] == (None if fake else [])


def test_splits_keep_the_fakes_of_a_video_together(copy):
    splits = stream(copy)
    assert list(splits) == ["train", "validation", "test"]
    sizes = {}
    seen: dict[str, set[str]] = {}
    for split, rows in splits.items():
        assert {row["source_language"] for row in rows if split != "validation"} <= set(
            polyglotfake._LANGUAGES
        )
        for row in rows:
            seen.setdefault(row["origin"], set()).add(split)
        sizes[split] = len({row["origin"] for row in rows})
    assert all(len(found) == 1 for found in seen.values())
    assert sizes == {"train": 40, "validation": 4, "test": 19}  # of 63 videos
    assert sum(map(len, splits.values())) == len(polyglot_clips())
    held = Counter(next(iter(seen[origin])) for origin in seen)
    assert held == sizes
    assert stream(copy, seed=1) != splits
    per_language = Counter(origin.split("/")[-2] for origin, found in seen.items() if found == {"test"})
    assert set(per_language.values()) <= {2, 3}  # 30 % of 9, for each language


def test_held_out_language(copy):
    base, splits = stream(copy), stream(copy, "held_out_ja")
    for split in ("train", "validation"):
        expected = [row for row in base[split] if "ja" not in (row["language"], row["source_language"])]
        assert splits[split] == expected
        assert len(expected) < len(base[split])
    assert splits["test"] == [row for row in base["test"] if row["language"] == "ja"]
    assert {row["label"] for row in splits["test"]} == {0, 1}


def test_streaming_equals_loading(copy, tmp_path):
    loaded = load_dataset("polyglotfake", data_dir=str(copy), cache_dir=str(tmp_path))
    assert {split: rows_of(rows) for split, rows in loaded.items()} == stream(copy)
    assert list(loaded["test"].features) == [*FEATURES, *COLUMNS]
    assert set(polyglotfake.PolyGlotFake.GROUP_COLUMNS) <= set(COLUMNS)


def test_without_json_the_names_are_enough(tmp_path):
    write_polyglotfake(tmp_path / "copy", with_json=False, below="raw_dataset")
    with pytest.warns(CorpusWarning, match="has no json files"):
        rows = stream(tmp_path / "copy", "all")["full"]
    assert len(rows) == len(polyglot_clips())
    fake = next(row for row in rows if row["path"] == "raw_dataset/fake/to_en/ar_1_to_en_Tacotron.mp4")
    assert (fake["audio_generator"], fake["generator"], fake["origin"]) == ("tacotron", None, None)
    assert fake["source"] == "raw_dataset/real/ar/ar_1.mp4"


def test_folders_of_a_pair_of_languages_name_the_method(tmp_path):
    root = tmp_path / "copy"
    for folder in ("ar2en_Wav2Lip", "ar2en_video_retalking"):
        touch(root / folder / "ar_1_to_en_Xtts.mp4")  # the same name in both
    touch(root / "real-ar" / "ar_1.mp4")
    touch(
        root / "ar2en_Wav2Lip" / "AR_1_to_EN_bark_freevc_video-retalking.MP4"
    )  # the name contradicts its folder
    with pytest.warns(CorpusWarning) as caught:
        rows = {row["path"]: row for row in stream(root, "all")["full"]}
    assert rows["ar2en_Wav2Lip/ar_1_to_en_Xtts.mp4"]["generator"] == "wav2lip"
    assert rows["ar2en_video_retalking/ar_1_to_en_Xtts.mp4"]["generator"] == "video_retalking"
    odd = rows["ar2en_Wav2Lip/AR_1_to_EN_bark_freevc_video-retalking.MP4"]
    assert (odd["generator"], odd["audio_generator"], odd["language"]) == ("video_retalking", "bark", "en")
    assert {row["source"] for row in rows.values() if row["label"]} == {"real-ar/ar_1.mp4"}
    assert any("1 fakes have different methods in their name" in message for message in corpus_notes(caught))


def test_a_name_with_two_methods_in_the_json_decides_nothing(tmp_path):
    clips = polyglot_clips()
    fake = next(clip for clip in clips if "_to_" in clip["filename"])
    clips.append({**fake, "sync_tech": "video_retalking" if fake["sync_tech"] == "Wav2Lip" else "Wav2Lip"})
    write_polyglotfake(tmp_path / "copy", clips)
    row = next(
        row for row in stream(tmp_path / "copy", "all")["full"] if row["path"].endswith(fake["filename"])
    )
    assert (row["generator"], row["audio_generator"]) == (None, METHODS[fake["tts_technique"]])


def test_missing_files_are_those_that_the_json_lists(tmp_path):
    clips = write_polyglotfake(tmp_path / "copy")
    (tmp_path / "copy" / "fake" / "to_ru" / clips_of(clips, "fake/to_ru")[0]).unlink()
    base = stream(tmp_path / "copy", max_missing=1.0)
    (tmp_path / "copy" / "fake" / "to_ru").rename(tmp_path / "gone")
    with pytest.raises(MissingFilesError, match=r"20 of 210 files are missing: all 20 of 'fake/to_ru'"):
        stream(tmp_path / "copy", max_missing=0.05)
    with pytest.warns(CorpusWarning, match="all 20 of 'fake/to_ru'"):
        rest = stream(tmp_path / "copy")  # up to a tenth may be missing
    for split, rows in base.items():  # no other clip changes its split
        assert rest[split] == [row for row in rows if "to_ru" not in row["path"]]


def clips_of(clips, folder) -> list[str]:
    return [str(clip["filename"]) for clip in clips if clip["folder"] == folder]


def test_strays_and_sizes_are_noted(tmp_path, monkeypatch):
    clips = polyglot_clips()
    write_polyglotfake(tmp_path / "copy", [c for c in clips if c["filename"] not in ("ar_1.mp4",)])
    touch(tmp_path / "copy" / "fake" / "to_en" / "ar_1_to_xx_Bark.mp4")
    touch(tmp_path / "copy" / "fake" / "to_en" / "demo.mp4")
    touch(tmp_path / "copy" / "fake" / "to_en" / "ar_9_to_en_Vits.mp4")
    monkeypatch.setattr(polyglotfake, "_KNOWN", {"genuine clips": 766, "fakes": 14_472})
    with pytest.warns(CorpusWarning) as caught:
        rows = stream(tmp_path / "copy", "all")["full"]
    said = corpus_notes(caught)
    assert any("2 files" in m and "ar_1_to_xx_Bark.mp4, fake/to_en/demo.mp4" in m for m in said)
    assert any(
        "1 fakes name no known method of speech synthesis" in m and "ar_9_to_en_Vits.mp4" in m for m in said
    )
    assert any(
        "69 genuine clips and 141 fakes, not the known 766 genuine clips and 14,472 fakes" in m for m in said
    )
    assert any("2 fakes have no source" in m for m in said)
    assert next(r for r in rows if "Vits" in r["path"])["audio_generator"] is None


def test_edited_json(tmp_path, recwarn):
    write_polyglotfake(tmp_path / "copy")
    path = tmp_path / "copy" / "json_file" / "real_json_file" / "all_real_video.json"
    path.write_text(json.dumps({"videos": [{"filename": "ar_1.mp4"}, {"name": "ar_2.mp4"}]}))
    with pytest.raises(MetadataError, match=r"all_real_video\.json, entry 1: .*`filename`"):
        stream(tmp_path / "copy")
    path.write_text(json.dumps({"videos": {"ar_1.mp4": {}}}))
    with pytest.raises(MetadataError, match="expected a list of clips under `videos`"):
        stream(tmp_path / "copy")
    path.write_text("{'videos': []}")
    with pytest.raises(MetadataError, match="not JSON"):
        stream(tmp_path / "copy")
    path.write_text(json.dumps({"moved": "elsewhere"}))  # another json file, such as a log
    assert len(stream(tmp_path / "copy", "all")["full"]) == len(polyglot_clips())
    assert corpus_notes(recwarn) == []


def test_a_changed_json_is_read_again(tmp_path):
    clips = write_polyglotfake(tmp_path / "copy")
    settings = {"data_dir": str(tmp_path / "copy"), "cache_dir": str(tmp_path / "cache"), "split": "full"}
    first = Counter(load_dataset("polyglotfake", "all", **settings)["generator"])
    write_json(
        tmp_path / "copy", [{**c, **({"sync_tech": "Wav2Lip"} if "sync_tech" in c else {})} for c in clips]
    )
    assert Counter(load_dataset("polyglotfake", "all", **settings)["generator"]) != first


def test_wrong_folders(tmp_path):
    write_polyglotfake(tmp_path / "corpora" / "PolyGlotFake")
    assert stream(tmp_path / "corpora") == stream(tmp_path / "corpora" / "PolyGlotFake")
    with pytest.raises(CorpusNotFoundError, match="real/ and fake/"):
        stream(tmp_path / "corpora" / "PolyGlotFake" / "real" / "ar")
    touch(tmp_path / "other" / "real" / "a.mp4")
    touch(tmp_path / "other" / "fake" / "b.mp4")
    with pytest.raises(CorpusNotFoundError, match=r"2 mp4 files are named otherwise, such as fake/b\.mp4"):
        stream(tmp_path / "other")
    write_polyglotfake(tmp_path / "few", [c for c in polyglot_clips() if c["filename"].startswith("ar_")])
    with pytest.raises(ProtocolError, match="no test clip spoken in zh"):
        stream(tmp_path / "few", "held_out_zh")


def test_a_clip_is_decoded(tmp_path):
    write_polyglotfake(tmp_path / "copy")
    write_clip(tmp_path / "copy" / "fake" / "to_en" / "ar_1_to_en_Tacotron.mp4")
    settings = {"data_dir": str(tmp_path / "copy"), "cache_dir": str(tmp_path / "cache"), "split": "full"}
    full = load_dataset("polyglotfake", "all", **settings)
    place = full["path"].index("fake/to_en/ar_1_to_en_Tacotron.mp4")
    assert full[place]["video"].metadata.num_frames == 8

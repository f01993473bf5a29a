"""The KoDF builder on generated copies of both distributions."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import datasets
import pytest
from dataset_factory import corpus_notes, rows_of, streamed, touch, write_clip
from dataset_trees.kodf import METHODS, kodf_clips, people, write_kodf_aihub, write_kodf_international
from datasets import load_dataset

import dataset_scripts
from dataset_scripts import kodf
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

COLUMNS = ["donor", "sex", "place"]
PARTS = {"training": people(1, 20), "validation": people(101, 5)}
SIZES = {"training": (40, 100), "validation": (10, 25), "test": (0, 0)}  # two clips and five fakes a person
PUBLISHED = dict(kodf._KNOWN)


@pytest.fixture(autouse=True)
def known_size(monkeypatch):
    """Let the generated copies have the known size, so that only other warnings appear."""
    monkeypatch.setattr(kodf, "_KNOWN", SIZES)


stream = partial(streamed, "kodf")


@pytest.fixture(scope="module")
def international(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpora") / "kodf_release"
    write_kodf_international(root, people(1, 25))
    return root


@pytest.fixture(scope="module")
def aihub(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpora") / "aihub"
    write_kodf_aihub(root, PARTS)
    return root


def test_rows_of_the_international_release(international, recwarn):
    rows = {row["path"].rpartition("/")[2]: row for row in stream(international, "all")["full"]}
    assert corpus_notes(recwarn) == []
    genuine, fakes = kodf_clips(people(1, 25))
    assert len(rows) == len(genuine) + len(fakes) == 175
    for file, person in genuine:
        row = rows[file]
        assert row["path"] == f"original_videos/{person}/{file}"
        assert row["video"] == {"path": str(international / row["path"]), "bytes": None}
        assert (row["label"], row["video_label"], row["audio_label"]) == (0, 0, 0)
        assert (row["identity"], row["donor"], row["generator"]) == (person, None, "real")
        assert (row["language"], row["fake_segments"]) == ("ko", [])
    for file, _, person, other, method in fakes:
        row = rows[file]
        assert row["path"] == f"synthesized_videos/{method}/20200915/{person}/{file}"
        assert (row["label"], row["video_label"]) == (1, 1)
        assert row["audio_label"] == (None if method == "audio-driven" else 0)
        assert row["audio_generator"] == (None if method == "audio-driven" else "real")
        assert (row["identity"], row["donor"], row["generator"]) == (person, other, method)
        assert (row["source"], row["sex"], row["fake_segments"]) == (None, None, None)
    assert {row["generator"] for row in rows.values()} == {"real", *METHODS}


@pytest.mark.parametrize(
    ("encoding", "decomposed"), [("utf-8-sig", False), ("cp949", False), ("utf-8", True)]
)
def test_rows_of_aihub(tmp_path, encoding, decomposed):
    written = write_kodf_aihub(tmp_path / "copy", PARTS, encoding, decomposed)
    with pytest.warns(CorpusWarning) as caught:
        rows = {row["path"]: row for row in stream(tmp_path / "copy", "all")["full"]}
    assert (
        len(corpus_notes(caught)) == 1
        and "2 clips with adversarial noise are not used" in corpus_notes(caught)[0]
    )
    assert len(rows) == 175
    for part, (genuine, fakes) in written.items():
        for n, (file, person) in enumerate(genuine):
            row = rows[f"{part}/real/{file}"]
            assert Path(row["video"]["path"]).is_file() and Path(row["video"]["path"]).name == file
            assert (row["label"], row["identity"], row["place"]) == (0, person, "실내")
            assert row["sex"] == ("남" if n % 2 else "여")
        for file, target, person, other, method in fakes:
            row = rows[f"{part}/{method}/{file}"]
            assert "noise" not in row["video"]["path"]
            assert (row["label"], row["identity"], row["donor"]) == (1, person, other)
            assert (row["generator"], row["source"]) == (method, f"{part}/real/{target}")
            assert row["audio_label"] == (None if method == "audio-driven" else 0)


def test_splits_by_person(international, aihub):
    for root in (international, aihub):
        splits = stream(root)
        assert list(splits) == ["train", "validation", "test"]
        found = {split: {row["identity"] for row in rows} for split, rows in splits.items()}
        assert {split: len(persons) for split, persons in found.items()} == {
            "train": 16,
            "validation": 2,
            "test": 7,
        }
        assert len(set.union(*found.values())) == 25
        assert stream(root, seed=3) != splits


def test_parts_of_aihub(aihub):
    splits = stream(aihub, "aihub")
    assert {row["identity"] for row in splits["test"]} == set(PARTS["validation"])
    persons = [{row["identity"] for row in splits[split]} for split in ("train", "validation")]
    assert persons[0] | persons[1] == set(PARTS["training"])
    assert not persons[0] & persons[1]
    assert [len(found) for found in persons] == [18, 2]


def test_a_test_part_is_taken_as_published(tmp_path, monkeypatch):
    parts = {**PARTS, "test": people(201, 3)}
    write_kodf_aihub(tmp_path / "copy", parts)
    monkeypatch.setattr(kodf, "_KNOWN", {**SIZES, "test": (6, 15)})
    splits = stream(tmp_path / "copy", "aihub")
    found = {split: {row["identity"] for row in rows} for split, rows in splits.items()}
    assert found == {split: set(parts[part]) for split, part in zip(splits, parts, strict=True)}


def test_parts_need_the_tables(international, tmp_path, monkeypatch):
    with pytest.raises(ProtocolError, match="the international release has no parts"):
        stream(international, "aihub")
    write_kodf_aihub(tmp_path / "copy", {"validation": PARTS["validation"]})
    with pytest.raises(ProtocolError, match="the tables of this copy are of validation"):
        stream(tmp_path / "copy", "aihub")
    monkeypatch.setattr(kodf, "_KNOWN", PUBLISHED)
    with pytest.warns(CorpusWarning, match="10 genuine clips and 25 fakes, not the known 6,093 and 16,894"):
        stream(tmp_path / "copy", "all")


def test_people_in_both_parts_are_noted(tmp_path):
    shared = {"training": PARTS["training"], "validation": people(200, 1)}
    write_kodf_aihub(tmp_path / "copy", shared)
    table = next((tmp_path / "copy").rglob("*원본영상_validation*.csv"))
    text = table.read_text(encoding="utf-8-sig").replace(f",{people(200, 1)[0]},", f",{people(1, 1)[0]},")
    table.write_text(text, encoding="utf-8-sig")
    with pytest.warns(CorpusWarning, match="1 people are in both parts"):
        stream(tmp_path / "copy", "aihub")


def test_streaming_equals_loading(aihub, tmp_path):
    loaded = load_dataset("kodf", "aihub", data_dir=str(aihub), cache_dir=str(tmp_path))
    assert {split: rows_of(rows) for split, rows in loaded.items()} == stream(aihub, "aihub")
    assert list(loaded["test"].features) == [*FEATURES, *COLUMNS]
    assert set(kodf.KoDF.GROUP_COLUMNS) <= set(COLUMNS)


def test_missing_parts_are_named(tmp_path):
    write_kodf_aihub(tmp_path / "copy", PARTS)
    folder = next((tmp_path / "copy").rglob("1.Training/*/train_변조/fsgan1"))
    base = stream(tmp_path / "copy")
    folder.rename(tmp_path / "gone")
    with pytest.raises(MissingFilesError, match=r"20 of 175 files are missing: all 20 of 'training fsgan'"):
        stream(tmp_path / "copy")
    with pytest.warns(CorpusWarning, match="Their rows are left out"):
        rest = stream(tmp_path / "copy", max_missing=0.2)
    for split, rows in base.items():
        assert rest[split] == [row for row in rows if not row["path"].startswith("training/fsgan/")]


def test_garbled_folders_and_tables_do_no_harm(tmp_path, aihub):
    write_kodf_aihub(tmp_path / "copy", PARTS)
    korean = [path for path in (tmp_path / "copy").rglob("*") if not path.name.isascii()]
    for path in sorted(korean, key=lambda path: -len(path.parts)):
        path.rename(path.with_name(path.name.encode("cp949").decode("cp437")))
    with pytest.warns(CorpusWarning) as caught:
        rows = stream(tmp_path / "copy", "all")["full"]
    # The folder of noisy clips cannot be recognised any more: the user is warned.
    assert any("2 file names are on disk more than once" in message for message in corpus_notes(caught))
    assert sorted(row["path"] for row in rows) == sorted(row["path"] for row in stream(aihub, "all")["full"])


def test_malformed_tables(tmp_path):
    write_kodf_aihub(tmp_path / "copy", PARTS)
    fakes = next((tmp_path / "copy").rglob("*변조영상_training*.csv"))
    text = fakes.read_text(encoding="utf-8-sig")
    fakes.write_text(text.replace(",dffs,", ",dfss,"), encoding="utf-8-sig")
    with pytest.raises(MetadataError, match=r"line 3, column 변조모델: 'dfss'.*Did you mean 'dffs'"):
        stream(tmp_path / "copy")
    fakes.write_text(text.replace("변조모델", "모델"), encoding="utf-8-sig")
    with pytest.raises(MetadataError, match="line 2: no column 변조모델"):
        stream(tmp_path / "copy")
    fakes.write_text(text + text.splitlines()[1] + "\n", encoding="utf-8-sig")
    with pytest.raises(MetadataError, match=r"is already in .*line 2; a clip has one row"):
        stream(tmp_path / "copy")
    fakes.write_bytes(text.encode("utf-8-sig") + b"\xff\xff\xff\n")
    with pytest.raises(MetadataError, match="its encoding is none of utf-8-sig, cp949"):
        stream(tmp_path / "copy")
    fakes.write_text(text, encoding="utf-8-sig")
    (tmp_path / "tables").mkdir()
    fakes.rename(tmp_path / "tables" / "fakes.csv")
    with pytest.raises(MetadataError, match="its name has none of training, validation, test"):
        stream(tmp_path / "tables")


def test_strays_and_absent_methods_are_noted(tmp_path, monkeypatch):
    write_kodf_international(tmp_path / "copy", people(1, 25))
    root = tmp_path / "copy"
    (root / "synthesized_videos" / "dfl").rename(tmp_path / "gone")
    touch(root / "synthesized_videos" / "fo" / "20200915" / "preview.mp4")
    touch(root / "adversarial_videos" / "000003_000006_4_0001.mp4")
    monkeypatch.setattr(kodf, "_KNOWN", PUBLISHED)
    with pytest.warns(CorpusWarning) as caught:
        stream(root)
    said = corpus_notes(caught)
    assert any("1 clips with adversarial noise" in message for message in said)
    assert any("1 mp4 files are not named" in m and "fo/20200915/preview.mp4" in m for m in said)
    assert any("has no clip of dfl" in message for message in said)
    assert any("50 genuine clips and 100 fakes, not the known 62,166 and 175,776" in m for m in said)
    touch(root / "synthesized_videos" / "fo" / "20200915" / "000003" / "000003_000006_9_0001.mp4")
    with pytest.raises(MetadataError, match="code 9 is not a method"):
        stream(root)


def test_wrong_folders(tmp_path, international, aihub):
    assert stream(international.parent) == stream(international)
    assert stream(aihub.parent, "aihub") == stream(aihub, "aihub")  # at any depth
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "rows.csv").write_text("file_name,label\n")
    with pytest.raises(CorpusNotFoundError, match=r"original_videos or synthesized_videos .*found rows\.csv"):
        stream(tmp_path / "other")
    touch(tmp_path / "named" / "original_videos" / "a" / "clip.mp4")
    with pytest.raises(CorpusNotFoundError, match=r"for example original_videos/a/clip\.mp4"):
        stream(tmp_path / "named")


def test_a_clip_is_decoded(tmp_path):
    paths = write_kodf_international(tmp_path / "copy", people(1, 25))
    write_clip(tmp_path / "copy" / sorted(paths)[0])
    found = load_dataset(
        "kodf", "all", data_dir=str(tmp_path / "copy"), cache_dir=str(tmp_path / "cache"), streaming=True
    )
    assert next(iter(found["full"]))["video"].metadata.num_frames == 8


def test_folders_in_bytes_of_cp949(tmp_path, aihub):
    """An archive unpacked on a system without Korean names: the same rows, without the clips with adversarial noise."""
    for path in sorted(aihub.rglob("*")):
        if path.is_file():
            name = os.fsdecode(str(path.relative_to(aihub)).encode("cp949"))
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(path.read_bytes())
    found, expected = (stream(root, "all")["full"] for root in (tmp_path, aihub))
    same = [key for key in expected[0] if key != "video"]
    assert [[row[key] for key in same] for row in found] == [[row[key] for key in same] for row in expected]
    assert all(Path(row["video"]["path"]).is_symlink() for row in found)

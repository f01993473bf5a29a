"""The DeepSpeak builder on generated copies of its three releases."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import datasets
import pytest
from dataset_factory import corpus_notes, rows_of, streamed, touch, write_clip
from dataset_trees.deepspeak import HEADERS, PEOPLE, REAL_HEADER, deepspeak_rows, write_deepspeak, write_table
from datasets import load_dataset

import dataset_scripts
from dataset_scripts import deepspeak
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

PUBLISHED = dict(deepspeak._KNOWN)
RELEASES = ("v1", "v1.1", "v2")
COLUMNS = ["release", "kind", "donor", "gesture", "script", "gen_config"]


@pytest.fixture(autouse=True)
def known_size(monkeypatch):
    """Let the generated copies have the known size, so that only other warnings appear."""
    sizes = {release: (release, *map(len, deepspeak_rows(release))) for release in ("v1", "v2")}
    monkeypatch.setattr(deepspeak, "_KNOWN", sizes)


stream = partial(streamed, "deepspeak")


@pytest.fixture(scope="module", params=RELEASES)
def release(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def copy(release, tmp_path_factory):
    root = tmp_path_factory.mktemp("corpora") / "deepspeak"
    write_deepspeak(root, release)
    return root


def test_rows_agree_with_the_tables(copy, release, recwarn):
    rows = {row["path"]: row for row in stream(copy, "all")["full"]}
    assert corpus_notes(recwarn) == []
    genuine, fakes = deepspeak_rows(release)
    assert list(rows) == [row[0] for row in genuine + fakes]
    for cells in genuine:
        entry = dict(zip(REAL_HEADER.split(","), cells, strict=True))
        row = rows[entry["video-file"]]
        assert Path(row["video"]["path"]).is_file()
        assert (row["label"], row["video_label"], row["audio_label"], row["generator"]) == (0, 0, 0, "real")
        assert (row["identity"], row["donor"], row["source"]) == (entry["identity"], None, None)
        assert row["language"] == (None if entry["script-type"] == "no-speech" else "en")
        assert (row["release"], row["script"]) == (release[:2], entry["script-type"])
    for cells in fakes:
        entry = dict(zip(HEADERS[release].split(","), cells, strict=True))
        row = rows[entry["video-file"]]
        assert (row["label"], row["video_label"], row["generator"]) == (1, 1, entry["engine"])
        assert (row["identity"], row["donor"]) == (entry["identity-target"], entry["identity-source"])
        assert row["source"] == f"{entry['identity-target']}-{entry['recording-target']}.mp4"
        assert (row["kind"], row["gesture"]) == (entry["kind"], "no-gesture")
        assert row["gen_config"] == (entry.get("gen-config") or None)
        if release == "v2":
            voice = entry["audio-config"]
            assert (row["audio_label"], row["audio_generator"]) == (int(voice != "real"), voice)
        elif release == "v1.1":
            spoken = entry["recording-target-ai-generated"] == "True"
            assert row["audio_label"] == spoken
            assert row["audio_generator"] == ("elevenlabs" if spoken else "real")
        else:
            swap = entry["kind"] == "face-swap"
            assert (row["audio_label"], row["audio_generator"]) == ((0, "real") if swap else (None, None))
    if release == "v2":
        assert next(r for p, r in rows.items() if p.endswith("-elevenlabs.mp4"))["audio_label"] == 0


def test_official_split(copy):
    splits = stream(copy)
    assert list(splits) == ["train", "validation", "test"]
    people = {split: {row["identity"] for row in rows} for split, rows in splits.items()}
    assert people["test"] == {person for person, split in PEOPLE.items() if split == "test"}
    assert people["train"] | people["validation"] == PEOPLE.keys() - people["test"]
    assert [len(people[split]) for split in ("train", "validation")] == [16, 2]
    assert not people["train"] & people["validation"]
    other = stream(copy, seed=1)
    assert other["test"] == splits["test"] and other["validation"] != splits["validation"]


def test_a_published_validation_part_is_kept(tmp_path):
    people = {**PEOPLE, "0": "val", "1": "val"}
    write_deepspeak(tmp_path / "copy", "v2", people=people)
    splits = stream(tmp_path / "copy")
    assert {row["identity"] for row in splits["validation"]} == {"0", "1"}
    assert len({row["identity"] for row in splits["train"]}) == 16


def test_people_without_a_split_and_swaps_across_splits_are_noted(tmp_path):
    people = {person: split for person, split in PEOPLE.items() if person != "5"}
    people["8"] = "test"  # 8 and 9 are swapped with each other
    _, fakes = write_deepspeak(tmp_path / "copy", "v1.1", people=people)
    with pytest.warns(CorpusWarning) as caught:
        splits = stream(tmp_path / "copy")
    said = corpus_notes(caught)
    assert any("7 clips show people without a split" in message for message in said)
    assert any("4 fakes have the face or the voice of a person of another split" in m for m in said)
    assert not any(row["identity"] == "5" for rows in splits.values() for row in rows)
    crossing = [row[0] for row in fakes if {row[3], row[4]} == {"8", "9"}]
    where = {row["path"]: split for split, rows in splits.items() for row in rows}
    for name in crossing:
        target = name.split("--")[1].split("-")[1]
        assert (where[name] == "test") == (target == "8")


def test_streaming_equals_loading(copy, tmp_path):
    loaded = load_dataset("deepspeak", data_dir=str(copy), cache_dir=str(tmp_path))
    assert {split: rows_of(rows) for split, rows in loaded.items()} == stream(copy)
    assert list(loaded["test"].features) == [*FEATURES, *COLUMNS]
    assert set(deepspeak.DeepSpeak.GROUP_COLUMNS) <= set(COLUMNS)


def test_tables_by_other_names_with_other_numbers(tmp_path):
    genuine, fakes = write_deepspeak(tmp_path / "copy", "v2")
    expected = stream(tmp_path / "copy")
    for name, new in (("real", "a"), ("fake", "b"), ("split-def", "c")):
        (tmp_path / "copy" / f"annotations-{name}.csv").rename(tmp_path / "copy" / f"{new}.csv")
    floats = [[row[0].removesuffix(".mp4"), f"{row[1]}.0", *row[2:]] for row in genuine]
    write_table(tmp_path / "copy" / "a.csv", REAL_HEADER, floats)
    write_table(tmp_path / "copy" / "b.csv", HEADERS["v2"], [[f"videos/{row[0]}", *row[1:]] for row in fakes])
    assert stream(tmp_path / "copy") == expected


def test_missing_files_and_archives_are_noted(tmp_path):
    write_deepspeak(tmp_path / "copy", "v2")
    base = stream(tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("diff2lip-*.mp4"):
        path.unlink()
    touch(tmp_path / "copy" / "deepspeak-v2-7.zip")
    with (
        pytest.warns(CorpusWarning, match=r"1 archives in .*deepspeak-v2-7\.zip: are all unpacked"),
        pytest.raises(MissingFilesError, match="24 of 168 files are missing: all 24 of 'diff2lip'"),
    ):
        stream(tmp_path / "copy")
    with pytest.warns(CorpusWarning, match="Their rows are left out"):
        rest = stream(tmp_path / "copy", max_missing=0.2)
    for split, rows in base.items():
        assert rest[split] == [row for row in rows if row["generator"] != "diff2lip"]


def test_strays_and_sizes_are_noted(tmp_path, monkeypatch):
    genuine, fakes = deepspeak_rows("v1.1")
    write_deepspeak(tmp_path / "copy", "v1.1", rows=(genuine[1:], fakes))
    touch(tmp_path / "copy" / "preview.mp4")
    touch(tmp_path / "copy" / "again" / genuine[1][0])
    monkeypatch.setattr(deepspeak, "_KNOWN", PUBLISHED)
    with pytest.warns(CorpusWarning) as caught:
        rows = stream(tmp_path / "copy", "all")["full"]
    said = corpus_notes(caught)
    assert any("2 video files" in message and "preview.mp4" in message for message in said)
    assert any("71 genuine clips and 96 fakes, not the known 6,667 and 6,796 of v1.1" in m for m in said)
    assert any("4 fakes have no source" in message for message in said)
    assert sum(row["label"] and row["source"] is None for row in rows) == 4


def test_edited_tables(tmp_path):
    genuine, fakes = deepspeak_rows("v1.1")
    root = tmp_path / "copy"
    write_deepspeak(root, "v1.1")
    write_table(root / "annotations-fake.csv", HEADERS["v1.1"], [*fakes, fakes[0]])
    with pytest.raises(MetadataError, match=r"line 98: .* is already in .*line 2; a clip has one row"):
        stream(root)
    odd = [*fakes[0][:7], "perhaps", *fakes[0][8:]]
    write_table(root / "annotations-fake.csv", HEADERS["v1.1"], [odd, *fakes[1:]])
    with pytest.raises(MetadataError, match="recording-target-ai-generated: 'perhaps' is neither"):
        stream(root)
    write_table(root / "annotations-fake.csv", HEADERS["v1.1"].replace("identity-target", "target"), fakes)
    with pytest.raises(MetadataError, match="line 2: no column identity-target"):
        stream(root)
    write_table(root / "annotations-fake.csv", HEADERS["v1.1"], fakes)
    write_table(root / "annotations-real.csv", REAL_HEADER, [*genuine, ["9-1.mp4", "", "", ""]])
    with pytest.raises(MetadataError, match=r"annotations-real\.csv, line 74: the column identity is empty"):
        stream(root)
    write_table(root / "annotations-real.csv", REAL_HEADER, [*genuine, [fakes[0][0], "0", "", ""]])
    with pytest.raises(MetadataError, match="is in the table of the fakes too"):
        stream(root)
    write_table(root / "annotations-real.csv", REAL_HEADER, genuine)
    write_table(root / "annotations-split-def.csv", "identity,split", [["0", "train"], ["0", "test"]])
    with pytest.raises(MetadataError, match="line 3: person 0 is in train too"):
        stream(root)
    write_table(root / "annotations-split-def.csv", "identity,split", [["0", "holdout"]])
    with pytest.raises(MetadataError, match="column split: 'holdout' is none of"):
        stream(root)
    write_table(root / "annotations-split-def.csv", "identity,split", [["0", "train"]])
    write_table(root / "annotations-real.csv", REAL_HEADER, [])
    with pytest.raises(MetadataError, match=r"annotations-real\.csv has no rows"):
        stream(root)
    (root / "annotations-real.csv").write_bytes(f"{REAL_HEADER}\n".encode() + b"\xff\xfe,1,,\n")
    with pytest.raises(MetadataError, match=r"annotations-real\.csv is not text in UTF-8"):
        stream(root)


def test_absent_tables(tmp_path):
    root = tmp_path / "copy"
    write_deepspeak(root, "v2")
    (root / "annotations-split-def.csv").unlink()
    assert len(stream(root, "all")["full"]) == 168
    with pytest.raises(ProtocolError, match=r"annotations-split-def\.csv.*config 'all' needs none"):
        stream(root)
    (root / "annotations-real.csv").unlink()
    with pytest.raises(MetadataError, match=r"no table of the genuine clips .*annotations-real\.csv"):
        stream(root)
    (root / "annotations-fake.csv").unlink()
    with pytest.raises(CorpusNotFoundError, match=r"video-file and engine .*found README\.md, deepspeak-0"):
        stream(root)


def test_wrong_folders(tmp_path):
    write_deepspeak(tmp_path / "corpora" / "v2", "v2")
    expected = stream(tmp_path / "corpora" / "v2")
    assert stream(tmp_path / "corpora") == expected
    write_deepspeak(tmp_path / "corpora" / "v1_1", "v1.1")
    with pytest.raises(MetadataError, match=r"2 tables of fakes: .*Give one release as data_dir"):
        stream(tmp_path / "corpora")


def test_a_changed_table_is_read_again(tmp_path):
    write_deepspeak(tmp_path / "copy", "v2")
    settings = {"data_dir": str(tmp_path / "copy"), "cache_dir": str(tmp_path / "cache"), "split": "test"}
    before = len(load_dataset("deepspeak", **settings))
    write_deepspeak(tmp_path / "copy", "v2", people={**PEOPLE, "0": "test", "1": "test"})
    assert len(load_dataset("deepspeak", **settings)) == before + 14


def test_a_clip_is_decoded(tmp_path):
    genuine, _ = write_deepspeak(tmp_path / "copy", "v2")
    write_clip(next((tmp_path / "copy").rglob(genuine[0][0])))
    found = load_dataset(
        "deepspeak", "all", data_dir=str(tmp_path / "copy"), cache_dir=str(tmp_path / "cache"), streaming=True
    )
    assert next(iter(found["full"]))["video"].metadata.num_frames == 8

"""The FakeAVCeleb builder on a generated copy."""

from __future__ import annotations

import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import datasets
import pytest
from dataset_factory import (
    RACES,
    fakeavceleb_rows,
    rows_of,
    streamed,
    touch,
    write_clip,
    write_fakeavceleb,
)
from datasets import load_dataset

import dataset_scripts
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

HELD_OUT = {
    "rvfa": ("B", "rtvc"),
    "fvra_wl": ("C", "wav2lip"),
    "fvra_fs": ("C", "faceswap"),
    "fvra_gan": ("C", "fsgan"),
    "fvfa_fs": ("D", "faceswap-wav2lip"),
    "fvfa_gan": ("D", "fsgan-wav2lip"),
    "fvfa_wl": ("D", "wav2lip"),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("corpora") / "FakeAVCeleb_v1.2"
    write_fakeavceleb(root)
    return root


def official(row: list[str]) -> str:
    return f"{row[5]}/{row[6]}/{row[7]}/{row[0]}/{row[8]}"


stream = partial(streamed, "fakeavceleb")


def paths(rows: list[dict]) -> list[str]:
    return [row["path"] for row in rows]


def test_rows_agree_with_the_metadata(copy):
    listed = fakeavceleb_rows()
    rows = stream(copy, "all")["full"]
    methods: dict[str, list[str]] = {}
    for row in listed:
        methods.setdefault(official(row), []).append(row[3])
    assert paths(rows) == list(methods)  # one row for a file listed twice, in the order of the metadata
    assert len(listed) - len(rows) == 10
    first = {official(row): row for row in reversed(listed)}
    for row in rows:
        source, target1, target2, method, category, _, race, gender, name, _ = first[row["path"]]
        fake_picture, fake_sound = category in "CD", category in "BD"
        assert row["video"] == {"path": str(copy / row["path"]), "bytes": None}
        assert Path(row["video"]["path"]).is_file()
        assert row["label"] == int(category != "A")
        assert (row["video_label"], row["audio_label"]) == (int(fake_picture), int(fake_sound))
        assert row["generator"] == (method if fake_picture else "real")
        assert row["audio_generator"] == ("rtvc" if fake_sound else "real")
        assert (row["method"], row["methods"]) == (method, methods[row["path"]])
        assert (row["category"], row["race"], row["gender"], row["identity"]) == (
            category,
            race,
            gender,
            source,
        )
        assert (row["language"], row["audio"]) == ("en", None)
        assert row["fake_segments"] == ([] if category == "A" else None)
        genuine = f"RealVideo-RealAudio/{race}/{gender}/{source}/{name.split('_')[0]}.mp4"
        assert row["source"] == (None if category == "A" else genuine)
        assert row["target_ids"] == [t for t in (target1, target2) if t.startswith("id")]


def test_features_are_the_common_ones_and_then_the_corpus_ones(copy, tmp_path):
    table = load_dataset("fakeavceleb", "all", data_dir=str(copy), cache_dir=str(tmp_path), split="full")
    names = list(table.features)
    assert names[: len(FEATURES)] == list(FEATURES)
    assert names[len(FEATURES) :] == ["category", "method", "methods", "race", "gender", "target_ids"]
    assert all(table.features[name] == FEATURES[name] for name in FEATURES)
    assert table.features["label"].names == ["real", "fake"]
    stored = table.data.table["video"].combine_chunks()
    assert stored.field("bytes").null_count == len(table)  # no media in the table
    assert all(Path(p).is_absolute() for p in stored.field("path").to_pylist())


def test_streaming_equals_loading(copy, tmp_path):
    loaded = load_dataset("fakeavceleb", data_dir=str(copy), cache_dir=str(tmp_path))
    streamed = stream(copy, "identity_70_30")  # the default
    assert {split: rows_of(rows) for split, rows in loaded.items()} == streamed
    assert list(streamed) == ["train", "validation", "test"]


def test_a_clip_is_decoded(tmp_path):
    root = tmp_path / "copy"
    rows = fakeavceleb_rows(1, fakes=False)[:1]
    write_fakeavceleb(root, rows)
    write_clip(root / official(rows[0]), frames=8)
    for streaming in (False, True):
        table = load_dataset(
            "fakeavceleb",
            "all",
            data_dir=str(root),
            cache_dir=str(tmp_path),
            split="full",
            streaming=streaming,
        )
        decoder = next(iter(table))["video"]
        assert decoder.get_frames_in_range(0, 8).data.shape == (8, 3, 48, 64)


@pytest.mark.parametrize(
    "header",
    [
        "source,target1,target2,method,category,type,race,gender,filename,path",
        "source,target1,target2,method,category,type,race,gender,vid,path",
        "\ufeffsource,target1,target2,method,category,type,race,gender,path,",
        None,
    ],
)
def test_edited_headers(tmp_path, header):
    rows = [[*row[:9], row[9].replace("FakeAVCeleb/", "FakeAVCeleb_v1.2/")] for row in fakeavceleb_rows(2)]
    write_fakeavceleb(tmp_path, rows, header=header)
    assert paths(stream(tmp_path, "all")["full"]) == list(dict.fromkeys(map(official, rows)))


@pytest.mark.parametrize(
    "rename",
    [
        lambda race: race.replace(" (", "-").replace(")", ""),  # as MRDF does
        lambda race: race.replace(" (", "_").replace(")", ""),  # as AVH-Align does
        lambda race: race.lower(),
    ],
)
def test_renamed_race_folders(tmp_path, copy, rename):
    root = tmp_path / "copy"
    write_fakeavceleb(root, rename_race=rename)
    ours, theirs = stream(root), stream(copy)
    for split in ("train", "validation", "test"):
        assert paths(ours[split]) == paths(theirs[split])  # the official spelling
        assert all(Path(row["video"]["path"]).is_file() for row in ours[split])


def test_renamed_in_the_metadata_too(tmp_path, copy):
    rows = fakeavceleb_rows()
    for row in rows:
        row[6] = row[6].replace(" (", "-").replace(")", "")
    write_fakeavceleb(tmp_path, rows)
    theirs = stream(copy, "by_ethnicity")
    assert {split: paths(found) for split, found in stream(tmp_path, "by_ethnicity").items()} == {
        split: paths(found) for split, found in theirs.items()
    }


def test_other_case_on_disk(tmp_path):
    rows = write_fakeavceleb(tmp_path, fakeavceleb_rows(1))
    kind, race, gender, person, name = official(rows[0]).split("/")
    (tmp_path / kind).rename(tmp_path / kind.upper())
    old = tmp_path / kind.upper() / race / gender / person / name
    old.rename(old.with_suffix(".MP4"))
    (tmp_path / "meta_data.csv").rename(tmp_path / "Meta_Data.csv")
    row = stream(tmp_path, "all")["full"][0]
    assert row["path"] == official(rows[0])
    assert row["video"]["path"] == str(old.with_suffix(".MP4"))


def test_root_may_be_the_parent_folder(copy):
    assert stream(copy.parent, "all") == stream(copy, "all")


def test_stray_files_are_reported(tmp_path):
    rows = write_fakeavceleb(tmp_path, fakeavceleb_rows(1))
    folder = (tmp_path / official(rows[0])).parent
    touch(folder / "extra.mp4")
    touch(folder / "._00001.mp4")  # a file of the file system, not of the corpus
    touch(tmp_path / "list.mp4")
    with pytest.warns(CorpusWarning, match=r"2 mp4 files .* are not in meta_data.csv"):
        assert len(stream(tmp_path, "all")["full"]) == len(set(map(official, rows)))


def test_source_is_none_when_not_listed(tmp_path):
    rows = [row for row in fakeavceleb_rows(1) if row[4] != "A"]
    write_fakeavceleb(tmp_path, rows)
    with pytest.warns(CorpusWarning, match=f"{len(rows)} fakes have no source"):
        assert all(row["source"] is None for row in stream(tmp_path, "all")["full"])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [(8, "00109.txt", "mp4 file name"), (5, "RealVideo", "no pair"), (4, "C", "no pair")],
)
def test_malformed_rows(tmp_path, column, value, message):
    rows = fakeavceleb_rows(1, fakes=False)
    rows[2][column] = value
    write_fakeavceleb(tmp_path, rows)
    with pytest.raises(MetadataError, match=f"line 4: .*{message}"):
        stream(tmp_path, "all")


# --- protocols


def check_partition(splits: dict[str, list[dict]], whole: list[dict], by: str) -> None:
    """Check that the splits have every file once, and that no value of `by` is in two of them."""
    assert Counter(path for rows in splits.values() for path in paths(rows)) == Counter(paths(whole))
    seen = [{row[by] for row in rows} for rows in splits.values()]
    assert len(set.union(*seen)) == sum(map(len, seen))


def test_identity_70_30(copy):
    splits = stream(copy, "identity_70_30")
    check_partition(splits, stream(copy, "all")["full"], "identity")
    people = {
        split: {(row["race"], row["gender"], row["identity"]) for row in rows}
        for split, rows in splits.items()
    }
    assert {split: len(found) for split, found in people.items()} == {
        "train": 32,
        "validation": 3,
        "test": 15,
    }
    for race in RACES:
        for gender in ("men", "women"):
            assert 1 <= sum(p[:2] == (race, gender) for p in people["test"]) <= 2
    assert paths(stream(copy, "identity_70_30", seed=1)["test"]) != paths(splits["test"])


def test_identity_70_30_of_the_whole_corpus(tmp_path):
    write_fakeavceleb(tmp_path, fakeavceleb_rows(50, fakes=False))
    splits = stream(tmp_path)
    people = {split: len({row["identity"] for row in rows}) for split, rows in splits.items()}
    assert people == {"train": 315, "validation": 35, "test": 150}
    groups = Counter((row["race"], row["gender"]) for row in splits["test"])
    assert set(groups.values()) == {30}  # 15 people of 50 in each group, with a genuine and a fake clip


def test_random_70_30_is_stratified_by_category(copy):
    splits = stream(copy, "random_70_30")
    whole = stream(copy, "all")["full"]
    check_partition(splits, whole, "path")
    sizes = Counter(row["category"] for row in whole)
    for split, share in (("train", 0.63), ("validation", 0.07), ("test", 0.3)):
        found = Counter(row["category"] for row in splits[split])
        assert all(abs(found[category] - share * sizes[category]) < 2 for category in "ABCD")
    identities = [{row["identity"] for row in rows} for rows in splits.values()]
    assert identities[0] & identities[2]  # as documented


def test_mrdf_folds_against_the_rule(tmp_path):
    rows = fakeavceleb_rows(50, fakes=False)
    write_fakeavceleb(tmp_path, rows)
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row[4] == "A":
            groups.setdefault((row[6], row[7]), []).append(row[0])
    tested: Counter[str] = Counter()
    for fold in range(1, 6):
        expected = {i for ids in groups.values() for i in sorted(ids)[(5 - fold) * 10 : (5 - fold) * 10 + 10]}
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*identities")
            splits = stream(tmp_path, f"mrdf_fold{fold}")
        found = {split: {row["identity"] for row in rows} for split, rows in splits.items()}
        assert found["test"] == expected
        assert found["train"] | found["validation"] == {row[0] for row in rows} - expected
        assert [len(found[split]) for split in ("train", "validation", "test")] == [360, 40, 100]
        assert not found["train"] & found["validation"]
        tested.update(expected)
    assert len(tested) == 500
    assert set(tested.values()) == {1}


def test_mrdf_fold_of_a_partial_copy_warns(copy):
    with pytest.warns(CorpusWarning, match="50 identities, not 500"):
        splits = stream(copy, "mrdf_fold1")
    check_partition(splits, stream(copy, "all")["full"], "identity")


@pytest.mark.parametrize("group", HELD_OUT)
def test_leave_out(copy, group):
    category, method = HELD_OUT[group]
    base, splits = stream(copy, "identity_70_30"), stream(copy, f"leave_out_{group}")

    def held_out(row):
        return row["category"] == category and method in row["methods"]

    for split in ("train", "validation"):
        assert splits[split] == [row for row in base[split] if not held_out(row)]
        assert len(splits[split]) < len(base[split])
    assert splits["test"] == [row for row in base["test"] if row["category"] == "A" or held_out(row)]
    assert {row["label"] for row in splits["test"]} == {0, 1}


def test_by_ethnicity(copy):
    splits = stream(copy, "by_ethnicity")
    check_partition(splits, stream(copy, "all")["full"], "identity")
    assert {split: {row["race"] for row in rows} for split, rows in splits.items()} == {
        "train": {"Asian (South)", "Asian (East)", "Caucasian (American)"},
        "validation": {"African"},
        "test": {"Caucasian (European)"},
    }


@pytest.mark.filterwarnings("ignore::dataset_scripts.errors.CorpusWarning")
def test_a_protocol_that_does_not_fit(tmp_path):
    rows = [row for row in fakeavceleb_rows(1) if row[6] != "Caucasian (European)"]
    write_fakeavceleb(tmp_path, rows)
    with pytest.raises(ProtocolError, match="by_ethnicity leaves the test split empty"):
        stream(tmp_path, "by_ethnicity")
    rows[0][6] = "Martian"
    write_fakeavceleb(tmp_path, rows)
    with pytest.raises(ProtocolError, match="Martian"):
        stream(tmp_path, "by_ethnicity")


def test_no_validation_in_a_tiny_copy(tmp_path):
    write_fakeavceleb(tmp_path, fakeavceleb_rows(1)[:16])  # two people
    with pytest.warns(CorpusWarning, match="no validation split"):
        assert list(stream(tmp_path)) == ["train", "test"]


# --- missing files and wrong folders


def remove(root: Path, rows: list[list[str]], count: int) -> list[str]:
    gone = list(dict.fromkeys(map(official, rows)))[:count]
    for path in gone:
        (root / path).unlink()
    return gone


def test_missing_files_are_counted_and_listed(tmp_path):
    root, cache = tmp_path / "copy", tmp_path / "cache"
    rows = write_fakeavceleb(root)
    gone = remove(root, rows, 4)
    message = "4 of 410 files are missing: 1 of 50 of 'RealVideo-RealAudio'"
    with pytest.warns(CorpusWarning, match=message) as caught:
        table = load_dataset("fakeavceleb", "all", data_dir=str(root), cache_dir=str(cache), split="full")
    assert len(table) == 406
    assert not set(gone) & set(table["path"])
    (listing,) = cache.rglob("missing_files.txt")
    assert listing.read_text().splitlines() == gone
    assert any(str(listing) in str(w.message) for w in caught)
    with pytest.warns(CorpusWarning, match=message):  # repeated when the table comes from the cache
        load_dataset("fakeavceleb", "all", data_dir=str(root), cache_dir=str(cache))
    for path in gone:  # completing the download gives a new table
        touch(root / path)
    with pytest.warns(CorpusWarning) as caught:
        table = load_dataset("fakeavceleb", "all", data_dir=str(root), cache_dir=str(cache), split="full")
    assert len(table) == 410
    assert ["lists 410 files, not the known 21,544 of v1.2" in str(w.message) for w in caught] == [True]


def test_too_many_missing_files(tmp_path):
    root, listing = tmp_path / "copy", tmp_path / "lists" / "gone.txt"
    rows = write_fakeavceleb(root)
    gone = remove(root, rows, 5)
    with pytest.raises(MissingFilesError, match=r"5 of 410 .*max_missing=0\.01 .*gone\.txt"):
        stream(root, "all", missing_files=str(listing))
    assert listing.read_text().splitlines() == gone
    with pytest.warns(CorpusWarning, match="5 of 410 files"):
        assert len(stream(root, "all", missing_files=str(listing), max_missing=0.02)["full"]) == 405
    with pytest.raises(ValueError, match="from 0 to 1"):
        stream(root, "all", max_missing=5)


@pytest.mark.parametrize("protocol", ["identity_70_30", "random_70_30", "mrdf_fold1"])
@pytest.mark.filterwarnings("ignore::dataset_scripts.errors.CorpusWarning")
def test_missing_files_move_no_other_clip(tmp_path, copy, protocol):
    rows = write_fakeavceleb(tmp_path / "copy")
    gone = remove(tmp_path / "copy", rows, 9)  # everything of the first person, and one clip of the next
    whole, partial = stream(copy, protocol), stream(tmp_path / "copy", protocol, max_missing=0.1)
    for split in ("train", "validation", "test"):
        assert paths(partial[split]) == [path for path in paths(whole[split]) if path not in gone]


def test_a_missing_category_is_named(tmp_path):
    rows = write_fakeavceleb(tmp_path / "copy")
    (tmp_path / "copy" / "FakeVideo-FakeAudio").rename(tmp_path / "elsewhere")
    assert sum(row[4] == "D" for row in rows) == 170
    with pytest.raises(
        MissingFilesError, match="160 of 410 files are missing: all 160 of 'FakeVideo-FakeAudio'"
    ):
        load_dataset("fakeavceleb", "all", data_dir=str(tmp_path / "copy"), cache_dir=str(tmp_path / "cache"))


def test_wrong_folders(tmp_path, copy):
    with pytest.raises(CorpusNotFoundError, match="pass `data_dir`"):
        load_dataset("fakeavceleb", "all", cache_dir=str(tmp_path / "cache"))
    with pytest.raises(CorpusNotFoundError, match="nowhere does not exist"):
        stream(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusNotFoundError, match="found nothing"):
        stream(tmp_path / "empty")
    with pytest.raises(
        CorpusNotFoundError, match=r"looked for the file meta_data.csv .*found African, Asian"
    ):
        stream(copy / "FakeVideo-FakeAudio")
    with pytest.raises(CorpusNotFoundError, match="is a file"):
        stream(copy / "meta_data.csv")
    with pytest.raises(CorpusNotFoundError, match="local folder"):
        load_dataset("fakeavceleb", data_dir="hf://datasets/someone/FakeAVCeleb")
    for name in ("one", "two"):
        write_fakeavceleb(tmp_path / name, fakeavceleb_rows(1, fakes=False))
    with pytest.raises(CorpusNotFoundError, match="several folders"):
        stream(tmp_path)
    with pytest.raises(ValueError, match=r"'mrdf_fold6' not found\. Available"):
        stream(copy, "mrdf_fold6")
    with pytest.raises(ValueError, match="pass `data_dir`"):
        load_dataset("fakeavceleb", data_files=str(copy / "meta_data.csv"))

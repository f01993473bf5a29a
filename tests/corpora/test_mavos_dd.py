"""The MAVOS-DD builder on generated copies of both releases."""

from __future__ import annotations

from functools import partial

import datasets
import pytest
from dataset_factory import mavos_rows, rows_of, streamed, touch, write_mavos
from datasets import load_dataset

import dataset_scripts
from dataset_scripts import mavos_dd
from dataset_scripts.errors import CorpusNotFoundError, CorpusWarning, MetadataError, MissingFilesError
from dataset_scripts.schema import FEATURES

dataset_scripts.register()
datasets.disable_progress_bars()

PROTOCOLS = ("in_domain", "open_model", "open_language", "open_full", "open_model_any", "open_language_any")
SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def known_row_counts(monkeypatch):
    """Let the generated copies have the known size, so that only other warnings appear."""
    sizes = {release: len(mavos_rows(release)) for release in (1, 2)}
    monkeypatch.setattr(mavos_dd, "_KNOWN_ROWS", sizes)


@pytest.fixture(scope="module", params=[1, 2])
def copy(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("corpora") / "MAVOS-DD"
    write_mavos(root, request.param)
    return root


@pytest.fixture(scope="module")
def release(copy) -> int:
    return 2 if "video_fake" in datasets.load_from_disk(str(copy)).column_names else 1


stream = partial(streamed, "mavos_dd")


def paths(rows) -> list[str]:
    return [row["path"] for row in rows]


def test_rows_agree_with_the_table(copy, release):
    splits = stream(copy, "open_full")
    assert list(splits) == list(SPLITS)
    for split, rows in splits.items():
        listed = [row for row in mavos_rows(release) if row["split"] == split]
        assert paths(rows) == [row["video_path"] for row in listed]
        for row, entry in zip(rows, listed, strict=True):
            fake = entry["label"] == "fake"
            assert row["video"] == {"path": str(copy / row["path"]), "bytes": None}
            assert row["label"] == int(fake)
            if release == 2:
                assert (row["video_label"], row["audio_label"]) == (entry["video_fake"], entry["audio_fake"])
                assert row["audio_generator"] == entry["audio_generative_method"]
            else:
                assert row["video_label"] == int(fake)
                assert row["audio_label"] == (None if fake else 0)
                assert row["audio_generator"] == (None if fake else "real")
            assert row["generator"] == entry["generative_method"]
            assert row["open_set_model"] == entry["open_set_model"]
            assert row["open_set_language"] == entry["open_set_language"]
            codes = {"arabic": "ar", "english": "en", "german": "de", "hindi": "hi"}
            assert row["language"] == codes[entry["language"]]
            assert (row["identity"], row["source"], row["audio"]) == (None, None, None)
            assert row["fake_segments"] == (None if fake else [])


def test_sound_only_fakes_are_fake(tmp_path):
    write_mavos(tmp_path, 2)
    rows = stream(tmp_path)["train"]
    sound_only = [row for row in rows if row["video_label"] == 0 and row["audio_label"] == 1]
    assert sound_only
    for row in sound_only:
        assert (row["label"], row["generator"], row["audio_generator"]) == (1, "real", "freevc")
        assert "/real/" in row["path"]  # the folder says the opposite


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_test_sets_are_the_published_unions(copy, release, protocol):
    test = [row for row in mavos_rows(release) if row["split"] == "test"]
    closed = [row for row in test if not row["open_set_model"] and not row["open_set_language"]]
    # As concatenated by the authors' evaluation scripts.
    added = {
        "in_domain": [],
        "open_model": [row for row in test if row["open_set_model"] and not row["open_set_language"]],
        "open_language": [row for row in test if not row["open_set_model"] and row["open_set_language"]],
        "open_full": [row for row in test if row["open_set_model"] or row["open_set_language"]],
        "open_model_any": [row for row in test if row["open_set_model"]],
        "open_language_any": [row for row in test if row["open_set_language"]],
    }[protocol]
    splits = stream(copy, protocol)
    assert sorted(paths(splits["test"])) == sorted(row["video_path"] for row in closed + added)
    assert {row["label"] for row in splits["test"]} == {0, 1}
    full = stream(copy)  # open_full is the default
    assert splits["train"] == full["train"]
    assert splits["validation"] == full["validation"]


def test_known_sizes():
    """The cells of the first release add up to the published sizes of its four test sets, and of the other two."""
    cells = {(False, False): 9_886, (False, True): 12_285, (True, False): 13_081, (True, True): 2_047}
    sizes = {name: sum(cells[cell] for cell in members) for name, (members, _) in mavos_dd._TESTS.items()}
    assert sizes == {
        "in_domain": 9_886,
        "open_model": 22_967,
        "open_language": 22_171,
        "open_full": 37_299,
        "open_model_any": 25_014,
        "open_language_any": 24_218,
    }


def test_streaming_equals_loading(copy, tmp_path):
    loaded = load_dataset("mavos_dd", "open_model", data_dir=str(copy), cache_dir=str(tmp_path))
    assert {split: rows_of(rows) for split, rows in loaded.items()} == stream(copy, "open_model")
    assert list(loaded["test"].features) == [*FEATURES, "open_set_model", "open_set_language"]
    assert all(loaded["test"].features[name] == FEATURES[name] for name in FEATURES)
    stored = loaded["test"].data.table["video"].combine_chunks()
    assert stored.field("bytes").null_count == len(loaded["test"])


def test_unknown_size_warns(tmp_path):
    write_mavos(tmp_path, 1, mavos_rows(1)[:-1])
    with pytest.warns(CorpusWarning, match=r"columns of release 1 but 59 rows, not the known 60"):
        stream(tmp_path)


def test_class_labels_of_the_other_polarity(tmp_path):
    rows = write_mavos(tmp_path / "first", 1)
    table = datasets.load_from_disk(str(tmp_path / "first"))
    table.cast_column("label", datasets.ClassLabel(names=["fake", "real"])).save_to_disk(
        str(tmp_path / "copy")
    )
    for row in rows:
        touch(tmp_path / "copy" / row["video_path"])
    found = stream(tmp_path / "copy")
    assert [row["label"] for row in found["train"]] == [
        int(row["label"] == "fake") for row in rows if row["split"] == "train"
    ]


def test_labels_that_contradict_each_other(tmp_path):
    rows = mavos_rows(2)
    assert (rows[0]["label"], rows[6]["label"]) == ("real", "fake")
    rows[0]["audio_fake"] = True
    rows[6]["video_fake"] = False
    write_mavos(tmp_path, 2, rows)
    with pytest.warns(CorpusWarning, match="2 rows have a label that contradicts"):
        train = stream(tmp_path)["train"]
    assert [train[0][name] for name in ("label", "video_label", "audio_label")] == [0, 0, 0]
    assert [train[6][name] for name in ("label", "video_label", "audio_label")] == [1, None, None]


def test_a_file_listed_twice(tmp_path, monkeypatch):
    rows = mavos_rows(1)
    closed = next(row for row in rows if row["split"] == "test" and row["label"] == "real")
    rows += [{**closed, "open_set_model": True}, {**rows[0], "split": "validation"}]
    monkeypatch.setattr(mavos_dd, "_KNOWN_ROWS", {1: len(rows)})
    write_mavos(tmp_path, 1, rows)
    with pytest.warns(CorpusWarning) as caught:
        splits = stream(tmp_path, "open_model")
    said = [str(warning.message) for warning in caught]
    assert any("1 rows repeat a file" in message for message in said)
    assert any(f"1 files are in more than one split, such as {rows[0]['video_path']}" in m for m in said)
    assert paths(splits["test"]).count(closed["video_path"]) == 1
    rows[-2]["label"] = "fake"
    write_mavos(tmp_path / "other", 1, rows)
    with pytest.raises(MetadataError, match="as real and as fake in the test split"):
        stream(tmp_path / "other")


def test_missing_files(tmp_path):
    rows = write_mavos(tmp_path / "copy", 1)
    (tmp_path / "copy" / "hindi").rename(tmp_path / "elsewhere")
    with pytest.raises(MissingFilesError, match="3 of 60 files are missing: all 3 of 'hindi'"):
        stream(tmp_path / "copy", missing_files=str(tmp_path / "gone.txt"))
    gone = [row["video_path"] for row in rows if row["language"] == "hindi"]
    assert (tmp_path / "gone.txt").read_text().splitlines() == gone
    with pytest.warns(CorpusWarning, match="only the languages arabic, english, german"):
        splits = stream(tmp_path / "copy", languages=["arabic", "english", "german"])
    assert sum(map(len, splits.values())) == 57
    with pytest.raises(ValueError, match=r"no language 'hindu'.*Did you mean 'hindi'"):
        stream(tmp_path / "copy", languages=["hindu"])


def test_unlisted_files_are_reported(tmp_path):
    write_mavos(tmp_path, 1)
    touch(tmp_path / "english" / "memo" / "extra.mp4")
    with pytest.warns(CorpusWarning, match=r"1 video files .* such as english/memo/extra\.mp4"):
        stream(tmp_path)


def test_wrong_folders(tmp_path):
    write_mavos(tmp_path / "MAVOS-DD", 1)
    assert stream(tmp_path) == stream(tmp_path / "MAVOS-DD")  # the folder above
    with pytest.raises(CorpusNotFoundError, match=r"state\.json and \*\.arrow.*found memo, real"):
        stream(tmp_path / "MAVOS-DD" / "english")
    rows = [{k: v for k, v in row.items() if k != "split"} for row in mavos_rows(1)]
    write_mavos(tmp_path / "edited", 1, rows)
    with pytest.raises(MetadataError, match="has no column split"):
        stream(tmp_path / "edited")


def test_a_changed_table_is_read_again(tmp_path):
    rows = write_mavos(tmp_path / "copy", 1)
    settings = {"data_dir": str(tmp_path / "copy"), "cache_dir": str(tmp_path / "cache"), "split": "train"}
    first = load_dataset("mavos_dd", **settings)
    assert first["path"][:1] == [rows[0]["video_path"]]
    write_mavos(tmp_path / "copy", 1, [{**rows[0], "split": "test"}, *rows[1:]])
    assert len(load_dataset("mavos_dd", **settings)) == len(first) - 1

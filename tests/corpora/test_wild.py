"""The builder of a folder of real recordings."""

from __future__ import annotations

from functools import partial

import datasets
import pytest
from dataset_factory import streamed, touch
from dataset_trees.wild import CLIPS, SPEECH, clip, write_table, write_wild

import dataset_scripts
from dataset_scripts.errors import CorpusNotFoundError, CorpusWarning, MetadataError, MissingFilesError
from dataset_scripts.schema import FEATURES

dataset_scripts.register()
datasets.disable_progress_bars()
stream = partial(streamed, "wild")


def test_clips(tmp_path):
    root = tmp_path / "data"
    write_wild(root)
    with pytest.warns(
        CorpusWarning, match="sources that name no row, or several, are left out: 1, such as elsewhere.mp4"
    ):
        splits = stream(root)
    assert {name: [row["path"] for row in rows] for name, rows in splits.items()} == {
        "train": ["clips/a.mp4"],
        "dev": [row["file_name"] for row in CLIPS[1:]],
    }
    real, outside, *fakes = splits["dev"]
    assert list(real)[: len(FEATURES)] == list(FEATURES)
    assert outside["video"]["path"] == str(root / "../more/c.mp4")
    assert [row["label"] for row in splits["dev"]] == [0, 0, 1, 1, 1]
    assert [row["source"] for row in fakes] == ["clips/b.mp4", "clips/b.mp4", None]
    assert [(row["video_label"], row["audio_label"]) for row in fakes] == [(1, None)] * 3
    assert [row["language"] for row in (real, *fakes)] == ["en", None, None, None]
    assert [(row["generator"], row["family"]) for row in fakes] == [
        ("Wav2Lip", "lip sync"),
        ("X", None),
        ("X", None),
    ]
    assert (real["repo"], real["repo_path"], real["has_audio"], outside["has_audio"]) == (
        "o/r",
        "v/b.mp4",
        True,
        False,
    )
    assert (splits["train"][0]["train_ok"], real["train_ok"], splits["train"][0]["licence"]) == (
        True,
        False,
        "MIT",
    )


def test_speech(tmp_path):
    write_wild(tmp_path / "data")
    real, fake = stream(tmp_path / "data", "speech")["dev"]
    assert (real["label"], real["video_label"], real["audio_label"], real["generator"]) == (0, None, 0, None)
    assert (fake["label"], fake["video_label"], fake["audio_label"], fake["audio_generator"]) == (
        1,
        None,
        1,
        "vits",
    )
    assert (fake["identity"], fake["pair_id"], fake["orig_rate"], fake["licence"]) == (
        "s1",
        "t:1",
        22050,
        "CC0",
    )
    assert (real["identity"], real["system"], fake["kind"]) == (None, "genuine", "tts")


def test_photos(tmp_path):
    write_wild(tmp_path / "data")
    (photo,) = stream(tmp_path / "data", "photos")["full"]
    assert (photo["label"], photo["video_label"], photo["audio_label"]) == (0, 0, None)
    assert (photo["path"], photo["corpus"], photo["train_ok"]) == ("photos/a.jpg", "faces", True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"label": "genuine"}, "line 3, column label: label 'genuine' is not known"),
        ({"label": ""}, "line 3: no label"),
        (
            {"label": "real", "video_label": "fake"},
            "line 3: clips/x.mp4: label is real but video_label is fake",
        ),
        ({"split": "holdout"}, "line 3, column split: 'holdout' is none of train, validation, dev, test"),
        ({"split": "tset"}, "Did you mean 'test'"),
        ({"split": ""}, "1 of 2 rows have no split, such as clips/x.mp4"),
        ({"train_ok": "perhaps"}, "line 3, column train_ok: 'perhaps' is neither yes nor no"),
        ({"orig_rate": "nan"}, "line 3, column orig_rate: 'nan' is no number from 0 to"),
        ({"orig_rate": "1e300"}, "'1e300' is no number from 0 to"),
        ({"orig_seconds": "-inf"}, "line 3, column orig_seconds: '-inf' is no number"),
        ({"orig_seconds": "3,5"}, "'3,5' is no number"),
        ({"file_name": "/tmp/x.mp4"}, "must be relative"),
        ({"file_name": ""}, "line 3: no file_name"),
        ({"file_name": "clips/./a.mp4"}, "line 3: clips/a.mp4 is already in .*line 2"),
        ({"famly": "lip sync"}, "unknown column 'famly'. Did you mean 'family'"),
    ],
)
def test_malformed_rows(tmp_path, row, message):
    rows = [CLIPS[0], {**clip("clips/x.mp4", "fake"), "video_label": "", **row}]
    write_table(tmp_path / "data" / "clips.csv", rows)
    for name in ("a", "x"):
        touch(tmp_path / "data" / "clips" / f"{name}.mp4")
    with pytest.raises(MetadataError, match=message):
        stream(tmp_path / "data")


def test_wrong_tables(tmp_path):
    root = tmp_path / "data"
    write_wild(root, speech=SPEECH)
    with pytest.raises(
        MetadataError, match=r"has no clips\.csv, .* it has speech\.csv: take the protocol speech"
    ):
        stream(root)
    write_table(root / "clips.csv", [{"File name": "a.mp4", "label": "real"}])
    with pytest.raises(
        MetadataError,
        match=r"has no column 'file_name'; it has File name, label\. Did you mean 'File name'\?",
    ):
        stream(root)
    (root / "clips.csv").write_text("file_name,label,label\n")
    with pytest.raises(MetadataError, match="the column 'label' is there twice"):
        stream(root)
    (root / "clips.csv").write_text("file_name,label\n")
    with pytest.raises(MetadataError, match="has no rows"):
        stream(root)
    (root / "clips.csv").write_text("file_name,label\na.mp4,real,3\n")
    with pytest.raises(MetadataError, match="line 2: more cells"):
        stream(root)
    with pytest.raises(CorpusNotFoundError, match=r"looked for one of the tables clips\.csv"):
        stream(root / "speech")


@pytest.mark.filterwarnings("ignore::dataset_scripts.errors.CorpusWarning")
def test_missing_and_unlisted_files(tmp_path):
    root = tmp_path / "data"
    write_wild(root, clips=CLIPS[:3], speech=SPEECH)
    (root / "../more/c.mp4").unlink()
    touch(root / "clips" / "z.mp4")
    settings = {"missing_files": str(tmp_path / "gone.txt")}
    with pytest.raises(MissingFilesError, match=r"1 of 3 files are missing: all 1 of '\.\./more'"):
        stream(root, **settings)
    assert (tmp_path / "gone.txt").read_text().split() == ["../more/c.mp4"]
    with pytest.warns(
        CorpusWarning, match="1 files are not in clips.csv and are not used, such as clips/z.mp4"
    ):
        rows = stream(root, max_missing=0.5, **settings)
    assert [row["path"] for row in rows["dev"]] == ["clips/b.mp4"]


def test_unused_columns_are_noted(tmp_path):
    write_wild(tmp_path / "data", clips=[clip("a.mp4", "real", camera="x", frame_rate="25")])
    with pytest.warns(CorpusWarning, match="unused columns of clips.csv: camera, frame_rate"):
        assert len(stream(tmp_path / "data")["dev"]) == 1

"""The DeepfakeTIMIT builder on generated copies, and VidTIMIT turned into video files."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import datasets
import numpy
import pytest
import soundfile
import torch
from dataset_factory import rows_of, streamed, touch, write_clip
from dataset_trees.df_timit import (
    OTHERS,
    PAIRS,
    SENTENCES,
    fake_clips,
    write_deepfake_timit,
    write_vidtimit,
    write_vidtimit_images,
)
from datasets import load_dataset
from PIL import Image
from torchcodec.decoders import VideoDecoder

import dataset_scripts
from dataset_scripts import df_timit, vidtimit
from dataset_scripts.errors import CorpusNotFoundError, CorpusWarning, MetadataError, MissingFilesError
from dataset_scripts.schema import FEATURES

dataset_scripts.register()
datasets.disable_progress_bars()

REPOSITORY = Path(dataset_scripts.__file__).parent.parent
CLIPS = fake_clips()
GENUINE = sorted({(speaker, sentence) for speaker, sentence, _ in CLIPS})


@pytest.fixture(autouse=True)
def known_counts(monkeypatch):
    """Let the generated copies have the known size, so that only other warnings appear."""
    monkeypatch.setattr(df_timit, "_FAKES_PER_QUALITY", len(CLIPS))
    monkeypatch.setattr(df_timit, "_CLIPS_OF_VIDTIMIT", len(GENUINE) + len(OTHERS) * len(SENTENCES))


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("corpora")
    write_deepfake_timit(root / "DeepfakeTIMIT")
    write_vidtimit(root / "VidTIMIT")
    return root


stream = partial(streamed, "df_timit")


def test_rows_agree_with_the_folders(copy, recwarn):
    splits = stream(copy, "all")
    assert list(splits) == ["full"]
    assert not [w for w in recwarn if issubclass(w.category, CorpusWarning)]
    rows = {row["path"]: row for row in splits["full"]}
    assert len(rows) == len(splits["full"]) == len(GENUINE) + 2 * len(CLIPS)
    for speaker, sentence in GENUINE:
        row = rows.pop(f"VidTIMIT/{speaker}/video/{sentence}")
        assert row["video"] == {"path": str(copy / "VidTIMIT" / speaker / f"{sentence}.avi"), "bytes": None}
        assert row["audio"] == str(copy / "VidTIMIT" / speaker / "audio" / f"{sentence}.wav")
        assert (row["label"], row["video_label"], row["audio_label"]) == (0, 0, 0)
        assert (row["generator"], row["audio_generator"], row["fake_segments"]) == ("real", "real", [])
        assert (row["identity"], row["source"], row["quality"], row["donor"]) == (speaker, None, None, None)
        assert (row["language"], row["sentence"]) == ("en", sentence)
    for folder, quality in (("higher_quality", "higher"), ("lower_quality", "lower")):
        for speaker, sentence, donor in CLIPS:
            path = f"DeepfakeTIMIT/{folder}/{speaker}/{sentence}-video-{donor}.avi"
            row = rows.pop(path)
            assert row["video"] == {"path": str(copy / path), "bytes": None}
            assert row["audio"] == str((copy / path).parent / f"{sentence}.wav")
            assert Path(row["audio"]).is_file() and Path(row["video"]["path"]).is_file()
            assert (row["label"], row["video_label"], row["audio_label"]) == (1, 1, 0)
            assert (row["generator"], row["audio_generator"], row["fake_segments"]) == (
                "faceswap-gan",
                "real",
                None,
            )
            assert (row["identity"], row["donor"], row["quality"]) == (speaker, donor, quality)
            assert row["source"] == f"VidTIMIT/{speaker}/video/{sentence}"
            assert row["gender"] == {"f": "women", "m": "men"}[speaker[0]]
    assert not rows


@pytest.mark.parametrize(("protocol", "quality"), [("higher_quality", "higher"), ("lower_quality", "lower")])
def test_one_quality(copy, protocol, quality):
    rows = stream(copy, protocol)["full"]
    assert Counter(row["quality"] for row in rows) == {None: len(GENUINE), quality: len(CLIPS)}
    if protocol == "higher_quality":
        assert stream(copy)["full"] == rows  # the default


def test_pairs_of_speakers_stay_together(copy):
    splits = stream(copy, "identity_70_30")
    assert list(splits) == ["train", "validation", "test"]
    assert sorted(row["path"] for rows in splits.values() for row in rows) == sorted(
        row["path"] for row in stream(copy, "all")["full"]
    )
    people = {
        split: {row["identity"] for row in rows} | {row["donor"] for row in rows if row["donor"]}
        for split, rows in splits.items()
    }
    for one, other in PAIRS:
        assert [one in members for members in people.values()] == [
            other in members for members in people.values()
        ]
    assert sum(map(len, people.values())) == 2 * len(PAIRS)  # disjoint, donors included
    assert {split: len(members) // 2 for split, members in people.items()} == {
        "train": 5,
        "validation": 1,
        "test": 2,
    }
    assert {row["gender"] for row in splits["test"]} == {"women", "men"}
    for rows in splits.values():
        assert {row["label"] for row in rows} == {0, 1}
    higher = stream(copy, "identity_70_30_higher_quality")
    for split, rows in splits.items():
        assert higher[split] == [row for row in rows if row["quality"] != "lower"]
    assert stream(copy, "identity_70_30", seed=1)["test"] != splits["test"]


def test_all_speakers_move_no_one(copy, recwarn):
    some, every = stream(copy, "identity_70_30"), stream(copy, "identity_70_30", all_speakers=True)
    assert not [w for w in recwarn if issubclass(w.category, CorpusWarning)]
    added = Counter(row["identity"] for rows in every.values() for row in rows if row["identity"] in OTHERS)
    assert added == dict.fromkeys(OTHERS, len(SENTENCES))
    for split, rows in some.items():
        assert [row for row in every[split] if row["identity"] not in OTHERS] == rows


def test_streaming_equals_loading(copy, tmp_path):
    loaded = load_dataset("df_timit", "all", data_dir=str(copy), cache_dir=str(tmp_path), split="full")
    assert rows_of(loaded) == stream(copy, "all")["full"]
    assert list(loaded.features) == [*FEATURES, "quality", "donor", "gender", "sentence"]


def test_places_of_vidtimit(copy, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "DeepfakeTIMIT").symlink_to(copy / "DeepfakeTIMIT")
    expected = [row["path"] for row in stream(copy)["full"]]
    with pytest.raises(
        CorpusNotFoundError, match=r"no genuine clips.*vidtimit_dir.*dataset_scripts\.vidtimit"
    ):
        stream(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "vidtimit").symlink_to(copy / "VidTIMIT")
    assert [row["path"] for row in stream(tmp_path / "elsewhere")["full"]] == expected
    fakes = tmp_path / "elsewhere" / "DeepfakeTIMIT"
    assert [row["path"] for row in stream(fakes)["full"]] == expected  # beside the folder of the fakes
    with pytest.raises(CorpusNotFoundError, match=r"VidTIMIT: looked for the folders of its speakers"):
        stream(fakes, vidtimit_dir=str(tmp_path / "elsewhere" / "DeepfakeTIMIT" / "higher_quality" / "fadg0"))
    with pytest.raises(CorpusNotFoundError, match="higher_quality and lower_quality"):
        stream(copy / "VidTIMIT")


def test_other_forms_of_vidtimit(tmp_path):
    """Files in `video/`, another container, and the sound beside the video or nowhere."""
    write_deepfake_timit(tmp_path / "copy" / "DeepfakeTIMIT", qualities=("lower_quality",))
    for speaker, sentence in GENUINE:
        touch(tmp_path / "copy" / "VidTIMIT" / speaker / "video" / f"{sentence}.mp4")
        if sentence != "sa1":
            touch(tmp_path / "copy" / "VidTIMIT" / speaker / f"{sentence}.wav")
    touch(tmp_path / "copy" / "VidTIMIT" / "fadg0" / "video" / "sa2.mkv")
    with pytest.warns(CorpusWarning) as caught:
        rows = stream(tmp_path / "copy", "lower_quality")["full"]
    genuine = {row["path"]: row for row in rows if row["label"] == 0}
    assert len(genuine) == len(GENUINE)
    row = genuine["VidTIMIT/fadg0/video/sa2"]
    assert row["video"]["path"] == str(tmp_path / "copy/VidTIMIT/fadg0/video/sa2.mkv")
    assert row["audio"] == str(tmp_path / "copy/VidTIMIT/fadg0/sa2.wav")
    assert genuine["VidTIMIT/fadg0/video/sa1"]["audio"] is None
    said = [str(w.message) for w in caught]
    assert any(f"{2 * len(PAIRS)} genuine clips have no wav file" in m for m in said)
    assert any("1 genuine clips have several video files" in m for m in said)


def test_missing_files(tmp_path, monkeypatch):
    root = tmp_path / "copy"
    write_deepfake_timit(root / "DeepfakeTIMIT", qualities=("higher_quality",))
    write_vidtimit(root / "VidTIMIT")
    stream(root, "higher_quality")  # the other quality is not needed for this
    with pytest.raises(MissingFilesError, match=r"all 128 of 'DeepfakeTIMIT/lower_quality'"):
        stream(root, "all")
    (root / "DeepfakeTIMIT/higher_quality/fadg0/sa1.wav").unlink()
    shutil.rmtree(root / "VidTIMIT" / "mccs0")
    listing = tmp_path / "gone.txt"
    with pytest.raises(
        MissingFilesError, match=r"all 4 of 'VidTIMIT/mccs0', 1 of 128 of 'DeepfakeTIMIT/higher_quality'"
    ):
        stream(root, missing_files=str(listing))
    assert listing.read_text().splitlines()[-1] == "DeepfakeTIMIT/higher_quality/fadg0/sa1.wav"
    with pytest.warns(CorpusWarning, match="Their rows are left out"):
        rows = stream(root, max_missing=0.1)["full"]
    paths = {row["path"] for row in rows}
    assert len(rows) == len(GENUINE) + len(CLIPS) - 5
    assert "DeepfakeTIMIT/higher_quality/fadg0/sa1-video-fram1.avi" not in paths


def test_unexpected_files_and_counts(tmp_path, monkeypatch):
    write_deepfake_timit(tmp_path / "copy" / "DeepfakeTIMIT")
    write_vidtimit(tmp_path / "copy" / "VidTIMIT")
    touch(tmp_path / "copy/DeepfakeTIMIT/higher_quality/fadg0/sa1.avi")
    monkeypatch.setattr(df_timit, "_FAKES_PER_QUALITY", 320)
    with pytest.warns(CorpusWarning) as caught:
        stream(tmp_path / "copy")
    said = [str(w.message) for w in caught]
    assert any("higher_quality has 64 fakes, not the known 320" in m for m in said)
    assert any("1 avi files" in m and "higher_quality/fadg0/sa1.avi" in m for m in said)


def images(count: int = 5) -> list[bytes]:
    jpegs = []
    for number in range(count):
        Image.new("RGB", (64, 48), (40 * (number + 1),) * 3).save(jpeg := io.BytesIO(), "JPEG", quality=90)
        jpegs.append(jpeg.getvalue())
    return jpegs


@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_images_become_video_files_without_loss(tmp_path, monkeypatch, suffix):
    pairs = (("fadg0", "fram1"),)
    monkeypatch.setattr(df_timit, "_FAKES_PER_QUALITY", len(fake_clips(pairs)))
    write_deepfake_timit(tmp_path / "copy" / "DeepfakeTIMIT", pairs, ("higher_quality",))
    jpegs = images()
    for speaker, sentence, _ in fake_clips(pairs):
        write_vidtimit_images(tmp_path / "copy" / "VidTIMIT", speaker, sentence, jpegs, suffix)
        soundfile.write(
            tmp_path / "copy/VidTIMIT" / speaker / "audio" / f"{sentence}.wav", [0.5] * 320, 32_000
        )
    with pytest.raises(MissingFilesError, match=r"8 genuine clips .* folders of images.*vidtimit --input"):
        stream(tmp_path / "copy")
    command = [
        sys.executable,
        "-m",
        "dataset_scripts.vidtimit",
        "--input",
        str(tmp_path / "copy" / "VidTIMIT"),
    ]
    command += ["--output", str(tmp_path / "avi")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"8 clips of 2 speakers are in {tmp_path / 'avi'}"
    assert not done.stderr
    names = sorted(path.name for path in (tmp_path / "avi" / "fadg0").iterdir())
    assert names == sorted(
        f"{s}.{kind}" for s in SENTENCES for kind in ("avi", "wav")
    )  # no head, no leftovers
    video = VideoDecoder(str(tmp_path / "avi/fadg0/sa1.avi"))
    assert (len(video), video.metadata.average_fps) == (len(jpegs), 25)
    data = (tmp_path / "avi/fadg0/sa1.avi").read_bytes()
    assert all(jpeg in data for jpeg in jpegs)  # byte for byte
    for frame, jpeg in zip(video, jpegs, strict=True):
        decoded = torch.from_numpy(numpy.array(Image.open(io.BytesIO(jpeg)))).permute(2, 0, 1)
        assert (frame.int() - decoded.int()).abs().max() <= 3  # colour conversion
    loaded = load_dataset(
        "df_timit",
        data_dir=str(tmp_path / "copy"),
        vidtimit_dir=str(tmp_path / "avi"),
        cache_dir=str(tmp_path / "cache"),
        split="full",
    )
    row = loaded[loaded["path"].index("VidTIMIT/fadg0/video/sa1")]
    assert row["video"][0].shape == (3, 48, 64)
    assert soundfile.info(row["audio"]).samplerate == 32_000


def test_a_stopped_run_continues(tmp_path):
    write_vidtimit_images(tmp_path / "in", "fadg0", "sa1", images(3))
    out = str(tmp_path / "out")
    (video,) = vidtimit.encode_vidtimit(str(tmp_path / "in"), out)
    Path(video).write_bytes(b"kept")
    write_vidtimit_images(tmp_path / "in", "fadg0", "sa2", images(3))
    assert [Path(v).name for v in vidtimit.encode_vidtimit(str(tmp_path / "in"), out)] == [
        "sa1.avi",
        "sa2.avi",
    ]
    assert Path(video).read_bytes() == b"kept"


def test_images_that_cannot_be_used(tmp_path, capsys):
    root = tmp_path / "in"
    write_vidtimit_images(root, "fadg0", "sa1", images(4))
    (root / "fadg0/video/sa1/002").unlink()
    with pytest.raises(MetadataError, match="image 2 is missing"):
        list(vidtimit.encode_vidtimit(str(root), str(tmp_path / "out")))
    (root / "fadg0/video/sa1/002").write_bytes(images(1)[0][:-200])
    with pytest.raises(MetadataError, match=r"002 is not a complete JPEG"):
        list(vidtimit.encode_vidtimit(str(root), str(tmp_path / "out")))
    (root / "fadg0/video/sa1/002").write_bytes(images(1)[0] * 2)  # two in one file: ffmpeg finds five
    with pytest.raises(MetadataError, match="ffmpeg stored 5 of 4 images"):
        list(vidtimit.encode_vidtimit(str(root), str(tmp_path / "out")))
    assert not list((tmp_path / "out").rglob("*.avi*"))
    (root / "fadg0/audio/sa1.wav").unlink()
    assert vidtimit.main(["--input", str(root), "--output", str(tmp_path / "out")]) == 1
    assert "1 sound files are missing" in capsys.readouterr().err
    with pytest.raises(CorpusNotFoundError, match="no folder of images"):
        touch(tmp_path / "none" / "fadg0" / "sa1.avi")
        list(vidtimit.encode_vidtimit(str(tmp_path / "none"), str(tmp_path / "out")))


def test_a_clip_can_be_decoded(tmp_path, monkeypatch):
    pairs = (("fadg0", "fram1"),)
    monkeypatch.setattr(df_timit, "_FAKES_PER_QUALITY", len(fake_clips(pairs)))
    write_deepfake_timit(tmp_path / "copy" / "DeepfakeTIMIT", pairs)
    write_vidtimit(tmp_path / "copy" / "VidTIMIT", ("fadg0", "fram1"))
    write_clip(tmp_path / "copy/DeepfakeTIMIT/higher_quality/fadg0/sa1-video-fram1.avi", frames=8)
    found = load_dataset(
        "df_timit", data_dir=str(tmp_path / "copy"), cache_dir=str(tmp_path / "cache"), split="full"
    )
    fake = found.filter(lambda path: path.endswith("fadg0/sa1-video-fram1.avi"), input_columns="path")
    assert len(fake) == 1 and len(fake[0]["video"]) == 8


def test_a_changed_copy_is_read_again(tmp_path, monkeypatch):
    write_deepfake_timit(tmp_path / "copy" / "DeepfakeTIMIT")
    write_vidtimit(tmp_path / "copy" / "VidTIMIT")
    settings = {"data_dir": str(tmp_path / "copy"), "cache_dir": str(tmp_path / "cache"), "split": "full"}
    before = load_dataset("df_timit", **settings)
    (tmp_path / "copy/VidTIMIT").rename(tmp_path / "copy/vidtimit")
    after = load_dataset("df_timit", **settings)
    assert before["path"][:] == after["path"][:]
    assert all("/vidtimit/" in row["video"]["path"] for row in rows_of(after) if row["label"] == 0)

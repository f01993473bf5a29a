"""Damage that FFmpeg conceals: what it says while it decodes becomes a warning, and good files get none."""

from __future__ import annotations

import random
import subprocess

import pytest
from media_factory import ffmpeg

from modeling_avlmm.inference.decoder_log import _LINE
from modeling_avlmm.inference.reader_process import reader_processes
from modeling_avlmm.media import MediaReader
from modeling_avlmm.media_errors import merged_warnings

PICTURE = "testsrc2=size=160x120:rate=25:duration=6"


@pytest.fixture(scope="module", autouse=True)
def apart():
    with reader_processes():
        yield


def read(path, order=(0, 1, 2)) -> list[str]:
    with MediaReader(path) as reader:
        clips = [reader.read(2.0 * k, 2.0 * k + 2, fps=25) for k in order]
    return merged_warnings(text for clip in clips for text in clip.warnings)


def test_concealed_damage_is_told_with_its_place(tmp_path):
    path = tmp_path / "clip.avi"
    ffmpeg("-f", "lavfi", "-i", PICTURE, "-c:v", "mpeg4", "-g", "10", path)
    assert read(path) == ["no audio track"]
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    data[at : at + 300] = random.Random(0).randbytes(300)
    path.write_bytes(data)
    (told,) = (text for text in read(path) if text.startswith("FFmpeg reports errors in the data"))
    assert told == (
        "FFmpeg reports errors in the data of the picture (mpeg4) around 2.00-3.96 s of the video: "
        "what is seen there may be wrong"
    )


def test_damage_that_is_met_while_silence_is_looked_for_is_told(tmp_path):
    """The sound of MPEG-TS is decoded once, from front to back."""
    path = tmp_path / "clip.ts"
    ffmpeg("-f", "lavfi", "-i", "sine=440:d=6", "-c:a", "mp2", path)
    data = bytearray(path.read_bytes())
    at = len(data) // 4
    data[at : at + 700] = random.Random(0).randbytes(700)
    path.write_bytes(data)
    told = {}
    for trim in (False, True):
        with MediaReader(path, trim_leading_silence=trim) as reader:
            clips = [reader.read(start, start + 2) for start in (0, 2, 4)]
        found = merged_warnings(text for clip in clips for text in clip.warnings)
        told[trim] = {
            text.template for text in found if "FFmpeg" in text and "{}" in getattr(text, "template", "")
        }
    assert told[False] and told[False] <= told[True]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.ts"])
def test_seeks_into_good_files_are_not_damage(tmp_path, name):
    path = tmp_path / name
    codec = ("-c:v", "libx264", "-preset", "veryfast", "-g", "12", "-bf", "3", "-x264-params", "open-gop=1")
    ffmpeg("-f", "lavfi", "-i", PICTURE, *codec, path)
    assert read(path, (2, 0, 1, 0, 2)) == ["no audio track"]


def test_lines_of_the_log():
    line = "[mov,mp4 @ 0x55d0] [h264 @ 0x55d1] error while decoding MB 3 5"
    assert _LINE.search(line).groups() == ("h264", "error while decoding MB 3 5")
    assert _LINE.search("free(): invalid pointer") is None


@pytest.mark.parametrize("name, codec", [("clip.wav", "pcm_s16le"), ("clip.mp3", "libmp3lame")])
def test_sound_that_was_cut_off(tmp_path, name, codec):
    path = tmp_path / name
    ffmpeg("-f", "lavfi", "-i", "sine=440:duration=6", "-c:a", codec, path)
    assert read(path) == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 12 * 10])
    (told,) = read(path)
    seconds = float(told.split()[3])
    assert told == f"the file ends {seconds:.2f} s before the end its header gives: it may be truncated"
    assert seconds == pytest.approx(1, abs=0.1)


def test_a_picture_that_cannot_be_decoded(tmp_path):
    path = tmp_path / "clip.webm"
    ffmpeg(
        "-f", "lavfi", "-i", PICTURE, "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", path
    )
    probe = ["ffprobe", "-v", "error", "-show_entries", "packet=pos,pts_time", "-of", "csv=p=0", str(path)]
    packets = subprocess.run(probe, check=True, capture_output=True, text=True).stdout.split()
    position = next(line.split(",")[1] for line in packets if line.startswith("3.000"))
    data = bytearray(path.read_bytes())
    data[int(position) + 4] = 0  # the first byte of VP9, which cannot be 0, after four of the block
    path.write_bytes(data)
    assert "frames at 3.00 s cannot be decoded; the nearest readable ones are shown" in read(path)

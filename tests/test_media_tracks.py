"""The tracks: resampling, damage, and kinds of picture and sound."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import soundfile
import torch
from media_factory import (
    click_track,
    ffmpeg,
    flash_frames,
    make_clip,
    make_corrupt,
    make_rotated,
    make_truncated,
    remux,
)

from modeling_avlmm.media import SAMPLING_RATE, MediaReader, UnreadableMediaError, read_clip, resample
from modeling_avlmm.media_errors import PlacedWarning, merged_warnings

# ---------------------------------------------------------------------------------------------------- sound


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 44_099, 96_000])
def test_resample(rate):
    time = torch.arange(rate, dtype=torch.float64) / rate
    out = resample(torch.sin(2 * torch.pi * 1000 * time).float(), rate, SAMPLING_RATE)
    grid = torch.arange(SAMPLING_RATE, dtype=torch.float64) / SAMPLING_RATE
    assert len(out) == SAMPLING_RATE
    assert float((out - torch.sin(2 * torch.pi * 1000 * grid).float())[400:-400].abs().max()) < 2e-3
    if rate > 2 * 9_000:  # frequencies above 8 kHz must vanish, not fold back
        high = resample(torch.sin(2 * torch.pi * 9_000 * time).float(), rate, SAMPLING_RATE)
        assert float(high[400:-400].abs().max()) < 2e-3


def test_stereo_file_is_the_mean(tmp_path):
    left = click_track(1, 16_000, None)[0].numpy()
    soundfile.write(tmp_path / "s.wav", np.stack([left, np.zeros_like(left)], 1), 16_000)
    assert np.abs(read_clip(tmp_path / "s.wav").audio.numpy() - left / 2).max() < 1e-4


# --------------------------------------------------------------------------------------------------- damage


def test_truncated(tmp_path):
    # its index is at the end
    source = make_clip(tmp_path / "c.mp4", seconds=4, size=(64, 48), sampling_rate=44_100, gop=25)
    with pytest.raises(UnreadableMediaError, match="not readable as media"):
        read_clip(make_truncated(source, tmp_path / "no_moov.mp4"))
    for suffix, options in ((".mp4", ["-movflags", "faststart"]), (".mkv", [])):
        whole = remux(source, tmp_path / f"whole{suffix}", *options)
        clip = read_clip(make_truncated(whole, tmp_path / f"cut{suffix}"))
        assert 1 < clip.duration < 3.5 and len(clip.frames) == math.ceil(clip.duration * 2 - 0.2)
        assert any("may be truncated" in warning for warning in clip.warnings)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_corruption_in_the_middle(tmp_path, suffix):
    source = make_clip(tmp_path / f"c{suffix}", 8, size=(128, 96), gop=25)
    whole, clip = read_clip(source), read_clip(make_corrupt(source, tmp_path / f"bad{suffix}"))
    assert clip.frames.shape == whole.frames.shape and len(clip.audio) == len(whole.audio)
    assert any(" s " in warning and ("decoded" in warning or "held" in warning) for warning in clip.warnings)
    assert torch.equal(clip.frames[:4], whole.frames[:4]) and torch.equal(clip.frames[-4:], whole.frames[-4:])
    assert torch.allclose(clip.audio[-16_000:], whole.audio[-16_000:], atol=1e-2)


def test_mostly_corrupt(tmp_path):
    source = make_clip(tmp_path / "c.mp4", 8, size=(128, 96), gop=25)
    path = make_corrupt(source, tmp_path / "bad.mp4", 0.02, 0.9)
    with pytest.raises(UnreadableMediaError, match="more than half"):
        read_clip(path)


def test_no_frames(tmp_path):
    path = tmp_path / "zero.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=black:size=64x64:duration=1", "-t", "0", path)
    with pytest.raises(UnreadableMediaError):
        read_clip(path)


# ------------------------------------------------------------------------------------------------- pictures


def test_one_frame_and_no_audio(tmp_path):
    clip = read_clip(make_clip(tmp_path / "one.mp4", seconds=0.04, audio=False))
    assert len(clip.frames) == 1 and clip.audio is None and clip.warnings == ["no audio track"]
    assert clip.timestamps.tolist() == [0]


@pytest.mark.parametrize(
    ("size", "codec", "pixel_format"),
    [((101, 57), "libx264", "yuv444p"), ((64, 64), "libx264", "yuv420p10le"), ((64, 48), "png", "rgb24")],
)
def test_sizes_and_pixel_formats(tmp_path, size, codec, pixel_format):
    path = make_clip(tmp_path / "c.mkv", 1, size=size, codec=codec, pixel_format=pixel_format)
    clip = read_clip(path, fps=25)
    expected = flash_frames(1, 25, size, None)
    assert clip.frames.shape == expected.shape and clip.frames.dtype == torch.uint8
    assert float((clip.frames.float() - expected.float()).abs().mean()) < 6


@pytest.mark.parametrize(("codec", "pixel_format"), [("ffv1", "gray"), ("png", "rgba")])
def test_gray_and_alpha(tmp_path, codec, pixel_format):
    source = make_clip(tmp_path / "c.mp4", 1)
    path = tmp_path / "c.mkv"
    ffmpeg("-i", source, "-c:v", codec, "-pix_fmt", pixel_format, "-c:a", "copy", path)
    difference = read_clip(path).frames.float() - read_clip(source).frames.float()
    assert float(difference.abs().mean()) < 6


def test_rotated_video_is_upright(tmp_path):
    source = make_clip(tmp_path / "c.mp4", 1, size=(96, 64))
    with MediaReader(make_rotated(source, tmp_path / "r.mp4")) as reader:
        frames = reader.read().frames
        assert (reader.info.width, reader.info.height) == (64, 96)
    plain = read_clip(source).frames
    turned = {k: float((torch.rot90(plain, k, (2, 3)).float() - frames.float()).abs().mean()) for k in (1, 3)}
    assert frames.shape[2:] == (96, 64) and min(turned.values()) < 5


def test_size_changes_inside(tmp_path):
    parts = [make_clip(tmp_path / f"{w}.ts", 1, size=(w, 48), audio=False, gop=5) for w in (64, 96)]
    shifted = remux(parts[1], tmp_path / "second.ts", "-output_ts_offset", "1")
    path = tmp_path / "both.ts"
    path.write_bytes(parts[0].read_bytes() + shifted.read_bytes())
    clip = read_clip(path)
    assert clip.frames.shape[2:] == (48, 64)
    assert any("frame size changes" in warning for warning in clip.warnings)


def test_cover_art_is_not_a_video(tmp_path):
    make_clip(tmp_path / "c.mp4", 0.04, audio=False)
    ffmpeg("-i", tmp_path / "c.mp4", "-frames:v", "1", tmp_path / "cover.png")
    tone = ["-f", "lavfi", "-i", "sine=duration=2", "-i", tmp_path / "cover.png", "-map", "0", "-map", "1"]
    ffmpeg(*tone, "-c:v", "copy", "-disposition:v", "attached_pic", tmp_path / "song.mp3")
    clip = read_clip(tmp_path / "song.mp3")
    assert clip.frames is None and len(clip.audio) == pytest.approx(32_000, abs=900)
    assert any("cover" in warning for warning in clip.warnings)


def test_warnings_of_windows_are_said_once(tmp_path):
    """Frames come in the first tenth of every two seconds only."""
    source = make_clip(tmp_path / "clip.mp4", seconds=6.0, fps=25)
    path = tmp_path / "sparse.mp4"
    ffmpeg("-i", source, "-vf", "select='lt(mod(t,2),0.2)'", "-fps_mode", "vfr", "-c:a", "copy", path)
    with MediaReader(path) as reader:
        notes = [
            note for span in reader.windows(2) for note in reader.read(*span, fps=4, max_frames=99).warnings
        ]
    assert len(notes) == 2 and all("the frame before is held" in note for note in notes)
    merged = merged_warnings([*notes, "odd", *pickle.loads(pickle.dumps(notes)), "odd"])
    assert len(merged) == 2 and merged[1] == "odd"
    moments = [moment for note in notes for moment in note.places]
    assert merged[0] == f"no frames around {', '.join(moments)} s of the video: the frame before is held"
    many = merged_warnings([PlacedWarning("at {} s", [str(k)]) for k in range(30)] * 2)
    assert many == ["at " + ", ".join(map(str, range(20))) + " and 10 more s"]

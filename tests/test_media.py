"""The reader: known answers for time and windows, bounded memory, errors."""

from __future__ import annotations

import pickle
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from media_factory import ffmpeg, make_clip, make_hour, make_vfr, remux, shift_audio
from torchcodec.decoders import VideoDecoder

from modeling_avlmm import media
from modeling_avlmm.media import (
    SAMPLING_RATE,
    Clip,
    MediaError,
    MediaNotFoundError,
    MediaReader,
    MediaTooLargeError,
    UnreadableMediaError,
    UnsupportedSourceError,
    read_clip,
)
from modeling_avlmm.media_files import MAX_DECODING_THREADS, decoding_threads

FINE = 200.0  # instants per second at which a flash is looked for


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory) -> Path:
    """4 s, 25 fps, 64x48, AAC 44.1 kHz, a key frame every second."""
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    return make_clip(path, seconds=4, size=(64, 48), sampling_rate=44_100, gop=25)


def flash_and_click(clip: Clip) -> tuple[float, float]:
    """Return the first bright instant and the first loud sample, in seconds."""
    bright = (clip.frames.float().mean((1, 2, 3)) > 128).nonzero()
    loud = (clip.audio.abs() > 0.3).nonzero()
    assert len(bright) and len(loud)
    return float(clip.timestamps[bright[0, 0]]), float(loud[0, 0]) / SAMPLING_RATE


def check_sync(path: Path, flash: float, click: float, one_frame: float) -> None:
    """Check the times of the white frame and of the click on the file's clock."""
    with MediaReader(path) as reader:
        whole = flash_and_click(reader.read(fps=FINE))
        assert 0 <= whole[0] - flash + 1e-6 < 1 / FINE + 1e-6
        assert abs(whole[1] - click) < 0.002
        # the same in a window that starts between frames and samples, and at the models' default rate
        start = min(flash, click) - 0.137
        window = flash_and_click(reader.read(start, start + 1.5, fps=FINE))
        assert abs(window[0] + start - flash) < 1 / FINE + 1e-6
        assert abs(window[1] + start - click) < 0.002
        half = reader.read(flash, flash + one_frame, fps=2.0)
        assert half.frames.float().mean() > 128


# ----------------------------------------------------------------------------------------------------- time


@pytest.mark.parametrize("fps", [24_000 / 1001, 25.0, 30_000 / 1001, 30.0, 60.0])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_flash_and_click_at_every_frame_rate(tmp_path, fps, suffix):
    flash = int(1.7 * fps + 1e-6) / fps
    path = make_clip(tmp_path / f"c{suffix}", 3, fps, flash_at=flash + 1e-5, click_at=flash)
    if suffix == ".mp4":
        check_sync(path, flash, flash, 1 / fps)
    else:  # Matroska times are whole milliseconds, and audio starts with the codec's priming
        with MediaReader(path) as reader:
            seen = flash_and_click(reader.read(fps=FINE))
        assert seen[0] == pytest.approx(flash, abs=1 / FINE + 1e-3)
        assert seen[1] == pytest.approx(flash, abs=4e-3)


def test_flash_and_click_vfr(tmp_path):
    source = make_clip(tmp_path / "cfr.mp4", 3, 25, flash_at=1.2, click_at=1.2)
    path = make_vfr(source, tmp_path / "vfr.mp4")
    assert MediaReader(path).info.num_frames == 50
    check_sync(path, 1.2, 1.2, 0.04)


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mov"])
def test_flash_and_click_in_other_containers(tmp_path, suffix):
    source = make_clip(tmp_path / "c.mp4", 3, 25, flash_at=1.2, click_at=1.2, gop=10)
    path = remux(source, tmp_path / f"c{suffix}", "-output_ts_offset", "5" if suffix == ".ts" else "0")
    with MediaReader(path) as reader:
        flash, click = flash_and_click(reader.read(fps=FINE))
        window = flash_and_click(reader.read(1.0, 1.5, fps=FINE))
    assert 0 <= flash - 1.2 + 1e-6 < 1 / FINE + 2e-3
    assert click == pytest.approx(flash, abs=0.01)
    assert window == pytest.approx((flash - 1, click - 1), abs=0.005)


@pytest.mark.parametrize("delay", [0.6, -0.6])
def test_offset_between_audio_and_video(tmp_path, delay):
    source = make_clip(tmp_path / "c.mp4", 3, 25, flash_at=1.2, click_at=1.2)
    path = shift_audio(source, tmp_path / "shifted.mp4", delay)
    flash, click = (1.2, 1.8) if delay > 0 else (1.8, 1.2)  # the track that begins first sets the zero
    check_sync(path, flash, click, 0.04)
    with MediaReader(path) as reader:
        clip = reader.read()
        assert reader.info.av_offset == pytest.approx(delay, abs=0.07)  # minus the codec's priming
        assert any("audio starts" in warning for warning in clip.warnings)
    if delay > 0:
        assert not clip.audio[: int(0.5 * SAMPLING_RATE)].any()


def test_cut_without_reencoding(tmp_path):
    """`-ss` with `-c copy` writes an edit list: the video begins inside a group of pictures."""
    source = make_clip(tmp_path / "c.mp4", 3, 25, flash_at=1.8, click_at=1.8, gop=50)
    path = tmp_path / "cut.mp4"
    ffmpeg("-ss", "0.52", "-i", source, "-c", "copy", path)
    flash, click = flash_and_click(read_clip(path, fps=FINE))
    assert flash == pytest.approx(click, abs=1 / FINE + 0.02)


def test_audio_with_a_gap_stays_in_place(tmp_path):
    source = make_clip(tmp_path / "c.mp4", 3, 25, flash_at=2.0, click_at=2.0)
    path = tmp_path / "gap.mkv"
    cut = "aselect='not(between(t,0.5,1.2))'"
    ffmpeg("-i", source, "-af", cut, "-c:v", "copy", "-c:a", "pcm_s16le", path)
    clip = read_clip(path, fps=FINE)
    assert flash_and_click(clip) == pytest.approx((2.0, 2.0), abs=1 / FINE + 1e-3)
    assert any("is missing" in warning for warning in clip.warnings)


def test_instants(clip_path):
    with MediaReader(clip_path) as reader:
        assert reader.read(0, 2, fps=2).timestamps.tolist() == [0, 0.5, 1.0, 1.5]
        assert reader.read(0, 1.1, fps=2).timestamps.tolist() == [0, 0.5, 1.0]
        assert reader.read(0, 1.0 + 1e-9, fps=2).timestamps.tolist() == [0, 0.5]
        assert reader.read(1, 1.01, fps=2).timestamps.tolist() == [0]
        assert reader.read(0, 4, fps=2, max_frames=5).timestamps.tolist() == pytest.approx(
            [0, 0.8, 1.6, 2.4, 3.2]
        )
        assert len(reader.read(0, 4, fps=2, max_frames=100).frames) == 8
        clip = reader.read(2.0, 3.0)
    assert (clip.start, clip.end, clip.duration) == (2.0, 3.0, 1.0)
    assert clip.frames.shape == (2, 3, 48, 64) and clip.frames.dtype == torch.uint8
    assert clip.timestamps.dtype == torch.float64 and clip.audio.dtype == torch.float32
    assert len(clip.audio) == SAMPLING_RATE and clip.warnings == []


def test_frames_are_those_on_screen(clip_path):
    decoder = VideoDecoder(clip_path)
    with MediaReader(clip_path) as reader:
        assert torch.equal(reader.read(fps=25).frames, decoder[:])
        assert torch.equal(
            reader.read(0.99, 1.3, fps=10).frames, decoder.get_frames_at([24, 27, 29, 32]).data
        )


def test_threads_change_nothing_and_are_bounded(clip_path, monkeypatch):
    clips = [read_clip(clip_path, num_ffmpeg_threads=count, fps=25) for count in (1, 2, 4)]
    assert all(torch.equal(clip.frames, clips[0].frames) for clip in clips)
    assert clips[0].frames.is_contiguous(memory_format=torch.channels_last)  # as decoded: no copy
    for torch_threads, expected in ((1, 1), (3, 3), (64, MAX_DECODING_THREADS)):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=torch_threads: count)
        assert decoding_threads(1280, 720) == decoding_threads(None, None) == expected
        assert decoding_threads(640, 360) == 1
    for given, expected in ((None, 1), (2, 2)):
        with MediaReader(clip_path, num_ffmpeg_threads=given) as reader:
            assert reader.info.height < 480 and reader._video.threads == expected
    with pytest.raises(ValueError, match="at least 1"):
        MediaReader(clip_path, num_ffmpeg_threads=0)


def test_video_shorter_than_audio(tmp_path):
    path = make_clip(tmp_path / "c.mp4", seconds=1, audio_seconds=3)
    with MediaReader(path) as reader:
        assert reader.info.duration == pytest.approx(3, abs=0.07)
        clip = reader.read()
        assert clip.timestamps.tolist() == [0, 0.5] and len(clip.audio) / SAMPLING_RATE == clip.duration
        late = reader.read(1.5, 2.5)
    assert late.frames is None and not late.has_video and len(late.audio) == SAMPLING_RATE
    assert any("video ends at 1.00 s" in warning for warning in late.warnings)


def test_audio_shorter_than_video(tmp_path):
    path = make_clip(tmp_path / "c.mp4", seconds=3, audio_seconds=1)
    with MediaReader(path) as reader:
        assert len(reader.read().audio) == pytest.approx(SAMPLING_RATE, abs=1100)
        late = reader.read(2, 3)
    assert late.audio is None and len(late.frames) == 2
    assert any("audio ends" in warning for warning in late.warnings)


# -------------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv"])
def test_windows_equal_slices_of_the_whole(clip_path, tmp_path, suffix):
    path = remux(clip_path, tmp_path / f"c{suffix}")
    with MediaReader(path) as reader:
        whole = reader.read(fps=10)
        for start in (2.0, 0.5, 3.0, 0.0):  # backwards too
            part = reader.read(start, start + 1, fps=10)
            k = int(start * 10)
            assert torch.equal(part.frames, whole.frames[k : k + 10])
            samples = whole.audio[int(start * SAMPLING_RATE) :][:SAMPLING_RATE]
            # Matroska counts in milliseconds, so either end of its windows may be off by half of one; the last
            # samples of a file depend on how much codec padding the resampler has seen
            aside = range(-16, 17) if suffix == ".mkv" else (0,)
            errors = [(part.audio[50:-50] - samples.roll(k)[50:-50]).abs().max() for k in aside]
            assert float(min(errors)) < (0.04 if suffix == ".mkv" else 5e-4)  # 0.04: half a sample
            assert len(part.audio) == len(samples)


def test_window_spans(clip_path):
    with MediaReader(
        {"audio": np.zeros(10 * SAMPLING_RATE, np.float32), "sampling_rate": SAMPLING_RATE}
    ) as reader:
        assert reader.windows(5) == [(0, 5), (5, 10)]
        assert reader.windows(4) == [(0, 4), (4, 8), (8, 10)]
        assert reader.windows(3) == [(0, 3), (3, 6), (6, 8), (8, 10)]
        assert reader.windows(4.7) == [(0, 4.7), pytest.approx((4.7, 7.35)), pytest.approx((7.35, 10))]
        assert reader.windows(9) == [(0, 5), (5, 10)]
        assert reader.windows(4, 2) == [(0, 4), (2, 6), (4, 8), (6, 10)]
        assert reader.windows(20) == [(0, 10)]
        with pytest.raises(ValueError, match="above 0"):
            reader.windows(0)
        for bad in ({"start": -1}, {"start": 10.0}, {"start": 3, "end": 3}, {"fps": 0}, {"max_frames": 0}):
            with pytest.raises(ValueError):
                reader.read(**bad)


def test_the_padding_of_a_codec_makes_no_window():
    sound = np.zeros(round(6.016 * SAMPLING_RATE), np.float32)
    with MediaReader({"audio": sound, "sampling_rate": SAMPLING_RATE}) as reader:
        spans = reader.windows(3)
        assert spans == [(0, 3), pytest.approx((3.016, 6.016))]
        assert [len(reader.read(*span).audio) for span in spans] == [48_000, 48_000]


def test_an_hour_in_bounded_memory(tmp_path):
    path = make_hour(tmp_path / "hour.mp4")
    with MediaReader(path) as reader:
        assert reader.info.duration == pytest.approx(3600, abs=0.2)
        reader.read(0, 4)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for start in (1800.0, 3590.0, 61.0):
            clip = reader.read(start, start + 4, fps=1)
            expected = torch.tensor([20 + (start + k) % 200 for k in range(4)])
            assert torch.allclose(clip.frames[:, 0].float().mean((1, 2)), (expected - 16) * 255 / 219, atol=3)
            assert len(clip.audio) == 4 * SAMPLING_RATE and 0.01 < float(clip.audio.abs().max()) < 0.5
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < (40 * 1024 if sys.platform == "linux" else 40 * 1024**2)


def test_too_many_pixels(clip_path, monkeypatch):
    monkeypatch.setattr(media, "MAX_CLIP_BYTES", 50_000)
    with MediaReader(clip_path) as reader:
        assert len(reader.read(0, 1).frames) == 2
        with pytest.raises(MediaTooLargeError, match="8 frames of 64x48"):
            reader.read()


# --------------------------------------------------------------------------------------------------- errors


def test_errors_pickle_and_read_well():
    for kind in (
        MediaError,
        MediaNotFoundError,
        MediaTooLargeError,
        UnreadableMediaError,
        UnsupportedSourceError,
    ):
        error = pickle.loads(pickle.dumps(kind("a.mp4", "is bad", "Do this")))
        assert type(error) is kind and isinstance(error, ValueError)
        assert (error.name, error.reason, str(error)) == ("a.mp4", "is bad", "a.mp4: is bad. Do this.")
        assert str(kind("text of a worker")) == "text of a worker"  # as a DataLoader raises it again
    assert issubclass(MediaNotFoundError, FileNotFoundError)

"""The decoder: known answers for time, windows, every kind of source and every kind of damage."""

from __future__ import annotations

import http.server
import io
import math
import pickle
import resource
import sys
import threading
from pathlib import Path

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
    make_hour,
    make_rotated,
    make_truncated,
    make_vfr,
    remux,
    shift_audio,
)
from torchcodec.decoders import AudioDecoder, VideoDecoder

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
    resample,
)

FINE = 200.0  # instants per second when the time of a flash is measured


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory) -> Path:
    """4 s, 25 fps, 64x48, AAC 44.1 kHz, a key frame every second."""
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    return make_clip(path, seconds=4, size=(64, 48), sampling_rate=44_100, gop=25)


def flash_and_click(clip: Clip) -> tuple[float, float]:
    """The first bright instant and the first loud sample, in seconds."""
    bright = (clip.frames.float().mean((1, 2, 3)) > 128).nonzero()
    loud = (clip.audio.abs() > 0.3).nonzero()
    assert len(bright) and len(loud)
    return float(clip.timestamps[bright[0, 0]]), float(loud[0, 0]) / SAMPLING_RATE


def check_sync(path: Path, flash: float, click: float, one_frame: float) -> None:
    """`flash` is the time of the frame, `click` of the sample, both on the file's clock."""
    with MediaReader(path) as reader:
        whole = flash_and_click(reader.read(fps=FINE))
        assert 0 <= whole[0] - flash + 1e-6 < 1 / FINE + 1e-6
        assert abs(whole[1] - click) < 0.002
        # the same in a window that starts between frames and samples, and at the default rate of the models
        start = min(flash, click) - 0.137
        window = flash_and_click(reader.read(start, start + 1.5, fps=FINE))
        assert abs(window[0] + start - flash) < 1 / FINE + 1e-6
        assert abs(window[1] + start - click) < 0.002
        half = reader.read(flash, flash + one_frame, fps=2.0)
        assert half.frames.float().mean() > 128


# ---------------------------------------------------------------------------------------------- time


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
    check_sync(path, 1.2, 1.2 + delay, 0.04)
    with MediaReader(path) as reader:
        clip = reader.read()
        assert reader.info.av_offset == pytest.approx(delay, abs=0.07)  # less the priming of the codec
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


# ------------------------------------------------------------------------------------------- windows


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
            # Matroska counts in milliseconds, so one of its windows may lie up to half of one aside at either end; the last
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
        assert reader.windows(3) == [(0, 3), (3, 6), (6, 9), (9, 10)]
        assert reader.windows(4.7) == [(0, 4.7), pytest.approx((5.3, 10))] or len(reader.windows(4.7)) == 3
        assert reader.windows(9) == [(0, 9), (1, 10)]
        assert reader.windows(4, 2) == [(0, 4), (2, 6), (4, 8), (6, 10)]
        assert reader.windows(20) == [(0, 10)]
        with pytest.raises(ValueError, match="above 0"):
            reader.windows(0)
        for bad in ({"start": -1}, {"start": 10.0}, {"start": 3, "end": 3}, {"fps": 0}, {"max_frames": 0}):
            with pytest.raises(ValueError):
                reader.read(**bad)


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


# ------------------------------------------------------------------------------------------- sources


def test_every_form_of_one_file(clip_path):
    expected = read_clip(clip_path)
    data = clip_path.read_bytes()
    moved = io.BytesIO(data)
    moved.seek(100)
    for source in (
        str(clip_path),
        data,
        moved,
        {"path": None, "bytes": data},
        {"path": str(clip_path)},
        expected,
    ):
        clip = read_clip(source)
        assert torch.equal(clip.frames, expected.frames) and torch.equal(clip.audio, expected.audio)
    with open(clip_path, "rb") as file:
        assert torch.equal(read_clip(file).frames, expected.frames)
    with MediaReader(clip_path) as reader:
        info = reader.info
    assert (info.width, info.height, info.average_fps, info.num_frames) == (64, 48, 25.0, 100)
    assert (info.sampling_rate, info.video_codec, info.audio_codec) == (44_100, "h264", "aac")
    assert info.file_size == len(data) and info.av_offset == 0


def test_open_decoder(clip_path):
    expected = read_clip(clip_path)
    decoder = VideoDecoder(clip_path, dimension_order="NHWC", output_dtype=torch.float32)
    clip = read_clip(decoder)
    assert float((clip.frames.float() - expected.frames.float()).abs().max()) <= 3  # FFmpeg's other converter
    assert torch.equal(read_clip(VideoDecoder(clip_path)).frames, expected.frames) and clip.audio is None
    assert any("an open VideoDecoder gives frames only" in warning for warning in clip.warnings)
    assert torch.equal(read_clip(decoder, audio=clip_path).audio, expected.audio)
    assert read_clip(decoder, audio=AudioDecoder(clip_path)).has_audio
    decoder._hf_encoded = {"path": str(clip_path), "bytes": None}  # as `datasets` leaves it
    assert torch.equal(read_clip(decoder).audio, expected.audio)


def test_arrays_equal_files(tmp_path):
    frames = flash_frames(2, 25, (64, 64), None)
    sound = click_track(2, 16_000, 0.7)[0]
    make_clip(tmp_path / "v.mkv", 2, audio=False, codec="png", pixel_format="rgb24")
    soundfile.write(tmp_path / "a.wav", sound.numpy(), 16_000, subtype="FLOAT")
    path = tmp_path / "lossless.mkv"
    ffmpeg("-i", tmp_path / "v.mkv", "-i", tmp_path / "a.wav", "-c", "copy", path)
    arrays = {"frames": frames, "fps": 25, "audio": sound, "sampling_rate": 16_000}
    last = {
        **arrays,
        "frames": frames.permute(0, 2, 3, 1).numpy(),
        "audio": sound[None].repeat(2, 1).T.numpy(),
    }
    timed = {
        "frames": list(frames),
        "timestamps": 3 + np.arange(50) / 25,
        "audio": sound,
        "sampling_rate": 16_000,
    }
    for source in (arrays, last, timed):
        for window in ((0.0, None), (0.33, 1.21)):
            from_file, from_arrays = (
                read_clip(path, start=window[0], end=window[1]),
                read_clip(source, start=window[0], end=window[1]),
            )
            assert torch.equal(from_file.frames, from_arrays.frames)
            assert torch.allclose(from_file.audio, from_arrays.audio, atol=1e-4)


def test_integer_and_stereo_arrays():
    wave = click_track(1, 16_000, None)[0]
    for kind, scale in ((np.int16, 2**15), (np.int32, 2**31)):
        clip = read_clip({"audio": (wave.double().numpy() * scale).astype(kind), "sampling_rate": 16_000})
        assert torch.allclose(clip.audio, wave, atol=1e-4) and clip.frames is None
    unsigned = ((wave.numpy() * 128) + 128).astype(np.uint8)
    assert torch.allclose(read_clip({"array": unsigned, "sampling_rate": 16_000}).audio, wave, atol=0.01)
    stereo = torch.stack([wave, torch.zeros_like(wave)])
    assert torch.allclose(read_clip({"audio": stereo, "sampling_rate": 16_000}).audio, wave / 2)


def test_stereo_file_is_the_mean(tmp_path):
    left = click_track(1, 16_000, None)[0].numpy()
    soundfile.write(tmp_path / "s.wav", np.stack([left, np.zeros_like(left)], 1), 16_000)
    assert np.abs(read_clip(tmp_path / "s.wav").audio.numpy() - left / 2).max() < 1e-4


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 44_099, 96_000])
def test_resample(rate):
    time = torch.arange(rate, dtype=torch.float64) / rate
    out = resample(torch.sin(2 * torch.pi * 1000 * time).float(), rate, SAMPLING_RATE)
    grid = torch.arange(SAMPLING_RATE, dtype=torch.float64) / SAMPLING_RATE
    assert len(out) == SAMPLING_RATE
    assert float((out - torch.sin(2 * torch.pi * 1000 * grid).float())[400:-400].abs().max()) < 2e-3
    if rate > 2 * 9_000:  # what 16 kHz cannot hold must vanish, not fold back
        high = resample(torch.sin(2 * torch.pi * 9_000 * time).float(), rate, SAMPLING_RATE)
        assert float(high[400:-400].abs().max()) < 2e-3


def test_separate_audio_starts_with_the_video(tmp_path, clip_path):
    sound = click_track(4, 48_000, 1.5)[0].numpy()
    soundfile.write(tmp_path / "s.flac", sound, 48_000)
    data = (tmp_path / "s.flac").read_bytes()
    late = remux(clip_path, tmp_path / "late.ts", "-output_ts_offset", "7")
    for audio in (tmp_path / "s.flac", data, {"array": sound, "sampling_rate": 48_000}, {"bytes": data}):
        clip = read_clip(late, audio=audio)
        click = float((clip.audio.abs() > 0.3).nonzero()[0, 0]) / SAMPLING_RATE
        assert click == pytest.approx(1.5, abs=2e-3) and clip.has_video
    silent = make_clip(tmp_path / "silent.mp4", 1, audio=False)
    with pytest.raises(UnreadableMediaError, match="no audio track"):
        read_clip(clip_path, audio=silent)


def test_sound_files_without_torchcodec(tmp_path, monkeypatch):
    for suffix in ("wav", "flac", "ogg"):
        soundfile.write(tmp_path / f"s.{suffix}", click_track(2, 44_100, 1.25)[0].numpy(), 44_100)
    expected = {s: read_clip(tmp_path / f"s.{s}") for s in ("wav", "flac", "ogg")}

    def no_torchcodec():
        raise ImportError("no FFmpeg")

    monkeypatch.setattr(media, "_torchcodec", no_torchcodec)
    for suffix, clip in expected.items():
        with MediaReader(tmp_path / f"s.{suffix}") as reader:
            whole = reader.read()
            # FFmpeg drops the first packet of a Vorbis file
            assert len(whole.audio) == pytest.approx(len(clip.audio), abs=50)
            clicks = [int((x.audio.abs() > 0.3).nonzero()[0, 0]) for x in (whole, clip)]
            assert clicks == pytest.approx([20_000, 20_000], abs=50 if suffix == "ogg" else 1)
            part = reader.read(1.0, 1.5)
            assert torch.allclose(part.audio, whole.audio[16_000:24_000], atol=1e-5)
    make_clip(tmp_path / "c.mp4", 1)
    with pytest.raises(ImportError, match="no FFmpeg"):
        read_clip(tmp_path / "c.mp4")


def test_missing_ffmpeg_is_explained(tmp_path, clip_path, monkeypatch):
    import torchcodec.decoders as decoders

    def broken(*args, **kwargs):
        raise RuntimeError("Could not load libtorchcodec. Likely causes: ...")

    monkeypatch.setattr(decoders, "get_container_metadata", broken)
    with pytest.raises(ImportError, match="FFmpeg's shared libraries"):
        read_clip(clip_path)


# --------------------------------------------------------------------------------------------- links


@pytest.fixture(scope="module")
def server(clip_path):
    data = clip_path.read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            where, _, rest = self.path[1:].partition("/")
            if where == "missing":
                self.send_error(404)
                return
            self.send_response(302 if where == "redirect" else 200)
            if where == "redirect":
                self.send_header("Location", rest.replace("HOST", f"127.0.0.1:{self.server.server_port}"))
            elif where in ("clip.mp4", "short.mp4"):
                self.send_header("Content-Length", str(len(data) * (1 if where == "clip.mp4" else 2)))
            self.end_headers()
            if where in ("clip.mp4", "short.mp4", "untold.mp4"):
                self.wfile.write(data)
            elif where == "playlist":
                self.wfile.write(b"#EXTM3U\nfile:///etc/hostname\n")

        def log_message(self, *args):
            pass

    instance = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=instance.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{instance.server_port}"
    instance.shutdown()
    instance.server_close()
    thread.join()


def test_link(server, clip_path):
    expected = read_clip(clip_path)
    reader = MediaReader(f"{server}/clip.mp4/?token=secret")
    assert torch.equal(reader.read().frames, expected.frames)
    assert torch.allclose(reader.read(1, 2).audio, expected.audio[16_000:32_000], atol=1e-4)
    temporary = Path(reader._temporary[0].name)
    assert temporary.exists() and "secret" not in reader.name
    reader.close()
    assert not temporary.exists()
    assert torch.equal(read_clip(f"{server}/untold.mp4").audio, expected.audio)
    assert torch.equal(read_clip(f"{server}/redirect/http://HOST/clip.mp4").audio, expected.audio)


@pytest.mark.parametrize(
    ("link", "error", "message"),
    [
        ("/missing", MediaNotFoundError, "404"),
        ("/short.mp4", UnreadableMediaError, "stopped after"),
        ("/clip.mp4", MediaTooLargeError, "above the limit of 1000"),
        ("/untold.mp4", MediaTooLargeError, "above the limit of 1000"),
        ("/redirect/file:///etc/hostname", UnsupportedSourceError, "Only http and https"),
        ("/redirect/ftp://127.0.0.1/x.mp4", UnsupportedSourceError, "Only http and https"),
        ("/playlist", UnsupportedSourceError, "playlist"),
        ("/empty", UnreadableMediaError, "empty"),
    ],
)
def test_bad_links(server, link, error, message):
    limit = 1000 if error is MediaTooLargeError else 2**20
    with (
        MediaReader(server + link, max_bytes=limit, timeout=5) as reader,
        pytest.raises(error, match=message),
    ):
        reader.read()


def test_dead_server_does_not_hang():
    with pytest.raises(UnreadableMediaError, match="cannot be downloaded"):
        read_clip("http://127.0.0.1:9/x.mp4", timeout=2)


def test_other_schemes_are_refused():
    for link in ("ftp://example.org/a.mp4", "file:///etc/hostname", "concat://a", "hf://datasets/a/b.mp4"):
        with pytest.raises(UnsupportedSourceError, match="not an http or https link"):
            MediaReader(link)


def test_file_object_limits(clip_path):
    with open(clip_path, "rb") as file, pytest.raises(MediaTooLargeError, match="1000"):
        read_clip(file, max_bytes=1000)
    with pytest.raises(UnsupportedSourceError, match="'rb'"):
        read_clip(io.StringIO("text"))


# ----------------------------------------------------------------------------------- bad and odd input


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
        assert str(kind("text of a worker")) == "text of a worker"  # how a DataLoader raises it again
    assert issubclass(MediaNotFoundError, FileNotFoundError)


def test_files_that_are_not_media(tmp_path):
    with pytest.raises(MediaNotFoundError, match="no such file"):
        MediaReader(tmp_path / "none.mp4")
    with pytest.raises(UnsupportedSourceError, match="directory"):
        MediaReader(tmp_path)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(UnreadableMediaError, match="empty"):
        MediaReader(tmp_path / "empty.mp4")
    for name in ("text.mp4", "text.txt"):
        (tmp_path / name).write_text("This is not a video.\n" * 100)
        with pytest.raises(UnreadableMediaError):
            read_clip(tmp_path / name)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile /etc/hostname\n")
    with pytest.raises(UnsupportedSourceError, match="playlist"):
        MediaReader(tmp_path / "list.mp4")
    with pytest.raises(UnsupportedSourceError, match="regular file"):
        MediaReader("/dev/zero")
    for source in (None, 3, [1, 2], {}, {"url": "x"}):
        with pytest.raises(UnsupportedSourceError):
            MediaReader(source)
    with pytest.raises(UnreadableMediaError, match="empty"):
        MediaReader(b"")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": torch.zeros(4, 8, 8, dtype=torch.uint8)}, "shape"),
        ({"frames": torch.zeros(4, 3, 8, 8)}, "float32"),
        ({"fps": None}, "no times"),
        ({"fps": None, "timestamps": [0, 0, 1, 2]}, "do not rise"),
        ({"fps": None, "timestamps": [0, 1]}, "do not rise"),
        ({"sampling_rate": None}, "no rate"),
        ({"audio": np.array([0.0, 3000.0])}, "reach 3000"),
        ({"audio": np.zeros((2, 2, 2))}, "shape"),
        ({"audio": np.zeros(5, complex)}, "complex"),
    ],
)
def test_bad_arrays(change, message):
    source = {
        "frames": torch.zeros(4, 3, 8, 8, dtype=torch.uint8),
        "fps": 4,
        "audio": np.zeros(100, np.float32),
    }
    with pytest.raises(UnsupportedSourceError, match=message):
        read_clip({**source, "sampling_rate": 16_000, **change})


def test_truncated(tmp_path, clip_path):
    tail = make_truncated(remux(clip_path, tmp_path / "tail.mp4"), tmp_path / "no_moov.mp4")
    with pytest.raises(UnreadableMediaError, match="not readable as media"):
        read_clip(tail)
    for suffix, options in ((".mp4", ["-movflags", "faststart"]), (".mkv", [])):
        whole = remux(clip_path, tmp_path / f"whole{suffix}", *options)
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


def test_one_frame_and_no_audio(tmp_path):
    clip = read_clip(make_clip(tmp_path / "one.mp4", seconds=0.04, audio=False))
    assert len(clip.frames) == 1 and clip.audio is None and clip.warnings == ["no audio track"]
    assert clip.timestamps.tolist() == [0]


def test_no_frames(tmp_path):
    path = tmp_path / "zero.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=black:size=64x64:duration=1", "-t", "0", path)
    with pytest.raises(UnreadableMediaError):
        read_clip(path)


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


def test_too_many_pixels(clip_path, monkeypatch):
    monkeypatch.setattr(media, "MAX_CLIP_BYTES", 50_000)
    with MediaReader(clip_path) as reader:
        assert len(reader.read(0, 1).frames) == 2
        with pytest.raises(MediaTooLargeError, match="8 frames of 64x48"):
            reader.read()


def test_odd_sound(tmp_path):
    frames = {"frames": torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "fps": 2, "sampling_rate": 16_000}
    clip = read_clip({**frames, "audio": np.zeros(16_000)})
    assert clip.warnings == ["audio is digital silence"]
    broken = np.full(16_000, 0.1)
    broken[5:8] = [np.nan, np.inf, -np.inf]
    clip = read_clip({**frames, "audio": broken})
    assert clip.warnings == ["3 audio samples are NaN or infinite; set to 0"] and not clip.audio[5:8].any()
    clip = read_clip({**frames, "audio": np.full(16_000, 1.5)})
    assert float(clip.audio.max()) == 1 and "clipped" in clip.warnings[0]
    soundfile.write(tmp_path / "nan.wav", broken.astype(np.float32), 16_000, subtype="FLOAT")
    clip = read_clip(tmp_path / "nan.wav")
    assert clip.frames is None and torch.isfinite(clip.audio).all() and "NaN" in clip.warnings[0]


def test_cover_art_is_not_a_video(tmp_path):
    make_clip(tmp_path / "c.mp4", 0.04, audio=False)
    ffmpeg("-i", tmp_path / "c.mp4", "-frames:v", "1", tmp_path / "cover.png")
    tone = ["-f", "lavfi", "-i", "sine=duration=2", "-i", tmp_path / "cover.png", "-map", "0", "-map", "1"]
    ffmpeg(*tone, "-c:v", "copy", "-disposition:v", "attached_pic", tmp_path / "song.mp3")
    clip = read_clip(tmp_path / "song.mp3")
    assert clip.frames is None and len(clip.audio) == pytest.approx(32_000, abs=900)
    assert any("cover" in warning for warning in clip.warnings)

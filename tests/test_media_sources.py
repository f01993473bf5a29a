"""The sources: every form of one file, links, arrays, and refused inputs."""

from __future__ import annotations

import contextlib
import http.server
import io
import ipaddress
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from media_factory import click_track, ffmpeg, flash_frames, make_clip, remux
from torchcodec.decoders import AudioDecoder, VideoDecoder

from modeling_avlmm.media import (
    SAMPLING_RATE,
    MediaNotFoundError,
    MediaReader,
    MediaTooLargeError,
    UnreadableMediaError,
    UnsupportedSourceError,
    read_clip,
)


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory) -> Path:
    """2 s, 25 fps, 64x48, AAC 44.1 kHz."""
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    return make_clip(path, seconds=2, size=(64, 48), sampling_rate=44_100)


# ---------------------------------------------------------------------------------------------------- files


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
    assert (info.width, info.height, info.average_fps, info.num_frames) == (64, 48, 25.0, 50)
    assert (info.sampling_rate, info.video_codec, info.audio_codec) == (44_100, "h264", "aac")
    assert info.file_size == len(data) and info.av_offset == 0


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="decoding on a GPU needs one"),
        ),
    ],
)
def test_an_open_decoder_and_the_file_for_its_sound(clip_path, device):
    """A decoder on a GPU takes the picture; NVDEC's colours may differ by a few steps."""
    clip = read_clip(VideoDecoder(clip_path, device=device), audio=clip_path, fps=5)
    expected = read_clip(clip_path, fps=5)
    assert clip.frames.device.type == "cpu" and torch.equal(clip.timestamps, expected.timestamps)
    assert (clip.frames.int() - expected.frames.int()).abs().max() <= (0 if device == "cpu" else 8)
    assert torch.equal(clip.audio, expected.audio)


def test_open_decoder(clip_path):
    expected = read_clip(clip_path)
    decoder = VideoDecoder(clip_path, dimension_order="NHWC", output_dtype=torch.float32)
    clip = read_clip(decoder)
    assert float((clip.frames.float() - expected.frames.float()).abs().max()) <= 3  # FFmpeg's other converter
    assert torch.equal(read_clip(VideoDecoder(clip_path)).frames, expected.frames) and clip.audio is None
    assert any("an open VideoDecoder gives frames only" in warning for warning in clip.warnings)
    assert torch.equal(read_clip(decoder, audio=clip_path).audio, expected.audio)
    assert read_clip(decoder, audio=AudioDecoder(clip_path)).has_audio
    decoder._hf_encoded = {"path": str(clip_path), "bytes": None}  # as from `datasets`
    assert torch.equal(read_clip(decoder).audio, expected.audio)


def test_separate_audio_starts_with_the_video(tmp_path, clip_path):
    sound = click_track(2, 48_000, 1.5)[0].numpy()
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

    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)  # so that its import fails
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
    with pytest.raises(ImportError, match="torchcodec cannot be imported"):
        read_clip(tmp_path / "c.mp4")


def test_missing_ffmpeg_is_explained(tmp_path, clip_path, monkeypatch):
    import torchcodec.decoders as decoders

    def broken(*args, **kwargs):
        raise RuntimeError("Could not load libtorchcodec. Likely causes: ...")

    monkeypatch.setattr(decoders, "Demuxer", broken)
    with pytest.raises(ImportError, match="FFmpeg's shared libraries"):
        read_clip(clip_path)


def test_file_object_limits(clip_path):
    with open(clip_path, "rb") as file, pytest.raises(MediaTooLargeError, match="1000"):
        read_clip(file, max_bytes=1000)
    with pytest.raises(UnsupportedSourceError, match="'rb'"):
        read_clip(io.StringIO("text"))


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


def test_a_file_opens_no_other_file(tmp_path, clip_path):
    manifest = tmp_path / "manifest.mpd"
    ffmpeg("-i", clip_path, "-c", "copy", "-f", "dash", manifest)
    hidden = tmp_path / "hidden.mp4"  # a comment hides what it is from a look at its first bytes
    hidden.write_text("<!-- a recording -->" + manifest.read_text().split("?>", 1)[1])
    listed = subprocess.run(["ffprobe", "-v", "error", str(hidden)], capture_output=True, check=True)
    assert listed.stderr == b"", "FFmpeg by itself follows the manifest"
    for source in (
        hidden,
        str(hidden),
        hidden.read_bytes(),
        io.BytesIO(hidden.read_bytes()),
        {"path": str(hidden)},
    ):
        with pytest.raises(UnreadableMediaError, match="not readable as media"):
            read_clip(source)


def test_a_name_stands_for_itself(tmp_path):
    from PIL import Image

    for name, grey in (("img001.png", 50), ("img002.png", 100), ("img%03d.png", 150)):
        Image.new("RGB", (64, 48), (grey, grey, grey)).save(tmp_path / name)
    with MediaReader(tmp_path / "img%03d.png") as reader:
        assert reader.info.num_frames == 1 and int(reader.read().frames.max()) == 150
    clip = make_clip(tmp_path / "clip%02d.mp4", 1)
    assert read_clip(clip).has_audio


# --------------------------------------------------------------------------------------------------- arrays


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


# ---------------------------------------------------------------------------------------------------- links


@pytest.fixture(scope="module")
def server(clip_path):
    data = clip_path.read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            where, _, rest = self.path[1:].partition("/")
            if where == "missing":
                self.send_error(404)
                return
            if where == "private" and self.headers["Authorization"] != "Basic YcOpOnA6dw==":  # aé:p:w
                self.send_error(401)
                return
            if where == "%C3%A9%20b.mp4" and "Python" in self.headers["User-Agent"]:
                self.send_error(403)
                return
            where = {"private": "untold.mp4", "%C3%A9%20b.mp4": "untold.mp4"}.get(where, where)
            self.send_response(302 if where in ("redirect", "circle") else 200)
            if where == "circle":
                self.send_header("Location", "/circle")
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
    # polled often, because shutdown() waits for the next poll
    thread = threading.Thread(target=instance.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{instance.server_port}"
    instance.shutdown()
    instance.server_close()
    thread.join()


def test_link(server, clip_path):
    expected = read_clip(clip_path)
    reader = MediaReader(f"{server}/clip.mp4/?token=secret")
    assert torch.equal(reader.read().frames, expected.frames)
    assert torch.allclose(reader.read(0.5, 1.5).audio, expected.audio[8_000:24_000], atol=1e-4)
    temporary = Path(reader._opening.temporary[0].name)
    assert temporary.exists() and "secret" not in reader.name
    reader.close()
    assert not temporary.exists()
    assert torch.equal(read_clip(f"{server}/untold.mp4").audio, expected.audio)
    assert torch.equal(read_clip(f"{server}/redirect/http://HOST/clip.mp4").audio, expected.audio)
    # As people write them: letters outside ASCII, by a name that is not Python's, and with a password.
    for link in (
        f"{server}/é b.mp4",
        f"{server}/%C3%A9 b.mp4",
        f"{server}/private".replace("//", "//aé:p%3Aw@"),
    ):
        assert torch.equal(read_clip(link).audio, expected.audio)


@pytest.mark.parametrize(
    ("link", "error", "message"),
    [
        ("/missing", MediaNotFoundError, "404"),
        ("/short.mp4", UnreadableMediaError, "stopped after"),
        ("/clip.mp4", MediaTooLargeError, "above the limit of 1000"),
        ("/untold.mp4", MediaTooLargeError, "above the limit of 1000"),
        ("/redirect/file:///etc/hostname", UnsupportedSourceError, "Only http and https"),
        ("/redirect/ftp://127.0.0.1/x.mp4", UnsupportedSourceError, "Only http and https"),
        ("/circle", UnsupportedSourceError, r"^\S+: redirects in a circle\. Check the link\.$"),
        ("/private", UnreadableMediaError, "401"),
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


def test_sources_without_a_name_are_named_by_their_type():
    for source in (pd.Series(["a.mp4"]), torch.zeros(3), np.zeros(3), 3):
        with pytest.raises(
            UnsupportedSourceError, match=f"^<{type(source).__name__}>: .*'sampling_rate': 16000"
        ):
            MediaReader(source)


@pytest.mark.parametrize(
    "link", ["http://[::1", "http://user:pw@[::1/a.mp4?key=secret", "http://[not]/a.mp4"]
)
def test_broken_links_are_named(link):
    with pytest.raises(UnsupportedSourceError, match="is not a valid link") as raised:
        MediaReader(link)
    assert "pw" not in str(raised.value) and "secret" not in str(raised.value)


def test_links_into_private_networks_can_be_refused(server, monkeypatch):
    with pytest.raises(UnsupportedSourceError, match=r"leads to 127\.0\.0\.1, which is not a public address"):
        read_clip(f"{server}/clip.mp4", private_links=False)
    # a public address that redirects to a private one: the first connection counts as public
    counted = []

    def is_public(address):
        counted.append(address)
        return len(counted) == 1

    monkeypatch.setattr(ipaddress.IPv4Address, "is_global", property(is_public))
    with pytest.raises(UnsupportedSourceError, match="is not a public address"):
        read_clip(f"{server}/redirect/http://HOST/clip.mp4", private_links=False)
    assert len(counted) == 2


def test_headers_that_drip_are_given_up():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                for number in range(200):
                    connection.sendall(f"X-{number}: 1\r\n".encode())
                    time.sleep(0.05)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        began = time.monotonic()
        with pytest.raises(UnreadableMediaError, match=r"no answer within 0\.5 s"):
            read_clip(f"http://127.0.0.1:{listener.getsockname()[1]}/a.mp4", timeout=0.5)
        assert time.monotonic() - began < 5
        thread.join()

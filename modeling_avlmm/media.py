"""Files, links, bytes and arrays to video frames with timestamps and 16 kHz mono audio on one clock.

The one decoder of the project. Everything is read window by window, so an hour costs no more memory than the
window asked for, and everything that is wrong with a file ends in a typed error or in a warning.
"""

from __future__ import annotations

import http.client
import io
import itertools
import math
import os
import re
import stat
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

SAMPLING_RATE = 16_000
MAX_CLIP_BYTES = 4 * 1024**3  # frames of one read() may not take more; our own choice
MAX_DURATION = 7 * 24 * 3600.0  # seconds; beyond it a timestamp is damaged; our own choice
OFFSET_WARNING = 0.1  # seconds between the first frame and the first sample worth telling
MIN_BYTES_PER_SECOND = 16 * 1024  # a link slower than this after `timeout` is given up
_INSTALL = (
    "Install torchcodec and FFmpeg 4 to 8 with its shared libraries (libavcodec, libavformat, libavutil)"
)
_BAD_PACKET: tuple = ()
_MISSING = "frames are missing"
_HTTP_ONLY = "Only http and https links are followed"
_DAMAGED = "It is truncated, damaged or not media: re-encode it or leave it out"
_EPS = 1e-6  # far below one tick of any container's clock, far above float64 rounding
_TEXT_CODECS = {"ansi", "bintext", "xbin", "idf"}  # FFmpeg "plays" text files with these
_SOUND_FILES = (b"RIFF", b"RF64", b"fLaC", b"OggS")  # only these: libsndfile can crash on arbitrary bytes
_PICTURE_CODECS = {"mjpeg", "png", "bmp", "webp", "gif"}
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<MPD", b"<?xml", b"[playlist]", b"v=0\r\n", b"v=0\n")


class MediaError(ValueError):
    """Something is wrong with one media input.

    Args:
        name (`str`): The media, as the caller knows it.
        reason (`str`): What is wrong.
        advice (`str`): What to do about it.
    """

    def __init__(self, name: str, reason: str = "", advice: str = ""):
        super().__init__(name, reason, advice)
        self.name, self.reason, self.advice = name, reason, advice

    def __str__(self) -> str:
        if not self.reason:  # a DataLoader raises a worker's error again from one text
            return self.name
        return f"{self.name}: {self.reason}." + (f" {self.advice}." if self.advice else "")

    def __reduce__(self):
        # OSError rewrites its arguments, so the subclasses need this to travel between processes
        return type(self), (self.name, self.reason, self.advice)


class MediaNotFoundError(MediaError, FileNotFoundError):
    """There is no such file, or the link does not answer with one."""


class MediaTooLargeError(MediaError):
    """More bytes than allowed: to download, or to hold as decoded frames."""


class UnreadableMediaError(MediaError):
    """Empty, not media, without frames and sound, or damaged beyond use."""


class UnsupportedSourceError(MediaError):
    """An input of a kind that is not read: wrong type, wrong scheme, wrong array."""


@dataclass
class MediaInfo:
    """What a file holds. Times in seconds; `None` where the file has no such track.

    `duration` counts from the first frame (from the first sample where there is no video) to the end of the
    longer track. `av_offset` is the start of the audio minus the start of the video.
    """

    name: str
    duration: float
    has_video: bool
    has_audio: bool
    width: int | None = None
    height: int | None = None
    average_fps: float | None = None
    num_frames: int | None = None
    sampling_rate: int | None = None
    video_codec: str | None = None
    audio_codec: str | None = None
    av_offset: float = 0.0
    file_size: int | None = None


@dataclass
class Clip:
    """A window of one media input.

    Attributes:
        frames (`torch.Tensor`, *optional*): uint8, shape (T, 3, H, W), RGB, upright.
        timestamps (`torch.Tensor`, *optional*): float64, shape (T,), seconds from `start`.
        audio (`torch.Tensor`, *optional*): float32 in [-1, 1], shape (S,), mono 16 kHz, sample 0 at `start`.
        start, end (`float`): The window on the file's clock, seconds.
        name (`str`): The media.
        warnings (`list[str]`): What was odd about the file or this window.
    """

    frames: torch.Tensor | None
    timestamps: torch.Tensor | None
    audio: torch.Tensor | None
    start: float
    end: float
    name: str
    warnings: list[str] = field(default_factory=list)

    @property
    def duration(self) -> float:
        return self.end - self.start

    @property
    def has_video(self) -> bool:
        return self.frames is not None

    @property
    def has_audio(self) -> bool:
        return self.audio is not None


def resample(waveform: torch.Tensor, orig_freq: int, new_freq: int, rolloff: float = 0.95) -> torch.Tensor:
    """Resample a 1-D waveform with a Kaiser-windowed sinc of 32 zero crossings (Smith, *Digital Audio
    Resampling*, 1984); the cutoff is `rolloff` times the lower of the two Nyquist frequencies."""
    if orig_freq == new_freq or waveform.numel() == 0:
        return waveform
    divisor = math.gcd(orig_freq, new_freq)
    step, phases = orig_freq // divisor, new_freq // divisor
    cutoff = rolloff * min(1.0, new_freq / orig_freq)
    half = math.ceil(16 / cutoff)
    # one filter per phase, so any pair of rates needs at most `new_freq` of them
    phase = torch.arange(phases, dtype=torch.float64)[:, None] / phases
    position = torch.arange(-half + 1, half + 1, dtype=torch.float64)[None] - phase
    window = torch.special.i0(9.0 * (1 - (position / half) ** 2).clamp(min=0).sqrt())
    filters = torch.sinc(position * cutoff) * window
    filters = (filters / filters.sum(1, keepdim=True)).float()
    taps = torch.nn.functional.pad(waveform.float(), (half - 1, half + 1)).unfold(0, 2 * half, 1)
    out = torch.empty(math.ceil(waveform.numel() * new_freq / orig_freq))
    for part in torch.arange(len(out)).split(16384):
        tick = part * step
        out[part] = (taps[tick // phases] * filters[tick % phases]).sum(1)
    return out


def _torchcodec() -> Any:
    try:
        import torchcodec.decoders as decoders
    except (ImportError, OSError, RuntimeError) as error:
        raise ImportError(f"torchcodec cannot be imported. {_INSTALL}. Cause: {error}") from error
    return decoders


def _explain(error: Exception) -> str:
    """The part of a torchcodec error that a reader can use."""
    text = str(error)
    if "Could not load libtorchcodec" in text:
        raise ImportError(f"torchcodec cannot load FFmpeg's shared libraries. {_INSTALL}.") from error
    return re.sub(r"^.*\.cpp:\d+, ", "", text, flags=re.S).strip().splitlines()[0].rstrip(".")


# ------------------------------------------------------------------------------------------------ tracks
# A track has begin and end on its own clock and reads from there. Video: instants -> frames. Audio: a range ->
# pieces of 16 kHz samples, each with the time of its first sample.


class _FileVideo:
    def __init__(self, name: str, handle: Any, threads: int, decoder: Any = None):
        self.name, self.handle, self.threads = name, handle, threads
        self.decoder = decoder or _torchcodec().VideoDecoder(handle, num_ffmpeg_threads=threads)
        meta = self.decoder.metadata
        self.num_frames, self.codec, self.fps = len(self.decoder), meta.codec, meta.average_fps or 25.0
        self.width, self.height = meta.width, meta.height
        self.begin, self.last_end = meta.begin_stream_seconds, meta.end_stream_seconds
        self.end = max(self.last_end, self.begin + 1 / self.fps)
        self.seeks_late = False

    def read(self, instants: torch.Tensor, notes: list[str]) -> torch.Tensor:
        cause = _MISSING
        if not self.seeks_late:
            at = (instants + _EPS).clamp(max=math.nextafter(self.last_end, -math.inf))
            try:
                batch = self.decoder.get_frames_played_at(at)
            except (RuntimeError, IndexError) as error:
                cause = _explain(error)
                if self.handle is not None:  # an error leaves the decoder in an unknown state
                    self.decoder = _torchcodec().VideoDecoder(self.handle, num_ffmpeg_threads=self.threads)
            else:
                # a frame of a later time is what torchcodec gives in place of one it could not reach
                if bool((batch.pts_seconds <= at).all()) or self.handle is None:
                    self._note_holds(at - batch.pts_seconds - batch.duration_seconds, at, notes)
                    return _to_uint8_nchw(batch.data)
        if self.handle is None:
            raise UnreadableMediaError(self.name, f"frames cannot be decoded ({cause})", _DAMAGED)
        return self._read_packets(instants, cause, notes)

    def _note_holds(self, late: torch.Tensor, at: torch.Tensor, notes: list[str]) -> None:
        if float(late.max()) > max(0.5, 3 / self.fps):
            held = (at[late > 0.5] - self.begin).tolist()
            notes.append(f"no frames around {_listed(held)} s of the video: the frame before is held")

    def _read_packets(self, instants: torch.Tensor, cause: str, notes: list[str]) -> torch.Tensor:
        """The careful way: from well before the first instant forward, packet by packet, past what is damaged.

        Also right where seeking lands late, as it does in MPEG-TS (https://trac.ffmpeg.org/ticket/11137).
        """
        times, back = instants.tolist(), 1.0
        while True:
            start = times[0] - back if times[0] - back > self.begin else None
            frames = self._packet_frames(start)
            first = next(frames, None)
            if start is None or (first is not None and first.pts_seconds <= times[0] + _EPS):
                break
            back *= 4
        shown, lost = self._on_screen(itertools.chain([first], frames), times)
        if first is None or 2 * len(lost) > len(times):
            where = f"{times[0] - self.begin:.2f} and {times[-1] - self.begin:.2f} s"
            reason = f"more than half of the frames between {where} cannot be decoded ({cause})"
            raise UnreadableMediaError(self.name, reason, _DAMAGED)
        if lost:
            seconds = _listed([t - self.begin for t in lost])
            notes.append(f"frames at {seconds} s cannot be decoded; the nearest readable ones are shown")
        else:
            self.seeks_late = cause == _MISSING
        return self._convert(shown, notes)

    def _on_screen(self, frames: Iterable[Any], times: list[float]) -> tuple[list[Any], list[float]]:
        """The frame on screen at each time, the nearest where that one is lost, and the times of those lost."""
        shown: list[Any] = []
        lost: list[float] = []
        previous, until = None, -math.inf
        for frame in itertools.chain(frames, [None]):
            begin = math.inf if frame is None else frame.pts_seconds
            while len(shown) < len(times) and times[len(shown)] + _EPS < begin:
                now = times[len(shown)]
                if now > until:
                    lost.append(now)
                shown.append(frame if now > until and begin - now < now - until else previous)
            if frame is None or len(shown) == len(times):
                break
            previous, until = frame, begin + max(frame.duration_seconds, 1 / self.fps) + _EPS
        return shown, lost

    def _packet_frames(self, start: float | None) -> Iterator[Any]:
        demuxer = _torchcodec().Demuxer(self.handle, streams="video")
        decoder = demuxer.streams[0].make_decoder("cpu", num_ffmpeg_threads=self.threads)
        if start is not None:
            demuxer.seek(start)
        for frames in _decoded_packets(demuxer, decoder):
            yield from frames

    def _convert(self, shown: list[Any], notes: list[str]) -> torch.Tensor:
        converter = _torchcodec().ColorConverter("cpu")
        frames = {id(frame): frame for frame in shown}
        images = {key: _to_uint8_nchw(converter.convert(x).data[None])[0] for key, x in frames.items()}
        size = tuple(images[id(shown[0])].shape[1:])
        if any(tuple(image.shape[1:]) != size for image in images.values()):
            notes.append(f"the frame size changes inside the video; resized to {size[1]}x{size[0]}")
            images = {key: _resize(image, size) for key, image in images.items()}
        return torch.stack([images[id(frame)] for frame in shown])


class _ArrayVideo:
    codec = None

    def __init__(self, frames: torch.Tensor, timestamps: torch.Tensor, last: float):
        self.frames, self.timestamps = frames, timestamps
        self.num_frames, _, self.height, self.width = frames.shape
        self.begin, self.end = float(timestamps[0]), float(timestamps[-1]) + last
        self.fps = self.num_frames / (self.end - self.begin)

    def read(self, instants: torch.Tensor, notes: list[str]) -> torch.Tensor:
        shown = torch.searchsorted(self.timestamps, instants + _EPS, right=True) - 1
        return self.frames[shown.clamp(min=0)]


class _FileAudio:
    def __init__(self, name: str, handle: Any):
        self.name, self.handle = name, handle
        probe = _torchcodec().AudioDecoder(handle)
        meta = probe.metadata
        self.codec, self.sampling_rate = meta.codec, meta.sample_rate
        self.begin, self.end = meta.begin_stream_seconds or 0.0, -math.inf  # until _find_end knows
        claimed_end = self.begin + (meta.duration_seconds or 0.0)
        try:
            # the header of an Ogg file says 0 where the first sample is some ms later. Asked without resampling,
            # for which torchcodec drops up to 10 ms of a track that starts off its grid
            self.begin = probe.get_samples_played_in_range(self.begin, self.begin + 0.1).pts_seconds
        except RuntimeError as error:
            _explain(error)  # a damaged start: the header's word has to do
        self._renew()
        self.end = self._find_end(claimed_end)

    def _renew(self) -> None:
        # not num_channels=1: FFmpeg's downmix of floats adds channels at 0.71 each instead of averaging
        self.decoder = _torchcodec().AudioDecoder(self.handle, sample_rate=SAMPLING_RATE)
        self.read_until = -math.inf

    def _pieces(self, a: float, b: float) -> tuple[list[tuple[torch.Tensor, float]], bool]:
        """What sounds in [a, b), and whether damage was met."""
        if a < self.read_until:
            self._renew()  # torchcodec 0.17 finds nothing on its way back to the start of an edited mp4
        self.read_until = b
        try:
            got = self.decoder.get_samples_played_in_range(a, b)
        except RuntimeError as error:
            self.read_until = math.inf
            if "No audio frames were decoded" in _explain(error):
                return [], False
            return self._packet_pieces(a, b)
        # torchcodec joins samples across a gap in time: a short answer is looked at packet by packet
        expected = min(b, self.end) - max(a, got.pts_seconds)
        if got.data.shape[1] / SAMPLING_RATE > expected - 0.02:
            return [(got.data.mean(0), got.pts_seconds)], False
        return self._packet_pieces(a, b)

    def _packet_pieces(self, a: float, b: float) -> tuple[list[tuple[torch.Tensor, float]], bool]:
        decoders = _torchcodec()
        demuxer = decoders.Demuxer(self.handle, streams="audio")
        if a - 0.5 > self.begin:
            demuxer.seek(a - 0.5)  # lossy codecs need some frames before the first right one
        damaged, runs = False, []
        for group in _decoded_packets(demuxer, demuxer.streams[0].make_decoder()):
            damaged |= group is _BAD_PACKET
            for raw in group:
                samples = decoders.AudioConverter().convert(raw).data.mean(0)
                if raw.pts_seconds + len(samples) / raw.sample_rate < a - 0.05:
                    continue
                if runs and abs(raw.pts_seconds - runs[-1][2]) < 0.02:
                    runs[-1][0].append(samples)
                else:
                    runs.append([[samples], raw.pts_seconds, 0.0])
                runs[-1][2] = raw.pts_seconds + len(samples) / raw.sample_rate
            if runs and runs[-1][2] > b + 0.05:
                break
        rate = self.sampling_rate
        return [(resample(torch.cat(parts), rate, SAMPLING_RATE), at) for parts, at, _ in runs], damaged

    def _find_end(self, claimed: float) -> float:
        """The end of what can be decoded: headers overstate it in a truncated file and often elsewhere."""
        back, at = 1.0, max(self.begin, claimed - 1.0)
        while not (pieces := self._pieces(at, at + 1.0)[0]):
            if at <= self.begin:
                return self.begin
            back *= 2
            at = max(self.begin, claimed - back)
        while pieces:
            samples, begin = pieces[-1]
            end, at = begin + len(samples) / SAMPLING_RATE, at + 1.0
            pieces = self._pieces(at, at + 1.0)[0] if end > at - 0.01 else []
        return end

    def read(self, a: float, b: float, notes: list[str]) -> list[tuple[torch.Tensor, float]]:
        a, b = max(a, self.begin), min(b, self.end)
        if b - a < 1 / SAMPLING_RATE:
            return []
        pieces, damaged = self._pieces(a, b)
        edges = [a, *(t for x, at in pieces for t in (at, at + len(x) / SAMPLING_RATE)), b]
        lost = [(x, y) for x, y in zip(edges[::2], edges[1::2], strict=True) if y - x > 0.02]
        if damaged and sum(y - x for x, y in lost) > (b - a) / 2:
            reason = f"more than half of the audio between {a:.2f} and {b:.2f} s cannot be decoded"
            raise UnreadableMediaError(self.name, reason, _DAMAGED)
        if lost:
            spans = ", ".join(f"{x - self.begin:.2f}-{y - self.begin:.2f}" for x, y in lost[:20])
            what = "cannot be decoded" if damaged else "is missing"
            notes.append(f"audio at {spans} s of its track {what}: silence there")
        return pieces


class _ArrayAudio:
    """Samples in memory, already at 16 kHz."""

    codec = None

    def __init__(self, samples: torch.Tensor, begin: float = 0.0, sampling_rate: int = SAMPLING_RATE):
        self.samples, self.begin, self.sampling_rate = samples, begin, sampling_rate
        self.end = begin + len(samples) / SAMPLING_RATE

    def read(self, a: float, b: float, notes: list[str]) -> list[tuple[torch.Tensor, float]]:
        first = max(0, round((a - self.begin) * SAMPLING_RATE))
        stop = max(first, round((b - self.begin) * SAMPLING_RATE))
        return [(self.samples[first:stop], self.begin + first / SAMPLING_RATE)]


class _SoundFileAudio:
    """What libsndfile reads, for when torchcodec cannot."""

    begin = 0.0

    def __init__(self, file: Any):
        self.file, self.sampling_rate, self.codec = file, file.samplerate, file.subtype.lower()
        self.end = file.frames / file.samplerate

    def read(self, a: float, b: float, notes: list[str]) -> list[tuple[torch.Tensor, float]]:
        # the range starts on a sample that both rates share and has room for the filter, so that a window
        # equals the same part of the whole
        rate = self.sampling_rate
        block = rate // math.gcd(rate, SAMPLING_RATE)
        margin = 64 + 64 * rate // SAMPLING_RATE
        first = max(0, (math.floor(a * rate) - margin) // block * block)
        stop = min(self.file.frames, math.ceil(b * rate) + margin)
        self.file.seek(first)
        data = self.file.read(max(0, stop - first), dtype="float32", always_2d=True)
        samples = resample(torch.from_numpy(data).mean(1), rate, SAMPLING_RATE)
        return _ArrayAudio(samples, first / rate).read(a, b, notes)


def _decoded_packets(demuxer: Any, decoder: Any) -> Iterator[Any]:
    """The frames of each packet; `_BAD_PACKET` for one that cannot be decoded."""
    while True:
        try:
            packet = next(demuxer, None)
        except RuntimeError:
            yield _BAD_PACKET  # the container itself is broken from here on
            packet = None
        try:
            yield decoder.drain() if packet is None else decoder.decode(packet)
        except RuntimeError:
            yield _BAD_PACKET
        if packet is None:
            return


def _place(out: torch.Tensor, samples: torch.Tensor, at: float) -> None:
    """Write `samples` into `out` at `at` seconds, cutting what sticks out on either side."""
    first = round(at * SAMPLING_RATE)
    samples = samples[max(0, -first) :]
    first = max(0, first)
    samples = samples[: max(0, len(out) - first)]
    out[first : first + len(samples)] = samples


def _to_uint8_nchw(data: torch.Tensor) -> torch.Tensor:
    # an already open decoder may have been made for another layout or for floats
    if data.shape[1] != 3 and data.shape[-1] == 3:
        data = data.permute(0, 3, 1, 2)
    if data.is_floating_point():
        data = (data * 255).round().clamp(0, 255).to(torch.uint8)
    return data.cpu().contiguous()


def _resize(frame: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    smooth = torch.nn.functional.interpolate(frame[None].float(), size, mode="bilinear", antialias=True)
    return smooth[0].round().clamp(0, 255).to(torch.uint8)


def _listed(seconds: list[float]) -> str:
    more = f" and {len(seconds) - 20} more" if len(seconds) > 20 else ""
    return ", ".join(f"{t:.2f}" for t in seconds[:20]) + more


# --------------------------------------------------------------------------------------------------- sources


def _check_file(path: str, name: str) -> None:
    try:
        mode = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaNotFoundError(name, "no such file", "Check the path") from error
    except (OSError, ValueError) as error:
        raise UnreadableMediaError(
            name, f"cannot be opened ({error})", "Check the path and its permissions"
        ) from error
    if stat.S_ISDIR(mode.st_mode):
        raise UnsupportedSourceError(name, "is a directory", "Give the path of one media file")
    if not stat.S_ISREG(mode.st_mode):
        raise UnsupportedSourceError(name, "is not a regular file", "Copy its content to a file first")
    try:
        with open(path, "rb") as file:
            _check_head(file.read(512), name)
    except OSError as error:
        raise UnreadableMediaError(
            name, f"cannot be read ({error.strerror})", "Check its permissions"
        ) from error


def _check_head(head: bytes, name: str) -> None:
    if not head:
        raise UnreadableMediaError(name, "is empty (0 bytes)", "Copy or download it again")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_PLAYLISTS):
        # FFmpeg would open whatever files and addresses the playlist names
        raise UnsupportedSourceError(name, "is a playlist, not media", "Give the media file it points to")


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            raise UnsupportedSourceError(
                _name_of(req.full_url), f"redirects to {_name_of(newurl)}", _HTTP_ONLY
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _too_large(name: str, size: str, limit: int) -> MediaTooLargeError:
    return MediaTooLargeError(
        name, f"has {size} bytes, above the limit of {limit}", "Raise max_bytes if this is what you want"
    )


def _download(url: str, name: str, target: Any, max_bytes: int, timeout: float) -> None:
    opener = urllib.request.OpenerDirector()  # build_opener would add ftp:, file: and data:
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
        _HttpOnly,
    ):
        opener.add_handler(handler())
    began, received = time.monotonic(), 0
    try:
        with opener.open(urllib.request.Request(url), timeout=timeout) as response:
            length = response.headers.get("Content-Length", "")
            if length.isdigit() and int(length) > max_bytes:
                raise _too_large(name, length, max_bytes)
            while chunk := response.read1(1 << 16):
                received += len(chunk)
                if received > max_bytes:
                    raise _too_large(name, f"more than {max_bytes}", max_bytes)
                if time.monotonic() - began > timeout + received / MIN_BYTES_PER_SECOND:
                    raise TimeoutError(f"only {received} bytes in {time.monotonic() - began:.0f} s")
                target.write(chunk)
            if length.isdigit() and received < int(length):
                raise UnreadableMediaError(
                    name, f"stopped after {received} of {length} bytes", "Download it again"
                )
    except MediaError:
        raise
    except urllib.error.HTTPError as error:
        if error.code in (301, 302, 303, 307, 308):
            raise UnsupportedSourceError(name, f"redirects badly ({error.reason})", _HTTP_ONLY) from error
        if error.code not in (404, 410):
            reason = f"the server answers {error.code} {error.reason}"
            raise UnreadableMediaError(name, reason, "Check the link and your rights to it") from error
        raise MediaNotFoundError(
            name, f"the server answers {error.code} {error.reason}", "Check the link"
        ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
        raise UnreadableMediaError(
            name, f"cannot be downloaded ({error})", "Check the link and the network"
        ) from error


def _array_video(source: dict, name: str) -> _ArrayVideo:
    frames = torch.as_tensor(
        source["frames"] if torch.is_tensor(source["frames"]) else np.asarray(source["frames"])
    )
    advice = "Give uint8 RGB frames of shape (T, 3, H, W) or (T, H, W, 3)"
    if frames.ndim != 4 or 3 not in (frames.shape[1], frames.shape[3]) or len(frames) == 0:
        raise UnsupportedSourceError(name, f"frames have shape {tuple(frames.shape)}", advice)
    if frames.dtype != torch.uint8:
        raise UnsupportedSourceError(name, f"frames are {frames.dtype}", advice)
    frames = _to_uint8_nchw(frames)
    fps, timestamps = source.get("fps"), source.get("timestamps")
    if timestamps is None:
        if not fps or fps <= 0:
            raise UnsupportedSourceError(name, "frames have no times", "Add 'fps' or 'timestamps' (seconds)")
        timestamps = torch.arange(len(frames), dtype=torch.float64) / fps
    timestamps = torch.as_tensor(np.asarray(timestamps), dtype=torch.float64)
    gaps = timestamps.diff()
    if timestamps.shape != (len(frames),) or not bool(timestamps.isfinite().all()) or bool((gaps <= 0).any()):
        reason = (
            f"timestamps (shape {tuple(timestamps.shape)}) do not rise one by one for {len(frames)} frames"
        )
        raise UnsupportedSourceError(name, reason, "Give one time in seconds per frame, in rising order")
    last = 1 / fps if fps else float(gaps.median()) if len(gaps) else source.get("duration") or 0.04
    return _ArrayVideo(frames, timestamps, last)


def _array_audio(samples: Any, sampling_rate: Any, name: str, warnings: list[str]) -> _ArrayAudio:
    if not sampling_rate or sampling_rate <= 0:
        raise UnsupportedSourceError(name, "audio samples have no rate", "Add 'sampling_rate' (Hz)")
    wave = torch.as_tensor(samples if torch.is_tensor(samples) else np.asarray(samples)).cpu()
    if wave.ndim == 2:  # (channels, samples) or (samples, channels): the shorter side is the channels
        scale = wave.shape[0] <= wave.shape[1]
        kind, wave = wave.dtype, wave.double().mean(0 if scale else 1)
    elif wave.ndim == 1:
        kind = wave.dtype
    else:
        raise UnsupportedSourceError(name, f"audio has shape {tuple(wave.shape)}", "Give 1-D or 2-D samples")
    if kind == torch.uint8:
        wave = (wave.double() - 128) / 128
    elif kind in (torch.int8, torch.int16, torch.int32):
        wave = wave.double() / (torch.iinfo(kind).max + 1)
    elif not kind.is_floating_point:
        raise UnsupportedSourceError(
            name, f"audio samples are {kind}", "Give floats in [-1, 1] or 8 to 32-bit PCM"
        )
    wave = _finite(wave.float(), warnings)
    peak = float(wave.abs().max()) if wave.numel() else 0.0
    if peak > 8:
        reason = f"audio floats reach {peak:.0f}"
        raise UnsupportedSourceError(name, reason, "Scale them to [-1, 1], or pass integers as integers")
    if peak > 1:
        warnings.append(f"audio reaches {peak:.2f} and is clipped at 1")
    return _ArrayAudio(resample(wave, int(sampling_rate), SAMPLING_RATE), 0.0, int(sampling_rate))


def _finite(samples: torch.Tensor, warnings: list[str]) -> torch.Tensor:
    bad = int((~samples.isfinite()).sum())
    if bad:
        warnings.append(f"{bad} audio samples are NaN or infinite; set to 0")
        samples = torch.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    return samples


def _open_soundfile(handle: Any) -> _SoundFileAudio | None:
    import soundfile

    if isinstance(handle, str):
        with open(handle, "rb") as opened:
            head = opened.read(4)
    else:
        handle = handle.numpy().data if torch.is_tensor(handle) else handle
        head = bytes(handle[:4])
    if head not in _SOUND_FILES:
        return None
    try:
        file = soundfile.SoundFile(handle if isinstance(handle, str) else io.BytesIO(handle))
    except (soundfile.LibsndfileError, RuntimeError):
        return None
    return _SoundFileAudio(file) if file.frames > 0 else None


def _open_tracks(handle: Any, name: str, threads: int, audio_only: bool, notes: list[str]) -> tuple[Any, Any]:
    """The video and the audio track of an encoded file (path, bytes or byte tensor), `None` where absent."""
    video, audio, reason = None, None, "no video and no audio track"
    try:
        header = _torchcodec().get_container_metadata(handle)
        if header.best_video_stream_index is not None and not audio_only:
            video = _FileVideo(name, handle, threads)
        if header.best_audio_stream_index is not None:
            audio = _FileAudio(name, handle)
    except (
        RuntimeError,
        ValueError,
        ArithmeticError,
    ) as error:  # torchcodec divides by a damaged aspect ratio
        reason = _explain(error)
        header = None
    except ImportError:
        audio = _open_soundfile(handle)  # sound files need no FFmpeg
        if audio is None:
            raise
        return None, audio
    if header is None or (video is None and audio is None):
        audio = _open_soundfile(handle)
        if audio is None:
            raise UnreadableMediaError(name, f"is not readable as media ({reason})", _DAMAGED)
        return None, audio
    if video and video.codec in _TEXT_CODECS:
        raise UnreadableMediaError(name, "is text, not media", "Give a video or audio file")
    if video and audio and video.num_frames == 1 and video.codec in _PICTURE_CODECS:
        notes.append("the only picture is a cover; read as audio")
        video = None
    if video and video.num_frames == 0:
        notes.append("the video track has no frames")
        video = None
    if audio and audio.end <= audio.begin:
        notes.append("the audio track has no sample that can be decoded")
        audio = None
    if video is None and audio is None:
        raise UnreadableMediaError(name, "has neither a frame nor a sample that can be decoded", _DAMAGED)
    tracks = [track for track in (video, audio) if track]
    streams = [track.decoder.metadata for track in tracks]
    claims = [(m.begin_stream_seconds or 0) + (m.duration_seconds_from_header or 0) for m in streams]
    if not all(m.duration_seconds_from_header for m in streams):
        claims.append(header.duration_seconds_from_header or 0)
    missing = max(claims) - max(track.end for track in tracks)
    if missing > 0.5:
        notes.append(f"the file ends {missing:.2f} s before the end its header gives: it may be truncated")
    return video, audio


class MediaReader:
    """Reads one media input window by window.

    The clock's zero is the presentation time of the first video frame, or the first sample where there is no
    video. Frames are those on screen at the asked instants; audio sits where its own timestamps put it.
    Files are opened at first use, so make and use a reader in the same process.

    Args:
        source: Path; http(s) link; `bytes`; binary file object (read from its start where it can seek); open
            torchcodec `VideoDecoder`; `{"path": ..., "bytes": ...}`; `{"frames": (T, 3, H, W) or (T, H, W, 3)
            uint8, "fps" or "timestamps": ..., "audio": 1-D or 2-D, "sampling_rate": Hz}`; or a [`Clip`].
        audio (*optional*): A separate sound file in any of these forms, or `{"array" or "audio": ...,
            "sampling_rate": Hz}`. It replaces the source's own audio and starts with the first video frame.
        name (`str`, *optional*): What to call the media in messages.
        max_bytes (`int`): Most bytes to take from a link or a file object.
        timeout (`float`): Longest wait for a link, seconds.
        num_ffmpeg_threads (`int`): Video decoding threads.

    Raises:
        MediaError: One of its four kinds; at construction for what can be known without decoding.
    """

    def __init__(
        self,
        source: Any,
        audio: Any = None,
        *,
        name: str | None = None,
        max_bytes: int = 2 * 1024**3,
        timeout: float = 30.0,
        num_ffmpeg_threads: int = 1,
    ):
        self.name = name or _name_of(source)
        self.max_bytes, self.timeout, self.threads = max_bytes, timeout, num_ffmpeg_threads
        self._source = _checked(source, self.name)
        self._audio_source = None if audio is None else _checked(audio, name or _name_of(audio))
        self._warnings: list[str] = []
        self._temporary: list[Any] = []
        self._info: MediaInfo | None = None
        self._video = self._audio = None

    def __enter__(self) -> MediaReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the decoders and delete what was downloaded."""
        self._video = self._audio = self._info = None
        while self._temporary:
            self._temporary.pop().close()

    @property
    def info(self) -> MediaInfo:
        if self._info is None:
            self._open()
        return self._info

    @property
    def warnings(self) -> list[str]:
        """What is odd about the whole file. [`Clip.warnings`] has these and those of its window."""
        _ = self.info
        return self._warnings

    def _fetch(self, source: Any, name: str) -> Any:
        """What torchcodec can open: a path, bytes, or the mapped bytes of a temporary file."""
        is_link = isinstance(source, str) and "://" in source
        if not is_link and not hasattr(source, "read"):
            return source
        self._temporary.append(tempfile.NamedTemporaryFile(prefix="media-"))  # noqa: SIM115 (close() does)
        target = self._temporary[-1]
        if is_link:
            _download(source, name, target, self.max_bytes, self.timeout)
        else:
            if hasattr(source, "seekable") and source.seekable():
                source.seek(0)
            while chunk := source.read(1 << 20):
                if not isinstance(chunk, (bytes, bytearray)):
                    raise UnsupportedSourceError(name, "is a text file object", "Open it with mode 'rb'")
                if target.tell() + len(chunk) > self.max_bytes:
                    raise _too_large(name, f"more than {self.max_bytes}", self.max_bytes)
                target.write(chunk)
        target.flush()
        size = target.tell()
        target.seek(0)
        _check_head(target.read(512), name)
        # as memory, not as a path: torchcodec then forbids the content to make FFmpeg open anything else
        return torch.from_file(target.name, shared=False, size=size, dtype=torch.uint8)

    def _tracks(self, source: Any, name: str, audio_only: bool = False) -> tuple[Any, Any, int | None]:
        """The two tracks of a source and its size in bytes."""
        if isinstance(source, Clip):
            source = {
                "frames": source.frames,
                "timestamps": source.timestamps,
                "audio": source.audio,
                "sampling_rate": SAMPLING_RATE,
                "duration": source.duration,
            }
        if isinstance(source, dict):
            video = None if audio_only or source.get("frames") is None else _array_video(source, name)
            samples = source["audio"] if source.get("audio") is not None else source.get("array")
            audio = None
            if samples is not None and len(samples):
                audio = _array_audio(samples, source.get("sampling_rate"), name, self._warnings)
                audio = _ArrayAudio(audio.samples, video.begin if video else 0.0, audio.sampling_rate)
            if video is None and audio is None:
                raise UnreadableMediaError(name, "has neither frames nor audio", "Fill 'frames' or 'audio'")
            return video, audio, None
        if hasattr(source, "get_frames_played_at"):
            return _FileVideo(name, None, self.threads, source), None, None
        if hasattr(source, "get_samples_played_in_range"):
            samples = source.get_all_samples()
            return None, _array_audio(samples.data, samples.sample_rate, name, self._warnings), None
        handle = self._fetch(source, name)
        size = os.path.getsize(handle) if isinstance(handle, str) else len(handle)
        return *_open_tracks(handle, name, self.threads, audio_only, self._warnings), size

    def _open(self) -> None:
        self._warnings = notes = []
        video, audio, size = self._tracks(self._source, self.name)
        if self._audio_source is not None:
            _, audio, _ = self._tracks(self._audio_source, _name_of(self._audio_source), True)
            if audio is None:
                name = _name_of(self._audio_source)
                raise UnreadableMediaError(name, "has no audio track", "Give a sound file")
        self._video, self._audio = video, audio
        self._audio_zero = audio.begin if video is None or self._audio_source is not None else video.begin
        ends = [0.0]
        offset = 0.0
        if video:
            ends.append(video.end - video.begin)
        if audio:
            ends.append(audio.end - self._audio_zero)
            offset = audio.begin - self._audio_zero
        if not 0 < max(ends) <= MAX_DURATION or abs(offset) > MAX_DURATION:
            reason = f"its timestamps give a duration of {max(ends):.3g} s"
            raise UnreadableMediaError(self.name, reason, _DAMAGED)
        if video and not audio:
            decoder = hasattr(self._source, "get_frames_played_at")
            notes.append("no audio track" + (": an open VideoDecoder gives frames only" if decoder else ""))
        if abs(offset) > OFFSET_WARNING:
            side = "after" if offset > 0 else "before"
            notes.append(f"audio starts {abs(offset):.3f} s {side} the video")
        self._info = MediaInfo(
            name=self.name,
            duration=max(ends),
            has_video=video is not None,
            has_audio=audio is not None,
            width=video.width if video else None,
            height=video.height if video else None,
            average_fps=video.fps if video else None,
            num_frames=video.num_frames if video else None,
            sampling_rate=audio.sampling_rate if audio else None,
            video_codec=video.codec if video else None,
            audio_codec=audio.codec if audio else None,
            av_offset=offset,
            file_size=size,
        )

    def windows(self, window_seconds: float, hop_seconds: float | None = None) -> list[tuple[float, float]]:
        """Windows over the whole duration as (start, end) seconds. A file shorter than one window gives one. A
        last remainder below a quarter of a window becomes a full window that ends with the file."""
        hop = window_seconds if hop_seconds is None else hop_seconds
        if not (window_seconds > 0 and hop > 0):
            raise ValueError(f"window_seconds ({window_seconds}) and hop_seconds ({hop}) must be above 0")
        duration = self.info.duration
        spans: list[tuple[float, float]] = []
        while not spans or (spans[-1][1] < duration - _EPS and len(spans) * hop < duration - _EPS):
            start = len(spans) * hop
            spans.append((start, min(start + window_seconds, duration)))
        start, end = spans[-1]
        if len(spans) > 1 and end - start < 0.25 * window_seconds:
            spans[-1] = (end - window_seconds, end)
        return spans

    def read(
        self,
        start: float = 0.0,
        end: float | None = None,
        fps: float = 2.0,
        max_frames: int | None = None,
        with_video: bool = True,
        with_audio: bool = True,
    ) -> Clip:
        """Decode [start, end) (default: to the end of the file).

        Args:
            start, end (`float`): Seconds on the file's clock; `end` is cut at the file's duration.
            fps (`float`): Frames are those shown at `start + k / fps`.
            max_frames (`int`, *optional*): Where `fps` asks for more, this many instants spread evenly.
            with_video, with_audio (`bool`): What to decode.
        """
        duration = self.info.duration
        end = duration if end is None else min(end, duration)
        if not 0 <= start < end:
            raise ValueError(f"{self.name}: no window from {start} to {end} s in {duration:.3f} s of media")
        if not fps > 0 or (max_frames is not None and max_frames < 1):
            raise ValueError(f"fps ({fps}) must be above 0 and max_frames ({max_frames}) at least 1")
        notes = list(self._warnings)
        frames = timestamps = audio = None
        if with_video and self._video:
            frames, timestamps = self._read_video(start, end, fps, max_frames, notes)
        if with_audio and self._audio:
            audio = self._read_audio(start, end, notes)
        return Clip(frames, timestamps, audio, start, end, self.name, notes)

    def _read_video(self, start: float, end: float, fps: float, max_frames: int | None, notes: list[str]):
        video = self._video
        span = min(end, video.end - video.begin) - start
        if span <= _EPS:
            notes.append(f"the video ends at {video.end - video.begin:.2f} s, before this window")
            return None, None
        count = max(1, math.ceil(span * fps - _EPS))
        timestamps = torch.arange(count, dtype=torch.float64) / fps
        if max_frames is not None and count > max_frames:
            timestamps = torch.arange(max_frames, dtype=torch.float64) * (span / max_frames)
        size = len(timestamps) * 3 * (video.width or 0) * (video.height or 0)
        if size > MAX_CLIP_BYTES:
            reason = f"{len(timestamps)} frames of {video.width}x{video.height} take {size / 1024**3:.1f} GiB"
            raise MediaTooLargeError(self.name, reason, "Read shorter windows or lower fps or max_frames")
        return video.read(timestamps + start + video.begin, notes), timestamps

    def _read_audio(self, start: float, end: float, notes: list[str]) -> torch.Tensor | None:
        track, zero = self._audio, self._audio_zero
        # on the grid of 16 kHz, so that windows are slices of the whole
        begin = zero + round(start * SAMPLING_RATE) / SAMPLING_RATE
        length = min(round((end - start) * SAMPLING_RATE), round((track.end - begin) * SAMPLING_RATE))
        if length <= 0:
            notes.append(f"the audio ends at {max(0.0, track.end - zero):.2f} s, before this window")
            return None
        out = torch.zeros(length)
        for samples, at in track.read(begin, begin + (length + 2) / SAMPLING_RATE, notes):
            _place(out, samples, at - begin)
        out = _finite(out, notes)
        if float(out.abs().max()) < 2**-15:
            notes.append("audio is digital silence")
        return out.clamp_(-1, 1)


def _name_of(source: Any) -> str:
    if isinstance(source, str) and "://" in source:
        parts = urllib.parse.urlsplit(source)  # without password and query, which may be secrets
        return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    if isinstance(source, (str, Path)):
        return str(source)
    if isinstance(source, Clip):
        return source.name
    if isinstance(source, dict) and source.get("path"):
        return str(source["path"])
    return str(getattr(source, "name", f"<{type(source).__name__}>"))


def _checked(source: Any, name: str) -> Any:
    """The source in the form `_tracks` reads, or the error that can be known before anything is opened."""
    encoded = getattr(source, "_hf_encoded", None) or {}  # `datasets` keeps what its decoders read from here
    if encoded.get("bytes") is not None or os.path.isfile(encoded.get("path") or ""):
        source = encoded
    if isinstance(source, dict) and not {"frames", "audio", "array"} & set(source):
        if source.get("bytes") is None and source.get("path") is None:
            advice = "Give 'path' or 'bytes', or 'frames' and 'audio'"
            raise UnsupportedSourceError(name, f"is a dict with {sorted(source)}", advice)
        source = source["bytes"] if source.get("bytes") is not None else source["path"]
    if isinstance(source, str) and "://" in source:
        if urllib.parse.urlsplit(source).scheme.lower() not in ("http", "https"):
            raise UnsupportedSourceError(name, "is not an http or https link", "Download it and give a path")
        return source
    if isinstance(source, (str, Path)):
        _check_file(str(source), name)
        return os.path.abspath(source)  # absolute, so that FFmpeg cannot take "concat:x" for a protocol
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = bytes(source)
        _check_head(source[:512], name)
        return source
    readable = ("read", "get_frames_played_at", "get_samples_played_in_range")
    if isinstance(source, (dict, Clip)) or any(hasattr(source, method) for method in readable):
        return source
    advice = "Give a path, an http link, bytes, a file object or arrays"
    raise UnsupportedSourceError(name, f"a {type(source).__name__} is not media", advice)


def read_clip(source: Any, audio: Any = None, **kwargs: Any) -> Clip:
    """Open, read one window (by default everything, at 2 frames per second) and close. Arguments are those of
    [`MediaReader`] and [`MediaReader.read`]."""
    reader_names = ("name", "max_bytes", "timeout", "num_ffmpeg_threads")
    options = {key: kwargs.pop(key) for key in reader_names if key in kwargs}
    with MediaReader(source, audio, **options) as reader:
        return reader.read(**kwargs)

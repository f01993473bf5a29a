"""The video and the audio track of a media input, decoded at given times.

A track has a `begin` and an `end` on its own clock, in seconds. A video track turns instants into frames; an audio track
turns a range into pieces of 16 kHz samples, each with the time of its first sample.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from .media_errors import DAMAGED, PlacedWarning, UnreadableMediaError

SAMPLING_RATE = 16_000
EPS = 1e-6  # seconds; far below a tick of any container's clock, far above rounding
MAX_DECODING_THREADS = 4  # more threads wait for each other; our own choice
SMALL_PICTURE = 854 * 480  # pixels; 3 s of 398 x 224 take one thread 16 ms and two 20, measured on two cores
_MISSING = "frames are missing"
_INSTALL = (
    "Install torchcodec and FFmpeg 4 to 8 with its shared libraries (libavcodec, libavformat, libavutil)"
)


def resample(waveform: torch.Tensor, orig_freq: int, new_freq: int, rolloff: float = 0.95) -> torch.Tensor:
    """Resample a 1-D waveform with a Kaiser-windowed sinc of 32 zero crossings (Smith, *Digital Audio Resampling*, 1984).

    The cutoff is `rolloff` times the lower of the two Nyquist frequencies.
    """
    if orig_freq == new_freq or waveform.numel() == 0:
        return waveform
    divisor = math.gcd(orig_freq, new_freq)
    step, phases = orig_freq // divisor, new_freq // divisor
    cutoff = rolloff * min(1.0, new_freq / orig_freq)
    half = math.ceil(16 / cutoff)
    # one filter for each phase: at most `new_freq` filters for any pair of rates
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


def torchcodec_decoders() -> Any:
    """Return `torchcodec.decoders`.

    Raises:
        ImportError: If torchcodec or FFmpeg's shared libraries are missing; the message says what to install.
    """
    try:
        import torchcodec.decoders as decoders
    except (ImportError, OSError, RuntimeError) as error:
        raise ImportError(f"torchcodec cannot be imported. {_INSTALL}. Cause: {error}") from error
    return decoders


def explain(error: Exception) -> str:
    """Return the useful part of a torchcodec error. Raises `ImportError` if FFmpeg is missing."""
    text = str(error)
    if "Could not load libtorchcodec" in text:
        raise ImportError(f"torchcodec cannot load FFmpeg's shared libraries. {_INSTALL}.") from error
    return re.sub(r"^.*\.cpp:\d+, ", "", text, flags=re.S).strip().splitlines()[0].rstrip(".")


def decoding_threads(width: int | None, height: int | None) -> int:
    """Return the number of threads that decode pictures of a size: one up to 854 x 480, where more are no faster."""
    small = width is not None and height is not None and width * height <= SMALL_PICTURE
    return 1 if small else min(torch.get_num_threads(), MAX_DECODING_THREADS)


class FileVideo:
    """
    The video track of a file, decoded by torchcodec.

    Args:
        name (`str`): Name of the media in messages.
        handle: Source that torchcodec opens; None for an open decoder alone.
        threads (`int`, *optional*, defaults to 1): Decoding threads.
        decoder (`torchcodec.decoders.VideoDecoder`, *optional*): An open decoder to use.
    """

    def __init__(self, name: str, handle: Any, threads: int = 1, decoder: Any = None):
        self.name, self.handle, self.threads = name, handle, threads
        self.decoder = decoder or torchcodec_decoders().VideoDecoder(handle, num_ffmpeg_threads=threads)
        meta = self.decoder.metadata
        self.num_frames, self.codec, self.fps = len(self.decoder), meta.codec, meta.average_fps or 25.0
        self.width, self.height = meta.width, meta.height
        self.begin, self.last_end = meta.begin_stream_seconds, meta.end_stream_seconds
        self.end = max(self.last_end, self.begin + 1 / self.fps)
        self.seeks_late = False

    def read(self, instants: torch.Tensor, notes: list[str]) -> torch.Tensor:
        """Return the frames on screen at `instants` (seconds, rising), uint8 of shape `(T, 3, H, W)`.

        Raises:
            UnreadableMediaError: If more than half of them cannot be decoded.
        """
        cause = _MISSING
        if not self.seeks_late:
            at = (instants + EPS).clamp(max=math.nextafter(self.last_end, -math.inf))
            try:
                batch = self.decoder.get_frames_played_at(at)
            except (RuntimeError, IndexError) as error:
                cause = explain(error)
                if self.handle is not None:  # after an error the decoder's state is unknown
                    self.decoder = torchcodec_decoders().VideoDecoder(
                        self.handle, num_ffmpeg_threads=self.threads
                    )
            else:
                # in place of a frame that it can't reach, torchcodec returns a later one
                if bool((batch.pts_seconds <= at).all()) or self.handle is None:
                    self._note_holds(at - batch.pts_seconds - batch.duration_seconds, at, notes)
                    return to_uint8_nchw(batch.data)
        if self.handle is None:
            raise UnreadableMediaError(self.name, f"frames cannot be decoded ({cause})", DAMAGED)
        return self._read_packets(instants, cause, notes)

    def _note_holds(self, late: torch.Tensor, at: torch.Tensor, notes: list[str]) -> None:
        if float(late.max()) > max(0.5, 3 / self.fps):
            held = [f"{t:.2f}" for t in (at[late > 0.5] - self.begin).tolist()]
            notes.append(PlacedWarning("no frames around {} s of the video: the frame before is held", held))

    def _read_packets(self, instants: torch.Tensor, cause: str, notes: list[str]) -> torch.Tensor:
        """Decode packet by packet from well before the first instant, skipping damaged packets.

        This is also right where seeking lands late, as in MPEG-TS (https://trac.ffmpeg.org/ticket/11137).
        """
        times, back = instants.tolist(), 1.0
        while True:
            start = times[0] - back if times[0] - back > self.begin else None
            frames = self._packet_frames(start)
            first = next(frames, None)
            if start is None or (first is not None and first.pts_seconds <= times[0] + EPS):
                break
            back *= 4
        shown, lost = self._on_screen(itertools.chain([first], frames), times)
        if first is None or 2 * len(lost) > len(times):
            where = f"{times[0] - self.begin:.2f} and {times[-1] - self.begin:.2f} s"
            reason = f"more than half of the frames between {where} cannot be decoded ({cause})"
            raise UnreadableMediaError(self.name, reason, DAMAGED)
        if lost:
            text = "frames at {} s cannot be decoded; the nearest readable ones are shown"
            notes.append(PlacedWarning(text, [f"{t - self.begin:.2f}" for t in lost]))
        else:
            self.seeks_late = cause == _MISSING
        return self._convert(shown, notes)

    def _on_screen(self, frames: Iterable[Any], times: list[float]) -> tuple[list[Any], list[float]]:
        """Return the frame on screen at each time (the nearest one if it is lost), and the lost times."""
        shown: list[Any] = []
        lost: list[float] = []
        previous, until = None, -math.inf
        for frame in itertools.chain(frames, [None]):
            begin = math.inf if frame is None else frame.pts_seconds
            while len(shown) < len(times) and times[len(shown)] + EPS < begin:
                now = times[len(shown)]
                if now > until:
                    lost.append(now)
                shown.append(frame if now > until and begin - now < now - until else previous)
            if frame is None or len(shown) == len(times):
                break
            previous, until = frame, begin + max(frame.duration_seconds, 1 / self.fps) + EPS
        return shown, lost

    def _packet_frames(self, start: float | None) -> Iterator[Any]:
        demuxer = torchcodec_decoders().Demuxer(self.handle, streams="video")
        # one thread: several report damage later than at the damaged packet
        decoder = demuxer.streams[0].make_decoder("cpu", num_ffmpeg_threads=1)
        if start is not None:
            demuxer.seek(start)
        for frames in _decoded_packets(demuxer, decoder):
            yield from frames or []

    def _convert(self, shown: list[Any], notes: list[str]) -> torch.Tensor:
        converter = torchcodec_decoders().ColorConverter("cpu")
        frames = {id(frame): frame for frame in shown}
        images = {key: to_uint8_nchw(converter.convert(x).data[None])[0] for key, x in frames.items()}
        size = tuple(images[id(shown[0])].shape[1:])
        if any(tuple(image.shape[1:]) != size for image in images.values()):
            notes.append(f"the frame size changes inside the video; resized to {size[1]}x{size[0]}")
            images = {key: _resize(image, size) for key, image in images.items()}
        return torch.stack([images[id(frame)] for frame in shown])


class ArrayVideo:
    """Frames in memory. The last one is shown for `last` seconds."""

    codec = None

    def __init__(self, frames: torch.Tensor, timestamps: torch.Tensor, last: float):
        self.frames, self.timestamps = frames, timestamps
        self.num_frames, _, self.height, self.width = frames.shape
        self.begin, self.end = float(timestamps[0]), float(timestamps[-1]) + last
        self.fps = self.num_frames / (self.end - self.begin)

    def read(self, instants: torch.Tensor, notes: list[str]) -> torch.Tensor:
        """Return the frames on screen at `instants` (seconds), uint8 of shape `(T, 3, H, W)`."""
        shown = torch.searchsorted(self.timestamps, instants + EPS, right=True) - 1
        return self.frames[shown.clamp(min=0)]


class FileAudio:
    """
    The audio track of a file, decoded by torchcodec.

    Args:
        name (`str`): Name of the media in messages.
        handle: Source that torchcodec opens.
        demuxer (`torchcodec.decoders.Demuxer`, *optional*): Demuxer of the same file, at its start, with the sound selected.
    """

    def __init__(self, name: str, handle: Any, demuxer: Any = None):
        self.name, self.handle = name, handle
        first = first_sample(demuxer or torchcodec_decoders().Demuxer(handle, streams="audio"))
        self._renew()
        meta = self.decoder.metadata
        self.codec, self.sampling_rate = meta.codec, meta.sample_rate
        self.begin, self.end = meta.begin_stream_seconds or 0.0, -math.inf  # until _find_end has found it
        claimed_end = self.begin + (meta.duration_seconds or 0.0)
        # the header of an Ogg file says 0 although the first sample comes some ms later
        if first is not None and self.begin < first < self.begin + 0.1:
            self.begin = first
        self.end = self._find_end(claimed_end)

    def _renew(self) -> None:
        # not num_channels=1: FFmpeg's downmix of floats adds channels at 0.71 each instead of averaging
        self.decoder = torchcodec_decoders().AudioDecoder(self.handle, sample_rate=SAMPLING_RATE)
        self.read_until = -math.inf

    def _pieces(self, a: float, b: float) -> tuple[list[tuple[torch.Tensor, float]], bool]:
        """Return the sound in [a, b) in pieces, and whether some of it is damaged."""
        if a < self.read_until:
            self._renew()  # torchcodec 0.17 finds nothing on its way back to the start of an edited mp4
        self.read_until = b
        try:
            got = self.decoder.get_samples_played_in_range(a, b)
        except RuntimeError as error:
            self.read_until = math.inf
            if "No audio frames were decoded" in explain(error):
                return [], False
            return self._packet_pieces(a, b)
        # torchcodec joins samples across a gap in time: too few samples are decoded again, packet by packet
        expected = min(b, self.end) - max(a, got.pts_seconds)
        if got.data.shape[1] / SAMPLING_RATE > expected - 0.02:
            return [(got.data.mean(0), got.pts_seconds)], False
        return self._packet_pieces(a, b)

    def _packet_pieces(self, a: float, b: float) -> tuple[list[tuple[torch.Tensor, float]], bool]:
        decoders = torchcodec_decoders()
        demuxer = decoders.Demuxer(self.handle, streams="audio")
        if a - 0.5 > self.begin:
            demuxer.seek(a - 0.5)  # lossy codecs need some frames before they decode correctly
        damaged, runs = False, []
        for group in _decoded_packets(demuxer, demuxer.streams[0].make_decoder()):
            damaged |= group is None
            for raw in group or []:
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
        """Return the end of the decodable sound: headers overstate it in truncated files and often in others."""
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
        """Return the sound in [a, b) as pieces of mono 16 kHz samples, each with its time in seconds.

        Raises:
            UnreadableMediaError: If more than half of it cannot be decoded.
        """
        a, b = max(a, self.begin), min(b, self.end)
        if b - a < 1 / SAMPLING_RATE:
            return []
        pieces, damaged = self._pieces(a, b)
        edges = [a, *(t for x, at in pieces for t in (at, at + len(x) / SAMPLING_RATE)), b]
        lost = [(x, y) for x, y in zip(edges[::2], edges[1::2], strict=True) if y - x > 0.02]
        if damaged and sum(y - x for x, y in lost) > (b - a) / 2:
            reason = f"more than half of the audio between {a:.2f} and {b:.2f} s cannot be decoded"
            raise UnreadableMediaError(self.name, reason, DAMAGED)
        if lost:
            what = "cannot be decoded" if damaged else "is missing"
            spans = (f"{x - self.begin:.2f}-{y - self.begin:.2f}" for x, y in lost)
            notes.append(PlacedWarning(f"audio at {{}} s of its track {what}: silence there", spans))
        return pieces


class ArrayAudio:
    """Samples in memory, already at 16 kHz."""

    codec = None

    def __init__(self, samples: torch.Tensor, begin: float = 0.0, sampling_rate: int = SAMPLING_RATE):
        self.samples, self.begin, self.sampling_rate = samples, begin, sampling_rate
        self.end = begin + len(samples) / SAMPLING_RATE

    def read(self, a: float, b: float, notes: list[str]) -> list[tuple[torch.Tensor, float]]:
        first = max(0, round((a - self.begin) * SAMPLING_RATE))
        stop = max(first, round((b - self.begin) * SAMPLING_RATE))
        return [(self.samples[first:stop], self.begin + first / SAMPLING_RATE)]


class SoundFileAudio:
    """A sound file read by libsndfile, for files that torchcodec cannot read."""

    begin = 0.0

    def __init__(self, file: Any):
        self.file, self.sampling_rate, self.codec = file, file.samplerate, file.subtype.lower()
        self.end = file.frames / file.samplerate

    def read(self, a: float, b: float, notes: list[str]) -> list[tuple[torch.Tensor, float]]:
        # start on a sample of both rates, with room for the filter: so a window equals that part of the whole
        rate = self.sampling_rate
        block = rate // math.gcd(rate, SAMPLING_RATE)
        margin = 64 + 64 * rate // SAMPLING_RATE
        first = max(0, (math.floor(a * rate) - margin) // block * block)
        stop = min(self.file.frames, math.ceil(b * rate) + margin)
        self.file.seek(first)
        data = self.file.read(max(0, stop - first), dtype="float32", always_2d=True)
        samples = resample(torch.from_numpy(data).mean(1), rate, SAMPLING_RATE)
        return ArrayAudio(samples, first / rate).read(a, b, notes)


def first_sample(demuxer: Any) -> float | None:
    """Return the time of the first sample after a demuxer's start, in seconds; `None` if it is damaged.

    Nothing is resampled: torchcodec's resampler drops up to 10 ms of a track that starts off its grid.
    """
    track = next((x for x in demuxer.streams if x.index == demuxer.metadata.best_audio_stream_index), None)
    if track is None:
        return None
    packets = (packet for packet in demuxer if packet.stream_index == track.index)
    found = next(filter(lambda group: group != [], _decoded_packets(packets, track.make_decoder())), None)
    return found[0].pts_seconds if found else None


def _decoded_packets(demuxer: Iterator[Any], decoder: Any) -> Iterator[list[Any] | None]:
    """Yield the frames of each packet; `None` for a packet that cannot be decoded."""
    while True:
        try:
            packet = next(demuxer, None)
        except RuntimeError:
            yield None  # the container is broken from here on
            packet = None
        try:
            yield decoder.drain() if packet is None else decoder.decode(packet)
        except RuntimeError:
            yield None
        if packet is None:
            return


def to_uint8_nchw(data: torch.Tensor) -> torch.Tensor:
    """Return frames as bytes of shape (T, 3, H, W). In memory their colours stay interleaved, as decoded."""
    # a decoder opened by the caller may give another layout, or floats
    if data.shape[1] != 3 and data.shape[-1] == 3:
        data = data.permute(0, 3, 1, 2)
    if data.is_floating_point():
        data = (data * 255).round().clamp(0, 255).to(torch.uint8)
    return data.cpu()


def _resize(frame: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    smooth = torch.nn.functional.interpolate(frame[None].float(), size, mode="bilinear", antialias=True)
    return smooth[0].round().clamp(0, 255).to(torch.uint8)

"""The common ground of a file's tracks: torchcodec, packets decoded in order, and the times of what comes out.

A track has a `begin` and an `end` on its own clock, in seconds. A video track turns instants into frames; an audio track
turns a range into pieces of 16 kHz samples, each with the time of its first sample.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SAMPLING_RATE = 16_000
EPS = 1e-6  # seconds; far below a tick of any container's clock, far above rounding
JUMP_BACK = 0.5  # seconds by which times fall back where recordings were joined; our own choice
JUMP_AHEAD = 60.0  # seconds by which the sound jumps ahead there; our own choice
LONGEST_TIME = 1e9  # seconds; torchcodec gives larger ones, and NaN, for a missing timestamp
MOST_FPS = 240  # frames a second; more is the header's clock, not a rate; our own choice
FAR = 10.0  # seconds ahead from which on a seek in MPEG-TS takes less time than decoding what lies between; our own choice
MOST_WAITING = 64  # outputs without a timestamp at the beginning of a track that are held; our own choice
_INSTALL = (
    "Install torchcodec and FFmpeg 4 to 8 with its shared libraries (libavcodec, libavformat, libavutil)"
)


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


def known(seconds: float | None) -> bool:
    """Return True for a time, False for a missing timestamp."""
    return seconds is not None and abs(seconds) < LONGEST_TIME


def is_turned(rotation: float | None) -> bool:
    """Return True for a picture that is shown on its side; `rotation` is in degrees, and None where the file tells none."""
    return round((rotation or 0) / 90) % 2 == 1


def is_rate(fps: float | None) -> bool:
    """Return True for frames a second, False for the ticks of a container's clock, which some headers give instead."""
    return fps is not None and 1 <= fps <= MOST_FPS


class Clock:
    """
    The times of what a track's decoder gives, in the order of the file.

    - An output without a timestamp follows the one before. At the beginning of a track it precedes the first one that has
      a timestamp; without any the track begins at 0.
    - Where recordings were joined, times fall back or jump ahead. There a new run begins, which follows the one before.

    Args:
        step (`float`): Duration of an output that does not tell its own, in seconds.
        origin (`float`, *optional*): True time of the first output, where the decoder only tells the times of packets.
        shifts (`list[float]`, *optional*):
            Seconds to add to the timestamps of each run after the first. Those that are not known yet are appended, so
            that the clocks of two tracks that share a list stay together.
        ahead (`float`, *optional*): Seconds that begin a new run if the time jumps ahead by more than that.
    """

    def __init__(
        self,
        step: float,
        origin: float | None = None,
        shifts: list[float] | None = None,
        ahead: float = math.inf,
    ):
        self.step, self.origin, self.ahead = step, origin, ahead
        self.shifts = [] if shifts is None else shifts
        self.runs: list[tuple[float, float]] = []  # begin and end of each, as the file tells them
        self.count = self.missing = 0  # outputs, and those without a timestamp
        self._waiting: list[Any] = []
        self._shift = 0.0

    def duration(self, output: Any) -> float:
        """Return how long an output lasts, in seconds."""
        if isinstance(output, torchcodec_decoders().RawAudioSamples):  # files tell wrong durations of sound
            return output.data.shape[1] / output.sample_rate
        return max(output.duration_seconds, self.step) if known(output.duration_seconds) else self.step

    def place(self, outputs: list[Any]) -> list[tuple[float, Any]]:
        """Return the next outputs with their times, as far as these are known already."""
        placed = []
        for output in outputs:
            self.count += 1
            self.missing += not known(output.pts_seconds)
            if self.runs or known(output.pts_seconds):
                if not self.runs:
                    placed += self._begin(output.pts_seconds)
                placed.append((self._next(output), output))
            else:
                self._waiting.append(output)
                if len(self._waiting) == MOST_WAITING:
                    placed += self.rest()
        return placed

    def rest(self) -> list[tuple[float, Any]]:
        """Return the outputs that wait for a timestamp."""
        return self._begin(sum(map(self.duration, self._waiting))) if self._waiting else []

    def _begin(self, first: float) -> list[tuple[float, Any]]:
        begin = at = first - sum(map(self.duration, self._waiting))
        placed = []
        for output in self._waiting:
            placed.append((at, output))
            at += self.duration(output)
        self._waiting = []
        self._shift = 0.0 if self.origin is None else self.origin - begin
        self.runs = [(begin, at)]
        return [(time + self._shift, output) for time, output in placed]

    def _next(self, output: Any) -> float:
        begin, end = self.runs[-1]
        at = output.pts_seconds if known(output.pts_seconds) else end
        if at < end - max(JUMP_BACK, 10 * self.step) or at > end + self.ahead:
            number = len(self.runs) - 1
            if number == len(self.shifts):
                self.shifts.append(self._shift + end - at)
            self._shift = self.shifts[number]
            self.runs.append((at, at))
            begin, end = at, at
        self.runs[-1] = (begin, max(end, at + self.duration(output)))
        return at + self._shift


@dataclass
class Survey:
    """Facts of a track that decoding all of it gives. Times are in seconds, after joined recordings were put in a row."""

    begin: float
    end: float
    count: int
    missing: int
    runs: list[tuple[float, float]]
    shape: tuple[int, int] | None = None  # width and height of the first picture, upright


def survey(handle: Any, stream: int | str, clock: Clock, threads: int = 1) -> Survey | None:
    """Decode a track from its beginning to its end; return `None` if nothing in it can be decoded."""
    begin, end, count, shape = math.inf, -math.inf, 0, None
    for item in timed(handle, stream, clock, threads):
        if item is not None:
            at, output = item
            if not count and isinstance(output, torchcodec_decoders().RawFrame):
                turned = is_turned(output.rotation)
                shape = (output.height, output.width) if turned else (output.width, output.height)
            begin, end, count = min(begin, at), max(end, at + clock.duration(output)), count + 1
    return Survey(begin, end, count, clock.missing, clock.runs, shape) if count else None


def timed(
    handle: Any, stream: int | str, clock: Clock, threads: int = 1, start: float | None = None
) -> Iterator[tuple[float, Any] | None]:
    """Yield the outputs of a track's decoder with their times; `None` for a packet that cannot be decoded.

    Args:
        handle: Source that torchcodec opens.
        stream (`int` or `str`): Index of the track, or "video" or "audio".
        clock ([`Clock`]): The track's clock.
        threads (`int`, *optional*, defaults to 1): Threads that decode pictures. Several report damage late.
        start (`float`, *optional*): Time to seek to. Defaults to the beginning, without seeking.
    """
    demuxer = torchcodec_decoders().Demuxer(handle, streams=stream)
    track = demuxer.streams[0]
    picture = isinstance(track, torchcodec_decoders().VideoStream)
    decoder = track.make_decoder("cpu", num_ffmpeg_threads=threads) if picture else track.make_decoder()
    if start is not None:
        with contextlib.suppress(RuntimeError):  # then frames come from the beginning
            demuxer.seek(start)
    for outputs in decoded_packets(demuxer, decoder):
        if outputs is None:
            yield None
        else:
            yield from clock.place(outputs)
    yield from clock.rest()


def decoded_packets(demuxer: Iterator[Any], decoder: Any) -> Iterator[list[Any] | None]:
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


class Screen:
    """
    Frames as they are decoded, of which those before and after an instant are known.

    Args:
        frames: `(time, frame)` pairs in order; None for a damaged packet.
        damaged (`bool`, *optional*, defaults to `False`): Whether any gap between frames counts as damage.
    """

    def __init__(self, frames: Iterator[tuple[float, Any] | None], damaged: bool = False):
        self.frames, self.always_damaged, self.damaged = frames, damaged, damaged
        self.broken = False  # whether a packet between the two frames could not be decoded
        self.breaks: list[float] = []  # times after which there were such packets
        self.before: tuple[float, Any, float] | None = None
        self.after: tuple[float, Any, float] | None = None
        self._pull()

    def _pull(self) -> None:
        self.damaged, self.broken = self.always_damaged, False
        self.after = None
        for item in self.frames:
            if item is not None:
                at, frame = item
                self.after = (at, frame, frame.duration_seconds)
                return
            self.damaged = self.broken = True
            if self.before is not None:
                self.breaks.append(self.before[0])

    def at(self, now: float) -> tuple[tuple | None, tuple | None, bool]:
        """Return the frames before and after a time, each with its begin and duration, and whether there is damage between."""
        while self.after is not None and self.after[0] <= now + EPS:
            self.before = self.after
            self._pull()
        return self.before, self.after, self.damaged

    def reaches(self, time: float) -> bool:
        """Return whether what is on screen at a time is still to come."""
        return self.before is None or self.before[0] <= time + EPS

    def far(self, time: float) -> bool:
        return self.before is not None and time - self.before[0] > FAR

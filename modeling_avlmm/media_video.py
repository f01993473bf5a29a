"""The picture track of a media input, decoded at given times.

Where the index of a file says exactly from which packet a picture can be decoded (MP4 and Matroska), torchcodec seeks.
Everything else is decoded from front to back: a seek that lands between two such packets gives garbage without an error
(https://trac.ffmpeg.org/ticket/11137).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F

from .media_errors import DAMAGED, PlacedWarning, UnreadableMediaError
from .media_tracks import EPS, JUMP_AHEAD, Clock, Screen, explain, known, survey, timed, torchcodec_decoders

KEY_MARGIN = 2.0  # seconds before a key frame at which a seek in MPEG-TS aims; our own choice
KEY_MATCH = 1e-3  # seconds: times of packets and frames are equal up to rounding
JOIN_GAP = (
    1.0  # seconds without a picture from which on the whole track is decoded to see why; our own choice
)
MOST_STRETCH = 8  # times that a pixel may be wider than high, or higher than wide: more is a damaged header; our own choice
_MISSING = "frames are missing"


@dataclass(frozen=True)
class Picture:
    """
    What the header of a file says about its picture track.

    Args:
        stream (`int`, *optional*): Index of the track; None for the best one.
        codec (`str`, *optional*): Its codec.
        fps (`float`, *optional*): Frames a second.
        aspect (`float`): Width of a pixel divided by its height.
        turned (`bool`): Whether the picture is shown on its side.
        mirrored (`bool`): Whether it is shown mirrored.
        seekable (`bool`): Whether the file's index says exactly from which packet a picture can be decoded.
        transport (`bool`): Whether it is MPEG-TS, in which a seek lands near its aim.
        decoding_times (`bool`): Whether the file holds times of decoding only, as AVI does.
    """

    stream: int | None = None
    codec: str | None = None
    fps: float | None = None
    aspect: float = 1.0
    turned: bool = False
    mirrored: bool = False
    seekable: bool = True
    transport: bool = False
    decoding_times: bool = False

    def shown_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height in which decoded frames of a size are shown."""
        if self.aspect == 1 or not 1 / MOST_STRETCH <= self.aspect <= MOST_STRETCH:
            return width, height
        if self.turned:
            return width, max(1, round(height * self.aspect))
        return max(1, round(width * self.aspect)), height

    def shown(self, frames: torch.Tensor) -> torch.Tensor:
        """Return decoded frames of shape `(T, 3, H, W)` as a player shows them; torchcodec has turned them already."""
        if self.mirrored:
            frames = frames.flip(-1 if self.turned else -2)
        height, width = frames.shape[-2:]
        shown = self.shown_size(width, height)
        return frames if shown == (width, height) else resized(frames, shown[::-1])


class FileVideo:
    """
    The video track of a file, decoded by torchcodec.

    Args:
        name (`str`): Name of the media in messages.
        handle: Source that torchcodec opens; None for an open decoder alone.
        threads (`int`, *optional*, defaults to 1): Decoding threads.
        picture ([`Picture`], *optional*): What is known about the track.
        decoder (`torchcodec.decoders.VideoDecoder`, *optional*): An open decoder to use.
        shifts (`tuple[float]`, *optional*):
            Seconds to add to the times of each joined recording after the first; empty to find these recordings.

    Raises:
        RuntimeError, ValueError: If nothing of it can be decoded.
    """

    def __init__(
        self,
        name: str,
        handle: Any,
        threads: int = 1,
        picture: Picture | None = None,
        decoder: Any = None,
        shifts: tuple[float, ...] | None = None,
    ):
        self.name, self.handle, self.threads, self.picture = name, handle, threads, picture or Picture()
        self.codec, self.fps, self.decoder = self.picture.codec, self.picture.fps or 25.0, decoder
        self.shifts, self.runs, self.untimed = shifts, [], 0
        self.seeks_late = False
        self.sought = True  # whether what was read last was reached by a seek
        self._origin: float | None = None
        self._keys = torch.zeros(0, dtype=torch.float64)
        self._screen: Screen | None = None
        joined = shifts is not None
        broken = decoder is None and self.picture.seekable and not joined and not self._open_decoder()
        if self.decoder is not None:
            meta = self.decoder.metadata
            self.num_frames, self.codec, self.fps = len(self.decoder), meta.codec, meta.average_fps or 25.0
            self.begin, self.last_end = meta.begin_stream_seconds, meta.end_stream_seconds
            size = meta.width, meta.height
        else:
            size = (None if broken or joined else self._scan()) or self._survey()
        self.width, self.height = size if None in size else self.picture.shown_size(*size)
        self.end = max(self.last_end, self.begin + 1 / self.fps)

    def _open_decoder(self) -> bool:
        """Open torchcodec's decoder; return False if it cannot read the file, or gives times that are none."""
        try:
            decoder = torchcodec_decoders().VideoDecoder(
                self.handle, stream_index=self.picture.stream, num_ffmpeg_threads=self.threads
            )
            meta = decoder.metadata
        except (
            RuntimeError,
            ValueError,
            ArithmeticError,
        ):  # of any track, or at the seek back to the beginning
            return False
        begin, end = meta.begin_stream_seconds, meta.end_stream_seconds
        if not known(begin) or not known(end) or self._doubled(len(decoder), end - begin):
            return False
        self.decoder = decoder
        return True

    def _doubled(self, count: int, span: float) -> bool:
        """Return whether there are more frames than fit in their time, as where joined recordings overlap."""
        return self.picture.fps is not None and count > 1.5 * (span * self.fps + 2)

    def _scan(self) -> tuple[int | None, int | None] | None:
        """Take the times of the packets, and return the picture's size; `None` if these don't tell those of the frames."""
        try:
            track = torchcodec_decoders().Demuxer(self.handle, streams=self._stream).streams[0]
            index, meta = track.scan(), track.metadata
        except (RuntimeError, ValueError, ArithmeticError):
            return None
        times = index.pts_seconds
        if not len(times) or not known(float(times[0])) or not known(float(times[-1])):
            return None
        gaps, span = times.diff(), float(times[-1] - times[0])
        doubled = self._doubled(len(times), span) or int((gaps < 0.25 / self.fps).sum()) > 2
        if doubled or (len(gaps) and float(gaps.max()) > JOIN_GAP):  # as in joined recordings
            return None
        self.begin, self.num_frames = float(times[0]), len(times)
        self.last_end = max(index.end_stream_seconds_from_content, float(times[-1]) + 1 / self.fps)
        if self.picture.decoding_times:
            self._origin = self.begin
        if self.picture.transport:
            self._keys = times[index.key_frame_indices]
        return meta.width, meta.height

    @cached_property
    def times(self) -> torch.Tensor:
        """The times of all frames in seconds, float64 of shape `(num_frames,)`."""
        if self.decoder is not None and self.handle is not None:
            return (
                torchcodec_decoders().Demuxer(self.handle, streams=self._stream).streams[0].scan().pts_seconds
            )
        if self.decoder is not None:
            return torch.tensor([self.decoder.get_frame_at(k).pts_seconds for k in range(self.num_frames)])
        return torch.tensor([item[0] for item in self.decoded() if item is not None], dtype=torch.float64)

    def _survey(self) -> tuple[int | None, int | None]:
        """Decode the whole track once for its times, and return the picture's size."""
        found = survey(self.handle, self._stream, self._clock(), self.threads)
        if found is None:
            raise ValueError("no frame can be decoded")
        self.begin, self.last_end, self.num_frames = found.begin, found.end, found.count
        self.runs, self.untimed = found.runs, found.missing
        return found.shape or (None, None)

    @property
    def _stream(self) -> int | str:
        return "video" if self.picture.stream is None else self.picture.stream

    def _clock(self) -> Clock:
        ahead = math.inf if self.shifts is None else JUMP_AHEAD
        return Clock(1 / self.fps, self._origin, list(self.shifts or ()), ahead)

    def set_shifts(self, shifts: tuple[float, ...]) -> None:
        """Move each joined recording after the first by its number of seconds."""
        self.shifts, self._screen = shifts, None
        self.end = self.last_end = self.runs[-1][1] + shifts[-1]

    def read(self, instants: torch.Tensor, notes: list[str]) -> torch.Tensor:
        """Return the frames on screen at `instants` (seconds, rising), uint8 of shape `(T, 3, H, W)`.

        Raises:
            UnreadableMediaError: If more than half of them cannot be decoded.
        """
        return self.picture.shown(self._read(instants, notes))

    def _read(self, instants: torch.Tensor, notes: list[str]) -> torch.Tensor:
        if self.decoder is None:
            return self._read_in_order(instants, notes)
        cause = _MISSING
        if not self.seeks_late:
            at = (instants + EPS).clamp(max=math.nextafter(self.last_end, -math.inf))
            try:
                batch = self.decoder.get_frames_played_at(at)
            except (RuntimeError, IndexError) as error:
                cause = explain(error)
                if (
                    self.handle is not None and not self._open_decoder()
                ):  # after an error its state is unknown
                    raise UnreadableMediaError(
                        self.name, f"cannot be opened again ({cause})", DAMAGED
                    ) from error
            else:
                # in place of a frame that it can't reach, torchcodec returns a later one
                if bool((batch.pts_seconds <= at).all()) or self.handle is None:
                    late = at - batch.pts_seconds - batch.duration_seconds
                    lost = self._lost(at, batch.pts_seconds, late > 2 * EPS)
                    self._note_lost(at[lost], notes)
                    self._note_holds(at[(late > self._patience) & ~lost], notes)
                    return to_uint8_nchw(batch.data)
        if self.handle is None:
            raise UnreadableMediaError(self.name, f"frames cannot be decoded ({cause})", DAMAGED)
        return self._read_packets(instants, cause, notes)

    def _lost(self, at: torch.Tensor, shown: torch.Tensor, late: torch.Tensor) -> torch.Tensor:
        """Return at which of the instants `at` the file has a newer frame than the one that was decoded for it."""
        if self.handle is None or not bool(late.any()):
            return torch.zeros_like(late)
        there = self.times[(torch.searchsorted(self.times, at, right=True) - 1).clamp(min=0)]
        return late & (there > shown + KEY_MATCH)

    @property
    def _patience(self) -> float:
        """Seconds after the end of a frame from which on a warning says that it is held."""
        return max(0.5, 3 / self.fps)

    def _note_holds(self, at: Iterable[float], notes: list[str]) -> None:
        held = [f"{float(t) - self.begin:.2f}" for t in at]
        if held:
            notes.append(PlacedWarning("no frames around {} s of the video: the frame before is held", held))

    def _note_lost(self, at: Iterable[float], notes: list[str]) -> None:
        lost = [f"{float(t) - self.begin:.2f}" for t in at]
        if lost:
            text = "frames at {} s cannot be decoded; the nearest readable ones are shown"
            notes.append(PlacedWarning(text, lost))

    def _read_packets(self, instants: torch.Tensor, cause: str, notes: list[str]) -> torch.Tensor:
        """Decode packet by packet from well before the first instant, skipping damaged packets."""
        times, back = instants.tolist(), 1.0
        while True:
            start = times[0] - back if times[0] - back > self.begin else None
            screen = Screen(self.decoded(start, threads=1), damaged=True)
            if start is None or (screen.after is not None and screen.after[0] <= times[0] + EPS):
                break
            back *= 4
        shown = self._shown(screen, times, cause, notes)
        self.seeks_late = cause == _MISSING
        return self._converted(shown, notes)

    def decoded(self, start: float | None = None, threads: int | None = None) -> Iterator[Any]:
        """Yield the frames with their times from a time on that is sought, or from the beginning; see [`timed`]."""
        return timed(self.handle, self._stream, self._clock(), threads or self.threads, start)

    def _read_in_order(self, instants: torch.Tensor, notes: list[str]) -> torch.Tensor:
        """Decode on from where the last call ended; from the beginning, or from a safe place, to go back."""
        times = instants.tolist()
        screen = self._screen
        if screen is None or not screen.reaches(times[0]) or (len(self._keys) and screen.far(times[0])):
            screen = self._screen_from(times[0])
        self._screen = screen
        return self._converted(self._shown(screen, times, "packets are damaged", notes), notes)

    def _screen_from(self, first: float) -> Screen:
        """Return the frames from a key frame before the time `first`, which a seek in MPEG-TS need not hit."""
        before = self._keys[self._keys <= first + EPS]
        back = KEY_MARGIN
        while len(before) and float(before[-1]) - back > self.begin:
            frames = self.decoded(float(before[-1]) - back)
            for item in frames:
                # what is decoded before a key frame may be made of frames that were not read
                if item is not None and bool(((before - item[0]).abs() < KEY_MATCH).any()):
                    self.sought = True
                    return Screen(itertools.chain([item], frames))
                if item is not None and item[0] > first + EPS:
                    break
            back *= 4
        self.sought = False
        return Screen(self.decoded())

    def _shown(self, screen: Screen, times: list[float], cause: str, notes: list[str]) -> list[Any]:
        """Return the frame on screen at each time (the nearest one if it is lost), and warn of those that are lost."""
        shown, lost, held = [], [], []
        for now in times:
            before, after, damaged = screen.at(now)
            if before is None and after is None:
                raise UnreadableMediaError(self.name, f"no frame can be decoded ({cause})", DAMAGED)
            until = -math.inf if before is None else before[0] + max(before[2], 1 / self.fps) + EPS
            missed = screen.broken and now > until - 3 * EPS  # at the very end of the frame before
            if missed or (now > until and (damaged or before is None)):
                lost.append(now)
            elif now > until + self._patience:
                held.append(now)
            nearer = after is not None and (
                before is None or (damaged and now > until and after[0] - now < now - until)
            )
            shown.append((after if nearer else before)[1])
        if 2 * len(lost) > len(times):
            where = f"{times[0] - self.begin:.2f} and {times[-1] - self.begin:.2f} s"
            reason = f"more than half of the frames between {where} cannot be decoded ({cause})"
            raise UnreadableMediaError(self.name, reason, DAMAGED)
        self._note_holds(held, notes)
        self._note_lost(lost, notes)
        broken = [f"{at - self.begin:.2f}" for at in screen.breaks if times[0] <= at < times[-1]]
        screen.breaks.clear()
        if broken and not lost:
            text = "a piece of the video after {} s cannot be decoded; no picture of it was looked at"
            notes.append(PlacedWarning(text, broken))
        return shown

    def _converted(self, shown: list[Any], notes: list[str]) -> torch.Tensor:
        converter = torchcodec_decoders().ColorConverter("cpu")
        frames = {id(frame): frame for frame in shown}
        images = {key: to_uint8_nchw(converter.convert(x).data[None])[0] for key, x in frames.items()}
        size = tuple(images[id(shown[0])].shape[1:])
        if any(tuple(image.shape[1:]) != size for image in images.values()):
            notes.append(f"the frame size changes inside the video; resized to {size[1]}x{size[0]}")
            images = {key: resized(image[None], size)[0] for key, image in images.items()}
        return torch.stack([images[id(frame)] for frame in shown])


class ArrayVideo:
    """Frames in memory. The last one is shown for `last` seconds."""

    codec = None

    def __init__(self, frames: torch.Tensor, timestamps: torch.Tensor, last: float):
        self.frames, self.timestamps = frames, timestamps
        self.num_frames, _, self.height, self.width = frames.shape
        self.begin, self.end = float(timestamps[0]), float(timestamps[-1]) + last
        self.fps = self.num_frames / (self.end - self.begin)

    @property
    def times(self) -> torch.Tensor:
        """The times of all frames in seconds."""
        return self.timestamps

    def read(self, instants: torch.Tensor, notes: list[str]) -> torch.Tensor:
        """Return the frames on screen at `instants` (seconds), uint8 of shape `(T, 3, H, W)`."""
        shown = torch.searchsorted(self.timestamps, instants + EPS, right=True) - 1
        return self.frames[shown.clamp(min=0)]


def to_uint8_nchw(data: torch.Tensor) -> torch.Tensor:
    """Return frames as bytes of shape (T, 3, H, W). In memory their colours stay interleaved, as decoded."""
    # a decoder opened by the caller may give another layout, or floats
    if data.shape[1] != 3 and data.shape[-1] == 3:
        data = data.permute(0, 3, 1, 2)
    if data.is_floating_point():
        data = (data * 255).round().clamp(0, 255).to(torch.uint8)
    return data.cpu()


def resized(frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return uint8 frames of shape (T, 3, H, W) in another height and width."""
    smooth = [F.interpolate(x[None].float(), size, mode="bilinear", antialias=True)[0] for x in frames]
    return torch.stack(smooth).round().clamp(0, 255).to(torch.uint8)

"""The windows of a recording that is still going on, made of frames and samples as they come in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ..media import SAMPLING_RATE, Clip
from ..media_errors import UnreadableMediaError
from ..media_sound import mono
from ..media_sources import finite
from ..media_tracks import EPS
from .growing_file import JOIN, Picture

if TYPE_CHECKING:  # not imported where windows are only read
    from ..processing_clips import VerdictProcessor

MAX_JUMP = 60.0
"""Seconds by which timestamps may jump before they count as damaged; our own choice."""
MAX_LAG = 10.0
"""Seconds that one track may lag behind the end of a window that the other has passed; our own choice."""


@dataclass(frozen=True)
class WindowShape:
    """
    What a processor takes.

    Args:
        max_seconds (`float`): Length of a window.
        fps (`float`): Frames a second.
        max_frames (`int`): Frames in a window.
        side (`int`, *optional*): Width and height of the frames; None to keep theirs, for a detector of faces.
    """

    max_seconds: float
    fps: float
    max_frames: int
    side: int | None

    @classmethod
    def of(cls, processor: VerdictProcessor) -> WindowShape:
        """Return the shape of the windows that a processor takes."""
        side = processor.image_size if processor.faces == "off" else None
        return cls(processor.max_seconds, processor.fps, processor.max_frames, side)


class StreamWindows:
    """
    Buffer between what is recorded and the windows made of it.

    Window `k` is `[k * hop_seconds, k * hop_seconds + shape.max_seconds)`. It is complete when both tracks have
    reached its end; a track that lags [`MAX_LAG`] seconds behind the other counts as ended there. Only the small frames
    and the sound of incomplete windows are kept. For a detector of faces the frames are kept as they are, to find and cut
    the faces: 30 frames at a hop of 1 s, 37 MB in 854 x 480.

    Args:
        shape ([`WindowShape`]): Length and sampling of a window, and the size of its frames.
        hop_seconds (`float`): Seconds from the start of one window to the start of the next.
        has_video, has_audio (`bool`): Tracks that a window waits for.
        warnings (`list[str]`): Gets a warning about samples that are not finite.
    """

    def __init__(
        self,
        shape: WindowShape,
        hop_seconds: float,
        has_video: bool,
        has_audio: bool,
        warnings: list[str],
    ):
        self.shape, self.hop_seconds = shape, hop_seconds
        self.has_video, self.has_audio = has_video, has_audio
        self.warnings = warnings
        self.frames: dict[int, list[torch.Tensor | None]] = {}  # None before the first picture
        self.sound, self._sound_first, self._sound_end = torch.zeros(1, 0), 0, None  # (channels, samples)
        self._next = 0
        self._picture: Picture | None = None
        self._size: tuple[int, int] | None = None
        self._video_end = 0.0

    @property
    def last_picture(self) -> float | None:
        """When the last picture appeared, in seconds; None before the first."""
        return None if self._picture is None else self._picture.start

    def add_picture(self, picture: Picture) -> None:
        """Take the next frame. The one before it was on screen until now."""
        before = self._picture
        if before is not None:
            if picture.start <= before.start:
                raise ValueError(
                    f"frame times must rise: {picture.start:.3f} s follows {before.start:.3f} s."
                )
            _check_jump(picture.start - before.start, picture.start)
            self._show(picture.start)
        self._picture = picture
        self._video_end = max(self._video_end, picture.start, picture.end)

    def _show(self, until: float, last: bool = False) -> None:
        """Give the picture on screen to every window that samples it before `until`."""
        fps, image = self.shape.fps, None
        for window in range(self._next, max(self._next, math.ceil(until / self.hop_seconds + EPS))):
            start = window * self.hop_seconds
            taken = self.frames.setdefault(window, [])
            while len(taken) < self.shape.max_frames:
                if last:  # as MediaReader counts the frames of a track that ends
                    shown = len(taken) < max(until - start > EPS, math.ceil((until - start) * fps - EPS))
                else:
                    shown = start + len(taken) / fps + EPS < until
                if not shown:
                    break
                if (
                    start + len(taken) / fps < self._picture.start - EPS
                ):  # sound that begins before the picture
                    taken.append(None)
                    continue
                if image is None:
                    image = self._resized(self._picture.load())
                taken.append(image)

    def _resized(self, frame: torch.Tensor) -> torch.Tensor:
        if self.shape.side is not None:
            size = (self.shape.side,) * 2
        else:  # all frames of a stream have the size of the first
            size = self._size = self._size or tuple(frame.shape[-2:])
        if frame.shape[-2:] == size:
            return frame.clone()  # a view would keep a whole chunk alive
        return F.interpolate(frame[None], size=size, mode="bilinear", antialias=True)[0]

    def add_sound(self, samples: torch.Tensor, start: float | None) -> None:
        """Take the next samples, of shape `(samples,)` or `(channels, samples)`. Gaps are filled with silence, and overlaps are cut."""
        samples = samples[None] if samples.ndim == 1 else samples
        if self._sound_end is None:
            self._sound_end = max(0, round((start or 0.0) * SAMPLING_RATE))
            self._sound_first = self._sound_end
        if start is not None:
            ahead = start - self._sound_end / SAMPLING_RATE
            first_cut = self.sound.shape[1] == 0 and ahead < 0
            if abs(ahead) > JOIN or first_cut:
                _check_jump(ahead, start)
                missing = round(ahead * SAMPLING_RATE)
                samples = samples[:, max(0, -missing) :]
                samples = F.pad(samples, (max(0, missing), 0))
        samples = finite(samples, self.warnings)
        # Sound before the next window is dropped.
        old = round(self._next * self.hop_seconds * SAMPLING_RATE) - self._sound_first
        old = min(max(0, old), self.sound.shape[1])
        kept = self.sound[:, old:]
        if kept.shape[0] != samples.shape[0] and kept.shape[1]:
            kept, samples = self._mono(kept)[None], self._mono(samples)[None]
        self.sound = torch.cat([kept, samples], 1) if kept.shape[1] else samples.clone()
        self._sound_first += old
        self._sound_end += samples.shape[1]

    def _mono(self, samples: torch.Tensor) -> torch.Tensor:
        """Return sound in mono, as [`MediaReader`] mixes it, and warn once."""
        notes: list[str] = []
        mixed = mono(samples, notes)
        self.warnings += [note for note in notes if note not in self.warnings]
        return mixed

    def complete(self) -> Iterator[Clip]:
        """Take out the windows whose end all tracks have reached."""
        while True:
            start = self._next * self.hop_seconds
            end = start + self.shape.max_seconds
            heard, furthest = self._heard(), max(self._heard(), self._video_end)
            frames = self.frames.get(self._next, ())
            seen = not self.has_video or len(frames) == self.shape.max_frames
            whole = seen and (not self.has_audio or heard > end - EPS)
            if furthest <= end - EPS or not (whole or furthest > end + MAX_LAG):
                return
            yield self._clip(start, end)

    def end(self) -> Iterator[Clip]:
        """Take out the windows that the end of the recording completes or cuts."""
        if self._picture is not None:
            self._show(self._video_end, last=True)
            self._picture = None
        return self._left()

    def _left(self) -> Iterator[Clip]:
        duration = max(self._heard(), self._video_end)
        while duration > EPS:
            start = self._next * self.hop_seconds
            end = min(start + self.shape.max_seconds, duration)
            if self._next and start - self.hop_seconds + self.shape.max_seconds >= duration - EPS:
                return
            yield self._clip(start, end)

    def _heard(self) -> float:
        return 0.0 if self._sound_end is None else self._sound_end / SAMPLING_RATE

    def _clip(self, start: float, end: float) -> Clip:
        """Take out the next window."""
        frames = self.frames.pop(self._next, [])
        self._next += 1
        places = [place for place, frame in enumerate(frames) if frame is not None]
        frames = [frames[place] for place in places]
        times = torch.tensor(places, dtype=torch.float64) / self.shape.fps
        audio = None
        begin = round(start * SAMPLING_RATE)
        length = 0
        if self._sound_end is not None:
            length = min(round((end - start) * SAMPLING_RATE), self._sound_end - begin)
        if length > 0:
            first = max(0, self._sound_first - begin)
            heard = self.sound[:, max(0, begin - self._sound_first) :][:, : max(0, length - first)]
            heard = self._mono(heard).clamp(-1, 1)
            audio = F.pad(heard, (length - len(heard), 0))
        return Clip(torch.stack(frames) if frames else None, times, audio, start, end, "the recording")


def _check_jump(seconds: float, at: float) -> None:
    if abs(seconds) > MAX_JUMP:
        reason = f"timestamps jump by {seconds:.1f} s to {at:.1f} s"
        raise UnreadableMediaError("the recording", reason, "Begin a new stream there")

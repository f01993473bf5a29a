"""The stretches of a clip that draws of a face are taken from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from transformers import ProcessorMixin

from ..face_crops import EPS, FaceTrack, crop_side, square_boxes
from ..media import Clip, MediaInfo, MediaReader

STARTS = 3
"""Moments at which a draw may begin, for each frame of the detector's rate; our own choice."""


@dataclass(frozen=True)
class FaceCut:
    """
    The stretches of a clip that draws of a face are taken from.

    Attributes:
        first (`float`): Earliest start, in seconds.
        starts (`int`): Number of starts, one every `step`.
        step (`float`): Seconds from one start to the next: a third of the time between two frames.
        length (`float`): Length of a stretch in seconds.
        side (`int`): Side of the crops, in pixels: the face's own, but no larger than the network takes.
    """

    first: float
    starts: int
    step: float
    length: float
    side: int

    @classmethod
    def of(
        cls,
        info: MediaInfo,
        track: FaceTrack,
        processor: ProcessorMixin,
        clip_seconds: float | None,
        most_seconds: float = math.inf,
    ) -> FaceCut:
        """
        Return the stretches of a file. They lie where the face is in the picture, as far as that is long enough.

        Args:
            info ([`MediaInfo`]): The file.
            track ([`FaceTrack`]): The face.
            processor (`ProcessorMixin`): Says the rate and size of frames, and the margin of crops.
            clip_seconds (`float`, *optional*): Length of a stretch; the whole file without it, or where it is shorter.
            most_seconds (`float`, *optional*): Seconds from the first start to the end of the last stretch, if that is more
                than one stretch.
        """
        squares = square_boxes(track.boxes, info.width, info.height, processor.face_margin)
        side = min(crop_side(squares), processor.face_side or crop_side(squares))
        step = 1 / processor.fps / STARTS
        if clip_seconds is None or info.duration <= clip_seconds:
            return cls(0.0, 1, step, info.duration, side)
        latest = info.duration - clip_seconds
        first = min(track.start, latest)
        last = min(max(min(track.end, first + most_seconds) - clip_seconds, first), latest)
        return cls(first, math.floor((last - first) / step + EPS) + 1, step, clip_seconds, side)

    @property
    def end(self) -> float:
        """End of the last stretch in seconds."""
        return self.first + (self.starts - 1) * self.step + self.length

    def draw(self, rng: np.random.Generator | None) -> int:
        """Return the number of a start; the first without `rng`."""
        return 0 if rng is None else int(rng.integers(self.starts))

    def read(self, reader: MediaReader, track: FaceTrack, processor: ProcessorMixin, place: int) -> Clip:
        """Return stretch number `place`, as the processor samples it."""
        start = self.first + place * self.step
        return reader.read(
            start=start,
            end=start + self.length,
            fps=processor.fps,
            max_frames=processor.max_frames,
            track=track,
            face_margin=processor.face_margin,
            face_side=self.side,
        )


def open_row(row: dict, processor: ProcessorMixin) -> MediaReader:
    """Return a reader of a row's clip, in the package's schema."""
    source = row["video"] if row["video"] is not None else row["audio"]
    separate = row["audio"] if row["video"] is not None else None
    trim = processor.trim_leading_silence
    return MediaReader(source, audio=separate, name=row["path"], trim_leading_silence=trim)

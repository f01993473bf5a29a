"""The part of a clip that is trained on, decoded as a processor samples it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
from transformers import ProcessorMixin

from ..face_crops import FaceTrack
from ..media import Clip, MediaReader
from ..media_errors import UnreadableMediaError
from .face_cuts import FaceCut, open_row

Part = TypeVar("Part")


def read_row(
    row: dict,
    processor: ProcessorMixin,
    clip_seconds: float | None,
    rng: np.random.Generator | None,
    track: FaceTrack | None = None,
) -> Clip:
    """
    Decode a row's clip, or a part of it, as a processor samples it: another part where the chosen one is damaged.

    Args:
        row (`dict`): In the package's schema.
        processor (`ProcessorMixin`): Says how frames are sampled, and whether leading silence is trimmed.
        clip_seconds (`float`, *optional*): Longer clips are cut to this length.
        rng (`numpy.random.Generator`, *optional*): Chooses where to cut; at the start if left out.
        track ([`FaceTrack`], *optional*): A face to crop, at one of the starts of [`FaceCut`].

    Raises:
        MediaError: when the clip cannot be read.
    """
    with open_row(row, processor) as reader:
        if track is not None:
            return read_face(
                reader, track, processor, FaceCut.of(reader.info, track, processor, clip_seconds), rng
            )
        parts: list[tuple[float, float | None]] = [(0.0, None)]
        if clip_seconds is not None and reader.info.duration > clip_seconds:
            start = 0.0 if rng is None else float(rng.uniform(0.0, reader.info.duration - clip_seconds))
            parts = [(start, start + clip_seconds), *reader.windows(clip_seconds)]
        options = {"fps": processor.fps, "max_frames": processor.max_frames}
        return first_readable(parts, lambda part: reader.read(*part, **options))


def read_face(
    reader: MediaReader,
    track: FaceTrack,
    processor: ProcessorMixin,
    cut: FaceCut,
    rng: np.random.Generator | None,
) -> Clip:
    """Decode a stretch of a clip, cut to a face: one that `rng` chooses, or another where that is damaged."""
    others = range(0, cut.starts, max(1, round(cut.length / cut.step)))
    return first_readable([cut.draw(rng), *others], lambda place: cut.read(reader, track, processor, place))


def first_readable(parts: Iterable[Part], read: Callable[[Part], Clip]) -> Clip:
    """Return the first part that can be decoded; raises the error of the first one if there is none."""
    first: UnreadableMediaError | None = None
    for part in parts:
        try:
            return read(part)
        except UnreadableMediaError as error:
            first = first or error
    raise first

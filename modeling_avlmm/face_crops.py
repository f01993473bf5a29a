"""A face over time, and the square crops that follow it.

[`FaceFinder`] and [`FaceTracker`] of `faces.py` find faces; this file holds their results and cuts pictures to them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

FACE_MARGIN = 1.3  # side of a crop by the longer side of the face's box
EPS = 1e-6  # seconds


@dataclass
class Face:
    """A face in one picture.

    Attributes:
        box (`np.ndarray`): float64, shape (4,): left, top, right, bottom in pixels, inside the picture.
        landmarks (`np.ndarray`): float64, shape (5, 2): x and y in pixels of right eye, left eye, nose, right and left
            corner of the mouth (right and left are the person's; a landmark may lie outside the picture).
        score (`float`): The finder's confidence, 0 to 1.
    """

    box: np.ndarray
    landmarks: np.ndarray
    score: float

    @property
    def size(self) -> float:
        """The longer side of the box in pixels."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))


@dataclass
class FaceTrack:
    """One face over time.

    Attributes:
        times (`np.ndarray`): float64, shape (N,), N >= 1: seconds on the file's clock at which the face was found, rising.
        boxes (`np.ndarray`): float64, shape (N, 4): left, top, right, bottom in pixels of the upright picture, smoothed.
        landmarks (`np.ndarray`): float64, shape (N, 5, 2): as of [`Face`], as found.
        scores (`np.ndarray`): float64, shape (N,): the finder's confidence.
        index (`int`): Number of the track in the file, from 0 in order of appearance.
        hold (`float`, *optional*, defaults to 0.0): Seconds for which the last box holds: the time to the next picture
            that was looked at, 0 if a cut came before it.
    """

    times: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    scores: np.ndarray
    index: int = 0
    hold: float = 0.0

    def __len__(self) -> int:
        return len(self.times)

    @property
    def start(self) -> float:
        """Seconds at which the face is first seen."""
        return float(self.times[0])

    @property
    def end(self) -> float:
        """Seconds at which the face is last seen."""
        return float(self.times[-1]) + self.hold

    @property
    def size(self) -> float:
        """Median of the boxes' longer sides in pixels."""
        return float(np.median((self.boxes[:, 2:] - self.boxes[:, :2]).max(1)))

    def covers(self, times: Any) -> np.ndarray:
        """Return for each of `times` (T,) in seconds whether the face is there: bool, shape (T,)."""
        times = np.asarray(times, dtype=np.float64)
        return (times >= self.start - EPS) & (times < max(self.end, self.start + EPS) - EPS) | np.isin(
            times, self.times
        )

    def box_at(self, times: Any) -> np.ndarray:
        """Return the box at `times` (T,) in seconds, interpolated; before and after the track its first and last: (T, 4)."""
        return _at(times, self.times, self.boxes)

    def landmarks_at(self, times: Any) -> np.ndarray:
        """Return the landmarks at `times` (T,) in seconds, as in [`box_at`]: (T, 5, 2)."""
        return _at(times, self.times, self.landmarks)


def _at(times: Any, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    times = np.asarray(times, dtype=np.float64).reshape(-1)
    columns = values.reshape(len(known), -1).T
    return np.stack([np.interp(times, known, column) for column in columns], 1).reshape(-1, *values.shape[1:])


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return intersection over union of boxes (N, 4) and (M, 4): shape (N, M)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


def square_boxes(boxes: np.ndarray, width: int, height: int, margin: float = FACE_MARGIN) -> np.ndarray:
    """
    Return the squares that crops are cut from.

    A square shares its centre with the box and has `margin` times its longer side, at most the picture's shorter side.
    It is moved inside the picture where it would leave it, so a crop holds nothing but picture: there is no padding.

    Args:
        boxes (`np.ndarray`): Shape (T, 4): left, top, right, bottom in pixels.
        width, height (`int`): Size of the picture in pixels.
        margin (`float`, *optional*, defaults to 1.3): Side of the square by the longer side of the box.

    Returns:
        `np.ndarray`: int64, shape (T, 4): left, top, right, bottom in whole pixels, with right - left = bottom - top >= 1.
    """
    if not margin > 0:
        raise ValueError(f"margin ({margin}) must be above 0")
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    sides = (boxes[:, 2:] - boxes[:, :2]).max(1) * margin
    sides = np.clip(np.rint(sides), 1, min(width, height)).astype(np.int64)
    corners = np.rint((boxes[:, :2] + boxes[:, 2:]) / 2 - sides[:, None] / 2).astype(np.int64)
    corners = np.clip(corners, 0, np.array([width, height]) - sides[:, None])
    return np.concatenate([corners, corners + sides[:, None]], 1)


def crop_side(squares: np.ndarray) -> int:
    """Return the median side of squares (T, 4) in whole pixels."""
    return int(np.median(squares[:, 2] - squares[:, 0]))


def crops(frames: Sequence[torch.Tensor], squares: np.ndarray, side: int | None = None) -> torch.Tensor:
    """
    Cut a square out of each frame and bring it to one size by one antialiased bilinear resampling.

    Args:
        frames (`torch.Tensor` or sequence of them): uint8, shape (T, 3, H, W).
        squares (`np.ndarray`): int, shape (T, 4), from [`square_boxes`].
        side (`int`, *optional*): Side of the crops in pixels. Defaults to the squares' median side.

    Returns:
        `torch.Tensor`: uint8, shape (T, 3, side, side).
    """
    if len(frames) != len(squares):
        raise ValueError(f"{len(frames)} frames and {len(squares)} squares")
    if not len(frames):
        return torch.zeros(0, 3, side or 1, side or 1, dtype=torch.uint8)
    side = side or crop_side(squares)
    out = torch.empty(len(frames), 3, side, side, dtype=torch.uint8)
    for place, frame, (left, top, right, bottom) in zip(
        out, frames, np.asarray(squares).tolist(), strict=True
    ):
        piece = frame[None, :, top:bottom, left:right]
        if bottom - top != side:
            piece = interpolate(piece, size=(side, side), mode="bilinear", antialias=True)
        place.copy_(piece[0])
    return out


def points_in_crop(points: np.ndarray, squares: np.ndarray, side: int) -> np.ndarray:
    """Map points (T, ..., 2) in pixels of the picture to pixels of the crops of `squares` (T, 4) with `side`."""
    shape = (-1,) + (1,) * (np.ndim(points) - 2)
    scale = (side / (squares[:, 2] - squares[:, 0])).reshape(*shape, 1)
    return (points - squares[:, :2].reshape(*shape, 2)) * scale


def left_out(track: FaceTrack, kept: np.ndarray, name: str = "face") -> list[str]:
    """Return the warning that frames are left out because the face is not there: none or one."""
    missing = int((~kept).sum())
    if not missing:
        return []
    if not kept.any():
        return [f"{name} {track.index} is not in this window: it has no frames"]
    return [
        f"{name} {track.index} is there in {int(kept.sum())} of {len(kept)} frames: the others are left out"
    ]


def crop_clip(clip: Any, track: FaceTrack, margin: float = FACE_MARGIN, side: int | None = None) -> Any:
    """
    Return a clip of one face: the frames in which it is there, cut to it.

    Args:
        clip ([`Clip`]): A window of whole frames.
        track ([`FaceTrack`]): A face of the same file.
        margin (`float`, *optional*, defaults to 1.3): As of [`square_boxes`].
        side (`int`, *optional*): Side of the crops in pixels. Defaults to the median side in this window.

    Returns:
        [`Clip`]: The crops with their timestamps; the sound, unchanged; and warnings that say how many frames are left
        out. `frames` and `timestamps` are `None` if the face is in none of them.
    """
    if clip.frames is None:
        return dataclasses.replace(clip)
    times = clip.timestamps.numpy() + clip.start
    kept = track.covers(times)
    warnings = [*clip.warnings, *left_out(track, kept)]
    if not kept.any():
        return dataclasses.replace(clip, frames=None, timestamps=None, warnings=warnings)
    height, width = clip.frames.shape[-2:]
    squares = square_boxes(track.box_at(times[kept]), width, height, margin)
    chosen = torch.from_numpy(kept)
    frames = crops([frame for frame, there in zip(clip.frames, kept, strict=True) if there], squares, side)
    return dataclasses.replace(clip, frames=frames, timestamps=clip.timestamps[chosen], warnings=warnings)

"""Find faces and follow them through a file: the way in to the modules `face_finder` and `face_crops`.

The tracker reads window by window and keeps the faces of one window, so an hour takes no more memory than a minute. All
thresholds are our own choice; `benchmarks/faces.py` measures what they do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from .face_crops import (
    EPS,
    FACE_MARGIN,
    Face,
    FaceTrack,
    crop_clip,
    crop_side,
    crops,
    points_in_crop,
    square_boxes,
)
from .face_finder import FaceFinder, FaceFinderError, opencv
from .media import MediaReader

__all__ = [
    "FACE_MARGIN",
    "Face",
    "FaceFinder",
    "FaceFinderError",
    "FaceTrack",
    "FaceTracker",
    "crop_clip",
    "crop_side",
    "crops",
    "find_tracks",
    "points_in_crop",
    "square_boxes",
]

START_SCORE = 0.8  # lowest confidence of a face that begins one
SURE_SCORE = 0.9  # a face of this confidence is a track at once
CONFIRM = 3  # faces that make a track where none is of SURE_SCORE
MIN_IOU = 0.2
GAP_SECONDS = 1.0  # longest time without the face within a track
SMOOTH_SECONDS = 0.6  # half width of the window that boxes are smoothed in
CUT_CORRELATION = 0.5  # two pictures that are less alike have a cut between them
THUMBNAIL = (32, 18)  # width and height of the pictures that cuts are looked for in
WINDOW_BYTES = 128 * 1024**2  # frames that find_tracks reads at once


@dataclass
class _Person:
    """A face that is followed: what was seen of it since shortly before the present window."""

    times: list[float]
    faces: list[Face]
    count: int
    sure: bool
    index: int | None = None
    ended: bool = False
    cut: bool = False

    def add(self, time: float, face: Face) -> None:
        self.times.append(time)
        self.faces.append(face)
        self.count += 1
        self.sure |= face.score >= SURE_SCORE

    def box_at(self, time: float) -> np.ndarray:
        """Return the box expected at `time`: the last one, moved on for at most a third of a second."""
        last = self.faces[-1].box
        if len(self.times) < 2 or self.times[-1] - self.times[-2] > GAP_SECONDS / 2:
            return last
        before = self.faces[-2].box
        speed = ((last - before)[:2] + (last - before)[2:]) / 2 / (self.times[-1] - self.times[-2])
        return last + np.tile(speed * min(time - self.times[-1], 1 / 3), 2)

    def forget(self, time: float) -> None:
        """Drop the observations before `time`, but for the last two."""
        first = min(int(np.searchsorted(self.times, time - EPS)), len(self.times) - 2)
        if first > 0:
            del self.times[:first], self.faces[:first]


class FaceTracker:
    """
    Follow faces through a file, window by window.

    - Faces are matched to tracks from frame to frame by the overlap of their boxes (Hungarian method, IoU at least 0.2).
    - A face begins a track at a confidence of 0.8 and goes on with one at 0.5. A track counts once it has a face of 0.9
      or three faces: what is seen once, and unsurely, is no face.
    - A track ends at a cut (two pictures in a row that are hardly alike, brightness and contrast aside) and after a
      second without the face; shorter gaps are bridged.
    - Boxes are smoothed within 0.6 s on either side, in what has been seen; landmarks are given as found.

    A tracker is for one file. Windows are given in the order of their starts; they may overlap, and what has been looked
    at once is not looked at again. The tracker remembers the faces of one window, whatever the length of the file.

    Args:
        finder ([`FaceFinder`], *optional*): Finds the faces; a new one by default.

    Example:

    ```python
    >>> tracker = FaceTracker()
    >>> for start, end in reader.windows(10.0):
    ...     clip = reader.read(start, end, fps=5, with_audio=False)
    ...     tracks = tracker.update(clip.frames, clip.timestamps + clip.start)
    ```
    """

    def __init__(self, finder: FaceFinder | None = None):
        self.finder = finder or FaceFinder()
        self.found = 0  # tracks of the file so far
        self._people: list[_Person] = []
        self._thumbnail: np.ndarray | None = None
        self._start = self._last = -math.inf
        self._step = 0.0

    def update(self, frames: torch.Tensor, times: Any) -> list[FaceTrack]:
        """
        Return the tracks of the next window.

        Args:
            frames (`torch.Tensor`): uint8, shape (T, 3, H, W), RGB: whole pictures, all of one size.
            times (`np.ndarray` or `torch.Tensor`): Shape (T,), seconds on the file's clock, rising.

        Returns:
            `list[FaceTrack]`: Each face seen in this window with its times in this window, in order of their index. A
            face seen earlier keeps its index. The first faces of a track that is not yet sure when a window ends are
            left out (at most two).
        """
        times = np.asarray(times, dtype=np.float64)
        if len(frames) != len(times):
            raise ValueError(f"{len(frames)} frames and {len(times)} times")
        if not len(times):
            return []
        if (np.diff(times) <= 0).any() or times[0] < self._start:
            raise ValueError("times must rise, and windows must be given in the order of their starts")
        self._start = float(times[0])
        new = times > self._last + EPS
        if len(times) > 1:
            self._step = float(np.median(np.diff(times)))
        for person in self._people:
            person.forget(self._start - SMOOTH_SECONDS)
        self._people = [
            person for person in self._people if not person.ended or person.times[-1] >= self._start
        ]
        frames, fresh = frames[torch.from_numpy(new)], times[new].tolist()
        for frame, time, faces in zip(frames, fresh, self.finder(frames), strict=True):
            self._look(frame, time, faces)
        self._last = max(self._last, float(times[-1]))
        size = frames.shape[-1], frames.shape[-2]
        seen = [self._track(person, times, not new.all(), size) for person in self._people]
        return sorted((track for track in seen if track is not None), key=lambda track: track.index)

    def _look(self, frame: torch.Tensor, time: float, faces: list[Face]) -> None:
        """Match the faces of the next frame to those followed so far."""
        thumbnail = _thumbnail(frame)
        cut = self._thumbnail is not None and _is_cut(self._thumbnail, thumbnail)
        self._thumbnail = thumbnail
        for person in self._people:
            if not person.ended and (cut or time - person.times[-1] > GAP_SECONDS + EPS):
                person.ended, person.cut = True, cut
        going = [person for person in self._people if not person.ended]
        taken = set()
        for row, column in _matches([p.box_at(time) for p in going], [face.box for face in faces]):
            going[row].add(time, faces[column])
            taken.add(column)
        for place, face in enumerate(faces):
            if place not in taken and face.score >= START_SCORE:
                going.append(_Person([time], [face], 1, face.score >= SURE_SCORE))
                self._people.append(going[-1])
        for person in going:
            if person.index is None and (person.sure or person.count >= CONFIRM):
                person.index = self.found
                self.found += 1

    def _track(
        self, person: _Person, window: np.ndarray, overlaps: bool, size: tuple[int, int]
    ) -> FaceTrack | None:
        """Return a person's track in the window of frames at the times `window`, if it is a track and was seen in it."""
        times = np.array(person.times)
        # a window that overlaps the one before may begin between two frames that were looked at
        first = window[0] - (self._step if overlaps else 0.0)
        here = (times >= first - EPS) & (times <= window[-1] + EPS)
        if person.index is None or not here.any():
            return None
        boxes = smoothed(times, np.stack([face.box for face in person.faces]), times[here])
        boxes = np.clip(boxes, 0, np.tile(size, 2))
        faces = [face for face, inside in zip(person.faces, here, strict=True) if inside]
        landmarks = np.stack([face.landmarks for face in faces])
        scores = np.array([face.score for face in faces])
        hold = 0.0 if person.cut and here[-1] else self._step
        return FaceTrack(times[here], boxes, landmarks, scores, person.index, hold)


def smoothed(times: np.ndarray, boxes: np.ndarray, at: np.ndarray) -> np.ndarray:
    """
    Return boxes (N, 4) seen at `times` (N,) smoothed at the moments `at` (M,): (M, 4).

    Centres and logarithms of sizes are fitted by a line around each moment, with tricube weights within 0.6 s (Cleveland,
    JASA 1979): a steady movement is followed without lag, also at the end of what has been seen.
    """
    sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    values = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, np.log(sizes)], 1)
    out = np.empty((len(at), 4))
    for place, moment in enumerate(at):
        offset = times - moment
        weights = np.clip(1 - np.abs(offset / SMOOTH_SECONDS) ** 3, 0, None) ** 3
        total = weights.sum()
        mean = (weights * offset).sum() / total
        centred = offset - mean
        spread = (weights * centred**2).sum()
        level = weights @ values / total
        slope = (weights * centred) @ values / spread if spread > 1e-9 else 0.0
        out[place] = level - slope * mean
    half = np.exp(out[:, 2:]) / 2
    return np.concatenate([out[:, :2] - half, out[:, :2] + half], 1)


def _thumbnail(frame: torch.Tensor) -> np.ndarray:
    """Return the picture in grey, very small and free of brightness and contrast: shape (18 * 32,)."""
    cv2 = opencv()
    picture = frame.permute(1, 2, 0).contiguous().numpy()
    small = (
        cv2.resize(picture, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float64).mean(2).reshape(-1)
    )
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-9)


def _is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    return float(before @ after) < CUT_CORRELATION


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return intersection over union of boxes (N, 4) and (M, 4): shape (N, M)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


def _matches(first: list[np.ndarray], second: list[np.ndarray]) -> list[tuple[int, int]]:
    if not first or not second:
        return []
    overlap = iou(np.stack(first), np.stack(second))
    rows, columns = linear_sum_assignment(np.where(overlap >= MIN_IOU, overlap, 0.0), maximize=True)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if overlap[r, c] >= MIN_IOU]


def find_tracks(
    reader: MediaReader,
    start: float = 0.0,
    end: float | None = None,
    fps: float = 5.0,
    finder: FaceFinder | None = None,
    warnings: list[str] | None = None,
) -> list[FaceTrack]:
    """
    Return the face tracks of a file, or of its part [start, end), in order of appearance.

    The file is read window by window. A track takes about 0.1 kB for each time the face was found: 2 MB for an hour at 5
    frames a second.

    Args:
        reader ([`MediaReader`]): An open reader.
        start, end (`float`, *optional*): Part of the file in seconds. All of it by default.
        fps (`float`, *optional*, defaults to 5.0): Frames a second to look at.
        finder ([`FaceFinder`], *optional*): Finds the faces; a new one by default.
        warnings (`list[str]`, *optional*): Takes the warnings of reading.

    Raises:
        MediaError: If the file cannot be decoded.
        FaceFinderError: If the face finder is not installed.
    """
    info = reader.info
    end = info.duration if end is None else min(end, info.duration)
    if not info.has_video:
        return []
    tracker = FaceTracker(finder)
    count = max(1, WINDOW_BYTES // max(1, 3 * (info.width or 1) * (info.height or 1)))
    pieces: dict[int, list[FaceTrack]] = {}
    at, place = start, 0
    while at < end - EPS:
        place += count
        stop = min(end, start + place / fps)
        clip = reader.read(at, stop, fps, with_audio=False)
        if warnings is not None:
            warnings += clip.warnings
        if clip.frames is None:
            break
        for track in tracker.update(clip.frames, clip.timestamps.numpy() + at):
            pieces.setdefault(track.index, []).append(track)
        at = stop
    return [_joined(pieces[index]) for index in sorted(pieces)]


def _joined(pieces: list[FaceTrack]) -> FaceTrack:
    parts = [
        np.concatenate([getattr(p, name) for p in pieces])
        for name in ("times", "boxes", "landmarks", "scores")
    ]
    return FaceTrack(*parts, index=pieces[0].index, hold=pieces[-1].hold)

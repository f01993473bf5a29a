"""Find faces and follow them through a file: the way in to the modules `face_finder` and `face_crops`.

The tracker reads window by window and keeps the faces of one window, so an hour takes no more memory than a minute. All
thresholds are our own choice; `benchmarks/faces.py` measures what they do.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
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
    iou,
    points_in_crop,
    square_boxes,
)
from .face_finder import (
    SURE_ENOUGH,
    FaceFinder,
    FaceFinderError,
    as_picture,
    halved,
    opencv,
    single_thread,
)
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
    "joined_tracks",
    "points_in_crop",
    "square_boxes",
]

SURE_SCORE = 0.9  # a face of this confidence is a track at once
CONFIRM = 3  # faces that make a track where none is of SURE_SCORE
MIN_IOU = 0.2  # overlap of a face with where it was, or was heading;
REACH = 1.5  # or, where it looks the same: distance of the centres by its size
LIKE_SIZES = 1.5  # and ratio of the sizes
GAP_SECONDS = 1.0  # longest time without the face within a track
SMOOTH_SECONDS = 0.6  # half width of the window that boxes are smoothed in
CUT_CHANGE = 0.4  # 1 - correlation of two pictures in a row; a cut changes more,
CUT_FACTOR = 2.0  # and this many times more than the median of
CUT_MEMORY = 5  # changes before it
SAME_FACE = 0.7  # a face whose pixels correlate more goes on across what looks like a cut
THUMBNAIL = (32, 18)  # width and height at which pictures are compared
EVEN_LEVELS = 1.0  # standard deviation of the levels (0 to 255) of an even picture
PATCH = (16, 16)  # width and height at which faces are compared
WINDOW_BYTES = 128 * 1024**2  # frames that find_tracks reads at once


@dataclass
class _Person:
    """A face that is followed: what was seen of it since shortly before the present window."""

    times: list[float] = field(default_factory=list)
    faces: list[Face] = field(default_factory=list)
    patch: np.ndarray | None = None  # the face when it was last seen
    count: int = 0
    sure: bool = False
    index: int | None = None
    ended: bool = False
    cut: bool = False

    def add(self, time: float, face: Face, patch: np.ndarray) -> None:
        self.times.append(time)
        self.faces.append(face)
        self.patch = patch
        self.count += 1
        self.sure |= face.score >= SURE_SCORE

    def boxes_at(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the box expected at `time`, moved on for at most a third of a second, and the last one."""
        last = self.faces[-1].box
        if len(self.times) < 2 or self.times[-1] - self.times[-2] > GAP_SECONDS / 2:
            return last, last
        before = self.faces[-2].box
        speed = ((last - before)[:2] + (last - before)[2:]) / 2 / (self.times[-1] - self.times[-2])
        return last + np.tile(speed * min(time - self.times[-1], 1 / 3), 2), last

    def forget(self, time: float) -> None:
        """Drop the observations before `time`, but for the last two."""
        first = min(int(np.searchsorted(self.times, time - EPS)), len(self.times) - 2)
        if first > 0:
            del self.times[:first], self.faces[:first]


class FaceTracker:
    """
    Follow faces through a file, window by window.

    - Faces are matched to tracks from frame to frame by the overlap of their boxes (Hungarian method, IoU at least 0.2).
      A face that moves faster is followed for one and a half times its size if it looks the same.
    - A face begins a track at a confidence of 0.8 and goes on with one at 0.5. A track counts once it has a face of 0.9
      or three faces: what is seen once, and unsurely, is no face.
    - A track ends at a cut and after a second without the face; shorter gaps are bridged. A cut is a change of the
      picture, brightness and contrast aside, that is large by itself and beside the changes before it. A face goes on
      across it if it keeps its place and its looks: so a swaying camera ends no track.
    - Boxes are smoothed within 0.6 s on either side, in what has been seen; landmarks are given as found.

    A tracker is for one file. Windows are given in the order of their starts; they may overlap, and what has been looked
    at once is not looked at again. The tracker remembers the faces of one window, whatever the length of the file.

    Args:
        finder ([`FaceFinder`], *optional*): Finds the faces; a new one by default.
        fps (`float`, *optional*, defaults to 5.0): Most frames a second to look at. Where more are given, those between
            are skipped; the first frame of a window is not.

    Example:

    ```python
    >>> tracker = FaceTracker()
    >>> for start, end in reader.windows(10.0):
    ...     clip = reader.read(start, end, fps=5, with_audio=False)
    ...     tracks = tracker.update(clip.frames, clip.timestamps + clip.start)
    ```
    """

    def __init__(self, finder: FaceFinder | None = None, fps: float = 5.0):
        if not fps > 0:
            raise ValueError(f"fps ({fps}) must be above 0")
        self.finder, self.fps = finder or FaceFinder(), fps
        self.found = 0  # tracks of the file so far
        self._people: list[_Person] = []
        self._thumbnail: np.ndarray | None = None
        self._changes: deque[float] = deque(maxlen=CUT_MEMORY)
        self._start = self._last = -math.inf
        self._step = self._reach = 0.0

    def update(self, frames: torch.Tensor, times: Any) -> list[FaceTrack]:
        """
        Return the tracks of the next window.

        Args:
            frames (`torch.Tensor`): uint8, shape (T, 3, H, W), RGB: whole pictures, all of one size.
            times (`np.ndarray` or `torch.Tensor`): Shape (T,), seconds on the file's clock, rising.

        Returns:
            `list[FaceTrack]`: Each face seen in this window, in order of their index, with the times at which it was
            found in this window (where windows overlap, also the last time before it). A face seen earlier keeps its
            index. The first faces of a track that is not yet sure when a window ends are
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
        self._reach = self._step - EPS if self._start <= self._last + EPS else EPS
        for person in self._people:
            person.forget(self._start - SMOOTH_SECONDS)
        self._people = [p for p in self._people if not p.ended or p.times[-1] >= self._start - self._step]
        chosen = self._chosen(times)
        looked_at = frames if len(chosen) == len(frames) else frames[chosen]  # a copy takes as long as a look
        found = self.finder(looked_at, times[chosen])
        with single_thread(opencv()):
            for frame, place, faces in zip(looked_at, chosen, found, strict=True):
                self._look(frame, float(times[place]), faces)
        size = frames.shape[-1], frames.shape[-2]
        seen = [self._track(person, times, size) for person in self._people]
        return sorted((track for track in seen if track is not None), key=lambda track: track.index)

    def _chosen(self, times: np.ndarray) -> list[int]:
        """Return the places of the frames to look at: the first new one, then those nearest to the stated rate."""
        spacing = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        chosen, steps, due = [], [], -math.inf
        for place, time in enumerate(times.tolist()):
            if time > self._last + EPS and time >= due - spacing / 2 - EPS:
                steps.append(time - self._last)
                self._last, due = time, time + 1 / self.fps
                chosen.append(place)
        steps = [step for step in steps if math.isfinite(step)]
        self._step = float(np.median(steps)) if steps else self._step
        return chosen

    def _look(self, frame: torch.Tensor, time: float, faces: list[Face]) -> None:
        """Match the faces of the next frame to those followed so far."""
        picture = as_picture(opencv(), frame)
        cut = self._is_cut(_looks(picture, THUMBNAIL))
        patches = [_looks(picture, PATCH, face.box) for face in faces]
        for person in self._people:
            person.ended |= time - person.times[-1] > GAP_SECONDS + EPS
        going = [person for person in self._people if not person.ended]
        taken = set()
        for row, column in _matches(going, faces, patches, time):
            if not cut or _likeness(going[row].patch, patches[column]) > SAME_FACE:
                going[row].add(time, faces[column], patches[column])
                taken.add(column)
        for person in going if cut else []:
            person.ended = person.cut = person.times[-1] < time
        for place in sorted(range(len(faces)), key=lambda place: faces[place].box[0]):  # from left to right
            if place not in taken and faces[place].score >= SURE_ENOUGH:
                self._people.append(_Person())
                self._people[-1].add(time, faces[place], patches[place])
        for person in self._people:
            if person.index is None and not person.ended and (person.sure or person.count >= CONFIRM):
                person.index = self.found
                self.found += 1

    def _is_cut(self, thumbnail: np.ndarray) -> bool:
        """Compare the next picture with the one before."""
        before, self._thumbnail = self._thumbnail, thumbnail
        if before is None:
            return False
        change = 1 - _likeness(before, thumbnail)
        usual = float(np.median(self._changes)) if self._changes else 0.0
        self._changes.append(change)
        return change > CUT_CHANGE and change > CUT_FACTOR * usual

    def _track(self, person: _Person, window: np.ndarray, size: tuple[int, int]) -> FaceTrack | None:
        """Return a person's track in the window of frames at the times `window`, if it is a track and was seen in it."""
        times = np.array(person.times)
        # a window that overlaps the one before may begin between two pictures that were looked at
        here = (times > window[0] - self._reach) & (times <= window[-1] + EPS)
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


def _looks(picture: np.ndarray, size: tuple[int, int], box: np.ndarray | None = None) -> np.ndarray:
    """Return a picture (H, W, 3), or the part in a box, very small and free of brightness and contrast.

    Its norm is 1; that of an even picture, such as a black one, is 0.
    """
    if box is not None:
        left, top = np.floor(box[:2]).astype(int)
        right, bottom = np.ceil(box[2:]).astype(int)
        picture = picture[top:bottom, left:right]
    picture = halved(opencv(), picture, 2 * max(size))
    small = opencv().resize(picture, size, interpolation=3).astype(np.float64).reshape(-1)  # 3: INTER_AREA
    small -= small.mean()
    norm = float(np.linalg.norm(small))
    return small / norm if norm > EVEN_LEVELS * math.sqrt(small.size) else np.zeros_like(small)


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two results of [`_looks`]; that of two even pictures is 1."""
    return float(one @ other) if one.any() or other.any() else 1.0


def _matches(
    people: list[_Person], faces: list[Face], patches: list[np.ndarray], time: float
) -> list[tuple[int, int]]:
    """Return the pairs of a person and a face, as places, that fit best in sum."""
    if not people or not faces:
        return []
    found = np.stack([face.box for face in faces])
    # a head that turns back is where it was rather than where it was heading
    expected, last = (np.stack(boxes) for boxes in zip(*(p.boxes_at(time) for p in people), strict=True))
    overlap = np.maximum(iou(expected, found), iou(last, found))
    likeness = np.array([[_likeness(person.patch, patch) for patch in patches] for person in people])
    near = np.minimum(_distance(expected, found), _distance(last, found)) < REACH
    near &= likeness > SAME_FACE
    fit = np.where(near, overlap + MIN_IOU * likeness, np.where(overlap >= MIN_IOU, overlap, 0.0))
    rows, columns = linear_sum_assignment(fit, maximize=True)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if fit[r, c] > 0]


def _distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the distance of the centres of boxes (N, 4) and (M, 4) by their size, infinite for unlike sizes: (N, M)."""
    centres = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (first, second)]
    sizes = [(boxes[:, 2:] - boxes[:, :2]).max(1) for boxes in (first, second)]
    ratio = sizes[0][:, None] / sizes[1][None]
    apart = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=2)
    mean = (sizes[0][:, None] + sizes[1][None]) / 2
    return np.where(np.maximum(ratio, 1 / ratio) < LIKE_SIZES, apart / mean, np.inf)


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

    The file is read window by window, and a window that is too damaged to decode is left out. A track takes about 0.1 kB for each time the face was found: 2 MB for an hour at 5
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
    tracker = FaceTracker(finder, fps)
    count = max(1, WINDOW_BYTES // max(1, 3 * (info.width or 1) * (info.height or 1)))
    pieces: list[FaceTrack] = []
    at, place = start, 0
    while at < end - EPS:
        place += count
        stop = min(end, start + place / fps)
        clip = reader.read_passage(at, stop, fps=fps, with_audio=False)
        if warnings is not None:
            warnings += clip.warnings
        if clip.frames is None:  # damaged, or the picture has ended
            at = stop
            continue
        pieces += tracker.update(clip.frames, clip.timestamps.numpy() + at)
        at = stop
    return joined_tracks(pieces)


def joined_tracks(pieces: Iterable[FaceTrack]) -> list[FaceTrack]:
    """Return the tracks of windows that follow each other, those of one index as one, in order of their index."""
    by_index: dict[int, list[FaceTrack]] = {}
    for piece in pieces:
        by_index.setdefault(piece.index, []).append(piece)
    return [_joined(by_index[index]) for index in sorted(by_index)]


def _joined(pieces: list[FaceTrack]) -> FaceTrack:
    parts = [
        np.concatenate([getattr(p, name) for p in pieces])
        for name in ("times", "boxes", "landmarks", "scores")
    ]
    return FaceTrack(*parts, index=pieces[0].index, hold=pieces[-1].hold)

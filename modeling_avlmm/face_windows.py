"""The faces of one file, window by window: found once, followed from window to window, and chosen for scoring."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from .face_crops import FaceTrack
from .faces import FaceFinder, FaceTracker
from .media import Clip
from .media_errors import PlacedWarning
from .media_tracks import EPS

NO_FACE = "no face was found in the picture: it was not scored"
NO_FACE_AT = "no face was found in the picture at {} s: it was not scored there"
MOST_BOXES = 300
"""Boxes of a face in a result."""


@dataclass
class WindowFace:
    """
    A face in a window.

    Attributes:
        track ([`FaceTrack`]): The face, at least at the times of the window.
        start, end (`float`): Part of the window in which it is there, in seconds on the file's clock.
        size (`float`): Median of the boxes' longer sides in this window, in pixels.
    """

    track: FaceTrack
    start: float
    end: float
    size: float

    @property
    def index(self) -> int:
        """Number of the face in the file."""
        return self.track.index


@dataclass
class SeenFace:
    """The boxes of a face so far, evenly thinned: at most twice as many as a result holds."""

    index: int
    start: float
    end: float
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    _count: int = 0
    _stride: int = 1

    def add(self, times: np.ndarray, boxes: np.ndarray, width: int, height: int) -> None:
        """Take boxes (N, 4) in pixels seen at `times` (N,)."""
        sizes = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
        fractions = boxes / np.array([width, height, width, height])
        for time, box, size in zip(times.tolist(), fractions.tolist(), sizes.tolist(), strict=True):
            if self._count % self._stride == 0:
                self.boxes.append((time, *box))
                self.sizes.append(size)
            self._count += 1
            if len(self.boxes) == 2 * MOST_BOXES:
                self.boxes, self.sizes, self._stride = self.boxes[::2], self.sizes[::2], 2 * self._stride

    def entry(self) -> dict:
        """Return the face as it stands in a result, without scores."""
        places = np.arange(len(self.boxes))
        if len(places) > MOST_BOXES:
            places = np.linspace(0, len(places) - 1, MOST_BOXES).round().astype(int)
        boxes = [self.boxes[place] for place in places]
        return {
            "index": self.index,
            "start": self.start,
            "end": self.end,
            "size": float(np.median(self.sizes)),
            "boxes": [{"time": round(t, 3), "box": [round(side, 4) for side in box]} for t, *box in boxes],
        }


@dataclass
class FoundFaces:
    """The faces of a file that were found so far, by their index."""

    faces: dict[int, SeenFace] = field(default_factory=dict)

    def entries(self) -> list[dict]:
        """
        Return the faces in order of appearance, as they stand in a result, without scores.

        Returns:
            `list[dict]`: `index`, `start` and `end` in seconds, `size` (median of the boxes' longer sides in pixels) and
            `boxes`: at most 300 of `{"time": seconds, "box": [left, top, right, bottom]}`, as fractions of the picture's
            width and height.
        """
        return [seen.entry() for _, seen in sorted(self.faces.items()) if seen.boxes]

    def forget(self, before: float) -> None:
        """Drop the faces that were gone `before` that many seconds: of a stream, nobody asks for their boxes."""
        self.faces = {index: seen for index, seen in self.faces.items() if seen.end >= before}


class FaceWindows:
    """
    Find the faces of one file in its windows, and choose those to score.

    Windows come in the order of their starts. Each picture is looked at once, also where windows overlap, at most 5
    pictures a second; between them boxes are interpolated. Beside the boxes for the result (`found`), the faces of one
    window are kept.

    Args:
        faces (`str`): `"all"` to choose every face of a window, `"largest"` for its largest.
        min_size (`float`): Longer side of the smallest face that is chosen, in pixels: the median over a window.
        finder ([`FaceFinder`], *optional*): Finds the faces; a new one by default.
        tracks (`list[FaceTrack]`, *optional*): The faces of the file, where they are known: none is looked for.
    """

    def __init__(
        self,
        faces: str,
        min_size: float,
        finder: FaceFinder | None = None,
        tracks: list[FaceTrack] | None = None,
    ):
        self.faces, self.min_size = faces, min_size
        self._known = tracks
        self._tracker = FaceTracker(finder) if tracks is None else None
        self.found = FoundFaces()

    def choose(self, clip: Clip) -> tuple[list[WindowFace], list[str]]:
        """
        Return the faces to score in the next window, and what to tell about the others.

        Args:
            clip ([`Clip`]): The window, with whole frames.

        Returns:
            `tuple[list[WindowFace], list[str]]`: The faces in order of their index, and warnings.
        """
        if clip.frames is None:
            return [], []
        times = clip.timestamps.numpy() + clip.start
        tracks = self._known if self._tracker is None else self._tracker.update(clip.frames, times)
        present = [face for track in tracks if (face := _in_window(track, clip, times))]
        self._record([face.track for face in present], clip)
        chosen = [face for face in present if face.size >= self.min_size]
        span = f"{clip.start:.2f}-{clip.end:.2f}"
        if not present:
            return [], [PlacedWarning(NO_FACE_AT, [span])]
        if not chosen:
            text = (
                f"no face is as large as {self.min_size:g} pixels at {{}} s: the picture was not scored there"
            )
            return [], [PlacedWarning(text, [span])]
        if self.faces == "largest":
            chosen = [max(chosen, key=lambda face: face.size)]
        return chosen, []

    def _record(self, tracks: Iterable[FaceTrack], clip: Clip) -> None:
        """Keep the new boxes of tracks in a window for the result."""
        height, width = clip.frames.shape[-2:]
        for track in tracks:
            # The last box holds until the next picture would have been looked at, which may be after the file's end.
            end = min(track.end, clip.end)
            seen = self.found.faces.get(track.index)
            if seen is None:
                seen = self.found.faces[track.index] = SeenFace(track.index, max(0.0, track.start), end)
            seen.end = max(seen.end, end)
            since = seen.boxes[-1][0] if seen.boxes else -math.inf
            new = (track.times > since + EPS) & (track.times >= clip.start) & (track.times < clip.end)
            seen.add(track.times[new], track.boxes[new], width, height)


def _in_window(track: FaceTrack, clip: Clip, times: np.ndarray) -> WindowFace | None:
    """Return the face in a window whose frames are on screen at `times`; None where it is in none of them."""
    there = np.flatnonzero(track.covers(times))
    if not len(there):
        return None
    boxes = track.box_at(times[there])
    size = float(np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1)))
    if len(there) == len(times):
        return WindowFace(track, clip.start, clip.end, size)
    first, last = there[0], there[-1]
    start = clip.start if first == 0 else float(times[first])
    end = clip.end if last == len(times) - 1 else float(times[last + 1])
    return WindowFace(track, start, end, size)

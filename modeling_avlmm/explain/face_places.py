"""The main face of a clip, by whose landmarks regions are placed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from ..faces import FaceFinder, FaceTrack, FaceTracker, joined_tracks
from ..media import Clip


class MainFace:
    """
    Find the main face of a clip, window by window: the one that is largest, times the seconds for which it is seen.

    Args:
        finder ([`FaceFinder`], *optional*): Finds the faces; a new one by default.
    """

    def __init__(self, finder: FaceFinder | None = None):
        self._tracker = FaceTracker(finder)
        self._pieces: list[FaceTrack] = []
        self._size = (1, 1)

    def look(self, frames: torch.Tensor, times: np.ndarray) -> None:
        """Look at the next frames `(T, 3, H, W)`, shown at `times` `(T,)` in seconds."""
        self._size = frames.shape[-1], frames.shape[-2]
        self._pieces += self._tracker.update(frames, times)

    def landmarks_at(self, times: np.ndarray) -> np.ndarray | None:
        """Return the landmarks `(T, 5, 2)` at `times`, as fractions of the frame; None if there was no face.

        Before and after the face is seen, they are where they were first and last.
        """
        tracks = joined_tracks(self._pieces)
        if not tracks:
            return None
        return main_track(tracks).landmarks_at(times) / self._size


def main_track(tracks: Iterable[FaceTrack]) -> FaceTrack:
    """Return the track of the main face: of the largest product of size and seconds."""
    return max(tracks, key=lambda track: track.size * max(track.end - track.start, 1e-3))


def landmarks_of(clip: Clip, finder: FaceFinder | None = None) -> np.ndarray | None:
    """Return the landmarks `(T, 5, 2)` of the main face in each frame of a clip, as in [`MainFace.landmarks_at`]."""
    if clip.frames is None:
        return None
    face, times = MainFace(finder), clip.timestamps.numpy()
    face.look(clip.frames, times)
    return face.landmarks_at(times)

"""The windows of a file that may still be growing, decoded once from front to back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..media import OFFSET_WARNING, Clip
from ..media_sources import faults_of
from .growing_file import GrowingFile, GrowingTracks, Picture
from .stream_windows import MAX_JUMP, StreamWindows, WindowShape


class FileWindows:
    """
    The windows of a file, in groups that become complete together.

    Args:
        source (path or binary file object): As for [`GrowingFile`].
        name (`str`): Name of the file in messages.
        shape ([`WindowShape`]): Length and sampling of a window.
        hop_seconds (`float`): Seconds from the start of one window to the start of the next.
        patience, poll (`float`): As for [`GrowingFile`].
        waiting (`Callable`, *optional*): Called from time to time while there is nothing to read.

    Raises:
        MediaError: If the file cannot be read.
    """

    def __init__(
        self,
        source: Any,
        name: str,
        shape: WindowShape,
        hop_seconds: float,
        patience: float,
        poll: float,
        waiting: Callable[[], None] | None = None,
    ):
        self.name, self.shape = name, shape
        self._file = GrowingFile(source, patience, poll, waiting)
        try:
            with faults_of(name):
                self._tracks = GrowingTracks(self._file, name)
        except BaseException:
            self.close()
            raise
        self.has_video, self.has_audio = self._tracks.has_video, self._tracks.has_audio
        self.warnings: list[str] = list(self._tracks.warnings)
        self._windows = StreamWindows(shape, hop_seconds, self.has_video, self.has_audio, self.warnings)

    def close(self) -> None:
        """Close a file that was opened here."""
        self._file.close()

    def __iter__(self) -> Iterator[list[Clip]]:
        """Yield windows in groups that are never empty. `warnings` grows meanwhile."""
        with faults_of(self.name):
            yield from self._groups()

    def _groups(self) -> Iterator[list[Clip]]:
        windows, tracks = self._windows, self._tracks
        zero, early, late = None, [], 0
        for part in tracks:
            if zero is None:
                # Times count as in MediaReader: from the first picture, or from sound that begins well before it.
                early.append(part)
                sound = self.has_video and not isinstance(part, Picture)
                if sound and part.start - early[0].start <= self.shape.max_seconds + MAX_JUMP:
                    continue
                zero = part.start if part.start - early[0].start <= OFFSET_WARNING else early[0].start
            for piece in early or [part]:
                if not isinstance(piece, Picture):
                    windows.add_sound(piece.samples, piece.start - zero)
                # Recordings that were joined without decoding overlap by a few frames.
                elif windows.last_picture is not None and piece.start - zero <= windows.last_picture:
                    late += 1
                else:
                    windows.add_picture(Picture(piece.start - zero, piece.end - zero, piece.load))
            early = []
            if clips := list(windows.complete()):
                yield clips
        self.warnings += tracks.oddities()
        if late:
            self.warnings.append(f"{late} frames come after later ones and were left out")
        if early:
            windows.has_video = False
            self.warnings.append("the video track has no frame that can be decoded")
            for piece in early:
                windows.add_sound(piece.samples, piece.start - early[0].start)
        if clips := list(windows.end()):
            yield clips

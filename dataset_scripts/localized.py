"""Shared by LAV-DF and AV-Deepfake1M, of the same authors: downloads by split, and replaced stretches of a clip."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .builder import CorpusConfig
from .corpus import scan_folders
from .errors import MetadataError, MissingFilesError, nearest


@dataclass
class PartsConfig(CorpusConfig):
    """Settings of a corpus with one folder per split.

    Attributes:
        parts (`list[str]`, *optional*):
            Load only these folders (`["val"]`), if others were not downloaded.
    """

    PARTS: ClassVar[dict[str, str]] = {}  # folder -> split

    parts: list[str] | None = None

    def wanted_parts(self) -> list[str]:
        """Return the folders to load, in the corpus' own order.

        Raises:
            `ValueError`: `parts` has an unknown name, or is not a list.
        """
        known = list(self.PARTS)
        if self.parts is None:
            return known
        if not self.parts or isinstance(self.parts, str):
            raise ValueError(f"{self.CORPUS}: `parts` is a list of {', '.join(known)}, got {self.parts!r}.")
        for part in self.parts:
            if part not in known:
                raise ValueError(
                    f"{self.CORPUS}: no part {part!r}; there are {', '.join(known)}.{nearest(str(part), known)}"
                )
        return [part for part in known if part in self.parts]

    def media_in(self, root: str) -> tuple[list[str], int]:
        """See [`CorpusConfig.media_in`]."""
        return scan_folders(root, self.wanted_parts(), (".mp4",))


def require_folders(root: str, parts: Sequence[str], corpus: str) -> None:
    """Check that each part has a folder.

    Raises:
        [`MissingFilesError`]: a whole part was not downloaded; the message says how to go on without it.
    """
    there = [part for part in parts if os.path.isdir(os.path.join(root, part))]
    if len(there) < len(parts):
        absent = [part for part in parts if part not in there]
        instead = f", or load what is there with parts={there}" if there else ""
        raise MissingFilesError(
            f"{corpus}: {root} has metadata for {', '.join(parts)} but no folder {' and no folder '.join(absent)}. "
            f"Complete the download{instead}."
        )


def read_segments(value: Any, where: str) -> tuple[list[list[float]], bool]:
    """Read the replaced stretches of a clip.

    A stretch that begins before the clip is cut at 0, as in the authors' code; an empty one is dropped.

    Args:
        value (`Any`):
            `[[start, end], ...]` in seconds; None is no stretch.
        where (`str`):
            Row and field, for the error message.

    Returns:
        `tuple[list[list[float]], bool]`: the stretches, and whether any was cut or dropped.

    Raises:
        [`MetadataError`]: the value is not a list of pairs of numbers.
    """
    try:
        pairs = [[float(start), float(end)] for start, end in ([] if value is None else value)]
    except (TypeError, ValueError) as error:
        raise MetadataError(
            f"{where}: expected [[start, end], ...] in seconds, got {str(value)[:80]}."
        ) from error
    segments = [[max(start, 0.0), end] for start, end in pairs if max(start, 0.0) < end]
    return segments, segments != pairs


def segment_note(paths: list[str]) -> str:
    """Return a note on the clips in which [`read_segments`] cut or dropped a stretch."""
    return (
        f"{len(paths):,} clips have fake segments that begin before 0, which are cut, or end before they begin, which "
        f"are dropped, such as {paths[0]}."
    )

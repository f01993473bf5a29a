"""Warnings from the log of FFmpeg in a reader process.

FFmpeg conceals damage: it repeats blocks, guesses motion, skips what it cannot parse, and gives a picture all the same.
Only its log tells. Its lines of the level "error" become warnings here.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any

import torch

from ..media_errors import PlacedWarning

SWITCH = {"TORCHCODEC_FFMPEG_LOG_LEVEL": "ERROR"}
"""Environment in which torchcodec lets FFmpeg print its errors; by default it keeps them quiet."""
BACK = 10.0
"""Seconds before a passage from which it is decoded again to see whether its errors come from a seek; our own choice."""
LONGEST = 100
"""Characters of a message that are told; our own choice."""
_LINE = re.compile(r"\[([\w, .-]+) @ 0x[0-9a-f]+\] (?!\[)(.*)")  # the last of the parts that a line names
_ABOUT = {
    "video": "FFmpeg reports errors in the data of the picture ({}) around {{}} s of the video: "
    "what is seen there may be wrong",
    "audio": "FFmpeg reports errors in the data of the sound ({}) around {{}} s of its track: "
    "what is heard there may be wrong",
}

Complaint = tuple[str, str]


class DecoderLog:
    """
    The log of FFmpeg in this process, which prints to standard error.

    Standard error becomes a pipe. What does not fit in it (64 KiB on Linux) is lost, so that decoding never waits.
    """

    def __init__(self) -> None:
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(write, False)
        os.dup2(write, 2)
        os.close(write)
        os.environ.update(SWITCH)

    def take(self) -> list[Complaint]:
        """Return what was printed since the last call: part of FFmpeg and message of each line."""
        content = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._read, 1 << 16):
                content += part
        lines = content.decode(errors="replace").splitlines()
        return [match.groups() for line in lines if (match := _LINE.search(line))]

    def about_file(self) -> list[str]:
        """Return a warning about what was said while a file was opened."""
        found = self.take()
        if not found:
            return []
        part, text = found[0]
        text = "".join(letter if letter.isprintable() else "?" for letter in text.strip())
        text = text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        return [f"FFmpeg reports errors in the file ({part}: {text}{more}): it may be damaged"]

    def about_passage(self, kind: str, track: Any, other: Any, *span: Any) -> list[str]:
        """
        Return a warning about what was said while a passage was read.

        Args:
            kind (`str`): `"video"` or `"audio"`.
            track: The track.
            other: The track of the other kind, if there is one. What is said of its data is not told here.
            span: The arguments of its `read`: instants of a video track; begin and end of an audio track, in seconds.
        """
        found = self.take()
        if not found:
            return []
        begin, end = (float(span[0][0]), float(span[0][-1])) if torch.is_tensor(span[0]) else span
        if kind == "video" and track.sought:
            found = self._confirmed(track, begin, end)
        parts = sorted({part for part, _ in found} - {other.codec if other else None})
        place = f"{max(0.0, begin - track.begin):.2f}-{end - track.begin:.2f}"
        return [PlacedWarning(_ABOUT[kind].format(part), [place]) for part in parts]

    def _confirmed(self, video: Any, begin: float, end: float) -> list[Complaint]:
        """
        Return what is said of a passage when decoding begins well before it.

        After a seek, FFmpeg also misses pictures that were not read, though nothing is wrong with the file.
        """
        found: list[Complaint] = []
        for item in video.decoded(begin - BACK if begin - BACK > video.begin else None, threads=1):
            said = self.take()
            if item is None or item[0] > begin - 1 / video.fps:
                found += said
            if item is not None and item[0] > end:
                break
        return found

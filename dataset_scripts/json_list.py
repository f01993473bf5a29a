"""Read a long JSON list entry by entry. The metadata of AV-Deepfake1M++ are one list of half a gigabyte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

from .errors import MetadataError
from .text_files import open_text

_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()


def read_json_list(path: str, block: int = 1 << 20) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a JSON list, with only a few blocks, or the longest object, in memory.

    Args:
        path (`str`):
            A UTF-8 file whose whole content is `[{...}, {...}, ...]`.
        block (`int`, defaults to 1 Mi):
            Characters to read at once.

    Yields:
        `tuple[str, dict]`: the place of an object (`"<path>, entry 17"`, counted from 0), for messages, and the object.

    Raises:
        [`MetadataError`]: the file is not a list of objects, or is cut off.
    """
    with open_text(path) as file:
        window = _Window(path, file, block)
        if window.sign() != "[":
            raise window.error("expected a JSON list")
        window.position += 1
        number = 0
        sign = "," if window.sign() != "]" else "]"
        window.position += sign == "]"
        while sign != "]":
            yield f"{path}, entry {number}", window.take(number)
            sign = window.sign()
            if sign not in (",", "]"):
                raise window.error(f"expected ',' or ']' after entry {number}; is the file complete?")
            window.position += 1
            number += 1
        if window.sign():
            raise window.error("expected nothing after the list")


class _Window:
    """A window that moves over a text file; `position` is the next character in it."""

    def __init__(self, path: str, file: TextIO, block: int) -> None:
        self.path, self.file, self.block = path, file, block
        self.text, self.position = "", 0
        self.passed = 0  # characters of the file before the window
        self.ended = False

    def sign(self) -> str:
        """Skip spaces and return the next character, or an empty string at the end of the file."""
        while True:
            while self.position < len(self.text) and self.text[self.position] in _SPACE:
                self.position += 1
            if self.position < len(self.text):
                return self.text[self.position]
            if self.ended:
                return ""
            self._read()

    def take(self, number: int) -> dict[str, Any]:
        """Return the object that begins here, entry `number` of the list, and move behind it."""
        if self.sign() != "{":
            raise self.error(f"expected entry {number} of the list, an object")
        while True:
            try:
                entry, self.position = _DECODER.raw_decode(self.text, self.position)
                return entry
            except json.JSONDecodeError as error:
                if self.ended:
                    raise self.error(f"entry {number} is not JSON ({error.msg}), or is cut off") from error
                self._read()

    def error(self, problem: str) -> MetadataError:
        """Return an error that names the place."""
        found = self.text[self.position : self.position + 40]
        told = f"found {found!r}" if found else "the file ends there"
        return MetadataError(f"{self.path}, character {self.passed + self.position}: {problem}; {told}.")

    def _read(self) -> None:
        """Drop what is decoded, and read at least as much as is left, so that a long object is tried seldom."""
        left = self.text[self.position :]
        new = self.file.read(max(self.block, len(left)))
        self.passed += self.position
        self.text, self.position, self.ended = left + new, 0, not new

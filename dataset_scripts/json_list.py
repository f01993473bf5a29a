"""Read a long JSON list entry by entry: the metadata of AV-Deepfake1M++ are half a gigabyte in one list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .errors import MetadataError

_SPACE = " \t\r\n"


def read_json_list(path: str, block: int = 1 << 20) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a JSON list, holding no more of the file than a few blocks and the longest object.

    Args:
        path (`str`):
            A UTF-8 file whose whole content is `[{...}, {...}, ...]`.
        block (`int`, defaults to 1 Mi):
            Characters read at once.

    Yields:
        `tuple[str, dict]`: where an object is (`"<path>, entry 17"`, counted from 0), for messages, and the object.

    Raises:
        [`MetadataError`]: the file is no list of objects, or ends before the list does.
    """
    decoder = json.JSONDecoder()
    with open(path, encoding="utf-8-sig") as file:
        text, position, whole, consumed = "", 0, False, 0

        def more() -> None:
            """Forget what is decoded and read at least as much as is left, so that a long object is tried seldom."""
            nonlocal text, position, whole, consumed
            consumed += position
            left = text[position:]
            new = file.read(max(block, len(left)))
            text, position, whole = left + new, 0, not new

        def next_sign() -> str:
            """The next character that is no space, or nothing at the end of the file."""
            nonlocal position
            while True:
                while position < len(text) and text[position] in _SPACE:
                    position += 1
                if position < len(text):
                    return text[position]
                if whole:
                    return ""
                more()

        def fail(problem: str) -> MetadataError:
            found = (
                f"found {text[position : position + 40]!r}" if position < len(text) else "the file ends there"
            )
            return MetadataError(f"{path}, character {consumed + position}: {problem}; {found}.")

        if next_sign() != "[":
            raise fail("expected a JSON list")
        position += 1
        number = 0
        if next_sign() == "]":
            position += 1
        else:
            while True:
                if next_sign() != "{":
                    raise fail(f"expected entry {number} of the list, an object")
                while True:
                    try:
                        entry, end = decoder.raw_decode(text, position)
                        break
                    except json.JSONDecodeError as error:
                        if whole:
                            raise fail(f"entry {number} is not JSON ({error.msg}), or is cut off") from error
                        more()
                position = end
                yield f"{path}, entry {number}", entry
                number += 1
                sign = next_sign()
                position += 1
                if sign == "]":
                    break
                if sign != ",":
                    position -= 1
                    raise fail(f"expected ',' or ']' after entry {number - 1}; is the file complete?")
        if next_sign():
            raise fail("expected nothing after the list")

"""Tables that people wrote, and the names of files in them."""

from __future__ import annotations

import codecs
import csv
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TextIO

from .errors import MetadataError

_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def open_text(path: str) -> Iterator[TextIO]:
    """
    Open a text file in UTF-8, or in UTF-16 with a mark at its start, as spreadsheets save "Unicode text".

    Other encodings are not guessed: a wrong guess reads other names without an error.

    Raises:
        [`MetadataError`]: the file is in another encoding. Also where it is read, inside the block.
    """
    with open(path, "rb") as file:
        encoding = "utf-16" if file.read(2) in _MARKS else "utf-8-sig"
    try:
        with open(path, newline="", encoding=encoding) as file:
            yield file
    except UnicodeDecodeError as error:
        raise MetadataError(
            f"{path} is not text in UTF-8 ({error.reason}). Save it as UTF-8; if it is Korean, for example, with "
            "`iconv -f CP949 -t UTF-8`."
        ) from error


def read_csv(path: str, needed: Collection[str] = ()) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """
    Return the header of a CSV table, and each row as (where it is, its cells), without spaces around names and cells.

    Args:
        path (`str`): The table, see [`open_text`].
        needed (`Collection[str]`): Columns that it must have.

    Raises:
        [`MetadataError`]: it is no such table, a column is missing or there twice, or a row has more cells than the header.
    """
    try:
        with open_text(path) as file:
            reader = csv.DictReader(file)
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            if absent := [name for name in needed if name not in header]:
                raise MetadataError(
                    f"{path} has no column {', '.join(absent)}; it has {', '.join(header) or 'none'}."
                )
            entries = []
            for cells in reader:
                where = f"{path}, line {reader.line_num}"
                if None in cells:
                    raise MetadataError(f"{where}: more cells than the header has columns.")
                entries.append((where, {name: (value or "").strip() for name, value in cells.items()}))
    except csv.Error as error:
        raise MetadataError(f"{path} is no CSV table ({error}).") from error
    doubles = [name for name, count in Counter(header).items() if count > 1]
    if doubles:
        raise MetadataError(f"{path}: the column {doubles[0]!r} is there twice.")
    return header, entries


class FileNames:
    """
    Files of a corpus by name. A name is found however its accents and Korean letters are stored: macOS and archives made
    there store them in parts.

    Args:
        files (`Collection[str]`): Relative paths as on disk.
    """

    def __init__(self, files: Collection[str]) -> None:
        self._exact = set(files)
        self._composed: dict[str, list[str]] = {}
        for file in files:
            self._composed.setdefault(unicodedata.normalize("NFC", file), []).append(file)

    def find(self, name: str) -> str | None:
        """Return the file of a name, as on disk; None if there is none, or several that differ only in how they are stored."""
        if name in self._exact:
            return name
        found = self._composed.get(unicodedata.normalize("NFC", name), ())
        return found[0] if len(found) == 1 else None


def readable(name: str) -> str:
    """Return a file name that is not UTF-8 with its foreign bytes as `\\xb0`; other names as they are."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """Return a text fit for one line of a terminal or a list: control characters and bytes that are not text are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_text(name: str) -> bool:
    """Return True for a name that can be stored as UTF-8. Names from the disk may hold other bytes."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True

"""A journal of JSON lines that survives a kill: whole lines are kept, and a last line that was cut off is dropped."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

_ADVICE = "The file is damaged, or not what this command wrote: remove it to begin again."


class DamagedJournalError(ValueError):
    """A journal that holds something else than entries; the message says where."""


class JSONLines:
    """
    An append-only file of JSON objects, one per line, flushed after each.

    Opening the file removes a last line that a kill cut off, so that the next entry starts on a line of its own.
    Entries can be read again by their place in the file, without holding them in memory.

    Args:
        path (`str` or `Path`): The file; created, with its folder, if missing.
        fields (`Collection[str]`, *optional*): Fields that each entry has.

    Raises:
        OSError: If the file cannot be opened for reading and writing.

    Example:

    ```python
    >>> with JSONLines("journal.jsonl") as journal:
    ...     done = {entry["path"]: entry for _, entry in journal}
    ...     journal.append({"path": "a.mp4", "score": 0.1})
    ```
    """

    def __init__(self, path: str | Path, fields: Collection[str] = ()):
        self.path, self.fields = Path(path), frozenset(fields)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b")  # noqa: SIM115 (close() does)
        self._cut_back()

    def _cut_back(self) -> None:
        end = self._file.seek(0, 2)
        whole = end
        while whole > 0:
            start = max(0, whole - 65_536)
            self._file.seek(start)
            newline = self._file.read(whole - start).rfind(b"\n")
            if newline >= 0:
                whole = start + newline + 1
                break
            whole = start
        if whole < end:
            self._file.truncate(whole)

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the place and the content of each entry, in order; raises [`DamagedJournalError`] for a line that is none."""
        place = 0
        self._file.seek(0)
        while line := self._file.readline():
            after = self._file.tell()
            yield place, self._entry(place, line)
            place = after
            self._file.seek(after)  # whoever iterates may read or append in between

    def _entry(self, place: int, line: bytes) -> dict[str, Any]:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DamagedJournalError(
                f"{self.path}: the line at byte {place:,} is no JSON. {_ADVICE}"
            ) from error
        if not isinstance(entry, dict) or not self.fields <= set(entry):
            wanted = f" with {', '.join(sorted(self.fields))}" * bool(self.fields)
            raise DamagedJournalError(
                f"{self.path}: the line at byte {place:,} is no entry{wanted}. {_ADVICE}"
            )
        return entry

    def append(self, entry: dict[str, Any], sync: bool = False) -> int:
        """Write an entry and return its place; `sync` waits until the disk has it."""
        place = self._file.seek(0, 2)
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())
        return place

    def at(self, place: int) -> dict[str, Any]:
        """Return the entry at a place that iterating or [`~JSONLines.append`] gave."""
        self._file.seek(place)
        return json.loads(self._file.readline())

    def clear(self) -> None:
        """Remove all entries."""
        self._file.truncate(0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> JSONLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """Return the entries of a journal, leaving the file as it is; empty where there is none."""
    path = Path(path)
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]

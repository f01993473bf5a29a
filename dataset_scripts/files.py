"""Files that are written whole or not at all, and their SHA-256."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHUNK = 1 << 20
"""Bytes read at once."""
MOST_CELL = 2**31 - 1
"""Bytes that fit into a cell of an Arrow table of type `binary`."""
_PARTIAL = re.compile(r"\.[0-9a-f]{12}\.partial(\.[^.]*)?")


def unfit_for_cell(path: str) -> str | None:
    """Return why a file cannot be put into a cell of an Arrow table; None if it can. Raises `OSError` if it is not there."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):  # a link may lead to a device
        return "not a regular file"
    size = found.st_size
    return (
        f"its {size:,} bytes are more than a table's cell holds ({MOST_CELL:,})" if size > MOST_CELL else None
    )


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """
    Give a temporary path, and move what was written there to `path` when the block ends without an error.

    A reader sees the old content or the new, never a part of it. Works for files and for folders; a folder replaces
    nothing, so `path` must not be a folder with files in it. The temporary name keeps the suffix, by which some
    libraries choose a format. After an error nothing is left behind.

    Args:
        path (`str` or `Path`): The destination; its parent folder is made where it is missing.

    Example:

    ```python
    >>> with written_whole("report.json") as partial:
    ...     partial.write_text("{}")
    ```
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(path.name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    partial = path.with_name(f".{name}.partial{path.suffix}")
    _remove(partial)
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        _remove(partial)
        raise


def is_partial(path: str | Path) -> bool:
    """Return True for the temporary name of [`written_whole`], which a kill may leave behind."""
    return _PARTIAL.fullmatch(Path(path).name) is not None


def write_whole(path: str | Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def sha256_of(*paths: str | Path) -> str:
    """Return the SHA-256 of one file, or of several one after another, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

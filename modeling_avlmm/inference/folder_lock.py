"""A lock on the folder of a run, so that two runs cannot write into one."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".run.lock"
HOLDER = ".run.holder"


class FolderInUseError(ValueError):
    """Another run is writing into a folder; the message says which."""


@contextlib.contextmanager
def only_run_in(folder: str | Path) -> Iterator[None]:
    """
    Hold a folder while the context lasts. The system lets it go if the process is killed.

    Args:
        folder (`str` or `Path`): The folder; made if it is missing.

    Raises:
        FolderInUseError: If another run holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / LOCK), folder / HOLDER
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        with contextlib.suppress(OSError):
            who = holder.read_text(encoding="utf-8")
            raise FolderInUseError(
                f"{folder} is in use by {who}. Wait for it, or give another folder."
            ) from error
        raise FolderInUseError(f"{folder} is in use. Wait for that run, or give another folder.") from error
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()  # the file stays: to remove it would let two runs hold two files of one name

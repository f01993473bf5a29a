"""Locks on what a run writes, so that two runs cannot write into one folder or file."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

LOCK, HOLDER = ".run.lock", ".run.holder"
"""Files in the folder of a run."""
SHARE_LOCK, SHARE_HOLDER = ".run.{}.lock", ".run.{}.holder"
"""The same of a run that does a share of the work."""
PATIENCE = 2.0
"""Seconds in which others that only look whether a lock is held have let go of it."""


class InUseError(ValueError):
    """Another run is writing into a folder or a file; the message says which."""


class RunLock:
    """
    A lock that this process holds until [`~RunLock.release`]. The system releases it if the process is killed.

    Args:
        lock (`Path`): Lock file. It stays: to remove it would let two runs hold two files of one name.
        holder (`Path`): File that names the process while the lock is held.
        what (`str`): What is locked, in messages.

    Raises:
        InUseError: If another run holds it.
        OSError: If the files cannot be written.
    """

    def __init__(self, lock: Path, holder: Path, what: str):
        self._lock, self._holder = FileLock(lock), holder
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            who = ""
            with contextlib.suppress(OSError):
                who = f" by {holder.read_text(encoding='utf-8')}"
            raise InUseError(f"{what} is in use{who}. Wait for that run, or name another place.") from error
        try:
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        except OSError:
            self._lock.release()
            raise

    def release(self) -> None:
        """Let go."""
        self._holder.unlink(missing_ok=True)
        self._lock.release()


@contextlib.contextmanager
def only_run_in(folder: str | Path, share: str | None = None) -> Iterator[None]:
    """
    Hold a folder while the context lasts.

    Args:
        folder (`str` or `Path`): The folder; made if it is missing.
        share (`str`, *optional*): Name of the share of the work that is done. Other shares may be done at the same time.

    Raises:
        InUseError: If another run holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = (LOCK, HOLDER) if share is None else (SHARE_LOCK.format(share), SHARE_HOLDER.format(share))
    lock = RunLock(folder / files[0], folder / files[1], str(folder))
    try:
        # Whoever comes second sees the first, as each holds its own lock by now.
        others = sorted(folder.glob(SHARE_LOCK.format("*"))) if share is None else [folder / LOCK]
        for other in others:
            _raise_if_held(other, folder)
        yield
    finally:
        lock.release()


def _raise_if_held(lock: Path, folder: Path) -> None:
    if not lock.exists():
        return
    try:
        with FileLock(lock).acquire(timeout=PATIENCE):
            return
    except Timeout as error:
        raise InUseError(
            f"{folder} is in use by {lock.name}. Wait for that run, or name another place."
        ) from error

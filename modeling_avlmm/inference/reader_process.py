"""Decoding in processes of its own, so that a file which crashes, stalls or overfills FFmpeg costs only itself."""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..media import Clip
from ..media_errors import DecoderCrashedError, DecoderStalledError, MediaError, ReaderStartError
from ..media_files import Tracks, open_elsewhere
from .growing_file import opened
from .reader_messages import Inbox, anonymous_file, receive, send
from .reader_server import ENDED, WAITING, ReaderLimits, forked_nursery
from .stream_reading import FileWindows
from .stream_windows import WindowShape

__all__ = ["ReaderLimits", "limits_in_use", "reader_processes", "readers_in_use", "start_worker"]

START_SECONDS = 90.0
"""Longest wait for a reader process; the first imports PyTorch, and a busy disk is slow. Our own choice."""
NOT_STARTED = (
    "The machine may be too busy, or short of memory: try again, or decode in this process (--read-here)"
)
IDLE = 4
"""Readers that are kept for the next file; our own choice."""
LEAVE_OUT = "It is damaged in a way that FFmpeg does not survive: re-encode it or leave it out"
RAISE_LIMIT = "Leave it out, or raise the limit if the file is worth it"
_CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[2]); from {} import nursery; nursery(int(sys.argv[1]))"


@contextlib.contextmanager
def reader_processes(limits: ReaderLimits | None = None, forked: bool = False) -> Iterator[None]:
    """
    Decode every file in a process of its own while the context lasts.

    A file that crashes FFmpeg raises [`DecoderCrashedError`], one that exceeds the time [`DecoderStalledError`], and one
    that needs too much memory [`MediaTooLargeError`]; the next file is read by a new process. Applies to all threads of
    this process and to the workers of a `DataLoader` that it forks; a worker that is spawned needs [`start_worker`]. Each open
    file has a reader to itself, and readers go from file to file. Needs a POSIX system: on Windows, files are decoded in
    this process.

    Args:
        limits ([`ReaderLimits`], *optional*): Limits on what one file may cost.
        forked (`bool`, *optional*, defaults to `False`): Make the readers from a fork of this process as it is now, which
            saves the seconds in which a new one imports PyTorch. Safe where this process has no threads yet and PyTorch has
            computed nothing. Linux only; elsewhere, and where readers are there already, it changes nothing.

    Example:

    ```python
    >>> with reader_processes(ReaderLimits(memory_gib=2)):
    ...     results = detector(uploads)
    ```
    """
    if not hasattr(socket, "send_fds"):
        yield
        return
    pool = _Readers(limits or ReaderLimits(), forked)
    _in_use.append(pool)
    try:
        with open_elsewhere(pool.open):
            yield
    finally:
        _in_use.remove(pool)
        pool.close()


def readers_in_use() -> _Readers | None:
    """Return the readers of the innermost [`reader_processes`]; None outside of it."""
    return _in_use[-1] if _in_use else None


def start_worker(limits: ReaderLimits | None) -> None:
    """
    Prepare a process that was spawned for a share of many files: one thread, and reader processes of its own.

    Args:
        limits ([`ReaderLimits`], *optional*): Limits, from [`limits_in_use`] in the process that spawns; None to decode here.
    """
    torch.set_num_threads(1)
    if limits is not None:
        reading = reader_processes(limits)
        reading.__enter__()
        atexit.register(reading.__exit__, None, None, None)


def limits_in_use() -> ReaderLimits | None:
    """Return the limits of the innermost [`reader_processes`]; None outside of it."""
    return _in_use[-1].limits if _in_use else None


class _Nursery:
    """The process that forks readers. It is started once, and ends with the processes that know it."""

    def __init__(self, forked: bool = False) -> None:
        self._orders, theirs = socket.socketpair()
        with theirs:
            started = forked_nursery if forked and sys.platform == "linux" else _started_nursery
            self._wait = started(theirs.fileno())
        atexit.register(self.end)

    def reader(self, limits: ReaderLimits) -> _Reader:
        """Return a new reader. Raises `OSError` or `EOFError` if the nursery is gone."""
        mine, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._orders, [b"r"], [theirs.fileno()])
        return _Reader(mine, limits)

    def forget(self) -> None:
        """Let go of a process that is gone."""
        self._orders.close()

    def end(self) -> None:
        """End the process, unless others use it."""
        atexit.unregister(self.end)
        self._orders.close()
        self._wait()


def _started_nursery(descriptor: int) -> Callable[[], object]:
    """Start a nursery that reads orders from a socket, and return the function that waits for its end."""
    code = _CODE.format(f"{__package__}.reader_server")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(descriptor), json.dumps(sys.path)],
        pass_fds=(descriptor,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # what FFmpeg and malloc say of a damaged file
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    return process.wait


_in_use: list[_Readers] = []
_nurseries: list[_Nursery] = []  # of this process and of those that it forks; at most one


def _nursery(forked: bool = False) -> _Nursery:
    if not _nurseries:
        _nurseries.append(_Nursery(forked))
    return _nurseries[0]


class _Readers:
    """The readers of a process and of those that it forks."""

    def __init__(self, limits: ReaderLimits, forked: bool):
        self.limits = limits
        # Reentrant: garbage collection may give a file's reader back while this thread takes one.
        self._lock = threading.RLock()
        self._idle: list[_Reader] = []
        self._owner, self.closed = os.getpid(), False
        _nursery(forked)  # at once: it imports while the caller loads a model

    def take(self) -> _Reader:
        """Return a reader that nobody uses."""
        with self._lock:
            if self._owner != os.getpid():  # in a fork: those readers are its parent's
                self._owner, self._idle = os.getpid(), []
            if self._idle:
                return self._idle.pop()
            for last in (False, True):
                try:
                    return _nursery().reader(self.limits)
                except TimeoutError as error:
                    reason = f"No process that decodes files started within {START_SECONDS:g} s"
                    raise ReaderStartError(f"{reason}. {NOT_STARTED}.") from error
                except (OSError, EOFError) as error:  # somebody ended the nursery
                    while _nurseries:
                        _nurseries.pop().forget()
                    if last:
                        reason = "The process that decodes files ended as it started"
                        raise ReaderStartError(f"{reason}. {NOT_STARTED}.") from error
            raise AssertionError("the last try returns or raises")

    def give_back(self, reader: _Reader, owner: int) -> None:
        """Keep a reader whose file was closed for the next file, if it is well."""
        if owner != os.getpid():
            return
        with self._lock:
            if not self.closed and reader.close_file() and len(self._idle) < IDLE:
                self._idle.append(reader)
                return
        reader.end()

    def open(self, handle: Any, name: str, threads: int | None, audio_only: bool, notes: list[str]) -> Tracks:
        """Open a file in a reader; see [`~media_files.open_tracks`]."""
        reader = _OpenFile(self, name)
        path, content = handle, None
        if not isinstance(handle, str):
            path = handle.untyped_storage().filename if torch.is_tensor(handle) else None
        if path is None:
            content = anonymous_file()
            with os.fdopen(os.dup(content), "wb") as file:
                file.write(handle.numpy().data if torch.is_tensor(handle) else handle)
        try:
            video, audio, undecodable = reader.ask(
                notes, "open", name, path, threads, audio_only, file=content
            )
        finally:
            if content is not None:
                os.close(content)
        return Tracks(
            video and TrackElsewhere(reader, "video", video),
            audio and TrackElsewhere(reader, "audio", audio),
            undecodable,
        )

    def windows(
        self, source: Any, name: str, shape: WindowShape, hop_seconds: float, patience: float, poll: float
    ) -> FileWindows | WindowsElsewhere:
        """Open a growing file in a reader; see [`FileWindows`]. What has no descriptor is decoded in this process."""
        given = name, shape, hop_seconds, patience, poll
        file, owned = opened(source)
        try:
            try:
                descriptor = file.fileno()
            except (AttributeError, io.UnsupportedOperation):  # bytes in memory
                return FileWindows(file, *given)
            reader = _OpenFile(self, name)
            reader.limit = math.inf  # a recording may take days
            return WindowsElsewhere(reader, *reader.ask([], "windows", *given, file=descriptor))
        finally:
            if owned:
                file.close()

    def close(self) -> None:
        """End the readers that nobody uses; the others end with their files."""
        with self._lock:
            self.closed = True  # first: a reader that is given back meanwhile is ended
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.end()


class _Reader:
    """One reader process, over its socket."""

    def __init__(self, connection: socket.socket, limits: ReaderLimits):
        self.connection, self.limits = connection, limits
        self.alive, self._inbox = True, Inbox()
        connection.settimeout(START_SECONDS)
        try:
            self.process, _ = receive(connection)
            send(connection, (limits, torch.get_num_threads()))
        except OSError:
            connection.close()
            raise

    def ask(self, name: str, *request: Any, file: int | None = None) -> tuple[Any, list[str]]:
        """Return the answer to a request and its warnings.

        Raises:
            MediaError: If the file cannot be read, or ended the process or its time.
        """
        self.connection.settimeout(self.limits.seconds)
        try:
            send(self.connection, (self._inbox.freed(), *request), file)
            answer, notes = self._inbox.receive(self.connection)
            while isinstance(answer, str) and answer == WAITING:
                answer, notes = self._inbox.receive(self.connection)
        except TimeoutError as error:
            self.end()
            reason = f"its decoder gave no answer for {self.limits.seconds:g} s and was stopped"
            raise DecoderStalledError(name, reason, RAISE_LIMIT) from error
        except (EOFError, OSError) as error:
            self.end()
            raise DecoderCrashedError(name, "its decoder ended without a word", LEAVE_OUT) from error
        except BaseException:  # Ctrl-C: its answer would be taken for that to another request
            self.end()
            raise
        if isinstance(answer, str) and answer == ENDED:
            self.end()
            raise DecoderCrashedError(name, f"its decoder crashed ({_signal_name(notes)})", LEAVE_OUT)
        if isinstance(answer, Exception):
            raise answer
        return answer, notes

    def close_file(self) -> bool:
        """Close the open file, and return whether the process is well."""
        with contextlib.suppress(MediaError):
            if self.alive:
                self.ask("", "close")
        return self.alive

    def end(self) -> None:
        """End the process, whatever it does."""
        if self.alive:
            self.alive = False
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process, signal.SIGKILL)
            self.connection.close()


class _OpenFile:
    """A file that is open in a reader. The reader is given back when nothing refers to the file any more."""

    def __init__(self, readers: _Readers, name: str):
        self.name, self.limit = name, readers.limits.file_seconds
        self.spent, self.failure = 0.0, None
        self._reader = readers.take()
        weakref.finalize(self, readers.give_back, self._reader, os.getpid())

    def ask(self, notes: list[str], *request: Any, file: int | None = None) -> Any:
        """Return the answer of the reader, and add its warnings to `notes`."""
        if self.failure is not None:
            raise self.failure
        began = time.monotonic()
        try:
            if self.spent > self.limit:
                reason = f"it was read for {self.spent:.0f} s, and the limit is {self.limit:g} s"
                raise DecoderStalledError(self.name, reason, RAISE_LIMIT)
            answer, told = self._reader.ask(self.name, *request, file=file)
        except (DecoderCrashedError, DecoderStalledError) as error:
            self.failure = error
            raise
        self.spent += time.monotonic() - began
        notes += told
        return answer


class TrackElsewhere:
    """
    A track of a file that is open in a reader process; it has the attributes of the track there.

    Args:
        opened: The file.
        kind (`str`): `"video"` or `"audio"`.
        facts (`dict`): The attributes.
    """

    def __init__(self, opened: _OpenFile, kind: str, facts: dict[str, Any]):
        vars(self).update(facts)
        self._opened, self._kind = opened, kind

    @property
    def times(self) -> torch.Tensor:
        """The times of a video track's frames in seconds."""
        return self._opened.ask([], "times")

    def read(self, *span: Any) -> Any:
        """Return what `read` of the track returns; the last argument takes its warnings."""
        *span, notes = span
        return self._opened.ask(notes, self._kind, *span)


class WindowsElsewhere:
    """
    The windows of a growing file that is read in a reader process; see [`FileWindows`].

    Args:
        opened: The file.
        has_video, has_audio (`bool`): Its tracks.
    """

    def __init__(self, opened: _OpenFile, has_video: bool, has_audio: bool):
        self._opened: _OpenFile | None = opened
        self.has_video, self.has_audio = has_video, has_audio
        self.warnings: list[str] = []

    def close(self) -> None:
        """Give the reader back."""
        self._opened = None

    def __iter__(self) -> Iterator[list[Clip]]:
        """Yield windows in groups that are never empty. `warnings` grows meanwhile."""
        while self._opened is not None:
            clips = self._opened.ask(self.warnings, "group")
            if clips is None:
                return
            yield clips


def _signal_name(status: int) -> str:
    """Return a wait status in words."""
    if status >= 0:
        return f"exit status {status}"
    return signal.Signals(-status).name

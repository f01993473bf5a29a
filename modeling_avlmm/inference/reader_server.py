"""The other side of a reader process: a nursery that forks readers, and a reader, which decodes one file after another.

The nursery imports PyTorch and FFmpeg once and decodes nothing, so that a reader in place of one that died takes
milliseconds. A reader is a fork of it; FFmpeg may crash, swell or stall there.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NoReturn

import torch

from ..media_errors import MediaError, MediaTooLargeError
from ..media_files import Tracks, tracks_here
from ..media_sources import faults_of
from ..media_tracks import torchcodec_decoders
from .decoder_log import DecoderLog
from .reader_messages import Outbox, mapped_file, receive, send
from .stream_reading import FileWindows

ENDED = "ended"
"""The nursery's word that a reader died, followed by its wait status."""
WAITING = "waiting"
"""The word of a reader that waits for a file to grow; the answer is still to come."""
GRACE = 30
"""Seconds after its limit in which a reader whose owner is gone ends itself."""
_FACTS = (int, float, str, bool, type(None))


@dataclass(frozen=True)
class ReaderLimits:
    """
    Limits on what one file may cost.

    Args:
        seconds (`float`, *optional*, defaults to 120): Longest wait for opening a file or for one window of it.
        file_seconds (`float`, *optional*, defaults to 3600): Longest time in which all of a file is read.
        memory_gib (`float`, *optional*, defaults to 4): Memory that decoding may take, beside the frames that it gives.
    """

    seconds: float = 120.0
    file_seconds: float = 3600.0
    memory_gib: float = 4.0

    def __post_init__(self):
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0, not {value!r}.")


def forked_nursery(descriptor: int) -> Callable[[], object]:
    """
    Fork this process into a nursery that reads orders from a socket, and return the function that waits for its end.

    The fork keeps what was imported and lets go of the rest: files, standard streams and GPUs.
    """
    if child := os.fork():
        return partial(os.waitpid, child, 0)
    try:
        gc.freeze()  # nothing of the parent is taken apart
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        os.closerange(3, descriptor)
        os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        nursery(descriptor)
    finally:
        os._exit(1)


def nursery(descriptor: int) -> NoReturn:
    """Fork a reader for every socket that arrives, and tell its owner when it dies, until the owners are gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner to answer
    with contextlib.suppress(ImportError):  # told file by file
        torchcodec_decoders()
    orders = socket.socket(fileno=descriptor)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    readers: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([orders, woken], [], [])
        if woken in ready:
            os.read(woken, 512)
            _reap(readers)
        if orders in ready:
            word, files, _, _ = socket.recv_fds(orders, 1, 1)
            if not word:
                os._exit(0)  # at once: the owner waits
            owner = socket.socket(fileno=files[0])
            if child := os.fork():
                readers[child] = owner
                continue
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for other in (orders, *readers.values()):
                other.close()
            try:
                read(owner)
            finally:
                os._exit(0)


def _reap(readers: dict[int, socket.socket]) -> None:
    while readers:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        with readers.pop(child) as owner, contextlib.suppress(OSError):
            Outbox().send(owner, (ENDED, os.waitstatus_to_exitcode(status)))


def read(owner: socket.socket) -> None:
    """Answer what the owner asks, until it is gone."""
    send(owner, os.getpid())
    with contextlib.suppress(EOFError, OSError):
        (limits, threads), _ = receive(owner)
        _bound_memory(limits.memory_gib)
        torch.set_num_threads(threads)
        _Answers(owner, limits).give()


class _Answers:
    """The answers of a reader, which has one file open at a time: as tracks, or as windows while it grows."""

    def __init__(self, owner: socket.socket, limits: ReaderLimits):
        self.owner, self.limits, self.outbox, self.log = owner, limits, Outbox(), DecoderLog()
        self.name, self.told, self.complained = "", 0.0, False
        self.tracks, self.windows, self.groups = Tracks(), None, iter(())

    def give(self) -> None:
        """Answer until the owner is gone."""
        while True:
            (freed, what, *given), file = receive(self.owner)
            self.outbox.freed(freed)
            # ends this process even in a stalled decoder, should its owner be gone
            self._set_alarm(self.limits.seconds + GRACE)
            notes: list[str] = []
            try:
                with faults_of(given[0] if what in ("open", "windows") else self.name):
                    answer = self._answer(what, file, given, notes)
            except (MediaError, ImportError) as error:
                answer = error
            except MemoryError:  # while the error was being told
                told = f"takes more than {self.limits.memory_gib:g} GiB to decode"
                answer = MediaTooLargeError(self.name, told)
            self.log.take()  # of a file that was closed, or could not be read
            self.outbox.send(self.owner, (answer, notes))
            del answer
            self._set_alarm(0)

    def _answer(self, what: str, file: int | None, given: list[Any], notes: list[str]) -> Any:
        if what == "open":
            self.name, *rest = given
            self.tracks = _opened(file, self.name, *rest, notes)
            notes += self.log.about_file()
            return _facts(self.tracks.video), _facts(self.tracks.audio), self.tracks.undecodable
        if what == "windows":
            self.name = given[0]
            self.windows = FileWindows(os.fdopen(file, "rb", buffering=0), *given, waiting=self._wait)
            self.groups, self.complained = iter(self.windows), False
            return self.windows.has_video, self.windows.has_audio
        if what == "group":
            clips = next(self.groups, None)
            notes += self.windows.warnings
            self.windows.warnings.clear()
            if not self.complained:
                said = self.log.about_file()
                self.complained = bool(said)
                notes += said
            return clips
        if what == "times":
            return self.tracks.video.times
        if what == "close":
            self.tracks, self.windows, self.groups = Tracks(), None, iter(())
            return None
        both = (self.tracks.video, self.tracks.audio)
        track, other = both if what == "video" else both[::-1]
        answer = track.read(*given, notes)
        notes += self.log.about_passage(what, track, other, *given)
        return answer

    def _wait(self) -> None:
        """Tell the owner, about once a second, that a file has nothing new, which is no stalled decoder."""
        if time.monotonic() - self.told > 1:
            self.told = time.monotonic()
            self._set_alarm(self.limits.seconds + GRACE)
            self.outbox.send(self.owner, (WAITING, []))

    def _set_alarm(self, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _opened(
    file: int | None, name: str, path: str | None, threads: int | None, audio_only: bool, notes: list[str]
) -> Tracks:
    """Open a path, or the content of a descriptor, as tracks."""
    source: Any = path
    if file is not None:
        source = torch.frombuffer(mapped_file(file), dtype=torch.uint8)
        os.close(file)
    return tracks_here(source, name, threads, audio_only, notes)


def _facts(track: Any) -> dict[str, Any] | None:
    """Return the plain attributes of a track: sizes, times, names."""
    if track is None:
        return None
    return {name: value for name, value in vars(track).items() if isinstance(value, _FACTS)}


def _bound_memory(gib: float) -> None:
    """Let memory requests fail beyond a limit, and leave no core dump."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":  # elsewhere the limit is not kept by the system
        return
    with open("/proc/self/status") as file:
        used = next(int(line.split()[1]) for line in file if line.startswith("VmData")) * 1024
    limit = used + round(gib * 1024**3)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

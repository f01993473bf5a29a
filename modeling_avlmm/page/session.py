"""Visits to the page: each browser tab has one, with its clip, its results and a folder that is deleted when it ends."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dataset_scripts.files import sha256_of

from ..dialogue.analyst import AVAnalyst
from ..explain.attribution import Attribution
from ..explain.words import minutes
from ..media import MediaError, MediaInfo, MediaReader
from ..media_errors import UnsupportedSourceError
from .uploads import Uploads

BROWSER_VIDEO = {"h264", "vp8", "vp9", "av1"}
BROWSER_AUDIO = {"aac", "mp3", "opus", "vorbis", "flac", "pcm_s16le", "pcm_s24le", "pcm_f32le", "pcm_u8"}
BROWSER_SUFFIXES = {".mp4", ".m4v", ".mov", ".webm", ".mp3", ".m4a", ".wav", ".ogg", ".oga", ".opus", ".flac"}
"""Suffixes of files that current browsers play. Other files get a verdict and a spectrogram all the same."""

OVERTAKEN = "Another clip took this one's place while the detector looked at it."


class ClipRefusedError(ValueError):
    """A file is refused. The message is for the person who gave it."""


@dataclass(frozen=True)
class Limits:
    """Limits on the files that the page accepts.

    Args:
        max_mb (`float`, *optional*, defaults to 200): Largest file, in units of 1,000,000 bytes.
        max_seconds (`float`, *optional*, defaults to 600): Longest clip.
    """

    max_mb: float = 200.0
    max_seconds: float = 600.0

    def __post_init__(self):
        for name, value in (("max_mb", self.max_mb), ("max_seconds", self.max_seconds)):
            if not value > 0:
                raise ValueError(f"{name} must be above 0, not {value!r}.")

    @property
    def max_bytes(self) -> int:
        """The largest file, in bytes."""
        return round(self.max_mb * 1_000_000)

    def __str__(self) -> str:
        return f"up to {self.max_mb:g} MB and {minutes(self.max_seconds)}"


@dataclass
class Visit:
    """
    One browser tab: its clip and everything made from it. All its files are in `folder`, and nowhere else.

    Attributes:
        folder (`Path`): The folder of its files, which only this user can read.
        token (`str`): The secret part of the addresses of its files.
        clip (`Path`, *optional*): The clip's file.
        name (`str`): The name that its owner gave it.
        sha256 (`str`): SHA-256 of the file.
        info (`MediaInfo`, *optional*): Its tracks, from the media reader.
        result (`dict`, *optional*): The pipeline's result.
        attribution ([`Attribution`], *optional*): What the detector reacted to, once asked for.
        analyst ([`AVAnalyst`], *optional*): Answers questions about the clip.
        messages (`list[dict]`): The conversation, with `role` and `content`.
        generation (`int`): Number of the clip in this visit.
        arrivals (`int`): Number of files that were given so far.
        closed (`bool`): The visit has ended.
    """

    folder: Path
    token: str
    clip: Path | None = None
    name: str = ""
    sha256: str = ""
    info: MediaInfo | None = None
    result: dict | None = None
    attribution: Attribution | None = None
    analyst: AVAnalyst | None = None
    messages: list[dict] = field(default_factory=list)
    generation: int = 0
    arrivals: int = 0
    closed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, upload: Path, limits: Limits) -> None:
        """
        Make an uploaded file the clip of this visit. The upload itself is moved, or deleted if it is refused.

        Args:
            upload (`Path`): An upload that nobody else can take ([`Uploads.spend`]).
            limits ([`Limits`]): Largest file and longest clip.

        Raises:
            ClipRefusedError: if it is too large, too long or no media. The clip before it stays.
        """
        name = upload.name
        with self.lock:
            self.arrivals += 1
            number = self.arrivals
        held = self.folder / f"{number}{upload.suffix.lower()[:8]}"
        try:
            os.replace(upload, held)
            upload.parent.rmdir()
        except OSError as error:  # the session has ended meanwhile, or the page
            raise ClipRefusedError("This session has ended. Load the page again.") from error
        try:
            info = checked(held, name, limits)
        except ClipRefusedError:
            held.unlink(missing_ok=True)
            raise
        digest = sha256_of(held)
        with self.lock:
            if self.closed:  # the tab was closed while the file was on its way
                held.unlink(missing_ok=True)
                raise ClipRefusedError("This session has ended. Load the page again.")
            if number < self.generation:
                held.unlink(missing_ok=True)
                raise ClipRefusedError("Another clip took this one's place meanwhile.")
            if self.clip is not None:
                self.clip.unlink(missing_ok=True)
            for report in self.folder.glob("report.*"):
                report.unlink()
            self.clip, self.name, self.sha256, self.info = held, name, digest, info
            self.result = self.attribution = self.analyst = None
            self.messages = []
            self.generation = number

    @contextmanager
    def looking(self) -> Iterator[tuple[Path | None, int]]:
        """Yield the clip and its number, for work that another clip may overtake.

        Raises:
            ClipRefusedError: at the end, or in the place of any error, if another clip took this one's place meanwhile or the
                session has ended.
        """
        with self.lock:
            clip, generation = self.clip, self.generation
        try:
            yield clip, generation
        except Exception as error:
            self.check(generation, error)
            raise
        self.check(generation)

    def check(self, generation: int, cause: Exception | None = None) -> None:
        """Raise a [`ClipRefusedError`] if the clip of a `generation` is gone."""
        if self.closed or self.generation != generation:
            raise ClipRefusedError(OVERTAKEN) from cause

    def keep(
        self, generation: int, result: dict | None = None, attribution: Attribution | None = None
    ) -> None:
        """Keep a result on the clip of a `generation`.

        Raises:
            ClipRefusedError: if the session has ended, or another clip took this one's place.
        """
        with self.lock:
            self.check(generation)
            self.result = result or self.result
            self.attribution = attribution or self.attribution

    def file(self, name: str) -> Path:
        """Return the path of a file of this visit. Raises `FileNotFoundError` once the visit has ended."""
        if self.closed:
            raise FileNotFoundError("The session has ended.")
        return self.folder / name

    def playable(self) -> bool:
        """Return whether a browser is likely to play the clip."""
        known = self.info.video_codec in BROWSER_VIDEO if self.info.has_video else True
        heard = self.info.audio_codec in BROWSER_AUDIO if self.info.has_audio else True
        return self.clip.suffix in BROWSER_SUFFIXES and known and heard

    def close(self) -> None:
        """Delete every file of the visit and forget the rest."""
        with self.lock:
            self.closed = True
            shutil.rmtree(self.folder, ignore_errors=True)
            self.clip = self.info = self.result = self.attribution = self.analyst = None
            self.messages = []


class Visits:
    """
    All visits to a page, by the name that Gradio gives a browser tab (`session_hash`).

    Args:
        root (`Path`, *optional*):
            Folder for uploads and everything made from them, deleted by [`~Visits.close`]. Defaults to a new temporary
            folder that only this user can read.
    """

    def __init__(self, root: Path | None = None):
        self.root = Path(tempfile.mkdtemp(prefix="avlmm-page-")) if root is None else Path(root)
        self.uploads = Uploads(self.root)
        self._of: dict[str, Visit] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._of)

    def of(self, session: str) -> Visit:
        """Return the visit of a tab. The first call makes it."""
        with self._lock:
            if session not in self._of:
                token = secrets.token_urlsafe(24)
                folder = self.root / f"visit-{token}"
                folder.mkdir(mode=0o700, parents=True)
                self._of[session] = Visit(folder, token)
            return self._of[session]

    def by_token(self, token: str) -> Visit | None:
        """Return the visit whose files an address names."""
        with self._lock:
            found = [
                visit
                for visit in self._of.values()
                if secrets.compare_digest(visit.token.encode(), token.encode())
            ]
        return found[0] if found else None

    def end(self, session: str) -> None:
        """End a visit, if there is one."""
        with self._lock:
            visit = self._of.pop(session, None)
        if visit is not None:
            visit.close()

    def close(self) -> None:
        """End all visits and delete the folder."""
        with self._lock:
            visits, self._of = list(self._of.values()), {}
        for visit in visits:
            visit.close()
        shutil.rmtree(self.root, ignore_errors=True)


def checked(path: Path, name: str, limits: Limits) -> MediaInfo:
    """
    Check that a file is media within the limits, decode one second of it, and return its tracks.

    Raises:
        ClipRefusedError: if it is not; the message is for the person who gave the file.
    """
    size = path.stat().st_size
    if size > limits.max_bytes:
        raise ClipRefusedError(
            f"{name} has {size / 1e6:.1f} MB, and the limit is {limits.max_mb:g} MB. Cut it, or compress it less finely."
        )
    try:
        with MediaReader(path, name=name) as reader:
            info = reader.info
            if info.duration > limits.max_seconds:
                raise ClipRefusedError(
                    f"{name} lasts {minutes(info.duration)}, and the limit is {minutes(limits.max_seconds)}. "
                    "Cut out the part in question."
                )
            reader.read_passage(0.0, min(1.0, info.duration), fps=1.0)
    except UnsupportedSourceError as error:
        raise ClipRefusedError(f"{name} is not a video or sound file: it {error.reason}.") from error
    except MediaError as error:
        raise ClipRefusedError(
            f"{name} is not a video or sound file that can be read: {error.reason}. "
            "If it plays elsewhere, export it as MP4 or WAV and try again."
        ) from error
    return info

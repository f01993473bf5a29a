"""One browser session of the page: its clip, what was found out about it, and the folder that goes when it ends."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataset_scripts.files import sha256_of

from ..explain.words import minutes
from ..media import MediaError, MediaInfo, MediaReader
from ..media_errors import UnsupportedSourceError

BROWSER_VIDEO = {"h264", "vp8", "vp9", "av1"}
BROWSER_AUDIO = {"aac", "mp3", "opus", "vorbis", "flac", "pcm_s16le", "pcm_s24le", "pcm_f32le", "pcm_u8"}
BROWSER_SUFFIXES = {".mp4", ".m4v", ".mov", ".webm", ".mp3", ".m4a", ".wav", ".ogg", ".oga", ".opus", ".flac"}
"""What current browsers play. Other files get a verdict all the same, and a picture of their sound; they do not play."""


class ClipRefusedError(ValueError):
    """A file that is not taken; the message is for the person who gave it."""


@dataclass(frozen=True)
class Limits:
    """What the page takes.

    Args:
        max_mb (`float`, *optional*, defaults to 200): Largest file, in units of 1,000,000 bytes.
        max_seconds (`float`, *optional*, defaults to 600): Longest clip.
    """

    max_mb: float = 200.0
    max_seconds: float = 600.0

    def __post_init__(self):
        for name in ("max_mb", "max_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}.")

    @property
    def max_bytes(self) -> int:
        return round(self.max_mb * 1_000_000)

    def __str__(self) -> str:
        return f"up to {self.max_mb:g} MB and {minutes(self.max_seconds)}"


@dataclass
class Visit:
    """What one browser session has given and been told. All its files are in `folder`, and nowhere else.

    Attributes:
        token (`str`): The secret part of the addresses of its files.
        clip (`Path`, *optional*): The file that is looked at, `name` what its owner called it.
        sha256 (`str`): Of the file.
        info (`MediaInfo`): What it holds.
        result (`dict`): The detector's verdict.
        attribution: What the detector reacted to, once asked for.
        analyst: Who answers questions on it.
        messages (`list[dict]`): The conversation, `role` and `content`.
    """

    folder: Path
    token: str
    clip: Path | None = None
    name: str = ""
    sha256: str = ""
    info: MediaInfo | None = None
    result: dict | None = None
    attribution: Any = None
    analyst: Any = None
    messages: list[dict] = field(default_factory=list)
    generation: int = 0
    closed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, upload: Path, limits: Limits) -> None:
        """
        Makes an uploaded file the clip of this session; the upload itself is gone afterwards, whatever comes of it.

        Raises:
            ClipRefusedError: when it is too large, too long or no media. The clip there was before stays.
        """
        name = upload.name
        number = self.generation + 1
        held = self.folder / f"{number}{upload.suffix.lower()[:8]}"
        identity = _hold(upload, held)
        try:
            info = checked(held, name, limits)
        except ClipRefusedError:
            held.unlink(missing_ok=True)
            raise
        finally:
            discard(upload, identity)
        digest = sha256_of(held)
        with self.lock:
            if self.closed:  # the tab was closed while the file was on its way
                held.unlink(missing_ok=True)
                raise ClipRefusedError("This session has ended. Load the page again.")
            for old in self.folder.iterdir():
                if old != held:
                    old.unlink()
            self.clip, self.name, self.sha256, self.info = held, name, digest, info
            self.result = self.attribution = self.analyst = None
            self.messages = []
            self.generation = number

    def file(self, name: str) -> Path:
        """Where a file of this session goes. Raises `FileNotFoundError` once the session has ended."""
        if self.closed:
            raise FileNotFoundError("The session has ended.")
        return self.folder / name

    def playable(self) -> bool:
        """Whether a browser is likely to play the clip."""
        known = self.info.video_codec in BROWSER_VIDEO if self.info.has_video else True
        heard = self.info.audio_codec in BROWSER_AUDIO if self.info.has_audio else True
        return self.clip.suffix in BROWSER_SUFFIXES and known and heard

    def close(self) -> None:
        """Deletes every file of the session and forgets the rest."""
        with self.lock:
            self.closed = True
            shutil.rmtree(self.folder, ignore_errors=True)
            self.clip = self.info = self.result = self.attribution = self.analyst = None
            self.messages = []


class Visits:
    """
    All sessions of a page, by the name that Gradio gives a browser tab (`session_hash`).

    Args:
        root (`Path`, *optional*):
            Where uploads and everything made from them go. Defaults to a new temporary folder that only this user can
            read. It is deleted by [`~Visits.close`].
    """

    def __init__(self, root: Path | None = None):
        self.root = Path(tempfile.mkdtemp(prefix="avlmm-page-")) if root is None else Path(root)
        self._of: dict[str, Visit] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._of)

    def of(self, session: str) -> Visit:
        """The session's visit, begun where there is none."""
        with self._lock:
            if session not in self._of:
                token = secrets.token_urlsafe(24)
                folder = self.root / f"visit-{token}"
                folder.mkdir(mode=0o700, parents=True)
                self._of[session] = Visit(folder, token)
            return self._of[session]

    def by_token(self, token: str) -> Visit | None:
        """Whose files an address names."""
        with self._lock:
            found = [
                visit
                for visit in self._of.values()
                if secrets.compare_digest(visit.token.encode(), token.encode())
            ]
        return found[0] if found else None

    def end(self, session: str) -> None:
        """Ends a session, if it ever began."""
        with self._lock:
            visit = self._of.pop(session, None)
        if visit is not None:
            visit.close()

    def close(self) -> None:
        """Ends all sessions and deletes the folder."""
        with self._lock:
            visits, self._of = list(self._of.values()), {}
        for visit in visits:
            visit.close()
        shutil.rmtree(self.root, ignore_errors=True)


def checked(path: Path, name: str, limits: Limits) -> MediaInfo:
    """
    What a file holds, once it is known to be media within the limits: one window of it is decoded.

    Raises:
        ClipRefusedError: with a message for the person who gave the file.
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
            reader.read(end=min(1.0, info.duration), fps=1.0)
    except UnsupportedSourceError as error:
        raise ClipRefusedError(f"{name} is not a video or sound file: it {error.reason}.") from error
    except MediaError as error:
        raise ClipRefusedError(
            f"{name} is not a video or sound file that can be read: {error.reason}. "
            "If it plays elsewhere, export it as MP4 or WAV and try again."
        ) from error
    return info


def discard(upload: Path, identity: tuple[int, int] | None) -> None:
    """Deletes an upload, and its folder where nothing else is in it, if it is still the file of this identity."""
    try:
        # Gradio names an upload's folder by its content. Somebody else may have sent the same bytes just now: that is
        # another file at the same path, and they still need it.
        if _identity(upload) == identity:
            upload.unlink()
        upload.parent.rmdir()
    except OSError:  # gone already, or the folder is not empty
        return


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _hold(upload: Path, held: Path) -> tuple[int, int]:
    """Gives the bytes of an upload a second name, and returns the identity of the upload."""
    try:
        identity = _identity(upload)
        try:
            os.link(upload, held)
        except OSError:  # a file system without links
            shutil.copyfile(upload, held)
    except FileNotFoundError as error:
        raise ClipRefusedError(f"{upload.name} is no longer there. Give it again.") from error
    return identity

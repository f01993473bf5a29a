"""The way from what a caller gives to the tracks of a media input."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from typing import Any

from .media_clip import Clip
from .media_errors import UnreadableMediaError
from .media_files import Tracks, open_tracks
from .media_links import is_link
from .media_sources import array_audio, array_video, checked, store
from .media_tracks import SAMPLING_RATE
from .media_video import FileVideo


def source_of(source: Any, name: str) -> Any:
    """Return what a caller gives in a form that [`Opening`] takes; raises a [`MediaError`] for what is known to be wrong."""
    if not isinstance(source, Clip):
        return checked(source, name)
    return {
        "path": source.name,  # for messages only
        "frames": source.frames,
        "timestamps": source.timestamps,
        "audio": source.audio,
        "sampling_rate": SAMPLING_RATE,
        "duration": source.duration,
    }


@dataclass
class Opening:
    """
    How the sources of a reader are opened, and the files that hold what it downloaded.

    Args:
        max_bytes (`int`): Limit for a link or a file object, in bytes.
        timeout (`float`): Longest wait for a link, in seconds.
        threads (`int`, *optional*): Video decoding threads.
        private_links (`bool`): Follow links to addresses that are not public.
        temporary (`list`): The files.
    """

    max_bytes: int
    timeout: float
    threads: int | None
    private_links: bool
    temporary: list[Any] = field(default_factory=list)

    def close(self) -> None:
        """Delete downloaded files."""
        while self.temporary:
            self.temporary.pop().close()

    def _fetch(self, source: Any, name: str) -> Any:
        """Return a source that torchcodec opens: a path, bytes, or the mapped bytes of a temporary file."""
        if not is_link(source) and not hasattr(source, "read"):
            return source
        self.temporary.append(tempfile.NamedTemporaryFile(prefix="media-"))  # noqa: SIM115 (close() does)
        return store(
            source, name, self.temporary[-1], self.max_bytes, self.timeout, private=self.private_links
        )

    def tracks(
        self, source: Any, name: str, notes: list[str], audio_only: bool = False
    ) -> tuple[Tracks, int | None]:
        """
        Return the tracks of a source and its size in bytes.

        Args:
            source: A result of [`source_of`].
            name (`str`): Name of the media in messages.
            notes (`list[str]`): Gets warnings.
            audio_only (`bool`, *optional*, defaults to `False`): Leave the picture out.

        Raises:
            MediaError: If there is nothing that can be decoded.
        """
        if isinstance(source, dict):
            return _array_tracks(source, name, notes, audio_only), None
        if hasattr(source, "get_frames_played_at"):
            return Tracks(FileVideo(name, None, decoder=source)), None
        if hasattr(source, "get_samples_played_in_range"):
            samples = source.get_all_samples()
            return Tracks(None, array_audio(samples.data, samples.sample_rate, name, notes)), None
        handle = self._fetch(source, name)
        size = os.path.getsize(handle) if isinstance(handle, str) else len(handle)
        return open_tracks(handle, name, self.threads, audio_only, notes), size


def _array_tracks(source: dict, name: str, notes: list[str], audio_only: bool) -> Tracks:
    video = None if audio_only or source.get("frames") is None else array_video(source, name)
    samples = source["audio"] if source.get("audio") is not None else source.get("array")
    audio = None
    if samples is not None and len(samples):
        begin = video.begin if video else 0.0
        audio = array_audio(samples, source.get("sampling_rate"), name, notes, begin)
    if video is None and audio is None:
        raise UnreadableMediaError(name, "has neither frames nor audio", "Fill 'frames' or 'audio'")
    return Tracks(video, audio)

"""The tracks of an encoded file: which ones there are, which are read, and how."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch

from .media_containers import code_of, joined, next_recording, nominal, packet_size, several
from .media_errors import DAMAGED, UnreadableMediaError
from .media_lengths import length_before_cut
from .media_mp4 import FIRST_BOXES, Header, read_header, without_picture
from .media_sound import FileAudio, SoundFileAudio
from .media_sources import faults_of, mapped
from .media_tracks import explain, is_rate, is_turned, torchcodec_decoders
from .media_video import FileVideo, Picture

MAX_DECODING_THREADS = 4  # more threads wait for each other; our own choice
SMALL_PICTURE = (
    640 * 360
)  # pixels; 8 s of them take one thread 120 ms and two 135 of all cores; of 854 x 480, 316 and 332
_TEXT_CODECS = {"ansi", "bintext", "xbin", "idf"}  # FFmpeg "plays" text files with these
_SOUND_FILES = (b"RIFF", b"RF64", b"fLaC", b"OggS")  # only these: libsndfile can crash on arbitrary bytes
_BLOCK_FILES = (b"RIFF", b"RF64", b"riff", b"FORM", b".snd", b"caff")
PICTURE_CODECS = {"mjpeg", "png", "bmp", "webp", "gif", "tiff", "jpeg2000"}
STILL_BRANDS = {b"heic", b"heix", b"mif1", b"avif"}
UNKNOWN_LENGTH = {
    "mp3",
    "aac",
}  # codecs of files without a header: FFmpeg guesses their length from the bit rate
_KINDS = {"video": "picture", "audio": "sound"}

Opener = Callable[[Any, str, "int | None", bool, "list[str]"], "Tracks"]
_opener: list[Opener] = []  # in place of `tracks_here`, see `open_elsewhere`


@dataclass
class Tracks:
    """
    The tracks of a media input.

    Args:
        video, audio: A video and an audio track; None if there is none, or it cannot be decoded.
        undecodable (`set[str]`): Those of "video" and "audio" that are there, but cannot be decoded.
    """

    video: Any = None
    audio: Any = None
    undecodable: set[str] = field(default_factory=set)


@dataclass
class _Container:
    """Facts of a file that need no decoding."""

    source: Any  # path or content
    handle: Any  # what torchcodec opens
    demuxer: Any
    streams: dict[str, list[tuple[int, Any]]]  # indices and headers of its tracks by kind
    best: dict[str, int | None]
    head: bytes
    mp4: Header
    content: memoryview
    second_at: int | None  # byte at which another recording begins behind the first
    before_cut: float | None = None  # see `length_before_cut`

    @property
    def seekable(self) -> bool:
        """True where the file's index says exactly from which packet a picture can be decoded: MP4 and Matroska."""
        films = self.mp4.films == 1 or (self.mp4.films > 1 and not self.mp4.fragmented)
        return films or self.head.startswith(b"\x1aE\xdf\xa3")

    @property
    def transport(self) -> bool:
        """True for MPEG-TS."""
        return packet_size(self.head) is not None

    def meta(self, kind: str) -> Any:
        """Return the header of the best track of a kind; `None` if it is damaged."""
        return dict(self.streams[kind]).get(self.best[kind])


def _open_container(source: Any) -> _Container:
    handle = mapped(source) if isinstance(source, str) else source
    content = memoryview(handle.numpy()) if torch.is_tensor(handle) else memoryview(handle)
    head = bytes(content[:512])
    mp4 = read_header(content) if head[4:8] in FIRST_BOXES else Header()
    if mp4.restarts_at is not None:
        handle, mp4 = handle[: mp4.restarts_at], replace(mp4, films=1)
    demuxer = torchcodec_decoders().Demuxer(handle, streams="all")
    streams: dict[str, list[tuple[int, Any]]] = {"video": [], "audio": []}
    video = torchcodec_decoders().VideoStream
    for stream in demuxer.streams:
        try:
            meta = stream.metadata
        except (ValueError, ArithmeticError, RuntimeError):  # such as an aspect ratio of 1:0
            meta = None
        streams["video" if isinstance(stream, video) else "audio"].append((stream.index, meta))
    header = demuxer.metadata
    best = {"video": header.best_video_stream_index, "audio": header.best_audio_stream_index}
    second_at = mp4.second_at if mp4.films else next_recording(content)
    before_cut = length_before_cut(content)
    return _Container(source, handle, demuxer, streams, best, head, mp4, content, second_at, before_cut)


@contextmanager
def open_elsewhere(opener: Opener) -> Iterator[None]:
    """Let files be opened by another function than [`tracks_here`], in this process and those that it forks."""
    _opener.append(opener)
    try:
        yield
    finally:
        _opener.remove(opener)


def open_tracks(handle: Any, name: str, threads: int | None, audio_only: bool, notes: list[str]) -> Tracks:
    """
    Return the tracks of an encoded file.

    Args:
        handle (`str`, `bytes` or `torch.Tensor`): Path or content.
        name (`str`): Name of the media in messages.
        threads (`int`, *optional*): Threads that decode pictures.
        audio_only (`bool`): Leave the picture out.
        notes (`list[str]`): Gets warnings.

    Raises:
        UnreadableMediaError: If neither a picture nor sound can be decoded, or the file is text or encrypted.
    """
    opener = _opener[-1] if _opener else tracks_here
    with faults_of(name):
        return opener(handle, name, threads, audio_only, notes)


def tracks_here(source: Any, name: str, threads: int | None, audio_only: bool, notes: list[str]) -> Tracks:
    """Return what [`open_tracks`] does, decoded in this process."""
    try:
        container = _open_container(source)
    except (RuntimeError, ValueError, ArithmeticError) as error:
        audio = _open_soundfile(source)
        if audio is None:
            raise UnreadableMediaError(
                name, f"is not readable as media ({explain(error)})", DAMAGED
            ) from error
        return Tracks(audio=audio)
    except ImportError:
        audio = _open_soundfile(source)  # sound files need no FFmpeg
        if audio is None:
            raise
        return Tracks(audio=audio)
    return _decoded_tracks(container, name, threads, audio_only, notes)


def _decoded_tracks(
    container: _Container, name: str, threads: int | None, audio_only: bool, notes: list[str]
) -> Tracks:
    if container.mp4.protected:
        advice = "Only the one who encrypted it can give a copy that is not"
        raise UnreadableMediaError(name, "is encrypted (DRM)", advice)
    picture = container.meta("video")
    if picture is not None and picture.codec in _TEXT_CODECS:
        raise UnreadableMediaError(name, "is text, not media", "Give a video or audio file")
    tracks = Tracks()
    reasons = []
    for kind in ("audio",) if audio_only else ("audio", "video"):
        if container.streams[kind] and (reason := _open(tracks, kind, container, name, threads)):
            tracks.undecodable.add(kind)
            meta = container.streams[kind][0][1]
            codec = None if meta is None else meta.codec
            reasons.append(undecodable(kind, codec, reason, container.content))
    notes += _without_cover(tracks, container)
    if tracks.video is None and tracks.audio is None and not (audio_only and not reasons):
        tracks.audio = _open_soundfile(container.source)
        if tracks.audio is None:
            reason = "; ".join(reasons) or "has neither a frame nor a sample that can be decoded"
            raise UnreadableMediaError(name, reason, DAMAGED)
        return Tracks(audio=tracks.audio)
    notes += reasons
    _join(tracks, container, name, threads, notes)
    if tracks.video is not None and 0 < tracks.video.num_frames == tracks.video.untimed:
        notes.append(nominal(tracks.video.fps))
    notes += [*_several(container, tracks), *_still(container, tracks), *_cut_off(container, tracks)]
    return tracks


def undecodable(kind: str, codec: str | None, reason: str, content: memoryview) -> str:
    """Return the warning about a track that is there but cannot be read; `content` is the file or its beginning."""
    known = codec if codec not in (None, "none") else code_of(content, kind)
    named = "of an unknown codec" if known is None else f"({known})"
    return f"the {kind} track {named} cannot be decoded, so the {_KINDS[kind]} was not judged: {reason}"


def _open(tracks: Tracks, kind: str, container: _Container, name: str, threads: int | None) -> str | None:
    """Open the best track of a kind; return the reason if it cannot be decoded."""
    if container.best[kind] is None:
        return "there is no decoder for it"
    try:
        if kind == "video":
            tracks.video = _open_video(container, name, threads)
        else:
            tracks.audio = _open_audio(container, name)
    except (RuntimeError, ValueError, ArithmeticError) as error:
        return explain(error)
    track = tracks.video if kind == "video" else tracks.audio
    if kind == "video" and track.num_frames == 0:
        tracks.video = None
        return "it has no frames"
    if kind == "audio" and track.end <= track.begin:
        tracks.audio = None
        return "it has no sample that can be decoded"
    return None


def decoding_threads(width: int | None, height: int | None) -> int:
    """Return the number of threads that decode pictures of a size: one up to 640 x 360, where more cost as much as they save."""
    small = width is not None and height is not None and width * height <= SMALL_PICTURE
    return 1 if small else min(torch.get_num_threads(), MAX_DECODING_THREADS)


def _open_video(
    container: _Container, name: str, threads: int | None, shifts: tuple[float, ...] | None = None
) -> FileVideo:
    meta = container.meta("video")
    picture = Picture(
        stream=container.best["video"], seekable=container.seekable, transport=container.transport
    )
    if meta is not None:
        fps = meta.average_fps_from_header
        picture = replace(
            picture,
            codec=meta.codec,
            fps=fps if is_rate(fps) else None,
            aspect=float(meta.pixel_aspect_ratio or 1),
            turned=is_turned(meta.rotation),
            mirrored=container.mp4.mirrored,
            decoding_times=container.head[8:12] == b"AVI ",
        )
    threads = threads or decoding_threads(*(None, None) if meta is None else (meta.width, meta.height))
    return FileVideo(name, container.handle, threads, picture, shifts=shifts)


def _open_audio(container: _Container, name: str) -> FileAudio:
    handle, stream = container.handle, container.best["audio"]
    if isinstance(container.source, str) and (hidden := without_picture(container.source)) is not None:
        handle, stream = hidden, None
    meta = container.meta("audio")
    # FFmpeg computes places in a WAV file from the bit rate, which is right for PCM only
    blocks = container.head[:4] in _BLOCK_FILES and not (
        meta is not None and str(meta.codec).startswith("pcm_")
    )
    seekable = (
        not container.transport and not blocks and (container.seekable or not container.streams["video"])
    )
    # in these files FFmpeg reads on into the next recording, but finds no place in it
    if container.second_at is not None and container.head[:4] in (b"OggS", b"fLaC"):
        seekable = False
    return FileAudio(name, handle, stream, container.demuxer, seekable)


def _without_cover(tracks: Tracks, container: _Container) -> list[str]:
    """Leave out the cover of a sound file; return a warning about it."""
    if tracks.audio is None or not container.streams["video"]:
        return []
    if any(meta is None or meta.codec not in PICTURE_CODECS for _, meta in container.streams["video"]):
        return []
    if tracks.video is None and "video" in tracks.undecodable:
        tracks.undecodable.discard("video")
        return ["the only picture is a cover that cannot be decoded; read as audio"]
    if tracks.video is not None and tracks.video.num_frames == 1:
        tracks.video = None
        return ["the only picture is a cover; read as audio"]
    return []


def _join(tracks: Tracks, container: _Container, name: str, threads: int | None, notes: list[str]) -> None:
    """Put the recordings of a joined file in a row, with the same shift for picture and sound."""
    video, audio = tracks.video, tracks.audio
    if video and audio and len(video.runs) > 1 and not audio.runs:
        audio.survey()
    if video and audio and len(audio.runs) > 1 and not video.runs:
        video = tracks.video = _open_video(container, name, threads, shifts=())
    found = [track for track in (video, audio) if track and len(track.runs) > 1]
    if not found:
        if container.second_at is not None:
            notes.append(several(container.content, container.second_at))
        return
    if len(found) == 2 and len(video.runs) == len(audio.runs):
        shifts, shift = [], 0.0
        for before, after in pairwise(zip(video.runs, audio.runs, strict=True)):
            shift += max(end for _, end in before) - min(begin for begin, _ in after)
            shifts.append(shift)
        video.set_shifts(tuple(shifts))
        audio.set_shifts(tuple(shifts))
    notes.append(joined(found[0].runs))


def _several(container: _Container, tracks: Tracks) -> list[str]:
    """Return warnings that say which of several tracks was used."""
    notes = []
    for kind, track in (("video", tracks.video), ("audio", tracks.audio)):
        covers = {index for index, meta in container.streams[kind] if meta and meta.codec in PICTURE_CODECS}
        indices = [
            index for index, _ in container.streams[kind] if index not in covers - {container.best[kind]}
        ]
        if track is not None and len(indices) > 1:
            number = indices.index(container.best[kind]) + 1
            notes.append(
                f"the file has {len(indices)} {kind} tracks: number {number} ({track.codec}) is used"
            )
    return notes


def _still(container: _Container, tracks: Tracks) -> list[str]:
    """Return a warning if the file is a picture."""
    video = tracks.video
    if tracks.audio is None and video is not None and video.num_frames == 1:
        brand = container.head[8:12] if container.head[4:8] == b"ftyp" else b""
        if video.codec in PICTURE_CODECS or brand in STILL_BRANDS:
            return ["the file is a still picture, not a video"]
    return []


def _cut_off(container: _Container, tracks: Tracks) -> list[str]:
    """Return a warning if the tracks end before the end that the header gives."""
    found = [track for track in (tracks.video, tracks.audio) if track]
    if found and container.transport and len(container.content) % packet_size(container.head):
        return ["the file ends in the middle of a packet: its end may be missing"]
    if not found or container.mp4.fragmented or any(len(track.runs) > 1 for track in found):
        return []
    guessed = tracks.video is None and tracks.audio.codec in UNKNOWN_LENGTH and not container.mp4.films
    if guessed and container.before_cut is None:
        return []
    claims, lengths = [container.before_cut or 0], []
    for kind, track in () if guessed else (("video", tracks.video), ("audio", tracks.audio)):
        meta = container.meta(kind)
        if track and meta is not None:
            lengths.append(meta.duration_seconds_from_header)
            claims.append((meta.begin_stream_seconds_from_header or 0) + (lengths[-1] or 0))
    if not all(lengths) and not _has_other_tracks(container):
        claims.append(container.demuxer.metadata.duration_seconds_from_header or 0)
    missing = max(claims, default=0) - max(track.end for track in found)
    if missing <= (0.5 if container.before_cut is None else 0.1):
        return []
    return [f"the file ends {missing:.2f} s before the end its header gives: it may be truncated"]


def _has_other_tracks(container: _Container) -> bool:
    """Return whether there are subtitles or data, whose end may be the one that the header gives."""
    streams = torchcodec_decoders().get_container_metadata(container.handle).streams
    return any(stream.media_type not in _KINDS for stream in streams)


def _open_soundfile(handle: Any) -> SoundFileAudio | None:
    import soundfile

    if isinstance(handle, str):
        with open(handle, "rb") as opened:
            head = opened.read(4)
    else:
        handle = handle.numpy().data if torch.is_tensor(handle) else handle
        head = bytes(handle[:4])
    if head not in _SOUND_FILES:
        return None
    try:
        file = soundfile.SoundFile(handle if isinstance(handle, str) else io.BytesIO(handle))
    except (soundfile.LibsndfileError, RuntimeError):
        return None
    return SoundFileAudio(file) if file.frames > 0 else None

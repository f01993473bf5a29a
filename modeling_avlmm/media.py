"""Read files, links, bytes and arrays as video frames with timestamps and 16 kHz mono sound on one clock.

This is the only decoder of the project. It reads window by window, so an hour takes no more memory than one window.
Every fault of a file becomes a typed error or a warning.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from .face_crops import FACE_MARGIN, FaceTrack, crop_side, crops, left_out, square_boxes
from .media_clip import Clip, MediaInfo
from .media_errors import (
    DAMAGED,
    MediaError,
    MediaNotFoundError,
    MediaTooLargeError,
    PlacedWarning,
    UnreadableMediaError,
    UnsupportedSourceError,
)
from .media_opening import Opening, source_of
from .media_silence import FRAME_SECONDS, LEVEL_SECONDS, leading_silence
from .media_sound import placed, resample
from .media_sources import finite, name_of
from .media_tracks import EPS, SAMPLING_RATE
from .media_windows import windows_of

__all__ = [
    "SAMPLING_RATE",
    "Clip",
    "MediaError",
    "MediaInfo",
    "MediaNotFoundError",
    "MediaReader",
    "MediaTooLargeError",
    "UnreadableMediaError",
    "UnsupportedSourceError",
    "read_clip",
    "resample",
]

DAMAGED_PASSAGE = "the passages at {} s are too damaged to decode and were not judged"
MAX_CLIP_BYTES = 4 * 1024**3  # limit for the frames of one read(); our own choice
FACE_PART_BYTES = 256 * 1024**2  # whole frames that are held at once while crops are read; our own choice
MAX_DURATION = 7 * 24 * 3600.0  # seconds; longer files have damaged timestamps; our own choice
OFFSET_WARNING = 0.1  # seconds between the first frame and the first sample; a larger offset is warned of
SPARSE = 10.0  # seconds from picture to picture, on average, of a file in which windows may be empty; our own choice
MAX_TRIM = 2.0  # seconds of leading silence; more is not trimmed; our own choice
TRIM_WARNING = 0.1  # seconds of trimmed silence; more is warned of


class MediaReader:
    """A reader of one media input, window by window.

    The clock's zero is the presentation time of the first video frame, or of the first sample if there is no video or the
    sound begins more than 0.1 s before it. Joined recordings are put in a row.
    Frames are those on screen at the requested instants; audio sits where its timestamps put it. A file is opened at
    first use, so make and use a reader in the same process.

    Args:
        source: Path; http(s) link; `bytes`; binary file object (read from its start where it can seek); open
            torchcodec `VideoDecoder`; `{"path": ..., "bytes": ...}`; `{"frames": (T, 3, H, W) or (T, H, W, 3)
            uint8, "fps" or "timestamps": ..., "audio": 1-D or 2-D, "sampling_rate": Hz}`; or a [`Clip`].
        audio (*optional*): A separate sound file in any of these forms, or `{"array" or "audio": ...,
            "sampling_rate": Hz}`. It replaces the source's own audio and starts with the first video frame.
        name (`str`, *optional*): Name of the media in messages.
        max_bytes (`int`, *optional*, defaults to 2 GiB): Limit for a link or a file object, in bytes.
        timeout (`float`, *optional*, defaults to 30.0): Longest wait for a link, in seconds.
        num_ffmpeg_threads (`int`, *optional*): Video decoding threads. Defaults to one for pictures of up to 640 x 360;
            for larger ones to PyTorch's number of threads (one in the workers of a `DataLoader`), at most 4.
        trim_leading_silence (`bool`, *optional*, defaults to `False`): Begin picture and sound where the sound sets in
            ([`leading_silence`]), so that a detector cannot tell fakes by the silence before them. At most 2 s and half
            of the shorter track are trimmed; a silent clip is left as it is. `info.trimmed` says how much.
        private_links (`bool`, *optional*, defaults to `True`): Follow links to addresses that are not public, such as
            those of the own computer and network. Turn it off where strangers give the links.

    Raises:
        MediaError: One of its four subclasses, at construction if the fault can be known without decoding.
    """

    def __init__(
        self,
        source: Any,
        audio: Any = None,
        *,
        name: str | None = None,
        max_bytes: int = 2 * 1024**3,
        timeout: float = 30.0,
        num_ffmpeg_threads: int | None = None,
        trim_leading_silence: bool = False,
        private_links: bool = True,
    ):
        self.name = name or name_of(source)
        if num_ffmpeg_threads is not None and num_ffmpeg_threads < 1:
            # FFmpeg's 0 takes every core: too many for one clip on a large machine
            raise ValueError(f"num_ffmpeg_threads ({num_ffmpeg_threads}) must be at least 1")
        self.trim_leading_silence = trim_leading_silence
        self._opening = Opening(max_bytes, timeout, num_ffmpeg_threads, private_links)
        self._source = source_of(source, self.name)
        self._audio_source = None if audio is None else source_of(audio, name or name_of(audio))
        self._warnings: list[str] = []
        self._info: MediaInfo | None = None
        self._video = self._audio = None

    def __enter__(self) -> MediaReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the decoders and delete downloaded files."""
        self._video = self._audio = self._info = None
        self._opening.close()

    @property
    def info(self) -> MediaInfo:
        """Properties of the media; the file is opened at first use."""
        if self._info is None:
            self._open()
        return self._info

    @property
    def warnings(self) -> list[str]:
        """Oddities of the whole file. [`Clip.warnings`] holds these and those of its window."""
        _ = self.info
        return self._warnings

    def _open(self) -> None:
        self._warnings = notes = []
        tracks, size = self._opening.tracks(self._source, self.name, notes)
        video, audio, undecodable = tracks.video, tracks.audio, tracks.undecodable
        if self._audio_source is not None:
            name = name_of(self._audio_source)
            audio = self._opening.tracks(self._audio_source, name, notes, audio_only=True)[0].audio
            undecodable -= {"audio"}
            if audio is None:
                raise UnreadableMediaError(name, "has no audio track", "Give a sound file")
        self._video, self._audio = video, audio
        offset = audio.begin - video.begin if video and audio and self._audio_source is None else 0.0
        # the clock's zero on the clock of each track
        first = video or audio
        zero = audio.begin if offset < -OFFSET_WARNING else first.begin
        self._video_zero = zero
        self._audio_zero = audio.begin if audio and self._audio_source is not None else zero
        ends = [0.0]
        if video:
            ends.append(video.end - self._video_zero)
        if audio:
            ends.append(audio.end - self._audio_zero)
        if not 0 < max(ends) <= MAX_DURATION or abs(offset) > MAX_DURATION:
            reason = f"its timestamps give a duration of {max(ends):.3g} s"
            raise UnreadableMediaError(self.name, reason, DAMAGED)
        if video and not audio and "audio" not in undecodable:
            decoder = hasattr(self._source, "get_frames_played_at")
            notes.append("no audio track" + (": an open VideoDecoder gives frames only" if decoder else ""))
        if abs(offset) > OFFSET_WARNING:
            side = "after" if offset > 0 else "before"
            notes.append(f"audio starts {abs(offset):.3f} s {side} the video")
        trimmed = self._silence_to_trim(ends[1:], notes) if self.trim_leading_silence and audio else 0.0
        self._video_zero += trimmed
        self._audio_zero += trimmed
        self._info = MediaInfo(
            name=self.name,
            duration=max(ends) - trimmed,
            has_video=None if "video" in undecodable else video is not None,
            has_audio=None if "audio" in undecodable else audio is not None,
            width=video.width if video else None,
            height=video.height if video else None,
            average_fps=video.fps if video else None,
            num_frames=video.num_frames if video else None,
            sampling_rate=audio.sampling_rate if audio else None,
            video_codec=video.codec if video else None,
            audio_codec=audio.codec if audio else None,
            av_offset=offset,
            file_size=size,
            trimmed=trimmed,
        )

    def _silence_to_trim(self, ends: list[float], notes: list[str]) -> float:
        """Return the seconds of leading silence to leave out of tracks that end at `ends`, reading piece by piece."""
        limit = min(MAX_TRIM, min(ends) / 2)
        at = 0.0
        while at < ends[-1]:
            told: list[str] = []
            try:
                piece = self._read_audio(at, min(at + LEVEL_SECONDS, ends[-1]), told)
            except UnreadableMediaError as error:
                notes.append(f"leading silence was not looked for: {error.reason}")
                return 0.0
            notes += (note for note in told if isinstance(note, PlacedWarning))  # it may not be decoded again
            if piece is None:
                return 0.0
            silence = leading_silence(piece)
            if silence < len(piece) / SAMPLING_RATE:
                # whole frames, so that windows stay on the grid of 16 kHz
                trimmed = math.floor(min(at + silence, limit) / FRAME_SECONDS + EPS) * FRAME_SECONDS
                if trimmed >= TRIM_WARNING:
                    notes.append(f"{trimmed:.3f} s of leading silence are trimmed: times count from there")
                return trimmed
            at += LEVEL_SECONDS
        return 0.0

    def windows(self, window_seconds: float, hop_seconds: float | None = None) -> list[tuple[float, float]]:
        """Return the windows of the file as `(start, end)` in seconds; [`windows_of`] states the rule.

        Windows without sound and without a new picture are left out of a file with few pictures, and a warning says so.
        """
        spans = windows_of(self.info.duration, window_seconds, hop_seconds)
        if self._video is None or self._video.end - self._video.begin < SPARSE * self._video.num_frames:
            return spans
        times = self._video.times - self._video_zero
        there = [span for span in spans if self._is_there(*span, times)]
        if len(there) < len(spans):
            text = (
                f"there is nothing in {len(spans) - len(there)} of {len(spans)} windows, which are left out"
            )
            self._warnings += [] if text in self._warnings else [text]
        return there

    def _is_there(self, start: float, end: float, times: torch.Tensor) -> bool:
        """Return whether there is sound in a span, or a picture that appears in it, of those at `times`."""
        audio = self._audio
        if (
            audio is not None
            and start < audio.end - self._audio_zero
            and end > audio.begin - self._audio_zero
        ):
            return True
        return bool(((times > start - EPS) & (times < end - EPS)).any())

    def read(
        self,
        start: float = 0.0,
        end: float | None = None,
        fps: float = 2.0,
        max_frames: int | None = None,
        with_video: bool = True,
        with_audio: bool = True,
        track: FaceTrack | None = None,
        face_margin: float = FACE_MARGIN,
        face_side: int | None = None,
    ) -> Clip:
        """Decode the window [start, end).

        Args:
            start (`float`, *optional*, defaults to 0.0): Start on the file's clock, in seconds.
            end (`float`, *optional*): End on the file's clock, in seconds. Defaults to the end of the file.
            fps (`float`, *optional*, defaults to 2.0): Sampling rate of the frames: those on screen at `start + k / fps`.
            max_frames (`int`, *optional*): Limit; if `fps` gives more, this many frames are spread evenly.
            with_video, with_audio (`bool`, *optional*, default to `True`): Tracks to decode.
            track ([`FaceTrack`], *optional*): A face to cut the frames to, of [`find_tracks`]. Frames in which it is not
                there are left out, and a warning says so; `frames` is `None` if it is in none.
            face_margin (`float`, *optional*, defaults to 1.3): Side of the crops by the longer side of the face's box.
            face_side (`int`, *optional*): Side of the crops in pixels. Defaults to their median side in the picture.

        Returns:
            [`Clip`]: The window.

        Raises:
            ValueError: If the window lies outside the file.
            MediaError: If it cannot be decoded or takes too much memory.
        """
        duration = self.info.duration
        end = duration if end is None else min(end, duration)
        if not 0 <= start < end:
            raise ValueError(f"{self.name}: no window from {start} to {end} s in {duration:.3f} s of media")
        if not fps > 0 or (max_frames is not None and max_frames < 1):
            raise ValueError(f"fps ({fps}) must be above 0 and max_frames ({max_frames}) at least 1")
        notes = list(self._warnings)
        frames = timestamps = audio = None
        if with_video and self._video:
            timestamps = self._instants(start, end, fps, max_frames, notes)
            if timestamps is not None and track is not None:
                frames, timestamps = self._read_face(timestamps, start, track, face_margin, face_side, notes)
            elif timestamps is not None:
                self._check_size(len(timestamps))
                frames = self._video.read(timestamps + start + self._video_zero, notes)
        if with_audio and self._audio:
            audio = self._read_audio(start, end, notes)
        return Clip(frames, timestamps, audio, start, end, self.name, notes)

    def read_passage(self, start: float, end: float, **options: Any) -> Clip:
        """Decode a window as [`MediaReader.read`] does; return an empty one with a warning where it is too damaged."""
        try:
            return self.read(start, end, **options)
        except UnreadableMediaError:
            note = PlacedWarning(DAMAGED_PASSAGE, [f"{start:.2f}-{end:.2f}"])
            return Clip(None, None, None, start, end, self.name, [*self._warnings, note])

    def _instants(
        self, start: float, end: float, fps: float, max_frames: int | None, notes: list[str]
    ) -> torch.Tensor | None:
        """Return the times of the frames of a window, in seconds from its start; `None` before and after the video."""
        video_end = self._video.end - self._video_zero
        span = min(end, video_end) - start
        if span <= EPS:
            notes.append(f"the video ends at {video_end:.2f} s, before this window")
            return None
        count = max(1, math.ceil(span * fps - EPS))
        if max_frames is not None and count > max_frames:
            times = torch.arange(max_frames, dtype=torch.float64) * (span / max_frames)
        else:
            times = torch.arange(count, dtype=torch.float64) / fps
        video_begin = self._video.begin - self._video_zero
        times = times[times + start > video_begin - EPS]
        if not len(times):
            notes.append(f"the video starts at {video_begin:.2f} s, after the frames of this window")
            return None
        return times

    def _check_size(self, count: int, width: int | None = None, height: int | None = None) -> None:
        """Raise a [`MediaTooLargeError`] if this many pictures, by default whole frames, take too much memory."""
        width, height = width or self._video.width or 0, height or self._video.height or 0
        size = count * 3 * width * height
        if size > MAX_CLIP_BYTES:
            reason = f"{count} frames of {width}x{height} take {size / 1024**3:.1f} GiB"
            raise MediaTooLargeError(self.name, reason, "Read shorter windows or lower fps or max_frames")

    def _read_face(
        self,
        timestamps: torch.Tensor,
        start: float,
        track: FaceTrack,
        margin: float,
        side: int | None,
        notes: list[str],
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the frames of a window that show a face, cut to it, and their times. Whole frames are read in parts."""
        kept = track.covers(timestamps.numpy() + start)
        notes += left_out(track, kept)
        timestamps = timestamps[torch.from_numpy(kept)]
        if not len(timestamps):
            return None, None
        boxes = track.box_at(timestamps.numpy() + start)
        count = max(1, FACE_PART_BYTES // max(1, 3 * (self._video.width or 1) * (self._video.height or 1)))
        parts = []
        for at in range(0, len(timestamps), count):
            part = self._video.read(timestamps[at : at + count] + start + self._video_zero, notes)
            squares = square_boxes(boxes, part.shape[-1], part.shape[-2], margin)  # frames are upright
            side = side or crop_side(squares)
            if not parts:
                self._check_size(len(timestamps), side, side)
            parts.append(crops(part, squares[at : at + count], side))
        return torch.cat(parts), timestamps

    def _read_audio(self, start: float, end: float, notes: list[str]) -> torch.Tensor | None:
        track, zero = self._audio, self._audio_zero
        # on the grid of 16 kHz, so that windows are slices of the whole sound
        begin = zero + round(start * SAMPLING_RATE) / SAMPLING_RATE
        length = min(round((end - start) * SAMPLING_RATE), round((track.end - begin) * SAMPLING_RATE))
        if length <= 0:
            notes.append(f"the audio ends at {max(0.0, track.end - zero):.2f} s, before this window")
            return None
        pieces = track.read(begin, begin + (length + 2) / SAMPLING_RATE, notes)
        if not pieces:
            notes.append("there is no sound in this window")
            return None
        out = torch.zeros(length)
        for samples, at in pieces:
            placed(out, samples, at - begin)
        out = finite(out, notes)
        if float(out.abs().max()) < 2**-15:
            notes.append("audio is digital silence")
        return out.clamp_(-1, 1)


def read_clip(source: Any, audio: Any = None, **kwargs: Any) -> Clip:
    """Return one window of a media input; by default all of it, at 2 frames a second.

    Arguments are those of [`MediaReader`] and [`MediaReader.read`].
    """
    reader_names = (
        "name",
        "max_bytes",
        "timeout",
        "num_ffmpeg_threads",
        "trim_leading_silence",
        "private_links",
    )
    options = {key: kwargs.pop(key) for key in reader_names if key in kwargs}
    with MediaReader(source, audio, **options) as reader:
        return reader.read(**kwargs)

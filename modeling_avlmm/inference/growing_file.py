"""Decode a media file that is still being written, or a pipe, once from front to back."""

from __future__ import annotations

import io
import math
import os
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..media import SAMPLING_RATE
from ..media_containers import joined, next_recording, nominal, several
from ..media_errors import DAMAGED, MediaNotFoundError, UnreadableMediaError
from ..media_files import PICTURE_CODECS, undecodable
from ..media_mp4 import FIRST_BOXES, read_header
from ..media_sources import mapped
from ..media_tracks import Clock, explain, is_rate, is_turned, torchcodec_decoders
from ..media_video import Picture as Shown

HEAD_BYTES = 16 * 1024**2
"""Bytes of a pipe's beginning to keep while FFmpeg finds out what it is; it looks at 5 MB by default."""
FAR = 1024**3
"""A seek this many bytes past the end asks where the end is, and does not skip what is yet to come; our own choice."""
JOIN = 0.02
"""Seconds by which a piece of sound may miss the end of the one before and still continue it."""

NOT_STREAMABLE = (
    "It is damaged, or can only be read when it is complete, such as plain mp4: write .ts, .mkv or "
    "fragmented mp4 (ffmpeg -movflags frag_keyframe+empty_moov)"
)


def opened(source: Any) -> tuple[Any, bool]:
    """Return a path or a file object as an open file, and whether it was opened here."""
    if hasattr(source, "read"):
        return source, False
    try:
        return open(source, "rb", buffering=0), True
    except OSError as error:
        raise MediaNotFoundError(
            str(source), f"cannot be opened ({error.strerror})", "Check the path"
        ) from error


class GrowingFile:
    """
    A file object for FFmpeg that waits at the end for more.

    Args:
        source (path or binary file object): A file that is being written or is finished, a named pipe, or an open pipe.
        patience (`float`): Seconds without new bytes after which a file counts as finished. A pipe ends when it is closed.
        poll (`float`, *optional*, defaults to 0.1): Seconds between two looks for new bytes.
        waiting (`Callable`, *optional*): Called before each look, and while nothing comes out of a pipe.

    Raises:
        MediaNotFoundError: If there is no such file.
    """

    def __init__(
        self,
        source: Any,
        patience: float,
        poll: float = 0.1,
        waiting: Callable[[], None] | None = None,
    ):
        self.patience, self.poll, self.waiting = patience, poll, waiting
        self.error: BaseException | None = None
        self._file, self._owned = opened(source)
        self.is_pipe = not (hasattr(self._file, "seekable") and self._file.seekable())
        # A buffered pipe's `read1` gives the bytes that are there, without waiting for more.
        self._read = getattr(self._file, "read1", self._file.read)
        self._at = 0
        self._end = None if self.is_pipe else self._first_film()
        self._head: bytearray | None = bytearray() if self.is_pipe else None
        self._told_partial = True

    def _first_film(self) -> int | None:
        """Return the byte at which the file counts as ended, see [`Header`]; None for its true end."""
        content = self.content() if self._true_size() else memoryview(b"")
        return read_header(content).restarts_at if bytes(content[4:8]) in FIRST_BOXES else None

    def close(self) -> None:
        if self._owned:
            self._file.close()

    def forget_head(self) -> None:
        """Forget a pipe's beginning once FFmpeg knows what it reads and does not seek back to it any more."""
        if self._head is not None and self._at >= len(self._head):
            self._head = None

    def content(self) -> memoryview:
        """Return what is there of a file, and what is kept of a pipe's beginning, which may be nothing."""
        if self.is_pipe:
            return memoryview(bytes(self._head or b""))
        try:
            return memoryview(mapped(os.dup(self._file.fileno())).numpy())
        except (AttributeError, io.UnsupportedOperation):  # bytes in memory
            here = self._file.tell()
            self._file.seek(0)
            data = self._file.read()
            self._file.seek(here)
            return memoryview(data)

    def read(self, size: int) -> bytes:
        """
        Return the bytes that are there, up to `size`.

        FFmpeg asks until its buffer is full, which takes long at few bytes a second. After a short answer it is told once
        that nothing more comes, which it takes for the end only if it got nothing at all.
        """
        try:
            data = self._next(size) if self.error is None else b""
        except BaseException as error:  # the C code that called us cannot pass it on, so `check` does
            self.error = error
            data = b""
        return data

    def check(self) -> None:
        """Raise the error of a read, if there was one."""
        if self.error is not None:
            raise self.error

    def _next(self, size: int) -> bytes:
        if self._head is not None and self._at < len(self._head):
            data = bytes(self._head[self._at : self._at + size])
            self._at += len(data)
            return data
        if self.is_pipe and not self._told_partial:
            self._told_partial = True
            return b""
        if self.is_pipe and self.waiting is not None:
            while not select.select([self._file], [], [], self.poll)[0]:
                self.waiting()
        data = self._read(self._within(size))
        if not data and not self._told_partial:
            self._told_partial = True
            return b""
        if not data and not self.is_pipe and self._grows_past(self._at):
            data = self._read(self._within(size))
        # FFmpeg doesn't ask to complete a full answer: an empty one after it would be the end.
        self._told_partial = len(data) in (0, size)
        self._at += len(data)
        if self._head is not None:
            self._head += data
            if len(self._head) > HEAD_BYTES:
                self._head = None
        return data

    def _grows_past(self, position: int) -> bool:
        """Wait until the file is longer than `position`; return False if it stops growing first."""
        size, since = self._size(), time.monotonic()
        while size <= position:
            if time.monotonic() - since >= self.patience:
                return False
            time.sleep(min(self.poll, self.patience))
            if self.waiting is not None:
                self.waiting()
            now = self._size()
            if now != size:
                size, since = now, time.monotonic()
        return True

    def _within(self, size: int) -> int:
        return size if self._end is None else min(size, max(0, self._end - self._at))

    def _size(self) -> int:
        size = self._true_size()
        return size if self._end is None else min(size, self._end)

    def _true_size(self) -> int:
        if hasattr(self._file, "fileno"):
            try:
                return os.fstat(self._file.fileno()).st_size
            except io.UnsupportedOperation:
                pass  # bytes in memory
        here = self._file.tell()
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(here)
        return end

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Return the new position, or -1 if it cannot be reached."""
        try:
            return self._seek(offset, whence) if self.error is None else -1
        except BaseException as error:
            self.error = error
            return -1

    def _seek(self, offset: int, whence: int) -> int:
        if whence not in (os.SEEK_SET, os.SEEK_CUR):
            return -1
        target = offset + (self._at if whence == os.SEEK_CUR else 0)
        if self.is_pipe:
            reachable = target == self._at or (self._head is not None and 0 <= target <= len(self._head))
        else:
            size = self._size()
            reachable = target <= size or (target - size < FAR and self._grows_past(target - 1))
            if reachable:
                self._file.seek(target)
        if not reachable:
            return -1
        self._at, self._told_partial = target, True
        return target


@dataclass
class Picture:
    """A decoded frame. `load` returns its pixels, uint8 `(3, H, W)`; times are seconds on the file's own clock."""

    start: float
    end: float
    load: Callable[[], torch.Tensor]


@dataclass
class Sound:
    """Decoded samples at 16 kHz, of shape `(channels, samples)`; `start` is in seconds on the file's own clock."""

    start: float
    samples: torch.Tensor


class GrowingTracks:
    """
    The pictures and the sound of a growing file, in the order of the file. Each is decoded once and not kept.

    Args:
        file ([`GrowingFile`]): The bytes.
        name (`str`): Name of the file in messages.

    Raises:
        UnreadableMediaError: If it is not media, or cannot be read before it is complete.
    """

    def __init__(self, file: GrowingFile, name: str):
        self.file, self.name = file, name
        self.damaged = 0
        decoders = torchcodec_decoders()
        try:
            self._demuxer = decoders.Demuxer(file, streams="all")
        except (RuntimeError, ValueError) as error:
            file.check()
            raise UnreadableMediaError(
                name, f"cannot be read as media ({explain(error)})", NOT_STREAMABLE
            ) from error
        header = self._demuxer.metadata
        streams = {stream.index: stream for stream in self._demuxer.streams}
        self._video = streams.get(header.best_video_stream_index)
        self._audio = streams.get(header.best_audio_stream_index)
        self.warnings = self._missing_tracks(streams)
        if self._video is None and self._audio is None:
            raise UnreadableMediaError(name, "; ".join(self.warnings) or "has no track", DAMAGED)
        self._decoders, self._clocks, self._shown = {}, {}, Shown()
        shifts: list[float] = []  # picture and sound of joined recordings move together
        if self._video is not None:
            meta = self._video.metadata
            fps = meta.average_fps_from_header
            self._shown = Shown(aspect=float(meta.pixel_aspect_ratio or 1), turned=is_turned(meta.rotation))
            self._decoders[self._video.index] = self._video.make_decoder("cpu", num_ffmpeg_threads=1)
            self._clocks[self._video.index] = Clock(1 / fps if is_rate(fps) else 0.04, shifts=shifts)
        if self._audio is not None:
            self._decoders[self._audio.index] = self._audio.make_decoder()
            self._clocks[self._audio.index] = Clock(1 / SAMPLING_RATE, shifts=shifts)
            self._audio_begin = self._audio.metadata.begin_stream_seconds_from_header or 0.0
        self._colours = decoders.ColorConverter("cpu")
        self._converter, self._raw_end = None, -math.inf
        file.forget_head()

    def _missing_tracks(self, streams: dict[int, Any]) -> list[str]:
        """Leave out the cover of a sound file, and return warnings about tracks that cannot be decoded."""
        codec = None if self._video is None else self._video.metadata.codec
        is_picture = self._audio is not None and codec in PICTURE_CODECS
        if is_picture and not is_rate(self._video.metadata.average_fps_from_header):
            self._video = None
            return ["the only picture is a cover; read as audio"]
        found = {"video": self._video, "audio": self._audio}
        metas = [stream.metadata for stream in streams.values()]
        return [
            undecodable(meta.media_type, meta.codec, "there is no decoder for it", self.file.content())
            for meta in metas
            if found[meta.media_type] is None
        ]

    def oddities(self) -> list[str]:
        """Return warnings about what was read: damage, joined recordings, times that are missing."""
        notes = []
        runs = max((clock.runs for clock in self._clocks.values()), key=len)
        if len(runs) > 1:
            notes.append(joined(runs))
        elif not self.file.is_pipe and (second := next_recording(self.file.content())) is not None:
            notes.append(several(self.file.content(), second))
        if self._video is not None:
            clock = self._clocks[self._video.index]
            if 0 < clock.count == clock.missing:
                notes.append(nominal(1 / clock.step))
        if self.damaged:
            packets = "packet" if self.damaged == 1 else "packets"
            notes.append(
                f"{self.damaged} {packets} left out, as {'it' if self.damaged == 1 else 'they'} cannot be decoded"
            )
        return notes

    @property
    def has_video(self) -> bool:
        return self._video is not None

    @property
    def has_audio(self) -> bool:
        return self._audio is not None

    def __iter__(self) -> Iterator[Picture | Sound]:
        while True:
            try:
                packet = next(self._demuxer, None)
            except RuntimeError:
                self.damaged += 1  # the container itself is broken from here on
                packet = None
            self.file.check()
            if packet is None:
                break
            decoder = self._decoders.get(packet.stream_index)
            if decoder is not None:
                yield from self._decoded(packet.stream_index, lambda d=decoder, p=packet: d.decode(p))
        for index, decoder in self._decoders.items():
            yield from self._decoded(index, decoder.drain)
            yield from self._timed(index, self._clocks[index].rest())
        if self._converter is not None:
            yield from self._drain()

    def _decoded(self, index: int, decode: Callable[[], list[Any]]) -> Iterator[Picture | Sound]:
        try:
            outputs = decode()
        except RuntimeError:
            self.damaged += 1
            return
        yield from self._timed(index, self._clocks[index].place(outputs))

    def _timed(self, index: int, outputs: list[tuple[float, Any]]) -> Iterator[Picture | Sound]:
        for at, output in outputs:
            if self._video is not None and index == self._video.index:
                yield self._picture(at, output)
            else:
                yield from self._sound(replace(output, pts_seconds=at))

    def _picture(self, at: float, frame: Any) -> Picture:
        def load() -> torch.Tensor:
            # Channels last in memory, without gaps between rows: resizing is fastest like this.
            pixels = self._shown.shown(self._colours.convert(frame).data[None])[0].permute(1, 2, 0)
            return pixels.contiguous().permute(2, 0, 1)

        return Picture(at, at + self._clocks[self._video.index].duration(frame), load)

    def _sound(self, raw: Any) -> Iterator[Sound]:
        rate = raw.sample_rate
        if self._converter is not None and abs(raw.pts_seconds - self._raw_end) > JOIN:
            yield from self._drain()
        if self._converter is None:
            # Resampling starts at a sample on the grids of both rates, counted from the track's start. AudioDecoder does the
            # same, so the same samples come out.
            step = rate // math.gcd(rate, SAMPLING_RATE)
            skip = -round((raw.pts_seconds - self._audio_begin) * rate) % step
            if skip >= raw.data.shape[1]:
                return
            raw = replace(
                raw, data=raw.data[:, skip:].contiguous(), pts_seconds=raw.pts_seconds + skip / rate
            )
            self._converter = torchcodec_decoders().AudioConverter(sample_rate=SAMPLING_RATE)
        self._raw_end = raw.pts_seconds + raw.data.shape[1] / rate
        samples = self._converter.convert(raw)
        if samples.data.shape[1]:
            yield Sound(samples.pts_seconds, samples.data)

    def _drain(self) -> Iterator[Sound]:
        samples = self._converter.drain()
        self._converter = None
        if samples.data.shape[1]:
            yield Sound(samples.pts_seconds, samples.data)


__all__ = ["GrowingFile", "GrowingTracks", "Picture", "Sound"]

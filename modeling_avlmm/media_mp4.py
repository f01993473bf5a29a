"""Facts of an MP4 or QuickTime file that torchcodec doesn't tell, and its sound without its picture (ISO/IEC 14496-12).

FFmpeg decodes the first frames of every track when it opens a file. With a large picture that takes longer than decoding
all of the sound. Here the boxes of picture tracks are renamed in memory, so that FFmpeg skips them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import torch

MOST_BYTES = (
    64 * 1024**2
)  # larger files aren't read into memory: for them opening costs little; our own choice
FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp"}
MOST_HEADER = 64 * 1024**2  # bytes of a header that is read; our own choice


@dataclass(frozen=True)
class Header:
    """
    Properties of an MP4 file.

    Args:
        films (`int`): Number of films; FFmpeg reads the first one of files that were written one after another.
        second_at (`int`, *optional*): Byte at which the second film's file begins.
        restarts_at (`int`, *optional*):
            Byte at which another fragmented film begins, whose time begins again. FFmpeg looks for its pictures at the places
            in the first film, and gives those or garbage.
        fragmented (`bool`): Whether its length is known only from its fragments.
        mirrored (`bool`): Whether the first picture track is shown mirrored.
        protected (`bool`): Whether a track is encrypted.
    """

    films: int = 0
    second_at: int | None = None
    restarts_at: int | None = None
    fragmented: bool = False
    mirrored: bool = False
    protected: bool = False


def read_header(content: memoryview) -> Header:
    """Return the properties of the content of an MP4 file; those of an empty [`Header`] for anything else."""
    films, data, begin, second_at = 0, b"", 0, None
    film_at, restarts_at, before = 0, None, None
    for kind, at, body, end in _boxes(content, 0, len(content)):
        if at == 0 and kind not in FIRST_BOXES:
            break
        films += kind == b"moov"
        begin = at if kind == b"ftyp" else begin
        if kind == b"moov" and films > 1:
            film_at = begin or at
            second_at = second_at or film_at
        if kind == b"moof":
            time = _begin_of_fragment(content, body, end)
            if film_at and restarts_at is None and (time is None or before is None or time <= before):
                restarts_at = film_at
            before = time
        if kind == b"moov" and films == 1 and end - body <= MOST_HEADER:
            data = bytes(content[body:end])
    boxes = list(_boxes(data, 0, len(data)))
    pictures = [
        (body, end) for kind, _, body, end in boxes if kind == b"trak" and _is_picture(data, body, end)
    ]
    return Header(
        films=films,
        second_at=second_at,
        restarts_at=restarts_at,
        fragmented=any(kind == b"mvex" for kind, *_ in boxes),
        mirrored=bool(pictures) and _is_mirrored(data, *pictures[0]),
        protected=b"sinf" in data and (b"encv" in data or b"enca" in data),
    )


def _begin_of_fragment(content: memoryview, begin: int, end: int) -> int | None:
    """Return when the first track of a fragment begins, in ticks of its clock; `None` if it does not say."""
    at = _inner(content, begin, end, b"traf", b"tfdt")
    if at is None or at + 12 > end:
        return None
    return struct.unpack_from(">Q" if content[at] == 1 else ">I", content, at + 4)[0]


def _is_mirrored(data: bytes, begin: int, end: int) -> bool:
    """Return whether the matrix of a track's header mirrors the picture: its determinant is below 0."""
    for kind, _, body, stop in _boxes(data, begin, end):
        at = body + (52 if data[body : body + 1] == b"\x01" else 40)
        if kind == b"tkhd" and at + 36 <= stop:
            a, b, _, c, d, *_ = struct.unpack_from(">9i", data, at)
            return a * d - b * c < 0
    return False


def without_picture(path: str) -> torch.Tensor | None:
    """
    Return the bytes of a file with its picture tracks hidden.

    Args:
        path (`str`): Any file.

    Returns:
        `torch.Tensor`: The bytes, uint8. `None` if there is nothing to hide, for large files, for other containers and for
        fragmented files, whose fragments name their tracks again.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES or file.read(8)[4:8] != b"ftyp":
            return None
        file.seek(0)
        data = bytearray(file.read())
    header = next(((body, end) for kind, _, body, end in _boxes(data, 0, len(data)) if kind == b"moov"), None)
    if header is None:
        return None
    boxes = list(_boxes(data, *header))
    pictures = [begin for kind, begin, body, end in boxes if kind == b"trak" and _is_picture(data, body, end)]
    if not pictures or any(kind == b"mvex" for kind, *_ in boxes):
        return None
    for begin in pictures:
        data[begin + 4 : begin + 8] = b"free"
    return torch.frombuffer(data, dtype=torch.uint8)


def _boxes(data: bytes | bytearray | memoryview, at: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield kind, begin, begin of the content and end of each box in `data[at:end]`, up to the first damaged one."""
    while at + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, at)
        body = at + 8
        if length == 1 and body + 8 <= end:
            (length,), body = struct.unpack_from(">Q", data, body), body + 8
        if length < body - at or at + length > end:
            return
        yield kind, at, body, at + length
        at += length


def codes_of_tracks(content: memoryview) -> list[tuple[str, str]]:
    """Return `("video" or "audio", four-character code)` of the tracks of an MP4 file, in their order."""
    header = next(
        ((body, end) for kind, _, body, end in _boxes(content, 0, len(content)) if kind == b"moov"), None
    )
    if header is None or header[1] - header[0] > MOST_HEADER:
        return []
    data, codes = bytes(content[header[0] : header[1]]), []
    for kind, _, body, end in _boxes(data, 0, len(data)):
        if kind != b"trak":
            continue
        handler = _inner(data, body, end, b"mdia", b"hdlr")
        entries = _inner(data, body, end, b"mdia", b"minf", b"stbl", b"stsd")
        if handler is not None and entries is not None:
            named = {b"vide": "video", b"soun": "audio"}.get(data[handler + 8 : handler + 12])
            code = data[entries + 12 : entries + 16].decode("latin-1").strip()
            codes += [(named, code)] if named and code.isprintable() else []
    return codes


def _inner(data: bytes | memoryview, begin: int, end: int, *path: bytes) -> int | None:
    """Return the begin of the content of a box in boxes; `None` if it is missing."""
    for name in path:
        found = next(((body, stop) for kind, _, body, stop in _boxes(data, begin, end) if kind == name), None)
        if found is None:
            return None
        begin, end = found
    return begin


def _is_picture(data: bytes | bytearray, begin: int, end: int) -> bool:
    """Return True if a track's handler is that of pictures."""
    for kind, _, media, media_end in _boxes(data, begin, end):
        if kind == b"mdia":
            return any(
                name == b"hdlr" and data[body + 8 : body + 12] == b"vide"
                for name, _, body, _ in _boxes(data, media, media_end)
            )
    return False

"""Facts of a container that torchcodec does not tell: the codes of its tracks, and recordings behind the first one."""

from __future__ import annotations

import re
import struct

from .media_mp4 import FIRST_BOXES, codes_of_tracks, read_header

HEAD_BYTES = 256 * 1024  # bytes in which Matroska and AVI describe their tracks; our own choice
PART_BYTES = 1 << 20  # bytes that are searched at once
_MARKS = (  # beginnings of files that do not say where they end
    b"fLaC\x00\x00\x00\x22",
    b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00",
    b"FLV\x01\x04\x00\x00\x00\x09\x00\x00\x00\x00",
    b"FLV\x01\x01\x00\x00\x00\x09\x00\x00\x00\x00",
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),  # Windows Media
)
_MATROSKA = re.compile(rb"\x86[\x81-\xbf]([VA]_[A-Z0-9/_.]+)")  # the element CodecID
_AVI = re.compile(rb"strh.{4}(vids|auds).{52}strf.{4}(.{20})", re.DOTALL)


def code_of(content: memoryview, kind: str) -> str | None:
    """
    Return the code by which a file names the codec of its first track of a kind, such as `avc1`.

    Args:
        content (`memoryview`): The file, or its beginning.
        kind (`str`): `"video"` or `"audio"`.

    Returns:
        `str`, *optional*: The code in MP4, QuickTime, Matroska and AVI; None elsewhere.
    """
    head = bytes(content[:HEAD_BYTES])
    codes: list[tuple[str, str]] = []
    if head[4:8] in FIRST_BOXES:
        codes = codes_of_tracks(content)
    elif head.startswith(b"\x1aE\xdf\xa3"):
        names = {b"V": "video", b"A": "audio"}
        codes = [(names[found[:1]], found.decode()) for found in _MATROSKA.findall(head)]
    elif head.startswith(b"RIFF"):
        for found, rest in _AVI.findall(head):
            if found == b"vids":
                codes.append(("video", _readable(rest[16:20])))
            else:
                codes.append(("audio", f"format {struct.unpack_from('<H', rest)[0]:#06x}"))
    return next((code for which, code in codes if which == kind), None)


def _readable(code: bytes) -> str:
    return re.sub(r"[^ -~]", "?", code.decode("latin-1")).strip()


def next_recording(content: memoryview) -> int | None:
    """
    Return the byte at which another recording begins behind the first one, as in `cat one.wav two.wav`.

    Args:
        content (`memoryview`): A file.

    Returns:
        `int`, *optional*: The byte; None if there is none, and for MPEG, Matroska and raw streams, which do not tell.
    """
    head = bytes(content[:64])
    if head[4:8] in FIRST_BOXES:
        return read_header(content).second_at
    if head[:4] in (b"RIFF", b"RF64", b"FORM"):
        return _behind_chunk(content, head)
    if head.startswith(b"OggS"):
        return _chained(content)
    mark = next((mark for mark in _MARKS if head.startswith(mark)), None)
    return None if mark is None else _search(content, mark, len(mark))


def _behind_chunk(content: memoryview, head: bytes) -> int | None:
    """Return the end of the one chunk that a WAV, AVI or AIFF file is, if another such file begins there."""
    order = ">I" if head.startswith(b"FORM") else "<I"
    at = 0
    while True:
        (size,) = struct.unpack_from(order, content, at + 4)
        if head.startswith(b"RF64") and head[12:16] == b"ds64":
            (size,) = struct.unpack_from("<Q", head, 20)
        at += 8 + size + size % 2
        following = bytes(content[at : at + 12])
        if len(following) < 12 or following[:4] != head[:4]:
            return None
        if following[8:] != b"AVIX":  # further parts of one large AVI file
            return at if following[8:] == head[8:12] else None


def _chained(content: memoryview) -> int | None:
    """Return the first page of an Ogg file that begins a track although others have begun to give data (RFC 3533)."""
    at = 0
    while at + 27 <= len(content) and bytes(content[at : at + 4]) == b"OggS":
        segments = content[at + 26]
        if not content[at + 5] & 2:  # the pages that begin tracks come first
            return _search(content, b"OggS\x00\x02", at)
        at += 27 + segments + sum(content[at + 27 : at + 27 + segments])
    return None


def _search(content: memoryview, mark: bytes, begin: int) -> int | None:
    for at in range(begin, len(content), PART_BYTES):
        found = bytes(content[at : at + PART_BYTES + len(mark) - 1]).find(mark)
        if found >= 0:
            return at + found
    return None


def packet_size(head: bytes) -> int | None:
    """Return the bytes of a packet of MPEG-TS, whose beginning is given: 188, or 192 with times before them; None for other files."""
    if head[0:377:188] == b"GGG":
        return 188
    return 192 if head[4:389:192] == b"GGG" else None


def joined(runs: list[tuple[float, float]]) -> str:
    """Return the warning about recordings that were put in a row; `runs` are begin and end of each, in seconds."""
    at, places = 0.0, []
    for begin, end in runs[:-1]:
        at += end - begin
        places.append(f"{at:.2f}")
    told = ", ".join(places)
    return f"the file holds {len(runs)} recordings one after another (from {told} s): they are read as one"


def several(content: memoryview, second_at: int) -> str:
    """Return the warning about recordings that begin behind the first one, at a byte, and whose times go on or end there."""
    text = "the file holds several recordings one after another: "
    if bytes(content[8:12]) == b"AVI ":  # FFmpeg reads on, and counts on
        return text + "they are read as one"
    return text + f"only the first one is read, up to byte {second_at:,}"


def nominal(fps: float) -> str:
    """Return the warning about pictures without times."""
    return f"the file does not say when its pictures are shown: {fps:g} a second are assumed"

"""The length of a WAV, AVI or MP3 file that was cut off: its header tells, but FFmpeg plays what is there without a word."""

from __future__ import annotations

import struct

OPEN_ENDED = 0x7FFF0000  # bytes; from here on a size means "not known yet", as of sound written to a pipe
_SAMPLES = {3: 1152, 2: 576, 0: 576}  # of an MP3 frame, by version: MPEG-1, MPEG-2, MPEG-2.5
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def length_before_cut(content: memoryview) -> float | None:
    """
    Return how long a file was before its end was cut off.

    Args:
        content (`memoryview`): Any file.

    Returns:
        `float`: The length in seconds that the header of a WAV or AVI file (RIFF) or the first frame of an MP3 file (the
        Xing header of LAME and FFmpeg) gives, if the file holds fewer bytes than it says; otherwise `None`.
    """
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        return _wave_length(content)
    if content[:4] == b"RIFF" and content[8:12] == b"AVI ":
        return _avi_length(content)
    return _mp3_length(content)


def _wave_length(content: memoryview) -> float | None:
    at, bytes_per_second = 12, 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, at)
        if kind == b"fmt " and at + 20 <= len(content):
            (bytes_per_second,) = struct.unpack_from("<I", content, at + 16)
        if kind == b"data":
            cut = len(content) - at - 8 < size < OPEN_ENDED
            return size / bytes_per_second if cut and bytes_per_second else None
        at += 8 + size + size % 2
    return None


def _avi_length(content: memoryview) -> float | None:
    if len(content) < 56 or content[24:28] != b"avih":
        return None
    size, microseconds, frames = (struct.unpack_from("<I", content, at)[0] for at in (4, 32, 48))
    return frames * microseconds / 1e6 if len(content) < size + 8 < OPEN_ENDED else None


def _mp3_length(content: memoryview) -> float | None:
    at = 0
    if content[:3] == b"ID3" and len(content) > 10:
        size = 0
        for byte in content[6:10]:
            size = size << 7 | byte & 0x7F
        at = 10 + size
    if at + 64 > len(content):
        return None
    (head,) = struct.unpack_from(">I", content, at)
    version, rate, single = head >> 19 & 3, head >> 10 & 3, head >> 6 & 3 == 3
    if head >> 21 != 0x7FF or version == 1 or head >> 17 & 3 != 1 or rate == 3:  # not a frame of layer III
        return None
    side = (17 if single else 32) if version == 3 else (9 if single else 17)
    name, flags, frames, size = struct.unpack_from(">4s3I", content, at + 4 + side)
    if name not in (b"Xing", b"Info") or flags & 3 != 3 or len(content) - at >= size:
        return None
    return frames * _SAMPLES[version] / _RATES[version][rate]

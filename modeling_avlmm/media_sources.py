"""Files, bytes and arrays, checked and opened as tracks."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .media_errors import (
    DAMAGED,
    MediaError,
    MediaNotFoundError,
    MediaTooLargeError,
    ReaderStartError,
    UnreadableMediaError,
    UnsupportedSourceError,
)
from .media_links import check_link, download, is_link, link_name, too_large
from .media_sound import ArrayAudio, mono, resample
from .media_tracks import SAMPLING_RATE
from .media_video import ArrayVideo, to_uint8_nchw

_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<MPD", b"<?xml", b"[playlist]", b"v=0\r\n", b"v=0\n")


def name_of(source: Any) -> str:
    """Return a source's name in messages."""
    if is_link(source):
        return link_name(source)
    if isinstance(source, (str, Path)):
        return str(source)
    if isinstance(source, dict) and source.get("path"):
        return str(source["path"])
    name = getattr(
        source, "name", None
    )  # that of an open file may be a number, and that of a pandas Series is None
    return name if isinstance(name, str) and name else f"<{type(source).__name__}>"


def checked(source: Any, name: str) -> Any:
    """Return a source as an absolute path, a link, bytes, a dict of arrays or an object that can be read.

    Raises:
        MediaError: For everything that can be known to be wrong before decoding.
    """
    encoded = getattr(source, "_hf_encoded", None) or {}  # the path or bytes behind a decoder of `datasets`
    if encoded.get("bytes") is not None or os.path.isfile(encoded.get("path") or ""):
        source = encoded
    if isinstance(source, dict) and not {"frames", "audio", "array"} & set(source):
        if source.get("bytes") is None and source.get("path") is None:
            advice = "Give 'path' or 'bytes', or 'frames' and 'audio'"
            raise UnsupportedSourceError(name, f"is a dict with {sorted(source)}", advice)
        source = source["bytes"] if source.get("bytes") is not None else source["path"]
    if is_link(source):
        check_link(source, name)
        return source
    if isinstance(source, (str, Path)):
        _check_file(str(source), name)
        return os.path.abspath(source)  # absolute, so that FFmpeg can't take "concat:x" for a protocol
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = bytes(source)
        _check_head(source[:512], name)
        return source
    readable = ("read", "get_frames_played_at", "get_samples_played_in_range")
    if isinstance(source, dict) or any(hasattr(source, method) for method in readable):
        return source
    advice = (
        "Give a path, an http link, bytes, a file object, or arrays with their rates: {'audio': samples, "
        "'sampling_rate': 16000}, {'frames': frames, 'fps': 25}"
    )
    raise UnsupportedSourceError(name, f"a {type(source).__name__} is not media", advice)


def _check_file(path: str, name: str) -> None:
    try:
        mode = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaNotFoundError(name, "no such file", "Check the path") from error
    except (OSError, ValueError) as error:
        advice = "Check the path and its permissions"
        raise UnreadableMediaError(name, f"cannot be opened ({error})", advice) from error
    if stat.S_ISDIR(mode.st_mode):
        raise UnsupportedSourceError(name, "is a directory", "Give the path of one media file")
    if not stat.S_ISREG(mode.st_mode):
        raise UnsupportedSourceError(name, "is not a regular file", "Copy its content to a file first")
    try:
        with open(path, "rb") as file:
            _check_head(file.read(512), name)
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise UnreadableMediaError(name, reason, "Check its permissions") from error


def _check_head(head: bytes, name: str) -> None:
    if not head:
        raise UnreadableMediaError(name, "is empty (0 bytes)", "Copy or download it again")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_PLAYLISTS):
        # FFmpeg would open every file and address in the playlist
        raise UnsupportedSourceError(name, "is a playlist, not media", "Give the media file it points to")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html")):
        advice = "Download the media file itself; the site may ask for a login first"
        raise UnsupportedSourceError(name, "is a web page, not media", advice)


def store(
    source: Any, name: str, target: Any, max_bytes: int, timeout: float, private: bool = True
) -> torch.Tensor:
    """Copy a link or a binary file object into the file `target`, and return its mapped bytes.

    With `private=False`, a link is refused that leads to an address which is not public, by itself or by a redirect.
    """
    if is_link(source):
        download(source, name, target, max_bytes, timeout, private)
    else:
        if hasattr(source, "seekable") and source.seekable():
            source.seek(0)
        while chunk := source.read(1 << 20):
            if not isinstance(chunk, (bytes, bytearray)):
                raise UnsupportedSourceError(name, "is a text file object", "Open it with mode 'rb'")
            if target.tell() + len(chunk) > max_bytes:
                raise too_large(name, f"more than {max_bytes}", max_bytes)
            target.write(chunk)
    target.flush()
    size = target.tell()
    target.seek(0)
    _check_head(target.read(512), name)
    # as memory, not as a path: then torchcodec stops the content from making FFmpeg open anything else
    return torch.from_file(target.name, shared=False, size=size, dtype=torch.uint8)


def _as_tensor(values: Any) -> torch.Tensor:
    # through NumPy: a list may hold tensors or arrays
    return values if torch.is_tensor(values) else torch.as_tensor(np.asarray(values))


def array_video(source: dict, name: str) -> ArrayVideo:
    """Return the `frames` of a source with their `timestamps` or `fps` as a track.

    Raises:
        UnsupportedSourceError: For frames that are not uint8 RGB, and for times that are missing or do not rise.
    """
    frames = _as_tensor(source["frames"])
    advice = "Give uint8 RGB frames of shape (T, 3, H, W) or (T, H, W, 3)"
    if frames.ndim != 4 or 3 not in (frames.shape[1], frames.shape[3]) or len(frames) == 0:
        raise UnsupportedSourceError(name, f"frames have shape {tuple(frames.shape)}", advice)
    if frames.dtype != torch.uint8:
        raise UnsupportedSourceError(name, f"frames are {frames.dtype}", advice)
    frames = to_uint8_nchw(frames)
    fps, timestamps = source.get("fps"), source.get("timestamps")
    if timestamps is None:
        if not fps or fps <= 0:
            raise UnsupportedSourceError(name, "frames have no times", "Add 'fps' or 'timestamps' (seconds)")
        timestamps = torch.arange(len(frames), dtype=torch.float64) / fps
    timestamps = torch.as_tensor(np.asarray(timestamps), dtype=torch.float64)
    gaps = timestamps.diff()
    if timestamps.shape != (len(frames),) or not bool(timestamps.isfinite().all()) or bool((gaps <= 0).any()):
        shape = tuple(timestamps.shape)
        reason = f"timestamps (shape {shape}) do not rise one by one for {len(frames)} frames"
        raise UnsupportedSourceError(name, reason, "Give one time in seconds per frame, in rising order")
    last = 1 / fps if fps else float(gaps.median()) if len(gaps) else source.get("duration") or 0.04
    return ArrayVideo(frames, timestamps, last)


def array_audio(
    samples: Any, sampling_rate: Any, name: str, warnings: list[str], begin: float = 0.0
) -> ArrayAudio:
    """Return samples as a mono track of 16 kHz that starts at `begin` seconds.

    Raises:
        UnsupportedSourceError: For samples without a rate, and for shapes, types or ranges that are not those of sound.
    """
    if not sampling_rate or sampling_rate <= 0:
        raise UnsupportedSourceError(name, "audio samples have no rate", "Add 'sampling_rate' (Hz)")
    wave = _as_tensor(samples).cpu()
    kind = wave.dtype
    if wave.ndim == 2:  # (channels, samples) or (samples, channels): the shorter side holds the channels
        wave = wave if wave.shape[0] <= wave.shape[1] else wave.T
    elif wave.ndim != 1:
        raise UnsupportedSourceError(name, f"audio has shape {tuple(wave.shape)}", "Give 1-D or 2-D samples")
    if kind == torch.uint8:
        wave = (wave.double() - 128) / 128
    elif kind in (torch.int8, torch.int16, torch.int32):
        wave = wave.double() / (torch.iinfo(kind).max + 1)
    elif not kind.is_floating_point:
        advice = "Give floats in [-1, 1] or 8 to 32-bit PCM"
        raise UnsupportedSourceError(name, f"audio samples are {kind}", advice)
    wave = finite(wave.float(), warnings)
    if wave.ndim == 2:
        wave = mono(wave, warnings)
    peak = float(wave.abs().max()) if wave.numel() else 0.0
    if peak > 8:
        reason = f"audio floats reach {peak:.0f}"
        raise UnsupportedSourceError(name, reason, "Scale them to [-1, 1], or pass integers as integers")
    if peak > 1:
        warnings.append(f"audio reaches {peak:.2f} and is clipped at 1")
    return ArrayAudio(resample(wave, int(sampling_rate), SAMPLING_RATE), begin, int(sampling_rate))


def finite(samples: torch.Tensor, warnings: list[str]) -> torch.Tensor:
    """Return the samples with 0 in place of NaN and infinity, and add a warning about them."""
    bad = int((~samples.isfinite()).sum())
    if bad:
        warnings.append(f"{bad} audio samples are NaN or infinite; set to 0")
        samples = torch.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    return samples


@contextmanager
def faults_of(name: str) -> Iterator[None]:
    """Turn every fault of reading one file into a [`MediaError`]; what is missing for every file stays what it is."""
    try:
        yield
    except (MediaError, ImportError, ReaderStartError):
        raise
    except Exception as error:  # whatever FFmpeg, torchcodec and libsndfile make of a damaged file
        told = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, MemoryError) or re.search("alloc", told):
            raise MediaTooLargeError(name, f"takes too much memory to decode ({told})", DAMAGED) from error
        kind = type(error).__name__
        raise UnreadableMediaError(
            name, f"cannot be decoded ({kind}: {told.rstrip('.')})", DAMAGED
        ) from error


def mapped(path: str) -> torch.Tensor:
    """
    Return the bytes of a file, uint8, read from the disk as they are used.

    torchcodec lets the demuxer of bytes open nothing else: no playlist, manifest or description in a file reaches another
    file or address, and a name such as `img%03d.png` stands for itself. For a path it does not.
    """
    with open(path, "rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # by its address, as PyTorch warns of memory that cannot be written; nothing here writes
    content = (ctypes.c_uint8 * len(view)).from_address(np.frombuffer(view, np.uint8).ctypes.data)
    content.view = view  # lives as long as the tensor
    return torch.from_numpy(np.ctypeslib.as_array(content))

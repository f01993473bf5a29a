"""Calling ffmpeg, and asking what a file holds, for [`perturb`]."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...media import MediaError, UnreadableMediaError
from ...media_sound import FileAudio
from ...media_sources import checked
from ...media_tracks import explain, torchcodec_decoders

_LAST_LINES = 3
"""Lines of ffmpeg's own words in an error."""


class PerturbationError(MediaError):
    """A clip that could not be perturbed: a track is missing, or ffmpeg failed."""


def check_ffmpeg() -> None:
    """Raise [`PerturbationError`] if the ffmpeg command is not installed."""
    if shutil.which("ffmpeg") is None:
        raise PerturbationError(
            "ffmpeg",
            "the command is not installed",
            "Install FFmpeg 5.1 or later with libx264, libx265, libopus",
        )


def run_ffmpeg(name: str, arguments: list[str], timeout: float, loglevel: str = "error") -> str:
    """
    Run ffmpeg and return what it printed.

    Args:
        name (`str`): Name of the clip, for errors.
        arguments (`list[str]`): Arguments after the common ones.
        timeout (`float`): Limit in seconds.
        loglevel (`str`, *optional*, defaults to `"error"`): As for ffmpeg.

    Raises:
        PerturbationError: when ffmpeg is not installed, fails or takes too long.
    """
    check_ffmpeg()
    command = ["ffmpeg", "-hide_banner", "-nostdin", "-nostats", "-loglevel", loglevel, "-y"]
    try:
        done = subprocess.run(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PerturbationError(
            name, f"ffmpeg was not done after {timeout:g} s", "Give a shorter clip or more time"
        ) from error
    said = done.stderr.decode(errors="replace")
    if done.returncode:
        lines = [line.strip() for line in said.splitlines() if line.strip()][-_LAST_LINES:]
        reason = " | ".join(lines) or f"exit status {done.returncode}"
        raise PerturbationError(name, f"ffmpeg failed: {reason}".rstrip("."), "See what it says")
    return said


def file_argument(path: str | Path) -> str:
    """Return a path as ffmpeg takes it: with its protocol, so that no name passes for an option or for "concat:"."""
    return f"file:{Path(path).absolute()}"


def container_header(path: str | Path) -> Any:
    """Return torchcodec's header of a file; raises `MediaError` if there is none to read."""
    checked(str(path), str(path))
    return _opened(lambda: torchcodec_decoders().get_container_metadata(str(path)), path)


def streams_of(path: str | Path) -> tuple[Any, Any, float]:
    """Return the picture and the sound stream that a reader takes (None if absent), and the file's start in s."""
    header = container_header(path)
    video, sound = (
        None if index is None else header.streams[index]
        for index in (header.best_video_stream_index, header.best_audio_stream_index)
    )
    if video is not None and sound is not None and _is_cover(video):
        video = None
    if video is None and sound is None:
        raise UnreadableMediaError(str(path), "has no video and no audio track")
    starts = [stream.begin_stream_seconds_from_header for stream in header.streams]
    return video, sound, min((start for start in starts if start is not None), default=0.0)


def _is_cover(video: Any) -> bool:
    """Return whether a picture stream is the cover of a sound file, which readers leave out."""
    return video.codec in ("mjpeg", "png") and video.num_frames_from_header in (None, 0, 1)


def number_of_samples(path: str | Path, sound: Any) -> int:
    """Return the length of a sound track as readers see it, in its own samples."""
    track = _opened(lambda: FileAudio(str(path), str(path)), path)
    return max(1, round((track.end - track.begin) * sound.sample_rate))


def last_frame(path: str | Path) -> int:
    """Return the number of the last frame, counted from 0."""
    return len(_opened(lambda: torchcodec_decoders().VideoDecoder(str(path)), path)) - 1


def rms(path: str | Path, sound: Any, trim: str, timeout: float) -> float:
    """Return the root mean square of all samples of a track, full scale = 1; 0 for digital silence."""
    level = f"{trim},astats=measure_perchannel=none:measure_overall=RMS_level"
    measure = ["-map", f"0:{sound.stream_index}", "-af", level]
    arguments = ["-i", file_argument(path), *measure, "-f", "null", "-"]
    said = run_ffmpeg(str(path), arguments, timeout, loglevel="info")
    found = re.search(r"RMS level dB: *(-?[\d.]+|-?inf)", said)
    if found is None:
        raise PerturbationError(str(path), "ffmpeg measured no sound level", "Its sound cannot be decoded")
    return 10 ** (float(found[1]) / 20)


def _opened(open_it: Callable[[], Any], path: str | Path) -> Any:
    """Return what torchcodec opens, with its errors turned into ours."""
    try:
        return open_it()
    except (RuntimeError, ValueError, ArithmeticError) as error:
        raise UnreadableMediaError(str(path), f"is not readable as media ({explain(error)})") from error

"""A window of a clip as a request to a server: its sampled frames and its sound in a lossless file, and a question."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torchvision.transforms.v2 import functional as tvF
from transformers.models.qwen2_vl.video_processing_qwen2_vl import smart_resize

from ..media import SAMPLING_RATE
from ..media_errors import UnreadableMediaError

FFMPEG_SECONDS = 120.0
"""Longest wait for the ffmpeg command; our own choice."""


@dataclass(frozen=True)
class ServedClip:
    """
    What a server gets of a window.

    Args:
        data (`bytes`): A QuickTime file with PNG frames and the sound as float samples, or a WAV of the sound alone.
        kind (`str`): `both`, `video` or `audio`.
        rate (`float`, *optional*): Frames a second; None without a picture.
        pixels (`tuple[int, int]`, *optional*): Limits of a frame's size within which the server must leave it as it is.
    """

    data: bytes
    kind: str
    rate: float | None = None
    pixels: tuple[int, int] | None = None

    def part(self) -> dict[str, Any]:
        """Return the clip's part of a chat message."""
        name, mime = ("audio_url", "audio/wav") if self.kind == "audio" else ("video_url", "video/quicktime")
        url = f"data:{mime};base64,{base64.b64encode(self.data).decode()}"
        return {"type": name, name: {"url": url}}

    def options(self) -> dict[str, Any]:
        """
        Return the fields of a request that keep a server from sampling, timing and resizing the clip in its own way.

        vLLM takes 32 frames of any video, spread evenly; its processor counts two frames a second, whatever the file says,
        and enlarges frames below 100,352 pixels. A clip without sound must not be called one with sound, and the reverse.
        """
        if self.kind == "audio":
            return {}
        shortest, longest = self.pixels
        processing = {"fps": self.rate, "size": {"shortest_edge": shortest, "longest_edge": longest}}
        if self.kind == "both":
            processing["use_audio_in_video"] = True
        return {"mm_processor_kwargs": processing, "media_io_kwargs": {"video": {"num_frames": -1}}}


def even_rate(
    times: np.ndarray, per_second: float, frames: int, fps: float, whole: bool = True
) -> tuple[float, int]:
    """
    Return the frame rate at which a server gives pictures the positions that their true times have.

    A server counts evenly: time `n` of the grid is at position `floor(n * frames * per_second / rate)`. Frames are sampled evenly,
    but a rate that is only rounded right moves some of them by one position. Where frames are missing, as from the crops of a face
    that is not always there, no rate may do.

    Args:
        times (`np.ndarray` of shape `(T,)`): Start of each time of the grid, in seconds.
        per_second (`float`): Positions a second.
        frames (`int`): Frames that one time of the grid joins.
        fps (`float`): The rate of a single time.
        whole (`bool`, *optional*, defaults to `True`): Whether positions are whole numbers, rounded down.

    Returns:
        `tuple[float, int]`: Frames a second, and by how many positions a picture is off at most: 0 if such a rate exists.
    """
    if len(times) < 2:
        return fps, 0
    number = np.arange(1, len(times))
    mean = times[-1] * per_second / number[-1]
    if not whole:
        off = np.abs(number * mean - times[1:] * per_second).max()
        return float(frames * per_second / mean), round(float(off))
    places = np.floor(times[1:] * per_second + 1e-4)  # as in the processor
    lowest, highest = (places / number).max(), ((places + 1) / number).min()
    # In the middle, where no rounding moves a picture.
    step = (lowest + highest) / 2 if lowest < highest else mean
    off = 0 if lowest < highest else int(np.abs(np.floor(number * step) - places).max())
    return float(frames * per_second / step), off


def sized(frames: torch.Tensor, video_processor: Any, min_pixels: int, max_pixels: int) -> torch.Tensor:
    """Return frames `(T, 3, H, W)` uint8 in the size that the video processor gives them, by the same filter."""
    factor = video_processor.patch_size * video_processor.merge_size
    size = smart_resize(*frames.shape[-2:], factor, min_pixels, max_pixels)
    frames = frames.contiguous(memory_format=torch.channels_last)
    return tvF.resize(frames, list(size), tvF.InterpolationMode.BICUBIC, antialias=True)


def wave_file(samples: torch.Tensor) -> bytes:
    """Return a WAV with the samples `(N,)` at 16 kHz as they are."""
    file = io.BytesIO()
    soundfile.write(file, samples.numpy().astype(np.float32), SAMPLING_RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def quicktime_file(frames: torch.Tensor, rate: float, samples: torch.Tensor | None, name: str) -> bytes:
    """
    Return a QuickTime file with frames and sound without loss, in codecs that every FFmpeg decodes.

    Args:
        frames (`torch.Tensor` of shape `(T, 3, H, W)`): The frames, uint8.
        rate (`float`): Frames a second.
        samples (`torch.Tensor` of shape `(N,)`, *optional*): Sound at 16 kHz.
        name (`str`): Name of the clip, for errors.

    Raises:
        UnreadableMediaError: If ffmpeg fails.
        ImportError: If the ffmpeg command is not installed.
    """
    if shutil.which("ffmpeg") is None:
        raise ImportError(
            "Clips are packed for the server by the ffmpeg command, which is not installed. Install FFmpeg."
        )
    height, width = frames.shape[-2:]
    picture = [
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-s",
        f"{width}x{height}",
        "-r",
        repr(rate),
        "-i",
        "pipe:0",
    ]
    with tempfile.TemporaryDirectory(prefix="served-") as folder:
        sound = []
        if samples is not None:
            Path(folder, "sound.wav").write_bytes(wave_file(samples))
            sound = ["-i", f"{folder}/sound.wav", "-c:a", "pcm_f32le"]
        encode = ["-c:v", "png", "-pix_fmt", "rgb24", "-f", "mov", f"{folder}/clip.mov"]
        done = subprocess.run(
            ["ffmpeg", "-hide_banner", "-nostats", "-loglevel", "error", *picture, *sound, *encode],
            input=frames.permute(0, 2, 3, 1).contiguous().numpy().tobytes(),
            capture_output=True,
            timeout=FFMPEG_SECONDS,
            check=False,
        )
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split())[-300:]
            raise UnreadableMediaError(
                name, f"ffmpeg cannot pack it for the server ({said})", "See what it says"
            )
        return Path(folder, "clip.mov").read_bytes()

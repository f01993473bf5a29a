"""Small media with known content, made on the spot: `from media_factory import make_clip`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torchcodec.encoders import Encoder

from modeling_avlmm import Clip


def ffmpeg(*arguments: str | Path) -> None:
    """Run the ffmpeg command line, or skip the test where there is none."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("the ffmpeg command line is needed to make this file")
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=60)


def click_track(
    seconds: float, sampling_rate: int, click_at: float | None, channels: int = 1
) -> torch.Tensor:
    """Return a quiet tone with a 5 ms click at `click_at`, or a 440 Hz tone without one, `(channels, samples)`."""
    time = torch.arange(round(seconds * sampling_rate)) / sampling_rate
    if click_at is None:
        wave = 0.4 * torch.sin(2 * torch.pi * 440 * time)
    else:
        wave = 0.001 * torch.sin(2 * torch.pi * 440 * time)
        wave[(time >= click_at - 1e-9) & (time < click_at + 0.005)] = 0.9
    return wave[None].repeat(channels, 1)


def flash_frames(seconds: float, fps: float, size: tuple[int, int], flash_at: float | None) -> torch.Tensor:
    """Return frames (T, 3, H, W) uint8; size is (width, height). Black with a white frame on screen at `flash_at`, or
    getting brighter frame by frame, with a bright left half so that sides can be told apart."""
    width, height = size
    count = round(seconds * fps)
    frames = torch.zeros(count, 3, height, width, dtype=torch.uint8)
    if flash_at is not None:
        frames[int(flash_at * fps + 1e-6)] = 255
        return frames
    frames[:] = (torch.arange(count) * 4 % 100).to(torch.uint8)[:, None, None, None]
    frames[..., : width // 2] += 100
    return frames


def make_clip(
    path: str | Path,
    seconds: float = 2.0,
    fps: float = 25.0,
    size: tuple[int, int] = (64, 64),
    audio: bool = True,
    sampling_rate: int = 16_000,
    flash_at: float | None = None,
    click_at: float | None = None,
    channels: int = 1,
    audio_seconds: float | None = None,
    codec: str = "libx264",
    pixel_format: str | None = "yuv420p",
    gop: int | None = None,
) -> Path:
    """Write a video of `seconds`, with sound unless `audio=False`, in the container of the path's suffix.

    `size` is (width, height). Give `pixel_format="yuv444p"` for odd sizes, `"yuv420p10le"` for 10 bits.
    """
    encoder = Encoder()
    video = encoder.add_video(
        height=size[1],
        width=size[0],
        frame_rate=fps,
        codec=codec,
        pixel_format=pixel_format,
        extra_options=None if gop is None else {"g": gop},
    )
    length = seconds if audio_seconds is None else audio_seconds
    sound = encoder.add_audio(sample_rate=sampling_rate, num_channels=channels) if audio else None
    with encoder.open_file(str(path)):
        video.add_frames(flash_frames(seconds, fps, size, flash_at))
        if sound is not None:
            sound.add_samples(click_track(length, sampling_rate, click_at, channels))
    return Path(path)


def remux(source: Path, path: Path, *options: str) -> Path:
    """Write the same streams to another container, or with other output options."""
    ffmpeg("-i", source, "-c", "copy", *options, path)
    return path


def shift_audio(source: Path, path: Path, seconds: float) -> Path:
    """Delay the audio by `seconds`; a negative value delays the video instead."""
    late, early = (["-itsoffset", str(abs(seconds)), "-i", source], ["-i", source])
    inputs = [*early, *late] if seconds > 0 else [*late, *early]
    ffmpeg(*inputs, "-map", "0:v", "-map", "1:a", "-c", "copy", path)
    return path


def make_vfr(source: Path, path: Path) -> Path:
    """Leave out every third frame (n = 1, 4, 7, ...) and keep the times of the others."""
    ffmpeg("-i", source, "-vf", "select='not(eq(mod(n,3),1))'", "-fps_mode", "vfr", "-c:a", "copy", path)
    return path


def make_rotated(source: Path, path: Path) -> Path:
    """Mark a video as filmed with the camera on its side (quarter turn in the display matrix)."""
    ffmpeg("-i", source, "-c", "copy", "-metadata:s:v:0", "rotate=90", path)
    return path


def make_truncated(source: Path, path: Path, keep: float = 0.6) -> Path:
    """Write the first part of a file's bytes."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def make_corrupt(source: Path, path: Path, first: float = 0.45, last: float = 0.55) -> Path:
    """Overwrite a stretch of a file's bytes with noise."""
    data = bytearray(source.read_bytes())
    noise = torch.randint(0, 256, (len(data),), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    begin, end = int(len(data) * first), int(len(data) * last)
    data[begin:end] = bytes(noise[begin:end].tolist())
    path.write_bytes(data)
    return path


def make_hour(path: Path) -> Path:
    """Write an hour at 1 frame per second, 16x16, frame n of brightness 20 + n % 200, with a quiet tone."""
    video = "color=black:size=16x16:rate=1:duration=3600,geq=lum='20+mod(N,200)':cb=128:cr=128"
    sound = "sine=frequency=440:sample_rate=8000:duration=3600"
    encode = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "60", "-pix_fmt", "yuv420p", "-c:a", "mp2"]
    ffmpeg(
        "-f", "lavfi", "-i", video, "-f", "lavfi", "-i", sound, *encode, "-ar", "16000", "-b:a", "32k", path
    )
    return path


def random_clip(frames=4, fps=2.0, seconds=2.0, video=True, audio=True, size=(56, 84), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Clip(
        frames=torch.randint(0, 256, (frames, 3, *size), dtype=torch.uint8, generator=generator)
        if video
        else None,
        timestamps=torch.arange(frames, dtype=torch.float64) / fps if video else None,
        audio=0.1 * torch.randn(round(seconds * 16000), generator=generator) if audio else None,
        start=0.0,
        end=seconds,
        name="clip",
        warnings=[],
    )

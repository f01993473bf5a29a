"""Genuine clips to make pseudo-fakes from: `from genuine_factory import make`."""

from __future__ import annotations

import pickle

import numpy as np
import torch

from modeling_avlmm.media import SAMPLING_RATE, Clip

SECONDS, FPS = 2.0, 4


def speech(seed: int, seconds: float = SECONDS, pitch: float = 140.0, level: float = 0.1) -> torch.Tensor:
    """Return a buzz of harmonics that comes and goes four times a second, with a little noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    phase = 2 * np.pi * pitch * (time + 0.01 * np.sin(2 * np.pi * 2.3 * time + seed))
    buzz = sum(np.sin(k * phase + k) / k for k in range(1, 30))
    loud = 0.1 + 0.9 * np.sin(2 * np.pi * 2 * time + rng.uniform(0, 6)) ** 2
    sound = loud * (buzz + 0.05 * rng.normal(size=len(time)))
    return torch.from_numpy((level * sound / np.sqrt(np.mean(sound**2))).astype(np.float32))


def face_frames(
    size: tuple[int, int] = (96, 96), at: tuple[float, float] | None = None, seed: int = 0
) -> torch.Tensor:
    """Return uint8 frames (T, 3, height, width): a textured disc of skin colour with a moving mouth, on a still blue wall."""
    height, width = size
    x0, y0 = at or (width / 2, height / 2)
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    count = round(SECONDS * FPS)
    wall = np.asarray([40, 60, 140])[:, None, None] + rng.normal(0, 6, size=(3, height, width))
    skin = np.asarray([200, 150, 120])[:, None, None] + rng.normal(0, 6, size=(3, height, width))
    radius = np.hypot(x - x0, (y - y0) / 1.2) / (0.3 * min(size))
    frames = np.stack([np.where(radius < 1, skin, wall)] * count)
    for k in range(count):
        mouth = (np.abs(y - y0 - 0.15 * height) < 1 + 3 * (k % 3)) & (np.abs(x - x0) < 0.1 * width)
        frames[k, :, mouth] = (90, 30, 30)
    return torch.from_numpy(frames.round().clip(0, 255).astype(np.uint8))


def make(seed: int = 0, video: bool = True, audio: bool = True) -> Clip:
    """Return a clip of 2 s with these tracks."""
    frames = face_frames(seed=seed) if video else None
    times = torch.arange(round(SECONDS * FPS), dtype=torch.float64) / FPS if video else None
    sound = speech(seed) if audio else None
    return Clip(frames, times, sound, 0.0, SECONDS, f"clip{seed}.mp4", ["a note"])


def copy_of(clip: Clip) -> Clip:
    return pickle.loads(pickle.dumps(clip))


def assert_same(first: Clip, second: Clip) -> None:
    for name in ("frames", "timestamps", "audio"):
        a, b = getattr(first, name), getattr(second, name)
        assert (a is None and b is None) or torch.equal(a, b), name
    assert (first.start, first.end, first.name) == (second.start, second.end, second.name)
    assert first.warnings == second.warnings

"""Seeded changes to clips: augmentation that keeps a verdict, and local disturbances with known place and time."""

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F

from ..media import SAMPLING_RATE, Clip

GRID = 4
"""Pictures are asked about in GRID x GRID cells."""


def augment(clip: Clip, rng: np.random.Generator) -> Clip:
    """
    Changes what a verdict must not depend on: side, framing, colours, brightness, loudness, tone.

    The same change for all frames of a clip, so that nothing flickers that did not before.

    Args:
        clip ([`Clip`]): The clip; it is not modified.
        rng (`np.random.Generator`): Decides everything.
    """
    changes = {}
    if clip.frames is not None:
        frames = clip.frames.float() / 255
        if rng.random() < 0.5:
            frames = frames.flip(-1)
        frames = _reframe(frames, rng)
        frames = _recolour(frames, rng)
        changes["frames"] = (frames.clamp(0, 1) * 255).round().to(torch.uint8)
    if clip.audio is not None:
        gain = 10 ** (rng.uniform(-6, 3) / 20)
        tilt = rng.uniform(-0.3, 0.3)
        delayed = F.pad(clip.audio, (1, 0))[:-1]
        audio = gain * (clip.audio + tilt * delayed)
        changes["audio"] = audio.clamp(-1, 1)
    return dataclasses.replace(clip, **changes)


def _reframe(frames: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Cuts off up to a tenth on each side and scales back."""
    height, width = frames.shape[-2:]
    top, bottom = (int(rng.uniform(0, 0.1) * height) for _ in range(2))
    left, right = (int(rng.uniform(0, 0.1) * width) for _ in range(2))
    cut = frames[..., top : height - bottom, left : width - right]
    return F.interpolate(cut, size=(height, width), mode="bilinear", align_corners=False, antialias=True)


def _recolour(frames: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Mixes the channels a little, and changes contrast and brightness."""
    mix = torch.eye(3) + torch.from_numpy(rng.normal(0, 0.12, (3, 3))).float()
    frames = torch.einsum("ij,tjhw->tihw", mix / mix.sum(1, keepdim=True), frames)
    mean = frames.mean()
    return (frames - mean) * float(rng.uniform(0.7, 1.3)) + mean + float(rng.uniform(-0.1, 0.1))


def disturb_picture(clip: Clip, rng: np.random.Generator) -> tuple[Clip, np.ndarray]:
    """
    Re-renders a soft ellipse of the picture badly: blurred, off in colour, or flickering.

    Returns:
        The clip, and which cells `(GRID, GRID)` of the picture are disturbed.
    """
    frames = clip.frames.float() / 255
    steps, _, height, width = frames.shape
    y, x = np.mgrid[0:height, 0:width]
    cy, cx = rng.uniform(0.3, 0.75) * height, rng.uniform(0.3, 0.7) * width
    ry, rx = rng.uniform(0.12, 0.4) * height, rng.uniform(0.15, 0.4) * width
    distance = np.sqrt(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2)
    mask = torch.from_numpy(1 / (1 + np.exp((distance - 1) * 12))).float()
    bad = frames
    kinds = rng.random(3) < 0.55
    if not kinds.any():
        kinds[rng.integers(3)] = True
    if kinds[0]:
        factor = float(rng.uniform(0.2, 0.45))
        small = F.interpolate(bad, scale_factor=factor, mode="bilinear", antialias=True, align_corners=False)
        bad = F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)
    if kinds[1]:
        bad = bad + torch.from_numpy(rng.normal(0, 0.08, (1, 3, 1, 1))).float()
    if kinds[2]:
        bad = bad * torch.from_numpy(1 + rng.normal(0, 0.06, (steps, 1, 1, 1))).float()
    mixed = frames + mask * (bad - frames)
    cells = F.adaptive_avg_pool2d(mask[None, None], GRID)[0, 0].numpy() > 0.5
    return dataclasses.replace(clip, frames=(mixed.clamp(0, 1) * 255).round().to(torch.uint8)), cells


def disturb_sound(clip: Clip, rng: np.random.Generator) -> tuple[Clip, tuple[float, float]]:
    """
    Re-synthesises a passage of the sound from its smoothed spectrum with random phases, as a vocoder without care.

    Returns:
        The clip, and the passage `(start, end)` in seconds.
    """
    audio = clip.audio
    seconds = len(audio) / SAMPLING_RATE
    length = rng.uniform(0.3, 1.0) * seconds
    start = rng.uniform(0, seconds - length)
    window = torch.hann_window(512)
    spectrum = torch.stft(audio, 512, 128, window=window, return_complex=True)
    power = spectrum.abs()
    width = int(rng.integers(1, 6)) * 2 + 1
    smooth = F.avg_pool1d(power.T[:, None], width, stride=1, padding=width // 2)[:, 0].T
    phase = torch.from_numpy(rng.uniform(-np.pi, np.pi, power.shape)).float()
    fake = torch.istft(torch.polar(smooth, phase), 512, 128, window=window, length=len(audio))
    a, b = int(start * SAMPLING_RATE), int((start + length) * SAMPLING_RATE)
    fake = fake * (audio[a:b].square().mean().sqrt() / fake[a:b].square().mean().sqrt().clamp(min=1e-6))
    ramp = torch.zeros(len(audio))
    ramp[a:b] = 1
    ramp = F.avg_pool1d(ramp[None], 161, stride=1, padding=80)[0]
    mixed = audio + ramp * (fake - audio)
    return dataclasses.replace(clip, audio=mixed.clamp(-1, 1)), (start, start + length)

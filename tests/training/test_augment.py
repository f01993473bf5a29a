"""Augmentation of training clips: stretched sound keeps its pitch, and all frames are changed alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modeling_avlmm.media import Clip
from modeling_avlmm.training.augment import augment_clip, stretch


def sine(hertz: float, seconds: float = 1.0) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * 16_000)) / 16_000)


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
def test_stretched_sound_keeps_pitch_and_length(speed):
    audio = sine(500)
    audio[8_000:] = sine(2_000)[8_000:]  # the note changes in the middle
    out = stretch(audio, speed)
    assert out.shape == audio.shape
    change = round(8_000 / speed)
    for part, hertz in ((out[2_000 : change - 1_000], 500), (out[change + 1_000 : 12_000], 2_000)):
        spectrum = torch.fft.rfft(part * torch.hann_window(len(part))).abs()
        assert float(spectrum.argmax()) * 16_000 / len(part) == pytest.approx(hertz, abs=10)
    if speed > 1:
        assert out[round(16_000 / speed) + 600 :].abs().max() == 0
    assert torch.equal(stretch(audio[:100], speed), audio[:100])  # too short to stretch


def test_augmentation_treats_all_frames_alike_and_keeps_its_input():
    frames = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8).expand(4, -1, -1, -1).clone()
    clip = Clip(frames, torch.arange(4.0).double(), sine(300), 0.0, 1.0, "x")
    before = frames.clone()
    seen = set()
    for seed in range(30):
        out = augment_clip(clip, np.random.default_rng(seed))
        assert out.frames.dtype == torch.uint8 and out.frames.shape == frames.shape
        assert all(torch.equal(out.frames[0], frame) for frame in out.frames)
        assert out.audio.shape == clip.audio.shape and out.timestamps is clip.timestamps
        seen.add(out.frames[0].numpy().tobytes())
    assert len(seen) > 20 and torch.equal(clip.frames, before)
    silent = augment_clip(Clip(None, None, sine(300), 0.0, 1.0, "x"), np.random.default_rng(0))
    assert silent.frames is None and silent.audio is not None

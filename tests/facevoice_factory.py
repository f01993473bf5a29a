"""A small facevoice and rows for it: `from facevoice_factory import tiny`."""

from __future__ import annotations

from pathlib import Path

import torch
from ssavd_factory import stir

from modeling_avlmm import FaceVoiceConfig, FaceVoiceForDeepfakeDetection, FaceVoiceProcessor

TINY = {
    "backbone": "test_efficientnet",
    "image_size": 32,
    "num_frames": 4,
    "clip_seconds": 0.8,
    "sound_options": {"widths": [4, 8], "embedding": 8},
}
"""A network for rows of 0.8 s, of four crops."""
SMALL = {**TINY, "image_size": 64, "num_frames": 10, "clip_seconds": 2.0}
"""A network for rows of 2 s that reads real files."""


def tiny(seed: int = 0, **options) -> FaceVoiceForDeepfakeDetection:
    """Return a small network with weights and norms far from their initial values, so that each of them matters."""
    torch.manual_seed(seed)
    model = FaceVoiceForDeepfakeDetection(FaceVoiceConfig(**{**TINY, **options}))
    stir(model)
    with torch.no_grad():  # log-odds of a few units, as of a trained network
        model.picture_head[1].weight.div_(50)
        model.picture_head[1].bias.div_(50)
        model.sound.head.weight.mul_(10)
    return model.eval()


def batch(config: FaceVoiceConfig, size: int = 3, seed: int = 1) -> dict[str, torch.Tensor]:
    """Return random rows, all of whose crops and sound are there."""
    generator = torch.Generator().manual_seed(seed)
    shape = (size, config.num_frames, 3, config.image_size, config.image_size)
    return {
        "pixel_values": torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
        "audio_values": 0.1 * torch.randn(size, config.audio_samples, generator=generator),
    }


def save_tiny(folder: Path, **options) -> Path:
    """Save a small detector with its processor."""
    model = tiny(**options)
    model.save_pretrained(folder)
    FaceVoiceProcessor.from_config(model.config, speech_only=False).save_pretrained(folder)
    return folder

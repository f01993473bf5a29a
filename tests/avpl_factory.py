"""A small AVPL and clips for it: `from avpl_factory import tiny`."""

from __future__ import annotations

from pathlib import Path

import torch

from modeling_avlmm import AVPLConfig, AVPLForDeepfakeDetection
from modeling_avlmm.training.tiny.encoders import make_tiny_encoders, save_encoders

TINY = {"num_frames": 6, "clip_seconds": 1.0, "align_width": 16, "head_width": 8, "carry_width": 4}
ENCODERS = ("vision_encoder.", "audio_encoder.")


def tiny_config(**options) -> AVPLConfig:
    vision, audio = make_tiny_encoders()
    parts = {"vision_config": vision.config.to_dict(), "audio_config": audio.config.to_dict()}
    return AVPLConfig(**{**parts, **TINY, **options})


def tiny(seed: int = 0, **options) -> AVPLForDeepfakeDetection:
    """Return a small network with trained parts far from their initial values, so that each of them matters."""
    torch.manual_seed(seed)
    return stir(AVPLForDeepfakeDetection(tiny_config(**options)))


def stir(model: AVPLForDeepfakeDetection) -> AVPLForDeepfakeDetection:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.startswith(ENCODERS):
                weight.add_(0.3 * torch.randn_like(weight))
    return model.eval()


def save_tiny_encoders(folder: Path, seed: int = 0) -> dict[str, str]:
    """Save two checkpoints, and return the options that name them."""
    vision, audio = save_encoders(*make_tiny_encoders(seed=seed), folder)
    return {"vision_encoder": str(vision), "audio_encoder": str(audio)}


def batch(config: AVPLConfig, size: int = 3, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (size, config.num_frames, 3, config.image_size, config.image_size)
    spectra = (size, config.audio_config.num_mel_bins, 2 * config.num_audio_tokens + 1)
    times = torch.arange(config.num_frames) * config.clip_seconds / config.num_frames
    return {
        "pixel_values": torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
        "input_features": 0.5 * torch.randn(spectra, generator=generator),
        "frame_times": times.repeat(size, 1),
    }

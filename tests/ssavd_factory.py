"""A small SSAVD and clips for it: `from ssavd_factory import tiny`."""

from __future__ import annotations

from pathlib import Path

import torch

from modeling_avlmm import SSAVDConfig, SSAVDForDeepfakeDetection, SSAVDProcessor

TINY = {
    "channels": (4, 8),
    "depths": (1, 1),
    "num_frames": 4,
    "image_size": 56,
    "audio_samples": 3200,
    "num_filters": 8,
    "filter_length": 31,
}
SMALL = {
    "channels": (4, 4),
    "depths": (1, 1),
    "num_frames": 8,
    "image_size": 56,
    "audio_samples": 32_000,
    "frontend": "fast",
}
"""A network for clips of 2 s that reads real files."""
IGNORE = -100


def tiny(seed: int = 0, **options) -> SSAVDForDeepfakeDetection:
    """Return a small network with branches and norms far from their initial values, so that each of them matters."""
    torch.manual_seed(seed)
    model = SSAVDForDeepfakeDetection(SSAVDConfig(**{**TINY, **options}))
    stir(model)
    return model.eval()


def stir(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if name.endswith("scale"):
                weight.uniform_(0.5, 1.5)
            elif not name.endswith("_hz"):
                weight.add_(0.2 * torch.randn_like(weight))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.2)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)


def batch(config: SSAVDConfig, size: int = 3, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (size, config.num_frames, 3, config.image_size, config.image_size)
    return {
        "pixel_values": torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
        "audio_values": 0.1 * torch.randn(size, config.audio_samples, generator=generator),
    }


def tensor(*values) -> torch.Tensor:
    return torch.tensor(values)


LABELS = {"labels": tensor(1, 0, 1), "video_labels": tensor(0, 0, 1), "audio_labels": tensor(1, 0, 0)}
"""A clip with a made-up voice, a genuine one, and one with a made-up picture."""


def save_small(folder: Path, **options) -> Path:
    """Save a small detector for clips of 2 s with its processor; its scores lie far apart."""
    torch.manual_seed(0)
    config = SSAVDConfig(**SMALL | options)
    model = SSAVDForDeepfakeDetection(config).eval()
    with torch.no_grad():
        for head in (model.head, model.video_head, model.audio_head):
            head.weight.normal_(0, 3)
    model.save_pretrained(folder)
    SSAVDProcessor.from_config(config).save_pretrained(folder)
    return folder

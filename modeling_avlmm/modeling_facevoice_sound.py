"""The sound network of facevoice: from a waveform to the log-odds that it is synthetic."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers.audio_utils import mel_filter_bank

from .configuration_facevoice import HOP, SAMPLING_RATE, FaceVoiceConfig

WINDOW = 400
BANDS = 64
CHANNELS = (16, 32, 64)
QUIETEST = 1e-6


class SoundNetwork(nn.Module):
    """
    A small convolutional network on log-mel spectra (our own).

    Args:
        config ([`FaceVoiceConfig`]): The configuration; `sound_options` may hold `channels`.

    Raises:
        ValueError: For an unknown `sound_network`.
    """

    def __init__(self, config: FaceVoiceConfig):
        super().__init__()
        if config.sound_network != "mel_cnn":
            raise ValueError(f"sound_network must be 'mel_cnn', not {config.sound_network!r}.")
        channels = (config.sound_options or {}).get("channels", CHANNELS)
        # Whatever the default type is while a checkpoint is loaded, filters are float32.
        self.register_buffer(
            "fourier", torch.empty(2 * (WINDOW // 2 + 1), 1, WINDOW, dtype=torch.float32), persistent=False
        )
        self.register_buffer(
            "mel", torch.empty(BANDS, WINDOW // 2 + 1, dtype=torch.float32), persistent=False
        )
        self.norm = nn.BatchNorm2d(1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
            )
            for width, out in zip((1, *channels[:-1]), channels, strict=True)
        )
        self.head = nn.Linear(channels[-1], 1)

    def initial_buffers(self) -> dict[str, torch.Tensor]:
        """Return the fixed filters by name. They are not saved, and filled in whenever the network is made."""
        time = torch.arange(WINDOW, dtype=torch.float64)
        angle = 2 * math.pi / WINDOW * torch.arange(WINDOW // 2 + 1, dtype=torch.float64)[:, None] * time
        waves = torch.cat([angle.cos(), -angle.sin()]) * torch.hann_window(WINDOW, dtype=torch.float64)
        bands = mel_filter_bank(
            WINDOW // 2 + 1, BANDS, 20.0, SAMPLING_RATE / 2, SAMPLING_RATE, mel_scale="htk"
        )
        return {"fourier": waves[:, None].float(), "mel": torch.from_numpy(bands.T).float().contiguous()}

    def forward(self, audio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        Return the log-odds that speech is synthetic, shape `(batch_size,)`.

        Args:
            audio (`torch.FloatTensor` of shape `(batch_size, samples)`): Sound at 16 kHz in [-1, 1], zeros after its end.
            mask (`torch.BoolTensor` of shape `(batch_size, samples // 160)`):
                True for every 10 ms that hold sound. The verdict on a row without any means nothing.
        """
        side = (WINDOW - HOP) // 2
        waves = F.conv1d(F.pad(audio[:, None], (side, side)), self.fourier, stride=HOP)
        power = waves.unflatten(1, (2, -1)).square().sum(1)
        features = self.norm((self.mel @ power).clamp(min=QUIETEST).log()[:, None])
        heard = mask[:, None, None].to(features.dtype)
        for block in self.blocks:
            features = block(features * heard)
            heard = heard[..., ::2]
        weights = heard.squeeze((1, 2))
        pooled = (features.mean(2) * weights[:, None]).sum(-1) / weights.sum(-1, keepdim=True).clamp(min=1)
        return self.head(pooled).squeeze(-1)


__all__ = ["SoundNetwork"]

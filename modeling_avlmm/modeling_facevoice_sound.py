"""The sound network of facevoice: from a waveform to the log-odds that the speech in it is synthetic."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_facevoice import HOP, SAMPLING_RATE, FaceVoiceConfig

VIEWS = {"long": (512, 160), "short": (128, 40)}
"""Window and step of each spectrogram in samples: 32 ms show harmonics, 8 ms the single beats of the voice."""

LOW_HZ, HIGH_HZ = 100.0, 7200.0
TILT_HZ = 800.0
QUIETEST = 1e-6
WIDTHS = (16, 32, 64)
EMBEDDING = 96


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al., CVPR 2016), then every second value of both axes."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out))
        self.second = nn.Sequential(nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out))
        self.shortcut = nn.Conv2d(width, out, 1, bias=False) if width != out else nn.Identity()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        changed = self.second(F.relu(self.first(features)))
        return F.avg_pool2d(F.relu(self.shortcut(features) + changed), 2, ceil_mode=True)


class SpectrogramBranch(nn.Module):
    """
    A residual network on one log spectrogram with linear frequency.

    Vocoders leave their traces between the harmonics and in how the bands move together, which a mel scale blurs. The
    long-term tone colour is taken out in bands of 800 Hz: it tells rooms and microphones, not synthesisers. Frequencies
    above 7.2 kHz are left out, where resampling filters differ.

    Args:
        window, step (`int`): Length of the Hann window and the step, in samples.
        widths (`tuple[int]`): Channels of each residual block.
        embedding (`int`): Channels of the result.
    """

    def __init__(self, window: int, step: int, widths: tuple[int, ...], embedding: int):
        super().__init__()
        self.window, self.step = window, step
        first, last = (round(hz / SAMPLING_RATE * window) for hz in (LOW_HZ, HIGH_HZ))
        self.bins = range(first, last + 1)
        self.tilt = 2 * round(TILT_HZ / SAMPLING_RATE * window / 2) + 1
        self.register_buffer("fourier", self.initial_buffers()["fourier"], persistent=False)
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], (5, 5), padding=2, stride=(2, 1), bias=False), nn.BatchNorm2d(widths[0])
        )
        self.blocks = nn.Sequential(*map(ResidualBlock, (widths[0], *widths[:-1]), widths))
        height = math.ceil(len(self.bins) / 2)
        for _ in range(len(widths) + 1):
            height = math.ceil(height / 2)
        self.gather = nn.Conv2d(widths[-1], embedding, (height, 1), bias=False)
        self.norm = nn.BatchNorm2d(embedding)

    def initial_buffers(self) -> dict[str, torch.Tensor]:
        """Return the fixed filters by name, in float32. They are not saved, and made whenever the network is made."""
        # On the CPU, also where a checkpoint is loaded into a network without memory.
        exact = {"dtype": torch.float64, "device": "cpu"}
        time, bins = torch.arange(self.window, **exact), torch.tensor(self.bins, **exact)
        angle = 2 * math.pi / self.window * bins[:, None] * time
        waves = torch.cat([angle.cos(), -angle.sin()])
        return {"fourier": (waves * torch.hann_window(self.window, **exact))[:, None].float()}

    def spectrogram(self, audio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        Return log power without its long-term tilt, shape `(batch_size, bins, frames)`.

        Args:
            audio (`torch.FloatTensor` of shape `(batch_size, samples)`): Sound.
            mask (`torch.FloatTensor` of shape `(batch_size, samples // 160)`): 1 for every 10 ms that hold sound.
        """
        side = (self.window - self.step) // 2
        waves = F.conv1d(F.pad(audio[:, None], (side, side)), self.fourier, stride=self.step)
        power = waves.unflatten(1, (2, -1)).square().sum(1)
        heard = mask.repeat_interleave(HOP // self.step, 1)[:, None, : power.shape[-1]]
        length = heard.sum(-1, keepdim=True).clamp(min=1)
        level = (power * heard).sum((1, 2), keepdim=True) / (length * len(self.bins)) + 1e-12
        log_power = (power / level).clamp(min=QUIETEST).log()
        mean = (log_power * heard).sum(-1, keepdim=True) / length
        smooth = F.avg_pool1d(
            mean.transpose(1, 2), self.tilt, stride=1, padding=self.tilt // 2, count_include_pad=False
        )
        return (log_power - smooth.transpose(1, 2)) * heard / 3

    def forward(self, audio: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features over time `(batch_size, embedding, moments)` and their weights `(batch_size, 1, moments)`."""
        features = self.blocks(
            F.avg_pool2d(F.relu(self.stem(self.spectrogram(audio, mask)[:, None])), 2, ceil_mode=True)
        )
        features = F.relu(self.norm(self.gather(features))).squeeze(2)
        heard = mask.repeat_interleave(HOP // self.step, 1)[:, None]
        for _ in range(len(self.blocks) + 1):
            heard = F.avg_pool1d(heard, 2, ceil_mode=True)
        return features, heard[..., : features.shape[-1]]


class SoundNetwork(nn.Module):
    """
    Residual networks on a spectrogram with long and one with short windows (our own).

    Features are averaged over time, with their deviations beside them, so that a row may have any length.

    Args:
        config ([`FaceVoiceConfig`]):
            The configuration. `sound_options` may hold `views` (names of `VIEWS`), `widths`, `embedding` and `dropout`.

    Raises:
        ValueError: For an unknown `sound_network`, option or view.
    """

    def __init__(self, config: FaceVoiceConfig):
        super().__init__()
        if config.sound_network != "residual_spectra":
            raise ValueError(f"sound_network must be 'residual_spectra', not {config.sound_network!r}.")
        options = {"views": list(VIEWS), "widths": WIDTHS, "embedding": EMBEDDING, "dropout": 0.3}
        unknown = set(config.sound_options or {}) - set(options)
        if unknown:
            raise ValueError(f"sound_options has no {sorted(unknown)}; it may hold {', '.join(options)}.")
        options |= config.sound_options or {}
        if not options["views"] or not set(options["views"]) <= set(VIEWS):
            raise ValueError(
                f"sound_options.views must name some of {', '.join(VIEWS)}, not {options['views']}."
            )
        self.branches = nn.ModuleDict(
            {
                name: SpectrogramBranch(*VIEWS[name], tuple(options["widths"]), options["embedding"])
                for name in options["views"]
            }
        )
        self.dropout = nn.Dropout(options["dropout"])
        self.head = nn.Linear(2 * options["embedding"] * len(self.branches), 1)

    def forward(self, audio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        Return the log-odds that speech is synthetic, shape `(batch_size,)`.

        Args:
            audio (`torch.FloatTensor` of shape `(batch_size, samples)`): Sound at 16 kHz in [-1, 1], zeros after its end.
            mask (`torch.BoolTensor` of shape `(batch_size, samples // 160)`):
                True for every 10 ms that hold sound. The verdict on a row without any means nothing.
        """
        mask = mask.to(audio.dtype)
        pooled = []
        for branch in self.branches.values():
            features, heard = branch(audio, mask)
            weights = heard / heard.sum(-1, keepdim=True).clamp(min=1e-3)
            mean = (features * weights).sum(-1)
            variance = ((features - mean[..., None]).square() * weights).sum(-1)
            pooled += [mean, (variance + 1e-4).sqrt()]
        return self.head(self.dropout(torch.cat(pooled, 1))).squeeze(-1)


__all__ = ["SoundNetwork", "SpectrogramBranch"]

"""
Small neural vocoders, trained in minutes on the genuine recordings that a detector is trained on.

They sound rough. What matters are the traces that they share with large ones: grids of transposed convolutions as in HiFi-GAN
(Kong et al., NeurIPS 2020), bands put together as in multi-band MelGAN (Yang et al., SLT 2021), spectra whose phases a network
guessed as in Vocos (Siuzdak, ICLR 2024). Sizes, losses and schedules are our own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers.audio_utils import mel_filter_bank

from ...media import SAMPLING_RATE
from .synthetic_speech import at_rate

MEL_BANDS = 80
LOSS_WINDOWS = (512, 1024, 2048)
ADVERSARIAL_WINDOWS = (512, 1024)


@dataclass(frozen=True)
class VocoderDesign:
    """
    A small vocoder's architecture.

    Args:
        rate (`int`): Sampling rate in Hz.
        factors (`tuple[int]`): Upsampling factors; empty for a network that predicts spectra.
        hop (`int`): Samples from one mel frame to the next; the product of the factors times the bands.
        channels (`int`): Width of the first layer.
        bands (`int`): Bands that a learned filter puts together at the end.
        nearest (`bool`): Upsample by repeating values, with a convolution after it, in place of transposed convolutions.
    """

    rate: int
    factors: tuple[int, ...]
    hop: int
    channels: int
    bands: int = 1
    nearest: bool = False


DESIGNS = {
    "spectral_vocoder": VocoderDesign(22_050, (), 256, 192),
    "upsampling_vocoder": VocoderDesign(22_050, (8, 8, 4), 256, 128),
    "multiband_vocoder": VocoderDesign(24_000, (6, 5, 2), 240, 128, bands=4),
    "repeating_vocoder": VocoderDesign(16_000, (5, 5, 4, 2), 200, 128, nearest=True),
}
"""Architectures by name."""


class MelSpectrogram(nn.Module):
    """Log-mel spectra as vocoders take them, `(rows, samples)` to `(rows, 80, samples // hop)`."""

    def __init__(self, rate: int, hop: int):
        super().__init__()
        self.hop, self.size = hop, 1024 if rate > SAMPLING_RATE else 800
        bank = mel_filter_bank(self.size // 2 + 1, MEL_BANDS, 0.0, 8000.0, rate, "slaney", "slaney")
        self.register_buffer("bank", torch.from_numpy(bank.T.astype(np.float32)))
        self.register_buffer("window", torch.hann_window(self.size))

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        side = (self.size - self.hop) // 2
        padded = F.pad(sound[:, None], (side, side), mode="reflect")[:, 0]
        spectrum = torch.stft(
            padded, self.size, self.hop, window=self.window, center=False, return_complex=True
        )
        return (self.bank @ spectrum.abs()).clamp(min=1e-5).log()


class ConvNeXtBlock(nn.Module):
    """Mix over time, then over channels (Liu et al., CVPR 2022)."""

    def __init__(self, width: int):
        super().__init__()
        self.over_time = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.over_channels = nn.Sequential(
            nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width)
        )
        self.scale = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        mixed = self.over_channels(self.norm(self.over_time(features).transpose(1, 2)))
        return features + (self.scale * mixed).transpose(1, 2)


class SpectralGenerator(nn.Module):
    """Mel spectra to magnitudes and phases, and an inverse Fourier transform (Vocos)."""

    def __init__(self, design: VocoderDesign):
        super().__init__()
        self.hop, self.size, width = design.hop, 4 * design.hop, design.channels
        self.first = nn.Conv1d(MEL_BANDS, width, 7, padding=3)
        self.blocks = nn.Sequential(*(ConvNeXtBlock(width) for _ in range(4)))
        self.last = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, self.size + 2))
        self.register_buffer("window", torch.hann_window(self.size))

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        features = self.last(self.blocks(self.first(mel)).transpose(1, 2)).transpose(1, 2).float()
        magnitude, phase = features.chunk(2, 1)
        spectrum = torch.polar(magnitude.clamp(max=6).exp(), phase)
        spectrum = torch.cat([spectrum, spectrum[:, :, -1:]], 2)
        sound = torch.istft(spectrum, self.size, self.hop, window=self.window)
        return sound[:, : mel.shape[2] * self.hop]


class UpsamplingGenerator(nn.Module):
    """Mel spectra to sound by upsampling layers with dilated convolutions between them (MelGAN, HiFi-GAN)."""

    def __init__(self, design: VocoderDesign):
        super().__init__()
        self.factors, self.bands, width = design.factors, design.bands, design.channels
        self.first = nn.Conv1d(MEL_BANDS, width, 7, padding=3)
        self.upsample, self.refine = nn.ModuleList(), nn.ModuleList()
        for factor in design.factors:
            narrow = max(width // 2, 16)
            if design.nearest:
                after = nn.Conv1d(width, narrow, 2 * factor + 1, padding=factor)
                layer = nn.Sequential(nn.Upsample(scale_factor=factor), after)
            else:
                odd = factor % 2
                layer = nn.ConvTranspose1d(width, narrow, 2 * factor, factor, factor // 2 + odd, odd)
            self.upsample.append(layer)
            width = narrow
            self.refine.append(
                nn.ModuleList(
                    nn.Conv1d(width, width, kernel, padding=dilation * (kernel // 2), dilation=dilation)
                    for kernel, dilation in ((3, 1), (3, 3), (7, 1))
                )
            )
        self.last = nn.Conv1d(width, self.bands, 7, padding=3)
        self.together = nn.ConvTranspose1d(self.bands, 1, 64, self.bands, 30) if self.bands > 1 else None

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        features, length = self.first(mel), mel.shape[2]
        for factor, upsample, refine in zip(self.factors, self.upsample, self.refine, strict=True):
            length *= factor
            features = upsample(F.leaky_relu(features, 0.1))[..., :length]
            for layer in refine:
                features = features + layer(F.leaky_relu(features, 0.1))
        sound = self.last(F.leaky_relu(features, 0.1))
        if self.together is not None:
            sound = self.together(sound)[..., : length * self.bands]
        return torch.tanh(sound.float()[:, 0])


class SmallVocoder(nn.Module):
    """
    A vocoder of one design: `vocoder(sound, rate, rng)` copies sound `(samples,)` of its own rate.

    Args:
        design (`str`): Name in [`DESIGNS`].

    Raises:
        ValueError: for an unknown name.
    """

    def __init__(self, design: str):
        super().__init__()
        if design not in DESIGNS:
            raise ValueError(f"there is no vocoder {design!r}; there are {', '.join(DESIGNS)}.")
        self.design = DESIGNS[design]
        self.rate = self.design.rate
        self.mel = MelSpectrogram(self.design.rate, self.design.hop)
        generator = UpsamplingGenerator if self.design.factors else SpectralGenerator
        self.generator = generator(self.design)

    def copy(self, sound: torch.Tensor) -> torch.Tensor:
        """Return copies of `sound` `(rows, samples)`; samples must be a multiple of the design's hop."""
        return self.generator(self.mel(sound))

    def forward(self, sound: torch.Tensor, rate: int, rng: np.random.Generator) -> torch.Tensor:
        if rate != self.rate:
            raise ValueError(f"this vocoder copies sound at {self.rate} Hz, not {rate}.")
        padded = F.pad(sound[None], (0, -len(sound) % self.design.hop))
        with torch.no_grad():
            return self.copy(padded)[0, : len(sound)]


class SpectrogramCritic(nn.Module):
    """A discriminator on log spectra (UnivNet, Jang et al., Interspeech 2021); its features are compared as well."""

    def __init__(self, size: int, width: int = 16):
        super().__init__()
        self.size = size
        self.register_buffer("window", torch.hann_window(size))
        self.layers = nn.ModuleList(
            nn.Conv2d(before, width, (5, 3), (2, 2), (2, 1)) for before in (1, width, width)
        )
        self.last = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, sound: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        features = _magnitude(sound, self.size, self.window).log()[:, None] * 0.3
        kept = []
        for layer in self.layers:
            features = F.leaky_relu(layer(features), 0.1)
            kept.append(features)
        return self.last(features), kept


def _magnitude(sound: torch.Tensor, size: int, window: torch.Tensor) -> torch.Tensor:
    spectrum = torch.stft(sound, size, size // 4, window=window, return_complex=True)
    return spectrum.abs().clamp(min=1e-4)


def spectral_distance(sound: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the multi-resolution spectral distance of Parallel WaveGAN (Yamamoto et al., ICASSP 2020)."""
    distance = sound.new_zeros(())
    for size in LOSS_WINDOWS:
        made, wanted = (_magnitude(part, size, torch.hann_window(size)) for part in (sound, target))
        distance = distance + (made - wanted).norm() / wanted.norm()
        distance = distance + (made.log() - wanted.log()).abs().mean()
    return distance / len(LOSS_WINDOWS)


def _adversarial_loss(critics: nn.ModuleList, copy: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    loss = copy.new_zeros(())
    for critic in critics:
        with torch.no_grad():
            wanted = critic(target)[1]
        verdict, features = critic(copy)
        compared = sum((a - b).abs().mean() for a, b in zip(features, wanted, strict=True))
        loss = loss - 0.25 * verdict.mean() + 0.5 * compared / len(features)
    return loss


def _segments(
    recordings: list[torch.Tensor], length: int, rows: int, rng: np.random.Generator
) -> torch.Tensor:
    chosen = [recordings[int(i)] for i in rng.integers(len(recordings), size=rows)]
    starts = [int(rng.integers(len(sound) - length + 1)) for sound in chosen]
    batch = torch.stack([sound[at : at + length] for sound, at in zip(chosen, starts, strict=True)])
    peak = batch.abs().amax(1, keepdim=True).clamp(min=1e-3)
    return batch / peak * torch.from_numpy(rng.uniform(0.3, 0.95, (rows, 1)).astype(np.float32))


def train_vocoder(
    recordings: Sequence[torch.Tensor], design: str, rng: np.random.Generator, steps: int = 400
) -> SmallVocoder:
    """
    Train a small vocoder to copy genuine speech.

    The spectral distance alone leads for 60 % of the steps, critics join after that.

    Args:
        recordings (`Sequence[torch.Tensor]`): Genuine speech `(samples,)` at 16 kHz. Shorter ones than about 0.5 s are
            not used.
        design (`str`): Name in [`DESIGNS`].
        rng (`np.random.Generator`): Draws the initial weights and the segments.
        steps (`int`, *optional*, defaults to 400): Batches of 8 segments; about 1 to 4 minutes on one core.

    Returns:
        [`SmallVocoder`]: The vocoder in evaluation mode.

    Raises:
        ValueError: if no recording is long enough, or the design is unknown.
    """
    torch.manual_seed(int(rng.integers(2**31)))
    vocoder = SmallVocoder(design)
    length = vocoder.design.hop * 32
    usable = [at_rate(sound, SAMPLING_RATE, vocoder.rate) for sound in recordings]
    usable = [sound for sound in usable if len(sound) >= length]
    if not usable:
        raise ValueError(f"no recording is long enough: {length / vocoder.rate:.2f} s of speech are needed.")
    critics = nn.ModuleList(SpectrogramCritic(size) for size in ADVERSARIAL_WINDOWS)
    ours, theirs = (torch.optim.AdamW(m.parameters(), 1e-3, (0.8, 0.99)) for m in (vocoder, critics))
    for step in range(steps):
        for group in ours.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 30) * (1 - 0.8 * step / steps)
        target = _segments(usable, length, 8, rng)
        copy = vocoder.copy(target)
        loss = spectral_distance(copy, target)
        if step >= 0.6 * steps:
            verdicts = [(critic(target)[0], critic(copy.detach())[0]) for critic in critics]
            doubt = sum(F.relu(1 - real).mean() + F.relu(1 + made).mean() for real, made in verdicts)
            theirs.zero_grad()
            doubt.backward()
            theirs.step()
            loss = loss + _adversarial_loss(critics, copy, target)
        ours.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vocoder.parameters(), 5.0)
        ours.step()
    return vocoder.eval().requires_grad_(False)

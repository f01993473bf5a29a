"""
Faint traces of synthesis in speech that is otherwise the recording itself: the sound's counterpart of self-blended images.

A detector trained on copies that sound bad learns what bad copies have in common, and good vocoders pass. Here the recording
keeps most of its waveform, and only one trace is put into it, faint enough that nothing else can be learned. Kinds and amounts
are our own; the traces are those known of neural vocoders: fine structure lost in a mel filterbank, phases that are guessed
where frequency is high, images and grids of upsampling layers (Odena et al. 2016; Pons et al., ICASSP 2021).

Functions have the signature of a vocoder: `(sound (samples,), rate, rng)` to sound of the same length.
"""

import numpy as np
import torch
import torch.nn.functional as F

from .synthetic_speech import Spectra, mel_filters


def _numbers(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32))


def _above(bins: int, rate: int, edge: float) -> torch.Tensor:
    """Return weights `(bins, 1)` that rise from 0 to 1 around `edge` Hz."""
    return torch.sigmoid((torch.linspace(0, rate / 2, bins)[:, None] - edge) / 200)


def smeared_bands(sound: torch.Tensor, rate: int, rng: np.random.Generator) -> torch.Tensor:
    """Put magnitudes through a mel filterbank and back, or smooth them over time, and keep the recording's phases."""
    spectra = Spectra(int(rng.choice([512, 1024])), 256, len(sound))
    spectrum = spectra.analyse(sound)
    magnitude = spectrum.abs().clamp(min=1e-6)
    bank, back = mel_filters(
        rate, spectra.size, int(rng.choice([40, 60, 80, 80, 100])), min(rate / 2, 8000.0)
    )
    smeared = (back @ (bank @ magnitude)).clamp(min=1e-6)
    smeared = torch.where((bank.sum(0) > 0)[:, None], smeared, magnitude)
    if rng.random() < 0.4:
        smeared = F.avg_pool1d(smeared[None], 3, stride=1, padding=1, count_include_pad=False)[0]
    share = float(rng.uniform(0.5, 1))
    change = (smeared.log() - magnitude.log()).clamp(-4, 4) * share
    angle = _numbers(rng.standard_normal(spectrum.shape)) * float(rng.uniform(0, 0.4))
    return spectra.synthesise(spectrum * torch.polar(change.exp(), angle))


def guessed_highs(sound: torch.Tensor, rate: int, rng: np.random.Generator) -> torch.Tensor:
    """Disturb phases above a random frequency, as vocoders do that know only magnitudes."""
    size = int(rng.choice([256, 512, 1024]))
    spectra = Spectra(size, size // 4, len(sound))
    spectrum = spectra.analyse(sound)
    weight = _above(len(spectrum), rate, float(np.exp(rng.uniform(np.log(300), np.log(5000)))))
    angle = _numbers(rng.standard_normal(spectrum.shape)) * float(rng.uniform(0.3, 1.5))
    if rng.random() < 0.5:  # the same for neighbours in time: slow drift in place of roughness
        angle = F.avg_pool1d(angle[None], 5, stride=1, padding=2)[0] * 2
    return spectra.synthesise(spectrum * torch.polar(torch.ones_like(angle), angle * weight))


def noisy_texture(sound: torch.Tensor, rate: int, rng: np.random.Generator) -> torch.Tensor:
    """Multiply spectra with noise in time and frequency: the rough or watery texture of generated magnitudes."""
    size = int(rng.choice([512, 1024]))
    spectra = Spectra(size, size // 4, len(sound))
    spectrum = spectra.analyse(sound)
    noise = _numbers(rng.standard_normal(spectrum.shape))
    width = int(rng.choice([1, 3, 5]))
    noise = F.avg_pool2d(noise[None], width, stride=1, padding=width // 2)[0] * width
    return spectra.synthesise(spectrum * (noise * float(rng.uniform(0.15, 0.5))).exp())


def upsampling_traces(sound: torch.Tensor, rate: int, rng: np.random.Generator) -> torch.Tensor:
    """Add images of the spectrum and patterns that repeat with the hop, as transposed convolutions leave them."""
    samples = torch.arange(len(sound))
    factor = int(rng.choice([2, 4, 8]))
    made = sound.clone()
    for image in range(1, factor // 2 + 1):
        mirrored = sound * torch.cos(2 * torch.pi * image / factor * samples)
        made = made + mirrored * 10 ** (-float(rng.uniform(22, 45)) / 20)
    hop = int(rng.choice([64, 128, 160, 200, 240, 256, 300]))
    pattern = np.fft.irfft(
        np.fft.rfft(rng.standard_normal(hop)) * (np.arange(hop // 2 + 1) < rng.integers(2, 40)), hop
    )
    pattern = _numbers(pattern / (np.abs(pattern).max() + 1e-9))[samples % hop]
    if rng.random() < 0.7:
        made = made * (1 + float(rng.uniform(0.02, 0.15)) * pattern)
    if rng.random() < 0.5:
        level = sound.square().mean().sqrt() * 10 ** (-float(rng.uniform(35, 60)) / 20)
        made = made + level * pattern
    return made


TRACES = {
    "smeared_bands": smeared_bands,
    "guessed_highs": guessed_highs,
    "noisy_texture": noisy_texture,
    "upsampling_traces": upsampling_traces,
}
"""Traces by name; they go where [`VOCODERS`] go."""

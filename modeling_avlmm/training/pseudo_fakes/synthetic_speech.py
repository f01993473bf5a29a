"""
Synthetic speech made from genuine recordings: each sentence beside its copy by a vocoder.

A detector that sees a recording and its own copy can only tell them apart by the traces of synthesis (copy synthesis; Wang
and Yamagishi, ICASSP 2023, arXiv 2210.10570). The vocoders here need nothing but NumPy and PyTorch. Small neural vocoders can
be trained on the same recordings ([`small_vocoders`][..small_vocoders]); speech of complete synthesisers comes from a folder.

All sound is mono float32 at 16 kHz in [-1, 1], of shape `(samples,)`.
"""

from collections.abc import Callable
from functools import lru_cache
from math import gcd

import numpy as np
import torch
from scipy.linalg import solve_toeplitz
from scipy.signal import lfilter, resample_poly
from transformers.audio_utils import mel_filter_bank

from ...media import SAMPLING_RATE
from ...speech_activity import LOWEST_PITCH, pitch
from .sound_channel import root_mean_square

Vocoder = Callable[[torch.Tensor, int, np.random.Generator], torch.Tensor]
"""Copies sound `(samples,)` of a given sampling rate: `vocoder(sound, rate, rng)`, of the same length."""

# Our own choices, by what published vocoders use.
RATES = (16_000, 22_050, 22_050, 24_000)
SHORTEST_SECONDS = 0.5
QUIETEST = 1e-5


def at_rate(sound: torch.Tensor, rate: int, new_rate: int) -> torch.Tensor:
    """Return sound of `rate` at `new_rate`."""
    if rate == new_rate:
        return sound
    common = gcd(rate, new_rate)
    resampled = resample_poly(sound.numpy(), new_rate // common, rate // common)
    return torch.from_numpy(resampled.astype(np.float32))


@lru_cache(maxsize=32)
def mel_filters(rate: int, size: int, bands: int, highest: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a mel filterbank `(bands, bins)` and its pseudo-inverse `(bins, bands)`."""
    bank = mel_filter_bank(
        size // 2 + 1, bands, 0.0, highest, rate, norm="slaney", mel_scale="slaney"
    ).T.astype(np.float32)
    return torch.from_numpy(bank), torch.from_numpy(np.linalg.pinv(bank).astype(np.float32))


class Spectra:
    """Short-time spectra `(bins, frames)` of sound of `length` samples in frames of `size`, `hop` apart."""

    def __init__(self, size: int, hop: int, length: int):
        self.size, self.hop, self.length = size, hop, length
        self.window = torch.hann_window(size)

    def analyse(self, sound: torch.Tensor) -> torch.Tensor:
        return torch.stft(sound, self.size, self.hop, window=self.window, return_complex=True)

    def synthesise(self, spectrum: torch.Tensor) -> torch.Tensor:
        return torch.istft(spectrum, self.size, self.hop, window=self.window, length=self.length)


def _random_spectra(sound: torch.Tensor, rate: int, rng: np.random.Generator) -> Spectra:
    size = int(rng.choice([1024, 1024, 2048] if rate > SAMPLING_RATE else [512, 800, 1024]))
    return Spectra(size, size // int(rng.choice([4, 5])), len(sound))


def griffin_lim(sound: torch.Tensor, rate: int, rng: np.random.Generator) -> torch.Tensor:
    """Copy by a mel spectrogram and phases of Griffin and Lim (IEEE TASSP 1984) with momentum (Perraudin et al. 2013)."""
    spectra = _random_spectra(sound, rate, rng)
    magnitude = spectra.analyse(sound).abs()
    if rng.random() < 0.75:
        highest = min(rate / 2, float(rng.choice([7600, 8000, 11025])))
        bank, back = mel_filters(rate, spectra.size, int(rng.choice([40, 64, 80, 80, 100, 128])), highest)
        magnitude = (back @ (bank @ magnitude)).clamp(min=QUIETEST)
        if rng.random() < 0.5:
            magnitude = magnitude ** float(rng.uniform(1, 1.3))
    momentum = float(rng.choice([0, 0.9, 0.99]))
    phase = rng.uniform(-np.pi, np.pi, size=magnitude.shape).astype(np.float32)
    guess, previous = torch.polar(magnitude, torch.from_numpy(phase)), None
    for _ in range(int(rng.choice([8, 16, 32]))):
        consistent = spectra.analyse(spectra.synthesise(guess))
        step = consistent if previous is None else consistent + momentum * (consistent - previous)
        previous = consistent
        guess = step * (magnitude / step.abs().clamp(min=1e-8))
    return spectra.synthesise(guess)


def lost_phase(sound: torch.Tensor, rate: int, rng: np.random.Generator) -> torch.Tensor:
    """Copy with noisy phases and slightly noisy magnitudes, as networks leave them that predict spectra."""
    spectra = _random_spectra(sound, rate, rng)
    spectrum = spectra.analyse(sound)
    phase = rng.standard_normal(spectrum.shape) * rng.uniform(0.4, 1.4)
    loudness = np.exp(rng.standard_normal(spectrum.shape) * rng.uniform(0, 0.3))
    change = torch.polar(*(torch.from_numpy(part.astype(np.float32)) for part in (loudness, phase)))
    return spectra.synthesise(spectrum * change)


def _excitation(sound: torch.Tensor, rate: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return a pulse train at the pitch of `sound`, noise and 1 where there is voice, each of its length."""
    hop = rate // 200
    hertz = np.repeat(pitch(sound, rate, hop).numpy(), hop)[: len(sound)]
    hertz = np.pad(hertz.astype(np.float64), (0, len(sound) - len(hertz))) * np.exp(rng.uniform(-0.12, 0.12))
    turns = np.floor(np.cumsum(hertz / rate))
    beats = np.flatnonzero(np.diff(turns, prepend=0) > 0)
    pulses = np.zeros(len(sound))
    pulses[beats] = np.sqrt(rate / np.maximum(hertz[beats], LOWEST_PITCH))
    return pulses, rng.standard_normal(len(sound)), (hertz > 0).astype(np.float64)


def source_filter(sound: torch.Tensor, rate: int, rng: np.random.Generator) -> torch.Tensor:
    """Copy by pulses and noise that get the mel spectrogram of the recording, as source-filter vocoders do."""
    spectra = Spectra(1024, 256 if rate > SAMPLING_RATE else 200, len(sound))
    bank, back = mel_filters(rate, spectra.size, int(rng.choice([40, 60, 80, 80])), rate / 2)
    envelope = (back @ (bank @ spectra.analyse(sound).abs())).clamp(min=QUIETEST)
    pulses, noise, voiced = _excitation(sound, rate, rng)
    parts = (pulses * voiced, noise * voiced, noise * (1 - voiced))
    beats, breath, unvoiced = (spectra.analyse(torch.from_numpy(part.astype(np.float32))) for part in parts)
    hertz = torch.linspace(0, rate / 2, len(beats))[:, None]
    breathy = torch.sigmoid((hertz - rng.uniform(2500, 6000)) / 600)
    source = beats * (1 - breathy) + breath * (breathy * 0.8 + rng.uniform(0.03, 0.2)) + unvoiced
    return spectra.synthesise(source * envelope / (back @ (bank @ source.abs())).clamp(min=1e-3))


def linear_prediction(sound: torch.Tensor, rate: int, rng: np.random.Generator) -> torch.Tensor:
    """Copy by linear prediction (Atal and Hanauer, JASA 1971), driven by pulses, pulses and noise, or a coarse residual."""
    size, order = round(0.03 * rate), int(rng.choice([16, 20, 24]))
    emphasised = lfilter([1, -0.95], [1], sound.numpy().astype(np.float64))
    pulses, noise, voiced = _excitation(sound, rate, rng)
    strength = {"pulses": (1, 0.05), "mixed": (0.8, 0.35), "residual": (0, 0)}
    mode = str(rng.choice(list(strength)))
    window, made = np.hanning(size), np.zeros(len(sound))
    for start in range(0, len(sound) - size, size // 2):
        span = slice(start, start + size)
        frame = emphasised[span] * window
        correlation = np.correlate(frame, frame, "full")[size - 1 : size + order]
        if correlation[0] < 1e-7:
            continue
        correlation[0] *= 1.0005
        predictor = np.r_[1, -solve_toeplitz(correlation[:order], correlation[1:])]
        residual = lfilter(predictor, [1], emphasised[span])
        level = np.sqrt((residual**2).mean())
        if mode == "residual":
            source = np.sign(residual) * (np.abs(residual) > 0.5 * level)
        else:
            beat, breath = strength[mode] if voiced[start + size // 2] else (0, 1)
            source = beat * pulses[span] + breath * noise[span]
        source = source * level / (np.sqrt((source**2).mean()) + 1e-9)
        made[span] += lfilter([1], predictor, source) * window
    return torch.from_numpy(lfilter([1], [1, -0.95], made).astype(np.float32))


VOCODERS: dict[str, Vocoder] = {
    "griffin_lim": griffin_lim,
    "lost_phase": lost_phase,
    "source_filter": source_filter,
    "linear_prediction": linear_prediction,
}
"""Vocoders that need no training, by name."""


def vocoded(
    sound: torch.Tensor, vocoder: Vocoder, rng: np.random.Generator, rate: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return genuine sound and its copy by a vocoder, both of which went through the vocoder's sampling rate.

    Args:
        sound (`torch.Tensor` of shape `(samples,)`): Genuine speech.
        vocoder (`Vocoder`): Copies it.
        rng (`np.random.Generator`): Draws everything else.
        rate (`int`, *optional*): The vocoder's rate in Hz. By default one is drawn.

    Raises:
        ValueError: for sound shorter than 0.5 s, or a copy that is silent or not finite.
    """
    if len(sound) < SHORTEST_SECONDS * SAMPLING_RATE:
        raise ValueError(
            f"{len(sound)} samples are too few: at least {SHORTEST_SECONDS} s of speech are needed to copy it."
        )
    rate = rate or int(rng.choice(RATES))
    original = at_rate(sound, SAMPLING_RATE, rate)
    with torch.no_grad():
        copy = vocoder(original, rate, rng)
    pair = [at_rate(part, rate, SAMPLING_RATE) for part in (original, copy)]
    length = min(len(sound), *map(len, pair))
    genuine, fake = (part[:length] for part in pair)
    level = root_mean_square(fake)
    if not (torch.isfinite(level) and level > 1e-7):
        raise ValueError("the vocoder returned silence or numbers that are not finite.")
    return genuine, fake * root_mean_square(genuine) / level


def one_band(genuine: torch.Tensor, fake: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return the fake above a random frequency of 0.5 to 5 kHz and the genuine sound below it, or the other way round."""
    hertz = np.linspace(0, SAMPLING_RATE / 2, len(genuine) // 2 + 1)
    edge = np.exp(rng.uniform(np.log(500), np.log(5000)))
    share = 1 / (1 + np.exp(-np.clip((hertz - edge) / 100, -50, 50)))
    share = torch.from_numpy((share if rng.random() < 0.5 else 1 - share).astype(np.float32))
    mixed = torch.lerp(torch.fft.rfft(genuine), torch.fft.rfft(fake), share.to(torch.complex64))
    return torch.fft.irfft(mixed, len(genuine))

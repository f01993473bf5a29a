"""A recording channel for training pairs of sound: genuine speech and its fake go through exactly the same one.

Rooms, microphones, noise, band limits and codecs differ more between recordings than synthesis does. Passed through one
channel, a pair differs by nothing but the synthesis; drawn anew for each pair, the channel teaches a detector to ignore it.
"""

from functools import lru_cache

import numpy as np
import torch

from ...media import SAMPLING_RATE

# Probabilities and amounts are our own choices.
EQUALISED, REVERBERANT, NOISY, BAND_LIMITED, CODED, OVERDRIVEN = 0.7, 0.25, 0.5, 0.35, 0.4, 0.1
MAX_PEAK = 0.999
SMALLEST = 1e-9
CODEC_BANDS = 24


def root_mean_square(sound: torch.Tensor) -> torch.Tensor:
    """Return the root mean square over the last axis, kept as an axis of length 1."""
    return sound.square().mean(-1, keepdim=True).sqrt()


def _tone(bins: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random frequency response in decibels: a smooth equaliser and the steep edge of a high-pass filter."""
    hertz = np.linspace(0, SAMPLING_RATE / 2, bins)
    octave = np.log2(np.maximum(hertz, 62.5) / 62.5)
    response = np.zeros(bins)
    if rng.random() < EQUALISED:
        response += np.interp(octave, np.linspace(0, 7, 8), rng.uniform(-8, 8, size=8))
    if rng.random() < 0.4:
        edge = rng.uniform(30, 250)
        response -= rng.uniform(12, 36) * np.log2(np.maximum(edge / np.maximum(hertz, 10), 1))
    return response


def _low_pass(bins: int, rng: np.random.Generator) -> np.ndarray:
    """Return the response in decibels of a low-pass filter as resamplers, codecs and telephones have it."""
    hertz = np.linspace(0, SAMPLING_RATE / 2, bins)
    edge = rng.choice([3400.0, rng.uniform(3500, 7900)], p=[0.2, 0.8])
    return -60 / (1 + np.exp(-np.clip((hertz - edge) / rng.uniform(20, 200), -50, 50)))


def _filtered(sound: torch.Tensor, decibels: np.ndarray) -> torch.Tensor:
    gain = torch.from_numpy(10 ** (decibels / 20)).to(torch.float32)
    return torch.fft.irfft(torch.fft.rfft(sound) * gain, sound.shape[-1])


def _room(rng: np.random.Generator) -> torch.Tensor:
    """Return the impulse response of a room: the direct sound and decaying noise (Polack's model)."""
    seconds = rng.uniform(0.1, 0.6)
    length = round(seconds * SAMPLING_RATE)
    tail = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    tail *= 10 ** (-rng.uniform(2, 18) / 20) / np.sqrt((tail**2).sum())
    tail[: round(rng.uniform(0.001, 0.01) * SAMPLING_RATE)] = 0
    tail[0] = 1
    return torch.from_numpy(tail.astype(np.float32))


def _convolved(sound: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    size = sound.shape[-1] + len(response)
    spectrum = torch.fft.rfft(sound, size) * torch.fft.rfft(response, size)
    return torch.fft.irfft(spectrum, size)[..., : sound.shape[-1]]


def _noise(length: int, rng: np.random.Generator) -> torch.Tensor:
    """Return coloured noise of root mean square 1, of a level that wanders in half of the cases."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    hertz = np.maximum(np.linspace(0, SAMPLING_RATE / 2, len(spectrum)), 50)
    spectrum *= hertz ** -rng.uniform(0, 1.2)
    noise = np.fft.irfft(spectrum, length)
    if rng.random() < 0.5:
        points = max(length // 8000, 2)
        noise *= np.interp(np.linspace(0, points - 1, length), np.arange(points), rng.uniform(0.3, 1, points))
    return torch.from_numpy((noise / np.sqrt((noise**2).mean())).astype(np.float32))


@lru_cache(maxsize=8)
def _cosines(size: int) -> torch.Tensor:
    """Return the windowed modified discrete cosine transform of `size` bins, shape `(2 size, size)`."""
    time, bins = np.arange(2 * size) + 0.5, np.arange(size) + 0.5
    waves = np.cos(np.pi / size * (time[:, None] + size / 2) * bins) * np.sqrt(2 / size)
    return torch.from_numpy((waves * np.sin(np.pi * time / (2 * size))[:, None]).astype(np.float32))


def coded(sound: torch.Tensor, size: int, coarseness: float) -> torch.Tensor:
    """
    Return sound as after a transform codec: rounded bands of a modified discrete cosine transform.

    MP3, AAC and Vorbis round the same way, in steps that follow the level of a band (Princen and Bradley, 1986, for the
    transform; how coarse is our own choice).

    Args:
        sound (`torch.Tensor` of shape `(rows, samples)`): Sound.
        size (`int`): Bins of the transform.
        coarseness (`float`): Step over the root mean square of a band, above 0; 0.5 is fine and 5 is coarse.
    """
    cosines, samples = _cosines(size), sound.shape[-1]
    padded = torch.nn.functional.pad(sound, (size, size + -samples % size))
    bins = padded.unfold(-1, 2 * size, size) @ cosines
    edges = np.unique(np.geomspace(3, size, CODEC_BANDS + 1).round().astype(int))
    for low, high in zip([0, *edges[:-1]], edges, strict=True):
        band = bins[..., low:high]
        quiet = root_mean_square(bins).amax(-2, keepdim=True) * 1e-3
        step = coarseness * (root_mean_square(band) ** 0.7 * quiet**0.3).clamp(min=SMALLEST)
        bins[..., low:high] = (band / step).round() * step
    frames = bins @ cosines.T
    first, second = frames[..., :size], frames[..., size:]
    return (second[..., :-1, :] + first[..., 1:, :]).flatten(-2)[..., :samples]


def same_channel(
    genuine: torch.Tensor, fake: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Send a genuine sound and its fake through one random channel.

    In this order: the fake gets the level of the genuine sound; tone and high-pass, a room, one and the same noise at a
    ratio of 5 to 40 dB, overdrive, a low-pass, a transform codec, a common gain and rounding to 16 bits. Each part is
    there by chance, with what is drawn the same for both.

    Args:
        genuine, fake (`torch.Tensor` of shape `(samples,)`): Float32 sound at 16 kHz in [-1, 1], of the same length.
        rng (`np.random.Generator`): Draws the channel.

    Returns:
        Both, of the same length.

    Raises:
        ValueError: for sounds of different lengths or shapes.
    """
    if genuine.ndim != 1 or genuine.shape != fake.shape:
        raise ValueError(
            f"a pair of sounds of one length is needed, not {(*genuine.shape,)} and {(*fake.shape,)}."
        )
    pair = torch.stack([genuine, fake])
    pair = pair / root_mean_square(pair).clamp(min=SMALLEST) * 0.1
    pair = _filtered(pair, _tone(pair.shape[-1] // 2 + 1, rng))
    if rng.random() < REVERBERANT:
        pair = _convolved(pair, _room(rng))
    pair = pair / root_mean_square(pair).clamp(min=SMALLEST) * 0.1
    if rng.random() < NOISY:
        pair = pair + _noise(pair.shape[-1], rng) * 0.1 * 10 ** (-rng.uniform(5, 40) / 20)
    if rng.random() < OVERDRIVEN:
        drive = rng.uniform(2, 8)
        pair = torch.tanh(pair * drive) / drive
    if rng.random() < BAND_LIMITED:
        pair = _filtered(pair, _low_pass(pair.shape[-1] // 2 + 1, rng))
    if rng.random() < CODED:
        pair = coded(pair, int(rng.choice([128, 256, 512])), float(np.exp(rng.uniform(-1, 2))))
    pair = pair * 10 ** (rng.uniform(-20, 10) / 20)
    pair = pair * (MAX_PEAK / pair.abs().amax().clamp(min=MAX_PEAK))
    genuine, fake = torch.round(pair * 32768) / 32768
    return genuine, fake

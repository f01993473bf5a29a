"""Synthesise speech for the demonstration benchmark: a small source-filter synthesiser and a crude vocoder.

An [`Utterance`] is a set of control tracks at 100 Hz (pitch, formants, gains, mouth opening and rounding). The same
tracks drive the sound, through [`synthesise`], and the mouth that `face.py` draws, so the two agree by construction.
[`vocode`] makes the "fake audio": it smooths the magnitude over mel bands and guesses the phase, an exaggeration of
what text-to-speech vocoders do.

Everything here is our own choice; it should be learnable in minutes, not sound human.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter1d, uniform_filter1d
from scipy.signal import istft, stft

SAMPLE_RATE = 16_000
CONTROL_RATE = 100
_HOP = SAMPLE_RATE // CONTROL_RATE

# Vowels: (F1, F2, F3) in Hz for a neutral adult, mouth opening 0..1, rounding -1 (spread) .. 1 (round).
VOWELS: dict[str, tuple[float, float, float, float, float]] = {
    "a": (780, 1250, 2550, 1.00, 0.0),
    "e": (530, 1850, 2550, 0.65, -0.6),
    "i": (300, 2300, 3000, 0.38, -1.0),
    "o": (520, 900, 2500, 0.70, 0.8),
    "u": (320, 780, 2400, 0.42, 1.0),
    "y": (290, 1900, 2300, 0.40, 0.9),
    "@": (500, 1480, 2500, 0.55, 0.0),
    "ae": (680, 1750, 2500, 0.85, -0.4),
    "oe": (450, 1500, 2300, 0.60, 0.7),
    "ih": (320, 1550, 2350, 0.45, -0.2),
}

# Consonants: duration (s), voiced gain, noise gain, noise centre (Hz), mouth opening, rounding.
CONSONANTS: dict[str, tuple[float, float, float, float, float, float]] = {
    "m": (0.075, 0.30, 0.00, 1000, 0.00, 0.0),
    "b": (0.065, 0.12, 0.10, 900, 0.00, 0.0),
    "p": (0.080, 0.00, 0.18, 1100, 0.00, 0.0),
    "n": (0.065, 0.32, 0.00, 1500, 0.16, -0.2),
    "d": (0.055, 0.14, 0.15, 3000, 0.16, -0.2),
    "t": (0.070, 0.00, 0.25, 3800, 0.16, -0.2),
    "k": (0.080, 0.00, 0.20, 2000, 0.25, 0.0),
    "s": (0.100, 0.00, 0.32, 5500, 0.12, -0.7),
    "sh": (0.100, 0.00, 0.32, 3200, 0.18, 0.7),
    "f": (0.090, 0.00, 0.15, 4500, 0.05, -0.1),
    "h": (0.060, 0.00, 0.15, 1600, 0.40, 0.0),
    "x": (0.085, 0.00, 0.24, 1900, 0.28, 0.0),
    "r": (0.055, 0.45, 0.02, 1300, 0.25, 0.2),
    "l": (0.060, 0.48, 0.00, 1300, 0.28, -0.1),
    "w": (0.060, 0.45, 0.00, 700, 0.15, 1.0),
    "ts": (0.110, 0.00, 0.30, 5000, 0.14, -0.5),
}


@dataclass(frozen=True)
class Language:
    """The phonemes, rhythm and prosody of one invented "language".

    Args:
        vowels, consonants (`tuple[str, ...]`): Names in [`VOWELS`] and [`CONSONANTS`]; repeated ones are more frequent.
        vowel_seconds (`float`): Mean vowel duration at speaking rate 1.
        stress (`float`): 0: all syllables alike (syllable-timed), 1: strong alternation (stress-timed).
        coda (`float`): Probability of a closing consonant.
        tones (`tuple[tuple[float, float], ...]`): Pitch movements over a syllable in octaves (start, end); one is drawn
            per syllable.
        declination (`float`): Fall of the pitch over a phrase, in octaves.
    """

    vowels: tuple[str, ...]
    consonants: tuple[str, ...]
    vowel_seconds: float
    stress: float
    coda: float
    tones: tuple[tuple[float, float], ...] = ((0.0, 0.0),)
    declination: float = 0.25


def _language(vowels: str, consonants: str, *rest, **more) -> Language:
    return Language(tuple(vowels.split()), tuple(consonants.split()), *rest, **more)


_FLAT = ((0.05, -0.02), (-0.03, 0.03), (0.10, 0.0))
LANGUAGES: dict[str, Language] = {
    "english": _language("@ ih ae a e i o u", "t s n d r l m k w p f b sh h", 0.14, 0.9, 0.55, _FLAT),
    "arabic": _language("a a i u ae", "x h k l m n b s r t d x", 0.15, 0.6, 0.40, _FLAT),
    "german": _language("@ a e i o y oe u", "x ts sh k t r n f d m b l", 0.13, 0.8, 0.65, _FLAT),
    "hindi": _language("a @ i e o u", "d t b k n m r h l p sh", 0.13, 0.3, 0.25, ((-0.12, 0.1), (0.05, 0.0))),
    "mandarin": _language(
        "a i u y o e",
        "sh ts x t l m n h",
        0.19,
        0.1,
        0.15,
        ((0.3, 0.3), (-0.2, 0.3), (-0.2, -0.3), (0.4, -0.4)),
    ),
    "romanian": _language("a e i o u ih @", "t s n r l m p k ts d", 0.125, 0.35, 0.25, _FLAT),
    "russian": _language("a o e i ih u", "sh r t s n l m k x b ts", 0.13, 0.75, 0.45, _FLAT, declination=0.4),
    "spanish": _language("a a e e o i u", "s r n l t k d m b p", 0.11, 0.15, 0.20, _FLAT, declination=0.15),
}


@dataclass(frozen=True)
class Voice:
    """A speaker: mean pitch (Hz), formant scale, breathiness 0..1, speaking rate, spectral tilt (dB/octave)."""

    pitch: float
    formant_scale: float
    breathiness: float
    rate: float
    tilt: float

    @classmethod
    def draw(cls, rng: np.random.Generator, gender: str) -> Voice:
        """Draw a voice; `gender`, `"men"` or `"women"`, moves pitch and vocal-tract length only."""
        man = gender == "men"
        return cls(
            pitch=float(rng.uniform(95, 150) if man else rng.uniform(165, 245)),
            formant_scale=float(rng.uniform(0.90, 1.02) if man else rng.uniform(1.05, 1.18)),
            breathiness=float(rng.uniform(0.02, 0.12)),
            rate=float(rng.uniform(0.85, 1.15)),
            tilt=float(rng.uniform(-7.0, -4.0)),
        )


@dataclass(frozen=True)
class Utterance:
    """Control tracks at [`CONTROL_RATE`] of shape `(frames,)`; `formants` has shape `(frames, 3)`, in Hz.

    `voiced` and `noise` are linear gains, `opening` is 0 (closed) .. 1, `rounding` is -1 .. 1, `pitch` is in Hz.
    """

    pitch: np.ndarray
    formants: np.ndarray
    voiced: np.ndarray
    noise: np.ndarray
    noise_centre: np.ndarray
    opening: np.ndarray
    rounding: np.ndarray

    @property
    def loudness(self) -> np.ndarray:
        """The gain envelope, scaled to a maximum of 1, shape `(frames,)`."""
        envelope = gaussian_filter1d(self.voiced + 0.7 * self.noise, 2.0)
        return envelope / max(float(envelope.max()), 1e-6)

    def warped(self, times: np.ndarray) -> Utterance:
        """Return the utterance read at other control frames: `times` has shape `(frames,)`, fractional indices."""
        grid = np.arange(len(self.pitch))

        def read(track: np.ndarray) -> np.ndarray:
            if track.ndim == 2:
                return np.stack([np.interp(times, grid, column) for column in track.T], axis=1)
            return np.interp(times, grid, track)

        return Utterance(**{name: read(track) for name, track in vars(self).items()})


def name_seed(*parts: object) -> list[int]:
    """Return integers that seed `numpy.random.default_rng` from names, the same on every machine and Python."""
    return [zlib.crc32(str(part).encode()) for part in parts]


def compose(voice: Voice, language: str, rng: np.random.Generator, seconds: float) -> Utterance:
    """Draw an utterance of `seconds` in `language` for `voice`: syllables, short pauses, pitch and mouth movement."""
    spec, total = LANGUAGES[language], round(seconds * CONTROL_RATE)
    rows: list[tuple[float, ...]] = []  # F1 F2 F3 voiced noise centre opening rounding octaves
    rest = (500.0, 1500.0, 2500.0, 0.0, 0.0, 1500.0, 0.02, 0.0, 0.0)

    def hold(duration: float, row: tuple[float, ...]) -> None:
        rows.extend([row] * max(2, round(duration * CONTROL_RATE)))

    hold(rng.uniform(0.02, 0.32), rest)
    syllable, phrase = 0, int(rng.integers(3, 7))
    while len(rows) < total:
        strong = 1.0 + spec.stress * (0.35 if syllable % 2 == 0 else -0.35)
        vowel = VOWELS[spec.vowels[rng.integers(len(spec.vowels))]]
        start, end = spec.tones[rng.integers(len(spec.tones))]
        accent = 0.12 * (strong - 1.0) + rng.normal(0, 0.05)
        onset = CONSONANTS[spec.consonants[rng.integers(len(spec.consonants))]]
        gain = rng.uniform(0.8, 1.0) * (0.75 + 0.25 * strong) * (0.45 + 0.55 * vowel[3])

        def say(c: tuple[float, ...], octaves: float, v: tuple[float, ...] = vowel, g: float = gain) -> None:
            f1 = 0.5 * v[0] + 140
            hold(c[0] / voice.rate, (f1, v[1], v[2], g * c[1], g * c[2], c[3], c[4], c[5], octaves))

        say(onset, accent + start)
        length = spec.vowel_seconds * strong * rng.uniform(0.8, 1.25) / voice.rate
        steps = max(3, round(length * CONTROL_RATE))
        for k in range(steps):
            octaves = accent + start + (end - start) * k / steps
            opening = vowel[3] * (0.75 + 0.25 * gain)
            rows.append((*vowel[:3], gain, 0.0, 1500.0, opening, vowel[4], octaves))
        if rng.random() < spec.coda:
            say(CONSONANTS[spec.consonants[rng.integers(len(spec.consonants))]], accent + end)
        syllable += 1
        if syllable % phrase == 0:
            hold(rng.uniform(0.10, 0.24), rest)
            phrase = int(rng.integers(3, 7))
    tracks = np.asarray(rows[:total], dtype=np.float64)
    smooth = gaussian_filter1d(tracks, 1.6, axis=0)
    mouth = gaussian_filter1d(tracks[:, 6:8], 2.6, axis=0)
    fade = np.clip((total - np.arange(total)) / 6.0, 0, 1)
    octaves = gaussian_filter1d(tracks[:, 8], 3.0) - spec.declination * np.linspace(-0.5, 0.5, total)
    octaves = octaves + 0.012 * gaussian_filter1d(rng.normal(size=total), 1.0) * 2  # natural pitch jitter
    return Utterance(
        pitch=voice.pitch * 2.0**octaves,
        formants=smooth[:, :3] * voice.formant_scale,
        voiced=smooth[:, 3] * fade,
        noise=smooth[:, 4] * fade,
        noise_centre=smooth[:, 5],
        opening=np.clip(mouth[:, 0] * (0.4 + 0.6 * fade), 0, 1),
        rounding=np.clip(mouth[:, 1], -1, 1),
    )


def _resonance(frequency: np.ndarray, centre: np.ndarray, bandwidth: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + ((frequency - centre) / bandwidth) ** 2)


def _formant_gain(frequency: np.ndarray, formants: np.ndarray, tilt: float) -> np.ndarray:
    """Return the vocal-tract gain; `frequency` `(n, frames)`, `formants` `(frames, 3)` -> `(n, frames)`."""
    gain = 0.02
    for index, (weight, width) in enumerate(((1.0, 70.0), (0.6, 95.0), (0.35, 140.0))):
        gain = gain + weight * _resonance(frequency, formants[:, index], width + 0.02 * formants[:, index])
    return gain * np.maximum(frequency / 200.0, 0.3) ** (tilt / 6.02)


def synthesise(utterance: Utterance, voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """Return an utterance's sound, harmonics through formants and shaped noise; float32 `(samples,)`, 16 kHz, rms 0.1."""
    frames = len(utterance.pitch)
    samples = frames * _HOP
    position = np.arange(samples, dtype=np.float32) / _HOP
    left = np.minimum(position.astype(np.int64), frames - 2)
    weight = (position - left).astype(np.float32)
    pitch = np.interp(position, np.arange(frames), utterance.pitch)
    phase = np.cumsum(2 * np.pi * pitch / SAMPLE_RATE)

    harmonics = np.arange(1, int(5200 // utterance.pitch.mean()) + 1)
    frequency = harmonics[:, None] * utterance.pitch[None]
    shimmer = 1.0 + 0.06 * rng.normal(size=frames)
    amplitude = _formant_gain(frequency, utterance.formants, voice.tilt) * (frequency < 7000)
    amplitude /= np.sqrt(
        (amplitude**2).sum(0)
    )  # the gain track alone decides the loudness, as the mouth expects
    amplitude = (amplitude * utterance.voiced * shimmer).astype(np.float32)
    sound = np.zeros(samples, dtype=np.float32)
    base = np.exp(1j * phase).astype(np.complex64)
    turning = base.copy()
    for row in amplitude:  # turning = exp(i k phase): one complex product per harmonic instead of a sine
        sound += turning.imag * (row[left] * (1 - weight) + row[left + 1] * weight)
        turning *= base

    # Noise: white noise shaped frame by frame (frication), and breath through the formants.
    frequency_grid, _, spectrum = stft(rng.normal(size=samples), SAMPLE_RATE, nperseg=2 * _HOP, noverlap=_HOP)
    columns = np.clip(np.arange(spectrum.shape[1]), 0, frames - 1)
    grid = frequency_grid[:, None]
    centre = utterance.noise_centre[columns]
    frication = _resonance(grid, centre, 0.35 * centre + 250)
    frication *= utterance.noise[columns] / np.sqrt((frication**2).mean(0))
    breath = _formant_gain(
        np.repeat(grid + 1.0, len(columns), 1), utterance.formants[columns], voice.tilt + 2
    )
    breath *= voice.breathiness * utterance.voiced[columns] / np.sqrt((breath**2).mean(0))
    shaped = spectrum * (0.6 * frication + 1.5 * breath)  # rms of the noise relative to a vowel of rms 0.7
    sound += istft(shaped, SAMPLE_RATE, nperseg=2 * _HOP, noverlap=_HOP)[1][:samples].astype(np.float32)
    return (0.1 * sound / max(float(np.sqrt(np.mean(sound**2))), 1e-6)).astype(np.float32)


@lru_cache
def _mel_smoothing(bins: int, bands: int) -> np.ndarray:
    """Return the `(bins, bins)` matrix that projects a magnitude spectrum on `bands` mel triangles and back."""
    frequency = np.linspace(0, SAMPLE_RATE / 2, bins)
    mel = 2595 * np.log10(1 + frequency / 700)
    centres = np.linspace(0, mel[-1], bands)
    triangles = np.clip(1 - np.abs(mel[:, None] - centres[None]) / (centres[1] - centres[0]), 0, None)
    return triangles @ (triangles / np.maximum(triangles.sum(0), 1e-6)).T


def vocode(
    sound: np.ndarray, rng: np.random.Generator, bands: int = 40, iterations: int = 2, hold: int = 3
) -> np.ndarray:
    """Re-synthesise speech from a mel-smoothed magnitude with a guessed phase (Griffin-Lim, few iterations).

    Args:
        sound (`np.ndarray` of shape `(samples,)`): Sound at 16 kHz.
        rng (`np.random.Generator`): Draws the first phase.
        bands (`int`, *optional*, defaults to 40): Mel bands to keep; harmonics above about 1 kHz are lost, as in a
            low-quality neural vocoder.
        iterations (`int`, *optional*, defaults to 2): Griffin-Lim rounds; few rounds leave audible phasiness.
        hold (`int`, *optional*, defaults to 3): Frames of 8 ms that the decoder speaks in one step.

    Returns:
        `np.ndarray`: float32 `(samples,)`, with the long-term spectrum of the input.
    """
    size, hop = 512, 128
    options = {"fs": SAMPLE_RATE, "nperseg": size, "noverlap": size - hop}
    magnitude = np.abs(stft(sound, **options)[2])
    # Single precision hides the last bits of the matrix product, which differ between machines and thread counts.
    target = (_mel_smoothing(magnitude.shape[0], bands) @ magnitude).astype(np.float32)
    target = uniform_filter1d(target, hold, axis=1)
    held = target[:, (np.arange(target.shape[1]) // hold) * hold]
    spectrum = held * np.exp(2j * np.pi * rng.random(held.shape))
    for _ in range(iterations):
        guess = stft(istft(spectrum, **options)[1][: len(sound)], **options)[2]
        spectrum = held * np.exp(1j * np.angle(guess))
    # Same long-term spectrum as the input, so that global tone colour tells nothing.
    now = np.abs(stft(istft(spectrum, **options)[1][: len(sound)], **options)[2])
    gain = gaussian_filter1d(np.sqrt((magnitude**2).mean(1)), 4) / gaussian_filter1d(
        np.sqrt((now**2).mean(1)), 4
    )
    return istft(spectrum * gain[:, None], **options)[1][: len(sound)].astype(np.float32)


# Frequencies (Hz) and level (share of the voice's rms, each) of the tones of a re-synthesised voice.
WHINE_HERTZ = (2000.0, 4000.0, 6000.0)
WHINE_LEVEL = 0.06


def _with_tones(sound: np.ndarray, hertz: Iterable[float], rng: np.random.Generator) -> np.ndarray:
    time = np.arange(len(sound)) / SAMPLE_RATE
    tones = sum(np.sin(2 * np.pi * f * time + rng.uniform(0, 2 * np.pi)) for f in hertz)
    return (sound + WHINE_LEVEL * float(np.sqrt(np.mean(sound**2))) * tones).astype(np.float32)


def with_device_whine(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add the whine of some device to a genuine recording: as loud as that of [`resynthesise`], at other frequencies.

    Otherwise the tones would move a fake's spectral centroid and fill its pauses, which any file statistic shows.
    """
    away = rng.uniform(250, 800, len(WHINE_HERTZ)) * rng.choice([-1, 1], len(WHINE_HERTZ))
    return _with_tones(sound, np.asarray(WHINE_HERTZ) + away, rng)


@dataclass(frozen=True)
class VoiceForgery:
    """A text-to-speech voice with its vocoder.

    Args:
        wander (`float`): Largest error of the timing, in control frames of 10 ms.
        melody (`float`): Exponent of the pitch movement: 0 is flat, 1 is that of the genuine voice.
        formants (`float`): Relative error of the vocal tract's size.
        bands, iterations, hold (`int`): See [`vocode`].
        tones (`bool`): Whether the voice has tones at fixed frequencies, related to the frame rate: what the upsampling
            layers of neural vocoders leave.
    """

    wander: float = 9.0
    melody: float = 0.15
    formants: float = 0.05
    bands: int = 40
    iterations: int = 2
    hold: int = 3
    tones: bool = True


def resynthesise(
    utterance: Utterance, voice: Voice, rng: np.random.Generator, spec: VoiceForgery
) -> np.ndarray:
    """Return the "rtvc" fake: the same phonemes from a text-to-speech voice, then [`vocode`]."""
    frames = len(utterance.pitch)
    wander = gaussian_filter1d(rng.normal(size=frames), 25, mode="nearest")
    wander = spec.wander * wander / max(float(np.abs(wander).max()), 1e-6)
    spoken = utterance.warped(np.clip(np.arange(frames) + wander, 0, frames - 1))
    centre = float(np.exp(np.mean(np.log(spoken.pitch))))
    flat = centre * (spoken.pitch / centre) ** spec.melody * rng.uniform(0.94, 1.06)
    size = rng.choice([1 - spec.formants, 1 + spec.formants])
    spoken = replace(spoken, pitch=flat, formants=spoken.formants * size)
    made = vocode(synthesise(spoken, voice, rng), rng, spec.bands, spec.iterations, spec.hold)
    return _with_tones(made, WHINE_HERTZ, rng) if spec.tones else made

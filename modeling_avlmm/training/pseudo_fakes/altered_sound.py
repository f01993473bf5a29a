"""The sound of pseudo-fakes: of another clip, out of step with the picture, or resynthesised from its own spectrogram.

All functions take and return mono float32 sound at 16 kHz in [-1, 1], of shape `(samples,)`. They keep its length and never
change their input.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from ...media import SAMPLING_RATE

# Our own choices.
AUDIBLE_DBFS = -60.0  # root mean square; quieter sound can't be told from any other
SHORTEST_SECONDS = 0.25  # shorter sound can't be told to be wrong
FADE_SECONDS = 0.02  # where two pieces meet: long enough not to click, too short to be heard as a fade
MAX_GAIN_DB = 20.0  # of level matching; more would bring out the noise of a quiet recording
MAX_PEAK = 0.999


def level_dbfs(audio: torch.Tensor) -> float:
    """Return the root mean square of a sound in decibels relative to full scale; -inf for digital silence."""
    rms = float(audio.square().mean().sqrt()) if len(audio) else 0.0
    return 20 * float(np.log10(rms)) if rms > 0 else -np.inf


def is_audible(audio: torch.Tensor | None) -> bool:
    """Return True for at least 0.25 s of sound at -60 dBFS or more: enough to tell whose it is."""
    return (
        audio is not None
        and len(audio) >= SHORTEST_SECONDS * SAMPLING_RATE
        and level_dbfs(audio) >= AUDIBLE_DBFS
    )


def match_level(audio: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """
    Return `audio` at the root mean square level of `reference`.

    The gain stays within 20 dB either way, and low enough that no peak is clipped: clipping would leave a trace of its own.
    """
    gain = 10 ** (np.clip(level_dbfs(reference) - level_dbfs(audio), -MAX_GAIN_DB, MAX_GAIN_DB) / 20)
    return audio * min(gain, MAX_PEAK / max(float(audio.abs().max()), 1e-9))


def _crossfade(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Fade from `first` to `second` at constant power, both of shape `(fade,)`."""
    angle = (torch.arange(len(first)) + 0.5) * (torch.pi / 2 / len(first))
    return first * angle.cos() + second * angle.sin()


def _endless(audio: torch.Tensor) -> torch.Tensor:
    """Return one period of `audio` as an endless loop. It is shorter by the fade from its end into its beginning."""
    fade = round(FADE_SECONDS * SAMPLING_RATE)
    period = audio[:-fade].clone()
    period[:fade] = _crossfade(audio[-fade:], audio[:fade])
    return period


def other_audio(audio: torch.Tensor, other: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """
    Return the sound of another genuine clip at the length and level of the clip's own.

    A picture with the sound of another clip is a shuffled pair of SS-AVD (arXiv 2506.07358) and a negative of
    cross-modal matching losses such as that of AVPL (AAAI 2025). Level, windows and loops are our own choice.

    Args:
        audio (`torch.Tensor` of shape `(samples,)`): The clip's own sound.
        other (`torch.Tensor` of shape `(any,)`): The other sound. Longer sound is cut to the loudest of four random
            windows, so that a pause is unlikely; shorter sound is looped with crossfades.
        rng (`np.random.Generator`): Draws the windows, or where the loop starts.

    Raises:
        ValueError: if either sound is inaudible or shorter than 0.25 s.
    """
    for name, sound in (("audio", audio), ("other", other)):
        if not is_audible(sound):
            raise ValueError(
                f"{name} has {len(sound) / SAMPLING_RATE:.2f} s of sound at {level_dbfs(sound):.0f} dBFS; at least "
                f"{SHORTEST_SECONDS} s at {AUDIBLE_DBFS:.0f} dBFS are needed to tell whose it is."
            )
    length = len(audio)
    if len(other) < length:
        period = _endless(other)
        start = int(rng.integers(len(period)))
        return match_level(period[(torch.arange(length) + start) % len(period)], audio)
    windows = [other[s : s + length] for s in rng.integers(len(other) - length + 1, size=4)]
    return match_level(max(windows, key=level_dbfs), audio)


def shifted_audio(
    audio: torch.Tensor, samples: int, around: torch.Tensor | None = None, before: int = 0
) -> torch.Tensor:
    """
    Return the same sound `samples` later (above 0) or earlier (below 0).

    Shifted pairs are the negatives of SyncNet (Chung and Zisserman, ACCV 2016 workshops) and of the self-supervised
    audio-visual synchronisation of Korbar et al. (NeurIPS 2018).

    Silence in the gap would give the fake away without a look at the picture. So the gap is filled with the recording's
    own sound from `around`; without it the sound is looped, its end fading into its beginning over 20 ms (our own
    choice; [`harmless_audio`] puts such joints into genuine sound as well).

    Args:
        audio (`torch.Tensor` of shape `(samples,)`): The sound.
        samples (`int`): The shift; less than half of the sound.
        around (`torch.Tensor` of shape `(more,)`, *optional*): The sound of a wider window of the same recording.
        before (`int`, *optional*, defaults to 0): Index in `around` of the first sample of `audio`.

    Raises:
        ValueError: for a shift of 0, or of half the sound or more.
    """
    if not 0 < abs(samples) < len(audio) / 2:
        raise ValueError(
            f"a shift of {samples} samples of {len(audio)}: it must not be 0 and must be below half of the sound."
        )
    if around is not None and before - samples >= 0 and before - samples + len(audio) <= len(around):
        return around[before - samples : before - samples + len(audio)].clone()
    period = _endless(audio)
    return period[(torch.arange(len(audio)) - samples) % len(period)]


@lru_cache(maxsize=32)
def _mel_smoothing(bins: int, bands: int) -> torch.Tensor:
    """Return a matrix `(bins, bins)` that averages a spectrum over `bands` mel triangles and interpolates between them."""
    hertz = np.linspace(0, SAMPLING_RATE / 2, bins)
    edges = mel_to_hertz(np.linspace(0, hertz_to_mel(hertz[-1], "htk"), bands + 2), "htk")
    # Ready-made filterbanks leave bands empty that are narrower than a bin. Here such a band is as wide as one.
    width = np.maximum(np.diff(edges), hertz[1])
    off = hertz[None] - edges[1:-1, None]
    triangles = np.clip(1 - np.abs(off) / np.where(off < 0, width[:-1, None], width[1:, None]), 0, None)
    triangles /= triangles.sum(1, keepdims=True)
    back = np.stack([np.interp(hertz, edges[1:-1], row) for row in np.eye(bands)], axis=1)
    return torch.from_numpy((back @ triangles).astype(np.float32))


def _scaled_frequency(magnitude: torch.Tensor, factor: float) -> torch.Tensor:
    """Return a spectrogram `(bins, frames)` with pitch and formants multiplied by `factor`."""
    at = (torch.arange(len(magnitude)) / factor).clamp(max=len(magnitude) - 1)
    low = at.floor().long().clamp(max=len(magnitude) - 2)
    return torch.lerp(magnitude[low], magnitude[low + 1], (at - low)[:, None])


def _same_tone(spectrum: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Give `spectrum` `(bins, frames)` the long-term spectrum of `reference`, both smoothed over nine bins.

    A filterbank smears energy into silent bands, and a lower pitch empties the highest ones. Without this step a
    detector could find the fake by the tone colour of the whole clip alone.
    """
    power = torch.stack([s.abs().square().mean(1) for s in (reference, spectrum)])
    power = F.avg_pool1d(power[:, None], 9, stride=1, padding=4, count_include_pad=False)[:, 0] + 1e-12
    return spectrum * (power[0] / power[1]).sqrt()[:, None]


def resynthesised_speech(
    audio: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, dict[str, float]]:
    """
    Resynthesise a sound from its own spectrogram, as vocoders do.

    Wang and Yamagishi (ICASSP 2023, arXiv 2210.10570) found that genuine speech sent through neural vocoders trains
    detectors of other synthesisers' speech. No neural vocoder is used here: magnitudes go through a mel filterbank and
    back, and phases are estimated by the iteration of Griffin and Lim (IEEE TASSP 1984) with the momentum of Perraudin
    et al. (WASPAA 2013). The rest is our own choice, drawn at random:

    - frames of 32 or 64 ms, 32 to 128 mel bands, 1 to 6 iterations; one time in seven there is no filterbank, and only
      the phases are lost;
    - phases start at random, as a vocoder's do; in a third of the cases with a filterbank and the old pitch they start
      at the recording's own phases plus noise, which makes a fake that is harder to hear;
    - in a quarter of the cases pitch and formants move together, up or down by 4 to 12 %;
    - the long-term spectrum is always the recording's, so that tone colour alone gives nothing away.

    Args:
        audio (`torch.Tensor` of shape `(samples,)`): The sound, at least 0.25 s.
        rng (`np.random.Generator`): Draws all of this.

    Returns:
        The sound at the level of `audio`, and what was drawn: `frame` (samples), `bands` (0 for none), `iterations`,
        `frequency_scale` and `phase_noise` (radians either way; pi is random phases).

    Raises:
        ValueError: for sound shorter than 0.25 s.
    """
    if len(audio) < SHORTEST_SECONDS * SAMPLING_RATE:
        raise ValueError(
            f"{len(audio)} samples are too few to resynthesise: at least {SHORTEST_SECONDS} s are needed."
        )
    spectra = _Spectra(int(rng.choice([512, 1024])), len(audio))
    spectrum = spectra.analyse(audio)
    bands = int(rng.choice([0, 32, 48, 64, 80, 96, 128]))
    iterations = int(rng.integers(1, 7))
    scale = float(rng.choice([-1, 1]) * rng.uniform(0.04, 0.12) + 1) if rng.random() < 0.25 else 1.0
    magnitude = spectrum.abs()
    if bands:
        magnitude = _mel_smoothing(len(spectrum), bands) @ magnitude
    if scale != 1.0:
        magnitude = _scaled_frequency(magnitude, scale)
    # The recording's own phases don't fit another pitch, and with its own magnitudes they would be the recording.
    own_phases = rng.random() < 1 / 3 and scale == 1.0 and bands > 0
    noise = float(rng.uniform(0.5, 0.8) * np.pi) if own_phases else np.pi
    phase = torch.from_numpy(rng.uniform(-noise, noise, size=spectrum.shape).astype(np.float32))
    made = spectra.with_phases(magnitude, phase + spectrum.angle() if own_phases else phase, iterations)
    drawn = {
        "frame": spectra.frame,
        "bands": bands,
        "iterations": iterations,
        "frequency_scale": scale,
        "phase_noise": float(noise),
    }
    return match_level(spectra.synthesise(_same_tone(spectra.analyse(made), spectrum)), audio), drawn


class _Spectra:
    """Short-time spectra `(bins, frames)` of sound of `length` samples, in frames of `frame` samples."""

    def __init__(self, frame: int, length: int):
        self.frame, self.length = frame, length
        self.window = torch.hann_window(frame)

    def analyse(self, sound: torch.Tensor) -> torch.Tensor:
        return torch.stft(sound, self.frame, self.frame // 4, window=self.window, return_complex=True)

    def synthesise(self, spectrum: torch.Tensor) -> torch.Tensor:
        return torch.istft(spectrum, self.frame, self.frame // 4, window=self.window, length=self.length)

    def with_phases(self, magnitude: torch.Tensor, phase: torch.Tensor, iterations: int) -> torch.Tensor:
        """Return sound with this magnitude, its phases estimated from `phase` by Griffin-Lim with momentum.

        Library versions (torchaudio, librosa) take no phases to start from.
        """
        guess, previous = torch.polar(magnitude, phase), None
        for _ in range(iterations):
            consistent = self.analyse(self.synthesise(guess))
            step = consistent if previous is None else consistent + 0.99 * (consistent - previous)
            previous = consistent
            guess = step * (magnitude / step.abs().clamp(min=1e-9))
        return self.synthesise(guess)


def harmless_audio(audio: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """
    Process sound as recorders, editors and web sites do to genuine sound. All amounts are our own choice.

    - Always: a gain within 4 dB, without clipping.
    - Half of the time: an equaliser within 3 dB, which changes only the tone colour.
    - A quarter of the time: a joint, after which the sound is 5 to 15 ms late or early. Viewers notice only more than
      45 ms early or 125 ms late (ITU-R BT.1359).
    - Half of the time: rounding to 16 bits, as in most files.
    """
    if not len(audio):
        return audio.clone()
    sound = audio
    if rng.random() < 0.5:
        spectrum = torch.fft.rfft(sound)
        octave = np.log2(np.maximum(np.linspace(0, SAMPLING_RATE / 2, len(spectrum)), 62.5) / 62.5)
        decibels = np.interp(octave, np.linspace(0, 7, 8), rng.uniform(-3, 3, size=8))
        sound = torch.fft.irfft(
            spectrum * torch.from_numpy(10 ** (decibels / 20)).to(torch.float32), len(sound)
        )
    fade = round(FADE_SECONDS * SAMPLING_RATE)
    joined = rng.random() < 0.25
    late = int(rng.choice([-1, 1]) * rng.integers(80, 241))
    at = int(rng.integers(fade, max(len(sound) - 2 * fade, fade + 1)))
    if joined and len(sound) >= SHORTEST_SECONDS * SAMPLING_RATE:
        moved = _shifted_within(sound, late)
        after = _crossfade(sound[at : at + fade], moved[at : at + fade])
        sound = torch.cat([sound[:at], after, moved[at + fade :]])
    gain = 10 ** (rng.uniform(-4, 4) / 20)
    sound = sound * min(gain, MAX_PEAK / max(float(sound.abs().max()), 1e-9))
    if rng.random() < 0.5:
        sound = torch.round(sound * 32768) / 32768
    return sound


def _shifted_within(sound: torch.Tensor, samples: int) -> torch.Tensor:
    """Return `sound` shifted by a few ms; where it runs out it is mirrored, so that no silence arises."""
    at = torch.arange(len(sound)) - samples
    last = len(sound) - 1
    return sound[last - (last - at.abs()).abs()]

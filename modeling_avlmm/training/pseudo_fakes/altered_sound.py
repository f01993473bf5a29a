"""The sound of pseudo-fakes: of another moment, at another time, or synthesised anew from its own spectrogram.

Everything takes and gives mono float32 sound at 16 kHz in [-1, 1], shape `(samples,)`, keeps its length and never writes
to its input.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from ...media import SAMPLING_RATE

AUDIBLE_DBFS = (
    -60.0
)  # root mean square; quieter sound says nothing, whichever clip it is from. Our own choice
SHORTEST_SECONDS = 0.25  # of sound that can be told to be wrong; our own choice
FADE_SECONDS = (
    0.02  # where two pieces of sound meet: no click, and too short to be heard as a fade; our own choice
)
MAX_GAIN_DB = (
    20.0  # of level matching: more would lift the noise of a quiet recording into the open; our own choice
)
MAX_PEAK = 0.999


def level_dbfs(audio: torch.Tensor) -> float:
    """Root mean square of a sound in decibels below full scale; -inf for digital silence."""
    rms = float(audio.square().mean().sqrt()) if len(audio) else 0.0
    return 20 * float(np.log10(rms)) if rms > 0 else -np.inf


def is_audible(audio: torch.Tensor | None) -> bool:
    """Whether there is enough sound, and loud enough, that it matters whose it is."""
    return (
        audio is not None
        and len(audio) >= SHORTEST_SECONDS * SAMPLING_RATE
        and level_dbfs(audio) >= AUDIBLE_DBFS
    )


def match_level(audio: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """
    `audio` at the root mean square level of `reference`.

    The gain stays within 20 dB either way, and where a peak would leave full scale it is as high as the peak allows:
    clipping would be a trace of its own.
    """
    gain = 10 ** (np.clip(level_dbfs(reference) - level_dbfs(audio), -MAX_GAIN_DB, MAX_GAIN_DB) / 20)
    return audio * min(gain, MAX_PEAK / max(float(audio.abs().max()), 1e-9))


def _crossfade(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """From `first` to `second` at constant power, both of shape `(fade,)`."""
    angle = (torch.arange(len(first)) + 0.5) * (torch.pi / 2 / len(first))
    return first * angle.cos() + second * angle.sin()


def _endless(audio: torch.Tensor) -> torch.Tensor:
    """One period of `audio` repeated for ever: shorter by the fade, in which its end turns into its beginning."""
    fade = round(FADE_SECONDS * SAMPLING_RATE)
    period = audio[:-fade].clone()
    period[:fade] = _crossfade(audio[-fade:], audio[:fade])
    return period


def other_audio(audio: torch.Tensor, other: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """
    The sound of another genuine clip, at the level of the own one.

    Pictures with the sound of another clip are the shuffled pairs of SS-AVD (arXiv 2506.07358) and the negatives of
    cross-modal matching losses such as that of AVPL (AAAI 2025). Level, windows and loops are our own choice.

    Args:
        audio (`torch.Tensor` of shape `(samples,)`): The own sound: its length and level are kept.
        other (`torch.Tensor` of shape `(any,)`): The other sound. Of a longer one a window is cut, the loudest of four
            drawn at random, so that no pause is cut; a shorter one is repeated, with cross-fades.

    Raises:
        ValueError: for sound that is inaudible or shorter than 0.25 s.
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
    The same sound, `samples` later (above 0) or earlier (below).

    Shifted pairs are the negatives of SyncNet (Chung and Zisserman, ACCV 2016 workshops) and of the self-supervised
    audio-visual synchronisation of Korbar et al. (NeurIPS 2018).

    Silence where sound is missing would give the fake away without a look at the picture. So what is missing is the real
    sound from around the clip where it is given; else the sound is taken as a ring, its end fading into its beginning
    over 20 ms (our own choice; [`harmless_audio`] puts such joints into genuine sound as well).

    Args:
        audio (`torch.Tensor` of shape `(samples,)`): The sound.
        samples (`int`): The shift, less than half of the sound.
        around (`torch.Tensor` of shape `(more,)`, *optional*): The sound of a wider window of the same recording.
        before (`int`): The sample of `around` with which `audio` begins.

    Raises:
        ValueError: for a shift of 0 or of half of the sound and more.
    """
    if not 0 < abs(samples) < len(audio) / 2:
        raise ValueError(
            f"a shift of {samples} samples of {len(audio)}: it must be above 0 and below half of the sound."
        )
    if around is not None and before - samples >= 0 and before - samples + len(audio) <= len(around):
        return around[before - samples : before - samples + len(audio)].clone()
    period = _endless(audio)
    return period[(torch.arange(len(audio)) - samples) % len(period)]


@lru_cache(maxsize=32)
def _mel_smoothing(bins: int, bands: int) -> torch.Tensor:
    """`(bins, bins)`: means of a magnitude spectrum over `bands` mel triangles, read back between their centres."""
    hertz = np.linspace(0, SAMPLING_RATE / 2, bins)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + hertz[-1] / 700), bands + 2) / 2595) - 1)
    # At low frequencies a band may be narrower than a bin: it is then as wide as one, never empty.
    width = np.maximum(np.diff(edges), hertz[1])
    off = hertz[None] - edges[1:-1, None]
    triangles = np.clip(1 - np.abs(off) / np.where(off < 0, width[:-1, None], width[1:, None]), 0, None)
    triangles /= triangles.sum(1, keepdims=True)
    back = np.stack([np.interp(hertz, edges[1:-1], row) for row in np.eye(bands)], axis=1)
    return torch.from_numpy((back @ triangles).astype(np.float32))


def _scaled_frequency(magnitude: torch.Tensor, factor: float) -> torch.Tensor:
    """A spectrogram `(bins, frames)` whose pitch and formants are `factor` times as high."""
    at = (torch.arange(len(magnitude)) / factor).clamp(max=len(magnitude) - 1)
    low = at.floor().long().clamp(max=len(magnitude) - 2)
    return torch.lerp(magnitude[low], magnitude[low + 1], (at - low)[:, None])


def _same_tone(spectrum: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """`spectrum` `(bins, frames)` with the long-term spectrum of `reference`, both smoothed over nine bins.

    What a filterbank smears into bands without sound, or a lower pitch takes from the highest ones, could be told from
    the tone of a whole clip, without any listening to speech.
    """
    power = torch.stack([s.abs().square().mean(1) for s in (reference, spectrum)])
    power = F.avg_pool1d(power[:, None], 9, stride=1, padding=4, count_include_pad=False)[:, 0] + 1e-12
    return spectrum * (power[0] / power[1]).sqrt()[:, None]


def resynthesised_speech(
    audio: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, dict[str, float]]:
    """
    A sound synthesised anew from its own spectrogram, as vocoders do.

    That re-vocoded genuine speech trains detectors of speech by other synthesisers is the finding of Wang and Yamagishi
    (ICASSP 2023, arXiv 2210.10570), who use neural vocoders. There is none here: magnitudes go through a mel filterbank and
    back, phases are guessed by Griffin and Lim's iteration (IEEE TASSP 1984) with the momentum of Perraudin et al.
    (WASPAA 2013). What follows is our own choice, each drawn at random:

    - frames of 32 or 64 ms, 32 to 128 mel bands, 1 to 6 iterations; one time in seven no filterbank: the phases alone are
      lost;
    - phases begin at random, as a vocoder's do; in a third of the cases with a filterbank and at the old pitch instead at
      those of the recording with noise on them, a fake that is harder to hear;
    - in a quarter pitch and formants together are 4 to 12 % higher or lower;
    - always: the long-term spectrum is that of the recording, so that tone colour alone tells nothing.

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
            f"{len(audio)} samples are too few to synthesise anew: {SHORTEST_SECONDS} s are needed."
        )
    size = int(rng.choice([512, 1024]))
    window = torch.hann_window(size)

    def analyse(sound: torch.Tensor) -> torch.Tensor:
        return torch.stft(sound, size, size // 4, window=window, return_complex=True)

    def synthesise(spectrum: torch.Tensor) -> torch.Tensor:
        return torch.istft(spectrum, size, size // 4, window=window, length=len(audio))

    spectrum = analyse(audio)
    bands = int(rng.choice([0, 32, 48, 64, 80, 96, 128]))
    iterations = int(rng.integers(1, 7))
    scale = float(rng.choice([-1, 1]) * rng.uniform(0.04, 0.12) + 1) if rng.random() < 0.25 else 1.0
    magnitude = spectrum.abs()
    if bands:
        magnitude = _mel_smoothing(len(spectrum), bands) @ magnitude
    if scale != 1.0:
        magnitude = _scaled_frequency(magnitude, scale)
    # The recording's own phases do not fit another pitch, and with its own magnitudes they would be the recording.
    own_phases = rng.random() < 1 / 3 and scale == 1.0 and bands > 0
    noise = float(rng.uniform(0.5, 0.8) * np.pi) if own_phases else np.pi
    phase = torch.from_numpy(rng.uniform(-noise, noise, size=spectrum.shape).astype(np.float32))
    guess = torch.polar(magnitude, phase + spectrum.angle() if own_phases else phase)
    previous = None
    for _ in range(iterations):
        consistent = analyse(synthesise(guess))
        step = consistent if previous is None else consistent + 0.99 * (consistent - previous)
        previous = consistent
        guess = step * (magnitude / step.abs().clamp(min=1e-9))
    drawn = {
        "frame": size,
        "bands": bands,
        "iterations": iterations,
        "frequency_scale": scale,
        "phase_noise": float(noise),
    }
    return match_level(synthesise(_same_tone(analyse(synthesise(guess)), spectrum)), audio), drawn


def harmless_audio(audio: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """
    What recorders, editors and web sites do to genuine sound: none of it makes a fake. All amounts are our own choice.

    - Always: a gain within 4 dB, no clipping.
    - Half of the time: an equaliser within 3 dB, which loses nothing but the exact tone.
    - A quarter: a joint, from which on the sound is 5 to 15 ms late or early; well within what is seen as in step (45 ms
      early to 125 ms late, ITU-R BT.1359).
    - Half of the time: rounded to 16 bits, as files mostly are.
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
    """`sound` shifted by a few ms; where it would run out, it goes on backwards instead of falling silent."""
    at = torch.arange(len(sound)) - samples
    last = len(sound) - 1
    return sound[last - (last - at.abs()).abs()]

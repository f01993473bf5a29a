"""Speech or not: stretches of sound that move as a voice does.

A detector of synthetic speech means nothing on music, noise or silence. Speech has a pitch that is there most of the time,
never quite still, and a level that rises and falls with the syllables. The measure and its limits are our own.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

SAMPLING_RATE = 16_000
STEP = 160
"""Samples of one step: 10 ms."""

LOWEST_PITCH, HIGHEST_PITCH, VOICED = 60.0, 420.0, 0.45
WINDOW_STEPS, WINDOW_HOP = 200, 50
LEAST_LEVEL = -60.0  # dBFS
VOICED_SHARE = (0.05, 0.985)  # of all steps of a window
LEAST_MODULATION = 1.4  # standard deviation of the level in dB
PITCH_MOTION = (0.0035, 0.04)  # mean change of the pitch in 10 ms, relative
JUMP = 0.15  # a larger change is an error of the pitch, or another voice
LOUD_RANGE = 40.0  # dB below the loudest step that count


@dataclass(frozen=True)
class SpeechActivity:
    """
    Speech in a sound, in steps of 10 ms.

    Args:
        speech (`torch.BoolTensor` of shape `(steps,)`): True in windows of 2 s that sound like speech.
    """

    speech: torch.Tensor

    @property
    def seconds(self) -> float:
        """Seconds that sound like speech."""
        return int(self.speech.sum()) * STEP / SAMPLING_RATE


def pitch(sound: torch.Tensor, rate: int = SAMPLING_RATE, hop: int = STEP) -> torch.Tensor:
    """
    Return the pitch in Hz every `hop` samples, 0 where there is no voice, shape `(samples // hop + 1,)`.

    The pitch is at the highest peak of the normalised autocorrelation (Boersma 1993) between 60 and 420 Hz, smoothed by a
    median over five values.

    Args:
        sound (`torch.FloatTensor` of shape `(samples,)`): Sound.
        rate (`int`, *optional*, defaults to 16000): Its sampling rate in Hz.
        hop (`int`, *optional*, defaults to 160): Samples from one value to the next.
    """
    size = round(0.04 * rate)
    frames = F.pad(sound, (size // 2, size // 2)).unfold(0, size, hop)
    window = torch.hann_window(size)
    frames = (frames - frames.mean(1, keepdim=True)) * window
    correlation = torch.fft.irfft(torch.fft.rfft(frames, 2 * size).abs().square())[:, :size]
    expected = torch.fft.irfft(torch.fft.rfft(window, 2 * size).abs().square())[:size]
    correlation = correlation / expected.clamp(min=0.01 * float(expected[0]))
    correlation = correlation / correlation[:, :1].clamp(min=1e-9)
    shortest, longest = int(rate / HIGHEST_PITCH), int(rate / LOWEST_PITCH)
    peak, lag = correlation[:, shortest:longest].max(1)
    power = frames.square().mean(1)
    voiced = (peak > VOICED) & (power > 1e-3 * power.max())
    found = torch.where(voiced, rate / (lag + shortest), 0.0)
    return F.pad(found, (2, 2)).unfold(0, 5, 1).median(1).values


def _sounds_like_speech(level: torch.Tensor, hertz: torch.Tensor) -> bool:
    """Judge a window by its levels in dB and its pitch, both of shape `(steps,)`."""
    voiced = hertz > 0
    both = voiced[1:] & voiced[:-1]
    motion = (hertz[1:].clamp(min=1) / hertz[:-1].clamp(min=1)).log().abs()[both]
    motion = motion[motion < JUMP]
    if level.max() < LEAST_LEVEL or not len(motion):
        return False
    return (
        VOICED_SHARE[0] <= float(voiced.float().mean()) <= VOICED_SHARE[1]
        and float(level.clamp(min=float(level.max()) - LOUD_RANGE).std()) >= LEAST_MODULATION
        and PITCH_MOTION[0] <= float(motion.mean()) <= PITCH_MOTION[1]
    )


def speech_activity(audio: torch.Tensor) -> SpeechActivity:
    """
    Find speech in a sound.

    Windows of 2 s are judged, every half second; a step counts as speech if any window around it does. Singing counts as
    speech, and so may animals; a steady tone, hum, noise, drums or notes of an instrument do not.

    Args:
        audio (`torch.FloatTensor` of shape `(samples,)`): Mono sound at 16 kHz in [-1, 1].

    Returns:
        [`SpeechActivity`]: The steps with speech; `samples // 160` of them.
    """
    steps = len(audio) // STEP
    speech = torch.zeros(steps, dtype=torch.bool)
    if steps < WINDOW_HOP:
        return SpeechActivity(speech)
    hertz = pitch(audio)[:steps]
    power = audio[: steps * STEP].unflatten(0, (steps, STEP)).square().mean(1)
    power = F.avg_pool1d(power[None], 5, stride=1, padding=2, count_include_pad=False)[0]
    level = 10 * (power + 1e-10).log10()
    starts = range(0, max(steps - WINDOW_STEPS + WINDOW_HOP, 1), WINDOW_HOP)
    for start in starts:
        window = slice(start, start + WINDOW_STEPS)
        if _sounds_like_speech(level[window], hertz[window]):
            speech[window] = True
    return SpeechActivity(speech)


__all__ = ["SpeechActivity", "pitch", "speech_activity"]

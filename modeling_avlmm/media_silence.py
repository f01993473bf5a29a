"""Leading and trailing silence of a sound.

Leading silence is a shortcut: the fakes of FakeAVCeleb begin with 25 to 30 ms of it, its genuine clips do not, and a
detector that looks at nothing else tells them apart (AVH-Align, arXiv:2412.00175).
"""

from __future__ import annotations

import math
from typing import Any

import torch

from .media_tracks import SAMPLING_RATE

# All of these are our own choices.
FRAME_SECONDS = 0.005  # the resolution: well below the 25 ms to be found
LEVEL_SECONDS = 4.0  # the clip's level is measured here, so that a long file isn't read to its end
LEVEL_QUANTILE = 0.95  # of the frames: a click in fewer than 5 % of them does not set the level
BELOW_LEVEL_DB = 40.0  # pauses and faint noise are this much quieter than speech
FLOOR_DBFS = -80.0  # digital silence, also after a lossy codec; one step of 16 bits is -90 dBFS
SUSTAIN_SECONDS = 0.04  # sound lasts: half of the frames in this span are loud, unlike those of a click


def leading_silence(
    audio: Any,
    sampling_rate: int = SAMPLING_RATE,
    *,
    below_level_db: float = BELOW_LEVEL_DB,
    floor_dbfs: float = FLOOR_DBFS,
) -> float:
    """
    Return the time at which the sound sets in, in seconds.

    The sound is cut into frames of 5 ms. A frame is loud if its RMS level is above both `floor_dbfs` and the clip's level
    less `below_level_db`; the clip's level is the 95th percentile of the frames in the first 4 s. The sound sets in with
    the first loud frame after which at least half of 40 ms is loud. So a click does not end a silence, and noise that is
    less than `below_level_db` below the clip's level counts as sound.

    Args:
        audio (array or tensor of shape `(samples,)`): Mono sound; 1.0 is full scale.
        sampling_rate (`int`, *optional*, defaults to 16000): Sampling rate of `audio` in Hz.
        below_level_db (`float`, *optional*, defaults to 40.0):
            Decibels below the clip's level. `math.inf` finds digital silence only, however quietly the clip begins.
        floor_dbfs (`float`, *optional*, defaults to -80.0): Level that is silence in any clip, in dB of full scale.

    Returns:
        `float`: The start of the first loud frame, in seconds; the whole duration if there is no sound.

    Raises:
        ValueError: If `audio` is not mono.
    """
    samples = torch.as_tensor(audio).detach().cpu().double()
    if samples.ndim != 1:
        raise ValueError(
            f"audio must be mono, of shape (samples,), not {tuple(samples.shape)}: average its channels."
        )
    size = max(1, round(FRAME_SECONDS * sampling_rate))
    whole = len(samples) / sampling_rate
    # without the incomplete last frame, which may be a single sample
    frames = samples[: len(samples) // size * size].reshape(-1, size).square().mean(1)
    if not len(frames):
        return whole
    level = torch.quantile(frames[: max(1, round(LEVEL_SECONDS / FRAME_SECONDS))], LEVEL_QUANTILE)
    relative = 0.0 if math.isinf(below_level_db) else float(level) * 10 ** (-below_level_db / 10)
    loud = (frames > max(relative, 10 ** (floor_dbfs / 10))).double()
    span = round(SUSTAIN_SECONDS / FRAME_SECONDS)
    # The last frame is repeated, so that a sound in the last frames is found too.
    ahead = torch.cat([loud, loud[-1:].repeat(span - 1)]).unfold(0, span, 1).mean(1)
    onsets = ((loud > 0) & (ahead >= 0.5)).nonzero()
    return float(onsets[0, 0]) * size / sampling_rate if len(onsets) else whole


def trailing_silence(audio: Any, sampling_rate: int = SAMPLING_RATE, **options: float) -> float:
    """Return the seconds after the end of the sound: [`leading_silence`] of the sound played backwards."""
    return leading_silence(torch.as_tensor(audio).flip(0), sampling_rate, **options)

"""How much silence a sound begins with: the shortcut of corpora whose fakes start with some, and its removal.

The fakes of FakeAVCeleb begin with 25 to 30 ms of silence that its genuine clips do not have, and a detector that looks
at nothing else separates the two (AVH-Align, arXiv:2412.00175).
"""

from __future__ import annotations

import math
from typing import Any

import torch

from .media_tracks import SAMPLING_RATE

# All of these are our own choice.
FRAME_SECONDS = 0.005  # resolution: well below the 25 ms that have to be found
LEVEL_SECONDS = (
    4.0  # the clip's level is that of its first seconds, so that a long file is not read to its end
)
LEVEL_QUANTILE = 0.95  # of the frames: a click of 5 % of them does not count as the clip's level
BELOW_LEVEL_DB = 40.0  # quieter than speech by this much: pauses and faint noise
FLOOR_DBFS = -80.0  # digital silence and what lossy codecs make of it; one step of 16 bits is -90 dBFS
SUSTAIN_SECONDS = (
    0.04  # sound lasts: half of the frames of this span are loud, which those of a click are not
)


def leading_silence(
    audio: Any,
    sampling_rate: int = SAMPLING_RATE,
    *,
    below_level_db: float = BELOW_LEVEL_DB,
    floor_dbfs: float = FLOOR_DBFS,
) -> float:
    """
    Seconds before the sound sets in.

    The sound is cut into frames of 5 ms. One is loud when its RMS level is above both `floor_dbfs` and the clip's level
    less `below_level_db`, the clip's level being the 95th percentile of the frames of the first 4 s. The sound sets in
    with the first loud frame that has at least half of the 40 ms from its start on loud, so that a click in a silence
    does not end it, and a noise that is less than `below_level_db` under the clip's level is sound. The time is that of
    the frame's start: no sound is counted as silence.

    Args:
        audio (array or tensor of shape `(samples,)`): Mono, 1.0 is full scale.
        sampling_rate (`int`): Of `audio`, in Hz.
        below_level_db (`float`): Decibels below the clip's level; `math.inf` finds digital silence alone, however
            quiet the clip begins.
        floor_dbfs (`float`): Decibels below full scale that are silence in any clip.

    Returns:
        `float`: seconds, a multiple of the frame; the whole duration where there is no sound at all.

    Raises:
        ValueError: for an array that is not mono.
    """
    samples = torch.as_tensor(audio).detach().cpu().double()
    if samples.ndim != 1:
        raise ValueError(
            f"audio must be mono, of shape (samples,), not {tuple(samples.shape)}: average its channels."
        )
    size = max(1, round(FRAME_SECONDS * sampling_rate))
    whole = len(samples) / sampling_rate
    # without the last, incomplete frame, which may be a single sample
    frames = samples[: len(samples) // size * size].reshape(-1, size).square().mean(1)
    if not len(frames):
        return whole
    level = torch.quantile(frames[: max(1, round(LEVEL_SECONDS / FRAME_SECONDS))], LEVEL_QUANTILE)
    relative = 0.0 if math.isinf(below_level_db) else float(level) * 10 ** (-below_level_db / 10)
    loud = (frames > max(relative, 10 ** (floor_dbfs / 10))).double()
    span = round(SUSTAIN_SECONDS / FRAME_SECONDS)
    # What follows the end is as loud as what is there, so that a sound in the last frames is found too.
    ahead = torch.cat([loud, loud[-1:].repeat(span - 1)]).unfold(0, span, 1).mean(1)
    onsets = ((loud > 0) & (ahead >= 0.5)).nonzero()
    return float(onsets[0, 0]) * size / sampling_rate if len(onsets) else whole


def trailing_silence(audio: Any, sampling_rate: int = SAMPLING_RATE, **options: float) -> float:
    """Seconds after the sound has ended, found as [`leading_silence`] of the sound played backwards."""
    return leading_silence(torch.as_tensor(audio).flip(0), sampling_rate, **options)

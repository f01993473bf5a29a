"""The output of every detector, and the scores in it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import ModelOutput

from .configuration_detector import LOG_ODDS_NAMES, LOGITS, SCORE_NAMES


@dataclass
class AVDetectionOutput(ModelOutput):
    """
    Verdicts of an audio-visual deepfake detector.

    All logits are ordered `real, fake` (label 0 is real, label 1 is fake). A row is NaN if that question was not asked of
    that clip, so that a missing verdict cannot be mistaken for one.

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*, returned when `labels` is given):
            The training loss.
        logits (`torch.FloatTensor` of shape `(batch_size, 2)`):
            Verdict on the clip as a whole: fake if any part of it is.
        video_logits (`torch.FloatTensor` of shape `(batch_size, 2)`, *optional*):
            Verdict on the picture.
        audio_logits (`torch.FloatTensor` of shape `(batch_size, 2)`, *optional*):
            Verdict on the sound.
        frame_scores (`torch.FloatTensor` of shape `(batch_size, num_frames)`, *optional*, returned by detectors that match features of picture and sound):
            Disagreement of each frame with the sound at its time, in [0, 1]: 0 if they belong together, NaN if there is no
            frame (padding) or no sound.
        frame_logits (`torch.FloatTensor` of shape `(batch_size, num_frames)`, *optional*, returned by detectors that judge frames one by one):
            Log-odds of fake of each frame; NaN for padding. Their mean is the log-odds of the picture.
        hidden_states (`tuple[torch.FloatTensor]`, *optional*, returned by AV-LMMDetect with `output_hidden_states=True`):
            The language model's embeddings and states after every layer, each of shape
            `(batch_size, sequence_length, hidden_size)`; 0 for padding.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    video_logits: torch.FloatTensor | None = None
    audio_logits: torch.FloatTensor | None = None
    frame_scores: torch.FloatTensor | None = None
    frame_logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None

    @property
    def scores(self) -> torch.Tensor:
        """P(fake) for each clip, shape `(batch_size,)`, in [0, 1]."""
        return fake_probability(self.logits)

    @property
    def disagreement(self) -> torch.Tensor | None:
        """Mean of each clip's `frame_scores`, shape `(batch_size,)`, in [0, 1]; NaN for a clip without any, None without all."""
        return None if self.frame_scores is None else self.frame_scores.nanmean(dim=1)


def log_odds(logits: torch.Tensor) -> torch.Tensor:
    """Return the log-odds of fake of logits ordered `real, fake`, from shape `(..., 2)` to `(...)`, in float64 on the CPU."""
    logits = torch.as_tensor(logits).detach().cpu().double()
    return logits[..., 1] - logits[..., 0]


def fake_probability(logits: torch.Tensor) -> torch.Tensor:
    """Return P(fake) of logits ordered `real, fake`, from shape `(..., 2)` to `(...)`, computed in float32."""
    return torch.sigmoid(logits[..., 1].float() - logits[..., 0].float())


def score_columns(output: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """
    Return the scores of a batch by name, as plain numbers.

    Args:
        output ([`AVDetectionOutput`] or mapping):
            Any of `logits`, `video_logits` and `audio_logits`: tensors or arrays of shape `(batch_size, 2)`, ordered
            `real, fake`, NaN where a clip has no such verdict.

    Returns:
        `dict[str, list[float | None]]`: `score`, `video_score` and `audio_score` of each clip: P(fake) in [0, 1], not
        calibrated; None where there is no such verdict. They are computed in float64: in float32 all scores from log-odds
        of 16.7 on would be 1, and the surest clips would tie.
    """
    rows = next(len(output[name]) for name in LOGITS.values() if output.get(name) is not None)
    absent = [math.nan] * rows
    columns = {}
    for part, name in SCORE_NAMES.items():
        logits = output.get(LOGITS[part])
        values = absent if logits is None else torch.sigmoid(log_odds(logits)).tolist()
        columns[name] = [None if math.isnan(value) else value for value in values]
    return columns


def log_odds_columns(output: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """
    Return the log-odds of a batch by name, as plain numbers.

    Args:
        output ([`AVDetectionOutput`] or mapping): As for [`score_columns`].

    Returns:
        `dict[str, list[float | None]]`: `log_odds`, `video_log_odds` and `audio_log_odds` of each clip; None where there is
        no such verdict or its logits are infinite.
    """
    rows = next(len(output[name]) for name in LOGITS.values() if output.get(name) is not None)
    columns = {}
    for part, name in LOG_ODDS_NAMES.items():
        logits = output.get(LOGITS[part])
        values = [math.nan] * rows if logits is None else log_odds(logits).tolist()
        columns[name] = [value if math.isfinite(value) else None for value in values]
    return columns


def calibrated(score: float | None, temperature: float, exact_log_odds: float | None = None) -> float | None:
    """
    Return P(fake) with its log-odds divided by `temperature` (temperature scaling, Guo et al. 2017, arXiv:1706.04599).

    0 and 1, to which scores are rounded below log-odds of -745 and above 37, are calibrated by their `exact_log_odds`. Where
    these are not known they stay as they are, so that the order of scores is kept.
    """
    if score is None or temperature == 1 or (score in (0, 1) and exact_log_odds is None):
        return score
    known = exact_log_odds if score in (0, 1) else math.log(score) - math.log1p(-score)
    log_odds = known / temperature
    likelier = 1 / (1 + math.exp(-abs(log_odds)))  # never overflows
    return likelier if log_odds >= 0 else math.exp(log_odds) * likelier

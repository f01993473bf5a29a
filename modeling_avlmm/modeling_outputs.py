"""The one output class that every detector of this package returns."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class AVDetectionOutput(ModelOutput):
    """
    Verdicts of an audio-visual deepfake detector.

    All logits are ordered `real, fake` (label 0 is real, label 1 is fake). A row is `NaN` where that clip was not
    asked that question, so that an absent verdict can never be read as a verdict.

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*, returned when `labels` is given):
            Training loss.
        logits (`torch.FloatTensor` of shape `(batch_size, 2)`):
            Verdict on the clip as a whole: fake when any part of it is.
        video_logits (`torch.FloatTensor` of shape `(batch_size, 2)`, *optional*):
            Verdict on the picture alone.
        audio_logits (`torch.FloatTensor` of shape `(batch_size, 2)`, *optional*):
            Verdict on the sound alone.
        frame_scores (`torch.FloatTensor` of shape `(batch_size, num_frames)`, *optional*, returned by detectors that match features of picture and sound):
            Disagreement of each frame with the sound heard at its time, in [0, 1]: 0 where they belong together. NaN
            where there is no frame (padding), or no sound at its time.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    video_logits: torch.FloatTensor | None = None
    audio_logits: torch.FloatTensor | None = None
    frame_scores: torch.FloatTensor | None = None

    @property
    def scores(self) -> torch.Tensor:
        """P(fake) for each clip, shape `(batch_size,)`, in [0, 1]."""
        return fake_probability(self.logits)

    @property
    def disagreement(self) -> torch.Tensor | None:
        """Mean of a clip's `frame_scores`, shape `(batch_size,)`, in [0, 1]; NaN for a clip without any, None without."""
        return None if self.frame_scores is None else self.frame_scores.nanmean(dim=1)


def fake_probability(logits: torch.Tensor) -> torch.Tensor:
    """P(fake) from logits ordered `real, fake`: shape `(..., 2)` to `(...)`, computed in float32."""
    return torch.sigmoid(logits[..., 1].float() - logits[..., 0].float())

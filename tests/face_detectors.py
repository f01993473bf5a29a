"""A detector with known answers for faces: `from face_detectors import detector_of_skin`.

It calls a dark face fake, so that the two people of `face_factory` get different scores.
"""

from __future__ import annotations

import torch
from ssavd_factory import SMALL, tiny

from modeling_avlmm import AVDeepfakeDetectionPipeline, SSAVDProcessor
from modeling_avlmm.modeling_outputs import AVDetectionOutput

LIGHT, DARK = 0, 1
"""Looks of the people whose scores lie near 0 and near 1."""
SOUND_SCORE, ALONE_SCORE = 0.25, 0.125
"""P(fake) of any sound, and of any clip without a picture."""


def log_odds(crops: torch.Tensor) -> torch.Tensor:
    """Return the log-odds of fake of crops (N, 3, H, W): the darker their middle, the higher."""
    side = crops.shape[-1]
    middle = crops[:, 0, side * 2 // 5 : side * 3 // 5, side * 2 // 5 : side * 3 // 5].float()
    return (170 - middle.mean(dim=(1, 2))) / 12


class SkinNetwork(torch.nn.Module):
    """Stands in for the forward pass of an SSAVD."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, pixel_values, frame_mask, audio_mask, questions, **inputs) -> AVDetectionOutput:
        self.batches.append(len(pixel_values))
        shape = frame_mask.shape
        each = log_odds(pixel_values.flatten(0, 1)).reshape(shape).masked_fill(~frame_mask, 0)
        seen = each.sum(1) / frame_mask.sum(1)  # NaN without a picture
        alone = torch.full_like(seen, ALONE_SCORE).logit()
        heard = torch.full_like(seen, SOUND_SCORE).logit().masked_fill(~audio_mask, float("nan"))
        parts = [torch.where(seen.isnan(), alone, seen), seen, heard]
        logits = [torch.stack([torch.zeros_like(values), values], dim=-1) for values in parts]
        return AVDetectionOutput(None, *logits)


def detector_of_skin(faces: str = "all", **options) -> AVDeepfakeDetectionPipeline:
    """Return a pipeline of windows of 2 s, 4 frames a second, around a [`SkinNetwork`]."""
    model = tiny(**SMALL)
    processor = SSAVDProcessor.from_config(model.config, faces=faces, **options)
    detector = AVDeepfakeDetectionPipeline(model=model, processor=processor, device="cpu")
    detector.network = SkinNetwork()
    model.forward = detector.network.forward
    return detector

"""Integrated gradients of the small network, summed over the same cells, bands and passages as occlusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ..configuration_detector import PARTS
from ..processing_ssavd import SSAVDProcessor
from .attribution import (
    BAND_EDGES_HZ,
    Attribution,
    AttributionError,
    band_sounds,
    limits,
    log_odds,
    ranked,
)
from .regions import SOUND_BANDS, region_masks

if TYPE_CHECKING:
    from .attribution import _Work

STEPS = 64
"""Points on the way to the clip, those of Gauss and Legendre: densest near the ends, where noise gives way to pauses."""

CLOSE = 0.05
"""Log-odds by which the sum of all parts may be off before that is said; or a tenth of the change."""


def integrated_gradients(
    work: _Work, max_passes: int, on_progress: Callable[[int, int], None] | None = None
) -> Attribution:
    """
    Which pixels and samples moved the log-odds of a window, summed to the maps of [`Attribution`].

    The way begins at the clip with its picture covered and noise for its sound ([`noise_for`]). All cells of the picture and
    all bands of the sound together add up to the log-odds of the clip minus those of where the way began, but for the error of
    `STEPS` points.
    """
    detector, clip = work.detector, work.clip
    if not isinstance(detector.processor, SSAVDProcessor):
        raise AttributionError(
            f"method='gradients' is for SSAVD, whose inputs are pixels and samples, not {type(detector.model).__name__}. "
            "method='occlusion' works with every detector."
        )
    if max_passes < STEPS + 2:
        raise AttributionError(f"method='gradients' takes {STEPS + 2} passes, above max_passes={max_passes}.")
    model = detector.model
    begin = work.covered()
    if clip.has_audio:
        begin = replace(begin, audio=noise_for(clip.audio))
    score, baseline = work.scores([lambda: clip, lambda: begin])
    ends = [_inputs(detector, one, work.part) for one in (begin, clip)]
    masks = {name: ends[1][name] for name in ("frame_mask", "audio_mask", "questions")}
    temperature = (getattr(model.config, "temperature", None) or {}).get(work.part, 1.0)
    totals = [torch.zeros_like(ends[1][name]) for name in ("pixel_values", "audio_values")]
    places, shares = np.polynomial.legendre.leggauss(STEPS)
    for step, (place, share) in enumerate(zip(places, shares, strict=True)):
        weight = (1 + float(place)) / 2
        inputs = [
            torch.lerp(ends[0][name], ends[1][name], weight).requires_grad_()
            for name in ("pixel_values", "audio_values")
        ]
        with torch.enable_grad():
            output = model(pixel_values=inputs[0], audio_values=inputs[1], **masks)
            logits = (output.logits, output.video_logits, output.audio_logits)[PARTS.index(work.part)]
            odds = (logits[0, 1] - logits[0, 0]) / temperature
            gradients = torch.autograd.grad(odds, inputs, allow_unused=True)
        for total, gradient in zip(totals, gradients, strict=True):
            if gradient is not None:
                total += gradient * (float(share) / 2)
        if on_progress is not None:
            on_progress(step + 3, STEPS + 2)
    found = work.attribution(
        method="gradients", measure="log_odds", score=score, baseline=baseline, passes=STEPS + 2
    )
    if work.blocks:
        moved = totals[0] * (ends[1]["pixel_values"] - ends[0]["pixel_values"])
        _sum_picture(found, work, moved[0].sum(1).double().to("cpu"))
    if work.passages is not None:
        bands = band_sounds(clip.audio - begin.audio, BAND_EDGES_HZ)
        _sum_sound(found, work, bands, totals[1][0].double().to("cpu"))
    found.limits = limits(found)
    total = sum(float(values.sum()) for values in (found.picture, found.sound) if values is not None)
    change = log_odds(score) - log_odds(baseline)
    if abs(total - change) > max(CLOSE, 0.1 * abs(change)):
        found.limits.append(
            f"The parts add up to {total:+.2f}, and the log-odds changed by {change:+.2f}: where the two are far apart, as with "
            "sound that is silent in places, these maps are rough."
        )
    return found


def noise_for(audio: torch.Tensor) -> torch.Tensor:
    """
    White noise as loud as a sound, the same every time.

    The network takes the loudness out of a sound before it hears it. On the way from silence it would hear the whole sound at
    the first point already, and nothing new after that: no gradient would show what it heard.
    """
    noise = torch.randn(audio.shape, generator=torch.Generator().manual_seed(0))
    return noise * audio.square().mean().sqrt()


def _inputs(detector, clip, part: str) -> dict[str, torch.Tensor]:
    batch = detector.processor.collate([detector.processor.encode(clip, (part,))])
    batch = {name: value.to(detector.device) for name, value in batch.items()}
    mean, std = (
        torch.tensor(v, device=detector.device)[:, None, None]
        for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    batch["pixel_values"] = (batch["pixel_values"].float() / 255 - mean) / std
    return batch


def _sum_picture(found: Attribution, work: _Work, moved: torch.Tensor) -> None:
    """`moved`: (frames, side, side), what each pixel of each encoded frame adds to the log-odds."""
    times = work.clip.timestamps.numpy()
    begins = times[[block[0] for block in work.blocks]]
    at = np.arange(len(moved)) / work.detector.processor.fps
    owner = np.clip(np.searchsorted(begins, at + 1e-6, side="right") - 1, 0, None)
    # Each pixel belongs to one cell, so that nothing is counted twice or lost.
    side = moved.shape[-1]
    cell = torch.from_numpy(np.minimum(np.arange(side) * work.grid // side, work.grid - 1))
    one_hot = F.one_hot(cell, work.grid).double()
    cells = torch.einsum("thw,hr,wc->trc", moved, one_hot, one_hot)
    found.picture = np.stack([cells[owner == step].sum(0).numpy() for step in range(len(work.blocks))])
    masks = region_masks(side, side, work.face_box)
    total = moved.sum(0).numpy()
    found.regions = ranked({name: float(total[mask].sum()) for name, mask in masks.items()})


def _sum_sound(found: Attribution, work: _Work, bands: torch.Tensor, gradient: torch.Tensor) -> None:
    """The change of the sound along the way is the sum of its `bands`: so the product is parted exactly."""
    length = min(len(gradient), bands.shape[1])
    moved = bands[:, :length].double() * gradient[:length]
    found.sound = torch.stack([moved[:, p].sum(1) for p in work.passages], dim=1).numpy()
    found.passages = found.sound.sum(0)
    per_band = moved.sum(1).numpy()
    found.bands = ranked(
        {
            name: float(
                sum(v for v, (a, b) in zip(per_band, work.bands, strict=True) if low <= a and b <= high)
            )
            for name, (low, high) in SOUND_BANDS.items()
        }
    )

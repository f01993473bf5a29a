"""Integrated gradients of SSAVD, summed over the same cells, bands and passages as occlusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ..configuration_detector import PARTS
from ..media import Clip
from ..pipeline_avd import AVDeepfakeDetectionPipeline
from ..processing_ssavd import SSAVDProcessor
from .attribution_maps import Attribution, AttributionError, limits_of, log_odds, ranked
from .covering import BAND_EDGES_HZ, Covering, band_sounds
from .regions import SOUND_BANDS

STEPS = 64
"""Points on the path to the clip, placed by Gauss-Legendre: densest near the ends, where noise gives way to pauses."""

CLOSE = 0.05
"""Log-odds by which the sum of all parts may be off before `limits` says so; or a tenth of the change, if that is more."""

INPUTS = ("pixel_values", "audio_values")


def integrated_gradients(
    covering: Covering, on_progress: Callable[[int, int], None] | None = None
) -> Attribution:
    """
    Sum the pixels' and samples' shares of a window's log-odds into the maps of an [`Attribution`].

    The path starts at the clip with its picture covered and noise for its sound ([`noise_for`]). All cells of the
    picture and all bands of the sound add up to the log-odds of the clip minus those at the start, but for the error of
    `STEPS` points.

    Raises:
        AttributionError: for a detector other than SSAVD, or more passes than `max_passes`.
    """
    detector, clip, limit = covering.detector, covering.clip, covering.options.max_passes
    if not isinstance(detector.processor, SSAVDProcessor):
        raise AttributionError(
            f"method='gradients' is for SSAVD, whose inputs are pixels and samples, not {type(detector.model).__name__}. "
            "method='occlusion' works with every detector."
        )
    if limit < STEPS + 2:
        raise AttributionError(f"method='gradients' takes {STEPS + 2} passes, above max_passes={limit}.")
    begin = covering.covered()
    if clip.has_audio:
        begin = replace(begin, audio=noise_for(clip.audio))
    score, baseline = covering.scores([lambda: clip, lambda: begin])
    ends = [_inputs(detector, one, covering.options.part) for one in (begin, clip)]
    totals = _integrate(covering, *ends, on_progress)
    found = covering.attribution(
        method="gradients", measure="log_odds", score=score, baseline=baseline, passes=STEPS + 2
    )
    if covering.blocks:
        moved = totals["pixel_values"] * (ends[1]["pixel_values"] - ends[0]["pixel_values"])
        _sum_picture(found, covering, moved[0].sum(1).double().to("cpu"))
    if covering.passages:
        bands = band_sounds(clip.audio - begin.audio, BAND_EDGES_HZ)
        _sum_sound(found, covering, bands, totals["audio_values"][0].double().to("cpu"))
    found.limits = limits_of(found)
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
    Return white noise as loud as a sound, the same every time.

    The network normalizes loudness before it hears a sound. On a path from silence it would hear the whole sound at the
    first point already and nothing new after that, so no gradient would show what it heard.
    """
    noise = torch.randn(audio.shape, generator=torch.Generator().manual_seed(0))
    return noise * audio.square().mean().sqrt()


def _inputs(detector: AVDeepfakeDetectionPipeline, clip: Clip, part: str) -> dict[str, torch.Tensor]:
    batch = detector.processor.collate([detector.processor.encode(clip, (part,))])
    batch = {name: value.to(detector.device) for name, value in batch.items()}
    mean, std = (
        torch.tensor(v, device=detector.device)[:, None, None]
        for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    batch["pixel_values"] = (batch["pixel_values"].float() / 255 - mean) / std
    return batch


def _integrate(
    covering: Covering,
    begin: dict[str, torch.Tensor],
    end: dict[str, torch.Tensor],
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, torch.Tensor]:
    """Return the mean gradient of the log-odds along the straight path, for each input."""
    model, temperature = covering.detector.model, covering.temperature
    masks = {name: end[name] for name in ("frame_mask", "audio_mask", "questions")}
    totals = {name: torch.zeros_like(end[name]) for name in INPUTS}
    points, weights = np.polynomial.legendre.leggauss(STEPS)
    for step, (point, weight) in enumerate(zip(points, weights, strict=True)):
        share = (1 + float(point)) / 2
        inputs = {name: torch.lerp(begin[name], end[name], share).requires_grad_() for name in INPUTS}
        with torch.enable_grad():
            output = model(**inputs, **masks)
            by_part = (output.logits, output.video_logits, output.audio_logits)
            logits = by_part[PARTS.index(covering.options.part)]
            odds = (logits[0, 1] - logits[0, 0]) / temperature
            gradients = torch.autograd.grad(odds, list(inputs.values()), allow_unused=True)
        for name, gradient in zip(INPUTS, gradients, strict=True):
            if gradient is not None:
                totals[name] += gradient * (float(weight) / 2)
        if on_progress is not None:
            on_progress(step + 3, STEPS + 2)
    return totals


def _sum_picture(found: Attribution, covering: Covering, moved: torch.Tensor) -> None:
    """Fill the picture's map from the shares of all pixels, `moved` of shape `(frames, side, side)`."""
    times, grid = covering.clip.timestamps.numpy(), covering.options.grid
    begins = times[[block[0] for block in covering.blocks]]
    at = np.arange(len(moved)) / covering.detector.processor.fps
    owner = np.clip(np.searchsorted(begins, at + 1e-6, side="right") - 1, 0, None)
    # Each pixel belongs to exactly one cell, so nothing is counted twice or lost.
    side = moved.shape[-1]
    cell = torch.from_numpy(np.minimum(np.arange(side) * grid // side, grid - 1))
    one_hot = F.one_hot(cell, grid).double()
    cells = torch.einsum("thw,hr,wc->trc", moved, one_hot, one_hot)
    found.picture = np.stack([cells[owner == step].sum(0).numpy() for step in range(len(covering.blocks))])
    masks = covering.region_masks(side, side)
    if (
        covering.landmarks is not None
    ):  # one mask for each frame of the clip; the network may see other frames
        frame = np.clip(np.searchsorted(times, at + 1e-6, side="right") - 1, 0, None)
        masks = {name: mask[frame] for name, mask in masks.items()}
    total = moved.numpy()
    found.regions = ranked({name: float((total * mask).sum()) for name, mask in masks.items()})


def _sum_sound(found: Attribution, covering: Covering, bands: torch.Tensor, gradient: torch.Tensor) -> None:
    """Fill the sound's map. The change of the sound is the sum of its `bands`, so the product splits exactly."""
    length = min(len(gradient), bands.shape[1])
    moved = bands[:, :length].double() * gradient[:length]
    found.sound = torch.stack([moved[:, p].sum(1) for p in covering.passages], dim=1).numpy()
    found.passages = found.sound.sum(0)
    shares = list(zip(covering.bands, moved.sum(1).tolist(), strict=True))
    found.bands = ranked(
        {
            name: sum(share for (a, b), share in shares if low <= a and b <= high)
            for name, (low, high) in SOUND_BANDS.items()
        }
    )

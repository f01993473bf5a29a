"""A clip with parts of its picture or its sound covered, and the detector's scores of such clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..configuration_detector import SCORE_NAMES
from ..media import SAMPLING_RATE, Clip
from ..modeling_outputs import calibrated
from ..pipeline_avd import AVDeepfakeDetectionPipeline
from .attribution_maps import Attribution, AttributionError, AttributionOptions
from .face_places import landmarks_of
from .regions import SOUND_BANDS, region_masks

BAND_EDGES_HZ = (0.0, 300.0, 600.0, 1000.0, 1700.0, 3000.0, 4500.0, 6000.0, 8000.0)
"""Edges of the bands of a sound map. Each band of `SOUND_BANDS` consists of whole ones."""
THUMBNAIL = 192
"""Longer side of the frames kept for display, pixels."""
STFT = 512
"""Samples of the transform that separates bands: 32 ms, 31 Hz."""


class Covering:
    """
    A clip divided into cells, regions, passages and bands, each of which can be covered.

    Args:
        detector ([`AVDeepfakeDetectionPipeline`]): Scores the covered clips.
        clip ([`Clip`]): At most as long as one pass of the detector.
        options ([`AttributionOptions`]): Part, grid, steps, fill and face box.

    Raises:
        AttributionError: when the grid is finer than the frames.
    """

    def __init__(self, detector: AVDeepfakeDetectionPipeline, clip: Clip, options: AttributionOptions):
        self.detector, self.clip, self.options = detector, clip, options
        self.blocks: list[np.ndarray] = []
        self.masks: dict[str, np.ndarray] = {}
        self.cells: list[tuple[slice, slice]] = []
        self.covered_frames: torch.Tensor | None = None
        self.landmarks: np.ndarray | None = None
        self.passages: list[slice] = []
        self.bands = list(pairwise(BAND_EDGES_HZ))
        if clip.has_video:
            self._divide_frames()
        if clip.has_audio:
            edges = np.linspace(0, len(clip.audio), options.sound_steps + 1).round().astype(int)
            self.passages = [slice(a, b) for a, b in pairwise(edges)]
            self.band_sounds = band_sounds(clip.audio, BAND_EDGES_HZ)

    def _divide_frames(self) -> None:
        count, _, height, width = self.clip.frames.shape
        grid = self.options.grid
        if self.options.face_box is None:
            self.landmarks = landmarks_of(self.clip)
        if grid > min(height, width):
            raise AttributionError(f"grid={grid} is finer than the frames of {width}x{height}.")
        self.blocks = np.array_split(np.arange(count), min(self.options.frame_steps, count))
        rows, columns = (np.linspace(0, side, grid + 1).round().astype(int) for side in (height, width))
        self.cells = [
            (slice(rows[r], rows[r + 1]), slice(columns[c], columns[c + 1]))
            for r in range(grid)
            for c in range(grid)
        ]
        masks = self.region_masks(height, width)
        self.masks = {name: mask for name, mask in masks.items() if mask.any()}
        self.covered_frames = without_detail(self.clip.frames, grid, self.options.fill)

    @property
    def placed(self) -> str:
        """By what the regions are placed, of [`~regions.PLACED`]."""
        if self.landmarks is not None:
            return "landmarks"
        return "frame" if self.options.face_box is None else "box"

    def region_masks(self, height: int, width: int) -> dict[str, np.ndarray]:
        """Return the regions in pictures of this size: `(height, width)`, or one for each frame if a face was found."""
        shape = self.clip.frames.shape
        return region_masks(
            height, width, self.options.face_box, self.landmarks, aspect=shape[-1] / shape[-2]
        )

    def named_band(self, name: str) -> torch.Tensor:
        """Return the sound of one of `SOUND_BANDS`, shape `(samples,)`."""
        low, high = SOUND_BANDS[name]
        return self.band_sounds[[low <= a and b <= high for a, b in self.bands]].sum(0)

    def covered(self) -> Clip:
        """Return the clip with its picture covered and its sound silenced throughout."""
        clip = self.clip
        audio = None if clip.audio is None else torch.zeros_like(clip.audio)
        return replace(clip, frames=self.covered_frames, audio=audio, warnings=[])

    def with_cell_covered(self, frames: np.ndarray, cell: tuple[slice, slice]) -> Clip:
        """Return the clip with a cell of some frames covered."""
        rows, columns = cell
        changed = self.clip.frames.clone()
        changed[frames, :, rows, columns] = self.covered_frames[frames, :, rows, columns]
        return replace(self.clip, frames=changed, warnings=[])

    def with_region_covered(self, mask: np.ndarray) -> Clip:
        """Return the clip with a mask covered: `(height, width)` in all frames, or `(frames, height, width)`."""
        where = torch.from_numpy(mask if mask.ndim == 2 else mask[:, None])
        changed = torch.where(where, self.covered_frames, self.clip.frames)
        return replace(self.clip, frames=changed, warnings=[])

    def without(self, passage: slice, sound: torch.Tensor) -> Clip:
        """Return the clip with `sound`, which is part of its own sound, removed from a passage."""
        changed = self.clip.audio.clone()
        changed[passage] -= sound[passage] * _ramps(len(changed[passage]))
        return replace(self.clip, audio=changed.clamp_(-1, 1), warnings=[])

    def variants(self) -> Iterator[tuple[tuple, Callable[[], Clip]]]:
        """Yield a key for each clip to score, with a function that makes the clip when its turn comes."""
        yield ("score",), lambda: self.clip
        yield ("baseline",), self.covered
        for step, frames in enumerate(self.blocks):
            for number, cell in enumerate(self.cells):
                key = ("cell", step, *divmod(number, self.options.grid))
                yield key, lambda f=frames, c=cell: self.with_cell_covered(f, c)
        for name, mask in self.masks.items():
            yield ("region", name), lambda m=mask: self.with_region_covered(m)
        if not self.passages:
            return
        for step, passage in enumerate(self.passages):
            yield ("passage", step), lambda p=passage: self.without(p, self.clip.audio)
            for band, sound in enumerate(self.band_sounds):
                yield ("band", band, step), lambda p=passage, s=sound: self.without(p, s)
        for name in SOUND_BANDS:
            yield ("named", name), lambda n=name: self.without(slice(None), self.named_band(n))

    @property
    def temperature(self) -> float:
        """The number that divides the log-odds of the explained score."""
        return (self.detector.model.config.temperature or {}).get(self.options.part, 1.0)

    def scores(self, makers: Sequence[Callable[[], Clip]]) -> list[float]:
        """
        Return the calibrated P(fake) of several clips, from one forward pass of the pipeline itself.

        Only one of the decoded clips is in memory at a time.

        Raises:
            AttributionError: when the detector gives no score of the part in question.
        """
        detector, part = self.detector, self.options.part
        windows = [{"encoded": detector.processor.encode(make(), (part,))} for make in makers]
        scored = detector.forward(detector.collate(windows))
        values = [window[SCORE_NAMES[part]] for window in scored]
        if None in values:
            raise AttributionError(f"{self.clip.name}: this detector gives no {part} score of the window.")
        return [calibrated(value, self.temperature) for value in values]

    def attribution(self, **values: Any) -> Attribution:
        """Return an [`Attribution`] with the clip's frames and times, and `values` as its other fields."""
        clip = self.clip
        if self.blocks:
            shown = clip.frames[[block[len(block) // 2] for block in self.blocks]].float()
            scale = THUMBNAIL / max(shown.shape[-2:])
            if scale < 1:
                size = [max(1, round(side * scale)) for side in shown.shape[-2:]]
                shown = F.interpolate(shown, size, mode="bilinear", antialias=True)
            values["frames"] = shown.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
            times = clip.timestamps.numpy()
            values["frame_times"] = np.array([clip.start + times[block].mean() for block in self.blocks])
            values["placed"] = self.placed
        if self.passages:
            values["band_edges_hz"] = np.array(BAND_EDGES_HZ)
            middles = [(passage.start + passage.stop) / 2 for passage in self.passages]
            values["times"] = clip.start + np.array(middles) / SAMPLING_RATE
        return Attribution(part=self.options.part, start=clip.start, end=clip.end, name=clip.name, **values)


def band_sounds(audio: torch.Tensor, edges_hz: Sequence[float]) -> torch.Tensor:
    """
    Split a sound into bands that add up to it.

    Args:
        audio (`torch.Tensor` of shape `(samples,)`): Sound at 16 kHz.
        edges_hz (`Sequence[float]`): Edges of the bands, from 0 to 8000.

    Returns:
        `torch.Tensor` of shape `(bands, samples)`.
    """
    window = torch.hann_window(STFT)
    # Centred frames need half a window of sound on both sides.
    padded = F.pad(audio, (STFT, STFT))
    spectrum = torch.stft(padded, STFT, STFT // 4, window=window, return_complex=True)
    hz = torch.arange(spectrum.shape[0]) * (SAMPLING_RATE / STFT)
    bands = []
    for low, high in pairwise(edges_hz):
        inside = (hz >= low) & ((hz < high) | (high >= SAMPLING_RATE / 2))
        part = torch.istft(spectrum * inside[:, None], STFT, STFT // 4, window=window, length=len(padded))
        bands.append(part[STFT : STFT + len(audio)])
    return torch.stack(bands)


def _ramps(length: int) -> torch.Tensor:
    """Return ones that rise and fall over 5 ms at both ends, so that removing a passage makes no click."""
    ramp = torch.arange(1, length + 1) / (0.005 * SAMPLING_RATE)
    return torch.minimum(ramp, ramp.flip(0)).clamp(max=1)


def without_detail(frames: torch.Tensor, grid: int, fill: str) -> torch.Tensor:
    """Return covered frames, uint8 of shape `(frames, 3, height, width)`."""
    values = frames.float()
    if fill == "mean":
        values = values.mean((-2, -1), keepdim=True).expand_as(values)
    else:
        # The means of the cells, joined smoothly, so that covering draws few edges.
        small = F.adaptive_avg_pool2d(values, grid)
        values = F.interpolate(small, frames.shape[-2:], mode="bilinear", align_corners=False)
    return values.round().clamp(0, 255).byte()

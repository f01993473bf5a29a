"""What a detector looked at: the score once more with parts of the picture and passages of the sound covered.

Occlusion (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", arXiv 1311.2901) works with every
detector, as it changes frames and waveform before the processor sees them. Integrated gradients (Sundararajan et al., "Axiomatic
Attribution for Deep Networks", arXiv 1703.01365) are for networks that take pixels and samples. Grid, steps, bands and what covers
are our own choice.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..configuration_detector import PARTS
from ..media import SAMPLING_RATE, Clip, MediaReader
from ..pipeline_avd import SCORE_NAMES, AVDeepfakeDetectionPipeline, calibrated, split_source
from .regions import SOUND_BANDS, Box, region_masks

BAND_EDGES_HZ = (0.0, 300.0, 600.0, 1000.0, 1700.0, 3000.0, 4500.0, 6000.0, 8000.0)
"""Bands of a sound map; those of `SOUND_BANDS` are made of whole ones."""
MAX_PASSES = 400
"""Clips that are scored at most, unless told otherwise."""
THUMBNAIL = 192
"""Longer side of the frames that are kept, pixels."""
STFT = 512
"""Samples of the transform in which bands are taken out: 32 ms, 31 Hz."""
SATURATED = 0.01
FLOOR = 1e-7


class AttributionError(ValueError):
    """An attribution that cannot be made as asked; the message says what to change."""


@dataclass
class Attribution:
    """
    How the score of a window changes when parts of it are covered.

    Attributes:
        part (`str`): The verdict in question: `overall`, `video` or `audio`.
        method (`str`): `occlusion` or `gradients`.
        measure (`str`): What drops: the `score`, P(fake) in [0, 1], or its `log_odds`.
        start, end (`float`): The window on the file's clock, seconds.
        name (`str`): The file.
        score (`float`): P(fake) of the window as it is, calibrated as the pipeline does.
        baseline (`float`):
            P(fake) with all of the picture and all of the sound covered; for gradients, with noise for the sound.
        passes (`int`): Clips that were scored to find out.
        picture (`np.ndarray` of shape `(frames, rows, columns)`, *optional*):
            How much the score drops when the cell is covered on the frames of a step; below 0 where it rises.
        frame_times (`np.ndarray` of shape `(frames,)`, *optional*): The middle of each step, seconds on the file's clock.
        frames (`np.ndarray` of shape `(frames, height, width, 3)`, *optional*): uint8, RGB, a small frame of each step.
        regions (`dict[str, float]`): For each region of the face the drop when it is covered all through, largest first.
        sound (`np.ndarray` of shape `(bands, steps)`, *optional*): The drop when a band is taken out of a passage.
        band_edges_hz (`np.ndarray` of shape `(bands + 1,)`, *optional*): Where bands begin and end.
        times (`np.ndarray` of shape `(steps,)`, *optional*): The middle of each passage, seconds on the file's clock.
        passages (`np.ndarray` of shape `(steps,)`, *optional*): The drop when all of a passage is silenced.
        bands (`dict[str, float]`): For each named band the drop when it is taken out all through, largest first.
        limits (`list[str]`): What this can and cannot show, in sentences; to be shown wherever the maps are.
    """

    part: str
    method: str
    measure: str
    start: float
    end: float
    name: str
    score: float
    baseline: float
    passes: int = 0
    picture: np.ndarray | None = None
    frame_times: np.ndarray | None = None
    frames: np.ndarray | None = None
    regions: dict[str, float] = field(default_factory=dict)
    sound: np.ndarray | None = None
    band_edges_hz: np.ndarray | None = None
    times: np.ndarray | None = None
    passages: np.ndarray | None = None
    bands: dict[str, float] = field(default_factory=dict)
    limits: list[str] = field(default_factory=list)


def attribute(
    detector: AVDeepfakeDetectionPipeline,
    source: Any,
    window: dict | None = None,
    part: str = "overall",
    method: str = "occlusion",
    grid: int = 7,
    frame_steps: int = 4,
    sound_steps: int = 8,
    fill: str = "blur",
    measure: str = "score",
    face_box: Box | None = None,
    batch_size: int = 8,
    max_passes: int = MAX_PASSES,
    on_progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """
    Finds out which parts of a clip a detector's score rests on.

    ```python
    >>> found = attribute(detector, "clip.mp4")
    >>> next(iter(found.regions))
    'mouth'
    ```

    By occlusion it scores the clip `1 + 1 + frame_steps * grid² + 8 + 9 * sound_steps + 4` times (282 by default) and is
    the same every time.

    Args:
        detector ([`AVDeepfakeDetectionPipeline`]): Whose score it is. Its gate is left aside.
        source (path, URL, ..., or [`Clip`]): The file, whatever the pipeline takes, or a decoded window of it.
        window (`dict`, *optional*):
            `start` and `end` in seconds, such as one of a result's `windows`. Defaults to the whole file where one pass takes
            it, and otherwise to its window with the highest score.
        part (`str`, *optional*, defaults to `"overall"`): Which score: `"overall"`, `"video"` or `"audio"`.
        method (`str`, *optional*, defaults to `"occlusion"`):
            `"gradients"` are integrated gradients for detectors that take `pixel_values` and `audio_values` (SSAVD), from the
            clip with its picture covered and noise for its sound to the clip: they add up to the difference of the log-odds
            between the two.
        grid (`int`, *optional*, defaults to 7): Rows and columns of the picture's map.
        frame_steps, sound_steps (`int`, *optional*, default to 4 and 8):
            Into how many steps frames and sound are parted in time; fewer frames than steps give one step each.
        fill (`str`, *optional*, defaults to `"blur"`):
            What covers a part of a frame: `"blur"`, the frame without its detail, or `"mean"`, the mean colour of the frame.
        measure (`str`, *optional*, defaults to `"score"`):
            `"score"` or `"log_odds"`, which still tells parts apart where the score is nearly 0 or 1. Gradients are of
            log-odds always.
        face_box (`tuple[float, float, float, float]`, *optional*):
            (left, top, right, bottom) of the face as fractions of the frame, for the regions. The whole frame by default.
        batch_size (`int`, *optional*, defaults to 8): Clips of one forward pass.
        max_passes (`int`, *optional*, defaults to 400): Most clips that may be scored.
        on_progress (`Callable[[int, int], None]`, *optional*): Called with the clips scored and those in all.

    Raises:
        AttributionError: for options out of range, a part that the window does not have, more passes than `max_passes`, or
            gradients of a detector that cannot give them.
        MediaError: when the file cannot be read.
    """
    if part not in PARTS:
        raise AttributionError(f"part must be of {PARTS}, not {part!r}.")
    for name, value, known in (
        ("method", method, ("occlusion", "gradients")),
        ("fill", fill, ("blur", "mean")),
        ("measure", measure, ("score", "log_odds")),
    ):
        if value not in known:
            raise AttributionError(f"{name} must be of {known}, not {value!r}.")
    for name, value in (
        ("grid", grid),
        ("frame_steps", frame_steps),
        ("sound_steps", sound_steps),
        ("batch_size", batch_size),
    ):
        if value < 1:
            raise AttributionError(f"{name} must be at least 1, not {value}.")
    clip = source if isinstance(source, Clip) else _read(detector, source, window, part)
    if (part == "video" and not clip.has_video) or (part == "audio" and not clip.has_audio):
        raise AttributionError(
            f"{clip.name}: the window has no {'picture' if part == 'video' else 'sound'} to have a score."
        )
    work = _Work(detector, clip, part, grid, frame_steps, sound_steps, fill, face_box)
    if method == "gradients":
        from .gradients import integrated_gradients

        return integrated_gradients(work, max_passes, on_progress)
    return _occlusion(work, measure, batch_size, max_passes, on_progress)


def _read(detector: AVDeepfakeDetectionPipeline, source: Any, window: dict | None, part: str) -> Clip:
    processor = detector.processor
    media, audio = split_source(source)
    with MediaReader(
        media, audio=audio, trim_leading_silence=getattr(processor, "trim_leading_silence", False)
    ) as reader:
        longest, duration = processor.max_seconds, reader.info.duration
        if window is None and duration > longest:
            result = detector(source, on_error="raise")
            scored = [w for w in result["windows"] if w[SCORE_NAMES[part]] is not None]
            if result.get("decided_by") == "gate" or not scored:
                raise AttributionError(
                    f"{reader.info.name}: {duration:.1f} s is longer than one pass takes ({longest:g} s), and this detector has no "
                    "window of its own to choose. Give window={'start': ..., 'end': ...}."
                )
            window = max(scored, key=lambda w: w[SCORE_NAMES[part]])
        start, end = (0.0, duration) if window is None else (window["start"], window["end"])
        if end - start > longest + 1e-6:
            raise AttributionError(
                f"The window of {end - start:.1f} s is longer than one pass takes ({longest:g} s)."
            )
        return reader.read(start=start, end=end, fps=processor.fps, max_frames=processor.max_frames)


class _Work:
    """A clip, its covered versions, and the detector's score of any of them."""

    def __init__(self, detector, clip, part, grid, frame_steps, sound_steps, fill, face_box):
        self.detector, self.clip, self.part = detector, clip, part
        self.blocks: list[np.ndarray] = []
        self.masks: dict[str, np.ndarray] = {}
        self.cells: list[tuple[slice, slice]] = []
        self.grid, self.face_box = grid, face_box
        self.covered_frames = self.passages = None
        if clip.has_video:
            count, _, height, width = clip.frames.shape
            if grid > min(height, width):
                raise AttributionError(f"grid={grid} is finer than the frames of {width}x{height}.")
            self.blocks = np.array_split(np.arange(count), min(frame_steps, count))
            rows, columns = (np.linspace(0, side, grid + 1).round().astype(int) for side in (height, width))
            self.cells = [
                (slice(rows[r], rows[r + 1]), slice(columns[c], columns[c + 1]))
                for r in range(grid)
                for c in range(grid)
            ]
            self.masks = {
                name: mask for name, mask in region_masks(height, width, face_box).items() if mask.any()
            }
            self.covered_frames = _without_detail(clip.frames, grid, fill)
        if clip.has_audio:
            edges = np.linspace(0, len(clip.audio), sound_steps + 1).round().astype(int)
            self.passages = [slice(a, b) for a, b in pairwise(edges)]
            self.bands = list(pairwise(BAND_EDGES_HZ))
            self.band_sounds = band_sounds(clip.audio, BAND_EDGES_HZ)

    def named_band(self, name: str) -> torch.Tensor:
        """The sound of one of `SOUND_BANDS`, which are made of whole bands."""
        low, high = SOUND_BANDS[name]
        return self.band_sounds[[low <= a and b <= high for a, b in self.bands]].sum(0)

    def covered(self) -> Clip:
        """The clip with nothing left to look at or listen to."""
        clip = self.clip
        audio = None if clip.audio is None else torch.zeros_like(clip.audio)
        return replace(clip, frames=self.covered_frames, audio=audio, warnings=[])

    def with_frames_covered(self, frames: np.ndarray, where: Any) -> Clip:
        changed = self.clip.frames.clone()
        if isinstance(where, np.ndarray):
            mask = torch.from_numpy(where)
            changed[frames] = torch.where(mask, self.covered_frames[frames], changed[frames])
        else:
            rows, columns = where
            changed[frames, :, rows, columns] = self.covered_frames[frames, :, rows, columns]
        return replace(self.clip, frames=changed, warnings=[])

    def without(self, passage: slice, sound: torch.Tensor) -> Clip:
        """The clip with `sound`, a part of its own, taken out of a passage."""
        changed = self.clip.audio.clone()
        changed[passage] -= sound[passage] * _ramps(len(changed[passage]))
        return replace(self.clip, audio=changed.clamp_(-1, 1), warnings=[])

    def variants(self) -> Iterator[tuple[tuple, Callable[[], Clip]]]:
        """What is scored: a key, and how the clip is made when its turn comes."""
        yield ("score",), lambda: self.clip
        yield ("baseline",), self.covered
        everywhere = np.concatenate(self.blocks) if self.blocks else None
        for step, frames in enumerate(self.blocks):
            for number, cell in enumerate(self.cells):
                yield (
                    ("cell", step, *divmod(number, self.grid)),
                    lambda f=frames, c=cell: self.with_frames_covered(f, c),
                )
        for name, mask in self.masks.items():
            yield ("region", name), lambda m=mask: self.with_frames_covered(everywhere, m)
        if self.passages is None:
            return
        for step, passage in enumerate(self.passages):
            yield ("passage", step), lambda p=passage: self.without(p, self.clip.audio)
            for band, sound in enumerate(self.band_sounds):
                yield ("band", band, step), lambda p=passage, s=sound: self.without(p, s)
        for name in SOUND_BANDS:
            yield ("named", name), lambda n=name: self.without(slice(None), self.named_band(n))

    def scores(self, makers: list[Callable[[], Clip]]) -> list[float]:
        """P(fake) of each, calibrated, from one forward pass of the pipeline itself. One clip is in memory at a time."""
        detector = self.detector
        windows = [{"encoded": detector.processor.encode(make(), (self.part,))} for make in makers]
        scored = detector.forward(detector.collate(windows))
        temperature = (getattr(detector.model.config, "temperature", None) or {}).get(self.part, 1.0)
        values = [window[SCORE_NAMES[self.part]] for window in scored]
        if None in values:
            raise AttributionError(
                f"{self.clip.name}: this detector gives no {self.part} score of the window."
            )
        return [calibrated(value, temperature) for value in values]

    def attribution(self, **more) -> Attribution:
        """What is known of the clip without a score."""
        clip = self.clip
        if self.blocks:
            middle = [block[len(block) // 2] for block in self.blocks]
            shown = clip.frames[middle].float()
            scale = THUMBNAIL / max(shown.shape[-2:])
            if scale < 1:
                size = [max(1, round(side * scale)) for side in shown.shape[-2:]]
                shown = F.interpolate(shown, size, mode="bilinear", antialias=True)
            more["frames"] = shown.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
            times = clip.timestamps.numpy()
            more["frame_times"] = np.array([clip.start + times[block].mean() for block in self.blocks])
        if self.passages is not None:
            more["band_edges_hz"] = np.array(BAND_EDGES_HZ)
            more["times"] = np.array(
                [clip.start + (p.start + p.stop) / 2 / SAMPLING_RATE for p in self.passages]
            )
        return Attribution(part=self.part, start=clip.start, end=clip.end, name=clip.name, **more)


def _occlusion(work: _Work, measure: str, batch_size: int, max_passes: int, on_progress) -> Attribution:
    variants = list(work.variants())
    if len(variants) > max_passes:
        raise AttributionError(
            f"This takes {len(variants)} passes, above max_passes={max_passes}. Lower grid, frame_steps or sound_steps, or raise it."
        )
    scores: dict[tuple, float] = {}
    for first in range(0, len(variants), batch_size):
        batch = variants[first : first + batch_size]
        scores |= zip((key for key, _ in batch), work.scores([make for _, make in batch]), strict=True)
        if on_progress is not None:
            on_progress(len(scores), len(variants))
    value = (lambda score: score) if measure == "score" else log_odds
    start = value(scores[("score",)])

    def drop(*key) -> float:
        return start - value(scores[key])

    found = work.attribution(
        method="occlusion",
        measure=measure,
        score=scores[("score",)],
        baseline=scores[("baseline",)],
        passes=len(variants),
        regions=ranked({name: drop("region", name) for name in work.masks}),
    )
    sides = range(work.grid)
    if work.blocks:
        found.picture = np.array(
            [[[drop("cell", step, r, c) for c in sides] for r in sides] for step in range(len(work.blocks))]
        )
    if work.passages is not None:
        steps = range(len(work.passages))
        found.sound = np.array(
            [[drop("band", band, step) for step in steps] for band in range(len(work.bands))]
        )
        found.passages = np.array([drop("passage", step) for step in steps])
        found.bands = ranked({name: drop("named", name) for name in SOUND_BANDS})
    found.limits = limits(found)
    return found


def limits(found: Attribution) -> list[str]:
    """What a map can and cannot show, with what is particular to this one."""
    lines = []
    if found.method == "occlusion":
        lines.append(
            "A marked part is one without which this detector's score falls. That is what the detector reacts to, not proof that "
            "the part was altered."
        )
        lines.append(
            "Covering leaves traces of its own, to which a detector may react; and where two parts say the same, covering one "
            "of them changes little, so that an unmarked part may matter too."
        )
    else:
        lines.append(
            "A marked part is one that moved this detector's log-odds on the straight way to this clip from one with its picture "
            "covered and noise for its sound. That is what the network is sensitive to, not proof that the part was altered."
        )
    if found.regions:
        lines.append(
            "Regions are a fixed layout on the frame (or on the face box that was given), not found in it: on a frame that is "
            "no face crop their names mean nothing."
        )
    if found.picture is not None and found.sound is not None:
        lines.append(
            "Whether lips and voice belong together cannot be shown by covering one place at a time."
        )
    if found.measure == "score" and not SATURATED < found.score < 1 - SATURATED:
        lines.append(
            f"The score of {found.score:.3f} is close to its end of the scale, where covering one part hardly moves it: "
            "measure='log_odds' shows smaller differences."
        )
    if found.method == "occlusion" and abs(found.score - found.baseline) < 0.1:
        lines.append(
            f"With everything covered the score is {found.baseline:.3f}, nearly what it was ({found.score:.3f}): this map says little "
            "about why the file has its score."
        )
    return lines


def band_sounds(audio: torch.Tensor, edges_hz: Sequence[float]) -> torch.Tensor:
    """
    Parts a sound into bands that add up to it.

    Args:
        audio (`torch.Tensor` of shape `(samples,)`): At 16 kHz.
        edges_hz (`Sequence[float]`): Where bands begin and end, from 0 to 8000.

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
    """1, with 5 ms at both ends on which it rises and falls, so that taking out a passage makes no click."""
    ramp = torch.arange(1, length + 1) / (0.005 * SAMPLING_RATE)
    return torch.minimum(ramp, ramp.flip(0)).clamp(max=1)


def ranked(values: dict[str, float]) -> dict[str, float]:
    """Largest first."""
    return dict(sorted(values.items(), key=lambda item: -item[1]))


def log_odds(score: float) -> float:
    """Of P(fake), which is kept `FLOOR` away from 0 and 1."""
    score = min(max(score, FLOOR), 1 - FLOOR)
    return math.log(score) - math.log1p(-score)


def _without_detail(frames: torch.Tensor, grid: int, fill: str) -> torch.Tensor:
    """uint8 frames as they are where they are covered."""
    values = frames.float()
    if fill == "mean":
        values = values.mean((-2, -1), keepdim=True).expand_as(values)
    else:
        # The mean of each cell, and a smooth way from one to the next, so that covering draws few edges.
        small = F.adaptive_avg_pool2d(values, grid)
        values = F.interpolate(small, frames.shape[-2:], mode="bilinear", align_corners=False)
    return values.round().clamp(0, 255).byte()


__all__ = ["Attribution", "AttributionError", "attribute"]

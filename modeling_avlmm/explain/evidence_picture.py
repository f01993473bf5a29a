"""Differences between the picture of a fake and that of its source, by face region and time.

Both pictures are read at the same instants of true time and shrunk to one grid. The source is given the light of the fake:
for each colour an offset, and a gain that may slope across the frame. The remaining difference is divided by the error
that compression and resampling would cause there, which is larger at edges and in motion. The scale of that error is the
clip's own, taken from the quarter of the picture that differs least. All constants are our own choice, set on re-encoded
copies of real recordings and of the demonstration benchmark.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from ..media import MediaReader
from .face_places import MainFace
from .regions import STEP, Box, region_masks

RATE = 10.0  # instants compared per second: two in a time cell
SIDE = 96  # longer side of the common grid, pixels
MAX_RATE = 30.0  # most frames per second read from the source
MAX_LAG = 1.0  # largest shift of the picture against its source, seconds
MAX_SECONDS = 60.0  # of longer clips, only this much is compared
SMOOTHING = 1.0  # standard deviation of the blur before differences are taken, pixels
BASE_ERROR = 1.5 / 255  # error of compression in a flat still area, at scale 1
EDGE_ERROR = 0.15  # share of the local contrast that compression and resampling may change, at scale 1
MOTION_ERROR = 0.2  # share of the change between frames that compression may cause, at scale 1 ...
RETIMED_ERROR = 0.5  # ... and the same if frame rates differ, which shifts frames by up to half a frame
QUIETEST = 25  # percentile of the tiles that gives the clip's own scale
FLOOR_FACTOR = 3.0  # a difference counts above this multiple of the clip's own scale ...
FLOOR_MIN, FLOOR_MAX = 3.0, 6.0  # ... within these limits: a picture forged all over has no quiet quarter
TILE = 8  # side of a tile, pixels
LAG_GAIN = 0.8  # a shift counts if it leaves less than this share of the difference without a shift
LIKENESS = 0.6  # below this median correlation, two pictures show different scenes


@dataclass
class PictureEvidence:
    """
    The result of [`compare_pictures`].

    Attributes:
        ratios (`dict[str, np.ndarray]`): Region -> difference in units of the expected error, one value per time cell.
        floor (`float`): Ratio above which a difference counts.
        lag (`float`): Seconds by which the fake's picture is later than the source's.
        placed (`str`): By what the regions are placed, of [`~regions.PLACED`].
        mouth, source_mouth (`np.ndarray` of shape `(T,)`, *optional*):
            Movement of the mouth region at `RATE`, in the fake and in the source.
        warnings (`list[str]`): Reasons for comparisons that were not made.
    """

    ratios: dict[str, np.ndarray] = field(default_factory=dict)
    floor: float = 0.0
    lag: float = 0.0
    placed: str = "frame"
    mouth: np.ndarray | None = None
    source_mouth: np.ndarray | None = None
    warnings: list[str] = field(default_factory=list)


def compare_pictures(fake: MediaReader, source: MediaReader, face_box: Box | None = None) -> PictureEvidence:
    """
    Compare two pictures of the same scene.

    Args:
        fake, source ([`~media.MediaReader`]): Two files with a picture.
        face_box (`tuple`, *optional*): See [`~regions.region_masks`]. By default the face is looked for in the fake.

    Raises:
        MediaError: when frames of either cannot be decoded.
    """
    found = PictureEvidence()
    shape, source_shape = (fake.info.height, fake.info.width), (source.info.height, source.info.width)
    ratio = shape[0] * source_shape[1] / (shape[1] * source_shape[0])
    if abs(np.log(ratio)) > 0.05:
        found.warnings.append(
            f"the pictures have different shapes ({shape[1]}x{shape[0]} and {source_shape[1]}x{source_shape[0]}): "
            "not compared"
        )
        return found
    size = _grid(shape)
    seen_face = MainFace() if face_box is None else None
    seen = _read(fake, RATE, size, seen_face)
    rate = min(source.info.average_fps or RATE, MAX_RATE)
    shown = _read(source, rate, size)
    if len(seen) < 2 or len(shown) < 2:
        found.warnings.append("one of the pictures has a single frame: pictures not compared")
        return found
    slower = min(fake.info.average_fps or RATE, rate)
    shift = _lag(seen, shown, rate, 1.5 * rate / slower)
    found.lag = -shift / rate
    index = np.floor(np.arange(len(seen)) / RATE * rate + 1e-6).astype(int) + shift
    usable = (index >= 0) & (index < len(shown))
    if usable.mean() < 0.5:
        found.warnings.append("less than half of the fake has a counterpart in time: pictures not compared")
        return found
    found.placed, masks = _masks(seen_face, len(seen), size, face_box)
    mouth = masks["mouth"]
    found.mouth = _movement(seen, mouth)
    found.source_mouth = _movement(shown[np.clip(index, 0, len(shown) - 1)], mouth)
    retimed = abs(np.log((fake.info.average_fps or RATE) / (source.info.average_fps or RATE))) > 0.005
    motion_error = RETIMED_ERROR if retimed else MOTION_ERROR
    differences, expected, likeness = _differences(seen[usable], shown, index[usable], motion_error)
    if likeness < LIKENESS:
        found.warnings.append(
            f"the pictures do not show the same scene (correlation {likeness:.2f}): not compared"
        )
        return found
    quiet = np.percentile(_tiles(differences, expected), QUIETEST)
    found.floor = float(np.clip(FLOOR_FACTOR * quiet, FLOOR_MIN, FLOOR_MAX))
    cells = (np.flatnonzero(usable) / RATE / STEP + 1e-6).astype(int)
    count = int(np.ceil(len(seen) / RATE / STEP - 1e-6))
    for name, mask in masks.items():
        values, mask = np.zeros(count), mask[usable]
        for cell in np.unique(cells):
            here = cells == cell
            inside = mask[here]
            if inside.any():
                values[cell] = np.sqrt(differences[here][inside].mean() / expected[here][inside].mean())
        found.ratios[name] = values
    return found


def mouth_movement(reader: MediaReader, face_box: Box | None = None) -> np.ndarray | None:
    """Return the movement of the mouth region at `RATE`, shape `(T,)`; None for a picture of a single frame."""
    size = _grid((reader.info.height, reader.info.width))
    face = MainFace() if face_box is None else None
    seen = _read(reader, RATE, size, face)
    return _movement(seen, _masks(face, len(seen), size, face_box)[1]["mouth"]) if len(seen) > 1 else None


def _masks(
    face: MainFace | None, count: int, size: tuple[int, int], face_box: Box | None
) -> tuple[str, dict[str, np.ndarray]]:
    """Return by what the regions are placed, and their masks in `count` instants, each `(count, rows, columns)`."""
    landmarks = None if face is None else face.landmarks_at(np.arange(count) / RATE)
    if landmarks is not None:
        return "landmarks", region_masks(*size, landmarks=landmarks)
    masks = region_masks(*size, face_box)
    fixed = {name: np.broadcast_to(mask, (count, *size)) for name, mask in masks.items()}
    return "frame" if face_box is None else "box", fixed


def _grid(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the rows and columns of the grid for a picture of `shape` (height, width)."""
    rows, columns = (max(16, round(side * SIDE / max(shape))) for side in shape)
    return rows, columns


def _read(
    reader: MediaReader, rate: float, size: tuple[int, int], face: MainFace | None = None
) -> np.ndarray:
    """Return the frames shown at k / `rate` on the grid, float32 in 0..1 of shape `(T, rows, columns, 3)`.

    The whole frames are shown to `face`.
    """
    parts = list(_windows(reader, rate, size, face))
    return np.concatenate(parts) if parts else np.zeros((0, *size, 3), dtype=np.float32)


def _windows(
    reader: MediaReader, rate: float, size: tuple[int, int], face: MainFace | None
) -> Iterator[np.ndarray]:
    """Yield the frames of [`_read`] in windows of two seconds, so that few full frames are in memory."""
    count = int(np.ceil(min(reader.info.duration, MAX_SECONDS) * rate - 1e-6))
    per_window = max(1, int(2 * rate))
    for first in range(0, count, per_window):
        stop = min(first + per_window, count)
        clip = reader.read(first / rate, stop / rate, fps=rate, with_audio=False)
        if clip.frames is None:  # the picture ends before the sound
            return
        if face is not None:
            face.look(clip.frames, clip.timestamps.numpy() + clip.start)
        frames = clip.frames.float() / 255
        shrinks = frames.shape[-1] > size[1] or frames.shape[-2] > size[0]
        frames = torch.nn.functional.interpolate(frames, size, mode="bilinear", antialias=shrinks)
        yield frames.permute(0, 2, 3, 1).numpy()


def _lag(seen: np.ndarray, shown: np.ndarray, rate: float, least: float) -> int:
    """
    Return by how many frames, at `rate`, the source is ahead: `seen(t)` is like `shown(t + lag)`.

    Up to `least` frames count as no shift, since a change of the frame rate alone causes that much.
    """

    def signature(frames: np.ndarray) -> np.ndarray:
        grey = torch.from_numpy(frames.mean(-1))[:, None]
        small = torch.nn.functional.interpolate(grey, (24, 24), mode="area").flatten(1).numpy()
        small = small - small.mean(1, keepdims=True)
        return small / np.maximum(small.std(1, keepdims=True), 1e-3)

    a, b = signature(seen), signature(shown)
    at = np.floor(np.arange(len(a)) / RATE * rate + 1e-6).astype(int)
    scores: dict[int, float] = {}
    for shift in range(-round(MAX_LAG * rate), round(MAX_LAG * rate) + 1):
        usable = (at + shift >= 0) & (at + shift < len(b))
        if usable.mean() >= 0.5:
            scores[shift] = float(np.median(np.abs(a[usable] - b[at[usable] + shift]).mean(1)))
    still = min((score for shift, score in scores.items() if abs(shift) <= least), default=0.0)
    best = min(scores, key=lambda s: (scores[s], abs(s)), default=0)
    return best if abs(best) > least and scores[best] < LAG_GAIN * still else 0


def _differences(
    seen: np.ndarray, shown: np.ndarray, index: np.ndarray, motion_error: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the squared difference and the squared expected error, each of shape `(T, rows, columns)`, and the median
    correlation of the frames."""
    seen = _smooth(seen)
    shown = _smooth(shown)
    best = np.full(len(seen), np.inf)
    differences = np.zeros(seen.shape[:3], dtype=np.float32)
    fitted = np.zeros_like(seen)
    for step in (0, -1, 1):  # the frame shown at that time, or a neighbour if frame rates differ
        candidate = shown[np.clip(index + step, 0, len(shown) - 1)]
        lit = _relight(candidate, seen)
        squared = ((seen - lit) ** 2).mean(-1)
        score = np.median(squared.reshape(len(squared), -1), axis=1)
        better = score < best
        best[better], differences[better], fitted[better] = score[better], squared[better], lit[better]
    moved = [np.abs(shown[np.clip(index + step, 0, len(shown) - 1)] - shown[index]) for step in (-1, 1)]
    motion = np.maximum(*moved).mean(-1)
    grey = fitted.mean(-1)
    slopes = np.hypot(np.gradient(grey, axis=1), np.gradient(grey, axis=2))
    expected = BASE_ERROR + EDGE_ERROR * _smooth(slopes) + motion_error * _smooth(motion)
    centred = [x - x.mean((1, 2), keepdims=True) for x in (seen.mean(-1), grey)]
    power = [np.sqrt((x**2).mean((1, 2))) for x in centred]
    alike = (centred[0] * centred[1]).mean((1, 2)) / np.maximum(power[0] * power[1], 1e-6)
    # Frames without contrast have no correlation: only their brightness is compared.
    alike[np.maximum(*power) < 0.01] = 1.0
    return differences, expected**2, float(np.median(alike))


def _smooth(frames: np.ndarray) -> np.ndarray:
    sigma = (0, SMOOTHING, SMOOTHING) + (0,) * (frames.ndim - 3)
    return gaussian_filter(frames, sigma)


def _relight(source: np.ndarray, fake: np.ndarray) -> np.ndarray:
    """
    Return the source in the light of the fake: for each frame and colour `(a + b x + c y) source + d`.

    The fit uses the 60 % of the pixels that it explains best, so that a forged part does not affect it.
    """
    count, height, width, colours = source.shape
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    channels = source.transpose(0, 3, 1, 2).reshape(count * colours, height, width)
    target = fake.transpose(0, 3, 1, 2).reshape(count * colours, height, width)[:, 1::3, 1::3]
    terms = np.stack([channels, channels * x, channels * y[:, None], np.ones_like(channels)], axis=-1)
    few = terms[:, 1::3, 1::3].reshape(count * colours, -1, 4)
    target = target.reshape(count * colours, -1)
    # A slight pull towards no change gives a flat frame a unique solution.
    ridge = np.diag([1e-3, 1e-3, 1e-3, 1e-3]).astype(np.float32) * few.shape[1]
    keep = np.ones_like(target)
    prior = np.array([1, 0, 0, 0], dtype=np.float32)
    for _ in range(4):
        weighted = few * keep[..., None]
        left = weighted.transpose(0, 2, 1) @ few + ridge
        right = (weighted.transpose(0, 2, 1) @ target[..., None])[..., 0] + ridge @ prior
        solution = np.linalg.solve(left, right[..., None])[..., 0]
        residual = np.abs((few @ solution[..., None])[..., 0] - target)
        keep = (residual <= np.percentile(residual, 60, axis=1, keepdims=True)).astype(np.float32)
    lit = (terms @ solution[:, None, :, None])[..., 0]
    return lit.reshape(count, colours, height, width).transpose(0, 2, 3, 1)


def _tiles(differences: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the ratio of difference and expected error in each tile of each frame."""
    rows, columns = (side // TILE * TILE for side in differences.shape[1:])

    def means(values: np.ndarray) -> np.ndarray:
        shape = (len(values), rows // TILE, TILE, columns // TILE, TILE)
        return values[:, :rows, :columns].reshape(shape).mean((2, 4))

    return np.sqrt(means(differences) / means(expected))


def _movement(frames: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean change of the masked pixels from frame to frame, shape `(T,)`; `mask` is `(T, rows, columns)`."""
    inside = mask[1:] & mask[:-1]
    change = (np.abs(np.diff(frames.mean(-1), axis=0)) * inside).sum((1, 2)) / np.maximum(
        inside.sum((1, 2)), 1
    )
    return np.concatenate([change[:1], change])

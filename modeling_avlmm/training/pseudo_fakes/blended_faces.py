"""The picture of pseudo-fakes: a face blended with an altered or upsampled copy of itself throughout a clip.

Frames are uint8 RGB of shape `(T, 3, H, W)`. Inputs are never changed.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ...face_crops import iou
from ...face_finder import SURE_ENOUGH, FaceFinder

SMALLEST_SIDE = 32  # pixels; smaller frames have no room for a face with a soft edge. Our own choice
CENTRED = (0.28, 0.36)  # half axes of a face in a ready crop, by its shorter side; our own choice
LOOKED_AT = 4  # frames in which a face is looked for; our own choice
SMALLEST_RADIUS = 3.0  # pixels, of the blended region
EDGE_PIXELS = 4.0  # narrowest edge of a mask; any edge filter would find a harder one
PARTS = ("whole", "lower", "upper")
HARMONICS = (2, 3, 4, 5)  # of the outline


@dataclass(frozen=True)
class FaceRegion:
    """An upright ellipse around a face: centre and half axes in pixels, x to the right and y down.

    Raises:
        ValueError: for values that aren't finite, and for half axes that aren't above 0.
    """

    x: float
    y: float
    half_width: float
    half_height: float

    def __post_init__(self):
        if not np.isfinite([self.x, self.y]).all() or not 0 < min(self.half_width, self.half_height) < np.inf:
            raise ValueError(
                f"{self} is no region: it needs a finite centre and half axes above 0, in pixels."
            )


def centred_face(size: tuple[int, int]) -> FaceRegion:
    """Return where the face of a ready crop is: in the middle of a picture of `size` (height, width). Our own choice."""
    height, width = size
    side = min(height, width)
    return FaceRegion(width / 2, height / 2, CENTRED[0] * side, CENTRED[1] * side)


class LargestFace:
    """
    Return the region of the largest face in frames `(T, 3, H, W)`; None where [`FaceFinder`] finds none.

    Up to four frames are looked at, spread evenly; the region is the median of those with a face near that of the
    largest one. It is the ellipse that touches the box of the face, so it reaches from the middle of the forehead to the
    chin. The same frames give the same region. The finder is made at first use, in any worker.
    """

    def __init__(self) -> None:
        self._finder: FaceFinder | None = None

    def __call__(self, frames: torch.Tensor) -> FaceRegion | None:
        self._finder = self._finder or FaceFinder(threads=1)
        places = np.unique(np.linspace(0, len(frames) - 1, LOOKED_AT).round().astype(int))
        found = [
            [face for face in faces if face.score >= SURE_ENOUGH] for faces in self._finder(frames[places])
        ]
        largest = [max(faces, key=lambda face: face.size).box for faces in found if faces]
        if not largest:
            return None
        boxes = np.stack(largest)
        sizes = (boxes[:, 2:] - boxes[:, :2]).max(1)
        near = iou(boxes[sizes.argmax()][None], boxes)[0] > 0
        left, top, right, bottom = np.median(boxes[near], axis=0).tolist()
        return FaceRegion((left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2)


def _drift(seconds: torch.Tensor, amount: float, rng: np.random.Generator) -> torch.Tensor:
    """Return a slow drift `(T,)` between -`amount` and `amount`. It follows true time, whatever the frame rate."""
    period, phase = rng.uniform(2, 6), rng.uniform(0, 2 * np.pi)
    return (amount * torch.sin(2 * torch.pi / period * seconds + phase)).float()


def _signed(rng: np.random.Generator, low: float, high: float, size: int | None = None) -> np.ndarray:
    """Draw from [low, high] with a random sign, so that the change is never too small to matter."""
    return rng.choice([-1.0, 1.0], size=size) * rng.uniform(low, high, size=size)


@dataclass(frozen=True)
class _Outline:
    """A deformed ellipse with a soft edge that drifts over time: centres `x` and `y` of shape `(T,)`, in pixels."""

    x: torch.Tensor
    y: torch.Tensor
    half_width: float
    half_height: float
    waves: np.ndarray  # (harmonics, 2): cosine and sine amplitude, share of the radius
    softness: float  # width of the edge, share of the radius

    @classmethod
    def draw(
        cls, face: FaceRegion, seconds: torch.Tensor, size: tuple[int, int], rng: np.random.Generator
    ) -> "_Outline":
        """Draw an outline of a random part of `face` that stays within a picture of `size` (height, width)."""
        part = rng.choice(PARTS, p=[0.5, 0.3, 0.2])
        scale = rng.uniform(0.8, 1.1, size=2)
        half_width, half_height = face.half_width * scale[0], face.half_height * scale[1]
        x, y = face.x, face.y
        if part != "whole":
            y += (0.45 if part == "lower" else -0.35) * half_height
            half_width, half_height = 0.8 * half_width, 0.5 * half_height
        softness = min(max(rng.uniform(0.12, 0.5), EDGE_PIXELS / min(half_width, half_height)), 1.0)
        waves = rng.normal(0, 0.06, size=(len(HARMONICS), 2)) / np.sqrt(np.asarray(HARMONICS) / 2)[:, None]
        waves *= min(1.0, 0.25 / np.hypot(*waves.T).sum())  # the radius changes by a quarter at most
        moves = [_drift(seconds, 0.04 * half, rng) for half in (half_width, half_height)]
        reach = (1 + np.hypot(*waves.T).sum()) * (1 + softness / 2)
        centre, half = [], []
        for at, radius, move, side in zip((x, y), (half_width, half_height), moves, size[::-1], strict=True):
            room = side / 2 - 2
            # A region near the edge moves inwards. It shrinks only if it is larger than the picture.
            radius = min(max(radius, SMALLEST_RADIUS), (room - float(move.abs().max())) / reach)
            edge = reach * radius + float(move.abs().max()) + 1
            centre.append(float(np.clip(at, edge, side - 1 - edge)) + move)
            half.append(radius)
        return cls(centre[0], centre[1], half[0], half[1], waves, softness)

    def bounds(self, size: tuple[int, int], margin: int) -> tuple[slice, slice]:
        """Return the rows and columns that hold the region in every frame, with up to `margin` pixels around it."""
        reach = (1 + np.hypot(*self.waves.T).sum()) * (1 + self.softness / 2)
        spans = []
        for at, half, side in ((self.y, self.half_height, size[0]), (self.x, self.half_width, size[1])):
            low, high = float(at.min()) - half * reach - margin, float(at.max()) + half * reach + margin
            spans.append(slice(max(0, int(low)), min(side, int(high) + 2)))
        return spans[0], spans[1]

    def mask(self, rows: slice, columns: slice) -> torch.Tensor:
        """Return a mask `(T, h, w)`: 1 inside, 0 outside, with a smooth edge."""
        y = (torch.arange(rows.start, rows.stop) - self.y[:, None]) / self.half_height
        x = (torch.arange(columns.start, columns.stop) - self.x[:, None]) / self.half_width
        x, y = torch.broadcast_tensors(x[:, None, :], y[:, :, None])
        radius = torch.hypot(x, y).clamp_(min=1e-6)
        cosine, sine = x / radius, y / radius
        outline = torch.ones_like(radius)
        of_k = (cosine, sine)  # cos(k a) and sin(k a), by the addition theorem
        for k in range(2, max(HARMONICS) + 1):
            of_k = (of_k[0] * cosine - of_k[1] * sine, of_k[1] * cosine + of_k[0] * sine)
            if k in HARMONICS:
                a, b = self.waves[HARMONICS.index(k)]
                outline.add_(of_k[0], alpha=float(a)).add_(of_k[1], alpha=float(b))
        ramp = ((1 + self.softness / 2 - radius / outline) / self.softness).clamp_(0, 1)
        return ramp * ramp * (3 - 2 * ramp)


def _colour(
    tone: torch.Tensor, seconds: torch.Tensor, flicker: bool, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a colour change for each frame: matrices `(T, 3, 3)` and shifts `(T, 3, 1)` on the scale of 0 to 255.

    `tone` `(3,)` is the mean colour of the region. Contrast changes around it and shifts are in proportion to it, so that
    a change shows on dark skin no more than on light skin.
    """
    count, luma = len(seconds), torch.tensor([0.299, 0.587, 0.114])
    saturation = 1 + float(_signed(rng, 0.04, 0.2))
    matrix = saturation * torch.eye(3) + (1 - saturation) * luma.expand(3, 3)
    gain = 1 + float(_signed(rng, 0.02, 0.1)) + _drift(seconds, 0.015, rng)
    shift = torch.from_numpy(_signed(rng, 3, 10, size=3)).float() + _drift(seconds, 2, rng)[:, None]
    if flicker:
        gain = gain + torch.from_numpy(rng.normal(0, 0.03, size=count)).float()
        shift = shift + torch.from_numpy(rng.normal(0, 2.5, size=(count, 3))).float()
    strength = min(max(float(luma @ tone) / 128, 0.5), 1.0)
    matrix = matrix * gain[:, None, None]
    return matrix, (strength * shift + (1 - gain[:, None]) * (matrix[0] @ tone / gain[0]))[..., None]


def _warp(
    picture: torch.Tensor, x: torch.Tensor, y: torch.Tensor, reach: tuple[float, float], seconds: torch.Tensor,
    flicker: bool, rng: np.random.Generator,
) -> torch.Tensor:  # fmt: skip
    """Rotate, scale and move `picture` slightly around (`x`, `y`) (each `(T,)`, in its pixels), drifting slowly."""
    count, _, height, width = picture.shape
    angle = float(_signed(rng, 0.0, 0.035)) + _drift(seconds, 0.01, rng)
    zoom = [1 + float(_signed(rng, 0.01, 0.05)) + _drift(seconds, 0.008, rng) for _ in range(2)]
    move = [float(_signed(rng, 0.01, 0.05)) * r + _drift(seconds, 0.015 * r, rng) for r in reach]
    if flicker:
        move = [
            m + torch.from_numpy(rng.normal(0, 0.012 * r, count)).float()
            for m, r in zip(move, reach, strict=True)
        ]
    cosine, sine = torch.cos(angle), torch.sin(angle)
    # In normalised coordinates of [-1, 1] a pixel is 2 / width or 2 / height.
    cx, cy = (2 * x + 1) / width - 1, (2 * y + 1) / height - 1
    a, b = cosine * zoom[0], -sine * zoom[1] * height / width
    c, d = sine * zoom[0] * width / height, cosine * zoom[1]
    tx = cx - a * cx - b * cy + 2 * move[0] / width
    ty = cy - c * cx - d * cy + 2 * move[1] / height
    theta = torch.stack([torch.stack([a, b, tx], -1), torch.stack([c, d, ty], -1)], 1)
    grid = F.affine_grid(theta, list(picture.shape), align_corners=False)
    return F.grid_sample(picture, grid, padding_mode="border", align_corners=False)


def _blur(picture: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur with a Gaussian of five taps each way, for a `sigma` up to about 1.2 pixels. Faster on CPUs than torchvision's."""
    taps = np.exp(-0.5 * (np.arange(3) / sigma) ** 2)
    taps /= taps[0] + 2 * taps[1:].sum()
    for dim in (-1, -2):
        pad = (2, 2, 0, 0) if dim == -1 else (0, 0, 2, 2)
        wide = F.pad(picture, pad, mode="replicate")
        size = picture.shape[dim]
        picture = wide.narrow(dim, 2, size) * float(taps[0])
        for k in (1, 2):
            picture.add_(wide.narrow(dim, 2 - k, size), alpha=float(taps[k]))
            picture.add_(wide.narrow(dim, 2 + k, size), alpha=float(taps[k]))
    return picture


def _down_and_up(picture: torch.Tensor, factor: float) -> torch.Tensor:
    """Shrink a picture by `factor`, and enlarge it to its size again."""
    height, width = picture.shape[-2:]
    small = (max(2, round(height / factor)), max(2, round(width / factor)))
    options = {"mode": "bilinear", "align_corners": False}
    # Many channels of one picture are twice as fast as many pictures.
    planes = picture.reshape(1, -1, height, width)
    planes = F.interpolate(F.interpolate(planes, size=small, **options), size=(height, width), **options)
    return planes.view(picture.shape)


def _to_uint8(picture: torch.Tensor) -> torch.Tensor:
    return picture.round_().clamp_(0, 255).to(torch.uint8)


def self_blended_faces(
    frames: torch.Tensor, timestamps: torch.Tensor, rng: np.random.Generator, face: FaceRegion | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Blend a face with an altered copy of itself, in the same way throughout the clip.

    This carries Self-Blended Images (Shiohara and Yamasaki, CVPR 2022, arXiv 2204.08376) over to video. The authors change
    a copy of the face in colour and sharpness (resampled or sharpened) and by a small affine map, and blend it in through a
    deformed, softened mask at a random ratio. Our own choice:

    - an ellipse with a wavy outline around the face, or its lower or upper part, instead of hulls of landmarks;
    - one mask and one change for the whole clip, both drifting slowly, as a face swap is steady but not fixed; in three
      clips of ten, colour and place also flicker from frame to frame;
    - only the copy is changed, where the authors change either side, so every pixel outside the mask stays as it is;
    - ratios of 0.5, 0.75 and 1, without the authors' 0.25, which rounding to 8 bits may make invisible; and no change is
      drawn too small to be seen.

    Args:
        frames (`torch.Tensor` of shape `(T, 3, H, W)`): uint8, at least 32 pixels each way.
        timestamps (`torch.Tensor` of shape `(T,)`): Seconds.
        rng (`np.random.Generator`): Draws all of this.
        face ([`FaceRegion`], *optional*): Where the face is. If left out, in the middle, as in a ready crop.

    Returns:
        The frames, and the mask as float32 of shape `(T, H, W)`: the share of the copy in each pixel.

    Raises:
        ValueError: for smaller frames.
    """
    outline, rows, columns = _draw_region(frames, timestamps, rng, face)
    seconds = timestamps - timestamps[0]
    mask = outline.mask(rows, columns) * float(rng.choice([0.5, 0.75, 1.0, 1.0, 1.0]))
    flicker = bool(rng.random() < 0.3)

    own = frames[..., rows, columns].float()
    count, _, height, width = own.shape
    reach = (outline.half_width, outline.half_height)
    copy = _warp(own, outline.x - columns.start, outline.y - rows.start, reach, seconds, flicker, rng)
    if rng.random() < 0.5:
        copy = _down_and_up(copy, float(rng.uniform(1.5, 3.5)))
    else:
        copy = torch.lerp(_blur(copy, 1.0), copy, float(rng.uniform(1.5, 2.5)))  # unsharp masking
    tone = (own[0] * mask[0]).sum((1, 2)) / mask[0].sum()
    matrix, shift = _colour(tone, seconds, flicker, rng)
    copy = torch.baddbmm(shift, matrix, copy.reshape(count, 3, -1)).view(count, 3, height, width)
    return _blend(frames, own, copy.clamp_(0, 255), mask, rows, columns)


def upsampled_faces(
    frames: torch.Tensor, timestamps: torch.Tensor, rng: np.random.Generator, face: FaceRegion | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Blend a face with an upsampled copy of itself, as a generator's decoder draws it, in the same way throughout the clip.

    Upsampling layers leave a pattern that repeats with their stride (Odena et al., Distill 2016, on checkerboards; Zhang et
    al., WIFS 2019, arXiv 1907.06515, train on genuine pictures sent through such layers of a trained autoencoder, AutoGAN).
    Our own choice, which needs no weights: the copy is averaged over 2 to 4 pixels and enlarged again. It keeps a share of
    the lost detail, as a network with skip connections does. Then it is multiplied by a pattern that repeats every 4, 8 or
    16 pixels, like the output of a transposed convolution whose weights are unevenly spread over the phases of its stride.

    The region is drawn as in [`self_blended_faces`]. Arguments, results and errors are the same, too.
    """
    outline, rows, columns = _draw_region(frames, timestamps, rng, face)
    mask = outline.mask(rows, columns)
    own = frames[..., rows, columns].float()
    coarse = _down_and_up(own, float(rng.uniform(2, 4)))
    redrawn = torch.lerp(coarse, own, float(rng.uniform(0.2, 0.8)))
    pattern = _upsampling_pattern(own.shape[-2:], rng)
    return _blend(frames, own, (redrawn * (1 + pattern)).clamp_(0, 255), mask, rows, columns)


def _upsampling_pattern(size: tuple[int, int], rng: np.random.Generator) -> torch.Tensor:
    """Draw a pattern `(3, height, width)` that repeats every 4, 8 or 16 pixels; mean 0, deviation 0.02 to 0.08."""
    period = int(rng.choice([4, 8, 16]))
    # One wave of the period along the rows, the columns and both diagonals.
    tile = np.zeros((period, period))
    steps = 2 * np.pi * np.arange(period) / period
    for across, down in ((1, 0), (0, 1), (1, 1), (1, -1)):
        phase = rng.uniform(0, 2 * np.pi)
        tile += rng.normal() * np.cos(across * steps[None, :] + down * steps[:, None] + phase)
    tile *= rng.uniform(0.02, 0.08) / tile.std()
    tiles = -(-size[0] // period), -(-size[1] // period)
    pattern = torch.from_numpy(np.tile(tile, tiles)[: size[0], : size[1]]).float()
    return pattern * torch.from_numpy(rng.uniform(0.7, 1.3, size=3)).float()[:, None, None]


def _draw_region(
    frames: torch.Tensor, timestamps: torch.Tensor, rng: np.random.Generator, face: FaceRegion | None
) -> tuple[_Outline, slice, slice]:
    """Draw the region to change, and return it with the rows and columns that hold it and a margin."""
    size = tuple(frames.shape[-2:])
    if min(size) < SMALLEST_SIDE:
        raise ValueError(
            f"frames of {size[1]}x{size[0]} are too small to blend a face; {SMALLEST_SIDE} pixels are needed."
        )
    outline = _Outline.draw(face or centred_face(size), timestamps - timestamps[0], size, rng)
    margin = max(4, round(0.08 * max(outline.half_width, outline.half_height)))
    return outline, *outline.bounds(size, margin)


def _blend(
    frames: torch.Tensor,
    own: torch.Tensor,
    copy: torch.Tensor,
    mask: torch.Tensor,
    rows: slice,
    columns: slice,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix `copy` into `own`, the region's own pixels, by `mask`; return whole frames and the mask of whole frames."""
    blended = frames.clone()
    blended[..., rows, columns] = _to_uint8(torch.lerp(own, copy, mask[:, None]))
    whole = torch.zeros(len(frames), *frames.shape[-2:])
    whole[:, rows, columns] = mask
    return blended, whole


def harmless_frames(frames: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """
    Process frames as cameras, editors and web sites do to genuine ones, alike everywhere in the frame.

    All amounts are our own choice. Brightness always changes by up to 6 %, and each channel shifts by up to 5 of 255. A
    fifth of the clips flicker by 1.5 %. A quarter each are shrunk by up to 1.6 and enlarged again, blurred (sigma 0.4 to
    0.9), sharpened, or left as they are. The result is rounded to 8 bits.
    """
    picture = frames.float()
    way = rng.random()
    if way < 0.25:
        picture = _down_and_up(picture, float(rng.uniform(1.1, 1.6)))
    elif way < 0.5:
        picture = _blur(picture, float(rng.uniform(0.4, 0.9)))
    elif way < 0.75:
        picture = torch.lerp(_blur(picture, 1.0), picture, float(rng.uniform(1.2, 1.8)))
    gain = np.full(len(frames), rng.uniform(0.94, 1.06))
    if rng.random() < 0.2:
        gain += rng.normal(0, 0.015, size=len(frames))
    shift = torch.from_numpy(rng.uniform(-5, 5, size=3)).float()
    gain = torch.from_numpy(gain).float()
    return _to_uint8(picture * gain[:, None, None, None] + shift[:, None, None])

"""Pairs of a genuine face crop and a fake made of it: self-blended images and redrawn faces, for training on genuine video alone.

```python
pair = self_blended_pair(crop, landmarks, rng, side=160)
pair.genuine, pair.fake, pair.kind  # uint8 (160, 160, 3) each
```

The core is Self-Blended Images (Shiohara and Yamasaki, CVPR 2022, arXiv 2204.08376): a face blended with an altered copy of
itself, so that all there is to learn is the forgery: the edge, and statistics inside that differ from those outside. Our own
additions cover fakes that have no edge around the face:

| kind | what is altered | stands for |
|---|---|---|
| `face` | colour, sharpness and place of the face, or of its inner part | face swap |
| `swap` | the face of another frame or person, aligned and matched in colour | face swap, reenactment |
| `mouth` | the same as `face`, around the mouth | lip sync |
| `patch` | the lower face through few pixels (or redrawn), with a soft or no edge | lip sync at 96 pixels (Wav2Lip) |
| `redrawn_face` | the face redrawn by a decoder, or through few pixels | face swap by autoencoder |
| `redrawn` | the whole crop redrawn, perhaps warped before | portrait animation, reenactment |

"Redrawn" takes `redrawn`, a copy of the crop from a trained decoder (`decoder_redrawing`), where there is one; else the copy goes
through fewer pixels and an enlargement that leaves a trace, as the last layers of decoders do (Odena et al., Distill 2016).

Only the copy is changed, where the authors change either side: outside the mask the fake equals the genuine picture, bit for
bit, until both go through one [`PictureChannel`].
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from .face_alterations import (
    FaceFrame,
    aligned,
    default_landmarks,
    matched,
    moved,
    recoloured,
    region_mask,
    resharpened,
    through_few_pixels,
)
from .picture_channel import PictureChannel, resize, to_uint8

KINDS: Mapping[str, float] = {
    "face": 0.25,
    "swap": 0.15,
    "mouth": 0.13,
    "patch": 0.17,
    "redrawn_face": 0.1,
    "redrawn": 0.2,
}
SMALLEST_CROP = 32  # pixels; a smaller crop has no room for a face with an edge
VISIBLE = 10  # levels of 255
TRIES = 4  # at a visible fake; the last one is taken as it is
SMALLEST_SHARE = 0.45  # of `side`: a quarter of the faces may be that small before they are enlarged, as small ones in videos
LARGEST_WORK = 288  # pixels of the square in which fakes are made; larger squares are shrunk first


@dataclass(frozen=True)
class FacePair:
    """A genuine face and a fake of it, after the same processing: uint8 RGB `(side, side, 3)`, and the kind of fake."""

    genuine: np.ndarray
    fake: np.ndarray
    kind: str


@dataclass(frozen=True)
class _View:
    """A square of a crop in working size, with what fakes are made of: all pictures float32 `(side, side, 3)`."""

    picture: np.ndarray
    face: FaceFrame
    landmarks: np.ndarray
    redrawn: np.ndarray | None
    other: np.ndarray | None  # another face, already aligned


def _altered(view: _View, rng: np.random.Generator) -> np.ndarray:
    copy = view.picture
    chances = rng.random(3)
    if chances[0] < 0.8 or chances[1] >= 0.6:
        copy = recoloured(copy, rng)
    if chances[1] < 0.6:
        copy = resharpened(copy, rng)
    return moved(copy, view.face, 1.0, rng) if chances[2] < 0.7 else copy


def _decoded(view: _View, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """Return the view redrawn: three times of four by the decoder where there is one, else through few pixels."""
    if view.redrawn is not None and rng.random() < 0.75:
        return view.redrawn
    return through_few_pixels(view.picture, float(rng.uniform(low, high)), rng)


def make_fake(view: _View, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return a fake of `view`: uint8, equal to the view's picture outside of the mask."""
    shape, face = view.picture.shape[:2], view.face
    ratio = float(rng.choice([0.5, 0.75, 1.0, 1.0, 1.0]))
    if kind == "redrawn":
        copy = _decoded(view, 0.3, 0.75, rng)
        if rng.random() < 0.3:
            copy = moved(copy, face, 1.0, rng)
        return to_uint8(copy)
    if kind == "face":
        mask = region_mask(shape, face, str(rng.choice(["face", "inner"])), rng)
        copy = _altered(view, rng)
    elif kind == "mouth":
        mask = region_mask(shape, face, str(rng.choice(["mouth", "lower"])), rng)
        copy = _altered(view, rng)
    elif kind == "swap":
        mask = region_mask(
            shape, face, str(rng.choice(["face", "inner", "mouth", "lower"], p=[0.3, 0.3, 0.2, 0.2])), rng
        )
        copy = matched(view.other, view.picture, mask)
        if rng.random() < 0.5:
            copy = resharpened(copy, rng)
        ratio = max(ratio, 0.75)
    elif kind == "patch":
        mask = region_mask(shape, face, "lower" if rng.random() < 0.75 else "mouth", rng)
        copy = _decoded(view, 0.25, 0.6, rng)
        if rng.random() < 0.5:
            copy = moved(copy, face, 0.5, rng)
        ratio = 1.0
    elif kind == "redrawn_face":
        mask = region_mask(shape, face, str(rng.choice(["face", "inner"])), rng)
        copy = _decoded(view, 0.25, 0.65, rng)
        ratio = 1.0
    else:
        raise ValueError(f"Unknown kind of fake {kind!r}: use one of {', '.join(KINDS)}.")
    mask = (ratio * mask)[..., None]
    return to_uint8(view.picture + mask * (copy - view.picture))


def _square(crop: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw the square that a detector would see: left, top, side. About 1.3 times the face, with jitter, inside the crop."""
    height, width = crop.shape[:2]
    face = FaceFrame.of(landmarks)
    side = face.unit * float(rng.uniform(2.6, 3.9))  # a face box is about 2.5 units high
    side = int(np.clip(round(side), min(SMALLEST_CROP, height, width), min(height, width)))
    centre = face.pixels(np.array([[0.0, -0.05]]))[0] + face.unit * rng.normal(0, 0.12, 2)
    left = int(np.clip(round(centre[0] - side / 2), 0, width - side))
    top = int(np.clip(round(centre[1] - side / 2), 0, height - side))
    return left, top, side


def _cut(picture: np.ndarray, square: tuple[int, int, int], work: int, mirror: bool) -> np.ndarray:
    left, top, side = square
    part = resize(picture[top : top + side, left : left + side], work, work)
    return np.ascontiguousarray(part[:, ::-1] if mirror else part).astype(np.float32)


def _points(landmarks: np.ndarray, square: tuple[int, int, int], work: int, mirror: bool) -> np.ndarray:
    left, top, side = square
    points = (np.asarray(landmarks, np.float32) - (left, top)) * np.float32(work / side)
    if mirror:  # left and right change places
        points = np.stack([work - 1 - points[:, 0], points[:, 1]], 1)[[1, 0, 2, 4, 3]]
    return points.astype(np.float32)


def _check(crop: np.ndarray, landmarks: np.ndarray, redrawn: np.ndarray | None) -> None:
    if crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8:
        raise ValueError(f"A crop must be uint8 RGB of shape (H, W, 3), not {crop.dtype} {crop.shape}.")
    if min(crop.shape[:2]) < SMALLEST_CROP:
        raise ValueError(f"A crop must be at least {SMALLEST_CROP} pixels each way, not {crop.shape[:2]}.")
    if landmarks.shape != (5, 2) or not np.isfinite(landmarks).all():
        raise ValueError("Landmarks must be five finite points (5, 2): eyes, nose, mouth corners in pixels.")
    if redrawn is not None and (redrawn.shape != crop.shape or redrawn.dtype != np.uint8):
        raise ValueError(
            f"The redrawn crop must be uint8 of the crop's shape {crop.shape}, not {redrawn.shape}."
        )


def self_blended_pair(
    crop: np.ndarray,
    landmarks: np.ndarray | None,
    rng: np.random.Generator,
    *,
    side: int = 160,
    kinds: Mapping[str, float] = KINDS,
    redrawn: np.ndarray | None = None,
    other: tuple[np.ndarray, np.ndarray] | None = None,
    channel: PictureChannel | None = None,
) -> FacePair:
    """
    Draw a genuine picture of a face and a fake of it, cut, mirrored, processed and resized alike.

    Args:
        crop (`np.ndarray` of shape `(H, W, 3)`): uint8 RGB, a genuine face with some room around it (margin of about 2, so
            that the margin can vary; less is possible). Not changed.
        landmarks (`np.ndarray` of shape `(5, 2)`, *optional*): eyes, nose and mouth corners in pixels of the crop, right eye
            of the person first. None takes an upright face in the middle.
        rng (`np.random.Generator`): source of chance. Equal states give equal pairs.
        side (`int`): pixels of the returned pictures.
        kinds (`Mapping[str, float]`): chance of each kind of fake; those of the table above, in any proportion.
        redrawn (`np.ndarray` of shape `(H, W, 3)`, *optional*): the crop from a decoder ([`redraw`]), uint8.
        other (`tuple[np.ndarray, np.ndarray]`, *optional*): another genuine crop and its landmarks, for `swap`. Without one,
            or where landmarks can't be aligned, the kind `face` takes its place.
        channel ([`PictureChannel`], *optional*): processing of both. Drawn if None.

    Returns:
        [`FacePair`]: both pictures, and the kind.

    Raises:
        ValueError: for arrays of another shape or type, and for an unknown kind.
    """
    if landmarks is None:
        landmarks = default_landmarks(*crop.shape[:2])
    _check(crop, landmarks, redrawn)
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"Unknown kinds of fakes {sorted(unknown)}: use {', '.join(KINDS)}.")
    names, chances = list(kinds), np.asarray(list(kinds.values()), float)
    kind = names[int(rng.choice(len(names), p=chances / chances.sum()))]
    square = _square(crop, landmarks, rng)
    low = min(square[2], side if rng.random() < 0.75 else round(SMALLEST_SHARE * side))
    work = int(rng.integers(low, max(low, min(square[2], LARGEST_WORK)) + 1))
    work, mirror = max(work, SMALLEST_CROP), bool(rng.random() < 0.5)
    points = _points(landmarks, square, work, mirror)
    theirs = None
    if kind == "swap":
        theirs = None if other is None else _other(other, landmarks, crop, square, work, mirror)
        kind = "face" if theirs is None else kind
    view = _View(
        _cut(crop, square, work, mirror),
        FaceFrame.of(points),
        points,
        None if redrawn is None else _cut(redrawn, square, work, mirror),
        theirs,
    )
    channel = channel or PictureChannel.draw(rng)
    genuine = resize(channel(to_uint8(view.picture)), side, side)
    for _ in range(TRIES):
        fake = resize(channel(make_fake(view, kind, rng)), side, side)
        if is_visible(genuine, fake):
            break
    return FacePair(genuine, fake, kind)


def is_visible(genuine: np.ndarray, fake: np.ndarray) -> bool:
    """Return whether at least one pixel in a hundred differs by `VISIBLE` levels: a fake below that teaches nothing."""
    difference = cv2.absdiff(genuine, fake).max(2)
    return bool(np.count_nonzero(difference >= VISIBLE) >= 0.01 * difference.size)


def changed_window(pair: FacePair, size: int, rng: np.random.Generator) -> FacePair:
    """
    Cut the same square window out of both pictures, where they differ: half the pixels, and all of the forgery's trace.

    Args:
        pair ([`FacePair`]): of side `side`.
        size (`int`): pixels of the window, at most `side`.
        rng (`np.random.Generator`): source of chance.

    Returns:
        [`FacePair`]: of side `size`. The window lies around a pixel that differs (the middle, where none does), up to a
        quarter of its size aside, inside the picture.

    Raises:
        ValueError: if the window is larger than the pictures.
    """
    side = len(pair.genuine)
    if not 0 < size <= side:
        raise ValueError(f"A window must have 1 to {side} pixels, not {size}.")
    rows, columns = np.nonzero(cv2.absdiff(pair.genuine, pair.fake).max(2) >= 0.6 * VISIBLE)
    at = int(rng.integers(len(rows))) if len(rows) else None
    centre = np.array([rows[at], columns[at]] if len(rows) else [side // 2] * 2)
    shift = rng.integers(-(size // 4), size // 4 + 1, 2)
    top, left = np.clip(centre - size // 2 + shift, 0, side - size)
    cut = (slice(top, top + size), slice(left, left + size))
    return FacePair(pair.genuine[cut], pair.fake[cut], pair.kind)


def _other(
    other: tuple[np.ndarray, np.ndarray],
    landmarks: np.ndarray,
    crop: np.ndarray,
    square: tuple[int, int, int],
    work: int,
    mirror: bool,
) -> np.ndarray | None:
    picture, theirs = other
    _check(picture, theirs, None)
    moved_here = aligned(picture, theirs, landmarks, crop.shape[1::-1])
    return None if moved_here is None else _cut(moved_here, square, work, mirror)

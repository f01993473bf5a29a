"""Parts of a face and changes to it: coordinates by five landmarks, masks, colour, sharpness, place, fewer pixels.

Pictures are float32 RGB of shape `(H, W, 3)` on the scale of 0 to 255 and are never changed in place. Colour, sharpness and place
follow Self-Blended Images (Shiohara and Yamasaki, CVPR 2022); ranges and masks are our own choice.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from .picture_channel import LUMA, resize

TEMPLATE = np.array([[-0.5, -0.5], [0.5, -0.5], [0, 0.05], [-0.38, 0.5], [0.38, 0.5]], np.float32)
# x and y of eyes, nose and mouth corners in units of the distance from eyes to mouth


@dataclass(frozen=True)
class FaceFrame:
    """
    Coordinates of a face: origin between eyes and mouth, y from the eyes to the mouth, unit their distance.

    Attributes:
        x, y (`float`): origin in pixels.
        unit (`float`): pixels from the middle of the eyes to the middle of the mouth, or the distance of the eyes if larger.
        angle (`float`): of the face's y axis to the picture's, in radians.
    """

    x: float
    y: float
    unit: float
    angle: float

    @classmethod
    def of(cls, landmarks: np.ndarray) -> "FaceFrame":
        """Place the coordinates by `landmarks` `(5, 2)`: eyes, nose, mouth corners in pixels. A profile keeps its height."""
        eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
        down = mouth - eyes
        unit = max(float(np.hypot(*down)), float(np.hypot(*(landmarks[1] - landmarks[0]))), 4.0)
        centre = (eyes + mouth) / 2
        return cls(float(centre[0]), float(centre[1]), unit, float(np.arctan2(-down[0], down[1])))

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Return `points` `(N, 2)` of the face's coordinates in pixels."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        turned = points @ np.array([[cosine, sine], [-sine, cosine]])
        return self.unit * turned + (self.x, self.y)


# Centre x, y and half axes of the regions in units of the face, and how far each may vary (our own choice)
REGIONS = {
    "face": ((0.0, -0.05), (0.98, 1.3)),
    "inner": ((0.0, 0.0), (0.78, 0.95)),
    "mouth": ((0.0, 0.55), (0.62, 0.45)),
    "lower": ((0.0, 0.65), (0.9, 0.68)),
}


def region_mask(shape: tuple[int, int], face: FaceFrame, region: str, rng: np.random.Generator) -> np.ndarray:
    """
    Draw a mask of a part of the face: a wavy ellipse or a rounded box, with an edge from hard to very soft.

    Args:
        shape (`tuple[int, int]`): height and width in pixels.
        face ([`FaceFrame`]): where the face is.
        region (`str`): a key of `REGIONS`.
        rng (`np.random.Generator`): source of chance.

    Returns:
        `np.ndarray` of shape `(H, W)`: float32 from 0 (outside) to 1.
    """
    (x, y), half = REGIONS[region]
    half = np.asarray(half) * rng.uniform(0.8, 1.2, 2)
    power = float(rng.choice([2.0, 2.0, 3.0, 8.0]))  # of a superellipse; 8 is nearly a box
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radius = (np.abs(np.cos(angles)) ** power + np.abs(np.sin(angles)) ** power) ** (-1 / power)
    for k in (2, 3, 4, 5):
        radius = radius + rng.normal(0, 0.05 / k) * np.cos(k * angles + rng.uniform(0, 2 * np.pi))
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * radius[:, None] * half
    points = points + (np.array([x, y]) + rng.normal(0, 0.06, 2))
    mask = np.zeros(shape, np.uint8)
    corners = np.rint(16 * face.pixels(points)).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255, lineType=cv2.LINE_AA, shift=4)
    mask = mask.astype(np.float32) / 255
    softness = face.unit * float(rng.choice([0.02, 0.06, 0.12, 0.2])) * rng.uniform(0.6, 1.4)
    if softness > 0.6:
        soft = cv2.GaussianBlur(mask, (0, 0), softness)
        # Half of the edges lie inside of the outline, as eroded masks do
        mask = soft * mask if rng.random() < 0.5 else soft
    return mask


def recoloured(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `picture` (float32) with shifted channels, contrast, brightness and saturation."""
    mean = picture.mean((0, 1))
    shift = rng.uniform(-14, 14, 3) * min(1.0, float(mean @ LUMA) / 100 + 0.2)
    gain, contrast = 1 + rng.uniform(-0.1, 0.1), 1 + rng.uniform(-0.12, 0.12)
    saturation = 1 + rng.uniform(-0.3, 0.3)
    grey = (picture @ LUMA)[..., None]
    picture = grey + np.float32(saturation) * (picture - grey)
    shifted = (picture - mean) * np.float32(contrast) + (mean * gain + shift)
    return shifted.astype(np.float32)


def resharpened(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `picture` (float32) sharpened, blurred, or through fewer pixels."""
    height, width = picture.shape[:2]
    way = int(rng.integers(3))
    if way == 0:
        blurred = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.7, 2.0)))
        return picture + np.float32(rng.uniform(0.3, 1.2)) * (picture - blurred)
    if way == 1:
        return cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.5, 1.6)))
    share = rng.uniform(0.25, 0.7)
    small = resize(picture, max(8, round(share * width)), max(8, round(share * height)), "area")
    return resize(small, width, height, str(rng.choice(["linear", "cubic", "lanczos"])))


def moved(picture: np.ndarray, face: FaceFrame, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Return `picture` under a small affine map around the face and a smooth warp. `strength` 1 is the authors' range."""
    height, width = picture.shape[:2]
    angle, zoom = strength * rng.normal(0, 2.0), 1 + strength * rng.uniform(-0.05, 0.05, 2)
    matrix = cv2.getRotationMatrix2D((face.x, face.y), angle, 1.0)
    matrix[:, :2] = matrix[:, :2] * zoom
    centre = np.array([face.x, face.y])
    matrix[:, 2] = centre - matrix[:, :2] @ centre + strength * face.unit * rng.uniform(-0.07, 0.07, 2)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    map_x = (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]).astype(np.float32)
    map_y = (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]).astype(np.float32)
    if rng.random() < 0.5:
        cells = int(rng.integers(3, 7))
        bend = rng.normal(0, 0.03 * strength * face.unit, (cells, cells, 2)).astype(np.float32)
        bend = cv2.resize(bend, (width, height), interpolation=cv2.INTER_CUBIC)
        map_x, map_y = map_x + bend[..., 0], map_y + bend[..., 1]
    how = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
    return cv2.remap(picture, map_x, map_y, how, borderMode=cv2.BORDER_REFLECT_101)


def through_few_pixels(picture: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """
    Return `picture` shrunk to `share` of its side and enlarged as decoders enlarge, with the trace that this leaves.

    The trace is blocks (repeated pixels, smoothed), a grid (zeros between pixels, smoothed by a kernel that does not quite
    fill them) or softness (interpolation), partly sharpened again as a network trained on sharp pictures does.
    """
    height, width = picture.shape[:2]
    small = resize(picture, max(8, round(share * width)), max(8, round(share * height)), "area")
    way = int(rng.integers(3))
    if way == 0:
        large = resize(small, width, height, "nearest")
        large = cv2.GaussianBlur(large, (0, 0), float(rng.uniform(0.4, 0.8)))
    elif way == 1:
        large = resize(small, 2 * small.shape[1], 2 * small.shape[0], "cubic")
        grid = 1 + rng.normal(0, 0.02, (2, 2)).astype(np.float32)
        large = large * np.tile(grid, small.shape[:2])[..., None]
        large = resize(large, width, height, "cubic" if large.shape[0] < height else "area")
    else:
        large = resize(small, width, height, str(rng.choice(["linear", "cubic", "lanczos"])))
    if rng.random() < 0.6:
        blurred = cv2.GaussianBlur(large, (0, 0), float(rng.uniform(0.8, 1.5)))
        large = large + np.float32(rng.uniform(0.2, 1.5)) * (large - blurred)
    return large


def aligned(
    other: np.ndarray, theirs: np.ndarray, mine: np.ndarray, size: tuple[int, int]
) -> np.ndarray | None:
    """Return `other` moved by a similarity map so that its landmarks `theirs` lie on `mine`, in `size` (width, height)."""
    matrix, _ = cv2.estimateAffinePartial2D(theirs, mine, method=cv2.LMEDS)
    if matrix is None:
        return None
    return cv2.warpAffine(other, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def matched(picture: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return `picture` (float32) with the mean and deviation of `target`'s channels where `mask` is above a half."""
    inside = mask > 0.5
    if not inside.any():
        return picture
    a, b = picture[inside], target[inside]
    scale = np.clip((b.std(0) + 1) / (a.std(0) + 1), 0.6, 1.6)
    return ((picture - a.mean(0)) * scale + b.mean(0)).astype(np.float32)


def default_landmarks(height: int, width: int) -> np.ndarray:
    """Return landmarks `(5, 2)` of an upright face in the middle of a crop of margin 1.3, for crops without any."""
    unit = min(height, width) / 3.2
    return (TEMPLATE * unit + (width / 2, height / 2)).astype(np.float32)

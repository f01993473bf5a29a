"""Where in a face and where in a sound: the regions and bands that evidence, answers and heat maps are given in.

Both tables are our own choice. DFA-GPT (arXiv:2501.01164) describes artifacts by facial region without publishing how
regions are found; a fixed layout needs no landmark model, is the same for everyone, and fits clips that are face crops,
as those of FakeAVCeleb are: the head fills the frame, eyes just above the middle.
"""

from __future__ import annotations

import numpy as np

Box = tuple[float, float, float, float]

# Name -> (left, top, right, bottom) as fractions of the face crop. Boxes may overlap: a pixel belongs to the first box
# that holds it, so that `cheeks` is what nose and mouth leave of its box, and `outside` what all others leave.
FACE_REGIONS: dict[str, Box] = {
    "eyes": (0.22, 0.35, 0.78, 0.50),
    "nose": (0.40, 0.50, 0.60, 0.64),
    "mouth": (0.32, 0.64, 0.68, 0.82),
    "forehead": (0.26, 0.18, 0.74, 0.35),
    "cheeks": (0.20, 0.50, 0.80, 0.74),
    "jaw": (0.24, 0.74, 0.76, 0.92),
    "hairline": (0.12, 0.04, 0.88, 0.35),
    "outside": (0.0, 0.0, 1.0, 1.0),
}

# Name -> (lowest, highest) frequency in Hz. The last band ends where sound of 16 kHz does.
SOUND_BANDS: dict[str, tuple[float, float]] = {
    "below_300_hz": (0.0, 300.0),
    "300_1000_hz": (300.0, 1000.0),
    "1_3_khz": (1000.0, 3000.0),
    "3_8_khz": (3000.0, 8000.0),
}

# How a text names them.
REGION_NAMES: dict[str, str] = {
    "eyes": "the eyes",
    "nose": "the nose",
    "mouth": "the mouth",
    "forehead": "the forehead",
    "cheeks": "the cheeks",
    "jaw": "the jaw",
    "hairline": "the hairline",
    "outside": "the area outside the face",
}
BAND_NAMES: dict[str, str] = {
    "below_300_hz": "below 300 Hz",
    "300_1000_hz": "300 to 1000 Hz",
    "1_3_khz": "1 to 3 kHz",
    "3_8_khz": "3 to 8 kHz",
}


def region_masks(height: int, width: int, face_box: Box | None = None) -> dict[str, np.ndarray]:
    """Which pixels of a frame belong to which region: a partition of the frame.

    Args:
        height, width (`int`):
            Size of the frame in pixels.
        face_box (`tuple[float, float, float, float]`, *optional*):
            (left, top, right, bottom) of the face crop as fractions of the frame. The whole frame by default.

    Returns:
        `dict[str, np.ndarray]`: name of [`FACE_REGIONS`] -> bool array of shape (height, width). Every pixel is in
        exactly one region; in a very small frame a region may have none.

    Raises:
        `ValueError`: `face_box` is no box within the frame.
    """
    left, top, right, bottom = checked_box(face_box)
    x = ((np.arange(width) + 0.5) / width - left) / (right - left)
    y = ((np.arange(height) + 0.5) / height - top) / (bottom - top)
    free = np.ones((height, width), dtype=bool)
    masks = {}
    for name, (x0, y0, x1, y1) in FACE_REGIONS.items():
        if name == "outside":  # also what lies beyond the face crop
            masks[name] = free
            break
        inside = ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))[None, :]
        masks[name] = inside & free
        free = free & ~inside
    return masks


def checked_box(face_box: Box | None) -> Box:
    """`face_box`, or the whole frame; raises `ValueError` where it is no box within the frame."""
    if face_box is None:
        return (0.0, 0.0, 1.0, 1.0)
    left, top, right, bottom = (float(side) for side in face_box)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(
            f"face_box is (left, top, right, bottom) as fractions of the frame, 0 <= left < right <= 1, got {face_box}"
        )
    return (left, top, right, bottom)

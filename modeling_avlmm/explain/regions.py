"""Regions of the face, bands of the sound and steps of time, in which evidence, answers and heat maps are given.

All three are our own choice. DFA-GPT (arXiv:2501.01164) describes artifacts by facial region, but does not publish how
it finds the regions. A fixed layout needs no landmark model, is reproducible, and fits face crops such as the clips of
FakeAVCeleb, where the head fills the frame and the eyes are just above the middle.
"""

from __future__ import annotations

import numpy as np

Box = tuple[float, float, float, float]

STEP = 0.2
"""Length of a time cell of measured evidence, seconds."""

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
"""Name -> (left, top, right, bottom) as fractions of the face crop. Boxes overlap, and a pixel belongs to the first box
that contains it: `cheeks` is its box without nose and mouth, `outside` is the rest of the frame."""

SOUND_BANDS: dict[str, tuple[float, float]] = {
    "below_300_hz": (0.0, 300.0),
    "300_1000_hz": (300.0, 1000.0),
    "1_3_khz": (1000.0, 3000.0),
    "3_8_khz": (3000.0, 8000.0),
}
"""Name -> (lowest, highest) frequency in Hz, up to the limit of sound sampled at 16 kHz."""

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
"""Name of each region in texts."""
BAND_NAMES: dict[str, str] = {
    "below_300_hz": "below 300 Hz",
    "300_1000_hz": "300 to 1000 Hz",
    "1_3_khz": "1 to 3 kHz",
    "3_8_khz": "3 to 8 kHz",
}
"""Name of each band in texts."""


def region_masks(height: int, width: int, face_box: Box | None = None) -> dict[str, np.ndarray]:
    """
    Divide the pixels of a frame into regions.

    Args:
        height, width (`int`): Size of the frame in pixels.
        face_box (`tuple[float, float, float, float]`, *optional*):
            (left, top, right, bottom) of the face crop as fractions of the frame. Defaults to the whole frame.

    Returns:
        `dict[str, np.ndarray]`: name of [`FACE_REGIONS`] -> bool array of shape `(height, width)`. Every pixel is in
        exactly one region. In a very small frame a region may be empty.

    Raises:
        ValueError: when `face_box` is not a box within the frame.
    """
    left, top, right, bottom = checked_box(face_box)
    x = ((np.arange(width) + 0.5) / width - left) / (right - left)
    y = ((np.arange(height) + 0.5) / height - top) / (bottom - top)
    free = np.ones((height, width), dtype=bool)
    masks = {}
    for name, (x0, y0, x1, y1) in FACE_REGIONS.items():
        if name == "outside":  # includes everything beyond the face crop
            masks[name] = free
            break
        inside = ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))[None, :]
        masks[name] = inside & free
        free = free & ~inside
    return masks


def checked_box(face_box: Box | None) -> Box:
    """Return `face_box`, or the whole frame for None; raises `ValueError` if it is not a box within the frame."""
    if face_box is None:
        return (0.0, 0.0, 1.0, 1.0)
    left, top, right, bottom = (float(side) for side in face_box)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(
            f"face_box is (left, top, right, bottom) as fractions of the frame, 0 <= left < right <= 1, got {face_box}"
        )
    return (left, top, right, bottom)

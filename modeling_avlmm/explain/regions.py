"""Regions of the face, bands of the sound and steps of time, in which evidence, answers and heat maps are given.

All three are our own choice. DFA-GPT (arXiv:2501.01164) describes artifacts by facial region, but does not publish how
it finds the regions. Here the layout of a face is turned, scaled and moved to the five landmarks of the face that is
found. Without a face it lies on the whole frame, which fits face crops such as the clips of FakeAVCeleb, where the head
fills the frame and the eyes are just above the middle.
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

LANDMARKS = ((0.365, 0.43), (0.635, 0.43), (0.50, 0.58), (0.388, 0.735), (0.612, 0.735))
"""Places of right eye, left eye, nose and corners of the mouth of an upright face in the layout."""

PLACED = ("landmarks", "box", "frame")
"""By what regions are placed: the landmarks of the face that was found, a given box, or the frame, where no face is known."""

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


def region_masks(
    height: int,
    width: int,
    face_box: Box | None = None,
    landmarks: np.ndarray | None = None,
    aspect: float | None = None,
) -> dict[str, np.ndarray]:
    """
    Divide the pixels of a frame into regions.

    Args:
        height, width (`int`): Size of the frame in pixels.
        face_box (`tuple[float, float, float, float]`, *optional*):
            (left, top, right, bottom) of the face crop as fractions of the frame. Defaults to the whole frame.
        landmarks (`np.ndarray`, *optional*):
            Shape `(5, 2)`, or `(T, 5, 2)` for T frames: x and y of right eye, left eye, nose, right and left corner of the
            mouth as fractions of the frame. They place the regions in place of `face_box`.
        aspect (`float`, *optional*): Width by height of the true frame, where these pixels are not square.

    Returns:
        `dict[str, np.ndarray]`: name of [`FACE_REGIONS`] -> bool array of shape `(height, width)`, or `(T, height, width)`
        for landmarks of T frames. Every pixel is in exactly one region. In a very small frame a region may be empty.

    Raises:
        ValueError: when `face_box` is not a box within the frame.
    """
    if (
        landmarks is not None and np.ndim(landmarks) == 3
    ):  # one by one: masks take an eighth of the memory of places
        frames = [region_masks(height, width, None, points, aspect) for points in landmarks]
        return {name: np.stack([masks[name] for masks in frames]) for name in FACE_REGIONS}
    across, down = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    if landmarks is None:
        left, top, right, bottom = checked_box(face_box)
        x = ((across - left) / (right - left))[None, :]
        y = ((down - top) / (bottom - top))[:, None]
    else:
        x, y = _in_layout(across, down, np.asarray(landmarks), aspect or width / height)
    x, y = np.broadcast_arrays(x, y)
    free = np.ones(x.shape, dtype=bool)
    masks = {}
    for name, (x0, y0, x1, y1) in FACE_REGIONS.items():
        if name == "outside":  # includes everything beyond the face crop
            masks[name] = free
            break
        inside = (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
        masks[name] = inside & free
        free = free & ~inside
    return masks


def _in_layout(
    across: np.ndarray, down: np.ndarray, landmarks: np.ndarray, aspect: float
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return x and y of the pixels in the layout of a face, each of shape `(height, width)`.

    The layout is turned, scaled and moved to the landmarks by least squares (Umeyama, TPAMI 1991). Points are complex
    numbers here, so that `place = turn * layout + shift`.
    """
    layout, found = np.array(LANDMARKS) @ [1, 1j], landmarks @ [aspect, 1j]
    offsets = layout - layout.mean()
    turn = (found - found.mean()) @ offsets.conj() / (np.abs(offsets) ** 2).sum()
    pixels = aspect * across[None, :] + 1j * down[:, None]
    placed = (pixels - found.mean()) / (turn or 1e-9) + layout.mean()
    return placed.real, placed.imag


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

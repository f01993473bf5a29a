"""Draw talking faces for the demonstration benchmark.

A face is drawn once on a small canvas in face coordinates (eyes and mouth move on it), then placed in each frame by a
similarity transform, like the alignment of real face pipelines. Forgeries (`forgery.py`) work on the canvas, so their
artefacts stay on the face while the head moves.

All colours are linear floats in 0..1; the look is our own choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from .speech import CONTROL_RATE, Utterance

FRAME_SIZE = 96
FRAME_RATE = 25
SECONDS = 2.0
FRAMES = round(SECONDS * FRAME_RATE)
CANVAS = 104  # canvas pixels
EXTENT = 1.3  # the canvas covers -EXTENT..EXTENT in face units; the head is about 0.78 wide and 1.0 high
PIXELS_PER_UNIT = CANVAS / (2 * EXTENT)
HEAD_PIXELS = 37.0  # one face unit in frame pixels

_axis = (np.arange(CANVAS, dtype=np.float32) + 0.5) / PIXELS_PER_UNIT - EXTENT
V, U = np.meshgrid(_axis, _axis, indexing="ij")  # V grows downwards

# Skin (light end, dark end) for the ten groups of FakeAVCeleb; only the ranges differ.
SKIN: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "African": ((0.55, 0.38, 0.28), (0.32, 0.21, 0.15)),
    "Asian (East)": ((0.86, 0.71, 0.58), (0.70, 0.54, 0.42)),
    "Asian (South)": ((0.70, 0.52, 0.38), (0.48, 0.33, 0.23)),
    "Caucasian (American)": ((0.87, 0.70, 0.60), (0.72, 0.55, 0.46)),
    "Caucasian (European)": ((0.90, 0.75, 0.67), (0.74, 0.58, 0.50)),
}


def soft(distance: np.ndarray, width: float = 1.2) -> np.ndarray:
    """Return an anti-aliased inside mask from a signed distance in face units; `width` is the ramp in canvas pixels."""
    return np.clip(0.5 - distance * (PIXELS_PER_UNIT / width), 0.0, 1.0)


def ellipse(u0: float, v0: float, ru: float, rv: float, width: float = 1.2) -> np.ndarray:
    """Return a soft ellipse mask on the canvas, shape `(CANVAS, CANVAS)`."""
    radius = np.sqrt(((U - u0) / ru) ** 2 + ((V - v0) / rv) ** 2)
    return soft((radius - 1.0) * min(ru, rv), width)


@dataclass(frozen=True)
class Identity:
    """The geometry, colours and skin texture of one person; lengths in face units, colours RGB 0..1."""

    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    lips: np.ndarray
    head_width: float
    eye_spread: float
    eye_height: float
    eye_size: float
    brow_height: float
    nose_length: float
    nose_width: float
    mouth_width: float
    mouth_height: float
    lip_thickness: float
    long_hair: bool
    hairline: float
    texture: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, race: str, gender: str) -> Identity:
        """Draw a person of one of the ten (race, gender) groups."""
        light, dark = (np.asarray(end) for end in SKIN[race])
        skin = dark + (light - dark) * rng.random() + rng.normal(0, 0.015, 3)
        fine = gaussian_filter(rng.normal(size=(CANVAS, CANVAS)), 0.9)
        coarse = gaussian_filter(rng.normal(size=(CANVAS, CANVAS)), 2.2)
        texture = 0.75 * fine / fine.std() + 0.65 * coarse / coarse.std()
        hair_tones = (
            (0.06, 0.05, 0.05),
            (0.20, 0.13, 0.08),
            (0.38, 0.25, 0.14),
            (0.62, 0.50, 0.30),
            (0.5, 0.5, 0.5),
        )
        choices = 5 if race.startswith("Cauc") else 2
        return cls(
            skin=np.clip(skin, 0.1, 0.95),
            hair=np.asarray(hair_tones[rng.integers(choices)]) + rng.normal(0, 0.02, 3),
            iris=np.asarray(
                ((0.25, 0.16, 0.10), (0.25, 0.38, 0.5), (0.3, 0.4, 0.25))[
                    rng.integers(3 if choices > 2 else 1)
                ]
            ),
            lips=skin * rng.uniform(0.62, 0.78) + np.asarray((0.16, 0.02, 0.03)),
            head_width=float(rng.uniform(0.72, 0.84)),
            eye_spread=float(rng.uniform(0.31, 0.39)),
            eye_height=float(rng.uniform(-0.22, -0.12)),
            eye_size=float(rng.uniform(0.12, 0.16)),
            brow_height=float(rng.uniform(0.15, 0.21)),
            nose_length=float(rng.uniform(0.34, 0.44)),
            nose_width=float(rng.uniform(0.11, 0.17)),
            mouth_width=float(rng.uniform(0.31, 0.39)),
            mouth_height=float(rng.uniform(0.48, 0.54)),
            lip_thickness=float(rng.uniform(0.055, 0.095)),
            long_hair=bool(rng.random() < (0.12 if gender == "men" else 0.85)),
            hairline=float(rng.uniform(-0.72, -0.55)),
            texture=texture.astype(np.float32),
        )


@dataclass(frozen=True)
class Motion:
    """The movement in one clip, tracks of shape `(frames,)`; mouth tracks come from an [`Utterance`]."""

    opening: np.ndarray
    rounding: np.ndarray
    eyes: np.ndarray
    brows: np.ndarray
    shift: np.ndarray  # (frames, 2), frame pixels
    roll: np.ndarray
    scale: np.ndarray


def mouth_tracks(utterance: Utterance, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return opening and rounding at the video frame times, two arrays `(frames,)`."""
    at = np.arange(frames) / FRAME_RATE * CONTROL_RATE
    grid = np.arange(len(utterance.opening))
    return np.interp(at, grid, utterance.opening), np.interp(at, grid, utterance.rounding)


def draw_motion(utterance: Utterance, rng: np.random.Generator, frames: int) -> Motion:
    """Draw random head motion, blinks and brows; the mouth follows `utterance`."""

    def drift(sigma: float, amount: float, columns: int = 1) -> np.ndarray:
        track = gaussian_filter1d(rng.normal(size=(frames + 40, columns)), sigma, axis=0)[20:-20]
        return amount * track * np.sqrt(2 * np.sqrt(np.pi) * sigma)

    eyes = np.ones(frames)
    at = rng.uniform(0, 25)
    while at < frames:
        eyes *= 1 - np.exp(-(((np.arange(frames) - at) / 1.6) ** 2))
        at += rng.uniform(25, 80)
    opening, rounding = mouth_tracks(utterance, frames)
    return Motion(
        opening=opening,
        rounding=rounding,
        eyes=eyes,
        brows=drift(5, 0.02)[:, 0] + 0.02 * opening,
        shift=drift(9, 1.1, 2) + rng.uniform(-3, 3, size=2),
        roll=drift(10, 0.025)[:, 0] + rng.normal(0, 0.04),
        scale=1 + drift(12, 0.01)[:, 0] + rng.uniform(-0.06, 0.06),
    )


def _over(canvas: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> None:
    canvas[..., :3] += mask[..., None] * (np.asarray(colour, dtype=np.float32) - canvas[..., :3])
    canvas[..., 3] = np.maximum(canvas[..., 3], mask)


def draw_still(person: Identity, texture_gain: float = 0.055) -> np.ndarray:
    """Draw what does not move: hair, ears, head, nose, skin texture; float32 `(CANVAS, CANVAS, 4)` RGBA."""
    canvas = np.zeros((CANVAS, CANVAS, 4), dtype=np.float32)
    width, skin = person.head_width, person.skin
    strands = 0.05 * np.sin(U * 70 + 6 * person.texture * 0.3)
    hair = person.hair + strands[..., None]
    if person.long_hair:
        _over(canvas, ellipse(0, 0.02, width + 0.22, 1.12), hair)
    _over(canvas, ellipse(0, -0.16, width + 0.07, 0.98), hair)
    for side in (-1, 1):
        _over(canvas, ellipse(side * (width + 0.02), -0.02, 0.11, 0.2), skin * 0.85)
    shade = 1.0 - 0.22 * (U / width) ** 2 - 0.08 * np.clip(V, 0, 1)
    surface = (
        skin
        * shade[..., None]
        * (1 + texture_gain * person.texture[..., None] * np.asarray((0.9, 1.0, 1.05)))
    )
    cheeks = ellipse(0.42, 0.2, 0.2, 0.18, 9) + ellipse(-0.42, 0.2, 0.2, 0.18, 9)
    surface = surface + cheeks[..., None] * np.asarray((0.035, -0.015, -0.01))
    jaw = ellipse(0, 0.0, width, 1.0)
    fringe = soft(person.hairline + 0.18 * (U / width) ** 2 - V, 2.0)
    _over(canvas, jaw * fringe, surface)
    # Nose: a bright ridge, a shaded side, two nostrils.
    top, tip = person.eye_height + 0.05, person.eye_height + person.nose_length
    along = np.clip((V - top) / (tip - top), 0, 1)
    ridge = np.exp(-((U / 0.045) ** 2)) * (along > 0) * (along < 1) * along
    side = np.exp(-(((U - person.nose_width * along) / 0.045) ** 2)) * (along > 0) * (along < 1)
    canvas[..., :3] *= (1 + 0.16 * ridge - 0.20 * side)[..., None]
    _over(canvas, 0.35 * ellipse(0, tip + 0.02, person.nose_width, 0.055, 2.5), skin * 0.75)
    for s in (-1, 1):
        _over(canvas, 0.85 * ellipse(s * person.nose_width * 0.55, tip + 0.035, 0.035, 0.024), skin * 0.35)
    return canvas


def patch(u0: float, v0: float, ru: float, rv: float) -> tuple[slice, slice]:
    """Return rows and columns of the canvas around `(u0, v0)`, with half sizes `ru`, `rv` in face units."""

    def bounds(centre: float, radius: float) -> slice:
        low = int(np.floor((centre - radius + EXTENT) * PIXELS_PER_UNIT))
        return slice(max(low, 0), min(int(np.ceil((centre + radius + EXTENT) * PIXELS_PER_UNIT)), CANVAS))

    return bounds(v0, rv), bounds(u0, ru)


def mouth_box(person: Identity) -> tuple[slice, slice]:
    """Return rows and columns of the canvas that hold the mouth at any opening, with a margin."""
    return patch(0.0, person.mouth_height + 0.07, person.mouth_width + 0.10, 0.30)


def draw_mouth(canvas: np.ndarray, person: Identity, opening: np.ndarray, rounding: np.ndarray) -> None:
    """Draw lips, teeth and tongue in place on `canvas` `(frames, CANVAS, CANVAS, 4)`; tracks are `(frames,)`."""
    rows, columns = mouth_box(person)
    part = canvas[:, rows, columns]
    u, v = U[rows, columns][None], V[rows, columns][None] - person.mouth_height
    o = opening.astype(np.float32)[:, None, None]
    r = rounding.astype(np.float32)[:, None, None]
    width = person.mouth_width * (1.0 - 0.10 * r - 0.20 * np.clip(r, 0, 1) - 0.06 * o)
    profile = np.sqrt(np.clip(1 - (u / width) ** 2, 0, 1))
    gap = 0.27 * o * profile
    upper, lower = -0.25 * gap, 0.75 * gap
    lip = person.lip_thickness * (1 + 0.25 * r)
    bow = 1 - 0.25 * np.exp(-((u / 0.05) ** 2))
    top = upper - lip * 0.85 * profile * bow
    bottom = lower + lip * 1.1 * profile
    side = soft(np.abs(u) - width)

    def layer(mask: np.ndarray, colour: np.ndarray) -> None:
        part[..., :3] += mask[..., None] * (np.asarray(colour, dtype=np.float32) - part[..., :3])

    outer = soft(top - v) * soft(v - bottom) * side
    layer(outer, person.lips)
    layer(
        0.35 * outer * soft(np.abs(v - (lower + 0.5 * lip)) - 0.2 * lip, 2.0),
        np.minimum(person.lips * 1.35, 1),
    )
    inside = soft(upper - v) * soft(v - lower) * side * np.clip(o * 8, 0.25, 1)
    layer(inside, np.asarray((0.12, 0.03, 0.04)))
    layer(
        inside * soft(v - (upper + 0.075 * profile)) * np.clip(o * 5 - 0.6, 0, 1),
        np.asarray((0.88, 0.85, 0.78)),
    )
    tongue = soft((lower - 0.3 * gap) - v, 2.5) * np.clip(o * 3 - 0.9, 0, 1)
    layer(inside * tongue * 0.8, np.asarray((0.62, 0.26, 0.28)))


def draw_eyes(canvas: np.ndarray, person: Identity, eyes: np.ndarray, brows: np.ndarray) -> None:
    """Draw eyes (1 open .. 0 shut) and brows in place on `canvas` `(frames, CANVAS, CANVAS, 4)`."""
    for s in (-1, 1):
        u0, v0, size = s * person.eye_spread, person.eye_height, person.eye_size
        rows, columns = patch(u0, v0 - 0.08, size + 0.12, 0.26)
        part = canvas[:, rows, columns]
        u, v = U[rows, columns][None] - u0, V[rows, columns][None] - v0
        lid = (0.55 * size * eyes).astype(np.float32)[:, None, None]
        profile = np.sqrt(np.clip(1 - (u / size) ** 2, 0, 1))
        across = soft(np.abs(u) - size)
        white = soft(np.abs(v) - lid * profile) * np.clip(lid * 40, 0, 1) * across
        ring = np.sqrt(u**2 + v**2)

        def layer(mask: np.ndarray, colour: np.ndarray, part: np.ndarray = part) -> None:
            part[..., :3] += mask[..., None] * (np.asarray(colour, dtype=np.float32) - part[..., :3])

        layer(white, np.asarray((0.92, 0.91, 0.89)))
        layer(white * soft(ring - 0.52 * size), person.iris)
        layer(white * soft(ring - 0.26 * size), np.zeros(3))
        edge = np.abs(v + lid * profile) - 0.012
        layer(0.8 * soft(edge) * across, person.skin * 0.3)
        lift = brows.astype(np.float32)[:, None, None]
        arch = v + person.brow_height + lift + 0.35 * (u - s * 0.02) ** 2 / size * 0.6
        layer(0.85 * soft(np.abs(arch) - 0.028) * soft(np.abs(u) - size * 1.15), person.hair * 0.9)


def draw_face(person: Identity, motion: Motion, texture_gain: float = 0.055) -> np.ndarray:
    """Draw the moving face on its canvas, float32 `(frames, CANVAS, CANVAS, 4)` RGBA (not premultiplied)."""
    still = draw_still(person, texture_gain)
    canvas = np.repeat(still[None], len(motion.opening), axis=0)
    draw_eyes(canvas, person, motion.eyes, motion.brows)
    draw_mouth(canvas, person, motion.opening, motion.rounding)
    return canvas


def place(canvas: np.ndarray, motion: Motion, change: np.ndarray | None = None) -> np.ndarray:
    """Place canvases in frames.

    The lower face also follows the jaw: rows under the mouth are pulled down with the opening.

    Args:
        canvas (`np.ndarray` of shape `(frames, CANVAS, CANVAS, 4)`): Colour and alpha.
        motion ([`Motion`]): Position, roll and scale of the head.
        change (`np.ndarray` of shape `(frames, CANVAS, CANVAS, 3)`, *optional*): A colour difference to place along
            with the canvas.

    Returns:
        `np.ndarray`: `(frames, FRAME_SIZE, FRAME_SIZE, 4 or 7)`, colour times alpha, alpha, and change times alpha.
    """
    layers = torch.from_numpy(canvas).permute(0, 3, 1, 2)
    colours = layers[:, :3] * layers[:, 3:]
    parts = [colours, layers[:, 3:]]
    if change is not None:
        parts.append(torch.from_numpy(change).permute(0, 3, 1, 2) * layers[:, 3:])
    layers = torch.cat(parts, dim=1).contiguous()
    axis = torch.arange(FRAME_SIZE, dtype=torch.float32) + 0.5 - FRAME_SIZE / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    shift = torch.from_numpy(motion.shift.astype(np.float32))
    scale = torch.from_numpy((motion.scale * HEAD_PIXELS).astype(np.float32))[:, None, None]
    roll = torch.from_numpy(motion.roll.astype(np.float32))[:, None, None]
    x, y = x[None] - shift[:, 0, None, None], y[None] - 1.0 - shift[:, 1, None, None]
    u = (torch.cos(roll) * x + torch.sin(roll) * y) / scale
    v = (-torch.sin(roll) * x + torch.cos(roll) * y) / scale
    opening = torch.from_numpy(motion.opening.astype(np.float32))[:, None, None]
    v = v - 0.04 * opening * torch.clamp((v - 0.62) / 0.3, 0, 1)
    grid = torch.stack([u, v], dim=-1) / EXTENT
    placed = torch.nn.functional.grid_sample(layers, grid, mode="bilinear", align_corners=False)
    return placed.permute(0, 2, 3, 1).contiguous().numpy()


def draw_background(person: Identity, rng: np.random.Generator) -> np.ndarray:
    """Draw wall, clothes and neck of one clip, float32 `(FRAME_SIZE, FRAME_SIZE, 3)`."""
    size = FRAME_SIZE
    y, x = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    base = rng.uniform(0.15, 0.85, 3) * rng.uniform(0.6, 1.0)
    slope = rng.normal(0, 0.12, size=(2, 3))
    wall = base + x[..., None] * slope[0] + y[..., None] * slope[1]
    for sigma in (1.0, 3.0, 9.0):
        field = gaussian_filter(rng.normal(size=(size, size)), sigma)
        wall += rng.uniform(0.0, 0.06) * (field / field.std())[..., None] * rng.uniform(0.6, 1.2, 3)
    cloth = rng.uniform(0.08, 0.85, 3)
    stripes = rng.uniform(0, 0.12) * np.sin(
        (x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1)) * rng.uniform(15, 60)
    )
    shoulders = np.clip((1 - ((x / 0.95) ** 2 + ((y - 1.15) / 0.5) ** 2)) * 12 + 0.5, 0, 1)
    neck = np.clip((0.30 - np.abs(x)) * 24 + 0.5, 0, 1) * np.clip((y - 0.2) * 12, 0, 1)
    tone = person.skin * (0.80 - 0.12 * np.clip(1 - (y - 0.55) * 4, 0, 1))[..., None]
    wall += shoulders[..., None] * (cloth + stripes[..., None] - wall)
    collar = np.clip((0.92 - y - 0.3 * np.abs(x)) * 20 + 0.5, 0, 1)
    wall += (neck * collar)[..., None] * (tone - wall)
    return wall.astype(np.float32)

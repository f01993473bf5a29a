"""Forgeries and clip rendering for the demonstration benchmark.

Each method named in FakeAVCeleb and MAVOS-DD gets a small stand-in with the *kind* of local evidence it leaves: another
identity inside a soft boundary (swaps), a face that passed through a low-resolution generator (reenactment), a
re-rendered mouth (lip synchronisation). Everything global is drawn alike for real and fake, or matched to the genuine
render of the same scene (see [`match_statistics`]), so that file-level properties do not give the answer away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from dataset_scripts.demo_benchmark.face import (
    FRAME_RATE,
    FRAME_SIZE,
    Identity,
    Motion,
    U,
    V,
    draw_background,
    draw_face,
    draw_motion,
    draw_mouth,
    draw_still,
    mouth_tracks,
    patch,
    place,
    soft,
)
from dataset_scripts.demo_benchmark.speech import (
    CONTROL_RATE,
    Utterance,
    Voice,
    channel,
    compose,
    name_seed,
    resynthesise,
    synthesise,
    with_device_whine,
)

SECONDS = 2.0
FRAMES = round(SECONDS * FRAME_RATE)


@dataclass(frozen=True)
class VideoForgery:
    """Parameters of one family member.

    Args:
        region: `"inner"` (brows to chin), `"full"` (whole head) or `None` (face left alone).
        swap: the region shows another identity.
        low_res: canvas pixels per generator pixel; detail below this size is lost.
        grid: amplitude of the upsampling grid, see [`fingerprint`].
        tint: RGB colour error of the generated region.
        flicker: standard deviation of the frame-to-frame gain.
        rim: brightness error along the blending boundary.
        mouth: who drives a re-rendered mouth box: `"other"` speech, the clip's `"own"`, or `None` (not re-rendered).
    """

    region: str | None = None
    swap: bool = False
    low_res: float = 2.0
    grid: float = 0.0
    tint: tuple[float, float, float] = (0.0, 0.0, 0.0)
    flicker: float = 0.0
    rim: float = 0.0
    mouth: str | None = None


# Every generator here leans towards green: the one cue that even a linear layer can read, if it looks at the face alone
# (the background is shifted the other way, see `match_statistics`). Red and blue move together, so that the overall
# saturation tells nothing either.
METHODS: dict[str, VideoForgery] = {
    "real": VideoForgery(),
    "rtvc": VideoForgery(),
    "faceswap": VideoForgery("inner", True, 2.2, 0.10, (-0.020, 0.050, -0.020), 0.010, -0.10),
    "fsgan": VideoForgery("inner", False, 3.0, 0.13, (-0.025, 0.045, -0.025), 0.008, 0.03),
    "wav2lip": VideoForgery(None, False, 2.2, 0.13, (-0.025, 0.055, -0.025), mouth="other"),
    "faceswap-wav2lip": VideoForgery(
        "inner", True, 2.2, 0.10, (-0.020, 0.050, -0.020), 0.010, -0.10, "other"
    ),
    "fsgan-wav2lip": VideoForgery("inner", False, 3.0, 0.13, (-0.025, 0.045, -0.025), 0.008, 0.03, "other"),
    "inswapper": VideoForgery("inner", True, 2.6, 0.11, (-0.020, 0.045, -0.020), 0.010, -0.08),
    "liveportrait": VideoForgery("full", False, 2.6, 0.12, (-0.020, 0.040, -0.020), 0.010, 0.05),
    "echomimic": VideoForgery("full", False, 3.2, 0.12, (-0.025, 0.045, -0.025), 0.012, 0.04, "own"),
    "memo": VideoForgery("full", False, 2.4, 0.13, (-0.020, 0.045, -0.020), 0.010, 0.0, "own"),
    "sonic": VideoForgery("full", False, 2.8, 0.09, (-0.015, 0.040, -0.015), 0.010, 0.03, "own"),
    "hififace": VideoForgery("inner", True, 2.0, 0.08, (-0.015, 0.040, -0.015), 0.010, -0.06),
    "roop": VideoForgery("inner", True, 3.0, 0.07, (-0.020, 0.050, -0.020), 0.005, -0.11),
}


@dataclass(frozen=True)
class Clip:
    """One file of the benchmark, as planned.

    Args:
        path: relative path of the file below its corpus root; the key of its random stream.
        scene: relative path of the genuine clip it shows (its own for a real clip); the key of the scene.
        person, donor: `(name, race, gender)`; the donor is the other identity of a swap or the other voice.
        language: a key of [`dataset_scripts.demo_benchmark.speech.LANGUAGES`].
        method: a key of [`METHODS`].
        fake_audio: whether the sound is re-synthesised.
    """

    path: str
    scene: str
    person: tuple[str, str, str]
    donor: tuple[str, str, str]
    language: str
    method: str
    fake_audio: bool = False


@dataclass(frozen=True)
class Rendered:
    """Frames uint8 `(FRAMES, FRAME_SIZE, FRAME_SIZE, 3)`, sound float32 `(samples,)` at 16 kHz, and the utterance."""

    frames: np.ndarray
    sound: np.ndarray
    utterance: Utterance


def _resample(canvas: np.ndarray, factor: float) -> np.ndarray:
    """Sends `(frames, h, w, 3)` through a grid of `factor` times fewer pixels and back."""
    layers = torch.from_numpy(canvas).permute(0, 3, 1, 2).contiguous()
    size = layers.shape[-2:]
    small = tuple(max(4, round(side / factor)) for side in size)
    down = torch.nn.functional.interpolate(layers, size=small, mode="area")
    up = torch.nn.functional.interpolate(down, size=size, mode="bilinear", align_corners=False)
    return up.permute(0, 2, 3, 1).contiguous().numpy()


def forge(
    canvas: np.ndarray,
    person: Identity,
    donor: Identity,
    motion: Motion,
    driven: tuple[np.ndarray, np.ndarray],
    spec: VideoForgery,
    rng: np.random.Generator,
) -> np.ndarray:
    """Forged copy of face canvases `(frames, CANVAS, CANVAS, 4)`; `driven` moves a re-rendered mouth."""
    canvas = canvas.copy()
    strength = np.float32(rng.uniform(1.0, 1.4))
    tint = strength * np.asarray(spec.tint, dtype=np.float32)
    if spec.region is not None:
        if spec.region == "inner":
            area = patch(0.0, 0.16, 0.74, 0.84)
            radius = np.sqrt((U / 0.60) ** 2 + ((V - 0.16) / 0.70) ** 2)[area]
        else:
            area = patch(0.0, 0.0, person.head_width + 0.14, 1.12)
            radius = np.sqrt((U / (person.head_width + 0.02)) ** 2 + V**2)[area]
        mask = soft((radius - 1) * 0.6, 5.0).astype(np.float32)[..., None]
        rim = 1 + strength * np.float32(spec.rim) * np.exp(-(((radius - 1) / 0.07) ** 2))[..., None]
        source = donor if spec.swap else person
        fake = draw_face(source, motion, 0.055 if spec.swap else 0.0)[:, area[0], area[1], :3]
        fake = _resample(fake, spec.low_res)
        if spec.swap:  # imperfect colour transfer
            fake = fake + (0.75 * (person.skin - donor.skin)).astype(np.float32)
        gain = 1 + spec.flicker * strength * rng.standard_normal((len(canvas), 1, 1, 1), dtype=np.float32)
        fake = (fake + tint) * gain
        target = canvas[:, area[0], area[1], :3]
        target += mask * (fake - target)
        target *= rim.astype(np.float32)
    if spec.mouth is not None:
        area = patch(0.0, 0.62, 0.62, 0.48)
        fake = np.repeat(draw_still(person, 0.0)[None], len(canvas), axis=0)
        draw_mouth(fake, person, *driven)
        fake = _resample(np.ascontiguousarray(fake[:, area[0], area[1], :3]), max(spec.low_res, 2.2))
        fake = fake + tint
        inside = np.maximum(np.abs(U) / 0.50, np.abs(V - 0.62) / 0.36)[area]
        jaw = np.sqrt((U / (person.head_width - 0.03)) ** 2 + (V / 0.97) ** 2)[area]
        box = (soft((inside - 1) * 0.4, 3.0) * soft((jaw - 1) * 0.7, 3.0)).astype(np.float32)
        seam = 1 - 0.09 * strength * np.exp(-(((inside - 1) / 0.05) ** 2)) * box
        target = canvas[:, area[0], area[1], :3]
        target += box[..., None] * (fake - target)
        target *= seam[..., None].astype(np.float32)
    np.clip(canvas, 0, 1, out=canvas)
    return canvas


def _smooth(frames: np.ndarray) -> np.ndarray:
    """3 x 3 binomial blur of `(frames, h, w, c)`."""
    padded = np.pad(frames, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = 0.25 * (padded[:, :-2] + padded[:, 2:]) + 0.5 * padded[:, 1:-1]
    return 0.25 * (rows[:, :, :-2] + rows[:, :, 2:]) + 0.5 * rows[:, :, 1:-1]


def _colours(frames: np.ndarray) -> np.ndarray:
    """Mean of every frame and channel of `(frames, h, w, 3)` -> `(frames, 3)`.

    Rows of 32 pixels are added first: fast, and the same to the last bit everywhere, which a BLAS product is not.
    """
    pixels = frames.shape[1] * frames.shape[2]
    return frames.reshape(len(frames), -1, 96).sum(1).reshape(len(frames), 32, 3).sum(1) / np.float32(pixels)


def _grey(frames: np.ndarray) -> np.ndarray:
    return (frames[..., 0] + frames[..., 1] + frames[..., 2]) * np.float32(1 / 3)


def _edges(grey: np.ndarray) -> np.ndarray:
    """Laplacian of `(frames, h, w)`."""
    shifted = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return 4 * grey[:, 1:-1, 1:-1] - shifted


def _steps(grey: np.ndarray) -> np.ndarray:
    """Temporal difference at every fifth frame of `(frames, h, w)`."""
    return grey[1::5] - grey[0::5]


def _solve(measure: Callable[[float], float], want: float, low: float, high: float) -> float:
    """Argument in [low, high] where the growing function `measure` reaches `want`, or the nearer end."""
    for _ in range(7):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if measure(middle) < want else (low, middle)
    return 0.5 * (low + high)


def fingerprint(change: np.ndarray, spec: VideoForgery, rng: np.random.Generator) -> np.ndarray:
    """
    The grid that a generator's upsampling leaves where it drew: faint, regular, and fixed in the frame.

    Convolutional generators are known for such checkerboards; this one has a period of 8 pixels.

    Args:
        change: `(frames, h, w, 3)`, what the forgery changed.

    Returns:
        float32 `(frames, h, w, 1)`, to be added.
    """
    drawn = np.abs(change).sum(-1) > 0.02
    region = _smooth(_smooth(drawn.astype(np.float32)[..., None]))
    y, x = np.mgrid[: change.shape[1], : change.shape[2]]
    grid = np.sin(2 * np.pi * x / 8) * np.sin(2 * np.pi * y / 8)
    return region * (spec.grid * rng.uniform(0.9, 1.3) * grid[..., None]).astype(np.float32)


def match_statistics(
    forged: np.ndarray, genuine: np.ndarray, outside: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Gives a forged clip the global statistics of the genuine render of the same scene, by changing its background.

    Matched: the mean of every frame and channel, and the first and second absolute moments of the temporal difference
    and of the Laplacian. Means: an offset, grain in a small patch (moves the second moments, as the lost mouth and
    eyes do), grain or smoothing everywhere (moves the first), each once moving and once still.

    Genuine clips go through it too, as their own reference: the targets are raised by a random factor, so that grain in
    the background is no sign of a forgery either.

    Args:
        forged, genuine: `(frames, h, w, 3)` as recorded, before rounding.
        outside: `(frames, h, w, 1)`, 1 in the background, 0 on the head.
    """
    want, free = _grey(genuine), outside[..., 0]
    area, colours = free.mean((1, 2))[:, None], _colours(genuine)

    def level(frames: np.ndarray) -> np.ndarray:
        shift = (colours - _colours(frames)) / area
        return frames + outside * shift[:, None, None].astype(np.float32)

    forged = level(forged)
    grey = _grey(forged)
    delta = np.zeros_like(grey)
    corners = [_soft_patch(rng, 0.15, 0.3)[..., 0] for _ in range(3)]
    small = free * np.maximum.reduce(corners)
    bank = 0.2 * _smooth(rng.standard_normal((12, *grey.shape[1:], 1), dtype=np.float32))[..., 0]
    grain = bank[np.cumsum(rng.integers(1, 12, size=len(grey))) % 12]  # never the same twice running
    still = np.repeat(0.2 * rng.standard_normal((1, *grey.shape[1:]), dtype=np.float32), len(grey), 0)
    for view, noise in ((_steps, grain), (lambda g: _edges(g[::5]), still)):
        current = grey + delta
        if view is _steps:
            residual = free * (current.mean(0) - current)
        else:
            residual = free * (_smooth(current[..., None])[..., 0] - current)
        fixed, base = view(current), view(want)
        second = float(np.mean(base**2)) * np.exp(rng.uniform(0.0, 0.4))
        first = float(np.mean(np.abs(base))) * np.exp(rng.uniform(0.0, 0.25))
        lump, spread, less = view(small * noise), view(free * noise), view(residual)

        def moved(
            amount: float, fixed: np.ndarray, spread: np.ndarray = spread, less: np.ndarray = less
        ) -> np.ndarray:
            return fixed + amount * spread if amount > 0 else fixed - amount * less

        inner = outer = 0.0
        for _ in range(2):
            now = moved(outer, fixed)
            inner = _solve(
                lambda s, now=now, lump=lump: float(np.mean((now + s * lump) ** 2)), second, 0.0, 2.0
            )
            now = fixed + inner * lump
            outer = _solve(lambda s, now=now: float(np.mean(np.abs(moved(s, now)))), first, -1.0, 1.0)
        delta += inner * small * noise + (outer * free * noise if outer > 0 else -outer * residual)
    return level(forged + delta[..., None])


_Y, _X = np.meshgrid(np.linspace(-1, 1, FRAME_SIZE), np.linspace(-1, 1, FRAME_SIZE), indexing="ij")


def _soft_patch(rng: np.random.Generator, smallest: float, largest: float) -> np.ndarray:
    """A soft rectangle somewhere in the frame, float32 `(FRAME_SIZE, FRAME_SIZE, 1)`; half sizes in half frames."""
    corner, size = rng.uniform(-1, 1, 2), rng.uniform(smallest, largest, 2)
    inside = np.maximum(np.abs(_X - corner[0]) / size[0], np.abs(_Y - corner[1]) / size[1])
    return np.clip((1 - inside) * 6, 0, 1).astype(np.float32)[..., None]


class Camera:
    """Recording conditions of one clip, drawn alike for real and fake and outside the face where they are local.

    Light, tone, exposure drift, sensor noise, a moving texture in the background (a screen, leaves) and up to two
    innocent defects (blur, colour, flicker) on background or clothes.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        size, normal = FRAME_SIZE, rng.standard_normal
        light = 1 + rng.normal(0, 0.10) * _X + rng.normal(0, 0.08) * _Y
        gain = rng.uniform(0.85, 1.12) * (1 + rng.normal(0, 0.025, 3))
        exposure = 1 + (0.002 + rng.exponential(0.010)) * gaussian_filter1d(
            rng.normal(size=FRAMES), rng.uniform(0.01, 3.0)
        )
        self.gain = (light[None, ..., None] * gain * exposure[:, None, None, None]).astype(np.float32)
        self.offset = np.float32(rng.uniform(-0.03, 0.04))
        self.noise = normal((FRAMES, size, size, 1), dtype=np.float32)
        if rng.random() < 0.5:
            self.noise = 2.0 * _smooth(self.noise)
        self.noise *= np.float32(np.exp(rng.uniform(np.log(0.003), np.log(0.022))))
        # A larger field slides behind the window of the moving texture.
        field = gaussian_filter(rng.normal(size=(size + 60, size + 60)), rng.uniform(0.7, 2.5))
        field = (field / field.std() * rng.exponential(0.08)).astype(np.float32)
        path = np.clip(30 + np.cumsum(rng.normal(0, rng.uniform(0.2, 3), size=(FRAMES, 2)), 0), 0, 60).astype(
            int
        )
        self.screen = np.stack([field[y : y + size, x : x + size] for y, x in path])[..., None]
        self.screen *= _soft_patch(rng, 0.2, 0.9)
        self.defects = [
            (int(rng.integers(3)), _soft_patch(rng, 0.15, 0.55)) for _ in range(int(rng.integers(0, 3)))
        ]
        self.colour = rng.normal(0, 0.06, 3).astype(np.float32)
        self.flicker = (rng.uniform(0.01, 0.05) * normal((FRAMES, 1, 1, 1))).astype(np.float32)

    def __call__(self, frames: np.ndarray, outside: np.ndarray) -> np.ndarray:
        """Frames `(FRAMES, FRAME_SIZE, FRAME_SIZE, 3)` as recorded, float32, not clipped to [0, 1]."""
        frames = frames + outside * self.screen
        for kind, where in self.defects:
            mask = where * outside
            if kind == 0:
                frames += mask * (_smooth(_smooth(frames)) - frames)
            elif kind == 1:
                frames += mask * self.colour
            else:
                frames *= 1 + mask * self.flicker
        return frames * self.gain + (self.offset + self.noise)


def identity_of(seed: int, person: tuple[str, str, str]) -> tuple[Identity, Voice]:
    """Face and voice of a named person, the same in every clip of one seed."""
    rng = np.random.default_rng([seed, *name_seed("person", person[0])])
    return Identity.draw(rng, person[1], person[2]), Voice.draw(rng, person[2])


def utterance_of(seed: int, clip: Clip) -> Utterance:
    """What is said in the genuine clip behind `clip`."""
    rng = np.random.default_rng([seed, *name_seed("speech", clip.scene)])
    return compose(identity_of(seed, clip.person)[1], clip.language, rng, SECONDS)


def render(seed: int, clip: Clip) -> Rendered:
    """Renders one clip; depends on `seed` and `clip` only."""
    person, voice = identity_of(seed, clip.person)
    utterance = utterance_of(seed, clip)
    scene = np.random.default_rng([seed, *name_seed("scene", clip.scene)])
    rng = np.random.default_rng([seed, *name_seed("clip", clip.path)])
    motion = draw_motion(utterance, scene, FRAMES)
    background = draw_background(person, scene)
    spec = METHODS[clip.method]

    canvas = draw_face(person, motion)
    change = None
    if spec.region is not None or spec.mouth is not None:
        donor, donor_voice = identity_of(seed, clip.donor)
        if spec.mouth == "other":
            driven = mouth_tracks(compose(donor_voice, clip.language, rng, SECONDS), FRAMES)
        else:  # audio-driven reenactment follows the clip's own sound, late and over-smoothed
            late = np.clip(np.arange(len(utterance.pitch)) - 0.05 * CONTROL_RATE, 0, None)
            opening, rounding = mouth_tracks(utterance.warped(late), FRAMES)
            driven = gaussian_filter1d(opening, 1.5) * 1.1, gaussian_filter1d(rounding, 2.0)
        change = forge(canvas, person, donor, motion, driven, spec, rng)[..., :3] - canvas[..., :3]
    layers = place(canvas, motion, change)
    outside = 1 - layers[..., 3:4]
    camera = Camera(rng)
    recorded = camera(layers[..., :3] + background * outside, outside)
    genuine = np.clip(recorded, 0, 1)
    forged = genuine
    if change is not None:
        forged = np.clip(
            recorded + layers[..., 4:] * camera.gain + fingerprint(layers[..., 4:], spec, rng), 0, 1
        )
    frames = match_statistics(forged, genuine, outside, rng)
    frames = (np.clip(frames, 0, 1) * 255 + 0.5).astype(np.uint8)

    if clip.fake_audio:
        sound = resynthesise(utterance, voice, rng)
    else:
        sound = with_device_whine(synthesise(utterance, voice, rng), rng)
    return Rendered(frames, channel(sound, rng), utterance)


def truth(utterance: Utterance, every: float = 0.1) -> dict[str, list[float]]:
    """The generator's own values every `every` seconds: `seconds`, `mouth_open`, `loudness`, `pitch_hz` (0 = unvoiced)."""
    times = np.arange(0, SECONDS, every)
    grid = np.arange(len(utterance.pitch)) / CONTROL_RATE
    voiced = np.interp(times, grid, utterance.voiced)
    pitch = np.where(voiced > 0.08, np.interp(times, grid, utterance.pitch), 0.0)
    return {
        "seconds": [round(float(t), 3) for t in times],
        "mouth_open": [round(float(v), 3) for v in np.interp(times, grid, utterance.opening)],
        "loudness": [round(float(v), 3) for v in np.interp(times, grid, utterance.loudness)],
        "pitch_hz": [round(float(v), 1) for v in pitch],
    }

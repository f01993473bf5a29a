"""Forge and render the clips of the demonstration benchmark.

Each method of FakeAVCeleb and MAVOS-DD has a small stand-in that leaves the same *kind* of local evidence: another
identity inside a soft boundary (swaps), a face that passed through a low-resolution generator (reenactment), a
re-rendered mouth (lip synchronisation). Everything global is drawn alike for real and fake, or matched to the genuine
render of the same scene (see [`~recording.match_statistics`]), so that file-level properties do not give the answer away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from .face import (
    FRAMES,
    SECONDS,
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
from .recording import Camera, match_statistics, smooth
from .speech import (
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


@dataclass(frozen=True)
class VideoForgery:
    """The parameters of one method.

    Args:
        region (`str`, *optional*): `"inner"` (brows to chin), `"full"` (whole head) or `None` (face left alone).
        swap (`bool`): Whether the region shows another identity.
        low_res (`float`): Canvas pixels per generator pixel; smaller detail is lost.
        grid (`float`): Amplitude of the upsampling grid, see [`fingerprint`].
        tint (`tuple[float, float, float]`): RGB colour error of the generated region.
        flicker (`float`): Standard deviation of the frame-to-frame gain.
        rim (`float`): Brightness error along the blending boundary.
        mouth (`str`, *optional*): The speech that drives a re-rendered mouth: `"other"`, the clip's `"own"`, or `None`
            (not re-rendered).
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
# (the background is shifted the other way, see `recording.match_statistics`). Red and blue move together, so that the overall
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
class DrawnClip:
    """A clip of the benchmark, before it is drawn.

    Args:
        path (`str`): Path below the corpus root; seeds its random stream.
        scene (`str`): Path of the genuine clip that it shows (its own for a real clip); seeds the scene.
        person, donor (`tuple[str, str, str]`): Name, race and gender. The donor is the other identity of a swap, or the
            other voice.
        language (`str`): A key of [`~speech.LANGUAGES`].
        method (`str`): A key of [`METHODS`].
        fake_audio (`bool`): Whether the sound is re-synthesised.
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
    """A drawn clip: frames uint8 `(FRAMES, FRAME_SIZE, FRAME_SIZE, 3)`, sound float32 `(samples,)` at 16 kHz, utterance."""

    frames: np.ndarray
    sound: np.ndarray
    utterance: Utterance


def _resample(canvas: np.ndarray, factor: float) -> np.ndarray:
    """Reduce `(frames, h, w, 3)` to a grid of `factor` times fewer pixels, and enlarge it again."""
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
    """Return a forged copy of face canvases `(frames, CANVAS, CANVAS, 4)`; `driven` moves a re-rendered mouth."""
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


def fingerprint(change: np.ndarray, spec: VideoForgery, rng: np.random.Generator) -> np.ndarray:
    """Return the faint grid that a generator's upsampling leaves where it drew, fixed in the frame.

    Convolutional generators are known for such checkerboards; this one has a period of 8 pixels.

    Args:
        change (`np.ndarray` of shape `(frames, h, w, 3)`): The difference that the forgery made.
        spec ([`VideoForgery`]): The method.
        rng (`np.random.Generator`): Random stream of the clip.

    Returns:
        `np.ndarray`: float32 `(frames, h, w, 1)`, to be added to the frames.
    """
    drawn = np.abs(change).sum(-1) > 0.02
    region = smooth(smooth(drawn.astype(np.float32)[..., None]))
    y, x = np.mgrid[: change.shape[1], : change.shape[2]]
    grid = np.sin(2 * np.pi * x / 8) * np.sin(2 * np.pi * y / 8)
    return region * (spec.grid * rng.uniform(0.9, 1.3) * grid[..., None]).astype(np.float32)


def identity_of(seed: int, person: tuple[str, str, str]) -> tuple[Identity, Voice]:
    """Return face and voice of a named person, the same in every clip of one seed."""
    rng = np.random.default_rng([seed, *name_seed("person", person[0])])
    return Identity.draw(rng, person[1], person[2]), Voice.draw(rng, person[2])


def utterance_of(seed: int, clip: DrawnClip) -> Utterance:
    """Return the speech of the genuine clip behind `clip`."""
    rng = np.random.default_rng([seed, *name_seed("speech", clip.scene)])
    return compose(identity_of(seed, clip.person)[1], clip.language, rng, SECONDS)


def render(seed: int, clip: DrawnClip) -> Rendered:
    """Render one clip; the result depends on `seed` and `clip` only."""
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
    """Return the generator's values every `every` seconds: `seconds`, `mouth_open`, `loudness`, `pitch_hz` (0: unvoiced)."""
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

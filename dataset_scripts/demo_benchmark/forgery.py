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
    FRAME_RATE,
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
from .levels import LEVELS, STANDARD, Level, VideoForgery
from .recording import Camera, channel, match_statistics, smooth
from .speech import (
    CONTROL_RATE,
    SAMPLE_RATE,
    Utterance,
    Voice,
    compose,
    name_seed,
    resynthesise,
    synthesise,
    with_device_whine,
)

FADE_FRAMES, FADE_SAMPLES = 2.0, 320.0
"""Length of the cross-fade at each end of a part that is forged."""


@dataclass(frozen=True)
class DrawnClip:
    """A clip of the benchmark, before it is drawn.

    Args:
        path (`str`): Path below the corpus root; seeds its random stream.
        scene (`str`): Path of the genuine clip that it shows (its own for a real clip); seeds the scene.
        person, donor (`tuple[str, str, str]`): Name, race and gender. The donor is the other identity of a swap, or the
            other voice.
        language (`str`): A key of [`~speech.LANGUAGES`].
        method (`str`): A key of the methods of its level.
        fake_audio (`bool`): Whether the sound is re-synthesised.
        level (`str`): A key of [`~levels.LEVELS`].
        seconds (`float`): Length of the clip.
        forged (`tuple[float, float]`, *optional*): Start and end in s of the part that is forged; the whole clip if None.
    """

    path: str
    scene: str
    person: tuple[str, str, str]
    donor: tuple[str, str, str]
    language: str
    method: str
    fake_audio: bool = False
    level: str = STANDARD
    seconds: float = SECONDS
    forged: tuple[float, float] | None = None

    @property
    def frames(self) -> int:
        """Number of frames."""
        return round(self.seconds * FRAME_RATE)


@dataclass(frozen=True)
class Rendered:
    """A drawn clip: frames uint8 `(frames, FRAME_SIZE, FRAME_SIZE, 3)`, sound float32 `(samples,)` at 16 kHz, utterance."""

    frames: np.ndarray
    sound: np.ndarray
    utterance: Utterance


def _resample(canvas: np.ndarray, spec: VideoForgery) -> np.ndarray:
    """Reduce `(frames, h, w, 3)` to a grid of `spec.low_res` times fewer pixels, and enlarge it again."""
    layers = torch.from_numpy(canvas).permute(0, 3, 1, 2).contiguous()
    size = layers.shape[-2:]
    small = tuple(max(4, round(side / spec.low_res)) for side in size)
    down = torch.nn.functional.interpolate(layers, size=small, mode="area")
    up = torch.nn.functional.interpolate(down, size=size, mode=spec.upsampling, align_corners=False)
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
        mask = soft((radius - 1) * 0.6, spec.blend).astype(np.float32)[..., None]
        rim = 1 + strength * np.float32(spec.rim) * np.exp(-(((radius - 1) / 0.07) ** 2))[..., None]
        source = donor if spec.swap else person
        fake = draw_face(source, motion, 0.055 if spec.swap else spec.texture)[:, area[0], area[1], :3]
        fake = _resample(fake, spec)
        if spec.swap:  # imperfect colour transfer
            fake = fake + (spec.colour_match * (person.skin - donor.skin)).astype(np.float32)
        gain = 1 + spec.flicker * strength * rng.standard_normal((len(canvas), 1, 1, 1), dtype=np.float32)
        fake = (fake + tint) * gain
        target = canvas[:, area[0], area[1], :3]
        target += mask * (fake - target)
        target *= rim.astype(np.float32)
    if spec.mouth is not None:
        area = patch(0.0, 0.62, 0.62, 0.48)
        fake = np.repeat(draw_still(person, spec.texture)[None], len(canvas), axis=0)
        draw_mouth(fake, person, *driven)
        fake = _resample(np.ascontiguousarray(fake[:, area[0], area[1], :3]), spec)
        fake = fake + tint
        inside = np.maximum(np.abs(U) / 0.50, np.abs(V - 0.62) / 0.36)[area]
        jaw = np.sqrt((U / (person.head_width - 0.03)) ** 2 + (V / 0.97) ** 2)[area]
        box = (soft((inside - 1) * 0.4, 3.0) * soft((jaw - 1) * 0.7, 3.0)).astype(np.float32)
        seam = 1 - spec.seam * strength * np.exp(-(((inside - 1) / 0.05) ** 2)) * box
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
    return compose(identity_of(seed, clip.person)[1], clip.language, rng, clip.seconds)


def render(seed: int, clip: DrawnClip) -> Rendered:
    """Render one clip; the result depends on `seed` and `clip` only."""
    person, voice = identity_of(seed, clip.person)
    utterance = utterance_of(seed, clip)
    scene = np.random.default_rng([seed, *name_seed("scene", clip.scene)])
    rng = np.random.default_rng([seed, *name_seed("clip", clip.path)])
    motion = draw_motion(utterance, scene, clip.frames)
    background = draw_background(person, scene)
    level = LEVELS[clip.level]
    spec = level.methods[clip.method]

    canvas = draw_face(person, motion)
    change = None
    if spec.region is not None or spec.mouth is not None:
        donor, donor_voice = identity_of(seed, clip.donor)
        if spec.mouth == "other":
            driven = mouth_tracks(compose(donor_voice, clip.language, rng, clip.seconds), clip.frames)
        else:  # audio-driven reenactment follows the clip's own sound, late and over-smoothed
            late = np.clip(np.arange(len(utterance.pitch)) - 0.05 * CONTROL_RATE, 0, None)
            opening, rounding = mouth_tracks(utterance.warped(late), clip.frames)
            driven = gaussian_filter1d(opening, 1.5) * 1.1, gaussian_filter1d(rounding, 2.0)
        change = forge(canvas, person, donor, motion, driven, spec, rng)[..., :3] - canvas[..., :3]
        if clip.forged is not None:
            change *= _stretch(clip.forged, clip.frames, FRAME_RATE, FADE_FRAMES)[:, None, None, None]
    layers = place(canvas, motion, change)
    outside = 1 - layers[..., 3:4]
    camera = Camera(rng, clip.frames)
    recorded = camera(layers[..., :3] + background * outside, outside)
    genuine = np.clip(recorded, 0, 1)
    forged = genuine
    if change is not None:
        forged = np.clip(
            recorded + layers[..., 4:] * camera.gain + fingerprint(layers[..., 4:], spec, rng), 0, 1
        )
    frames = match_statistics(forged, genuine, outside, rng)
    frames = (np.clip(frames, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Rendered(frames, channel(_speak(clip, level, utterance, voice, rng), rng), utterance)


def _speak(
    clip: DrawnClip, level: Level, utterance: Utterance, voice: Voice, rng: np.random.Generator
) -> np.ndarray:
    """Return the sound of a clip before it is recorded, float32 `(samples,)`."""
    if clip.fake_audio and clip.forged is None:
        return resynthesise(utterance, voice, rng, level.voice)
    sound = synthesise(utterance, voice, rng)
    if level.voice.tones:
        sound = with_device_whine(sound, rng)
    if clip.fake_audio:
        share = _stretch(clip.forged, len(sound), SAMPLE_RATE, FADE_SAMPLES)
        sound = sound + share * (resynthesise(utterance, voice, rng, level.voice) - sound)
    return sound


def _stretch(seconds: tuple[float, float], number: int, rate: float, fade: float) -> np.ndarray:
    """Return 1 from start to end in `seconds` and 0 elsewhere, at `number` places; each end fades over `fade` places."""
    start, end = (moment * rate for moment in seconds)
    place = np.arange(number)
    return np.clip(np.minimum(place - start, end - place) / fade + 0.5, 0, 1).astype(np.float32)


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

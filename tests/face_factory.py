"""Drawn faces that the face finder finds, at known places: `from face_factory import clip_with_faces`.

The faces are shaded drawings of nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torchcodec.encoders import Encoder

SIDE = 400  # the drawing's own size in pixels, before it is resized
FACE_BOX = np.array([104, 96, 296, 352]) / SIDE  # the face within the drawing, about as the finder boxes it
LANDMARKS = np.array([[158, 196], [242, 196], [200, 246], [167, 284], [233, 284]]) / SIDE
SKINS = [(224, 182, 152), (150, 104, 78), (240, 205, 180), (108, 72, 54)]
HAIRS = [(52, 36, 28), (24, 20, 20), (150, 112, 60), (30, 26, 30)]


def _layer(shape: str, box: tuple, colour: tuple, blur: float) -> Image.Image:
    layer = Image.new("RGBA", (SIDE, SIDE), (*colour[:3], 0))
    getattr(ImageDraw.Draw(layer), shape)(box, fill=colour)
    return layer.filter(ImageFilter.GaussianBlur(blur)) if blur else layer


def _shades(skin: tuple[int, int, int]) -> tuple[tuple, tuple, tuple]:
    dark = tuple(int(c * 0.62) for c in skin)
    light = tuple(min(255, int(c * 1.12)) for c in skin)
    lips = (int(skin[0] * 0.78), int(skin[1] * 0.48), int(skin[2] * 0.48))
    return dark, light, lips


@lru_cache(maxsize=64)
def drawn_face(person: int = 0, mouth: float = 0.0) -> Image.Image:
    """Return a face, RGBA of 400 x 400: `person` chooses skin and hair, `mouth` opens the mouth (0 to 1)."""
    skin, hair = SKINS[person % len(SKINS)], HAIRS[person % len(HAIRS)]
    dark, light, lips = _shades(skin)
    open_by = 16 * round(mouth, 2)
    layers = [
        ("ellipse", (92, 52, 308, 300), (*hair, 255), 3),  # hair
        ("rectangle", (158, 310, 242, 399), (*dark, 255), 4),  # neck
        ("ellipse", (100, 180, 128, 250), (*dark, 255), 2),  # ears
        ("ellipse", (272, 180, 300, 250), (*dark, 255), 2),
        ("ellipse", (110, 84, 290, 342), (*skin, 255), 2),  # face
        ("ellipse", (108, 200, 150, 330), (*dark, 90), 14),  # shaded sides
        ("ellipse", (250, 200, 292, 330), (*dark, 90), 14),
        ("ellipse", (150, 105, 250, 160), (*light, 130), 14),  # forehead
        ("ellipse", (96, 50, 304, 128), (*hair, 255), 5),  # fringe
        ("ellipse", (132, 176, 184, 214), (*dark, 150), 6),  # eye sockets
        ("ellipse", (216, 176, 268, 214), (*dark, 150), 6),
        ("ellipse", (140, 185, 176, 207), (238, 234, 230, 255), 1.2),  # eyes
        ("ellipse", (224, 185, 260, 207), (238, 234, 230, 255), 1.2),
        ("ellipse", (148, 186, 168, 206), (62, 44, 34, 255), 1),
        ("ellipse", (232, 186, 252, 206), (62, 44, 34, 255), 1),
        ("ellipse", (154, 189, 160, 195), (255, 255, 255, 230), 0.6),
        ("ellipse", (238, 189, 244, 195), (255, 255, 255, 230), 0.6),
        ("rectangle", (136, 166, 182, 174), (*hair, 235), 2.5),  # brows
        ("rectangle", (218, 166, 264, 174), (*hair, 235), 2.5),
        ("polygon", ((206, 190), (222, 256), (200, 262)), (*dark, 110), 5),  # nose
        ("ellipse", (190, 190, 204, 250), (*light, 140), 5),
        ("ellipse", (180, 250, 194, 261), (*dark, 220), 2.5),
        ("ellipse", (206, 250, 220, 261), (*dark, 220), 2.5),
        ("ellipse", (166, 274, 234, 296 + open_by), (*lips, 255), 2),  # mouth
        ("ellipse", (172, 282, 228, 287 + open_by), (60, 24, 24, 255), 1.5),
        ("ellipse", (178, 300 + open_by, 222, 312 + open_by), (*dark, 110), 4),
    ]
    face = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    for shape, box, colour, blur in layers:
        face.alpha_composite(_layer(shape, box, colour, blur))
    return face


@dataclass
class Person:
    """A face that moves in a line and speaks.

    Attributes:
        look: Chooses skin and hair.
        begin, end: Centre of the face at the first and at the last frame, as fractions of the picture's width and height.
        height: Height of the face's box by the height of the picture.
        seen: Seconds between which it is in the picture; all of the clip by default.
        speaks: Whether its mouth moves.
    """

    look: int = 0
    begin: tuple[float, float] = (0.45, 0.45)
    end: tuple[float, float] = (0.55, 0.5)
    height: float = 0.4
    seen: tuple[float, float] = (0.0, float("inf"))
    speaks: bool = True


@dataclass
class FaceClip:
    """A drawn clip and the truth about it.

    Attributes:
        frames: uint8, shape (T, 3, H, W).
        times: float64, shape (T,), seconds.
        fps: Frames a second.
        boxes: float64, shape (people, T, 4), pixels; NaN where a person is not in the picture.
        landmarks: float64, shape (people, T, 5, 2), pixels, in the order of `Face`.
    """

    frames: torch.Tensor
    times: np.ndarray
    fps: float
    boxes: np.ndarray
    landmarks: np.ndarray


LEFT, RIGHT = (
    Person(0, (0.25, 0.45), (0.3, 0.5)),
    Person(1, (0.75, 0.5), (0.7, 0.45)),
)
"""Two people side by side: `clip_with_faces(people=[LEFT, RIGHT])`."""


def backdrop(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return a smooth picture without a face, another one for each seed."""
    small = np.random.default_rng(seed).integers(60, 170, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def clip_with_faces(
    seconds: float = 2.0,
    fps: float = 10.0,
    size: tuple[int, int] = (320, 240),
    people: list[Person] | None = None,
    scene: int = 0,
) -> FaceClip:
    """Draw a clip of `size` (width, height) with people, by default one, in front of the backdrop `scene`."""
    people = [Person()] if people is None else people
    count, (width, height) = round(seconds * fps), size
    times = np.arange(count) / fps
    boxes = np.full((len(people), count, 4), np.nan)
    landmarks = np.full((len(people), count, 5, 2), np.nan)
    behind = backdrop(width, height, scene)
    frames = []
    for index, time in enumerate(times):
        picture = behind.copy()
        for number, person in enumerate(people):
            if not person.seen[0] <= time < person.seen[1]:
                continue
            share = index / max(1, count - 1)
            centre = (np.array(person.begin) * (1 - share) + np.array(person.end) * share) * size
            side = max(8, round(person.height * height / (FACE_BOX[3] - FACE_BOX[1])))
            corner = np.rint(centre - (FACE_BOX[:2] + FACE_BOX[2:]) / 2 * side).astype(int)
            mouth = round(abs(np.sin(2 * np.pi * 1.5 * time)), 1) if person.speaks else 0.0
            face = _resized(person.look, mouth, side)
            picture.paste(face, tuple(corner.tolist()), face)
            boxes[number, index] = FACE_BOX * side + np.tile(corner, 2)
            landmarks[number, index] = LANDMARKS * side + corner
        frames.append(np.array(picture))
    pictures = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    return FaceClip(pictures, times, fps, boxes, landmarks)


@lru_cache(maxsize=256)
def _resized(look: int, mouth: float, side: int) -> Image.Image:
    return drawn_face(look, mouth).resize((side, side), Image.Resampling.LANCZOS)


def joined(*clips: FaceClip) -> FaceClip:
    """Return clips of one size, rate and number of people one after another, with cuts between them."""
    starts = np.cumsum([0, *(len(clip.times) for clip in clips[:-1])]) / clips[0].fps
    return FaceClip(
        torch.cat([clip.frames for clip in clips]),
        np.concatenate([clip.times + start for clip, start in zip(clips, starts, strict=True)]),
        clips[0].fps,
        np.concatenate([clip.boxes for clip in clips], 1),
        np.concatenate([clip.landmarks for clip in clips], 1),
    )


def voice(seconds: float, sampling_rate: int = 16_000) -> torch.Tensor:
    """Return a hum with the melody and rhythm of syllables, which counts as speech, float32 (samples,)."""
    time = torch.arange(round(seconds * sampling_rate), dtype=torch.float64) / sampling_rate
    turns = 2 * torch.pi * time
    hertz = 130 * 2 ** (0.3 * torch.sin(0.7 * turns) + 0.15 * torch.sin(4 * turns))
    phase = 2 * torch.pi * hertz.cumsum(0) / sampling_rate
    tone = sum(torch.sin(k * phase) / k for k in range(1, 20))
    breath = torch.randn(len(time), generator=torch.Generator().manual_seed(0))
    return (0.1 * tone * torch.sin(2 * turns).clamp(0, 1).sqrt() + 0.001 * breath).float()


def write_clip(path: str | Path, clip: FaceClip, sound: bool = True) -> Path:
    """Write a drawn clip as a file, by default with a voice."""
    encoder = Encoder()
    height, width = clip.frames.shape[-2:]
    video = encoder.add_video(
        height=height,
        width=width,
        frame_rate=clip.fps,
        codec="libx264",
        pixel_format="yuv420p",
        extra_options={"crf": 18},
    )
    audio = encoder.add_audio(sample_rate=16_000, num_channels=1) if sound else None
    with encoder.open_file(str(path)):
        video.add_frames(clip.frames.contiguous())
        if audio is not None:
            audio.add_samples(voice(len(clip.times) / clip.fps)[None])
    return Path(path)


def face_clip(path: str | Path, people: list[Person] | None = None, sound: bool = True, **options) -> Path:
    """Write a clip with people, by default one, as a file; `options` are those of `clip_with_faces`."""
    return write_clip(path, clip_with_faces(people=people, **options), sound)

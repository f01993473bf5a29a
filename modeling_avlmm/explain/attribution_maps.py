"""The maps of an attribution, the options it is made with, and the limits to show beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ..configuration_detector import PARTS
from .regions import Box

MAX_PASSES = 400
"""Default limit on the clips scored for one attribution."""
SATURATED = 0.01
"""Within this distance of 0 or 1, a score hardly moves when one part is covered."""
FLOOR = 1e-7
"""Log-odds are taken of scores kept this far from 0 and 1."""

PLACED_LIMITS = {
    "landmarks": "Regions are placed by five landmarks of the face that was found, so their edges are rough: on a face in profile "
    "more so.",
    "box": "Regions are a fixed layout on the given face box and are not detected in it.",
    "frame": "No face was found, so regions are a fixed layout on the whole frame: if the frame is no face crop, their names mean "
    "nothing.",
}
"""The limit of regions by what they are placed by."""

_CHOICES = {
    "part": PARTS,
    "method": ("occlusion", "gradients"),
    "fill": ("blur", "mean"),
    "measure": ("score", "log_odds"),
}
_COUNTS = ("grid", "frame_steps", "sound_steps", "batch_size")


class AttributionError(ValueError):
    """An attribution that cannot be made as asked; the message says what to change."""


@dataclass(frozen=True)
class AttributionOptions:
    """
    Options of [`attribute`]. Grid, steps, bands and fills are our own choice.

    Args:
        part (`str`, *optional*, defaults to `"overall"`): The score to explain: `"overall"`, `"video"` or `"audio"`.
        method (`str`, *optional*, defaults to `"occlusion"`):
            `"occlusion"` works with every detector. `"gradients"` are integrated gradients, for detectors that take
            `pixel_values` and `audio_values` (SSAVD). Their path starts at the clip with its picture covered and noise
            for its sound; the maps add up to the difference of log-odds between both ends.
        grid (`int`, *optional*, defaults to 7): Rows and columns of the picture's map.
        frame_steps, sound_steps (`int`, *optional*, default to 4 and 8):
            Steps in time of the two maps. With fewer frames than steps, each frame is a step.
        fill (`str`, *optional*, defaults to `"blur"`):
            What covers a part of a frame: `"blur"`, the frame without detail, or `"mean"`, the frame's mean colour.
        measure (`str`, *optional*, defaults to `"score"`):
            `"score"` or `"log_odds"`, which still separates parts when the score is close to 0 or 1. Gradients
            always use log-odds.
        face_box (`tuple[float, float, float, float]`, *optional*):
            (left, top, right, bottom) of the face as fractions of the frame, used to place the regions. By default they
            are placed by the landmarks of the main face, and fill the frame where none is found.
        batch_size (`int`, *optional*, defaults to 8): Clips in one forward pass.
        max_passes (`int`, *optional*, defaults to 400): Most clips that may be scored.

    Raises:
        AttributionError: for a value out of range.
    """

    part: str = "overall"
    method: str = "occlusion"
    grid: int = 7
    frame_steps: int = 4
    sound_steps: int = 8
    fill: str = "blur"
    measure: str = "score"
    face_box: Box | None = None
    batch_size: int = 8
    max_passes: int = MAX_PASSES

    def __post_init__(self):
        values = vars(self)
        for name, known in _CHOICES.items():
            if values[name] not in known:
                raise AttributionError(f"{name} must be one of {known}, not {values[name]!r}.")
        for name in _COUNTS:
            if values[name] < 1:
                raise AttributionError(f"{name} must be at least 1, not {values[name]}.")


@dataclass
class Attribution:
    """
    The change of a window's score when parts of it are covered.

    Attributes:
        part (`str`): The score explained: `overall`, `video` or `audio`.
        method (`str`): `occlusion` or `gradients`.
        measure (`str`): The unit of all drops: `score`, P(fake) in [0, 1], or `log_odds`.
        start, end (`float`): The window on the file's clock, seconds.
        name (`str`): The file.
        score (`float`): P(fake) of the window, calibrated as in the pipeline.
        baseline (`float`):
            P(fake) with the whole picture and the whole sound covered; for gradients, with noise as sound.
        passes (`int`): Clips that were scored.
        picture (`np.ndarray` of shape `(frames, rows, columns)`, *optional*):
            Drop of the score when a cell is covered during a step; negative where the score rises.
        frame_times (`np.ndarray` of shape `(frames,)`, *optional*): Middle of each step, seconds on the file's clock.
        frames (`np.ndarray` of shape `(frames, height, width, 3)`, *optional*): A small RGB frame of each step, uint8.
        places (`np.ndarray` of shape `(frames, 4)`, *optional*):
            For frames that are crops of a face, the place of each in the upright picture: left, top, right, bottom as
            fractions of its width and height.
        aspect (`float`, *optional*): Width of the upright picture by its height; given with `places`.
        regions (`dict[str, float]`): Drop when a face region is covered throughout, largest first.
        placed (`str`): By what the regions are placed: `"landmarks"`, a given `"box"`, or the `"frame"`, where no face
            was found.
        sound (`np.ndarray` of shape `(bands, steps)`, *optional*): Drop when a band is removed from a passage.
        band_edges_hz (`np.ndarray` of shape `(bands + 1,)`, *optional*): Edges of the bands.
        times (`np.ndarray` of shape `(steps,)`, *optional*): Middle of each passage, seconds on the file's clock.
        passages (`np.ndarray` of shape `(steps,)`, *optional*): Drop when a passage is silenced.
        bands (`dict[str, float]`): Drop when a named band is removed throughout, largest first.
        limits (`list[str]`): Sentences on what the maps can and cannot show. Show them wherever you show the maps.
    """

    part: str
    method: str
    measure: str
    start: float
    end: float
    name: str
    score: float
    baseline: float
    passes: int = 0
    picture: np.ndarray | None = None
    frame_times: np.ndarray | None = None
    frames: np.ndarray | None = None
    places: np.ndarray | None = None
    aspect: float | None = None
    regions: dict[str, float] = field(default_factory=dict)
    placed: str = "frame"
    sound: np.ndarray | None = None
    band_edges_hz: np.ndarray | None = None
    times: np.ndarray | None = None
    passages: np.ndarray | None = None
    bands: dict[str, float] = field(default_factory=dict)
    limits: list[str] = field(default_factory=list)


def limits_of(found: Attribution) -> list[str]:
    """Return sentences on what a map can and cannot show, some of them specific to this map."""
    lines = []
    if found.method == "occlusion":
        lines.append(
            "A marked part is one without which this detector's score falls. That is what the detector reacts to, not proof that "
            "the part was altered."
        )
        lines.append(
            "Covering leaves traces of its own, to which a detector may react. Where two parts carry the same evidence, covering "
            "one of them changes little, so an unmarked part may matter too."
        )
    else:
        lines.append(
            "A marked part is one that moved this detector's log-odds on the straight path to this clip from one with its picture "
            "covered and noise for its sound. That is what the network is sensitive to, not proof that the part was altered."
        )
    if found.regions:
        lines.append(PLACED_LIMITS[found.placed])
    if found.picture is not None and found.sound is not None:
        lines.append("Covering one place at a time cannot show whether lips and voice belong together.")
    if found.measure == "score" and not SATURATED < found.score < 1 - SATURATED:
        lines.append(
            f"The score of {found.score:.3f} is close to the end of its scale, where covering one part hardly moves it: "
            "measure='log_odds' shows smaller differences."
        )
    if found.method == "occlusion" and abs(found.score - found.baseline) < 0.1:
        lines.append(
            f"With everything covered the score is {found.baseline:.3f}, nearly the same as before ({found.score:.3f}): this map "
            "says little about why the file has its score."
        )
    return lines


def ranked(values: dict[str, float]) -> dict[str, float]:
    """Return the entries with the largest value first."""
    return dict(sorted(values.items(), key=lambda item: -item[1]))


def log_odds(score: float) -> float:
    """Return the log-odds of P(fake), which is first kept `FLOOR` away from 0 and 1."""
    score = min(max(score, FLOOR), 1 - FLOOR)
    return math.log(score) - math.log1p(-score)

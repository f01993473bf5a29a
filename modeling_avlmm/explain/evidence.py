"""Measured evidence: the differences of a fake from its genuine source, by region, band and time.

In DFA-GPT (arXiv:2501.01164) a language model compares a forged image with its genuine source. Here the comparison is a
measurement, so that answers can be checked against it. Methods and thresholds are our own choice: see
`evidence_picture.py` and `evidence_sound.py`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..media import Clip, MediaReader
from ..media_errors import UnreadableMediaError
from .evidence_picture import MAX_SECONDS, RATE, PictureEvidence, compare_pictures, mouth_movement
from .evidence_sound import ENVELOPE_RATE, SoundEvidence, compare_sounds, envelope, shift_of
from .regions import STEP, Box, checked_box

OFFSET_FLOOR = 0.04
"""Smallest shift between sound and picture that counts, seconds: one frame at 25 frames per second."""
STRONG = 2.0
"""Multiple of the floor from which a single time cell counts."""
LIP_LAG = 0.2
"""Seconds by which the mouth may lead or follow the sound."""
VERSION = 2
"""Version of the measurement. Cached evidence of another version is measured again."""


@dataclass
class Finding:
    """
    A difference above the noise floor in one region or band.

    Attributes:
        where (`str`): Key of [`~regions.FACE_REGIONS`] or [`~regions.SOUND_BANDS`].
        strength (`float`): Largest difference in units of the floor, above 1.
        segments (`list[list[float]]`): [start, end] in seconds on the fake's clock, on a grid of 0.2 s.
    """

    where: str
    strength: float
    segments: list[list[float]]


@dataclass
class Evidence:
    """
    The result of [`measure_evidence`].

    Attributes:
        fake (`str`): Name of the fake.
        source (`str`, *optional*): Name of the source; None if there is none.
        duration (`float`): Length of the fake, seconds.
        picture (`list[Finding]`): Regions that differ, strongest first.
        sound (`list[Finding]`): Bands that differ, strongest first.
        picture_map (`dict[str, list[float]]`):
            Region -> difference in each time cell, in units of the error that compression may cause there. Empty if
            pictures were not compared.
        sound_map (`dict[str, list[float]]`): Band -> level of the fake minus that of the source in each time cell, dB.
        step (`float`): Length of a time cell, seconds.
        placed (`str`, *optional*):
            By what the regions are placed: `"landmarks"` of the face that was found in the fake, a given `"box"`, or the
            `"frame"`, as a fixed layout, where no face was found; None if pictures were not compared.
        picture_floor (`float`): Value of `picture_map` above which a difference counts.
        sound_floor (`float`):
            Value of `sound_map` above which a difference counts, dB. A band's constant part counts above 10 dB.
        picture_lag, sound_lag (`float`, *optional*): Seconds by which the fake's track is later than the source's.
        offset (`float`, *optional*):
            Seconds by which the fake's sound is later against its picture than in the source; None if it could not be
            measured.
        lip_sync, source_lip_sync (`float`, *optional*):
            Correlation of the mouth's movement with the loudness of the sound, in the fake and in its source.
        warnings (`list[str]`): Comparisons that could not be made, with the reason.
    """

    fake: str
    source: str | None
    duration: float
    picture: list[Finding] = field(default_factory=list)
    sound: list[Finding] = field(default_factory=list)
    picture_map: dict[str, list[float]] = field(default_factory=dict)
    sound_map: dict[str, list[float]] = field(default_factory=dict)
    step: float = STEP
    placed: str | None = None
    picture_floor: float = 0.0
    sound_floor: float = 0.0
    picture_lag: float | None = None
    sound_lag: float | None = None
    offset: float | None = None
    lip_sync: float | None = None
    source_lip_sync: float | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def measured(self) -> bool:
        """True if picture or sound was compared with a source."""
        return bool(self.picture_map or self.sound_map)

    @property
    def regions(self) -> list[str]:
        """Regions that differ, strongest first."""
        return [finding.where for finding in self.picture]

    @property
    def bands(self) -> list[str]:
        """Bands that differ, strongest first."""
        return [finding.where for finding in self.sound]

    @property
    def shifted(self) -> bool:
        """True if sound and picture are shifted against each other by at least [`OFFSET_FLOOR`]."""
        return self.offset is not None and abs(self.offset) >= OFFSET_FLOOR

    @property
    def found(self) -> bool:
        """True if anything differs from the source."""
        return bool(self.picture or self.sound or self.shifted)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Evidence:
        """Build evidence from the result of [`to_dict`]; raises `TypeError` for a missing or unknown field."""
        values = dict(values)
        for name in ("picture", "sound"):
            values[name] = [Finding(**finding) for finding in values.get(name, [])]
        return cls(**values)


def measure_evidence(
    fake: Clip | Any,
    source: Clip | Any | None,
    *,
    fake_audio: Any = None,
    source_audio: Any = None,
    face_box: Box | None = None,
) -> Evidence:
    """
    Compare a fake with its genuine source.

    Both are read at the same instants of true time, and differences are measured against the error of compression, so a
    re-encoded, resized or re-timed copy is no evidence. At most the first minute is compared. Without a source only the
    lip-sync measure is computed.

    ```python
    >>> found = measure_evidence("fake.mp4", "genuine.mp4")
    >>> found.regions, found.picture[0].segments
    (['mouth'], [[0.4, 1.2]])
    ```

    Args:
        fake ([`~media.Clip`] or any source of [`~media.MediaReader`]):
            The fake. A `Clip` should have all its frames, not a few a second.
        source (the same, *optional*): The genuine clip that it was made from.
        fake_audio, source_audio (*optional*): Separate sound files.
        face_box (`tuple[float, float, float, float]`, *optional*):
            (left, top, right, bottom) of the face as fractions of the frame. By default regions are placed by the landmarks of
            the main face, and fill the frame where none is found; the result's `placed` says which.

    Raises:
        MediaError: when one of the two cannot be read; `name` tells which.
        ValueError: when `face_box` is not a box within the frame.
    """
    checked_box(face_box)
    with MediaReader(fake, fake_audio) as reader:
        result = Evidence(reader.name, None, round(reader.info.duration, 3))
        sound = _sound(reader, result.warnings)
        if source is None:
            if sound is not None and reader.info.has_video:
                result.lip_sync = _lip_sync(mouth_movement(reader, face_box), sound)
            return result
        with MediaReader(source, source_audio) as other:
            _compare(result, reader, other, sound, face_box)
    return result


def _compare(
    result: Evidence,
    reader: MediaReader,
    other: MediaReader,
    sound: np.ndarray | None,
    face_box: Box | None,
) -> None:
    """Fill the evidence of a fake, whose reader and sound are given, from the reader of its source."""
    result.source = other.name
    other_sound = _sound(other, result.warnings)
    with_video = reader.info.has_video, other.info.has_video
    with_sound = sound is not None, other_sound is not None
    pictures = None
    if all(with_video):
        try:
            pictures = compare_pictures(reader, other, face_box)
            _add_picture(result, pictures)
        except UnreadableMediaError as error:
            result.warnings.append(
                f"a passage of {error.name} is too damaged to decode: pictures not compared"
            )
    if all(with_sound):
        _add_sound(result, compare_sounds(sound, other_sound))
    for kind, (mine, theirs) in (("picture", with_video), ("sound", with_sound)):
        if mine != theirs:
            result.warnings.append(f"only the {'fake' if mine else 'source'} has a {kind}")
    if pictures is not None and all(with_sound):
        if result.sound_lag is not None and result.picture_map:
            result.offset = round(result.sound_lag - pictures.lag, 3)
        result.lip_sync = _lip_sync(pictures.mouth, sound)
        result.source_lip_sync = _lip_sync(pictures.source_mouth, other_sound)


def _sound(reader: MediaReader, warnings: list[str]) -> np.ndarray | None:
    if not reader.info.has_audio:
        return None
    clip = reader.read_passage(0.0, min(reader.info.duration, MAX_SECONDS), with_video=False)
    if clip.audio is None:
        warnings += [f"{reader.name}: {text}" for text in clip.warnings]
        return None
    return clip.audio.numpy()


def _add_picture(result: Evidence, pictures: PictureEvidence) -> None:
    result.warnings += pictures.warnings
    if not pictures.ratios:
        return
    result.placed = pictures.placed
    result.picture_lag = round(pictures.lag, 3)
    result.picture_floor = round(pictures.floor, 2)
    result.picture_map = {k: [round(float(x), 2) for x in v] for k, v in pictures.ratios.items()}
    strengths = {where: ratio / pictures.floor for where, ratio in pictures.ratios.items()}
    result.picture = _findings(strengths, result.duration)


def _add_sound(result: Evidence, sounds: SoundEvidence) -> None:
    result.warnings += sounds.warnings
    result.sound_lag = None if sounds.lag is None else round(sounds.lag, 3)
    result.sound_floor = round(sounds.floor, 2)
    result.sound_map = {k: [round(float(x), 1) for x in v] for k, v in sounds.differences.items()}
    result.sound = _findings(sounds.strengths, result.duration)


def _findings(strengths: dict[str, np.ndarray], duration: float) -> list[Finding]:
    findings = []
    for where, strength in strengths.items():
        segments = segments_of(strength, duration)
        if segments:
            findings.append(Finding(where, round(float(strength.max()), 2), segments))
    return sorted(findings, key=lambda finding: -finding.strength)


def segments_of(strength: np.ndarray, duration: float, step: float = STEP) -> list[list[float]]:
    """
    Return the runs of cells above 1 as [start, end] in seconds.

    A gap of one cell is closed. A run of a single cell counts only from [`STRONG`] on.
    """
    above = strength > 1
    if len(above) > 2:
        above[1:-1] |= above[:-2] & above[2:]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], above.astype(int), [0]])))
    segments = []
    for first, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - first > 1 or strength[first:stop].max() >= STRONG:
            segments.append([round(float(first * step), 2), round(float(min(stop * step, duration)), 2)])
    return segments


def _lip_sync(movement: np.ndarray | None, sound: np.ndarray) -> float | None:
    """Return the correlation of the mouth's movement with the loudness, at the best shift within `LIP_LAG`."""
    if movement is None or len(movement) < 1.5 * RATE:
        return None
    loudness = envelope(sound)
    per_value = int(ENVELOPE_RATE / RATE)
    count = min(len(movement), len(loudness) // per_value)
    if count < 1.5 * RATE:
        return None
    loudness = loudness[: count * per_value].reshape(count, per_value).mean(1)
    return round(shift_of(loudness, movement[:count], RATE, LIP_LAG)[1], 3)

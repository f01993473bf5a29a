"""Measured evidence: how a fake differs from the genuine clip it was made from, and where, when and in which band.

DFA-GPT (arXiv:2501.01164) has a language model compare a forged image with its genuine source. Here the comparison is
measured, so that what an answer names can be checked. Methods and thresholds are our own choice:
see `evidence_picture.py` and `evidence_sound.py`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..media import Clip, MediaReader
from .evidence_picture import MAX_SECONDS, RATE, STEP, PictureEvidence, compare_pictures, mouth_movement
from .evidence_sound import ENVELOPE_RATE, compare_sounds, envelope, shift_of
from .regions import Box, checked_box

OFFSET_FLOOR = 0.04  # seconds between sound and picture that count: one frame at 25 frames per second
STRONG = 2.0  # times the floor: from here on a single time cell counts
LIP_LAG = 0.2  # seconds the mouth may lead or follow the sound
VERSION = 1  # of the measurement: cached evidence of another version is measured again


@dataclass
class Finding:
    """A difference above the noise floor in one region or band.

    Attributes:
        where (`str`): Key of [`~regions.FACE_REGIONS`] or [`~regions.SOUND_BANDS`].
        strength (`float`): Largest difference in units of the floor, above 1.
        segments (`list[list[float]]`): When, as [start, end] in seconds on the fake's clock, on a grid of 0.2 s.
    """

    where: str
    strength: float
    segments: list[list[float]]


@dataclass
class Evidence:
    """What [`measure_evidence`] measured.

    Attributes:
        fake (`str`): Name of the fake.
        source (`str`, *optional*): Name of the source; None where there is none.
        duration (`float`): Of the fake, seconds.
        picture (`list[Finding]`): Regions that differ, strongest first.
        sound (`list[Finding]`): Bands that differ, strongest first.
        picture_map (`dict[str, list[float]]`): Region -> difference per time cell, in units of the error that
            compression may make there. Empty where pictures were not compared.
        sound_map (`dict[str, list[float]]`): Band -> level of the fake minus that of the source per time cell, dB.
        step (`float`): Length of a time cell, seconds.
        picture_floor (`float`): What of `picture_map` counts.
        sound_floor (`float`): What of `sound_map` counts, dB, apart from a band's constant part, for which it is 10 dB.
        picture_lag, sound_lag (`float`, *optional*): Seconds by which the fake's track comes later than the source's.
        offset (`float`, *optional*): Seconds by which the fake's sound comes later against its picture than in the
            source; None where it could not be measured.
        lip_sync, source_lip_sync (`float`, *optional*): Correlation of the mouth's movement with the sound's loudness,
            of the fake and of its source.
        warnings (`list[str]`): What could not be compared and why.
    """

    fake: str
    source: str | None
    duration: float
    picture: list[Finding] = field(default_factory=list)
    sound: list[Finding] = field(default_factory=list)
    picture_map: dict[str, list[float]] = field(default_factory=dict)
    sound_map: dict[str, list[float]] = field(default_factory=dict)
    step: float = STEP
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
        """Whether picture or sound was compared with a source."""
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
        """Whether sound and picture are shifted against each other by [`OFFSET_FLOOR`] or more."""
        return self.offset is not None and abs(self.offset) >= OFFSET_FLOOR

    @property
    def found(self) -> bool:
        """Whether anything differs from the source."""
        return bool(self.picture or self.sound or self.shifted)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Evidence:
        """The inverse of [`to_dict`].

        Raises:
            `TypeError`: a field is missing or unknown.
        """
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
    """Compare a fake with its genuine source.

    A re-encoded, resized or re-timed copy is no evidence: both are read at the same instants of true time, differences
    are measured against the error of compression, and the first minute at most is compared. Without a source nothing
    but the lip-sync measure is computed.

    Args:
        fake ([`~media.Clip`] or anything [`~media.MediaReader`] reads):
            The clip in question. A `Clip` should have all its frames, not a few a second.
        source (the same, *optional*):
            The genuine clip it was made from.
        fake_audio, source_audio (*optional*):
            Separate sound files.
        face_box (`tuple[float, float, float, float]`, *optional*):
            (left, top, right, bottom) of the face as fractions of the frame, where clips are no face crops.

    Returns:
        [`Evidence`]

    Raises:
        [`~media.MediaError`]: one of the two cannot be read; its `name` tells which.
        `ValueError`: `face_box` is no box within the frame.
    """
    checked_box(face_box)
    with MediaReader(fake, fake_audio) as reader:
        result = Evidence(reader.name, None, round(reader.info.duration, 3))
        sound = _sound(reader)
        if source is None:
            _lip_sync_alone(result, reader, sound, face_box)
            return result
        with MediaReader(source, source_audio) as other:
            result.source = other.name
            pictures = None
            if reader.info.has_video and other.info.has_video:
                pictures = compare_pictures(reader, other, face_box)
                _add_picture(result, pictures)
            other_sound = _sound(other)
            if sound is not None and other_sound is not None:
                sounds = compare_sounds(sound, other_sound)
                result.warnings += sounds.warnings
                result.sound_lag = None if sounds.lag is None else round(sounds.lag, 3)
                result.sound_floor = round(sounds.floor, 2)
                result.sound_map = {k: [round(float(x), 1) for x in v] for k, v in sounds.differences.items()}
                result.sound = _findings(sounds.strengths, result.duration)
            for kind, mine, theirs in (
                ("picture", reader.info.has_video, other.info.has_video),
                ("sound", sound is not None, other_sound is not None),
            ):
                if mine != theirs:
                    result.warnings.append(f"only the {'fake' if mine else 'source'} has a {kind}")
            if pictures is not None and sound is not None and other_sound is not None:
                if result.sound_lag is not None and result.picture_map:
                    result.offset = round(result.sound_lag - pictures.lag, 3)
                result.lip_sync = _lip_sync(pictures.mouth, sound)
                result.source_lip_sync = _lip_sync(pictures.source_mouth, other_sound)
    return result


def _sound(reader: MediaReader) -> np.ndarray | None:
    if not reader.info.has_audio:
        return None
    clip = reader.read(0.0, min(reader.info.duration, MAX_SECONDS), with_video=False)
    return None if clip.audio is None else clip.audio.numpy()


def _add_picture(result: Evidence, pictures: PictureEvidence) -> None:
    result.warnings += pictures.warnings
    if not pictures.ratios:
        return
    result.picture_lag = round(pictures.lag, 3)
    result.picture_floor = round(pictures.floor, 2)
    result.picture_map = {k: [round(float(x), 2) for x in v] for k, v in pictures.ratios.items()}
    strengths = {where: ratio / pictures.floor for where, ratio in pictures.ratios.items()}
    result.picture = _findings(strengths, result.duration)


def _findings(strengths: dict[str, np.ndarray], duration: float) -> list[Finding]:
    findings = []
    for where, strength in strengths.items():
        segments = segments_of(strength, duration)
        if segments:
            findings.append(Finding(where, round(float(strength.max()), 2), segments))
    return sorted(findings, key=lambda finding: -finding.strength)


def segments_of(strength: np.ndarray, duration: float, step: float = STEP) -> list[list[float]]:
    """Runs of cells above 1, in seconds. A gap of one cell is closed; a run of one cell counts from [`STRONG`] on."""
    above = strength > 1
    if len(above) > 2:
        above[1:-1] |= above[:-2] & above[2:]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], above.astype(int), [0]])))
    segments = []
    for first, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - first > 1 or strength[first:stop].max() >= STRONG:
            segments.append([round(float(first * step), 2), round(float(min(stop * step, duration)), 2)])
    return segments


def joined_segments(segments: list[list[float]]) -> list[list[float]]:
    """Segments of several findings together, in order; gaps of one time cell are closed."""
    joined: list[list[float]] = []
    for start, end in sorted(segments):
        if joined and start - joined[-1][1] <= STEP + 1e-6:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return joined


def _lip_sync(movement: np.ndarray | None, sound: np.ndarray) -> float | None:
    """Correlation of the mouth's movement with the loudness of the sound, at the best shift within `LIP_LAG`."""
    if movement is None or len(movement) < 1.5 * RATE:
        return None
    loudness = envelope(sound)
    per_value = int(ENVELOPE_RATE / RATE)
    count = min(len(movement), len(loudness) // per_value)
    if count < 1.5 * RATE:
        return None
    loudness = loudness[: count * per_value].reshape(count, per_value).mean(1)
    return round(shift_of(loudness, movement[:count], RATE, LIP_LAG)[1], 3)


def _lip_sync_alone(
    result: Evidence, reader: MediaReader, sound: np.ndarray | None, face_box: Box | None
) -> None:
    if sound is not None and reader.info.has_video:
        result.lip_sync = _lip_sync(mouth_movement(reader, face_box), sound)

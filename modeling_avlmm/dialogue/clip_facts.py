"""The facts about a clip that answers are made from and judged against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..explain.evidence import Evidence
from ..explain.regions import SOUND_BANDS, STEP
from ..explain.segments import join_segments
from .families import family_of, generator_name, track_labels

MOST_SEGMENTS = 5
"""Measured segments that an answer may name, longest first; our own choice."""
WHOLE = 0.95
"""Share of a clip from which a segment counts as the whole clip; our own choice."""


@dataclass
class KnownClip:
    """
    A clip with the facts that its answers may use.

    Attributes:
        facts (`dict`):
            `label` (0 real, 1 fake), `modalities` (the manipulated ones of `picture` and `sound`), `family`,
            `generator` (of all forged tracks, joined by `+`; `real` for a genuine clip; None if unknown), `regions`
            (strongest difference first, the order in which texts name them), `bands`, `segments` ([start, end] in
            seconds), `offset` (seconds by which the sound is late; None without a shift) and `measured` (True if the
            clip was compared with its source).
        kind (`str`): `video`, or `audio` for a clip without a picture.
        picture, sound (`int`, *optional*): Labels of the tracks; None if unknown.
        whole (`bool`): True if the only segment is the whole clip.
        generators (`list[str]`): Names of the generators in their usual spelling.
    """

    facts: dict[str, Any]
    kind: str
    picture: int | None
    sound: int | None
    whole: bool = False
    generators: list[str] = field(default_factory=list)

    @property
    def fake(self) -> bool:
        return self.facts["label"] == 1

    @property
    def located(self) -> bool:
        """True if a region, band, time or offset of the manipulation is known."""
        facts = self.facts
        return bool(facts["regions"] or facts["bands"] or facts["segments"] or facts["offset"] is not None)


def known_clip(row: Mapping[str, Any], evidence: Evidence | None = None) -> KnownClip:
    """
    Return the facts about a row of any dataset of this package.

    Labels overrule measurements: nothing is said against a track labelled genuine. The region `outside` is no part of a
    face and is left out. A corpus' own `fake_segments` replace measured ones.

    Args:
        row (`Mapping`): With the columns of `dataset_scripts.schema`.
        evidence ([`Evidence`], *optional*): Measured differences from the clip's source.
    """
    picture, sound = track_labels(row)
    regions: list[str] = []
    bands: list[str] = []
    segments: list[list[float]] = []
    offset = None
    fake = row["label"] == 1
    if fake and evidence is not None:
        visible = [f for f in evidence.picture if f.where != "outside"] if picture != 0 else []
        audible = evidence.sound if sound != 0 else []
        regions, bands = ([finding.where for finding in track] for track in (visible, audible))
        # A measured difference labels a track that the corpus does not label.
        picture = 1 if regions else picture
        sound = 1 if bands else sound
        segments = _longest([segment for finding in (*visible, *audible) for segment in finding.segments])
        offset = round(evidence.offset, 2) if evidence.shifted and evidence.offset is not None else None
    if fake and row.get("fake_segments"):
        segments = [[round(float(start), 2), round(float(end), 2)] for start, end in row["fake_segments"]]
    names = [
        str(row[column])
        for column, label in (("generator", picture), ("audio_generator", sound))
        if label == 1 and row.get(column) not in (None, "", "real")
    ]
    facts = {
        "label": int(row["label"]),
        "modalities": [name for name, label in (("picture", picture), ("sound", sound)) if label == 1],
        "family": family_of({**row, "video_label": picture, "audio_label": sound}),
        "generator": "+".join(names) or None if fake else "real",
        "regions": regions,
        "bands": [name for name in SOUND_BANDS if name in bands],
        "segments": segments,
        "offset": offset,
        "measured": evidence is not None and evidence.measured,
    }
    duration = evidence.duration if evidence is not None else None
    whole = bool(duration and len(segments) == 1 and segments[0][1] - segments[0][0] >= WHOLE * duration)
    kind = "video" if row.get("video") is not None else "audio"
    return KnownClip(facts, kind, picture, sound, whole, [generator_name(name) for name in names])


def _longest(segments: list[list[float]]) -> list[list[float]]:
    """Join segments across gaps of one time cell, and return the longest ones in order of time."""
    joined = join_segments(segments, gap=STEP)
    return sorted(sorted(joined, key=lambda segment: segment[0] - segment[1])[:MOST_SEGMENTS])

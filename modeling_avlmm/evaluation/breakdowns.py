"""The groups of clips that a report has metrics of: kinds of fake, languages, lengths, faces, columns of the corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from .predictions import NUM_FACES, kind_of_fake

DURATIONS = (2, 5, 10, 30, 60)
"""Edges of the groups by length, in seconds."""
CATEGORIES = {
    (0, 0): "RealVideo-RealAudio",
    (0, 1): "RealVideo-FakeAudio",
    (1, 0): "FakeVideo-RealAudio",
    (1, 1): "FakeVideo-FakeAudio",
}
"""Names of the pairs of `video_label` and `audio_label`, as FakeAVCeleb has them."""


def class_mix(predictions: list[dict]) -> dict[str, int]:
    """Count the clips of each class, and of each pair of labels that are both known."""
    mix = Counter("fake" if p["label"] else "real" for p in predictions)
    pairs = Counter(CATEGORIES.get((p.get("video_label"), p.get("audio_label"))) for p in predictions)
    pairs.pop(None, None)
    return {**{name: mix[name] for name in ("real", "fake")}, **dict(sorted(pairs.items()))}


def breakdowns(
    predictions: list[dict], columns: Sequence[str]
) -> Iterator[tuple[str, dict[str, list[dict]]]]:
    """
    Yield the name of each breakdown and its groups; a breakdown into a single group is left out.

    Args:
        predictions (`list[dict]`): Predictions with a score.
        columns (`Sequence[str]`): Columns of the corpus to break down by, besides kinds of fake, language,
            length and number of faces.
    """
    real = [p for p in predictions if p["label"] == 0]
    for name, kind_of in (("category", _category), ("generator", kind_of_fake)):
        kinds: dict[str, list[dict]] = {}
        for p in predictions:
            if p["label"] == 1:
                kinds.setdefault(kind_of(p), []).append(p)
        if name == "generator" or set(kinds) - {"unknown"}:
            yield name, {kind: real + fakes for kind, fakes in kinds.items()}
    for name, group_of in (
        *((column, lambda p, column=column: p.get(column)) for column in ("language", *columns)),
        ("duration", _duration),
        ("faces", _faces),
    ):
        groups: dict[str, list[dict]] = {}
        for p in predictions:
            group = group_of(p)
            groups.setdefault("unknown" if group is None else str(group), []).append(p)
        if len(groups) > 1:
            yield name, groups


def _category(p: dict) -> str:
    return CATEGORIES.get((p.get("video_label"), p.get("audio_label")), "unknown")


def _faces(p: dict) -> str | None:
    """Return the number of faces found in a clip; None for a detector that looks at whole frames."""
    number = p.get(NUM_FACES)
    return None if number is None else ("no face", "1 face", "2 faces or more")[min(number, 2)]


def _duration(p: dict) -> str | None:
    if p["duration"] is None:
        return None
    low = max(edge for edge in (0, *DURATIONS) if p["duration"] >= edge)
    high = next((edge for edge in DURATIONS if edge > low), None)
    return f"{low:02d} s and more" if high is None else f"{low:02d} to {high:02d} s"

"""Measured verdicts as text, told to a model before the first question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..configuration_detector import LABELS, PARTS, SCORE_NAMES
from ..explain.segments import join_segments
from ..explain.words import PART_NOUNS, PART_THRESHOLD, independent_parts, label_of, threshold_of


def part_scores(result: Mapping) -> dict[str, float | None]:
    """Return P(fake) of `overall`, `video` and `audio` from a result of the pipeline."""
    return {part: result[name] for part, name in SCORE_NAMES.items()}


def fake_segments(result: dict) -> list[list[float]]:
    """Return the times of windows called fake, joined where they touch; empty for a clip of one window."""
    windows = [window for window in result["windows"] if window["score"] is not None]
    if len(windows) < 2:
        return []
    fake = [w for w in windows if label_of(w["score"], result) == "fake"]
    joined = join_segments((window["start"], window["end"]) for window in fake)
    return [[round(start, 2), round(end, 2)] for start, end in joined]


def measured_context(
    scores: Mapping[str, float | None],
    threshold: float = PART_THRESHOLD,
    segments: Sequence[Sequence[float]] = (),
    independent: bool = False,
) -> str:
    """
    Return the detector's verdicts as text.

    ```python
    >>> measured_context({"overall": 0.97, "video": 0.99, "audio": 0.03}, segments=[[0.5, 1.5]])
    ' Measured: clip fake 0.97, picture fake 0.99, sound real 0.03; fake from 0.5 to 1.5 s.'
    ```

    Args:
        scores (`dict[str, float]`): P(fake) of `overall`, `video` and `audio`; None or missing if there is none.
        threshold (`float`, *optional*, defaults to 0.5): Score from which the clip is called fake.
        segments (`list[[start, end]]`, *optional*): Times that scored as fake, in seconds, if only a part did.
        independent (`bool`, *optional*, defaults to `False`): The threshold is that of picture and sound, too.
    """
    said = []
    for part in PARTS:
        score = scores.get(part)
        if score is not None:
            label = LABELS[int(score >= threshold_of(part, threshold, independent))]
            said.append(f"{PART_NOUNS[part]} {label} {score:.2f}")
    times = ", ".join(f"from {start:.1f} to {end:.1f} s" for start, end in segments)
    return f" Measured: {', '.join(said)}{f'; fake {times}' if times else ''}."


def context_of(result: dict) -> str:
    """Return the [`measured_context`] of a result of the pipeline."""
    apart = independent_parts(result)
    return measured_context(part_scores(result), result["threshold"], fake_segments(result), apart)


def simulated_context(row: Mapping, facts: Mapping, rng: np.random.Generator) -> str:
    """
    Return the context that a detector which is right would give for a training row: our own choice.

    Scores are drawn from 0.6 to 0.99 for fake and from 0.01 to 0.4 for real. In training the context always agrees with
    the answer. A share of the rows has no context; there the answer has to come from the clip.
    """
    scores = {}
    for part, label in zip(PARTS, (row["label"], row["video_label"], row["audio_label"]), strict=True):
        if label is not None:
            distance = rng.uniform(0.01, 0.4)
            scores[part] = 1 - distance if label else distance
    return measured_context(scores, segments=facts.get("segments") or ())

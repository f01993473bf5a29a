"""Fake segments with scores, from the scores of windows.

The rule, in four steps; the numbers are our own choice:

1. The score of a moment is the mean score of the windows that cover it.
2. At a level, a segment is a run of moments whose scores all reach it. Time that no scored window covers ends a run.
3. A segment's confidence is the square root of the variance between inside and outside: the difference of their mean scores
   times the geometric mean of their shares of the time ([Otsu](https://doi.org/10.1109/TSMC.1979.4310076) chooses thresholds
   by it). A segment that is the whole file has half its lowest score.
4. Proposals are the segments at 19 levels (the watershed grouping of
   [temporal action detection](https://arxiv.org/abs/1704.06228)) without those that overlap a more confident one by an IoU above
   0.5. What a detector *found* are the segments at its threshold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

LEVELS = tuple(level / 20 for level in range(1, 20))
"""0.05, 0.1, ..., 0.95."""
MOST_OVERLAP = 0.5
"""Largest IoU of two proposals."""
_DIGITS = 6  # borders of windows that differ by rounding alone are one


class ScoredTime:
    """
    The score of every moment of a file: the mean score of the windows that cover it.

    Args:
        windows (`Iterable[dict]`):
            Windows with `start` and `end` in seconds and `score`, which may overlap or leave gaps. Those whose score is
            None are left out.
    """

    def __init__(self, windows: Iterable[dict]) -> None:
        scored = [
            (round(w["start"], _DIGITS), round(w["end"], _DIGITS), w["score"])
            for w in windows
            if w["score"] is not None and w["end"] > w["start"]
        ]
        self.borders = np.unique([moment for start, end, _ in scored for moment in (start, end)])
        covering: list[list[float]] = [[] for _ in self.borders[1:]]
        for start, end, score in scored:
            first, last = np.searchsorted(self.borders, (start, end))
            for place in range(first, last):
                covering[place].append(score)
        self.scores = [sum(scores) / len(scores) if scores else None for scores in covering]
        """One between each two neighbouring borders; None where no window is."""
        lengths = np.diff(self.borders)
        known = np.array([score is not None for score in self.scores], dtype=bool)
        values = np.array([score or 0.0 for score in self.scores])
        self._time = np.concatenate([[0.0], np.cumsum(lengths * known)])
        self._sum = np.concatenate([[0.0], np.cumsum(lengths * values)])

    def segments(self, level: float) -> list[list[float]]:
        """Return the runs of moments whose scores reach `level`, in order of time: `[confidence, start, end]`."""
        found: list[list[float]] = []
        start: int | None = None
        for place, score in enumerate([*self.scores, None]):
            if score is not None and score >= level:
                start = place if start is None else start
            elif start is not None:
                span = float(self.borders[start]), float(self.borders[place])
                found.append([self.separation(*span), *span])
                start = None
        return found

    def separation(self, start: float, end: float) -> float:
        """Return the confidence of a segment, at most 0.5."""
        time, total = self._between(start, end)
        outside = self._time[-1] - time
        if outside <= 10**-_DIGITS:
            return 0.5 * min(score for score in self.scores if score is not None)
        difference = total / time - (self._sum[-1] - total) / outside
        return float(difference * np.sqrt(time * outside) / self._time[-1])

    def _between(self, start: float, end: float) -> tuple[float, float]:
        """Return the scored seconds in a part of the file, and the integral of the score over them."""
        at = (start, end)
        return tuple(
            float(np.diff(np.interp(at, self.borders, track))[0]) for track in (self._time, self._sum)
        )


def segment_proposals(windows: Sequence[dict], levels: Sequence[float] = LEVELS) -> list[list[float]]:
    """
    Propose fake segments: those at many levels, for metrics that rank them by confidence.

    A segment cannot be shorter than the step between windows, and one that is shorter than a window is blurred.

    Args:
        windows (`Sequence[dict]`): Windows with `start` and `end` in seconds and `score`.
        levels (`Sequence[float]`, *optional*, defaults to 0.05, 0.1, ..., 0.95): The levels.

    Returns:
        `list[list[float]]`: `[confidence, start, end]`, the most confident first.

    Example:

    ```python
    >>> windows = [{"start": 0, "end": 1, "score": 0.1}, {"start": 1, "end": 2, "score": 0.9}]
    >>> [[round(value, 6) for value in proposal] for proposal in segment_proposals(windows)]
    [[0.4, 1.0, 2.0], [0.05, 0.0, 2.0]]
    ```
    """
    track = ScoredTime(windows)
    found = {(start, end): confidence for level in levels for confidence, start, end in track.segments(level)}
    kept: list[list[float]] = []
    for (start, end), confidence in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        if all(_iou(start, end, *span) <= MOST_OVERLAP for _, *span in kept):
            kept.append([confidence, start, end])
    return kept


def _iou(start: float, end: float, other_start: float, other_end: float) -> float:
    shared = max(0.0, min(end, other_end) - max(start, other_start))
    return shared / (end - start + other_end - other_start - shared)

"""What answers are worth: exact counts of what they name against what is known. Larger is better everywhere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

UNPARSABLE = "unparsable"


def rouge_l(answer: str, reference: str) -> float:
    """
    ROUGE-L: F1 of the longest common subsequence of words (Lin 2004), lower case, letters and digits only, no stemming.

    The same number as `rouge_score`'s `rougeL`, which `evaluate.load("rouge")` fetches from the Hub and wraps.
    """
    first, second = (re.findall(r"[a-z0-9]+", text.lower()) for text in (answer, reference))
    if not first or not second:
        return 0.0
    row = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for place, other in enumerate(second, start=1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    common = row[-1]
    return 2 * common / (len(first) + len(second))


def set_overlap(found: set, true: set) -> tuple[float, float]:
    """Intersection over union, and F1, of two sets; 1 where both are empty."""
    if not found and not true:
        return 1.0, 1.0
    common = len(found & true)
    return common / len(found | true), 2 * common / (len(found) + len(true))


def time_overlap(found: Sequence[Sequence[float]], true: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Intersection over union, and F1, of two unions of segments in seconds; 1 where both are empty."""
    found, true = _joined(found), _joined(true)
    lengths = [sum(end - start for start, end in spans) for spans in (found, true)]
    common = sum(max(0.0, min(end, stop) - max(start, begin)) for start, end in found for begin, stop in true)
    total = sum(lengths)
    if total == 0:
        return 1.0, 1.0
    return common / (total - common), 2 * common / total


def _joined(spans: Sequence[Sequence[float]]) -> list[list[float]]:
    joined: list[list[float]] = []
    for start, end in sorted(tuple(span) for span in spans):
        if end <= start:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return joined


def macro_f1(
    true: Sequence[str], found: Sequence[str | None], weights: np.ndarray | None = None
) -> float | None:
    """
    Mean F1 over the classes that occur in `true`. An answer that is None, or names another class, is a miss of its true
    class. None where no clip has a weight.
    """
    weights = np.ones(len(true)) if weights is None else weights
    scores = []
    truth, answers = np.array(true, dtype=object), np.array(found, dtype=object)
    for name in sorted(set(true)):
        hits = weights[(truth == name) & (answers == name)].sum()
        total = weights[truth == name].sum() + weights[answers == name].sum()
        if weights[truth == name].sum() > 0:
            scores.append(2 * hits / total)
    return float(np.mean(scores)) if scores else None


def confusion(true: Sequence[str], found: Sequence[str | None]) -> dict[str, dict[str, int]]:
    """Counts by true class, then by answer; `unparsable` where an answer names none."""
    table: dict[str, dict[str, int]] = {name: {} for name in sorted(set(true))}
    for name, answer in zip(true, found, strict=True):
        answer = UNPARSABLE if answer is None else answer
        table[name][answer] = table[name].get(answer, 0) + 1
    return table


def pointing_chance(true: Sequence[set], names: Sequence[str]) -> float:
    """Share of hits of pointing at a region at random."""
    return float(np.mean([len(regions) / len(names) for regions in true]))


def most_frequent(values: Sequence) -> object:
    """The commonest value; of equals the first by the alphabet."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], str(value)))

"""What answers are worth: exact counts of what they name against what is known. Larger is better everywhere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

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


def kappas(
    found: Sequence[set], true: Sequence[set], names: Sequence[str], weights: np.ndarray | None = None
) -> dict[str, float]:
    """
    Cohen's kappa (1960) of each place: agreement of "named" and "changed" beyond what their shares alone would give.

    1 is full agreement. An answer that does not depend on the clip has 0, whichever places it names, and so has chance.

    Args:
        found, true (`Sequence[set]`): Places named and places changed, clip by clip.
        names (`Sequence[str]`): Places that there are.
        weights (`np.ndarray`, *optional*): Of the clips.

    Returns:
        `dict[str, float]`: of the places that were changed in some clips and not in others; of the rest no answer can
        show that it knows them.
    """
    return {
        name: 0.0 if chance == 1 else (agreed - chance) / (1 - chance)
        for name, agreed, chance, _, _ in _tables(found, true, names, weights)
    }


def mean_kappa(
    found: Sequence[set], true: Sequence[set], names: Sequence[str], weights: np.ndarray | None = None
) -> float | None:
    """Mean of [`kappas`]; None where no place was changed in some clips only."""
    values = list(kappas(found, true, names, weights).values())
    return float(np.mean(values)) if values else None


def mean_balanced_accuracy(
    found: Sequence[set], true: Sequence[set], names: Sequence[str], weights: np.ndarray | None = None
) -> float | None:
    """
    Mean over places of the balanced accuracy of naming it: half the share of clips with the place changed in which it is
    named, plus half the share of the others in which it is not. 0.5 for an answer that does not depend on the clip.

    Places as for [`kappas`]; None where there are none.
    """
    values = [0.5 * (hit + left) for *_, hit, left in _tables(found, true, names, weights)]
    return float(np.mean(values)) if values else None


def _tables(found, true, names, weights) -> Iterator[tuple[str, float, float, float, float]]:
    """Of each place: agreement, agreement by chance, and shares named where changed and not named where not."""
    weights = np.ones(len(true)) if weights is None else np.asarray(weights, dtype=float)
    if weights.sum() == 0:
        return
    weights = weights / weights.sum()
    for name in names:
        changed = np.array([name in places for places in true])
        named = np.array([name in places for places in found])
        truth, said = weights[changed].sum(), weights[named].sum()
        if not 1e-9 < truth < 1 - 1e-9:
            continue
        both, neither = weights[changed & named].sum(), weights[~changed & ~named].sum()
        chance = truth * said + (1 - truth) * (1 - said)
        yield name, both + neither, chance, both / truth, neither / (1 - truth)


def calibrated_pointing(
    pointed: Sequence[str | None], true: Sequence[set], weights: np.ndarray | None = None
) -> float | None:
    """
    Pointing game beyond chance: `(hits - expected) / (1 - expected)`, where `expected` is the share of hits of the same
    pointings dealt out to clips at random. Our own choice, after Cohen's kappa.

    1 where every pointing hits. Always pointing at the commonest place has 0 however common it is, and so has any
    pointing that does not depend on the clip. An answer that points nowhere (None) is a miss.

    Args:
        pointed (`Sequence[str]`): Place that each answer points at.
        true (`Sequence[set]`): Places changed, clip by clip.
        weights (`np.ndarray`, *optional*): Of the clips.

    Returns:
        `float`, or None where the same places were changed in all clips that have a weight: nothing can be shown there.
    """
    weights = np.ones(len(true)) if weights is None else np.asarray(weights, dtype=float)
    if len({frozenset(places) for places, weight in zip(true, weights, strict=True) if weight > 0}) < 2:
        return None
    weights = weights / weights.sum()
    hits = sum(w for w, name, places in zip(weights, pointed, true, strict=True) if name in places)
    expected = 0.0
    for place in set(pointed) - {None}:
        share = sum(w for w, name in zip(weights, pointed, strict=True) if name == place)
        expected += share * sum(w for w, places in zip(weights, true, strict=True) if place in places)
    if abs(hits - expected) < 1e-9:  # also where every pointing would hit in every clip
        return 0.0
    return float((hits - expected) / (1 - expected))


def most_frequent(values: Sequence) -> object:
    """The commonest value; of equals the first by the alphabet."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], str(value)))

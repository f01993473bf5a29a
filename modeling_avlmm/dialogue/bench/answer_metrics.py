"""Metrics of answers: exact counts of what they name against what is known. Larger is always better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

from ...explain.segments import join_segments

UNPARSABLE = "unparsable"
"""Name, in a confusion table, of answers that cannot be read."""

_ROUGE = RougeScorer(["rougeL"], use_stemmer=False)


def rouge_l(answer: str, reference: str) -> float:
    """Return ROUGE-L (Lin 2004): the F1 of the longest common subsequence of words, in lower case, without stemming."""
    return float(_ROUGE.score(reference, answer)["rougeL"].fmeasure)


def set_overlap(found: set, true: set) -> tuple[float, float]:
    """Return the intersection over union and the F1 of two sets; both are 1 if both sets are empty."""
    if not found and not true:
        return 1.0, 1.0
    common = len(found & true)
    return common / len(found | true), 2 * common / (len(found) + len(true))


def time_overlap(found: Sequence[Sequence[float]], true: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the intersection over union and the F1 of two lists of segments in seconds; both are 1 if both are empty."""
    found, true = join_segments(found), join_segments(true)
    lengths = [sum(end - start for start, end in spans) for spans in (found, true)]
    common = sum(max(0.0, min(end, stop) - max(start, begin)) for start, end in found for begin, stop in true)
    total = sum(lengths)
    if total == 0:
        return 1.0, 1.0
    return common / (total - common), 2 * common / total


def macro_f1(
    true: Sequence[str], found: Sequence[str | None], weights: np.ndarray | None = None
) -> float | None:
    """
    Return the mean F1 over the classes that occur in `true`; None if no clip has a weight.

    An answer that is None, or names another class, is a miss of its true class.
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
    """Return counts by true class, then by answer; an answer that is None counts as `unparsable`."""
    table: dict[str, dict[str, int]] = {name: {} for name in sorted(set(true))}
    for name, answer in zip(true, found, strict=True):
        answer = UNPARSABLE if answer is None else answer
        table[name][answer] = table[name].get(answer, 0) + 1
    return table


def pointing_chance(true: Sequence[set], names: Sequence[str]) -> float:
    """Return the expected share of hits when pointing at a random region."""
    return float(np.mean([len(regions) / len(names) for regions in true]))


def kappas(
    found: Sequence[set], true: Sequence[set], names: Sequence[str], weights: np.ndarray | None = None
) -> dict[str, float]:
    """
    Return Cohen's kappa (1960) of each place: the agreement of "named" and "changed" beyond chance.

    1 is full agreement. An answer that does not depend on the clip has a kappa of 0, whichever places it names, and so
    does chance.

    Args:
        found, true (`Sequence[set]`): Places named and places changed, for each clip.
        names (`Sequence[str]`): All places.
        weights (`np.ndarray`, *optional*): Weights of the clips.

    Returns:
        `dict[str, float]`: only the places that were changed in some clips and not in others, since no answer can show
        that it knows the rest.
    """
    return {
        name: 0.0 if chance == 1 else (agreed - chance) / (1 - chance)
        for name, agreed, chance, _, _ in _tables(found, true, names, weights)
    }


def mean_kappa(
    found: Sequence[set], true: Sequence[set], names: Sequence[str], weights: np.ndarray | None = None
) -> float | None:
    """Return the mean of [`kappas`]; None if it has no place."""
    values = list(kappas(found, true, names, weights).values())
    return float(np.mean(values)) if values else None


def mean_balanced_accuracy(
    found: Sequence[set], true: Sequence[set], names: Sequence[str], weights: np.ndarray | None = None
) -> float | None:
    """
    Return the mean over places of the balanced accuracy of naming a place.

    For one place this is half the share of clips with the place changed in which it is named, plus half the share of
    the other clips in which it is not. An answer that does not depend on the clip has 0.5. Places are those of
    [`kappas`]; None if there are none.
    """
    values = [0.5 * (hit + left) for *_, hit, left in _tables(found, true, names, weights)]
    return float(np.mean(values)) if values else None


def _tables(
    found: Sequence[set], true: Sequence[set], names: Sequence[str], weights: np.ndarray | None
) -> Iterator[tuple[str, float, float, float, float]]:
    """Yield, for each place: agreement, agreement by chance, share named if changed, and share not named if not."""
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
    Return the pointing game beyond chance, `(hits - expected) / (1 - expected)`: our own choice, after Cohen's kappa.

    `expected` is the share of hits if the same pointings were dealt out to the clips at random. 1 means that every
    pointing hits. Any pointing that does not depend on the clip has 0, even if it always names the commonest place. An
    answer that points nowhere (None) is a miss.

    Args:
        pointed (`Sequence[str]`): The place that each answer points at.
        true (`Sequence[set]`): Places changed, for each clip.
        weights (`np.ndarray`, *optional*): Weights of the clips.

    Returns:
        `float`, or None if the same places were changed in all clips that have a weight, where nothing can be shown.
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
    if abs(hits - expected) < 1e-9:  # includes the case that every pointing would hit in every clip
        return 0.0
    return float((hits - expected) / (1 - expected))


def most_frequent(values: Sequence) -> object:
    """Return the commonest value; ties go to the first in alphabetical order."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], str(value)))

"""AUC of weighted clips, over all pairs or only within groups, with intervals by cluster.

An AUC over clips from many places rewards a score that knows the place. Within groups, say of one identity, the place is
the same for both classes: only pairs of a fake and a genuine clip of one group are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from .metrics import cluster_bootstrap

FEWEST_CLUSTERS = 5
"""Clusters below which a figure has no interval: resampling fewer says little, and [1, 1] of two; our own choice."""

Labels = Sequence[int] | np.ndarray
Scores = Sequence[float] | np.ndarray
Groups = Sequence[Hashable | None]


class RankedScores:
    """
    Clips sorted by score; called with weights, it returns the AUC of the weighted clips.

    Args:
        labels (array of shape `(n,)`): 0 real, 1 fake.
        scores (array of shape `(n,)`): Finite numbers; higher means fake.

    Example:

    ```python
    >>> RankedScores([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9])(np.ones(4))
    0.75
    ```
    """

    def __init__(self, labels: Labels, scores: Scores):
        labels, scores = np.asarray(labels), np.asarray(scores, dtype=float)
        self.order = np.argsort(scores, kind="stable")
        ranked = scores[self.order]
        self.fake = (labels[self.order] == 1).astype(float)
        # Equal scores are one step.
        self.starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))

    def __call__(self, weights: np.ndarray) -> float | None:
        """Return P(score of a fake > score of a genuine clip), ties half; None if a class has no weight."""
        weights = weights[self.order]
        fakes = np.add.reduceat(weights * self.fake, self.starts)
        reals = np.add.reduceat(weights * (1 - self.fake), self.starts)
        pairs = fakes.sum() * reals.sum()
        if not pairs:
            return None
        return float(fakes @ (np.cumsum(reals) - reals / 2) / pairs)


def auc_of(labels: Labels, scores: Scores) -> float | None:
    """Return the AUC, ties half right; None for a single class."""
    return RankedScores(labels, scores)(np.ones(len(labels))) if len(labels) else None


def overall_auc(labels: Labels, scores: Scores, clusters: Groups, n_resamples: int = 1000) -> dict:
    """
    Return the AUC over all pairs of a fake and a genuine clip, with its interval.

    Args:
        labels (array of shape `(n,)`): 0 real, 1 fake.
        scores (array of shape `(n,)`): Finite numbers; higher means fake.
        clusters (sequence of length `n`): Clips of one cluster, say one identity, are resampled together; None: alone.
        n_resamples (`int`, *optional*, defaults to 1000): Resamples of the bootstrap; 0 for no interval.

    Returns:
        `dict`: `auc` (None for a single class), `ci` (95 %; None for fewer than five clusters of a class), `n_real`,
        `n_fake`, `clusters`.
    """
    labels = np.asarray(labels)
    ranked = RankedScores(labels, scores) if len(labels) else None
    found = {"auc": ranked(np.ones(len(labels))) if ranked else None, **_sizes(labels)}
    if found["auc"] is None:
        return {**found, "ci": None, "clusters": _number(clusters)}
    return found | _interval(ranked, clusters, n_resamples, labels)


def within_groups_auc(
    labels: Labels,
    scores: Scores,
    groups: Groups,
    clusters: Groups | None = None,
    n_resamples: int = 1000,
) -> dict:
    """
    Return the mean of the AUCs of single groups, over the groups that have both classes.

    A clip whose group is None is in no group.

    Args:
        labels, scores: See [`overall_auc`].
        groups (sequence of length `n`): The group of each clip, say its identity.
        clusters (sequence of length `n`, *optional*):
            What the bootstrap draws. Every group must lie inside one cluster; the groups themselves by default.
        n_resamples (`int`, *optional*, defaults to 1000): Resamples of the bootstrap; 0 for no interval.

    Returns:
        `dict`: as [`overall_auc`], of the clips in those groups, and `groups`: AUC by group.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=float)
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        if group is not None:
            members.setdefault(group, []).append(index)
    paired = {group: where for group, where in members.items() if len(set(labels[where].tolist())) == 2}
    aucs = {group: auc_of(labels[where], scores[where]) for group, where in paired.items()}
    inside = [index for where in paired.values() for index in where]
    drawn = [group if clusters is None else clusters[where[0]] for group, where in paired.items()]
    found = {"auc": float(np.mean(list(aucs.values()))) if aucs else None, **_sizes(labels[inside])}
    if not aucs:
        return {**found, "ci": None, "clusters": 0, "groups": {}}
    values = np.array(list(aucs.values()))
    mean = lambda weights: float(weights @ values / weights.sum()) if weights.sum() else None  # noqa: E731
    return {**found, **_interval(mean, drawn, n_resamples), "groups": aucs}


def mean_over_kinds_auc(
    labels: Labels, scores: Scores, kinds: Groups, clusters: Groups, n_resamples: int = 1000
) -> dict:
    """
    Return the mean over kinds of fake of the AUC of that kind against all genuine clips.

    Each kind counts the same, however many fakes it has. A fake whose kind is None is in no kind.

    Args:
        labels, scores, clusters, n_resamples: See [`overall_auc`].
        kinds (sequence of length `n`): The kind of each fake, say its generator; those of genuine clips are not read.

    Returns:
        `dict`: as [`overall_auc`], and `kinds`: AUC by kind.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=float)
    real = np.flatnonzero(labels == 0)
    members: dict[Hashable, list[int]] = {}
    for index in np.flatnonzero(labels == 1):
        if kinds[index] is not None:
            members.setdefault(kinds[index], []).append(int(index))
    parts = {kind: np.concatenate([real, where]) for kind, where in members.items()}
    ranked = {kind: RankedScores(labels[where], scores[where]) for kind, where in parts.items()}

    def aucs(weights: np.ndarray) -> dict[Hashable, float]:
        found = {kind: ranked[kind](weights[where]) for kind, where in parts.items()}
        return {kind: auc for kind, auc in found.items() if auc is not None}

    def mean(weights: np.ndarray) -> float | None:
        values = list(aucs(weights).values())
        return float(np.mean(values)) if values else None

    every = np.ones(len(labels))
    found = {"auc": mean(every), **_sizes(labels), "kinds": aucs(every)}
    if found["auc"] is None:
        return {**found, "ci": None, "clusters": _number(clusters)}
    return found | _interval(mean, clusters, n_resamples, labels)


def share_of(
    holds: Sequence[bool] | np.ndarray, clusters: Groups, n_resamples: int = 1000
) -> dict[str, float | list[float] | None]:
    """
    Return the `share` of clips for which something holds (None without clips), its `ci` by cluster, and `n`.

    A share of nothing or of all has no interval: every resample gives the same, which says nothing about other clips.
    """
    holds = np.asarray(holds, dtype=float)
    if not len(holds):
        return {"share": None, "ci": None, "n": 0}
    share = lambda weights: float(weights @ holds / weights.sum()) if weights.sum() else None  # noqa: E731
    interval = _interval(share, clusters, n_resamples)
    share_of_all = float(holds.mean())
    return {"share": share_of_all, "ci": interval["ci"] if 0 < share_of_all < 1 else None, "n": len(holds)}


def _interval(
    statistic: Callable[[np.ndarray], float | None],
    clusters: Groups,
    n_resamples: int,
    labels: np.ndarray | None = None,
) -> dict:
    """Return `ci` and `clusters` of a statistic of weights; with `labels`, each class needs enough clusters."""
    found = {"ci": None, "clusters": _number(clusters)}
    classes = np.zeros(len(clusters)) if labels is None else labels
    sides = [
        [c for c, of in zip(clusters, classes, strict=True) if of == label] for label in set(classes.tolist())
    ]
    if not n_resamples or min(_number(side) for side in sides) < FEWEST_CLUSTERS:
        return found

    def named(weights: np.ndarray) -> dict[str, float] | None:
        value = statistic(weights)
        return None if value is None else {"value": value}

    interval = cluster_bootstrap(named, len(clusters), clusters, n_resamples)["ci"]
    return found | {"ci": interval and interval["value"]}


def _sizes(labels: np.ndarray) -> dict[str, int]:
    n_fake = int((labels == 1).sum())
    return {"n_real": len(labels) - n_fake, "n_fake": n_fake}


def _number(clusters: Groups) -> int:
    known = {cluster for cluster in clusters if cluster is not None}
    return len(known) + sum(cluster is None for cluster in clusters)

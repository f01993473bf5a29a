"""Percentile bootstrap over clusters of clips: intervals for anything that can be computed from weighted clips."""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np


def cluster_bootstrap(
    statistic: Callable[[np.ndarray], dict[str, float] | None],
    n: int,
    groups: Sequence[Hashable | None] | None = None,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict:
    """
    Return percentile intervals from resampling whole clusters with replacement.

    Clips of one person, or of one source video, stand or fall together: intervals that treat them as independent are
    too narrow. A resample draws as many clusters as there are. A clip's weight is the number of times that its cluster
    was drawn; nothing is copied, so a statistic can sort once and be evaluated a thousand times.

    Args:
        statistic (`Callable`):
            Takes weights (array of shape `(n,)`, whole numbers from 0) and returns values by name, or None if the
            resample has no value because it lacks a class; such a resample is skipped and counted.
        n (`int`): Number of clips.
        groups (sequence of length `n`, *optional*):
            The cluster of each clip, say its identity. A clip with None or NaN is a cluster of its own, as is every
            clip if `groups` is left out.
        n_resamples (`int`, *optional*, defaults to 1000): Number of resamples, at least 1.
        confidence (`float`, *optional*, defaults to 0.95): Share of the resamples inside an interval, in (0, 1).
        seed (`int`, *optional*, defaults to 0): Seed of the draws.

    Returns:
        `dict`:

        - **ci** -- `[low, high]` by name; None if no interval can be given.
        - **ci_confidence**, **ci_resamples**, **ci_clusters** -- Confidence, and numbers of resamples and clusters.
        - **ci_skipped** -- Number of resamples without a value.
        - **ci_undefined** -- The reason if `ci` is None.

    Raises:
        ValueError: for a wrong number of groups, or options out of range.
    """
    if n_resamples != int(n_resamples) or n_resamples < 1:
        raise ValueError(f"n_resamples must be a whole number of at least 1; got {n_resamples!r}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, say 0.95; got {confidence!r}.")
    cluster = cluster_indices(groups, n)
    n_clusters = int(cluster.max()) + 1
    result = {
        "ci": None,
        "ci_confidence": float(confidence),
        "ci_resamples": int(n_resamples),
        "ci_clusters": n_clusters,
        "ci_skipped": 0,
    }
    if n_clusters < 2:
        return {**result, "ci_undefined": "there is 1 cluster; resampling needs at least 2"}
    values = [statistic(weights) for weights in resampled_weights(cluster, int(n_resamples), seed)]
    values = [value for value in values if value is not None]
    result["ci_skipped"] = int(n_resamples) - len(values)
    if not values:
        return {**result, "ci_undefined": f"none of the {n_resamples} resamples has a value"}
    tail = (1 - confidence) / 2
    limits = np.quantile([list(value.values()) for value in values], [tail, 1 - tail], axis=0)
    result["ci"] = {name: [float(x) for x in limits[:, i]] for i, name in enumerate(values[0])}
    return result


def resampled_weights(cluster: np.ndarray, n_resamples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """
    Yield the weights of clips in each resample: the number of times that a clip's cluster was drawn.

    Args:
        cluster (array of shape `(n,)`): Number of each clip's cluster, from 0.
        n_resamples (`int`): Number of resamples.
        seed (`int`, *optional*, defaults to 0): Seed of the draws.

    Yields:
        array of shape `(n,)`: whole numbers from 0, as floats.
    """
    n_clusters = int(cluster.max()) + 1
    draw = np.random.default_rng(seed)
    for _ in range(n_resamples):
        times = np.bincount(draw.integers(0, n_clusters, n_clusters), minlength=n_clusters)
        yield times[cluster].astype(float)


def cluster_indices(groups: Sequence[Hashable | None] | None, n: int) -> np.ndarray:
    """Return the cluster of each of `n` clips as a number from 0, in order of appearance."""
    if groups is None:
        return np.arange(n)
    if isinstance(groups, str) or len(groups) != n:
        raise ValueError(f"Need one group for each of the {n} clips; got {len(groups)}.")
    numbers: dict[Hashable, int] = {}
    indices = np.empty(n, dtype=np.int64)
    for i, group in enumerate(groups):
        alone = group is None or (isinstance(group, float) and math.isnan(group))
        # A key that no caller's group can equal.
        indices[i] = numbers.setdefault((cluster_indices, i) if alone else group, len(numbers))
    return indices

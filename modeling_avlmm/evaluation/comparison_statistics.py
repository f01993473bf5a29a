"""Paired statistics of detectors on the same clips: differences with intervals by cluster, and DeLong's test."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import combinations

import numpy as np
from scipy.stats import norm, rankdata

from .metrics import DetectionStatistic, SureScores, cluster_bootstrap, cluster_indices
from .ranking import FEWEST_CLUSTERS

METRICS = {"auc": "AUC", "ap_fake": "AP(fake)", "balanced_accuracy": "bal. acc."}
"""Metrics that are compared: keys of [`detection_metrics`], and their titles."""

Runs = Sequence[Sequence[float] | SureScores]


def paired_figures(
    labels: Sequence[int],
    scores: Sequence[Runs],
    thresholds: Sequence[Sequence[float]],
    clusters: Sequence[Hashable | None] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """
    Compare detectors on clips that all of them have scored.

    An entry is a detector, or several runs of it with other seeds: its value is the mean over its runs. A resample of
    the bootstrap draws clusters of clips, the same for every entry, so an interval is of these runs on other clips; it
    says nothing about other seeds, for which the spread stands.

    Args:
        labels (array of shape `(n,)`): 0 real, 1 fake.
        scores (sequence, for each entry, for each of its runs, of shape `(n,)`):
            P(fake), in [0, 1], or that with log-odds ([`SureScores`]).
        thresholds (sequence, for each entry, for each of its runs): Scores from which a clip is called fake.
        clusters (sequence of length `n`, *optional*):
            Clips of one cluster, say one identity, are resampled together; None: alone.
        n_resamples (`int`, *optional*, defaults to 1000): Resamples of the bootstrap; 0 for no intervals.
        seed (`int`, *optional*, defaults to 0): Seed of the resampling.

    Returns:
        `dict`:

        - **n_real**, **n_fake**, **clusters** -- Numbers of clips and clusters.
        - **entries** -- For each entry by metric: `value` (mean of its runs), `runs`, `std` (of the runs, with n - 1;
          None for one run) and `ci` (95 %).
        - **differences** -- For each pair of entries `first` and `second` (their places), and by metric `value` (first
          minus second) and `ci`; for `auc` also `delong`, see [`delong_test`].
        - **winner** -- By metric, the place of the entry whose difference to every other excludes 0 in its favour, or
          None.
        - **undefined** -- For a single class, the reason why there are no values.
        - **no_interval** -- The reason, if there are no intervals.
    """
    labels = np.asarray(labels)
    cluster = cluster_indices(clusters, len(labels))
    n_fake = int((labels == 1).sum())
    found = {"n_real": len(labels) - n_fake, "n_fake": n_fake, "clusters": len(set(cluster.tolist()))}
    if not 0 < n_fake < len(labels):
        reason = f"all {len(labels)} clips are {'fake' if n_fake else 'real'}"
        return {**found, "entries": None, "differences": [], "winner": {}, "undefined": reason}
    statistic = PairedStatistic(labels, scores, thresholds)
    values = statistic(np.ones(len(labels)))
    ci, reason = {}, _why_no_interval(labels, cluster, n_resamples)
    if reason is None:
        drawn = cluster_bootstrap(statistic, len(labels), clusters, n_resamples, seed=seed)
        ci, reason = drawn["ci"] or {}, drawn.get("ci_undefined")
    found["entries"] = [
        {metric: _spread(runs, metric) | {"ci": ci.get(f"{at}/{metric}")} for metric in METRICS}
        for at, runs in enumerate(statistic.of_runs(np.ones(len(labels))))
    ]
    found["differences"] = _differences(values, ci, [delong_components(labels, runs) for runs in scores])
    found["winner"] = {metric: _winner(found["differences"], metric, len(scores)) for metric in METRICS}
    return found | ({"no_interval": reason} if reason else {})


class PairedStatistic:
    """
    Entries on the same clips; called with weights, it returns the value of each entry and the difference of each pair.

    Args:
        labels, scores, thresholds: See [`paired_figures`]. Both classes are needed.
    """

    def __init__(self, labels: np.ndarray, scores: Sequence[Runs], thresholds: Sequence[Sequence[float]]):
        self.entries = [
            [
                DetectionStatistic(labels, *_score_and_tie(run), threshold)
                for run, threshold in zip(runs, of, strict=True)
            ]
            for runs, of in zip(scores, thresholds, strict=True)
        ]

    def of_runs(self, weights: np.ndarray) -> list[list[dict[str, float] | None]]:
        """Return the metrics of each run of each entry; None for weights that lack a class."""
        return [[run(weights) for run in runs] for runs in self.entries]

    def __call__(self, weights: np.ndarray) -> dict[str, float] | None:
        """Return `0/auc` for the first entry's, `0-1/auc` for the first's minus the second's, and so on."""
        entries = self.of_runs(weights)
        if any(run is None for runs in entries for run in runs):
            return None
        means = [{name: float(np.mean([run[name] for run in runs])) for name in METRICS} for runs in entries]
        values = {f"{at}/{name}": value for at, mean in enumerate(means) for name, value in mean.items()}
        for first, second in combinations(range(len(means)), 2):
            values |= {
                f"{first}-{second}/{name}": means[first][name] - means[second][name] for name in METRICS
            }
        return values


def delong_components(labels: Sequence[int], runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the structural components of an AUC: for each fake the share of real clips that score lower, for each real clip
    the share of fakes that score higher, ties half.

    Computed from midranks (Sun and Xu, "Fast Implementation of DeLong's Algorithm", 2014). Over several runs they are
    averaged, as the AUC is: the mean of AUCs is the mean of the averaged components.

    Args:
        labels (array of shape `(n,)`): 0 real, 1 fake; both are needed.
        runs (sequence of arrays of shape `(n,)` or of [`SureScores`]): Scores of each run.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: of shapes `(n_fake,)` and `(n_real,)`, each with the AUC as its mean.
    """
    fake = np.asarray(labels) == 1
    n_fake, n_real = int(fake.sum()), int((~fake).sum())
    fakes, reals = np.zeros(n_fake), np.zeros(n_real)
    for run in runs:
        ranks = _ranks(*_score_and_tie(run))
        overall = rankdata(ranks)
        fakes += (overall[fake] - rankdata(ranks[fake])) / n_real
        reals += 1 - (overall[~fake] - rankdata(ranks[~fake])) / n_fake
    return fakes / len(runs), reals / len(runs)


def delong_test(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> dict[str, float | None]:
    """
    Test whether two AUCs on the same clips differ (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988).

    The test takes clips as independent, which clips of one person are not.

    Args:
        first, second: Structural components as from [`delong_components`].

    Returns:
        `dict`: `std_error` of the difference, `z` and the two-sided `p`. Equal components give `z` 0 and `p` 1. All three
        are None for fewer than two clips of a class, `z` and `p` for a difference without variance.
    """
    gaps = [a - b for a, b in zip(first, second, strict=True)]
    if min(len(gap) for gap in gaps) < 2:
        return {"std_error": None, "z": None, "p": None}
    std_error = float(np.sqrt(sum(gap.var(ddof=1) / len(gap) for gap in gaps)))
    difference = float(gaps[0].mean())
    if all(np.allclose(gap, 0, rtol=0, atol=1e-12) for gap in gaps):
        return {"std_error": std_error, "z": 0.0, "p": 1.0}
    if std_error < 1e-12:
        return {"std_error": std_error, "z": None, "p": None}
    z = difference / std_error
    return {"std_error": std_error, "z": z, "p": float(2 * norm.sf(abs(z)))}


def _score_and_tie(run: Sequence[float] | SureScores) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(run, SureScores):
        return np.asarray(run.probabilities, dtype=float), np.asarray(run.log_odds, dtype=float)
    return np.asarray(run, dtype=float), np.zeros(len(run))


def _ranks(scores: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """Return the place of each clip by score and, among equal scores, by its tie; equal ones share a place."""
    order = np.lexsort((ties, scores))
    new = (np.diff(scores[order]) != 0) | (np.diff(ties[order]) != 0)
    places = np.empty(len(scores), dtype=int)
    places[order] = np.concatenate([[0], np.cumsum(new)])
    return places


def _differences(
    values: dict[str, float], ci: dict[str, list[float]], components: list[tuple[np.ndarray, np.ndarray]]
) -> list[dict]:
    pairs = []
    for first, second in combinations(range(len(components)), 2):
        names = {metric: f"{first}-{second}/{metric}" for metric in METRICS}
        pair = {metric: {"value": values[name], "ci": ci.get(name)} for metric, name in names.items()}
        pair["auc"]["delong"] = delong_test(components[first], components[second])
        pairs.append({"first": first, "second": second, **pair})
    return pairs


def _spread(runs: list[dict[str, float]], metric: str) -> dict:
    values = [run[metric] for run in runs]
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"value": float(np.mean(values)), "runs": values, "std": std}


def _why_no_interval(labels: np.ndarray, cluster: np.ndarray, n_resamples: int) -> str | None:
    if not n_resamples:
        return "no resamples were asked for"
    for label, name in ((0, "genuine"), (1, "fake")):
        number = len(set(cluster[labels == label].tolist()))
        if number < FEWEST_CLUSTERS:
            return f"the {name} clips are of fewer than {FEWEST_CLUSTERS} identities: {number}"
    return None


def _winner(differences: list[dict], metric: str, n_entries: int) -> int | None:
    beaten: list[set[int]] = [set() for _ in range(n_entries)]
    for pair in differences:
        if pair[metric]["ci"]:
            low, high = pair[metric]["ci"]
            if low > 0:
                beaten[pair["first"]].add(pair["second"])
            elif high < 0:
                beaten[pair["second"]].add(pair["first"])
    return next((at for at, others in enumerate(beaten) if len(others) == n_entries - 1), None)

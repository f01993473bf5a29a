"""
Detection metrics. Fake is the positive class (1) everywhere; `score` is P(fake).

Everything is computed from the clips in the order of their scores, and from a weight for each clip: 1, or in a bootstrap
resample the number of times that the clip was drawn. Equal scores are always one step.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from .bootstrap import cluster_bootstrap

RANKING = ("auc", "ap_fake", "ap_real", "map_macro", "eer")
TPR_LEVELS = (0.90, 0.95, 0.99)
FPR_LEVEL = 0.01
OPERATING_POINTS = ("fpr_at_90_tpr", "fpr_at_95_tpr", "fpr_at_99_tpr", "tpr_at_1_fpr")
ECE_BINS = 15


@dataclass(frozen=True)
class SureScores:
    """
    P(fake) with the log-odds behind it, by which equal scores are ranked: from log-odds of 37 on every score is 1.

    Args:
        probabilities (array of shape `(n,)`): P(fake), in [0, 1].
        log_odds (array of shape `(n,)`): Finite numbers in the same order.
    """

    probabilities: Sequence[float]
    log_odds: Sequence[float]


def detection_metrics(
    labels: Sequence[int],
    scores: Sequence[float] | SureScores,
    threshold: float = 0.5,
    groups: Sequence[Hashable | None] | None = None,
    n_resamples: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
    max_fpr: float | None = None,
) -> dict:
    """
    Compute the metrics of a set of verdicts.

    Two things are called mAP in this field. The scorers of MAVOS-DD ([paper](https://arxiv.org/abs/2505.11109))
    average the AP of both classes: `map_macro`. The AP of fake alone, which follows the share of fakes, is `ap_fake`;
    compare it with tables that print it as mAP (the zero-shot rows of
    [AV-LMMDetect](https://arxiv.org/abs/2602.23393) can only be read so).

    Args:
        labels (array of shape `(n,)`): 0 real, 1 fake.
        scores (array of shape `(n,)` or [`SureScores`]): P(fake), in [0, 1], or that and its log-odds.
        threshold (`float`, *optional*, defaults to 0.5):
            Score from which a clip is called fake, in [0, 1]; a score equal to it is called fake.
        groups (sequence of length `n`, *optional*):
            Clusters of clips that are not independent, say identities; used for intervals only. A clip whose group
            is None is a cluster of its own, as is every clip if `groups` is left out.
        n_resamples (`int`, *optional*, defaults to 0):
            Bootstrap resamples for intervals; 0 for no intervals.
        confidence (`float`, *optional*, defaults to 0.95): Confidence of the intervals, in (0, 1).
        seed (`int`, *optional*, defaults to 0): Seed of the resampling.
        max_fpr (`float`, *optional*):
            Add `partial_auc`, the area up to this false positive rate, in (0, 1), scaled so that 0.5 is chance and
            1 is perfect (McClish 1989), as `roc_auc_score(max_fpr=...)` of scikit-learn does.

    Returns:
        `dict`, with None for whatever the clips do not define, never NaN:

        - **auc** -- Area under the ROC curve; a tie between a real and a fake clip is half right.
        - **ap_fake**, **ap_real** -- Average precision with fake, with real, as the positive class; not interpolated.
        - **map_macro** -- Mean of the two: mAP of the MAVOS-DD scorers.
        - **eer** -- Equal error rate, where false alarms and misses are equally frequent; interpolated on the curve.
        - **accuracy**, **balanced_accuracy**, **recall_fake**, **recall_real** -- At `threshold`.
        - **accuracy_argmax** -- Accuracy of the likelier class, whatever `threshold` is: fake above 0.5. A score of
          exactly 0.5 counts as real here, as `argmax` over the columns [real, fake] has it; `accuracy` at a threshold
          of 0.5 counts it as fake.
        - **fpr_at_90_tpr**, **fpr_at_95_tpr**, **fpr_at_99_tpr** -- The smallest share of real clips called fake
          by a threshold that finds at least this share of the fakes; not interpolated.
        - **tpr_at_1_fpr** -- The largest share of fakes found by a threshold that calls at most 1 % of the real
          clips fake.
        - **brier** -- Mean squared difference of score and label.
        - **ece** -- Expected calibration error: mean over clips of |mean score - share of fakes| of their bin, in 15
          bins of equal width on P(fake), each closed on the right. Not the variant on max(p, 1 - p).
        - **partial_auc**, **max_fpr** -- If asked for.
        - **prior_accuracy** -- Accuracy of always giving the commoner class, which any accuracy has to beat.
        - **n**, **n_real**, **n_fake**, **threshold**.
        - **undefined** -- With a single class: the reason why ranking metrics and balanced accuracy are None.
        - **ci**, **ci_confidence**, **ci_resamples**, **ci_clusters**, **ci_skipped**, **ci_undefined** -- With
          `n_resamples`; see [`cluster_bootstrap`]. A resample that lacks a class which the clips have is skipped.

    Raises:
        ValueError: for empty input, labels other than 0 and 1, scores that are not numbers in [0, 1], or options out
            of range.
    """
    log_odds = None
    if isinstance(scores, SureScores):
        scores, log_odds = scores.probabilities, np.asarray(scores.log_odds, dtype=float)
    labels, scores = check_labels_and_scores(labels, scores)
    if log_odds is not None and (log_odds.shape != scores.shape or not np.isfinite(log_odds).all()):
        raise ValueError("log_odds must be finite, one for each score.")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], as the scores are; got {threshold!r}.")
    if max_fpr is not None and not 0 < max_fpr < 1:
        raise ValueError(f"max_fpr must be between 0 and 1; got {max_fpr!r}.")
    if n_resamples != int(n_resamples) or n_resamples < 0:
        raise ValueError(f"n_resamples must be a whole number, 0 for no intervals; got {n_resamples!r}.")
    ties = np.zeros(len(scores)) if log_odds is None else log_odds
    statistic = DetectionStatistic(labels, scores, ties, threshold, max_fpr)
    n_fake = int(labels.sum())
    n_real = len(labels) - n_fake
    metrics = {
        **dict.fromkeys((*RANKING, "accuracy", "accuracy_argmax", "balanced_accuracy")),
        **dict.fromkeys(("recall_fake", "recall_real", *OPERATING_POINTS)),
        **({"partial_auc": None, "max_fpr": float(max_fpr)} if max_fpr is not None else {}),
        **statistic(np.ones(len(labels))),
        "prior_accuracy": max(n_fake, n_real) / len(labels),
        "n": len(labels),
        "n_real": n_real,
        "n_fake": n_fake,
        "threshold": float(threshold),
    }
    if not n_fake or not n_real:
        metrics["undefined"] = f"all {len(labels)} clips are {'fake' if n_fake else 'real'}"
    if n_resamples:
        metrics |= cluster_bootstrap(statistic, len(labels), groups, n_resamples, confidence, seed)
    return metrics


class DetectionStatistic:
    """
    Clips sorted by score; called with weights, it returns the metrics that the weighted clips define.

    Args:
        labels (array of shape `(n,)`): 0 real, 1 fake.
        scores (array of shape `(n,)`): P(fake), in [0, 1].
        ties (array of shape `(n,)`): Values that rank clips of equal score, higher for fake; zeros for none.
        threshold (`float`): Score from which a clip is called fake.
        max_fpr (`float`, *optional*): As for [`detection_metrics`].
    """

    def __init__(
        self,
        labels: np.ndarray,
        scores: np.ndarray,
        ties: np.ndarray,
        threshold: float,
        max_fpr: float | None = None,
    ):
        self.max_fpr = max_fpr
        self.order = np.lexsort((-ties, -scores))
        self.scores = scores[self.order]
        ties = ties[self.order]
        self.fake = labels[self.order].astype(float)
        # A threshold can only fall between different scores: counts are read where a run of equal ones ends.
        different = (self.scores[1:] != self.scores[:-1]) | (ties[1:] != ties[:-1])
        self.ends = np.flatnonzero(np.append(different, True))
        steps = self.scores[self.ends]
        self.called = int(np.count_nonzero(steps >= threshold))
        self.called_argmax = int(np.count_nonzero(steps > 0.5))
        self.squares = (self.scores - self.fake) ** 2
        self.bins = np.searchsorted(np.linspace(0, 1, ECE_BINS + 1)[1:-1], self.scores)
        self.classes = (bool((labels == 0).any()), bool((labels == 1).any()))

    def __call__(self, weights: np.ndarray) -> dict[str, float] | None:
        weights = weights[self.order]
        # Clips called fake by each threshold, from the one that calls none to the one that calls all.
        calls = np.concatenate([[0.0], np.cumsum(weights)[self.ends]])
        fakes = np.concatenate([[0.0], np.cumsum(weights * self.fake)[self.ends]])
        reals = calls - fakes
        n_real, n_fake, n = reals[-1], fakes[-1], calls[-1]
        if (n_real > 0, n_fake > 0) != self.classes:
            return None
        values = {}
        if n_real and n_fake:
            values |= _ranking(fakes, reals)
            if self.max_fpr is not None:
                values["partial_auc"] = _partial_auc(reals / n_real, fakes / n_fake, self.max_fpr)
        for name, at in (("accuracy", self.called), ("accuracy_argmax", self.called_argmax)):
            values[name] = float((fakes[at] + n_real - reals[at]) / n)
        if n_fake:
            values["recall_fake"] = float(fakes[self.called] / n_fake)
        if n_real:
            values["recall_real"] = float((n_real - reals[self.called]) / n_real)
        if n_real and n_fake:
            values["balanced_accuracy"] = (values["recall_fake"] + values["recall_real"]) / 2
        values["brier"] = float(weights @ self.squares / n)
        gaps = np.bincount(self.bins, weights * (self.scores - self.fake), minlength=ECE_BINS)
        values["ece"] = float(np.abs(gaps).sum() / n)
        return values


def _ranking(fakes: np.ndarray, reals: np.ndarray) -> dict[str, float]:
    """Return the metrics of the clips' order, from cumulative counts at each threshold, strictest first."""
    n_fake, n_real = fakes[-1], reals[-1]
    tpr, fpr = fakes / n_fake, reals / n_real
    new_fakes, new_reals = np.diff(fakes), np.diff(reals)
    auc = new_reals @ (fakes[1:] + fakes[:-1]) / (2 * n_fake * n_real)
    # Counts from the other end, with real as the positive class: clips that each threshold calls real.
    kept_reals, kept_fakes = n_real - reals[:-1], n_fake - fakes[:-1]
    ap_fake = new_fakes @ _share(fakes[1:], reals[1:]) / n_fake
    ap_real = new_reals @ _share(kept_reals, kept_fakes) / n_real
    values = {
        "auc": float(auc),
        "ap_fake": float(ap_fake),
        "ap_real": float(ap_real),
        "map_macro": float((ap_fake + ap_real) / 2),
        "eer": _equal_error_rate(fpr, tpr),
    }
    # The first threshold that finds enough fakes, and the last one without too many false alarms.
    found = [fpr[np.searchsorted(tpr, level)] for level in TPR_LEVELS]
    found.append(tpr[np.searchsorted(fpr, FPR_LEVEL, side="right") - 1])
    return values | {name: float(value) for name, value in zip(OPERATING_POINTS, found, strict=True)}


def _share(these: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the share of these among all; 0 if there are none, which only clips of weight 0 can cause."""
    total = these + others
    return np.divide(these, total, out=np.zeros_like(total), where=total > 0)


def _equal_error_rate(fpr: np.ndarray, tpr: np.ndarray) -> float:
    gap = fpr - (1 - tpr)
    after = int(np.argmax(gap >= 0))
    before = after - 1  # the curve starts at (0, 0), where the gap is -1
    share = -gap[before] / (gap[after] - gap[before])
    return float(fpr[before] + share * (fpr[after] - fpr[before]))


def _partial_auc(fpr: np.ndarray, tpr: np.ndarray, max_fpr: float) -> float:
    inside = fpr <= max_fpr
    x = np.append(fpr[inside], max_fpr)
    # The curve leaves the range between its last point inside and its first point outside.
    last, first = np.flatnonzero(inside)[-1], np.flatnonzero(~inside)[0]
    share = (max_fpr - fpr[last]) / (fpr[first] - fpr[last])
    y = np.append(tpr[inside], tpr[last] + share * (tpr[first] - tpr[last]))
    area = np.diff(x) @ (y[1:] + y[:-1]) / 2
    chance = max_fpr**2 / 2
    return float((1 + (area - chance) / (max_fpr - chance)) / 2)


def check_labels_and_scores(labels: Sequence[int], scores: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """
    Return labels (int) and scores (float) as arrays of shape `(n,)`.

    Raises:
        ValueError: for empty input, unequal lengths, labels other than 0 and 1, or scores that are not numbers in
            [0, 1].
    """
    labels = np.asarray(labels)
    try:
        scores = np.asarray(scores, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Scores must be numbers in [0, 1]: {error}.") from error
    if labels.shape != scores.shape or labels.ndim != 1 or not len(labels):
        raise ValueError(
            f"Need as many labels as scores, and at least one; got {labels.shape} and {scores.shape}."
        )
    if not np.isin(labels, (0, 1)).all():
        others = sorted({repr(label) for label in labels.tolist() if label not in (0, 1)})
        raise ValueError(f"Labels are 0 (real) and 1 (fake); got {', '.join(others[:5])}.")
    inside = (scores >= 0) & (scores <= 1)
    if not inside.all():
        first = int(np.argmin(inside))
        raise ValueError(
            f"Scores must be probabilities of fake, in [0, 1]; {np.count_nonzero(~inside)} are not, the first is"
            f" {scores[first]} at position {first}."
        )
    return labels.astype(int), scores


def equal_error_rate(labels: Sequence[int], scores: Sequence[float]) -> float:
    """
    Return the rate at which false alarms and misses are equal, interpolated on the ROC curve.

    Raises:
        ValueError: as [`detection_metrics`], and for a single class.
    """
    rate = detection_metrics(labels, scores)["eer"]
    if rate is None:
        raise ValueError("An equal error rate needs real and fake clips.")
    return rate


def choose_threshold(labels: Sequence[int], scores: Sequence[float]) -> float:
    """
    Return the threshold with the best balanced accuracy on a validation set.

    It lies in the middle between two neighbouring scores. Among equally good thresholds, the one nearest to 0.5 is
    chosen.

    Raises:
        ValueError: for a single class.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=float)
    if len(set(labels.tolist())) < 2:
        raise ValueError("A threshold needs real and fake clips to be chosen on.")
    values, place = np.unique(scores, return_inverse=True)
    fakes, reals = (np.bincount(place, weights=labels == label) for label in (1, 0))
    # A threshold just below a value calls everything before it real.
    missed, kept = np.cumsum(fakes) - fakes, np.cumsum(reals) - reals
    gains = kept / reals.sum() - missed / fakes.sum()
    middles = (values[1:] + values[:-1]) / 2
    # Between floating-point neighbours the middle may be the lower value, which must not be called fake.
    candidates = np.concatenate([values[:1], np.where(middles > values[:-1], middles, values[1:])])
    best = candidates[np.isclose(gains, gains.max(), rtol=0, atol=1e-12)]
    return float(best[np.argmin(np.abs(best - 0.5))])

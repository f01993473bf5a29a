"""Detection metrics. Fake is the positive class (1) everywhere; `score` is P(fake)."""

import numpy as np
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score, roc_curve

RANKING = ("auc", "ap_fake", "map_macro", "eer")


def detection_metrics(labels, scores, threshold: float = 0.5) -> dict:
    """
    Computes the metrics of a set of verdicts.

    Args:
        labels (array of shape `(n,)`): 0 real, 1 fake.
        scores (array of shape `(n,)`): P(fake), in [0, 1].
        threshold (`float`, *optional*, defaults to 0.5): Score from which a clip is called fake.

    Returns:
        `dict`:

        - **auc**, **ap_fake** -- Area under the ROC curve; average precision with fake as the positive class.
        - **map_macro** -- Mean of the average precisions of fake and of real: what the MAVOS-DD evaluators call mAP.
        - **eer** -- Equal error rate, where false alarms and misses are equally frequent.
        - **accuracy**, **balanced_accuracy**, **recall_fake**, **recall_real** -- At `threshold`.
        - **prior_accuracy** -- Accuracy of always giving the commoner class: what any accuracy has to beat.
        - **n**, **n_real**, **n_fake**, **threshold**.
        - **undefined** -- Why ranking metrics and balanced accuracy are None, where they are.

    Raises:
        ValueError: for empty input, labels other than 0 and 1, or scores that are not numbers in [0, 1].
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=float)
    if labels.shape != scores.shape or labels.ndim != 1 or not len(labels):
        raise ValueError(
            f"Need as many labels as scores, and at least one; got {labels.shape} and {scores.shape}."
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"Labels are 0 (real) and 1 (fake); got {sorted(set(labels.tolist()))}.")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("Scores must be probabilities of fake, in [0, 1].")
    called = (scores >= threshold).astype(int)
    n_fake = int(labels.sum())
    n_real = len(labels) - n_fake
    metrics = {
        **dict.fromkeys(RANKING),
        "accuracy": float((called == labels).mean()),
        "balanced_accuracy": None,
        "recall_fake": float(called[labels == 1].mean()) if n_fake else None,
        "recall_real": float(1 - called[labels == 0].mean()) if n_real else None,
        "prior_accuracy": max(n_fake, n_real) / len(labels),
        "n": len(labels),
        "n_real": n_real,
        "n_fake": n_fake,
        "threshold": float(threshold),
    }
    if not n_fake or not n_real:
        metrics["undefined"] = f"all {len(labels)} clips are {'fake' if n_fake else 'real'}"
        return metrics
    ap_fake = average_precision_score(labels, scores)
    metrics.update(
        auc=float(roc_auc_score(labels, scores)),
        ap_fake=float(ap_fake),
        map_macro=float((ap_fake + average_precision_score(1 - labels, -scores)) / 2),
        eer=equal_error_rate(labels, scores),
        balanced_accuracy=float(balanced_accuracy_score(labels, called)),
    )
    return metrics


def equal_error_rate(labels, scores) -> float:
    """Rate at which false alarms and misses are equal, interpolated on the ROC curve; both classes must be there."""
    false_alarms, hits, _ = roc_curve(labels, scores)
    gap = false_alarms - (1 - hits)
    after = int(np.argmax(gap >= 0))
    before = max(after - 1, 0)
    span = gap[after] - gap[before]
    share = 0.0 if span == 0 else -gap[before] / span
    return float(false_alarms[before] + share * (false_alarms[after] - false_alarms[before]))


def choose_threshold(labels, scores) -> float:
    """
    The threshold with the best balanced accuracy, for a validation set.

    The middle between the two neighbouring scores, of the best threshold nearest to 0.5.

    Raises:
        ValueError: when there is one class only.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=float)
    if len(set(labels.tolist())) < 2:
        raise ValueError("A threshold needs real and fake clips to be chosen on.")
    values, place = np.unique(scores, return_inverse=True)
    fakes, reals = (np.bincount(place, weights=labels == label) for label in (1, 0))
    # What a threshold just below each value calls real: everything before it.
    missed, kept = np.cumsum(fakes) - fakes, np.cumsum(reals) - reals
    gains = kept / reals.sum() - missed / fakes.sum()
    middles = (values[1:] + values[:-1]) / 2
    # Between neighbours of floating point the middle may be the lower one, which it must not call fake.
    candidates = np.concatenate([values[:1], np.where(middles > values[:-1], middles, values[1:])])
    best = candidates[np.isclose(gains, gains.max(), rtol=0, atol=1e-12)]
    return float(best[np.argmin(np.abs(best - 0.5))])

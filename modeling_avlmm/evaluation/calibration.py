"""Fitting on validation clips: temperature scaling, and a band of scores in which a detector abstains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logit

from .metrics import check_labels_and_scores

SMALLEST_SCORE = 1e-7
"""Scores are clipped to at least this, and to at most 1 minus this; our own choice."""
TEMPERATURES = (0.01, 100.0)
"""Limits of the search."""


def fit_temperature(labels: Sequence[int], scores: Sequence[float]) -> float:
    """
    Return the temperature T that makes validation clips most likely: P(fake) = sigmoid(logit(score) / T).

    This is the temperature scaling of [Guo et al. 2017](https://arxiv.org/abs/1706.04599), for two classes. T above 1
    means that the scores were overconfident. The negative log-likelihood has one minimum over T, which a bounded search
    on log T finds.

    Args:
        labels (array of shape `(n,)`): 0 real, 1 fake.
        scores (array of shape `(n,)`):
            P(fake), in [0, 1]. Clipped to [1e-7, 1 - 1e-7], because a single wrong clip with a score of exactly 0 or 1
            is infinitely unlikely at any temperature.

    Returns:
        `float`: T, in [0.01, 100].

    Raises:
        ValueError: as [`detection_metrics`]; for a single class; and if no T is best, because every clip is on its side
            of 0.5 (T towards 0) or the scores favour the wrong class (T towards infinity).
    """
    labels, scores = check_labels_and_scores(labels, scores)
    if labels.min() == labels.max():
        raise ValueError("A temperature needs real and fake clips to be fitted on.")
    logits = logit(np.clip(scores, SMALLEST_SCORE, 1 - SMALLEST_SCORE))
    # For the right class: the likelihood of a clip is sigmoid(margin / T).
    margins = np.where(labels == 1, logits, -logits)
    if margins.mean() <= 0:
        raise ValueError(
            "No temperature fits: on the whole the scores favour the wrong class or none. Are labels 0 for real and 1 for"
            " fake, and scores P(fake)?"
        )
    if margins.min() >= 0:
        raise ValueError(
            f"No temperature fits: all {len(labels)} clips are on their side of 0.5, so the surer the scores, the likelier"
            " the clips. Fit on more, or harder, clips."
        )
    found = minimize_scalar(
        lambda log_temperature: np.logaddexp(0, -margins / math.exp(log_temperature)).mean(),
        bounds=[math.log(temperature) for temperature in TEMPERATURES],
        method="bounded",
        options={"xatol": 1e-9},
    )
    return math.exp(found.x)


def conformal_band(labels: Sequence[int], scores: Sequence[float], coverage: float) -> tuple[float, float]:
    """
    Return the band of scores in which a detector abstains, so that its errors are bounded in each class.

    Above the band a clip is called fake, below it real; on its edges and between them the detector abstains. This is
    split conformal prediction for each class by itself ([Vovk 2012](https://arxiv.org/abs/1209.2673)): one edge is the
    ceil((n_real + 1) coverage)-th smallest score of the real clips, which at least `coverage` of real clips don't
    exceed; the other is the ceil((n_fake + 1) coverage)-th largest score of the fakes. Laying the band between the
    smaller and the larger of the two is our own choice.

    Of clips exchangeable with those of their class given here, at most 1 - coverage of the real ones are called fake,
    and at most 1 - coverage of the fake ones real. The guarantee is marginal: it holds on average over draws of these
    clips together with the new one, not for every draw, identity or generator. A kind of fake that is not among these
    clips is not covered.

    Args:
        labels (array of shape `(n,)`):
            0 real, 1 fake; clips that the detector was not trained or selected on. A temperature may have been fitted
            on them, as it keeps the order of scores, on which alone verdicts depend.
        scores (array of shape `(n,)`): P(fake), in [0, 1].
        coverage (`float`): In (0, 1), say 0.95.

    Returns:
        `tuple[float, float]`: the edges, low and high.

    Raises:
        ValueError: as [`detection_metrics`]; for a coverage out of range, or too few clips of a class.
    """
    labels, scores = check_labels_and_scores(labels, scores)
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must be between 0 and 1, say 0.95; got {coverage!r}.")
    # Exact decimals: in floating point (99 + 1) * 0.55 exceeds 55, which would cost a rank.
    share = Fraction(str(float(coverage)))
    needed = math.ceil(share / (1 - share))
    edges = []
    for label, name in ((0, "real"), (1, "fake")):
        # The likeliest real first, and the likeliest fake first.
        ranked = np.sort(scores[labels == label])[:: 1 - 2 * label]
        if len(ranked) < needed:
            raise ValueError(
                f"A coverage of {coverage} needs at least {needed} {name} clips; there are {len(ranked)}. Give more"
                " clips or ask for less coverage."
            )
        edges.append(float(ranked[math.ceil((len(ranked) + 1) * share) - 1]))
    return min(edges), max(edges)

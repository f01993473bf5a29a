"""Temperatures against the likelihood and a known truth; the abstain band against its guarantee."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binom
from sklearn.metrics import log_loss

from modeling_avlmm.evaluation.calibration import conformal_band, fit_temperature
from modeling_avlmm.evaluation.metrics import detection_metrics
from modeling_avlmm.modeling_outputs import calibrated as tempered_score


def calibrated(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels drawn with the probabilities that the logits give."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2, n)
    return (draw.uniform(size=n) < expit(logits)).astype(int), logits


def apply_temperature(scores, temperature: float) -> np.ndarray:
    """Scale scores as the pipeline does."""
    return np.array([tempered_score(score, temperature) for score in np.asarray(scores).tolist()])


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature):
    labels, logits = calibrated(0, 20_000)
    # 20,000 clips fix it to about 1.5 %.
    assert fit_temperature(labels, expit(logits * temperature)) == pytest.approx(temperature, rel=0.05)
    # The unit of the logits is the temperature's.
    thirds = fit_temperature(labels, expit(logits / 3))
    assert thirds == pytest.approx(fit_temperature(labels, expit(logits)) / 3, rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_no_temperature_is_likelier(seed):
    labels, logits = calibrated(seed, 60)
    scores = expit(2 * logits).round(2)
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    best = log_loss(labels, apply_temperature(clipped, fit_temperature(labels, scores)))
    for temperature in np.geomspace(0.01, 100, 400):
        # scikit-learn clips probabilities at its own epsilon, far below what decides here.
        assert best <= log_loss(labels, apply_temperature(clipped, temperature)) + 1e-9


def test_known_answer():
    # Three of four right at a score of 0.9: the likeliest score is 0.75, and log 9 / T = log 3.
    assert fit_temperature([1, 1, 1, 0], [0.9] * 4) == pytest.approx(2.0, rel=1e-6)
    assert fit_temperature([0, 0, 0, 1], [0.1] * 4) == pytest.approx(2.0, rel=1e-6)
    # One clip with a score of exactly 0 is clipped to 1e-7, not infinitely unlikely.
    assert math.isfinite(fit_temperature([1, 1, 1, 1, 0], [0.9, 0.9, 1.0, 0.0, 0.1]))


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 1], [0.2, 0.9], "real and fake"),
        ([0, 1], [0.2, 0.9], "all 2 clips are on their side"),
        ([0, 1, 1], [0.5, 0.5, 0.9], "on their side"),
        ([0, 1], [0.9, 0.2], "wrong class"),
        ([0, 1], [0.5, 0.5], "wrong class or none"),
        ([0, 1], [0.5, 1.5], r"in \[0, 1\]"),
        ([], [], "at least one"),
    ],
)
def test_where_no_temperature_can_be_fitted(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(labels, scores)


def test_applying_a_temperature():
    scores = np.array([0.0, 1e-30, 1e-20, 0.2, 0.5, 0.8, 1.0])
    assert apply_temperature(scores, 1.0) == pytest.approx(scores, rel=1e-12)
    halved = apply_temperature(scores, 2.0)
    assert halved[[0, 4, 6]].tolist() == [0.0, 0.5, 1.0]
    assert halved[3] == pytest.approx(1 / 3) and halved[5] == pytest.approx(2 / 3)  # odds of 4 become 2
    assert (np.diff(halved) > 0).all()
    assert apply_temperature(halved, 0.5) == pytest.approx(scores, rel=1e-9)


def test_temperature_improves_calibration_and_keeps_ranking():
    labels, logits = calibrated(5, 4000)
    scores = expit(3 * logits)
    tempered = apply_temperature(scores, fit_temperature(labels, scores))
    before, after = detection_metrics(labels, scores), detection_metrics(labels, tempered)
    assert after["ece"] < before["ece"] / 3 and after["brier"] < before["brier"]
    assert after["auc"] == before["auc"] and after["accuracy"] == before["accuracy"]
    assert logit(tempered) * 3 == pytest.approx(logit(scores), rel=0.1)


# -- the band --------------------------------------------------------------------------------------------------------


def test_edges_are_the_stated_order_statistics():
    # 9 real clips, of 10 with the new one: 0.8 of them is the 8th smallest; 4 fakes: 0.8 of 5 is the 4th largest.
    real = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.9]
    fake = [0.35, 0.8, 0.95, 0.97]
    assert conformal_band([0] * 9 + [1] * 4, real + fake, 0.8) == (0.35, 0.7)
    # Classes far apart: the edges change places, and the band lies between them.
    assert conformal_band([0] * 4 + [1] * 4, [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9], 0.8) == (0.4, 0.6)
    assert conformal_band([0, 1], [0.5, 0.5], 0.5) == (0.5, 0.5)


def test_a_temperature_does_not_change_verdicts():
    labels, logits = calibrated(2, 200)
    scores, tempered = expit(logits), apply_temperature(expit(logits), 2.7)
    low, high = conformal_band(labels, scores, 0.9)
    assert conformal_band(labels, tempered, 0.9) == tuple(apply_temperature([low, high], 2.7))


@pytest.mark.parametrize("label", [0, 1])
def test_rank_is_exact(label):
    # 100 times 0.55 is 55.00000000000001 in floating point, and its ceiling 56.
    ranks = np.arange(1, 100) / 100
    scores = np.concatenate([ranks, [0.5, 0.5]])
    low, high = conformal_band([label] * 99 + [1 - label] * 2, scores, 0.55)
    assert (high if label == 0 else low) == (0.55 if label == 0 else 0.45)


@pytest.mark.parametrize(
    ("coverage", "needed"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99), (0.07, 1), (0.7, 3)]
)
def test_too_few_clips_are_refused_with_the_number_needed(coverage, needed):
    enough = [0.5] * needed
    assert conformal_band([0] * needed + [1] * needed, enough * 2, coverage) == (0.5, 0.5)
    for label, name in ((0, "real"), (1, "fake")):
        labels = [label] * (needed - 1) + [1 - label] * needed
        with pytest.raises(ValueError, match=f"at least {needed} {name} clips; there are {needed - 1}"):
            conformal_band(labels, [0.5] * len(labels), coverage)


@pytest.mark.parametrize("coverage", [0, 1, 1.5, -0.1, math.nan])
def test_coverage_out_of_range(coverage):
    with pytest.raises(ValueError, match="coverage"):
        conformal_band([0, 1], [0.5, 0.5], coverage)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n_real", "n_fake", "coverage"), [(19, 40, 0.9), (30, 9, 0.9), (19, 19, 0.95)])
def test_the_promise_is_kept(n_real, n_fake, coverage, ties):
    """With new clips and new calibration clips each time, errors are binomial, at most at the promised rate."""
    repetitions = 3000
    draw = np.random.default_rng(n_real * 100 + n_fake)
    labels = np.repeat([0, 1], [n_real, n_fake])
    called_fake = called_real = 0
    for _ in range(repetitions):
        # Classes that overlap so far that the real clips' edge is the upper one.
        scores, new = expit(draw.normal(labels * 0.3, 1)), expit(draw.normal([0, 0.3], 1))
        if ties:
            scores, new = scores.round(1), new.round(1)
        low, high = conformal_band(labels, scores, coverage)
        called_fake += new[0] > high
        called_real += new[1] < low
    for errors, n in ((called_fake, n_real), (called_real, n_fake)):
        assert errors <= binom.ppf(1 - 1e-6, repetitions, 1 - coverage)
        if not ties:
            # Without ties the rate is known exactly: the share of ranks beyond the edge.
            beyond = (n + 1 - math.ceil(round((n + 1) * coverage, 9))) / (n + 1)
            assert errors >= binom.ppf(1e-6, repetitions, beyond)

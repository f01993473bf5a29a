"""AUC over all pairs and within groups, against other ways of computing it, and its intervals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from modeling_avlmm.evaluation.metrics import cluster_bootstrap, detection_metrics
from modeling_avlmm.evaluation.ranking import (
    RankedScores,
    auc_of,
    mean_over_kinds_auc,
    overall_auc,
    share_of,
    within_groups_auc,
)


def drawn(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return labels, scores with many ties, and groups of about five clips."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n)
    scores = np.round(generator.normal(0.3 * labels, 1), 1)
    return labels, scores, generator.integers(0, n // 5, n).tolist()


def pairs_won(labels: np.ndarray, scores: np.ndarray, members: list[int]) -> float:
    """Return the AUC by looking at every pair."""
    fakes = [scores[i] for i in members if labels[i]]
    reals = [scores[i] for i in members if not labels[i]]
    won = [1.0 if f > r else 0.5 if f == r else 0.0 for f, r in itertools.product(fakes, reals)]
    return sum(won) / len(won)


@pytest.mark.parametrize("seed", range(3))
def test_weighted_auc_is_that_of_scikit_learn(seed):
    labels, scores, _ = drawn(seed=seed)
    weights = np.random.default_rng(seed).integers(0, 4, len(labels)).astype(float)
    expected = roc_auc_score(labels, scores, sample_weight=weights)
    assert RankedScores(labels, scores)(weights) == pytest.approx(expected, abs=1e-12)
    assert auc_of(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_a_single_class_has_no_auc():
    assert auc_of([1, 1], [0.1, 0.2]) is None and auc_of([], []) is None
    assert RankedScores([0, 1], [0.1, 0.2])(np.array([1.0, 0.0])) is None
    found = overall_auc([0, 0], [0.1, 0.2], ["a", None])
    assert found == {"auc": None, "n_real": 2, "n_fake": 0, "ci": None, "clusters": 2}


def test_overall_interval_is_that_of_the_detection_metrics():
    labels, scores, groups = drawn()
    scores = (scores - scores.min()) / np.ptp(scores)
    found = overall_auc(labels, scores, groups, 200)
    expected = detection_metrics(labels, scores, groups=groups, n_resamples=200)
    assert found["auc"] == pytest.approx(expected["auc"], abs=1e-12)
    assert found["ci"] == pytest.approx(expected["ci"]["auc"], abs=1e-12)
    assert (found["n_real"], found["n_fake"]) == (expected["n_real"], expected["n_fake"])
    assert found["clusters"] == expected["ci_clusters"]


def test_within_groups_is_the_mean_of_single_groups():
    labels, scores, groups = drawn()
    groups = [None if group == 0 else group for group in groups]
    members = {g: [i for i, other in enumerate(groups) if other == g] for g in set(groups) - {None}}
    expected = {g: pairs_won(labels, scores, m) for g, m in members.items() if len(set(labels[m])) == 2}
    found = within_groups_auc(labels, scores, groups, n_resamples=100)
    assert found["groups"] == pytest.approx(expected, abs=1e-12)
    assert found["auc"] == pytest.approx(np.mean(list(expected.values())), abs=1e-12)
    assert found["clusters"] == len(expected)
    assert found["n_real"] + found["n_fake"] == sum(len(members[g]) for g in expected)
    low, high = found["ci"]
    assert low < found["auc"] < high


def test_a_score_that_only_knows_the_source():
    # Fakes are from place 1, genuine clips from place 0, and three people have both, each from one place.
    labels = [0] * 6 + [1] * 6
    people = [*"abcdef", *"abcxyz"]
    place = [1, 1, 1, 0, 0, 0] + [1] * 6
    assert overall_auc(labels, place, people, 0)["auc"] == pytest.approx((6 * 3 + 6 * 3 / 2) / 36)
    within = within_groups_auc(labels, place, people, n_resamples=0)
    assert (within["auc"], within["groups"]) == (0.5, {"a": 0.5, "b": 0.5, "c": 0.5})


def test_groups_are_drawn_by_cluster():
    labels, scores = [0, 1] * 12, [0.4, 0.6, 0.6, 0.4] * 6
    groups = [number // 2 for number in range(24)]  # right, wrong, right, wrong, ...
    apart = within_groups_auc(labels, scores, groups, n_resamples=400)
    together = within_groups_auc(labels, scores, groups, [group // 2 for group in groups], 400)
    assert apart["auc"] == together["auc"] == 0.5
    # Every cluster has a right and a wrong group, so every resample gives the same.
    assert together["ci"] == [0.5, 0.5] and apart["ci"][0] < 0.4
    assert (apart["clusters"], together["clusters"]) == (12, 6)


def test_mean_over_kinds_counts_every_kind_once():
    labels = [0] * 5 + [1] * 7
    scores = [0, 1, 2, 3, 4, *[5] * 5, -1, 2]
    kinds = [None] * 5 + ["a"] * 5 + ["b", "b"]
    found = mean_over_kinds_auc(labels, scores, kinds, range(12), 50)
    assert found["kinds"] == {"a": 1.0, "b": pytest.approx((0 + 2.5) / 10)}
    assert found["auc"] == pytest.approx((1 + 0.25) / 2)
    assert overall_auc(labels, scores, range(12), 0)["auc"] == pytest.approx((5 + 0.25 * 2) / 7)
    assert found["ci"][0] <= found["auc"] <= found["ci"][1]
    nothing = mean_over_kinds_auc(labels, scores, [None] * 12, range(12), 50)
    assert (nothing["auc"], nothing["ci"], nothing["kinds"]) == (None, None, {})


def test_share():
    clusters = ["a", "a", "b", "b", "c", "c", "d", "d", "e", "e"]
    found = share_of([True, False] * 5, clusters, 200)
    assert found == {"share": 0.5, "ci": [0.5, 0.5], "n": 10}  # every cluster is half right
    alone = share_of([True, False] * 5, [None] * 10, 200)
    expected = cluster_bootstrap(
        lambda w: {"v": float(w @ np.array([1.0, 0.0] * 5) / w.sum())}, 10, None, 200
    )
    assert alone["ci"] == expected["ci"]["v"]
    assert share_of([], [], 200) == {"share": None, "ci": None, "n": 0}


def test_few_clusters_have_no_interval():
    labels, scores = [0] * 5 + [1] * 5, range(10)
    assert overall_auc(labels, scores, range(10), 50)["ci"] == [1.0, 1.0]
    assert overall_auc(labels, scores, [0, 1, 2, 3, 4, 5, 5, 6, 7, 8], 50)["ci"] is None
    assert within_groups_auc(labels, scores, [0, 1, 2, 3, 4] * 2, n_resamples=50)["ci"] == [1.0, 1.0]
    assert within_groups_auc(labels, scores, [0, 1, 2, 3, 3] * 2, n_resamples=50)["ci"] is None
    assert share_of([True, False] * 2, range(4), 50)["ci"] is None


def test_a_share_of_all_has_no_interval():
    assert share_of([True] * 9, range(9), 50) == {"share": 1.0, "ci": None, "n": 9}

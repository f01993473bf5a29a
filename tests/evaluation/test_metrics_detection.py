"""Detection metrics against scikit-learn, intervals against repeated clips, and the metric as users load it."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import yaml
from metric_folders import FOLDER, run_loaded
from sklearn import metrics as sklearn_metrics

from modeling_avlmm.evaluation.metrics import (
    SureScores,
    choose_threshold,
    cluster_bootstrap,
    detection_metrics,
    equal_error_rate,
)

COUNTS = {"n", "n_real", "n_fake", "threshold", "prior_accuracy", "max_fpr", "undefined"}
RANKING = {
    "auc",
    "ap_fake",
    "ap_real",
    "map_macro",
    "eer",
    "balanced_accuracy",
    "partial_auc",
    "tpr_at_1_fpr",
}
RANKING |= {f"fpr_at_{level}_tpr" for level in (90, 95, 99)}


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of both classes: without ties, with many, with three values, only 0 and 1."""
    draw = np.random.default_rng(seed)
    n = int(draw.integers(2, 80))
    labels = draw.integers(0, 2, n)
    labels[:2] = (0, 1)
    scores = np.clip(draw.normal(0.4 + 0.2 * labels, 0.3), 0, 1)
    return labels, (scores, scores.round(1), (2 * scores).round() / 2, scores.round())[seed % 4]


DEGENERATE = {
    "one real": ([0], [0.3]),
    "one fake": ([1], [0.5]),
    "all real": ([0] * 5, [0.0, 0.2, 0.5, 0.5, 1.0]),
    "all fake": ([1] * 5, [0.0, 0.2, 0.5, 0.5, 1.0]),
    "one of each": ([0, 1], [0.5, 0.5]),
    "constant": ([0, 1, 1, 0, 1], [0.5] * 5),
    "all zero": ([0, 1, 1], [0.0] * 3),
    "all one": ([0, 1, 1], [1.0] * 3),
    "perfect": ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]),
    "reversed": ([0, 0, 1, 1], [0.9, 0.8, 0.2, 0.1]),
    "tiny": ([0, 1, 1, 0], [1e-22, 1e-20, 1e-19, 1e-21]),
}
CASES = {**{f"random {seed}": random_case(seed) for seed in range(24)}, **DEGENERATE}


def by_the_book(labels, scores, threshold: float, max_fpr: float) -> dict:
    """Return every metric by scikit-learn, or written out if it has none."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    called = (scores >= threshold).astype(int)
    result = {
        "accuracy": sklearn_metrics.accuracy_score(labels, called),
        "accuracy_argmax": sklearn_metrics.accuracy_score(
            labels, np.argmax(np.column_stack([1 - scores, scores]), axis=1)
        ),
        "brier": sklearn_metrics.brier_score_loss(labels, scores, pos_label=1, labels=[0, 1]),
        "ece": 0.0,
    }
    for k in range(15):
        inside = (scores > np.linspace(0, 1, 16)[k]) & (scores <= np.linspace(0, 1, 16)[k + 1])
        inside |= (scores == 0) & (k == 0)
        if inside.any():
            result["ece"] += abs(scores[inside].mean() - labels[inside].mean()) * inside.mean()
    for name, label in (("recall_real", 0), ("recall_fake", 1)):
        there = (labels == label).any()
        result[name] = sklearn_metrics.recall_score(labels, called, pos_label=label) if there else None
    if labels.min() == labels.max():
        return result | dict.fromkeys(RANKING)
    fpr, tpr, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    result |= {
        "auc": sklearn_metrics.roc_auc_score(labels, scores),
        "partial_auc": sklearn_metrics.roc_auc_score(labels, scores, max_fpr=max_fpr),
        "ap_fake": sklearn_metrics.average_precision_score(labels, scores),
        "ap_real": sklearn_metrics.average_precision_score(1 - labels, -scores),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, called),
        # False alarms minus misses only grow along the curve.
        "eer": np.interp(0, fpr + tpr - 1, fpr),
        "tpr_at_1_fpr": max(tpr[fpr <= 0.01]),
    }
    result |= {f"fpr_at_{level}_tpr": min(fpr[tpr >= level / 100]) for level in (90, 95, 99)}
    return result | {"map_macro": (result["ap_fake"] + result["ap_real"]) / 2}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("threshold", "max_fpr"), [(0.5, 0.1), (0.3, 0.55), (0.0, 0.9), (1.0, 0.01)])
def test_every_metric_equals_its_definition(case, threshold, max_fpr):
    labels, scores = CASES[case]
    metrics = detection_metrics(labels, scores, threshold, max_fpr=max_fpr)
    expected = by_the_book(labels, scores, threshold, max_fpr)
    assert set(metrics) - COUNTS == set(expected)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-12), name
    n_fake = int(sum(labels))
    assert (metrics["n"], metrics["n_fake"], metrics["n_real"]) == (len(labels), n_fake, len(labels) - n_fake)
    assert metrics["prior_accuracy"] == max(n_fake, len(labels) - n_fake) / len(labels)
    assert (metrics["threshold"], metrics["max_fpr"]) == (threshold, max_fpr)
    assert ("undefined" in metrics) == (metrics["auc"] is None)
    assert all(type(value) in (float, int, str, type(None)) for value in metrics.values())
    assert not any(isinstance(value, float) and math.isnan(value) for value in metrics.values())


def test_known_answers():
    metrics = detection_metrics([0, 0, 0, 0, 1, 1, 1, 1], [0.1, 0.2, 0.3, 0.8, 0.25, 0.7, 0.9, 1.0])
    assert metrics["auc"] == 13 / 16
    assert metrics["ap_fake"] == pytest.approx((1 + 1 + 3 / 4 + 4 / 6) / 4)
    assert metrics["ap_real"] == pytest.approx((1 + 1 + 3 / 4 + 4 / 6) / 4)
    assert metrics["accuracy"] == metrics["recall_fake"] == metrics["recall_real"] == 0.75
    assert (metrics["fpr_at_95_tpr"], metrics["tpr_at_1_fpr"]) == (0.5, 0.5)
    assert "partial_auc" not in metrics and "ci" not in metrics and "undefined" not in metrics


def test_a_level_that_is_met_exactly_is_met():
    # 19 of 20 fakes above every real clip; the last one below 3 of 10.
    labels = [1] * 20 + [0] * 10
    scores = [0.9] * 19 + [0.35] + [0.5] * 3 + [0.2] * 7
    metrics = detection_metrics(labels, scores)
    assert (metrics["fpr_at_95_tpr"], metrics["fpr_at_99_tpr"]) == (0.0, 0.3)
    # One of 100 real clips above 8 of 10 fakes: 1 % of false alarms is allowed.
    metrics = detection_metrics([0] * 100 + [1] * 10, [0.9] + [0.1] * 99 + [0.95] * 2 + [0.8] * 8)
    assert metrics["tpr_at_1_fpr"] == 1.0


def test_a_tie_at_the_threshold():
    metrics = detection_metrics([0, 1, 1], [0.5, 0.5, 0.5])
    assert (metrics["recall_fake"], metrics["recall_real"]) == (1.0, 0.0)
    assert (metrics["accuracy"], metrics["accuracy_argmax"]) == (2 / 3, 1 / 3)
    # The likelier class does not depend on the threshold.
    assert detection_metrics([0, 1], [0.6, 0.7], threshold=0.65)["accuracy_argmax"] == 0.5


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_keeps_what_it_defines(label):
    metrics = detection_metrics([label] * 4, [0.2, 0.6, 0.9, 0.95], n_resamples=50, max_fpr=0.1)
    name = ("real", "fake")[label]
    assert metrics["undefined"] == f"all 4 clips are {name}"
    assert {key for key, value in metrics.items() if value is None} == RANKING | {
        f"recall_{('fake', 'real')[label]}"
    }
    assert metrics[f"recall_{name}"] == metrics["accuracy"] == (0.25, 0.75)[label]
    # No resample lacks a class that the clips have.
    assert metrics["ci_skipped"] == 0
    assert set(metrics["ci"]) == {"accuracy", "accuracy_argmax", f"recall_{name}", "brier", "ece"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "at least one"),
        (([0, 1], [0.5]), r"\(2,\) and \(1,\)"),
        (([[0, 1]], [[0.5, 0.5]]), r"\(1, 2\)"),
        (([0, 2, -1], [0.1, 0.2, 0.3]), "got -1, 2"),
        (([0, None], [0.1, 0.2]), "got None"),
        (([0, 0.5], [0.1, 0.2]), "got 0.5"),
        ((["real", "fake"], [0.1, 0.2]), "got 'fake', 'real'"),
        (([0, 1], [0.1, 1.2]), "1 are not, the first is 1.2 at position 1"),
        (([0, 1], [-0.1, math.nan]), "2 are not, the first is -0.1 at position 0"),
        (([0, 1], [0.1, None]), "in \\[0, 1\\]"),
        (([0, 1], ["high", 0.2]), "must be numbers"),
        (([0, 1], [0.1, 0.2], 1.5), "threshold"),
        (([0, 1], [0.1, 0.2], math.nan), "threshold"),
        (([0, 1], [0.1, 0.2], 0.5, ["a"], 5), "each of the 2 clips; got 1"),
        (([0, 1], [0.1, 0.2], 0.5, "ab", 5), "one group for each"),
        (([0, 1], [0.1, 0.2], 0.5, None, -1), "n_resamples"),
        (([0, 1], [0.1, 0.2], 0.5, None, 2.5), "n_resamples"),
        (([0, 1], [0.1, 0.2], 0.5, None, 5, 95), "confidence"),
        (([0, 1], [0.1, 0.2], 0.5, None, 0, 0.95, 0, 1.0), "max_fpr"),
    ],
)
def test_impossible_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        detection_metrics(*arguments)


def test_equal_error_rate_alone():
    labels, scores = random_case(4)
    assert equal_error_rate(labels, scores) == detection_metrics(labels, scores)["eer"]
    with pytest.raises(ValueError, match="real and fake"):
        equal_error_rate([1, 1], [0.2, 0.3])


def test_threshold_is_chosen_in_the_middle_of_the_gap():
    assert choose_threshold([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="real and fake"):
        choose_threshold([1, 1], [0.1, 0.9])


# -- intervals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_equal_those_of_clips_that_are_repeated(seed, grouped):
    labels, scores = random_case(seed + 100)
    n, n_resamples = len(labels), 30
    groups = (
        [(None, "a", "b", 3)[k] for k in np.random.default_rng(seed).integers(0, 4, n)] if grouped else None
    )
    metrics = detection_metrics(labels, scores, 0.4, groups, n_resamples, 0.8, seed=seed, max_fpr=0.2)

    members: dict = {}
    for i in range(n):
        alone = groups is None or groups[i] is None
        members.setdefault(("alone", i) if alone else groups[i], []).append(i)
    clusters = list(members.values())
    draw = np.random.default_rng(seed)
    drawn = []
    for _ in range(n_resamples):
        picks = draw.integers(0, len(clusters), len(clusters))
        repeated = np.concatenate([clusters[pick] for pick in picks])
        if len(set(labels[repeated])) == 2:
            drawn.append(by_the_book(labels[repeated], scores[repeated], 0.4, 0.2))
    assert metrics["ci_clusters"] == len(clusters)
    assert metrics["ci_skipped"] == n_resamples - len(drawn)
    assert (metrics["ci_resamples"], metrics["ci_confidence"]) == (n_resamples, 0.8)
    assert set(metrics["ci"]) == set(drawn[0])
    for name, limits in metrics["ci"].items():
        assert limits == pytest.approx(np.quantile([d[name] for d in drawn], [0.1, 0.9]), abs=1e-12), name


def test_resamples_of_one_class_are_skipped_and_counted():
    labels, scores = [0, 1, 1], [0.2, 0.3, 0.9]
    metrics = detection_metrics(labels, scores, n_resamples=400, seed=3)
    # Neither of the classes in all of three draws: (2/3)^3 + (1/3)^3 = 1/3 of the resamples have one class.
    assert 400 / 3 - 40 < metrics["ci_skipped"] < 400 / 3 + 40
    assert metrics["ci"]["auc"] == [1.0, 1.0]
    assert metrics == detection_metrics(labels, scores, n_resamples=400, seed=3)
    assert metrics != detection_metrics(labels, scores, n_resamples=400, seed=4)


def test_without_clusters_to_draw_there_is_no_interval():
    one = detection_metrics([0, 1], [0.1, 0.9], groups=["x", "x"], n_resamples=10)
    assert one["ci"] is None and one["ci_clusters"] == 1 and "at least 2" in one["ci_undefined"]
    assert one["auc"] == 1.0
    none = cluster_bootstrap(lambda weights: None, 3, n_resamples=7)
    assert none["ci"] is None and none["ci_skipped"] == 7 and "none of the 7" in none["ci_undefined"]


def test_missing_groups_are_clusters_of_their_own():
    metrics = detection_metrics(
        [0, 1, 0, 1, 1], [0.5] * 5, groups=["a", None, None, math.nan, "a"], n_resamples=5
    )
    assert metrics["ci_clusters"] == 4
    with pytest.raises(ValueError, match="n_resamples"):
        cluster_bootstrap(lambda weights: {}, 3, n_resamples=0)


def test_intervals_cover_the_truth():
    # The mean of 40 clusters of 5 equal values each: about 95 of 100 intervals hold the true mean, 0. Intervals that
    # took the 200 values for independent would be less than half as wide, and hold it in some 62.
    covered = 0
    groups = np.repeat(np.arange(40), 5).tolist()
    for seed in range(100):
        values = np.repeat(np.random.default_rng(1000 + seed).normal(size=40), 5)
        ci = cluster_bootstrap(
            lambda weights, values=values: {"mean": weights @ values / weights.sum()},
            200,
            groups,
            200,
            seed=seed,
        )["ci"]["mean"]
        covered += ci[0] <= 0 <= ci[1]
    assert 87 <= covered <= 99


# -- as users load it ------------------------------------------------------------------------------------------------


def test_the_folder_is_a_metric_without_the_package(tmp_path):
    folder = shutil.copytree(FOLDER / "avd_detection", tmp_path / "elsewhere" / "avd_detection")
    labels, scores = random_case(1)
    options = {"threshold": 0.4, "n_resamples": 20, "seed": 2, "groups": [None, "a"] * 40, "max_fpr": 0.2}
    options["groups"] = options["groups"][: len(labels)]
    data = {"references": labels.tolist(), "predictions": scores.tolist()}
    tiny = {"references": [0, 1], "predictions": [1e-300, 2e-300]}
    wrong = {"references": [0, 1], "predictions": [0.1, 1.5]}
    result = run_loaded(folder, tmp_path, [{**data, **options}, tiny, wrong], "alone")
    assert result["attempted"] >= 15
    assert result["results"][0] == detection_metrics(labels, scores, **options)
    assert result["results"][1]["auc"] == 1.0
    assert result["results"][2].startswith("ValueError: Scores must be probabilities")


def test_the_package_s_own_folder_loads_without_importing_the_package(tmp_path):
    result = run_loaded(FOLDER / "avd_detection", tmp_path, [], "installed")
    assert result["attempted"] >= 15


@pytest.mark.parametrize("metric", ["avd_detection", "avd_localization"])
def test_card_has_what_the_hub_reads(metric):
    _, front, body = (FOLDER / metric / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["tags"] == ["evaluate", "metric"] and front["title"] and front["description"]
    titles = [line for line in body.splitlines() if line.startswith("#")]
    for title in ("Metric Description", "How to Use", "Inputs", "Output Values", "Examples", "Citation"):
        assert any(line.lstrip("# ") == title for line in titles), title
    assert "## Limitations and Bias" in titles
    returned = detection_metrics([0, 1], [0.1, 0.9], max_fpr=0.1, n_resamples=2, groups=[1, 1])
    if metric == "avd_detection":
        assert [name for name in returned if f"`{name}`" not in body] == []


def test_equal_scores_are_ranked_by_their_log_odds():
    labels, scores, log_odds = [0, 1, 0, 1, 1], [1.0, 1.0, 0.3, 1.0, 0.2], [40.0, 50.0, -0.85, 60.0, -1.39]
    tied, ranked = detection_metrics(labels, scores), detection_metrics(labels, SureScores(scores, log_odds))
    assert tied["auc"] == 3 / 6 and ranked["auc"] == 4 / 6
    assert ranked["auc"] == detection_metrics(labels, [0.7, 0.8, 0.3, 0.9, 0.2])["auc"]
    for name in ("accuracy", "recall_fake", "recall_real", "brier", "ece"):
        assert tied[name] == ranked[name]
    # a score decides before log-odds that contradict it
    assert detection_metrics([0, 1], SureScores([0.4, 0.6], [9.0, 0.0]))["auc"] == 1.0
    with pytest.raises(ValueError, match="log_odds must be finite"):
        detection_metrics([0, 1], SureScores([0.4, 0.6], [9.0]))

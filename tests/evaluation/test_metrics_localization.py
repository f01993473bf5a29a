"""Localization metrics against the protocol written out, and the metric as users load it."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
from metric_folders import FOLDER, run_loaded

from modeling_avlmm.evaluation.metrics import localization_metrics

IOUS = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def random_case(seed: int, ties_inside: bool = True) -> tuple[list, list]:
    """Return files on a grid of tenths of a second, so that IoUs meet thresholds; many confidences are equal."""
    draw = np.random.default_rng(seed)
    references, predictions = [], []
    for _ in range(int(draw.integers(1, 12))):
        edges = np.sort(draw.choice(40, 2 * int(draw.integers(0, 4)), replace=False)) / 10
        true = edges.reshape(-1, 2).tolist()
        proposed = []
        for k in range(int(draw.integers(0, 8))):
            near = true[int(draw.integers(0, len(true)))] if true and k % 2 else draw.integers(0, 40, 2) / 10
            start, end = sorted(np.round(np.asarray(near) + draw.integers(-1, 2, 2) / 10, 1).tolist())
            proposed.append([float(draw.integers(0, 10)) / 10, start, end])
        if not ties_inside:
            proposed = list({row[0]: row for row in proposed}.values())
        references.append(true)
        predictions.append(proposed)
    return references, predictions


def overlap(proposed, true) -> np.float32:
    (_, a, b), (c, d) = np.array(proposed, dtype=np.float32), np.array(true, dtype=np.float32)
    both = max(min(b, d) - max(a, c), np.float32(0))
    return both / (max(b, d) - min(a, c)) if both > 0 else np.float32(0)


def ap_by_the_book(references, predictions, threshold: float, sdk_compatible: bool) -> float:
    ranked = []
    for true, proposed in zip(references, predictions, strict=True):
        proposed = sorted(proposed, key=lambda row: -row[0])
        taken = set()
        for segment in true:
            near = (i for i, row in enumerate(proposed) if overlap(row, segment) > np.float32(threshold))
            taken |= {next((i for i in near if i not in taken), None)}
        ranked += [(row[0], i in taken) for i, row in enumerate(proposed)]
    ranked.sort(key=lambda row: -row[0])
    total, points = sum(map(len, references)), []
    for i in range(len(ranked)):
        if sdk_compatible or i == len(ranked) - 1 or ranked[i + 1][0] != ranked[i][0]:
            hits = sum(hit for _, hit in ranked[: i + 1])
            points.append((hits / total, hits / (i + 1)))
    area = 0.0
    for k, (recall, _) in enumerate(points):
        before = points[k - 1][0] if k else (recall if sdk_compatible else 0.0)
        area += (recall - before) * max(precision for _, precision in points[k:])
    return area


def ar_by_the_book(references, predictions, number: int, sdk_compatible: bool) -> float:
    recalls = []
    for threshold in IOUS:
        found = expected = 0
        for true, proposed in zip(references, predictions, strict=True):
            best = sorted(proposed, key=lambda row: -row[0])[:number]
            found += sum(
                any(overlap(row, segment) > np.float32(threshold) for row in best) for segment in true
            )
            expected += len(true) if proposed or not sdk_compatible else 0
        recalls.append(found / expected if expected else 0.0)
    return float(np.mean(recalls))


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("sdk_compatible", [True, False])
@pytest.mark.parametrize("benchmark", ["av_deepfake1m", "lav_df"])
def test_every_metric_equals_its_definition(seed, sdk_compatible, benchmark):
    references, predictions = random_case(seed)
    if not any(references):
        references[0] = [[0.5, 1.5]]
    metrics = localization_metrics(references, predictions, benchmark, sdk_compatible=sdk_compatible)
    thresholds, numbers = {
        "av_deepfake1m": ([0.5, 0.75, 0.9, 0.95], [50, 30, 20, 10, 5]),
        "lav_df": ([0.5, 0.75, 0.95], [100, 50, 20, 10]),
    }[benchmark]
    expected = {f"ap@{t}": ap_by_the_book(references, predictions, t, sdk_compatible) for t in thresholds}
    expected |= {f"ar@{n}": ar_by_the_book(references, predictions, n, sdk_compatible) for n in numbers}
    if benchmark == "av_deepfake1m":
        weights = {"ap": 1 / 8, "ar": 1 / 10}
        expected["score"] = sum(weights[name[:2]] * value for name, value in expected.items())
    assert [name for name in metrics if name[:3] in ("ap@", "ar@", "sco")] == list(expected)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-12), name
    assert metrics["n_files"] == len(references) and metrics["n_segments"] == sum(map(len, references))
    assert metrics["n_proposals"] == sum(map(len, predictions))


@pytest.mark.parametrize("seed", range(10))
def test_few_proposals_and_low_thresholds(seed):
    references, predictions = random_case(seed)
    references.append([[0.5, 1.5]])
    predictions.append([[0.7, 0.5, 1.5]])
    metrics = localization_metrics(
        references, predictions, ap_iou_thresholds=[0, 0.3], ar_n_proposals=[1, 2, 3]
    )
    assert "score" not in metrics
    for threshold in (0, 0.3):
        expected = ap_by_the_book(references, predictions, threshold, True)
        assert metrics[f"ap@{threshold}"] == pytest.approx(expected, abs=1e-12)
    for number in (1, 2, 3):
        expected = ar_by_the_book(references, predictions, number, True)
        assert metrics[f"ar@{number}"] == pytest.approx(expected, abs=1e-12)


def test_perfect_proposals():
    references = [[[1.0, 2.0], [3.0, 3.5]], [[0.0, 0.5]], []]
    predictions = [[[0.9, 1.0, 2.0], [0.8, 3.0, 3.5]], [[0.7, 0.0, 0.5]], []]
    metrics = localization_metrics(references, predictions, sdk_compatible=False)
    assert {metrics[f"ap@{t}"] for t in (0.5, 0.75, 0.9, 0.95)} == {1.0}
    assert metrics["ar@5"] == metrics["score"] == 1.0
    # The published code leaves out the step to the first hit: one of three segments.
    assert localization_metrics(references, predictions)["ap@0.95"] == pytest.approx(2 / 3)
    single = localization_metrics([[[1.0, 2.0]]], [[[0.9, 1.0, 2.0]]])
    assert (single["ap@0.5"], single["ar@5"]) == (0.0, 1.0)


def test_an_overlap_must_exceed_the_threshold():
    # IoU of exactly 0.5 and 0.75.
    metrics = localization_metrics(
        [[[0.0, 1.0]], [[0.0, 1.0]]], [[[0.9, 0.0, 0.5]], [[0.8, 0.0, 0.75]]], sdk_compatible=False
    )
    assert (metrics["ap@0.5"], metrics["ap@0.75"]) == (0.25, 0.0)
    assert metrics["ar@5"] == pytest.approx((0 + 5 / 10) / 2)


def test_a_proposal_is_a_hit_once_and_a_second_one_is_a_false_alarm():
    # The first segment takes the surer proposal although the other fits it better; the second takes what is left.
    references = [[[0.0, 1.0], [0.2, 1.2]]]
    predictions = [[[0.9, 0.1, 1.1], [0.8, 0.0, 1.0], [0.7, 0.2, 1.2]]]
    metrics = localization_metrics(references, predictions, sdk_compatible=False)
    assert metrics["ap@0.5"] == 1.0
    assert metrics["ap@0.95"] == pytest.approx(2 / 3)  # hits at ranks 2 and 3
    twice = [[[0.9, 0.0, 1.0], [0.8, 0.0, 1.0], [0.7, 0.2, 1.2]]]
    assert localization_metrics(references, twice, sdk_compatible=False)["ap@0.95"] == pytest.approx(5 / 6)


def test_files_without_proposals():
    references, predictions = [[[0.0, 1.0]], [[2.0, 3.0]], []], [[[0.9, 0.0, 1.0]], [], []]
    published = localization_metrics(references, predictions)
    right = localization_metrics(references, predictions, sdk_compatible=False)
    assert (published["ar@5"], right["ar@5"]) == (1.0, 0.5)
    assert (published["ap@0.5"], right["ap@0.5"]) == (0.0, 0.5)
    assert published["n_files_without_proposals"] == right["n_files_without_proposals"] == 1
    for sdk_compatible in (True, False):
        nothing = localization_metrics(references, [[], [], []], sdk_compatible=sdk_compatible)
        assert (nothing["ap@0.5"], nothing["ar@5"], nothing["score"]) == (0.0, 0.0, 0.0)


def test_order_of_files_and_of_proposals():
    references, predictions = random_case(3)
    assert any(len(true) for true in references)
    turned = localization_metrics(references[::-1], predictions[::-1], sdk_compatible=False)
    assert turned == pytest.approx(localization_metrics(references, predictions, sdk_compatible=False))
    references, predictions = random_case(3, ties_inside=False)
    shuffled = [proposed[::-1] for proposed in predictions]
    assert localization_metrics(references, shuffled) == localization_metrics(references, predictions)


@pytest.mark.parametrize("predictions", [[[], []], [[[0.9, 0.0, 1.0]], []]])
def test_genuine_files_alone_define_nothing(predictions):
    metrics = localization_metrics([[], []], predictions, n_resamples=5)
    assert metrics["undefined"] == "none of the 2 files has a fake segment"
    assert [metrics[name] for name in ("ap@0.5", "ap@0.95", "ar@50", "ar@5", "score")] == [None] * 5
    assert metrics["ci"] is None and metrics["ci_skipped"] == 5
    assert not any(isinstance(value, float) and math.isnan(value) for value in metrics.values())


def test_points_in_time_overlap_with_nothing():
    metrics = localization_metrics(
        [[[1.0, 1.0]]], [[[0.9, 1.0, 1.0], [0.8, 0.0, 2.0]]], ap_iou_thresholds=[0]
    )
    assert metrics["ap@0"] == metrics["ar@50"] == 0.0


@pytest.mark.parametrize(
    ("references", "predictions", "options", "message"),
    [
        ([], [], {}, "at least one file"),
        ([[]], [[], []], {}, "got 2 and 1"),
        ([[[2.0, 1.0]]], [[]], {}, r"Segments of file 0 .* number 0 is \[2.0, 1.0\]"),
        ([[]], [[[0.5, 0.0, 1.0], [0.4, 2.0, 1.0]]], {}, r"Proposals of file 0 .* number 1"),
        ([[]], [[[math.nan, 0.0, 1.0]]], {}, "finite"),
        ([[]], [[[0.5, 0.0, math.inf]]], {}, "finite"),
        ([[]], [[[0.0, 1.0]]], {}, "lists of 3 numbers"),
        ([[[0.5, 0.0, 1.0]]], [[]], {}, "lists of 2 numbers"),
        ([[[0.5, None]]], [[]], {}, "Segments of file 0"),
        ([[[0.5], [0.5, 1.0]]], [[]], {}, "lists of 2 numbers"),
        ([[]], [[]], {"benchmark": "lavdf"}, "av_deepfake1m"),
        ([[]], [[]], {"ap_iou_thresholds": [1.0]}, "IoU"),
        ([[]], [[]], {"ar_n_proposals": [0]}, "at least 1"),
        ([[]], [[]], {"n_resamples": -1}, "n_resamples"),
        ([[]], [[]], {"n_resamples": 5, "groups": ["a", "b"]}, "each of the 1"),
    ],
)
def test_impossible_input_is_refused(references, predictions, options, message):
    with pytest.raises(ValueError, match=message):
        localization_metrics(references, predictions, **options)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sdk_compatible", [True, False])
def test_intervals_equal_those_of_files_that_are_repeated(seed, sdk_compatible):
    # Repeating a file interleaves its own equal confidences, whose order counts only as in the published code.
    references, predictions = random_case(seed + 50, ties_inside=not sdk_compatible)
    references += [[[0.5, 1.5]], [[0.0, 1.0]]]
    predictions += [[[0.95, 0.5, 1.5]], []]
    groups = [None if i % 3 else "same" for i in range(len(references))]
    options = {"benchmark": "lav_df", "sdk_compatible": sdk_compatible}
    metrics = localization_metrics(
        references, predictions, groups=groups, n_resamples=20, seed=seed, **options
    )

    alone = [i for i, group in enumerate(groups) if group is None]
    clusters = sorted([[i for i, group in enumerate(groups) if group], *([i] for i in alone)])
    draw, drawn = np.random.default_rng(seed), []
    for _ in range(20):
        picks = draw.integers(0, len(clusters), len(clusters))
        repeated = sorted(i for pick in picks for i in clusters[pick])
        again = localization_metrics(
            [references[i] for i in repeated], [predictions[i] for i in repeated], **options
        )
        if "undefined" not in again:
            drawn.append(again)
    assert metrics["ci_clusters"] == len(clusters) and metrics["ci_skipped"] == 20 - len(drawn)
    assert set(metrics["ci"]) == {"ap@0.5", "ap@0.75", "ap@0.95", "ar@100", "ar@50", "ar@20", "ar@10"}
    for name, limits in metrics["ci"].items():
        assert limits == pytest.approx(np.quantile([d[name] for d in drawn], [0.025, 0.975]), abs=1e-12), name


# -- as users load it ------------------------------------------------------------------------------------------------


def test_the_folder_is_a_metric_without_the_package(tmp_path):
    folder = shutil.copytree(FOLDER / "avd_localization", tmp_path / "elsewhere" / "avd_localization")
    references, predictions = random_case(7)
    data = {"references": references, "predictions": predictions}
    empty = {"references": [[], [[0.0, 1.0]]], "predictions": [[], []]}
    result = run_loaded(folder, tmp_path, [data, empty, {**data, "n_resamples": 5}], "alone")
    assert result["attempted"] >= 10
    assert result["results"][0] == localization_metrics(references, predictions)
    assert result["results"][1]["ap@0.5"] == 0.0 and result["results"][1]["n_files_without_proposals"] == 1
    assert result["results"][2].startswith("ModuleNotFoundError: Intervals (n_resamples) need the package")


def test_intervals_come_from_the_installed_package(tmp_path):
    references, predictions = random_case(7)
    data = {"references": references, "predictions": predictions, "n_resamples": 5}
    result = run_loaded(FOLDER / "avd_localization", tmp_path, [data], "installed")
    assert result["results"] == [localization_metrics(**data)]

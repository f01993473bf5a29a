"""Metrics against definitions written out, predictions that survive a kill, and the folder of an evaluation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import Dataset
from transformers import pipeline

from modeling_avlmm import AVLMMForDeepfakeDetection, AVLMMProcessor
from modeling_avlmm.evaluation import (
    choose_threshold,
    detection_metrics,
    evaluate_detector,
    load_predictions,
    predict,
)
from modeling_avlmm.evaluation.command import EvaluationError, evaluate_protocol
from modeling_avlmm.evaluation.identity import detector_identity
from modeling_avlmm.evaluation.metrics import equal_error_rate
from modeling_avlmm.evaluation.table import markdown_table, metrics_table

RANKING = ("auc", "ap_fake", "map_macro", "eer", "balanced_accuracy")


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores; every other case has many ties."""
    draw = np.random.default_rng(seed)
    n = int(draw.integers(4, 60))
    labels = draw.integers(0, 2, n)
    labels[:2] = (0, 1)
    scores = np.clip(draw.normal(0.4 + 0.2 * labels, 0.3), 0, 1)
    return labels, scores.round(1) if seed % 2 else scores


# -- metrics, by their definitions -----------------------------------------------------------------------------------


def pairs_auc(labels, scores) -> float:
    """Share of (real, fake) pairs in the right order; a tie is half right."""
    real, fake = scores[labels == 0], scores[labels == 1]
    return float(np.mean([(f > r) + 0.5 * (f == r) for f in fake for r in real]))


def stepwise_ap(positive, scores) -> float:
    """Sum over thresholds of precision times the gain in recall."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = scores >= threshold
        new = positive[called].sum() / positive.sum()
        total += positive[called].mean() * (new - recall)
        recall = new
    return float(total)


def bisected_eer(labels, scores) -> float:
    """Where the ROC curve, its points joined by lines, meets the line of equal errors."""
    points = [(0.0, 0.0)]
    for threshold in sorted(set(scores), reverse=True):
        called = scores >= threshold
        points.append((called[labels == 0].mean(), called[labels == 1].mean()))
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        # Position along the curve, the same for every segment.
        at = share * (len(points) - 1)
        index = min(int(at), len(points) - 2)
        (x0, y0), (x1, y1) = points[index], points[index + 1]
        x, y = x0 + (at - index) * (x1 - x0), y0 + (at - index) * (y1 - y0)
        low, high = (share, high) if x < 1 - y else (low, share)
    return float(x)


@pytest.mark.parametrize("seed", range(12))
def test_metrics_equal_their_definitions(seed):
    labels, scores = random_case(seed)
    metrics = detection_metrics(labels, scores, threshold=0.5)
    assert metrics["auc"] == pytest.approx(pairs_auc(labels, scores), abs=1e-12)
    assert metrics["ap_fake"] == pytest.approx(stepwise_ap(labels, scores), abs=1e-12)
    both = (stepwise_ap(labels, scores) + stepwise_ap(1 - labels, -scores)) / 2
    assert metrics["map_macro"] == pytest.approx(both, abs=1e-12)
    assert metrics["eer"] == pytest.approx(bisected_eer(labels, scores), abs=1e-9)
    called = scores >= 0.5
    assert metrics["recall_fake"] == pytest.approx(called[labels == 1].mean())
    assert metrics["recall_real"] == pytest.approx((~called)[labels == 0].mean())
    assert metrics["balanced_accuracy"] == pytest.approx(
        (metrics["recall_fake"] + metrics["recall_real"]) / 2
    )
    assert metrics["accuracy"] == pytest.approx((called == (labels == 1)).mean())
    assert metrics["n"] == len(labels) == metrics["n_real"] + metrics["n_fake"]


def test_perfect_reversed_and_constant_scores():
    labels = [0, 0, 1, 1, 1]
    perfect = detection_metrics(labels, [0.1, 0.2, 0.7, 0.8, 0.9])
    assert [perfect[name] for name in RANKING] == [1.0, 1.0, 1.0, 0.0, 1.0]
    reverse = detection_metrics(labels, [0.9, 0.8, 0.3, 0.2, 0.1])
    assert (reverse["auc"], reverse["eer"], reverse["balanced_accuracy"]) == (0.0, 1.0, 0.0)
    constant = detection_metrics(labels, [0.5] * 5)
    assert (constant["auc"], constant["eer"], constant["ap_fake"]) == (0.5, 0.5, 0.6)
    assert constant["prior_accuracy"] == constant["accuracy"] == 0.6


@pytest.mark.parametrize(("label", "name"), [(0, "real"), (1, "fake")])
def test_one_class_has_no_ranking_metrics(label, name):
    metrics = detection_metrics([label] * 3, [0.2, 0.6, 0.9])
    assert [metrics[key] for key in RANKING] == [None] * 5
    assert metrics["undefined"] == f"all 3 clips are {name}"
    assert metrics["prior_accuracy"] == 1.0


def test_very_small_scores_keep_their_order():
    # 1 - 1e-20 is 1 in floating point: the average precision of real must not be taken from it.
    metrics = detection_metrics([0, 1, 1, 0], [1e-22, 1e-20, 1e-19, 1e-21])
    assert metrics["map_macro"] == metrics["auc"] == 1.0


@pytest.mark.parametrize(
    ("labels", "scores"),
    [([], []), ([0, 1], [0.5]), ([0, 2], [0.1, 0.2]), ([0, 1], [0.1, 1.2]), ([0, 1], [0.1, float("nan")])],
)
def test_impossible_input_is_refused(labels, scores):
    with pytest.raises(ValueError):
        detection_metrics(labels, scores)


@pytest.mark.parametrize("seed", range(8))
def test_no_threshold_is_better_than_the_chosen_one(seed):
    labels, scores = random_case(seed)

    def balanced(threshold: float) -> float:
        called = scores >= threshold
        return (called[labels == 1].mean() + (~called[labels == 0]).mean()) / 2

    best = max(balanced(threshold) for threshold in [*np.linspace(0, 1, 501), *scores])
    assert balanced(choose_threshold(labels, scores)) == pytest.approx(best, abs=1e-12)


def test_threshold_is_the_middle_of_the_gap():
    assert choose_threshold([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]) == pytest.approx(0.5)
    assert choose_threshold([0, 1], [0.90, 0.94]) == pytest.approx(0.92)
    next_to_it = np.nextafter(0.3, 1)
    assert choose_threshold([0, 1], [0.3, next_to_it]) == next_to_it
    with pytest.raises(ValueError, match="real and fake"):
        choose_threshold([1, 1], [0.1, 0.9])


def test_equal_error_rate_is_interpolated():
    # The curve goes from (0, 0.5) to (0.5, 1): it meets the diagonal of equal errors at 0.25.
    assert equal_error_rate([1, 0, 1, 0], [0.9, 0.5, 0.5, 0.1]) == pytest.approx(0.25)


# -- the report ------------------------------------------------------------------------------------------------------


def prediction(path: str, label: int, score: float | None, **more) -> dict:
    entry = {
        "path": path,
        "label": label,
        "score": score,
        "video_score": score,
        "audio_score": None,
        "error": None,
    }
    return {
        **entry,
        "video_label": None,
        "audio_label": None,
        "generator": None,
        "audio_generator": None,
        **more,
    }


def test_report_counts_what_it_leaves_out():
    bad = {"type": "UnreadableMediaError", "message": "x"}
    predictions = [
        prediction("a", 0, 0.2, video_label=0, generator="real"),
        prediction("b", 1, 0.9, video_label=1, generator="memo"),
        prediction("c", 1, 0.1, generator="real", audio_generator="rtvc"),
        prediction("d", 1, 0.8, video_label=1, generator="memo", audio_generator="rtvc", error=bad),
        prediction("e", 0, None, video_label=0, error=bad),
    ]
    report = evaluate_detector(predictions, threshold=0.5)
    assert report["unreadable"] == ["e"] and report["cut_short"] == ["d"]
    assert report["overall"]["n"] == 4 and report["overall"]["auc"] == pytest.approx(2 / 3)
    assert report["video"]["n"] == 3 and report["audio"] is None
    assert {kind: m["n"] for kind, m in report["by_generator"].items()} == {
        "memo": 2,
        "memo + rtvc": 2,
        "rtvc": 2,
    }
    assert report["by_generator"]["rtvc"]["auc"] == 0.0

    report |= {"clips": 5, "threshold": 0.5, "threshold_source": "given"}
    text = metrics_table(report)
    assert "1 of 5 clips could not be read" in text
    lines = [line for line in text.splitlines() if line.startswith(("overall", "picture", "sound", "fake:"))]
    assert len(lines) == 5 and len({len(line) for line in lines}) == 1
    assert markdown_table(report).count("\n") == 6


# -- predictions -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector(tiny_detector):
    return pipeline("av-deepfake-detection", model=str(tiny_detector), device="cpu")


@pytest.fixture
def dataset(clips) -> Dataset:
    names = ("clip", "broken", "silent", "short", "sound")
    labels = {
        "label": [0, 0, 1, 1, 1],
        "video_label": [0, 0, 1, None, None],
        "audio_label": [0, 0, None, None, 1],
    }
    return Dataset.from_dict({"video": [str(clips[n]) for n in names], "path": list(names), **labels})


def test_predictions_are_one_line_a_clip(detector, dataset, tmp_path):
    predictions = predict(detector, dataset, tmp_path / "p.jsonl", batch_size=2)
    assert [p["path"] for p in predictions] == dataset["path"]
    assert [p["score"] is None for p in predictions] == [False, True, False, False, False]
    assert predictions[1]["error"]["type"] == "UnreadableMediaError"
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert lines == predictions
    assert load_predictions(tmp_path / "p.jsonl") == {p["path"]: p for p in predictions}


@pytest.mark.parametrize("cut", [0, 1, 5, -2, None], ids=["empty", "byte", "few", "almost", "whole"])
def test_a_run_that_was_killed_goes_on(detector, dataset, tmp_path, cut, monkeypatch):
    file = tmp_path / "p.jsonl"
    whole = predict(detector, dataset, file)
    lines = file.read_text().splitlines(keepends=True)
    kept = 2
    file.write_text("".join(lines[:kept]) + lines[kept][:cut])
    kept += cut is None

    opened = []
    windows = type(detector)._windows
    monkeypatch.setattr(
        type(detector),
        "_windows",
        lambda self, source, *rest: opened.append(source["path"]) or windows(self, source, *rest),
    )
    assert predict(detector, dataset, file) == whole
    assert opened == dataset["path"][kept:]
    assert [json.loads(line)["path"] for line in file.read_text().splitlines()] == dataset["path"]


def test_corrected_labels_are_seen_without_scoring_again(detector, dataset, tmp_path):
    file = tmp_path / "p.jsonl"
    before = predict(detector, dataset, file)
    corrected = dataset.remove_columns("label").add_column("label", [1, 1, 0, 0, 0])
    after = predict(detector, corrected, file)
    assert [p["label"] for p in after] == [1, 1, 0, 0, 0]
    assert [p["score"] for p in after] == [p["score"] for p in before]


def test_two_clips_of_one_name_are_refused(detector, dataset, tmp_path):
    twice = dataset.select([0, 0])
    with pytest.raises(ValueError, match="same path"):
        predict(detector, twice, tmp_path / "p.jsonl")


# -- whose predictions they are --------------------------------------------------------------------------------------


def test_identity_tells_detectors_apart(tiny_detector):
    model, processor = (
        AVLMMForDeepfakeDetection.from_pretrained(tiny_detector),
        AVLMMProcessor.from_pretrained(tiny_detector),
    )
    identity = detector_identity(model, processor)
    again = detector_identity(AVLMMForDeepfakeDetection.from_pretrained(tiny_detector), processor)
    assert identity == again

    processor.fps = 2.0
    changed = detector_identity(model, processor)
    assert {name for name in identity if identity[name] != changed[name]} == {"sampling"}
    for parameter in (
        next(model.audio_encoder.parameters()),
        model.language_model.layers[1].mlp.up_proj.weight,
    ):
        before = parameter.data.clone()
        parameter.data += 1e-4
        assert detector_identity(model, processor)["weights"] != identity["weights"]
        parameter.data = before
    assert detector_identity(model, processor)["weights"] == identity["weights"]


# -- a protocol ------------------------------------------------------------------------------------------------------


def evaluate(model, folder, output_dir, **options) -> dict:
    options = {"device": "cpu", "batch_size": 4, **options}
    report, where = evaluate_protocol(str(model), "avfolder", folder, output_dir=output_dir, **options)
    assert where == output_dir
    return report


def test_protocol_folder(tiny_detector, clip_folder, tmp_path):
    report = evaluate(tiny_detector, clip_folder, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written == {key: value for key, value in report.items() if key != "table"}
    assert report["clips"] == 7 and report["overall"]["n"] == 6
    assert report["unreadable"] == ["test/fake/beta/broken.mp4"]
    assert "broken.mp4" in (tmp_path / "out" / "unreadable.txt").read_text()
    assert set(report["by_generator"]) == {"alpha", "beta"} and report["environment"]["torch"]

    predictions = load_predictions(tmp_path / "out" / "predictions_validation.jsonl").values()
    chosen = choose_threshold([p["label"] for p in predictions], [p["score"] for p in predictions])
    assert report["threshold"] == chosen and report["threshold_source"] == "validation"
    assert report["threshold_clips"] == 6


def test_threshold_can_be_given(tiny_detector, clip_folder, tmp_path):
    report = evaluate(tiny_detector, clip_folder, tmp_path / "out", threshold="0.25")
    assert report["threshold"] == 0.25 == report["overall"]["threshold"]
    assert report["threshold_source"] == "given" and report["threshold_clips"] is None
    assert not (tmp_path / "out" / "predictions_validation.jsonl").exists()
    report = evaluate(tiny_detector, clip_folder, tmp_path / "out", threshold="model")
    assert report["threshold"] == 0.5 and report["threshold_source"] == "the model's own"


def test_predictions_of_two_models_are_never_mixed(tiny_detector, tiny_backbone, clip_folder, tmp_path):
    out = tmp_path / "out"
    evaluate(tiny_detector, clip_folder, out, threshold=0.5)
    evaluate(tiny_detector, clip_folder, out, threshold=0.5)  # the same one goes on
    lines = (out / "predictions_test.jsonl").read_text()
    with pytest.raises(EvaluationError, match=r"holds predictions of .* differs in sampling"):
        evaluate(tiny_backbone, clip_folder, out)
    with pytest.raises(EvaluationError, match=r"differs in .*dtype"):
        evaluate(tiny_detector, clip_folder, out, dtype="bfloat16")
    with pytest.raises(EvaluationError, match="differs in protocol"):
        evaluate(tiny_detector, clip_folder / "test", out, protocol="split")
    assert (out / "predictions_test.jsonl").read_text() == lines
    (out / "run.json").unlink()
    with pytest.raises(EvaluationError, match=r"no run\.json"):
        evaluate(tiny_detector, clip_folder, out)


def test_an_untrained_backbone_is_scored_as_it_is(tiny_backbone, clip_folder, tmp_path):
    report = evaluate(tiny_backbone, clip_folder, tmp_path / "out", threshold="model")
    assert report["zero_shot"] and "Zero-shot" in report["table"]
    assert report["overall"]["n"] == 6


def test_wrong_names_are_answered_with_the_right_ones(tiny_detector, clip_folder, tmp_path):
    for options, text in (
        ({"dataset": "avfoldr"}, r"did you mean 'avfolder'.*fakeavceleb, mavos_dd"),
        ({"protocol": "splits"}, r"'splits' not found.*'all', 'split'"),
        ({"split": "tset"}, r"no split 'tset'; it has .*validation"),
        ({"data_dir": str(tmp_path / "nowhere")}, "nowhere"),
        ({"model": str(tmp_path / "nowhere")}, "no folder .*nowhere"),
        ({"threshold": "high"}, "threshold must be"),
        ({"threshold": "1.5"}, "threshold must be"),
        ({"device": "gpu"}, "device 'gpu'"),
        ({"dtype": "int7"}, "dtype 'int7'"),
    ):
        arguments = {"model": str(tiny_detector), "dataset": "avfolder", "data_dir": clip_folder, **options}
        with pytest.raises(EvaluationError, match=text):
            evaluate_protocol(**arguments, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()

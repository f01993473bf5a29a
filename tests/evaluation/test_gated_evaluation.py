"""Evaluating a cascade: who answered for each clip is kept and reported, and gated runs are not mixed with others."""

from __future__ import annotations

import pytest
from transformers import pipeline

from modeling_avlmm.evaluation.evaluate import evaluate_protocol
from modeling_avlmm.evaluation.evaluation_error import EvaluationError
from modeling_avlmm.evaluation.evaluation_options import EvaluationOptions
from modeling_avlmm.evaluation.predictions import read_predictions


def test_a_cascade_is_evaluated_and_says_who_answered(tiny_detector, gate_folder, clip_folder, tmp_path):
    common = {
        "model": str(tiny_detector),
        "dataset": "avfolder",
        "data_dir": clip_folder,
        "batch_size": 2,
        "n_resamples": 0,
        "device": "cpu",
    }
    alone = pipeline("av-deepfake-detection", model=str(gate_folder), device="cpu")
    results = alone([str(path) for path in clip_folder.rglob("*.mp4")])
    scores = sorted(result["score"] for result in results if result["score"] is not None)
    gated = {"gate": str(gate_folder), "gate_band": (scores[1], scores[-2])}
    report, folder = evaluate_protocol(EvaluationOptions(output_dir=tmp_path / "gated", **gated, **common))
    predictions, about = read_predictions(folder / "predictions.parquet")
    tested = [row for row in predictions if row["split"] == report["split"]]
    by = [row["decided_by"] for row in tested if row["score"] is not None]
    assert {row["decided_by"] for row in predictions} == {"gate", "model"}
    assert report["decided_by"] == {name: by.count(name) for name in set(by)}
    for row in predictions:
        if row["gate_score"] is None:
            continue
        sure = not gated["gate_band"][0] <= row["gate_score"] <= gated["gate_band"][1]
        assert (row["decided_by"] == "gate") == sure
        assert not sure or row["score"] == pytest.approx(row["gate_score"])
    assert about["gate"]["band"] == list(gated["gate_band"])
    text = (folder / "report.md").read_text()
    assert f"answered for {by.count('gate')} of {len(by)} clips" in text

    with pytest.raises(EvaluationError, match="gate"):
        evaluate_protocol(EvaluationOptions(output_dir=tmp_path / "gated", **common))
    with pytest.raises(EvaluationError, match="each by itself"):
        evaluate_protocol(EvaluationOptions(calibrate=True, **gated, **common))
    report, folder = evaluate_protocol(EvaluationOptions(output_dir=tmp_path / "plain", **common))
    assert report["decided_by"] is None
    assert "decided_by" not in read_predictions(folder / "predictions.parquet")[0][0]

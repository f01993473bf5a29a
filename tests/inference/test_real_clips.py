"""Real recordings and real deepfakes, where they lie beside the repository: every file gets a verdict."""

import csv
from pathlib import Path

import pytest
from transformers import pipeline

import modeling_avlmm  # noqa: F401

CLIPS = Path(__file__).parents[3] / "shared" / "clips"


@pytest.mark.skipif(not (CLIPS / "metadata.csv").is_file(), reason=f"no recordings in {CLIPS}")
def test_every_recording_gets_a_verdict(tiny_detector):
    with open(CLIPS / "metadata.csv", encoding="utf-8", newline="") as table:
        names = [row["file_name"] for row in csv.DictReader(table)]
    detector = pipeline("av-deepfake-detection", model=str(tiny_detector), device="cpu")
    results = detector([str(CLIPS / name) for name in names], batch_size=8)
    assert len(results) == len(names) > 0
    for name, result in zip(names, results, strict=True):
        assert result["error"] is None, (name, result["error"])
        assert result["label"] in ("real", "fake") and 0 <= result["score"] <= 1, name
        assert result["has_video"] and result["has_audio"] and result["num_frames"] > 0, name

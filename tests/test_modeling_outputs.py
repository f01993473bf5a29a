"""Scores of an output: by name, from tensors and from arrays."""

import math

import numpy as np
import pytest
import torch

from modeling_avlmm.modeling_outputs import AVDetectionOutput, calibrated, score_columns

NAN = math.nan
LOGITS = [[0.0, math.log(3)], [2.0, 2.0], [NAN, NAN]]  # P(fake) = 3/4, 1/2, none


def test_score_columns_of_tensors_and_arrays_are_the_same():
    given = {"logits": LOGITS, "audio_logits": LOGITS[::-1]}
    columns = score_columns(AVDetectionOutput(**{name: torch.tensor(rows) for name, rows in given.items()}))
    assert columns == {
        "score": [pytest.approx(0.75), 0.5, None],
        "video_score": [None] * 3,
        "audio_score": [None, 0.5, pytest.approx(0.75)],
    }
    assert score_columns({name: np.array(rows, np.float32) for name, rows in given.items()}) == columns
    assert all(type(score) is float for score in columns["score"][:2])


def test_calibration_divides_log_odds():
    assert calibrated(0.75, 2.0) == pytest.approx(1 / (1 + math.exp(-math.log(3) / 2)))
    assert calibrated(0.25, 2.0) == pytest.approx(1 - calibrated(0.75, 2.0))
    assert [calibrated(score, 2.0) for score in (None, 0.0, 0.5, 1.0)] == [None, 0.0, 0.5, 1.0]
    assert calibrated(0.3, 1.0) == 0.3 and 0 < calibrated(1e-30, 0.5) < 1e-50


def test_sure_scores_do_not_tie():
    """In float32 P(fake) is exactly 1 from log-odds of 16.7 on."""
    odds = [-40.0, -17.0, 0.0, 16.0, 17.0, 25.0, 36.0]
    (scores,) = (
        score_columns({"logits": torch.tensor([[0.0, value] for value in odds])})[name] for name in ("score",)
    )
    assert scores == sorted(set(scores)) and scores[0] > 0 and scores[-1] < 1
    for temperature in (0.5, 1.0, 3.0):
        again = [calibrated(score, temperature) for score in scores]
        assert again == sorted(again)
    assert [math.log(s / (1 - s)) for s in scores] == pytest.approx(odds, rel=0.03)

"""Scoring datasets and turning scores into numbers that can be compared."""

from .metrics import choose_threshold, detection_metrics
from .run import evaluate_detector, load_predictions, predict

__all__ = ["choose_threshold", "detection_metrics", "evaluate_detector", "load_predictions", "predict"]

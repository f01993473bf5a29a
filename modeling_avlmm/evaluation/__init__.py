"""Scoring datasets and turning scores into numbers that can be compared."""

from .metrics import choose_threshold, detection_metrics
from .predictions import predict, read_predictions, write_predictions
from .report import build_report

__all__ = [
    "build_report",
    "choose_threshold",
    "detection_metrics",
    "predict",
    "read_predictions",
    "write_predictions",
]

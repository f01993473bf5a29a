"""
Metrics. Each folder is also a module for `evaluate.load`, with its card in `README.md`.

`evaluate` runs a copy of such a folder, so a folder imports nothing outside it. The package imports both through this
file.
"""

from .avd_detection.bootstrap import cluster_bootstrap, cluster_indices, resampled_weights
from .avd_detection.detection import (
    DetectionStatistic,
    SureScores,
    check_labels_and_scores,
    choose_threshold,
    detection_metrics,
    equal_error_rate,
)
from .avd_localization.localization import localization_metrics

__all__ = [
    "DetectionStatistic",
    "SureScores",
    "check_labels_and_scores",
    "choose_threshold",
    "cluster_bootstrap",
    "cluster_indices",
    "detection_metrics",
    "equal_error_rate",
    "localization_metrics",
    "resampled_weights",
]

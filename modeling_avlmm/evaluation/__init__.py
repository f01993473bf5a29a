"""Scoring datasets, and turning scores into numbers that can be compared."""

from importlib import import_module
from typing import Any

# Imported on demand: it takes a second, and most commands need none of it.
_MODULE_OF = {
    "build_report": "report",
    "choose_threshold": "metrics",
    "detection_metrics": "metrics",
    "predict": "predictions",
    "read_predictions": "predictions",
    "write_predictions": "predictions",
}

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)

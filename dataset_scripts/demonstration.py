"""The mark that tells a folder of the demonstration benchmark from the corpus whose layout it has."""

from __future__ import annotations

from pathlib import Path

MARK = "demo_benchmark.json"
"""File that `dataset_scripts.demo_benchmark` writes above its corpora, with its settings."""


def is_demonstration(data_dir: str | Path | None) -> bool:
    """Return whether a corpus folder belongs to the synthetic benchmark, which must never pass for the real corpus."""
    if not data_dir:
        return False
    folder = Path(data_dir).resolve()
    return any((place / MARK).is_file() for place in (folder, folder.parent))

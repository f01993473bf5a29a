"""How a folder of the demonstration benchmark is told from the corpus whose layout it has."""

from __future__ import annotations

from pathlib import Path

MARK = "demo_benchmark.json"
"""What `dataset_scripts.demo_benchmark.benchmark` leaves above its corpora, with its settings."""


def is_demonstration(data_dir: str | Path | None) -> bool:
    """Whether a corpus folder is of the synthetic benchmark: it must never pass for the real one."""
    if not data_dir:
        return False
    folder = Path(data_dir).resolve()
    return any((place / MARK).is_file() for place in (folder, folder.parent))

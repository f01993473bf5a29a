"""Scores that another program gave: a CSV table with a path and a score in each row."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from dataset_scripts.errors import nearest

from ...configuration_detector import SCORE_NAMES
from ..evaluation_error import EvaluationError

ALL_SCORES = tuple(SCORE_NAMES.values())


def read_scores(file: str | Path, paths: Sequence[str]) -> tuple[dict[str, dict[str, dict]], list[dict]]:
    """
    Read scores from a CSV table.

    Needed columns: `path` (or `file_name`: as in the benchmark's table, or its last part alone) and `score`, a finite
    number that is higher for fakes. Optional: `video_score`, `audio_score`, and `detector`, for the scores of several
    detectors in one table. An empty score means that the detector gave none. Other columns are not read.

    Args:
        file (`str` or `Path`): The table.
        paths (`Sequence[str]`): Paths of the benchmark's files.

    Returns:
        `tuple[dict, list[dict]]`: by detector and path a `dict` of `score`, `video_score` and `audio_score` (None where
        there is none), and for each row that is of no file of the benchmark a `dict` of `path` and `reason`.

    Raises:
        EvaluationError: for a file that cannot be read, a missing column, a score that is no number, two rows for one
            file, or a table without any file of the benchmark.
    """
    file = Path(file)
    places = _places(paths)
    found: dict[str, dict[str, dict]] = {}
    strangers = []
    for where, row in _rows(file):
        name = (row.get("path") or row.get("file_name") or "").strip()
        path = places.get(name) or places.get(name.rpartition("/")[2])
        if path is None:
            strangers.append(
                {"path": name, "reason": f"in {file.name}, but not in the table of the benchmark"}
            )
            continue
        detector = (row.get("detector") or "").strip() or file.stem
        scores = found.setdefault(detector, {})
        if path in scores:
            raise EvaluationError(f"{where}: {path} has a score already.")
        scores[path] = {column: _score(row.get(column), f"{where}, column {column}") for column in ALL_SCORES}
    if not found:
        example = f"such as {strangers[0]['path']}; " if strangers else ""
        raise EvaluationError(
            f"{file} names no file of the benchmark ({example}the benchmark has {len(paths)} files, such as {paths[0]})."
        )
    return found, strangers


def _places(paths: Sequence[str]) -> dict[str, str]:
    """Return path by each name that stands for it: the path, and its last part where that is unique."""
    last: dict[str, list[str]] = {}
    for path in paths:
        last.setdefault(path.rpartition("/")[2], []).append(path)
    unique = {name: found[0] for name, found in last.items() if len(found) == 1}
    return {**unique, **{path: path for path in paths}}


def _rows(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row as (where it is, its cells)."""
    try:
        with open(file, newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            header = list(reader.fieldnames or [])
            for name in ("file_name" if "file_name" in header else "path", "score"):
                if name not in header:
                    raise EvaluationError(
                        f"{file} has no column {name!r}; it has {', '.join(header) or 'none'}.{nearest(name, header)}"
                    )
            for row in reader:
                yield f"{file}, line {reader.line_num}", row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{file} cannot be read: {error}.") from error


def _score(text: str | None, where: str) -> float | None:
    if text is None or not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise EvaluationError(
            f"{where}: {text!r} is no finite number; leave the cell empty if there is no score."
        )
    return value

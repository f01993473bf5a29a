"""Scores that other programs gave to the benchmark of real recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...configuration_detector import SCORE_NAMES
from ..evaluation_error import EvaluationError
from ..path_matching import PathMatcher
from ..score_tables import read_table

ALL_SCORES = tuple(SCORE_NAMES.values())


def read_scores(file: str | Path, paths: Sequence[str]) -> tuple[dict[str, dict[str, dict]], list[dict]]:
    """
    Read scores from a table, see [`read_table`].

    Needed columns: a path (as in the benchmark's table, or its last parts, see [`PathMatcher`]) and `score`, a finite
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
    table = read_table(file)
    columns = {**{name: name for name in ALL_SCORES}, "score": table.score_column}
    matcher = PathMatcher(paths)
    found: dict[str, dict[str, dict]] = {}
    strangers = []
    for where, row in table.rows:
        name = table.name_in(row)
        path, _ = matcher.match(name)
        if path is None:
            reason = f"in {table.file.name}, but not in the table of the benchmark"
            strangers.append({"path": name, "reason": reason})
            continue
        detector = str(row.get("detector") or "").strip() or table.file.stem
        scores = found.setdefault(detector, {})
        if path in scores:
            raise EvaluationError(f"{where}: {path} has a score already.")
        scores[path] = {key: table.score_in(where, row, column) for key, column in columns.items()}
    if not found:
        example = f"such as {strangers[0]['path']}; " if strangers else ""
        raise EvaluationError(
            f"{table.file} names no file of the benchmark ({example}the benchmark has {len(paths)} files, "
            f"such as {paths[0]})."
        )
    return found, strangers

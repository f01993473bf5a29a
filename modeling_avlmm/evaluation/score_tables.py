"""Tables of scores that another program wrote: CSV, Parquet, JSON lines, JSON, or lines of `file;score`."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dataset_scripts.errors import nearest

from .evaluation_error import EvaluationError

PATH_COLUMNS = ("path", "file_name", "video_path", "file", "video", "filename", "filepath", "video_name")
"""Recognised names of the column with the path, in any case; the first that a table has is taken."""
SCORE_COLUMNS = ("score", "p_fake", "prob_fake", "fake_prob", "probability", "prob", "prediction", "pred")
"""Recognised names of the column with the score; `score` is taken first, of the others a table may have one."""
DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": ";"}
JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class ScoreTable:
    """
    The rows of a table, each with the words that say where it is.

    Args:
        file (`Path`): The file.
        header (`list[str]`): Names of the columns.
        rows (`list[tuple[str, dict]]`): Place and cells of each row. Cells are text, numbers or None.
        path_column, score_column (`str`): The columns with the path and the score.
    """

    file: Path
    header: list[str]
    rows: list[tuple[str, dict]]
    path_column: str
    score_column: str

    def name_in(self, row: dict) -> str:
        """Return the path that a row is of, as text; empty where there is none."""
        value = row.get(self.path_column)
        return "" if value is None else str(value).strip()

    def score_in(self, where: str, row: dict, column: str | None = None) -> float | None:
        """Return the score of a row, or None for an empty cell; raises `EvaluationError` if it is no finite number."""
        column = self.score_column if column is None else column
        value = row.get(column)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise EvaluationError(
                f"{where}, column {column}: {value!r} is no finite number; leave the cell empty if there is no score."
            )
        return number


def read_table(
    file: str | Path, path_column: str | None = None, score_column: str | None = None
) -> ScoreTable:
    """
    Read a table of scores.

    - `.csv`, `.tsv`, `.parquet`: a table with a header.
    - `.jsonl`: an object in each line. `.json`: a list of such objects, or an object of scores, or of such objects, by
      path. Scores of both classes in a list, `{"a.mp4": [0.9, 0.1]}`, become the columns `0`, `1`.
    - `.txt`: lines of `file;score` without a header, the predictions of AV-Deepfake1M's SDK.

    Args:
        file (`str` or `Path`): The file.
        path_column, score_column (`str`, *optional*):
            Names of the columns; if left out, they are recognised, see `PATH_COLUMNS` and `SCORE_COLUMNS`.

    Raises:
        EvaluationError: for a file that cannot be read, or a column that is not there or could be several.
    """
    file = Path(file)
    suffix = file.suffix.lower()
    try:
        if suffix in DELIMITERS:
            header, rows = _delimited(file, DELIMITERS[suffix])
        elif suffix == ".parquet":
            table = pq.read_table(file)
            header = table.column_names
            rows = [(f"{file}, row {n}", row) for n, row in enumerate(table.to_pylist(), start=1)]
        elif suffix in JSON_LINES:
            header, rows = _objects(file, _json_lines(file))
        elif suffix == ".json":
            header, rows = _objects(file, _json(file))
        else:
            known = ", ".join((*DELIMITERS, ".parquet", ".jsonl", ".json"))
            raise EvaluationError(f"{file} is no table of scores: its name must end in {known}.")
    except (OSError, ValueError, csv.Error, pa.ArrowException, RecursionError) as error:
        raise EvaluationError(f"{file} cannot be read: {error}.") from error
    return ScoreTable(
        file, header, rows, _path(file, header, path_column), _score(file, header, score_column)
    )


def _delimited(file: Path, delimiter: str) -> tuple[list[str], list[tuple[str, dict]]]:
    header = ["path", "score"] if delimiter == ";" else None
    with open(file, newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines, fieldnames=header, delimiter=delimiter)
        rows = []
        for row in reader:
            where = f"{file}, line {reader.line_num}"
            if None in row:  # more cells than columns: which is the score cannot be told
                raise EvaluationError(f"{where} has more cells than there are columns.")
            rows.append((where, row))
        return list(reader.fieldnames or []), rows


def _json_lines(file: Path) -> Iterator[tuple[str, dict]]:
    with open(file, encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"{file}, line {number}", json.loads(line)


def _json(file: Path) -> Iterator[tuple[str, dict]]:
    content = json.loads(file.read_text(encoding="utf-8-sig"))
    if isinstance(content, list):
        yield from ((f"{file}, entry {number}", row) for number, row in enumerate(content, start=1))
        return
    if not isinstance(content, dict):
        raise EvaluationError(f"{file} holds neither a list nor an object.")
    for path, value in content.items():
        where = f"{file}, {path}"
        if isinstance(value, dict):
            yield where, {**value, "path": path}
        elif isinstance(value, list):
            if not value or any(isinstance(part, list) for part in value):
                raise EvaluationError(
                    f"{where}: these are segments with a confidence each, not a score of the whole file."
                )
            yield where, {"path": path, **{str(index): part for index, part in enumerate(value)}}
        else:
            yield where, {"path": path, "score": value}


def _objects(file: Path, entries: Iterator[tuple[str, dict]]) -> tuple[list[str], list[tuple[str, dict]]]:
    header, rows = {}, []
    for where, row in entries:
        if not isinstance(row, dict):
            raise EvaluationError(f"{where} is no object with a path and a score.")
        header |= dict.fromkeys(row)
        rows.append((where, row))
    return list(header), rows


def _path(file: Path, header: Sequence[str], given: str | None) -> str:
    if given is not None:
        return _given(file, header, given)
    found = _recognised(header, PATH_COLUMNS)
    if not found:
        raise _no_column(file, header, "path", PATH_COLUMNS)
    return found[0]


def _score(file: Path, header: Sequence[str], given: str | None) -> str:
    if given is not None:
        return _given(file, header, given)
    found = _recognised(header, SCORE_COLUMNS)
    if not found:
        raise _no_column(file, header, "score", SCORE_COLUMNS)
    if len(found) > 1 and found[0].casefold() != "score":
        raise EvaluationError(f"{file}: the score could be in {' or '.join(found)}; name the column.")
    return found[0]


def _recognised(header: Sequence[str], names: Sequence[str]) -> list[str]:
    columns = {column.strip().casefold(): column for column in header}
    return [columns[name] for name in names if name in columns]


def _given(file: Path, header: Sequence[str], name: str) -> str:
    if name not in header:
        raise EvaluationError(
            f"{file} has no column {name!r}; it has {', '.join(header) or 'none'}.{nearest(name, header)}"
        )
    return name


def _no_column(file: Path, header: Sequence[str], name: str, known: Sequence[str]) -> EvaluationError:
    return EvaluationError(
        f"{file} has no column {name!r}; it has {', '.join(header) or 'none'}.{nearest(name, header)} "
        f"Recognised are {', '.join(known)}; name any other column."
    )

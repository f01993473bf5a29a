"""Tables of scores that another program wrote: CSV, Parquet, JSON lines, JSON, `datasets` folders, lines of `file;score`."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from statistics import fmean

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_scripts.errors import nearest

from .evaluation_error import EvaluationError

PATH_COLUMNS = ("path", "file_name", "video_path", "file", "video", "filename", "filepath", "video_name")
"""Recognised names of the column with the path, in any case; the first that a table has is taken."""
SCORE_COLUMNS = (
    *("score", "p_fake", "prob_fake", "fake_prob", "probability", "prob"),
    *("prediction", "predictions", "pred", "logit", "logits"),
)
"""Recognised names of the column with the score; `score` is taken first, of the others a table may have one."""
DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": ";"}
JSON_LINES = (".jsonl", ".ndjson")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
"""Endings of frames that a program scored one by one."""


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
    - A folder: a dataset that `datasets` saved with `save_to_disk`.
    - `.txt`: lines of `file;score` without a header, the predictions of AV-Deepfake1M's SDK.

    A column of lists, such as `pred` in `{"a.mp4": {"pred": [0.9, 0.1]}}`, becomes the columns `pred.0`, `pred.1`.

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
        if file.is_dir():
            header, rows = _objects(_numbered(file, _saved_dataset(file)))
        elif suffix in DELIMITERS:
            header, rows = _delimited(file, DELIMITERS[suffix])
        elif suffix == ".parquet":
            header, rows = _objects(_numbered(file, pq.read_table(file).to_pylist()))
        elif suffix in JSON_LINES:
            header, rows = _objects(_json_lines(file))
        elif suffix == ".json":
            header, rows = _objects(_json(file))
        else:
            known = ", ".join((*DELIMITERS, ".parquet", ".jsonl", ".json"))
            raise EvaluationError(
                f"{file} is no table of scores: its name must end in {known}, or it is a folder of datasets' save_to_disk."
            )
    except EvaluationError:
        raise
    except (OSError, ValueError, csv.Error, pa.ArrowException, RecursionError) as error:
        raise EvaluationError(f"{file} cannot be read: {error}.") from error
    return ScoreTable(
        file, header, rows, _path(file, header, path_column), _score(file, header, score_column)
    )


def clips_of_frames(table: ScoreTable, is_clip: Callable[[str], bool]) -> tuple[list[tuple[str, dict]], int]:
    """
    Return the rows of a table with frames put together to clips, and the number of frames.

    A row whose path is a picture and no clip, `frames/000_003/024.png`, is a frame of the clip that its folder is named
    after. The clip's score is the mean of its frames' scores, as in DeepfakeBench's video AUC; a folder `frames` above it
    is not part of its name.
    """
    rows, frames = [], {}
    for where, row in table.rows:
        name = table.name_in(row).replace("\\", "/")
        folder = PurePosixPath(name).parent
        if PurePosixPath(name).suffix.lower() in PICTURES and folder.name and not is_clip(name):
            clip = "/".join(part for part in folder.parts if part != "frames")
            frames.setdefault(clip, []).append((where, row))
        else:
            rows.append((where, row))
    for clip, of in frames.items():
        mean = {table.path_column: clip}
        for column in dict.fromkeys((table.score_column, "video_score", "audio_score")):
            known = [score for where, row in of if (score := table.score_in(where, row, column)) is not None]
            mean[column] = fmean(known) if known else None
        rows.append((f"{table.file}, {len(of)} frames of {clip}", mean))
    return rows, sum(map(len, frames.values()))


def _delimited(file: Path, delimiter: str) -> tuple[list[str], list[tuple[str, dict]]]:
    header = ["path", "score"] if delimiter == ";" else None
    with open(file, newline="", encoding="utf-8-sig") as lines:
        if header is None and delimiter not in (first := lines.readline()) and ";" in first:
            delimiter = ";"  # as spreadsheets write CSV where the comma is in numbers
        lines.seek(0)
        reader = csv.DictReader(lines, fieldnames=header, delimiter=delimiter)
        rows = []
        for row in reader:
            where = f"{file}, line {reader.line_num}"
            if None in row:  # more cells than columns: which is the score cannot be told
                raise EvaluationError(f"{where} has more cells than there are columns.")
            rows.append((where, row))
        return list(reader.fieldnames or []), rows


def _saved_dataset(file: Path) -> list[dict]:
    loaded = datasets.load_from_disk(str(file))
    if isinstance(loaded, datasets.DatasetDict):
        raise EvaluationError(f"{file} holds several datasets: give the folder of one, {', '.join(loaded)}.")
    return loaded.to_list()


def _numbered(file: Path, rows: list[dict]) -> Iterator[tuple[str, dict]]:
    yield from ((f"{file}, row {number}", row) for number, row in enumerate(rows, start=1))


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
    if set(content) == {"predictions", "labels"}:
        raise EvaluationError(
            f"{file} has predictions and labels but no paths, as DeepfakeBench-MM's test.py writes them: which clip a score "
            "is of cannot be told. Write the names of the clips beside the scores."
        )
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


def _objects(entries: Iterator[tuple[str, dict]]) -> tuple[list[str], list[tuple[str, dict]]]:
    header, rows = {}, []
    for where, row in entries:
        if not isinstance(row, dict):
            raise EvaluationError(f"{where} is no object with a path and a score.")
        row = {name: cell for key, value in row.items() for name, cell in _cells(str(key), value)}
        header |= dict.fromkeys(row)
        rows.append((where, row))
    return list(header), rows


def _cells(name: str, value: object) -> Iterator[tuple[str, object]]:
    """Yield the cells of a value: one, or one for each number of a list."""
    if isinstance(value, list) and value and all(isinstance(part, int | float) for part in value):
        yield from ((f"{name}.{place}", part) for place, part in enumerate(value))
    else:
        yield name, value


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
    if not found and (of_classes := _recognised(header, [f"{known}.0" for known in ("0", *SCORE_COLUMNS)])):
        name = of_classes[0].removesuffix(".0")
        raise EvaluationError(
            f"{file} has a score for each class in {name}: name the column of one, {name}.0 or {name}.1, and say with "
            "--higher-is which class it is."
        )
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

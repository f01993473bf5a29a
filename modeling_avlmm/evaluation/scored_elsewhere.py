"""The report of scores that another program gave to a protocol's clips."""

from __future__ import annotations

import datetime
import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import datasets
from scipy.special import expit

from dataset_scripts.demonstration import is_demonstration
from dataset_scripts.files import sha256_of, write_whole
from dataset_scripts.run_lock import only_run_in

from ..configuration_detector import LOG_ODDS_NAMES, SCORE_NAMES
from ..inference.provenance import environment
from .carried_properties import add_properties
from .evaluate import report_predictions
from .evaluation_error import EvaluationError
from .evaluation_options import ReportOptions
from .fingerprints import describe_splits
from .path_matching import EXACT, PART, RULE, STEM, TAIL, PathMatcher
from .predictions import PREDICTIONS, kept_columns, write_predictions
from .protocols import load_protocol, missing_files, protocol_name, splits_with
from .score_tables import ScoreTable, clips_of_frames, read_table

LISTING = "score_rows.tsv"
"""File with every clip without a score and every row that is of no clip, or of one that another row is of."""
SURE = 800.0
"""Log-odds of a probability of exactly 1; those of every other 64-bit number are below 745."""


@dataclass(kw_only=True)
class ScoresOptions(ReportOptions):
    """
    Options of [`evaluate_scores`].

    Args:
        scores (`str` or `Path`): Table of scores, see [`read_table`].
        higher_is (`str`): The class that high scores stand for, `"fake"` or `"real"`.
        dataset (`str`), data_dir (`str` or `Path`), protocol (`str`, *optional*), split, validation_split (`str`):
            As for [`EvaluationOptions`].
        path_column, score_column (`str`, *optional*): Columns of the table; recognised if left out.
        max_missing (`float`, *optional*, defaults to 0.01):
            Share of the corpus' files that may be missing on disk, and share of the split's clips without a score.
        output_dir (`str` or `Path`, *optional*): Defaults to `runs/evaluation/<dataset>_<protocol>/scores_<table>`.

    Raises:
        EvaluationError: for values out of range, or a threshold or calibration of a model that is not there.
    """

    scores: str | Path
    higher_is: str
    dataset: str
    data_dir: str | Path
    protocol: str | None = None
    split: str = "test"
    validation_split: str = "validation"
    path_column: str | None = None
    score_column: str | None = None
    max_missing: float | None = None
    output_dir: str | Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.higher_is not in ("fake", "real"):
            raise EvaluationError(f"higher_is must be 'fake' or 'real', not {self.higher_is!r}.")
        if self.threshold == "model":
            raise EvaluationError("A table of scores has no threshold of its own: give a number.")
        if self.max_missing is not None and not 0 <= self.max_missing <= 1:
            raise EvaluationError(f"max_missing is a share, from 0 to 1, not {self.max_missing}.")


@dataclass
class Matched:
    """The rows of a table by the clip that they are of."""

    scores: dict[str, dict] = field(default_factory=dict)
    found: Counter = field(default_factory=Counter)
    unknown: list[tuple[str, str]] = field(default_factory=list)
    double: dict[str, str] = field(default_factory=dict)
    frames: int = 0


def evaluate_scores(options: ScoresOptions) -> tuple[dict, Path]:
    """
    Write predictions and a report of scores that another program gave, as [`evaluate_protocol`] does of a detector.

    Scores in [0, 1] are probabilities; if any is outside, all are log-odds. Both are turned if high scores stand for real,
    and never on account of the result. A clip with several different scores has none.

    Returns:
        `tuple[dict, Path]`: the report, see [`build_report`], with `outside` (how the table was read, and its coverage),
        and the folder.

    Raises:
        EvaluationError: for a table that cannot be read or names no clip, too many clips without a score, an unknown
            dataset, protocol or split, or a folder with predictions of a detector.
        InUseError: when another run writes into the folder.
    """
    table = read_table(options.scores, options.path_column, options.score_column)
    builder = load_protocol(options.dataset, options.protocol, options.data_dir, options.max_missing)
    splits = splits_with(builder, options.split)
    matched = match_rows(table, [path for rows in splits.values() for path in rows["path"]])
    scale = _to_probabilities(matched, options.higher_is)
    fitting = _fitting_split(options, splits, matched)
    predictions = [
        _prediction(row, matched, name)
        for name in filter(None, (fitting, options.split))
        for row in kept_columns(splits[name], builder.GROUP_COLUMNS)
    ]
    predictions = [p for p in predictions if p["split"] == options.split or p["score"] is not None]
    folder = _folder(options, protocol_name(builder))
    with only_run_in(folder):
        coverage = _coverage(options, table, matched, predictions, folder)
        outside = {"higher_is": options.higher_is, "scale": scale, **coverage}
        about = _describe(options, table, builder, fitting) | {
            "outside": outside,
            **describe_splits(builder, splits),
        }
        write_whole(folder / "run.json", json.dumps(about, indent=2) + "\n")
        write_predictions(folder / PREDICTIONS, predictions, about)
        add_properties(folder / PREDICTIONS, splits[options.split])
        return report_predictions(folder / PREDICTIONS, options, folder), folder


def _describe(
    options: ScoresOptions, table: ScoreTable, builder: datasets.DatasetBuilder, fitting: str | None
) -> dict:
    """Return what the file of predictions says of itself, with the fields that a detector's has."""
    return {
        "model": table.file.stem,
        "zero_shot": False,
        "detector": {"scores": f"{table.file.name}, SHA-256 {sha256_of(*_files_of(table.file))}"},
        "gate": None,
        "dataset": options.dataset,
        "protocol": protocol_name(builder),
        "synthetic": is_demonstration(options.data_dir),
        "options": {},
        "split": options.split,
        "validation_split": fitting,
        "model_threshold": 0.5,
        "abstain_band": None,
        "independent_parts": False,
        "temperature": None,
        "group_columns": list(builder.GROUP_COLUMNS),
        "notes": " ".join(builder.info.description.partition("Notes on this copy:")[2].split("\n- ")).strip(),
        "missing": missing_files(builder),
        "environment": environment(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def _files_of(table: Path) -> list[Path]:
    return sorted(file for file in table.rglob("*") if file.is_file()) if table.is_dir() else [table]


def match_rows(table: ScoreTable, paths: list[str]) -> Matched:
    """Assign the rows of a table to clips; raises `EvaluationError` if no row is of any."""
    matcher, matched = PathMatcher(paths), Matched()
    extra = [c for c in ("video_score", "audio_score") if c in table.header and c != table.score_column]
    rows, matched.frames = clips_of_frames(table, lambda name: matcher.match(name)[0] is not None)
    for where, row in rows:
        name = table.name_in(row)
        path, how = matcher.match(name)
        if path is None:
            matched.unknown.append((name, f"{where}: {how}"))
            continue
        scores = {"score": table.score_in(where, row)}
        scores |= {column: table.score_in(where, row, column) for column in extra}
        if path in matched.scores:
            same = matched.scores[path] == scores
            matched.double.setdefault(path, "equal scores")
            if not same:
                matched.double[path] = "different scores, so it has none"
            continue
        matched.scores[path] = scores
        matched.found[how] += 1
    for path, what in matched.double.items():
        if what != "equal scores":
            matched.scores[path] = {}
    if not matched.scores:
        example = f" The table's first is {matched.unknown[0][0]!r}." if matched.unknown else ""
        raise EvaluationError(
            f"{table.file}: no row of its {len(table.rows)} is of a clip of this protocol, such as {paths[0]!r}.{example}"
        )
    return matched


def _to_probabilities(matched: Matched, higher_is: str) -> str:
    """Turn scores into P(fake) and log-odds in place, and return the scale they were on."""
    given = [score for scores in matched.scores.values() for score in scores.values() if score is not None]
    scale = "probabilities" if all(0 <= score <= 1 for score in given) else "log-odds"
    for path, scores in matched.scores.items():
        turned = {}
        for part, name in SCORE_NAMES.items():
            turned[name], turned[LOG_ODDS_NAMES[part]] = _fake(scores.get(name), scale, higher_is)
        matched.scores[path] = turned
    return scale


def _fake(score: float | None, scale: str, higher_is: str) -> tuple[float | None, float | None]:
    """Return P(fake) and, where rounding could make ranks equal, its log-odds."""
    if score is None:
        return None, None
    if scale == "probabilities":
        if higher_is == "fake":
            return score, None
        log_odds = (
            math.copysign(SURE, 0.5 - score) if score in (0, 1) else math.log1p(-score) - math.log(score)
        )
        return 1 - score, log_odds
    log_odds = score if higher_is == "fake" else -score
    return float(expit(log_odds)), log_odds


def _fitting_split(options: ScoresOptions, splits: datasets.DatasetDict, matched: Matched) -> str | None:
    """Return the validation split if the table has scores of it."""
    name = options.validation_split
    if name not in splits or name == options.split:
        return None
    known = any((matched.scores.get(path) or {}).get("score") is not None for path in splits[name]["path"])
    return name if known else None


def _prediction(row: dict, matched: Matched, split: str) -> dict:
    names = (*SCORE_NAMES.values(), *LOG_ODDS_NAMES.values())
    scores = matched.scores.get(row["path"])
    error = None
    if scores is None or scores["score"] is None:
        message = "not in the table" if scores is None else "an empty cell in the table"
        if "different" in matched.double.get(row["path"], ""):
            message = "several rows with different scores"
        error = {"type": "NoScore", "message": message}
    values = {name: None if scores is None else scores[name] for name in names}
    rest = {"duration": None, "windows": [], "warnings": [], "error": error, "split": split}
    return {**row, **values, **rest}


def _folder(options: ScoresOptions, protocol: str) -> Path:
    """Return the folder of the results; raises `EvaluationError` if it holds those of a detector."""
    name = f"scores_{Path(options.scores).stem}"
    folder = Path(options.output_dir or Path("runs/evaluation") / f"{options.dataset}_{protocol}" / name)
    marker = folder / "run.json"
    held = json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else None
    if (held is None and (folder / PREDICTIONS).is_file()) or (held is not None and "outside" not in held):
        raise EvaluationError(f"{folder} holds predictions of a detector. Give another --output-dir.")
    return folder


def _coverage(
    options: ScoresOptions, table: ScoreTable, matched: Matched, predictions: list[dict], folder: Path
) -> dict:
    """List what has no score and what no clip, and return the numbers; too many clips without a score are an error."""
    tested = [p for p in predictions if p["split"] == options.split]
    without = [p for p in tested if p["score"] is None]
    lines = [("no score", p["path"], p["error"]["message"]) for p in without]
    lines += [("double", path, what) for path, what in matched.double.items()]
    lines += [("unknown", name, why) for name, why in matched.unknown]
    listing = folder / LISTING
    listing.unlink(missing_ok=True)
    if lines:
        cells = (" ".join(str(cell).split()) for line in lines for cell in line)
        write_whole(
            listing, "".join("\t".join(line) + "\n" for line in zip(cells, cells, cells, strict=True))
        )
    allowed = 0.01 if options.max_missing is None else options.max_missing
    if len(without) > allowed * len(tested):
        raise EvaluationError(
            f"{len(without)} of {len(tested)} clips of {options.split} have no score in {table.file}, more than "
            f"--max-missing {allowed:g}; {listing} lists them, such as {without[0]['path']}."
        )
    return {
        "path_column": table.path_column,
        "score_column": table.score_column,
        "rule": RULE,
        "rows": len(table.rows),
        "matched": {how: matched.found[how] for how in (EXACT, TAIL, PART, STEM)},
        "frames": matched.frames,
        "clips": len(tested),
        "without_score": len(without),
        "double": len(matched.double),
        "unknown": len(matched.unknown),
    }

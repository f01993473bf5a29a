"""Comparing detectors by their predictions: which clips all of them have, and who is better on which of those."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..configuration_detector import LOG_ODDS_NAMES, PARTS, SCORE_NAMES
from ..explain.words import PART_NAMES, count_of, threshold_of
from .breakdowns import breakdowns
from .comparison_statistics import paired_figures
from .evaluation_error import EvaluationError
from .metrics import SureScores
from .predictions import LABEL_OF, PREDICTIONS, read_predictions
from .report import chosen_threshold, with_temperature

NEEDED = ("model", "dataset", "protocol", "split", "model_threshold")
COLUMNS = ("path", "label", "score")
OF_ONE_DETECTOR = ("duration", "faces")
"""Breakdowns by what a detector found in a clip, which another need not have found."""
NAMED = 5


class ComparisonError(EvaluationError):
    """Predictions that cannot be compared; the message says which, and what to change."""


@dataclass(frozen=True)
class Run:
    """
    A file of predictions.

    Args:
        file (`Path`): The file.
        about (`dict`): Its facts about itself.
        clips (`dict[str, dict]`): Predictions of the reported split by `path`, with calibrated scores.
        threshold (`float`): Score from which a clip is called fake: chosen on the file's validation split, if it has one.
        threshold_source (`str`): Where the threshold is from.
    """

    file: Path
    about: dict
    clips: dict[str, dict]
    threshold: float
    threshold_source: str


@dataclass(frozen=True)
class Entry:
    """A detector in a comparison: its name, and its runs, several if it was trained with several seeds."""

    name: str
    runs: tuple[Run, ...]


def read_run(file: str | Path) -> Run:
    """
    Read a file of predictions for a comparison, with scores and threshold as its report has them.

    The folder of an evaluation stands for its `predictions.parquet`.

    Raises:
        PredictionsError: when there is no such file, or another program wrote it.
        ComparisonError:
            when it lacks facts about itself, has a value that is none of a prediction, a clip twice, or no clip of its
            split.
    """
    file = Path(file)
    if file.is_dir():
        file = file / PREDICTIONS
    predictions, about = read_predictions(file)
    if missing := [name for name in NEEDED if about.get(name) is None]:
        raise ComparisonError(
            f"{file} does not state {' and '.join(missing)}: evaluate again to write it anew."
        )
    if missing := [name for name in COLUMNS if name not in predictions[0]] if predictions else []:
        raise ComparisonError(f"{file} has no column {' and '.join(missing)}.")
    if wrong := next(filter(None, map(_wrong_value, predictions)), None):
        raise ComparisonError(f"{file}: {wrong}.")
    # A detector with one verdict may leave out the columns of the parts.
    predictions = [{**dict.fromkeys(SCORE_NAMES.values()), **p} for p in predictions]
    temperature = {part: (about.get("temperature") or {}).get(part, 1.0) for part in PARTS}
    # Files of perturbed clips are of one split and have no such column.
    tested = [p for p in predictions if p.get("split", about["split"]) == about["split"]]
    validation = about.get("validation_split")
    fitting = [
        p for p in predictions if validation and p.get("split") == validation and p["score"] is not None
    ]
    twice = [path for path, times in Counter(p["path"] for p in tested).items() if times > 1]
    if twice:
        raise ComparisonError(f"{file} has {_named(twice, 'clip')} more than once.")
    if not tested:
        raise ComparisonError(f"{file} has no clips of its split {about['split']}.")
    fitting = [with_temperature(p, temperature) for p in fitting]
    threshold, source, _ = chosen_threshold(None, about, fitting)
    return Run(file, about, {p["path"]: with_temperature(p, temperature) for p in tested}, threshold, source)


def _wrong_value(p: dict) -> str | None:
    """Return what is wrong with the values of a prediction, or None."""
    if not isinstance(p["path"], str):
        return f"the path {p['path']!r} is no text"
    for name in LABEL_OF.values():
        if p.get(name) not in (None, 0, 1):
            return f"{name} of {p['path']} is {p[name]!r}, neither 0 (real) nor 1 (fake)"
    for name in SCORE_NAMES.values():
        score = p.get(name)
        if score is not None and not (isinstance(score, int | float) and 0 <= score <= 1):
            return f"{name} of {p['path']} is {score!r}, no number from 0 to 1"
    for name in LOG_ODDS_NAMES.values():
        log_odds = p.get(name)
        if log_odds is not None and not (isinstance(log_odds, int | float) and math.isfinite(log_odds)):
            return f"{name} of {p['path']} is {log_odds!r}, no finite number"
    return None


def read_entries(named: Sequence[tuple[str | None, Sequence[str | Path]]]) -> list[Entry]:
    """
    Read the entries of a comparison.

    Args:
        named (sequence of `(name, files)`):
            Entries; those without a name are called by their model, and if that is not unique, by their file.

    Raises:
        ComparisonError:
            for fewer than two entries, two of one name, a file twice in an entry, files of different datasets, and as
            [`read_run`].
        PredictionsError: see [`read_run`].
    """
    if len(named) < 2:
        raise ComparisonError("A comparison needs at least two entries.")
    for name, files in named:
        resolved = Counter(Path(file).resolve() for file in files)
        if twice := [str(path) for path, times in resolved.items() if times > 1]:
            raise ComparisonError(f"The entry {name} has a file twice: {', '.join(twice)}.")
    runs = [tuple(read_run(file) for file in files) for _, files in named]
    models = Counter(_model(of[0]) for of in runs)
    entries = []
    for (name, _), of in zip(named, runs, strict=True):
        own = _model(of[0])
        entries.append(Entry(name or (own if models[own] == 1 else str(of[0].file)), of))
    if twice := [name for name, times in Counter(entry.name for entry in entries).items() if times > 1]:
        raise ComparisonError(f"Two entries are called {twice[0]}. Name them: --entry NAME=FILE.")
    datasets = sorted({run.about["dataset"] for of in runs for run in of})
    if len(datasets) > 1:
        raise ComparisonError(
            f"The predictions are of different datasets, whose clips are not the same: {', '.join(datasets)}."
        )
    return entries


def compare(entries: Sequence[Entry], n_resamples: int = 1000, seed: int = 0) -> dict:
    """
    Compare detectors on the clips that every run has scored.

    Args:
        entries (sequence of [`Entry`]): Detectors as from [`read_entries`].
        n_resamples (`int`, *optional*, defaults to 1000): Resamples of the bootstrap by identity; 0 for no intervals.
        seed (`int`, *optional*, defaults to 0): Seed of the resampling.

    Returns:
        `dict`:

        - **dataset**, **protocol**, **split**, **date**, **entries** (names), **notes**.
        - **coverage** -- For each run `entry`, `file`, `model`, `threshold`, `threshold_source`, `clips`, and the paths
          `without_score` (unreadable, or unlabelled) and `lacking` (clips of another run that it does not have).
        - **compared**, **left_out** -- The number of clips that all have scored, and the paths of all others.
        - **rows** -- The figures of [`paired_figures`] for all clips (`breakdown` None), and for each `group` of each
          `breakdown`: category and generator (each against all genuine clips), language, columns of the corpus.
        - **parts** -- For `video` and `audio` `compared` and `rows` of the verdicts on the picture and on the sound, on
          the clips whose part every run has scored; only of parts that every run has scores of.

    Raises:
        ComparisonError: for labels that differ, or no clip that all have.
    """
    runs = [run for entry in entries for run in entry.runs]
    paths = list(dict.fromkeys(path for run in runs for path in run.clips))
    _check_labels(runs, paths)
    shared = _scored_by_all(runs, paths, "overall")
    coverage = [_coverage(entry.name, run, paths) for entry in entries for run in entry.runs]
    if not shared:
        sizes = "; ".join(f"{c['file']}: {c['clips'] - len(c['without_score'])} scored" for c in coverage)
        raise ComparisonError(f"No clip is scored in all files, by its path. {sizes}.")
    parts, notes = _parts(entries, paths, n_resamples, seed)
    about = {name: runs[0].about[name] for name in ("dataset", "protocol", "split")}
    compared = set(shared)
    return {
        **about,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "entries": [entry.name for entry in entries],
        "coverage": coverage,
        "compared": len(shared),
        "left_out": [path for path in paths if path not in compared],
        "n_resamples": n_resamples,
        "notes": _notes(runs) + notes,
        "rows": _rows(entries, shared, "overall", n_resamples, seed),
        "parts": parts,
    }


def _parts(
    entries: Sequence[Entry], paths: list[str], n_resamples: int, seed: int
) -> tuple[dict[str, dict], list[str]]:
    """Return the comparison of each part that all entries have scores of, and sentences on what is not compared."""
    found, notes = {}, []
    for part in ("video", "audio"):
        runs = [run for entry in entries for run in entry.runs]
        _check_labels(runs, paths, LABEL_OF[SCORE_NAMES[part]])
        able = [entry for entry in entries if all(_scored_by_all([r], paths, part) for r in entry.runs)]
        shared = _scored_by_all(runs, paths, part)
        if shared:
            rows = _rows(entries, shared, part, n_resamples, seed)
            found[part] = {"compared": len(shared), "rows": rows}
        elif able:
            without = [entry.name for entry in entries if entry not in able]
            why = f"{', '.join(without)} gave none" if without else "no clip has one of every entry"
            notes.append(f"Scores of the {PART_NAMES[part]} are not compared: {why}.")
    return found, notes


def _scored_by_all(runs: Sequence[Run], paths: list[str], part: str) -> list[str]:
    return [path for path in paths if all(_usable(run.clips.get(path), part) for run in runs)]


def _rows(entries: Sequence[Entry], paths: list[str], part: str, n_resamples: int, seed: int) -> list[dict]:
    """Return the figures of all clips and of every group."""
    first = entries[0].runs[0]
    chosen = [{"duration": None, **_of_part(first.clips[path], part)} for path in paths]
    columns = [name for name in first.about.get("group_columns") or () if name in chosen[0]]
    groups = [(None, "overall", chosen)]
    for name, members in breakdowns(chosen, columns):
        if name not in OF_ONE_DETECTOR and set(members) != {"unknown"}:
            groups += [(name, group, of) for group, of in sorted(members.items())]
    return [
        {"breakdown": name, "group": group, **_figures(entries, of, part, n_resamples, seed)}
        for name, group, of in groups
    ]


def _of_part(p: dict, part: str) -> dict:
    """Return a prediction whose label and generators are those of a part of the clip."""
    if part == "overall":
        return p
    forgery = {"video": "generator", "audio": "audio_generator"}[part]
    other = {"generator": None, "audio_generator": None, "video_label": None, "audio_label": None}
    return {**p, **other, forgery: p.get(forgery), "label": p[LABEL_OF[SCORE_NAMES[part]]]}


def _figures(entries: Sequence[Entry], clips: list[dict], part: str, n_resamples: int, seed: int) -> dict:
    paths = [p["path"] for p in clips]
    return paired_figures(
        [p["label"] for p in clips],
        [[scores_of(run, paths, part) for run in entry.runs] for entry in entries],
        [[threshold_for(run, part) for run in entry.runs] for entry in entries],
        [p.get("identity") for p in clips],
        n_resamples,
        seed,
    )


def scores_of(run: Run, paths: Sequence[str], part: str = "overall") -> list[float] | SureScores:
    """Return a run's scores of some clips, with their log-odds where all are known."""
    clips = [run.clips[path] for path in paths]
    scores = [p[SCORE_NAMES[part]] for p in clips]
    log_odds = [p.get(LOG_ODDS_NAMES[part]) for p in clips]
    return scores if None in log_odds else SureScores(scores, log_odds)


def threshold_for(run: Run, part: str) -> float:
    """Return the score from which a run calls a part of a clip fake."""
    return threshold_of(part, run.threshold, run.about.get("independent_parts", False))


def _usable(p: dict | None, part: str = "overall") -> bool:
    score = SCORE_NAMES[part]
    return p is not None and p[score] is not None and p.get(LABEL_OF[score]) is not None


def _check_labels(runs: list[Run], paths: list[str], name: str = "label") -> None:
    known = ({run.clips[path].get(name) for run in runs if path in run.clips} - {None} for path in paths)
    if differ := [path for path, labels in zip(paths, known, strict=True) if len(labels) > 1]:
        files = {
            label: next(str(run.file) for run in runs if _label(run, differ[0], name) == label)
            for label in (0, 1)
        }
        raise ComparisonError(
            f"The files disagree on the labels of {_named(differ, 'clip')}. {differ[0]} is real in {files[0]} and fake in "
            f"{files[1]} ({name}): evaluate again on one version of the corpus."
        )


def _label(run: Run, path: str, name: str) -> int | None:
    return run.clips[path].get(name) if path in run.clips else None


def _coverage(entry: str, run: Run, paths: list[str]) -> dict:
    return {
        "entry": entry,
        "file": str(run.file),
        "model": run.about["model"],
        "threshold": run.threshold,
        "threshold_source": run.threshold_source,
        "clips": len(run.clips),
        "without_score": [path for path, p in run.clips.items() if not _usable(p)],
        "lacking": [path for path in paths if path not in run.clips],
    }


def _notes(runs: list[Run]) -> list[str]:
    notes = []
    for name in ("protocol", "split"):
        values = list(dict.fromkeys(str(run.about[name]) for run in runs))
        if len(values) > 1:
            notes.append(
                f"The files are of different {name}s: {', '.join(values)}. Only clips of all are compared."
            )
    if any(run.about.get("synthetic") for run in runs):
        notes.append(
            "The clips are synthetic (demonstration benchmark): these are not numbers of the real corpus."
        )
    return notes


def _model(run: Run) -> str:
    perturbed = run.about.get("perturbation")
    return f"{run.about['model']}, {perturbed}" if perturbed else str(run.about["model"])


def _named(paths: list[str], what: str) -> str:
    listed = ", ".join(paths[:NAMED]) + (", ..." if len(paths) > NAMED else "")
    return f"{count_of(len(paths), what)} ({listed})"

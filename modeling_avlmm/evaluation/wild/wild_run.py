"""Run of the benchmark of real recordings: from a folder with a table to figures, pages and a table of predictions."""

from __future__ import annotations

import csv
import datetime
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets

from dataset_scripts.files import write_whole
from dataset_scripts.run_lock import only_run_in
from dataset_scripts.wild import TABLES, tables_in

from ...configuration_detector import LOG_ODDS_NAMES, SCORE_NAMES
from ...inference.default_model import EMBEDDED_MODEL
from ...inference.provenance import environment, model_slug, short_name
from ..audit.property_jobs import read_properties
from ..evaluate import evaluate_protocol
from ..evaluation_error import EvaluationError
from ..evaluation_options import EvaluationOptions
from ..measured_properties import clip_properties, speech_properties
from ..predictions import PREDICTIONS, read_predictions
from ..protocols import load_protocol, missing_files, splits_with
from ..report import with_temperature
from .benchmark_tables import BASELINE, Detector, benchmark_tables
from .outside_scores import read_scores
from .wild_pages import write_wild_pages

SPLITS = ("test", "dev", "full")
"""Splits that are reported if none is named, the first that there is."""
KEPT = ("path", "label", "video_label", "audio_label", "identity", "family", "generator")
COLUMNS = (*SCORE_NAMES.values(), *LOG_ODDS_NAMES.values())
KEPT_OF_SPEECH = ("path", "label", "identity", "kind", "system", "pair_id")


@dataclass(kw_only=True)
class WildOptions:
    """
    Options of [`run_wild`].

    Args:
        data_dir (`str` or `Path`): Folder with the table, see the dataset `wild`.
        models (`Sequence[str]`): Folders or Hub ids of detectors.
        scores (`Sequence[str | Path]`): CSV tables with scores of other programs, see [`read_scores`].
        protocol (`str`, *optional*): `"clips"`, `"speech"` or `"photos"`; the first that the folder has a table for.
        split (`str`, *optional*): The split that is reported; if left out, test, else dev, else full.
        output_dir (`str` or `Path`, *optional*): Defaults to `runs/wild/<folder>_<protocol>_<split>`.
        threshold (`float`, *optional*):
            Score from which a file is called fake, for all detectors. Defaults to each detector's own; scores of other
            programs have none.
        n_resamples (`int`, *optional*, defaults to 1000): Resamples of the bootstrap by person; 0 for no intervals.
        batch_size, num_workers, device, dtype, trust_remote_code: As for [`EvaluationOptions`].

    Raises:
        EvaluationError: for neither a model nor scores, or a threshold out of range.
    """

    data_dir: str | Path
    models: Sequence[str] = ()
    scores: Sequence[str | Path] = ()
    protocol: str | None = None
    split: str | None = None
    output_dir: str | Path | None = None
    threshold: float | None = None
    n_resamples: int = 1000
    batch_size: int = 8
    num_workers: int = 0
    device: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if not self.models and not self.scores:
            raise EvaluationError("Give a detector (--model) or a table of its scores (--scores).")
        if self.threshold is not None and not self.scores and not 0 <= self.threshold <= 1:
            raise EvaluationError(f"threshold must be a number in [0, 1], not {self.threshold}.")

    def evaluation_of(self, model: str, protocol: str, split: str, folder: Path) -> EvaluationOptions:
        """Return the options that score one detector."""
        return EvaluationOptions(
            model=model,
            dataset="wild",
            data_dir=self.data_dir,
            protocol=protocol,
            split=split,
            output_dir=folder,
            threshold="model",
            max_missing=1.0,
            n_resamples=0,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            device=self.device,
            dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
        )


@dataclass
class _Subject:
    """The files that are judged: rows of a split, and what is known about the folder."""

    protocol: str
    split: str
    rows: list[dict]
    missing: list[str]
    notes: str = ""
    files: list[dict] = field(default_factory=list)


def run_wild(options: WildOptions) -> tuple[dict, Path]:
    """
    Run the benchmark on a folder, and write `report.md`, `report.html`, `report.json` and `predictions.csv`.

    Each detector has a folder of its own with its predictions, which a stopped run continues, and its evaluation report.
    `dropped.csv` lists every file that is in no figure, with the reason.

    Args:
        options ([`WildOptions`]): The folder, the detectors, and how to score.

    Returns:
        `tuple[dict, Path]`: the report, see [`benchmark_tables`], and the folder.

    Raises:
        EvaluationError: for a wrong table, an unknown split, or scores that cannot be used.
        DetectorError: for a model that cannot be loaded.
    """
    subject = _subject(options)
    folder = _folder(options, subject)
    with only_run_in(folder):
        return _report(options, subject, folder), folder


def _report(options: WildOptions, subject: _Subject, folder: Path) -> dict:
    """Score the files, write the report, and return it."""
    detectors, strangers = _from_outside(options, subject)
    names = _names(options.models)
    cache = folder / f"properties_{subject.protocol}.jsonl"
    for model, name in names.items():
        print(f"{name}:", flush=True)
        detectors.append(_scored(options, subject, model, name, folder / model_slug(model), cache))
    doubled = {d.name for d in detectors if sum(d.name == other.name for other in detectors) > 1}
    if doubled:
        raise EvaluationError(
            f"Two detectors are named {min(doubled)}; rename a table, or its column detector."
        )
    print(f"file properties of {len(subject.files)} files", flush=True)
    measure = speech_properties if subject.protocol == "speech" else clip_properties
    properties, unreadable = read_properties(
        subject.files, cache, num_workers=options.num_workers, measure=measure
    )
    found = benchmark_tables(subject.rows, detectors, properties, subject.protocol, options.n_resamples)
    for entry in found["dropped"]:
        if entry["detector"] == BASELINE:
            entry["reason"] = unreadable[entry["path"]]["message"]
    found["dropped"] += [
        {"path": path, "detector": None, "reason": "in the table, but not on disk"}
        for path in subject.missing
    ]
    report = {
        **_about(options, subject, detectors),
        "unmatched_scores": strangers,
        "cut_short": {d.name: d.about.pop("cut_short", {}) for d in detectors},
        "no_face": {d.name: d.about.pop("no_face", []) for d in detectors},
        **found,
    }
    _write(report, subject, detectors, folder)
    return report


def _subject(options: WildOptions) -> _Subject:
    protocol = options.protocol
    if protocol is None:
        protocol = next(iter(tables_in(str(options.data_dir))), next(iter(TABLES)))
    builder = load_protocol("wild", protocol, options.data_dir, max_missing=1.0)
    splits = builder.as_dataset()
    split = options.split or next((name for name in SPLITS if name in splits), None)
    if split is None:
        raise EvaluationError(f"wild/{protocol} has only {', '.join(splits)}: name the split to report.")
    table = splits_with(builder, split)[split].cast_column("video", datasets.Video(decode=False))
    files = table.to_list()
    rows = [{name: value for name, value in row.items() if name != "video"} for row in files]
    notes = builder.info.description.partition("Notes on this copy:")[2]
    return _Subject(
        protocol, split, rows, missing_files(builder), " ".join(notes.split("\n- ")).strip(), files
    )


def _folder(options: WildOptions, subject: _Subject) -> Path:
    if options.output_dir is not None:
        return Path(options.output_dir)
    name = Path(options.data_dir).resolve().name
    return Path("runs/wild") / f"{name}_{subject.protocol}_{subject.split}"


def _names(models: Sequence[str]) -> dict[str, str]:
    """Return a short name for each model, or the whole one where two would have the same."""
    short = {model: "embedded" if Path(model) == EMBEDDED_MODEL else short_name(model) for model in models}
    doubled = [name for name in short.values() if list(short.values()).count(name) > 1]
    return {model: str(model) if name in doubled else name for model, name in short.items()}


def _from_outside(options: WildOptions, subject: _Subject) -> tuple[list[Detector], list[dict]]:
    detectors, strangers = [], []
    paths = [row["path"] for row in subject.rows]
    for file in options.scores:
        found, others = read_scores(file, paths)
        strangers += others
        for name, scores in found.items():
            where = Path(file).name
            reasons = {path: f"{'no score' if path in scores else 'not'} in {where}" for path in paths}
            detectors.append(
                Detector(name, scores, options.threshold, reasons=reasons, about={"scores": str(file)})
            )
    return detectors, strangers


def _scored(
    options: WildOptions, subject: _Subject, model: str, name: str, folder: Path, properties: Path
) -> Detector:
    evaluation = options.evaluation_of(model, subject.protocol, subject.split, folder)
    report, _ = evaluate_protocol(evaluation, properties)
    predictions, about = read_predictions(folder / PREDICTIONS)
    predictions = [p for p in predictions if p["split"] == subject.split]
    calibrated = [with_temperature(p, about["temperature"]) for p in predictions]
    return Detector(
        name=name,
        scores={p["path"]: {column: p.get(column) for column in COLUMNS} for p in calibrated},
        threshold=report["threshold"] if options.threshold is None else options.threshold,
        abstain_band=about.get("abstain_band"),
        reasons={p["path"]: _why(p) for p in predictions if p["score"] is None},
        about={
            "model": model,
            "detector": about["detector"],
            "folder": str(folder),
            "cut_short": {path: error["message"] for path, error in report["cut_short"].items()},
            "no_face": report["no_face"],
        },
    )


def _why(prediction: dict) -> str:
    if prediction["error"] is not None:
        return prediction["error"]["message"]
    return "; ".join(prediction["warnings"]) or "the detector gave no verdict"


def _about(options: WildOptions, subject: _Subject, detectors: list[Detector]) -> dict:
    return {
        "data_dir": str(options.data_dir),
        "protocol": subject.protocol,
        "split": subject.split,
        "files": len(subject.rows),
        "missing": len(subject.missing),
        "n_real": sum(row["label"] == 0 for row in subject.rows),
        "n_fake": sum(row["label"] == 1 for row in subject.rows),
        "people": len({row["identity"] for row in subject.rows if row["identity"]}),
        "detectors": {d.name: d.about for d in detectors},
        "notes": subject.notes,
        "n_resamples": options.n_resamples,
        "environment": environment(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def _write(report: dict, subject: _Subject, detectors: list[Detector], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "report.json", json.dumps(report, indent=2) + "\n")
    write_wild_pages(report, folder)
    kept = KEPT_OF_SPEECH if subject.protocol == "speech" else KEPT
    alone = report["baseline"].get("overall", {}).get("scores") or {}
    pair_of = {path: number for number, pair in enumerate(report["pairs"], start=1) for path in pair}
    lines = []
    for detector in detectors:
        for row in subject.rows:
            scores = dict.fromkeys(COLUMNS) | (detector.scores.get(row["path"]) or {})
            line = {"detector": detector.name, **{name: row[name] for name in kept}, **scores}
            line |= {"file_properties": alone.get(row["path"]), "matched_pair": pair_of.get(row["path"])}
            line["reason"] = detector.reasons.get(row["path"]) if scores["score"] is None else None
            lines.append(line)
    write_whole(folder / "predictions.csv", _as_csv(lines))
    listing = folder / "dropped.csv"
    listing.unlink(missing_ok=True)
    dropped = report["dropped"] + [{**entry, "detector": None} for entry in report["unmatched_scores"]]
    if dropped:
        write_whole(
            listing, _as_csv([{key: e[key] for key in ("path", "detector", "reason")} for e in dropped])
        )


def _as_csv(lines: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()

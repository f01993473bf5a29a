"""Scoring a detector on a protocol, and the report of its predictions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import datasets
import torch
from accelerate import PartialState
from filelock import FileLock

from dataset_scripts.demonstration import is_demonstration
from dataset_scripts.files import write_whole
from dataset_scripts.run_lock import only_run_in

from ..inference.face_cache import FaceCache
from ..inference.loading import load_detector
from ..inference.pipeline import AVDeepfakeDetectionPipeline
from ..inference.provenance import detector_identity, model_slug
from ..inference.ray_engine import Loading, RayEngine
from .audit.dataset_audit import about_corpus, audit_dataset, write_audit
from .carried_properties import add_properties
from .evaluation_error import EvaluationError
from .evaluation_options import EvaluationOptions, ReportOptions
from .fingerprints import describe_splits
from .predictions import (
    KEPT,
    PREDICTIONS,
    Work,
    journals,
    kept_columns,
    predict,
    read_predictions,
    write_predictions,
)
from .protocols import load_protocol, missing_files, protocol_name, splits_with
from .rendering import write_report
from .report import build_report, calibration_of, with_temperature
from .robustness.conditions import run_robustness
from .robustness.ffmpeg import PerturbationError, check_ffmpeg
from .scoring_folder import claim_folder

ROBUSTNESS, AUDIT = "robustness", "audit"
"""Folders beside the predictions, each with a JSON file of its name."""


def evaluate_protocol(
    options: EvaluationOptions, properties: str | Path | None = None
) -> tuple[dict | None, Path]:
    """
    Score a detector on a protocol, and write predictions and a report.

    The folder gets `predictions.parquet` (labels, scores and file properties of every clip), the report as `report.json`,
    `report.md` and `report.html`, `dropped.txt` if any file was dropped or shows no face, and `run.json`, which says whose
    predictions these are. Face tracks are kept in `faces`: in `output_dir`, or beside the folders of all detectors on this
    protocol. A run that was stopped scores what is missing when it is started again. Under `accelerate launch` every process
    scores a share. A shard leaves its share in the folder; the run without one scores the rest and writes the report.

    Args:
        options ([`EvaluationOptions`]): The detector, the protocol, and how to score.
        properties (`str` or `Path`, *optional*): Journal of the properties of the files, for several detectors.

    Returns:
        `tuple[dict, Path]`: the report, see [`build_report`], None of a shard; and the folder. The same in every process.

    Raises:
        EvaluationError: for an unknown dataset, protocol or split, a folder with predictions of another model or
            protocol, or a calibration that cannot be fitted.
        DetectorError: for a model that cannot be loaded, or an unknown device or type.
        EngineError: for a Ray cluster that cannot be used.
        InUseError: when another run writes into the folder.

    Example:

    ```python
    >>> options = EvaluationOptions(model="runs/my_detector/model", dataset="fakeavceleb", data_dir="FakeAVCeleb_v1.2")
    >>> report, folder = evaluate_protocol(options)
    >>> report["overall"]["auc"]
    0.93
    ```
    """
    if options.perturb:
        _require_ffmpeg()
    # First of all: on CPUs processes find one another only when told that there is no accelerator.
    state = PartialState(cpu=not torch.accelerator.is_available())
    if state.num_processes > 1 and (options.ray or options.shard):
        raise EvaluationError(
            "Ray and shards divide the clips themselves: start them without `accelerate launch`."
        )
    with state.main_process_first():
        builder = load_protocol(options.dataset, options.protocol, options.data_dir, options.max_missing)
    splits = splits_with(builder, options.split)
    detector, zero_shot = _load(options, state)
    run = describe_run(options, protocol_name(builder), detector, zero_shot)
    folder = _folder(options, run["protocol"])
    with (
        only_run_in(folder, str(options.shard) if options.shard else None)
        if state.is_main_process
        else nullcontext()
    ):
        return _evaluate_in(folder, options, run, builder, splits, detector, properties), folder


def _evaluate_in(
    folder: Path,
    options: EvaluationOptions,
    run: dict,
    builder: datasets.DatasetBuilder,
    splits: datasets.DatasetDict,
    detector: AVDeepfakeDetectionPipeline,
    properties: str | Path | None,
) -> dict | None:
    """Score the splits of a protocol that the options need, write everything into `folder`, and return the report."""
    state = PartialState()
    # Many shards may start at once.
    with state.main_process_first(), FileLock(folder / ".claim.lock") if options.shard else nullcontext():
        started = claim_folder(folder, run, partial(_changes, run), "predictions", PREDICTIONS)

    fitting = _fitting_split(options, splits)
    about = describe_predictions(run, options.split, fitting, builder, detector) | started
    about |= describe_splits(builder, splits)
    scorer = Scorer(
        detector,
        folder,
        {"batch_size": options.batch_size, "num_workers": options.num_workers, **options.windows()},
        _face_cache(detector, folder if options.output_dir is not None else folder.parent),
        Work(_ray(options, detector), options.shard),
    )
    wanted = [options.split]
    if fitting is not None and options.fits_on_validation():
        wanted.insert(0, fitting)
    predictions = scorer.score_splits({name: splits[name] for name in wanted}, builder.GROUP_COLUMNS, about)
    if options.shard is not None:
        return None
    add_properties(folder / PREDICTIONS, splits[options.split], properties, options.num_workers)
    if options.perturb:
        score_perturbations(options, scorer, splits[options.split], predictions, about)
    if options.audit and state.is_main_process:
        journal = folder / AUDIT / "properties.jsonl"
        found = audit_dataset(splits, journal, num_workers=options.num_workers)
        write_audit(found, about_corpus(options.dataset, run["protocol"], options.data_dir), folder / AUDIT)
    state.wait_for_everyone()
    report = report_predictions(
        folder / PREDICTIONS, options, output_dir=folder if state.is_main_process else None
    )
    if options.calibrate and state.is_main_process:
        store_calibration(Path(options.model), report)
    return report


def report_predictions(
    path: str | Path, options: ReportOptions, output_dir: str | Path | None = None
) -> dict:
    """
    Make the report of a file of predictions, and of the perturbations and the audit beside it.

    Args:
        path (`str` or `Path`): A `predictions.parquet`.
        options ([`ReportOptions`]): Threshold, calibration and intervals. Nothing is stored in a model.
        output_dir (`str` or `Path`, *optional*): Folder of the report; nothing is written if left out.

    Returns:
        `dict`: the report, see [`build_report`], with `robustness` and `audit` (None where there is none).

    Raises:
        PredictionsError: when the file has no predictions, or not those that the options need.
    """
    predictions, about = read_predictions(path)
    report = build_report(predictions, about, **options.for_report())
    for name in (ROBUSTNESS, AUDIT):
        beside = Path(path).parent / name / f"{name}.json"
        report[name] = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else None
    if output_dir is not None:
        write_report(report, predictions, Path(output_dir))
    return report


def store_calibration(model: Path, report: dict) -> None:
    """Write threshold, temperature and abstain band of a report into a model folder's configuration."""
    path = model / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | calibration_of(report)
    write_whole(path, json.dumps(config, indent=2) + "\n")


# -- steps of an evaluation --------------------------------------------------------------------------------------------


def describe_run(
    options: EvaluationOptions, protocol: str, detector: AVDeepfakeDetectionPipeline, zero_shot: bool
) -> dict:
    """Return everything that scores depend on; a folder holds the predictions of one such description."""
    return {
        "model": str(options.model),
        "zero_shot": zero_shot,
        "detector": detector_identity(detector.model, detector.processor),
        "gate": _gate_identity(options.gate, detector),
        "dataset": options.dataset,
        "protocol": protocol,
        "synthetic": is_demonstration(options.data_dir),
        "options": options.windows(),
    }


def describe_predictions(
    run: dict,
    split: str,
    fitting: str | None,
    builder: datasets.DatasetBuilder,
    detector: AVDeepfakeDetectionPipeline,
) -> dict:
    """Return what a file of predictions says of itself, for reports that are made from it alone."""
    config = detector.model.config
    notes = builder.info.description.partition("Notes on this copy:")[2]
    return {
        **run,
        "split": split,
        "validation_split": fitting,
        "model_threshold": float(config.threshold),
        "abstain_band": config.abstain_band,
        "independent_parts": config.independent_parts,
        # Scores of a gated run are calibrated already, each by its own detector's temperature.
        "temperature": None if run["gate"] else config.temperature,
        "group_columns": list(builder.GROUP_COLUMNS),
        "notes": " ".join(notes.split("\n- ")).strip(),
        "missing": missing_files(builder),
    }


@dataclass
class Scorer:
    """
    A detector that keeps what it scored in a folder.

    Args:
        detector ([`AVDeepfakeDetectionPipeline`]): The detector.
        folder (`Path`): Folder of `predictions.parquet`, and of the journals of a run that was stopped.
        scoring (`dict`): Options of [`predict`].
        faces ([`FaceCache`], *optional*): Keeps the faces of the corpus's clips; those of perturbed clips are not kept.
        work ([`Work`]): What scores the clips, and the share of them that is scored.
    """

    detector: AVDeepfakeDetectionPipeline
    folder: Path
    scoring: dict
    faces: FaceCache | None = None
    work: Work = field(default_factory=Work)

    def score_splits(
        self, splits: dict[str, datasets.Dataset], group_columns: Sequence[str], about: dict
    ) -> list[dict]:
        """Score splits, and return their predictions together with those that an earlier run stored."""
        state = PartialState()
        path = self.folder / PREDICTIONS
        stored = read_predictions(path)[0] if path.is_file() else []
        predictions = [p for p in stored if p["split"] not in splits]
        for name, rows in splits.items():
            if state.is_main_process:
                print(f"{name}: {len(rows)} clips", flush=True)
            done = {p["path"]: p for p in stored if p["split"] == name}
            kept = kept_columns(rows, group_columns)
            how = self.scoring | ({} if self.faces is None else {"tracks": self.faces})
            scored = predict(self.detector, rows, self.folder / name, kept, done, work=self.work, **how)
            if self.work.shard is not None:
                print(f"  {len(scored)} of them have a score by now", flush=True)
            predictions += [{**p, "split": name} for p in scored]
        if (
            self.work.shard is not None
        ):  # what it scored stays in its journals until the whole is put together
            return predictions
        # Every process has read the journals before they are deleted.
        state.wait_for_everyone()
        if state.is_main_process:
            write_predictions(path, predictions, about)
            for name in splits:
                _delete_journals(self.folder / name)
        state.wait_for_everyone()
        return predictions

    def score_perturbed(self, rows, name: str, about: dict, temperature: dict | None) -> list[dict]:
        """Score perturbed clips, keep them in a file of their own, and return them with calibrated scores."""
        state = PartialState()
        folder = self.folder / ROBUSTNESS
        path = folder / f"{name}.parquet"
        done = {p["path"]: p for p in read_predictions(path)[0]} if path.is_file() else {}
        kept = [{key: row.get(key) for key in KEPT} for row in kept_columns(rows.dataset)]
        if state.is_main_process:
            print(f"{name}: {len(kept)} clips", flush=True)
        predictions = predict(self.detector, rows, folder / name, kept, done, **self.scoring)
        if state.is_main_process:
            write_predictions(path, predictions, about | {"perturbation": name})
            _delete_journals(folder / name)
        state.wait_for_everyone()
        return [with_temperature(p, temperature) for p in predictions]


def score_perturbations(
    options: EvaluationOptions,
    scorer: Scorer,
    rows: datasets.Dataset,
    predictions: list[dict],
    about: dict,
) -> None:
    """Score the split under perturbations, at the threshold and temperature of the untouched clips."""
    without_intervals = replace(options, n_resamples=0)
    untouched = report_predictions(scorer.folder / PREDICTIONS, without_intervals)
    temperature = untouched["temperature"]
    run_robustness(
        partial(scorer.score_perturbed, about=about, temperature=temperature),
        rows,
        scorer.folder / ROBUSTNESS,
        options.perturb,
        options.severities,
        untouched["threshold"],
        [with_temperature(p, temperature) for p in predictions if p["split"] == options.split],
    )


def _require_ffmpeg() -> None:
    try:
        check_ffmpeg()
    except PerturbationError as error:
        raise EvaluationError(str(error)) from error


def _load(options: EvaluationOptions, state: PartialState) -> tuple[AVDeepfakeDetectionPipeline, bool]:
    # The detector of this process says whose scores these are; with Ray, accelerators are left to the workers.
    device = options.device if options.ray is None else "cpu"
    if device is None and state.num_processes > 1:
        device = str(state.device)
    return load_detector(
        options.model, device, options.dtype, options.trust_remote_code, options.gate, options.gate_band
    )


def _ray(options: EvaluationOptions, detector: AVDeepfakeDetectionPipeline) -> RayEngine | None:
    if options.ray is None:
        return None
    how = (options.device, options.dtype, options.trust_remote_code, options.gate, options.gate_band)
    engine = RayEngine(detector, Loading(str(options.model), *how), options.ray)
    print(engine, flush=True)
    return engine


def _folder(options: EvaluationOptions, protocol: str) -> Path:
    if options.output_dir is not None:
        return Path(options.output_dir)
    name = model_slug(options.model) + (f"_gate_{model_slug(options.gate)}" if options.gate else "")
    return Path("runs/evaluation") / f"{options.dataset}_{protocol}" / name


def _face_cache(detector: AVDeepfakeDetectionPipeline, folder: Path) -> FaceCache | None:
    """Return the face tracks beside the predictions, which detectors scored on one protocol share."""
    # The pipeline of a repository's own code finds its faces itself.
    if not isinstance(detector, AVDeepfakeDetectionPipeline) or detector.processor.faces == "off":
        return None
    trim = detector.processor.trim_leading_silence
    return FaceCache(folder / "faces", trim_leading_silence=trim)


def _fitting_split(options: EvaluationOptions, splits: datasets.DatasetDict) -> str | None:
    name = options.validation_split
    return name if name in splits and name != options.split else None


def _gate_identity(gate: str | None, detector: AVDeepfakeDetectionPipeline) -> dict | None:
    """Return everything about a gate, and about the temperatures, that scores depend on."""
    if gate is None:
        return None
    first = detector.gate.detector
    return {
        "model": str(gate),
        "detector": detector_identity(first.model, first.processor),
        "band": list(detector.gate.band),
        "threshold": float(first.model.config.threshold),
        "temperatures": {"gate": first.model.config.temperature, "model": detector.model.config.temperature},
    }


def _changes(run: dict, before: dict) -> list[str]:
    # The same weights may have moved to another folder.
    changed = [key for key in ("dataset", "protocol", "options", "gate") if before.get(key) != run[key]]
    return changed + [key for key, value in run["detector"].items() if before["detector"].get(key) != value]


def _delete_journals(stem: Path) -> None:
    for journal in journals(stem):
        journal.unlink()

"""What `evaluate_avd.py` does: a detector, a protocol, a folder of numbers."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import datasets
import torch
from accelerate import PartialState

from dataset_scripts.demonstration import is_demonstration
from dataset_scripts.files import write_whole

from ..inference.identity import detector_identity
from ..inference.loading import load_detector
from ..pipeline_avd import AVDeepfakeDetectionPipeline
from .audit.audit import about_corpus, audit_dataset, write_audit
from .audit.file_properties import AuditError
from .errors import EvaluationError
from .predictions import (
    KEPT,
    PredictionsError,
    journals,
    kept_columns,
    predict,
    read_predictions,
    write_predictions,
)
from .protocols import load_protocol, splits_with
from .rendering import write_report
from .report import build_report, calibration_of, with_temperature
from .robustness.perturbations import PerturbationError, check_ffmpeg
from .robustness.robustness import choose_conditions, run_robustness
from .scoring_folder import claim_folder, folder_name

PREDICTIONS = "predictions.parquet"
ROBUSTNESS, AUDIT = "robustness", "audit"
"""Folders beside the predictions, each with a JSON file of its name."""


def evaluate_protocol(
    model: str,
    dataset: str,
    data_dir: str | Path,
    gate: str | None = None,
    gate_band: tuple[float, float] | None = None,
    protocol: str | None = None,
    split: str = "test",
    validation_split: str = "validation",
    threshold: float | str | None = None,
    output_dir: str | Path | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    aggregate: str | None = None,
    calibrate: bool = False,
    coverage: float | None = None,
    n_resamples: int = 1000,
    perturb: Sequence[str] | None = None,
    severities: Sequence[int] | None = None,
    audit: bool = False,
    device: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> tuple[dict, Path]:
    """
    Scores a detector on a protocol and writes predictions and a report.

    The folder gets `predictions.parquet` (every clip's labels and scores), the report as `report.json`, `report.md`
    and `report.html`, `dropped.txt` where there is something to list, and `run.json`, which says whose predictions
    these are. Started again after it was stopped, it scores what is missing. Under `accelerate launch` every process
    scores a share of the clips.

    Args:
        model (`str`):
            Folder or Hub id of a detector, or of an omni backbone, which is then scored as it is (zero-shot).
        dataset (`str`): Name of a registered dataset.
        data_dir (`str` or `Path`): Folder of the unpacked corpus.
        gate (`str`, *optional*), gate_band (`tuple[float, float]`, *optional*):
            Folder or Hub id of a small detector that answers for the clips it is sure of, and when it is, see [`Gate`].
            Both detectors' scores are then calibrated by their own temperatures, and `calibrate` is not possible.
        protocol (`str`, *optional*): The dataset's configuration; its default if left out.
        split (`str`, *optional*, defaults to `"test"`): What is reported.
        validation_split (`str`, *optional*, defaults to `"validation"`):
            Where threshold and calibration are fitted. Without it, or with one class in it, the model's own threshold
            is used.
        threshold (`float` or `"model"`, *optional*):
            A fixed threshold, or the model's own. The validation split is then scored only for calibration.
        output_dir (`str` or `Path`, *optional*): Defaults to `runs/evaluation/<dataset>_<protocol>/<model>`.
        batch_size, num_workers, window_seconds, hop_seconds, aggregate: As for the pipeline.
        calibrate (`bool`, *optional*, defaults to `False`):
            Fit temperatures on the validation split, and store them and the threshold in the model's folder.
        coverage (`float`, *optional*):
            Fit a band of uncertain scores too, see [`build_report`]; stored as well when `calibrate` is set.
        n_resamples (`int`, *optional*, defaults to 1000): Of the bootstrap for confidence intervals; 0 for none.
        perturb (`Sequence[str]`, *optional*): Perturbations under which the split is scored too, or `["all"]`.
        severities (`Sequence[int]`, *optional*): Of the perturbations; all of them if left out.
        audit (`bool`, *optional*, defaults to `False`): Look for shortcuts and leaks in the data.
        device (`str`, *optional*): Defaults to an accelerator where there is one.
        dtype (`str`, *optional*, defaults to `"auto"`): Type of the weights.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run the code in the model's repository.

    Returns:
        `tuple[dict, Path]`: the report, see [`build_report`], and the folder. The same in every process.

    Raises:
        EvaluationError: for an unknown dataset, protocol or split, a folder with predictions of another model or
            protocol, or a calibration that cannot be fitted or stored.
        DetectorError: for a model that cannot be loaded, or an unknown device or type.
    """
    threshold = _checked_threshold(threshold)
    if coverage is not None and not 0 < coverage < 1:
        raise EvaluationError(f"coverage must be a share between 0 and 1, not {coverage}.")
    if perturb:
        perturb = "all" if "all" in perturb else perturb
        try:
            choose_conditions(perturb, severities)
            check_ffmpeg()
        except (ValueError, PerturbationError) as error:
            raise EvaluationError(str(error)) from error
    if calibrate and gate:
        raise EvaluationError(
            "Calibration is stored with one detector: calibrate the gate and the model each by itself, then run with --gate."
        )
    if calibrate and not (Path(model) / "config.json").is_file():
        raise EvaluationError(
            f"Calibration is stored with the model, and {model} is not a local folder with one."
        )
    # First of all: on CPUs processes find one another only when told that there is no accelerator.
    state = PartialState(cpu=not torch.accelerator.is_available())
    with state.main_process_first():
        builder = load_protocol(dataset, protocol, data_dir)
    splits, protocol = splits_with(builder, split), builder.config.name
    if device is None and state.num_processes > 1:
        device = str(state.device)
    detector, zero_shot = load_detector(model, device, dtype, trust_remote_code, gate, gate_band)

    if output_dir is None:
        name = folder_name(model) + (f"_gate_{folder_name(gate)}" if gate else "")
        output_dir = Path("runs/evaluation") / f"{dataset}_{protocol}" / name
    output_dir = Path(output_dir)
    options = {"window_seconds": window_seconds, "hop_seconds": hop_seconds, "aggregate": aggregate}
    options = {name: value for name, value in options.items() if value is not None}
    run = {
        "model": str(model),
        "zero_shot": zero_shot,
        "detector": detector_identity(detector.model, detector.processor),
        "gate": _gate_identity(gate, detector),
        "dataset": dataset,
        "protocol": protocol,
        "synthetic": is_demonstration(data_dir),
        "options": options,
    }
    with state.main_process_first():
        started = claim_folder(output_dir, run, partial(_changes, run), "predictions", PREDICTIONS)

    fitting = validation_split if validation_split in splits and validation_split != split else None
    needed = [split]
    if fitting and (threshold is None or calibrate or coverage is not None):
        needed.insert(0, fitting)
    columns = builder.GROUP_COLUMNS
    scoring = {"batch_size": batch_size, "num_workers": num_workers, **options}
    predictions = _stored(output_dir, lambda name: name not in needed)
    for name in needed:
        if state.is_main_process:
            print(f"{name}: {len(splits[name])} clips", flush=True)
        done = {p["path"]: p for p in _stored(output_dir, lambda other, name=name: other == name)}
        rows = kept_columns(splits[name], columns)
        scored = predict(detector, splits[name], output_dir / name, rows, done, **scoring)
        predictions += [{**p, "split": name} for p in scored]

    config = detector.model.config
    about = {
        **run,
        "split": split,
        "validation_split": fitting,
        "model_threshold": float(getattr(config, "threshold", 0.5)),
        # With a gate the scores are calibrated already, each by the temperature of its own detector.
        "temperature": None if gate else getattr(config, "temperature", None),
        "group_columns": list(columns),
        "notes": " ".join(builder.info.description.partition("Notes on this copy:")[2].split("\n- ")).strip(),
        "missing": _missing_files(builder),
        **started,
    }
    # Every process has read the journals before they are deleted.
    state.wait_for_everyone()
    if state.is_main_process:
        write_predictions(output_dir / PREDICTIONS, predictions, about)
        for name in needed:
            for journal in journals(output_dir / name):
                journal.unlink()
    state.wait_for_everyone()
    reporting = {
        "threshold": threshold,
        "calibrate": calibrate,
        "coverage": coverage,
        "n_resamples": n_resamples,
    }
    if perturb:
        untouched = report_predictions(output_dir / PREDICTIONS, **{**reporting, "n_resamples": 0})
        temperature = untouched["temperature"]
        score = partial(
            _score_perturbed, detector, output_dir / ROBUSTNESS, about, temperature=temperature, **scoring
        )
        clean = [with_temperature(p, temperature) for p in predictions if p["split"] == split]
        at = untouched["threshold"]
        run_robustness(score, splits[split], output_dir / ROBUSTNESS, perturb, severities, at, clean)
    if audit and state.is_main_process:
        try:
            found = audit_dataset(splits, output_dir / AUDIT / "properties.jsonl", num_workers=num_workers)
        except AuditError as error:
            raise EvaluationError(str(error)) from error
        write_audit(found, about_corpus(dataset, protocol, data_dir), output_dir / AUDIT)
    state.wait_for_everyone()
    report = report_predictions(
        output_dir / PREDICTIONS, **reporting, output_dir=output_dir if state.is_main_process else None
    )
    if calibrate and state.is_main_process:
        store_calibration(Path(model), report)
    return report, output_dir


def report_predictions(
    path: str | Path,
    threshold: float | str | None = None,
    calibrate: bool = False,
    coverage: float | None = None,
    n_resamples: int = 1000,
    output_dir: str | Path | None = None,
) -> dict:
    """
    Makes a report of a file of predictions, and of what lies beside it: results of perturbations, an audit.

    Args:
        path (`str` or `Path`): A `predictions.parquet`.
        threshold, calibrate, coverage, n_resamples: As for [`evaluate_protocol`]; nothing is stored in a model.
        output_dir (`str` or `Path`, *optional*): Where the report is written; nowhere if left out.

    Raises:
        EvaluationError: when the file is not one of predictions, or what is asked cannot be had from it.
    """
    threshold = _checked_threshold(threshold)
    try:
        predictions, about = read_predictions(path)
        report = build_report(predictions, about, threshold, calibrate, coverage, n_resamples)
    except PredictionsError as error:
        raise EvaluationError(str(error)) from error
    for name in (ROBUSTNESS, AUDIT):
        beside = Path(path).parent / name / f"{name}.json"
        report[name] = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else None
    if output_dir is not None:
        write_report(report, predictions, Path(output_dir))
    return report


def store_calibration(model: Path, report: dict) -> None:
    """Writes threshold, temperature and abstain band of a report into a model folder's configuration."""
    path = model / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | calibration_of(report)
    write_whole(path, json.dumps(config, indent=2) + "\n")


def _score_perturbed(
    detector, folder: Path, about: dict, rows, name: str, temperature: dict | None, **scoring
) -> list[dict]:
    """The predictions of perturbed clips, kept in a file of their own, with calibrated scores."""
    file = folder / f"{name}.parquet"
    done = {p["path"]: p for p in read_predictions(file)[0]} if file.is_file() else {}
    kept = [{key: row.get(key) for key in KEPT} for row in kept_columns(rows.dataset)]
    if PartialState().is_main_process:
        print(f"{name}: {len(kept)} clips", flush=True)
    predictions = predict(detector, rows, folder / name, kept, done, **scoring)
    if PartialState().is_main_process:
        write_predictions(file, predictions, about | {"perturbation": name})
        for journal in journals(folder / name):
            journal.unlink()
    PartialState().wait_for_everyone()
    return [with_temperature(p, temperature) for p in predictions]


def _stored(output_dir: Path, wanted: Callable[[str], bool]) -> list[dict]:
    """What earlier runs left of the splits that are wanted."""
    if not (output_dir / PREDICTIONS).is_file():
        return []
    return [p for p in read_predictions(output_dir / PREDICTIONS)[0] if wanted(p["split"])]


def _missing_files(builder: datasets.DatasetBuilder) -> list[str]:
    """What the corpus lists and the disk does not have."""
    listing = Path(builder.missing_files)
    return listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else []


def _gate_identity(gate: str | None, detector: AVDeepfakeDetectionPipeline) -> dict | None:
    """Everything of a gate, and of the temperatures, that scores depend on."""
    if gate is None:
        return None
    first, config = detector.gate.detector, detector.gate.detector.model.config
    return {
        "model": str(gate),
        "detector": detector_identity(first.model, first.processor),
        "band": list(detector.gate.band),
        "threshold": float(config.threshold),
        "temperatures": {"gate": config.temperature, "model": detector.model.config.temperature},
    }


def _checked_threshold(threshold: float | str | None) -> float | str | None:
    if threshold in (None, "model"):
        return threshold
    try:
        value = float(threshold)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise EvaluationError(f"threshold must be a number in [0, 1] or 'model', not {threshold!r}.")
    return value


def _changes(run: dict, before: dict) -> list[str]:
    # The same weights may have moved to another folder.
    changed = [key for key in ("dataset", "protocol", "options", "gate") if before.get(key) != run[key]]
    return changed + [key for key, value in run["detector"].items() if before["detector"].get(key) != value]

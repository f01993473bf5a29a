"""What `evaluate_avd.py` does: a detector, a protocol, a folder of numbers."""

import datetime
import difflib
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import datasets
import torch
from accelerate import PartialState
from transformers import AutoConfig, pipeline

import dataset_scripts
from dataset_scripts.demonstration import is_demonstration

from ..hub_mixin import PIPELINE_TASK
from ..inference.auto import MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING
from ..inference.identity import detector_identity
from ..inference.provenance import environment
from ..modeling_avlmm import AVLMMForDeepfakeDetection
from ..pipeline_avd import AVDeepfakeDetectionPipeline
from ..processing_avlmm import AVLMMProcessor
from .audit.audit import about_corpus, audit_dataset, write_audit
from .audit.file_properties import AuditError
from .predictions import (
    KEPT,
    PredictionsError,
    journals,
    kept_columns,
    predict,
    read_predictions,
    write_predictions,
)
from .rendering import write_report
from .report import build_report, calibration_of, with_temperature
from .robustness.perturbations import PerturbationError, check_ffmpeg
from .robustness.robustness import choose_conditions, run_robustness

PREDICTIONS = "predictions.parquet"
ROBUSTNESS, AUDIT = "robustness", "audit"
"""Folders beside the predictions, each with a JSON file of its name."""


class EvaluationError(ValueError):
    """An evaluation that cannot be run as asked; the message says what to change."""


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
        EvaluationError: for an unknown dataset, protocol, split, device or model, a folder with predictions of
            another model or protocol, or a calibration that cannot be fitted or stored.
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
    splits, protocol = builder.as_dataset(), builder.config.name
    if split not in splits:
        raise EvaluationError(f"{dataset}/{protocol} has no split {split!r}; it has {', '.join(splits)}.")
    if device is None and state.num_processes > 1:
        device = str(state.device)
    detector, zero_shot = load_detector(model, device, dtype, trust_remote_code, gate, gate_band)

    if output_dir is None:
        name = "_".join(part for part in Path(str(model)).parts[-3:] if part not in ("/", "model"))
        if gate:
            name += f"_gate_{'_'.join(part for part in Path(gate).parts[-3:] if part not in ('/', 'model'))}"
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


def is_main_process() -> bool:
    """Whether this process is the one that writes and prints."""
    return PartialState().is_main_process


def store_calibration(model: Path, report: dict) -> None:
    """Writes threshold, temperature and abstain band of a report into a model folder's configuration."""
    path = model / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | calibration_of(report)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _score_perturbed(
    detector, folder: Path, about: dict, rows, name: str, temperature: dict | None, **scoring
) -> list[dict]:
    """The predictions of perturbed clips, kept in a file of their own, with calibrated scores."""
    file = folder / f"{name}.parquet"
    done = {p["path"]: p for p in read_predictions(file)[0]} if file.is_file() else {}
    kept = [{key: row.get(key) for key in KEPT} for row in kept_columns(rows.dataset)]
    if is_main_process():
        print(f"{name}: {len(kept)} clips", flush=True)
    predictions = predict(detector, rows, folder / name, kept, done, **scoring)
    if is_main_process():
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


def load_protocol(dataset: str, protocol: str | None, data_dir: str | Path) -> datasets.DatasetBuilder:
    """A registered dataset, prepared.

    Raises:
        EvaluationError: for an unknown name, with those that there are, or a folder that does not hold the corpus.
    """
    if dataset not in dataset_scripts.BUILDERS:
        raise EvaluationError(
            f"There is no dataset {dataset!r}{_nearest(dataset, dataset_scripts.BUILDERS)}. "
            f"There are: {', '.join(dataset_scripts.BUILDERS)}."
        )
    try:
        builder = datasets.load_dataset_builder(dataset, protocol, data_dir=str(data_dir))
        builder.download_and_prepare()
        return builder
    except datasets.exceptions.DatasetGenerationError as error:
        raise EvaluationError(f"{dataset}: {error.__cause__ or error}") from error
    except (ValueError, OSError) as error:  # every error of the builders is one of the two
        raise EvaluationError(f"{dataset}: {error}") from error


def load_detector(
    model: str,
    device: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    gate: str | None = None,
    gate_band: tuple[float, float] | None = None,
) -> tuple[AVDeepfakeDetectionPipeline, bool]:
    """
    The pipeline of a detector, or of an untrained omni backbone, behind a gate if one is named.

    Returns:
        `tuple`: the pipeline, and whether the model is a backbone that was not trained to detect anything.

    Raises:
        EvaluationError: for a model that cannot be loaded, or an unknown device or type.
    """
    try:
        device = None if device is None else torch.device(device)
    except RuntimeError as error:
        raise EvaluationError(f"device {device!r} is not known: use cpu, cuda, cuda:1, mps, ...") from error
    if dtype != "auto" and not getattr(getattr(torch, dtype, None), "is_floating_point", False):
        raise EvaluationError(f"dtype {dtype!r} is not known: use auto, float32, bfloat16 or float16.")
    if str(model).startswith((".", "/", "~")) and not Path(model).is_dir():
        raise EvaluationError(f"There is no folder {model}.")
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
        options = {"device": device, "trust_remote_code": trust_remote_code or None}
        if gate is not None:
            first, _ = load_detector(gate, None if device is None else str(device), dtype, trust_remote_code)
            options |= {"gate": first, "gate_band": gate_band}
        known = {config_class.model_type for config_class in MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING}
        if config.model_type in known or hasattr(config, "custom_pipelines"):
            return pipeline(PIPELINE_TASK, model=str(model), dtype=dtype, **options), False
        detector = AVLMMForDeepfakeDetection.from_backbone(str(model), dtype=dtype)
        processor = AVLMMProcessor.from_backbone(str(model))
        return pipeline(PIPELINE_TASK, model=detector, processor=processor, **options), True
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{model} cannot be loaded: {error}") from error


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


def claim_folder(
    folder: Path, run: dict, changes: Callable[[dict], list[str]], holds: str, results: str
) -> dict:
    """
    Marks a folder as a run's, or checks that it is.

    Args:
        folder (`Path`): The folder.
        run (`dict`): What the run is of; `model`, `dataset` and `protocol` among it.
        changes (`Callable`): From what the folder is of to the names of what differs.
        holds (`str`), results (`str`): What such a folder has in it, for people, and the file that has it.

    Returns:
        `dict`: `environment` and `date` of when the run was started.

    Raises:
        EvaluationError: when the folder is another run's, or nobody knows whose.
    """
    marker = folder / "run.json"
    if marker.is_file():
        before = json.loads(marker.read_text(encoding="utf-8"))
        if changed := changes(before):
            raise EvaluationError(
                f"{folder} holds {holds} of {before['model']} on {before['dataset']}/{before['protocol']}; this run "
                f"differs in {', '.join(changed)}. Give another --output-dir, or delete that folder."
            )
        return {key: before[key] for key in ("environment", "date")}
    if (folder / results).is_file():
        raise EvaluationError(
            f"{folder} holds {holds}, but no run.json that says whose. Give another --output-dir."
        )
    started = {
        "environment": environment(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    temporary = marker.with_suffix(".tmp")
    temporary.write_text(json.dumps(run | started, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, marker)
    return started


def _changes(run: dict, before: dict) -> list[str]:
    # The same weights may have moved to another folder.
    changed = [key for key in ("dataset", "protocol", "options", "gate") if before.get(key) != run[key]]
    return changed + [key for key, value in run["detector"].items() if before["detector"].get(key) != value]


def _nearest(name: str, known) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""

"""What `evaluate_avd.py` does: a detector, a protocol, a folder of numbers."""

import datetime
import difflib
import json
from pathlib import Path

import datasets
import torch
from transformers import AutoConfig, pipeline

import dataset_scripts

from ..auto import MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING
from ..environment import environment
from ..hub_mixin import PIPELINE_TASK
from ..modeling_avlmm import AVLMMForDeepfakeDetection
from ..pipeline_avd import AVDeepfakeDetectionPipeline
from ..processing_avlmm import AVLMMProcessor
from .identity import detector_identity, is_demonstration
from .metrics import choose_threshold
from .run import evaluate_detector, predict
from .table import metrics_table


class EvaluationError(ValueError):
    """An evaluation that cannot be run as asked; the message says what to change."""


def evaluate_protocol(
    model: str,
    dataset: str,
    data_dir: str | Path,
    protocol: str | None = None,
    split: str = "test",
    validation_split: str = "validation",
    threshold: float | str | None = None,
    output_dir: str | Path | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    device: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> tuple[dict, Path]:
    """
    Scores a detector on a protocol and writes predictions and metrics.

    The folder gets `predictions_<split>.jsonl` (one line a clip), `metrics.json`, `unreadable.txt` where there is
    something to list, and `run.json`, which says whose predictions these are. Started again after it was stopped, it
    scores what is missing.

    Args:
        model (`str`):
            Folder or Hub id of a detector, or of an omni backbone, which is then scored as it is (zero-shot).
        dataset (`str`): Name of a registered dataset.
        data_dir (`str` or `Path`): Folder of the unpacked corpus.
        protocol (`str`, *optional*): The dataset's configuration; its default if left out.
        split (`str`, *optional*, defaults to `"test"`): What is reported.
        validation_split (`str`, *optional*, defaults to `"validation"`):
            Where the threshold is chosen. Without it, or with one class in it, the model's own is used.
        threshold (`float` or `"model"`, *optional*):
            A fixed threshold, or the model's own. The validation split is then not scored.
        output_dir (`str` or `Path`, *optional*): Defaults to `runs/evaluation/<dataset>_<protocol>/<model>`.
        batch_size, num_workers (`int`): As for the pipeline.
        device (`str`, *optional*): Defaults to an accelerator where there is one.
        dtype (`str`, *optional*, defaults to `"auto"`): Type of the weights.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run the code in the model's repository.

    Returns:
        `tuple[dict, Path]`: what `metrics.json` holds with `table`, a printable text; and the folder.

    Raises:
        EvaluationError: for an unknown dataset, protocol, split, device or model, or a folder with predictions of
            another model or protocol.
    """
    threshold = _checked_threshold(threshold)
    builder = load_protocol(dataset, protocol, data_dir)
    splits, protocol = builder.as_dataset(), builder.config.name
    if split not in splits:
        raise EvaluationError(f"{dataset}/{protocol} has no split {split!r}; it has {', '.join(splits)}.")
    detector, zero_shot = load_detector(model, device, dtype, trust_remote_code)

    if output_dir is None:
        name = "_".join(part for part in Path(str(model)).parts[-3:] if part not in ("/", "model"))
        output_dir = Path("runs/evaluation") / f"{dataset}_{protocol}" / name
    output_dir = Path(output_dir)
    identity = detector_identity(detector.model, detector.processor)
    _claim(output_dir, {"model": str(model), "dataset": dataset, "protocol": protocol, "detector": identity})

    def scored(name: str) -> list[dict]:
        print(f"{name}: {len(splits[name])} clips", flush=True)
        return predict(
            detector,
            splits[name],
            output_dir / f"predictions_{name}.jsonl",
            batch_size,
            num_workers=num_workers,
        )

    own = float(getattr(detector.model.config, "threshold", 0.5))
    read = []
    if threshold == "model":
        threshold, source = own, "the model's own"
    elif threshold is not None:
        source = "given"
    elif validation_split in splits and validation_split != split:
        read = [p for p in scored(validation_split) if p["score"] is not None]
        if len({p["label"] for p in read}) == 2:
            threshold = choose_threshold([p["label"] for p in read], [p["score"] for p in read])
            source = validation_split
        else:
            threshold, source = (
                own,
                f"the model's own ({validation_split} has no readable clips of both classes)",
            )
    else:
        threshold, source = own, "the model's own (no validation split)"

    predictions = scored(split)
    if all(p["score"] is None for p in predictions):
        first = predictions[0]["error"] if predictions else {"message": "the split is empty"}
        raise EvaluationError(
            f"None of the {len(predictions)} clips of {split} could be read. {first['message']}"
        )
    report = {
        "model": str(model),
        "zero_shot": zero_shot,
        "detector": identity,
        "dataset": dataset,
        "protocol": protocol,
        "split": split,
        "synthetic": is_demonstration(data_dir),
        "notes": builder.info.description.partition("Notes on this copy:")[2].strip(),
        "clips": len(predictions),
        "threshold": threshold,
        "threshold_source": source,
        "threshold_clips": len(read) if source == validation_split else None,
        **evaluate_detector(predictions, threshold),
        "environment": environment(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }
    (output_dir / "metrics.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    errors = {p["path"]: p["error"] for p in predictions if p["score"] is None}
    listing = output_dir / "unreadable.txt"
    listing.unlink(missing_ok=True)
    if errors:
        lines = [f"{path}\t{error['type']}\t{error['message']}\n" for path, error in errors.items()]
        listing.write_text("".join(lines), encoding="utf-8")
    return {**report, "table": metrics_table(report)}, output_dir


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
    model: str, device: str | None = None, dtype: str = "auto", trust_remote_code: bool = False
) -> tuple[AVDeepfakeDetectionPipeline, bool]:
    """
    The pipeline of a detector, or of an untrained omni backbone.

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
        known = {config_class.model_type for config_class in MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING}
        if config.model_type in known or hasattr(config, "custom_pipelines"):
            return pipeline(PIPELINE_TASK, model=str(model), dtype=dtype, **options), False
        detector = AVLMMForDeepfakeDetection.from_backbone(str(model), dtype=dtype)
        processor = AVLMMProcessor.from_backbone(str(model))
        return pipeline(PIPELINE_TASK, model=detector, processor=processor, **options), True
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{model} cannot be loaded: {error}") from error


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


def _claim(output_dir: Path, run: dict) -> None:
    """Marks the folder as this run's, or checks that it is."""
    marker = output_dir / "run.json"
    if marker.is_file():
        before = json.loads(marker.read_text(encoding="utf-8"))
        # The same weights may have moved to another folder.
        changed = [key for key in ("dataset", "protocol") if before[key] != run[key]]
        changed += [key for key, value in run["detector"].items() if before["detector"].get(key) != value]
        if changed:
            raise EvaluationError(
                f"{output_dir} holds predictions of {before['model']} on {before['dataset']}/{before['protocol']}; "
                f"this run differs in {', '.join(changed)}. Give another --output-dir, or delete that folder."
            )
    elif list(output_dir.glob("predictions_*.jsonl")):
        raise EvaluationError(
            f"{output_dir} holds predictions, but no run.json that says whose. Give another --output-dir."
        )
    else:
        output_dir.mkdir(parents=True, exist_ok=True)
        marker.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")


def _nearest(name: str, known) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""

"""Publish a detector: write a folder, or Hub repository, that loads in one line without this package."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformers import AutoProcessor, PreTrainedModel, ProcessorMixin

from dataset_scripts.files import written_whole

from ..configuration_avpl import AVPLConfig
from ..configuration_detector import DEMONSTRATION_NOTICE
from ..evaluation.report import calibration_of
from ..inference.auto import AutoModelForAVDeepfakeDetection
from ..inference.places import DetectorError, faults_of_model
from ..inference.provenance import detector_identity
from ..inference.served_settings import DETECTOR_FILE
from .card import CardMetadata, render_model_card
from .endpoint import write_endpoint
from .eval_results import write_eval_results
from .training_record import copy_training, hub_id, training_summary
from .upload import PublishError, Upload, upload_folder
from .vllm_layout import check_servable, vllm_card, write_vllm_folder

Reports = list[tuple[Path, dict]]

LAYOUTS = ("transformers", "vllm")
"""Uses of a folder: `pipeline()` with the detector's own code, or a vLLM server."""


def publish(
    model_dir: str | Path,
    destination: str | Path,
    metrics: str | Path | Sequence[str | Path] = (),
    metadata: CardMetadata | None = None,
    upload: Upload | None = None,
    endpoint: bool = False,
    layout: str = LAYOUTS[0],
) -> Path | str:
    """
    Write everything that others need to use a detector, and upload it on request.

    The result holds weights, configuration with the pipeline's entry, the whole processor, the code of all of it, the
    record of the training, and a model card with the numbers of `metrics`.

    ```python
    >>> from modeling_avlmm.publishing.publish import Upload, publish

    >>> publish("runs/demo/training/encoders/model", "published/demo", metrics="runs/demo/evaluation/encoders")
    >>> publish("runs/demo/training/encoders/model", "my-org/demo", upload=Upload(private=False))
    ```

    Args:
        model_dir (`str` or `Path`): A trained detector, such as the `model` folder of a training stage.
        destination (`str` or `Path`): Folder to write, or with `upload` the repository, `owner/name`.
        metrics (`str`, `Path` or list of them, *optional*):
            `report.json` files, or folders that hold them, written by `evaluate_avd.py` for this very detector. The first
            threshold in them that was chosen on validation data becomes the detector's own.
        metadata ([`CardMetadata`], *optional*): Fields of the model card, in place of those that the recipe names.
        upload ([`Upload`], *optional*): Upload to the Hub, with these options.
        endpoint (`bool`, *optional*, defaults to `False`): Add `handler.py` and `requirements.txt` for Inference Endpoints.
        layout (`str`, *optional*, defaults to `"transformers"`):
            `"vllm"` for a folder that a vLLM server takes, without code, see [`write_vllm_folder`].

    Returns:
        `Path` of the folder, or with `upload` the URL of the repository.

    Raises:
        PublishError: If `model_dir` holds no detector, the metrics are about another one, or `destination` holds
            something else, or the Hub refuses the upload or cannot be reached.
        LayoutError: If vLLM has no loader for the detector.
    """
    model_dir = Path(model_dir)
    reports = load_reports(metrics)
    _check_destination(destination, model_dir, upload)
    model, processor = _load(model_dir)
    for path, report in reports:
        _check_report(path, report, model, processor)
    _check_encoders(model)
    if layout == "vllm":
        check_servable(model)
    training = training_summary(model_dir)
    if training and model.config.notice == DEMONSTRATION_NOTICE:
        training["synthetic"] = True  # published before, without the notes about the data
    _note_in_configuration(model, training, reports)
    destination = str(destination) if upload else Path(destination)
    name = destination.rpartition("/")[2] if upload else destination.resolve().name
    about = {
        "name": name,
        # The path on this machine tells others nothing.
        "repository": name if Path(destination).is_absolute() else str(destination),
        "model": model,
        "reports": [report for _, report in reports],
        "metadata": _metadata(metadata or CardMetadata(), model, training),
    }

    def write(folder: Path) -> None:
        if layout == "vllm":
            write_vllm_folder(model, processor, folder)
            card = vllm_card(**about)
        else:
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
            card = render_model_card(processor=processor, training=training, endpoint=endpoint, **about)
        card.save(folder / "README.md")
        copy_training(model_dir, folder)
        _write_reports(folder, name, reports)
        write_eval_results(folder, [report for _, report in reports])
        if endpoint:
            write_endpoint(folder, model, processor)

    if upload:
        with tempfile.TemporaryDirectory() as temporary:
            write(Path(temporary))
            return upload_folder(Path(temporary), destination, upload)
    with written_whole(destination.resolve()) as folder:
        write(folder)
        if destination.exists():  # published before: `_check_destination` let it pass
            shutil.rmtree(destination)
    return destination


# -- what is refused ---------------------------------------------------------------------------------------------------


def load_reports(metrics: str | Path | Sequence[str | Path]) -> Reports:
    """Return the reports of `report.json` files, or of the folders that hold them, with their paths."""
    reports = []
    for path in [metrics] if isinstance(metrics, str | Path) else metrics:
        path = Path(path)
        path = path / "report.json" if path.is_dir() else path
        if not path.is_file():
            raise PublishError(
                f"There are no metrics at {path}. evaluate_avd.py writes them into its output folder."
            )
        report = json.loads(path.read_text(encoding="utf-8"))
        if "overall" not in report or "detector" not in report:
            raise PublishError(f"{path} was not written by evaluate_avd.py.")
        reports.append((path, report))
    return reports


def _check_destination(destination: str | Path, model_dir: Path, upload: Upload | None) -> None:
    if upload:
        try:
            validate_repo_id(str(destination))
        except HFValidationError as error:
            raise PublishError(f"{destination} is not a repository name: use owner/name.") from error
        return
    folder = Path(destination)
    if folder.resolve() == model_dir.resolve():
        raise PublishError("The destination is the model's own folder: give another one.")
    if folder.is_file():
        raise PublishError(f"{folder} is a file: give a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        if not _is_published(folder):
            raise PublishError(
                f"{folder} holds something that is not a published detector: give an empty folder."
            )
        if (folder / ".git").exists():
            raise PublishError(
                f"{folder} is a git repository: publish to another folder and copy from there."
            )


def _is_published(folder: Path) -> bool:
    """Return whether a folder holds a published detector, in one of the layouts."""
    config = folder / "config.json"
    if not config.is_file() or not (folder / "README.md").is_file():
        return False
    served = (folder / DETECTOR_FILE).is_file()
    return served or "custom_pipelines" in json.loads(config.read_text(encoding="utf-8"))


def _load(model_dir: Path) -> tuple[PreTrainedModel, ProcessorMixin]:
    if not (model_dir / "config.json").is_file():
        raise PublishError(
            f"{model_dir} holds no detector: there is no config.json. Give a stage's `model` folder."
        )
    if not (model_dir / "processor_config.json").is_file():
        raise PublishError(f"{model_dir} holds a model but no processor. Save its processor there as well.")
    try:
        with faults_of_model(model_dir):
            # The saved type, whatever it is: publishing changes no weight.
            model = AutoModelForAVDeepfakeDetection.from_pretrained(model_dir, dtype="auto")
            return model, AutoProcessor.from_pretrained(model_dir)
    except DetectorError as error:
        raise PublishError(str(error)) from error


def _check_report(path: Path, report: dict, model: PreTrainedModel, processor: ProcessorMixin) -> None:
    measured = report["detector"]
    own = detector_identity(model, processor, getattr(torch, measured["dtype"]))
    changed = [name for name, value in measured.items() if own[name] != value]
    if changed:
        raise PublishError(
            f"{path} is about another detector ({report['model']}): {', '.join(changed)} differ. Run evaluate_avd.py "
            "on the model that is published."
        )


def _check_encoders(model: PreTrainedModel) -> None:
    """Refuse a frozen encoder that is neither stored nor on the Hub, and forget the folder of one that is stored."""
    if not isinstance(model.config, AVPLConfig):
        return
    stored = model.config.stored_encoders()
    for part, (source, _) in model.config.encoder_sources.items():
        if source is None or hub_id(source) is not None:
            continue
        if part not in stored:
            raise PublishError(
                f"The detector's {part} encoder is the local folder {source}, which nobody else has: set "
                "save_encoders to true in its config.json to publish it with the detector, or give the Hub id of the "
                f"same weights as {part}_encoder."
            )
        setattr(model.config, f"{part}_encoder", None)


# -- what is written ---------------------------------------------------------------------------------------------------


def _note_in_configuration(model: PreTrainedModel, training: dict, reports: Reports) -> None:
    """Note the training and the first calibration that was fitted on validation data in the model's configuration."""
    if training:
        model.config.training_summary = training
        if training.get("synthetic") and model.config.notice is None:
            model.config.notice = DEMONSTRATION_NOTICE
    chosen = next((report for _, report in reports if report.get("threshold_clips")), None)
    if chosen is not None:
        for key, value in calibration_of(chosen).items():
            setattr(model.config, key, value)


def _metadata(given: CardMetadata, model: PreTrainedModel, training: dict) -> CardMetadata:
    """Fill in what is not given from the recipe and the configuration."""
    base, datasets = given.base_model, given.datasets
    if not base:
        base = hub_id(training.get("backbone"))
    if not base and isinstance(model.config, AVPLConfig):
        sources = [source for source, _ in model.config.encoder_sources.values()]
        base = [source for source in sources if hub_id(source) is not None] or None
    if not datasets and training.get("dataset") and not training.get("synthetic"):
        datasets = [training["dataset"]]
    return replace(given, base_model=base or None, datasets=datasets or None)


def _write_reports(folder: Path, name: str, reports: Reports) -> None:
    for number, (_, report) in enumerate(reports, start=1):
        file = "report.json" if number == 1 else f"report_{number}.json"
        text = json.dumps({**report, "model": name}, indent=2) + "\n"
        (folder / file).write_text(text, encoding="utf-8")

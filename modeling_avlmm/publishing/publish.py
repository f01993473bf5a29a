"""Publishes a detector: a folder, or Hub repository, that loads in one line without this package."""

import json
import shutil
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
import torch
import yaml
from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformers import AutoProcessor, PreTrainedModel

from dataset_scripts.demonstration import is_demonstration

from ..configuration_detector import DEMONSTRATION_NOTICE
from ..evaluation.report import calibration_of
from ..inference.auto import AutoModelForAVDeepfakeDetection
from ..inference.provenance import detector_identity
from .card import render_card

TEMPLATE = "model_card.md"
LOCAL_PATHS = ("output_dir", "data_dir", "annotations")


class PublishError(ValueError):
    """A detector that cannot be published as asked; the message says what to change."""


def publish(
    model_dir: str | Path,
    destination: str | Path,
    *,
    push: bool = False,
    private: bool = True,
    metrics: str | Path | Sequence[str | Path] = (),
    base_model: str | None = None,
    datasets: str | Sequence[str] | None = None,
    license: str | None = None,
    language: str | Sequence[str] | None = None,
    token: str | bool | None = None,
    commit_message: str = "Upload audio-visual deepfake detector",
) -> Path | str:
    """
    Writes everything a detector needs to be used by others, and uploads it when asked to.

    The result holds weights, configuration with the pipeline's entry, the whole processor, the code of all of it,
    what it was trained with, and a model card with the numbers of `metrics`.

    Args:
        model_dir (`str` or `Path`): A trained detector, e.g. the `model` folder of a training stage.
        destination (`str` or `Path`): Folder to write, or with `push` the repository, `owner/name`.
        push (`bool`, *optional*, defaults to `False`): Upload to the Hub.
        private (`bool`, *optional*, defaults to `True`): Whether a repository that does not exist yet is private.
        metrics (`str`, `Path` or list of them, *optional*):
            `report.json` files, or the folders that hold them, as written by `evaluate_avd.py` for this very
            detector. The first threshold in them that was chosen on validation data becomes the detector's own.
        base_model (`str`, *optional*): Hub id of the backbone; taken from the training recipe if left out.
        datasets (`str` or `list[str]`, *optional*): What it was trained on; likewise.
        license (`str`, *optional*): Licence identifier of the weights, e.g. `apache-2.0`.
        language (`str` or `list[str]`, *optional*): ISO 639-1 codes of the speech it was trained on.
        token (`str` or `bool`, *optional*): Hub token; the one of `hf auth login` if left out.
        commit_message (`str`, *optional*): Of the upload.

    Returns:
        `Path` of the folder, or with `push` the URL of the repository.

    Raises:
        PublishError: when there is no detector in `model_dir`, the metrics are not its own, or `destination` holds
            something else.
    """
    model_dir = Path(model_dir)
    reports = load_reports(metrics)
    if push:
        try:
            validate_repo_id(str(destination))
        except HFValidationError as error:
            raise PublishError(f"{destination} is not a repository name: use owner/name.") from error
    else:
        destination = Path(destination)
        _check_destination(destination, model_dir)
    model, processor = _load(model_dir)
    for path, report in reports:
        _check_report(path, report, model, processor)

    _check_encoders(model)
    training = training_summary(model_dir)
    if training:
        model.config.training_summary = training
        if training.get("synthetic") and model.config.notice is None:
            model.config.notice = DEMONSTRATION_NOTICE
    chosen = next((report for _, report in reports if report.get("threshold_clips")), None)
    if chosen is not None:
        for key, value in calibration_of(chosen).items():
            setattr(model.config, key, value)
    name = Path(destination).name if push else destination.resolve().name
    card = render_card(
        template=card_template(),
        name=name,
        # Where it lies on this machine is nobody's business.
        repository=name if Path(destination).is_absolute() else str(destination),
        config=model.config,
        processor=processor,
        parameters=model.num_parameters(),
        reports=[report for _, report in reports],
        training=training,
        base_model=base_model or _hub_id(training.get("backbone")) or _encoders_on_the_hub(model),
        datasets=[datasets] if isinstance(datasets, str) else datasets or _trained_on(training),
        license=license,
        language=[language] if isinstance(language, str) else language,
    )

    # Beside the destination, so that a half-written folder is never taken for a whole one.
    parent = None if push else destination.resolve().parent
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=parent) as temporary:
        folder = Path(temporary) / "published"
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        card.save(folder / "README.md")
        _copy_training(model_dir, folder)
        for number, (_, report) in enumerate(reports):
            file = "report.json" if number == 0 else f"report_{number + 1}.json"
            text = json.dumps({**report, "model": name}, indent=2) + "\n"
            (folder / file).write_text(text, encoding="utf-8")
        if not push:
            if destination.exists():
                shutil.rmtree(destination)
            folder.rename(destination)
            return destination
        api = huggingface_hub.HfApi(token=token)
        repository = api.create_repo(str(destination), private=private, exist_ok=True)
        api.upload_folder(repo_id=repository.repo_id, folder_path=folder, commit_message=commit_message)
        return str(repository)


def load_reports(metrics: str | Path | Sequence[str | Path]) -> list[tuple[Path, dict]]:
    """The reports of `report.json` files, or of the folders that hold them."""
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


def card_template() -> Path:
    """The model card's template: at the root of a checkout, or where an installed package has its data."""
    beside = Path(__file__).parents[2] / TEMPLATE
    return (
        beside
        if beside.is_file()
        else Path(sysconfig.get_path("data")) / "share" / "modeling_avlmm" / TEMPLATE
    )


def _noted_of_data(recipe: Path) -> dict:
    """What a run noted about its data; runs of earlier versions did not say whether it was synthetic."""
    noted = recipe.with_name("dataset.json")
    return json.loads(noted.read_text(encoding="utf-8")) if noted.is_file() else {}


def training_summary(model_dir: Path) -> dict:
    """What produced the weights, from the files that training leaves in and above `model_dir`; empty without any."""
    recipe, stage, single = _recipe_of(model_dir), model_dir / "stage.json", model_dir / "training.json"
    summary = {}
    if recipe is not None:
        plain = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        summary = {
            "recipe": plain.get("name"),
            "backbone": plain["model"].get("backbone"),
            "dataset": plain["data"].get("dataset"),
            "protocol": plain["data"].get("protocol"),
            "synthetic": plain["model"].get("backbone") == "demo"
            or _noted_of_data(recipe).get("synthetic", False)
            or is_demonstration(plain["data"].get("data_dir")),
            "stages": [],
        }
        # Recipes of earlier versions named a small detector in model.kind.
        system = plain.get("system") or plain["model"].get("kind", "avlmm")
        if system != "avlmm":
            _name_local_sources(plain["model"])
            summary["network"] = {"kind": system} | {
                key: plain["model"].get(key) for key in ("preset", "options")
            }
            summary["pseudo_fakes"] = plain["data"].get("pseudo_fakes")
        for planned in plain.get("stages", ()):
            summary["stages"].append(
                {key: planned.get(key) for key in ("name", "kind", "learning_rate", "lora_rank")}
            )
            if (
                stage.is_file()
                and planned.get("name") == json.loads(stage.read_text(encoding="utf-8"))["stage"]["name"]
            ):
                break
    if stage.is_file():
        last = json.loads(stage.read_text(encoding="utf-8"))
        summary["last_stage"] = {key: last.get(key) for key in ("steps", "clips", "dropped")}
        summary["last_stage"]["name"] = last["stage"]["name"]
    if single.is_file():
        last = json.loads(single.read_text(encoding="utf-8"))
        summary["last_stage"] = {key: last.get(key) for key in ("steps", "clips", "dropped", "best_step")}
        summary["last_stage"]["learning_rate"] = last["training"]["learning_rate"]
    return summary


def _load(model_dir: Path) -> tuple[PreTrainedModel, AutoProcessor]:
    if not (model_dir / "config.json").is_file():
        raise PublishError(
            f"{model_dir} holds no detector: there is no config.json. Give a stage's `model` folder."
        )
    if not (model_dir / "processor_config.json").is_file():
        raise PublishError(f"{model_dir} holds a model but no processor. Save its processor there as well.")
    try:
        # The saved type, whatever it is: publishing changes no weight.
        model = AutoModelForAVDeepfakeDetection.from_pretrained(model_dir, dtype="auto")
        return model, AutoProcessor.from_pretrained(model_dir)
    except ValueError as error:
        raise PublishError(f"{model_dir} is not a detector of this package: {error}") from error


def _check_encoders(model: PreTrainedModel) -> None:
    """A frozen encoder that is not stored must be found by others; one that is has no place but its name."""
    if not hasattr(model.config, "stored_encoders"):
        return
    stored = model.config.stored_encoders()
    for part in ("vision", "audio"):
        source = getattr(model.config, f"{part}_encoder")
        if source is None or _hub_id(source) is not None:
            continue
        if part not in stored:
            raise PublishError(
                f"The detector's {part} encoder is the local folder {source}, which nobody else has: set "
                "save_encoders to true in its config.json to publish it with the detector, or give the Hub id of the "
                f"same weights as {part}_encoder."
            )
        setattr(model.config, f"{part}_encoder", None)


def _encoders_on_the_hub(model: PreTrainedModel) -> list[str] | None:
    """Hub ids of the frozen encoders of a detector that has some."""
    sources = [getattr(model.config, f"{part}_encoder", None) for part in ("vision", "audio")]
    return [source for source in sources if _hub_id(source) is not None] or None


def _check_report(path: Path, report: dict, model: PreTrainedModel, processor) -> None:
    measured = report["detector"]
    own = detector_identity(model, processor, getattr(torch, measured["dtype"]))
    changed = [name for name, value in measured.items() if own[name] != value]
    if changed:
        raise PublishError(
            f"{path} is about another detector ({report['model']}): {', '.join(changed)} differ. Run evaluate_avd.py "
            "on the model that is published."
        )


def _check_destination(destination: Path, model_dir: Path) -> None:
    if destination.resolve() == model_dir.resolve():
        raise PublishError("The destination is the model's own folder: give another one.")
    if destination.is_file():
        raise PublishError(f"{destination} is a file: give a folder.")
    if destination.is_dir() and any(destination.iterdir()):
        config = destination / "config.json"
        published = config.is_file() and (destination / "README.md").is_file()
        if not published or "custom_pipelines" not in json.loads(config.read_text(encoding="utf-8")):
            raise PublishError(
                f"{destination} holds something that is not a published detector: give an empty folder."
            )
        if (destination / ".git").exists():
            raise PublishError(
                f"{destination} is a git repository: publish to another folder and copy from there."
            )


def _recipe_of(model_dir: Path) -> Path | None:
    """A run's folder holds `recipe.yaml` and `<stage>/model` or `model`; a published folder holds the recipe itself."""
    for folder in (model_dir, model_dir.resolve().parent, model_dir.resolve().parent.parent):
        if (folder / "recipe.yaml").is_file():
            return folder / "recipe.yaml"
    return None


def _copy_training(model_dir: Path, folder: Path) -> None:
    """The run's summary, and the recipe with local folders reduced to their last name."""
    for name in ("stage.json", "training.json"):
        if (model_dir / name).is_file():
            shutil.copyfile(model_dir / name, folder / name)
    recipe = _recipe_of(model_dir)
    if recipe is not None:
        plain = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        for part in (plain, plain["data"]):
            for key in LOCAL_PATHS:
                if part.get(key):
                    part[key] = Path(part[key]).name
        _name_local_sources(plain["model"])
        (folder / "recipe.yaml").write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


def _name_local_sources(network: dict) -> None:
    """Reduces the local folders in a recipe's `model` to their last name, in place."""
    options = network.get("options") or {}
    for place, keys in ((network, ("backbone", "start")), (options, ("vision_encoder", "audio_encoder"))):
        for key in keys:
            if place.get(key) and _hub_id(place[key]) is None:
                place[key] = Path(place[key]).name


def _hub_id(backbone: str | None) -> str | None:
    """`owner/name`, or None for a local folder or the demonstration's backbone."""
    if (
        not backbone
        or backbone.count("/") != 1
        or backbone.startswith((".", "/", "~"))
        or Path(backbone).exists()
    ):
        return None
    return backbone


def _trained_on(training: dict) -> list[str] | None:
    return [training["dataset"]] if training.get("dataset") and not training.get("synthetic") else None

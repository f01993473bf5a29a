"""The record of a detector's training, read from the files that a run leaves in and above the model's folder."""

import json
import shutil
from pathlib import Path

import yaml

from dataset_scripts.demonstration import is_demonstration

from .training_sources import SOURCES

RECIPE, STAGE, TRAINING = "recipe.yaml", "stage.json", "training.json"
LOCAL_PATHS = (
    *("output_dir", "data_dir", "annotations", "face_cache"),
    *("photos", "speech", "synthetic_speech", "store"),
)
"""Fields of a recipe that hold local folders; published recipes have their last name only."""


def training_summary(model_dir: Path) -> dict:
    """Return the recipe, data and stages behind the weights in `model_dir`; empty if nothing was recorded."""
    recipe = _beside(model_dir, RECIPE)
    summary = {} if recipe is None else _planned(recipe)
    stage, training = _json(model_dir / STAGE), _json(model_dir / TRAINING)
    if stage is not None:
        if "stages" in summary:  # those after this one have not touched these weights
            names = [planned["name"] for planned in summary["stages"]]
            if stage["stage"]["name"] in names:
                del summary["stages"][names.index(stage["stage"]["name"]) + 1 :]
        summary["last_stage"] = {key: stage.get(key) for key in ("steps", "clips", "dropped")}
        summary["last_stage"]["name"] = stage["stage"]["name"]
    if training is not None:
        summary["last_stage"] = {key: training.get(key) for key in ("steps", "clips", "dropped", "best_step")}
        summary["last_stage"]["learning_rate"] = training["training"]["learning_rate"]
    if (sources := _beside(model_dir, SOURCES)) is not None:
        summary["recordings"] = _json(sources)
    return summary


def _planned(recipe: Path) -> dict:
    """Return what a recipe says of the training."""
    plain = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    model, data = plain["model"], plain["data"]
    # Earlier versions did not note whether the data was synthetic.
    noted = _json(recipe.with_name("dataset.json")) or {}
    summary = {
        "recipe": plain.get("name"),
        "backbone": model.get("backbone"),
        "dataset": data.get("dataset"),
        "protocol": data.get("protocol"),
        "synthetic": model.get("backbone") == "demo"
        or noted.get("synthetic", False)
        or is_demonstration(data.get("data_dir")),
        "stages": [
            {key: planned.get(key) for key in ("name", "kind", "learning_rate", "lora_rank")}
            for planned in plain.get("stages", ())
        ],
    }
    # Recipes of earlier versions named a small detector in model.kind.
    system = plain.get("system") or model.get("kind", "avlmm")
    if system != "avlmm":
        _shorten_sources(model)
        summary["network"] = {"kind": system, "preset": model.get("preset"), "options": model.get("options")}
        summary["pseudo_fakes"] = data.get("pseudo_fakes")
    return summary


def copy_training(model_dir: Path, folder: Path) -> None:
    """Copy the run's summary and its recipe, with local folders reduced to their last name."""
    for name in (STAGE, TRAINING):
        if (model_dir / name).is_file():
            shutil.copyfile(model_dir / name, folder / name)
    if (sources := _beside(model_dir, SOURCES)) is not None:
        shutil.copyfile(sources, folder / SOURCES)
    recipe = _beside(model_dir, RECIPE)
    if recipe is not None:
        plain = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        for part in (plain, plain["data"]):
            for key in LOCAL_PATHS:
                if part.get(key):
                    part[key] = Path(part[key]).name
        _shorten_sources(plain["model"])
        (folder / RECIPE).write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


def hub_id(source: str | None) -> str | None:
    """Return `owner/name` as it is, and None for a local folder or the demonstration's backbone."""
    if not source or source.count("/") != 1 or source.startswith((".", "/", "~")) or Path(source).exists():
        return None
    return source


def _beside(model_dir: Path, name: str) -> Path | None:
    """Return a file of a run, above `<stage>/model` or `model`, or the one in a published folder."""
    for folder in (model_dir, model_dir.resolve().parent, model_dir.resolve().parent.parent):
        if (folder / name).is_file():
            return folder / name
    return None


def _shorten_sources(network: dict) -> None:
    """Reduce the local folders in a recipe's `model` to their last name, in place."""
    options = network.get("options") or {}
    for place, keys in (
        (network, ("backbone", "start", "picture_weights", "sound_weights")),
        (options, ("vision_encoder", "audio_encoder")),
    ):
        for key in keys:
            if place.get(key) and hub_id(place[key]) is None:
                place[key] = Path(place[key]).name


def _json(path: Path) -> dict | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

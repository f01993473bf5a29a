"""The folder of a training run: claim it, resume in it, and leave the trained detector there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import yaml
from datasets import Dataset
from transformers import PreTrainedModel, ProcessorMixin

from dataset_scripts.demonstration import is_demonstration
from dataset_scripts.files import write_whole, written_whole

from ..configuration_detector import DEMONSTRATION_NOTICE, AVDetectorConfig
from ..inference.provenance import environment
from .checkpoint_check import check_checkpoint
from .recipe_parts import ClipsRecipe, DataRecipe
from .recipe_values import RecipeError
from .recipes import SYSTEMS, AnyRecipe, SmallDetectorRecipe, recipe_from

MAY_CHANGE = ("output_dir", "report_to")
"""Fields that may differ when a run is resumed."""
_NOT_ITS_OWN = (
    "{} is not what a run writes ({}). Give another --output_dir, or delete that folder to start again."
)


def claim_folder(recipe: AnyRecipe, dataset: Dataset) -> None:
    """
    Write the recipe, the environment and the dataset's fingerprint, or check that a run that is there can be resumed.

    Raises:
        RecipeError: when `output_dir` holds a run of another recipe, or on other data.
    """
    folder = Path(recipe.output_dir)
    known, fingerprint = folder / "recipe.yaml", dataset_fingerprint(dataset)
    if not known.is_file():
        # Noted here, as the corpus may have moved when the detector is published.
        trained_on = {**fingerprint, "synthetic": is_demonstration(recipe.data.data_dir)}
        write_whole(folder / "dataset.json", json.dumps(trained_on, indent=2))
        write_whole(folder / "environment.json", json.dumps(environment(), indent=2))
        write_whole(known, yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False))
        return
    before, now = dataclasses.asdict(_recipe_of_run(known)), dataclasses.asdict(recipe)
    changed = [key for key in now if key not in MAY_CHANGE and now[key] != before.get(key)]
    if changed:
        raise RecipeError(
            f"{folder} holds a run of another recipe ({', '.join(changed)} differ). Give another --output_dir, "
            "or delete that folder to start again."
        )
    try:
        trained_on = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        clips, sha256 = trained_on["clips"], trained_on["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecipeError(_NOT_ITS_OWN.format(folder / "dataset.json", error)) from error
    if sha256 != fingerprint["sha256"]:
        raise RecipeError(
            f"{folder} holds a run on other data ({clips} clips then, {fingerprint['clips']} now). "
            "Give another --output_dir, or restore the corpus."
        )


def _recipe_of_run(path: Path) -> AnyRecipe:
    try:
        return saved_recipe(path)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        yaml.YAMLError,
        RecursionError,
    ) as error:
        raise RecipeError(_NOT_ITS_OWN.format(path, error)) from error


def saved_recipe(path: Path) -> AnyRecipe:
    """
    Read the `recipe.yaml` of a run.

    Also of one made before recipes named their system, or while a small detector's took fields that mean nothing to it.
    """
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "system" not in values:
        values["system"] = values["model"].pop("kind", "avlmm")
    if SYSTEMS.get(values["system"]) is SmallDetectorRecipe:
        for name in ClipsRecipe.not_for_it:
            values.get("data", {}).pop(name, None)
    return recipe_from(values)


def dataset_fingerprint(dataset: Dataset) -> dict:
    """Return the number of clips, of each label, and a hash over every clip's path and labels."""
    digest = hashlib.sha256()
    counts = {0: 0, 1: 0}
    for row in dataset.select_columns(["path", "label", "video_label", "audio_label"]):
        counts[row["label"]] += 1
        digest.update(json.dumps(row, sort_keys=True).encode())
    return {"clips": len(dataset), "real": counts[0], "fake": counts[1], "sha256": digest.hexdigest()}


def latest_checkpoint(folder: Path) -> Path | None:
    """
    Return the last checkpoint that was written to its end; the trainer writes its state last.

    Raises:
        RecipeError: when a file in it is not what a trainer writes.
    """
    complete = []
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            complete.append((int(checkpoint.name.removeprefix("checkpoint-")), checkpoint))
        except (OSError, ValueError, RecursionError):
            continue
    if not complete:
        return None
    _, checkpoint = max(complete)
    check_checkpoint(checkpoint)
    return checkpoint


def write_detector(
    folder: Path, model: PreTrainedModel, processor: ProcessorMixin, notes: dict[str, dict], log: list[dict]
) -> None:
    """
    Write a stage's results. The folder `model` appears last and whole, as the sign that the stage is done.

    Args:
        folder (`Path`): The stage's folder.
        model (`PreTrainedModel`), processor (`ProcessorMixin`): The trained detector.
        notes (`dict[str, dict]`): JSON files to write beside the weights, by name.
        log (`list[dict]`): The trainer's log entries.
    """
    # without the trainer's mean loss, which leaves out what was trained before a run resumed
    kept = [{name: value for name, value in entry.items() if name != "train_loss"} for entry in log]
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
    shutil.rmtree(folder / "model", ignore_errors=True)
    with written_whole(folder / "model") as partial:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        for name, values in notes.items():
            (partial / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    for leftover in ("checkpoints", "trained"):
        shutil.rmtree(folder / leftover, ignore_errors=True)


def name_demonstration(config: AVDetectorConfig, data: DataRecipe) -> None:
    """Mark a detector trained on synthetic clips as a demonstration; remove the mark when it trains on other clips."""
    if is_demonstration(data.data_dir):
        config.notice = config.notice or DEMONSTRATION_NOTICE
    elif config.notice == DEMONSTRATION_NOTICE:
        config.notice = None

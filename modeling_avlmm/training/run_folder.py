"""The folder of a training run: what it is a run of, and whether it may be gone on with."""

import ctypes
import dataclasses
import hashlib
import json
import warnings
from pathlib import Path

import datasets
import transformers
import yaml
from accelerate import PartialState
from datasets import Dataset, Video, load_dataset

from dataset_scripts.demonstration import is_demonstration

from ..configuration_detector import DEMONSTRATION_NOTICE, AVDetectorConfig
from ..inference.provenance import environment
from .recipes import DataRecipe, RecipeError


def load_split(data: DataRecipe, split: str) -> Dataset:
    """
    A split of the recipe's dataset, with media as paths, without the generators that the recipe leaves out.

    Raises:
        RecipeError: where the recipe leaves out a generator that the split does not have.
    """
    dataset = load_dataset(data.dataset, data.protocol, data_dir=data.data_dir, split=split)
    dataset = dataset.cast_column("video", Video(decode=False))
    if not data.exclude_generators:
        return dataset
    made_by = list(zip(dataset["generator"], dataset["audio_generator"], strict=True))
    known = {name for names in made_by for name in names if name is not None}
    if unknown := sorted(set(data.exclude_generators) - known):
        raise RecipeError(
            f"data.exclude_generators: the split {split} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}."
        )
    left_out = set(data.exclude_generators)
    return dataset.select([number for number, names in enumerate(made_by) if not left_out & set(names)])


def start_folder(output_dir: Path, recipe, dataset: Dataset) -> None:
    """Writes recipe, environment and dataset fingerprint, or checks that they are those of the run that is there."""
    plain = dataclasses.asdict(recipe)
    known = output_dir / "recipe.yaml"
    fingerprint = dataset_fingerprint(dataset)
    if known.is_file():
        before = yaml.safe_load(known.read_text(encoding="utf-8"))
        changed = [key for key in plain if key != "output_dir" and plain[key] != before.get(key)]
        if changed:
            raise RecipeError(
                f"{output_dir} holds a run of another recipe ({', '.join(changed)} differ). Give another --output_dir, "
                "or delete that folder to start again."
            )
        trained_on = json.loads((output_dir / "dataset.json").read_text(encoding="utf-8"))
        if trained_on["sha256"] != fingerprint["sha256"]:
            raise RecipeError(
                f"{output_dir} holds a run on other data ({trained_on['clips']} clips then, {fingerprint['clips']} now). "
                "Give another --output_dir, or restore the corpus."
            )
        return
    output_dir.mkdir(parents=True, exist_ok=True)
    # Kept here, as the corpus may have moved when the detector is published.
    trained_on = {**fingerprint, "synthetic": is_demonstration(recipe.data.data_dir)}
    (output_dir / "dataset.json").write_text(json.dumps(trained_on, indent=2), encoding="utf-8")
    (output_dir / "environment.json").write_text(json.dumps(environment(), indent=2), encoding="utf-8")
    known.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


def name_demonstration(config: AVDetectorConfig, data: DataRecipe) -> None:
    """A detector trained on synthetic clips says so wherever it is used; one that went on to others no longer does."""
    if is_demonstration(data.data_dir):
        config.notice = config.notice or DEMONSTRATION_NOTICE
    elif config.notice == DEMONSTRATION_NOTICE:
        config.notice = None


def dataset_fingerprint(dataset: Dataset) -> dict:
    """Number of clips, of each label, and a hash over every clip's path and labels."""
    digest = hashlib.sha256()
    table = dataset.select_columns(["path", "label", "video_label", "audio_label"])
    counts = {0: 0, 1: 0}
    for row in table:
        counts[row["label"]] += 1
        digest.update(json.dumps(row, sort_keys=True).encode())
    return {"clips": len(dataset), "real": counts[0], "fake": counts[1], "sha256": digest.hexdigest()}


def quiet_libraries() -> None:
    """Leaves the terminal to the run's own lines: bars for loading tiny files hide them."""
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    # TRL sets an argument whose name transformers is changing; the user can do nothing about it.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)


def keep_freed_memory() -> bool:
    """
    Tells glibc to keep the memory of freed tensors for the next ones. For training on CPUs.

    By default it gives blocks of more than 32 MB back to the system at once, which then has to clear them anew, page by
    page, in every step: with it SSAVD's recipe for the demonstration trained 1.17 times as many clips a second on two
    cores, in 3 % more memory.

    Returns:
        `bool`: False without glibc; nothing is changed then.
    """
    mmap_max, trim_threshold = -4, -1  # of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library without a name
        return False
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, -1))


def say(text: str) -> None:
    """A line of progress, from one process only."""
    if PartialState().is_main_process:
        print(text, flush=True)

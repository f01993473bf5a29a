"""The dry run of training: what a recipe would train, write and take of memory, said before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import PartialState
from datasets.exceptions import DatasetGenerationError

from dataset_scripts.errors import CorpusError

from ..training.batches import load_split
from ..training.genuine_data import genuine_recordings
from ..training.progress import quiet_trainer
from ..training.recipe_parts import ClipsRecipe
from ..training.recipes import AnyRecipe, AVLMMRecipe, GenuineRecipe, SmallDetectorRecipe
from ..training.small_detectors import genuine_clips, validation_split
from . import avlmm_plan, genuine_plan, small_plan
from .phrases import fits, limit_line, memory_limit, memory_line


def plan_training(recipe: AnyRecipe, memory_gib: float | None = None) -> bool:
    """
    Print what a recipe would do, and whether it fits.

    Of a backbone, of encoders and of a detector to start from, only the configuration is read (of a Hub id: downloaded); of
    the corpus, only its lists.

    Args:
        recipe ([`Recipe`]): The run.
        memory_gib (`float`, *optional*): Memory of the device. Its own if left out.

    Returns:
        `bool`: whether every stage fits.

    Raises:
        RecipeError: for a configuration that cannot be read, a network that cannot be made, or splits that the corpus does
            not have.
    """
    quiet_trainer()
    recipe.check_trackers()
    processes = PartialState(cpu=not torch.accelerator.is_available()).num_processes
    system = {AVLMMRecipe: avlmm_plan, GenuineRecipe: genuine_plan}.get(type(recipe), small_plan)
    limit, where = memory_limit(memory_gib)
    clips, told = count_clips(recipe)
    plans = system.stage_plans(recipe, clips, processes)
    print(f"Dry run of {recipe.name}: nothing is loaded, trained or written.")
    print(f"{system.model_line(recipe)}; {told}")
    print(limit_line(limit, where), flush=True)
    all_fit = True
    for number, plan in enumerate(plans, start=1):
        print(f"Stage {number}/{len(plans)} {plan.title}", flush=True)
        need = plan.need()
        print(f"  {need.trained:,} of {need.all_weights:,} weights train")
        for line in (*plan.facts(), memory_line(need, limit), plan.files_line(need)):
            print(f"  {line}", flush=True)
        if not fits(need, limit):
            all_fit = False
            for line in plan.advice(need, limit):
                print(f"  {line}", flush=True)
    return all_fit


def count_clips(recipe: AnyRecipe) -> tuple[int | None, str]:
    """
    Return the number of clips to draw from, if the corpus is there, and a line about it.

    Raises:
        RecipeError: for splits that the corpus does not have, or that cannot be trained or validated on.
    """
    data = recipe.data
    name = f"{data.dataset}/{data.protocol or 'default protocol'}, split {data.train_split}"
    if not Path(data.data_dir).is_dir():
        return None, f"{name}: there is no folder {data.data_dir!r}, so clips cannot be counted"
    try:
        split = load_split(data, data.train_split)
    except DatasetGenerationError as error:
        return None, f"{name}: {error.__cause__ or error}"
    except (CorpusError, OSError) as error:
        return None, f"{name}: {error}"
    if isinstance(recipe, GenuineRecipe):
        recordings = genuine_recordings(data, split, recipe.seed)
        return len(recordings), f"{name}: {genuine_plan.recordings_line(recordings)}"
    if isinstance(recipe, SmallDetectorRecipe) and recipe.training.keep == "auc":
        validation_split(recipe, len(split))
    if isinstance(data, ClipsRecipe) and data.held_out is not None:
        recordings = genuine_recordings(data, split, recipe.seed)
        trained = sum(not each.held_out for each in recordings)
        return trained, f"{name}: {genuine_plan.recordings_line(recordings)}"
    if isinstance(data, ClipsRecipe) and data.pseudo_fakes:
        genuine = genuine_clips(split)
        return len(genuine), f"{name}: {len(genuine)} genuine clips of {len(split)}"
    return len(split), f"{name}: {len(split)} clips"

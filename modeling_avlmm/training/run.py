"""The training driver: runs a recipe's stages in order, whichever detector they train, and resumes after a stop."""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel, ProcessorMixin, Trainer, set_seed

from dataset_scripts.run_lock import only_run_in

from ..explain.words import count_of
from ..inference.threads import usable_cores
from .analysis_stage import AnalysisStage
from .avlmm_stages import AlignmentStage, AVLMMStage, starting_point
from .batches import Collator, DropList, load_split
from .calibrate import complete_facevoice
from .facevoice_stages import facevoice_stages
from .progress import quiet_trainer, say
from .recipe_parts import OptimisationRecipe, StageRecipe
from .recipes import AnyRecipe, AVLMMRecipe, GenuineRecipe
from .run_folder import claim_folder, latest_checkpoint, name_demonstration, write_detector
from .small_detectors import SmallDetectorStage
from .stage_kinds import count_trainable
from .tiny.pretraining import PretrainingStage

AVLMM_STAGES: dict[str, type[AVLMMStage]] = {
    "pretraining": PretrainingStage,
    "alignment": AlignmentStage,
    "encoders": AVLMMStage,
    "analysis": AnalysisStage,
}


class Stage(Protocol):
    """
    One stage of a run: the methods that [`run_stage`] calls, in this order.

    Attributes:
        recipe ([`Recipe`]): The run.
        settings ([`StageRecipe`] or [`OptimisationRecipe`]): Steps, batches and rates.
        title (`str`): Name and kind, for the terminal.
        folder (`Path`): Folder of its results.
        draws_of (`str`): Plural of what is drawn, for the terminal.
        summary_file (`str`): Name of the file beside the weights that describes the training.
    """

    recipe: AnyRecipe
    settings: StageRecipe | OptimisationRecipe
    title: str
    folder: Path
    draws_of: ClassVar[str]
    summary_file: ClassVar[str]

    def rows(self, dataset: Dataset) -> Dataset:
        """Return the rows that the stage draws from, given the training split."""

    def model(self, rows: Dataset) -> tuple[PreTrainedModel, ProcessorMixin]:
        """Load or make the detector, with what trains set."""

    def collator(
        self, model: PreTrainedModel, processor: ProcessorMixin, rows: Dataset, drops: DropList
    ) -> Collator:
        """Return what makes batches of rows."""

    def draws(self, rows: Dataset, processes: int) -> int:
        """Return the number of rows to draw."""

    def schedule(self, rows: Dataset, draws: int) -> Dataset:
        """Draw the rows that are trained on, in order."""

    def trainer(self, model: PreTrainedModel, processor: ProcessorMixin, rows: Dataset, **options) -> Trainer:
        """Return the trainer; `options` are `train_dataset`, `data_collator`, `drops` and `max_drops`."""

    def finish(self, trainer: Trainer) -> tuple[PreTrainedModel, ProcessorMixin] | None:
        """Return the trained detector and its processor; None on all processes but the main one."""

    def summary(self, trainer: Trainer) -> dict:
        """Return what the summary file says beside the counts of every stage."""


def train(recipe: AnyRecipe) -> Path:
    """
    Run every stage of a recipe that has not been run yet.

    `output_dir` holds `recipe.yaml`, `environment.json` and `dataset.json`. The folder of a stage - `output_dir/<stage>` for
    AV-LMMDetect and facevoice, `output_dir` itself for a small detector - holds `model` (the detector), `drops.jsonl`, `log.jsonl`, and
    `checkpoints` while the stage runs; LoRA stages leave `adapter`, too. Started again after it was killed, a run resumes
    from its last checkpoint.

    Args:
        recipe ([`Recipe`]): The run.

    Returns:
        `Path`: the folder of the last stage's detector.

    Raises:
        RecipeError: when `output_dir` holds a run of another recipe, or the recipe does not fit the detector or the data.
        TooManyDropsError: when more clips than `data.max_drop_share` could not be read.
        FolderInUseError: when another run writes into `output_dir`.
    """
    # First of all: on CPUs, processes find one another only when told that there is no accelerator.
    state = PartialState(cpu=not torch.accelerator.is_available())
    quiet_trainer()
    recipe.check_trackers()
    if not torch.cuda.is_available():
        # Threads that wait for a core which a decoding process holds are several times slower.
        cores = min(torch.get_num_threads(), usable_cores())
        torch.set_num_threads(max(1, cores - recipe.data.num_workers))
        keep_freed_memory()
    dataset = load_split(recipe.data, recipe.data.train_split)  # before a folder is made
    with only_run_in(recipe.output_dir) if state.is_main_process else nullcontext():
        return _train_in_folder(recipe, dataset)


def _train_in_folder(recipe: AnyRecipe, dataset: Dataset) -> Path:
    """Run the stages that have not been run yet, and return the folder of the last one's detector."""
    state = PartialState()
    with state.main_process_first():
        claim_folder(recipe, dataset)
    stages = stages_of(recipe)
    for number, stage in enumerate(stages, start=1):
        model_dir = stage.folder / "model"
        if (model_dir / stage.summary_file).is_file():
            say(f"Stage {number}/{len(stages)} {stage.title}: done before, in {model_dir}")
        else:
            say(f"Stage {number}/{len(stages)} {stage.title}")
            run_stage(stage, dataset)
    return complete_facevoice(recipe, dataset, stages) if isinstance(recipe, GenuineRecipe) else model_dir


def stages_of(recipe: AnyRecipe) -> list[Stage]:
    """Return the stages of a recipe, each starting from the detector of the one before."""
    if isinstance(recipe, GenuineRecipe):
        return facevoice_stages(recipe)
    if not isinstance(recipe, AVLMMRecipe):
        return [SmallDetectorStage(recipe)]
    stages, source = [], starting_point(recipe)
    for settings in recipe.stages:
        stages.append(AVLMM_STAGES[settings.kind](recipe, settings, source))
        source = stages[-1].folder / "model"
    return stages


def run_stage(stage: Stage, dataset: Dataset) -> None:
    """Train one stage on a split, from its last checkpoint where there is one, and write `stage.folder/model`."""
    recipe, settings = stage.recipe, stage.settings
    processes = PartialState().num_processes
    stage.folder.mkdir(parents=True, exist_ok=True)
    drops = DropList(stage.folder / "drops.jsonl")
    rows = stage.rows(dataset)
    set_seed(recipe.seed)
    model, processor = stage.model(rows)
    collator = stage.collator(model, processor, rows, drops)
    draws = stage.draws(rows, processes)
    schedule = stage.schedule(rows, draws)
    trainer = stage.trainer(
        model,
        processor,
        rows,
        train_dataset=schedule,
        data_collator=collator,
        drops=drops,
        max_drops=int(recipe.data.max_drop_share * len(set(schedule["path"]))),
    )
    weights = sum(p.numel() for p in trainer.model.parameters())
    say(
        f"  {count_trainable(trainer.model):,} of {weights:,} weights train; {draws} {stage.draws_of} drawn from {len(rows)}, "
        f"{settings.batch_size * settings.gradient_accumulation * processes} a step"
    )
    checkpoint = latest_checkpoint(stage.folder / "checkpoints")
    if checkpoint is not None:
        say(f"  resuming from {checkpoint}")
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    finish_stage(stage, trainer, drops)


def finish_stage(stage: Stage, trainer: Trainer, drops: DropList) -> None:
    """Write the stage's detector and its log."""
    finished = stage.finish(trainer)
    if finished is not None:
        model, processor = finished
        name_demonstration(model.config, stage.recipe.data)
        dropped = len(drops.clips())
        summary = {
            **stage.summary(trainer),
            "steps": trainer.state.global_step,
            "clips": len(trainer.train_dataset),
            "dropped": dropped,
            "processes": trainer.accelerator.num_processes,
        }
        write_detector(
            stage.folder, model, processor, {stage.summary_file: summary}, trainer.state.log_history
        )
        say(
            f"  wrote {stage.folder / 'model'}; {count_of(dropped, 'clip')} dropped"
            + (f", listed in {drops.path}" if dropped else "")
        )
    trainer.accelerator.wait_for_everyone()


def keep_freed_memory() -> bool:
    """
    Tell glibc to keep the memory of freed tensors for the next ones, for training on CPUs.

    By default it returns blocks of more than 32 MB to the system at once, which then has to clear them again, page by page,
    in every step. With this, SSAVD's recipe for the demonstration trained 1.17 times as many clips per second on two cores,
    in 3 % more memory.

    Returns:
        `bool`: False without glibc; nothing changes then.
    """
    mmap_max, trim_threshold = -4, -1  # of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library without a name
        return False
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, -1))

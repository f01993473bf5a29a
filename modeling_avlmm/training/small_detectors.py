"""The one stage of a small detector (SSAVD, AVPL): its network, its clips and validation, and what it leaves behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from transformers import AutoConfig, AutoProcessor, PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from dataset_scripts.files import write_whole

from ..inference.auto import MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING, AutoModelForAVDeepfakeDetection
from ..modeling_avpl import AVPLForDeepfakeDetection
from ..modeling_avpl_encoders import EncoderError
from .batches import REAL, ClipCollator, DropList, build_schedule, load_split
from .clip_faces import ClipFaces, clip_faces
from .clip_store import ClipStore
from .genuine_data import TRAINING_FILES, Recording, data_record, genuine_recordings, training_files
from .pseudo_fakes.pseudo_faker import PseudoFaker
from .recipe_parts import NetworkRecipe
from .recipe_values import RecipeError, check_place, unknown_field
from .recipes import SmallDetectorRecipe
from .trainers import DetectorTrainer, training_arguments

VALIDATION_DRAWS = 4
"""Draws of each genuine clip where validation is made of pseudo-fakes; our own choice."""
UNCALIBRATED = {
    "threshold": 0.5,
    **dict.fromkeys(("temperature", "abstain_band", "calibration", "training_summary")),
}
"""Fields of a configuration that describe its weights, and not those that are trained further."""
MAKE_ENCODERS = "python -m modeling_avlmm.training.tiny.encoders"


class SmallDetectorStage:
    """
    The training of a small detector, as `run.py` takes it; [`AVLMMStage`] has the same methods.

    Args:
        recipe ([`SmallDetectorRecipe`]): The run.
    """

    draws_of: ClassVar[str] = "clips"
    summary_file: ClassVar[str] = "training.json"

    def __init__(self, recipe: SmallDetectorRecipe):
        self.recipe = recipe
        self.title = f"{recipe.name} ({recipe.system})"
        self.folder = Path(recipe.output_dir)
        self.settings = recipe.training
        self.faces = clip_faces(recipe)
        self.processor: ProcessorMixin | None = None
        self.recordings: list[Recording] = []

    def rows(self, dataset: Dataset) -> Dataset:
        """Return the clips to draw from: genuine ones where fakes are made of them, those with a face where it is cropped."""
        data = self.recipe.data
        rows = genuine_clips(dataset) if data.pseudo_fakes else dataset
        if data.held_out is not None:
            self.recordings = genuine_recordings(data, dataset, self.recipe.seed)
            if PartialState().is_main_process:
                write_whole(self.folder / TRAINING_FILES, training_files(self.recordings))
            rows = clips_of(rows, self.recordings, held_out=False)
        return rows if self.faces is None else self.faces.rows_with_faces(rows)

    def model(self, rows: Dataset) -> tuple[PreTrainedModel, ProcessorMixin]:
        """Make the detector."""
        model, self.processor = make_detector(self.recipe.system, self.recipe.model)
        if self.settings.gradient_checkpointing and not model.supports_gradient_checkpointing:
            raise RecipeError(
                f"training.gradient_checkpointing: {type(model).__name__} has no activations to recompute."
            )
        return model, self.processor

    def collator(
        self, model: PreTrainedModel, processor: ProcessorMixin, rows: Dataset, drops: DropList
    ) -> ClipCollator:
        """Return the collator, which makes the pseudo-fakes too."""
        data = self.recipe.data
        seconds, store = data.clip_seconds or processor.max_seconds, None
        if data.store is not None:
            kept = data.store_seconds if data.crop == "random" else seconds
            store = ClipStore(Path(data.store), processor, seconds, kept)
            if PartialState().is_main_process:
                store.fill(rows, self.faces)
        return ClipCollator(
            processor,
            drops,
            clip_seconds=seconds,
            crop=data.crop,
            seed=self.recipe.seed,
            augment=data.augment,
            pseudo_faker=pseudo_faker(self.recipe) if data.pseudo_fakes else None,
            others=rows if data.pseudo_fakes else None,
            track_of=None if self.faces is None else self.faces.track,
            store=store,
        )

    def draws(self, rows: Dataset, processes: int) -> int:
        """Return the number of clips to draw."""
        return steps_of(self.recipe, len(rows), processes)[0] * clips_per_step(self.recipe, processes)

    def schedule(self, rows: Dataset, draws: int) -> Dataset:
        """Draw the clips that are trained on, in order."""
        data, seed = self.recipe.data, self.recipe.seed
        if data.pseudo_fakes:
            data = dataclasses.replace(data, balance="none")
        if data.pseudo_fake_pairs:
            return in_pairs(build_schedule(rows, data, -(-draws // 2), seed), draws)
        return build_schedule(rows, data, draws, seed)

    def trainer(
        self, model: PreTrainedModel, processor: ProcessorMixin, rows: Dataset, **options
    ) -> DetectorTrainer:
        """Return the trainer; `options` are `train_dataset`, `data_collator`, `drops` and `max_drops`."""
        steps, steps_per_epoch = steps_of(self.recipe, len(rows), PartialState().num_processes)
        validation = None
        if self.settings.keep == "auc":
            validation = validation_split(self.recipe, len(options["train_dataset"]), self.faces)
        return DetectorTrainer(
            model=model,
            args=training_arguments(
                self.recipe,
                self.settings,
                self.folder / "checkpoints",
                steps,
                steps_per_epoch,
                scored=validation is not None,
            ),
            eval_dataset=validation,
            patience=self.settings.patience,
            **options,
        )

    def finish(self, trainer: DetectorTrainer) -> tuple[PreTrainedModel, ProcessorMixin] | None:
        """Return the trained detector and its processor; None on all processes but the main one."""
        if not trainer.is_world_process_zero():
            return None
        return trainer.accelerator.unwrap_model(trainer.model), self.processor

    def summary(self, trainer: DetectorTrainer) -> dict:
        """Return what the summary file says beside the counts of every stage."""
        best = trainer.state.best_metric
        return {
            "training": dataclasses.asdict(self.settings),
            "validation_auc": best,
            "best_step": None if best is None else trainer.state.best_global_step,
            **({"data": data_record(self.recordings)} if self.recordings else {}),
        }


# -- steps and clips ---------------------------------------------------------------------------------------------------


def clips_per_step(recipe: SmallDetectorRecipe, processes: int) -> int:
    """Return the clips of an optimiser step, of all processes together."""
    return recipe.training.batch_size * recipe.training.gradient_accumulation * processes


def steps_of(recipe: SmallDetectorRecipe, clips: int, processes: int) -> tuple[int, int]:
    """Return the optimiser steps of a run on so many clips, and of one epoch."""
    steps_per_epoch = max(1, clips // clips_per_step(recipe, processes))
    return recipe.training.max_steps or max(
        1, round(recipe.training.epochs * steps_per_epoch)
    ), steps_per_epoch


def genuine_clips(dataset: Dataset) -> Dataset:
    """Return the clips that pseudo-fakes are made of."""
    genuine = dataset.filter(lambda label: label == REAL, input_columns="label")
    if not len(genuine):
        raise RecipeError("data.pseudo_fakes needs genuine clips to make fakes of, and the split has none.")
    return genuine


def clips_of(clips: Dataset, recordings: list[Recording], held_out: bool) -> Dataset:
    """Return the clips of the people who are held out, or of the others."""
    chosen = {each.path for each in recordings if each.held_out == held_out}
    return clips.filter(lambda path: path in chosen, input_columns="path")


def in_pairs(schedule: Dataset, draws: int) -> Dataset:
    """Return every row twice in a row: as the genuine clip it is, and to be made fake."""
    twice = schedule.remove_columns("draw").select(np.arange(draws) // 2)
    return twice.add_column("draw", np.arange(draws))


def pseudo_faker(recipe: SmallDetectorRecipe) -> PseudoFaker:
    """Return the maker of a recipe's pseudo-fakes."""
    data = recipe.data
    try:
        return PseudoFaker(
            data.pseudo_fake_kinds or None,
            fake_share=data.pseudo_fakes,
            seed=recipe.seed,
            pairs=data.pseudo_fake_pairs,
        )
    except ValueError as error:
        raise RecipeError(f"data.pseudo_fake_kinds: {error}") from error


def validation_split(recipe: SmallDetectorRecipe, draws: int, faces: ClipFaces | None = None) -> Dataset:
    """
    Return the clips on which the weights are chosen: both classes, and an evenly spaced part of a long split.

    With pseudo-fakes these are genuine clips, each drawn several times, to be made fake or not as in training: a recipe
    without fakes to train on has none to validate on either. With `data.held_out` they are those of the people held out.

    Args:
        recipe ([`SmallDetectorRecipe`]): The recipe.
        draws (`int`): Draws of training; the numbers of validation's draws come after them.
        faces ([`ClipFaces`], *optional*): Leaves out clips without a face.
    """
    data = recipe.data
    name = data.train_split if data.held_out is not None else data.validation_split
    try:
        dataset = load_split(data, name)
    except ValueError as error:
        raise RecipeError(
            f"training.keep is auc, and there is no split {name!r} to score: {error}. "
            "Set training.keep to last, or data.validation_split."
        ) from error
    if data.held_out is not None:
        dataset = clips_of(dataset, genuine_recordings(data, dataset, recipe.seed), held_out=True)
    elif data.pseudo_fakes:
        dataset = genuine_clips(dataset)
    if faces is not None:
        dataset = faces.rows_with_faces(dataset)
    if data.pseudo_fakes:
        count = data.validation_clips or VALIDATION_DRAWS * len(dataset)
        numbers = draws + draws % 2 + np.arange(count)
        rows = (numbers // 2 if data.pseudo_fake_pairs else numbers) % len(dataset)
        return dataset.select(rows).add_column("draw", numbers)
    if len(set(dataset["label"])) < 2:
        raise RecipeError(
            f"The split {data.validation_split!r} has one class only: set training.keep to last."
        )
    most = data.validation_clips
    if most is not None and most < len(dataset):
        order = np.argsort(dataset["label"], kind="stable")
        dataset = dataset.select(
            sorted(order[np.linspace(0, len(order) - 1, most).round().astype(int)].tolist())
        )
    return dataset


# -- networks ----------------------------------------------------------------------------------------------------------


def make_detector(system: str, network: NetworkRecipe) -> tuple[PreTrainedModel, ProcessorMixin]:
    """
    Make a detector with random weights, or load one to train further, and its processor.

    Raises:
        RecipeError: for options that the network does not have or cannot take, and for encoders that cannot be loaded.
    """
    if network.start is not None:
        model, processor = _started(system, network)
    else:
        config = network_config(system, network)
        if system == "avpl":
            model = _on_encoders(network.options)
        else:
            model = AutoModelForAVDeepfakeDetection.from_config(config)
        processor = processor_for(model.config)
    processor.trim_leading_silence = network.trim_leading_silence
    processor.set_faces(network.faces, network.face_margin, processor.min_face_size)
    return model, processor


def network_config(system: str, network: NetworkRecipe) -> PreTrainedConfig:
    """Return the configuration of a new network; AVPL's without its encoders, which say their own."""
    config_class = {config.model_type: config for config in MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING}[system]
    fields = {field.name for field in dataclasses.fields(config_class)}
    for name in network.options:
        if name not in fields:
            raise unknown_field(name, fields, "model.options.")
    try:
        make = config_class.from_preset if network.preset else config_class
        return make(*([network.preset] if network.preset else []), **network.options)
    except ValueError as error:
        raise RecipeError(f"model: {error}") from error


def encoder_sources(options: dict) -> tuple[str, str]:
    """Return the places of AVPL's two frozen encoders, or say which one a recipe lacks."""
    for name, kind in (("vision_encoder", "CLIP"), ("audio_encoder", "Whisper")):
        place = options.get(name)
        if not place:
            raise RecipeError(
                f"model.options.{name} is missing: the Hub id or folder of the frozen {kind} checkpoint. (`{MAKE_ENCODERS}` "
                "makes small ones for the demonstration.)"
            )
        made = f"{MAKE_ENCODERS} --data-dir runs/demo/data --output-dir {Path(place).parent}"
        check_place(f"model.options.{name}", place, f" Small ones for the demonstration are made by: {made}")
    return options["vision_encoder"], options["audio_encoder"]


def processor_for(config: PreTrainedConfig) -> ProcessorMixin:
    """Return the processor that belongs to a configuration."""
    return PROCESSOR_MAPPING[type(config)].from_config(config)


def started_config(network: NetworkRecipe) -> PreTrainedConfig:
    """
    Return the configuration of the detector to start from, with the recipe's options and without its calibration.

    Raises:
        RecipeError: for a preset beside it, a place that cannot be read, and options that it does not have or cannot take.
    """
    if network.preset:
        raise RecipeError("model.start brings its own configuration: leave model.preset out.")
    check_place("model.start", network.start)
    config = AutoConfig.from_pretrained(network.start)
    known = {field.name for field in dataclasses.fields(config)}
    for name in network.options:
        if name not in known:
            raise unknown_field(name, known, "model.options.")
    try:
        return type(config).from_dict({**config.to_dict(), **UNCALIBRATED, **network.options})
    except ValueError as error:
        raise RecipeError(f"model: {error}") from error


def _started(system: str, network: NetworkRecipe) -> tuple[PreTrainedModel, ProcessorMixin]:
    config = started_config(network)
    if config.model_type != system:
        raise RecipeError(
            f"model.start: {network.start} is a detector of system {config.model_type}, and the recipe has system: {system}."
        )
    try:
        model, loading = AutoModelForAVDeepfakeDetection.from_pretrained(
            network.start, config=config, output_loading_info=True
        )
    except RuntimeError as error:  # weights of other shapes
        raise RecipeError(f"model.options do not fit the weights of {network.start}: {error}") from error
    if other := sorted([*loading["missing_keys"], *loading["unexpected_keys"]]):
        raise RecipeError(
            f"model.options do not fit the weights of {network.start}: {len(other)} differ, such as {other[0]}."
        )
    return model, AutoProcessor.from_pretrained(network.start)


def _on_encoders(options: dict) -> AVPLForDeepfakeDetection:
    encoder_sources(options)
    try:
        return AVPLForDeepfakeDetection.from_encoders(**options)
    except EncoderError as error:
        raise RecipeError(f"model.options: {error}") from error

"""Trains a detector in one stage with the plain `Trainer` of `transformers`: resumable, ending in a detector that loads."""

import dataclasses
import difflib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import (
    AutoProcessor,
    BatchFeature,
    PreTrainedModel,
    ProcessorMixin,
    TrainingArguments,
    set_seed,
)

from ..configuration_detector import LABEL_COLUMNS
from ..inference.auto import MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING, AutoModelForAVDeepfakeDetection
from ..media import Clip, MediaError
from ..modeling_avpl import AVPLForDeepfakeDetection
from ..modeling_avpl_encoders import EncoderError
from .augment import augment_clip
from .collator import DropList, read_row
from .detector_recipe import STABLE, DetectorRecipe, NetworkRecipe
from .detector_trainer import DetectorTrainer
from .progress import latest_checkpoint
from .pseudo_fakes.pseudo_faker import PseudoFaker
from .recipes import RecipeError
from .run_folder import (
    keep_freed_memory,
    load_split,
    name_demonstration,
    quiet_libraries,
    say,
    start_folder,
)
from .schedule import REAL, build_schedule

LABELS = ("label", "video_label", "audio_label")  # of a row; a batch has `LABEL_COLUMNS`
VALIDATION_DRAWS = 4  # of a genuine clip, where validation is pseudo-fakes; our own choice


def train_detector(recipe: DetectorRecipe) -> Path:
    """
    Runs a recipe, or goes on with it.

    `output_dir` holds `model` (the detector), `drops.jsonl`, `log.jsonl`, `recipe.yaml`, `environment.json`,
    `dataset.json` and, while it runs, `checkpoints`.

    Args:
        recipe ([`DetectorRecipe`]): What to run.

    Returns:
        `Path`: the folder of the detector.

    Raises:
        RecipeError: when `output_dir` holds a run of another recipe, or the recipe does not fit the network or the data.
        TooManyDropsError: when more clips than `data.max_drop_share` could not be read.
    """
    # First of all: on CPUs processes find one another only when told that there is no accelerator.
    state = PartialState(cpu=not torch.accelerator.is_available())
    quiet_libraries()
    if not torch.cuda.is_available():
        # Threads that wait for a core which a decoding process holds slow down several times over.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) - recipe.data.num_workers))
        keep_freed_memory()
    folder = Path(recipe.output_dir)
    dataset = load_split(recipe.data, recipe.data.train_split)
    with state.main_process_first():
        start_folder(folder, recipe, dataset)
    if (folder / "model" / "training.json").is_file():
        say(f"{recipe.name}: done before, in {folder / 'model'}")
        return folder / "model"
    set_seed(recipe.seed)
    model, processor = make_detector(recipe.model)
    if recipe.training.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise RecipeError(
            f"training.gradient_checkpointing: {type(model).__name__} has no layers to compute anew."
        )
    drops = DropList(folder / "drops.jsonl")
    collator = ClipCollator(
        processor,
        drops,
        clip_seconds=recipe.data.clip_seconds or processor.max_seconds,
        crop=recipe.data.crop,
        seed=recipe.seed,
        augment=recipe.data.augment,
    )
    data = recipe.data
    if data.pseudo_fakes:
        dataset = genuine_clips(dataset)
        data = dataclasses.replace(data, balance="none")
        collator.pseudo_faker = pseudo_faker(recipe)
        collator.others = dataset
    steps_per_epoch = max(1, len(dataset) // clips_per_step(recipe, state.num_processes))
    steps = recipe.training.max_steps or max(1, round(recipe.training.epochs * steps_per_epoch))
    draws = steps * clips_per_step(recipe, state.num_processes)
    if data.pseudo_fake_pairs:
        schedule = in_pairs(build_schedule(dataset, data, -(-draws // 2), recipe.seed), draws)
    else:
        schedule = build_schedule(dataset, data, draws, recipe.seed)
    validation = validation_split(recipe, draws) if recipe.training.keep == "auc" else None
    checkpoints = folder / "checkpoints"
    trainer = DetectorTrainer(
        model=model,
        args=training_arguments(recipe, checkpoints, steps, steps_per_epoch, validation is not None),
        train_dataset=schedule,
        eval_dataset=validation,
        data_collator=collator,
        drops=drops,
        max_drops=int(data.max_drop_share * len(set(schedule["path"]))),
        patience=recipe.training.patience,
    )
    weights = sum(p.numel() for p in model.parameters())
    say(
        f"{recipe.name}: {sum(p.numel() for p in model.parameters() if p.requires_grad):,} of {weights:,} weights train; "
        f"{draws} clips drawn from {len(dataset)}, {clips_per_step(recipe, state.num_processes)} a step"
    )
    checkpoint = latest_checkpoint(checkpoints)
    if checkpoint is not None:
        say(f"  going on from {checkpoint}")
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if trainer.is_world_process_zero():
        finish(trainer, recipe, processor, folder)
    trainer.accelerator.wait_for_everyone()
    return folder / "model"


def make_detector(recipe: NetworkRecipe) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A detector with random weights, or one to go on from, and its processor."""
    if recipe.start is not None:
        if recipe.preset or recipe.options:
            raise RecipeError(
                "model.start brings its own configuration: leave model.preset and model.options out."
            )
        model = AutoModelForAVDeepfakeDetection.from_pretrained(recipe.start)
        processor = AutoProcessor.from_pretrained(recipe.start)
    else:
        known = {config.model_type: config for config in MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING}
        if recipe.kind not in known:
            raise RecipeError(f"model.kind is {recipe.kind!r}; it must be one of {', '.join(known)}.")
        config_class = known[recipe.kind]
        fields = {field.name for field in dataclasses.fields(config_class)}
        for name in recipe.options:
            if name not in fields:
                near = difflib.get_close_matches(name, fields, n=1)
                raise RecipeError(
                    f"Unknown field model.options.{name}." + (f" Did you mean {near[0]}?" if near else "")
                )
        try:
            make = config_class.from_preset if recipe.preset else config_class
            config = make(*([recipe.preset] if recipe.preset else []), **recipe.options)
        except ValueError as error:
            raise RecipeError(f"model: {error}") from error
        if recipe.kind == "avpl":
            model = on_encoders(recipe.options)
        else:
            model = AutoModelForAVDeepfakeDetection.from_config(config)
        processor = processor_class(model.config).from_config(model.config)
    processor.trim_leading_silence = recipe.trim_leading_silence
    return model, processor


def on_encoders(options: dict) -> AVPLForDeepfakeDetection:
    """A detector with random prompts and heads on the two foundation models that a recipe names."""
    absent = [name for name in ("vision_encoder", "audio_encoder") if not options.get(name)]
    if absent:
        raise RecipeError(
            f"model.options.{absent[0]} is missing: the Hub id or folder of the frozen "
            f"{'CLIP' if absent[0] == 'vision_encoder' else 'Whisper'} checkpoint. (`python -m "
            "modeling_avlmm.training.tiny.encoders` makes small ones for the demonstration.)"
        )
    try:
        return AVPLForDeepfakeDetection.from_encoders(**options)
    except EncoderError as error:
        raise RecipeError(f"model.options: {error}") from error


def processor_class(config) -> type[ProcessorMixin]:
    """The processor that belongs to a configuration."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    return PROCESSOR_MAPPING[type(config)]


def clips_per_step(recipe: DetectorRecipe, processes: int) -> int:
    return recipe.training.batch_size * recipe.training.gradient_accumulation * processes


def genuine_clips(dataset: Dataset) -> Dataset:
    """What pseudo-fakes are made of."""
    genuine = dataset.filter(lambda label: label == REAL, input_columns="label")
    if not len(genuine):
        raise RecipeError("data.pseudo_fakes needs genuine clips to make fakes of, and the split has none.")
    return genuine


def in_pairs(schedule: Dataset, draws: int) -> Dataset:
    """Every row twice, one after the other: as the genuine clip that it is, and to be made fake."""
    twice = schedule.remove_columns("draw").select(np.arange(draws) // 2)
    return twice.add_column("draw", np.arange(draws))


def pseudo_faker(recipe: DetectorRecipe) -> PseudoFaker:
    """What makes a recipe's pseudo-fakes."""
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


def validation_split(recipe: DetectorRecipe, draws: int) -> Dataset:
    """
    What the weights are chosen on; both classes, and of a long split an evenly spaced part.

    With pseudo-fakes it is genuine clips, each drawn several times, to be made fake or not as those of training are: who
    has no fakes to train on has none to validate on either.

    Args:
        recipe ([`DetectorRecipe`]): The recipe.
        draws (`int`): Draws of training, whose numbers no draw here has.
    """
    data = recipe.data
    try:
        dataset = load_split(data, data.validation_split)
    except ValueError as error:
        raise RecipeError(
            f"training.keep is auc, and there is no split {data.validation_split!r} to score: {error}. "
            "Set training.keep to last, or data.validation_split."
        ) from error
    if data.pseudo_fakes:
        dataset = genuine_clips(dataset)
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


def training_arguments(
    recipe: DetectorRecipe, output_dir: Path, steps: int, steps_per_epoch: int, scored: bool
) -> TrainingArguments:
    """The trainer's arguments for a recipe."""
    training = recipe.training
    every = min(training.evaluate_steps or steps_per_epoch, steps)
    warmup = training.warmup_steps
    if warmup is None:
        warmup = round(training.warmup_epochs * steps_per_epoch)
    scheduler = {}
    if training.lr_scheduler == "linear" and training.lr_end:
        scheduler = {
            "lr_scheduler_type": "polynomial",
            "lr_scheduler_kwargs": {"power": 1.0, "lr_end": training.lr_end * training.learning_rate},
        }
    elif training.lr_scheduler == STABLE:
        scheduler = {"lr_scheduler_kwargs": {"num_decay_steps": training.decay_steps}}
    return TrainingArguments(
        output_dir=str(output_dir),
        max_steps=steps,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=training.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation,
        learning_rate=training.learning_rate,
        **{"lr_scheduler_type": training.lr_scheduler, **scheduler},
        warmup_steps=warmup,
        weight_decay=training.weight_decay,
        adam_beta2=training.adam_beta2,
        max_grad_norm=training.max_grad_norm,
        bf16=training.bf16,
        gradient_checkpointing=training.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if training.gradient_checkpointing else None,
        logging_steps=training.log_steps,
        eval_strategy="steps" if scored else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=scored,
        metric_for_best_model="auc" if scored else None,
        greater_is_better=True if scored else None,
        label_names=list(LABEL_COLUMNS.values()),
        seed=recipe.seed,
        data_seed=recipe.seed,
        dataloader_num_workers=recipe.data.num_workers,
        dataloader_persistent_workers=recipe.data.num_workers > 0,
        dataloader_prefetch_factor=2 if recipe.data.num_workers > 0 else None,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
    )


@dataclass
class ClipCollator:
    """
    Decodes and encodes the clips of a batch, with their labels. Runs in the loader's workers.

    A clip that cannot be read leaves the batch and is written to the drop list; nothing takes its place. What is done
    to a clip depends on `seed` and the row's `draw` alone. Rows without `draw` (validation on a corpus's own fakes) are
    taken from their start, as they are.

    Args:
        processor (`ProcessorMixin`): Samples and encodes the clips.
        drops ([`DropList`]): Where unreadable clips are listed.
        clip_seconds (`float`): Longer clips are cut.
        crop (`str`): `random` or `start`.
        seed (`int`): Of cuts, augmentation and pseudo-fakes.
        augment (`bool`): See [`augment_clip`].
        pseudo_faker ([`PseudoFaker`], *optional*), others (`Dataset`, *optional*):
            Makes fakes of genuine clips on the fly, some with the sound of `others`.
    """

    processor: ProcessorMixin
    drops: DropList
    clip_seconds: float
    crop: str = "random"
    seed: int = 0
    augment: bool = False
    pseudo_faker: PseudoFaker | None = None
    others: Dataset | None = None

    def __call__(self, rows: list[dict]) -> BatchFeature:
        encoded = []
        for row in rows:
            try:
                clip, labels = self.example(row)
                given = {name: label for name, label in zip(LABELS, labels, strict=True) if label is not None}
                encoded.append(self.processor.encode(clip, **given))
            except MediaError as error:
                self.drops.add(row["path"], error)
        if not encoded:
            return BatchFeature({})
        return self.processor.collate(encoded)

    def example(self, row: dict) -> tuple[Clip, tuple[int | None, ...]]:
        """A clip and its labels: overall, of the picture and of the sound (None where unknown)."""
        labels = tuple(row[name] for name in LABELS)
        if "draw" not in row:
            return self.read(row, None), labels
        number = row["draw"]
        if self.pseudo_faker is not None:
            number = self.pseudo_faker.clip_number(number)
        rng = np.random.default_rng([self.seed, number])
        clip = self.read(row, rng)
        if self.pseudo_faker is not None:
            sample = self.pseudo_faker.draw(row["draw"], clip, self.read_other(rng))
            clip, labels = sample.clip, (sample.label, sample.video_label, sample.audio_label)
        if self.augment:
            clip = augment_clip(clip, rng)
        return clip, labels

    def read_other(self, rng: np.random.Generator) -> Clip | None:
        """Another genuine clip; one that cannot be read is listed, and no fake that needs one is made then."""
        row = self.others[int(rng.integers(len(self.others)))]
        try:
            return self.read(row, rng)
        except MediaError as error:
            self.drops.add(row["path"], error)
            return None

    def read(self, row: dict, rng: np.random.Generator | None) -> Clip:
        """Decodes the part of a row's clip that this draw trains on."""
        return read_row(row, self.processor, self.clip_seconds, rng if self.crop == "random" else None)


def finish(trainer: DetectorTrainer, recipe: DetectorRecipe, processor: ProcessorMixin, folder: Path) -> None:
    """Writes the detector; the folder `model` appears last and whole, as the sign that the run is done."""
    unfinished = folder / "model.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    name_demonstration(model.config, recipe.data)
    model.save_pretrained(unfinished)
    processor.save_pretrained(unfinished)
    drops = trainer._progress.drops
    dropped = {entry["path"] for entry in drops.entries()}
    summary = {
        "training": dataclasses.asdict(recipe.training),
        "steps": trainer.state.global_step,
        "clips": len(trainer.train_dataset),
        "dropped": len(dropped),
        "processes": trainer.accelerator.num_processes,
        "validation_auc": trainer.state.best_metric,
        "best_step": trainer.state.best_global_step if trainer.state.best_metric is not None else None,
    }
    (unfinished / "training.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    with open(folder / "log.jsonl", "w", encoding="utf-8") as log:
        log.writelines(json.dumps(entry) + "\n" for entry in trainer.state.log_history)
    shutil.rmtree(folder / "model", ignore_errors=True)
    unfinished.rename(folder / "model")
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    say(
        f"  wrote {folder / 'model'}; {len(dropped)} clips dropped"
        + (f", listed in {drops.path}" if dropped else "")
    )

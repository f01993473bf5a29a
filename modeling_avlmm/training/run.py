"""Runs a recipe: every stage in turn, each resumable, each ending in a detector that loads."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from peft import PeftModel
from transformers import AutoConfig, set_seed

from ..modeling_avlmm import AVLMMForDeepfakeDetection, is_sharded
from ..planning.training_plan import cache_line
from ..processing_avlmm import AVLMMProcessor
from .collator import AVCollator, DropList, verdict_questions
from .conversation_stage import (
    ConversationCollator,
    conversation_schedule,
    instruction_rows,
    mark_as_analyst,
    write_grown,
)
from .encoder_cache import CachedCollator, EncoderCache, cache_settings, fill_cache
from .progress import latest_checkpoint
from .recipes import Recipe, RecipeError, StageRecipe
from .run_folder import load_split, name_demonstration, quiet_libraries, say, start_folder
from .schedule import build_schedule
from .stages import LORA_KINDS, count_trainable, freeze_for_stage, keep_in_float32, lora_config
from .tiny.backbone import make_tiny_backbone
from .tiny.dense import DenseCollator, corpus_of_dense_prompts, genuine_rows, load_annotations
from .trainer import AVSFTTrainer, sft_config


def train(recipe: Recipe) -> Path:
    """
    Runs every stage of a recipe that has not been run yet.

    `output_dir/<stage>/` holds `model` (the detector after the stage, LoRA merged), `adapter` (of `alignment`
    and `analysis`), `drops.jsonl`, `log.jsonl` and, while the stage runs, `checkpoints`. `output_dir` itself holds `recipe.yaml`,
    `environment.json` and `dataset.json`. Started again after it was killed, a run goes on from its last checkpoint.

    Args:
        recipe ([`Recipe`]): What to run.

    Returns:
        `Path`: the folder of the last stage's detector.

    Raises:
        RecipeError: when `output_dir` holds a run of another recipe, or the recipe does not fit the data.
        TooManyDropsError: when more clips than `data.max_drop_share` could not be read.
    """
    # First of all: on CPUs processes find one another only when told that there is no accelerator.
    PartialState(cpu=not torch.accelerator.is_available())
    quiet_libraries()
    if not torch.cuda.is_available():
        # Threads that wait for a core which a decoding process holds slow down several times over.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) - recipe.data.num_workers))
    output_dir = Path(recipe.output_dir)
    dataset = load_split(recipe.data, recipe.data.train_split)
    with PartialState().main_process_first():
        start_folder(output_dir, recipe, dataset)
    model_dir = starting_point(recipe, output_dir)
    for number, stage in enumerate(recipe.stages, start=1):
        folder = output_dir / stage.name
        finished = folder / "model" / "stage.json"
        if finished.is_file():
            say(f"Stage {number}/{len(recipe.stages)} {stage.name}: done before, in {folder / 'model'}")
        else:
            say(f"Stage {number}/{len(recipe.stages)} {stage.name} ({stage.kind})")
            run_stage(recipe, stage, dataset, model_dir, folder)
        model_dir = folder / "model"
    return model_dir


def run_stage(
    recipe: Recipe, stage: StageRecipe, dataset: Dataset, model_dir: Path | str, folder: Path
) -> None:
    """Trains one stage from the detector in `model_dir` and writes `folder/model`."""
    set_seed(recipe.seed)
    model, processor = load_detector(model_dir, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    if stage.kind == "analysis":
        dataset = instruction_rows(dataset, recipe.data, stage, folder)
        if stage.analysis.grow_vocabulary:
            model_dir = folder / "start"
            # Checkpoints belong to the words that were there when the stage began.
            begun = model_dir.is_dir()
            PartialState().wait_for_everyone()
            if begun:
                model, processor = load_detector(model_dir, recipe)
            else:
                say(
                    f"  {write_grown(model, processor, dataset, model_dir)} new words, as tokens of their own"
                )
    freeze_for_stage(model, stage)
    drops = DropList(folder / "drops.jsonl")
    options = {
        "processor": processor,
        "drops": drops,
        "clip_seconds": recipe.data.clip_seconds,
        "crop": recipe.data.crop,
        "seed": recipe.seed,
    }
    if stage.kind == "pretraining":
        annotations = load_annotations(recipe.data.annotations)
        sounds = genuine_rows(dataset, annotations)
        if not sounds:
            raise RecipeError(f"None of the training split's genuine clips is in {recipe.data.annotations}.")
        dataset = dataset.filter(lambda path: path in sounds, input_columns="path")
        collator = DenseCollator(annotations=annotations, sounds=sounds, **options)
        data = dataclasses.replace(recipe.data, balance="none")
    elif stage.kind == "analysis":
        # Times in answers count from the file's start.
        options["crop"] = "start"
        more = {"rows": dataset, "per_pass": stage.analysis.per_pass}
        collator = ConversationCollator(questions_of=verdict_questions(processor), **more, **options)
        data = recipe.data
    else:
        collator = AVCollator(questions_of=verdict_questions(processor), **options)
        data = recipe.data
        if stage.encoder_cache:
            collator = cached(recipe, stage, model, dataset, collator)

    clips_per_step = stage.batch_size * stage.gradient_accumulation * PartialState().num_processes
    draws = stage.max_steps * clips_per_step if stage.max_steps else round(stage.epochs * len(dataset))
    if stage.kind == "analysis":
        schedule = conversation_schedule(dataset, data, stage, draws, recipe.seed)
    else:
        schedule = build_schedule(dataset, data, draws, recipe.seed)
    checkpoints = folder / "checkpoints"
    trainer = AVSFTTrainer(
        model=model,
        args=sft_config(recipe, stage, checkpoints, recipe.model.dtype == "bfloat16"),
        train_dataset=schedule,
        data_collator=collator,
        processing_class=processor,
        peft_config=lora_config(model, stage) if stage.kind in LORA_KINDS else None,
        stage=stage,
        drops=drops,
        max_drops=int(data.max_drop_share * len(set(schedule["path"]))),
    )
    keep_in_float32(trainer.model)
    say(
        f"  {count_trainable(trainer.model):,} of {sum(p.numel() for p in trainer.model.parameters()):,} weights train; "
        f"{draws} clips drawn from {len(dataset)}, {clips_per_step} a step"
    )
    checkpoint = latest_checkpoint(checkpoints)
    if checkpoint is not None:
        say(f"  going on from {checkpoint}")
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    finish_stage(trainer, recipe, stage, model_dir, drops, folder)


def cached(
    recipe: Recipe,
    stage: StageRecipe,
    model: AVLMMForDeepfakeDetection,
    dataset: Dataset,
    collator: AVCollator,
) -> CachedCollator:
    """Fills the encoder cache of a stage, and gives the collator that reads from it."""
    if is_sharded(next(model.vision_encoder.parameters())):
        raise RecipeError(
            "stages.*.encoder_cache needs whole encoders, and DeepSpeed ZeRO-3 shares them out while they are loaded: use "
            "DDP or FSDP2 (recipes/accelerate)."
        )
    cache = EncoderCache(Path(stage.encoder_cache))
    with PartialState().main_process_first():
        cache.claim(cache_settings(model, collator.processor, recipe.data))
    free = shutil.disk_usage(cache.folder).free / 1e9
    say(f"  {cache_line(recipe, stage, model.config.thinker_config, len(dataset))}; {free:.1f} GB free")
    added = fill_cache(
        cache, model, dataset, collator, recipe.model.dtype == "bfloat16", recipe.data.num_workers
    )
    say(f"  {added} clips encoded by this process")
    options = {field.name: getattr(collator, field.name) for field in dataclasses.fields(collator)}
    return CachedCollator(cache=cache, width=model.config.get_text_config().hidden_size, **options)


def finish_stage(
    trainer: AVSFTTrainer,
    recipe: Recipe,
    stage: StageRecipe,
    model_dir: Path | str,
    drops: DropList,
    folder: Path,
) -> None:
    """Writes what the stage leaves behind; the folder `model` appears last and whole, as the sign that it is done."""
    trained = folder / ("adapter" if stage.kind in LORA_KINDS else "trained")
    trainer.save_model(str(trained))
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        # From the files rather than from memory, where the weights may be sharded over processes.
        if stage.kind in LORA_KINDS:
            model, processor = load_detector(model_dir, recipe)
            model = PeftModel.from_pretrained(model, trained).merge_and_unload()
            if stage.kind == "analysis":
                mark_as_analyst(model, stage)
        else:
            model, processor = load_detector(trained, recipe)
        unfinished = folder / "model.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        name_demonstration(model.config, recipe.data)
        model.save_pretrained(unfinished)
        processor.save_pretrained(unfinished)
        dropped = {entry["path"] for entry in drops.entries()}
        summary = {
            "stage": dataclasses.asdict(stage),
            "steps": trainer.state.global_step,
            "clips": len(trainer.train_dataset),
            "dropped": len(dropped),
            "processes": trainer.accelerator.num_processes,
        }
        (unfinished / "stage.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
        with open(folder / "log.jsonl", "w", encoding="utf-8") as log:
            log.writelines(json.dumps(entry) + "\n" for entry in trainer.state.log_history)
        shutil.rmtree(folder / "model", ignore_errors=True)
        unfinished.rename(folder / "model")
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        if stage.kind not in LORA_KINDS:
            shutil.rmtree(trained)
        say(
            f"  wrote {folder / 'model'}; {len(dropped)} clips dropped"
            + (f", listed in {drops.path}" if dropped else "")
        )
    trainer.accelerator.wait_for_everyone()


def starting_point(recipe: Recipe, output_dir: Path) -> Path | str:
    """Where the first stage's weights are; the demonstration's are made on the spot."""
    if recipe.model.backbone != "demo":
        return recipe.model.backbone
    folder = output_dir / "backbone"
    if PartialState().is_main_process and not (folder / "model.safetensors").is_file():
        make_tiny_backbone(folder, "demo", recipe.seed, corpus=corpus_of_dense_prompts(recipe.model.prompts))
    PartialState().wait_for_everyone()
    return folder


def load_detector(source: Path | str, recipe: Recipe) -> tuple[AVLMMForDeepfakeDetection, AVLMMProcessor]:
    """Model and processor from a detector, or a new one around an omni checkpoint, set up as the recipe says."""
    options = {"dtype": recipe.model.dtype, "attn_implementation": recipe.model.attn_implementation}
    seen = {
        "fps": recipe.model.fps,
        "max_frames": recipe.model.max_frames,
        "min_pixels": recipe.model.min_pixels,
        "max_pixels": recipe.model.max_pixels,
        "trim_leading_silence": recipe.model.trim_leading_silence,
        "max_seconds": recipe.data.clip_seconds,
    }
    if AutoConfig.from_pretrained(source).model_type == "avlmm":
        model = AVLMMForDeepfakeDetection.from_pretrained(source, **options)
        processor = AVLMMProcessor.from_pretrained(source)
        for name, value in seen.items():
            setattr(processor, name, value)
    else:
        model = AVLMMForDeepfakeDetection.from_backbone(str(source), prompts=recipe.model.prompts, **options)
        processor = AVLMMProcessor.from_backbone(str(source), prompts=recipe.model.prompts, **seen)
    return model, processor

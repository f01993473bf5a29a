"""The stages of AV-LMMDetect: what each kind trains, on which rows, and what it leaves behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

from accelerate import PartialState
from datasets import Dataset
from peft import PeftModel
from transformers import AutoConfig

from ..modeling_avlmm import AVLMMForDeepfakeDetection
from ..modeling_avlmm_weights import is_sharded
from ..processing_avlmm import AVLMMProcessor
from .batches import AVCollator, DropList, build_schedule, verdict_questions
from .clip_faces import clip_faces
from .encoder_cache import CachedCollator, EncoderCache, cache_line, cache_settings, fill_cache
from .progress import say
from .recipe_parts import StageRecipe
from .recipe_values import RecipeError, check_place
from .recipes import AVLMMRecipe
from .stage_kinds import KINDS, keep_trained_in_float32
from .tiny.backbone import make_tiny_backbone
from .tiny.dense import corpus_of_dense_prompts
from .trainers import AVSFTTrainer, sft_config


class AVLMMStage:
    """
    A stage of AV-LMMDetect, as `run.py` takes it. Kinds that do more than ask for verdicts are subclasses.

    Args:
        recipe ([`AVLMMRecipe`]): The run.
        settings ([`StageRecipe`]): The stage.
        source (`Path` or `str`): The detector or backbone it starts from.
    """

    draws_of: ClassVar[str] = "clips"
    summary_file: ClassVar[str] = "stage.json"

    def __init__(self, recipe: AVLMMRecipe, settings: StageRecipe, source: Path | str):
        self.recipe, self.settings, self.source = recipe, settings, source
        self.kind = KINDS[settings.kind]
        self.title = f"{settings.name} ({settings.kind})"
        self.folder = Path(recipe.output_dir) / settings.name
        self.faces = clip_faces(recipe)

    def rows(self, dataset: Dataset) -> Dataset:
        """Return the rows that the stage draws from: those with a face where faces are cropped."""
        return dataset if self.faces is None else self.faces.rows_with_faces(dataset)

    def model(self, rows: Dataset) -> tuple[AVLMMForDeepfakeDetection, AVLMMProcessor]:
        """Load the detector that the stage starts from, with what trains set."""
        model, processor = load_to_train(self.source, self.recipe)
        self.kind.freeze(model, self.settings)
        return model, processor

    def collator(
        self, model: AVLMMForDeepfakeDetection, processor: AVLMMProcessor, rows: Dataset, drops: DropList
    ) -> AVCollator:
        """Return the collator, which asks for verdicts unless the kind asks something else."""
        return AVCollator(
            questions_of=verdict_questions(processor), **self.collator_options(processor, drops)
        )

    def collator_options(self, processor: AVLMMProcessor, drops: DropList) -> dict:
        """Return the options that the collators of all kinds share."""
        return {
            "processor": processor,
            "drops": drops,
            "clip_seconds": self.recipe.data.clip_seconds,
            "crop": self.recipe.data.crop,
            "seed": self.recipe.seed,
            "track_of": None if self.faces is None else self.faces.track,
        }

    def schedule(self, rows: Dataset, draws: int) -> Dataset:
        """Draw the rows that are trained on, in order."""
        return build_schedule(rows, self.recipe.data, draws, self.recipe.seed)

    def draws(self, rows: Dataset, processes: int) -> int:
        """Return the number of rows to draw."""
        settings = self.settings
        if settings.max_steps:
            return settings.max_steps * settings.batch_size * settings.gradient_accumulation * processes
        return round(settings.epochs * len(rows))

    def trainer(
        self, model: AVLMMForDeepfakeDetection, processor: AVLMMProcessor, rows: Dataset, **options
    ) -> AVSFTTrainer:
        """Return the trainer; `options` are `train_dataset`, `data_collator`, `drops` and `max_drops`."""
        bf16 = self.recipe.model.dtype == "bfloat16"
        trainer = AVSFTTrainer(
            model=model,
            args=sft_config(self.recipe, self.settings, self.folder / "checkpoints", bf16),
            processing_class=processor,
            peft_config=self.kind.lora(model, self.settings),
            stage=self.settings,
            **options,
        )
        keep_trained_in_float32(trainer.model)  # what PEFT added
        return trainer

    def finish(self, trainer: AVSFTTrainer) -> tuple[AVLMMForDeepfakeDetection, AVLMMProcessor] | None:
        """
        Return the trained detector and its processor, LoRA merged; None on all processes but the main one.

        It is read back from files, as the weights in memory may be sharded over processes.
        """
        trained = self.folder / ("adapter" if self.kind.uses_lora else "trained")
        trainer.save_model(str(trained))
        trainer.accelerator.wait_for_everyone()
        if not trainer.is_world_process_zero():
            return None
        if not self.kind.uses_lora:
            return load_to_train(trained, self.recipe)
        model, processor = load_to_train(self.source, self.recipe)
        return PeftModel.from_pretrained(model, trained).merge_and_unload(), processor

    def summary(self, trainer: AVSFTTrainer) -> dict:
        """Return what the summary file says beside the counts of every stage."""
        return {"stage": dataclasses.asdict(self.settings)}


class AlignmentStage(AVLMMStage):
    """LoRA on the language model trains. The encoders are frozen, so their outputs can come from a cache."""

    def collator(
        self, model: AVLMMForDeepfakeDetection, processor: AVLMMProcessor, rows: Dataset, drops: DropList
    ) -> AVCollator:
        plain = super().collator(model, processor, rows, drops)
        if not self.settings.encoder_cache:
            return plain
        if is_sharded(next(model.vision_encoder.parameters())):
            raise RecipeError(
                "stages.*.encoder_cache needs whole encoders, and DeepSpeed ZeRO-3 shares them out while they are loaded: "
                "use DDP or FSDP2 (recipes/accelerate)."
            )
        recipe, cache = self.recipe, EncoderCache(Path(self.settings.encoder_cache))
        with PartialState().main_process_first():
            cache.claim(cache_settings(model, processor, recipe.data))
        say(f"  {cache_line(cache.folder, recipe, model.config.thinker_config, len(rows))}; {cache.free()}")
        bf16 = recipe.model.dtype == "bfloat16"
        added = fill_cache(cache, model, rows, plain, bf16, recipe.data.num_workers)
        say(f"  {added} clips encoded by this process")
        return CachedCollator(
            questions_of=plain.questions_of,
            cache=cache,
            width=model.config.get_text_config().hidden_size,
            picture_width=model.config.backbone.picture_width(model.config.thinker_config),
            **self.collator_options(processor, drops),
        )


def starting_point(recipe: AVLMMRecipe) -> Path | str:
    """Return where the first stage's weights are. The demonstration's backbone is made on the spot."""
    if recipe.model.backbone != "demo":
        return recipe.model.backbone
    folder = Path(recipe.output_dir) / "backbone"
    if PartialState().is_main_process and not (folder / "model.safetensors").is_file():
        make_tiny_backbone(folder, "demo", recipe.seed, corpus=corpus_of_dense_prompts(recipe.model.prompts))
    PartialState().wait_for_everyone()
    return folder


def load_to_train(
    source: Path | str, recipe: AVLMMRecipe
) -> tuple[AVLMMForDeepfakeDetection, AVLMMProcessor]:
    """
    Load model and processor from a detector, or make new ones around an omni checkpoint, as the recipe says.

    Args:
        source (`Path` or `str`): Folder or Hub id.
        recipe ([`AVLMMRecipe`]): Types, attention and sampling.

    Raises:
        RecipeError: for a folder that is not there.
    """
    options = {"dtype": recipe.model.dtype, "attn_implementation": recipe.model.attn_implementation}
    sampling = {
        "fps": recipe.model.fps,
        "max_frames": recipe.model.max_frames,
        "min_pixels": recipe.model.min_pixels,
        "max_pixels": recipe.model.max_pixels,
        "trim_leading_silence": recipe.model.trim_leading_silence,
        "faces": recipe.model.faces,
        "face_margin": recipe.model.face_margin,
        "max_seconds": recipe.data.clip_seconds,
    }
    check_place("model.backbone", source)
    if AutoConfig.from_pretrained(source).model_type == "avlmm":
        model = AVLMMForDeepfakeDetection.from_pretrained(source, **options)
        processor = AVLMMProcessor.from_pretrained(source)
        for name, value in sampling.items():
            setattr(processor, name, value)
    else:
        model = AVLMMForDeepfakeDetection.from_backbone(str(source), prompts=recipe.model.prompts, **options)
        processor = AVLMMProcessor.from_backbone(str(source), prompts=recipe.model.prompts, **sampling)
    return model, processor

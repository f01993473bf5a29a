"""The dry run of AV-LMMDetect's stages."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedConfig

from ..configuration_avlmm import BACKBONES, known_thinker
from ..training.clip_shape import ClipShape, recipe_clip_shape
from ..training.encoder_cache import cache_line
from ..training.recipe_parts import StageRecipe
from ..training.recipe_values import RecipeError, check_place
from ..training.recipes import AVLMMRecipe
from ..training.stage_kinds import KINDS
from ..training.tiny.backbone import tiny_thinker_config, train_tokenizer
from ..training.tiny.dense import corpus_of_dense_prompts
from .live_bytes import GIB, MemoryNeed
from .memory import CONVERSATION_TOKENS, predict_stage
from .phrases import advice, steps_line, verdict

Setting = tuple[AVLMMRecipe, StageRecipe]
Change = Callable[[Setting], Setting]
SMALL_PIXELS = 224 * 224
"""Smallest frames that advice suggests: the size of FakeAVCeleb's face crops."""
GPUS = 8
"""Number of GPUs for which the advice to share weights is worked out; the number in recipes/accelerate."""


def model_line(recipe: AVLMMRecipe) -> str:
    """Say what is trained."""
    return f"Backbone {recipe.model.backbone}, {recipe.model.dtype}"


def stage_plans(recipe: AVLMMRecipe, clips: int | None, processes: int) -> list[AVLMMStagePlan]:
    """Return the plan of every stage; `clips` is the size of the training split, None where it is not known."""
    config = thinker_config(recipe)
    return [AVLMMStagePlan(recipe, stage, config, clips, processes) for stage in recipe.stages]


@dataclass
class AVLMMStagePlan:
    """
    The plan of one stage.

    Args:
        recipe ([`AVLMMRecipe`]), stage ([`StageRecipe`]): The run and the stage.
        config (`PreTrainedConfig`): The thinker's configuration.
        clips (`int`, *optional*): Size of the training split, where it is known.
        processes (`int`): Number of processes.
    """

    recipe: AVLMMRecipe
    stage: StageRecipe
    config: PreTrainedConfig
    clips: int | None
    processes: int

    @property
    def title(self) -> str:
        return f"{self.stage.name} ({self.stage.kind})"

    def need(self) -> MemoryNeed:
        """Predict the memory."""
        return predict(self.recipe, self.stage, self.config, self.processes)

    def facts(self) -> Iterator[str]:
        """Yield lines about steps, tokens and the encoder cache."""
        stage = self.stage
        a_step = stage.batch_size * stage.gradient_accumulation * self.processes
        steps, draws = stage.max_steps, None
        if not steps and self.clips is not None and stage.kind in ("alignment", "encoders"):
            draws = round(stage.epochs * self.clips)
            steps = math.ceil(draws / a_step)
        yield steps_line(
            stage.batch_size, stage.gradient_accumulation, self.processes, stage.epochs, steps, draws
        )
        yield tokens_line(self.recipe, stage_shape(self.recipe, stage, self.config), self.config)
        if stage.encoder_cache:
            yield cache_line(stage.encoder_cache, self.recipe, self.config, self.clips)

    def files_line(self, need: MemoryNeed) -> str:
        """Say what the stage would write, and how large that is."""
        folder = Path(self.recipe.output_dir) / self.stage.name
        bytes_each = getattr(torch, self.recipe.model.dtype).itemsize
        saved, merged, adapter = need.weights, 0, ""
        if KINDS[self.stage.kind].uses_lora:
            saved, merged = 4 * need.trained, need.trained
            adapter = f"adapter/ ({saved / GIB:.2f} GiB), "
        model = (need.all_weights - merged) * bytes_each
        return (
            f"writes {folder}/: model/ ({model / GIB:.2f} GiB), {adapter}log.jsonl, drops.jsonl; "
            f"while it runs up to 2 checkpoints of {(saved + need.optimizer) / GIB:.2f} GiB"
        )

    def advice(self, need: MemoryNeed, limit: float) -> Iterator[str]:
        """Yield lines that say what would help."""
        yield from advice(
            (self.recipe, self.stage),
            savings(self.recipe, self.stage),
            lambda setting: predict(*setting, self.config, self.processes),
            limit,
        )
        shared = need.weights + need.gradients + need.optimizer
        saved = shared * (1 - 1 / GPUS)
        yield (
            f"  sharing weights, gradients and AdamW out over {GPUS} GPUs (recipes/accelerate/fsdp2.yaml, zero3.yaml): about "
            f"{saved / GIB:.1f} GiB less a GPU, and {(need.needed - saved) / GIB:.1f} needed, while a layer's own weights "
            f"are gathered a little more: {verdict(need.needed - saved, limit)}"
        )


def thinker_config(recipe: AVLMMRecipe) -> PreTrainedConfig:
    """
    Return the configuration of the thinker that a recipe trains.

    Raises:
        RecipeError: for a backbone whose configuration cannot be read, or that is no omni model.
    """
    if recipe.model.backbone == "demo":
        words = corpus_of_dense_prompts(recipe.model.prompts)
        return tiny_thinker_config(train_tokenizer(words), "demo")
    check_place("model.backbone", recipe.model.backbone)
    try:
        config = AutoConfig.from_pretrained(recipe.model.backbone)
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"model.backbone: the configuration of {recipe.model.backbone} cannot be read: {error}"
        ) from error
    try:
        return known_thinker(config, recipe.model.backbone)
    except ValueError as error:
        raise RecipeError(f"model.backbone: {error}") from error


def stage_shape(recipe: AVLMMRecipe, stage: StageRecipe, config: PreTrainedConfig) -> ClipShape:
    """Return the largest clip of a stage, with every question that may be asked about it."""
    conversations = {"pretraining": 1}
    if stage.analysis is not None:
        conversations["analysis"] = stage.analysis.per_pass
    return recipe_clip_shape(
        recipe, config, more_tokens=(CONVERSATION_TOKENS,) * conversations.get(stage.kind, 0)
    )


def predict(
    recipe: AVLMMRecipe, stage: StageRecipe, config: PreTrainedConfig, processes: int = 1
) -> MemoryNeed:
    """Predict the memory of a stage of a recipe."""
    return predict_stage(
        config,
        stage_shape(recipe, stage, config),
        stage,
        getattr(torch, recipe.model.dtype),
        recipe.model.attn_implementation,
        processes=processes,
    )


def tokens_line(recipe: AVLMMRecipe, shape: ClipShape, config: PreTrainedConfig) -> str:
    """Say how many tokens the largest clip has, and of what."""
    patch = config.vision_config.patch_size
    count = BACKBONES[config.model_type].frames_of(config, shape.grids)
    frames = f"{count} frames of up to {shape.width * patch} x {shape.height * patch}"
    return (
        f"up to {shape.tokens} tokens a clip: {shape.video_tokens} of {frames}, {shape.audio_tokens} of "
        f"{recipe.data.clip_seconds:g} s of sound, about {shape.prompt_tokens + sum(shape.question_tokens)} of text"
    )


def savings(recipe: AVLMMRecipe, stage: StageRecipe) -> Iterator[tuple[str, Change]]:
    """Yield settings that save memory, cheapest for the result first: the words to type, and a function."""
    name = f"--stages.{stage.name}"
    if not stage.gradient_checkpointing:
        yield (
            f"{name}.gradient_checkpointing true (about a third slower)",
            _stage(gradient_checkpointing=True),
        )
    if stage.batch_size > 1:
        accumulation = stage.gradient_accumulation * stage.batch_size
        yield (
            f"{name}.batch_size 1 {name}.gradient_accumulation {accumulation} (as many clips a step)",
            _stage(batch_size=1, gradient_accumulation=accumulation),
        )
    if recipe.model.max_pixels > SMALL_PIXELS:
        yield f"--model.max_pixels {SMALL_PIXELS}", _part("model", max_pixels=SMALL_PIXELS)
    fps, seconds = recipe.model.fps / 2, recipe.data.clip_seconds / 2
    yield f"--model.fps {fps:g}", _part("model", fps=fps)
    yield f"--data.clip_seconds {seconds:g}", _part("data", clip_seconds=seconds)
    if KINDS[stage.kind].uses_lora and stage.lora_rank > 8:
        yield f"{name}.lora_rank {stage.lora_rank // 2}", _stage(lora_rank=stage.lora_rank // 2)
    if recipe.model.dtype == "float32":
        yield "--model.dtype bfloat16", _part("model", dtype="bfloat16")


def _stage(**values) -> Change:
    return lambda setting: (setting[0], dataclasses.replace(setting[1], **values))


def _part(name: str, **values) -> Change:
    def change(setting: Setting) -> Setting:
        recipe, stage = setting
        part = dataclasses.replace(getattr(recipe, name), **values)
        return dataclasses.replace(recipe, **{name: part}), stage

    return change

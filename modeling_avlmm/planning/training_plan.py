"""`train_sft.py --dry-run`: what a recipe would run, write and take of memory, told before anything is loaded."""

import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import torch
from accelerate import PartialState
from transformers import AutoConfig, PreTrainedConfig

from ..configuration_avlmm import BACKBONES
from ..training.recipes import Recipe, RecipeError, StageRecipe
from ..training.run_folder import load_split, quiet_libraries
from ..training.stages import LORA_KINDS
from ..training.tiny.backbone import tiny_thinker_config, train_tokenizer
from ..training.tiny.dense import corpus_of_dense_prompts
from .memory import CONVERSATION_TOKENS, GIB, ClipShape, MemoryNeed, clip_shape, predict_stage

Change = Callable[[Recipe, StageRecipe], tuple[Recipe, StageRecipe]]
SMALL_PIXELS = 224 * 224
"""Frames that advice goes down to: the size of FakeAVCeleb's face crops."""
GPUS = 8
"""For how many the advice to share weights out is worked out; the number in recipes/accelerate."""


def dry_run(recipe: Recipe, memory_gib: float | None = None) -> bool:
    """
    Prints what a recipe would do, and whether it fits.

    Of the backbone only the configuration is read (of a Hub id: downloaded), of the corpus only its lists.

    Args:
        recipe ([`Recipe`]): What would be run.
        memory_gib (`float`, *optional*): Memory of the device. Its own if left out.

    Returns:
        `bool`: whether every stage fits.

    Raises:
        RecipeError: for a backbone whose configuration cannot be read.
    """
    quiet_libraries()
    processes = PartialState(cpu=not torch.accelerator.is_available()).num_processes
    config = thinker_config(recipe)
    limit, where = (memory_gib, "given") if memory_gib is not None else device_memory_gib()
    clips, told = count_clips(recipe)
    print(f"Dry run of {recipe.name}: nothing is loaded, trained or written.")
    print(f"Backbone {recipe.model.backbone}, {recipe.model.dtype}; {told}")
    print(f"Memory: {limit:.1f} GiB ({where}); predictions are derived from shapes, not measured")
    fits = True
    for number, stage in enumerate(recipe.stages, start=1):
        shape = stage_shape(recipe, stage, config)
        need = predict(recipe, stage, config, processes)
        print(f"Stage {number}/{len(recipe.stages)} {stage.name} ({stage.kind})")
        print(f"  {need.trained:,} of {need.all_weights:,} weights train")
        print(f"  {steps_line(stage, clips, processes)}")
        print(f"  {tokens_line(recipe, shape, config)}")
        print(f"  {memory_line(need, limit)}")
        print(f"  {files_line(recipe, stage, need)}", flush=True)
        if stage.encoder_cache:
            print(f"  {cache_line(recipe, stage, config, clips)}", flush=True)
        if need.needed > limit * GIB:
            fits = False
            print("  It would run out of memory. What would help, each by itself:", flush=True)
            for line in advice(recipe, stage, config, need, limit, processes):
                print(f"    {line}", flush=True)
    return fits


def thinker_config(recipe: Recipe) -> PreTrainedConfig:
    """The configuration of the thinker that a recipe trains."""
    if recipe.model.backbone == "demo":
        words = corpus_of_dense_prompts(recipe.model.prompts)
        return tiny_thinker_config(train_tokenizer(words), "demo")
    try:
        config = AutoConfig.from_pretrained(recipe.model.backbone)
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"model.backbone: the configuration of {recipe.model.backbone} cannot be read: {error}"
        ) from error
    thinker = getattr(config, "thinker_config", config)
    if thinker.model_type not in BACKBONES:
        raise RecipeError(
            f"model.backbone: {recipe.model.backbone} has model_type {config.model_type!r}, which is not a known omni "
            f"model ({', '.join(BACKBONES)})."
        )
    return thinker


def device_memory_gib() -> tuple[float, str]:
    """Memory of what would compute, and what that is."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        return properties.total_memory / GIB, properties.name
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return pages / GIB, "of this machine, which has no GPU; --memory-gib N asks about another"


def count_clips(recipe: Recipe) -> tuple[int | None, str]:
    """Clips of the training split, if the corpus is there, and a line about it."""
    data = recipe.data
    name = f"{data.dataset}/{data.protocol or 'default protocol'}, split {data.train_split}"
    if not Path(data.data_dir).is_dir():
        return None, f"{name}: there is no folder {data.data_dir!r}, so clips cannot be counted"
    try:
        clips = len(load_split(data, data.train_split))
    except datasets.exceptions.DatasetGenerationError as error:
        return None, f"{name}: {error.__cause__ or error}"
    except (ValueError, OSError) as error:  # every error of the builders is one of the two
        return None, f"{name}: {error}"
    return clips, f"{name}: {clips} clips"


def stage_shape(recipe: Recipe, stage: StageRecipe, config: PreTrainedConfig) -> ClipShape:
    """The largest clip of a stage, with everything that may be asked about it."""
    more: tuple[int, ...] = ()
    if stage.kind == "analysis":
        more = (CONVERSATION_TOKENS,) * stage.analysis.per_pass
    elif stage.kind == "pretraining":
        more = (CONVERSATION_TOKENS,)
    return clip_shape(
        config,
        seconds=recipe.data.clip_seconds,
        fps=recipe.model.fps,
        max_pixels=recipe.model.max_pixels,
        max_frames=recipe.model.max_frames,
        prompts=recipe.model.prompts,
        more_tokens=more,
    )


def predict(recipe: Recipe, stage: StageRecipe, config: PreTrainedConfig, processes: int = 1) -> MemoryNeed:
    """Memory of a stage of a recipe."""
    return predict_stage(
        config,
        stage_shape(recipe, stage, config),
        stage,
        getattr(torch, recipe.model.dtype),
        recipe.model.attn_implementation,
        processes=processes,
    )


def steps_line(stage: StageRecipe, clips: int | None, processes: int) -> str:
    a_step = stage.batch_size * stage.gradient_accumulation * processes
    parts = f"{stage.batch_size} at a time x {stage.gradient_accumulation} x {processes} process{'es' * (processes > 1)}"
    if stage.max_steps:
        return f"{stage.max_steps} steps of {a_step} clips ({parts}): {stage.max_steps * a_step} clips"
    if clips is None or stage.kind not in ("alignment", "encoders"):
        return f"{stage.epochs:g} epochs, {a_step} clips a step ({parts})"
    draws = round(stage.epochs * clips)
    return f"{math.ceil(draws / a_step)} steps of {a_step} clips ({parts}): {draws} clips"


def tokens_line(recipe: Recipe, shape: ClipShape, config: PreTrainedConfig) -> str:
    merge = config.vision_config.spatial_merge_size
    patch = config.vision_config.patch_size
    count = shape.grids * config.vision_config.temporal_patch_size
    frames = f"{count} frames of up to {shape.width * patch} x {shape.height * patch}"
    return (
        f"up to {shape.tokens(merge)} tokens a clip: {shape.video_tokens(merge)} of {frames}, {shape.audio_tokens} of "
        f"{recipe.data.clip_seconds:g} s of sound, about {shape.prompt_tokens + sum(shape.question_tokens)} of text"
    )


def memory_line(need: MemoryNeed, limit: float) -> str:
    parts = ", ".join(
        f"{name} {getattr(need, field) / GIB:.2f}"
        for name, field in (
            ("weights", "weights"),
            ("gradients", "gradients"),
            ("AdamW", "optimizer"),
            ("activations", "activations"),
        )
        if getattr(need, field)
    )
    verdict = "fits" if need.needed <= limit * GIB else "does NOT fit"
    return (
        f"{need.total / GIB:.2f} GiB predicted ({parts}), {need.needed / GIB:.2f} with headroom: {verdict} in "
        f"{limit:.1f} GiB"
    )


def files_line(recipe: Recipe, stage: StageRecipe, need: MemoryNeed) -> str:
    """What a stage would write, and how large that is."""
    folder = Path(recipe.output_dir) / stage.name
    bytes_each = getattr(torch, recipe.model.dtype).itemsize
    saved = 4 * need.trained if stage.kind in LORA_KINDS else need.weights
    checkpoint = saved + need.optimizer
    lora = need.trained if stage.kind in LORA_KINDS else 0  # merged at the end
    adapter = f"adapter/ ({saved / GIB:.2f} GiB), " if stage.kind in LORA_KINDS else ""
    return (
        f"writes {folder}/: model/ ({(need.all_weights - lora) * bytes_each / GIB:.2f} GiB), {adapter}log.jsonl, drops.jsonl; "
        f"while it runs up to 2 checkpoints of {checkpoint / GIB:.2f} GiB"
    )


def cache_line(recipe: Recipe, stage: StageRecipe, config: PreTrainedConfig, clips: int | None) -> str:
    """How large the encoder cache of a stage may get."""
    each = largest_embeds_bytes(recipe, stage, config)
    of_all = "" if clips is None else f", up to {each * clips / 1e9:.1f} GB for {clips} clips"
    return f"encoder cache {stage.encoder_cache}: up to {each / 1e6:.2f} MB a clip{of_all}"


def largest_embeds_bytes(recipe: Recipe, stage: StageRecipe, config: PreTrainedConfig) -> int:
    """What the encoders make of the longest clip with the largest frames, in bytes."""
    shape = stage_shape(recipe, stage, config)
    tokens = shape.video_tokens(config.vision_config.spatial_merge_size) + shape.audio_tokens
    return tokens * config.get_text_config().hidden_size * getattr(torch, recipe.model.dtype).itemsize


# -- advice ------------------------------------------------------------------------------------------------------------


def advice(
    recipe: Recipe,
    stage: StageRecipe,
    config: PreTrainedConfig,
    need: MemoryNeed,
    limit: float,
    processes: int = 1,
) -> Iterator[str]:
    """Lines that say which setting gains how much, and at the end what fits together."""
    together, last = (recipe, stage), need
    useful = []
    for words, change in changes(recipe, stage):
        changed = change(recipe, stage)
        after = predict(*changed, config, processes)
        gain = (need.needed - after.needed) / GIB
        if gain < 0.01 * need.needed / GIB:
            continue
        useful.append((words, change))
        yield _gain(words, need, after, limit)
    shared = need.weights + need.gradients + need.optimizer
    sharded = need.needed - shared * (1 - 1 / GPUS)
    yield (
        f"sharing weights, gradients and AdamW out over {GPUS} GPUs (recipes/accelerate/fsdp2.yaml, zero3.yaml): about "
        f"{(need.needed - sharded) / GIB:.1f} GiB less a GPU, and {sharded / GIB:.1f} needed, while a layer's own weights "
        f"are gathered a little more: {_verdict(sharded, limit)}"
    )
    taken = []
    for words, change in useful:
        together = change(*together)
        taken.append(words)
        last = predict(*together, config, processes)
        if last.needed <= limit * GIB:
            break
    if len(taken) > 1 or (taken and last.needed > limit * GIB):
        yield f"{'; '.join(taken)}, together: {last.needed / GIB:.1f} GiB needed: {_verdict(last.needed, limit)}"


def changes(recipe: Recipe, stage: StageRecipe) -> Iterator[tuple[str, Change]]:
    """Settings that take less memory, cheapest for the result first, as words and as what makes them."""
    name = f"--stages.{stage.name}"
    if not stage.gradient_checkpointing:
        yield (
            f"{name}.gradient_checkpointing true (about a third slower)",
            lambda r, s: (r, dataclasses.replace(s, gradient_checkpointing=True)),
        )
    if stage.batch_size > 1:
        accumulation = stage.gradient_accumulation * stage.batch_size
        yield (
            f"{name}.batch_size 1 {name}.gradient_accumulation {accumulation} (as many clips a step)",
            lambda r, s: (r, dataclasses.replace(s, batch_size=1, gradient_accumulation=accumulation)),
        )
    if recipe.model.max_pixels > SMALL_PIXELS:
        yield f"--model.max_pixels {SMALL_PIXELS}", _model(max_pixels=SMALL_PIXELS)
    fps = recipe.model.fps / 2
    yield f"--model.fps {fps:g}", _model(fps=fps)
    seconds = recipe.data.clip_seconds / 2
    yield (
        f"--data.clip_seconds {seconds:g}",
        lambda r, s: (
            dataclasses.replace(r, data=dataclasses.replace(r.data, clip_seconds=seconds)),
            s,
        ),
    )
    if stage.kind in LORA_KINDS and stage.lora_rank > 8:
        rank = stage.lora_rank // 2
        yield f"{name}.lora_rank {rank}", lambda r, s: (r, dataclasses.replace(s, lora_rank=rank))
    if recipe.model.dtype == "float32":
        yield "--model.dtype bfloat16", _model(dtype="bfloat16")


def _model(**values) -> Change:
    return lambda r, s: (dataclasses.replace(r, model=dataclasses.replace(r.model, **values)), s)


def _gain(words: str, before: MemoryNeed, after: MemoryNeed, limit: float) -> str:
    less = (before.needed - after.needed) / GIB
    return f"{words}: {less:.1f} GiB less, {after.needed / GIB:.1f} needed: {_verdict(after.needed, limit)}"


def _verdict(needed: float, limit: float) -> str:
    return "fits" if needed <= limit * GIB else "still too much"

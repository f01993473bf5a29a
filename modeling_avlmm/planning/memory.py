"""The memory of AV-LMMDetect's training and scoring passes, derived before anything is loaded; see `live_bytes`."""

from __future__ import annotations

import torch
from peft import get_peft_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedConfig

from ..configuration_avlmm import BACKBONES, AVLMMConfig
from ..configuration_detector import IGNORE_INDEX, PARTS
from ..modeling_avlmm import AVLMMForDeepfakeDetection
from ..training.clip_shape import ClipShape
from ..training.recipe_parts import StageRecipe
from ..training.stage_kinds import KINDS, keep_trained_in_float32
from .live_bytes import MemoryNeed, Pass, memory_need, without_values

CONVERSATION_TOKENS = 256
"""Assumed length of a conversation of an `analysis` stage, or of the dense questions of a `pretraining` stage."""


def build(
    thinker_config: PreTrainedConfig, dtype: torch.dtype, attn_implementation: str = "sdpa"
) -> AVLMMForDeepfakeDetection:
    """Return a detector of a thinker's shape with random weights; the answers' token ids do not matter."""
    config = AVLMMConfig(thinker_config=thinker_config.to_dict(), label_token_ids=[0, 1])
    # A pass of `flash_attention_2` cannot be run without a GPU; it keeps what the other fused kernel keeps.
    attention = "eager" if attn_implementation == "eager" else "sdpa"
    return AVLMMForDeepfakeDetection._from_config(config, dtype=dtype, attn_implementation=attention)


def real_stage(
    thinker_config: PreTrainedConfig,
    stage: StageRecipe | None,
    dtype: torch.dtype = torch.bfloat16,
    attn_implementation: str = "sdpa",
) -> nn.Module:
    """
    Return the model as a stage trains it - types, what is frozen, LoRA, checkpointing - or as it scores (None).

    On the device of the context: under `torch.device("meta")` it has no weights.
    """
    model = build(thinker_config, dtype, attn_implementation)
    if stage is None:
        return model.eval()
    kind = KINDS[stage.kind]
    kind.freeze(model, stage)
    if kind.uses_lora:
        model = get_peft_model(model, kind.lora(model, stage))
        keep_trained_in_float32(model)
        if stage.gradient_checkpointing:
            model.enable_input_require_grads()  # as TRL's trainer does
    if stage.gradient_checkpointing:
        checkpoint_activations(model)
    return model.train()


def checkpoint_activations(model: nn.Module) -> None:
    """Let a model recompute its activations, under the name that this version of transformers has for it."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()


def make_batch(
    config: PreTrainedConfig,
    shape: ClipShape,
    batch_size: int,
    labels: bool = False,
    fake: FakeTensorMode | None = None,
) -> dict[str, torch.Tensor]:
    """
    Return a batch of clips of one shape.

    Indices have values, as the model's flow depends on them. Pixels and spectra have none where `fake` is given, and random
    ones otherwise.

    Args:
        config (`PreTrainedConfig`): The thinker's configuration.
        shape ([`ClipShape`]): Shape of every clip.
        batch_size (`int`): Number of clips.
        labels (`bool`): Whether answers are trained on: the last two tokens of each question, or all of a long one.
        fake (`FakeTensorMode`, *optional*): Makes tensors without values.
    """
    backbone = BACKBONES[config.model_type]
    row, owner, answers, positions = _text_rows(config, shape)
    places = torch.arange(len(row)) * backbone.position_scale
    batch = {
        "input_ids": row.repeat(batch_size, 1),
        "attention_mask": torch.ones(batch_size, len(row), dtype=torch.long),
        "position_ids": places.repeat(backbone.position_axes, batch_size, 1),
        "answer_positions": positions.repeat(batch_size, 1),
    }
    if len(shape.question_tokens) > 1:
        batch["question_ids"] = owner.repeat(batch_size, 1)
    if labels:
        batch["labels"] = answers.repeat(batch_size, 1)
    batch["video_grid_thw"] = torch.tensor([shape.grids, shape.height, shape.width]).repeat(batch_size, 1)
    patches = batch_size * shape.grids * shape.height * shape.width
    batch["pixel_values_videos"] = _values((patches, backbone.patch_size(config)), fake, torch.uint8)
    if shape.mel_frames:
        bins = backbone.mel_bins(config)
        batch["input_features"] = _values((batch_size, bins, shape.mel_frames), fake)
        batch["feature_attention_mask"] = torch.ones(batch_size, shape.mel_frames, dtype=torch.long)
    return batch


def _text_rows(config: PreTrainedConfig, shape: ClipShape) -> tuple[torch.Tensor, ...]:
    """Return the tokens of a clip's row, the question each belongs to, the labels, and the places of the answers."""
    media = [config.video_token_id] * shape.video_tokens + [config.audio_token_id] * shape.audio_tokens
    before = shape.prompt_tokens + len(media)
    length = shape.tokens
    row = torch.zeros(length, dtype=torch.long)
    row[shape.prompt_tokens : before] = torch.tensor(media)
    owner, answers = torch.zeros(length, dtype=torch.long), torch.full((length,), IGNORE_INDEX)
    positions = torch.full((len(PARTS),), -1)
    cursor = before
    for number, size in enumerate(shape.question_tokens, start=1):
        owner[cursor : cursor + size] = number
        cursor += size
        trained = 2 if number <= len(PARTS) and size < CONVERSATION_TOKENS else size - 2
        answers[cursor - trained : cursor] = 1
        if number <= len(PARTS):
            positions[number - 1] = cursor - 3
    return row, owner, answers, positions


def _values(
    shape: tuple[int, ...], fake: FakeTensorMode | None, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    if fake is None:
        return torch.randn(shape) if dtype.is_floating_point else torch.randint(0, 256, shape, dtype=dtype)
    with fake:
        return torch.empty(shape, dtype=dtype)


def predict_scoring(
    thinker_config: PreTrainedConfig,
    shape: ClipShape,
    batch_size: int = 1,
    dtype: torch.dtype = torch.bfloat16,
    attn_implementation: str = "sdpa",
) -> MemoryNeed:
    """
    Predict the memory of a scoring pass.

    Args:
        thinker_config (`PreTrainedConfig`): The thinker's configuration.
        shape ([`ClipShape`]): Shape of every clip of the batch.
        batch_size (`int`): Windows of one pass.
        dtype (`torch.dtype`): Type of the weights.
        attn_implementation (`str`): `eager` keeps all attention weights of a layer.
    """
    with torch.device("meta"):
        model = real_stage(thinker_config, None, dtype, attn_implementation)
    return _predict(model, thinker_config, shape, batch_size, Pass(trains=False))


def predict_stage(
    thinker_config: PreTrainedConfig,
    shape: ClipShape,
    stage: StageRecipe,
    dtype: torch.dtype = torch.bfloat16,
    attn_implementation: str = "sdpa",
    processes: int = 1,
) -> MemoryNeed:
    """
    Predict the memory of a training step of a stage on one device, with everything on it.

    Args:
        thinker_config, shape, dtype, attn_implementation: As for [`predict_scoring`].
        stage ([`StageRecipe`]): What trains, how many clips at a time, whether activations are recomputed.
        processes (`int`): More than one keep a second copy of the gradients, to exchange them (DDP).
    """
    with torch.device("meta"):
        model = real_stage(thinker_config, stage, dtype, attn_implementation)
    kind = Pass(
        trains=True,
        autocast=dtype == torch.bfloat16,
        accumulates=stage.gradient_accumulation > 1,
        processes=processes,
    )
    return _predict(model, thinker_config, shape, stage.batch_size, kind)


def _predict(
    model: nn.Module, config: PreTrainedConfig, shape: ClipShape, batch_size: int, kind: Pass
) -> MemoryNeed:
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    without_values(model, fake)
    return memory_need(model, make_batch(config, shape, batch_size, kind.trains, fake), kind)

"""What each stage trains."""

import torch
from peft import LoraConfig
from torch import nn

from ..modeling_avlmm import AVLMMForDeepfakeDetection
from .recipes import StageRecipe

LORA_KINDS = ("alignment", "analysis")
"""Stages that train LoRA weights, which are merged at their end."""


def lora_config(model: AVLMMForDeepfakeDetection, stage: StageRecipe) -> LoraConfig:
    """LoRA on every linear layer of the language model; what an `analysis` stage trains in full is saved with it."""
    backbone = model.config.backbone
    whole = []
    if stage.kind == "analysis":
        if stage.train_projectors:
            whole += [backbone.vision_projector, backbone.audio_projector]
        if stage.analysis.grow_vocabulary:
            heads = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
            whole += [name for name, module in model.thinker.named_modules() if id(module) in heads]
    return LoraConfig(
        r=stage.lora_rank,
        lora_alpha=stage.lora_alpha,
        lora_dropout=stage.lora_dropout,
        target_modules=backbone.lora_targets,
        modules_to_save=whole or None,
    )


def freeze_for_stage(model: AVLMMForDeepfakeDetection, stage: StageRecipe) -> None:
    """
    Sets `requires_grad` for a stage; trained weights become float32, as their updates are too small for bfloat16.

    `alignment` and `analysis` freeze everything: PEFT then adds the LoRA weights, and copies of what trains beside them
    ([`lora_config`]). `encoders` trains both encoders, with or without their projectors. `pretraining` trains
    everything.
    """
    model.requires_grad_(stage.kind == "pretraining")
    if stage.kind == "encoders":
        model.vision_encoder.requires_grad_(True)
        model.audio_encoder.requires_grad_(True)
        for projector in model.projectors:
            projector.requires_grad_(stage.train_projectors)
    if stage.kind not in LORA_KINDS:
        keep_in_float32(model)


def keep_in_float32(model: nn.Module) -> None:
    """Trained weights become float32."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)


def parameter_groups(model: nn.Module, stage: StageRecipe) -> list[dict]:
    """
    Optimiser groups, one for each part that trains: `language_model` (or `lora`), `vision`, `audio`, `projectors`.

    Biases, norms and embeddings are not decayed.

    Returns:
        `list[dict]`: `params`, `lr`, `weight_decay`, `name`.
    """
    detector = model.get_base_model() if hasattr(model, "get_base_model") else model
    part_of: dict[int, str] = {}
    for part, modules in (
        ("vision", [detector.vision_encoder]),
        ("audio", [detector.audio_encoder]),
        ("projectors", detector.projectors),  # last: projectors lie inside the encoders
    ):
        for module in modules:
            part_of.update({id(p): part for p in module.parameters()})
    rates = {
        "vision": stage.vision_learning_rate,
        "audio": stage.audio_learning_rate,
        "projectors": stage.projector_learning_rate,
    }
    embeddings = {id(m.weight) for m in detector.modules() if isinstance(m, nn.Embedding)}
    rest = "lora" if detector is not model else "language_model"
    groups: dict[tuple[str, bool], list] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            decayed = parameter.ndim > 1 and id(parameter) not in embeddings
            groups.setdefault((part_of.get(id(parameter), rest), decayed), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": stage.learning_rate if rates.get(part) is None else rates[part],
            "weight_decay": stage.weight_decay if decayed else 0.0,
            "name": part,
        }
        for (part, decayed), parameters in groups.items()
    ]


def count_trainable(model: nn.Module) -> int:
    """Number of weights that train."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)

"""The weights that each kind of AV-LMMDetect's stages trains. Needs neither TRL nor `datasets`."""

from __future__ import annotations

import torch
from peft import LoraConfig, PeftModel
from torch import nn

from ..modeling_avlmm import AVLMMForDeepfakeDetection
from .recipe_parts import StageRecipe


class StageKind:
    """
    A kind of stage. By default it freezes everything.

    Attributes:
        uses_lora (`bool`): Whether LoRA weights train, which are merged at the end; otherwise whole weights do.
    """

    uses_lora = False

    def freeze(self, model: AVLMMForDeepfakeDetection, stage: StageRecipe) -> None:
        """
        Set `requires_grad` for a stage. LoRA kinds freeze everything; PEFT then adds what trains.

        Trained weights become float32, as their updates are too small for bfloat16.
        """
        model.requires_grad_(False)
        self.unfreeze(model, stage)
        keep_trained_in_float32(model)

    def unfreeze(self, model: AVLMMForDeepfakeDetection, stage: StageRecipe) -> None:
        """Let the parts train that train in full."""

    def lora(self, model: AVLMMForDeepfakeDetection, stage: StageRecipe) -> LoraConfig | None:
        """Return LoRA on every linear layer of the language model; None for kinds without it."""
        if not self.uses_lora:
            return None
        return LoraConfig(
            r=stage.lora_rank,
            lora_alpha=stage.lora_alpha,
            lora_dropout=stage.lora_dropout,
            target_modules=model.config.backbone.lora_targets,
            modules_to_save=self.beside_lora(model, stage) or None,
        )

    def beside_lora(self, model: AVLMMForDeepfakeDetection, stage: StageRecipe) -> list[str]:
        """Return the names of modules that train in full beside LoRA, and are saved with it."""
        return []


class Pretraining(StageKind):
    """All weights train."""

    def unfreeze(self, model: AVLMMForDeepfakeDetection, stage: StageRecipe) -> None:
        model.requires_grad_(True)


class Alignment(StageKind):
    """LoRA on the language model trains."""

    uses_lora = True


class Encoders(StageKind):
    """Both encoders train in full, with or without their projectors; the language model is frozen."""

    def unfreeze(self, model: AVLMMForDeepfakeDetection, stage: StageRecipe) -> None:
        model.vision_encoder.requires_grad_(True)
        model.audio_encoder.requires_grad_(True)
        for projector in model.projectors:
            projector.requires_grad_(stage.train_projectors)


class Analysis(StageKind):
    """LoRA on the language model and the projectors train, and with a grown vocabulary embeddings and language head."""

    uses_lora = True

    def beside_lora(self, model: AVLMMForDeepfakeDetection, stage: StageRecipe) -> list[str]:
        names = []
        if stage.train_projectors:
            names += projector_names(model)
        if stage.analysis.grow_vocabulary:
            heads = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
            names += [name for name, module in model.thinker.named_modules() if id(module) in heads]
        return names


KINDS: dict[str, StageKind] = {
    "pretraining": Pretraining(),
    "alignment": Alignment(),
    "encoders": Encoders(),
    "analysis": Analysis(),
}


def projector_names(model: AVLMMForDeepfakeDetection) -> list[str]:
    """Return the paths of the projectors inside the thinker; those of the members of a list, which PEFT cannot wrap."""
    backbone, names = model.config.backbone, []
    for path in (*backbone.vision_projectors, *backbone.audio_projectors):
        module = model.thinker.get_submodule(path)
        listed = isinstance(module, nn.ModuleList)
        names += [f"{path}.{number}" for number in range(len(module))] if listed else [path]
    return names


def keep_trained_in_float32(model: nn.Module) -> None:
    """Turn the weights that train into float32."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)


def base_detector(model: nn.Module) -> nn.Module:
    """Return the detector inside a PEFT model, or the model itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def count_trainable(model: nn.Module) -> int:
    """Return the number of weights that train."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def parameter_groups(model: nn.Module, stage: StageRecipe) -> list[dict]:
    """
    Return the optimiser groups, one for each part that trains: `language_model` (or `lora`), `vision`, `audio`,
    `projectors`.

    Biases, norms and embeddings are not decayed.

    Returns:
        `list[dict]`: `params`, `lr`, `weight_decay`, `name`.
    """
    detector = base_detector(model)
    part_of: dict[int, str] = {}
    for part, modules in (
        ("vision", [detector.vision_encoder]),
        ("audio", [detector.audio_encoder]),
        ("projectors", detector.projectors),  # last: some projectors lie inside the encoders
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

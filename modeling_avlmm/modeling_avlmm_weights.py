"""Weights of AV-LMMDetect: which need gradients, and which may be read outside their module; and checks of its inputs."""

import importlib
from collections.abc import Sequence

import torch
from torch import nn


def gradients_if_needed(encoder: Sequence[nn.Module], values: torch.Tensor) -> torch.set_grad_enabled:
    """
    Return a context without gradients for an encoder that is not trained.

    Training with LoRA and recomputed activations calls `enable_input_require_grads`, which requests gradients of the inputs
    of every encoder, also of a frozen one. The backward pass would run through all of it for nothing.

    Args:
        encoder (`Sequence[nn.Module]`): The encoder, and its projectors where they lie outside.
        values (`torch.Tensor`): Its input. If it needs a gradient, so does the output.
    """
    needed = values.requires_grad or any(
        weight.requires_grad for module in encoder for weight in module.parameters()
    )
    return torch.set_grad_enabled(needed and torch.is_grad_enabled())


def is_plain(head: nn.Module) -> bool:
    """
    Return True for a linear layer whose weight may be read outside its `forward`.

    Not so a layer with hooks or a `forward` of its own, as `accelerate` gives to offloaded layers, an adapted or quantised
    layer, and a sharded weight: only a call loads, adapts, unpacks or gathers the weight.
    """
    return (
        type(head) is nn.Linear
        and "forward" not in vars(head)
        and not (head._forward_pre_hooks or head._forward_hooks)
        and head.weight.device.type != "meta"
        and not is_sharded(head.weight)
    )


def is_sharded(weight: torch.Tensor) -> bool:
    """Return True for a shard of DeepSpeed ZeRO-3 or FSDP2, which cannot be indexed by rows."""
    if hasattr(weight, "ds_id"):
        return True
    distributed_tensor = (
        importlib.import_module("torch.distributed.tensor") if torch.distributed.is_available() else None
    )
    return distributed_tensor is not None and isinstance(weight, distributed_tensor.DTensor)


def in_rows(
    layers: tuple[torch.Tensor | None, ...] | None, places: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor | None, ...] | None:
    """
    Return hidden states by row, 0 for padding; None for layers that were not asked for.

    Args:
        layers (`tuple`, *optional*): The states after each layer, `(rows, length, width)`.
        places, tokens (`torch.Tensor` of shape `(batch_size, sequence_length)`): Place of each token's state, False for padding.
    """
    if layers is None:
        return None
    return tuple(
        None if layer is None else layer.flatten(0, 1)[places].masked_fill(~tokens[..., None], 0.0)
        for layer in layers
    )


def check_placeholders(what: str, places: torch.Tensor, features: torch.Tensor) -> None:
    """
    Check that there is a placeholder for every feature.

    Args:
        what (`str`): The media, for the message.
        places (`torch.BoolTensor` of shape `(1, tokens, 1)`): True for placeholder tokens.
        features (`torch.Tensor` of shape `(tokens, width)`): The features that replace them.

    Raises:
        ValueError: If the numbers differ.
    """
    found = int(places.sum())
    if found != len(features):
        raise ValueError(
            f"The batch has {found} placeholder tokens for {what} but {len(features)} features: "
            "`input_ids` and media do not belong together. Both come from one call of AVLMMProcessor."
        )


def check_positions(positions: torch.Tensor | None) -> None:
    """Raise `ValueError` for positions that are no whole numbers, see [`Backbone`]."""
    if positions is not None and positions.is_floating_point():
        raise ValueError(
            f"position_ids are {positions.dtype}, and AVLMMProcessor makes whole numbers. Leave positions from elsewhere out: "
            "the model then computes them."
        )


__all__ = [
    "check_placeholders",
    "check_positions",
    "gradients_if_needed",
    "in_rows",
    "is_plain",
    "is_sharded",
]

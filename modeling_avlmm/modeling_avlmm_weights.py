"""Weights of AV-LMMDetect: which need gradients, and which may be read outside their module."""

import importlib

import torch
from torch import nn


def gradients_if_needed(encoder: nn.Module, values: torch.Tensor) -> torch.set_grad_enabled:
    """
    Return a context without gradients for an encoder that is not trained.

    Training with LoRA and recomputed activations calls `enable_input_require_grads`, which requests gradients of the inputs
    of every encoder, also of a frozen one. The backward pass would run through all of it for nothing.

    Args:
        encoder (`nn.Module`): The encoder.
        values (`torch.Tensor`): Its input. If it needs a gradient, so does the output.
    """
    needed = values.requires_grad or any(weight.requires_grad for weight in encoder.parameters())
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


__all__ = ["gradients_if_needed", "is_plain", "is_sharded"]

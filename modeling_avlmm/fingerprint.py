"""A short hash of a network's weights, the same on every machine."""

import hashlib

import numpy as np
import torch
from torch import nn

SAMPLES = 64
"""Evenly spaced values of every tensor that are looked at."""


def weights_fingerprint(module: nn.Module, dtype: torch.dtype = torch.float32) -> str:
    """
    Hash over the names and shapes of all parameters and evenly spaced values of each: training any part changes it.

    Args:
        module (`torch.nn.Module`): The network.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Type in which values are compared.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.named_parameters()):
        flat = tensor.detach().reshape(-1)
        places = torch.linspace(0, flat.numel() - 1, min(SAMPLES, flat.numel()), dtype=torch.float64).long()
        values = flat[places.to(flat.device)].to(dtype).float().cpu().numpy()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
    return digest.hexdigest()[:16]

"""A short hash of a network's weights that is the same on every machine."""

import hashlib

import numpy as np
import torch
from torch import nn

SAMPLES = 64
"""Number of values that are hashed of each tensor, evenly spaced."""


def weights_fingerprint(module: nn.Module, dtype: torch.dtype = torch.float32) -> str:
    """
    Return a hash of the names and shapes of all parameters and of evenly spaced values: training any part changes it.

    Args:
        module (`torch.nn.Module`): The network.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Type to which values are rounded first.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.named_parameters()):
        flat = tensor.detach().reshape(-1)
        places = torch.linspace(0, flat.numel() - 1, min(SAMPLES, flat.numel()), dtype=torch.float64).long()
        values = flat[places.to(flat.device)].to(dtype).float().cpu().numpy()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
    return digest.hexdigest()[:16]

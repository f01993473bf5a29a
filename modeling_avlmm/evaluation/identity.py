"""Which detector gave a number, and on what: fingerprints that are the same on every machine."""

import hashlib
import json

import numpy as np
import torch
from transformers import PreTrainedModel, ProcessorMixin

SAMPLES = 64


def detector_identity(
    model: PreTrainedModel, processor: ProcessorMixin, dtype: torch.dtype | None = None
) -> dict:
    """
    Fingerprints of a detector's weights and settings.

    Args:
        model ([`PreTrainedModel`]): The detector.
        processor ([`ProcessorMixin`]): What prepares its inputs.
        dtype (`torch.dtype`, *optional*): Type in which the weights are compared; their own if left out.

    Returns:
        `dict`: `weights` (hash over evenly spaced values of every tensor: training any part of the model changes it),
        `prompts` and `sampling` (hashes over what is asked and how a clip is sampled), `dtype`.
    """
    dtype = model.dtype if dtype is None else dtype
    digest = hashlib.sha256()
    for name, tensor in sorted(model.named_parameters()):
        flat = tensor.detach().reshape(-1)
        places = torch.linspace(0, flat.numel() - 1, min(SAMPLES, flat.numel()), dtype=torch.float64).long()
        values = flat[places.to(flat.device)].to(dtype).float().cpu().numpy()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
    sampling = {
        name: value for name, value in sorted(vars(processor).items()) if isinstance(value, int | float)
    }
    return {
        "weights": digest.hexdigest()[:16],
        "prompts": _hash(getattr(model.config, "prompts", None)),
        "sampling": _hash(sampling),
        "dtype": str(dtype).removeprefix("torch."),
    }


def _hash(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]

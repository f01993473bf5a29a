"""Versions and hardware, written next to every number."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("modeling-avlmm", "torch", "torchcodec", "transformers", "trl", "peft", "datasets", "accelerate")


def environment() -> dict:
    """Versions of Python, of this package and of those it rests on, and the hardware."""
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
    """The processor's name and number of cores; `platform` alone knows no name on Linux."""
    name = platform.processor() or platform.machine()
    described = Path("/proc/cpuinfo")
    if described.is_file():
        lines = (line.partition(":") for line in described.read_text(encoding="utf-8").splitlines())
        name = next((value.strip() for key, _, value in lines if key.strip() == "model name"), name)
    return f"{name} ({os.cpu_count()} cores)"

"""Run a script where this package cannot be imported, as somebody does who has only a published folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

WITHOUT_PACKAGE = """
import sys
for name in ("modeling_avlmm", "dataset_scripts"):
    sys.modules[name] = None  # importing it is an error from here on
"""

DETECT = """
import json, sys
from transformers import pipeline
detector = pipeline("av-deepfake-detection", model=sys.argv[1], trust_remote_code=True)
module = type(detector.model).__module__
print(json.dumps([{**result, "module": module} for result in detector(sys.argv[2:])]))
"""
"""Script: the results of a published folder on clips, each with the module that the model's class is from."""


def run_without_package(script: str, *arguments: str | Path, folder: Path, **environment: str) -> Any:
    """
    Run a Python script in a process of its own, without this package, the network or the user's caches.

    Args:
        script (`str`): Source code. It finds `arguments` in `sys.argv[1:]`, and prints JSON in its last line.
        arguments (`str` or `Path`): Arguments of the script.
        folder (`Path`): Working directory, which also holds the caches of Hugging Face libraries.
        environment (`str`): Further environment variables.

    Returns:
        The value that the script printed.

    Raises:
        RuntimeError: if the script fails; the message is what it wrote to stderr.
    """
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON", "AVLMM_"))
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_PACKAGE + script, *map(str, arguments)],
        cwd=folder,
        env={**kept, "HF_HOME": str(folder / "huggingface"), "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])

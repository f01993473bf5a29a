"""Training runs as a user starts them: `from training_factory import command, finished`."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

from modeling_avlmm.__main__ import main
from modeling_avlmm.cli import train

ROOT = Path(__file__).parents[1]
WAYS = {"script": [str(ROOT / "train_sft.py")], "command": ["-m", "modeling_avlmm", "train"]}
"""The two ways to the one function."""


def command(recipe: Path, *words: object, way: str = "script") -> list[str]:
    """Return the command line that trains a recipe."""
    return [sys.executable, *WAYS[way], "--recipe", str(recipe), *map(str, words)]


def environment(dataset_cache: Path | None = None) -> dict[str, str]:
    """Return variables with one thread: sums in one order, so that equal runs are equal to the last bit."""
    variables = {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if dataset_cache is not None:
        variables["HF_DATASETS_CACHE"] = str(dataset_cache)
    return {**os.environ, **variables}


def finished(words: list[str], variables: dict[str, str]) -> str:
    """Run a command to its end and return what it printed."""
    done = subprocess.run(words, capture_output=True, text=True, env=variables, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def here(words: list[str], variables: dict[str, str]) -> tuple[int, str, str]:
    """Run a command in this process, which has imported everything, and return its exit status and what it printed."""
    given = words[words.index("--recipe") :]
    out, told = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, variables),
        mock.patch.object(sys, "argv", ["train_sft.py", *given]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(told),
    ):
        as_script = words[1] == WAYS["script"][0]
        status = train.main("") if as_script else main(["train", *given])
    return status, out.getvalue(), told.getvalue()


def finished_here(words: list[str], variables: dict[str, str]) -> str:
    """Do what [`finished`] does in this process, for tests of what a run does and not of its process."""
    status, printed, told = here(words, variables)
    assert status == 0, told
    return printed


def refused(words: list[str], variables: dict[str, str]) -> str:
    """Run a command that ends with an error in one line, in this process, and return that line."""
    status, _, told = here(words, variables)
    assert status == 2, told
    return told


def kill_at_first_checkpoint(words: list[str], folder: Path, variables: dict[str, str]) -> None:
    """Start a command, and kill it as soon as a stage's folder holds a checkpoint."""
    process = subprocess.Popen(words, env=variables, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list(folder.glob("checkpoints/checkpoint-*/trainer_state.json")):
        assert process.poll() is None and time.monotonic() < deadline, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()

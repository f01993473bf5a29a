"""Look at a training checkpoint before it is resumed from: it may come from somewhere else, or be damaged.

Nothing in it is unpickled freely: the trainer reads tensors and the states of the random generators with
`weights_only=True`, here and when it resumes. Only DeepSpeed unpickles what it wrote itself, in the folders `global_step*`.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import TrainerState
from transformers.trainer_pt_utils import safe_globals

from .recipe_values import RecipeError

NOT_READ = {"training_args.bin"}
"""Files that the trainer writes and never reads."""
DEEPSPEED = "global_step"
PICKLED = (".pt", ".pth", ".bin")


def check_checkpoint(checkpoint: Path) -> None:
    """
    Check the files of a checkpoint without loading its tensors.

    Raises:
        RecipeError: for a link, for a state that is not a trainer's or that belongs to another step, and for a file of
            tensors that is damaged or holds anything else.
    """
    for path in (checkpoint, *sorted(checkpoint.rglob("*"))):
        try:
            if path.is_symlink():
                raise ValueError("a symbolic link")
            if str(path.relative_to(checkpoint)).startswith(DEEPSPEED):
                continue
            if path == checkpoint / "trainer_state.json":
                _check_state(path, checkpoint)
            elif path.suffix == ".safetensors":
                with safe_open(path, framework="pt") as file:
                    file.keys()
            elif path.suffix in PICKLED and path.name not in NOT_READ:
                with safe_globals():  # arrays of NumPy's random generator
                    torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except _FAULTS as error:
            cause = str(error).strip().splitlines() or [type(error).__name__]
            raise RecipeError(
                f"{path} cannot be resumed from: {cause[0]}. Delete {checkpoint} to go on from the checkpoint before "
                "it, or from the beginning."
            ) from error


_FAULTS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    EOFError,
    RuntimeError,
    RecursionError,
    pickle.UnpicklingError,
    SafetensorError,
)


def _check_state(path: Path, checkpoint: Path) -> None:
    state = TrainerState(**json.loads(path.read_text(encoding="utf-8")))
    step = int(checkpoint.name.removeprefix("checkpoint-"))
    if type(state.global_step) is not int or state.global_step != step:
        raise ValueError(f"its state is of step {state.global_step!r}, not of step {step}")
    if not isinstance(state.log_history, list) or not all(
        isinstance(entry, dict) for entry in state.log_history
    ):
        raise ValueError("its log is not a list of entries")

"""The lines that a training run prints, and the limit on unreadable clips."""

from __future__ import annotations

import time
import warnings
from collections import Counter

import torch
from accelerate import PartialState
from transformers import TrainerCallback

from ..explain.words import count_of, hours
from ..inference.quiet import quiet_libraries
from .batches import DropList
from .throughput import peak_flops


class TooManyDropsError(RuntimeError):
    """More clips were unreadable than the recipe allows."""


def say(text: str) -> None:
    """Print a line of progress, from one process only."""
    if PartialState().is_main_process:
        print(text, flush=True)


def quiet_trainer() -> None:
    """Leave the terminal to the run's own lines."""
    quiet_libraries()
    # TRL sets an argument that transformers is renaming; users can do nothing about it.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)


class Progress(TrainerCallback):
    """
    Count a run's work, print a line for each log step, and stop a run that drops too much.

    Args:
        device (`torch.device`): The computing device; MFU is relative to its peak.
        drops ([`DropList`]): Where the collator lists unreadable clips.
        max_drops (`int`): Number of different unreadable clips above which training stops.
    """

    def __init__(self, device: torch.device, drops: DropList, max_drops: int):
        self.drops = drops
        self.max_drops = max_drops
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.peak, self.peak_source = peak_flops(device, dtype)
        self._reset()

    def _reset(self):
        self._done = Counter()
        self._since = time.perf_counter()

    def count(self, **amounts: int) -> None:
        """Count the `clips`, `tokens` and `flops` of a batch of this process, as far as they are known."""
        self._done.update(amounts)

    def rates(self, state, processes: int) -> dict[str, float]:
        """Return clips/s, tokens/s and MFU since the last call (of all processes, from this one's work), and the ETA."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        done = state.global_step - self._first_step
        elapsed = time.perf_counter() - self._begin
        rates = {
            f"{name}_per_s": processes * self._done[name] / seconds
            for name in ("clips", "tokens")
            if name in self._done
        }
        rates["mfu"] = self._done["flops"] / seconds / self.peak
        rates["eta_s"] = elapsed / max(done, 1) * (state.max_steps - state.global_step)
        self._reset()
        return rates

    def on_train_begin(self, args, state, control, **kwargs):
        self._begin = time.perf_counter()
        self._first_step = state.global_step
        self._reset()
        if state.is_world_process_zero:
            print(f"  MFU is relative to {self.peak / 1e12:.3g} TFLOP/s ({self.peak_source}).", flush=True)

    def on_step_end(self, args, state, control, **kwargs):
        dropped = len(self.drops.clips())
        if dropped > self.max_drops:
            raise TooManyDropsError(
                f"{count_of(dropped, 'clip')} could not be read, more than the {self.max_drops} that data.max_drop_share "
                f"allows. They are listed with their reasons in {self.drops.path}. Repair or remove them, or raise "
                "data.max_drop_share."
            )

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        rates = " ".join(f"{k[3:]} {v:.1e}" for k, v in logs.items() if k.startswith("lr/"))
        work = [
            f"{logs[f'{name}_per_s']:{form}} {name}/s"
            for name, form in (("clips", ".1f"), ("tokens", ".0f"))
            if f"{name}_per_s" in logs
        ]
        print(
            f"  step {state.global_step:>5}/{state.max_steps}  loss {logs['loss']:.4f}  lr {rates}  "
            f"{'  '.join(work)}  MFU {logs['mfu']:.1%}  ETA {hours(logs['eta_s'])}",
            flush=True,
        )

"""The words that the dry runs of training and of scoring share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import torch

from ..explain.words import count_of
from .live_bytes import GIB, MemoryNeed

Setting = TypeVar("Setting")
NOTICEABLE = 0.01
"""Share of the predicted memory that a setting must save to be mentioned."""


def memory_limit(memory_gib: float | None) -> tuple[float, str]:
    """Return the memory to fit in, in GiB, and where the figure is from: the user, the GPU, or the machine."""
    if memory_gib is not None:
        return memory_gib, "given"
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        return properties.total_memory / GIB, properties.name
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return pages / GIB, "of this machine, which has no GPU; --memory-gib N asks about another"


def limit_line(limit: float, where: str) -> str:
    """Say what the predictions are compared with, and where they come from."""
    return f"Memory: {limit:.1f} GiB ({where}); predictions are derived from shapes, not measured"


def memory_line(need: MemoryNeed, limit: float) -> str:
    """Say how much memory is predicted, for what, and whether it fits."""
    parts = (
        ("weights", need.weights),
        ("gradients", need.gradients),
        ("AdamW", need.optimizer),
        ("activations", need.activations),
    )
    listed = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts if size)
    verdict = "fits" if fits(need, limit) else "does NOT fit"
    return (
        f"{need.total / GIB:.2f} GiB predicted ({listed}), {need.needed / GIB:.2f} with headroom: {verdict} in "
        f"{limit:.1f} GiB"
    )


def fits(need: MemoryNeed, limit: float) -> bool:
    """Return whether a prediction with headroom fits in so many GiB."""
    return need.needed <= limit * GIB


def verdict(needed: float, limit: float) -> str:
    """Say whether so many bytes fit in so many GiB."""
    return "fits" if needed <= limit * GIB else "still too much"


def advice(
    setting: Setting,
    changes: Iterable[tuple[str, Callable[[Setting], Setting]]],
    need_of: Callable[[Setting], MemoryNeed],
    limit: float,
) -> Iterator[str]:
    """
    Yield lines that say which change saves how much, and which of them fit together.

    Args:
        setting: The setting that does not fit.
        changes (`Iterable`): Each change as the words to type and as a function, cheapest for the result first.
        need_of (`Callable`): Predicts the memory of a setting.
        limit (`float`): GiB to fit in.
    """
    before, useful = need_of(setting), []
    yield "It would run out of memory. What would help, each by itself:"
    for words, change in changes:
        after = need_of(change(setting))
        saved = before.needed - after.needed
        if saved < NOTICEABLE * before.total:
            continue
        useful.append((words, change))
        yield (
            f"  {words}: {saved / GIB:.1f} GiB less, {after.needed / GIB:.1f} needed: {verdict(after.needed, limit)}"
        )
    taken, need = [], before
    for words, change in useful:
        setting = change(setting)
        taken.append(words)
        need = need_of(setting)
        if fits(need, limit):
            break
    if len(taken) > 1 or (taken and not fits(need, limit)):
        yield f"  {'; '.join(taken)}, together: {need.needed / GIB:.1f} GiB needed: {verdict(need.needed, limit)}"


def steps_line(
    batch_size: int, accumulation: int, processes: int, epochs: float, steps: int | None, draws: int | None
) -> str:
    """
    Say how many optimiser steps a stage takes, and of how many clips.

    Args:
        batch_size, accumulation, processes (`int`): Their product is the clips of a step.
        epochs (`float`): Told where the number of steps is not known.
        steps, draws (`int`, *optional*): Optimiser steps, and clips drawn.
    """
    a_step = batch_size * accumulation * processes
    parts = f"{batch_size} at a time x {accumulation} x {processes} process{'es' * (processes > 1)}"
    if steps is None:
        return f"{epochs:g} epochs, {a_step} clips a step ({parts})"
    return f"{steps} steps of {count_of(a_step, 'clip')} ({parts}): {steps * a_step if draws is None else draws} clips"


def files_line(folder: str | Path, need: MemoryNeed) -> str:
    """Return the line that says what the training of a small detector would write, and how large that is."""
    checkpoint = need.weights + need.optimizer
    return (
        f"writes {folder}/: model/ (up to {need.weights / GIB:.3f} GiB), log.jsonl, drops.jsonl; while it runs up to 2 "
        f"checkpoints of at most {checkpoint / GIB:.3f} GiB"
    )

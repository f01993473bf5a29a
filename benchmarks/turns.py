"""Time several ways to do one thing in turn: the quickest turn of each counts, as it was disturbed least."""

import gc
import time
from collections.abc import Callable
from pathlib import Path

import torch

GIB = 1024**3
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def synchronize(device: str) -> None:
    """Wait for the GPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def reset_peak(device: str) -> None:
    """Reset the peak. On the CPU it is the kernel's count of this process's resident memory (Linux only)."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    elif _RESET.exists():
        _RESET.write_text("5")


def peak(device: str) -> float | None:
    """Return the peak since [`reset_peak`] in GiB: allocations on the GPU, or resident memory of the process on the CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / GIB
    if not _RESET.exists():
        return None
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) / 1024**2 for line in lines if line.startswith("VmHWM"))


def take_turns(
    ways: dict[str, Callable[[], object]], turns: int, device: str, until: float | None = None
) -> dict[str, dict]:
    """
    Time ways in alternation, after one pass of each that does not count.

    Args:
        ways (`dict[str, Callable]`): Functions to time, by name.
        turns (`int`): Turns of each.
        device (`str`): `cuda` or `cpu`.
        until (`float`, *optional*): Time of `time.monotonic` after which no further turn begins; one turn is always taken.

    Returns:
        `dict[str, dict]`: `seconds` of the quickest turn, `turns`, `peak_gib` of the last one, and `error` if the GPU ran
        out of memory.
    """
    found: dict[str, dict] = {name: {"seconds": None, "turns": 0, "peak_gib": None} for name in ways}
    for turn in range(turns + 1):
        if turn > 1 and until is not None and time.monotonic() > until:
            break
        for name, way in ways.items():
            if "error" in found[name]:
                continue
            reset_peak(device)
            synchronize(device)
            begin = time.perf_counter()
            try:
                way()
            except torch.cuda.OutOfMemoryError:
                found[name]["error"] = "out of memory"
                continue
            synchronize(device)
            taken = time.perf_counter() - begin
            found[name]["peak_gib"] = peak(device)
            if turn:
                best = found[name]["seconds"]
                found[name]["seconds"] = taken if best is None else min(best, taken)
                found[name]["turns"] = turn
    return found


def rounded(value: float | None, digits: int) -> float | None:
    """Round a number, or return None."""
    return None if value is None else round(value, digits)


def ratio(one: float | None, other: float | None) -> float | None:
    """Return the ratio of two numbers, or None if one is missing or 0."""
    return None if not one or not other else round(one / other, 3)

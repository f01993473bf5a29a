"""Telling how far a long run is, and when it will be done."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def telling_pace(
    results: Iterable[T],
    total: int,
    unit: str,
    seconds: float = 10.0,
    processes: int = 1,
    silent: bool = False,
) -> Iterator[T]:
    """
    Yield results, and print at most every so many seconds how many are done and how long the rest will take.

    Args:
        results (`Iterable`): Results as they come.
        total (`int`): Number of results in this process.
        unit (`str`): Plural of what is counted, such as `"clips"`.
        seconds (`float`, *optional*, defaults to 10): Time between lines.
        processes (`int`, *optional*, defaults to 1): Processes with as many results, which this one speaks for.
        silent (`bool`, *optional*, defaults to `False`): Print nothing.
    """
    begin = last = time.monotonic()
    for count, result in enumerate(results, start=1):
        yield result
        now = time.monotonic()
        if silent or now - last <= seconds:
            continue
        last = now
        rate = count / (now - begin)
        done, of = count * processes, total * processes
        left = (total - count) / rate
        print(f"  {done}/{of} {unit}, {rate * processes:.1f} {unit}/s, {left:.0f} s left", flush=True)

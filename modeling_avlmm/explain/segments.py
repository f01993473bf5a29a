"""Segments of time, as [start, end] in seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

TOLERANCE = 1e-6  # s; ends that differ by rounding alone touch


def join_segments(segments: Iterable[Sequence[float]], gap: float = 0.0) -> list[list[float]]:
    """
    Join segments that overlap, touch or lie close together. Empty ones are left out.

    ```python
    >>> join_segments([[3.0, 6.0], [0.0, 3.0], [8.0, 9.0]])
    [[0.0, 6.0], [8.0, 9.0]]
    ```

    Args:
        segments (`Iterable[Sequence[float]]`): [start, end] in seconds, in any order.
        gap (`float`, *optional*, defaults to 0): Longest pause, in seconds, that is closed.

    Returns:
        `list[list[float]]`: in order of time, without overlap.
    """
    joined: list[list[float]] = []
    for start, end in sorted(segments):
        if end <= start:
            continue
        if joined and start - joined[-1][1] <= gap + TOLERANCE:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return joined

"""The plot of true and found fake segments."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .plots import COLOURS, STYLE
from .proposals import ScoredTime

FAKES, GENUINE = 9, 3
"""Largest number of files of each class in the plot."""
TRUE, FOUND = "#1c2833", "#d35400"
HEIGHT = 0.5  # of a file's strip, in rows


def shown_files(predictions: list[dict]) -> list[dict]:
    """Return the files to plot: of each class some, evenly spaced in the order of their paths, fakes first."""
    chosen = []
    for label, most in ((1, FAKES), (0, GENUINE)):
        files = [
            p for p in predictions if p["label"] == label and p["windows"] and p["fake_segments"] is not None
        ]
        files.sort(key=lambda p: p["path"])
        number = min(most, len(files))
        chosen += [files[k * len(files) // number] for k in range(number)]
    return chosen


def plot_segments(predictions: list[dict], threshold: float, path: Path) -> tuple[str, Path]:
    """
    Draw the score over time of some files, with the true segments above it and the found ones below.

    Args:
        predictions (`list[dict]`): Predictions with `label`, `path`, `fake_segments` and `windows`.
        threshold (`float`): Score from which a moment is called fake.
        path (`Path`): The SVG file.

    Returns:
        `tuple[str, Path]`: caption and file.
    """
    files = shown_files(predictions)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 1.1 + 0.36 * len(files)), layout="constrained")
        axes = figure.subplots()
        for row, prediction in enumerate(reversed(files)):
            _draw_file(axes, row, prediction, threshold)
        names = [_short(p["path"]) for p in reversed(files)]
        axes.set_yticks(range(len(files)), names, fontsize=7)
        axes.set(xlabel="seconds", ylim=(-0.6, len(files) - 0.4))
        axes.grid(visible=False)
        handles = [
            Line2D([], [], color=TRUE, linewidth=3, label="truly fake"),
            Line2D([], [], color=FOUND, linewidth=3, label=f"found (score from {threshold:.3g})"),
            Line2D(
                [],
                [],
                color=COLOURS["overall"],
                linewidth=8,
                alpha=0.6,
                label="score: the darker, the higher",
            ),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
    return f"True and found segments of {len(files)} files, evenly spaced in the order of their paths", path


def _draw_file(axes: matplotlib.axes.Axes, row: int, prediction: dict, threshold: float) -> None:
    track = ScoredTime(prediction["windows"])
    borders = track.borders
    for start, end, score in zip(borders, borders[1:], track.scores, strict=False):
        if score is not None:
            axes.barh(
                row,
                end - start,
                left=start,
                height=HEIGHT,
                color=COLOURS["overall"],
                alpha=score,
                linewidth=0,
            )
    axes.barh(
        row,
        borders[-1] - borders[0],
        left=borders[0],
        height=HEIGHT,
        fill=False,
        edgecolor="0.6",
        linewidth=0.6,
    )
    for segments, colour, place in (
        (prediction["fake_segments"], TRUE, row + 0.36),
        ([span for _, *span in track.segments(threshold)], FOUND, row - 0.36),
    ):
        for start, end in segments:
            axes.hlines(place, start, end, color=colour, linewidth=3)


def _short(path: str) -> str:
    return path if len(path) <= 32 else f"...{path[-29:]}"

"""The plot of a comparison: the AUC of every entry in every group, and its difference to the first entry's."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .plots import STYLE

COLOURS = ("#1f5f99", "#c7761a", "#7a4fa3", "#23865a", "#b03a48", "#5b6770")
MARKERS = ("o", "s", "D", "^", "v", "P")
ROW, HEADING = 0.34, 0.42
"""Heights of a group and of a heading, in inches."""
CAPTION = (
    "Left: AUC of each entry. Right: the first entry's AUC minus each other's, on the same clips; right of 0 the first is "
    "better. Lines are 95 % intervals; in brackets are genuine + fake clips."
)


def plot_comparison(report: dict, part: str, folder: Path) -> tuple[str, Path] | None:
    """
    Draw `comparison.svg`, or `comparison_video.svg` and `comparison_audio.svg` of a part.

    Args:
        report (`dict`): Comparison as from [`~comparison.compare`].
        part (`str`): `"overall"`, or a part that is compared.
        folder (`Path`): Folder of the file.

    Returns:
        `tuple[str, Path]`: caption and file; None if no group has figures.
    """
    rows = report["rows"] if part == "overall" else report["parts"][part]["rows"]
    lines = _lines(rows)
    if not lines:
        return None
    heights = [HEADING if isinstance(line, str) else ROW for line in lines]
    places = [sum(heights[:at]) + height / 2 for at, height in enumerate(heights)]
    with matplotlib.rc_context(STYLE | {"font.size": 10}):
        figure = Figure(figsize=(10, 1.3 + sum(heights)), layout="constrained")
        values, differences = figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
        for place, row in zip(places, lines, strict=True):
            if isinstance(row, dict):
                _draw_values(values, row, place)
                _draw_differences(differences, row, place)
        handles = [values.plot([], [], **_look(entry))[0] for entry in range(len(report["entries"]))]
        _finish(values, differences, lines, places, sum(heights))
        differences.set_xlabel(f"AUC of {report['entries'][0]} minus that of the other")
        # With names and handles given, a name that begins with _ is kept.
        figure.legend(handles, report["entries"], loc="outside upper left", ncols=3, handletextpad=0.3)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"comparison{'' if part == 'overall' else '_' + part}.svg"
        figure.savefig(path, metadata={"Date": None, "Creator": None})
    return CAPTION, path


def _lines(rows: list[dict]) -> list[dict | str]:
    """Return the lines of the plot from top to bottom: rows with figures, and headings above groups."""
    lines: list[dict | str] = []
    drawn = [row for row in rows if not row.get("undefined")]
    for breakdown, of in groupby(drawn, key=lambda row: row["breakdown"]):
        lines += [f"by {breakdown.replace('_', ' ')}"] if breakdown else []
        lines += of
    return lines


def _look(entry: int) -> dict:
    return {
        "color": COLOURS[entry % len(COLOURS)],
        "marker": MARKERS[entry % len(MARKERS)],
        "markersize": 5,
        "linestyle": "none",
    }


def _draw_values(axes: Axes, row: dict, place: float) -> None:
    number = len(row["entries"])
    for entry, found in enumerate(row["entries"]):
        _draw(axes, found["auc"], place + _offset(entry, number), entry)


def _draw_differences(axes: Axes, row: dict, place: float) -> None:
    others = [pair for pair in row["differences"] if pair["first"] == 0]
    for pair in others:
        _draw(axes, pair["auc"], place + _offset(pair["second"] - 1, len(others)), pair["second"])


def _offset(place: int, number: int) -> float:
    return ROW * 0.7 * ((place + 0.5) / number - 0.5)


def _draw(axes: Axes, found: dict, at: float, entry: int) -> None:
    look = _look(entry)
    if found["ci"]:
        axes.plot(found["ci"], (at, at), color=look["color"], linewidth=1.6, alpha=0.55)
    axes.plot(found["value"], at, **look)


def _finish(values: Axes, differences: Axes, lines: list, places: list[float], height: float) -> None:
    names = [
        line if isinstance(line, str) else f"{_named(line)}  ({line['n_real']} + {line['n_fake']})"
        for line in lines
    ]
    values.set_yticks(places, names)
    for line, text in zip(lines, values.get_yticklabels(), strict=True):
        if isinstance(line, str):
            text.set_fontweight("bold")
    for axes in (values, differences):
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_ylim(height, 0)
        for line, place in zip(lines, places, strict=True):
            if isinstance(line, str):
                axes.axhspan(place - HEADING / 2, place + HEADING / 2, color="0.955", zorder=0)
    values.axvline(0.5, color="0.5", linewidth=1, linestyle=":")
    values.set_xlabel("AUC (dotted: a coin toss)")
    differences.axvline(0, color="0.4", linewidth=1)


def _named(row: dict) -> str:
    return "all clips" if row["breakdown"] is None else row["group"]

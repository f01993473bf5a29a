"""A plot of the benchmark: every AUC with its interval, beside that of file properties alone."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from ..plots import STYLE
from .benchmark_tables import BASELINE

COLOURS = ("#1b4f72", "#b9770e", "#7d3c98", "#117864", "#cb4335")
GREY = "#999999"
CAPTION = (
    "AUC with its 95 % interval. The dotted line is a coin toss, grey is what file properties alone reach."
)


def plot_aucs(report: dict, folder: Path) -> tuple[str, Path] | None:
    """
    Draw the rows of the whole recording and of the kinds of fake as `auc.svg`.

    Args:
        report (`dict`): See [`run_wild`].
        folder (`Path`): Folder of the file.

    Returns:
        `tuple[str, Path]`: caption and file; None if there is nothing to draw.
    """
    shown = ("Whole recording", "By family", "By kind")
    rows = [row for table in report["tables"] if table["title"] in shown for row in table["rows"]]
    if not rows:
        return None
    names = list(rows[0]["columns"])
    colours = dict(zip([name for name in names if name != BASELINE], COLOURS * len(names), strict=False))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 0.8 + 0.32 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for place, name in enumerate(names):
            offset = 0.36 * (place + 0.5) / len(names) - 0.18
            _draw(axes, [row["columns"][name] for row in rows], offset, name, colours.get(name, GREY))
        axes.axvline(0.5, color="black", linestyle=":", linewidth=1)
        axes.set_yticks(range(len(rows)), [f"{row['name']}: {row['n_fake']} fake" for row in rows])
        axes.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5), xlabel="AUC")
        figure.legend(loc="outside upper center", ncols=min(3, len(names)))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "auc.svg"
        figure.savefig(path, metadata={"Date": None, "Creator": None})
    return CAPTION, path


def _draw(axes, found: list[dict], offset: float, name: str, colour: str) -> None:
    places = [place for place, entry in enumerate(found) if entry["auc"] is not None]
    axes.plot(
        [found[place]["auc"] for place in places],
        [place + offset for place in places],
        "o",
        color=colour,
        markersize=4,
        label=name,
    )
    for place in places:
        if found[place]["ci"] is not None:
            axes.plot(found[place]["ci"], [place + offset] * 2, color=colour, linewidth=1.2)

"""The effect of perturbations on a detector, as a table and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ...configuration_detector import PARTS
from ...explain.words import PART_NAMES
from ..plots import COLOURS, STYLE
from .perturbations import PERTURBATIONS

HEAD = [
    "perturbation",
    "value",
    "clips",
    "AUC",
    "change",
    "picture",
    "sound",
    "bal. acc.",
    "flipped",
    "unreadable",
]


def robustness_rows(result: dict) -> tuple[list[str], list[list[str]]]:
    """Return head and lines of the table of [`run_robustness`]'s result."""
    clean = result["clean"]
    cells = ["untouched", "", str(clean["n"]), _number(clean["auc"]["overall"]), ""]
    cells += [_number(clean["auc"][part]) for part in ("video", "audio")]
    cells += [_number(clean["balanced_accuracy"]), "", _number(clean["unreadable"], ".1%")]
    rows = [cells]
    for condition in result["conditions"]:
        auc, before = condition["auc"], condition["clean_auc"]["overall"]
        change = None if auc["overall"] is None or before is None else auc["overall"] - before
        value = "" if condition["value"] is None else f"{condition['value']:g} {condition['unit']}"
        title = _title(condition["perturbation"])
        cells = [title, value, str(condition["n"]), _number(auc["overall"]), _number(change, "+.3f")]
        cells += [_number(auc[part]) for part in ("video", "audio")]
        cells += [_number(condition["balanced_accuracy"])]
        cells += [_number(condition[key], ".1%") for key in ("flipped", "unreadable")]
        rows.append(cells)
    return HEAD, rows


def robustness_notes(result: dict) -> list[str]:
    """Return the sentences that a reader of that table has to know."""
    notes = [
        f"Balanced accuracy and flipped verdicts are at {result['threshold']:.4f}, the threshold of the untouched clips. "
        "Change is against the untouched AUC of the same clips. Labels stay as they were."
    ]
    if any(condition["diagnosis"] for condition in result["conditions"]):
        notes.append(
            "A diagnosis shows what the verdict rests on, not robustness: the clip is no longer what its label says, or "
            "half of the evidence is gone."
        )
    failed = [condition for condition in result["conditions"] if condition["failed"]]
    if failed:
        shares = (f"{c['perturbation']} {c['severity']}: {c['failed']:.1%}" for c in failed)
        notes.append(f"Unreadable includes clips that lack the track to perturb: {', '.join(shares)}.")
    return notes


def _title(name: str) -> str:
    perturbation = PERTURBATIONS[name]
    return perturbation.title + (" (diagnosis)" if perturbation.diagnosis else "")


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def plot_robustness(result: dict, path: str | Path) -> Path:
    """
    Draw AUC against severity, in a small panel for each perturbation; those with one level share a panel.

    Levels are evenly spaced and labelled with their physical values; the untouched clips are at `clean`. The share of
    clips without a verdict stands above the axis.

    Args:
        result (`dict`): Result of [`run_robustness`], finished or not.
        path (`str` or `Path`): An image file of any kind that matplotlib writes.

    Returns:
        `Path`: `path`.

    Raises:
        ValueError: for a result without conditions.
    """
    panels: dict[str, list[dict]] = {}
    for condition in result["conditions"]:
        single = len(PERTURBATIONS[condition["perturbation"]].severities) == 1
        panels.setdefault("" if single else condition["perturbation"], []).append(condition)
    if not panels:
        raise ValueError("There is nothing to draw: the result has no conditions.")
    if "" in panels:
        panels[""] = panels.pop("")  # last
    parts = [part for part in PARTS if result["clean"]["auc"][part] is not None]
    known = [c["auc"][part] for c in result["conditions"] for part in parts if c["auc"][part] is not None]
    lowest = min([0.45, *(value - 0.05 for value in known)])
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context({**STYLE, "font.size": 8}):
        figure = Figure(figsize=(2.9 * columns, 2.35 * rows + 0.5), layout="constrained")
        for axes in figure.subplots(rows, columns, squeeze=False).flat[len(panels) :]:
            axes.set_axis_off()
        for axes, (name, conditions) in zip(figure.axes, panels.items(), strict=False):
            _panel(axes, name, conditions, result["clean"]["auc"], parts)
            axes.set_ylim(max(0.0, lowest), 1.02)
        for axes in figure.axes[::columns]:
            axes.set_ylabel("AUC")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
        if any(condition["unreadable"] for condition in result["conditions"]):
            figure.supxlabel("Percentages above an axis: clips without a verdict.", fontsize=7, color="0.35")
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The same result gives the same file.
        stable = {"metadata": {"Date": None, "Creator": None}} if path.suffix == ".svg" else {}
        figure.savefig(path, dpi=150, **stable)
    return path


def _panel(axes: Any, name: str, conditions: list[dict], clean: dict, parts: list[str]) -> None:
    places: list[dict | None] = sorted(conditions, key=lambda c: c["severity"] if name else 0)
    if name:
        # The untouched clip stands where the physical value would be neutral: before level 1, after level -1.
        places.insert(sum(c["severity"] < 0 for c in places), None)
    for number, part in enumerate(parts):
        # Without lines the parts of one condition stand side by side.
        places_of_part = np.arange(len(places)) + (0.0 if name else 0.14 * (number - (len(parts) - 1) / 2))
        values = [clean[part] if c is None else c["auc"][part] for c in places]
        heights = [np.nan if value is None else value for value in values]
        style = {"color": COLOURS[part], "markersize": 3.5, "linewidth": 1.3, "label": PART_NAMES[part]}
        axes.plot(places_of_part, heights, "o-" if name else "o", **style)
        if not name:
            axes.axhline(clean[part], color=COLOURS[part], linewidth=0.8, linestyle="--", alpha=0.6)
    axes.axhline(0.5, color="0.5", linewidth=0.8, linestyle=":")
    _write_unreadable(axes, places)
    _label(axes, name, places)
    axes.set_xlim(-0.5, len(places) - 0.5)


def _write_unreadable(axes: Any, places: list[dict | None]) -> None:
    for place, condition in enumerate(places):
        if condition is not None and condition["unreadable"] > 0:
            share = f"{condition['unreadable']:.0%}" if condition["unreadable"] >= 0.005 else "<1%"
            at = (place, 0.02)
            axes.annotate(
                share, at, xycoords=("data", "axes fraction"), ha="center", fontsize=6, color="0.35"
            )


def _label(axes: Any, name: str, places: list[dict | None]) -> None:
    if not name:
        titles = [c["perturbation"].replace("_", " ") + ("*" if c["diagnosis"] else "") for c in places]
        axes.set_xticks(range(len(places)), titles, rotation=40, ha="right", fontsize=6.5)
        axes.set_title("one level (dashed: clean; * diagnosis)", fontsize=8.5)
        return
    axes.set_xticks(range(len(places)), ["clean" if c is None else f"{c['value']:g}" for c in places])
    axes.set_xlabel(PERTURBATIONS[name].unit)
    axes.set_title(_title(name), fontsize=8.5)
    if len(places) > 8:
        axes.tick_params(axis="x", labelsize=6, rotation=60)

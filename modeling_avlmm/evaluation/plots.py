"""The plots of a report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm
from sklearn.metrics import roc_curve

from ..explain.words import PART_NAMES

COLOURS = {"overall": "#1b4f72", "video": "#b9770e", "audio": "#7d3c98"}
REAL, FAKE = "#2e86c1", "#cb4335"
DET_TICKS = (0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99)
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    # Names of models and groups are no formulas.
    "text.parse_math": False,
    "svg.fonttype": "none",
    # The same report gives the same file.
    "svg.hashsalt": "av-deepfake-detection",
}


def write_plots(
    columns: dict[str, tuple], raw: tuple, report: dict, folder: Path
) -> Iterator[tuple[str, Path]]:
    """
    Draw every plot that the clips allow.

    Args:
        columns (`dict[str, tuple]`): For each part of the verdict, labels and calibrated scores.
        raw (`tuple`): Labels and the network's own scores of the overall verdict.
        report (`dict`): Report as from [`build_report`].
        folder (`Path`): Folder of the files.

    Yields:
        `tuple[str, Path]`: caption and file.
    """
    ranked = {part: pair for part, pair in columns.items() if len(set(pair[0])) == 2}
    plots = []
    if ranked:
        title = "ROC: share of fakes found against share of real clips called fake"
        plots.append((title, "roc", _roc(ranked, report)))
        plots.append(("DET: misses against false alarms, on normal-deviate axes", "det", _det(ranked)))
    title = "Scores of real and fake clips; the dashed line is the threshold"
    plots.append((title, "scores", _scores(columns, report)))
    if "overall" in ranked:
        title = (
            "Reliability: share of fakes among clips of a score (a calibrated detector is on the diagonal)"
        )
        plots.append((title, "reliability", _reliability(columns["overall"], raw, report)))
    groups = _groups(report)
    if groups is not None:
        plots.append(("AUC of each group", "groups", groups))
    folder.mkdir(parents=True, exist_ok=True)
    for caption, name, figure in plots:
        path = folder / f"{name}.svg"
        with matplotlib.rc_context(STYLE):
            figure.savefig(path, metadata={"Date": None, "Creator": None})
        yield caption, path


def _figure(width: float = 4.2, height: float = 3.6) -> Figure:
    # Not through pyplot: a library keeps no global figures.
    return Figure(figsize=(width, height), layout="constrained")


def _styled(draw):
    def drawn(*arguments):
        with matplotlib.rc_context(STYLE):
            return draw(*arguments)

    return drawn


@_styled
def _roc(ranked: dict[str, tuple], report: dict) -> Figure:
    figure = _figure()
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for part, (labels, scores) in ranked.items():
        false_alarms, hits, _ = roc_curve(labels, scores)
        label = f"{PART_NAMES[part]}, AUC {report[part]['auc']:.3f}"
        axes.plot(false_alarms, hits, color=COLOURS[part], label=label)
    overall = report["overall"]
    if overall and overall["recall_real"] is not None and overall["recall_fake"] is not None:
        at = (1 - overall["recall_real"], overall["recall_fake"])
        axes.plot(*at, "o", color=COLOURS["overall"], label="at the threshold")
    axes.set(xlabel="real clips called fake", ylabel="fakes found", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.legend(loc="lower right")
    return figure


@_styled
def _det(ranked: dict[str, tuple]) -> Figure:
    figure = _figure()
    axes = figure.subplots()
    low, high = norm.ppf((0.004, 0.996))
    for part, (labels, scores) in ranked.items():
        false_alarms, hits, _ = roc_curve(labels, scores, drop_intermediate=False)
        x, y = (np.clip(norm.ppf(rate), low, high) for rate in (false_alarms, 1 - hits))
        axes.plot(x, y, color=COLOURS[part], label=PART_NAMES[part])
    axes.plot([low, high], [low, high], color="0.7", linewidth=1)
    ticks = [f"{tick:.0%}" for tick in DET_TICKS]
    axes.set_xticks(norm.ppf(DET_TICKS), ticks, fontsize=7)
    axes.set_yticks(norm.ppf(DET_TICKS), ticks, fontsize=7)
    axes.set(xlabel="real clips called fake", ylabel="fakes missed", xlim=(low, high), ylim=(low, high))
    axes.legend(loc="upper right")
    return figure


@_styled
def _scores(columns: dict[str, tuple], report: dict) -> Figure:
    figure = _figure(8.4, 2.8)
    bins = np.linspace(0, 1, 31)
    for axes, (part, (labels, scores)) in zip(
        np.atleast_1d(figure.subplots(1, len(columns))), columns.items(), strict=True
    ):
        labels, scores = np.asarray(labels), np.asarray(scores)
        for label, colour, name in ((0, REAL, "real"), (1, FAKE, "fake")):
            chosen = scores[labels == label]
            # Shares of each class: with one real clip in forty the counts would hide it.
            weights = np.full(len(chosen), 1 / max(len(chosen), 1))
            axes.hist(
                chosen, bins, weights=weights, color=colour, alpha=0.55, label=f"{name} ({len(chosen)})"
            )
        if part == "overall":
            axes.axvline(report["threshold"], color="0.3", linestyle="--", linewidth=1)
        axes.set(xlabel=f"score, {PART_NAMES[part]}", ylabel="share of the class", xlim=(0, 1))
        axes.legend(fontsize=7)
    return figure


@_styled
def _reliability(calibrated: tuple, raw: tuple, report: dict) -> Figure:
    figure = _figure()
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    shown = [
        (calibrated, COLOURS["overall"], "calibrated" if report["temperature"] else "as the network has them")
    ]
    if report["temperature"]:
        shown.insert(0, (raw, "0.5", "as the network has them"))
    for (labels, scores), colour, name in shown:
        labels, scores = np.asarray(labels), np.asarray(scores)
        place = np.minimum((scores * 10).astype(int), 9)
        filled = [k for k in range(10) if (place == k).any()]
        means = [scores[place == k].mean() for k in filled]
        shares = [labels[place == k].mean() for k in filled]
        sizes = [12 + 120 * (place == k).mean() for k in filled]
        axes.plot(means, shares, color=colour, linewidth=1, label=name)
        axes.scatter(means, shares, s=sizes, color=colour)
    axes.set(xlabel="mean score", ylabel="share of fakes", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend(loc="upper left")
    return figure


@_styled
def _groups(report: dict) -> Figure | None:
    rows = [
        (f"{title}: {name}", metrics)
        for title, groups in report["groups"].items()
        for name, metrics in groups.items()
        if metrics["auc"] is not None
    ]
    if not rows:
        return None
    figure = _figure(8.4, 0.8 + 0.24 * len(rows))
    axes = figure.subplots()
    for place, (_, metrics) in enumerate(reversed(rows)):
        interval = (metrics.get("ci") or {}).get("auc")
        if interval:
            axes.plot(interval, (place, place), color=COLOURS["overall"], linewidth=1.5, alpha=0.5)
        axes.plot(metrics["auc"], place, "o", color=COLOURS["overall"], markersize=4)
    axes.axvline(0.5, color="0.6", linewidth=1)
    if report["overall"]["auc"] is not None:
        axes.axvline(report["overall"]["auc"], color=COLOURS["overall"], linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{name} (n {m['n']})" for name, m in reversed(rows)], fontsize=7)
    axes.set(
        xlabel="AUC (dashed: overall)",
        ylim=(-0.6, len(rows) - 0.4),
        xlim=(min(0.45, *(m["auc"] for _, m in rows)) - 0.02, 1.01),
    )
    return figure

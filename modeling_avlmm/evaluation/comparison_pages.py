"""A comparison as text for a terminal, and as Markdown, HTML and JSON, with a plot."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from dataset_scripts.files import write_whole

from ..explain.words import count_of
from .comparison import ComparisonError
from .comparison_statistics import METRICS
from .metrics_table import aligned
from .plots import STYLE
from .predictions import PREDICTIONS
from .rendering import LISTED, Section, write_pages

COLOURS = ("#1b4f72", "#b9770e", "#7d3c98", "#1e8449", "#922b21", "#566573")
UNDECIDED = "undecided"


def write_comparison(report: dict, folder: str | Path) -> None:
    """
    Write `report.json`, `report.md`, `report.html` and `plots/differences.svg`, and `left_out.txt` if clips were left out.

    Args:
        report (`dict`): Comparison as from [`~comparison.compare`].
        folder (`str` or `Path`): Folder of the files.

    Raises:
        ComparisonError: for the folder of an evaluation, whose report would be overwritten.
    """
    folder = Path(folder)
    check_folder(folder)
    write_whole(folder / "report.json", json.dumps(report, indent=2) + "\n")
    listing = folder / "left_out.txt"
    listing.unlink(missing_ok=True)
    if report["left_out"]:
        write_whole(
            listing, "".join(f"{path}\t{'; '.join(_why(report, path))}\n" for path in report["left_out"])
        )
    plot = plot_differences(report, folder / "plots")
    write_pages(comparison_title(report), list(_sections(report, plot)), folder)


def check_folder(folder: str | Path) -> None:
    """Raise a [`ComparisonError`] for the folder of an evaluation, which has a report of its own."""
    if (Path(folder) / PREDICTIONS).exists():
        raise ComparisonError(f"{folder} is the folder of an evaluation: its report would be overwritten.")


def comparison_title(report: dict) -> str:
    """Return the title of a comparison."""
    names = " and ".join(report["entries"]) if len(report["entries"]) == 2 else ", ".join(report["entries"])
    return f"{names} on {report['dataset']}, {report['protocol']}, {report['split']}"


def comparison_summary(report: dict, folder: str | Path) -> str:
    """Return the figures as aligned text, with the sentences that a reader needs."""
    folder = Path(folder)
    text = [comparison_title(report), "", *aligned(_value_lines(report, "auc", report["rows"])), ""]
    if len(report["entries"]) == 2:
        text += [*aligned(_difference_lines(report, report["rows"])), ""]
    else:
        text += [*aligned(_difference_lines(report, report["rows"][:1])), ""]
    text += [*verdicts(report), *_coverage_sentences(report), *_reading(report), *report["notes"]]
    return "\n".join([*text, f"Written to {folder / 'report.md'}, report.html and report.json."])


def verdicts(report: dict) -> list[str]:
    """Return a sentence for each metric: who is better on all clips, and on how many groups."""
    names, (overall, *groups) = report["entries"], report["rows"]
    sentences = []
    for metric, title in METRICS.items():
        if overall.get("undefined"):
            break
        best = overall["winner"][metric]
        said = f"{names[best]} is best" if best is not None else "no entry is clearly best"
        won = [(name, [g for g in groups if g["winner"].get(metric) == at]) for at, name in enumerate(names)]
        of_groups = [f"{name} in {len(of)}" for name, of in won if of]
        among = f"; of {count_of(len(groups), 'group')}: {', '.join(of_groups) or 'clearly best in none'}"
        sentences.append(f"{title}: {said} on all clips{among if groups else ''}.")
    return sentences


def plot_differences(report: dict, folder: Path) -> tuple[str, Path] | None:
    """Draw the differences in AUC of the first entry and each other, and return caption and file; None without any."""
    rows = [row for row in report["rows"] if not row.get("undefined")]
    if not rows:
        return None
    names, others = report["entries"], len(report["entries"]) - 1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 1.0 + (0.16 + 0.12 * others) * len(rows)), layout="constrained")
        axes = figure.subplots()
        for place, row in enumerate(reversed(rows)):
            for pair in row["differences"][:others]:  # those of the first entry come first
                at = place + 0.3 - 0.6 * pair["second"] / (others + 1)
                colour = COLOURS[(pair["second"] - 1) % len(COLOURS)]
                if pair["auc"]["ci"]:
                    axes.plot(pair["auc"]["ci"], (at, at), color=colour, linewidth=1.5, alpha=0.6)
                label = f"{names[0]} - {names[pair['second']]}" if place == len(rows) - 1 else None
                axes.plot(pair["auc"]["value"], at, "o", color=colour, markersize=4, label=label)
        axes.axvline(0, color="0.4", linewidth=1)
        ticks = [f"{_row_name(row)} (n {row['n_real'] + row['n_fake']})" for row in reversed(rows)]
        axes.set_yticks(range(len(rows)), ticks, fontsize=7)
        axes.set(xlabel=f"difference in AUC (right of 0: {names[0]} is better)", ylim=(-0.6, len(rows) - 0.4))
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "differences.svg"
        figure.savefig(path, metadata={"Date": None, "Creator": None})
    return "Difference in AUC on the same clips, with 95 % intervals", path


def _sections(report: dict, plot: tuple[str, Path] | None) -> list[Section]:
    overall, *groups = report["rows"]
    size = f"{count_of(report['compared'], 'clip')}: {overall['n_real']} genuine, {overall['n_fake']} fake."
    lines = [_value_lines(report, metric, [overall]) for metric in METRICS]
    head = [["", *report["entries"], "better"]]
    head += [[METRICS[metric], *of[1][3:]] for metric, of in zip(METRICS, lines, strict=True)]
    sections = [
        Section("All clips", [size], head[0], head[1:], [*verdicts(report), *report["notes"]]),
        _table("Differences on all clips", _difference_lines(report, [overall])),
    ]
    for name, of in groupby(groups, key=lambda row: row["breakdown"]):
        rows = list(of)
        against = "Each against all genuine clips." if name in ("category", "generator") else ""
        text = [against] if against else []
        title = f"By {name.replace('_', ' ')}"
        sections += [
            _table(f"{title}: {METRICS[metric]}", _value_lines(report, metric, rows), text)
            for metric in METRICS
        ]
        sections.append(_table(f"{title}: differences", _difference_lines(report, rows)))
    if plot:
        sections.append(Section("Who is better where", plots=[plot]))
    sections.append(Section("How to read this", items=_reading(report)))
    head = ["entry", "file", "model", "clips", "without a score", "lacking", "threshold", "from"]
    rows = [
        [c["entry"], c["file"], c["model"], str(c["clips"]), str(len(c["without_score"])), str(len(c["lacking"])),
         f"{c['threshold']:.4f}", c["threshold_source"]]
        for c in report["coverage"]
    ]  # fmt: skip
    listed = [f"{path}: {'; '.join(_why(report, path))}" for path in report["left_out"][:LISTED]]
    sections.append(Section("Coverage", _coverage_sentences(report), head, rows, listed))
    return sections


def _table(title: str, lines: list[list[str]], text: list[str] | None = None) -> Section:
    return Section(title, text or [], lines[0], lines[1:])


def _value_lines(report: dict, metric: str, rows: list[dict]) -> list[list[str]]:
    """Return head and lines of the values of every entry, and who is better."""
    lines = [[METRICS[metric], "genuine", "fake", *report["entries"], "better"]]
    for row in rows:
        cells = [_row_name(row), str(row["n_real"]), str(row["n_fake"])]
        if row.get("undefined"):
            lines.append([*cells, *("-" for _ in report["entries"]), row["undefined"]])
            continue
        cells += [_value(entry[metric]) for entry in row["entries"]]
        best = row["winner"][metric]
        lines.append([*cells, UNDECIDED if best is None else report["entries"][best]])
    return lines


def _difference_lines(report: dict, rows: list[dict]) -> list[list[str]]:
    """Return head and lines of the differences of every pair, with DeLong's p for the AUC."""
    lines = [["difference", "", *METRICS.values(), "DeLong's p (AUC)"]]
    for row in rows:
        for pair in row["differences"]:
            names = f"{report['entries'][pair['first']]} - {report['entries'][pair['second']]}"
            p = pair["auc"]["delong"]["p"]
            shown = "-" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.4f}"
            lines.append([_row_name(row), names, *(_signed(pair[metric]) for metric in METRICS), shown])
    return lines


def _value(found: dict) -> str:
    spread = "" if found["std"] is None else f" ± {found['std']:.4f}"
    return f"{found['value']:.4f}{spread}" + (_interval(found["ci"], "") if found["ci"] else "")


def _signed(found: dict) -> str:
    return f"{found['value']:+.4f}" + (_interval(found["ci"], "+") if found["ci"] else "")


def _interval(ci: list[float], sign: str) -> str:
    return f" [{ci[0]:{sign}.4f}, {ci[1]:{sign}.4f}]"


def _row_name(row: dict) -> str:
    return (
        row["group"] if row["breakdown"] is None else f"{row['breakdown'].replace('_', ' ')}: {row['group']}"
    )


def _why(report: dict, path: str) -> list[str]:
    """Return the files in which a clip is missing, or has no score."""
    reasons = []
    for c in report["coverage"]:
        if path in c["lacking"]:
            reasons.append(f"not in {c['file']}")
        elif path in c["without_score"]:
            reasons.append(f"without a score in {c['file']}")
    return reasons


def _coverage_sentences(report: dict) -> list[str]:
    left = report["left_out"]
    text = [
        f"{count_of(report['compared'], 'clip')} of {report['compared'] + len(left)} are scored in all files."
    ]
    for c in report["coverage"]:
        parts = [f"lacks {count_of(len(c['lacking']), 'clip')}"] if c["lacking"] else []
        parts += (
            [f"has no score of {count_of(len(c['without_score']), 'clip')}"] if c["without_score"] else []
        )
        if parts:
            text.append(f"{c['file']} {' and '.join(parts)}.")
    return [*text, "left_out.txt lists the clips that are not compared."] if left else text


def _reading(report: dict) -> list[str]:
    text = [
        "Only clips that every file has scored are compared. Differences are the first entry minus the second."
    ]
    overall, *groups = report["rows"]
    if overall.get("undefined"):
        return [*text, f"No figures: {overall['undefined']}."]
    if reason := overall.get("no_interval"):
        text.append(f"No intervals: {reason}. So nobody is called better.")
    else:
        text.append(
            "In brackets: 95 % interval, from resampling identities, the same for all entries. An entry is called better "
            "if the interval of its difference to every other excludes 0."
        )
        n = sum(len(row["differences"]) * len(METRICS) for row in report["rows"])
        text.append(f"Of {n} differences, one in twenty would exclude 0 by chance if no entry were better.")
        if without := [_row_name(row) for row in groups if row.get("no_interval")]:
            text.append(f"Too few identities for an interval: {', '.join(without)}.")
    text.append(
        "DeLong's test takes clips as independent; where several are of one person, trust the interval."
    )
    if any(entry["auc"]["std"] is not None for entry in overall["entries"]):
        text.append(
            "After ±: standard deviation over the runs of an entry. The intervals are of the mean of these runs on other "
            "clips, and say nothing about other seeds."
        )
    text.append(
        "Balanced accuracy is at each run's threshold: chosen on the validation split of its file, or the model's own."
    )
    return text

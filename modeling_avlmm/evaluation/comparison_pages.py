"""A comparison as text for a terminal, and as Markdown, HTML and JSON, with a plot."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from dataset_scripts.files import write_whole

from ..explain.words import PART_TITLES, count_of
from .comparison import ComparisonError
from .comparison_plot import plot_comparison
from .comparison_statistics import METRICS
from .metrics_table import aligned
from .predictions import PREDICTIONS
from .rendering import LISTED, Section, write_pages

UNDECIDED, NO_INTERVAL = "undecided", "no interval"
WORDS = METRICS | {"balanced_accuracy": "balanced accuracy"}
"""Metrics in a sentence."""
AGAINST = {"category": "genuine clips", "generator": "genuine clips"}
"""Breakdowns whose groups are kinds of fake, each measured against all genuine clips."""


def write_comparison(report: dict, folder: str | Path) -> None:
    """
    Write `report.json`, `report.md`, `report.html`, plots, and `left_out.txt` if clips were left out.

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
    plots = {part: plot_comparison(report, part, folder / "plots") for part, _ in _by_part(report)}
    write_pages(comparison_title(report), list(_sections(report, plots)), folder)


def check_folder(folder: str | Path) -> None:
    """Raise a [`ComparisonError`] for the folder of an evaluation, which has a report of its own."""
    if (Path(folder) / PREDICTIONS).exists():
        raise ComparisonError(f"{folder} is the folder of an evaluation: its report would be overwritten.")


def comparison_title(report: dict) -> str:
    """Return the title of a comparison."""
    *names, last = report["entries"]
    return f"{', '.join(names)} and {last} on {report['dataset']}, {report['protocol']}, {report['split']}"


def comparison_summary(report: dict, folder: str | Path) -> str:
    """Return the figures as aligned text, with the sentences that a reader needs."""
    folder = Path(folder)
    text = [comparison_title(report), ""]
    for part, rows in _by_part(report):
        text += [PART_TITLES[part], *aligned(_value_lines(report, "auc", rows)), ""]
    rows = report["rows"] if len(report["entries"]) == 2 else report["rows"][:1]
    text += [*aligned(_difference_lines(report, rows)), ""]
    text += [*verdicts(report), *_coverage_sentences(report), *_reading(report), *report["notes"]]
    return "\n".join([*text, f"Written to {folder / 'report.md'}, report.html and report.json."])


def _by_part(report: dict) -> list[tuple[str, list[dict]]]:
    """Return the rows of the whole clip, and of the picture and the sound where all entries judge them."""
    return [("overall", report["rows"]), *((part, found["rows"]) for part, found in report["parts"].items())]


def verdicts(report: dict) -> list[str]:
    """Return a sentence for each part: who is better by each metric on all clips, and in how many groups by AUC."""
    return [
        _verdict(report["entries"], part, rows)
        for part, rows in _by_part(report)
        if not rows[0].get("undefined")
    ]


def _verdict(names: list[str], part: str, rows: list[dict]) -> str:
    overall, *groups = rows
    by_winner: dict[int | None, list[str]] = {}
    for metric in METRICS:
        by_winner.setdefault(overall["winner"][metric], []).append(WORDS[metric])
    said = [
        f"{'no entry is clearly best' if best is None else f'{names[best]} is best'} by {_listed(titles)}"
        for best, titles in by_winner.items()
    ]
    sentence = f"{PART_TITLES[part]}: {'; '.join(said)}."
    if groups:
        won = Counter(names[at] for g in groups if (at := g["winner"].get("auc")) is not None)
        shown = ", ".join(f"{name} in {times}" for name, times in won.items()) or "nobody in any"
        sentence += f" Of {count_of(len(groups), 'group')}, clearly best by AUC: {shown}."
    return sentence


def _listed(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _sections(report: dict, plots: dict[str, tuple[str, Path] | None]) -> Iterator[Section]:
    overall = report["rows"][0]
    size = f"{count_of(report['compared'], 'clip')}: {overall['n_real']} genuine, {overall['n_fake']} fake."
    yield Section("In short", [size], items=[*verdicts(report), *report["notes"]])
    yield Section("All clips", [], *_split(_all_clips_lines(report)))
    lines = [_difference_lines(report, rows[:1], PART_TITLES[part]) for part, rows in _by_part(report)]
    yield Section("Differences on all clips", [], lines[0][0], [line for of in lines for line in of[1:]])
    for part, rows in _by_part(report):
        drawn = [] if plots[part] is None else [plots[part]]
        if len(rows) > 1 or drawn:
            title = f"{PART_TITLES[part]}: who is better where"
            yield Section(title, [_MEANING], *_split(_winner_lines(report, rows)), plots=drawn)
    for part, rows in _by_part(report):
        yield from _group_sections(report, part, rows[1:])
    yield Section("How to read this", items=_reading(report))
    yield _coverage_section(report)


_MEANING = (
    "An entry is better if the interval of its difference to every other entry excludes 0. Kinds of fake are measured against "
    "all genuine clips."
)


def _group_sections(report: dict, part: str, rows: list[dict]) -> Iterator[Section]:
    for name, of in groupby(rows, key=lambda row: row["breakdown"]):
        groups = list(of)
        text = [f"Each against all {AGAINST[name]}."] if name in AGAINST else []
        title = f"{PART_TITLES[part]} by {name.replace('_', ' ')}"
        for at, (metric, shown) in enumerate(METRICS.items()):
            lines = _value_lines(report, metric, groups)
            yield Section(f"{title}: {shown}", text, *_split(lines), folded=at > 0)
        yield Section(f"{title}: differences", text, *_split(_difference_lines(report, groups)), folded=True)


def _coverage_section(report: dict) -> Section:
    head = ["entry", "file", "model", "clips", "without a score", "lacking", "threshold", "from"]
    rows = [
        [c["entry"], c["file"], c["model"], str(c["clips"]), str(len(c["without_score"])), str(len(c["lacking"])),
         f"{c['threshold']:.4f}", c["threshold_source"]]
        for c in report["coverage"]
    ]  # fmt: skip
    listed = [f"{path}: {'; '.join(_why(report, path))}" for path in report["left_out"][:LISTED]]
    return Section("Coverage", _coverage_sentences(report), head, rows, listed, wordy=True)


def _split(lines: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    return lines[0], lines[1:]


def _all_clips_lines(report: dict) -> list[list[str]]:
    """Return head and lines of all metrics of all parts on all clips, and who is better."""
    lines = [["", "genuine", "fake", *report["entries"], "better"]]
    for part, rows in _by_part(report):
        for metric, title in METRICS.items():
            _, cells = _value_lines(report, metric, rows[:1])
            lines.append([f"{PART_TITLES[part]}: {title}", *cells[1:]])
    return lines


def _winner_lines(report: dict, rows: list[dict]) -> list[list[str]]:
    """Return head and lines of who is better in each group, by each metric."""
    lines = [["", "genuine", "fake", *METRICS.values()]]
    for row in rows:
        won = [_better(report, row, metric) for metric in METRICS]
        lines.append([_row_name(row), str(row["n_real"]), str(row["n_fake"]), *won])
    return lines


def _better(report: dict, row: dict, metric: str) -> str:
    if row.get("undefined"):
        return "-"
    if row.get("no_interval"):
        return NO_INTERVAL
    best = row["winner"][metric]
    return UNDECIDED if best is None else report["entries"][best]


def _value_lines(report: dict, metric: str, rows: list[dict]) -> list[list[str]]:
    """Return head and lines of the values of every entry, and who is better."""
    lines = [[METRICS[metric], "genuine", "fake", *report["entries"], "better"]]
    for row in rows:
        cells = [_row_name(row), str(row["n_real"]), str(row["n_fake"])]
        if row.get("undefined"):
            lines.append([*cells, *("-" for _ in report["entries"]), row["undefined"]])
            continue
        cells += [value_with_interval(entry[metric]) for entry in row["entries"]]
        lines.append([*cells, _better(report, row, metric)])
    return lines


def _difference_lines(report: dict, rows: list[dict], of: str | None = None) -> list[list[str]]:
    """Return head and lines of the differences of every pair, with DeLong's p for the AUC; `of` names the rows."""
    lines = [["", *METRICS.values(), "DeLong's p (AUC)"]]
    for row in rows:
        for pair in row["differences"]:
            names = f"{report['entries'][pair['first']]} - {report['entries'][pair['second']]}"
            p = pair["auc"]["delong"]["p"]
            shown = "-" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.4f}"
            lines.append(
                [
                    f"{of or _row_name(row)}: {names}",
                    *(signed_with_interval(pair[metric]) for metric in METRICS),
                    shown,
                ]
            )
    return lines


def value_with_interval(found: dict) -> str:
    """Return a value as text, with the spread of several runs."""
    spread = "" if found.get("std") is None else f" ± {found['std']:.3f}"
    return f"{found['value']:.3f}{spread}" + (_interval(found["ci"], "") if found["ci"] else "")


def signed_with_interval(found: dict) -> str:
    """Return a difference as text, with its sign."""
    return f"{_rounded(found['value']):+.3f}" + (_interval(found["ci"], "+") if found["ci"] else "")


def _interval(ci: list[float], sign: str) -> str:
    return f" [{_rounded(ci[0]):{sign}.3f}, {_rounded(ci[1]):{sign}.3f}]"


def _rounded(value: float) -> float:
    """Return a value with three decimals, without a negative zero."""
    return round(value, 3) + 0.0


def _row_name(row: dict) -> str:
    if row["breakdown"] is None:
        return "all clips"
    return f"{row['breakdown'].replace('_', ' ')}: {row['group']}"


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
    overall = report["rows"][0]
    if overall.get("undefined"):
        return [*text, f"No figures: {overall['undefined']}."]
    if reason := overall.get("no_interval"):
        text.append(f"No intervals: {reason}. So nobody is called better.")
    else:
        text.append(
            "In brackets: 95 % interval, from resampling identities, the same for all entries. An entry is called better "
            "if the interval of its difference to every other excludes 0."
        )
        every = [row for _, rows in _by_part(report) for row in rows]
        n = sum(len(row["differences"]) * len(METRICS) for row in every)
        text.append(f"Of {n} differences, one in twenty would exclude 0 by chance if no entry were better.")
        if without := dict.fromkeys(_row_name(row) for row in every if row.get("no_interval")):
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
    if report["parts"]:
        text.append(
            "Picture and sound are compared on the clips whose part every file has scored; fake means that this part is forged."
        )
    return text

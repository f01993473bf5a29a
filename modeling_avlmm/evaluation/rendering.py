"""Writing a report as JSON, Markdown and HTML: one list of sections, three files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import jinja2

from dataset_scripts.files import write_whole

from ..configuration_detector import PARTS
from ..explain.words import PART_NAMES
from ..modeling_outputs import calibrated
from .audit.summary import audit_summary
from .metrics_table import COLUMNS, number, remarks, report_rows
from .plots import write_plots
from .predictions import labels_and_scores
from .report import with_temperature
from .robustness.curves import plot_robustness, robustness_notes, robustness_rows
from .segment_plot import plot_segments

LISTED = 20
"""Number of dropped files that a report names; `dropped.txt` has all of them."""
DETAILS = {
    "recall_fake": "recall of fake, at the threshold",
    "recall_real": "recall of real, at the threshold",
    "accuracy_argmax": "accuracy at 0.5",
    "ap_real": "AP(real)",
    "fpr_at_90_tpr": "real called fake when 90 % of fakes are found",
    "fpr_at_95_tpr": "real called fake when 95 % of fakes are found",
    "fpr_at_99_tpr": "real called fake when 99 % of fakes are found",
    "tpr_at_1_fpr": "fakes found when 1 % of real is called fake",
    "brier": "Brier score",
    "ece": "expected calibration error",
}
INTERVALS = ("auc", "ap_fake", "balanced_accuracy", "eer")


@dataclass
class Section:
    """
    A heading and the text, table, list and plots below it.

    Args:
        title (`str`), text (`list[str]`): Heading and paragraphs.
        head (`list[str]`), rows (`list[list[str]]`):
            Table. On the page an interval in brackets at a cell's end stands below its value.
        items (`list[str]`): List.
        plots (`list[tuple[str, Path]]`): Caption and SVG file of each.
        wordy (`bool`): Whether the cells of the table are text, which wraps, and not numbers.
        folded (`bool`): Whether the page shows no more than the heading until it is clicked.
    """

    title: str
    text: list[str] = field(default_factory=list)
    head: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    plots: list[tuple[str, Path]] = field(default_factory=list)
    wordy: bool = False
    folded: bool = False


def write_report(report: dict, predictions: list[dict], folder: Path) -> None:
    """
    Write `report.json`, `report.md`, `report.html`, the folder `plots` and `dropped.txt`.

    Args:
        report (`dict`): Report as from [`build_report`], with `robustness` and `audit`.
        predictions (`list[dict]`): The predictions that it was made from, for the curves.
        folder (`Path`): Folder of the files.
    """
    write_whole(folder / "report.json", json.dumps(report, indent=2) + "\n")
    dropped = list(dropped_files(report))
    listing = folder / "dropped.txt"
    listing.unlink(missing_ok=True)
    if dropped:
        write_whole(listing, "".join("\t".join(line) + "\n" for line in dropped))
    sections = list(report_sections(report, _plots(report, predictions, folder / "plots"), dropped))
    title = f"{report['model']} on {report['dataset']}, {report['protocol']}, {report['split']}"
    write_pages(title, sections, folder)


def write_pages(title: str, sections: list[Section], folder: Path) -> None:
    """Write sections as `report.md` and `report.html`."""
    for name in ("report.md", "report.html"):
        text = (files(__package__) / "templates" / name).read_text(encoding="utf-8")
        environment = jinja2.Environment(
            autoescape=name.endswith("html"),
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        environment.filters["value_and_interval"] = _value_and_interval
        page = environment.from_string(text).render(title=title, sections=sections, folder=folder)
        write_whole(folder / name, page.rstrip() + "\n")


def _value_and_interval(cell: str) -> tuple[str, str]:
    """Return a cell without the interval in brackets at its end, and that interval; empty without one."""
    value, bracket, interval = cell.rpartition(" [")
    return (value, bracket[1:] + interval) if bracket and interval.endswith("]") else (cell, "")


def _plots(report: dict, predictions: list[dict], folder: Path) -> dict[str, tuple[str, Path]]:
    """Draw the plots, and return caption and file of each by its name."""
    tested = [p for p in predictions if p["split"] == report["split"]]
    temperature = report["temperature"] or {}
    columns = {}
    for part in PARTS:
        if report[part]:
            labels, scores = labels_and_scores(tested, part)
            columns[part] = labels, [calibrated(score, temperature.get(part, 1.0)) for score in scores]
    plots = list(write_plots(columns, labels_and_scores(tested, "overall"), report, folder))
    if report["localization"]:
        marked = [with_temperature(p, temperature) for p in tested if p["score"] is not None]
        plots.append(plot_segments(marked, report["threshold"], folder / "segments.svg"))
    if report["robustness"]:
        caption = "AUC under perturbations; threshold and temperature stay those of the untouched clips"
        plots.append((caption, plot_robustness(report["robustness"], folder / "robustness.svg")))
    return {path.stem: (caption, path) for caption, path in plots}


def dropped_files(report: dict) -> Iterator[tuple[str, str, str]]:
    """Yield kind, path and reason of each file that is in no number, or only in part."""
    for path in report["missing"]:
        yield "missing", path, "listed by the corpus, not on disk"
    for kind in ("unreadable", "cut_short"):
        for path, error in report[kind].items():
            named = "no score" if report.get("outside") else kind.replace("_", " ")
            yield named, path, f"{error['type']}: {error['message']}"
    for path in report["no_face"]:
        yield "no face", path, "no face was found, so the picture has no score"


def report_sections(
    report: dict, plots: dict[str, tuple[str, Path]], dropped: list[tuple]
) -> Iterator[Section]:
    """Yield the sections of a report from top to bottom."""
    curves = [plots[name] for name in ("roc", "det", "scores", "reliability") if name in plots]
    head, rows = metrics_rows(report_rows(report, groups=False))
    yield Section("Verdicts", head=head, rows=rows, items=remarks(report), plots=curves)
    yield details_section(report)
    if report["audit"]:
        found = audit_summary(report["audit"]) or ["Nothing was found."]
        yield Section("Shortcuts and leaks in the data", ["See audit/audit.md."], items=found)
    yield class_mix_section(report)
    yield Section("Calibration", calibration_text(report))
    if report["localization"]:
        yield localization_section(report["localization"], plots["segments"])
    for name, groups in report["groups"].items():
        note = {
            "generator": "Each kind of fake against all genuine clips.",
            "category": "Each pair of labels against all genuine clips.",
        }.get(name, "Genuine and fake clips of the group.")
        yield Section(f"By {name.replace('_', ' ')}", [note], *metrics_rows(list(groups.items())))
    if "groups" in plots:
        yield Section("Groups side by side", plots=[plots["groups"]])
    if report["robustness"]:
        yield robustness_section(report["robustness"], plots["robustness"])
    for table in report["published"]:
        yield published_section(report, table)
    text = [f"{len(dropped)} files; dropped.txt lists all of them."] if dropped else ["None."]
    yield Section(
        "Dropped files",
        text,
        ["what", "file", "why"] if dropped else [],
        [list(line) for line in dropped[:LISTED]],
        wordy=True,
    )
    yield provenance(report)


def metrics_rows(rows: list[tuple[str, dict]]) -> tuple[list[str], list[list[str]]]:
    """Return head and lines of a table of metrics, with confidence intervals if they were computed."""
    shown = {key: title for key, title in COLUMNS.items() if key != "threshold"}
    lines = []
    for name, metrics in rows:
        cells = [name]
        for key in shown:
            interval = (metrics.get("ci") or {}).get(key) if key in INTERVALS else None
            text = number(metrics.get(key))
            cells.append(f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else text)
        lines.append(cells)
    return ["", *shown.values()], lines


def details_section(report: dict) -> Section:
    """Return the section of all other metrics, a line each."""
    parts = report_rows(report, groups=False)
    rows = [[title, *(number(metrics.get(key)) for _, metrics in parts)] for key, title in DETAILS.items()]
    note = "Brier score and calibration error are computed from the scores as reported, after the temperature if there is one."
    return Section("More numbers", [note], ["", *(name for name, _ in parts)], rows)


def localization_section(metrics: dict, plot: tuple[str, Path]) -> Section:
    """Return the section that compares the seconds with high scores with those that were forged."""
    names = [name for name in metrics if name.startswith(("ap@", "ar@")) or name == "score"]
    intervals = metrics.get("ci") or {}
    rows = []
    for name in names:
        low, high = intervals.get(name) or (None, None)
        rows.append(
            [name.upper() if "@" in name else "challenge score", *map(number, (metrics[name], low, high))]
        )
    text = (
        f"{metrics['n_segments']} fake segments in {metrics['n_files']} files. {metrics['n_proposals']} proposals are runs of "
        "moments with high scores, ranked by how far they stand out from the rest of the file. Conventions of the "
        f"{metrics['benchmark']} tables."
    )
    return Section("Which seconds are fake", [text], ["", "value", "95 % from", "to"], rows, plots=[plot])


def robustness_section(result: dict, plot: tuple[str, Path]) -> Section:
    """Return the section on perturbations, level by level."""
    head, rows = robustness_rows(result)
    return Section("Perturbations", [], head, rows, robustness_notes(result), [plot])


def class_mix_section(report: dict) -> Section:
    """Return the section on the number of clips of each class."""
    mix = report["class_mix"]
    read = mix["real"] + mix["fake"]
    commoner = max(("real", "fake"), key=lambda name: mix[name])
    return Section(
        "What was evaluated",
        [
            f"{read} of {report['clips']} clips. Always saying {commoner} has an accuracy of {mix[commoner] / read:.4f}: "
            "compare every accuracy with it.",
        ],
        ["clips", "number", "share"],
        [[name, str(count), f"{count / read:.4f}"] for name, count in mix.items()],
    )


def calibration_text(report: dict) -> list[str]:
    """Return sentences on how the scores were calibrated."""
    text, fitted = [], report["calibration"] or {}
    if report["temperature"]:
        text.append(f"Temperatures: {_temperatures(report['temperature'], fitted)}.")
    else:
        text.append("Scores are the network's own: no temperature.")
    overall = report["overall"]
    if overall:
        text.append(
            f"Brier score {number(overall.get('brier'))}, expected calibration error {number(overall.get('ece'))}."
        )
    text += [f"{PART_NAMES[part]}: {reason}" for part, reason in fitted.get("not_fitted", {}).items()]
    if "abstain_band" in fitted:
        low, high = fitted["abstain_band"]
        kept = (1 - fitted["coverage"]) * 100
        text.append(
            f"Scores from {low:.4f} to {high:.4f} are uncertain. Outside of this band at most {kept:.1f} % of real clips "
            f"are called fake, and at most {kept:.1f} % of fake clips real, if clips are drawn like the {fitted['clips']} "
            f"of {fitted['split']} (split conformal prediction, each class for itself; an average over such draws)."
        )
        text.append(
            f"Here: {fitted['abstained']:.1%} uncertain, {_percent(fitted['real_called_fake'])} of real clips called fake, "
            f"{_percent(fitted['fake_called_real'])} of fake clips called real."
        )
    return text


def _temperatures(temperature: dict[str, float], fitted: dict) -> str:
    """List temperatures with where they are from: fitted on a split, or the model's own."""
    sources = dict.fromkeys(temperature, "of the model")
    if "fitted" in fitted:
        sources |= dict.fromkeys(fitted["fitted"], f"fitted on {fitted['split']}")
    listed = []
    for source in dict.fromkeys(sources.values()):
        parts = [part for part in temperature if sources[part] == source]
        listed.append(
            ", ".join(f"{PART_NAMES[part]} {temperature[part]:.3f}" for part in parts) + f" ({source})"
        )
    return "; ".join(listed)


def published_section(report: dict, table: dict) -> Section:
    """Return the section that puts the report beside published results of the same protocol."""
    metrics = list(dict.fromkeys(name for values in table["rows"].values() for name in values))
    rows = [
        [name, *(number(values.get(metric)) for metric in metrics)] for name, values in table["rows"].items()
    ]
    own = report["overall"] or {}
    rows.append([f"this report: {report['model']}", *(number(own.get(metric)) for metric in metrics)])
    notes = list(table["notes"])
    if report["synthetic"]:
        notes.insert(
            0, "This report is of synthetic clips in the corpus's layout: do not compare it with these rows."
        )
    titles = [COLUMNS.get(metric, metric) for metric in metrics]
    return Section("Published for this protocol", [table["source"] + "."], ["", *titles], rows, notes)


def provenance(report: dict) -> Section:
    """Return the section on the detector, the data, the date and the environment."""
    detector, environment = report["detector"], report["environment"]
    rows = [
        ["model", report["model"]],
        *([name, str(value)] for name, value in detector.items()),
        ["dataset", f"{report['dataset']}, {report['protocol']}, {report['split']}"],
        *([f"clips of {name}", digest] for name, digest in (report.get("fingerprints") or {}).items()),
        *([f"list of {name}", each["text"]] for name, each in (report.get("official") or {}).items()),
        ["date", report["date"]],
        *([name, str(value)] for name, value in environment.items()),
    ]
    return Section("Provenance", head=["", ""], rows=rows, wordy=True)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"

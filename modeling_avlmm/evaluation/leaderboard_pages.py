"""A leaderboard as text for a terminal, and as Markdown, HTML and JSON, with a plot of every table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from dataset_scripts.files import write_whole

from ..explain.words import PART_NAMES, count_of
from .comparison_pages import check_folder, signed_with_interval, value_with_interval
from .measured_properties import CLIP_PROPERTIES, SPEECH_PROPERTIES
from .metrics_table import aligned
from .plots import STYLE
from .rendering import Section, write_pages

COLOUR, GREY = "#1f5f99", "#9aa3ab"
NOT_RANKED = "-"
CAPTION = "AUC with its 95 % interval. Grey is what file properties alone reach on the same clips; dotted is a coin toss."


HARDER = {
    "within one person": "Within one person: only a fake and a genuine clip of the same person are compared; the mean over people.",
    "like files": "Like files: pairs of a fake and a genuine clip that are alike as files, so file properties should be near 0.5.",
    PART_NAMES[
        "video"
    ]: "Picture: the verdict on the picture alone, on clips whose picture is known to be genuine or fake.",
    PART_NAMES["audio"]: "Sound: the same of the sound.",
}
"""Columns beside all fakes against all genuine clips, and what they are."""


def write_leaderboard(report: dict, folder: str | Path) -> None:
    """
    Write `report.json`, `report.md`, `report.html` and a plot for each table.

    Args:
        report (`dict`): Leaderboard as from [`~leaderboard.make_leaderboard`].
        folder (`str` or `Path`): Folder of the files.

    Raises:
        ComparisonError: for the folder of an evaluation, whose report would be overwritten.
    """
    folder = Path(folder)
    check_folder(folder)
    write_whole(folder / "report.json", json.dumps(report, indent=2) + "\n")
    write_pages(f"Leaderboard of {report['folder']}", list(_sections(report, folder)), folder)


def leaderboard_summary(report: dict, folder: str | Path) -> str:
    """Return the tables as aligned text, with the sentences that a reader needs."""
    text = []
    for table in report["tables"]:
        text += [table_title(table), _clips_of(table), ""]
        text += [*aligned(_main_lines(table)), *(f"- {note}" for note in table["notes"]), ""]
    text += [*_file_sentences(report), *_reading(report)]
    written = f"Written to {Path(folder) / 'report.md'}, report.html and report.json."
    return "\n".join([*text, written])


def table_title(table: dict) -> str:
    """Return the title of a table: dataset, protocol, split and the beginning of the fingerprint."""
    return f"{table['dataset']}, {table['protocol']}, {table['split']} ({table['fingerprint'][:12]})"


def _sections(report: dict, folder: Path) -> Iterator[Section]:
    yield _overview(report)
    for number, table in enumerate(report["tables"], start=1):
        title = table_title(table)
        plot = plot_table(table, folder / "plots" / f"table_{number}.svg")
        head, *rows = _main_lines(table)
        plots = [] if plot is None else [(CAPTION, plot)]
        yield Section(title, [_clips_of(table)], head, rows, table["notes"], plots)
        head, *rows = _harder_lines(table)
        if len(head) > 1:
            text = [said for words, said in HARDER.items() if any(words in column for column in head)]
            yield Section(f"{title}: in other ways", [" ".join(text)], head, rows)
        yield _provenance(title, table)
    yield Section("How to read this", items=_reading(report))
    listed = [[e["file"], e["reason"]] for e in (*report["unusable"], *report["left_out"])]
    head = ["file", "why"] if listed else []
    yield Section("Files in no table", _file_sentences(report), head, listed, wordy=True)


def _overview(report: dict) -> Section:
    rows = []
    for table in report["tables"]:
        first = [row["name"] for row in table["rows"] if row["rank"] == 1]
        rows.append(
            [
                f"{table['dataset']}, {table['protocol']}, {table['split']}",
                table["fingerprint"][:12],
                f"{table['n_real']} genuine, {table['n_fake']} fake",
                str(len(table["rows"])),
                ", ".join(first) or "nobody is ranked",
            ]
        )
    head = ["clips", "fingerprint", "number", "detectors", "highest AUC"]
    text = [
        f"Made on {report['date'][:10]}. Each set of clips has a table; detectors on different clips are not ranked together."
    ]
    return Section("Tables", text, head, rows, wordy=True)


def _clips_of(table: dict) -> str:
    people = f" of {table['people']} identities" if table["people"] else ""
    size = f"{count_of(table['clips'], 'clip')}{people}: {table['n_real']} genuine, {table['n_fake']} fake."
    if table["official"]:
        size += f" Which clips: {table['official']}."
    if table["ranked_on"] < table["clips"]:
        size += f" Ranked on the {table['ranked_on']} clips that the ranked detectors scored."
    return size


def _main_lines(table: dict) -> list[list[str]]:
    """Return head and lines of a table, the best first."""
    lines = [
        [
            "detector",
            "AUC",
            "file properties",
            "AUC - file properties",
            "AUC - first",
            "AP(fake)",
            "bal. acc.",
            "clips",
        ]
    ]
    for row in table["rows"]:
        scored = f"{row['scored']} of {table['clips']}"
        if row["undefined"]:
            lines.append([_ranked_name(row), row["undefined"], *"-----", scored])
            continue
        to_first = "" if row["rank"] is None else _signed(row["to_first"])
        lines.append(
            [_ranked_name(row), _figure(row["auc"]), _figure((row["baseline"] or {}).get("auc")),
             _signed(row["over_baseline"]), to_first, _figure(row["ap_fake"]), _figure(row["balanced_accuracy"]), scored]
        )  # fmt: skip
    return lines


def _harder_lines(table: dict) -> list[list[str]]:
    """Return head and lines of what is harder than all against all; columns that no detector has are left out."""
    known = [row for row in table["rows"] if not row["undefined"]]
    columns = {}
    for key, title in (("within", "within one person"), ("matched", "like files")):
        if any(row[key] for row in known):
            columns[title] = lambda row, key=key: _figure((row[key] or {}).get("detector"))
        if any((row[key] or {}).get("baseline") for row in known):
            alone = f"file properties, {title}"
            columns[alone] = lambda row, key=key: _figure((row[key] or {}).get("baseline"))
    for part in ("video", "audio"):
        if any(row["parts"][part] for row in known):
            columns[PART_NAMES[part]] = lambda row, part=part: _part(row["parts"][part])
    return [
        ["detector", *columns],
        *([row["name"], *(cell(row) for cell in columns.values())] for row in known),
    ]


def _figure(found: dict | None) -> str:
    return "-" if not found or found["value"] is None else value_with_interval(found)


def _part(found: dict | None) -> str:
    return _figure(found and {"value": found["auc"], "ci": found["ci"]})


def _signed(found: dict | None) -> str:
    return signed_with_interval(found) if found else "-"


def _ranked_name(row: dict) -> str:
    rank = NOT_RANKED if row["rank"] is None else f"{row['rank']}."
    return f"{rank}\N{NO-BREAK SPACE}{row['name']}"


def _provenance(title: str, table: dict) -> Section:
    rows = [["clips", f"fingerprint {table['fingerprint']}"]]
    for row in table["rows"]:
        facts = ", ".join(f"{name} {value}" for name, value in (row["detector"] or {}).items())
        who = "scores of another program" if row["outside"] else "detector"
        threshold = f"threshold {row['threshold']:.4f}, from: {row['threshold_source']}"
        rows.append(
            [
                row["name"],
                f"{row['file']}; {who}: {facts}; {threshold}; evaluated {row['evaluated'] or '(date unknown)'}",
            ]
        )
    return Section(f"{title}: provenance", [], ["", ""], rows, wordy=True, folded=True)


def _file_sentences(report: dict) -> list[str]:
    """Return sentences on the files that are in no table, the first few by name."""
    text = []
    for entry in report["unusable"]:
        text.append(f"Cannot be used: {entry['file']}: {entry['reason']}")
    if report["left_out"]:
        text.append(f"Left out: {count_of(len(report['left_out']), 'file')} of perturbed clips, or copies.")
    return text or ["Every file is in a table."]


def _reading(report: dict) -> list[str]:
    text = [
        "AUC: P(score of a fake > score of a genuine clip), ties half; 0.5 is a coin toss. In brackets: 95 % interval, from "
        "resampling people, the same for every column.",
        "A fingerprint is the SHA-256 of the clips' paths and labels: where it is the same, the clips are.",
        "AUC - first: the difference to the highest AUC, on the same clips. If its interval includes 0, the order of the two is "
        "not settled.",
        "Balanced accuracy is at each detector's threshold: chosen on the validation split of its file, or the model's own.",
    ]
    rows = [row for table in report["tables"] for row in table["rows"]]
    if any(row["baseline"] for row in rows):
        speech = any(
            table["protocol"] == "speech" and table["dataset"] == "wild" for table in report["tables"]
        )
        names = ", ".join(title.partition(" (")[0] for title in CLIP_PROPERTIES.values())
        of_speech = ", ".join(title.partition(" (")[0] for title in SPEECH_PROPERTIES.values())
        text.append(
            f"File properties: the better of two classifiers that see only {names}{f'; for speech {of_speech}' if speech else ''}; "
            "each person is scored by fits without that person. A detector that is no better may only know where clips are from."
        )
    for reason in dict.fromkeys(row["baseline_undefined"] for row in rows if row["baseline_undefined"]):
        text.append(f"Without a figure of file properties: {reason}.")
    for reason in dict.fromkeys(row["no_interval"] for row in rows if row["no_interval"]):
        text.append(f"Without intervals: {reason}.")
    return text


def plot_table(table: dict, path: Path) -> Path | None:
    """Draw AUCs of a table's detectors, each above that of file properties, and return the file; None without any."""
    rows = [row for row in table["rows"] if not row["undefined"]]
    if not rows:
        return None
    with matplotlib.rc_context(STYLE | {"font.size": 10}):
        figure = Figure(figsize=(8.4, 1.0 + 0.42 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for place, row in enumerate(rows):
            for found, at, colour in (
                (row["auc"], place - 0.12, COLOUR),
                ((row["baseline"] or {}).get("auc"), place + 0.16, GREY),
            ):
                if found and found["ci"]:
                    axes.plot(found["ci"], (at, at), color=colour, linewidth=1.6, alpha=0.6)
                if found:
                    axes.plot(found["value"], at, "o", color=colour, markersize=5)
        axes.axvline(0.5, color="0.5", linestyle=":", linewidth=1)
        axes.set_yticks(range(len(rows)), [_ranked_name(row) for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.set(xlabel="AUC", ylim=(len(rows) - 0.5, -0.5))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
    return path

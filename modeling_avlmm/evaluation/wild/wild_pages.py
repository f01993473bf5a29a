"""The benchmark's figures as text for a terminal, and as Markdown and HTML."""

from __future__ import annotations

from pathlib import Path

from dataset_scripts.text_files import printable

from ...explain.words import count_of
from ..measured_properties import CLIP_PROPERTIES, FOLD_DRAWS, SPEECH_PROPERTIES
from ..metrics_table import SUSPICIOUS_AUC
from ..rendering import Section, write_pages
from .benchmark_tables import BASELINE
from .wild_plot import plot_aucs

LISTED = 20
"""Dropped files that a page names; dropped.csv has all of them."""
ONLY_ON_PAGES = ("By generator", "By system")
"""Tables that are too long for a terminal."""
CLASSES = {"real": "genuine", "fake": "fake"}


def wild_title(report: dict) -> str:
    """Return the title of a report."""
    return f"Real recordings: {Path(report['data_dir']).name}, {report['protocol']}, {report['split']}"


def wild_summary(report: dict, folder: Path) -> str:
    """Return the figures as aligned text, with the sentences that a reader needs."""
    text = [wild_title(report), _subject(report), ""]
    for table in report["tables"]:
        if table["title"] not in ONLY_ON_PAGES:
            text += [*_aligned(_cells(table)), *table["notes"], ""]
    text += [*polarity_sentences(report), *_verdict_sentences(report), *_reading(report)]
    text += _dropped_sentences(report)
    more = [
        table["title"].removeprefix("By ") for table in report["tables"] if table["title"] in ONLY_ON_PAGES
    ]
    written = f"Written to {folder / 'report.md'}, report.html, report.json and predictions.csv."
    return "\n".join([*text, *(f"Each {kind} has a row in report.md." for kind in more), written])


def write_wild_pages(report: dict, folder: Path) -> None:
    """Write the report as `report.md` and `report.html`, with a plot."""
    sections = [Section("Test set", [_subject(report), *([report["notes"]] if report["notes"] else [])])]
    if polarity := polarity_sentences(report):
        sections.append(Section("Polarity", polarity))
    for table in report["tables"]:
        head, *rows = _cells(table)
        sections.append(Section(table["title"], table["notes"], head, rows))
    if plot := plot_aucs(report, folder / "plots"):
        sections.append(Section("All figures", plots=[plot]))
    if sentences := _verdict_sentences(report):
        sections.append(Section("Verdicts at the detector's own threshold", items=sentences))
    sections.append(Section("How to read this", items=_reading(report)))
    listed = [printable(f"`{e['path']}`: {e['reason']}") for e in report["dropped"][:LISTED]]
    sections.append(Section("Dropped files", _dropped_sentences(report), items=listed))
    write_pages(wild_title(report), sections, folder)


def _subject(report: dict) -> str:
    n = count_of(report["files"], "file")
    return f"{n}: {report['n_real']} genuine, {report['n_fake']} fake; {report['people']} people. {report['date']}."


def _cells(table: dict) -> list[list[str]]:
    """Return a table as text, its head first."""
    names = list(table["rows"][0]["columns"])
    lines = [[table["title"], "genuine", "fake", *(f"AUC of {name}" for name in names)]]
    for row in table["rows"]:
        values = (_auc(row["columns"][name]) for name in names)
        lines.append([printable(row["name"]), str(row["n_real"]), str(row["n_fake"]), *values])
    return lines


def _auc(found: dict) -> str:
    if found["auc"] is None:
        return "-"
    if found["ci"] is None:
        return f"{found['auc']:.2f}"
    low, high = found["ci"]
    return f"{found['auc']:.2f} [{low:.2f}, {high:.2f}]"


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "  ".join(
            [line[0].ljust(widths[0])]
            + [c.rjust(w) for c, w in zip(line[1:3], widths[1:3], strict=True)]
            + [c.ljust(w) for c, w in zip(line[3:], widths[3:], strict=True)]
        ).rstrip()
        for line in lines
    ]
    return [text[0], "-" * max(len(line) for line in text), *text[1:]]


def _verdict_sentences(report: dict) -> list[str]:
    sentences = []
    for found in report["verdicts"]:
        called = [_share(found[label]["called_fake"], f"{name} files") for label, name in CLASSES.items()]
        sentences.append(
            f"{found['detector']} calls fake, from a score of {found['threshold']:.3f}: {'; '.join(called)}."
        )
        if found["abstain_band"]:
            low, high = found["abstain_band"]
            uncertain = [
                _share(found[label]["uncertain"], f"{name} files") for label, name in CLASSES.items()
            ]
            sure = _share(found["real"]["called_fake_for_sure"], "genuine files")
            sentences.append(
                f"It is uncertain from {low:.3f} to {high:.3f}: {'; '.join(uncertain)}. Called fake and not uncertain: "
                f"{sure}."
            )
    return sentences


def polarity_sentences(report: dict) -> list[str]:
    """Return a sentence for each table of scores whose AUC suggests that high scores stand for genuine files."""
    rows = report["tables"][0]["rows"] if report["tables"] else []
    auc = {name: of["auc"] for row in rows[:1] for name, of in row["columns"].items()}
    return [
        f"{name}: an AUC of {auc[name]:.2f} is far below 0.5. Scores are higher for fakes; are these? Nothing was turned."
        for name, about in report["detectors"].items()
        if "scores" in about and auc.get(name) is not None and auc[name] < SUSPICIOUS_AUC
    ]


def _share(found: dict, of: str) -> str:
    if found["share"] is None:
        return f"no {of}"
    interval = ""
    if found["ci"] is not None:
        low, high = found["ci"]
        interval = f", 95 % interval {100 * low:.0f} to {100 * high:.0f} %"
    number = round(found["share"] * found["n"])
    return f"{number} of {found['n']} {of} ({100 * found['share']:.0f} %{interval})"


def _reading(report: dict) -> list[str]:
    if not report["tables"]:
        missing = "fakes" if not report["n_fake"] else "genuine files"
        return [f"There are no {missing} with scores, so there is nothing to rank."]
    one = "speaker" if report["protocol"] == "speech" else "person"
    text = [
        "An AUC of 0.5 is a coin toss. In brackets: 95 % interval, from resampling people; none for fewer than five.",
        f"Within one {one}: only a fake and a genuine recording of the same {one} are compared; the mean over those that "
        "have both. Overall figures also reward a detector that knows the sources apart.",
    ]
    known = SPEECH_PROPERTIES if report["protocol"] == "speech" else CLIP_PROPERTIES
    *names, last = (title.partition(" (")[0] for title in known.values())
    if (found := report["baseline"].get("overall", {})).get("model"):
        text.append(
            f"{BASELINE}: a classifier that sees only {', '.join(names)} and {last} ({found['model']}, fitted without the {one} it scores, mean "
            f"of {FOLD_DRAWS} draws of the folds). A detector that is no better may only know the sources."
        )
    if report["pairs"]:
        text.append(f"Matched files: {report['rule'][0].lower()}{report['rule'][1:]}")
    return text


def _dropped_sentences(report: dict) -> list[str]:
    files = {entry["path"] for entry in report["dropped"]}
    text = [f"In no figure: {count_of(len(files), 'file')}." if files else "No file was dropped."]
    if files:
        text[0] = text[0][:-1] + "; dropped.csv has each with its reason."
    if report["unmatched_scores"]:
        text.append(
            f"{count_of(len(report['unmatched_scores']), 'score')} of no file of the table; see dropped.csv."
        )
    for name, found in report["no_face"].items():
        if found:
            text.append(
                f"{name} found no face in {count_of(len(found), 'file')}: their picture has no score."
            )
    for name, found in report["cut_short"].items():
        if found:
            text.append(f"{name} judged {count_of(len(found), 'file')} that break off on what came before.")
    return text

"""The table of a report's metrics, as text and as Markdown, with the remarks that go with it."""

from __future__ import annotations

from pathlib import Path

from accelerate import PartialState

from ..explain.words import PART_NAMES
from .fingerprints import DIFFERENT, INCOMPLETE

COLUMNS = {
    "n": "n",
    "n_fake": "fake",
    "auc": "AUC",
    "ap_fake": "AP(fake)",
    "map_macro": "mAP",
    "accuracy": "accuracy",
    "prior_accuracy": "prior",
    "balanced_accuracy": "bal. acc.",
    "eer": "EER",
    "threshold": "threshold",
}
"""Columns of the table: keys of [`detection_metrics`], and their titles."""

SUSPICIOUS_AUC = 0.4
"""AUC of another program's scores below which their polarity is questioned; our own choice."""


def report_rows(report: dict, groups: bool = True) -> list[tuple[str, dict]]:
    """Return name and metrics of each row: overall, picture and sound if measured, and each kind of fake."""
    rows = [(title, report[part]) for part, title in PART_NAMES.items() if report.get(part)]
    if groups:
        rows += [
            (f"fake: {kind}", metrics) for kind, metrics in report["groups"].get("generator", {}).items()
        ]
    return rows


def number(value: float | int | None, absent: str = "-") -> str:
    """Return a metric as text: counts as they are, other numbers with four decimals."""
    if value is None:
        return absent
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def metrics_table(report: dict) -> str:
    """Return the table as aligned text for a terminal, and the remarks below it."""
    lines = [["", *COLUMNS.values()]]
    lines += [[name, *(number(metrics.get(key)) for key in COLUMNS)] for name, metrics in report_rows(report)]
    return "\n".join([*aligned(lines), "", *remarks(report)])


def aligned(lines: list[list[str]]) -> list[str]:
    """Return the lines of a table for a terminal, with a rule below its head; all but the first column to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [
        "  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    ]
    return [text[0], "-" * len(text[0]), *text[1:]]


def print_report(report: dict, folder: Path) -> None:
    """Print a report's title, table and folder; only the main process does."""
    if PartialState().is_main_process:
        print(f"\n{report['model']} on {report['dataset']}, {report['protocol']}, {report['split']}\n")
        print(f"{metrics_table(report)}\n\nPredictions and report are in {folder}.")


def markdown_table(report: dict, absent: str = "not measured") -> str:
    """Return the same rows in Markdown, for a model card."""
    shown = {key: title for key, title in COLUMNS.items() if key != "threshold"}
    lines = ["| | " + " | ".join(shown.values()) + " |", "|---|" + "---:|" * len(shown)]
    for name, metrics in report_rows(report):
        lines.append(f"| {name} | " + " | ".join(number(metrics.get(key), absent) for key in shown) + " |")
    return "\n".join(lines)


def remarks(report: dict) -> list[str]:
    """Return the sentences that a reader of the numbers has to know."""
    text = [
        "Accuracy is at the threshold; prior is the accuracy of always giving the commoner class.",
        f"Threshold of the overall verdict: {report['threshold']:.4f}, from: {report['threshold_source']}.",
    ]
    if any(metrics.get("ci") for _, metrics in report_rows(report, groups=False)):
        text.append("Intervals: 95 %, bootstrap over identities.")
    for part, title in PART_NAMES.items():
        if report.get(part) and report[part].get("undefined"):
            text.append(f"{title}: no ranking metrics, {report[part]['undefined']}.")
    if decided := report.get("decided_by"):
        text.append(
            f"The gate {report['gate']['model']} answered for {decided.get('gate', 0)} of {sum(decided.values())} clips; "
            "the scores are of two networks, each with its own temperature."
        )
    return text + outside_remarks(report) + _dropped(report) + _warnings(report)


def outside_remarks(report: dict) -> list[str]:
    """Return the sentences on scores of another program; the first is [`polarity_warning`] if there is one."""
    outside = report.get("outside")
    if not outside:
        return []
    how = outside["matched"]
    text = [
        f"Scores of another program, from the columns {outside['path_column']} and {outside['score_column']}, read as "
        f"{outside['scale']} with high scores for {outside['higher_is']}.",
        f"{outside['clips'] - outside['without_score']} of {outside['clips']} clips have a score. Of {outside['rows']} rows "
        f"{outside['unknown']} are of no clip; {outside['double']} clips have several rows; see score_rows.tsv.",
        f"{outside['rule']} Found by the path itself: {how['exact']}; one path ends with the other: {how['tail']}; only the "
        f"last parts are equal: {how['part']}; without the ending: {how.get('stem', 0)}.",
    ]
    if frames := outside.get("frames"):
        text.append(f"{frames} rows are of frames: a clip's score is the mean of the scores of its frames.")
    warning = polarity_warning(report)
    return [warning, *text] if warning else text


def polarity_warning(report: dict) -> str | None:
    """Return a sentence if an AUC far below 0.5 suggests that high scores stand for the other class; None otherwise."""
    outside, auc = report.get("outside"), (report["overall"] or {}).get("auc")
    if not outside or auc is None or auc >= SUSPICIOUS_AUC:
        return None
    given = outside["higher_is"]
    other = "real" if given == "fake" else "fake"
    return (
        f"The AUC is {auc:.4f}, far below 0.5: with high scores for {other} it would be {1 - auc:.4f}. Nothing was turned; "
        f"check the table, and give --higher-is {other} if that is what its scores mean."
    )


def _dropped(report: dict) -> list[str]:
    text = []
    if report["missing"]:
        text.append(
            f"Files of the corpus that are not on disk and in no number: {len(report['missing'])}; see dropped.txt."
        )
    if report["unreadable"] and not report.get("outside"):
        text.append(
            f"{len(report['unreadable'])} of {report['clips']} clips could not be read and are in no number; "
            "see dropped.txt."
        )
    if report["cut_short"]:
        text.append(
            f"{len(report['cut_short'])} clips break off and were judged on what came before; see dropped.txt."
        )
    if report.get("no_face"):  # reports of earlier versions lack it
        text.append(
            f"{len(report['no_face'])} of {report['clips']} clips show no face: their picture has no score; see dropped.txt."
        )
    return text


def _warnings(report: dict) -> list[str]:
    text = []
    if report["synthetic"]:
        text.append(
            "The clips are synthetic (demonstration benchmark): these are not numbers of the real corpus."
        )
    if report["notes"]:
        text.append(f"Of this copy of the corpus: {report['notes']}")
    apart = [
        f"{split}: {each['text']}"
        for split, each in (report.get("official") or {}).items()
        if each["state"] in (INCOMPLETE, DIFFERENT)
    ]
    if apart:
        text.append(f"Not the clips of the list: {'; '.join(apart)}.")
    if report["zero_shot"]:
        text.append("Zero-shot: this backbone was not trained to detect anything.")
    return text

"""Tables of a report, for a terminal and for a model card."""

from ..explain.words import PART_NAMES

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


def report_rows(report: dict, groups: bool = True) -> list[tuple[str, dict]]:
    """Name and metrics of each row: overall, picture, sound where measured, and each kind of fake."""
    rows = [(title, report[part]) for part, title in PART_NAMES.items() if report.get(part)]
    if groups:
        rows += [
            (f"fake: {kind}", metrics) for kind, metrics in report["groups"].get("generator", {}).items()
        ]
    return rows


def number(value: float | int | None, absent: str = "-") -> str:
    """A metric as text: counts as they are, the rest with four decimals."""
    if value is None:
        return absent
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def metrics_table(report: dict) -> str:
    """The report's table as text, aligned, with what has to be known to read it."""
    lines = [["", *COLUMNS.values()]]
    lines += [[name, *(number(metrics.get(key)) for key in COLUMNS)] for name, metrics in report_rows(report)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [
        "  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    ]
    text.insert(1, "-" * len(text[0]))
    return "\n".join([*text, "", *remarks(report)])


def remarks(report: dict) -> list[str]:
    """What has to be known to read a report's numbers, one sentence each."""
    text = ["Accuracy is at the threshold; prior is the accuracy of always giving the commoner class."]
    text.append(
        f"Threshold of the overall verdict: {report['threshold']:.4f}, from: {report['threshold_source']}."
    )
    interval = next((m["ci"] for _, m in report_rows(report, groups=False) if m.get("ci")), None)
    if interval:
        text.append("Intervals: 95 %, bootstrap over identities.")
    for part, title in PART_NAMES.items():
        if report.get(part) and report[part].get("undefined"):
            text.append(f"{title}: no ranking metrics, {report[part]['undefined']}.")
    if decided := report.get("decided_by"):
        text.append(
            f"The gate {report['gate']['model']} answered for {decided.get('gate', 0)} of {sum(decided.values())} clips; "
            f"the scores are of two networks, each with its own temperature."
        )
    if report["missing"]:
        text.append(
            f"Files of the corpus that are not on disk and in no number: {len(report['missing'])}; see dropped.txt."
        )
    if report["unreadable"]:
        text.append(
            f"{len(report['unreadable'])} of {report['clips']} clips could not be read and are in no number; "
            "see dropped.txt."
        )
    if report["cut_short"]:
        text.append(
            f"{len(report['cut_short'])} clips break off and were judged on what came before; see dropped.txt."
        )
    if report["synthetic"]:
        text.append(
            "The clips are synthetic (demonstration benchmark): these are not numbers of the real corpus."
        )
    if report["notes"]:
        text.append(f"Of this copy of the corpus: {report['notes']}")
    if report["zero_shot"]:
        text.append("Zero-shot: this backbone was not trained to detect anything.")
    return text


def markdown_table(report: dict, absent: str = "not measured") -> str:
    """The same rows in Markdown, for a model card."""
    shown = {key: title for key, title in COLUMNS.items() if key != "threshold"}
    lines = ["| | " + " | ".join(shown.values()) + " |", "|---|" + "---:|" * len(shown)]
    for name, metrics in report_rows(report):
        lines.append(f"| {name} | " + " | ".join(number(metrics.get(key), absent) for key in shown) + " |")
    return "\n".join(lines)

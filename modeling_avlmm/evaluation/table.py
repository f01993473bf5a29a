"""Tables of a report, for a terminal and for a model card."""

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
PARTS = {"overall": "overall", "video": "picture", "audio": "sound"}


def report_rows(report: dict) -> list[tuple[str, dict]]:
    """Name and metrics of each row: overall, picture, sound where measured, and each kind of fake."""
    rows = [(title, report[part]) for part, title in PARTS.items() if report.get(part)]
    return rows + [(f"fake: {kind}", metrics) for kind, metrics in report.get("by_generator", {}).items()]


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
    text.append("")
    text.append("Accuracy is at the threshold; prior is the accuracy of always giving the commoner class.")
    text.append(
        f"Threshold of the overall verdict: {report['threshold']:.4f}, from: {report['threshold_source']}."
    )
    for part in PARTS:
        if report.get(part) and report[part].get("undefined"):
            text.append(f"{PARTS[part]}: no ranking metrics, {report[part]['undefined']}.")
    if report["unreadable"]:
        text.append(
            f"{len(report['unreadable'])} of {report['clips']} clips could not be read and are in no number; see unreadable.txt."
        )
    if report.get("synthetic"):
        text.append(
            "The clips are synthetic (demonstration benchmark): these are not numbers of the real corpus."
        )
    if report.get("notes"):
        text.append(f"Of this copy of the corpus: {report['notes']}")
    if report.get("zero_shot"):
        text.append("Zero-shot: this backbone was not trained to detect anything.")
    return "\n".join(text)


def markdown_table(report: dict, absent: str = "not measured") -> str:
    """The same rows in Markdown, for a model card."""
    shown = {key: title for key, title in COLUMNS.items() if key != "threshold"}
    lines = ["| | " + " | ".join(shown.values()) + " |", "|---|" + "---:|" * len(shown)]
    for name, metrics in report_rows(report):
        lines.append(f"| {name} | " + " | ".join(number(metrics.get(key), absent) for key in shown) + " |")
    return "\n".join(lines)

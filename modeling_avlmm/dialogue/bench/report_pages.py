"""The report of the bench as JSON, Markdown and HTML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from dataset_scripts.files import write_whole

from ...evaluation.metrics_table import number
from ...evaluation.rendering import LISTED, Section, write_pages
from ...explain.words import count_of
from .answer_metrics import UNPARSABLE

GROUPS = {
    "Verdicts in words": {
        "verdict_asked_fake": 'right when asked "Is this clip fake?"',
        "verdict_asked_real": 'right when asked "Is this clip real?"',
        "verdict_both_ways": "right both ways",
    },
    "Technique": {"family_macro_f1": "macro F1 over families", "family_accuracy": "accuracy"},
    "Descriptions": {
        "modality": "names exactly the forged tracks (fakes)",
        "clean_when_genuine": "finds nothing (genuine clips)",
        "region_kappa": "regions, mean kappa",
        "region_balanced_accuracy": "regions, mean balanced accuracy",
        "region_f1": "regions, F1",
        "region_iou": "regions, IoU",
        "pointing_region": "pointing game: the first region named was changed",
        "pointing_region_calibrated": "pointing game beyond chance, regions",
        "strongest_region": "the first region named was changed most",
        "band_kappa": "bands, mean kappa",
        "band_balanced_accuracy": "bands, mean balanced accuracy",
        "band_f1": "bands, F1",
        "band_iou": "bands, IoU",
        "pointing_band": "pointing game: the first band named was changed",
        "pointing_band_calibrated": "pointing game beyond chance, bands",
        "time_f1": "seconds, F1",
        "time_iou": "seconds, IoU",
        "rouge_l": "ROUGE-L to one reference text",
    },
}
"""Sections of the report: the measures of each, with their names for people."""


def write_bench(report: dict, folder: Path) -> None:
    """Write `report.json`, `report.md` and `report.html`."""
    write_whole(folder / "report.json", json.dumps(report, indent=2) + "\n")
    title = f"Words of {report['model']} on {report['dataset']}, {report['protocol']}, {report['split']}"
    write_pages(title, list(bench_sections(report)), folder)


def summary(report: dict, folder: Path) -> str:
    """Return the measures of a report in a few lines, and where to find the rest."""
    lines = [
        f"{name:<26} {measure['value']:.3f}  baseline {measure['baseline']:.3f}  ({measure['n']} clips)"
        for name, measure in report["measures"].items()
        if measure["n"]
    ]
    if report["unreadable"]:
        lines.append(
            f"{count_of(len(report['unreadable']), 'clip')} could not be read; the report lists them."
        )
    lines.append(f"Written to {folder / 'report.md'}, report.html and report.json.")
    return "\n".join(lines)


def bench_sections(report: dict) -> Iterator[Section]:
    """Yield the sections of the report from top to bottom."""
    yield _verdict_section(report)
    for title, names in GROUPS.items():
        rows = [
            _row(text, report["measures"][name])
            for name, text in names.items()
            if report["measures"].get(name, {}).get("n")
        ]
        head = ["", "clips", "model", "baseline", "difference", "not readable"]
        yield Section(title, _baseline_text(title, report), head, rows)
        if title == "Technique" and report["confusion"]:
            yield confusion_section(report["confusion"])
        for kind, table in report["places"].items() if title == "Descriptions" else ():
            if table:
                yield place_section(kind, table)
    dropped = [[path, f"{error['type']}: {error['message']}"] for path, error in report["unreadable"].items()]
    text = [f"{count_of(len(dropped), 'clip')}, in none of the numbers."] if dropped else ["None."]
    yield Section("Clips that could not be read", text, ["clip", "why"] if dropped else [], dropped[:LISTED])
    rows = [[name, str(value)] for name, value in {**report["detector"], **report["environment"]}.items()]
    rows.append(["date", report["date"]])
    rows += [[f"question: {key}", text] for key, text in report["questions"].items()]
    yield Section("Provenance", head=["", ""], rows=rows, wordy=True)


def _verdict_section(report: dict) -> Section:
    if not report["writes"]:
        how = "This detector does not write: its answers are composed from its verdicts and timeline."
    elif report["context"]:
        how = "Answers were generated, and the model was told the detector's verdicts first."
    else:
        how = "Answers were generated from the clip alone."
    names = {
        "auc": "AUC",
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "prior_accuracy": "accuracy of always the commoner class",
    }
    return Section(
        "Verdict by score",
        [f"{report['asked']} of {report['clips']} clips. {how}"],
        list(names.values()),
        [[_with_ci(report["scored"], name) for name in names]],
        items=[report["notice"]] if report["notice"] else [],
    )


def confusion_section(table: dict[str, dict[str, int]]) -> Section:
    """Return the confusion table of families."""
    named = {name for row in table.values() for name in row}
    columns = [*sorted(named - {UNPARSABLE}), *([UNPARSABLE] if UNPARSABLE in named else [])]
    rows = [[true, *(str(row.get(name, 0)) for name in columns)] for true, row in table.items()]
    return Section("Families, true (rows) and named", head=["", *columns], rows=rows)


def place_section(kind: str, table: dict[str, dict]) -> Section:
    """Return the shares and the kappa of each region or band."""
    rows = [
        [name, *(number(place[key]) for key in ("changed", "named", "kappa"))]
        for name, place in table.items()
    ]
    return Section(
        f"{kind.capitalize()}s, place by place",
        ["Shares of the clips. Kappa: 1 is full agreement, 0 any answer that does not depend on the clip."],
        ["", "changed", "named", "kappa"],
        rows,
    )


def _baseline_text(title: str, report: dict) -> list[str]:
    baselines = report["baselines"]
    favour = "taken from these very clips, which favours it"
    if title == "Verdicts in words":
        return [f"Baseline: always {baselines['label']}, {favour}. An answer that cannot be read is wrong."]
    if title == "Technique":
        return [f"Baseline: always {baselines['family']}, {favour}. An answer that names no family is wrong."]
    text = f'Baseline: always the same description, {favour}: "{baselines["answers"]["description"]}"'
    chance = report["pointing_chance"]
    if chance is not None:
        text += (
            f" In the pointing game it always points at the commonest region, {baselines['region']}; pointing at random "
            f"hits {chance:.3f}."
        )
    return [
        text,
        "Regions, bands and seconds are scored on fakes that were compared with their source.",
        "An answer that does not depend on the clip has a kappa and a pointing beyond chance of 0, and a balanced accuracy "
        "of 0.5, even if it always names what is most common.",
    ]


def _row(text: str, measure: dict) -> list[str]:
    missing = measure["unparsable"]
    cells = [_with_ci(measure, name) for name in ("value", "baseline", "difference")]
    return [text, str(measure["n"]), *cells, "-" if missing is None else str(missing)]


def _with_ci(values: dict, name: str) -> str:
    interval = (values.get("ci") or {}).get(name)
    text = number(values.get(name))
    return f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval and name != "prior_accuracy" else text

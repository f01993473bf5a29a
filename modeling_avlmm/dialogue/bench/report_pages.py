"""A bench's report as JSON, Markdown and HTML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import jinja2

from ...evaluation import rendering
from ...evaluation.rendering import LISTED, Section
from ...evaluation.table import number
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


def write_bench(report: dict, folder: Path) -> None:
    """Writes `report.json`, `report.md` and `report.html`."""
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sections = list(bench_sections(report))
    title = f"Words of {report['model']} on {report['dataset']}, {report['protocol']}, {report['split']}"
    for name in ("report.md", "report.html"):
        template = (files(rendering.__package__) / "templates" / name).read_text(encoding="utf-8")
        environment = jinja2.Environment(
            autoescape=name.endswith("html"),
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        page = environment.from_string(template).render(title=title, sections=sections, folder=folder)
        (folder / name).write_text(page.rstrip() + "\n", encoding="utf-8")


def bench_sections(report: dict) -> Iterator[Section]:
    """The report from top to bottom."""
    notes = [report["notice"]] if report["notice"] else []
    told = "were told the detector's verdicts first" if report["context"] else "saw the clip only"
    who = f"Answers were generated, and {told}." if report["writes"] else (
        "This detector does not write: its answers are composed from its verdicts and timeline."
    )  # fmt: skip
    scored = report["scored"]
    yield Section(
        "Verdict by score",
        [f"{report['asked']} of {report['clips']} clips. {who}"],
        ["AUC", "accuracy", "balanced accuracy", "accuracy of always the commoner class"],
        [[_with_ci(scored, name) for name in ("auc", "accuracy", "balanced_accuracy", "prior_accuracy")]],
        items=notes,
    )
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
    text = [f"{len(dropped)} clips, in none of the numbers."] if dropped else ["None."]
    yield Section("Clips that could not be read", text, ["clip", "why"] if dropped else [], dropped[:LISTED])
    rows = [[name, str(value)] for name, value in {**report["detector"], **report["environment"]}.items()]
    rows += [
        ["date", report["date"]],
        *([f"question: {key}", text] for key, text in report["questions"].items()),
    ]
    yield Section("Provenance", head=["", ""], rows=rows)


def confusion_section(table: dict[str, dict[str, int]]) -> Section:
    """Which family is called which."""
    named = {name for row in table.values() for name in row}
    columns = [*sorted(named - {UNPARSABLE}), *([UNPARSABLE] if UNPARSABLE in named else [])]
    rows = [[true, *(str(row.get(name, 0)) for name in columns)] for true, row in table.items()]
    return Section("Families, true (rows) and named", head=["", *columns], rows=rows)


def place_section(kind: str, table: dict[str, dict]) -> Section:
    """How often each region, or band, was changed and named, and how far the two agree."""
    rows = [
        [name, *(number(place[key]) for key in ("changed", "named", "kappa"))]
        for name, place in table.items()
    ]
    return Section(
        f"{kind.capitalize()}s, place by place",
        [
            "Shares of the clips. Kappa: 1 is full agreement, 0 what an answer has that does not depend on the clip."
        ],
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
        "Kappa and pointing beyond chance are 0, and balanced accuracy 0.5, for any answer that does not depend on the "
        "clip, however common what it names.",
    ]


def _row(text: str, measure: dict) -> list[str]:
    missing = measure["unparsable"]
    cells = [_with_ci(measure, name) for name in ("value", "baseline", "difference")]
    return [text, str(measure["n"]), *cells, "-" if missing is None else str(missing)]


def _with_ci(values: dict, name: str) -> str:
    interval = (values.get("ci") or {}).get(name)
    text = number(values.get(name))
    return f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval and name != "prior_accuracy" else text


__all__ = ["bench_sections", "write_bench"]

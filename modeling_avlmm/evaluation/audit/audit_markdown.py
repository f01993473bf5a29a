"""The audit as Markdown: the findings first, then every number."""

from __future__ import annotations

from .summary import KINDS

TOP, TOP_OF_KIND = 8, 3
"""Number of properties besides the flagged ones, for all clips and for a kind of fake; audit.json has all."""
PROPERTY_HEAD = [
    "property",
    "AUC",
    "95 %",
    "simultaneous lower end",
    "train to test",
    "in-sample AUC",
    "real",
    "fake",
]


def audit_markdown(report: dict) -> str:
    """Return an audit, as written to `audit.json`, in Markdown."""
    lines = [f"# Audit of {report['dataset']}, protocol {report['protocol']}", ""]
    if report["synthetic"]:
        lines += [
            "The clips are synthetic (demonstration benchmark): this says nothing of the real corpus.",
            "",
        ]
    lines += _summary(report) + _splits(report) + _shortcuts(report) + _trimming(report)
    lines += _leaks(report) + _duplicates(report) + _unreadable(report)
    return "\n".join(lines) + "\n"


def _table(head: list[str], rows: list[list]) -> list[str]:
    return [_line(head), "|" + "---|" * len(head), *map(_line, rows), ""]


def _line(cells: list) -> str:
    # A bar inside a cell would start another.
    text = ("-" if cell is None else str(cell).replace("|", "\\|") for cell in cells)
    return "| " + " | ".join(text) + " |"


def _summary(report: dict) -> list[str]:
    if not report["summary"]:
        return ["Nothing was found: no shortcut in the files, nothing shared by the splits.", ""]
    return [*(f"- {text[0].upper()}{text[1:]}" for text in report["summary"]), ""]


def _splits(report: dict) -> list[str]:
    rows = [[name, *split.values()] for name, split in report["splits"].items()]
    lines = ["## Clips", "", *_table(["split", "clips", "real", "fake", "looked at", "read"], rows)]
    if report["limit_clips"] is not None:
        lines += [
            f"Files: a sample of {report['limit_clips']} clips of each class and split (seed {report['seed']}). "
            "Duplicates among the others were not looked for.",
            "",
        ]
    return lines


def _shortcuts(report: dict) -> list[str]:
    found = report["shortcuts"]
    lines = [
        "## Shortcuts",
        "",
        "AUC of file properties alone, on clips the score was not fitted to (folds and bootstrap by identity, or by genuine "
        f"clip). **Flagged**: AUC above {found['limit']:g}, and the lower end of the interval that holds at 95 % for all "
        f"{found['tests']} tests of this table together is above 0.5. In-sample AUC is that of the bare value, the larger "
        "of AUC and 1 - AUC. Real and fake: medians, or the commonest value with its share. A held-out AUC below 0.5 means "
        "that nothing learnt carries over; among clips that come in pairs of real and fake it can be well below.",
        "",
    ]
    # Flagged scopes first, all clips before kinds of fake among equals.
    for scope in sorted(found["scopes"], key=lambda scope: not _flagged(scope)):
        lines += _scope(scope)
    return lines


def _scope(scope: dict) -> list[str]:
    of_all = scope["name"] == "all"
    title = "All clips" if of_all else f"Fakes of {scope['name']}"
    lines = [f"### {title} ({scope['n_real']} real, {scope['n_fake']} fake)", ""]
    if "undefined" in scope:
        return [*lines, f"Not measured: {scope['undefined']}.", ""]
    rows = [
        [_mark(entry, f"all together, {name}"), *_numbers(entry), None, None, None]
        for name, entry in scope["combined"].items()
    ]
    entries = scope["properties"]
    flagged = [entry for entry in entries if entry["flagged"]]
    top = TOP if of_all else TOP_OF_KIND
    for entry in flagged + [entry for entry in entries if not entry["flagged"]][:top]:
        rank = entry["rank_auc"]
        rank = None if rank is None else f"{rank:.3f} (larger in {entry['larger_in']})"
        cells = [_mark(entry, entry["title"]), *_numbers(entry), rank]
        rows.append([*cells, _value(entry["real"]), _value(entry["fake"])])
    lines += _table(PROPERTY_HEAD, rows)
    left = len(entries) - len(flagged) - top
    if left > 0:
        lines += [f"{left} more properties are not flagged; `audit.json` has them.", ""]
    if scope["constant"] and of_all:
        lines += [f"The same in all clips: {', '.join(scope['constant'])}.", ""]
    return lines


def _flagged(scope: dict) -> bool:
    return any(entry["flagged"] for entry in [*scope["properties"], *scope["combined"].values()])


def _mark(entry: dict, title: str) -> str:
    return f"**{title}**" if entry["flagged"] else title


def _numbers(entry: dict) -> list[str | None]:
    across = entry["train_to_test"]
    return [
        f"{entry['auc']:.3f}",
        "{:.3f} to {:.3f}".format(*entry["ci"]),
        f"{entry['lower']:.3f}",
        None if across is None else f"{across:.3f}",
    ]


def _value(entry: dict) -> str:
    value, share = entry["value"], f"{entry['share']:.0%}"
    if isinstance(value, float):
        return f"{value:.6g}" + ("" if entry["share"] == 1 else f" ({share} known)")
    return f"{value or 'none'} ({share})"


def _trimming(report: dict) -> list[str]:
    trimming = report["shortcuts"]["trimming"]
    if trimming is None:
        return []
    rows = []
    for name, title in (
        ("leading_silence", "leading silence"),
        ("leading_digital_silence", "digital silence alone"),
    ):
        rows.append([title, *(f"{trimming[name][when]['auc']:.3f}" for when in ("before", "after"))])
    seconds = trimming["seconds"]
    return [
        "## Leading silence",
        "",
        "Held-out AUC of the silence before the sound starts, without and with `trim_leading_silence`. Trimmed: "
        + ", ".join(
            f"{name} {s['median']:.3f} s (median), {s['max']:.3f} s (most)" for name, s in seconds.items()
        )
        + ".",
        "",
        *_table(["AUC", "before trimming", "after"], rows),
    ]


def _clips(clips: dict) -> str:
    return ", ".join(
        f"{split}: `{path[0] if isinstance(path, list) else path}`" for split, path in clips.items()
    )


def _leaks(report: dict) -> list[str]:
    lines = ["## Shared by several splits, according to the table", ""]
    rows = []
    for kind in KINDS:
        leak = report["leaks"][kind]
        rows.append(
            [kind, leak["count"] if leak["known"] or leak["count"] else "not known", leak["clips"] or None]
        )
    lines += _table(["", "in more than one split", "clips of them"], rows)
    for kind in KINDS:
        for example in report["leaks"][kind]["examples"][:5]:
            lines.append(f"- {kind}: {example['name']} ({_clips(example['clips'])})")
    return [*lines, ""]


def _duplicates(report: dict) -> list[str]:
    found = report["duplicates"]
    comparable, limits = found["comparable"], found["thresholds"]
    rows = [
        [f"same {kind}", exact["count"], exact["real_fake"], exact["count"] - exact["real_fake"]]
        for kind, exact in found["exact"].items()
    ]
    for kind, near in found["near"]["kinds"].items():
        rows.append([f"near: {kind}", sum(near.values()), near["real_fake"], near["same_label"]])
    lines = [
        "## Duplicates across splits",
        "",
        f"Same: equal SHA-256 of the file, or of its decoded picture or sound. Near: up to {limits['picture']:.0%} of the bits "
        f"of the frames' hashes, or {limits['sound']:.0%} of the sound's, differ. Of {comparable['clips']} clips, "
        f"{comparable['picture']} have a picture and {comparable['sound']} a sound that can be compared; the others are flat, "
        "silent or without that track.",
        "",
        *_table(["", "groups or pairs", "real with fake", "of one label"], rows),
    ]
    for kind, exact in found["exact"].items():
        lines += [f"- same {kind}: {_clips(example['clips'])}" for example in exact["examples"][:5]]
    for example in found["near"]["examples"][:10]:
        distances = [
            f"{name} {example[name]:.0%}" for name in ("picture", "sound") if example[name] is not None
        ]
        lines.append(f"- near ({example['kind']}; {', '.join(distances)}): {_clips(example['clips'])}")
    conflicting = found["conflicting"]
    lines += [f"- one file, both labels: {', '.join(paths)}" for paths in conflicting["examples"][:5]]
    return [*lines, ""]


def _unreadable(report: dict) -> list[str]:
    if not report["unreadable"]:
        return []
    lines = ["## Files that could not be read", "", f"{len(report['unreadable'])}, in no number above.", ""]
    return lines + [f"- `{path}`: {error['message']}" for path, error in report["unreadable"].items()]

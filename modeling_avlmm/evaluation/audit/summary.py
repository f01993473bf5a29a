"""The findings of an audit, one sentence each."""

from __future__ import annotations

from ...explain.words import count_of

KINDS = {
    "identities": "identities",
    "sources": "genuine clips, with the fakes made from them,",
    "donors": "donors",
}
"""Kinds of leaks between splits, and their words in a sentence."""
DUPLICATES = {
    "file": "files (the same bytes)",
    "video": "pictures (frame by frame)",
    "audio": "sounds (sample by sample)",
}
"""Kinds of exact duplicates, and their words in a sentence."""


def audit_summary(report: dict) -> list[str]:
    """
    Return what is wrong with a dataset, one sentence each: "file size alone separates real from fake ...".

    Args:
        report (`dict`): As returned by [`audit_dataset`] or read from `audit.json`.

    Returns:
        `list[str]`: sentences, worst first; empty if nothing was found.
    """
    lines = _shortcuts(report) + _leaks(report) + _duplicates(report)
    if report["unreadable"]:
        lines.append(
            f"{count_of(len(report['unreadable']), 'file')} could not be read (in no number of the audit)."
        )
    return lines


def found_anything(report: dict) -> bool:
    """Return whether an audit found a shortcut, a leak or a duplicate."""
    return bool(_shortcuts(report) or _leaks(report) or _duplicates(report))


def _shortcuts(report: dict) -> list[str]:
    lines = []
    named = set()
    for scope in report["shortcuts"]["scopes"]:
        fakes = "fake" if scope["name"] == "all" else f"fakes of {scope['name']}"
        flagged = [entry for entry in scope["properties"] if entry["flagged"]]
        # What holds for all fakes need not be repeated for each kind.
        for entry in flagged:
            if entry["name"] not in named:
                title = entry["title"].partition(" (")[0]
                lines.append(
                    f"{title} alone separates real from {fakes} with a held-out AUC of {_auc(entry)}."
                )
        if scope["name"] == "all":
            named.update(entry["name"] for entry in flagged)
        models = [(name, entry) for name, entry in scope["combined"].items() if entry["flagged"]]
        if models and (scope["name"] == "all" or "all models" not in named):
            name, entry = max(models, key=lambda pair: pair[1]["auc"])
            lines.append(
                f"All file properties together separate real from {fakes}: {name}, AUC {_auc(entry)}."
            )
            if scope["name"] == "all":
                named.add("all models")
    trimming = report["shortcuts"]["trimming"]
    if trimming and {"leading_silence", "leading_digital_silence"} & named:
        before, after = (trimming["leading_silence"][when]["auc"] for when in ("before", "after"))
        lines.append(
            f"Train and test with trim_leading_silence: it takes the AUC of the leading silence from {before:.3f} to "
            f"{after:.3f}."
        )
    return lines


def _leaks(report: dict) -> list[str]:
    found = [(words, report["leaks"][kind]) for kind, words in KINDS.items()]
    return [
        f"{leak['count']:,} {words} are in more than one split, such as {leak['examples'][0]['name']}."
        for words, leak in found
        if leak["count"]
    ]


def _duplicates(report: dict) -> list[str]:
    duplicates = report["duplicates"]
    lines = [
        f"{found['count']:,} {DUPLICATES[kind]} are in more than one split, {found['real_fake']:,} of them as real and as "
        "fake."
        for kind, found in duplicates["exact"].items()
        if found["count"]
    ]
    near = duplicates["near"]
    if near["count"]:
        mixed = sum(kind["real_fake"] for kind in near["kinds"].values())
        lines.append(
            f"{near['count']:,} pairs of clips of different splits are nearly the same in picture or sound, {mixed:,} of "
            "them a real and a fake one."
        )
    if duplicates["conflicting"]["count"]:
        lines.append(f"{duplicates['conflicting']['count']:,} files are listed both as real and as fake.")
    return lines


def _auc(entry: dict) -> str:
    low, high = entry["ci"]
    return f"{entry['auc']:.2f} (95 % interval {low:.2f} to {high:.2f})"

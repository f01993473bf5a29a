"""The audit of a dataset: can a detector score well on it without looking or listening, and do its splits hold?

A benchmark whose fakes were all written by another encoder, or begin with a silence, gives high scores to whoever
notices that; one whose splits share people or clips gives them to whoever remembers. Both are found here, before a
number is believed.
"""

import datetime
import json
from pathlib import Path

from dataset_scripts.demonstration import is_demonstration
from dataset_scripts.splits import stable_order

from ...inference.provenance import environment
from .duplicates import find_duplicates, split_leaks
from .file_properties import AuditError, check_tools, read_properties
from .shortcuts import DEFAULT_LIMIT, find_shortcuts
from .summary import KINDS, audit_markdown


def audit_dataset(
    splits: dict,
    cache_file: str | Path,
    limit_clips: int | None = None,
    num_workers: int = 0,
    limit: float = DEFAULT_LIMIT,
    seed: int = 0,
) -> dict:
    """
    Looks for shortcuts in the files, for leaks between the splits and for duplicates.

    Args:
        splits (`dict` of name to `Dataset` or rows): The splits of a protocol, in the package's schema.
        cache_file (`str` or `Path`): Where properties of files are kept; an audit that was stopped goes on from it.
        limit_clips (`int`, *optional*):
            Look at the files of this many clips of each class and split, drawn by `seed` and the clip's `path`. What the
            table says of identities and sources is always checked over all clips.
        num_workers (`int`, *optional*, defaults to 0): Processes that read files.
        limit (`float`, *optional*, defaults to 0.6): Held-out AUC above which a property is a shortcut.
        seed (`int`, *optional*, defaults to 0): Of the draw.

    Returns:
        `dict`: `splits` (clips, looked at, read), `unreadable` (by path), `shortcuts` ([`find_shortcuts`]), `leaks`
        ([`split_leaks`]), `duplicates` ([`find_duplicates`]), `found` (whether anything is wrong), `summary`
        ([`audit_summary`]), `limit_clips`, `seed`.

    Raises:
        AuditError: where FFmpeg's tools are missing, or not one file can be read.
    """
    check_tools()
    tables = {name: _rows(split) for name, split in splits.items()}
    drawn = {name: _draw(rows, limit_clips, seed) for name, rows in tables.items()}
    unique = {row["path"]: row for rows in drawn.values() for row in rows}
    print(f"looking at {len(unique)} files", flush=True)
    records, errors = read_properties(list(unique.values()), cache_file, num_workers)
    if not records:
        first = next(iter(errors.values()))["message"] if errors else "the splits are empty"
        raise AuditError(f"None of the {len(unique)} files could be read. {first}")
    report = {
        "splits": {
            name: {
                "clips": len(rows),
                "real": sum(row["label"] == 0 for row in rows),
                "fake": sum(row["label"] == 1 for row in rows),
                "looked_at": len(drawn[name]),
                "read": sum(row["path"] in records for row in drawn[name]),
            }
            for name, rows in tables.items()
        },
        "limit_clips": limit_clips,
        "seed": seed,
        "unreadable": errors,
        "shortcuts": find_shortcuts(drawn, records, limit),
        "leaks": split_leaks(tables),
        "duplicates": find_duplicates(drawn, records),
    }
    report["found"] = bool(_shortcut_lines(report) or _leak_lines(report))
    report["summary"] = audit_summary(report)
    return report


def write_audit(report: dict, about: dict, output_dir: str | Path) -> dict:
    """Writes `audit.json` and `audit.md`; `about` (dataset, protocol, ...) comes first in both."""
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    report = {**about, **report, "environment": environment(), "date": date}
    (output_dir / "audit.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (output_dir / "audit.md").write_text(audit_markdown(report), encoding="utf-8")
    return report


def about_corpus(dataset: str, protocol: str, data_dir: str | Path) -> dict:
    """What an audit is of."""
    return {"dataset": dataset, "protocol": protocol, "synthetic": is_demonstration(data_dir)}


def audit_summary(report: dict) -> list[str]:
    """
    What is wrong with a dataset, one line each, for other reports: "file size alone separates real from fake ...".

    Args:
        report (`dict`): As returned by [`audit_dataset`] or read from `audit.json`.

    Returns:
        `list[str]`: sentences, worst first; empty where nothing was found.
    """
    lines = _shortcut_lines(report) + _leak_lines(report)
    if report["unreadable"]:
        lines.append(
            f"{len(report['unreadable'])} files could not be read and are in no number of the audit."
        )
    return lines


def _shortcut_lines(report: dict) -> list[str]:
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


def _leak_lines(report: dict) -> list[str]:
    lines = []
    for kind, words in KINDS.items():
        leak = report["leaks"][kind]
        if leak["count"]:
            lines.append(
                f"{leak['count']:,} {words} are in more than one split, such as {leak['examples'][0]['name']}."
            )
    duplicates = report["duplicates"]
    words = {
        "file": "files (the same bytes)",
        "video": "pictures (frame by frame)",
        "audio": "sounds (sample by sample)",
    }
    for kind, found in duplicates["exact"].items():
        if found["count"]:
            lines.append(
                f"{found['count']:,} {words[kind]} are in more than one split, {found['real_fake']:,} of them as real "
                "and as fake."
            )
    near = duplicates["near"]
    if near["count"]:
        mixed = sum(kind["real_fake"] for kind in near["kinds"].values())
        lines.append(
            f"{near['count']:,} pairs of clips of different splits are nearly the same in picture or sound, {mixed:,} of "
            "them a real and a fake one."
        )
    if duplicates["conflicting"]["count"]:
        lines.append(f"{duplicates['conflicting']['count']:,} files are there both as real and as fake.")
    return lines


def _auc(entry: dict) -> str:
    low, high = entry["ci"]
    return f"{entry['auc']:.2f} (95 % interval {low:.2f} to {high:.2f})"


def _rows(split) -> list[dict]:
    if hasattr(split, "column_names"):
        from datasets import Video

        split = split.cast_column("video", Video(decode=False)) if "video" in split.column_names else split
    return list(split)


def _draw(rows: list[dict], number: int | None, seed: int) -> list[dict]:
    if number is None:
        return rows
    chosen = set()
    for label in (0, 1):
        paths = [row["path"] for row in rows if row["label"] == label]
        chosen.update(stable_order(paths, seed)[:number])
    return [row for row in rows if row["path"] in chosen]

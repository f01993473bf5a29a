"""The audit of a dataset, for shortcuts in its files and leaks between its splits.

If all fakes of a benchmark were written by another encoder, or begin with a silence, a detector scores well by noticing
just that. If its splits share people or clips, it scores well by remembering. The audit finds both before anyone
believes a number.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset, Video

from dataset_scripts.demonstration import is_demonstration
from dataset_scripts.files import write_whole
from dataset_scripts.splits import stable_order

from ...inference.provenance import environment
from .audit_markdown import audit_markdown
from .duplicates import find_duplicates, split_leaks
from .file_properties import AuditError, check_tools
from .property_jobs import read_properties
from .shortcuts import DEFAULT_LIMIT, find_shortcuts
from .summary import audit_summary, found_anything


def audit_dataset(
    splits: Mapping[str, Dataset | list[dict]],
    cache_file: str | Path,
    limit_clips: int | None = None,
    num_workers: int = 0,
    limit: float = DEFAULT_LIMIT,
    seed: int = 0,
) -> dict:
    """
    Look for shortcuts in the files, leaks between the splits, and duplicates.

    Args:
        splits (`dict` of name to `Dataset` or rows): The splits of a protocol, in the package's schema.
        cache_file (`str` or `Path`): Journal of file properties; an audit that was stopped resumes from it.
        limit_clips (`int`, *optional*):
            Read the files of this many clips of each class and split, drawn by `seed` and the clip's `path`. Identities
            and sources in the table are always checked over all clips.
        num_workers (`int`, *optional*, defaults to 0): Processes that read files.
        limit (`float`, *optional*, defaults to 0.6): Held-out AUC above which a property is a shortcut.
        seed (`int`, *optional*, defaults to 0): Seed of the draw.

    Returns:
        `dict`: `splits` (clips, looked at, read), `unreadable` (by path), `shortcuts` ([`find_shortcuts`]), `leaks`
        ([`split_leaks`]), `duplicates` ([`find_duplicates`]), `found` (whether anything is wrong), `summary`
        ([`audit_summary`]), `limit_clips`, `seed`.

    Raises:
        AuditError: if FFmpeg's tools are missing, or no file can be read.
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
    report["found"] = found_anything(report)
    report["summary"] = audit_summary(report)
    return report


def write_audit(report: dict, about: dict, output_dir: str | Path) -> dict:
    """Write `audit.json` and `audit.md`, with `about` (dataset, protocol, ...) first, and return what was written."""
    output_dir = Path(output_dir)
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    report = {**about, **report, "environment": environment(), "date": date}
    write_whole(output_dir / "audit.json", json.dumps(report, indent=2) + "\n")
    write_whole(output_dir / "audit.md", audit_markdown(report))
    return report


def about_corpus(dataset: str, protocol: str, data_dir: str | Path) -> dict:
    """Return the facts about a corpus that an audit begins with."""
    return {"dataset": dataset, "protocol": protocol, "synthetic": is_demonstration(data_dir)}


def _rows(split: Dataset | list[dict]) -> list[dict]:
    if isinstance(split, Dataset) and "video" in split.column_names:
        split = split.cast_column("video", Video(decode=False))
    return list(split)


def _draw(rows: list[dict], number: int | None, seed: int) -> list[dict]:
    if number is None:
        return rows
    chosen = set()
    for label in (0, 1):
        paths = [row["path"] for row in rows if row["label"] == label]
        chosen.update(stable_order(paths, seed)[:number])
    return [row for row in rows if row["path"] in chosen]

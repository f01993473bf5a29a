"""The folder of an export: its manifest, its files, and the continuation of a stopped export.

Every file is written whole or not at all. The manifest is written first, with hashes of the content, so that nothing
else is ever mixed in, and again at the end, with the counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from pathlib import Path

from tqdm import tqdm

from ..files import is_partial, write_whole, written_whole
from ..json_lines import JSONLines, read_json_lines
from ..run_lock import HOLDER, LOCK
from .dataset_card import DATA, Card, listings, package_version
from .plan import ExportError, Plan, Shard
from .shards import FORMATS, webdataset_features, write_shard

MANIFEST = "export.json"
PUBLISHED = ("README.md", MANIFEST, "missing_files.txt", "unreadable_files.txt", DATA)
_PROGRESS = ".export-progress.jsonl"  # one line per finished file, until the manifest has them all
_OURS = {*PUBLISHED, _PROGRESS, LOCK, HOLDER, ".cache", ".gitattributes"}


def open_folder(output: Path) -> dict | None:
    """Return the manifest of an earlier export in `output`, or None if the folder is new or empty.

    Raises:
        [`ExportError`]: the folder holds something else.
    """
    if output.exists() and not output.is_dir():
        raise ExportError(f"{output} is a file: give a folder.")
    names = {path.name for path in output.iterdir() if not is_partial(path)} if output.exists() else set()
    strangers = names - _OURS
    path = output / MANIFEST
    if MANIFEST not in names:
        # A run that was killed before it wrote its manifest leaves no more than this.
        strangers |= names - {DATA, LOCK, HOLDER}
        if (output / DATA).exists():
            strangers |= {f"{DATA}/{path.name}" for path in (output / DATA).iterdir()}
    if strangers:
        raise ExportError(
            f"{output} holds something else ({', '.join(sorted(strangers)[:3])}): give an empty folder, or that of "
            "an earlier export."
        )
    if MANIFEST not in names:
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["settings"]["layout"], manifest["fingerprints"]["rows"], manifest["complete"]
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path} is not the manifest of an export: give an empty folder.") from error
    return manifest


def compare(output: Path, manifest: dict, settings: dict, fingerprints: dict, clips: int) -> None:
    """Raise [`ExportError`] if the export in the folder is of something else."""
    earlier = manifest["settings"]
    differing = [
        f"{name} was {earlier.get(name)!r} and is {settings.get(name)!r}"
        for name in dict.fromkeys([*settings, *earlier])
        if earlier.get(name) != settings.get(name)
    ]
    if differing:
        raise ExportError(
            f"{output} has another export: {'; '.join(differing)}. Give the same settings, or an empty folder."
        )
    if manifest["fingerprints"]["rows"] != fingerprints["rows"]:
        raise ExportError(
            f"The corpus has changed since the export in {output} was started: other clips, labels or splits "
            f"({manifest['clips']:,} clips then, {clips:,} now). Restore it, or take an empty folder."
        )
    if manifest["fingerprints"]["media"] != fingerprints["media"]:
        raise ExportError(
            f"Media files have changed their size, or became unreadable, since the export in {output} was started. "
            "Restore them, or take an empty folder."
        )


def start(output: Path, names: Collection[str], manifest: dict) -> None:
    """Write the manifest, and remove what a killed run left unfinished.

    Args:
        output (`Path`): The folder.
        names (`Collection[str]`): The files that the export will have.
        manifest (`dict`): The result of [`open_folder`], or a new one.

    Raises:
        [`ExportError`]: the data folder has other files; `load_dataset` would read them as well.
    """
    partial = [path for folder in (output, output / DATA) for path in folder.iterdir() if is_partial(path)]
    foreign = {path.name for path in (output / DATA).iterdir()} - {path.name for path in partial} - set(names)
    if foreign:
        raise ExportError(
            f"{output / DATA} has files that are no part of this export: {', '.join(sorted(foreign)[:3])}. Remove "
            "them, or take an empty folder."
        )
    for path in partial:
        path.unlink()
    if not (output / MANIFEST).exists():
        write_whole(output / MANIFEST, _json(manifest))


def write_shards(
    output: Path, plan: Plan, format: str, manifest: dict, max_unreadable: float
) -> dict[str, dict]:
    """Write the files that are not there yet, and return shard name -> record of its content."""
    earlier = _progress(output, manifest)
    done: dict[str, dict] = {}
    clips = sum(len(shard.clips) for shard in plan.shards)
    total = sum(sum(clip.sizes) for shard in plan.shards for clip in shard.clips)
    seen = 0
    # `disable=None`: no bar if the output is not a terminal.
    with tqdm(
        total=total, unit="B", unit_scale=True, desc=manifest["settings"]["dataset"], disable=None
    ) as bar:

        def advance(size: int) -> None:
            nonlocal seen
            seen += 1
            bar.set_postfix_str(f"{seen:,} of {clips:,} clips", refresh=False)
            bar.update(size)

        for shard in plan.shards:
            path = output / DATA / f"{shard.name}{FORMATS[format]}"
            record = earlier.get(shard.name)
            if record is not None and _is_whole(path, record):
                for clip in shard.clips:
                    advance(sum(clip.sizes))
            else:
                record = _write_shard(output, path, plan, shard, format, advance)
                if record["unreadable"]:
                    check_unreadable(plan, max_unreadable)
            done[shard.name] = record
    return done


def _is_whole(path: Path, record: dict) -> bool:
    """Return whether a file is complete. One that lacks unreadable clips is not: they may be readable now."""
    return not record["unreadable"] and path.is_file() and path.stat().st_size == record["bytes"]


def _write_shard(
    output: Path, path: Path, plan: Plan, shard: Shard, format: str, advance: Callable[[int], None]
) -> dict:
    with written_whole(path) as partial:
        with open(partial, "wb") as file:
            written = write_shard(format, file, shard.clips, plan.features, advance)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        record = {"bytes": size if written.rows else 0, **vars(written)}
        # First the line, then the name: a file that has its name is always recorded.
        with JSONLines(output / _PROGRESS) as journal:
            journal.append({"name": shard.name, **record}, sync=True)
    if not written.rows:
        path.unlink()
    return record


def _progress(output: Path, manifest: dict) -> dict[str, dict]:
    """Return the records of an earlier run's files."""
    finished = {record.pop("name"): record for record in read_json_lines(output / _PROGRESS)}
    return {**manifest.get("files", {}), **finished}


def finish(
    output: Path,
    plan: Plan,
    format: str,
    manifest: dict,
    done: dict[str, dict],
    license: str | None,
    push_to: str | None,
) -> None:
    """Write the card, the lists and the manifest."""
    features = None
    if format == "webdataset":
        suffixes = [
            sorted({suffix for record in done.values() for suffix in record["suffixes"].get(column, ())})
            for column in ("video", "audio")
        ]
        features = webdataset_features(plan.features, *suffixes)
    settings = manifest["settings"]
    chosen = ", ".join(f"{name}={value}" for name, value in settings["config"].items())
    card = Card(
        plan,
        name=push_to or output.name,
        format=format,
        features=features,
        sizes={name: record["bytes"] for name, record in done.items()},
        license=license,
        provenance={
            "made by": f"`python -m modeling_avlmm export` of modeling-avlmm {package_version()}",
            "builder": f"`{settings['dataset']}`" + (f" with {chosen}" if chosen else ""),
            "date": manifest["started"],
            "fingerprint of rows": f"`{manifest['fingerprints']['rows'][:16]}`",
        },
    )
    write_whole(output / "README.md", card.render())
    for name, content in listings(plan).items():
        if content is None:
            (output / name).unlink(missing_ok=True)
        else:
            write_whole(output / name, content)
    unreadable = sum(clip.unreadable is not None for clip in plan.clips)
    whole = {
        **manifest,
        "complete": True,
        "unreadable": unreadable,
        "missing": len(plan.missing),
        "refused": plan.refused,
        "cells": plan.cells,
        "files": done,
    }
    write_whole(output / MANIFEST, _json(whole))
    (output / _PROGRESS).unlink(missing_ok=True)


def check_unreadable(plan: Plan, max_unreadable: float) -> None:
    """Raise [`ExportError`] if more clips than allowed could not be read so far."""
    unreadable = [clip for clip in plan.clips if clip.unreadable is not None]
    if len(unreadable) > max_unreadable * len(plan.clips):
        listed = "; ".join(f"{clip.row['path']}: {clip.unreadable}" for clip in unreadable[:3])
        raise ExportError(
            f"{len(unreadable):,} of {len(plan.clips):,} clips cannot be read ({listed}). That is more than "
            f"max_unreadable={max_unreadable:g} allows. Restore them, or pass a larger max_unreadable."
        )


def _json(value: dict) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"

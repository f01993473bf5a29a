"""Measuring many files, in several processes, with a journal that a stopped audit resumes from."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from functools import partial
from pathlib import Path

from dataset_scripts.json_lines import JSONLines

from ...inference.reader_process import limits_in_use, start_worker
from ...media import MediaError
from ...media_sources import faults_of
from ..pace import telling_pace
from .file_properties import AuditError, file_properties

RECORD_VERSION = 2
"""Part of a record's key. Raise it when the measured properties change, so that old records are ignored."""


def read_properties(
    rows: list[dict],
    cache_file: str | Path,
    num_workers: int = 0,
    progress_seconds: float = 10.0,
    measure: Callable[[str | None, str | None], dict] = file_properties,
) -> tuple[dict[str, dict], dict[str, dict]]:
    """
    Measure many clips; files that haven't changed since are taken from the cache.

    Args:
        rows (`list[dict]`): Rows of a dataset with undecoded `video`, each `path` once.
        cache_file (`str` or `Path`): A journal of JSON lines, written clip by clip.
        num_workers (`int`, *optional*, defaults to 0): Processes; 0 reads in this one.
        progress_seconds (`float`, *optional*, defaults to 10): Time between progress lines.
        measure (`Callable`, *optional*, defaults to [`file_properties`]):
            Takes the paths of clip and separate sound, and returns the properties; a function of a module. A cache is for
            one such function.

    Returns:
        `tuple[dict, dict]`: by `path`, the properties of files that could be read, and
        `{"type", "message"}` of those that could not.

    Raises:
        AuditError: if a process that reads files was killed.
    """
    found, waiting = {}, []
    with JSONLines(cache_file, ("key", "record", "error")) as journal:
        known = {entry["key"]: entry for _, entry in journal}
        for row in rows:
            files = _files(row)
            key = _key(files)
            if key in known:
                found[row["path"]] = known[key]
            else:
                waiting.append((row["path"], key, files))
        measured = _measured(waiting, num_workers, partial(_measure, measure))
        for path, entry in telling_pace(measured, len(waiting), "files", progress_seconds):
            journal.append(entry)
            found[path] = entry
    ordered = {row["path"]: found[row["path"]] for row in rows}
    records = {path: entry["record"] for path, entry in ordered.items() if entry["record"] is not None}
    errors = {path: entry["error"] for path, entry in ordered.items() if entry["record"] is None}
    return records, errors


def _files(row: dict) -> tuple[str | None, str | None]:
    video = row["video"]["path"] if isinstance(row["video"], dict) else row["video"]
    return video, row.get("audio")


def _key(files: tuple[str | None, str | None]) -> str:
    """Return a key of version, and path, size and modification time of each file."""
    parts = []
    for path in files:
        if path is not None and os.path.exists(path):
            state = os.stat(path)
            parts.append([os.path.abspath(path), state.st_size, state.st_mtime_ns])
        else:
            parts.append([path])
    return json.dumps([RECORD_VERSION, *parts])


def _measured(
    waiting: list[tuple], num_workers: int, measure: Callable[[tuple], tuple[str, dict]]
) -> Iterator[tuple[str, dict]]:
    if not waiting:
        return
    if num_workers < 1:
        yield from map(measure, waiting)
        return
    # Spawned: a fork after torch or FFmpeg started threads may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(num_workers, len(waiting)),
        mp_context=context,
        initializer=start_worker,
        initargs=(limits_in_use(),),
    )
    try:
        with pool:
            yield from pool.map(measure, waiting, chunksize=4)
    except BrokenExecutor as error:
        raise AuditError(
            "A process that reads files was killed, most likely for want of memory. Start again with fewer "
            "--num-workers; what was read so far is kept."
        ) from error


def _measure(measure: Callable[[str | None, str | None], dict], job: tuple) -> tuple[str, dict]:
    path, key, files = job
    try:
        with faults_of(path):
            return path, {"key": key, "record": measure(*files), "error": None}
    except MediaError as error:
        said = {"type": type(error).__name__, "message": str(error)}
        return path, {"key": key, "record": None, "error": said}

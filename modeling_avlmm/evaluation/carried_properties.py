"""Properties of clips' files that predictions carry, so that what they alone reach can be told without the files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import datasets
from accelerate import PartialState
from accelerate.utils import gather_object

from .audit.property_jobs import read_properties
from .measured_properties import CLIP_PROPERTIES, SPEECH_PROPERTIES, clip_properties, speech_properties
from .predictions import PROPERTIES, journals, read_predictions, write_predictions

JOURNAL = "properties"
"""Beginning of the names of the journals of a run that was stopped, beside its predictions."""
TOLD_SECONDS = 60.0
"""Time between progress lines."""


def add_properties(
    file: Path,
    rows: datasets.Dataset,
    journal: str | Path | None = None,
    num_workers: int = 0,
) -> None:
    """
    Add the properties of the files of a split to a file of predictions, see [`clip_properties`] and [`speech_properties`].

    Under `accelerate launch` each process measures its share, and the main one writes.

    Args:
        file (`Path`): A `predictions.parquet`, which is written anew, whole or not at all.
        rows (`Dataset`): Rows of the split in the package's schema; predictions of other clips are left as they are.
        journal (`str` or `Path`, *optional*):
            Journal to keep, from which files that have not changed are taken; only in a single process. If left out, a
            run that was stopped goes on from journals beside `file`, which are deleted at the end.
        num_workers (`int`, *optional*, defaults to 0): Processes that read files; 0 reads in this one.
    """
    state = PartialState()
    own = file.with_name(f"{JOURNAL}.{state.process_index}of{state.num_processes}.jsonl")
    share = rows.select(range(state.process_index, len(rows), state.num_processes))
    predictions, about = read_predictions(file)
    known = dict(gather_object(list(_measured(share, about, journal or own, num_workers).items())))
    if state.is_main_process:
        found = [{**p, PROPERTIES: known[p["path"]]} if p["path"] in known else p for p in predictions]
        write_predictions(file, found, about)
        for finished in journals(file.with_name(JOURNAL)):
            finished.unlink()


def _measured(
    rows: datasets.Dataset, about: dict, journal: str | Path, num_workers: int
) -> dict[str, dict | None]:
    """Return the properties of each file by its clip's path, None where it cannot be read."""
    # Recordings of speech have other properties. After @ stand digits of a list of clips.
    speech = about["dataset"] == "wild" and about["protocol"].partition("@")[0] == "speech"
    measure = speech_properties if speech else clip_properties
    files = rows.cast_column("video", datasets.Video(decode=False)).to_list()
    seconds = TOLD_SECONDS if PartialState().is_main_process else math.inf
    records, unreadable = read_properties(files, journal, num_workers, seconds, measure)
    return {path: _as_numbers(record) for path, record in records.items()} | dict.fromkeys(unreadable)


def carried_properties(predictions: Sequence[dict]) -> dict[str, dict]:
    """Return the properties that predictions carry, by path; of the names that any of them knows."""
    found = {p["path"]: p[PROPERTIES] for p in predictions if p.get(PROPERTIES) is not None}
    names = dict.fromkeys((*CLIP_PROPERTIES, *SPEECH_PROPERTIES))
    known = [name for name in names if any(record.get(name) is not None for record in found.values())]
    return {path: {name: record.get(name) for name in known} for path, record in found.items()}


def _as_numbers(record: dict) -> dict[str, float | None]:
    return {name: None if value is None else float(value) for name, value in record.items()}

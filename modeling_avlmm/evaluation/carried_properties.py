"""Properties of clips' files that predictions carry, so that what they alone reach can be told without the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets

from .audit.property_jobs import read_properties
from .measured_properties import CLIP_PROPERTIES, SPEECH_PROPERTIES, clip_properties, speech_properties
from .predictions import PROPERTIES, read_predictions, write_predictions

JOURNAL = "properties.jsonl"
"""Journal of the properties of a run that was stopped, beside its predictions."""


def with_properties(
    predictions: list[dict],
    rows: datasets.Dataset,
    protocol: tuple[str, str],
    journal: str | Path,
    num_workers: int = 0,
) -> list[dict]:
    """
    Return predictions with the properties of their files, see [`clip_properties`] and [`speech_properties`].

    Args:
        predictions (`list[dict]`): Predictions; those whose `path` is not in `rows` are left as they are.
        rows (`Dataset`): Rows in the package's schema.
        protocol (`tuple[str, str]`): Dataset and protocol; recordings of speech have other properties.
        journal (`str` or `Path`): Journal of a run that was stopped; files that have not changed are not read again.
        num_workers (`int`, *optional*, defaults to 0): Processes that read files; 0 reads in this one.
    """
    dataset, name = protocol
    speech = dataset == "wild" and name.partition("@")[0] == "speech"  # after @: digits of a list of clips
    measure = speech_properties if speech else clip_properties
    files = rows.cast_column("video", datasets.Video(decode=False)).to_list()
    records, unreadable = read_properties(files, journal, num_workers, measure=measure)
    known = {path: _as_numbers(record) for path, record in records.items()} | dict.fromkeys(unreadable)
    return [{**p, PROPERTIES: known[p["path"]]} if p["path"] in known else p for p in predictions]


def add_properties(
    file: Path,
    rows: datasets.Dataset,
    protocol: tuple[str, str],
    journal: str | Path | None = None,
    num_workers: int = 0,
) -> None:
    """
    Add the properties of the files of a split to a file of predictions.

    Args:
        file (`Path`): A `predictions.parquet`, which is written anew, whole or not at all.
        rows, protocol, num_workers: As for [`with_properties`].
        journal (`str` or `Path`, *optional*): Journal to keep; if left out, one beside `file` is deleted at the end.
    """
    predictions, about = read_predictions(file)
    own = file.parent / JOURNAL
    found = with_properties(predictions, rows, protocol, journal or own, num_workers)
    write_predictions(file, found, about)
    own.unlink(missing_ok=True)


def carried_properties(predictions: Sequence[dict]) -> dict[str, dict]:
    """Return the properties that predictions carry, by path; of the names that any of them knows."""
    found = {p["path"]: p[PROPERTIES] for p in predictions if p.get(PROPERTIES) is not None}
    names = dict.fromkeys((*CLIP_PROPERTIES, *SPEECH_PROPERTIES))
    known = [name for name in names if any(record.get(name) is not None for record in found.values())]
    return {path: {name: record.get(name) for name in known} for path, record in found.items()}


def _as_numbers(record: dict) -> dict[str, float | None]:
    return {name: None if value is None else float(value) for name, value in record.items()}

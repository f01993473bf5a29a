"""The inputs of the pipeline: clips with separate sound, tables, and files that workers share."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch

WORKER_WINDOWS = 16
"""A file with more rows is read in the main process, so that no worker holds a long recording in memory."""


def split_source(source: Any) -> tuple[Any, Any]:
    """Return the clip and the separate sound file, if any, of an input: a source, a pair by name, or a dataset's row."""
    if not isinstance(source, Mapping) or not ({"video", "audio"} & set(source)) or "frames" in source:
        return source, None
    video, audio = source.get("video"), source.get("audio")
    return (audio, None) if video is None else (video, audio)


class TableRows(torch.utils.data.Dataset):
    """A `datasets` table in the form that `transformers` recognizes. Rows are read when they are used."""

    def __init__(self, table):
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict:
        return self.table[index]


class Files(torch.utils.data.Dataset):
    """The files of a list, each as all of its rows, so that workers keep the order and batches of one process."""

    def __init__(self, inputs, rows_of, parameters: dict):
        self.inputs, self.rows_of, self.parameters = inputs, rows_of, parameters

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> list[dict] | None:
        rows = list(islice(self.rows_of(self.inputs[index], **self.parameters), WORKER_WINDOWS + 1))
        return None if len(rows) > WORKER_WINDOWS else rows

    def whole(self, index: int, rows: list[dict] | None) -> Iterator[dict]:
        """Return the rows of a file, which are read here if a worker found that there are too many to hand over."""
        return iter(rows) if rows is not None else self.rows_of(self.inputs[index], **self.parameters)


def batched(rows: Iterator[dict], size: int) -> Iterator[list[dict]]:
    """Yield lists of `size` rows."""
    while batch := list(islice(rows, size)):
        yield batch

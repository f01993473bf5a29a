"""The inputs of the pipeline: clips with separate sound, tables, and files that workers share."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from types import GeneratorType
from typing import Any

import numpy as np
import torch

WORKER_WINDOWS = 16
"""A file with more rows is read in the main process, so that no worker holds a long recording in memory."""


def split_source(source: Any) -> tuple[Any, Any]:
    """
    Return the clip and the separate sound, if any, of an input: a source, a pair by name, or a dataset's row.

    Picture and sound may be arrays, with `fps` or `timestamps`, and `sampling_rate`, beside them. A clip may also be named by
    `path` or `bytes`.
    """
    if not isinstance(source, Mapping) or not ({"video", "audio"} & set(source)) or "frames" in source:
        return source, None
    video, audio = source.get("video"), source.get("audio")
    if video is None and any(source.get(key) is not None for key in ("path", "bytes")):
        video = {key: source.get(key) for key in ("path", "bytes")}
    if holds_numbers(video):
        video = {"frames": video, **{key: source.get(key) for key in ("fps", "timestamps")}}
    if holds_numbers(audio):
        audio = {"array": audio, "sampling_rate": source.get("sampling_rate")}
    return (audio, None) if video is None else (video, audio)


def holds_numbers(value: Any) -> bool:
    """Return True for a tensor, an array or a list of numbers, at any depth."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return (
        torch.is_tensor(value)
        or (isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf")
        or (isinstance(value, int | float) and not isinstance(value, bool))
    )


def in_known_form(inputs: Any) -> Any:
    """
    Return many inputs as a list, a dataset or a generator, which `transformers` takes for many, and one input as it is.

    Many are also a `datasets` table or one of its columns, a tuple, a pandas Series, an array of paths, and any iterator. An
    open file or decoder can be iterated over too, but is one input, and so is an array of numbers.
    """
    if hasattr(inputs, "column_names"):
        return TableRows(inputs) if hasattr(inputs, "num_rows") else (row for row in inputs)
    one = str | bytes | bytearray | memoryview | Mapping
    opened = ("read", "get_frames_played_at", "get_samples_played_in_range")
    if isinstance(inputs, one) or holds_numbers(inputs) or any(hasattr(inputs, name) for name in opened):
        return inputs
    if isinstance(inputs, list | GeneratorType | torch.utils.data.Dataset):
        return inputs
    if isinstance(inputs, Sequence) and not isinstance(inputs, tuple):
        return TableRows(inputs)
    if hasattr(inputs, "__len__") and hasattr(inputs, "__iter__"):
        return list(inputs)
    return (item for item in inputs) if hasattr(inputs, "__iter__") else inputs


class TableRows(torch.utils.data.Dataset):
    """A `datasets` table or column in the form that `transformers` recognizes. Rows are read when they are used."""

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

"""Results of `detect` as a Parquet file: one row a file, with everything that the pipeline returns."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dataset_scripts.files import written_whole

from ...configuration_detector import LOG_ODDS_NAMES

ROWS = 1000
"""Rows that are written at once."""
REST = "more"
"""Column for what a detector of its own adds to a result, as JSON."""

_SCORES = [("score", pa.float64()), ("video_score", pa.float64()), ("audio_score", pa.float64())]
_SPAN = [("start", pa.float64()), ("end", pa.float64())]
_BOX = pa.struct([("time", pa.float64()), ("box", pa.list_(pa.float64()))])
_FACE = pa.struct(
    [
        ("index", pa.int64()),
        *_SPAN,
        ("size", pa.float64()),
        ("video_score", pa.float64()),
        ("score", pa.float64()),
        ("windows", pa.list_(pa.struct([*_SPAN, ("video_score", pa.float64())]))),
        ("boxes", pa.list_(_BOX)),
    ]
)
_POINT = pa.struct([("time", pa.float64()), ("disagreement", pa.float64())])
_CREDENTIALS = pa.struct(
    [
        *((name, pa.string()) for name in ("state", "signer", "issuer", "time", "generator")),
        ("claims", pa.list_(pa.string())),
        ("problems", pa.list_(pa.string())),
    ]
)
SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("label", pa.string()),
        *_SCORES,
        *((name, pa.float64()) for name in LOG_ODDS_NAMES.values()),
        ("threshold", pa.float64()),
        ("abstain_band", pa.list_(pa.float64())),
        ("independent_parts", pa.bool_()),
        ("name", pa.string()),
        ("duration", pa.float64()),
        ("has_video", pa.bool_()),
        ("has_audio", pa.bool_()),
        ("num_frames", pa.int64()),
        ("windows", pa.list_(pa.struct([*_SPAN, *_SCORES]))),
        ("faces", pa.list_(_FACE)),
        ("disagreement", pa.float64()),
        ("timeline", pa.list_(_POINT)),
        ("decided_by", pa.string()),
        ("gate_score", pa.float64()),
        ("credentials", _CREDENTIALS),
        ("warnings", pa.list_(pa.string())),
        ("error", pa.struct([("type", pa.string()), ("message", pa.string())])),
        (REST, pa.string()),
    ]
)


class ResultParquet:
    """
    A Parquet file that is written row by row, and is there when it is whole. Use it as a context.

    Bytes of a file name that are no text are written as `\\\\xe9`, as Parquet holds text only.

    Args:
        path (`Path`): The file.
    """

    def __init__(self, path: Path):
        self.path, self.complete = path, False
        self._rows: list[dict] = []

    def __enter__(self) -> ResultParquet:
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(contextlib.suppress(_IncompleteError))
        partial = self._stack.enter_context(written_whole(self.path))
        self._writer = self._stack.enter_context(pq.ParquetWriter(partial, SCHEMA))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self.complete and kind is None:
            self._flush()
        elif kind is None:  # the user stopped the run: a part must not be taken for the whole
            error = _IncompleteError()
            kind = _IncompleteError
        self._stack.__exit__(kind, error, trace)

    def add(self, file: str, result: dict) -> None:
        """Write a file's result."""
        rest = {name: value for name, value in result.items() if name not in SCHEMA.names}
        row = {name: result.get(name) for name in SCHEMA.names}
        self._rows.append(_as_text({**row, "file": file, REST: json.dumps(rest) if rest else None}))
        if len(self._rows) == ROWS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
        self._rows = []


class _IncompleteError(Exception):
    """Ends the writing of a file that is not to be kept."""


def _as_text(value):
    """Return a value whose texts can be written as UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    if isinstance(value, dict):
        return {name: _as_text(item) for name, item in value.items()}
    return value

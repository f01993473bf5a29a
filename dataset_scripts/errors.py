"""Errors and warnings about corpora."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CorpusError(Exception):
    """Base class of the errors that the builders raise."""


class CorpusNotFoundError(CorpusError, FileNotFoundError):
    """`data_dir` is not given, does not exist or does not hold the corpus."""


class MetadataError(CorpusError, ValueError):
    """A metadata file, or one of its rows, is malformed."""


class MissingFilesError(CorpusError, FileNotFoundError):
    """More files are missing from disk than `max_missing` allows."""


class ProtocolError(CorpusError, ValueError):
    """A protocol cannot be applied to this copy of the corpus."""


class CorpusWarning(UserWarning):
    """A remark about a copy of a corpus; also stored in `dataset.info.description`."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` with the most similar known name, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {match[0]!r}?" if match else ""

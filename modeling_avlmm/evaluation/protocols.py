"""Preparing a registered dataset under one of its protocols."""

from __future__ import annotations

import difflib
from pathlib import Path

import datasets

import dataset_scripts

from .evaluation_error import EvaluationError


def load_protocol(
    dataset: str, protocol: str | None, data_dir: str | Path, max_missing: float | None = None
) -> datasets.DatasetBuilder:
    """
    Prepare a registered dataset.

    Args:
        dataset (`str`): Name of the dataset, such as `"fakeavceleb"`.
        protocol (`str`, *optional*): Name of its configuration; the dataset's default if left out.
        data_dir (`str` or `Path`): Folder of the unpacked corpus.
        max_missing (`float`, *optional*):
            Share of the corpus' files that may be missing on disk; 0.01 if left out. More is an error.

    Returns:
        `DatasetBuilder`: the builder, whose `as_dataset()` has the splits.

    Raises:
        EvaluationError: for an unknown name, with the known ones, or a folder that does not hold the corpus.
    """
    known = dataset_scripts.BUILDERS
    if dataset not in known:
        near = difflib.get_close_matches(dataset, known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise EvaluationError(f"There is no dataset {dataset!r}{hint}. There are: {', '.join(known)}.")
    try:
        settings = {} if max_missing is None else {"max_missing": max_missing}
        builder = datasets.load_dataset_builder(dataset, protocol, data_dir=str(data_dir), **settings)
        builder.download_and_prepare()
        return builder
    except datasets.exceptions.DatasetGenerationError as error:
        raise EvaluationError(_named(dataset, error.__cause__ or error)) from error
    except (ValueError, OSError) as error:  # every error of the builders is one of the two
        raise EvaluationError(_named(dataset, error)) from error


def _named(dataset: str, error: BaseException) -> str:
    """Return an error's message with the name of the dataset, which some builders' messages begin with."""
    message = str(error)
    begins = "".join(filter(str.isalnum, message.partition(":")[0])).lower()
    return message if begins == dataset.replace("_", "") else f"{dataset}: {message}"


def missing_files(builder: datasets.DatasetBuilder) -> list[str]:
    """Return the files that a corpus lists and that are not on disk."""
    listing = Path(builder.missing_files)
    return listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else []


def splits_with(builder: datasets.DatasetBuilder, split: str) -> datasets.DatasetDict:
    """Return the splits of a prepared dataset; raises `EvaluationError` if `split` is not among them."""
    splits = builder.as_dataset()
    if split not in splits:
        protocol = f"{builder.dataset_name}/{builder.config.name}"
        raise EvaluationError(f"{protocol} has no split {split!r}; it has {', '.join(splits)}.")
    return splits

"""Preparing a registered dataset under one of its protocols."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import datasets

import dataset_scripts
from dataset_scripts.demonstration import is_demonstration
from dataset_scripts.errors import MetadataError, ProtocolError
from dataset_scripts.protocol_lists import ProtocolList, choose_list, read_lists

from .evaluation_error import EvaluationError
from .fingerprints import Judgement, differences, freeze, judge

LIST_SUFFIX = ".json"
"""Ending of a protocol that is a file."""


def load_protocol(
    dataset: str, protocol: str | None, data_dir: str | Path, max_missing: float | None = None
) -> datasets.DatasetBuilder:
    """
    Prepare a registered dataset.

    Args:
        dataset (`str`): Name of the dataset, such as `"fakeavceleb"`.
        protocol (`str`, *optional*):
            Name of its configuration, or a JSON file with a list of clips (see [`dataset_scripts.protocol_lists`]); the
            dataset's default if left out.
        data_dir (`str` or `Path`): Folder of the unpacked corpus.
        max_missing (`float`, *optional*):
            Share of the corpus' files that may be missing on disk; 0.01 if left out. More is an error.

    Returns:
        `DatasetBuilder`: the builder, whose `as_dataset()` has the splits.

    Raises:
        EvaluationError: for an unknown name, with the known ones, or a folder that does not hold the corpus.
    """
    _check_dataset(dataset)
    try:
        builder = protocol_builder(dataset, protocol, data_dir, max_missing)
        builder.download_and_prepare()
        return builder
    except datasets.exceptions.DatasetGenerationError as error:
        raise EvaluationError(_named(dataset, error.__cause__ or error)) from error
    except (ValueError, OSError) as error:  # every error of the builders is one of the two
        raise EvaluationError(_named(dataset, error)) from error


def list_protocols(
    dataset: str, data_dir: str | Path, protocols: Sequence[str] | None = None, source: str = ""
) -> tuple[list[tuple[ProtocolList, list[Judgement]]], dict[str, str]]:
    """
    List the clips of a dataset's protocols as its metadata do, whether the files are on disk or not.

    Args:
        dataset (`str`): Name of the dataset.
        data_dir (`str` or `Path`): Folder of the corpus.
        protocols (`Sequence[str]`, *optional*): Names; all that the builder has if left out.
        source (`str`): Where the lists are from.

    Returns:
        `tuple`: each protocol's list, with its splits beside the official ones; and protocol -> the reason why this copy
        cannot have it.

    Raises:
        EvaluationError: for an unknown dataset or protocol, a folder that does not hold the corpus, or a copy that has none
            of the protocols.
    """
    _check_dataset(dataset)
    try:
        known = datasets.load_dataset_builder(dataset, data_dir=str(data_dir)).builder_configs
        lists, refused = [], {}
        for name in protocols or known:
            builder = protocol_builder(dataset, name, data_dir)
            try:
                frozen = freeze(builder, source)
            except (MetadataError, ProtocolError) as error:
                refused[name] = str(error)
            else:
                synthetic = is_demonstration(data_dir)
                lists.append((frozen, [] if synthetic else judge(builder, frozen.splits)))
    except (ValueError, OSError) as error:
        raise EvaluationError(_named(dataset, error)) from error
    if not lists:
        raise EvaluationError(_named(dataset, ValueError(next(iter(refused.values())))))
    return lists, refused


def compare_with_lists(
    dataset: str, data_dir: str | Path, path: str | Path
) -> list[tuple[ProtocolList, dict[str, tuple[bool, str]]]]:
    """
    Compare a copy, as its metadata list the clips, with each list of a file; see [`differences`].

    The clips of a list whose protocol the builder does not have are looked up in the whole copy.

    Raises:
        EvaluationError: for an unknown dataset, a file of another one, or a folder that does not hold the corpus.
    """
    _check_dataset(dataset)
    try:
        lists = read_lists(path)
        if strange := [each.dataset for each in lists if each.dataset != dataset]:
            raise ProtocolError(f"{path} is of the dataset {strange[0]}, not {dataset}.")
        known = datasets.load_dataset_builder(dataset, data_dir=str(data_dir)).builder_configs
        results = []
        for each in lists:
            own = each.protocol in known
            builder = protocol_builder(dataset, each.protocol if own else str(path), data_dir)
            results.append((each, differences(freeze(builder).splits, each)))
        return results
    except (ValueError, OSError) as error:
        raise EvaluationError(_named(dataset, error)) from error


def protocol_builder(
    dataset: str, protocol: str | None, data_dir: str | Path, max_missing: float | None = None
) -> datasets.DatasetBuilder:
    """Return the builder of a protocol, see [`load_protocol`], without preparing anything. It raises the builders' errors."""
    name, settings = protocol_settings(dataset, protocol, data_dir)
    if max_missing is not None:
        settings["max_missing"] = max_missing
    return datasets.load_dataset_builder(dataset, name, **settings)


def protocol_settings(dataset: str, protocol: str | None, data_dir: str | Path) -> tuple[str | None, dict]:
    """Return the configuration's name and the settings for `load_dataset`; `protocol` as for [`load_protocol`]."""
    settings = {"data_dir": str(data_dir)}
    if protocol is None or not protocol.endswith(LIST_SUFFIX):
        return protocol, settings
    frozen = choose_list(protocol, dataset)
    known = datasets.load_dataset_builder(dataset, **settings).builder_configs
    name = frozen.protocol if frozen.protocol in known else None
    return name, settings | {"protocol_list": str(protocol)}


def protocol_name(builder: datasets.DatasetBuilder) -> str:
    """Return the name of a prepared protocol; that of a list of clips is `protocol@digits`, see [`ProtocolList.reference`]."""
    frozen = builder.frozen_list()
    return builder.config.name if frozen is None else frozen.reference


def _check_dataset(dataset: str) -> None:
    known = dataset_scripts.BUILDERS
    if dataset not in known:
        near = difflib.get_close_matches(dataset, known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise EvaluationError(f"There is no dataset {dataset!r}{hint}. There are: {', '.join(known)}.")


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
        protocol = f"{builder.dataset_name}/{protocol_name(builder)}"
        raise EvaluationError(f"{protocol} has no split {split!r}; it has {', '.join(splits)}.")
    return splits

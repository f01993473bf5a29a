"""Fingerprints of the splits of a protocol, and whether they are the official ones."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import datasets

from dataset_scripts.builder import CorpusBuilder
from dataset_scripts.demonstration import is_demonstration
from dataset_scripts.errors import CorpusWarning
from dataset_scripts.protocol_lists import (
    Differences,
    Labels,
    ProtocolList,
    SplitList,
    official_lists,
    split_fingerprint,
)

OFFICIAL, INCOMPLETE, SAME_SIZE, DIFFERENT = "official", "incomplete", "same size", "different"
STATES = (OFFICIAL, INCOMPLETE, SAME_SIZE, DIFFERENT)
"""How a split compares with the official one, from best to worst."""


@dataclass(frozen=True)
class Judgement:
    """
    A split beside the official one.

    Args:
        split (`str`): Its name, or several joined by `+`.
        state (`str`): One of `STATES`.
        text (`str`): The state in words, with the difference.
    """

    split: str
    state: str
    text: str


def protocol_fingerprints(splits: Mapping[str, datasets.Dataset]) -> dict[str, str]:
    """Return the fingerprint of each split, over the clips that are on disk."""
    return {name: split_fingerprint(labels.items()) for name, labels in _on_disk(splits).items()}


def describe_splits(builder: CorpusBuilder, splits: Mapping[str, datasets.Dataset]) -> dict:
    """
    Return what a report says of its clips.

    Returns:
        `dict`: `fingerprints` (split -> SHA-256 of the clips on disk) and `official` (split -> `{"state", "text"}`; None if no
        official list is known, or the clips are those of the demonstration benchmark).
    """
    found = {name: SplitList.of(labels) for name, labels in _on_disk(splits).items()}
    judgements = [] if is_demonstration(builder.config.data_dir) else judge(builder, found)
    official = {each.split: {"state": each.state, "text": each.text} for each in judgements}
    return {
        "fingerprints": {name: part.sha256 for name, part in found.items()},
        "official": official or None,
    }


def judge(builder: CorpusBuilder, found: Mapping[str, SplitList]) -> list[Judgement]:
    """
    Compare the splits of a copy with the official lists of its protocol.

    Where clips are missing from disk, the metadata are read again to see whether they list the official clips.

    Args:
        builder ([`CorpusBuilder`]): The builder of the protocol.
        found (`Mapping[str, SplitList]`): Split -> the clips that are on disk.

    Returns:
        `list[Judgement]`: one for each split of the release that fits best; empty if no official list is known.
    """
    known = _official(builder)
    best = _best(known, found)
    if any(each.state == DIFFERENT for each in best) and Path(builder.missing_files).is_file():
        listed = {name: SplitList.of(labels) for name, labels in listed_splits(builder).items()}
        as_listed = {each.split: each for each in _best(known, listed)}
        best = [_incomplete(each, as_listed.get(each.split), listed, found) for each in best]
    return best


def listed_splits(builder: CorpusBuilder) -> dict[str, Labels]:
    """Return split -> path -> label as the metadata of a copy list them, without the builder's notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorpusWarning)
        return builder.list_clips()


def freeze(builder: CorpusBuilder, source: str = "") -> ProtocolList:
    """Return the list of a protocol's clips as the metadata of a copy list them; `source` says where it is from."""
    splits = {name: SplitList.of(labels) for name, labels in listed_splits(builder).items()}
    return ProtocolList(builder.dataset_name, builder.config.name, splits, source)


def differences(found: Mapping[str, SplitList], frozen: ProtocolList) -> dict[str, tuple[bool, str]]:
    """
    Compare the splits of a copy with those of a list.

    Returns:
        `dict[str, tuple[bool, str]]`: split of the list -> whether the copy's is the same, and the difference in words.
    """
    result = {}
    for name, expected in frozen.splits.items():
        part = together(found, name)
        if part is None:
            result[name] = (False, "this copy has no such split")
        elif part.labels is not None and expected.labels is not None:
            apart = Differences.between(part.labels, expected.labels)
            result[name] = (part.sha256 == expected.sha256, str(apart))
        else:
            state = _state(part, expected)
            result[name] = (state in (OFFICIAL, SAME_SIZE), _words(state, part, expected, "the list"))
    return result


# -- the official lists ------------------------------------------------------------------------------------------------


def _official(builder: CorpusBuilder) -> list[ProtocolList]:
    """Return the official lists of a builder's protocol, one for each release."""
    if builder.config.protocol_list is not None:
        return []
    lists = official_lists(builder.dataset_name)
    return [each for each in lists if each.protocol == builder.config.name]


def _best(known: list[ProtocolList], found: Mapping[str, SplitList]) -> list[Judgement]:
    """Compare splits with the release that fits best."""
    results = []
    for each in known:
        name = "this package's split of the released corpus" if each.own else "the official list"
        name += f" ({each.release})" if each.release else ""
        parts = {split: together(found, split) for split in each.splits}
        pairs = {split: (part, each.splits[split]) for split, part in parts.items() if part is not None}
        judgements = [
            Judgement(split, state := _state(*pair), _words(state, *pair, name))
            for split, pair in pairs.items()
        ]
        apart = sum(abs(part.clips - expected.clips) for part, expected in pairs.values())
        ranks = sorted((STATES.index(judgement.state) for judgement in judgements), reverse=True)
        results.append((ranks, apart, judgements))
    return min(results, key=lambda result: result[:2])[2] if results else []


def together(splits: Mapping[str, SplitList], name: str) -> SplitList | None:
    """Return a split, or several whose names are joined by `+`; None unless all are there."""
    parts = [splits.get(part) for part in name.split("+")]
    if any(part is None for part in parts):
        return None
    if len(parts) == 1:
        return parts[0]
    if any(part.labels is None for part in parts):
        return None
    return SplitList.of({path: label for part in parts for path, label in part.labels.items()})


def _state(part: SplitList, expected: SplitList) -> str:
    if expected.sha256 is not None:
        return OFFICIAL if part.sha256 == expected.sha256 else DIFFERENT
    same = part.clips == expected.clips and expected.fake in (None, part.fake)
    return SAME_SIZE if same else DIFFERENT


def _words(state: str, part: SplitList, expected: SplitList, name: str) -> str:
    if state == OFFICIAL:
        return name
    if state == SAME_SIZE:
        return f"as many clips as {name}, whose fingerprint is not known"
    if (part.clips, part.fake) == (expected.clips, expected.fake):
        return f"not {name}: as many clips, but other paths or labels"
    return f"not {name}: {replace(part, fake=part.fake if expected.fake is not None else None).size()}, not {expected.size()}"


def _incomplete(
    judged: Judgement,
    as_listed: Judgement | None,
    listed: Mapping[str, SplitList],
    found: Mapping[str, SplitList],
) -> Judgement:
    """Return a judgement that tells missing files from another list: `as_listed` is that of the clips in the metadata."""
    if judged.state != DIFFERENT or as_listed is None or as_listed.state == DIFFERENT:
        return judged
    gone = together(listed, judged.split).clips - together(found, judged.split).clips
    return replace(
        as_listed, state=INCOMPLETE, text=f"{as_listed.text}; {gone:,} of its clips are not on disk"
    )


def _on_disk(splits: Mapping[str, datasets.Dataset]) -> dict[str, Labels]:
    return {name: dict(zip(rows["path"], rows["label"], strict=True)) for name, rows in splits.items()}

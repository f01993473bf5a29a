"""Deterministic splits: by name, stratified, in given shares."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

SPLITS = ("train", "validation", "test")
FULL_SPLIT = "full"  # the only split of a protocol that has none ("all" is reserved by `datasets`)
SHARES = {"train": 63, "validation": 7, "test": 30}  # 70 / 30, the 70 again 90 / 10
WITHIN_TRAINING = {"train": 9, "validation": 1}  # for corpora that publish no validation split

_K = TypeVar("_K", bound=Hashable)
_R = TypeVar("_R", bound=Mapping[str, Any])


def stable_order(names: Iterable[_K], seed: int) -> list[_K]:
    """Shuffle names by a hash of name and seed, the same on every machine and in every version."""
    return sorted(names, key=lambda name: (hashlib.sha256(f"{seed}:{name}".encode()).digest(), str(name)))


def stratified_split(strata: Mapping[_K, Hashable], shares: Mapping[str, int], seed: int) -> dict[_K, str]:
    """Assign names to splits in given shares, evenly within each stratum.

    Names are taken stratum by stratum, in [`stable_order`], and each goes to the split that is furthest behind its
    share. So the shares are met to within one name overall, and nearly so within each stratum, however small it is.

    Args:
        strata (`Mapping`):
            Name (an identity or a path) -> its stratum.
        shares (`Mapping[str, int]`):
            Split -> its share; only the proportions matter.
        seed (`int`):
            A different seed gives a different split.

    Returns:
        `dict`: name -> split.
    """
    whole = sum(shares.values())
    members: dict[Hashable, list[_K]] = {}
    for name, stratum in strata.items():
        members.setdefault(stratum, []).append(name)
    dealt: Counter[str] = Counter()
    result: dict[_K, str] = {}
    for stratum in sorted(members, key=str):
        for name in stable_order(members[stratum], seed):
            split = max(shares, key=lambda s: shares[s] * (len(result) + 1) - whole * dealt[s])
            result[name] = split
            dealt[split] += 1
    return result


def split_twice(
    strata: Mapping[_K, Hashable],
    seed: int,
    shares: Mapping[str, int] = SHARES,
    test: Iterable[_K] | None = None,
) -> dict[_K, str]:
    """Assign names to train, validation and test: first the test part is drawn, then the rest is divided.

    The test part therefore does not depend on the share of the validation part.

    Args:
        strata (`Mapping`):
            Name -> its stratum.
        seed (`int`):
            See [`stratified_split`].
        shares (`Mapping[str, int]`):
            Shares of `train`, `validation` and `test`.
        test (`Iterable`, *optional*):
            The names of the test part, if the protocol prescribes them.

    Returns:
        `dict`: name -> split.
    """
    fit = {split: share for split, share in shares.items() if split != "test"}
    if test is None:
        first = stratified_split(strata, {"fit": sum(fit.values()), "test": shares["test"]}, seed)
        test = [name for name, split in first.items() if split == "test"]
    tested = set(test)
    rest = {name: stratum for name, stratum in strata.items() if name not in tested}
    inner = stratified_split(rest, fit, seed)
    return {name: inner.get(name, "test") for name in strata}


def by_split(
    rows: Iterable[_R], split_of: Callable[[_R], str | None], splits: Sequence[str] = SPLITS
) -> dict[str, list[_R]]:
    """Group rows by split, keeping their order. A row whose split is None is left out.

    Args:
        rows (`Iterable[Mapping]`):
            The rows of a corpus.
        split_of (`Callable`):
            Returns the split of a row, or None.
        splits (`Sequence[str]`):
            The splits, in order; each gets a list, even an empty one.
    """
    dealt: dict[str, list[_R]] = {split: [] for split in splits}
    for row in rows:
        split = split_of(row)
        if split is not None:
            dealt[split].append(row)
    return dealt

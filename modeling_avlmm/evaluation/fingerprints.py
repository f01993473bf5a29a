"""Fingerprints of the splits of a protocol: equal where the clips and their labels are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import datasets


def split_fingerprint(clips: Iterable[tuple[str, int]]) -> str:
    """
    Return the SHA-256 of the sorted lines `path<tab>label` in UTF-8, each with a line end, as 64 hexadecimal digits.

    Args:
        clips (iterable of `tuple[str, int]`): Relative path and label (0 real, 1 fake) of each clip, in any order.
    """
    lines = sorted(f"{path}\t{int(label)}\n".encode() for path, label in clips)
    return hashlib.sha256(b"".join(lines)).hexdigest()


def protocol_fingerprints(splits: Mapping[str, datasets.Dataset]) -> dict[str, str]:
    """Return the fingerprint of each split, over the clips that are on disk."""
    return {
        name: split_fingerprint(zip(rows["path"], rows["label"], strict=True))
        for name, rows in splits.items()
    }

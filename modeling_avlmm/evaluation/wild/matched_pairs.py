"""Pairs of a fake and a genuine clip that are alike as files, so that only the content can tell them apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from dataset_scripts.splits import stable_order

RATIOS = {"width": 1.5, "height": 1.5, "bitrate": 2.0, "duration": 2.0}
"""Largest factor between the two clips of a pair; our own choice."""
DIFFERENCES = {"fps": 1.1}
"""Largest difference between them; our own choice. 24, 25 and 23.976 frames a second are one rate, 25 and 30 are not."""
EQUAL = ("has_audio",)
RULE = (
    "Each genuine clip is paired with at most one fake, and each fake with at most one genuine clip, so that as many pairs "
    "as possible are formed and their files are as alike as possible. In a pair, width and height differ by at most a "
    "factor of 1.5, bit rate and length by at most 2, the frame rate by at most 1.1 per second, and both clips have sound "
    "or neither has."
)
MOST_CLIPS = 4000
"""Clips of each class that are considered; of more, this many are drawn."""


def match_pairs(
    records: Sequence[dict], labels: Sequence[int], paths: Sequence[str]
) -> list[tuple[int, int]]:
    """
    Pair fakes and genuine clips with like properties, see [`RULE`].

    The pairs are the assignment with the most pairs and, among those, the smallest sum of differences, each as a share of
    what is allowed (Hungarian method). Clips with an unknown property are in no pair. The result does not depend on the
    order of the clips, except between equally good assignments.

    Args:
        records (`Sequence[dict]`): Properties of each clip, see [`CLIP_PROPERTIES`].
        labels (`Sequence[int]`): 0 real, 1 fake.
        paths (`Sequence[str]`): Names of the clips; of more than 4,000 of a class, 4,000 are drawn by name.

    Returns:
        `list[tuple[int, int]]`: places of the fake and the genuine clip of each pair.
    """
    names = (*RATIOS, *DIFFERENCES, *EQUAL)
    known = [i for i, record in enumerate(records) if all(record[name] is not None for name in names)]
    known = [i for i in known if all(records[i][name] > 0 for name in RATIOS)]
    fakes, reals = (_drawn([i for i in known if labels[i] == label], paths) for label in (1, 0))
    if not fakes or not reals:
        return []
    cost = np.zeros((len(fakes), len(reals)))
    allowed = np.ones_like(cost, dtype=bool)
    for name in names:
        of_fakes, of_reals = (np.array([records[i][name] for i in part], float) for part in (fakes, reals))
        if name in RATIOS:
            of_fakes, of_reals = np.log(of_fakes), np.log(of_reals)
        apart = np.abs(of_fakes[:, None] - of_reals[None])
        if name in EQUAL:
            allowed &= apart == 0
        else:
            limit = np.log(RATIOS[name]) if name in RATIOS else DIFFERENCES[name]
            allowed &= apart <= limit * (1 + 1e-9)
            cost += apart / limit
    # A pair that is not allowed costs more than all others together.
    forbidden = (len(RATIOS) + len(DIFFERENCES) + 1.0) * min(cost.shape)
    rows, columns = linear_sum_assignment(np.where(allowed, cost, forbidden))
    return [(fakes[i], reals[j]) for i, j in zip(rows, columns, strict=True) if allowed[i, j]]


def _drawn(places: list[int], paths: Sequence[str]) -> list[int]:
    if len(places) <= MOST_CLIPS:
        return places
    chosen = set(stable_order([paths[i] for i in places], 0)[:MOST_CLIPS])
    return [i for i in places if paths[i] in chosen]

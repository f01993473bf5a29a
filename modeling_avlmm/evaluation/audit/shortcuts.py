"""Measure how well file properties alone predict the label, one at a time and all together.

Every AUC is of clips that the score was not fitted to, in folds that keep an identity (or a genuine clip and its fakes)
together. In-sample numbers would find a shortcut in any property with enough categories, or among few enough clips. All
choices here are our own.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import numpy as np
from sklearn.metrics import roc_auc_score

from ..metrics import resampled_weights
from ..predictions import kind_of_fake
from ..ranking import RankedScores
from .file_properties import CATEGORICAL, NUMERIC, TITLES
from .held_out import (
    MODELS,
    Folds,
    HeldOutScore,
    group_folds,
    held_out_scores,
    model_scores,
    why_not_held_out,
)

DEFAULT_LIMIT = 0.6
RESAMPLES = 200


def groups_of(rows: list[dict]) -> list[str]:
    """Return for each row the group that folds and bootstrap keep whole: an identity, else a genuine clip and its fakes."""
    identities = {row["path"]: row.get("identity") for row in rows}
    groups = []
    for row in rows:
        origin = row.get("source") or row["path"]
        identity = row.get("identity") or identities.get(origin)
        groups.append(f"identity {identity}" if identity else f"clip {origin}")
    return groups


def find_shortcuts(
    splits: dict[str, list[dict]],
    records: dict[str, dict],
    limit: float = DEFAULT_LIMIT,
    n_resamples: int = RESAMPLES,
) -> dict:
    """
    Measure how well file properties alone separate real from fake, over all clips and for each kind of fake.

    A property is flagged when its held-out AUC is above `limit` and the lower end of its interval is above 0.5. The
    interval holds at 95 % for all properties and kinds of fake together (Bonferroni), because among a hundred useless
    properties a few look useful by chance.

    Args:
        splits (`dict[str, list[dict]]`): The rows of each split.
        records (`dict[str, dict]`): Results of [`file_properties`] by `path`.
        limit (`float`, *optional*, defaults to 0.6): AUC above which a property is a shortcut.
        n_resamples (`int`, *optional*, defaults to 200): Bootstrap samples of groups.

    Returns:
        `dict`:

        - **scopes** -- For all clips, and for each kind of fake against all genuine clips: `name`, `n_real`, `n_fake`,
          `groups`, `properties` (best first), `combined` (of all properties, by model), `constant` (properties that are
          the same in all clips), or `undefined` (why nothing was measured).
        - **trimming** -- Held-out AUC of the leading silence, as it is and after `trim_leading_silence`.
        - **limit**, **tests** -- The limit, and the number of intervals that hold together.

        A property has

        - `auc`, `ci` (95 %), `lower` (of the simultaneous interval), `flagged`;
        - `rank_auc` and `larger_in`, in-sample and for numbers only: the larger of AUC and 1 - AUC of the bare value,
          and the class with the larger values;
        - `real` and `fake`: the median, or the commonest value, with its share;
        - `train_to_test`: AUC on the split `test` when fitted on `train`; None without both.
    """
    owner = {}
    for split, members in splits.items():
        for row in members:
            if row["path"] in records:
                owner.setdefault(row["path"], (split, row))
    rows = [row for _, row in owner.values()]
    clips = _Clips(
        rows=rows,
        split=np.array([split for split, _ in owner.values()]),
        label=np.array([row["label"] for row in rows], int),
        group=np.unique(groups_of(rows), return_inverse=True)[1],
        columns={name: _column([records[row["path"]][name] for row in rows], name) for name in TITLES},
    )
    kinds = sorted({kind_of_fake(row) for row in rows if row["label"] == 1})
    chosen = {"all": np.ones(len(rows), bool)}
    if len(kinds) > 1:
        kind = np.array([kind_of_fake(row) if row["label"] == 1 else "" for row in rows])
        chosen |= {name: (clips.label == 0) | (kind == name) for name in kinds}
    parts = {name: clips.part(mask) for name, mask in chosen.items()}
    tests = sum(len(part.varying()) + len(MODELS) for part in parts.values() if part.why_not() is None)
    quantile = NormalDist().inv_cdf(1 - 0.025 / max(1, tests))
    scopes = [_scope(name, part, limit, quantile, n_resamples) for name, part in parts.items()]
    return {
        "limit": limit,
        "tests": tests,
        "scopes": scopes,
        "trimming": _trimming(clips, records, n_resamples),
    }


@dataclass
class _Clips:
    """Clips as columns of one length: rows, splits, labels, numbers of groups, and properties by name."""

    rows: list[dict]
    split: np.ndarray
    label: np.ndarray
    group: np.ndarray
    columns: dict[str, np.ndarray]

    def part(self, mask: np.ndarray) -> _Clips:
        rows = [row for row, chosen in zip(self.rows, mask, strict=True) if chosen]
        columns = {name: values[mask] for name, values in self.columns.items()}
        return _Clips(rows, self.split[mask], self.label[mask], self.group[mask], columns)

    def varying(self) -> list[str]:
        return [name for name, values in self.columns.items() if len(_distinct(values)) > 1]

    def why_not(self) -> str | None:
        """Return the reason why held-out scores are impossible, or None."""
        return why_not_held_out(self.label, self.group)

    def folds(self) -> Folds:
        return group_folds(self.label, self.group)

    def train_and_test(self) -> tuple[np.ndarray, np.ndarray] | None:
        fit, held = (np.flatnonzero(self.split == name) for name in ("train", "test"))
        both = all(
            min(Counter(self.label[part].tolist()).get(c, 0) for c in (0, 1)) >= 5 for part in (fit, held)
        )
        return (fit, held) if both else None


def _column(values: list, name: str) -> np.ndarray:
    if name in NUMERIC:
        return np.array([math.nan if value is None else value for value in values], float)
    return np.array(["" if value is None else str(value) for value in values], object)


def _distinct(values: np.ndarray) -> set:
    return {"" if value != value else value for value in values.tolist()}  # one NaN for all of them


def _scope(name: str, clips: _Clips, limit: float, quantile: float, n_resamples: int) -> dict:
    n_fake = int(clips.label.sum())
    scope = {"name": name, "n_real": len(clips.label) - n_fake, "n_fake": n_fake}
    scope["groups"] = len(set(clips.group.tolist()))
    undefined = clips.why_not()
    if undefined is not None:
        return {**scope, "undefined": undefined, "properties": [], "combined": {}, "constant": []}
    judge = _Judge(clips, clips.folds(), clips.train_and_test(), limit, quantile, n_resamples)
    varying = clips.varying()
    properties = []
    for column in varying:
        values = clips.columns[column]
        found = judge.judged(_scored_by_bins(values, clips.label))
        across = {"train_to_test": found.pop("train_to_test")}
        by_class = _by_class(values, clips.label, column)
        properties.append({"name": column, "title": TITLES[column], **found, **by_class, **across})
    matrix = _matrix(clips, varying)
    return {
        **scope,
        "properties": sorted(properties, key=lambda entry: (-entry["flagged"], -entry["auc"])),
        "combined": {
            model: judge.judged(partial(model_scores, model, matrix, clips.label))
            for model in (MODELS if varying else ())
        },
        "constant": [column for column in clips.columns if column not in varying],
    }


@dataclass
class _Judge:
    """Judges scores of clips by folds: held-out AUC with its interval, and AUC from train to test."""

    clips: _Clips
    folds: Folds
    across: tuple[np.ndarray, np.ndarray] | None
    limit: float
    quantile: float
    n_resamples: int

    def judged(self, score: HeldOutScore) -> dict:
        label = self.clips.label
        held_out = held_out_scores(len(label), self.folds, score)
        auc, error = auc_and_error(label, held_out, self.clips.group, self.n_resamples)
        lower = auc - self.quantile * error
        found = {"auc": auc, "ci": _interval(auc, error), "lower": lower}
        found["flagged"] = auc > self.limit and lower > 0.5
        found["train_to_test"] = None
        if self.across is not None:
            found["train_to_test"] = float(roc_auc_score(label[self.across[1]], score(*self.across)))
        return found


def _interval(auc: float, error: float) -> list[float]:
    return [max(0.0, auc - 1.96 * error), min(1.0, auc + 1.96 * error)]


def _scored_by_bins(values: np.ndarray, label: np.ndarray) -> HeldOutScore:
    return lambda fit, held: bin_scores(values[fit], label[fit], values[held])


def bin_scores(fit_values: np.ndarray, fit_labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """
    Return P(fake) given one property, with both classes counted as equally frequent.

    Numbers are cut at quantiles of either class, ends included, so that a few genuine clips among many fakes are
    resolved too. A value that is itself a quantile, such as a common default, gets a bin of its own. Categories are bins
    already, and unknown is a bin. Shares are smoothed by one clip of the rarer class, so that a new bin scores 0.5. This
    finds any shape of dependence, also "fakes are in the middle"; the direction is learnt from the fitted clips.

    Args:
        fit_values, fit_labels (`np.ndarray` of shape `(n,)`): Clips to fit; numbers (NaN: unknown) or objects.
        values (`np.ndarray` of shape `(m,)`): Clips to score.

    Returns:
        `np.ndarray` of shape `(m,)`: in (0, 1).
    """
    counts = np.bincount(fit_labels, minlength=2)
    if fit_values.dtype == object:
        names = {name: index for index, name in enumerate(sorted(set(fit_values.tolist())))}
        bins = [
            np.array([names.get(value, len(names)) for value in x.tolist()], int)
            for x in (fit_values, values)
        ]
    else:
        cuts = np.linspace(0, 1, int(np.clip(counts.min() // 5, 2, 10)) + 1)
        known = [fit_values[(fit_labels == label) & ~np.isnan(fit_values)] for label in (0, 1)]
        edges = np.unique([edge for found in known if len(found) for edge in np.quantile(found, cuts)])
        bins = []
        for x in (fit_values, values):
            place = np.searchsorted(edges, x, "left") + np.searchsorted(edges, x, "right")
            bins.append(np.where(np.isnan(x), 2 * len(edges) + 1, place))
    number = max(int(found.max(initial=0)) for found in bins) + 1
    smoothing = 1 / counts.min()
    shares = [
        (np.bincount(bins[0][fit_labels == label], minlength=number) / counts[label] + smoothing)
        for label in (0, 1)
    ]
    return (shares[1] / (shares[0] + shares[1]))[bins[1]]


def auc_and_error(
    labels: np.ndarray, scores: np.ndarray, groups: np.ndarray, n_resamples: int = RESAMPLES
) -> tuple[float, float]:
    """
    Return the AUC and its standard error.

    The error is the larger of two: that over bootstrap samples of whole groups, and that of a useless score
    (Mann-Whitney), without which a perfect separation of a few clips would have no error.

    Args:
        labels, scores, groups (`np.ndarray` of shape `(n,)`): 0 and 1, any numbers, integers from 0.
        n_resamples (`int`, *optional*, defaults to 200): Bootstrap samples.
    """
    ranked = RankedScores(labels, scores)
    clusters = np.unique(groups, return_inverse=True)[1]
    aucs = [ranked(weights) for weights in resampled_weights(clusters, n_resamples)]
    aucs = [auc for auc in aucs if auc is not None]
    n_fake = int(labels.sum())
    n_real = len(labels) - n_fake
    by_chance = math.sqrt((n_fake + n_real + 1) / (12 * n_fake * n_real))
    return float(roc_auc_score(labels, scores)), max(float(np.std(aucs)), by_chance)


def _by_class(values: np.ndarray, labels: np.ndarray, column: str) -> dict:
    """Describe how the classes differ, in-sample, for a reader."""
    entry = {"rank_auc": None, "larger_in": None}
    for name, label in (("real", 0), ("fake", 1)):
        found = values[labels == label]
        if column in CATEGORICAL:
            value, count = Counter(found.tolist()).most_common(1)[0]
            entry[name] = {"value": value or None, "share": count / len(found)}
        else:
            known = found[~np.isnan(found)]
            median = float(np.median(known)) if len(known) else None
            entry[name] = {"value": median, "share": len(known) / len(found)}
    if column in NUMERIC:
        known = ~np.isnan(values)
        if len(set(labels[known].tolist())) == 2:
            auc = float(roc_auc_score(labels[known], values[known]))
            entry["rank_auc"] = max(auc, 1 - auc)
            entry["larger_in"] = "fake" if auc > 0.5 else "real" if auc < 0.5 else None
    return entry


def _matrix(clips: _Clips, names: list[str]) -> np.ndarray:
    """Return all properties as numbers `(n, d)`: a column for each number and each category of at least two clips."""
    columns = []
    for name in names:
        values = clips.columns[name]
        if name in NUMERIC:
            columns.append(values)
        else:
            common = [value for value, count in sorted(Counter(values.tolist()).items()) if count > 1]
            columns += [(values == value).astype(float) for value in common]
    return np.stack(columns, axis=1) if columns else np.zeros((len(clips.label), 1))


def _trimming(clips: _Clips, records: dict[str, dict], n_resamples: int) -> dict | None:
    """Measure the leading silence as a score, before and after [`MediaReader`] trimmed it."""
    trimmed = [records[row["path"]]["trimmed"] for row in clips.rows]
    heard = np.array([entry is not None for entry in trimmed])
    part = clips.part(heard)
    trimmed = [entry for entry in trimmed if entry is not None]
    if part.why_not() is not None:
        return None
    folds = part.folds()
    report = {"seconds": {}}
    seconds = np.array([entry["seconds"] for entry in trimmed])
    for name, label in (("real", 0), ("fake", 1)):
        found = seconds[part.label == label]
        report["seconds"][name] = {"median": float(np.median(found)), "max": float(found.max())}
    for name in ("leading_silence", "leading_digital_silence"):
        after = _column([entry[name] for entry in trimmed], name)
        report[name] = {}
        for when, values in (("before", part.columns[name]), ("after", after)):
            score = held_out_scores(len(values), folds, _scored_by_bins(values, part.label))
            auc, error = auc_and_error(part.label, score, part.group, n_resamples)
            report[name][when] = {"auc": auc, "ci": _interval(auc, error)}
    return report

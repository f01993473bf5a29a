"""The figures of the benchmark: each comparison of fakes with genuine recordings, for every detector side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...configuration_detector import LOG_ODDS_NAMES, SCORE_NAMES
from ...explain.words import PART_NAMES, count_of
from ..audit.shortcuts import groups_of
from ..measured_properties import property_baseline
from ..predictions import LABEL_OF
from ..ranking import mean_over_kinds_auc, overall_auc, share_of, within_groups_auc
from .matched_pairs import RULE, match_pairs

BASELINE = "file properties"
"""Name of the column of the classifier that sees nothing but file properties."""
PLURALS = {"person": "people", "speaker": "speakers", "sentence": "sentences"}


@dataclass
class Detector:
    """
    A detector's scores of the benchmark's files.

    Args:
        name (`str`): Name of its column.
        scores (`dict`): By path a `dict` of `score`, `video_score` and `audio_score`; None where there is none.
        threshold (`float`, *optional*): Score from which it calls a file fake.
        abstain_band (`tuple[float, float]`, *optional*): Scores in which its verdict is uncertain.
        reasons (`dict`): By path why there is no score.
        about (`dict`): Facts for the report, such as the hash of its weights.
    """

    name: str
    scores: dict[str, dict]
    threshold: float | None = None
    abstain_band: Sequence[float] | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    about: dict = field(default_factory=dict)


def people_of(rows: list[dict]) -> list[str]:
    """
    Return for each row the person, whose recordings folds and intervals keep together.

    That is the identity, or else that of the genuine clip that the fake was made from, or else that of another recording
    of the same pair; or else the pair, the genuine clip and its fakes, or the file alone.
    """
    people = groups_of(rows)
    of_pair: dict[str, str] = {}
    for row, person in zip(rows, people, strict=True):
        if row.get("pair_id") and row.get("identity"):
            of_pair.setdefault(row["pair_id"], person)
    return [
        person
        if row.get("identity") or not row.get("pair_id")
        else of_pair.get(row["pair_id"], f"pair {row['pair_id']}")
        for row, person in zip(rows, people, strict=True)
    ]


def benchmark_tables(
    rows: list[dict],
    detectors: Sequence[Detector],
    properties: dict[str, dict],
    protocol: str = "clips",
    n_resamples: int = 1000,
) -> dict:
    """
    Compute every figure of the benchmark from scores.

    All columns of a table are of the same files: those that every detector gave a score to, and whose properties are
    known.

    Args:
        rows (`list[dict]`): Rows of the dataset `wild`, without the media.
        detectors (`Sequence[Detector]`): Their scores.
        properties (`dict`): Properties of each file by `path`, see [`clip_properties`] and [`speech_properties`].
        protocol (`str`, *optional*, defaults to `"clips"`): `"clips"`, `"speech"` or `"photos"`.
        n_resamples (`int`, *optional*, defaults to 1000): Resamples of the bootstrap by person; 0 for no intervals.

    Returns:
        `dict`:

        - **tables** -- Each with `title`, `part`, `notes` and `rows`. A row has `name`, `n_real`, `n_fake`, `clusters`
          (people) and `columns`: by detector, and for [`BASELINE`], `auc` and `ci` (95 %), None where undefined; `groups`
          or `kinds` has the AUC of each person, pair or system.
        - **verdicts** -- For each detector with a threshold the shares of genuine files and fakes that it calls fake and
          that it is uncertain about, each with its interval.
        - **pairs** -- Paths of fake and genuine clip of each matched pair; **rule** says how they were found.
        - **baseline** -- For each part, the classifier of file properties and its scores by path, or why there is none.
        - **dropped** -- `path`, `reason` and `detector` of every file that is in no figure.
    """
    dropped, used = [], []
    for row in rows:
        reasons = _reasons(row["path"], detectors, properties)
        dropped += reasons
        used += [] if reasons else [row]
    found = {"tables": [], "verdicts": [], "pairs": [], "rule": None, "baseline": {}, "dropped": dropped}
    people = people_of(used)
    names = [detector.name for detector in detectors]
    baselines: dict[tuple, dict] = {}
    # A recording of speech has one verdict: there is no picture, and the sound is the whole.
    parts = ("overall",) if protocol == "speech" else tuple(SCORE_NAMES)
    for part in parts:
        view = _view_of(part, used, people, detectors, protocol, n_resamples)
        if view is None:
            continue
        records = [properties[row["path"]] for row in view.rows]
        paths = [row["path"] for row in view.rows]
        labelled = (tuple(paths), tuple(view.labels.tolist()))
        if labelled not in baselines:  # picture and whole clip often have the same files and labels
            baselines[labelled] = property_baseline(records, view.labels, view.people)
        baseline = baselines[labelled]
        found["baseline"][part] = baseline
        if baseline["scores"] is not None:
            view.columns[BASELINE] = baseline["scores"]
            by_path = dict(zip(paths, baseline["scores"].tolist(), strict=True))
            found["baseline"][part] = {**baseline, "scores": by_path}
        if protocol == "clips":
            view.pairs = match_pairs(records, view.labels, paths)
            if part == "overall":
                found["pairs"] = [[paths[i] for i in pair] for pair in view.pairs]
                found["rule"] = RULE
        found["tables"] += view.tables(len(used), names)
    found["verdicts"] = [
        _verdicts(d, used, people, n_resamples) for d in detectors if d.threshold is not None
    ]
    return found


def _reasons(path: str, detectors: Sequence[Detector], properties: dict[str, dict]) -> list[dict]:
    reasons = [
        {"path": path, "detector": d.name, "reason": d.reasons.get(path, "no score")}
        for d in detectors
        if (d.scores.get(path) or {}).get("score") is None
    ]
    if path not in properties and not reasons:
        reasons = [{"path": path, "detector": BASELINE, "reason": "its properties could not be measured"}]
    return reasons


@dataclass
class _View:
    """The files of one part of the verdict, with the scores of every column."""

    part: str
    protocol: str
    rows: list[dict]
    labels: np.ndarray
    people: list[str]
    columns: dict[str, np.ndarray]
    n_resamples: int
    pairs: list[tuple[int, int]] = field(default_factory=list)

    def tables(self, used: int, names: list[str]) -> list[dict]:
        title = {"overall": "Whole recording"}.get(self.part, f"Verdict on the {PART_NAMES[self.part]}")
        tables = [self._table(title, self._main_rows(), self._notes(used, names))]
        kinds = ("kind", "system") if self.protocol == "speech" else ("family", "generator")
        if self.part == "overall":
            for kind in kinds:
                if by_kind := self._kind_rows(kind):
                    tables.append(self._table(f"By {kind}", by_kind, []))
        return tables

    def _table(self, title: str, rows: list[dict], notes: list[str]) -> dict:
        return {"title": title, "part": self.part, "notes": notes, "rows": rows}

    def _notes(self, used: int, names: list[str]) -> list[str]:
        notes = []
        if len(self.rows) < used:
            notes.append(
                f"{count_of(used - len(self.rows), 'file')} without a known label or a score of the "
                f"{PART_NAMES[self.part]} are left out here."
            )
        without = [name for name in names if name not in self.columns]
        if without:
            notes.append(f"No scores of the {PART_NAMES[self.part]}: {', '.join(without)}.")
        if BASELINE not in self.columns:
            notes.append("Too few files of a class to measure file properties alone.")
        return notes

    def _main_rows(self) -> list[dict]:
        rows = [self._row("all against all", self._over(overall_auc, self.people))]
        rows.append(self._within("", "speaker" if self.protocol == "speech" else "person", self.people))
        if self.protocol == "speech":
            systems = [row.get("system") for row in self.rows]
            mean = self._over(mean_over_kinds_auc, systems, self.people)
            rows.append(self._row("mean over systems", mean))
            rows.append(self._within("", "sentence", self._sentences(), self.people))
        elif self.pairs:
            rows.append(self._matched())
        return rows

    def _sentences(self) -> list[str | None]:
        return [row.get("pair_id") for row in self.rows]

    def _within(
        self, name: str, noun: str, groups: Sequence, clusters: Sequence | None = None, keep=None
    ) -> dict:
        row = self._row("", self._over(within_groups_auc, groups, clusters, keep=keep))
        number = len(next(iter(row["columns"].values()))["groups"])
        counted = f"{number} {noun if number == 1 else PLURALS[noun]}"
        return {**row, "name": f"{name}, " * bool(name) + f"within one {noun} ({counted})"}

    def _matched(self) -> dict:
        inside = np.zeros(len(self.rows), bool)
        inside[[place for pair in self.pairs for place in pair]] = True
        row = self._row("", self._over(overall_auc, self.people, keep=inside))
        return {**row, "name": f"matched files ({len(self.pairs)} pairs)"}

    def _kind_rows(self, kind: str) -> list[dict]:
        """Return rows for each kind of fake: against all genuine files, and against those of the same people."""
        speech = self.protocol == "speech"
        noun, groups = ("sentence", self._sentences()) if speech else ("person", self.people)
        kinds = [row.get(kind) if label else None for row, label in zip(self.rows, self.labels, strict=True)]
        if len({name for name in kinds if name is not None}) < 2:
            return []
        kinds = [name or "unknown" for name in kinds]
        counts = Counter(name for name, label in zip(kinds, self.labels, strict=True) if label)
        rows = []
        for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            keep = (self.labels == 0) | (np.array(kinds, object) == name)
            rows.append(self._row(name, self._over(overall_auc, self.people, keep=keep)) | {"kind": name})
            within = self._within(name, noun, groups, self.people if speech else None, keep)
            if within["n_fake"]:
                rows.append(within | {"kind": name})
        return rows

    def _over(self, measure: Callable[..., dict], *groupings: Sequence | None, keep=None) -> dict[str, dict]:
        """Return a measure of every column, over the files of a mask."""
        places = np.arange(len(self.rows)) if keep is None else np.flatnonzero(keep)
        chosen = [None if grouping is None else [grouping[i] for i in places] for grouping in groupings]
        return {
            name: measure(self.labels[places], scores[places], *chosen, n_resamples=self.n_resamples)
            for name, scores in self.columns.items()
        }

    def _row(self, name: str, columns: dict[str, dict]) -> dict:
        sizes = {key: next(iter(columns.values()))[key] for key in ("n_real", "n_fake", "clusters")}
        kept = ("auc", "ci", "groups", "kinds")
        return {
            "name": name,
            **sizes,
            "columns": {c: {k: f[k] for k in kept if k in f} for c, f in columns.items()},
        }


def _view_of(
    part: str,
    rows: list[dict],
    people: list[str],
    detectors: Sequence[Detector],
    protocol: str,
    n_resamples: int,
) -> _View | None:
    """Return the files with a label and scores of a part, or None if these are not of both classes."""
    column = SCORE_NAMES[part]
    chosen = [i for i, row in enumerate(rows) if row.get(LABEL_OF[column]) is not None]
    able = [d for d in detectors if any(d.scores[rows[i]["path"]][column] is not None for i in chosen)]
    chosen = [i for i in chosen if all(d.scores[rows[i]["path"]][column] is not None for d in able)]
    part_rows = [rows[i] for i in chosen]
    labels = np.array([row[LABEL_OF[column]] for row in part_rows])
    if not able or len(set(labels.tolist())) < 2:
        return None
    return _View(
        part=part,
        protocol=protocol,
        rows=part_rows,
        labels=labels,
        people=[people[i] for i in chosen],
        columns={d.name: _ranking(d, part, part_rows) for d in able},
        n_resamples=n_resamples,
    )


def _ranking(detector: Detector, part: str, rows: list[dict]) -> np.ndarray:
    """Return numbers that rank files by a detector: log-odds, which do not tie where scores are 1, or else its scores."""
    scores = [detector.scores[row["path"]] for row in rows]
    log_odds = [found.get(LOG_ODDS_NAMES[part]) for found in scores]
    return np.array([found[SCORE_NAMES[part]] for found in scores] if None in log_odds else log_odds)


def _verdicts(detector: Detector, rows: list[dict], people: list[str], n_resamples: int) -> dict:
    """Return how often a detector calls genuine files and fakes fake, and how often it is uncertain."""
    low, high = detector.abstain_band or (1.0, 0.0)
    found = {
        "detector": detector.name,
        "threshold": detector.threshold,
        "abstain_band": detector.abstain_band,
    }
    for label, name in enumerate(("real", "fake")):
        places = [i for i, row in enumerate(rows) if row["label"] == label]
        scores = np.array([detector.scores[rows[i]["path"]]["score"] for i in places], float)
        clusters = [people[i] for i in places]
        uncertain = (scores >= low) & (scores <= high)
        called = scores >= detector.threshold
        found[name] = {
            "called_fake": share_of(called, clusters, n_resamples),
            "uncertain": share_of(uncertain, clusters, n_resamples),
            "called_fake_for_sure": share_of(called & ~uncertain, clusters, n_resamples),
        }
    return found

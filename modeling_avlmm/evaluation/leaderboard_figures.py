"""The figures of a leaderboard: of each detector on a set of clips, and of file properties on the same clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..configuration_detector import PARTS, SCORE_NAMES
from .comparison import Run, scores_of
from .comparison_statistics import METRICS, paired_figures
from .measured_properties import property_baseline
from .metrics import SureScores
from .predictions import LABEL_OF
from .ranking import overall_auc, within_groups_auc
from .wild.benchmark_tables import people_of
from .wild.matched_pairs import match_pairs

_COMPARED = ("baseline", "over_baseline", "to_first", "within", "matched", "parts")


class Subject:
    """
    Detectors on the clips that all of them scored.

    Args:
        runs (`dict[str, Run]`): Runs by the name of their file.
        paths (`Sequence[str]`): The clips.
        properties (`dict`): Properties of the clips' files by path; empty if none are known.
        n_resamples (`int`), seed (`int`): Of the bootstrap by person; 0 resamples for no intervals.
    """

    def __init__(
        self, runs: dict[str, Run], paths: Sequence[str], properties: dict, n_resamples: int, seed: int
    ):
        self.runs = runs
        self.paths = list(paths)
        self.n_resamples, self.seed = n_resamples, seed
        first = next(iter(runs.values())).clips
        self.clips = [first[path] for path in self.paths]
        self.labels = np.array([p["label"] for p in self.clips])
        self.people = people_of(self.clips)
        self.records = _records(self.paths, properties)
        self.baseline = (
            property_baseline(self.records, self.labels, self.people)
            if self.records
            else {"scores": None}  # which the table says once
        )

    def figures(self) -> dict[str, dict]:
        """
        Return the figures of each detector by its file.

        Returns:
            `dict`: by metric `value` and `ci` (95 %), `undefined` (why there are none, or None); **baseline** (the same of
            the classifier of file properties, or None), **baseline_undefined**, **over_baseline** (AUC minus that of file
            properties) and **to_first** (AUC minus that of the best), each with `value`, `ci` and DeLong's `p`;
            **within** and **matched** (AUC within one person and on matched files) and **parts** (AUC of picture and sound).
        """
        scores = [[scores_of(run, self.paths)] for run in self.runs.values()]
        thresholds = [[run.threshold] for run in self.runs.values()]
        alone = self.baseline["scores"]
        if alone is not None:
            scores, thresholds = [*scores, [alone.tolist()]], [*thresholds, [0.5]]
        found = paired_figures(self.labels, scores, thresholds, self.people, self.n_resamples, self.seed)
        about = {
            "undefined": found.get("undefined"),
            "no_interval": found.get("no_interval"),
            "baseline_model": self.baseline.get("model"),
            "baseline_undefined": self.baseline.get("undefined"),
        }
        if about["undefined"]:
            return {name: about | dict.fromkeys((*METRICS, *_COMPARED)) for name in self.runs}
        pairs = {(pair["first"], pair["second"]): pair["auc"] for pair in found["differences"]}
        best = int(np.argmax([entry["auc"]["value"] for entry in found["entries"][: len(self.runs)]]))
        matched = self._matched()
        return {
            name: {
                **about,
                **_plain(found["entries"][at]),
                "baseline": None if alone is None else _plain(found["entries"][-1]),
                "over_baseline": None if alone is None else _difference(pairs, at, len(self.runs)),
                "to_first": None if at == best else _difference(pairs, at, best),
                "within": self._within(run),
                "matched": matched and self._on(matched, run),
                "parts": {part: self._part(run, part) for part in PARTS if part != "overall"},
            }
            for at, (name, run) in enumerate(self.runs.items())
        }

    def _within(self, run: Run) -> dict | None:
        """Return the AUC within one person of a detector and of file properties; None if nobody has both classes."""
        found = {}
        for name, scores in self._columns(run).items():
            found[name] = within_groups_auc(self.labels, scores, self.people, n_resamples=self.n_resamples)
        if not found["detector"]["groups"]:
            return None
        return {"people": len(found["detector"]["groups"]), **_auc_and_ci(found)}

    def _matched(self) -> list[int] | None:
        """Return the places of the clips in pairs that are alike as files, or None if there are none."""
        if not self.records or "width" not in self.records[0]:
            return None
        pairs = match_pairs(self.records, self.labels.tolist(), self.paths)
        return sorted(place for pair in pairs for place in pair) or None

    def _on(self, places: list[int], run: Run) -> dict:
        people = [self.people[place] for place in places]
        found = {
            name: overall_auc(self.labels[places], scores[places], people, self.n_resamples)
            for name, scores in self._columns(run).items()
        }
        return {"pairs": len(places) // 2, **_auc_and_ci(found)}

    def _columns(self, run: Run) -> dict[str, np.ndarray]:
        """Return numbers that rank the clips by a detector, and by file properties if these are known."""
        columns = {"detector": _ranking(scores_of(run, self.paths))}
        if self.baseline["scores"] is not None:
            columns["baseline"] = np.asarray(self.baseline["scores"])
        return columns

    def _part(self, run: Run, part: str) -> dict | None:
        """Return AUC and interval of the verdict on the picture or the sound, or None without scores of both classes."""
        score = SCORE_NAMES[part]
        known = [
            place
            for place, path in enumerate(self.paths)
            if run.clips[path][score] is not None and run.clips[path].get(LABEL_OF[score]) is not None
        ]
        labels = np.array([run.clips[self.paths[place]][LABEL_OF[score]] for place in known])
        if len(set(labels.tolist())) < 2:
            return None
        ranking = _ranking(scores_of(run, [self.paths[place] for place in known], part))
        found = overall_auc(labels, ranking, [self.people[place] for place in known], self.n_resamples)
        return {"auc": found["auc"], "ci": found["ci"], "clips": len(known)}


def _records(paths: Sequence[str], properties: dict[str, dict]) -> list[dict]:
    """Return the properties of each clip, unknown ones as None; empty if none are known."""
    names = list(dict.fromkeys(name for record in properties.values() for name in record))
    return [{name: properties.get(path, {}).get(name) for name in names} for path in paths] if names else []


def _ranking(scores: Sequence[float] | SureScores) -> np.ndarray:
    return np.asarray(scores.log_odds if isinstance(scores, SureScores) else scores, dtype=float)


def _plain(entry: dict) -> dict:
    return {metric: {"value": entry[metric]["value"], "ci": entry[metric]["ci"]} for metric in METRICS}


def _difference(pairs: dict[tuple[int, int], dict], first: int, second: int) -> dict:
    """Return value, interval and DeLong's p of the AUC of one minus that of another."""
    turned = first > second
    found = pairs[(second, first) if turned else (first, second)]
    value, ci = found["value"], found["ci"]
    if turned:
        value, ci = -value, ci and [-ci[1], -ci[0]]
    return {"value": value, "ci": ci, "p": found["delong"]["p"]}


def _auc_and_ci(found: dict[str, dict]) -> dict[str, dict]:
    return {name: {"value": of["auc"], "ci": of["ci"]} for name, of in found.items()}

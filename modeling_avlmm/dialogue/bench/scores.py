"""Scores of the bench: answers, clip by clip, against what is known and measured, beside a baseline that never looks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from ...configuration_detector import LABELS
from ...evaluation.errors import EvaluationError
from ...evaluation.metrics import cluster_bootstrap, detection_metrics
from ...explain.regions import FACE_REGIONS, SOUND_BANDS
from ..analyst import DESCRIPTION_QUESTION, FAMILY_QUESTION
from ..answer_parsing import family_in, first_place, verdict_of
from ..phrasing import bands_text, named_in, regions_text, segments_text
from .answer_metrics import (
    calibrated_pointing,
    confusion,
    kappas,
    macro_f1,
    mean_balanced_accuracy,
    mean_kappa,
    most_frequent,
    pointing_chance,
    rouge_l,
    set_overlap,
    time_overlap,
)

QUESTIONS = {
    "asked_fake": "Is this clip fake?",
    "asked_real": "Is this clip real?",
    "classification": FAMILY_QUESTION,
    "description": DESCRIPTION_QUESTION,
}
PLACES = {"region": FACE_REGIONS, "band": SOUND_BANDS}


def bench_report(
    clips: Mapping[str, dict], answers: Mapping[str, dict], threshold: float = 0.5, n_resamples: int = 1000
) -> dict:
    """
    Scores answers.

    Args:
        clips (`dict[str, dict]`): As of [`known_clips`].
        answers (`dict[str, dict]`): As of [`collect_answers`].
        threshold (`float`, *optional*, defaults to 0.5): Of the scored verdict.
        n_resamples (`int`, *optional*, defaults to 1000): Of the bootstrap over identities; 0 for no intervals.

    Returns:
        `dict`: `clips`, `unreadable` (path to error), `scored` (metrics of the verdict's score), `measures` (name to
        `n`, `value`, `baseline`, `difference`, `ci` and `unparsable`), `confusion`, `baselines` (what they say),
        `pointing_chance`, `places` (for `region` and `band` each place with the shares of clips in which it was `changed`
        and `named`, and `kappa`, None where it was changed in none or all).
        An answer that cannot be read counts as wrong, and is counted.
    """
    unreadable = {path: entry["error"] for path, entry in answers.items() if entry["error"] is not None}
    paths = [path for path, entry in answers.items() if entry["error"] is None and path in clips]
    if not paths:
        raise EvaluationError(f"None of {len(answers)} clips could be read, so there is nothing to report.")
    known = [clips[path] for path in paths]
    said = [answers[path]["answers"] for path in paths]
    groups = [clip["identity"] for clip in known]
    labels = [clip["label"] for clip in known]
    scores = [answers[path]["score"] for path in paths]
    baselines = baseline_answers(known)
    constant = [baselines["answers"]] * len(known)

    measures = {}
    own, other = columns_of(known, said), columns_of(known, constant)
    other["pointing_region"] = np.where(
        np.isnan(own["pointing_region"]), np.nan, [float(baselines["region"] in c["regions"]) for c in known]
    )
    unparsable = unparsable_of(known, said)
    for name, column in own.items():
        measures[name] = _measure(_mean, column, other[name], groups, n_resamples)
        measures[name]["unparsable"] = unparsable.get(name)
    families = [clip["family"] for clip in known]
    rated = [index for index, family in enumerate(families) if family is not None]
    if rated:
        true = [families[i] for i in rated]
        named = [family_in(said[i]["classification"]) for i in rated]
        always = [baselines["family"]] * len(rated)
        of_rated = [groups[i] for i in rated]
        for name, statistic in (
            ("family_macro_f1", lambda f, w: macro_f1(true, f, w)),
            (
                "family_accuracy",
                lambda f, w: _mean(np.array([a == b for a, b in zip(f, true, strict=True)], float), w),
            ),
        ):
            measures[name] = _measure(statistic, named, always, of_rated, n_resamples)
            measures[name] |= {"n": len(rated), "unparsable": sum(x is None for x in named)}
    places = {}
    for kind in PLACES:
        more, places[kind] = place_measures(kind, known, said, baselines, groups, n_resamples)
        measures |= more
    pointed = [set(clip["regions"]) for clip in known if clip["regions"]]
    return {
        "clips": len(answers),
        "asked": len(paths),
        "unreadable": unreadable,
        "scored": detection_metrics(labels, scores, threshold, groups, n_resamples),
        "measures": measures,
        "confusion": confusion(true, named) if rated else {},
        "baselines": baselines,
        "pointing_chance": pointing_chance(pointed, list(FACE_REGIONS)) if pointed else None,
        "places": places,
    }


def place_measures(
    kind: str,
    known: Sequence[dict],
    said: Sequence[dict],
    baselines: dict,
    groups: Sequence,
    n_resamples: int,
) -> tuple[dict[str, dict], dict[str, dict]]:
    """
    Measures of regions, or bands, that an answer which never looks cannot win; and a table of every place.

    Taken over the fakes of which a changed place is known. The answer of the baseline is the same for every clip, so it
    has a kappa of 0, a balanced accuracy of 0.5 and a calibrated pointing of 0.
    """
    asked = [index for index, clip in enumerate(known) if clip[f"{kind}s"]]
    if not asked:
        return {}, {}
    names = [name for name in PLACES[kind] if name != "outside"]
    true = [set(known[index][f"{kind}s"]) for index in asked]
    texts = [said[index]["description"] for index in asked]
    found = [set(getattr(named_in(text), f"{kind}s")) for text in texts]
    first = [first_place(text, kind == "band") for text in texts]
    usual = set(getattr(named_in(baselines["answers"]["description"]), f"{kind}s"))
    of_asked = [groups[index] for index in asked]
    count = len(asked)

    def measured(statistic, own, other) -> dict:
        return {**_measure(statistic, own, other, of_asked, n_resamples), "unparsable": None}

    measures = {
        f"{kind}_kappa": measured(lambda f, w: mean_kappa(f, true, names, w), found, [usual] * count),
        f"{kind}_balanced_accuracy": measured(
            lambda f, w: mean_balanced_accuracy(f, true, names, w), found, [usual] * count
        ),
        f"pointing_{kind}_calibrated": measured(
            lambda f, w: calibrated_pointing(f, true, w), first, [baselines[kind]] * count
        ),
    }
    if kind == "region":  # bands are told by frequency, regions by strength
        strongest = [known[index]["regions"][0] for index in asked]
        own, other = (
            np.array([a == b for a, b in zip(pointed, strongest, strict=True)], dtype=float)
            for pointed in (first, [most_frequent(strongest)] * count)
        )
        measures["strongest_region"] = measured(_mean, own, other)
    of_place = kappas(found, true, names)
    table = {
        name: {
            "changed": float(np.mean([name in places for places in true])),
            "named": float(np.mean([name in places for places in found])),
            "kappa": of_place.get(name),
        }
        for name in names
    }
    return measures, table


def baseline_answers(known: Sequence[dict]) -> dict:
    """
    What someone says who never looks: the commonest verdict and family, and one description of the commonest tracks,
    regions, bands and times, each among the clips of which it is known.

    They are taken from the clips that are scored, which favours the baseline.
    """
    label = most_frequent([clip["label"] for clip in known])
    families = [clip["family"] for clip in known if clip["family"] is not None]
    regions, bands = ([name for clip in known for name in clip[kind]] for kind in ("regions", "bands"))
    told = [clip for clip in known if clip["label"] == 1] or list(known)

    def usual(name: str) -> list:
        """The commonest value of a fact, among the clips of which it is known."""
        # Which regions, and not in which order.
        values = [clip[name] for clip in told if clip[name]]
        if name == "regions":
            values = [sorted(value, key=list(FACE_REGIONS).index) for value in values]
        values = [json.dumps(value) for value in values]
        return json.loads(most_frequent(values)) if values else []

    tracks = usual("modalities")
    sentences = [
        f"The {' and the '.join(tracks)} {'were' if len(tracks) > 1 else 'was'} manipulated."
        if tracks
        else ""
    ]
    for name, words, lead in (
        ("regions", regions_text, "Look at"),
        ("bands", bands_text, "Listen for it"),
        ("segments", segments_text, "It is evident from"),
    ):
        if value := usual(name):
            sentences.append(f"{lead} {words(value)}.")
    description = " ".join(sentences).strip()
    return {
        "label": LABELS[label],
        "family": most_frequent(families) if families else None,
        "region": most_frequent(regions) if regions else None,
        "band": most_frequent(bands) if bands else None,
        "answers": {
            "asked_fake": "Yes." if label else "No.",
            "asked_real": "No." if label else "Yes.",
            "classification": "",
            "description": description,
        },
    }


def columns_of(known: Sequence[dict], said: Sequence[dict]) -> dict[str, np.ndarray]:
    """For each measure its value of every clip, NaN where it does not apply."""
    columns: dict[str, list[float]] = {}

    def put(name: str, value: float | None) -> None:
        columns.setdefault(name, []).append(float("nan") if value is None else float(value))

    for clip, answers in zip(known, said, strict=True):
        verdicts = {key: verdict_of(answers[key], QUESTIONS[key]) for key in ("asked_fake", "asked_real")}
        for key, verdict in verdicts.items():
            put(f"verdict_{key}", verdict == clip["label"])
        put("verdict_both_ways", all(verdict == clip["label"] for verdict in verdicts.values()))
        text = answers["description"]
        named, fake = named_in(text), clip["label"] == 1
        put(
            "clean_when_genuine",
            None if fake else not (named.regions or named.bands or verdict_of(text) == 1),
        )
        put("modality", named.modalities == set(clip["modalities"]) if fake and clip["modalities"] else None)
        for kind, found in (("region", named.regions), ("band", named.bands)):
            true = set(clip[f"{kind}s"])
            iou, f1 = set_overlap(set(found), true) if true else (None, None)
            put(f"{kind}_iou", iou)
            put(f"{kind}_f1", f1)
            put(f"pointing_{kind}", first_place(text, kind == "band") in true if true else None)
        iou, f1 = time_overlap(sorted(named.segments), clip["segments"]) if clip["segments"] else (None, None)
        put("time_iou", iou)
        put("time_f1", f1)
        put("rouge_l", rouge_l(text, clip["reference"]))
    return {name: np.array(values) for name, values in columns.items()}


def unparsable_of(known: Sequence[dict], said: Sequence[dict]) -> dict[str, int]:
    """How many answers could not be read; each of them is wrong."""
    counts = {
        f"verdict_{key}": sum(verdict_of(answers[key], QUESTIONS[key]) is None for answers in said)
        for key in ("asked_fake", "asked_real")
    }
    counts["modality"] = sum(
        not named_in(answers["description"]).modalities
        for clip, answers in zip(known, said, strict=True)
        if clip["label"] == 1 and clip["modalities"]
    )
    return counts


def _mean(values: np.ndarray, weights: np.ndarray) -> float | None:
    rated = ~np.isnan(values)
    total = weights[rated].sum()
    return float((values[rated] * weights[rated]).sum() / total) if total > 0 else None


def _measure(statistic, own, other, groups: Sequence, n_resamples: int) -> dict:
    """A measure of the model and of the baseline, and how much they differ, with intervals."""

    def values(weights: np.ndarray) -> dict[str, float] | None:
        pair = statistic(own, weights), statistic(other, weights)
        if None in pair:
            return None
        return {"value": pair[0], "baseline": pair[1], "difference": pair[0] - pair[1]}

    plain = values(np.ones(len(own))) or dict.fromkeys(("value", "baseline", "difference"))
    count = int((~np.isnan(own)).sum()) if isinstance(own, np.ndarray) else len(own)
    # What cannot be computed, such as agreement where all clips are alike, is of no clip.
    result = {"n": 0 if plain["value"] is None else count, **plain, "ci": None}
    if n_resamples and plain["value"] is not None:
        result["ci"] = cluster_bootstrap(values, len(own), groups, n_resamples)["ci"]
    return result


__all__ = ["QUESTIONS", "baseline_answers", "bench_report"]

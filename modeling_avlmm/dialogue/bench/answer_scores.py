"""Scores of the bench: answers against what is known of each clip, beside a baseline that never looks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...configuration_detector import LABELS
from ...evaluation.evaluation_error import EvaluationError
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
"""Questions asked about every clip."""
PLACES = {"region": FACE_REGIONS, "band": SOUND_BANDS}

Statistic = Callable[[Sequence, np.ndarray], "float | None"]
"""A number from one value for each clip and the clips' weights."""


@dataclass(frozen=True)
class _Asked:
    """The readable clips: what is known of each, what was answered, and what the baseline answers."""

    known: list[dict]
    said: list[dict]
    baselines: dict
    n_resamples: int

    def compare(
        self,
        statistic: Statistic,
        own: Sequence,
        other: Sequence,
        clips: Sequence[int] | None = None,
        unparsable: int | None = None,
    ) -> dict:
        """
        Return a measure of the model and of the baseline, with their difference and intervals.

        Args:
            statistic (`Callable`): The measure.
            own, other (`Sequence`): Values of the model and of the baseline, one for each clip.
            clips (`Sequence[int]`, *optional*): Numbers of the clips that the values belong to. Defaults to all.
            unparsable (`int`, *optional*): Answers that could not be read.
        """

        def values(weights: np.ndarray) -> dict[str, float] | None:
            pair = statistic(own, weights), statistic(other, weights)
            if None in pair:
                return None
            return {"value": pair[0], "baseline": pair[1], "difference": pair[0] - pair[1]}

        plain = values(np.ones(len(own))) or dict.fromkeys(("value", "baseline", "difference"))
        count = int((~np.isnan(own)).sum()) if isinstance(own, np.ndarray) else len(own)
        # A measure that cannot be computed, such as agreement where all clips are alike, counts no clip.
        result = {"n": 0 if plain["value"] is None else count, **plain, "ci": None}
        if self.n_resamples and plain["value"] is not None:
            clips = range(len(self.known)) if clips is None else clips
            people = [self.known[index]["identity"] for index in clips]
            result["ci"] = cluster_bootstrap(values, len(own), people, self.n_resamples)["ci"]
        return {**result, "unparsable": unparsable}


def bench_report(
    clips: Mapping[str, dict], answers: Mapping[str, dict], threshold: float = 0.5, n_resamples: int = 1000
) -> dict:
    """
    Score answers. An answer that cannot be read is wrong, and is counted.

    Args:
        clips (`dict[str, dict]`): Result of [`known_clips`].
        answers (`dict[str, dict]`): Result of [`collect_answers`].
        threshold (`float`, *optional*, defaults to 0.5): Threshold of the scored verdict.
        n_resamples (`int`, *optional*, defaults to 1000): Bootstrap samples over identities; 0 for no intervals.

    Returns:
        `dict`:

        - `clips`, `asked` -- numbers of clips, and of those that could be read;
        - `unreadable` -- path -> error;
        - `scored` -- metrics of the verdict's score;
        - `measures` -- name -> `n`, `value`, `baseline`, `difference`, `ci` and `unparsable`;
        - `confusion` -- families, see [`confusion`];
        - `baselines` -- the baseline's answers;
        - `pointing_chance` -- hits of pointing at a random region;
        - `places` -- for `region` and `band`, each place with the shares of clips in which it was `changed` and `named`,
          and its `kappa`, None if it was changed in no clip or in all.

    Raises:
        EvaluationError: when no clip could be read.
    """
    unreadable = {path: entry["error"] for path, entry in answers.items() if entry["error"] is not None}
    paths = [path for path, entry in answers.items() if entry["error"] is None and path in clips]
    if not paths:
        raise EvaluationError(f"None of {len(answers)} clips could be read, so there is nothing to report.")
    known = [clips[path] for path in paths]
    said = [answers[path]["answers"] for path in paths]
    asked = _Asked(known, said, baseline_answers(known), n_resamples)
    measures = _clip_measures(asked)
    family_measures, families = _family_measures(asked)
    measures |= family_measures
    places = {}
    for kind in PLACES:
        of_places, places[kind] = place_measures(kind, asked)
        measures |= of_places
    changed = [set(clip["regions"]) for clip in known if clip["regions"]]
    labels, groups = ([clip[name] for clip in known] for name in ("label", "identity"))
    scores = [answers[path]["score"] for path in paths]
    return {
        "clips": len(answers),
        "asked": len(paths),
        "unreadable": unreadable,
        "scored": detection_metrics(labels, scores, threshold, groups, n_resamples),
        "measures": measures,
        "confusion": families,
        "baselines": asked.baselines,
        "pointing_chance": pointing_chance(changed, list(FACE_REGIONS)) if changed else None,
        "places": places,
    }


def _clip_measures(asked: _Asked) -> dict[str, dict]:
    """Return the measures that are means over clips."""
    own = columns_of(asked.known, asked.said)
    other = columns_of(asked.known, [asked.baselines["answers"]] * len(asked.known))
    # The baseline's description names regions in the order of the face; its pointing is at the commonest one.
    usual = [float(asked.baselines["region"] in clip["regions"]) for clip in asked.known]
    other["pointing_region"] = np.where(np.isnan(own["pointing_region"]), np.nan, usual)
    unparsable = unparsable_of(asked.known, asked.said)
    return {
        name: asked.compare(_mean, column, other[name], unparsable=unparsable.get(name))
        for name, column in own.items()
    }


def _family_measures(asked: _Asked) -> tuple[dict[str, dict], dict[str, dict[str, int]]]:
    """Return the measures of the family, over the clips whose family is known, and its confusion table."""
    clips = [index for index, clip in enumerate(asked.known) if clip["family"] is not None]
    if not clips:
        return {}, {}
    true = [asked.known[index]["family"] for index in clips]
    named = [family_in(asked.said[index]["classification"]) for index in clips]

    def accuracy(found: Sequence[str | None], weights: np.ndarray) -> float | None:
        return _mean(np.array([a == b for a, b in zip(found, true, strict=True)], float), weights)

    statistics = {
        "family_macro_f1": lambda found, weights: macro_f1(true, found, weights),
        "family_accuracy": accuracy,
    }
    always = [asked.baselines["family"]] * len(clips)
    missing = sum(name is None for name in named)
    measures = {
        name: asked.compare(statistic, named, always, clips, missing)
        for name, statistic in statistics.items()
    }
    return measures, confusion(true, named)


def place_measures(kind: str, asked: _Asked) -> tuple[dict[str, dict], dict[str, dict]]:
    """
    Return measures of regions or bands that an answer which never looks cannot win, and a table of all places.

    They are taken over the fakes of which a changed place is known. The baseline's answer is the same for every clip, so
    it has a kappa of 0, a balanced accuracy of 0.5 and a calibrated pointing of 0.
    """
    clips = [index for index, clip in enumerate(asked.known) if clip[f"{kind}s"]]
    if not clips:
        return {}, {}
    names = [name for name in PLACES[kind] if name != "outside"]
    true = [set(asked.known[index][f"{kind}s"]) for index in clips]
    texts = [asked.said[index]["description"] for index in clips]
    found = [set(named_in(text).places(kind)) for text in texts]
    first = [first_place(text, kind == "band") for text in texts]
    usual = [set(named_in(asked.baselines["answers"]["description"]).places(kind))] * len(clips)
    always = [asked.baselines[kind]] * len(clips)
    measures = {
        f"{kind}_kappa": asked.compare(lambda f, w: mean_kappa(f, true, names, w), found, usual, clips),
        f"{kind}_balanced_accuracy": asked.compare(
            lambda f, w: mean_balanced_accuracy(f, true, names, w), found, usual, clips
        ),
        f"pointing_{kind}_calibrated": asked.compare(
            lambda f, w: calibrated_pointing(f, true, w), first, always, clips
        ),
    }
    if kind == "region":  # texts name regions by strength, but bands by frequency
        strongest = [asked.known[index]["regions"][0] for index in clips]
        own, other = (
            np.array([a == b for a, b in zip(pointed, strongest, strict=True)], dtype=float)
            for pointed in (first, [most_frequent(strongest)] * len(clips))
        )
        measures["strongest_region"] = asked.compare(_mean, own, other, clips)
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
    Return the answers of a baseline that never looks.

    They are the commonest verdict and family, and one description with the commonest tracks, regions, bands and times,
    each among the clips of which it is known. All are taken from the scored clips, which favours the baseline.
    """
    label = most_frequent([clip["label"] for clip in known])
    families = [clip["family"] for clip in known if clip["family"] is not None]
    regions, bands = ([name for clip in known for name in clip[kind]] for kind in ("regions", "bands"))
    return {
        "label": LABELS[label],
        "family": most_frequent(families) if families else None,
        "region": most_frequent(regions) if regions else None,
        "band": most_frequent(bands) if bands else None,
        "answers": {
            "asked_fake": "Yes." if label else "No.",
            "asked_real": "No." if label else "Yes.",
            "classification": "",
            "description": _usual_description(known),
        },
    }


def _usual_description(known: Sequence[dict]) -> str:
    described = [clip for clip in known if clip["label"] == 1] or list(known)

    def usual(name: str) -> list:
        """Return the commonest value of a fact, among the clips of which it is known."""
        values = [clip[name] for clip in described if clip[name]]
        if name == "regions":  # the same regions in another order count as the same value
            values = [sorted(value, key=list(FACE_REGIONS).index) for value in values]
        values = [json.dumps(value) for value in values]
        return json.loads(most_frequent(values)) if values else []

    sentences = []
    if tracks := usual("modalities"):
        sentences.append(
            f"The {' and the '.join(tracks)} {'were' if len(tracks) > 1 else 'was'} manipulated."
        )
    for name, words, lead in (
        ("regions", regions_text, "Look at"),
        ("bands", bands_text, "Listen for it"),
        ("segments", segments_text, "It is evident from"),
    ):
        if value := usual(name):
            sentences.append(f"{lead} {words(value)}.")
    return " ".join(sentences)


def columns_of(known: Sequence[dict], said: Sequence[dict]) -> dict[str, np.ndarray]:
    """Return the value of each measure for each clip; NaN where a measure does not apply."""
    columns: dict[str, list[float]] = {}
    for clip, answers in zip(known, said, strict=True):
        for name, value in _clip_values(clip, answers).items():
            columns.setdefault(name, []).append(float("nan") if value is None else float(value))
    return {name: np.array(values) for name, values in columns.items()}


def _clip_values(clip: dict, answers: dict) -> dict[str, float | None]:
    right = {
        key: verdict_of(answers[key], QUESTIONS[key]) == clip["label"] for key in ("asked_fake", "asked_real")
    }
    values: dict[str, float | None] = {f"verdict_{key}": value for key, value in right.items()}
    values["verdict_both_ways"] = all(right.values())
    text = answers["description"]
    named, fake = named_in(text), clip["label"] == 1
    finds = named.regions or named.bands or verdict_of(text) == 1
    values["clean_when_genuine"] = None if fake else not finds
    tracks = set(clip["modalities"])
    values["modality"] = named.modalities == tracks if fake and tracks else None
    for kind in PLACES:
        true = set(clip[f"{kind}s"])
        overlap = set_overlap(set(named.places(kind)), true) if true else (None, None)
        values[f"{kind}_iou"], values[f"{kind}_f1"] = overlap
        values[f"pointing_{kind}"] = first_place(text, kind == "band") in true if true else None
    segments = clip["segments"]
    overlap = time_overlap(sorted(named.segments), segments) if segments else (None, None)
    values["time_iou"], values["time_f1"] = overlap
    values["rouge_l"] = rouge_l(text, clip["reference"])
    return values


def unparsable_of(known: Sequence[dict], said: Sequence[dict]) -> dict[str, int]:
    """Return, by measure, the number of answers that could not be read."""
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

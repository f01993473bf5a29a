"""Scoring a split under perturbations, and comparing with the untouched clips.

A condition is a perturbation at one level. Each condition scores the whole split again; labels stay as they were. Most
perturbations ask whether a verdict survives what happens to any clip on its way through the world. The *diagnoses*
(`delay`, `audio_swap`, `mute`, `no_audio`, `no_video`) remove or contradict the evidence that a verdict should rest on:
a genuine clip with another clip's sound is no longer consistent, so a lower score there is no fault in itself. They show
what the detector relies on.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, Video

from dataset_scripts.files import write_whole

from ...configuration_detector import PARTS
from ..metrics import detection_metrics
from ..predictions import labels_and_ranked_scores
from .ffmpeg import PerturbationError, check_ffmpeg
from .perturbations import PERTURBATIONS, Perturbation
from .perturbed_rows import PerturbedRows, choose_donors

ScoreRows = Callable[[Any, str], list[dict]]


def run_robustness(
    score: ScoreRows,
    dataset: Dataset | Sequence[Mapping],
    output_dir: str | Path,
    perturbations: str | Sequence[str] | None = "all",
    severities: Sequence[int] | None = None,
    threshold: float = 0.5,
    clean: list[dict] | None = None,
    seed: int = 0,
) -> dict:
    """
    Score a split under each perturbation and level, and compare with the untouched clips.

    Writes `robustness.json` into `output_dir` after each condition. A run that was stopped scores a clip again only if
    `score` does not keep it. A clip that cannot be perturbed or read is counted, and the run continues.

    Args:
        score (`Callable[[rows, str], list[dict]]`):
            Scores rows (a [`PerturbedRows`], or `dataset` itself) under a name that is fit for a file: `"clean"`,
            `"h264_3"`, `"delay_-2"`. Returns a prediction for each row, as [`predict`] does.
        dataset (`Dataset` or `Sequence[Mapping]`): The split, rows in the package's schema.
        output_dir (`str` or `Path`): Folder of `robustness.json`.
        perturbations (`Sequence[str]`, *optional*, defaults to `"all"`): Names of [`PERTURBATIONS`].
        severities (`Sequence[int]`, *optional*):
            Levels, on both sides if there are two. All of them if left out. A perturbation with one level always runs.
        threshold (`float`, *optional*, defaults to 0.5):
            Score from which a clip is called fake, as chosen on clean validation clips: a deployed detector doesn't
            choose it again for each condition.
        clean (`list[dict]`, *optional*): Predictions of the untouched clips, if there are some already.
        seed (`int`, *optional*, defaults to 0): Seed of everything random, the partners of `audio_swap` included.

    Returns:
        `dict`: `threshold`, `seed`, `clips`, `clean` and `conditions`, a list of dicts:

        - **perturbation**, **severity**, **value**, **unit**, **tracks**, **diagnosis** -- What was done.
        - **n** -- Number of clips that are readable when untouched; the shares below are of these.
        - **unreadable** -- Share without a verdict, of which **failed** could not be perturbed, such as a clip without
          sound that was to be delayed.
        - **flipped** -- Share of the clips with both verdicts whose verdict changed.
        - **auc** -- `overall`, `video`, `audio`; **clean_auc** -- the same of the same clips, untouched;
          **balanced_accuracy**, **recall_fake**, **recall_real** -- at `threshold`. None where undefined.

        `clean` has `n`, `unreadable`, `auc`, `balanced_accuracy`, `recall_fake` and `recall_real`.

    Raises:
        ValueError: for an unknown perturbation or level, paths that occur twice, or no readable clip.
        PerturbationError: if ffmpeg is not installed.
    """
    check_ffmpeg()
    conditions = choose_conditions(perturbations, severities)
    path = Path(output_dir) / "robustness.json"
    dataset, about = _undecoded(dataset)
    paths = [row["path"] for row in about]
    if len(set(paths)) < len(paths):
        raise ValueError("Two rows have the same path, which is the key of a prediction.")
    clean = _in_order(score(dataset, "clean") if clean is None else clean, paths, "clean")
    if all(prediction["score"] is None for prediction in clean):
        raise ValueError(f"None of the {len(clean)} untouched clips could be read.")
    donors = choose_donors(about, seed)
    result = {"threshold": threshold, "seed": seed, "clips": len(paths), "clean": _clean(clean, threshold)}
    result["conditions"] = []
    for perturbation, severity in conditions:
        name = f"{perturbation.name}_{severity}"
        partners = donors if perturbation.name == "audio_swap" else None
        rows = PerturbedRows(dataset, perturbation.name, severity, seed, partners)
        predictions = _in_order(score(rows, name), paths, name)
        result["conditions"].append(_condition(perturbation, severity, clean, predictions, threshold))
        if PartialState().is_main_process:
            write_whole(path, json.dumps(result, indent=2) + "\n")
    return result


def choose_conditions(
    perturbations: str | Sequence[str] | None = "all", severities: Sequence[int] | None = None
) -> list[tuple[Perturbation, int]]:
    """
    Return the conditions that the arguments of [`run_robustness`] mean, in the order of [`PERTURBATIONS`].

    Raises:
        ValueError: for an unknown perturbation, or one that has none of the levels.
    """
    names = [perturbations] if isinstance(perturbations, str) else perturbations
    if names is None or "all" in names:
        names = list(PERTURBATIONS)
    for name in names:
        if name not in PERTURBATIONS:
            near = difflib.get_close_matches(str(name), PERTURBATIONS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"There is no perturbation {name!r}.{hint} There are: {', '.join(PERTURBATIONS)}, or 'all'."
            )
    conditions = []
    for name, perturbation in PERTURBATIONS.items():
        if name not in names:
            continue
        levels = list(perturbation.severities)
        if severities is not None and len(levels) > 1:
            levels = [level for level in levels if abs(level) in severities]
            if not levels:
                raise ValueError(
                    f"{name} has the severities {list(perturbation.severities)}, none of {list(severities)}."
                )
        conditions += [(perturbation, level) for level in levels]
    return conditions


def _undecoded(dataset: Dataset | Sequence[Mapping]) -> tuple[Dataset | Sequence[Mapping], list[dict]]:
    """Return the rows with undecoded media, and the columns that partners are chosen by."""
    names = ("path", "identity", "source")
    if not isinstance(dataset, Dataset):
        return dataset, [{name: row.get(name) for name in names} for row in dataset]
    if "video" in dataset.column_names:
        dataset = dataset.cast_column("video", Video(decode=False))
    return dataset, dataset.select_columns([n for n in names if n in dataset.column_names]).to_list()


def _in_order(predictions: list[dict], paths: list[str], name: str) -> list[dict]:
    by_path = {prediction["path"]: prediction for prediction in predictions}
    if len(predictions) != len(paths) or set(by_path) != set(paths):
        raise ValueError(
            f"The predictions of {name} ({len(predictions)}) are not those of the {len(paths)} clips of the dataset."
        )
    return [by_path[path] for path in paths]


def _metrics(predictions: list[dict], threshold: float) -> dict:
    """Return the AUC of the three parts, and the metrics at the threshold."""
    found: dict[str, Any] = {"auc": {}}
    for part in PARTS:
        labels, scores = labels_and_ranked_scores(predictions, part)
        metrics = detection_metrics(labels, scores, threshold) if labels else {}
        found["auc"][part] = metrics.get("auc")
        if part == "overall":
            found |= {key: metrics.get(key) for key in ("balanced_accuracy", "recall_fake", "recall_real")}
    return found


def _clean(clean: list[dict], threshold: float) -> dict:
    read = [prediction for prediction in clean if prediction["score"] is not None]
    return {"n": len(read), "unreadable": (len(clean) - len(read)) / len(clean), **_metrics(read, threshold)}


def _condition(
    perturbation: Perturbation, severity: int, clean: list[dict], predictions: list[dict], threshold: float
) -> dict:
    pairs = [(a, b) for a, b in zip(clean, predictions, strict=True) if a["score"] is not None]
    both = [(a, b) for a, b in pairs if b["score"] is not None]
    failed = sum(b["score"] is None and _kind(b) == PerturbationError.__name__ for _, b in pairs)
    flipped = sum((a["score"] >= threshold) != (b["score"] >= threshold) for a, b in both)
    untouched = [a for a, _ in both]
    return {
        "perturbation": perturbation.name,
        "severity": severity,
        "value": perturbation.value(severity),
        "unit": perturbation.unit,
        "tracks": list(perturbation.tracks),
        "diagnosis": perturbation.diagnosis,
        "n": len(pairs),
        "unreadable": (len(pairs) - len(both)) / len(pairs),
        "failed": failed / len(pairs),
        "flipped": flipped / len(both) if both else None,
        **_metrics([b for _, b in both], threshold),
        "clean_auc": _metrics(untouched, threshold)["auc"],
    }


def _kind(prediction: dict) -> str | None:
    return (prediction.get("error") or {}).get("type")

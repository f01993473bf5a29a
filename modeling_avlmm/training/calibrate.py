"""The last step of a facevoice run: scores that people who were not trained on can be judged by."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import t as student
from transformers import pipeline

from ..evaluation.robustness.perturbed_rows import PerturbedRows
from ..explain.words import count_of
from ..hub_mixin import PIPELINE_TASK
from ..inference.face_cache import FaceCache
from .assembly import Detector, load_detector, make_detector
from .facevoice_stages import FaceVoiceStage, PictureStage, SoundStage
from .genuine_data import Recording, data_record, genuine_recordings
from .progress import say
from .recipes import GenuineRecipe
from .run_folder import name_demonstration, write_detector

FEWEST = 3
"""Genuine recordings of held-out people below which nothing is read off them; our own choice."""
SURE = 1e-7
PARTS = {"picture": "video", "sound": "audio"}
"""Network -> the part of a verdict that it gives."""


def complete_facevoice(recipe: GenuineRecipe, dataset: Dataset, stages: list[FaceVoiceStage]) -> Path:
    """
    Calibrate the detector of a run's last stage, and write it to `output_dir/model`, unless it is there already.

    Args:
        recipe ([`GenuineRecipe`]): The run.
        dataset (`Dataset`): The training split.
        stages (`list[FaceVoiceStage]`): Its stages, which are done; none where the recipe gives all weights.

    Returns:
        `Path`: the folder of the detector.
    """
    state, folder = PartialState(), Path(recipe.output_dir)
    if (folder / "model" / "training.json").is_file():
        say(f"Calibration: done before, in {folder / 'model'}")
    elif state.is_main_process:
        say("Calibration on held-out people")
        detector = load_detector(stages[-1].folder / "model") if stages else make_detector(recipe.model)
        known = calibrate(recipe, dataset, detector)
        name_demonstration(detector[0].config, recipe.data)
        recordings = genuine_recordings(recipe.data, dataset, recipe.seed)
        summaries = {each.name: json.loads(_summary_of(each)) for each in stages}
        write_detector(
            folder, *detector, {"training.json": _record(recipe, recordings, summaries, known)}, []
        )
        say(f"  wrote {folder / 'model'}")
    state.wait_for_everyone()
    return folder / "model"


def calibrate(recipe: GenuineRecipe, dataset: Dataset, detector: Detector) -> dict:
    """
    Set the calibration of both parts, the threshold and the band of uncertain scores, in place.

    A part's scale makes made fakes of held-out people, and of held-out synthesisers, most likely (Platt 1999). Its bias puts
    log-odds of 0 where half of the allowed false alarms lie above, of genuine recordings as the pipeline scores them: so the
    two parts can be compared, and the larger one be taken. The threshold is then read off the scores of genuine clips. Both
    hold for the recordings as they are, and for the clips again under each condition of the recipe by itself. The band of
    uncertain scores begins below nearly all made fakes: that a clip is no clear fake does not make it genuine.

    Args:
        recipe ([`GenuineRecipe`]): The run.
        dataset (`Dataset`): The training split.
        detector (`tuple`): Model and processor.

    Returns:
        `dict`: what the calibration was fitted on, as the configuration and the training's summary hold it.
    """
    model, processor = detector
    config, settings = model.config, recipe.calibration
    model.eval()
    known: dict = {"held_out_people": 0, "false_alarms": settings.false_alarms, "parts": {}}
    fakes: dict[str, np.ndarray] = {}
    for kind in (PictureStage, SoundStage):
        stage = kind(recipe)
        stage.processor = processor
        stage.rows(dataset)
        labels, values = pair_scores(stage, model)
        scale, bias = fit_scale_and_bias(labels, values)
        part = PARTS[stage.name]
        fakes[part] = values[labels == 1]
        setattr(config, f"{part}_scale", scale)
        setattr(config, f"{part}_bias", bias)
        known["parts"][part] = {"pairs": len(labels) // 2, "scale": scale}
    held_out = [
        each
        for each in genuine_recordings(recipe.data, dataset, recipe.seed)
        if each.held_out and each.kind != "photos"
    ]
    known["held_out_people"] = len({each.person for each in held_out})
    clips = [each for each in held_out if each.kind == "clips"]
    worse = [score_genuine(recipe, detector, clips, each) for each in settings.conditions.items()]
    found = [score_genuine(recipe, detector, held_out), *worse]
    for part in PARTS.values():
        genuine = [_known(each[f"{part}_score"] for _, each in results) for results in found]
        if len(genuine[0]) >= FEWEST:
            edge = upper_bound_of_all(genuine, settings.false_alarms / 2)
            setattr(config, f"{part}_bias", vars(config)[f"{part}_bias"] - edge)
        known["parts"][part] |= {"genuine": len(genuine[0]), "bias": vars(config)[f"{part}_bias"]}
    found = [score_genuine(recipe, detector, clips, each) for each in (None, *settings.conditions.items())]
    every = [_known(each["score"] for _, each in results) for results in found]
    overall = every[0]
    known |= {
        "clips": len(overall),
        "conditions": dict(settings.conditions),
        "abstain": list(settings.abstain),
    }
    config.calibration = {"dataset": recipe.data.dataset, "protocol": recipe.data.protocol, **known}
    if len(overall) < FEWEST:
        say(
            f"  {count_of(len(overall), 'genuine clip')} of held-out people: too few to read a threshold off, so it stays "
            f"{config.threshold:g}. More people, or a larger data.held_out, would help."
        )
        return known
    config.threshold = float(expit(upper_bound_of_all(every, settings.false_alarms)))
    if settings.abstain:
        config.abstain_band = _band(config, fakes, every, settings.abstain)
    say(
        f"  threshold {config.threshold:.3f} for {settings.false_alarms:.0%} false alarms, read off "
        f"{count_of(len(overall), 'genuine clip')} of {known['held_out_people']} held-out people"
    )
    return known


def _band(
    config, fakes: dict[str, np.ndarray], genuine: list[np.ndarray], shares: list[float]
) -> list[float]:
    """Return the edges of the band: few made fakes are below the lower one, few genuine clips above the upper one."""
    misses, false_alarms = shares
    # A clip's score is that of its more suspicious part, so it is at least that of the part that was forged.
    lower = [
        -upper_bound(-(vars(config)[f"{part}_scale"] * raw + vars(config)[f"{part}_bias"]), misses)
        for part, raw in fakes.items()
        if len(raw) >= FEWEST
    ]
    upper = upper_bound_of_all(genuine, false_alarms)
    threshold = config.threshold
    return [min([threshold, *map(float, expit(lower))]), max(threshold, float(expit(upper)))]


@torch.no_grad()
def pair_scores(stage: FaceVoiceStage, model) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and log-odds of held-out samples: of each the mean over its draws, genuine and fake apart."""
    # Other draws than those that chose the weights.
    rows = stage.validation(2**31)
    collate, score = stage.collator(None, stage.processor, rows, None), stage.log_odds()
    labels, groups, values = [], [], []
    for start in range(0, len(rows), stage.settings.batch_size):
        batch = collate(
            rows.select(range(start, min(len(rows), start + stage.settings.batch_size))).to_list()
        )
        if batch:
            labels += batch["labels"].tolist()
            groups += batch["groups"].tolist()
            values += score(model, batch).tolist()
    labels, groups, values = np.array(labels), np.array(groups), np.array(values)
    means = [
        (label, values[(groups == group) & (labels == label)].mean())
        for group in np.unique(groups)
        for label in (0, 1)
    ]
    return np.array([label for label, _ in means]), np.array([mean for _, mean in means])


def fit_scale_and_bias(labels: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """
    Return scale (above 0) and bias of log-odds that make labels most likely: Platt scaling, with his softened targets.

    Args:
        labels (`np.ndarray` of shape `(n,)`): 0 genuine, 1 fake.
        values (`np.ndarray` of shape `(n,)`): Log-odds of a network.
    """
    fakes = max(1, int(labels.sum()))
    genuine = max(1, len(labels) - fakes)
    targets = np.where(labels == 1, (fakes + 1) / (fakes + 2), 1 / (genuine + 2))
    centre, width = float(np.median(values)), max(float(np.std(values)), 1e-6)

    def loss(parameters: np.ndarray) -> float:
        scaled = np.exp(parameters[0]) * (values - centre) / width + parameters[1]
        return float(np.mean(np.logaddexp(0, scaled) - targets * scaled))

    # A scale above 0, and not so small or large that scores of float32 lose their order.
    found = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(-4, 4), (-20, 20)])
    scale = float(np.exp(found.x[0]) / width)
    return scale, float(found.x[1] - scale * centre)


def upper_bound(values: np.ndarray, share: float) -> float:
    """
    Return the value that a share of further ones is expected to exceed.

    With enough values it is the conformal rank (as in [`conformal_band`]), otherwise Student's prediction bound for values
    that are normally distributed.

    Args:
        values (`np.ndarray` of shape `(n,)`): Log-odds of genuine recordings, at least 2.
        share (`float`): In (0, 1).
    """
    count = len(values)
    rank = math.ceil((count + 1) * (1 - share) - 1e-9)
    if rank <= count:
        return float(np.sort(values)[rank - 1])
    spread = float(np.std(values, ddof=1)) * math.sqrt(1 + 1 / count)
    return float(np.mean(values) + student.ppf(1 - share, count - 1) * spread)


def upper_bound_of_all(groups: Iterable[np.ndarray], share: float) -> float:
    """Return the value that at most a share of further ones of any group is expected to exceed, see [`upper_bound`]."""
    return max(upper_bound(values, share) for values in groups if len(values) >= FEWEST)


def score_genuine(
    recipe: GenuineRecipe,
    detector: Detector,
    recordings: list[Recording],
    condition: tuple[str, int] | None = None,
) -> list[tuple[Recording, dict]]:
    """
    Return the pipeline's results on recordings, without those that cannot be read.

    Args:
        recipe ([`GenuineRecipe`]): The run.
        detector (`tuple`): Model and processor.
        recordings (`list[Recording]`): The recordings.
        condition (`tuple[str, int]`, *optional*): Name and level of a perturbation that each goes through first.
    """
    model, processor = detector
    judge = pipeline(PIPELINE_TASK, model=model, processor=processor)
    sources: list[dict] | PerturbedRows = [{"video": each.file, "audio": each.audio} for each in recordings]
    if condition is None:
        tracks = FaceCache(recipe.data.face_cache or Path(recipe.output_dir) / "faces")
    else:
        rows = [source | {"path": each.path} for source, each in zip(sources, recordings, strict=True)]
        sources, tracks = PerturbedRows(rows, *condition, seed=recipe.seed), None
    found = judge(sources, tracks=tracks, temperature=1.0) if len(sources) else []
    return [pair for pair in zip(recordings, found, strict=True) if pair[1]["error"] is None]


def _known(scores: Iterable[float | None]) -> np.ndarray:
    """Return the log-odds of the scores that are there."""
    return logit(np.clip([score for score in scores if score is not None], SURE, 1 - SURE))


def _summary_of(stage: FaceVoiceStage) -> str:
    return (stage.folder / "model" / stage.summary_file).read_text(encoding="utf-8")


def _record(
    recipe: GenuineRecipe, recordings: list[Recording], summaries: dict[str, dict], known: dict
) -> dict:
    """Return the summary of the whole run, with the sources of its recordings and without their names."""
    return {
        "training": dataclasses.asdict(recipe.picture),
        **summaries,
        "calibration": known,
        "data": data_record(recordings),
        "steps": sum(each["steps"] for each in summaries.values()),
        "clips": sum(each["clips"] for each in summaries.values()),
        "dropped": sum(each["dropped"] for each in summaries.values()),
        "best_step": None,
    }

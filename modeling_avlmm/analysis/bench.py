"""How good a model's words are: verdicts, techniques and descriptions against what is known and measured, clip by clip.

The three tasks of DFA-GPT (arXiv 2501.01164) that have an answer to compare with. Everything stands beside a baseline that
never looks: always the commonest verdict and family, and always the same description. Questions, baselines and the
reading of answers are our own choice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from ..configuration_detector import LABELS
from ..evaluation.command import EvaluationError, claim_folder, load_detector, load_protocol
from ..evaluation.identity import detector_identity
from ..evaluation.metrics import cluster_bootstrap, detection_metrics
from ..evaluation.predictions import read_journal
from ..media import MediaError
from ..pipeline_avd import AVDeepfakeDetectionPipeline
from .analyst import DESCRIPTION_QUESTION, FAMILY_QUESTION, can_write, generation_config, seen_clip
from .answers import family_in, first_place, verdict_of
from .bench_metrics import (
    confusion,
    macro_f1,
    most_frequent,
    pointing_chance,
    rouge_l,
    set_overlap,
    time_overlap,
)
from .composed import compose, fake_segments
from .conversation import encode_conversations, generation_batch, measured_context, with_context
from .evidence_jobs import measured_evidence
from .instructions import build_instructions
from .phrasing import bands_text, named_in, regions_text, segments_text
from .regions import FACE_REGIONS

QUESTIONS = {
    "asked_fake": "Is this clip fake?",
    "asked_real": "Is this clip real?",
    "classification": FAMILY_QUESTION,
    "description": DESCRIPTION_QUESTION,
}
ANSWERS = "answers.jsonl"


def run_bench(
    model: str,
    dataset: str,
    data_dir: str | Path,
    protocol: str | None = None,
    split: str = "test",
    limit: int | None = None,
    output_dir: str | Path | None = None,
    batch_size: int = 8,
    context: bool = False,
    max_new_tokens: int = 128,
    n_resamples: int = 1000,
    seed: int = 0,
    device: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> tuple[dict, Path]:
    """
    Asks a model about every clip of a split and scores what it answers.

    The folder gets `answers.jsonl` (every answer in full), `evidence.jsonl`, `report.json`, `report.md`, `report.html` and
    `run.json`. Started again after it was stopped, it asks what is missing. A detector that cannot write is benched with
    the answers that are composed from its verdicts ([`compose`]).

    Args:
        model (`str`): Folder or Hub id of a detector.
        dataset, data_dir, protocol, split: What it is asked about, as for `evaluate_avd.py`.
        limit (`int`, *optional*): Clips at most, drawn with `seed`.
        output_dir (`str` or `Path`, *optional*): Defaults to `runs/bench/<dataset>_<protocol>/<model>`.
        batch_size (`int`, *optional*, defaults to 8): Clips asked at once.
        context (`bool`, *optional*, defaults to `False`):
            Tell the model the detector's verdicts first, as a chat does. Without, it has to see for itself.
        max_new_tokens (`int`, *optional*, defaults to 128): Longest answer.
        n_resamples (`int`, *optional*, defaults to 1000): Of the bootstrap; 0 for no intervals.
        seed (`int`, *optional*, defaults to 0): Of the draw and the reference texts.
        device, dtype, trust_remote_code: As for the pipeline.

    Returns:
        `tuple[dict, Path]`: the report, see [`bench_report`], and the folder.

    Raises:
        EvaluationError: for an unknown dataset, protocol, split or model, or a folder with answers of another run.
    """
    if limit is not None and limit < 1:
        raise EvaluationError(f"limit must be at least 1, not {limit}.")
    builder = load_protocol(dataset, protocol, data_dir)
    splits, protocol = builder.as_dataset(), builder.config.name
    if split not in splits:
        raise EvaluationError(f"{dataset}/{protocol} has no split {split!r}; it has {', '.join(splits)}.")
    rows = splits[split].cast_column("video", datasets.Video(decode=False))
    if limit is not None and limit < len(rows):
        rows = rows.select(sorted(np.random.default_rng(seed).permutation(len(rows))[:limit]))
    detector, _ = load_detector(model, device, dtype, trust_remote_code)

    name = "_".join(part for part in Path(str(model)).parts[-3:] if part not in ("/", "model"))
    folder = Path(output_dir or Path("runs/bench") / f"{dataset}_{protocol}" / name)
    run = {
        "model": str(model),
        "detector": detector_identity(detector.model, detector.processor),
        "writes": can_write(detector),
        "dataset": dataset,
        "protocol": protocol,
        "split": split,
        "context": context,
        "max_new_tokens": max_new_tokens,
        "questions": QUESTIONS,
    }
    started = claim_folder(folder, run, partial(_changes, run), "answers", ANSWERS)
    sources = datasets.concatenate_datasets(list(splits.values()))
    evidence = measured_evidence(rows, folder / "evidence.jsonl", sources)
    answers = collect_answers(detector, rows, folder / ANSWERS, batch_size, context, max_new_tokens)
    clips = known_clips(rows, evidence, seed)
    report = {
        **run,
        **started,
        "threshold": float(getattr(detector.model.config, "threshold", 0.5)),
        "notice": getattr(detector.model.config, "notice", None),
    }
    report |= bench_report(clips, answers, report["threshold"], n_resamples)

    from .bench_report import write_bench

    write_bench(report, folder)
    return report, folder


def collect_answers(
    detector: AVDeepfakeDetectionPipeline,
    rows: datasets.Dataset,
    journal: Path,
    batch_size: int = 8,
    context: bool = False,
    max_new_tokens: int = 128,
) -> dict[str, dict]:
    """
    Verdict and answers for every row, by `path`: `score`, `label`, `answers`, `error`. Kept in a journal, batch by batch.
    """
    done = read_journal(journal)
    # A batch is one write; what a kill cut off is asked again.
    journal.write_text("".join(json.dumps(entry) + "\n" for entry in done.values()), encoding="utf-8")
    todo = [index for index, path in enumerate(rows["path"]) if path not in done]
    print(f"{len(rows)} clips, {len(todo)} to be asked {len(QUESTIONS)} questions each", flush=True)
    for begin in range(0, len(todo), batch_size):
        batch = [rows[index] for index in todo[begin : begin + batch_size]]
        results = detector(batch, on_error="return", batch_size=batch_size)
        entries = [
            {
                "path": row["path"],
                **{name: result[name] for name in ("label", "score", "video_score", "audio_score", "error")},
                "answers": None,
            }
            for row, result in zip(batch, results, strict=True)
        ]
        readable = [index for index, result in enumerate(results) if result["error"] is None]
        if can_write(detector):
            _write_answers(detector, batch, results, readable, entries, context, max_new_tokens)
        else:
            for index in readable:
                entries[index]["answers"] = {k: compose(q, results[index])[0] for k, q in QUESTIONS.items()}
        with open(journal, "a", encoding="utf-8") as lines:
            lines.write("".join(json.dumps(entry) + "\n" for entry in entries))
        done |= {entry["path"]: entry for entry in entries}
        print(f"  {begin + len(batch)}/{len(todo)}", flush=True)
    wanted = set(rows["path"])
    return {path: entry for path, entry in done.items() if path in wanted}


def _write_answers(detector, batch, results, readable, entries, context, max_new_tokens) -> None:
    clips = {}
    for index in readable:
        try:
            clips[index], _ = seen_clip(detector.processor, batch[index], results[index])
        except MediaError as error:
            entries[index]["error"] = {"type": type(error).__name__, "message": str(error)}
    if not clips:
        return
    for index in clips:
        entries[index]["answers"] = {}
    for key, question in QUESTIONS.items():
        conversations = []
        for index in clips:
            turns = [(question, None)]
            if context:
                result = results[index]
                scores = {
                    "overall": result["score"],
                    "video": result["video_score"],
                    "audio": result["audio_score"],
                }
                turns = with_context(
                    turns, measured_context(scores, result["threshold"], fake_segments(result))
                )
            conversations.append(turns)
        texts = generate_answers(detector, list(clips.values()), conversations, max_new_tokens)
        for index, text in zip(clips, texts, strict=True):
            entries[index]["answers"][key] = text


@torch.inference_mode()
def generate_answers(detector, clips: Sequence, conversations: Sequence, max_new_tokens: int) -> list[str]:
    """The model's answer to the last question of each conversation, one clip each, all at once."""
    processor, thinker = detector.processor, detector.model.thinker
    encoded = [
        encode_conversations(processor, clip, [turns])
        for clip, turns in zip(clips, conversations, strict=True)
    ]
    batch = {}
    for name, value in generation_batch(processor, encoded).items():
        kind = thinker.dtype if value.is_floating_point() else value.dtype
        batch[name] = value.to(thinker.device, kind)
    written = thinker.generate(**batch, generation_config=generation_config(processor, max_new_tokens))
    new = written[:, batch["input_ids"].shape[1] :]
    return processor.tokenizer.batch_decode(new, skip_special_tokens=True)


def known_clips(rows: datasets.Dataset, evidence: Mapping[str, Any], seed: int = 0) -> dict[str, dict]:
    """What is known of each clip, by `path`: facts, a reference description, and who is seen."""
    made = build_instructions(rows, ["description"], seed, evidence=evidence)
    people = rows["identity"] if "identity" in rows.column_names else [None] * len(rows)
    return {
        row["path"]: {
            **json.loads(row["facts"]),
            "reference": row["messages"][-1]["content"][0]["text"],
            "identity": person,
        }
        for row, person in zip(made, people, strict=True)
    }


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
        `n`, `value`, `baseline`, `difference`, `ci` and `unparsable`), `confusion`, `baselines` (what they say), `pointing_chance`.
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
    }


def baseline_answers(known: Sequence[dict]) -> dict:
    """
    What someone says who never looks: the commonest verdict and family, and one description of the commonest tracks,
    regions, bands and times, each among the clips of which it is known.

    They are taken from the clips that are scored, which favours the baseline.
    """
    label = most_frequent([clip["label"] for clip in known])
    families = [clip["family"] for clip in known if clip["family"] is not None]
    regions = [name for clip in known for name in clip["regions"]]
    told = [clip for clip in known if clip["label"] == 1] or list(known)

    def usual(name: str) -> list:
        """The commonest value of a fact, among the clips of which it is known."""
        values = [json.dumps(clip[name]) for clip in told if clip[name]]
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
    result = {"n": count, **plain, "ci": None}
    if n_resamples and plain["value"] is not None:
        result["ci"] = cluster_bootstrap(values, len(own), groups, n_resamples)["ci"]
    return result


def _changes(run: dict, before: dict) -> list[str]:
    return [key for key in run if key != "model" and before.get(key) != run[key]]


__all__ = ["QUESTIONS", "bench_report", "collect_answers", "known_clips", "run_bench"]

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

from ...evaluation.errors import EvaluationError
from ...evaluation.predictions import read_journal
from ...evaluation.protocols import load_protocol, splits_with
from ...evaluation.scoring_folder import claim_folder, folder_name
from ...explain.evidence_jobs import measured_evidence
from ...inference.identity import detector_identity
from ...inference.loading import load_detector
from ...media import MediaError
from ...pipeline_avd import AVDeepfakeDetectionPipeline
from ..analyst import can_write, generation_config, seen_clip
from ..composed_answers import compose, fake_segments
from ..conversation import encode_conversations, generation_batch, measured_context, with_context
from ..instructions import build_instructions
from .scores import QUESTIONS, bench_report

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
        EvaluationError: for an unknown dataset, protocol or split, or a folder with answers of another run.
        DetectorError: for a model that cannot be loaded.
    """
    if limit is not None and limit < 1:
        raise EvaluationError(f"limit must be at least 1, not {limit}.")
    builder = load_protocol(dataset, protocol, data_dir)
    splits, protocol = splits_with(builder, split), builder.config.name
    rows = splits[split].cast_column("video", datasets.Video(decode=False))
    if limit is not None and limit < len(rows):
        rows = rows.select(sorted(np.random.default_rng(seed).permutation(len(rows))[:limit]))
    detector, _ = load_detector(model, device, dtype, trust_remote_code)

    folder = Path(output_dir or Path("runs/bench") / f"{dataset}_{protocol}" / folder_name(model))
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

    from .report_pages import write_bench

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


def _changes(run: dict, before: dict) -> list[str]:
    return [key for key in run if key != "model" and before.get(key) != run[key]]


__all__ = ["QUESTIONS", "bench_report", "collect_answers", "known_clips", "run_bench"]

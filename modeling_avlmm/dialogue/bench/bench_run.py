"""A benchmark of a model's words: its verdicts, families and descriptions against what is known and measured.

These are the three tasks of DFA-GPT (arXiv 2501.01164) whose answers can be compared with something. Every number stands
beside a baseline that never looks: always the commonest verdict and family, and always the same description. Questions,
baselines and the parsing of answers are our own choice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ...evaluation.evaluation_error import EvaluationError
from ...evaluation.protocols import load_protocol, protocol_name, splits_with
from ...evaluation.scoring_folder import claim_folder
from ...explain.evidence_jobs import measured_evidence
from ...inference.loading import load_detector
from ...inference.provenance import detector_identity, model_slug
from ..generation import can_write
from ..instruction_folder import EVIDENCE
from ..instructions import build_instructions
from .answer_scores import QUESTIONS, bench_report
from .asking import collect_answers
from .report_pages import write_bench

ANSWERS = "answers.jsonl"


@dataclass
class BenchOptions:
    """
    Options of [`run_bench`].

    Args:
        model (`str`): Folder or Hub id of a detector.
        dataset (`str`): A registered dataset.
        data_dir (`str` or `Path`): Folder of the unpacked corpus.
        protocol (`str`, *optional*): The dataset's configuration. Defaults to the dataset's own default.
        split (`str`, *optional*, defaults to `"test"`): Split whose clips are asked about.
        limit (`int`, *optional*): Most clips, drawn with `seed`. Defaults to all.
        output_dir (`str` or `Path`, *optional*): Defaults to `runs/bench/<dataset>_<protocol>/<model>`.
        batch_size (`int`, *optional*, defaults to 8): Clips asked at once.
        context (`bool`, *optional*, defaults to `False`):
            Tell the model the detector's verdicts first, as a chat does. Without them it has to see for itself.
        max_new_tokens (`int`, *optional*, defaults to 128): Longest answer.
        n_resamples (`int`, *optional*, defaults to 1000): Bootstrap samples; 0 for no intervals.
        seed (`int`, *optional*, defaults to 0): Seed of the draw and of the reference texts.
        device, dtype, trust_remote_code: As for [`load_detector`].
    """

    model: str
    dataset: str
    data_dir: str | Path
    protocol: str | None = None
    split: str = "test"
    limit: int | None = None
    output_dir: str | Path | None = None
    batch_size: int = 8
    context: bool = False
    max_new_tokens: int = 128
    n_resamples: int = 1000
    seed: int = 0
    device: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False


def run_bench(options: BenchOptions) -> tuple[dict, Path]:
    """
    Ask a model about every clip of a split, and score its answers.

    The folder gets `answers.jsonl` (every answer in full), `evidence.jsonl`, `report.json`, `report.md`, `report.html` and
    `run.json`. After a stop, the same call asks only what is missing. A detector that cannot write is benched with
    answers composed from its verdicts ([`compose`]).

    Returns:
        `tuple[dict, Path]`: the report, see [`bench_report`], and the folder.

    Raises:
        EvaluationError: for an unknown dataset, protocol or split, or a folder with answers of another run.
        DetectorError: for a model that cannot be loaded.
    """
    if options.limit is not None and options.limit < 1:
        raise EvaluationError(f"limit must be at least 1, not {options.limit}.")
    builder = load_protocol(options.dataset, options.protocol, options.data_dir)
    splits, protocol = splits_with(builder, options.split), protocol_name(builder)
    rows = splits[options.split].cast_column("video", datasets.Video(decode=False))
    if options.limit is not None and options.limit < len(rows):
        drawn = np.random.default_rng(options.seed).permutation(len(rows))[: options.limit]
        rows = rows.select(sorted(drawn))
    detector, _ = load_detector(options.model, options.device, options.dtype, options.trust_remote_code)
    run = {
        "model": str(options.model),
        "detector": detector_identity(detector.model, detector.processor),
        "writes": can_write(detector),
        "dataset": options.dataset,
        "protocol": protocol,
        "split": options.split,
        "context": options.context,
        "max_new_tokens": options.max_new_tokens,
        "questions": QUESTIONS,
    }
    default = Path("runs/bench") / f"{options.dataset}_{protocol}" / model_slug(options.model)
    folder = Path(options.output_dir or default)
    started = claim_folder(folder, run, partial(_changes, run), "answers", ANSWERS)
    sources = datasets.concatenate_datasets(list(splits.values()))
    evidence = measured_evidence(rows, folder / EVIDENCE, sources)
    answers = collect_answers(
        detector, rows, folder / ANSWERS, options.batch_size, options.context, options.max_new_tokens
    )
    clips = known_clips(rows, evidence, options.seed)
    config = detector.model.config
    report = {**run, **started, "threshold": float(config.threshold), "notice": config.notice}
    report |= bench_report(clips, answers, report["threshold"], options.n_resamples)
    write_bench(report, folder)
    return report, folder


def known_clips(rows: datasets.Dataset, evidence: Mapping[str, Any], seed: int = 0) -> dict[str, dict]:
    """Return the facts of each clip by `path`, with a `reference` description and the clip's `identity`."""
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

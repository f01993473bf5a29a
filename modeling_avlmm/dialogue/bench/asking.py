"""Asking a detector the bench's questions about every clip, with a journal from which a stopped run continues."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
import torch

from dataset_scripts.json_lines import JSONLines

from ...media import Clip, MediaError
from ...pipeline_avd import AVDeepfakeDetectionPipeline
from ..composed_answers import compose
from ..conversation import Turns, encode_conversations, generation_batch, with_context
from ..generation import can_write, generation_config, on_device, seen_clip
from ..measured_context import context_of
from .answer_scores import QUESTIONS

_KEPT = ("label", "score", "video_score", "audio_score", "error")


def collect_answers(
    detector: AVDeepfakeDetectionPipeline,
    rows: datasets.Dataset,
    journal: Path,
    batch_size: int = 8,
    context: bool = False,
    max_new_tokens: int = 128,
) -> dict[str, dict]:
    """
    Ask about every row that is not in the journal yet.

    Args:
        detector ([`AVDeepfakeDetectionPipeline`]): The detector. If it cannot write, answers are composed.
        rows (`Dataset`): Rows with `path`, and `video` that is not decoded.
        journal (`Path`): File of JSON lines, extended clip by clip.
        batch_size (`int`, *optional*, defaults to 8): Clips asked at once.
        context (`bool`, *optional*, defaults to `False`): Tell the model the detector's verdicts first.
        max_new_tokens (`int`, *optional*, defaults to 128): Longest answer.

    Returns:
        `dict[str, dict]`: by `path`, the `label` and the scores of the verdict, the `answers` by key of `QUESTIONS`,
        and the `error` of a clip that cannot be read.
    """
    with JSONLines(journal) as lines:
        done = {entry["path"]: entry for _, entry in lines}
        todo = [index for index, path in enumerate(rows["path"]) if path not in done]
        print(f"{len(rows)} clips, {len(todo)} to be asked {len(QUESTIONS)} questions each", flush=True)
        for begin in range(0, len(todo), batch_size):
            batch = [rows[index] for index in todo[begin : begin + batch_size]]
            results = detector(batch, on_error="return", batch_size=batch_size)
            entries = [
                {"path": row["path"], **{name: result[name] for name in _KEPT}, "answers": None}
                for row, result in zip(batch, results, strict=True)
            ]
            if can_write(detector):
                _write_answers(detector, batch, results, entries, context, max_new_tokens)
            else:
                for entry, result in zip(entries, results, strict=True):
                    if entry["error"] is None:
                        entry["answers"] = {key: compose(q, result)[0] for key, q in QUESTIONS.items()}
            for entry in entries:
                lines.append(entry)
                done[entry["path"]] = entry
            print(f"  {begin + len(batch)}/{len(todo)}", flush=True)
    wanted = set(rows["path"])
    return {path: entry for path, entry in done.items() if path in wanted}


def _write_answers(
    detector: AVDeepfakeDetectionPipeline,
    batch: Sequence[dict],
    results: Sequence[dict],
    entries: Sequence[dict],
    context: bool,
    max_new_tokens: int,
) -> None:
    """Fill `answers`, or `error`, of the entries of a batch."""
    clips: dict[int, Clip] = {}
    for index, entry in enumerate(entries):
        if entry["error"] is not None:
            continue
        try:
            clips[index], _ = seen_clip(detector.processor, batch[index], results[index])
            entry["answers"] = {}
        except MediaError as error:
            entry["error"] = {"type": type(error).__name__, "message": str(error)}
    if not clips:
        return
    for key, question in QUESTIONS.items():
        conversations = [[(question, None)] for _ in clips]
        if context:
            conversations = [
                with_context(turns, context_of(results[index]))
                for turns, index in zip(conversations, clips, strict=True)
            ]
        texts = generate_answers(detector, list(clips.values()), conversations, max_new_tokens)
        for index, text in zip(clips, texts, strict=True):
            entries[index]["answers"][key] = text


@torch.inference_mode()
def generate_answers(
    detector: AVDeepfakeDetectionPipeline,
    clips: Sequence[Clip],
    conversations: Sequence[Turns],
    max_new_tokens: int,
) -> list[str]:
    """Return the model's answer to the last question of each conversation, one for each clip, from one batch."""
    processor, thinker = detector.processor, detector.model.thinker
    encoded = [
        encode_conversations(processor, clip, [turns])
        for clip, turns in zip(clips, conversations, strict=True)
    ]
    batch = on_device(generation_batch(processor, encoded), thinker)
    written = thinker.generate(**batch, generation_config=generation_config(processor, max_new_tokens))
    new = written[:, batch["input_ids"].shape[1] :]
    return processor.tokenizer.batch_decode(new, skip_special_tokens=True)

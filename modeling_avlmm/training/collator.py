"""From rows of a dataset to batches: decoding, questions and answers, padding. Runs in the loader's workers."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin

from ..configuration_detector import IGNORE_INDEX
from ..media import Clip, MediaError, MediaReader
from ..processing_avlmm import AVLMMProcessor, Question

QuestionsOf = Callable[[dict, Clip], list[Question]]


def verdict_questions(processor: AVLMMProcessor) -> QuestionsOf:
    """Asks what the schedule says: always about the clip, and about its picture and sound where `ask_*` is set."""

    def questions(row: dict, clip: Clip) -> list[Question]:
        asked = [processor.question("overall", row["label"])]
        if row.get("ask_video") and clip.has_video:
            asked.append(processor.question("video", row["video_label"]))
        if row.get("ask_audio") and clip.has_audio:
            asked.append(processor.question("audio", row["audio_label"]))
        return asked

    return questions


@dataclass
class AVCollator:
    """
    Decodes, encodes and pads the clips of a batch.

    A clip that cannot be read leaves the batch and is written to the drop list; nothing takes its place. A batch in
    which none can be read has no answers and a loss of zero.

    Args:
        processor ([`AVLMMProcessor`]): Samples and encodes the clips.
        questions_of (`Callable`): From row and clip to the questions, with answers.
        drops ([`DropList`], *optional*): Where unreadable clips are listed.
        clip_seconds (`float`, *optional*): Longer clips are cut.
        crop (`str`, *optional*, defaults to `"random"`): `random` or `start`.
        seed (`int`, *optional*, defaults to 0): Seed of the cuts; each depends on it and on the row's `draw` only.
        padding_side (`str`, *optional*, defaults to `"right"`): `"left"` or `"right"`.
    """

    processor: AVLMMProcessor
    questions_of: QuestionsOf
    drops: "DropList | None" = None
    clip_seconds: float | None = None
    crop: str = "random"
    seed: int = 0
    padding_side: str = "right"

    def __call__(self, rows: list[dict]) -> BatchFeature:
        encoded = []
        for row in rows:
            try:
                clip = self.read(row)
                encoded.append(self.encode(row, clip))
            except MediaError as error:
                if self.drops is None:
                    raise
                self.drops.add(row["path"], error)
        if not encoded:
            return empty_batch(self.processor.tokenizer.pad_token_id)
        return self.processor.collate(encoded, padding_side=self.padding_side)

    def encode(self, row: dict, clip: Clip) -> dict:
        """A clip with what is asked about it, without padding."""
        return self.processor.encode(clip, self.questions_of(row, clip))

    def read(self, row: dict) -> Clip:
        """Decodes the part of a row's clip that this draw trains on."""
        rng = np.random.default_rng([self.seed, row.get("draw", 0)]) if self.crop == "random" else None
        return read_row(row, self.processor, self.clip_seconds, rng)


def read_row(
    row: dict, processor: ProcessorMixin, clip_seconds: float | None, rng: np.random.Generator | None
) -> Clip:
    """
    Decodes a row's clip, or a part of it, as a processor samples it.

    Args:
        row (`dict`): In the package's schema.
        processor (`ProcessorMixin`): Says how frames are sampled, and whether leading silence is trimmed.
        clip_seconds (`float`, *optional*): Longer clips are cut to this length.
        rng (`numpy.random.Generator`, *optional*): Where to cut; at the start if left out.

    Raises:
        MediaError: when the clip cannot be read.
    """
    source = row["video"] if row["video"] is not None else row["audio"]
    separate = row["audio"] if row["video"] is not None else None
    trim = processor.trim_leading_silence
    with MediaReader(source, audio=separate, name=row["path"], trim_leading_silence=trim) as reader:
        start, end = 0.0, None
        if clip_seconds is not None and reader.info.duration > clip_seconds:
            if rng is not None:
                start = float(rng.uniform(0, reader.info.duration - clip_seconds))
            end = start + clip_seconds
        return reader.read(start=start, end=end, fps=processor.fps, max_frames=processor.max_frames)


def empty_batch(token_id: int) -> BatchFeature:
    """A batch that asks nothing: one row of text without answers, whose loss is zero."""
    ids = torch.full((1, 2), token_id)
    return BatchFeature(
        {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "position_ids": torch.arange(2).expand(3, 1, 2).clone(),
            "answer_positions": torch.full((1, 3), -1),
            "labels": torch.full_like(ids, IGNORE_INDEX),
        }
    )


@dataclass
class DropList:
    """
    The clips of a stage that could not be read, in a file that every worker appends to.

    Args:
        path (`Path`): The JSON-lines file: `path`, `error`, `message`.
    """

    path: Path

    def add(self, clip: str, error: Exception) -> None:
        line = json.dumps({"path": clip, "error": type(error).__name__, "message": str(error)}) + "\n"
        # One write of one line: appended whole, also by several workers at once.
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def entries(self) -> list[dict]:
        """Every drop so far, one for each time a clip was drawn and could not be read."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

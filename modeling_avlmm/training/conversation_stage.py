"""The `analysis` stage: a detector learns to talk about a clip, and keeps its verdict.

Method: DFA-GPT (arXiv 2501.01164), whose four tasks, frozen encoders, trained projectors and LoRA this follows. What is
our own: sound as well as picture, verdict questions asked of the same clips so that the verdict is not lost, and a
detector's verdicts in the conversation for a share of the clips.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets

from ..dialogue.conversation import Turns, encode_conversations, turns_of, with_context
from ..dialogue.instructions import build_instructions
from ..dialogue.measured_context import simulated_context
from ..explain.evidence_jobs import measured_evidence
from ..media import Clip
from ..modeling_avlmm import AVLMMForDeepfakeDetection
from ..processing_avlmm import AVLMMProcessor
from .collator import AVCollator
from .recipes import DataRecipe, RecipeError, StageRecipe
from .run_folder import say
from .schedule import build_schedule
from .tiny.vocabulary import grow_vocabulary


class ConversationCollator(AVCollator):
    """
    Asks about each clip what its row's conversation asks, and the verdict where `replay` is set.

    Questions about one clip share its encoding and do not see one another. The loss is on every answer of every
    conversation, closing token included, and on nothing else.

    Args:
        rows (`Dataset`): All instruction rows, of which `per_pass - 1` more about the same clip are asked as well.
        per_pass (`int`, *optional*, defaults to 1): Conversations about a clip in one pass, where there are as many.
        kwargs: As for [`AVCollator`]. `questions_of` gives the verdict questions.
    """

    def __init__(self, *args, rows: Dataset | None = None, per_pass: int = 1, **kwargs):
        super().__init__(*args, **kwargs)
        self.per_pass = per_pass
        self.rows = rows
        self._about: dict[str, list[int]] = {}
        for index, path in enumerate(rows["path"] if per_pass > 1 else ()):
            self._about.setdefault(path, []).append(index)

    def encode(self, row: dict, clip: Clip) -> dict:
        questions = self.questions_of(row, clip) if row["replay"] else ()
        return encode_conversations(self.processor, clip, self.conversations(row), questions)

    def conversations(self, row: dict) -> list[Turns]:
        """The row's conversation and others about its clip, with measured verdicts first where `with_context` is set."""
        rng = np.random.default_rng([self.seed, row["draw"], 2])
        drawn = [row["messages"]]
        if self.per_pass > 1:
            about = self._about[row["path"]]
            more = rng.permutation(len(about))[: self.per_pass - 1]
            drawn += [self.rows[about[index]]["messages"] for index in more]
        made = [turns_of(messages) for messages in drawn]
        if not row["with_context"]:
            return made
        return [with_context(turns, simulated_context(row, json.loads(row["facts"]), rng)) for turns in made]


def instruction_rows(dataset: Dataset, data: DataRecipe, stage: StageRecipe, folder: Path) -> Dataset:
    """
    The conversations of a stage about the clips of a training split.

    Args:
        dataset (`Dataset`): The split, in the package's schema.
        data ([`DataRecipe`]), stage ([`StageRecipe`]): What the recipe says.
        folder (`Path`): The stage's folder, where measured evidence is kept unless the recipe names another.
    """
    settings = stage.analysis
    evidence = None
    if settings.evidence != "none":
        with PartialState().main_process_first():
            evidence = measured_evidence(
                dataset, Path(settings.evidence or folder) / "evidence.jsonl", say=say
            )
    tasks = [task for task, share in settings.tasks.items() if share > 0]
    rows = build_instructions(dataset, tasks, settings.seed, settings.per_clip, evidence)
    kept = within(rows, data.clip_seconds)
    say(
        f"  {len(kept)} conversations about {len(dataset)} clips"
        + (
            f"; {len(rows) - len(kept)} name times after {data.clip_seconds:g} s and are left out"
            if len(kept) < len(rows)
            else ""
        )
    )
    return kept


def conversation_schedule(
    rows: Dataset, data: DataRecipe, stage: StageRecipe, draws: int, seed: int
) -> Dataset:
    """
    Draws conversations for a stage, each task by its share and within it as [`build_schedule`] draws clips.

    Args:
        rows (`Dataset`): Instruction rows.
        data ([`DataRecipe`]), stage ([`StageRecipe`]): Balance and shares.
        draws (`int`): Conversations to draw.
        seed (`int`): Seed of the order.

    Returns:
        `Dataset`: `draws` rows in order, with `draw` (their number), `ask_video`, `ask_audio`, `replay` and
        `with_context`.

    Raises:
        RecipeError: when a task that has a share has no conversation.
    """
    shares = {task: share for task, share in stage.analysis.tasks.items() if share > 0}
    tasks = np.array(rows["task"])
    missing = [task for task in shares if not (tasks == task).any()]
    if missing:
        raise RecipeError(
            f"There is no conversation of the task {', '.join(missing)}: set its share in stages.*.analysis.tasks to 0."
        )
    parts = []
    for number, (task, share) in enumerate(shares.items()):
        of_task = rows.select(np.flatnonzero(tasks == task))
        # Some tasks are about fakes only; then there are no classes to balance.
        mixed = len(set(of_task["label"])) > 1
        balance = data.balance if mixed else "none"
        count = int(np.ceil(draws * share / sum(shares.values())))
        drawn = build_schedule(of_task, dataclasses.replace(data, balance=balance), count, seed + number)
        parts.append(drawn.remove_columns("draw"))
    rng = np.random.default_rng([seed, 1])
    schedule = concatenate_datasets(parts)
    schedule = schedule.select(rng.permutation(len(schedule))[:draws])
    schedule = schedule.add_column("draw", np.arange(len(schedule)))
    schedule = schedule.add_column("replay", rng.random(len(schedule)) < stage.analysis.replay_share)
    return schedule.add_column("with_context", rng.random(len(schedule)) < stage.analysis.context_share)


def within(rows: Dataset, seconds: float) -> Dataset:
    """Rows whose answers name no time that is cut off when clips are cut to their first `seconds`."""

    def seen(facts: str) -> bool:
        segments = json.loads(facts).get("segments") or []
        return all(end <= seconds + 0.05 for _, end in segments)

    return rows.filter(seen, input_columns="facts")


def texts_of(rows: Iterable[dict]) -> Iterator[str]:
    """Everything that is said in conversations, and what a context is made of: what a tokenizer has to cover."""
    yield from CONTEXT_TEXTS
    for row in rows:
        for question, answer in turns_of(row["messages"]):
            yield " " + question.strip()
            yield answer


CONTEXT_TEXTS = (
    " Measured: clip fake 0.97, picture fake 0.99, sound real 0.03; fake from 0.5 to 1.5 s, from 2.0 to 2.5 s.",
    " clip real 0.97, picture real 0.99, sound fake 0.03.",
)


def write_grown(
    model: AVLMMForDeepfakeDetection, processor: AVLMMProcessor, rows: Dataset, folder: Path
) -> int:
    """Grows the vocabulary of a detector in place and saves it, as what the stage's weights belong to; number of new tokens."""
    made = grow_vocabulary(model, processor, texts_of(rows.select_columns("messages")))
    if PartialState().is_main_process:
        unfinished = folder.with_name(folder.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        model.save_pretrained(unfinished)
        processor.save_pretrained(unfinished)
        unfinished.rename(folder)
    PartialState().wait_for_everyone()
    return made


def mark_as_analyst(model: AVLMMForDeepfakeDetection, stage: StageRecipe) -> None:
    """Says in the configuration that the model can be talked to, and takes back what was fitted to the old weights."""
    settings = stage.analysis
    model.config.analysis = {
        "tasks": {task: share for task, share in settings.tasks.items() if share > 0},
        "context": settings.context_share > 0,
    }
    config = model.config
    config.threshold, config.temperature, config.abstain_band, config.calibration = 0.5, None, None, None

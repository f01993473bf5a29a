"""The `analysis` stage: a detector learns to talk about a clip, and keeps its verdict.

Method: DFA-GPT (arXiv 2501.01164), whose four tasks, frozen encoders, trained projectors and LoRA this follows. Our own:
sound as well as picture, verdict questions about the same clips so that the verdict is not lost, and a detector's verdicts
in the conversation for a share of the clips.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
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
from .avlmm_stages import AVLMMStage, load_to_train
from .batches import AVCollator, DropList, build_schedule, verdict_questions
from .progress import say
from .recipe_parts import DataRecipe, StageRecipe
from .recipe_values import RecipeError
from .tiny.vocabulary import write_grown
from .trainers import AVSFTTrainer


class AnalysisStage(AVLMMStage):
    """LoRA and the projectors train on conversations about clips; both encoders are frozen."""

    def rows(self, dataset: Dataset) -> Dataset:
        return instruction_rows(dataset, self.recipe.data, self.settings, self.folder)

    def model(self, rows: Dataset) -> tuple[AVLMMForDeepfakeDetection, AVLMMProcessor]:
        if not self.settings.analysis.grow_vocabulary:
            return super().model(rows)
        start = self.folder / "start"
        begun = start.is_dir()
        PartialState().wait_for_everyone()
        if begun:
            # Checkpoints belong to the vocabulary with which the stage began.
            self.source = start
            return super().model(rows)
        model, processor = load_to_train(self.source, self.recipe)
        say(f"  {write_grown(model, processor, rows, start)} new words, each a token of its own")
        self.source = start
        self.kind.freeze(model, self.settings)
        return model, processor

    def collator(
        self, model: AVLMMForDeepfakeDetection, processor: AVLMMProcessor, rows: Dataset, drops: DropList
    ) -> ConversationCollator:
        options = self.collator_options(processor, drops)
        options["crop"] = "start"  # times in answers count from the start of the file
        return ConversationCollator(
            questions_of=verdict_questions(processor),
            rows=rows,
            per_pass=self.settings.analysis.per_pass,
            **options,
        )

    def schedule(self, rows: Dataset, draws: int) -> Dataset:
        return conversation_schedule(rows, self.recipe.data, self.settings, draws, self.recipe.seed)

    def finish(self, trainer: AVSFTTrainer) -> tuple[AVLMMForDeepfakeDetection, AVLMMProcessor] | None:
        finished = super().finish(trainer)
        if finished is not None:
            mark_as_analyst(finished[0], self.settings)
        return finished


@dataclass
class ConversationCollator(AVCollator):
    """
    Batches for the `analysis` stage: clips with conversations, and with verdict questions where `replay` is set.

    Questions about one clip share its encoding and do not see one another. The loss is on every answer of every
    conversation, closing token included, and on nothing else.

    Args:
        rows (`Dataset`): All instruction rows, from which `per_pass - 1` more about the same clip are asked as well.
        per_pass (`int`, *optional*, defaults to 1): Most conversations about a clip in one pass.
        kwargs: Fields of [`AVCollator`]. `questions_of` gives the verdict questions.
    """

    rows: Dataset | None = None
    per_pass: int = 1
    _about: dict[str, list[int]] = field(default_factory=dict, init=False)

    def __post_init__(self):
        for index, path in enumerate(self.rows["path"] if self.per_pass > 1 else ()):
            self._about.setdefault(path, []).append(index)

    def encode(self, row: dict, clip: Clip) -> dict:
        questions = self.questions_of(row, clip) if row["replay"] else ()
        return encode_conversations(self.processor, clip, self.conversations(row), questions)

    def conversations(self, row: dict) -> list[Turns]:
        """Return the row's conversation and others about its clip, after measured verdicts where `with_context` is set."""
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
    Build the conversations of a stage about the clips of a training split.

    Args:
        dataset (`Dataset`): The split, in the package's schema.
        data ([`DataRecipe`]), stage ([`StageRecipe`]): Settings of the recipe.
        folder (`Path`): The stage's folder, which keeps measured evidence unless the recipe names another.
    """
    settings = stage.analysis
    evidence = None
    if settings.evidence != "none":
        file = Path(settings.evidence or folder) / "evidence.jsonl"
        with PartialState().main_process_first():
            evidence = measured_evidence(dataset, file, say=say)
    rows = build_instructions(dataset, list(settings.wanted), settings.seed, settings.per_clip, evidence)
    kept = within(rows, data.clip_seconds)
    left_out = len(rows) - len(kept)
    say(
        f"  {len(kept)} conversations about {len(dataset)} clips"
        + (f"; {left_out} name times after {data.clip_seconds:g} s and are left out" if left_out else "")
    )
    return kept


def conversation_schedule(
    rows: Dataset, data: DataRecipe, stage: StageRecipe, draws: int, seed: int
) -> Dataset:
    """
    Draw the conversations of a stage, each task by its share and within it as [`build_schedule`] draws clips.

    Args:
        rows (`Dataset`): Instruction rows.
        data ([`DataRecipe`]), stage ([`StageRecipe`]): Balance and shares.
        draws (`int`): Number of conversations to draw.
        seed (`int`): Seed of the order.

    Returns:
        `Dataset`: `draws` rows in order, with `draw` (their number), `ask_video`, `ask_audio`, `replay` and
        `with_context`.

    Raises:
        RecipeError: when a task that has a share has no conversation.
    """
    shares = stage.analysis.wanted
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
    """Return the rows whose answers name no time after the first `seconds`, at which clips are cut."""

    def seen(facts: str) -> bool:
        segments = json.loads(facts).get("segments") or []
        return all(end <= seconds + 0.05 for _, end in segments)

    return rows.filter(seen, input_columns="facts")


def mark_as_analyst(model: AVLMMForDeepfakeDetection, stage: StageRecipe) -> None:
    """Note in the configuration that the model can be talked to, and drop what was fitted to the old weights."""
    model.config.analysis = {
        "tasks": stage.analysis.wanted,
        "context": stage.analysis.context_share > 0,
    }
    config = model.config
    config.threshold, config.temperature, config.abstain_band, config.calibration = 0.5, None, None, None

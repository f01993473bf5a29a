"""From a corpus to batches: the clips of a split, the order in which they are drawn, decoding, encoding, padding.

The order is decided before a stage starts. Nothing is drawn at random while training runs, so a run that was killed resumes
exactly where it stopped, and two processes with half the work each do what one process does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Video, load_dataset
from datasets.exceptions import DatasetNotFoundError
from transformers import BatchFeature, ProcessorMixin

from dataset_scripts.errors import CorpusError
from dataset_scripts.json_lines import read_json_lines

from ..configuration_detector import IGNORE_INDEX
from ..evaluation.protocols import protocol_settings
from ..faces import FaceTrack
from ..media import Clip, MediaError
from ..modeling_verdicts import FAKE, REAL
from ..processing_avlmm import AVLMMProcessor, Question
from .augment import augment_clip
from .clip_reading import read_row
from .pseudo_fakes.pseudo_faker import PseudoFaker
from .recipe_parts import DataRecipe
from .recipe_values import RecipeError

QuestionsOf = Callable[[dict, Clip], list[Question]]
TrackOf = Callable[[dict], FaceTrack | None]
KeptClip = Callable[[dict, FaceTrack, np.random.Generator | None], Clip]
ROW_LABELS = ("label", "video_label", "audio_label")
"""Labels of a row of a dataset, in the order in which a processor's `encode` takes them."""
UNKNOWN = -1


# -- what is drawn -----------------------------------------------------------------------------------------------------


def load_split(data: DataRecipe, split: str) -> Dataset:
    """
    Load a split of a recipe's dataset, with media as paths, without the generators that the recipe leaves out.

    Raises:
        RecipeError: for a dataset, protocol or split that is not known, and where the recipe leaves out a generator that
            the split does not have.
        CorpusError: for a folder that does not hold the corpus as the protocol needs it.
    """
    try:
        protocol, settings = protocol_settings(data.dataset, data.protocol, data.data_dir)
        dataset = load_dataset(data.dataset, protocol, split=split, **settings)
    except CorpusError:
        raise
    except (ValueError, DatasetNotFoundError) as error:
        named = f"{data.dataset}/{data.protocol or 'default protocol'}, split {split}"
        raise RecipeError(f"data: {named}: {error}") from error
    dataset = dataset.cast_column("video", Video(decode=False))
    if not data.exclude_generators:
        return dataset
    made_by = list(zip(dataset["generator"], dataset["audio_generator"], strict=True))
    known = {name for names in made_by for name in names if name is not None}
    if unknown := sorted(set(data.exclude_generators) - known):
        raise RecipeError(
            f"data.exclude_generators: the split {split} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}."
        )
    left_out = set(data.exclude_generators)
    return dataset.select([number for number, names in enumerate(made_by) if not left_out & set(names)])


def build_schedule(dataset: Dataset, recipe: DataRecipe, draws: int, seed: int) -> Dataset:
    """
    Draw the clips of a stage.

    Each kind of clip is gone through in a fresh random order as often as needed, so no clip is drawn twice before all of
    its kind were drawn once.

    Args:
        dataset (`Dataset`): The training split, in the package's schema.
        recipe ([`DataRecipe`]): Balance and shares.
        draws (`int`): Number of clips to draw.
        seed (`int`): Seed of the order.

    Returns:
        `Dataset`: `draws` rows of `dataset`, in order, with the columns `draw` (its number), `ask_video` and
        `ask_audio`.

    Raises:
        RecipeError: when the split has clips of one class only and balance was asked for.
    """
    rng = np.random.default_rng(seed)
    groups = _groups(dataset, recipe.balance)
    order = np.concatenate([_cycle(members, share, draws, rng) for members, share in groups])
    # Cut to length after shuffling: rounding up every group's share may have drawn a few too many.
    order = rng.permutation(order)[:draws]
    drawn = dataset.select(order)
    known = {
        name: np.array([UNKNOWN if v is None else v for v in drawn[f"{name}_label"]])
        for name in ("video", "audio")
    }
    ask_video = (rng.random(len(order)) < recipe.video_share) & (known["video"] != UNKNOWN)
    ask_audio = (rng.random(len(order)) < recipe.audio_share) & (known["audio"] != UNKNOWN)
    drawn = drawn.add_column("draw", np.arange(len(order)))
    drawn = drawn.add_column("ask_video", ask_video)
    return drawn.add_column("ask_audio", ask_audio)


def _groups(dataset: Dataset, balance: str) -> list[tuple[np.ndarray, float]]:
    """Return the members of each kind of clip, and the share of the draws it gets."""
    labels = np.array(dataset["label"])
    everyone = np.arange(len(labels))
    if balance == "none":
        return [(everyone, 1.0)]
    real, fake = everyone[labels == REAL], everyone[labels == FAKE]
    if not len(real) or not len(fake):
        only = "fake" if len(fake) else "real"
        raise RecipeError(
            f"The training split holds {only} clips only, so real and fake cannot be balanced. "
            "Check the protocol and split, or set data.balance to none."
        )
    if balance == "label":
        return [(real, 0.5), (fake, 0.5)]
    columns = ["family"] if balance == "family" else ["video_label", "audio_label"]
    kinds: dict[tuple, list[int]] = {}
    for index, kind in enumerate(zip(*(dataset[name] for name in columns), strict=True)):
        if labels[index] == FAKE:
            kinds.setdefault(kind, []).append(index)
    return [(real, 0.5), *((np.array(members), 0.5 / len(kinds)) for members in kinds.values())]


def _cycle(members: np.ndarray, share: float, draws: int, rng: np.random.Generator) -> np.ndarray:
    count = int(np.ceil(share * draws))
    rounds = -(-count // len(members))
    return np.concatenate([rng.permutation(members) for _ in range(rounds)])[:count]


# -- batches -----------------------------------------------------------------------------------------------------------


@dataclass
class DropList:
    """
    The clips of a stage that could not be read, in a file that every worker appends to.

    Args:
        path (`Path`): The JSON-lines file: `path`, `error`, `message`.
    """

    path: Path

    def add(self, clip: str, error: Exception) -> None:
        """List a clip that could not be read."""
        line = json.dumps({"path": clip, "error": type(error).__name__, "message": str(error)}) + "\n"
        # One write per line: appended whole, even by several workers at once.
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def entries(self) -> list[dict]:
        """Return every drop so far, one for each time that a clip was drawn and could not be read."""
        return read_json_lines(self.path)

    def clips(self) -> set[str]:
        """Return the different clips that could not be read."""
        return {entry["path"] for entry in self.entries()}


@dataclass
class Collator:
    """
    Decode, encode and batch the clips of a list of rows.

    A clip that cannot be read leaves the batch and is written to the drop list; nothing takes its place. Anything random
    about a clip depends on `seed` and the row's `draw` alone.

    Args:
        processor (`ProcessorMixin`): Samples and encodes the clips.
        drops ([`DropList`], *optional*): List of unreadable clips; without one, they raise.
        clip_seconds (`float`, *optional*): Longer clips are cut to this length.
        crop (`str`, *optional*, defaults to `"random"`): Where to cut: `random` or `start`.
        seed (`int`, *optional*, defaults to 0): Seed of the cuts.
        track_of (`Callable[[dict], FaceTrack | None]`, *optional*): Gives the face of a row's clip to crop, see
            [`ClipFaces`]; whole frames without it.
        store (`Callable`, *optional*): Gives a draw of a row's face without decoding the clip again, see [`ClipStore`].
    """

    processor: ProcessorMixin
    drops: DropList | None = None
    clip_seconds: float | None = None
    crop: str = "random"
    seed: int = 0
    track_of: TrackOf | None = None
    store: KeptClip | None = None

    def __call__(self, rows: list[dict]) -> BatchFeature:
        encoded = []
        for row in rows:
            try:
                encoded.append(self.encode_row(row))
            except MediaError as error:
                if self.drops is None:
                    raise
                self.drops.add(row["path"], error)
        return self.batch(encoded)

    def encode_row(self, row: dict) -> dict:
        """Decode and encode one row, without padding."""
        raise NotImplementedError

    def batch(self, encoded: list[dict]) -> BatchFeature:
        """Make a batch of encoded rows, of which there may be none."""
        raise NotImplementedError

    def read_part(self, row: dict, rng: np.random.Generator | None) -> Clip:
        """
        Decode the part of a row's clip that this draw trains on, as the processor samples it.

        Args:
            row (`dict`): In the package's schema.
            rng (`numpy.random.Generator`, *optional*): Chooses where a random crop is cut; from the start without one.

        Raises:
            MediaError: when the clip cannot be read.
        """
        rng = rng if self.crop == "random" else None
        track = None if self.track_of is None else self.track_of(row)
        if self.store is not None and track is not None:
            return self.store(row, track, rng)
        return read_row(row, self.processor, self.clip_seconds, rng, track)


@dataclass
class AVCollator(Collator):
    """
    Batches for AV-LMMDetect: clips with questions and answers.

    A batch in which no clip can be read has no answers and a loss of zero.

    Args:
        questions_of (`Callable`): Gives the questions about a row's clip, with their answers.
        padding_side (`str`, *optional*, defaults to `"right"`): `"left"` or `"right"`.
        kwargs: Fields of [`Collator`].
    """

    processor: AVLMMProcessor
    questions_of: QuestionsOf | None = None
    padding_side: str = "right"

    def encode_row(self, row: dict) -> dict:
        return self.encode(row, self.read(row))

    def encode(self, row: dict, clip: Clip) -> dict:
        """Encode a clip with the questions about it, without padding."""
        return self.processor.encode(clip, self.questions_of(row, clip))

    def read(self, row: dict) -> Clip:
        """Decode the part of a row's clip that this draw trains on."""
        return self.read_part(row, np.random.default_rng([self.seed, row.get("draw", 0)]))

    def batch(self, encoded: list[dict]) -> BatchFeature:
        if not encoded:
            return empty_batch(self.processor.tokenizer.pad_token_id)
        return self.processor.collate(encoded, padding_side=self.padding_side)


@dataclass
class ClipCollator(Collator):
    """
    Batches for a small detector: clips with their labels.

    Rows without `draw` (validation on a corpus's own fakes) are taken from their start, unchanged.

    Args:
        augment (`bool`): See [`augment_clip`].
        pseudo_faker ([`PseudoFaker`], *optional*), others (`Dataset`, *optional*): Makes fakes of genuine clips on the fly,
            some of them with the sound of `others`.
        kwargs: Fields of [`Collator`].
    """

    augment: bool = False
    pseudo_faker: PseudoFaker | None = None
    others: Dataset | None = None

    def encode_row(self, row: dict) -> dict:
        clip, labels = self.example(row)
        given = {name: label for name, label in zip(ROW_LABELS, labels, strict=True) if label is not None}
        return self.processor.encode(clip, **given)

    def batch(self, encoded: list[dict]) -> BatchFeature:
        return self.processor.collate(encoded) if encoded else BatchFeature({})

    def example(self, row: dict) -> tuple[Clip, tuple[int | None, ...]]:
        """Return a clip and its labels: overall, of the picture and of the sound (None where unknown)."""
        labels = tuple(row[name] for name in ROW_LABELS)
        if "draw" not in row:
            return self.read_part(row, None), labels
        number = row["draw"]
        if self.pseudo_faker is not None:
            number = self.pseudo_faker.clip_number(number)
        rng = np.random.default_rng([self.seed, number])
        clip = self.read_part(row, rng)
        if self.pseudo_faker is not None:
            other = self.read_other(rng) if self.pseudo_faker.takes_others else None
            sample = self.pseudo_faker.draw(row["draw"], clip, other)
            clip, labels = sample.clip, (sample.label, sample.video_label, sample.audio_label)
        if self.augment:
            clip = augment_clip(clip, rng)
        return clip, labels

    def read_other(self, rng: np.random.Generator) -> Clip | None:
        """Read another genuine clip. One that cannot be read is listed, and no fake that needs it is made."""
        row = self.others[int(rng.integers(len(self.others)))]
        try:
            return self.read_part(row, rng)
        except MediaError as error:
            if self.drops is None:
                raise
            self.drops.add(row["path"], error)
            return None


def verdict_questions(processor: AVLMMProcessor) -> QuestionsOf:
    """Ask for the verdict on every clip, and on its picture and sound where the schedule set `ask_*`."""

    def questions(row: dict, clip: Clip) -> list[Question]:
        asked = [processor.question("overall", row["label"])]
        if row.get("ask_video") and clip.has_video:
            asked.append(processor.question("video", row["video_label"]))
        if row.get("ask_audio") and clip.has_audio:
            asked.append(processor.question("audio", row["audio_label"]))
        return asked

    return questions


def empty_batch(token_id: int) -> BatchFeature:
    """Return a batch that asks nothing: one row of text without answers, whose loss is zero."""
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

"""The stages of facevoice: its picture network and its sound network, each trained on pairs made of genuine recordings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import BatchFeature, TrainingArguments

from dataset_scripts.files import write_whole

from ..faces import FaceFinder
from ..inference.face_cache import FaceCache
from ..modeling_facevoice import FaceVoiceForDeepfakeDetection
from ..processing_facevoice import FaceVoiceProcessor
from .array_store import ArrayStore
from .assembly import facevoice_config, load_detector, make_detector
from .batches import DropList
from .face_store import FaceReader, face_store, redrawn_store
from .genuine_data import TRAINING_FILES, Recording, genuine_recordings, training_files
from .pair_training import LogOdds, PairTrainer, PairTraining, measure_norms
from .pseudo_fakes.self_blended import KINDS as PICTURE_KINDS
from .pseudo_fakes.self_blended import self_blended_pair
from .recipe_values import RecipeError, unknown_field
from .recipes import GenuineRecipe
from .speech_store import SpeechStore, speech_pair, speech_store, synthesisers
from .trainers import training_arguments

OF_A_DECODER = ("patch", "redrawn_face", "redrawn")
"""Kinds of fakes in which a decoder drew a part of the picture."""


@dataclass
class Sample:
    """
    What pairs are made of: the crops of a face over time, or a recording of speech.

    Attributes:
        recording ([`Recording`]): Where it is from.
        numbers (`list[int]`): Its crops or sounds, by their numbers in the store.
    """

    recording: Recording
    numbers: list[int]


class FaceVoiceStage:
    """
    The training of one network of facevoice, as `run.py` takes it; [`AVLMMStage`] has the same methods.

    Args:
        recipe ([`GenuineRecipe`]): The run.
        source (`Path`, *optional*): Folder of the detector to start from; a new one if left out.
    """

    draws_of: ClassVar[str] = "pairs"
    summary_file: ClassVar[str] = "training.json"
    name: ClassVar[str]
    kinds_of_media: ClassVar[tuple[str, ...]]

    def __init__(self, recipe: GenuineRecipe, source: Path | None = None):
        self.recipe, self.source = recipe, source
        self.settings = {"picture": recipe.picture, "sound": recipe.sound}[self.name]
        self.title = f"{self.name} network"
        self.folder = Path(recipe.output_dir) / self.name
        self.processor: FaceVoiceProcessor | None = None
        self.store: ArrayStore | SpeechStore | None = None
        self.samples: list[Sample] = []

    @property
    def stores(self) -> Path:
        """Folder of the crops and sounds."""
        return Path(self.recipe.data.store or Path(self.recipe.output_dir) / "store")

    def rows(self, dataset: Dataset) -> Dataset:
        """Return the samples of the people that are trained on, see `table`."""
        recordings = genuine_recordings(self.recipe.data, dataset, self.recipe.seed)
        if PartialState().is_main_process:
            write_whole(Path(self.recipe.output_dir) / TRAINING_FILES, training_files(recordings))
        chosen = [each for each in recordings if each.kind in self.kinds_of_media]
        with PartialState().main_process_first():
            self.samples = self.read(chosen)
        rows = self.table([n for n, each in enumerate(self.samples) if not each.recording.held_out])
        if not len(rows) or len(rows) == len(self.samples):
            who = "to train on" if not len(rows) else "held out"
            raise RecipeError(f"data: nothing is left for the {self.name} network of the people {who}.")
        return rows

    def table(self, numbers: list[int]) -> Dataset:
        """Return a table of samples: `sample` (the number), `path`, `person` and `photo`."""
        of = [self.samples[number].recording for number in numbers]
        return Dataset.from_dict(
            {
                "sample": numbers,
                "path": [each.path for each in of],
                "person": [each.person for each in of],
                "photo": [each.kind == "photos" for each in of],
            }
        )

    def read(self, recordings: list[Recording]) -> list[Sample]:
        """Open or fill the store, and return its samples."""
        raise NotImplementedError

    def log_odds(self) -> LogOdds:
        """Return what gives the log-odds of the network for a batch."""
        raise NotImplementedError

    def freeze(self, model: FaceVoiceForDeepfakeDetection) -> None:
        """Let only the network of this stage train."""
        raise NotImplementedError

    def pair(self, sample: Sample, rng: np.random.Generator) -> tuple[dict, dict] | None:
        """Return the model's inputs for a genuine sample and a fake of it; None where none can be made."""
        raise NotImplementedError

    def model(self, rows: Dataset) -> tuple[PairTraining, FaceVoiceProcessor]:
        """Make the detector, or take that of the stage before."""
        detector, self.processor = (
            make_detector(self.recipe.model) if self.source is None else load_detector(self.source)
        )
        self.freeze(detector)
        return PairTraining(detector, self.log_odds(), self.settings), self.processor

    def collator(
        self, model: PairTraining, processor: FaceVoiceProcessor, rows: Dataset, drops: DropList
    ) -> PairCollator:
        """Return the collator, which makes the pairs."""
        return PairCollator(self.pair, self.samples, self.recipe.seed)

    def draws(self, rows: Dataset, processes: int) -> int:
        """Return the number of pairs to draw."""
        settings = self.settings
        return settings.max_steps * settings.batch_size * settings.gradient_accumulation * processes

    def schedule(self, rows: Dataset, draws: int) -> Dataset:
        """Draw the samples that are trained on, in order: each before any comes again."""
        rng = np.random.default_rng([self.recipe.seed, 3])
        rounds = -(-draws // len(rows))
        order = np.concatenate([rng.permutation(len(rows)) for _ in range(rounds)])[:draws]
        return rows.select(order).add_column("draw", np.arange(draws))

    def validation(self, draws: int) -> Dataset:
        """Return the held-out samples, each several times; their draws come after those of training."""
        held_out = [n for n, each in enumerate(self.samples) if each.recording.held_out]
        rows = self.table(np.repeat(held_out, self.settings.validation_draws).tolist())
        return rows.add_column("draw", draws + np.arange(len(rows)))

    def trainer(
        self, model: PairTraining, processor: FaceVoiceProcessor, rows: Dataset, **options
    ) -> PairTrainer:
        """Return the trainer; `options` are `train_dataset`, `data_collator`, `drops` and `max_drops`."""
        if self.settings.freeze_norms:
            drawn, size = options["train_dataset"], self.settings.batch_size
            places = range(0, len(drawn), size)
            parts = (drawn.select(range(at, min(len(drawn), at + size))).to_list() for at in places)
            measure_norms(model, map(options["data_collator"], parts))
        return PairTrainer(
            model=model,
            args=self.arguments(),
            eval_dataset=self.validation(len(options["train_dataset"])),
            **options,
        )

    def arguments(self) -> TrainingArguments:
        """Return the trainer's arguments."""
        steps = self.settings.max_steps
        arguments = training_arguments(
            self.recipe,
            self.settings,
            self.folder / "checkpoints",
            steps,
            max(1, steps // 4),
            scored=self.settings.keep == "auc",
        )
        arguments.label_names = ["labels", "groups"]
        return arguments

    def finish(self, trainer: PairTrainer) -> tuple[FaceVoiceForDeepfakeDetection, FaceVoiceProcessor] | None:
        """Return the detector with the trained network, and its processor; None on all processes but the main one."""
        if not trainer.is_world_process_zero():
            return None
        training = trainer.accelerator.unwrap_model(trainer.model)
        return training.best.requires_grad_(True), self.processor

    def summary(self, trainer: PairTrainer) -> dict:
        """Return what the summary file says beside the counts of every stage."""
        best = trainer.state.best_metric
        return {
            "training": dataclasses.asdict(self.settings),
            "validation_auc": best,
            "best_step": None if best is None else trainer.state.best_global_step,
            "samples": len(self.samples),
            "held_out_samples": sum(each.recording.held_out for each in self.samples),
        }


@dataclass
class PairCollator:
    """
    Makes pairs. Anything random about one depends on `seed` and its row's `draw` alone.

    Args:
        pair (`Callable`): Makes a pair of a sample: the inputs of the genuine one and of the fake, or None.
        samples (`list[Sample]`): The samples, by number.
        seed (`int`): Seed of everything drawn.
    """

    pair: Callable[[Sample, np.random.Generator], tuple[dict, dict] | None]
    samples: list[Sample]
    seed: int

    def __call__(self, rows: list[dict]) -> BatchFeature:
        made, groups = [], []
        for row in rows:
            pair = self.pair(self.samples[row["sample"]], np.random.default_rng([self.seed, row["draw"]]))
            if pair is not None:
                made += pair
                groups += [row["sample"]] * 2
        if not made:
            return BatchFeature({})
        inputs = {name: torch.stack([each[name] for each in made]) for name in made[0]}
        labels = torch.tensor([0, 1]).repeat(len(made) // 2)
        return BatchFeature({**inputs, "labels": labels, "groups": torch.tensor(groups)})


class PictureStage(FaceVoiceStage):
    """The picture network, on self-blended and redrawn faces."""

    name = "picture"
    kinds_of_media = ("clips", "photos")

    def __init__(self, recipe: GenuineRecipe, source: Path | None = None):
        super().__init__(recipe, source)
        self.redrawings: ArrayStore | None = None
        self.redrawn: dict[int, int] = {}

    def read(self, recordings: list[Recording]) -> list[Sample]:
        data = self.recipe.data
        folder = Path(self.recipe.output_dir)
        cache = FaceCache(data.face_cache or folder / "faces")
        reader = FaceReader(cache, data.frames, finder=FaceFinder())
        drops = DropList(self.folder / "drops.jsonl")
        self.store = face_store(self.stores / "crops", recordings, reader, drops, data.num_workers)
        tracks: dict[tuple[int, int], list[int]] = {}
        for number, key in enumerate(
            zip(self.store.columns["recording"].tolist(), self.store.columns["track"].tolist(), strict=True)
        ):
            tracks.setdefault(key, []).append(number)
        if self.settings.redrawn_frames:
            self._redraw(tracks.values())
        return [Sample(recordings[recording], numbers) for (recording, _), numbers in tracks.items()]

    def _redraw(self, tracks: Iterable[list[int]]) -> None:
        """Open or make redrawn copies of some crops of each track."""
        most, numbers = self.settings.redrawn_frames, []
        for track in tracks:
            numbers += [track[place] for place in np.linspace(0, len(track) - 1, most).round().astype(int)]
        numbers, settings = sorted(set(numbers)), {"crops": len(self.store), "frames": most}
        self.redrawings = redrawn_store(
            self.stores / "redrawn", self.store, numbers, settings, self.recipe.seed
        )
        self.redrawn = {int(of): place for place, of in enumerate(self.redrawings.columns["of"])}

    def log_odds(self) -> LogOdds:
        return picture_log_odds

    def freeze(self, model: FaceVoiceForDeepfakeDetection) -> None:
        model.requires_grad_(False)
        model.picture.requires_grad_(True)
        model.picture_head.requires_grad_(True)

    def schedule(self, rows: Dataset, draws: int) -> Dataset:
        # By people, whose clips and tracks may be many or few.
        share, photo = self.settings.photo_share, np.array(rows["photo"])
        rng = np.random.default_rng([self.recipe.seed, 3])
        people = np.array(rows["person"])
        if share is None:
            order = by_people(people, draws, rng)
        else:
            if not 0 < photo.mean() < 1:
                raise RecipeError(
                    "picture.photo_share needs clips and photographs to train on: set data.photos."
                )
            is_photo = rng.random(draws) < share
            order = np.empty(draws, dtype=np.int64)
            for kind in (True, False):
                members, places = np.flatnonzero(photo == kind), np.flatnonzero(is_photo == kind)
                order[places] = members[by_people(people[members], len(places), rng)]
        return rows.select(order).add_column("draw", np.arange(draws))

    def pair(self, sample: Sample, rng: np.random.Generator) -> tuple[dict, dict]:
        number, kinds = int(rng.choice(sample.numbers)), self.settings.kinds or PICTURE_KINDS
        redrawn = [each for each in sample.numbers if each in self.redrawn]
        drawn = {kind: kinds[kind] for kind in OF_A_DECODER if kinds.get(kind)}
        if redrawn and drawn and rng.random() < self.settings.redrawn_share:
            number, kinds = int(rng.choice(redrawn)), drawn
        landmarks = self.store.columns["landmarks"]
        donor = self._donor(number, sample, rng)
        made = self_blended_pair(
            self.store[number],
            landmarks[number],
            rng,
            side=self.processor.image_size,
            kinds=kinds,
            redrawn=self.redrawings[self.redrawn[number]] if number in self.redrawn else None,
            other=(self.store[donor], landmarks[donor]),
        )
        return tuple(
            {"pixel_values": torch.from_numpy(picture).permute(2, 0, 1).contiguous()}
            for picture in (made.genuine, made.fake)
        )

    def _donor(self, number: int, sample: Sample, rng: np.random.Generator) -> int:
        """Return the crop whose face the kind `swap` takes: another moment, or for a photograph another face."""
        if len(sample.numbers) > 1:
            return int(rng.choice([other for other in sample.numbers if other != number]))
        held_out = sample.recording.held_out
        if sum(each.recording.held_out == held_out for each in self.samples) == 1:
            return number
        while True:
            other = self.samples[int(rng.integers(len(self.samples)))]
            if other is not sample and other.recording.held_out == held_out:
                return int(rng.choice(other.numbers))


class SoundStage(FaceVoiceStage):
    """The sound network, on genuine speech and synthetic copies of it."""

    name = "sound"
    kinds_of_media = ("clips", "speech")

    def read(self, recordings: list[Recording]) -> list[Sample]:
        drops = DropList(self.folder / "drops.jsonl")
        self.store = speech_store(self.stores / "speech", recordings, self.recipe, drops)
        return [Sample(recordings[place], numbers) for place, numbers in self.store.by_recording.items()]

    def log_odds(self) -> LogOdds:
        return sound_log_odds

    def freeze(self, model: FaceVoiceForDeepfakeDetection) -> None:
        model.requires_grad_(False)
        model.sound.requires_grad_(True)

    def pair(self, sample: Sample, rng: np.random.Generator) -> tuple[dict, dict] | None:
        return speech_pair(self.store, sample.numbers, sample.recording.held_out, self.settings, rng)


def by_people(people: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return the numbers of drawn samples: every person before anyone comes again, of each one any sample."""
    samples: dict[str, list[int]] = {}
    for number, person in enumerate(people.tolist()):
        samples.setdefault(person, []).append(number)
    names = sorted(samples)
    rounds = -(-draws // len(names))
    drawn = [int(place) for _ in range(rounds) for place in rng.permutation(len(names))][:draws]
    return np.array([int(rng.choice(samples[names[place]])) for place in drawn], dtype=np.int64)


def picture_log_odds(detector: FaceVoiceForDeepfakeDetection, inputs: dict) -> torch.Tensor:
    """Return the log-odds of face crops `pixel_values (N, 3, side, side)`."""
    return detector.frame_log_odds(inputs["pixel_values"])


def sound_log_odds(detector: FaceVoiceForDeepfakeDetection, inputs: dict) -> torch.Tensor:
    """Return the log-odds of `audio_values (N, samples)` with `audio_mask (N, samples // 160)`."""
    return detector.sound_log_odds(inputs["audio_values"], inputs["audio_mask"])


def facevoice_stages(recipe: GenuineRecipe) -> list[FaceVoiceStage]:
    """Return the stages of a recipe: those of the networks whose weights it does not give."""
    for kind in recipe.picture.kinds:
        if kind not in PICTURE_KINDS:
            raise unknown_field(kind, PICTURE_KINDS, "picture.kinds.")
    synthesisers(recipe)
    if recipe.model.start is None:
        facevoice_config(recipe.model)
    stages: list[FaceVoiceStage] = []
    for kind, given in (
        (PictureStage, recipe.model.picture_weights),
        (SoundStage, recipe.model.sound_weights),
    ):
        if given is None:
            stages.append(kind(recipe, stages[-1].folder / "model" if stages else None))
    return stages

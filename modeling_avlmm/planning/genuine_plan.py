"""The dry run of facevoice's training: its two networks, and the space that crops and sounds take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig

from ..configuration_facevoice import HOP, FaceVoiceConfig
from ..explain.words import count_of
from ..media import SAMPLING_RATE
from ..modeling_facevoice import FaceVoiceForDeepfakeDetection
from ..training.assembly import facevoice_config
from ..training.face_store import LARGEST
from ..training.facevoice_stages import FaceVoiceStage, facevoice_stages
from ..training.genuine_data import Recording
from ..training.pair_training import PairTraining
from ..training.recipe_values import check_place
from ..training.recipes import GenuineRecipe
from .live_bytes import MemoryNeed, Pass, memory_need, without_values
from .phrases import advice, files_line

Change = Callable[[GenuineRecipe], GenuineRecipe]


def model_line(recipe: GenuineRecipe) -> str:
    """Say what is trained."""
    network = recipe.model
    if network.start is not None:
        return f"facevoice, further from {network.start}"
    begins = "ImageNet weights" if network.pretrained else "random weights"
    return f"facevoice, its picture network {planned_config(recipe).backbone} from {begins}"


def recordings_line(recordings: list[Recording]) -> str:
    """Say how much there is to train on, and how much is held out."""
    counts = {kind: sum(each.kind == kind for each in recordings) for kind in ("clips", "photos", "speech")}
    people = {each.person for each in recordings}
    held_out = {each.person for each in recordings if each.held_out}
    parts = [count_of(counts["clips"], "genuine clip")]
    parts += [count_of(counts["photos"], "photograph")] if counts["photos"] else []
    parts += [count_of(counts["speech"], "sound file")] if counts["speech"] else []
    return f"{', '.join(parts)}; {len(held_out)} of {len(people)} people held out"


def stage_plans(recipe: GenuineRecipe, clips: int | None, processes: int) -> list[FaceVoicePlan]:
    """Return the plan of each stage; `clips` is the number of recordings, None where it is not known."""
    return [
        FaceVoicePlan(recipe, stage, planned_config(recipe), clips, processes)
        for stage in facevoice_stages(recipe)
    ]


def planned_config(recipe: GenuineRecipe) -> FaceVoiceConfig:
    """Return the configuration of the detector, without loading weights."""
    if recipe.model.start is None:
        return facevoice_config(recipe.model)
    check_place("model.start", recipe.model.start)
    return AutoConfig.from_pretrained(recipe.model.start)


@dataclass
class FaceVoicePlan:
    """
    The plan of one network's training.

    Args:
        recipe ([`GenuineRecipe`]): The run.
        stage ([`FaceVoiceStage`]): The stage.
        config ([`FaceVoiceConfig`]): The detector's configuration.
        clips (`int`, *optional*): Number of recordings, where it is known.
        processes (`int`): Number of processes.
    """

    recipe: GenuineRecipe
    stage: FaceVoiceStage
    config: FaceVoiceConfig
    clips: int | None
    processes: int

    @property
    def title(self) -> str:
        return self.stage.title

    def need(self) -> MemoryNeed:
        """Predict the memory."""
        return predict(self.recipe, self.stage.name, self.config, self.processes)

    def facts(self) -> Iterator[str]:
        """Yield lines about steps and samples."""
        settings = self.stage.settings
        pairs = settings.batch_size * settings.gradient_accumulation * self.processes
        yield f"{settings.max_steps} steps of {pairs} pairs, each a genuine sample and a fake made of it"
        if settings.average:
            yield "weights are counted twice: the networks' own, and their average, which is what is kept"
        if self.stage.name == "picture":
            yield f"face crops of {self.config.image_size} x {self.config.image_size}"
            most = self.recipe.data.frames * 3 * LARGEST**2
            yield (
                f"crops kept in {self.stage.stores}: at most {most / 1024**2:.0f} MiB for each face of a clip, usually a third"
            )
        else:
            yield f"{settings.seconds:g} s of sound; recordings in {settings.variants} speeds, with copies, in {self.stage.stores}"

    def files_line(self, need: MemoryNeed) -> str:
        """Say what the run would write, and how large that is."""
        return files_line(self.stage.folder, need)

    def advice(self, need: MemoryNeed, limit: float) -> Iterator[str]:
        """Yield lines that say what would help."""
        name = self.stage.name
        yield from advice(
            self.recipe,
            savings(self.recipe, name),
            lambda recipe: predict(recipe, name, self.config, self.processes),
            limit,
        )


def predict(recipe: GenuineRecipe, name: str, config: FaceVoiceConfig, processes: int = 1) -> MemoryNeed:
    """Predict the memory of a training step of one network, `picture` or `sound`, on one device."""
    stage = next(each for each in facevoice_stages(recipe) if each.name == name)
    with torch.device("meta"):
        model = FaceVoiceForDeepfakeDetection(config)
    stage.freeze(model)
    training = PairTraining(model, stage.log_odds(), stage.settings)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    without_values(training.train(), fake)
    settings = stage.settings
    kind = Pass(
        trains=True,
        autocast=settings.bf16,
        accumulates=settings.gradient_accumulation > 1,
        processes=processes,
    )
    samples = 2 * settings.batch_size
    batch = {"labels": torch.tensor([0, 1]).repeat(settings.batch_size)}
    with fake:
        if name == "picture":
            shape = (samples, 3, config.image_size, config.image_size)
            batch["pixel_values"] = torch.empty(shape, dtype=torch.uint8)
        else:
            length = round(recipe.sound.seconds * SAMPLING_RATE) // HOP * HOP
            batch["audio_values"] = torch.empty(samples, length)
            batch["audio_mask"] = torch.empty(samples, length // HOP, dtype=torch.bool)
    return memory_need(training, batch, kind)


def savings(recipe: GenuineRecipe, name: str) -> Iterator[tuple[str, Change]]:
    """Yield settings that save memory, cheapest for the result first: the words to type, and a function."""
    settings = vars(recipe)[name]
    if not settings.bf16:
        yield f"--{name}.bf16 true", _changed(name, bf16=True)
    size, accumulation = settings.batch_size, settings.gradient_accumulation
    for share in (2, 4):
        if size % share == 0:
            words = (
                f"--{name}.batch_size {size // share} --{name}.gradient_accumulation {accumulation * share}"
            )
            yield words, _changed(name, batch_size=size // share, gradient_accumulation=accumulation * share)


def _changed(name: str, **values) -> Change:
    return lambda recipe: dataclasses.replace(
        recipe, **{name: dataclasses.replace(vars(recipe)[name], **values)}
    )

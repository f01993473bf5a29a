"""The dry runs of a small detector (SSAVD, AVPL, facevoice): of its training, and of a scoring pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import CLIPVisionConfig, PreTrainedConfig, WhisperConfig

from ..inference.auto import AutoModelForAVDeepfakeDetection
from ..media import SAMPLING_RATE, Clip
from ..training.recipe_values import RecipeError
from ..training.recipes import SmallDetectorRecipe
from ..training.small_detectors import (
    encoder_sources,
    network_config,
    processor_for,
    started_config,
    steps_of,
)
from .live_bytes import MemoryNeed, Pass, memory_need, without_values
from .memory import checkpoint_activations
from .phrases import advice, files_line, steps_line

Change = Callable[[SmallDetectorRecipe], SmallDetectorRecipe]


def model_line(recipe: SmallDetectorRecipe) -> str:
    """Say what is trained."""
    network = recipe.model
    if network.start is not None:
        return f"Network {recipe.system}, further from {network.start}"
    return f"Network {recipe.system}" + (f", preset {network.preset}" if network.preset else "")


def stage_plans(recipe: SmallDetectorRecipe, clips: int | None, processes: int) -> list[SmallDetectorPlan]:
    """Return the plan of the one stage; `clips` is the number of clips to draw from, None where it is not known."""
    return [SmallDetectorPlan(recipe, planned_config(recipe), clips, processes)]


@dataclass
class SmallDetectorPlan:
    """
    The plan of a small detector's training.

    Args:
        recipe ([`SmallDetectorRecipe`]): The run.
        config (`PreTrainedConfig`): The network's configuration.
        clips (`int`, *optional*): Number of clips to draw from, where it is known.
        processes (`int`): Number of processes.
    """

    recipe: SmallDetectorRecipe
    config: PreTrainedConfig
    clips: int | None
    processes: int

    @property
    def title(self) -> str:
        return f"{self.recipe.name} ({self.recipe.system})"

    def need(self) -> MemoryNeed:
        """Predict the memory."""
        return predict(self.recipe, self.config, self.processes)

    def facts(self) -> Iterator[str]:
        """Yield lines about steps and clips."""
        training, data = self.recipe.training, self.recipe.data
        steps = training.max_steps
        if self.clips is not None:
            steps, _ = steps_of(self.recipe, self.clips, self.processes)
        yield steps_line(
            training.batch_size, training.gradient_accumulation, self.processes, training.epochs, steps, None
        )
        processor = processor_for(self.config)
        seconds = data.clip_seconds or processor.max_seconds
        yield (
            f"of each clip {seconds:g} s of sound and up to {processor.max_frames} frames of {self.config.image_size} x "
            f"{self.config.image_size}"
        )
        if data.pseudo_fakes:
            yield f"{data.pseudo_fakes:.0%} of the draws are made fake on the fly, from genuine clips"

    def files_line(self, need: MemoryNeed) -> str:
        """Say what the run would write, and how large that is."""
        return files_line(self.recipe.output_dir, need)

    def advice(self, need: MemoryNeed, limit: float) -> Iterator[str]:
        """Yield lines that say what would help."""
        changes = savings(self.recipe, network_without_weights(self.config).supports_gradient_checkpointing)
        yield from advice(
            self.recipe, changes, lambda recipe: predict(recipe, self.config, self.processes), limit
        )


def planned_config(recipe: SmallDetectorRecipe) -> PreTrainedConfig:
    """
    Return the configuration of the network that a recipe trains, without loading weights.

    Raises:
        RecipeError: for a configuration that cannot be read, or options that the network does not have.
    """
    network = recipe.model
    try:
        if network.start is not None:
            return started_config(network)
        if recipe.system != "avpl":
            return network_config(recipe.system, network)
        vision, audio = encoder_sources(network.options)
        encoders = {
            "vision_config": CLIPVisionConfig.from_pretrained(vision).to_dict(),
            "audio_config": WhisperConfig.from_pretrained(audio).to_dict(),
        }
    except (OSError, ValueError) as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"model: a configuration cannot be read: {error}") from error
    return network_config(
        recipe.system, dataclasses.replace(network, options={**network.options, **encoders})
    )


def network_without_weights(config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return the network on the meta device."""
    with torch.device("meta"):
        return AutoModelForAVDeepfakeDetection.from_config(config, dtype=dtype)


def predict(recipe: SmallDetectorRecipe, config: PreTrainedConfig, processes: int = 1) -> MemoryNeed:
    """Predict the memory of a training step on one device."""
    training = recipe.training
    model = network_without_weights(config)
    if training.gradient_checkpointing:
        checkpoint_activations(model)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    without_values(model.train(), fake)
    kind = Pass(
        trains=True,
        autocast=training.bf16,
        accumulates=training.gradient_accumulation > 1,
        processes=processes,
    )
    return memory_need(model, make_batch(config, training.batch_size, fake), kind)


def predict_scoring(config: PreTrainedConfig, batch_size: int, dtype: torch.dtype) -> MemoryNeed:
    """Predict the memory of a scoring pass of so many windows, with weights of a type."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    model = without_values(network_without_weights(config, dtype).eval(), fake)
    return memory_need(model, make_batch(config, batch_size, fake, labels=False), Pass(trains=False))


@dataclass(frozen=True)
class SmallScoring:
    """
    A scoring pass of a small detector. Every window fills the network's length, however short it is.

    Args:
        config (`PreTrainedConfig`): The network's configuration.
        dtype (`torch.dtype`): Type of the weights.
        batch_size (`int`): Windows of a pass.
        seconds (`float`, *optional*): Length of a window; the network's own if left out.
    """

    config: PreTrainedConfig
    dtype: torch.dtype
    batch_size: int = 1
    seconds: float | None = None

    @property
    def window_seconds(self) -> float:
        """Length of a window."""
        return self.seconds or processor_for(self.config).max_seconds

    def need(self) -> MemoryNeed:
        """Predict the memory of the pass."""
        return predict_scoring(self.config, self.batch_size, self.dtype)


def make_batch(
    config: PreTrainedConfig, batch_size: int, fake: FakeTensorMode | None = None, labels: bool = True
) -> dict[str, torch.Tensor]:
    """
    Return a batch of clips of the largest size, half of them labelled fake where there are `labels`.

    Masks and labels have values, as the losses depend on them. Pictures and sound have none where `fake` is given, and are
    zeros otherwise.
    """
    processor = processor_for(config)
    count, seconds = processor.max_frames, processor.max_seconds
    clip = Clip(
        frames=torch.zeros(count, 3, config.image_size, config.image_size, dtype=torch.uint8),
        timestamps=torch.arange(count, dtype=torch.float64) * seconds / count,
        audio=torch.zeros(round(seconds * SAMPLING_RATE)),
        start=0.0,
        end=float(seconds),
        name="planned",
        warnings=[],
    )
    known = (
        {"label": label, "video_label": label, "audio_label": label} if labels else {} for label in (0, 1)
    )
    encoded = [processor.encode(clip, **each) for each in known]
    batch = {}
    for name, pair in processor.collate(encoded).items():
        if name.endswith("_mask"):  # silence may count as absent; the largest batch is full
            pair = torch.ones_like(pair)
        if (
            fake is not None
            and (pair.dtype == torch.uint8 or pair.is_floating_point())
            and pair[0].numel() > 1000
        ):
            with fake:
                batch[name] = torch.empty((batch_size, *pair.shape[1:]), dtype=pair.dtype)
        else:
            repeats = [-(-batch_size // 2), *[1] * (pair.ndim - 1)]
            batch[name] = pair.repeat(*repeats)[:batch_size]
    return batch


def savings(recipe: SmallDetectorRecipe, recomputes: bool) -> Iterator[tuple[str, Change]]:
    """Yield settings that save memory, cheapest for the result first: the words to type, and a function."""
    training = recipe.training
    if not training.bf16:
        yield "--training.bf16 true", _training(bf16=True)
    if recomputes and not training.gradient_checkpointing:
        yield (
            "--training.gradient_checkpointing true (about a third slower)",
            _training(gradient_checkpointing=True),
        )
    size, accumulation = training.batch_size, training.gradient_accumulation
    for share in (2, 4, 8):
        if size % share == 0:
            # Normalisation and losses over pairs see fewer clips at once.
            words = f"--training.batch_size {size // share} --training.gradient_accumulation {accumulation * share}"
            yield words, _training(batch_size=size // share, gradient_accumulation=accumulation * share)


def _training(**values) -> Change:
    return lambda recipe: dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, **values))

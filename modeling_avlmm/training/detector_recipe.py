"""Recipes of the detectors that are trained in one stage, from clips and labels alone."""

from dataclasses import dataclass, field

from .recipes import DataRecipe, RecipeError

BEST = ("auc", "last")
STABLE = "warmup_stable_decay"


@dataclass
class NetworkRecipe:
    """
    The network.

    Args:
        kind (`str`): Its `model_type`, e.g. `ssavd`.
        start (`str`, *optional*): Folder or Hub id of a detector to go on from, instead of random weights.
        preset (`str`, *optional*): A published size, e.g. `small` or `large`.
        options (`dict`): Fields of its configuration that differ from the preset's.
        trim_leading_silence (`bool`): Clips begin where their sound sets in; see [`~recipes.ModelRecipe`].
    """

    kind: str = "ssavd"
    start: str | None = None
    preset: str | None = None
    options: dict = field(default_factory=dict)
    trim_leading_silence: bool = False


@dataclass
class ClipsRecipe(DataRecipe):
    """
    The clips: as [`~recipes.DataRecipe`], and

    Args:
        clip_seconds (`float`, *optional*): Longer clips are cut to this length; the network's own if left out.
        augment (`bool`): Flip, turn, blur and recompress pictures, and stretch sound, as published for SSAVD.
        pseudo_fakes (`float`): Share of the draws that are made fake on the fly from genuine clips
            ([`PseudoFaker`]); the others are genuine, and the fakes of the corpus are used neither to train nor to choose
            weights by: validation makes its own from genuine clips too. 0 trains on the fakes of the corpus.
        pseudo_fake_kinds (`dict[str, float]`): How often each kind is made, relative to the others; all alike if left out.
        pseudo_fake_pairs (`bool`): Every genuine clip is followed by a fake of itself, cut and processed alike, so that a
            batch holds what makes a fake beside nothing else that differs. `pseudo_fakes` must be 0.5.
        validation_clips (`int`, *optional*): At most so many clips are scored to choose the best weights; if left out all,
            of pseudo-fakes four draws of every genuine clip.
    """

    clip_seconds: float | None = None
    balance: str = "label"
    augment: bool = False
    pseudo_fakes: float = 0.0
    pseudo_fake_kinds: dict = field(default_factory=dict)
    pseudo_fake_pairs: bool = False
    validation_clips: int | None = None


@dataclass
class OptimisationRecipe:
    """
    How it is trained.

    Args:
        epochs (`float`): Passes over as many clips as the training split has.
        max_steps (`int`, *optional*): Optimiser steps, instead of `epochs`.
        batch_size (`int`): Clips per device and pass.
        gradient_accumulation (`int`): Passes per optimiser step.
        learning_rate, weight_decay, adam_beta2, max_grad_norm (`float`): Of AdamW.
        warmup_epochs (`float`): Until the rate is reached. `warmup_steps` (`int`, *optional*) instead.
        lr_scheduler (`str`): Name in `transformers`.
        lr_end (`float`): Share of the rate that a `linear` schedule ends at.
        decay_steps (`int`, *optional*): Last steps, over which `lr_scheduler: warmup_stable_decay` falls to 0.
        evaluate_steps (`int`, *optional*): Steps between scorings of the validation split and checkpoints; an epoch if
            left out.
        keep (`str`): `auc` keeps the weights with the best overall AUC on validation, of equals the later;
            `last` keeps the last ones.
        patience (`int`, *optional*): Training ends when so many scorings in a row were no better.
        log_steps (`int`): Steps between log lines.
        bf16 (`bool`): Compute in bfloat16 where that is safe (autocast); weights stay in float32.
        gradient_checkpointing (`bool`): Compute layers anew in the backward pass instead of keeping what they gave: less
            memory, about a third more time. Not for SSAVD.
    """

    epochs: float = 30.0
    max_steps: int | None = None
    batch_size: int = 32
    gradient_accumulation: int = 1
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0
    warmup_epochs: float = 0.0
    warmup_steps: int | None = None
    lr_scheduler: str = "linear"
    lr_end: float = 0.0
    decay_steps: int | None = None
    evaluate_steps: int | None = None
    keep: str = "auc"
    patience: int | None = None
    log_steps: int = 10
    bf16: bool = False
    gradient_checkpointing: bool = False

    def __post_init__(self):
        if self.keep not in BEST:
            raise RecipeError(f"training.keep is {self.keep!r}; it must be one of {', '.join(BEST)}.")
        if (self.decay_steps is None) == (self.lr_scheduler == STABLE):
            raise RecipeError(
                f"training.decay_steps belongs to training.lr_scheduler: {STABLE}, and the other way round."
            )
        if self.patience is not None and self.keep == "last":
            raise RecipeError("training.patience needs training.keep: auc.")


@dataclass
class DetectorRecipe:
    """
    A training run of a detector in one stage.

    Args:
        name (`str`): What the run is called.
        output_dir (`str`): Where everything it writes goes.
        seed (`int`): Seed of everything random.
        model ([`NetworkRecipe`]), data ([`ClipsRecipe`]), training ([`OptimisationRecipe`]): The parts.
    """

    name: str
    output_dir: str
    seed: int = 0
    model: NetworkRecipe = field(default_factory=NetworkRecipe)
    data: ClipsRecipe = field(default_factory=ClipsRecipe)
    training: OptimisationRecipe = field(default_factory=OptimisationRecipe)

    def __post_init__(self):
        if self.data.balance not in ("modality", "label", "none"):
            raise RecipeError(f"data.balance is {self.data.balance!r}; it must be modality, label or none.")
        if self.data.crop not in ("random", "start"):
            raise RecipeError(f"data.crop is {self.data.crop!r}; it must be random or start.")
        if not 0 <= self.data.pseudo_fakes < 1:
            raise RecipeError(f"data.pseudo_fakes is a share below 1, got {self.data.pseudo_fakes}.")
        if self.data.pseudo_fake_pairs and self.data.pseudo_fakes != 0.5:
            raise RecipeError("data.pseudo_fake_pairs are half fakes: set data.pseudo_fakes to 0.5.")
        if self.data.pseudo_fake_kinds and not self.data.pseudo_fakes:
            raise RecipeError("data.pseudo_fake_kinds needs data.pseudo_fakes, their share.")

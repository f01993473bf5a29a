"""Recipes: one YAML file describes one training run, whichever detector it trains."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from .genuine_recipe import (
    CalibrationRecipe,
    FaceVoiceRecipe,
    GenuineDataRecipe,
    PictureRecipe,
    SoundRecipe,
)
from .recipe_parts import ClipsRecipe, DataRecipe, ModelRecipe, NetworkRecipe, OptimisationRecipe, StageRecipe
from .recipe_values import RecipeError, filled, one_of, override, split_overrides

TRACKERS = ("tensorboard", "trackio", "wandb")
"""Experiment trackers for `report_to`; each is a package of the same name."""


@dataclass(kw_only=True)
class Recipe:
    """
    A training run: the fields that all systems share.

    Args:
        system (`str`): The detector to train: `avlmm` (AV-LMMDetect), `ssavd`, `avpl` or `facevoice`.
        name (`str`): Name of the run.
        output_dir (`str`): Folder for everything it writes.
        seed (`int`): Seed of everything random.
        report_to (`list[str]`): Experiment trackers that get the log lines: `tensorboard`, `trackio`, `wandb`.
    """

    system: str
    name: str
    output_dir: str
    seed: int = 0
    report_to: list[str] = field(default_factory=list)

    def __post_init__(self):
        one_of("system", self.system, [name for name, cls in SYSTEMS.items() if isinstance(self, cls)])
        names = [self.report_to] if isinstance(self.report_to, str) else self.report_to
        self.report_to = [name for name in names if name != "none"]
        for name in self.report_to:
            one_of("report_to", name, TRACKERS)

    def check_trackers(self) -> None:
        """Raise [`RecipeError`] where a tracker of `report_to` is not installed."""
        for name in self.report_to:
            if importlib.util.find_spec(name) is None:
                raise RecipeError(
                    f"report_to: {name} is not installed. Run `pip install {name}`, or leave it out of report_to."
                )


@dataclass(kw_only=True)
class AVLMMRecipe(Recipe):
    """
    A run of AV-LMMDetect: one stage after another.

    Args:
        model ([`ModelRecipe`]), data ([`DataRecipe`]), stages (`list[StageRecipe]`): The parts.
        kwargs: Fields of [`Recipe`].
    """

    system: str = "avlmm"
    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    stages: list[StageRecipe] = field(default_factory=list)

    def __post_init__(self):
        super().__post_init__()
        if not self.stages:
            raise RecipeError("A recipe of system avlmm needs at least one entry under stages.")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise RecipeError(f"Stages need different names, got {names}: set stages.*.name.")
        kinds = {stage.kind for stage in self.stages}
        if self.data.balance == "family" and kinds != {"analysis"}:
            raise RecipeError(
                "data.balance: family is for recipes of analysis stages alone; the others draw by modality."
            )
        if self.data.crop != "start" and any(stage.encoder_cache for stage in self.stages):
            raise RecipeError(
                "stages.*.encoder_cache needs data.crop: start: a random crop is a different one every time."
            )
        if self.model.trim_leading_silence and "analysis" in kinds:
            raise RecipeError(
                "An analysis stage needs model.trim_leading_silence: false: the times in its answers count from the "
                "start of the file."
            )
        if self.model.faces != "off" and kinds & {"analysis", "pretraining"}:
            raise RecipeError(
                "Stages of kind analysis and pretraining need model.faces: off: what they ask about is placed on whole "
                "frames, and counts its times from the start of the file."
            )
        if "pretraining" in kinds and not self.data.annotations:
            raise RecipeError(
                "A pretraining stage needs data.annotations, the dense annotations of genuine clips."
            )


@dataclass(kw_only=True)
class SmallDetectorRecipe(Recipe):
    """
    A run of SSAVD or AVPL: one stage, from clips and labels alone.

    Args:
        model ([`NetworkRecipe`]), data ([`ClipsRecipe`]), training ([`OptimisationRecipe`]): The parts.
        kwargs: Fields of [`Recipe`].
    """

    model: NetworkRecipe = field(default_factory=NetworkRecipe)
    data: ClipsRecipe = field(default_factory=ClipsRecipe)
    training: OptimisationRecipe = field(default_factory=OptimisationRecipe)

    def __post_init__(self):
        super().__post_init__()
        if self.data.store is not None and self.model.faces == "off":
            raise RecipeError("data.store keeps face crops: set model.faces to largest, or leave it out.")


@dataclass(kw_only=True)
class GenuineRecipe(Recipe):
    """
    A run of facevoice, from genuine recordings alone: the picture network, the sound network, their calibration.

    Args:
        model ([`FaceVoiceRecipe`]), data ([`GenuineDataRecipe`]), picture ([`PictureRecipe`]), sound ([`SoundRecipe`]),
            calibration ([`CalibrationRecipe`]): The parts.
        kwargs: Fields of [`Recipe`].
    """

    system: str = "facevoice"
    model: FaceVoiceRecipe = field(default_factory=FaceVoiceRecipe)
    data: GenuineDataRecipe = field(default_factory=GenuineDataRecipe)
    picture: PictureRecipe = field(default_factory=PictureRecipe)
    sound: SoundRecipe = field(default_factory=SoundRecipe)
    calibration: CalibrationRecipe = field(default_factory=CalibrationRecipe)


SYSTEMS: dict[str, type[Recipe]] = {
    "avlmm": AVLMMRecipe,
    "ssavd": SmallDetectorRecipe,
    "avpl": SmallDetectorRecipe,
    "facevoice": GenuineRecipe,
}
AnyRecipe = AVLMMRecipe | SmallDetectorRecipe | GenuineRecipe


def load_recipe(path: str | Path, overrides: list[str] = ()) -> AnyRecipe:
    """
    Read a recipe and apply `--any.field value` overrides.

    Args:
        path (`str` or `Path`): The YAML file.
        overrides (`list[str]`): Command-line words: `--field value` or `--field=value`, with dots between levels; a stage
            is named by its number or its name (`--stages.alignment.learning_rate 1e-4`).

    Raises:
        RecipeError: for an unknown field (with the nearest known one), a wrong type, or an impossible combination.
    """
    path = Path(path)
    if not path.is_file():
        near = sorted(p.stem for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise RecipeError(f"There is no recipe {path}." + (f" There are: {', '.join(near)}." if near else ""))
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(values, dict):
        raise RecipeError(f"{path} holds {type(values).__name__}, not named fields.")
    for key, text in split_overrides(overrides):
        override(values, key, yaml.safe_load(text))
    return recipe_from(values)


def recipe_from(values: dict) -> AnyRecipe:
    """Make a recipe from plain values; see [`load_recipe`]."""
    if values.get("system") is None:
        raise RecipeError("The recipe does not say which detector it trains. " + _missing_system(values))
    system = values["system"]
    one_of("system", system, SYSTEMS)
    recipe_class = SYSTEMS[system]
    for name in values:
        owners = [other for other, cls in SYSTEMS.items() if name in cls.__dataclass_fields__]
        if owners and system not in owners:
            raise RecipeError(
                f"{name} is for recipes with system: {' or '.join(owners)}, and this one has system: {system}."
            )
    return filled(recipe_class, values)


def _missing_system(values: dict) -> str:
    model = values.get("model")
    if isinstance(model, dict) and "kind" in model:
        return f"Write `system: {model['kind']}` at its top, instead of model.kind."
    if "stages" in values:
        return "It has stages: write `system: avlmm` at its top."
    return f"Write `system: NAME` at its top, where NAME is one of {', '.join(SYSTEMS)}."

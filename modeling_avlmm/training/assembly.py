"""A facevoice put together: a new one, one from files of weights, and the last step of a run, calibration."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoProcessor

from ..configuration_facevoice import FaceVoiceConfig
from ..inference.auto import AutoModelForAVDeepfakeDetection
from ..inference.places import DetectorError, faults_of_model
from ..modeling_facevoice import FaceVoiceForDeepfakeDetection
from ..processing_facevoice import FaceVoiceProcessor
from .genuine_recipe import FaceVoiceRecipe
from .imagenet_weights import load_imagenet_weights
from .recipe_values import RecipeError, check_place, unknown_field

Detector = tuple[FaceVoiceForDeepfakeDetection, FaceVoiceProcessor]


def facevoice_config(recipe: FaceVoiceRecipe) -> FaceVoiceConfig:
    """Return the configuration of a new detector; raise [`RecipeError`] for options that it does not have."""
    known = FaceVoiceConfig().to_dict()
    for name in recipe.options:
        if name not in known:
            raise unknown_field(name, known, "model.options.")
    try:
        config = FaceVoiceConfig(**recipe.options)
        with torch.device("meta"):  # the networks check their own options
            FaceVoiceForDeepfakeDetection(config)
        return config
    except (ValueError, RuntimeError) as error:  # timm raises the latter for a backbone that it does not know
        raise RecipeError(f"model.options: {error}") from error


def make_detector(recipe: FaceVoiceRecipe) -> Detector:
    """
    Make the detector that a recipe starts from.

    Raises:
        RecipeError: for options or weights that do not fit.
    """
    if recipe.start is not None:
        check_place("model.start", recipe.start)
        model, processor = load_detector(recipe.start)
    else:
        model = FaceVoiceForDeepfakeDetection(facevoice_config(recipe))
        processor = FaceVoiceProcessor.from_config(model.config)
        if recipe.pretrained and recipe.picture_weights is None:
            load_imagenet_weights(model.picture, model.config.backbone)
    if recipe.picture_weights is not None:
        load_picture_weights(model, Path(recipe.picture_weights))
    if recipe.sound_weights is not None:
        load_sound_weights(model, Path(recipe.sound_weights))
    model.config.notice = recipe.notice or model.config.notice
    return model, processor


def load_detector(source: str | Path) -> Detector:
    """
    Load a facevoice to train further.

    Raises:
        RecipeError: for a detector of another system.
    """
    try:
        with faults_of_model(source):
            model = AutoModelForAVDeepfakeDetection.from_pretrained(source)
            processor = AutoProcessor.from_pretrained(source)
    except DetectorError as error:
        raise RecipeError(f"model.start: {error}") from error
    if model.config.model_type != "facevoice":
        raise RecipeError(
            f"model.start: {source} is a detector of system {model.config.model_type}, and the recipe has system: facevoice."
        )
    return model, processor


def load_picture_weights(model: FaceVoiceForDeepfakeDetection, file: Path) -> None:
    """
    Load the picture network from a file.

    Args:
        model ([`FaceVoiceForDeepfakeDetection`]): The detector.
        file (`Path`): Weights named as in a facevoice (`picture.`, `picture_head.`; others are passed over), or as in a network
            of `timm` with one output (`classifier.weight` and so on).

    Raises:
        RecipeError: for a file that cannot be read, or whose weights do not fit.
    """
    weights = _weights(file)
    if not any(name.startswith("picture.") for name in weights):
        head = model.picture.default_cfg["classifier"] + "."
        weights = {
            f"picture_head.1.{name.removeprefix(head)}"
            if name.startswith(head)
            else f"picture.{name}": values
            for name, values in weights.items()
        }
    _load(model, weights, ("picture.", "picture_head."), file)


def load_sound_weights(model: FaceVoiceForDeepfakeDetection, file: Path) -> None:
    """Load the sound network from a file: weights named as in a facevoice (`sound.`), or as in the network itself."""
    weights = _weights(file)
    if not any(name.startswith("sound.") for name in weights):
        weights = {f"sound.{name}": values for name, values in weights.items()}
    _load(model, weights, ("sound.",), file)


def _weights(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise RecipeError(f"model: there is no file {file} with weights.")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        stored = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, UnpicklingError, SafetensorError) as error:
        raise RecipeError(f"model: {file} holds no weights that can be read: {error}") from error
    stored = stored.get("state", stored.get("state_dict", stored))
    return {name: values for name, values in stored.items() if isinstance(values, torch.Tensor)}


def _load(
    model: FaceVoiceForDeepfakeDetection,
    weights: dict[str, torch.Tensor],
    prefixes: tuple[str, ...],
    file: Path,
) -> None:
    wanted = {name for name in model.state_dict() if name.startswith(prefixes)}
    given = {
        name: values.float() if values.is_floating_point() else values
        for name, values in weights.items()
        if name.startswith(prefixes)
    }
    # Fixed filters are not in a checkpoint, but may be in a state dict.
    unknown = sorted(set(given) - wanted - {name for name, _ in model.named_buffers()})
    if missing := sorted(wanted - set(given)):
        raise RecipeError(
            f"model: {file} lacks {len(missing)} of {len(wanted)} weights, such as {missing[0]}"
            + (f"; it has {unknown[0]}, which is not known" if unknown else "")
            + "."
        )
    try:
        model.load_state_dict({name: given[name] for name in wanted}, strict=False)
    except RuntimeError as error:
        raise RecipeError(f"model: the weights of {file} do not fit: {error}") from error

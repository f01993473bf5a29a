"""Loading and checking the frozen encoders of AVPL."""

import tempfile
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import AutoConfig, CLIPVisionModel, PreTrainedModel, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from .fingerprint import weights_fingerprint

MODEL_TYPES = {"vision": ("clip", "clip_vision_model"), "audio": ("whisper",)}
NAMES = {"vision": "CLIP", "audio": "Whisper"}


class EncoderError(ValueError):
    """An encoder cannot be loaded, or is not the one that the detector was trained with."""


def load_encoder(part: str, source: str, **hub_kwargs) -> CLIPVisionModel | WhisperEncoder:
    """
    Load an encoder from a whole CLIP or Whisper checkpoint, in float32, the type of its fingerprint.

    Args:
        part (`str`): `vision` or `audio`.
        source (`str`): Hub id or folder.
        hub_kwargs: `revision`, `token`, `cache_dir`, `local_files_only`.

    Raises:
        EncoderError: If there is no such checkpoint, or it is of another type.
    """
    try:
        model_type = AutoConfig.from_pretrained(source, **hub_kwargs).model_type
        if model_type not in MODEL_TYPES[part]:
            raise EncoderError(
                f"{source!r} is a checkpoint of {model_type!r}; the {part} encoder of AVPL must be a {NAMES[part]} one."
            )
        model_class = CLIPVisionModel if part == "vision" else WhisperModel
        model, info = model_class.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True, **hub_kwargs
        )
    except EncoderError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise EncoderError(
            f"The {part} encoder {source!r} cannot be loaded: {error} A detector of which only the trained part is "
            "stored needs it: restore it, give another place with "
            f"`from_pretrained(..., {part}_encoder=...)`, or store detectors with save_encoders=True."
        ) from error
    # Weights that the checkpoint lacks would be random.
    absent = sorted(name for name in info["missing_keys"] if part == "vision" or name.startswith("encoder."))
    if absent:
        raise EncoderError(f"{source!r} lacks weights of the {part} encoder: {', '.join(absent[:3])}.")
    return model if part == "vision" else model.encoder


def commit_of(source: str, revision: str | None = None, cache_dir: str | None = None) -> str | None:
    """Return the commit behind a revision of a loaded Hub checkpoint; the revision itself if it is unknown."""
    if Path(source).exists():
        return revision
    file = try_to_load_from_cache(source, "config.json", cache_dir=cache_dir, revision=revision)
    # .../snapshots/<commit>/config.json
    return Path(file).parent.name if isinstance(file, str) else revision


def check_encoder(
    part: str, source: str, encoder: nn.Module, wanted: nn.Module, fingerprint: str | None
) -> None:
    """
    Check that a loaded encoder fits in the place of `wanted`, and is the one that the detector was trained with.

    Raises:
        EncoderError: If sizes or the fingerprint differ.
    """
    shapes = {name: tuple(weight.shape) for name, weight in encoder.state_dict().items()}
    needed = {name: tuple(weight.shape) for name, weight in wanted.state_dict().items()}
    for name in [*needed, *shapes]:
        if shapes.get(name) != needed.get(name):
            raise EncoderError(
                f"The {part} encoder {source!r} does not fit the detector: {name} is {shapes.get(name, 'absent')} "
                f"there and {needed.get(name, 'absent')} in the detector's configuration. Use the checkpoint it was "
                "trained with."
            )
    found = weights_fingerprint(encoder)
    if fingerprint is not None and found != fingerprint:
        raise EncoderError(
            f"The {part} encoder {source!r} has other weights (fingerprint {found}) than the one the detector was "
            f"trained with ({fingerprint}), so its verdicts would mean nothing. Use the revision it was trained with."
        )


def place_modules(
    model: PreTrainedModel,
    device_map: str | dict,
    max_memory: dict | None = None,
    offload_folder: str | None = None,
    offload_buffers: bool = False,
) -> None:
    """
    Spread a model in memory over devices, main memory and disk, with `accelerate`.

    Args:
        model (`PreTrainedModel`): The model, in place.
        device_map, max_memory, offload_folder, offload_buffers: As for [`~transformers.PreTrainedModel.from_pretrained`].
    """
    from accelerate import dispatch_model, infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    if isinstance(device_map, str):
        whole = {"no_split_module_classes": sorted(model._no_split_modules)}
        if device_map != "sequential":
            low_zero = device_map == "balanced_low_0"
            max_memory = get_balanced_memory(model, max_memory, low_zero=low_zero, **whole)
        device_map = infer_auto_device_map(model, max_memory=max_memory, **whole)
    if offload_folder is not None:
        # A folder of its own: `accelerate` would take the weights of another model that it finds there for this one's.
        Path(offload_folder).mkdir(parents=True, exist_ok=True)
        offload_folder = tempfile.mkdtemp(prefix="weights_", dir=offload_folder)
    dispatch_model(
        model,
        device_map,
        offload_dir=offload_folder,
        offload_buffers=offload_buffers,
        skip_keys=sorted(model._skip_keys_device_placement),
    )

"""The outputs of frozen encoders, kept on disk for every clip, so that an `alignment` stage encodes each clip only once.

Our own addition. A cached clip is neither decoded nor encoded again, so training costs the language model only. The cache
takes 2 bytes x width for every token of a clip (7B, 10 s of 336 x 336 at 2 frames per second: 1,690 tokens, 12 MB); the
stage prints its size before it begins.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from transformers import BatchFeature, PreTrainedConfig

from dataset_scripts.files import write_whole, written_whole

from ..backbone import MediaLayout
from ..configuration_avlmm import BACKBONES
from ..media import MediaError
from ..modeling_avlmm import AVLMMForDeepfakeDetection
from ..processing_avlmm import AVLMMProcessor
from .batches import AVCollator
from .clip_shape import recipe_clip_shape
from .recipe_parts import DataRecipe
from .recipe_values import RecipeError
from .recipes import AVLMMRecipe

SETTINGS = "settings.json"


@dataclass(frozen=True)
class EncoderCache:
    """
    A folder with a safetensors file for each clip.

    Args:
        folder (`Path`): The folder. It belongs to one set of encoder weights, sampling settings and corpus.
    """

    folder: Path

    def path(self, clip: str) -> Path:
        """Return the file of a clip, named by the schema's `path`."""
        name = hashlib.sha256(clip.encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def free(self) -> str:
        """Return the space left on the disk, in words."""
        return f"{shutil.disk_usage(self.folder).free / 1e9:.1f} GB free"

    def claim(self, settings: dict) -> None:
        """
        Make the folder belong to these settings.

        Raises:
            RecipeError: when it belongs to others, whose features are not what these encoders would give.
        """
        file = self.folder / SETTINGS
        if not file.is_file():
            write_whole(file, json.dumps(settings, indent=2))
            return
        known = json.loads(file.read_text(encoding="utf-8"))
        if different := sorted(k for k in {*known, *settings} if known.get(k) != settings.get(k)):
            raise RecipeError(
                f"The encoder cache {self.folder} was made with another {', '.join(different)}. Delete it, or name another "
                "folder in stages.*.encoder_cache."
            )

    def save(
        self, clip: str, layout: MediaLayout, sound: torch.Tensor | None, picture: torch.Tensor | None
    ) -> None:
        """Keep the encoders' outputs for a clip, one row for each token."""
        tensors = {"audio_tokens": torch.tensor(layout.audio_tokens)}
        if sound is not None:
            tensors["audio_embeds"] = sound.contiguous().cpu()
        if picture is not None:
            tensors["video_embeds"] = picture.contiguous().cpu()
            tensors |= {"grid": layout.grid, "grid_times": torch.from_numpy(layout.grid_times)}
        with written_whole(self.path(clip)) as partial:
            save_file(tensors, partial)

    def load(self, clip: str) -> tuple[MediaLayout, dict] | None:
        """
        Load the encoders' outputs for a clip.

        Returns:
            `tuple[MediaLayout, dict]`: the clip's place among the tokens, and its `audio_embeds` and `video_embeds`, where
            it has them; None for a clip that is not kept.

        Raises:
            RecipeError: for a file that cannot be read.
        """
        try:
            tensors = load_file(self.path(clip))
        except FileNotFoundError:
            return None
        except SafetensorError as error:
            raise RecipeError(
                f"{self.path(clip)} is damaged ({error}): delete it and start again."
            ) from error
        grid, times = tensors.pop("grid", None), tensors.pop("grid_times", None)
        layout = MediaLayout(grid, None if times is None else times.numpy(), int(tensors.pop("audio_tokens")))
        return layout, tensors


@dataclass
class CachedCollator(AVCollator):
    """
    Batches of [`AVCollator`] with the encoders' outputs in the place of spectra and pixels.

    A clip that is not kept could not be read when the cache was filled. It is tried again, leaves the batch and is listed.

    Args:
        cache ([`EncoderCache`]): Filled by [`fill_cache`].
        width, picture_width (`int`): Width of the embeddings of sound and of picture.
    """

    cache: EncoderCache | None = None
    width: int = 0
    picture_width: int = 0

    def encode_row(self, row: dict) -> dict:
        found = self.cache.load(row["path"])
        if found is None:
            self.processor.encode_media(self.read(row))
            raise RecipeError(
                f"{row['path']} can be read but is not in the encoder cache {self.cache.folder}: start the run again, "
                "which completes it."
            )
        layout, embeds = found
        asked = self.processor.encode_questions(layout, self.questions_of(row, layout))
        return asked | {"input_features": None, "pixel_values_videos": None, "embeds": embeds}

    def batch(self, encoded: list[dict]) -> BatchFeature:
        kept = [row.pop("embeds") for row in encoded]
        batch = super().batch(encoded)
        # Both, even where no clip has it, so that every process of a distributed run leaves its encoders alone.
        for name, width in (("audio_embeds", self.width), ("video_embeds", self.picture_width)):
            found = [embeds[name] for embeds in kept if name in embeds]
            batch[name] = torch.cat(found) if found else torch.zeros(0, width)
        return batch


def fill_cache(
    cache: EncoderCache,
    model: AVLMMForDeepfakeDetection,
    dataset: Dataset,
    collator: AVCollator,
    bf16: bool,
    num_workers: int = 0,
) -> int:
    """
    Run the encoders on every clip that is not kept yet; each process of a distributed run does its share.

    Args:
        cache ([`EncoderCache`]): The cache to fill.
        model ([`AVLMMForDeepfakeDetection`]): Its encoders are moved to the device for the time being.
        dataset (`Dataset`): The clips, in the package's schema. Unreadable ones are skipped.
        collator ([`AVCollator`]): Reads the clips.
        bf16 (`bool`): Whether to compute in bfloat16, as training does.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode.

    Returns:
        `int`: number of clips that this process added.
    """
    state, device = PartialState(), PartialState().device
    encoders = (model.vision_encoder, model.audio_encoder, *model.projectors)
    homes = [next(encoder.parameters()).device for encoder in encoders]
    missing = [number for number, path in enumerate(dataset["path"]) if not cache.path(path).is_file()]
    share = dataset.select(missing[state.process_index :: state.num_processes])
    loader = DataLoader(
        share,
        batch_size=None,
        num_workers=num_workers,
        collate_fn=_Encode(replace(collator, drops=None)),
    )
    for encoder in encoders:
        encoder.to(device)
    added = 0
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for found in loader:
            if found is None:
                continue
            path, media, layout = found
            embeds = model.encode_media(**{name: value.to(device) for name, value in media.items()})
            cache.save(path, layout, *(part if part is None else part.to(model.dtype) for part in embeds))
            added += 1
    for encoder, home in zip(encoders, homes, strict=True):
        encoder.to(home)
    state.wait_for_everyone()
    return added


@dataclass
class _Encode:
    """Turns a row into the encoders' inputs; runs in the loader's workers."""

    collator: AVCollator

    def __call__(self, row: dict) -> tuple[str, dict, MediaLayout] | None:
        try:
            media, layout = self.collator.processor.encode_media(self.collator.read(row))
        except MediaError:
            return None  # training meets it again, and lists it
        found = {}
        if media["input_features"] is not None:
            sound = media["input_features"][None]
            found = {"input_features": sound, "feature_attention_mask": torch.ones(1, sound.shape[-1]).long()}
        if media["pixel_values_videos"] is not None:
            found["pixel_values_videos"] = media["pixel_values_videos"]
            found["video_grid_thw"] = media["video_grid_thw"][None]
        return row["path"], found, layout


def cache_line(folder: str | Path, recipe: AVLMMRecipe, config: PreTrainedConfig, clips: int | None) -> str:
    """Return a line about the most space that a recipe's encoder cache can take."""
    each = largest_embeds_bytes(recipe, config)
    of_all = "" if clips is None else f", up to {each * clips / 1e9:.1f} GB for {clips} clips"
    return f"encoder cache {folder}: up to {each / 1e6:.2f} MB a clip{of_all}"


def largest_embeds_bytes(recipe: AVLMMRecipe, config: PreTrainedConfig) -> int:
    """Return the bytes of the encoders' outputs for the longest clip with the largest frames."""
    shape, width = recipe_clip_shape(recipe, config), config.get_text_config().hidden_size
    values = (
        shape.video_tokens * BACKBONES[config.model_type].picture_width(config) + shape.audio_tokens * width
    )
    return values * getattr(torch, recipe.model.dtype).itemsize


def cache_settings(model: AVLMMForDeepfakeDetection, processor: AVLMMProcessor, data: DataRecipe) -> dict:
    """Return the settings on which the features of a clip depend. Protocols of a corpus share a cache."""
    parts = [model.vision_encoder, model.audio_encoder]
    inside = {id(module) for part in parts for module in part.modules()}
    parts += [module for module in model.projectors if id(module) not in inside]
    weights = (p for part in parts for p in part.parameters())
    return {
        "encoders": fingerprint(weights),
        "dtype": str(model.dtype),
        "dataset": data.dataset,
        "data_dir": str(Path(data.data_dir).resolve()),
        "clip_seconds": data.clip_seconds,
        "fps": processor.fps,
        "max_frames": processor.max_frames,
        "min_pixels": processor.min_pixels,
        "max_pixels": processor.max_pixels,
        "trim_leading_silence": processor.trim_leading_silence,
        "faces": processor.faces,
        "face_margin": processor.face_margin,
    }


def fingerprint(weights: Iterable[torch.Tensor]) -> str:
    """Return the SHA-256 of the values of tensors, in order."""
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(np.ascontiguousarray(weight.detach().cpu().flatten().view(torch.uint8).numpy()))
    return digest.hexdigest()

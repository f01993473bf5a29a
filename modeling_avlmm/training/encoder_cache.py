"""What frozen encoders make of every clip, kept on disk, so that an `alignment` stage runs them once and not every epoch.

Our own addition. A cached clip is neither decoded nor encoded again: training then costs the language model only. It takes
2 bytes x width for every token of the clip (7B, 10 s of 336 x 336 at 2 frames a second: 1,690 tokens, 12 MB), which is said
before it is begun.
"""

import hashlib
import json
import os
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
from transformers import BatchFeature

from ..media import MediaError
from ..modeling_avlmm import AVLMMForDeepfakeDetection
from ..processing_avlmm import AVLMMProcessor, MediaLayout
from .collator import AVCollator, empty_batch
from .recipes import DataRecipe, RecipeError

SETTINGS = "settings.json"


@dataclass(frozen=True)
class EncoderCache:
    """
    A folder with a safetensors file for each clip.

    Args:
        folder (`Path`): The folder; belongs to one set of encoder weights, sampling settings and corpus.
    """

    folder: Path

    def path(self, clip: str) -> Path:
        """Where a clip of the schema's `path` is kept."""
        name = hashlib.sha256(clip.encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def claim(self, settings: dict) -> None:
        """
        Makes the folder belong to these settings.

        Raises:
            RecipeError: when it belongs to others: their features are not what these encoders would give.
        """
        file = self.folder / SETTINGS
        if file.is_file():
            known = json.loads(file.read_text(encoding="utf-8"))
            if different := sorted(k for k in {*known, *settings} if known.get(k) != settings.get(k)):
                raise RecipeError(
                    f"The encoder cache {self.folder} was made with another {', '.join(different)}. Delete it, or name another "
                    "folder in stages.*.encoder_cache."
                )
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(settings, indent=2), encoding="utf-8")
        unfinished.rename(file)

    def save(
        self, clip: str, layout: MediaLayout, sound: torch.Tensor | None, picture: torch.Tensor | None
    ) -> None:
        """Keeps what the encoders made of a clip, `(tokens, width)` each."""
        tensors = {"audio_tokens": torch.tensor(layout.audio_tokens)}
        if sound is not None:
            tensors["audio_embeds"] = sound.contiguous().cpu()
        if picture is not None:
            tensors["video_embeds"] = picture.contiguous().cpu()
            tensors |= {"grid": layout.grid, "grid_times": torch.from_numpy(layout.grid_times)}
        file = self.path(clip)
        file.parent.mkdir(exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}")
        save_file(tensors, unfinished)
        unfinished.rename(file)

    def load(self, clip: str) -> tuple[MediaLayout, dict] | None:
        """
        Returns:
            `tuple[MediaLayout, dict]`: how the clip lies among the tokens, and its `audio_embeds` and `video_embeds`, where it
            has them; None for a clip that is not kept.

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
    Batches of [`AVCollator`] with what the encoders made of the clips in the place of spectra and pixels.

    A clip that is not kept could not be read when the cache was filled; it is tried again, leaves the batch and is listed.

    Args:
        cache ([`EncoderCache`]): Filled by [`fill_cache`].
        width (`int`): Of the embeddings.
    """

    cache: EncoderCache | None = None
    width: int = 0

    def __call__(self, rows: list[dict]) -> BatchFeature:
        encoded, kept = [], []
        for row in rows:
            found = self.cache.load(row["path"])
            if found is None:
                self._drop(row)
                continue
            layout, embeds = found
            asked = self.processor.encode_questions(layout, self.questions_of(row, layout))
            encoded.append(asked | {"input_features": None, "pixel_values_videos": None})
            kept.append(embeds)
        batch = (
            self.processor.collate(encoded, padding_side=self.padding_side)
            if encoded
            else empty_batch(self.processor.tokenizer.pad_token_id)
        )
        # Both, also where no clip has it: every process of a distributed run then leaves its encoders alone.
        for name in ("audio_embeds", "video_embeds"):
            found = [embeds[name] for embeds in kept if name in embeds]
            batch[name] = torch.cat(found) if found else torch.zeros(0, self.width)
        return batch

    def _drop(self, row: dict) -> None:
        try:
            self.processor.encode_media(self.read(row))
        except MediaError as error:
            if self.drops is None:
                raise
            self.drops.add(row["path"], error)
            return
        raise RecipeError(
            f"{row['path']} can be read but is not in the encoder cache {self.cache.folder}: start the run again, which "
            "completes it."
        )


def fill_cache(
    cache: EncoderCache,
    model: AVLMMForDeepfakeDetection,
    dataset: Dataset,
    collator: AVCollator,
    bf16: bool,
    num_workers: int = 0,
) -> int:
    """
    Runs the encoders on every clip that is not kept yet; each process of a distributed run on its share.

    Args:
        cache ([`EncoderCache`]): Where to keep.
        model ([`AVLMMForDeepfakeDetection`]): Its encoders are moved to the device for as long as this takes.
        dataset (`Dataset`): The clips, in the package's schema. Those that cannot be read are passed over.
        collator ([`AVCollator`]): How clips are read.
        bf16 (`bool`): Whether training computes in bfloat16, as the encoders then do here.
        num_workers (`int`, *optional*, defaults to 0): Processes that decode.

    Returns:
        `int`: clips that this process added.
    """
    state, device = PartialState(), PartialState().device
    encoders = (model.vision_encoder, model.audio_encoder)
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
    """From a row to what the encoders take; runs in the loader's workers."""

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


def cache_settings(model: AVLMMForDeepfakeDetection, processor: AVLMMProcessor, data: DataRecipe) -> dict:
    """What the features of a clip depend on. Protocols of a corpus share a cache."""
    weights = (p for part in (model.vision_encoder, model.audio_encoder) for p in part.parameters())
    return {
        "encoders": fingerprint(weights),
        "dtype": str(model.dtype),
        "dataset": data.dataset,
        "data_dir": str(Path(data.data_dir).resolve()),
        "clip_seconds": data.clip_seconds,
        **{
            name: getattr(processor, name)
            for name in ("fps", "max_frames", "min_pixels", "max_pixels", "trim_leading_silence")
        },
    }


def fingerprint(weights: Iterable[torch.Tensor]) -> str:
    """SHA-256 of the values of tensors, in order."""
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(np.ascontiguousarray(weight.detach().cpu().flatten().view(torch.uint8).numpy()))
    return digest.hexdigest()

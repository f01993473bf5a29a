"""Encoded clips of AV-LMMDetect, padded to a batch."""

import torch
from transformers import BatchFeature

from .backbone import Backbone
from .backbone_qwen2_5_omni import QWEN2_5_OMNI
from .configuration_detector import IGNORE_INDEX


def pad_rows(encoded: list[dict], padding_side: str, pad_id: int) -> BatchFeature:
    """
    Pad encoded clips to a batch: text to the longest row, sound to the longest sound.

    Args:
        encoded (`list[dict]`): Results of [`~AVLMMProcessor.encode`].
        padding_side (`str`): `"left"` or `"right"`.
        pad_id (`int`): The tokenizer's id of padding.

    Raises:
        ValueError: If `padding_side` is neither.
    """
    if padding_side not in ("left", "right"):
        raise ValueError(f"padding_side must be 'left' or 'right', not {padding_side!r}.")
    length = max(len(item["input_ids"]) for item in encoded)
    offsets = [length - len(item["input_ids"]) if padding_side == "left" else 0 for item in encoded]
    masks = [torch.ones_like(item["input_ids"]) for item in encoded]
    batch = {
        "input_ids": _pad([item["input_ids"] for item in encoded], offsets, length, pad_id),
        "attention_mask": _pad(masks, offsets, length, 0),
        "position_ids": _pad([item["position_ids"] for item in encoded], offsets, length, 1).transpose(0, 1),
        "answer_positions": torch.stack(
            [
                torch.where(item["answer_positions"] < 0, -1, item["answer_positions"] + offset)
                for item, offset in zip(encoded, offsets, strict=True)
            ]
        ),
    }
    if any(item["question_ids"].max() > 1 for item in encoded):
        batch["question_ids"] = _pad([item["question_ids"] for item in encoded], offsets, length, 0)
    if any("labels" in item for item in encoded):
        nothing = [torch.full_like(item["input_ids"], IGNORE_INDEX) for item in encoded]
        rows = [item.get("labels", none) for item, none in zip(encoded, nothing, strict=True)]
        batch["labels"] = _pad(rows, offsets, length, IGNORE_INDEX)
    return BatchFeature({**batch, **_media(encoded)})


def _media(encoded: list[dict]) -> dict[str, torch.Tensor]:
    """Return spectra, padded, and pixels, one after another."""
    media = {}
    sounds = [item["input_features"] for item in encoded if item["input_features"] is not None]
    if sounds:
        longest = max(sound.shape[-1] for sound in sounds)
        nowhere = [0] * len(sounds)
        media["input_features"] = _pad(sounds, nowhere, longest, 0.0)
        ones = [torch.ones(sound.shape[-1], dtype=torch.long) for sound in sounds]
        media["feature_attention_mask"] = _pad(ones, nowhere, longest, 0)
    pictures = [item for item in encoded if item["pixel_values_videos"] is not None]
    if pictures:
        pixels = [item["pixel_values_videos"] for item in pictures]
        # the largest tensor isn't copied if it is the only one
        media["pixel_values_videos"] = pixels[0] if len(pixels) == 1 else torch.cat(pixels)
        media["video_grid_thw"] = torch.stack([item["video_grid_thw"] for item in pictures])
    return media


def _pad(rows: list[torch.Tensor], offsets: list[int], length: int, value) -> torch.Tensor:
    """Stack rows `(..., n)` to `(batch, ..., length)`, each starting at its offset."""
    out = rows[0].new_full((len(rows), *rows[0].shape[:-1], length), value)
    for index, (row, offset) in enumerate(zip(rows, offsets, strict=True)):
        out[index, ..., offset : offset + row.shape[-1]] = row
    return out


def normalize_pixels(batch: BatchFeature | dict, omni: Backbone = QWEN2_5_OMNI) -> BatchFeature | dict:
    """
    Normalise the pixels of a batch in place, for the stock thinker, which would take bytes for normalised values.

    Args:
        batch (`BatchFeature` or `dict`): A batch of [`AVLMMProcessor.collate`].
        omni ([`Backbone`], *optional*): The backbone. Defaults to Qwen2.5-Omni.

    Returns:
        `BatchFeature` or `dict`: The same batch.
    """
    if "pixel_values_videos" in batch:
        batch["pixel_values_videos"] = omni.normalize(batch["pixel_values_videos"])
    return batch


__all__ = ["normalize_pixels", "pad_rows"]

"""Decoded frames to the patches of a Qwen-VL vision encoder, as the stock video processor makes them, in fewer passes."""

import torch
from torchvision.transforms.v2 import functional as tvF
from transformers import Qwen2VLVideoProcessor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.qwen2_vl.video_processing_qwen2_vl import smart_resize

BICUBIC = 3
"""Pillow's number of the bicubic filter, with which `transformers` names filters."""


def frames_to_patches(
    frames: torch.Tensor, video_processor, min_pixels: int, max_pixels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Resizes and cuts frames; [`normalize_patches`] makes of the patches, bit for bit, what `video_processor` makes.

    The stock way makes four copies of the picture as floats. Here it is bytes, a quarter of the size, until the model
    normalises it: bytes are what crosses from loading processes and to the device. A video processor of another class, of
    other means and deviations, or with a step switched off, is called as it is.

    Args:
        frames (`torch.Tensor` of shape `(T, 3, H, W)`): uint8. Quickest in the memory format `channels_last`, in which
            [`MediaReader`] gives them.
        video_processor (`BaseVideoProcessor`): The backbone's.
        min_pixels, max_pixels (`int`): Smaller frames are enlarged, larger ones reduced.

    Returns:
        `tuple`: patches of shape `(P, D)`, uint8, or float32 and normalised where the video processor was called; the grid
        `(3,)` of times, rows and columns.
    """
    if not _is_stock(video_processor):
        return _by_processor(frames, video_processor, min_pixels, max_pixels)
    patch, merge, times = (
        video_processor.patch_size,
        video_processor.merge_size,
        video_processor.temporal_patch_size,
    )
    size = smart_resize(*frames.shape[-2:], patch * merge, min_pixels, max_pixels)
    # PyTorch's filter for bytes is made for interleaved colours; the values are the same.
    frames = frames.contiguous(memory_format=torch.channels_last)
    frames = tvF.resize(frames, list(size), tvF.InterpolationMode.BICUBIC, antialias=True)
    if missing := -len(frames) % times:
        frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    steps, rows, columns = len(frames) // times, size[0] // patch, size[1] // patch
    blocks = frames.view(steps, times, 3, rows // merge, merge, patch, columns // merge, merge, patch)
    blocks = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return blocks.reshape(steps * rows * columns, -1), torch.tensor([steps, rows, columns])


def normalize_patches(patches: torch.Tensor) -> torch.Tensor:
    """
    What the vision encoder takes, of patches as [`frames_to_patches`] makes them.

    Args:
        patches (`torch.Tensor` of shape `(P, D)`): Bytes, colour by colour, are normalised by CLIP's means and deviations;
            floating point is taken to be normalised.

    Returns:
        `torch.Tensor` of shape `(P, D)`: float32, on the same device; or `patches` themselves.

    Raises:
        ValueError: for whole numbers that are no bytes.
    """
    if patches.is_floating_point():
        return patches
    if patches.dtype != torch.uint8:
        raise ValueError(f"Pixel patches must be uint8 or floating point, not {patches.dtype}.")
    # the order of operations, and so every rounding, is that of the stock processor
    mean, std = (
        (torch.tensor(values, device=patches.device) * 255).view(3, 1)
        for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    )
    colours = patches.unflatten(1, (3, patches.shape[1] // 3)).float()
    return colours.sub_(mean).div_(std).flatten(1)


def _is_stock(video_processor) -> bool:
    return (
        type(video_processor) is Qwen2VLVideoProcessor
        and video_processor.do_resize
        and video_processor.do_rescale
        and video_processor.do_normalize
        and video_processor.resample == BICUBIC
        and video_processor.rescale_factor == 1 / 255
        and list(video_processor.image_mean) == OPENAI_CLIP_MEAN
        and list(video_processor.image_std) == OPENAI_CLIP_STD
    )


def _by_processor(
    frames: torch.Tensor, video_processor, min_pixels: int, max_pixels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    options = {"cap_pixels_per_frame": False} if hasattr(video_processor, "cap_pixels_per_frame") else {}
    processed = video_processor(
        frames,
        size={"shortest_edge": min_pixels, "longest_edge": max_pixels},
        do_sample_frames=False,
        return_tensors="pt",
        **options,
    )
    return processed["pixel_values_videos"], processed["video_grid_thw"][0]

"""Decoded frames as patches for a Qwen-VL vision encoder, equal to those of the stock video processor but made faster."""

import torch
from torchvision.transforms.v2 import functional as tvF
from transformers import Qwen2VLVideoProcessor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.qwen2_vl.video_processing_qwen2_vl import smart_resize

BICUBIC = 3
"""Pillow's number for the bicubic filter; `transformers` uses it too."""


def frames_to_patches(
    frames: torch.Tensor,
    video_processor,
    min_pixels: int,
    max_pixels: int,
    mean: list[float] = OPENAI_CLIP_MEAN,
    std: list[float] = OPENAI_CLIP_STD,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Resize frames and cut them into patches. After [`normalize_patches`] they equal `video_processor`'s, bit for bit.

    The stock processor makes four copies of the picture as floats. Here the picture stays bytes, a quarter of the size,
    until the model normalises it; so bytes are sent between processes and to the device. A video processor of another
    class, with other means and deviations, or with a step switched off, is called itself.

    Args:
        frames (`torch.Tensor` of shape `(T, 3, H, W)`):
            The frames, uint8. Fastest in the memory format `channels_last`, as [`MediaReader`] returns them.
        video_processor (`BaseVideoProcessor`): The backbone's video processor.
        min_pixels, max_pixels (`int`): Limits of a frame's size; smaller frames are enlarged, larger ones reduced.
        mean, std (`list[float]`): Means and deviations by which the model normalises bytes, of values in [0, 1].

    Returns:
        `tuple`: Patches of shape `(P, D)`, uint8, or normalised float32 if the video processor was called; and the grid
        `(3,)` of times, rows and columns.
    """
    if not _is_stock(video_processor, mean, std):
        return _by_processor(frames, video_processor, min_pixels, max_pixels)
    patch, merge, times = (
        video_processor.patch_size,
        video_processor.merge_size,
        video_processor.temporal_patch_size,
    )
    size = smart_resize(*frames.shape[-2:], patch * merge, min_pixels, max_pixels)
    # PyTorch's filter for bytes is faster on interleaved colours, with the same values.
    frames = frames.contiguous(memory_format=torch.channels_last)
    frames = tvF.resize(frames, list(size), tvF.InterpolationMode.BICUBIC, antialias=True)
    if missing := -len(frames) % times:
        frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    steps, rows, columns = len(frames) // times, size[0] // patch, size[1] // patch
    blocks = frames.view(steps, times, 3, rows // merge, merge, patch, columns // merge, merge, patch)
    blocks = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return blocks.reshape(steps * rows * columns, -1), torch.tensor([steps, rows, columns])


def normalize_patches(
    patches: torch.Tensor, mean: list[float] = OPENAI_CLIP_MEAN, std: list[float] = OPENAI_CLIP_STD
) -> torch.Tensor:
    """
    Return the patches of [`frames_to_patches`] as the vision encoder takes them.

    Args:
        patches (`torch.Tensor` of shape `(P, D)`):
            Bytes, colour by colour. Floating-point patches count as normalised.
        mean, std (`list[float]`, *optional*): Means and deviations, of values in [0, 1]. Defaults to CLIP's.

    Returns:
        `torch.Tensor` of shape `(P, D)`: float32, on the same device; `patches` themselves if they are floating point.

    Raises:
        ValueError: If the patches are neither bytes nor floating point.
    """
    if patches.is_floating_point():
        return patches
    if patches.dtype != torch.uint8:
        raise ValueError(f"Pixel patches must be uint8 or floating point, not {patches.dtype}.")
    # the same order of operations as in the stock processor, and so the same rounding
    means, deviations = (
        (torch.tensor(values, device=patches.device) * 255).view(3, 1) for values in (mean, std)
    )
    colours = patches.unflatten(1, (3, patches.shape[1] // 3)).float()
    return colours.sub_(means).div_(deviations).flatten(1)


def _is_stock(video_processor, mean: list[float], std: list[float]) -> bool:
    """Return True if the video processor does what [`frames_to_patches`] computes."""
    return (
        type(video_processor) is Qwen2VLVideoProcessor
        and video_processor.do_resize
        and video_processor.do_rescale
        and video_processor.do_normalize
        and video_processor.resample == BICUBIC
        and video_processor.rescale_factor == 1 / 255
        and list(video_processor.image_mean) == list(mean)
        and list(video_processor.image_std) == list(std)
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

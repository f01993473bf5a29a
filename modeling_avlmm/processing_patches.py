"""Decoded frames to the patches of a Qwen-VL vision encoder, as the stock video processor makes them, in fewer passes."""

import torch
from torchvision.transforms.v2 import functional as tvF
from transformers import Qwen2VLVideoProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import smart_resize

BICUBIC = 3
"""Pillow's number of the bicubic filter, with which `transformers` names filters."""


def frames_to_patches(
    frames: torch.Tensor, video_processor, min_pixels: int, max_pixels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Resizes, normalises and cuts frames, bit for bit as `video_processor` does.

    The stock way makes four copies of the picture as floats. Here it is bytes until it lies in the order of the patches,
    and each pair of frames is then normalised in the processor's cache. A video processor of another class, or one with a
    step switched off, is called as it is.

    Args:
        frames (`torch.Tensor` of shape `(T, 3, H, W)`): uint8. Quickest in the memory format `channels_last`, in which
            [`MediaReader`] gives them.
        video_processor (`BaseVideoProcessor`): The backbone's.
        min_pixels, max_pixels (`int`): Smaller frames are enlarged, larger ones reduced.

    Returns:
        `tuple`: patches, float32, of shape `(P, D)`; the grid `(3,)` of times, rows and columns.
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
    blocks = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(steps, rows * columns, 3, -1)
    # the order of operations, and so every rounding, is that of the stock processor
    scale = 1.0 / video_processor.rescale_factor
    mean = (torch.tensor(video_processor.image_mean) * scale).view(3, 1)
    std = (torch.tensor(video_processor.image_std) * scale).view(3, 1)
    patches = torch.empty(blocks.shape)
    for part, out in zip(blocks, patches, strict=True):
        out.copy_(part).sub_(mean).div_(std)
    return patches.view(steps * rows * columns, -1), torch.tensor([steps, rows, columns])


def _is_stock(video_processor) -> bool:
    return (
        type(video_processor) is Qwen2VLVideoProcessor
        and video_processor.do_resize
        and video_processor.do_rescale
        and video_processor.do_normalize
        and video_processor.resample == BICUBIC
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

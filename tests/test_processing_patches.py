"""Patches equal those of the stock video processor, bit for bit."""

import pytest
import torch
from transformers import Qwen2VLVideoProcessor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from modeling_avlmm.processing_clips import resized
from modeling_avlmm.processing_patches import frames_to_patches, normalize_patches

SMALLEST, LARGEST = 56 * 56, 336 * 336


def stock(processor, frames):
    size = {"shortest_edge": SMALLEST, "longest_edge": LARGEST}
    options = {"size": size, "do_sample_frames": False, "cap_pixels_per_frame": False, "return_tensors": "pt"}
    made = processor(frames, **options)
    return made["pixel_values_videos"], made["video_grid_thw"][0]


def noise(count, height, width):
    generator = torch.Generator().manual_seed(count * height + width)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "shape",
    [(4, 224, 398), (5, 224, 224), (1, 37, 61), (2, 480, 854), (3, 336, 336), (2, 30, 1500)],
    ids=["reduced", "odd", "one, enlarged", "large", "as it is", "wide"],
)
def test_equals_the_stock_processor_bit_for_bit(shape, layout):
    frames = noise(*shape)
    expected, grid = stock(Qwen2VLVideoProcessor(), frames)
    patches, found = frames_to_patches(
        frames.contiguous(memory_format=layout), Qwen2VLVideoProcessor(), SMALLEST, LARGEST
    )
    assert patches.is_contiguous() and patches.dtype == torch.uint8 and found.dtype == grid.dtype
    normalized = normalize_patches(patches)
    assert torch.equal(normalized, expected) and torch.equal(found, grid)
    assert normalized.is_contiguous() and normalized.dtype == torch.float32
    assert normalize_patches(normalized) is normalized


@pytest.mark.parametrize(
    "options",
    [
        {"patch_size": 16},
        {"temporal_patch_size": 3},
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
        {"rescale_factor": 1 / 127.5},
        {"do_normalize": False},
        {"do_rescale": False},
        {"resample": 2},
    ],
    ids=str,
)
def test_the_processors_settings_are_heeded(options):
    frames, processor = noise(4, 100, 140), Qwen2VLVideoProcessor(**options)
    expected, grid = stock(processor, frames)
    patches, found = frames_to_patches(frames, processor, SMALLEST, LARGEST)
    assert torch.equal(normalize_patches(patches), expected) and torch.equal(found, grid)


def test_bytes_are_normalised_colour_by_colour():
    patches = torch.randint(0, 256, (7, 1176), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1) for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    expected = (patches.view(7, 3, -1) / 255 - mean) / std
    torch.testing.assert_close(normalize_patches(patches), expected.view(7, -1))


def test_whole_numbers_that_are_no_bytes_are_refused():
    with pytest.raises(ValueError, match="must be uint8 or floating point"):
        normalize_patches(torch.zeros(1, 1176, dtype=torch.int64))


def test_a_processor_of_ones_own_is_called():
    class Inverted(Qwen2VLVideoProcessor):
        def resize(self, videos, **options):
            return 255 - super().resize(videos, **options)

    frames = noise(2, 56, 84)
    patches, _ = frames_to_patches(frames, Inverted(), SMALLEST, LARGEST)
    expected, _ = frames_to_patches(255 - frames, Qwen2VLVideoProcessor(), SMALLEST, LARGEST)
    assert torch.equal(
        patches, normalize_patches(expected)
    )  # the clip needs no resizing, so that inverting it first is the same


def test_resized_does_not_depend_on_the_layout():
    frames = noise(3, 90, 70)
    small = resized(frames.contiguous(memory_format=torch.channels_last), 48)
    assert torch.equal(small, resized(frames, 48)) and small.is_contiguous()

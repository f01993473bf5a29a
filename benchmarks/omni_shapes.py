"""Detectors of the real classes with random weights, and synthetic clips for them, to time scoring and training.

Weights are drawn with variance 1 / fan-in, so that nothing overflows and no verdict is degenerate; times do not depend on their
values. Clips are tensors of noise: nothing is decoded, so neither torchcodec nor FFmpeg is needed.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from transformers import Qwen2_5OmniThinkerConfig, initialization, logging

from modeling_avlmm import AVLMMConfig, AVLMMForDeepfakeDetection, AVLMMProcessor
from modeling_avlmm.inference.provenance import environment
from modeling_avlmm.media import SAMPLING_RATE, Clip
from modeling_avlmm.modeling_avlmm import label_token_ids
from modeling_avlmm.training.tiny.backbone import make_tiny_backbone, tiny_thinker_config

SHAPES = {
    "tiny": {
        "text": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2},
        "heads": (4, 2),
        "audio": {"d_model": 128, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 256},
        "vision": {"hidden_size": 128, "intermediate_size": 256, "depth": 2, "num_heads": 4},
        "full_attention": [1],
    },
    # 91 M parameters and the vocabulary. Depth and width are our own choice.
    "mid": {
        "text": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 12},
        "heads": (8, 2),
        "audio": {"d_model": 512, "encoder_layers": 8, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048},
        "vision": {"hidden_size": 512, "intermediate_size": 1536, "depth": 8, "num_heads": 8},
        "full_attention": [3, 7],
    },
    # Qwen2.5-Omni-7B: its thinker has 8.93 G parameters.
    "7b": {
        "text": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28},
        "heads": (28, 4),
        "audio": {
            "d_model": 1280,
            "encoder_layers": 32,
            "encoder_attention_heads": 20,
            "encoder_ffn_dim": 5120,
        },
        "vision": {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "num_heads": 16},
        "full_attention": [7, 15, 23, 31],
    },
}
REAL_VOCABULARY = 152064
# The language head's share of the language model, 8 %, is that of the 7B model.
VOCABULARIES = {"tiny": 4096, "mid": 6144, "7b": REAL_VOCABULARY}


def processor_for(folder: str | Path) -> AVLMMProcessor:
    """Return a processor with a tokenizer trained on the spot; it samples 2 frames a second, up to 336 x 336 pixels."""
    backbone = make_tiny_backbone(Path(folder) / "backbone")
    return AVLMMProcessor.from_backbone(str(backbone), fps=2.0, max_frames=1024, max_seconds=600.0)


def detector_config(shape: str, processor: AVLMMProcessor, vocabulary: int | None = None) -> AVLMMConfig:
    """Return the configuration of a shape, with the token ids of the processor's tokenizer."""
    sizes, (heads, key_heads) = SHAPES[shape], SHAPES[shape]["heads"]
    tokenizer = processor.tokenizer
    thinker = tiny_thinker_config(tokenizer, "test").to_dict()
    head = sizes["text"]["hidden_size"] // heads
    # 16, 24, 24 in the 7B model.
    sections = [16, 24, 24] if head == 128 else [head // 2 - 2 * (head // 8), head // 8, head // 8]
    text = dict(
        sizes["text"],
        vocab_size=vocabulary or VOCABULARIES[shape],
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=32768,
        tie_word_embeddings=shape != "7b",
        rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections},
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    width = sizes["text"]["hidden_size"]
    vision = dict(
        sizes["vision"],
        patch_size=14,
        spatial_merge_size=2,
        window_size=112,
        out_hidden_size=width,
        fullatt_block_indexes=sizes["full_attention"],
    )
    audio = dict(sizes["audio"], num_mel_bins=128, output_dim=width, n_window=100)
    kept = {key: value for key, value in thinker.items() if key.endswith(("_index", "_token_id"))}
    config = Qwen2_5OmniThinkerConfig(
        text_config=text,
        audio_config=audio,
        vision_config=vision,
        position_id_per_seconds=25,
        seconds_per_chunk=2,
        tie_word_embeddings=text["tie_word_embeddings"],
        **kept,
    )
    return AVLMMConfig(thinker_config=config, label_token_ids=label_token_ids(tokenizer))


@torch.no_grad()
def build_detector(
    shape: str,
    processor: AVLMMProcessor,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    vocabulary: int | None = None,
    seed: int = 0,
) -> AVLMMForDeepfakeDetection:
    """Return a detector of a shape with random weights, made on its device."""
    config = detector_config(shape, processor, vocabulary)
    with torch.device(device), initialization.no_init_weights():
        model = AVLMMForDeepfakeDetection._from_config(config, dtype=dtype)
    generator = torch.Generator(device=device).manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            fan_in = 1.0 if "embed" in name and "proj" not in name else weight[0].numel()
            weight.normal_(0.0, fan_in**-0.5, generator=generator)
        else:
            weight.fill_(0.0 if name.endswith("bias") else 1.0)
    return model.eval()


def synthetic_clip(seconds: float, side: int = 224, fps: float = 2.0, seed: int = 0) -> Clip:
    """Return a clip of noise: `fps` square frames a second, and sound. 224 pixels is the face crop of FakeAVCeleb."""
    generator = torch.Generator().manual_seed(seed)
    frames = round(seconds * fps)
    return Clip(
        frames=torch.randint(0, 256, (frames, 3, side, side), dtype=torch.uint8, generator=generator),
        timestamps=torch.arange(frames, dtype=torch.float64) / fps,
        audio=0.1 * torch.randn(round(seconds * SAMPLING_RATE), generator=generator),
        start=0.0,
        end=seconds,
        name=f"{seconds:g} s",
    )


def move(batch: dict, device: str | torch.device, dtype: torch.dtype) -> dict:
    """Move a batch to its device, and its floats to the type of the weights."""
    return {
        name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
        for name, value in batch.items()
    }


def stock_arguments(batch: dict, second_per_grid: float = 1.0) -> dict:
    """Return the arguments that the stock thinker takes; it computes the positions itself."""
    names = ("input_ids", "attention_mask", "input_features", "feature_attention_mask")
    names += ("pixel_values_videos", "video_grid_thw")
    arguments = {name: batch[name] for name in names if name in batch}
    clips = len(batch["input_ids"])
    arguments["video_second_per_grid"] = torch.full(
        (clips,), second_per_grid, device=batch["input_ids"].device
    )
    arguments["use_audio_in_video"] = True
    return arguments


def stock_thinker(model: AVLMMForDeepfakeDetection):
    """Return a stock thinker, attention included, that shares the weights of a detector."""
    config = copy.deepcopy(model.thinker.config)
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        thinker = type(model.thinker)._from_config(config, dtype=model.dtype)
    thinker.load_state_dict(model.thinker.state_dict(), assign=True)
    buffers = dict(model.thinker.named_buffers())
    for name, _ in list(thinker.named_buffers()):
        module, _, own = name.rpartition(".")
        setattr(thinker.get_submodule(module), own, buffers[name])
    for own, theirs in zip(thinker.parameters(), model.thinker.parameters(), strict=True):
        own.requires_grad_(theirs.requires_grad)
    return thinker.eval()


def parser_for(description: str, clips: tuple[int, int], counted: str) -> argparse.ArgumentParser:
    """
    Return a parser with the options that the benchmarks of these shapes share; [`settled`] fills in defaults for the device.

    Args:
        description (`str`): Text for `--help`.
        clips (`tuple[int, int]`): Default of `--batch-size` on the CPU, and on a GPU.
        counted (`str`): Name of what holds so many clips, for `--help`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--shape", choices=SHAPES, help="[mid on the CPU, 7b on a GPU]")
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=[4, 8, 16], help="lengths of the clips [%(default)s]"
    )
    default = f"[{clips[0]} on the CPU, {clips[1]} on a GPU]"
    parser.add_argument("--batch-size", type=int, help=f"clips in {counted} {default}")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch on the CPU [%(default)s]")
    parser.add_argument("--save", action="store_true", help="write a CSV to benchmarks/results")
    return parser


def measured(
    measure: Callable[[argparse.Namespace, AVLMMProcessor], Iterable[list[dict]]],
    show: Callable[[list[dict]], None],
    options: argparse.Namespace,
) -> list[dict]:
    """Run a benchmark, print rows as they come and the time that it took, and return all rows."""
    rows, begin = [], time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        for found in measure(options, processor_for(work)):
            show(found)
            rows += found
    print(f"on {environment()['device']}, {time.monotonic() - begin:.0f} s")
    return rows


def settled(parser: argparse.ArgumentParser, clips: tuple[int, int]) -> argparse.Namespace:
    """Parse the options, fill in the defaults for the device, set the threads, and silence transformers."""
    options = parser.parse_args()
    cuda = options.device == "cuda"
    options.shape = options.shape or ("7b" if cuda else "mid")
    options.batch_size = options.batch_size or clips[cuda]
    options.conditions = {} if cuda else {"threads": options.threads}
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return options

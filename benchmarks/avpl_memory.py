"""Measure or derive the memory of a training step of AVPL at the published size, for a GPU of 12 GB.

    python benchmarks/avpl_memory.py
    python benchmarks/avpl_memory.py --device cuda --save

With `--device cuda` the peak of two steps is measured. Without a GPU it is derived from shapes: weights, gradients, AdamW's two
moments, and everything that the forward pass keeps for the backward pass (`torch.autograd.graph.saved_tensors_hooks`), each
storage once. The pass runs on fake tensors of the CPU: nothing is computed, but attention is fused and autocast casts, neither of
which happens on the meta device. It keeps exactly the bytes that a real pass on the CPU keeps. Buffers of single operations
come on top, with recomputed activations also those of one layer, and the kernels of a GPU may keep something else.

Derived for a batch of 8 in float32 and in bfloat16 (autocast), nothing measured on a GPU: 13.8 and 8.6 GiB with patches of 16
pixels, 4.1 and 2.9 GiB with patches of 32. (torch 2.15, transformers 5.23, 2026-11-21)
"""

import argparse
import contextlib
import warnings

import torch
from results import write_results
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import initialization

from modeling_avlmm import AVPLConfig, AVPLForDeepfakeDetection

GIB = 1024**3
LIMIT_GIB = 12.0
SETTINGS = {
    "patch16 float32": (16, False, False),
    "patch16 bfloat16": (16, True, False),
    "patch16 float32, recomputed": (16, False, True),
    "patch32 float32": (32, False, False),
    "patch32 bfloat16": (32, True, False),
}


def build(patch_size: int, recompute: bool, device: str) -> AVPLForDeepfakeDetection:
    with torch.device(device):
        model = AVPLForDeepfakeDetection(AVPLConfig(vision_config={"patch_size": patch_size}))
    if recompute:
        with warnings.catch_warnings():
            # Newer versions of transformers call it by another name, which older ones do not know.
            warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
            model.gradient_checkpointing_enable()
    return model.train()


def make_batch(config: AVPLConfig, size: int, device: str) -> dict[str, torch.Tensor]:
    shape = (size, config.num_frames, 3, config.image_size, config.image_size)
    spectra = (size, config.audio_config.num_mel_bins, 2 * config.num_audio_tokens + 1)
    return {
        "pixel_values": torch.zeros(shape, dtype=torch.uint8, device=device),
        "input_features": torch.zeros(spectra, device=device),
        "frame_times": torch.zeros(shape[:2], device=device),
    }


def loss_of(model: AVPLForDeepfakeDetection, batch: dict, bf16: bool) -> torch.Tensor:
    """Return a loss over everything that the training loss reads, without its checks of labels, which need values."""
    with torch.autocast(batch["pixel_values"].device.type, torch.bfloat16, enabled=bf16):
        output = model(**batch)
    return sum(part.float().sum() for part in (output.logits, output.video_logits, output.audio_logits)) + (
        output.frame_scores.sum()
    )


def kept_for_backward(model: AVPLForDeepfakeDetection, batch: dict, bf16: bool) -> int:
    """Return the bytes that the forward pass keeps, beside the weights; with autocast, its copies of them are included."""
    kept: dict[int, int] = {}
    storages = []  # kept alive, so that no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in kept:
            storages.append(storage)
            kept[storage._cdata] = storage.nbytes()
        return tensor

    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(model, batch, bf16)
    if not loss.requires_grad:
        raise RuntimeError("No weight of the model trains, so nothing is kept.")
    return sum(size for address, size in kept.items() if address not in weights)


def derived(
    patch_size: int, bf16: bool, recompute: bool, batch_size: int, fake: bool = True
) -> dict[str, float]:
    """Return the GiB of each part. Without `fake` the pass is run, which takes a gigabyte a clip and gives the same bytes."""
    with contextlib.ExitStack() as stack:
        if fake:
            stack.enter_context(FakeTensorMode())
            stack.enter_context(initialization.no_init_weights())
        model = build(patch_size, recompute, "cpu")
        batch = make_batch(model.config, batch_size, "cpu")
        activations = kept_for_backward(model, batch, bf16)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    parts = {
        "weights": 4 * sum(weight.numel() for weight in model.parameters()),
        "gradients_and_adamw": 3 * 4 * trained,
        "batch": sum(value.numel() * value.element_size() for value in batch.values()),
        "activations": activations,
    }
    return {name: size / GIB for name, size in parts.items()}


def measured(patch_size: int, bf16: bool, recompute: bool, batch_size: int) -> float:
    """Return the peak GiB of two steps on the GPU."""
    model = build(patch_size, recompute, "cuda")
    batch = make_batch(model.config, batch_size, "cuda")
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(model, batch, bf16).backward()
        optimizer.step()
    return torch.cuda.max_memory_allocated() / GIB


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=8, help="clips in a step [%(default)s]")
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        choices=("cuda", "cpu"),
        help="cuda to measure, cpu to derive [%(default)s]",
    )
    parser.add_argument("--save", action="store_true", help="write a CSV to benchmarks/results")
    options = parser.parse_args()
    rows = []
    for name, setting in SETTINGS.items():
        parts = derived(*setting, options.batch_size) if options.device == "cpu" else {}
        total = sum(parts.values()) if parts else measured(*setting, options.batch_size)
        row = {"setting": name, "batch_size": options.batch_size, "how": "derived" if parts else "measured"}
        row |= {part: round(size, 2) for part, size in parts.items()}
        rows.append(row | {"gib": round(total, 2), "fits_12_gb": total < LIMIT_GIB})
        shown = ", ".join(f"{part} {size:.2f}" for part, size in parts.items())
        print(
            f"{name:28} {row['how']} {total:6.2f} GiB, {'fits' if total < LIMIT_GIB else 'does not fit'} in 12  {shown}",
            flush=True,
        )
    if options.save:
        topic = f"avpl_memory_{rows[0]['how']}"
        write_results(rows, topic, ("torch", "transformers"), batch=options.batch_size)


if __name__ == "__main__":
    main()

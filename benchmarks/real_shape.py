"""Load a checkpoint of the real shape, give a verdict with it, and train it, without its weights.

    python benchmarks/real_shape.py --layers 2
    python benchmarks/real_shape.py --save

Writes a checkpoint with random weights in the shape and layout of Qwen2.5-Omni-3B: the key names of 2025, shards with an index,
and a configuration that names a talker whose weights are absent. Then loads it in bfloat16 as a user does, compares every
tensor with what was written, gives a verdict on a synthetic clip, and trains LoRA on the language model for some steps. The
whole shape takes 9.4 GB on the disk and 12 GB of memory; `--layers` cuts the language model and both encoders to that many
layers. The tokenizer is a small one made on the spot, as the verdict of random weights says nothing anyway.
"""

import argparse
import json
import math
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from omni_shapes import move, processor_for, synthetic_clip
from peft import get_peft_model
from results import write_results
from safetensors.torch import save_file
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration, logging

from modeling_avlmm import AVLMMForDeepfakeDetection, AVLMMProcessor
from modeling_avlmm.inference.provenance import environment
from modeling_avlmm.planning.memory import checkpoint_activations
from modeling_avlmm.training.recipe_parts import StageRecipe
from modeling_avlmm.training.stage_kinds import KINDS, count_trainable, keep_trained_in_float32
from modeling_avlmm.training.tiny.backbone import tiny_thinker_config

OLD_NAMES = {
    "model.language_model.": "thinker.model.",
    "model.visual.": "thinker.visual.",
    "model.audio_tower.": "thinker.audio_tower.",
    "lm_head.": "thinker.lm_head.",
}
"""Beginnings of the names of weights in transformers, and in the published checkpoints."""
SHARD_BYTES = 2 * 10**9
POOL = 4_000_037
"""Number of random values, which are repeated: drawing billions of them would take longer than all else."""
FULL_LAYERS = {"text_config": 36, "vision_config": 32, "audio_config": 32}


def thinker_config(processor: AVLMMProcessor, layers: int | None) -> Qwen2_5OmniThinkerConfig:
    """Return the shape of Qwen2.5-Omni-3B, cut to `layers` in each part, with the token ids of a small tokenizer."""
    depth = {part: min(full, layers or full) for part, full in FULL_LAYERS.items()}
    small = tiny_thinker_config(processor.tokenizer, "test").to_dict()
    kept = {key: value for key, value in small.items() if key.endswith(("_index", "_token_id"))}
    sections = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    return Qwen2_5OmniThinkerConfig(
        text_config={
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": depth["text_config"],
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
            "max_position_embeddings": 32768,
            "rope_parameters": sections,
            "tie_word_embeddings": False,
        },
        audio_config={"encoder_layers": depth["audio_config"], "output_dim": 2048},
        vision_config={
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "depth": depth["vision_config"],
            "num_heads": 16,
            "out_hidden_size": 2048,
            "fullatt_block_indexes": list(
                range(min(7, depth["vision_config"] - 1), depth["vision_config"], 8)
            ),
        },
        position_id_per_seconds=25,
        seconds_per_chunk=2,
        **kept,
    )


def old_name(name: str) -> str:
    """Return the name that a weight has in the published checkpoints."""
    for new, old in OLD_NAMES.items():
        if name.startswith(new):
            return old + name.removeprefix(new)
    raise ValueError(f"{name} is in no known part of the thinker")


def random_weights(config: Qwen2_5OmniThinkerConfig) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the thinker's weights in bfloat16, one by one, with variance 1 / fan-in."""
    with torch.device("meta"):
        shapes = Qwen2_5OmniThinkerForConditionalGeneration._from_config(config).state_dict()
    pool = torch.randn(POOL, generator=torch.Generator().manual_seed(0))
    for name, like in shapes.items():
        weight = torch.empty(like.shape, dtype=torch.bfloat16)
        if weight.ndim > 1:
            values, scaled = weight.flatten(), (pool / math.sqrt(weight[0].numel())).bfloat16()
            for part in values.split(POOL):
                part.copy_(scaled[: len(part)])
            yield name, weight
        else:
            yield name, weight.fill_(0.0 if name.endswith("bias") else 1.0)


def write_checkpoint(
    folder: Path, config: Qwen2_5OmniThinkerConfig, processor: AVLMMProcessor
) -> dict[str, float]:
    """Write the checkpoint, shard by shard; return the sum of every weight by its name in transformers."""
    processor.tokenizer.save_pretrained(folder)
    whole = {
        "model_type": "qwen2_5_omni",
        "architectures": ["Qwen2_5OmniModel"],
        "enable_audio_output": True,
        "thinker_config": config.to_dict(),
    }
    (folder / "config.json").write_text(json.dumps(whole, indent=2), encoding="utf-8")
    sums, index, shard, size, number = {}, {}, {}, 0, 1

    def close() -> None:
        save_file(shard, folder / f"model-{number:05d}.safetensors", metadata={"format": "pt"})
        index.update(dict.fromkeys(shard, f"model-{number:05d}.safetensors"))
        shard.clear()

    for name, weight in random_weights(config):
        sums[name] = float(weight.sum(dtype=torch.float64))
        shard[old_name(name)] = weight
        size += weight.nbytes
        if size > SHARD_BYTES:
            close()
            size, number = 0, number + 1
    if shard:
        close()
    table = {"metadata": {}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(table), encoding="utf-8")
    return sums


def check_loaded(model: AVLMMForDeepfakeDetection, sums: dict[str, float]) -> None:
    """Raise `SystemExit` if a weight is not the one that was written."""
    loaded = model.thinker.state_dict()
    wrong = [name for name, total in sums.items() if float(loaded[name].sum(dtype=torch.float64)) != total]
    if wrong or loaded.keys() != sums.keys():
        raise SystemExit(f"{len(wrong)} weights differ from what was written, the first: {wrong[:3]}")


def train(
    model: AVLMMForDeepfakeDetection, processor: AVLMMProcessor, options: argparse.Namespace
) -> Iterator[tuple[float, float]]:
    """Train LoRA on the language model with recomputed activations; yield seconds and loss of each step."""
    stage = StageRecipe(kind="alignment", lora_rank=options.rank)
    kind = KINDS[stage.kind]
    kind.freeze(model, stage)
    trained = get_peft_model(model, kind.lora(model, stage))
    keep_trained_in_float32(trained)
    trained.enable_input_require_grads()
    checkpoint_activations(trained)
    trained.train()
    optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=1e-4)
    print(f"  {count_trainable(trained) / 1e6:.1f} M weights train")
    encoded = processor.encode(synthetic_clip(options.seconds), [processor.question("overall", 1)])
    batch = move(processor.collate([encoded], padding_side="right"), "cpu", torch.float32)
    for _ in range(options.steps):
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            loss = trained(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield time.perf_counter() - begin, loss.item()


def resident_gib() -> float:
    """Return the memory of this process that is in use now, in GiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**30


def measure(options: argparse.Namespace, folder: Path) -> Iterator[dict]:
    """Yield a row for each thing that was done: `what`, `seconds`, `resident_gib`, `peak_gib` and `note`."""

    def row(what: str, seconds: float, note: str) -> dict:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return {
            "what": what,
            "seconds": round(seconds, 2),
            "resident_gib": round(resident_gib(), 2),
            "peak_gib": round(peak, 2),
            "note": note,
        }

    begin = time.perf_counter()
    processor = processor_for(folder / "small")
    config = thinker_config(processor, options.layers)
    place = folder / "checkpoint"
    place.mkdir()
    sums = write_checkpoint(place, config, processor)
    size = sum(file.stat().st_size for file in place.iterdir()) / 1e9
    shards = len(list(place.glob("*.safetensors")))
    yield row("write", time.perf_counter() - begin, f"{size:.1f} GB in {shards} shards")
    begin = time.perf_counter()
    model = AVLMMForDeepfakeDetection.from_backbone(str(place), dtype=torch.bfloat16)
    seconds = time.perf_counter() - begin
    check_loaded(model, sums)
    count = sum(weight.numel() for weight in model.parameters()) / 1e9
    yield row("load", seconds, f"{count:.2f} G parameters, {len(sums)} tensors equal to what was written")
    begin = time.perf_counter()
    batch = move(processor([synthetic_clip(options.seconds)]), "cpu", torch.bfloat16)
    with torch.no_grad():
        score = model(**batch).scores.item()
    tokens = batch["input_ids"].shape[1]
    yield row(
        "verdict", time.perf_counter() - begin, f"{tokens} tokens, P(fake) {score:.3f} of random weights"
    )
    for number, (seconds, loss) in enumerate(train(model, processor, options), start=1):
        yield row(f"LoRA step {number}", seconds, f"loss {loss:.3f}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, help="most layers of each part [the real shape's]")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of the clip [%(default)s]")
    parser.add_argument("--steps", type=int, default=3, help="training steps [%(default)s]")
    parser.add_argument("--rank", type=int, default=8, help="rank of LoRA [%(default)s]")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch [%(default)s]")
    parser.add_argument("--folder", type=Path, help="where to write the checkpoint [a temporary folder]")
    parser.add_argument("--save", action="store_true", help="write a CSV to benchmarks/results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rows, folder = [], Path(tempfile.mkdtemp(dir=options.folder))
    try:
        for row in measure(options, folder):
            rows.append(row)
            print(
                f"{row['what']:<12} {row['seconds']:>8.2f} s   {row['resident_gib']:>6.2f} GiB in use, "
                f"{row['peak_gib']:.2f} at most   {row['note']}",
                flush=True,
            )
    finally:
        shutil.rmtree(folder)
    print(f"on {environment()['device']}")
    if options.save:
        layers = options.layers or max(FULL_LAYERS.values())
        write_results(
            rows, "real_shape_3b", ("torch", "transformers", "peft"), layers=layers, threads=options.threads
        )


if __name__ == "__main__":
    main()

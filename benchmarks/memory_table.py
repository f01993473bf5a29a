"""Predict the memory of AV-LMMDetect at the shape of Qwen2.5-Omni-7B, by seconds, frames per second and pixels.

    python benchmarks/memory_table.py --save                       all cells: about 20 minutes of one core
    python benchmarks/memory_table.py --seconds 8 --fps 2 --markdown
    python benchmarks/memory_table.py --validate --save            predictions against measured passes of a small model

One clip at a time (`--batch-size`), three questions about each, frozen weights in bfloat16 and trained ones in float32, LoRA of
rank 64, fused attention. Predicted on tensors without values by `modeling_avlmm.planning.memory`; none of it was measured on a GPU.
`total_gib` is in use at the worst moment; `needed_gib` adds the headroom of `--dry-run`.

`--validate` runs real passes of a model of 77 M weights on the CPU and compares the prediction with the most that PyTorch's
allocator handed out (`torch.profiler`), beside weights and optimiser states. `resident_mib` is the growth of the process, which
includes memory of the allocator and the kernels themselves.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from results import write_results
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen2_5OmniThinkerConfig

from modeling_avlmm.planning.live_bytes import GIB
from modeling_avlmm.planning.memory import make_batch, predict_scoring, predict_stage, real_stage
from modeling_avlmm.training.clip_shape import clip_shape
from modeling_avlmm.training.recipe_parts import StageRecipe

MIB = 1024**2
KINDS = {"scoring": None, "stage 1": "alignment", "stage 2": "encoders"}


def shape_7b() -> Qwen2_5OmniThinkerConfig:
    """Return the thinker of Qwen2.5-Omni-7B, 8.93 G weights. Its vision encoder is narrower than the library's default."""
    return Qwen2_5OmniThinkerConfig(vision_config={"hidden_size": 1280})


def shape_small() -> Qwen2_5OmniThinkerConfig:
    """Return a thinker that a CPU runs in a second, although its activations take hundreds of megabytes."""
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 8, 8]}
    text = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8}
    audio = {"d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048}
    vision = {"hidden_size": 512, "intermediate_size": 1536, "depth": 6, "num_heads": 8}
    names = ("image_token_index", "video_token_index", "audio_token_index", "audio_start_token_id")
    names += ("audio_end_token_id", "vision_start_token_id", "vision_end_token_id")
    return Qwen2_5OmniThinkerConfig(
        text_config={**text, "num_key_value_heads": 8, "vocab_size": 6144, "rope_parameters": rope},
        audio_config={**audio, "output_dim": 512},
        vision_config={**vision, "out_hidden_size": 512, "fullatt_block_indexes": [5]},
        **{name: number for number, name in enumerate(names, start=1)},
    )


def stages(batch_size: int) -> list[tuple[str, StageRecipe | None]]:
    """Return scoring, and both stages with and without recomputed activations."""
    return [
        (name, kind and StageRecipe(kind, batch_size=batch_size, gradient_checkpointing=recomputed))
        for name, kind in KINDS.items()
        for recomputed in ((False, True) if kind else (False,))
    ]


def predict_table(options: argparse.Namespace) -> list[dict]:
    config, rows = shape_7b(), []
    for seconds in options.seconds:
        for fps in options.fps:
            for side in options.sides:
                shape = clip_shape(config, seconds, fps, side * side)
                for name, stage in stages(options.batch_size):
                    need = (
                        predict_scoring(config, shape, options.batch_size)
                        if stage is None
                        else predict_stage(config, shape, stage)
                    )
                    parts = ("weights", "optimizer", "gradients", "activations", "total", "needed")
                    row = {"what": name, "recomputed": bool(stage and stage.gradient_checkpointing)}
                    row |= {"seconds": seconds, "fps": fps, "side": side, "batch_size": options.batch_size}
                    row |= {"tokens": shape.tokens}
                    row |= {f"{part}_gib": round(getattr(need, part) / GIB, 2) for part in parts}
                    rows.append({**row, "how": "predicted, not measured"})
                    print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return rows


def markdown(rows: list[dict]) -> str:
    """Return a table of GiB by clip and setting."""
    columns = list(dict.fromkeys((row["what"], row["recomputed"]) for row in rows))
    heads = [f"{what}{', recomputed' if recomputed else ''}" for what, recomputed in columns]
    lines = [
        "| seconds | fps | pixels | tokens | " + " | ".join(heads) + " |",
        "|---" * (4 + len(heads)) + "|",
    ]
    cells: dict[tuple, dict] = {}
    for row in rows:
        place = (row["seconds"], row["fps"], row["side"], row["tokens"])
        cells.setdefault(place, {})[row["what"], row["recomputed"]] = row["total_gib"]
    for (seconds, fps, side, tokens), found in cells.items():
        values = " | ".join(f"{found[column]:.1f}" for column in columns)
        lines.append(f"| {seconds:g} | {fps:g} | {side} x {side} | {tokens} | {values} |")
    return "\n".join(lines)


# -- predictions against real passes ----------------------------------------------------------------------------------


def allocated_at_most(run: Callable[[], object]) -> int:
    """Return the most bytes that PyTorch's CPU allocator handed out during a call, beyond those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def validate_one(what: str, recomputed: bool, dtype: torch.dtype) -> dict:
    """Predict one setting, run it, and return both results."""
    torch.manual_seed(0)
    config, batch_size = shape_small(), 2
    shape = clip_shape(config, 4.0, 2.0, 224 * 224)
    kind = KINDS[what]
    stage = kind and StageRecipe(kind, batch_size=batch_size, gradient_checkpointing=recomputed)
    need = (
        predict_scoring(config, shape, batch_size, dtype)
        if stage is None
        else predict_stage(config, shape, stage, dtype)
    )
    model = real_stage(config, stage, dtype)
    batch = make_batch(config, shape, batch_size, stage is not None)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def run() -> None:
        if stage is None:
            with torch.no_grad():
                model(**batch)
            return
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()

    run()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident
    model.zero_grad(set_to_none=True)
    measured = allocated_at_most(run) + sum(value.nbytes for value in batch.values())
    predicted = need.activations + need.gradients
    return {
        "what": what,
        "recomputed": recomputed,
        "dtype": str(dtype).removeprefix("torch."),
        "predicted_mib": round(predicted / MIB, 1),
        "measured_mib": round(measured / MIB, 1),
        "error_percent": round(100 * (predicted / measured - 1), 2),
        "resident_mib": round(grown / 1024, 1),
        "weights": need.all_weights,
    }


def validate() -> list[dict]:
    """Run every setting in a process of its own, as reused memory of the allocator would not be measured."""
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for name, stage in stages(1):
            recomputed = bool(stage and stage.gradient_checkpointing)
            call = f"validate_one({name!r}, {recomputed}, {dtype})"
            words = f"import json, torch; from memory_table import *; print(json.dumps({call}))"
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", words],
                cwd=Path(__file__).parent,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise RuntimeError(done.stderr)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=[4, 8, 16, 30], help="lengths of clips [%(default)s]"
    )
    parser.add_argument(
        "--fps", type=float, nargs="+", default=[1, 2, 4], help="frames a second [%(default)s]"
    )
    parser.add_argument(
        "--sides",
        type=int,
        nargs="+",
        default=[224, 336, 448],
        help="width and height of frames, pixels [%(default)s]",
    )
    parser.add_argument("--batch-size", type=int, default=1, help="clips at a time [%(default)s]")
    parser.add_argument("--markdown", action="store_true", help="also print the table as Markdown")
    parser.add_argument(
        "--validate", action="store_true", help="compare predictions with real passes instead"
    )
    parser.add_argument("--save", action="store_true", help="write a CSV to benchmarks/results")
    options = parser.parse_args()
    rows = validate() if options.validate else predict_table(options)
    if options.markdown and not options.validate:
        print(markdown(rows))
    if options.save:
        topic = "memory_small_validated" if options.validate else "memory_7b_predicted"
        write_results(rows, topic, ("torch", "transformers"))


if __name__ == "__main__":
    main()

"""Derive hours and memory to train and evaluate AV-LMMDetect (7B) on FakeAVCeleb and MAVOS-DD with 1, 8 and 64 GPUs.

    python benchmarks/planning.py                                    the derivation; what nobody measured is left open
    python benchmarks/planning.py --measured benchmarks/results/gpu_....csv
    python benchmarks/planning.py --mfu 0.4 --gpu H100               under your own assumption

Prints a table in Markdown. Some things are known without any measurement: how many clips each stage of the recipes draws, how many
floating-point operations a pass over a clip takes (`modeling_avlmm.training.throughput`), and how much memory
(`modeling_avlmm.planning.memory`). How fast a GPU does it is not known. It comes from a CSV of measured rows, or from a model FLOP
utilisation that you assume; otherwise the hours are left open. For many GPUs the hours are divided by their number, a bound that
communication keeps a run from reaching.

The CSV has a row for each of `scoring`, `stage 1` and `stage 2` in the column `what`, with `clips_per_s` of one GPU and `peak_gib`.
Of several rows of a kind the one with the most clips per second counts. Its clips should be as long as the recipe's.
"""

import argparse
import csv
import functools
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from memory_table import shape_7b
from peft import PeftModel
from torch._subclasses.fake_tensor import FakeTensorMode

from modeling_avlmm.planning.avlmm_plan import predict, stage_shape
from modeling_avlmm.planning.live_bytes import GIB
from modeling_avlmm.planning.memory import make_batch, predict_scoring, real_stage
from modeling_avlmm.training.recipe_parts import StageRecipe
from modeling_avlmm.training.recipes import AVLMMRecipe, load_recipe
from modeling_avlmm.training.throughput import PEAK_BFLOAT16, FlopsCounter

RECIPES = Path(__file__).parents[1] / "recipes"
GPUS = (1, 8, 64)
OPEN = "not measured"
SCORED_AT_ONCE = 8


@dataclass(frozen=True)
class CorpusSize:
    """
    The sizes of a corpus.

    Args:
        name (`str`): Its name and split.
        recipe (`str`): File name of the recipe that trains on it.
        train (`int`): Clips of the training split.
        scored (`int`): Clips that an evaluation scores: validation and test.
    """

    name: str
    recipe: str
    train: int
    scored: int


CORPORA = (
    # 70 % and 30 % of 21,544 files. `identity_70_30` takes a part of the 70 % for validation.
    CorpusSize("FakeAVCeleb v1.2, 70/30", "fakeavceleb_7b.yaml", 15_080, 6_464),
    # As published (60,364 clips), and as the Hub has had it since 2026 (87,038).
    CorpusSize("MAVOS-DD version 1, open_full", "mavos_dd_7b.yaml", 19_770, 3_295 + 37_299),
    CorpusSize("MAVOS-DD version 2, open_full", "mavos_dd_7b.yaml", 21_370, 3_895 + 61_773),
)


@dataclass(frozen=True)
class Work:
    """One kind of work on a corpus: number of clips, operations of each, and predicted GiB on one GPU and on one of many."""

    what: str
    clips: int
    flops: float
    gib: float
    gib_many: float


def flops_per_clip(recipe: AVLMMRecipe, stage: StageRecipe | None) -> float:
    """Return the operations of a pass over the longest clip of a recipe, without recomputed ones."""
    config = shape_7b()
    with torch.device("meta"):
        model = real_stage(config, stage, torch.bfloat16)
    detector = model.get_base_model() if isinstance(model, PeftModel) else model
    if stage is None:
        detector.requires_grad_(False)
    shape = stage_shape(recipe, stage or recipe.stages[0], config)
    batch = make_batch(config, shape, 1, fake=FakeTensorMode(allow_non_fake_inputs=True))
    return FlopsCounter(detector).step(batch)


@functools.cache
def passes(recipe_file: str) -> list[tuple[str, float, float, float, float]]:
    """Return name, epochs, operations of a clip and GiB on one GPU and on one of many, for each stage and for scoring."""
    recipe, config = load_recipe(RECIPES / recipe_file), shape_7b()
    found = []
    for number, stage in enumerate(recipe.stages, start=1):
        need = predict(recipe, stage, config)
        # With several processes gradients are kept twice, to exchange them.
        many = need.total + 4 * need.trained
        flops = flops_per_clip(recipe, stage)
        found.append((f"stage {number}", stage.epochs, flops, need.total / GIB, many / GIB))
    scoring = (
        predict_scoring(config, stage_shape(recipe, recipe.stages[0], config), SCORED_AT_ONCE).total / GIB
    )
    return [*found, ("scoring", 1.0, flops_per_clip(recipe, None), scoring, scoring)]


def work_on(corpus: CorpusSize) -> list[Work]:
    """Return scoring and the stages of the corpus's recipe."""
    return [
        Work(what, corpus.scored if what == "scoring" else round(epochs * corpus.train), flops, alone, many)
        for what, epochs, flops, alone, many in passes(corpus.recipe)
    ]


def read_measured(path: Path) -> dict[str, dict[str, float]]:
    """
    Read clips a second of one GPU and peak memory, by kind of work.

    Raises:
        ValueError: if the file lacks the columns or has no such rows.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    absent = [name for name in ("what", "clips_per_s", "peak_gib") if not lines or name not in lines[0]]
    if absent:
        raise ValueError(f"{path} has no column {', '.join(absent)}.")
    best: dict[str, dict[str, float]] = {}
    for line in lines:
        kind = {"alignment": "stage 1", "encoders": "stage 2"}.get(line.get("stage"), line["what"])
        if kind not in ("scoring", "stage 1", "stage 2") or line.get("way", "ours") != "ours":
            continue
        if not line["clips_per_s"] or not line["peak_gib"]:  # a row that ran out of memory or time
            continue
        row = {"clips_per_s": float(line["clips_per_s"]), "peak_gib": float(line["peak_gib"])}
        row["how"] = f"{line.get('device', 'device unknown')}, {line.get('date', 'date unknown')}"
        if kind not in best or row["clips_per_s"] > best[kind]["clips_per_s"]:
            best[kind] = row
    if not best:
        raise ValueError(f"{path} has no row whose `what` is scoring, stage 1 or stage 2.")
    return best


def table(measured: dict[str, dict], mfu: float | None, gpu: str) -> str:
    """Return the plan as Markdown."""
    heads = [f"hours on {count} GPU{'s' if count > 1 else ''}" for count in GPUS]
    columns = ["corpus", "work", "clips", "TFLOP a clip", "clips/s of a GPU", *heads, "GiB a GPU"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for corpus in CORPORA:
        for work in work_on(corpus):
            speed, how = None, OPEN
            if work.what in measured:
                speed, how = measured[work.what]["clips_per_s"], "measured"
            elif mfu is not None:
                speed, how = mfu * PEAK_BFLOAT16[gpu] / work.flops, "assumed"
            hours = [f"{work.clips / speed / count / 3600:.3g}" if speed else OPEN for count in GPUS]
            memory = f"{work.gib:.1f}"
            if work.gib_many > work.gib:
                memory += f" alone, {work.gib_many:.1f} with DDP"
            memory += ", predicted"
            if work.what in measured:
                memory = f"{measured[work.what]['peak_gib']:.1f}, measured"
            cells = [corpus.name, work.what, f"{work.clips:,}", f"{work.flops / 1e12:.1f}"]
            cells += [f"{speed:.3g}, {how}" if speed else OPEN, *hours, memory]
            lines.append("| " + " | ".join(cells) + " |")
    notes = [
        "Hours = clips / (clips/s of a GPU x GPUs) / 3600. Clips = epochs of the recipe x clips of the split. "
        "TFLOP of the longest clip that the recipe takes, without recomputation.",
    ]
    if mfu is not None:
        notes.append(
            f"Assumption, not measured: MFU {mfu:g} of {PEAK_BFLOAT16[gpu] / 1e12:.0f} TFLOP/s ({gpu}, data sheet); "
            "clips/s = MFU x peak / TFLOP a clip."
        )
    notes += [f"Measured {what}: {row['how']}." for what, row in measured.items()]
    return "\n".join([*lines, "", *notes])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measured", type=Path, metavar="CSV", help="rows that were measured on a GPU")
    parser.add_argument("--mfu", type=float, help="assume this share of the peak where nothing was measured")
    parser.add_argument("--gpu", default="H100", choices=PEAK_BFLOAT16, help="for --mfu [%(default)s]")
    options = parser.parse_args()
    if options.mfu is not None and not 0 < options.mfu <= 1:
        parser.error(f"--mfu is a share of the peak in (0, 1], not {options.mfu}")
    try:
        measured = read_measured(options.measured) if options.measured else {}
    except (OSError, ValueError) as error:
        sys.exit(f"planning: {error}")
    print(table(measured, options.mfu, options.gpu))


if __name__ == "__main__":
    main()

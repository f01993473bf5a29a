"""Measure scoring and both training stages at the 7B shape on one GPU, in one command with a time limit.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --shape tiny --device cpu --minutes 3 --output /tmp/rows   # the same code, on any machine

Needs torch, transformers, peft, accelerate and torchvision: clips are made as tensors and nothing is decoded. Without TRL both
sides of the training run in `transformers.Trainer`. `scoring.py` and `training.py` describe what is measured and how. Their rows
are in one CSV here, and `what` tells them apart: `scoring`, `stage 1` (LoRA) or `stage 2` (encoders). A part for which too little
time is left is not begun, and a part that fails does not end the others: both get a row whose `note` says so. The CSV is rewritten
after every part, so a killed run leaves what it had.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import scoring
import torch
import training
from omni_shapes import SHAPES, VOCABULARIES, processor_for
from results import FOLDER, write_results
from transformers import logging

from modeling_avlmm.inference.provenance import environment


class Budget:
    """
    The time limit of the whole run.

    Args:
        seconds (`float`): The limit, from now.
        reserve (`float`):
            Seconds that must be left for a part to begin, or the time of the longest part of its kind if that is more.
    """

    def __init__(self, seconds: float, reserve: float):
        self.begin = time.monotonic()
        self.end = self.begin + seconds
        self.reserve = reserve
        self.longest: dict[str, float] = {}

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.end - time.monotonic()

    def needed(self, kind: str) -> float:
        """Return the seconds that a part of this kind needs to begin."""
        return max(self.reserve, 1.2 * self.longest.get(kind, 0.0))

    def until(self) -> float:
        """Return when the part that begins now should stop taking turns, to leave time for those after it."""
        return time.monotonic() + min(self.left() / 2, 60.0)


def parts(options: argparse.Namespace, processor) -> list[tuple[str, str, Callable[[float], list[dict]]]]:
    """Return the parts: kind, name, and a function that returns rows, given the time until which turns may begin."""
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    vocabulary = VOCABULARIES[options.shape]
    built: dict[str, scoring.ScoringWays] = {}

    def score(name: str, lengths: list[float]) -> Callable[[float], list[dict]]:
        def run(until: float) -> list[dict]:
            if not built:
                built["it"] = scoring.ScoringWays(options.shape, processor, options.device, dtype, vocabulary)
            return built["it"].measure(name, lengths, options.turns, until)

        return run

    def train(kind: str, lengths: list[float], found: list[dict], way: str) -> Callable[[float], list[dict]]:
        def run(until: float) -> list[dict]:
            built.clear()
            setting = training.Setting(
                options.shape, lengths, options.steps + 1, options.device, lora_rank=options.lora_rank
            )
            row = training.train(way, kind, processor, setting, until)
            found.append(row)
            return training.compare(found)[-1:]

        return run

    told = [
        ("scoring", name, score(name, lengths))
        for name, lengths in scoring.batches(options.seconds, options.scoring_clips).items()
    ]
    lengths = [options.seconds[index % len(options.seconds)] for index in range(options.training_clips)]
    for number, kind in enumerate(training.STAGES, start=1):
        found: list[dict] = []
        told += [(f"stage {number}", way, train(kind, lengths, found, way)) for way in ("stock", "ours")]
    return told


def write(rows: list[dict], options: argparse.Namespace) -> None:
    """Write the rows so far, each with every column."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    full = [{column: row.get(column) for column in columns} for row in rows]
    packages = ("torch", "transformers")
    write_results(full, f"gpu_{options.shape}", packages, folder=options.output)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--shape", default="7b", choices=SHAPES, help="[%(default)s]")
    parser.add_argument(
        "--minutes", type=float, default=7.5, help="time limit of the whole run [%(default)s]"
    )
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=[4, 8, 16], help="lengths of the clips [%(default)s]"
    )
    parser.add_argument("--scoring-clips", type=int, default=48, help="clips in a batch [%(default)s]")
    parser.add_argument("--training-clips", type=int, default=6, help="clips in a step [%(default)s]")
    parser.add_argument("--lora-rank", type=int, default=64, help="[%(default)s]")
    parser.add_argument(
        "--turns", type=int, default=3, help="turns of each way of scoring, at most [%(default)s]"
    )
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each training [%(default)s]")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the CSV [benchmarks/results]")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; to try the code: --shape tiny --device cpu")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # At the 7B shape, drawing weights and choosing kernels in the first pass takes more than half a minute.
    budget = Budget(60 * options.minutes, reserve=45.0 if options.shape == "7b" else 5.0)
    rows: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="gpu-") as work:
        for kind, name, run in parts(options, processor_for(work)):
            begin = time.monotonic()
            if budget.left() < budget.needed(kind):
                reason = f"not begun: {budget.left():.0f} s left of {60 * options.minutes:.0f}"
                found = [{"what": kind, "batch": name, "note": reason}]
            else:
                try:
                    found = [{"what": kind, **row} for row in run(budget.until())]
                except (RuntimeError, ValueError, TypeError, AttributeError) as error:
                    # Time on a GPU is expensive: the other parts are still measured, and the row says what failed.
                    found = [{"what": kind, "batch": name, "note": f"{type(error).__name__}: {error}"[:500]}]
                gc.collect()
                if options.device == "cuda":
                    torch.cuda.empty_cache()
            taken = time.monotonic() - begin
            budget.longest[kind] = max(taken, budget.longest.get(kind, 0.0))
            rows += found
            whole = [row for row in found if "way" in row]
            (scoring if kind == "scoring" else training).show(whole)
            for row in found:
                if "way" not in row:
                    print(f"{row['what']}, {row['batch']}: {row['note']}", flush=True)
            print(f"  {taken:.0f} s, {budget.left():.0f} s left", flush=True)
            write(rows, options)
    print(f"on {environment()['device']}")


if __name__ == "__main__":
    main()

"""Measure what a store of face crops (`data.store`) saves in the training of SSAVD or AVPL.

    python benchmarks/clip_store.py --recipe recipes/ssavd_genuine_wild.yaml --data.data_dir my_recordings --save

Seconds of processor time on one thread, so that other work on the machine counts little. Both ways make the same batches of the
recipe's training clips, with the same draws and pseudo-fakes, in turns, and the quickest turn of each counts: `file` decodes the
clip at every draw, `store` reads its crops and sound from a store that is filled beforehand (`fill_s_per_clip`; the tracks of the
faces are found before that). `step_s` is forward and backward pass for a clip. Faces, store and a list of files without faces are
written to a temporary folder, or where the recipe's `data.face_cache` and `data.store` say.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from results import write_results

from modeling_avlmm.training.batches import DropList, load_split
from modeling_avlmm.training.recipes import load_recipe
from modeling_avlmm.training.run import keep_freed_memory
from modeling_avlmm.training.small_detectors import SmallDetectorStage


def processor_seconds(work: Callable[[], object]) -> float:
    """Return the processor time of a call, of this process and its threads."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def measure(recipe: Path, words: list[str], turns: int, folder: str) -> list[dict]:
    """Return a row for each way."""
    loaded = load_recipe(recipe, words)
    loaded.output_dir = folder
    loaded.data.num_workers = 0
    loaded.data.store = loaded.data.store or f"{folder}/store"
    stage = SmallDetectorStage(loaded)
    rows = stage.rows(load_split(loaded.data, loaded.data.train_split))
    model, processor = stage.model(rows)
    made = {}
    fill = processor_seconds(
        lambda: made.update(collate=stage.collator(model, processor, rows, DropList(Path(folder) / "drops")))
    )
    collate, size = made["collate"], loaded.training.batch_size
    drawn = stage.schedule(rows, size * turns)
    store = collate.store
    taken: dict[str, list[float]] = {"file": [], "store": []}
    steps = []
    for turn in range(turns):
        part = [drawn[turn * size + place] for place in range(size)]
        for way, source in (("file", None), ("store", store)):
            collate.store = source
            taken[way].append(processor_seconds(lambda part=part: made.update(batch=collate(part))) / size)
        steps.append(processor_seconds(lambda: model(**made["batch"]).loss.backward()) / size)
        model.zero_grad()
    step, files = min(steps), list(store.folder.rglob("*.safetensors"))
    shared = {"clips": len(rows), "turns": turns, "batch": size, "step_s": round(step, 4)}
    kept = {
        "store_mb_per_clip": round(sum(file.stat().st_size for file in files) / 1e6 / max(1, len(files)), 2),
        "fill_s_per_clip": round(fill / len(rows), 3),
    }
    return [
        {
            "way": way,
            **shared,
            "make_s": round(min(seconds), 4),
            "clips_per_s": round(1 / (min(seconds) + step), 3),
            **(kept if way == "store" else dict.fromkeys(kept)),
        }
        for way, seconds in taken.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--recipe", type=Path, required=True, help="recipe of system ssavd or avpl, with faces"
    )
    parser.add_argument("--turns", type=int, default=4, help="batches of each way [%(default)s]")
    parser.add_argument("--save", action="store_true", help="write a CSV to benchmarks/results")
    options, words = parser.parse_known_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory(prefix="clip-store-") as folder:
        rows = measure(options.recipe, words, options.turns, folder)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items() if value is not None))
    if options.save:
        write_results(rows, "clip_store", ("torch", "torchcodec"))


if __name__ == "__main__":
    main()

"""`python -m modeling_avlmm demo`: benchmark, training, evaluation, publishing, and loading elsewhere, on two CPU cores."""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..explain.words import PART_NAMES
from ..inference.threads import usable_cores
from .console import CONTINUES, guarded, tell

if TYPE_CHECKING:
    from ..training.recipes import AVLMMRecipe

HELP = "run everything once: benchmark, training, evaluation, publishing"
DESCRIPTION = (
    "Draw a benchmark of talking heads, train a small model on it, evaluate and publish it, and load it in a process without "
    "this package. Takes about ten minutes on two CPU cores. After a stop, the same command continues."
)
RECIPE = Path(__file__).parents[2] / "recipes" / "demo.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path("runs/demo"),
        metavar="DIR",
        help="folder to write to [%(default)s]",
    )
    parser.add_argument(
        "--recipe", type=Path, default=RECIPE, metavar="FILE", help="recipe to train [recipes/demo.yaml]"
    )
    parser.add_argument(
        "--set",
        nargs=argparse.REMAINDER,
        default=[],
        help="fields of the recipe, such as --seed 1; give this option last",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    # The corpora are small on purpose, so warnings about missing files say nothing new.
    from dataset_scripts.errors import CorpusError, CorpusWarning

    from ..evaluation.evaluation_error import EvaluationError
    from ..training.progress import TooManyDropsError
    from ..training.recipes import RecipeError

    warnings.filterwarnings("ignore", category=CorpusWarning)
    errors = (RecipeError, TooManyDropsError, CorpusError, EvaluationError)
    return guarded(partial(_demonstrate, options), *errors, stopped=CONTINUES)


def _demonstrate(options: argparse.Namespace) -> int:
    from dataset_scripts.demo_benchmark.benchmark import make_demo_benchmark

    from ..publishing.publish import publish
    from ..training.recipes import load_recipe
    from ..training.run import train

    begin = time.monotonic()
    folder = options.output_dir

    heading(1, "Making the demonstration benchmark")
    make_demo_benchmark(folder / "data", workers=usable_cores())
    corpora = {"fakeavceleb": folder / "data" / "FakeAVCeleb_v1.2", "mavos_dd": folder / "data" / "MAVOS-DD"}

    heading(2, "Training")
    recipe = load_recipe(
        options.recipe,
        [
            *("--output_dir", str(folder / "training")),
            *("--data.data_dir", str(corpora["fakeavceleb"])),
            *("--data.annotations", str(folder / "data" / "real_annotations.jsonl")),
            *options.set,
        ],
    )
    final = train(recipe)

    heading(3, "Evaluating on identities that were not trained on")
    rows, reports = evaluate_stages(recipe, corpora, folder)

    heading(4, "Publishing to a folder")
    published = publish(final, folder / "published", metrics=reports)
    print(f"Wrote {published}")

    heading(5, "Loading it in a process without this package")
    agree = load_elsewhere(
        Path(published), corpora["fakeavceleb"], folder / "evaluation" / recipe.stages[-1].name
    )

    minutes = (time.monotonic() - begin) / 60
    print_results(rows, minutes, agree)
    print(f"""
Where everything lies
  benchmark      {folder / "data"}
  detectors      {folder / "training"}/<stage>/model
  predictions    {folder / "evaluation"}
  published      {published}   (README.md is its model card)

What to type next
  {sys.executable} -m modeling_avlmm detect YOUR_VIDEO.mp4 --model {published}
  {sys.executable} train_sft.py --recipe recipes/fakeavceleb_7b.yaml --data.data_dir FakeAVCeleb_v1.2
The demonstration's detector knows drawn faces only; its verdict on a real video means nothing.""")
    if not agree:
        tell("the published folder scores differently where the package is not installed.")
    return 0 if agree else 1


def heading(number: int, text: str) -> None:
    """Print the heading of a step."""
    print(f"\n=== {number}/5 {text}", flush=True)


def evaluate_stages(
    recipe: AVLMMRecipe, corpora: dict[str, Path], folder: Path
) -> tuple[list[dict], list[Path]]:
    """Score the untrained backbone and every stage on the test identities, and the last stage on the other corpus too."""
    from ..evaluation.evaluate import evaluate_protocol
    from ..evaluation.evaluation_options import EvaluationOptions
    from ..training.avlmm_stages import starting_point

    protocol = recipe.data.protocol
    models = {"untrained": starting_point(recipe)}
    models |= {stage.name: Path(recipe.output_dir) / stage.name / "model" for stage in recipe.stages}
    runs = [(name, model, "fakeavceleb", protocol) for name, model in models.items()]
    last = recipe.stages[-1].name
    runs.append((last, models[last], "mavos_dd", "open_full"))
    rows, reports = [], []
    for name, model, dataset, protocol in runs:
        output_dir = folder / "evaluation" / (name if dataset == "fakeavceleb" else f"{name}_{dataset}")
        # The threshold matters for the last stage only, and the other corpus keeps the one chosen on this.
        choose = name == last and dataset == "fakeavceleb"
        options = EvaluationOptions(
            model=str(model),
            dataset=dataset,
            protocol=protocol,
            data_dir=corpora[dataset],
            output_dir=output_dir,
            threshold=None if choose else "model",
            batch_size=16,
        )
        report, _ = evaluate_protocol(options)
        rows.append({"detector": name, "benchmark": f"{dataset}/{protocol}", "report": report})
        print(f"{name} on {dataset}/{protocol}: AUC {report['overall']['auc']:.3f}", flush=True)
        if name == last:
            reports.append(output_dir)
    return rows, reports


def load_elsewhere(published: Path, corpus: Path, evaluation: Path, count: int = 4) -> bool:
    """Return whether the published folder gives the same scores in a process that cannot import this package."""
    from ..evaluation.predictions import PREDICTIONS, read_predictions
    from ..publishing.elsewhere import DETECT, run_without_package

    predictions = [p for p in read_predictions(evaluation / PREDICTIONS)[0] if p["split"] == "test"]
    expected = predictions[:: max(1, len(predictions) // count)][:count]
    clips = [(corpus / entry["path"]).resolve() for entry in expected]
    with tempfile.TemporaryDirectory() as elsewhere:
        try:
            results = run_without_package(DETECT, published.resolve(), *clips, folder=Path(elsewhere))
        except RuntimeError as error:
            print(error)
            return False
    for entry, result in zip(expected, results, strict=True):
        print(
            f"  {entry['path']}: {result['label']}, score {result['score']:.4f} there, {entry['score']:.4f} here"
        )
    return all(abs(r["score"] - e["score"]) < 1e-4 for e, r in zip(expected, results, strict=True))


def print_results(rows: list[dict], minutes: float, agree: bool) -> None:
    """Print the table of results."""
    print("\n=== Results: AUC on held-out identities\n")
    head = ("detector", "benchmark", "clips", *PART_NAMES.values(), "bal. acc.")
    table = [head]
    for row in rows:
        report = row["report"]
        values = [report[part]["auc"] if report[part] else None for part in PART_NAMES]
        values.append(report["overall"]["balanced_accuracy"])
        shown = ["-" if value is None else f"{value:.3f}" for value in values]
        table.append((row["detector"], row["benchmark"], str(report["clips"]), *shown))
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"\n{minutes:.1f} minutes in this run, peak memory {peak:.1f} GiB.")
    print(f"Loaded without the package: {'same scores' if agree else 'DIFFERENT scores'}.")

"""Audio-visual deepfake detection from a terminal: look at files, publish a detector, check and export datasets.

    python -m modeling_avlmm detect clip.mp4 --model my-org/my-detector
    python -m modeling_avlmm train --recipe recipes/ssavd_demo.yaml
    python -m modeling_avlmm publish --model runs/demo/training/encoders/model --to published/demo
    python -m modeling_avlmm audit --dataset fakeavceleb --data-dir FakeAVCeleb_v1.2
    python -m modeling_avlmm export fakeavceleb --data-dir FakeAVCeleb_v1.2 --to exported/fakeavceleb

The large detector's training and all evaluation have scripts of their own: train_sft.py and evaluate_avd.py.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from dataset_scripts import export

from . import onnx_export, streaming
from .auto import DEFAULT_MODEL, default_model
from .evaluation import audit_command


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="avlmm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    detect = commands.add_parser(
        "detect",
        help="tell whether files are deepfakes",
        description="Tells whether files are deepfakes. Ends with 1 when a file could not be read, 2 on wrong usage.",
    )
    detect.add_argument("files", nargs="+", metavar="FILE", help="video or sound: a path or an http(s) URL")
    detect.add_argument(
        "--model",
        default=os.environ.get(DEFAULT_MODEL),
        help=f"folder or Hub id of a detector [${DEFAULT_MODEL}, or else this package's demonstration detector]",
    )
    detect.add_argument(
        "--gate", metavar="MODEL", help="small detector that answers for the files it is sure of"
    )
    detect.add_argument(
        "--gate-band",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="the gate is sure of scores below LOW and above HIGH [the gate's abstain band]",
    )
    detect.add_argument("--json", action="store_true", help="one JSON object a line, with the timeline")
    detect.add_argument(
        "--threshold", type=float, help="score from which a file is called fake [the model's own]"
    )
    detect.add_argument("--window-seconds", type=float, help="length of a window [as long as one pass takes]")
    detect.add_argument(
        "--hop-seconds", type=float, help="from one window's start to the next's [--window-seconds]"
    )
    detect.add_argument(
        "--aggregate", choices=("mean", "max"), help="the file's score from its windows' [mean]"
    )
    detect.add_argument(
        "--abstain", action="store_true", help="say 'uncertain' in the detector's range of uncertain scores"
    )
    detect.add_argument("--batch-size", type=int, default=1, help="windows of one pass [%(default)s]")
    add_loading_options(detect)

    train = commands.add_parser(
        "train",
        help="train a small detector from a recipe",
        description="Trains a detector in one stage. Any field of the recipe can be given as --any.field VALUE. Started "
        "again after it was stopped, a run goes on.",
    )
    train.add_argument("--recipe", required=True, help="YAML file, e.g. recipes/ssavd_demo.yaml")

    publish = commands.add_parser(
        "publish",
        help="write, and upload, a detector that others load in one line",
        description="Writes a folder with weights, processor, code, pipeline entry and model card; with --push it goes "
        "to the Hub, as a private repository unless --public is given.",
    )
    publish.add_argument("--model", required=True, help="folder of a trained detector")
    publish.add_argument(
        "--to", required=True, metavar="DIR_OR_REPO", help="folder, or with --push owner/name"
    )
    publish.add_argument("--push", action="store_true", help="upload to the Hub")
    publish.add_argument("--public", action="store_true", help="make a new repository public")
    publish.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="PATH",
        help="report.json files or folders of evaluate_avd.py",
    )
    publish.add_argument("--base-model", help="Hub id of the backbone [from the recipe]")
    publish.add_argument("--datasets", nargs="+", help="what it was trained on [from the recipe]")
    publish.add_argument("--license", help="licence of the weights, e.g. apache-2.0")
    publish.add_argument("--language", nargs="+", help="languages of the speech it was trained on, e.g. en")
    publish.add_argument("--token", help="Hub token [the one of `hf auth login`]")

    audit = commands.add_parser(
        "audit", help="look for shortcuts and leaks in a dataset", description=audit_command.DESCRIPTION
    )
    audit_command.add_arguments(audit)

    dataset = commands.add_parser(
        "export",
        help="write, and upload, a dataset that plain `datasets` loads, media inside",
        description=export.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    export.add_arguments(dataset)

    onnx = commands.add_parser(
        "onnx", help="export a small detector to ONNX", description=onnx_export.DESCRIPTION
    )
    onnx_export.add_arguments(onnx)

    stream = commands.add_parser(
        "stream", help="score a recording while it grows", description=streaming.DESCRIPTION
    )
    streaming.add_arguments(stream)
    return parser


def add_loading_options(parser: argparse.ArgumentParser) -> None:
    """How a detector is loaded."""
    parser.add_argument("--device", help="e.g. cuda:0 or cpu [an accelerator where there is one]")
    parser.add_argument("--dtype", default="auto", help="type of the weights, e.g. bfloat16 [%(default)s]")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run the code in the model's repository"
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    parser = build_parser()
    options, overrides = parser.parse_known_args(arguments)
    if options.command == "train":
        return run_train(options.recipe, overrides)
    if overrides:
        parser.error(f"unrecognized arguments: {' '.join(overrides)}")
    if options.command == "detect" and options.gate_band and not options.gate:
        parser.error("--gate-band says when a gate is sure: give the gate, --gate MODEL")
    commands = {
        "detect": run_detect,
        "publish": run_publish,
        "audit": audit_command.run,
        "export": export.run,
        "onnx": onnx_export.run,
        "stream": streaming.run,
    }
    return commands[options.command](options)


def run_detect(options: argparse.Namespace) -> int:
    # Loading takes seconds; `--help` and wrong usage do not wait for it.
    import modeling_avlmm  # noqa: F401

    from .evaluation.command import EvaluationError, load_detector

    quiet_transformers()
    try:
        if not options.model:
            print(
                f"avlmm: no model was named, so this is the demonstration detector of the package. Give --model, or set "
                f"{DEFAULT_MODEL}.",
                file=sys.stderr,
            )
        loading = (options.device, options.dtype, options.trust_remote_code, options.gate, options.gate_band)
        detector, zero_shot = load_detector(options.model or default_model(), *loading)
        if zero_shot:
            print("avlmm: this backbone was not trained to detect anything.", file=sys.stderr)
        settings = ("threshold", "window_seconds", "hop_seconds", "aggregate")
        given = {name: getattr(options, name) for name in settings if getattr(options, name) is not None}
        given["abstain"] = options.abstain
        results = detector(
            (file for file in options.files), batch_size=options.batch_size, on_error="return", **given
        )
        show = show_json if options.json else partial(show_table, gated=bool(options.gate))
        failed = sum(show(options.files, results))
    except (EvaluationError, ValueError) as error:
        print(f"avlmm: {error}", file=sys.stderr)
        return 2
    return 1 if failed else 0


def show_json(files: list[str], results: Iterator[dict]) -> Iterator[bool]:
    """Prints a line for each result as it comes; yields whether the file could not be read to its end."""
    for file, result in zip(files, results, strict=True):
        print(json.dumps({"file": file, **result}), flush=True)
        yield result["error"] is not None


def show_table(files: list[str], results: Iterator[dict], gated: bool = False) -> Iterator[bool]:
    """The same as a table for people; with a gate it says whose verdict each is."""
    width = max(len("file"), *(len(file) for file in files))
    last = "  by" if gated else ""
    print(
        f"{'file':<{width}}  {'verdict':<10}  {'score':>6}  {'picture':>7}  {'sound':>6}  {'seconds':>8}{last}"
    )
    for file, result in zip(files, results, strict=True):
        scores = [
            "-" if result[name] is None else f"{result[name]:.3f}"
            for name in ("score", "video_score", "audio_score")
        ]
        seconds = "-" if result["duration"] is None else f"{result['duration']:.1f}"
        verdict = result["label"] or "unreadable"
        last = f"  {result['decided_by']}" if gated else ""
        print(
            f"{file:<{width}}  {verdict:<10}  {scores[0]:>6}  {scores[1]:>7}  {scores[2]:>6}  {seconds:>8}{last}",
            flush=True,
        )
        if len(result["windows"]) > 1:
            for window in result["windows"]:
                span = f"  {window['start']:.1f} - {window['end']:.1f} s"
                score = "-" if window["score"] is None else f"{window['score']:.3f}"
                print(f"{span:<{width}}  {'':<10}  {score:>6}")
        notes = list(result["warnings"])
        if result["error"] is not None:
            notes.append(result["error"]["message"])
        for note in notes:
            print(f"  {note}")
        yield result["error"] is not None


def run_train(recipe: str, overrides: list[str]) -> int:
    from dataset_scripts.schema import CorpusError, plain_corpus_warnings

    from .training.detector_recipe import DetectorRecipe
    from .training.progress import TooManyDropsError
    from .training.recipes import RecipeError, load_recipe
    from .training.run_folder import say

    plain_corpus_warnings()
    try:
        loaded = load_recipe(recipe, overrides, DetectorRecipe)
        from .training.detector_run import train_detector

        model_dir = train_detector(loaded)
    except (RecipeError, TooManyDropsError, CorpusError) as error:
        print(f"avlmm: {error}", file=sys.stderr)
        return 2
    say(
        f"The detector is in {model_dir}.\nNext: python evaluate_avd.py --model {model_dir} "
        f"--dataset {loaded.data.dataset} --data-dir {loaded.data.data_dir}"
    )
    return 0


def run_publish(options: argparse.Namespace) -> int:
    from .hub import PublishError, publish

    quiet_transformers()
    try:
        where = publish(
            options.model,
            options.to,
            push=options.push,
            private=not options.public,
            metrics=options.metrics,
            base_model=options.base_model,
            datasets=options.datasets,
            license=options.license,
            language=options.language,
            token=options.token,
        )
    except PublishError as error:
        print(f"avlmm: {error}", file=sys.stderr)
        return 2
    print(f"Published to {where}.")
    if not options.push:
        model = str(Path(options.to))
        print(
            f"Look at {Path(options.to) / 'README.md'}, then try: python -m modeling_avlmm detect FILE --model {model}"
        )
    return 0


def quiet_transformers() -> None:
    """Progress bars of loading a model are of no use in a terminal that waits for a verdict."""
    from transformers.utils import logging

    logging.disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())

"""Audio-visual deepfake detection from a terminal: look at files, publish a detector, check and export datasets.

    python -m modeling_avlmm detect clip.mp4 --model my-org/my-detector
    python -m modeling_avlmm ui
    python -m modeling_avlmm train --recipe recipes/ssavd_demo.yaml
    python -m modeling_avlmm publish --model runs/demo/training/encoders/model --to published/demo
    python -m modeling_avlmm audit --dataset fakeavceleb --data-dir FakeAVCeleb_v1.2
    python -m modeling_avlmm export fakeavceleb --data-dir FakeAVCeleb_v1.2 --to exported/fakeavceleb

The large detector's training and all evaluation have scripts of their own: train_sft.py and evaluate_avd.py.
"""

import argparse
import sys
from pathlib import Path

from dataset_scripts.export import export

from .cli import audit as audit_command
from .cli import bench as bench_command
from .cli import instruct as instructions_command
from .cli import stream as streaming_command
from .cli.detect import command as detect
from .inference import onnx_export
from .page import actions as page


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="avlmm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    detect_files = commands.add_parser(
        "detect", help="tell whether files are deepfakes", description=detect.DESCRIPTION
    )
    detect.add_arguments(detect_files)
    add_loading_options(detect_files)

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
        "stream", help="score a recording while it grows", description=streaming_command.DESCRIPTION
    )
    streaming_command.add_arguments(stream)

    ui = commands.add_parser(
        "ui",
        help="a page in the browser: verdict, timeline, conversation, report",
        description=page.DESCRIPTION,
    )
    page.add_arguments(ui)

    instruct = commands.add_parser(
        "instruct",
        help="turn a dataset into conversations to fine-tune on",
        description=instructions_command.DESCRIPTION,
    )
    instructions_command.add_arguments(instruct)

    bench = commands.add_parser(
        "bench",
        help="measure what a detector answers, not only what it scores",
        description=bench_command.DESCRIPTION,
    )
    bench_command.add_arguments(bench)
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
    if options.command == "detect":
        detect.check(options, parser.error)
        quiet_transformers()
    commands = {
        "detect": detect.run,
        "publish": run_publish,
        "audit": audit_command.run,
        "export": export.run,
        "onnx": onnx_export.run,
        "stream": streaming_command.run,
        "ui": page.run,
        "instruct": instructions_command.run,
        "bench": bench_command.run,
    }
    return commands[options.command](options)


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
    from .publishing.publish import PublishError, publish

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

"""Score a detector on a protocol, and write predictions and a report.

    python evaluate_avd.py --model runs/demo/training/encoders/model \\
        --dataset fakeavceleb --protocol identity_70_30 --data-dir runs/demo/data/FakeAVCeleb_v1.2

    accelerate launch --num_processes 4 evaluate_avd.py ...      on several accelerators, with the same result

    python evaluate_avd.py --predictions runs/evaluation/.../predictions.parquet      only make the report again

    python evaluate_avd.py --scores theirs.csv --higher-is fake --dataset ...      the report of another program's scores
    python evaluate_avd.py --engine ray ...      on the machines of a Ray cluster
    python evaluate_avd.py --shard 3/16 ...      the third of 16 shares, each on any machine

The threshold is chosen on the validation split, if the protocol has one. A run that was stopped continues when it is
started again.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from modeling_avlmm.cli import options
from modeling_avlmm.cli.console import CONTINUES, UsageError, guarded, tell
from modeling_avlmm.inference.quiet import quiet_libraries

FAILED = 1
"""Exit status of an error, or of a pass that does not fit; wrong usage of the options ends with 2."""


SHARD_DONE = "This shard is scored. When all are, the same command without --shard makes their report, in"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all options; they become [`EvaluationOptions`]."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_subject(parser)
    add_outside(parser)
    add_numbers(parser)
    add_running(parser)
    return parser


def add_subject(parser: argparse.ArgumentParser) -> None:
    """Add the options for the detector and the data."""
    subject = parser.add_argument_group("detector and data")
    subject.add_argument("--model", help="folder or Hub id of a detector, or of an untrained omni backbone")
    options.add_gate(subject, "clips")
    options.add_corpus(subject, required=False)
    subject.add_argument("--split", default="test", help="split that is reported [%(default)s]")
    subject.add_argument(
        "--validation-split",
        default="validation",
        help="split that threshold and calibration are fitted on [%(default)s]",
    )
    subject.add_argument(
        "--max-missing",
        type=float,
        metavar="SHARE",
        help="share of the files that may be missing on disk, or without a score in --scores [0.01]",
    )
    subject.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="only make the report of this predictions.parquet again",
    )
    subject.add_argument(
        "--perturb",
        nargs="+",
        metavar="NAME",
        help="score the split under perturbations too: 'all', or names such as h264 noise delay",
    )
    subject.add_argument(
        "--severities", nargs="+", type=int, metavar="LEVEL", help="levels from 1 to 5 [all]"
    )
    subject.add_argument(
        "--audit",
        action="store_true",
        help="look for shortcuts and leaks in the data, and warn of them in the report",
    )


def add_outside(parser: argparse.ArgumentParser) -> None:
    """Add the options for scores of another program."""
    outside = parser.add_argument_group("scores of another program, in place of --model")
    outside.add_argument(
        "--scores", type=Path, metavar="FILE", help="table with paths and scores: CSV, Parquet, JSON lines"
    )
    outside.add_argument("--higher-is", choices=("fake", "real"), help="class that high scores stand for")
    outside.add_argument("--path-column", metavar="NAME", help="column with the path [recognised]")
    outside.add_argument("--score-column", metavar="NAME", help="column with the score [recognised]")


def add_numbers(parser: argparse.ArgumentParser) -> None:
    """Add the options that turn scores into verdicts and numbers."""
    numbers = parser.add_argument_group("from scores to verdicts and numbers")
    numbers.add_argument(
        "--threshold", help="a number, or 'model' for the model's own [chosen on validation]"
    )
    numbers.add_argument(
        "--calibrate",
        action="store_true",
        help="fit temperatures on validation and store them, and the threshold, in the model's folder",
    )
    numbers.add_argument(
        "--coverage",
        type=float,
        help="fit a band of uncertain scores that keeps wrong verdicts of each class below 1 - this share, e.g. 0.9",
    )
    numbers.add_argument(
        "--resamples",
        dest="n_resamples",
        type=int,
        default=1000,
        help="bootstrap resamples for confidence intervals; 0 for none [%(default)s]",
    )
    options.add_windows(numbers, "clip")


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add the options of the run itself."""
    running = parser.add_argument_group("running")
    running.add_argument("--output-dir", type=Path, help="folder of all results [runs/evaluation/...]")
    options.add_batch_size(running, 8)
    options.add_workers(running)
    options.add_loading(running)
    options.add_reading(running)
    options.add_engine(parser, "clips")
    running.add_argument(
        "--dry-run", action="store_true", help="only say what would be scored, and whether a pass fits"
    )
    running.add_argument(
        "--memory-gib", type=float, metavar="N", help="memory to fit in, for --dry-run [the device's own]"
    )


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line, or end with a message about wrong usage."""
    parser = build_parser()
    arguments = parser.parse_args()
    try:
        options.check_gate(arguments)
        options.check_engine(arguments)
    except UsageError as error:
        parser.error(str(error))
    if arguments.scores is not None:
        check_outside(parser, arguments)
    elif arguments.higher_is or arguments.path_column or arguments.score_column:
        parser.error("--higher-is, --path-column and --score-column are about --scores")
    elif arguments.predictions is None:
        absent = [name for name in ("model", "dataset", "data_dir") if vars(arguments)[name] is None]
        if absent:
            parser.error(f"give --{', --'.join(absent).replace('_', '-')}; or --predictions")
    elif arguments.dry_run:
        parser.error(
            "--dry-run is about scoring: it needs --model, --dataset and --data-dir, not --predictions"
        )
    elif arguments.perturb or arguments.audit:
        parser.error("--perturb and --audit need --model, --dataset and --data-dir, not --predictions")
    if (arguments.engine != "local" or arguments.shard) and arguments.model is None:
        parser.error("--engine and --shard are about scoring: they need --model, --dataset and --data-dir")
    if arguments.memory_gib is not None and not arguments.dry_run:
        parser.error("--memory-gib is a question for --dry-run")
    return arguments


def check_outside(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End with a message if options do not go with --scores, or one is missing that does."""
    given = vars(arguments)
    refused = ("model", "predictions", "gate", "perturb", "audit", "dry_run", "calibrate")
    if unfit := [name.replace("_", "-") for name in refused if given[name]]:
        parser.error(f"--{', --'.join(unfit)} and --scores exclude each other")
    if absent := [name for name in ("higher_is", "dataset", "data_dir") if given[name] is None]:
        parser.error(f"--scores needs --{', --'.join(absent).replace('_', '-')}")


def main() -> int:
    """Run what the command line asks for, and return the exit status."""
    arguments = parse_arguments()
    # Importing takes seconds; `--help` and wrong usage do not wait for it.
    from dataset_scripts.run_lock import InUseError
    from modeling_avlmm.evaluation.evaluation_error import EvaluationError
    from modeling_avlmm.inference.engines import EngineError
    from modeling_avlmm.inference.loading import DetectorError

    quiet_libraries()
    errors = (DetectorError, EngineError, EvaluationError, InUseError)
    return guarded(partial(run, arguments), *errors, stopped=CONTINUES, program="evaluate_avd", failed=FAILED)


def run(arguments: argparse.Namespace) -> int:
    """Make a plan, the report of old predictions, or an evaluation, and return the exit status."""
    from modeling_avlmm.evaluation.evaluate import evaluate_protocol, report_predictions
    from modeling_avlmm.evaluation.evaluation_options import EvaluationOptions, ReportOptions
    from modeling_avlmm.evaluation.metrics_table import polarity_warning, print_report
    from modeling_avlmm.planning.scoring_plan import plan_scoring

    arguments.ray = options.ray_options(arguments) if arguments.engine == "ray" else None
    if arguments.scores is not None:
        from modeling_avlmm.evaluation.scored_elsewhere import ScoresOptions, evaluate_scores

        with options.reading(arguments):  # the properties of the files
            report, folder = evaluate_scores(ScoresOptions.from_arguments(arguments))
        print_report(report, folder)
        if warning := polarity_warning(report):
            tell(warning, "evaluate_avd")
    elif arguments.dry_run:
        if not plan_scoring(EvaluationOptions.from_arguments(arguments), arguments.memory_gib):
            tell("a pass does not fit; nothing was scored.", "evaluate_avd")
            return FAILED
    elif arguments.predictions is None:
        with options.reading(arguments):  # with Ray too, for the properties of the files
            report, folder = evaluate_protocol(EvaluationOptions.from_arguments(arguments))
        if report is None:
            print(f"{SHARD_DONE} {folder}")
        else:
            print_report(report, folder)
    else:
        folder = arguments.output_dir or arguments.predictions.parent
        how = ReportOptions.from_arguments(arguments)
        print_report(report_predictions(arguments.predictions, how, folder), folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

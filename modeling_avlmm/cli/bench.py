"""`python -m modeling_avlmm bench`: how good a model's words are."""

import argparse
from dataclasses import fields
from functools import partial

from ..inference.quiet import quiet_libraries
from .console import CONTINUES, guarded
from .options import add_batch_size, add_corpus, add_loading, add_model, add_reading, reading

HELP = "measure what a detector answers, not only what it scores"
DESCRIPTION = (
    "Ask a detector in words about every clip of a split: whether it is fake, how it was made, and what gives it away. The "
    "answers are scored against what is known and measured, beside a baseline that never looks. The answers of a detector "
    "that cannot write are composed from its verdicts. After a stop, the same command continues. Exit status: 0, or 2 for "
    "wrong usage."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_model(parser)
    add_corpus(parser)
    parser.add_argument("--split", default="test", help="split to ask about [%(default)s]")
    parser.add_argument("--limit", type=int, metavar="N", help="ask about N clips, drawn by --seed [all]")
    parser.add_argument(
        "--output-dir",
        metavar="DIR",
        help="where to write and to continue [runs/bench/DATASET_PROTOCOL/MODEL]",
    )
    parser.add_argument(
        "--context", action="store_true", help="tell the model the detector's verdicts first, as a chat does"
    )
    add_batch_size(parser, 8, "clips asked at once")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="longest answer [%(default)s]")
    parser.add_argument(
        "--resamples",
        dest="n_resamples",
        type=int,
        default=1000,
        help="bootstrap samples; 0 for no intervals [%(default)s]",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the draw and of the reference texts [%(default)s]"
    )
    add_loading(parser)
    add_reading(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from ..evaluation.evaluation_error import EvaluationError
    from ..inference.loading import DetectorError

    return guarded(
        partial(_bench, options),
        DetectorError,
        EvaluationError,
        stopped=CONTINUES,
    )


def _bench(options: argparse.Namespace) -> int:
    from ..dialogue.bench.bench_run import BenchOptions, run_bench
    from ..dialogue.bench.report_pages import summary

    quiet_libraries()
    given = {field.name: vars(options)[field.name] for field in fields(BenchOptions)}
    with reading(options):
        print(summary(*run_bench(BenchOptions(**given))))
    return 0

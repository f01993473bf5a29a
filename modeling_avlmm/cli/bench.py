"""`python -m modeling_avlmm bench`: how good a model's words are."""

import argparse
from functools import partial

from .console import guarded
from .options import add_batch_size, add_corpus, add_loading, add_model

HELP = "measure what a detector answers, not only what it scores"
DESCRIPTION = (
    "Asks a detector in words about every clip of a split: whether it is fake, by which kind of technique, and what gives it "
    "away. Scores the answers against what is known and measured, beside a baseline that never looks. A detector that cannot "
    "write is benched with answers composed from its verdicts. Started again, it goes on. Ends with 2 on wrong usage."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_model(parser)
    add_corpus(parser)
    parser.add_argument("--split", default="test", help="what it is asked about [%(default)s]")
    parser.add_argument("--limit", type=int, metavar="N", help="ask about N clips, drawn by --seed [all]")
    parser.add_argument(
        "--output-dir", metavar="DIR", help="where it writes and goes on [runs/bench/DATASET_PROTOCOL/MODEL]"
    )
    parser.add_argument(
        "--context", action="store_true", help="tell the model the detector's verdicts first, as a chat does"
    )
    add_batch_size(parser, 8, "clips asked at once")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="longest answer [%(default)s]")
    parser.add_argument(
        "--resamples", type=int, default=1000, help="of the bootstrap; 0 for none [%(default)s]"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the draw and the reference texts [%(default)s]"
    )
    add_loading(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from ..evaluation.errors import EvaluationError
    from ..inference.loading import DetectorError

    return guarded(partial(_bench, options), DetectorError, EvaluationError)


def _bench(options: argparse.Namespace) -> int:
    from ..dialogue.bench.benchmark import run_bench

    report, folder = run_bench(
        options.model,
        options.dataset,
        options.data_dir,
        protocol=options.protocol,
        split=options.split,
        limit=options.limit,
        output_dir=options.output_dir,
        batch_size=options.batch_size,
        context=options.context,
        max_new_tokens=options.max_new_tokens,
        n_resamples=options.resamples,
        seed=options.seed,
        device=options.device,
        dtype=options.dtype,
        trust_remote_code=options.trust_remote_code,
    )
    for name, measure in report["measures"].items():
        if measure["n"]:
            print(
                f"{name:<26} {measure['value']:.3f}  baseline {measure['baseline']:.3f}  ({measure['n']} clips)"
            )
    if report["unreadable"]:
        print(f"{len(report['unreadable'])} clips could not be read; the report lists them.")
    print(f"Written to {folder / 'report.md'}, report.html and report.json.")
    return 0

"""`python -m modeling_avlmm compare`: detectors on the same clips."""

import argparse
from functools import partial
from pathlib import Path

from ..inference.quiet import quiet_libraries
from .console import UsageError, guarded
from .options import add_bootstrap

HELP = "compare detectors by their predictions on the same clips"
DESCRIPTION = (
    "Compare files of predictions that evaluate_avd.py wrote: paired differences of AUC, AP(fake) and balanced accuracy on "
    "the clips that all have scored, with intervals from resampling identities and DeLong's test, for the clip, its picture and "
    "its sound, overall and by category, generator and language. Writes report.md, report.html and report.json. Exit status: 0, or 2 for wrong usage."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="predictions.parquet of an evaluation, or its folder; each is an entry",
    )
    parser.add_argument(
        "--entry",
        dest="entries",
        action="append",
        default=[],
        metavar="NAME=FILE[,FILE...]",
        help="entry with a name; several files are runs with other seeds, shown as mean and spread",
    )
    parser.add_argument(
        "--output-dir", metavar="DIR", default="runs/comparison", help="folder to write to [%(default)s]"
    )
    add_bootstrap(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from ..evaluation.evaluation_error import EvaluationError

    quiet_libraries()
    return guarded(partial(_compare, options), EvaluationError)


def _compare(options: argparse.Namespace) -> int:
    named = [(None, [file]) for file in options.files] + [_entry(text) for text in options.entries]
    if len(named) < 2:
        raise UsageError("give at least two entries: two files, or --entry NAME=FILE twice")
    from ..evaluation.comparison import compare, read_entries
    from ..evaluation.comparison_pages import check_folder, comparison_summary, write_comparison

    folder = Path(options.output_dir)
    check_folder(folder)
    report = compare(read_entries(named), options.n_resamples, options.seed)
    write_comparison(report, folder)
    print(comparison_summary(report, folder))
    return 0


def _entry(text: str) -> tuple[str, list[str]]:
    name, _, files = text.partition("=")
    chosen = files.split(",")
    if not name.strip() or not all(chosen):
        raise UsageError(f"--entry is NAME=FILE or NAME=FILE,FILE, not {text!r}")
    return name.strip(), chosen

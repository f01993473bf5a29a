"""`python -m modeling_avlmm leaderboard`: a page of all detectors whose predictions are in a folder."""

import argparse
from functools import partial
from pathlib import Path

from ..inference.quiet import quiet_libraries
from .console import guarded
from .options import add_bootstrap

UNUSABLE = 1
"""Exit status when the page was made, and some file could not be used."""
HELP = "rank detectors by files of predictions in a folder, without media"
DESCRIPTION = (
    "Make a leaderboard of the files of predictions (*.parquet) below a folder, which evaluate_avd.py and wild wrote; no media "
    "are needed. Each set of clips has a table of its own, with intervals, coverage and what file properties alone reach. "
    "Writes report.md, report.html and report.json. Exit status: 0; 1 if a file could not be used, which is named; 2 for wrong "
    "usage."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("folder", metavar="FOLDER", help="folder with files of predictions, at any depth")
    parser.add_argument(
        "--output-dir", metavar="DIR", default="runs/leaderboard", help="folder to write to [%(default)s]"
    )
    add_bootstrap(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from ..evaluation.evaluation_error import EvaluationError

    quiet_libraries()
    return guarded(partial(_leaderboard, options), EvaluationError)


def _leaderboard(options: argparse.Namespace) -> int:
    from ..evaluation.comparison_pages import check_folder
    from ..evaluation.leaderboard import make_leaderboard
    from ..evaluation.leaderboard_pages import leaderboard_summary, write_leaderboard

    folder = Path(options.output_dir)
    check_folder(folder)
    report = make_leaderboard(options.folder, options.n_resamples, options.seed)
    write_leaderboard(report, folder)
    print(leaderboard_summary(report, folder))
    return UNUSABLE if report["unusable"] else 0

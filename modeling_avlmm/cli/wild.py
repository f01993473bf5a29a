"""`python -m modeling_avlmm wild`: a benchmark of real recordings."""

import argparse
from dataclasses import fields
from functools import partial

from ..inference.quiet import quiet_libraries
from .console import CONTINUES, fit, guarded
from .options import add_batch_size, add_loading, add_reading, add_workers, model_or_default, reading

HELP = "measure a detector on real recordings, beside what file properties alone reach"
DESCRIPTION = (
    "Score the real recordings of a folder with a table (docs/wild.md), and report how well fakes are ranked above genuine "
    "ones: overall, within one person, on matched files, by family and generator, with intervals, beside a classifier that "
    "sees nothing but file properties. After a stop, the same command continues. Exit status: 0, or 2 for wrong usage."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--data-dir", required=True, metavar="DIR", help="folder with clips.csv, speech.csv or photos.csv"
    )
    parser.add_argument(
        "--model",
        dest="models",
        action="append",
        default=[],
        metavar="MODEL",
        help="folder or Hub id of a detector; may be given several times [the default detector, unless --scores]",
    )
    parser.add_argument(
        "--scores",
        action="append",
        default=[],
        metavar="FILE",
        help="CSV table of another program's scores, with columns path and score; may be given several times",
    )
    parser.add_argument(
        "--protocol", choices=("clips", "speech", "photos"), help="table [the first there is]"
    )
    parser.add_argument("--split", help="split to report [test, else dev, else full]")
    parser.add_argument(
        "--output-dir", metavar="DIR", help="where to write and to continue [runs/wild/FOLDER_PROTOCOL_SPLIT]"
    )
    parser.add_argument(
        "--threshold", type=float, help="score from which a file is called fake [each detector's own]"
    )
    parser.add_argument(
        "--resamples",
        dest="n_resamples",
        type=int,
        default=1000,
        help="bootstrap resamples for intervals; 0 for none [%(default)s]",
    )
    add_batch_size(parser, 8)
    add_workers(parser)
    add_loading(parser)
    add_reading(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from ..evaluation.evaluation_error import EvaluationError
    from ..inference.loading import DetectorError

    quiet_libraries()
    return guarded(partial(_wild, options), DetectorError, EvaluationError, stopped=CONTINUES)


def _wild(options: argparse.Namespace) -> int:
    from ..evaluation.wild.wild_pages import wild_summary
    from ..evaluation.wild.wild_run import WildOptions, run_wild

    if not options.models and not options.scores:
        options.models = [model_or_default(None)]
    given = {field.name: vars(options)[field.name] for field in fields(WildOptions)}
    with reading(options):
        print("\n" + fit(wild_summary(*run_wild(WildOptions(**given)))))
    return 0

"""`python -m modeling_avlmm instruct`: instruction conversations about the clips of a dataset."""

from __future__ import annotations

import argparse
from dataclasses import fields
from functools import partial

from ..dialogue.families import TASKS
from ..inference.quiet import quiet_libraries
from .console import CONTINUES, guarded
from .options import add_corpus, add_push, add_reading, positive, reading

HELP = "turn a dataset into conversations to fine-tune on"
DESCRIPTION = (
    "Write questions and answers about the clips of a dataset, from its labels and from measured differences between a "
    "fake and its genuine source. After a stop, the same command continues. Exit status: 0; 1 if clips could not be read "
    "and were left out; 2 for wrong usage; 130 if interrupted."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_corpus(parser)
    parser.add_argument(
        "--to", required=True, metavar="DIR", help="folder to write: new, empty, or from an earlier run"
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="[all four]")
    parser.add_argument(
        "--per-clip", type=positive, default=1, metavar="N", help="conversations of each task [%(default)s]"
    )
    parser.add_argument(
        "--no-evidence",
        dest="evidence",
        action="store_false",
        help="use labels alone, without comparing fakes with their sources",
    )
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="processes [%(default)s]")
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="N clips of each split, drawn at random [all]"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the phrasings and of --limit [%(default)s]"
    )
    parser.add_argument(
        "--no-media",
        dest="media",
        action="store_false",
        help="leave the clips out of the files; rows name them by path",
    )
    parser.add_argument(
        "--max-shard-size", default="500MB", metavar="SIZE", help="media in one file [%(default)s]"
    )
    parser.add_argument("--license", help="licence for the card, e.g. cc-by-nc-sa-4.0 [the corpus' own]")
    add_reading(parser)
    add_push(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from dataset_scripts.errors import CorpusError

    from ..dialogue.instructions import InstructionError
    from ..evaluation.evaluation_error import EvaluationError

    errors = (EvaluationError, InstructionError, CorpusError, OSError)
    return guarded(partial(_instruct, options), *errors, stopped=CONTINUES)


def _instruct(options: argparse.Namespace) -> int:
    """Write the conversations; return 1 if clips were left out."""
    from ..dialogue.corpus_instructions import InstructOptions, instruct_corpus

    quiet_libraries()
    given = {field.name: vars(options)[field.name] for field in fields(InstructOptions)}
    with reading(options):
        return 1 if instruct_corpus(InstructOptions(**given)) else 0

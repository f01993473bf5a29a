"""`python -m modeling_avlmm protocols`: fingerprints of a dataset's protocols, and frozen lists of their clips."""

import argparse
from functools import partial
from pathlib import Path

from ..inference.quiet import quiet_libraries
from .console import UsageError, guarded, tell

HELP = "fingerprints of a dataset's protocols; freeze their lists of clips, compare a copy with a list"
DESCRIPTION = (
    "Print number of clips and fingerprint of each split of a dataset's protocols, as its metadata list the clips, and whether "
    "they are the official ones. No media file is opened; where a corpus has metadata, none need be there. --to writes the "
    "lists as JSON files, which --protocol of evaluate_avd.py takes in place of a name; --compare tells how this copy "
    "differs from such a file. Exit status: 0; 1 if the copy differs from the file or a named protocol cannot be listed; 2 "
    "for wrong usage."
)
DIFFERENT = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--dataset", required=True, help="fakeavceleb, mavos_dd, avfolder or another registered dataset"
    )
    parser.add_argument("--data-dir", required=True, metavar="DIR", help="folder of the corpus")
    parser.add_argument(
        "--protocols", nargs="+", metavar="NAME", help="protocols to list [all that this copy allows]"
    )
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="folder for the lists, a file DATASET.PROTOCOL.json for each"
    )
    parser.add_argument(
        "--without-paths",
        action="store_true",
        help="write numbers and fingerprints only, where a licence forbids sharing file names",
    )
    parser.add_argument(
        "--source", default="", metavar="TEXT", help="where the lists are from, a note in the files"
    )
    parser.add_argument("--compare", type=Path, metavar="FILE", help="JSON file to compare this copy with")


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from dataset_scripts.errors import CorpusError

    from ..evaluation.evaluation_error import EvaluationError

    quiet_libraries()
    return guarded(partial(_protocols, options), CorpusError, EvaluationError)


def _protocols(options: argparse.Namespace) -> int:
    if options.compare is not None:
        if options.protocols or options.to:
            raise UsageError("--compare takes the protocol from its file: leave out --protocols and --to")
        return _compare(options)
    if options.without_paths and options.to is None:
        raise UsageError("--without-paths is about the files of --to")
    from ..evaluation.protocols import list_protocols

    lists, refused = list_protocols(options.dataset, options.data_dir, options.protocols, options.source)
    for name, why in refused.items():
        tell(f"{name} cannot be listed: {why}")
    _print(lists)
    if options.to is not None:
        _write(options, [frozen for frozen, _ in lists])
    return DIFFERENT if options.protocols and refused else 0


def _print(lists: list) -> None:
    """Print a line for each split, and for several together where the official list is of those, and how they compare."""
    from ..evaluation.fingerprints import together

    for frozen, judgements in lists:
        print(frozen.protocol)
        joined = [each.split for each in judgements if each.split not in frozen.splits]
        for name in (*frozen.splits, *joined):
            part = together(frozen.splits, name)
            real = part.clips - part.fake
            print(f"  {name:<16} {part.clips:>10,} clips {real:>9,} real {part.fake:>9,} fake  {part.sha256}")
        for each in judgements:
            print(f"  {each.split} is {each.text}")


def _write(options: argparse.Namespace, lists: list) -> None:
    from dataset_scripts.protocol_lists import write_lists

    for frozen in lists:
        path = options.to / f"{frozen.dataset}.{frozen.protocol}.json"
        write_lists(path, [frozen], not options.without_paths)
        print(f"Written: {path} ({frozen.reference})")


def _compare(options: argparse.Namespace) -> int:
    from ..evaluation.protocols import compare_with_lists

    same = True
    for frozen, found in compare_with_lists(options.dataset, options.data_dir, options.compare):
        for split, (equal, words) in found.items():
            same &= equal
            release = f" ({frozen.release})" if frozen.release else ""
            print(f"{frozen.protocol}{release}, {split}: {words}")
    return 0 if same else DIFFERENT

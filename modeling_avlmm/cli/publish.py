"""`python -m modeling_avlmm publish`: a trained detector as a folder or Hub repository."""

import argparse
from functools import partial
from pathlib import Path

from ..inference.quiet import quiet_libraries
from .console import guarded
from .options import add_model, add_token

HELP = "write, and upload, a detector that others load in one line"
DESCRIPTION = (
    "Write a folder with weights, processor, code, pipeline entry and model card. With --push it is uploaded to the Hub, as a "
    "private repository unless --public is given."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_model(parser, "folder of a trained detector")
    parser.add_argument(
        "--to", required=True, metavar="DIR_OR_REPO", help="folder, or with --push owner/name"
    )
    parser.add_argument("--push", action="store_true", help="upload to the Hub")
    parser.add_argument("--public", action="store_true", help="make a new repository public")
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="PATH",
        help="reports for the card: report.json files, or folders of evaluate_avd.py",
    )
    parser.add_argument("--base-model", metavar="ID", help="Hub id of the backbone [from the recipe]")
    parser.add_argument(
        "--datasets", nargs="+", metavar="NAME", help="datasets it was trained on [from the recipe]"
    )
    parser.add_argument("--license", help="licence of the weights, e.g. apache-2.0")
    parser.add_argument(
        "--language", nargs="+", metavar="CODE", help="languages spoken in the training data, e.g. en"
    )
    add_token(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from ..publishing.publish import PublishError

    return guarded(partial(_publish, options), PublishError)


def _publish(options: argparse.Namespace) -> int:
    from ..publishing.card import CardMetadata
    from ..publishing.publish import Upload, publish

    quiet_libraries()
    metadata = CardMetadata(options.base_model, options.datasets, options.license, options.language)
    upload = Upload(private=not options.public, token=options.token) if options.push else None
    where = publish(options.model, options.to, options.metrics, metadata, upload)
    print(f"Published to {where}.")
    if not options.push:
        folder = Path(options.to)
        print(
            f"Look at {folder / 'README.md'}, then try: python -m modeling_avlmm detect FILE --model {folder}"
        )
    return 0

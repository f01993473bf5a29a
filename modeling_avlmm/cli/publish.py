"""`python -m modeling_avlmm publish`: a trained detector as a folder or Hub repository."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..inference.quiet import quiet_libraries
from .console import UsageError, guarded
from .options import add_model, add_token

if TYPE_CHECKING:
    from ..publishing.upload import Upload

HELP = "write, and upload, a detector that others load in one line"
DESCRIPTION = (
    "Write a folder with weights, processor, code, pipeline entry and model card. With --push it is uploaded to the Hub, as a "
    "private repository unless --public is given. --endpoint and --space write what Inference Endpoints and Spaces need, "
    "--layout vllm what a vLLM server needs."
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
    parser.add_argument(
        "--endpoint", action="store_true", help="add handler.py and requirements.txt for Inference Endpoints"
    )
    parser.add_argument(
        "--space",
        metavar="DIR_OR_SPACE",
        help="also write a Space that shows the page for this detector: a folder, or with --push owner/name",
    )
    parser.add_argument(
        "--layout",
        choices=("transformers", "vllm"),
        default="transformers",
        help="vllm: the whole omni model under its official names, for a server [%(default)s]",
    )
    add_token(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from ..publishing.publish import PublishError
    from ..publishing.vllm_layout import LayoutError

    return guarded(partial(_publish, options), PublishError, LayoutError)


def _publish(options: argparse.Namespace) -> int:
    from ..publishing.card import CardMetadata
    from ..publishing.publish import Upload, publish
    from ..publishing.space import check_space

    quiet_libraries()
    metadata = CardMetadata(options.base_model, options.datasets, options.license, options.language)
    upload = Upload(private=not options.public, token=options.token) if options.push else None
    if options.layout == "vllm" and (options.endpoint or options.space):
        raise UsageError(
            "--layout vllm holds no code for --endpoint or --space: publish those to another place"
        )
    if options.space and not upload:
        check_space(options.space)  # before anything is written
    extras = {"endpoint": options.endpoint, "layout": options.layout}
    where = publish(options.model, options.to, options.metrics, metadata, upload, **extras)
    print(f"Published to {where}.")
    if options.layout == "vllm":
        print(f"Serve it with: vllm serve {options.to} --trust-request-mm-kwargs")
    elif not options.push:
        folder = Path(options.to)
        print(
            f"Look at {folder / 'README.md'}, then try: python -m modeling_avlmm detect FILE --model {folder}"
        )
    if options.space:
        _publish_space(options, upload)
    return 0


def _publish_space(options: argparse.Namespace, upload: "Upload | None") -> None:
    from ..publishing.space import SpaceDetector, publish_space

    detector = SpaceDetector(
        name=Path(options.to).name,
        source=Path(options.model if upload else options.to),
        repository=options.to if upload else None,
        private=not options.public,
        license=options.license,
    )
    where = publish_space(detector, options.space, upload)
    print(f"The Space is at {where}." + ("" if upload else f" Try: python {Path(where) / 'app.py'}"))

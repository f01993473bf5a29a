"""Export a dataset with its media, so that plain `datasets` loads it.

    python -m dataset_scripts.export fakeavceleb --data-dir FakeAVCeleb_v1.2 --to exported/fakeavceleb

Then, anywhere: load_dataset("exported/fakeavceleb", "identity_70_30"). Each clip is stored once, however many protocols
are exported. An export that was stopped at any moment continues when it is started again.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import yaml

from ..errors import CorpusError
from ..run_lock import InUseError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `export`."""
    parser.add_argument("dataset", help="name of a registered dataset, e.g. fakeavceleb")
    parser.add_argument("--data-dir", required=True, metavar="DIR", help="folder of the unpacked corpus")
    parser.add_argument(
        "--to", required=True, metavar="DIR", help="folder to write: new, empty, or to continue"
    )
    parser.add_argument(
        "--protocols", nargs="+", metavar="NAME", help="its configurations [all that this copy allows]"
    )
    parser.add_argument(
        "--format", choices=("parquet", "webdataset"), default="parquet", help="file format [%(default)s]"
    )
    parser.add_argument(
        "--max-shard-size", default="500MB", metavar="SIZE", help="media in one file [%(default)s]"
    )
    parser.add_argument("--seed", type=int, help="seed of random splits [the builder's]")
    parser.add_argument(
        "--max-missing", type=float, metavar="SHARE", help="files that may be missing [the builder's]"
    )
    parser.add_argument(
        "--max-unreadable",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="clips that may be empty files [%(default)s]",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="other settings of the dataset, as YAML, e.g. languages=[english,german]",
    )
    parser.add_argument("--license", help="licence for the card, e.g. cc-by-nc-sa-4.0 [other]")
    parser.add_argument("--push-to", metavar="REPO", help="upload to this dataset repository, owner/name")
    parser.add_argument(
        "--public", action="store_true", help="make a new repository public; check that you may"
    )
    parser.add_argument("--token", help="Hub token [that of `hf auth login`]")


def run(options: argparse.Namespace) -> int:
    """Export as the options say, and return the exit status: 0, 2 for a user's error, 130 when interrupted."""
    # Imports `datasets`, for which --help does not wait.
    from .export import ExportOptions, export

    given = {"seed": options.seed, "max_missing": options.max_missing}
    config = {name: value for name, value in given.items() if value is not None}
    with warnings.catch_warnings():
        warnings.showwarning = _show
        try:
            config.update(_setting(words) for words in options.set)
            chosen = ExportOptions(
                format=options.format,
                max_shard_bytes=options.max_shard_size,
                max_unreadable=options.max_unreadable,
                license=options.license,
                push_to=options.push_to,
                private=not options.public,
                token=options.token,
            )
            where = export(options.dataset, options.data_dir, options.to, options.protocols, chosen, **config)
        except (CorpusError, InUseError, OSError) as error:
            print(f"export: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("export: stopped; the same command continues.", file=sys.stderr)
            return 130
    print(f"Exported to {where}.")
    if options.push_to is None:
        print(
            f"Look at {Path(options.to) / 'README.md'}, then try: datasets.load_dataset({str(options.to)!r})"
        )
    return 0


def _setting(words: str) -> tuple[str, Any]:
    from .plan import ExportError

    name, equals, value = words.partition("=")
    if not equals or not name.isidentifier():
        raise ExportError(f"--set {words}: expected NAME=VALUE.")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ExportError(f"--set {words}: the value is not YAML.") from error


def _show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Show a warning without its source line."""
    print(f"export: {message}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Run `python -m dataset_scripts.export`."""
    parser = argparse.ArgumentParser(
        prog="python -m dataset_scripts.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return run(parser.parse_args(arguments))

"""Turns a dataset of this package into a folder, or Hub repository, that plain `datasets` loads, media inside.

```sh
python -m dataset_scripts.export fakeavceleb --data-dir FakeAVCeleb_v1.2 --to exported/fakeavceleb
```

```py
>>> from datasets import load_dataset

>>> load_dataset("exported/fakeavceleb", "identity_70_30")
```

Each clip is stored once, however many protocols are exported, see `export_plan`. An export that was stopped at any
moment continues when it is started again: a file gets its name only when it is whole.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

_LAYOUT = 1  # of the folder: a change here makes an export of an older version start again
_TOLERANCES = ("missing_files", "max_missing")  # settings that do not change what is exported


def export(
    dataset: str,
    data_dir: str | Path,
    output_dir: str | Path,
    protocols: Sequence[str] | None = None,
    *,
    format: str = "parquet",
    max_shard_bytes: int | str = "500MB",
    push_to: str | None = None,
    private: bool = True,
    token: str | bool | None = None,
    license: str | None = None,
    max_unreadable: float = 0.01,
    **config: Any,
) -> Path | str:
    """Write a dataset with its media, and upload it when asked to.

    Starting it again with the same arguments continues where it was stopped, and does nothing to a finished folder
    but write the card anew (and upload, which continues too).

    Args:
        dataset (`str`):
            A name of `dataset_scripts.BUILDERS`.
        data_dir (`str` or `Path`):
            Folder of the corpus.
        output_dir (`str` or `Path`):
            New or empty folder, or one of an earlier export of the same.
        protocols (`list[str]`, *optional*):
            Which of the builder's configs to export. All by default; those that this copy does not allow are then
            left out, with a warning that says why, instead of being an error.
        format (`str`, *optional*, defaults to `"parquet"`):
            `"parquet"`, or `"webdataset"` for tar files.
        max_shard_bytes (`int` or `str`, *optional*, defaults to `"500MB"`):
            Media bytes of one file; only a single clip can make it larger.
        push_to (`str`, *optional*):
            Dataset repository, `owner/name`, to upload the finished folder to.
        private (`bool`, *optional*, defaults to `True`):
            Whether the repository is private. An existing public one is refused unless this is `False`.
        token (`str` or `bool`, *optional*):
            Hub token; the one of `hf auth login` if left out.
        license (`str`, *optional*):
            Licence identifier of the Hub for the card, e.g. `cc-by-nc-sa-4.0`.
        max_unreadable (`float`, *optional*, defaults to 0.01):
            Share of the clips that may be empty files, or vanish meanwhile, before this is an error. They are counted
            in the card and listed in `unreadable_files.txt`.
        config (`Any`):
            Settings of the builder, such as `seed`, `languages` or `max_missing`.

    Returns:
        `Path` of the folder, or with `push_to` the URL of the repository.

    Raises:
        [`~export_plan.ExportError`]: an argument is wrong, the folder holds something else, or the Hub refuses.
        [`~errors.CorpusError`]: the builder cannot read the corpus.
    """
    # These import `datasets`, for which the command line's help does not wait.
    from ..errors import nearest
    from .folder import (
        DATA,
        PUBLISHED,
        check_unreadable,
        compare,
        finish,
        locked,
        open_folder,
        start,
        write_shards,
    )
    from .plan import ExportError, make_plan
    from .push import check_repository, push
    from .shards import FORMATS

    if format not in FORMATS:
        raise ExportError(
            f"There is no format {format!r}.{nearest(format, FORMATS)} Use {' or '.join(FORMATS)}."
        )
    if not 0 <= max_unreadable <= 1:
        raise ExportError(f"max_unreadable is a share of all clips, from 0 to 1, got {max_unreadable}.")
    shard_bytes = _bytes(max_shard_bytes)
    output = Path(output_dir).expanduser().absolute()
    source = Path(data_dir).expanduser().absolute()
    if source in (output, *output.parents):
        raise ExportError(f"{output} is inside the corpus, {source}: take another folder.")
    manifest = open_folder(output)
    plan = make_plan(dataset, str(data_dir), protocols, shard_bytes, format, config)
    settings = {
        "layout": _LAYOUT,
        "dataset": dataset,
        "protocols": [protocol.name for protocol in plan.protocols],
        "format": format,
        "max_shard_bytes": shard_bytes,
        "config": {name: _public(value) for name, value in config.items() if name not in _TOLERANCES},
    }
    fingerprints = plan.fingerprints()
    if manifest is None:
        manifest = {
            "settings": settings,
            "fingerprints": fingerprints,
            "clips": len(plan.clips),
            "started": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "complete": False,
        }
    compare(output, manifest, settings, fingerprints, len(plan.clips))
    check_unreadable(plan, max_unreadable)
    names = [f"{shard.name}{FORMATS[format]}" for shard in plan.shards]
    if push_to is not None:
        check_repository(push_to, [f"{DATA}/{name}" for name in names], private=private, token=token)
    for protocol, reason in plan.refused.items():
        _warn(f"{dataset}: protocol {protocol} is left out: {reason}")
    for note in plan.notes:
        _warn(f"{dataset}: {note}")

    (output / DATA).mkdir(parents=True, exist_ok=True)
    with locked(output):
        start(output, names, manifest)
        done = write_shards(output, plan, format, manifest, max_unreadable)
        finish(output, plan, format, manifest, done, license, push_to)
    if push_to is None:
        return Path(output_dir)
    return push(push_to, output, PUBLISHED, private=private, token=token)


def _bytes(size: int | str) -> int:
    from datasets.utils.py_utils import convert_file_size_to_int

    from .plan import ExportError

    try:
        number = convert_file_size_to_int(size)
    except ValueError as error:
        raise ExportError(f"max_shard_bytes: {size!r} is no size; give bytes, or '500MB', '2GB'.") from error
    if number <= 0:
        raise ExportError(f"max_shard_bytes must be positive, got {size}.")
    return number


def _public(value: Any) -> Any:
    """A setting as others may read it: of a path, the last name."""
    return os.path.basename(value) if isinstance(value, str) and os.path.isabs(value) else value


def _warn(message: str) -> None:
    from ..errors import CorpusWarning

    warnings.warn(message, CorpusWarning, stacklevel=3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `export`."""
    parser.add_argument("dataset", help="name of a registered dataset, e.g. fakeavceleb")
    parser.add_argument("--data-dir", required=True, metavar="DIR", help="folder of the unpacked corpus")
    parser.add_argument(
        "--to", required=True, metavar="DIR", help="folder to write: new, empty, or to continue"
    )
    parser.add_argument(
        "--protocols", nargs="+", metavar="NAME", help="its configurations [all that this copy allows]"
    )
    parser.add_argument(
        "--format", choices=("parquet", "webdataset"), default="parquet", help="of the files [%(default)s]"
    )
    parser.add_argument(
        "--max-shard-size", default="500MB", metavar="SIZE", help="media in one file [%(default)s]"
    )
    parser.add_argument("--seed", type=int, help="of splits that are drawn by chance [the builder's]")
    parser.add_argument(
        "--max-missing", type=float, metavar="SHARE", help="of files that may be missing [the builder's]"
    )
    parser.add_argument(
        "--max-unreadable",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="of clips that may be empty files [%(default)s]",
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
        "--public", action="store_true", help="make a new repository public; make sure that you may"
    )
    parser.add_argument("--token", help="Hub token [the one of `hf auth login`]")


def run(options: argparse.Namespace) -> int:
    """Export as the options say; returns the exit status: 0, 2 for what the user can mend, 130 when interrupted."""
    from ..errors import CorpusError

    config = {
        name: getattr(options, name) for name in ("seed", "max_missing") if getattr(options, name) is not None
    }
    with warnings.catch_warnings():
        warnings.showwarning = _show
        try:
            config.update(_setting(words) for words in options.set)
            where = export(
                options.dataset,
                options.data_dir,
                options.to,
                options.protocols,
                format=options.format,
                max_shard_bytes=options.max_shard_size,
                push_to=options.push_to,
                private=not options.public,
                token=options.token,
                license=options.license,
                max_unreadable=options.max_unreadable,
                **config,
            )
        except (CorpusError, OSError) as error:
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
        raise ExportError(f"--set {words}: the value is no YAML.") from error


def _show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """A warning as a user of the command line reads it."""
    print(f"export: {message}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m dataset_scripts.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return run(parser.parse_args(arguments))

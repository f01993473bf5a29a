"""Turn a dataset of this package into a folder, or Hub repository, that plain `datasets` loads, media inside.

```sh
python -m dataset_scripts.export fakeavceleb --data-dir FakeAVCeleb_v1.2 --to exported/fakeavceleb
```

```py
>>> from datasets import load_dataset

>>> load_dataset("exported/fakeavceleb", "identity_70_30")
```

Each clip is stored once, however many protocols are exported. An export that was stopped at any moment continues when
it is started again.
"""

from __future__ import annotations

import datetime
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.utils.py_utils import convert_file_size_to_int

from ..errors import CorpusWarning, nearest
from ..run_lock import only_run_in
from .folder import (
    DATA,
    PUBLISHED,
    check_unreadable,
    compare,
    finish,
    open_folder,
    start,
    write_shards,
)
from .plan import ExportError, Plan, make_plan
from .push import check_repository, push
from .shards import FORMATS

_LAYOUT = 1  # of the folder: a change here makes an export of an older version start again
_TOLERANCES = ("missing_files", "max_missing")  # settings that do not change the content


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Args:
        format (`str`, *optional*, defaults to `"parquet"`):
            `"parquet"`, or `"webdataset"` for tar files.
        max_shard_bytes (`int` or `str`, *optional*, defaults to `"500MB"`):
            Media bytes of one file. Only a single clip can make it larger.
        max_unreadable (`float`, *optional*, defaults to 0.01):
            Share of the clips that may be empty files, or vanish meanwhile, before this is an error. They are counted
            in the card and listed in `unreadable_files.txt`.
        license (`str`, *optional*):
            The Hub's licence identifier for the card, e.g. `cc-by-nc-sa-4.0`.
        push_to (`str`, *optional*):
            Dataset repository, `owner/name`, to upload the finished folder to.
        private (`bool`, *optional*, defaults to `True`):
            Whether the repository is private. An existing public one is refused unless this is `False`.
        token (`str` or `bool`, *optional*):
            Hub token. Defaults to that of `hf auth login`.

    Raises:
        [`~plan.ExportError`]: a value is not valid.
    """

    format: str = "parquet"
    max_shard_bytes: int | str = "500MB"
    max_unreadable: float = 0.01
    license: str | None = None
    push_to: str | None = None
    private: bool = True
    token: str | bool | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ExportError(
                f"There is no format {self.format!r}.{nearest(self.format, FORMATS)} Use {' or '.join(FORMATS)}."
            )
        if not 0 <= self.max_unreadable <= 1:
            raise ExportError(
                f"max_unreadable is a share of all clips, from 0 to 1, got {self.max_unreadable}."
            )
        if self.shard_bytes <= 0:
            raise ExportError(f"max_shard_bytes must be positive, got {self.max_shard_bytes}.")

    @property
    def shard_bytes(self) -> int:
        """`max_shard_bytes` as a number."""
        try:
            return convert_file_size_to_int(self.max_shard_bytes)
        except ValueError as error:
            raise ExportError(
                f"max_shard_bytes: {self.max_shard_bytes!r} is not a size; give bytes, or '500MB', '2GB'."
            ) from error


def export(
    dataset: str,
    data_dir: str | Path,
    output_dir: str | Path,
    protocols: Sequence[str] | None = None,
    options: ExportOptions | None = None,
    **config: Any,
) -> Path | str:
    """Write a dataset with its media, and upload it if asked to.

    Started again with the same arguments, it continues where it was stopped. On a finished folder it only writes the
    card again (and uploads).

    Args:
        dataset (`str`):
            A name of `dataset_scripts.BUILDERS`.
        data_dir (`str` or `Path`):
            Folder of the corpus.
        output_dir (`str` or `Path`):
            A new or empty folder, or that of an earlier export of the same.
        protocols (`list[str]`, *optional*):
            Configs of the builder to export. Defaults to all; those that this copy does not allow are then left out,
            with a warning that says why, instead of being an error.
        options ([`ExportOptions`], *optional*):
            Format, limits, card and upload.
        config (`Any`):
            Settings of the builder, such as `seed`, `languages` or `max_missing`.

    Returns:
        `Path` of the folder, or with `push_to` the URL of the repository.

    Raises:
        [`~plan.ExportError`]: an argument is wrong, the folder holds something else, or the Hub refuses.
        [`~errors.CorpusError`]: the builder cannot read the corpus.
    """
    options = options or ExportOptions()
    output = _outside(output_dir, data_dir)
    manifest = open_folder(output)
    plan = make_plan(dataset, str(data_dir), protocols, options.shard_bytes, options.format, config)
    new = _manifest(dataset, plan, options, config)
    manifest = manifest or new
    compare(output, manifest, new["settings"], new["fingerprints"], len(plan.clips))
    check_unreadable(plan, options.max_unreadable)
    names = [f"{shard.name}{FORMATS[options.format]}" for shard in plan.shards]
    hub = {"private": options.private, "token": options.token}
    if options.push_to is not None:
        check_repository(options.push_to, [f"{DATA}/{name}" for name in names], **hub)
    refused = [f"protocol {protocol} is left out: {reason}" for protocol, reason in plan.refused.items()]
    for note in refused + plan.notes:
        warnings.warn(f"{dataset}: {note}", CorpusWarning, stacklevel=2)

    (output / DATA).mkdir(parents=True, exist_ok=True)
    with only_run_in(output):
        start(output, names, manifest)
        done = write_shards(output, plan, options.format, manifest, options.max_unreadable)
        finish(output, plan, options.format, manifest, done, options.license, options.push_to)
    if options.push_to is None:
        return Path(output_dir)
    return push(options.push_to, output, PUBLISHED, **hub)


def _outside(output_dir: str | Path, data_dir: str | Path) -> Path:
    """Return the absolute output folder, which must lie outside the corpus."""
    output, source = (Path(path).expanduser().absolute() for path in (output_dir, data_dir))
    if source in (output, *output.parents):
        raise ExportError(f"{output} is inside the corpus, {source}: take another folder.")
    return output


def _manifest(dataset: str, plan: Plan, options: ExportOptions, config: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of an export that has not begun."""
    return {
        "settings": {
            "layout": _LAYOUT,
            "dataset": dataset,
            "protocols": [protocol.name for protocol in plan.protocols],
            "format": options.format,
            "max_shard_bytes": options.shard_bytes,
            "config": {name: _public(value) for name, value in config.items() if name not in _TOLERANCES},
        },
        "fingerprints": plan.fingerprints(),
        "clips": len(plan.clips),
        "started": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "complete": False,
    }


def _public(value: Any) -> Any:
    """Return a setting that others may read: of a path, the last name."""
    return os.path.basename(value) if isinstance(value, str) and os.path.isabs(value) else value

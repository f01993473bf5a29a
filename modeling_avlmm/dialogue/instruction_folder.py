"""A folder of instruction conversations: Parquet files and a card, for plain `datasets` and for the Hub.

Media are inside the files, or left out: rows then name their clips by `path` within the corpus. A clip with several
conversations is stored once for each row group, as an entry of the column's dictionary.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_scripts.files import is_partial, write_whole
from dataset_scripts.run_lock import HOLDER, LOCK
from dataset_scripts.text_files import printable

from .instruction_card import DATA, SKIPPED, InstructionSet, render_card
from .instructions import FEATURES, InstructionError

CARD, MANIFEST = "README.md", "instructions.json"
EVIDENCE = "evidence.jsonl"
"""Measured evidence; it stays on this machine."""
PUBLISHED = (CARD, MANIFEST, SKIPPED, DATA)
"""Files and folders that are uploaded."""
GROUP_BYTES = 32 << 20
"""Media bytes of one row group, as in an export."""
GROUP_ROWS = 1000
_UNFINISHED = ".partial"  # a Parquet file whose number among all is not known yet
_OURS = {*PUBLISHED, EVIDENCE, LOCK, HOLDER, ".cache", ".gitattributes"}


def open_folder(folder: Path) -> None:
    """
    Create a folder, or check that it is empty or from an earlier run.

    Raises:
        [`InstructionError`]: when it holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise InstructionError(f"{folder} is a file: give a folder.")
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    strangers = {name for name in names if name not in _OURS and not is_partial(name)}
    if not names & {MANIFEST, EVIDENCE}:
        strangers = names - {LOCK, HOLDER}
    if strangers:
        raise InstructionError(
            f"{folder} holds something else ({', '.join(sorted(strangers)[:3])}): give an empty folder, or that of an "
            "earlier run."
        )
    folder.mkdir(parents=True, exist_ok=True)


def data_files(folder: Path) -> list[str]:
    """Return the names of the data files in `folder`, relative to it."""
    return sorted(f"{DATA}/{path.name}" for path in (folder / DATA).glob("*.parquet"))


def write_split(
    folder: Path, split: str, rows: Iterable[Mapping[str, Any]], *, embed: bool, shard_bytes: int
) -> Counter[str]:
    """
    Write one split as `data/<split>-00000-of-00001.parquet` and so on, and return counts for the card.

    Args:
        folder (`Path`): See [`open_folder`].
        split (`str`): Name of the split.
        rows (`Iterable[dict]`): Rows of [`~instructions.instruction_rows`], those about one clip next to each other.
        embed (`bool`): True to put media inside.
        shard_bytes (`int`): Media bytes from which a new file is started.

    Raises:
        [`InstructionError`]: when there are no rows, or a file has disappeared.
    """
    counts: Counter[str] = Counter()
    # Embedded sound files are bytes, like the clips.
    features = {**FEATURES, "audio": datasets.Audio(decode=False)} if embed else FEATURES
    schema = datasets.Features(features).arrow_schema
    written: list[Path] = []
    writer: pq.ParquetWriter | None = None
    filled = 0
    for group, size in _groups(rows, embed):
        if writer is not None and filled + size > shard_bytes:
            writer.close()
            writer, filled = None, 0
        if writer is None:
            written.append(folder / DATA / f"{split}-{len(written):05d}{_UNFINISHED}")
            written[-1].parent.mkdir(exist_ok=True)
            # Beyond this limit, a column's dictionary would be given up and each row would hold its clip.
            writer = pq.ParquetWriter(
                written[-1], schema, use_dictionary=True, dictionary_pagesize_limit=1 << 30
            )
        writer.write_table(pa.Table.from_pylist(group, schema=schema))
        filled += size
        for row in group:
            counts["rows"] += 1
            counts[f"task {row['task']}"] += 1
            counts[f"family {row['family']}"] += 1
            counts["measured"] += json.loads(row["facts"])["measured"]
            counts["answers"] += len(row["messages"]) // 2
    if writer is None:
        raise InstructionError(f"The split {split} has no clip that can be read.")
    writer.close()
    for old in (folder / DATA).glob(f"{split}-*-of-*.parquet"):
        old.unlink()
    for number, path in enumerate(written):
        path.replace(path.with_name(f"{split}-{number:05d}-of-{len(written):05d}.parquet"))
    return counts


def _groups(rows: Iterable[Mapping[str, Any]], embed: bool) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Yield row groups with the bytes of their media, each clip counted once."""
    group: list[dict[str, Any]] = []
    size, seen, media = 0, None, {}
    for row in rows:
        if row["path"] != seen:
            if group and (size > GROUP_BYTES or len(group) >= GROUP_ROWS):
                yield group, size
                group, size = [], 0
            seen, media = row["path"], _stored_media(row, embed)
            size += sum(len(cell["bytes"] or b"") for cell in media.values() if isinstance(cell, dict))
        group.append({**row, **media})
    if group:
        yield group, size


def _stored_media(row: Mapping[str, Any], embed: bool) -> dict[str, Any]:
    video, audio, path = row["video"], row["audio"], row["path"]
    if not embed:  # paths on this machine stay private: clips are named by their path in the corpus
        return {
            "video": None if video is None else {"bytes": None, "path": path},
            "audio": None if audio is None else _beside(audio, path),
        }
    stored: dict[str, Any] = {"video": None, "audio": None}
    if video is not None:
        stored["video"] = {"bytes": video["bytes"] or _content(video["path"]), "path": path}
    if audio is not None:
        stored["audio"] = {"bytes": _content(audio), "path": _beside(audio, path)}
    return stored


def _beside(audio: str, path: str) -> str:
    """Return the name of a separate sound file in the folder of its clip."""
    folder = path.rpartition("/")[0]
    return "/".join(part for part in (folder, os.path.basename(audio)) if part)


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InstructionError(f"{path} can no longer be read: {error.strerror}.") from error


def finish_folder(folder: Path, made: InstructionSet) -> None:
    """
    Write the card, the list of clips that were left out, and the manifest. Remove the files of splits that are gone.

    The card shows how to load `made.repository`, or the folder if there is none.
    """
    for path in (folder / DATA).iterdir():
        if path.name.rsplit("-", 3)[0] not in made.counts or path.name.endswith(_UNFINISHED):
            path.unlink()
    listed = [(path, "skipped", reason) for path, reason in sorted(made.skipped.items())]
    listed += [(path, "not measured", reason) for path, reason in sorted(made.unmeasured.items())]
    lines = ["\t".join(map(printable, line)) + "\n" for line in listed]
    if lines:
        write_whole(folder / SKIPPED, "".join(lines))
    else:
        (folder / SKIPPED).unlink(missing_ok=True)
    write_whole(folder / MANIFEST, json.dumps(made.manifest(), indent=1) + "\n")
    write_whole(folder / CARD, render_card(made, made.repository or folder.name))

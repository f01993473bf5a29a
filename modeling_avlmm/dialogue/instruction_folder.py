"""Stores instruction conversations as Parquet with a card, for plain `datasets` and for the Hub.

Media are inside the files, or left out: conversations then name their clips by `path` within the corpus. A clip that
several conversations are about is stored once for each row group, as an entry of the column's dictionary.
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
from huggingface_hub import DatasetCard, DatasetCardData

from dataset_scripts.export.dataset_card import package_version

from .families import FAMILIES
from .instructions import FEATURES, InstructionError

DATA, CARD, MANIFEST, SKIPPED = "data", "README.md", "instructions.json", "skipped_clips.txt"
EVIDENCE = "evidence.jsonl"
PUBLISHED = (CARD, MANIFEST, SKIPPED, DATA)
GROUP_BYTES = 32 << 20  # media of one row group, as in an export
GROUP_ROWS = 1000
_PARTIAL = ".partial"
_OURS = {*PUBLISHED, EVIDENCE, ".cache", ".gitattributes"}


def open_folder(folder: Path) -> None:
    """Make sure that `folder` is new, empty, or that of an earlier run, and create it.

    Raises:
        [`InstructionError`]: it holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise InstructionError(f"{folder} is a file: give a folder.")
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    strangers = {name for name in names if name.removesuffix(_PARTIAL) not in _OURS}
    if not names & {MANIFEST, EVIDENCE}:
        strangers = names
    if strangers:
        raise InstructionError(
            f"{folder} holds something else ({', '.join(sorted(strangers)[:3])}): give an empty folder, or that of an "
            "earlier run."
        )
    folder.mkdir(parents=True, exist_ok=True)


def data_files(folder: Path) -> list[str]:
    """Data files that are in `folder`, relative to it."""
    return sorted(f"{DATA}/{path.name}" for path in (folder / DATA).glob("*.parquet"))


def stored_features(embed: bool) -> datasets.Features:
    """Columns of the files: embedded sound files are bytes like the clips."""
    return datasets.Features({**FEATURES, "audio": datasets.Audio(decode=False)}) if embed else FEATURES


def write_split(
    folder: Path, split: str, rows: Iterable[Mapping[str, Any]], *, embed: bool, shard_bytes: int
) -> Counter[str]:
    """Write one split as `data/<split>-00000-of-00001.parquet` and so on; returns counts for the card.

    Args:
        folder (`Path`): See [`open_folder`].
        split (`str`): Its name.
        rows (`Iterable[dict]`): Of [`~instructions.instruction_rows`], conversations about a clip next to each other.
        embed (`bool`): Whether to put media inside.
        shard_bytes (`int`): Media bytes from which a new file is begun.

    Raises:
        [`InstructionError`]: there are no rows, or a file has vanished.
    """
    counts: Counter[str] = Counter()
    features = stored_features(embed)
    schema = features.arrow_schema
    written: list[Path] = []
    writer: pq.ParquetWriter | None = None
    filled = 0
    for group, size in _groups(rows, embed):
        if writer is not None and filled + size > shard_bytes:
            writer.close()
            writer, filled = None, 0
        if writer is None:
            written.append(folder / DATA / f"{split}-{len(written):05d}{_PARTIAL}")
            written[-1].parent.mkdir(exist_ok=True)
            # The limit is on the dictionary of a column: beyond it entries would be written plainly, one for each row.
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
        os.replace(path, path.with_name(f"{split}-{number:05d}-of-{len(written):05d}.parquet"))
    return counts


def _groups(rows: Iterable[Mapping[str, Any]], embed: bool) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Row groups and the bytes of their media, each clip counted once."""
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
    video, audio = row["video"], row["audio"]
    if not embed:  # where the corpus lies here is nobody's business: clips go by their path in it
        return {
            "video": None if video is None else {"bytes": None, "path": row["path"]},
            "audio": None if audio is None else _below(audio, row["path"]),
        }
    return {
        "video": None
        if video is None
        else {"bytes": video["bytes"] or _content(video["path"]), "path": row["path"]},
        "audio": None if audio is None else {"bytes": _content(audio), "path": _below(audio, row["path"])},
    }


def _below(audio: str, path: str) -> str:
    """A separate sound file's name, beside its clip."""
    folder = path.rpartition("/")[0]
    return "/".join(part for part in (folder, os.path.basename(audio)) if part)


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InstructionError(f"{path} cannot be read any more: {error.strerror}.") from error


def finish(
    folder: Path,
    *,
    dataset: str,
    protocol: str,
    description: str,
    homepage: str,
    license: str | None,
    counts: Mapping[str, Counter[str]],
    skipped: Mapping[str, str],
    unmeasured: Mapping[str, str],
    settings: Mapping[str, Any],
    demonstration: bool,
    embed: bool,
    repository: str | None = None,
) -> None:
    """Write the card, the list of what was left out, and the manifest; files of splits that are no more are removed.

    The card tells how to load `repository`, where the folder is uploaded to one, or else the folder.
    """
    for path in (folder / DATA).iterdir():
        if path.name.rsplit("-", 3)[0] not in counts or path.name.endswith(_PARTIAL):
            path.unlink()
    lines = [f"{path}\tskipped\t{reason}\n" for path, reason in sorted(skipped.items())]
    lines += [f"{path}\tnot measured\t{reason}\n" for path, reason in sorted(unmeasured.items())]
    if lines:
        _write(folder / SKIPPED, "".join(lines))
    else:
        (folder / SKIPPED).unlink(missing_ok=True)
    manifest = {
        "dataset": dataset,
        "protocol": protocol,
        "settings": dict(settings),
        "counts": {split: dict(count) for split, count in counts.items()},
        "skipped": len(skipped),
        "unmeasured": len(unmeasured),
    }
    _write(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    rows = sum(count["rows"] for count in counts.values())
    known = {"license": license} if license else {"license": "other", "license_name": "see-the-corpus"}
    data = DatasetCardData(
        pretty_name=f"Instructions for {dataset}",
        task_categories=["video-text-to-text"],
        size_categories=[next((text for most, text in _SIZES if rows < most), "n>1M")],
        tags=["deepfake-detection", "audio-visual", "instruction-tuning", "synthetic-text"],
        configs=[
            {
                "config_name": protocol,
                "data_files": [{"split": split, "path": f"{DATA}/{split}-*.parquet"} for split in counts],
                "default": True,
            }
        ],
        language=["en"],
        **known,
    )
    text = "\n\n".join(
        _sections(
            repository or folder.name,
            dataset,
            protocol,
            description,
            homepage,
            license,
            counts,
            manifest,
            demonstration,
            embed,
        )
    )
    _write(folder / CARD, str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n")))


_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def _sections(
    name: str,
    dataset: str,
    protocol: str,
    description: str,
    homepage: str,
    license: str | None,
    counts: Mapping[str, Counter[str]],
    manifest: Mapping[str, Any],
    demonstration: bool,
    embed: bool,
) -> Iterator[str]:
    yield f"# Instruction conversations about {dataset}"
    if demonstration:
        yield (
            "> **Demonstration.** These are drawn clips of the demonstration benchmark in the layout of the corpus: no "
            "real person, and nothing to train a detector for use on."
        )
    yield description
    yield (
        "Questions and answers about audio-visual clips: is it fake, of which kind, where and when, and free conversation. "
        "**All texts are templates**, filled with the labels of the corpus and, for fakes whose genuine source is known, "
        "with measured differences between the two. No language model and no person wrote about a single clip. The format "
        "is our own: that of DFA-Instruct (arXiv:2501.01164), whose recipe this follows for images, is not public."
    )
    yield f'```py\nfrom datasets import load_dataset\n\nrows = load_dataset("{name}", "{protocol}")\n```'
    yield (
        'Media are inside the files, not decoded: `row["video"]["bytes"]` is the clip.'
        if embed
        else "Media are not in the files: `path` names the clip within the corpus."
    )
    yield (
        "> **Licence.** The clips show real people and stay under the terms of the corpus"
        + (f" ({homepage})" if homepage else "")
        + (f", given here as `{license}`" if license else "")
        + ". Whoever shares this folder must have the right to."
    )
    yield "## Columns"
    yield _table(
        ["column", "content"],
        [
            [
                "`messages`",
                "turns with `role` and `content`; the first part of the first one stands for the clip",
            ],
            ["`task`", "detection, classification, description or conversation"],
            ["`path`", "the clip, relative to the corpus"],
            ["`video`, `audio`", "the clip; a separate sound file"],
            ["`label`, `video_label`, `audio_label`", "0 real, 1 fake; null where unknown"],
            [
                "`family`",
                ", ".join(f"`{key}` ({text})" for key, text in FAMILIES.items()) + "; null where unknown",
            ],
            ["`generator`", "of all forged tracks, joined by `+`; `real` for a genuine clip"],
            ["`facts`", "JSON: everything an answer may name"],
        ],
    )
    yield "## Counts"
    tasks = sorted({key for count in counts.values() for key in count if key.startswith("task ")})
    families = sorted({key for count in counts.values() for key in count if key.startswith("family ")})
    for kind, keys in (("task", tasks), ("family", families)):
        yield _table(
            [kind, *counts],
            [[key.removeprefix(f"{kind} "), *(f"{c[key]:,}" for c in counts.values())] for key in keys],
        )
    measured = {split: f"{count['measured']:,} of {count['rows']:,}" for split, count in counts.items()}
    yield (
        "Conversations about a clip that was compared with its source: "
        + ", ".join(f"{split} {text}" for split, text in measured.items())
        + "."
    )
    if manifest["skipped"] or manifest["unmeasured"]:
        yield (
            f"{manifest['skipped']:,} clips could not be read and are not here; the sources of {manifest['unmeasured']:,} "
            f"could not be read, so that these are described by their labels: `{SKIPPED}`."
        )
    yield "## Origin"
    chosen = ", ".join(f"{key}={value}" for key, value in manifest["settings"].items())
    yield f"`python -m modeling_avlmm instruct` of modeling-avlmm {package_version()} on `{dataset}`, {chosen}."


def _table(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + _PARTIAL)
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)

"""Write the files of an export: Parquet with the media inside, or WebDataset tar files."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.arrow_writer import get_parquet_column_options

from .plan import StoredClip

FORMATS = {"parquet": ".parquet", "webdataset": ".tar"}  # format -> suffix of its files
# Reading one row reads its row group. `datasets` aims at 100 MB; clips of a few MB allow less (our own choice).
ROW_GROUP_BYTES = 32 << 20
_METADATA = "json"
_SOUNDS = ("flac", "m4a", "mp3", "ogg", "wav")


@dataclass
class Written:
    """The content of a written file.

    Attributes:
        rows (`int`): Number of clips.
        unreadable (`int`): Number of clips that were left out.
        suffixes (`dict[str, list[str]]`): Column -> suffixes of its media in a tar file.
    """

    rows: int = 0
    unreadable: int = 0
    suffixes: dict[str, list[str]] = field(default_factory=dict)


def write_shard(
    format: str,
    file: BinaryIO,
    clips: Sequence[StoredClip],
    features: datasets.Features,
    advance: Callable[[int], None],
) -> Written:
    """Write one file. Only one row group, or one clip of a tar file, is in memory at a time.

    Clips whose files have vanished or become empty are left out; their `unreadable` is set to the reason.

    Args:
        format (`str`): One of `FORMATS`.
        file (`BinaryIO`): The file to write.
        clips (`Sequence[StoredClip]`): The clips, in order.
        features ([`datasets.Features`]): The columns.
        advance (`Callable[[int], None]`): Called for each clip with its bytes.
    """
    written = Written()
    media = _read(clips, written, advance)
    if format == "parquet":
        _write_parquet(file, media, features, written)
    else:
        _write_tar(file, media, written)
    return written


def _read(
    clips: Sequence[StoredClip], written: Written, advance: Callable[[int], None]
) -> Iterator[tuple[StoredClip, dict[str, bytes]]]:
    for clip in clips:
        data = {}
        reason = None
        for column, path in clip.files.items():
            try:
                with open(path, "rb") as file:
                    data[column] = file.read()
            except OSError as error:
                reason = error.strerror or type(error).__name__
                break
            if not data[column]:
                reason = "empty file"
                break
        advance(sum(clip.sizes))
        if reason is not None:
            clip.unreadable = reason
            written.unreadable += 1
            continue
        written.rows += 1
        yield clip, data


def _write_parquet(
    file: BinaryIO,
    media: Iterator[tuple[StoredClip, dict[str, bytes]]],
    features: datasets.Features,
    written: Written,
) -> None:
    schema = features.arrow_schema
    # Content-defined chunks: the Hub stores unchanged parts of a new version once.
    chunking = datasets.config.DEFAULT_CDC_OPTIONS
    options = get_parquet_column_options(features, schema)
    with pq.ParquetWriter(
        file, schema, use_content_defined_chunking=chunking, write_page_index=True, **options
    ) as writer:
        group: list[dict] = []
        size = 0
        for clip, data in media:
            more = sum(map(len, data.values()))
            if group and size + more > ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                group, size = [], 0
            embedded = {
                column: {"bytes": content, "path": os.path.basename(clip.files[column])}
                for column, content in data.items()
            }
            # Not `features.encode_example`: it drops the bytes if the working directory has a file of that name.
            group.append({**clip.row, "video": None, "audio": None, **embedded})
            size += more
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
        writer.add_key_value_metadata({"content_defined_chunking": json.dumps(chunking)})


def _write_tar(
    file: BinaryIO, media: Iterator[tuple[StoredClip, dict[str, bytes]]], written: Written
) -> None:
    suffixes: dict[str, set[str]] = {"video": set(), "audio": set()}
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for clip, data in media:
            plain = {name: value for name, value in clip.row.items() if name not in ("video", "audio")}
            for column, content in data.items():
                suffix = container_suffix(content, clip.files[column])
                if (suffix in _SOUNDS) != (column == "audio"):  # else one suffix could mean both columns
                    suffix = f"{column}.{suffix}"
                suffixes[column].add(suffix)
                _add(archive, f"{clip.key}.{suffix}", content)
            _add(archive, f"{clip.key}.{_METADATA}", json.dumps(plain, ensure_ascii=False).encode())
    written.suffixes = {column: sorted(found) for column, found in suffixes.items()}


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)  # without owner and time: the same clips give the same file
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def container_suffix(content: bytes, path: str) -> str:
    """Return the suffix, without a dot, of a file's true container, or that of its name if it is unknown.

    Known are the signatures of ISO/IEC 14496-12, Matroska, RIFF, MPEG program streams, FLAC, Ogg and MP3.
    """
    head = content[:64]
    named = os.path.splitext(path)[1].lstrip(".").lower()
    if head[4:8] == b"ftyp":
        brand = {b"qt  ": "mov", b"M4A ": "m4a"}.get(head[8:12], "mp4")
        return named if named in ("mp4", "m4v", "mov", "m4a") else brand
    if head[:4] == b"\x1aE\xdf\xa3":
        return "webm" if b"webm" in head else "mkv"
    if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"WAVE"):
        return {b"AVI ": "avi", b"WAVE": "wav"}[head[8:12]]
    if head[:4] == b"\x00\x00\x01\xba":
        return "mpeg"
    for signature, suffix in ((b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "mp3")):
        if head.startswith(signature):
            return suffix
    return named or "bin"


def webdataset_features(
    features: datasets.Features, videos: Sequence[str], sounds: Sequence[str]
) -> datasets.Features:
    """Return the columns of the tar files as `datasets` reads them: one per suffix, and `json` with the rest.

    Args:
        features ([`datasets.Features`]): The columns of the export.
        videos (`Sequence[str]`): Suffixes of the clips.
        sounds (`Sequence[str]`): Suffixes of the separate sound files.
    """
    rest = {name: feature for name, feature in features.items() if name not in ("video", "audio")}
    return datasets.Features(
        {
            **dict.fromkeys(videos, features["video"]),
            **dict.fromkeys(sounds, features["audio"]),
            _METADATA: rest,
            "__key__": datasets.Value("string"),
            "__url__": datasets.Value("string"),
        }
    )

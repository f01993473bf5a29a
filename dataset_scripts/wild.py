"""A folder of real recordings: tables of clips, of photographs and of speech, for an honest test.

Recordings that people find, rather than corpora that one laboratory made, come with what is known about each: who is
seen, how a fake was made, where the file is from, and under which licence. docs/wild.md describes the layout for those
who bring their own.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import datasets

from .builder import CorpusBuilder, CorpusConfig
from .corpus import VIDEO_SUFFIXES, Corpus, MissingFiles, scan_files
from .errors import MetadataError, nearest
from .schema import REAL, ClipRow, make_row, parse_label
from .splits import FULL_SPLIT
from .text_files import read_csv

TABLES = {"clips": "clips.csv", "speech": "speech.csv", "photos": "photos.csv"}
"""Protocol -> name of its table."""
SPLITS = ("train", "validation", "dev", "test")
_SUFFIXES = {
    "clips": VIDEO_SUFFIXES,
    "speech": (".flac", ".wav", ".mp3", ".ogg", ".opus", ".m4a"),
    "photos": (".jpg", ".jpeg", ".png", ".webp"),
}
_NEEDED = {"clips": ("file_name", "label"), "speech": ("file_name", "label"), "photos": ("file_name",)}
_TEXTS = ("generator", "family", "licence", "repo", "system", "kind", "pair_id", "corpus", "orig_codec")
_RENAMED = {
    "path": "repo_path",
    "speaker": "identity",
    "licence_corpus": "licence",
    "dataset": "corpus",
}
_OTHERS = (
    "split",
    "label",
    "video_label",
    "audio_label",
    "audio_generator",
    "language",
    "identity",
    "source",
)
_FLAGS = ("train_ok", "has_audio")
_NUMBERS = ("orig_rate", "orig_seconds")
_KNOWN = ("file_name", *_OTHERS, *_TEXTS, *_RENAMED, *_FLAGS, *_NUMBERS)
MOST = 1e12
"""Limit for a number of a table; more is a slip. Our own choice."""
_UNKNOWN = ("", "unknown", "unspecified", "n/a")


@dataclass
class WildConfig(CorpusConfig):
    """Settings of `wild`; `name` is the protocol, which says what table is read."""

    CORPUS = "wild"
    LOOKED_FOR = f"one of the tables {', '.join(TABLES.values())}"

    def holds(self, folder: str) -> bool:
        """See [`CorpusConfig.holds`]."""
        return bool(tables_in(folder))

    def metadata_in(self, folder: str) -> list[str]:
        """See [`CorpusConfig.metadata_in`]."""
        table = TABLES.get(self.name, "")
        return [table] if os.path.isfile(os.path.join(folder, table)) else []

    def media_in(self, root: str) -> tuple[list[str], int]:
        """See [`CorpusConfig.media_in`]. A table may point to files beside its folder, by `../`."""
        tables = self.metadata_in(root)
        listed = {path for table in tables for path in _listed_in(root, table)}
        inside, others = scan_files(root, _SUFFIXES[self.name]) if tables else ([], 0)
        elsewhere = listed.difference(inside)
        return sorted({*inside, *(path for path in elsewhere if os.path.isfile(_join(root, path)))}), others


class Wild(CorpusBuilder):
    """Real recordings, real deepfakes, real and synthetic speech, described by tables.

    ```py
    >>> load_dataset("wild", data_dir="wild")  # clips.csv
    >>> load_dataset("wild", "speech", data_dir="wild")
    ```

    `data_dir` has at least one of the tables `clips.csv`, `speech.csv` and `photos.csv`, one row a file. `file_name` is
    relative to the folder, and may lead out of it by `../`. An empty cell means unknown, and so does `unknown`.

    Protocols, one a table:

    - `clips` (default): videos. Needs `file_name` and `label` (`real` or 0, `fake` or 1).
    - `speech`: sound files. Needs `file_name` and `label`. `video` is the path of the sound file, `identity` the
      speaker, `audio_generator` the `system`; `video_label` is None, as there is no picture.
    - `photos`: genuine photographs. Needs `file_name`; a `label` may be given. `audio_label` is None.

    The splits are those of the column `split` (train, validation, dev, test); `dev` keeps its name, so that no threshold
    is chosen on it by accident. A table without that column is one split, `full`.

    `source` names the genuine clip that a fake was made from: its `file_name`, the last part of it, or `repo:path` of
    its origin. It is None, and counted in a note, where no row or more than one fits.

    Columns after the common ones, None where the table does not say: `family` (lip sync, face swap, ...), `licence`,
    `repo` and `repo_path` (its origin; the table's column `path`), `train_ok` (whether weights that ship may be trained
    on it), `has_audio`, `system`, `kind` (tts, vc, vocoder, genuine), `pair_id` (recordings of one sentence), `corpus`,
    `orig_rate` (Hz), `orig_seconds`, `orig_codec`. Other columns of the table are not used, and noted.
    """

    BUILDER_CONFIG_CLASS = WildConfig
    PROTOCOLS: ClassVar[dict[str, str]] = {
        "clips": "videos of clips.csv, in its own splits.",
        "speech": "sound files of speech.csv, in its own splits.",
        "photos": "genuine photographs of photos.csv.",
    }
    ONE_SPLIT = ()
    DESCRIPTION = "Real recordings and real deepfakes from many places."
    CORPUS_COLUMNS: ClassVar[dict[str, Any]] = {
        **dict.fromkeys((*_TEXTS[1:], "repo_path"), datasets.Value("string")),
        **dict.fromkeys(_FLAGS, datasets.Value("bool")),
        "orig_rate": datasets.Value("int64"),
        "orig_seconds": datasets.Value("float64"),
    }
    DEALING_COLUMNS = ("split",)

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]. `split` is that of the table, or None."""
        protocol = self.config.name
        if not corpus.metadata:
            found = tables_in(corpus.root)
            raise MetadataError(
                f"{corpus.root} has no {TABLES[protocol]}, which the protocol {protocol} reads; it has "
                f"{' and '.join(TABLES[name] for name in found)}: take the protocol {' or '.join(found)}."
            )
        table = corpus.absolute(corpus.metadata[0])
        header, entries = read_csv(table)
        _check_columns(table, header, _NEEDED[protocol], _KNOWN)
        if unused := sorted(set(header) - set(_KNOWN)):
            self.note(f"unused columns of {corpus.metadata[0]}: {', '.join(unused)}.")
        on_disk = set(corpus.media)
        rows, missing = [], MissingFiles()
        lines: dict[str, str] = {}
        for where, cells in entries:
            path = _relative(cells.get("file_name"), where)
            if path in lines:
                raise MetadataError(f"{where}: {path} is already in {lines[path]}; a file has one row.")
            lines[path] = where
            missing.count(path, path.rpartition("/")[0] or ".", path in on_disk)
            rows.append(
                _row(corpus.absolute(path) if path in on_disk else None, path, where, cells, protocol)
            )
        if not rows:
            raise MetadataError(f"{table} has no rows.")
        self._resolve_sources(rows)
        unlisted = [
            path for path in corpus.media if path not in lines and not self._in_other_table(corpus, path)
        ]
        self.note_unused(unlisted, f"files are not in {corpus.metadata[0]}")
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        without = [row["path"] for row in rows if row["split"] is None]
        if len(without) == len(rows):
            return {FULL_SPLIT: rows}
        if without:
            raise MetadataError(
                f"{len(without):,} of {len(rows):,} rows have no split, such as {without[0]}: give all or none."
            )
        found = {row["split"] for row in rows}
        return {split: [row for row in rows if row["split"] == split] for split in SPLITS if split in found}

    def _in_other_table(self, corpus: Corpus, path: str) -> bool:
        others = [table for name, table in tables_in(corpus.root).items() if name != self.config.name]
        return any(path in _listed_in(corpus.root, table) for table in others)

    def _resolve_sources(self, rows: list[ClipRow]) -> None:
        """Replace each `source` by the `path` of the row that it names, or by None."""
        names: dict[str, list[str]] = {}
        for row in rows:
            for name in {row["path"], row["path"].rpartition("/")[2], f"{row['repo']}:{row['repo_path']}"}:
                names.setdefault(name, []).append(row["path"])
        lost = []
        for row in rows:
            if row["source"] is not None:
                found = names.get(row["source"].removeprefix("./"), [])
                lost += [] if len(found) == 1 else [row["source"]]
                row["source"] = found[0] if len(found) == 1 else None
        if lost:
            self.note(
                f"sources that name no row, or several, are left out: {len(lost):,}, such as {lost[0]}."
            )


def tables_in(folder: str) -> dict[str, str]:
    """Return protocol -> table of the tables that a folder has."""
    return {name: table for name, table in TABLES.items() if os.path.isfile(os.path.join(folder, table))}


def _check_columns(
    table: str, header: Collection[str], needed: Collection[str], known: Collection[str]
) -> None:
    """
    Check the columns of a table.

    Raises:
        [`MetadataError`]: a needed column is missing, or another one looks like a misspelt known one.
    """
    for name in needed:
        if name not in header:
            others = [column for column in header if column not in known]
            raise MetadataError(
                f"{table} has no column {name!r}; it has {', '.join(header) or 'none'}.{nearest(name, others)}"
            )
    for name in header:
        absent = [column for column in known if column not in header]
        # Only likely slips: `frame_rate` is a column of its own, and no misspelt `orig_rate`.
        if name not in known and (meant := difflib.get_close_matches(name, absent, n=1, cutoff=0.8)):
            raise MetadataError(f"{table}: unknown column {name!r}. Did you mean {meant[0]!r}?")


def _listed_in(root: str, table: str) -> set[str]:
    """Return the files that a table names, as far as it can be read: [`Wild.read`] tells what is wrong with it."""
    _, entries = read_csv(os.path.join(root, table))
    return {
        os.path.normpath(name).replace(os.sep, "/")
        for _, cells in entries
        if (name := cells.get("file_name"))
    }


def _join(root: str, path: str) -> str:
    return os.path.join(root, *path.split("/"))


def _relative(name: str | None, where: str) -> str:
    if not name:
        raise MetadataError(f"{where}: no file_name.")
    path = os.path.normpath(name.replace("\\", "/")).replace(os.sep, "/")
    if os.path.isabs(path):
        raise MetadataError(f"{where}: {name!r} must be relative to the folder of the table.")
    return path


def _row(video: str | None, path: str, where: str, cells: dict[str, str], protocol: str) -> ClipRow:
    known = {name: value for name, value in cells.items() if value.casefold() not in _UNKNOWN}
    for old, new in _RENAMED.items():
        if old in known:
            known.setdefault(new, known.pop(old))
    if protocol == "photos":
        known.setdefault("label", "real")
    if "label" not in known:
        raise MetadataError(f"{where}: no label; use real (or 0) and fake (or 1).")
    labels = {
        name: parse_label(known[name], f"{where}, column {name}")
        for name in ("label", "video_label", "audio_label")
        if name in known
    }
    split = known.get("split")
    if split is not None and split not in SPLITS:
        raise MetadataError(
            f"{where}, column split: {split!r} is none of {', '.join(SPLITS)}.{nearest(split, SPLITS)}"
        )
    texts = {name: known.get(name) for name in (*_TEXTS, "repo_path", "language", "identity", "source")}
    if protocol == "speech" and labels["label"] != REAL:
        labels.setdefault("audio_label", labels["label"])
        texts["audio_generator"] = known.get("audio_generator") or texts["system"]
    else:
        texts["audio_generator"] = known.get("audio_generator")
    flags = {name: _flag(known.get(name), f"{where}, column {name}") for name in _FLAGS}
    numbers = {name: _number(known.get(name), f"{where}, column {name}") for name in _NUMBERS}
    numbers["orig_rate"] = None if numbers["orig_rate"] is None else round(numbers["orig_rate"])
    try:
        row = make_row(video, path, split=split, **labels, **texts, **flags, **numbers)
    except MetadataError as error:
        raise MetadataError(f"{where}: {error}") from error
    silent = {"speech": ("video_label", "generator"), "photos": ("audio_label", "audio_generator")}
    return {**row, **dict.fromkeys(silent.get(protocol, ()))}


def _flag(value: str | None, where: str) -> bool | None:
    flags = {None: None, "yes": True, "no": False, "true": True, "false": False, "1": True, "0": False}
    key = None if value is None else value.casefold()
    if key not in flags:
        raise MetadataError(f"{where}: {value!r} is neither yes nor no.")
    return flags[key]


def _number(value: str | None, where: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < MOST:
        raise MetadataError(f"{where}: {value!r} is no number from 0 to {MOST:g}.")
    return number

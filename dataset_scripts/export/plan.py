"""Plan an export: store each clip once, in files that belong to a split entirely or not at all.

The YAML of a dataset repository can only assign whole files to a split. The clips are therefore grouped into cells: a
cell has the clips that go the same way in every protocol, and its code has one letter per protocol. A split of a
protocol is then all files with a given letter at that protocol's place: one pattern, and no clip is stored twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets

from .. import BUILDERS, register
from ..builder import CorpusBuilder
from ..errors import CorpusError, CorpusWarning, MissingFilesError, nearest
from ..files import MOST_CELL
from ..schema import ClipRow

MANY_CELLS = 2000  # above this, a warning names the protocol that causes most of them
_MOST_FILES = 10_000  # the Hub's limit for one folder
_PARQUET_CLIP = MOST_CELL  # limit of one cell of a Parquet column
_LETTERS = {(): "x", ("train",): "t", ("validation",): "v", ("test",): "e", ("full",): "f"}
_MORE_LETTERS = "abcdghijklmnopqrsuwyz"

Way = tuple[str, ...]
"""The splits of one protocol that a clip is in; nearly always one."""


class ExportError(CorpusError, ValueError):
    """A dataset cannot be exported or pushed as asked; the message says what to change."""


@dataclass
class StoredClip:
    """A clip that an export stores: its row and its media files.

    Attributes:
        row (`dict`): The builder's row, with absolute paths.
        ways (`dict[str, Way]`): Protocol -> splits it is in; protocols that leave it out are absent.
        sizes (`tuple[int, ...]`): Bytes of its files; empty if one cannot be read.
        unreadable (`str`, *optional*): The reason why it cannot be exported.
        key (`str`): Its name in a tar file.
    """

    row: ClipRow
    ways: dict[str, Way] = field(default_factory=dict)
    sizes: tuple[int, ...] = ()
    unreadable: str | None = None
    key: str = ""

    @property
    def files(self) -> dict[str, str]:
        """Column -> absolute path of its file."""
        return {column: self.row[column] for column in ("video", "audio") if self.row[column] is not None}


@dataclass
class Protocol:
    """An exported protocol: its name, its description, and its splits in the builder's order."""

    name: str
    description: str
    splits: list[str]


@dataclass
class Shard:
    """A file to write: its name without suffix, and its clips."""

    name: str
    clips: list[StoredClip]


@dataclass
class Plan:
    """The content of an export.

    Attributes:
        builder ([`CorpusBuilder`]): The builder of the default protocol, or of the first exported one.
        protocols (`list[Protocol]`): The exported protocols.
        refused (`dict[str, str]`): Protocol that this copy does not allow -> the reason.
        notes (`list[str]`): The builder's notes on this copy.
        missing (`list[str]`): Files that the metadata list but that are not on disk.
        clips (`list[StoredClip]`): All clips, including unreadable ones.
        letters (`dict[Way, str]`): Letters of the codes; empty for a single protocol, whose codes are the split names.
        cells (`dict[str, int]`): Code -> number of readable clips.
        shards (`list[Shard]`): The files, in order of their names.
    """

    builder: CorpusBuilder
    protocols: list[Protocol]
    refused: dict[str, str]
    notes: list[str]
    missing: list[str]
    clips: list[StoredClip]
    letters: dict[Way, str] = field(default_factory=dict)
    cells: dict[str, int] = field(default_factory=dict)
    shards: list[Shard] = field(default_factory=list)

    @property
    def features(self) -> datasets.Features:
        """The builder's columns, with `audio` as embedded sound instead of a path."""
        return datasets.Features({**self.builder.info.features, "audio": datasets.Audio()})

    def code(self, clip: StoredClip) -> str:
        """Return the code of a clip's cell."""
        ways = [clip.ways.get(protocol.name, ()) for protocol in self.protocols]
        return "".join(self.letters[way] for way in ways) if self.letters else "-".join(ways[0])

    def patterns(self, protocol: Protocol, split: str) -> list[str]:
        """Return patterns that match the codes of a split's cells; nearly always one."""
        readable = (clip for clip in self.clips if clip.unreadable is None)
        ways = sorted({c.ways[protocol.name] for c in readable if split in c.ways.get(protocol.name, ())})
        if not self.letters:
            return ["-".join(way) for way in ways]
        place = self.protocols.index(protocol)
        after = len(self.protocols) - place - 1
        return ["?" * place + self.letters[way] + "?" * after for way in ways]

    def fingerprints(self) -> dict[str, str]:
        """Hash the rows with their splits, and the sizes of their files, but not the place of the corpus."""
        rows, media = hashlib.sha256(), hashlib.sha256()
        for clip in sorted(self.clips, key=_place):
            rows.update(f"{_content(clip.row)} {sorted(clip.ways.items())}\n".encode())
            media.update(f"{clip.row['path']} {clip.sizes} {clip.unreadable is None}\n".encode())
        features = json.dumps(self.features.to_dict(), sort_keys=True)
        rows.update(features.encode())
        return {"rows": rows.hexdigest(), "media": media.hexdigest()}


def make_plan(
    dataset: str,
    data_dir: str,
    protocols: Sequence[str] | None,
    max_shard_bytes: int,
    format: str,
    config: Mapping[str, Any],
) -> Plan:
    """Read a dataset and assign its clips to files. No media file is opened.

    Args:
        dataset (`str`): A name of `dataset_scripts.BUILDERS`.
        data_dir (`str`): Folder of the corpus.
        protocols (`Sequence[str]`, *optional*): Protocols to export. By default all that this copy allows.
        max_shard_bytes (`int`): Media bytes of one file.
        format (`str`): `parquet` or `webdataset`.
        config (`Mapping[str, Any]`): Settings of the builder.

    Raises:
        [`ExportError`]: the dataset or a protocol is unknown, or a clip is too large for the format.
        [`CorpusError`]: the builder fails. The error of a single protocol is raised only if it was asked for.
    """
    plan = _read(dataset, data_dir, protocols, config)
    for clip in plan.clips:
        _measure(clip, format)
    if len(plan.protocols) > 1:
        plan.letters = _letters({clip.ways.get(p.name, ()) for clip in plan.clips for p in plan.protocols})
    _name(dataset, plan.clips)
    cells: dict[str, list[StoredClip]] = {}
    for clip in sorted((clip for clip in plan.clips if clip.unreadable is None), key=_place):
        cells.setdefault(plan.code(clip), []).append(clip)
    for code in sorted(cells):
        plan.cells[code] = len(cells[code])
        packed = _pack(cells[code], max_shard_bytes)
        plan.shards += [
            Shard(f"{code}-{number:05d}-of-{len(packed):05d}", clips) for number, clips in enumerate(packed)
        ]
    _advise(plan)
    return plan


def _read(dataset: str, data_dir: str, protocols: Sequence[str] | None, config: Mapping[str, Any]) -> Plan:
    if dataset not in BUILDERS:
        raise ExportError(
            f"There is no dataset {dataset!r}.{nearest(dataset, BUILDERS)} Known are {', '.join(BUILDERS)}."
        )
    register()
    first = _builder(dataset, None, data_dir, config)
    known = list(first.builder_configs)
    for name in protocols or ():
        if name not in known:
            raise ExportError(
                f"{dataset} has no protocol {name!r}.{nearest(name, known)} It has {', '.join(known)}."
            )
    reading = _Reading()
    for name in dict.fromkeys(protocols or known):
        builder = _builder(dataset, name, data_dir, config)
        try:
            reading.add(builder)
        except MissingFilesError:
            raise
        except CorpusError as error:
            if protocols:
                raise
            reading.refuse(name, error, data_dir)
    return reading.plan(first.config.name)


@dataclass
class _Reading:
    """The protocols of a dataset, read one after another. Clips that two protocols describe alike become one."""

    found: dict[str, CorpusBuilder] = field(default_factory=dict)
    splits: dict[str, list[str]] = field(default_factory=dict)
    clips: dict[bytes, StoredClip] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    failure: CorpusError | None = None

    def add(self, builder: CorpusBuilder) -> None:
        """Read the protocol of a builder."""
        name = builder.config.name
        before = _written(builder.missing_files)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            generators = builder._split_generators(None)
        hide = {builder.missing_files: "missing_files.txt", **_hidden(builder.config.data_dir)}
        for warning in caught:
            if issubclass(warning.category, CorpusWarning):
                message = str(warning.message).removeprefix(f"{builder.dataset_name}: ")
                self.notes[_without(message, hide)] = None
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        if _written(builder.missing_files) != before:
            with open(builder.missing_files, encoding="utf-8") as file:
                self.missing.update(dict.fromkeys(file.read().splitlines()))
        self.found[name] = builder
        self.splits[name] = [generator.name for generator in generators]
        for generator in generators:
            for _, row in builder._generate_examples(**generator.gen_kwargs):
                key = hashlib.sha256(_content(row).encode()).digest()
                clip = self.clips.setdefault(key, StoredClip(row))
                clip.ways[name] = (*clip.ways.get(name, ()), str(generator.name))

    def refuse(self, protocol: str, error: CorpusError, data_dir: str) -> None:
        """Leave out a protocol that this copy does not allow."""
        self.failure = self.failure or error
        self.refused[protocol] = _without(str(error), _hidden(data_dir))

    def plan(self, default: str) -> Plan:
        """Return the plan, without files yet; `default` is the default protocol of the dataset."""
        if self.failure is not None and not self.found:
            raise self.failure
        chosen = self.found.get(default, next(iter(self.found.values())))
        strange = [n for n, builder in self.found.items() if builder.info.features != chosen.info.features]
        if strange:
            raise ExportError(
                f"{chosen.dataset_name}: the protocols {', '.join(strange)} have other columns than "
                f"{chosen.config.name}: export them into a folder of their own, with `protocols`."
            )
        return Plan(
            builder=chosen,
            protocols=[
                Protocol(name, builder.config.description or "", self.splits[name])
                for name, builder in self.found.items()
            ],
            refused=self.refused,
            notes=list(self.notes),
            missing=list(self.missing),
            clips=list(self.clips.values()),
        )


def _builder(dataset: str, protocol: str | None, data_dir: str, config: Mapping[str, Any]) -> CorpusBuilder:
    try:
        return datasets.load_dataset_builder(dataset, protocol, data_dir=data_dir, **config)
    except CorpusError:
        raise
    except (TypeError, ValueError) as error:  # a setting that this builder does not have, or a wrong value
        raise ExportError(f"{dataset}: {error}") from error


def _written(path: str) -> int | None:
    return os.stat(path).st_mtime_ns if os.path.isfile(path) else None


def _hidden(data_dir: str) -> dict[str, str]:
    return {os.path.abspath(os.path.expanduser(data_dir)): "."}


def _without(message: str, hide: Mapping[str, str]) -> str:
    """Replace paths of this machine, which do not belong into a card."""
    for path, shown in hide.items():
        message = message.replace(path, shown)
    return message


def _content(row: ClipRow) -> str:
    """Return the identity of a row as text: all columns, but not the place of its files."""
    plain = {name: value for name, value in row.items() if name not in ("video", "audio")}
    sound = None if row["audio"] is None else os.path.basename(row["audio"])
    return json.dumps([plain, sound], sort_keys=True, default=str)


def _place(clip: StoredClip) -> tuple[bytes, str]:
    """Return the sort key of a clip: a hash of its path, which mixes classes and people for streaming readers."""
    return hashlib.sha256(clip.row["path"].encode(errors="surrogateescape")).digest(), _content(clip.row)


def _measure(clip: StoredClip, format: str) -> None:
    sizes = []
    for path in clip.files.values():
        try:
            sizes.append(os.stat(path).st_size)
        except OSError as error:
            clip.unreadable = error.strerror or type(error).__name__
            return
        if not sizes[-1]:
            clip.unreadable = "empty file"
        if format == "parquet" and sizes[-1] > _PARQUET_CLIP:
            raise ExportError(
                f"{path} has {sizes[-1]:,} bytes, too many for Parquet: take format='webdataset'."
            )
    clip.sizes = tuple(sizes)


def _name(dataset: str, clips: list[StoredClip]) -> None:
    """Give each clip a key: the dataset and the path without suffix, and without dots, which end a WebDataset key.

    The dataset comes first because `datasets` reads a file of the working directory instead of a tar member of the same
    name. Clips that would share a key, also ignoring case, get a hash of their row as well.
    """
    for clip in clips:
        folder, _, name = clip.row["path"].rpartition("/")
        stem = os.path.splitext(name)[0].replace(".", "_")
        clip.key = "/".join(part for part in (dataset, folder, stem) if part)
    counts = Counter(clip.key.casefold() for clip in clips)
    for clip in clips:
        if counts[clip.key.casefold()] > 1:
            clip.key += f"-{hashlib.sha256(_content(clip.row).encode()).hexdigest()[:12]}"


def _letters(ways: set[Way]) -> dict[Way, str]:
    letters = {way: _LETTERS[way] for way in ways if way in _LETTERS}
    others = sorted(ways - letters.keys())
    if len(others) > len(_MORE_LETTERS):
        raise ExportError(
            f"{len(others)} names or combinations of splits are too many for one folder: choose `protocols`."
        )
    return {**letters, **dict(zip(others, _MORE_LETTERS, strict=False))}


def _pack(clips: list[StoredClip], max_shard_bytes: int) -> list[list[StoredClip]]:
    """Fill one file after another. A clip larger than a file gets its own."""
    packed: list[list[StoredClip]] = []
    filled = 0
    for clip in clips:
        size = sum(clip.sizes)
        if not packed or filled + size > max_shard_bytes:
            packed.append([])
            filled = 0
        packed[-1].append(clip)
        filled += size
    return packed


def _advise(plan: Plan) -> None:
    """Warn of too many cells or files."""
    dataset = plan.builder.dataset_name
    if len(plan.cells) > MANY_CELLS:
        fewer = {
            p.name: len({code[:place] + code[place + 1 :] for code in plan.cells})
            for place, p in enumerate(plan.protocols)
        }
        name = min(fewer, key=lambda name: fewer[name])
        warnings.warn(
            f"{dataset}: the {len(plan.protocols)} protocols cut the {len(plan.clips):,} clips into "
            f"{len(plan.cells):,} cells, each of one file or more. Choose with `protocols`: without {name} there are "
            f"{fewer[name]:,}.",
            CorpusWarning,
            stacklevel=2,
        )
    if len(plan.shards) > _MOST_FILES:
        warnings.warn(
            f"{dataset}: {len(plan.shards):,} files; the Hub takes {_MOST_FILES:,} in a folder. Choose fewer protocols, "
            "or a larger max_shard_bytes.",
            CorpusWarning,
            stacklevel=2,
        )

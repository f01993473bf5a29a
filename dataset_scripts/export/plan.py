"""What an export will hold: the clips of all protocols, each once, in files that belong to a split whole or not at all.

The YAML of a dataset repository can only give whole files to a split. The clips are therefore grouped into cells: a
cell is the set of clips that go the same way in every protocol, named by a code with one letter for each protocol. A
split of a protocol is then all files with a given letter at that protocol's place: one pattern, and no clip twice.
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
from ..schema import ClipRow

MANY_CELLS = 2000  # from here on the user is told which protocol makes most of them
_MOST_FILES = 10_000  # files that the Hub takes in one folder
_PARQUET_CLIP = 2**31 - 1  # bytes in one cell of a Parquet column of type `binary`
_LETTERS = {(): "x", ("train",): "t", ("validation",): "v", ("test",): "e", ("full",): "f"}
_MORE_LETTERS = "abcdghijklmnopqrsuwyz"

Way = tuple[str, ...]  # the splits of one protocol that a clip is in; nearly always one


class ExportError(CorpusError, ValueError):
    """A dataset that cannot be exported or pushed as asked; the message says what to change."""


@dataclass
class Clip:
    """One row with its media.

    Attributes:
        row (`dict`): As the builder gives it, with absolute paths.
        sizes (`tuple[int, ...]`): Bytes of its files, as far as they can be read; see `unreadable`.
        ways (`dict[str, Way]`): Protocol -> splits it is in; protocols that leave it out are absent.
        unreadable (`str`, *optional*): Why it cannot be exported.
        key (`str`): Its name in a tar file.
    """

    row: ClipRow
    ways: dict[str, Way] = field(default_factory=dict)
    sizes: tuple[int, ...] = ()
    unreadable: str | None = None
    key: str = ""

    @property
    def files(self) -> dict[str, str]:
        """Column -> absolute path of the file it stands for."""
        return {column: self.row[column] for column in ("video", "audio") if self.row[column] is not None}


@dataclass
class Protocol:
    """A protocol that is exported: its name, what it is, and its splits in the builder's order."""

    name: str
    description: str
    splits: list[str]


@dataclass
class Shard:
    """A file to write: its name without suffix, and its clips."""

    name: str
    clips: list[Clip]


@dataclass
class Plan:
    """What an export will hold.

    Attributes:
        builder ([`CorpusBuilder`]): That of the default protocol, or of the first exported one.
        protocols (`list[Protocol]`): Those exported.
        refused (`dict[str, str]`): Protocol that this copy does not allow -> why.
        notes (`list[str]`): What the builder says about this copy.
        missing (`list[str]`): Files that the metadata name but the disk does not have.
        clips (`list[Clip]`): All clips, those that cannot be read included.
        letters (`dict[Way, str]`): Of the codes; empty with one protocol, whose codes are the split names.
        cells (`dict[str, int]`): Code -> readable clips.
        shards (`list[Shard]`): The files, in order of their names.
    """

    builder: CorpusBuilder
    protocols: list[Protocol]
    refused: dict[str, str]
    notes: list[str]
    missing: list[str]
    clips: list[Clip]
    letters: dict[Way, str] = field(default_factory=dict)
    cells: dict[str, int] = field(default_factory=dict)
    shards: list[Shard] = field(default_factory=list)

    @property
    def features(self) -> datasets.Features:
        """The builder's columns; sound files are embedded like the clips, so `audio` is no path any more."""
        return datasets.Features({**self.builder.info.features, "audio": datasets.Audio()})

    def code(self, clip: Clip) -> str:
        """Name of the clip's cell."""
        ways = [clip.ways.get(protocol.name, ()) for protocol in self.protocols]
        return "".join(self.letters[way] for way in ways) if self.letters else "-".join(ways[0])

    def patterns(self, protocol: Protocol, split: str) -> list[str]:
        """Patterns of the codes of a split's cells; nearly always one."""
        readable = (clip for clip in self.clips if clip.unreadable is None)
        ways = sorted({c.ways[protocol.name] for c in readable if split in c.ways.get(protocol.name, ())})
        if not self.letters:
            return ["-".join(way) for way in ways]
        place = self.protocols.index(protocol)
        after = len(self.protocols) - place - 1
        return ["?" * place + self.letters[way] + "?" * after for way in ways]

    def fingerprints(self) -> dict[str, str]:
        """Hashes of the rows with their splits, and of the sizes of their files; where the corpus lies is left out."""
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
    """Read a dataset and decide which clip goes to which file. No media file is opened.

    Raises:
        [`ExportError`]: the dataset or a protocol is not known, or a clip is too large for the format.
        [`CorpusError`]: what the builder raises; for a single protocol only if that one was asked for.
    """
    plan = _read(dataset, data_dir, protocols, config)
    for clip in plan.clips:
        _measure(clip, format)
    if len(plan.protocols) > 1:
        plan.letters = _letters({clip.ways.get(p.name, ()) for clip in plan.clips for p in plan.protocols})
    _name(dataset, plan.clips)
    cells: dict[str, list[Clip]] = {}
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
    wanted = list(dict.fromkeys(protocols or known))
    found: dict[str, CorpusBuilder] = {}
    refused: dict[str, str] = {}
    failure: CorpusError | None = None
    splits: dict[str, list[str]] = {}
    clips: dict[bytes, Clip] = {}
    notes: dict[str, None] = {}
    missing: dict[str, None] = {}
    for name in wanted:
        builder = _builder(dataset, name, data_dir, config)
        hide = {
            builder.missing_files: "missing_files.txt",
            os.path.abspath(os.path.expanduser(data_dir)): ".",
        }
        before = _written(builder.missing_files)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                generators = builder._split_generators(None)
            except MissingFilesError:
                raise
            except CorpusError as error:
                if protocols:
                    raise
                failure = failure or error
                refused[name] = _without(str(error), hide)
                continue
        for warning in caught:
            if not issubclass(warning.category, CorpusWarning):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
                continue
            notes[_without(str(warning.message).removeprefix(f"{dataset}: "), hide)] = None
        if _written(builder.missing_files) != before:
            with open(builder.missing_files, encoding="utf-8") as file:
                missing.update(dict.fromkeys(file.read().splitlines()))
        found[name] = builder
        splits[name] = [generator.name for generator in generators]
        for generator in generators:
            for _, row in builder._generate_examples(**generator.gen_kwargs):
                clip = clips.setdefault(hashlib.sha256(_content(row).encode()).digest(), Clip(row))
                clip.ways[name] = (*clip.ways.get(name, ()), str(generator.name))
    if failure is not None and not found:
        raise failure
    chosen = found.get(first.config.name, next(iter(found.values())))
    strange = [name for name, builder in found.items() if builder.info.features != chosen.info.features]
    if strange:
        raise ExportError(
            f"{dataset}: the protocols {', '.join(strange)} have other columns than {chosen.config.name}: export them "
            "into a folder of their own, with `protocols`."
        )
    return Plan(
        builder=chosen,
        protocols=[Protocol(n, b.config.description or "", splits[n]) for n, b in found.items()],
        refused=refused,
        notes=list(notes),
        missing=list(missing),
        clips=list(clips.values()),
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


def _without(message: str, hide: Mapping[str, str]) -> str:
    """Where things lie on this machine is nobody's business."""
    for path, shown in hide.items():
        message = message.replace(path, shown)
    return message


def _content(row: ClipRow) -> str:
    """What makes two rows the same clip: all columns, wherever the files lie."""
    plain = {name: value for name, value in row.items() if name not in ("video", "audio")}
    sound = None if row["audio"] is None else os.path.basename(row["audio"])
    return json.dumps([plain, sound], sort_keys=True, default=str)


def _place(clip: Clip) -> tuple[bytes, str]:
    """Order of clips: by a hash of their path, which mixes classes and people for readers of a stream."""
    return hashlib.sha256(clip.row["path"].encode(errors="surrogateescape")).digest(), _content(clip.row)


def _measure(clip: Clip, format: str) -> None:
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


def _name(dataset: str, clips: list[Clip]) -> None:
    """Give each clip a key: the dataset and its path without suffix, and without dots, which end a key in WebDataset.

    The dataset stands first because `datasets` takes the bytes of a tar file for those of a file of the same name in
    the working directory, should there be one. Clips that would share a key (also when case is ignored) get a hash of their row as well.
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


def _pack(clips: list[Clip], max_shard_bytes: int) -> list[list[Clip]]:
    """Fill files one after the other; a clip larger than a file has one of its own."""
    packed: list[list[Clip]] = []
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
    dataset = plan.builder.dataset_name
    if len(plan.cells) > MANY_CELLS:
        fewer = {
            p.name: len({code[:place] + code[place + 1 :] for code in plan.cells})
            for place, p in enumerate(plan.protocols)
        }
        name = min(fewer, key=lambda name: fewer[name])
        warnings.warn(
            f"{dataset}: the {len(plan.protocols)} protocols cut the {len(plan.clips):,} clips into "
            f"{len(plan.cells):,} cells, each a file or more. Choose with `protocols`: without {name} there are "
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

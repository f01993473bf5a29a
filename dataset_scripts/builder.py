"""The base of all corpus builders: one configuration per protocol, one table of rows.

A corpus says where its metadata and media are (`CorpusConfig.metadata_in`, `media_in`), turns the metadata into rows
(`CorpusBuilder.read`) and assigns the rows to splits (`CorpusBuilder.deal`). The base does the rest: it finds the
folder, accounts for missing files, warns, and yields the rows. Media stay where they are: a table holds paths.

`datasets` caches the table. The cache key covers the corpus folder, the content of its metadata files, the names of its
media files, the configuration and the source of the builders, so that completing a download or correcting a label
takes effect at the next `load_dataset`. Media files are not opened.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import datasets
from datasets.builder import Key

from .corpus import VIDEO_SUFFIXES, Corpus, MissingFiles, find_root, scan_files
from .demonstration import is_demonstration
from .errors import CorpusWarning, MissingFilesError, ProtocolError
from .files import sha256_of
from .protocol_lists import Labels, ProtocolList, choose_list, deal_as_listed
from .schema import FAKE, TABLE, ClipRow
from .splits import FULL_SPLIT
from .text_files import is_text, readable

EVERY_CLIP = {"all": f"every clip in one split, `{FULL_SPLIT}`."}
"""The protocol that most corpora have besides their own."""

_SHARD_ROWS = (
    256  # rows per shard, the unit that `num_proc` and the workers of a streaming `DataLoader` share out
)
_NOTES = "\n\nNotes on this copy:\n- "


@dataclass
class CorpusConfig(datasets.BuilderConfig):
    """Settings that every corpus has.

    Attributes:
        max_missing (`float`, defaults to 0.01):
            Share of the corpus' files that may be missing on disk before loading is an error. Rows of missing files
            are left out, counted in a [`CorpusWarning`] and listed in a file.
        missing_files (`str`, *optional*):
            Where to list them. Defaults to `missing_files.txt` in the cache folder of the dataset; the warning and
            the error name it.
        protocol_list (`str`, *optional*):
            JSON file with a frozen list of clips, see [`protocol_lists`], whose splits replace those of the protocol.
    """

    CORPUS: ClassVar[str] = ""  # its name, for messages
    LOOKED_FOR: ClassVar[str] = ""  # what its folder holds, for messages
    SUFFIXES: ClassVar[tuple[str, ...]] = VIDEO_SUFFIXES

    max_missing: float = 0.01
    missing_files: str | None = None
    protocol_list: str | None = None

    def locate(self) -> Corpus:
        """Find the corpus on disk.

        Raises:
            [`CorpusNotFoundError`]: `data_dir` does not hold it.
        """
        root = find_root(self.data_dir, self.CORPUS, self.LOOKED_FOR, self.holds)
        return Corpus(root, self.metadata_in(root), *self.media_in(root))

    def holds(self, folder: str) -> bool:
        """Return whether a folder is the corpus: by default, whether it has metadata."""
        return bool(self.metadata_in(folder))

    def metadata_in(self, folder: str) -> list[str]:
        """Return the relative paths of the metadata files in a folder."""
        raise NotImplementedError

    def media_in(self, root: str) -> tuple[list[str], int]:
        """Return the relative paths of the media, and the number of other files; see [`scan_files`]."""
        return scan_files(root, self.SUFFIXES)

    def create_config_id(
        self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None
    ) -> str:
        """Name the cache folder after the settings and the state of the corpus, see [`Corpus.fingerprint`]."""
        if not 0 <= self.max_missing <= 1:
            raise ValueError(f"max_missing is a share of all files, from 0 to 1, got {self.max_missing}")
        self.data_files = None  # `datasets` sets it for every packaged builder; there are none here
        kwargs = {name: value for name, value in config_kwargs.items() if name != "data_files"}
        if self.protocol_list is not None:
            if not os.path.isfile(self.protocol_list):
                raise ProtocolError(f"protocol_list {self.protocol_list} is no file.")
            kwargs["protocol_list"] = sha256_of(self.protocol_list)
        if self.data_dir:
            kwargs["fingerprint"] = self.locate().fingerprint()
        return super().create_config_id(kwargs, custom_features)


@dataclass
class SeededConfig(CorpusConfig):
    """Settings of a corpus with splits that are drawn at random.

    Attributes:
        seed (`int`, defaults to 0):
            Seed of these splits. Published splits do not depend on it.
    """

    seed: int = 0


class CorpusBuilder(datasets.GeneratorBasedBuilder):
    """A builder for media that are already on disk; a corpus implements `read` and `deal`.

    `PROTOCOLS` lists the configurations, name -> description; the first one is the default.
    """

    BUILDER_CONFIG_CLASS = CorpusConfig
    VERSION = "1.0.0"
    PROTOCOLS: ClassVar[dict[str, str]] = {}
    ONE_SPLIT: ClassVar[tuple[str, ...]] = ("all",)  # protocols that put every row into `full`
    DESCRIPTION: ClassVar[str] = ""
    HOMEPAGE: ClassVar[str] = ""
    LICENSE: ClassVar[str] = ""  # the Hub's identifier, if the corpus has such a licence
    CORPUS_COLUMNS: ClassVar[dict[str, Any]] = {}
    DEALING_COLUMNS: ClassVar[tuple[str, ...]] = ()  # columns of `read` that only `deal` needs; then dropped
    GROUP_COLUMNS: ClassVar[tuple[str, ...]] = ()  # corpus columns by which an evaluation breaks results down

    _built = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "PROTOCOLS" in vars(cls):
            cls.BUILDER_CONFIGS = [
                cls.BUILDER_CONFIG_CLASS(name=name, version=cls.VERSION, description=description)
                for name, description in cls.PROTOCOLS.items()
            ]
            cls.DEFAULT_CONFIG_NAME = next(iter(cls.PROTOCOLS))

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """Turn the metadata into rows. A row whose files are missing has None for `video`.

        Such a row takes part in `deal`, so that a missing file moves no other clip to another split, and is left out
        afterwards.
        """
        raise NotImplementedError

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """Assign the rows to the splits of the protocol `self.config.name`; within a split, a `path` occurs once.

        Not called for the protocols of `ONE_SPLIT`.
        """
        raise NotImplementedError

    def list_clips(self) -> dict[str, Labels]:
        """
        Return split -> path -> label as the metadata list the clips, whether their files are on disk or not.

        Nothing is cached, and no media file is opened. A corpus without metadata lists the files of its folder.
        """
        rows, _ = self.read(self.config.locate())
        frozen = self.frozen_list()
        dealt = self._dealt(rows) if frozen is None else deal_as_listed(rows, frozen)[0]
        return {
            split: {readable(row["path"]): row["label"] for row in members}
            for split, members in dealt.items()
            if members
        }

    def frozen_list(self) -> ProtocolList | None:
        """Return the list that replaces the protocol's splits, if one was given. See [`choose_list`] for the errors."""
        if self.config.protocol_list is None:
            return None
        return choose_list(self.config.protocol_list, self.dataset_name, self.config.name)

    @property
    def missing_files(self) -> str:
        """Path of the list of missing files."""
        default = os.path.join(self._folder, "missing_files.txt")
        return os.path.abspath(os.path.expanduser(self.config.missing_files or default))

    @property
    def _folder(self) -> str:
        """The folder of the table in the cache."""
        folder = os.path.join(self._cache_dir_root, self._relative_data_dir(with_version=False))
        return os.path.abspath(os.path.expanduser(folder))

    def note(self, message: str) -> None:
        """Warn, and add the message to `info.description`, so that a table read from the cache still has it."""
        message = readable(message)
        separator = "\n- " if _NOTES in self.info.description else _NOTES
        self.info.description += separator + message
        warnings.warn(f"{self.dataset_name}: {message}", CorpusWarning, stacklevel=3)

    def note_unused(self, files: Sequence[str], what: str) -> None:
        """Note that files are not used, if there are any: `what` says which they are and why."""
        if files:
            self.note(f"{len(files):,} {what} and are not used, such as {', '.join(files[:3])}.")

    def note_unlisted(
        self, corpus: Corpus, listed: Collection[str], where: str, kind: str = "mp4 files"
    ) -> None:
        """Note the media that are not among `listed`: the files that the metadata, `where`, list."""
        unlisted = [file for file in corpus.media if file not in listed]
        self.note_unused(unlisted, f"{kind} in {corpus.root} are not in {where}")

    def note_size(self, found: str, known: str) -> None:
        """Note that this copy differs in size from the corpus."""
        self.note(
            f"{found}, not the known {known}: numbers from this copy may not be comparable with published ones."
        )

    def note_sourceless(self, rows: Sequence[ClipRow], why: str) -> None:
        """Note the number of fakes without `source`, if there are any."""
        sourceless = sum(row["label"] == FAKE and row["source"] is None for row in rows)
        if sourceless:
            self.note(f"{sourceless:,} fakes have no source: {why}.")

    def as_dataset(self, *args: Any, **kwargs: Any) -> Any:
        """See [`datasets.DatasetBuilder.as_dataset`]; repeats the notes of a table that comes from the cache."""
        if not self._built and _NOTES in self.info.description:
            for message in self.info.description.split(_NOTES)[1].split("\n- "):
                warnings.warn(f"{self.dataset_name}: {message}", CorpusWarning, stacklevel=2)
        return super().as_dataset(*args, **kwargs)

    def _info(self) -> datasets.DatasetInfo:
        protocol = (
            f" Protocol {self.config.name}: {self.config.description}" if self.config.description else ""
        )
        return datasets.DatasetInfo(
            description=self.DESCRIPTION + protocol,
            homepage=self.HOMEPAGE,
            features=datasets.Features({**TABLE, **self.CORPUS_COLUMNS}),
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        self._built = True
        self.info.description = self.info.description.split(_NOTES)[0]
        if is_demonstration(self.config.data_dir):
            self.note("these are drawn clips of the demonstration benchmark in the layout of the corpus.")
        rows, missing = self.read(self.config.locate())
        self._name_in_text(rows)
        frozen = self.frozen_list()
        if frozen is None:
            self._check_missing(missing)
            dealt = self._dealt(rows)
        else:
            dealt, missing, unlisted = deal_as_listed(rows, frozen)
            self._check_missing(missing)
            if unlisted:
                self.note(f"{unlisted:,} clips of this copy are not on the list {frozen.reference}.")
        for row in rows:
            for column in self.DEALING_COLUMNS:
                row.pop(column, None)
        generators = []
        for split, dealt_rows in dealt.items():
            members = [row for row in dealt_rows if row["video"] is not None]
            if not members and split == "validation":
                self.note(
                    f"protocol {self.config.name} has no validation split: this copy is too small for one."
                )
                continue
            if not members:
                raise ProtocolError(
                    f"{self.dataset_name}: protocol {self.config.name} leaves the {split} split empty: this copy "
                    f"has {len(rows):,} clips. Take another protocol, or a larger part of the corpus."
                )
            shards = [members[i : i + _SHARD_ROWS] for i in range(0, len(members), _SHARD_ROWS)]
            generators.append(datasets.SplitGenerator(name=split, gen_kwargs={"shards": shards}))
        return generators

    def _dealt(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        return {FULL_SPLIT: rows} if self.config.name in self.ONE_SPLIT else self.deal(rows)

    def _name_in_text(self, rows: Sequence[ClipRow]) -> None:
        """
        Give files whose names are not UTF-8 a name that a table can hold: a link beside the table, named by its hash.

        The other columns show the foreign bytes as `\\xb0`.
        """
        links = os.path.join(self._folder, "links")
        renamed = []
        for row in rows:
            for column, value in row.items():
                if not isinstance(value, str) or is_text(value):
                    continue
                if column in ("video", "audio"):
                    name = hashlib.sha256(os.fsencode(value)).hexdigest()[:16]
                    row[column] = os.path.join(links, name + readable(os.path.splitext(value)[1]))
                    os.makedirs(links, exist_ok=True)
                    if not os.path.lexists(row[column]):
                        os.symlink(value, row[column])
                    renamed.append(readable(value))
                else:
                    row[column] = readable(value)
        if renamed:
            self.note(
                f"{len(renamed):,} files have names that are not UTF-8, such as {renamed[0]}: they are read by links in "
                f"{links}."
            )

    def _check_missing(self, missing: MissingFiles) -> None:
        if not missing.paths:
            return
        listing = self.missing_files
        os.makedirs(os.path.dirname(listing), exist_ok=True)
        with open(listing, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(f"{path}\n" for path in missing.paths)
        if len(missing.paths) > self.config.max_missing * missing.total:
            raise MissingFilesError(
                f"{self.dataset_name}: {missing.summary()} That is more than max_missing={self.config.max_missing:g} "
                f"allows. They are listed in {listing}. Complete the download, or pass a larger max_missing."
            )
        self.note(f"{missing.summary()} Their rows are left out; they are listed in {listing}.")

    def _generate_examples(self, shards: list[list[ClipRow]]) -> Iterator[tuple[Key, ClipRow]]:
        for shard, rows in enumerate(shards):
            for position, row in enumerate(rows):
                yield Key(shard, position), row

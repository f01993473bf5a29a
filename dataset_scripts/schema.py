"""What every corpus builder here shares: the columns, the labels, the splits, and the account of missing files.

A builder locates its corpus (`CorpusConfig.locate`), turns its metadata into rows (`CorpusBuilder.read`) and deals the
rows to splits (`CorpusBuilder.deal`); this module does the rest. Media stay where they are: a table holds paths.

The cached table of `datasets` depends on the corpus folder, the content of its metadata files, the names of its media
files, the configuration and the builder's source. All five are part of the cache key, so that completing a download
or correcting a label is seen at the next `load_dataset`. Media files are not opened.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import datasets
from datasets.builder import Key

from .demonstration import is_demonstration

LABELS = ["real", "fake"]  # fake = 1 everywhere
REAL, FAKE = 0, 1
FULL_SPLIT = "full"  # the one split of a corpus that is not split ("all" is a reserved word of `datasets`)
VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".mpeg", ".mpg", ".m4v")

_TABLE = {
    "video": datasets.Video(),  # the clip, stored as its absolute path
    "audio": datasets.Value(
        "string"
    ),  # absolute path of a separate sound file; None: the sound is in the clip
    "label": datasets.ClassLabel(names=LABELS),  # fake if any part of sound or picture is
    "video_label": datasets.ClassLabel(names=LABELS),  # None where unknown
    "audio_label": datasets.ClassLabel(names=LABELS),  # None where unknown
    "generator": datasets.Value(
        "string"
    ),  # method that made the picture; "real" for a real one, None if unknown
    "audio_generator": datasets.Value("string"),  # the same for the sound
    "language": datasets.Value("string"),  # of the speech, as an ISO 639-1 code where the corpus tells
    "identity": datasets.Value("string"),  # who is seen in the genuine clip; splits by identity use it
    "source": datasets.Value("string"),  # `path` of the genuine clip a fake was made from
    "fake_segments": datasets.List(
        datasets.List(datasets.Value("float64"))
    ),  # [start, end] in s; None: not annotated
    "path": datasets.Value(
        "string"
    ),  # relative, "/" between folders, unique within a split: the key of predictions
}
FEATURES = datasets.Features(_TABLE)

Row = dict[str, Any]
_K = TypeVar("_K", bound=Hashable)
_SHARD_ROWS = 256  # rows per shard: what `num_proc` and the workers of a streaming `DataLoader` share out
_NOTES = "\n\nNotes on this copy:\n- "
_URL_MARK = "://"


class CorpusError(Exception):
    """Base class of the errors of these builders."""


class CorpusNotFoundError(CorpusError, FileNotFoundError):
    """`data_dir` is not given, does not exist or does not hold the corpus."""


class MetadataError(CorpusError, ValueError):
    """A metadata file or one of its rows cannot be understood."""


class MissingFilesError(CorpusError, FileNotFoundError):
    """More files than `max_missing` allows are in the metadata but not on disk."""


class ProtocolError(CorpusError, ValueError):
    """A split protocol cannot be applied to this copy of the corpus."""


class CorpusWarning(UserWarning):
    """Something about a copy of a corpus that the user should know; also kept in `dataset.info.description`."""


def plain_corpus_warnings() -> None:
    """For command lines: show [`CorpusWarning`] as a sentence, without the place in the code it comes from."""
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, CorpusWarning):
            print(f"warning: {message}", file=sys.stderr)
        else:
            shown(message, category, *rest, **more)

    warnings.showwarning = show


def parse_label(value: Any, where: str) -> int:
    """Read a label: `real` or 0, `fake` or 1 (also as text, in any case).

    Args:
        value (`Any`):
            The label as found.
        where (`str`):
            Row and column, for the error message.

    Raises:
        [`MetadataError`]: the value is none of these. Booleans are refused: they do not say which class is true.
    """
    known = {"real": REAL, "0": REAL, "0.0": REAL, "fake": FAKE, "1": FAKE, "1.0": FAKE}
    label = known.get(str(value).strip().casefold())
    if label is None:
        raise MetadataError(f"{where}: label {value!r} is not known; use real (or 0) and fake (or 1).")
    return label


def make_row(
    video: str | None,
    path: str,
    label: int,
    *,
    audio: str | None = None,
    video_label: int | None = None,
    audio_label: int | None = None,
    generator: str | None = None,
    audio_generator: str | None = None,
    language: str | None = None,
    identity: str | None = None,
    source: str | None = None,
    fake_segments: list[list[float]] | None = None,
    **corpus_columns: Any,
) -> Row:
    """Build one row of `FEATURES`, filling in what follows from the label; `video` is None for a missing file.

    A real clip has real picture and sound, no generator and no fake segment; the columns left at `None` are set
    accordingly. Nothing is inferred for a fake one, except that a track labelled real has the generator `"real"`.

    Raises:
        [`MetadataError`]: the labels contradict each other.
    """
    tracks = (video_label, audio_label)
    if (label == REAL and FAKE in tracks) or (label == FAKE and tracks == (REAL, REAL)):
        names = [None if track is None else LABELS[track] for track in tracks]
        raise MetadataError(
            f"{path}: label is {LABELS[label]} but video_label is {names[0]} and audio_label is {names[1]}."
        )
    if label == REAL:
        video_label = audio_label = REAL
        fake_segments = [] if fake_segments is None else fake_segments
    if fake_segments is not None:
        if label == REAL and fake_segments:
            raise MetadataError(f"{path}: label is real but fake_segments is {fake_segments}.")
        if any(len(segment) != 2 or not 0 <= segment[0] < segment[1] for segment in fake_segments):
            raise MetadataError(
                f"{path}: fake_segments needs [start, end] pairs in seconds, got {fake_segments}."
            )
    return {
        "video": video,
        "audio": audio,
        "label": label,
        "video_label": video_label,
        "audio_label": audio_label,
        "generator": "real" if video_label == REAL else generator,
        "audio_generator": "real" if audio_label == REAL else audio_generator,
        "language": language,
        "identity": identity,
        "source": source,
        "fake_segments": fake_segments,
        "path": path,
        **corpus_columns,
    }


def scan_files(root: str, suffixes: Sequence[str] = VIDEO_SUFFIXES) -> tuple[list[str], int]:
    """List the files below `root` whose suffix is one of `suffixes`, in any case.

    Hidden entries (`.DS_Store`, `._clip.mp4`) are no part of a corpus and are passed over. Links to folders are
    followed, each folder once.

    Returns:
        `tuple[list[str], int]`: the paths relative to `root`, with `/`, sorted, and the number of other files.
    """
    found: list[str] = []
    others = 0
    seen: set[str] = set()
    folders = [""]
    while folders:
        folder = folders.pop()
        real = os.path.realpath(os.path.join(root, folder)) if folder else os.path.realpath(root)
        if real in seen:
            continue
        seen.add(real)
        with os.scandir(os.path.join(root, folder) if folder else root) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                relative = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir():
                    folders.append(relative)
                elif entry.name.lower().endswith(tuple(suffixes)):
                    found.append(relative)
                else:
                    others += 1
    return sorted(found), others


def stable_order(names: Iterable[_K], seed: int) -> list[_K]:
    """Put names in an order that depends on each name and the seed only: no generator, version or input order."""
    return sorted(names, key=lambda name: (hashlib.sha256(f"{seed}:{name}".encode()).digest(), str(name)))


def stratified_split(strata: Mapping[_K, Hashable], shares: Mapping[str, int], seed: int) -> dict[_K, str]:
    """Deal names to splits in given shares, evenly within each stratum.

    Within a stratum the order is `stable_order`; the strata follow each other, and each name goes to the split that
    is furthest behind its share so far. Shares are therefore met to within one name over the whole, and nearly so
    within each stratum, however small.

    Args:
        strata (`Mapping`):
            Name (an identity, or a path) -> its stratum.
        shares (`Mapping[str, int]`):
            Split -> its share; only the proportions matter.
        seed (`int`):
            Another seed, another split.

    Returns:
        `dict`: name -> split.
    """
    whole = sum(shares.values())
    members: dict[Hashable, list[_K]] = {}
    for name, stratum in strata.items():
        members.setdefault(stratum, []).append(name)
    dealt: Counter[str] = Counter()
    result: dict[_K, str] = {}
    for stratum in sorted(members, key=str):
        for name in stable_order(members[stratum], seed):
            split = max(shares, key=lambda s: shares[s] * (len(result) + 1) - whole * dealt[s])
            result[name] = split
            dealt[split] += 1
    return result


def split_twice(
    strata: Mapping[_K, Hashable], shares: Mapping[str, int], seed: int, test: Iterable[_K] | None = None
) -> dict[_K, str]:
    """Deal names to train, validation and test: first the test part, then the rest.

    The share of the validation part has therefore no influence on the test part.

    Args:
        strata (`Mapping`):
            Name -> its stratum.
        shares (`Mapping[str, int]`):
            Shares of `train`, `validation` and `test`.
        seed (`int`):
            See [`stratified_split`].
        test (`Iterable`, *optional*):
            The test part, where a protocol prescribes it.

    Returns:
        `dict`: name -> split.
    """
    fit = {split: share for split, share in shares.items() if split != "test"}
    if test is None:
        first = stratified_split(strata, {"fit": sum(fit.values()), "test": shares["test"]}, seed)
        test = [name for name, split in first.items() if split == "test"]
    tested = set(test)
    rest = {name: stratum for name, stratum in strata.items() if name not in tested}
    inner = stratified_split(rest, fit, seed)
    return {name: inner.get(name, "test") for name in strata}


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing when no known name is near."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {match[0]!r}?" if match else ""


@dataclass
class MissingFiles:
    """Files that the metadata name but the disk does not have.

    Attributes:
        total (`int`): number of files the metadata name.
        paths (`list[str]`): the missing ones, relative.
        parts (`dict[str, list[int]]`): part of the corpus -> [missing, total]; a part is what is downloaded as one.
    """

    total: int = 0
    paths: list[str] = field(default_factory=list)
    parts: dict[str, list[int]] = field(default_factory=dict)

    def count(self, path: str, part: str, present: bool) -> None:
        """Count one file of the metadata."""
        self.total += 1
        tally = self.parts.setdefault(part, [0, 0])
        tally[1] += 1
        if not present:
            self.paths.append(path)
            tally[0] += 1

    def summary(self) -> str:
        """One sentence: how many are missing, and in which parts."""
        absent = [f"all {n:,} of {part!r}" for part, (missing, n) in self.parts.items() if missing == n]
        partly = [f"{m:,} of {n:,} of {part!r}" for part, (m, n) in self.parts.items() if 0 < m < n]
        return f"{len(self.paths):,} of {self.total:,} files are missing: {', '.join(absent + partly)}."


@dataclass
class Corpus:
    """A corpus found on disk: its root, its metadata files (relative), its media (relative), and what else is there."""

    root: str
    metadata: list[str]
    media: list[str]
    others: int = 0

    def absolute(self, path: str) -> str:
        """The absolute path of a file of the corpus."""
        return os.path.join(self.root, *path.split("/"))

    def fingerprint(self) -> str:
        """Hash everything a table is made from: the root, the metadata's bytes and the names of the media."""
        digest = hashlib.sha256(self.root.encode())
        for path in self.metadata:
            digest.update(path.encode())
            with open(self.absolute(path), "rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    digest.update(block)
        for path in self.media:
            digest.update(b"\0" + path.encode(errors="surrogateescape"))
        return digest.hexdigest()


def find_root(data_dir: str | None, corpus: str, looked_for: str, holds: Callable[[str], bool]) -> str:
    """Find the folder of a corpus: `data_dir` itself or a folder directly inside it.

    Args:
        data_dir (`str`, *optional*):
            What the user gave.
        corpus (`str`):
            Name of the corpus, for messages.
        looked_for (`str`):
            What makes a folder the corpus, in words.
        holds (`Callable[[str], bool]`):
            Whether a folder is the corpus.

    Returns:
        `str`: an absolute path; links are kept.

    Raises:
        [`CorpusNotFoundError`]: no such folder, or several.
    """
    if not data_dir:
        raise CorpusNotFoundError(
            f"{corpus}: pass `data_dir`, the folder with {looked_for}. The files cannot be downloaded from here."
        )
    if _URL_MARK in data_dir:
        raise CorpusNotFoundError(
            f"{corpus}: `data_dir` must be a local folder, got {data_dir}; download it first."
        )
    root = os.path.abspath(os.path.expanduser(data_dir))
    if not os.path.isdir(root):
        kind = "is a file, not a folder" if os.path.exists(root) else "does not exist"
        raise CorpusNotFoundError(f"{corpus}: data_dir {root} {kind}. Looked for a folder with {looked_for}.")
    if holds(root):
        return root
    entries = sorted(entry for entry in os.listdir(root) if not entry.startswith("."))
    inside = [os.path.join(root, entry) for entry in entries]
    candidates = [folder for folder in inside if os.path.isdir(folder) and holds(folder)]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise CorpusNotFoundError(
            f"{corpus}: several folders in {root} fit, give one as data_dir: {candidates}."
        )
    listed = ", ".join(entries[:10]) + (f" and {len(entries) - 10} more" if len(entries) > 10 else "")
    raise CorpusNotFoundError(
        f"{corpus}: looked for {looked_for} in {root} and in the folders inside it; found {listed or 'nothing'}."
    )


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
    """

    max_missing: float = 0.01
    missing_files: str | None = None

    def locate(self) -> Corpus:
        """Find the corpus on disk.

        Raises:
            [`CorpusNotFoundError`]: `data_dir` does not hold it.
        """
        raise NotImplementedError

    def create_config_id(
        self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None
    ) -> str:
        """Name the cache folder after the settings and the state of the corpus, see [`Corpus.fingerprint`]."""
        if not 0 <= self.max_missing <= 1:
            raise ValueError(f"max_missing is a share of all files, from 0 to 1, got {self.max_missing}")
        self.data_files = None  # set by `datasets` for every packaged builder, and of no use here
        kwargs = {name: value for name, value in config_kwargs.items() if name != "data_files"}
        if self.data_dir:
            kwargs["fingerprint"] = self.locate().fingerprint()
        return super().create_config_id(kwargs, custom_features)


class CorpusBuilder(datasets.GeneratorBasedBuilder):
    """A builder for media that are already on disk; a corpus fills in `read` and `deal`."""

    BUILDER_CONFIG_CLASS = CorpusConfig
    DESCRIPTION: ClassVar[str] = ""
    HOMEPAGE: ClassVar[str] = ""
    LICENSE: ClassVar[str] = ""  # the Hub's identifier, where the corpus has such a licence
    CORPUS_COLUMNS: ClassVar[dict[str, Any]] = {}
    GROUP_COLUMNS: ClassVar[tuple[str, ...]] = ()  # corpus columns by which an evaluation breaks results down

    def read(self, corpus: Corpus) -> tuple[list[Row], MissingFiles]:
        """Turn the metadata into rows; a row whose files are missing has None for `video`, and is left out later.

        It takes part in `deal`, so that a missing file moves no other clip to another split.
        """
        raise NotImplementedError

    def deal(self, rows: list[Row]) -> dict[str, list[Row]]:
        """Deal the rows to the splits of the protocol `self.config.name`; a `path` may occur once in a split."""
        raise NotImplementedError

    @property
    def missing_files(self) -> str:
        """Path of the list of missing files."""
        default = os.path.join(
            self._cache_dir_root, self._relative_data_dir(with_version=False), "missing_files.txt"
        )
        return os.path.abspath(os.path.expanduser(self.config.missing_files or default))

    def note(self, message: str) -> None:
        """Warn, and keep the message in `info.description`, where a table read from the cache still has it."""
        separator = "\n- " if _NOTES in self.info.description else _NOTES
        self.info.description += separator + message
        warnings.warn(f"{self.dataset_name}: {message}", CorpusWarning, stacklevel=3)

    def as_dataset(self, *args: Any, **kwargs: Any) -> Any:
        """See [`datasets.DatasetBuilder.as_dataset`]; repeats the notes of a table that was already in the cache."""
        if not getattr(self, "_built", False) and _NOTES in self.info.description:
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
            features=datasets.Features({**_TABLE, **self.CORPUS_COLUMNS}),
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        self._built = True
        self.info.description = self.info.description.split(_NOTES)[0]
        if is_demonstration(self.config.data_dir):
            self.note("these are drawn clips of the demonstration benchmark in the layout of the corpus.")
        rows, missing = self.read(self.config.locate())
        self._check_missing(missing)
        generators = []
        for split, dealt in self.deal(rows).items():
            members = [row for row in dealt if row["video"] is not None]
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

    def _check_missing(self, missing: MissingFiles) -> None:
        if not missing.paths:
            return
        listing = self.missing_files
        os.makedirs(os.path.dirname(listing), exist_ok=True)
        with open(listing, "w", encoding="utf-8") as file:
            file.writelines(f"{path}\n" for path in missing.paths)
        if len(missing.paths) > self.config.max_missing * missing.total:
            raise MissingFilesError(
                f"{self.dataset_name}: {missing.summary()} That is more than max_missing={self.config.max_missing:g} "
                f"allows. They are listed in {listing}. Complete the download, or pass a larger max_missing."
            )
        self.note(f"{missing.summary()} Their rows are left out; they are listed in {listing}.")

    def _generate_examples(self, shards: list[list[Row]]) -> Iterator[tuple[Key, Row]]:
        for shard, rows in enumerate(shards):
            for position, row in enumerate(rows):
                yield Key(shard, position), row

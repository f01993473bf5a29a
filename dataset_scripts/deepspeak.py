"""DeepSpeak v1, v1.1 and v2 (Barrington et al., arXiv:2408.05366): webcam recordings and fakes of the same people.

The Hub repositories `faridlab/deepspeak_v1`, `_v1_1` and `_v2` have the clips in archives and three tables: of the
fakes, of the genuine clips, and of the split, which is by person. Their loading script runs with an old version of
`datasets` only; here the downloaded and unpacked files are read.

The tables of the fakes and the names of the clips were seen; the columns of the other two tables are known from code
that reads them, and the folders in the archives are not known to us. Tables are therefore told apart by their columns
and clips are found by their file name, wherever they are. No table of the first release was seen, nor are its sizes known
to us; code reads it as v1.1, which has the same columns.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import datasets

from .builder import CorpusBuilder, CorpusConfig
from .corpus import VIDEO_SUFFIXES, Corpus, MissingFiles, find_root, scan_files
from .errors import MetadataError, ProtocolError
from .schema import FAKE, REAL, ClipRow, make_row
from .splits import FULL_SPLIT, stratified_split

_FILE = "video-file"
_ENGINE = "engine"
_PERSON = "identity"
_SPLIT = "split"
_AI_AUDIO = "recording-target-ai-generated"  # v1.1: whether the speech is synthetic
_AUDIO = "audio-config"  # v2: its method, or `real`
_TABLES = {"fake": "fakes", "real": "genuine clips", "split": "people and their split"}
_KNOWN = {"v1": ("v1.1", 6_667, 6_796), "v2": ("v2", 9_376, 7_209)}  # genuine clips and fakes
_SPLIT_NAMES = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_WITHIN_TRAINING = {"train": 9, "validation": 1}
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


@dataclass
class DeepSpeakConfig(CorpusConfig):
    """Settings of `deepspeak`; `name` is the protocol.

    Attributes:
        seed (`int`, defaults to 0):
            Seed of the validation split of `official`.
    """

    seed: int = 0

    def locate(self) -> Corpus:
        """Find the tables and all video files below `data_dir`."""
        root = find_root(
            self.data_dir,
            "DeepSpeak",
            f"a csv file of the fakes, with the columns {_FILE} and {_ENGINE} (annotations-fake.csv)",
            lambda d: "fake" in _tables_below(d).values(),
        )
        media, others = scan_files(root)
        return Corpus(root, list(_tables_below(root)), media, others)


def _tables_below(folder: str) -> dict[str, str]:
    """Path of each table of the corpus -> which one it is."""
    found = {}
    for path in scan_files(folder, (".csv",))[0]:
        with open(os.path.join(folder, path), newline="", encoding="utf-8-sig", errors="replace") as file:
            kind = _kind([name.strip() for name in next(csv.reader(file), [])])
        if kind:
            found[path] = kind
    return found


def _kind(columns: list[str]) -> str | None:
    if _FILE in columns:
        return "fake" if _ENGINE in columns else "real"
    return "split" if _PERSON in columns and _SPLIT in columns else None


def _read_csv(path: str) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Yield each row of a table as (where it is, its cells); an empty cell is None, and `7.0` is `7`."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = file.readlines()
    except UnicodeDecodeError as error:
        raise MetadataError(f"{path}: not UTF-8 ({error}).") from error
    reader = csv.DictReader(lines)
    for cells in reader:
        values = {str(name).strip(): (value or "").strip() for name, value in cells.items() if name}
        yield (
            f"{path}, line {reader.line_num}",
            {name: re.sub(r"^(\d+)\.0$", r"\1", value) or None for name, value in values.items()},
        )


class DeepSpeak(CorpusBuilder):
    """DeepSpeak v1, v1.1 or v2 from the unpacked files of its Hub repository.

    ```py
    >>> load_dataset("deepspeak", data_dir="deepspeak_v2")
    ```

    `data_dir` is one release: its three tables (`annotations-fake.csv`, `annotations-real.csv` and
    `annotations-split-def.csv`) and its unpacked archives, in any folders. It is told by the columns.

    Protocols:

    - `official` (default): the published split of the people. It has no validation part (none is in the tables that
      were seen); 10 % of the people of its train part are made one, our own choice, so that train and validation
      together are train as published. A fake goes with the person seen in it (`identity-target`); a note counts
      those whose face was taken from a person of another split.
    - `all`: one split, `full`.

    Labels: the picture of every fake is fake. The sound of a face swap is real. That of a lip-sync or an avatar is
    fake if the tables say so: in v1.1 by `recording-target-ai-generated` (the method is elevenlabs, as the authors
    have it), in v2 by `audio-config`, never by the file name, which may name a voice that was not used. In a table
    with neither column their `audio_label` is None. `generator` is the engine. `source` is the recording the fake was made from. The
    speech is English; `language` is None for clips without any. `fake_segments` is not annotated.

    Columns after the common ones: `release` (`v2`, or `v1` for v1 and v1.1), `kind` (face-swap, lip-sync, avatar), `donor` (`identity-source`),
    `gesture`, `script`, `gen_config` (settings of the engine). `path` is the file name, which is unique.
    """

    BUILDER_CONFIG_CLASS = DeepSpeakConfig
    BUILDER_CONFIGS: ClassVar[list[DeepSpeakConfig]] = [
        DeepSpeakConfig(
            name="official",
            version="1.0.0",
            description="the published split by person, train again 90 / 10 into train and validation.",
        ),
        DeepSpeakConfig(name="all", version="1.0.0", description=f"every clip in one split, `{FULL_SPLIT}`."),
    ]
    DEALING_COLUMNS = ("people_splits",)
    DEFAULT_CONFIG_NAME = "official"
    DESCRIPTION = "DeepSpeak: consenting people before their webcams, and fakes of them."
    HOMEPAGE = "https://huggingface.co/datasets/faridlab/deepspeak_v2"
    CORPUS_COLUMNS: ClassVar[dict[str, Any]] = {
        name: datasets.Value("string")
        for name in ("release", "kind", "donor", "gesture", "script", "gen_config")
    }
    GROUP_COLUMNS: ClassVar[tuple[str, ...]] = ("kind", "script")

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]. Each row has the `people_splits` of its people until `deal`."""
        tables = self._tables(corpus)
        split_of = _read_splits(tables["split"]) if "split" in tables else {}
        genuine = dict(_entries(tables["real"], _PERSON))
        fakes = dict(_entries(tables["fake"], "identity-target"))
        for kind, clips in (("real", genuine), ("fake", fakes)):
            if not clips:
                raise MetadataError(f"{tables[kind]} has no rows.")
        both = genuine.keys() & fakes.keys()
        if both:
            raise MetadataError(f"{tables['real']}: {min(both)} is in the table of the fakes too.")
        release = "v2" if _AUDIO in next(iter(fakes.values())) else "v1"
        recordings = {_recording(name, entry): name for name, entry in genuine.items()}
        files = _Index(corpus.media)
        missing = MissingFiles()
        rows: list[ClipRow] = []
        for name, entry in {**genuine, **fakes}.items():
            label = FAKE if name in fakes else REAL
            person = entry[_PERSON] if label == REAL else entry["identity-target"]
            donor = entry.get("identity-source") if label == FAKE else None
            file = files.find(name)
            missing.count(name, entry.get(_ENGINE) or "real", file is not None)
            audio_label, voice = _sound(entry, name) if label == FAKE else (REAL, None)
            rows.append(
                make_row(
                    video=None if file is None else corpus.absolute(file),
                    path=name,
                    label=label,
                    video_label=label,
                    audio_label=audio_label,
                    generator=entry.get(_ENGINE),
                    audio_generator=voice,
                    language=None if entry.get("script-type") == "no-speech" else "en",
                    identity=person,
                    source=recordings.get((person, entry.get("recording-target"))) if label == FAKE else None,
                    release=release,
                    kind=entry.get("kind"),
                    donor=donor,
                    gesture=entry.get("gesture-type"),
                    script=entry.get("script-type"),
                    gen_config=entry.get("gen-config"),
                    people_splits=(split_of.get(person), split_of.get(donor)),
                )
            )
        self._note_files(corpus, files, missing)
        self._note_rows(rows, release)
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        rows = [dict(row) for row in rows]
        given = [row.pop("people_splits") for row in rows]
        if self.config.name == "all":
            return {FULL_SPLIT: rows}
        if all(split is None for split, _ in given):
            raise ProtocolError(
                "deepspeak: the protocol official needs the table of people and their split, with the columns "
                f"{_PERSON} and {_SPLIT} (annotations-split-def.csv). The config 'all' needs none."
            )
        homeless = [row["path"] for row, (split, _) in zip(rows, given, strict=True) if split is None]
        if homeless:
            self.note(
                f"{len(homeless):,} clips are of people without a split and are in none, such as {homeless[0]}."
            )
        crossing = sum(None not in pair and pair[0] != pair[1] for pair in given)
        if crossing:
            self.note(
                f"{crossing:,} fakes have the face or the voice of a person of another split than theirs: the splits "
                "share these people."
            )
        trained = {row["identity"] for row, (split, _) in zip(rows, given, strict=True) if split == "train"}
        inner = dict.fromkeys(trained, "train")
        if not any(split == "validation" for split, _ in given):
            inner = stratified_split(dict.fromkeys(trained, ""), _WITHIN_TRAINING, self.config.seed)
        dealt: dict[str, list[ClipRow]] = {"train": [], "validation": [], "test": []}
        for row, (split, _) in zip(rows, given, strict=True):
            if split is not None:
                dealt[inner[row["identity"]] if split == "train" else split].append(row)
        return dealt

    def _tables(self, corpus: Corpus) -> dict[str, str]:
        """Which table -> its absolute path."""
        found: dict[str, list[str]] = {}
        for path, kind in _tables_below(corpus.root).items():
            found.setdefault(kind, []).append(corpus.absolute(path))
        for kind, paths in found.items():
            if len(paths) > 1:
                raise MetadataError(
                    f"deepspeak: {len(paths)} tables of {_TABLES[kind]}: {', '.join(paths)}. Give one release as "
                    "data_dir, and keep one copy of each table."
                )
        if "real" not in found:
            raise MetadataError(
                f"deepspeak: no table of the genuine clips in {corpus.root}: a csv file with the columns {_FILE} and "
                f"{_PERSON} (annotations-real.csv)."
            )
        return {kind: paths[0] for kind, paths in found.items()}

    def _note_files(self, corpus: Corpus, files: _Index, missing: MissingFiles) -> None:
        if missing.paths:
            archives, _ = scan_files(corpus.root, _ARCHIVES)
            if archives:
                self.note(
                    f"{len(archives):,} archives in {corpus.root}, such as {archives[0]}: are all unpacked?"
                )
        unlisted = files.unused()
        if unlisted:
            self.note(
                f"{len(unlisted):,} video files in {corpus.root} are in no table, or there twice, and are not used, "
                f"such as {', '.join(unlisted[:3])}."
            )

    def _note_rows(self, rows: list[ClipRow], release: str) -> None:
        fakes = sum(row["label"] == FAKE for row in rows)
        counts = (len(rows) - fakes, fakes)
        name, *known = _KNOWN[release]
        if counts != tuple(known):
            self.note(
                f"this copy has {counts[0]:,} genuine clips and {counts[1]:,} fakes, not the {known[0]:,} and "
                f"{known[1]:,} known of {name}: numbers from it may not compare with published ones."
            )
        sourceless = sum(row["label"] == FAKE and row["source"] is None for row in rows)
        if sourceless:
            self.note(f"{sourceless:,} fakes have no source: the genuine recording is not in the tables.")


def _entries(table: str, person: str) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Yield each clip of a table as (its file name, its cells)."""
    seen: dict[str, str] = {}
    for where, cells in _read_csv(table):
        if person not in cells:
            raise MetadataError(f"{where}: no column {person}; the columns are {', '.join(cells)}.")
        for column in (_FILE, person):
            if cells[column] is None:
                raise MetadataError(f"{where}: the column {column} is empty.")
        name = str(cells[_FILE]).replace("\\", "/").rpartition("/")[2]
        if not name.lower().endswith(VIDEO_SUFFIXES):
            name += ".mp4"
        if name in seen:
            raise MetadataError(f"{where}: {name} is already in {seen[name]}; a clip has one row.")
        seen[name] = where
        yield name, cells


def _read_splits(table: str) -> dict[str | None, str]:
    """Person -> split."""
    splits: dict[str | None, str] = {}
    for where, cells in _read_csv(table):
        split = _SPLIT_NAMES.get(str(cells[_SPLIT]).lower())
        if split is None:
            raise MetadataError(
                f"{where}, column {_SPLIT}: {cells[_SPLIT]!r} is none of {', '.join(_SPLIT_NAMES)}."
            )
        if cells[_PERSON] is None:
            raise MetadataError(f"{where}: the column {_PERSON} is empty.")
        if splits.setdefault(cells[_PERSON], split) != split:
            raise MetadataError(f"{where}: person {cells[_PERSON]} is in {splits[cells[_PERSON]]} too.")
    return splits


def _recording(name: str, entry: dict[str, str | None]) -> tuple[str | None, str | None]:
    """Person and number of a genuine recording, whose file is named `<person>-<number>.mp4`."""
    numbers = os.path.splitext(name)[0].split("-")
    return entry[_PERSON], entry.get("recording") or (numbers[1] if len(numbers) > 1 else None)


def _sound(entry: dict[str, str | None], name: str) -> tuple[int | None, str | None]:
    """Label and method of the sound of a fake, None where the table does not tell."""
    if entry.get(_AUDIO) is not None:
        return (REAL, None) if entry[_AUDIO] == "real" else (FAKE, entry[_AUDIO])
    if _AI_AUDIO in entry:
        flag = str(entry[_AI_AUDIO]).lower()
        if flag not in ("true", "false"):
            raise MetadataError(
                f"{name}, column {_AI_AUDIO}: {entry[_AI_AUDIO]!r} is neither True nor False."
            )
        return (FAKE, "elevenlabs") if flag == "true" else (REAL, None)
    return (REAL, None) if entry.get("kind") == "face-swap" else (None, None)


class _Index:
    """Find clips by their file name: the folders in the archives differ between copies."""

    def __init__(self, media: list[str]) -> None:
        self.files: dict[str, list[str]] = {}
        self.used: set[str] = set()
        for path in media:
            self.files.setdefault(path.rpartition("/")[2], []).append(path)

    def find(self, name: str) -> str | None:
        """The first file of this name, or None."""
        found = self.files.get(name)
        if found is None:
            return None
        self.used.add(found[0])
        return found[0]

    def unused(self) -> list[str]:
        """All other files."""
        return [path for paths in self.files.values() for path in paths if path not in self.used]

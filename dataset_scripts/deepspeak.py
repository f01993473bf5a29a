"""DeepSpeak v1, v1.1 and v2 (Barrington et al., arXiv:2408.05366): webcam recordings and fakes of the same people.

The Hub repositories `faridlab/deepspeak_v1`, `_v1_1` and `_v2` have the clips in archives and three tables: of the
fakes, of the genuine clips, and of the split, which is by person. Their loading script needs an old version of
`datasets`; this builder reads the downloaded and unpacked files.

We saw the tables of the fakes and the names of the clips. We know the columns of the other two tables only from code
that reads them, and not the folders in the archives. Tables are therefore told apart by their columns, and clips are
found by their file names, wherever they are. We saw no table of the first release and do not know its sizes; other code
reads it like v1.1, which has the same columns.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import datasets

from .builder import EVERY_CLIP, CorpusBuilder, SeededConfig
from .corpus import VIDEO_SUFFIXES, Corpus, MissingFiles, scan_files
from .errors import MetadataError, ProtocolError
from .schema import FAKE, REAL, ClipRow, make_row
from .splits import WITHIN_TRAINING, by_split, stratified_split
from .text_files import open_text

_FILE = "video-file"
_ENGINE = "engine"
_PERSON = "identity"
_SPLIT = "split"
_AI_AUDIO = "recording-target-ai-generated"  # v1.1: whether the speech is synthetic
_AUDIO = "audio-config"  # v2: its method, or `real`
_TABLES = {"fake": "fakes", "real": "genuine clips", "split": "people and their split"}
_KNOWN = {"v1": ("v1.1", 6_667, 6_796), "v2": ("v2", 9_376, 7_209)}  # genuine clips and fakes
_SPLIT_NAMES = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


@dataclass
class DeepSpeakConfig(SeededConfig):
    """Settings of `deepspeak`; `name` is the protocol.

    `seed` draws the validation split of `official`.
    """

    CORPUS = "DeepSpeak"
    LOOKED_FOR = f"a csv file of the fakes, with the columns {_FILE} and {_ENGINE} (annotations-fake.csv)"

    def holds(self, folder: str) -> bool:
        """See [`CorpusConfig.holds`]."""
        return "fake" in _tables_below(folder).values()

    def metadata_in(self, folder: str) -> list[str]:
        """See [`CorpusConfig.metadata_in`]."""
        return list(_tables_below(folder))


def _tables_below(folder: str) -> dict[str, str]:
    """Return path of each table of the corpus -> its kind, a key of `_TABLES`."""
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
    with open_text(path) as file:
        reader = csv.DictReader(file.readlines())
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
    `annotations-split-def.csv`) and its unpacked archives, in any folders. The columns tell which release it is.

    Protocols:

    - `official` (default): the published split of the people. It has no validation part (none is in the tables we saw);
      10 % of the people of its train part become one, our own choice, so that train and validation together are train
      as published. A fake goes with the person seen in it (`identity-target`); a note counts those whose face was
      taken from a person of another split.
    - `all`: one split, `full`.

    Labels: the picture of every fake is fake. The sound of a face swap is real. That of a lip-sync or an avatar is fake
    if the tables say so: in v1.1 by `recording-target-ai-generated` (the method is elevenlabs, according to the
    authors), in v2 by `audio-config`, never by the file name, which may name a voice that was not used. Their
    `audio_label` is None if a table has neither column. `generator` is the engine. `source` is the recording that the
    fake was made from. The speech is English; `language` is None for clips without any. `fake_segments` is not
    annotated.

    Columns after the common ones: `release` (`v2`, or `v1` for v1 and v1.1), `kind` (face-swap, lip-sync, avatar),
    `donor` (`identity-source`), `gesture`, `script`, `gen_config` (settings of the engine). `path` is the file name,
    which is unique.
    """

    BUILDER_CONFIG_CLASS = DeepSpeakConfig
    PROTOCOLS = {
        "official": "the published split by person, train again 90 / 10 into train and validation.",
        **EVERY_CLIP,
    }
    DESCRIPTION = "DeepSpeak: consenting people before their webcams, and fakes of them."
    HOMEPAGE = "https://huggingface.co/datasets/faridlab/deepspeak_v2"
    CORPUS_COLUMNS = dict.fromkeys(
        ("release", "kind", "donor", "gesture", "script", "gen_config"), datasets.Value("string")
    )
    DEALING_COLUMNS = ("person_split", "donor_split")
    GROUP_COLUMNS = ("kind", "script")

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]."""
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
        recordings = {_recording(name, entry): name for name, entry in genuine.items()}
        release = "v2" if _AUDIO in next(iter(fakes.values())) else "v1"
        files = _Index(corpus.media)
        missing = MissingFiles()
        rows: list[ClipRow] = []
        for name, entry in {**genuine, **fakes}.items():
            file = files.find(name)
            missing.count(name, entry.get(_ENGINE) or "real", file is not None)
            row = _row(None if file is None else corpus.absolute(file), name, entry, name in fakes)
            if name in fakes:
                row["source"] = recordings.get((row["identity"], entry.get("recording-target")))
            row["release"] = release
            row["person_split"], row["donor_split"] = map(split_of.get, (row["identity"], row["donor"]))
            rows.append(row)
        self._note_files(corpus, files, missing)
        self._note_rows(rows, release)
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        if all(row["person_split"] is None for row in rows):
            raise ProtocolError(
                "deepspeak: the protocol official needs the table of people and their split, with the columns "
                f"{_PERSON} and {_SPLIT} (annotations-split-def.csv). The config 'all' needs none."
            )
        homeless = [row["path"] for row in rows if row["person_split"] is None]
        if homeless:
            self.note(
                f"{len(homeless):,} clips show people without a split and are in no split, such as {homeless[0]}."
            )
        pairs = [(row["person_split"], row["donor_split"]) for row in rows]
        crossing = sum(None not in pair and pair[0] != pair[1] for pair in pairs)
        if crossing:
            self.note(
                f"{crossing:,} fakes have the face or the voice of a person of another split than theirs: the splits "
                "share these people."
            )
        trained = {row["identity"] for row in rows if row["person_split"] == "train"}
        inner = dict.fromkeys(trained, "train")
        if not any(row["person_split"] == "validation" for row in rows):
            inner = stratified_split(dict.fromkeys(trained, ""), WITHIN_TRAINING, self.config.seed)
        return by_split(
            rows,
            lambda row: inner[row["identity"]] if row["person_split"] == "train" else row["person_split"],
        )

    def _tables(self, corpus: Corpus) -> dict[str, str]:
        """Return kind of table -> its absolute path."""
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
        self.note_unused(files.unused(), f"video files in {corpus.root} are in no table, or there twice,")

    def _note_rows(self, rows: list[ClipRow], release: str) -> None:
        fakes = sum(row["label"] == FAKE for row in rows)
        name, *known = _KNOWN[release]
        if [len(rows) - fakes, fakes] != known:
            self.note_size(
                f"this copy has {len(rows) - fakes:,} genuine clips and {fakes:,} fakes",
                f"{known[0]:,} and {known[1]:,} of {name}",
            )
        self.note_sourceless(rows, "the genuine recording is not in the tables")


def _row(file: str | None, name: str, entry: dict[str, str | None], fake: bool) -> ClipRow:
    label = FAKE if fake else REAL
    audio_label, voice = _sound(entry, name) if fake else (REAL, None)
    return make_row(
        file,
        name,
        label,
        video_label=label,
        audio_label=audio_label,
        generator=entry.get(_ENGINE),
        audio_generator=voice,
        language=None if entry.get("script-type") == "no-speech" else "en",
        identity=entry["identity-target" if fake else _PERSON],
        release=None,
        kind=entry.get("kind"),
        donor=entry.get("identity-source") if fake else None,
        gesture=entry.get("gesture-type"),
        script=entry.get("script-type"),
        gen_config=entry.get("gen-config"),
    )


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
    """Return person -> split."""
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
    """Return person and number of a genuine recording, whose file is named `<person>-<number>.mp4`."""
    numbers = os.path.splitext(name)[0].split("-")
    return entry[_PERSON], entry.get("recording") or (numbers[1] if len(numbers) > 1 else None)


def _sound(entry: dict[str, str | None], name: str) -> tuple[int | None, str | None]:
    """Return label and method of a fake's sound, None where the table does not say."""
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
    """The clips by file name: their folders differ between copies."""

    def __init__(self, media: list[str]) -> None:
        self.files: dict[str, list[str]] = {}
        self.used: set[str] = set()
        for path in media:
            self.files.setdefault(path.rpartition("/")[2], []).append(path)

    def find(self, name: str) -> str | None:
        """Return the first file of this name, or None."""
        found = self.files.get(name)
        if found is None:
            return None
        self.used.add(found[0])
        return found[0]

    def unused(self) -> list[str]:
        """Return all files that were not found by name."""
        return [path for paths in self.files.values() for path in paths if path not in self.used]

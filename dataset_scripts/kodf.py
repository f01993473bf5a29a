"""KoDF (Kwon et al., arXiv:2103.10094): clips of 403 Korean people and fakes of them by six methods.

There are two distributions, with the same clips in different folders:

- internationally, as `original_videos/<person>/<person>_<number>.mp4` and
  `synthesized_videos/<method>/<date>/<person>/<person>_<other>_<code>_<number>.mp4`, where the code is the method.
- by AI-Hub in Korea, with a table of the genuine clips and one of the fakes for each of its parts, which are named
  training and validation. A test part is described, but not distributed.

Not verified: whether the international release has tables (none is read), the folder names of its clips with
adversarial noise, and the encoding of AI-Hub's tables, which others report as UTF-8; CP949 is read as well. Unpacking
on a system without Korean names may garble the names of folders and tables. Tables are therefore found by their columns,
and clips by their file names, which are ASCII.
"""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import datasets

from .builder import EVERY_CLIP, CorpusBuilder, SeededConfig
from .corpus import Corpus, MissingFiles, scan_files
from .errors import CorpusNotFoundError, MetadataError, ProtocolError, nearest
from .schema import FAKE, REAL, ClipRow, make_row
from .splits import WITHIN_TRAINING, by_split, split_twice, stratified_split
from .text_files import is_text

_GENUINE, _FAKES = "original_videos", "synthesized_videos"  # folders of the international release
_CODES = {"1": "dfl", "2": "dffs", "3": "fsgan", "4": "fo", "5": "audio-driven"}
_METHODS = tuple(_CODES.values())
# Part of AI-Hub -> genuine clips, fakes; the international release has them all. The fakes of the test part are the
# remainder of the published 175,776 (a table in circulation has 40 more).
_KNOWN = {"training": (49_419, 139_951), "validation": (6_093, 16_894), "test": (6_654, 18_931)}
# Columns of AI-Hub: clip, the genuine clip of a fake, method; the two people of a fake; those of a genuine clip.
_CLIP, _TARGET, _METHOD = "영상ID", "타겟영상", "변조모델"
_TARGET_PERSON, _SOURCE_PERSON = "타겟UUID", "소스UUID"
_PERSON, _SEX, _PLACE = "UUID", "인물성별", "촬영장소"
# Clips with adversarial noise have the names of their originals: folders named like this are left out.
_ADVERSARIAL = ("탐지방해", "adversarial")
_ENCODINGS = ("utf-8-sig", "cp949")
_REAL_NAME = re.compile(r"([0-9a-zA-Z]+)_(\d+)")
_FAKE_NAME = re.compile(r"([0-9a-zA-Z]+)_([0-9a-zA-Z]+)_(\d)_(\d+)")


@dataclass
class KoDFConfig(SeededConfig):
    """Settings of `kodf`; `name` is the protocol.

    `seed` draws `identity_70_30` and the validation split of `aihub`.
    """

    CORPUS = "KoDF"
    LOOKED_FOR = (
        f"the folder {_GENUINE} or {_FAKES} (international release), or a table with the columns {_CLIP} and "
        f"{_METHOD} (AI-Hub)"
    )
    SUFFIXES = (".mp4",)

    def holds(self, folder: str) -> bool:
        """See [`CorpusConfig.holds`]."""
        return _is_international(folder) or bool(_tables_below(folder))

    def metadata_in(self, folder: str) -> list[str]:
        """Return the tables of AI-Hub; see [`CorpusConfig.metadata_in`]."""
        return [] if _is_international(folder) else _tables_below(folder)


def _is_international(folder: str) -> bool:
    return any(os.path.isdir(os.path.join(folder, name)) for name in (_GENUINE, _FAKES))


def _tables_below(folder: str) -> list[str]:
    """Return the tables of clips among all csv files below a folder."""
    tables, _ = scan_files(folder, (".csv",))
    found = []
    for path in tables:
        with open(os.path.join(folder, path), "rb") as file:
            header = file.readline(4096)
        if any(_CLIP in _normal(header.decode(encoding, errors="replace")) for encoding in _ENCODINGS):
            found.append(path)
    return found


def _normal(text: str) -> str:
    """Compose Korean letters, which macOS and archives made there store in parts."""
    return unicodedata.normalize("NFC", text)


def _in_korean(path: str) -> str:
    """Return a path whose names were unpacked as bytes of CP949 as text; others as they are."""
    return path if is_text(path) else os.fsencode(path).decode("cp949", errors="replace")


def _read_csv(path: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row of a table as (its line, its cells).

    Raises:
        [`MetadataError`]: the file has none of the known encodings.
    """
    with open(path, "rb") as file:
        content = file.read()
    for encoding in _ENCODINGS:
        try:
            text = _normal(content.decode(encoding))
            break
        except UnicodeDecodeError:
            continue
    else:
        raise MetadataError(f"{path}: its encoding is none of {', '.join(_ENCODINGS)}.")
    reader = csv.DictReader(text.splitlines())
    for cells in reader:
        yield (
            reader.line_num,
            {str(name).strip(): (value or "").strip() for name, value in cells.items() if name is not None},
        )


class KoDF(CorpusBuilder):
    """KoDF, from either distribution.

    ```py
    >>> load_dataset("kodf", data_dir="kodf_release")  # the international one
    >>> load_dataset("kodf", "aihub", data_dir="003.딥페이크")
    ```

    `data_dir` is the folder with `original_videos/` and `synthesized_videos/`, or a folder that holds the unpacked
    tables and clips of AI-Hub at any depth. Clips with adversarial noise are not used.

    Protocols (a person is the one seen in the genuine clip; the other person of a fake, in `donor`, may be in
    another split):

    - `identity_70_30` (default): 70 / 30 by person. Our own choice, and the default because both distributions have it.
    - `aihub`: the parts of AI-Hub. Its test part is not distributed, so its validation part is the test split here; its
      training part is divided 90 / 10 by person into train and validation, which together are the part as published.
      (A copy with tables of a test part has the three splits as published.) It is not documented whether the parts
      share people; a note says if they do.
    - `all`: one split, `full`.

    `generator` is dfl (DeepFaceLab), dffs (FaceSwap), fsgan, fo (First Order Motion Model) or audio-driven (ATFHP and
    Wav2Lip, which the corpus does not tell apart). Only the picture is synthesised: `audio_label` is real, except for
    audio-driven, where it is None, since the origin of the driving speech is not documented. Only the tables of AI-Hub
    give `source`. `path` is as on disk in the international release, and `<part>/<method>/<file>` in
    AI-Hub's, whose archives unpack to various folders. The speech is Korean. `fake_segments` is not annotated.

    Columns after the common ones: `donor`, `sex` and `place` (as AI-Hub writes them).
    """

    BUILDER_CONFIG_CLASS = KoDFConfig
    PROTOCOLS = {
        "identity_70_30": "70 / 30 by person, the 70 % again 90 / 10 into train and validation.",
        **EVERY_CLIP,
        "aihub": "test is AI-Hub's validation part; its training part, 90 / 10 by person, is train and validation.",
    }
    DESCRIPTION = "KoDF: Korean deepfake detection dataset."
    HOMEPAGE = "https://deepbrainai-research.github.io/kodf/"
    CORPUS_COLUMNS = dict.fromkeys(("donor", "sex", "place"), datasets.Value("string"))
    DEALING_COLUMNS = ("part",)
    GROUP_COLUMNS = ("sex",)

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]. `part` is None in the international release."""
        noisy = [path for path in corpus.media if _is_adversarial(path)]
        if noisy:
            self.note(f"{len(noisy):,} clips with adversarial noise are not used, such as {noisy[0]}.")
        media = sorted(set(corpus.media) - set(noisy))
        missing = MissingFiles()
        if corpus.metadata:
            rows = self._read_tables(corpus, media, missing)
        else:
            rows = self._read_names(corpus, media)
        fakes = sum(row["label"] == FAKE for row in rows)
        parts = {row["part"] for row in rows} & _KNOWN.keys() or _KNOWN.keys()
        known = tuple(sum(_KNOWN[part][label] for part in parts) for label in (REAL, FAKE))
        if (len(rows) - fakes, fakes) != known:
            self.note_size(
                f"this copy has {len(rows) - fakes:,} genuine clips and {fakes:,} fakes",
                f"{known[0]:,} and {known[1]:,}",
            )
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        if self.config.name == "aihub":
            return self._deal_parts(rows)
        splits = split_twice(dict.fromkeys((row["identity"] for row in rows), ""), self.config.seed)
        return by_split(rows, lambda row: splits[row["identity"]])

    def _deal_parts(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """Deal the rows by the parts of AI-Hub."""
        parts = {row["part"] for row in rows}
        if parts == {None}:
            raise ProtocolError(
                "kodf: the protocol aihub needs the tables of AI-Hub; the international release has no parts. "
                "Take identity_70_30."
            )
        if not {"training", "validation"} <= parts:
            raise ProtocolError(
                f"kodf: the protocol aihub needs the parts training and validation; the tables of this copy are "
                f"of {', '.join(sorted(parts))}. Unpack the other part's tables and clips too."
            )
        if "test" in parts:  # never seen, but described
            return by_split(rows, lambda row: row["part"].replace("training", "train"))
        trained, tested = (
            {row["identity"] for row in rows if row["part"] == part} for part in ("training", "validation")
        )
        if trained & tested:
            self.note(
                f"{len(trained & tested):,} people are in both parts of AI-Hub, such as {min(trained & tested)}."
            )
        inner = stratified_split(dict.fromkeys(trained, ""), WITHIN_TRAINING, self.config.seed)
        return by_split(rows, lambda row: inner[row["identity"]] if row["part"] == "training" else "test")

    def _read_names(self, corpus: Corpus, media: list[str]) -> list[ClipRow]:
        """Return the rows of the international release, from its file names."""
        rows: list[ClipRow] = []
        strays: list[str] = []
        for path in media:
            folder, _, name = path.partition("/")
            stem = os.path.splitext(name.rpartition("/")[2])[0]
            if folder == _GENUINE and (match := _REAL_NAME.fullmatch(stem)):
                rows.append(_row(corpus, path, path, REAL, identity=match[1], part=None))
            elif folder == _FAKES and (match := _FAKE_NAME.fullmatch(stem)):
                if match[3] not in _CODES:
                    raise MetadataError(
                        f"{corpus.absolute(path)}: code {match[3]} is not a method of KoDF; known are {_CODES}."
                    )
                method = _CODES[match[3]]
                rows.append(
                    _row(corpus, path, path, FAKE, method, identity=match[1], donor=match[2], part=None)
                )
            else:
                strays.append(path)
        if not rows:
            raise CorpusNotFoundError(
                f"kodf: no clip in {_GENUINE} and {_FAKES} of {corpus.root} is named like those of KoDF"
                f"{', for example ' + strays[0] if strays else ''}."
            )
        self.note_unused(strays, "mp4 files are not named like those of KoDF")
        methods = {row["generator"] for row in rows}
        absent = [method for method in ("real", *_METHODS) if method not in methods]
        if absent:
            self.note(f"this copy has no clip of {', '.join(absent)}.")
        return rows

    def _read_tables(self, corpus: Corpus, media: list[str], missing: MissingFiles) -> list[ClipRow]:
        """Return the rows of AI-Hub's distribution, from its tables."""
        on_disk: dict[str, list[str]] = {}
        for path in media:
            on_disk.setdefault(path.rpartition("/")[2], []).append(path)
        rows: list[ClipRow] = []
        listed: dict[str, str] = {}
        for table in corpus.metadata:
            part = _part_of(table, corpus)
            for line, cells in _read_csv(corpus.absolute(table)):
                where = f"{corpus.absolute(table)}, line {line}"
                name, method = _clip_and_method(cells, where)
                if name in listed:
                    raise MetadataError(f"{where}: {name} is already in {listed[name]}; a clip has one row.")
                listed[name] = where
                files = on_disk.get(name, [])
                missing.count(f"{part}/{method}/{name}", f"{part} {method}", bool(files))
                rows.append(_table_row(corpus, files[0] if files else None, part, method, name, cells))
        genuine = {row["path"].rpartition("/")[2]: row["path"] for row in rows if row["label"] == REAL}
        for row in rows:
            row["source"] = genuine.get(row["source"])
        self._note_files(on_disk, listed)
        self.note_sourceless(rows, "no table of this copy lists the genuine clip")
        return rows

    def _note_files(self, on_disk: dict[str, list[str]], listed: dict[str, str]) -> None:
        unlisted = [files[0] for name, files in on_disk.items() if name not in listed]
        self.note_unused(unlisted, "mp4 files are in no table")
        repeated = Counter({files[0]: len(files) for files in on_disk.values() if len(files) > 1})
        if repeated:
            self.note(
                f"{len(repeated):,} file names are on disk more than once, such as that of {min(repeated)}: the first "
                "in alphabetical order is used. They may be clips with adversarial noise in a folder with a garbled "
                "name."
            )


def _is_adversarial(path: str) -> bool:
    plain = _normal(_in_korean(path)).lower()
    return any(mark in plain for mark in _ADVERSARIAL)


def _part_of(table: str, corpus: Corpus) -> str:
    """Return the part of a table, from its file name or that of a folder above; all of them name it in ASCII."""
    for name in reversed(table.lower().split("/")):
        for part in _KNOWN:
            if part in name:
                return part
    raise MetadataError(f"{corpus.absolute(table)}: its name has none of {', '.join(_KNOWN)}.")


def _file_name(clip: str) -> str:
    """Return the file name of a clip that is listed with or without its suffix."""
    return clip if clip.lower().endswith(".mp4") else f"{clip}.mp4"


def _clip_and_method(cells: dict[str, str], where: str) -> tuple[str, str]:
    """Return the file name and the method of a row; a row of the table of genuine clips has the method `real`."""
    fake = not {_METHOD, _TARGET, _TARGET_PERSON}.isdisjoint(cells)
    if fake and _METHOD not in cells:
        raise MetadataError(f"{where}: no column {_METHOD}; the columns are {', '.join(cells)}.")
    method = "real"
    if fake:
        method = cells[_METHOD].lower().replace("_", "-")
        if method not in _METHODS:
            raise MetadataError(
                f"{where}, column {_METHOD}: {cells[_METHOD]!r} is none of {', '.join(_METHODS)}."
                f"{nearest(method, _METHODS)}"
            )
    if not cells[_CLIP]:
        raise MetadataError(f"{where}: the column {_CLIP} is empty.")
    return _file_name(cells[_CLIP]), method


def _table_row(
    corpus: Corpus, file: str | None, part: str, method: str, name: str, cells: dict[str, str]
) -> ClipRow:
    """Build a row of AI-Hub; until all are read, `source` is the file name of the genuine clip."""
    fake = method != "real"
    return _row(
        corpus,
        file,
        f"{part}/{method}/{name}",
        FAKE if fake else REAL,
        method,
        identity=cells.get(_TARGET_PERSON if fake else _PERSON) or name.split("_")[0],
        donor=(cells.get(_SOURCE_PERSON) or None) if fake else None,
        sex=cells.get(_SEX) or None,
        place=cells.get(_PLACE) or None,
        source=_file_name(cells[_TARGET]) if fake and cells.get(_TARGET) else None,
        part=part,
    )


def _row(
    corpus: Corpus, file: str | None, path: str, label: int, method: str = "real", **columns: Any
) -> ClipRow:
    """Build the row of a clip; `file` is its place on disk."""
    columns = {"donor": None, "sex": None, "place": None, **columns}
    return make_row(
        None if file is None else corpus.absolute(file),
        path,
        label,
        video_label=label,
        audio_label=None if method == "audio-driven" else REAL,
        generator=method,
        language="ko",
        **columns,
    )

"""KoDF (Kwon et al., arXiv:2103.10094): clips of 403 Korean people and fakes of them by six methods.

It is distributed twice, with the same clips and other folders:

- internationally, as `original_videos/<person>/<person>_<number>.mp4` and
  `synthesized_videos/<method>/<date>/<person>/<person>_<other>_<code>_<number>.mp4`, where the code is the method.
- by AI-Hub in Korea, with a table of the genuine clips and one of the fakes for each of its parts, which are named
  training and validation. A test part is described, but not distributed.

What is not verified: whether the international release has tables (none is read), the names of its folder of clips
with adversarial noise, and the encoding of the tables of AI-Hub, which readers give as UTF-8; CP949 is read as well.
Unpacking under a system without Korean names may garble those of folders and tables: tables are therefore found by
their columns, and clips by their file names, which are plain.
"""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import datasets

from .builder import CorpusBuilder, CorpusConfig
from .corpus import Corpus, MissingFiles, find_root, scan_files
from .errors import CorpusNotFoundError, MetadataError, ProtocolError, nearest
from .schema import FAKE, REAL, ClipRow, make_row
from .splits import FULL_SPLIT, split_twice, stratified_split

_GENUINE, _FAKES = "original_videos", "synthesized_videos"  # folders of the international release
_CODES = {"1": "dfl", "2": "dffs", "3": "fsgan", "4": "fo", "5": "audio-driven"}
_METHODS = tuple(_CODES.values())
# Part of AI-Hub -> genuine clips, fakes; the international release has them all. The fakes of the test part are what
# the other two leave of the published 175,776 (a table that is going round has 40 more).
_KNOWN = {"training": (49_419, 139_951), "validation": (6_093, 16_894), "test": (6_654, 18_931)}
# Columns of AI-Hub: clip, the genuine clip of a fake, method; the two people of a fake; those of a genuine clip.
_CLIP, _TARGET, _METHOD = "영상ID", "타겟영상", "변조모델"
_TARGET_PERSON, _SOURCE_PERSON = "타겟UUID", "소스UUID"
_PERSON, _SEX, _PLACE = "UUID", "인물성별", "촬영장소"
# Clips with adversarial noise have the names of those they are made from: a folder with one of these is left out.
_ADVERSARIAL = ("탐지방해", "adversarial")
_ENCODINGS = ("utf-8-sig", "cp949")
_WITHIN_TRAINING = {"train": 9, "validation": 1}
_SPLITS = ("train", "validation", "test")
_REAL_NAME = re.compile(r"([0-9a-zA-Z]+)_(\d+)")
_FAKE_NAME = re.compile(r"([0-9a-zA-Z]+)_([0-9a-zA-Z]+)_(\d)_(\d+)")


@dataclass
class KoDFConfig(CorpusConfig):
    """Settings of `kodf`; `name` is the protocol.

    Attributes:
        seed (`int`, defaults to 0):
            Seed of `identity_70_30` and of the validation split of `aihub`.
    """

    seed: int = 0

    def locate(self) -> Corpus:
        """Find the folder of the clips, the tables of AI-Hub if there are any, and all mp4 files."""
        root = find_root(
            self.data_dir,
            "KoDF",
            f"the folder {_GENUINE} or {_FAKES} (international release), or a table with the columns {_CLIP} and "
            f"{_METHOD} (AI-Hub)",
            lambda d: _is_international(d) or bool(_tables_below(d)),
        )
        media, others = scan_files(root, (".mp4",))
        return Corpus(root, [] if _is_international(root) else _tables_below(root), media, others)


def _is_international(folder: str) -> bool:
    return any(os.path.isdir(os.path.join(folder, name)) for name in (_GENUINE, _FAKES))


def _tables_below(folder: str) -> list[str]:
    """The tables of clips among all csv files below a folder."""
    tables, _ = scan_files(folder, (".csv",))
    found = []
    for path in tables:
        with open(os.path.join(folder, path), "rb") as file:
            header = file.readline(4096)
        if any(_CLIP in _normal(header.decode(encoding, errors="replace")) for encoding in _ENCODINGS):
            found.append(path)
    return found


def _normal(text: str) -> str:
    """Compose Korean letters: macOS and what was packed there have them in parts."""
    return unicodedata.normalize("NFC", text)


def _read_csv(path: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row of a table as (its line, its cells).

    Raises:
        [`MetadataError`]: the file has neither of the encodings.
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


def _configs() -> list[KoDFConfig]:
    descriptions = {
        "identity_70_30": "70 / 30 by person, the 70 % again 90 / 10 into train and validation.",
        "all": f"every clip in one split, `{FULL_SPLIT}`.",
        "aihub": "test is AI-Hub's validation part; its training part, 90 / 10 by person, is train and validation.",
    }
    return [KoDFConfig(name=name, version="1.0.0", description=text) for name, text in descriptions.items()]


class KoDF(CorpusBuilder):
    """KoDF, from either distribution.

    ```py
    >>> load_dataset("kodf", data_dir="kodf_release")  # the international one
    >>> load_dataset("kodf", "aihub", data_dir="003.딥페이크")
    ```

    `data_dir` is the folder with `original_videos/` and `synthesized_videos/`, or a folder that holds the unpacked
    tables and clips of AI-Hub at any depth. Clips with adversarial noise are not used.

    Protocols (a person is the one seen in the genuine clip; the other person of a fake, in `donor`, may be one of
    another split):

    - `identity_70_30` (default): 70 / 30 by person. Our own choice, and the default because it is the only one that
      both distributions have.
    - `aihub`: the parts of AI-Hub. As its test part is not distributed, its validation part is the test split here;
      its training part is cut 90 / 10 by person into train and validation, which together are the part as published.
      (A copy with tables of a test part has the three splits as published.)
      Whether the parts share people is not documented; a note says so where they do.
    - `all`: one split, `full`.

    `generator` is dfl (DeepFaceLab), dffs (FaceSwap), fsgan, fo (First Order Motion Model) or audio-driven (ATFHP and
    Wav2Lip, which the corpus does not tell apart). Only the picture is synthesised: `audio_label` is real, except for
    audio-driven, where it is None, since the origin of the driving speech is not documented. `source` is given by
    the tables of AI-Hub only. `path` is as on disk in the international release, and `<part>/<method>/<file>` in
    AI-Hub's, whose archives unpack to various folders. The speech is Korean. `fake_segments` is not annotated.

    Columns after the common ones: `donor`, `sex` and `place` (as AI-Hub writes them).
    """

    BUILDER_CONFIG_CLASS = KoDFConfig
    BUILDER_CONFIGS: ClassVar[list[KoDFConfig]] = _configs()
    DEALING_COLUMNS = ("part",)
    DEFAULT_CONFIG_NAME = "identity_70_30"
    DESCRIPTION = "KoDF: Korean deepfake detection dataset."
    HOMEPAGE = "https://deepbrainai-research.github.io/kodf/"
    CORPUS_COLUMNS: ClassVar[dict[str, Any]] = {
        "donor": datasets.Value("string"),
        "sex": datasets.Value("string"),
        "place": datasets.Value("string"),
    }
    GROUP_COLUMNS: ClassVar[tuple[str, ...]] = ("sex",)

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]. Each row has its `part` (None in the international release) until `deal`."""
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
            self.note(
                f"this copy has {len(rows) - fakes:,} genuine clips and {fakes:,} fakes, not the known {known[0]:,} and "
                f"{known[1]:,}: numbers from it may not compare with published ones."
            )
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        rows = [dict(row) for row in rows]
        parts = [row.pop("part") for row in rows]
        if self.config.name == "all":
            return {FULL_SPLIT: rows}
        people = [row["identity"] for row in rows]
        if self.config.name == "aihub":
            if {None} == set(parts):
                raise ProtocolError(
                    "kodf: the protocol aihub needs the tables of AI-Hub; the international release has no parts. "
                    "Take identity_70_30."
                )
            if not {"training", "validation"} <= set(parts):
                raise ProtocolError(
                    f"kodf: the protocol aihub needs the parts training and validation; the tables of this copy are "
                    f"of {', '.join(sorted(set(parts)))}. Unpack the other part's tables and clips too."
                )
            splits = self._deal_parts(people, parts)
        else:
            by_person = split_twice(dict.fromkeys(people, ""), self.config.seed)
            splits = [by_person[person] for person in people]
        return {split: [row for row, s in zip(rows, splits, strict=True) if s == split] for split in _SPLITS}

    def _deal_parts(self, people: list[str], parts: list[str]) -> list[str]:
        """The split of each clip of AI-Hub."""
        if "test" in parts:  # never seen, but described
            return [part.replace("training", "train") for part in parts]
        trained, tested = (
            {person for person, part in zip(people, parts, strict=True) if part == wanted}
            for wanted in ("training", "validation")
        )
        if trained & tested:
            self.note(
                f"{len(trained & tested):,} people are in both parts of AI-Hub, such as {min(trained & tested)}."
            )
        inner = stratified_split(dict.fromkeys(trained, ""), _WITHIN_TRAINING, self.config.seed)
        return [
            inner[person] if part == "training" else "test"
            for person, part in zip(people, parts, strict=True)
        ]

    def _read_names(self, corpus: Corpus, media: list[str]) -> list[ClipRow]:
        """The rows of the international release, from its file names."""
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
                        f"{corpus.absolute(path)}: code {match[3]} is no method of KoDF; known are {_CODES}."
                    )
                method = _CODES[match[3]]
                rows.append(
                    _row(corpus, path, path, FAKE, method, identity=match[1], donor=match[2], part=None)
                )
            else:
                strays.append(path)
        if not rows:
            raise CorpusNotFoundError(
                f"kodf: no clip in {_GENUINE} and {_FAKES} of {corpus.root} is named as those of KoDF"
                f"{', for example ' + strays[0] if strays else ''}."
            )
        if strays:
            self.note(
                f"{len(strays):,} mp4 files are not named as those of KoDF and are not used, such as "
                f"{', '.join(strays[:3])}."
            )
        methods = {row["generator"] for row in rows}
        absent = [method for method in ("real", *_METHODS) if method not in methods]
        if absent:
            self.note(f"this copy has no clip of {', '.join(absent)}.")
        return rows

    def _read_tables(self, corpus: Corpus, media: list[str], missing: MissingFiles) -> list[ClipRow]:
        """The rows of the distribution by AI-Hub, from its tables."""
        on_disk: dict[str, list[str]] = {}
        for path in media:
            on_disk.setdefault(path.rpartition("/")[2], []).append(path)
        rows: list[ClipRow] = []
        listed: dict[str, str] = {}
        targets: list[str | None] = []
        for table in corpus.metadata:
            part = _part_of(table, corpus)
            for line, cells in _read_csv(corpus.absolute(table)):
                where = f"{corpus.absolute(table)}, line {line}"
                fake = not {_METHOD, _TARGET, _TARGET_PERSON}.isdisjoint(cells)
                if fake and _METHOD not in cells:
                    raise MetadataError(f"{where}: no column {_METHOD}; the columns are {', '.join(cells)}.")
                method = _method(cells[_METHOD], where) if fake else "real"
                if not cells[_CLIP]:
                    raise MetadataError(f"{where}: the column {_CLIP} is empty.")
                name = _file_name(cells[_CLIP])
                if name in listed:
                    raise MetadataError(f"{where}: {name} is already in {listed[name]}; a clip has one row.")
                listed[name] = where
                path = f"{part}/{method}/{name}"
                files = on_disk.get(name, [])
                missing.count(path, f"{part} {method}", bool(files))
                person = cells.get(_TARGET_PERSON if fake else _PERSON) or name.split("_")[0]
                rows.append(
                    _row(
                        corpus,
                        files[0] if files else None,
                        path,
                        FAKE if fake else REAL,
                        method,
                        identity=person,
                        donor=(cells.get(_SOURCE_PERSON) or None) if fake else None,
                        sex=cells.get(_SEX) or None,
                        place=cells.get(_PLACE) or None,
                        part=part,
                    )
                )
                targets.append(_file_name(cells[_TARGET]) if fake and cells.get(_TARGET) else None)
        genuine = {row["path"].rpartition("/")[2]: row["path"] for row in rows if row["label"] == REAL}
        for row, target in zip(rows, targets, strict=True):
            row["source"] = genuine.get(target)
        self._note_files(on_disk, listed)
        sourceless = sum(row["label"] == FAKE and row["source"] is None for row in rows)
        if sourceless:
            self.note(f"{sourceless:,} fakes have no source: no table of this copy lists the genuine clip.")
        return rows

    def _note_files(self, on_disk: dict[str, list[str]], listed: dict[str, str]) -> None:
        unlisted = [files[0] for name, files in on_disk.items() if name not in listed]
        if unlisted:
            self.note(
                f"{len(unlisted):,} mp4 files are in no table and are not used, such as {', '.join(unlisted[:3])}."
            )
        repeated = Counter({files[0]: len(files) for files in on_disk.values() if len(files) > 1})
        if repeated:
            self.note(
                f"{len(repeated):,} names are on disk more than once, such as that of {min(repeated)}: the first in "
                "alphabetical order is used. They may be clips with adversarial noise in a folder with a garbled name."
            )


def _is_adversarial(path: str) -> bool:
    plain = _normal(path).lower()
    return any(mark in plain for mark in _ADVERSARIAL)


def _part_of(table: str, corpus: Corpus) -> str:
    """The part that a table is of, from its file name or that of a folder above: `training` is plain in all of them."""
    for name in reversed(table.lower().split("/")):
        for part in _KNOWN:
            if part in name:
                return part
    raise MetadataError(f"{corpus.absolute(table)}: its name has none of {', '.join(_KNOWN)}.")


def _file_name(clip: str) -> str:
    """The file name of a clip that is listed with or without its suffix."""
    return clip if clip.lower().endswith(".mp4") else f"{clip}.mp4"


def _method(text: str, where: str) -> str:
    method = text.lower().replace("_", "-")
    if method not in _METHODS:
        raise MetadataError(
            f"{where}, column {_METHOD}: {text!r} is none of {', '.join(_METHODS)}.{nearest(method, _METHODS)}"
        )
    return method


def _row(
    corpus: Corpus, file: str | None, path: str, label: int, method: str = "real", **columns: Any
) -> ClipRow:
    """The row of a clip; `file` is where it is on disk."""
    columns = {"donor": None, "sex": None, "place": None, **columns}
    return make_row(
        video=None if file is None else corpus.absolute(file),
        path=path,
        label=label,
        video_label=label,
        audio_label=None if method == "audio-driven" else REAL,
        generator=method,
        language="ko",
        **columns,
    )

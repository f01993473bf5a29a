"""FakeAVCeleb v1.2 (Khalid et al., arXiv:2108.05080): 500 real clips of VoxCeleb2 and 21,044 fakes made from them.

The corpus has no official split. The protocols below are those of the literature, as far as a rule can reproduce their
files, and two identity-disjoint ones. Where a protocol trains, `split="train+validation"` is the training part as
published; the validation split is there to calibrate a threshold.

Only 500 of 21,544 clips are real, so accuracy says nothing: report AUC and balanced accuracy. The fakes are also known
to begin with a silence that the real clips lack (AVH-Align, arXiv:2412.00175).
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import datasets

from .builder import EVERY_CLIP, CorpusBuilder, SeededConfig
from .corpus import Corpus, MissingFiles
from .errors import MetadataError, ProtocolError
from .schema import FAKE, REAL, ClipRow, make_row
from .splits import by_split, split_twice
from .text_files import open_text

_METADATA = "meta_data.csv"
_IDENTITIES = 500  # of the whole corpus, 50 in each of the 10 groups of race and gender
_FILES = 21_544  # of v1.2, computed from its metadata
_CATEGORIES = {
    "RealVideo-RealAudio": ("A", REAL, REAL),
    "RealVideo-FakeAudio": ("B", REAL, FAKE),
    "FakeVideo-RealAudio": ("C", FAKE, REAL),
    "FakeVideo-FakeAudio": ("D", FAKE, FAKE),
}
_RACES = ("African", "Asian (East)", "Asian (South)", "Caucasian (American)", "Caucasian (European)")
_BY_ETHNICITY = {
    "Asian (South)": "train",
    "Asian (East)": "train",
    "Caucasian (American)": "train",
    "African": "validation",
    "Caucasian (European)": "test",
}
# Name -> (category, method), as in AVAD, AVFF and DiMoDif.
_HELD_OUT = {
    "rvfa": ("B", "rtvc"),
    "fvra_wl": ("C", "wav2lip"),
    "fvra_fs": ("C", "faceswap"),
    "fvra_gan": ("C", "fsgan"),
    "fvfa_fs": ("D", "faceswap-wav2lip"),
    "fvfa_gan": ("D", "fsgan-wav2lip"),
    "fvfa_wl": ("D", "wav2lip"),
}


def _plain(name: str) -> str:
    """Return a folder name without case, spaces, brackets and dashes, which copies write differently."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


_RACE_NAMES = {_plain(race): race for race in _RACES}
_TYPE_NAMES = {_plain(name): name for name in _CATEGORIES}


@dataclass
class FakeAVCelebConfig(SeededConfig):
    """Settings of `fakeavceleb`; `name` is the protocol.

    `seed` draws `random_70_30`, `identity_70_30` and the protocols built on it, and the validation split of the MRDF
    folds.
    """

    CORPUS = "FakeAVCeleb"
    LOOKED_FOR = f"the file {_METADATA}"
    SUFFIXES = (".mp4",)

    def metadata_in(self, folder: str) -> list[str]:
        """See [`CorpusConfig.metadata_in`]."""
        return [name for name in sorted(os.listdir(folder)) if name.lower() == _METADATA]


class FakeAVCeleb(CorpusBuilder):
    """FakeAVCeleb v1.2 from the folder its authors distribute.

    ```py
    >>> load_dataset("fakeavceleb", "mrdf_fold1", data_dir="FakeAVCeleb_v1.2")
    ```

    `data_dir` holds `meta_data.csv` and the four category folders, or is the folder above. Renamed race folders
    (`Asian_East`, `Asian-East`) and other differences of case and punctuation are recognised; `path` and `source` keep
    the official spelling, so that predictions from two copies can be compared.

    Protocols (an identity is the person of the genuine clip; the donor of a swapped face, in `target_ids` if the
    metadata name one, may be in another split):

    - `identity_70_30` (default): 70 / 30 by identity within each of the 10 groups of race and gender. It is the
      default because a detector tested on people it has seen can score by recognising them. The choice of identities
      is our own: others refer to the 70 / 30 split of AVFF, whose repository does not list it.
    - `random_70_30`: 70 / 30 by file within each category, the other reading of that split. Every identity is in all
      splits.
    - `mrdf_fold1` to `mrdf_fold5`: MRDF (arXiv:2401.05746), 400 / 100 identities. Its lists follow from a rule:
      within each group the sorted identities are cut in five, and fold 1 tests on the last fifth. MRDF itself uses
      four clips of each identity, an unpublished selection; all clips are used here.
    - `leave_out_<group>` with rvfa, fvra_wl, fvra_fs, fvra_gan, fvfa_fs, fvfa_gan or fvfa_wl: `identity_70_30` without
      the group in train and validation; test has that group and the real clips. The same method may remain in
      another category, as published. A file listed under two methods belongs to both groups.
    - `by_ethnicity`: by the race column, thus by identity too.
    - `all`: one split, `full`.

    Columns after the common ones: `category` (A to D), `method` (the first listed), `methods` (all, for the files
    listed twice), `race`, `gender`, `target_ids`. `generator` is `method` for a fake picture and `real` otherwise;
    `audio_generator` is `rtvc` (SV2TTS) for fake sound. `fake_segments` is not annotated: a fake is fake throughout.
    """

    BUILDER_CONFIG_CLASS = FakeAVCelebConfig
    VERSION = "1.2.0"
    PROTOCOLS = {
        "identity_70_30": "70 / 30 by identity, the 70 % again 90 / 10 into train and validation.",
        **EVERY_CLIP,
        "random_70_30": "70 / 30 by file, stratified by category; NOT identity-disjoint.",
        **{f"mrdf_fold{i}": f"fold {i} of MRDF's subject-independent cross-validation." for i in range(1, 6)},
        **{
            f"leave_out_{name}": f"identity_70_30; the fakes of method {method} in category {category} are in "
            "the test split only, with the real clips."
            for name, (category, method) in _HELD_OUT.items()
        },
        "by_ethnicity": "train Asian and American Caucasian, validation African, test European Caucasian.",
    }
    DESCRIPTION = "FakeAVCeleb v1.2: real and manipulated clips of 500 speakers of VoxCeleb2."
    HOMEPAGE = "https://github.com/DASH-Lab/FakeAVCeleb"
    CORPUS_COLUMNS = {
        "category": datasets.Value("string"),
        "method": datasets.Value("string"),
        "methods": datasets.List(datasets.Value("string")),
        "race": datasets.Value("string"),
        "gender": datasets.Value("string"),
        "target_ids": datasets.List(datasets.Value("string")),
    }
    GROUP_COLUMNS = ("race", "gender")

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]."""
        entries = _read_metadata(corpus.absolute(corpus.metadata[0]))
        on_disk = _Index(corpus.media)
        missing = MissingFiles()
        rows: list[ClipRow] = []
        listed: set[str] = set()
        for path, entry in entries.items():
            file = on_disk.find(path)
            missing.count(path, path.split("/")[0], file is not None)
            if file is not None:
                listed.add(file)
            category, video_label, audio_label = _CATEGORIES[entry["type"]]
            source = _source_of(path)
            rows.append(
                make_row(
                    None if file is None else corpus.absolute(file),
                    path,
                    max(video_label, audio_label),
                    video_label=video_label,
                    audio_label=audio_label,
                    generator=entry["methods"][0],
                    audio_generator="rtvc",
                    language="en",
                    identity=entry["identity"],
                    source=source if category != "A" and source in entries else None,
                    category=category,
                    method=entry["methods"][0],
                    methods=entry["methods"],
                    race=entry["race"],
                    gender=entry["gender"],
                    target_ids=entry["target_ids"],
                )
            )
        if len(entries) != _FILES:
            self.note_size(f"{_METADATA} lists {len(entries):,} files", f"{_FILES:,} of v1.2")
        self.note_unlisted(corpus, listed, _METADATA)
        self.note_sourceless(rows, f"{_METADATA} does not list the genuine clip")
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        protocol, seed = self.config.name, self.config.seed
        if protocol == "by_ethnicity":
            strange = Counter(row["race"] for row in rows if row["race"] not in _BY_ETHNICITY)
            if strange:
                raise ProtocolError(
                    f"by_ethnicity knows the races {_RACES}, but {_METADATA} has {dict(strange)}."
                )
            return by_split(rows, lambda row: _BY_ETHNICITY[row["race"]])
        if protocol == "random_70_30":
            splits = split_twice({row["path"]: row["category"] for row in rows}, seed)
            return by_split(rows, lambda row: splits[row["path"]])
        # Reversed, so that the first row of a person decides on the group.
        groups = {row["identity"]: f"{row['race']} {row['gender']}" for row in reversed(rows)}
        test = None
        if protocol.startswith("mrdf_fold"):
            test = mrdf_test_identities(groups, int(protocol.removeprefix("mrdf_fold")))
            if len(groups) != _IDENTITIES:
                self.note(
                    f"this copy has {len(groups)} identities, not {_IDENTITIES}: {protocol} is not the published "
                    "fold of 400 and 100 identities."
                )
        splits = split_twice(groups, seed, test=test)
        dealt = by_split(rows, lambda row: splits[row["identity"]])
        if protocol.startswith("leave_out_"):
            return _leave_out(dealt, protocol)
        return dealt


def _leave_out(dealt: dict[str, list[ClipRow]], protocol: str) -> dict[str, list[ClipRow]]:
    """Remove a group of fakes from train and validation, and all other fakes from test."""
    category, method = _HELD_OUT[protocol.removeprefix("leave_out_")]

    def held_out(row: ClipRow) -> bool:
        return row["category"] == category and method in row["methods"]

    if not any(held_out(row) for row in dealt["test"]):
        raise ProtocolError(f"{protocol}: the test identities have no {method} clip in category {category}.")
    return {
        split: [
            row
            for row in rows
            if (row["label"] == REAL or held_out(row) if split == "test" else not held_out(row))
        ]
        for split, rows in dealt.items()
    }


def mrdf_test_identities(groups: dict[str, str], fold: int) -> set[str]:
    """Return the test identities of a fold of MRDF.

    Args:
        groups (`dict[str, str]`):
            Identity -> its group of race and gender.
        fold (`int`):
            1 to 5.

    Returns:
        `set[str]`: of the sorted identities of each group, the fifth that begins at `(5 - fold) / 5`.
    """
    members: dict[str, list[str]] = {}
    for identity, group in groups.items():
        members.setdefault(group, []).append(identity)
    test: set[str] = set()
    for identities in members.values():
        n = len(identities)
        test.update(sorted(identities)[(5 - fold) * n // 5 : (6 - fold) * n // 5])
    return test


def _read_metadata(csv_path: str) -> dict[str, dict[str, Any]]:
    """Read `meta_data.csv`: relative path -> the entry of the file, in the order of the table.

    The columns are read by position: circulating copies name them differently (the official `path` is the file name,
    and the folder has no name at all). The folder column is not used: its first part differs between copies and the
    rest repeats columns 5, 6, 7 and 0. A file listed under two methods becomes one entry.
    """
    entries: dict[str, dict[str, Any]] = {}
    with open_text(csv_path) as file:
        for number, cells in enumerate(csv.reader(file), start=1):
            cells = [cell.strip() for cell in cells]
            if not any(cells) or (number == 1 and cells[0].lower() == "source"):
                continue
            where = f"{csv_path}, line {number}"
            if len(cells) < 9 or not cells[8].lower().endswith(".mp4"):
                raise MetadataError(
                    f"{where}: expected source, target1, target2, method, category, type, race, gender and an mp4 "
                    f"file name in the first nine columns, got {cells}."
                )
            identity, target1, target2, method, category, kind, race, gender, name = cells[:9]
            kind = _TYPE_NAMES.get(_plain(kind), kind)
            if kind not in _CATEGORIES or _CATEGORIES[kind][0] != category:
                raise MetadataError(
                    f"{where}: type {kind!r} and category {category!r} are no pair of FakeAVCeleb."
                )
            race = _RACE_NAMES.get(_plain(race), race)
            path = f"{kind}/{race}/{gender}/{identity}/{name}"
            entry = entries.setdefault(
                path,
                {
                    "identity": identity,
                    "type": kind,
                    "race": race,
                    "gender": gender,
                    "methods": [],
                    # The target columns also hold fragments of file names; only this form is a person.
                    "target_ids": [t for t in (target1, target2) if re.fullmatch(r"id\d{5}", t)],
                },
            )
            if method not in entry["methods"]:
                entry["methods"].append(method)
    if not entries:
        raise MetadataError(f"{csv_path} has no rows.")
    return entries


def _source_of(path: str) -> str:
    """Return the genuine clip of a fake: same speaker, and the file name up to the first underscore."""
    _, race, gender, identity, name = path.split("/")
    return f"RealVideo-RealAudio/{race}/{gender}/{identity}/{name.split('_')[0].removesuffix('.mp4')}.mp4"


class _Index:
    """The files of a copy by their official path, however the copy spells its folders."""

    def __init__(self, media: list[str]) -> None:
        self.exact: dict[tuple[str, ...], str] = {}
        self.folded: dict[tuple[str, ...], list[str]] = {}
        # Two copies under one root: the officially spelled one wins, the other is reported as not listed.
        for file in sorted(media, key=lambda f: not any(f"/{race}/" in f for race in _RACES)):
            parts = file.split("/")
            if len(parts) < 5:
                continue  # not a file of the corpus: reported as not listed
            kind, race, gender, identity, name = parts[-5:]
            folders = (_plain(kind), _plain(race), gender.lower(), identity.lower())
            self.exact.setdefault((*folders, name), file)
            self.folded.setdefault((*folders, name.lower()), []).append(file)

    def find(self, path: str) -> str | None:
        """Return the file on disk, or None. The case of a file name is ignored if that leaves one candidate."""
        kind, race, gender, identity, name = path.split("/")
        folders = (_plain(kind), _plain(race), gender.lower(), identity.lower())
        if (*folders, name) in self.exact:
            return self.exact[(*folders, name)]
        candidates = self.folded.get((*folders, name.lower()), [])
        return candidates[0] if len(candidates) == 1 else None

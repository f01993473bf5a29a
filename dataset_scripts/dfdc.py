"""DFDC (Dolhansky et al., arXiv:2006.07397): clips of paid actors, with swapped faces and some swapped voices.

Some fakes have changed sound as well, but the release does not say which ones, nor which method made a clip: only
`label` is known. Do not take a fake of this corpus for one with genuine sound.

The training set comes in 50 parts, each a download of about 10 GB, and many copies hold only some of them.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import datasets

from .builder import EVERY_CLIP, CorpusBuilder, SeededConfig
from .corpus import Corpus, MissingFiles, scan_folders
from .errors import MetadataError
from .schema import FAKE, ClipRow, make_row, parse_label
from .splits import by_split, stable_order
from .text_files import open_text

_PARTS = 50
_PART = re.compile(r"dfdc_train_part_(\d{1,2})", re.IGNORECASE)
_HELD_OUT = ("validation", "test")
_TABLES = ("labels.csv", "metadata.json")
_KNOWN_ROWS = {"train": 119_154, "validation": 4_000, "test": 5_000}
_VALIDATION_SHARE = 10  # one of so many parts


@dataclass
class DFDCConfig(SeededConfig):
    """Settings of `dfdc`; `name` is the protocol.

    `seed` draws the validation split of a copy without the folder `validation`.
    """

    CORPUS = "DFDC"
    LOOKED_FOR = (
        "dfdc_train_part_0 to dfdc_train_part_49 (here or in train/), validation or test, each with metadata.json "
        "or labels.csv"
    )

    def metadata_in(self, folder: str) -> list[str]:
        """See [`CorpusConfig.metadata_in`]."""
        return [f"{where}/{table}" for where, table in _folders(folder).values() if table is not None]

    def media_in(self, root: str) -> tuple[list[str], int]:
        """See [`CorpusConfig.media_in`]; only the folders with labels."""
        labelled = [where for where, table in _folders(root).values() if table is not None]
        return scan_folders(root, labelled, (".mp4",))


def _folders(root: str) -> dict[str, tuple[str, str | None]]:
    """Return official name of a folder -> its place below `root`, and its table of labels if it has one.

    A part may be in `train/`, have a leading zero like its archive (`dfdc_train_part_07`), and be in a folder of that
    name. If a part is there twice, the copy with labels is used.
    """
    found: dict[str, tuple[str, str | None]] = {}

    def take(folder: str) -> None:
        match = _PART.fullmatch(folder.rsplit("/", 1)[-1])
        if match is None or int(match.group(1)) >= _PARTS:
            return
        name = f"dfdc_train_part_{int(match.group(1))}"
        table = _table_in(os.path.join(root, folder), ("metadata.json",))
        if name not in found or (found[name][1] is None and table is not None):
            found[name] = (folder, table)

    for above in ("", "train/"):
        for folder in _subfolders(os.path.join(root, above)):
            take(above + folder)
            if _PART.fullmatch(folder):
                for inner in _subfolders(os.path.join(root, above, folder)):
                    take(f"{above}{folder}/{inner}")
    for folder in _HELD_OUT:
        if os.path.isdir(os.path.join(root, folder)):
            found[folder] = (folder, _table_in(os.path.join(root, folder), _TABLES))
    parts = sorted((name for name in found if name not in _HELD_OUT), key=_number)
    return {name: found[name] for name in [*parts, *_HELD_OUT] if name in found}


def _subfolders(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def _table_in(folder: str, tables: tuple[str, ...]) -> str | None:
    return next((name for name in tables if os.path.isfile(os.path.join(folder, name))), None)


def _number(part: str) -> int:
    return int(part.rsplit("_", 1)[-1])


class DFDC(CorpusBuilder):
    """DFDC from the folders its archives unpack to.

    ```py
    >>> load_dataset("dfdc", data_dir="DFDC")
    >>> load_dataset("dfdc", data_dir="DFDC", split="test")  # no training part needed
    ```

    `data_dir` holds any of `dfdc_train_part_0` to `dfdc_train_part_49` (also below `train/`), `validation` and `test`,
    or is the folder above. Each has its clips and a table: the parts `metadata.json`; the other two `labels.csv`
    (`filename`, `label`) or a `metadata.json` whose rows have `label` or `is_fake`. The
    challenge's samples (`train_sample_videos`, `test_videos`) are not read: the first are clips of the parts, the second
    have no labels.

    Protocols:

    - `official` (default): the splits of the release that are there; `train` is all parts that are there, and a note
      names the absent ones. Without the folder `validation`, one part in ten (at least one, if there are two) is moved
      from train to it, by `seed`. This is our own choice; entrants of the challenge held out parts too. A note says
      if fakes of one of the two were made from clips of the other.
    - `all`: every clip in one split, `full`.

    A part that is there must be complete: its missing clips count towards `max_missing`. A part without any clip, or
    without its table, counts as not downloaded.

    For a fake, `video_label`, `audio_label`, `generator` and `audio_generator` are None: the release does not say.
    Nor does it name the actor (`identity`) or the language. `path` has the official names of the folders; a clip that
    two parts list belongs to the lower one.

    Column after the common ones: `part`, the folder (`dfdc_train_part_7`, `validation`, `test`).
    """

    BUILDER_CONFIG_CLASS = DFDCConfig
    PROTOCOLS = {"official": "the splits of the release.", **EVERY_CLIP}
    DESCRIPTION = "DFDC: the dataset of the DeepFake Detection Challenge."
    HOMEPAGE = "https://ai.meta.com/datasets/dfdc/"
    CORPUS_COLUMNS = {"part": datasets.Value("string")}

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]."""
        missing = MissingFiles()
        rows: dict[str, ClipRow] = {}
        entries: dict[str, ClipRow] = {}  # file name -> row: a name is unique over the release
        parts_of: Counter[str] = Counter()
        without: list[str] = []
        unlisted: list[str] = []
        for part, (folder, table) in _folders(corpus.root).items():
            # By name: a copy may have the clips in a folder of their own beside the table.
            files = {file.rsplit("/", 1)[-1]: file for file in corpus.media if file.startswith(f"{folder}/")}
            if table is None or not files:
                without.append(f"{part} (no {'clips' if table else ' or '.join(_TABLES)})")
                continue
            listed = _read_table(corpus.absolute(f"{folder}/{table}"))
            unlisted += [file for name, file in files.items() if name not in listed]
            for name, (label, original) in listed.items():
                if name in entries and part not in _HELD_OUT:
                    if entries[name]["label"] != label:
                        raise MetadataError(f"{name} has other labels in {entries[name]['part']} and {part}.")
                    continue
                path = f"{part}/{name}"
                missing.count(path, part, name in files)
                rows[path] = make_row(
                    corpus.absolute(files[name]) if name in files else None,
                    path,
                    label,
                    source=original,
                    part=part,
                )
                entries.setdefault(name, rows[path])
                parts_of[part] += 1
        if not rows:
            raise MetadataError(f"{corpus.root} has no part with clips and labels: {'; '.join(without)}.")
        sourceless = 0
        for row in rows.values():
            original = entries.get(row["source"]) if row["label"] == FAKE else None
            sourceless += row["label"] == FAKE and row["source"] is not None and original is None
            row["source"] = None if original is None else original["path"]
        self._note_state(corpus, parts_of, without, unlisted, sourceless)
        return list(rows.values()), missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        parts = sorted({row["part"] for row in rows if row["part"] not in _HELD_OUT}, key=_number)
        split_of = dict.fromkeys(parts, "train") | {part: part for part in _HELD_OUT}
        if not any(row["part"] == "validation" for row in rows) and len(parts) > 1:
            held_out = stable_order(parts, self.config.seed)[: max(1, len(parts) // _VALIDATION_SHARE)]
            split_of.update(dict.fromkeys(held_out, "validation"))
            self.note(
                f"there is no folder validation: the validation split is {', '.join(sorted(held_out, key=_number))}, "
                "not in train. This is not a published split."
            )
            crossing = sum(
                row["source"] is not None and split_of[row["part"]] != split_of[row["source"].split("/")[0]]
                for row in rows
            )
            if crossing:
                self.note(
                    f"{crossing:,} fakes of train and validation have their original in the other of the two."
                )
        dealt = by_split(rows, lambda row: split_of[row["part"]])
        return {split: members for split, members in dealt.items() if members}

    def _note_state(
        self, corpus: Corpus, parts_of: Counter[str], without: list[str], unlisted: list[str], sourceless: int
    ) -> None:
        parts = [_number(part) for part in parts_of if part not in _HELD_OUT]
        absent = [number for number in range(_PARTS) if number not in parts]
        if 0 < len(absent) < _PARTS:
            self.note(
                f"{len(parts)} of the {_PARTS} training parts are there, without {_ranges(absent)}: numbers of a "
                "model trained on them may not be comparable with published ones."
            )
        sizes = {split: parts_of[split] for split in _HELD_OUT}
        if not absent:
            sizes["train"] = parts_of.total() - sum(sizes.values())
        for split, size in sizes.items():
            if size and size != _KNOWN_ROWS[split]:
                self.note(f"{split} has {size:,} clips, not the published {_KNOWN_ROWS[split]:,}.")
        absent_splits = [split for split in _HELD_OUT if not parts_of[split]] + ([] if parts else ["train"])
        if absent_splits:
            self.note(f"this copy has no {' and no '.join(absent_splits)} split of the release.")
        if without:
            self.note(f"folders that are not used: {', '.join(without)}.")
        self.note_unused(unlisted, f"mp4 files in {corpus.root} are not in the tables beside them")
        if sourceless:
            self.note(f"{sourceless:,} fakes have no source: their original is in no part that is there.")


def _ranges(numbers: list[int]) -> str:
    """Return sorted numbers as `0, 2-5, 49`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _read_table(path: str) -> dict[str, tuple[int, str | None]]:
    """Read a table of labels: file name -> its label, and the file name of its genuine clip or None."""
    listed: dict[str, tuple[int, str | None]] = {}
    for where, name, cells in _csv_rows(path) if path.endswith(".csv") else _json_rows(path):
        name = str(name).strip()
        if not name.lower().endswith(".mp4"):
            raise MetadataError(f"{where}: {name!r} is not an mp4 file.")
        if name in listed:
            raise MetadataError(f"{where}: {name} is listed twice.")
        value = cells["label"] if cells.get("label") is not None else cells.get("is_fake")
        if value is None:
            raise MetadataError(f"{where}: no label; it has {', '.join(map(str, cells)) or 'nothing'}.")
        original = cells.get("original")
        listed[name] = parse_label(value, f"{where}, label"), str(original) if original else None
    if not listed:
        raise MetadataError(f"{path} has no rows.")
    return listed


def _csv_rows(path: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    with open_text(path) as file:
        reader = csv.DictReader(file)
        if not {"filename", "label"} <= set(reader.fieldnames or ()):
            raise MetadataError(f"{path}: expected the columns filename and label, got {reader.fieldnames}.")
        for cells in reader:
            yield f"{path}, line {reader.line_num}", cells["filename"], cells


def _json_rows(path: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    with open_text(path) as file:
        try:
            table = json.load(file)
        except json.JSONDecodeError as error:
            raise MetadataError(f"{path} is not JSON ({error}); is the download complete?") from error
    if not isinstance(table, dict) or not all(isinstance(cells, dict) for cells in table.values()):
        raise MetadataError(f'{path}: expected {{"<file>.mp4": {{"label": ...}}, ...}}.')
    for name, cells in table.items():
        yield f"{path}, {name}", name, cells

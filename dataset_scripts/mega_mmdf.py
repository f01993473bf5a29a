"""Mega-MMDF (arXiv:2510.22622): 0.1 million genuine clips and 1.1 million fakes by 28 methods, in 21 combinations.

The lists of the splits name the files; a folder of each path says which track is fake: `RARV` (real audio, real video),
`RAFV`, `FARV` or `FAFV`. The layout is that of the authors' own reader in DeepfakeBench-MM; we had neither the corpus nor its
description.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import datasets

from .builder import EVERY_CLIP, CorpusBuilder, CorpusConfig
from .corpus import VIDEO_SUFFIXES, Corpus, MissingFiles
from .errors import MetadataError
from .localized import read_segments, segment_note
from .schema import FAKE, REAL, ClipRow, make_row
from .splits import by_split
from .text_files import open_text

_LISTS = {"train": "train.json", "validation": "val.json", "test": "test.json"}
_ATTRIBUTES = "attributes.json"
_ROOT = "Mega-MMDF"  # paths begin with the folder's official name
_KIND = re.compile(r"(?<![A-Z])(RARV|RAFV|FARV|FAFV)(?![A-Z])")
_TRACKS = {"RARV": (REAL, REAL), "RAFV": (FAKE, REAL), "FARV": (REAL, FAKE), "FAFV": (FAKE, FAKE)}


@dataclass
class MegaMMDFConfig(CorpusConfig):
    """Settings of `mega_mmdf`; `name` is the protocol."""

    CORPUS = "Mega-MMDF"
    LOOKED_FOR = f"{_ATTRIBUTES} and one of the lists {', '.join(_LISTS.values())}"
    SUFFIXES = VIDEO_SUFFIXES

    def holds(self, folder: str) -> bool:
        """See [`CorpusConfig.holds`]. The file of attributes tells it from other corpora with lists of these names."""
        return _ATTRIBUTES in (found := self.metadata_in(folder)) and len(found) > 1

    def metadata_in(self, folder: str) -> list[str]:
        """See [`CorpusConfig.metadata_in`]."""
        names = (*_LISTS.values(), _ATTRIBUTES)
        return [name for name in names if os.path.isfile(os.path.join(folder, name))]


class MegaMMDF(CorpusBuilder):
    """Mega-MMDF from the folder its archives unpack to.

    ```py
    >>> load_dataset("mega_mmdf", data_dir="Mega-MMDF")
    ```

    `data_dir` has `train.json`, `val.json`, `test.json` (lists of paths, which begin with `Mega-MMDF/`) and `attributes.json`
    (path -> attributes). A list that is not there is not loaded, with a note.

    Protocols:

    - `official` (default): the published lists.
    - `all`: every listed clip in one split, `full`.

    `video_label` and `audio_label` come from the folder (`RARV`, `RAFV`, `FARV`, `FAFV`). `fake_segments` is the attribute
    `partial_fake_segments`, one stretch or several; we assume seconds. It is None where a fake has none: it may be fake
    throughout. `generator` and `audio_generator` are None for fake tracks: how the attributes name the methods is not known
    to us. Nor are languages, people and genuine clips of fakes.

    Column after the common ones: `kind`, the folder.
    """

    BUILDER_CONFIG_CLASS = MegaMMDFConfig
    PROTOCOLS = {"official": "the published lists.", **EVERY_CLIP}
    DESCRIPTION = "Mega-MMDF: audio-visual forgeries by 28 methods."
    HOMEPAGE = "https://dataverse.harvard.edu/dataset.xhtml?persistentId=doi:10.7910/DVN/J4DVAA"
    CORPUS_COLUMNS = {"kind": datasets.Value("string")}
    DEALING_COLUMNS = ("split",)
    GROUP_COLUMNS = ("kind",)

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]."""
        attributes = _attributes(corpus.absolute(_ATTRIBUTES))
        on_disk = set(corpus.media)
        missing = MissingFiles()
        rows: dict[str, ClipRow] = {}
        repaired, undescribed = [], []
        for split, name in _LISTS.items():
            if name not in corpus.metadata:
                continue
            for where, path in _listed(corpus.absolute(name)):
                if path in rows:
                    raise MetadataError(f"{where}: {path} is listed already, in {rows[path]['split']}.")
                kind = _kind(path, where)
                missing.count(path, f"{split}, {kind}", path in on_disk)
                about = attributes.get(path)
                undescribed += [path] if about is None else []
                segments, changed = _segments(about or {}, f"{_ATTRIBUTES}, {path}")
                repaired += [path] if changed else []
                file = corpus.absolute(path) if path in on_disk else None
                rows[path] = _row(file, path, kind, segments, split)
        if not rows:
            raise MetadataError(f"the lists in {corpus.root} have no paths.")
        self._note(corpus, rows, repaired, undescribed)
        return list(rows.values()), missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]. A list that is not there gives no split."""
        dealt = by_split(rows, lambda row: row["split"], tuple(_LISTS))
        return {split: members for split, members in dealt.items() if members}

    def _note(
        self, corpus: Corpus, rows: Collection[str], repaired: list[str], undescribed: list[str]
    ) -> None:
        self.note_unlisted(corpus, rows, "the lists", "video files")
        if absent := [name for name in _LISTS.values() if name not in corpus.metadata]:
            self.note(f"this copy has no {', '.join(absent)}: their clips are not loaded.")
        if repaired:
            self.note(segment_note(repaired))
        if undescribed:
            self.note(
                f"{len(undescribed):,} clips are not in {_ATTRIBUTES}, such as {undescribed[0]}: the fake_segments of fakes "
                "among them are None."
            )


def _json(path: str) -> Any:
    try:
        with open_text(path) as file:
            return json.load(file)
    except json.JSONDecodeError as error:
        raise MetadataError(f"{path}: not JSON ({error}).") from error


def _official(path: str) -> str:
    """Return a path as it is below the folder: with `/`, and without the folder's own name."""
    return path.replace("\\", "/").removeprefix("./").removeprefix(f"{_ROOT}/")


def _listed(path: str) -> list[tuple[str, str]]:
    """Return each path of a list with its place."""
    content = _json(path)
    if not isinstance(content, list):
        raise MetadataError(f"{path}: expected a list of paths, got {str(content)[:80]}.")
    found = []
    for number, entry in enumerate(content):
        if not isinstance(entry, str):
            raise MetadataError(f"{path}, entry {number}: expected a path, got {str(entry)[:80]}.")
        found.append((f"{path}, entry {number}", _official(entry)))
    return found


def _attributes(path: str) -> dict[str, dict[str, Any]]:
    content = _json(path)
    if not isinstance(content, dict) or not all(isinstance(about, dict) for about in content.values()):
        raise MetadataError(f"{path}: expected an object with the attributes of each path.")
    return {_official(name): about for name, about in content.items()}


def _kind(path: str, where: str) -> str:
    found = set(_KIND.findall(path))
    if len(found) != 1:
        raise MetadataError(f"{where}: {path} names {len(found)} of {', '.join(_TRACKS)}; expected one.")
    return found.pop()


def _segments(about: dict[str, Any], where: str) -> tuple[list[list[float]] | None, bool]:
    """Return the fake stretches, None if there are none, and whether any was cut or dropped."""
    value = about.get("partial_fake_segments")
    if isinstance(value, list) and value and not isinstance(value[0], list):
        value = [value]  # one stretch
    segments, changed = read_segments(value, f"{where}, partial_fake_segments")
    return segments or None, changed


def _row(video: str | None, path: str, kind: str, segments: list[list[float]] | None, split: str) -> ClipRow:
    picture, sound = _TRACKS[kind]
    return make_row(
        video,
        path,
        max(picture, sound),
        video_label=picture,
        audio_label=sound,
        fake_segments=segments,
        kind=kind,
        split=split,
    )

"""TalkingHeadBench (arXiv:2505.24866): portraits of FFHQ that eight methods make speak, driven by clips of CelebV-HQ.

The release has the fakes and their sound. Of the genuine clips it has only the list, `real_dataset_split_official_ff++.json`:
1,000 of FaceForensics++ and 1,608 of CelebV-HQ, which their owners distribute. The layout is known from a program that reads
it, not from a description.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import datasets

from .builder import CorpusBuilder, CorpusConfig
from .corpus import SOUND_SUFFIXES, VIDEO_SUFFIXES, Corpus, MissingFiles, scan_files
from .errors import MetadataError, ProtocolError
from .schema import FAKE, REAL, ClipRow, make_row
from .splits import FULL_SPLIT, SPLITS, by_split
from .text_files import open_text

_LIST = "real/real_dataset_split_official_ff++.json"
_BLOCKS = {
    "Train": "train",
    "Val": "validation",
    "Test": "test",
}  # of the list; folders have them in lower case
_SOURCES = ("FaceForensics++", "CelebV-HQ")
_UNSEEN = "additional_dataset"  # folder of the generators that nothing is trained on
_GENERATORS = (
    "LivePortrait",
    "AniPortraitAudio",
    "AniPortraitVideo",
    "Hallo",
    "Hallo2",
    "EmoPortrait",
    "MAGI-1",
    "Hallo3",
)
_KNOWN_FAKES = 2_994


@dataclass
class TalkingHeadBenchConfig(CorpusConfig):
    """Settings of `talkingheadbench`; `name` is the protocol."""

    CORPUS = "TalkingHeadBench"
    LOOKED_FOR = f"the folder fake/ with one of {', '.join(_GENERATORS[:6])}, or with {_UNSEEN}"
    SUFFIXES = VIDEO_SUFFIXES

    def holds(self, folder: str) -> bool:
        """See [`CorpusConfig.holds`]."""
        return any(os.path.isdir(os.path.join(folder, "fake", name)) for name in (*_GENERATORS, _UNSEEN))

    def metadata_in(self, folder: str) -> list[str]:
        """See [`CorpusConfig.metadata_in`]."""
        return [_LIST] if os.path.isfile(os.path.join(folder, *_LIST.split("/"))) else []


class TalkingHeadBench(CorpusBuilder):
    """TalkingHeadBench from a local copy of its Hub repository.

    ```py
    >>> load_dataset("talkingheadbench", data_dir="TalkingHeadBench", split="test")
    ```

    `data_dir` has `fake/<generator>/{train,val,test}/` for six generators, `fake/additional_dataset/<generator>/` for two more,
    `audio/`, and `real/` with the list of the genuine clips. The genuine clips belong anywhere below `real/`: a file named on
    the list is found by its name, without its suffix. If none is there, the fakes are loaded alone, with a note.

    Protocols:

    - `official` (default): genuine clips by the list, fakes by their folders; those of `additional_dataset` (MAGI-1, Hallo3)
      are test. A name that the list has twice is in the later of train, val and test.
    - `unseen_generators`: as official, but the only fakes of test are those of `additional_dataset`.
    - `all`: one split, `full`.

    `generator` is the folder. `audio` is the file below `audio/` with the name of the clip, if there is one. We assume that
    the sound of a fake is that of the clip that drives it, thus genuine. `source` is None, as the portrait is not of a clip;
    `driver` names the clip of CelebV-HQ whose motion or sound it has, where the file name tells. `fake_segments` is not
    annotated: a fake is fake throughout.

    Columns after the common ones: `driver`; `origin` (FaceForensics++ or CelebV-HQ, of a genuine clip).
    """

    BUILDER_CONFIG_CLASS = TalkingHeadBenchConfig
    PROTOCOLS = {
        "official": "genuine clips by the published list, fakes by the published folders.",
        "unseen_generators": "as official, with the fakes of MAGI-1 and Hallo3 alone in test.",
        "all": f"every clip in one split, `{FULL_SPLIT}`.",
    }
    DESCRIPTION = "TalkingHeadBench: talking heads of eight generators."
    HOMEPAGE = "https://huggingface.co/datasets/luchaoqi/TalkingHeadBench"
    CORPUS_COLUMNS = dict.fromkeys(("driver", "origin"), datasets.Value("string"))
    DEALING_COLUMNS = ("split", "unseen")

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]. `unseen` tells the fakes of `additional_dataset`."""
        sounds = _by_stem(
            f"audio/{path}" for path in _scanned(os.path.join(corpus.root, "audio"), SOUND_SUFFIXES)
        )
        missing = MissingFiles()
        rows = self._read_genuine(corpus, missing)
        strays = []
        for path in corpus.media:
            if not path.startswith("fake/"):
                continue
            place = _place(path)
            if place is None:
                strays.append(path)
                continue
            generator, split = place
            missing.count(path, f"fake/{generator}", True)
            rows.append(
                make_row(
                    corpus.absolute(path),
                    path,
                    FAKE,
                    video_label=FAKE,
                    audio_label=REAL,
                    generator=generator,
                    driver=_driver(_stem(path), generator),
                    split=split,
                    unseen=path.startswith(f"fake/{_UNSEEN}/"),
                )
            )
        for row in rows:
            found = sounds.get(_stem(row["path"]), [])
            row["audio"] = corpus.absolute(found[0]) if len(found) == 1 else None
        self.note_unused(strays, f"videos in fake/ are in no folder of the release ({', '.join(SPLITS)})")
        fakes = sum(row["label"] == FAKE for row in rows)
        if fakes != _KNOWN_FAKES:
            self.note_size(f"this copy has {fakes:,} fakes", f"{_KNOWN_FAKES:,}")
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        dealt = by_split(rows, lambda row: row["split"])
        if self.config.name == "unseen_generators":
            dealt["test"] = [row for row in dealt["test"] if row["label"] == REAL or row["unseen"]]
            if not any(row["unseen"] for row in dealt["test"]):
                raise ProtocolError(f"unseen_generators: this copy has no clip in fake/{_UNSEEN}.")
        return {split: members for split, members in dealt.items() if members}

    def _read_genuine(self, corpus: Corpus, missing: MissingFiles) -> list[ClipRow]:
        """Return the rows of the genuine clips, none if no file of theirs is there."""
        files = _by_stem(path for path in corpus.media if path.startswith("real/"))
        if not corpus.metadata:
            self.note(
                f"this copy has no {_LIST}: the genuine clips are not known, and only fakes are loaded."
            )
            return []
        listed = _read_list(corpus.absolute(_LIST))
        if not any(stem in files for stem in listed):
            self.note(
                f"no file below real/ is named like one of the {len(listed):,} genuine clips, which FaceForensics++ and "
                "CelebV-HQ distribute: only fakes are loaded."
            )
            return []
        rows = []
        for stem, (origin, split) in listed.items():
            found = files.get(stem, [])
            if len(found) > 1:
                raise MetadataError(f"{corpus.root}: {stem} is there {len(found)} times: {', '.join(found)}.")
            path = f"real/{origin}/{stem}.mp4"  # the same in every copy, wherever the file is
            missing.count(path, f"real, {origin}", bool(found))
            rows.append(
                make_row(
                    corpus.absolute(found[0]) if found else None,
                    path,
                    REAL,
                    driver=None,
                    origin=origin,
                    split=split,
                    unseen=False,
                )
            )
        unlisted = [path for stem, paths in files.items() if stem not in listed for path in paths]
        self.note_unused(unlisted, f"videos below real/ are not in {_LIST}")
        return rows


def _scanned(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    return scan_files(folder, suffixes)[0] if os.path.isdir(folder) else []


def _stem(path: str) -> str:
    return os.path.splitext(path.rpartition("/")[2])[0]


def _by_stem(paths: Iterator[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(_stem(path), []).append(path)
    return found


def _place(path: str) -> tuple[str, str] | None:
    """Return generator and split of a fake from its folders; None for a path of another form."""
    parts = path.split("/")
    if len(parts) != 4:
        return None
    _, first, second, _ = parts
    if first == _UNSEEN:
        return second, "test"
    split = _BLOCKS.get(second.capitalize())
    return None if split is None else (first, split)


def _driver(stem: str, generator: str) -> str | None:
    """Return the driving clip in a fake's name: `<n>-<clip>` of Hallo3, else `<n>--<clip>--<generator>`; the clip may have `-`."""
    if generator == "Hallo3":
        return stem.partition("-")[2] or None
    return stem.partition("--")[2].rpartition("--")[0] or None


def _read_list(path: str) -> dict[str, tuple[str, str]]:
    """Return stem of a genuine clip -> (its origin, its split)."""
    try:
        with open_text(path) as file:
            content = json.load(file)
    except json.JSONDecodeError as error:
        raise MetadataError(f"{path}: not JSON ({error}).") from error
    listed: dict[str, tuple[str, str]] = {}
    for block, split in _BLOCKS.items():
        for origin in _SOURCES:
            for name in _names(content, block, origin, path):
                listed[_stem(name)] = (origin, split)
    if not listed:
        raise MetadataError(f"{path} names no clip under {', '.join(_BLOCKS)}.")
    return listed


def _names(content: Any, block: str, origin: str, path: str) -> list[str]:
    part = content.get(block, {}) if isinstance(content, dict) else None
    names = part.get(origin, []) if isinstance(part, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise MetadataError(
            f"{path}: expected Train, Val and Test, each with lists of file names under {' and '.join(_SOURCES)}; see "
            f"{block}, {origin}."
        )
    return names

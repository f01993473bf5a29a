"""PolyGlotFake (Hou et al., arXiv:2405.08838): clips in seven languages, dubbed into the six others.

A fake has synthetic speech in another language and lips synchronised to it: both tracks are fake in all of them. Names
tell nearly all: a genuine clip is `<language>_<number>.mp4`, a fake `<language>_<number>_to_<language>_<speech>.mp4`,
where the first two parts are the genuine clip's. The json files of the corpus add the method of the lip
synchronisation and, for genuine clips, where they are from.

The repository of the corpus describes neither the folders nor the json files. What is read here is what users of the
corpus read (tags [S] and [U] are ours, for stated and unverified):

- folders [S]: `real/<language>/`, `fake/to_<language>/`, also below `raw_dataset/`, or one folder for each pair of
  languages and method (`ar2en_Wav2Lip/`). They are not relied on, except that the last kind names the method.
- json [S]: `all_real_video.json` and `all_fake_video.json`, or one file per language, with a list under `videos` or
  `video`, of `filename`, `lang`, `source`, `characters`, and `filename`, `tts_technique`, `sync_tech`.
- whether a name may end in the method of the lip synchronisation [U]: it is read if it does.

The corpus has no official split; the protocols below are our own choice.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import datasets

from .builder import CorpusBuilder, CorpusConfig
from .corpus import Corpus, MissingFiles, find_root, scan_files
from .errors import CorpusNotFoundError, MetadataError, ProtocolError
from .schema import FAKE, REAL, ClipRow, make_row
from .splits import FULL_SPLIT, split_twice

_LANGUAGES = ("ar", "en", "es", "fr", "ja", "ru", "zh")  # ISO 639-1, as in the names
_KNOWN = {"genuine clips": 766, "fakes": 14_472}
_SPLITS = ("train", "validation", "test")
# Letters that a spelling of the method contains -> the method. The order matters: FreeVC is no method on its own.
_SPEECH = {"bark": "bark", "micro": "microtts", "xtts": "xtts", "tacotron": "tacotron", "vall": "vall-e-x"}
_LIPS = {"wav2lip": "wav2lip", "retalking": "video_retalking"}
_REAL_NAME = re.compile(r"([a-z]{2})_(\d+)", re.IGNORECASE)
_FAKE_NAME = re.compile(r"([a-z]{2})_(\d+)_to_([a-z]{2})(?:_(.+))?", re.IGNORECASE)
# Folders that make a folder the corpus: those of the release, and those of its rearrangements.
_FOLDER = re.compile(r"(raw_dataset|to_[a-z]{2}|[a-z]{2}2[a-z]{2}_\w+)", re.IGNORECASE)


@dataclass
class PolyGlotFakeConfig(CorpusConfig):
    """Settings of `polyglotfake`; `name` is the protocol.

    Attributes:
        max_missing (`float`, defaults to 0.1):
            See [`CorpusConfig`]. Larger than elsewhere: a copy that was counted had 13,605 of 14,472 fakes. The files
            of one language are more than a tenth.
        seed (`int`, defaults to 0):
            Seed of the splits.
    """

    max_missing: float = 0.1
    seed: int = 0

    def locate(self) -> Corpus:
        """Find the folder of the clips, its json files, and all mp4 files."""
        root = find_root(
            self.data_dir,
            "PolyGlotFake",
            "the folders real/ and fake/ (or raw_dataset/, to_<language>/, <language>2<language>_<method>/)",
            _holds,
        )
        media, others = scan_files(root, (".mp4",))
        metadata, _ = scan_files(root, (".json",))
        return Corpus(root, metadata, media, others)


def _holds(folder: str) -> bool:
    names = {entry.name.lower() for entry in os.scandir(folder) if entry.is_dir()}
    return {"real", "fake"} <= names or any(_FOLDER.fullmatch(name) for name in names)


class _Name(NamedTuple):
    """What a file name says; `spoken` is None for a genuine clip."""

    clip: str  # `<language>_<number>` of the genuine clip
    original: str  # its language
    spoken: str | None  # language of the fake speech
    rest: str  # the methods


def _parse(path: str) -> _Name | None:
    stem = os.path.splitext(path.rpartition("/")[2])[0]
    if match := _FAKE_NAME.fullmatch(stem):
        original, number, spoken = match[1].lower(), match[2], match[3].lower()
        if original in _LANGUAGES and spoken in _LANGUAGES:
            return _Name(f"{original}_{number}", original, spoken, match[4] or "")
    elif (match := _REAL_NAME.fullmatch(stem)) and match[1].lower() in _LANGUAGES:
        return _Name(f"{match[1].lower()}_{match[2]}", match[1].lower(), None, "")
    return None


def _method(text: str | None, known: dict[str, str]) -> str | None:
    """The method that a name, a folder or a json value contains."""
    plain = re.sub(r"[^a-z0-9]", "", (text or "").lower())
    return next((method for letters, method in known.items() if letters in plain), None)


def _configs() -> list[PolyGlotFakeConfig]:
    descriptions = {
        "source_70_30": "70 / 30 by genuine clip, the 70 % again 90 / 10 into train and validation.",
        "all": f"every clip in one split, `{FULL_SPLIT}`.",
        **{
            f"held_out_{language}": f"source_70_30; train and validation have no clip spoken or made from {language}, "
            f"test has only those spoken in {language}."
            for language in _LANGUAGES
        },
    }
    return [
        PolyGlotFakeConfig(name=name, version="1.0.0", description=text)
        for name, text in descriptions.items()
    ]


class PolyGlotFake(CorpusBuilder):
    """PolyGlotFake from the folder its archive unpacks to.

    ```py
    >>> load_dataset("polyglotfake", "held_out_ja", data_dir="PolyGlotFake")
    ```

    `data_dir` is the folder with the clips, in any arrangement, or the folder above; the json files of the corpus are
    used if they are below it. Where they are, files that they list and the disk does not have are missing files.

    Protocols, all our own choice:

    - `source_70_30` (default): 70 / 30 by genuine clip, evenly within each language; all fakes of a clip go with it.
      Clips that the json files say are from one video stay together, since they show the same person: without
      these files the split is another one, and a note says so.
    - `held_out_<language>` with ar, en, es, fr, ja, ru or zh: on `source_70_30`, train and validation lose the
      genuine clips of the language and the fakes made from or into it; test has the clips spoken in it.
    - `all`: one split, `full`.

    `language` is that of the speech: the second one in a fake's name. `generator` is wav2lip or video_retalking, and
    `audio_generator` bark, microtts, tacotron, vall-e-x or xtts (with FreeVC where the paper says so); either is None
    where neither the name nor a json file nor the folder tells. `source` is the genuine clip. `identity` is None: no
    person is named. `fake_segments` is not annotated: the fakes are whole clips.

    Columns after the common ones: `source_language` (of the genuine clip), `origin` (where the video is from, as the
    json files have it), `age` and `sex` (of the first person they describe).
    """

    BUILDER_CONFIG_CLASS = PolyGlotFakeConfig
    BUILDER_CONFIGS: ClassVar[list[PolyGlotFakeConfig]] = _configs()
    DEALING_COLUMNS = ("clip",)
    DEFAULT_CONFIG_NAME = "source_70_30"
    DESCRIPTION = "PolyGlotFake: multilingual fakes of voice and lips."
    HOMEPAGE = "https://github.com/tobuta/PolyGlotFake"
    CORPUS_COLUMNS: ClassVar[dict[str, Any]] = {
        "source_language": datasets.Value("string"),
        "origin": datasets.Value("string"),
        "age": datasets.Value("string"),
        "sex": datasets.Value("string"),
    }
    GROUP_COLUMNS: ClassVar[tuple[str, ...]] = ("source_language",)

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]. Each row has its `clip`, that of the genuine one, until `deal`."""
        listed = _read_json(corpus)
        names = {path: _parse(path) for path in corpus.media}
        strays = [path for path, name in names.items() if name is None]
        if len(strays) == len(names):
            raise CorpusNotFoundError(
                f"polyglotfake: no file in {corpus.root} is named <language>_<number>.mp4 or <language>_<number>_to_"
                f"<language>_<speech>.mp4; {len(strays):,} mp4 files are named otherwise"
                f"{', such as ' + strays[0] if strays else ''}."
            )
        found = {path.rpartition("/")[2] for path in names}
        for file in listed:
            if file not in found:
                name = _parse(file)
                folder = "" if name is None else f"{_part(name)}/"
                names[f"{folder}{file}"] = name
                strays += [file] if name is None else []
        if strays:
            self.note(
                f"{len(strays):,} files, on disk or in the json files, are not named as those of PolyGlotFake and are "
                f"not used, such as {', '.join(strays[:3])}."
            )
        on_disk = set(corpus.media)
        genuine: dict[str, str] = {}
        for path, name in names.items():
            if name is not None and name.spoken is None:
                genuine.setdefault(name.clip, path)
        origins = {clip: _only(listed, path.rpartition("/")[2], "source") for clip, path in genuine.items()}
        missing = MissingFiles()
        rows: list[ClipRow] = []
        odd = 0
        unknown: list[str] = []
        for path, name in names.items():
            if name is None:
                continue
            file = path.rpartition("/")[2]
            missing.count(path, _part(name), path in on_disk)
            lips, lips_agree = _agreed(
                _method(name.rest, _LIPS),
                _method(path.rpartition("/")[0], _LIPS),
                _method(_only(listed, file, "sync_tech"), _LIPS),
            )
            speech, speech_agrees = _agreed(
                _method(name.rest, _SPEECH), _method(_only(listed, file, "tts_technique"), _SPEECH)
            )
            odd += not (lips_agree and speech_agrees)
            if name.spoken is not None and speech is None:
                unknown.append(path)
            label = REAL if name.spoken is None else FAKE
            person = genuine.get(name.clip, "").rpartition("/")[2]
            rows.append(
                make_row(
                    video=corpus.absolute(path) if path in on_disk else None,
                    path=path,
                    label=label,
                    video_label=label,
                    audio_label=label,
                    generator=lips,
                    audio_generator=speech,
                    language=name.spoken or name.original,
                    source=genuine.get(name.clip) if label == FAKE else None,
                    source_language=name.original,
                    origin=origins.get(name.clip),
                    age=_only(listed, person, "age"),
                    sex=_only(listed, person, "sex"),
                    clip=name.clip,
                )
            )
        if odd:
            self.note(
                f"{odd:,} fakes have other methods in their name, their folder or the json files; the name is "
                "believed, then the folder."
            )
        if unknown:
            self.note(
                f"{len(unknown):,} fakes tell no method of speech synthesis that is known, such as {unknown[0]}: their "
                "audio_generator is None."
            )
        self._compare(rows, listed)
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        rows = [dict(row) for row in rows]
        groups = [row["origin"] or row["clip"] for row in rows]
        for row in rows:
            row.pop("clip")
        protocol = self.config.name
        if protocol == "all":
            return {FULL_SPLIT: rows}
        strata: dict[str, set[str]] = {}
        for row, group in zip(rows, groups, strict=True):
            strata.setdefault(group, set()).add(row["source_language"])
        splits = split_twice(
            {group: " ".join(sorted(languages)) for group, languages in strata.items()},
            self.config.seed,
        )
        dealt: dict[str, list[ClipRow]] = {split: [] for split in _SPLITS}
        for row, group in zip(rows, groups, strict=True):
            dealt[splits[group]].append(row)
        if protocol.startswith("held_out_"):
            held_out = protocol.removeprefix("held_out_")
            if not any(row["language"] == held_out for row in dealt["test"]):
                raise ProtocolError(
                    f"{protocol}: the test clips of this copy have none spoken in {held_out}."
                )
            for split in ("train", "validation"):
                dealt[split] = [
                    row for row in dealt[split] if held_out not in (row["language"], row["source_language"])
                ]
            dealt["test"] = [row for row in dealt["test"] if row["language"] == held_out]
        return dealt

    def _compare(self, rows: list[ClipRow], listed: dict[str, list[dict[str, Any]]]) -> None:
        """Note what this copy lacks, compared with what is known of the corpus."""
        genuine = sum(row["label"] == REAL for row in rows)
        counts = {"genuine clips": genuine, "fakes": len(rows) - genuine}
        if counts != _KNOWN:
            told = " and ".join(f"{n:,} {kind} (known: {_KNOWN[kind]:,})" for kind, n in counts.items())
            self.note(f"this copy has {told}: numbers from it may not compare with published ones.")
        if not listed:
            self.note(
                "this copy has no json files: the lip synchronisation is known from folders and names only, and "
                "clips of one person from one video may be in several splits."
            )
        sourceless = sum(row["label"] == FAKE and row["source"] is None for row in rows)
        if sourceless:
            self.note(f"{sourceless:,} fakes have no source: this copy does not have the genuine clip.")


def _part(name: _Name) -> str:
    """The folder of a file in the release, which is also what may be missing as a whole."""
    return f"real/{name.original}" if name.spoken is None else f"fake/to_{name.spoken}"


def _agreed(*values: str | None) -> tuple[str | None, bool]:
    """The first value that is known, and whether all known ones are the same."""
    known = [value for value in values if value is not None]
    return (known[0] if known else None), len(set(known)) < 2


def _only(listed: dict[str, list[dict[str, Any]]], file: str, key: str) -> str | None:
    """What all json entries of a file name agree on: the same name may be in the folders of two methods."""
    values = {str(entry[key]).strip() for entry in listed.get(file, []) if entry.get(key) not in (None, "")}
    return values.pop() if len(values) == 1 else None


def _read_json(corpus: Corpus) -> dict[str, list[dict[str, Any]]]:
    """Read the json files of the corpus into file name -> its entries; json files of other content are not its own.

    Raises:
        [`MetadataError`]: a file is no json, or one with a list of clips has entries without a file name.
    """
    listed: dict[str, list[dict[str, Any]]] = {}
    for path in corpus.metadata:
        where = corpus.absolute(path)
        try:
            with open(where, encoding="utf-8-sig") as file:
                content = json.load(file)
        except ValueError as error:  # of the encoding too
            raise MetadataError(f"{where}: not JSON ({error}).") from error
        if not isinstance(content, dict) or not {"videos", "video"} & content.keys():
            continue
        clips = content.get("videos", content.get("video"))
        if not isinstance(clips, list):
            raise MetadataError(f"{where}: expected a list of clips under `videos`, got {str(clips)[:120]}.")
        for number, entry in enumerate(clips):
            name = entry.get("filename") if isinstance(entry, dict) else None
            if not isinstance(name, str):
                raise MetadataError(
                    f"{where}, entry {number}: expected an object with the `filename` of a clip, such as en_1.mp4 or "
                    f"en_1_to_fr_Xtts.mp4, got {str(entry)[:120]}."
                )
            people = entry.get("characters")
            first = people[0] if isinstance(people, list) and people and isinstance(people[0], dict) else {}
            keys = ("source", "sync_tech", "tts_technique")
            listed.setdefault(name, []).append(
                {**{key: entry.get(key) for key in keys}, "age": first.get("age"), "sex": first.get("sex")}
            )
    return listed

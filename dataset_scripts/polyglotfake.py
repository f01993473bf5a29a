"""PolyGlotFake (Hou et al., arXiv:2405.08838): clips in seven languages, dubbed into the six others.

A fake has synthetic speech in another language and lips synchronised to it: both tracks of every fake are fake. File
names say nearly everything: a genuine clip is `<language>_<number>.mp4`, a fake
`<language>_<number>_to_<language>_<speech>.mp4`, whose first two parts name the genuine clip. The json files of the
corpus add the method of the lip synchronisation and the origin of genuine clips.

The repository of the corpus describes neither the folders nor the json files. This builder reads what users of the
corpus read (our own tags: [S] stated somewhere, [U] unverified):

- folders [S]: `real/<language>/`, `fake/to_<language>/`, also below `raw_dataset/`, or one folder for each pair of
  languages and method (`ar2en_Wav2Lip/`). Only the last kind is used, for the method in its name.
- json [S]: `all_real_video.json` and `all_fake_video.json`, or one file per language, with a list under `videos` or
  `video`, of `filename`, `lang`, `source`, `characters`, and `filename`, `tts_technique`, `sync_tech`.
- a file name may end in the method of the lip synchronisation [U]: then it is read.

The corpus has no official split; the protocols below are our own choice.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import datasets

from .builder import EVERY_CLIP, CorpusBuilder, SeededConfig
from .corpus import Corpus, MissingFiles, scan_files
from .errors import CorpusNotFoundError, MetadataError, ProtocolError
from .schema import FAKE, REAL, ClipRow, make_row
from .splits import by_split, split_twice
from .text_files import open_text

_LANGUAGES = ("ar", "en", "es", "fr", "ja", "ru", "zh")  # ISO 639-1, as in the names
_KNOWN = {"genuine clips": 766, "fakes": 14_472}
# Letters that a spelling of the method contains -> the method. The order matters: FreeVC is no method on its own.
_SPEECH = {"bark": "bark", "micro": "microtts", "xtts": "xtts", "tacotron": "tacotron", "vall": "vall-e-x"}
_LIPS = {"wav2lip": "wav2lip", "retalking": "video_retalking"}
_REAL_NAME = re.compile(r"([a-z]{2})_(\d+)", re.IGNORECASE)
_FAKE_NAME = re.compile(r"([a-z]{2})_(\d+)_to_([a-z]{2})(?:_(.+))?", re.IGNORECASE)
# Folders that make a folder the corpus: those of the release, and those of its rearrangements.
_FOLDER = re.compile(r"(raw_dataset|to_[a-z]{2}|[a-z]{2}2[a-z]{2}_\w+)", re.IGNORECASE)


@dataclass
class PolyGlotFakeConfig(SeededConfig):
    """Settings of `polyglotfake`; `name` is the protocol.

    Attributes:
        max_missing (`float`, defaults to 0.1):
            See [`CorpusConfig`]. Larger than elsewhere: a copy that was counted had 13,605 of 14,472 fakes. The files
            of one language are more than a tenth.
    """

    CORPUS = "PolyGlotFake"
    LOOKED_FOR = (
        "the folders real/ and fake/ (or raw_dataset/, to_<language>/, <language>2<language>_<method>/)"
    )
    SUFFIXES = (".mp4",)

    max_missing: float = 0.1

    def holds(self, folder: str) -> bool:
        """See [`CorpusConfig.holds`]."""
        names = {entry.name.lower() for entry in os.scandir(folder) if entry.is_dir()}
        return {"real", "fake"} <= names or any(_FOLDER.fullmatch(name) for name in names)

    def metadata_in(self, folder: str) -> list[str]:
        """See [`CorpusConfig.metadata_in`]."""
        return scan_files(folder, (".json",))[0]


class _Name(NamedTuple):
    """The parts of a file name; `spoken` is None for a genuine clip."""

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
    """Return the method that a name, a folder or a json value contains."""
    plain = re.sub(r"[^a-z0-9]", "", (text or "").lower())
    return next((method for letters, method in known.items() if letters in plain), None)


class PolyGlotFake(CorpusBuilder):
    """PolyGlotFake from the folder its archive unpacks to.

    ```py
    >>> load_dataset("polyglotfake", "held_out_ja", data_dir="PolyGlotFake")
    ```

    `data_dir` is the folder with the clips, in any arrangement, or the folder above; the json files of the corpus are
    used if they are below it. Where they are, files that they list and the disk does not have are missing files.

    Protocols, all our own choice:

    - `source_70_30` (default): 70 / 30 by genuine clip, evenly within each language; all fakes of a clip go with it.
      Clips that the json files trace to one video stay together, since they show the same person. Without these
      files the split is a different one, and a note says so.
    - `held_out_<language>` with ar, en, es, fr, ja, ru or zh: `source_70_30`, but train and validation lose the genuine
      clips of the language and the fakes made from or into it; test has the clips spoken in it.
    - `all`: one split, `full`.

    `language` is that of the speech: the second one in a fake's name. `generator` is wav2lip or video_retalking, and
    `audio_generator` bark, microtts, tacotron, vall-e-x or xtts (with FreeVC where the paper says so); either is None
    if neither the name nor a json file nor the folder names it. `source` is the genuine clip. `identity` is None: no
    person is named. `fake_segments` is not annotated: a fake is fake throughout.

    Columns after the common ones: `source_language` (of the genuine clip), `origin` (where the video is from,
    according to the json files), `age` and `sex` (of the first person they describe).
    """

    BUILDER_CONFIG_CLASS = PolyGlotFakeConfig
    PROTOCOLS = {
        "source_70_30": "70 / 30 by genuine clip, the 70 % again 90 / 10 into train and validation.",
        **EVERY_CLIP,
        **{
            f"held_out_{language}": f"source_70_30; train and validation have no clip spoken or made from {language}, "
            f"test has only those spoken in {language}."
            for language in _LANGUAGES
        },
    }
    DESCRIPTION = "PolyGlotFake: multilingual fakes of voice and lips."
    HOMEPAGE = "https://github.com/tobuta/PolyGlotFake"
    CORPUS_COLUMNS = dict.fromkeys(("source_language", "origin", "age", "sex"), datasets.Value("string"))
    DEALING_COLUMNS = ("clip",)
    GROUP_COLUMNS = ("source_language",)

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]. `clip` is the name of the genuine clip, without its suffix."""
        listed = _read_json(corpus)
        names = self._names(corpus, listed)
        on_disk = set(corpus.media)
        genuine: dict[str, str] = {}
        for path, name in names.items():
            if name.spoken is None:
                genuine.setdefault(name.clip, path)
        missing = MissingFiles()
        rows: list[ClipRow] = []
        odd = 0
        for path, name in names.items():
            missing.count(path, _part(name), path in on_disk)
            lips, speech, agree = _methods(path, name, listed)
            odd += not agree
            label = REAL if name.spoken is None else FAKE
            original = genuine.get(name.clip)
            about = {
                column: _only(listed, (original or "").rpartition("/")[2], key)
                for column, key in (("origin", "source"), ("age", "age"), ("sex", "sex"))
            }
            rows.append(
                make_row(
                    corpus.absolute(path) if path in on_disk else None,
                    path,
                    label,
                    video_label=label,
                    audio_label=label,
                    generator=lips,
                    audio_generator=speech,
                    language=name.spoken or name.original,
                    source=original if label == FAKE else None,
                    source_language=name.original,
                    **about,
                    clip=name.clip,
                )
            )
        if odd:
            self.note(
                f"{odd:,} fakes have different methods in their name, their folder or the json files; the name is "
                "believed, then the folder."
            )
        unknown = [row["path"] for row in rows if row["audio_generator"] is None]
        if unknown:
            self.note(
                f"{len(unknown):,} fakes name no known method of speech synthesis, such as {unknown[0]}: their "
                "audio_generator is None."
            )
        self._compare(rows, listed)
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        languages: dict[str, set[str]] = {}
        for row in rows:
            languages.setdefault(_group(row), set()).add(row["source_language"])
        strata = {group: " ".join(sorted(found)) for group, found in languages.items()}
        splits = split_twice(strata, self.config.seed)
        dealt = by_split(rows, lambda row: splits[_group(row)])
        if self.config.name.startswith("held_out_"):
            return self._hold_out(dealt, self.config.name.removeprefix("held_out_"))
        return dealt

    def _hold_out(self, dealt: dict[str, list[ClipRow]], language: str) -> dict[str, list[ClipRow]]:
        """Remove a language from train and validation, and all others from test."""
        tested = [row for row in dealt["test"] if row["language"] == language]
        if not tested:
            raise ProtocolError(f"{self.config.name}: this copy has no test clip spoken in {language}.")
        kept = {
            split: [row for row in rows if language not in (row["language"], row["source_language"])]
            for split, rows in dealt.items()
        }
        return {**kept, "test": tested}

    def _names(self, corpus: Corpus, listed: dict[str, list[dict[str, Any]]]) -> dict[str, _Name]:
        """Return path -> its parsed name, of all files on disk and in the json files."""
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
        self.note_unused(
            strays, "files, on disk or in the json files, are not named like those of PolyGlotFake"
        )
        return {path: name for path, name in names.items() if name is not None}

    def _compare(self, rows: list[ClipRow], listed: dict[str, list[dict[str, Any]]]) -> None:
        """Note what this copy lacks, compared with what is known of the corpus."""
        genuine = sum(row["label"] == REAL for row in rows)
        counts = {"genuine clips": genuine, "fakes": len(rows) - genuine}
        if counts != _KNOWN:
            found, known = (
                " and ".join(f"{n:,} {kind}" for kind, n in counted.items()) for counted in (counts, _KNOWN)
            )
            self.note_size(f"this copy has {found}", known)
        if not listed:
            self.note(
                "this copy has no json files: the lip synchronisation is known from folders and names only, and "
                "clips of one person from one video may be in several splits."
            )
        self.note_sourceless(rows, "this copy does not have the genuine clip")


def _group(row: ClipRow) -> str:
    """Return what stays in one split: the clips from one video, or a genuine clip and its fakes."""
    return row["origin"] or row["clip"]


def _methods(
    path: str, name: _Name, listed: dict[str, list[dict[str, Any]]]
) -> tuple[str | None, str | None, bool]:
    """Return the methods of the lips and of the speech, and whether name, folder and json files agree on them."""
    folder, _, file = path.rpartition("/")
    lips, lips_agree = _agreed(
        _method(name.rest, _LIPS),
        _method(folder, _LIPS),
        _method(_only(listed, file, "sync_tech"), _LIPS),
    )
    speech, speech_agrees = _agreed(
        _method(name.rest, _SPEECH), _method(_only(listed, file, "tts_technique"), _SPEECH)
    )
    return lips, speech, lips_agree and speech_agrees


def _part(name: _Name) -> str:
    """Return the folder of a file in the release, which may be missing as a whole."""
    return f"real/{name.original}" if name.spoken is None else f"fake/to_{name.spoken}"


def _agreed(*values: str | None) -> tuple[str | None, bool]:
    """Return the first known value, and whether all known values are the same."""
    known = [value for value in values if value is not None]
    return (known[0] if known else None), len(set(known)) < 2


def _only(listed: dict[str, list[dict[str, Any]]], file: str, key: str) -> str | None:
    """Return the value on which all json entries of a file name agree: two methods may use the same name."""
    values = {str(entry[key]).strip() for entry in listed.get(file, []) if entry.get(key) not in (None, "")}
    return values.pop() if len(values) == 1 else None


def _read_json(corpus: Corpus) -> dict[str, list[dict[str, Any]]]:
    """Read the json files of the corpus: file name -> its entries. Other json files are ignored.

    Raises:
        [`MetadataError`]: a file is not json, or a list of clips has an entry without a file name.
    """
    listed: dict[str, list[dict[str, Any]]] = {}
    for path in corpus.metadata:
        where = corpus.absolute(path)
        try:
            with open_text(where) as file:
                content = json.load(file)
        except json.JSONDecodeError as error:
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

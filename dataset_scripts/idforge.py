"""IDForge v1 (Xu et al., arXiv:2401.11764): clips of 54 celebrities and ten kinds of forgery of them.

The first folder of a path says how a clip was made. Some kinds are fake in the picture, some in the sound, some in
both; two pair a fake picture with a genuine recording of somebody else. The text manipulations of the corpus (a
transcript that does not fit) touch neither track.

Only v1 is media. v2, used in the paper, is 16 frames per clip as numpy arrays with an mp3 and a transcript.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import datasets

from .builder import EVERY_CLIP, CorpusBuilder, CorpusConfig
from .corpus import VIDEO_SUFFIXES, Corpus, MissingFiles, scan_folders
from .errors import CorpusNotFoundError, MetadataError, ProtocolError, nearest
from .schema import FAKE, REAL, ClipRow, make_row
from .splits import by_split

_GENUINE = "pristine"
# Folder -> (picture, sound, method of the sound, manipulation of the transcript).
_CATEGORIES: dict[str, tuple[int, int, str, str | None]] = {
    _GENUINE: (REAL, REAL, "real", None),
    "face_audiomismatch_textmismatch": (FAKE, REAL, "real", "textmismatch"),
    "face_rvc_textmismatch": (FAKE, FAKE, "rvc", "textmismatch"),
    "face_tts": (FAKE, FAKE, "tortoise", None),
    "face_tts_textgen": (FAKE, FAKE, "tortoise", "textgen"),
    "lip_audiomismatch_textmismatch": (FAKE, REAL, "real", "textmismatch"),
    "lip_rvc_textmismatch": (FAKE, FAKE, "rvc", "textmismatch"),
    "lip_tts_textgen": (FAKE, FAKE, "tortoise", "textgen"),
    "rvc_textmismatch": (REAL, FAKE, "rvc", "textmismatch"),
    "tts_textgen": (REAL, FAKE, "tortoise", "textgen"),
    "tts_textmismatch": (REAL, FAKE, "tortoise", "textmismatch"),
}
_FACE_SWAPS = ("infoswap", "roop", "simswap")  # the last part of a file name of the face_ folders
_LISTS = {"train.csv": "train", "val.csv": "validation", "test.csv": "test"}
_LIST_SOURCE = "https://github.com/xyyandxyy/IDForge, folder IDForge_v1"
_MAIN = "main"
_KNOWN_VALIDATION = 17_343  # lines of val.csv; we do not know the sizes of the other two lists


@dataclass
class IDForgeConfig(CorpusConfig):
    """Settings of `idforge`; `name` is the protocol."""

    CORPUS = "IDForge"
    LOOKED_FOR = (
        f"the unpacked folders of IDForge v1, such as {_GENUINE}/ and face_tts/, or {_MAIN}/ with them"
    )

    def locate(self) -> Corpus:
        """See [`CorpusConfig.locate`]. The root is the folder that directly holds the kinds of forgery."""
        _refuse_v2(self.data_dir)
        corpus = super().locate()
        if not _categories_in(corpus.root):
            root = os.path.join(corpus.root, _MAIN)
            corpus = Corpus(root, self.metadata_in(root), *self.media_in(root))
        return corpus

    def holds(self, folder: str) -> bool:
        """See [`CorpusConfig.holds`]."""
        return bool(_categories_in(folder) or _categories_in(os.path.join(folder, _MAIN)))

    def metadata_in(self, folder: str) -> list[str]:
        """Return the split lists of the folder itself, of the one above it, or of `IDForge_v1` in either.

        They come with the repository of the corpus, not with its archives, so copies have them in various places.
        """
        places = ["", "IDForge_v1/", "../", "../IDForge_v1/"]
        found = []
        for name in _LISTS:
            paths = [f"{place}{name}" for place in places if _is_list(os.path.join(folder, place, name))]
            found += paths[:1]
        return found

    def media_in(self, root: str) -> tuple[list[str], int]:
        """See [`CorpusConfig.media_in`]; the reference set (`ref/`) is in no split and is not read."""
        media, others = scan_folders(root, _categories_in(root))
        return sorted(media), others


def _categories_in(folder: str) -> list[str]:
    return [name for name in _CATEGORIES if os.path.isdir(os.path.join(folder, name))]


def _is_list(path: str) -> bool:
    """Return whether a file is a split list; any other `train.csv` may lie above an unpacked corpus."""
    if not os.path.isfile(path):
        return False
    first = next(_lines(path), (0, ""))[1]
    return first.split("/")[0] in _CATEGORIES


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield each line of a list that is not empty as (its number, the path with `/`)."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            entry = line.strip().strip('"').replace("\\", "/").removeprefix("./").lstrip("/")
            entry = entry.removeprefix(f"{_MAIN}/")
            if entry:
                yield number, entry


def _refuse_v2(data_dir: str | None) -> None:
    """Refuse IDForge v2: its frames are numpy arrays, without timestamps."""
    if not data_dir or not os.path.isdir(os.path.expanduser(data_dir)):
        return
    for part in ("train", "val", "test"):
        for above in ("", "IDForge_v2"):
            folder = os.path.join(os.path.expanduser(data_dir), above, part)
            for category in _categories_in(folder):
                for _, _, files in os.walk(os.path.join(folder, category)):
                    if any(name.endswith(".npy") for name in files):
                        raise CorpusNotFoundError(
                            f"IDForge: {os.path.abspath(folder)} is IDForge v2, whose clips are 16 frames as numpy "
                            "arrays (frames_ndarray.npy) and an mp3: not media that can be decoded. Take IDForge v1, "
                            "the mp4 version."
                        )
                    if files:
                        break  # one clip's folder is enough to tell the versions apart


class IDForge(CorpusBuilder):
    """IDForge v1 from the folders that its archives unpack to.

    ```py
    >>> load_dataset("idforge", data_dir="IDForge_v1")
    ```

    `data_dir` is `main/` (the folder of `pristine/`, `face_tts/` and the others) or the folder above it. The lists
    `train.csv`, `val.csv` and `test.csv` (a path in each line, no header) are not in the archives: take them from
    the folder `IDForge_v1` of the repository and put them into `main/` or above it. The reference set `ref/` is not
    used.

    Protocols:

    - `official` (default): the published lists.
    - `all`: one split, `full`. Without any list, it has every clip on disk.

    Labels follow from the folder. The sound of the `audiomismatch` kinds is a genuine recording of another person of
    the same gender: `audio_label` is real and `audio_shuffled` is true, and the clip is fake by its picture.

    `generator` is the method of the picture: `wav2lip` for the `lip_` folders, and `<swap>-wav2lip` for the `face_`
    ones, which are face swaps on a stand-in with the lips synchronised; `<swap>` (infoswap, roop, simswap) is read
    from the file name. `audio_generator` is `tortoise` or `rvc`. `identity` is the celebrity; for a swap, the one whose
    face was put on. `source` is the pristine clip of the same session and name, if there is one: the corpus does not
    state it, but the lists number genuine and forged shots alike. Swaps have none, since their stand-ins are not in
    the release. The speech is English. `fake_segments` is not annotated.

    Columns after the common ones: `category` (the folder), `session` (the video that the shot is from),
    `text_manipulation` (`textgen`, `textmismatch` or None), `audio_shuffled`.
    """

    BUILDER_CONFIG_CLASS = IDForgeConfig
    PROTOCOLS = {"official": "the published lists.", **EVERY_CLIP}
    DESCRIPTION = "IDForge v1: identity-driven forgeries of 54 celebrities in picture, sound and text."
    HOMEPAGE = "https://github.com/xyyandxyy/IDForge"
    CORPUS_COLUMNS = {
        "category": datasets.Value("string"),
        "session": datasets.Value("string"),
        "text_manipulation": datasets.Value("string"),
        "audio_shuffled": datasets.Value("bool"),
    }
    DEALING_COLUMNS = ("split",)
    GROUP_COLUMNS = ("category",)

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]. Without lists, the `split` of each row is None."""
        splits = self._read_lists(corpus)
        entries = splits or dict.fromkeys(corpus.media)
        on_disk = set(corpus.media)
        missing = MissingFiles()
        rows: list[ClipRow] = []
        for path, split in entries.items():
            missing.count(path, path.split("/")[0], path in on_disk)
            file = corpus.absolute(path) if path in on_disk else None
            rows.append(_row(file, path, entries, split))
        strange = [row["path"] for row in rows if row["generator"] is None]
        if strange:
            self.note(
                f"{len(strange):,} clips of the face_ folders name none of {', '.join(_FACE_SWAPS)}, such as "
                f"{strange[0]}: their generator is None."
            )
        self.note_unlisted(corpus, entries, "a list", "video files")
        if not rows:
            raise CorpusNotFoundError(
                f"idforge: no video file in the folders {', '.join(_categories_in(corpus.root))} of {corpus.root}; "
                f"{corpus.others:,} files are of another kind."
            )
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        given = {row["split"] for row in rows}
        absent = [name for name, split in _LISTS.items() if split not in given]
        if absent:
            raise ProtocolError(
                f"idforge: no list {' and no list '.join(absent)}. The lists are not in the archives: take them from "
                f"{_LIST_SOURCE}, and put them next to the folder {_GENUINE}. The config 'all' needs none."
            )
        return by_split(rows, lambda row: row["split"])

    def _read_lists(self, corpus: Corpus) -> dict[str, str]:
        """Return path -> its split, in the order of the lists."""
        splits: dict[str, str] = {}
        lines = 0
        for list_path in corpus.metadata:
            split = _LISTS[list_path.rpartition("/")[2]]
            for number, entry in _lines(corpus.absolute(list_path)):
                where = f"{os.path.normpath(corpus.absolute(list_path))}, line {number}"
                category = entry.split("/")[0]
                if category not in _CATEGORIES or not entry.lower().endswith(VIDEO_SUFFIXES):
                    raise MetadataError(
                        f"{where}: expected <kind>/<identity>/<session>/<file>.mp4, got {entry!r}."
                        f"{nearest(category, _CATEGORIES)}"
                    )
                first = splits.setdefault(entry, split)
                if first != split:
                    raise MetadataError(f"{where}: {entry} is in the {first} list too.")
                lines += 1
        if lines > len(splits):
            self.note(f"{lines - len(splits):,} lines of the lists repeat a clip; each clip is kept once.")
        validation = sum(split == "validation" for split in splits.values())
        if validation and validation != _KNOWN_VALIDATION:
            self.note_size(f"val.csv of this copy has {validation:,} clips", f"{_KNOWN_VALIDATION:,}")
        return splits


def _row(file: str | None, path: str, known: dict[str, Any], split: str | None) -> ClipRow:
    """Build the row of a clip; `known` has the paths of all clips."""
    category, *folders, name = path.split("/")
    video_label, audio_label, audio_generator, text_manipulation = _CATEGORIES[category]
    # `x.mp3.mp4` is a clip with the converted voice `x.mp3`.
    stem = os.path.splitext(name)[0].removesuffix(".mp3")
    generator, source = "real", None
    if category.startswith("face_"):
        swap = stem.rpartition("_")[2]
        generator = f"{swap}-wav2lip" if swap in _FACE_SWAPS else None
    elif category != _GENUINE:
        generator = "wav2lip" if category.startswith("lip_") else "real"
        source = "/".join((_GENUINE, *folders, f"{stem}.mp4"))
    person = re.match(r"id\d+", folders[0] if folders else name)
    return make_row(
        file,
        path,
        max(video_label, audio_label),
        video_label=video_label,
        audio_label=audio_label,
        generator=generator,
        audio_generator=audio_generator,
        language="en",
        identity=person.group() if person else None,
        source=source if source in known else None,
        category=category,
        session=folders[1] if len(folders) > 1 else None,
        text_manipulation=text_manipulation,
        audio_shuffled="audiomismatch" in category,
        split=split,
    )

"""IDForge v1 (Xu et al., arXiv:2401.11764): clips of 54 celebrities and ten kinds of forgery of them.

The first folder of a path says how a clip was made. Some kinds are fake in the picture, some in the sound, some in
both; two pair a fake picture with a genuine recording of somebody else. The text manipulations of the corpus (a
transcript that does not fit) concern none of the two tracks.

Only v1 is media. v2, used in the paper, is 16 frames per clip as numpy arrays with an mp3 and a transcript.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import datasets

from .builder import CorpusBuilder, CorpusConfig
from .corpus import VIDEO_SUFFIXES, Corpus, MissingFiles, find_root, scan_files
from .errors import CorpusNotFoundError, MetadataError, ProtocolError, nearest
from .schema import FAKE, REAL, ClipRow, make_row
from .splits import FULL_SPLIT

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
_KNOWN_VALIDATION = 17_343  # lines of val.csv; the sizes of the two other lists are not known to us


@dataclass
class IDForgeConfig(CorpusConfig):
    """Settings of `idforge`; `name` is the protocol."""

    def locate(self) -> Corpus:
        """Find the folder of the kinds of forgery, the lists, and all video files in the folders of the kinds.

        The reference set (`ref/`) is no part of the splits and is not looked into.
        """
        _refuse_v2(self.data_dir)
        root = find_root(
            self.data_dir,
            "IDForge",
            f"the unpacked folders of IDForge v1, such as {_GENUINE}/ and face_tts/, or {_MAIN}/ with them",
            lambda d: bool(_categories_in(d)),
        )
        if not _categories_in(root, below_main=False):
            root = os.path.join(root, _MAIN)
        media: list[str] = []
        others = 0
        for category in _categories_in(root, below_main=False):
            found, more = scan_files(os.path.join(root, category))
            media += [f"{category}/{path}" for path in found]
            others += more
        return Corpus(root, _lists_near(root), sorted(media), others)


def _categories_in(folder: str, below_main: bool = True) -> list[str]:
    found = [name for name in _CATEGORIES if os.path.isdir(os.path.join(folder, name))]
    return (
        _categories_in(os.path.join(folder, _MAIN), below_main=False) if below_main and not found else found
    )


def _lists_near(root: str) -> list[str]:
    """The split lists, from the folder of the kinds, from the one above it, or from `IDForge_v1` in either.

    The lists are not in the archives but in the repository of the corpus, so copies have them in various places.
    """
    places = ["", "IDForge_v1/", "../", "../IDForge_v1/"]
    found = []
    for name in _LISTS:
        paths = [f"{place}{name}" for place in places if _is_list(os.path.join(root, place, name))]
        found += paths[:1]
    return found


def _is_list(path: str) -> bool:
    """Whether a file is a split list: the folder above an unpacked corpus may hold any other `train.csv`."""
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
    """Tell the holder of IDForge v2 what to do: its frames are numpy arrays, without their times."""
    if not data_dir or not os.path.isdir(os.path.expanduser(data_dir)):
        return
    for part in ("train", "val", "test"):
        for above in ("", "IDForge_v2"):
            folder = os.path.join(os.path.expanduser(data_dir), above, part)
            for category in _categories_in(folder, below_main=False):
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
    from the file name. `audio_generator` is `tortoise` or `rvc`. `identity` is the celebrity, that is, for a swap,
    the one whose face was put on. `source` is the pristine clip of the same session and name, if there is one: the
    corpus does not state it, but the lists use one numbering for the shots, genuine and forged. Swaps have none,
    since their stand-ins are not in the release. The speech is English. `fake_segments` is not annotated.

    Columns after the common ones: `category` (the folder), `session` (the video that the shot is from),
    `text_manipulation` (`textgen`, `textmismatch` or None), `audio_shuffled`.
    """

    BUILDER_CONFIG_CLASS = IDForgeConfig
    BUILDER_CONFIGS: ClassVar[list[IDForgeConfig]] = [
        IDForgeConfig(name="official", version="1.0.0", description="the published lists."),
        IDForgeConfig(name="all", version="1.0.0", description=f"every clip in one split, `{FULL_SPLIT}`."),
    ]
    DEALING_COLUMNS = ("split",)
    DEFAULT_CONFIG_NAME = "official"
    DESCRIPTION = "IDForge v1: identity-driven forgeries of 54 celebrities in picture, sound and text."
    HOMEPAGE = "https://github.com/xyyandxyy/IDForge"
    CORPUS_COLUMNS: ClassVar[dict[str, Any]] = {
        "category": datasets.Value("string"),
        "session": datasets.Value("string"),
        "text_manipulation": datasets.Value("string"),
        "audio_shuffled": datasets.Value("bool"),
    }
    GROUP_COLUMNS: ClassVar[tuple[str, ...]] = ("category",)

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]. Each row has its `split`, None without lists, until `deal`."""
        splits = self._read_lists(corpus)
        entries = splits or dict.fromkeys(corpus.media)
        on_disk = set(corpus.media)
        missing = MissingFiles()
        rows: list[ClipRow] = []
        strange: list[str] = []
        for path, split in entries.items():
            missing.count(path, path.split("/")[0], path in on_disk)
            rows.append(_row(corpus, path, path in on_disk, entries, strange, split))
        if strange:
            self.note(
                f"{len(strange):,} clips of the face_ folders name none of {', '.join(_FACE_SWAPS)}, such as "
                f"{strange[0]}: their generator is None."
            )
        unlisted = [path for path in corpus.media if path not in entries]
        if unlisted:
            self.note(
                f"{len(unlisted):,} video files in {corpus.root} are in no list and are not used, such as "
                f"{', '.join(unlisted[:3])}."
            )
        if not rows:
            raise CorpusNotFoundError(
                f"idforge: no video file in the folders {', '.join(_categories_in(corpus.root))} of {corpus.root}; "
                f"{corpus.others:,} files are of another kind."
            )
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        rows = [dict(row) for row in rows]
        given = [row.pop("split") for row in rows]
        if self.config.name == "all":
            return {FULL_SPLIT: rows}
        absent = [name for name, split in _LISTS.items() if split not in given]
        if absent:
            raise ProtocolError(
                f"idforge: no list {' and no list '.join(absent)}. The lists are not in the archives: take them from "
                f"{_LIST_SOURCE}, and put them next to the folder {_GENUINE}. The config 'all' needs none."
            )
        return {
            split: [row for row, s in zip(rows, given, strict=True) if s == split]
            for split in _LISTS.values()
        }

    def _read_lists(self, corpus: Corpus) -> dict[str, str]:
        """Path -> its split, in the order of the lists."""
        splits: dict[str, str] = {}
        repeated = 0
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
                repeated += 1
        repeated -= len(splits)
        if repeated:
            self.note(f"{repeated:,} lines of the lists repeat a clip; each clip is kept once.")
        validation = sum(split == "validation" for split in splits.values())
        if validation and validation != _KNOWN_VALIDATION:
            self.note(
                f"val.csv of this copy has {validation:,} clips, not the known {_KNOWN_VALIDATION:,}: numbers from it "
                "may not compare with published ones."
            )
        return splits


def _row(
    corpus: Corpus, path: str, present: bool, known: dict[str, Any], strange: list[str], split: str | None
) -> ClipRow:
    """The row of a clip; a swap whose name tells no method is added to `strange`."""
    category, *folders, name = path.split("/")
    video_label, audio_label, audio_generator, text_manipulation = _CATEGORIES[category]
    stem = os.path.splitext(name)[0].removesuffix(
        ".mp3"
    )  # `x.mp3.mp4`: a clip with the converted voice `x.mp3`
    generator, source = None, None
    if category.startswith("face_"):
        swap = stem.rpartition("_")[2]
        if swap in _FACE_SWAPS:
            generator = f"{swap}-wav2lip"
        else:
            strange.append(path)
    elif category != _GENUINE:
        generator = "wav2lip" if category.startswith("lip_") else "real"
        source = "/".join((_GENUINE, *folders, f"{stem}.mp4"))
    person = re.match(r"id\d+", folders[0] if folders else name)
    return make_row(
        video=corpus.absolute(path) if present else None,
        path=path,
        label=max(video_label, audio_label),
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

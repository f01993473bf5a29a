"""AV-Deepfake1M (Cai et al., arXiv:2311.15308): a million VoxCeleb2 clips whose words a language model replaced.

The metadata name the modified tracks in two ways: by `modify_type`, and by one list of stretches for the picture and
one for the sound. The labels here are read from both. (The authors' package looks for `both-modified`, the files say
`both_modified`: its `modify_video` and `modify_audio` are false for a third of the fakes.)

The test split is published without labels and cannot be loaded; its scores come from the authors' server. Most papers
therefore report the validation split: `load_dataset("av_deepfake1m", split="validation")`.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from typing import Any, ClassVar

import datasets

from .builder import CorpusBuilder
from .corpus import Corpus, MissingFiles, scan_folders
from .errors import CorpusNotFoundError, MetadataError
from .json_list import read_json_list
from .localized import PartsConfig, read_segments, require_folders, segment_note
from .schema import FAKE, REAL, ClipRow, make_row
from .splits import FULL_SPLIT, by_split

_SPLITS = {"train": "train", "val": "validation"}  # folder -> split
_UNLABELLED = ("test", "testA", "testB", "test_files.txt", "testA_files.txt", "testB_files.txt")
_TRACKS = {  # modify_type -> labels of picture and sound
    "real": (REAL, REAL),
    "visual_modified": (FAKE, REAL),
    "audio_modified": (REAL, FAKE),
    "both_modified": (FAKE, FAKE),
}
_NEEDED = ("file", "modify_type", "fake_segments")
_SEGMENTS = ("fake_segments", "visual_fake_segments", "audio_fake_segments")
_SECONDS = datasets.List(datasets.List(datasets.Value("float64")))
ORIGINS = ("vox_celeb_2", "lrs3", "silent_videos")  # first folders of the second edition


def _metadata_of(part: str) -> str:
    return f"{part}_metadata.json"


@dataclass
class AVDeepfake1MConfig(PartsConfig):
    """Settings of `av_deepfake1m` and `av_deepfake1m_pp`; `name` is the protocol.

    `parts` names `train` or `val`. Without it, a part is loaded if its metadata file is there.
    """

    CORPUS = "AV-Deepfake1M"
    LOOKED_FOR = " or ".join(map(_metadata_of, _SPLITS))
    PARTS = _SPLITS

    def holds(self, folder: str) -> bool:
        """See [`CorpusConfig.holds`]."""
        return any(os.path.isfile(os.path.join(folder, _metadata_of(part))) for part in _SPLITS)

    def metadata_in(self, folder: str) -> list[str]:
        """See [`CorpusConfig.metadata_in`]."""
        wanted = list(map(_metadata_of, self.wanted_parts()))
        there = [name for name in wanted if os.path.isfile(os.path.join(folder, name))]
        if self.parts and there != wanted:
            absent = [name for name in wanted if name not in there]
            raise CorpusNotFoundError(f"{self.CORPUS}: there is no {' and no '.join(absent)} in {folder}.")
        return there

    def media_in(self, root: str) -> tuple[list[str], int]:
        """See [`CorpusConfig.media_in`]; only the parts with metadata."""
        parts = [name.removesuffix("_metadata.json") for name in self.metadata_in(root)]
        return scan_folders(root, parts, (".mp4",))


@dataclass
class _Oddities:
    """Paths of clips whose metadata are repaired, incomplete or contradictory."""

    repaired: list[str] = field(default_factory=list)
    unmarked: list[str] = field(default_factory=list)
    contradictory: list[str] = field(default_factory=list)


class AVDeepfake1M(CorpusBuilder):
    """AV-Deepfake1M from the folder its authors distribute.

    ```py
    >>> load_dataset("av_deepfake1m", data_dir="AV-Deepfake1M", parts=["val"])
    ```

    `data_dir` holds `train_metadata.json` and `val_metadata.json`, or one of them, and beside each the folder `train`
    or `val` that its archive unpacks to; or is the folder above. The paths in the metadata may begin with that folder
    or not, and the archive may have been unpacked inside a folder of its name (`val/val/...`).

    Protocols:

    - `official` (default): the splits of the corpus that are there; `val` is named `validation`.
    - `all`: these clips in one split, `full`.

    The labels of picture and sound follow `modify_type`. Where `visual_fake_segments` or `audio_fake_segments`
    contradict it, both are None for that fake, with a note. Localisation is scored on `fake_segments`; it is None for a
    fake that lists none. `generator` is TalkLip for every fake picture, as the paper says (the metadata do not), spelled
    as in AV-Deepfake1M++; `audio_generator` is `audio_model`. `identity` is the speaker of VoxCeleb2. The language is
    not given (VoxCeleb2 has several).

    With all 803,520 clips, the rows take a few GB of memory while the table is built.

    Columns after the common ones: `modify_type`, `visual_fake_segments`, `audio_fake_segments` (`[start, end]` in s,
    None where not given), `video_frames`, `audio_frames` (in samples; 0 or None: no sound).
    """

    BUILDER_CONFIG_CLASS = AVDeepfake1MConfig
    PROTOCOLS = {
        "official": "the splits of the corpus, val as validation; test has no labels.",
        "all": f"every labelled clip in one split, `{FULL_SPLIT}`.",
    }
    DESCRIPTION = "AV-Deepfake1M: LLM-driven audio-visual deepfakes with replaced words."
    HOMEPAGE = "https://github.com/ControlNet/AV-Deepfake1M"
    CORPUS_COLUMNS = {
        "modify_type": datasets.Value("string"),
        "visual_fake_segments": _SECONDS,
        "audio_fake_segments": _SECONDS,
        "video_frames": datasets.Value("int64"),
        "audio_frames": datasets.Value("int64"),
    }
    GROUP_COLUMNS = ("modify_type",)
    KNOWN_ROWS: ClassVar[dict[str, int]] = {"train": 746_180, "val": 57_340}  # folder -> published number

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]. The first folder of a row's `path` is its part."""
        missing = MissingFiles()
        rows: list[ClipRow] = []
        parts = [metadata.removesuffix("_metadata.json") for metadata in corpus.metadata]
        require_folders(corpus.root, parts, self.dataset_name)
        for part in parts:
            rows += self._read_part(corpus, part, missing)
        listed = {row["path"] for row in rows}
        unlisted = [file for file in corpus.media if _official(file) not in listed]
        self.note_unused(unlisted, f"mp4 files in {corpus.root} are not in the metadata")
        unlabelled = [name for name in _UNLABELLED if os.path.exists(corpus.absolute(name))]
        if unlabelled:
            self.note(f"{', '.join(unlabelled)}: the test split is published without labels and is left out.")
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]. A part without metadata gives no split."""
        dealt = by_split(rows, lambda row: _SPLITS[row["path"].split("/")[0]], tuple(_SPLITS.values()))
        return {split: members for split, members in dealt.items() if members}

    def describe(self, file: str, entry: dict[str, Any], where: str) -> dict[str, Any]:
        """Return the columns that the two editions read differently: `generator`, `identity` and any of their own.

        Args:
            file (`str`):
                The file of the row, relative to the folder of its part.
            entry (`dict`):
                The row of the metadata.
            where (`str`):
                The row, for error messages.

        Raises:
            [`MetadataError`]: the row belongs to the other edition.
        """
        first = file.split("/")[0]
        if first in ORIGINS:
            raise MetadataError(f"{where}: {file} is of AV-Deepfake1M++; load `av_deepfake1m_pp` instead.")
        return {
            "generator": "Talklip",
            "identity": first if re.fullmatch(r"id\d{5}", first) else None,
        }

    def _read_part(self, corpus: Corpus, part: str, missing: MissingFiles) -> list[ClipRow]:
        metadata = corpus.absolute(_metadata_of(part))
        on_disk = {_official(file): file for file in corpus.media if file.startswith(f"{part}/")}
        rows: dict[str, ClipRow] = {}
        originals: dict[str, str] = {}  # path -> `original`, as in the metadata
        odd = _Oddities()
        for where, entry in read_json_list(metadata):
            absent = [name for name in _NEEDED if name not in entry]
            if absent:
                raise MetadataError(f"{where}: no {', '.join(absent)}; it has {', '.join(entry)}.")
            path = _path(part, entry["file"])
            if path in rows:
                raise MetadataError(f"{where}: {path} is listed twice.")
            missing.count(path, part, path in on_disk)
            if entry.get("original"):
                originals[path] = str(entry["original"]).removeprefix("./")
            own = self.describe(path.removeprefix(f"{part}/"), entry, where)
            file = corpus.absolute(on_disk[path]) if path in on_disk else None
            rows[path] = _row(file, path, entry, own, odd, where)
        if not rows:
            raise MetadataError(f"{metadata} has no rows.")
        _find_sources(part, rows, originals)
        self._note_part(part, list(rows.values()), odd)
        return list(rows.values())

    def _note_part(self, part: str, rows: list[ClipRow], odd: _Oddities) -> None:
        name = _metadata_of(part)
        known = self.KNOWN_ROWS.get(part, len(rows))
        if len(rows) != known:
            self.note_size(f"{name} lists {len(rows):,} clips", f"{known:,}")
        if odd.repaired:
            self.note(f"{name}: {segment_note(odd.repaired)}")
        if odd.unmarked:
            self.note(
                f"{name}: {len(odd.unmarked):,} fakes have no fake_segments, such as {odd.unmarked[0]}: theirs are "
                "None."
            )
        if odd.contradictory:
            self.note(
                f"{name}: {len(odd.contradictory):,} fakes have a modify_type that contradicts the segments of "
                f"picture and sound, such as {odd.contradictory[0]}: their video_label and audio_label are None."
            )
        self.note_sourceless(rows, f"{name} does not list their genuine clip")


def _row(
    file: str | None, path: str, entry: dict[str, Any], own: dict[str, Any], odd: _Oddities, where: str
) -> ClipRow:
    """Build a row; `own` has the columns of the edition. What is odd about it is added to `odd`."""
    kind = str(entry["modify_type"]).replace("-", "_")
    if kind not in _TRACKS:
        raise MetadataError(f"{where}: modify_type {entry['modify_type']!r} is none of {', '.join(_TRACKS)}.")
    video_label, audio_label = _TRACKS[kind]
    label = max(video_label, audio_label)
    segments: dict[str, list[list[float]] | None] = {}
    changed = False
    for name in _SEGMENTS:
        segments[name], edited = read_segments(entry.get(name), f"{where}, {name}")
        if entry.get(name) is None:
            segments[name] = None
        changed |= edited
    if changed:
        odd.repaired.append(path)
    marks = (segments["visual_fake_segments"], segments["audio_fake_segments"])
    if label == REAL and any(marks):
        raise MetadataError(f"{where}: {path} is real and has fake segments {marks}.")
    if label == FAKE and not segments["fake_segments"]:
        segments["fake_segments"] = None
        odd.unmarked.append(path)
    elif any(m is not None and bool(m) != (t == FAKE) for m, t in zip(marks, _TRACKS[kind], strict=True)):
        video_label = audio_label = None
        odd.contradictory.append(path)
        own = {**own, "generator": entry.get("video_model")}  # only what the metadata say
    return make_row(
        file,
        path,
        label,
        video_label=video_label,
        audio_label=audio_label,
        audio_generator=_interned(entry.get("audio_model")),
        modify_type=sys.intern(kind),
        video_frames=entry.get("video_frames"),
        audio_frames=entry.get("audio_frames"),
        **segments,
        **{name: _interned(value) for name, value in own.items()},
    )


def _interned(value: Any) -> str | None:
    """Return one shared copy of a text: a million rows have only a few different ones."""
    return value and sys.intern(str(value))


def _path(part: str, file: str) -> str:
    file = str(file).removeprefix("./")
    return file if file.startswith(f"{part}/") else f"{part}/{file}"


def _official(file: str) -> str:
    """Return the path of a file on disk without the folder that an archive unpacked in place adds."""
    part, _, below = file.partition("/")
    return below if below.startswith(f"{part}/") else file


def _find_sources(part: str, rows: dict[str, ClipRow], originals: dict[str, str]) -> None:
    """Set `source` of the fakes whose genuine clip is listed.

    An `original` is a file of the release. In the second edition it may also be a file of the corpus that the clip was
    taken from; the genuine clip then names the same file as its own original.
    """
    genuine = {original: path for path, original in originals.items() if rows[path]["label"] == REAL}
    for path, row in rows.items():
        if row["label"] == FAKE:
            original = originals.get(path, "")
            inside = _path(part, original)
            if inside in rows and rows[inside]["label"] == REAL:
                row["source"] = inside
            else:
                row["source"] = genuine.get(original)

"""AV-Deepfake1M (Cai et al., arXiv:2311.15308): a million VoxCeleb2 clips whose words were replaced, by a language model.

Its metadata name what was modified in two ways: `modify_type`, and one list of stretches for the picture and one for
the sound. The labels here are read from both. (The authors' package looks for `both-modified`, the files say
`both_modified`: its `modify_video` and `modify_audio` are false for a third of the fakes.)

The test split is published without labels and cannot be loaded; the scores of it come from the authors' server. The
numbers of most papers are therefore of the validation split: `load_dataset("av_deepfake1m", split="validation")`.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import datasets

from .builder import CorpusBuilder, CorpusConfig
from .corpus import Corpus, MissingFiles, find_root
from .errors import CorpusNotFoundError, MetadataError
from .json_list import read_json_list
from .lav_df import read_segments, require_folders, scan_parts, segment_note, wanted_parts
from .schema import FAKE, REAL, ClipRow, make_row
from .splits import FULL_SPLIT

_SPLITS = {"train": "train", "val": "validation"}  # folder -> split
_UNLABELLED = ("test", "testA", "testB", "test_files.txt", "testA_files.txt", "testB_files.txt")
_TRACKS = {  # modify_type -> labels of picture and sound
    "real": (REAL, REAL),
    "visual_modified": (FAKE, REAL),
    "audio_modified": (REAL, FAKE),
    "both_modified": (FAKE, FAKE),
}
_NEEDED = ("file", "modify_type", "fake_segments")
_SECONDS = datasets.List(datasets.List(datasets.Value("float64")))
ORIGINS = ("vox_celeb_2", "lrs3", "silent_videos")  # first folders of the second edition


@dataclass
class AVDeepfake1MConfig(CorpusConfig):
    """Settings of `av_deepfake1m` and `av_deepfake1m_pp`; `name` is the protocol.

    Attributes:
        parts (`list[str]`, *optional*):
            Load only these of the folders `train` and `val` (`["val"]`), where the other was not downloaded. Without
            it a part is loaded when its metadata file is there.
    """

    parts: list[str] | None = None

    def locate(self) -> Corpus:
        """Find the folder of the metadata, and all mp4 files of the split folders beside them."""
        root = find_root(
            self.data_dir,
            "AV-Deepfake1M",
            " or ".join(map(_metadata_of, _SPLITS)),
            lambda d: any(os.path.isfile(os.path.join(d, _metadata_of(part))) for part in _SPLITS),
        )
        wanted = wanted_parts(self.parts, _SPLITS, "AV-Deepfake1M")
        there = [part for part in wanted if os.path.isfile(os.path.join(root, _metadata_of(part)))]
        if self.parts and there != wanted:
            absent = [_metadata_of(part) for part in wanted if part not in there]
            raise CorpusNotFoundError(f"AV-Deepfake1M: there is no {' and no '.join(absent)} in {root}.")
        media, others = scan_parts(root, there)
        return Corpus(root, list(map(_metadata_of, there)), media, others)


def _metadata_of(part: str) -> str:
    return f"{part}_metadata.json"


def configs() -> list[AVDeepfake1MConfig]:
    """The protocols, the same for both editions."""
    descriptions = {
        "official": "the splits of the corpus, val as validation; test has no labels.",
        "all": f"every labelled clip in one split, `{FULL_SPLIT}`.",
    }
    return [AVDeepfake1MConfig(name=name, version="1.0.0", description=d) for name, d in descriptions.items()]


class AVDeepfake1M(CorpusBuilder):
    """AV-Deepfake1M from the folder its authors distribute.

    ```py
    >>> load_dataset("av_deepfake1m", data_dir="AV-Deepfake1M", parts=["val"])
    ```

    `data_dir` holds `train_metadata.json` and `val_metadata.json`, or one of them, and beside each the folder `train`
    or `val` that its archive unpacks to; or is the folder above. Whether the paths in the metadata begin with that
    folder, and whether the archive was unpacked inside a folder of its name (`val/val/...`), makes no difference.

    Protocols:

    - `official` (default): the splits of the corpus that are there; `val` is named `validation`.
    - `all`: these clips in one split, `full`.

    Labels of picture and sound follow `modify_type`. Where `visual_fake_segments` or `audio_fake_segments` say
    otherwise, both are None for that fake, with a note. `fake_segments` is what the task of localisation is scored on; None
    for a fake that lists none. `generator` is TalkLip for every fake picture, as the paper says (the metadata do not),
    spelled as in AV-Deepfake1M++; `audio_generator` is `audio_model`. `identity` is the speaker of VoxCeleb2.
    The language is not given (VoxCeleb2 has several).

    With all 803,520 clips, the rows take a few GB of memory while the table is made.

    Columns after the common ones: `modify_type`, `visual_fake_segments`, `audio_fake_segments` (`[start, end]` in s,
    None where not given), `video_frames`, `audio_frames` (samples; 0 or None: no sound).
    """

    BUILDER_CONFIG_CLASS = AVDeepfake1MConfig
    BUILDER_CONFIGS: ClassVar[list[AVDeepfake1MConfig]] = configs()
    DEFAULT_CONFIG_NAME = "official"
    DESCRIPTION = "AV-Deepfake1M: LLM-driven audio-visual deepfakes with replaced words."
    HOMEPAGE = "https://github.com/ControlNet/AV-Deepfake1M"
    CORPUS_COLUMNS: ClassVar[dict[str, Any]] = {
        "modify_type": datasets.Value("string"),
        "visual_fake_segments": _SECONDS,
        "audio_fake_segments": _SECONDS,
        "video_frames": datasets.Value("int64"),
        "audio_frames": datasets.Value("int64"),
    }
    GROUP_COLUMNS: ClassVar[tuple[str, ...]] = ("modify_type",)
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
        if unlisted:
            self.note(
                f"{len(unlisted):,} mp4 files in {corpus.root} are not in the metadata and are not used, such as "
                f"{', '.join(unlisted[:3])}."
            )
        unlabelled = [name for name in _UNLABELLED if os.path.exists(corpus.absolute(name))]
        if unlabelled:
            self.note(f"{', '.join(unlabelled)}: the test split is published without labels and is left out.")
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]. A part without metadata gives no split."""
        if self.config.name == "all":
            return {FULL_SPLIT: rows}
        dealt: dict[str, list[ClipRow]] = {}
        for row in rows:
            dealt.setdefault(_SPLITS[row["path"].split("/")[0]], []).append(row)
        return dealt

    def describe(self, file: str, entry: dict[str, Any], where: str) -> dict[str, Any]:
        """What the editions read in different ways: `generator`, `identity` and columns of their own.

        Args:
            file (`str`):
                The file of the row, relative to the folder of its part.
            entry (`dict`):
                The row of the metadata.
            where (`str`):
                The row, for error messages.

        Raises:
            [`MetadataError`]: the row is of the other edition.
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
        repaired: list[str] = []
        unmarked: list[str] = []
        contradictory: list[str] = []
        for where, entry in read_json_list(metadata):
            absent = [name for name in _NEEDED if name not in entry]
            if absent:
                raise MetadataError(f"{where}: no {', '.join(absent)}; it has {', '.join(entry)}.")
            path = _path(part, entry["file"])
            if path in rows:
                raise MetadataError(f"{where}: {path} is listed twice.")
            kind = str(entry["modify_type"]).replace("-", "_")
            if kind not in _TRACKS:
                raise MetadataError(
                    f"{where}: modify_type {entry['modify_type']!r} is none of {', '.join(_TRACKS)}."
                )
            video_label, audio_label = _TRACKS[kind]
            label = max(video_label, audio_label)
            segments: dict[str, list[list[float]] | None] = {}
            changed = False
            for name in ("fake_segments", "visual_fake_segments", "audio_fake_segments"):
                segments[name], edited = read_segments(entry.get(name), f"{where}, {name}")
                if entry.get(name) is None:
                    segments[name] = None
                changed |= edited
            if changed:
                repaired.append(path)
            marks = (segments["visual_fake_segments"], segments["audio_fake_segments"])
            if label == REAL and any(marks):
                raise MetadataError(f"{where}: {path} is real and has fake segments {marks}.")
            if label == FAKE and not segments["fake_segments"]:
                segments["fake_segments"] = None
                unmarked.append(path)
            elif any(
                m is not None and bool(m) != (t == FAKE) for m, t in zip(marks, _TRACKS[kind], strict=True)
            ):
                video_label = audio_label = None
                contradictory.append(path)
            missing.count(path, part, path in on_disk)
            if entry.get("original"):
                originals[path] = str(entry["original"]).removeprefix("./")
            own = self.describe(path.removeprefix(f"{part}/"), entry, where)
            if video_label is None:
                own["generator"] = entry.get("video_model")  # only what the metadata say
            # Few different texts occur in these columns: one copy of each serves all rows.
            texts = {name: value and sys.intern(str(value)) for name, value in own.items()}
            rows[path] = make_row(
                corpus.absolute(on_disk[path]) if path in on_disk else None,
                path,
                label,
                video_label=video_label,
                audio_label=audio_label,
                audio_generator=entry.get("audio_model") and sys.intern(str(entry["audio_model"])),
                modify_type=sys.intern(kind),
                video_frames=entry.get("video_frames"),
                audio_frames=entry.get("audio_frames"),
                **segments,
                **texts,
            )
        if not rows:
            raise MetadataError(f"{metadata} has no rows.")
        sourceless = _find_sources(part, rows, originals)
        known = self.KNOWN_ROWS.get(part, len(rows))
        name = _metadata_of(part)
        if len(rows) != known:
            self.note(
                f"{name} lists {len(rows):,} clips, not the published {known:,}: numbers from it may not compare with "
                "published ones."
            )
        if repaired:
            self.note(f"{name}: {segment_note(repaired)}")
        if unmarked:
            self.note(
                f"{name}: {len(unmarked):,} fakes have no fake_segments, such as {unmarked[0]}: theirs are None."
            )
        if contradictory:
            self.note(
                f"{name}: {len(contradictory):,} fakes have a modify_type that contradicts the segments of picture "
                f"and sound, such as {contradictory[0]}: their video_label and audio_label are None."
            )
        if sourceless:
            self.note(f"{name}: {sourceless:,} fakes have no source: their genuine clip is not listed.")
        return list(rows.values())


def _path(part: str, file: str) -> str:
    file = str(file).removeprefix("./")
    return file if file.startswith(f"{part}/") else f"{part}/{file}"


def _official(file: str) -> str:
    """The path of a file on disk without the folder that an archive unpacked in place adds."""
    part, _, below = file.partition("/")
    return below if below.startswith(f"{part}/") else file


def _find_sources(part: str, rows: dict[str, ClipRow], originals: dict[str, str]) -> int:
    """Set `source` of the fakes, and count those that have none.

    An `original` is a file of the release; in the second edition it may be one of the corpus the clip was taken from,
    which the genuine clip then names as its own.
    """
    genuine = {original: path for path, original in originals.items() if rows[path]["label"] == REAL}
    sourceless = 0
    for path, row in rows.items():
        if row["label"] == FAKE:
            original = originals.get(path, "")
            inside = _path(part, original)
            if inside in rows and rows[inside]["label"] == REAL:
                row["source"] = inside
            else:
                row["source"] = genuine.get(original)
            sourceless += row["source"] is None
    return sourceless

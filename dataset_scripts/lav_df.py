"""LAV-DF (Cai et al., arXiv:2204.06228 and 2305.01979): VoxCeleb2 clips in which single words were replaced.

A fake differs from its genuine clip in up to a few stretches of a fraction of a second, in the picture, the sound or
both. `fake_segments` has them; a detector that averages over a clip sees mostly genuine material.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import datasets

from .builder import CorpusBuilder, CorpusConfig
from .corpus import Corpus, MissingFiles, find_root, scan_files
from .errors import MetadataError, MissingFilesError, nearest
from .json_list import read_json_list
from .schema import FAKE, REAL, ClipRow, make_row
from .splits import FULL_SPLIT

_METADATA = ("metadata.min.json", "metadata.json")  # the second adds transcripts; the rows are the same
_SPLITS = {"train": "train", "dev": "validation", "test": "test"}  # folder -> split
_KNOWN_ROWS = {"train": 78_703, "dev": 31_501, "test": 26_100}
_NEEDED = ("file", "split", "fake_periods", "modify_video", "modify_audio")
# (modify_video, modify_audio) -> the name AV-Deepfake1M, by the same authors, has for it.
_TYPES = {
    (False, False): "real",
    (True, False): "visual_modified",
    (False, True): "audio_modified",
    (True, True): "both_modified",
}
# Protocol -> the type it leaves out, as in the authors' evaluation script.
_SUBSETS = {"subset_for_visual_only": "audio_modified", "subset_for_audio_only": "visual_modified"}


@dataclass
class LavDFConfig(CorpusConfig):
    """Settings of `lav_df`; `name` is the protocol.

    Attributes:
        parts (`list[str]`, *optional*):
            Load only these of the folders `train`, `dev` and `test` (`["test"]`), where others were not downloaded.
    """

    parts: list[str] | None = None

    def locate(self) -> Corpus:
        """Find the folder of the metadata, and all mp4 files of the split folders beside them."""
        root = find_root(
            self.data_dir,
            "LAV-DF",
            f"{' or '.join(_METADATA)}, and the folders {', '.join(_SPLITS)}",
            lambda d: bool(_metadata_in(d)) and any(os.path.isdir(os.path.join(d, name)) for name in _SPLITS),
        )
        media, others = scan_parts(root, wanted_parts(self.parts, _SPLITS, "LAV-DF"))
        return Corpus(root, _metadata_in(root)[:1], media, others)


def _metadata_in(folder: str) -> list[str]:
    return [name for name in _METADATA if os.path.isfile(os.path.join(folder, name))]


class LavDF(CorpusBuilder):
    """LAV-DF from the folder its authors distribute.

    ```py
    >>> load_dataset("lav_df", data_dir="LAV-DF")
    ```

    `data_dir` holds `metadata.min.json` (or `metadata.json`) and the folders `train`, `dev` and `test`, or is the
    folder above.

    Protocols:

    - `official` (default): the splits of the corpus; `dev` is named `validation`.
    - `subset_for_visual_only`, `subset_for_audio_only`: the same without the fakes whose sound (picture) alone was
      changed, as the authors evaluate models of one modality.
    - `all`: every clip in one split, `full`.

    The label is fake where `modify_video` or `modify_audio` is true. `generator` and `audio_generator` are those of
    the papers: Wav2Lip for every fake picture and SV2TTS for every fake sound. The metadata name neither the speaker
    (`identity` is None) nor the language.

    Columns after the common ones: `modify_type` (`real`, `visual_modified`, `audio_modified`, `both_modified`),
    `duration` (s), `video_frames`, `audio_frames`, `audio_channels`.
    """

    BUILDER_CONFIG_CLASS = LavDFConfig
    BUILDER_CONFIGS: ClassVar[list[LavDFConfig]] = [
        LavDFConfig(name=name, version="1.0.0", description=description)
        for name, description in {
            "official": "the splits of the corpus, dev as validation.",
            "subset_for_visual_only": "official without the fakes whose sound alone was changed.",
            "subset_for_audio_only": "official without the fakes whose picture alone was changed.",
            "all": f"every clip in one split, `{FULL_SPLIT}`.",
        }.items()
    ]
    ONE_SPLIT = ()
    DEFAULT_CONFIG_NAME = "official"
    DESCRIPTION = "LAV-DF: localized audio-visual deepfakes, content-driven."
    HOMEPAGE = "https://github.com/ControlNet/LAV-DF"
    CORPUS_COLUMNS: ClassVar[dict[str, Any]] = {
        "modify_type": datasets.Value("string"),
        "duration": datasets.Value("float64"),
        "video_frames": datasets.Value("int64"),
        "audio_frames": datasets.Value("int64"),
        "audio_channels": datasets.Value("int64"),
    }
    GROUP_COLUMNS: ClassVar[tuple[str, ...]] = ("modify_type",)

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]. `split` is kept in each row until `deal`."""
        metadata = corpus.metadata[0]
        wanted = wanted_parts(self.config.parts, _SPLITS, self.dataset_name)
        require_folders(corpus.root, wanted, self.dataset_name)
        on_disk = set(corpus.media)
        missing = MissingFiles()
        rows: dict[str, ClipRow] = {}
        listed: Counter[str] = Counter()
        repaired: list[str] = []
        unmarked: list[str] = []
        for where, entry in read_json_list(corpus.absolute(metadata)):
            absent = [name for name in _NEEDED if name not in entry]
            if absent:
                raise MetadataError(f"{where}: no {', '.join(absent)}; it has {', '.join(entry)}.")
            path, folder = str(entry["file"]).removeprefix("./"), entry["split"]
            if folder not in _SPLITS:
                raise MetadataError(f"{where}: split {folder!r} is none of {', '.join(_SPLITS)}.")
            if path in rows:
                raise MetadataError(f"{where}: {path} is listed twice.")
            listed[folder] += 1
            if folder in wanted:
                missing.count(path, folder, path in on_disk)
            tracks = tuple(
                _flag(entry[name], f"{where}, {name}") for name in ("modify_video", "modify_audio")
            )
            segments, changed = read_segments(entry["fake_periods"], f"{where}, fake_periods")
            if changed:
                repaired.append(path)
            if any(tracks) and not segments:
                unmarked.append(path)
            rows[path] = make_row(
                corpus.absolute(path) if path in on_disk else None,
                path,
                FAKE if any(tracks) else REAL,
                video_label=FAKE if tracks[0] else REAL,
                audio_label=FAKE if tracks[1] else REAL,
                generator="wav2lip",
                audio_generator="sv2tts",
                source=entry.get("original"),
                fake_segments=segments if segments or not any(tracks) else None,
                modify_type=_TYPES[tracks],
                duration=entry.get("duration"),
                video_frames=entry.get("video_frames"),
                audio_frames=entry.get("audio_frames"),
                audio_channels=entry.get("audio_channels"),
                split=_SPLITS[folder],
            )
        if not rows:
            raise MetadataError(f"{corpus.absolute(metadata)} has no rows.")
        sourceless = _find_sources(rows)
        if listed != _KNOWN_ROWS:
            found = ", ".join(f"{folder} {n:,}" for folder, n in listed.items())
            known = ", ".join(f"{folder} {n:,}" for folder, n in _KNOWN_ROWS.items())
            self.note(
                f"{metadata} lists {found} clips, not the published {known}: numbers from it may not compare with "
                "published ones."
            )
        if repaired:
            self.note(segment_note(repaired))
        if unmarked:
            self.note(
                f"{len(unmarked):,} fakes have no fake_periods, such as {unmarked[0]}: their fake_segments are None."
            )
        if sourceless:
            self.note(f"{sourceless:,} fakes have no source: {metadata} does not list their genuine clip.")
        unlisted = [file for file in corpus.media if file not in rows]
        if unlisted:
            self.note(
                f"{len(unlisted):,} mp4 files in {corpus.root} are not in {metadata} and are not used, such as "
                f"{', '.join(unlisted[:3])}."
            )
        if len(wanted) < len(_SPLITS):
            self.note(f"only {', '.join(wanted)} is loaded, as `parts` asks.")
        splits = [_SPLITS[folder] for folder in wanted]
        return [row for row in rows.values() if row["split"] in splits], missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        left_out = _SUBSETS.get(self.config.name)
        dealt: dict[str, list[ClipRow]] = {
            split: [] for folder, split in _SPLITS.items() if folder in (self.config.parts or _SPLITS)
        }
        for row in rows:
            if row["modify_type"] != left_out:
                dealt[row["split"]].append({name: cell for name, cell in row.items() if name != "split"})
        if self.config.name == "all":
            return {FULL_SPLIT: [row for members in dealt.values() for row in members]}
        return dealt


def _find_sources(rows: dict[str, ClipRow]) -> int:
    """Replace `original` by the path of a genuine clip of the release, and count the fakes that have none.

    The stem of a file is unique over the release, so that an `original` without its folder is understood too.
    """
    by_stem = {_stem(path): path for path, row in rows.items() if row["label"] == REAL}
    sourceless = 0
    for row in rows.values():
        original = row["source"] if row["label"] == FAKE else None
        row["source"] = by_stem.get(_stem(original)) if original else None
        sourceless += row["label"] == FAKE and row["source"] is None
    return sourceless


def _stem(path: str) -> str:
    return os.path.splitext(path.rsplit("/", 1)[-1])[0]


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise MetadataError(f"{where}: expected true or false, got {value!r}.")
    return value


def wanted_parts(parts: Sequence[str] | None, known: Iterable[str], corpus: str) -> list[str]:
    """The parts of a corpus to load, in its own order: all, or those that the setting `parts` names.

    Raises:
        `ValueError`: one of them is not known.
    """
    known = list(known)
    if parts is None:
        return known
    if not parts or isinstance(parts, str):
        raise ValueError(f"{corpus}: `parts` is a list of {', '.join(known)}, got {parts!r}.")
    for part in parts:
        if part not in known:
            raise ValueError(
                f"{corpus}: no part {part!r}; there are {', '.join(known)}.{nearest(str(part), known)}"
            )
    return [part for part in known if part in parts]


def require_folders(root: str, parts: Sequence[str], corpus: str) -> None:
    """Say early, and how to go on, that a whole part was not downloaded.

    Raises:
        [`MissingFilesError`]: a part has no folder.
    """
    there = [part for part in parts if os.path.isdir(os.path.join(root, part))]
    if len(there) < len(parts):
        absent = [part for part in parts if part not in there]
        instead = f", or load what is there with parts={there}" if there else ""
        raise MissingFilesError(
            f"{corpus}: {root} has metadata for {', '.join(parts)} but no folder {' and no folder '.join(absent)}. "
            f"Complete the download{instead}."
        )


def scan_parts(root: str, parts: Sequence[str]) -> tuple[list[str], int]:
    """List the mp4 files of those parts that have a folder, see [`scan_files`]; the paths are relative to `root`."""
    media: list[str] = []
    others = 0
    for part in parts:
        if os.path.isdir(os.path.join(root, part)):
            files, rest = scan_files(os.path.join(root, part), (".mp4",))
            media += [f"{part}/{file}" for file in files]
            others += rest
    return media, others


def read_segments(value: Any, where: str) -> tuple[list[list[float]], bool]:
    """Read the stretches that were replaced, as LAV-DF and AV-Deepfake1M write them.

    A stretch that begins before the clip is cut at 0, as the authors' code does, and one of no length is left out.

    Args:
        value (`Any`):
            `[[start, end], ...]` in seconds; None is no stretch.
        where (`str`):
            ClipRow and field, for the error message.

    Returns:
        `tuple[list[list[float]], bool]`: the stretches, and whether one of them was changed or left out.

    Raises:
        [`MetadataError`]: the value is no list of pairs of numbers.
    """
    try:
        pairs = [[float(start), float(end)] for start, end in ([] if value is None else value)]
    except (TypeError, ValueError) as error:
        raise MetadataError(
            f"{where}: expected [[start, end], ...] in seconds, got {str(value)[:80]}."
        ) from error
    segments = [[max(start, 0.0), end] for start, end in pairs if max(start, 0.0) < end]
    return segments, segments != pairs


def segment_note(paths: list[str]) -> str:
    """Say which clips [`read_segments`] changed a stretch of."""
    return (
        f"{len(paths):,} clips have fake segments that begin before 0, which are cut, or end before they begin, which "
        f"are left out, such as {paths[0]}."
    )

"""LAV-DF (Cai et al., arXiv:2204.06228 and 2305.01979): VoxCeleb2 clips in which single words were replaced.

A fake differs from its genuine clip in at most a few stretches of a fraction of a second, in the picture, the sound or
both. `fake_segments` has them; a detector that averages over a clip sees mostly genuine material.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

import datasets

from .builder import EVERY_CLIP, CorpusBuilder
from .corpus import Corpus, MissingFiles
from .errors import MetadataError
from .json_list import read_json_list
from .localized import PartsConfig, read_segments, require_folders, segment_note
from .schema import FAKE, REAL, ClipRow, make_row
from .splits import by_split

_METADATA = ("metadata.min.json", "metadata.json")  # the second adds transcripts; the rows are the same
_SPLITS = {"train": "train", "dev": "validation", "test": "test"}  # folder -> split
_KNOWN_ROWS = {"train": 78_703, "dev": 31_501, "test": 26_100}
_NEEDED = ("file", "split", "fake_periods", "modify_video", "modify_audio")
# (modify_video, modify_audio) -> its name in AV-Deepfake1M, by the same authors.
_TYPES = {
    (False, False): "real",
    (True, False): "visual_modified",
    (False, True): "audio_modified",
    (True, True): "both_modified",
}
# Protocol -> the type it leaves out, as in the authors' evaluation script.
_SUBSETS = {"subset_for_visual_only": "audio_modified", "subset_for_audio_only": "visual_modified"}


@dataclass
class LavDFConfig(PartsConfig):
    """Settings of `lav_df`; `name` is the protocol, `parts` names some of `train`, `dev` and `test`."""

    CORPUS = "LAV-DF"
    LOOKED_FOR = f"{' or '.join(_METADATA)}, and the folders {', '.join(_SPLITS)}"
    PARTS = _SPLITS

    def holds(self, folder: str) -> bool:
        """See [`CorpusConfig.holds`]."""
        folders = (os.path.join(folder, part) for part in _SPLITS)
        return bool(self.metadata_in(folder)) and any(map(os.path.isdir, folders))

    def metadata_in(self, folder: str) -> list[str]:
        """See [`CorpusConfig.metadata_in`]."""
        return [name for name in _METADATA if os.path.isfile(os.path.join(folder, name))][:1]


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
    PROTOCOLS = {
        "official": "the splits of the corpus, dev as validation.",
        "subset_for_visual_only": "official without the fakes whose sound alone was changed.",
        "subset_for_audio_only": "official without the fakes whose picture alone was changed.",
        **EVERY_CLIP,
    }
    DESCRIPTION = "LAV-DF: localized audio-visual deepfakes, content-driven."
    HOMEPAGE = "https://github.com/ControlNet/LAV-DF"
    CORPUS_COLUMNS = {
        "modify_type": datasets.Value("string"),
        "duration": datasets.Value("float64"),
        "video_frames": datasets.Value("int64"),
        "audio_frames": datasets.Value("int64"),
        "audio_channels": datasets.Value("int64"),
    }
    DEALING_COLUMNS = ("split",)
    GROUP_COLUMNS = ("modify_type",)

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]. The rows are in the order of the splits."""
        metadata = corpus.metadata[0]
        wanted = self.config.wanted_parts()
        require_folders(corpus.root, wanted, self.dataset_name)
        on_disk = set(corpus.media)
        missing = MissingFiles()
        rows: dict[str, ClipRow] = {}
        listed: Counter[str] = Counter()
        repaired: list[str] = []
        for where, entry in read_json_list(corpus.absolute(metadata)):
            path, folder = _checked(entry, where)
            if path in rows:
                raise MetadataError(f"{where}: {path} is listed twice.")
            listed[folder] += 1
            if folder in wanted:
                missing.count(path, folder, path in on_disk)
            segments, changed = read_segments(entry["fake_periods"], f"{where}, fake_periods")
            if changed:
                repaired.append(path)
            file = corpus.absolute(path) if path in on_disk else None
            rows[path] = _row(file, path, segments, entry, where)
        if not rows:
            raise MetadataError(f"{corpus.absolute(metadata)} has no rows.")
        _find_sources(rows)
        if listed != _KNOWN_ROWS:
            found = ", ".join(f"{folder} {n:,}" for folder, n in listed.items())
            known = ", ".join(f"{folder} {n:,}" for folder, n in _KNOWN_ROWS.items())
            self.note_size(f"{metadata} lists {found} clips", known)
        if repaired:
            self.note(segment_note(repaired))
        unmarked = [path for path, row in rows.items() if row["fake_segments"] is None]
        if unmarked:
            self.note(
                f"{len(unmarked):,} fakes have no fake_periods, such as {unmarked[0]}: their fake_segments are None."
            )
        self.note_sourceless(list(rows.values()), f"{metadata} does not list their genuine clip")
        self.note_unlisted(corpus, rows, metadata)
        if len(wanted) < len(_SPLITS):
            self.note(f"only {', '.join(wanted)} is loaded, as `parts` asks.")
        return [row for folder in wanted for row in rows.values() if row["split"] == _SPLITS[folder]], missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        left_out = _SUBSETS.get(self.config.name)
        splits = [_SPLITS[folder] for folder in self.config.wanted_parts()]
        return by_split((row for row in rows if row["modify_type"] != left_out), lambda r: r["split"], splits)


def _checked(entry: dict[str, Any], where: str) -> tuple[str, str]:
    """Return the path and the folder of an entry that has all fields."""
    absent = [name for name in _NEEDED if name not in entry]
    if absent:
        raise MetadataError(f"{where}: no {', '.join(absent)}; it has {', '.join(entry)}.")
    if entry["split"] not in _SPLITS:
        raise MetadataError(f"{where}: split {entry['split']!r} is none of {', '.join(_SPLITS)}.")
    return str(entry["file"]).removeprefix("./"), entry["split"]


def _row(
    file: str | None, path: str, segments: list[list[float]], entry: dict[str, Any], where: str
) -> ClipRow:
    tracks = tuple(_flag(entry[name], f"{where}, {name}") for name in ("modify_video", "modify_audio"))
    return make_row(
        file,
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
        split=_SPLITS[entry["split"]],
    )


def _find_sources(rows: dict[str, ClipRow]) -> None:
    """Replace `original` by the path of a genuine clip of the release, None where there is none.

    File names are unique over the release, so an `original` without its folder is understood too.
    """
    by_stem = {_stem(path): path for path, row in rows.items() if row["label"] == REAL}
    for row in rows.values():
        original = row["source"] if row["label"] == FAKE else None
        row["source"] = by_stem.get(_stem(original)) if original else None


def _stem(path: str) -> str:
    return os.path.splitext(path.rsplit("/", 1)[-1])[0]


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise MetadataError(f"{where}: expected true or false, got {value!r}.")
    return value

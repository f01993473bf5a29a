"""Deepfake-Eval-2024 (Chandra et al., arXiv:2503.02857): videos and sound files that circulated in 2024.

People who suspected a deepfake sent these files to a detection service, and experts labelled them. Picture and sound of a
video are labelled separately, and either may be `Unknown`. The images of the corpus are not read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import datasets

from .builder import CorpusBuilder, SeededConfig
from .corpus import SOUND_SUFFIXES, VIDEO_SUFFIXES, Corpus, MissingFiles, scan_folders
from .errors import MetadataError
from .schema import FAKE, LABELS, REAL, ClipRow, make_row
from .splits import FULL_SPLIT, WITHIN_TRAINING, by_split, stratified_split
from .text_files import FileNames, read_csv

_KINDS = {"video": "video", "picture": "video", "all": "video", "sound": "audio"}  # protocol -> kind of file
_COLUMNS = {
    "video": ("Filename", "Video Ground Truth", "Audio Ground Truth", "Finetuning Set"),
    "audio": ("Filename", "Ground Truth", "Finetuning Set"),
}
_TABLES = (
    "{}-metadata-publish.csv",
    "{}-metadata-publish-with-links.csv",
)  # the second adds links to the posts
_LABELS = {"real": REAL, "fake": FAKE, "unknown": None, "": None}
_SETS = {"train": "train", "test": "test", "": None}
_KNOWN_SOUNDS = 1_980  # rows of the table of sound files


@dataclass
class DeepfakeEval2024Config(SeededConfig):
    """Settings of `deepfake_eval_2024`; `name` is the protocol, `seed` draws the validation split."""

    CORPUS = "Deepfake-Eval-2024"
    LOOKED_FOR = f"one of the tables {', '.join(t.format(kind) for kind in _COLUMNS for t in _TABLES)}"

    @property
    def kind(self) -> str:
        """`video` or `audio`: the table and the folder that the protocol reads."""
        return _KINDS.get(self.name, "video")

    def holds(self, folder: str) -> bool:
        """See [`CorpusConfig.holds`]."""
        return any(_tables_in(folder, kind) for kind in _COLUMNS)

    def metadata_in(self, folder: str) -> list[str]:
        """See [`CorpusConfig.metadata_in`]."""
        return _tables_in(folder, self.kind)[:1]

    def media_in(self, root: str) -> tuple[list[str], int]:
        """See [`CorpusConfig.media_in`]. Sound files may be in a video's container."""
        suffixes = VIDEO_SUFFIXES if self.kind == "video" else (*SOUND_SUFFIXES, *VIDEO_SUFFIXES)
        return scan_folders(root, [f"{self.kind}-data"], suffixes)


def _tables_in(folder: str, kind: str) -> list[str]:
    names = (name.format(kind) for name in _TABLES)
    return [name for name in names if os.path.isfile(os.path.join(folder, name))]


class DeepfakeEval2024(CorpusBuilder):
    """Deepfake-Eval-2024 from a local copy of its Hub repository.

    ```py
    >>> load_dataset("deepfake_eval_2024", data_dir="Deepfake-Eval-2024", split="test")
    >>> load_dataset("deepfake_eval_2024", "sound", data_dir="Deepfake-Eval-2024")
    ```

    `data_dir` has `video-metadata-publish.csv` and `video-data/`, or `audio-metadata-publish.csv` and `audio-data/`, or all
    of them; the tables whose names end in `-with-links` serve as well.

    Protocols:

    - `video` (default): a video is fake if its picture or its sound is, and genuine if both are. Others (such as a genuine
      picture with a sound that nobody could judge) are left out, with a note.
    - `picture`: a video is what its picture is; `audio_label` is None. Videos with an unknown picture are left out. It is
      our assumption that published numbers of video detectors are of these labels.
    - `sound`: the sound files. `video` is the path of the file, and `video_label` is None, as there is no picture.
    - `all`: the videos of `video` in one split, `full`.

    The splits are those of the column `Finetuning Set`, which the authors finetuned on: test as published; train without a
    tenth, evenly within each class, that is validation. This is our own choice, so that train and validation together are
    train as published. Files without a set are in no split.

    Nothing is known of the methods (`generator` is None), the languages and the people. `fake_segments` is not annotated;
    a long video may be fake in parts.

    Column after the common ones: `date` (when the file was sent in, as `YYYY-MM-DD`). The comments of the experts and the
    links are not read.
    """

    BUILDER_CONFIG_CLASS = DeepfakeEval2024Config
    PROTOCOLS = {
        "video": "videos, fake if picture or sound is; the published sets, a tenth of train as validation.",
        "picture": "videos by their picture alone; the splits as in video.",
        "sound": "sound files; the published sets, a tenth of train as validation.",
        "all": f"every video that is labelled, in one split, `{FULL_SPLIT}`.",
    }
    DESCRIPTION = "Deepfake-Eval-2024: deepfakes that circulated in 2024."
    HOMEPAGE = "https://huggingface.co/datasets/nuriachandra/Deepfake-Eval-2024"
    LICENSE = "cc-by-sa-4.0"
    CORPUS_COLUMNS = {"date": datasets.Value("string")}
    DEALING_COLUMNS = ("set",)

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]. `set` is that of the table, or None."""
        kind = self.config.kind
        if not corpus.metadata:
            raise MetadataError(
                f"{corpus.root} has no {_TABLES[0].format(kind)}, which the protocol {self.config.name} reads."
            )
        table = corpus.absolute(corpus.metadata[0])
        on_disk = FileNames(corpus.media)
        rows, missing, unjudged = [], MissingFiles(), []
        entries = _read_table(table, _COLUMNS[kind])
        for where, cells in entries.items():
            path = f"{kind}-data/{cells['Filename']}"
            labels = _labels(cells, where, self.config.name)
            if labels is None:
                unjudged.append(path)
                continue
            file = on_disk.find(path)
            missing.count(path, f"{kind}-data", file is not None)
            row = make_row(
                None if file is None else corpus.absolute(file),
                path,
                labels["label"],
                video_label=labels["video_label"],
                audio_label=labels["audio_label"],
                date=cells.get("Date") or None,
                set=_known(_SETS, cells["Finetuning Set"], f"{where}, column Finetuning Set"),
            )
            rows.append(row | _UNSEEN.get(self.config.name, {}))
        if not rows:
            raise MetadataError(f"{table} has no labelled rows.")
        self._note(corpus, entries, unjudged, rows)
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        trained = {row["path"]: LABELS[row["label"]] for row in rows if row["set"] == "train"}
        inner = stratified_split(trained, WITHIN_TRAINING, self.config.seed)
        return by_split(rows, lambda row: inner.get(row["path"], row["set"]))

    def _note(
        self, corpus: Corpus, entries: dict[str, Any], unjudged: list[str], rows: list[ClipRow]
    ) -> None:
        listed = {f"{self.config.kind}-data/{cells['Filename']}" for cells in entries.values()}
        self.note_unlisted(corpus, listed, corpus.metadata[0], "media files")
        if unjudged:
            self.note(
                f"{len(unjudged):,} of {len(entries):,} files are left out, such as {unjudged[0]}: the experts' labels say "
                "neither real nor fake."
            )
        without = [row["path"] for row in rows if row["set"] is None]
        if without:
            self.note(f"{len(without):,} files are in neither set, train or test, such as {without[0]}.")
        if self.config.kind == "audio" and len(entries) != _KNOWN_SOUNDS:
            self.note_size(f"{corpus.metadata[0]} lists {len(entries):,} files", f"{_KNOWN_SOUNDS:,}")


_UNSEEN: dict[str, dict[str, None]] = {
    "picture": {"audio_label": None, "audio_generator": None},
    "sound": {"video_label": None, "generator": None},
}
"""Protocol -> the columns of the track that it does not judge."""


def _read_table(path: str, columns: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Return where a row is -> its cells. A file that is there twice with the same labels is kept once."""
    entries: dict[str, dict[str, str]] = {}
    first: dict[str, str] = {}
    for where, cells in read_csv(path, columns)[1]:
        name = cells["Filename"]
        if not name:
            raise MetadataError(f"{where}: no Filename.")
        if name not in first:
            first[name] = where
            entries[where] = cells
        elif any(cells[column] != entries[first[name]][column] for column in columns):
            raise MetadataError(f"{where}: {name} is described differently in {first[name]}.")
    return entries


def _labels(cells: dict[str, str], where: str, protocol: str) -> dict[str, int | None] | None:
    """Return the labels of a row under a protocol; None if it has none."""

    def label(column: str) -> int | None:
        return _known(_LABELS, cells[column], f"{where}, column {column}")

    if protocol == "sound":
        sound = label("Ground Truth")
        return None if sound is None else {"label": sound, "video_label": None, "audio_label": sound}
    picture, sound = label("Video Ground Truth"), label("Audio Ground Truth")
    if protocol == "picture":
        return None if picture is None else {"label": picture, "video_label": picture, "audio_label": None}
    if FAKE in (picture, sound):
        return {"label": FAKE, "video_label": picture, "audio_label": sound}
    return (
        {"label": REAL, "video_label": REAL, "audio_label": REAL}
        if (picture, sound) == (REAL, REAL)
        else None
    )


def _known(values: dict[str, Any], text: str, where: str) -> Any:
    key = text.casefold()
    if key not in values:
        raise MetadataError(f"{where}: {text!r} is none of {', '.join(filter(None, values))}.")
    return values[key]

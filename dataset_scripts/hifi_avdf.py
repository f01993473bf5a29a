"""HiFi-AVDF (Peng et al., arXiv:2603.23960): people speaking, generated whole, with sound, by commercial models.

Each generator has a folder of genuine clips and of clips that it made, and a table with their labels. Nothing of a fake is
recorded: picture and sound come from one model, from a text or a picture.

What is known of the layout comes from readers of the corpus, not from the authors: the tables, their columns, and that
`<name>_generated.mp4` belongs to `<name>.mp4`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from .builder import CorpusBuilder, SeededConfig
from .corpus import Corpus, MissingFiles, scan_folders
from .errors import MetadataError, ProtocolError
from .schema import FAKE, REAL, ClipRow, make_row, parse_label
from .splits import FULL_SPLIT, by_split, split_twice
from .text_files import FileNames, read_csv

_GENERATORS = ("kling2.5", "veo3.1", "wan2.5", "seedance1.0")
_NEEDED = ("video_path", "audio_label", "visual_label", "overall_label")
_MADE = "_generated"


@dataclass
class HiFiAVDFConfig(SeededConfig):
    """Settings of `hifi_avdf`; `name` is the protocol, `seed` draws `source_70_30` and the protocols built on it."""

    CORPUS = "HiFi-AVDF"
    LOOKED_FOR = (
        f"a table and a folder for each generator ({', '.join(f'{name}.csv' for name in _GENERATORS)})"
    )

    def metadata_in(self, folder: str) -> list[str]:
        """See [`CorpusConfig.metadata_in`]. A new generator is read as well, if it has a table and a folder."""
        tables = [name for name in sorted(os.listdir(folder)) if name.endswith(".csv")]
        known = [f"{name}.csv" for name in _GENERATORS]
        return [
            name
            for name in tables
            if name in known or os.path.isdir(os.path.join(folder, name.removesuffix(".csv")))
        ]

    def media_in(self, root: str) -> tuple[list[str], int]:
        """See [`CorpusConfig.media_in`]."""
        return scan_folders(root, [name.removesuffix(".csv") for name in self.metadata_in(root)], (".mp4",))


class HiFiAVDF(CorpusBuilder):
    """HiFi-AVDF from a local copy of its Hub repository.

    ```py
    >>> load_dataset("hifi_avdf", data_dir="HiFi-AVDF")  # all of it, to test a detector that was trained elsewhere
    >>> load_dataset("hifi_avdf", "held_out_veo3.1", data_dir="HiFi-AVDF")
    ```

    `data_dir` has `<generator>.csv` and `<generator>/` for kling2.5, veo3.1, wan2.5 and seedance1.0, or some of them. The
    tables have the columns `video_path` (from `data_dir`, or from the generator's folder), `audio_label`, `visual_label`
    and `overall_label`, all 0 for real and 1 for fake.

    Protocols; no split is published, and the authors test on the whole corpus:

    - `all` (default): one split, `full`.
    - `source_70_30`: 70 / 30 by genuine clip, evenly within each generator; the clip made after it goes with it. Clips of
      one name in several folders stay together, since they may be of one genuine clip. Our own choice.
    - `held_out_<generator>`: `source_70_30`; train and validation lose the generator's folder, test has only that. Our own
      choice.

    `generator` and `audio_generator` are the folder's name where a track is fake. `source` is the genuine clip of the same
    name. Languages and people are not known. `fake_segments` is not annotated: a fake is fake throughout.
    """

    BUILDER_CONFIG_CLASS = HiFiAVDFConfig
    PROTOCOLS = {
        "all": f"every clip in one split, `{FULL_SPLIT}`.",
        "source_70_30": "70 / 30 by genuine clip, the 70 % again 90 / 10 into train and validation.",
        **{
            f"held_out_{name}": f"source_70_30; the folder of {name} is in the test split only, and alone there."
            for name in _GENERATORS
        },
    }
    DESCRIPTION = "HiFi-AVDF: audio-visual clips of commercial generators."
    HOMEPAGE = "https://huggingface.co/datasets/JielunPeng/HiFi-AVDF"
    DEALING_COLUMNS = ("folder", "clip")

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]. `folder` is the generator's, `clip` the name that a genuine clip and its fake share."""
        on_disk = FileNames(corpus.media)
        missing = MissingFiles()
        rows: dict[str, ClipRow] = {}
        for table in corpus.metadata:
            folder = table.removesuffix(".csv")
            for where, cells in read_csv(corpus.absolute(table), _NEEDED)[1]:
                path = _path(cells["video_path"], folder, where)
                if path in rows:
                    raise MetadataError(f"{where}: {path} is listed twice.")
                file = on_disk.find(path)
                missing.count(path, folder, file is not None)
                rows[path] = _row(None if file is None else corpus.absolute(file), path, folder, cells, where)
        if not rows:
            raise MetadataError(f"{', '.join(corpus.metadata)} in {corpus.root} have no rows.")
        genuine = {(row["folder"], row["clip"]): path for path, row in rows.items() if row["label"] == REAL}
        for row in rows.values():
            if row["label"] == FAKE:
                row["source"] = genuine.get((row["folder"], row["clip"]))
        self.note_unlisted(corpus, rows, "the tables")
        self.note_sourceless(list(rows.values()), "the tables list no genuine clip of the same name")
        if absent := [name for name in _GENERATORS if f"{name}.csv" not in corpus.metadata]:
            self.note(f"this copy has no table of {', '.join(absent)}.")
        return list(rows.values()), missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        folders: dict[str, set[str]] = {}
        for row in rows:
            folders.setdefault(row["clip"], set()).add(row["folder"])
        splits = split_twice(
            {clip: " ".join(sorted(found)) for clip, found in folders.items()}, self.config.seed
        )
        dealt = by_split(rows, lambda row: splits[row["clip"]])
        if not self.config.name.startswith("held_out_"):
            return dealt
        generator = self.config.name.removeprefix("held_out_")
        if not any(row["folder"] == generator for row in dealt["test"]):
            raise ProtocolError(f"{self.config.name}: this copy has no test clip of {generator}.")
        return {
            split: [row for row in members if (row["folder"] == generator) == (split == "test")]
            for split, members in dealt.items()
        }


def _path(told: str, folder: str, where: str) -> str:
    """Return the path from the root of the corpus: the last part named like the folder begins it."""
    parts = [part for part in re.split(r"[/\\]", told.strip()) if part not in ("", ".")]
    if not parts or not parts[-1].lower().endswith(".mp4") or ".." in parts:
        raise MetadataError(f"{where}: expected the path of an mp4 file, got {told!r}.")
    if folder in parts[:-1]:
        parts = parts[len(parts) - 1 - parts[::-1].index(folder) :]
    else:
        parts = [folder, *parts]
    return "/".join(parts)


def _row(video: str | None, path: str, folder: str, cells: dict[str, str], where: str) -> ClipRow:
    label, picture, sound = (
        parse_label(cells[name], f"{where}, column {name}")
        for name in ("overall_label", "visual_label", "audio_label")
    )
    stem = os.path.splitext(path.removeprefix(f"{folder}/"))[0]
    try:
        return make_row(
            video,
            path,
            label,
            video_label=picture,
            audio_label=sound,
            generator=folder,
            audio_generator=folder,
            folder=folder,
            clip=stem.removesuffix(_MADE),
        )
    except MetadataError as error:
        raise MetadataError(f"{where}: {error}") from error

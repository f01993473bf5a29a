"""Your own clips: a folder per class, or any folder with a table that names and labels the files."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .builder import CorpusBuilder, SeededConfig
from .corpus import SOUND_SUFFIXES, VIDEO_SUFFIXES, Corpus, MissingFiles, linked_from_outside, scan_files
from .errors import CorpusNotFoundError, MetadataError, ProtocolError, nearest
from .schema import FAKE, LABELS, REAL, ClipRow, make_row, parse_label
from .splits import FULL_SPLIT, by_split, split_twice
from .text_files import FileNames, open_text

_METADATA = ("metadata.csv", "metadata.parquet", "metadata.jsonl")
_TEXTS = ("generator", "audio_generator", "language", "identity", "source")
_COLUMNS = (
    "file_name",
    "audio_file_name",
    "label",
    "video_label",
    "audio_label",
    *_TEXTS,
    "fake_segments",
    "split",
)
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_CLASS_NAMES = {"real": REAL, "0": REAL, "fake": FAKE, "1": FAKE}
_SHARES = {"train": 70, "validation": 10, "test": 20}


@dataclass
class AVFolderConfig(SeededConfig):
    """Settings of `avfolder`; `seed` draws the config `split`."""

    CORPUS = "avfolder"
    LOOKED_FOR = f"one of {', '.join(_METADATA)}, or the folders real/ and fake/ (also below train/, validation/, test/)"

    def holds(self, folder: str) -> bool:
        """See [`CorpusConfig.holds`]."""
        return bool(_tables_in(folder)) or _has_classes(folder)

    def metadata_in(self, folder: str) -> list[str]:
        """See [`CorpusConfig.metadata_in`]."""
        tables = _tables_in(folder)
        if len(tables) > 1:
            raise MetadataError(f"{folder} has {' and '.join(tables)}: keep one of them.")
        return tables

    def media_in(self, root: str) -> tuple[list[str], int]:
        """See [`CorpusConfig.media_in`]. A table may name sound files, and videos of any suffix: all files count."""
        suffixes = ("",) if _tables_in(root) else (*VIDEO_SUFFIXES, *SOUND_SUFFIXES)
        return scan_files(root, suffixes)


def _tables_in(folder: str) -> list[str]:
    return [name for name in _METADATA if os.path.isfile(os.path.join(folder, name))]


def _has_classes(folder: str) -> bool:
    folders = {entry.name.lower(): entry.path for entry in os.scandir(folder) if entry.is_dir()}
    if _CLASS_NAMES.keys() & folders.keys():
        return True
    inside = [path for name, path in folders.items() if name in _SPLIT_NAMES]
    return any(_CLASS_NAMES.keys() & {entry.name.lower() for entry in os.scandir(path)} for path in inside)


class AVFolder(CorpusBuilder):
    """Your own clips.

    ```py
    >>> load_dataset("avfolder", data_dir="my_clips")  # with the folder's own splits, if it has any
    >>> load_dataset("avfolder", "split", data_dir="my_clips")  # with a new train, validation and test split
    ```

    `data_dir` is one of:

    - a folder per class, `real/` and `fake/` (or `0/` and `1/`: fake is 1). `train/`, `validation/` and `test/` may be
      above the classes or inside them. Other folders inside a class are allowed; the first one in `fake/` is the
      generator. A sound file is a clip without a picture; one beside a video of the same name is not used.
    - a folder with `metadata.csv`, `metadata.parquet` or `metadata.jsonl`, with one row per clip. Columns:
      `file_name` (relative to the folder) and `label` (`real` or 0, `fake` or 1); optionally `video_label`,
      `audio_label`, `generator`, `audio_generator`, `language`, `identity`, `source` (the `file_name` of the genuine
      clip), `split`, `audio_file_name` (a separate sound file) and `fake_segments` (`[[start, end], ...]` in
      seconds). An empty cell means unknown. Clips that the table does not name are not used.

    Configs:

    - `all` (default): the splits of the folders or of the column `split`; without any, one split, `full`.
    - `split`: 70 / 10 / 20 into train, validation and test, for data without splits. Clips of one `identity` stay
      together; if it is unknown, a clip stays with the fakes that name it as their `source`. Adding clips may move
      others to another split.
    """

    BUILDER_CONFIG_CLASS = AVFolderConfig
    PROTOCOLS = {
        "all": "the user's splits, or one split.",
        "split": "70 / 10 / 20, by identity where it is known.",
    }
    ONE_SPLIT = ()
    DESCRIPTION = "Clips of a local folder."
    DEALING_COLUMNS = ("split",)

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]. `split` is that of the user, or None."""
        rows, missing = self._read_table(corpus) if corpus.metadata else self._read_folders(corpus)
        if outside := linked_from_outside(corpus.root, [row["path"] for row in rows]):
            self.note(
                f"{len(outside):,} clips lie outside of {corpus.root}, where symbolic links lead, such as {outside[0]}."
            )
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        unassigned = [row["path"] for row in rows if row["split"] is None]
        if 0 < len(unassigned) < len(rows):
            raise MetadataError(
                f"{len(unassigned):,} of {len(rows):,} clips have no split, such as {unassigned[0]}: give all or none."
            )
        if self.config.name == "split":
            if not unassigned:
                raise ProtocolError(
                    f"avfolder: this data has splits of its own ({', '.join(sorted({r['split'] for r in rows}))}); "
                    "load the config 'all', or remove them first."
                )
            return self._draw(rows)
        if unassigned:
            return {FULL_SPLIT: rows}
        dealt = by_split(rows, lambda row: row["split"])
        return {split: members for split, members in dealt.items() if members}

    def _draw(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        group_of = _groups(rows)
        labels: dict[str, set[str]] = {}
        for row in rows:
            labels.setdefault(group_of(row), set()).add(LABELS[row["label"]])
        strata = {group: " ".join(sorted(found)) for group, found in labels.items()}
        splits = split_twice(strata, self.config.seed, _SHARES)
        return by_split(rows, lambda row: splits[group_of(row)])

    def _read_folders(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        rows, strays, tracks = [], [], []
        videos = {os.path.splitext(path)[0] for path in corpus.media if not _is_sound(path)}
        for path in corpus.media:
            *folders, _ = path.split("/")
            split = None
            inside = folders
            for place, folder in enumerate(folders):
                if folder.lower() in _SPLIT_NAMES:
                    split = _SPLIT_NAMES[folder.lower()]
                    inside = folders[:place] + folders[place + 1 :]
                    break
            label = _CLASS_NAMES.get(inside[0].lower()) if inside else None
            if label is None:
                strays.append(path)
                continue
            sound = _is_sound(path)
            if sound and os.path.splitext(path)[0] in videos:
                tracks.append(path)
                continue
            generator = inside[1] if label == FAKE and len(inside) > 1 else None
            about = {"split": split}
            if sound and label == FAKE:
                about |= {"audio_label": FAKE, "audio_generator": generator}
            row = make_row(
                corpus.absolute(path), path, label, generator=None if sound else generator, **about
            )
            rows.append({**row, "video_label": None, "generator": None} if sound else row)
        if not rows:
            raise CorpusNotFoundError(
                f"avfolder: no media file in the real/ and fake/ folders of {corpus.root}; {corpus.others:,} files are "
                "of another kind."
            )
        self.note_unused(strays, "media files are in neither a real nor a fake folder")
        self.note_unused(tracks, "sound files have the name of a video beside them")
        if corpus.others:
            self.note(
                f"{corpus.others:,} files are neither video nor sound by their endings, and are not used."
            )
        return rows, MissingFiles()

    def _read_table(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        on_disk = FileNames(corpus.media)
        lines: dict[str, str] = {}
        rows: list[ClipRow] = []
        missing = MissingFiles()
        unused: set[str] = set()
        for where, entry in _entries(corpus.absolute(corpus.metadata[0])):
            for name in entry.keys() - set(_COLUMNS):
                suggestion = nearest(name, _COLUMNS)
                if suggestion:
                    raise MetadataError(f"{where}: unknown column {name!r}.{suggestion}")
                unused.add(name)
            if entry.get("file_name") is None:
                raise MetadataError(f"{where}: no file_name; the columns are {', '.join(entry)}.")
            path = _relative(entry["file_name"], f"{where}, column file_name")
            path = on_disk.find(path) or path
            if path in lines:
                raise MetadataError(f"{where}: {path} is already in {lines[path]}; a clip has one row.")
            lines[path] = where
            sound = entry.get("audio_file_name")
            if sound is not None:
                sound = _relative(sound, f"{where}, column audio_file_name")
                sound = on_disk.find(sound) or sound
            row = _row(corpus, where, path, sound, entry)
            if row["source"] is not None:
                row["source"] = on_disk.find(row["source"]) or row["source"]
            for file in [path] if sound is None else [path, sound]:
                present = on_disk.find(file) is not None
                missing.count(file, file.split("/")[0] if "/" in file else ".", present)
                if not present:
                    row["video"] = None
            rows.append(row)
        if not lines:
            raise MetadataError(f"{corpus.absolute(corpus.metadata[0])} has no rows.")
        if unused:
            self.note(
                f"unused columns: {', '.join(sorted(unused))}. The known ones are {', '.join(_COLUMNS)}."
            )
        unlisted = [p for p in corpus.media if p not in lines and p.lower().endswith(VIDEO_SUFFIXES)]
        self.note_unused(unlisted, f"video files are not in {corpus.metadata[0]}")
        return rows, missing


def _row(corpus: Corpus, where: str, path: str, sound: str | None, entry: dict[str, Any]) -> ClipRow:
    found = {
        name: parse_label(entry[name], f"{where}, column {name}")
        for name in ("label", "video_label", "audio_label")
        if entry.get(name) is not None
    }
    if "label" not in found:
        raise MetadataError(f"{where}: no label; use real (or 0) and fake (or 1).")
    split = entry.get("split")
    if split is not None and str(split).strip().lower() not in _SPLIT_NAMES:
        raise MetadataError(f"{where}, column split: {split!r} is none of {', '.join(_SPLIT_NAMES)}.")
    texts = {name: None if entry.get(name) is None else str(entry[name]) for name in _TEXTS}
    if texts["source"] is not None:
        texts["source"] = _relative(texts["source"], f"{where}, column source")
    try:
        return make_row(
            corpus.absolute(path),
            path,
            audio=None if sound is None else corpus.absolute(sound),
            fake_segments=_segments(entry.get("fake_segments"), where),
            split=None if split is None else _SPLIT_NAMES[str(split).strip().lower()],
            **found,
            **texts,
        )
    except MetadataError as error:
        raise MetadataError(f"{where}: {error}") from error


def _is_sound(path: str) -> bool:
    return path.lower().endswith(SOUND_SUFFIXES)


def _groups(rows: list[ClipRow]) -> Callable[[ClipRow], str]:
    """Return a function that gives each row its group, which stays in one split.

    A group is an identity or, if that is unknown, a genuine clip and its fakes. A fake without identity takes that of
    its source clip.
    """
    identities = {row["path"]: row["identity"] for row in rows}

    def group_of(row: ClipRow) -> str:
        origin = row["source"] or row["path"]
        identity = row["identity"] or identities.get(origin)
        return f"identity {identity}" if identity else f"clip {origin}"

    return group_of


def _relative(name: Any, where: str) -> str:
    path = os.path.normpath(str(name).strip().replace("\\", "/")).replace(os.sep, "/")
    if os.path.isabs(path) or path == ".." or path.startswith("../"):
        raise MetadataError(f"{where}: {name!r} must be relative to the folder of the table, and inside it.")
    return path


def _segments(value: Any, where: str) -> list[list[float]] | None:
    if value is None:
        return None
    try:
        value = json.loads(value) if isinstance(value, str) else value
        return [[float(bound) for bound in segment] for segment in value]
    except (TypeError, ValueError) as error:
        raise MetadataError(
            f"{where}, column fake_segments: expected [[start, end], ...] in seconds, got {value!r}."
        ) from error


def _entries(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row of a metadata file as (where it is, its cells); an empty cell is None."""
    suffix = os.path.splitext(path)[1]
    if suffix == ".parquet":
        import pyarrow.parquet

        source = enumerate(pyarrow.parquet.read_table(path).to_pylist())
        unit = "row"
    elif suffix == ".jsonl":
        source, unit = _json_lines(path), "line"
    else:
        source, unit = _csv_lines(path), "line"
    for number, cells in source:
        where = f"{path}, {unit} {number}"
        named = {str(name).strip(): value for name, value in cells.items() if name}
        yield (
            where,
            {
                name: None if value is None or (isinstance(value, str) and not value.strip()) else value
                for name, value in named.items()
            },
        )


def _csv_lines(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_text(path) as file:
        reader = csv.DictReader(file)
        for cells in reader:
            if None in cells:
                raise MetadataError(
                    f"{path}, line {reader.line_num}: more cells than the header has columns."
                )
            yield reader.line_num, cells


def _json_lines(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                cells = json.loads(line)
            except json.JSONDecodeError as error:
                raise MetadataError(f"{path}, line {number}: not JSON ({error}).") from error
            if not isinstance(cells, dict):
                raise MetadataError(f"{path}, line {number}: expected an object, got {line.strip()[:80]}.")
            yield number, cells

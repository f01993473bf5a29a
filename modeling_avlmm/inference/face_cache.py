"""A folder of face tracks: every file's faces are found once, for training and for evaluation."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np

from dataset_scripts.files import sha256_of, written_whole

from .. import faces
from ..faces import FaceFinder, FaceTrack, find_tracks
from ..media import MediaReader
from ..pipeline_inputs import split_source

COLUMNS = {"times": (), "boxes": (4,), "landmarks": (5, 2), "scores": ()}
"""Fields of a track with one row a time, stored one track after another, and the shape of a row."""
FACES_CODE = sha256_of(*sorted(Path(faces.__file__).parent.glob("face*.py")))
"""Another version of the tracker finds other tracks."""


class FaceCacheWarning(UserWarning):
    """An entry of the cache that could not be read, and is found again."""


@dataclass
class FaceCache:
    """
    Face tracks of files, found at the first call and read from a folder after that.

    An instance is the `tracks` option of the pipeline. An entry belongs to a path, with the size and the time of change of
    its file, and to the settings; a changed file is looked at again. Several processes may use one folder. The user's own
    folders are only read.

    Args:
        folder (`str` or `Path`): Folder of the entries; made where it is missing.
        fps (`float`, *optional*, defaults to 5.0): Frames a second in which faces are looked for.
        trim_leading_silence (`bool`, *optional*, defaults to `False`):
            Whether the detector begins clips where their sound sets in: times count from there.
        finder ([`FaceFinder`], *optional*): Finds the faces.

    Raises:
        FaceFinderError: If the face finder is not installed.

    Example:

    ```python
    >>> cache = FaceCache("runs/evaluation/faces")
    >>> tracks = cache("clip.mp4")
    >>> detector("clip.mp4", tracks=cache)
    ```
    """

    folder: str | Path
    fps: float = 5.0
    trim_leading_silence: bool = False
    finder: FaceFinder = field(default_factory=FaceFinder)

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)

    def __call__(self, source: Any) -> list[FaceTrack] | None:
        """
        Return the tracks of a file, in order of appearance.

        Args:
            source: An input of the pipeline: a path, `{"video": ..., "audio": ...}` or a row of a dataset.

        Returns:
            `list[FaceTrack]`: empty where no face was found or there is no picture. None for sources that are no files
            on disk, which the caller has to look at itself.

        Raises:
            MediaError: If the file cannot be read. Nothing is stored then.
        """
        files = file_stamps(source)
        if files is None:
            return None
        key = self._key(files)
        entry = self._entry(key)
        tracks = _read(entry, key)
        if tracks is None:
            _write(entry, key, self._find(*split_source(source)))
            # As later calls have them, to the last bit.
            tracks = _read(entry, key)
        return tracks

    def _key(self, files: list[list]) -> str:
        """Return everything that an entry depends on, as text."""
        return json.dumps(
            {
                "files": files,
                "fps": self.fps,
                "finder": [self.finder.min_score, *self.finder.sides],
                "trim_leading_silence": self.trim_leading_silence,
                "faces": FACES_CODE,
            }
        )

    def _entry(self, key: str) -> Path:
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / name[:2] / f"{name[2:32]}.npz"

    def _find(self, video: Any, audio: Any) -> list[FaceTrack]:
        trim = self.trim_leading_silence
        with MediaReader(video, audio=audio, trim_leading_silence=trim) as reader:
            return find_tracks(reader, fps=self.fps, finder=self.finder)


def file_stamps(source: Any) -> list[list] | None:
    """
    Return what tells one version of a source from another: path, size in bytes and time of change (ns) of its files.

    Args:
        source: An input of the pipeline: a path, `{"video": ..., "audio": ...}` or a row of a dataset.

    Returns:
        `list[list]`: one entry for the picture, and one for a separate sound. None for sources that are no files on disk.
    """
    video, audio = split_source(source)
    files = [_path_of(video), *([] if audio is None else [_path_of(audio)])]
    if None in files or not all(map(os.path.isfile, files)):
        return None
    stats = [os.stat(file) for file in files]
    return [
        [os.path.abspath(file), stat.st_size, stat.st_mtime_ns]
        for file, stat in zip(files, stats, strict=True)
    ]


def _path_of(source: Any) -> str | None:
    """Return the path of a source, or None where it is no path."""
    if isinstance(source, dict):
        source = source.get("path") if source.get("bytes") is None else None
    return os.fspath(source) if isinstance(source, str | os.PathLike) else None


def _write(entry: Path, key: str, tracks: list[FaceTrack]) -> None:
    """Write an entry whole. Processes that write the same one at once each have a name of their own until then."""
    own = entry.with_name(f"{entry.stem}.{uuid.uuid4().hex}.npz")
    columns = {
        name: np.concatenate([np.zeros((0, *shape)), *(getattr(track, name) for track in tracks)])
        for name, shape in COLUMNS.items()
    }
    # Times stay exact. Pixels and scores are no more precise than float32.
    columns = {
        name: values if name == "times" else values.astype(np.float32) for name, values in columns.items()
    }
    with written_whole(own) as partial:
        np.savez(
            partial,
            key=np.array(key),
            lengths=np.array([len(track) for track in tracks], dtype=np.int64),
            index=np.array([track.index for track in tracks], dtype=np.int64),
            hold=np.array([track.hold for track in tracks], dtype=np.float64),
            **columns,
        )
    os.replace(own, entry)


def _read(entry: Path, key: str) -> list[FaceTrack] | None:
    """Return the tracks of an entry; None where there is none, or a damaged one, which a warning names."""
    try:
        with open(entry, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        if str(arrays["key"]) != key:
            raise ValueError("it belongs to another file")
        ends = np.cumsum(arrays["lengths"])
        count = int(ends[-1]) if len(ends) else 0
        for name, shape in COLUMNS.items():
            if arrays[name].shape != (count, *shape):
                raise ValueError(f"its {name} have the shape {arrays[name].shape}")
        parts = {name: np.split(arrays[name].astype(np.float64), ends[:-1]) for name in COLUMNS}
        return [
            FaceTrack(**{name: parts[name][number] for name in COLUMNS}, index=int(index), hold=float(hold))
            for number, (index, hold) in enumerate(zip(arrays["index"], arrays["hold"], strict=True))
        ]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        warn(f"Faces are found again, as {entry} is damaged: {error}", FaceCacheWarning, stacklevel=4)
        return None


def largest_track(tracks: list[FaceTrack]) -> FaceTrack:
    """Return the track that fills most of the picture over time: its size squared, times the moments it was found at."""
    return max(tracks, key=lambda track: len(track) * track.size**2)

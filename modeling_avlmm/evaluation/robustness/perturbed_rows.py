"""A dataset whose clips are perturbed when they are read."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from .ffmpeg import PerturbationError
from .perturbations import PERTURBATIONS, perturb


class PerturbedFile:
    """
    A binary file object that perturbs its clip when it is first read: one input of the pipeline.

    The copy on disk loses its name when the first byte is read, and is gone with the last one, so that a run only needs
    disk space for the clips that are being read. The object can be sent to another process before it is read.

    Args:
        row (`Mapping`): A row in the package's schema; `video` and `audio` as paths or undecoded media.
        perturbation (`str`), severity (`int`), seed (`int`): As for [`perturb`].
        other (`Mapping`, *optional*): The row whose sound is taken, for `audio_swap`.

    Raises:
        MediaError: on reading, if the clip cannot be read or perturbed ([`PerturbationError`]). The pipeline turns it into
            the `error` of that clip's prediction.
    """

    def __init__(
        self, row: Mapping, perturbation: str, severity: int, other: Mapping | None = None, seed: int = 0
    ):
        self.row, self.other = row, other
        self.perturbation, self.severity, self.seed = perturbation, severity, seed
        self.name = f"{row['path']} ({perturbation}, level {severity})"
        self._opened = None
        self._at_end = False

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_opened": None, "_at_end": False}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go back to the start, which is all that a media reader asks for."""
        if offset or whence:
            raise OSError(f"{self.name} can be read again from its start only.")
        self.close()
        return 0

    def close(self) -> None:
        """Drop the copy. The next read makes it again."""
        if self._opened is not None:
            self._opened.close()
        self._opened, self._at_end = None, False

    def read(self, size: int = -1) -> bytes:
        if self._at_end:
            return b""
        if self._opened is None:
            self._opened = self._perturb()
        data = self._opened.read(size)
        if size < 0 or (size and not data):
            self.close()
            self._at_end = True
        return data

    def _perturb(self) -> Any:
        with tempfile.TemporaryDirectory(prefix="perturbed-") as folder:
            video, audio, _ = _media(self.row, folder, "own")
            other = None
            if self.perturbation == "audio_swap":
                if self.other is None:
                    reason = "is the only clip, so there is no other sound to give it"
                    raise PerturbationError(self.name, reason, "Score more than one clip")
                *_, other = _media(self.other, folder, "other")
            copy = perturb(
                video or audio,
                self.perturbation,
                self.severity,
                Path(folder) / "copy",
                audio=audio if video else None,
                other=other,
                seed=self.seed,
            )
            # Not in a `with`: the folder goes, and the open file stays readable until it is closed.
            return open(copy, "rb")


class PerturbedRows(torch.utils.data.Dataset):
    """
    The rows of a dataset with a [`PerturbedFile`] as `video` and no separate `audio`.

    Nothing is done until a row's file is read. A clip's seed depends on `seed` and on its `path`, not on its place.

    Args:
        dataset (`Dataset` or `Sequence[Mapping]`): Rows in the package's schema, undecoded.
        perturbation (`str`), severity (`int`), seed (`int`): As for [`perturb`].
        donors (`Sequence[int]`, *optional*): For each row the place of the row whose sound it gets.
    """

    def __init__(
        self,
        dataset: Dataset | Sequence[Mapping],
        perturbation: str,
        severity: int,
        seed: int = 0,
        donors: Sequence[int] | None = None,
    ):
        PERTURBATIONS[perturbation].value(severity)
        self.dataset, self.perturbation, self.severity = dataset, perturbation, severity
        self.seed, self.donors = seed, donors

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        row = self.dataset[index]
        other = None if self.donors is None else self.dataset[self.donors[index]]
        digest = hashlib.sha256(f"{self.seed}/{row['path']}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big") % 2**31
        return {
            **row,
            "video": PerturbedFile(row, self.perturbation, self.severity, other, seed),
            "audio": None,
        }


def choose_donors(rows: Sequence[Mapping], seed: int = 0) -> list[int] | None:
    """
    Choose for each row another one to take the sound from; each gives its sound once.

    The two differ in identity (or in genuine source, where identities are unknown), unless more than half of the rows
    share one: a fake's own source may have the very same sound, and nothing would be swapped.

    Args:
        rows (`Sequence[Mapping]`): Rows with `path`, `identity` and `source`.
        seed (`int`, *optional*, defaults to 0): Seed of the draw.

    Returns:
        `list[int]`, *optional*: places of the donors; None for a single row.
    """
    if len(rows) < 2:
        return None
    draw = np.random.default_rng(seed)
    groups: dict[Any, list[int]] = {}
    for place in draw.permutation(len(rows)).tolist():
        row = rows[place]
        groups.setdefault(row.get("identity") or row.get("source") or row["path"], []).append(place)
    # One group after the other in a ring: a step as long as the largest group leaves every group.
    ring = [place for group in groups.values() for place in group]
    step = max(map(len, groups.values()))
    step = step if step < len(rows) else 1
    donors = [0] * len(rows)
    for position, place in enumerate(ring):
        donors[place] = ring[(position + step) % len(ring)]
    return donors


def _media(row: Mapping, folder: str, name: str) -> tuple[Any, Any, Any]:
    """Return the paths of a row's clip and its separate sound file, and of the one of them that is heard."""
    video, audio = (
        _path(row.get(track), Path(folder) / f"{name}_{track}", row["path"]) for track in ("video", "audio")
    )
    if video is None and audio is None:
        raise PerturbationError(row["path"], "has neither 'video' nor 'audio'", "Fill one of them")
    return video, audio, audio or video


def _path(source: Any, target: Path, name: str) -> Path | None:
    """Return the path of undecoded media; bytes are written to `target` first."""
    if isinstance(source, Mapping):
        source = source.get("bytes") if source.get("bytes") is not None else source.get("path")
    if isinstance(source, bytes):
        target.write_bytes(source)
        return target
    if source is None or isinstance(source, str | Path):
        return None if source is None else Path(source)
    advice = "Give a path, or bytes; cast a `datasets.Video` column to `Video(decode=False)`"
    raise PerturbationError(name, f"a {type(source).__name__} cannot be perturbed", advice)

"""A corpus on disk: finding its folder, listing its files, counting the missing ones."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .errors import CorpusNotFoundError
from .files import CHUNK

# fmt: off
VIDEO_SUFFIXES = (
    ".3gp", ".amv", ".asf", ".avi", ".divx", ".f4v", ".flv", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov",
    ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".qt", ".ts", ".vob", ".webm", ".wmv",
)
SOUND_SUFFIXES = (
    ".aac", ".ac3", ".aif", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".mka", ".mp2", ".mp3",
    ".oga", ".ogg", ".opus", ".wav", ".wma",
)
# fmt: on
_URL_MARK = "://"


@dataclass
class Corpus:
    """A corpus that was found on disk. Paths are relative to `root`, with `/`.

    Attributes:
        root (`str`): absolute path of its folder.
        metadata (`list[str]`): metadata files.
        media (`list[str]`): media files.
        others (`int`): number of other files.
    """

    root: str
    metadata: list[str]
    media: list[str]
    others: int = 0

    def absolute(self, path: str) -> str:
        """Return the absolute path of a file of the corpus."""
        return os.path.join(self.root, *path.split("/"))

    def fingerprint(self) -> str:
        """Hash everything a table is made from: the root, the metadata's bytes and the names of the media."""
        digest = hashlib.sha256(os.fsencode(self.root))
        for path in self.metadata:
            digest.update(os.fsencode(path))
            with open(self.absolute(path), "rb") as file:
                while block := file.read(CHUNK):
                    digest.update(block)
        for path in self.media:
            digest.update(b"\0" + path.encode(errors="surrogateescape"))
        return digest.hexdigest()


@dataclass
class MissingFiles:
    """Files that the metadata list but that are not on disk.

    Attributes:
        total (`int`): number of files the metadata list.
        paths (`list[str]`): the missing ones, relative.
        parts (`dict[str, list[int]]`): part of the corpus -> [missing, total]; a part is one download.
    """

    total: int = 0
    paths: list[str] = field(default_factory=list)
    parts: dict[str, list[int]] = field(default_factory=dict)

    def count(self, path: str, part: str, present: bool) -> None:
        """Count one file of the metadata."""
        self.total += 1
        tally = self.parts.setdefault(part, [0, 0])
        tally[1] += 1
        if not present:
            self.paths.append(path)
            tally[0] += 1

    def summary(self) -> str:
        """Return one sentence that says how many files are missing, and in which parts."""
        absent = [f"all {n:,} of {part!r}" for part, (missing, n) in self.parts.items() if missing == n]
        partly = [f"{m:,} of {n:,} of {part!r}" for part, (m, n) in self.parts.items() if 0 < m < n]
        return f"{len(self.paths):,} of {self.total:,} files are missing: {', '.join(absent + partly)}."


def scan_files(root: str, suffixes: Sequence[str] = VIDEO_SUFFIXES) -> tuple[list[str], int]:
    """List the files below `root` whose suffix is one of `suffixes`, in any case.

    Hidden entries (`.DS_Store`, `._clip.mp4`) are skipped, and what is no file, such as a pipe, counts as another file. Links to
    folders are followed, each folder once.

    Returns:
        `tuple[list[str], int]`: the paths relative to `root`, with `/`, sorted, and the number of other files.
    """
    found: list[str] = []
    others = 0
    seen: set[str] = set()
    folders = [""]
    while folders:
        folder = folders.pop()
        real = os.path.realpath(os.path.join(root, folder)) if folder else os.path.realpath(root)
        if real in seen:
            continue
        seen.add(real)
        with os.scandir(os.path.join(root, folder) if folder else root) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                relative = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir():
                    folders.append(relative)
                elif entry.name.lower().endswith(tuple(suffixes)) and (entry.is_file() or entry.is_symlink()):
                    found.append(relative)
                else:
                    others += 1
    return sorted(found), others


def linked_from_outside(root: str, files: Sequence[str]) -> list[str]:
    """Return those of some files below `root` that lie elsewhere, reached through a symbolic link."""
    real_root = os.path.realpath(root)
    inside: dict[str, bool] = {}
    outside = []
    for file in files:
        path = os.path.join(root, *file.split("/"))
        folder = os.path.realpath(path) if os.path.islink(path) else os.path.dirname(path)
        if folder not in inside:
            inside[folder] = os.path.commonpath([real_root, os.path.realpath(folder)]) == real_root
        if not inside[folder]:
            outside.append(file)
    return outside


def scan_folders(
    root: str, folders: Sequence[str], suffixes: Sequence[str] = VIDEO_SUFFIXES
) -> tuple[list[str], int]:
    """List the files of some folders of `root`, see [`scan_files`]. Folders that do not exist are skipped.

    The paths are relative to `root`, in the order of the folders.
    """
    media: list[str] = []
    others = 0
    for folder in folders:
        path = os.path.join(root, *folder.split("/"))
        if os.path.isdir(path):
            files, rest = scan_files(path, suffixes)
            media += [f"{folder}/{file}" for file in files]
            others += rest
    return media, others


def find_root(data_dir: str | None, corpus: str, looked_for: str, holds: Callable[[str], bool]) -> str:
    """Find the folder of a corpus: `data_dir` itself, or a folder directly inside it.

    Args:
        data_dir (`str`, *optional*):
            The user's setting.
        corpus (`str`):
            Name of the corpus, for messages.
        looked_for (`str`):
            Description of what the folder must hold, for messages.
        holds (`Callable[[str], bool]`):
            Returns whether a folder is the corpus.

    Returns:
        `str`: an absolute path; links are kept.

    Raises:
        [`CorpusNotFoundError`]: no such folder, or several.
    """
    if not data_dir:
        raise CorpusNotFoundError(
            f"{corpus}: pass `data_dir`, the folder with {looked_for}. The files cannot be downloaded from here."
        )
    if _URL_MARK in data_dir:
        raise CorpusNotFoundError(
            f"{corpus}: `data_dir` must be a local folder, got {data_dir}; download it first."
        )
    root = os.path.abspath(os.path.expanduser(data_dir))
    if not os.path.isdir(root):
        kind = "is a file, not a folder" if os.path.exists(root) else "does not exist"
        raise CorpusNotFoundError(f"{corpus}: data_dir {root} {kind}. Looked for a folder with {looked_for}.")
    if holds(root):
        return root
    entries = sorted(entry for entry in os.listdir(root) if not entry.startswith("."))
    inside = [os.path.join(root, entry) for entry in entries]
    candidates = [folder for folder in inside if os.path.isdir(folder) and holds(folder)]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise CorpusNotFoundError(
            f"{corpus}: several folders in {root} fit, give one as data_dir: {candidates}."
        )
    listed = ", ".join(entries[:10]) + (f" and {len(entries) - 10} more" if len(entries) > 10 else "")
    raise CorpusNotFoundError(
        f"{corpus}: looked for {looked_for} in {root} and in the folders inside it; found {listed or 'nothing'}."
    )

"""The files that a run looks at: files and links as they are named, folders walked in a fixed order."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dataset_scripts.corpus import SOUND_SUFFIXES, VIDEO_SUFFIXES
from dataset_scripts.text_files import printable

from ...inference.sharding import Shard
from ...media_links import is_link

MEDIA_SUFFIXES = frozenset([*VIDEO_SUFFIXES, *SOUND_SUFFIXES])
"""Endings by which files in a folder are taken for media."""


@dataclass
class Survey:
    """
    Counts of the files to look at, made before anything is decoded.

    Attributes:
        files (`int`): Files that will be looked at.
        others (`Counter`): Files of folders that will not be, by ending.
        unlisted (`list[str]`): Folders that could not be listed, with the reason.
        folders (`int`): Inputs that are folders.
        width (`int`): Width of the widest name, in columns of a terminal.
        shard (`Shard`, *optional*): The share of all files that will be looked at.
        elsewhere (`int`): Files of the other shares.
    """

    files: int = 0
    others: Counter = field(default_factory=Counter)
    unlisted: list[str] = field(default_factory=list)
    folders: int = 0
    width: int = len("file")
    shard: Shard | None = None
    elsewhere: int = 0

    def lines(self) -> Iterator[str]:
        """Yield what to tell the user: folders that cannot be listed, and what is left out of the others."""
        yield from self.unlisted
        if not self.folders and self.shard is None:
            return
        line = f"{self.files} files to look at"
        if self.shard is not None:
            line += f", shard {self.shard.number} of {self.shard.of}; {self.elsewhere} are in other shards"
        if others := self.others.total():
            most = ", ".join(f"{printable(suffix)} {count}" for suffix, count in self.others.most_common(5))
            more = ", ..." if len(self.others) > 5 else ""
            line += f"; {others} others left out ({most}{more}), which --all-files would try"
        yield line


def survey(inputs: list[str], all_files: bool = False, shard: Shard | None = None) -> Survey:
    """Count the files that [`walk`] yields."""
    found = Survey(folders=sum(is_folder(name) for name in inputs), shard=shard)
    for path in walk(inputs, all_files, found, shard):
        found.files += 1
        found.width = max(found.width, columns(printable(path)))
    return found


def walk(
    inputs: list[str], all_files: bool = False, found: Survey | None = None, shard: Shard | None = None
) -> Iterator[str]:
    """
    Yield the files to look at one by one, so that a folder of any size takes no memory.

    Args:
        inputs (`list[str]`): Files and http(s) links, taken as they are, and folders, which are walked in alphabetical order,
            the files of a folder before its subfolders. Symbolic links to folders are not followed.
        all_files (`bool`): Take every file of a folder, whatever its name.
        found ([`Survey`], *optional*): Takes note of files that are left out and of folders that cannot be listed.
        shard ([`Shard`], *optional*):
            Yield only this share: of links and named files by their name, of the files of a folder by their path in it, which
            is the same wherever a machine has mounted the folder.
    """

    def is_here(name: str) -> bool:
        if shard is None or shard.holds(name):
            return True
        if found is not None:
            found.elsewhere += 1
        return False

    for name in inputs:
        if not is_folder(name):
            if is_here(name):
                yield name
            continue

        def unlisted(error: OSError) -> None:
            if found is not None:
                found.unlisted.append(f"{printable(str(error.filename))} cannot be listed ({error.strerror})")

        for folder, inner, files in os.walk(name, onerror=unlisted):
            inner.sort()
            for file in sorted(files):
                suffix = Path(file).suffix.lower()
                # macOS leaves "._clip.mp4" beside clip.mp4 on foreign disks: attributes, not media.
                if all_files or (suffix in MEDIA_SUFFIXES and not file.startswith("._")):
                    path = os.path.join(folder, file)
                    if is_here(os.path.relpath(path, name)):
                        yield path
                elif found is not None:
                    found.others["._*" if file.startswith("._") else suffix or "no ending"] += 1


def is_folder(name: str) -> bool:
    """Return whether an input is a folder on disk."""
    return not is_link(name) and os.path.isdir(name)


def columns(text: str) -> int:
    """Return the columns that a text takes in a terminal: two for a wide character such as 中, none for a combining accent.

    Names are composed first, as macOS stores é and 한 in parts.
    """
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in unicodedata.normalize("NFC", text)
    )

"""The clip of a corpus that a path of another program means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

EXACT, TAIL, PART, STEM = "exact", "tail", "part", "stem"
"""The path itself; one path ends with the other; the last parts are equal, and folders before them differ; so without the
ending of the file name."""
RULE = (
    "A path of the table is a clip's relative path itself, or else means the one clip with which it shares the most last "
    "parts (file name, folder above, ...), or so without the ending of the file name; where several clips share as many, it "
    "means none."
)


class PathMatcher:
    """
    Finds the clips of a corpus by paths that another program wrote, by [`RULE`].

    Args:
        paths (`Sequence[str]`): Relative paths of the clips, with `/`.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = set(paths)
        self._by_tail = _tails((path, path) for path in paths)
        # Programs that work on frames know a clip by the name of its folder.
        self._by_stem = _tails((str(PurePosixPath(path).with_suffix("")), path) for path in paths)

    def match(self, name: str) -> tuple[str | None, str]:
        """
        Return the clip that a path means, or None, and how it was found: `"exact"`, `"tail"`, `"part"` or `"stem"`.

        `name` may be absolute and may have backslashes. Without a clip the second value is the reason.
        """
        name = name.replace("\\", "/").removeprefix("./") if name not in self.paths else name
        if name in self.paths:
            return name, EXACT
        parts = tuple(part for part in name.split("/") if part)
        for tails in (self._by_tail, self._by_stem):
            for first in range(len(parts)):
                found = tails.get(parts[first:])
                if found is None:
                    continue
                if len(found) > 1:
                    return None, f"could be any of {len(found)} clips, such as {found[0]} and {found[1]}"
                whole = first == 0 or len(found[0].split("/")) == len(parts) - first
                return found[0], STEM if tails is self._by_stem else TAIL if whole else PART
        return None, "no clip of that name"


def _tails(named: Iterable[tuple[str, str]]) -> dict[tuple[str, ...], list[str]]:
    """Return the paths by every tail of their names."""
    by_tail: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, path in named:
        parts = tuple(name.split("/"))
        for first in range(len(parts)):
            by_tail[parts[first:]].append(path)
    return by_tail

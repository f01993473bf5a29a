"""The clip of a corpus that a path of another program means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

EXACT, TAIL, PART = "exact", "tail", "part"
"""The path itself; one path ends with the other; the last parts are equal, and folders before them differ."""
RULE = (
    "A path of the table is a clip's relative path itself, or else means the one clip with which it shares the most last "
    "parts (file name, folder above, ...); where several clips share as many, it means none."
)


class PathMatcher:
    """
    Finds the clips of a corpus by paths that another program wrote, by [`RULE`].

    Args:
        paths (`Sequence[str]`): Relative paths of the clips, with `/`.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = set(paths)
        self._by_tail: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for path in paths:
            parts = tuple(path.split("/"))
            for first in range(len(parts)):
                self._by_tail[parts[first:]].append(path)

    def match(self, name: str) -> tuple[str | None, str]:
        """
        Return the clip that a path means, or None, and how it was found: `"exact"`, `"tail"` or `"part"`.

        `name` may be absolute and may have backslashes. Without a clip the second value is the reason.
        """
        name = name.replace("\\", "/").removeprefix("./") if name not in self.paths else name
        if name in self.paths:
            return name, EXACT
        parts = tuple(part for part in name.split("/") if part)
        for first in range(len(parts)):
            found = self._by_tail.get(parts[first:])
            if found is None:
                continue
            if len(found) > 1:
                return None, f"could be any of {len(found)} clips, such as {found[0]} and {found[1]}"
            whole = first == 0 or len(found[0].split("/")) == len(parts) - first
            return found[0], TAIL if whole else PART
        return None, "no clip of that name"

"""The folder of a run's results: a journal that the run continues from, and a Parquet file when it is through."""

from __future__ import annotations

import re
from pathlib import Path

from ...inference.sharding import Shard
from .resume import Journal, JournalError

JOURNAL = re.compile(r"journal(?:\.(\d+)of(\d+))?\.jsonl")


class ResultFolder:
    """
    Names of the files in a folder of results, of all files or of one shard.

    Args:
        folder (`Path`): The folder; made if it is missing.
        shard ([`Shard`], *optional*): The share of the files that the run looks at.

    Raises:
        JournalError: for a shard in a folder that was divided otherwise, so that files would be scored twice.
    """

    def __init__(self, folder: Path, shard: Shard | None = None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        ending = "" if shard is None else f".{shard}"
        self.journal = self.folder / f"journal{ending}.jsonl"
        self.table = self.folder / f"results{ending}.parquet"
        found = {path: JOURNAL.fullmatch(path.name) for path in sorted(self.folder.iterdir())}
        self._shards = [path for path, match in found.items() if match and match[1]]
        if shard is None:
            return
        for path, match in found.items():
            if match and match[2] != str(shard.of):
                raise JournalError(
                    f"{self.folder} holds {path.name}, which shares of {shard.of} do not go with: divide the files as before, or "
                    "leave out --shard, which takes over what there is and looks at the rest"
                )

    def take_over(self, journal: Journal, identity: dict) -> int:
        """Take over the results of all shards, unless this is one; return the number of shards."""
        if journal.path != self.folder / "journal.jsonl":
            return 0
        for path in self._shards:
            shard = Journal(path, identity)
            journal.take_over(shard)
            shard.close()
        return len(self._shards)

    def forget_shards(self) -> None:
        """Delete the files of shards, whose results are in those of the whole."""
        for path in self._shards:
            table = path.with_name(path.name.replace("journal", "results", 1)).with_suffix(".parquet")
            for file in (path, path.with_name(f"{path.name}.lock"), table):
                file.unlink(missing_ok=True)

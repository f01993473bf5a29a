"""A share of many files, chosen by their names: machines that never speak to one another divide an archive."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """
    One of several shares of a set of names.

    A hash of the name decides, so that a share does not depend on the order or number of the others: each name is in one
    share, files that are added later move no other, and shares are of about the same size.

    Args:
        number (`int`): From 1 to `of`.
        of (`int`): Number of shares.

    Raises:
        ValueError: If there is no such share.

    Example:

    ```python
    >>> [name for name in names if Shard.parse("3/16").holds(name)]
    ```
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ValueError(
                f"a shard is one of several, from 1/{self.of} to {self.of}/{self.of}: not {self.number}/{self.of}."
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that `"3/16"` names."""
        if not re.fullmatch(r"\d{1,9}/[1-9]\d{0,8}", text):
            raise ValueError(f"a shard is written as 3/16, the third of 16: not {text!r}.")
        return cls(*map(int, text.split("/")))

    def holds(self, name: str) -> bool:
        """Return whether a name is in this share."""
        digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}of{self.of}"

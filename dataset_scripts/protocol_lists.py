"""Lists of the clips of a protocol: their fingerprints, JSON files of them, and what is known of the official ones.

A JSON file has one or more lists of one dataset:

```json
{
  "dataset": "fakeavceleb",
  "lists": [
    {
      "protocol": "mrdf_fold1",
      "release": "",
      "source": "where the list is from",
      "splits": {
        "test": {"clips": 2, "fake": 1, "sha256": "...", "paths": {"real": ["a.mp4"], "fake": ["b.mp4"]}}
      }
    }
  ]
}
```

A split without `paths` is a pin: it can be compared with, not loaded. Null stands for what is not known. A name such as
`train+validation` is a pin of several splits together. `"own": true` marks splits that this package made, of a released corpus.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .corpus import MissingFiles
from .errors import MetadataError, ProtocolError
from .files import write_whole
from .schema import FAKE, LABELS, ClipRow

OFFICIAL = Path(__file__).parent / "protocols"
"""Folder with a JSON file for each dataset whose official lists are known."""
_SHA256 = re.compile(r"[0-9a-f]{64}")

Labels = dict[str, int]
"""Relative path -> label (0 real, 1 fake) of the clips of a split."""


def split_fingerprint(clips: Iterable[tuple[str, int]]) -> str:
    """
    Return the SHA-256 of the sorted lines `path<tab>label` in UTF-8, each with a line end, as 64 hexadecimal digits.

    Args:
        clips (iterable of `tuple[str, int]`): Relative path and label (0 real, 1 fake) of each clip, in any order.
    """
    lines = sorted(f"{path}\t{int(label)}\n".encode() for path, label in clips)
    return hashlib.sha256(b"".join(lines)).hexdigest()


@dataclass(frozen=True)
class SplitList:
    """
    The clips of a split, or what is known of them.

    Args:
        clips (`int`): Number of clips.
        fake (`int`, *optional*): Number of fakes; None if not known.
        sha256 (`str`, *optional*): See [`split_fingerprint`]; None if not known.
        labels (`dict[str, int]`, *optional*): Path -> label of each clip; None in a pin.
    """

    clips: int
    fake: int | None
    sha256: str | None
    labels: Labels | None = field(default=None, repr=False)

    @classmethod
    def of(cls, labels: Labels) -> SplitList:
        """Return the list of known clips."""
        fake = sum(label == FAKE for label in labels.values())
        return cls(len(labels), fake, split_fingerprint(labels.items()), labels)

    def size(self) -> str:
        """Return the numbers of clips in words."""
        return f"{self.clips:,} clips" + (
            "" if self.fake is None else f" ({self.clips - self.fake:,} real, {self.fake:,} fake)"
        )


@dataclass(frozen=True)
class ProtocolList:
    """
    The splits of a protocol.

    Args:
        dataset, protocol (`str`): Names as for `load_dataset`; the protocol may be one that the builder does not have.
        splits (`dict[str, SplitList]`): Name -> clips.
        source (`str`): Where the list is from.
        release (`str`): The release of the corpus, if there are several.
        own (`bool`): Whether the splits are this package's, where no list of them is published: then they are compared with
            those of the corpus as it was released.
    """

    dataset: str
    protocol: str
    splits: dict[str, SplitList]
    source: str = ""
    release: str = ""
    own: bool = False

    @property
    def reference(self) -> str:
        """Return `protocol@digits`, eight digits of a hash of the splits' fingerprints: the same for the same clips."""
        lines = "".join(f"{name}\t{part.sha256}\n" for name, part in sorted(self.splits.items()))
        return f"{self.protocol}@{hashlib.sha256(lines.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Differences:
    """Paths in which a copy differs from a list: `missing` from the copy, `extra` in it, `relabelled`."""

    missing: list[str]
    extra: list[str]
    relabelled: list[str]

    @classmethod
    def between(cls, found: Labels, listed: Labels) -> Differences:
        """Compare a copy's clips with a list's."""
        return cls(
            sorted(listed.keys() - found.keys()),
            sorted(found.keys() - listed.keys()),
            sorted(path for path in found.keys() & listed.keys() if found[path] != listed[path]),
        )

    def __str__(self) -> str:
        """Return one sentence, or `the same` without any difference."""
        kinds = {
            "of the list are missing": self.missing,
            "are not on the list": self.extra,
            "have another label": self.relabelled,
        }
        parts = [f"{len(paths):,} {what}, such as {paths[0]}" for what, paths in kinds.items() if paths]
        return "; ".join(parts) or "the same"


def write_lists(path: str | Path, lists: Sequence[ProtocolList], with_paths: bool = True) -> None:
    """
    Write lists of one dataset to a JSON file.

    Args:
        path (`str` or `Path`): The file.
        lists (`Sequence[ProtocolList]`): The lists.
        with_paths (`bool`, *optional*, defaults to `True`): Write the paths; otherwise only numbers and fingerprints.
    """
    entries = [
        {
            "protocol": each.protocol,
            "release": each.release,
            "source": each.source,
            **({"own": True} if each.own else {}),
            "splits": {name: _as_json(part, with_paths) for name, part in each.splits.items()},
        }
        for each in lists
    ]
    content = {"dataset": lists[0].dataset, "lists": entries}
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_lists(path: str | Path) -> list[ProtocolList]:
    """
    Read the lists of a JSON file, and check that numbers and fingerprints are those of the paths.

    Raises:
        [`MetadataError`]: the file cannot be read, has another form, or contradicts itself.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MetadataError(f"{path} cannot be read as a list of clips: {error}") from error
    try:
        return [
            ProtocolList(
                str(content["dataset"]),
                str(entry["protocol"]),
                {
                    str(name): _from_json(part, f"{path}, {entry['protocol']}, {name}")
                    for name, part in entry["splits"].items()
                },
                str(entry.get("source", "")),
                str(entry.get("release", "")),
                entry.get("own") is True,
            )
            for entry in content["lists"]
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise MetadataError(
            f"{path} is no list of clips: it needs `dataset` and `lists`, each with `protocol` and `splits` ({error!r})."
        ) from error


def official_lists(dataset: str) -> list[ProtocolList]:
    """Return what is known of the official lists of a dataset; an empty list if nothing is."""
    path = OFFICIAL / f"{dataset}.json"
    return read_lists(path) if path.is_file() else []


def choose_list(path: str | Path, dataset: str, protocol: str | None = None) -> ProtocolList:
    """
    Return the list of a file whose clips can be loaded: the one of `protocol`, or the only one.

    Raises:
        [`ProtocolError`]: the file is of another dataset, has no such list, or only pins.
        [`MetadataError`]: see [`read_lists`].
    """
    lists = read_lists(path)
    for each in lists:
        if each.dataset != dataset:
            raise ProtocolError(f"{path} is of the dataset {each.dataset}, not {dataset}.")
    named = [each for each in lists if each.protocol == protocol] or lists
    if len(named) != 1:
        raise ProtocolError(f"{path} has {len(lists)} lists, not one: {[each.protocol for each in lists]}.")
    if pins := [name for name, part in named[0].splits.items() if part.labels is None]:
        raise ProtocolError(
            f"{path} has only numbers and fingerprints of {', '.join(pins)}, not the paths: it can be compared with a copy, "
            "but not loaded."
        )
    return named[0]


def deal_as_listed(
    rows: Sequence[ClipRow], frozen: ProtocolList
) -> tuple[dict[str, list[ClipRow]], MissingFiles, int]:
    """
    Assign rows to the splits of a list.

    Args:
        rows (`Sequence[ClipRow]`): All rows of a corpus; those of missing files have None for `video`.
        frozen ([`ProtocolList`]): The list, with paths.

    Returns:
        `tuple`: split -> rows in the order of `rows`, the files of the list that are missing, and the number of rows that are
        not on the list.

    Raises:
        [`ProtocolError`]: a clip has another label than on the list.
    """
    known = {row["path"]: row for row in rows}
    dealt, missing, used = {}, MissingFiles(), set()
    for split, part in frozen.splits.items():
        assert part.labels is not None  # see `choose_list`
        found = {path: row for path, row in known.items() if path in part.labels}
        for path, label in part.labels.items():
            row = found.get(path)
            if row is not None and row["label"] != label:
                raise ProtocolError(
                    f"{path} is {LABELS[label]} on the list of {frozen.protocol} and {LABELS[row['label']]} in this copy."
                )
            missing.count(path, f"{frozen.protocol}, {split}", row is not None and row["video"] is not None)
        dealt[split] = list(found.values())
        used |= found.keys()
    return dealt, missing, len(known) - len(used)


def _as_json(part: SplitList, with_paths: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"clips": part.clips, "fake": part.fake, "sha256": part.sha256}
    if with_paths and part.labels is not None:
        entry["paths"] = {
            name: sorted(path for path, label in part.labels.items() if label == number)
            for number, name in enumerate(LABELS)
        }
    return entry


def _from_json(entry: Mapping[str, Any], where: str) -> SplitList:
    """Return the list of a split; raises [`MetadataError`] for one that contradicts itself."""
    told = SplitList(entry["clips"], entry.get("fake"), entry.get("sha256"))
    if not isinstance(told.clips, int) or not isinstance(told.fake, int | None):
        raise MetadataError(f"{where}: clips and fake are numbers, got {told.clips!r} and {told.fake!r}.")
    if told.sha256 is not None and not _SHA256.fullmatch(str(told.sha256)):
        raise MetadataError(f"{where}: sha256 has 64 hexadecimal digits, got {told.sha256!r}.")
    if "paths" not in entry:
        return told
    labels: Labels = {}
    for number, name in enumerate(LABELS):
        for path in entry["paths"][name]:
            if path in labels:
                raise MetadataError(f"{where}: {path} is there twice.")
            labels[path] = number
    found = SplitList.of(labels)
    if (told.clips, told.fake) != (found.clips, found.fake) or told.sha256 not in (None, found.sha256):
        raise MetadataError(
            f"{where}: the paths are {found.size()} with the fingerprint {found.sha256}, but the file says {told.size()} "
            f"and {told.sha256}. It was changed by hand, or cut short."
        )
    return found

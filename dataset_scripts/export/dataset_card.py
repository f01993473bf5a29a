"""The dataset card of an export: metadata for `load_dataset`, and a description for people."""

from __future__ import annotations

import importlib.metadata
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import datasets
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData

from ..schema import REAL
from .plan import ExportError, Plan, Protocol, StoredClip
from .shards import FORMATS

DATA = "data"  # folder of the files
# The Hub has no audio-visual task; this is the nearest one.
_TASK = "video-classification"
_MISSING, _UNREADABLE = "missing_files.txt", "unreadable_files.txt"
_MOST_LISTED = 40  # cells listed in the card; `export.json` has all of them
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def package_version() -> str:
    """Version of the installed package, or `unknown` in a checkout that is not installed."""
    try:
        return importlib.metadata.version("modeling-avlmm")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def size_category(rows: int) -> str:
    """Return the Hub's category for a number of rows, such as `1K<n<10K`."""
    return next((text for most, text in _SIZES if rows < most), "n>1M")


@dataclass(frozen=True)
class Card:
    """The card of a finished export.

    Args:
        plan ([`Plan`]): What was exported; unreadable clips are marked in it.
        name (`str`): Repository or folder, for `load_dataset`.
        format (`str`): `parquet` or `webdataset`.
        features ([`datasets.Features`], *optional*): Columns, for files that do not hold their own.
        sizes (`dict[str, int]`): File name without suffix -> bytes.
        license (`str`, *optional*): The Hub's identifier. Defaults to the builder's `LICENSE`, or `other`.
        provenance (`dict[str, str]`): More rows for the table of origin.
    """

    plan: Plan
    name: str
    format: str
    features: datasets.Features | None
    sizes: dict[str, int]
    license: str | None
    provenance: dict[str, str]

    @cached_property
    def readable(self) -> list[StoredClip]:
        """The clips that are in the files."""
        return [clip for clip in self.plan.clips if clip.unreadable is None]

    @cached_property
    def members(self) -> dict[tuple[str, str], list[StoredClip]]:
        """(Protocol, split) -> its clips."""
        return {
            (protocol.name, split): [c for c in self.readable if split in c.ways.get(protocol.name, ())]
            for protocol in self.plan.protocols
            for split in protocol.splits
        }

    def render(self) -> str:
        """Return the card as Markdown, with its YAML header.

        Raises:
            [`ExportError`]: a split has no readable clip.
        """
        for (protocol, split), clips in self.members.items():
            if not clips:
                raise ExportError(f"No clip of the split {split} of protocol {protocol} can be read.")
        text = "\n\n".join(
            [
                *self._introduction(),
                *self._protocols(),
                *self._clips(),
                "## Files",
                _layout(self.plan, self.format),
                "## What is missing",
                "\n".join(_missing(self.plan)),
                *self._origin(),
            ]
        )
        return str(DatasetCard(f"---\n{self._metadata().to_yaml()}\n---\n\n{text}\n"))

    def _metadata(self) -> DatasetCardData:
        builder = self.plan.builder
        data = DatasetCardData(
            pretty_name=builder.dataset_name,
            task_categories=[_TASK],
            language=_languages(self.readable),
            size_categories=[size_category(len(self.readable))],
            tags=["deepfake-detection", "audio-visual", builder.dataset_name.replace("_", "-"), self.format],
            **_license(self.plan, self.license),
        )
        infos = {protocol.name: self._info(protocol) for protocol in self.plan.protocols}
        DatasetInfosDict(infos).to_dataset_card_data(data)
        configs = {}
        for protocol in self.plan.protocols:
            files = [
                {"split": split, "path": _globs(self.plan.patterns(protocol, split), self.format)}
                for split in protocol.splits
            ]
            configs[protocol.name] = {"data_files": files}
            if protocol.name == builder.config.name:
                configs[protocol.name]["default"] = True
        MetadataConfigs(configs).to_dataset_card_data(data)
        return data

    def _info(self, protocol: Protocol) -> datasets.DatasetInfo:
        """Return the counts of a protocol. `load_dataset` checks them, and so notices a lost file."""
        members = {split: self.members[protocol.name, split] for split in protocol.splits}
        used = {self.plan.code(clip) for clips in members.values() for clip in clips}
        infos = {
            split: datasets.SplitInfo(
                name=split,
                num_bytes=sum(sum(clip.sizes) for clip in clips),
                num_examples=len(clips),
                dataset_name=self.plan.builder.dataset_name,
            )
            for split, clips in members.items()
        }
        return datasets.DatasetInfo(
            config_name=protocol.name,
            features=self.features,
            splits=datasets.SplitDict(infos),
            download_size=sum(size for name, size in self.sizes.items() if _code_of(name) in used),
            dataset_size=sum(info.num_bytes for info in infos.values()),
        )

    def _introduction(self) -> Iterator[str]:
        builder = self.plan.builder
        yield f"# {builder.dataset_name}"
        yield builder.DESCRIPTION
        yield (
            f"```py\nfrom datasets import load_dataset\n\n"
            f"clips = load_dataset({self.name!r}, {builder.config.name!r})\n```\n\n"
            "Media are inside the files. Each clip is stored once, however many protocols it is in. Only `datasets` is "
            "needed (with `torchcodec` to decode)."
        )
        yield (
            "> **Licence.** Corpora of deepfakes show real people, and most are gated or for research only. Whoever "
            "shares this folder must have the right to; its terms are those of the corpus"
            + (f" ({builder.HOMEPAGE})" if builder.HOMEPAGE else "")
            + (f", given here as `{self.license}`." if self.license else ".")
        )

    def _protocols(self) -> Iterator[str]:
        first = self.plan.builder.config.name
        yield "## Protocols"
        rows = [
            [f"`{p.name}`" + (" (default)" if p.name == first else ""), p.description]
            for p in self.plan.protocols
        ]
        yield _table(["protocol", "definition"], rows)
        rows = []
        for (protocol, split), clips in self.members.items():
            real = sum(clip.row["label"] == REAL for clip in clips)
            makers = _values(clips, "generator") | _values(clips, "audio_generator")
            counts = (
                len(clips),
                real,
                len(clips) - real,
                len(_values(clips, "identity")),
                len(makers - {"real"}),
                len(_values(clips, "language")),
            )
            rows.append([f"`{protocol}`", split, *(f"{n:,}" if n else "-" for n in counts)])
        yield _table(
            ["protocol", "split", "clips", "real", "fake", "identities", "generators", "languages"], rows
        )
        if self.plan.refused:
            yield "Protocols that this copy does not allow:\n\n" + _list(
                f"`{protocol}`: {reason}" for protocol, reason in self.plan.refused.items()
            )

    def _clips(self) -> Iterator[str]:
        yield "## Clips"
        people = len(_values(self.readable, "identity"))
        yield (
            f"{len(self.readable):,} clips"
            + (f" of {people:,} identities" if people else "")
            + f", {sum(sum(clip.sizes) for clip in self.readable):,} bytes of media. `label` is 0 for real and 1 for "
            "fake. A dash stands for unknown."
        )
        twice = len(self.readable) - len({clip.row["path"] for clip in self.readable})
        if twice:
            yield f"{twice:,} clips are stored once more, because protocols describe them differently."
        for title, column in (
            ("picture by", "generator"),
            ("sound by", "audio_generator"),
            ("language", "language"),
        ):
            yield _table([title, "clips", "real", "fake"], _tally(self.readable, column))

    def _origin(self) -> Iterator[str]:
        if self.plan.notes:
            yield "## Notes on the copy this was made from\n\n" + _list(self.plan.notes)
        yield "## Origin"
        corpus = ["corpus", self.plan.builder.HOMEPAGE or "a local folder"]
        yield _table(["", ""], [corpus, *map(list, self.provenance.items())])


def _values(clips: Iterable[StoredClip], column: str) -> set[str]:
    return {clip.row[column] for clip in clips} - {None}


def _globs(patterns: Iterable[str], format: str) -> str | list[str]:
    paths = [f"{DATA}/{pattern}-?????-of-?????{FORMATS[format]}" for pattern in patterns]
    return paths[0] if len(paths) == 1 else paths


def _code_of(shard: str) -> str:
    return shard.rsplit("-", 3)[0]  # <code>-00000-of-00002


def _license(plan: Plan, license: str | None) -> dict[str, str]:
    known = license or plan.builder.LICENSE
    if known:
        return {"license": known}
    link = {"license_link": plan.builder.HOMEPAGE} if plan.builder.HOMEPAGE else {}
    return {"license": "other", "license_name": "see-the-corpus", **link}


def _languages(clips: Iterable[StoredClip]) -> list[str] | None:
    """Return the ISO 639 codes; the Hub refuses anything else."""
    found = _values(clips, "language")
    return sorted(code for code in found if re.fullmatch(r"[a-z]{2,3}", code)) or None


def _tally(clips: list[StoredClip], column: str) -> list[list[str]]:
    counts = Counter((clip.row[column], clip.row["label"] == REAL) for clip in clips)
    values = sorted({value for value, _ in counts}, key=lambda value: (value is None, str(value)))
    return [
        ["-" if value is None else value]
        + [
            f"{n:,}"
            for n in (counts[value, True] + counts[value, False], counts[value, True], counts[value, False])
        ]
        for value in values
    ]


def _layout(plan: Plan, format: str) -> str:
    suffix = FORMATS[format]
    order = "Within a file, clips are ordered by a hash of their `path`; splits do not keep the order of the corpus."
    if not plan.letters:
        return f"`{DATA}/<split>-00000-of-00001{suffix}`. {order}"
    letters = ", ".join(
        f"`{letter}` {' and '.join(way) if way else 'in no split'}"
        for way, letter in sorted(plan.letters.items())
    )
    places = "\n".join(
        f"{place}. `{protocol.name}`" for place, protocol in enumerate(plan.protocols, start=1)
    )
    text = (
        f"`{DATA}/<code>-00000-of-00001{suffix}`. The code has one letter per protocol, which gives the split of the "
        f"file's clips in it: {letters}. The letters are in this order:\n\n{places}\n\n{order}"
    )
    if len(plan.cells) > _MOST_LISTED:
        return text + f" The {len(plan.cells):,} codes and their counts are in `export.json`."
    return text + "\n\n" + _table(["code", "clips"], [[f"`{c}`", f"{n:,}"] for c, n in plan.cells.items()])


def _missing(plan: Plan) -> Iterable[str]:
    unreadable = sum(clip.unreadable is not None for clip in plan.clips)
    if plan.missing:
        yield f"- {len(plan.missing):,} files that the corpus lists were not on disk: `{_MISSING}`."
    if unreadable:
        yield f"- {unreadable:,} clips could not be read: `{_UNREADABLE}` says why."
    if not plan.missing and not unreadable:
        yield "Nothing: every clip that the metadata list is here."


def listings(plan: Plan) -> dict[str, str | None]:
    """Return name -> content of the lists beside the card, None for an empty one."""
    unreadable = sorted((c.row["path"], c.unreadable) for c in plan.clips if c.unreadable is not None)
    return {
        _MISSING: "".join(f"{path}\n" for path in plan.missing) or None,
        _UNREADABLE: "".join(f"{path}\t{reason}\n" for path, reason in unreadable) or None,
    }


def _table(header: list[str], rows: Iterable[list[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)

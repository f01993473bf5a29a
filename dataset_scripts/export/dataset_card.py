"""The dataset card of an export: metadata that `load_dataset` reads, and what is in the folder for people."""

from __future__ import annotations

import importlib.metadata
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import datasets
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData

from ..schema import REAL
from .plan import Clip, ExportError, Plan
from .shards import FORMATS

DATA = "data"  # folder of the files
# The Hub has no audio-visual task; this is the nearest one it knows.
_TASK = "video-classification"
_MISSING, _UNREADABLE = "missing_files.txt", "unreadable_files.txt"
_MOST_LISTED = 40  # cells listed in the card; `export.json` has them all
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


def render_card(
    plan: Plan,
    *,
    name: str,
    format: str,
    features: datasets.Features | None,
    sizes: dict[str, int],
    license: str | None,
    provenance: dict[str, str],
) -> str:
    """Write the card.

    Args:
        plan ([`Plan`]): What was exported; clips that could not be read say so.
        name (`str`): Repository or folder, as others load it.
        format (`str`): `parquet` or `webdataset`.
        features ([`datasets.Features`], *optional*): For files that do not hold their own.
        sizes (`dict[str, int]`): File name without suffix -> bytes.
        license (`str`, *optional*): Identifier of the Hub. Without one the builder's `LICENSE`, or `other`.
        provenance (`dict[str, str]`): What else the table of the origin says.

    Raises:
        [`ExportError`]: a split has no clip that can be read.
    """
    readable = [clip for clip in plan.clips if clip.unreadable is None]
    members = {
        (protocol.name, split): [c for c in readable if split in c.ways.get(protocol.name, ())]
        for protocol in plan.protocols
        for split in protocol.splits
    }
    for (protocol, split), clips in members.items():
        if not clips:
            raise ExportError(f"No clip of the split {split} of protocol {protocol} can be read.")
    data = DatasetCardData(
        pretty_name=plan.builder.dataset_name,
        task_categories=[_TASK],
        language=_languages(readable),
        size_categories=[size_category(len(readable))],
        tags=["deepfake-detection", "audio-visual", plan.builder.dataset_name.replace("_", "-"), format],
        **_license(plan, license),
    )
    DatasetInfosDict(
        {
            protocol.name: _info(plan, protocol.name, protocol.splits, members, features, sizes)
            for protocol in plan.protocols
        }
    ).to_dataset_card_data(data)
    MetadataConfigs(
        {
            protocol.name: {
                "data_files": [
                    {"split": split, "path": _globs(plan.patterns(protocol, split), format)}
                    for split in protocol.splits
                ],
                **({"default": True} if protocol.name == plan.builder.config.name else {}),
            }
            for protocol in plan.protocols
        }
    ).to_dataset_card_data(data)
    text = "\n\n".join(_sections(plan, name, format, readable, members, license, provenance))
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n"))


def _globs(patterns: Iterable[str], format: str) -> str | list[str]:
    paths = [f"{DATA}/{pattern}-?????-of-?????{FORMATS[format]}" for pattern in patterns]
    return paths[0] if len(paths) == 1 else paths


def _info(
    plan: Plan,
    protocol: str,
    splits: list[str],
    members: dict[tuple[str, str], list[Clip]],
    features: datasets.Features | None,
    sizes: dict[str, int],
) -> datasets.DatasetInfo:
    """Counts of a protocol: `load_dataset` compares them with what it reads, and finds a file that is not there."""
    used = {plan.code(clip) for split in splits for clip in members[protocol, split]}
    infos = {
        split: datasets.SplitInfo(
            name=split,
            num_bytes=sum(sum(clip.sizes) for clip in members[protocol, split]),
            num_examples=len(members[protocol, split]),
            dataset_name=plan.builder.dataset_name,
        )
        for split in splits
    }
    return datasets.DatasetInfo(
        config_name=protocol,
        features=features,
        splits=datasets.SplitDict(infos),
        download_size=sum(size for name, size in sizes.items() if _code_of(name) in used),
        dataset_size=sum(info.num_bytes for info in infos.values()),
    )


def _code_of(shard: str) -> str:
    return shard.rsplit("-", 3)[0]  # <code>-00000-of-00002


def _license(plan: Plan, license: str | None) -> dict[str, str]:
    known = license or plan.builder.LICENSE
    if known:
        return {"license": known}
    link = {"license_link": plan.builder.HOMEPAGE} if plan.builder.HOMEPAGE else {}
    return {"license": "other", "license_name": "see-the-corpus", **link}


def _languages(clips: Iterable[Clip]) -> list[str] | None:
    """The Hub refuses what is no ISO 639 code."""
    found = {clip.row["language"] for clip in clips} - {None}
    return sorted(code for code in found if re.fullmatch(r"[a-z]{2,3}", code)) or None


def _sections(
    plan: Plan,
    name: str,
    format: str,
    readable: list[Clip],
    members: dict[tuple[str, str], list[Clip]],
    license: str | None,
    provenance: dict[str, str],
) -> Iterable[str]:
    first = plan.builder.config.name
    yield f"# {plan.builder.dataset_name}"
    yield plan.builder.DESCRIPTION
    yield (
        f"```py\nfrom datasets import load_dataset\n\nclips = load_dataset({name!r}, {first!r})\n```\n\n"
        "Media are inside the files, each clip once, whatever the number of protocols it is in. Nothing but "
        "`datasets` is needed (with `torchcodec` to decode)."
    )
    yield (
        "> **Licence.** Corpora of deepfakes show real people, and most are gated or for research only. Whoever shares "
        "this folder must have the right to; its terms are those of the corpus"
        + (f" ({plan.builder.HOMEPAGE})" if plan.builder.HOMEPAGE else "")
        + (f", given here as `{license}`." if license else ".")
    )
    yield "## Protocols"
    rows = [
        [f"`{p.name}`" + (" (default)" if p.name == first else ""), p.description] for p in plan.protocols
    ]
    yield _table(["protocol", "definition"], rows)
    rows = []
    for (protocol, split), clips in members.items():
        real = sum(clip.row["label"] == REAL for clip in clips)
        people = {clip.row["identity"] for clip in clips} - {None}
        makers = {
            maker for clip in clips for maker in (clip.row["generator"], clip.row["audio_generator"])
        } - {None, "real"}
        spoken = {clip.row["language"] for clip in clips} - {None}
        counts = (len(clips), real, len(clips) - real, len(people), len(makers), len(spoken))
        rows.append([f"`{protocol}`", split, *(f"{n:,}" if n else "-" for n in counts)])
    yield _table(
        ["protocol", "split", "clips", "real", "fake", "identities", "generators", "languages"], rows
    )
    if plan.refused:
        yield "Protocols that this copy does not allow:\n\n" + _list(
            f"`{protocol}`: {reason}" for protocol, reason in plan.refused.items()
        )
    yield "## Clips"
    people = {clip.row["identity"] for clip in readable} - {None}
    yield (
        f"{len(readable):,} clips"
        + (f" of {len(people):,} identities" if people else "")
        + f", {sum(sum(clip.sizes) for clip in readable):,} bytes of media. `label` is 0 for real and 1 for fake. "
        "A dash stands for unknown."
    )
    twice = len(readable) - len({clip.row["path"] for clip in readable})
    if twice:
        yield f"{twice:,} clips are stored once more, because protocols describe them differently."
    for title, column in (
        ("picture by", "generator"),
        ("sound by", "audio_generator"),
        ("language", "language"),
    ):
        yield _table([title, "clips", "real", "fake"], _tally(readable, column))
    yield "## Files"
    yield _layout(plan, format)
    yield "## What is missing"
    yield "\n".join(_missing(plan))
    if plan.notes:
        yield "## Notes on the copy this was made from\n\n" + _list(plan.notes)
    yield "## Origin"
    yield _table(
        ["", ""], [["corpus", plan.builder.HOMEPAGE or "a local folder"], *map(list, provenance.items())]
    )


def _tally(clips: list[Clip], column: str) -> list[list[str]]:
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
    order = "Within a file clips are in order of a hash of their `path`; splits do not keep the order of the corpus."
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
        f"`{DATA}/<code>-00000-of-00001{suffix}`. The code has one letter for each protocol, which says where the clips "
        f"of the file go in it: {letters}. The letters are in this order:\n\n{places}\n\n{order}"
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
    """Name -> content of the lists beside the card; None where there is nothing to list."""
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

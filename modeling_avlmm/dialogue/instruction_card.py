"""The dataset card of a folder of instruction conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from dataset_scripts.export.dataset_card import package_version, size_category

from ..explain.words import count_of
from .families import FAMILIES

DATA = "data"
SKIPPED = "skipped_clips.txt"


@dataclass
class InstructionSet:
    """
    A set of instruction conversations, described for its card and its manifest.

    Attributes:
        dataset, protocol (`str`): The corpus and its configuration.
        description, homepage (`str`): The corpus in words, and its page.
        license (`str`, *optional*): Licence for the card; None if unknown.
        counts (`dict[str, Counter]`): Split -> the counts of [`~instruction_folder.write_split`].
        skipped, unmeasured (`dict[str, str]`):
            Path -> reason, for clips that could not be read and for clips whose source could not be read.
        settings (`dict`): Settings that made the conversations.
        demonstration (`bool`): True for clips of the demonstration benchmark.
        embed (`bool`): True if media are inside the files.
        repository (`str`, *optional*): Dataset repository that the folder is uploaded to.
    """

    dataset: str
    protocol: str
    description: str
    homepage: str
    license: str | None
    counts: Mapping[str, Counter[str]]
    settings: Mapping[str, Any]
    skipped: Mapping[str, str] = field(default_factory=dict)
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    demonstration: bool = False
    embed: bool = True
    repository: str | None = None

    def manifest(self) -> dict[str, Any]:
        """Return the content of the manifest."""
        return {
            "dataset": self.dataset,
            "protocol": self.protocol,
            "settings": dict(self.settings),
            "counts": {split: dict(count) for split, count in self.counts.items()},
            "skipped": len(self.skipped),
            "unmeasured": len(self.unmeasured),
        }


def render_card(made: InstructionSet, name: str) -> str:
    """Return the card, with `name` as the folder or repository to load."""
    rows = sum(count["rows"] for count in made.counts.values())
    license = (
        {"license": made.license} if made.license else {"license": "other", "license_name": "see-the-corpus"}
    )
    data = DatasetCardData(
        pretty_name=f"Instructions for {made.dataset}",
        task_categories=["video-text-to-text"],
        size_categories=[size_category(rows)],
        tags=["deepfake-detection", "audio-visual", "instruction-tuning", "synthetic-text"],
        configs=[
            {
                "config_name": made.protocol,
                "data_files": [
                    {"split": split, "path": f"{DATA}/{split}-*.parquet"} for split in made.counts
                ],
                "default": True,
            }
        ],
        language=["en"],
        **license,
    )
    text = "\n\n".join([*_introduction(made, name), *_columns(), *_counts(made), *_origin(made)])
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n"))


def _introduction(made: InstructionSet, name: str) -> Iterator[str]:
    yield f"# Instruction conversations about {made.dataset}"
    if made.demonstration:
        yield (
            "> **Demonstration.** These are drawn clips of the demonstration benchmark in the layout of the corpus. They "
            "show no real person, and a detector for real use cannot be trained on them."
        )
    yield made.description
    yield (
        "Questions and answers about audio-visual clips: is it fake, of which kind, where and when, and free conversation. "
        "**All texts are templates**, filled with the labels of the corpus and, for fakes whose genuine source is known, "
        "with measured differences between the two. No language model and no person wrote about a single clip. The format "
        "is our own: that of DFA-Instruct (arXiv:2501.01164), whose recipe this follows for images, is not public."
    )
    yield f'```py\nfrom datasets import load_dataset\n\nrows = load_dataset("{name}", "{made.protocol}")\n```'
    yield (
        'Media are inside the files, not decoded: `row["video"]["bytes"]` is the clip.'
        if made.embed
        else "Media are not in the files: `path` names the clip within the corpus."
    )
    yield (
        "> **Licence.** The clips show real people and stay under the terms of the corpus"
        + (f" ({made.homepage})" if made.homepage else "")
        + (f", given here as `{made.license}`" if made.license else "")
        + ". Share this folder only if you have the right to."
    )


def _columns() -> Iterator[str]:
    families = ", ".join(f"`{key}` ({text})" for key, text in FAMILIES.items())
    yield "## Columns"
    yield _table(
        ["column", "content"],
        [
            [
                "`messages`",
                "turns with `role` and `content`; the first part of the first turn stands for the clip",
            ],
            ["`task`", "detection, classification, description or conversation"],
            ["`path`", "the clip, relative to the corpus"],
            ["`video`, `audio`", "the clip; a separate sound file"],
            ["`label`, `video_label`, `audio_label`", "0 real, 1 fake; null where unknown"],
            ["`family`", f"{families}; null where unknown"],
            ["`generator`", "of all forged tracks, joined by `+`; `real` for a genuine clip"],
            ["`facts`", "JSON: everything an answer may name"],
        ],
    )


def _counts(made: InstructionSet) -> Iterator[str]:
    counts = made.counts
    yield "## Counts"
    for kind in ("task", "family"):
        keys = sorted({key for count in counts.values() for key in count if key.startswith(f"{kind} ")})
        yield _table(
            [kind, *counts],
            [[key.removeprefix(f"{kind} "), *(f"{c[key]:,}" for c in counts.values())] for key in keys],
        )
    measured = [f"{split} {c['measured']:,} of {c['rows']:,}" for split, c in counts.items()]
    yield f"Conversations about a clip that was compared with its source: {', '.join(measured)}."
    if made.skipped or made.unmeasured:
        yield (
            f"{count_of(len(made.skipped), 'clip')} could not be read (left out). The sources of "
            f"{count_of(len(made.unmeasured), 'clip')} could not be read, so their labels alone describe them. See `{SKIPPED}`."
        )


def _origin(made: InstructionSet) -> Iterator[str]:
    settings = ", ".join(f"{key}={value}" for key, value in made.settings.items())
    yield "## Origin"
    yield (
        f"`python -m modeling_avlmm instruct` of modeling-avlmm {package_version()} on `{made.dataset}`, {settings}."
    )


def _table(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

"""Facts to text and back: the template libraries in `templates/`, drawn by seed, and what an answer names.

[`named_in`] reads out of a text which modalities, regions, bands, seconds and offset it names. Tests hold every template
against it, a rewritten answer must name what the template named, and a benchmark can judge answers by it.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..explain.regions import BAND_NAMES, REGION_NAMES

TEMPLATES = Path(__file__).parent / "templates"
# A sentence with one of these says what is not so, or not known: it names nothing.
_DENIAL = re.compile(
    r"\b(no|not|none|nothing|nowhere|neither|nor|never|cannot|can't|don't|doesn't|didn't|isn't|aren't|wasn't|weren't"
    r"|without|whether|genuine|authentic|untouched|unaltered)\b",
    re.IGNORECASE,
)
_REGIONS = {
    "eyes": r"\beyes?\b",
    "nose": r"\bnose\b",
    "mouth": r"\bmouth\b",
    "forehead": r"\bforehead\b",
    "cheeks": r"\bcheeks?\b",
    "jaw": r"\bjaw(?:line)?\b",
    "hairline": r"\bhairline\b",
    "outside": r"\boutside the face\b",
}
_MODALITIES = {"picture": r"\bpicture\b", "sound": r"\bsound\b"}
_FORGED = re.compile(
    r"\b(fake|faked|forged|forgery|deepfake|manipulat\w+|synthe\w+|tampered|altered|traces?|artifacts?)\b",
    re.IGNORECASE,
)
_SEGMENT = re.compile(r"(\d+(?:\.\d+)?) s to (\d+(?:\.\d+)?) s\b")
_OFFSET = re.compile(r"(\d+(?:\.\d+)?) s (late|early)\b")


@functools.cache
def templates(task: str) -> dict[str, Any]:
    """The template library of a task: the content of `templates/<task>.yaml`."""
    return yaml.safe_load((TEMPLATES / f"{task}.yaml").read_text(encoding="utf-8"))


class Draw:
    """Choices of one conversation: each depends on the seed, the clip's path and its own name, and on nothing else.

    Args:
        seed (`int`): Of the whole set.
        path (`str`): Of the clip.
        number (`int`): Of the conversation of this clip and task. Different numbers draw different phrasings until all
            are used up.
    """

    def __init__(self, seed: int, path: str, number: int = 0):
        self.key, self.number = f"{seed}:{path}", number

    def one(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`."""
        return self.order(name, choices)[self.number % len(choices)]

    def order(self, name: str, choices: Sequence[Any]) -> list[Any]:
        """All of `choices` in the order of a hash. It is the same for all numbers of a clip."""
        ranks = [
            hashlib.sha256(f"{self.key}:{name}:{position}".encode()).digest()
            for position in range(len(choices))
        ]
        return [choices[position] for position in sorted(range(len(choices)), key=ranks.__getitem__)]

    def numbered(self, name: str) -> Draw:
        """A draw whose hash also depends on the number, for what should differ freely between conversations."""
        draw = Draw(0, "")
        draw.key = f"{self.key}:{name}:{self.number}"
        return draw


def listed(items: Sequence[str], last: str = " and ") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + last + items[-1]


def seconds(value: float) -> str:
    """Seconds with two decimals at most: `1.5 s`."""
    return f"{value:.2f}".rstrip("0").rstrip(".") + " s"


def regions_text(regions: Sequence[str]) -> str:
    """`the eyes and the mouth`."""
    return listed([REGION_NAMES[name] for name in regions])


def bands_text(bands: Sequence[str]) -> str:
    """`below 300 Hz and at 1 to 3 kHz`."""
    names = [BAND_NAMES[name] for name in bands]
    return listed([name if name.startswith("below") else f"at {name}" for name in names])


def segments_text(segments: Sequence[Sequence[float]]) -> str:
    """`0.4 s to 1.2 s and from 1.6 s to 2 s`, to stand after `from`."""
    spans = [f"{seconds(start)} to {seconds(end)}" for start, end in segments]
    return listed([spans[0], *(f"from {span}" for span in spans[1:])])


def offset_text(offset: float) -> str:
    """`0.08 s late` for a sound that comes after its picture."""
    return f"{seconds(abs(offset))} {'late' if offset > 0 else 'early'}"


@dataclass(frozen=True)
class Named:
    """What a text names, see [`named_in`]. Segments are (start, end) in seconds; `forged` is whether a sentence says that
    something is."""

    forged: bool
    modalities: frozenset[str]
    regions: frozenset[str]
    bands: frozenset[str]
    segments: frozenset[tuple[float, float]]
    offset: float | None


def named_in(text: str) -> Named:
    """What an answer says was manipulated: modalities, regions, bands, seconds and offset.

    Reads the words of [`REGION_NAMES`] and [`BAND_NAMES`], `picture` and `sound`, seconds as `0.4 s to 1.2 s` and an
    offset as `0.08 s late`. Sentences of denial are passed over.
    """
    stated = [part for part in re.split(r"(?<=[.!?;])\s+", text) if not _DENIAL.search(part)]
    kept = " ".join(stated)

    def found(patterns: dict[str, str]) -> frozenset[str]:
        return frozenset(
            name for name, pattern in patterns.items() if re.search(pattern, kept, re.IGNORECASE)
        )

    offset = _OFFSET.search(kept)
    return Named(
        forged=bool(_FORGED.search(kept)),
        modalities=found(_MODALITIES),
        regions=found(_REGIONS),
        bands=found({name: rf"\b{re.escape(words)}\b" for name, words in BAND_NAMES.items()}),
        segments=frozenset((float(a), float(b)) for a, b in _SEGMENT.findall(kept)),
        offset=None if offset is None else float(offset[1]) * (1 if offset[2] == "late" else -1),
    )

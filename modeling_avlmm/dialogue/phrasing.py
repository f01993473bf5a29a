"""Facts to text and back: templates drawn by seed, and a parser of the facts that a text names.

Templates are in `templates/`. [`named_in`] parses the modalities, regions, bands, times and offset that a text names. Tests
check every template with it, a rewritten answer must name the same facts as its template, and the bench scores answers
with it.
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
# A sentence with one of these words denies something or says that it is unknown, so it names nothing.
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
    """Return the template library of a task, the content of `templates/<task>.yaml`."""
    return yaml.safe_load((TEMPLATES / f"{task}.yaml").read_text(encoding="utf-8"))


class Draw:
    """
    Pseudo-random choices for one conversation. Each depends on the seed, the clip's path and its own name only.

    Args:
        seed (`int`): Seed of the whole set.
        path (`str`): Path of the clip.
        number (`int`, *optional*, defaults to 0):
            Number of the conversation, among those of this clip and task. Different numbers draw different phrasings
            until all are used.
    """

    def __init__(self, seed: int, path: str, number: int = 0):
        self.key, self.number = f"{seed}:{path}", number

    def one(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of `choices`."""
        return self.order(name, choices)[self.number % len(choices)]

    def order(self, name: str, choices: Sequence[Any]) -> list[Any]:
        """Return all of `choices` in a hashed order, which is the same for all numbers of a clip."""
        ranks = [
            hashlib.sha256(f"{self.key}:{name}:{position}".encode()).digest()
            for position in range(len(choices))
        ]
        return [choices[position] for position in sorted(range(len(choices)), key=ranks.__getitem__)]

    def numbered(self, name: str) -> Draw:
        """Return a draw that also depends on the number, for choices that vary freely between conversations."""
        draw = Draw(0, "")
        draw.key = f"{self.key}:{name}:{self.number}"
        return draw


def listed(items: Sequence[str], last: str = " and ") -> str:
    """Return items as a list in words: `a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + last + items[-1]


def seconds(value: float) -> str:
    """Return seconds with at most two decimals: `1.5 s`."""
    return f"{value:.2f}".rstrip("0").rstrip(".") + " s"


def regions_text(regions: Sequence[str]) -> str:
    """Return regions in words: `the eyes and the mouth`."""
    return listed([REGION_NAMES[name] for name in regions])


def bands_text(bands: Sequence[str]) -> str:
    """Return bands in words: `below 300 Hz and at 1 to 3 kHz`."""
    names = [BAND_NAMES[name] for name in bands]
    return listed([name if name.startswith("below") else f"at {name}" for name in names])


def segments_text(segments: Sequence[Sequence[float]]) -> str:
    """Return segments in words, to be used after `from`: `0.4 s to 1.2 s and from 1.6 s to 2 s`."""
    spans = [f"{seconds(start)} to {seconds(end)}" for start, end in segments]
    return listed([spans[0], *(f"from {span}" for span in spans[1:])])


def offset_text(offset: float) -> str:
    """Return an offset in words: `0.08 s late` for a sound that comes after its picture."""
    return f"{seconds(abs(offset))} {'late' if offset > 0 else 'early'}"


@dataclass(frozen=True)
class Named:
    """
    The facts that a text names, see [`named_in`].

    Attributes:
        forged (`bool`): True if a sentence says that something was forged.
        modalities (`frozenset[str]`): Of `picture` and `sound`.
        regions, bands (`frozenset[str]`): Keys of `FACE_REGIONS` and `SOUND_BANDS`.
        segments (`frozenset[tuple[float, float]]`): (start, end) in seconds.
        offset (`float`, *optional*): Seconds by which the sound is late.
    """

    forged: bool
    modalities: frozenset[str]
    regions: frozenset[str]
    bands: frozenset[str]
    segments: frozenset[tuple[float, float]]
    offset: float | None

    def places(self, kind: str) -> frozenset[str]:
        """Return the regions for `"region"`, the bands for `"band"`."""
        return {"region": self.regions, "band": self.bands}[kind]


def named_in(text: str) -> Named:
    """
    Parse the manipulated modalities, regions, bands, times and offset that a text names.

    It knows the words of [`REGION_NAMES`] and [`BAND_NAMES`], `picture` and `sound`, times such as `0.4 s to 1.2 s`, and
    offsets such as `0.08 s late`. Sentences that deny something are skipped.
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

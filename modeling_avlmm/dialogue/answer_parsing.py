"""What an answer claims: a verdict on the clip and on its tracks, a family, a first place.

Reads the language of `templates/`, in which training answers are written, and free text as far as it is plain. What
cannot be read is None, and counts as wrong wherever answers are scored. Modalities, regions, bands and times are read by
[`~phrasing.named_in`].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..configuration_detector import LABELS
from ..explain.regions import BAND_NAMES, REGION_NAMES
from .phrasing import named_in

REAL, FAKE = 0, 1

_FAKE = re.compile(
    r"\b(fake|faked|deepfake|forged|forgery|manipulat(?:ed|ion)|synthetic|tampered|altered|generated|artifacts?|traces"
    r"|(?:the|a) problem)\b",
    re.IGNORECASE,
)
_REAL = re.compile(r"\b(genuine|authentic|unaltered|untouched|real)\b", re.IGNORECASE)
_NOT = re.compile(r"\b(no|not|none|nothing|nowhere|neither|nor|never|without|absence)\b|n't\b", re.IGNORECASE)
# Advice, conditions and limits are no claims.
_HEDGE = re.compile(
    r"\b(if|whether|could|may|might|would|should|until|unless|do not|don't|look for|ask|no detector|no proof|cannot "
    r"(?:exclude|be proved))\b",
    re.IGNORECASE,
)
_ASKS_FAKE = re.compile(
    r"\b(fake|faked|deepfake|forged|forgery|manipulated|synthetic|tampered|alter|altered|generated)\b",
    re.IGNORECASE,
)
_ASKS_REAL = re.compile(
    r"\b(real|genuine|authentic|trust|unaltered|true recording|free of manipulation|taken at face value)\b",
    re.IGNORECASE,
)
_PARTS = {
    "video": re.compile(r"\bpicture\b", re.IGNORECASE),
    "audio": re.compile(r"\bsound\b", re.IGNORECASE),
}
_FAMILIES = {
    "face_swap": r"\bface[- ]?swap(?:ping)?\b|\bface of one person is put\b|face replaces|exchanged for another",
    "reenactment": r"\bre-?enactment\b|\blip[- ]sync",
    "face_editing": r"\bface editing\b",
    "entire_synthesis": r"\bentire(?: face)? synthesis\b",
    "voice": r"\bvoice conversion\b|\bcloned speech\b|\bvoice cloning\b",
}
_BOTH = re.compile(
    r"\bboth\b.*\b(picture|video|face)\b.*\b(sound|audio|voice)\b|\b(two|both) tracks\b|\bcombined forgery\b"
    r"|\bpicture and the sound\b",
    re.IGNORECASE,
)
_PLACES = {
    name: re.compile(rf"\b{re.escape(text.removeprefix('the '))}", re.IGNORECASE)
    for name, text in REGION_NAMES.items()
}
_BAND_PLACES = {name: re.compile(rf"\b{re.escape(text)}", re.IGNORECASE) for name, text in BAND_NAMES.items()}


@dataclass(frozen=True)
class Claims:
    """Verdicts that an answer states: 0 real, 1 fake, None where it states none."""

    overall: int | None
    video: int | None
    audio: int | None


def polarity(question: str) -> int | None:
    """What "yes" means to a question: 1 fake, 0 real, None where it is not about the clip's verdict, or asks for both."""
    if named_in(question).regions:
        return None
    fake, real = bool(_ASKS_FAKE.search(question)), bool(_ASKS_REAL.search(question))
    return None if fake == real else FAKE if fake else REAL


def claims_of(answer: str, question: str = "") -> Claims:
    """
    The verdicts that an answer states.

    A leading "Fake" or "Real" decides, then a leading "Yes" or "No" by the question's polarity, then its clauses: one
    that calls anything fake makes the clip fake. That one track is genuine is no verdict on the clip.

    Args:
        answer (`str`): The answer.
        question (`str`, *optional*): What was asked.
    """
    parts: dict[str, int | None] = {"video": None, "audio": None}
    stated = set()
    for clause in re.split(r"[.!?;:,]\s*", answer):
        claim = _clause(clause)
        if claim is None:
            continue
        named = [part for part, pattern in _PARTS.items() if pattern.search(clause)]
        for part in named:
            parts[part] = max(claim, parts[part] or REAL)
        # One forged track makes the clip fake; one genuine track says nothing of it.
        if claim == FAKE or len(named) != 1:
            stated.add(claim)
    if set(parts.values()) == {REAL}:
        stated.add(REAL)
    overall = FAKE if FAKE in stated else REAL if REAL in stated else None
    lead = re.match(r"\W*(fake|real|yes|no)\b(?!\s+\w)", answer, re.IGNORECASE)
    if lead:
        word, asked = lead[1].lower(), polarity(question)
        if word in LABELS:
            overall = LABELS.index(word)
        elif asked is not None:
            overall = asked if word == "yes" else 1 - asked
    return Claims(overall, **parts)


def _clause(text: str) -> int | None:
    if _HEDGE.search(text):
        return None
    denied = bool(_NOT.search(text))
    if _FAKE.search(text):
        # That one place has no traces says nothing of the clip.
        if denied and any(pattern.search(text) for pattern in _PLACES.values()):
            return None
        return REAL if denied else FAKE
    if _REAL.search(text):
        return FAKE if denied else REAL
    return None


def verdict_of(answer: str, question: str = "") -> int | None:
    """0 where an answer says that the clip is real, 1 where it says fake, None where it says neither."""
    return claims_of(answer, question).overall


def family_in(answer: str) -> str | None:
    """The family that an answer names, `genuine` where it says that nothing was manipulated; None where neither."""
    found = {
        name: match.start()
        for name, pattern in _FAMILIES.items()
        if (match := re.search(pattern, answer, re.I))
    }
    if found:
        return min(found, key=found.get)
    if verdict_of(answer) == REAL:
        return "genuine"
    if _BOTH.search(answer):
        return "both"
    # Definitions name no family by its name, but say what they are of.
    if re.search(r"\b(voice|words|heard)\b", answer, re.I) and re.search(
        r"synthe|cloned|converted|generated", answer, re.I
    ):
        return "voice"
    return "genuine" if re.search(r"\bno(?: \w+)? technique\b|\bnone\b", answer, re.I) else None


def first_place(answer: str, bands: bool = False) -> str | None:
    """The region, or band, that an answer names first, of those that it says were manipulated."""
    named = named_in(answer)
    patterns = _BAND_PLACES if bands else _PLACES
    kept = named.bands if bands else named.regions
    starts = {name: match.start() for name in kept if (match := patterns[name].search(answer))}
    return min(starts, key=starts.get) if starts else None


def contradictions(
    answer: str, question: str, scores: Mapping[str, float | None], threshold: float = 0.5
) -> list[str]:
    """
    Where an answer says other than what was measured.

    Args:
        answer (`str`), question (`str`): What was said, and to what.
        scores (`dict[str, float]`): P(fake) of `overall`, `video` and `audio`, None where there is none.
        threshold (`float`, *optional*, defaults to 0.5): Of the clip's score.

    Returns:
        `list[str]`: a sentence for each contradiction.
    """
    claims = claims_of(answer, question)
    said = {"overall": claims.overall, "video": claims.video, "audio": claims.audio}
    found = []
    for part, name in (("overall", "clip"), ("video", "picture"), ("audio", "sound")):
        score = scores.get(part)
        if said[part] is None or score is None:
            continue
        measured = int(score >= (threshold if part == "overall" else 0.5))
        if said[part] != measured:
            found.append(
                f"The answer calls the {name} {LABELS[said[part]]}; the detector measured {LABELS[measured]} "
                f"(score {score:.2f})."
            )
    return found


__all__ = ["Claims", "claims_of", "contradictions", "family_in", "first_place", "polarity", "verdict_of"]

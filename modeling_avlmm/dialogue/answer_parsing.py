"""Parsing of answers: verdicts on the clip and on its tracks, a family, and the first place named.

The parser knows the language of `templates/`, in which training answers are written, and plain free text. An answer it
cannot parse is None, which counts as wrong wherever answers are scored. [`~phrasing.named_in`] parses modalities, regions,
bands and times.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..configuration_detector import LABELS
from ..explain.regions import BAND_NAMES, REGION_NAMES
from ..explain.words import PART_NAMES, PART_NOUNS, PART_THRESHOLD, threshold_of
from .phrasing import named_in

REAL, FAKE = 0, 1

_FAKE = re.compile(
    r"\b(fake|faked|deepfake|forged|forgery|manipulat(?:ed|ion)|synthetic|tampered|altered|generated|artifacts?|traces"
    r"|(?:the|a) problem)\b",
    re.IGNORECASE,
)
_REAL = re.compile(r"\b(genuine|authentic|unaltered|untouched|real)\b", re.IGNORECASE)
_NOT = re.compile(r"\b(no|not|none|nothing|nowhere|neither|nor|never|without|absence)\b|n't\b", re.IGNORECASE)
# Advice, conditions and limits are not claims.
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
_PARTS = {part: re.compile(rf"\b{PART_NAMES[part]}\b", re.IGNORECASE) for part in ("video", "audio")}
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
    """The verdicts that an answer states: 0 real, 1 fake, None for no verdict."""

    overall: int | None
    video: int | None
    audio: int | None


def polarity(question: str) -> int | None:
    """Return the meaning of "yes" to a question: 1 fake, 0 real, None if it does not ask for one of the two."""
    if named_in(question).regions:
        return None
    fake, real = bool(_ASKS_FAKE.search(question)), bool(_ASKS_REAL.search(question))
    return None if fake == real else FAKE if fake else REAL


def claims_of(answer: str, question: str = "") -> Claims:
    """
    Return the verdicts that an answer states.

    A leading "Fake" or "Real" decides; then a leading "Yes" or "No", by the question's polarity; then the clauses. A
    clause that calls anything fake makes the clip fake. A clause that calls one track genuine is no verdict on the clip.

    Args:
        answer (`str`): The answer.
        question (`str`, *optional*): The question.
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
        # One forged track makes the clip fake; one genuine track says nothing about the clip.
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
        # "No traces at the mouth" says nothing about the clip.
        if denied and any(pattern.search(text) for pattern in _PLACES.values()):
            return None
        return REAL if denied else FAKE
    if _REAL.search(text):
        return FAKE if denied else REAL
    return None


def verdict_of(answer: str, question: str = "") -> int | None:
    """Return 0 if an answer calls the clip real, 1 if it calls it fake, None if neither."""
    return claims_of(answer, question).overall


def family_in(answer: str) -> str | None:
    """Return the family that an answer names, `genuine` if it finds no manipulation, or None."""
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
    # A definition of the family `voice` does not contain its name.
    if re.search(r"\b(voice|words|heard)\b", answer, re.I) and re.search(
        r"synthe|cloned|converted|generated", answer, re.I
    ):
        return "voice"
    return "genuine" if re.search(r"\bno(?: \w+)? technique\b|\bnone\b", answer, re.I) else None


def first_place(answer: str, bands: bool = False) -> str | None:
    """Return the region (or band) that an answer names first as manipulated; None if it names none."""
    named = named_in(answer)
    patterns = _BAND_PLACES if bands else _PLACES
    kept = named.bands if bands else named.regions
    starts = {name: match.start() for name in kept if (match := patterns[name].search(answer))}
    return min(starts, key=starts.get) if starts else None


def contradictions(
    answer: str,
    question: str,
    scores: Mapping[str, float | None],
    threshold: float = PART_THRESHOLD,
    independent: bool = False,
) -> list[str]:
    """
    Return a sentence for each point in which an answer contradicts the measured verdicts.

    Args:
        answer (`str`): The answer.
        question (`str`): The question.
        scores (`dict[str, float]`): P(fake) of `overall`, `video` and `audio`; None if there is none.
        threshold (`float`, *optional*, defaults to 0.5): Threshold of the clip's score.
        independent (`bool`, *optional*, defaults to `False`): It is that of picture and sound, too.
    """
    claims = claims_of(answer, question)
    found = []
    for part, claim in (("overall", claims.overall), ("video", claims.video), ("audio", claims.audio)):
        score = scores.get(part)
        if claim is None or score is None:
            continue
        measured = int(score >= threshold_of(part, threshold, independent))
        if claim != measured:
            found.append(
                f"The answer calls the {PART_NOUNS[part]} {LABELS[claim]}; the detector measured {LABELS[measured]} "
                f"(score {score:.2f})."
            )
    return found

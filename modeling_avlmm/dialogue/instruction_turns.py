"""Questions and answers about one clip for each task, drawn from the templates and filled with the clip's facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..explain.regions import FACE_REGIONS, REGION_NAMES
from .clip_facts import KnownClip
from .phrasing import Draw, bands_text, listed, offset_text, regions_text, segments_text, templates

Turn = tuple[str, str]
"""A question and its answer."""

_TOPICS = ("modality", "technique", "where", "region_check", "when", "how_sure", "next")
"""Topics of a conversation, in their natural order."""

_FACT_TEXTS = {
    "regions": regions_text,
    "bands": bands_text,
    "segments": segments_text,
    "offset": offset_text,
}


def turns_for(task: str, known: KnownClip, draw: Draw) -> list[Turn]:
    """Return the turns of one conversation of a task of `TASKS`."""
    return _MAKERS[task](known, draw)


def _detection(known: KnownClip, draw: Draw) -> list[Turn]:
    library = templates("detection")
    polarity = draw.one("polarity", list(library))
    answers = library[polarity]["answers"]["fake" if known.fake else "real"]
    return [(_fill(known, draw, library[polarity]["questions"]), _fill(known, draw, answers))]


def _classification(known: KnownClip, draw: Draw) -> list[Turn]:
    topics = ["family"]
    if known.generators or not known.fake:
        topics.append("generator")
    return [_technique(known, draw, draw.one("topic", topics))]


def _technique(known: KnownClip, draw: Draw, topic: str) -> Turn:
    library = templates("classification")
    family = known.facts["family"]
    values: dict[str, str] = {}
    if not known.fake:
        case = "genuine"
    elif topic == "generator":
        case, values["generator"] = "fake", listed(known.generators)
    elif family is None:
        case = "unknown"
    else:
        case = "both" if family == "both" else "fake"
        values["family"] = library["names"].get(family, "")
        values["definition"] = draw.one("definition", library["definitions"][family])
    return (
        _fill(known, draw, library[topic]["questions"]),
        _fill(known, draw, library[topic]["answers"][case], **values),
    )


def _description(known: KnownClip, draw: Draw) -> list[Turn]:
    library = templates("description")
    questions = library["questions"] + (library["questions_video"] if known.kind == "video" else [])
    return [(_fill(known, draw, questions), _describe(known, draw))]


def _describe(known: KnownClip, draw: Draw) -> str:
    library = templates("description")
    if not known.fake:
        return _fill(known, draw, library["genuine"])
    modalities = known.facts["modalities"]
    opening = "both" if len(modalities) == 2 else modalities[0] if modalities else "unknown"
    sentences = [_fill(known, draw, library["opening"][opening])]
    sentences += [_fact(known, draw, name) for name in _FACT_TEXTS]
    if not known.located:
        sentences.append(_fill(known, draw, library["unlocated"]))
    return " ".join(sentence for sentence in sentences if sentence)


def _fact(known: KnownClip, draw: Draw, name: str) -> str:
    """Return the sentence on one fact, or an empty text if it is not known."""
    value = known.facts[name]
    if value is None or value == []:
        return ""
    case = "whole" if name == "segments" and known.whole else name
    return _fill(known, draw, templates("description")[case], **{name: _FACT_TEXTS[name](value)})


def _conversation(known: KnownClip, draw: Draw) -> list[Turn]:
    """Return two to four turns. Most begin with the verdict and keep the natural order, but people ask as they like."""
    own = draw.numbered("conversation")
    topics = [topic for topic in _TOPICS if topic != "region_check" or _checkable(known)]
    count = own.one("length", [1, 2, 3])
    drawn = own.order("topics", topics)
    if own.one("opening", ["verdict", "verdict", "topic"]) == "topic":
        return [_turn(topic, known, draw) for topic in drawn[: count + 1]]
    return _detection(known, draw) + [
        _turn(topic, known, draw) for topic in _TOPICS if topic in drawn[:count]
    ]


def _checkable(known: KnownClip) -> bool:
    """Return True if it is known of every single region whether it was changed."""
    return known.kind == "video" and (known.picture == 0 or (known.facts["measured"] and known.located))


def _turn(topic: str, known: KnownClip, draw: Draw) -> Turn:
    if topic == "technique":
        return _technique(known, draw, "family")
    library = templates("conversation")[topic]
    values: dict[str, str] = {}
    if topic == "modality":
        answer = _fill(known, draw, library["answers"][_modality_case(known)])
    elif topic in ("where", "when"):
        answer = _place(topic, known, draw, library)
    elif topic == "region_check":
        answer, values = _check(known, draw, library)
    elif topic == "how_sure" and known.fake:
        answer = _fill(known, draw, library["answers"]["located" if known.located else "unlocated"])
    else:
        answer = _fill(known, draw, library["answers"]["fake" if known.fake else "genuine"])
    return _fill(known, draw, library["questions"], **values), answer


def _modality_case(known: KnownClip) -> str:
    if known.kind == "audio":
        return "fake_sound" if known.fake else "genuine_sound"
    if not known.fake:
        return "genuine"
    cases = {
        (1, 1): "both",
        (1, 0): "picture",
        (0, 1): "sound",
        (1, None): "picture_only_known",
        (None, 1): "sound_only_known",
    }
    return cases.get((known.picture, known.sound), "unknown")


def _place(topic: str, known: KnownClip, draw: Draw, library: Mapping[str, Any]) -> str:
    if not known.fake:
        return _fill(known, draw, library["genuine"])
    names = ("regions", "bands") if topic == "where" else ("segments",)
    sentences = [text for text in (_fact(known, draw, name) for name in names) if text]
    return " ".join(sentences) or _fill(known, draw, library["unlocated"])


def _check(known: KnownClip, draw: Draw, library: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the answer on one region, and the region for the question's template."""
    changed = known.facts["regions"]
    others = [name for name in FACE_REGIONS if name not in changed and name != "outside"]
    polarities = [p for p, names in (("yes", changed), ("no", others)) if names]
    polarity = draw.one("polarity of region", polarities)
    region = draw.one("region", changed if polarity == "yes" else others)
    values = {"region": REGION_NAMES[region]}
    return _fill(known, draw, library["answers"][polarity], **values), values


_MAKERS: dict[str, Callable[[KnownClip, Draw], list[Turn]]] = {
    "detection": _detection,
    "classification": _classification,
    "description": _description,
    "conversation": _conversation,
}


def _fill(known: KnownClip, draw: Draw, choices: Sequence[str], **values: str) -> str:
    """Draw one of the templates, with the first one's text as the name of the draw, and fill it."""
    template = draw.one(choices[0], choices)
    text = template.format(clip="clip" if known.kind == "video" else "recording", **values)
    return text[0].upper() + text[1:]

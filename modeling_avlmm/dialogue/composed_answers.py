"""Answers composed from what a detector measured, for when there is no model that writes.

A transparent matcher of intents: keywords decide what is asked, and each intent has one way of answering, from the
verdict, the parts' scores and the timeline alone. It says so when it cannot answer, and never guesses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ..configuration_detector import LABELS

HINT = (
    "You can ask for the verdict, about picture or sound, when it shows, how sure it is, what the limits are, and what to "
    "do next."
)


def fake_segments(result: dict) -> list[list[float]]:
    """Seconds whose windows scored as fake, joined where they touch; empty where the clip was one window."""
    windows = [w for w in result["windows"] if w["score"] is not None]
    if len(windows) < 2:
        return []
    segments: list[list[float]] = []
    for window in windows:
        if window["score"] < result["threshold"]:
            continue
        if segments and window["start"] <= segments[-1][1] + 1e-6:
            segments[-1][1] = max(segments[-1][1], window["end"])
        else:
            segments.append([window["start"], window["end"]])
    return [[round(start, 2), round(end, 2)] for start, end in segments]


def compose(question: str, result: dict) -> tuple[str, str | None]:
    """
    Answers a question from a result of the pipeline.

    Args:
        question (`str`): What is asked.
        result (`dict`): As of [`AVDeepfakeDetectionPipeline`].

    Returns:
        `tuple[str, str | None]`: the answer and the intent that was recognised, None where none was.
    """
    for name, pattern, answer in _INTENTS:
        if re.search(pattern, question, re.IGNORECASE):
            return answer(question, result), name
    return f"I cannot answer that from what was measured. {HINT}", None


def _verdict(question: str, result: dict) -> str:
    if result["label"] not in LABELS:
        return (
            f"The verdict is uncertain: the score of {result['score']:.2f} is in the range without a verdict."
        )
    said = "fake" if result["label"] == "fake" else "genuine"
    text = f"By the detector this clip is {said}. Its score is {result['score']:.2f}, against a threshold of "
    return f"{text}{result['threshold']:.2f}. {_parts(result)}".strip()


def _parts(result: dict) -> str:
    said = []
    for name, key in (("picture", "video_score"), ("sound", "audio_score")):
        if result[key] is not None:
            state = "fake" if result[key] >= 0.5 else "genuine"
            said.append(f"The {name} is {state} (score {result[key]:.2f}).")
    return " ".join(said)


def _modality(question: str, result: dict) -> str:
    missing = [
        name for name, key in (("picture", "has_video"), ("sound", "has_audio")) if result.get(key) is False
    ]
    parts = _parts(result)
    notes = [f"The file has no {name}." for name in missing]
    if not parts:
        notes.append("The detector gives no verdict on picture and sound separately.")
    return " ".join([parts, *notes]).strip()


def _when(question: str, result: dict) -> str:
    windows = [w for w in result["windows"] if w["score"] is not None]
    if len(windows) < 2:
        return (
            f"The {result['duration']:.1f} s were looked at as one piece, so there are no times to give. Shorter windows "
            "would give a timeline."
        )
    segments = fake_segments(result)
    if not segments:
        return (
            f"No moment stands out: none of {len(windows)} windows scored {result['threshold']:.2f} or more."
        )
    times = " and ".join(f"from {start:.1f} s to {end:.1f} s" for start, end in segments)
    top = max(windows, key=lambda w: w["score"])
    return (
        f"Windows that scored as fake lie {times}. The highest score, {top['score']:.2f}, is at {top['start']:.1f} s to "
        f"{top['end']:.1f} s."
    )


def _sure(question: str, result: dict) -> str:
    distance = abs(result["score"] - result["threshold"])
    near = "close to" if distance < 0.15 else "well away from" if distance > 0.35 else "at some distance from"
    text = f"The score of {result['score']:.2f} is {near} the threshold of {result['threshold']:.2f}."
    notes = [note.rstrip(".") + "." for note in result["warnings"]]
    return " ".join([text, "It is an indication and no proof.", *(n[0].upper() + n[1:] for n in notes)])


def _limits(question: str, result: dict) -> str:
    return (
        "The detector gives scores only. It does not name a technique or a generator, shows no place in the picture, and "
        "may fail on kinds of forgery, recordings or compression that it was not trained on. A score is no proof either "
        "way."
    )


def _place(question: str, result: dict) -> str:
    return (
        "The detector does not say where in the face or in the voice: it scores picture and sound as a whole. "
        + _modality(question, result)
    )


def _technique(question: str, result: dict) -> str:
    return "The detector does not tell by which technique or tool a clip was made. " + _verdict(
        question, result
    )


def _next(question: str, result: dict) -> str:
    if result["label"] == "real":
        return (
            "Nothing measured speaks against this clip. Still check who published it first, and when, before you rely "
            "on it."
        )
    return (
        "Do not pass it on as genuine. Keep the file as you received it, look for the original recording, ask the person "
        "concerned through a channel you trust, and have an examiner look at it if it matters."
    )


def _describe(question: str, result: dict) -> str:
    return " ".join([_verdict(question, result), _when(question, result)])


# First match decides: the special before the general.
_INTENTS: Sequence[tuple[str, str, Callable[[str, dict], str]]] = (
    ("verdict", r"\bat face value\b", _verdict),
    ("place", r"\b(eyes?|mouth|nose|forehead|cheeks?|jaw|hairline|lips|outside the face)\b", _place),
    (
        "sure",
        r"\b(sure|certain|confiden\w+|wrong|rely|rest on|doubts?|proof|scrutiny|error|grounds|probability|likely)\b",
        _sure,
    ),
    (
        "next",
        r"\b(next|advise|advice|proceed|share it|do with it|tell anyone|handle|publish|recommend|pass it on|and now|should i|i should)\b"
        r"(?!.*\blook at\b)",
        _next,
    ),
    (
        "limits",
        r"\b(limit\w*|can you (?:not )?do|how do you work|what are you|who are you|trained on)\b",
        _limits,
    ),
    (
        "technique",
        r"\b(technique|method|generator|tool|software|algorithm|model|family|category|type|kind|class of|how was|made this)\b",
        _technique,
    ),
    ("when", r"\b(when|seconds?|moments?|times?|timeline|how long|part of the|whole|start)\b", _when),
    (
        "modality",
        r"\b(picture|sound|audio|video|voice|image|visual|heard|seen|tracks?|modality|speech)\b",
        _modality,
    ),
    ("place", r"\b(where|regions?|places?|point to|locali[sz]e|look at|face|which part)\b", _place),
    (
        "describe",
        r"\b(describe|artifacts?|traces|inconsistenc\w+|signs|suspicious|report|explain|why|evidence|examiner|changed|differs)\b",
        _describe,
    ),
    (
        "verdict",
        r"\b(fake\w*|real|genuine|authentic|deepfake|forged|forgery|manipulat\w+|synthetic|tampered|alter(?:ed)?|trust"
        r"|verdict|unaltered|true|judge|classify|generated|score|result)\b",
        _verdict,
    ),
)

__all__ = ["HINT", "compose", "fake_segments"]

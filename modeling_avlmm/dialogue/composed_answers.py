"""Answers composed from a detector's result, for use without a model that writes.

Keywords decide which intent a question has, and each intent has one way to answer, from the verdict, the scores of the
parts and the timeline alone. A question without a known intent gets no guess, but a hint at what can be asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ..configuration_detector import LABELS
from ..explain.words import PART_NAMES, capital, label_of
from .measured_context import fake_segments, part_scores

HINT = (
    "You can ask for the verdict, about picture or sound, when it shows, how sure it is, what the limits are, and what to "
    "do next."
)

_SPOKEN = {"fake": "fake", "real": "genuine"}


def compose(question: str, result: dict) -> tuple[str, str | None]:
    """
    Answer a question from a result of the pipeline.

    ```python
    >>> compose("Is it the picture or the sound?", detector("clip.mp4"))
    ('The picture is genuine (score 0.02). The sound is fake (score 0.99).', 'modality')
    ```

    Args:
        question (`str`): The question.
        result (`dict`): A result of [`AVDeepfakeDetectionPipeline`].

    Returns:
        `tuple[str, str | None]`: the answer, and the intent of the question, None if it was not understood.
    """
    for name, pattern, answer in _INTENTS:
        if re.search(pattern, question, re.IGNORECASE):
            return answer(result), name
    return f"I cannot answer that from what was measured. {HINT}", None


def _verdict(result: dict) -> str:
    score, threshold = result["score"], result["threshold"]
    if result["label"] not in LABELS:
        return f"The verdict is uncertain: the score of {score:.2f} is in the range without a verdict."
    text = (
        f"By the detector this clip is {_SPOKEN[result['label']]}. Its score is {score:.2f}, against a threshold of "
        f"{threshold:.2f}."
    )
    return f"{text} {_parts(result)}".strip()


def _parts(result: dict) -> str:
    scores = part_scores(result)
    return " ".join(
        f"The {PART_NAMES[part]} is {_SPOKEN[label_of(scores[part], result, part)]} (score {scores[part]:.2f})."
        for part in ("video", "audio")
        if scores[part] is not None
    )


def _modality(result: dict) -> str:
    parts = _parts(result)
    notes = [
        f"The file has no {PART_NAMES[part]}." for part in ("video", "audio") if not result[f"has_{part}"]
    ]
    if not parts:
        notes.append("The detector gives no verdict on picture and sound separately.")
    return " ".join([parts, *notes]).strip()


def _when(result: dict) -> str:
    windows = [window for window in result["windows"] if window["score"] is not None]
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
    top = max(windows, key=lambda window: window["score"])
    return (
        f"Windows that scored as fake lie {times}. The highest score, {top['score']:.2f}, is at {top['start']:.1f} s to "
        f"{top['end']:.1f} s."
    )


def _sure(result: dict) -> str:
    distance = abs(result["score"] - result["threshold"])
    near = "close to" if distance < 0.15 else "well away from" if distance > 0.35 else "at some distance from"
    text = f"The score of {result['score']:.2f} is {near} the threshold of {result['threshold']:.2f}."
    notes = [capital(note.rstrip(".") + ".") for note in result["warnings"]]
    return " ".join([text, "It is an indication and no proof.", *notes])


def _limits(result: dict) -> str:
    return (
        "The detector gives scores only. It does not name a technique or a generator, shows no place in the picture, and "
        "may fail on kinds of forgery, recordings or compression that it was not trained on. A score is no proof either "
        "way."
    )


def _place(result: dict) -> str:
    return (
        "The detector does not say where in the face or in the voice: it scores picture and sound as a whole. "
        + _modality(result)
    )


def _technique(result: dict) -> str:
    return f"The detector does not tell by which technique or tool a clip was made. {_verdict(result)}"


def _next(result: dict) -> str:
    if result["label"] == "real":
        return (
            "Nothing measured speaks against this clip. Still check who published it first, and when, before you rely "
            "on it."
        )
    return (
        "Do not pass it on as genuine. Keep the file as you received it, look for the original recording, ask the person "
        "concerned through a channel you trust, and have an examiner look at it if it matters."
    )


def _describe(result: dict) -> str:
    return f"{_verdict(result)} {_when(result)}"


# The first match decides, so special intents come before general ones.
_INTENTS: Sequence[tuple[str, str, Callable[[dict], str]]] = (
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

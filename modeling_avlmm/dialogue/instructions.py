"""Instruction conversations about audio-visual clips, from what is known and what was measured about them.

The recipe is that of DFA-Instruct (arXiv:2501.01164): detection, classification, artifact description and free
conversation, from labels, paired comparison and template libraries. Its schema and data are not public and it has
images only: the format, the templates and the measured comparison are our own. Answers say nothing that `facts` does
not hold; a language model may rephrase them (`rewrite`), and is held to the same facts.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets

from ..explain.evidence import Evidence, joined_segments
from ..explain.regions import FACE_REGIONS, REGION_NAMES, SOUND_BANDS
from .families import family_of, generator_name, track_labels
from .phrasing import (
    Draw,
    bands_text,
    listed,
    named_in,
    offset_text,
    regions_text,
    segments_text,
    templates,
)

TASKS = ("detection", "classification", "description", "conversation")
MOST_SEGMENTS = 5  # measured segments that are told, the longest ones; our own choice
WHOLE = 0.95  # share of a clip from which a segment is the whole of it; our own choice
_TOPICS = (
    "modality",
    "technique",
    "where",
    "region_check",
    "when",
    "how_sure",
    "next",
)  # order in a conversation
_VERDICTS = {"yes", "no", "real", "fake"}  # as first words of an answer

FEATURES = datasets.Features(
    {
        "messages": datasets.List(
            {
                "role": datasets.Value("string"),
                "content": datasets.List(
                    {"type": datasets.Value("string"), "text": datasets.Value("string")}
                ),
            }
        ),
        "task": datasets.Value("string"),
        "path": datasets.Value("string"),
        "video": datasets.Video(decode=False),
        "audio": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["real", "fake"]),
        "video_label": datasets.ClassLabel(names=["real", "fake"]),
        "audio_label": datasets.ClassLabel(names=["real", "fake"]),
        "family": datasets.Value("string"),
        "generator": datasets.Value("string"),
        "facts": datasets.Value("string"),
    }
)

Rewrite = Callable[[str, dict[str, Any]], str]


class InstructionError(ValueError):
    """Instructions that cannot be built as asked; the message says what to change."""


class InstructionWarning(UserWarning):
    """Something about a set of instructions that its user should know."""


@dataclass
class InstructionReport:
    """Counts of [`instruction_rows`].

    Attributes:
        rows (`int`): Conversations made.
        rewritten (`int`): Answers taken from `rewrite`.
        refused (`int`): Answers of `rewrite` that were empty or named something else; the template's text was kept.
    """

    rows: int = 0
    rewritten: int = 0
    refused: int = 0


@dataclass
class _Known:
    """What answers about one clip may draw on."""

    facts: dict[str, Any]
    kind: str  # "video", or "audio" for a clip without a picture
    picture: int | None
    sound: int | None
    whole: bool = False  # the segment is the whole clip
    generators: list[str] = field(default_factory=list)  # as people write them

    @property
    def fake(self) -> bool:
        return self.facts["label"] == 1

    @property
    def located(self) -> bool:
        facts = self.facts
        return bool(facts["regions"] or facts["bands"] or facts["segments"] or facts["offset"] is not None)


def build_instructions(
    rows: Iterable[Mapping[str, Any]],
    tasks: Sequence[str] = TASKS,
    seed: int = 0,
    per_clip: int = 1,
    evidence: Mapping[str, Evidence | Mapping[str, Any]] | None = None,
    rewrite: Rewrite | None = None,
) -> datasets.Dataset:
    """
    Conversations about the clips of a dataset of this package.

    Args:
        rows (`Iterable[dict]` or `datasets.Dataset`):
            Rows with the columns of `dataset_scripts.schema`; media are not decoded.
        tasks (`Sequence[str]`, defaults to all four):
            Of `TASKS`.
        seed (`int`, defaults to 0):
            A conversation depends on the seed, the clip's `path`, its task and number, and on no other clip.
        per_clip (`int`, defaults to 1):
            Conversations of each task about each clip.
        evidence (`Mapping`, *optional*):
            `path` of a fake -> its [`~evidence.Evidence`], or that as a dict.
        rewrite (`Callable`, *optional*):
            Given an answer and the facts, returns the answer in other words. One that is empty, changes the verdict, or
            names other modalities, regions, bands, seconds, families or generators is refused and counted in a warning.

    Returns:
        `datasets.Dataset` with the columns of `FEATURES`.

    Raises:
        [`InstructionError`]: an unknown task, `per_clip` below 1, or no rows.
    """
    report = InstructionReport()
    made = list(instruction_rows(rows, tasks, seed, per_clip, evidence, rewrite, report))
    if not made:
        raise InstructionError("There are no rows to build instructions from.")
    if report.refused:
        warnings.warn(
            f"{report.refused} of {report.refused + report.rewritten} rewritten answers were empty or named something "
            "else than the facts; the text of the template was kept.",
            InstructionWarning,
            stacklevel=2,
        )
    return datasets.Dataset.from_list(made, features=FEATURES)


def instruction_rows(
    rows: Iterable[Mapping[str, Any]],
    tasks: Sequence[str] = TASKS,
    seed: int = 0,
    per_clip: int = 1,
    evidence: Mapping[str, Evidence | Mapping[str, Any]] | None = None,
    rewrite: Rewrite | None = None,
    report: InstructionReport | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows of [`build_instructions`] one by one, which also counts in `report`."""
    unknown = [task for task in tasks if task not in TASKS]
    if unknown or not tasks:
        raise InstructionError(f"There is no task {unknown}. Tasks are {', '.join(TASKS)}.")
    if per_clip < 1:
        raise InstructionError(f"per_clip must be at least 1, not {per_clip}.")
    report = InstructionReport() if report is None else report
    if isinstance(rows, (datasets.Dataset, datasets.IterableDataset)):
        rows = rows.cast_column("video", datasets.Video(decode=False))
    for row in rows:
        found = (evidence or {}).get(row["path"])
        if isinstance(found, Mapping):
            found = Evidence.from_dict(dict(found))
        known = _known(row, found)
        media = {"video": _media(row["video"], row["path"]), "audio": _sound_path(row.get("audio"))}
        for task in dict.fromkeys(tasks):
            for number in range(per_clip):
                draw = Draw(seed, f"{row['path']}:{task}", number)
                turns = _MAKERS[task](known, draw)
                if rewrite is not None:
                    turns = [(q, _rewritten(a, known, rewrite, report)) for q, a in turns]
                report.rows += 1
                yield {
                    "messages": _messages(turns, known.kind),
                    "task": task,
                    "path": row["path"],
                    **media,
                    **{name: row.get(name) for name in ("label", "video_label", "audio_label")},
                    "family": known.facts["family"],
                    "generator": known.facts["generator"],
                    "facts": json.dumps(known.facts),
                }


def facts_of(row: Mapping[str, Any], evidence: Evidence | None = None) -> dict[str, Any]:
    """
    What answers about a clip are made from and judged against.

    A measured difference counts where the labels allow it: nothing is said against a track labelled genuine, and
    `outside` is no part of a face. `fake_segments` of a corpus win over measured ones.

    Returns:
        `dict`: `label` (0 real, 1 fake), `modalities` (manipulated ones, of `picture` and `sound`), `family`,
        `generator` (of all forged tracks, joined by `+`; `real` for a genuine clip; None where unknown), `regions`
        (strongest difference first, in which order texts name them), `bands`, `segments` ([start, end] in seconds),
        `offset` (seconds the sound is late; None where there is no shift), `measured` (whether the clip was compared
        with its source).
    """
    return _known(row, evidence).facts


def to_trl(row: Mapping[str, Any]) -> dict[str, Any]:
    """
    A row as trainers with a processor's chat template take it: `messages` alone.

    The clip's part holds the clip, `{"type": "video", "video": path}` as `transformers` chat templates read it, and
    parts have no empty `text`. Use `dataset.map(to_trl, remove_columns=dataset.column_names)` where all rows are of
    one kind; embedded clips are given as bytes.
    """
    messages = []
    video, audio = row["video"], row["audio"]
    for message in row["messages"]:
        content: list[dict[str, Any]] = []
        for part in message["content"]:
            if part["type"] == "text":
                content.append({"type": "text", "text": part["text"]})
            else:
                media = video if part["type"] == "video" else audio
                if isinstance(media, Mapping):
                    media = media["bytes"] if media.get("bytes") is not None else media["path"]
                content.append({"type": part["type"], part["type"]: media})
        messages.append({"role": message["role"], "content": content})
    return {"messages": messages}


def _known(row: Mapping[str, Any], evidence: Evidence | None) -> _Known:
    picture, sound = track_labels(row)
    regions: list[str] = []
    bands: list[str] = []
    segments: list[list[float]] = []
    offset = None
    fake = row["label"] == 1
    measured = evidence is not None and evidence.measured
    if fake and evidence is not None:
        told = []
        if picture != 0:
            visible = [finding for finding in evidence.picture if finding.where != "outside"]
            regions = [finding.where for finding in visible]
            told += visible
        if sound != 0:
            bands = [finding.where for finding in evidence.sound]
            told += evidence.sound
        # A measured difference is a fact about a track that the corpus does not label
        picture = 1 if regions else picture
        sound = 1 if bands else sound
        segments = joined_segments([segment for finding in told for segment in finding.segments])
        if len(segments) > MOST_SEGMENTS:
            segments = sorted(sorted(segments, key=lambda s: s[0] - s[1])[:MOST_SEGMENTS])
        offset = round(evidence.offset, 2) if evidence.shifted and evidence.offset is not None else None
    if fake and row.get("fake_segments"):
        segments = [[round(float(start), 2), round(float(end), 2)] for start, end in row["fake_segments"]]
    names = [
        row.get(column)
        for column, label in (("generator", picture), ("audio_generator", sound))
        if label == 1 and row.get(column) not in (None, "", "real")
    ]
    family = family_of({**row, "video_label": picture, "audio_label": sound})
    facts = {
        "label": int(row["label"]),
        "modalities": [name for name, label in (("picture", picture), ("sound", sound)) if label == 1],
        "family": family,
        "generator": "+".join(map(str, names)) or None if fake else "real",
        "regions": regions,
        "bands": [name for name in SOUND_BANDS if name in bands],
        "segments": segments,
        "offset": offset,
        "measured": measured,
    }
    duration = evidence.duration if evidence is not None else None
    whole = bool(duration and len(segments) == 1 and segments[0][1] - segments[0][0] >= WHOLE * duration)
    kind = "video" if row.get("video") is not None else "audio"
    return _Known(facts, kind, picture, sound, whole, [generator_name(str(name)) for name in names])


Turn = tuple[str, str]


def _detection(known: _Known, draw: Draw) -> list[Turn]:
    library = templates("detection")
    polarity = draw.one("polarity", list(library))
    answers = library[polarity]["answers"]["fake" if known.fake else "real"]
    return [(_ask(known, draw, library[polarity]["questions"]), _say(known, draw, answers))]


def _classification(known: _Known, draw: Draw) -> list[Turn]:
    topics = ["family"]
    if known.generators or not known.fake:
        topics.append("generator")
    return [_technique(known, draw, draw.one("topic", topics))]


def _technique(known: _Known, draw: Draw, topic: str) -> Turn:
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
        _ask(known, draw, library[topic]["questions"]),
        _say(known, draw, library[topic]["answers"][case], **values),
    )


def _description(known: _Known, draw: Draw) -> list[Turn]:
    library = templates("description")
    questions = library["questions"] + (library["questions_video"] if known.kind == "video" else [])
    return [(_ask(known, draw, questions), _describe(known, draw))]


def _describe(known: _Known, draw: Draw) -> str:
    library = templates("description")
    if not known.fake:
        return _say(known, draw, library["genuine"])
    modalities = known.facts["modalities"]
    opening = "both" if len(modalities) == 2 else modalities[0] if modalities else "unknown"
    sentences = [_say(known, draw, library["opening"][opening])]
    sentences += [_fact(known, draw, name) for name in ("regions", "bands", "segments", "offset")]
    if not known.located:
        sentences.append(_say(known, draw, library["unlocated"]))
    return " ".join(sentence for sentence in sentences if sentence)


def _fact(known: _Known, draw: Draw, name: str) -> str:
    """The sentence on one fact; empty where nothing is known."""
    value = known.facts[name]
    if value is None or value == []:
        return ""
    text = {"regions": regions_text, "bands": bands_text, "segments": segments_text, "offset": offset_text}[
        name
    ]
    case = "whole" if name == "segments" and known.whole else name
    return _say(known, draw, templates("description")[case], **{name: text(value)})


def _conversation(known: _Known, draw: Draw) -> list[Turn]:
    """Two to four turns. Mostly a verdict comes first and the others in a natural order, but people ask as they like."""
    own = draw.numbered("conversation")
    topics = [topic for topic in _TOPICS if topic != "region_check" or _checkable(known)]
    count = own.one("length", [1, 2, 3])
    drawn = own.order("topics", topics)
    if own.one("opening", ["verdict", "verdict", "topic"]) == "topic":
        return [_turn(topic, known, draw) for topic in drawn[: count + 1]]
    return _detection(known, draw) + [
        _turn(topic, known, draw) for topic in _TOPICS if topic in drawn[:count]
    ]


def _checkable(known: _Known) -> bool:
    """Whether it is known of single regions whether they were changed."""
    return known.kind == "video" and (known.picture == 0 or (known.facts["measured"] and known.located))


def _turn(topic: str, known: _Known, draw: Draw) -> Turn:
    if topic == "technique":
        return _technique(known, draw, "family")
    library = templates("conversation")[topic]
    values: dict[str, str] = {}
    if topic == "modality":
        answer = _say(known, draw, library["answers"][_modality_case(known)])
    elif topic in ("where", "when"):
        answer = _place(topic, known, draw, library)
    elif topic == "region_check":
        answer, values = _check(known, draw, library)
    elif topic == "how_sure" and known.fake:
        answer = _say(known, draw, library["answers"]["located" if known.located else "unlocated"])
    else:
        answer = _say(known, draw, library["answers"]["fake" if known.fake else "genuine"])
    return _ask(known, draw, library["questions"], **values), answer


def _modality_case(known: _Known) -> str:
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


def _place(topic: str, known: _Known, draw: Draw, library: Mapping[str, Any]) -> str:
    if not known.fake:
        return _say(known, draw, library["genuine"])
    names = ("regions", "bands") if topic == "where" else ("segments",)
    sentences = [text for text in (_fact(known, draw, name) for name in names) if text]
    return " ".join(sentences) or _say(known, draw, library["unlocated"])


def _check(known: _Known, draw: Draw, library: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    changed = known.facts["regions"]
    others = [name for name in FACE_REGIONS if name not in changed and name != "outside"]
    polarities = [p for p, names in (("yes", changed), ("no", others)) if names]
    polarity = draw.one("polarity of region", polarities)
    region = draw.one("region", changed if polarity == "yes" else others)
    values = {"region": REGION_NAMES[region]}
    return _say(known, draw, library["answers"][polarity], **values), values


_MAKERS: dict[str, Callable[[_Known, Draw], list[Turn]]] = {
    "detection": _detection,
    "classification": _classification,
    "description": _description,
    "conversation": _conversation,
}


def _ask(known: _Known, draw: Draw, questions: Sequence[str], **values: str) -> str:
    return _fill(known, draw.one(questions[0], questions), values)


def _say(known: _Known, draw: Draw, answers: Sequence[str], **values: str) -> str:
    return _fill(known, draw.one(answers[0], answers), values)


def _fill(known: _Known, template: str, values: Mapping[str, str]) -> str:
    text = template.format(clip="clip" if known.kind == "video" else "recording", **values)
    return text[0].upper() + text[1:]


def _messages(turns: Sequence[Turn], kind: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for question, answer in turns:
        for role, text in (("user", question), ("assistant", answer)):
            messages.append({"role": role, "content": [{"type": "text", "text": text}]})
    messages[0]["content"].insert(0, {"type": kind, "text": None})
    return messages


def _rewritten(answer: str, known: _Known, rewrite: Rewrite, report: InstructionReport) -> str:
    text = rewrite(
        answer, json.loads(json.dumps(known.facts))
    )  # a copy: the hook may do with it what it likes
    if isinstance(text, str) and _says_the_same(text.strip(), answer, known):
        report.rewritten += 1
        return text.strip()
    report.refused += 1
    return answer


def _says_the_same(text: str, answer: str, known: _Known) -> bool:
    if not text or named_in(text) != named_in(answer):
        return False
    first, expected = (words.split()[0].strip(".,:;!").lower() for words in (text, answer))
    if expected in _VERDICTS and first != expected:
        return False
    names = [*templates("classification")["names"].values(), *known.generators]
    return all(name.lower() in text.lower() for name in names if name.lower() in answer.lower())


def _media(value: Any, path: str) -> dict[str, Any] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return {"bytes": None, "path": value}
    if isinstance(value, Mapping) and {"bytes", "path"} >= set(value):
        return {"bytes": value.get("bytes"), "path": value.get("path")}
    raise InstructionError(
        f"{path}: `video` is a {type(value).__name__}, not a path. Cast the column: "
        'dataset.cast_column("video", datasets.Video(decode=False)).'
    )


def _sound_path(value: Any) -> str | None:
    return value.get("path") if isinstance(value, Mapping) else value

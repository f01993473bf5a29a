"""Instruction conversations about audio-visual clips, from labels and measured differences.

The recipe is that of DFA-Instruct (arXiv:2501.01164): detection, classification, artifact description and free
conversation, from labels, paired comparison and template libraries. Its schema and data are not public and cover images
only, so the format, the templates and the measured comparison are our own. Answers state nothing that `facts` does not
hold. A language model may rephrase them (`rewrite`), and is held to the same facts.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets

from ..configuration_detector import LABELS
from ..explain.evidence import Evidence
from .clip_facts import KnownClip, known_clip
from .families import TASKS
from .instruction_turns import Turn, turns_for
from .phrasing import Draw, named_in, templates

_VERDICTS = {"yes", "no", *LABELS}
"""First words of an answer that a rewrite must keep."""

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
        "label": datasets.ClassLabel(names=list(LABELS)),
        "video_label": datasets.ClassLabel(names=list(LABELS)),
        "audio_label": datasets.ClassLabel(names=list(LABELS)),
        "family": datasets.Value("string"),
        "generator": datasets.Value("string"),
        "facts": datasets.Value("string"),
    }
)
"""Columns of instruction data."""

Rewrite = Callable[[str, dict[str, Any]], str]
"""Returns an answer in other words, given the answer and its facts."""


class InstructionError(ValueError):
    """Instructions that cannot be built as asked; the message says what to change."""


class InstructionWarning(UserWarning):
    """A fact about a set of instructions that its user should know."""


@dataclass
class InstructionReport:
    """
    Counts of [`instruction_rows`].

    Attributes:
        rows (`int`): Conversations made.
        rewritten (`int`): Answers taken from `rewrite`.
        refused (`int`): Rewritten answers that were empty or changed the facts; the template's text was kept.
    """

    rows: int = 0
    rewritten: int = 0
    refused: int = 0


def build_instructions(
    rows: Iterable[Mapping[str, Any]],
    tasks: Sequence[str] = TASKS,
    seed: int = 0,
    per_clip: int = 1,
    evidence: Mapping[str, Evidence | Mapping[str, Any]] | None = None,
    rewrite: Rewrite | None = None,
) -> datasets.Dataset:
    """
    Build conversations about the clips of a dataset of this package.

    ```python
    >>> rows = build_instructions(dataset, tasks=["description"], per_clip=2)
    >>> rows[0]["messages"][1]["content"][0]["text"]
    'The picture was manipulated.'
    ```

    Args:
        rows (`Iterable[dict]` or `datasets.Dataset`):
            Rows with the columns of `dataset_scripts.schema`; media are not decoded.
        tasks (`Sequence[str]`, defaults to all four): Tasks, of `TASKS`.
        seed (`int`, defaults to 0):
            Seed. A conversation depends on it, on the clip's `path`, and on its task and number, but on no other clip.
        per_clip (`int`, defaults to 1): Conversations of each task about each clip.
        evidence (`Mapping`, *optional*): `path` of a fake -> its [`~evidence.Evidence`], or that as a dict.
        rewrite (`Callable`, *optional*):
            Function that returns an answer in other words, given the answer and its facts. A rewrite is refused, and
            counted in a warning, if it is empty, changes the verdict, or names other modalities, regions, bands,
            times, families or generators.

    Returns:
        `datasets.Dataset` with the columns of `FEATURES`.

    Raises:
        [`InstructionError`]: for an unknown task, `per_clip` below 1, or no rows.
    """
    report = InstructionReport()
    made = list(instruction_rows(rows, tasks, seed, per_clip, evidence, rewrite, report))
    if not made:
        raise InstructionError("There are no rows to build instructions from.")
    if report.refused:
        warnings.warn(
            f"{report.refused} of {report.refused + report.rewritten} rewritten answers were empty or did not name the "
            "same facts; the text of the template was kept.",
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
    """Yield the rows of [`build_instructions`] one by one, and count them in `report`."""
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
        known = known_clip(row, found)
        media = {"video": _media(row["video"], row["path"]), "audio": _sound_path(row.get("audio"))}
        for task in dict.fromkeys(tasks):
            for number in range(per_clip):
                turns = turns_for(task, known, Draw(seed, f"{row['path']}:{task}", number))
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


def to_trl(row: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return a row as trainers with a processor's chat template take it: `messages` alone.

    The first part holds the clip, as `{"type": "video", "video": path}`, which the chat templates of `transformers`
    read. Embedded clips are given as bytes. Use `dataset.map(to_trl, remove_columns=dataset.column_names)` if all rows
    have the same kind of clip.
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


def _messages(turns: Sequence[Turn], kind: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for question, answer in turns:
        for role, text in (("user", question), ("assistant", answer)):
            messages.append({"role": role, "content": [{"type": "text", "text": text}]})
    messages[0]["content"].insert(0, {"type": kind, "text": None})
    return messages


def _rewritten(answer: str, known: KnownClip, rewrite: Rewrite, report: InstructionReport) -> str:
    copied = json.loads(json.dumps(known.facts))  # a copy, which the function may change as it likes
    text = rewrite(answer, copied)
    if isinstance(text, str) and _says_the_same(text.strip(), answer, known):
        report.rewritten += 1
        return text.strip()
    report.refused += 1
    return answer


def _says_the_same(text: str, answer: str, known: KnownClip) -> bool:
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

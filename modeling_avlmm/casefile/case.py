"""The case of one file: everything about its verdict that a newsroom or examiner keeps with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ..explain.attribution import Attribution
from ..explain.words import deciding, headline, meaning, part_rows
from ..inference.credentials import with_credentials
from ..inference.provenance import environment
from ..pipeline_avd import AVDeepfakeDetectionPipeline
from ..pipeline_inputs import split_source
from .captions import Plot, attribution_plots, disagreement_plot, people_plot, timeline_plot
from .facts import detector_facts, file_facts, title_of, utc
from .people import PeopleSection, people_section
from .record import make_record

DECODED = {"video": "SHA-256 of the decoded picture", "audio": "SHA-256 of the decoded sound"}


@dataclass
class Case:
    """
    One file, one verdict, and what is needed to check it.

    Attributes:
        name (`str`): The file, as it was named.
        time (`str`): When the case was made, UTC, ISO 8601.
        headline (`str`): The verdict in a few words.
        result (`dict`): The pipeline's result.
        parts (`list[dict]`): Verdicts on the whole, the picture and the sound ([`part_rows`]).
        meaning (`list[str]`): Sentences on what the verdict means and does not mean.
        notice (`str`, *optional*): A warning about the detector that stands before everything else.
        warnings (`list[str]`): Oddities of the file.
        sha256 (`str`, *optional*): Of the file's bytes; None for a link and for arrays.
        file, detector, software (`list[tuple[str, str]]`): Facts, as name and value.
        timeline (`list[dict]`): The windows.
        people ([`PeopleSection`], *optional*): The faces that were found; None if the detector looks at whole frames.
        people_plot ([`Plot`], *optional*): Who is suspicious when.
        plots (`list[Plot]`): Scores over time.
        attribution ([`Attribution`], *optional*), attribution_plots (`list[Plot]`): What the detector reacted to.
        conversation (`list[tuple[str, str]]`): Role and text of each message.
        record (`dict`): What `verify` checks again, see [`make_record`].
    """

    name: str
    time: str
    headline: str
    result: dict
    parts: list[dict]
    meaning: list[str]
    notice: str | None
    warnings: list[str]
    sha256: str | None
    file: list[tuple[str, str]]
    detector: list[tuple[str, str]]
    software: list[tuple[str, str]]
    timeline: list[dict]
    people: PeopleSection | None = None
    people_plot: Plot | None = None
    plots: list[Plot] = field(default_factory=list)
    attribution: Attribution | None = None
    attribution_plots: list[Plot] = field(default_factory=list)
    conversation: list[tuple[str, str]] = field(default_factory=list)
    record: dict = field(default_factory=dict)


def build_case(
    file: Any,
    result: dict,
    *,
    detector: AVDeepfakeDetectionPipeline,
    attribution: Attribution | None = None,
    conversation: Sequence[Mapping] | None = None,
    time: datetime | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Case:
    """
    Collect what is known about a file and its verdict.

    ```python
    >>> result = detector("clip.mp4")
    >>> case = build_case("clip.mp4", result, detector=detector, attribution=attribute(detector, "clip.mp4"))
    >>> write_html(case, "clip.html")
    >>> write_pdf(case, "clip.pdf")
    ```

    Args:
        file (path, URL, `bytes`, `{"video": ..., "audio": ...}`, ...): The pipeline's input.
        result (`dict`): The pipeline's result.
        detector ([`AVDeepfakeDetectionPipeline`]): The pipeline; with a gate, `result["decided_by"]` tells which of the two decided.
        attribution ([`Attribution`], *optional*): What the detector reacted to.
        conversation (`Sequence[Mapping]`, *optional*): Messages about the file, with `role` and `content`.
        time (`datetime`, *optional*): Time of the case. Defaults to now.
        settings (`Mapping`, *optional*): Options of the call that gave the result, for `verify`. Its windows tell of them if left out.

    Raises:
        OSError: if the file is gone.
    """
    judge = deciding(detector, result)
    config = judge.model.config
    if "credentials" not in result:
        result = with_credentials(split_source(file)[0], result)
    sha256, facts = file_facts(file, result)
    case = Case(
        name=title_of(file),
        time=utc(time or datetime.now(timezone.utc)),
        headline=headline(result),
        result=result,
        parts=part_rows(result),
        meaning=meaning(result, config),
        notice=config.notice,
        warnings=[text for text in result["warnings"] if text != config.notice],
        sha256=sha256,
        file=facts,
        detector=detector_facts(detector, result),
        software=[(name, str(value)) for name, value in environment().items()],
        timeline=result["windows"],
        people=people_section(file, result, judge.processor.trim_leading_silence),
        people_plot=people_plot(result),
        attribution=attribution,
        conversation=[(str(turn["role"]), _text_of(turn["content"])) for turn in conversation or ()],
        record=make_record(file, title_of(file), result, sha256, detector, settings),
    )
    hashes = case.record["file"]["streams"]
    case.file += [(DECODED[kind], value) for kind, value in hashes.items() if value is not None]
    if result["error"] is not None:
        case.warnings.append(f"Reading stopped: {result['error']['message']}")
    if len(result["windows"]) > 1:
        case.plots.append(timeline_plot(result))
    if result.get("timeline"):
        case.plots.append(disagreement_plot(result))
    if attribution is not None:
        case.attribution_plots = attribution_plots(attribution, result)
    return case


def _text_of(content: str | Sequence[Mapping]) -> str:
    """Return the text of a message's content; a part that is no text is named, as in `[video]`."""
    if isinstance(content, str):
        return content
    parts = [part["text"] if part.get("type") == "text" else f"[{part.get('type')}]" for part in content]
    return "\n".join(parts)


__all__ = ["Case", "build_case"]

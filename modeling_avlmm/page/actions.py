"""Actions behind the buttons of the page: judge a clip, look closer, answer questions, write a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..media import MediaError, MediaReader
from .session import ClipRefusedError, Limits, Visit, Visits


@dataclass
class Page:
    """
    What the page's buttons do, apart from Gradio: everything is asked of a [`Visit`], one for each browser session, so that
    no two people's clips can mix.

    Args:
        detector ([`AVDeepfakeDetectionPipeline`]): Gives the verdicts.
        limits ([`Limits`]): What is taken.
        writer (pipeline, *optional*):
            Instruction-tuned detector that answers questions. Without it answers are composed from the verdict's numbers.
        grid (`int`, *optional*, defaults to 7): Rows and columns of the map of what the detector reacts to.
        visits ([`Visits`]): Where the files lie.
    """

    detector: Any
    limits: Limits = field(default_factory=Limits)
    writer: Any = None
    grid: int = 7
    visits: Visits = field(default_factory=Visits)

    def judge(self, visit: Visit) -> None:
        """Asks the detector.

        Raises:
            ClipRefusedError: when the file cannot be read, or another one took its place meanwhile.
        """
        clip, generation = visit.clip, visit.generation
        abstain = bool(getattr(self.detector.model.config, "abstain_band", None))
        try:
            result = self.detector(str(clip), on_error="raise", abstain=abstain)
        except MediaError as error:
            raise ClipRefusedError(f"{visit.name} cannot be read to its end: {error.reason}.") from error
        result["name"] = visit.name
        self._keep(visit, generation, "result", result)

    def look_closer(self, visit: Visit, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Finds out what the detector reacts to in the window with the highest score."""
        from ..explain.attribution import SATURATED, attribute

        generation, result = visit.generation, visit.result
        by_gate = result.get("decided_by") == "gate"
        detector = self.detector.gate.detector if by_gate else self.detector
        window = max(result["windows"], key=lambda window: window["score"] or 0.0)
        # Near its ends the score hardly moves, whatever is hidden; its log-odds do.
        near_end = not SATURATED < (window["score"] or 0.0) < 1 - SATURATED
        measure = "log_odds" if near_end else "score"
        found = attribute(
            detector, str(visit.clip), window, grid=self.grid, measure=measure, on_progress=on_progress
        )
        found.name = visit.name
        self._keep(visit, generation, "attribution", found)

    def ask(self, visit: Visit, text: str) -> Iterator[list[dict]]:
        """Puts a question about the clip; yields the conversation as the answer grows."""
        from ..dialogue.analyst import AVAnalyst

        if visit.analyst is None:
            visit.analyst = AVAnalyst(self.writer, self.detector)
            visit.analyst.load(str(visit.clip), visit.result)
        messages = visit.messages
        messages.append({"role": "user", "content": text})
        answer = {"role": "assistant", "content": ""}
        messages.append(answer)
        yield list(messages)
        try:
            for piece in visit.analyst.ask(text, stream=True):
                answer["content"] += piece
                yield list(messages)
        finally:
            if not answer[
                "content"
            ]:  # it failed, and a question without an answer is no part of a conversation
                del messages[-2:]

    def forget(self, visit: Visit) -> None:
        """Begins the conversation anew; the clip and its verdict stay."""
        visit.messages = []
        visit.analyst = None

    def report(self, visit: Visit, kind: str) -> Path:
        """Writes the report, `"pdf"` or `"html"`, of all that is known by now."""
        from ..casefile.case import build_case
        from ..casefile.pages import write_html, write_pdf

        case = build_case(
            str(visit.clip),
            visit.result,
            detector=self.detector,
            attribution=visit.attribution,
            conversation=visit.messages or None,
        )
        case.name = visit.name
        # Where the file lies here, and since when, is no fact about what was given; the folder's name is a secret besides.
        case.file = [
            (title, value.replace(str(visit.clip), visit.name))
            for title, value in case.file
            if title != "Changed"
        ]
        path = visit.file(f"report.{kind}")
        {"pdf": write_pdf, "html": write_html}[kind](case, path)
        return path

    def player(self, visit: Visit) -> str:
        """The player's HTML, with what is known by now."""
        from .pictures import mel_picture, sound_marks
        from .views import player_view

        trim = getattr(self.detector.processor, "trim_leading_silence", False)
        with MediaReader(visit.clip, name=visit.name, trim_leading_silence=trim) as reader:
            mel, offset = mel_picture(reader), reader.info.trimmed
        marks = [] if visit.attribution is None else sound_marks(visit.attribution)
        return player_view(visit, mel, offset, marks)

    def _keep(self, visit: Visit, generation: int, name: str, value: Any) -> None:
        if visit.closed or visit.generation != generation:
            raise ClipRefusedError("Another clip took this one's place while the detector looked at it.")
        setattr(visit, name, value)

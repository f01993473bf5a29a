"""Actions behind the buttons of the page: judge a clip, look closer, answer questions, write a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..casefile.case import build_case
from ..casefile.pages import write_html, write_pdf
from ..casefile.people import portraits
from ..dialogue.analyst import AVAnalyst
from ..explain.attribution import SATURATED, attribute
from ..explain.people import people_of
from ..explain.words import deciding
from ..inference.credentials import with_credentials
from ..media import MediaError, MediaReader
from ..pipeline_avd import AVDeepfakeDetectionPipeline
from .people import listed_people
from .pictures import mel_picture, sound_marks
from .session import ClipRefusedError, Limits, Visit, Visits
from .views import player_view


@dataclass
class Page:
    """
    The detectors behind the page, and what they are asked. Knows nothing of Gradio.

    Each browser tab has its own [`Visit`], so the clips of two people cannot mix.

    Args:
        detector ([`AVDeepfakeDetectionPipeline`]): Gives the verdicts.
        limits ([`Limits`]): Largest file and longest clip.
        writer ([`AVDeepfakeDetectionPipeline`], *optional*):
            Instruction-tuned detector that answers questions. Without it, answers are composed from the measured numbers.
        grid (`int`, *optional*, defaults to 7): Rows and columns of the map of what the detector reacts to.
        visits ([`Visits`]): The visits and their files.
    """

    detector: AVDeepfakeDetectionPipeline
    limits: Limits = field(default_factory=Limits)
    writer: AVDeepfakeDetectionPipeline | None = None
    grid: int = 7
    visits: Visits = field(default_factory=Visits)

    @property
    def _abstains(self) -> bool:
        return bool(self.detector.model.config.abstain_band)

    def judge(self, visit: Visit) -> None:
        """Ask the detector for a verdict on the visit's clip.

        Raises:
            ClipRefusedError: if the file cannot be read, or another clip took its place meanwhile.
        """
        with visit.looking() as (clip, generation):
            try:
                result = self.detector(str(clip), on_error="raise", abstain=self._abstains)
            except MediaError as error:
                raise ClipRefusedError(f"{visit.name} cannot be read to its end: {error.reason}.") from error
            result = with_credentials(str(clip), result)
            result["name"] = visit.name
            if result["error"] is not None:  # the folder's name is secret
                result["error"]["message"] = result["error"]["message"].replace(str(clip), visit.name)
            visit.keep(generation, result=result)

    def look_closer(self, visit: Visit, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Find out what the detector reacts to in the window with the highest score.

        Raises:
            ClipRefusedError: if there is no verdict, or another clip took this one's place meanwhile.
        """
        generation, result = visit.generation, visit.result
        if result["score"] is None:
            raise ClipRefusedError("There is no verdict on this clip, so there is nothing to look into.")
        window = max(result["windows"], key=lambda window: window["score"] or 0.0)
        # Near its ends the score hardly moves, whatever is hidden; its log-odds do.
        near_end = not SATURATED < (window["score"] or 0.0) < 1 - SATURATED
        found = attribute(
            deciding(self.detector, result),
            str(visit.clip),
            window,
            grid=self.grid,
            measure="log_odds" if near_end else "score",
            on_progress=on_progress,
        )
        found.name = visit.name
        visit.keep(generation, attribution=found)

    def ask(self, visit: Visit, text: str) -> Iterator[list[dict]]:
        """Ask a question about the clip, and yield the conversation as the answer grows."""
        if visit.analyst is None:
            visit.analyst = AVAnalyst(self.writer, self.detector)
            visit.analyst.load(str(visit.clip), visit.result)
        messages, answer = visit.messages, {"role": "assistant", "content": ""}
        messages += [{"role": "user", "content": text}, answer]
        yield list(messages)
        try:
            for piece in visit.analyst.ask(text, stream=True):
                answer["content"] += piece
                yield list(messages)
        finally:
            if not answer["content"]:  # it failed: a question without an answer is no part of a conversation
                del messages[-2:]

    def forget(self, visit: Visit) -> None:
        """Start a new conversation. The clip and its verdict stay."""
        visit.messages = []
        visit.analyst = None

    def report(self, visit: Visit, kind: str) -> Path:
        """
        Write the report on everything that is known so far.

        Args:
            kind (`str`): `"pdf"` or `"html"`.

        Raises:
            PDFUnavailableError: for a PDF without the extra `pdf`.
        """
        case = build_case(
            str(visit.clip),
            visit.result,
            detector=self.detector,
            attribution=visit.attribution,
            conversation=visit.messages or None,
            settings={"abstain": self._abstains},
        )
        case.name = case.record["file"]["name"] = visit.name
        # The path and date of the server's copy say nothing about the file that was given, and the folder's name is secret.
        case.file = [
            (title, value.replace(str(visit.clip), visit.name))
            for title, value in case.file
            if title != "Changed"
        ]
        path = visit.file(f"report.{kind}")
        {"pdf": write_pdf, "html": write_html}[kind](case, path)
        return path

    def player(self, visit: Visit) -> str:
        """Return the HTML of the player, with what is known so far."""
        trim = self.detector.processor.trim_leading_silence
        with MediaReader(visit.clip, name=visit.name, trim_leading_silence=trim) as reader:
            mel, offset = mel_picture(reader), reader.info.trimmed
            people = listed_people(people_of(visit.result) or [])
            try:
                pictures = portraits(reader, people)
            except (
                MediaError
            ):  # the verdict on what came before the damage stands, and the list needs no pictures
                pictures = {}
        marks = [] if visit.attribution is None else sound_marks(visit.attribution)
        return player_view(visit, mel, offset, marks, pictures)

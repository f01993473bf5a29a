"""Handlers of the page's events: each takes what a browser sent and returns what to show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from ..casefile.pdf import PDFUnavailableError
from .actions import Page
from .session import ClipRefusedError, Visit
from .uploads import NOT_UPLOADED
from .views import address, closeup_view, notice, render, verdict_view

BUSY = "Looking at the picture and listening to the sound. If others came first, this waits its turn."
FAILED = "The detector failed on this clip. The terminal that serves this page shows the error."
ENDED = "This session has ended and its files are deleted. Give the clip again."


@dataclass
class Components:
    """The components of the page that handlers read or fill."""

    file: gr.File
    camera: gr.Video
    microphone: gr.Audio
    note: gr.HTML
    result: gr.Column
    verdict: gr.HTML
    player: gr.HTML
    chat: gr.Chatbot
    question: gr.Textbox
    suggested: list[gr.Button]
    kinds: dict[str, gr.Button]
    report: gr.HTML
    closer: gr.Button
    closeup: gr.HTML


class Handlers:
    """
    The handlers of one page. Each finds the visit of the browser tab that sent the event.

    Args:
        page ([`Page`]): The detectors and the visits.
        components ([`Components`]): The components to fill.
    """

    def __init__(self, page: Page, components: Components):
        self.page, self.components = page, components

    def _visit(self, request: gr.Request) -> Visit | None:
        """Return the tab's visit if it has a verdict."""
        visit = self.page.visits.of(request.session_hash)
        return visit if visit.result is not None else None

    def take(self, upload: str | None, request: gr.Request) -> dict:
        """Take a file, or say why not. After a refusal the clip before it stays, and its verdict with it."""
        at = self.components
        if not upload:
            return {at.note: gr.skip()}
        cleared = {at.file: None, at.camera: None, at.microphone: None}
        try:
            if not self.page.visits.uploads.spend(Path(upload)):
                raise ClipRefusedError(NOT_UPLOADED)
            self.page.visits.of(request.session_hash).take(Path(upload), self.page.limits)
        except ClipRefusedError as error:
            return {**cleared, at.note: notice("error", str(error))}
        return {**cleared, at.note: notice("busy", BUSY), at.result: gr.Column(visible=False)}

    def judge(self, request: gr.Request) -> dict:
        """Show the verdict on a clip that has none yet."""
        at, visit = self.components, self.page.visits.of(request.session_hash)
        if visit.clip is None or visit.result is not None:
            return {at.verdict: gr.skip()}
        try:
            with visit.looking():
                self.page.judge(visit)
                player, verdict = self.page.player(visit), verdict_view(visit, self.page.detector)
        except ClipRefusedError as error:
            return {at.note: notice("error", str(error))}
        return {
            at.note: "",
            at.result: gr.Column(visible=True),
            at.verdict: verdict,
            at.player: player,
            at.closeup: "",
            at.chat: [],
            at.report: "",
        }

    def failed(self) -> str:
        """Say that the detector failed."""
        return notice("error", FAILED)

    def look_closer(self, request: gr.Request, progress: gr.Progress = gr.Progress()) -> dict:  # noqa: B008 (Gradio's way)
        """Show what the detector reacts to."""
        at, visit = self.components, self._visit(request)
        if visit is None:
            return {at.closeup: notice("error", ENDED)}
        try:
            self.page.look_closer(visit, lambda done, total: progress((done, total), desc="Covering parts"))
            return {
                at.closeup: closeup_view(visit.attribution, visit.result),
                at.player: self.page.player(visit),
            }
        except ValueError as error:  # AttributionError and MediaError among them
            return {at.closeup: notice("error", str(error).replace(str(visit.clip), visit.name))}

    def ask(self, text: str, request: gr.Request) -> Iterator[dict]:
        """Show the conversation as the answer to a question grows."""
        at, visit = self.components, self._visit(request)
        if not text.strip():
            yield {at.question: gr.skip()}
        elif visit is None:
            yield {at.chat: [{"role": "assistant", "content": ENDED}]}
        else:
            for messages in self.page.ask(visit, text.strip()):
                yield {at.chat: messages, at.question: ""}

    def forget(self, request: gr.Request) -> None:
        """Start a new conversation."""
        visit = self._visit(request)
        if visit is not None:
            self.page.forget(visit)

    def write_report(self, kind: str, request: gr.Request) -> str:
        """Return a link to a report, which the page's script follows."""
        visit = self._visit(request)
        if visit is None:
            return notice("error", ENDED)
        try:
            path = self.page.report(visit, kind)
        except PDFUnavailableError as error:
            return notice("error", f"{error} The HTML report has the same content.")
        name = f"{Path(visit.name).stem}-report.{kind}"
        size = f"{max(1, round(path.stat().st_size / 1000))} kB"
        return render(
            "report.html", address=address(visit, path.name), name=name, kind=kind.upper(), size=size
        )

    def end(self, request: gr.Request) -> None:
        """End the visit: the tab was closed."""
        self.page.visits.end(request.session_hash)

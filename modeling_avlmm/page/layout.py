"""The page itself: what is where, and which button asks what of [`Page`]."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from .actions import Page
from .session import ClipRefusedError, Limits, Visit
from .views import address, asset, closeup_view, model_name, notice, render, verdict_view

QUESTIONS = ("Why this verdict?", "Which seconds are suspicious?", "How far can I trust it?")
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
MODEL = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
"""One call of the networks at a time, whoever asks; others wait in line."""
QUICK = {"concurrency_limit": 8, "api_visibility": "private"}
BUSY = "Looking at the picture and listening to the sound. If others are before you, this waits for its turn."
FAILED = "The detector failed on this clip; the terminal that serves this page says how."
ENDED = "This session has ended and its files are deleted. Give the clip again."


def look(limits: Limits) -> dict[str, Any]:
    """How the page looks, for `gradio.mount_gradio_app`: fonts and scripts of this computer alone."""
    script = (
        asset("page.js")
        .replace("@MAX_BYTES@", str(limits.max_bytes))
        .replace("@LIMIT@", f"{limits.max_mb:g}")
    )
    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.slate, neutral_hue=gr.themes.colors.slate, font=FONT, font_mono=MONO
    )
    return {
        "theme": theme,
        "css": asset("page.css"),
        "head": f"<script>{script}</script>",
        "footer_links": [],
        "run_history": False,
        "pwa": False,
        "ssr_mode": False,
    }


def build_blocks(page: Page, loopback: bool = True) -> gr.Blocks:
    """
    The page.

    Args:
        page ([`Page`]): What it shows and asks.
        loopback (`bool`, *optional*, defaults to `True`): Whether only this computer can reach it, which the header says.
    """
    visits = page.visits
    block = partial(gr.HTML, apply_default_css=False)

    def visit_of(request: gr.Request) -> Visit | None:
        """The visit, if it has a verdict."""
        visit = visits.of(request.session_hash)
        return visit if visit.result is not None else None

    def take(upload: str | None, request: gr.Request) -> dict:
        if not upload:
            return {note: gr.skip()}
        try:
            visits.of(request.session_hash).take(Path(upload), page.limits)
        except ClipRefusedError as error:
            # What was there before stays, and its verdict with it.
            return {file: None, camera: None, microphone: None, note: notice("error", str(error))}
        return {
            file: None,
            camera: None,
            microphone: None,
            note: notice("busy", BUSY),
            result: gr.Column(visible=False),
        }

    def judge(request: gr.Request) -> dict:
        visit = visits.of(request.session_hash)
        if visit.clip is None or visit.result is not None:
            return {verdict: gr.skip()}
        try:
            page.judge(visit)
            shown = page.player(visit)
        except ClipRefusedError as error:
            return {note: notice("error", str(error))}
        return {
            note: "",
            result: gr.Column(visible=True),
            verdict: verdict_view(visit, page.detector),
            player: shown,
            closeup: "",
            chat: [],
            report: "",
        }

    def look_closer(request: gr.Request, progress: gr.Progress = gr.Progress()) -> dict:  # noqa: B008 (Gradio's way)
        visit = visit_of(request)
        if visit is None:
            return {closeup: notice("error", ENDED)}
        try:
            page.look_closer(visit, lambda done, total: progress((done, total), desc="Covering parts"))
            return {closeup: closeup_view(visit.attribution), player: page.player(visit)}
        except ValueError as error:  # AttributionError and MediaError among them
            return {closeup: notice("error", str(error).replace(str(visit.clip), visit.name))}

    def ask(text: str, request: gr.Request) -> Iterator[dict]:
        visit = visit_of(request)
        if not text.strip():
            yield {question: gr.skip()}
            return
        if visit is None:
            yield {chat: [{"role": "assistant", "content": ENDED}]}
            return
        for messages in page.ask(visit, text.strip()):
            yield {chat: messages, question: ""}

    def forget(request: gr.Request) -> None:
        visit = visit_of(request)
        if visit is not None:
            page.forget(visit)

    def write_report(kind: str, request: gr.Request) -> str:
        visit = visit_of(request)
        if visit is None:
            return notice("error", ENDED)
        path = page.report(visit, kind)
        name = f"{Path(visit.name).stem}-report.{kind}"
        size = f"{max(1, round(path.stat().st_size / 1000))} kB"
        return render(
            "report.html", address=address(visit, path.name), name=name, kind=kind.upper(), size=size
        )

    def end(request: gr.Request) -> None:
        visits.end(request.session_hash)

    with gr.Blocks(
        title="Deepfake check", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True
    ) as blocks:
        block(render("header.html", model=model_name(page.detector), loopback=loopback))
        with gr.Tabs(elem_id="av-intake"):
            with gr.Tab("File"):
                file = gr.File(label=f"Video or sound, {page.limits}", height=132, elem_id="av-file")
            with gr.Tab("Camera"):
                camera = gr.Video(
                    label=f"Record yourself with sound, {page.limits}",
                    sources=["webcam"],
                    webcam_options=gr.WebcamOptions(mirror=False),
                    include_audio=True,
                    height=320,
                    elem_id="av-camera",
                )
            with gr.Tab("Microphone"):
                microphone = gr.Audio(
                    label=f"Record sound, {page.limits}",
                    sources=["microphone"],
                    type="filepath",
                    elem_id="av-microphone",
                )
        note = block(elem_id="av-note")
        with gr.Column(visible=False, elem_id="av-result") as result:
            verdict = block(elem_id="av-verdict")
            with gr.Row(elem_classes="av-columns"):
                with gr.Column(scale=7, min_width=320):
                    player = block(elem_id="av-player")
                with gr.Column(scale=5, min_width=300):
                    with gr.Column(elem_classes="av-side"):
                        block("<h3>Ask about this clip</h3>", elem_classes="av-text")
                        chat = gr.Chatbot(
                            elem_id="av-chat", height=360, show_label=False, buttons=[], sanitize_html=True
                        )
                        question = gr.Textbox(
                            elem_id="av-question",
                            placeholder="Your question",
                            show_label=False,
                            submit_btn="Ask",
                            max_length=2000,
                        )
                        with gr.Row():
                            suggested = [gr.Button(text, size="sm", min_width=60) for text in QUESTIONS]
                    with gr.Column(elem_classes="av-side"):
                        block(render("report_about.html"), elem_classes="av-text")
                        with gr.Row():
                            kinds = {
                                kind: gr.Button(f"{kind.upper()} report", elem_id=f"av-{kind}", size="md")
                                for kind in ("pdf", "html")
                            }
                        report = block(elem_id="av-report", elem_classes="av-report")
            with gr.Column(elem_classes="av-panel"):
                block(render("closeup_about.html"), elem_classes="av-text")
                closer = gr.Button("Mark what the detector reacts to", elem_id="av-closer", size="md")
                closeup = block(elem_id="av-closeup")

        shown = [note, result, verdict, player, closeup, chat, report]
        for source, event in (
            (file, file.upload),
            (camera, camera.stop_recording),
            (microphone, microphone.stop_recording),
        ):
            taken = event(
                take, source, [file, camera, microphone, note, result], show_progress="hidden", **QUICK
            )
            judged = taken.then(judge, None, shown, show_progress="minimal", show_progress_on=note, **MODEL)
            judged.failure(lambda: notice("error", FAILED), None, note, **QUICK)
        closer.click(look_closer, None, [closeup, player], show_progress_on=closeup, **MODEL)
        question.submit(ask, question, [chat, question], show_progress="hidden", **MODEL)
        for button, text in zip(suggested, QUESTIONS, strict=True):
            button.click(ask, gr.State(text), [chat, question], show_progress="hidden", **MODEL)
        chat.clear(forget, None, None, **QUICK)
        for kind, button in kinds.items():
            button.click(write_report, gr.State(kind), report, **QUICK).then(
                None, js="() => window.avPage.download()"
            )
        blocks.unload(end)
    blocks.queue(max_size=64)
    return blocks

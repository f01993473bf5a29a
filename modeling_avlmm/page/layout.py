"""The layout of the page in Gradio: components, their places, and the handlers of their events."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from .actions import Page
from .handlers import Components, Handlers
from .session import Limits
from .views import asset, model_name, render

QUESTIONS = ("Why this verdict?", "Which seconds are suspicious?", "How sure is this verdict?")
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
MODEL = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
"""Options of events that call a network: one call at a time, whoever asks. Others wait in line."""
QUICK = {"concurrency_limit": 8, "api_visibility": "private"}

_html = partial(gr.HTML, apply_default_css=False)


def look(limits: Limits) -> dict[str, Any]:
    """Return the looks of the page, as options of `gradio.mount_gradio_app`. Fonts and scripts are those of this computer."""
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
        "head": f"<script>{asset('boxes.js')}{script}</script>",
        "footer_links": [],
        "run_history": False,
        "pwa": False,
        "ssr_mode": False,
    }


def build_blocks(page: Page, loopback: bool = True) -> gr.Blocks:
    """
    Build the page.

    Args:
        page ([`Page`]): The detectors, and what they are asked.
        loopback (`bool`, *optional*, defaults to `True`): Only this computer can reach the page, and the header says so.
    """
    with gr.Blocks(
        title="Deepfake check", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True
    ) as blocks:
        _html(render("header.html", model=model_name(page.detector), loopback=loopback))
        intake = _intake(page.limits)
        note = _html(elem_id="av-note")
        with gr.Column(visible=False, elem_id="av-result") as result:
            verdict = _html(elem_id="av-verdict")
            with gr.Row(elem_classes="av-columns"):
                with gr.Column(scale=7, min_width=320):
                    player = _html(elem_id="av-player")
                with gr.Column(scale=5, min_width=300):
                    side = {**_conversation(), **_reports()}
            closeup = _closeup()
        places = {"note": note, "result": result, "verdict": verdict, "player": player}
        components = Components(**intake, **places, **side, **closeup)
        handlers = Handlers(page, components)
        _connect(components, handlers)
        blocks.unload(handlers.end)
    blocks.queue(max_size=64)
    return blocks


def _intake(limits: Limits) -> dict[str, Any]:
    """Place the three ways to give a clip."""
    with gr.Tabs(elem_id="av-intake"):
        with gr.Tab("File"):
            file = gr.File(label=f"Video or sound, {limits}", height=132, elem_id="av-file")
        with gr.Tab("Camera"):
            camera = gr.Video(
                label=f"Record yourself with sound, {limits}",
                sources=["webcam"],
                webcam_options=gr.WebcamOptions(mirror=False),
                include_audio=True,
                height=320,
                elem_id="av-camera",
            )
        with gr.Tab("Microphone"):
            microphone = gr.Audio(
                label=f"Record sound, {limits}",
                sources=["microphone"],
                type="filepath",
                elem_id="av-microphone",
            )
    return {"file": file, "camera": camera, "microphone": microphone}


def _conversation() -> dict[str, Any]:
    with gr.Column(elem_classes="av-side"):
        _html("<h3>Ask about this clip</h3>", elem_classes="av-text")
        chat = gr.Chatbot(elem_id="av-chat", height=360, show_label=False, buttons=[], sanitize_html=True)
        question = gr.Textbox(
            elem_id="av-question",
            placeholder="Your question",
            show_label=False,
            submit_btn="Ask",
            max_length=2000,
        )
        with gr.Row():
            suggested = [gr.Button(text, size="sm", min_width=60) for text in QUESTIONS]
    return {"chat": chat, "question": question, "suggested": suggested}


def _reports() -> dict[str, Any]:
    with gr.Column(elem_classes="av-side"):
        _html(render("report_about.html"), elem_classes="av-text")
        with gr.Row():
            kinds = {
                kind: gr.Button(f"{kind.upper()} report", elem_id=f"av-{kind}", size="md")
                for kind in ("pdf", "html")
            }
        report = _html(elem_id="av-report", elem_classes="av-report")
    return {"kinds": kinds, "report": report}


def _closeup() -> dict[str, Any]:
    with gr.Column(elem_classes="av-panel"):
        _html(render("closeup_about.html"), elem_classes="av-text")
        closer = gr.Button("Mark what the detector reacts to", elem_id="av-closer", size="md")
        closeup = _html(elem_id="av-closeup")
    return {"closer": closer, "closeup": closeup}


def _connect(at: Components, handlers: Handlers) -> None:
    """Connect each event with its handler and the components that it fills."""
    given = [at.file, at.camera, at.microphone, at.note, at.result]
    shown = [at.note, at.result, at.verdict, at.player, at.closeup, at.chat, at.report]
    for source, event in (
        (at.file, at.file.upload),
        (at.camera, at.camera.stop_recording),
        (at.microphone, at.microphone.stop_recording),
    ):
        taken = event(handlers.take, source, given, show_progress="hidden", **QUICK)
        judged = taken.then(
            handlers.judge, None, shown, show_progress="minimal", show_progress_on=at.note, **MODEL
        )
        judged.failure(handlers.failed, None, at.note, **QUICK)
    closeup = [at.closeup, at.player]
    at.closer.click(handlers.look_closer, None, closeup, show_progress_on=at.closeup, **MODEL)
    dialogue = {"outputs": [at.chat, at.question], "show_progress": "hidden", **MODEL}
    at.question.submit(handlers.ask, at.question, **dialogue)
    for button, text in zip(at.suggested, QUESTIONS, strict=True):
        button.click(handlers.ask, gr.State(text), **dialogue)
    at.chat.clear(handlers.forget, None, None, **QUICK)
    for kind, button in at.kinds.items():
        written = button.click(handlers.write_report, gr.State(kind), at.report, **QUICK)
        written.then(None, js="() => window.avPage.download()")

"""`python -m modeling_avlmm ui`: a page in the browser that looks at one recording and talks about it."""

import argparse
import os
import threading
import webbrowser
from functools import partial

from ..inference.quiet import quiet_libraries
from .console import WRONG_USAGE, UsageError, guarded, tell
from .options import add_default_model, add_device, add_gate, add_reading, model_or_default, reading

HELP = "a page in the browser: verdict, timeline, conversation, report"
DESCRIPTION = (
    "Open a page in the browser: drop a video or sound file, or record one, for a verdict with a timeline, a conversation "
    "about it and a report to keep. Nothing leaves this computer. Needs `pip install 'modeling-avlmm[ui]'`."
)
MISSING = "The page needs Gradio: pip install 'modeling-avlmm[ui]' (or pip install gradio)."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_default_model(parser)
    add_gate(parser, "clips", band=False)
    parser.add_argument(
        "--analyst",
        metavar="MODEL",
        help="detector of an `analysis` stage, which answers questions [--model if it is one, or else measured facts]",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at [%(default)s]")
    parser.add_argument("--port", type=_port, default=7860, help="port, 0 for a free one [%(default)s]")
    parser.add_argument(
        "--max-mb", type=float, default=200.0, metavar="MB", help="largest file accepted [%(default)g]"
    )
    parser.add_argument(
        "--max-seconds",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="longest clip accepted [%(default)g]",
    )
    add_device(parser)
    add_reading(parser)
    parser.add_argument(
        "--open",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="open the page in the browser [--open]",
    )
    parser.add_argument("--no-browser", dest="open", action="store_false", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Run the command until it is stopped, and return its exit status."""
    return guarded(partial(_start, options), ValueError)


def _start(options: argparse.Namespace) -> int:
    # Gradio's own switch, set before it is imported: it would tell its makers that it was started.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise UsageError(MISSING) from error
    with reading(options):
        return _serve(options)


def _serve(options: argparse.Namespace) -> int:
    from ..dialogue.generation import can_write
    from ..inference.loading import load_detector
    from ..page.actions import Page
    from ..page.server import PageServer, is_loopback
    from ..page.session import Limits

    limits = Limits(options.max_mb, options.max_seconds)
    quiet_libraries()
    detector, _ = load_detector(model_or_default(options.model), options.device, gate=options.gate)
    writer = detector if can_write(detector) and detector.model.config.analysis else None
    if options.analyst:
        writer, _ = load_detector(options.analyst, options.device)
        if not can_write(writer):
            raise ValueError(
                f"{options.analyst} cannot write text: give --analyst a model of an `analysis` stage."
            )
    if not is_loopback(options.host):
        tell(
            f"WARNING: listening at {options.host}: anyone who can reach this computer over the network can use the "
            "page, without a password, and what they send travels unencrypted."
        )
    page = Page(detector, limits, writer)
    try:
        server = PageServer(page, options.host, options.port)
    except OSError as error:
        tell(f"cannot listen at {options.host}:{options.port}: {error}. Give another --port.")
        page.visits.close()
        return WRONG_USAGE
    print(f"avlmm: the page is at {server.address} (Ctrl+C ends it)", flush=True)
    if options.open:
        threading.Timer(1.0, webbrowser.open, (server.address,)).start()
    server.run()
    return 0


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65_535:
        raise argparse.ArgumentTypeError(f"must be from 0 to 65535, not {value}")
    return value

"""The page as a Hugging Face Space: for everybody, in a frame of the Hub's website."""

from __future__ import annotations

import os

from ..inference.loading import load_detector
from ..inference.reader_process import ReaderLimits, reader_processes
from .actions import Page
from .server import PageServer
from .session import Limits

HUB = "https://huggingface.co"
"""The website that shows a Space in a frame."""
PORT = 7860
"""The port that the Hub asks."""


def serve(detector: str, limits: Limits | None = None) -> None:
    """
    Serve the page for a detector until the process is ended.

    It listens where Gradio would: at `GRADIO_SERVER_NAME` (all addresses) and `GRADIO_SERVER_PORT` (7860). Files are decoded in
    processes of their own.

    Args:
        detector (`str`): Folder of a detector, or its repository on the Hub.
        limits ([`Limits`], *optional*): Largest file and longest clip. Defaults to 100 MB and 2 minutes.
    """
    limits = limits or Limits(max_mb=100.0, max_seconds=120.0)
    found, _ = load_detector(detector)
    if os.path.isdir(detector):  # where it lies on the server is nobody's business
        found.model.config.name_or_path = os.path.basename(detector)
    host = os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0")
    port = int(os.environ.get("GRADIO_SERVER_PORT", PORT))
    with reader_processes(ReaderLimits()):
        server = PageServer(Page(found, limits), host, port, framed_by=HUB)
        print(f"The page is at {server.address}", flush=True)
        server.run()

"""The page in tests: an upload, a server at a free port, and a tab of a browser: `from page_factory import serving, opened`."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modeling_avlmm.page.actions import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def upload(folder: Path, source: Path, name: str | None = None) -> Path:
    """Put a file where Gradio puts uploads: in a folder named after its content."""
    path = folder / "0123abcd" / (name or source.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
    return path


@contextmanager
def serving(page: Page) -> Iterator:
    """Serve a page at a free port. In the end its files are gone."""
    pytest.importorskip("gradio", reason="the page needs the `ui` extra")
    from modeling_avlmm.page.server import PageServer

    made = PageServer(page, port=0)
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join(20)
    assert not thread.is_alive() and not page.visits.root.exists()


@contextmanager
def opened(browser, server, **options) -> Iterator:
    """Open the page in a new session. It must not ask another machine for anything, and no script may throw."""
    context = browser.new_context(
        **{"accept_downloads": True, "viewport": {"width": 1280, "height": 900}, **options}
    )
    page = context.new_page()
    asked, thrown = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: thrown.append(str(error)))
    page.goto(server.address)
    page.wait_for_selector("#av-file input[type=file]", state="attached", timeout=20_000)
    try:
        yield page
    finally:
        context.close()
    outside = [url for url in asked if not url.startswith((server.address, "data:", "blob:"))]
    assert asked and not outside and not thrown


def give(page, path: Path) -> None:
    """Give the page a file."""
    page.set_input_files("#av-file input[type=file]", str(path))


def verdict_on(page, name: str, seconds: float = 30.0) -> None:
    """Wait until the page shows the verdict on a file."""
    page.wait_for_selector(f"#av-verdict .av-kicker:has-text('{name}')", timeout=1000 * seconds)


def settled(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Return whether a condition becomes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        threading.Event().wait(0.05)
    return True

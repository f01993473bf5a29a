"""The server of the page: it serves this computer alone and asks no other machine for anything."""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from .actions import Page
from .layout import build_blocks, look
from .session import Visits
from .uploads import OwnRequestsOnly

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

FRAMED_BY = "frame-ancestors {}"
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",  # Gradio's page starts with scripts of its own
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        FRAMED_BY.format("'none'"),
    )
)
"""A browser loads nothing for the page from another machine, whatever Gradio's template or an answer asks for."""
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
}
OUTSIDE = re.compile(
    rb"""<script\b[^>]*\bsrc\s*=\s*["']?(?:https?:)?//[^>]*>\s*</script>|<(?:link|meta)\b[^>]*(?:https?:)?//[^>]*>""",
    re.IGNORECASE,
)


class KeepInside:
    """
    ASGI middleware that removes addresses of other machines from the page and forbids the browser to follow any.

    Gradio's template names a script and fonts on other machines. The policy stops them in the browser. Removing them also
    keeps its console empty and saves it from looking up their names.

    Args:
        app: The application.
        framed_by (`str`, *optional*): Address of the only website that may show the page in a frame. By default none may.
    """

    def __init__(self, app: Any, framed_by: str | None = None):
        self.app = app
        self.headers = HEADERS
        if framed_by is not None:
            policy = POLICY.replace(FRAMED_BY.format("'none'"), FRAMED_BY.format(framed_by))
            self.headers = {**HEADERS, b"content-security-policy": policy.encode()}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start: MutableMapping[str, Any] | None = None
        held = b""

        async def changed(message: MutableMapping[str, Any]) -> None:
            nonlocal start, held
            if message["type"] == "http.response.start":
                headers = [(name, value) for name, value in message["headers"] if name.lower() not in HEADERS]
                message["headers"] = [*headers, *self.headers.items()]
                kind = dict(headers).get(b"content-type", b"")
                if not kind.startswith(b"text/html"):
                    await send(message)
                    return
                start = message  # held back: its length is known only at the end
                return
            if start is None:
                await send(message)
                return
            held += message.get("body", b"")
            if message.get("more_body"):
                return
            body = OUTSIDE.sub(b"", held)
            start["headers"] = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
            start["headers"].append((b"content-length", str(len(body)).encode()))
            await send(start)
            await send({"type": "http.response.body", "body": body})

        if scope["method"] == "GET":
            # A compressed page could not be searched.
            scope["headers"] = [pair for pair in scope["headers"] if pair[0].lower() != b"accept-encoding"]
        await self.app(scope, receive, changed)


def is_loopback(host: str) -> bool:
    """Return whether only this computer can reach a server that listens at `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def make_app(
    blocks: gr.Blocks, visits: Visits, host: str, framed_by: str | None = None, **options: Any
) -> FastAPI:
    """
    Build the web application: the Gradio page at `/`, and the files of a visit at `/clip/TOKEN/NAME`.

    Args:
        blocks (`gr.Blocks`): The page.
        visits ([`Visits`]): The visits whose files are served.
        host (`str`):
            Address that the server listens at. With a loopback address, requests for other host names are refused, so that
            a website cannot reach the page through a name that it points here.
        framed_by (`str`, *optional*): Address of the only website that may show the page in a frame.
        options: Options of `gradio.mount_gradio_app`.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/clip/{token}/{name}")
    def file_of_visit(token: str, name: str, download: str | None = None) -> FileResponse:
        visit = visits.by_token(token)
        path = None if visit is None else visit.folder / Path(name).name
        if path is None or not path.is_file():
            raise HTTPException(404, "There is no such file: its session has ended.")
        return FileResponse(
            path, filename=download, content_disposition_type="attachment" if download else "inline"
        )

    app = gr.mount_gradio_app(app, blocks, path="/", server_name=host, **options)
    blocks.has_launched = True  # otherwise Gradio leaves out its own check of file names
    app.add_middleware(OwnRequestsOnly, uploads=visits.uploads)
    app.add_middleware(KeepInside, framed_by=framed_by)
    if is_loopback(host):
        app.add_middleware(
            TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]", "[", host]
        )
    return app


class PageServer:
    """
    A page that listens as soon as it is made. `run` serves it until `stop`, and deletes every file at the end.

    Args:
        page ([`Page`]): The page to serve.
        host (`str`), port (`int`): Where it listens; port 0 takes a free one.
        framed_by (`str`, *optional*): Address of the only website that may show the page in a frame. By default none may.

    Raises:
        OSError: if the address is in use or cannot be listened at.
    """

    def __init__(self, page: Page, host: str = "127.0.0.1", port: int = 7860, framed_by: str | None = None):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.page = page
        self._socket = socket.create_server((host.strip("[]"), port), family=family)
        self.port = self._socket.getsockname()[1]
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        self.address = f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}"
        # The folder of uploads. Gradio reads this name whenever it handles a file; there is no other way to set it.
        self._folder_before = os.environ.get("GRADIO_TEMP_DIR")
        os.environ["GRADIO_TEMP_DIR"] = str(page.visits.root)
        blocks = build_blocks(page, is_loopback(host))
        app = make_app(
            blocks, page.visits, host, framed_by, max_file_size=page.limits.max_bytes, **look(page.limits)
        )
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))

    def run(self) -> None:
        """Serve until `stop`, Ctrl+C or SIGTERM, then delete all files of all visits."""
        try:
            if threading.current_thread() is threading.main_thread():
                # uvicorn raises a signal again once it has shut down; SIGTERM would then end the process at once
                signal.signal(signal.SIGTERM, signal.default_int_handler)
            self._server.run(sockets=[self._socket])
        except KeyboardInterrupt:  # raised again by uvicorn once it has shut down in good order
            return
        finally:
            self.page.visits.close()
            if self._folder_before is None:
                os.environ.pop("GRADIO_TEMP_DIR", None)
            else:
                os.environ["GRADIO_TEMP_DIR"] = self._folder_before

    def stop(self) -> None:
        """Make `run` return."""
        self._server.should_exit = True

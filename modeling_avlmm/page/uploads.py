"""The gate for what a browser sends to the page: requests of the page itself, and files that it uploaded itself."""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

from starlette.responses import PlainTextResponse

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]

MOST_BYTES = 1_000_000
"""Longest body of a request that is not an upload; our own choice."""
KEPT_SECONDS = 3600
"""Time that an upload which nobody takes is kept, at least until the next upload; our own choice."""
UPLOAD = re.compile(r"/upload/?$")
FOREIGN = "This request comes from another website."
NOT_UPLOADED = "Only a file that was uploaded here can be opened."


class Uploads:
    """
    The uploads that wait to be taken, each at a secret place of its own.

    Gradio names an upload's folder after its content, so that two people with one file share it. Here each upload gets a
    second name in a folder with a random name, which only its sender is told. That name opens the file, once.

    Args:
        root (`Path`): Folder of uploads and visits.
    """

    def __init__(self, root: Path):
        self.root = root
        self._waiting: dict[str, float] = {}  # and when they came
        self._arriving = 0
        self._shared: set[Path] = set()  # Gradio's own names of files that were given a second one
        self._lock = threading.Lock()

    def __contains__(self, path: str) -> bool:
        return path in self._waiting

    def begin(self) -> None:
        """Note that an upload is on its way: until it has a name of its own, no shared name is removed."""
        with self._lock:
            self._arriving += 1
            for path, came in list(self._waiting.items()):
                if time.monotonic() - came > KEPT_SECONDS:  # nobody took it
                    del self._waiting[path]
                    remove(Path(path))

    def end(self, paths: list[str]) -> list[str]:
        """Note that an upload ended, and return the secret paths of its files."""
        with self._lock:
            own = [self._own(Path(path)) for path in paths]
            self._arriving -= 1
            if not self._arriving:
                for path in self._shared:
                    remove(path)
                self._shared.clear()
        return own

    def _own(self, shared: Path) -> str:
        own = self.root / f"upload-{secrets.token_urlsafe(24)}" / shared.name
        own.parent.mkdir(mode=0o700)
        os.link(shared, own)
        self._shared.add(shared)
        self._waiting[str(own)] = time.monotonic()
        return str(own)

    def spend(self, path: Path) -> bool:
        """Return whether a path is an upload that was not taken yet; from now on it is taken."""
        with self._lock:
            known = self._waiting.pop(str(path), None) is not None
        return known and path.is_file() and not path.is_symlink()


def remove(path: Path) -> None:
    """Delete a file, and its folder if that is empty then."""
    path.unlink(missing_ok=True)
    try:
        path.parent.rmdir()
    except OSError:  # gone already, or not empty
        return


class OwnRequestsOnly:
    """
    ASGI middleware that lets through what the page itself sends.

    A request that changes something is refused if another website made the browser send it (`Origin`,
    `Sec-Fetch-Site`), and if it names a file that is not a waiting upload. Gradio's own check of file names is not made
    for an app that is mounted.

    Args:
        app: The application.
        uploads ([`Uploads`]): The waiting uploads.
    """

    def __init__(self, app: Any, uploads: Uploads):
        self.app, self.uploads = app, uploads

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # the page uses none
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        if is_foreign(scope):
            await PlainTextResponse(FOREIGN, 403)(scope, receive, send)
        elif UPLOAD.search(scope["path"]):
            await self._upload(scope, receive, send)
        else:
            await self._checked(scope, receive, send)

    async def _upload(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass an upload on, and put secret paths in the place of those that Gradio answers."""
        start: Message = {}
        body = b""

        async def held(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
            else:
                body += message.get("body", b"")

        self.uploads.begin()
        paths: list[str] = []
        try:
            await self.app(scope, receive, held)
            paths = json.loads(body) if start["status"] == 200 else []
        finally:
            own = self.uploads.end(paths)
        if start["status"] == 200:
            body = json.dumps(own).encode()
        headers = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
        start["headers"] = [*headers, (b"content-length", str(len(body)).encode())]
        await send(start)
        await send({"type": "http.response.body", "body": body})

    async def _checked(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on if every file that it names is a waiting upload."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MOST_BYTES:
                await PlainTextResponse("This request is too long.", 413)(scope, receive, send)
                return
        try:
            content = json.loads(body) if body else None
            paths = list(files_in(content))
        except (ValueError, RecursionError):
            await PlainTextResponse("This request is not JSON.", 400)(scope, receive, send)
            return
        if any(path not in self.uploads for path in paths):
            await PlainTextResponse(NOT_UPLOADED, 403)(scope, receive, send)
            return
        # Written again, so that what was checked is what is used.
        sent = json.dumps(content).encode() if body else b""
        headers = [pair for pair in scope["headers"] if pair[0].lower() != b"content-length"]
        scope["headers"] = [*headers, (b"content-length", str(len(sent)).encode())]
        told = False

        async def again() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": sent, "more_body": False}

        await self.app(scope, again, send)


def is_foreign(scope: Message) -> bool:
    """Return whether the browser says that another website made it send a request."""
    headers = dict(scope["headers"])
    if headers.get(b"sec-fetch-site", b"none") not in (b"same-origin", b"none"):
        return True
    origin = headers.get(b"origin")
    if origin is None:  # not sent by a browser, or by one that sends it to other origins only
        return False
    return urllib.parse.urlsplit(origin.decode("latin-1")).netloc != headers.get(b"host", b"").decode(
        "latin-1"
    )


def files_in(content: Any) -> Iterator[Any]:
    """Yield every file that the JSON of a request names: Gradio opens `path` of any object that has one."""
    if isinstance(content, dict):
        if "path" in content:
            yield content["path"] if isinstance(content["path"], str) else ""
        for value in content.values():
            yield from files_in(value)
    elif isinstance(content, list):
        for value in content:
            yield from files_in(value)

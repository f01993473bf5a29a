"""Links: what they are called in messages, and how they are downloaded within limits."""

from __future__ import annotations

import base64
import http.client
import ipaddress
import re
import socket
import string
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from typing import Any

from .media_errors import (
    MediaError,
    MediaNotFoundError,
    MediaTooLargeError,
    UnreadableMediaError,
    UnsupportedSourceError,
)

USER_AGENT = "modeling_avlmm (audio-visual deepfake detection)"  # some sites refuse Python's own
MIN_BYTES_PER_SECOND = 16 * 1024  # after `timeout`, a slower download is given up; our own choice
_PUBLIC = "Links into private networks are not followed here: download it and give the file"
_HTTP_ONLY = "Only http and https links are followed"


def is_link(source: Any) -> bool:
    """Return True for a string with a scheme, such as `https://...`."""
    return isinstance(source, str) and "://" in source


def link_name(link: str) -> str:
    """Return a link's name in messages: without password and query, which may be secrets."""
    try:
        parts = urllib.parse.urlsplit(link)
    except ValueError:  # such as http://[::1
        return re.sub(r"//[^/]*@", "//", re.split(r"[?#]", link)[0])
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def check_link(link: str, name: str) -> None:
    """Raise an [`UnsupportedSourceError`] for what is no http or https link."""
    try:
        scheme = urllib.parse.urlsplit(link).scheme.lower()
    except ValueError as error:
        raise UnsupportedSourceError(name, f"is not a valid link ({error})", "Check the link") from error
    if scheme not in ("http", "https"):
        raise UnsupportedSourceError(name, "is not an http or https link", "Download it and give a path")


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            reason = f"redirects to {link_name(newurl)}"
            raise UnsupportedSourceError(link_name(req.full_url), reason, _HTTP_ONLY)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def too_large(name: str, size: str, limit: int) -> MediaTooLargeError:
    """Return the error about an input of more than `limit` bytes."""
    reason = f"has {size} bytes, above the limit of {limit}"
    return MediaTooLargeError(name, reason, "Raise max_bytes if this is what you want")


def _request(link: str) -> urllib.request.Request:
    """Return the request for a link as people write it: with letters outside ASCII, and with `user:password@`."""
    parts = urllib.parse.urlsplit(link)
    user, _, host = parts.netloc.rpartition("@")
    host = host.encode("idna").decode() if not host.isascii() else host
    path, query = (urllib.parse.quote(text, safe=string.punctuation) for text in (parts.path, parts.query))
    request = urllib.request.Request(urllib.parse.urlunsplit((parts.scheme, host, path, query, "")))
    request.add_header("User-Agent", USER_AGENT)
    if user:
        # Not for the places that the answer leads to.
        secret = base64.b64encode(urllib.parse.unquote_to_bytes(user)).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    return request


class _Connections:
    """
    The connections of one download: cut when the answer's headers are late, however slowly they drip.

    Args:
        seconds (`float`): Time until the headers must be there, redirects included.
        private (`bool`): Connect to addresses that are not public, too.
    """

    def __init__(self, name: str, seconds: float, private: bool):
        self.name, self.private, self.late = name, private, False
        self._open: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> _Connections:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def arrived(self) -> None:
        """Note that the headers are there."""
        self._timer.cancel()

    def _cut(self) -> None:
        self.late = True
        for connection in self._open:
            with suppress(OSError):  # closed already
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def add(self, connection: socket.socket) -> None:
        """Take note of a connection, or refuse it. What a name leads to is seen here, where it can't change any more."""
        address = ipaddress.ip_address(connection.getpeername()[0].partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        if not self.private and not address.is_global:
            connection.close()
            raise UnsupportedSourceError(
                self.name, f"leads to {address}, which is not a public address", _PUBLIC
            )
        self._open.append(connection)

    def handlers(self) -> list[urllib.request.BaseHandler]:
        """Return the handlers of an opener: http and https, without ftp, files and data."""
        watch = self

        class HTTPConnection(http.client.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                watch.add(self.sock)

        class HTTPSConnection(http.client.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                watch.add(self.sock)

        class HTTPHandler(urllib.request.HTTPHandler):
            def http_open(self, request: urllib.request.Request) -> Any:
                return self.do_open(HTTPConnection, request)

        class HTTPSHandler(urllib.request.HTTPSHandler):
            def https_open(self, request: urllib.request.Request) -> Any:
                return self.do_open(HTTPSConnection, request)

        return [HTTPHandler(), HTTPSHandler(), *([urllib.request.ProxyHandler()] if self.private else [])]


def download(url: str, name: str, target: Any, max_bytes: int, timeout: float, private: bool = True) -> None:
    """
    Write what a link leads to into the file `target`.

    Args:
        url (`str`): The link.
        name (`str`): Its name in messages.
        target: A binary file.
        max_bytes (`int`): Limit for its size.
        timeout (`float`): Longest wait for an answer, and for each piece of it, in seconds.
        private (`bool`, *optional*, defaults to `True`): Connect to addresses that are not public, too.

    Raises:
        MediaError: For everything that goes wrong, and for what exceeds a limit.
    """
    opener = urllib.request.OpenerDirector()
    connections = _Connections(name, timeout, private)
    for handler in (
        *connections.handlers(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _HttpOnly(),
    ):
        opener.add_handler(handler)
    began, received = time.monotonic(), 0
    try:
        with connections, opener.open(_request(url), timeout=timeout) as response:
            connections.arrived()
            if connections.late:  # cut headers read like a short answer
                raise TimeoutError
            length = response.headers.get("Content-Length", "")
            if length.isdigit() and int(length) > max_bytes:
                raise too_large(name, length, max_bytes)
            while chunk := response.read1(1 << 16):
                received += len(chunk)
                if received > max_bytes:
                    raise too_large(name, f"more than {max_bytes}", max_bytes)
                if time.monotonic() - began > timeout + received / MIN_BYTES_PER_SECOND:
                    raise TimeoutError(f"only {received} bytes in {time.monotonic() - began:.0f} s")
                target.write(chunk)
            if length.isdigit() and received < int(length):
                reason = f"stopped after {received} of {length} bytes"
                raise UnreadableMediaError(name, reason, "Download it again")
    except MediaError:
        raise
    except urllib.error.HTTPError as error:
        if error.code in (301, 302, 303, 307, 308):
            circle = str(error.reason).startswith(urllib.request.HTTPRedirectHandler.inf_msg)
            reason = "redirects in a circle" if circle else f"redirects badly ({error.reason})"
            advice = "Check the link" if circle else _HTTP_ONLY
            raise UnsupportedSourceError(name, reason, advice) from error
        reason = f"the server answers {error.code} {error.reason}"
        if error.code in (404, 410):
            raise MediaNotFoundError(name, reason, "Check the link") from error
        raise UnreadableMediaError(name, reason, "Check the link and your rights to it") from error
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
        told = f"no answer within {timeout:g} s" if connections.late else error
        reason = f"cannot be downloaded ({told})"
        raise UnreadableMediaError(name, reason, "Check the link and the network") from error

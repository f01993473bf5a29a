"""The page under attack: files that were not uploaded, requests from other websites, many people with one file, SIGTERM."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from media_factory import make_clip
from page_factory import serving, upload
from transformers import pipeline

from modeling_avlmm.media_errors import MediaNotFoundError
from modeling_avlmm.page.actions import Page
from modeling_avlmm.page.session import ClipRefusedError, Limits, Visits
from modeling_avlmm.page.uploads import NOT_UPLOADED, Uploads, files_in

TAKE, JUDGE = 0, 1
"""Numbers of the events that take a file and that judge it."""
SERVE = """
from pathlib import Path
from types import SimpleNamespace
from modeling_avlmm.page.actions import Page
from modeling_avlmm.page.server import PageServer
config = SimpleNamespace(name_or_path="none", model_type="none")
server = PageServer(Page(SimpleNamespace(model=SimpleNamespace(config=config))), port=0)
print(server.address, flush=True)
server.run()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A page that takes files; no test here asks its detector."""
    config = SimpleNamespace(name_or_path="none", model_type="none")
    detector = SimpleNamespace(model=SimpleNamespace(config=config))
    with serving(Page(detector, Limits(2, 20), visits=Visits(tmp_path_factory.mktemp("page")))) as made:
        yield made


def join(server, path, session="tab", event=TAKE, **headers):
    file = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
    body = {"data": [file] if event == TAKE else [], "fn_index": event, "session_hash": session}
    return httpx.post(f"{server.address}/gradio_api/queue/join", json=body, headers=headers)


def send(server, path, **headers):
    with open(path, "rb") as file:
        return httpx.post(f"{server.address}/gradio_api/upload", files={"files": file}, headers=headers)


def finish(server, session):
    """Wait for the end of an event, and return its output."""
    address = f"{server.address}/gradio_api/queue/data?session_hash={session}"
    with httpx.stream("GET", address, timeout=60) as answer:
        for line in answer.iter_lines():
            event = json.loads(line[6:]) if line.startswith("data: ") else {}
            if event.get("msg") == "process_completed":
                return event
    raise AssertionError("the event did not end")


def test_only_this_visits_own_upload_is_opened(server, clips, tmp_path):
    (uploaded,) = send(server, clips["short"]).json()
    secret = make_clip(tmp_path / "secret.mp4", 1)
    link = server.page.visits.root / "link.mp4"
    link.symlink_to(secret)
    folder, name = os.path.split(uploaded)
    around = f"{folder}/../{os.path.basename(folder)}/{name}"
    for path in (
        secret,
        "/etc/passwd",
        link,
        around,
        f"{folder}/../../{secret}",
        folder,
        "http://127.0.0.1:9/x",
        "",
    ):
        answer = join(server, path)
        assert (answer.status_code, answer.text) == (403, NOT_UPLOADED), path
    for body in ({"data": [[{"a": {"path": str(secret)}}]], "fn_index": TAKE}, [{"path": 3}]):
        for where in ("queue/join", "run/take", "call/take", "component_server"):
            assert httpx.post(f"{server.address}/gradio_api/{where}", json=body).status_code == 403
    assert httpx.post(f"{server.address}/gradio_api/queue/join", content=b"path").status_code == 400
    assert httpx.post(f"{server.address}/gradio_api/queue/join", content=b"[" * 2_000_000).status_code == 413
    assert httpx.get(f"{server.address}/gradio_api/file={secret}").status_code == 403
    link.unlink()

    assert join(server, uploaded, "own").status_code == 200 and finish(server, "own")["success"]
    assert server.page.visits.of("own").clip.read_bytes() == clips["short"].read_bytes()
    assert join(server, uploaded, "other").status_code == 403, "a file is taken once"
    assert not os.path.exists(folder)
    server.page.visits.end("own")


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_another_website_cannot_send_anything(server, clips, headers):
    assert send(server, clips["short"], **headers).status_code == 403
    assert join(server, "x", **headers).text == "This request comes from another website."


def test_twenty_people_with_one_file_each_have_their_clip(server, clips):
    def visit(number):
        (path,) = send(server, clips["short"], Origin=server.address).json()
        assert join(server, path, f"many{number}").status_code == 200
        event = finish(server, f"many{number}")
        return event["success"], server.page.visits.of(f"many{number}").clip.read_bytes()

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(visit, range(20)))
    assert found == [(True, clips["short"].read_bytes())] * 20
    for number in range(20):
        server.page.visits.end(f"many{number}")
    left = [path for path in server.page.visits.root.rglob("*") if path.is_file() and path.stat().st_size]
    assert left == []


@pytest.fixture(scope="module")
def judging(gate_folder, tmp_path_factory):
    """A page with a tiny detector."""
    detector = pipeline("av-deepfake-detection", model=str(gate_folder), device="cpu")
    with serving(Page(detector, Limits(2, 20), visits=Visits(tmp_path_factory.mktemp("judging")))) as made:
        yield made


def test_five_visitors_with_four_files_each_get_their_verdicts(judging, tmp_path):
    files = [make_clip(tmp_path / f"number{n}.mp4", 1 + n / 10) for n in range(4)]
    expected = {file.name: judging.page.detector(str(file))["score"] for file in files}
    assert len({round(score, 6) for score in expected.values()}) > 1

    def give(session, file):
        (path,) = send(judging, file).json()
        assert join(judging, path, session).status_code == 200 and finish(judging, session)["success"]
        assert join(judging, None, session, JUDGE).status_code == 200
        event, visit = finish(judging, session), judging.page.visits.of(session)
        shown = json.dumps(event["output"]["data"])
        return event["success"] and file.name in shown, visit.name, visit.result and visit.result["score"]

    def visit(number):
        return [give(f"visitor{number}", files[(number + k) % 4]) for k in range(4)]

    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(visit, range(5)))
    for number, answers in enumerate(found):
        names = [files[(number + k) % 4].name for k in range(4)]
        assert answers == [(True, name, pytest.approx(expected[name], abs=1e-6)) for name in names]


def test_of_four_files_at_once_the_last_one_gets_the_verdict(visits, clips):
    """Each is taken while the detector looks at the one before, and its file is gone."""
    taken = []

    def detector(file, **_):
        name = visit.name
        if len(taken) < 3:
            taken.append(name)
            number = len(taken)
            visit.take(upload(visits.root, clips["short"], f"{number}.mp4"), Limits())
            raise MediaNotFoundError(file, "no such file")
        return {"label": "real", "score": 0.1, "warnings": [], "error": None, "name": name}

    detector.model = SimpleNamespace(config=SimpleNamespace(abstain_band=None))
    page, visit = Page(detector, visits=visits), visits.of("tab")
    visit.take(upload(visits.root, clips["short"], "0.mp4"), Limits())
    for _ in range(3):
        with pytest.raises(ClipRefusedError, match="Another clip took this one's place"):
            page.judge(visit)
        assert visit.result is None
    page.judge(visit)
    assert taken == ["0.mp4", "1.mp4", "2.mp4"] and visit.name == visit.result["name"] == "3.mp4"


def test_a_shared_name_is_removed_when_no_upload_is_on_its_way(tmp_path):
    uploads = Uploads(tmp_path)
    shared = tmp_path / "hash" / "a.mp4"
    shared.parent.mkdir()
    shared.write_bytes(b"1")
    uploads.begin()
    uploads.begin()
    (one,) = uploads.end([str(shared)])
    assert shared.exists() and one in uploads
    (two,) = uploads.end([str(shared)])
    assert not shared.parent.exists() and Path(one).read_bytes() == Path(two).read_bytes() == b"1"


def test_an_upload_that_nobody_takes_is_deleted(tmp_path, monkeypatch):
    uploads = Uploads(tmp_path)
    (tmp_path / "hash").mkdir()
    (tmp_path / "hash" / "a.mp4").write_bytes(b"1")
    uploads.begin()
    (own,) = uploads.end([str(tmp_path / "hash" / "a.mp4")])
    uploads.begin()
    assert Path(own).exists()
    monkeypatch.setattr("modeling_avlmm.page.uploads.KEPT_SECONDS", -1)
    uploads.begin()
    assert not Path(own).parent.exists() and own not in uploads and not uploads.spend(Path(own))


def test_every_file_of_a_request_is_found():
    assert list(files_in({"data": [1, {"path": "a", "b": [{"path": None}]}], "path": "c"})) == ["c", "a", ""]


def test_sigterm_leaves_nothing_on_the_disk(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True, env=environment
    )
    timer = threading.Timer(120, process.kill)
    timer.start()
    try:
        address = process.stdout.readline().strip()
        sent = httpx.post(f"{address}/gradio_api/upload", files={"files": ("a.mp4", b"1")}, timeout=60)
        (root,) = tmp_path.glob("avlmm-page-*")
        assert sent.status_code == 200 and len([path for path in root.rglob("*") if path.is_file()]) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0 and not root.exists()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()

"""Uploads to a Hub on the loopback that stores what it gets: commits, large files in parts, broken connections."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_factory import LARGE_BYTES, PART_BYTES, TOKEN, HubServer

from modeling_avlmm.publishing.upload import AGAIN, PublishError, Upload, upload_folder


@pytest.fixture
def hub(monkeypatch):
    """The Hub of this test; the client neither waits between its tries nor uses Xet, whose server is not imitated."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None))
    with HubServer() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        yield server


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two small files, one of them in a hidden folder, and two large ones, the second of three parts."""
    content = random.Random(0).randbytes
    made = tmp_path / "detector"
    (made / ".eval_results").mkdir(parents=True)
    (made / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# A detector\n")
    (made / ".eval_results" / "x.yaml").write_text("[]\n")
    (made / "large.json").write_bytes(content(LARGE_BYTES))
    (made / "model.safetensors").write_bytes(content(2 * PART_BYTES + 7))
    return made


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_byte_arrives_and_large_files_come_in_parts(hub, folder):
    url = upload_folder(folder, "me/detector", Upload(token=TOKEN, commit_message="first"))
    held = hub.repositories["me/detector"]
    assert url == f"{hub.address}/me/detector" and held.private and held.commits == ["first"]
    assert held.files == files_of(folder)
    assert held.large == {"large.json", "model.safetensors"}
    weights = sha256(folder / "model.safetensors")
    assert {number: hub.parts[weights, number] for number in (1, 2, 3)} == {1: 1, 2: 1, 3: 1}


def test_the_same_again_sends_nothing_and_a_change_sends_itself_alone(hub, folder):
    upload_folder(folder, "me/detector", Upload(token=TOKEN))
    before = dict(hub.parts)
    upload_folder(folder, "me/detector", Upload(token=TOKEN))
    held = hub.repositories["me/detector"]
    assert dict(hub.parts) == before and len(held.commits) == 1
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    upload_folder(folder, "me/detector", Upload(token=TOKEN))
    assert dict(hub.parts) == before and len(held.commits) == 2 and held.files == files_of(folder)


def test_numbers_and_weights_of_another_detector_do_not_stay(hub, folder):
    (folder / "report_2.json").write_text("{}")
    upload_folder(folder, "me/detector", Upload(token=TOKEN))
    held = hub.repositories["me/detector"]
    held.files["notes.txt"] = b"mine"  # written on the Hub itself
    (folder / "report_2.json").unlink()
    (folder / ".eval_results" / "x.yaml").unlink()
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    upload_folder(folder, "me/detector", Upload(token=TOKEN))
    assert held.files == {**files_of(folder), "notes.txt": b"mine"}


def test_a_broken_connection_costs_one_part(hub, folder):
    weights = sha256(folder / "model.safetensors")
    hub.broken[weights, 2] = 2
    upload_folder(folder, "me/detector", Upload(token=TOKEN))
    assert hub.repositories["me/detector"].files == files_of(folder)
    assert hub.asked.count(f"PUT /storage/{weights}/1") == 1
    assert hub.asked.count(f"PUT /storage/{weights}/2") == 3


def test_after_a_lasting_break_the_same_command_continues(hub, folder):
    weights, other = sha256(folder / "model.safetensors"), sha256(folder / "large.json")
    hub.broken[weights, 2] = 6  # as often as the client tries
    with pytest.raises(PublishError, match="me/detector broke off") as caught:
        upload_folder(folder, "me/detector", Upload(token=TOKEN))
    assert AGAIN in str(caught.value) and hub.repositories["me/detector"].files == {}
    assert hub.parts[other, 1] == 1
    upload_folder(folder, "me/detector", Upload(token=TOKEN))
    assert hub.repositories["me/detector"].files == files_of(folder)
    assert hub.parts[other, 1] == 1  # had arrived whole


def test_faults_are_told_in_a_sentence(hub, folder, monkeypatch):
    with pytest.raises(PublishError, match=r"does not let you write to me/detector \(401\): log in"):
        upload_folder(folder, "me/detector", Upload(token="hf_wrong"))
    monkeypatch.setattr(HubServer, "create", lambda *_: (503, {"error": "busy"}))
    with pytest.raises(PublishError, match=rf"refused the upload to me/detector \(503\): busy\. {AGAIN}"):
        upload_folder(folder, "me/detector", Upload(token=TOKEN))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PublishError, match="me/detector broke off"):
        upload_folder(folder, "me/detector", Upload(token=TOKEN))


def test_the_command_pushes_a_detector_and_its_space(gate_folder, tmp_path):
    environment = {
        **os.environ,
        **{"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"},
    }
    words = ["--model", gate_folder, "--to", "me/small", "--push", "--endpoint", "--space", "me/page"]
    with HubServer() as server:
        done = subprocess.run(
            [sys.executable, "-m", "modeling_avlmm", "publish", *map(str, words)],
            env={**environment, "HF_ENDPOINT": server.address},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert f"Published to {server.address}/me/small." in done.stdout
    assert f"The Space is at {server.address}/spaces/me/page." in done.stdout
    model, space = server.repositories["me/small"], server.repositories["me/page"]
    assert (model.kind, space.kind, model.private, space.private) == ("model", "space", True, True)
    for path in gate_folder.iterdir():
        if path.suffix in (".py", ".safetensors"):
            assert model.files[path.name] == path.read_bytes(), path.name
    assert "model.safetensors" in model.large
    assert {"handler.py", "requirements.txt", "README.md"} <= model.files.keys()
    assert b'DETECTOR = "me/small"' in space.files["app.py"]
    assert "modeling_avlmm/page/space.py" in space.files and "detector/config.json" not in space.files

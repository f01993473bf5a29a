"""The Space: a folder that shows the page by itself, started and clicked through in a browser."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from page_factory import give, opened, verdict_on

from modeling_avlmm.page.space import HUB
from modeling_avlmm.publishing.publish import publish
from modeling_avlmm.publishing.space import PublishError, SpaceDetector, check_space, publish_space

NOT_NEEDED = (
    "trl",
    "peft",
    "datasets",
    "evaluate",
    "rouge_score",
    "torchaudio",
    "onnx",
    "onnxruntime",
)
"""Packages that `requirements.txt` does not name."""


@pytest.fixture(scope="module")
def space(gate_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("space")
    published = publish(gate_folder, folder / "small")
    return publish_space(SpaceDetector("small", published, license="apache-2.0"), folder / "space")


@pytest.fixture(scope="module")
def served(space, tmp_path_factory):
    """The Space, run as the Hub runs it: `app.py` in its folder, with its own packages only."""
    blocked = "\n".join(f"sys.modules[{name!r}] = None" for name in NOT_NEEDED)
    app = space / "app.py"
    app.write_text(f"import sys\n{blocked}\n{app.read_text()}")
    header = space / "modeling_avlmm" / "page" / "assets" / "header.html"
    header.write_text(header.read_text() + '<p id="from-the-space"></p>\n')
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_", "AVLMM_"))
    }
    home = {"HF_HOME": str(tmp_path_factory.mktemp("home")), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=space,
        env={**kept, **home, "GRADIO_SERVER_PORT": str(port)},
        stdout=subprocess.PIPE,
        text=True,
    )
    line = next((line for line in process.stdout if line.startswith("The page is at")), "")
    assert line.strip().endswith(f":{port}"), process.poll()
    yield SimpleNamespace(address=f"http://127.0.0.1:{port}", folder=space)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0


def test_the_folder_is_a_space(space):
    _, front, text = (space / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    settings = yaml.safe_load(front)
    assert (
        settings["sdk"] == "gradio"
        and settings["app_file"] == "app.py"
        and settings["license"] == "apache-2.0"
    )
    assert len(settings["short_description"]) <= 60 and settings["python_version"] == "3.11"
    assert settings["sdk_version"].count(".") == 2 and "models" not in settings
    assert "proves nothing" in text and "[small](detector/small)" in text
    assert (space / "packages.txt").read_text() == "ffmpeg\n"
    needed = (space / "requirements.txt").read_text().split("\n")
    assert not {line.partition(">")[0] for line in needed} & {*NOT_NEEDED, "gradio"}


def test_a_space_of_a_repository_names_it(gate_folder, tmp_path):
    detector = SpaceDetector("small", gate_folder, repository="me/small", private=True)
    folder = publish_space(detector, tmp_path / "space")
    settings = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert settings["models"] == ["me/small"] and "preload_from_hub" not in settings
    assert "a secret `HF_TOKEN`" in (folder / "README.md").read_text(encoding="utf-8")
    assert 'DETECTOR = "me/small"' in (folder / "app.py").read_text() and not (folder / "detector").exists()
    assert publish_space(detector, folder) == folder  # a Space gives way to a Space
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "app.py").write_text("years of work")
    with pytest.raises(PublishError, match="not a Space of this package"):
        check_space(tmp_path / "thesis")
    with pytest.raises(PublishError, match="in the detector's own folder"):
        publish_space(detector, gate_folder / "space")


def test_a_visit_to_the_space(served, browser, clips, tmp_path):
    with opened(browser, served) as tab:
        assert tab.locator("#from-the-space").count() == 1
        header = tab.inner_text(".av-header")
        assert "with small. Files go to the computer that serves this page" in header
        give(tab, clips["clip"])
        verdict_on(tab, "clip.mp4", seconds=300)  # the first file waits for a reader process
        assert tab.locator(".av-parts tbody tr").count() == 3
        with tab.expect_download(timeout=60_000) as download:
            tab.click("#av-html")
        report = Path(download.value.path()).read_text(encoding="utf-8")
        assert "clip.mp4" in report and str(served.folder) not in report
        text = tmp_path / "letter.mp4"
        text.write_text("Dear reader,\n" * 100)
        give(tab, text)
        tab.wait_for_selector(
            "#av-note [role=alert]:has-text('is not a video or sound file')", timeout=30_000
        )
        answer = tab.request.get(served.address)
        assert f"frame-ancestors {HUB}" in answer.headers["content-security-policy"]

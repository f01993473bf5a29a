"""
Draw `space.png`: the Space of the demonstration detector, started from its folder, with a drawn clip.

The person in the clip is a drawing of nobody; the verdict is the detector's own. From the root of the repository:

    PYTHONPATH=.:tests python docs/images/space.py
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

from page_factory import CHROMIUM, give, opened, verdict_on
from PIL import Image
from playwright.sync_api import sync_playwright

from dataset_scripts.demo_benchmark.benchmark import write_clip
from dataset_scripts.demo_benchmark.layouts import plan_fakeavceleb
from modeling_avlmm.inference.default_model import DEMONSTRATION_MODEL
from modeling_avlmm.publishing.publish import publish
from modeling_avlmm.publishing.space import SpaceDetector, publish_space

PORT = 7871
VIEWPORT = {"width": 1280, "height": 900}
WIDTH = 1000
"""Width of the PNG."""


def main() -> None:
    """Write the Space, start it, give it a clip, and write the picture beside this file."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        drawn = next(clip for clip in plan_fakeavceleb(0, 10)[0] if "FakeVideo-RealAudio" in clip.path)
        write_clip(folder / "clip.mp4", 0, drawn)
        published = publish(DEMONSTRATION_MODEL, folder / "demonstration")
        space = publish_space(SpaceDetector("demonstration", published), folder / "space")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=space,
            env={**environment, "GRADIO_SERVER_PORT": str(PORT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            next(line for line in process.stdout if line.startswith("The page is at"))
            png = _picture(SimpleNamespace(address=f"http://127.0.0.1:{PORT}"), folder / "clip.mp4")
        finally:
            process.terminate()
            process.wait()
    _save(png)


def _save(png: bytes) -> None:
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    picture = picture.quantize(256, Image.Quantize.MEDIANCUT, kmeans=4, dither=Image.Dither.NONE)
    picture.save(Path(__file__).with_name("space.png"), optimize=True)


def _picture(server: SimpleNamespace, path: Path) -> bytes:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        with opened(browser, server, viewport=VIEWPORT) as tab:
            give(tab, path)
            verdict_on(tab, path.name, seconds=300)  # the first file waits for a reader process
            tab.wait_for_function("document.querySelector('.av-player video').readyState >= 2")
            tab.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
            tab.mouse.move(0, 0)
            tab.wait_for_timeout(500)
            png = tab.screenshot(full_page=True)
        browser.close()
    return png


if __name__ == "__main__":
    main()

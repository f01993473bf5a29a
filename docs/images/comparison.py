"""
Draw `comparison.png` and `leaderboard.png`: pages of detectors on the drawn clips of the demonstration benchmark.

After `python -m modeling_avlmm demo`, from the root of the repository:

    PYTHONPATH=.:tests python docs/images/comparison.py runs/demo/evaluation
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from page_factory import CHROMIUM
from PIL import Image
from playwright.sync_api import sync_playwright

from modeling_avlmm.__main__ import main as avlmm

ENTRIES = ("untrained", "alignment", "encoders")
VIEWPORT = {"width": 1180, "height": 900}
WIDTH = 1000
"""Width of the PNGs."""


def main(evaluations: Path) -> None:
    """Make both pages from predictions, and write a picture of a section of each beside this file."""
    with tempfile.TemporaryDirectory() as place:
        compared, ranked = Path(place) / "comparison", Path(place) / "leaderboard"
        entries = [word for name in ENTRIES for word in ("--entry", f"{name}={evaluations / name}")]
        avlmm(["compare", *entries, "--output-dir", str(compared)])
        avlmm(["leaderboard", str(evaluations), "--output-dir", str(ranked)])
        _draw(compared / "report.html", "comparison.png", "Whole file: who is better where")
        _draw(ranked / "report.html", "leaderboard.png", "fakeavceleb, identity_70_30, test")


def _draw(page: Path, name: str, title: str) -> None:
    """Write the section of a page whose title contains `title`."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport=VIEWPORT, device_scale_factor=2)
        tab.goto(page.resolve().as_uri())
        box = tab.locator("section", has=tab.locator("h2", has_text=title)).first.bounding_box()
        clip = {"x": 0, "y": box["y"] - 10, "width": VIEWPORT["width"], "height": box["height"] + 20}
        png = tab.screenshot(full_page=True, clip=clip)
        browser.close()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    picture = picture.quantize(64, Image.Quantize.MEDIANCUT, kmeans=4, dither=Image.Dither.NONE)
    picture.save(Path(__file__).with_name(name), optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

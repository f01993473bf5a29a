"""
Draw `page_people.png`: the page with two drawn people in one clip.

The people are drawings of nobody, and their scores are given, not measured. From the root of the repository:

    PYTHONPATH=.:tests python docs/images/page_people.py
"""

from __future__ import annotations

import io
import tempfile
from dataclasses import replace
from pathlib import Path

from face_factory import LEFT, RIGHT, clip_with_faces, write_clip
from page_factory import CHROMIUM, give, opened, serving, verdict_on
from people_factory import KnownScores, faces_of, result_with
from PIL import Image
from playwright.sync_api import sync_playwright
from ssavd_factory import save_small
from transformers import pipeline

import modeling_avlmm  # noqa: F401 (registers the pipeline)
from modeling_avlmm.page.actions import Page
from modeling_avlmm.page.session import Limits, Visits

SIZE, SECONDS, FPS = (640, 360), 9.0, 12.5
SCORES = [[0.12, 0.96, 0.71], [0.08, 0.05, 0.11]]
VIEWPORT = {"width": 1280, "height": 900}
WIDTH = 1000
"""Width of the PNG."""


def result_of(clip) -> dict:
    """Return a result in which the person on the left is fake from 3 s on."""
    result = result_with(faces_of(clip, SCORES), SECONDS, independent_parts=True)
    for window, score in zip(result["windows"], SCORES[0], strict=True):
        window["score"] = window["video_score"] = score
    return result


def main() -> None:
    """Serve the page, give it the clip, and write the picture beside this file."""
    people = [replace(LEFT, height=0.42), replace(RIGHT, height=0.42, seen=(1.0, SECONDS))]
    clip = clip_with_faces(SECONDS, FPS, SIZE, people)
    with tempfile.TemporaryDirectory() as folder:
        path = write_clip(Path(folder) / "interview.mp4", clip)
        detector = pipeline("av-deepfake-detection", model=str(save_small(Path(folder) / "detector")))
        detector.model.config.name_or_path = "my-org/my-detector"
        page = Page(KnownScores(detector, result_of(clip)), Limits(), visits=Visits(Path(folder) / "page"))
        with sync_playwright() as driver, serving(page) as server:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            with opened(browser, server, viewport=VIEWPORT) as tab:
                png = _picture(tab, path)
            browser.close()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    picture = picture.quantize(256, Image.Quantize.MEDIANCUT, kmeans=4, dither=Image.Dither.NONE)
    picture.save(Path(__file__).with_name("page_people.png"), optimize=True)


def _picture(tab, path: Path) -> bytes:
    give(tab, path)
    verdict_on(tab, path.name)
    tab.wait_for_function("document.querySelector('.av-player video').readyState >= 2")
    tab.locator(".av-side button", has_text="Which seconds").click()
    tab.wait_for_function(
        "document.querySelector('#av-chat .bot')?.innerText.trim().length > 10", timeout=120_000
    )
    tab.locator(".av-go").first.click()
    tab.wait_for_selector(".av-face[data-label='fake']")
    tab.evaluate("document.querySelector('.av-player video').controls = false")
    tab.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    tab.mouse.move(0, 0)
    tab.wait_for_timeout(500)
    places = [tab.locator(place).bounding_box() for place in ("#av-verdict", ".av-columns")]
    top = places[0]["y"] - 14
    clip = {
        "x": 36,
        "y": top,
        "width": VIEWPORT["width"] - 72,
        "height": places[1]["y"] + places[1]["height"] + 14 - top,
    }
    return tab.screenshot(full_page=True, clip=clip)


if __name__ == "__main__":
    main()

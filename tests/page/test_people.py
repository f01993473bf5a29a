"""People on the page: their list, and boxes that lie on the faces, in every shape of picture and while the clip plays."""

import io
import json
import re
from html import unescape

import numpy as np
import pytest
import torch
from face_detectors import detector_of_skin
from face_factory import LEFT, RIGHT, clip_with_faces, write_clip
from media_factory import make_rotated
from page_factory import give, opened, serving, upload, verdict_on
from people_factory import KnownScores, crop_attribution, face, result_with, two_people
from PIL import Image
from torchcodec.encoders import Encoder
from transformers import pipeline

from modeling_avlmm.media import MediaReader
from modeling_avlmm.page.actions import Page
from modeling_avlmm.page.people import LEAST_BOXES, MOST_BOXES, MOST_LISTED, people_view
from modeling_avlmm.page.session import ClipRefusedError, Limits, Visits
from modeling_avlmm.page.views import closeup_view, player_view, verdict_view

RED, BLUE = (230, 20, 20), (20, 20, 230)
SIDE = 0.2
"""Side of a square by the shorter side of the picture."""


# -- the list -----------------------------------------------------------------------------------------------------------------


def shown_player(visits, clips, result) -> str:
    visit = visits.of("tab")
    visit.take(upload(visits.root, clips["clip"]), Limits())
    visit.result = result
    return player_view(visit, None)


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def test_two_people_for_eyes_and_ears(visits, clips):
    shown = shown_player(visits, clips, result_with(two_people()))
    text = text_of(shown)
    assert "2 faces were found; the picture's score is that of person 1 (left)." in text
    assert (
        "Person 1, Left 0:00.0 to 0:09.0 fake 0.60 Go to their most suspicious passage, 0:03.0 to 0:06.0, 0.96"
        in text
    )
    assert "Person 2, Right 0:01.0 to 0:07.0 real 0.09" in text and text.count("Whose voice it is") == 1
    assert 'aria-label="Person 1 (left): called fake from 0:03.0 to 0:09.0."' in shown
    # The second person's timeline begins where they appear, in percent of the clip.
    second = shown[shown.index('data-number="2"') :]
    assert "left: 11.111%; width: 66.667%" in second and 'data-seek="5.0"' in second
    assert 'class="av-faces" aria-hidden="true"' in shown


def test_nothing_on_people_for_whole_frames_and_a_line_without_a_face(visits, clips):
    assert (
        "av-people" not in shown_player(visits, clips, result_with(None))
        and people_view(result_with(None), {}) is None
    )
    shown = shown_player(visits, clips, result_with([]))
    assert (
        "No face was found in the picture." in shown
        and "av-faces" not in shown
        and "data-people" not in shown
    )


def test_uncertain_people_have_the_word_and_the_legend(visits, clips):
    result = result_with(two_people(), abstain_band=[0.55, 0.65], independent_parts=True, label="uncertain")
    shown = shown_player(visits, clips, result)
    assert 'class="av-person av-uncertain"' in shown and "av-swatch av-uncertain" in shown
    assert "uncertain 0.60" in text_of(shown)


def test_a_face_that_was_not_scored_is_listed_as_such(visits, clips):
    shown = shown_player(visits, clips, result_with([face(0, 1.0, 2.0, [None], left=0.4)]))
    assert "Person 1 0:01.0 to 0:02.0 not scored Go to where they appear" in text_of(shown)
    assert 'class="av-person av-none"' in shown and 'data-seek="1.0"' in shown


def test_many_people_are_bounded():
    faces = [face(n, 0.0, 9.0, [n / 100], left=0.4) for n in range(40)]
    for entry in faces:
        entry["boxes"] = [{"time": 9 * n / 299, "box": [0.1, 0.1, 0.2, 0.2]} for n in range(300)]
    view = people_view(result_with(faces), {})
    assert [row["person"].number for row in view.rows] == list(
        range(40 - MOST_LISTED + 1, 41)
    ) and view.left_out == 28
    tracks = json.loads(view.boxes)
    counts = {len(track["boxes"]) for track in tracks}
    assert len(tracks) == 40 and max(counts) <= MOST_BOXES // 40 + 1 and min(counts) >= LEAST_BOXES
    assert tracks[0]["boxes"][-1] == [9.0, 0.1, 0.1, 0.2, 0.2]
    (one,) = json.loads(people_view(result_with(faces[:1]), {}).boxes)
    assert len(one["boxes"]) == 300


def test_a_close_look_at_a_face_shows_its_place():
    shown = closeup_view(crop_attribution(), result_with(two_people()))
    assert "cut out around person 2 (right)" in shown and "aspect-ratio: 1.5" in shown
    assert (
        'aria-label="Place in the whole picture: 60 to 80 % from the left, 20 to 50 % from the top"' in shown
    )
    assert "left: 60.0%; top: 20.0%; width: 20.0%; height: 30.0%" in shown


# -- with faces that are found ------------------------------------------------------------------------------------------------


def overlap(one, other) -> float:
    """Return intersection over union of two boxes."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = sides.clip(0).prod()
    return shared / (sum(np.subtract(box[2:], box[:2]).prod() for box in (one, other)) - shared)


def judged(visits, path):
    page = Page(detector_of_skin(), Limits(), grid=2, visits=visits)
    visit = visits.of("tab")
    visit.take(upload(visits.root, path), Limits())
    page.judge(visit)
    return page, visit


def test_people_of_a_file_are_found_scored_and_boxed(visits, tmp_path):
    clip = clip_with_faces(4.0, size=(480, 270), people=[LEFT, RIGHT])
    page, visit = judged(visits, write_clip(tmp_path / "two.mp4", clip))
    shown = page.player(visit)
    tracks = json.loads(unescape(re.search(r'data-people="([^"]*)"', shown)[1]))
    (left,), (right,) = ([t for t in tracks if t["name"].endswith(f"({side})")] for side in ("left", "right"))
    text = text_of(shown)
    assert f"the picture's score is that of {right['name']}." in text and shown.count("data:image/jpeg") == 2
    assert [{window[3] for window in track["windows"]} for track in (left, right)] == [{"real"}, {"fake"}]
    for track, truth in zip((left, right), clip.boxes / (480, 270, 480, 270), strict=True):
        assert len(track["boxes"]) >= 16
        for time, *box in track["boxes"]:
            true = truth[min(round(time * clip.fps), len(truth) - 1)]
            assert overlap(box, true) > 0.5, (time, box, true)


def test_a_close_look_is_at_the_most_suspicious_person(visits, tmp_path):
    clip = clip_with_faces(2.0, size=(480, 270), people=[LEFT, RIGHT])
    page, visit = judged(visits, write_clip(tmp_path / "two.mp4", clip))
    page.look_closer(visit)
    found = visit.attribution
    assert found.aspect == pytest.approx(480 / 270) and found.places.shape == (4, 4)
    for time, place in zip(found.frame_times, found.places, strict=True):
        true = clip.boxes[1, round(time * clip.fps)] / (480, 270, 480, 270)
        assert (place[:2] + place[2:]) / 2 == pytest.approx((true[:2] + true[2:]) / 2, abs=0.04)
        assert (place[2] - place[0]) * 480 == pytest.approx((place[3] - place[1]) * 270)
    assert re.search(r"cut out around person \d \(right\)", closeup_view(found, visit.result))


def test_a_file_without_face_and_sound_has_no_verdict_and_names_no_folder(visits, clips):
    page, visit = judged(visits, clips["silent"])
    words = text_of(verdict_view(visit, page.detector) + page.player(visit))
    assert (
        "No face was found in the picture." in words and "nothing to score" in words and "No verdict" in words
    )
    assert visit.token not in words and str(visits.root) not in str(visit.result)
    with pytest.raises(ClipRefusedError, match="no verdict on this clip"):
        page.look_closer(visit)


# -- in a browser -------------------------------------------------------------------------------------------------------------


def squares(size: tuple[int, int], seconds: float = 9.0, fps: float = 10.0) -> torch.Tensor:
    """Return frames with a red square that moves to the right and a blue one that stands still, (T, 3, H, W) uint8."""
    (width, height), count = size, round(seconds * fps)
    side = round(SIDE * min(size))
    frames = torch.full((count, 3, height, width), 128, dtype=torch.uint8)
    for index in range(count):
        x = round((0.1 + 0.3 * index / (count - 1)) * width)
        y, still = round(0.3 * height), (round(0.7 * width), round(0.1 * height))
        for colour, left, top in ((RED, x, y), (BLUE, *still)):
            frames[index, :, top : top + side, left : left + side] = torch.tensor(colour, dtype=torch.uint8)[
                :, None, None
            ]
    return frames


def write(path, frames: torch.Tensor, fps: float = 10.0):
    encoder = Encoder()
    height, width = frames.shape[-2:]
    video = encoder.add_video(
        height=height, width=width, frame_rate=fps, codec="libx264", pixel_format="yuv420p"
    )
    with encoder.open_file(str(path)):
        video.add_frames(frames)
    return path


def is_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Return where a picture (..., 3) has about this colour."""
    return np.abs(picture.astype(int) - colour).max(axis=-1) < 60


def found_squares(path) -> list[dict]:
    """Return the squares of a file as faces, from its upright frames: red with high scores, blue from 1 s to 7 s."""
    with MediaReader(path) as reader:
        clip = reader.read(fps=5.0)
    frames = clip.frames.permute(0, 2, 3, 1).numpy()
    height, width = frames.shape[1:3]
    entries = []
    for index, (colour, scores, seen) in enumerate(
        ((RED, [0.1, 0.97, 0.6], (0.0, 9.0)), (BLUE, [0.05, 0.5], (1.0, 7.0)))
    ):
        entry = face(index, *seen, scores, left=0.0, boxes=[])
        for time, frame in zip(clip.timestamps.tolist(), frames, strict=True):
            if seen[0] <= time <= seen[1]:
                rows, columns = np.nonzero(is_colour(frame, colour))
                sides = (
                    columns.min() / width,
                    rows.min() / height,
                    (columns.max() + 1) / width,
                    (rows.max() + 1) / height,
                )
                entry["boxes"].append({"time": time, "box": [round(float(side), 4) for side in sides]})
        entries.append(entry)
    return entries


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Clips of each shape: wide, high (bars beside it), and wide with the camera on its side."""
    folder = tmp_path_factory.mktemp("squares")
    wide = write(folder / "wide.mp4", squares((320, 180)))
    return {
        "wide": wide,
        "high": write(folder / "high.mp4", squares((120, 320))),
        "turned": make_rotated(wide, folder / "turned.mp4"),
    }


@pytest.fixture(scope="module")
def server(gate_folder, tmp_path_factory):
    """A page whose detector gives known scores; a test sets the result."""
    detector = pipeline("av-deepfake-detection", model=str(gate_folder), device="cpu")
    visits = Visits(tmp_path_factory.mktemp("people"))
    with serving(
        Page(KnownScores(detector, {}), Limits(max_mb=2, max_seconds=20), grid=2, visits=visits)
    ) as made:
        yield made


@pytest.fixture
def show(server):
    """Give a tab a clip with the squares in it as faces, and wait until it can be played."""

    def shown(tab, path) -> list[dict]:
        faces = found_squares(path)
        server.page.detector.result = result_with(faces, has_audio=False, audio_score=None)
        give(tab, path)
        verdict_on(tab, path.name)
        tab.wait_for_function("document.querySelector('.av-player video')?.readyState >= 2", timeout=20_000)
        return faces

    return shown


def seek(tab, time: float) -> None:
    """Move the player, and wait until the boxes are drawn for that time."""
    tab.evaluate("time => { document.querySelector('.av-player video').currentTime = time }", time)
    tab.wait_for_function(
        "time => Math.abs(Number(document.querySelector('.av-faces').dataset.time) - time) < 0.01",
        arg=time,
        timeout=10_000,
    )


def pixels_of(tab) -> np.ndarray:
    """Return the stage as it looks without boxes and the player's own buttons, (height, width, 3)."""
    bare = "bare => { document.querySelector('.av-player video').controls = !bare }"
    tab.click(".av-show-boxes")
    tab.evaluate(bare, True)
    png = tab.locator(".av-stage").screenshot()
    tab.evaluate(bare, False)
    tab.click(".av-show-boxes")
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def box_of(tab, number: int) -> tuple[float, ...]:
    """Return left, top, right, bottom of a box on the stage, in pixels of the page."""
    stage = tab.locator(".av-stage").bounding_box()
    box = tab.locator(f".av-face[data-number='{number}']").bounding_box()
    left, top = box["x"] - stage["x"], box["y"] - stage["y"]
    return left, top, left + box["width"], top + box["height"]


@pytest.mark.parametrize(("shape", "width"), [("wide", 1280), ("high", 1280), ("turned", 390)])
def test_boxes_lie_on_what_is_seen(browser, server, show, pictures, shape, width):
    with opened(browser, server, viewport={"width": width, "height": 900}) as tab:
        show(tab, pictures[shape])
        for time in (1.05, 4.05):
            seek(tab, time)
            picture = pixels_of(tab)
            for number, colour in ((1, RED), (2, BLUE)):
                rows, columns = np.nonzero(is_colour(picture, colour))
                seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                assert box_of(tab, number) == pytest.approx(seen, abs=3.5), (shape, time, number)


def test_boxes_follow_while_it_plays_and_leave_with_the_face(browser, server, show, pictures):
    with opened(browser, server) as tab:
        red, blue = show(tab, pictures["wide"])
        seek(tab, 6.0)
        seen = tab.evaluate(
            """() => new Promise((done) => {
              const video = document.querySelector('.av-player video');
              const left = (number) => {
                const box = document.querySelector(`.av-face[data-number="${number}"]`);
                return box.hidden ? null : parseFloat(box.style.left) / 100;
              };
              const seen = [];
              const step = (_, frame) => {
                if (!video.paused) seen.push([frame.mediaTime, left(1), left(2)]);
                if (frame.mediaTime > 7.6) { video.pause(); done(seen); } else video.requestVideoFrameCallback(step);
              };
              video.muted = true;
              video.requestVideoFrameCallback(step);
              video.play();
            })"""
        )
        times = [boxed["time"] for boxed in red["boxes"]]
        lefts = [boxed["box"][0] for boxed in red["boxes"]]
        assert len(seen) >= 5 and seen[-1][0] - seen[0][0] > 0.8
        for time, first, second in seen:
            assert first == pytest.approx(np.interp(time, times, lefts), abs=1e-3)
            assert (second is not None) == (time <= blue["end"] + 0.1), time


def test_a_person_leads_to_their_most_suspicious_moment(browser, server, show, pictures):
    with opened(browser, server) as tab:
        show(tab, pictures["wide"])
        tab.locator(".av-person[data-number='1'] .av-go").click()
        tab.wait_for_function("Math.abs(document.querySelector('.av-player video').currentTime - 3) < 0.01")
        tab.wait_for_selector(".av-face[data-number='1'][data-label='fake']")
        assert tab.inner_text(".av-face[data-number='1']").split() == ["1", "▲", "fake", "0.97"]
        assert tab.inner_text(".av-face[data-number='2']").split() == ["2", "○", "real", "0.05"]
        timeline = tab.locator(".av-timeline")
        assert "person 1 (left) fake 0.97; person 2 (right) real 0.05" in timeline.get_attribute(
            "aria-valuetext"
        )
        assert tab.locator(".av-person.av-on-screen").count() == 2
        # By keyboard as well, and a click on a small timeline goes to its window.
        tab.locator(".av-person[data-number='2'] .av-go").press("Enter")
        tab.wait_for_function("Math.abs(document.querySelector('.av-player video').currentTime - 4) < 0.01")
        tab.locator(".av-person[data-number='1'] .av-cell").nth(2).click()
        tab.wait_for_function("Math.abs(document.querySelector('.av-player video').currentTime - 6) < 0.01")
        seek(tab, 8.0)
        assert tab.locator(".av-face:visible").count() == 1 and tab.locator(".av-on-screen").count() == 1
        assert "person 2" not in timeline.get_attribute("aria-valuetext")
        tab.click(".av-show-boxes")
        assert tab.locator(".av-face:visible").count() == 0
        assert tab.get_attribute(".av-show-boxes", "aria-pressed") == "false"


def test_full_screen_keeps_the_boxes(browser, server, show, pictures):
    with opened(browser, server) as tab:
        show(tab, pictures["wide"])
        tab.click(".av-full-screen")
        tab.wait_for_function("document.fullscreenElement?.matches('.av-stage')")
        seek(tab, 4.0)
        width = tab.evaluate("innerWidth")
        tab.wait_for_function(
            "width => document.querySelector('.av-faces').clientWidth > 0.9 * width", arg=width
        )
        left = box_of(tab, 2)[0] / tab.locator(".av-stage").bounding_box()["width"]
        assert left == pytest.approx(0.7, abs=0.02)
        tab.evaluate("document.exitFullscreen()")


def test_chips_do_not_cover_one_another(browser, server, show, pictures):
    with opened(browser, server, viewport={"width": 390, "height": 900}) as tab:
        show(tab, pictures["high"])
        seek(tab, 4.0)
        tab.evaluate("avBoxes.draw(document.querySelector('.av-player'), 4.0)")
        boxes = [chip.bounding_box() for chip in tab.locator(".av-face > span").all()]
        one, other = boxes
        apart = one["x"] + one["width"] <= other["x"] + 1 or other["x"] + other["width"] <= one["x"] + 1
        assert (
            apart
            or one["y"] + one["height"] <= other["y"] + 1
            or other["y"] + other["height"] <= one["y"] + 1
        )
        stage = tab.locator(".av-stage").bounding_box()
        assert all(
            stage["x"] - 4 <= box["x"] and box["x"] + box["width"] <= stage["x"] + stage["width"] + 4
            for box in boxes
        )


def test_abstaining_is_on_where_the_model_has_a_band(visits, clips, gate_folder):
    detector = pipeline("av-deepfake-detection", model=str(gate_folder), device="cpu")
    page = Page(detector, Limits(), visits=visits)
    visit = visits.of("tab")
    visit.take(upload(visits.root, clips["short"]), Limits())
    page.judge(visit)
    score = visit.result["score"]
    assert visit.result["abstain_band"] is None and visit.result["label"] != "uncertain"
    detector.model.config.abstain_band = [score - 0.01, score + 0.01]
    page.judge(visit)
    assert visit.result["label"] == "uncertain"
    words = text_of(verdict_view(visit, detector))
    assert (
        "Uncertain" in words
        and "too many of this detector's verdicts were wrong: take it as no verdict." in words
    )

"""People in a case and on the page of a `detect` run: facts, pictures from the file, figures."""

import base64
import io
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from media_factory import make_clip, make_rotated
from people_factory import crop_attribution, face, result_with, two_people
from PIL import Image
from transformers import pipeline

from modeling_avlmm.casefile.captions import people_plot
from modeling_avlmm.casefile.case import build_case
from modeling_avlmm.casefile.pages import write_html, write_pdf
from modeling_avlmm.casefile.people import (
    COLOURS,
    PORTRAIT,
    colour_of,
    face_facts,
    marked_frames,
    moment_of,
    people_section,
    portraits,
)
from modeling_avlmm.cli.detect.inputs import survey
from modeling_avlmm.cli.detect.overview import Overview
from modeling_avlmm.explain.people import NUMBERS, people_of
from modeling_avlmm.media import MediaReader


@pytest.fixture(scope="module")
def nine(tmp_path_factory):
    """A clip of 9 s whose left half is bright and whose right half is dark."""
    return make_clip(tmp_path_factory.mktemp("people") / "nine.mp4", seconds=9.0, fps=10.0, size=(160, 80))


@pytest.fixture(scope="module")
def detector(gate_folder):
    return pipeline("av-deepfake-detection", model=str(gate_folder), device="cpu")


def pixels(address: str) -> np.ndarray:
    kind, data = address.split(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)


def test_portraits_are_cut_from_the_most_suspicious_moment(nine):
    people = people_of(result_with(two_people()))
    assert moment_of(people[0]) == pytest.approx(4.5, abs=0.11) and moment_of(people[1]) == pytest.approx(
        6.0, abs=0.11
    )
    with MediaReader(nine) as reader:
        found = portraits(reader, people)
        left, right = (pixels(found[number]) for number in (1, 2))
        shown = reader.read(moment_of(people[0]), fps=1.0).frames[0].numpy().astype(int)
    assert left.shape == right.shape == (PORTRAIT, PORTRAIT, 3)
    # The person on the left is in the bright half, the other in the dark one.
    assert abs(left.mean() - shown[:, :, :70].mean()) < 4 and right.mean() < left.mean() - 50


def test_a_portrait_at_the_edge_stays_inside_the_picture(nine):
    corner = face(0, 0.0, 9.0, [0.9], left=0.8, top=0.6)
    wide = face(1, 0.0, 9.0, [0.8], left=0.0, boxes=[{"time": 4.0, "box": [0.0, 0.0, 1.0, 1.0]}])
    with MediaReader(nine) as reader:
        found = portraits(reader, people_of(result_with([corner, wide])))
    assert (
        all(pixels(picture).shape == (PORTRAIT, PORTRAIT, 3) for picture in found.values())
        and len(found) == 2
    )


def test_boxes_are_fractions_of_the_upright_picture(nine, tmp_path):
    turned = make_rotated(nine, tmp_path / "turned.mp4")
    people = people_of(result_with([face(0, 0.0, 9.0, [0.9], left=0.1)]))
    with MediaReader(turned) as reader:
        (frame,) = marked_frames(reader, people)
        assert (reader.info.width, reader.info.height) == (80, 160)
    assert pixels(frame.image).shape == (160, 80, 3)
    (mark,) = frame.marks
    assert (mark.left, mark.top, mark.width, mark.height) == pytest.approx((10, 20, 20, 40))


def test_marked_frames_box_everybody_on_screen_and_are_apart(nine):
    faces = [*two_people(), face(2, 4.0, 5.0, [0.95], left=0.4), face(3, 8.0, 9.0, [None], left=0.4)]
    with MediaReader(nine) as reader:
        frames = marked_frames(reader, people_of(result_with(faces)))
    assert [round(frame.time, 1) for frame in frames] == [4.4, 6.0]
    assert [[mark.number for mark in frame.marks] for frame in frames] == [[1, 2, 3], [1, 2]]
    assert frames[1].words == "Frame at 0:06.0 with a box around person 1 and person 2"
    assert frames[0].marks[1].colour == colour_of(2) == COLOURS[1] and colour_of(7) == colour_of(1)


def test_facts_count_faces_and_name_the_smallest_and_those_not_scored():
    assert face_facts(result_with(None), 160, 80) == [] and face_facts(result_with([]), 160, 80) == [
        ("Faces", "none found")
    ]
    small = face(2, 3.0, 7.0, [None], left=0.4)
    small["boxes"] = [{"time": 3.0, "box": [0.4, 0.2, 0.5, 0.4]}]
    result = result_with([*two_people(), small])
    assert face_facts(result, 160, 80) == [
        ("Faces", "3 faces, the smallest (person 3) 16 x 16 pixels"),
        ("Faces not scored", "person 3 (middle), 0:03.0 to 0:07.0 (16 x 16 pixels)"),
    ]
    assert face_facts(result) == [
        ("Faces", "3 faces"),
        ("Faces not scored", "person 3 (middle), 0:03.0 to 0:07.0"),
    ]


def test_the_case_shows_who_is_suspicious_when(nine, detector, tmp_path):
    result = result_with(two_people())
    case = build_case(str(nine), result, detector=detector)
    assert dict(case.file)["Faces"] == "2 faces, the smallest (person 1) 32 x 32 pixels"
    assert dict(case.detector)["Looks at"] == "whole frames"
    assert case.people_plot.words == (
        "Person 1 (left): called fake from 0:03.0 to 0:09.0. Person 2 (right): called fake in no window."
    )
    write_html(case, tmp_path / "case.html")
    page = (tmp_path / "case.html").read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace("&#39;", "'")
    for words in (
        "the picture's score is that of person 1 (left)",
        "The sound is scored once for all of them",
        "1 left 0:00.0 to 0:09.0 ▲ called fake 0.600 0:03.0 to 0:06.0, 0.960",
        "2 right 0:01.0 to 0:07.0 ○ not called fake 0.090",
        NUMBERS,
    ):
        assert words in text
    assert page.count('<img src="data:image/jpeg') == 4 and page.count("Whose voice") == 1
    assert "The face of person 1 (left) at their most suspicious moment" in page
    write_pdf_if_possible(case, tmp_path / "case.pdf")


def write_pdf_if_possible(case, path):
    pytest.importorskip("plutoprint", reason="PDF needs the `pdf` extra")
    pdfium = pytest.importorskip("pypdfium2")
    write_pdf(case, path)
    with pdfium.PdfDocument(path) as document:
        pages = [document[number] for number in range(len(document))]
        text = "".join(page.get_textpage().get_text_range() for page in pages)
        assert "People in the picture" in text and "Who is suspicious when" in text
        assert sum(item.type == 3 for page in pages for item in page.get_objects()) >= 4  # pictures


def test_an_attribution_on_crops_says_whose_face_and_where(nine, detector, tmp_path):
    case = build_case(str(nine), result_with(two_people()), detector=detector, attribution=crop_attribution())
    figure, ranking = case.attribution_plots
    words = "Frames are cut out around person 2 (right); below each, its place in the whole picture."
    assert figure.caption.startswith(words) and ranking.title == "By region of the face"
    drawn = Figure(figsize=(figure.width, figure.height), layout="constrained")
    figure.draw(drawn)
    places = [axes.patches[1].get_bbox().extents.tolist() for axes in drawn.axes[2:]]
    assert places == [pytest.approx([0.6, 0.2, 0.8, 0.5]), pytest.approx([0.62, 0.2, 0.82, 0.5])]
    write_html(case, tmp_path / "case.html")
    assert words in (tmp_path / "case.html").read_text(encoding="utf-8")


def test_uncertain_people_are_called_so(nine, detector, tmp_path):
    result = result_with(two_people(), abstain_band=[0.4, 0.7], label="uncertain", independent_parts=True)
    case = build_case(str(nine), result, detector=detector)
    assert case.headline == "Uncertain" and case.people.people[0].verdict == "uncertain"


def test_no_face_a_link_and_a_file_that_is_gone_are_said(nine, tmp_path):
    assert people_section(str(nine), result_with(None)) is None
    none = people_section(str(nine), result_with([]))
    assert (
        none.sentences == ["No face was found in the picture."]
        and none.people == []
        and people_plot(result_with([])) is None
    )
    link = people_section("https://example.org/x.mp4", result_with(two_people()))
    assert len(link.people) == 2 and link.portraits == {} and "fetched once more" in link.unread
    damaged = tmp_path / "gone.mp4"
    damaged.write_bytes(b"no video" * 50)
    assert "There are no pictures" in people_section(str(damaged), result_with(two_people())).unread


def test_one_face_in_one_window_needs_no_figure():
    assert people_plot(result_with([face(0, 0.0, 2.0, [0.9], left=0.4)])) is None
    assert people_plot(result_with([face(0, 0.0, 2.0, [0.9, 0.2], left=0.4)])) is not None
    unscored = [face(n, 0.0, 2.0, [None], left=0.4 * n) for n in range(2)]
    assert people_plot(result_with(unscored)) is None


def test_the_page_of_a_run_names_the_people_of_each_file(detector, tmp_path):
    report = Overview(detector, survey(["x", "y", "z"]))
    report.add("two.mp4", result_with(two_people()))
    report.add("one.mp4", result_with([face(0, 0.0, 9.0, [0.3], left=0.4)]))
    report.add("whole.mp4", result_with(None))
    report.write(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8").replace("&#39;", "'")
    assert "<li>Person 2 (right), 0:01.0 to 0:07.0: not called fake, 0.09; highest 0.12" in page
    assert "One face was found, from 0:00.0 to 0:09.0." in page and page.count(NUMBERS) == 1
    assert page.count('aria-label="Who is suspicious when"') == 1

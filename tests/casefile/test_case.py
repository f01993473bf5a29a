"""Case reports: their words and facts, as self-contained HTML and as PDF."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timezone

import pytest
import torch
from ssavd_factory import stir
from transformers import pipeline

from modeling_avlmm import SSAVDConfig, SSAVDForDeepfakeDetection, SSAVDProcessor
from modeling_avlmm.casefile import pdf as pdf_module
from modeling_avlmm.casefile.case import build_case
from modeling_avlmm.casefile.facts import revision_of
from modeling_avlmm.casefile.pages import case_stem, write_html, write_pdf
from modeling_avlmm.casefile.pdf import PDFUnavailableError, drawable, typeset
from modeling_avlmm.explain.attribution import attribute
from modeling_avlmm.explain.words import clock, describe_disagreement, how_attributed
from modeling_avlmm.inference.provenance import detector_identity

TASK = "av-deepfake-detection"
NOTICE = "demonstration model trained on drawn faces"


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    sizes = {"channels": (4, 4), "depths": (1, 1), "num_frames": 8, "image_size": 56, "audio_samples": 32_000}
    config = SSAVDConfig(**sizes, frontend="fast", notice=NOTICE)
    model = SSAVDForDeepfakeDetection(config)
    stir(model)
    model.eval()
    with pytest.warns(UserWarning, match="demonstration"):
        return pipeline(TASK, model=model, processor=SSAVDProcessor.from_config(config), device="cpu")


PATH, IMAGE = 2, 3  # kinds of objects on a page of a PDF, as PDFium numbers them


@pytest.fixture
def pdf():
    """Open PDFs, and close them at the end."""
    pytest.importorskip("plutoprint", reason="PDF needs the `pdf` extra")
    pdfium = pytest.importorskip("pypdfium2")
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(pdfium.PdfDocument(path))


def squeezed(text: str) -> str:
    """Return a text without white space and hyphens of broken lines, which differ from writer to writer."""
    return re.sub(r"[\s\ufffe\x02]+", "", text)


def test_a_page_of_gradients_speaks_of_gradients(detector, clips, tmp_path):
    path = str(clips["short"])
    found = attribute(detector, path, method="gradients")
    case = build_case(path, detector(path), detector=detector, attribution=found)
    write_html(case, tmp_path / "case.html")
    page = re.sub("<svg.*?</svg>", "", (tmp_path / "case.html").read_text(encoding="utf-8"), flags=re.S)
    assert "one after another" not in page and how_attributed(found) in page.replace("&#39;", "'")
    for words in ("covered all through", "without this cell", "without a band", "taken out"):
        assert words not in page


def test_a_case_says_what_was_looked_at_and_with_what(detector, clips):
    path = str(clips["long"])
    result = detector(path)
    case = build_case(
        path, result, detector=detector, time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    )
    facts = dict(case.file)
    assert case.sha256 == facts["SHA-256"] == hashlib.sha256(clips["long"].read_bytes()).hexdigest()
    assert facts["Picture"] == "h264, 64 x 64, 25 frames/s, 250 frames" and facts["Sound"] == "aac, 16000 Hz"
    assert facts["Length"].startswith("0:10.0") and f"({clips['long'].stat().st_size} bytes)" in facts["Size"]
    assert case.time == "2026-01-02T03:04:05Z"
    about, identity = dict(case.detector), detector_identity(detector.model, detector.processor)
    assert about["Fingerprint, weights"] == identity["weights"]
    assert about["Temperature"] == "none: not calibrated" and about["Threshold"] == "0.5000"
    assert {"python", "torch", "transformers", "modeling-avlmm"} <= set(dict(case.software))
    assert case.notice == NOTICE and NOTICE not in case.warnings
    assert len(case.timeline) == 5 and [plot.title for plot in case.plots] == ["Over time"]
    short = build_case(str(clips["short"]), detector(str(clips["short"])), detector=detector)
    assert short.plots == []


def test_sources_that_are_no_files(detector, clips):
    result = detector(str(clips["short"]))
    data = clips["short"].read_bytes()
    assert build_case(data, result, detector=detector).sha256 == hashlib.sha256(data).hexdigest()
    link = build_case("https://user:secret@example.org/x.mp4?key=secret", result, detector=detector)
    assert link.sha256 is None and link.name == "https://example.org/x.mp4" and "secret" not in str(link)
    two = build_case({"video": str(clips["silent"]), "audio": str(clips["sound"])}, result, detector=detector)
    assert hashlib.sha256(clips["sound"].read_bytes()).hexdigest() in dict(two.file)["Separate sound"]
    with pytest.raises(FileNotFoundError):
        build_case("gone.mp4", result, detector=detector)
    assert case_stem("a/x y.mp4") != case_stem("b/x y.mp4") and case_stem("x y.mp4").startswith("x_y.mp4-")


def test_the_revision_of_a_repository_is_certain_where_the_cache_has_one(tmp_path, monkeypatch):
    def cached(name: str, file: str) -> str:
        assert (name, file) == ("my-org/my-detector", "config.json")
        return str(tmp_path / "snapshots" / "abc" / file)

    monkeypatch.setattr("modeling_avlmm.casefile.facts.try_to_load_from_cache", cached)
    (tmp_path / "snapshots" / "abc").mkdir(parents=True)
    assert revision_of("my-org/my-detector") == "abc"
    (tmp_path / "snapshots" / "def").mkdir()
    assert revision_of("my-org/my-detector") == "not known: one of abc, def"
    assert revision_of(str(tmp_path)).startswith("none: a folder")
    monkeypatch.setattr("modeling_avlmm.casefile.facts.try_to_load_from_cache", lambda name, file: None)
    assert revision_of("my-org/my-detector") == "not known"


def test_what_an_unreadable_file_has(detector, clips, tmp_path, pdf):
    (result,) = detector([str(clips["broken"])])
    case = build_case(str(clips["broken"]), result, detector=detector)
    assert case.headline == "Could not be read" and any("is not readable" in line for line in case.warnings)
    write_html(case, tmp_path / "c.html")
    write_pdf(case, tmp_path / "c.pdf")
    assert "Could not be read" in pdf(tmp_path / "c.pdf")[0].get_textpage().get_text_range()


def test_disagreement_over_time_has_a_plot_of_its_own(detector, clips, tmp_path, pdf):
    result = detector(str(clips["short"]))
    line = [{"time": 0.25 * n, "disagreement": 0.9 if n == 3 else 0.1} for n in range(4)]
    compared = {**result, "timeline": line, "disagreement": 0.3}
    case = build_case(str(clips["short"]), compared, detector=detector)
    assert [plot.title for plot in case.plots] == ["Picture against sound"]
    words = describe_disagreement(compared)
    assert words.startswith("Disagreement of picture and sound: 0.30 on average, highest at 0:00.8 (0.90).")
    write_html(case, tmp_path / "case.html")
    page = (tmp_path / "case.html").read_text(encoding="utf-8")
    assert words in page and page.count("<figure") == 1
    write_pdf(case, tmp_path / "case.pdf")
    # A file in which nothing can be compared has no plot.
    silent = build_case(
        str(clips["short"]), {**compared, "timeline": [], "disagreement": None}, detector=detector
    )
    assert silent.plots == []


@pytest.fixture(scope="module")
def full_case(detector, clips, tmp_path_factory):
    """Build a case with everything that it can hold, for a file whose name tries to be HTML."""
    path = tmp_path_factory.mktemp("case") / "<script>alert(1)</script> $x$ 中.mp4".replace("/", "_")
    shutil.copy(clips["long"], path)
    result = detector(str(path))
    found = attribute(detector, str(path), window=result["windows"][0], grid=3, frame_steps=2)
    talk = [
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What is <b>odd</b>?"}]},
        {"role": "assistant", "content": "The mouth.\nPerhaps."},
    ]
    return build_case(str(path), result, detector=detector, attribution=found, conversation=talk)


def test_the_page_is_whole_by_itself(full_case, tmp_path):
    write_html(full_case, tmp_path / "case.html")
    page = (tmp_path / "case.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page and "<b>" not in page
    # Nothing is asked for: links are to places in the page, and pictures are inside.
    links = re.findall(r'(?:src|href|url)\s*=\s*"([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)
    assert links and all(link.startswith(("#", "data:")) for link in links)
    assert "@import" not in page and "default-src 'none'" in page
    assert (
        page.count("<figure") == 5 and page.count("<svg aria-hidden") == 5 and page.count("<figcaption>") == 5
    )
    assert "<dc:date>" not in page
    for text in (
        full_case.sha256,
        full_case.headline,
        NOTICE,
        *full_case.attribution.limits[:1],
        "The mouth.\nPerhaps.",
    ):
        assert text in page.replace("&#39;", "'")
    # Plots take the page's colours, in the light and in the dark.
    assert "var(--ink)" in page and "#1c2834" not in page and "prefers-color-scheme: dark" in page


def test_the_pdf_has_what_the_page_has(full_case, tmp_path, pdf):
    write_pdf(full_case, tmp_path / "case.pdf")
    assert (tmp_path / "case.pdf").read_bytes().startswith(b"%PDF")
    pages = pdf(tmp_path / "case.pdf")
    assert len(pages) >= 3
    texts = [squeezed(page.get_textpage().get_text_range()) for page in pages]
    for number, text in enumerate(texts, start=1):
        assert squeezed(f"page {number} of {len(pages)}") in text and full_case.sha256 in text
        assert full_case.time in text
    whole = "".join(texts)
    for text in (
        full_case.headline,
        NOTICE,
        *full_case.meaning[1:],
        *full_case.attribution.limits,
        *(plot.caption for plot in full_case.attribution_plots),
        "What is <b>odd</b>?",
        "The mouth.",
        *(value for _, value in full_case.detector),
        *(value for _, value in full_case.software),
    ):
        assert squeezed(text) in whole, text
    # Every window is in the table, and all figures are there: paths and pictures, which no text tells.
    assert sum(squeezed(clock(window["start"])) in whole for window in full_case.timeline) == 5
    paths = [sum(item.type == PATH for item in page.get_objects()) for page in pages]
    assert sum(paths) > 200 and pdf(tmp_path / "case.pdf").get_metadata_dict()["Title"].startswith(
        "Case report: "
    )


def test_lines_fit_the_page(full_case, tmp_path, pdf):
    long = "W" * 300 + " i" * 400 + " " + "0123456789abcdef" * 40 + " the score of a window" * 9
    case = replace(full_case, name=long, attribution=None, conversation=[("user", "W" * 300)])
    write_pdf(case, tmp_path / "case.pdf")
    text = ""
    for page in pdf(tmp_path / "case.pdf"):
        read = page.get_textpage()
        left, right = 19 / 25.4 * 72, page.get_width() - 19 / 25.4 * 72  # within the margins of 20 mm
        boxes = [read.get_charbox(number) for number in range(read.count_chars())]
        assert all(box[0] >= left and box[2] <= right for box in boxes if box[2] > box[0])
        text += squeezed(read.get_text_range())
    assert squeezed(long) in text and text.count("W" * 300) == 2


def test_a_character_without_a_glyph_is_shown_as_its_number(monkeypatch):
    monkeypatch.setattr(pdf_module, "_installed_fonts", list)
    monkeypatch.setattr(pdf_module, "_has_glyph", pdf_module._has_glyph.__wrapped__)
    assert drawable("中 é 한") == "\\u4e2d é \\ud55c"
    # A font of this computer that has it draws it.
    monkeypatch.setattr(pdf_module, "_installed_fonts", lambda: ["some.ttf"])
    monkeypatch.setattr(
        pdf_module, "_glyphs", lambda font: frozenset({ord("中")} if font == "some.ttf" else ())
    )
    assert drawable("中 é") == "中 \\xe9"


def test_without_the_library_it_says_what_to_install(full_case, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "plutoprint", None)
    with pytest.raises(PDFUnavailableError, match=r"pip install 'modeling-avlmm\[pdf\]'"):
        write_pdf(full_case, tmp_path / "case.pdf")
    assert not list(tmp_path.iterdir())


def test_a_page_that_asks_for_something_outside_gets_nothing(tmp_path, pdf):
    typeset('<img src="file:///etc/hostname"><p>here</p>', tmp_path / "x.pdf", "x", "2026-01-02T03:04:05Z")
    (page,) = pdf(tmp_path / "x.pdf")
    assert page.get_textpage().get_text_range().strip() == "here"
    assert not [item for item in page.get_objects() if item.type == IMAGE]

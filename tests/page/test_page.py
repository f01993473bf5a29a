"""The page: the files it accepts, the words it shows, what it deletes, and all of it in a real browser."""

import base64
import io
import re
import sys
from argparse import ArgumentParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from media_factory import make_clip
from page_factory import give, opened, serving, settled, upload, verdict_on
from PIL import Image
from transformers import pipeline

import modeling_avlmm  # noqa: F401 (registers the pipeline)
from modeling_avlmm.cli.ui import MISSING, add_arguments, run
from modeling_avlmm.explain.attribution import Attribution
from modeling_avlmm.inference.default_model import DEMONSTRATION_MODEL
from modeling_avlmm.media import MediaReader
from modeling_avlmm.page.actions import Page
from modeling_avlmm.page.pictures import MELS, heat_pictures, mel_height, mel_picture, sound_marks
from modeling_avlmm.page.session import ClipRefusedError, Limits, Visits
from modeling_avlmm.page.views import (
    closeup_view,
    notice,
    passages,
    player_view,
    sound_passages,
    ticks,
    timeline,
    verdict_view,
)

# -- files that are accepted, and what is deleted -----------------------------------------------------------------------------


def test_take_keeps_the_clip_in_the_visit_alone_and_the_end_deletes_it(visits, clips):
    visit = visits.of("tab")
    given = upload(visits.root, clips["clip"], "My clip.mp4")
    visit.take(given, Limits())
    assert visit.name == "My clip.mp4" and visit.clip.read_bytes() == clips["clip"].read_bytes()
    assert not given.exists() and not given.parent.exists()
    assert (
        visits.of("tab") is visit and visits.by_token(visit.token) is visit and visits.by_token("é") is None
    )
    folder = visit.folder
    visits.end("tab")
    assert not folder.exists() and visit.closed and visit.clip is None and len(visits) == 0
    assert visits.by_token(visit.token) is None
    with pytest.raises(FileNotFoundError):
        visit.file("report.pdf")


def test_a_new_clip_replaces_the_old_one_and_what_was_known_of_it(visits, clips):
    visit = visits.of("tab")
    visit.take(upload(visits.root, clips["clip"]), Limits())
    visit.result, visit.messages = {"label": "fake"}, [{"role": "user", "content": "?"}]
    visit.file("report.pdf").write_bytes(b"old")
    visit.take(upload(visits.root, clips["sound"]), Limits())
    assert [path.name for path in visit.folder.iterdir()] == [visit.clip.name] and visit.clip.suffix == ".wav"
    assert visit.result is None and visit.messages == []


@pytest.mark.parametrize(
    ("name", "limits", "message"),
    [
        ("broken", Limits(), r"notes\.mp4 is not a video or sound file"),
        ("long", Limits(max_seconds=5), r"notes\.mp4 lasts 10 s, and the limit is 5 s"),
        ("clip", Limits(max_mb=0.001), r"notes\.mp4 has \d\.\d MB, and the limit is 0\.001 MB"),
    ],
)
def test_what_is_refused_says_why_is_deleted_and_leaves_the_clip_before_it(
    visits, clips, name, limits, message
):
    visit = visits.of("tab")
    visit.take(upload(visits.root, clips["short"]), Limits())
    before, content = visit.clip, visit.clip.read_bytes()
    given = upload(visits.root, clips[name], "notes.mp4")
    with pytest.raises(ClipRefusedError, match=message):
        visit.take(given, limits)
    assert not given.exists() and visit.clip == before and before.read_bytes() == content
    assert [path.name for path in visit.folder.iterdir()] == [before.name]


@pytest.mark.parametrize("text", ["", "plain words, renamed\n" * 40, "#EXTM3U\nhttp://example.org/a.ts\n"])
def test_text_is_not_media_whatever_its_name(visits, tmp_path, text):
    source = tmp_path / "text.mp4"
    source.write_text(text)
    with pytest.raises(ClipRefusedError, match="is not a video or sound file"):
        visits.of("tab").take(upload(visits.root, source), Limits())


def test_a_closed_visit_takes_nothing(visits, clips):
    visit = visits.of("tab")
    visits.end("tab")
    visit.folder.mkdir()
    with pytest.raises(ClipRefusedError, match="has ended"):
        visit.take(upload(visits.root, clips["clip"]), Limits())
    assert list(visit.folder.iterdir()) == []


def test_limits_and_lengths_in_words():
    assert str(Limits()) == "up to 200 MB and 10 min"
    with pytest.raises(ValueError, match="max_seconds must be above 0"):
        Limits(max_seconds=0)


# -- what is shown -----------------------------------------------------------------------------------------------------


WINDOWS = [
    {"start": 0.0, "end": 3.0, "score": 0.1, "video_score": 0.2, "audio_score": 0.6},
    {"start": 3.0, "end": 6.0, "score": 0.9, "video_score": 0.7, "audio_score": 0.8},
    {"start": 5.0, "end": 8.0, "score": 0.3, "video_score": None, "audio_score": 0.1},
]


def test_timeline_cells_do_not_overlap_and_keep_their_windows():
    cells = timeline({"windows": WINDOWS, "threshold": 0.5}, 8.0)
    assert [(cell["left"], cell["width"]) for cell in cells] == [(0.0, 37.5), (37.5, 25.0), (62.5, 37.5)]
    assert [cell["score"]["label"] for cell in cells] == ["real", "fake", "real"]
    assert cells[1]["end"] == 6.0 and cells[2]["video_score"] == {"score": None, "label": None}
    found = passages(cells)
    assert [(cell["start"], cell["parts"], cell["strongest"]) for cell in found] == [
        (3.0, ["clip", "picture", "sound"], 0.9),
        (0.0, ["sound"], 0.6),
    ]
    heard = sound_passages(cells, 8.0)
    assert heard == [{"start": 0.0, "end": 6.0, "score": 0.8, "left": 0.0, "width": 75.0}]


def test_windows_have_the_label_that_the_file_would_have_with_their_score(visits, clips):
    result = result_of("uncertain", 0.3, windows=WINDOWS, abstain_band=[0.2, 0.6], threshold=0.4)
    cells = timeline(result, 8.0)
    assert [cell["score"]["label"] for cell in cells] == ["real", "fake", "uncertain"]
    # A single window is the whole file.
    alone = result_of("uncertain", 0.45, windows=[{**WINDOWS[2], "score": 0.45}], abstain_band=[0.3, 0.6])
    assert passages(timeline(alone, 8.0)) == []
    visit = visits.of("tab")
    visit.take(upload(visits.root, clips["clip"]), Limits())
    visit.result = alone
    shown = player_view(visit, None)
    assert "av-cell av-uncertain" in shown and "av-cell av-fake" not in shown
    assert "clip 0.45, uncertain" in shown and "No passage is called fake." in shown
    # Without `abstain` there is no band, for the file as for its windows.
    assert timeline({**alone, "abstain_band": None}, 8.0)[0]["score"]["label"] == "fake"


def test_axis_times():
    assert [tick["time"] for tick in ticks(9.0)] == [0, 2, 4, 6, 8]
    assert len(ticks(5400)) <= 7


def test_mel_picture_has_a_tone_at_its_height_and_its_time(tmp_path):
    time_axis = torch.arange(32_000) / 16_000
    tone = 0.5 * torch.sin(2 * torch.pi * 1000 * time_axis) * (time_axis >= 1.0)
    soundfile.write(tmp_path / "tone.wav", tone.numpy(), 16_000)
    with MediaReader(tmp_path / "tone.wav") as reader:
        kind, data = mel_picture(reader).split(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    opacity = np.asarray(image)[..., 1]
    assert kind == "data:image/png;base64" and opacity.shape == (MELS, 200)
    row = opacity[:, 150].argmax()
    assert abs((MELS - 0.5 - row) / MELS - mel_height(1000)) < 1.5 / MELS
    assert opacity[:, :90].max() == 0 and opacity[row, 110:190].min() == 255
    assert mel_height(0) == 0 and mel_height(8000) == mel_height(9000) == 1


def test_mel_picture_is_the_same_however_it_is_read(tmp_path, monkeypatch):
    noise = 0.1 * torch.randn(48_000, generator=torch.Generator().manual_seed(0))
    soundfile.write(tmp_path / "noise.wav", noise.numpy(), 16_000)
    pictures = []
    for seconds in (30.0, 0.7):
        monkeypatch.setattr("modeling_avlmm.page.pictures.PIECE_SECONDS", seconds)
        with MediaReader(tmp_path / "noise.wav") as reader:
            pictures.append(mel_picture(reader))
    assert pictures[0] == pictures[1]


def test_clip_without_sound_has_no_mel_picture(clips):
    with MediaReader(clips["silent"]) as reader:
        assert mel_picture(reader) is None


def test_heat_marks_the_strongest_places():
    picture = np.full((2, 4, 4), -0.5)
    picture[1, 2, 3], picture[1, 0, 0], picture[0, 1, 1] = 0.8, 0.1, 0.4
    shown = heat_pictures(np.full((2, 32, 32, 3), 90, dtype=np.uint8), picture)
    assert [frame["index"] for frame in shown] == [0, 1]
    assert shown[1]["boxes"] == [{"left": 75.0, "top": 50.0, "width": 25.0, "height": 25.0, "value": 0.8}]
    image = Image.open(io.BytesIO(base64.b64decode(shown[1]["image"].split(",")[1])))
    red, _, blue = np.asarray(image)[20, 28].astype(int)
    assert red - blue > 40 and np.ptp(np.asarray(image)[28, 4].astype(int)) < 12
    assert [
        frame["index"] for frame in heat_pictures(np.zeros((2, 8, 8, 3), np.uint8), picture, limit=1)
    ] == [1]


def found_sound(sound: np.ndarray) -> Attribution:
    return Attribution(
        part="overall",
        method="occlusion",
        measure="score",
        start=3.0,
        end=5.0,
        name="clip.mp4",
        score=0.9,
        baseline=0.1,
        sound=sound,
        band_edges_hz=np.array([0.0, 1000.0, 8000.0]),
        times=np.array([3.5, 4.5]),
    )


def test_sound_marks_sit_where_the_map_is_strong():
    (mark,) = sound_marks(found_sound(np.array([[0.0, 0.05], [0.6, -0.2]])))
    assert (mark["start"], mark["end"], mark["low"], mark["high"]) == (3.0, 4.0, 1000.0, 8000.0)
    assert mark["bottom"] == pytest.approx(100 * mel_height(1000)) and mark["bottom"] + mark[
        "height"
    ] == pytest.approx(100)
    assert sound_marks(found_sound(-np.ones((2, 2)))) == []


def fake_detector(**config):
    settings = {"abstain_band": None, "notice": None, "name_or_path": "my-org/my-detector", **config}
    return SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(**settings)))


def result_of(label, score, **more):
    return {
        "label": label,
        "score": score,
        "video_score": 0.2,
        "audio_score": None,
        "threshold": 0.4,
        "windows": WINDOWS,
        "duration": 8.0,
        "has_video": True,
        "has_audio": False,
        "num_frames": 30,
        "warnings": ["no audio track"],
        "error": None,
        **more,
    }


@pytest.mark.parametrize(
    ("label", "score", "words"),
    [
        ("fake", 0.7, ("Called fake", "at or above 0.40")),
        ("real", 0.1, ("Not called fake", "not trained on")),
        ("uncertain", 0.45, ("Uncertain", "between 0.30 and 0.60")),
    ],
)
def test_verdict_in_words(visits, clips, label, score, words):
    visit = visits.of("tab")
    visit.take(upload(visits.root, clips["silent"], "<b>me.mp4"), Limits())
    visit.result = result_of(label, score)
    shown = verdict_view(visit, fake_detector(abstain_band=(0.3, 0.6), notice="only a demonstration"))
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", shown))
    for part in (
        *words,
        f"{score:.2f}",
        "no sound",
        "No audio track.",
        "Only a demonstration.",
        "my-org/my-detector",
    ):
        assert part in text
    assert "<b>me" not in shown and "&lt;b&gt;me.mp4" in shown and visit.sha256[:16] in shown


def test_player_names_windows_for_eyes_ears_and_keys(visits, clips):
    visit = visits.of("tab")
    visit.take(upload(visits.root, clips["clip"], 'a" onerror="x.mp4'), Limits())
    visit.result = result_of("fake", 0.7, has_audio=True)
    shown = player_view(visit, "data:image/png;base64,AAAA", offset=0.25)
    assert shown.count('class="av-cell') == 8 and shown.count("av-cell av-fake") == 4
    assert 'role="slider"' in shown and 'tabindex="0"' in shown and 'data-offset="0.25"' in shown
    assert 'title="0:03.0 to 0:06.0, clip 0.90, fake"' in shown and 'data-seek="3.0"' in shown
    assert "Sound called fake from 0:00.0 to 0:06.0." in shown and '" onerror="' not in shown
    assert f"/clip/{visit.token}/{visit.clip.name}" in shown and notice("error", "") == ""


def test_player_shows_where_picture_and_sound_disagree(visits, clips):
    visit = visits.of("tab")
    visit.take(upload(visits.root, clips["clip"], "x.mp4"), Limits())
    visit.result = result_of("fake", 0.7, has_audio=True)
    assert "Disagrees" not in player_view(visit, None)
    seconds = visit.result["duration"]
    line = [{"time": 0.0, "disagreement": 0.25}, {"time": seconds / 2, "disagreement": 1.0}]
    visit.result |= {"timeline": line, "disagreement": 0.625}
    shown = player_view(visit, None)
    assert '<polyline points="0.000,75.00 50.000,0.00"/>' in shown and ">Disagrees<" in shown
    assert shown.count("0.62 on average") == 3  # for eyes, for ears, and under the pointer


# -- serving -----------------------------------------------------------------------------------------------------------


def options(*arguments: str):
    parser = ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert run(options("--no-browser")) == 2
    assert MISSING in capsys.readouterr().err and "pip install" in MISSING


def test_defaults_are_private():
    given = options()
    assert (given.host, given.port, given.max_mb, given.max_seconds, given.open) == (
        "127.0.0.1",
        7860,
        200,
        600,
        True,
    )
    assert not options("--no-browser").open and not options("--no-open").open


def test_wrong_options_end_the_command(capsys):
    pytest.importorskip("gradio", reason="the page needs the `ui` extra")
    assert run(options("--max-mb", "0")) == 2 and "max_mb must be above 0" in capsys.readouterr().err
    assert run(options("--model", "./nowhere")) == 2 and "There is no folder" in capsys.readouterr().err


@pytest.fixture(scope="module")
def detector():
    return pipeline("av-deepfake-detection", model=str(DEMONSTRATION_MODEL))


@pytest.fixture(scope="module")
def server(detector, tmp_path_factory):
    """Serve the page at a free port, with small limits."""
    visits = Visits(tmp_path_factory.mktemp("page"))
    with serving(Page(detector, Limits(max_mb=2, max_seconds=20), grid=2, visits=visits)) as made:
        yield made


def test_the_port_is_in_use(server, capsys):
    assert run(options("--port", str(server.port), "--no-browser")) == 2
    assert "Give another --port" in capsys.readouterr().err


def test_the_page_names_no_other_machine(server):
    import httpx

    answer = httpx.get(server.address)
    assert answer.status_code == 200 and "default-src 'self'" in answer.headers["content-security-policy"]
    assert not re.findall(r"<(?:script|link)[^>]*(?:src|href)=[\"']?(?:https?:)?//", answer.text)
    assert httpx.get(server.address, headers={"host": "rebound.example.org"}).status_code == 400
    assert httpx.get(f"{server.address}/clip/guess/1.mp4").status_code == 404


def test_loopback_addresses():
    pytest.importorskip("gradio", reason="the page needs the `ui` extra")
    from modeling_avlmm.page.server import OUTSIDE, is_loopback

    assert [
        is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "[::1]", "0.0.0.0", "box.lan")
    ] == [
        *[True] * 4,
        False,
        False,
    ]
    page = b'<link rel="preconnect" href="https://fonts.example"><script src="//cdn/x.js" async></script><link href="./a.css">'
    assert OUTSIDE.sub(b"", page) == b'<link href="./a.css">'


def test_the_detector_that_writes_is_the_one_that_is_looked_into(visits, clips, tiny_detector):
    writer = pipeline("av-deepfake-detection", model=str(tiny_detector))
    page = Page(writer, Limits(), writer, grid=2, visits=visits)
    visit = visits.of("tab")
    visit.take(upload(visits.root, clips["clip"]), Limits())
    page.judge(visit)
    page.look_closer(visit)
    found = visit.attribution
    assert found.picture.shape[1:] == (2, 2) and set(found.regions) >= {"mouth", "eyes"} and found.bands
    (window,) = visit.result["windows"]
    assert found.score == pytest.approx(window["score"], abs=1e-5)
    shown = closeup_view(found, visit.result)
    assert "the mouth" in shown and "not proof" in shown and "cut out around" not in shown
    *_, messages = page.ask(visit, "Where do you see it?")
    assert [message["role"] for message in messages] == ["user", "assistant"] and messages[1]["content"]


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tab(browser, server):
    """Open the page in a new session."""
    with opened(browser, server) as page:
        yield page


def files_in(root: Path) -> list[str]:
    return sorted(
        str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.stat().st_size
    )


def test_a_visit_from_upload_to_report(tab, server, clips):
    give(tab, clips["long"])
    verdict_on(tab, "long.mp4")
    assert tab.locator(".av-parts tbody tr").count() == 3
    assert "demonstration" in tab.inner_text(".av-warnings").lower()

    # A click on the timeline, and its keys, move the player.
    tab.wait_for_function("document.querySelector('.av-player video').readyState >= 1")
    cells = tab.locator(".av-timeline .av-row:first-child .av-cell")
    assert cells.count() == 4
    cells.nth(2).click()
    tab.wait_for_function("Math.abs(document.querySelector('.av-player video').currentTime - 6) < 0.01")
    timeline = tab.locator(".av-timeline")
    timeline.focus()
    timeline.press("ArrowLeft")
    tab.wait_for_function("Math.abs(document.querySelector('.av-player video').currentTime - 3) < 0.01")
    assert timeline.get_attribute("aria-valuenow") == "3.00" and "score" in timeline.get_attribute(
        "aria-valuetext"
    )
    box = tab.locator(".av-mel").bounding_box()
    tab.mouse.click(box["x"] + box["width"] * 0.8, box["y"] + 40)
    tab.wait_for_function("Math.abs(document.querySelector('.av-player video').currentTime - 8) < 0.1")

    # What the detector reacts to, with the limits of knowing it.
    tab.click("#av-closer")
    tab.wait_for_selector("#av-closeup .av-frames img", timeout=60_000)
    assert "not proof" in tab.inner_text("#av-closeup .av-limits")

    # A question and its answer.
    tab.fill("#av-question textarea", "Which seconds are suspicious?")
    tab.press("#av-question textarea", "Enter")
    tab.wait_for_function(
        "document.querySelector('#av-chat .bot')?.innerText.trim().length > 10", timeout=30_000
    )

    # Reports, with the hash of this very file.
    (visit,) = [visit for visit in server.page.visits._of.values() if visit.name == "long.mp4"]
    for kind, start in (("html", b"<!"), ("pdf", b"%PDF")):
        with tab.expect_download(timeout=60_000) as download:
            tab.click(f"#av-{kind}")
        assert download.value.suggested_filename == f"long-report.{kind}"
        data = Path(download.value.path()).read_bytes()
        assert data.lower().startswith(start.lower())
        if kind == "html":
            text = data.decode()
            assert visit.sha256 in text and "long.mp4" in text and str(server.page.visits.root) not in text

    tab.click("#av-chat button[aria-label='Clear'], #av-chat button[title='Clear']")
    assert settled(lambda: visit.messages == []) and visit.result is not None


def test_a_wrong_file_is_named_and_the_next_one_is_taken(tab, clips, tmp_path):
    text = tmp_path / "letter.mp4"
    text.write_text("Dear reader,\n" * 100)
    give(tab, text)
    tab.wait_for_selector(
        "#av-note [role=alert]:has-text('letter.mp4 is not a video or sound file')", timeout=15_000
    )
    large = tmp_path / "large.mp4"
    large.write_bytes(b"\0" * 2_100_000)
    give(tab, large)
    tab.wait_for_selector("#av-size:has-text('large.mp4 has 2.1 MB, and the limit is 2 MB')", timeout=5_000)
    give(tab, clips["sound"])
    verdict_on(tab, "sound.wav")
    assert tab.locator(".av-player audio").count() == 1 and not tab.is_visible("#av-size")
    assert tab.locator("#av-note [role=alert]").count() == 0


def test_two_people_at_once_each_get_their_own_verdict_and_leave_nothing(browser, server, tmp_path):
    root = server.page.visits.root
    assert settled(lambda: files_in(root) == []), files_in(root)
    names = {"first.mp4": (64, 64), "second.mp4": (96, 64)}
    contexts = [browser.new_context() for _ in names]
    pages = []
    for context, (name, size) in zip(contexts, names.items(), strict=True):
        page = context.new_page()
        page.goto(server.address)
        page.wait_for_selector("#av-file input[type=file]", state="attached", timeout=20_000)
        make_clip(tmp_path / name, seconds=2.0, size=size)
        pages.append(page)
    for page, name in zip(pages, names, strict=True):
        give(page, tmp_path / name)
    for page, (name, size) in zip(pages, names.items(), strict=True):
        verdict_on(page, name)
        assert f"{size[0]} \u00d7 {size[1]}" in page.inner_text(".av-facts")
        assert [name] == [text.strip() for text in page.locator(".av-kicker .av-name").all_inner_texts()]
    assert len(files_in(root)) == 2
    address = pages[0].get_attribute(".av-player video", "src")
    contexts[0].close()
    assert settled(lambda: len(files_in(root)) == 1), files_in(root)
    assert pages[1].request.get(server.address + address).status == 404
    contexts[1].close()
    assert settled(lambda: files_in(root) == []), files_in(root)

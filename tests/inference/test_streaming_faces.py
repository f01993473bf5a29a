"""Streaming with faces: the pipeline's scores, who is suspicious, and bounded memory."""

from __future__ import annotations

import pytest
import torch
from face_detectors import DARK, LIGHT, SOUND_SCORE, detector_of_skin
from face_factory import Person, clip_with_faces, face_clip, voice

from modeling_avlmm.cli.stream import _line, _people
from modeling_avlmm.inference import stream_scores
from modeling_avlmm.inference.streaming import StreamingDetector
from modeling_avlmm.pipeline_scores import FileScores

SCORES = ("score", "video_score", "audio_score")
STAYS = Person(LIGHT, (0.25, 0.5), (0.25, 0.5))
COMES = Person(DARK, (0.75, 0.5), (0.75, 0.5), seen=(2.5, 8.0))


@pytest.fixture(scope="module")
def detector():
    return detector_of_skin()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    return str(face_clip(folder / "clip.mkv", [STAYS, COMES], seconds=5, size=(640, 360)))


def test_scores_are_the_pipelines(detector, clip):
    expected = detector(clip, window_seconds=2, hop_seconds=1)
    stream = StreamingDetector(detector.model, detector.processor)
    windows = list(stream.stream_file(clip, patience=0))
    assert len(windows) == len(expected["windows"]) == 4
    for window, other in zip(windows, expected["windows"], strict=True):
        for name in SCORES:
            assert window[name] == pytest.approx(other[name], abs=1e-5)
    assert [[face["index"] for face in window["faces"]] for window in windows] == [
        [0],
        [1, 0],
        [1, 0],
        [1, 0],
    ]
    assert windows[3]["faces"][0]["video_score"] == windows[3]["video_score"] > 0.7
    left, top, right, bottom = windows[3]["faces"][0]["box"]
    assert 0.6 < left < 0.75 < right < 0.9 and 0.2 < top < 0.5 < bottom < 0.8
    summary = stream.summary()
    for name in SCORES:
        assert summary[name] == pytest.approx(expected[name], abs=1e-4)
    assert summary["audio_score"] == pytest.approx(SOUND_SCORE) and summary["faces_found"] == 2
    for face, other in zip(summary["faces"], expected["faces"][::-1], strict=True):
        assert face["index"] == other["index"]
        assert face["video_score"] == pytest.approx(other["video_score"], abs=1e-4)
    highest = detector(clip, window_seconds=2, hop_seconds=1, aggregate="max")
    assert summary["max_score"] == pytest.approx(highest["score"], abs=1e-5)
    words = _line(windows[3], summary)
    assert f"person 2 {windows[3]['video_score']:.3f}  person 1 0.0" in words
    first, second = _people(summary)
    assert first.startswith("  person 2, 0:02.") and second.startswith("  person 1, 0:00.0 to 0:05.0: ")


def test_what_is_kept_does_not_grow(detector):
    stream = StreamingDetector(detector.model, detector.processor)
    clip = clip_with_faces(1.0, people=[Person(DARK, (0.5, 0.5), (0.5, 0.5))])
    kept = []
    for second in range(10):
        (stream.push(clip.frames, clip.times + second, voice(1.0)))
        images = {id(image) for taken in stream.windows.frames.values() for image in taken}
        assert all(
            image.shape[-2:] == (240, 320) for taken in stream.windows.frames.values() for image in taken
        )
        seen = sum(len(person.times) for person in stream._scores.people._tracker._people)
        kept.append((len(images), len(stream._scores.people.found.faces), seen))
    images, faces, seen = (max(column) for column in zip(*kept[3:], strict=True))
    assert images <= 16 and faces == 1 and seen <= 16
    assert stream.summary()["faces_found"] == 1


def test_a_stream_without_a_face_is_told_once(detector):
    stream = StreamingDetector(detector.model, detector.processor)
    grey = torch.full((10, 3, 120, 160), 120, dtype=torch.uint8)
    rows = [row for at in range(6) for row in stream.push(grey, torch.arange(10) / 10 + at, voice(1.0))]
    assert len(rows) > 2 and all(row["video_score"] is None and row["faces"] == [] for row in rows)
    assert stream.summary()["warnings"] == [stream_scores.NO_FACE]


def test_faces_that_are_gone_are_forgotten_but_for_the_worst():
    scores = FileScores(False)
    for face in range(1000):
        value = 0.9 if face == 17 else face / 2000
        row = {
            "start": float(face),
            "end": face + 1.0,
            "score": value,
            "video_score": value,
            "audio_score": 0.5,
        }
        scores.add([{**row, "face": face, "seen_from": float(face), "seen_to": face + 1.0}])
        scores.forget(face - 2.0, 100)
        assert len(scores.faces) <= 203
    assert scores.deciding_face() == scores.deciding_face("max") == 17 and scores.of_file()["score"] == 0.9

"""The pipeline with faces: one and several people, coming and going, none, small ones, cuts, batches and workers."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pytest
import torch
from avpl_factory import tiny as tiny_avpl
from face_detectors import ALONE_SCORE, DARK, LIGHT, SOUND_SCORE, detector_of_skin, log_odds
from face_factory import LEFT, RIGHT, Person, clip_with_faces, face_clip, joined, write_clip
from facevoice_factory import SMALL as FACEVOICE
from facevoice_factory import tiny as tiny_facevoice
from ssavd_factory import save_small
from transformers import pipeline

from modeling_avlmm import (
    AVDeepfakeDetectionPipeline,
    AVPLProcessor,
    FaceVoiceProcessor,
    MediaReader,
    SSAVDProcessor,
    pipeline_results,
)
from modeling_avlmm.face_windows import MOST_BOXES, NO_FACE, SeenFace
from modeling_avlmm.faces import find_tracks
from modeling_avlmm.publishing.elsewhere import DETECT, run_without_package

SCORES = ("score", "video_score", "audio_score")
STILL = (0.5, 0.5)
ALONE = Person(DARK, STILL, STILL)
WIDE = {"size": (640, 360)}
"""A picture in which two people are far from small."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faces")


@pytest.fixture(scope="module")
def clips(folder):
    """Clips of 6 s, at 10 frames a second, with sound."""
    leaves = Person(LIGHT, (0.25, 0.5), (0.25, 0.5), seen=(0.0, 4.0))
    comes = Person(DARK, (0.75, 0.5), (0.75, 0.5), seen=(2.5, 6.0))
    made = {
        "one": face_clip(folder / "one.mp4", [ALONE], seconds=6, **WIDE),
        "two": face_clip(folder / "two.mp4", [LEFT, RIGHT], seconds=6, **WIDE),
        "coming": face_clip(folder / "coming.mp4", [leaves, comes], seconds=6, **WIDE),
        "nobody": face_clip(folder / "nobody.mp4", [], seconds=4, **WIDE),
        "mute": face_clip(folder / "mute.mp4", [], sound=False, seconds=2, **WIDE),
        "begins": face_clip(
            folder / "begins.mp4", [Person(DARK, STILL, STILL, seen=(0, 2))], seconds=6, **WIDE
        ),
    }
    return {name: str(path) for name, path in made.items()}


@pytest.fixture(scope="module")
def detector():
    return detector_of_skin()


def means(detector, clip: str, index: int) -> list[float]:
    """Return the scores of a face in each window, cut out by the tracks of the whole file."""
    processor = detector.processor
    scores = []
    with MediaReader(clip) as reader:
        track = find_tracks(reader, fps=processor.fps)[index]
        for start, end in reader.windows(processor.max_seconds):
            faces = reader.read(start, end, processor.fps, track=track, face_side=processor.image_size).frames
            scores.append(float(torch.sigmoid(log_odds(faces).mean())))
    return scores


# -- known answers -----------------------------------------------------------------------------------------------------


def test_one_person(detector, clips):
    result = detector(clips["one"])
    (face,) = result["faces"]
    expected = means(detector, clips["one"], 0)
    assert [w["video_score"] for w in result["windows"]] == pytest.approx(expected, abs=0.02)
    assert result["video_score"] == result["score"] == pytest.approx(np.mean(expected), abs=0.02)
    assert min(expected) > 0.7 and result["label"] == "fake"
    assert result["audio_score"] == pytest.approx(SOUND_SCORE)
    assert (face["index"], face["start"]) == (0, 0.0) and 5.8 < face["end"] <= result["duration"]
    assert face["video_score"] == face["score"] == result["score"]
    assert face["windows"] == [{k: w[k] for k in ("start", "end", "video_score")} for w in result["windows"]]
    assert result["warnings"] == [] and result["num_frames"] == 24
    assert len(face["boxes"]) == 24 and face["size"] == pytest.approx(0.4 * 360, rel=0.2)
    for seen in face["boxes"]:
        left, top, right, bottom = seen["box"]
        assert (left + right) / 2 == pytest.approx(0.5, abs=0.03)
        assert (top + bottom) / 2 == pytest.approx(0.5, abs=0.05)
    assert json.loads(json.dumps(result)) == result


def test_the_more_suspicious_of_two_decides(detector, clips):
    result = detector(clips["two"])
    light, dark = result["faces"] if result["faces"][0]["boxes"][0]["box"][0] < 0.4 else result["faces"][::-1]
    assert light["video_score"] < 0.3 and dark["video_score"] > 0.7
    assert [result[name] for name in SCORES] == [
        dark["score"],
        dark["video_score"],
        pytest.approx(SOUND_SCORE),
    ]
    assert [w["video_score"] for w in result["windows"]] == [w["video_score"] for w in dark["windows"]]
    assert any("a listener's lips" in text for text in result["warnings"])
    assert result["num_frames"] == 24  # frames are counted once, not for each face


def test_people_who_come_and_go(detector, clips):
    result = detector(clips["coming"])
    light, dark = result["faces"]
    assert (light["start"], light["end"]) == (0.0, pytest.approx(4.0, abs=0.3))
    assert (dark["start"], dark["end"]) == (pytest.approx(2.5, abs=0.3), pytest.approx(6.0, abs=0.3))
    assert [(w["start"], w["end"]) for w in light["windows"]] == [(0.0, 2.0), (2.0, 4.0)]
    assert [(w["start"], w["end"]) for w in dark["windows"]] == [
        (2.0, 4.0),
        (4.0, pytest.approx(6.0, abs=0.1)),
    ]
    # In the last two windows somebody is there who looks fake; the first has the other one alone.
    assert [w["video_score"] > 0.5 for w in result["windows"]] == [False, True, True]
    # A window counts by the time for which a face is there: 1.5 s and 2 s.
    first, second = (w["video_score"] for w in dark["windows"])
    assert dark["video_score"] == pytest.approx((1.5 * first + 2 * second) / 3.5, abs=0.01)
    assert result["video_score"] == dark["video_score"]
    highest = detector(clips["coming"], aggregate="max")
    assert highest["score"] == max(first, second)


def test_the_largest_alone(clips, folder):
    near, far = Person(LIGHT, (0.3, 0.5), (0.3, 0.5), 0.5), Person(DARK, (0.75, 0.5), (0.75, 0.5), 0.3)
    clip = str(face_clip(folder / "near.mp4", [near, far], seconds=2, **WIDE))
    result = detector_of_skin("largest")(clip)
    chosen = max(result["faces"], key=lambda face: face["size"])
    other = min(result["faces"], key=lambda face: face["size"])
    assert result["score"] == chosen["score"] < 0.3
    assert other["score"] is other["video_score"] is None and other["windows"] == [] and other["boxes"]
    assert result["warnings"] == ["1 face not scored: not the largest"]
    assert detector_of_skin("largest")(clip, faces="all")["score"] > 0.7


# -- nothing to look at ------------------------------------------------------------------------------------------------


def test_no_face_leaves_the_sound(detector, clips):
    result = detector(clips["nobody"])
    assert result["faces"] == [] and result["video_score"] is None and result["error"] is None
    assert result["audio_score"] == pytest.approx(SOUND_SCORE) and result["score"] == pytest.approx(
        ALONE_SCORE
    )
    assert result["warnings"] == [NO_FACE] and result["has_video"]


def test_no_face_and_no_sound_is_told(detector, clips):
    for result in (detector(clips["mute"]), detector([clips["mute"]])[0]):
        assert result["label"] is result["score"] is None and result["faces"] == []
        assert result["error"]["type"] == "NoVerdictError"
        assert "mute.mp4: there is nothing to score" in result["error"]["message"]
        assert NO_FACE in result["error"]["message"] and "no audio track" in result["error"]["message"]


def test_small_faces_are_reported_and_not_scored(clips):
    result = detector_of_skin(min_face_size=200)(clips["one"])
    (face,) = result["faces"]
    assert (
        100 < face["size"] < 200 and face["boxes"] and face["video_score"] is None and face["windows"] == []
    )
    assert result["video_score"] is None and result["score"] == pytest.approx(ALONE_SCORE)
    where, count = result["warnings"]
    assert where.startswith(
        "no face is as large as 200 pixels at 0.00-2.00, 2.00-4.00, 4.00-6.00 s: the picture"
    )
    assert count == "1 face not scored: smaller than 200 pixels"


def test_passages_without_a_face_are_told(detector, clips):
    result = detector(clips["begins"])
    assert [w["video_score"] is None for w in result["windows"]] == [False, True, True]
    assert result["windows"][1]["score"] == pytest.approx(ALONE_SCORE)
    assert result["score"] == result["faces"][0]["score"] == result["windows"][0]["score"]
    (told,) = result["warnings"]
    assert "no face was found in the picture at 2.00-4.00, 4.00-6.00 s" in told


def test_sound_alone_and_whole_frames(detector, clips):
    with MediaReader(clips["one"]) as reader:
        sound = reader.read(0, 2, with_video=False).audio
    heard = detector({"audio": {"array": sound.numpy(), "sampling_rate": 16_000}})
    assert heard["faces"] == [] and heard["warnings"] == [] and heard["score"] == pytest.approx(ALONE_SCORE)
    whole = detector(clips["one"], faces="off")
    assert whole["faces"] is None and whole["num_frames"] == 24
    assert detector_of_skin("off")(clips["one"]) == whole
    with pytest.raises(ValueError, match="faces must be one of"):
        detector(clips["one"], faces="some")


def test_a_moment_decides_only_alone(folder):
    """A dark face for 0.3 s beside a light one: it is in the result, but not what the clip is called fake for."""
    light, dark = (
        Person(LIGHT, (0.25, 0.5), (0.25, 0.5)),
        Person(DARK, (0.75, 0.5), (0.75, 0.5), seen=(1.0, 1.2)),
    )
    clip = str(face_clip(folder / "moment.mp4", [light, dark], seconds=2, **WIDE))
    result = detector_of_skin()(clip)
    assert len(result["faces"]) == 2 and result["faces"][1]["score"] > 0.7
    assert result["score"] == result["faces"][0]["score"] < 0.3


def test_many_faces_are_told(folder, monkeypatch):
    """Four scenes with another person each: a cut ends a face."""
    monkeypatch.setattr(pipeline_results, "MANY_FACES", 4)
    people = [Person(2, (0.3, 0.5), (0.3, 0.5)), Person(3, (0.7, 0.5), (0.7, 0.5))] * 2
    scenes = [clip_with_faces(1.0, people=[person], scene=1 + n) for n, person in enumerate(people)]
    clip = write_clip(folder / "scenes.mp4", joined(*scenes))
    result = detector_of_skin()(str(clip))
    assert [face["start"] for face in result["faces"]] == pytest.approx([0, 1, 2, 3], abs=0.3)
    assert any("the highest of 4 faces" in text for text in result["warnings"])


# -- equality ----------------------------------------------------------------------------------------------------------


def same(one: dict, other: dict) -> bool:
    """Compare results up to rounding in batches."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, abs_tol=1e-6)
    return one == other


def test_batches_and_workers_change_nothing(detector, clips):
    files = [clips[name] for name in ("two", "mute", "coming", "nobody", "one")] + ["missing.mp4"]
    expected = detector(files)
    detector.network.batches.clear()
    assert same(detector(files, batch_size=4), expected)
    assert max(detector.network.batches) > 1  # rows of several windows and faces went in together
    for workers in (1, 2):
        assert same(list(detector(files, num_workers=workers, batch_size=3)), expected)


def test_overlapping_windows_look_at_each_picture_once(detector, clips):
    result = detector(clips["coming"], window_seconds=2, hop_seconds=1)
    light, dark = result["faces"]
    assert [w["start"] for w in light["windows"]] == [0, 1, 2, 3] and [
        w["start"] for w in dark["windows"]
    ] == [1, 2, 3, 4]
    times = [seen["time"] for seen in dark["boxes"]]
    assert times == sorted(set(times)) and 12 <= len(times) <= 16


def test_known_tracks_take_the_place_of_finding(detector, clips, monkeypatch):
    asked = []

    def tracks(source):
        asked.append(source)
        with MediaReader(source) as reader:
            return find_tracks(reader, fps=detector.processor.fps)

    expected = detector(clips["two"])
    known = detector(clips["two"], tracks=tracks)
    assert asked == [clips["two"]]
    for name in SCORES:
        assert known[name] == pytest.approx(expected[name], abs=0.02)
    assert [len(face["boxes"]) for face in known["faces"]] == [
        len(face["boxes"]) for face in expected["faces"]
    ]
    assert same(detector(clips["two"], tracks=lambda source: None), expected)
    nobody = detector(clips["two"], tracks=lambda source: [])
    assert nobody["faces"] == [] and nobody["video_score"] is None and NO_FACE in nobody["warnings"]


def test_a_processor_reads_the_largest_face(clips):
    """`processor(media)` gives one row a clip, equal to the pipeline's for the largest face."""
    for faces in ("largest", "all"):
        processor = SSAVDProcessor(4.0, 8, 2.0, 56, faces=faces)
        clip = processor.load(clips["two"], end=2.0)
        assert clip.frames.shape == (8, 3, 56, 56) and clip.has_audio
    detector = detector_of_skin("largest")
    clip = detector.processor.load(clips["coming"], end=2.0)
    batch = detector.processor(clip)
    assert batch["pixel_values"].shape[0] == 1 and torch.equal(batch["pixel_values"][0], clip.frames)
    seen = torch.sigmoid(log_odds(clip.frames).mean())
    assert float(seen) == pytest.approx(detector(clips["coming"])["windows"][0]["video_score"], abs=1e-6)
    sound = detector.processor.load(clips["nobody"], end=2.0)
    assert sound.frames is None and sound.has_audio and sound.warnings == [NO_FACE]
    with MediaReader(clips["coming"]) as reader:
        track = find_tracks(reader)[1]
    later = detector.processor.load(clips["coming"], start=4.0, tracks=[track])
    assert float(torch.sigmoid(log_odds(later.frames).mean())) > 0.7


def test_independent_parts_are_put_together_at_the_end(clips):
    """The score of facevoice is that of the more suspicious part of the file."""
    model = tiny_facevoice(**FACEVOICE)
    processor = FaceVoiceProcessor.from_config(model.config, min_face_size=20)
    detector = AVDeepfakeDetectionPipeline(model=model, processor=processor, device="cpu")
    for name in ("two", "coming", "begins", "nobody"):
        result = detector(clips[name])
        parts = [result[part] for part in ("video_score", "audio_score") if result[part] is not None]
        assert result["score"] == max(parts), name
        for face in result["faces"]:
            assert face["score"] == max(face["video_score"], result["audio_score"])
    assert not any("listener" in text for text in result["warnings"])


# -- the other detectors -----------------------------------------------------------------------------------------------


def test_avpl_matches_lips_and_sound_of_the_most_suspicious_face(clips):
    """Sixteen frames a second, of which about every third is looked at; the timeline is that of the face that decides."""
    model = tiny_avpl(num_frames=16)
    processor = AVPLProcessor.from_config(model.config, faces="all")
    detector = AVDeepfakeDetectionPipeline(model=model, processor=processor, device="cpu")
    result = detector(clips["coming"])
    dark = result["faces"][1]
    assert 17 <= len(dark["boxes"]) <= 22  # of 3.5 s
    with MediaReader(clips["coming"]) as reader:
        tracks = find_tracks(reader, fps=4)
        expected = []
        for window, (start, end) in zip(result["windows"], reader.windows(1.0), strict=True):
            rows = []
            for track in tracks:
                options = {"track": track, "face_side": processor.image_size}
                clip = reader.read(start, end, 16, 16, **options)
                if clip.has_video:
                    with torch.no_grad():
                        rows.append(model(**processor(clip)))
            worst = max(rows, key=lambda output: output.scores.item())
            assert window["score"] == pytest.approx(worst.scores.item(), abs=0.05)
            expected.append(worst.frame_scores[~worst.frame_scores.isnan()].mean().item())
    spans = [(w["start"], w["end"]) for w in result["windows"]]
    for (start, end), mean in zip(spans, expected, strict=True):
        line = [
            point["disagreement"]
            for point in result["timeline"]
            if start - 1e-6 <= point["time"] < end - 1e-6
        ]
        assert np.mean(line) == pytest.approx(mean, abs=0.05)


def test_avlmm_takes_crops_of_any_size(tiny_detector, clips):
    detector = pipeline("av-deepfake-detection", model=str(tiny_detector), device="cpu")
    whole = detector(clips["two"])
    result = detector(clips["two"], faces="all", batch_size=2)
    assert whole["faces"] is None and len(result["faces"]) == 2
    scores = [face["score"] for face in result["faces"]]
    assert result["score"] == max(scores) and len({whole["score"], *scores}) == 3
    assert all(face["video_score"] is not None for face in result["faces"])


def test_a_published_detector_finds_faces_without_the_package(clips, tmp_path):
    published = save_small(tmp_path / "published")
    processor = SSAVDProcessor.from_pretrained(published)
    processor.faces = "all"
    processor.save_pretrained(published)
    expected = pipeline("av-deepfake-detection", model=str(published), device="cpu")(clips["two"])
    (remote,) = run_without_package(DETECT, published, clips["two"], folder=tmp_path)
    assert remote.pop("module").startswith("transformers_modules.")
    assert same(remote, json.loads(json.dumps(expected))) and len(remote["faces"]) == 2


def test_a_gate_and_a_detector_for_faces(clips, gate_folder):
    plain = detector_of_skin()
    gated = AVDeepfakeDetectionPipeline(
        model=plain.model,
        processor=plain.processor,
        device="cpu",
        gate=str(gate_folder),
        gate_band=(0.0, 1.0),
    )
    result = gated(clips["two"], tracks=lambda source: None)
    assert result["decided_by"] == "model" and len(result["faces"]) == 2


# -- memory ------------------------------------------------------------------------------------------------------------


def test_boxes_are_thinned_evenly():
    seen = SeenFace(0, 0.0, 3600.0)
    times = np.arange(18_000) / 5
    for some in np.array_split(times, 100):
        boxes = np.repeat([[10.0, 20.0, 74.0, 84.0]], len(some), axis=0)
        seen.add(some, boxes, 640, 320)
        assert len(seen.boxes) <= 2 * MOST_BOXES
    entry = seen.entry()
    kept = np.array([box["time"] for box in entry["boxes"]])
    assert len(kept) == MOST_BOXES and kept[0] == 0 and kept[-1] > 3580
    assert np.diff(kept).max() < 2.5 * np.diff(kept).min() and entry["size"] == 64
    assert entry["boxes"][0]["box"] == [round(10 / 640, 4), round(20 / 320, 4), round(74 / 640, 4), 0.2625]


def test_memory_does_not_grow_with_the_file(detector, folder):
    """What the reading of a file holds at its end, beyond what it held in its middle, is small."""
    clip = clip_with_faces(2.0, people=[LEFT, RIGHT])
    path = str(write_clip(folder / "long.mp4", joined(*[clip] * 16)))
    rows, held = detector.preprocess(path), []
    tracemalloc.start()
    try:
        for row in rows:
            held.append(tracemalloc.get_traced_memory()[0])
            row.clear()
    finally:
        tracemalloc.stop()
    assert len(held) == 32 and held[-1] - held[len(held) // 2] < 200_000

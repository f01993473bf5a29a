"""The pipeline: every kind of input, windows, batches and errors, on a tiny detector."""

from __future__ import annotations

import io
import math
import socket

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from ssavd_factory import tiny
from transformers import pipeline

from modeling_avlmm import AVLMMForDeepfakeDetection, AVLMMProcessor, MediaError, SSAVDProcessor
from modeling_avlmm.configuration_detector import LOG_ODDS_NAMES, SCORE_NAMES
from modeling_avlmm.inference.gate import PREPROCESS
from modeling_avlmm.modeling_outputs import calibrated
from modeling_avlmm.pipeline_scores import FileScores

TASK = "av-deepfake-detection"
SCORES = tuple(SCORE_NAMES.values())


@pytest.fixture(scope="module")
def detector(tiny_detector):
    return pipeline(TASK, model=str(tiny_detector), device="cpu")


def scores(result: dict) -> list[float]:
    return [result[name] for name in SCORES]


def same(one: dict, other: dict, tolerance: float = 1e-5) -> bool:
    pairs = zip(scores(one), scores(other), strict=True)
    return all(a is b is None or abs(a - b) <= tolerance for a, b in pairs)


def test_one_file(detector, clips):
    result = detector(str(clips["clip"]))
    assert result["label"] == ("fake" if result["score"] >= 0.5 else "real")
    assert all(0 <= score <= 1 for score in scores(result))
    assert result["windows"] == [
        {"start": 0.0, "end": pytest.approx(2.0, abs=0.05), **dict(zip(SCORES, scores(result), strict=True))}
    ]
    assert result["has_video"] and result["has_audio"] and result["num_frames"] == 10
    assert result["error"] is None and result["warnings"] == []


def test_equals_model_and_processor(detector, tiny_detector, clips):
    model, processor = (
        AVLMMForDeepfakeDetection.from_pretrained(tiny_detector),
        AVLMMProcessor.from_pretrained(tiny_detector),
    )
    with torch.no_grad():
        output = model(**processor([clips["clip"]], questions=("overall", "video", "audio")))
    expected = [
        torch.softmax(v, -1)[0, 1].item() for v in (output.logits, output.video_logits, output.audio_logits)
    ]
    assert scores(detector(clips["clip"])) == pytest.approx(expected, abs=1e-5)


def test_every_form_of_the_same_clip_gets_the_same_verdict(detector, clips):
    expected = detector(str(clips["clip"]))
    data = clips["clip"].read_bytes()
    for form in (
        clips["clip"],
        data,
        io.BytesIO(data),
        {"video": str(clips["clip"])},
        {"video": data, "audio": None},
    ):
        assert same(detector(form), expected)
    assert same(detector([clips["clip"]])[0], expected)
    assert same(next(detector(clip for clip in [clips["clip"]])), expected)
    assert same(next(detector(iter([clips["clip"]]))), expected)


def test_video_without_sound_and_sound_without_video(detector, clips):
    silent, sound = detector(clips["silent"]), detector(clips["sound"])
    assert silent["audio_score"] is None and silent["score"] is not None and silent["video_score"] is not None
    assert any("audio" in warning for warning in silent["warnings"])
    assert sound["video_score"] is None and sound["score"] is not None and sound["audio_score"] is not None


def test_separate_sound_file(detector, clips):
    both = detector({"video": str(clips["silent"]), "audio": str(clips["sound"])})
    assert None not in scores(both) and both["has_audio"]
    assert not same(both, detector(clips["silent"]))
    # The sound of the second file replaces the first's own.
    assert not same(detector({"video": clips["clip"], "audio": clips["sound"]}), detector(clips["clip"]))


def test_long_file_is_read_in_windows(detector, clips):
    result = detector(clips["long"])
    spans = [(round(w["start"], 3), round(w["end"], 1)) for w in result["windows"]]
    assert spans == [(0.0, 4.0), (4.0, 8.0), (8.0, 10.0)]
    seconds = [w["end"] - w["start"] for w in result["windows"]]
    total = sum(w["score"] * length for w, length in zip(result["windows"], seconds, strict=True))
    assert result["score"] == pytest.approx(total / sum(seconds)) and seconds[2] < 2.1
    highest = detector(clips["long"], aggregate="max")
    assert highest["score"] == pytest.approx(max(w["score"] for w in result["windows"]))


def test_window_length_and_hop_are_the_users(detector, clips):
    result = detector(clips["long"], window_seconds=3.0, hop_seconds=2.0)
    assert [w["start"] for w in result["windows"]] == pytest.approx(
        [0.0, 2.0, 4.0, 6.0, 8.0][: len(result["windows"])]
    )
    assert result["windows"][-1]["end"] == pytest.approx(10.0, abs=0.1)
    with pytest.raises(ValueError, match="more than one pass takes"):
        detector(clips["long"], window_seconds=60.0)


def test_batches_change_nothing(detector, clips):
    names = ("clip", "long", "silent", "sound", "short", "broken", "clip")
    files = [clips[name] for name in names]
    one, four = detector(files, batch_size=1), detector(files, batch_size=4)
    assert len(one) == len(four) == len(files)
    for name, a, b in zip(names, one, four, strict=True):
        assert same(a, b), name
        assert [w["start"] for w in a["windows"]] == [w["start"] for w in b["windows"]], name
    assert same(one[0], one[-1])


def test_a_worker_process_changes_nothing(detector, clips):
    files = [clips["clip"], clips["broken"], clips["long"]]
    for here, there in zip(detector(files), detector(files, num_workers=1), strict=True):
        assert same(here, there)
        assert (here["error"] is None) == (there["error"] is None)


@pytest.mark.parametrize("lost", [1, 2])
def test_numbers_that_overflow_are_told(tiny_detector, clips, monkeypatch, capsys, lost):
    detector = pipeline(TASK, model=str(tiny_detector), device="cpu")
    forward, passes = detector.model.forward, []

    def overflows(**inputs):
        output = forward(**inputs)
        passes.append(output)
        if len(passes) <= lost:
            output.logits = output.logits * float("nan")
        return output

    monkeypatch.setattr(detector.model, "forward", overflows)
    result = detector(str(clips["clip"]), window_seconds=1.0, hop_seconds=1.0)
    assert len(passes) == len(result["windows"]) == 2
    if lost == 1:
        assert result["score"] == result["windows"][1]["score"] and result["error"] is None
        assert any("no number for 0.0 to 1.0 s: its activations" in text for text in result["warnings"])
    else:
        assert result["label"] is result["score"] is None
        assert result["error"]["type"] == "NoVerdictError"
        assert "no number for 0.0 to 1.0 s, 1.0 to 2.0 s: its activations" in result["error"]["message"]


def test_one_bad_file_does_not_lose_the_others(detector, clips, tmp_path):
    results = detector([clips["broken"], clips["clip"], tmp_path / "missing.mp4", clips["clip"], 12])
    assert [result["error"] is None for result in results] == [False, True, False, True, False]
    broken, _, missing, _, number = results
    assert broken["label"] is None and scores(broken) == [None] * 3 and broken["windows"] == []
    assert broken["error"]["type"] == "UnreadableMediaError" and "broken.mp4" in broken["error"]["message"]
    assert missing["error"]["type"] == "MediaNotFoundError"
    assert number["error"]["type"] == "UnsupportedSourceError"


def test_on_error(detector, tiny_detector, clips):
    with pytest.raises(MediaError, match=r"broken\.mp4"):
        detector(clips["broken"])
    with pytest.raises(MediaError, match="not readable"):
        detector(io.BytesIO(b"an open file is one input, not many"))
    assert detector(clips["broken"], on_error="return")["error"]["type"] == "UnreadableMediaError"
    with pytest.raises(MediaError, match=r"broken\.mp4"):
        detector([clips["clip"], clips["broken"]], on_error="raise")
    lenient = pipeline(
        TASK, model=detector.model, processor=detector.processor, on_error="return", device="cpu"
    )
    assert lenient(clips["broken"])["error"] is not None


def test_wrong_options_are_told(detector, clips):
    for options, text in (
        ({"on_error": "ignore"}, "on_error"),
        ({"aggregate": "median"}, "aggregate"),
        ({"questions": ("video",)}, "overall"),
        ({"questions": ("overall", "smell")}, "smell"),
    ):
        with pytest.raises(ValueError, match=text):
            detector(clips["clip"], **options)
    with pytest.raises(TypeError, match="treshold"):
        detector(clips["clip"], treshold=0.5)


def test_questions_and_threshold(detector, clips):
    result = detector(clips["clip"], questions=("overall",))
    assert result["video_score"] is None and result["audio_score"] is None
    assert result["score"] == pytest.approx(detector(clips["clip"])["score"], abs=1e-5)
    assert detector(clips["clip"], threshold=0.0)["label"] == "fake"
    assert detector(clips["clip"], threshold=1.0)["label"] == "real"
    assert detector(clips["clip"], threshold=result["score"])["label"] == "fake"


def test_the_models_own_threshold_is_used(tiny_detector, clips):
    model = AVLMMForDeepfakeDetection.from_pretrained(tiny_detector)
    model.config.threshold = 0.0
    processor = AVLMMProcessor.from_pretrained(tiny_detector)
    result = pipeline(TASK, model=model, processor=processor, device="cpu")(clips["short"])
    assert result["label"] == "fake" and result["threshold"] == 0.0


def test_other_prompts_than_the_models_are_refused(tiny_detector):
    processor = AVLMMProcessor.from_pretrained(tiny_detector)
    processor.prompts = {**processor.prompts, "overall": " is it Real or Fake?"}
    with pytest.raises(ValueError, match="not those the model was trained with"):
        pipeline(TASK, model=AVLMMForDeepfakeDetection.from_pretrained(tiny_detector), processor=processor)


def test_a_table_of_datasets(detector, clips):
    rows = {
        "video": [str(clips["clip"]), str(clips["broken"]), str(clips["silent"])],
        "audio": [None, None, str(clips["sound"])],
        "label": [0, 1, 1],
    }
    table = datasets.Dataset.from_dict(rows).cast_column("video", datasets.Video(decode=False))
    results = list(detector(table, batch_size=2))
    assert same(results[0], detector(clips["clip"]))
    assert results[1]["error"] is not None
    assert same(results[2], detector({"video": clips["silent"], "audio": clips["sound"]}))
    # Decoded columns hold a VideoDecoder: it is read as well.
    good = table.select([0]).cast_column("video", datasets.Video())
    assert same(next(iter(detector(good))), results[0])


def test_empty_inputs(detector):
    assert detector([]) == []
    assert list(detector(path for path in ())) == []


def test_half_precision(tiny_detector, clips, detector):
    half = pipeline(TASK, model=str(tiny_detector), dtype=torch.bfloat16, device="cpu")
    assert half.model.dtype == torch.bfloat16
    assert same(half(clips["clip"]), detector(clips["clip"]), tolerance=0.05)


# -- calibration and several workers ---------------------------------------------------------------------------------


def test_temperature_divides_the_log_odds(detector, clips):
    plain = detector(str(clips["long"]), window_seconds=2.0)
    warm = detector(str(clips["long"]), window_seconds=2.0, temperature=3.0)

    def odds(p):
        return math.log(p / (1 - p))

    for name in ("score", "video_score", "audio_score"):
        assert odds(warm[name]) == pytest.approx(odds(plain[name]) / 3, abs=1e-9)
        for before, after in zip(plain["windows"], warm["windows"], strict=True):
            assert odds(after[name]) == pytest.approx(odds(before[name]) / 3, abs=1e-9)
    assert calibrated(1.0, 2.0) == 1.0 and calibrated(0.0, 2.0) == 0.0 and calibrated(None, 2.0) is None
    tiny = [5e-324, 1e-300, 1e-20, 0.5, 1 - 1e-16]
    assert [calibrated(score, 1e-3) for score in tiny] == sorted(calibrated(score, 1e-3) for score in tiny)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        detector(str(clips["short"]), temperature=0)


def test_uncertain_scores_are_named(detector, clips):
    config = detector.model.config
    with pytest.raises(ValueError, match="--calibrate --coverage"):
        detector(str(clips["short"]), abstain=True)
    score = detector(str(clips["short"]))["score"]
    config.abstain_band = [score - 0.01, score + 0.01]
    try:
        told = detector(str(clips["short"]))
        assert told["label"] in ("real", "fake") and "uncertain" in told["warnings"][-1]
        assert detector(str(clips["short"]), abstain=True)["label"] == "uncertain"
        config.abstain_band = [score + 0.01, 1.0]
        sure = detector(str(clips["short"]), abstain=True)
        assert sure["label"] in ("real", "fake") and not any("uncertain" in text for text in sure["warnings"])
    finally:
        config.abstain_band = None


def test_a_list_is_shared_out_to_workers(detector, clips):
    files = [str(clips[name]) for name in ("clip", "broken", "long", "silent", "sound")]
    options = {"window_seconds": 2.0, "batch_size": 3}
    assert list(detector(files, num_workers=2, **options)) == list(detector(files, **options))


def test_a_model_that_was_just_trained_is_put_to_use(clips):
    model = tiny(num_frames=10, audio_samples=48_000)
    processor = SSAVDProcessor.from_config(model.config)
    expected = pipeline(TASK, model=model, processor=processor, device="cpu")(str(clips["clip"]))
    detector = pipeline(TASK, model=model.train(), processor=processor, device="cpu")
    assert not model.training
    assert detector(str(clips["clip"])) == expected


def test_arrays_and_their_rates_by_name(detector, clips):
    samples, rate = soundfile.read(clips["sound"], dtype="float32")
    expected = detector(str(clips["sound"]))
    for sound in (samples, torch.from_numpy(samples), samples.tolist()):
        assert same(detector({"audio": sound, "sampling_rate": rate}), expected)
    expected = detector({"video": str(clips["silent"]), "audio": str(clips["sound"])})
    for clip in ({"video": str(clips["silent"])}, {"path": str(clips["silent"])}):
        assert same(detector({**clip, "audio": samples, "sampling_rate": rate}), expected)
    frames = np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)
    assert same(detector({"video": frames, "fps": 5}), detector({"frames": frames, "fps": 5}))
    with pytest.raises(MediaError, match="audio samples have no rate"):
        detector({"audio": samples})


def test_many_inputs_in_every_form(detector, clips):
    paths = [str(clips["short"]), str(clips["sound"])]
    expected = detector(paths)
    table = datasets.Dataset.from_dict({"video": paths})
    lazy = table.to_iterable_dataset()
    for many in (
        table["video"],
        lazy["video"],
        tuple(paths),
        pd.Series(paths, index=[7, 3]),
        np.array(paths),
    ):
        results = list(detector(many))
        assert len(results) == 2 and all(map(same, results, expected)), type(many)
    with pytest.raises(MediaError, match=r"^<Tensor>: a Tensor is not media"):
        detector(torch.zeros(16_000))


def test_a_threshold_that_is_no_score_is_refused(detector, clips):
    for threshold in (2, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\]"):
            detector(str(clips["short"]), threshold=threshold)


def test_private_links_can_be_refused(detector):
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = f"http://127.0.0.1:{server.getsockname()[1]}/clip.mp4"
        with pytest.raises(MediaError, match="which is not a public address"):
            detector(link, private_links=False)
        (result,) = detector([link], private_links=False)
    assert result["error"]["type"] == "UnsupportedSourceError" and PREPROCESS.count("private_links") == 1


def test_log_odds_are_those_of_the_scores_and_do_not_tie(detector, clips):
    result = detector(str(clips["long"]), window_seconds=1)
    for part, name in SCORE_NAMES.items():
        score, log_odds = result[name], result[LOG_ODDS_NAMES[part]]
        assert log_odds == pytest.approx(math.log(score / (1 - score)), abs=1e-9)
    warm = detector(str(clips["long"]), window_seconds=1, temperature=2.0)
    assert warm["log_odds"] == result["log_odds"] / 2
    # one window after the other, all surer than float64 can tell, of 1 and 3 s
    scores = FileScores(independent_parts=False)
    for start, end, odds in ((0, 1, 50.0), (1, 4, 60.0)):
        row = {"start": start, "end": end, "video_score": None, "audio_score": None}
        scores.add([row | {"score": 1.0, "log_odds": odds, "video_log_odds": None, "audio_log_odds": None}])
    found = scores.of_file()
    expected = -math.log(0.25 * math.exp(-50) + 0.75 * math.exp(-60))
    assert found["score"] == 1.0 and found["log_odds"] == pytest.approx(expected, abs=1e-12)
    assert scores.of_file("max")["log_odds"] == 60.0 and found["video_log_odds"] is None
    scores.add([row | {"score": 1.0}])  # a window whose log-odds are not known
    assert scores.of_file()["log_odds"] is None
    assert calibrated(1.0, 10.0, 40.0) == pytest.approx(1 / (1 + math.exp(-4)))

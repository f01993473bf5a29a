"""A gate before the model: who decides, how often a file is read; order, batches and errors stay the same."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import datasets
import pytest
import torch
from transformers import pipeline

from modeling_avlmm import (
    AVDeepfakeDetectionPipeline,
    MediaError,
)
from modeling_avlmm.__main__ import main
from modeling_avlmm.inference.credentials import with_credentials
from modeling_avlmm.inference.gate import Gate, block_size

TASK = "av-deepfake-detection"
NAMES = ("clip", "silent", "broken", "short", "sound", "long")
SCORES = ("score", "video_score", "audio_score")


@pytest.fixture(scope="module")
def small(gate_folder):
    return pipeline(TASK, model=str(gate_folder), device="cpu")


@pytest.fixture(scope="module")
def large(tiny_detector):
    return pipeline(TASK, model=str(tiny_detector), device="cpu")


@pytest.fixture(scope="module")
def alone(small, large, clips) -> dict[str, tuple[dict, dict]]:
    """The results of both detectors on every clip, each by itself."""
    files = [str(clips[name]) for name in NAMES]
    return dict(zip(NAMES, zip(small(files), large(files), strict=True), strict=True))


@pytest.fixture(scope="module")
def band(alone) -> tuple[float, float]:
    """A band that leaves the clips with the lowest and the highest score to the gate, and no other."""
    scores = sorted(gated["score"] for gated, _ in alone.values() if gated["score"] is not None)
    edges = (scores[0] + scores[1]) / 2, (scores[-2] + scores[-1]) / 2
    # The threshold lies in the band, so that it is not widened.
    assert len(set(scores)) == 5 and edges[0] < 0.5 < edges[1]
    return edges


def cascade(large, gate, band=None, **options) -> AVDeepfakeDetectionPipeline:
    return pipeline(
        TASK,
        model=large.model,
        processor=large.processor,
        gate=gate,
        gate_band=band,
        device="cpu",
        **options,
    )


@pytest.fixture(scope="module")
def detector(large, small, band):
    return cascade(large, small, band)


@pytest.fixture(scope="module")
def expected(alone, band) -> dict[str, dict]:
    """The results by definition, from those of the detectors alone."""
    results = {}
    for name, (gated, looked_at) in alone.items():
        sure = gated["score"] is None or not band[0] <= gated["score"] <= band[1]
        own = gated if sure else looked_at
        results[name] = {
            **own,
            "decided_by": "gate" if sure else "model",
            "gate_score": gated["score"],
        }
    assert [result["decided_by"] for result in results.values()].count("model") == 3
    return results


def same(one: dict, other: dict, tolerance: float = 1e-5) -> bool:
    def rounded(result):
        plain = {**result, "windows": [(w["start"], w["end"]) for w in result["windows"]]}
        return {key: value for key, value in plain.items() if key not in numbers}

    log_odds = [name.replace("score", "log_odds") for name in SCORES]
    numbers = (*SCORES, "gate_score", *log_odds)
    pairs = [(one[name], other[name]) for name in numbers]
    return rounded(one) == rounded(other) and all(a is b is None or abs(a - b) <= tolerance for a, b in pairs)


def opened(monkeypatch) -> list[tuple[int, str]]:
    """Return a list that collects, from now on, which model reads which file."""
    seen, own = [], AVDeepfakeDetectionPipeline.preprocess

    def counted(self, source, **how):
        seen.append((self.model.config.model_type, Path(source).stem))
        return own(self, source, **how)

    monkeypatch.setattr(AVDeepfakeDetectionPipeline, "preprocess", counted)
    return seen


# -- whose verdict counts ----------------------------------------------------------------------------------------------


def test_the_gate_answers_what_it_is_sure_of_and_the_model_the_rest(detector, clips, expected):
    results = detector([str(clips[name]) for name in NAMES])
    assert results == list(expected.values())
    for result in results:
        if result["decided_by"] == "gate" and result["error"] is None:
            assert result["label"] == ("fake" if result["score"] > 0.5 else "real")


def test_every_form_of_input_gives_the_same(detector, clips, expected):
    files = [str(clips[name]) for name in NAMES]
    answers = list(expected.values())
    assert [detector(str(clips[name])) for name in NAMES if name != "broken"] == [
        expected[name] for name in NAMES if name != "broken"
    ]
    assert list(detector(file for file in files)) == answers
    assert list(detector(iter(files))) == answers
    table = datasets.Dataset.from_dict({"video": files}).cast_column("video", datasets.Video(decode=False))
    assert list(detector(table)) == answers
    assert detector([]) == [] and list(detector(file for file in ())) == []


@pytest.mark.parametrize("options", [{"batch_size": 3}, {"num_workers": 2, "batch_size": 2}])
def test_batches_and_workers_change_nothing(detector, clips, expected, options):
    names = NAMES * 2
    files = [str(clips[name]) for name in names]
    for results in (detector(files, **options), detector((file for file in files), **options)):
        for name, result in zip(names, results, strict=True):
            assert same(result, expected[name]), name


def test_only_unsure_files_are_read_twice(detector, clips, expected, monkeypatch):
    seen = opened(monkeypatch)
    detector([str(clips[name]) for name in NAMES], batch_size=2)
    assert seen == [("ssavd", clips[name].stem) for name in NAMES] + [
        ("avlmm", clips[name].stem) for name in NAMES if expected[name]["decided_by"] == "model"
    ]


def test_unsure_files_fill_the_models_batches(detector, clips, expected, monkeypatch):
    sizes, forward = {"ssavd": [], "avlmm": []}, AVDeepfakeDetectionPipeline._forward

    def counted(self, batch):
        sizes[self.model.config.model_type].append(len(batch["rows"]))
        return forward(self, batch)

    monkeypatch.setattr(AVDeepfakeDetectionPipeline, "_forward", counted)
    sure = next(name for name, result in expected.items() if result["decided_by"] == "gate")
    unsure = next(
        name
        for name, result in expected.items()
        if result["decided_by"] == "model" and len(result["windows"]) == 1
    )
    files = [str(clips[name]) for name in (sure, unsure) * 4]
    windows = len(expected[sure]["windows"]) + 1
    detector(files, batch_size=4)
    assert sum(sizes["ssavd"]) == 4 * windows and set(sizes["ssavd"]) == {4}
    assert sizes["avlmm"] == [4]


def test_a_generator_is_read_block_by_block(detector, clips):
    taken = itertools.count()
    endless = (next(taken) is not None and str(clips["short"]) for _ in itertools.count())
    results = detector(endless, batch_size=1)
    next(results)
    assert next(taken) <= 2  # `pipeline` looks at the first one ahead
    endless = (next(taken) is not None and str(clips["short"]) for _ in itertools.count())
    before = next(taken)
    results = detector(endless, batch_size=2)
    assert len(list(itertools.islice(results, 3))) == 3
    assert next(taken) - before <= block_size(2, 0) + 2
    assert block_size(1, 0) == 1 and block_size(1, 2) == 32 == block_size(2, 0)


# -- errors ------------------------------------------------------------------------------------------------------------


def test_an_unreadable_file_is_answered_once_by_the_gate(detector, clips, tmp_path, monkeypatch):
    seen = opened(monkeypatch)
    files = [str(clips["broken"]), str(tmp_path / "missing.mp4")]
    broken, missing = detector(files)
    assert [model for model, _ in seen] == ["ssavd", "ssavd"]
    assert broken["error"]["type"] == "UnreadableMediaError"
    assert missing["error"]["type"] == "MediaNotFoundError"
    for result in (broken, missing):
        assert result["label"] is result["gate_score"] is None and result["decided_by"] == "gate"
    with pytest.raises(MediaError, match=r"broken\.mp4"):
        detector(clips["broken"])
    with pytest.raises(MediaError, match=r"broken\.mp4"):
        detector([clips["broken"]], on_error="raise")
    assert detector(clips["broken"], on_error="return")["decided_by"] == "gate"


def test_a_stream_that_gives_its_bytes_once_is_read_by_both(large, small, clips, alone):
    detector = cascade(large, small, (0.0, 1.0))

    def pipe():
        end, begin = os.pipe()
        # Small enough for the pipe's buffer, so that nobody has to write meanwhile.
        data = clips["short"].read_bytes()
        assert len(data) < 65_536
        with os.fdopen(begin, "wb") as writing:
            writing.write(data)
        return os.fdopen(end, "rb")

    for wrapped in (False, True):
        with pipe() as stream:
            result = detector({"video": stream} if wrapped else stream)
        assert result["decided_by"] == "model"
        assert result["score"] == pytest.approx(alone["short"][1]["score"], abs=1e-6)


# -- options -----------------------------------------------------------------------------------------------------------


def test_what_the_gate_has_no_number_for_is_the_models(large, small, clips, monkeypatch):
    detector = cascade(large, small, (0.0, 0.0))
    gate = detector.gate.detector.model
    forward = gate.forward

    def overflows(**inputs):
        output = forward(**inputs)
        output.logits = torch.full_like(output.logits, float("nan"))
        return output

    monkeypatch.setattr(gate, "forward", overflows)
    (result,) = detector([str(clips["clip"])])
    expected = {**large(str(clips["clip"])), "decided_by": "model", "gate_score": None}
    assert same(result, expected)


def test_without_a_gate_nothing_is_added(large, clips):
    assert large.gate is None
    assert not {"decided_by", "gate_score"} & set(large(str(clips["short"])))


def test_the_band_is_the_gates_own_unless_one_is_given(tiny_detector, gate_folder, small, large, band):
    with pytest.raises(ValueError, match=r"no abstain_band.*gate_band"):
        cascade(large, small)
    try:
        small.model.config.abstain_band = list(band)
        assert cascade(large, small).gate.band == band
        assert cascade(large, small, (0.0, 1.0)).gate.band == (0.0, 1.0)
    finally:
        small.model.config.abstain_band = None
    # From names, as users give them.
    both = pipeline(TASK, model=str(tiny_detector), gate=gate_folder, gate_band=[0.2, 0.8], device="cpu")
    assert both.gate.band == (0.2, 0.8) and both.gate.detector.device == both.device
    assert both.gate.detector.model.config.model_type == "ssavd"


def test_wrong_gates_are_told(large, small, detector, clips):
    for wrong in ((0.9, 0.1), (-0.1, 0.5), (0.5, 1.1), (0.1, 0.5, 0.9), (0.1, float("nan"))):
        with pytest.raises(ValueError, match="0 <= low <= high <= 1"):
            cascade(large, small, wrong)
    with pytest.raises(ValueError, match="there is no gate"):
        cascade(large, None, (0.1, 0.9))
    with pytest.raises(ValueError, match="not SSAVDForDeepfakeDetection"):
        cascade(large, small.model, (0.1, 0.9))
    with pytest.raises(TypeError, match="gate_band"):
        detector(str(clips["short"]), gate_band=(0.1, 0.9))


def test_a_threshold_outside_the_band_widens_it(small):
    gate = Gate(small, (0.2, 0.6))
    sure = {
        (score, threshold): gate.is_sure({"score": score, "threshold": threshold})
        for score in (0.1, 0.2, 0.4, 0.6, 0.7, 0.95)
        for threshold in (0.05, 0.5, 0.9)
    }
    assert {pair for pair, value in sure.items() if value} == {
        (0.7, 0.05),
        (0.95, 0.05),
        (0.1, 0.5),
        (0.7, 0.5),
        (0.95, 0.5),
        (0.1, 0.9),
        (0.95, 0.9),
    }
    assert gate.is_sure({"score": None, "threshold": 0.5})


def test_which_options_reach_the_gate(detector, clips, alone, expected, large, small):
    seconds = alone["long"][0]["duration"]
    sure = Gate(small, (0.5, 0.5))
    first = cascade(large, sure.detector, sure.band)
    # Windows are each detector's own, and so is the temperature.
    result = first(str(clips["long"]), window_seconds=3.0, temperature=7.0)
    assert result["decided_by"] == "gate" and result["score"] == alone["long"][0]["score"]
    assert [w["start"] for w in result["windows"]] == [0.0, 2.0, 4.0, 6.0, 8.0]
    second = cascade(large, small, (0.0, 1.0))
    result = second(str(clips["long"]), window_seconds=3.0, temperature=7.0)
    assert result == {
        **large(str(clips["long"]), window_seconds=3.0, temperature=7.0),
        "decided_by": "model",
        "gate_score": alone["long"][0]["score"],
    }
    assert result["duration"] == seconds
    # How windows are put together, what is asked and where the threshold lies hold for both.
    options = {"aggregate": "max", "questions": ("overall",), "threshold": 0.5}
    result = first(str(clips["long"]), **options)
    assert result["decided_by"] == "gate" and result["video_score"] is None
    assert result["score"] == max(w["score"] for w in alone["long"][0]["windows"])
    assert second(str(clips["long"]), **options)["gate_score"] == result["score"]


def test_options_of_the_pipeline_itself_hold_for_the_gate(large, small, clips, alone):
    detector = cascade(large, small, (0.5, 0.5), aggregate="max", on_error="return")
    assert detector(str(clips["long"]))["gate_score"] == max(w["score"] for w in alone["long"][0]["windows"])
    assert detector(str(clips["broken"]))["error"] is not None


def test_saving_says_that_the_gate_is_not_saved(detector, clips, expected, tmp_path):
    with pytest.warns(UserWarning, match="Only the model is saved"):
        detector.save_pretrained(tmp_path / "large")
    detector.gate.detector.save_pretrained(tmp_path / "small")
    assert not (tmp_path / "large" / "gate.py").exists()  # the gate belongs to the installed package
    again = pipeline(
        TASK,
        model=str(tmp_path / "large"),
        gate=str(tmp_path / "small"),
        gate_band=detector.gate.band,
        device="cpu",
    )
    assert again([str(clips[name]) for name in NAMES]) == list(expected.values())


# -- the command line --------------------------------------------------------------------------------------------------


def test_detect_with_a_gate(tiny_detector, gate_folder, clips, band, expected, capsys):
    files = [str(clips[name]) for name in NAMES if name != "broken"]
    words = ["detect", *files, "--model", str(tiny_detector), "--gate", str(gate_folder), "--device", "cpu"]
    words += ["--gate-band", *map(str, band)]
    assert main([*words, "--json"]) == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    named = {str(clips[name]): expected[name] for name in NAMES if name != "broken"}
    assert results == [{"file": file, **with_credentials(file, result)} for file, result in named.items()]
    assert main(words) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][-1] == "by"
    assert [line[-1] for line in lines if line[0] in files] == [result["decided_by"] for result in results]

    assert main(words[:-3]) == 2
    assert "no abstain_band" in capsys.readouterr().err
    assert main(["detect", *files, "--model", str(tiny_detector), "--gate-band", "0.1", "0.9"]) == 2
    assert "--gate MODEL" in capsys.readouterr().err

"""A detector that a server runs: its results are the pipeline's, and a server's faults are told as what they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from media_factory import random_clip
from served_factory import StubServer, slow
from torchcodec.decoders import AudioDecoder, VideoDecoder
from transformers import pipeline

from modeling_avlmm.__main__ import main
from modeling_avlmm.inference.served_client import (
    EndpointError,
    NoLogProbabilitiesError,
    ServedModelClient,
    WrongModelError,
)
from modeling_avlmm.inference.served_clip import even_rate, quicktime_file
from modeling_avlmm.inference.served_detector import served_detector

SCORES = ("score", "video_score", "audio_score")
LOG_ODDS = ("log_odds", "video_log_odds", "audio_log_odds")


@pytest.fixture(scope="module")
def stub(tiny_vllm):
    with StubServer(tiny_vllm) as server:
        yield server


@pytest.fixture
def server(stub, monkeypatch):
    """The stub without faults; requests that fail are sent again at once."""
    monkeypatch.setattr("modeling_avlmm.inference.served_client.PAUSE_SECONDS", 0.0)
    stub.models, stub.key, stub.fault, stub.requests = ["tiny"], None, None, []
    return stub


@pytest.fixture(scope="module")
def detector(stub, tiny_vllm):
    return served_detector(tiny_vllm, f"{stub.url}/v1/")


@pytest.fixture(scope="module")
def files(clips) -> list[str]:
    return [str(clips[name]) for name in ("clip", "silent", "sound", "long", "broken")]


@pytest.fixture(scope="module")
def expected(tiny_detector, files) -> list[dict]:
    return pipeline("av-deepfake-detection", model=str(tiny_detector), device="cpu")(files)


def taken_apart(result: dict) -> tuple[list[float], dict]:
    """Return all scores and log-odds of a result, NaN for none, and the rest of it."""
    entries = [dict(window) for window in result["windows"]]
    rest = {**result, "windows": entries}
    scores = [entry.pop(name) for entry in (rest, *entries) for name in SCORES]
    scores += [rest.pop(name) for name in LOG_ODDS]
    return [float("nan") if score is None else score for score in scores], rest


def test_the_verdicts_are_the_pipelines(server, detector, files, expected):
    """With sound, without, sound alone, windows, a broken file: every entry, and scores to 1e-5."""
    for found, own in zip(detector(files, batch_size=4), expected, strict=True):
        (scores, rest), (own_scores, own_rest) = taken_apart(found), taken_apart(own)
        np.testing.assert_allclose(scores, own_scores, atol=1e-5, rtol=0)
        assert rest == own_rest


def test_a_request_says_how_the_clip_is_to_be_read(server, detector, clips):
    detector(str(clips["clip"]), questions=("overall",))
    body = server.requests[0]
    assert body["logprob_token_ids"] == detector.model.config.label_token_ids
    assert (body["max_tokens"], body["temperature"], body["logprobs"]) == (1, 0.0, True)
    assert body["mm_processor_kwargs"]["use_audio_in_video"] is True
    assert body["mm_processor_kwargs"]["size"] == {"shortest_edge": 3136, "longest_edge": 3136}
    assert body["mm_processor_kwargs"]["fps"] == pytest.approx(5.0, rel=0.05)
    assert body["media_io_kwargs"] == {"video": {"num_frames": -1}}
    server.requests.clear()
    detector(str(clips["silent"]))
    assert [set(body["mm_processor_kwargs"]) for body in server.requests] == [
        {"fps", "size"}
    ] * 2  # no sound, no question


@pytest.mark.parametrize("fps", [1.0, 2.0, 3.0, 5.0, 7.5])
def test_the_rate_gives_true_times_their_positions(fps):
    times = (np.arange(60) / fps)[::2]
    rate, off = even_rate(times, 25, 2, fps)
    assert off == 0 and rate == pytest.approx(fps, rel=0.02)
    assert (np.floor(np.arange(30) * 2 * 25 / rate) == np.floor(times * 25 + 1e-4)).all()


def test_missing_frames_are_told(detector):
    assert even_rate(np.array([0.0]), 25, 2, 2.0) == (2.0, 0)
    clip = random_clip(frames=6, fps=5.0)
    clip.timestamps[2:] += 1.0
    detector.processor.encode(clip, ("overall",))
    assert [
        text
        for text in clip.warnings
        if "frames are missing in between" in text and "up to 13 positions" in text
    ]


def test_nothing_is_lost_on_the_way():
    frames = torch.randint(
        0, 256, (3, 3, 28, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    samples = torch.linspace(-1, 1, 20_001)
    data = quicktime_file(frames, 2.037, samples, "clip")
    assert torch.equal(VideoDecoder(data)[:], frames)
    assert torch.equal(AudioDecoder(data).get_all_samples().data[0], samples)


def refusal(status, message="no"):
    return lambda body: (status, {"error": {"message": message}})


def with_tokens(*tokens):
    top = [{"token": token, "logprob": -1.0} for token in tokens]
    return lambda body: (200, {"choices": [{"logprobs": {"content": [{"token": "", "top_logprobs": top}]}}]})


@pytest.mark.parametrize(
    "fault, error, said",
    [
        (
            with_tokens("Yes", "No"),
            WrongModelError,
            "'Yes', 'No', and not Real and Fake: another model is served",
        ),
        (with_tokens("Real"), NoLogProbabilitiesError, "gave log-probabilities of 'Real'"),
        (lambda body: (200, {"choices": [{"logprobs": None}]}), NoLogProbabilitiesError, "logprob_token_ids"),
        (lambda body: (200, b"<html>"), EndpointError, "not in JSON"),
        (refusal(404), EndpointError, "answers with status 404: no"),
        (refusal(503), EndpointError, "answers with status 503"),
        (refusal(401), EndpointError, "another key"),
        (
            refusal(
                400, "Per-request mm_processor_kwargs are disabled. Start with --trust-request-mm-kwargs"
            ),
            EndpointError,
            "takes no settings of requests",
        ),
    ],
)
def test_a_server_that_cannot_be_used_ends_the_run(server, detector, clips, fault, error, said):
    server.fault = fault
    with pytest.raises(error, match=said):
        detector([str(clips["short"])], questions=("overall",))


def test_a_refused_clip_is_a_result(server, detector, files, expected):
    """One window of a file is refused: the others count, and the other files go on."""
    asked = []

    def second(body):
        asked.append(body)
        return (400, {"error": {"message": "too long"}}) if len(asked) == 2 else None

    server.fault = second
    long, silent = detector([files[3], files[1]], questions=("overall",))
    assert (
        long["error"]["type"] == "RequestRefusedError" and "status 400: too long" in long["error"]["message"]
    )
    kept = [window["score"] for window in long["windows"]]
    assert kept[1] is None and kept[0] == pytest.approx(expected[3]["windows"][0]["score"], abs=1e-5)
    assert long["label"] is not None and not any("overflow" in text for text in long["warnings"])
    assert silent["error"] is None


def test_a_slow_answer_is_a_result(server, tiny_vllm, clips):
    impatient = served_detector(tiny_vllm, server.url, seconds=0.2)
    server.fault = slow(0.5)
    result = impatient([str(clips["short"])], questions=("overall",))[0]
    assert (
        result["error"]["type"] == "RequestTimeoutError" and result["label"] is None and result["has_audio"]
    )


def test_no_probability_is_no_score(server, detector, clips):
    top = [{"token": word, "logprob": -9999.0} for word in ("Real", "Fake")]
    server.fault = lambda body: (200, {"choices": [{"logprobs": {"content": [{"top_logprobs": top}]}}]})
    result = detector([str(clips["short"])])[0]
    assert result["score"] is None and "no number" in result["error"]["message"]


def test_models_and_keys(server):
    server.models = ["a", "b"]
    with pytest.raises(WrongModelError, match=r"serves 2 models \(a, b\)"):
        ServedModelClient(server.url)
    with pytest.raises(WrongModelError, match=r"does not serve 'c'\. It serves a, b"):
        ServedModelClient(server.url, "c")
    assert ServedModelClient(server.url, "b").model == "b"
    server.key = "secret"
    with pytest.raises(EndpointError, match="another key"):
        ServedModelClient(server.url, "b")
    assert ServedModelClient(server.url, "b", "secret").model == "b"
    with pytest.raises(EndpointError, match="cannot be reached"):
        ServedModelClient("http://127.0.0.1:9")
    with pytest.raises(EndpointError, match="no address of a server"):
        ServedModelClient("localhost:8000")


def test_settings_come_from_either_layout(server, tiny_detector, gate_folder, clips, detector):
    other = served_detector(tiny_detector, server.url)
    for name in ("threshold", "prompts", "label_token_ids"):
        assert getattr(other.model.config, name) == getattr(detector.model.config, name)
    clip = str(clips["short"])
    assert other(clip, questions=("overall",))["score"] == detector(clip, questions=("overall",))["score"]
    with pytest.raises(ValueError, match="holds no detector with a language model"):
        served_detector(gate_folder, server.url)


def test_the_command(server, tiny_vllm, files, expected, capsys, tmp_path):
    command = [
        "detect",
        *files[1:3],
        "--engine",
        "vllm",
        "--endpoint",
        server.url,
        "--model",
        str(tiny_vllm),
        "--json",
    ]
    assert main([*command, "--batch-size", "4", "--resume", str(tmp_path / "journal.jsonl")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line, own in zip(lines, expected[1:3], strict=True):
        assert line["score"] == pytest.approx(own["score"], abs=1e-5) and line["label"] == own["label"]


@pytest.mark.parametrize(
    "changed, said",
    [
        (["--endpoint", "http://127.0.0.1:9", "--model", "MODEL"], "cannot be reached"),
        (["--endpoint", "URL"], "--model FOLDER_OR_ID"),
        (["--model", "MODEL"], "--endpoint http://localhost:8000"),
        (["--endpoint", "URL", "--model", "nowhere/at/all"], "nowhere/at/all"),
        (["--endpoint", "URL", "--model", "MODEL", "--served-model", "x"], "does not serve 'x'"),
    ],
)
def test_wrong_usage(server, tiny_vllm, clips, capsys, changed, said):
    named = {"URL": server.url, "MODEL": str(tiny_vllm)}
    options = [named.get(word, word) for word in changed]
    assert main(["detect", str(clips["short"]), "--engine", "vllm", *options]) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told


def test_a_server_that_goes_away_ends_the_command_with_a_word(server, tiny_vllm, clips, capsys):
    server.fault = refusal(503)
    options = ["--engine", "vllm", "--endpoint", server.url, "--model", str(tiny_vllm)]
    assert main(["detect", str(clips["short"]), *options]) == 1
    told = capsys.readouterr().err
    assert "status 503" in told and "Traceback" not in told

"""The analyst: its answers, its memory and its warnings."""

import json
import re

import jsonschema
import pytest
import torch
from transformers import pipeline

from modeling_avlmm import MediaError
from modeling_avlmm.dialogue.analyst import AnalystError, AVAnalyst
from modeling_avlmm.dialogue.answer_parsing import contradictions
from modeling_avlmm.dialogue.answer_schema import ANALYSIS_SCHEMA
from modeling_avlmm.dialogue.composed_answers import HINT, compose
from modeling_avlmm.dialogue.conversation import encode_conversations, generation_batch
from modeling_avlmm.dialogue.generation import Dialogue, generation_config
from modeling_avlmm.dialogue.measured_context import fake_segments, measured_context
from modeling_avlmm.dialogue.phrasing import templates
from modeling_avlmm.inference.default_model import DEMONSTRATION_MODEL

RESULT = {
    "label": "fake",
    "score": 0.9,
    "video_score": 0.97,
    "audio_score": 0.1,
    "threshold": 0.5,
    "windows": [
        {"start": 0.0, "end": 1.0, "score": 0.2},
        {"start": 1.0, "end": 2.0, "score": 0.9},
        {"start": 2.0, "end": 3.0, "score": 0.8},
    ],
    "name": "clip.mp4",
    "duration": 3.0,
    "has_video": True,
    "has_audio": True,
    "warnings": [],
    "error": None,
}


@pytest.fixture(scope="module")
def writer(tiny_detector):
    """A detector that can write. It never learned to, so its answers are noise."""
    return pipeline("av-deepfake-detection", model=str(tiny_detector))


@pytest.fixture
def analyst(writer):
    return AVAnalyst(writer)


def raw(analyst):
    """Return the model's own answers, without notes."""
    return [answer for _, answer in analyst._dialogue.turns]


# -- loading ------------------------------------------------------------------------------------------------------------


def test_analyst_by_name_is_the_analyst_around_its_pipeline(tiny_detector, clips):
    analyst = AVAnalyst.from_pretrained(tiny_detector, window_seconds=0.5)
    assert type(analyst) is AVAnalyst and analyst.writer is analyst.detector
    plain = pipeline("av-deepfake-detection", model=str(tiny_detector), window_seconds=0.5)
    expected = plain(str(clips["clip"]))
    assert analyst.load(clips["clip"])["score"] == expected["score"] and len(expected["windows"]) > 1
    by_hand = AVAnalyst(plain)
    by_hand.load(clips["clip"])
    question = "Is this clip fake?"
    assert analyst.ask(question, max_new_tokens=6) == by_hand.ask(question, max_new_tokens=6)
    with pytest.raises(ValueError, match=r"needs a writer or a detector.*from_pretrained"):
        AVAnalyst()


def test_answers_are_composed_where_the_detector_cannot_write(clips):
    analyst = AVAnalyst.from_pretrained(str(DEMONSTRATION_MODEL))
    assert analyst.writer is None
    score = analyst.load(clips["clip"])["score"]
    assert f"{score:.2f}" in analyst.ask("Is this clip fake?")


# -- generation ---------------------------------------------------------------------------------------------------------


def test_answers_equal_generate_on_the_same_tensors_turn_after_turn(analyst, clips):
    analyst.load(clips["clip"])
    for question in ("Is this clip fake?", "Where?"):
        analyst.ask(question, max_new_tokens=6)
    dialogue, processor = analyst._dialogue, analyst.writer.processor
    context = measured_context({"overall": analyst.result["score"], "video": analyst.result["video_score"], "audio": analyst.result["audio_score"]}, analyst.result["threshold"])  # fmt: skip
    first = [(context + " Is this clip fake?", None)]
    encoded = encode_conversations(processor, processor.load(clips["clip"]), [first])
    config = generation_config(processor, 6)
    thinker = analyst.writer.model.thinker
    batch = generation_batch(processor, [encoded])
    media = {k: v for k, v in batch.items() if k not in ("input_ids", "position_ids", "attention_mask")}
    ids, positions = batch["input_ids"], batch["position_ids"]
    for number in range(2):
        written = thinker.generate(
            input_ids=ids,
            position_ids=positions,
            attention_mask=torch.ones_like(ids),
            **media,
            generation_config=config,
        )
        new = written[0, ids.shape[1] :]
        assert processor.tokenizer.decode(new, skip_special_tokens=True) == raw(analyst)[number]
        # Without a cache the whole conversation is read again.
        end = processor.tokenizer.eos_token_id
        ended = new.tolist() if new[-1] == end else [*new.tolist(), end]
        follow = processor.tokenizer.encode("\n<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n")
        more = torch.tensor([[*ended, *follow]])
        steps = positions[..., -1:] + 1 + torch.arange(more.shape[1])
        ids, positions = torch.cat([ids, more], 1), torch.cat([positions, steps], -1)
    assert dialogue._cache.get_seq_length() == dialogue._ids.shape[1] - 1 - dialogue.cut_off


def test_clip_is_encoded_once_for_all_turns(analyst, clips, monkeypatch):
    analyst.load(clips["clip"])
    calls = []
    encoder = analyst.writer.model.vision_encoder
    handle = encoder.register_forward_hook(lambda *_: calls.append(1))
    for question in ("A?", "B?", "C?"):
        analyst.ask(question, max_new_tokens=3)
    handle.remove()
    assert len(calls) == 1 and len(analyst._dialogue.turns) == 3


def test_streamed_pieces_are_the_whole(analyst, writer, clips):
    analyst.load(clips["clip"])
    pieces = list(analyst.ask("Describe it.", stream=True, max_new_tokens=8))
    other = AVAnalyst(writer)
    other.load(clips["clip"])
    assert "".join(pieces) == other.ask("Describe it.", max_new_tokens=8)
    assert len(pieces) > 1 and analyst.history == other.history
    assert analyst.history[-1]["content"] == "".join(pieces)


def test_answer_that_is_not_read_to_its_end_is_forgotten(analyst, writer, clips):
    analyst.load(clips["clip"])
    analyst.ask("First?", max_new_tokens=4)
    begun = analyst.ask("Never mind?", stream=True, max_new_tokens=200)
    next(begun)
    begun.close()
    assert len(analyst.history) == 2
    analyst.ask("Second?", max_new_tokens=4)
    undisturbed = AVAnalyst(writer)
    undisturbed.load(clips["clip"])
    for question in ("First?", "Second?"):
        undisturbed.ask(question, max_new_tokens=4)
    assert raw(analyst) == raw(undisturbed) and analyst.history == undisturbed.history


def test_conversation_is_remembered_and_reset(analyst, clips):
    result = analyst.load(clips["clip"])
    alone = analyst.ask("Where?", max_new_tokens=8)
    analyst.reset()
    assert analyst.history == [] and analyst.result == result
    analyst.ask("Is this clip fake?", max_new_tokens=8)
    analyst.ask("Where?", max_new_tokens=8)
    assert [entry["role"] for entry in analyst.history] == ["user", "assistant"] * 2
    prompt = analyst.writer.processor.tokenizer.decode(analyst._dialogue._ids[0])
    assert prompt.index("Measured: clip ") < prompt.index("Is this clip fake?") < prompt.index("Where?")
    analyst.reset()
    assert analyst.ask("Where?", max_new_tokens=8) == alone


def test_contradicting_answer_is_flagged_where_it_is_read(analyst, clips, monkeypatch):
    analyst.load(clips["clip"])
    analyst.result |= {"score": 0.9, "label": "fake", "audio_score": 0.1, "video_score": 0.8}

    def says(text):
        def stream(self, question, max_new_tokens):
            yield from re.findall(r"\S+\s*", text)

        monkeypatch.setattr(Dialogue, "stream", stream)

    says("No, I see no manipulation.")
    answer = analyst.ask("Is this clip fake?")
    assert answer.startswith(
        "No, I see no manipulation.\n\nNote: The answer calls the clip real; the detector measured"
    )
    assert analyst.warnings[-1] == "The answer calls the clip real; the detector measured fake (score 0.90)."
    assert analyst.history[-1]["warnings"] == [analyst.warnings[-1]]
    says("Yes. The picture is fake. The sound was manipulated.")
    assert "calls the sound fake; the detector measured real (score 0.10)" in analyst.ask("And?")
    says("Yes, the picture is fake.")
    assert "Note" not in analyst.ask("Is this clip fake?") and "warnings" not in analyst.history[-1]
    analyst.reset()
    assert not any("The answer calls" in text for text in analyst.warnings)


def test_answer_cut_off_is_said_to_be(analyst, clips):
    analyst.load(clips["clip"])
    analyst._dialogue = Dialogue(analyst.writer, analyst._clip)
    answer = analyst.ask("Is it?", max_new_tokens=1)
    assert ("cut off after 1 tokens" in answer) == analyst._dialogue.cut_off
    assert analyst._dialogue._ids[0, -1] == analyst.writer.processor.tokenizer.eos_token_id


def test_long_clip_is_answered_on_its_highest_window(analyst, clips):
    result = analyst.load(clips["long"])
    top = max(result["windows"], key=lambda window: window["score"])
    assert analyst._clip.duration == pytest.approx(4.0)
    assert analyst._clip.start == pytest.approx(min(top["start"], 6.0))
    assert any(text.startswith("answers are about") for text in analyst.warnings)


# -- without a model that writes ----------------------------------------------------------------------------------------


def test_small_detector_composes_and_cannot_be_the_model(clips):
    analyst = AVAnalyst.from_pretrained(str(DEMONSTRATION_MODEL))
    with pytest.raises(ValueError, match="cannot write text: it is a SSAVDForDeepfakeDetection"):
        AVAnalyst(writer=analyst.detector)
    with pytest.raises(ValueError, match="cannot write text"):
        AVAnalyst.from_pretrained(str(DEMONSTRATION_MODEL), detector=str(DEMONSTRATION_MODEL))
    result = analyst.load(clips["clip"])
    answer = analyst.ask("Is this clip fake?")
    assert f"{result['score']:.2f}" in answer
    assert "".join(analyst.ask("What should I do next?", stream=True)) == analyst.history[-1]["content"]
    assert analyst.ask("Who won the match in 1966?").endswith(HINT)
    assert analyst.history[-1]["warnings"] == ["The question was not understood."]
    report = analyst.json()
    assert report["model"]["analyst"] is None and report["regions"] == []
    assert any("demonstration" in text for text in report["warnings"])
    assert json.loads(json.dumps(report)) == report


def test_any_detector_can_measure_for_a_model(writer, clips):
    analyst = AVAnalyst(writer, detector=pipeline("av-deepfake-detection", model=str(DEMONSTRATION_MODEL)))
    analyst.load(clips["clip"])
    report = analyst.json()
    assert report["model"]["detector"] != report["model"]["analyst"]
    assert report["score"] == analyst.detector(str(clips["clip"]))["score"]


@pytest.mark.parametrize(
    "question, intent, said",
    [
        ("Is this clip fake?", "verdict", "Its score is 0.90"),
        ("Is it the picture, the sound, or both?", "modality", "The picture is fake (score 0.97). The sound is genuine (score 0.10)."),
        ("When does it happen?", "when", "from 1.0 s to 3.0 s"),
        ("How sure are you?", "sure", "well away from the threshold of 0.50"),
        ("What kind of manipulation was used?", "technique", "does not tell by which technique"),
        ("Where do you see it?", "place", "does not say where"),
        ("What are your limits?", "limits", "scores only"),
        ("What should I do next?", "next", "Do not pass it on as genuine"),
        ("Describe the artifacts in this clip, if there are any.", "describe", "from 1.0 s to 3.0 s"),
        ("Tell me a joke.", None, "I cannot answer that"),
    ],
)  # fmt: skip
def test_composed_answers_have_measured_facts_only(question, intent, said):
    answer, found = compose(question, RESULT)
    assert found == intent and said in answer


def test_composed_answers_agree_with_the_verdict_they_are_made_from():
    """Parsed again, no composed answer contradicts the measured verdicts."""
    genuine = RESULT | {"label": "real", "score": 0.1, "video_score": 0.2, "windows": RESULT["windows"][:1]}
    questions = [q for part in templates("detection").values() for q in part["questions"]]
    questions += [q for part in templates("conversation").values() for q in part["questions"]]
    for result in (RESULT, genuine):
        scores = {"overall": result["score"], "video": result["video_score"], "audio": result["audio_score"]}
        for question in questions:
            answer, intent = compose(question.format(clip="clip", region="the mouth"), result)
            assert intent is not None, question
            assert contradictions(answer, "", scores) == [], (question, answer)


def test_timeline_joins_windows_and_needs_two():
    assert fake_segments(RESULT) == [[1.0, 3.0]]
    assert fake_segments(RESULT | {"windows": RESULT["windows"][1:2]}) == []


# -- form and bad input -------------------------------------------------------------------------------------------------


def test_json_has_the_published_form(analyst, clips):
    analyst.load(clips["silent"])
    report = analyst.json()
    assert set(report) == set(ANALYSIS_SCHEMA["required"]) == set(ANALYSIS_SCHEMA["properties"])
    assert (
        report["modalities"]["audio"] is None
        and report["modalities"]["video"]["score"] == analyst.result["video_score"]
    )
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    validator = jsonschema.Draft202012Validator(ANALYSIS_SCHEMA)
    validator.check_schema(ANALYSIS_SCHEMA)
    assert list(validator.iter_errors(report)) == []
    for change, place, message in (
        ({"score": 1.5}, "$.score", "1.5 is greater than the maximum of 1"),
        ({"label": "maybe"}, "$.label", "'maybe' is not one of"),
        ({"regions": ["ear"]}, "$.regions[0]", "'ear' is not one of"),
        ({"segments": [[1.0]]}, "$.segments[0]", "is too short"),
        ({"extra": 1}, "$", "'extra' was unexpected"),
        ({"duration": True}, "$.duration", "True is not of type 'number'"),
    ):
        error = next(validator.iter_errors(report | change))
        assert error.json_path == place and message in error.message
    incomplete = {key: value for key, value in report.items() if key != "model"}
    assert "'model' is a required property" in next(validator.iter_errors(incomplete)).message


def test_unreadable_clip_leaves_no_clip_behind(analyst, clips):
    analyst.load(clips["clip"])
    with pytest.raises(MediaError, match="broken"):
        analyst.load(clips["broken"])
    assert analyst.result is None
    for call in (lambda: analyst.ask("Is it fake?"), analyst.json):
        with pytest.raises(AnalystError, match="call load"):
            call()
    analyst.load(clips["clip"])
    with pytest.raises(AnalystError, match="empty"):
        analyst.ask("  ")

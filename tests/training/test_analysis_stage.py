"""Conversations in training: the tokens of answers, the draws, and the results of a whole stage."""

import json
from collections import Counter

import pytest
import torch
from datasets import Dataset
from media_factory import make_clip
from safetensors.torch import load_file
from transformers import AutoProcessor, pipeline

from modeling_avlmm import AutoModelForAVDeepfakeDetection, AVLMMForDeepfakeDetection, AVLMMProcessor
from modeling_avlmm.dialogue.conversation import (
    ConversationError,
    conversation_pieces,
    encode_conversations,
    generation_batch,
    turns_of,
    with_context,
)
from modeling_avlmm.dialogue.instructions import build_instructions
from modeling_avlmm.dialogue.measured_context import measured_context
from modeling_avlmm.publishing.publish import publish
from modeling_avlmm.training import analysis_stage
from modeling_avlmm.training.analysis_stage import ConversationCollator, conversation_schedule, within
from modeling_avlmm.training.batches import verdict_questions
from modeling_avlmm.training.recipe_parts import AnalysisRecipe, DataRecipe, ModelRecipe, StageRecipe
from modeling_avlmm.training.recipe_values import RecipeError
from modeling_avlmm.training.recipes import AVLMMRecipe, load_recipe
from modeling_avlmm.training.run import train
from modeling_avlmm.training.tiny.vocabulary import grow_vocabulary, grown_tokenizer, learn_merges

TURNS = [("Is this clip fake?", "Yes."), ("Where?", "The mouth.")]


@pytest.fixture(scope="module")
def processor(tiny_detector):
    return AVLMMProcessor.from_pretrained(tiny_detector)


def user(text, *media):
    return {"role": "user", "content": [*media, {"type": "text", "text": text}]}


def assistant(text):
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def test_mask_is_the_hand_made_one(processor, clips):
    def ids(text):
        return processor.tokenizer.encode(text, add_special_tokens=False)

    clip = processor.load(clips["clip"])
    encoded = encode_conversations(processor, clip, [TURNS])
    of_clip = int((encoded["question_ids"] == 0).sum())
    expected, answers = [], []
    for text, learned in (
        (" Is this clip fake?<|im_end|>\n<|im_start|>assistant\n", False),
        ("Yes.", True),
        ("<|im_end|>", True),
        ("\n<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n", False),
        ("The mouth.", True),
        ("<|im_end|>", True),
    ):
        expected += ids(text)
        answers += ids(text) if learned else [-100] * len(ids(text))
    assert encoded["input_ids"][of_clip:].tolist() == expected
    assert encoded["labels"].tolist() == [-100] * of_clip + answers
    assert encoded["question_ids"].tolist() == [0] * of_clip + [1] * len(expected)
    # The clip has the tokens it has before a verdict question, and the conversation takes that question's positions.
    alone = processor.encode(clip)
    assert torch.equal(encoded["input_ids"][:of_clip], alone["input_ids"][:of_clip])
    assert torch.equal(encoded["position_ids"][:, of_clip], alone["position_ids"][:, of_clip])
    steps = encoded["position_ids"][:, of_clip:] - encoded["position_ids"][:, of_clip : of_clip + 1]
    assert torch.equal(steps, torch.arange(len(expected)).expand(3, -1))


def test_pieces_are_what_the_chat_template_writes(processor):
    messages = [{"role": "system", "content": processor.prompts["system"]}]
    for number, (question, answer) in enumerate(TURNS):
        text = " " + question if number == 0 else question
        media = (
            [{"type": "text", "text": processor.prompts["prefix"]}, {"type": "video"}] if number == 0 else []
        )
        messages += [user(text, *media), assistant(answer)]
    whole = processor.tokenizer.apply_chat_template(
        messages, chat_template=processor.chat_template, tokenize=False
    )
    said = "".join(text for text, _ in conversation_pieces(processor, TURNS))
    assert whole.endswith(said + "\n") and "<|vision_eos|>" not in said
    open_end = conversation_pieces(processor, [*TURNS[:1], ("Where?", None)])
    assert [answer for _, answer in open_end] == [False, True, False]
    assert open_end[-1][0] == "\n<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n"


def test_verdicts_do_not_see_the_conversation_beside_them(processor, tiny_model, clips):
    clip = processor.load(clips["clip"])
    names = ["overall", "video", "audio"]
    alone = tiny_model(**processor.collate([processor.encode(clip, names)]))
    beside = processor.collate([encode_conversations(processor, clip, [TURNS, TURNS[:1]], names)])
    assert beside.pop("labels").ne(-100).sum() > 0
    both = tiny_model(**beside)
    for name in ("logits", "video_logits", "audio_logits"):
        torch.testing.assert_close(getattr(both, name), getattr(alone, name), atol=1e-5, rtol=1e-5)


def test_messages_that_are_no_conversation_are_named():
    video = {"type": "video", "text": None}
    assert turns_of([user("A?", video), assistant("B.")]) == [("A?", "B.")]
    assert turns_of([user("A?", {"type": "audio", "text": None})]) == [("A?", None)]
    for messages, message in (
        ([], "no messages"),
        ([user("A?")], "first part of a conversation is the clip"),
        ([user("A?", video), user("B?")], "Message 1 has the role 'user'"),
        ([user("A?", video), assistant("B."), user("C?", video)], "Message 2 has a part of type 'video'"),
        ([user(" ", video)], "Message 0, with the role 'user', is empty"),
    ):
        with pytest.raises(ConversationError, match=message):
            turns_of(messages)


def test_context_says_what_was_measured():
    text = measured_context({"overall": 0.4, "video": 0.97, "audio": None}, 0.3, [[0.5, 1.5], [2, 2.5]])
    assert text == " Measured: clip fake 0.40, picture fake 0.97; fake from 0.5 to 1.5 s, from 2.0 to 2.5 s."
    both = measured_context({"overall": 0.4, "video": 0.4}, 0.3, independent=True)
    assert both == " Measured: clip fake 0.40, picture fake 0.40."
    assert with_context(TURNS, text)[0] == (text + " Is this clip fake?", "Yes.")
    assert with_context(TURNS, text)[1:] == TURNS[1:]


# -- vocabulary ---------------------------------------------------------------------------------------------------------


def test_merges_join_the_commonest_pair_first():
    words = Counter({("a", "b", "c"): 2, ("a", "b"): 3, ("d",): 9})
    assert learn_merges(words, {"a", "b", "c", "d"}) == [("a", "b"), ("ab", "c")]
    assert learn_merges(words, {"a", "b", "c", "d"}, most=1) == [("a", "b")]
    # A merge that makes a known token uses up none of the new ones.
    assert learn_merges(words, {"a", "b", "c", "d", "ab"}, most=1) == [("a", "b"), ("ab", "c")]


def test_grown_detector_gives_the_same_verdicts_and_spells_nothing(tiny_detector, clips, tmp_path):
    model = AVLMMForDeepfakeDetection.from_pretrained(tiny_detector)
    processor = AVLMMProcessor.from_pretrained(tiny_detector)
    inputs = processor([clips["clip"]], ["overall", "video", "audio"])
    old, before = processor.tokenizer, model(**inputs)
    texts = [" Has anybody manipulated this recording?", "The hairline was re-rendered, from 0.4 s to 1.2 s."]
    made = grow_vocabulary(model, processor, texts)
    assert made == len(processor.tokenizer) - len(old) > 10
    assert model.thinker.get_input_embeddings().num_embeddings == len(processor.tokenizer)
    assert model.thinker.get_output_embeddings().weight.shape[0] == len(processor.tokenizer)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model = AutoModelForAVDeepfakeDetection.from_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    again = processor([clips["clip"]], ["overall", "video", "audio"])
    assert torch.equal(again["input_ids"], inputs["input_ids"])
    torch.testing.assert_close(model(**again).logits, before.logits)
    pieces = processor.tokenizer.tokenize(texts[0])
    assert pieces == ["ĠHas", "Ġanybody", "Ġmanipulated", "Ġthis", "Ġrecording", "?"]
    for text in texts:
        assert processor.tokenizer.decode(processor.tokenizer.encode(text)) == text
    assert all(
        processor.tokenizer.convert_ids_to_tokens(i) == old.convert_ids_to_tokens(i) for i in range(len(old))
    )
    with pytest.raises(RecipeError, match="would change the tokens of"):
        grown_tokenizer(old, [" unheard words"], [" unheard words"])


# -- what is drawn ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def instructions():
    rows = [
        {
            "video": f"{kind}{index}.mp4",
            "audio": None,
            "label": int(kind != "real"),
            "video_label": int(kind != "real"),
            "audio_label": 0,
            "generator": "real" if kind == "real" else "wav2lip",
            "audio_generator": "real",
            "fake_segments": [[0.0, 1.0 + index]] if kind != "real" else None,
            "path": f"{kind}{index}.mp4",
        }
        for kind in ("real", "fake")
        for index in range(4)
    ]
    return build_instructions(rows)


def test_schedule_keeps_shares_and_balance(instructions):
    stage = StageRecipe(
        kind="analysis",
        analysis=AnalysisRecipe(
            tasks={"detection": 1, "description": 3}, replay_share=1.0, context_share=0.25
        ),
    )
    drawn = conversation_schedule(instructions, DataRecipe(balance="label"), stage, 400, seed=3)
    assert Counter(drawn["task"]) == {"detection": 100, "description": 300}
    assert sum(drawn["label"]) == 200
    assert drawn["draw"][:] == list(range(400))
    assert all(drawn["replay"]) and 60 < sum(drawn["with_context"]) < 140
    again = conversation_schedule(instructions, DataRecipe(balance="label"), stage, 400, seed=3)
    assert again["path"][:] == drawn["path"][:] and again["with_context"][:] == drawn["with_context"][:]
    with pytest.raises(RecipeError, match="no conversation of the task description"):
        conversation_schedule(
            instructions.filter(lambda task: task == "detection", input_columns="task"),
            DataRecipe(),
            stage,
            8,
            seed=0,
        )


def test_rare_family_is_drawn_as_often_as_a_common_one():
    def row(kind, index, label, picture, sound, generator):
        return {
            "video": f"{kind}{index}.mp4",
            "audio": None,
            "label": label,
            "video_label": picture,
            "audio_label": sound,
            "generator": generator,
            "audio_generator": "rtvc" if sound else "real",
            "fake_segments": None,
            "path": f"{kind}{index}.mp4",
        }

    rows = [row("swap", i, 1, 1, 0, "faceswap") for i in range(12)]
    rows += [row("lips", i, 1, 1, 0, "wav2lip") for i in range(2)]
    rows += [row("voice", i, 1, 0, 1, "real") for i in range(5)]
    rows += [row("both", i, 1, 1, 1, "wav2lip") for i in range(5)]
    rows += [row("real", i, 0, 0, 0, "real") for i in range(3)]
    stage = StageRecipe(
        kind="analysis", analysis=AnalysisRecipe(tasks={"classification": 1, "description": 1})
    )
    instructions = build_instructions(rows)
    names = ("genuine", "face_swap", "reenactment", "voice", "both")
    for balance, expected in (
        ("family", [1 / 2, 1 / 8, 1 / 8, 1 / 8, 1 / 8]),
        ("modality", [1 / 2, 1 / 6 * 12 / 14, 1 / 6 * 2 / 14, 1 / 6, 1 / 6]),
    ):
        drawn = conversation_schedule(instructions, DataRecipe(balance=balance), stage, 1200, seed=0)
        for task in ("classification", "description"):
            counts = Counter(f for f, t in zip(drawn["family"], drawn["task"], strict=True) if t == task)
            assert [counts[name] / 600 for name in names] == pytest.approx(expected, abs=0.01)


def test_times_that_are_cut_off_are_left_out(instructions):
    kept = within(instructions, 2.0)
    assert {path for path in kept["path"] if path.startswith("fake")} == {"fake0.mp4", "fake1.mp4"}
    assert len(within(instructions, 4.0)) == len(instructions)


def test_collator_adds_verdicts_and_context_where_they_were_drawn(processor, clips, instructions):
    row = next(row for row in instructions if row["task"] == "detection" and row["label"] == 1)
    row |= {"video": str(clips["clip"]), "draw": 5, "ask_video": True, "ask_audio": False}
    collator = ConversationCollator(
        processor, questions_of=verdict_questions(processor), crop="start", clip_seconds=4.0
    )
    plain = collator([row | {"replay": False, "with_context": False}])
    assert "question_ids" not in plain and plain["answer_positions"].tolist() == [[-1, -1, -1]]
    full = collator([row | {"replay": True, "with_context": True}])
    assert full["question_ids"].max() == 3
    text = processor.tokenizer.decode(full["input_ids"][0])
    assert " Measured: clip fake 0." in text and "sound real 0." in text and "fake from 0.0 to 1.0 s" in text
    learned = processor.tokenizer.decode(full["labels"][0][full["labels"][0] != -100])
    assert learned.startswith("Fake<|im_end|>Fake<|im_end|>") and learned.count("<|im_end|>") == 3
    assert torch.equal(full["labels"], collator([row | {"replay": True, "with_context": True}])["labels"])


def test_recipes_are_read_and_wrong_ones_refused(tmp_path):
    for name in ("analysis_7b", "analysis_demo"):
        recipe = load_recipe(f"recipes/{name}.yaml")
        assert recipe.stages[0].kind == "analysis" and sum(recipe.stages[0].analysis.tasks.values()) == 1
    wrong = ["--stages.analysis.analysis.tasks", "{gossip: 1}"]
    with pytest.raises(RecipeError, match=r"gossip.*of detection, classification"):
        load_recipe("recipes/analysis_7b.yaml", wrong)
    with pytest.raises(RecipeError, match="replay_share is 2"):
        load_recipe("recipes/analysis_7b.yaml", ["--stages.analysis.analysis.replay_share", "2"])
    with pytest.raises(RecipeError, match=r"trim_leading_silence: false"):
        load_recipe("recipes/analysis_7b.yaml", ["--model.trim_leading_silence", "true"])
    with pytest.raises(RecipeError, match="balance: family is for recipes of analysis stages alone"):
        load_recipe("recipes/demo.yaml", ["--data.balance", "family"])
    with pytest.raises(RecipeError, match="it must be one of modality, label, family, none"):
        load_recipe("recipes/analysis_demo.yaml", ["--data.balance", "families"])
    with pytest.raises(RecipeError, match="is for stages of kind analysis"):
        StageRecipe(kind="encoders", analysis=AnalysisRecipe())


# -- a whole stage ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for label in ("real", "fake"):
        for index in range(3):
            path = folder / label / f"{index}.mp4"
            path.parent.mkdir(exist_ok=True)
            make_clip(path, seconds=1, fps=10, size=(56, 56), click_at=0.1 + 0.2 * index)
    return folder


def stage_recipe(corpus, detector, output_dir):
    return AVLMMRecipe(
        name="test",
        output_dir=str(output_dir),
        model=ModelRecipe(backbone=str(detector), dtype="float32", max_pixels=3136),
        data=DataRecipe(
            dataset="avfolder",
            data_dir=str(corpus),
            train_split="full",
            num_workers=0,
            clip_seconds=4.0,
            max_drop_share=0.5,
        ),
        stages=[
            StageRecipe(
                kind="analysis",
                max_steps=6,
                batch_size=2,
                learning_rate=5e-3,
                lora_rank=4,
                save_steps=2,
                log_steps=1,
                analysis=AnalysisRecipe(grow_vocabulary=True),
            )
        ],
    )


@pytest.fixture(scope="module")
def trained(corpus, tiny_detector, tmp_path_factory):
    return train(stage_recipe(corpus, tiny_detector, tmp_path_factory.mktemp("trained") / "run"))


def test_stage_leaves_a_detector_that_scores_and_writes(trained, tiny_detector, clips, tmp_path):
    before, after = load_file(tiny_detector / "model.safetensors"), load_file(trained / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name][: len(before[name])])}
    encoders = {name for name in changed if ".visual." in name or ".audio_tower." in name}
    assert encoders and all(".merger." in name or ".audio_tower.proj." in name for name in encoders)
    assert {"thinker.lm_head.weight", "thinker.model.language_model.embed_tokens.weight"} <= changed
    assert any("layers.0.self_attn.q_proj" in name for name in changed)

    to = publish(trained, tmp_path / "published")
    for folder in (trained, to):
        detector = pipeline("av-deepfake-detection", model=str(folder))
        assert detector.model.config.analysis["context"] is True
        result = detector(str(clips["clip"]))
        assert 0 <= result["score"] <= 1 and result["video_score"] is not None
        processor = detector.processor
        encoded = encode_conversations(
            processor, processor.load(clips["clip"]), [[("Is this clip fake?", None)]]
        )
        batch = generation_batch(processor, [encoded])
        written = detector.model.thinker.generate(**batch, max_new_tokens=4, do_sample=False)
        assert written.shape[1] == batch["input_ids"].shape[1] + 4
    drops = (trained.parent / "drops.jsonl").exists()
    assert not drops and json.loads((trained / "stage.json").read_text())["steps"] == 6


def test_stopped_and_resumed_equals_uninterrupted(corpus, tiny_detector, trained, tmp_path, monkeypatch):
    recipe = stage_recipe(corpus, tiny_detector, tmp_path / "run")
    call = ConversationCollator.__call__

    def stop_at_step_five(self, rows):
        if rows[0]["draw"] >= 8:
            raise KeyboardInterrupt
        return call(self, rows)

    monkeypatch.setattr(ConversationCollator, "__call__", stop_at_step_five)
    with pytest.raises(KeyboardInterrupt):
        train(recipe)
    assert (tmp_path / "run" / "analysis" / "checkpoints" / "checkpoint-2").is_dir()
    monkeypatch.setattr(ConversationCollator, "__call__", call)
    # Words added since then, say by new templates, do not belong to this stage.
    monkeypatch.setattr(analysis_stage, "write_grown", lambda *_: pytest.fail("grown a second time"))
    resumed = train(recipe)
    expected, got = load_file(trained / "model.safetensors"), load_file(resumed / "model.safetensors")
    for name, tensor in expected.items():
        assert torch.equal(tensor, got[name]), name


def test_unreadable_clips_are_dropped_and_listed(corpus, tiny_detector, tmp_path):
    broken = corpus / "fake" / "broken.mp4"
    broken.write_bytes(b"no video" * 20)
    try:
        recipe = stage_recipe(corpus, tiny_detector, tmp_path / "run")
        recipe.stages[0].max_steps = 12
        folder = train(recipe)
        listed = (folder.parent / "drops.jsonl").read_text().splitlines()
        assert {json.loads(line)["path"] for line in listed} == {"fake/broken.mp4"}
    finally:
        broken.unlink()


def test_evidence_is_measured_once(tmp_path, monkeypatch):
    from modeling_avlmm.explain import evidence_jobs

    make_clip(tmp_path / "real.mp4", seconds=1, fps=10)
    make_clip(tmp_path / "fake.mp4", seconds=1, fps=10, flash_at=0.4)
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 20)
    columns = {
        "video": [str(tmp_path / name) for name in ("real.mp4", "fake.mp4", "broken.mp4")],
        "audio": [None] * 3,
        "label": [0, 1, 1],
        "source": [None, "real", "real"],
        "path": ["real", "fake", "broken"],
    }
    rows, lines = Dataset.from_dict(columns), []
    file = tmp_path / "cache" / "evidence.jsonl"
    found = evidence_jobs.measured_evidence(rows, file, say=lines.append)
    assert set(found) == {"fake"} and found["fake"].duration == 1.0
    assert "compared 2 fakes" in lines[0] and "1 fakes could not be compared" in lines[1]
    file.write_text(file.read_text() + '{"path": "cut')
    monkeypatch.setattr(evidence_jobs, "measure_evidence", lambda *a, **k: pytest.fail("measured again"))
    assert evidence_jobs.measured_evidence(rows, file) == found

"""AV-LMMDetect: equality with the stock thinker and across batches, and the real size."""

import json

import pytest
import torch
from media_factory import random_clip
from transformers import (
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    Qwen2_5OmniThinkerConfig,
    Qwen2Tokenizer,
)

from modeling_avlmm import (
    AutoModelForAVDeepfakeDetection,
    AVLMMConfig,
    AVLMMForDeepfakeDetection,
    AVLMMProcessor,
)
from modeling_avlmm.configuration_avlmm import DEFAULT_PROMPTS
from modeling_avlmm.configuration_detector import PARTS
from modeling_avlmm.modeling_avlmm import label_token_ids
from modeling_avlmm.modeling_outputs import fake_probability
from modeling_avlmm.modeling_packed_attention import question_mask
from modeling_avlmm.processing_avlmm import normalize_pixels
from modeling_avlmm.training.recipe_parts import StageRecipe
from modeling_avlmm.training.stage_kinds import KINDS, count_trainable

NAMES = ("logits", "video_logits", "audio_logits")


@pytest.fixture(scope="module")
def processor(tiny_backbone):
    return AVLMMProcessor.from_backbone(str(tiny_backbone))


@pytest.fixture
def clips():
    return [
        random_clip(frames=8, seconds=4.1, seed=1),
        random_clip(frames=5, seconds=3.0, audio=False, seed=2),
        random_clip(seconds=3.0, video=False, seed=3),
        random_clip(frames=3, seconds=1.4, size=(101, 57), seed=4),
    ]


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_verdict_equals_the_stock_thinkers_language_head(tiny_model, processor, side):
    clips = [random_clip(frames=4, seconds=2.0, seed=1), random_clip(frames=8, seconds=4.3, seed=2)]
    batch = processor(clips, padding_side=side)
    stock = tiny_model.thinker(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        input_features=batch["input_features"],
        feature_attention_mask=batch["feature_attention_mask"],
        pixel_values_videos=batch["pixel_values_videos"],
        video_grid_thw=batch["video_grid_thw"],
        video_second_per_grid=torch.tensor([1.0, 1.0]),
        use_audio_in_video=True,
    ).logits
    last = batch["attention_mask"].sum(1) - 1 if side == "right" else torch.tensor([-1, -1])
    expected = stock[torch.arange(2), last][:, tiny_model.config.label_token_ids]
    torch.testing.assert_close(tiny_model(**batch).logits, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_pixels_of_a_loader_are_bytes_and_give_the_same_to_the_bit(tiny_model, processor, clips):
    loaded = processor.collate([processor.encode(clip) for clip in clips])
    called = processor(clips)
    assert loaded["pixel_values_videos"].dtype == torch.uint8
    assert called["pixel_values_videos"].dtype == torch.float32
    assert torch.equal(tiny_model(**loaded).logits, tiny_model(**called).logits)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_one_clip_and_one_question_equal_many(tiny_model, processor, clips, side):
    together = tiny_model(**processor(clips, PARTS, padding_side=side))
    for row, clip in enumerate(clips):
        for question, name in zip(PARTS, NAMES, strict=True):
            alone = tiny_model(**processor([clip], [question]))
            torch.testing.assert_close(together[name][row], alone[name][0], atol=1e-4, rtol=0)


@torch.no_grad()
def test_verdicts_that_were_not_asked_for_are_nan(tiny_model, processor, clips):
    encoded = [processor.encode(clips[0], ["overall", "audio"]), processor.encode(clips[1], ["overall"])]
    output = tiny_model(**processor.collate(encoded))
    assert output.video_logits is None
    assert output.audio_logits[0].isfinite().all() and output.audio_logits[1].isnan().all()
    assert output.logits.isfinite().all()
    torch.testing.assert_close(output.scores, output.logits.softmax(-1)[:, 1])


@torch.no_grad()
def test_language_head_runs_on_two_rows_only(tiny_model, processor, clips, monkeypatch):
    """The full head is a module: if it were called, it would be among the layers that run."""
    ran, forward = [], torch.nn.Linear.forward
    monkeypatch.setattr(torch.nn.Linear, "forward", lambda self, x: ran.append(self) or forward(self, x))
    tiny_model(**processor(clips, PARTS))
    head = tiny_model.get_output_embeddings()
    assert ran and not any(layer is head for layer in ran)


def test_loss_is_the_thinkers_loss_on_the_answers(tiny_model, processor):
    clip = random_clip()
    batch = processor.collate(
        [processor.encode(clip, [processor.question("overall", 1)])], padding_side="right"
    )
    arguments = {k: v for k, v in batch.items() if k not in ("answer_positions", "labels")}
    with torch.no_grad():
        logits = tiny_model.thinker(**normalize_pixels(arguments)).logits[0, :-1]
        targets = batch["labels"][0, 1:]
        expected = torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100)
        loss = tiny_model(**batch).loss
        divided = tiny_model(**batch, num_items_in_batch=8).loss
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(divided, expected * 2 / 8)


def test_questions_of_one_pass_train_like_questions_apart(tiny_model, processor):
    clip = random_clip(frames=4, seconds=2.0)
    asked = [processor.question("overall", 1), processor.question("video", 0), processor.question("audio", 1)]
    together = processor.collate([processor.encode(clip, asked)], padding_side="right")
    apart = processor.collate([processor.encode(clip, [one]) for one in asked], padding_side="right")
    gradients = []
    for batch in (together, apart):
        tiny_model.zero_grad()
        tiny_model(**batch).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in tiny_model.parameters() if p.grad is not None]))
    tiny_model.zero_grad()
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-3)


def test_question_mask():
    attention = torch.tensor([[0, 1, 1, 1, 1, 1, 1]])
    questions = torch.tensor([[0, 0, 0, 1, 1, 2, 2]])
    seen = question_mask(attention, questions, torch.float32)[0, 0] == 0
    assert seen.int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 1, 0, 0],
        [0, 1, 1, 0, 0, 1, 0],
        [0, 1, 1, 0, 0, 1, 1],
    ]


def test_several_questions_refuse_flash_attention(tiny_model, processor, clips):
    text = tiny_model.config.get_text_config()
    text._attn_implementation, before = "flash_attention_2", text._attn_implementation
    try:
        with pytest.raises(ValueError, match="one question at a time"):
            tiny_model(**processor(clips[:1], PARTS))
    finally:
        text._attn_implementation = before


def test_label_ids_come_from_the_tokenizer(tiny_backbone, tiny_model):
    tokenizer = Qwen2Tokenizer.from_pretrained(tiny_backbone)
    assert tokenizer.convert_ids_to_tokens(label_token_ids(tokenizer)) == ["Real", "Fake"]
    assert tiny_model.config.label_token_ids == label_token_ids(tokenizer)
    with pytest.raises(ValueError, match="'Real' is 4 tokens"):
        label_token_ids(Qwen2Tokenizer(vocab={c: i for i, c in enumerate("RealFk")}, merges=[]))


def test_fake_probability():
    assert fake_probability(torch.tensor([0.0, 0.0])) == 0.5
    assert fake_probability(torch.tensor([3.0, -3.0])) < 0.01
    assert fake_probability(torch.tensor([-3.0, 3.0])) > 0.99


def test_prompt_is_the_published_one():
    question = DEFAULT_PROMPTS["prefix"] + DEFAULT_PROMPTS["overall"]
    assert question == "Given the video, please assess if it's Real or Fake? Only answer 'Real' or 'Fake'."


def test_saves_and_loads(tiny_model, processor, clips, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    assert [p.name for p in tmp_path.iterdir() if p.suffix in (".safetensors", ".bin", ".pt")] == [
        "model.safetensors"
    ]
    loaded = AutoModelForAVDeepfakeDetection.from_pretrained(tmp_path)
    assert isinstance(loaded, AVLMMForDeepfakeDetection)
    batch = processor(clips, PARTS)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, tiny_model(**batch).logits)


def test_talker_and_vocoder_of_a_whole_omni_checkpoint_are_not_loaded(
    tiny_backbone, processor, clips, tmp_path
):
    thinker = json.loads((tiny_backbone / "config.json").read_text())
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    talker = {
        **small,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": 32,
        "embedding_size": thinker["text_config"]["hidden_size"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
        "tts_codec_start_token_id": 1,
        "tts_codec_end_token_id": 2,
        "tts_codec_pad_token_id": 0,
        "tts_codec_mask_token_id": 3,
    }
    config = Qwen2_5OmniConfig(thinker_config=thinker, talker_config=talker, enable_audio_output=False)
    whole = Qwen2_5OmniForConditionalGeneration(config)
    whole.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    model = AVLMMForDeepfakeDetection.from_backbone(str(tmp_path))
    assert not any("talker" in name or "token2wav" in name for name in model.state_dict())
    torch.testing.assert_close(
        model.thinker.lm_head.weight,
        whole.thinker.lm_head.weight,
        msg="the thinker's weights were not loaded",
    )


def test_unknown_backbones_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="not a known omni model"):
        AVLMMForDeepfakeDetection.from_backbone(str(tmp_path))


@pytest.fixture(scope="module")
def full_size():
    """Return the detector in the shape of Qwen2.5-Omni-7B, without memory for its weights."""
    config = Qwen2_5OmniThinkerConfig(
        vision_config={"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "num_heads": 16},
        text_config={"tie_word_embeddings": False},
    )
    with torch.device("meta"):
        return AVLMMForDeepfakeDetection(AVLMMConfig(thinker_config=config, label_token_ids=[12768, 52317]))


def test_size_of_the_7b_thinker(full_size):
    def millions(module):
        return round(sum(p.numel() for p in module.parameters()) / 1e6, 1)

    assert millions(full_size) == 8931.8
    assert millions(full_size.vision_encoder) == 676.6
    assert millions(full_size.audio_encoder) == 639.6
    assert [millions(p) for p in full_size.projectors] == [44.6, 4.6]


@pytest.mark.parametrize(("rank", "millions"), [(8, 20.2), (64, 161.5)])
def test_alignment_trains_lora_on_the_language_model_only(full_size, rank, millions):
    from peft import get_peft_model

    stage = StageRecipe(kind="alignment", lora_rank=rank)
    KINDS["alignment"].freeze(full_size, stage)
    with torch.device("meta"):
        model = get_peft_model(full_size, KINDS["alignment"].lora(full_size, stage))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert round(count_trainable(model) / 1e6, 1) == millions
    assert len(trained) == 28 * 7 * 2 and all("language_model.layers" in name for name in trained)
    model.unload()


@pytest.mark.parametrize(("projectors", "billions"), [(True, 1.316), (False, 1.267)])
def test_encoders_stage_trains_both_encoders_and_nothing_else(full_size, projectors, billions):
    KINDS["encoders"].freeze(full_size, StageRecipe(kind="encoders", train_projectors=projectors))
    assert round(count_trainable(full_size) / 1e9, 3) == billions
    trained = {name.split(".")[2] for name, p in full_size.named_parameters() if p.requires_grad}
    assert trained == {"visual", "audio_tower"}


@torch.no_grad()
def test_a_larger_vocabulary_changes_nothing(tiny_detector, processor, clips, tmp_path):
    """Both embeddings grow, and the detector can be saved and loaded."""
    model = AVLMMForDeepfakeDetection.from_pretrained(tiny_detector)
    batch = processor(clips[:1])
    expected, size = model(**batch).logits, model.get_input_embeddings().num_embeddings
    model.resize_token_embeddings(size + 8)
    assert (
        model.get_input_embeddings().num_embeddings == model.get_output_embeddings().out_features == size + 8
    )
    assert torch.equal(model(**batch).logits, expected)
    model.save_pretrained(tmp_path)
    again = AVLMMForDeepfakeDetection.from_pretrained(tmp_path)
    assert again.config.get_text_config().vocab_size == size + 8
    assert torch.equal(again(**batch).logits, expected)


@torch.no_grad()
def test_return_types(tiny_model, processor, clips):
    batch = processor(clips, PARTS, padding_side="left")
    plain = tiny_model(**batch, output_hidden_states=True)
    states, width = plain.hidden_states, tiny_model.config.get_text_config().hidden_size
    assert len(states) == tiny_model.config.get_text_config().num_hidden_layers + 1
    assert all(layer.shape == (*batch["input_ids"].shape, width) for layer in states)
    assert not states[-1][batch["attention_mask"] == 0].any()
    # The verdict is the head on the last state of the answer's place.
    rows = torch.arange(len(clips))
    last = states[-1][rows, batch["answer_positions"][:, 0]]
    ids = tiny_model.config.label_token_ids
    head = tiny_model.get_output_embeddings()
    torch.testing.assert_close(head(last)[:, ids], plain.logits, atol=1e-5, rtol=0)
    some = tiny_model(**batch, output_hidden_states=[1]).hidden_states
    assert len(some) == len(states) and some[0] is None and torch.equal(some[1], states[1])
    loss_less = tiny_model(**batch, return_dict=False)
    assert isinstance(loss_less, tuple) and torch.equal(loss_less[0], plain.logits)
    with pytest.raises(ValueError, match="no attentions"):
        tiny_model(**batch, output_attentions=True)


@torch.no_grad()
def test_without_a_mask_nothing_is_padding(tiny_model, processor, clips):
    batch = processor(clips[:1])
    expected = tiny_model(**batch).logits
    assert torch.equal(tiny_model(**{**batch, "attention_mask": None}).logits, expected)


def test_a_saved_configuration_does_not_say_where_the_backbone_was(tiny_backbone, tiny_detector):
    assert str(tiny_backbone) not in (tiny_detector / "config.json").read_text()

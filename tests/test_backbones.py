"""Every backbone on a tiny model of its own classes: equal to the stock model, whatever the batch, packed or padded."""

from __future__ import annotations

import pytest
import torch
import transformers
from media_factory import make_clip, random_clip
from peft import get_peft_model
from transformers import AutoConfig, AutoProcessor
from transformers.video_utils import VideoMetadata

from modeling_avlmm import AVLMMConfig, AVLMMForDeepfakeDetection, AVLMMProcessor
from modeling_avlmm.configuration_avlmm import BACKBONES, known_thinker
from modeling_avlmm.configuration_detector import PARTS
from modeling_avlmm.modeling_packed_attention import TEXT_ATTENTION
from modeling_avlmm.planning.memory import predict_scoring
from modeling_avlmm.publishing.elsewhere import DETECT, run_without_package
from modeling_avlmm.publishing.publish import publish
from modeling_avlmm.training.clip_shape import clip_shape
from modeling_avlmm.training.recipe_parts import StageRecipe
from modeling_avlmm.training.recipes import recipe_from
from modeling_avlmm.training.run import train
from modeling_avlmm.training.stage_kinds import KINDS, count_trainable
from modeling_avlmm.training.throughput import FlopsCounter
from modeling_avlmm.training.tiny.gemma4 import make_tiny_gemma4
from modeling_avlmm.training.tiny.qwen3_omni import make_tiny_qwen3_omni

MAKERS = {"qwen3_omni": make_tiny_qwen3_omni, "gemma4": make_tiny_gemma4}
PIXELS = {"qwen3_omni": 96 * 96, "gemma4": 12 * 9 * 16}
BUDGET = 70 * 9 * 16
"""Pixels of the 70 tokens that the stock processor of Gemma 4 makes of a frame; a token has 9 patches of 4 x 4."""
NAMES = ("logits", "video_logits", "audio_logits")
CASES = {
    "sound longer than picture": {"frames": 8, "fps": 2.0, "seconds": 7.3},
    "picture longer than sound": {"frames": 12, "fps": 4.0, "seconds": 1.6},
    "odd number of frames": {"frames": 5, "fps": 1.0, "seconds": 5.3},
    "half a sample over": {"frames": 2, "fps": 2.0, "seconds": 1.00004},
    "picture alone": {"frames": 3, "fps": 2.0, "audio": False},
    "sound alone": {"seconds": 3.7, "video": False},
}


@pytest.fixture(scope="module", params=MAKERS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def folder(name, tmp_path_factory):
    return MAKERS[name](tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def processor(name, folder):
    return AVLMMProcessor.from_backbone(str(folder), max_pixels=PIXELS[name])


@pytest.fixture(scope="module")
def model(folder):
    return AVLMMForDeepfakeDetection.from_backbone(str(folder), attn_implementation="sdpa")


@pytest.fixture
def clips():
    """Clips of different lengths, one with less than a second of sound, and clips with missing modalities."""
    return [
        random_clip(frames=4, seconds=2.1, size=(140, 196), seed=1),
        random_clip(frames=3, seconds=1.5, audio=False, seed=2),
        random_clip(seconds=1.5, video=False, seed=3),
        random_clip(frames=2, seconds=0.7, size=(101, 57), seed=4),
    ]


def stock_batch(folder, processor, clip, fps):
    """Return what the backbone's own processor makes of a clip."""
    stock, omni = AutoProcessor.from_pretrained(folder), processor.omni
    kind = "both" if clip.has_video and clip.has_audio else "video" if clip.has_video else "audio"
    content = [{"type": "text", "text": processor.prompts["prefix"]}]
    content += [{"type": part} for part in omni.media_parts(kind)]
    content += [{"type": "text", "text": processor.prompts["overall"]}]
    system = {"role": "system", "content": [{"type": "text", "text": processor.prompts["system"]}]}
    messages = [system, {"role": "user", "content": content}]
    options, videos = {}, {"do_sample_frames": False}
    if omni.model_type == "gemma4":
        options["text_kwargs"] = {"add_special_tokens": False}  # the template writes them
        if clip.has_video:
            indices = list(range(len(clip.frames)))
            metadata = VideoMetadata(total_num_frames=len(indices), fps=fps, frames_indices=indices)
            videos["video_metadata"] = [metadata]
    else:
        sizes = {"shortest_edge": processor.min_pixels, "longest_edge": processor.max_pixels}
        videos |= {"fps": fps, "size": sizes}
        if kind == "both":
            options |= {"load_audio_from_video": True, "audio_from_video_indices": [0]}
    return stock(
        text=[stock.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)],
        videos=[clip.frames] if clip.has_video else None,
        audio=[clip.audio.numpy()] if clip.has_audio else None,
        return_tensors="pt",
        videos_kwargs=videos,
        **options,
    )


@torch.no_grad()
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_tokens_and_verdict_equal_the_stock_models(folder, model, case):
    clip, fps = random_clip(**case), case.get("fps", 2.0)
    processor = AVLMMProcessor.from_backbone(str(folder), max_pixels=max(112_896, BUDGET))
    ours, theirs = processor([clip]), stock_batch(folder, processor, clip, fps)
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    if processor.omni.model_type != "gemma4":
        theirs.pop("num_audio_tokens", None)
        theirs["use_audio_in_video"] = clip.has_video and clip.has_audio
        if clip.has_video:
            assert torch.equal(ours["pixel_values_videos"], theirs["pixel_values_videos"])
        if clip.has_audio:
            assert torch.equal(ours["input_features"], theirs["input_features"])
        # Without positions, the model asks the stock one for them.
        given = {key: value for key, value in theirs.items() if key != "attention_mask"}
        mask = theirs["attention_mask"]
        positions = processor.omni.stock_positions(
            model.thinker, theirs["input_ids"], None, mask, **{k: given.get(k) for k in given}
        )
        assert torch.equal(ours["position_ids"], positions)
        torch.testing.assert_close(
            model(**given, attention_mask=mask).logits, model(**ours).logits, atol=1e-5, rtol=0
        )
    label_ids = model.config.label_token_ids
    expected = model.thinker(**theirs).logits[:, -1, label_ids]
    torch.testing.assert_close(model(**ours).logits, expected, atol=1e-5, rtol=0)
    named = processor.omni.stock_inputs({key: ours[key] for key in ours if key != "answer_positions"})
    again = model.thinker(**named).logits[:, -1, label_ids]
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_one_clip_and_one_question_equal_many(model, processor, clips, side):
    together = model(**processor(clips, PARTS, padding_side=side))
    for row, clip in enumerate(clips):
        for question, part in zip(PARTS, NAMES, strict=True):
            alone = model(**processor([clip], [question]))[part]
            torch.testing.assert_close(together[part][row], alone[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_packed_rows_train_as_padded_ones_and_as_questions_apart(folder, processor, clips, side):
    """Verdicts, loss and every gradient are equal, whatever the way."""
    # Grouped products of experts take no float64, and not every encoder does.
    model = AVLMMForDeepfakeDetection.from_backbone(str(folder), experts_implementation="eager")
    model.language_model.double()
    model.get_output_embeddings().double()
    assert model.language_model.config._attn_implementation == TEXT_ATTENTION
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    asked = []
    for index, clip in enumerate(clips):
        has = {"overall": True, "video": clip.has_video, "audio": clip.has_audio}
        asked.append([processor.question(part, (index + k) % 2) for k, part in enumerate(PARTS) if has[part]])

    def run(rows):
        batch = processor.collate([processor.encode(clips[row], questions) for row, questions in rows], side)
        output = model(**batch)
        return output, torch.autograd.grad(output.loss, weights, allow_unused=True)

    rows = list(enumerate(asked))
    packed, found = run(rows)
    _, apart = run([(row, [question]) for row, questions in rows for question in questions])
    model.language_model.config._attn_implementation = "eager"
    padded, stock = run(rows)
    for part in NAMES:
        torch.testing.assert_close(packed[part], padded[part], atol=1e-5, rtol=0, equal_nan=True)
    torch.testing.assert_close(packed.loss, padded.loss, atol=1e-6, rtol=0)
    for one, other, third in zip(found, stock, apart, strict=True):
        assert (one is None) == (other is None) == (third is None)
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(one, third, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_encoded_media_stand_for_the_media(model, processor, clips):
    """The encoder cache keeps what `encode_media` returns; a modality that no clip has takes no tokens."""
    batch = dict(processor(clips))
    expected = model(**batch).logits
    media = ("input_features", "feature_attention_mask", "pixel_values_videos", "video_grid_thw")
    sound, picture = model.encode_media(**{key: batch.pop(key) for key in media})
    assert picture.shape[1] == processor.omni.picture_width(model.config.thinker_config)
    found = model(**batch, audio_embeds=sound, video_embeds=picture).logits
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    alone = dict(processor(clips[2:3]))
    expected = model(**alone).logits
    sound, _ = model.encode_media(**{key: alone.pop(key) for key in media[:2]})
    found = model(**alone, audio_embeds=sound, video_embeds=picture[:0]).logits
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_only_what_a_stage_names_trains(model, folder):
    for kind in ("alignment", "encoders"):
        stage = StageRecipe(kind=kind, lora_rank=4)
        fresh = AVLMMForDeepfakeDetection.from_backbone(str(folder))
        KINDS[kind].freeze(fresh, stage)
        if KINDS[kind].uses_lora:
            fresh = get_peft_model(fresh, KINDS[kind].lora(fresh, stage))
        trained = {name for name, weight in fresh.named_parameters() if weight.requires_grad}
        inside = {"language_model" in name for name in trained}
        assert inside == {kind == "alignment"} and trained
    counted = FlopsCounter(fresh)
    assert counted.text_cost[0] > 0 and counted.projector_cost[0] > 0


def test_a_cast_batch_keeps_its_positions(model, processor, clips):
    """Positions may be fractions of a second, which bfloat16 would round."""
    batch = processor(clips[:1])
    places = batch["position_ids"].clone()
    assert torch.equal(batch.to(torch.bfloat16)["position_ids"], places)
    with pytest.raises(ValueError, match="whole numbers"):
        model(**{**batch, "position_ids": places.float()})


def test_shapes_of_a_dry_run_are_those_of_the_processor(model, processor):
    clip = random_clip(frames=4, fps=2.0, seconds=2.0, size=(300, 300))
    encoded = processor.encode(clip, PARTS)
    config = model.config.thinker_config
    shape = clip_shape(config, 2.0, 2.0, processor.max_pixels)
    tokens = encoded["input_ids"]
    pictures, sounds = ((tokens == token).sum() for token in (config.video_token_id, config.audio_token_id))
    assert pictures <= shape.video_tokens <= 1.4 * pictures  # a square may leave tokens of a budget unused
    assert sounds <= shape.audio_tokens <= sounds + 1
    assert len(tokens) <= shape.tokens  # the words of a tiny tokenizer are longer
    need = predict_scoring(config, shape, batch_size=2, dtype=torch.float32)
    assert need.all_weights == sum(weight.numel() for weight in model.parameters())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two short clips of each class."""
    folder = tmp_path_factory.mktemp("corpus")
    for label in ("real", "fake"):
        for index in range(2):
            path = folder / label / f"{index}.mp4"
            path.parent.mkdir(exist_ok=True)
            make_clip(path, seconds=1, fps=10, size=(56, 56), click_at=0.1 + 0.2 * index)
    return folder


def test_two_stages_and_a_published_folder_that_works_alone(name, folder, corpus, tmp_path):
    stage = {"max_steps": 2, "batch_size": 2, "learning_rate": 1e-3, "save_steps": 2, "log_steps": 1}
    values = {
        "system": "avlmm",
        "name": "test",
        "output_dir": str(tmp_path / "run"),
        "model": {"backbone": str(folder), "dtype": "float32", "max_pixels": 3136},
        "data": {
            "dataset": "avfolder",
            "data_dir": str(corpus),
            "train_split": "full",
            "num_workers": 0,
            "clip_seconds": 0.8,
            "crop": "start",
        },
        "stages": [
            {"kind": "alignment", "lora_rank": 4, "encoder_cache": str(tmp_path / "cache"), **stage},
            {"kind": "encoders", **stage},
        ],
    }
    train(recipe_from(values))
    before = AVLMMForDeepfakeDetection.from_backbone(str(folder)).state_dict()
    trained = AVLMMForDeepfakeDetection.from_pretrained(tmp_path / "run" / "encoders" / "model")
    changed = {key for key, value in trained.state_dict().items() if not torch.equal(value, before[key])}
    parts = {
        "language_model",
        *(
            path.split(".")[1]
            for path in (
                BACKBONES[trained.config.thinker_config.model_type].vision_encoder,
                BACKBONES[trained.config.thinker_config.model_type].audio_encoder,
            )
        ),
    }
    assert parts <= {key.split(".")[2] for key in changed}

    clip = next(corpus.rglob("*.mp4"))
    here = transformers.pipeline("av-deepfake-detection", model=str(tmp_path / "run" / "encoders" / "model"))(
        str(clip)
    )
    published = publish(tmp_path / "run" / "encoders" / "model", tmp_path / "published")
    there = run_without_package(DETECT, published, clip, folder=tmp_path)[0]
    assert there["module"].startswith("transformers_modules")
    assert there["score"] == pytest.approx(here["score"], abs=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"audio_config": None}, "without audio encoder"),
        ({"text_config": {"use_bidirectional_attention": "vision"}}, "see what follows"),
    ],
)
def test_models_of_a_family_that_lack_something_are_refused(change, said):
    config = AutoConfig.for_model(
        "gemma4", **{"audio_config": {}, "vision_config": {}, "text_config": {}, **change}
    )
    with pytest.raises(ValueError, match=said):
        known_thinker(config, "some/model")


QWEN3 = {
    "text_config": {
        "vocab_size": 152064,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "head_dim": 128,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [24, 20, 20]},
    },
    "audio_config": {"output_dim": 2048},
    "vision_config": {"out_hidden_size": 2048},
}
GEMMA = {
    "text_config": {
        "hidden_size": 1536,
        "intermediate_size": 6144,
        "num_hidden_layers": 35,
        "num_key_value_heads": 1,
        "num_kv_shared_layers": 20,
        "use_double_wide_mlp": True,
        "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7,
    },
    "audio_config": {},
    "vision_config": {},
}


@pytest.mark.parametrize(
    ("model_type", "values", "billions", "lora_millions"),
    [("qwen3_omni_moe_thinker", QWEN3, 31.7, 53.5), ("gemma4", GEMMA, 5.1, 96.6)],
)
def test_size_of_the_real_shape(model_type, values, billions, lora_millions):
    config = AutoConfig.for_model(model_type, **values)
    with torch.device("meta"):
        model = AVLMMForDeepfakeDetection(AVLMMConfig(thinker_config=config, label_token_ids=[0, 1]))
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e9, 1) == billions
    stage = StageRecipe(kind="alignment", lora_rank=64)
    KINDS["alignment"].freeze(model, stage)
    with torch.device("meta"):
        adapted = get_peft_model(model, KINDS["alignment"].lora(model, stage))
    assert round(count_trainable(adapted) / 1e6, 1) == lora_millions

"""AVPL: sizes, frozen encoders, alignment in time, absent parts, saving with and without the encoders."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from avpl_factory import ENCODERS, TINY, batch, save_tiny_encoders, stir, tiny, tiny_config
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    CLIPConfig,
    CLIPModel,
    WhisperForConditionalGeneration,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from modeling_avlmm import (
    AutoModelForAVDeepfakeDetection,
    AVPLConfig,
    AVPLForDeepfakeDetection,
)
from modeling_avlmm.modeling_avpl_blocks import heard_at, window_means
from modeling_avlmm.modeling_avpl_encoders import EncoderError
from modeling_avlmm.training.tiny.encoders import make_tiny_encoders

LOGITS = ("logits", "video_logits", "audio_logits")
SWITCHES = (
    {},
    {"sequential_prompts": False},
    {"num_visual_prompts": 0},
    {"short_time_prompts": False},
    {"matching_weight": 0.0},
    {"multi_task": False},
)


def trained_part(model: nn.Module) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def rows(inputs: dict, chosen) -> dict:
    return {name: value[chosen] for name, value in inputs.items()}


# -- sizes -------------------------------------------------------------------------------------------------------------


def test_published_size_trains_4_4_million():
    with torch.device("meta"):
        model = AVPLForDeepfakeDetection(AVPLConfig())
    count = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    prompts, carry = 12 * 4 * 768, 2 * 768 * 32 + 32 + 768
    audio = 6 * (512 + 1024 * 512 + 512)
    align = 769 * 512 + 513 * 512
    heads = 2 * (513 * 256 + 514) + 1026 * 256 + 514
    assert count == prompts + carry + audio + align + heads == 4_421_926
    assert round(count / 1e6, 1) == 4.4
    # ViT-B/16 without text, Whisper-base without decoder.
    assert sum(weight.numel() for weight in model.vision_encoder.parameters()) == 85_799_424
    assert sum(weight.numel() for weight in model.audio_encoder.parameters()) == 20_590_592


@pytest.mark.parametrize("options", SWITCHES)
def test_shapes_and_gradients_with_every_switch(options):
    model = tiny(**options).train()
    inputs = batch(model.config)
    output = model(**inputs, labels=torch.tensor([0, 1, 0]), audio_labels=torch.tensor([0, 1, 0]))
    assert output.logits.shape == (3, 2) and output.loss.ndim == 0
    assert (output.video_logits is None) == ("multi_task" in options)
    if "matching_weight" in options:
        assert output.frame_scores is None and output.disagreement is None
    else:
        assert output.frame_scores.shape == (3, 6)
        assert output.frame_scores.min() >= 0 and output.frame_scores.max() <= 1
        torch.testing.assert_close(output.disagreement, output.frame_scores.mean(1))
    output.loss.backward()
    for name, weight in model.named_parameters():
        assert (weight.grad is not None and weight.grad.abs().max() > 0) == weight.requires_grad, name
        assert weight.requires_grad == (not name.startswith(ENCODERS)), name


def test_encoders_stay_frozen_and_in_evaluation_mode():
    model = tiny()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    model.vision_encoder.config.attention_dropout = 0.5
    for _ in range(2):
        model.train()
    assert model.training and model.head.training and model.visual_prompts.training
    for encoder in (model.vision_encoder, model.audio_encoder):
        assert not any(module.training for module in encoder.modules())
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=0.1)
    model(**batch(model.config), labels=torch.tensor([0, 1, 0])).loss.backward()
    optimizer.step()
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]) == name.startswith(ENCODERS), name


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
def test_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        model = tiny()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.visual_prompts.gradient_checkpointing
        model.train()
        model(**batch(model.config), labels=torch.tensor([0, 1, 0])).loss.backward()
        gradients.append({n: w.grad for n, w in model.named_parameters() if w.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


def test_sizes_that_do_not_fit_are_refused():
    for options, text in (
        ({"clip_seconds": 2.5}, "at most 2, for which the audio encoder has positions, not 2.5"),
        ({"align_seconds": 0.01}, "at least 0.02"),
        ({"num_frames": 0}, "num_frames must be at least 1"),
        ({"num_visual_prompts": -1}, "must not be negative"),
        ({"matching_margin": 1.0}, r"in \[-1, 1\)"),
    ):
        with pytest.raises(ValueError, match=text):
            tiny_config(**options)


# -- the streams -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_batch_is_its_clips():
    model = tiny()
    inputs = batch(model.config)
    together = model(**inputs)
    for name in (*LOGITS, "frame_scores"):
        singles = torch.cat([model(**rows(inputs, slice(k, k + 1)))[name] for k in range(3)])
        torch.testing.assert_close(together[name], singles, atol=1e-5, rtol=1e-5)
        assert (together[name][0] - together[name][1]).abs().max() > 1e-4


@torch.no_grad()
def test_bytes_and_normalised_frames_are_the_same_picture():
    model = tiny()
    inputs = batch(model.config)
    mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    normalised = {**inputs, "pixel_values": (inputs["pixel_values"].float() / 255 - mean) / std}
    torch.testing.assert_close(model(**normalised).logits, model(**inputs).logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_without_prompts_the_streams_are_stock_clip_and_whisper():
    """A clip that fills all positions has no padding, so stock Whisper takes it."""
    model = tiny(num_visual_prompts=0, short_time_prompts=False, clip_seconds=2.0)
    pixels, mask = torch.randn(2, 6, 3, 32, 32), torch.ones(2, 6, dtype=torch.bool)
    seen = model.visual_prompts(pixels, mask, model.vision_encoder)
    stock = model.vision_encoder(pixels.flatten(0, 1)).pooler_output
    torch.testing.assert_close(seen.flatten(0, 1), stock)
    spectra = torch.randn(2, 80, 200)
    heard = model.audio_prompts(spectra, torch.ones(2, 100, dtype=torch.bool), model.audio_encoder)
    torch.testing.assert_close(heard, model.audio_encoder(spectra).last_hidden_state)


@torch.no_grad()
def test_sliced_positions_equal_padding_that_nobody_attends_to():
    """The stock layers over all positions give the same first tokens if keys after the sound are masked out."""
    model = tiny(short_time_prompts=False)
    encoder, count = model.audio_encoder, 37
    spectra = torch.randn(2, 80, 200)
    mask = torch.ones(2, count, dtype=torch.bool)
    sliced = model.audio_prompts(spectra[..., : 2 * count + 1], mask, encoder)

    hidden = F.gelu(encoder.conv2(F.gelu(encoder.conv1(spectra)))).transpose(1, 2)
    hidden = hidden + encoder.embed_positions.weight
    hide = torch.zeros(2, 1, 100, 100)
    hide[..., count:] = torch.finfo(torch.float32).min
    for layer in encoder.layers:
        hidden = layer(hidden, hide)
    padded = encoder.layer_norm(hidden)[:, :count]
    torch.testing.assert_close(sliced, padded, atol=1e-5, rtol=1e-5)
    # Without the following spectrum the last token differs, and no other's input does. Padding that is attended to
    # changes every token.
    shorter = model.audio_prompts(spectra[..., : 2 * count], mask, encoder)
    assert (shorter - padded).abs().max() > 1e-3
    stock = encoder(spectra).last_hidden_state[:, :count]
    assert (stock - padded).abs().amax((0, 2)).min() > 1e-4
    # So does a mask in a longer row, as for shorter clips of a batch.
    longer = torch.arange(60).expand(2, -1) < count
    row = model.audio_prompts(spectra[..., :121], longer, encoder)[:, :count]
    torch.testing.assert_close(row, padded, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_prompts_hand_on_one_frame_a_layer_and_only_forwards():
    """In two layers a frame reaches the next one only; without the carry it reaches none."""
    for options, reached in (({}, [2, 3]), ({"sequential_prompts": False}, [2])):
        model = tiny(**options)
        mask = torch.ones(1, 6, dtype=torch.bool)
        pixels = torch.randn(1, 6, 3, 32, 32)
        changed = pixels.clone()
        changed[0, 2] += 1
        seen, other = (model.visual_prompts(p, mask, model.vision_encoder) for p in (pixels, changed))
        moved = (seen - other).abs().amax((0, 2)) > 1e-5
        assert moved.nonzero().flatten().tolist() == reached
    # Padding passes nothing on.
    model, mask = tiny(), torch.tensor([[1, 1, 0, 1, 1, 1]]).bool()
    seen, other = (model.visual_prompts(p, mask, model.vision_encoder) for p in (pixels, changed))
    torch.testing.assert_close(seen[:, 3], other[:, 3])


@torch.no_grad()
def test_short_time_prompts_see_their_window():
    tokens, mask = torch.randn(2, 12, 4), torch.ones(2, 12, dtype=torch.bool)
    mask[1, 7:] = False
    means = window_means(tokens, mask, 5)
    assert means.shape == tokens.shape
    torch.testing.assert_close(means[0, 3], tokens[0, :5].mean(0))
    torch.testing.assert_close(means[0, 11], tokens[0, 10:].mean(0))
    torch.testing.assert_close(means[1, 6], tokens[1, 5:7].mean(0))
    assert not means[1, 10:].any()
    model = tiny()
    assert model.audio_prompts.prompts.shape == (2, 24)
    prompted = model.audio_prompts._prompted(0, tokens.repeat(1, 1, 6), mask)
    changed = tokens.clone()
    changed[0, 6] = 9
    other = model.audio_prompts._prompted(0, changed.repeat(1, 1, 6), mask)
    moved = (prompted - other)[0].abs().amax(1) > 1e-6
    assert moved.nonzero().flatten().tolist() == [5, 6, 7, 8, 9]


# -- alignment ---------------------------------------------------------------------------------------------------------


def test_frames_hear_what_sounds_at_their_true_times():
    """At uneven times, each frame's sound is the mean over the tokens in reach, computed by hand."""
    sound = torch.arange(50.0)[None, :, None]  # a token's feature is its number
    mask = torch.arange(50)[None] < 40
    times = torch.tensor([[0.0, 0.013, 0.3, 0.31, 0.775, 0.83, 0.99]])
    heard, audible = heard_at(sound, mask, times, 0.06)
    for frame, time in enumerate(times[0].tolist()):
        weights = {k: 1 - abs(time - k * 0.02) / 0.06 for k in range(40) if abs(time - k * 0.02) < 0.06}
        total = sum(weights.values())
        assert audible[0, frame].item() == (total > 1e-3)
        expected = sum(k * w for k, w in weights.items()) / total if weights else 0.0
        assert heard[0, frame, 0].item() == pytest.approx(expected, abs=1e-3)
    assert audible[0].tolist() == [True] * 6 + [False]
    assert heard[0, 2, 0].item() == pytest.approx(15.0, abs=1e-4)
    assert heard[0, 3, 0].item() == pytest.approx(15.5, abs=1e-4)


@torch.no_grad()
def test_frame_scores_follow_the_times_given():
    model = tiny()
    inputs = batch(model.config, 1)
    moved = {**inputs, "frame_times": inputs["frame_times"] + 0.25}
    first, second = model(**inputs), model(**moved)
    assert torch.equal(first.audio_logits, second.audio_logits)
    assert torch.equal(first.video_logits, second.video_logits)
    assert (first.frame_scores - second.frame_scores)[0, :4].abs().max() > 1e-4
    assert (first.logits - second.logits).abs().max() > 1e-6
    # Frames after the end of the sound have no score: at 5/6 + 0.25 s the clip is over.
    assert second.frame_scores.isnan().tolist() == [[False] * 5 + [True]]
    torch.testing.assert_close(second.disagreement[0], second.frame_scores[0, :5].mean())


# -- absent parts ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_clips_without_sound_or_picture():
    model = tiny()
    inputs = batch(model.config)
    masks = {"frame_mask": torch.ones(3, 6), "audio_mask": torch.ones(3, 50)}
    masks["frame_mask"][1, 4:] = 0
    masks["frame_mask"][2] = 0
    masks["audio_mask"][1] = 0
    output, whole = model(**inputs, **masks), model(**inputs)
    for name in (*LOGITS, "frame_scores"):
        torch.testing.assert_close(output[name][0], whole[name][0], atol=1e-5, rtol=1e-5)
    assert torch.equal(output.logits[1], output.video_logits[1]) and output.audio_logits[1].isnan().all()
    assert torch.equal(output.logits[2], output.audio_logits[2]) and output.video_logits[2].isnan().all()
    assert output.frame_scores[1:].isnan().all() and output.disagreement.isnan().tolist() == [
        False,
        True,
        True,
    ]
    # Masked values have no influence, and leaving a part out is the same as masking it.
    noise = {name: value.clone() for name, value in inputs.items()}
    noise["pixel_values"][1, 4:], noise["pixel_values"][2] = 7, 9
    noise["input_features"][1] = 0.5
    noise["frame_times"][2] = 0.1
    torch.testing.assert_close(model(**noise, **masks).logits, output.logits)
    sound = model(input_features=inputs["input_features"])
    torch.testing.assert_close(sound.logits[2], output.logits[2], atol=1e-5, rtol=1e-5)
    assert torch.equal(sound.logits, sound.audio_logits) and sound.video_logits.isnan().all()
    picture = model(inputs["pixel_values"][1:2, :4])
    torch.testing.assert_close(picture.logits[0], output.logits[1], atol=1e-5, rtol=1e-5)
    assert picture.frame_scores.isnan().all() and picture.disagreement.isnan().all()
    nothing = model(**inputs, frame_mask=torch.zeros(3, 6), audio_mask=torch.zeros(3, 50))
    assert nothing.logits.isnan().all()


@torch.no_grad()
def test_a_single_task_judges_everything_with_one_head():
    model = tiny(multi_task=False)
    inputs = batch(model.config)
    masks = {"frame_mask": torch.ones(3, 6), "audio_mask": torch.ones(3, 50)}
    masks["frame_mask"][1] = 0
    masks["audio_mask"][2] = 0
    output, whole = model(**inputs, **masks), model(**inputs)
    assert output.video_logits is None and output.audio_logits is None and not output.logits.isnan().any()
    torch.testing.assert_close(output.logits[0], whole.logits[0], atol=1e-5, rtol=1e-5)
    inputs["input_features"][1] += 1  # the sound still counts
    assert (model(**inputs, **masks).logits[1] - output.logits[1]).abs().max() > 1e-5


def test_wrong_inputs_are_told():
    model = tiny()
    inputs = batch(model.config)
    with pytest.raises(ValueError, match="pixel_values, input_features or both"):
        model()
    with pytest.raises(ValueError, match="frame_times are needed"):
        model(inputs["pixel_values"], inputs["input_features"])
    with pytest.raises(ValueError, match=r"pixel_values has shape \(3, 6, 3, 32, 30\)"):
        model(**{**inputs, "pixel_values": inputs["pixel_values"][..., :30]})
    with pytest.raises(ValueError, match=r"frame_times has shape \(3, 5\), and this model takes \(3, 6\)"):
        model(**{**inputs, "frame_times": inputs["frame_times"][:, :5]})
    with pytest.raises(ValueError, match=r"input_features has shape \(3, 79"):
        model(**{**inputs, "input_features": inputs["input_features"][:, :79]})
    with pytest.raises(ValueError, match="101 audio tokens, and the encoder at most 100"):
        model(**{**inputs, "input_features": torch.zeros(3, 80, 203)})
    with pytest.raises(ValueError, match="audio_mask has shape"):
        model(**inputs, audio_mask=torch.ones(3, 51))


@torch.no_grad()
def test_half_precision(tmp_path):
    folders = save_tiny_encoders(tmp_path)
    model = stir(AVPLForDeepfakeDetection.from_encoders(**folders, **TINY))
    model.save_pretrained(tmp_path / "model")
    half = AVPLForDeepfakeDetection.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    inputs = batch(model.config)
    output, whole = half(**inputs), model(**inputs)
    assert output.logits.dtype == output.frame_scores.dtype == torch.float32
    torch.testing.assert_close(output.scores, whole.scores, atol=0.05, rtol=0)
    torch.testing.assert_close(output.frame_scores, whole.frame_scores, atol=0.05, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(**inputs).scores, whole.scores, atol=0.05, rtol=0)


# -- saving ------------------------------------------------------------------------------------------------------------


def test_only_the_trained_part_is_saved_and_the_encoders_come_back(tmp_path):
    folders = save_tiny_encoders(tmp_path)
    model = stir(AVPLForDeepfakeDetection.from_encoders(**folders, **TINY, threshold=0.3))
    assert model.config.stored_encoders() == ()
    model.save_pretrained(tmp_path / "model")
    assert load_file(tmp_path / "model" / "model.safetensors").keys() == trained_part(model) | {
        "centre_video.mean",
        "centre_audio.mean",
    }
    config = AutoConfig.from_pretrained(tmp_path / "model")
    assert (
        type(config) is AVPLConfig
        and config.threshold == 0.3
        and config.vision_encoder == folders["vision_encoder"]
    )
    assert config.vision_config.hidden_size == 32 and config.audio_config.d_model == 24
    inputs = batch(model.config)
    with torch.no_grad():
        expected = model(**inputs).logits
    for auto in (AutoModel, AutoModelForAVDeepfakeDetection, AVPLForDeepfakeDetection):
        loaded = auto.from_pretrained(tmp_path / "model")
        assert type(loaded) is AVPLForDeepfakeDetection and not loaded.training
        assert trained_part(loaded) == trained_part(model)
        for name, value in model.state_dict().items():
            assert torch.equal(value, loaded.state_dict()[name]), name
        with torch.no_grad():
            assert torch.equal(loaded(**inputs).logits, expected)
    _, info = AVPLForDeepfakeDetection.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


def test_save_encoders_set_afterwards_takes_them_from_their_home(tmp_path):
    """Publishing advises this for encoders in a local folder. The file has none yet; random ones must not be used."""
    model = AVPLForDeepfakeDetection.from_encoders(**save_tiny_encoders(tmp_path, seed=3), **TINY)
    model.save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "save_encoders": True}))
    loaded = AVPLForDeepfakeDetection.from_pretrained(tmp_path / "model")
    loaded.save_pretrained(tmp_path / "whole")
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    assert whole.keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, whole[key]), key
    assert trained_part(loaded) == trained_part(model)


def test_encoders_without_a_home_are_saved_too(tmp_path):
    folders = save_tiny_encoders(tmp_path)
    for name, model in (
        ("random", tiny()),
        ("chosen", AVPLForDeepfakeDetection.from_encoders(**folders, **TINY, save_encoders=True)),
        ("mixed", AVPLForDeepfakeDetection.from_encoders(**folders, **TINY)),
    ):
        if name == "mixed":
            model.config.vision_encoder = None
        model.save_pretrained(tmp_path / name)
        stored = load_file(tmp_path / name / "model.safetensors").keys()
        assert any(key.startswith("vision_encoder.") for key in stored)
        assert any(key.startswith("audio_encoder.") for key in stored) == (name != "mixed")
        loaded = AVPLForDeepfakeDetection.from_pretrained(tmp_path / name)
        for key, value in model.state_dict().items():
            assert torch.equal(value, loaded.state_dict()[key]), (name, key)
        assert trained_part(loaded) == trained_part(model)
    # A warning names weights that are missing in the file.
    file = tmp_path / "random" / "model.safetensors"
    left = {key: value for key, value in load_file(file).items() if "layers.1" not in key}
    save_file(left, file, metadata={"format": "pt"})
    _, info = AVPLForDeepfakeDetection.from_pretrained(tmp_path / "random", output_loading_info=True)
    assert any(key.startswith("vision_encoder.encoder.layers.1") for key in info["missing_keys"])


def test_encoders_of_whole_checkpoints_load(tmp_path):
    """The Hub's CLIP has a text half, its Whisper a decoder and a head."""
    vision, audio = make_tiny_encoders()
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 8,
    }
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision.config.to_dict(), projection_dim=16))
    clip.vision_model.load_state_dict(vision.state_dict())
    clip.save_pretrained(tmp_path / "clip")
    whisper = WhisperForConditionalGeneration(audio.config)
    whisper.model.load_state_dict(audio.state_dict())
    whisper.save_pretrained(tmp_path / "whisper")
    model = AVPLForDeepfakeDetection.from_encoders(str(tmp_path / "clip"), str(tmp_path / "whisper"), **TINY)
    for own, stock in ((model.vision_encoder, vision), (model.audio_encoder, audio.encoder)):
        for name, value in stock.state_dict().items():
            assert torch.equal(own.state_dict()[name], value), name


def test_encoders_that_are_not_the_ones_are_refused(tmp_path):
    folders = save_tiny_encoders(tmp_path / "one")
    model = AVPLForDeepfakeDetection.from_encoders(**folders, **TINY)
    model.save_pretrained(tmp_path / "model")
    others = save_tiny_encoders(tmp_path / "other", seed=1)
    load = AVPLForDeepfakeDetection.from_pretrained
    copies = save_tiny_encoders(tmp_path / "copy")
    moved = load(tmp_path / "model", **copies)
    assert moved.config.vision_encoder == copies["vision_encoder"]
    with pytest.raises(
        EncoderError, match=r"has other weights .* than the one the detector was trained with"
    ):
        load(tmp_path / "model", vision_encoder=others["vision_encoder"])
    with pytest.raises(EncoderError, match=r"audio encoder .* cannot be loaded"):
        load(tmp_path / "model", audio_encoder=str(tmp_path / "nowhere"))
    with pytest.raises(
        EncoderError, match="is a checkpoint of 'whisper'; the vision encoder of AVPL must be a CLIP one"
    ):
        load(tmp_path / "model", vision_encoder=folders["audio_encoder"])
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(EncoderError, match="'bert'"):
        AVPLForDeepfakeDetection.from_encoders(str(tmp_path / "bert"), folders["audio_encoder"])
    # Another size is named before any weight is compared.
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["vision_config"]["intermediate_size"] = 48
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    message = r"does not fit the detector: .*fc1.weight is \(64, 32\) there and \(48, 32\) in the detector's"
    with pytest.raises(EncoderError, match=message):
        load(tmp_path / "model")
    # A part of the encoder that a checkpoint lacks would stay random.
    file = tmp_path / "copy" / "audio" / "model.safetensors"
    left = {key: value for key, value in load_file(file).items() if "encoder.conv1" not in key}
    save_file(left, file, metadata={"format": "pt"})
    with pytest.raises(EncoderError, match="lacks weights of the audio encoder"):
        AVPLForDeepfakeDetection.from_encoders(**copies, **TINY)

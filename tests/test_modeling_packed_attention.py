"""Packed attention against the stock attention: the same numbers and the same gradients, in fewer calls."""

import contextlib
import json

import pytest
import torch
from media_factory import random_clip
from torch import nn

from modeling_avlmm import AVLMMForDeepfakeDetection, AVLMMProcessor, modeling_packed_attention
from modeling_avlmm.configuration_detector import PARTS
from modeling_avlmm.modeling_packed_attention import (
    ENCODER_ATTENTION,
    TEXT_ATTENTION,
    PackedRows,
    pack_rows,
    packed_attention,
    question_mask,
    windowed_attention,
)

LENGTHS = {
    "alike": [5, 5, 5],
    "in a row": [5, 5, 3, 7, 7],
    "mixed": [4, 6, 4, 1, 6, 4],
    "with empty ones": [0, 3, 0, 3, 2],
    "one": [9],
}


@pytest.fixture(scope="module")
def processor(tiny_backbone):
    return AVLMMProcessor.from_backbone(str(tiny_backbone))


@pytest.fixture(scope="module")
def model(tiny_backbone):
    """A separate detector, because gradients are taken of it."""
    return AVLMMForDeepfakeDetection.from_backbone(str(tiny_backbone)).double()


@pytest.fixture(scope="module")
def clips():
    """Clips of different lengths, with different windows, and with missing modalities."""
    return [
        random_clip(frames=8, seconds=4.1, size=(140, 196), seed=1),
        random_clip(frames=5, seconds=3.0, audio=False, seed=2),
        random_clip(seconds=2.5, video=False, seed=3),
        random_clip(frames=3, seconds=1.4, size=(101, 57), seed=4),
        random_clip(frames=8, seconds=4.1, size=(140, 196), seed=5),
    ]


@contextlib.contextmanager
def stock_attention(model):
    """Use the attention of `transformers`."""
    configs = [m.config for m in (model.language_model, model.vision_encoder, model.audio_encoder)]
    before = [config._attn_implementation for config in configs]
    for config in configs:
        config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name


def row_of(tokens, heads=4, key_heads=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(1, tokens, h, 8, dtype=torch.double, generator=generator)
        .transpose(1, 2)
        .requires_grad_(True)
        for h in (heads, key_heads or heads, key_heads or heads)
    ]


def gradients_of(output, inputs):
    weights = torch.randn(output.shape, dtype=output.dtype, generator=torch.Generator().manual_seed(9))
    return torch.autograd.grad((output * weights).sum(), inputs)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_windows_equal_windows_alone(lengths):
    row = row_of(sum(lengths))
    ends = torch.tensor([0, *lengths]).cumsum(0)
    ours, _ = windowed_attention(nn.Module(), *row, None, cu_seq_lens_q=ends, scaling=0.3, is_causal=False)
    pieces = zip(*(states.split(lengths, dim=2) for states in row), strict=True)
    alone = torch.cat(
        [nn.functional.scaled_dot_product_attention(*piece, scale=0.3) for piece in pieces], dim=2
    ).transpose(1, 2)
    torch.testing.assert_close(ours, alone, atol=1e-12, rtol=0)
    for one, other in zip(gradients_of(ours, row), gradients_of(alone, row), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_packed_rows_equal_padded_rows_under_a_mask(padding_side, key_heads):
    # One question, three of different lengths, the same three, none, and one whose answer comes before the next.
    owners = [[0] * 6 + [1] * 3, [0] * 4 + [1, 1, 2, 2, 2, 3], [0] * 4 + [1, 1, 2, 2, 2, 3], [0] * 3]
    owners.append([0, 0, 1, 2, 2])
    lengths = [len(owner) for owner in owners]
    longest = max(lengths)
    mask, questions = torch.zeros(5, longest, dtype=torch.long), torch.zeros(5, longest, dtype=torch.long)
    for index, owner in enumerate(owners):
        start = longest - len(owner) if padding_side == "left" else 0
        mask[index, start : start + len(owner)] = 1
        questions[index, start : start + len(owner)] = torch.tensor(owner)

    tokens, rows = pack_rows(mask, questions)
    row = row_of(sum(lengths), key_heads=key_heads)
    module = nn.Module()
    module.num_key_value_groups = 4 // key_heads
    ours, _ = packed_attention(module, *row, None, packed_rows=rows, scaling=0.3)

    padded = []
    for states in row:
        empty = states.new_zeros(5, longest, *states[0].transpose(0, 1).shape[1:])
        padded.append(
            empty.masked_scatter(tokens[..., None, None], states[0].transpose(0, 1)).transpose(1, 2)
        )
    query, key, value = padded
    additive = question_mask(mask, questions, torch.double)
    key, value = (x.repeat_interleave(4 // key_heads, dim=1) for x in (key, value))
    stock = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=additive, scale=0.3)
    stock = stock.transpose(1, 2)[tokens][None]
    torch.testing.assert_close(ours, stock, atol=1e-12, rtol=0)
    for one, other in zip(gradients_of(ours, row), gradients_of(stock, row), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_without_packed_rows_or_windows_it_is_sdpa():
    row = row_of(7)
    expected = nn.functional.scaled_dot_product_attention(*row, is_causal=True).transpose(1, 2)
    for attention in (packed_attention, windowed_attention):
        ours, _ = attention(nn.Module(), *row, None, is_causal=True)
        torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("lengths", "groups"), [([4] * 50, 1), ([4, 6] * 30, 2), ([100, 100, 52, 100, 100, 52], 2)]
)
def test_sequences_of_one_length_are_one_call(monkeypatch, lengths, groups):
    calls, stock = [], modeling_packed_attention.sdpa_attention_forward
    monkeypatch.setattr(
        modeling_packed_attention, "sdpa_attention_forward", lambda *a, **k: calls.append(1) or stock(*a, **k)
    )
    ends = torch.tensor([0, *lengths]).cumsum(0)
    windowed_attention(nn.Module(), *row_of(sum(lengths)), None, cu_seq_lens_q=ends, is_causal=False)
    assert len(calls) == groups


def test_rows_without_padding_between_them_are_not_copied():
    rows = PackedRows.of([3, 3, 5, 2], torch.device("cpu"))
    assert [group.places for group in rows.groups] == [slice(0, 6), slice(6, 11), slice(11, 13)]
    assert rows.order is None
    assert PackedRows.of([3, 5, 3], torch.device("cpu")).order.tolist() == [0, 1, 2, 6, 7, 8, 9, 10, 3, 4, 5]


@pytest.mark.parametrize("encoder", ["vision_encoder", "audio_encoder"])
def test_encoders_equal_the_stock_encoders(model, processor, clips, encoder):
    batch = processor([clip for clip in clips if clip.has_video and clip.has_audio])
    module = getattr(model, encoder)

    def run():
        if encoder == "vision_encoder":
            pixels = batch["pixel_values_videos"].double()
            return module(pixels, grid_thw=batch["video_grid_thw"]).pooler_output
        mask = batch["feature_attention_mask"]
        features = batch["input_features"].double().permute(0, 2, 1)[mask.bool()].T
        return module(features, feature_lens=mask.sum(1)).last_hidden_state

    weights = [weight for weight in module.parameters() if weight.requires_grad]
    ours = run()
    found = torch.autograd.grad(ours.square().sum(), weights, allow_unused=True)
    with stock_attention(model):
        stock = run()
        expected = torch.autograd.grad(stock.square().sum(), weights, allow_unused=True)
    torch.testing.assert_close(ours, stock, atol=1e-10, rtol=1e-10)
    for one, other in zip(found, expected, strict=True):
        if other is not None:
            torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("parts", [("overall",), PARTS], ids=["one question", "three questions"])
@pytest.mark.parametrize("alike", [True, False], ids=["without padding", "with padding"])
def test_batches_train_as_with_the_stock_attention(model, processor, clips, side, parts, alike):
    """Verdicts, loss and every gradient are equal to 1e-8 in float64."""
    chosen = [clips[0], clips[4]] if alike else clips
    encoded = []
    for index, clip in enumerate(chosen):
        has = {"overall": True, "video": clip.has_video, "audio": clip.has_audio}
        asked = [processor.question(part, (index + k) % 2) for k, part in enumerate(parts) if has[part]]
        encoded.append(processor.encode(clip, asked))
    batch = processor.collate(encoded, padding_side=side)
    batch = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    weights = [weight for weight in model.parameters() if weight.requires_grad]

    def run():
        output = model(**batch)
        gradients = torch.autograd.grad(output.loss, weights, allow_unused=True)
        verdicts = [x for x in (output.logits, output.video_logits, output.audio_logits) if x is not None]
        return output.loss, verdicts, gradients

    ours = run()
    with stock_attention(model):
        stock = run()
    torch.testing.assert_close(ours[0], stock[0], atol=1e-8, rtol=0)
    torch.testing.assert_close(ours[1], stock[1], atol=1e-5, rtol=0, equal_nan=True)  # verdicts are float32
    for one, other in zip(ours[2], stock[2], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-8)


def test_a_batch_equals_the_sum_of_its_clips(model, processor, clips):
    """The loss of a batch is that of its clips, weighted by the number of answers."""
    encoded = [processor.encode(clip, [processor.question("overall", 1)]) for clip in clips]
    together = model(**_double(processor.collate(encoded)), num_items_in_batch=10).loss
    apart = sum(model(**_double(processor.collate([one])), num_items_in_batch=10).loss for one in encoded)
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)  # a sum of float32 losses


def test_recomputed_activations_give_the_same_gradients(tiny_backbone, processor, clips):
    model = AVLMMForDeepfakeDetection.from_backbone(str(tiny_backbone)).double().train()
    batch = _double(
        processor.collate([processor.encode(c, [processor.question("overall", 1)]) for c in clips])
    )
    weights = list(model.parameters())
    expected = torch.autograd.grad(model(**batch).loss, weights, allow_unused=True)
    model.gradient_checkpointing_enable()
    found = torch.autograd.grad(model(**batch).loss, weights, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        if other is not None:
            torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_frozen_encoders_are_not_gone_back_through(tiny_backbone, processor, clips):
    """This also holds if gradients of all inputs are requested, as by LoRA with recomputed activations."""
    model = AVLMMForDeepfakeDetection.from_backbone(str(tiny_backbone)).train()
    batch = processor.collate([processor.encode(clips[0], [processor.question("overall", 1)])])
    for encoder in (model.vision_encoder, model.audio_encoder):
        encoder.requires_grad_(False)
    model.enable_input_require_grads()
    graphs = []
    blocks = (model.vision_encoder.blocks[0], model.audio_encoder.layers[0])
    for block in blocks:
        block.register_forward_hook(
            lambda *args: graphs.append((args[-1][0] if isinstance(args[-1], tuple) else args[-1]).grad_fn)
        )
    model(**batch).loss.backward()
    assert graphs == [None, None]
    assert model.language_model.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0
    # If one of them trains, the backward pass runs through it.
    model.vision_encoder.requires_grad_(True)
    graphs.clear()
    model(**batch).loss.backward()
    assert [graph is None for graph in sorted(graphs, key=lambda g: g is not None)] == [True, False]
    assert model.vision_encoder.blocks[0].mlp.up_proj.weight.grad.abs().sum() > 0


def test_only_sdpa_is_replaced(tiny_backbone, processor, clips):
    model = AVLMMForDeepfakeDetection.from_backbone(str(tiny_backbone), attn_implementation="sdpa")
    assert model.language_model.config._attn_implementation == TEXT_ATTENTION
    assert model.vision_encoder.config._attn_implementation == ENCODER_ATTENTION
    assert model.audio_encoder.config._attn_implementation == ENCODER_ATTENTION
    eager = AVLMMForDeepfakeDetection.from_backbone(str(tiny_backbone), attn_implementation="eager")
    for module in (eager.language_model, eager.vision_encoder, eager.audio_encoder):
        assert module.config._attn_implementation == "eager"
    batch = processor(clips, PARTS)
    with torch.no_grad():
        torch.testing.assert_close(
            model(**batch).logits, eager(**batch).logits, atol=1e-4, rtol=0, equal_nan=True
        )


def test_it_is_the_default_of_a_saved_detector_and_not_in_its_files(tiny_detector, processor, clips):
    model = AVLMMForDeepfakeDetection.from_pretrained(tiny_detector)
    assert model.language_model.config._attn_implementation == TEXT_ATTENTION
    assert model.vision_encoder.config._attn_implementation == ENCODER_ATTENTION
    written = json.dumps(json.loads((tiny_detector / "config.json").read_text(encoding="utf-8")))
    assert TEXT_ATTENTION not in written and ENCODER_ATTENTION not in written
    assert (tiny_detector / "modeling_packed_attention.py").is_file()


def test_another_model_can_be_built_from_its_configuration(model):
    with torch.device("meta"):
        other = AVLMMForDeepfakeDetection(model.config)
    assert other.vision_encoder.config._attn_implementation == ENCODER_ATTENTION
    assert other.vision_encoder.blocks[0].attn.config._attn_implementation == ENCODER_ATTENTION


def test_another_attention_can_be_chosen_later(tiny_backbone, processor, clips):
    model = AVLMMForDeepfakeDetection.from_backbone(str(tiny_backbone))
    batch = processor(clips)
    with torch.no_grad():
        packed = model(**batch).logits
        model.set_attn_implementation("eager")
        for module in (model.language_model, model.vision_encoder, model.audio_encoder):
            assert module.config._attn_implementation == "eager"
        torch.testing.assert_close(model(**batch).logits, packed, atol=1e-4, rtol=0)


@torch.no_grad()
def test_writing_is_as_with_the_stock_attention(model, processor, clips):
    """`generate` of the thinker packs nothing but uses the same attention, with padded rows and a cache."""
    batch = _double(processor([clips[0], clips[3]]))
    arguments = {name: batch[name] for name in batch if name not in ("answer_positions", "position_ids")}
    arguments |= {"video_second_per_grid": torch.ones(2), "use_audio_in_video": True}
    written = model.thinker.generate(**arguments, max_new_tokens=5, do_sample=False)
    with stock_attention(model):
        expected = model.thinker.generate(**arguments, max_new_tokens=5, do_sample=False)
    assert written.tolist() == expected.tolist()


@pytest.mark.parametrize("media", ["input_features", "pixel_values_videos"])
def test_media_of_another_batch_are_an_error(model, processor, clips, media):
    batch, other = _double(processor([clips[0]])), _double(processor([clips[3]]))
    names = {
        "input_features": ("input_features", "feature_attention_mask"),
        "pixel_values_videos": ("pixel_values_videos", "video_grid_thw"),
    }[media]
    what = "sound" if media == "input_features" else "picture"
    with pytest.raises(ValueError, match=f"placeholder tokens for {what} but"):
        model(**{**batch, **{name: other[name] for name in names}})


def _double(batch):
    return {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}

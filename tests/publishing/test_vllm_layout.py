"""The layout for vLLM: the plain thinker of `transformers` is in it, and every name has its place in vLLM's model."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import (
    AutoConfig,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen3OmniMoeThinkerForConditionalGeneration,
)

from modeling_avlmm import AVLMMForDeepfakeDetection, AVLMMProcessor
from modeling_avlmm.publishing.publish import PublishError, publish
from modeling_avlmm.publishing.vllm_layout import LayoutError, write_vllm_folder
from modeling_avlmm.training.tiny.qwen3_omni import make_tiny_qwen3_omni

VLLM_PREFIXES = {
    "thinker.lm_head.": "language_model.lm_head.",
    "thinker.model.": "language_model.model.",
    "thinker.": "",
}
"""First match of vLLM 0.33's `hf_to_vllm_mapper` for Qwen2.5-Omni."""

VLLM_MODULES = (
    r"language_model\.lm_head\.weight",
    r"language_model\.model\.embed_tokens\.weight",
    r"language_model\.model\.norm\.weight",
    r"language_model\.model\.layers\.\d+\.(input_layernorm|post_attention_layernorm)\.weight",
    r"language_model\.model\.layers\.\d+\.self_attn\.([qkv]_proj\.(weight|bias)|o_proj\.weight)",
    r"language_model\.model\.layers\.\d+\.mlp\.(gate|up|down)_proj\.weight",
    r"visual\.patch_embed\.proj\.weight",
    r"visual\.blocks\.\d+\.(norm[12]\.weight|attn\.(q|k|v|proj)\.(weight|bias)|mlp\.(gate|up|down)_proj\.(weight|bias))",
    r"visual\.merger\.(ln_q\.weight|mlp\.[02]\.(weight|bias))",
    r"audio_tower\.(conv[12]|ln_post|proj)\.(weight|bias)",
    r"audio_tower\.audio_bos_eos_token\.weight",
    r"audio_tower\.layers\.\d+\.(self_attn\.([qkvo]|out)(_proj)?\.(weight|bias)|fc[12]\.(weight|bias)|(self_attn_layer_norm|final_layer_norm)\.(weight|bias))",
)
"""Parameters of the modules that vLLM 0.33 builds for Qwen2.5-Omni."""


def names_in(folder) -> list[str]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return list(file.keys())


def served(name: str) -> str:
    old = next(prefix for prefix in VLLM_PREFIXES if name.startswith(prefix))
    return VLLM_PREFIXES[old] + name.removeprefix(old)


def test_the_plain_thinker_is_in_it(tiny_vllm, tiny_detector, clips):
    """Equal tensors, none missing and none too many, and the same P(fake)."""
    thinker, info = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        tiny_vllm, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    model = AVLMMForDeepfakeDetection.from_pretrained(tiny_detector).eval()
    ours, stock = dict(model.thinker.named_parameters()), dict(thinker.named_parameters())
    assert ours.keys() == stock.keys() and all(torch.equal(ours[name], stock[name]) for name in ours)
    batch = AVLMMProcessor.from_pretrained(tiny_detector)(str(clips["clip"]))
    with torch.no_grad():
        logits = thinker.eval()(
            **{name: batch[name] for name in batch if name not in ("answer_positions", "question_ids")}
        ).logits[:, -1, model.config.label_token_ids]
        assert model(**batch).scores.item() == pytest.approx(logits.softmax(-1)[0, 1].item(), abs=1e-5)


def test_every_name_has_its_place_in_vllms_model(tiny_vllm):
    names = [served(name) for name in names_in(tiny_vllm)]
    assert len(set(names)) == len(names) == 104
    assert [name for name in names if not any(re.fullmatch(pattern, name) for pattern in VLLM_MODULES)] == []


def test_configuration_and_processor_are_stock(tiny_vllm, tiny_detector):
    config = AutoConfig.from_pretrained(tiny_vllm)
    assert (config.model_type, config.architectures) == (
        "qwen2_5_omni",
        ["Qwen2_5OmniForConditionalGeneration"],
    )
    detector = AutoConfig.from_pretrained(tiny_detector)
    assert config.thinker_config.to_diff_dict() == detector.thinker_config.to_diff_dict()
    assert config.enable_audio_output is False
    processor = Qwen2_5OmniProcessor.from_pretrained(tiny_vllm)
    ours = AVLMMProcessor.from_pretrained(tiny_detector)
    assert processor.chat_template == ours.chat_template
    assert processor.video_processor.patch_size == processor.image_processor.patch_size == 14
    assert (
        json.loads((tiny_vllm / "processor_config.json").read_text())["processor_class"]
        == "Qwen2_5OmniProcessor"
    )
    assert json.loads((tiny_vllm / "generation_config.json").read_text())["do_sample"] is False
    settings = json.loads((tiny_vllm / "detector.json").read_text())
    assert settings["config"]["label_token_ids"] == detector.label_token_ids
    assert settings["processor"]["fps"] == ours.fps and not list(tiny_vllm.glob("*.py"))


def test_shards_and_a_merged_adapter(tiny_detector, tmp_path):
    """LoRA merged into the detector is in the folder's weights, in as many files as `transformers` writes."""
    model = AVLMMForDeepfakeDetection.from_pretrained(tiny_detector)
    torch.manual_seed(0)
    adapted = get_peft_model(
        model, LoraConfig(r=2, target_modules=r".*self_attn\.q_proj", init_lora_weights=False)
    )
    merged = adapted.merge_and_unload()
    merged.thinker.save_pretrained = lambda folder, save=merged.thinker.save_pretrained, **options: save(
        folder, max_shard_size="200KB", **options
    )
    folder = tmp_path / "vllm"
    folder.mkdir()
    write_vllm_folder(merged, AVLMMProcessor.from_pretrained(tiny_detector), folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 1 and all(name.startswith("thinker.") for name in index)
    thinker, info = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    stock = dict(thinker.named_parameters())
    assert all(torch.equal(weight, stock[name]) for name, weight in merged.thinker.named_parameters())
    before = AVLMMForDeepfakeDetection.from_pretrained(tiny_detector).thinker
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(stock[name], before.get_parameter(name))


def test_what_is_refused(gate_folder, tiny_detector, tiny_vllm, tmp_path):
    with pytest.raises(LayoutError, match="'ssavd': leave --layout out"):
        publish(gate_folder, tmp_path / "out", layout="vllm")
    assert not (tmp_path / "out").exists()
    with pytest.raises(PublishError, match="cannot be loaded: Unrecognized configuration class"):
        publish(tiny_vllm, tmp_path / "out")
    again = shutil.copytree(tiny_vllm, tmp_path / "again")
    assert publish(tiny_detector, again, layout="vllm") == again


def test_a_mixture_of_experts(tmp_path):
    """Qwen3-Omni: each expert under its official name, and the same thinker when loaded."""
    backbone = make_tiny_qwen3_omni(tmp_path / "backbone")
    model = AVLMMForDeepfakeDetection.from_backbone(str(backbone))
    (folder := tmp_path / "vllm").mkdir()
    write_vllm_folder(model, AVLMMProcessor.from_backbone(str(backbone)), folder)
    assert AutoConfig.from_pretrained(folder).architectures == ["Qwen3OmniMoeForConditionalGeneration"]
    names = names_in(folder)
    assert all(name.startswith("thinker.") for name in names)
    assert any(
        re.fullmatch(r"thinker\.model\.layers\.0\.mlp\.experts\.0\.gate_proj\.weight", name) for name in names
    )
    thinker, info = Qwen3OmniMoeThinkerForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    stock = dict(thinker.named_parameters())
    assert all(torch.equal(weight, stock[name]) for name, weight in model.thinker.named_parameters())

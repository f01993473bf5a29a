"""A tiny Gemma 4 of the real classes, with random weights: sliding windows, shared keys, an embedding for each layer."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4ImageProcessor,
    Gemma4Processor,
    Gemma4VideoProcessor,
    GemmaTokenizer,
)

from ...backbone_gemma4 import VIDEO_TOKEN
from ...configuration_avlmm import DEFAULT_PROMPTS, LABEL_WORDS
from .backbone import scale_weights_by_fan_in

MEDIA_TOKENS = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}
TURN = ("<|turn>", "<turn|>")
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *TURN, *MEDIA_TOKENS.values(), VIDEO_TOKEN]

# Turns with the media markers of Gemma 4.
CHAT_TEMPLATE = """\
<bos>{%- for message in messages -%}
<|turn>{{ "model" if message.role == "assistant" else message.role }}
{% for part in message.content -%}
{%- if part.type in ("video", "audio", "image") -%}<|{{ part.type }}|>
{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}<turn|>
{% endfor -%}
{%- if add_generation_prompt -%}<|turn>model
{% endif -%}"""


def make_tiny_gemma4(output_dir: str | Path, seed: int = 0) -> Path:
    """
    Write a tiny checkpoint (model, tokenizer, processor) that `from_backbone` loads like the real one.

    Args:
        output_dir (`str` or `Path`): Folder to write.
        seed (`int`, *optional*, defaults to 0): Seed of the weights.

    Returns:
        `Path`: the folder.
    """
    output_dir = Path(output_dir)
    tokenizer = train_gemma_tokenizer(list(DEFAULT_PROMPTS.values()))
    config = tiny_gemma4_config(tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        thinker = Gemma4ForConditionalGeneration(config)
        scale_weights_by_fan_in(thinker)
    thinker.save_pretrained(output_dir)
    patches = {"patch_size": config.vision_config.patch_size}
    Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessor(**patches),
        tokenizer=tokenizer,
        video_processor=Gemma4VideoProcessor(**patches),
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(output_dir)
    return output_dir


def train_gemma_tokenizer(corpus: list[str]) -> GemmaTokenizer:
    """Train a BPE of a few hundred tokens in which every word of `corpus` and both answers are single tokens."""
    text = [
        *corpus,
        *LABEL_WORDS,
        *(" " + word for word in LABEL_WORDS),
        "system\n",
        "user\n",
        "model\n",
    ] * 50
    text += ["0123456789:"] * 50
    trained = GemmaTokenizer().train_new_from_iterator(text, vocab_size=4000, new_special_tokens=SPECIAL[5:])
    model = json.loads(trained.backend_tokenizer.to_str())["model"]
    return GemmaTokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        extra_special_tokens={**MEDIA_TOKENS, "sot_token": TURN[0], "eot_token": TURN[1]},
        chat_template=CHAT_TEMPLATE,
    )


def tiny_gemma4_config(tokenizer: GemmaTokenizer) -> Gemma4Config:
    """Return the configuration, with the token ids of `tokenizer`."""
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in MEDIA_TOKENS.items()}
    layers = ["sliding_attention", "full_attention"] * 2
    return Gemma4Config(
        text_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": len(layers),
            "layer_types": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "global_head_dim": 16,
            "sliding_window": 24,
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 8,
            "vocab_size": len(tokenizer),
            "vocab_size_per_layer_input": len(tokenizer),
            "final_logit_softcapping": 5.0,
            "max_position_embeddings": 8192,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": tokenizer.bos_token_id,
        },
        audio_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "subsampling_conv_channels": [128, 4],
            "output_proj_dims": 24,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 8,
            "patch_size": 4,
            "position_embedding_size": 256,
        },
        image_token_id=ids["image_token"],
        audio_token_id=ids["audio_token"],
        video_token_id=tokenizer.convert_tokens_to_ids(VIDEO_TOKEN),
        boi_token_id=ids["boi_token"],
        eoi_token_id=ids["eoi_token"],
        boa_token_id=ids["boa_token"],
        eoa_token_index=ids["eoa_token"],
    )

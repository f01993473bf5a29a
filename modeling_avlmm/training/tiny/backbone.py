"""A tiny omni backbone of the real classes, with random weights and its own tokenizer.

It stands in for Qwen2.5-Omni in the tests and the demonstration, so that the code that runs on the 7B model runs on it too.
It knows nothing; the demonstration pre-trains it briefly on genuine clips.
"""

import json
import math
from pathlib import Path

import torch
from torch import nn
from transformers import (
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    WhisperFeatureExtractor,
)

from ...configuration_avlmm import DEFAULT_PROMPTS, LABEL_WORDS

MEDIA_TOKENS = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
END_OF_TURN, END_OF_TEXT = "<|im_end|>", "<|endoftext|>"

# ChatML with the media markers of Qwen2.5-Omni.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else -%}
{%- for part in message.content -%}
{%- if part.type == "video" -%}<|vision_bos|><|VIDEO|><|vision_eos|>
{%- elif part.type == "audio" -%}<|audio_bos|><|AUDIO|><|audio_eos|>
{%- elif part.type == "image" -%}<|vision_bos|><|IMAGE|><|vision_eos|>
{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""

_TEXT_LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 4}
_AUDIO_LAYERS = {"encoder_layers": 2, "encoder_attention_heads": 4}
_VISION_LAYERS = {"depth": 2, "num_heads": 4}
SIZES = {
    "test": {
        "text": _TEXT_LAYERS | {"hidden_size": 32, "intermediate_size": 64},
        "audio": _AUDIO_LAYERS | {"d_model": 32, "encoder_ffn_dim": 64},
        "vision": _VISION_LAYERS | {"hidden_size": 32, "intermediate_size": 64},
    },
    "demo": {
        "text": _TEXT_LAYERS | {"hidden_size": 128, "intermediate_size": 256},
        "audio": _AUDIO_LAYERS | {"d_model": 128, "encoder_ffn_dim": 256},
        "vision": _VISION_LAYERS | {"hidden_size": 128, "intermediate_size": 256},
    },
}


def make_tiny_backbone(
    output_dir: str | Path, size: str = "test", seed: int = 0, corpus: list[str] | None = None
) -> Path:
    """
    Write a tiny omni checkpoint (thinker, tokenizer, processor) that `from_backbone` loads like the real one.

    Args:
        output_dir (`str` or `Path`): Folder to write.
        size (`str`, *optional*, defaults to `"test"`): `"test"` (0.1 M parameters) or `"demo"` (1.5 M).
        seed (`int`, *optional*, defaults to 0): Seed of the weights.
        corpus (`list[str]`, *optional*): Text for the tokenizer in addition to the prompts.

    Returns:
        `Path`: the folder.
    """
    output_dir = Path(output_dir)
    tokenizer = train_tokenizer([*DEFAULT_PROMPTS.values(), *(corpus or [])])
    config = tiny_thinker_config(tokenizer, size)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        thinker = Qwen2_5OmniThinkerForConditionalGeneration(config)
        scale_weights_by_fan_in(thinker)
    thinker.save_pretrained(output_dir)
    patches = {
        "patch_size": config.vision_config.patch_size,
        "merge_size": config.vision_config.spatial_merge_size,
    }
    pixels = {"min_pixels": 28 * 28, "max_pixels": 336 * 336}
    Qwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(**patches, **pixels),
        video_processor=Qwen2VLVideoProcessor(**patches, **pixels),
        feature_extractor=WhisperFeatureExtractor(
            feature_size=config.audio_config.num_mel_bins, chunk_length=300
        ),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(output_dir)
    return output_dir


def train_tokenizer(corpus: list[str]) -> Qwen2Tokenizer:
    """Train a byte-level BPE of a few hundred tokens. Every word of `corpus` and both answers are single tokens."""
    # The trainer drops rare pairs. Repetition makes every word of the corpus a token of its own.
    text = [
        *corpus,
        *LABEL_WORDS,
        *(" " + word for word in LABEL_WORDS),
        "system\n",
        "user\n",
        "assistant\n",
    ] * 50
    special = [END_OF_TEXT, "<|im_start|>", END_OF_TURN, *MEDIA_TOKENS.values()]
    trained = Qwen2Tokenizer().train_new_from_iterator(text, vocab_size=4000, new_special_tokens=special)
    model = json.loads(trained.backend_tokenizer.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        extra_special_tokens={**MEDIA_TOKENS, "turn_token": "<|im_start|>"},
        chat_template=CHAT_TEMPLATE,
    )


def tiny_thinker_config(tokenizer: Qwen2Tokenizer, size: str) -> Qwen2_5OmniThinkerConfig:
    """Return the thinker's configuration, with the token ids of `tokenizer`."""
    sizes = SIZES[size]
    hidden = sizes["text"]["hidden_size"]
    head = hidden // sizes["text"]["num_attention_heads"]
    # Rotary frequencies are divided among time, height and width as 2 : 1 : 1 (16, 24, 24 of 64 in the 7B model).
    sections = [head // 2 - 2 * (head // 8), head // 8, head // 8]
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in MEDIA_TOKENS.items()}
    return Qwen2_5OmniThinkerConfig(
        text_config={
            **sizes["text"],
            "vocab_size": len(tokenizer),
            "num_key_value_heads": 2,
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections},
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        audio_config={**sizes["audio"], "num_mel_bins": 128, "output_dim": hidden, "n_window": 100},
        vision_config={
            "patch_size": 14,
            **sizes["vision"],
            "spatial_merge_size": 2,
            "window_size": 112,
            "out_hidden_size": hidden,
            "fullatt_block_indexes": [sizes["vision"]["depth"] - 1],
        },
        image_token_index=ids["image_token"],
        video_token_index=ids["video_token"],
        audio_token_index=ids["audio_token"],
        audio_start_token_id=ids["audio_bos_token"],
        audio_end_token_id=ids["audio_eos_token"],
        vision_start_token_id=ids["vision_bos_token"],
        vision_end_token_id=ids["vision_eos_token"],
        position_id_per_seconds=25,
        seconds_per_chunk=2,
    )


@torch.no_grad()
def scale_weights_by_fan_in(model: nn.Module) -> None:
    """
    Redraw linear and convolutional weights with variance 1 / fan-in, and embeddings with variance 1.

    The default standard deviation of 0.02 is meant for widths in the thousands. At width 128 signals fade from layer to
    layer, and training doesn't start.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.weight[0].numel()))
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=1.0)

"""A tiny Qwen3-Omni of the real classes, with random weights: a mixture of experts, and DeepStack."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3OmniMoeProcessor,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from ...backbone_qwen3_omni import QWEN3_OMNI
from ...configuration_avlmm import DEFAULT_PROMPTS
from .backbone import CHAT_TEMPLATE, MEDIA_TOKENS, scale_weights_by_fan_in, train_tokenizer

WIDTH, HEADS = 32, 4


def make_tiny_qwen3_omni(output_dir: str | Path, seed: int = 0) -> Path:
    """
    Write a tiny checkpoint (thinker, tokenizer, processor) that `from_backbone` loads like the real one.

    Args:
        output_dir (`str` or `Path`): Folder to write.
        seed (`int`, *optional*, defaults to 0): Seed of the weights.

    Returns:
        `Path`: the folder.
    """
    output_dir = Path(output_dir)
    tokenizer = train_tokenizer(list(DEFAULT_PROMPTS.values()))
    config = tiny_qwen3_config(tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        thinker = Qwen3OmniMoeThinkerForConditionalGeneration(config)
        scale_weights_by_fan_in(thinker)
        for name, weight in thinker.named_parameters():
            if ".mlp.gate.weight" in name or ".experts." in name:
                torch.nn.init.normal_(weight, std=WIDTH**-0.5)
    thinker.save_pretrained(output_dir)
    vision = config.vision_config
    options = {
        "patch_size": vision.patch_size,
        "merge_size": vision.spatial_merge_size,
        "image_mean": QWEN3_OMNI.pixel_mean,
        "image_std": QWEN3_OMNI.pixel_std,
        "min_pixels": 32 * 32,
        "max_pixels": 336 * 336,
    }
    Qwen3OmniMoeProcessor(
        image_processor=Qwen2VLImageProcessor(**options),
        video_processor=Qwen2VLVideoProcessor(**options),
        feature_extractor=WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(output_dir)
    return output_dir


def tiny_qwen3_config(tokenizer: Qwen2Tokenizer) -> Qwen3OmniMoeThinkerConfig:
    """Return the thinker's configuration, with the token ids of `tokenizer`."""
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in MEDIA_TOKENS.items()}
    sections = {"mrope_section": [2, 1, 1], "mrope_interleaved": True}
    return Qwen3OmniMoeThinkerConfig(
        text_config={
            "hidden_size": WIDTH,
            "intermediate_size": 64,
            "moe_intermediate_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": HEADS,
            "num_key_value_heads": 2,
            "head_dim": WIDTH // HEADS,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **sections},
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        audio_config={
            "num_mel_bins": 128,
            "d_model": WIDTH,
            "encoder_layers": 2,
            "encoder_attention_heads": HEADS,
            "encoder_ffn_dim": 64,
            "downsample_hidden_size": 8,
            "output_dim": WIDTH,
            "n_window": 50,
            "n_window_infer": 200,
        },
        vision_config={
            "depth": 4,
            "hidden_size": WIDTH,
            "intermediate_size": 64,
            "num_heads": HEADS,
            "out_hidden_size": WIDTH,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 2],
        },
        image_token_id=ids["image_token"],
        video_token_id=ids["video_token"],
        audio_token_id=ids["audio_token"],
        audio_start_token_id=ids["audio_bos_token"],
        audio_end_token_id=ids["audio_eos_token"],
        vision_start_token_id=ids["vision_bos_token"],
        vision_end_token_id=ids["vision_eos_token"],
        position_id_per_seconds=13,
    )

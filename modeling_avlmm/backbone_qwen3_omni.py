"""Qwen3-Omni (30B-A3B): picture and sound in the order of time, 13 positions a second, DeepStack, a mixture of experts."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig

from .backbone_qwen2_5_omni import Qwen2_5OmniBackbone, whisper_spectrum

CHUNK, CHUNK_TOKENS = 100, 13
"""Frames of the spectrum that the audio encoder takes at once, and the tokens that it makes of them."""


class Qwen3OmniBackbone(Qwen2_5OmniBackbone):
    """
    The thinker of Qwen3-Omni. arXiv 2509.17765, section 2.

    LoRA sits in the attention only: the experts' weights are one tensor for all of them, and the router stays as it is. No
    loss balances the experts.
    """

    model_type = "qwen3_omni_moe_thinker"
    thinker_class = "Qwen3OmniMoeThinkerForConditionalGeneration"
    processor_class = "Qwen3OmniMoeProcessor"
    vision_projectors = ("model.visual.merger", "model.visual.merger_list")
    audio_projectors = ("model.audio_tower.proj1", "model.audio_tower.proj2")
    lora_targets = r".*language_model\.layers\.\d+\.self_attn\.[qkvo]_proj"
    position_scale = 2**16
    pixel_mean: ClassVar[list[float]] = [0.5, 0.5, 0.5]
    pixel_std: ClassVar[list[float]] = [0.5, 0.5, 0.5]
    packed_mask: ClassVar[dict[str, None] | None] = None
    shared_markers = False

    def check(self, config: PreTrainedConfig, name: str) -> None:
        window = config.audio_config.n_window
        if 2 * window != CHUNK:
            raise ValueError(
                f"{name!r} has an audio encoder with n_window {window}, and this package counts the tokens of {CHUNK // 2} "
                "only, as in every published Qwen3-Omni."
            )

    def processor_options(self, config: PreTrainedConfig) -> dict[str, Any]:
        return {"position_id_per_seconds": config.position_id_per_seconds}

    # -- clips to tokens ---------------------------------------------------------------------------------------------

    def spectrum(self, feature_extractor, samples: torch.Tensor) -> tuple[torch.Tensor, int]:
        # The stock processor pads nothing either, and cuts off what does not fill a frame.
        frames = len(samples) // feature_extractor.hop_length
        return whisper_spectrum(feature_extractor, samples.float())[:, :frames], self.sound_tokens(frames)

    def _grid_positions(self, times: np.ndarray) -> np.ndarray:
        return times

    def _order(self, processor, times: np.ndarray) -> np.ndarray:
        return times

    # -- tokens to states --------------------------------------------------------------------------------------------

    def encode_sound(self, thinker: nn.Module, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        Return the embeddings of spectra.

        Every chunk is padded to its full length. The stock model pads to the longest of the batch, and its convolutions see
        the padding, so a sound of less than a second would depend on the other clips.
        """
        lengths = mask.sum(1)
        pieces = [
            piece
            for sound, length in zip(features, lengths.tolist(), strict=True)
            for piece in sound[:, :length].split(CHUNK, dim=1)
        ]
        found = thinker.model.audio_tower(
            None,
            feature_lens=lengths,
            padded_feature=torch.stack([F.pad(piece, (0, CHUNK - piece.shape[1])) for piece in pieces]),
            chunk_lengths=torch.tensor([piece.shape[1] for piece in pieces], device=features.device),
            return_dict=True,
        )
        return found.last_hidden_state

    def encode_picture(self, thinker: nn.Module, patches: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of patches, and beside them those of DeepStack: `(tokens, width x (1 + layers))`."""
        found = thinker.model.get_video_features(self.normalize(patches), grid, return_dict=True)
        scales = [found.pooler_output, *found.deepstack_features]
        return torch.cat([torch.cat(pieces) for pieces in scales], dim=-1)

    def stock_positions(self, *args, **kwargs) -> torch.Tensor:
        return (super().stock_positions(*args, **kwargs) * self.position_scale).round().long()

    def picture_width(self, config: PreTrainedConfig) -> int:
        scales = 1 + len(config.vision_config.deepstack_visual_indexes)
        return scales * config.get_text_config().hidden_size

    def language_inputs(
        self, thinker: nn.Module, ids: torch.Tensor, video_embeds: torch.Tensor | None
    ) -> dict[str, Any]:
        if video_embeds is None:
            return {}
        config = thinker.model.config
        _, *deeper = video_embeds.split(config.get_text_config().hidden_size, dim=-1)
        return {"visual_pos_masks": ids == config.video_token_id, "deepstack_visual_embeds": deeper}

    def packs(self, config: PreTrainedConfig) -> bool:
        return config.sliding_window is None

    # -- sizes -------------------------------------------------------------------------------------------------------

    def sound_tokens(self, mel_frames: int) -> int:
        rest = mel_frames % CHUNK
        for _ in range(3):
            rest = (rest - 1) // 2 + 1
        return rest + mel_frames // CHUNK * CHUNK_TOKENS

    def attention_spans(
        self, config: PreTrainedConfig
    ) -> tuple[list[tuple[int, int | None]], tuple[float, int]]:
        window = config.audio_config.n_window_infer // CHUNK * CHUNK_TOKENS
        return [(config.vision_config.depth, None)], (CHUNK_TOKENS / CHUNK, window)

    def text_attention(self, config: PreTrainedConfig) -> list[tuple[int, int | None, int]]:
        text = config.get_text_config()
        # The class does not declare this field, and the published configuration has it.
        head = getattr(text, "head_dim", text.hidden_size // text.num_attention_heads)
        return [(text.num_hidden_layers, None, text.num_attention_heads * head)]

    def active_expert_weights(self, language_model: nn.Module) -> int:
        config, total = language_model.config, 0
        for name, weight in language_model.named_parameters():
            if ".experts." in name:
                total += weight.numel() * config.num_experts_per_tok // config.num_experts
        return total


QWEN3_OMNI = Qwen3OmniBackbone()

__all__ = ["QWEN3_OMNI", "Qwen3OmniBackbone"]

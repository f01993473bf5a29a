"""Qwen2.5-Omni (3B, 7B): picture and sound in alternating chunks of two seconds, positions in time, height and width."""

from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig

from .backbone import Backbone, MediaLayout
from .processing_patches import frames_to_patches


class Qwen2_5OmniBackbone(Backbone):
    """The thinker of Qwen2.5-Omni. arXiv 2503.20215, section 2: chunks, TMRoPE with 25 positions a second."""

    model_type = "qwen2_5_omni_thinker"
    thinker_class = "Qwen2_5OmniThinkerForConditionalGeneration"
    processor_class = "Qwen2_5OmniProcessor"
    vision_encoder = "model.visual"
    vision_projectors = ("model.visual.merger",)
    audio_encoder = "model.audio_tower"
    audio_projectors = ("model.audio_tower.proj",)
    lora_targets = r".*language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
    packed_mask: ClassVar[dict[str, None] | None] = {"full_attention": None}
    shared_markers: ClassVar[bool] = True
    """True where the markers around picture with sound share a position."""

    def processor_options(self, config: PreTrainedConfig) -> dict:
        return {
            "position_id_per_seconds": config.position_id_per_seconds,
            "seconds_per_chunk": config.seconds_per_chunk,
        }

    # -- clips to tokens ---------------------------------------------------------------------------------------------

    def media_marks(self, tokenizer, kind: str) -> list[str]:
        if kind == "audio":
            return [tokenizer.audio_token + tokenizer.audio_eos_token]
        return [tokenizer.video_token + tokenizer.vision_eos_token]

    def spectrum(self, feature_extractor, samples: torch.Tensor) -> tuple[torch.Tensor, int]:
        hop, width = feature_extractor.hop_length, feature_extractor.n_fft
        frames = -(-len(samples) // hop)
        # Zeros after the end, as in the stock padding: the windows of the last frames reach past it.
        padded = F.pad(samples.float(), (0, frames * hop - len(samples) + width))
        return whisper_spectrum(feature_extractor, padded)[:, :frames], self.sound_tokens(frames)

    def patches(
        self, frames: torch.Tensor, video_processor, min_pixels: int, max_pixels: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return frames_to_patches(
            frames, video_processor, min_pixels, max_pixels, self.pixel_mean, self.pixel_std
        )

    def frames_per_grid(self, video_processor) -> int:
        return video_processor.temporal_patch_size

    def clip_tokens(self, processor, texts: list[str], layout: MediaLayout) -> tuple[np.ndarray, np.ndarray]:
        tokenizer, kind = processor.tokenizer, layout.kind
        before, closing = texts[0], tokenizer.vision_eos_token
        if kind == "audio":
            closing = tokenizer.audio_eos_token
        elif kind == "both":
            before, closing = before + tokenizer.audio_bos_token, tokenizer.audio_eos_token + closing
        opening_ids, closing_ids = (
            np.array(tokenizer.encode(text, add_special_tokens=False)) for text in (before, closing)
        )
        tokens, positions = self._media_tokens(processor, layout)
        shared = kind == "both" and self.shared_markers
        text_positions = np.arange(len(opening_ids))
        if shared:
            text_positions[-1] -= 1
        positions = positions + text_positions[-1] + 1
        end = _last_block_end(kind, positions, tokens) + 1
        closing_positions = end + (np.zeros(len(closing_ids), int) if shared else np.arange(len(closing_ids)))
        places = [np.tile(text_positions, (3, 1)), positions, np.tile(closing_positions, (3, 1))]
        return np.concatenate([opening_ids, tokens, closing_ids]), np.concatenate(places, axis=1)

    def _media_tokens(self, processor, layout: MediaLayout) -> tuple[np.ndarray, np.ndarray]:
        """Return the clip's placeholder ids `(N,)` and positions `(3, N)` from 0, in the order of `_order`."""
        ids, positions = [], []
        if layout.grid is not None:
            merge = processor.video_processor.merge_size
            height, width = int(layout.grid[1]) // merge, int(layout.grid[2]) // merge
            time = self._grid_positions(layout.grid_times * processor.position_id_per_seconds)
            place = np.stack(np.meshgrid(time, np.arange(height), np.arange(width), indexing="ij"))
            positions.append(place.reshape(3, -1))
            ids.append(np.full(positions[-1].shape[1], processor.tokenizer.video_token_id))
        if layout.audio_tokens:
            ids.append(np.full(layout.audio_tokens, processor.tokenizer.audio_token_id))
            positions.append(np.tile(np.arange(layout.audio_tokens), (3, 1)))
        # Picture before sound where both have the same place in the order.
        order = np.argsort(
            np.concatenate([self._order(processor, place[0]) for place in positions]), kind="stable"
        )
        return np.concatenate(ids)[order], np.concatenate(positions, axis=1)[:, order]

    def _grid_positions(self, times: np.ndarray) -> np.ndarray:
        """Return the position of each time of the grid, of times in positions."""
        return np.floor(times + 1e-4).astype(int)

    def _order(self, processor, times: np.ndarray) -> np.ndarray:
        """Return what tokens at these positions in time are sorted by: their chunk."""
        return times // int(processor.position_id_per_seconds * processor.seconds_per_chunk)

    # -- tokens to states --------------------------------------------------------------------------------------------

    def encode_sound(self, thinker: nn.Module, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return thinker.model.get_audio_features(features, mask, return_dict=True).last_hidden_state

    def encode_picture(self, thinker: nn.Module, patches: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        pieces = thinker.model.get_video_features(self.normalize(patches), grid, return_dict=True)
        return torch.cat(pieces.pooler_output)

    def stock_positions(
        self,
        thinker: nn.Module,
        ids: torch.Tensor,
        embeds: torch.Tensor,
        mask: torch.Tensor,
        feature_attention_mask: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        video_second_per_grid: torch.Tensor | None = None,
        use_audio_in_video: bool | None = None,
        **media,
    ) -> torch.Tensor:
        lengths = None if feature_attention_mask is None else feature_attention_mask.sum(dim=1)
        return thinker.model.compute_3d_position_ids(
            input_ids=ids,
            image_grid_thw=None,
            video_grid_thw=video_grid_thw,
            inputs_embeds=embeds,
            attention_mask=mask,
            past_key_values=None,
            use_audio_in_video=use_audio_in_video,
            audio_feature_lengths=lengths,
            video_second_per_grid=video_second_per_grid,
        )

    def packs(self, config: PreTrainedConfig) -> bool:
        return set(config.layer_types) == {"full_attention"}

    # -- sizes -------------------------------------------------------------------------------------------------------

    def sound_tokens(self, mel_frames: int) -> int:
        return ((mel_frames - 1) // 2 + 1 - 2) // 2 + 1 if mel_frames else 0

    def attention_spans(
        self, config: PreTrainedConfig
    ) -> tuple[list[tuple[int, int | None]], tuple[float, int]]:
        vision, audio = config.vision_config, config.audio_config
        full = len(vision.fullatt_block_indexes)
        window = (vision.window_size // vision.patch_size) ** 2
        return [(full, None), (vision.depth - full, window)], (0.5, audio.n_window)


def whisper_spectrum(feature_extractor, samples: torch.Tensor) -> torch.Tensor:
    """Return the log-mel spectrum `(mel, F)` of samples `(N,)` without padding."""
    found = feature_extractor(
        samples.numpy(),
        sampling_rate=feature_extractor.sampling_rate,
        padding=False,
        truncation=False,
        return_tensors="pt",
    )
    return found["input_features"][0]


def _last_block_end(kind: str, positions: np.ndarray, tokens: np.ndarray) -> float:
    """Return the highest position of the clip's last block, from which the stock model goes on counting."""
    if kind != "both":
        return positions.max()
    other = np.flatnonzero(tokens != tokens[-1])
    return positions[:, other[-1] + 1 :].max()


QWEN2_5_OMNI = Qwen2_5OmniBackbone()

__all__ = ["QWEN2_5_OMNI", "Qwen2_5OmniBackbone", "whisper_spectrum"]

"""The seam between AV-LMMDetect and an omni-modal language model of `transformers`.

A backbone is one file, `backbone_<model>.py`, with a subclass of [`Backbone`]; `BACKBONES` in configuration_avlmm.py lists them.
docs/backbones.md says how to add one.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from .modeling_packed_attention import attend_in_groups, question_mask
from .processing_patches import normalize_patches

KINDS = ("both", "video", "audio")
"""Parts that a clip may have: picture and sound, or one of them."""


@dataclass(frozen=True)
class MediaLayout:
    """
    The placeholder tokens of a clip.

    Args:
        grid (`torch.LongTensor` of shape `(3,)`, *optional*): Times, rows and columns of the picture's patches.
        grid_times (`np.ndarray` of shape `(T,)`, *optional*): Start of each time of the grid, in seconds.
        audio_tokens (`int`): Number of tokens of the sound.
    """

    grid: torch.Tensor | None
    grid_times: np.ndarray | None
    audio_tokens: int

    @property
    def has_video(self) -> bool:
        return self.grid is not None

    @property
    def has_audio(self) -> bool:
        return self.audio_tokens > 0

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return "both" if self.has_video and self.has_audio else "video" if self.has_video else "audio"


class Backbone:
    """
    An omni-modal "thinker" of `transformers`, as AV-LMMDetect uses it.

    An instance has no state. Whatever the backbone, a batch has the same tensors: `input_features (B, mel, F)` with
    `feature_attention_mask (B, F)`, and `pixel_values_videos (P, D)`, the patches of all frames, with `video_grid_thw (V, 3)`.

    Attributes:
        model_type (`str`): The thinker's `model_type`.
        thinker_class (`str`): Name in `transformers` of the class with language head, without talker or vocoder.
        processor_class (`str`): Name in `transformers` of its processor.
        language_model (`str`): Path of the language model inside the thinker.
        vision_encoder, audio_encoder (`str`): Paths of the encoders.
        vision_projectors, audio_projectors (`tuple[str, ...]`): Paths of the projectors, inside or outside the encoders.
        lora_targets (`str`): Regular expression of the language model's linear layers, for LoRA.
        windowed_encoders (`bool`): Whether the encoders' attention is over windows whose ends they pass on.
        position_axes (`int`): Rows of a position: 3 for time, height and width, 1 for a place in the text.
        position_scale (`int`): Steps of a position. A batch's positions are whole numbers of such steps, also where the model's
            are fractions, so that a batch may be cast to another type.
        pixel_mean, pixel_std (`list[float]`): Normalisation of the pixels, of values in [0, 1].
        packed_mask: The mask for which the language model makes none of its own, when `packed_rows` say what a token sees.
    """

    model_type: ClassVar[str]
    thinker_class: ClassVar[str]
    processor_class: ClassVar[str]
    language_model: ClassVar[str] = "model.language_model"
    vision_encoder: ClassVar[str]
    vision_projectors: ClassVar[tuple[str, ...]]
    audio_encoder: ClassVar[str]
    audio_projectors: ClassVar[tuple[str, ...]]
    lora_targets: ClassVar[str]
    windowed_encoders: ClassVar[bool] = True
    position_axes: ClassVar[int] = 3
    position_scale: ClassVar[int] = 1
    pixel_mean: ClassVar[list[float]] = OPENAI_CLIP_MEAN
    pixel_std: ClassVar[list[float]] = OPENAI_CLIP_STD
    packed_mask: ClassVar[dict[str, None] | None] = None

    def check(self, config: PreTrainedConfig, name: str) -> None:
        """Raise `ValueError` for a thinker of this type that lacks something; `name` is for the message."""

    def attention(self, requested: str) -> str | dict[str, str]:
        """Return an attention for the thinker's `from_pretrained`, or one for each part that can have it."""
        return requested

    def settle_attention(self, config: PreTrainedConfig) -> None:
        """Give the parts that have no choice their attention, in a thinker's configuration."""

    # -- clips to tokens ---------------------------------------------------------------------------------------------

    def processor_options(self, config: PreTrainedConfig) -> dict[str, Any]:
        """Return the arguments of [`AVLMMProcessor`] that the thinker's configuration determines."""
        return {}

    def media_marks(self, tokenizer, kind: str) -> list[str]:
        """Return what the chat template writes in the place of a clip's media, in order, closing markers included."""
        raise NotImplementedError

    def media_parts(self, kind: str) -> list[str]:
        """Return the types of the clip's parts of a chat message, in order: `video`, `audio`."""
        return ["audio" if kind == "audio" else "video"]

    def end_of_turn(self, processor) -> int:
        """Return the id of the token that ends an answer."""
        return processor.tokenizer.eos_token_id

    def spectrum(self, feature_extractor, samples: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Return the log-mel spectrum `(mel, F)` of samples `(N,)` at 16 kHz, and the number of tokens it becomes."""
        raise NotImplementedError

    def patches(
        self, frames: torch.Tensor, video_processor, min_pixels: int, max_pixels: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the patches `(P, D)` of frames `(T, 3, H, W)`, bytes or normalised, and their grid `(3,)`."""
        raise NotImplementedError

    def frames_per_grid(self, video_processor) -> int:
        """Return the number of frames that one time of the grid joins."""
        raise NotImplementedError

    def clip_tokens(self, processor, texts: list[str], layout: MediaLayout) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the tokens of a prompt up to the end of its clip.

        Args:
            processor ([`AVLMMProcessor`]): Tokenizer and rates.
            texts (`list[str]`): The texts before each of `media_marks`.
            layout ([`MediaLayout`]): The clip.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: Token ids `(N,)` and positions `(position_axes, N)`. The question goes on one after
            the last position.
        """
        raise NotImplementedError

    # -- tokens to states --------------------------------------------------------------------------------------------

    def normalize(self, patches: torch.Tensor) -> torch.Tensor:
        """Return patches as the encoder takes them; floating-point ones count as normalised."""
        return normalize_patches(patches, self.pixel_mean, self.pixel_std)

    def encode_sound(self, thinker: nn.Module, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the embeddings `(tokens, width)` of spectra, projected, clip after clip."""
        raise NotImplementedError

    def encode_picture(self, thinker: nn.Module, patches: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """Return the embeddings `(tokens, picture_width)` of patches, projected, clip after clip."""
        raise NotImplementedError

    def picture_width(self, config: PreTrainedConfig) -> int:
        """Return the width of `encode_picture`'s embeddings: that of the language model, or a multiple of it."""
        return config.get_text_config().hidden_size

    def embed(self, thinker: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of tokens `(B, L)`; those of placeholders have no meaning."""
        return thinker.get_input_embeddings()(ids)

    def language_inputs(
        self, thinker: nn.Module, ids: torch.Tensor, video_embeds: torch.Tensor | None
    ) -> dict[str, Any]:
        """Return what the language model takes beside embeddings, mask and positions."""
        return {}

    def stock_positions(
        self, thinker: nn.Module, ids: torch.Tensor, embeds: torch.Tensor, mask: torch.Tensor, **media
    ) -> torch.Tensor:
        """Return the positions `(position_axes, B, L)` that the stock thinker computes, in steps."""
        raise NotImplementedError

    def packs(self, config: PreTrainedConfig) -> bool:
        """Return True if packed attention does what the layers of a language model of this configuration do."""
        return True

    def attend_in_groups(self, language_model: nn.Module, encoders: list[nn.Module]) -> None:
        """Switch the parts whose attention is `sdpa` to that of modeling_packed_attention.py."""
        attend_in_groups(language_model, encoders if self.windowed_encoders else ())

    def positions_for_model(self, positions: torch.Tensor) -> torch.Tensor:
        """Return positions `(position_axes, B, L)`, in steps, in the form that the language model takes."""
        if self.position_scale > 1:
            # Whole positions and fractions apart: their sum in float32 is rounded once.
            steps = positions % self.position_scale
            positions = (positions // self.position_scale).float() + steps.float() / self.position_scale
        return positions if self.position_axes > 1 else positions[0]

    def questions_mask(
        self,
        config: PreTrainedConfig,
        attention_mask: torch.Tensor,
        question_ids: torch.Tensor,
        positions: torch.Tensor,
        dtype: torch.dtype,
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Return the language model's mask for padded rows with several questions; see [`question_mask`]."""
        return question_mask(attention_mask, question_ids, dtype)

    def finish_logits(self, config: PreTrainedConfig, logits: torch.Tensor) -> torch.Tensor:
        """Return what the thinker makes of the values of its language head."""
        return logits

    def blank_media(self, config: PreTrainedConfig, sound: bool) -> dict[str, torch.Tensor]:
        """Return the smallest input of the audio encoder, or of the vision encoder: silence, or grey."""
        if sound:
            return {
                "input_features": torch.zeros(1, self.mel_bins(config), 8),
                "feature_attention_mask": torch.ones(1, 8, dtype=torch.long),
            }
        side = self.patches_per_side(config)
        return {
            "pixel_values_videos": torch.zeros(side * side, self.patch_size(config)),
            "video_grid_thw": torch.tensor([[1, side, side]]),
        }

    def stock_inputs(self, batch: dict) -> dict:
        """Return a batch of [`AVLMMProcessor`], with normalised pixels, under the names that the stock thinker takes."""
        inputs = dict(batch)
        if "position_ids" in inputs:
            inputs["position_ids"] = self.positions_for_model(inputs["position_ids"])
        return inputs

    # -- sizes, for dry runs and throughput --------------------------------------------------------------------------

    def mel_bins(self, config: PreTrainedConfig) -> int:
        """Return the bands of the spectrum."""
        return config.audio_config.num_mel_bins

    def patches_per_side(self, config: PreTrainedConfig) -> int:
        """Return the side of the square of patches that become one token."""
        return config.vision_config.spatial_merge_size

    def patch_size(self, config: PreTrainedConfig) -> int:
        """Return the values of a patch."""
        vision = config.vision_config
        return vision.in_channels * vision.temporal_patch_size * vision.patch_size**2

    def largest_grid(self, config: PreTrainedConfig, frames: int, max_pixels: int) -> tuple[int, int, int]:
        """Return times, rows and columns of the patches of square frames with as many pixels as are allowed."""
        vision, merge = config.vision_config, self.patches_per_side(config)
        side = max(1, math.isqrt(max_pixels) // (vision.patch_size * merge)) * merge
        return -(-frames // vision.temporal_patch_size), side, side

    def frames_of(self, config: PreTrainedConfig, grids: int) -> int:
        """Return the frames of so many times of the grid."""
        return grids * config.vision_config.temporal_patch_size

    def sound_tokens(self, mel_frames: int) -> int:
        """Return the tokens of so many frames of the spectrum."""
        raise NotImplementedError

    def text_tokens_per_grid(self) -> int:
        """Return the text tokens that are written for each time of the grid."""
        return 0

    def attention_spans(
        self, config: PreTrainedConfig
    ) -> tuple[list[tuple[int, int | None]], tuple[float, int]]:
        """
        Return the reach of the encoders' attention.

        Returns:
            `tuple`: For the vision encoder, pairs of a number of layers and the patches that a patch sees, None for its whole
            frame; for the audio encoder, its steps per frame of the spectrum and the steps that a step sees.
        """
        raise NotImplementedError

    def text_attention(self, config: PreTrainedConfig) -> list[tuple[int, int | None, int]]:
        """Return for the language model a number of layers, the tokens that a token sees (None for all), and their width."""
        text = config.get_text_config()
        return [(text.num_hidden_layers, None, text.hidden_size)]

    def active_expert_weights(self, language_model: nn.Module) -> int:
        """Return the number of weights of the experts that a token is sent to."""
        return 0


__all__ = ["KINDS", "Backbone", "MediaLayout"]

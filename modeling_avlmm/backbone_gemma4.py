"""Gemma 4 with sound (E2B, E4B): frames with their times in text, then the sound in one block; nothing is interleaved."""

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tvF
from transformers import PreTrainedConfig
from transformers.models.gemma4.video_processing_gemma4 import get_aspect_ratio_preserving_size

from .backbone import Backbone, MediaLayout
from .modeling_packed_attention import question_mask

VIDEO_TOKEN = "<|video|>"
LONGEST_SOUND = 30
"""Seconds of sound that the model takes; its own processor cuts off the rest."""
MEL_BINS = 128
ANSWER = "answer"


class Gemma4Backbone(Backbone):
    """
    Gemma 4 with a vision and an audio encoder.

    A frame is scaled to a budget of patches, whatever its size: that of the video processor, or `max_pixels` where that is
    less; `min_pixels` has no effect. A sound becomes 25 tokens a second, and the model is told the time of a frame in whole
    seconds. So lips and sound cannot be matched as closely as with a backbone that interleaves them.
    """

    model_type = "gemma4"
    thinker_class = "Gemma4ForConditionalGeneration"
    processor_class = "Gemma4Processor"
    vision_encoder = "model.vision_tower"
    vision_projectors = ("model.embed_vision",)
    audio_encoder = "model.audio_tower"
    audio_projectors = ("model.embed_audio",)
    lora_targets = r".*language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
    windowed_encoders = False
    position_axes = 1
    packed_mask: ClassVar[dict[str, None] | None] = {"full_attention": None, "sliding_attention": None}

    def check(self, config: PreTrainedConfig, name: str) -> None:
        if config.audio_config is None or config.vision_config is None:
            missing = "audio" if config.audio_config is None else "vision"
            raise ValueError(
                f"{name!r} is a Gemma 4 without {missing} encoder: use E2B or E4B, which have both."
            )
        if config.text_config.use_bidirectional_attention is not None:
            raise ValueError(
                f"{name!r} is a Gemma 4 whose picture tokens see what follows them (use_bidirectional_attention="
                f"{config.text_config.use_bidirectional_attention!r}), which is not supported: use E2B or E4B."
            )

    def attention(self, requested: str) -> dict[str, str]:
        return {"": requested, "text_config": requested, "vision_config": requested}

    def settle_attention(self, config: PreTrainedConfig) -> None:
        config.audio_config._attn_implementation = "eager"  # its local attention knows no other

    # -- clips to tokens ---------------------------------------------------------------------------------------------

    def media_marks(self, tokenizer, kind: str) -> list[str]:
        marks = {"video": VIDEO_TOKEN, "audio": tokenizer.audio_token}
        return [marks[part] for part in self.media_parts(kind)]

    def media_parts(self, kind: str) -> list[str]:
        return ["video", "audio"] if kind == "both" else [kind]

    def end_of_turn(self, processor) -> int:
        """Return the id of what the chat template writes after an answer; the tokenizer's `eos_token` ends a text."""
        return processor.remembered("end of turn", lambda: self._end_of_turn(processor))

    def _end_of_turn(self, processor) -> int:
        messages = [
            {"role": role, "content": [{"type": "text", "text": ANSWER}]} for role in ("user", "assistant")
        ]
        text = processor.tokenizer.apply_chat_template(
            messages, chat_template=processor.chat_template, tokenize=False
        )
        after = text.rpartition(ANSWER)[2]
        return processor.tokenizer.encode(after, add_special_tokens=False)[0]

    def spectrum(self, feature_extractor, samples: torch.Tensor) -> tuple[torch.Tensor, int]:
        rate = feature_extractor.sampling_rate
        if len(samples) > LONGEST_SOUND * rate:
            raise ValueError(
                f"Gemma 4 hears at most {LONGEST_SOUND} s at once, and this sound has {len(samples) / rate:.1f} s: set "
                f"max_seconds to {LONGEST_SOUND} or less."
            )
        found = feature_extractor(
            [samples.float().numpy()], sampling_rate=rate, truncation=False, return_tensors="pt"
        )
        features = found["input_features"][0][found["input_features_mask"][0]]
        return features.T, self.sound_tokens(len(features))

    def patches(
        self, frames: torch.Tensor, video_processor, min_pixels: int, max_pixels: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        patch, pool = video_processor.patch_size, video_processor.pooling_kernel_size
        budget = min(video_processor.max_soft_tokens * pool**2, max_pixels // patch**2)
        size = get_aspect_ratio_preserving_size(*frames.shape[-2:], patch, budget, pool)
        frames = frames.contiguous(memory_format=torch.channels_last)
        frames = tvF.resize(frames, list(size), tvF.InterpolationMode.BICUBIC, antialias=True)
        rows, columns = size[0] // patch, size[1] // patch
        blocks = frames.reshape(len(frames), 3, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
        return blocks.reshape(-1, 3 * patch**2), torch.tensor([len(frames), rows, columns])

    def frames_per_grid(self, video_processor) -> int:
        return 1

    def clip_tokens(self, processor, texts: list[str], layout: MediaLayout) -> tuple[np.ndarray, np.ndarray]:
        tokenizer = processor.tokenizer
        written = []
        if layout.grid is not None:
            pool = processor.video_processor.pooling_kernel_size**2
            picture = VIDEO_TOKEN * (int(layout.grid[1] * layout.grid[2]) // pool)
            written.append(
                " ".join(
                    f"{int(time // 60):02d}:{int(time % 60):02d} {tokenizer.boi_token}{picture}{tokenizer.eoi_token}"
                    for time in layout.grid_times
                )
            )
        if layout.audio_tokens:
            sound = tokenizer.audio_token * layout.audio_tokens
            written.append(f"{tokenizer.boa_token}{sound}{tokenizer.eoa_token}")
        text = "".join(before + media for before, media in zip(texts, written, strict=True))
        ids = np.array(tokenizer.encode(text, add_special_tokens=False))
        return ids, np.arange(len(ids))[None]

    # -- tokens to states --------------------------------------------------------------------------------------------

    def normalize(self, patches: torch.Tensor) -> torch.Tensor:
        return patches if patches.is_floating_point() else patches.float() / 255

    def encode_sound(self, thinker: nn.Module, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found = thinker.model.get_audio_features(features.transpose(1, 2), mask.bool(), return_dict=True)
        return found.pooler_output[found.attention_mask]

    def encode_picture(self, thinker: nn.Module, patches: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        frames = self._frames(self.normalize(patches), grid)
        return torch.cat(thinker.model.get_video_features(**frames, return_dict=True).pooler_output)

    @staticmethod
    def _frames(patches: torch.Tensor, grid: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return patches as the stock model takes them: frame by frame, padded, each patch with its column and row."""
        longest = int(grid[:, 1:].prod(1).max())
        sizes = grid.tolist()
        values, places = [], []
        for (times, rows, columns), piece in zip(sizes, patches.split(grid.prod(1).tolist()), strict=True):
            missing = longest - rows * columns
            values.append(F.pad(piece.unflatten(0, (times, rows * columns)), (0, 0, 0, missing)))
            place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).flip(1)
            place = F.pad(place, (0, 0, 0, missing), value=-1).to(patches.device)
            places.append(place.expand(times, -1, -1))
        return {
            "pixel_values_videos": torch.cat(values),
            "video_position_ids": torch.cat(places),
            "num_frames_per_video": grid[:, 0],
        }

    def embed(self, thinker: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        return thinker.get_input_embeddings()(self._text_ids(thinker, ids))

    def language_inputs(
        self, thinker: nn.Module, ids: torch.Tensor, video_embeds: torch.Tensor | None
    ) -> dict[str, Any]:
        if not thinker.model.config.text_config.hidden_size_per_layer_input:
            return {}
        language = thinker.get_submodule(self.language_model)
        return {"per_layer_inputs": language.get_per_layer_inputs(self._text_ids(thinker, ids), None)}

    @staticmethod
    def _text_ids(thinker: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """Return ids with padding in the place of placeholders, which may lie outside the vocabulary."""
        config = thinker.model.config
        media = (ids == config.video_token_id) | (ids == config.audio_token_id)
        return ids.masked_fill(media, config.text_config.pad_token_id)

    def stock_positions(
        self, thinker: nn.Module, ids: torch.Tensor, embeds: torch.Tensor, mask: torch.Tensor, **media
    ) -> torch.Tensor:
        return (mask.long().cumsum(-1) - 1).clamp(min=0)[None]

    def questions_mask(
        self,
        config: PreTrainedConfig,
        attention_mask: torch.Tensor,
        question_ids: torch.Tensor,
        positions: torch.Tensor,
        dtype: torch.dtype,
    ) -> dict[str, torch.Tensor]:
        near = question_mask(attention_mask, question_ids, dtype, positions[0], config.sliding_window)
        return {
            "full_attention": question_mask(attention_mask, question_ids, dtype),
            "sliding_attention": near,
        }

    def finish_logits(self, config: PreTrainedConfig, logits: torch.Tensor) -> torch.Tensor:
        cap = config.final_logit_softcapping
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def stock_inputs(self, batch: dict) -> dict:
        media = ("input_features", "feature_attention_mask", "pixel_values_videos", "video_grid_thw")
        inputs = {name: value for name, value in batch.items() if name not in media}
        if "position_ids" in inputs:
            inputs["position_ids"] = self.positions_for_model(inputs["position_ids"])
        if "input_features" in batch:
            inputs["input_features"] = batch["input_features"].transpose(1, 2)
            inputs["input_features_mask"] = batch["feature_attention_mask"].bool()
        if "pixel_values_videos" in batch:
            inputs |= self._frames(batch["pixel_values_videos"], batch["video_grid_thw"])
        return inputs

    # -- sizes -------------------------------------------------------------------------------------------------------

    def mel_bins(self, config: PreTrainedConfig) -> int:
        return MEL_BINS

    def patches_per_side(self, config: PreTrainedConfig) -> int:
        return config.vision_config.pooling_kernel_size

    def patch_size(self, config: PreTrainedConfig) -> int:
        return 3 * config.vision_config.patch_size**2

    def largest_grid(self, config: PreTrainedConfig, frames: int, max_pixels: int) -> tuple[int, int, int]:
        pool = config.vision_config.pooling_kernel_size
        tokens = max(1, max_pixels // (config.vision_config.patch_size * pool) ** 2)
        rows = next(side for side in range(math.isqrt(tokens), 0, -1) if tokens % side == 0)
        return frames, rows * pool, tokens // rows * pool

    def frames_of(self, config: PreTrainedConfig, grids: int) -> int:
        return grids

    def sound_tokens(self, mel_frames: int) -> int:
        return -(-mel_frames // 4)

    def text_tokens_per_grid(self) -> int:
        return 9  # mm:ss as five tokens, two spaces and two markers

    def attention_spans(
        self, config: PreTrainedConfig
    ) -> tuple[list[tuple[int, int | None]], tuple[float, int]]:
        audio = config.audio_config
        seen = audio.attention_context_left + audio.attention_context_right
        return [(config.vision_config.num_hidden_layers, None)], (0.25, seen)

    def text_attention(self, config: PreTrainedConfig) -> list[tuple[int, int | None, int]]:
        text = config.get_text_config()
        windows = {"sliding_attention": text.sliding_window, "full_attention": None}
        return [
            (1, windows[kind], text.num_attention_heads * text.per_layer_config[number].head_dim)
            for number, kind in enumerate(text.layer_types)
        ]


GEMMA4 = Gemma4Backbone()

__all__ = ["GEMMA4", "Gemma4Backbone"]

"""The size of a clip as AV-LMMDetect sees it: frames, patches, spectrum and tokens."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from transformers import PreTrainedConfig

from ..configuration_avlmm import BACKBONES, DEFAULT_PROMPTS
from ..configuration_detector import PARTS
from .recipes import AVLMMRecipe

MEL_RATE = 100
"""Frames of the log-mel spectrum per second."""
CHAT_TOKENS = 24
"""Rough number of tokens that a chat template writes around system prompt, clip and question (Qwen2.5: 20 and the markers)."""


@dataclass(frozen=True)
class ClipShape:
    """
    The size of a clip inside the model.

    Args:
        grids (`int`): Steps of the vision encoder in time: frames, or pairs of them.
        height, width (`int`): Patches of a frame.
        video_tokens (`int`): Tokens of the picture.
        mel_frames (`int`): Frames of the spectrum; 0 without sound.
        audio_tokens (`int`): Tokens of the sound.
        prompt_tokens (`int`): Tokens of the texts before and after the clip, without the questions.
        question_tokens (`tuple[int, ...]`): Tokens of each question with its answer.
    """

    grids: int
    height: int
    width: int
    video_tokens: int
    mel_frames: int
    audio_tokens: int
    prompt_tokens: int
    question_tokens: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """The length of the clip's row, every question included."""
        return self.prompt_tokens + self.video_tokens + self.audio_tokens + sum(self.question_tokens)


def clip_shape(
    config: PreTrainedConfig,
    seconds: float,
    fps: float,
    max_pixels: int,
    max_frames: int | None = None,
    prompts: dict | None = None,
    questions: tuple[str, ...] = PARTS,
    more_tokens: tuple[int, ...] = (),
) -> ClipShape:
    """
    Return the largest shape that a clip of a length can have: square frames with as many pixels as are allowed.

    Args:
        config (`PreTrainedConfig`): The thinker's configuration.
        seconds, fps (`float`), max_frames (`int`, *optional*): As for [`AVLMMProcessor`].
        max_pixels (`int`): Most pixels of a frame.
        prompts (`dict[str, str]`, *optional*): Texts. Their tokens are counted as words and marks, which is about right.
        questions (`tuple[str, ...]`): The keys of `prompts` that are asked.
        more_tokens (`tuple[int, ...]`): Lengths of further questions.
    """
    backbone = BACKBONES[config.model_type]
    frames = max(1, math.ceil(seconds * fps - 1e-6))
    if max_frames is not None:
        frames = min(frames, max_frames)
    grids, height, width = backbone.largest_grid(config, frames, max_pixels)
    mel_frames = round(seconds * MEL_RATE)
    written = CHAT_TOKENS + grids * backbone.text_tokens_per_grid()
    texts = {**DEFAULT_PROMPTS, **(prompts or {})}
    asked = tuple(_count_tokens(texts[name]) + 8 for name in questions)
    return ClipShape(
        grids=grids,
        height=height,
        width=width,
        video_tokens=grids * height * width // backbone.patches_per_side(config) ** 2,
        mel_frames=mel_frames,
        audio_tokens=backbone.sound_tokens(mel_frames),
        prompt_tokens=written + _count_tokens(texts["system"]) + _count_tokens(texts["prefix"]),
        question_tokens=asked + more_tokens,
    )


def recipe_clip_shape(
    recipe: AVLMMRecipe, config: PreTrainedConfig, more_tokens: tuple[int, ...] = ()
) -> ClipShape:
    """Return the largest shape of a recipe's clips; arguments as for [`clip_shape`]."""
    return clip_shape(
        config,
        seconds=recipe.data.clip_seconds,
        fps=recipe.model.fps,
        max_pixels=recipe.model.max_pixels,
        max_frames=recipe.model.max_frames,
        prompts=recipe.model.prompts,
        more_tokens=more_tokens,
    )


def _count_tokens(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))

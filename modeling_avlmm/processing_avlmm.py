"""The processor of AV-LMMDetect: from a clip and questions about it to tensors."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from transformers import BatchFeature

from .backbone import Backbone, MediaLayout
from .backbone_qwen2_5_omni import QWEN2_5_OMNI
from .configuration_avlmm import BACKBONES, DEFAULT_PROMPTS, LABEL_WORDS, known_thinker, split_hub_options
from .configuration_detector import IGNORE_INDEX, PARTS
from .media import SAMPLING_RATE, Clip
from .media_errors import NothingToScoreError, UnreadableMediaError
from .processing_avlmm_batch import normalize_pixels, pad_rows
from .processing_clips import FACE_MARGIN, FACES, MIN_FACE_SIZE, ClipProcessor, nothing_in

SHORTEST_AUDIO_SECONDS = 0.05
"""Shorter sounds are left out: the encoder would make no token of them."""


@dataclass(frozen=True)
class Question:
    """
    A question about a clip.

    Args:
        text (`str`): The question, which follows the clip.
        answer (`str`, *optional*): The answer to train on.
        name (`str`, *optional*): `overall`, `video` or `audio` if the answer is a verdict.
    """

    text: str
    answer: str | None = None
    name: str | None = None


class AVLMMProcessor(ClipProcessor):
    """
    Prepares clips for [`AVLMMForDeepfakeDetection`].

    It differs from the backbone's own processor in three ways: sampled frames keep their true times, which decide how
    sound and picture are interleaved; audio is padded to the longest in the batch, not to 300 s; and a row may hold
    several questions that share one clip. With the same sampling, at one frame a second or more, `input_ids`, positions,
    spectra and pixels equal those of the stock processor.

    Args:
        feature_extractor (`WhisperFeatureExtractor`): Log-mel front end at 16 kHz.
        tokenizer (`PreTrainedTokenizerBase`): The backbone's tokenizer.
        video_processor (`BaseVideoProcessor`): The backbone's video processor, which makes patches of frames.
        chat_template (`str`, *optional*): The backbone's chat template.
        prompts (`dict[str, str]`, *optional*): Texts of the questions, as in [`AVLMMConfig`].
        fps (`float`, *optional*, defaults to 2.0): Frames sampled per second.
        max_frames (`int`, *optional*, defaults to 64): Limit of frames; a longer clip is sampled more sparsely.
        min_pixels (`int`, *optional*, defaults to 3136): Smaller frames are enlarged to this many pixels.
        max_pixels (`int`, *optional*, defaults to 112896): Larger frames are reduced to this many pixels (336 x 336).
        max_seconds (`float`, *optional*, defaults to 30.0): Longest clip in seconds; longer files are read in windows.
        position_id_per_seconds (`int`, *optional*, defaults to 25): Positions per second; the backbone's value.
        seconds_per_chunk (`float`, *optional*, defaults to 2.0):
            Length of the alternating chunks of picture and sound, for backbones that have them.
        trim_leading_silence (`bool`, *optional*, defaults to `False`):
            Begin clips where their sound sets in ([`MediaReader`]), so that leading silence gives no fake away.
        faces (`str`, *optional*, defaults to `"off"`):
            The picture: `"off"` for whole frames, `"largest"` for the largest face, `"all"` for every face by itself, which
            the pipeline scores one by one.
        face_margin (`float`, *optional*, defaults to 1.3):
            Side of the square crop, as a multiple of the longer side of the face's box.
        min_face_size (`float`, *optional*, defaults to 32):
            Longer side of the smallest face that is scored, in pixels of the frame; smaller ones are reported only.
        backbone (`str`, *optional*, defaults to `"qwen2_5_omni_thinker"`): The backbone, a key of `BACKBONES`.

    Raises:
        ValueError: If the backbone is not known.
    """

    default_questions = ("overall",)
    too_long_advice = "Give start and end, use the pipeline's window_seconds, or raise max_seconds."

    def __init__(
        self,
        feature_extractor=None,
        tokenizer=None,
        video_processor=None,
        chat_template=None,
        prompts: dict | None = None,
        fps: float = 2.0,
        max_frames: int = 64,
        min_pixels: int = 56 * 56,
        max_pixels: int = 336 * 336,
        max_seconds: float = 30.0,
        position_id_per_seconds: int = 25,
        seconds_per_chunk: float = 2.0,
        trim_leading_silence: bool = False,
        faces: str = FACES[0],
        face_margin: float = FACE_MARGIN,
        min_face_size: float = MIN_FACE_SIZE,
        backbone: str = QWEN2_5_OMNI.model_type,
        **kwargs,
    ):
        if backbone not in BACKBONES:
            raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, not {backbone!r}.")
        self.backbone = backbone
        super().__init__(feature_extractor, tokenizer, video_processor, chat_template=chat_template)
        self.prompts = {**DEFAULT_PROMPTS, **(prompts or {})}
        self.fps = fps
        self.max_frames = max_frames
        self.min_pixels = min_pixels
        self.max_pixels = max_pixels
        self.max_seconds = max_seconds
        self.position_id_per_seconds = position_id_per_seconds
        self.seconds_per_chunk = seconds_per_chunk
        self.trim_leading_silence = trim_leading_silence
        self.set_faces(faces, face_margin, min_face_size)
        self._layouts = {}

    @classmethod
    def from_backbone(cls, backbone: str, **kwargs) -> "AVLMMProcessor":
        """
        Return the processor of an omni checkpoint.

        Args:
            backbone (`str`): Hub id or folder of an omni checkpoint.
            kwargs: Arguments of this class (`fps`, `max_pixels`, ...) and of `from_pretrained` (`revision`, `token`, ...).

        Raises:
            ValueError: If the backbone is not a known omni model.
        """
        hub, kwargs = split_hub_options(kwargs)
        config = transformers.AutoConfig.from_pretrained(backbone, **hub)
        thinker_config = known_thinker(config, backbone)
        omni = BACKBONES[thinker_config.model_type]
        stock = getattr(transformers, omni.processor_class).from_pretrained(backbone, **hub)
        return cls(
            feature_extractor=stock.feature_extractor,
            tokenizer=stock.tokenizer,
            video_processor=stock.video_processor,
            chat_template=stock.chat_template or stock.tokenizer.chat_template,
            **{"backbone": omni.model_type, **omni.processor_options(thinker_config), **kwargs},
        )

    @property
    def omni(self) -> Backbone:
        """The backbone that this processor prepares clips for."""
        return BACKBONES[self.backbone]

    @property
    def model_input_names(self) -> list[str]:
        return [
            "input_ids",
            "attention_mask",
            "position_ids",
            "question_ids",
            "answer_positions",
            "input_features",
            "feature_attention_mask",
            "pixel_values_videos",
            "video_grid_thw",
        ]

    def __call__(
        self,
        media,
        questions: Sequence[str | Question] | None = None,
        padding_side: str = "left",
        **kwargs,
    ) -> BatchFeature:
        """
        Encode clips and questions as a batch.

        Args:
            media (path, URL, `bytes`, file object, arrays, [`Clip`], or a list of them):
                The clips, in any form that [`MediaReader`] opens.
            questions (`Sequence[str | Question]`, *optional*, defaults to `("overall",)`):
                Questions about every clip: names of prompts, or questions of your own.
            padding_side (`str`, *optional*, defaults to `"left"`): `"left"` or `"right"`.

        Returns:
            [`BatchFeature`]: The arguments of [`AVLMMForDeepfakeDetection.forward`]. Pixels are normalised, so that the
            bare thinker takes them too.
        """
        return super().__call__(media, questions, padding_side=padding_side, **kwargs)

    def _collate_call(self, encoded: list[dict], padding_side: str = "left", **kwargs) -> BatchFeature:
        return normalize_pixels(self.collate(encoded, padding_side=padding_side), self.omni)

    # -- one clip ----------------------------------------------------------------------------------------------------

    def question(self, name: str, label: int | None = None) -> Question:
        """Return the question `overall`, `video` or `audio`, with the answer for `label` (0 real, 1 fake) if given."""
        return Question(self.prompts[name], None if label is None else LABEL_WORDS[label], name)

    def encode(self, clip: Clip, questions: Sequence[str | Question] = ("overall",)) -> dict:
        """
        Encode one clip, without padding.

        Args:
            clip ([`Clip`]): The decoded clip, with sound, picture or both.
            questions (`Sequence[str | Question]`): The questions. Each adds a few tokens; the clip is encoded once.

        Returns:
            `dict`: `input_ids (L,)`, `position_ids (3, L)` (`(1, L)` where the backbone counts tokens only), `question_ids (L,)`, `answer_positions (3,)`, `labels (L,)` if
            there are answers, and for the media `input_features (mel, F)`, `pixel_values_videos (P, D)` (uint8, see
            [`frames_to_patches`]), `video_grid_thw (3,)` and `video_second_per_grid`.
        """
        media, layout = self.encode_media(clip)
        encoded = self.encode_questions(layout, questions) | media
        if layout.grid is not None:
            encoded["video_second_per_grid"] = self._seconds_per_grid(clip.timestamps)
        return encoded

    def encode_media(self, clip: Clip) -> tuple[dict, "MediaLayout"]:
        """
        Encode the input of the encoders: one half of [`~AVLMMProcessor.encode`].

        Args:
            clip ([`Clip`]): The decoded clip, with sound, picture or both.

        Returns:
            `tuple[dict, MediaLayout]`: `input_features (mel, F)`, `pixel_values_videos (P, D)` and `video_grid_thw (3,)`, None
            for a missing track; and the placeholder tokens that stand for them.

        Raises:
            NothingToScoreError: If there is nothing to look at or listen to.
            UnreadableMediaError: If the picture has a shape that the video processor refuses.
        """
        features, audio_tokens = self._encode_audio(clip)
        pixels, grid, grid_times = self._encode_video(clip)
        if features is None and pixels is None:
            raise NothingToScoreError(clip.name, nothing_in(clip))
        media = {"input_features": features, "pixel_values_videos": pixels, "video_grid_thw": grid}
        return media, MediaLayout(grid, grid_times, audio_tokens)

    def encode_questions(
        self, layout: "MediaLayout", questions: Sequence[str | Question] = ("overall",)
    ) -> dict:
        """
        Encode the input of the language model (tokens, positions and answers): the other half of `encode`.

        Args:
            layout ([`MediaLayout`]): The clip's placeholder tokens.
            questions (`Sequence[str | Question]`): The questions.
        """
        if not questions:
            raise ValueError("Ask at least one question.")
        questions = [self.question(q) if isinstance(q, str) else q for q in questions]
        texts = [self._texts(question.text, layout.kind) for question in questions]
        media_ids, media_positions = self.omni.clip_tokens(self, texts[0][0], layout)
        ids, places, owner = [media_ids], [media_positions], [np.zeros(len(media_ids), int)]
        labels = [np.full(len(media_ids), IGNORE_INDEX)]
        start = media_positions[0, -1] + 1
        answer_positions = [-1] * len(PARTS)
        cursor = len(media_ids)
        for index, (question, (_, after)) in enumerate(zip(questions, texts, strict=True), start=1):
            answer = self._answer_ids(question.answer)
            if question.name is not None:
                answer_positions[PARTS.index(question.name)] = cursor + len(after) - 1
            segment = np.concatenate([after, answer])
            ids.append(segment)
            places.append(np.tile(np.arange(len(segment)) + start, (len(media_positions), 1)))
            owner.append(np.full(len(segment), index))
            labels.append(np.concatenate([np.full(len(after), IGNORE_INDEX), answer]))
            cursor += len(segment)

        positions = np.round(np.concatenate(places, axis=1) * self.omni.position_scale)
        encoded = {
            "input_ids": torch.from_numpy(np.concatenate(ids)).long(),
            "position_ids": torch.from_numpy(positions).long(),
            "question_ids": torch.from_numpy(np.concatenate(owner)).long(),
            "answer_positions": torch.tensor(answer_positions),
        }
        if any(question.answer is not None for question in questions):
            encoded["labels"] = torch.from_numpy(np.concatenate(labels)).long()
        return encoded

    def _answer_ids(self, answer: str | None) -> np.ndarray:
        if answer is None:
            return np.empty(0, int)
        return np.array(
            [*self.tokenizer.encode(answer, add_special_tokens=False), self.omni.end_of_turn(self)]
        )

    def _encode_audio(self, clip: Clip) -> tuple[torch.Tensor | None, int]:
        if clip.audio is None:
            return None, 0
        samples = len(clip.audio)
        if samples < SHORTEST_AUDIO_SECONDS * SAMPLING_RATE:
            clip.warnings.append(
                f"sound of {samples / SAMPLING_RATE:.3f} s is too short to be heard and was left out"
            )
            return None, 0
        return self.omni.spectrum(self.feature_extractor, clip.audio)

    def _encode_video(self, clip: Clip) -> tuple[torch.Tensor | None, torch.Tensor | None, np.ndarray | None]:
        if clip.frames is None:
            return None, None, None
        try:
            pixels, grid = self.omni.patches(
                clip.frames, self.video_processor, self.min_pixels, self.max_pixels
            )
        except ValueError as error:  # the stock resizing refuses pictures that are far from square
            height, width = clip.frames.shape[-2:]
            reason = f"its picture of {width}x{height} pixels cannot be resized ({error})"
            raise UnreadableMediaError(clip.name, reason, "Cut it to what is to be judged") from error
        # A grid joins several frames (the last one may repeat its last frame) and starts when its first is on screen.
        grid_times = clip.timestamps.numpy().astype(float)[:: self.omni.frames_per_grid(self.video_processor)]
        return pixels, grid, grid_times

    def _seconds_per_grid(self, timestamps: torch.Tensor) -> float:
        """Return the mean time from one grid to the next in seconds, which the stock model takes."""
        interval = (
            float(timestamps[-1] - timestamps[0]) / (len(timestamps) - 1)
            if len(timestamps) > 1
            else 1 / self.fps
        )
        return interval * self.omni.frames_per_grid(self.video_processor)

    def remembered(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what `make` gives for a key, made once for this tokenizer."""
        if key not in self._layouts:
            self._layouts[key] = make()
        return self._layouts[key]

    def _texts(self, question: str, kind: str) -> tuple[list[str], np.ndarray]:
        """Return the texts before each part of the clip, and the token ids after it, up to the answer."""
        key = (question, kind, self.prompts["system"], self.prompts["prefix"])
        return self.remembered(key, lambda: self._split_texts(question, kind))

    def _split_texts(self, question: str, kind: str) -> tuple[list[str], np.ndarray]:
        media = [{"type": part, part: ""} for part in self.omni.media_parts(kind)]
        opening = {"type": "text", "text": self.prompts["prefix"]}
        text = self.write_chat([opening, *media, {"type": "text", "text": question}])
        before, after = self.split_at_media(text, kind)
        return before, np.array(self.tokenizer.encode(after, add_special_tokens=False))

    def write_chat(self, content: list[dict]) -> str:
        """Return the text of a chat: the system prompt, a user's message of these parts, and the start of the answer."""
        system = {"role": "system", "content": [{"type": "text", "text": self.prompts["system"]}]}
        return self.tokenizer.apply_chat_template(
            [system, {"role": "user", "content": content}],
            chat_template=self.chat_template,
            tokenize=False,
            add_generation_prompt=True,
        )

    def split_at_media(self, text: str, kind: str) -> tuple[list[str], str]:
        """
        Split the text of a chat at its clip.

        Args:
            text (`str`): What the chat template wrote.
            kind (`str`): What the clip has: `both`, `video` or `audio`.

        Returns:
            `tuple[list[str], str]`: The texts before each part of the clip, and the text after the clip.

        Raises:
            ValueError: If the template writes media in another way than the backbone's.
        """
        before, rest = [], text
        for mark in self.omni.media_marks(self.tokenizer, kind):
            piece, found, rest = rest.partition(mark)
            if not found:
                raise ValueError(
                    f"The chat template does not write the clip's media as {mark}; it wrote: {text!r}. "
                    "Use the chat template that belongs to the backbone."
                )
            before.append(piece)
        return before, rest

    # -- a batch -----------------------------------------------------------------------------------------------------

    def collate(self, encoded: list[dict], padding_side: str = "left") -> BatchFeature:
        """
        Pad encoded clips to a batch: text to the longest row, sound to the longest sound.

        Pixels stay bytes, which [`AVLMMForDeepfakeDetection`] normalises; for the bare thinker see [`normalize_pixels`].

        Args:
            encoded (`list[dict]`): Results of [`~AVLMMProcessor.encode`].
            padding_side (`str`, *optional*, defaults to `"left"`): `"left"` or `"right"`.
        """
        return pad_rows(encoded, padding_side, self.tokenizer.pad_token_id)


__all__ = ["AVLMMProcessor", "MediaLayout", "Question", "normalize_pixels"]

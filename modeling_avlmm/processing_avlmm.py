"""The processor of AV-LMMDetect: from a clip and questions about it to tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import transformers
from transformers import BatchFeature

from .configuration_avlmm import BACKBONES, DEFAULT_PROMPTS, LABEL_WORDS, known_thinker, split_hub_options
from .configuration_detector import IGNORE_INDEX, PARTS
from .media import SAMPLING_RATE, Clip
from .media_errors import NothingToScoreError, UnreadableMediaError
from .processing_clips import FACE_MARGIN, FACES, MIN_FACE_SIZE, ClipProcessor, nothing_in
from .processing_patches import frames_to_patches, normalize_patches

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
        """`both`, `video` or `audio`."""
        return "both" if self.has_video and self.has_audio else "video" if self.has_video else "audio"


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
        seconds_per_chunk (`float`, *optional*, defaults to 2.0): Length of the alternating chunks of picture and sound.
        trim_leading_silence (`bool`, *optional*, defaults to `False`):
            Begin clips where their sound sets in ([`MediaReader`]), so that leading silence gives no fake away.
        faces (`str`, *optional*, defaults to `"off"`):
            The picture: `"off"` for whole frames, `"largest"` for the largest face, `"all"` for every face by itself, which
            the pipeline scores one by one.
        face_margin (`float`, *optional*, defaults to 1.3):
            Side of the square crop, as a multiple of the longer side of the face's box.
        min_face_size (`float`, *optional*, defaults to 32):
            Longer side of the smallest face that is scored, in pixels of the frame; smaller ones are reported only.
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
        **kwargs,
    ):
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
        processor_class = getattr(transformers, BACKBONES[thinker_config.model_type].processor_class)
        stock = processor_class.from_pretrained(backbone, **hub)
        return cls(
            feature_extractor=stock.feature_extractor,
            tokenizer=stock.tokenizer,
            video_processor=stock.video_processor,
            chat_template=stock.chat_template or stock.tokenizer.chat_template,
            **{
                "position_id_per_seconds": thinker_config.position_id_per_seconds,
                "seconds_per_chunk": thinker_config.seconds_per_chunk,
                **kwargs,
            },
        )

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
        return normalize_pixels(self.collate(encoded, padding_side=padding_side))

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
            `dict`: `input_ids (L,)`, `position_ids (3, L)`, `question_ids (L,)`, `answer_positions (3,)`, `labels (L,)` if
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
        kind = layout.kind
        layouts = [self._layout(question.text, kind) for question in questions]
        before = layouts[0][0]
        tokens, positions = self._media_tokens(layout.grid, layout.grid_times, layout.audio_tokens)

        text_positions = np.arange(len(before))
        if kind == "both":
            # Both opening tokens share a position, as in the stock model.
            text_positions[-1] -= 1
        prefix_end = text_positions[-1] + 1
        positions = positions + prefix_end
        closing = 2 if kind == "both" else 1
        closing_position = self._last_block_end(kind, positions, tokens) + 1
        media_ids = np.concatenate([before, tokens, layouts[0][1]])
        prefix_positions = np.concatenate(
            [np.tile(text_positions, (3, 1)), positions, np.full((3, closing), closing_position)], axis=1
        )

        ids, places, owner, labels = [media_ids], [prefix_positions], [np.zeros(len(media_ids), int)], []
        labels.append(np.full(len(media_ids), IGNORE_INDEX))
        answer_positions = [-1] * len(PARTS)
        cursor = len(media_ids)
        for index, (question, (_, _, after)) in enumerate(zip(questions, layouts, strict=True), start=1):
            answer = self._answer_ids(question.answer)
            if question.name is not None:
                answer_positions[PARTS.index(question.name)] = cursor + len(after) - 1
            segment = np.concatenate([after, answer])
            ids.append(segment)
            places.append(np.tile(np.arange(len(segment)) + closing_position + 1, (3, 1)))
            owner.append(np.full(len(segment), index))
            labels.append(np.concatenate([np.full(len(after), IGNORE_INDEX), answer]))
            cursor += len(segment)

        encoded = {
            "input_ids": torch.from_numpy(np.concatenate(ids)).long(),
            "position_ids": torch.from_numpy(np.concatenate(places, axis=1)).long(),
            "question_ids": torch.from_numpy(np.concatenate(owner)).long(),
            "answer_positions": torch.tensor(answer_positions),
        }
        if any(question.answer is not None for question in questions):
            encoded["labels"] = torch.from_numpy(np.concatenate(labels)).long()
        return encoded

    def _answer_ids(self, answer: str | None) -> np.ndarray:
        if answer is None:
            return np.empty(0, int)
        end = self.tokenizer.eos_token_id
        return np.array([*self.tokenizer.encode(answer, add_special_tokens=False), end])

    def _encode_audio(self, clip: Clip) -> tuple[torch.Tensor | None, int]:
        if clip.audio is None:
            return None, 0
        samples = len(clip.audio)
        if samples < SHORTEST_AUDIO_SECONDS * SAMPLING_RATE:
            clip.warnings.append(
                f"sound of {samples / SAMPLING_RATE:.3f} s is too short to be heard and was left out"
            )
            return None, 0
        hop, width = self.feature_extractor.hop_length, self.feature_extractor.n_fft
        frames = -(-samples // hop)
        # Zeros after the end, as in the stock padding: the windows of the last frames reach past it.
        padded = torch.nn.functional.pad(clip.audio.float(), (0, frames * hop - samples + width))
        features = self.feature_extractor(
            padded.numpy(),
            sampling_rate=SAMPLING_RATE,
            padding=False,
            truncation=False,
            return_tensors="pt",
        )["input_features"][0][:, :frames]
        return features, ((frames - 1) // 2 + 1 - 2) // 2 + 1

    def _encode_video(self, clip: Clip) -> tuple[torch.Tensor | None, torch.Tensor | None, np.ndarray | None]:
        if clip.frames is None:
            return None, None, None
        try:
            pixels, grid = frames_to_patches(
                clip.frames, self.video_processor, self.min_pixels, self.max_pixels
            )
        except ValueError as error:  # the stock resizing refuses pictures that are far from square
            height, width = clip.frames.shape[-2:]
            reason = f"its picture of {width}x{height} pixels cannot be resized ({error})"
            raise UnreadableMediaError(clip.name, reason, "Cut it to what is to be judged") from error
        # A grid joins `temporal_patch_size` frames (the last grid repeats its last frame) and starts when its first
        # frame is on screen.
        grid_times = clip.timestamps.numpy().astype(float)[:: self.video_processor.temporal_patch_size]
        return pixels, grid, grid_times

    def _seconds_per_grid(self, timestamps: torch.Tensor) -> float:
        """Return the mean time from one grid to the next in seconds, which the stock model takes."""
        interval = (
            float(timestamps[-1] - timestamps[0]) / (len(timestamps) - 1)
            if len(timestamps) > 1
            else 1 / self.fps
        )
        return interval * self.video_processor.temporal_patch_size

    def _media_tokens(self, grid, grid_times, audio_tokens) -> tuple[np.ndarray, np.ndarray]:
        """Return the clip's placeholder ids `(N,)` and positions `(3, N)` from 0: chunk by chunk, picture before sound."""
        ids, positions, chunks = [], [], []
        chunk = int(self.position_id_per_seconds * self.seconds_per_chunk)
        if grid is not None:
            merge = self.video_processor.merge_size
            height, width = int(grid[1]) // merge, int(grid[2]) // merge
            time = np.floor(grid_times * self.position_id_per_seconds + 1e-4).astype(int)
            place = np.stack(np.meshgrid(time, np.arange(height), np.arange(width), indexing="ij")).reshape(
                3, -1
            )
            ids.append(np.full(place.shape[1], self.tokenizer.video_token_id))
            positions.append(place)
            chunks.append(place[0] // chunk)
        if audio_tokens:
            time = np.arange(audio_tokens)
            ids.append(np.full(audio_tokens, self.tokenizer.audio_token_id))
            positions.append(np.tile(time, (3, 1)))
            chunks.append(time // chunk)
        order = np.argsort(np.concatenate(chunks), kind="stable")
        return np.concatenate(ids)[order], np.concatenate(positions, axis=1)[:, order]

    def _last_block_end(self, kind: str, positions: np.ndarray, tokens: np.ndarray) -> int:
        """Return the highest position of the clip's last block, from which the stock model goes on counting."""
        if kind != "both":
            return int(positions.max())
        other = np.flatnonzero(tokens != tokens[-1])
        return int(positions[:, other[-1] + 1 :].max())

    def _layout(self, question: str, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the token ids before the clip, the clip's closing tokens, and the ids from there to the answer."""
        key = (question, kind, self.prompts["system"], self.prompts["prefix"])
        if key not in self._layouts:
            tokenizer = self.tokenizer
            media = "audio" if kind == "audio" else "video"
            messages = [
                {"role": "system", "content": [{"type": "text", "text": self.prompts["system"]}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": self.prompts["prefix"]},
                        {"type": media, media: ""},
                        {"type": "text", "text": question},
                    ],
                },
            ]
            text = tokenizer.apply_chat_template(
                messages, chat_template=self.chat_template, tokenize=False, add_generation_prompt=True
            )
            placeholder = tokenizer.audio_token if kind == "audio" else tokenizer.video_token
            before, found, after = text.partition(placeholder)
            closing = tokenizer.audio_eos_token if kind == "audio" else tokenizer.vision_eos_token
            if not found or not after.startswith(closing):
                raise ValueError(
                    f"The chat template does not write a {media} as {placeholder}{closing}; it wrote: {text!r}. "
                    "Use the chat template that belongs to the backbone."
                )
            after = after[len(closing) :]
            if kind == "both":
                before += tokenizer.audio_bos_token
                closing = tokenizer.audio_eos_token + closing

            def encode(part):
                return np.array(tokenizer.encode(part, add_special_tokens=False))

            self._layouts[key] = (encode(before), encode(closing), encode(after))
        return self._layouts[key]

    # -- a batch -----------------------------------------------------------------------------------------------------

    def collate(self, encoded: list[dict], padding_side: str = "left") -> BatchFeature:
        """
        Pad encoded clips to a batch: text to the longest row, sound to the longest sound.

        Pixels stay bytes, which [`AVLMMForDeepfakeDetection`] normalises; for the bare thinker see [`normalize_pixels`].

        Args:
            encoded (`list[dict]`): Results of [`~AVLMMProcessor.encode`].
            padding_side (`str`, *optional*, defaults to `"left"`): `"left"` or `"right"`.
        """
        if padding_side not in ("left", "right"):
            raise ValueError(f"padding_side must be 'left' or 'right', not {padding_side!r}.")
        length = max(len(item["input_ids"]) for item in encoded)
        offsets = [length - len(item["input_ids"]) if padding_side == "left" else 0 for item in encoded]
        pad_id = self.tokenizer.pad_token_id
        batch = {
            "input_ids": self._pad([item["input_ids"] for item in encoded], offsets, length, pad_id),
            "attention_mask": self._pad(
                [torch.ones_like(i["input_ids"]) for i in encoded], offsets, length, 0
            ),
            "position_ids": self._pad(
                [item["position_ids"] for item in encoded], offsets, length, 1
            ).transpose(0, 1),
            "answer_positions": torch.stack(
                [
                    torch.where(item["answer_positions"] < 0, -1, item["answer_positions"] + offset)
                    for item, offset in zip(encoded, offsets, strict=True)
                ]
            ),
        }
        if any(item["question_ids"].max() > 1 for item in encoded):
            batch["question_ids"] = self._pad([item["question_ids"] for item in encoded], offsets, length, 0)
        if any("labels" in item for item in encoded):
            nothing = [torch.full_like(item["input_ids"], IGNORE_INDEX) for item in encoded]
            rows = [item.get("labels", none) for item, none in zip(encoded, nothing, strict=True)]
            batch["labels"] = self._pad(rows, offsets, length, IGNORE_INDEX)
        sounds = [item["input_features"] for item in encoded if item["input_features"] is not None]
        if sounds:
            longest = max(sound.shape[-1] for sound in sounds)
            nowhere = [0] * len(sounds)
            batch["input_features"] = self._pad(sounds, nowhere, longest, 0.0)
            ones = [torch.ones(sound.shape[-1], dtype=torch.long) for sound in sounds]
            batch["feature_attention_mask"] = self._pad(ones, nowhere, longest, 0)
        pictures = [item for item in encoded if item["pixel_values_videos"] is not None]
        if pictures:
            pixels = [item["pixel_values_videos"] for item in pictures]
            # the largest tensor isn't copied if it is the only one
            batch["pixel_values_videos"] = pixels[0] if len(pixels) == 1 else torch.cat(pixels)
            batch["video_grid_thw"] = torch.stack([item["video_grid_thw"] for item in pictures])
        return BatchFeature(batch)

    @staticmethod
    def _pad(rows: list[torch.Tensor], offsets: list[int], length: int, value) -> torch.Tensor:
        """Stack rows `(..., n)` to `(batch, ..., length)`, each starting at its offset."""
        out = rows[0].new_full((len(rows), *rows[0].shape[:-1], length), value)
        for index, (row, offset) in enumerate(zip(rows, offsets, strict=True)):
            out[index, ..., offset : offset + row.shape[-1]] = row
        return out


def normalize_pixels(batch: BatchFeature | dict) -> BatchFeature | dict:
    """
    Normalise the pixels of a batch in place, for the stock thinker, which would take bytes for normalised values.

    Args:
        batch (`BatchFeature` or `dict`): A batch of [`AVLMMProcessor.collate`].

    Returns:
        `BatchFeature` or `dict`: The same batch.
    """
    if "pixel_values_videos" in batch:
        batch["pixel_values_videos"] = normalize_patches(batch["pixel_values_videos"])
    return batch


__all__ = ["AVLMMProcessor", "MediaLayout", "Question", "normalize_pixels"]

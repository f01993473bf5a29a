"""From a clip to the tensors of SSAVD: ten small frames and three seconds of waveform."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .configuration_detector import IGNORE_INDEX, PARTS
from .configuration_ssavd import SSAVDConfig
from .media import SAMPLING_RATE, Clip, MediaReader, UnreadableMediaError

EPS = 1e-6
"""Seconds below which two times are the same."""

LABELS = ("labels", "video_labels", "audio_labels")
"""What the labels of `PARTS` are called in a batch."""


class SSAVDProcessor(ProcessorMixin):
    """
    Prepares clips for [`SSAVDForDeepfakeDetection`].

    Frames keep their place in time: frame `i` of a row is what is on screen at `i / fps`, beside the segment of sound that
    belongs to it, and a clip that ends early is filled up with zeros. (The authors spread their ten frames over a shorter
    clip, away from its sound.) Frames stay uint8, an eighth of the size, until the model normalises them.

    Args:
        fps (`float`, *optional*, defaults to 10/3): Frames sampled per second.
        max_frames (`int`, *optional*, defaults to 10): Frames of a row: the model's `num_frames`.
        max_seconds (`float`, *optional*, defaults to 3.0): Length of a row; longer files are read in windows.
        image_size (`int`, *optional*, defaults to 224): Side to which frames are resized, whatever their shape, pixels.
        trim_leading_silence (`bool`, *optional*, defaults to `False`):
            Clips begin where their sound sets in ([`MediaReader`]), so that leading silence gives no fake away.
    """

    def __init__(
        self,
        fps: float = 10 / 3,
        max_frames: int = 10,
        max_seconds: float = 3.0,
        image_size: int = 224,
        trim_leading_silence: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.fps = fps
        self.max_frames = max_frames
        self.max_seconds = max_seconds
        self.image_size = image_size
        self.trim_leading_silence = trim_leading_silence

    @classmethod
    def from_config(cls, config: SSAVDConfig, **kwargs) -> "SSAVDProcessor":
        """The processor of a model: its frames spread evenly over its clip."""
        sizes = {
            "fps": config.num_frames / config.clip_seconds,
            "max_frames": config.num_frames,
            "max_seconds": config.clip_seconds,
            "image_size": config.image_size,
        }
        return cls(**{**sizes, **kwargs})

    @property
    def model_input_names(self) -> list[str]:
        return ["pixel_values", "audio_values", "frame_mask", "audio_mask", "questions"]

    @property
    def audio_samples(self) -> int:
        return round(self.max_seconds * SAMPLING_RATE)

    def __call__(self, media, questions: Sequence[str] = PARTS, **kwargs) -> BatchFeature:
        """
        Args:
            media (path, URL, `bytes`, file object, arrays, [`Clip`], or a list of them):
                The clips; whatever [`MediaReader`] opens.
            questions (`Sequence[str]`, *optional*, defaults to `("overall", "video", "audio")`): The verdicts wanted.

        Returns:
            [`BatchFeature`]: the arguments of [`SSAVDForDeepfakeDetection.forward`].
        """
        items = media if isinstance(media, list) else [media]
        clips = [item if isinstance(item, Clip) else self.load(item) for item in items]
        return self.collate([self.encode(clip, questions) for clip in clips])

    def load(self, source, audio=None, start: float = 0.0, end: float | None = None) -> Clip:
        """Decodes a clip as this processor samples it.

        Raises:
            MediaError: when the source cannot be read.
            ValueError: when the span is longer than `max_seconds`.
        """
        with MediaReader(source, audio=audio, trim_leading_silence=self.trim_leading_silence) as reader:
            span = (reader.info.duration if end is None else end) - start
            self._check_length(reader.info.name, span)
            return reader.read(start=start, end=end, fps=self.fps, max_frames=self.max_frames)

    def encode(
        self,
        clip: Clip,
        questions: Sequence[str] = PARTS,
        label: int | None = None,
        video_label: int | None = None,
        audio_label: int | None = None,
    ) -> dict:
        """
        Encodes one clip.

        Args:
            clip ([`Clip`]): The decoded clip; at least one of sound and picture.
            questions (`Sequence[str]`): The verdicts wanted, of `overall`, `video` and `audio`.
            label, video_label, audio_label (`int`, *optional*): 0 real, 1 fake, for training; None where unknown.

        Returns:
            `dict`: `pixel_values (T, 3, image_size, image_size)` uint8, `frame_mask (T,)`, `audio_values (S,)`,
            `audio_mask ()`, `questions (3,)`, and `labels`, `video_labels`, `audio_labels` where any label is given.

        Raises:
            UnreadableMediaError: when there is nothing to look at or listen to.
            ValueError: when the clip is longer than `max_seconds`, or a question is unknown.
        """
        if not questions or set(questions) - set(PARTS):
            raise ValueError(f"questions must be of {PARTS}, not {tuple(questions)!r}.")
        if not clip.has_video and not clip.has_audio:
            raise UnreadableMediaError(clip.name, "neither sound nor picture to look at")
        self._check_length(clip.name, clip.duration)
        pixel_values, frame_mask = self._encode_video(clip)
        if not clip.has_audio and not frame_mask.any():
            raise UnreadableMediaError(clip.name, clip.warnings[-1])
        audio_values = torch.zeros(self.audio_samples)
        if clip.has_audio:
            # A window's length is rounded to samples, which may be one more.
            audio = clip.audio[: self.audio_samples]
            audio_values[: len(audio)] = audio
        encoded = {
            "pixel_values": pixel_values,
            "frame_mask": frame_mask,
            "audio_values": audio_values,
            "audio_mask": torch.tensor(clip.has_audio),
            "questions": torch.tensor([name in questions for name in PARTS]),
        }
        given = (label, video_label, audio_label)
        if any(value is not None for value in given):
            for name, value in zip(LABELS, given, strict=True):
                encoded[name] = torch.tensor(IGNORE_INDEX if value is None else value)
        return encoded

    def _encode_video(self, clip: Clip) -> tuple[torch.Tensor, torch.Tensor]:
        side = self.image_size
        pixel_values = torch.zeros(self.max_frames, 3, side, side, dtype=torch.uint8)
        frame_mask = torch.zeros(self.max_frames, dtype=torch.bool)
        if not clip.has_video:
            return pixel_values, frame_mask
        shown = clip.timestamps.numpy().astype(float)
        times = np.arange(self.max_frames) / self.fps
        # The frame on screen at each time; the last one is taken to stay for as long as frames are apart here.
        frames = np.searchsorted(shown, times + EPS, side="right") - 1
        places = torch.from_numpy((frames >= 0) & (times < shown[-1] + 1 / self.fps - EPS))
        if not places.any():
            clip.warnings.append("the picture is on screen at none of the sampled times and was left out")
            return pixel_values, frame_mask
        chosen = clip.frames[torch.from_numpy(frames)[places]]
        if chosen.shape[-2:] != (side, side):
            # Antialiased bilinear on bytes, which Pillow has too, to a rounding step.
            chosen = F.interpolate(chosen, size=(side, side), mode="bilinear", antialias=True)
        pixel_values[places], frame_mask[places] = chosen, True
        return pixel_values, frame_mask

    def _check_length(self, name: str, seconds: float) -> None:
        if seconds > self.max_seconds + EPS:
            raise ValueError(
                f"{name}: {seconds:.1f} s is longer than one pass takes (max_seconds={self.max_seconds:g}). "
                "Give start and end, or use the pipeline, which reads it in windows."
            )

    def collate(self, encoded: list[dict]) -> BatchFeature:
        """
        Stacks encoded clips to one batch.

        Args:
            encoded (`list[dict]`): Results of [`~SSAVDProcessor.encode`]. With labels on some, the others' are -100.
        """
        batch = {name: torch.stack([item[name] for item in encoded]) for name in self.model_input_names}
        if any(LABELS[0] in item for item in encoded):
            unknown = torch.tensor(IGNORE_INDEX)
            for name in LABELS:
                batch[name] = torch.stack([item.get(name, unknown) for item in encoded])
        return BatchFeature(batch)


__all__ = ["SSAVDProcessor"]

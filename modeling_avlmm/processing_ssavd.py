"""From a clip to the tensors of SSAVD: ten small frames and three seconds of waveform."""

from collections.abc import Sequence

import numpy as np
import torch

from .configuration_detector import PARTS
from .configuration_ssavd import SSAVDConfig
from .media import SAMPLING_RATE, Clip, UnreadableMediaError
from .media_tracks import EPS
from .processing_clips import VerdictProcessor, resized


class SSAVDProcessor(VerdictProcessor):
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
        self.check_clip(clip, questions)
        pixel_values, frame_mask = self._encode_video(clip)
        if not clip.has_audio and not frame_mask.any():
            raise UnreadableMediaError(clip.name, clip.warnings[-1])
        audio_values = torch.zeros(self.audio_samples)
        if clip.has_audio:
            # A window's length is rounded to samples, which may be one more.
            audio = clip.audio[: self.audio_samples]
            audio_values[: len(audio)] = audio
        return {
            "pixel_values": pixel_values,
            "frame_mask": frame_mask,
            "audio_values": audio_values,
            "audio_mask": torch.tensor(clip.has_audio),
            "questions": torch.tensor([name in questions for name in PARTS]),
            **self.encode_labels(label, video_label, audio_label),
        }

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
        pixel_values[places], frame_mask[places] = resized(chosen, side), True
        return pixel_values, frame_mask


__all__ = ["SSAVDProcessor"]

"""A window of a media input, and the properties of the whole input."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class MediaInfo:
    """Properties of a media input. Times are in seconds; a property of a missing track is `None`.

    `duration` counts from the clock's zero to the end of the longer track. The zero is that of [`MediaReader`] plus
    `trimmed`, the leading silence that it was asked to leave out. `av_offset` is the start of the audio minus the start of
    the video. `has_video` and `has_audio` are True for a track that is read, False where there is none, and None where
    there is one that cannot be decoded.
    """

    name: str
    duration: float
    has_video: bool | None
    has_audio: bool | None
    width: int | None = None
    height: int | None = None
    average_fps: float | None = None
    num_frames: int | None = None
    sampling_rate: int | None = None
    video_codec: str | None = None
    audio_codec: str | None = None
    av_offset: float = 0.0
    file_size: int | None = None
    trimmed: float = 0.0


@dataclass
class Clip:
    """A window of one media input.

    Attributes:
        frames (`torch.Tensor`, *optional*): uint8, shape (T, 3, H, W), RGB, upright; from a file, in the memory format
            `channels_last`.
        timestamps (`torch.Tensor`, *optional*): float64, shape (T,), seconds from `start`.
        audio (`torch.Tensor`, *optional*): float32 in [-1, 1], shape (S,), mono 16 kHz, sample 0 at `start`.
        start, end (`float`): The window on the file's clock, in seconds.
        name (`str`): The name of the media.
        warnings (`list[str]`): Oddities of the file and of this window.
    """

    frames: torch.Tensor | None
    timestamps: torch.Tensor | None
    audio: torch.Tensor | None
    start: float
    end: float
    name: str
    warnings: list[str] = field(default_factory=list)

    @property
    def duration(self) -> float:
        """Length of the window in seconds."""
        return self.end - self.start

    @property
    def has_video(self) -> bool:
        return self.frames is not None

    @property
    def has_audio(self) -> bool:
        return self.audio is not None

"""The processor of AVPL: from a clip to frames with their times and log-mel spectra."""

import numpy as np
import torch
import torch.nn.functional as F
from transformers import WhisperFeatureExtractor

from .configuration_avpl import TOKENS_PER_SECOND, AVPLConfig
from .configuration_detector import check_clip_size
from .media import SAMPLING_RATE, Clip
from .media_tracks import EPS
from .processing_clips import FACE_MARGIN, FACES, MIN_FACE_SIZE, VerdictProcessor, resized


class AVPLProcessor(VerdictProcessor):
    """
    Prepares clips for [`AVPLForDeepfakeDetection`].

    Frames come with the times at which they are on screen, and stay uint8 until the model normalises them. The Whisper
    checkpoint's own extractor turns the sound into spectra, for the length of the row instead of 30 s. As in the stock
    padding, zeros follow the end of the sound; a mask marks it.

    Args:
        feature_extractor (`WhisperFeatureExtractor`, *optional*): Log-mel front end at 16 kHz. Defaults to Whisper's.
        fps (`float`, *optional*, defaults to 16.0): Frames sampled per second.
        max_frames (`int`, *optional*, defaults to 16): Largest number of frames in a row.
        max_seconds (`float`, *optional*, defaults to 1.0): Length of a row in seconds; longer files are read in windows.
        image_size (`int`, *optional*, defaults to 224): Side to which frames are resized, whatever their shape, in pixels.
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

    def __init__(
        self,
        feature_extractor=None,
        fps: float = 16.0,
        max_frames: int = 16,
        max_seconds: float = 1.0,
        image_size: int = 224,
        trim_leading_silence: bool = False,
        faces: str = FACES[0],
        face_margin: float = FACE_MARGIN,
        min_face_size: float = MIN_FACE_SIZE,
        **kwargs,
    ):
        super().__init__(feature_extractor or WhisperFeatureExtractor(), **kwargs)
        self.fps = fps
        self.max_frames = max_frames
        self.max_seconds = max_seconds
        self.image_size = image_size
        check_clip_size("AVPLProcessor", max_frames, image_size, self.audio_samples)
        self.trim_leading_silence = trim_leading_silence
        self.set_faces(faces, face_margin, min_face_size)

    @classmethod
    def from_config(cls, config: AVPLConfig, **kwargs) -> "AVPLProcessor":
        """Return the processor of a model, with frames spread evenly over its clip; `kwargs` replace arguments."""
        extractor = WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins)
        return super().from_config(config, **{"feature_extractor": extractor, **kwargs})

    @property
    def model_input_names(self) -> list[str]:
        return ["pixel_values", "input_features", "frame_mask", "frame_times", "audio_mask", "questions"]

    def encode_media(self, clip: Clip) -> dict:
        """
        Encode the picture and sound of a clip.

        Returns:
            `dict`: `pixel_values (T, 3, image_size, image_size)` uint8, `frame_mask (T,)`, `frame_times (T,)` in seconds,
            `input_features (num_mel_bins, 2 * N + 1)` and `audio_mask (N,)`.
        """
        input_features, audio_mask = self._encode_audio(clip)
        return {**self._encode_video(clip), "input_features": input_features, "audio_mask": audio_mask}

    def _encode_video(self, clip: Clip) -> dict:
        count, side = self.max_frames, self.image_size
        pixel_values = torch.zeros(count, 3, side, side, dtype=torch.uint8)
        frame_mask, frame_times = torch.zeros(count, dtype=torch.bool), torch.zeros(count)
        if clip.has_video:
            frames, times = clip.frames, clip.timestamps
            if len(frames) > count:
                # The clip was sampled more densely: take the frames on screen at this processor's times.
                asked = np.arange(count) / self.fps
                shown = np.searchsorted(times.numpy().astype(float), asked + EPS, side="right") - 1
                chosen = torch.from_numpy(np.unique(shown[shown >= 0]))
                if not len(chosen):
                    chosen = torch.arange(count)
                frames, times = frames[chosen], times[chosen]
            pixel_values[: len(frames)] = resized(frames, side)
            frame_mask[: len(frames)] = True
            frame_times[: len(frames)] = times.float()
        return {"pixel_values": pixel_values, "frame_mask": frame_mask, "frame_times": frame_times}

    def _encode_audio(self, clip: Clip) -> tuple[torch.Tensor, torch.Tensor]:
        extractor = self.feature_extractor
        tokens = round(self.max_seconds * TOKENS_PER_SECOND)
        # Two spectra for each token, and one more for the last token's convolution.
        spectra = 2 * tokens + 1
        if not clip.has_audio:
            return torch.zeros(extractor.feature_size, spectra), torch.zeros(tokens, dtype=torch.bool)
        # A window's length is rounded to samples, so there may be one too many.
        audio = clip.audio[: tokens * SAMPLING_RATE // TOKENS_PER_SECOND].float()
        # Zeros after the end, as in the stock padding: the windows of the last spectra reach past it.
        padded = F.pad(audio, (0, spectra * extractor.hop_length - len(audio) + extractor.n_fft))
        features = extractor(
            padded.numpy(), sampling_rate=SAMPLING_RATE, padding=False, truncation=False, return_tensors="pt"
        )["input_features"][0][:, :spectra]
        heard = -(-len(audio) * TOKENS_PER_SECOND // SAMPLING_RATE)
        return features, torch.arange(tokens) < heard


__all__ = ["AVPLProcessor"]

"""The processor of SSAVD: from a clip to ten small frames and three seconds of waveform."""

import numpy as np
import torch

from .configuration_detector import check_clip_size
from .media import Clip
from .media_tracks import EPS
from .processing_clips import FACE_MARGIN, FACES, MIN_FACE_SIZE, VerdictProcessor, resized


class SSAVDProcessor(VerdictProcessor):
    """
    Prepares clips for [`SSAVDForDeepfakeDetection`].

    Frames keep their place in time: frame `i` of a row is on screen at `i / fps`, beside its own segment of sound, and a
    clip that ends early is filled up with zeros. (The authors spread their ten frames over a shorter clip, away from their
    sound.) Frames stay uint8, a quarter of the size of floats, until the model normalises them.

    Args:
        fps (`float`, *optional*, defaults to 10/3): Frames sampled per second.
        max_frames (`int`, *optional*, defaults to 10): Frames of a row: the model's `num_frames`.
        max_seconds (`float`, *optional*, defaults to 3.0): Length of a row in seconds; longer files are read in windows.
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
        fps: float = 10 / 3,
        max_frames: int = 10,
        max_seconds: float = 3.0,
        image_size: int = 224,
        trim_leading_silence: bool = False,
        faces: str = FACES[0],
        face_margin: float = FACE_MARGIN,
        min_face_size: float = MIN_FACE_SIZE,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.fps = fps
        self.max_frames = max_frames
        self.max_seconds = max_seconds
        self.image_size = image_size
        check_clip_size("SSAVDProcessor", max_frames, image_size, self.audio_samples)
        self.trim_leading_silence = trim_leading_silence
        self.set_faces(faces, face_margin, min_face_size)

    def encode_media(self, clip: Clip) -> dict:
        """
        Encode the picture and sound of a clip.

        Returns:
            `dict`: `pixel_values (T, 3, image_size, image_size)` uint8, `frame_mask (T,)`, `audio_values (S,)` and
            `audio_mask ()`.
        """
        pixel_values, frame_mask = self._encode_video(clip)
        audio_values = torch.zeros(self.audio_samples)
        if clip.has_audio:
            # A window's length is rounded to samples, so there may be one too many.
            audio = clip.audio[: self.audio_samples]
            audio_values[: len(audio)] = audio
        return {
            "pixel_values": pixel_values,
            "frame_mask": frame_mask,
            "audio_values": audio_values,
            "audio_mask": torch.tensor(clip.has_audio),
        }

    def _encode_video(self, clip: Clip) -> tuple[torch.Tensor, torch.Tensor]:
        side = self.image_size
        pixel_values = torch.zeros(self.max_frames, 3, side, side, dtype=torch.uint8)
        frame_mask = torch.zeros(self.max_frames, dtype=torch.bool)
        if not clip.has_video:
            return pixel_values, frame_mask
        shown = clip.timestamps.numpy().astype(float)
        times = np.arange(self.max_frames) / self.fps
        # The frame on screen at each time. The last one stays for one sampling step.
        frames = np.searchsorted(shown, times + EPS, side="right") - 1
        places = torch.from_numpy((frames >= 0) & (times < shown[-1] + 1 / self.fps - EPS))
        if not places.any():
            clip.warnings.append("the picture is on screen at none of the sampled times and was left out")
            return pixel_values, frame_mask
        chosen = clip.frames[torch.from_numpy(frames)[places]]
        pixel_values[places], frame_mask[places] = resized(chosen, side), True
        return pixel_values, frame_mask


__all__ = ["SSAVDProcessor"]

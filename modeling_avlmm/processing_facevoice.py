"""The processor of facevoice: from a clip of face crops and sound to a row of the two networks."""

import torch

from .configuration_detector import check_clip_size
from .configuration_facevoice import HOP
from .media import Clip
from .media_errors import PlacedWarning
from .processing_clips import FACE_MARGIN, VerdictProcessor, resized
from .speech_activity import speech_activity

NO_SPEECH = "no speech was heard at {} s: the sound was not scored there"


class FaceVoiceProcessor(VerdictProcessor):
    """
    Prepares clips for [`FaceVoiceForDeepfakeDetection`].

    The frames of a clip are one person's face crops: the pipeline finds the faces, and follows and crops them. Crops stay
    uint8, a quarter of the size of floats, until the model normalises them.

    Args:
        fps (`float`, *optional*, defaults to 5.0): Frames sampled per second.
        max_frames (`int`, *optional*, defaults to 20): Crops of a row: the model's `num_frames`.
        max_seconds (`float`, *optional*, defaults to 4.0): Length of a row in seconds; longer files are read in windows.
        image_size (`int`, *optional*, defaults to 160): Side to which crops are resized, in pixels.
        trim_leading_silence (`bool`, *optional*, defaults to `False`):
            Begin clips where their sound sets in ([`MediaReader`]), so that leading silence gives no fake away.
        faces (`str`, *optional*, defaults to `"all"`):
            The picture: `"all"` for every face by itself, which the pipeline scores one by one, `"largest"` for the largest
            face, `"off"` for whole frames: for clips that are face crops already.
        face_margin (`float`, *optional*, defaults to 1.3):
            Side of the square crop, as a multiple of the longer side of the face's box.
        min_face_size (`float`, *optional*, defaults to 48):
            Longer side of the smallest face that is scored, in pixels of the frame; smaller ones are reported only.
        speech_only (`bool`, *optional*, defaults to `True`):
            Judge the sound of rows with speech only ([`speech_activity`]): music and noise say nothing of a voice. Rows
            without speech get a warning.
    """

    def __init__(
        self,
        fps: float = 5.0,
        max_frames: int = 20,
        max_seconds: float = 4.0,
        image_size: int = 160,
        trim_leading_silence: bool = False,
        faces: str = "all",
        face_margin: float = FACE_MARGIN,
        min_face_size: float = 48,
        speech_only: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.fps = fps
        self.max_frames = max_frames
        self.max_seconds = max_seconds
        self.image_size = image_size
        check_clip_size("FaceVoiceProcessor", max_frames, image_size, self.audio_samples)
        self.trim_leading_silence = trim_leading_silence
        self.speech_only = speech_only
        self.set_faces(faces, face_margin, min_face_size)

    def encode_media(self, clip: Clip) -> dict:
        """
        Encode the face crops and the sound of a clip.

        Returns:
            `dict`: `pixel_values (T, 3, image_size, image_size)` uint8, `frame_mask (T,)`, `audio_values (S,)` and
            `audio_mask (S // 160,)`, which is 1 for every 10 ms that hold sound, and 0 throughout where speech is asked for
            and none is heard: the clip's warnings say so.
        """
        side = self.image_size
        pixel_values = torch.zeros(self.max_frames, 3, side, side, dtype=torch.uint8)
        frame_mask = torch.zeros(self.max_frames, dtype=torch.bool)
        if clip.has_video:
            frames = clip.frames
            if len(frames) > self.max_frames:  # sampled more densely: take frames evenly
                frames = frames[torch.linspace(0, len(frames) - 1, self.max_frames).round().long()]
            pixel_values[: len(frames)] = resized(frames, side)
            frame_mask[: len(frames)] = True
        audio_values = torch.zeros(self.audio_samples)
        audio_mask = torch.zeros(self.audio_samples // HOP, dtype=torch.bool)
        if clip.has_audio:
            # A window's length is rounded to samples, so there may be one too many.
            audio = clip.audio[: self.audio_samples]
            audio_values[: len(audio)] = audio
            if not self.speech_only or speech_activity(audio).speech.any():
                audio_mask[: -(-len(audio) // HOP)] = True
            else:
                clip.warnings.append(PlacedWarning(NO_SPEECH, [f"{clip.start:.2f}-{clip.end:.2f}"]))
        return {
            "pixel_values": pixel_values,
            "frame_mask": frame_mask,
            "audio_values": audio_values,
            "audio_mask": audio_mask,
        }


__all__ = ["FaceVoiceProcessor"]

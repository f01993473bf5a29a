"""Base of the detectors' processors: from media to clips, from clips to a batch."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .configuration_detector import IGNORE_INDEX, LABEL_COLUMNS, PARTS, AVDetectorConfig
from .face_crops import FACE_MARGIN, FaceTrack, crop_clip
from .face_finder import FaceFinder
from .face_windows import NO_FACE, NO_FACE_AT, FaceWindows, WindowFace
from .media import SAMPLING_RATE, Clip, MediaReader
from .media_errors import NothingToScoreError
from .media_tracks import EPS

FACES = ("off", "largest", "all")
"""Values of a processor's `faces`: whole frames, the largest face, or every face by itself."""
MAX_FACE_MARGIN = 10
MIN_FACE_SIZE = 32
"""Longer side of the smallest box that is scored, in pixels; our own choice."""


class ClipProcessor(ProcessorMixin):
    """
    Base of the detectors' processors.

    A subclass has `encode`, which makes the tensors of one clip, and `collate`, which makes a batch of them. Its `fps`,
    `max_frames`, `max_seconds` and `trim_leading_silence` say how clips are sampled, and `faces`, `face_margin` and
    `min_face_size` ([`~ClipProcessor.set_faces`]) whether the picture is the whole frame or a face in it.
    """

    _auto_class = "AutoProcessor"  # saved processors name their code, which is saved with them

    default_questions: tuple = PARTS
    """Questions that are asked if none are named."""

    prompts: dict | None = None
    """Texts of the questions; None for a detector that reads no text."""

    trim_leading_silence: bool = False
    """Begin clips where their sound sets in."""

    faces: str = FACES[0]
    face_margin: float = FACE_MARGIN
    min_face_size: float = MIN_FACE_SIZE
    _finder: FaceFinder | None = None

    too_long_advice = "Give start and end, or use the pipeline, which reads it in windows."

    def set_faces(self, faces: str, face_margin: float, min_face_size: float) -> None:
        """
        Set what the picture of a clip is; called by the constructor of a subclass.

        Args:
            faces (`str`): `"off"` for whole frames, `"largest"` for the largest face, `"all"` for every face by itself.
            face_margin (`float`): Side of the square crop, as a multiple of the longer side of the face's box; at least 1.
            min_face_size (`float`): Longer side of the smallest box that is scored, in pixels of the frame.

        Raises:
            ValueError: If one of them is out of range.
        """
        self.faces = checked_faces(faces)
        if not 1 <= face_margin <= MAX_FACE_MARGIN:
            raise ValueError(
                f"face_margin must be from 1 (the face's box) to {MAX_FACE_MARGIN}, not {face_margin!r}."
            )
        if not min_face_size >= 0:
            raise ValueError(f"min_face_size must be at least 0 pixels, not {min_face_size!r}.")
        self.face_margin = face_margin
        self.min_face_size = min_face_size

    @classmethod
    def get_processor_dict(cls, pretrained_model_name_or_path, **kwargs) -> tuple[dict, dict]:
        """See [`~transformers.ProcessorMixin.get_processor_dict`]; raises `OSError` where there is none, in place of defaults."""
        settings, kwargs = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        if not settings:
            raise OSError(
                f"{pretrained_model_name_or_path} has no processor_config.json, which says how clips are sampled: save the "
                "detector's processor there"
            )
        return settings, kwargs

    @property
    def face_side(self) -> int | None:
        """Side to which a face is cropped, in pixels; None for the size that it has in the frames."""
        return None

    def __call__(self, media, questions: Sequence | None = None, **kwargs) -> BatchFeature:
        """
        Encode clips as a batch.

        Args:
            media (path, URL, `bytes`, file object, arrays, [`Clip`], or a list of them):
                The clips, in any form that [`MediaReader`] opens.
            questions (`Sequence`, *optional*): The verdicts wanted on every clip; see `encode`.
            kwargs: Arguments of the processor's own `collate`. Others, such as `return_tensors`, have no effect.

        Returns:
            [`BatchFeature`]: The arguments of the model's `forward`.
        """
        questions = self.default_questions if questions is None else questions
        items = media if isinstance(media, list) else [media]
        clips = [item if isinstance(item, Clip) else self.load(item) for item in items]
        return self._collate_call([self.encode(clip, questions) for clip in clips], **kwargs)

    def _collate_call(self, encoded: list[dict], **kwargs) -> BatchFeature:
        return self.collate(encoded)

    def load(
        self,
        source,
        audio=None,
        start: float = 0.0,
        end: float | None = None,
        tracks: list[FaceTrack] | None = None,
    ) -> Clip:
        """
        Decode a clip, sampled as this processor needs it.

        With `faces` other than `"off"`, the picture is the clip's largest face, also with `"all"`: a clip is one row. (The
        pipeline scores the others too.) A clip without a face has its sound alone, and a warning.

        Args:
            source, audio: As for [`MediaReader`].
            start, end (`float`, *optional*): The part to read, in seconds on the clock of [`MediaReader`].
            tracks (`list[FaceTrack]`, *optional*):
                The file's faces, where they are known.

        Raises:
            MediaError: If the source cannot be read.
            ValueError: If the span is longer than `max_seconds`.
            FaceFinderError: If faces are to be found and the face finder is not installed.
        """
        with MediaReader(source, audio=audio, trim_leading_silence=self.trim_leading_silence) as reader:
            span = (reader.info.duration if end is None else end) - start
            self.check_length(reader.info.name, span)
            clip = reader.read(start=start, end=end, fps=self.fps, max_frames=self.max_frames)
            if self.faces == FACES[0]:
                return clip
        chosen, notes = self.face_windows("largest", lambda: tracks).choose(clip)
        notes = [NO_FACE if note.template == NO_FACE_AT else note for note in notes]
        part = self.part(clip, chosen[0] if chosen else None)
        return replace(part, warnings=[*part.warnings, *notes])

    def face_windows(
        self, faces: str | None = None, tracks: Callable[[], list[FaceTrack] | None] | None = None
    ) -> FaceWindows | None:
        """
        Return what finds the faces of one file, window by window; None if the picture is the whole frame.

        Args:
            faces (`str`, *optional*): In place of the processor's own `faces`.
            tracks (`Callable`, *optional*):
                Returns the file's faces where they are known, else None. Not called if the picture is the whole frame.
        """
        faces = self.faces if faces is None else faces
        if faces == FACES[0]:
            return None
        known = None if tracks is None else tracks()
        if known is None and self._finder is None:
            self._finder = FaceFinder()
        return FaceWindows(faces, self.min_face_size, self._finder, known)

    def part(self, clip: Clip, face: WindowFace | None) -> Clip:
        """
        Return what a detector for faces takes at once: a face and the sound, or the sound alone.

        Args:
            clip ([`Clip`]): A window, with whole frames.
            face ([`WindowFace`], *optional*): The face; None for the sound alone.
        """
        if face is None:
            return replace(clip, frames=None, timestamps=None, warnings=list(clip.warnings))
        # The warnings of cropping are left out: a result says when a face is there.
        cropped = crop_clip(clip, face.track, self.face_margin, self.face_side)
        return replace(cropped, warnings=list(clip.warnings))

    def check_length(self, name: str, seconds: float) -> None:
        """Raise `ValueError` for a clip that is longer than one pass takes."""
        if seconds > self.max_seconds + EPS:
            raise ValueError(
                f"{name}: {seconds:.1f} s is longer than one pass takes (max_seconds={self.max_seconds:g}). "
                f"{self.too_long_advice}"
            )


class VerdictProcessor(ClipProcessor):
    """
    Base of the processors whose batches hold `questions` and labels as numbers, not as text.

    A subclass has `encode_media`, which makes the tensors of a clip's picture and sound.
    """

    @property
    def model_input_names(self) -> list[str]:
        return ["pixel_values", "audio_values", "frame_mask", "audio_mask", "questions"]

    @property
    def audio_samples(self) -> int:
        """Samples of a row."""
        return round(self.max_seconds * SAMPLING_RATE)

    @property
    def face_side(self) -> int:
        return self.image_size

    @classmethod
    def from_config(cls, config: AVDetectorConfig, **kwargs) -> "VerdictProcessor":
        """Return the processor of a model, with frames spread evenly over its clip; `kwargs` replace arguments."""
        sizes = {
            "fps": config.num_frames / config.clip_seconds,
            "max_frames": config.num_frames,
            "max_seconds": config.clip_seconds,
            "image_size": config.image_size,
        }
        return cls(**{**sizes, **kwargs})

    def encode(
        self,
        clip: Clip,
        questions: Sequence[str] = PARTS,
        label: int | None = None,
        video_label: int | None = None,
        audio_label: int | None = None,
    ) -> dict:
        """
        Encode one clip.

        Args:
            clip ([`Clip`]): The decoded clip, with sound, picture or both.
            questions (`Sequence[str]`): The verdicts wanted, of `overall`, `video` and `audio`.
            label, video_label, audio_label (`int`, *optional*): Labels for training, 0 real, 1 fake; None if unknown.

        Returns:
            `dict`: The tensors of `encode_media`, `questions (3,)`, and `labels`, `video_labels` and `audio_labels` if any
            label is given.

        Raises:
            NothingToScoreError: If there is nothing to look at or listen to.
            ValueError: If the clip is longer than `max_seconds`, or a question is unknown.
        """
        if not questions or set(questions) - set(PARTS):
            raise ValueError(f"questions must be of {PARTS}, not {tuple(questions)!r}.")
        if not clip.has_video and not clip.has_audio:
            raise NothingToScoreError(clip.name, nothing_in(clip))
        self.check_length(clip.name, clip.duration)
        media = self.encode_media(clip)
        if not media["frame_mask"].any() and not media["audio_mask"].any():
            raise NothingToScoreError(clip.name, nothing_in(clip))
        return {
            **media,
            "questions": torch.tensor([name in questions for name in PARTS]),
            **_encode_labels(label, video_label, audio_label),
        }

    def collate(self, encoded: list[dict]) -> BatchFeature:
        """
        Stack encoded clips to a batch.

        Args:
            encoded (`list[dict]`): Results of `encode`. If some have labels, the others' labels are -100.
        """
        batch = {name: torch.stack([item[name] for item in encoded]) for name in self.model_input_names}
        if any(LABEL_COLUMNS["overall"] in item for item in encoded):
            unknown = torch.tensor(IGNORE_INDEX)
            for name in LABEL_COLUMNS.values():
                batch[name] = torch.stack([item.get(name, unknown) for item in encoded])
        return BatchFeature(batch)


def nothing_in(clip: Clip) -> str:
    """Return the reason why there is nothing in a clip to score."""
    told = f" ({'; '.join(clip.warnings)})" if clip.warnings else ""
    return f"neither sound nor picture to look at{told}"


def checked_faces(faces: str) -> str:
    """Return one of [`FACES`]; raise `ValueError` for anything else."""
    if faces is False:  # YAML's word for it: `faces: off` is read as a boolean
        return FACES[0]
    if faces not in FACES:
        raise ValueError(f"faces must be one of {', '.join(map(repr, FACES))}, not {faces!r}.")
    return faces


def _encode_labels(*labels: int | None) -> dict:
    """Return the labels of `PARTS`, -100 for unknown ones; nothing if all are unknown."""
    if all(label is None for label in labels):
        return {}
    return {
        name: torch.tensor(IGNORE_INDEX if label is None else label)
        for name, label in zip(LABEL_COLUMNS.values(), labels, strict=True)
    }


def resized(frames: torch.Tensor, side: int) -> torch.Tensor:
    """Return frames `(T, 3, H, W)` uint8 resized to `side` x `side` pixels, whatever their shape."""
    if frames.shape[-2:] == (side, side):
        return frames
    # Antialiased bilinear on bytes: the same as Pillow's, up to a rounding step.
    return F.interpolate(frames, size=(side, side), mode="bilinear", antialias=True).contiguous()

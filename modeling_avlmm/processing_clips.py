"""What the processors of all detectors share: from media to clips, from clips to a batch."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .configuration_detector import IGNORE_INDEX, LABEL_COLUMNS, PARTS
from .media import Clip, MediaReader, UnreadableMediaError
from .media_tracks import EPS


class ClipProcessor(ProcessorMixin):
    """
    Base of the detectors' processors. A processor has `fps`, `max_frames`, `max_seconds` and `trim_leading_silence`, which
    say how clips are sampled, `encode`, which makes one clip's tensors, and `collate`, which makes a batch of them.
    """

    _auto_class = "AutoProcessor"  # what is saved names, and brings, its own code

    default_questions: tuple = PARTS
    """What is asked where nothing is named."""

    too_long_advice = "Give start and end, or use the pipeline, which reads it in windows."

    def __call__(self, media, questions: Sequence | None = None, **kwargs) -> BatchFeature:
        """
        Args:
            media (path, URL, `bytes`, file object, arrays, [`Clip`], or a list of them):
                The clips; whatever [`MediaReader`] opens.
            questions (`Sequence`, *optional*): The verdicts wanted, asked of every clip; see `encode`.
            kwargs: Of the processor's own `collate`, if it has any; others, such as `return_tensors`, change nothing.

        Returns:
            [`BatchFeature`]: the arguments of the model's `forward`.
        """
        questions = self.default_questions if questions is None else questions
        items = media if isinstance(media, list) else [media]
        clips = [item if isinstance(item, Clip) else self.load(item) for item in items]
        return self._collate_call([self.encode(clip, questions) for clip in clips], **kwargs)

    def _collate_call(self, encoded: list[dict], **kwargs) -> BatchFeature:
        return self.collate(encoded)

    def load(self, source, audio=None, start: float = 0.0, end: float | None = None) -> Clip:
        """Decodes a clip as this processor samples it.

        Raises:
            MediaError: when the source cannot be read.
            ValueError: when the span is longer than `max_seconds`.
        """
        with MediaReader(source, audio=audio, trim_leading_silence=self.trim_leading_silence) as reader:
            span = (reader.info.duration if end is None else end) - start
            self.check_length(reader.info.name, span)
            return reader.read(start=start, end=end, fps=self.fps, max_frames=self.max_frames)

    def check_length(self, name: str, seconds: float) -> None:
        """Refuses what is longer than one pass takes."""
        if seconds > self.max_seconds + EPS:
            raise ValueError(
                f"{name}: {seconds:.1f} s is longer than one pass takes (max_seconds={self.max_seconds:g}). "
                f"{self.too_long_advice}"
            )


class VerdictProcessor(ClipProcessor):
    """Base of the processors whose batches hold `questions` and labels as flags and numbers, not as text."""

    def check_clip(self, clip: Clip, questions: Sequence[str]) -> None:
        """Refuses unknown questions, clips without anything, and clips that are too long."""
        if not questions or set(questions) - set(PARTS):
            raise ValueError(f"questions must be of {PARTS}, not {tuple(questions)!r}.")
        if not clip.has_video and not clip.has_audio:
            raise UnreadableMediaError(clip.name, "neither sound nor picture to look at")
        self.check_length(clip.name, clip.duration)

    @staticmethod
    def encode_labels(label: int | None, video_label: int | None, audio_label: int | None) -> dict:
        """The labels of a clip, -100 where unknown; nothing without any."""
        given = (label, video_label, audio_label)
        if all(value is None for value in given):
            return {}
        return {
            name: torch.tensor(IGNORE_INDEX if value is None else value)
            for name, value in zip(LABEL_COLUMNS.values(), given, strict=True)
        }

    def collate(self, encoded: list[dict]) -> BatchFeature:
        """
        Stacks encoded clips to one batch.

        Args:
            encoded (`list[dict]`): Results of `encode`. With labels on some, the others' are -100.
        """
        batch = {name: torch.stack([item[name] for item in encoded]) for name in self.model_input_names}
        if any(LABEL_COLUMNS["overall"] in item for item in encoded):
            unknown = torch.tensor(IGNORE_INDEX)
            for name in LABEL_COLUMNS.values():
                batch[name] = torch.stack([item.get(name, unknown) for item in encoded])
        return BatchFeature(batch)


def resized(frames: torch.Tensor, side: int) -> torch.Tensor:
    """Frames `(T, 3, H, W)` uint8 at `side` x `side` pixels, whatever their shape."""
    if frames.shape[-2:] == (side, side):
        return frames
    # Antialiased bilinear on bytes, which Pillow has too, to a rounding step.
    return F.interpolate(frames, size=(side, side), mode="bilinear", antialias=True).contiguous()

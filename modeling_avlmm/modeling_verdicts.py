"""What the detectors with three heads share: labels of a clip's parts, their losses, and verdicts on what there is."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .configuration_detector import IGNORE_INDEX, PARTS

REAL, FAKE = 0, 1


@dataclass
class ClipLabels:
    """
    What is known of a batch's clips, each of shape `(batch_size,)`: 0 real, 1 fake, -100 unknown or absent.

    Args:
        overall, video, audio (`torch.LongTensor`): The labels.
    """

    overall: torch.Tensor
    video: torch.Tensor
    audio: torch.Tensor


def complete_labels(
    overall: torch.Tensor | None,
    video: torch.Tensor | None,
    audio: torch.Tensor | None,
    has_video: torch.Tensor,
    has_audio: torch.Tensor,
) -> ClipLabels:
    """
    Fills in labels that follow from others: a clip is fake when a part of it is, and real when all its parts are.

    So the parts of a real clip are real, a fake clip with one real or absent part is fake in the other, and parts that are
    known tell the whole. What does not follow stays unknown. A clip that is labelled fake and both its parts real is a
    genuine picture with genuine sound of something else.

    Args:
        overall, video, audio (`torch.LongTensor` of shape `(batch_size,)`, *optional*): 0, 1 or -100 for unknown.
        has_video, has_audio (`torch.BoolTensor` of shape `(batch_size,)`): Which parts a clip has.

    Raises:
        ValueError: for labels that contradict each other.
    """
    unknown = torch.full_like(has_video, IGNORE_INDEX, dtype=torch.long)
    overall, video, audio = (unknown if part is None else part.long() for part in (overall, video, audio))
    for name, labels in (("labels", overall), ("video_labels", video), ("audio_labels", audio)):
        if not ((labels == REAL) | (labels == FAKE) | (labels == IGNORE_INDEX)).all():
            raise ValueError(
                f"{name} must be 0 (real), 1 (fake) or {IGNORE_INDEX} (unknown), not {labels.tolist()}."
            )
    # An absent part is as good as real for what follows, and has no label in the end.
    video = torch.where(has_video, video, REAL)
    audio = torch.where(has_audio, audio, REAL)
    overall = torch.where(has_video | has_audio, overall, REAL)
    for _ in range(2):
        fake = (video == FAKE) | (audio == FAKE)
        real = (video == REAL) & (audio == REAL)
        impossible = real & (overall == FAKE) & ~(has_video & has_audio)
        if ((fake & (overall == REAL)) | impossible).any():
            raise ValueError(
                f"labels contradict each other: overall {overall.tolist()}, video {video.tolist()}, audio "
                f"{audio.tolist()} (parts that a clip does not have count as real). A clip is fake when a part of it is."
            )
        overall = torch.where(fake, FAKE, torch.where(real & (overall == IGNORE_INDEX), REAL, overall))
        parts = []
        for part, other in ((video, audio), (audio, video)):
            follows = torch.where((overall == FAKE) & (other == REAL) & (part == IGNORE_INDEX), FAKE, part)
            parts.append(torch.where(overall == REAL, REAL, follows))
        video, audio = parts
    return ClipLabels(
        torch.where(has_video | has_audio, overall, IGNORE_INDEX),
        torch.where(has_video, video, IGNORE_INDEX),
        torch.where(has_audio, audio, IGNORE_INDEX),
    )


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy, averaged over the rows whose label is known; 0 where there are none."""
    total = F.cross_entropy(
        logits.float(), labels, ignore_index=IGNORE_INDEX, label_smoothing=smoothing, reduction="sum"
    )
    return total / (labels != IGNORE_INDEX).sum().clamp(min=1)


def verdicts_loss(
    logits: dict[str, torch.Tensor],
    known: ClipLabels,
    complete: torch.Tensor,
    smoothing: float = 0.0,
    video_weight: float = 1.0,
    audio_weight: float = 1.0,
) -> torch.Tensor:
    """
    Sum of the classification losses of the heads that there are.

    Args:
        logits (`dict[str, torch.Tensor]`): `overall`, and with heads of their own `video` and `audio`, each `(batch_size, 2)`.
        known ([`ClipLabels`]): The labels.
        complete (`torch.BoolTensor` of shape `(batch_size,)`):
            Clips with picture and sound. With three heads the joint one answers for those only, and learns from those.
        smoothing (`float`): Label smoothing.
        video_weight, audio_weight (`float`): Weights of the two; the overall one has 1.
    """
    if "video" not in logits:
        return classification_loss(logits["overall"], known.overall, smoothing)
    overall = torch.where(complete, known.overall, IGNORE_INDEX)
    return (
        classification_loss(logits["overall"], overall, smoothing)
        + video_weight * classification_loss(logits["video"], known.video, smoothing)
        + audio_weight * classification_loss(logits["audio"], known.audio, smoothing)
    )


def verdicts_on_what_there_is(
    logits: dict[str, torch.Tensor],
    has_video: torch.Tensor,
    has_audio: torch.Tensor,
    questions: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """
    Verdicts with NaN where there is nothing to judge, or nothing was asked.

    A clip without picture or without sound is judged by the head of what it has, and so is the whole of it. Without
    such heads the joint one answers for every clip that has something.

    Args:
        logits (`dict[str, torch.Tensor]`): As for [`verdicts_loss`].
        has_video, has_audio (`torch.BoolTensor` of shape `(batch_size,)`): Which parts a clip has.
        questions (`torch.Tensor` of shape `(batch_size, 3)`, *optional*): Which of `PARTS` are wanted; all if left out.
    """
    shown = {"overall": has_video | has_audio, "video": has_video, "audio": has_audio}
    overall = logits["overall"]
    if "video" in logits:
        alone = torch.where(has_video[:, None], logits["video"], logits["audio"])
        overall = torch.where((has_video & has_audio)[:, None], overall, alone)
    verdicts = {**logits, "overall": overall}
    for column, name in enumerate(PARTS):
        if name in verdicts:
            rows = shown[name] if questions is None else shown[name] & questions[:, column].bool()
            verdicts[name] = verdicts[name].masked_fill(~rows[:, None], float("nan"))
    return verdicts

"""Inputs, labels, losses and verdicts of the small detectors: SSAVD, AVPL and facevoice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from .configuration_detector import IGNORE_INDEX, PARTS
from .modeling_outputs import AVDetectionOutput

REAL, FAKE = 0, 1


@dataclass
class ClipLabels:
    """
    Labels of a batch of clips and of their parts.

    Args:
        overall, video, audio (`torch.LongTensor` of shape `(batch_size,)`): 0 real, 1 fake, -100 unknown or absent.
    """

    overall: torch.Tensor
    video: torch.Tensor
    audio: torch.Tensor


def check_shapes(inputs: dict[str, tuple[torch.Tensor | None, tuple[int, ...]]], processor: str) -> None:
    """
    Check the shapes of a model's inputs.

    Args:
        inputs (`dict`): For each input by name, the tensor, None if left out, and the shape that the model takes.
        processor (`str`): Name of the model's processor, for the message.

    Raises:
        ValueError: If a shape differs.
    """
    for name, (values, shape) in inputs.items():
        if values is not None and tuple(values.shape) != shape:
            raise ValueError(
                f"{name} has shape {tuple(values.shape)}, and this model takes {shape} here. Prepare clips with "
                f"{processor}.from_config(model.config)."
            )


def normalized(frames: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return frames `(..., 3, H, W)` normalised by mean and deviation (of values in [0, 1]); floats stay as they are."""
    if frames.is_floating_point():
        return frames
    mean, std = (torch.tensor(values, device=frames.device)[:, None, None] for values in (mean, std))
    return torch.addcmul(-mean / std, frames.float(), 1 / (255 * std))


def complete_labels(
    overall: torch.Tensor | None,
    video: torch.Tensor | None,
    audio: torch.Tensor | None,
    has_video: torch.Tensor,
    has_audio: torch.Tensor,
) -> ClipLabels:
    """
    Fill in labels that follow from others: a clip is fake if a part of it is, and real if all its parts are.

    So the parts of a real clip are real, a fake clip with one real or absent part is fake in the other, and the labels of
    both parts give the label of the clip. Labels that do not follow stay unknown. A fake clip with two real parts is
    allowed: a genuine picture with the genuine sound of something else.

    Args:
        overall, video, audio (`torch.LongTensor` of shape `(batch_size,)`, *optional*): 0, 1, or -100 for unknown.
        has_video, has_audio (`torch.BoolTensor` of shape `(batch_size,)`): True for clips with that part.

    Returns:
        [`ClipLabels`]: The labels, -100 for absent parts.

    Raises:
        ValueError: If labels are not 0, 1 or -100, or contradict each other.
    """
    unknown = torch.full_like(has_video, IGNORE_INDEX, dtype=torch.long)
    overall, video, audio = (unknown if part is None else part.long() for part in (overall, video, audio))
    for name, labels in (("labels", overall), ("video_labels", video), ("audio_labels", audio)):
        if not ((labels == REAL) | (labels == FAKE) | (labels == IGNORE_INDEX)).all():
            raise ValueError(
                f"{name} must be 0 (real), 1 (fake) or {IGNORE_INDEX} (unknown), not {labels.tolist()}."
            )
    # An absent part counts as real here, and has no label in the end.
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
    """Return the cross-entropy averaged over the rows with a known label; 0 if there are none."""
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
    Return the weighted sum of the heads' classification losses.

    Args:
        logits (`dict[str, torch.Tensor]`):
            `overall` and, from a model with three heads, `video` and `audio`, each of shape `(batch_size, 2)`.
        known ([`ClipLabels`]): The labels.
        complete (`torch.BoolTensor` of shape `(batch_size,)`):
            Clips with picture and sound. With three heads the joint one judges only those, and learns only from those.
        smoothing (`float`, *optional*, defaults to 0.0): Label smoothing.
        video_weight, audio_weight (`float`, *optional*, default to 1.0): Weights of the two losses; the overall one has 1.
    """
    if "video" not in logits:
        return classification_loss(logits["overall"], known.overall, smoothing)
    overall = torch.where(complete, known.overall, IGNORE_INDEX)
    return (
        classification_loss(logits["overall"], overall, smoothing)
        + video_weight * classification_loss(logits["video"], known.video, smoothing)
        + audio_weight * classification_loss(logits["audio"], known.audio, smoothing)
    )


def masked_verdicts(
    logits: dict[str, torch.Tensor],
    has_video: torch.Tensor,
    has_audio: torch.Tensor,
    questions: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """
    Return the logits with NaN for parts that a clip does not have, and for verdicts that were not requested.

    The verdict on a clip without picture or without sound is that on its other part. Without heads for the parts, the
    joint head judges every clip that has at least one.

    Args:
        logits (`dict[str, torch.Tensor]`): As for [`verdicts_loss`].
        has_video, has_audio (`torch.BoolTensor` of shape `(batch_size,)`): True for clips with that part.
        questions (`torch.Tensor` of shape `(batch_size, 3)`, *optional*): 1 for requested verdicts, of `PARTS`. Defaults to all.
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


def part_verdicts(
    frame_log_odds: torch.Tensor,
    sound_log_odds: torch.Tensor,
    frame_mask: torch.Tensor,
    has_audio: torch.Tensor,
    config: Any,
    questions: torch.Tensor | None = None,
) -> AVDetectionOutput:
    """
    Return the verdicts of a detector that judges frames one by one and the sound by itself.

    The log-odds of the picture are the mean over its frames. Those of both parts are calibrated, and the clip's are the
    larger ones, or those of the only part there is.

    Args:
        frame_log_odds (`torch.FloatTensor` of shape `(batch_size, num_frames)`): Log-odds of fake, before calibration.
        sound_log_odds (`torch.FloatTensor` of shape `(batch_size,)`): Log-odds of fake, before calibration.
        frame_mask (`torch.BoolTensor` of shape `(batch_size, num_frames)`): True for frames.
        has_audio (`torch.BoolTensor` of shape `(batch_size,)`): True for rows with sound to judge.
        config ([`FaceVoiceConfig`]): The calibration: `video_scale`, `video_bias`, `audio_scale` and `audio_bias`.
        questions (`torch.Tensor` of shape `(batch_size, 3)`, *optional*): 1 for requested verdicts. Defaults to all.

    Returns:
        [`AVDetectionOutput`]: The verdicts, and the calibrated log-odds of the frames.
    """
    frames = (config.video_scale * frame_log_odds + config.video_bias).masked_fill(~frame_mask, 0.0)
    video = frames.sum(1) / frame_mask.sum(1).clamp(min=1)
    audio = config.audio_scale * sound_log_odds + config.audio_bias
    parts = {"overall": torch.maximum(video, audio), "video": video, "audio": audio}
    logits = {name: torch.stack([-values / 2, values / 2], dim=-1) for name, values in parts.items()}
    logits = masked_verdicts(logits, frame_mask.any(dim=1), has_audio, questions)
    return AVDetectionOutput(
        logits=logits["overall"],
        video_logits=logits["video"],
        audio_logits=logits["audio"],
        frame_logits=frames.masked_fill(~frame_mask, float("nan")),
    )

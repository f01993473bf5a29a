"""What SSAVD is trained with: labels of mixed clips, and the losses of its multi-modal classification module.

The authors' loss file was never published. The terms are those of their model's code and configuration; the contrastive
one has the form the same authors use elsewhere, the style terms that of SagNet (Nam et al. 2021).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .configuration_detector import IGNORE_INDEX

REAL, FAKE = 0, 1
STYLE_EPS = 1e-6


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


def shuffled_labels(
    video: torch.Tensor, audio: torch.Tensor, order: torch.Tensor, mismatch_is_fake: bool = False
) -> torch.Tensor:
    """
    Labels of picture `i` with the sound of clip `order[i]`: fake when either is.

    Args:
        video, audio (`torch.LongTensor` of shape `(batch_size,)`): As in [`ClipLabels`].
        order (`torch.LongTensor` of shape `(batch_size,)`): A permutation.
        mismatch_is_fake (`bool`): Whether the sound of another clip makes a fake of genuine parts.
    """
    sound = audio[order]
    known = (video != IGNORE_INDEX) & (sound != IGNORE_INDEX)
    labels = torch.where(known, ((video == FAKE) | (sound == FAKE)).long(), IGNORE_INDEX)
    if mismatch_is_fake:
        labels = torch.where(known & (order != torch.arange(len(order), device=order.device)), FAKE, labels)
    return labels


def shuffled_rows(present: torch.Tensor) -> torch.Tensor:
    """A random permutation `(batch_size,)` of the rows that are `present`; the others stay where they are."""
    order = torch.arange(len(present), device=present.device)
    rows = order[present]
    order[rows] = rows[torch.randperm(len(rows), device=rows.device)]
    return order


def change_style(content: torch.Tensor, style: torch.Tensor, share: float | torch.Tensor) -> torch.Tensor:
    """
    Gives features another style: the mean and deviation of every channel over time and space.

    Args:
        content (`torch.Tensor` of shape `(batch_size, channels, ...)`): What is kept but for its style.
        style (`torch.Tensor` of the same shape): Whose style is mixed in.
        share (`float` or `torch.Tensor`): Share of `content`'s own style, in [0, 1].
    """
    dims = tuple(range(2, content.ndim))
    (own_mean, own_deviation), (mean, deviation) = _style(content, dims), _style(style, dims)
    normal = (content - own_mean) / own_deviation
    deviation = share * own_deviation + (1 - share) * deviation
    return normal * deviation + share * own_mean + (1 - share) * mean


def _style(features: torch.Tensor, dims: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    mean = features.mean(dims, keepdim=True)
    return mean, ((features - mean).square().mean(dims, keepdim=True) + STYLE_EPS).sqrt()


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy, averaged over the rows whose label is known; 0 where there are none."""
    total = F.cross_entropy(
        logits.float(), labels, ignore_index=IGNORE_INDEX, label_smoothing=smoothing, reduction="sum"
    )
    return total / (labels != IGNORE_INDEX).sum().clamp(min=1)


def uniform_loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with equally likely labels, averaged over `rows` (bool); least where the logits tell nothing."""
    each = -F.log_softmax(logits.float(), dim=-1).mean(dim=-1)
    return torch.where(rows, each, 0.0).sum() / rows.sum().clamp(min=1)


def contrastive_loss(features: torch.Tensor, labels: torch.Tensor, margin: float) -> torch.Tensor:
    """
    Pulls features of one label together and pushes those of different labels apart.

    `1/N^2 sum_ij (1 - cos_ij` where the labels are equal, `max(cos_ij - margin, 0)` elsewhere`)`, over the `N` rows whose
    label is known; 0 where there are none.

    Args:
        features (`torch.Tensor` of shape `(batch_size, width)`): Features.
        labels (`torch.LongTensor` of shape `(batch_size,)`): 0, 1 or -100.
        margin (`float`): Cosine similarity that different labels may have.
    """
    known = labels != IGNORE_INDEX
    unit = F.normalize(features.float(), dim=-1)
    cosine = unit @ unit.T
    equal = labels[:, None] == labels[None, :]
    each = torch.where(equal, 1 - cosine, (cosine - margin).clamp(min=0))
    pairs = known[:, None] & known[None, :]
    return torch.where(pairs, each, 0.0).sum() / known.sum().clamp(min=1).square()

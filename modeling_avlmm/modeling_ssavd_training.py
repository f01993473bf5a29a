"""The training losses of SSAVD and the labels of mixed clips.

The authors' loss file was never published. The terms are those in their model's code and configuration; the contrastive
loss has the form that the same authors use elsewhere, the style losses have that of SagNet (Nam et al. 2021).
"""

import torch
import torch.nn.functional as F

from .configuration_detector import IGNORE_INDEX
from .modeling_verdicts import FAKE

STYLE_EPS = 1e-6


def shuffled_labels(
    video: torch.Tensor, audio: torch.Tensor, order: torch.Tensor, mismatch_is_fake: bool = False
) -> torch.Tensor:
    """
    Return the labels of picture `i` with the sound of clip `order[i]`: fake if either is.

    Args:
        video, audio (`torch.LongTensor` of shape `(batch_size,)`): Labels as in [`ClipLabels`].
        order (`torch.LongTensor` of shape `(batch_size,)`): A permutation.
        mismatch_is_fake (`bool`, *optional*, defaults to `False`): Call genuine parts of different clips fake.
    """
    sound = audio[order]
    known = (video != IGNORE_INDEX) & (sound != IGNORE_INDEX)
    labels = torch.where(known, ((video == FAKE) | (sound == FAKE)).long(), IGNORE_INDEX)
    if mismatch_is_fake:
        labels = torch.where(known & (order != torch.arange(len(order), device=order.device)), FAKE, labels)
    return labels


def shuffled_rows(present: torch.Tensor) -> torch.Tensor:
    """Return a random permutation `(batch_size,)` of the rows that are `present`; the others stay in place."""
    order = torch.arange(len(present), device=present.device)
    rows = order[present]
    order[rows] = rows[torch.randperm(len(rows), device=rows.device)]
    return order


def change_style(content: torch.Tensor, style: torch.Tensor, share: float | torch.Tensor) -> torch.Tensor:
    """
    Return features with another style: the mean and deviation of every channel over time and space.

    Args:
        content (`torch.Tensor` of shape `(batch_size, channels, ...)`): The features.
        style (`torch.Tensor` of the same shape): Features whose style is mixed in.
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


def uniform_loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy with equally likely labels, averaged over `rows` (bool); lowest for equal logits."""
    each = -F.log_softmax(logits.float(), dim=-1).mean(dim=-1)
    return torch.where(rows, each, 0.0).sum() / rows.sum().clamp(min=1)


def contrastive_loss(features: torch.Tensor, labels: torch.Tensor, margin: float) -> torch.Tensor:
    """
    Return the contrastive loss, which pulls features of one label together and pushes those of different labels apart.

    It is `1/N^2 sum_ij l_ij` over the `N` rows with a known label, with `l_ij = 1 - cos_ij` for equal labels and
    `max(cos_ij - margin, 0)` for different ones; 0 if there are no such rows.

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

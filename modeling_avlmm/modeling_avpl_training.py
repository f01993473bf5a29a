"""What AVPL is trained with beside classification: the frame-level cross-modal feature matching loss."""

import torch
import torch.nn.functional as F

from .modeling_verdicts import FAKE, REAL


def matching_loss(
    seen: torch.Tensor,
    heard: torch.Tensor,
    times: torch.Tensor,
    matched: torch.Tensor,
    labels: torch.Tensor,
    distinct: torch.Tensor | None = None,
    margin: float = 0.0,
    shift_seconds: float = 0.2,
    temperature: float = 0.1,
) -> torch.Tensor:
    """
    Frame-level cross-modal feature matching (CMFM): what is seen and heard at the same time lies together in genuine
    clips, and nowhere else.

    With `c(i, t, j, s)` the cosine of frame `t` of clip `i` and the sound at frame `s` of clip `j`, it is the sum of

    - pull: `1 - c(i, t, i, t)` over the frames of genuine clips,
    - push: `max(0, c(i, t, i, t) - margin)` over those of forged clips, whichever part is forged, and
    - contrast: `log(1 + sum exp((c(i, t, j, s) - c(i, t, i, t)) / temperature))` over the frames of genuine clips, the sum
      over the sound of the same clip at least `shift_seconds` away and that of all frames of other genuine clips; and
      likewise for the sound of a frame among pictures, of which it is the mean.

    Each is averaged over its own frames (contrast: those that have something to be told from), and 0 where there are none.
    Clips whose overall label is unknown, and frames without sound, are in no pair.

    AVPL (AAAI 2025) publishes the idea of a frame-level matching loss that uses the natural alignment of genuine clips,
    not its formula. Pull of same-time genuine pairs and push of forged and of other clips' pairs are also in a third
    party's reading of it (with weights 2, 2, 1, and whole clips instead of frames between clips). The softmax of the third
    term (InfoNCE, van den Oord et al. 2018), shifted pairs, equal weights, and leaving forged clips out of the pairs between
    clips (a forgery may have the very sound of the genuine clip it was made from) are our own choice. Margins in place of the
    contrast learned time in some runs on toy clips and not in others (docs/lab-log.md); on real clips neither was compared.

    Args:
        seen, heard (`torch.Tensor` of shape `(batch_size, num_frames, width)`): Aligned features, any length.
        times (`torch.FloatTensor` of shape `(batch_size, num_frames)`): Of the frames, seconds.
        matched (`torch.BoolTensor` of shape `(batch_size, num_frames)`): Frames with a picture and sound.
        labels (`torch.LongTensor` of shape `(batch_size,)`): Overall: 0 genuine, 1 forged, -100 unknown.
        distinct (`torch.BoolTensor` of shape `(batch_size, batch_size)`, *optional*):
            Which clips are not the same recording, which may be in a batch twice; all different rows if left out.
        margin (`float`): Cosine similarity that what does not match may have.
        shift_seconds (`float`): Seconds from which on sound is another moment's.
        temperature (`float`): Of the contrast.
    """
    clips = len(matched)
    seen, heard = F.normalize(seen.float(), dim=-1), F.normalize(heard.float(), dim=-1)
    cosine = torch.einsum("itd,jsd->itjs", seen, heard)
    own = torch.einsum("itit->it", cosine)
    genuine, forged = (matched & (labels == label)[:, None] for label in (REAL, FAKE))
    loss = _mean(1 - own, genuine) + _mean((own - margin).clamp(min=0), forged)

    other = ~torch.eye(clips, dtype=torch.bool, device=seen.device)
    if distinct is not None:
        other = other & distinct
    shifted = (times[:, :, None] - times[:, None, :]).abs() >= shift_seconds - 1e-6
    same = torch.eye(clips, dtype=torch.bool, device=seen.device)[:, None, :, None]
    apart = torch.where(same, shifted[:, :, None, :], other[:, None, :, None])
    apart = apart & genuine[:, :, None, None] & genuine[None, None]
    for pairs, cosines in ((apart, cosine), (apart.permute(2, 3, 0, 1), cosine.permute(2, 3, 0, 1))):
        ahead = (
            ((cosines - own[:, :, None, None]) / temperature).masked_fill(~pairs, float("-inf")).flatten(2)
        )
        # The zero beside them is the pair itself.
        each = torch.cat([ahead, torch.zeros_like(ahead[..., :1])], dim=-1).logsumexp(dim=-1)
        loss = loss + _mean(each, pairs.flatten(2).any(dim=-1)) / 2
    return loss


def _mean(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    return torch.where(chosen, values, 0.0).sum() / chosen.sum().clamp(min=1)


def distinct_sounds(input_features: torch.Tensor, audio_mask: torch.Tensor) -> torch.Tensor:
    """Which clips of a batch have different sound, `(batch_size, batch_size)`: the same draw may be in it twice."""
    marked = torch.cat([input_features.flatten(1), audio_mask.to(input_features.dtype)], dim=1)
    return torch.stack([(marked != row).any(dim=1) for row in marked])


def disagreement(
    seen: torch.Tensor, heard: torch.Tensor, matched: torch.Tensor, margin: float = 0.0
) -> torch.Tensor:
    """
    How little each frame matches its sound, on the scale of [`matching_loss`]: 0 where a genuine pair is pulled to, 1 from
    where others are pushed to. `(1 - cos) / (1 - margin)`, at most 1. (The published use of the features is for the verdict
    only; the score is our own.)

    Args:
        seen, heard, matched, margin: As for [`matching_loss`].

    Returns:
        `torch.FloatTensor` of shape `(batch_size, num_frames)`, in [0, 1]; NaN where `matched` is False.
    """
    cosine = F.cosine_similarity(seen.float(), heard.float(), dim=-1)
    return ((1 - cosine) / (1 - margin)).clamp(0, 1).masked_fill(~matched, float("nan"))

"""The frame-level cross-modal feature matching loss of AVPL, and the disagreement score in its terms."""

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
    Frame-level cross-modal feature matching (CMFM): in genuine clips, picture and sound of the same time lie together;
    all other pairs lie apart.

    With `c(i, t, j, s)` the cosine of frame `t` of clip `i` and the sound at frame `s` of clip `j`, it is the sum of

    - pull: `1 - c(i, t, i, t)` over the frames of genuine clips,
    - push: `max(0, c(i, t, i, t) - margin)` over the frames of forged clips, whichever part is forged, and
    - contrast: `log(1 + sum exp((c(i, t, j, s) - c(i, t, i, t)) / temperature))` over the frames of genuine clips. The sum
      runs over the sound of the same clip at least `shift_seconds` away and over the sound of other genuine clips. The
      contrast is the mean of this and of the same for a frame's sound among pictures.

    Each term is averaged over its own frames (contrast: frames with at least one other pair), and 0 if there are none.
    Clips with an unknown overall label and frames without sound are in no pair.

    AVPL (AAAI 2025) publishes the idea of a frame-level matching loss that uses the natural alignment of genuine clips, but
    no formula. A third party's reading also pulls same-time genuine pairs and pushes forged pairs and those of other clips
    (with weights 2, 2, 1, and whole clips instead of frames between clips). Our own choices are the softmax of the third
    term (InfoNCE, van den Oord et al. 2018), shifted pairs, equal weights, and no forged clips in pairs between clips: a
    forgery may have the very sound of its genuine source. Margins in place of the contrast learned time in only some runs
    on toy clips (docs/lab-log.md); on real clips the two were not compared.

    Args:
        seen, heard (`torch.Tensor` of shape `(batch_size, num_frames, width)`): Aligned features of any length.
        times (`torch.FloatTensor` of shape `(batch_size, num_frames)`): Times of the frames in seconds.
        matched (`torch.BoolTensor` of shape `(batch_size, num_frames)`): True for frames with picture and sound.
        labels (`torch.LongTensor` of shape `(batch_size,)`): Overall labels: 0 genuine, 1 forged, -100 unknown.
        distinct (`torch.BoolTensor` of shape `(batch_size, batch_size)`, *optional*):
            False for clips that are the same recording, which may be in a batch twice. Defaults to True for all.
        margin (`float`, *optional*, defaults to 0.0): Cosine similarity that forged pairs may have.
        shift_seconds (`float`, *optional*, defaults to 0.2): Distance in time from which on sound is another moment's.
        temperature (`float`, *optional*, defaults to 0.1): Temperature of the contrast.

    Returns:
        `torch.Tensor`: The loss, a scalar.
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
        # The added zero is the pair itself.
        each = torch.cat([ahead, torch.zeros_like(ahead[..., :1])], dim=-1).logsumexp(dim=-1)
        loss = loss + _mean(each, pairs.flatten(2).any(dim=-1)) / 2
    return loss


def _mean(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    return torch.where(chosen, values, 0.0).sum() / chosen.sum().clamp(min=1)


def distinct_sounds(input_features: torch.Tensor, audio_mask: torch.Tensor) -> torch.Tensor:
    """Return True for pairs of clips with different sound, `(batch_size, batch_size)`: one clip may be in a batch twice."""
    marked = torch.cat([input_features.flatten(1), audio_mask.to(input_features.dtype)], dim=1)
    return torch.stack([(marked != row).any(dim=1) for row in marked])


def disagreement(
    seen: torch.Tensor, heard: torch.Tensor, matched: torch.Tensor, margin: float = 0.0
) -> torch.Tensor:
    """
    Return each frame's disagreement with its sound, on the scale of [`matching_loss`].

    It is `(1 - cos) / (1 - margin)`, at most 1: 0 where the loss pulls genuine pairs to, 1 where it pushes others to. (The
    paper uses the features for the verdict only; this score is our own.)

    Args:
        seen, heard, matched, margin: As for [`matching_loss`].

    Returns:
        `torch.FloatTensor` of shape `(batch_size, num_frames)`: Values in [0, 1]; NaN where `matched` is False.
    """
    cosine = F.cosine_similarity(seen.float(), heard.float(), dim=-1)
    return ((1 - cosine) / (1 - margin)).clamp(0, 1).masked_fill(~matched, float("nan"))

"""Attention over sequences of different lengths in one row, without padding and without a loop over them.

`transformers` calls `scaled_dot_product_attention` for every window of a picture and every two seconds of sound, in every
layer: some 70 calls a layer for a clip of 8 s. Here all sequences of one length are one call. The language model works in
the same way on rows that are joined without padding. Results equal those of the stock attention up to the order of sums;
nothing is approximated.

Both are registered in the attention interface of `transformers` and replace `sdpa` only. `eager` and `flash_attention_2`
stay available.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ENCODER_ATTENTION = "flash_windows_sdpa"
"""Name of the encoders' attention. Because of the `flash` in it, encoders pass whole rows and the ends of windows."""

TEXT_ATTENTION = "packed_sdpa"
"""Name of the language model's attention; it is `sdpa` without packed rows."""


@dataclass(frozen=True)
class Group:
    """
    Equally long sequences of a row, which are one call.

    Args:
        length (`int`): Tokens of each sequence.
        places (`slice` or `torch.LongTensor`): Positions of their tokens in the row.
        tail (`tuple[int, ...]`): The question of each of the last tokens; empty if the whole sequence is causal.
    """

    length: int
    places: slice | torch.Tensor
    tail: tuple[int, ...] = ()


@dataclass(frozen=True)
class PackedRows:
    """
    The sequences that follow one another in a row.

    Args:
        groups (`Sequence[Group]`): The sequences, grouped by length and tail.
        order (`torch.LongTensor`, *optional*): Index that puts tokens in group order back in their places.
        masks (`dict`): Masks of the groups' questions, made once for all layers.
    """

    groups: Sequence[Group]
    order: torch.Tensor | None
    masks: dict = field(default_factory=dict)

    @classmethod
    def of(
        cls, lengths: Sequence[int], device: torch.device, tails: Sequence[tuple[int, ...]] | None = None
    ) -> "PackedRows":
        """
        Group the sequences of a row.

        Args:
            lengths (`Sequence[int]`): Tokens of each sequence, in order.
            device (`torch.device`): Device of the row.
            tails (`Sequence[tuple[int, ...]]`, *optional*): Tail of each sequence, see [`Group`].
        """
        tails = tails if tails is not None else [()] * len(lengths)
        starts, start = {}, 0
        for length, tail in zip(lengths, tails, strict=True):
            if length:
                starts.setdefault((length, tail), []).append(start)
            start += length
        groups, ordered = [], True
        end = 0
        for (length, tail), begins in starts.items():
            together = begins[-1] - begins[0] == length * (len(begins) - 1)
            if together:
                places = slice(begins[0], begins[-1] + length)
            else:
                places = (torch.tensor(begins)[:, None] + torch.arange(length)).flatten().to(device)
            ordered = ordered and together and begins[0] == end
            end = begins[-1] + length
            groups.append(Group(length, places, tail))
        order = None
        if not ordered:
            everywhere = torch.arange(start, device=device)
            order = torch.cat([everywhere[group.places] for group in groups]).argsort()
        return cls(groups, order)

    def mask(self, group: Group, device: torch.device) -> torch.Tensor:
        """Return the mask of a group's tail, `(1, 1, len(tail), length)`: its tokens see the clip and their own question."""
        key = (group.length, group.tail, device)
        if key not in self.masks:
            tail = torch.tensor(group.tail)
            own = ((tail[None, :] == 0) | (tail[None, :] == tail[:, None])).tril()
            clip = torch.ones(len(tail), group.length - len(tail), dtype=torch.bool)
            self.masks[key] = torch.cat([clip, own], dim=1)[None, None].to(device)
        return self.masks[key]

    def window_mask(self, group: Group, window: int, device: torch.device) -> torch.Tensor:
        """
        Return the mask of a group's sequences in a layer of limited reach, `(1, 1, length, length)`.

        A token sees itself and the `window - 1` tokens before it. A question's tokens are as far from the clip as if it were
        the only one.
        """
        key = (group.length, group.tail, device, window)
        if key not in self.masks:
            owner = torch.tensor([0] * (group.length - len(group.tail)) + list(group.tail))
            place, seen = torch.arange(group.length), {}
            for index, question in enumerate(group.tail, start=group.length - len(group.tail)):
                place[index] = group.length - len(group.tail) + seen.get(question, 0)
                seen[question] = seen.get(question, 0) + 1
            own = (owner[None, :] == 0) | (owner[None, :] == owner[:, None])
            near = place[:, None] - place[None, :] < window
            self.masks[key] = (own & near).tril()[None, None].to(device)
        return self.masks[key]


def windowed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """
    Compute the attention of an encoder: every token sees its whole window.

    Args:
        module (`nn.Module`): The attention module.
        query, key, value (`torch.Tensor` of shape `(1, heads, tokens, width)`): The row.
        attention_mask (`torch.Tensor`, *optional*): Mask for calls without windows.
        cu_seq_lens_q (`torch.Tensor` of shape `(windows + 1,)`, *optional*): Boundaries of the windows.

    Returns:
        `torch.Tensor` of shape `(1, tokens, heads, width)`, and None.
    """
    kept = {name: kwargs[name] for name in ("dropout", "scaling", "is_causal") if name in kwargs}
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kept)
    # All layers of a pass get the same tensor, so the lengths are copied from the device once.
    rows = getattr(cu_seq_lens_q, "packed_rows", None)
    if rows is None:
        rows = PackedRows.of(cu_seq_lens_q.diff().tolist(), query.device)
        cu_seq_lens_q.packed_rows = rows
    return _by_groups(module, query, key, value, rows, kept), None


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packed_rows: PackedRows | None = None,
    sliding_window: int | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """
    Compute the attention of the language model: causal in each sequence of the row, and questions do not see one another.

    Args:
        module (`nn.Module`): The attention module.
        query, key, value (`torch.Tensor` of shape `(1, heads, tokens, width)`): The row.
        attention_mask (`torch.Tensor`, *optional*): Mask for calls without `packed_rows`, which are `sdpa`.
        packed_rows ([`PackedRows`], *optional*): The sequences.
        sliding_window (`int`, *optional*): Tokens that a token of this layer sees, itself included; all if left out.

    Returns:
        `torch.Tensor` of shape `(1, tokens, heads, width)`, and None.
    """
    if packed_rows is None:
        kwargs["sliding_window"] = sliding_window
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    kept = {name: kwargs[name] for name in ("dropout", "scaling") if name in kwargs}
    options = {**kept, "is_causal": True}
    return _by_groups(module, query, key, value, packed_rows, options, sliding_window), None


def _by_groups(
    module, query, key, value, rows: PackedRows, options: dict, window: int | None = None
) -> torch.Tensor:
    # To tokens first, the order in memory in which they were computed: a view.
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    results = []
    for group in rows.groups:
        # Layers may be on several devices.
        places = group.places if isinstance(group.places, slice) else group.places.to(query.device)
        q, k, v = (
            states[places].unflatten(0, (-1, group.length)).transpose(1, 2) for states in (query, key, value)
        )
        if window is not None and group.length > window:
            mask = rows.window_mask(group, window, q.device)
            out = sdpa_attention_forward(module, q, k, v, mask, **{**options, "is_causal": False})[0]
        elif not group.tail:
            out = sdpa_attention_forward(module, q, k, v, None, **options)[0]
        else:
            # Two calls: the clip needs no mask and gets the fastest kernel; the questions are short.
            clip = group.length - len(group.tail)
            first = sdpa_attention_forward(
                module, q[:, :, :clip], k[:, :, :clip], v[:, :, :clip], None, **options
            )[0]
            mask = rows.mask(group, q.device)
            second = sdpa_attention_forward(
                module, q[:, :, clip:], k, v, mask, **{**options, "is_causal": False}
            )[0]
            out = torch.cat([first, second], dim=1)
        results.append(out.flatten(0, 1))
    result = results[0] if len(results) == 1 else torch.cat(results)
    return (result if rows.order is None else result[rows.order.to(result.device)])[None]


def pack_rows(
    attention_mask: torch.Tensor, question_ids: torch.Tensor | None = None
) -> tuple[torch.Tensor, PackedRows]:
    """
    Join the rows of a padded batch to one row without padding.

    Args:
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`): 1 for tokens, 0 for padding.
        question_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
            0 for the clip, k for question k; see [`AVLMMForDeepfakeDetection.forward`].

    Returns:
        `tuple`: The mask of tokens, `torch.BoolTensor` of shape `(batch_size, sequence_length)`, with which `states[mask]`
        is the row; and its [`PackedRows`].
    """
    tokens = attention_mask.bool()
    if question_ids is None:
        return tokens, PackedRows.of(tokens.sum(1).tolist(), tokens.device)
    host, owners = tokens.cpu(), question_ids.cpu()
    tails = []
    for row, owner in zip(host, owners, strict=True):
        owner = owner[row]
        asked = owner.nonzero()
        tail = owner[int(asked[0]) :].tolist() if len(asked) else []
        # A single question sees everything before it: causal.
        tails.append(tuple(tail) if len(set(tail)) > 1 else ())
    return tokens, PackedRows.of(host.sum(1).tolist(), tokens.device, tails)


def attend_in_groups(language_model: nn.Module, encoders: Sequence[nn.Module]) -> None:
    """Switch those parts of a thinker whose attention is `sdpa` to the attentions of this file."""
    if language_model.config._attn_implementation == "sdpa":
        language_model.config._attn_implementation = TEXT_ATTENTION
    for encoder in encoders:
        shared = encoder.config
        if shared._attn_implementation == "sdpa":
            # On a copy: a model built from the shared configuration would look for a kernel of this name.
            own = copy.deepcopy(shared)
            own._attn_implementation = ENCODER_ATTENTION
            for module in encoder.modules():
                if getattr(module, "config", None) is shared:
                    module.config = own


def question_mask(
    attention_mask: torch.Tensor,
    question_ids: torch.Tensor,
    dtype: torch.dtype,
    positions: torch.Tensor | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """
    Return an additive attention mask with which each question sees the clip and itself, but no other question.

    Args:
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`): 1 for tokens, 0 for padding.
        question_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`): 0 for the clip, k for question k.
        dtype (`torch.dtype`): Type of the attention scores.
        positions (`torch.Tensor` of shape `(batch_size, sequence_length)`), window (`int`, *optional*):
            Places in the text, and the number of them that a token sees, itself included; all if left out.

    Returns:
        `torch.Tensor` of shape `(batch_size, 1, sequence_length, sequence_length)`: 0 for visible tokens, the type's
        lowest value for others.
    """
    length = question_ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=question_ids.device).tril()
    shared = question_ids[:, None, :] == 0
    same = question_ids[:, None, :] == question_ids[:, :, None]
    seen = causal & (shared | same) & attention_mask[:, None, :].bool()
    if window is not None:
        seen &= positions[:, :, None] - positions[:, None, :] < window
    # A padding token that sees nothing would give 0 / 0.
    seen |= torch.eye(length, dtype=torch.bool, device=seen.device)
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


AttentionInterface.register(ENCODER_ATTENTION, windowed_attention)
AttentionInterface.register(TEXT_ATTENTION, packed_attention)
AttentionMaskInterface.register(TEXT_ATTENTION, sdpa_mask)

"""Attention over sequences of different lengths that lie one after another in a row, without padding and without loops.

`transformers` calls `scaled_dot_product_attention` once for every window of a picture and every two seconds of sound, in
every layer: some 70 calls a layer for a clip of 8 s. Here sequences of one length are one call. The same holds for the
language model, whose rows are joined without the padding between them. Results are those of the stock attention up to the
order of sums; nothing is approximated.

Both come in through the attention interface of `transformers`, and only where the attention was `sdpa`. Whoever asks for
`eager` or `flash_attention_2` gets that.
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
"""Name of the encoders' attention. With `flash` in it, encoders hand over whole rows and where their windows end."""

TEXT_ATTENTION = "packed_sdpa"
"""Name of the language model's attention. Without packed rows it is `sdpa`."""


@dataclass(frozen=True)
class Group:
    """
    Sequences of a row that are alike, and so one call.

    Args:
        length (`int`): Tokens of each.
        places (`slice` or `torch.LongTensor`): Where all their tokens are in the row.
        tail (`tuple[int, ...]`): Which question each of the last tokens belongs to; empty where all is causal.
    """

    length: int
    places: slice | torch.Tensor
    tail: tuple[int, ...] = ()


@dataclass(frozen=True)
class PackedRows:
    """
    Which sequences lie in a row, one after another.

    Args:
        groups (`Sequence[Group]`): The sequences, those alike together.
        order (`torch.LongTensor`, *optional*): Brings tokens from group after group back to where they were.
        masks (`dict`): The masks of the groups' questions, made once for all layers.
    """

    groups: Sequence[Group]
    order: torch.Tensor | None
    masks: dict = field(default_factory=dict)

    @classmethod
    def of(
        cls, lengths: Sequence[int], device: torch.device, tails: Sequence[tuple[int, ...]] | None = None
    ) -> "PackedRows":
        """
        Args:
            lengths (`Sequence[int]`): Tokens of each sequence, in order.
            device (`torch.device`): Where the row is.
            tails (`Sequence[tuple[int, ...]]`, *optional*): Per sequence, see [`Group`].
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
        """What the tokens of a group's tail see, shape `(1, 1, len(tail), length)`: the clip and their own question."""
        key = (group.length, group.tail, device)
        if key not in self.masks:
            tail = torch.tensor(group.tail)
            own = ((tail[None, :] == 0) | (tail[None, :] == tail[:, None])).tril()
            clip = torch.ones(len(tail), group.length - len(tail), dtype=torch.bool)
            self.masks[key] = torch.cat([clip, own], dim=1)[None, None].to(device)
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
    Attention of an encoder: every token sees all of its own window.

    Args:
        module (`nn.Module`): The attention module.
        query, key, value (`torch.Tensor` of shape `(1, heads, tokens, width)`): The row.
        attention_mask (`torch.Tensor`, *optional*): For calls without windows.
        cu_seq_lens_q (`torch.Tensor` of shape `(windows + 1,)`, *optional*): Where windows begin and end.

    Returns:
        `torch.Tensor` of shape `(1, tokens, heads, width)`, and None.
    """
    kept = {name: kwargs[name] for name in ("dropout", "scaling", "is_causal") if name in kwargs}
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kept)
    # Every layer of a pass gets the same tensor: its lengths are brought from the device once.
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
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """
    Attention of the language model: causal within each sequence of the row, and questions do not see one another.

    Args:
        module (`nn.Module`): The attention module.
        query, key, value (`torch.Tensor` of shape `(1, heads, tokens, width)`): The row.
        attention_mask (`torch.Tensor`, *optional*): For calls without `packed_rows`, which are `sdpa`.
        packed_rows ([`PackedRows`], *optional*): The sequences.

    Returns:
        `torch.Tensor` of shape `(1, tokens, heads, width)`, and None.
    """
    if packed_rows is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    kept = {name: kwargs[name] for name in ("dropout", "scaling") if name in kwargs}
    return _by_groups(module, query, key, value, packed_rows, {**kept, "is_causal": True}), None


def _by_groups(module, query, key, value, rows: PackedRows, options: dict) -> torch.Tensor:
    # From (1, heads, tokens, width) to tokens first, which is how they were computed and costs nothing.
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    results = []
    for group in rows.groups:
        # Layers may be on several devices.
        places = group.places if isinstance(group.places, slice) else group.places.to(query.device)
        q, k, v = (
            states[places].unflatten(0, (-1, group.length)).transpose(1, 2) for states in (query, key, value)
        )
        if not group.tail:
            out = sdpa_attention_forward(module, q, k, v, None, **options)[0]
        else:
            # Two calls: the clip needs no mask, so that the quickest kernel runs, and the questions are short.
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
    Joins the rows of a padded batch to one row without padding.

    Args:
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`): 1 for tokens, 0 for padding.
        question_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
            0 for the clip, k for question k; see [`AVLMMForDeepfakeDetection.forward`].

    Returns:
        `torch.BoolTensor` of shape `(batch_size, sequence_length)`: the tokens, which `states[mask]` joins; and the
        [`PackedRows`] that they form.
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
        # One question alone sees all that came before it: causal.
        tails.append(tuple(tail) if len(set(tail)) > 1 else ())
    return tokens, PackedRows.of(host.sum(1).tolist(), tokens.device, tails)


def attend_in_groups(language_model: nn.Module, encoders: Sequence[nn.Module]) -> None:
    """Switches modules of a thinker whose attention is `sdpa` to the attentions of this file."""
    if language_model.config._attn_implementation == "sdpa":
        language_model.config._attn_implementation = TEXT_ATTENTION
    for encoder in encoders:
        shared = encoder.config
        if shared._attn_implementation == "sdpa":
            # A configuration of the encoder's own: a model built from the shared one would look for a kernel of that name.
            own = copy.deepcopy(shared)
            own._attn_implementation = ENCODER_ATTENTION
            for module in encoder.modules():
                if getattr(module, "config", None) is shared:
                    module.config = own


def packs(language_model: nn.Module) -> bool:
    """Whether a language model takes packed rows."""
    config = language_model.config
    return config._attn_implementation == TEXT_ATTENTION and set(config.layer_types) == {"full_attention"}


AttentionInterface.register(ENCODER_ATTENTION, windowed_attention)
AttentionInterface.register(TEXT_ATTENTION, packed_attention)
AttentionMaskInterface.register(TEXT_ATTENTION, sdpa_mask)

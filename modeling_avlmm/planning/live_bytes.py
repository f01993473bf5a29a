"""The bytes that a pass of a model needs, counted on tensors without values.

The real classes run at their real size under `FakeTensorMode`, and every storage is counted from the operation that makes
it to the moment it is freed: weights, gradients, optimiser states, activations kept for the backward pass, recomputed
activations, masks, autocast copies of weights. Nothing is estimated from formulas.

Not counted are buffers inside single operations, fragments of the caching allocator, and the driver's own memory: see
[`HEADROOM_SHARE`]. Attention is that of PyTorch's fused CPU kernel, which keeps what a GPU's fused kernels keep.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

GIB = 1024**3
HEADROOM_SHARE, HEADROOM_GIB = 0.05, 1.0
"""Our own choice of headroom above the prediction: for fragments of the caching allocator, and for the driver's context with
the libraries' workspaces."""
ADAMW_BYTES = 8
"""AdamW's two moments of a weight, in float32."""

_aten = torch.ops.aten
_INDEXING = {
    _aten.index.Tensor,
    _aten._unsafe_index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
}


@dataclass(frozen=True)
class MemoryNeed:
    """
    The bytes in use at the moment when most are.

    Args:
        weights (`int`): All weights and buffers.
        optimizer (`int`): AdamW's moments.
        gradients (`int`): Gradients that exist at that moment.
        activations (`int`): Everything else: inputs, what is kept for the backward pass, results of single operations.
        trained (`int`): Number of weights that train.
        all_weights (`int`): Number of weights.
    """

    weights: int
    optimizer: int
    gradients: int
    activations: int
    trained: int
    all_weights: int

    @property
    def total(self) -> int:
        """All bytes in use."""
        return self.weights + self.optimizer + self.gradients + self.activations

    @property
    def needed(self) -> float:
        """Bytes that a device must have: the total with headroom."""
        return self.total * (1 + HEADROOM_SHARE) + HEADROOM_GIB * GIB


class LiveBytes(TorchDispatchMode):
    """
    Count the bytes of all live storages, as operations make them and as they are freed.

    Boolean masks are turned into indices, because a tensor without values cannot know how many entries a mask selects.

    Args:
        known (`Iterator[torch.Tensor]`): Tensors that are counted elsewhere.

    Attributes:
        now, peak (`int`): Live bytes, and the most there were.
        gradients, gradients_at_peak (`int`): The part of them that is gradients of a model's weights, see `watch`.
    """

    def __init__(self, known: Iterator[torch.Tensor] = ()):
        super().__init__()
        self.now = self.peak = self.gradients = self.gradients_at_peak = 0
        self._references: dict[int, weakref.ref] = {}
        self._known = [tensor.untyped_storage() for tensor in known]  # kept, so that no address is used twice
        self._addresses = {storage._cdata for storage in self._known}

    def watch(self, model: nn.Module) -> None:
        """Tell gradients of a model's weights, existing and future ones, from other tensors."""

        def arrived(weight: nn.Parameter) -> None:
            # Another pass adds to the one that is there.
            if id(weight) not in there:
                there.add(id(weight))
                self.gradients += weight.grad.untyped_storage().nbytes()

        there: set[int] = set()
        for weight in model.parameters():
            if weight.requires_grad:
                if weight.grad is not None:
                    self.count(weight.grad)
                    arrived(weight)
                weight.register_post_accumulate_grad_hook(arrived)

    def count(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage until it is freed, once."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._addresses or address in self._references:
            return
        size = storage.nbytes()

        def freed(_, address=address, size=size):
            self.now -= size
            del self._references[address]

        self._references[address] = weakref.ref(storage, freed)
        self.now += size
        if self.now > self.peak:
            self.peak, self.gradients_at_peak = self.now, self.gradients

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in _INDEXING:
            args = (args[0], _without_masks(args[1]), *args[2:])
        result = func(*args, **(kwargs or {}))
        for leaf in result if isinstance(result, tuple | list) else (result,):
            if isinstance(leaf, torch.Tensor):
                self.count(leaf)
        return result


def _without_masks(indices: list[torch.Tensor | None]) -> list[torch.Tensor | None]:
    found = []
    for index in indices:
        if index is not None and index.dtype == torch.bool and not isinstance(index, FakeTensor):
            found += index.nonzero(as_tuple=True)
        else:
            found.append(index)
    return found


def without_values(model: nn.Module, fake: FakeTensorMode) -> nn.Module:
    """Give a model on the meta device weights and buffers of the CPU that have no values."""
    made: dict[int, torch.Tensor] = {}

    def place(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            with fake:
                empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            made[id(tensor)] = (
                nn.Parameter(empty, requires_grad=tensor.requires_grad)
                if isinstance(tensor, nn.Parameter)
                else empty
            )
        return made[id(tensor)]

    for module in model.modules():
        for kept in (module._parameters, module._buffers):
            for name, tensor in kept.items():
                if tensor is not None:
                    kept[name] = place(tensor)
    return model


@dataclass(frozen=True)
class Pass:
    """
    A kind of pass over a batch.

    Args:
        trains (`bool`): Whether it goes backward, too.
        autocast (`bool`): Whether it computes in bfloat16, as the trainer does.
        accumulates (`bool`): Whether gradients of an earlier pass exist, as with gradient accumulation.
        processes (`int`): More than one keep a second copy of the gradients, to exchange them (DDP).
    """

    trains: bool
    autocast: bool = False
    accumulates: bool = False
    processes: int = 1


def memory_need(model: nn.Module, batch: dict[str, torch.Tensor], kind: Pass) -> MemoryNeed:
    """
    Return the memory of a pass, and of the optimiser's step after it.

    Args:
        model (`nn.Module`): The model as it trains or scores, with weights without values ([`without_values`]).
        batch (`dict`): Inputs; those on whose values the flow depends have values.
        kind ([`Pass`]): The pass.
    """
    live = run_pass(model, batch, kind)
    trained = [weight for weight in model.parameters() if weight.requires_grad] if kind.trains else []
    all_gradients = sum(weight.numel() * weight.element_size() for weight in trained)
    count = sum(weight.numel() for weight in trained)
    gradients, activations = live.gradients_at_peak, live.peak - live.gradients_at_peak
    if all_gradients > live.peak:  # the optimiser's step: all gradients, and nothing else
        gradients, activations = all_gradients, 0
    if kind.processes > 1:
        gradients += all_gradients
    kept = [*model.parameters(), *model.buffers()]
    return MemoryNeed(
        weights=sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in kept}.values()),
        optimizer=ADAMW_BYTES * count,
        gradients=gradients,
        activations=activations,
        trained=count,
        all_weights=sum(weight.numel() for weight in model.parameters()),
    )


def run_pass(model: nn.Module, batch: dict[str, torch.Tensor], kind: Pass) -> LiveBytes:
    """Run a pass and count the live bytes beside the weights; arguments as for [`memory_need`]."""
    if kind.accumulates:
        for weight in model.parameters():
            if weight.requires_grad:
                weight.grad = torch.empty_like(weight)
    live = LiveBytes([*model.parameters(), *model.buffers()])
    for tensor in batch.values():
        live.count(tensor)
    live.watch(model)
    with live:
        if not kind.trains:
            with torch.no_grad():
                model(**batch)
        else:
            with torch.autocast("cpu", torch.bfloat16, enabled=kind.autocast):
                loss = model(**batch).loss
            loss.backward()
    return live

"""Parts of a network that are computed in float32, whatever type the rest is converted to."""

from collections.abc import Callable

import torch

Convert = Callable[[torch.Tensor], torch.Tensor]


class Float32PartsMixin:
    """
    Keep parts of a model in float32 in `.to(dtype)`, `.half()` and `.bfloat16()`.

    `from_pretrained(dtype=...)` does so by itself; this is the same for a model in memory. The parts are the modules directly
    under the model that are named in `_keep_in_fp32_modules_strict`, and, against float16 alone, in `_keep_in_fp32_modules`.
    """

    def _apply(self, fn: Convert, recurse: bool = True):
        if recurse:
            for name, module in self.named_children():
                if name in self._keep_in_fp32_modules_strict:
                    module._apply(in_float32(fn, (torch.float16, torch.bfloat16)))
                elif name in self._keep_in_fp32_modules:
                    module._apply(in_float32(fn, (torch.float16,)))
                else:
                    module._apply(fn)
        return super()._apply(fn, recurse=False)


def in_float32(fn: Convert, refused: tuple[torch.dtype, ...]) -> Convert:
    """Return a conversion that moves tensors as `fn` does, but gives float32 in place of the `refused` types."""

    def convert(values: torch.Tensor) -> torch.Tensor:
        converted = fn(values)
        return values.to(converted.device, torch.float32) if converted.dtype in refused else converted

    return convert


__all__ = ["Float32PartsMixin"]

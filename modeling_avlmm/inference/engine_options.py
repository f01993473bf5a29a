"""The names of the engines and the options of Ray, which the command line needs before it imports PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .reader_server import ReaderLimits

ENGINES = ("local", "ray")
"""What scores files: this process, or the workers of a Ray cluster."""


@dataclass(frozen=True)
class RayOptions:
    """
    Options of a run on Ray, passed on as they are.

    Args:
        address (`str`, *optional*): The cluster, such as `"auto"` or `"10.0.0.1:6379"`. Without it one is started on this machine.
        workers (`tuple[int, int]`, *optional*):
            Fewest and most workers. Ray adds workers, and with an autoscaler machines, while files wait. As many as the cluster
            has room for if left out.
        cpus (`float`, *optional*, defaults to 1): CPUs of a worker.
        gpus (`float`, *optional*, defaults to 0): GPUs of a worker; 0.5 lets two share one.
        limits ([`ReaderLimits`], *optional*):
            Limits on what decoding a file may cost; without them a worker decodes in its own process, and ends with it.
    """

    address: str | None = None
    workers: tuple[int, int] | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    limits: ReaderLimits | None = None

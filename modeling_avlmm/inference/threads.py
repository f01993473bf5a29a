"""Choose PyTorch's threads before it starts: no more than the process may use, and none that spins while it waits.

A thread of OpenMP that waits for the others keeps its core busy. Where something else runs on that core, or where a container's
quota counts its time, the others wait for it in turn, and a pass takes many times as long.
"""

import math
import os
import sys
from pathlib import Path

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables by which a user says how threads of OpenMP wait."""
COUNT = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which a user says how many there are."""
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return the cores that this process may use: those of its affinity, at most the quota of its control groups, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, math.ceil(min(_quotas(), default=cores))))


def choose_threads() -> None:
    """
    Choose the number of threads and how they wait, where the user has not.

    Works through the environment, which PyTorch reads when it is imported, and processes inherit. Where it is imported
    already, its threads are only reduced to the cores that may be used.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    if any(name in os.environ for name in COUNT):
        return
    cores = usable_cores()
    os.environ["OMP_NUM_THREADS"] = str(cores)
    if (torch := sys.modules.get("torch")) is not None and torch.get_num_threads() > cores:
        torch.set_num_threads(cores)


def _quotas() -> list[float]:
    """Return the quotas, in cores, of the control groups that this process is in (cgroup v2 and v1)."""
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return []
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = CGROUPS / controllers if controllers else CGROUPS
        # Within a container the path may be that of the host: then the group lies at the base.
        for folder in {base, *(base / path.lstrip("/") / up for up in (".", "..", "../.."))}:
            quotas += _quota(folder)
    return quotas


def _quota(folder: Path) -> list[float]:
    """Return the quota of a control group in cores; nothing where it has none."""
    try:
        if (file := folder / "cpu.max").is_file():
            quota, period = file.read_text().split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
            )
    except (OSError, ValueError):
        return []
    return [int(quota) / int(period)] if quota.isdigit() and int(period) > 0 else []


__all__ = ["choose_threads", "usable_cores"]

"""`inference.threads`: cores by affinity and quota, and settings that a user's own win over."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_avlmm.inference import threads

ROOT = Path(__file__).parents[2]


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Return a function that puts this process, with eight cores, into control groups."""
    monkeypatch.setattr(threads, "CGROUPS", tmp_path)
    monkeypatch.setattr(threads, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def put(own: str, **files: str) -> None:
        (tmp_path / "own").write_text(own)
        for place, text in files.items():
            path = tmp_path / place.replace("__", "/").replace("cpu_", "cpu.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return put


def test_without_a_quota_the_affinity_counts(groups):
    assert threads.usable_cores() == 8  # no such file
    groups("0::/\n", cpu_max="max 100000\n")
    assert threads.usable_cores() == 8


@pytest.mark.parametrize(("quota", "cores"), [("50000", 1), ("200000", 2), ("250000", 3), ("1600000", 8)])
def test_a_quota_counts_rounded_up(groups, quota, cores):
    groups("0::/\n", cpu_max=f"{quota} 100000\n")
    assert threads.usable_cores() == cores


def test_the_smallest_quota_of_the_groups_above_counts(groups):
    groups("0::/a/b\n", a__b__cpu_max="max 100000\n", a__cpu_max="300000 100000\n")
    assert threads.usable_cores() == 3


def test_the_older_control_groups_count_too(groups):
    groups(
        "3:cpuset:/\n2:cpu,cpuacct:/a\n",
        **{"cpu,cpuacct__a__cpu_cfs_quota_us": "150000\n", "cpu,cpuacct__a__cpu_cfs_period_us": "100000\n"},
    )
    assert threads.usable_cores() == 2
    groups("2:cpu,cpuacct:/a\n", **{"cpu,cpuacct__a__cpu_cfs_quota_us": "-1\n"})
    assert threads.usable_cores() == 8


def started(**environment: str) -> list[str]:
    """Return what is set once the package is imported, and PyTorch's threads."""
    script = (
        "import os, modeling_avlmm, torch; print(*(os.environ.get(n) for n in %r), torch.get_num_threads())"
    )
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    kept = {
        name: value for name, value in os.environ.items() if name not in (*threads.WAITING, *threads.COUNT)
    }
    command = [sys.executable, "-c", script % (names,)]
    done = subprocess.run(
        command, env=kept | environment, capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout.split()


def test_the_package_chooses_and_the_user_wins():
    cores = str(threads.usable_cores())
    assert started() == ["PASSIVE", "None", cores, cores]
    assert started(GOMP_SPINCOUNT="7", OMP_NUM_THREADS="1") == ["None", "7", "1", "1"]

"""Measure how long scoring takes on a machine that does something else, with threads that spin and with the package's choice.

    python benchmarks/busy_machine.py --save

Ten passes of the network inside the package on one window of a drawn recording, once with what PyTorch does by itself (`spinning`: it
is imported before the package), once as the package chooses (`passive`). Other processes keep some cores busy meanwhile; both
ways take turns beside them. A row has the median of the wall time, of the time of all cores, and of the ratios of the two ways
in the same turn. `busy`: all cores. `quota`: one core with two threads for `spinning`, as PyTorch starts where a quota of one
core leaves two to be seen, and the package's number for `passive`. (The pipeline has a second thread that reads ahead; with more
threads than cores the OpenMP of GCC spins less by itself, so there the difference is smaller.)
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from facevoice_speed import make_recording
from results import write_results

from modeling_avlmm.inference.default_model import default_model

ROOT = Path(__file__).parents[1]
CHOSEN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
SCORE = """
import os, sys, time, warnings
warnings.simplefilter("ignore")
model, clip, way, cores = sys.argv[1:]
if way == "spinning":
    import torch
    torch.set_num_threads(2)
if int(cores):
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: int(cores)]))
from modeling_avlmm.inference.loading import load_detector
detector, _ = load_detector(model, device="cpu")
processor, network = detector.processor, detector.model
import torch
inputs = processor([processor.load(clip, end=processor.max_seconds)])
with torch.inference_mode():
    network(**inputs)
    before, cpu = time.perf_counter(), time.process_time()
    for _ in range(10):
        score = float(network(**inputs).scores[0])
print(time.perf_counter() - before, time.process_time() - cpu, score)
"""
BUSY = "while True: pass"


def run(code: str, *arguments: str) -> list[float]:
    """Run Python code in a process of its own, without any choice of threads, and return the numbers that it prints."""
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return [float(number) for number in done.stdout.split()]


def turns(model: str, clip: str, count: int, busy: int, cores: int) -> dict:
    """Return a row: both ways in turn, beside `busy` processes that compute, on `cores` cores (0: all)."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    if cores:
        for other in others:
            os.sched_setaffinity(other.pid, set(sorted(os.sched_getaffinity(0))[:cores]))
    try:
        taken = []
        for _ in range(count):
            taken.append({way: run(SCORE, model, clip, way, str(cores)) for way in ("spinning", "passive")})
            print(json.dumps(taken[-1]), flush=True)
    finally:
        for other in others:
            other.kill()
            other.wait()
    row = {"busy_processes": busy, "cores": cores or len(os.sched_getaffinity(0))}
    return row | summary(taken) | {"load_average": round(os.getloadavg()[0], 1)}


def summary(taken: list[dict[str, list[float]]]) -> dict:
    """Return the medians of turns, each the wall time, the time of all cores and the score of both ways."""
    row: dict = {"turns": len(taken)}
    for place, name in enumerate(("wall", "all_cores")):
        for way in ("spinning", "passive"):
            row[f"{way}_{name}_s"] = round(statistics.median(turn[way][place] for turn in taken), 3)
        ratios = [turn["spinning"][place] / turn["passive"][place] for turn in taken]
        row[f"{name}_ratio"] = round(statistics.median(ratios), 2)
    row["score_difference"] = max(abs(turn["spinning"][2] - turn["passive"][2]) for turn in taken)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=3, help="[%(default)s]")
    parser.add_argument("--save", action="store_true", help="write the results into benchmarks/results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        clip = make_recording(Path(work) / "clip.mp4", 6)
        model = default_model()
        rows = [
            {"what": what, **turns(model, str(clip), options.turns, busy, cores)}
            for what, busy, cores in (("busy", 1, 0), ("quota", 1, 1))
        ]
    for row in rows:
        print(json.dumps(row))
    if options.save:
        write_results(rows, "busy_machine", ("torch",), threads=len(os.sched_getaffinity(0)))


if __name__ == "__main__":
    main()

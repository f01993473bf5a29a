"""Measure how many files a second are scored by one process, by shards and by the workers of a Ray cluster on this machine.

    python benchmarks/workers.py --save

The same drawn recordings go through `detect`'s engines, with the detector inside the package, one thread each: in one process, as
several shards that start together, and on Ray with several workers. Ways take turns, and the quickest turn of each counts. `start_s`
goes from the start of the command's work (Python runs, nothing is imported) to the first result. `files_per_s` counts from the
first result to the last, so that it is what a long run sees. `whole_s` is both together. A run of many hours pays `start_s` once.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from facevoice_speed import make_recording
from results import write_results

ROOT = Path(__file__).parents[1]
WORKER = """
import json, sys, time
began = time.time()
way, number, of, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
import warnings
warnings.simplefilter("ignore")
from pathlib import Path
from modeling_avlmm.inference.default_model import default_model
from modeling_avlmm.inference.engines import LocalEngine
from modeling_avlmm.inference.reader_process import ReaderLimits, reader_processes
from modeling_avlmm.inference.sharding import Shard
files = sorted(map(str, Path(folder).iterdir()))
with reader_processes():
    from modeling_avlmm.inference.ray_engine import Loading, RayEngine, RayOptions
    loading = Loading(default_model(), "cpu")
    detector = loading.detector()
    if way == "ray":
        engine = RayEngine(detector, loading, RayOptions(workers=(of, of), limits=ReaderLimits()))
    else:
        engine = LocalEngine(detector)
        files = [file for file in files if Shard(number, of).holds(Path(file).name)]
    times = []
    for _, result in engine.results(iter(files)):  # a list would come back whole
        assert result["error"] is None, result["error"]
        times.append(time.time())
print(json.dumps({"began": began, "times": times}))
"""


def run(way: str, workers: int, folder: Path) -> dict | None:
    """Score the folder in one way, and return the figures of the run; None if it failed, as Ray may on a busy machine."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    count = workers if way == "shards" else 1
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, way, str(number), str(workers), str(folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(1, count + 1)
    ]
    answers = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, answers, strict=True):
        if process.returncode:
            print(f"{way} with {workers} workers failed:\n{errors}", file=sys.stderr)
            return None
    told = [json.loads(printed.splitlines()[-1]) for printed, _ in answers]
    began, times = min(one["began"] for one in told), sorted(at for one in told for at in one["times"])
    # Shards do not start at the same moment: each has a rate of its own, and the rates add up.
    rates = [(len(t) - 1) / (t[-1] - t[0]) for t in (one["times"] for one in told) if len(t) > 1]
    return {
        "way": way,
        "workers": workers,
        "files": len(times),
        "start_s": round(times[0] - began, 1),
        "files_per_s": round(rate_of(times) if way == "ray" else sum(rates), 3),
        "whole_s": round(times[-1] - began, 1),
    }


def rate_of(times: list[float]) -> float:
    """Return results a second of a run whose results come in small groups, one group a task and worker."""
    later = [at for at in times if at > times[0] + 0.05]
    return len(later) / (times[-1] - times[0]) if later else float("nan")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2], metavar="N", help="[1 2]")
    parser.add_argument("--files", type=int, default=48, help="recordings [%(default)s]")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a recording [%(default)s]")
    parser.add_argument(
        "--turns", type=int, default=2, help="turns, of which the quickest counts [%(default)s]"
    )
    parser.add_argument("--save", action="store_true", help="write a CSV to benchmarks/results")
    options = parser.parse_args()
    ways = [("one process", 1)]
    ways += [
        (way, workers)
        for way in ("shards", "ray")
        for workers in options.workers
        if (way, workers) != ("shards", 1)
    ]
    best: dict[tuple[str, int], dict] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "recordings"
        folder.mkdir()
        recording = make_recording(Path(place) / "recording.mp4", options.seconds)
        for number in range(options.files):
            (folder / f"{number:04}.mp4").hardlink_to(recording)
        for turn in range(options.turns):
            for way in ways:
                load = os.getloadavg()[0]
                row = run(*way, folder)
                if row is None:
                    continue
                row |= {"seconds": options.seconds, "load_before": round(load, 1)}
                print(turn, row, flush=True)
                if way not in best or row["files_per_s"] > best[way]["files_per_s"]:
                    best[way] = row
    rows = list(best.values())
    one = rows[0]["files_per_s"]
    rows = [{**row, "of_one_process": round(row["files_per_s"] / one, 2)} for row in rows]
    for row in rows:
        print(
            f"{row['way']:<12} {row['workers']:>3}  {row['files_per_s']:>7.2f} files/s  {row['of_one_process']:.2f}"
        )
    if options.save:
        write_results(rows, "workers", ("torch", "ray", "torchcodec"))


if __name__ == "__main__":
    main()

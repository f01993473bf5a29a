"""Measure what decoding in a process of its own costs: processor time of both processes, over that of decoding here.

    python benchmarks/reader_process.py --save
    python benchmarks/reader_process.py --rates 25 --heights 480 --turns 5

Clips are those of `media_path.py` (moving test picture with noise, H.264 and AAC in MP4, 25 frames per second). In each turn all of
them are opened and read window by window, once in this process and once in a reader process, in changing order. `ratio` is the
processor time of this process and the reader over that of this process alone, in one turn; the median over turns counts. With
`--verdicts`, the package's own detector judges them too.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from media_path import make_clip
from results import write_results
from transformers import pipeline

import modeling_avlmm  # noqa: F401 (registers the task)
from modeling_avlmm import MediaReader
from modeling_avlmm.inference.reader_process import reader_processes, readers_in_use

WINDOW_SECONDS = 3.0


def processor_seconds(process: int) -> float:
    """Return the time that a process of one thread has had a processor, in seconds (Linux)."""
    with open(f"/proc/{process}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9


def read_all(paths: list[Path], fps: float) -> None:
    for path in paths:
        with MediaReader(path) as reader:
            for start, end in reader.windows(WINDOW_SECONDS):
                reader.read(start, end, fps=fps)


def spent(body: Callable[[], None]) -> tuple[float, float]:
    """Return the processor seconds of this process and its readers while a function runs, and the seconds on the clock."""
    readers = readers_in_use()
    if readers is not None:
        readers.give_back(readers.take(), os.getpid())  # started before the clock
    before = (
        {reader.process: processor_seconds(reader.process) for reader in readers._idle} if readers else {}
    )
    clock, own = time.perf_counter(), time.process_time()
    body()
    taken, clock = time.process_time() - own, time.perf_counter() - clock
    for reader in readers._idle if readers else ():
        taken += processor_seconds(reader.process) - before.get(reader.process, 0.0)
    return taken, clock


def one_turn(body: Callable[[], None], apart_first: bool) -> tuple[float, float, float, float]:
    """Return processor and clock seconds of a function with decoding here and apart."""
    found = {}
    for apart in (True, False) if apart_first else (False, True):
        with reader_processes() if apart else contextlib.nullcontext():
            found[apart] = spent(body)
    return *found[False], *found[True]


def measured(name: str, body: Callable[[], None], turns: int, facts: dict) -> dict:
    body()
    rows = [one_turn(body, turn % 2 == 0) for turn in range(turns)]
    here, here_clock, apart, apart_clock = (statistics.median(column) for column in zip(*rows, strict=True))
    ratios = sorted(row[2] / row[0] for row in rows)
    row = {
        "what": name,
        **facts,
        "turns": turns,
        "here_s": round(here, 3),
        "apart_s": round(apart, 3),
        "ratio": round(statistics.median(ratios), 3),
        "lowest": round(ratios[0], 3),
        "highest": round(ratios[-1], 3),
        "here_clock_s": round(here_clock, 3),
        "apart_clock_s": round(apart_clock, 3),
    }
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--heights", type=int, nargs="+", default=[224, 480, 720])
    parser.add_argument("--rates", type=float, nargs="+", default=[2.0, 10.0, 25.0], help="frames a second")
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a clip")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--verdicts", action="store_true", help="also ask the package's own detector")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/reader_process_*.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for height in options.heights:
            path = make_clip(Path(folder) / f"{height}.mp4", options.seconds, height)
            paths = [path] * options.clips
            facts = {"height": height, "seconds": options.seconds, "clips": options.clips}
            for fps in options.rates:
                rows.append(
                    measured(
                        "read", lambda p=paths, f=fps: read_all(p, f), options.turns, {**facts, "fps": fps}
                    )
                )
            if options.verdicts:
                detector = pipeline("av-deepfake-detection")
                ask = lambda p=paths, d=detector: d([str(path) for path in p])  # noqa: E731
                rows.append(measured("verdict", ask, options.turns, {**facts, "fps": None}))
    if options.save:
        print(write_results(rows, "reader_process", ("torch", "torchcodec")))


if __name__ == "__main__":
    main()

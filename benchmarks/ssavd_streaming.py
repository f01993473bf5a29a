"""Measure the speed of SSAVD on a growing recording in times real time, decoding included, and its memory.

    python benchmarks/ssavd_streaming.py --threads 2
    python benchmarks/ssavd_streaming.py --threads 2 --memory --save

Makes a synthetic 480p recording with ffmpeg (moving test picture, noise and tone; H.264 and AAC in MPEG-TS) and streams it
with every network: fast and sinc front end, on PyTorch, onnxruntime and onnxruntime with eight bits. Weights are random,
which costs the same as trained ones. All take turns in one run, so that a busy machine is busy for all of them, and the
quickest turn counts, as it was disturbed least. On a busy machine only the ratios mean something. `decode` is reading and
decoding alone; with more than one thread it runs beside the network. With --memory each network also streams 60 and 600 seconds
in a process of its own, and the largest resident memory of the two is compared.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from results import write_results
from ssavd_flops import build, settle

from modeling_avlmm import SSAVDProcessor
from modeling_avlmm.configuration_ssavd import FRONT_ENDS
from modeling_avlmm.inference.growing_file import GrowingFile, GrowingTracks, Picture
from modeling_avlmm.inference.onnx_detector import ONNXDetector
from modeling_avlmm.inference.onnx_export import export_onnx
from modeling_avlmm.inference.provenance import environment
from modeling_avlmm.inference.streaming import StreamingDetector

ENGINES = ("pytorch", "onnxruntime", "onnxruntime_int8")


def make_recording(path: Path, seconds: int) -> Path:
    """Make a recording of 854 x 480 at 25 frames a second, keyframes every 2 s, stereo at 48 kHz: about 1.5 Mbit/s."""
    picture = f"testsrc2=size=854x480:rate=25:duration={seconds},noise=alls=8:allf=t"
    sound = f"aevalsrc='0.2*sin(2*PI*220*t)+0.1*(random(0)-0.5)|0.1*(random(1)-0.5)':s=48000:d={seconds}"
    codecs = ["-c:v", "libx264", "-preset", "veryfast", "-g", "50", "-b:v", "1400k", "-pix_fmt", "yuv420p"]
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin", "-y"]
    command += ["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, *codecs, "-c:a", "aac", str(path)]
    subprocess.run(command, check=True)
    return path


def make_detector(folder: Path, frontend: str) -> None:
    """Save a network with random weights and running statistics as after training, for PyTorch and as ONNX."""
    torch.manual_seed(0)
    model = settle(build("small", frontend))
    model.save_pretrained(folder / "pytorch")
    SSAVDProcessor.from_config(model.config).save_pretrained(folder / "pytorch")
    made = export_onnx(folder / "pytorch", folder / "onnx", int8=True)
    print(
        f"{frontend}: ONNX differs by {made.difference:.1e} (logit), int8 by {made.int8_difference:.1e} (score)"
    )


def load(folder: Path, engine: str, threads: int) -> StreamingDetector:
    if engine == "pytorch":
        return StreamingDetector(folder / "pytorch", threads=threads)
    detector = ONNXDetector(folder / "onnx", engine.endswith("_int8"), max(1, threads - 1))
    return StreamingDetector(detector, threads=threads)


def seconds_to_stream(detector: StreamingDetector, path: Path) -> tuple[float, int]:
    begin = time.perf_counter()
    windows = sum(1 for _ in detector.stream_file(path, patience=0))
    return time.perf_counter() - begin, windows


def seconds_to_decode(path: Path, side: int = 224) -> float:
    """Time reading and decoding as in a stream: every packet, with ten frames a second converted and resized."""
    begin = time.perf_counter()
    due, zero = 0.0, None
    file = GrowingFile(path, 0)
    for part in GrowingTracks(file, str(path)):
        if isinstance(part, Picture):
            zero = part.start if zero is None else zero
            if part.start - zero >= due - 1e-6:
                torch.nn.functional.interpolate(
                    part.load()[None], (side, side), mode="bilinear", antialias=True
                )
                due += 0.1
    file.close()
    return time.perf_counter() - begin


def peak_memory(folder: Path, engine: str, threads: int, path: Path) -> tuple[float, float]:
    """Return the peak MB of a new process that streams `path`, and its MB before the first window."""
    command = [sys.executable, __file__, "--threads", str(threads)]
    command += ["--one", json.dumps([str(folder), engine, str(path)])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def stream_once(folder: str, engine: str, path: str, threads: int) -> None:
    detector = load(Path(folder), engine, threads)
    before = resident()
    for _ in detector.stream_file(path, patience=0):
        pass
    print(json.dumps([resident(), before]))


def resident() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    # `getrusage` only where there is nothing better: it starts with the figure of the parent process.
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure(options: argparse.Namespace, work: Path) -> list[dict]:
    recording = make_recording(work / "recording.ts", options.seconds)
    detectors, times = {}, {}
    for frontend in options.frontends:
        make_detector(work / frontend, frontend)
        for engine in options.engines:
            detectors[frontend, engine] = load(work / frontend, engine, options.threads)
    decoding, windows = [], 0
    for _ in range(options.turns):
        decoding.append(seconds_to_decode(recording))
        for key, detector in detectors.items():
            taken, windows = seconds_to_stream(detector, recording)
            times.setdefault(key, []).append(taken)
    decode, slowest = min(decoding), max(min(taken) for taken in times.values())
    rows = []
    for (frontend, engine), taken in times.items():
        best = min(taken)
        rows.append(
            {
                "frontend": frontend,
                "engine": engine,
                "threads": options.threads,
                "recording_seconds": options.seconds,
                "windows": windows,
                "seconds": round(best, 3),
                "decode_seconds": round(decode, 3),
                "times_real_time": round(options.seconds / best, 2),
                "speedup_over_slowest": round(slowest / best, 2),
                "load_at_start": round(os.getloadavg()[0], 2),
            }
        )
    if options.memory:
        detectors.clear()
        longer = make_recording(work / "longer.ts", 10 * options.seconds)
        for row in rows:
            place = (work / row["frontend"], row["engine"], options.threads)
            short, before = peak_memory(*place, recording)
            long, _ = peak_memory(*place, longer)
            row.update(mb_before=round(before), mb_peak=round(short), mb_peak_10_times_longer=round(long))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--threads", type=int, default=2, help="threads for decoding and the network [%(default)s]"
    )
    parser.add_argument("--seconds", type=int, default=60, help="length of the recording [%(default)s]")
    parser.add_argument("--turns", type=int, default=3, help="timed turns of each network [%(default)s]")
    parser.add_argument("--frontends", nargs="+", choices=FRONT_ENDS, default=["fast", "sinc"])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument(
        "--memory", action="store_true", help="measure memory too, in two more processes for each network"
    )
    parser.add_argument("--save", action="store_true", help="write a CSV to benchmarks/results")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        stream_once(*options.one, options.threads)
        return
    with tempfile.TemporaryDirectory(prefix="ssavd-streaming-") as work:
        rows = measure(options, Path(work))
    for row in rows:
        memory = ""
        if options.memory:
            memory = f"; {row['mb_peak']} MB, {row['mb_peak_10_times_longer']} MB for 10 times the recording"
        print(
            f"{row['frontend']:>5} {row['engine']:<9} {row['times_real_time']:6.1f} x real time "
            f"({row['seconds']:.2f} s, {row['decode_seconds']:.2f} of them decoding{memory})"
        )
    print(f"on {environment()['device']}, {options.threads} threads, load {rows[0]['load_at_start']}")
    if options.save:
        write_results(rows, "ssavd_streaming", ("torch", "onnxruntime"), threads=options.threads)


if __name__ == "__main__":
    main()

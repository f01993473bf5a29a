"""Measure the speed of facevoice from the file to the verdict, part by part, and the wait for a first result.

    python benchmarks/facevoice_speed.py --threads 2
    python benchmarks/facevoice_speed.py --threads 2 --model modeling_avlmm/default_model --save
    python benchmarks/facevoice_speed.py --threads 2 --clip interview.mp4

Makes a synthetic 480p recording with ffmpeg: a drawn face that moves over a moving test picture, with noise and a voice-like
sound (H.264, AAC). It is scored by the pipeline, windows of 4 s, with PyTorch and onnxruntime, each also with a process that
decodes and finds faces beside the network. All take turns in one run and the quickest turn counts, as it was disturbed
least. Beside the wall time stands the time of all cores: on a busy machine only that, and the ratios, mean something. `start`
runs `python -m modeling_avlmm detect` on the first 6 s in a process of its own. Without --model the weights are random, which
costs the same as trained ones. The drawn recording has about five times the bit rate of an interview of that size; --clip takes a
recording of yours instead.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # as the command line does

import torch
from results import write_results
from transformers import AutoProcessor

from modeling_avlmm import AutoModelForAVDeepfakeDetection, FaceVoiceConfig, FaceVoiceProcessor, MediaReader
from modeling_avlmm.inference.loading import load_detector
from modeling_avlmm.inference.onnx_detector import ONNXDetector
from modeling_avlmm.inference.onnx_export import example_inputs, export_onnx
from modeling_avlmm.inference.onnx_model import ONNXModel

FIRST = 6
"""Seconds of the clip that the first result is about."""


def make_recording(path: Path, seconds: int) -> Path:
    """Make a recording of 854 x 480 at 25 frames a second with one drawn face: about 1.5 Mbit/s."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from face_factory import drawn_face

    face = path.with_suffix(".png")
    drawn_face(0).resize((400, 400)).save(face)
    picture = f"testsrc2=size=854x480:rate=25:duration={seconds},boxblur=8,noise=alls=8:allf=t"
    sound = f"aevalsrc='0.2*sin(2*PI*220*t)*(1+sin(2*PI*4*t))/2+0.05*(random(0)-0.5)':s=48000:d={seconds}"
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin", "-y", "-f", "lavfi", "-i", picture]
    command += ["-loop", "1", "-i", str(face), "-f", "lavfi", "-i", sound, "-filter_complex"]
    command += ["[0][1]overlay=x='200+60*sin(t)':y='40+20*cos(t)':shortest=1[v]", "-map", "[v]", "-map", "2"]
    command += ["-c:v", "libx264", "-preset", "veryfast", "-g", "50", "-b:v", "1400k", "-pix_fmt", "yuv420p"]
    subprocess.run([*command, "-c:a", "aac", "-shortest", str(path)], check=True)
    return path


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return seconds by the clock, and of all cores, with those of processes that have ended."""
    wall, cores = time.perf_counter(), sum(os.times()[:4])
    work()
    return time.perf_counter() - wall, sum(os.times()[:4]) - cores


def best_of(works: dict[str, Callable[[], object]], turns: int) -> dict[str, tuple[float, float]]:
    """Return the smallest times of each work, which take turns; a first turn is not counted."""
    best: dict[str, tuple[float, float]] = {}
    for turn in range(turns + 1):
        for name, work in works.items():
            taken = timed(work)
            if turn:
                best[name] = tuple(map(min, taken, best.get(name, taken)))
            print(f"  turn {turn}, {name}: {taken[0]:.2f} s, {taken[1]:.2f} s of all cores", flush=True)
    return best


def parts(model: Path, exported: Path, clip: Path, threads: int) -> dict[str, Callable[[], object]]:
    """Return what a window of the clip takes, part by part."""
    processor = AutoProcessor.from_pretrained(model)
    network = AutoModelForAVDeepfakeDetection.from_pretrained(model).eval()
    with MediaReader(clip) as reader:
        window = reader.read(end=processor.max_seconds, fps=processor.fps)
    face = processor.face_windows(None).choose(window)[0][0]
    inputs = example_inputs(network.config, 1)
    graphs = ONNXDetector(exported, threads=threads)

    def decode() -> None:
        with MediaReader(clip) as reader:
            for start in range(0, 5 * int(processor.max_seconds), int(processor.max_seconds)):
                reader.read(start, start + processor.max_seconds, fps=processor.fps)

    return {
        "decode (5 windows)": decode,
        "faces": lambda: processor.face_windows(None).choose(window),
        "crops": lambda: processor.part(window, face),
        "pytorch": torch.inference_mode()(lambda: network(**inputs)),
        "onnxruntime": lambda: graphs.logits(inputs),
    }


def whole(model: Path, exported: Path, clip: Path, threads: int) -> dict[str, Callable[[], object]]:
    """Return the ways to score the whole recording."""
    networks = {
        name: load_detector(str(folder), device="cpu")[0]
        for name, folder in (("pytorch", model), ("onnxruntime", exported))
    }
    networks["onnxruntime"].model = ONNXModel(exported, threads=threads)
    works: dict[str, Callable[[], object]] = {}
    for name, network in networks.items():
        works[f"pipeline {name}"] = lambda network=network: network(str(clip))
        works[f"pipeline {name}, one loading process"] = lambda network=network: network(
            [str(clip)], num_workers=1
        )
    return works


def first_result(model: Path, clip: Path) -> None:
    """Run `detect` as a user does."""
    command = [sys.executable, "-m", "modeling_avlmm", "detect", str(clip), "--model", str(model)]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[1])


def measure(options: argparse.Namespace, work: Path) -> list[dict]:
    clip = options.clip or make_recording(work / "recording.mp4", options.seconds)
    with MediaReader(clip) as reader:
        duration = reader.info.duration
    facts = {"kbit_s": round(clip.stat().st_size * 8 / duration / 1000)}
    short = make_recording(work / "short.mp4", FIRST)
    model = Path(options.model or work / "model")
    if not options.model:
        torch.manual_seed(0)
        network = AutoModelForAVDeepfakeDetection.from_config(FaceVoiceConfig(half_precision=True)).eval()
        network.save_pretrained(model)
        FaceVoiceProcessor.from_config(network.config).save_pretrained(model)
    made = export_onnx(model, work / "exported")
    print(f"log-odds of the graphs differ by at most {made.difference:.1e}")
    rows = []
    for what, works, seconds in (
        ("part", parts(model, work / "exported", clip, options.threads), 4.0),
        ("whole", whole(model, work / "exported", clip, options.threads), duration),
    ):
        for name, (wall, cores) in best_of(works, options.turns).items():
            length = 20.0 if name.startswith("decode") else seconds
            rows.append(row(what, name, options.threads, length, wall, cores) | facts)
    for name, folder in (("detect, pytorch", model), ("detect, onnxruntime", work / "exported")):
        taken = [timed(lambda folder=folder: first_result(folder, short)) for _ in range(options.turns)]
        rows.append(row("start", name, options.threads, FIRST, *map(min, zip(*taken, strict=True))) | facts)
    return rows


def row(what: str, name: str, threads: int, length: float, wall: float, cores: float) -> dict:
    """Return a line of the table."""
    return {
        "what": what,
        "name": name,
        "threads": threads,
        "seconds_of_video": round(length, 1),
        "wall_s": round(wall, 3),
        "all_cores_s": round(cores, 3),
        "times_real_time": round(length / wall, 1),
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder of a facevoice detector [random weights]")
    parser.add_argument("--threads", type=int, default=2, help="[%(default)s]")
    parser.add_argument("--seconds", type=int, default=60, help="length of the recording [%(default)s]")
    parser.add_argument("--clip", type=Path, help="recording of at least 20 s to score [a drawn one]")
    parser.add_argument("--turns", type=int, default=3, help="[%(default)s]")
    parser.add_argument("--save", action="store_true", help="write the results into benchmarks/results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as work:
        rows = measure(options, Path(work))
    for line in rows:
        print(json.dumps(line))
    if options.save:
        packages = ("torch", "timm", "onnxruntime", "torchcodec")
        name = "facevoice_speed_clip" if options.clip else "facevoice_speed"
        write_results(rows, name, packages, threads=options.threads)


if __name__ == "__main__":
    main()

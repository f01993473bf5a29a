"""Measure scoring at scale: loading processes, scoring processes, and a folder of ten thousand files.

    python benchmarks/scale.py --save
    python benchmarks/scale.py folder --files 10000 --save
    python benchmarks/scale.py processes --counts 1 2 4 --model my-org/my-detector

- `loading`: clips/s of the pipeline with 0, 1, 2 and 4 processes that decode (`num_workers`), in turn; the best turn counts.
  Clips are 3 s of 854 x 480, which take as long to decode as the small detector takes to score them.
- `crossing`: ms that the patches of a clip for AV-LMMDetect (10 s, 336 x 336, 2 frames a second, not decoded here) take from a
  loading process to normalised floats in this one: crossing as bytes, as in the package, or as floats that were normalised there.
- `processes`: clips/s of `modeling_avlmm.evaluation.predictions.predict`, which `evaluate_avd.py` runs, in 1 and 2 processes of
  one thread each. Start-up and loading are not counted.
- `folder`: `python -m modeling_avlmm detect FOLDER --resume JOURNAL` and `evaluate_avd.py --dataset avfolder`, each killed at a
  chosen share and started again. Every file must have exactly one result. `memory_growth` is the resident memory during the last
  tenth of the results over that during the second tenth (when everything is loaded), `slowing` the time of the last thousand
  results over that of the first thousand of the same process.

Clips are made with ffmpeg: 20 different ones, 1 s of 96 x 96 unless stated otherwise, H.264 and AAC; those in the folder are hard
links to them. `folder` measures reading, keeping and resuming, so it scores with a network of a few thousand random weights;
`loading` and `processes` use the package's small detector, unless `--model` names another.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import torch
from results import write_results
from transformers import Qwen2VLVideoProcessor, pipeline

from modeling_avlmm import SSAVDConfig, SSAVDForDeepfakeDetection, SSAVDProcessor
from modeling_avlmm.evaluation.predictions import predict
from modeling_avlmm.inference.default_model import DEMONSTRATION_MODEL
from modeling_avlmm.inference.provenance import environment
from modeling_avlmm.processing_patches import frames_to_patches, normalize_patches

ROOT = Path(__file__).parents[1]
TASK = "av-deepfake-detection"
DIFFERENT = 20


def make_clips(folder: Path, seconds: int = 1, size: str = "96x96") -> list[Path]:
    """Make clips that differ."""
    folder.mkdir(parents=True)
    made = []
    for number in range(DIFFERENT):
        path = folder / f"{number}.mp4"
        picture = f"testsrc2=size={size}:rate=25:duration={seconds},hue=h={18 * number}"
        sound = f"sine=frequency={200 + 40 * number}:duration={seconds}"
        command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin", "-f", "lavfi", "-i", picture]
        command += ["-f", "lavfi", "-i", sound, "-c:v", "libx264", "-preset", "ultrafast"]
        subprocess.run([*command, "-pix_fmt", "yuv420p", "-c:a", "aac", "-shortest", str(path)], check=True)
        made.append(path)
    return made


def make_folder(folder: Path, clips: list[Path], count: int) -> Path:
    """Make `count` links to the clips, a hundred in each folder, in the layout of `avfolder`."""
    for number in range(count):
        kind = ("real", "fake/made")[number % 2]
        path = folder / "test" / kind / f"{number // 100:04}" / f"{number:06}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(clips[number % len(clips)], path)
    return folder


def tiny_network(folder: Path) -> Path:
    """Save a detector that costs next to nothing to run."""
    torch.manual_seed(0)
    config = SSAVDConfig(
        channels=(4, 4), depths=(1, 1), num_frames=4, image_size=56, audio_samples=16_000, frontend="fast"
    )
    SSAVDForDeepfakeDetection(config).save_pretrained(folder)
    SSAVDProcessor.from_config(config).save_pretrained(folder)
    return folder


# -- processes that load -----------------------------------------------------------------------------------------------


def measure_loading(options: argparse.Namespace, work: Path) -> list[dict]:
    clips = [str(path) for path in make_clips(work / "loading", 3, "854x480")]
    files = [clips[number % len(clips)] for number in range(options.clips)]
    detector = pipeline(TASK, model=options.model, device="cpu")
    detector(files[:8], batch_size=8)
    best: dict[int, float] = {}
    for _ in range(options.turns):
        for workers in options.workers:
            begin = time.perf_counter()
            results = detector(files, batch_size=8, num_workers=workers)
            rate = len(results) / (time.perf_counter() - begin)
            best[workers] = max(rate, best.get(workers, 0.0))
    without = best[options.workers[0]]
    return [
        {
            "what": "loading",
            "loading_processes": workers,
            "clips": len(files),
            "clips_per_s": round(rate, 2),
            "times_first": round(rate / without, 2),
        }
        for workers, rate in best.items()
    ]


class _Patches(torch.utils.data.Dataset):
    """The patches of one clip, repeated, as bytes or as normalised floats."""

    def __init__(self, patches: torch.Tensor, count: int, normalized: bool):
        self.patches, self.count, self.normalized = patches, count, normalized

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, _: int) -> torch.Tensor:
        return normalize_patches(self.patches) if self.normalized else self.patches.clone()


def measure_crossing(options: argparse.Namespace, work: Path) -> list[dict]:
    frames = torch.randint(0, 256, (20, 3, 336, 336), dtype=torch.uint8)
    patches, _ = frames_to_patches(frames, Qwen2VLVideoProcessor(), 56 * 56, 336 * 336)
    ways = {way: _Patches(patches, options.clips, way == "floats") for way in ("floats", "bytes")}
    best: dict[str, float] = {}
    for _ in range(options.turns):
        for way, dataset in ways.items():
            loader = iter(torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=1))
            next(loader)
            begin = time.perf_counter()
            for loaded in loader:
                normalize_patches(loaded).sum()  # read once: pages of another process come when they are read
            taken = 1e3 * (time.perf_counter() - begin) / (options.clips - 1)
            best[way] = min(taken, best.get(way, taken))
    return [
        {
            "what": "crossing",
            "as": way,
            "megabytes": round(patches.numel() * (4 if way == "floats" else 1) / 1e6, 1),
            "ms_a_clip": round(taken, 1),
            "times_floats": round(best["floats"] / taken, 2),
        }
        for way, taken in best.items()
    ]


# -- processes that score ----------------------------------------------------------------------------------------------


def score_share(model: str, folder: Path, count: int) -> None:
    """Score a share, in each process of `measure_processes`; the main process prints the time of all."""
    from accelerate import PartialState

    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    clips = sorted((folder / "clips").iterdir())
    files = [str(clips[number % len(clips)]) for number in range(count)]
    rows = [
        {"path": f"{number}.mp4", "video": file, "audio": None, "label": number % 2}
        for number, file in enumerate(files)
    ]
    detector = pipeline(TASK, model=model, device="cpu")
    detector(files[:8], batch_size=8)
    state.wait_for_everyone()
    begin = time.perf_counter()
    kept = [{"path": row["path"], "label": row["label"]} for row in rows]
    scored = predict(detector, _Rows(rows), folder / f"of{state.num_processes}", kept, batch_size=8)
    if state.is_main_process:
        assert [entry["path"] for entry in scored] == [row["path"] for row in rows]
        print(json.dumps({"seconds": time.perf_counter() - begin}))
    state.wait_for_everyone()


class _Rows(torch.utils.data.Dataset):
    def __init__(self, rows: list[dict]):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        return self.rows[index]


def measure_processes(options: argparse.Namespace, work: Path) -> list[dict]:
    make_clips(work / "processes" / "clips")
    rows = []
    for count in options.counts:
        command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(count), __file__, "share", "--model", str(options.model)]
        command += ["--work", str(work / "processes"), "--clips", str(options.clips)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
        line = next(line for line in done.stdout.splitlines() if line.startswith('{"seconds"'))
        rate = options.clips / json.loads(line)["seconds"]
        rows.append(
            {
                "what": "processes",
                "scoring_processes": count,
                "clips": options.clips,
                "clips_per_s": round(rate, 2),
                "times_first": round(rate / rows[0]["clips_per_s"], 2) if rows else 1.0,
            }
        )
    return rows


# -- a folder ----------------------------------------------------------------------------------------------------------


def follow(command: list[str], results: Path, until: int | None = None) -> list[tuple[int, float, int]]:
    """
    Run a command and follow the growth of its file of results.

    Args:
        command (`list[str]`): The command.
        results (`Path`): A file with a line for each result.
        until (`int`, *optional*): Number of results after which the command is killed.

    Returns:
        `list[tuple[int, float, int]]`: results so far of this run, seconds and resident bytes, about four times a second.
    """
    before = count_lines(results)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said, env=environment)
        watched, begin, seen = psutil.Process(process.pid), time.perf_counter(), []
        while process.poll() is None:
            try:
                memory = watched.memory_info().rss
            except psutil.NoSuchProcess:
                break
            done = count_lines(results) - before
            seen.append((max(0, done), time.perf_counter() - begin, memory))
            if until is not None and done >= until:
                process.send_signal(signal.SIGKILL)
                process.wait()
                return seen
            time.sleep(0.25)
        if process.wait():
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{said.read().decode()[-4000:]}")
    return seen


class _Lines:
    """Count the lines of files that grow, reading only the new part."""

    def __init__(self):
        self.known: dict[Path, tuple[int, int]] = {}

    def __call__(self, path: Path) -> int:
        if not path.is_file():
            self.known.pop(path, None)
            return 0
        place, lines = self.known.get(path, (0, 0))
        if path.stat().st_size < place:  # started again
            place, lines = 0, 0
        with path.open("rb") as file:
            file.seek(place)
            for block in iter(lambda: file.read(1 << 20), b""):
                place += len(block)
                lines += block.count(b"\n")
        self.known[path] = (place, lines)
        return lines


count_lines = _Lines()


def over_the_run(seen: list[tuple[int, float, int]], lines_each: int = 1) -> dict[str, float]:
    """Return how memory and the time of a clip changed between the beginning and the end of a process."""
    begin, last = seen[0][0], max(count for count, _, _ in seen)
    tenth = (last - begin) / 10
    early = [memory for count, _, memory in seen if begin + tenth <= count < begin + 2 * tenth]
    late = [memory for count, _, memory in seen if last - tenth <= count < last]
    step = min(1000 * lines_each, (last - begin) / 4)

    def when(count: float) -> float:
        return next(at for done, at, _ in seen if done >= count)

    # The first results wait for loading; the last sample may be of the report.
    start = next(count for count, _, _ in seen if count > begin)
    first = when(start + step) - when(start)
    final = when(last) - when(last - step)
    return {
        "clips_per_s": round((last - start) / lines_each / (when(last) - when(start)), 1),
        "memory_early_mib": round(sum(early) / len(early) / 2**20),
        "memory_late_mib": round(sum(late) / len(late) / 2**20),
        "memory_growth": round(sum(late) / len(late) / (sum(early) / len(early)), 3),
        "slowing": round(final / first, 2),
    }


def measure_folder(options: argparse.Namespace, work: Path) -> list[dict]:
    folder = make_folder(work / "corpus", make_clips(work / "folder"), options.files)
    network = str(tiny_network(work / "network"))
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.mp4"))
    python = [sys.executable, "-W", "ignore"]
    rows = []

    journal, table = work / "journal.jsonl", work / "table.csv"
    command = [*python, "-m", "modeling_avlmm", "detect", str(folder), "--model", network, "--device", "cpu"]
    command += ["--resume", str(journal), "--csv", str(table), "--batch-size", "8"]
    # A file has two lines in the journal: begun and done.
    killed = follow(command, journal, until=int(2 * options.kill_at * options.files))
    finished = follow(command, journal)
    with table.open(encoding="utf-8", newline="") as lines:
        listed = [str(Path(row["file"]).relative_to(folder)) for row in csv.DictReader(lines)]
    results = Counter(
        json.loads(line)["file"] for line in journal.read_text("utf-8").splitlines() if '"result"' in line
    )
    once = sorted(listed) == names and len(results) == len(names) and set(results.values()) == {1}
    rows += _both("detect", options.files, killed, finished, once, 2)

    output = work / "evaluation"
    command = [*python, str(ROOT / "evaluate_avd.py"), "--model", network, "--dataset", "avfolder"]
    command += ["--data-dir", str(folder), "--output-dir", str(output), "--resamples", "0"]
    command += ["--batch-size", "8", "--device", "cpu"]
    journal = output / "test.0of1.jsonl"
    killed = follow(command, journal, until=int(options.kill_at * options.files))
    finished = follow(command, journal)
    scored = pq.read_table(output / "predictions.parquet").column("path").to_pylist()
    once = len(scored) == len(set(scored)) == len(names)
    rows += _both("evaluate", options.files, killed, finished, once, 1)
    return rows


def _both(what: str, files: int, killed: list, finished: list, once: bool, lines_each: int) -> list[dict]:
    """Return the rows of a run that was killed and of the one that went on."""
    return [
        {"what": what, "run": name, "files": files, **over_the_run(seen, lines_each), "every_file_once": once}
        for name, seen in (("killed", killed), ("went on", finished))
    ]


# -- all ---------------------------------------------------------------------------------------------------------------

PARTS = {
    "loading": measure_loading,
    "crossing": measure_crossing,
    "processes": measure_processes,
    "folder": measure_folder,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", help=f"parts to measure, of {', '.join(PARTS)} [all]")
    parser.add_argument(
        "--model", default=str(DEMONSTRATION_MODEL), help="detector of `loading` and `processes`"
    )
    parser.add_argument(
        "--clips", type=int, default=200, help="number of clips, in all parts but `folder` [%(default)s]"
    )
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 1, 2, 4], help="loading processes [%(default)s]"
    )
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[1, 2], help="scoring processes [%(default)s]"
    )
    parser.add_argument(
        "--turns", type=int, default=2, help="timed turns of `loading` and `crossing` [%(default)s]"
    )
    parser.add_argument("--files", type=int, default=10_000, help="files of `folder` [%(default)s]")
    parser.add_argument(
        "--kill-at", type=float, default=0.4, help="share of `folder` after which it is killed [%(default)s]"
    )
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--save", action="store_true", help="write CSVs to benchmarks/results")
    options = parser.parse_args()
    if options.what == ["share"]:
        score_share(options.model, options.work, options.clips)
        return
    if unknown := set(options.what) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    torch.set_num_threads(1)
    print(f"on {environment()['device']}, one thread a process")
    for name in options.what or PARTS:
        with tempfile.TemporaryDirectory(prefix="scale-", dir=options.work) as work:
            rows = PARTS[name](options, Path(work))
        for row in rows:
            print("  " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if options.save:
            write_results(rows, f"scale_{name}", ("torch", "transformers", "torchcodec"))


if __name__ == "__main__":
    main()

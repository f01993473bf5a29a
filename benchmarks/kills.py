"""Kill training, evaluation, export and `detect --resume` at random moments, go on, and compare what they leave.

    python benchmarks/kills.py --kills 5 --seed 0 --save

Each command first runs undisturbed. Then it is started again in another folder, killed (SIGKILL, with all of its processes)
after a random part of the time that the undisturbed run took, and started again, until it was killed `--kills` times; the
last start runs to its end. A run that ends before it is killed is compared, and another one begins. For each command:

- `runs`: runs that were compared. `kills`: kills in all of them.
- `files`: files that an undisturbed run leaves.
- `different`: files of other runs that differ from them, or that are missing or too many. Times and speeds, the name of the
  folder itself, and how often a file was tried do not count.

The clips are drawn with ffmpeg and the networks are tiny, so the table says nothing about accuracy.
"""

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from results import write_results

from modeling_avlmm.inference.default_model import DEMONSTRATION_MODEL

ROOT = Path(__file__).parents[1]
MEASURED = re.compile(
    r"runtime|per_second|clips_per_s|tokens_per_s|eta_s|mfu|seconds|memory|flos|speed|pace|date"
)
LOGS = ("log.jsonl", "training.json", "trainer_state.json", "run.json")
TINY = {
    "channels": [4, 8],
    "depths": [1, 1],
    "num_frames": 4,
    "image_size": 56,
    "audio_samples": 3200,
    "num_filters": 8,
    "filter_length": 31,
}


def draw_clips(folder: Path) -> None:
    """Draw the clips: 0.6 to 1.8 s of test pictures and a tone; one file is no video."""
    for split, count in (("train", 6), ("validation", 3), ("test", 9)):
        for label, picture in (("real", "testsrc2"), ("fake", "mandelbrot")):
            for number in range(count):
                path = folder / split / label / f"{number}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                seconds = 0.6 * (1 + number % 3)
                inputs = f"-f lavfi -i {picture}=size=96x96:rate=20 -f lavfi -i sine={200 + 20 * number}"
                coded = f"-t {seconds} -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac"
                words = [
                    "ffmpeg",
                    "-v",
                    "error",
                    "-nostdin",
                    "-y",
                    *inputs.split(),
                    *coded.split(),
                    str(path),
                ]
                subprocess.run(words, check=True)
    (folder / "test" / "fake" / "9.mp4").write_bytes(b"no video" * 30)


def commands(corpus: Path, work: Path) -> dict:
    """Return for each command a function from a folder to its words."""

    def train(folder: Path) -> list:
        recipe = folder.with_suffix(".yaml")
        values = {
            "system": "ssavd",
            "name": "kills",
            "output_dir": str(folder),
            "model": {"options": TINY},
            "data": {"dataset": "avfolder", "protocol": "all", "data_dir": str(corpus), "num_workers": 0},
            "training": {"max_steps": 8, "batch_size": 4, "evaluate_steps": 2, "log_steps": 1},
        }
        recipe.write_text(yaml.safe_dump(values))
        return [ROOT / "train_sft.py", "--recipe", recipe]

    def evaluate(folder: Path) -> list:
        words = [
            "--model",
            DEMONSTRATION_MODEL,
            "--dataset",
            "avfolder",
            "--data-dir",
            corpus,
            "--device",
            "cpu",
        ]
        words += ["--window-seconds", 0.6, "--batch-size", 4, "--resamples", 50, "--output-dir", folder]
        return [ROOT / "evaluate_avd.py", *words]

    def export(folder: Path) -> list:
        words = ["avfolder", "--data-dir", corpus, "--to", folder, "--max-shard-size", "60KB"]
        return ["-m", "modeling_avlmm", "export", *words, "--format", "webdataset"]

    def detect(folder: Path) -> list:
        folder.mkdir(exist_ok=True)
        words = ["--resume", folder / "journal.jsonl", "--csv", folder / "table.csv"]
        return [
            "-m",
            "modeling_avlmm",
            "detect",
            corpus / "test",
            "--model",
            DEMONSTRATION_MODEL,
            *words,
            "--report",
            folder / "page.html",
        ]

    return {"train": train, "evaluate": evaluate, "export": export, "detect": detect}


def state(folder: Path) -> dict[str, str]:
    """Return a hash of each file that a run left, without measured times and the folder's own name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes().replace(str(folder).encode(), b"FOLDER")
            data = data.replace(folder.name.encode(), b"NAME")
            data = re.sub(rb"<time.*?</time>", b"TIME", data)
            if path.name == "journal.jsonl":  # of `detect`: the last result of each file
                entries = [json.loads(line) for line in data.splitlines()]
                results = {entry["file"]: entry["result"] for entry in entries if "result" in entry}
                data = json.dumps(sorted(results.items())).encode()
            if path.name in LOGS:
                lines = data.decode().splitlines() if path.suffix == ".jsonl" else [data.decode()]
                data = json.dumps([_without_measured(json.loads(line)) for line in lines]).encode()
            found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


def _without_measured(value: object) -> object:
    if isinstance(value, dict):
        return {k: _without_measured(v) for k, v in sorted(value.items()) if not MEASURED.search(k.lower())}
    return [_without_measured(item) for item in value] if isinstance(value, list) else value


class Command:
    """A command in folders below `work`, and how long an undisturbed run took."""

    def __init__(self, name: str, words, work: Path):
        self.name, self.words, self.work = name, words, work
        self.seconds = 0.0

    def run(self, folder: Path, seconds: float | None = None) -> bool:
        """Run to the end, or kill after some seconds; return whether it was killed."""
        words = [sys.executable, *map(str, self.words(folder))]
        log = open(self.work / f"{self.name}.log", "ab")  # noqa: SIM115 (closed below)
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        with log:
            process = subprocess.Popen(
                words, cwd=ROOT, env=variables, stdout=log, stderr=log, start_new_session=True
            )
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return True
        if status not in (0, 1):  # 1: a file could not be read
            sys.exit(f"{self.name} ended with status {status}: see {log.name}")
        return False

    def compare(self, kills: int, rng: random.Random) -> dict:
        """Return the row of the table."""
        began = time.monotonic()
        whole = self.work / f"{self.name}_0"
        self.run(whole)
        self.seconds = time.monotonic() - began
        expected = state(whole)
        runs = done = 0
        different: set[str] = set()
        while done < kills:
            runs += 1
            folder = self.work / f"{self.name}_{runs}"
            while done < kills and self.run(folder, rng.uniform(0.2, 1) * self.seconds):
                done += 1
                print(f"{self.name}: kill {done}", flush=True)
            self.run(folder)
            found = state(folder)
            unlike = {
                name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
            }
            if unlike:
                print(f"{self.name}, run {runs}: {', '.join(sorted(unlike))}", flush=True)
            different |= unlike
        return {
            "command": self.name,
            "runs": runs,
            "kills": done,
            "files": len(expected),
            "different": len(different),
        }


def main():
    """Run the campaign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=5, help="of each command [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="number of the campaign [%(default)s]")
    parser.add_argument("--only", nargs="+", metavar="COMMAND", help="train, evaluate, export, detect [all]")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work here, and keep what is made")
    parser.add_argument("--save", action="store_true", help="write the table to benchmarks/results")
    options = parser.parse_args()
    rng, began = random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        work = options.keep or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        corpus = work / "corpus"
        draw_clips(corpus)
        rows = [
            Command(name, words, work).compare(options.kills, rng)
            for name, words in commands(corpus, work).items()
            if not options.only or name in options.only
        ]
    for row in [dict.fromkeys(rows[0], None), *rows]:
        cells = row if row["command"] is None else row.values()
        print("".join(f"{cell!s:>11}" for cell in cells))
    print(
        f"{sum(row['kills'] for row in rows)} kills in {time.monotonic() - began:.0f} s, seed {options.seed}"
    )
    if options.save:
        print(write_results(rows, "kills", ("torch", "transformers"), seed=options.seed))


if __name__ == "__main__":
    main()

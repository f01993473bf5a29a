"""Evaluations as a user runs them: killed and resumed, by two processes, and reported again from the predictions."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from media_factory import make_clip

ROOT = Path(__file__).parents[2]
# Python runs this before anything else.
SLOW_READER = """
import time
from modeling_avlmm.media import MediaReader
read = MediaReader.read
def slowly(self, *arguments, **options):
    time.sleep(0.2)
    return read(self, *arguments, **options)
MediaReader.read = slowly
"""
WRITTEN = ("report.json", "report.md", "report.html", "predictions.parquet")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A corpus whose files have one to three windows of half a second, so that batches begin inside files."""
    folder = tmp_path_factory.mktemp("corpus")
    for split, count in (("validation", 3), ("test", 12)):
        for kind in ("real", "fake"):
            for clip in range(count):
                path = folder / split / kind / f"{clip}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                make_clip(path, seconds=0.5 * (1 + clip % 3), flash_at=0.1 + 0.02 * clip, click_at=0.2)
    (folder / "test" / "fake" / "3.mp4").write_bytes(b"no video" * 20)
    return folder


@pytest.fixture(scope="module")
def evaluate(tiny_detector, corpus, dataset_cache):
    """The command line and its environment variables."""
    variables = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(dataset_cache),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }

    def command(output_dir: Path, *more: str) -> list[str]:
        words = ["--model", tiny_detector, "--dataset", "avfolder", "--data-dir", corpus, "--device", "cpu"]
        words += ["--window-seconds", 0.5, "--batch-size", 4, "--resamples", 50, "--output-dir", output_dir]
        return [sys.executable, *map(str, (ROOT / "evaluate_avd.py", *words, *more))]

    return command, variables


def run(command: list[str], variables: dict) -> str:
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def here(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run the script in this process, which has imported everything, and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["evaluate_avd.py", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "evaluate_avd.py"), run_name="__main__")
    return end.value.code


@pytest.fixture(scope="module")
def whole(evaluate, tmp_path_factory) -> tuple[Path, str]:
    """The folder of an evaluation that nothing disturbed, and what it printed."""
    command, variables = evaluate
    folder = tmp_path_factory.mktemp("whole") / "out"
    return folder, run(command(folder), variables)


def told(printed, out):
    """Return the lines of a run, without those on the pace, of which a slow machine prints more."""
    return [line.replace(str(out), "OUT") for line in printed.splitlines() if not line.endswith("s left")]


def test_a_killed_run_ends_as_one_that_was_not(evaluate, whole, tmp_path):
    command, variables = evaluate
    undisturbed, printed = whole

    # Decoding is slowed down, so that there is a middle to be killed in.
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(SLOW_READER)
    out = tmp_path / "killed"
    slowed = {**variables, "PYTHONPATH": os.pathsep.join((str(slow), str(ROOT)))}
    process = subprocess.Popen(command(out), env=slowed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = out / "test.0of1.jsonl"
    while not journal.is_file() or journal.read_text().count("\n") < 7:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "predictions.parquet").exists() and not (out / "report.json").exists()
    kept = journal.read_text().count("\n")
    assert 7 <= kept < 24

    # The files say what they are about and not where they lie, so they can be compared byte for byte.
    again = run(command(out), variables)
    assert told(again, out) == told(printed, undisturbed)
    for name in WRITTEN:
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert not list(out.glob("*.jsonl"))
    assert json.loads((out / "report.json").read_text())["clips"] == 24


def test_two_processes_give_the_result_of_one(evaluate, tmp_path):
    command, variables = evaluate
    run(command(tmp_path / "one", "--batch-size", "1"), variables)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", "29519", *command(tmp_path / "two", "--batch-size", "1")[1:]]
    printed = run(launch, {**variables, "ACCELERATE_USE_CPU": "true"})
    assert printed.count("Predictions and report are in") == 1
    for name in WRITTEN:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name


def test_a_report_from_the_predictions_alone(whole, tmp_path, monkeypatch, capsys):
    undisturbed, _ = whole
    words = ["--predictions", undisturbed / "predictions.parquet", "--resamples", 50]
    assert here(monkeypatch, *words, "--output-dir", tmp_path / "again") == 0
    assert "overall" in capsys.readouterr().out
    for name in WRITTEN[:3]:
        assert (tmp_path / "again" / name).read_bytes() == (undisturbed / name).read_bytes(), name

    for words, text in (
        (["--model", "x"], "give --dataset, --data-dir; or --predictions"),
        (["--predictions", "p.parquet", "--audit"], "--perturb and --audit need --model"),
        (["--predictions", tmp_path / "none.parquet"], "There is no file"),
    ):
        assert here(monkeypatch, *words) != 0 and text in capsys.readouterr().err

"""The command lines, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from modeling_avlmm.__main__ import COMMANDS, main
from modeling_avlmm.cli.console import UsageError, guarded

ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    """Run Python with the repository importable and no network."""
    variables = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    variables.pop("AVLMM_DEFAULT_MODEL", None)
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=300)


def test_evaluate_publish_detect(tiny_detector, clip_folder, clips, tmp_path, dataset_cache):
    """Go from a trained model to a verdict that others get."""
    evaluation, published = tmp_path / "evaluation", tmp_path / "published"
    words = ["--model", tiny_detector, "--dataset", "avfolder", "--data-dir", clip_folder, "--device", "cpu"]
    done = run(
        ROOT / "evaluate_avd.py",
        *words,
        "--output-dir",
        evaluation,
        cwd=tmp_path,
        HF_DATASETS_CACHE=str(dataset_cache),
    )
    assert done.returncode == 0, done.stderr
    assert "overall" in done.stdout and "1 of 7 clips could not be read" in done.stdout
    assert str(evaluation) in done.stdout.splitlines()[-1]
    report = json.loads((evaluation / "report.json").read_text())

    words = ["--model", tiny_detector, "--to", published, "--metrics", evaluation, "--license", "apache-2.0"]
    done = run("-m", "modeling_avlmm", "publish", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(published) in done.stdout
    assert f"| overall | 6 | 4 | {report['overall']['auc']:.4f} |" in (published / "README.md").read_text()

    words = [
        clips["clip"],
        clips["broken"],
        clips["silent"],
        "--model",
        published,
        "--device",
        "cpu",
        "--json",
    ]
    done = run("-m", "modeling_avlmm", "detect", *words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr  # one of them is no video
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["file"] for result in results] == [
        str(clips[name]) for name in ("clip", "broken", "silent")
    ]
    assert [result["error"] is None for result in results] == [True, False, True]
    assert results[0]["threshold"] == report["threshold"]


def test_wrong_use_is_answered_in_one_line(tmp_path):
    words = ["--model", "x/y", "--dataset", "fakeavcelebb", "--data-dir", tmp_path]
    done = run(ROOT / "evaluate_avd.py", *words)
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("evaluate_avd: There is no dataset 'fakeavcelebb' (did you mean")
    )
    assert "Traceback" not in done.stderr


def test_help_waits_for_no_library():
    """Every command's `--help`, in one process that must not import what takes seconds."""
    code = """
import sys
from modeling_avlmm.__main__ import COMMANDS, main
for words in ([], *([name] for name in COMMANDS)):
    try:
        main([*words, "--help"])
    except SystemExit as end:
        assert not end.code
slow = {"torch", "transformers", "datasets", "matplotlib", "sklearn", "trl", "gradio"} & set(sys.modules)
assert not slow, slow
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: avlmm") == 1 + len(COMMANDS)


def test_warnings_are_plain_and_told_once(capsys):
    def warned() -> int:
        for _ in range(2):
            warnings.warn("two\n  lines", stacklevel=1)
        return 0

    assert guarded(warned) == 0
    assert capsys.readouterr().err == "avlmm: two lines\n"


def test_errors_end_a_command_and_defects_keep_their_traceback(capsys):
    def fails(error: BaseException):
        def body() -> int:
            raise error

        return body

    assert guarded(fails(UsageError("give --a")), KeyError) == 2
    assert guarded(fails(KeyError("x")), KeyError) == 2
    assert guarded(fails(KeyboardInterrupt()), stopped="stopped here") == 130
    assert capsys.readouterr().err.splitlines() == ["avlmm: give --a", "avlmm: 'x'", "avlmm: stopped here"]
    with pytest.raises(ZeroDivisionError):
        guarded(fails(ZeroDivisionError()), KeyError)


def test_errors_and_help(tiny_detector, clips, tmp_path, capsys):
    assert main(["detect", str(clips["clip"]), "--model", str(tmp_path / "nowhere")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    words = [
        "detect",
        str(clips["clip"]),
        "--model",
        str(tiny_detector),
        "--device",
        "cpu",
        "--window-seconds",
        "99",
    ]
    assert main(words) == 2
    assert "more than one pass takes" in capsys.readouterr().err
    assert main(["publish", "--model", str(tmp_path), "--to", str(tmp_path / "out")]) == 2
    assert "no config.json" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["ui", "--port", "99999"])
    assert stop.value.code == 2 and "from 0 to 65535" in capsys.readouterr().err
    for command in ([], ["detect"], ["publish"]):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--help"])
        assert stop.value.code == 0
        assert "usage: avlmm" in capsys.readouterr().out


def test_an_error_names_the_dataset_once(tmp_path, capsys):
    status = main(["audit", "--dataset", "avfolder", "--data-dir", str(tmp_path / "nowhere")])
    error = capsys.readouterr().err
    assert status == 2 and error.startswith("avlmm: avfolder: data_dir ") and error.count("avfolder:") == 1


def test_stream_needs_no_model(gate_folder, clips, monkeypatch, capsys):
    """As for detect, the user's own default is used, or else the package's detector."""
    monkeypatch.setenv("AVLMM_DEFAULT_MODEL", str(gate_folder))
    assert main(["stream", str(clips["long"]), "--patience", "0.1"]) == 0
    assert "windows in" in capsys.readouterr().out


def test_a_process_leaves_with_its_status_after_threads_and_farewells():
    code = """
import atexit, threading, time
from modeling_avlmm.cli.console import leave
atexit.register(print, "bye")
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
print("main", end=" ")
leave(3)
"""
    done = run("-c", code)
    assert (done.returncode, done.stdout.split(), done.stderr) == (3, ["main", "thread", "bye"], "")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
    assert done.returncode != 0 and "No space left" in done.stderr

"""Scoring on Ray: equal to one process, on a cluster of two workers, with files, workers and commands that end."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from modeling_avlmm.__main__ import main
from modeling_avlmm.evaluation.evaluate import evaluate_protocol
from modeling_avlmm.evaluation.evaluation_options import EvaluationOptions
from modeling_avlmm.inference import ray_engine, reader_process
from modeling_avlmm.inference.engine_options import RayOptions
from modeling_avlmm.inference.engines import EngineError
from modeling_avlmm.inference.ray_engine import Loading, RayEngine, RayWorker

ROOT = Path(__file__).parents[2]
# Python runs this before anything else, in Ray's workers, in their readers and in a command of its own: FFmpeg crashes on one file,
# another ends the worker that opens it, once, and a command ends itself when two files have a result.
FAULTS = """
import os, signal
import wrapt

def crashing(module):
    open_tracks = module.tracks_here
    def tracks_here(handle, name, *rest):
        if "crash" in name:
            os.abort()
        return open_tracks(handle, name, *rest)
    module.tracks_here = tracks_here

def killing(module):
    begin = module.MediaReader.__init__
    def __init__(self, source, *rest, **options):
        if "killer" in str(source) and os.path.exists(os.environ["KILL_ONCE"]):
            os.remove(os.environ["KILL_ONCE"])
            os.kill(os.getpid(), signal.SIGKILL)
        begin(self, source, *rest, **options)
    module.MediaReader.__init__ = __init__

def ending(module):
    finish, count = module.Journal.finish, []
    def finish_and_end(self, file, result):
        finish(self, file, result)
        count.append(file)
        if len(count) == int(os.environ.get("KILL_AFTER", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
    module.Journal.finish = finish_and_end

wrapt.register_post_import_hook(crashing, "modeling_avlmm.inference.reader_server")
wrapt.register_post_import_hook(killing, "modeling_avlmm.media")
wrapt.register_post_import_hook(ending, "modeling_avlmm.cli.detect.resume")
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a cluster of two CPUs on this machine, and the file whose being there lets `killer` end a worker."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    folder = tmp_path_factory.mktemp("faults")
    (folder / "sitecustomize.py").write_text(FAULTS)
    variables = {
        "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))),
        "KILL_ONCE": str(folder / "kill_once"),
        "OMP_NUM_THREADS": "1",
        "RAY_memory_monitor_refresh_ms": "0",  # other programs may fill this machine, or keep it busy
        "RAY_worker_niceness": "0",
        "RAY_BACKEND_LOG_LEVEL": "fatal",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        start(ray, tries=4)
        yield ray.get_runtime_context().gcs_address, folder / "kill_once"
        ray.shutdown()


def start(ray, tries: int) -> None:
    """Start the cluster. On a busy machine that takes longer than the 30 s for which Ray waits."""
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.CRITICAL}
    try:
        ray.init("local", num_cpus=2, object_store_memory=80 << 20, **quiet)
    except Exception:  # Ray raises no narrower one
        ray.shutdown()
        if tries == 1:
            raise
        start(ray, tries - 1)


@pytest.fixture
def folder(tmp_path, clips) -> Path:
    place = tmp_path / "folder"
    place.mkdir()
    # Workers take four files at a time, and whichever is first: each four have one that ends a worker.
    for name in ("a", "b", "c_killer", "crash", "killer"):
        suffix = ".wav" if name == "b" else ".mp4"
        shutil.copy(clips["sound" if name == "b" else "short"], place / f"{name}{suffix}")
    (place / "broken.mp4").write_bytes(b"no video" * 20)
    return place


def test_a_killed_and_continued_run_equals_one_process(
    cluster, gate_folder, folder, tmp_path, capsys, monkeypatch
):
    address, kill_once = cluster
    words = ["detect", folder, folder / "missing.mp4", "--model", gate_folder, "--device", "cpu", "--json"]
    words = [*map(str, words), "--output-dir"]
    out, local = tmp_path / "out", tmp_path / "local"
    ray_words = [*words, str(out), "--engine", "ray"]

    # The command ends by a kill, in the middle of the results of the first worker to answer.
    killed = subprocess.run(
        [sys.executable, "-m", "modeling_avlmm", *ray_words, "--ray-address", address, "--ray-workers", "1"],
        env={**os.environ, "KILL_AFTER": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert results_of(out).total() == 2 and not (out / "results.parquet").exists()

    # It goes on, and a worker is killed.
    kill_once.touch()
    status = main(ray_words)
    printed = capsys.readouterr()
    results = [json.loads(line) for line in printed.out.splitlines()]
    assert status == 1 and not kill_once.exists()
    assert "Ray: 2 workers" in printed.err and "files were done before" in printed.err

    monkeypatch.setattr(reader_process, "_nurseries", [])  # one of an earlier test has no faults
    assert main([*words, str(local)]) == 1
    assert results == [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    errors = {Path(r["file"]).name: r["error"]["type"] for r in results if r["error"] is not None}
    assert errors == {
        "broken.mp4": "UnreadableMediaError",
        "crash.mp4": "DecoderCrashedError",
        "missing.mp4": "MediaNotFoundError",
    }
    tables = [pq.read_table(at / "results.parquet").to_pylist() for at in (out, local)]
    assert tables[0] == tables[1] and len(tables[0]) == 7
    # What has a verdict was scored once; what could not be read may have been tried again.
    assert all(results_of(out)[r["file"]] == 1 for r in results if r["error"] is None)


def results_of(out: Path) -> Counter:
    lines = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    return Counter(line["file"] for line in lines if "result" in line)


def test_an_evaluation_equals_one_process(cluster, gate_folder, clip_folder, tmp_path):
    about = {"model": str(gate_folder), "dataset": "avfolder", "data_dir": clip_folder, "device": "cpu"}
    about |= {"n_resamples": 20, "threshold": 0.5}
    whole, _ = evaluate_protocol(EvaluationOptions(**about, output_dir=tmp_path / "local"))
    report, folder = evaluate_protocol(
        EvaluationOptions(**about, output_dir=tmp_path / "ray", ray=RayOptions(workers=(1, 1)))
    )
    assert report == whole
    assert (folder / "predictions.parquet").read_bytes() == (
        tmp_path / "local/predictions.parquet"
    ).read_bytes()


def test_more_workers_than_fit_are_refused(cluster, gate_folder, clips, tmp_path, capsys):
    words = (clips["short"], "--model", gate_folder, "--output-dir", tmp_path / "out", "--device", "cpu")
    status = main(["detect", *map(str, words), "--engine", "ray", "--ray-workers", "2", "--ray-gpus", "1"])
    err = capsys.readouterr().err
    assert status == 2 and "Ray has 2 CPU and 0 GPU, and 2 workers of 1 CPU and 1 GPU each do not fit" in err


# -- without a cluster -----------------------------------------------------------------------------------------------


class Elsewhere(RayEngine):
    """An engine that loses what the test says, and is connected to nothing."""

    lost: dict[int, int]

    def _connect(self):
        self.tasks = []

    def _room(self):
        return 1, (1, 1)

    def _scored(self, texts, size, call):
        self.tasks.append((len(texts), size))
        for number in texts:
            if self.lost.get(number, 0) < len(self.tasks):
                yield number, {"number": number}


@pytest.fixture(scope="module")
def loading(gate_folder) -> Loading:
    return Loading(str(gate_folder), "cpu")


def test_a_file_that_ends_workers_costs_itself(loading):
    engine = Elsewhere(loading.detector(), loading, RayOptions())
    engine.lost = {2: 1, 3: 1, 5: 9}  # twice two were beside it, and one ends every worker
    results = dict(engine.results([f"{n}.mp4" for n in range(8)], batch_size=6))
    assert engine.tasks == [(8, 6), (3, 1)]
    error = results.pop(5)["error"]
    assert error["type"] == "ProcessEnded" and error["message"].startswith(
        "5.mp4: the workers that read it ended twice"
    )
    assert results == {n: {"number": n} for n in (0, 1, 2, 3, 4, 6, 7)}


def test_a_worker_with_another_detector_ends_the_run(loading):
    worker = RayWorker(loading, RayOptions(), ray_engine._identities(loading.detector()), os.getcwd(), {})
    answer = worker({"number": np.array([4]), "source": ['"missing.mp4"']})
    assert json.loads(answer["result"][0])["error"]["type"] == "MediaNotFoundError"
    with pytest.raises(EngineError, match="another detector"):
        RayWorker(loading, RayOptions(), [{"weights": "0"}], "/nowhere", {})


def test_what_is_wrong_for_every_file_ends_the_run(loading, monkeypatch):
    worker = RayWorker(loading, RayOptions(), ray_engine._identities(loading.detector()), os.getcwd(), {})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(worker, "detector", full)
    answer = worker({"number": np.array([4]), "source": ['"a.mp4"']})
    with pytest.raises(EngineError, match=r"a worker cannot go on: OSError.*No space left"):
        ray_engine._checked(json.loads(answer["result"][0]))


def test_only_paths_and_links_travel():
    assert json.loads(ray_engine._as_text({"video": Path("a.mp4"), "audio": None, "label": 1})) == {
        "video": "a.mp4",
        "audio": None,
    }
    assert json.loads(ray_engine._as_text("caf\udce9.mp4")) == "caf\udce9.mp4"
    for source in ({"video": {"path": None, "bytes": b"x"}}, b"x", np.zeros(3)):
        with pytest.raises(EngineError, match="Ray's workers read files"):
            ray_engine._as_text(source)


def test_without_ray_it_says_what_to_install(loading, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install 'modeling-avlmm\[ray\]'"):
        RayEngine(loading.detector(), loading, RayOptions())

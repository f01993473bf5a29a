"""Training as a user runs it: whole runs through the command line, killed and resumed, on one process and on two."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from media_factory import make_clip
from safetensors.torch import load_file

from modeling_avlmm import AVLMMForDeepfakeDetection

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Eight short clips of two classes in a folder per class."""
    folder = tmp_path_factory.mktemp("corpus")
    for label in ("real", "fake"):
        for index in range(4):
            path = folder / label / f"{index}.mp4"
            path.parent.mkdir(exist_ok=True)
            make_clip(path, seconds=1, fps=10, size=(56, 56), click_at=0.1 + 0.2 * index)
    return folder


@pytest.fixture
def recipe(corpus, tiny_backbone, tmp_path):
    """Writes a recipe file; returns a function that does so with changes to its stage."""

    def write(name="recipe", kind="encoders", **stage):
        values = {
            "system": "avlmm",
            "name": "test",
            "output_dir": str(tmp_path / name),
            "model": {"backbone": str(tiny_backbone), "dtype": "float32", "max_pixels": 3136},
            "data": {
                "dataset": "avfolder",
                "data_dir": str(corpus),
                "train_split": "full",
                "num_workers": 0,
                "clip_seconds": 0.8,
            },
            "stages": [
                {
                    "kind": kind,
                    "max_steps": 6,
                    "batch_size": 2,
                    "learning_rate": 1e-3,
                    "save_steps": 2,
                    "log_steps": 1,
                }
                | stage
            ],
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def environment():
    # One thread: sums in one order, so that equal runs are equal to the last bit.
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def command(recipe, *more):
    return [sys.executable, str(ROOT / "train_sft.py"), "--recipe", str(recipe), *map(str, more)]


def run(arguments, **variables):
    done = subprocess.run(
        arguments, capture_output=True, text=True, env=environment() | variables, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def weights(folder):
    return load_file(Path(folder) / "model" / "model.safetensors")


def losses(stage_folder):
    entries = map(json.loads, (stage_folder / "log.jsonl").read_text().splitlines())
    return [entry["loss"] for entry in entries if "loss" in entry]


def test_killed_and_resumed_equals_uninterrupted(recipe, tmp_path):
    run(command(recipe("whole")))

    interrupted = recipe("killed")
    stage = tmp_path / "killed" / "encoders"
    process = subprocess.Popen(command(interrupted), env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list(stage.glob("checkpoints/checkpoint-*/trainer_state.json")):
        assert process.poll() is None and time.monotonic() < deadline, (
            "the run ended before it could be killed"
        )
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (stage / "model").exists()

    output = run(command(interrupted))
    assert "resuming from" in output
    expected, got = weights(tmp_path / "whole" / "encoders"), weights(stage)
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, got[name]), name
    assert losses(tmp_path / "whole" / "encoders") == losses(stage)

    # Started once more, it has nothing left to do.
    assert "done before" in run(command(interrupted))


def test_two_processes_equal_one_with_accumulation(recipe, tmp_path):
    run(command(recipe("one", gradient_accumulation=2, weight_decay=0.1)))
    # `accelerate` starts several processes on CPUs by way of its launcher for several GPUs.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", "29517", *command(recipe("two", weight_decay=0.1))[1:]]
    run(launch, ACCELERATE_USE_CPU="true")
    one, two = tmp_path / "one" / "encoders", tmp_path / "two" / "encoders"
    assert losses(one) == pytest.approx(losses(two), abs=1e-4)
    before, after = weights(one), weights(two)
    for name, tensor in before.items():
        torch.testing.assert_close(tensor, after[name], atol=1e-4, rtol=0, msg=name)
    assert json.loads((two / "model" / "stage.json").read_text())["processes"] == 2


def test_both_stages_leave_what_they_should(recipe, tmp_path, tiny_backbone):
    path = recipe("stages", kind="alignment", max_steps=2, lora_rank=4)
    values = yaml.safe_load(path.read_text())
    values["stages"].append({"kind": "encoders", "max_steps": 2, "batch_size": 2, "train_projectors": False})
    path.write_text(yaml.safe_dump(values))
    output = run(command(path, "--data.video_share", 1))
    for shown in ("loss", "lr lora", "clips/s", "tokens/s", "MFU", "ETA", "0 clips dropped"):
        assert shown in output
    folder = tmp_path / "stages"
    assert (folder / "alignment" / "adapter" / "adapter_model.safetensors").is_file()
    assert json.loads((folder / "dataset.json").read_text())["fake"] == 4
    assert "transformers" in json.loads((folder / "environment.json").read_text())
    assert yaml.safe_load((folder / "recipe.yaml").read_text())["data"]["video_share"] == 1

    start = AVLMMForDeepfakeDetection.from_backbone(str(tiny_backbone)).state_dict()
    aligned, final = weights(folder / "alignment"), weights(folder / "encoders")
    changed = {name for name, tensor in aligned.items() if not torch.equal(tensor, start[name])}
    assert changed and all("language_model.layers" in name for name in changed)
    changed = {name.split(".")[2] for name, tensor in final.items() if not torch.equal(tensor, aligned[name])}
    assert changed == {"visual", "audio_tower"}
    for projector in ("thinker.model.visual.merger.ln_q.weight", "thinker.model.audio_tower.proj.weight"):
        assert torch.equal(final[projector], aligned[projector])

    # The folder belongs to this recipe now.
    refused = subprocess.run(
        command(path, "--seed", 5), capture_output=True, text=True, env=environment(), cwd=ROOT
    )
    assert refused.returncode == 2
    assert "run of another recipe" in refused.stderr and "seed, data differ" in refused.stderr


def test_unreadable_clips_are_listed_and_too_many_stop_the_run(recipe, corpus, tmp_path):
    broken = corpus / "fake" / "broken.mp4"
    broken.write_bytes(b"not a video" * 100)
    try:
        path = recipe("drops", max_steps=6, epochs=1)
        output = run(command(path, "--data.max_drop_share", 0.5))
        assert "1 clips dropped" in output
        listed = (tmp_path / "drops" / "encoders" / "drops.jsonl").read_text().splitlines()
        assert {json.loads(line)["path"] for line in listed} == {"fake/broken.mp4"}
        assert "broken.mp4" in json.loads(listed[0])["message"]

        strict = recipe("strict", max_steps=6)
        stopped = subprocess.run(command(strict), capture_output=True, text=True, env=environment(), cwd=ROOT)
        assert stopped.returncode == 2
        assert "1 clips could not be read, more than the 0" in stopped.stderr
    finally:
        broken.unlink()

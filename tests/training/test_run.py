"""Training AV-LMMDetect as a user does: whole runs by the command line, killed and resumed, in one process and in two."""

import json
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml
from media_factory import make_clip
from safetensors.torch import load_file
from ssavd_factory import TINY
from training_factory import command, environment, finished, finished_here, kill_at_first_checkpoint, refused
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from modeling_avlmm import AVLMMForDeepfakeDetection
from modeling_avlmm.inference.default_model import DEMONSTRATION_MODEL
from modeling_avlmm.publishing.publish import training_summary
from modeling_avlmm.training.recipe_parts import ClipsRecipe, NetworkRecipe, OptimisationRecipe
from modeling_avlmm.training.recipes import AVLMMRecipe, SmallDetectorRecipe, load_recipe
from modeling_avlmm.training.run import train
from modeling_avlmm.training.run_folder import saved_recipe


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Eight short clips, in a folder for each of two classes."""
    folder = tmp_path_factory.mktemp("corpus")
    for label in ("real", "fake"):
        for index in range(4):
            path = folder / label / f"{index}.mp4"
            path.parent.mkdir(exist_ok=True)
            make_clip(path, seconds=1, fps=10, size=(56, 56), click_at=0.1 + 0.2 * index)
    return folder


@pytest.fixture
def recipe(corpus, tiny_backbone, tmp_path):
    """Return a function that writes a recipe file, with changes to its stage."""

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


def weights(folder):
    return load_file(Path(folder) / "model" / "model.safetensors")


def losses(stage_folder):
    entries = map(json.loads, (stage_folder / "log.jsonl").read_text().splitlines())
    return [entry["loss"] for entry in entries if "loss" in entry]


def test_killed_and_resumed_equals_uninterrupted(recipe, tmp_path):
    finished(command(recipe("whole")), environment())

    interrupted = recipe("killed")
    stage = tmp_path / "killed" / "encoders"
    kill_at_first_checkpoint(command(interrupted), stage, environment())
    assert not (stage / "model").exists()

    output = finished(command(interrupted), environment())
    assert "resuming from" in output
    expected, got = weights(tmp_path / "whole" / "encoders"), weights(stage)
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, got[name]), name
    assert losses(tmp_path / "whole" / "encoders") == losses(stage)

    # Started again, it has nothing left to do.
    assert "done before" in finished_here(command(interrupted), environment())


def test_two_processes_equal_one_with_accumulation(recipe, tmp_path):
    finished(command(recipe("one", gradient_accumulation=2, weight_decay=0.1)), environment())
    # `accelerate` starts several processes on CPUs with its launcher for several GPUs.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", "29517", *command(recipe("two", weight_decay=0.1))[1:]]
    finished(launch, {**environment(), "ACCELERATE_USE_CPU": "true"})
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
    output = finished_here(command(path, "--data.video_share", 1, way="command"), environment())
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
    error = refused(command(path, "--seed", 5), environment())
    assert "run of another recipe" in error and "seed, data differ" in error


def test_unreadable_clips_are_listed_and_too_many_stop_the_run(recipe, corpus, tmp_path):
    broken = corpus / "fake" / "broken.mp4"
    broken.write_bytes(b"not a video" * 100)
    try:
        path = recipe("drops", max_steps=6, epochs=1)
        output = finished_here(command(path, "--data.max_drop_share", 0.5), environment())
        assert "1 clip dropped" in output
        listed = (tmp_path / "drops" / "encoders" / "drops.jsonl").read_text().splitlines()
        assert {json.loads(line)["path"] for line in listed} == {"fake/broken.mp4"}
        assert "broken.mp4" in json.loads(listed[0])["message"]

        strict = recipe("strict", max_steps=6)
        assert "1 clip could not be read, more than the 0" in refused(command(strict), environment())
    finally:
        broken.unlink()


@pytest.mark.parametrize("kind", ["alignment", "encoders"])
def test_bfloat16_trains_without_an_accelerator(recipe, kind):
    """The weights that do not train are bfloat16, those that do float32; losses are close to those of float32."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        path = recipe(f"{kind}_{dtype}", kind=kind, max_steps=3, lora_rank=4, gradient_checkpointing=True)
        folder = train(load_recipe(path, ["--model.dtype", dtype]))
        found[dtype] = losses(folder.parent)
        stored = load_file(folder / "model.safetensors").values()
        assert {tensor.dtype for tensor in stored} == {getattr(torch, dtype)}
    assert len(found["bfloat16"]) == 3
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.05)
    assert found["bfloat16"] != found["float32"]


class Tracker(TrainerCallback):
    """Stands in for a tracker's own callback."""

    seen: ClassVar[list[dict]] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append({"run": args.run_name, **logs})


@pytest.mark.parametrize("system", ["avlmm", "ssavd"])
def test_log_lines_go_to_the_trackers_that_the_recipe_names(system, recipe, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(SmallDetectorRecipe, "check_trackers", lambda self: None)
    monkeypatch.setattr(AVLMMRecipe, "check_trackers", lambda self: None)
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "trackio", Tracker)
    monkeypatch.setattr(Tracker, "seen", [])
    if system == "avlmm":
        run = load_recipe(recipe("tracked", max_steps=2), ["--report_to", "trackio"])
    else:
        run = SmallDetectorRecipe(
            system="ssavd",
            name="test",
            output_dir=str(tmp_path / "small"),
            report_to=["trackio"],
            model=NetworkRecipe(options=TINY),
            data=ClipsRecipe("avfolder", data_dir=str(corpus), train_split="full", num_workers=0),
            training=OptimisationRecipe(max_steps=2, batch_size=2, keep="last", log_steps=1),
        )
    train(run)
    told = [entry for entry in Tracker.seen if "loss" in entry]
    assert len(told) == 2 and all(entry["clips_per_s"] > 0 for entry in told)
    assert {entry["run"] for entry in told} == {"test/encoders" if system == "avlmm" else "test/small"}


def test_recipes_saved_by_earlier_versions_are_read(recipe, tmp_path):
    assert saved_recipe(DEMONSTRATION_MODEL / "recipe.yaml").system == "ssavd"
    values = yaml.safe_load(recipe("old").read_text())
    del values["system"]
    (tmp_path / "large.yaml").write_text(yaml.safe_dump(values))
    assert saved_recipe(tmp_path / "large.yaml") == load_recipe(recipe("old"))
    del values["stages"]
    values["model"], values["data"] = {"kind": "ssavd", "preset": "small"}, {"dataset": "avfolder"}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(values))
    small = saved_recipe(tmp_path / "small.yaml")
    assert small.system == "ssavd" and small.model == NetworkRecipe(preset="small")
    # A run that was given what means nothing to its detector resumes without it.
    values["data"] |= {"video_share": 1.0, "audio_share": 0.25, "annotations": "a.jsonl"}
    (tmp_path / "given.yaml").write_text(yaml.safe_dump(values))
    assert saved_recipe(tmp_path / "given.yaml") == small
    # A saved recipe has every field, and is a recipe.
    assert load_recipe(DEMONSTRATION_MODEL / "recipe.yaml").data.video_share == 0.5
    # Cards name the network of either version.
    assert training_summary(DEMONSTRATION_MODEL)["network"]["kind"] == "ssavd"
    (tmp_path / "small.yaml").rename(tmp_path / "recipe.yaml")
    assert training_summary(tmp_path)["network"] == {"kind": "ssavd", "preset": "small", "options": None}

"""Checkpoints that were tampered with: refused before anything in them is used, and no code in them runs."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import TrainerState

from modeling_avlmm.training.recipe_values import RecipeError
from modeling_avlmm.training.run_folder import latest_checkpoint


class Payload:
    """An object whose unpickling writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoints" / "checkpoint-4"
    folder.mkdir(parents=True)
    save_file({"weight": torch.ones(2)}, folder / "model.safetensors")
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    random = {"numpy": np.random.RandomState(0).get_state(), "cpu": torch.random.get_rng_state()}
    torch.save(random, folder / "rng_state.pth")
    torch.save(Payload(tmp_path / "never"), folder / "training_args.bin")  # not read by the trainer
    TrainerState(global_step=4).save_to_json(str(folder / "trainer_state.json"))
    return folder


def refused(checkpoint, message):
    with pytest.raises(RecipeError, match=message) as found:
        latest_checkpoint(checkpoint.parent)
    assert "Delete " in str(found.value) and "\n" not in str(found.value)


def test_a_good_one_is_taken_and_one_that_was_not_finished_is_not(checkpoint):
    assert latest_checkpoint(checkpoint.parent) == checkpoint
    later = checkpoint.with_name("checkpoint-8")
    shutil.copytree(checkpoint, later)
    (later / "trainer_state.json").write_text('{"global_step": 8, "log_hi')
    assert latest_checkpoint(checkpoint.parent) == checkpoint
    assert not (checkpoint.parents[1] / "never").exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "scheduler.pt", "pytorch_model.bin"])
def test_a_pickle_is_not_run(checkpoint, tmp_path, name):
    torch.save({"state": Payload(tmp_path / "ran")}, checkpoint / name)
    refused(checkpoint, f"{name} cannot be resumed from: Weights only load failed")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04" + b"\xff" * 100, b"\xff" * 64])
def test_damaged_tensors(checkpoint, name, content):
    (checkpoint / name).write_bytes(content)
    refused(checkpoint, f"{name} cannot be resumed from")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"global_step": 400}, "its state is of step 400, not of step 4"),
        ({"global_step": "4"}, "its state is of step '4'"),
        ({"log_history": {"loss": 1}}, "its log is not a list of entries"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_state_that_is_not_that_of_its_step(checkpoint, change, message):
    path = checkpoint / "trainer_state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    refused(checkpoint, message)


def test_a_list_for_a_state(checkpoint):
    (checkpoint / "trainer_state.json").write_text("[1]")
    refused(checkpoint, "trainer_state.json cannot be resumed from")


def test_links_are_refused(checkpoint, tmp_path):
    moved = shutil.move(checkpoint / "optimizer.pt", tmp_path / "elsewhere.pt")
    (checkpoint / "optimizer.pt").symlink_to(moved)
    refused(checkpoint, "optimizer.pt cannot be resumed from: a symbolic link")
    (checkpoint / "optimizer.pt").unlink()
    shutil.move(checkpoint, tmp_path / "whole")
    checkpoint.symlink_to(tmp_path / "whole")
    refused(checkpoint, "checkpoint-4 cannot be resumed from: a symbolic link")

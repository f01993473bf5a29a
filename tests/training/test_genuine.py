"""facevoice from genuine recordings alone: a whole run on drawn media, killed, resumed, put together and loaded."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from face_factory import Person, drawn_face, face_clip, voice
from facevoice_factory import SMALL, tiny
from safetensors.torch import load_file
from timm import create_model
from transformers import pipeline

from modeling_avlmm.planning.training_plan import plan_training
from modeling_avlmm.training.assembly import load_picture_weights, load_sound_weights
from modeling_avlmm.training.recipe_values import RecipeError
from modeling_avlmm.training.recipes import load_recipe
from modeling_avlmm.training.run import train


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """A folder with `real/` alone: clips of five people, one file that is no video; photographs, speech, other speech."""
    folder = tmp_path_factory.mktemp("genuine")
    (folder / "clips" / "real").mkdir(parents=True)
    for number in range(5):
        people = [Person(number % 4, (0.4 + 0.04 * number, 0.45), (0.5, 0.5), 0.4 + 0.05 * number)]
        face_clip(folder / "clips" / "real" / f"{number}.mp4", people, seconds=2.0, scene=number)
    (folder / "clips" / "real" / "broken.mp4").write_bytes(b"no video" * 30)
    for name in ("photos", "speech", "others/robot"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        drawn_face(number).convert("RGB").save(folder / "photos" / f"{number}.png")
        soundfile.write(folder / "speech" / f"{number}.wav", voice(1.5 + number / 10).numpy(), 16_000)
        buzz = 0.1 * torch.sign(torch.sin(torch.arange(24_000) / (9 + number)))
        soundfile.write(folder / "others" / "robot" / f"{number}.wav", buzz.numpy(), 16_000)
    soundfile.write(folder / "speech" / "silent.wav", np.zeros(32_000), 16_000)
    return folder


@pytest.fixture(autouse=True)
def threads():
    """Training sets PyTorch's number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def recipe(recordings, tmp_path):
    """Return a function that writes a recipe file, with changes to its parts."""

    def write(name: str = "run", **parts: dict) -> Path:
        steps = {"max_steps": 4, "batch_size": 4, "evaluate_steps": 2, "log_steps": 1, "validation_draws": 2}
        values = {
            "system": "facevoice",
            "name": "test",
            "output_dir": str(tmp_path / name),
            "model": {"options": SMALL, "pretrained": False},
            "data": {
                "dataset": "avfolder",
                "data_dir": str(recordings / "clips"),
                "train_split": "full",
                "photos": str(recordings / "photos"),
                "speech": str(recordings / "speech"),
                "synthetic_speech": str(recordings / "others"),
                "held_out": 0.4,
                "num_workers": 0,
                "max_drop_share": 0.5,
                "frames": 4,
            },
            "picture": steps,
            "sound": steps
            | {"seconds": 1.0, "variants": 1, "vocoder_steps": 2}
            | {"kinds": {"lost_phase": 1, "spectral_vocoder": 1, "robot": 1}},
        }
        for part, changes in parts.items():
            values[part] |= changes
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def test_a_run_from_genuine_recordings_alone(recipe, dataset_cache, recordings, tmp_path, capsys):
    assert train(load_recipe(recipe("whole"))) == tmp_path / "whole" / "model"
    printed = capsys.readouterr().out
    for shown in (
        "made fakes of held-out people: AUC",
        "of pairs in order",
        "threshold",
        "silent",
        "weights train",
    ):
        assert shown in printed, printed
    folder = tmp_path / "whole"
    assert (folder / "no_speech.txt").read_text() == "silent.wav\n"
    drops = [
        json.loads(line)["path"] for line in (folder / "picture" / "drops.jsonl").read_text().splitlines()
    ]
    assert drops == ["real/broken.mp4"]

    with open(folder / "training_files.csv", newline="") as file:
        files = list(csv.DictReader(file))
    assert {row["kind"] for row in files} == {"clips", "photos", "speech"}
    assert sum(row["held_out"] == "yes" for row in files if row["kind"] == "clips") == 2
    summary = json.loads((folder / "model" / "training.json").read_text())
    assert (
        summary["data"]["clips"] == 6 and summary["data"]["photos"] == 3 and summary["data"]["sources"] == []
    )
    assert summary["picture"]["steps"] == summary["sound"]["steps"] == 4

    # Each stage trained its own network and left the other one alone.
    picture, sound, model = (
        load_file(folder / name / "model.safetensors") for name in ("picture/model", "sound/model", "model")
    )
    for name, values in model.items():
        assert torch.equal(values, sound[name])
        if not name.startswith("sound."):
            assert torch.equal(values, picture[name]), name
    assert any(not torch.equal(values, picture[name]) for name, values in sound.items())

    detector = pipeline("av-deepfake-detection", model=str(folder / "model"))
    config = detector.model.config
    assert config.video_scale > 0 and config.audio_scale > 0 and 0 < config.threshold < 1
    result = detector(str(recordings / "clips" / "real" / "0.mp4"))
    assert result["error"] is None and len(result["faces"]) == 1
    assert 0 <= result["video_score"] <= 1 and 0 <= result["audio_score"] <= 1
    assert train(load_recipe(tmp_path / "whole.yaml")) == folder / "model"
    assert "Calibration: done before" in capsys.readouterr().out

    # Put together from the weights of the two networks, on the same crops and sounds.
    words = ["--data.store", str(folder / "store"), "--data.face_cache", str(folder / "faces")]
    for name in ("picture", "sound"):
        words += [f"--model.{name}_weights", str(folder / name / "model" / "model.safetensors")]
    assembled = train(load_recipe(recipe("assembled"), words))
    printed = capsys.readouterr().out
    assert "Stage" not in printed and "Calibration on held-out people" in printed
    weights = load_file(assembled / "model.safetensors")
    assert all(torch.equal(values, model[name]) for name, values in weights.items())
    again = json.loads((assembled / "config.json").read_text())
    assert (again["video_bias"], again["threshold"]) == (config.video_bias, config.threshold)


def test_a_dry_run_says_what_there_is(recipe, dataset_cache, tmp_path, capsys):
    assert plan_training(load_recipe(recipe("dry")), 8.0)
    printed = capsys.readouterr().out
    for shown in (
        "6 genuine clips, 3 photographs, 4 sound files; 5 of 13 people held out",
        "Stage 1/2 picture network",
        "4 steps of 4 pairs",
        "Stage 2/2 sound network",
        "fits in 8.0 GiB",
    ):
        assert shown in printed, printed
    assert not (tmp_path / "dry").exists()
    for words, message in (
        (
            ["--model.options.sound_options", "{channels: [4]}"],
            r"model.options: sound_options has no \['channels'\]",
        ),
        (["--model.options.backbone", "resnet1"], r"model.options: Unknown model \(resnet1\)"),
        (["--sound.held_out_kinds", "[vocoder]"], r"Unknown field sound.kinds.vocoder"),
        (
            ["--picture.kinds", "{faces: 1}"],
            r"Unknown field picture.kinds.faces. Did you mean picture.kinds.face",
        ),
    ):
        with pytest.raises(RecipeError, match=message):
            plan_training(load_recipe(recipe("bad"), words), 8.0)


def test_weights_of_a_network_of_timm(tmp_path):
    model = tiny()
    network = create_model("test_efficientnet", num_classes=1)
    torch.save(network.state_dict(), tmp_path / "picture.pt")
    load_picture_weights(model, tmp_path / "picture.pt")
    frames = torch.rand(2, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(model.eval().frame_log_odds(frames), network.eval()(frames)[:, 0])
    sound = {name: values + 1 for name, values in model.sound.state_dict().items()}
    torch.save({"state": sound, "step": 3}, tmp_path / "sound.pt")
    load_sound_weights(model, tmp_path / "sound.pt")
    assert all(torch.equal(values, sound[name]) for name, values in model.sound.state_dict().items())
    with pytest.raises(RecipeError, match=r"picture.pt lacks \d+ of \d+ weights, such as sound"):
        load_sound_weights(model, tmp_path / "picture.pt")
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    for file, message in (("broken.pt", "holds no weights"), ("none.pt", "there is no file")):
        with pytest.raises(RecipeError, match=message):
            load_sound_weights(model, tmp_path / file)

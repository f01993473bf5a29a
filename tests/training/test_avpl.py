"""Training AVPL by its recipe: two steps on tiny encoders, and recipes that are complete."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from avpl_factory import ENCODERS, TINY, save_tiny_encoders
from media_factory import make_clip
from safetensors.torch import load_file
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from modeling_avlmm import AVPLConfig, AVPLForDeepfakeDetection
from modeling_avlmm.training.recipe_parts import ClipsRecipe, NetworkRecipe, OptimisationRecipe
from modeling_avlmm.training.recipe_values import RecipeError
from modeling_avlmm.training.recipes import SmallDetectorRecipe, load_recipe
from modeling_avlmm.training.run import train
from modeling_avlmm.training.small_detectors import make_detector

ROOT = Path(__file__).parents[2]


def small_run(tmp_path, name: str, **training) -> SmallDetectorRecipe:
    """Return a recipe of two steps on six clips."""
    for label in ("real", "fake"):
        for index in range(3):
            path = tmp_path / "corpus" / "train" / label / f"{index}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            make_clip(path, seconds=0.8, fps=20, size=(32, 32), click_at=0.1 + 0.1 * index)
    folders = save_tiny_encoders(tmp_path / "encoders")
    return SmallDetectorRecipe(
        system="avpl",
        name="test",
        output_dir=str(tmp_path / name),
        model=NetworkRecipe(options={**folders, **TINY}),
        data=ClipsRecipe(
            dataset="avfolder", protocol="all", data_dir=str(tmp_path / "corpus"), num_workers=0
        ),
        training=OptimisationRecipe(max_steps=2, batch_size=4, keep="last", log_steps=1, **training),
    )


def test_two_steps_leave_a_detector_of_the_trained_part(tmp_path):
    recipe = small_run(tmp_path, "run")
    model_dir = train(recipe)
    start, _ = make_detector("avpl", recipe.model)
    stored = load_file(model_dir / "model.safetensors")
    assert stored and not any(name.startswith(ENCODERS) for name in stored)
    trained = AVPLForDeepfakeDetection.from_pretrained(model_dir)
    for name, value in start.vision_encoder.state_dict().items():
        assert torch.equal(value, trained.vision_encoder.state_dict()[name]), name
    assert not torch.equal(stored["audio_prompts.mix.0.weight"], torch.zeros(24, 48))


def test_recomputed_layers_train_the_same_weights(tmp_path, monkeypatch):
    kept = load_file(train(small_run(tmp_path, "kept")) / "model.safetensors")
    calls = []
    layer = CLIPEncoderLayer.forward
    monkeypatch.setattr(
        CLIPEncoderLayer, "forward", lambda self, *a, **k: calls.append(self.training) or layer(self, *a, **k)
    )
    recipe = small_run(tmp_path, "recomputed", gradient_checkpointing=True)
    recomputed = load_file(train(recipe) / "model.safetensors")
    for name, value in kept.items():
        torch.testing.assert_close(recomputed[name], value, rtol=1e-4, atol=1e-6, msg=name)
    # Each layer runs once to count operations, and twice in each of two steps.
    depth = AVPLConfig.from_pretrained(tmp_path / "recomputed" / "model").vision_config.num_hidden_layers
    assert len(calls) == 5 * depth and not any(calls)


@pytest.mark.parametrize("name", ["fakeavceleb", "demo"])
def test_recipes_are_complete(name, tmp_path):
    recipe = load_recipe(ROOT / "recipes" / f"avpl_{name}.yaml")
    recipe.model.options |= save_tiny_encoders(tmp_path)
    model, processor = make_detector("avpl", recipe.model)
    assert processor.max_frames == model.config.num_frames and model.config.save_encoders == (name == "demo")


def test_missing_encoders_are_told(tmp_path):
    with pytest.raises(RecipeError, match=r"model.options.vision_encoder is missing"):
        make_detector("avpl", NetworkRecipe())
    nowhere = {"vision_encoder": str(tmp_path / "a"), "audio_encoder": str(tmp_path / "b")}
    with pytest.raises(RecipeError, match=r"model.options.vision_encoder cannot be read. There is no folder"):
        make_detector("avpl", NetworkRecipe(options=nowhere))
    for folder in nowhere.values():
        Path(folder).mkdir()
    with pytest.raises(RecipeError, match=r"model.options: The vision encoder .* cannot be loaded"):
        make_detector("avpl", NetworkRecipe(options=nowhere))

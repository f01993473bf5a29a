"""The dry run of small detectors: predicted memory is what a step takes, and the command line says it."""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from avpl_factory import TINY as TINY_AVPL
from avpl_factory import save_tiny_encoders
from facevoice_factory import TINY as TINY_FACEVOICE
from media_factory import make_clip
from ssavd_factory import TINY as TINY_SSAVD
from training_factory import command, environment, finished

from modeling_avlmm import FaceVoiceConfig
from modeling_avlmm.evaluation.evaluation_options import EvaluationOptions
from modeling_avlmm.inference.auto import AutoModelForAVDeepfakeDetection
from modeling_avlmm.planning import small_plan
from modeling_avlmm.planning.scoring_plan import plan_scoring, read_scoring
from modeling_avlmm.planning.training_plan import count_clips, plan_training
from modeling_avlmm.training.recipe_parts import ClipsRecipe, NetworkRecipe, OptimisationRecipe
from modeling_avlmm.training.recipe_values import RecipeError
from modeling_avlmm.training.recipes import SmallDetectorRecipe
from modeling_avlmm.training.small_detectors import make_detector

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from memory_table import allocated_at_most  # noqa: E402


def small_recipe(system: str, options: dict, **training) -> SmallDetectorRecipe:
    return SmallDetectorRecipe(
        system=system,
        name="small",
        output_dir="nowhere",
        model=NetworkRecipe(options=options),
        training=OptimisationRecipe(batch_size=8, **training),
    )


def measured(run: Callable[[], None], model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> int:
    """Return the most bytes that a pass takes beside the weights, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run()  # what is made once is not measured
        model.zero_grad(set_to_none=True)
        gc.collect()
        return allocated_at_most(run) + sum(value.nbytes for value in batch.values())
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("system", "bf16"), [("ssavd", False), ("ssavd", True), ("avpl", False)])
def test_predictions_are_what_the_allocator_gives_out(system, bf16, tmp_path):
    options = {"ssavd": TINY_SSAVD, "avpl": TINY_AVPL}[system]
    if system == "avpl":
        options = options | save_tiny_encoders(tmp_path)
    recipe = small_recipe(system, options, bf16=bf16)
    config = small_plan.planned_config(recipe)
    need = small_plan.predict(recipe, config)
    model = AutoModelForAVDeepfakeDetection.from_config(config).train()
    batch = small_plan.make_batch(config, 8)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(**batch).loss
        loss.backward()

    assert need.activations + need.gradients == pytest.approx(
        measured(step, model, batch), rel=0.1, abs=2**20
    )
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert need.trained == sum(weight.numel() for weight in trained)
    assert need.all_weights == sum(weight.numel() for weight in model.parameters())
    assert need.optimizer == 8 * need.trained


@pytest.mark.parametrize(
    ("system", "dtype"), [("ssavd", torch.float32), ("avpl", torch.float32), ("avpl", torch.bfloat16)]
)
def test_predictions_of_scoring_are_what_the_allocator_gives_out(system, dtype, tmp_path):
    options = {"ssavd": TINY_SSAVD, "avpl": TINY_AVPL}[system]
    if system == "avpl":
        options = options | save_tiny_encoders(tmp_path)
    config = small_plan.planned_config(small_recipe(system, options))
    config.save_pretrained(tmp_path / "model")
    scoring = read_scoring(str(tmp_path / "model"), str(dtype).removeprefix("torch."))
    need = dataclasses.replace(scoring, batch_size=8).need()
    model = AutoModelForAVDeepfakeDetection.from_config(config, dtype=dtype).eval()
    batch = small_plan.make_batch(config, 8, labels=False)
    assert "labels" not in batch

    @torch.no_grad()
    def score() -> None:
        model(**batch)

    assert need.activations == pytest.approx(measured(score, model, batch), rel=0.1, abs=2**20)
    assert need.gradients == need.optimizer == need.trained == 0
    assert need.all_weights == sum(weight.numel() for weight in model.parameters())


def test_predictions_for_facevoice_are_what_the_allocator_gives_out():
    config = FaceVoiceConfig(**{**TINY_FACEVOICE, "image_size": 64})
    need = small_plan.predict(small_recipe("ssavd", {}), config)  # of the recipe, the optimisation counts
    model = AutoModelForAVDeepfakeDetection.from_config(config).train()
    batch = small_plan.make_batch(config, 8)
    assert batch["frame_mask"].all() and batch["audio_mask"].all()
    expected = measured(lambda: model(**batch).loss.backward(), model, batch)
    assert need.activations + need.gradients == pytest.approx(expected, rel=0.1, abs=2**20)
    assert need.trained == need.all_weights == sum(weight.numel() for weight in model.parameters())

    scoring = small_plan.SmallScoring(config, torch.float32, batch_size=8).need()
    batch = small_plan.make_batch(config, 8, labels=False)
    with torch.no_grad():
        expected = measured(lambda: model.eval()(**batch), model, batch)
    assert scoring.activations == pytest.approx(expected, rel=0.1, abs=2**20)


def test_a_dry_evaluation_of_a_small_detector(tmp_path, capsys):
    for label in ("real", "fake"):
        path = tmp_path / "data" / "test" / label / "0.mp4"
        path.parent.mkdir(parents=True)
        make_clip(path, seconds=0.4, fps=20, size=(32, 32))
    small_plan.planned_config(small_recipe("ssavd", TINY_SSAVD)).save_pretrained(tmp_path / "model")
    options = EvaluationOptions(
        model=str(tmp_path / "model"),
        dataset="avfolder",
        protocol="all",
        data_dir=tmp_path / "data",
        batch_size=64,
    )
    assert plan_scoring(options, memory_gib=16)
    printed = capsys.readouterr().out
    assert "test 2" in printed and "GiB predicted (weights" in printed and "fits in 16.0 GiB" in printed
    assert not plan_scoring(options, memory_gib=1.0)
    printed = capsys.readouterr().out
    assert "--dtype bfloat16" in printed and "--batch-size 1" in printed and "--window-seconds" not in printed


def test_a_dry_run_counts_what_would_be_drawn(tmp_path, capsys):
    for label, count in (("real", 3), ("fake", 5)):
        for index in range(count):
            path = tmp_path / "train" / label / f"{index}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            make_clip(path, seconds=0.4, fps=20, size=(32, 32))
    recipe = small_recipe("ssavd", TINY_SSAVD, epochs=3, keep="last")
    recipe.data = ClipsRecipe("avfolder", "all", str(tmp_path))
    assert plan_training(recipe, memory_gib=16)
    printed = capsys.readouterr().out
    assert "Dry run of small: nothing is loaded, trained or written." in printed
    assert "split train: 8 clips" in printed and "fits in 16.0 GiB" in printed
    assert "3 steps of 8 clips (8 at a time x 1 x 1 process): 24 clips" in printed
    recipe.data.pseudo_fakes = 0.5
    assert count_clips(recipe)[0] == 3
    recipe.training.keep = "auc"
    with pytest.raises(RecipeError, match="keep is auc, and there is no split 'validation' to score"):
        plan_training(recipe, memory_gib=16)


def test_what_does_not_fit_is_told_with_what_would_help(tmp_path, capsys):
    recipe = small_recipe("avpl", TINY_AVPL | save_tiny_encoders(tmp_path))
    assert not plan_training(recipe, memory_gib=1.0)
    printed = capsys.readouterr().out
    assert "does NOT fit in 1.0 GiB" in printed and "What would help, each by itself:" in printed
    for setting in (
        "--training.gradient_checkpointing true",
        "--training.batch_size 4",
        "--training.bf16 true",
    ):
        assert setting in printed
    ssavd = small_recipe("ssavd", TINY_SSAVD)
    assert not plan_training(ssavd, memory_gib=1.0)
    assert "gradient_checkpointing" not in capsys.readouterr().out  # it has none


def test_encoders_that_are_not_there_are_told(tmp_path):
    with pytest.raises(RecipeError, match=r"model.options.vision_encoder is missing"):
        plan_training(small_recipe("avpl", {}))
    nowhere = {"vision_encoder": str(tmp_path / "a"), "audio_encoder": str(tmp_path / "b")}
    with pytest.raises(RecipeError, match=r"vision_encoder cannot be read. There is no folder .*/a,") as told:
        plan_training(small_recipe("avpl", nowhere))
    assert f"tiny.encoders --data-dir runs/demo/data --output-dir {tmp_path}" in str(told.value)
    with pytest.raises(RecipeError, match=r"vision_encoder cannot be read. There is no folder .*/a,"):
        make_detector("avpl", NetworkRecipe(options=nowhere))  # as the run itself
    further = small_recipe("ssavd", {})
    further.model.start = "runs/none/at/all"
    for refused in (partial(plan_training, further), partial(make_detector, "ssavd", further.model)):
        with pytest.raises(RecipeError, match=r"model.start cannot be read. There is no folder runs/none/at"):
            refused()


@pytest.mark.parametrize(("name", "way"), [("ssavd_demo", "script"), ("avpl_demo", "command")])
def test_the_demonstrations_recipes_have_a_dry_run(name, way, tmp_path):
    words = ["--dry-run", "--memory-gib", 16, "--output_dir", tmp_path / "out"]
    if name == "avpl_demo":
        for part, folder in save_tiny_encoders(tmp_path).items():
            words += [f"--model.options.{part}", folder]
    recipe = ROOT / "recipes" / f"{name}.yaml"
    printed = finished(command(recipe, *words, way=way), environment())
    assert f"Stage 1/1 {name} ({name.partition('_')[0]})" in printed and "fits in 16.0 GiB" in printed
    assert ("476,234 of 476,234 weights train" in printed) == (name == "ssavd_demo")
    assert not (tmp_path / "out").exists()

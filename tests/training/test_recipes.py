"""Recipes are read as written, and mistakes in them are named."""

from pathlib import Path

import pytest
import torch

from dataset_scripts.demo_benchmark.face import FRAME_SIZE
from modeling_avlmm.media import Clip
from modeling_avlmm.training.avlmm_stages import load_to_train
from modeling_avlmm.training.recipe_parts import STAGE_KINDS, StageRecipe
from modeling_avlmm.training.recipe_values import RecipeError
from modeling_avlmm.training.recipes import (
    SYSTEMS,
    AVLMMRecipe,
    GenuineRecipe,
    SmallDetectorRecipe,
    load_recipe,
    recipe_from,
)
from modeling_avlmm.training.run import AVLMM_STAGES
from modeling_avlmm.training.stage_kinds import KINDS

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "system: avlmm\nname: r\noutput_dir: out\nstages:\n- kind: alignment\n- kind: encoders\n  learning_rate: 1e-5\n"
    )
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_in_the_repository_reads(path):
    first = path.stem.partition("_")[0]
    system = {"ssavd": "ssavd", "avpl": "avpl", "genuine": "facevoice"}.get(first, "avlmm")
    recipe = load_recipe(path)
    assert (recipe.name, recipe.system) == (path.stem, system)
    kinds = {"avlmm": AVLMMRecipe, "facevoice": GenuineRecipe}
    assert type(recipe) is kinds.get(system, SmallDetectorRecipe)
    if system == "avlmm":
        kinds = [stage.kind for stage in recipe.stages]
        assert (
            kinds == ["analysis"]
            if path.stem.startswith("analysis")
            else kinds[-2:] == ["alignment", "encoders"]
        )


def test_published_runs_have_recipes():
    assert {"fakeavceleb_7b", "mavos_dd_7b", "demo"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize(
    ("name", "overrides", "side"),
    [
        ("demo", [], 56),
        ("analysis_demo", [], 56),
        # The stock resizing rounds both sides of a frame down that is larger than allowed.
        ("demo", ["--model.max_pixels", "3136"], 28),
    ],
)
def test_frames_of_the_demonstration_are_as_large_as_its_recipes_say(name, overrides, side, tiny_backbone):
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / f"{name}.yaml", overrides)
    _, processor = load_to_train(str(tiny_backbone), recipe)
    frames = torch.randint(0, 256, (8, 3, FRAME_SIZE, FRAME_SIZE), dtype=torch.uint8)
    clip = Clip(
        frames=frames,
        timestamps=torch.arange(8, dtype=torch.float64) / 4,
        audio=torch.zeros(32_000),
        start=0.0,
        end=2.0,
        name="drawn",
        warnings=[],
    )
    patch = processor.video_processor.patch_size
    assert processor.encode(clip, ["overall"])["video_grid_thw"].tolist() == [4, side // patch, side // patch]


@pytest.mark.parametrize(
    ("kind", "rate"),
    [
        ("alignment", "vision_learning_rate"),
        ("alignment", "projector_learning_rate"),
        ("analysis", "vision_learning_rate"),
        ("analysis", "audio_learning_rate"),
    ],
)
def test_a_rate_of_what_is_frozen_is_refused(kind, rate):
    with pytest.raises(RecipeError, match=f"{rate} is set, but stages of kind {kind} freeze"):
        StageRecipe(kind=kind, **{rate: 1e-4})
    assert StageRecipe(kind="encoders", **{rate: 1e-4}).kind == "encoders"


def test_overrides(recipe_file):
    recipe = load_recipe(
        recipe_file,
        [
            "--seed",
            "3",
            "--data.balance=none",
            "--stages.alignment.lora_rank",
            "8",
            "--stages.1.learning_rate",
            "2e-6",
        ],
    )
    assert recipe.seed == 3 and recipe.data.balance == "none"
    assert recipe.stages[0].lora_rank == 8
    assert recipe.stages[1].learning_rate == 2e-6


def test_numbers_without_a_point_are_numbers(recipe_file):
    assert load_recipe(recipe_file).stages[1].learning_rate == 1e-5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["--data.balanse", "none"], "Unknown field data.balanse. Did you mean data.balance?"),
        (["--stages.0.lora_ranc", "8"], "Unknown field stages.0.lora_ranc. Did you mean stages.0.lora_rank?"),
        (
            ["--stages.warmup.lora_rank", "8"],
            "there is no stage 'warmup'; the stages are alignment, encoders",
        ),
        (["--seed", "many"], "seed must be int, got 'many'"),
        (["--data.num_workers", "1.5"], "data.num_workers must be int"),
        (["--stages.0.train_projectors", "3"], "must be bool"),
        (["--stages.0.kind", "sft"], "must be one of pretraining, alignment, encoders"),
        (["--data.balance", "all"], "it must be one of modality, label, family, none"),
        (["--stages.0.kind", "pretraining"], "needs data.annotations"),
        (["--stages.1.name", "alignment"], "Stages need different names"),
        (["--seed"], "--seed needs a value"),
        (["seed", "1"], "Expected --field value"),
        (["--seed.more", "1"], "seed has no fields"),
    ],
)
def test_mistakes_are_named(recipe_file, override, message):
    text = recipe_file.read_text()
    if override[0].startswith("--seed."):
        recipe_file.write_text(text + "seed: 1\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_file, override)
    assert message in str(caught.value)


def test_missing_files_and_fields(tmp_path):
    (tmp_path / "demo.yaml").write_text("system: avlmm\noutput_dir: x\nstages: [{kind: alignment}]\n")
    with pytest.raises(RecipeError, match=r"no recipe .*dem.yaml. There are: demo"):
        load_recipe(tmp_path / "dem.yaml")
    with pytest.raises(RecipeError, match="lacks name"):
        load_recipe(tmp_path / "demo.yaml")
    (tmp_path / "demo.yaml").write_text("system: avlmm\nname: x\noutput_dir: x\n")
    with pytest.raises(RecipeError, match="at least one entry under stages"):
        load_recipe(tmp_path / "demo.yaml")


def test_stage_is_named_after_its_kind():
    assert StageRecipe(kind="encoders").name == "encoders"


def test_kinds_of_stages_are_told_alike_in_recipes_and_in_code():
    assert tuple(AVLMM_STAGES) == tuple(KINDS) == STAGE_KINDS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: [{kind: alignment}]", "has stages: write `system: avlmm` at its top"),
        ("model: {kind: ssavd}", "Write `system: ssavd` at its top, instead of model.kind"),
        ("seed: 1", "Write `system: NAME` at its top, where NAME is one of avlmm, ssavd, avpl"),
        (
            "system: ssvad",
            "system is 'ssvad'; it must be one of avlmm, ssavd, avpl, facevoice. Did you mean ssavd?",
        ),
        ("system: ssavd\nmodel: {kind: ssavd}", "Unknown field model.kind"),
        (
            "system: ssavd\nstages: [{kind: alignment}]",
            "stages is for recipes with system: avlmm, and this one",
        ),
        (
            "system: avlmm\ntraining: {epochs: 1}",
            "training is for recipes with system: ssavd or avpl, and this",
        ),
        ("system: ssavd\ndata: {video_share: 1.0}", "data.video_share is for recipes with system: avlmm"),
        ("system: avpl\ndata: {audio_share: 0}", "data.audio_share is for recipes with system: avlmm"),
        ("system: ssavd\ndata: {annotations: a}", "data.annotations is for recipes with system: avlmm"),
    ],
)
def test_a_recipe_says_which_detector_it_trains(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    path.write_text(f"name: r\noutput_dir: out\n{text}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert message in str(caught.value)


def test_a_recipe_class_is_of_its_systems():
    with pytest.raises(RecipeError, match=r"system is 'ssavd'; it must be one of avlmm\."):
        AVLMMRecipe(system="ssavd", name="r", output_dir="out", stages=[StageRecipe()])


@pytest.mark.parametrize("system", SYSTEMS)
def test_trackers_are_fields_of_every_recipe(tmp_path, system, monkeypatch):
    path = tmp_path / "r.yaml"
    path.write_text(f"system: {system}\nname: r\noutput_dir: out\n" + "stages: [{}]\n" * (system == "avlmm"))
    assert load_recipe(path).report_to == load_recipe(path, ["--report_to", "none"]).report_to == []
    assert load_recipe(path, ["--report_to", "wandb"]).report_to == ["wandb"]
    both = load_recipe(path, ["--report_to", "[tensorboard, trackio]"])
    assert both.report_to == ["tensorboard", "trackio"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "trackio" else name)
    with pytest.raises(RecipeError, match=r"report_to: trackio is not installed. Run `pip install trackio`"):
        both.check_trackers()
    with pytest.raises(
        RecipeError, match=r"report_to is 'mlflow'; it must be one of tensorboard, trackio, wandb"
    ):
        load_recipe(path, ["--report_to", "mlflow"])


def test_conditions_of_the_calibration_are_perturbations_and_their_levels():
    recipe = {"system": "facevoice", "name": "x", "output_dir": "y"}
    with pytest.raises(RecipeError, match=r"Did you mean calibration\.conditions\.noise"):
        recipe_from({**recipe, "calibration": {"conditions": {"nois": 2}}})
    with pytest.raises(RecipeError, match=r"conditions\.noise is 9; its levels are \[1, 2, 3, 4, 5\]"):
        recipe_from({**recipe, "calibration": {"conditions": {"noise": 9}}})

"""Predicted memory is what a pass really takes, and a dry run says it before anything happens."""

from __future__ import annotations

import dataclasses
import gc
import runpy
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from media_factory import random_clip
from transformers import Qwen2_5OmniThinkerConfig

from modeling_avlmm import AVLMMProcessor
from modeling_avlmm.evaluation.evaluation_error import EvaluationError
from modeling_avlmm.planning import avlmm_plan
from modeling_avlmm.planning.live_bytes import GIB, HEADROOM_GIB, HEADROOM_SHARE, LiveBytes
from modeling_avlmm.planning.memory import make_batch, predict_scoring, predict_stage, real_stage
from modeling_avlmm.planning.scoring_plan import read_scoring
from modeling_avlmm.planning.training_plan import count_clips, plan_training
from modeling_avlmm.training.avlmm_stages import load_to_train
from modeling_avlmm.training.clip_shape import clip_shape
from modeling_avlmm.training.recipe_parts import StageRecipe
from modeling_avlmm.training.recipe_values import RecipeError
from modeling_avlmm.training.recipes import load_recipe
from modeling_avlmm.training.stage_kinds import count_trainable

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from memory_table import allocated_at_most  # noqa: E402

TOLERANCE = {"rel": 0.03, "abs": 2**20}
"""Documented error of a prediction of activations and gradients against the allocator: 3 %, or the buffers inside one operation,
which are not counted and matter where there is little else."""


@pytest.fixture
def one_thread():
    """Run on one thread: each further one takes buffers of its own inside operations on bfloat16, up to 14 % more with two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def thinker(width: int = 128, depth: int = 2, key_heads: int | None = None) -> Qwen2_5OmniThinkerConfig:
    """Return a thinker with tens of megabytes of activations."""
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 8, 8]}
    text = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": depth}
    text |= {"num_attention_heads": width // 64, "num_key_value_heads": key_heads or width // 64}
    text |= {"vocab_size": 2000}
    audio = {"d_model": width, "encoder_layers": depth, "encoder_attention_heads": 2}
    vision = {"hidden_size": width, "intermediate_size": 3 * width, "depth": depth, "num_heads": 2}
    names = ("image_token_index", "video_token_index", "audio_token_index", "audio_start_token_id")
    names += ("audio_end_token_id", "vision_start_token_id", "vision_end_token_id")
    return Qwen2_5OmniThinkerConfig(
        text_config={**text, "rope_parameters": rope},
        audio_config={**audio, "encoder_ffn_dim": 4 * width, "output_dim": width},
        vision_config={**vision, "out_hidden_size": width, "fullatt_block_indexes": [depth - 1]},
        **{name: number for number, name in enumerate(names, start=1)},
    )


@pytest.mark.parametrize(
    ("kind", "recomputed", "accumulation", "dtype", "width"),
    [
        (None, False, 1, torch.float32, 128),
        ("alignment", True, 2, torch.bfloat16, 128),
        ("encoders", False, 1, torch.float32, 128),
        ("encoders", False, 1, torch.bfloat16, 128),
        # Where little is kept, the buffers inside operations on bfloat16 matter: 2.6 MB of 18 at a width of 128.
        ("encoders", True, 2, torch.bfloat16, 256),
    ],
)
def test_predictions_are_what_the_allocator_gives_out(
    one_thread, kind, recomputed, accumulation, dtype, width
):
    config, clips = thinker(width), 2
    shape = clip_shape(config, 3.0, 2.0, 112 * 112)
    options = {"gradient_checkpointing": recomputed, "gradient_accumulation": accumulation}
    stage = kind and StageRecipe(kind, batch_size=clips, lora_rank=8, **options)
    need = (
        predict_scoring(config, shape, clips, dtype)
        if stage is None
        else predict_stage(config, shape, stage, dtype)
    )
    model = real_stage(config, stage, dtype)
    batch = make_batch(config, shape, clips, stage is not None)
    held = sum(value.nbytes for value in batch.values())

    def run() -> None:
        with (
            torch.set_grad_enabled(stage is not None),
            torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16 and stage is not None),
        ):
            output = model(**batch)
        if stage is not None:
            output.loss.backward()

    run()  # what is made once, such as masks, is not measured
    trained = [weight for weight in model.parameters() if weight.requires_grad] if stage else []
    if accumulation == 1:
        model.zero_grad(set_to_none=True)
    held += sum(weight.grad.nbytes for weight in trained if weight.grad is not None)
    gc.collect()
    measured = held + allocated_at_most(run)
    assert need.activations + need.gradients == pytest.approx(measured, **TOLERANCE)
    kept = [*model.parameters(), *model.buffers()]
    assert need.weights == sum({t.data_ptr(): t.nbytes for t in kept if t.numel()}.values())
    assert need.optimizer == 8 * sum(weight.numel() for weight in trained)
    assert need.needed == need.total * (1 + HEADROOM_SHARE) + HEADROOM_GIB * GIB


def test_live_bytes_are_counted_once_and_until_they_are_freed():
    weight = torch.zeros(1000)
    live = LiveBytes([weight])
    with live:
        doubled = weight * 2
        assert live.now == 4000  # the weight itself is counted elsewhere
        halves = doubled.view(2, 500), doubled[:10]  # of the same storage
        assert live.now == live.peak == 4000
        product = doubled * doubled
        assert live.now == 8000
        del product
        assert live.now == 4000
        del doubled
        assert live.now == 4000  # views hold it
        del halves
    assert (live.now, live.peak) == (0, 8000)


def test_gradients_are_told_from_other_tensors():
    layer = torch.nn.Linear(100, 10, bias=False)
    live = LiveBytes(layer.parameters())
    live.watch(layer)
    for _ in range(2):  # the second adds to the first
        with live:
            layer(torch.ones(1, 100)).sum().backward()
        assert live.gradients == layer.weight.grad.nbytes == 4000


def test_the_7b_shape_has_the_published_numbers_of_weights():
    """8.93 G, of which 161.5 M are LoRA's at rank 64 and 1.316 G the encoders' (reference: the model's own files)."""
    config = Qwen2_5OmniThinkerConfig(vision_config={"hidden_size": 1280})
    for kind, trained in (("alignment", 161_480_704), ("encoders", 1_316_197_376)):
        with torch.device("meta"):
            model = real_stage(config, StageRecipe(kind, lora_rank=64))
        assert count_trainable(model) == trained
        frozen = sum(weight.numel() for weight in model.parameters() if not weight.requires_grad)
        assert frozen == 8_931_813_888 - (trained if kind == "encoders" else 0)
        types = {weight.dtype for weight in model.parameters() if weight.requires_grad}
        assert types == {torch.float32}


@pytest.mark.parametrize(("seconds", "fps", "side"), [(2.0, 2.0, 56), (3.5, 4.0, 112), (1.0, 1.0, 84)])
def test_shapes_are_those_of_the_processor(tiny_backbone, tiny_model, seconds, fps, side):
    processor = AVLMMProcessor.from_backbone(
        str(tiny_backbone), fps=fps, min_pixels=28 * 28, max_pixels=side * side + 28
    )  # exactly side * side pixels can be rounded to one row of patches less
    frames = round(seconds * fps)
    clip = random_clip(frames=frames, fps=fps, seconds=seconds, size=(300, 300))
    encoded = processor.encode(clip, ("overall", "video", "audio"))
    config = tiny_model.config.thinker_config
    shape = clip_shape(config, seconds, fps, side * side)
    assert encoded["video_grid_thw"].tolist() == [shape.grids, shape.height, shape.width]
    assert encoded["input_features"].shape[-1] == shape.mel_frames
    ids = encoded["input_ids"]
    assert (ids == processor.tokenizer.video_token_id).sum() == shape.video_tokens
    assert (ids == processor.tokenizer.audio_token_id).sum() == shape.audio_tokens
    text = shape.prompt_tokens + sum(shape.question_tokens)
    assert len(ids) - shape.video_tokens - shape.audio_tokens == pytest.approx(text, rel=0.3)


def test_more_of_anything_takes_more_memory():
    config = thinker()
    shape = clip_shape(config, 3.0, 2.0, 112 * 112)
    stage = StageRecipe("encoders", batch_size=1)
    one = predict_stage(config, shape, stage)
    two = predict_stage(config, shape, StageRecipe("encoders", batch_size=2))
    # Not twice as much: the casts of the weights are the same.
    assert 1.6 * one.activations < two.activations < 2 * one.activations
    assert predict_stage(config, shape, stage, processes=2).gradients == one.gradients + 4 * one.trained
    for larger in (clip_shape(config, 6.0, 2.0, 112 * 112), clip_shape(config, 3.0, 2.0, 168 * 168)):
        assert predict_stage(config, larger, stage).total > one.total
    recomputed = StageRecipe("encoders", batch_size=1, gradient_checkpointing=True)
    assert predict_stage(config, shape, recomputed).activations < 0.6 * one.activations
    assert clip_shape(config, 60.0, 2.0, 112 * 112, max_frames=8).grids == 4


def test_fewer_key_heads_take_less():
    """No matrix of all pairs of tokens is kept for them, and recomputed activations are those of the forward pass."""
    shape = dataclasses.replace(clip_shape(thinker(), 1.0, 1.0, 56 * 56), prompt_tokens=2000)
    for recomputed in (False, True):
        stage = StageRecipe("alignment", lora_rank=8, gradient_checkpointing=recomputed)
        all_heads, one = (predict_stage(thinker(512, key_heads=heads), shape, stage) for heads in (None, 1))
        assert one.activations < all_heads.activations


# -- the command lines -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, clip_folder) -> Path:
    """A recipe of two stages for a thinker that has only a configuration, and for a small corpus."""
    folder = tmp_path_factory.mktemp("dry")
    thinker(width=512, depth=2).save_pretrained(folder / "backbone")
    values = {
        "system": "avlmm",
        "name": "dry",
        "output_dir": str(folder / "out"),
        "model": {"backbone": str(folder / "backbone"), "max_pixels": 448 * 448},
        "data": {"dataset": "avfolder", "data_dir": str(clip_folder), "train_split": "test"},
        "stages": [
            {"kind": "alignment", "batch_size": 4, "gradient_accumulation": 2, "epochs": 10},
            {"kind": "encoders", "max_steps": 3, "gradient_checkpointing": True},
        ],
    }
    (folder / "dry.yaml").write_text(yaml.safe_dump(values))
    return folder / "dry.yaml"


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Return a function that runs a script as its command line does, and returns its status and output."""

    def run(name: str, *words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        status = 0
        try:
            runpy.run_path(str(ROOT / name), run_name="__main__")
        except SystemExit as stop:
            if isinstance(stop.code, str):
                print(stop.code, file=sys.stderr)  # as Python does, and ends with 1
            status = 1 if isinstance(stop.code, str) else stop.code or 0
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def test_a_dry_run_tells_what_would_happen_and_does_nothing(recipe, run_script):
    status, lines, err = run_script("train_sft.py", "--recipe", recipe, "--dry-run", "--memory-gib", "80")
    assert status == 0, err
    assert "Stage 1/2 alignment (alignment)" in lines and "Stage 2/2 encoders (encoders)" in lines
    # 7 clips, 10 times, 8 a step.
    assert "9 steps of 8 clips (4 at a time x 2 x 1 process): 70 clips" in lines
    assert "3 steps of 1 clip" in lines and lines.count("fits in 80.0 GiB") == 2
    assert "derived from shapes, not measured" in lines and "NOT" not in lines
    assert not (recipe.parent / "out").exists()


def test_what_does_not_fit_is_refused_with_what_would_help(recipe, capsys):
    loaded = load_recipe(recipe)
    loaded.stages = loaded.stages[:1]
    assert not plan_training(loaded, memory_gib=2.0)
    printed = capsys.readouterr().out
    assert "does NOT fit in 2.0 GiB" in printed
    for setting in (
        "--stages.alignment.gradient_checkpointing true",
        "--stages.alignment.batch_size 1 --stages.alignment.gradient_accumulation 8",
        "--model.max_pixels 50176",
        "--model.fps 1",
        "--data.clip_seconds 4",
        "over 8 GPUs",
    ):
        assert setting in printed
    # Advice promises what is predicted for the changed recipe.
    line = next(line for line in printed.splitlines() if "--stages.alignment.batch_size 1" in line)
    words = line.split(" (")[0].split()
    changed = load_recipe(recipe, words)
    config = avlmm_plan.thinker_config(changed)
    need = avlmm_plan.predict(changed, changed.stages[0], config)
    assert f" {need.needed / GIB:.1f} needed" in line
    assert ("fits" in line) == (need.needed <= 2 * GIB)


def test_a_dry_run_of_a_wrong_recipe_is_an_error(recipe, tmp_path, run_script, monkeypatch):
    monkeypatch.setattr(avlmm_plan, "advice", lambda *arguments: [])  # is tested above
    words = ("train_sft.py", "--recipe", recipe, "--memory-gib", "0.5")
    status, _, err = run_script(*words, "--dry-run")
    assert status == 1 and "not every stage fits; nothing was run" in err
    status, _, err = run_script(*words)
    assert status == 2 and "--memory-gib is a question for --dry-run" in err
    nowhere = load_recipe(recipe, ["--model.backbone", str(tmp_path / "none")])
    for refused in (plan_training, partial(load_to_train, nowhere.model.backbone)):
        with pytest.raises(RecipeError, match=r"model.backbone cannot be read. There is no folder .*none,"):
            refused(nowhere)
    with pytest.raises(EvaluationError, match="There is no folder runs/none/model, and it is not a Hub id"):
        read_scoring("runs/none/model")


def test_a_split_that_is_not_there_is_an_error(recipe, run_script):
    for words in (("--dry-run",), ()):
        status, _, err = run_script("train_sft.py", "--recipe", recipe, "--data.train_split", "tset", *words)
        assert status == 2 and "split tset" in err and "Unknown split" in err
    assert not (recipe.parent / "out").exists()


def test_a_corpus_that_is_not_there_is_said(recipe, tmp_path):
    absent = load_recipe(recipe, ["--data.data_dir", str(tmp_path / "none")])
    clips, told = count_clips(absent)
    assert clips is None and "there is no folder" in told


def test_a_dry_evaluation(tiny_detector, clip_folder, tmp_path, run_script):
    words = ["evaluate_avd.py", "--model", tiny_detector, "--dataset", "avfolder", "--data-dir", clip_folder]
    words += ["--output-dir", tmp_path / "out", "--dry-run", "--memory-gib"]
    status, out, err = run_script(*words, 8)
    assert status == 0, err
    assert "validation 6, test 7" in out and "windows of up to 4 s" in out and "fits in 8.0 GiB" in out
    assert not (tmp_path / "out").exists()
    status, out, err = run_script(*words, 1)
    assert status == 1 and "--batch-size 1: " in out and "nothing was scored" in err


def test_what_is_scored_is_read_from_the_detectors_files(tiny_detector, tiny_backbone):
    scoring = read_scoring(str(tiny_detector))
    assert scoring.sampling == {"fps": 5.0, "max_frames": 16, "max_pixels": 56 * 56, "max_seconds": 4.0}
    assert scoring.dtype == torch.float32
    assert read_scoring(str(tiny_backbone), "bfloat16").dtype == torch.bfloat16
    assert read_scoring(str(tiny_backbone)).sampling["max_seconds"] == 30.0

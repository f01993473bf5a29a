"""Training a small detector by the command line: from recipe to folder, killed and resumed, from genuine clips alone."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from media_factory import make_clip
from safetensors.torch import load_file
from ssavd_factory import TINY
from training_factory import command, environment, finished, finished_here, kill_at_first_checkpoint, refused
from transformers import Trainer, TrainerState
from transformers.trainer_utils import SaveStrategy

from modeling_avlmm import AutoModelForAVDeepfakeDetection, SSAVDConfig, SSAVDProcessor
from modeling_avlmm.inference.default_model import DEMONSTRATION_MODEL
from modeling_avlmm.training.batches import ClipCollator, DropList, build_schedule, load_split
from modeling_avlmm.training.recipe_parts import ClipsRecipe, NetworkRecipe, OptimisationRecipe
from modeling_avlmm.training.recipe_values import RecipeError
from modeling_avlmm.training.recipes import SmallDetectorRecipe, load_recipe
from modeling_avlmm.training.small_detectors import (
    genuine_clips,
    in_pairs,
    make_detector,
    pseudo_faker,
    validation_split,
)
from modeling_avlmm.training.trainers import (
    DetectorTrainer,
    scores_to_metrics,
    training_arguments,
    verdict_logits,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A small corpus with a validation split; one training file is no video."""
    folder = tmp_path_factory.mktemp("corpus")
    for split, count in (("train", 6), ("validation", 3)):
        for label in ("real", "fake"):
            for index in range(count):
                path = folder / split / label / f"{index}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                make_clip(path, seconds=0.6, fps=20, size=(56, 56), click_at=0.1 + 0.05 * index)
    (folder / "train" / "real" / "9.mp4").write_bytes(b"no video" * 30)
    return folder


@pytest.fixture
def recipe(corpus, tmp_path):
    """Return a function that writes a recipe file, with changes to its parts."""

    def write(name="run", data=None, **training):
        values = {
            "system": "ssavd",
            "name": "test",
            "output_dir": str(tmp_path / name),
            "model": {
                "options": {k: list(v) if isinstance(v, tuple) else v for k, v in TINY.items()},
            },
            "data": {"dataset": "avfolder", "protocol": "all", "data_dir": str(corpus), "num_workers": 0}
            | {"max_drop_share": 0.2}
            | (data or {}),
            "training": {"max_steps": 6, "batch_size": 4, "evaluate_steps": 2, "log_steps": 1} | training,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


@pytest.fixture
def variables(dataset_cache) -> dict[str, str]:
    return environment(dataset_cache)


def test_a_killed_run_ends_as_one_that_was_not(recipe, variables, tmp_path):
    printed = finished(command(recipe("whole")), variables)
    for shown in ("weights train", "clips/s", "MFU", "ETA", "validation AUC", "1 clip dropped"):
        assert shown in printed

    killed = recipe("killed")
    kill_at_first_checkpoint(command(killed), tmp_path / "killed", variables)
    if not (tmp_path / "killed" / "model").exists():
        assert "resuming from" in finished(command(killed), variables)
    whole, resumed = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "killed")
    )
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    assert "done before" in finished_here(command(killed), variables)

    summary = json.loads((tmp_path / "whole" / "model" / "training.json").read_text())
    assert (summary["steps"], summary["clips"], summary["dropped"]) == (6, 24, 1)
    assert 0 <= summary["validation_auc"] <= 1 and summary["best_step"] in (2, 4, 6)
    drops = [json.loads(line) for line in (tmp_path / "whole" / "drops.jsonl").read_text().splitlines()]
    assert {drop["path"] for drop in drops} == {"train/real/9.mp4"}
    model = AutoModelForAVDeepfakeDetection.from_pretrained(tmp_path / "whole" / "model")
    assert model.config.channels == TINY["channels"]
    other = recipe("whole", learning_rate=1.0)
    assert "a run of another recipe (training differ)" in refused(command(other), variables)


def test_from_genuine_clips_alone(recipe, variables, tmp_path):
    data = {"pseudo_fakes": 0.5, "augment": True}
    kinds = ("--data.pseudo_fake_kinds.self_blended_faces", 1)
    printed = finished(command(recipe("pseudo", data, max_steps=2), *kinds, way="command"), variables)
    assert "clips drawn from 7," in printed  # the genuine ones, the broken one among them
    # Validation makes fakes of its own genuine clips, whose sound stays real.
    assert re.search(r"validation AUC \d\.\d{4} \(picture \d\.\d{4}\)\n", printed)
    summary = json.loads((tmp_path / "pseudo" / "model" / "training.json").read_text())
    assert 0 < summary["validation_auc"] <= 1


def test_validation_without_fakes_makes_its_own(recipe, dataset_cache):
    def split(*words):
        loaded = load_recipe(recipe("x", {"pseudo_fakes": 0.5}), [*words])
        return validation_split(loaded, draws=100)

    rows = split()
    assert set(rows["label"]) == {0} and len(rows) == 4 * 3 and rows["draw"] == list(range(100, 112))
    assert sorted(rows["path"]) == sorted(rows["path"][:3] * 4)
    assert len(split("--data.validation_clips", "5")) == 5
    assert set(validation_split(load_recipe(recipe("y")), 100)["label"]) == {0, 1}
    faker = pseudo_faker(load_recipe(recipe("z", {"pseudo_fakes": 0.25, "pseudo_fake_kinds": {"both": 1}})))
    assert faker.weights == {"both": 1.0} and faker.fake_share == 0.25 and not faker.pairs
    pairs = load_recipe(recipe("p", {"pseudo_fakes": 0.5, "pseudo_fake_pairs": True}))
    rows = validation_split(pairs, draws=101)
    # The first of a pair has an even number: each clip is validated as itself and as a fake of itself.
    assert rows["draw"] == list(range(102, 114)) and rows["path"][::2] == rows["path"][1::2]
    assert set(rows["path"][:6:2]) == set(rows["path"])


def test_a_pair_is_cut_and_augmented_alike(recipe, corpus, dataset_cache, tmp_path):
    pairs = load_recipe(
        recipe(
            "p", {"pseudo_fakes": 0.5, "pseudo_fake_pairs": True, "pseudo_fake_kinds": {"upsampled_faces": 1}}
        ),
    )
    genuine = genuine_clips(load_split(pairs.data, "train")).filter(
        lambda path: "9.mp4" not in path, input_columns="path"
    )
    schedule = in_pairs(
        build_schedule(genuine, dataclasses.replace(pairs.data, balance="none"), 4, 0), draws=7
    )
    assert schedule["draw"] == list(range(7)) and schedule["path"][:6:2] == schedule["path"][1:6:2]
    collate = collator(tmp_path, augment=True, pseudo_faker=pseudo_faker(pairs), others=genuine)
    for k in (0, 2, 4):
        (real, known), (fake, made) = (collate.example(schedule[n]) for n in (k, k + 1))
        assert (known, made) == ((0, 0, 0), (1, 1, 0))
        assert (real.start, real.end) == (fake.start, fake.end) and torch.equal(real.audio, fake.audio)
        apart, from_another = (
            (real.frames.float() - clip.frames.float()).abs().mean()
            for clip in (fake, collate.example(schedule[(k + 2) % 6])[0])
        )
        assert 0 < apart < from_another


def test_a_network_without_heads_for_the_tracks_is_validated(recipe, variables):
    printed = finished_here(
        command(recipe("headless", max_steps=2), "--model.options.stream_heads", "false"), variables
    )
    assert re.search(r"validation AUC \d\.\d{4}\n", printed)


def collator(tmp_path, **options) -> ClipCollator:
    processor = SSAVDProcessor.from_config(SSAVDConfig(**TINY))
    return ClipCollator(processor, DropList(tmp_path / "drops.jsonl"), clip_seconds=0.2, **options)


def test_a_batch_has_what_could_be_read(corpus, tmp_path):
    labels = {"label": 1, "video_label": 1, "audio_label": None}
    rows = [
        {"video": str(corpus / "train" / "fake" / "0.mp4"), "audio": None, "path": "a", **labels, "draw": 0},
        {"video": str(corpus / "train" / "real" / "9.mp4"), "audio": None, "path": "b", **labels, "draw": 1},
    ]
    read = collator(tmp_path)
    batch = read(rows)
    assert batch["labels"].tolist() == [1] and batch["audio_labels"].tolist() == [-100]
    assert [drop["path"] for drop in read.drops.entries()] == ["b"]
    assert read(rows[1:]) == {}
    # A draw depends on its number alone; without a number, a clip is taken from its start, unchanged.
    again = collator(tmp_path, augment=True)
    first, second = again([rows[0]]), again([rows[0]])
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["audio_values"], again([{**rows[0], "draw": 5}])["audio_values"])
    plain = {name: value for name, value in rows[0].items() if name != "draw"}
    assert torch.equal(
        again([plain])["audio_values"], collator(tmp_path, crop="start")([rows[0]])["audio_values"]
    )


def test_published_recipes_are_readable():
    sizes = {"demo": 476_234, "genuine_demo": 476_234, "genuine": 483_402, "genuine_wild": 476_234}
    names = {file.stem.removeprefix("ssavd_") for file in (ROOT / "recipes").glob("ssavd_*.yaml")}
    assert names == {*sizes, "fakeavceleb", "dfdc", "df_timit"}
    for name in names:
        loaded = load_recipe(ROOT / "recipes" / f"ssavd_{name}.yaml")
        model, processor = make_detector("ssavd", loaded.model)
        assert sum(p.numel() for p in model.parameters()) == sizes.get(name, 487_632)
        assert processor.max_seconds == 3.0
        if loaded.data.pseudo_fakes:
            assert pseudo_faker(loaded).pairs


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"options": {"chanels": [4]}}, r"model.options.chanels. Did you mean model.options.channels"),
        ({"preset": "tiny"}, "no preset 'tiny'"),
        ({"options": {"image_size": 100}}, "image_size must be a multiple"),
        ({"start": "somewhere", "preset": "small"}, "brings its own configuration"),
    ],
)
def test_networks_that_cannot_be_made(model, message):
    with pytest.raises(RecipeError, match=message):
        make_detector("ssavd", NetworkRecipe(**model))


def test_recipes_that_cannot_be_run(recipe, variables):
    with pytest.raises(RecipeError, match="pseudo_fakes is a share below 1"):
        ClipsRecipe(pseudo_fakes=1.0)
    with pytest.raises(RecipeError, match=r"pseudo_fake_kinds needs data.pseudo_fakes"):
        ClipsRecipe(pseudo_fake_kinds={"both": 1})
    kinds = ClipsRecipe(pseudo_fakes=0.5, pseudo_fake_kinds={"face_swap": 1})
    with pytest.raises(
        RecipeError, match=r"data.pseudo_fake_kinds: no kinds of pseudo-fakes: \['face_swap'\]"
    ):
        pseudo_faker(SmallDetectorRecipe(system="ssavd", name="x", output_dir="y", data=kinds))
    with pytest.raises(RecipeError, match=r"pseudo_fake_pairs are half fakes: set data.pseudo_fakes to 0.5"):
        ClipsRecipe(pseudo_fake_pairs=True)
    for words, message in (
        (["--training.keep", "best"], "training.keep is 'best'; it must be one of auc, last"),
        (["--training.lerning_rate", "1"], "Did you mean training.learning_rate?"),
        (
            ["--training.decay_steps", "5"],
            "decay_steps belongs to training.lr_scheduler: warmup_stable_decay",
        ),
        (["--training.lr_scheduler", "warmup_stable_decay"], "decay_steps belongs to"),
    ):
        with pytest.raises(RecipeError, match=re.escape(message)):
            load_recipe(recipe("bad"), words)
    for way, words, message in (
        ("script", ["--training.keep", "best"], "training.keep is 'best'"),
        ("command", ["--data.validation_split", "dev"], "no split 'dev'"),
    ):
        assert message in refused(command(recipe("bad"), *words, way=way), variables)


def test_a_detector_to_start_from_is_of_the_recipes_system(tmp_path):
    start = NetworkRecipe(start=str(DEMONSTRATION_MODEL))
    model, processor = make_detector("ssavd", start)
    assert model.config.model_type == "ssavd" and processor.max_seconds == 3.0
    model, _ = make_detector("ssavd", dataclasses.replace(start, options={"rectified_pooling": True}))
    assert model.config.rectified_pooling and model.config.frontend == "fast"
    assert (model.config.threshold, model.config.calibration) == (0.5, None)  # those of the weights before
    for options, message in (
        ({"frontend": "sinc"}, "do not fit the weights of"),
        ({"channels": [4, 8, 16, 32]}, "do not fit the weights of"),
        ({"rectified": True}, "Did you mean model.options.rectified_pooling"),
    ):
        with pytest.raises(RecipeError, match=message):
            make_detector("ssavd", dataclasses.replace(start, options=options))
    with pytest.raises(RecipeError, match="is a detector of system ssavd, and the recipe has system: avpl"):
        make_detector("avpl", start)


def test_a_rate_that_rises_stays_and_falls(tmp_path):
    recipe = SmallDetectorRecipe(
        system="ssavd",
        name="x",
        output_dir=str(tmp_path),
        training=OptimisationRecipe(
            max_steps=10, learning_rate=0.5, warmup_steps=2, lr_scheduler="warmup_stable_decay", decay_steps=4
        ),
    )
    arguments = training_arguments(recipe, recipe.training, tmp_path, 10, 10, scored=False)
    weight = torch.nn.Parameter(torch.zeros(1))
    trainer = Trainer(torch.nn.Linear(1, 1), arguments, optimizers=(torch.optim.SGD([weight], lr=0.5), None))
    scheduler = trainer.create_scheduler(10, trainer.optimizer)
    rates = []
    for _ in range(11):
        rates.append(scheduler.get_last_lr()[0])
        trainer.optimizer.step()
        scheduler.step()
    assert rates[:7] == pytest.approx([0, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert rates[7:] == sorted(rates[7:], reverse=True) and rates[8] == pytest.approx(0.25)
    assert rates[-1] == pytest.approx(0)


def test_auc_is_of_the_clips_with_a_verdict():
    overall = torch.tensor([[1.0, 0], [0, 1], [torch.nan, torch.nan], [0, 9], [0, 0.5]])
    picture = torch.tensor([[0.0, 1], [1, 0], [0, 1], [0, 1], [1, 0]])
    sound = torch.zeros(5, 2)
    labels = np.array([[0, 1, 1, -100, 0], [0, 1, -100, -100, 1], [0, 0, 0, 0, 0]])

    def metrics(outputs):
        given = SimpleNamespace(label_ids=tuple(labels), predictions=verdict_logits(outputs, None).numpy())
        return scores_to_metrics(given)

    # The sound has one class only. A fourth output, frame scores, is no verdict.
    assert metrics((overall, picture, sound, torch.zeros(5, 8))) == {"auc": 1.0, "auc_picture": 0.0}
    assert metrics(overall) == {"auc": 1.0}  # a network with one head
    assert metrics((overall, torch.zeros(5, 8))) == {"auc": 1.0}
    labels[0] = 1
    assert metrics(overall) == {"auc": 0.0}


def test_of_equal_weights_the_later_are_kept():
    trainer = object.__new__(DetectorTrainer)
    trainer.state = TrainerState()
    trainer.args = SimpleNamespace(
        metric_for_best_model="auc", greater_is_better=True, save_strategy=SaveStrategy.STEPS
    )
    kept = []
    for step, auc in enumerate((0.5, 1.0, 0.9, 1.0, 0.99), start=1):
        trainer.state.global_step = step
        kept.append(trainer._determine_best_metric({"eval_auc": auc}, None))
    assert kept == [True, True, False, True, False]
    assert (trainer.state.best_global_step, trainer.state.best_metric) == (4, 1.0)

"""Training from cached encoder outputs equals training from the clips; a cache of other encoders is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from media_factory import make_clip, remux
from safetensors.torch import load_file

from modeling_avlmm import AVLMMForDeepfakeDetection, AVLMMProcessor
from modeling_avlmm.training import avlmm_stages
from modeling_avlmm.training.batches import AVCollator, DropList, load_split, verdict_questions
from modeling_avlmm.training.encoder_cache import CachedCollator, EncoderCache, fill_cache, fingerprint
from modeling_avlmm.training.recipe_parts import DataRecipe, ModelRecipe, StageRecipe
from modeling_avlmm.training.recipe_values import RecipeError
from modeling_avlmm.training.recipes import AVLMMRecipe
from modeling_avlmm.training.run import train


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Clips with picture and sound, without sound, without picture, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("corpus")
    for label in ("real", "fake"):
        (folder / label).mkdir()
        make_clip(folder / label / "both.mp4", seconds=1, fps=10, size=(56, 56))
        make_clip(folder / label / "longer.mp4", seconds=1.5, fps=10, size=(112, 56))
    make_clip(folder / "real" / "silent.mp4", seconds=1, fps=10, size=(56, 56), audio=False)
    make_clip(folder / "sound.mp4", seconds=1, fps=10, size=(56, 56))
    remux(folder / "sound.mp4", folder / "fake" / "sound.mp4", "-vn")
    (folder / "sound.mp4").unlink()
    (folder / "fake" / "broken.mp4").write_bytes(b"not a film")
    return folder


@pytest.fixture
def recipe(corpus, tiny_backbone, tmp_path):
    stage = StageRecipe("alignment", max_steps=6, batch_size=2, lora_rank=4, learning_rate=1e-3, log_steps=1)
    return AVLMMRecipe(
        name="test",
        output_dir=str(tmp_path / "run"),
        model=ModelRecipe(str(tiny_backbone), dtype="float32", max_pixels=3136),
        data=DataRecipe(
            "avfolder",
            data_dir=str(corpus),
            train_split="full",
            crop="start",
            clip_seconds=1.0,
            num_workers=0,
            max_drop_share=0.5,
        ),
        stages=[stage],
    )


def with_cache(recipe: AVLMMRecipe, folder: Path, output: Path) -> AVLMMRecipe:
    stage = dataclasses.replace(recipe.stages[0], encoder_cache=str(folder))
    return dataclasses.replace(recipe, output_dir=str(output), stages=[stage])


def losses(model_dir: Path) -> list[float]:
    lines = (model_dir.parent / "log.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


@pytest.fixture
def parts(recipe, tmp_path):
    """Return model, rows, the collator that decodes, and one on a filled cache."""
    model, processor = avlmm_stages.load_to_train(recipe.model.backbone, recipe)
    rows = load_split(recipe.data, "full").sort("path")
    options = {"processor": processor, "questions_of": verdict_questions(processor)}
    options |= {"drops": DropList(tmp_path / "drops"), "clip_seconds": 1.0, "crop": "start"}
    plain = AVCollator(**options)
    cache = EncoderCache(tmp_path / "cache")
    cache.claim({})
    fill_cache(cache, model, rows, plain, bf16=False)
    width = model.config.get_text_config().hidden_size
    return model.eval(), rows, plain, CachedCollator(cache=cache, width=width, **options)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_batches_from_the_cache_give_the_same_loss_and_gradients(recipe, parts, attention):
    _, rows, plain, kept = parts
    model = AVLMMForDeepfakeDetection.from_backbone(recipe.model.backbone, attn_implementation=attention)
    model.eval().requires_grad_(False)
    head = model.language_model.layers[0].self_attn.q_proj.weight.requires_grad_(True)
    asked = [row | {"draw": n, "ask_video": True, "ask_audio": n % 2 == 0} for n, row in enumerate(rows)]
    asked = [row | {"video_label": row["label"], "audio_label": row["label"]} for row in asked]
    results = []
    for collator in (plain, kept):
        batch = collator(asked)
        head.grad = None
        output = model(**batch)
        output.loss.backward()
        results.append((output.loss.detach(), output.logits, output.audio_logits, head.grad.clone()))
    assert head.grad.abs().max() > 0
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, equal_nan=True)
    # Each collator met the broken clip once.
    assert [entry["path"] for entry in plain.drops.entries()] == ["fake/broken.mp4"] * 2


def test_a_cached_batch_runs_no_encoder_and_decodes_nothing(parts, monkeypatch):
    model, rows, _, kept = parts
    rows = rows.filter(lambda path: path != "fake/broken.mp4", input_columns="path")

    def fail(*args, **kwargs):
        raise AssertionError("was run")

    monkeypatch.setattr(CachedCollator, "read", fail)
    for encoder in (model.audio_encoder, model.vision_encoder):
        monkeypatch.setattr(encoder, "forward", fail)
    assert model(**kept(list(rows))).loss.isfinite()


def test_a_modality_that_no_clip_has_is_there_without_tokens(parts):
    model, rows, _, kept = parts
    for paths, empty in ((["real/silent.mp4"], ["audio"]), (["fake/broken.mp4"], ["audio", "video"])):
        batch = kept([row for row in rows if row["path"] in paths])
        assert [n for n in ("audio", "video") if not len(batch[f"{n}_embeds"])] == empty
        assert model(**batch).loss.isfinite()


def test_filling_goes_on_where_it_stopped(parts):
    model, rows, plain, kept = parts
    assert fill_cache(kept.cache, model, rows, plain, bf16=False) == 0
    file = kept.cache.path("real/both.mp4")
    before = load_file(file)
    file.unlink()
    row = next(row for row in rows if row["path"] == "real/both.mp4")
    with pytest.raises(RecipeError, match="start the run again"):
        kept([row])
    assert fill_cache(kept.cache, model, rows, plain, bf16=False) == 1
    assert {name: value.tolist() for name, value in load_file(file).items()} == {
        name: value.tolist() for name, value in before.items()
    }
    file.write_bytes(b"damaged")
    with pytest.raises(RecipeError, match=r"is damaged .* delete it"):
        kept([row])


def test_a_run_from_the_cache_is_the_run_without(recipe, tmp_path, monkeypatch, capsys):
    without = train(recipe)
    first = train(with_cache(recipe, tmp_path / "cache", tmp_path / "first"))
    said = capsys.readouterr().out
    assert "6 clips encoded" in said and "GB for 7 clips" in said
    assert losses(first) == pytest.approx(losses(without), rel=1e-5)
    reads = []
    monkeypatch.setattr(AVCollator, "read", lambda self, row: reads.append(row["path"]) or read(self, row))
    again = train(with_cache(recipe, tmp_path / "cache", tmp_path / "again"))
    assert "0 clips encoded" in capsys.readouterr().out
    assert set(reads) == {"fake/broken.mp4"}
    assert losses(again) == losses(first)
    assert json.loads((again / "stage.json").read_text())["dropped"] == 1


read = AVCollator.read


def test_a_cache_of_other_encoders_or_sampling_is_refused(recipe, tmp_path):
    train(with_cache(recipe, tmp_path / "cache", tmp_path / "first"))
    other = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, fps=1.0))
    with pytest.raises(RecipeError, match=r"another fps\. Delete it, or name another folder"):
        train(with_cache(other, tmp_path / "cache", tmp_path / "second"))
    backbone = tmp_path / "backbone"
    shutil.copytree(recipe.model.backbone, backbone)
    model = AVLMMForDeepfakeDetection.from_backbone(str(backbone))
    with torch.no_grad():
        next(model.audio_encoder.parameters()).add_(1)
    model.thinker.save_pretrained(backbone)
    other = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, backbone=str(backbone)))
    with pytest.raises(RecipeError, match="another encoders"):
        train(with_cache(other, tmp_path / "cache", tmp_path / "third"))


def test_encoders_that_are_shared_out_are_refused(recipe, tmp_path, monkeypatch):
    def sharded(source, recipe):
        model, processor = load(source, recipe)
        next(model.vision_encoder.parameters()).ds_id = 0  # as DeepSpeed marks it
        return model, processor

    load = avlmm_stages.load_to_train
    monkeypatch.setattr(avlmm_stages, "load_to_train", sharded)
    with pytest.raises(RecipeError, match="ZeRO-3 shares them out"):
        train(with_cache(recipe, tmp_path / "cache", tmp_path / "run"))
    assert not (tmp_path / "cache").exists()


def test_a_fingerprint_is_of_every_value_in_every_type():
    weights = [torch.arange(6.0).view(2, 3), torch.ones(3, dtype=torch.bfloat16)]
    before = fingerprint(weights)
    assert before == fingerprint([weight.clone() for weight in weights])
    weights[1][2] = 2
    assert fingerprint(weights) != before


def test_recipes_say_where_a_cache_makes_no_sense(recipe, tmp_path):
    with pytest.raises(RecipeError, match="stages of kind alignment, not encoders"):
        StageRecipe("encoders", encoder_cache="cache")
    cropped = dataclasses.replace(recipe.data, crop="random")
    stage = dataclasses.replace(recipe.stages[0], encoder_cache="cache")
    with pytest.raises(RecipeError, match=r"needs data\.crop: start"):
        dataclasses.replace(recipe, data=cropped, stages=[stage])


def test_the_processor_splits_into_media_and_questions(tiny_backbone, corpus):
    processor = AVLMMProcessor.from_backbone(str(tiny_backbone), max_pixels=3136)
    clip = processor.load(str(corpus / "real" / "both.mp4"))
    whole = processor.encode(clip, ["overall", "audio"])
    media, layout = processor.encode_media(clip)
    asked = processor.encode_questions(layout, ["overall", "audio"])
    assert set(whole) == {*media, *asked, "video_second_per_grid"}
    assert all(torch.equal(whole[name], value) for name, value in {**media, **asked}.items())
    assert (layout.kind, layout.has_audio, layout.has_video) == ("both", True, True)

"""Genuine recordings to train on: who is held out, what may be used, and what is written down about them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from dataset_factory import touch
from dataset_trees.wild import clip, write_wild

from modeling_avlmm.inference.default_model import EMBEDDED_MODEL
from modeling_avlmm.training.batches import load_split
from modeling_avlmm.training.genuine_data import (
    data_record,
    extra_rows,
    genuine_recordings,
    training_files,
)
from modeling_avlmm.training.recipe_values import RecipeError
from modeling_avlmm.training.recipes import load_recipe, recipe_from

ROOT = Path(__file__).parents[2]


def recipe(data: dict):
    return recipe_from({"system": "facevoice", "name": "x", "output_dir": "y", "data": data})


def recordings_of(data: dict, seed: int = 0):
    made = recipe(data).data
    return genuine_recordings(made, load_split(made, made.train_split), seed)


@pytest.fixture
def wild(tmp_path, dataset_cache) -> Path:
    """Clips of eleven people, one of whom also speaks in the sound files; not everything may be used."""
    clips = [
        clip(
            f"clips/{n}.mp4",
            "real",
            "train",
            train_ok="yes",
            identity=f"p{n // 2}",
            licence="MIT",
            repo="a/b",
        )
        for n in range(20)
    ]
    clips += [clip("clips/closed.mp4", "real", "train", identity="p99", licence="none", repo="c/d")]
    clips += [clip("clips/fake.mp4", "fake", "train", train_ok="yes", identity="p1")]
    clips += [clip("clips/dev.mp4", "real", "dev", train_ok="yes", identity="p98")]
    speech = [
        {"file_name": f"speech/{n}.flac", "split": "train", "train_ok": ok, "label": label, "speaker": who}
        for n, (label, ok, who) in enumerate(
            [("real", "yes", "p0"), ("real", "yes", "s1"), ("real", "no", "s2"), ("fake", "yes", "s1")]
        )
    ]
    photos = [
        {"file_name": f"photos/{n}.jpg", "train_ok": "yes", "licence": "CC0", "repo": "e/f"} for n in range(5)
    ]
    write_wild(tmp_path, clips=clips, speech=speech, photos=photos)
    return tmp_path


def wild_data(folder: Path, **more) -> dict:
    place = str(folder)
    return {"dataset": "wild", "data_dir": place, "photos": place, "speech": place, **more}


def test_only_what_may_be_used_is_used(wild):
    found = recordings_of(wild_data(wild, train_ok_only=True))
    names = {each.path for each in found}
    assert all(each.train_ok is True for each in found)
    assert len(names) == 20 + 5 + 2
    assert not names & {
        "clips/closed.mp4",
        "clips/fake.mp4",
        "clips/dev.mp4",
        "speech/2.flac",
        "speech/3.flac",
    }
    record = data_record(found)
    assert record["train_ok"] is True and record["clips"] == 20 and record["photos"] == 5
    assert record["sources"] == [
        {"repo": "a/b", "licence": "MIT", "files": 20},
        {"repo": "e/f", "licence": "CC0", "files": 5},
    ]
    everything = recordings_of(wild_data(wild))
    assert {each.path for each in everything} - names == {"clips/closed.mp4", "speech/2.flac"}
    assert data_record(everything)["train_ok"] is False


def test_people_are_held_out_with_all_that_they_are_in(wild):
    found = recordings_of(wild_data(wild, train_ok_only=True, held_out=0.3))
    by_person: dict[str, set[bool]] = {}
    for each in found:
        by_person.setdefault(each.person, set()).add(each.held_out)
    assert all(len(states) == 1 for states in by_person.values())
    clips = {each.person for each in found if each.kind == "clips"}
    # p0 also speaks in the sound files, and may be held out for them.
    assert 3 <= len({each.person for each in found if each.kind == "clips" and each.held_out}) <= 4
    assert len(clips) == 10
    for kind in ("photos", "speech"):
        states = {each.held_out for each in found if each.kind == kind}
        assert states == {True, False}
    assert found == recordings_of(wild_data(wild, train_ok_only=True, held_out=0.3))
    others = recordings_of(wild_data(wild, train_ok_only=True, held_out=0.3), seed=1)
    assert [each.held_out for each in others] != [each.held_out for each in found]


def test_the_list_of_files(wild):
    found = recordings_of(wild_data(wild))
    rows = list(csv.DictReader(io.StringIO(training_files(found))))
    assert [row["path"] for row in rows] == [each.path for each in found]
    first = next(row for row in rows if row["path"] == "clips/closed.mp4")
    assert (first["train_ok"], first["licence"], first["repo"], first["person"]) == (
        "no",
        "none",
        "c/d",
        "p99",
    )


def test_folders_without_tables(tmp_path, dataset_cache):
    for name in ("real/ann/1.mp4", "real/ann/2.mp4", "real/3.mp4"):
        touch(tmp_path / "clips" / name)
    (
        touch(tmp_path / "faces" / "deep" / "a.JPG"),
        touch(tmp_path / "faces" / "b.png"),
        touch(tmp_path / "faces" / "c.txt"),
    )
    data = {"dataset": "avfolder", "data_dir": str(tmp_path / "clips"), "train_split": "full"}
    found = recordings_of(data | {"photos": str(tmp_path / "faces")})
    assert [(each.kind, each.path) for each in found if each.kind == "photos"] == [
        ("photos", "b.png"),
        ("photos", "deep/a.JPG"),
    ]
    # Where nobody says who is in a file, each file counts as a person.
    assert {each.person for each in found if each.kind == "clips"} == {
        "real/3.mp4",
        "real/ann/1.mp4",
        "real/ann/2.mp4",
    }
    with pytest.raises(RecipeError, match=r"data.speech: .* holds no file that ends in .flac"):
        extra_rows("speech", str(tmp_path / "faces"))
    with pytest.raises(RecipeError, match=r"data.photos: there is no folder nowhere"):
        extra_rows("photos", "nowhere")
    with pytest.raises(RecipeError, match=r"train_ok_only: the clips come without the column train_ok"):
        recordings_of(data | {"train_ok_only": True})


def test_one_person_is_too_few(tmp_path, dataset_cache):
    touch(tmp_path / "real" / "1.mp4")
    with pytest.raises(RecipeError, match=r"the clips show 1 people, and at least 2 are needed"):
        recordings_of({"dataset": "avfolder", "data_dir": str(tmp_path), "train_split": "full"})


def test_recipes_that_cannot_be_run():
    with pytest.raises(RecipeError, match=r"data.balance is for recipes with system: avlmm, ssavd or avpl"):
        recipe({"balance": "none"})
    with pytest.raises(RecipeError, match=r"data.held_out is a share"):
        recipe({"held_out": 1.0})
    with pytest.raises(RecipeError, match=r"Unknown field data.photo. Did you mean data.photos"):
        recipe({"photo": "x"})
    base = {"system": "facevoice", "name": "x", "output_dir": "y"}
    for part, message in (
        ({"picture": {"epochs": 3}}, r"training.epochs is for recipes"),
        ({"sound": {"average": 1}}, r"average is a decay"),
        ({"sound": {"rank_over": "batches"}}, r"one of pair, batch. Did you mean batch"),
        ({"sound": {"traces": 1.5}}, r"sound.traces is a share"),
        ({"sound": {"one_band": -0.1}}, r"sound.one_band is a share"),
        ({"calibration": {"abstain": [0.02, 0.2]}}, r"the second at most calibration.false_alarms"),
        ({"model": {"start": "x", "options": {"image_size": 96}}}, r"model.start brings its own"),
        ({"training": {}}, r"training is for recipes with system: ssavd or avpl"),
    ):
        with pytest.raises(RecipeError, match=message):
            recipe_from(base | part)


def test_the_recipe_that_ships_differs_in_its_recordings_alone():
    general, ships = (load_recipe(ROOT / "recipes" / f"{name}.yaml") for name in ("genuine", "genuine_wild"))
    assert general.calibration == ships.calibration and general.model == ships.model
    assert ships.data.train_ok_only
    # Photographs, redrawn crops and speech of packaged synthesisers are what not everybody has.
    differ = {"photo_share": None, "redrawn_frames": 0}
    assert vars(general.picture) == {**vars(ships.picture), **differ}
    assert vars(general.sound) == {**vars(ships.sound), "held_out_kinds": ["source_filter"]}


def test_weights_that_ship_were_trained_on_what_may_be_used():
    """The embedded detector's own record, against the tables where they are at hand."""
    record = json.loads((EMBEDDED_MODEL / "training.json").read_text()).get("data")
    if record is None:
        pytest.skip("the embedded detector was not trained by the recipe of genuine recordings")
    assert record["train_ok"] is True and record["sources"]
    tables = ROOT.parent / "shared" / "wild"
    if not tables.is_dir():
        pytest.skip("the tables of its recordings are not here")
    allowed: dict[tuple[str, str], int] = {}
    for name, licence in (("clips", "licence"), ("photos", "licence"), ("speech", "licence_corpus")):
        with open(tables / f"{name}.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["train_ok"] == "yes":
                    key = row["repo"], row[licence] or "not stated"
                    allowed[key] = allowed.get(key, 0) + 1
    for source in record["sources"]:
        assert source["files"] <= allowed.get((source["repo"], source["licence"]), 0), source

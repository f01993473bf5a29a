"""Training on the faces of clips: what is cropped, which clips are left out, and what the detector remembers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from face_factory import LEFT, RIGHT, Person, face_clip
from media_factory import make_clip
from ssavd_factory import TINY
from training_factory import command, environment, finished_here, refused

from modeling_avlmm import SSAVDProcessor
from modeling_avlmm.face_crops import crop_side
from modeling_avlmm.faces import crops, square_boxes
from modeling_avlmm.inference.face_cache import FaceCache
from modeling_avlmm.media import MediaReader
from modeling_avlmm.training.clip_faces import ClipFaces, clip_faces
from modeling_avlmm.training.clip_reading import read_row
from modeling_avlmm.training.recipe_values import RecipeError
from modeling_avlmm.training.recipes import load_recipe, recipe_from


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Clips of one and of two people, one without a face, and one that is no video."""
    folder = tmp_path_factory.mktemp("faces")
    for split, count in (("train", 2), ("validation", 1)):
        for label in ("real", "fake"):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                people = [LEFT, RIGHT] if number else [Person(number)]
                face_clip(folder / split / label / f"{number}.mp4", people, seconds=0.8)
    make_clip(folder / "train" / "real" / "bars.mp4", seconds=0.6)
    (folder / "train" / "real" / "broken.mp4").write_bytes(b"no video" * 30)
    return folder


@pytest.fixture
def recipe(corpus, tmp_path) -> Path:
    values = {
        "system": "ssavd",
        "name": "faces",
        "output_dir": str(tmp_path / "run"),
        "model": {"options": {k: list(v) if isinstance(v, tuple) else v for k, v in TINY.items()}},
        "data": {"dataset": "avfolder", "protocol": "all", "data_dir": str(corpus)}
        | {"num_workers": 0, "max_drop_share": 0.5},
        "training": {"max_steps": 2, "batch_size": 4, "log_steps": 1},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def row(path: Path) -> dict:
    return {"video": {"path": str(path), "bytes": None}, "audio": None, "path": path.name}


def test_a_run_on_faces(recipe, dataset_cache, tmp_path):
    printed = finished_here(command(recipe, "--model.faces", "largest"), environment(dataset_cache))
    listing = tmp_path / "run" / "no_face.txt"
    assert f"4 of 6 clips have a face; 1 without one is left out, listed in {listing}" in printed
    assert "2 of 2 clips have a face\n" in printed  # validation
    assert listing.read_text() == "train/real/bars.mp4\n"
    assert "1 clip dropped" in printed
    processor = SSAVDProcessor.from_pretrained(tmp_path / "run" / "model")
    assert (processor.faces, processor.face_margin) == ("largest", 1.3)
    summary = json.loads((tmp_path / "run" / "model" / "training.json").read_text())
    assert summary["dropped"] == 1
    assert len(list((tmp_path / "run" / "faces").rglob("*.npz"))) == 7  # the unreadable one has no entry


def test_the_words_for_faces(recipe):
    assert (
        load_recipe(recipe).model.faces == load_recipe(recipe, ["--model.faces", "off"]).model.faces == "off"
    )
    assert clip_faces(load_recipe(recipe)) is None
    with pytest.raises(RecipeError, match=r"model.faces is .larges.*Did you mean largest"):
        load_recipe(recipe, ["--model.faces", "larges"])
    with pytest.raises(RecipeError, match=r"face_margin is 0.5; it must be from 1"):
        load_recipe(recipe, ["--model.face_margin", "0.5"])
    with pytest.raises(RecipeError, match=r"need model.faces: off"):
        recipe_from(
            {"system": "avlmm", "name": "x", "output_dir": "y", "model": {"faces": "largest"}}
            | {"stages": [{"kind": "analysis"}]}
        )


def test_without_a_single_face_nothing_is_trained(recipe, dataset_cache, tmp_path):
    bars = tmp_path / "bars"
    for label in ("real", "fake"):
        make_clip_in(bars / "train" / label)
    words = ("--model.faces", "largest", "--data.data_dir", bars, "--training.keep", "last")
    assert "no clip shows a face" in refused(command(recipe, *words), environment(dataset_cache))


def make_clip_in(folder: Path) -> None:
    folder.mkdir(parents=True)
    make_clip(folder / "bars.mp4", seconds=0.4)


def test_the_crop_is_that_of_the_largest_face(tmp_path):
    people = [Person(0, (0.25, 0.45), (0.3, 0.5), 0.3), Person(1, (0.7, 0.5), (0.65, 0.5), 0.55)]
    path = face_clip(tmp_path / "two.mp4", people, seconds=1.0, size=(480, 270))
    faces = ClipFaces(FaceCache(tmp_path / "faces"), tmp_path)
    track = faces.track(row(path))
    assert abs(track.boxes[0, :2].mean() - np.array([0.62 * 480, 0.25 * 270]).mean()) < 40
    processor = SSAVDProcessor(fps=5.0, max_frames=5, max_seconds=1.0, face_margin=1.5, faces="largest")
    clip = read_row(row(path), processor, 1.0, None, track)
    with MediaReader(path) as reader:
        whole = reader.read(fps=5.0, max_frames=5)
    boxes = track.box_at(whole.timestamps.numpy())
    squares = square_boxes(boxes, 480, 270, 1.5)
    # Crops have the face's own size over the whole track, but no more than the network takes.
    side = min(crop_side(square_boxes(track.boxes, 480, 270, 1.5)), 224)
    assert np.array_equal(clip.frames.numpy(), crops(whole.frames, squares, side).numpy())
    assert np.array_equal(clip.audio.numpy(), whole.audio.numpy())


def test_a_cut_lies_where_the_face_is(tmp_path):
    path = face_clip(tmp_path / "late.mp4", [Person(seen=(2.0, 3.2))], seconds=4.0)
    track = ClipFaces(FaceCache(tmp_path / "faces"), tmp_path).track(row(path))
    assert track.start == pytest.approx(2.0) and track.end == pytest.approx(3.2)
    processor = SSAVDProcessor(fps=5.0, max_frames=5, max_seconds=1.0, faces="largest")
    starts = []
    for seed in range(8):
        clip = read_row(row(path), processor, 1.0, np.random.default_rng(seed), track)
        assert len(clip.frames) == 5
        starts.append(clip.start)
    assert 2.0 <= min(starts) < max(starts) <= 2.2 + 1e-9
    assert read_row(row(path), processor, 1.0, None, track).start == pytest.approx(2.0)
    # A face that is there for less than a cut: all of it, and the sound around it.
    clip = read_row(row(path), processor, 2.0, np.random.default_rng(0), track)
    assert clip.start == pytest.approx(2.0) and clip.end == pytest.approx(4.0)
    assert len(clip.frames) < 10 and clip.warnings

"""Clips that are cut to a face once: draws from the store are draws from the file, and nothing in it is stale."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_trees.wild import clip, write_wild
from datasets import Dataset
from face_factory import LEFT, RIGHT, Person, face_clip
from media_factory import ffmpeg
from ssavd_factory import TINY

from modeling_avlmm import SSAVDProcessor
from modeling_avlmm.face_crops import FaceTrack
from modeling_avlmm.inference.face_cache import FaceCache
from modeling_avlmm.media import Clip, MediaReader
from modeling_avlmm.planning.training_plan import plan_training
from modeling_avlmm.processing_avpl import AVPLProcessor
from modeling_avlmm.training import clip_store
from modeling_avlmm.training.batches import ClipCollator
from modeling_avlmm.training.clip_faces import ClipFaces
from modeling_avlmm.training.clip_reading import read_row
from modeling_avlmm.training.clip_store import ClipStore, ClipStoreWarning
from modeling_avlmm.training.pseudo_fakes.pseudo_faker import PseudoFaker
from modeling_avlmm.training.recipe_values import RecipeError
from modeling_avlmm.training.recipes import load_recipe
from modeling_avlmm.training.run import train

ROOT = Path(__file__).parents[2]
SECONDS = 1.0


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """A face that is there all the time, one that comes and goes, one that is larger than networks take, one without sound."""
    folder = tmp_path_factory.mktemp("media")
    face_clip(folder / "there.mp4", [LEFT, RIGHT], seconds=2.4, fps=30)
    face_clip(folder / "late.mp4", [Person(2, seen=(1.2, 2.5))], seconds=3.0, fps=25)
    face_clip(folder / "large.mp4", [Person(1, height=0.6)], seconds=1.6, size=(640, 480), sound=False)
    face_clip(folder / "short.mp4", [Person(3)], seconds=0.8)
    return folder


def row(path: Path) -> dict:
    labels = {"label": 0, "video_label": 0, "audio_label": 0}
    return {"video": {"path": str(path), "bytes": None}, "audio": None, "path": path.name, **labels}


def same(one: Clip, other: Clip) -> None:
    assert (one.name, one.start, one.end) == (other.name, other.start, other.end)
    for name in ("frames", "timestamps", "audio"):
        values, expected = getattr(one, name), getattr(other, name)
        assert (values is None) == (expected is None)
        if name == "frames":
            assert torch.equal(values, expected)
        elif values is not None:
            # AAC that is decoded from another packet on is another by a little.
            torch.testing.assert_close(values, expected, rtol=0, atol=1e-6 if name == "timestamps" else 5e-3)


PROCESSORS = {
    "ssavd": SSAVDProcessor(fps=10 / 3, max_frames=4, max_seconds=1.2, faces="largest", image_size=112),
    "avpl": AVPLProcessor(fps=16, max_frames=16, max_seconds=1.0, faces="largest", face_margin=1.6),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_draws_are_those_of_the_file(media, tmp_path, monkeypatch, name):
    processor = PROCESSORS[name]
    faces = ClipFaces(FaceCache(tmp_path / "faces"), tmp_path)
    store = ClipStore(tmp_path / "store", processor, SECONDS, seconds=30.0)
    rows = [row(media / f"{which}.mp4") for which in ("there", "late", "large", "short")]
    drawn = {}
    for each in rows:
        track = faces.track(each)
        for seed in (None, 0, 1, 2):
            rngs = [None if seed is None else np.random.default_rng(seed) for _ in range(2)]
            drawn[each["path"], seed] = store(each, track, rngs[0])
            same(drawn[each["path"], seed], read_row(each, processor, SECONDS, rngs[1], track))
    # And, by the reader alone, at the stated place and size.
    found = drawn["late.mp4", 1]
    assert 1.2 <= found.start < found.end <= 2.5 + 1e-9
    with MediaReader(media / "late.mp4") as reader:
        side = {"face_margin": processor.face_margin, "face_side": found.frames.shape[-1]}
        whole = reader.read(found.start, found.end, processor.fps, track=faces.track(rows[1]), **side)
    assert torch.equal(found.frames, whole.frames)
    assert (
        drawn["large.mp4", 0].frames.shape[-1] == processor.image_size and drawn["large.mp4", 0].audio is None
    )
    assert len({drawn["there.mp4", seed].start for seed in (0, 1, 2)}) > 1

    # Nothing is decoded again.
    monkeypatch.setattr(clip_store, "open_row", None)
    for each in rows:
        same(store(each, faces.track(each), np.random.default_rng(2)), drawn[each["path"], 2])


def test_a_clip_with_a_damaged_passage_is_not_kept(tmp_path, capsys):
    """Draws choose an undamaged stretch, as they do without a store."""
    path = tmp_path / "damaged.mp4"
    made = ["-f", "lavfi", "-i", "testsrc2=size=128x96:rate=25:duration=8", "-f", "lavfi", "-i", "sine=d=8"]
    ffmpeg(*made, "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-c:a", "aac", path)
    data = bytearray(path.read_bytes())
    begin, end = int(len(data) * 0.45), int(len(data) * 0.65)
    data[begin:end] = np.random.default_rng(0).bytes(end - begin)
    path.write_bytes(data)
    times, count = np.arange(40) / 5, 40
    boxes = np.tile([30.0, 20.0, 90.0, 80.0], (count, 1))
    track = FaceTrack(times, boxes, np.zeros((count, 5, 2)), np.ones(count), hold=0.2)
    processor, each = PROCESSORS["ssavd"], row(path)
    store = ClipStore(tmp_path / "store", processor, SECONDS, seconds=30.0)
    starts = set()
    for seed in range(12):
        rngs = np.random.default_rng(seed), np.random.default_rng(seed)
        found = store(each, track, rngs[0])
        same(found, read_row(each, processor, SECONDS, rngs[1], track))
        starts.add(round(found.start))
    (entry,) = (tmp_path / "store").rglob("*.safetensors")
    assert entry.stat().st_size < 1000 and 0 in starts and len(starts) > 2
    faces = ClipFaces(FaceCache(tmp_path / "faces"), tmp_path)
    store.fill(Dataset.from_list([each]), faces)
    assert "0 clips cut, 1 there before or left to be read when drawn" in capsys.readouterr().out


def test_a_batch_is_the_same_with_a_store(media, tmp_path):
    processor = PROCESSORS["ssavd"]
    faces = ClipFaces(FaceCache(tmp_path / "faces"), tmp_path)
    rows = [
        {**row(media / f"{which}.mp4"), "draw": draw} for draw, which in enumerate(("late", "late", "short"))
    ]
    options = {
        "clip_seconds": SECONDS,
        "pseudo_faker": PseudoFaker({"upsampled_faces": 1}, pairs=True),
        "track_of": faces.track,
    }
    batch = ClipCollator(processor, **options)(rows)
    stored = ClipCollator(
        processor, store=ClipStore(tmp_path / "store", processor, SECONDS, 30.0), **options
    )(rows)
    assert batch["labels"].tolist() == [0, 1, 0] and torch.equal(
        batch["pixel_values"], stored["pixel_values"]
    )
    torch.testing.assert_close(batch["audio_values"], stored["audio_values"], rtol=0, atol=5e-3)


def test_nothing_in_a_store_is_stale(media, tmp_path):
    processor, faces = PROCESSORS["ssavd"], ClipFaces(FaceCache(tmp_path / "faces"), tmp_path)
    path = tmp_path / "clip.mp4"
    path.write_bytes((media / "short.mp4").read_bytes())
    store = ClipStore(tmp_path / "store", processor, SECONDS, 30.0)
    kept = store(row(path), faces.track(row(path)), None)
    entry = store.entry(row(path), faces.track(row(path)))
    assert list((tmp_path / "store").rglob("*.*")) == [entry]

    entry.write_bytes(entry.read_bytes()[:1000])
    with pytest.warns(ClipStoreWarning, match="is damaged"):
        same(store(row(path), faces.track(row(path)), None), kept)

    path.write_bytes((media / "large.mp4").read_bytes())
    os.utime(path, ns=(1, 1))
    assert store(row(path), faces.track(row(path)), None).audio is None
    track = faces.track(row(path))
    wider = SSAVDProcessor(fps=10 / 3, max_frames=4, max_seconds=1.2, image_size=112, face_margin=2.0)
    others = [ClipStore(store.folder, wider, SECONDS, 30.0), ClipStore(store.folder, processor, 0.5, 30.0)]
    names = {each.entry(row(path), track) for each in (store, *others)}
    assert len(names | {entry}) == 4


def test_a_killed_filling_goes_on(media, tmp_path, capsys):
    rows = Dataset.from_list([row(media / f"{which}.mp4") for which in ("there", "late", "short")])
    faces = ClipFaces(FaceCache(tmp_path / "faces"), tmp_path)
    store = ClipStore(tmp_path / "store", PROCESSORS["ssavd"], SECONDS, 30.0)
    store.fill(rows.select([0, 1]), faces)
    before = {file: file.stat().st_mtime_ns for file in store.folder.rglob("*.safetensors")}
    store.fill(rows, faces)
    after = {file: file.stat().st_mtime_ns for file in store.folder.rglob("*.safetensors")}
    assert len(before) == 2 and len(after) == 3 and before.items() <= after.items()
    assert "1 clip cut, 2 there before" in capsys.readouterr().out


def test_seconds_that_are_kept(media, tmp_path):
    path = media / "there.mp4"
    faces = ClipFaces(FaceCache(tmp_path / "faces"), tmp_path)
    store = ClipStore(tmp_path / "store", PROCESSORS["ssavd"], SECONDS, seconds=1.5)
    starts = {store(row(path), faces.track(row(path)), np.random.default_rng(n)).start for n in range(12)}
    assert 0 <= min(starts) < max(starts) <= 0.5 + 1e-9


@pytest.fixture
def wild(tmp_path) -> Path:
    """Four people in the layout of `wild`, one clip of whom may not be used, and a fake."""
    folder = tmp_path / "wild"
    known = {"train_ok": "yes", "licence": "MIT", "repo": "a/b"}
    rows = [clip(f"clips/{n}.mp4", "real", "train", identity=f"p{n}", **known) for n in range(4)]
    rows += [clip("clips/closed.mp4", "real", "train", identity="p9")]
    rows += [clip("clips/fake.mp4", "fake", "dev", identity="p0")]
    write_wild(folder, clips=rows)
    for n in range(4):
        face_clip(folder / "clips" / f"{n}.mp4", [Person(n)], seconds=1.0, scene=n)
    return folder


def test_the_recipe_for_genuine_faces(wild, tmp_path, dataset_cache, capsys):
    options = {**TINY, "channels": list(TINY["channels"]), "depths": list(TINY["depths"])}
    words = {
        "output_dir": tmp_path / "run",
        "model.start": "null",
        "model.options": json.dumps(options),
        "data.data_dir": wild,
        "data.store": tmp_path / "store",
        "data.held_out": 0.5,
        "data.validation_clips": 4,
        "training.max_steps": 2,
        "training.warmup_steps": 1,
        "training.decay_steps": 1,
        "training.batch_size": 4,
    }
    words = [str(word) for name, value in words.items() for word in (f"--{name}", value)]
    recipe = load_recipe(ROOT / "recipes" / "ssavd_genuine_wild.yaml", words)
    assert plan_training(recipe, 8.0)
    assert (
        "4 genuine clips; 2 of 4 people held out" in capsys.readouterr().out
        and not (tmp_path / "run").exists()
    )

    folder = train(recipe)
    printed = capsys.readouterr().out
    assert "2 clips cut, 0 there before" in printed and "8 clips drawn from 2," in printed
    summary = json.loads((folder / "training.json").read_text())
    assert summary["data"]["train_ok"] is True and summary["data"]["held_out_people"] == 2
    assert summary["data"]["sources"] == [{"repo": "a/b", "licence": "MIT", "files": 4}]
    assert "closed" not in (tmp_path / "run" / "training_files.csv").read_text()
    assert len(list((tmp_path / "store").rglob("*.safetensors"))) == 4  # validation's, too
    assert SSAVDProcessor.from_pretrained(folder).faces == "largest"

    for changes, message in (
        (["--model.faces", "off"], r"data.store keeps face crops: set model.faces"),
        (["--data.held_out", "1"], r"data.held_out is 1"),
        (["--data.held_out", "null"], r"data.train_ok_only needs data.held_out"),
        (["--data.store_seconds", "0"], r"store_seconds must be above 0"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(ROOT / "recipes" / "ssavd_genuine_wild.yaml", changes)

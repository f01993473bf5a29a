"""Face tracks are found once for each file, and again where a file or its entry changed."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from media_factory import make_clip

from modeling_avlmm.faces import FaceTrack
from modeling_avlmm.inference import face_cache
from modeling_avlmm.inference.face_cache import FaceCache, FaceCacheWarning, largest_track
from modeling_avlmm.media import UnreadableMediaError

COLUMNS = ("times", "boxes", "landmarks", "scores")


def track(index: int, count: int, side: float = 40.0, seed: int = 0) -> FaceTrack:
    """Return a face that stays in its place; values are those that float32 holds exactly."""
    rng = np.random.default_rng([seed, index])
    corner = rng.integers(0, 50, size=2).astype(float)
    boxes = np.tile([*corner, *(corner + side)], (count, 1))
    landmarks = rng.integers(0, 1000, size=(count, 5, 2)) / 8
    return FaceTrack(np.arange(count) / 5 + 0.1 * index, boxes, landmarks, np.full(count, 0.75), index, 0.2)


@pytest.fixture
def found(monkeypatch) -> list[str]:
    """The names of the files that were looked at, by a finder that gives two tracks, or none without sound."""
    looked_at = []

    def find(reader, fps, finder):
        looked_at.append(Path(reader.name).name)
        return [track(0, 5), track(1, 3)] if reader.info.has_audio else []

    monkeypatch.setattr(face_cache, "find_tracks", find)
    return looked_at


def assert_same(first: list[FaceTrack], second: list[FaceTrack]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for name in COLUMNS:
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert (one.index, one.hold) == (other.index, other.hold)


def test_a_file_is_looked_at_once(found, clips, tmp_path):
    cache = FaceCache(tmp_path / "faces")
    source = str(clips["clip"])
    assert_same(cache(source), [track(0, 5), track(1, 3)])
    assert_same(cache({"video": source, "audio": None, "label": 1}), [track(0, 5), track(1, 3)])
    # Another process, and the row of a dataset.
    copy = pickle.loads(pickle.dumps(cache))
    assert_same(copy({"video": {"path": source, "bytes": None}, "audio": None}), cache(Path(source)))
    assert cache(str(clips["silent"])) == cache(str(clips["silent"])) == []
    assert found == ["clip.mp4", "silent.mp4"]
    assert [path.suffix for path in (tmp_path / "faces").rglob("*") if path.is_file()] == [".npz"] * 2


def test_what_an_entry_depends_on(found, clips, tmp_path):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(clips["short"].read_bytes())
    cache = FaceCache(tmp_path / "faces")
    cache(copy)
    FaceCache(tmp_path / "faces", fps=2.0)(copy)
    FaceCache(tmp_path / "faces", trim_leading_silence=True)(copy)
    cache({"video": str(copy), "audio": str(clips["sound"])})
    assert len(found) == 4
    os.utime(copy, ns=(1, 1))
    cache(copy)
    assert len(found) == 5
    cache(copy)
    assert len(found) == 5


def test_sources_that_are_no_files_are_left_to_the_caller(found, clips, tmp_path):
    cache = FaceCache(tmp_path / "faces")
    for source in (
        clips["short"].read_bytes(),
        "https://example.org/clip.mp4",
        {"video": {"path": "clip.mp4", "bytes": clips["short"].read_bytes()}},
        {"video": str(clips["short"]), "audio": clips["sound"].read_bytes()},
    ):
        assert cache(source) is None
    assert found == [] and not (tmp_path / "faces").exists()


@pytest.mark.parametrize("damage", ["cut off", "another key", "no archive", "wrong shape"])
def test_a_damaged_entry_is_found_again(found, clips, tmp_path, damage):
    cache = FaceCache(tmp_path / "faces")
    expected = cache(clips["clip"])
    (entry,) = (tmp_path / "faces").rglob("*.npz")
    if damage == "cut off":
        entry.write_bytes(entry.read_bytes()[:-300])
    elif damage == "no archive":
        entry.write_bytes(b"")
    else:
        arrays = dict(np.load(entry))
        arrays |= {"key": np.array("x")} if damage == "another key" else {"scores": np.zeros(3)}
        np.savez(entry, **arrays)
    with pytest.warns(FaceCacheWarning, match="is damaged"):
        assert_same(cache(clips["clip"]), expected)
    assert_same(cache(clips["clip"]), expected)
    assert len(found) == 2


def test_an_unreadable_file_leaves_no_entry(clips, tmp_path):
    with pytest.raises(UnreadableMediaError):
        FaceCache(tmp_path / "faces")(clips["broken"])
    assert not list((tmp_path / "faces").rglob("*.npz"))


def test_several_writers_of_one_entry(found, clips, tmp_path):
    cache = FaceCache(tmp_path / "faces")
    with ThreadPoolExecutor(4) as pool:
        for tracks in pool.map(cache, [clips["clip"]] * 12):
            assert_same(tracks, [track(0, 5), track(1, 3)])
    assert len([path for path in (tmp_path / "faces").rglob("*") if path.is_file()]) == 1


def test_the_largest_track_fills_most_of_the_picture_over_time():
    small, large, brief = track(0, 50, side=30), track(1, 30, side=60), track(2, 2, side=100)
    assert largest_track([small, large, brief]) is large


def test_tracks_are_those_of_the_finder(tmp_path):
    from modeling_avlmm.faces import find_tracks
    from modeling_avlmm.media import MediaReader

    path = make_clip(tmp_path / "clip.mp4", seconds=1.0)  # bars, without a face
    with MediaReader(path) as reader:
        assert find_tracks(reader) == []
    assert FaceCache(tmp_path / "faces")(path) == []

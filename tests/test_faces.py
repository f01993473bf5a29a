"""Faces are found where they were drawn, and followed through time."""

from __future__ import annotations

import face_factory
import numpy as np
import pytest
import torch
from face_factory import LEFT, RIGHT, clip_with_faces

from modeling_avlmm.faces import FaceFinder, FaceTracker, find_tracks
from modeling_avlmm.media import MediaReader


@pytest.fixture(scope="module")
def finder():
    return FaceFinder()


def test_two_people_are_two_tracks_at_their_places(finder):
    clip = clip_with_faces(people=[LEFT, RIGHT])
    first, second = FaceTracker(finder).update(clip.frames, clip.times)
    for number, track in enumerate((first, second)):
        assert track.index == number
        np.testing.assert_array_equal(track.times, clip.times)
        true = clip.boxes[0 if track.boxes[0, 0] < 160 else 1]
        np.testing.assert_allclose(track.boxes, true, atol=0.15 * 96)
    assert first.end == second.end == pytest.approx(2.0)


def test_read_with_a_track_gives_its_crops_with_true_times(finder, tmp_path):
    path = face_factory.face_clip(tmp_path / "clip.mp4", [LEFT, RIGHT])
    with MediaReader(path) as reader:
        tracks = find_tracks(reader, finder=finder)
        clip = reader.read(0.5, 1.5, fps=10, track=tracks[1], face_side=64)
        whole = reader.read(0.5, 1.5, fps=10)
    assert len(tracks) == 2
    assert clip.frames.shape == (10, 3, 64, 64)
    np.testing.assert_allclose(clip.timestamps, np.arange(10) / 10)
    assert torch.equal(clip.audio, whole.audio)
    found = finder(clip.frames)
    assert all(len(faces) == 1 for faces in found)

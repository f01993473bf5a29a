"""The picture of pseudo-fakes: blended and upsampled faces, the region of a face, and harmless processing."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from face_factory import Person, clip_with_faces
from genuine_factory import FPS, face_frames, make

from modeling_avlmm.training.pseudo_fakes.blended_faces import (
    FaceRegion,
    LargestFace,
    harmless_frames,
    self_blended_faces,
    upsampled_faces,
)
from modeling_avlmm.training.pseudo_fakes.pseudo_faker import PseudoFaker


def test_an_upsampled_face_has_a_repeating_grid_inside_its_mask():
    flat = torch.full((4, 3, 128, 128), 128, dtype=torch.uint8)
    times, face, periods = torch.arange(4) / FPS, FaceRegion(64, 64, 44, 50), set()
    for seed in range(30):
        made, mask = upsampled_faces(flat, times, np.random.default_rng(seed), face)
        outside = (mask == 0)[:, None].expand_as(made)
        assert torch.equal(made[outside], flat[outside])
        core = (mask > 0.999).all(dim=0)
        rows = core.any(dim=1).nonzero().flatten()
        middle = (slice(int(rows.median()) - 8, int(rows.median()) + 8), slice(48, 80))
        assert core[middle].all()
        first, last = (made[(k, slice(None), *middle)] for k in (0, 3))
        assert torch.equal(first, last)  # the grid does not move
        grid = first.float() / 128 - 1
        repeats = [p for p in (4, 8, 16) if torch.equal(grid[..., p:], grid[..., :-p])]
        periods.add(repeats[0])
        assert grid.mean().abs() < 0.004 and 0.01 < grid.std() < 0.11
    assert periods == {4, 8, 16}


def test_only_the_upsampled_face_loses_detail():
    # dark, so that the grid, which is in proportion to brightness, hardly shows
    grain = np.random.default_rng(0).normal(20, 5, size=(2, 3, 128, 128))
    frames = torch.from_numpy(grain.round().clip(0, 255).astype(np.uint8))
    before, face = frames.clone(), FaceRegion(64, 64, 44, 50)
    for seed in range(8):
        made, mask = upsampled_faces(frames, torch.arange(2) / FPS, np.random.default_rng(seed), face)
        outside = (mask == 0)[:, None].expand_as(made)
        assert torch.equal(made[outside], frames[outside])
        core = (mask > 0.999)[:, None, :, 2:].expand(-1, 3, -1, -1)
        fine, finer = (x.float().diff(n=2, dim=-1)[core].std() for x in (made, frames))
        assert 0.1 * finer < fine < 0.95 * finer
    assert torch.equal(frames, before)


@pytest.mark.parametrize("size", [(96, 96), (32, 32), (90, 160), (224, 128)])
def test_blending_stays_inside_a_soft_mask_inside_the_frame(size):
    frames = face_frames(size)
    times = torch.arange(len(frames), dtype=torch.float64) / FPS
    before, parts = frames.clone(), []
    for seed in range(12):
        made, mask = self_blended_faces(frames, times, np.random.default_rng(seed))
        assert mask.shape == (len(frames), *size)
        assert float(mask.min()) >= 0 and float(mask.max()) in (0.5, 0.75, 1.0)
        # inside the frame, with a rim
        rim = torch.cat([mask[:, 0], mask[:, -1], mask[..., 0], mask[..., -1]], dim=1)
        assert float(rim.max()) == 0
        # soft: no step from pixel to pixel of more than half
        steps = max(float(mask.diff(dim=d).abs().max()) for d in (1, 2))
        assert steps <= 0.5 * float(mask.max())
        assert int(((mask > 0) & (mask < mask.max())).sum()) > 0.1 * int((mask > 0).sum())
        # every pixel outside is unchanged, and each frame changes inside
        outside = (mask == 0)[:, None].expand_as(frames)
        assert torch.equal(made[outside], frames[outside])
        changed = (made.int() - frames.int()).abs().amax(1).float()
        core = mask > 0.8 * mask.amax()
        for k in range(len(frames)):
            assert float(changed[k][core[k]].mean()) >= 1.5
        parts.append(int((mask[0] > 0).sum()))
    assert torch.equal(frames, before)
    assert max(parts) > 1.5 * min(parts)  # whole faces and parts


def test_a_clip_has_one_mask_and_one_change_that_drift_slowly():
    """On a still picture, neighbouring frames change far more alike than two draws do."""
    frames = face_frames()[:1].repeat(16, 1, 1, 1)
    times = torch.arange(16, dtype=torch.float64) / 25  # 0.6 s
    steady, flickering = [], []
    for seed in range(30):
        made, mask = self_blended_faces(frames, times, np.random.default_rng(seed))
        assert float(mask.diff(dim=0).abs().max()) < 0.2
        assert float(mask.diff(dim=0).abs().sum()) > 0  # it does move
        steps = made.float().diff(dim=0)[:, :, mask.amin(0) > 0].abs().mean()
        (flickering if steps > 1.0 else steady).append(float(steps))
    # some clips flicker, most don't, and none lies in between
    assert 3 <= len(flickering) <= 16
    assert max(steady) < 0.75 * min(flickering)


def test_drift_follows_time_not_the_number_of_frames():
    frames = face_frames()[:1].repeat(5, 1, 1, 1)
    slow, fast = (torch.arange(5, dtype=torch.float64) * s for s in (0.5, 0.25))
    _, at_slow = self_blended_faces(frames, slow, np.random.default_rng(1))
    _, at_fast = self_blended_faces(frames, fast, np.random.default_rng(1))
    torch.testing.assert_close(at_slow[:3], at_fast[::2], atol=2e-4, rtol=0)


def test_the_largest_face_is_found_and_a_picture_without_one_has_none():
    people = [Person(0, (0.2, 0.5), (0.24, 0.5), height=0.5), Person(1, (0.75, 0.4), (0.75, 0.4), height=0.3)]
    clip = clip_with_faces(0.8, people=people)
    find = pickle.loads(pickle.dumps(LargestFace()))
    found, true = find(clip.frames), np.median(clip.boxes[0], axis=0)
    assert (found.x, found.y) == pytest.approx(((true[0] + true[2]) / 2, (true[1] + true[3]) / 2), abs=8)
    assert (2 * found.half_width, 2 * found.half_height) == pytest.approx(
        (true[2] - true[0], true[3] - true[1]), rel=0.2
    )
    assert find(clip.frames) == found
    assert find(clip_with_faces(0.4, people=[]).frames) is None


def test_a_given_region_is_used_and_moved_inside_the_frame():
    frames, times = face_frames((96, 160)), torch.arange(8, dtype=torch.float64) / FPS
    for seed in range(6):
        _, mask = self_blended_faces(
            frames, times, np.random.default_rng(seed), FaceRegion(125.0, 48.0, 20.0, 26.0)
        )
        columns = mask.sum((0, 1))
        assert float((columns * torch.arange(160)).sum() / columns.sum()) == pytest.approx(125, abs=4)
        # a region across the edge is moved, not cut
        _, mask = self_blended_faces(
            frames, times, np.random.default_rng(seed), FaceRegion(155.0, 48.0, 20.0, 26.0)
        )
        assert float(mask[..., -1].max()) == 0 and float(mask.max()) >= 0.5


def test_the_faker_blends_the_face_that_is_found_and_else_the_middle():
    drawn = clip_with_faces(2.0, fps=4, people=[Person(2, (0.2, 0.5), (0.2, 0.5), height=0.4)])
    clip = replace(make(), frames=drawn.frames, timestamps=torch.from_numpy(drawn.times))
    made = {}
    for name, face_of in (("found", None), ("given", _right), ("none", _nowhere)):
        faker = pickle.loads(pickle.dumps(PseudoFaker({"self_blended_faces": 1}, face_of=face_of)))
        frames = faker(clip, rng=np.random.default_rng(0)).clip.frames
        made[name] = (frames != drawn.frames).any(0).any(0).any(0).nonzero().flatten()  # the changed columns
    assert made["found"].max() < 128  # the face on the left
    assert made["given"].min() > 64 and made["given"].max() < 190
    assert made["none"].float().mean() == pytest.approx(160, abs=12)  # the middle


def _right(frames: torch.Tensor) -> FaceRegion:
    return FaceRegion(125.0, 48.0, 20.0, 26.0)


def _nowhere(frames: torch.Tensor) -> None:
    return None


def test_frames_too_small_for_a_face_and_regions_without_a_size_are_refused():
    with pytest.raises(ValueError, match="no region"):
        FaceRegion(10.0, 10.0, 0.0, 5.0)
    with pytest.raises(ValueError, match="no region"):
        FaceRegion(float("nan"), 10.0, 5.0, 5.0)
    with pytest.raises(ValueError, match="frames of 96x31 are too small"):
        self_blended_faces(face_frames((31, 96)), torch.arange(8.0), np.random.default_rng(0))


def test_harmless_frames_of_one_colour_stay_of_one_colour():
    """Processing is never local: no edge, no spot, no vignette."""
    frames = torch.full((4, 3, 40, 56), 100, dtype=torch.uint8)
    for seed in range(20):
        made = harmless_frames(frames, np.random.default_rng(seed))
        assert bool((made == made[..., :1, :1]).all())
        assert int((made.int() - 100).abs().max()) <= 0.06 * 100 + 5 + 0.06 * 100 + 1

"""Pairs of a genuine face crop and a fake of it."""

import numpy as np
import pytest

from modeling_avlmm.training.pseudo_fakes import self_blended
from modeling_avlmm.training.pseudo_fakes.face_alterations import FaceFrame, default_landmarks, region_mask
from modeling_avlmm.training.pseudo_fakes.picture_channel import PictureChannel, compress, resize
from modeling_avlmm.training.pseudo_fakes.self_blended import (
    KINDS,
    FacePair,
    changed_window,
    self_blended_pair,
)

PLAIN = PictureChannel()


def crop(height=120, width=104, seed=0):
    """A smooth random picture, with texture and colours, and landmarks of an upright face."""
    rng = np.random.default_rng(seed)
    picture = resize(rng.uniform(60, 200, (8, 8, 3)).astype(np.float32), width, height, "cubic")
    picture = picture + rng.normal(0, 8, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8), default_landmarks(height, width)


@pytest.fixture
def masks(monkeypatch):
    """The masks that a call draws."""
    drawn = []

    def record(*args):
        drawn.append(region_mask(*args))
        return drawn[-1]

    monkeypatch.setattr(self_blended, "region_mask", record)
    return drawn


@pytest.mark.parametrize("kind", ["face", "swap", "mouth", "patch", "redrawn_face"])
def test_outside_the_mask_nothing_changes(kind, masks):
    picture, landmarks = crop()
    for seed in range(5):
        pair = self_blended_pair(
            picture, landmarks, np.random.default_rng(seed), side=64, kinds={kind: 1.0}, channel=PLAIN,
            other=crop(seed=1),
        )  # fmt: skip
        if masks[-1].shape != (64, 64):
            continue  # resized afterwards: outside is no longer a matter of pixels
        outside = masks[-1] == 0
        assert pair.kind == kind
        assert outside.mean() > 0.1
        np.testing.assert_array_equal(pair.genuine[outside], pair.fake[outside])


@pytest.mark.parametrize("kind", list(KINDS))
def test_fakes_differ_inside(kind):
    picture, landmarks = crop()
    pair = self_blended_pair(
        picture,
        landmarks,
        np.random.default_rng(0),
        side=64,
        kinds={kind: 1.0},
        channel=PLAIN,
        other=crop(seed=1),
    )
    assert np.abs(pair.genuine.astype(int) - pair.fake).max() >= 8


def test_the_genuine_picture_does_not_depend_on_the_kind_of_fake():
    picture, landmarks = crop()
    genuine = {
        kind: self_blended_pair(
            picture, landmarks, np.random.default_rng(3), kinds={kind: 1.0}, channel=PLAIN
        ).genuine
        for kind in KINDS
    }
    for other in genuine.values():
        np.testing.assert_array_equal(genuine["face"], other)


def test_a_channel_treats_equal_pictures_alike():
    picture, _ = crop()
    for seed in range(20):
        channel = PictureChannel.draw(np.random.default_rng(seed))
        before = picture.copy()
        np.testing.assert_array_equal(channel(picture), channel(picture.copy()))
        np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(PLAIN(picture), picture)


def test_a_fake_that_changes_nothing_comes_out_equal(monkeypatch):
    picture, landmarks = crop()
    monkeypatch.setattr(
        self_blended, "make_fake", lambda view, kind, rng: self_blended.to_uint8(view.picture)
    )
    for seed in range(10):
        pair = self_blended_pair(picture, landmarks, np.random.default_rng(seed), side=48)
        np.testing.assert_array_equal(pair.genuine, pair.fake)


def test_equal_states_give_equal_pairs():
    picture, landmarks = crop()
    before = picture.copy()
    first, second = (self_blended_pair(picture, landmarks, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first.fake, second.fake)
    np.testing.assert_array_equal(first.genuine, second.genuine)
    np.testing.assert_array_equal(picture, before)
    assert first.kind == second.kind


@pytest.mark.parametrize("size", [(32, 32), (33, 90), (200, 40), (480, 480)])
@pytest.mark.parametrize("marked", [True, False])
def test_sizes(size, marked):
    picture, landmarks = crop(*size)
    for kind in KINDS:
        pair = self_blended_pair(
            picture, landmarks if marked else None, np.random.default_rng(1), side=160, kinds={kind: 1.0}
        )
        assert pair.genuine.shape == pair.fake.shape == (160, 160, 3)
        assert pair.genuine.dtype == pair.fake.dtype == np.uint8


def test_kinds_come_in_their_proportion():
    picture, landmarks = crop(64, 64)
    rng = np.random.default_rng(0)
    drawn = [
        self_blended_pair(picture, landmarks, rng, side=32, kinds={"face": 3.0, "redrawn": 1.0}).kind
        for _ in range(200)
    ]
    assert set(drawn) == {"face", "redrawn"}
    assert 0.65 < drawn.count("face") / 200 < 0.85  # 0.75, 3 deviations of 0.031


def test_a_decoder_s_copy_is_what_the_fake_shows():
    picture, landmarks = crop()
    copy = np.full_like(picture, 90)
    pairs = [
        self_blended_pair(
            picture, landmarks, np.random.default_rng(s), kinds={"redrawn": 1.0}, redrawn=copy, channel=PLAIN
        )
        for s in range(12)
    ]
    shown = [(pair.fake == 90).all() for pair in pairs]
    assert 5 <= sum(shown) < 12  # three of four, else through fewer pixels


def test_a_swap_shows_the_other_face_where_the_mask_is():
    picture, landmarks = crop(160, 160)
    other = picture[:, ::-1].copy()
    pair = self_blended_pair(
        picture,
        landmarks,
        np.random.default_rng(2),
        kinds={"swap": 1.0},
        other=(other, landmarks),
        channel=PLAIN,
    )
    assert pair.kind == "swap"
    alone = self_blended_pair(picture, landmarks, np.random.default_rng(2), kinds={"swap": 1.0})
    assert alone.kind == "face"


def test_face_coordinates_turn_with_the_face():
    landmarks = default_landmarks(100, 100)
    face = FaceFrame.of(landmarks)
    assert face.angle == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(face.pixels(np.array([[0.0, -0.5]]))[0], landmarks[:2].mean(0), atol=1e-3)
    turned = np.stack([100 - landmarks[:, 1], landmarks[:, 0]], 1)  # a quarter turn clockwise
    face = FaceFrame.of(turned)
    assert face.angle == pytest.approx(np.pi / 2, abs=1e-6)
    np.testing.assert_allclose(face.pixels(np.array([[0.0, -0.5]]))[0], turned[:2].mean(0), atol=1e-3)
    np.testing.assert_allclose(face.pixels(np.array([[-0.5, -0.5]]))[0], turned[0], atol=1e-3)


def test_masks_lie_around_their_part():
    face = FaceFrame.of(default_landmarks(128, 128))
    rows = np.arange(128)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        mouth = region_mask((128, 128), face, "mouth", rng)
        assert mouth.dtype == np.float32
        assert mouth.min() >= 0
        assert 0.4 < mouth.max() <= 1
        assert (mouth.sum(1) @ rows) / mouth.sum() > face.y + 0.25 * face.unit


@pytest.mark.parametrize(
    "change, message",
    [
        ({"crop": np.zeros((64, 64, 3), np.float32)}, "uint8"),
        ({"crop": np.zeros((64, 64), np.uint8)}, "shape"),
        ({"crop": np.zeros((31, 64, 3), np.uint8)}, "at least 32 pixels"),
        ({"landmarks": np.zeros((4, 2))}, "five finite points"),
        ({"landmarks": np.full((5, 2), np.nan)}, "five finite points"),
        ({"redrawn": np.zeros((10, 10, 3), np.uint8)}, "crop's shape"),
        ({"kinds": {"faces": 1.0}}, "Unknown kinds"),
    ],
)
def test_wrong_input(change, message):
    picture, landmarks = crop()
    given = {"crop": picture, "landmarks": landmarks} | change
    with pytest.raises(ValueError, match=message):
        self_blended_pair(given.pop("crop"), given.pop("landmarks"), np.random.default_rng(0), **given)


def test_compression():
    picture, _ = crop()
    for name in ("jpeg", "webp"):
        coarse, fine = (
            np.abs(compress(picture, name, quality).astype(int) - picture).mean() for quality in (10, 95)
        )
        assert 0 < fine < coarse
    with pytest.raises(ValueError, match="Unknown codec"):
        compress(picture, "h264", 30)


def test_a_window_lies_where_the_pictures_differ():
    genuine = np.arange(40 * 40 * 3, dtype=np.uint8).reshape(40, 40, 3) // 2
    fake = genuine.copy()
    fake[3:5, 36:38] += 60
    for seed in range(20):
        cut = changed_window(FacePair(genuine, fake, "mouth"), 16, np.random.default_rng(seed))
        assert cut.genuine.shape == cut.fake.shape == (16, 16, 3)
        assert cut.kind == "mouth"
        assert (cut.genuine != cut.fake).any(2).sum() == 4  # all that differs is in sight
    same = changed_window(FacePair(genuine, genuine, "face"), 40, np.random.default_rng(0))
    np.testing.assert_array_equal(same.genuine, genuine)
    with pytest.raises(ValueError, match="1 to 40 pixels"):
        changed_window(same, 41, np.random.default_rng(0))

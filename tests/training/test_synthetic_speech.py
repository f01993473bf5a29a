"""Synthetic speech for training: copies by vocoders, the channel of a pair, small neural vocoders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from genuine_factory import speech

from modeling_avlmm.media import SAMPLING_RATE
from modeling_avlmm.training.pseudo_fakes.small_vocoders import DESIGNS, spectral_distance, train_vocoder
from modeling_avlmm.training.pseudo_fakes.sound_channel import coded, root_mean_square, same_channel
from modeling_avlmm.training.pseudo_fakes.synthetic_speech import VOCODERS, one_band, vocoded
from modeling_avlmm.training.pseudo_fakes.vocoder_traces import TRACES


def band_levels(sound: torch.Tensor) -> np.ndarray:
    """Return log levels in 8 bands every 0.1 s."""
    spectrum = torch.stft(sound, 512, 160, window=torch.hann_window(512), return_complex=True)
    return F.avg_pool2d(spectrum.abs()[None, :256], (32, 10)).clamp(min=1e-2).log().flatten().numpy()


@pytest.mark.parametrize("kind", VOCODERS)
def test_a_copy_says_the_same_with_another_waveform(kind):
    sound, other = speech(3, 1.5, level=0.1), speech(8, 1.5, pitch=210.0, level=0.1)
    genuine, fake = vocoded(sound, VOCODERS[kind], np.random.default_rng(0))
    assert genuine.shape == fake.shape and len(sound) - len(fake) < 3
    assert float(root_mean_square(fake)) == pytest.approx(float(root_mean_square(genuine)), rel=1e-3)
    assert float((fake - genuine).abs().mean() / genuine.abs().mean()) > 0.2
    elsewhere = vocoded(other, VOCODERS[kind], np.random.default_rng(0))[1][: len(genuine)]
    alike, unlike = (np.corrcoef(band_levels(genuine), band_levels(part))[0, 1] for part in (fake, elsewhere))
    assert alike > max(unlike, 0.75)


@pytest.mark.parametrize("kind", TRACES)
def test_a_trace_leaves_most_of_the_recording(kind):
    genuine, fake = vocoded(speech(3, 1.0, level=0.1), TRACES[kind], np.random.default_rng(1))
    change = float(root_mean_square(fake - genuine) / root_mean_square(genuine))
    assert 0.003 < change < 1.2
    assert np.corrcoef(band_levels(genuine), band_levels(fake))[0, 1] > 0.9


def test_one_band_of_a_copy():
    time = torch.arange(8000) / SAMPLING_RATE
    low, high = (torch.sin(2 * torch.pi * hertz * time) for hertz in (200, 7000))
    found = set()
    for seed in range(8):
        mixed = one_band(low + high, 0 * low, np.random.default_rng(seed))
        found.add(tuple(bool((mixed - part).abs().max() < 0.05) for part in (low, high)))
    assert found == {(True, False), (False, True)}


def test_both_classes_go_through_the_same_channel():
    sound = speech(2, 1.0)
    for seed in range(12):
        genuine, fake = same_channel(sound, 3 * sound, np.random.default_rng(seed))
        torch.testing.assert_close(
            genuine, fake, atol=4e-3, rtol=0
        )  # rounding in the codec may fall the other way
        assert genuine.abs().max() <= 1 and len(genuine) == len(sound)
    with pytest.raises(ValueError, match="one length"):
        same_channel(sound, sound[1:], np.random.default_rng(0))


def test_the_codec_is_transparent_when_fine():
    sound = speech(4, 1.0)[None]
    for size in (128, 512):
        torch.testing.assert_close(coded(sound, size, 1e-4), sound, atol=1e-4, rtol=0)
        assert (coded(sound, size, 2.0) - sound).square().mean() > 1e-3 * sound.square().mean()


@pytest.mark.parametrize("design", DESIGNS)
def test_small_vocoders_learn(design):
    recordings = [speech(0, 1.0)]
    untrained, trained = (
        train_vocoder(recordings, design, np.random.default_rng(0), steps) for steps in (0, 6)
    )
    sound = F.pad(recordings[0], (0, 3))
    target = torch.cat([sound, sound])[: trained.rate // 4]
    before, after = (
        spectral_distance(v(target, v.rate, np.random.default_rng(0))[None], target[None])
        for v in (untrained, trained)
    )
    assert after < 0.97 * before
    genuine, fake = vocoded(recordings[0], trained, np.random.default_rng(0), trained.rate)
    assert fake.shape == genuine.shape and fake.isfinite().all()


def test_what_cannot_be_copied_is_refused():
    with pytest.raises(ValueError, match="too few"):
        vocoded(torch.zeros(100), VOCODERS["griffin_lim"], np.random.default_rng(0))
    with pytest.raises(ValueError, match="silence"):
        vocoded(speech(0, 1.0), lambda sound, rate, rng: 0 * sound, np.random.default_rng(0))
    with pytest.raises(ValueError, match="there are spectral_vocoder"):
        train_vocoder([speech(0, 1.0)], "wavenet", np.random.default_rng(0))
    with pytest.raises(ValueError, match="long enough"):
        train_vocoder([speech(0, 0.2)], "spectral_vocoder", np.random.default_rng(0))

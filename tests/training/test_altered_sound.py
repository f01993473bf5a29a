"""The sound of pseudo-fakes: other sound, shifts, resynthesis, and harmless processing."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from genuine_factory import make, speech

from modeling_avlmm.media import SAMPLING_RATE, Clip
from modeling_avlmm.training.pseudo_fakes.altered_sound import (
    FADE_SECONDS,
    harmless_audio,
    is_audible,
    level_dbfs,
    match_level,
    other_audio,
    resynthesised_speech,
    shifted_audio,
)
from modeling_avlmm.training.pseudo_fakes.pseudo_faker import PseudoFaker

FADE = round(FADE_SECONDS * SAMPLING_RATE)


def test_level_matching():
    loud, quiet = speech(0, level=0.2), speech(1, level=0.03)
    assert level_dbfs(match_level(loud, quiet)) == pytest.approx(20 * np.log10(0.03), abs=1e-3)
    # by 20 dB at most, and never above full scale
    assert level_dbfs(match_level(speech(1, level=0.001), loud)) == pytest.approx(-40, abs=1e-2)
    click = torch.zeros(16000)
    click[100] = 0.5
    assert float(match_level(click, loud).max()) == pytest.approx(0.999)
    assert level_dbfs(torch.zeros(10)) == -np.inf
    assert is_audible(quiet) and not is_audible(speech(0, level=0.0005)) and not is_audible(None)


@pytest.mark.parametrize("seconds", [0.5, 2.0, 5.0])
def test_sound_of_another_clip(seconds):
    own, other = speech(0, level=0.05), speech(7, seconds, pitch=220.0, level=0.2)
    made = other_audio(own, other, np.random.default_rng(0))
    assert len(made) == len(own)
    assert level_dbfs(made) == pytest.approx(level_dbfs(own), abs=1e-3)
    # only the other sound, at one gain: each stretch between joints is somewhere in it
    middle = made[-3200:-2800] if seconds >= 2 else made[:0]
    if len(middle):
        windows = other.unfold(0, 400, 1)
        gains = (windows @ middle) / windows.square().sum(1)
        errors = (windows * gains[:, None] - middle).abs().amax(1)
        assert float(errors.min()) < 1e-6
    else:  # looped: the sound repeats after one period
        period = len(other) - FADE
        torch.testing.assert_close(made[:-period], made[period:])


def test_sound_too_short_or_too_quiet_is_refused():
    with pytest.raises(ValueError, match=r"other has 0\.10 s of sound"):
        other_audio(speech(0), speech(1, 0.1), np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"audio has 2\.00 s of sound at -inf dBFS"):
        other_audio(torch.zeros(32000), speech(1), np.random.default_rng(0))
    for samples in (0, 16000, -20000):
        with pytest.raises(ValueError, match=f"a shift of {samples} samples"):
            shifted_audio(speech(0), samples)
    with pytest.raises(ValueError, match="too few"):
        resynthesised_speech(speech(0, 0.1), np.random.default_rng(0))


@pytest.mark.parametrize("samples", [3200, -3200, 15999, -1])
def test_a_shift_moves_the_sound_by_that_much_and_leaves_no_silence(samples):
    sound = speech(0)
    length = len(sound)
    made = shifted_audio(sound, samples)
    assert len(made) == length
    if samples > 0:  # late: what was at n is at n + samples
        assert torch.equal(made[samples + FADE :], sound[FADE : length - samples])
        assert torch.equal(made[:samples], sound[length - FADE - samples : length - FADE])
    else:
        kept = length - FADE + samples
        assert torch.equal(
            made[FADE if samples > -FADE else 0 : kept],
            sound[-samples:][FADE if samples > -FADE else 0 : kept],
        )
    assert float(made.unfold(0, 800, 400).square().mean(1).sqrt().min()) > 0.005  # no silence
    # no jump where the ends meet: those of this ramp are 1 apart
    ramp = torch.linspace(-0.5, 0.5, 32000)
    assert float(shifted_audio(ramp, samples).diff().abs().max()) < 0.01


def test_a_shift_is_filled_with_the_sound_around_the_clip():
    whole = speech(3, 6.0)
    clip = replace(make(), audio=whole[32000:64000].clone(), start=2.0, end=4.0)
    around = Clip(None, None, whole[16000:80000], 1.0, 5.0, clip.name)
    faker = PseudoFaker({"shifted_audio": 1})
    shifts = []
    for seed in range(30):
        sample = faker(clip, rng=np.random.default_rng(seed), around=around)
        samples = round(sample.drawn["shift"] * SAMPLING_RATE)
        assert torch.equal(sample.clip.audio, whole[32000 - samples : 64000 - samples])
        shifts.append(sample.drawn["shift"])
    assert 0.2 <= min(map(abs, shifts)) < 0.3 and 0.8 < max(map(abs, shifts)) <= 1.0
    assert min(shifts) < 0 < max(shifts)
    # where the sound around it is too short, the loop
    near = Clip(None, None, whole[32000:64000], 2.0, 4.0, clip.name)
    sample = faker(clip, rng=np.random.default_rng(0), around=near)
    samples = round(sample.drawn["shift"] * SAMPLING_RATE)
    assert torch.equal(sample.clip.audio, shifted_audio(clip.audio, samples))


def octaves(sound: torch.Tensor) -> np.ndarray:
    """Return the level in dB of each octave from 100 Hz up."""
    power = torch.fft.rfft(sound * torch.hann_window(len(sound))).abs().square().numpy()
    hertz = np.fft.rfftfreq(len(sound), 1 / SAMPLING_RATE)
    edges = [100, 200, 400, 800, 1600, 3200, 6400]
    return 10 * np.log10([power[(hertz >= a) & (hertz < b)].mean() for a, b in itertools.pairwise(edges)])


def loudness(sound: torch.Tensor) -> torch.Tensor:
    return sound.view(-1, 400).square().mean(1).sqrt()


def test_resynthesised_speech_sounds_alike_but_is_another_signal():
    sound = speech(0)
    before, kinds = sound.clone(), set()
    for seed in range(50):
        made, drawn = resynthesised_speech(sound, np.random.default_rng(seed))
        again, _ = resynthesised_speech(sound, np.random.default_rng(seed))
        assert torch.equal(made, again)
        assert len(made) == len(sound) and made.dtype == torch.float32 and bool(made.isfinite().all())
        # alike: level, tone colour, loudness over time
        assert level_dbfs(made) == pytest.approx(level_dbfs(sound), abs=0.01)
        assert np.abs(octaves(made) - octaves(sound)).max() < 6.0, drawn
        assert float(torch.corrcoef(torch.stack([loudness(made), loudness(sound)]))[0, 1]) > 0.9
        # another signal: at any scale, more than a twentieth of its power is error
        likeness = float(torch.corrcoef(torch.stack([made, sound]))[0, 1])
        assert likeness**2 < 0.95, drawn
        if drawn["phase_noise"] == pytest.approx(np.pi):
            assert abs(likeness) < 0.3, drawn  # phases are lost
        kinds.add((drawn["bands"] > 0, drawn["frequency_scale"] != 1))
    assert kinds == set(itertools.product((False, True), repeat=2))
    assert torch.equal(sound, before)


def test_pitch_and_formants_move_by_the_drawn_scale():
    """A rising tone is multiplied by the scale at each moment."""
    time = torch.arange(48000) / SAMPLING_RATE
    rising = 0.1 * torch.sin(2 * torch.pi * (800 * time + 250 * time**2))  # 800 to 2300 Hz

    def track(sound: torch.Tensor) -> torch.Tensor:
        return (
            torch.stft(sound, 1024, window=torch.hann_window(1024), return_complex=True)
            .abs()
            .argmax(0)
            .float()
        )

    seen = set()
    for seed in range(100):
        made, drawn = resynthesised_speech(rising, np.random.default_rng(seed))
        if 0 < drawn["bands"] < 96:
            continue
        ratio = float((track(made) / track(rising))[10:-10].median())
        assert ratio == pytest.approx(drawn["frequency_scale"], abs=0.025), drawn
        seen.add(int(np.sign(drawn["frequency_scale"] - 1)))
    assert seen == {-1, 0, 1}


def test_resynthesis_keeps_the_tone_colour():
    """Neither pitch nor filterbank moves the upper edge of noise that ends at 4 kHz."""
    spectrum = torch.fft.rfft(
        0.1 * torch.from_numpy(np.random.default_rng(0).normal(size=48000).astype(np.float32))
    )
    spectrum[12000:] *= 0.01
    dull = torch.fft.irfft(spectrum, 48000)

    def level(sound: torch.Tensor, low: float, high: float) -> float:
        power = torch.fft.rfft(sound * torch.hann_window(48000)).abs().square()
        return 10 * float(torch.log10(power[int(3 * low) : int(3 * high)].mean()))

    scales = set()
    for seed in range(40):
        made, drawn = resynthesised_speech(dull, np.random.default_rng(seed))
        scales.add(int(np.sign(drawn["frequency_scale"] - 1)))
        # above 4.3 kHz the windows' own leakage counts
        for low, high, within in ((200, 3000, 1.0), (3500, 3850, 2.0), (4300, 4600, 8.0), (5000, 8000, 8.0)):
            assert level(made, low, high) == pytest.approx(level(dull, low, high), abs=within), (low, drawn)
    assert scales == {-1, 0, 1}


def test_harmless_sound_may_have_a_joint_but_no_silence():
    sound = speech(0)
    joints = 0
    for seed in range(60):
        made = harmless_audio(sound, np.random.default_rng(seed))
        lags = []
        for start in (300, len(sound) - 1100):  # compare both ends with the sound around them
            windows = sound[start - 300 : start + 1100].unfold(0, 800, 1)
            lags.append(int(((windows @ made[start : start + 800]) / windows.norm(dim=1)).argmax()) - 300)
        joints += lags[0] != lags[1]
        assert float(made.unfold(0, 800, 400).square().mean(1).min()) > 0
    assert 4 <= joints <= 30
    level = torch.full((32000,), 0.3)
    assert min(float(harmless_audio(level, np.random.default_rng(s)).min()) for s in range(30)) > 0.1
    assert torch.equal(harmless_audio(torch.zeros(0), np.random.default_rng(0)), torch.zeros(0))
    assert torch.equal(harmless_audio(torch.zeros(100), np.random.default_rng(0)), torch.zeros(100))

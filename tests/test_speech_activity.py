"""Speech activity: voices, and sounds that are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modeling_avlmm.speech_activity import SAMPLING_RATE, STEP, pitch, speech_activity

SECONDS = 4


def harmonics(hertz: np.ndarray, count: int = 8) -> np.ndarray:
    turns = np.cumsum(hertz) / SAMPLING_RATE
    return sum(np.sin(2 * np.pi * k * turns) / k for k in range(1, count))


def time() -> np.ndarray:
    return np.arange(SECONDS * SAMPLING_RATE) / SAMPLING_RATE


def voice() -> torch.Tensor:
    """Return syllables, four a second, whose pitch falls and wavers, with breath between them."""
    rng = np.random.default_rng(0)
    at = time()
    hertz = 130 * 2 ** (0.3 * np.sin(2 * np.pi * 0.7 * at) + 0.15 * np.sin(2 * np.pi * 4 * at))
    loudness = np.clip(np.sin(2 * np.pi * 2 * at), 0, 1) ** 0.5
    sound = 0.1 * loudness * harmonics(hertz, 20) + 0.001 * rng.standard_normal(len(at))
    return torch.from_numpy(sound.astype(np.float32))


def no_voice(name: str) -> torch.Tensor:
    rng = np.random.default_rng(1)
    at = time()
    notes = 220 * 2 ** (rng.integers(0, 24, 64)[(at * 4).astype(int)] / 12)
    sounds = {
        "silence": lambda: np.zeros(len(at)),
        "noise": lambda: 0.1 * rng.standard_normal(len(at)),
        "pulsing noise": lambda: 0.1 * rng.standard_normal(len(at)) * (1 + np.sin(2 * np.pi * 4 * at)),
        "hum": lambda: 0.1 * harmonics(np.full(len(at), 50.0)),
        "siren": lambda: 0.1 * np.sin(2 * np.pi * np.cumsum(300 + 200 * np.sin(np.pi * at)) / SAMPLING_RATE),
        "piano": lambda: 0.1 * harmonics(notes) * np.exp(-3 * (at % 0.25)),
        "organ": lambda: 0.1 * harmonics(notes),
        "drums": lambda: 0.3 * rng.standard_normal(len(at)) * np.exp(-40 * (at % 0.25)),
        "a whisper of a voice": lambda: 1e-4 * voice().numpy(),
    }
    return torch.from_numpy(sounds[name]().astype(np.float32))


def test_a_voice_is_speech_also_in_noise():
    sound = voice()
    found = speech_activity(sound).speech
    assert len(found) == len(sound) // STEP and found.float().mean() > 0.9
    noise = torch.from_numpy(np.random.default_rng(2).standard_normal(len(sound)).astype(np.float32))
    noisy = sound + noise * sound.square().mean().sqrt() * 10 ** (-10 / 20)
    assert speech_activity(noisy).seconds > 3
    assert speech_activity(0.02 * sound).seconds == speech_activity(sound).seconds


@pytest.mark.parametrize(
    "name",
    ["silence", "noise", "pulsing noise", "hum", "siren", "piano", "organ", "drums", "a whisper of a voice"],
)
def test_other_sound_is_no_speech(name):
    assert speech_activity(no_voice(name)).seconds == 0


def test_speech_is_found_where_it_is():
    sound = torch.cat([no_voice("noise"), voice(), no_voice("noise")])
    found = speech_activity(sound).speech.nonzero().flatten() * STEP / SAMPLING_RATE
    assert found.min() >= SECONDS - 2 and found.max() <= 2 * SECONDS + 2
    assert speech_activity(torch.zeros(0)).seconds == speech_activity(voice()[:4000]).seconds == 0


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_pitch_of_a_known_voice(rate):
    at = np.arange(rate) / rate
    tone = torch.from_numpy(
        sum(np.sin(2 * np.pi * 125 * k * at) / k for k in range(1, 20)).astype(np.float32)
    )
    found = pitch(0.1 * tone, rate, rate // 100)
    assert len(found) == 101 and float(found[5:-5].median()) == pytest.approx(125, rel=0.01)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(rate).astype(np.float32))
    assert (pitch(noise, rate, rate // 100) > 0).float().mean() < 0.05

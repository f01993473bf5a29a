"""Pairs of genuine and synthetic speech from a store: copies, traces, bands, held-out synthesisers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from genuine_factory import speech

from modeling_avlmm.media import SAMPLING_RATE
from modeling_avlmm.training import speech_store
from modeling_avlmm.training.array_store import ArrayStore
from modeling_avlmm.training.genuine_recipe import SoundRecipe
from modeling_avlmm.training.speech_store import SpeechStore, speech_pair

KINDS = ["genuine", "tone_copy", "flite"]
SECONDS = 1.0


@pytest.fixture
def store(tmp_path, monkeypatch):
    """One recording, a copy that is a tone, and six sounds of a synthesiser that are six other tones; no channel."""
    monkeypatch.setattr(speech_store, "same_channel", lambda genuine, fake, rng: (genuine, fake))
    rows = [(sound_of(0), {"recording": 0, "kind": 0, "rate": SAMPLING_RATE, "of": -1})]
    rows += [(tone(300), {"recording": 0, "kind": 1, "rate": SAMPLING_RATE, "of": 0})]
    rows += [
        (tone(1000 + 500 * n), {"recording": -1, "kind": 2, "rate": SAMPLING_RATE, "of": -1})
        for n in range(6)
    ]
    return SpeechStore(ArrayStore.build(tmp_path / "store", {}, np.int16, iter(rows)), KINDS)


def sound_of(seed: int) -> np.ndarray:
    return (speech(seed, 3.0).numpy() * 20_000).astype(np.int16)


def tone(hertz: float) -> np.ndarray:
    time = np.arange(3 * SAMPLING_RATE) / SAMPLING_RATE
    return (10_000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)


def pairs(store: SpeechStore, held_out: bool = False, draws: int = 40, **options) -> list[tuple]:
    recipe = SoundRecipe(seconds=SECONDS, **options)
    made = (speech_pair(store, [0], held_out, recipe, np.random.default_rng(n)) for n in range(draws))
    return [tuple(each["audio_values"] for each in pair) for pair in made]


def main_frequency(sound: torch.Tensor) -> int:
    return int(torch.fft.rfft(sound).abs().argmax() / SECONDS)


def test_a_trace_is_put_into_the_share_of_pairs_that_was_asked_for(store):
    kept = [
        float(torch.corrcoef(torch.stack(pair))[0, 1])
        for pair in pairs(store, traces=0.5, held_out_kinds=["flite"])
    ]
    with_trace = [each for each in kept if each > 0.5]
    assert 10 < len(with_trace) < 30 and max(with_trace) < 1 - 1e-6
    whole = pairs(store, traces=0.0, held_out_kinds=["flite"])
    assert all(main_frequency(fake) == 300 for _, fake in whole)


def test_one_band_of_a_copy_leaves_the_recording_in_the_other(store):
    mixed = pairs(store, one_band=1.0, held_out_kinds=["flite"])
    assert {main_frequency(fake) == 300 for _, fake in mixed} == {True, False}
    assert all((genuine - fake).abs().max() > 1e-3 for genuine, fake in mixed)


def test_held_out_speakers_get_every_sound_of_the_held_out_synthesiser_and_nothing_else(store):
    found = {
        main_frequency(fake)
        for _, fake in pairs(store, held_out=True, traces=1.0, one_band=1.0, held_out_kinds=["flite"])
    }
    assert found == {1000 + 500 * n for n in range(6)}


def test_without_held_out_synthesisers_every_fifth_sound_is_for_validation(store):
    options = {"kinds": {"flite": 1.0}}
    trained = {main_frequency(fake) for _, fake in pairs(store, **options)}
    validated = {main_frequency(fake) for _, fake in pairs(store, held_out=True, **options)}
    assert validated == {1000, 3500} and not trained & validated


def test_the_same_state_gives_the_same_pair(store):
    options = {"traces": 0.5, "one_band": 0.5}
    for first, again in zip(pairs(store, **options), pairs(store, **options), strict=True):
        assert all(torch.equal(*each) for each in zip(first, again, strict=True))

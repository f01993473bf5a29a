"""Calibration of a facevoice: known answers for scale, bias and the bound of genuine scores."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from facevoice_factory import tiny
from scipy.special import expit, logit
from scipy.stats import t as student

from modeling_avlmm.training import calibrate as module
from modeling_avlmm.training.calibrate import calibrate, fit_scale_and_bias, upper_bound
from modeling_avlmm.training.genuine_data import Recording
from modeling_avlmm.training.recipes import recipe_from


def test_scale_and_bias_of_scores_that_are_calibrated_but_for_them():
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, size=40_000)
    labels = (rng.random(len(true)) < expit(true)).astype(int)
    scale, bias = fit_scale_and_bias(labels, (true - 1.5) / 0.25)  # true = 0.25 * value + 1.5
    assert scale == pytest.approx(0.25, rel=0.05) and bias == pytest.approx(1.5, abs=0.08)


def test_scores_that_are_apart_or_upside_down_keep_a_usable_scale():
    apart, _ = fit_scale_and_bias(
        np.repeat([0, 1], 8), np.repeat([-3.0, 3.0], 8) + np.tile(np.arange(8) / 10, 2)
    )
    assert 0 < apart < 20
    upside_down, _ = fit_scale_and_bias(np.repeat([0, 1], 8), np.repeat([3.0, -3.0], 8))
    assert 0 < upside_down < 0.02
    assert np.isfinite(fit_scale_and_bias(np.array([0, 1]), np.array([1.0, 1.0]))).all()


def test_the_bound_that_few_genuine_scores_exceed():
    values = np.random.default_rng(1).permutation(np.arange(1.0, 20.0))
    assert upper_bound(values, 0.05) == 19.0  # ceil(20 * 0.95) = 19th of 19
    assert upper_bound(values, 0.1) == 18.0
    few = np.array([0.0, 1.0, 2.0])
    expected = 1 + student.ppf(0.95, 2) * 1.0 * math.sqrt(4 / 3)
    assert upper_bound(few, 0.05) == pytest.approx(expected)
    rng = np.random.default_rng(2)
    for count in (8, 60):
        over = [rng.normal() > upper_bound(rng.normal(size=count), 0.05) for _ in range(4000)]
        assert np.mean(over) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize("conditions", [{}, {"noise": 2, "blur": 1}])
def test_a_detector_is_calibrated_on_held_out_people(monkeypatch, conditions):
    rng = np.random.default_rng(3)
    worse = {("noise", 2): 1.5, ("blur", 1): -0.5}  # what each adds to the raw log-odds of a picture
    most = max(0.0, *(worse[each] for each in conditions.items())) if conditions else 0.0
    clips = [Recording("clips", f"{n}.mp4", f"{n}.mp4", None, f"p{n % 13}", True) for n in range(39)]
    clips += [Recording("clips", "trained.mp4", "trained.mp4", None, "q", False)]
    clips += [Recording("photos", f"{n}.jpg", f"{n}.jpg", None, f"{n}.jpg", True) for n in range(3)]
    raw = {each.path: rng.normal(size=2) * (1.0, 3.0) - (5.0, 1.0) for each in clips}
    model = tiny()
    config = model.config
    pairs = {"video": rng.normal(size=2000), "audio": 4 * rng.normal(size=2000)}

    def stage(name):
        def make(recipe):
            return SimpleNamespace(name=name, rows=lambda dataset: None, processor=None)

        return make

    def score(recipe, detector, recordings, condition=None):
        """Score as the pipeline would: half of the clips have no sound; noise makes each picture look more like a fake."""
        found = []
        for each in recordings:
            picture, sound = raw[each.path]
            picture += 0.0 if condition is None else worse[condition]
            parts = [config.video_scale * picture + config.video_bias]
            if int(each.path.split(".")[0]) % 2:
                parts.append(config.audio_scale * sound + config.audio_bias)
            scores = {"video_score": expit(parts[0]), "audio_score": expit(parts[1]) if parts[1:] else None}
            found.append((each, scores | {"score": expit(max(parts))}))
        return found

    def made(stage, model):
        values = pairs[module.PARTS[stage.name]]
        slope = {"video": 2.0, "audio": 0.5}[module.PARTS[stage.name]]
        return (np.random.default_rng(4).random(2000) < expit(slope * values)).astype(int), values

    monkeypatch.setattr(module, "PictureStage", stage("picture"))
    monkeypatch.setattr(module, "SoundStage", stage("sound"))
    monkeypatch.setattr(module, "pair_scores", made)
    monkeypatch.setattr(module, "score_genuine", score)
    monkeypatch.setattr(module, "genuine_recordings", lambda *_: clips)
    recipe = recipe_from({"system": "facevoice", "name": "x", "output_dir": "y"})
    recipe.calibration.conditions = conditions
    known = calibrate(recipe, None, (model, None))

    assert config.video_scale == pytest.approx(2.0, rel=0.1) and config.audio_scale == pytest.approx(
        0.5, rel=0.1
    )
    held_out = clips[:39]
    pictures = np.array([config.video_scale * (raw[c.path][0] + most) + config.video_bias for c in held_out])
    sounds = np.array([config.audio_scale * raw[c.path][1] + config.audio_bias for c in held_out[1::2]])
    # Half of the false alarms for each part: the 39th of 39 pictures, and Student's bound of 19 sounds.
    assert pictures.max() == pytest.approx(0, abs=1e-6)
    assert upper_bound(sounds, 0.025) == pytest.approx(0, abs=1e-6)
    every = [
        np.sort(logit([r["score"] for _, r in score(None, None, held_out, each)]))
        for each in (None, *conditions.items())
    ]
    assert logit(config.threshold) == pytest.approx(max(each[37] for each in every))  # ceil(40 * 0.95) = 38th
    lower, upper = logit(config.abstain_band)
    assert upper == pytest.approx(max(upper_bound(each, 0.02) for each in every))
    missed = [  # of each part's fakes; the band begins with the part whose fakes reach lower
        np.mean(vars(config)[f"{part}_scale"] * values[fake] + vars(config)[f"{part}_bias"] < lower)
        for part, values in pairs.items()
        for fake in [made(SimpleNamespace(name={"video": "picture", "audio": "sound"}[part]), None)[0] == 1]
    ]
    assert max(missed) == pytest.approx(0.02, abs=0.002) and min(missed) <= 0.02
    assert known["conditions"] == conditions
    assert known["held_out_people"] == 13 and known["clips"] == 39
    assert known["parts"]["video"]["genuine"] == 39 and known["parts"]["audio"]["genuine"] == 19
    assert config.calibration["dataset"] == "fakeavceleb"

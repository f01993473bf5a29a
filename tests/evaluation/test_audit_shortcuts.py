"""Shortcut statistics on made-up properties: known shapes and counts, and no alarm for useless ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dataset_scripts.schema import make_row
from modeling_avlmm.evaluation.audit.file_properties import TITLES
from modeling_avlmm.evaluation.audit.shortcuts import auc_and_error, bin_scores, find_shortcuts, groups_of


def records_of(columns: dict[str, list]) -> dict[str, dict]:
    """Return records in which only `columns` vary."""
    number = len(next(iter(columns.values())))
    blank = dict.fromkeys(TITLES) | {"trimmed": None}
    return {f"{i}": {**blank, **{name: values[i] for name, values in columns.items()}} for i in range(number)}


def rows_of(labels: list[int], generators: list[str] | None = None) -> dict[str, list[dict]]:
    rows = [
        make_row(f"/{i}.mp4", f"{i}", label, generator=generators[i] if generators and label else None)
        for i, label in enumerate(labels)
    ]
    return {"full": rows}


def property_of(columns: dict[str, list], labels: list[int], name: str) -> dict:
    scope = find_shortcuts(rows_of(labels), records_of(columns))["scopes"][0]
    return next(entry for entry in scope["properties"] if entry["name"] == name)


def test_shapes_of_dependence():
    draw = np.random.default_rng(0)
    labels = [0, 1] * 100
    label = np.array(labels)
    smaller = (draw.normal(size=200) - 4 * label).tolist()
    middle = np.where(
        label, draw.uniform(-0.3, 0.3, 200), np.sign(draw.normal(size=200)) * draw.uniform(0.5, 1, 200)
    )
    for values, least in ((smaller, 0.95), (middle.tolist(), 0.95)):
        entry = property_of({"bitrate": values}, labels, "bitrate")
        assert entry["flagged"] and entry["auc"] > least
    assert property_of({"bitrate": smaller}, labels, "bitrate")["larger_in"] == "real"
    assert entry["rank_auc"] < 0.65  # the bare value would have missed it
    unknown = [None if fake else 1.0 for fake in labels]
    entry = property_of({"audio_bitrate": unknown}, labels, "audio_bitrate")
    assert entry["auc"] == 1.0 and entry["fake"] == {"value": None, "share": 0.0}
    codecs = ["h264" if fake else "vp9" for fake in labels]
    entry = property_of({"video_codec": codecs}, labels, "video_codec")
    assert entry["flagged"] and entry["real"] == {"value": "vp9", "share": 1.0}


def test_few_real_clips_among_many_fakes():
    draw = np.random.default_rng(1)
    labels = [0] * 20 + [1] * 980
    values = np.concatenate([draw.uniform(0, 1, 20), draw.uniform(1.01, 9, 980)])
    entry = property_of({"duration": values.tolist()}, labels, "duration")
    assert entry["flagged"] and entry["auc"] > 0.97


def test_chance_raises_no_alarm():
    """Thirty draws of useless properties: numbers, ties, unknown values and categories of few clips. At 95 % for all
    tests of a draw, of both sides, one alarm is to be expected."""
    alarms = 0
    for seed in range(30):
        draw = np.random.default_rng(seed)
        labels = draw.permutation([0, 1] * 20).tolist()
        columns = {
            "file_size": draw.normal(size=40).tolist(),
            "duration": draw.integers(0, 3, 40).astype(float).tolist(),
            "bitrate": [None if draw.random() < 0.3 else float(draw.normal()) for _ in range(40)],
            "encoder": [f"version {draw.integers(0, 30)}" for _ in range(40)],
        }
        report = find_shortcuts(rows_of(labels), records_of(columns), n_resamples=50)
        scope = report["scopes"][0]
        entries = [*scope["properties"], *scope["combined"].values()]
        assert len(entries) == 6
        alarms += any(entry["flagged"] for entry in entries)
    assert alarms <= 2


def test_an_identity_is_not_a_shortcut():
    """Each person has one camera and one label: remembered in-sample, but useless for other people."""
    draw = np.random.default_rng(0)
    people = np.repeat(np.arange(24), 8)
    labels = (people % 2).tolist()
    cameras = draw.normal(size=24)[people].tolist()
    rows = rows_of(labels)
    for row, person in zip(rows["full"], people, strict=True):
        row["identity"] = f"p{person}"
    scope = find_shortcuts(rows, records_of({"video_bitrate": cameras}))["scopes"][0]
    assert not scope["properties"][0]["flagged"]
    assert not any(model["flagged"] for model in scope["combined"].values())


def test_kinds_of_fake_have_their_own_tables():
    draw = np.random.default_rng(0)
    labels = [0] * 60 + [1] * 125
    kinds = ["real"] * 60 + ["alpha"] * 60 + ["beta"] * 60 + ["rare"] * 5
    sizes = draw.normal(size=185) + 5 * np.array([kind == "beta" for kind in kinds])
    report = find_shortcuts(rows_of(labels, kinds), records_of({"file_size": sizes.tolist()}))
    scopes = {scope["name"]: scope for scope in report["scopes"]}
    assert list(scopes) == ["all", "alpha", "beta", "rare"]
    assert not scopes["alpha"]["properties"][0]["flagged"] and scopes["beta"]["properties"][0]["flagged"]
    assert "5 fake clips" in scopes["rare"]["undefined"] and scopes["rare"]["properties"] == []
    assert scopes["beta"]["properties"][0]["auc"] > 0.97
    one = find_shortcuts(rows_of([0] * 60 + [0] * 20), records_of({"file_size": sizes[:80].tolist()}))
    assert "0 fake clips" in one["scopes"][0]["undefined"]


def test_bin_scores_of_known_counts():
    fit = np.array([1.0] * 10 + [2.0] * 10)
    labels = np.array([0] * 9 + [1] + [1] * 9 + [0])
    low, high, unseen = bin_scores(fit, labels, np.array([1.0, 2.0, math.nan]))
    # shares 0.9 and 0.1, each smoothed by 1/10
    assert (low, high) == (pytest.approx(0.2 / 1.2), pytest.approx(1.0 / 1.2)) and unseen == 0.5
    names = np.array(["a"] * 10 + ["b"] * 10, object)
    scores = bin_scores(names, labels, np.array(["a", "b", "new"], object))
    assert scores.tolist() == [low, high, 0.5]


def test_auc_and_error():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 300)
    scores = np.round(labels + draw.normal(size=300), 1)
    auc, error = auc_and_error(labels, scores, np.arange(300), 400)
    assert auc == roc_auc_score(labels, scores)
    again = []
    for _ in range(400):
        chosen = draw.integers(0, 300, 300)
        again.append(roc_auc_score(labels[chosen], scores[chosen]))
    by_chance = math.sqrt(301 / (12 * labels.sum() * (300 - labels.sum())))
    assert error == pytest.approx(max(np.std(again), by_chance), rel=0.15)
    # ten copies of each clip in a group of its own tell no more than one
    copies = np.repeat(np.arange(300), 10)
    clustered = auc_and_error(np.repeat(labels, 10), np.repeat(scores, 10), copies, 400)
    assert clustered[0] == pytest.approx(auc) and clustered[1] == pytest.approx(np.std(again), rel=0.15)
    assert auc_and_error(np.array([0] * 10 + [1] * 10), np.arange(20.0), np.arange(20))[1] > 0.1


def test_groups():
    rows = [
        {"path": "a", "identity": "p1", "source": None},
        {"path": "b", "identity": None, "source": "a"},
        {"path": "c", "identity": None, "source": "d"},
        {"path": "d", "identity": None, "source": None},
        {"path": "e", "identity": None, "source": None},
    ]
    groups = groups_of(rows)
    assert groups[0] == groups[1] and groups[2] == groups[3] and len(set(groups)) == 3

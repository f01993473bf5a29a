"""The draws of a stage: balance, order, questions."""

from collections import Counter

import numpy as np
import pytest
from dataset_factory import write_fakeavceleb
from datasets import Dataset

from dataset_scripts.protocol_lists import ProtocolList, SplitList, write_lists
from modeling_avlmm.training.batches import build_schedule, load_split
from modeling_avlmm.training.recipe_parts import DataRecipe
from modeling_avlmm.training.recipe_values import RecipeError


@pytest.fixture
def corpus():
    """A small corpus in FakeAVCeleb's proportions: 5 real, 5 sound fakes, 40 picture fakes, 50 of both."""
    kinds = [(0, 0, 0)] * 5 + [(1, 0, 1)] * 5 + [(1, 1, 0)] * 40 + [(1, 1, 1)] * 50
    rows = [
        {"path": f"{i}.mp4", "label": label, "video_label": video, "audio_label": audio}
        for i, (label, video, audio) in enumerate(kinds)
    ]
    return Dataset.from_list(rows)


def kinds(schedule):
    return Counter(zip(schedule["label"], schedule["video_label"], schedule["audio_label"], strict=True))


@pytest.mark.parametrize(
    ("balance", "expected"),
    [
        ("modality", {(0, 0, 0): 300, (1, 0, 1): 100, (1, 1, 0): 100, (1, 1, 1): 100}),
        ("none", {(0, 0, 0): 30, (1, 0, 1): 30, (1, 1, 0): 240, (1, 1, 1): 300}),
    ],
)
def test_balance(corpus, balance, expected):
    assert kinds(build_schedule(corpus, DataRecipe(balance=balance), 600, seed=0)) == expected


def test_balance_by_label(corpus):
    schedule = build_schedule(corpus, DataRecipe(balance="label"), 600, seed=0)
    assert Counter(schedule["label"]) == {0: 300, 1: 300}


def test_no_clip_comes_again_before_all_of_its_kind_came(corpus):
    schedule = build_schedule(corpus, DataRecipe(balance="none"), 250, seed=0)
    assert set(Counter(schedule["path"]).values()) == {2, 3}


def test_same_seed_same_schedule(corpus):
    first, again, other = (build_schedule(corpus, DataRecipe(), 50, seed)[:] for seed in (1, 1, 2))
    assert first == again != other
    assert first["draw"] == list(range(50))


def test_questions_are_asked_in_their_shares_and_only_where_labels_exist(corpus):
    unknown = corpus.map(lambda row: {"audio_label": None if row["label"] else row["audio_label"]})
    schedule = build_schedule(
        unknown, DataRecipe(video_share=0.25, audio_share=1.0, balance="label"), 2000, seed=0
    )
    assert np.mean(schedule["ask_video"]) == pytest.approx(0.25, abs=0.03)
    assert [bool(asked) for asked in schedule["ask_audio"]] == [label == 0 for label in schedule["label"]]


def test_one_class_cannot_be_balanced(corpus):
    fakes = corpus.filter(lambda label: label == 1, input_columns="label")
    with pytest.raises(RecipeError, match="holds fake clips only"):
        build_schedule(fakes, DataRecipe(balance="label"), 10, seed=0)
    assert len(build_schedule(fakes, DataRecipe(balance="none"), 10, seed=0)) == 10


def test_a_recipe_trains_on_a_frozen_list(tmp_path):
    copy, frozen = tmp_path / "FakeAVCeleb_v1.2", tmp_path / "mine.json"
    write_fakeavceleb(copy)
    whole = load_split(DataRecipe("fakeavceleb", "all", str(copy)), "full")
    some = dict(zip(whole["path"][3:9], whole["label"][3:9], strict=True))
    write_lists(frozen, [ProtocolList("fakeavceleb", "mine", {"train": SplitList.of(some)})])
    rows = load_split(DataRecipe("fakeavceleb", str(frozen), str(copy)), "train")
    assert dict(zip(rows["path"], rows["label"], strict=True)) == some
    with pytest.raises(RecipeError, match=r"mine\.json, split test"):
        load_split(DataRecipe("fakeavceleb", str(frozen), str(copy)), "test")

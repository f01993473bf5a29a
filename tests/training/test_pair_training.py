"""Training on pairs: the loss, the average of weights, the order of draws, and metrics."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from facevoice_factory import tiny

from modeling_avlmm.training.array_store import ArrayStore
from modeling_avlmm.training.facevoice_stages import by_people, picture_log_odds, sound_log_odds
from modeling_avlmm.training.genuine_recipe import PairsRecipe
from modeling_avlmm.training.pair_training import PairTraining, measure_norms, pair_metrics
from modeling_avlmm.training.recipe_values import RecipeError


def picture_training(**settings) -> PairTraining:
    model = tiny()
    model.requires_grad_(False)
    model.picture.requires_grad_(True)
    model.picture_head.requires_grad_(True)
    return PairTraining(model, picture_log_odds, PairsRecipe(**settings))


def pixels(count: int = 4) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )


def test_the_loss_of_pairs():
    training = picture_training(average=0.9, rank_weight=0.3, label_smoothing=0.2)
    labels = torch.tensor([0, 1, 0, 1])
    training.eval()
    output = training(labels, pixel_values=pixels())
    values = output.logits
    assert torch.equal(values, training.averaged.frame_log_odds(pixels()))
    expected = F.binary_cross_entropy_with_logits(values, torch.tensor([0.1, 0.9, 0.1, 0.9]))
    ranks = torch.stack([F.softplus(values[0] - values[1]), F.softplus(values[2] - values[3])])
    torch.testing.assert_close(output.loss, expected + 0.3 * ranks.mean())


def test_a_fake_is_ranked_over_every_genuine_one_of_the_batch():
    training = picture_training(rank_weight=0.3, rank_over="batch").eval()
    output = training(torch.tensor([0, 1, 0, 1]), pixel_values=pixels())
    values = output.logits
    expected = F.binary_cross_entropy_with_logits(values, torch.tensor([0.0, 1.0, 0.0, 1.0]))
    ranks = [F.softplus(values[genuine] - values[fake]) for genuine in (0, 2) for fake in (1, 3)]
    torch.testing.assert_close(output.loss, expected + 0.3 * torch.stack(ranks).mean())


def test_the_average_follows_the_network_that_trains():
    training = picture_training(average=0.5)
    before = {name: values.clone() for name, values in training.averaged.state_dict().items()}
    training.train()
    training(torch.tensor([0, 1, 0, 1]), pixel_values=pixels()).loss.backward()
    with torch.no_grad():
        for weight in training.detector.parameters():
            if weight.grad is not None:
                weight -= 0.1 * weight.grad
    training.update_average(1)  # an early step: (1 + 1) / (12 + 1), not 0.5
    training.update_average(1000)
    now = training.detector.state_dict()
    for name, values in training.averaged.state_dict().items():
        if not name.startswith("picture"):
            assert torch.equal(values, before[name]) and torch.equal(now[name], before[name]), name
        elif values.is_floating_point():
            first = before[name] + (1 - 2 / 13) * (now[name] - before[name])
            torch.testing.assert_close(values, first + 0.5 * (now[name] - first))
    assert not torch.equal(now["picture.bn1.running_mean"], before["picture.bn1.running_mean"])
    assert not any(weight.requires_grad for weight in training.averaged.parameters())
    assert training.best is training.averaged


def test_the_other_network_is_left_alone():
    model = tiny()
    model.requires_grad_(False)
    model.sound.requires_grad_(True)
    training = PairTraining(model, sound_log_odds, PairsRecipe(average=0.0)).train()
    assert training.best is model
    assert training.detector.sound.training and not training.detector.picture.training
    assert not training.eval().detector.sound.training


def test_statistics_of_norms_are_measured_once():
    training = picture_training(average=0.9, freeze_norms=True)
    batches = [{"pixel_values": pixels(), "labels": None}, {}, {"pixel_values": pixels().flip(0) // 2}]
    seen = []
    hook = training.detector.picture.bn1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    measure_norms(training, batches)
    hook.remove()
    norm = training.detector.picture.bn1
    means = torch.stack([values.mean((0, 2, 3)) for values in seen])
    torch.testing.assert_close(norm.running_mean, means.mean(0))
    assert torch.equal(training.averaged.picture.bn1.running_mean, norm.running_mean)
    training.train()
    assert not norm.training and training.detector.picture.training
    training(torch.tensor([0, 1, 0, 1]), pixel_values=pixels())
    torch.testing.assert_close(norm.running_mean, means.mean(0))


def test_metrics_of_pairs():
    given = SimpleNamespace(
        predictions=np.array([0.0, 1.0, 2.0, 1.5, 5.0, 1.0]),
        label_ids=(np.array([0, 1, 0, 1, 0, 1]), np.array([7, 7, 7, 7, 9, 9])),
    )
    # Sample 7: fakes 1 and 1.5 against 0 and 2 (means 1.25 and 1); sample 9: 1 against 5.
    assert pair_metrics(given) == {"auc": pytest.approx(3 / 9), "pairs": 0.5}


def test_people_come_in_turn():
    people = np.array(["a", "a", "a", "b", "c", "c"])
    drawn = by_people(people, 9, np.random.default_rng(0))
    assert len(drawn) == 9
    for start in (0, 3, 6):
        assert {people[number] for number in drawn[start : start + 3]} == {"a", "b", "c"}
    assert len(by_people(people, 0, np.random.default_rng(0))) == 0


def test_a_store_of_arrays(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, size=shape, dtype=np.uint8) for shape in ((2, 3, 3), (5, 5, 3), (1, 1, 3))]
    rows = [(array, {"of": number, "box": np.full(4, number)}) for number, array in enumerate(arrays)]
    assert ArrayStore.open(tmp_path / "store", {"a": 1}) is None
    made = ArrayStore.build(tmp_path / "store", {"a": 1}, np.uint8, iter(rows))
    again = ArrayStore.open(tmp_path / "store", {"a": 1})
    for store in (made, again):
        assert len(store) == 3 and store.columns["of"].tolist() == [0, 1, 2]
        assert store.columns["box"].shape == (3, 4)
        for number, array in enumerate(arrays):
            assert np.array_equal(store[number], array)
    with pytest.raises(RecipeError, match=r"was made with another a, b\. Delete it"):
        ArrayStore.open(tmp_path / "store", {"a": 2, "b": 1})
    with pytest.raises(ValueError, match="no arrays"):
        ArrayStore.build(tmp_path / "empty", {}, np.uint8, iter(()))
    assert not (tmp_path / "empty").exists()

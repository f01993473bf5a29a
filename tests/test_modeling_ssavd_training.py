"""Training of SSAVD: labels, losses, the paths of their gradients, and a plain trainer."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from ssavd_factory import IGNORE, LABELS, TINY, batch, tensor, tiny
from transformers import Trainer, TrainingArguments

from modeling_avlmm import SSAVDConfig, SSAVDForDeepfakeDetection
from modeling_avlmm.modeling_ssavd_training import (
    change_style,
    contrastive_loss,
    shuffled_labels,
    shuffled_rows,
    uniform_loss,
)

# -- labels ------------------------------------------------------------------------------------------------------------


def test_labels_of_shuffled_sound():
    video, audio = tensor(0, 0, 1, 0, 1, IGNORE), tensor(0, 1, 0, 0, IGNORE, 0)
    order = tensor(1, 0, 2, 4, 3, 5)
    assert shuffled_labels(video, audio, order).tolist() == [1, 0, 1, IGNORE, 1, IGNORE]
    assert shuffled_labels(video, audio, order, mismatch_is_fake=True).tolist() == [
        1,
        1,
        1,
        IGNORE,
        1,
        IGNORE,
    ]
    same = torch.arange(3)
    clips = (tensor(0, 0, 1), tensor(0, 1, 0), same)
    assert shuffled_labels(*clips).tolist() == shuffled_labels(*clips, True).tolist() == [0, 1, 1]


def test_only_present_rows_are_shuffled():
    torch.manual_seed(0)
    present = tensor(True, False, True, True, False)
    orders = {tuple(shuffled_rows(present).tolist()) for _ in range(200)}
    assert len(orders) == 6 and all(order[1] == 1 and order[4] == 4 for order in orders)
    assert all(sorted(order) == list(range(5)) for order in orders)


# -- losses ------------------------------------------------------------------------------------------------------------


def test_uniform_loss_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [1.0, 1.0], [50.0, 0.0]])
    rows = tensor(True, True, False)
    expected = ((math.log(4 / 3) + math.log(4)) / 2 + math.log(2)) / 2
    assert uniform_loss(logits, rows).item() == pytest.approx(expected)
    assert uniform_loss(logits, tensor(False, False, False)).item() == 0


def test_contrastive_loss_by_hand():
    features = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 3.0], [-5.0, 7.0]])
    labels = tensor(0, 0, 1, IGNORE)
    # cos = 0 between the equal ones, 1/sqrt(2) from each to the third; every pair counts twice.
    expected = (2 * (1 - 0) + 4 * (math.sqrt(0.5) - 0.4)) / 9
    assert contrastive_loss(features, labels, 0.4).item() == pytest.approx(expected)
    assert contrastive_loss(features, labels, 0.8).item() == pytest.approx(2 / 9)
    assert contrastive_loss(features, torch.full((4,), IGNORE), 0.4).item() == 0


def test_style_is_changed_and_content_kept():
    torch.manual_seed(0)
    content, style = torch.randn(2, 3, 4, 5, 5) * 3 + 1, torch.randn(2, 3, 4, 5, 5) * 0.5 - 2
    changed = change_style(content, style, 0.0)
    dims = (2, 3, 4)
    torch.testing.assert_close(changed.mean(dims), style.mean(dims), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        changed.std(dims, unbiased=False), style.std(dims, unbiased=False), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(change_style(content, style, 1.0), content, atol=1e-5, rtol=1e-5)
    halfway = change_style(content, style, 0.5).mean(dims)
    torch.testing.assert_close(halfway, (content.mean(dims) + style.mean(dims)) / 2, atol=1e-4, rtol=1e-4)
    normal = [(x - x.mean(dims, True)) / x.std(dims, keepdim=True) for x in (content, changed)]
    torch.testing.assert_close(*normal, atol=1e-4, rtol=1e-4)


def test_loss_in_evaluation_is_the_three_classification_terms():
    model = tiny(video_weight=0.5, audio_weight=2.0)
    inputs = batch(model.config)
    with torch.no_grad():
        output = model(**inputs, **LABELS)
    terms = [
        F.cross_entropy(logits, labels, label_smoothing=0.1)
        for logits, labels in zip(
            (output.logits, output.video_logits, output.audio_logits), LABELS.values(), strict=True
        )
    ]
    assert output.loss.item() == pytest.approx((terms[0] + 0.5 * terms[1] + 2 * terms[2]).item(), rel=1e-5)
    # The overall labels follow from the others.
    with torch.no_grad():
        # The loss is an average, whatever a trainer counts.
        assert model(**inputs, **LABELS, num_items_in_batch=7).loss == output.loss
        derived = model(**inputs, video_labels=LABELS["video_labels"], audio_labels=LABELS["audio_labels"])
    assert derived.loss.item() == output.loss.item()


def train_loss(seed: int = 5, labels=LABELS, **options) -> float:
    """Return the training loss of one network and batch for given random numbers, without stochastic depth."""
    # The style heads are always made, so that everything else has the same weights.
    model = tiny(drop_path=0.0, **options).train()
    donor = tiny(drop_path=0.0).state_dict()
    model.load_state_dict({name: donor[name] for name in model.state_dict()})
    torch.manual_seed(seed)
    with torch.no_grad():
        return model(**batch(model.config), **labels).loss.item()


PLAIN = {"style_aug": False, "shuffle_av": False, "contrast_weight": 0.0}


def test_every_switch_changes_the_loss_and_nothing_else_does():
    off = train_loss(**PLAIN)
    assert train_loss(seed=6, **PLAIN) == off  # nothing random is left
    whole = train_loss()
    assert whole == train_loss()
    switches = (
        {"label_smoothing": 0.0},
        {"video_weight": 0.0},
        {"audio_weight": 0.0},
        {"contrast_weight": 0.0},
        {"contrast_margin": -1.0},
        {"contrast_overall": False},
        {"shuffle_av": False},
        {"style_aug": False},
        {"adversarial_weight": 0.0},
        {"stream_heads": False},
        {"rectified_pooling": True},
    )
    values = [train_loss(**switch) for switch in switches]
    assert all(abs(value - whole) > 1e-4 for value in values), values
    assert all(math.isfinite(value) for value in values)
    # These two terms need others.
    genuine = {name: torch.zeros(3, dtype=torch.long) for name in LABELS}
    seed = next(s for s in range(9) if torch.manual_seed(s) and torch.randperm(3).tolist() != [0, 1, 2])
    mismatched = train_loss(seed, genuine, **{**PLAIN, "shuffle_av": True}, mismatch_is_fake=True)
    assert abs(mismatched - train_loss(seed, genuine, **{**PLAIN, "shuffle_av": True})) > 1e-4


def test_the_terms_add_up():
    """Each term alone equals the difference that it makes to the sum."""
    off = train_loss(**PLAIN)
    contrast = train_loss(**{**PLAIN, "contrast_weight": 1.0}) - off
    shuffle = train_loss(**{**PLAIN, "shuffle_av": True}) - off
    assert contrast > 0 and shuffle > 0
    both = train_loss(**{**PLAIN, "contrast_weight": 2.0, "shuffle_av": True})
    assert both == pytest.approx(off + 2 * contrast + shuffle, rel=1e-5)


def gradients(**options) -> dict[str, torch.Tensor]:
    model = tiny(drop_path=0.0, **options).train()
    torch.manual_seed(5)
    model(**batch(model.config), **LABELS).loss.backward()
    return {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
        for name, weight in model.named_parameters()
    }


def test_style_gradients_go_where_they_should():
    """The style heads learn from their own loss only, and the network from the adversarial loss only."""
    without, with_adversary = gradients(adversarial_weight=0.0), gradients(adversarial_weight=3.0)
    heads = ("video_style", "audio_style")
    network = ("stages", "front_end")
    for name, gradient in without.items():
        if name.startswith(heads):
            assert gradient.abs().max() > 0, name
            # The adversarial loss adds nothing: it does not train the heads.
            assert torch.equal(gradient, with_adversary[name]), name
        elif name.startswith("unused_style"):
            assert gradient.abs().max() == 0
        elif name.startswith(network):
            continue
        else:
            # Pools and heads come after the mixed features, which the adversarial loss does not reach.
            torch.testing.assert_close(gradient, with_adversary[name])
    changed = [
        name
        for name, gradient in without.items()
        if name.startswith(network)
        and not torch.allclose(gradient, with_adversary[name], rtol=1e-3, atol=1e-7)
    ]
    assert any(name.startswith("front_end") for name in changed)
    assert any(name.startswith("stages.0") for name in changed)


def test_style_loss_sends_nothing_into_the_network():
    """Without the adversarial loss, other style heads give the network the same gradient."""
    results = []
    for factor in (1.0, 5.0):
        model = tiny(drop_path=0.0, adversarial_weight=0.0).train()
        with torch.no_grad():
            for weight in (*model.video_style.parameters(), *model.audio_style.parameters()):
                weight.mul_(factor)
        torch.manual_seed(5)
        model(**batch(model.config), **LABELS).loss.backward()
        results.append({n: w.grad for n, w in model.named_parameters() if w.grad is not None})
    for name, gradient in results[0].items():
        same = torch.equal(gradient, results[1][name])
        assert same != name.startswith(("video_style", "audio_style")), name


def test_one_backward_equals_the_two_style_steps():
    """The gradients equal those of two steps, each with the style heads or the network frozen."""
    model = tiny().train()
    torch.manual_seed(0)
    features = torch.randn(3, 8, 4, 7, 7)
    labels, present = tensor(0, 1, 1), torch.ones(3, dtype=torch.bool)
    routed = features.clone().requires_grad_()
    torch.manual_seed(7)
    _, loss = model._mix_style(routed, present, model.video_style, labels)
    loss.backward()
    head = dict(model.video_style.named_parameters())
    ours = {name: weight.grad.clone() for name, weight in head.items()}

    torch.manual_seed(7)
    order = shuffled_rows(present)
    apart = features.clone().requires_grad_()
    styled = change_style(apart[order], apart, 0.0)
    theirs = torch.autograd.grad(
        F.cross_entropy(model.video_style(styled.detach()), labels), list(head.values())
    )
    for name, gradient in zip(head, theirs, strict=True):
        torch.testing.assert_close(ours[name], gradient)
    for weight in head.values():
        weight.requires_grad_(False)
    adversary = 0.1 * -F.log_softmax(model.video_style(styled), -1).mean(-1).mean()
    torch.testing.assert_close(routed.grad, torch.autograd.grad(adversary, apart)[0])


def test_clips_without_a_part_or_label_train_too():
    model = tiny(drop_path=0.0).train()
    masks = {"frame_mask": torch.tensor([[1] * 4, [0] * 4, [1] * 4]), "audio_mask": tensor(False, True, True)}
    loss = model(**batch(model.config), **masks, labels=tensor(1, 0, IGNORE)).loss
    loss.backward()
    assert all(w.grad is None or torch.isfinite(w.grad).all() for w in model.parameters())
    assert model.video_head.weight.grad.abs().max() > 0 and model.audio_head.weight.grad.abs().max() > 0
    # Without any label the loss is 0, and there is a backward pass.
    model.zero_grad()
    model = tiny(drop_path=0.0, adversarial_weight=0.0).train()
    loss = model(**batch(model.config), labels=torch.full((3,), IGNORE)).loss
    loss.backward()
    assert loss.item() == 0 and model.head.weight.grad.abs().max() == 0


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style_aug", [False, True])
def test_a_plain_trainer_overfits_eight_clips(tmp_path, style_aug):
    torch.manual_seed(0)
    config = SSAVDConfig(**TINY, drop_path=0.0, frontend="fast", style_aug=style_aug)
    model = SSAVDForDeepfakeDetection(config)
    inputs, videos, audios = batch(config, 8), [0, 0, 1, 1] * 2, [0, 1, 0, 1] * 2
    # Fake pictures have stripes, fake voices hum.
    stripes = (120 * (torch.arange(56) // 4 % 2)).to(torch.uint8)
    hum = 0.3 * torch.sin(2 * math.pi * 1000 * torch.arange(3200) / 16_000)
    for row in range(8):
        inputs["pixel_values"][row] = inputs["pixel_values"][row] // 4 + stripes * videos[row]
        inputs["audio_values"][row] += hum * audios[row]
    rows = [
        {
            **{name: values[row] for name, values in inputs.items()},
            "labels": int(videos[row] or audios[row]),
            "video_labels": videos[row],
            "audio_labels": audios[row],
        }
        for row in range(8)
    ]
    arguments = TrainingArguments(
        tmp_path,
        per_device_train_batch_size=4 if style_aug else 8,
        gradient_accumulation_steps=2 if style_aug else 1,
        max_steps=12 if style_aug else 60,
        learning_rate=1e-2,
        logging_steps=4 if style_aug else 20,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    if style_aug:
        # Mixed styles keep this loss up. Two half batches were averaged, not added: three terms of about log 2 and more.
        assert 0.5 * before < losses[0] < 4 * before
        return
    assert trainer.evaluate()["eval_loss"] < 0.5 * before
    with torch.no_grad():
        output = model.eval()(**inputs)
    for logits, labels in ((output.video_logits, videos), (output.audio_logits, audios)):
        assert logits.argmax(-1).tolist() == labels

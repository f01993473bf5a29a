"""AVPL's losses: the matching loss against plain loops, the labels of each head, and learning of time."""

from __future__ import annotations

import math

import pytest
import torch
from avpl_factory import batch, tiny, tiny_config

from modeling_avlmm import AVPLForDeepfakeDetection
from modeling_avlmm.modeling_avpl_training import disagreement, distinct_sounds, matching_loss
from modeling_avlmm.modeling_verdicts import classification_loss

IGNORE = -100


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def by_loops(seen, heard, times, matched, labels, distinct, margin, shift, temperature) -> float:
    """Compute the three averages of the docstring, pair by pair."""
    clips, frames = matched.shape
    every = [(i, t) for i in range(clips) for t in range(frames) if matched[i, t]]
    genuine = [(i, t) for i, t in every if labels[i] == 0]
    c = {(a, b): cosine(seen[a], heard[b]) for a in every for b in every}
    pull = [1 - c[a, a] for a in genuine]
    push = [max(0.0, c[a, a] - margin) for a in every if labels[a[0]] == 1]
    among_sounds, among_pictures = [], []
    for a in genuine:
        apart = []
        for b in genuine:
            if a[0] == b[0] and abs(float(times[a] - times[b])) >= shift - 1e-6:
                apart.append(b)
            if a[0] != b[0] and distinct[a[0], b[0]]:
                apart.append(b)
        if apart:
            among_sounds.append(math.log(1 + sum(math.exp((c[a, b] - c[a, a]) / temperature) for b in apart)))
            among_pictures.append(
                math.log(1 + sum(math.exp((c[b, a] - c[a, a]) / temperature) for b in apart))
            )
    total = sum(sum(values) / len(values) for values in (pull, push) if values)
    return total + sum(sum(values) / len(values) / 2 for values in (among_sounds, among_pictures) if values)


def features(clips: int = 5, frames: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    steps = 0.05 + 0.2 * torch.rand(clips, frames, generator=generator)
    return {
        "seen": torch.randn(clips, frames, 3, generator=generator),
        "heard": torch.randn(clips, frames, 3, generator=generator),
        "times": steps.cumsum(1),
        "matched": torch.rand(clips, frames, generator=generator) > 0.25,
    }


@pytest.mark.parametrize("labels", [(0, 1, IGNORE, 0, 0), (1, 1, 1, 1, 1), (0,) * 5, (IGNORE,) * 5])
@pytest.mark.parametrize(("margin", "shift"), [(0.0, 0.2), (0.3, 0.1), (-0.5, 9.0)])
def test_matching_equals_plain_loops(labels, margin, shift):
    given = features()
    labels = torch.tensor(labels)
    distinct = ~torch.eye(5, dtype=torch.bool)
    distinct[3, 4] = distinct[4, 3] = False
    for others in (distinct, None):
        options = {"margin": margin, "shift_seconds": shift, "temperature": 0.3}
        result = matching_loss(**given, labels=labels, distinct=others, **options)
        known = ~torch.eye(5, dtype=torch.bool) if others is None else others
        expected = by_loops(*given.values(), labels, known, margin, shift, 0.3)
        assert result.item() == pytest.approx(expected, abs=1e-5)
    assert (expected > 0) == bool((labels >= 0).any())


def test_padding_and_unknown_clips_change_nothing():
    given = features()
    labels = torch.tensor([0, 1, IGNORE, 0, 0])
    before = matching_loss(**given, labels=labels)
    seen, heard = given["seen"].clone().requires_grad_(), given["heard"].clone().requires_grad_()
    matching_loss(seen, heard, given["times"], given["matched"], labels).backward()
    away = ~given["matched"]
    away[2] = True
    assert not seen.grad[away].any() and not heard.grad[away].any()
    # In a forged clip only pairs that lie too close move.
    away[1] = True
    assert seen.grad[~away].abs().sum(-1).min() > 0
    away[1] = ~given["matched"][1]
    for name in ("seen", "heard"):
        given[name] = torch.where(away[..., None], 7.0, given[name])
    assert torch.equal(matching_loss(**given, labels=labels), before)
    assert matching_loss(**{**given, "matched": torch.zeros(5, 4, dtype=torch.bool)}, labels=labels) == 0


def test_genuine_frames_are_pulled_and_all_else_is_pushed():
    """After a step against the gradient, genuine pairs are nearer; forged, shifted and foreign sound is further away."""
    torch.manual_seed(0)
    seen, heard = torch.rand(3, 2, 4) + 0.1, torch.rand(3, 2, 4) + 0.1  # all cosines above 0
    times, matched = torch.tensor([[0.0, 0.5]]).repeat(3, 1), torch.ones(3, 2, dtype=torch.bool)

    def change(labels, a, b) -> float:
        moving = seen.clone().requires_grad_()
        matching_loss(moving, heard, times, matched, torch.tensor(labels)).backward()
        moved = (moving - 0.01 * moving.grad).detach()
        return cosine(moved[a], heard[b]) - cosine(seen[a], heard[b])

    here, shifted, foreign = (0, 0), (0, 1), (2, 0)
    assert change((1, IGNORE, IGNORE), here, here) < 0
    assert change((0, IGNORE, IGNORE), here, here) > change((0, IGNORE, IGNORE), here, shifted)
    assert change((0, IGNORE, 0), here, here) > change((0, IGNORE, 0), here, foreign)
    # A clip without a label is in no pair between clips, nor is a forged one.
    one, with_forged = (change(labels, here, shifted) for labels in ((0, IGNORE, IGNORE), (0, 1, IGNORE)))
    assert one == pytest.approx(with_forged, abs=1e-7)


def test_disagreement_is_on_the_scale_of_the_loss():
    seen = torch.tensor([[[1.0, 0], [1, 0], [1, 0], [1, 0]]])
    heard = torch.tensor([[[2.0, 0], [0, 3], [-1, 0], [1, 1]]])
    matched = torch.tensor([[True, True, True, False]])
    scores = disagreement(seen, heard, matched)
    assert scores[0, :3].tolist() == [0, 1, 1] and scores[0, 3].isnan()
    scores = disagreement(seen, heard, torch.ones(1, 4, dtype=torch.bool), margin=0.5)
    assert scores[0, 3].item() == pytest.approx((1 - math.sqrt(0.5)) / 0.5, abs=1e-6)


def test_the_same_sound_twice_is_not_another_clip():
    spectra, mask = torch.randn(4, 5, 7), torch.ones(4, 3, dtype=torch.bool)
    spectra[2] = spectra[0]
    spectra[3] = spectra[1]
    mask[3, 2] = False
    distinct = distinct_sounds(spectra, mask)
    expected = ~torch.eye(4, dtype=torch.bool)
    expected[0, 2] = expected[2, 0] = False
    assert torch.equal(distinct, expected)


# -- in the model ------------------------------------------------------------------------------------------------------


def test_every_head_learns_its_own_label():
    model = tiny(matching_weight=0.0, video_weight=0.5, audio_weight=2.0, label_smoothing=0.1)
    inputs = batch(model.config, 4)
    masks = {"frame_mask": torch.ones(4, 6), "audio_mask": torch.ones(4, 50)}
    masks["audio_mask"][3] = 0
    given = {
        "labels": torch.tensor([1, 0, 1, 0]),
        "video_labels": torch.tensor([0, IGNORE, IGNORE, IGNORE]),
    }
    output = model(**inputs, **masks, **given)
    unmasked = model(**inputs)
    # Fake with a genuine picture: the sound is fake. Genuine: both are. Fake only: unknown. No sound: no label.
    expected = (
        classification_loss(unmasked.logits, torch.tensor([1, 0, 1, IGNORE]), 0.1)
        + 0.5 * classification_loss(output.video_logits, torch.tensor([0, 0, IGNORE, 0]), 0.1)
        + 2.0 * classification_loss(unmasked.audio_logits, torch.tensor([1, 0, IGNORE, IGNORE]), 0.1)
    )
    torch.testing.assert_close(output.loss, expected)
    one = tiny(matching_weight=0.0, multi_task=False)
    output = one(**inputs, **given)
    torch.testing.assert_close(output.loss, classification_loss(output.logits, given["labels"]))
    with pytest.raises(ValueError, match="contradict each other"):
        model(**inputs, labels=torch.zeros(4).long(), video_labels=torch.ones(4).long())


def test_the_matching_loss_is_part_of_the_loss():
    inputs, labels = batch(tiny().config, 4), torch.tensor([0, 1, 0, 0])
    losses = [tiny(matching_weight=w)(**inputs, labels=labels).loss.item() for w in (0.0, 1.0, 3.0)]
    assert losses[2] - losses[0] == pytest.approx(3 * (losses[1] - losses[0]), abs=1e-5)
    assert losses[1] - losses[0] > 0.1
    # A clip without sound is in no pair.
    mask = torch.ones(4, 50)
    mask[0] = 0
    some, none = (tiny(matching_weight=w)(**inputs, audio_mask=mask, labels=labels).loss for w in (1.0, 0.0))
    rest = {name: value[1:] for name, value in inputs.items()}
    alone = [tiny(matching_weight=w)(**rest, labels=labels[1:]).loss for w in (1.0, 0.0)]
    torch.testing.assert_close(some - none, alone[0] - alone[1], atol=1e-5, rtol=1e-5)


def moments(count: int, generator: torch.Generator, shift: int = 0) -> dict[str, torch.Tensor]:
    """Return clips of eight moments in random order, each with its picture and, `shift` moments later, its sound."""
    known = torch.Generator().manual_seed(1000)
    pictures = torch.randint(0, 256, (8, 3, 32, 32), generator=known, dtype=torch.uint8)
    sounds = torch.randn(8, 80, generator=known)
    order = torch.rand(count, 8, generator=generator).argsort(1)
    spectra = sounds[order.roll(shift, 1)].repeat_interleave(13, 1)[:, :101]
    return {
        "pixel_values": pictures[order],
        "input_features": spectra.transpose(1, 2),
        "frame_times": (torch.arange(8) / 8 + 0.06).repeat(count, 1),
    }


@pytest.mark.parametrize("seed", range(3))
def test_a_few_steps_learn_which_moment_belongs_to_which(seed):
    """
    On held-out clips, the sound of other moments disagrees more than a clip's own sound in most pairs.

    The share was 0.97 to 1.00 over seeds 0 to 5, and 0.51 to 0.59 over seeds 0 to 2 without push and contrast.
    """
    torch.manual_seed(seed)
    model = AVPLForDeepfakeDetection(tiny_config(num_frames=8))
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=80)
    generator, genuine = torch.Generator().manual_seed(seed), torch.zeros(16, dtype=torch.long)
    model.train()
    for _ in range(80):
        optimizer.zero_grad()
        model(**moments(16, generator), labels=genuine).loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        together, apart = (
            model(**moments(64, torch.Generator().manual_seed(7), shift)).disagreement for shift in (0, 3)
        )
    assert (together[:, None] < apart[None]).float().mean() > 0.9

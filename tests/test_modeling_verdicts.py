"""Inputs, labels, losses and verdicts of the detectors with three heads."""

from __future__ import annotations

import math

import avpl_factory
import pytest
import ssavd_factory
import torch
from ssavd_factory import IGNORE, tensor

from modeling_avlmm.modeling_verdicts import (
    check_shapes,
    classification_loss,
    complete_labels,
    masked_verdicts,
    normalized,
)


def test_shapes_are_checked():
    check_shapes({"one": (torch.zeros(2, 3), (2, 3)), "left_out": (None, (7,))}, "SomeProcessor")
    with pytest.raises(
        ValueError, match=r"one has shape \(2, 3\), and this model takes \(2, 4\) .*SomeProcessor"
    ):
        check_shapes({"one": (torch.zeros(2, 3), (2, 4))}, "SomeProcessor")


def test_bytes_are_normalized_and_floats_left():
    mean, std = (0.5, 0.25, 0.0), (0.5, 0.25, 1.0)
    frames = torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None, None].expand(3, 3, 2, 2)
    values = normalized(frames, mean, std)
    assert values[:, :, 1, 1].tolist() == [
        pytest.approx([-1, -1, 0]),
        pytest.approx([-0.6, -0.2, 0.2]),
        pytest.approx([1, 3, 1]),
    ]
    assert normalized(values, mean, std) is values


def completed(overall, video, audio, has_video=True, has_audio=True):
    parts = [None if value is None else tensor(value) for value in (overall, video, audio)]
    labels = complete_labels(*parts, tensor(has_video), tensor(has_audio))
    return labels.overall.item(), labels.video.item(), labels.audio.item()


def test_labels_that_follow_are_filled_in():
    assert completed(0, None, None) == (0, 0, 0)
    assert completed(1, None, None) == (1, IGNORE, IGNORE)
    assert completed(1, 0, None) == (1, 0, 1)
    assert completed(1, IGNORE, 0) == (1, 1, 0)
    assert completed(1, 1, None) == (1, 1, IGNORE)
    assert completed(None, 0, 1) == (1, 0, 1)
    # A genuine picture with genuine sound of something else.
    assert completed(1, 0, 0) == (1, 0, 0)
    assert completed(None, 0, 0) == (0, 0, 0)
    assert completed(None, 0, None) == (IGNORE, 0, IGNORE)
    assert completed(None, None, 1) == (1, IGNORE, 1)
    # A missing part has no label, and a fake without sound is fake in its picture.
    assert completed(1, None, None, has_audio=False) == (1, 1, IGNORE)
    assert completed(0, None, None, has_video=False) == (0, IGNORE, 0)
    assert completed(None, 1, 1, has_audio=False) == (1, 1, IGNORE)
    assert completed(1, 1, 1, has_video=False, has_audio=False) == (IGNORE, IGNORE, IGNORE)


def test_labels_that_contradict_are_refused():
    for labels in ((0, 1, None), (0, 0, 1)):
        with pytest.raises(ValueError, match="contradict"):
            completed(*labels)
    with pytest.raises(ValueError, match="contradict"):
        completed(1, 0, None, has_audio=False)
    with pytest.raises(ValueError, match="video_labels must be 0"):
        completed(None, 2, None)


def test_classification_loss_by_hand():
    logits, labels = torch.tensor([[0.0, math.log(3)], [2.0, 2.0], [9.0, -9.0]]), tensor(1, 0, IGNORE)
    # P(fake) = 3/4, then 1/2.
    assert classification_loss(logits, labels).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    smooth = 0.95 * math.log(4 / 3) + 0.05 * math.log(4) + math.log(2)
    assert classification_loss(logits, labels, 0.1).item() == pytest.approx(smooth / 2)
    assert classification_loss(logits, torch.full((3,), IGNORE)).item() == 0


def test_verdicts_by_hand():
    """Clips with picture and sound, picture alone, sound alone, and nothing."""
    logits = {
        name: torch.full((4, 2), number)
        for name, number in (("overall", 1.0), ("video", 2.0), ("audio", 3.0))
    }
    has_video, has_audio = tensor(True, True, False, False), tensor(True, False, True, False)
    verdicts = masked_verdicts(logits, has_video, has_audio)
    told = {
        name: [None if math.isnan(row[0]) else row[0] for row in rows.tolist()]
        for name, rows in verdicts.items()
    }
    assert told == {"overall": [1, 2, 3, None], "video": [2, 2, None, None], "audio": [3, None, 3, None]}
    joint = masked_verdicts({"overall": logits["overall"]}, has_video, has_audio)
    assert joint.keys() == {"overall"} and joint["overall"].isnan().all(1).tolist() == [
        False,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("factory", [ssavd_factory, avpl_factory])
@torch.no_grad()
def test_only_wanted_verdicts_are_given(factory):
    model = factory.tiny()
    questions = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 0, 1]])
    output, whole = (
        model(**factory.batch(model.config), questions=questions),
        model(**factory.batch(model.config)),
    )
    assert torch.equal(output.logits, whole.logits)
    assert output.video_logits.isnan().all(1).tolist() == [False, True, True]
    assert output.audio_logits.isnan().all(1).tolist() == [False, True, False]

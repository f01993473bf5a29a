"""The operations of training steps are counted as documented."""

import pytest
import torch
from media_factory import random_clip
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from modeling_avlmm import AVLMMProcessor
from modeling_avlmm.training.recipe_parts import StageRecipe
from modeling_avlmm.training.stage_kinds import KINDS, parameter_groups
from modeling_avlmm.training.throughput import FlopsCounter, peak_flops


@pytest.mark.parametrize(
    ("trained", "arrives", "per_weight", "attention"),
    [(False, False, 2, 1.0), (False, True, 4, 3.0), (True, False, 6, 3.0)],
)
def test_cost_of_a_weight(trained, arrives, per_weight, attention):
    """Forward only; forward and the input's gradient; both and the weight's gradient."""
    module = nn.Sequential(nn.Linear(10, 20, bias=False), nn.Linear(20, 5, bias=False))
    module.requires_grad_(trained)
    assert FlopsCounter._cost(module, arrives) == (per_weight * (200 + 100), attention)


def test_stages_cost_what_they_train(tiny_model, tiny_backbone):
    processor = AVLMMProcessor.from_backbone(str(tiny_backbone))
    batch = processor([random_clip(), random_clip(frames=8, seconds=4.0)])
    counts = {}
    for kind in ("alignment", "encoders", "pretraining"):
        KINDS[kind].freeze(tiny_model, StageRecipe(kind=kind))
        counts[kind] = FlopsCounter(tiny_model).step(batch)
    tiny_model.requires_grad_(True)
    # With everything frozen (LoRA is added later) there is a forward pass only; with everything trained, three times that.
    assert counts["pretraining"] == pytest.approx(3 * counts["alignment"])
    assert counts["alignment"] < counts["encoders"] < counts["pretraining"]


def test_peak_is_measured_where_no_data_sheet_is_known():
    peak, source = peak_flops(torch.device("cpu"), torch.float32)
    assert 1e8 < peak < 1e14 and source == "measured matrix product"


def test_every_part_has_its_rate_and_nothing_is_trained_twice(tiny_model):
    stage = StageRecipe(
        kind="encoders",
        learning_rate=1.0,
        audio_learning_rate=2.0,
        projector_learning_rate=3.0,
        weight_decay=0.1,
    )
    KINDS["encoders"].freeze(tiny_model, stage)
    groups = parameter_groups(tiny_model, stage)
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates == {"vision": 1.0, "audio": 2.0, "projectors": 3.0}
    listed = [id(p) for group in groups for p in group["params"]]
    trained = [id(p) for p in tiny_model.parameters() if p.requires_grad]
    tiny_model.requires_grad_(True)
    assert sorted(listed) == sorted(trained)
    assert all(p.ndim > 1 for group in groups if group["weight_decay"] for p in group["params"])


def test_vision_encoder_costs_what_a_counter_counts(tiny_model, tiny_backbone):
    """The formula equals operations counted one by one, for frames of a quarter of a window and of nine windows."""
    processor = AVLMMProcessor.from_backbone(str(tiny_backbone))
    clips = [random_clip(audio=False), random_clip(audio=False, size=(336, 336))]
    batch = processor(clips)
    tiny_model.requires_grad_(False)
    try:
        cost = FlopsCounter(tiny_model)
        whole = cost.step(batch)
        cost.text_cost = (0.0, 0.0)
        ours = cost.step(batch)
    finally:
        tiny_model.requires_grad_(True)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tiny_model.vision_encoder(batch["pixel_values_videos"], grid_thw=batch["video_grid_thw"])
    assert 0 < ours < whole
    assert ours == pytest.approx(counter.get_total_flops(), rel=1e-9)

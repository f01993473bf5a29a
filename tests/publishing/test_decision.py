"""`pipeline("decision")` of transformers asks about text and pictures: what keeps our three questions out of it."""

from __future__ import annotations

import base64

import pytest
from transformers.decision import DecisionConfig
from transformers.models.qwen2_5_omni import Qwen2_5OmniProcessor

from modeling_avlmm import AVLMMProcessor

QUESTIONS = {"overall": {"type": "noul", "instructions": "Is this video clip fake?"}}


def test_a_request_has_no_place_for_a_video_or_a_sound(tiny_backbone, clips):
    """Once this fails, transformers takes them, and docs/deploy.md and `publish` have to follow."""
    processor = Qwen2_5OmniProcessor.from_pretrained(tiny_backbone)
    data = base64.b64encode(clips["clip"].read_bytes()).decode()
    for asset in (
        str(clips["clip"]),
        str(clips["sound"]),
        {"type": "video", "format": "mp4", "data_base64": data},
    ):
        request = {"state": "<clip>", "questions": QUESTIONS, "assets": {"<clip>": asset}}
        with pytest.raises(Exception, match=r"(?i)image"):
            DecisionConfig().prepare_inputs(request, processor)


def test_our_own_processor_takes_no_request(tiny_detector):
    processor = AVLMMProcessor.from_pretrained(tiny_detector)
    request = {"state": "<clip>", "questions": QUESTIONS, "assets": {"<clip>": "clip.mp4"}}
    with pytest.raises(ValueError, match="Images need a model whose processor handles them"):
        DecisionConfig().prepare_inputs(request, processor)

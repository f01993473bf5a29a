"""The processor of facevoice: sound without speech is told and not scored."""

from __future__ import annotations

import pytest
import torch
from face_factory import voice

from modeling_avlmm import FaceVoiceProcessor
from modeling_avlmm.media import Clip
from modeling_avlmm.media_errors import NothingToScoreError, merged_warnings


def clip_of(sound: torch.Tensor, frames: torch.Tensor | None = None, start: float = 0.0) -> Clip:
    timestamps = None if frames is None else torch.arange(len(frames), dtype=torch.float64) / 5
    return Clip(frames, timestamps, sound, start, start + len(sound) / 16_000, "clip")


def test_speech_is_scored_up_to_its_end():
    row = FaceVoiceProcessor().encode(clip_of(voice(3.0)))
    assert row["audio_mask"].tolist() == [True] * 300 + [False] * 100
    torch.testing.assert_close(row["audio_values"][:48_000], voice(3.0))


def test_sound_without_speech_is_told_and_not_scored():
    crops = torch.zeros(3, 3, 40, 40, dtype=torch.uint8)
    clips = [clip_of(0.1 * torch.randn(64_000), crops, start) for start in (0.0, 4.0)]
    rows = [FaceVoiceProcessor().encode(clip) for clip in clips]
    assert not any(row["audio_mask"].any() for row in rows) and all(
        row["frame_mask"].sum() == 3 for row in rows
    )
    assert merged_warnings(clips[0].warnings + clips[1].warnings) == [
        "no speech was heard at 0.00-4.00, 4.00-8.00 s: the sound was not scored there"
    ]


def test_noise_alone_is_nothing_to_score():
    with pytest.raises(NothingToScoreError, match="no speech was heard at"):
        FaceVoiceProcessor().encode(clip_of(0.1 * torch.randn(64_000)))

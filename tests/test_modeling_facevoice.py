"""facevoice as a whole: verdicts, calibration, absent parts, losses, storage in half precision."""

from __future__ import annotations

import pytest
import torch
from facevoice_factory import batch, tiny
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel
from transformers.initialization import no_init_weights

from modeling_avlmm import (
    AutoModelForAVDeepfakeDetection,
    FaceVoiceConfig,
    FaceVoiceForDeepfakeDetection,
    FaceVoiceProcessor,
)
from modeling_avlmm.media import Clip


def log_odds(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 1] - logits[:, 0]


def parts(model, inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the raw log-odds of every crop and sound, computed one by one."""
    with torch.no_grad():
        frames = [[model.frame_log_odds(frame[None]) for frame in row] for row in inputs["pixel_values"]]
        everywhere = torch.ones(1, model.config.audio_samples // 160, dtype=torch.bool)
        sounds = [model.sound_log_odds(row[None], everywhere) for row in inputs["audio_values"]]
    return torch.stack([torch.cat(row) for row in frames]), torch.cat(sounds)


def test_the_published_size():
    with torch.device("meta"):
        model = FaceVoiceForDeepfakeDetection(FaceVoiceConfig())
    assert sum(weight.numel() for weight in model.picture.parameters()) == 3_371_008
    stored = [value for name, value in model.state_dict().items()]
    assert 2 * sum(value.numel() for value in stored) < 12e6  # bytes in half precision


def test_the_verdict_is_the_more_suspicious_calibrated_part():
    calibration = {"video_scale": 2.0, "video_bias": -0.5, "audio_scale": 0.5, "audio_bias": 0.25}
    model = tiny(**calibration)
    inputs = batch(model.config)
    frames, sounds = parts(model, inputs)
    with torch.no_grad():
        output = model(**inputs)
    video, audio = 2 * frames.mean(1) - 0.5, 0.5 * sounds + 0.25
    torch.testing.assert_close(log_odds(output.video_logits), video, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_odds(output.audio_logits), audio, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_odds(output.logits), torch.maximum(video, audio), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.frame_logits, 2 * frames - 0.5, atol=1e-5, rtol=1e-5)
    assert frames.std() > 1e-3 and sounds.std() > 1e-3  # the network tells rows apart


def test_absent_parts_are_left_out():
    model = tiny()
    inputs = batch(model.config, 4)
    frame_mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    audio_mask = torch.zeros(4, model.config.audio_samples // 160, dtype=torch.bool)
    audio_mask[0], audio_mask[1] = True, True
    frames, sounds = parts(model, inputs)
    with torch.no_grad():
        output = model(**inputs, frame_mask=frame_mask, audio_mask=audio_mask)
        assert torch.equal(
            model(pixel_values=inputs["pixel_values"]).logits,
            model(pixel_values=inputs["pixel_values"]).video_logits,
        )
        assert model(audio_values=inputs["audio_values"]).video_logits.isnan().all()
    expected = torch.stack([torch.maximum(frames[0, :2].mean(), sounds[0]), sounds[1], frames[2].mean()])
    torch.testing.assert_close(log_odds(output.logits)[:3], expected, atol=1e-5, rtol=1e-5)
    assert output.logits[3].isnan().all() and output.video_logits[1].isnan().all()
    assert output.audio_logits[2].isnan().all()
    assert output.frame_logits.isnan().tolist() == (frame_mask == 0).tolist()
    # What is masked has no influence.
    inputs["pixel_values"][0, 2:] = 0
    inputs["audio_values"][2:] = 1
    with torch.no_grad():
        again = model(**inputs, frame_mask=frame_mask, audio_mask=audio_mask)
    torch.testing.assert_close(again.logits, output.logits, equal_nan=True)


def test_sound_after_the_end_has_no_influence():
    model = tiny()
    inputs = batch(model.config, 2)
    mask = torch.ones(2, model.config.audio_samples // 160, dtype=torch.bool)
    mask[:, 40:] = False
    inputs["audio_values"][:, 40 * 160 :] = 0
    with torch.no_grad():
        short = model(**inputs, audio_mask=mask)
        inputs["audio_values"][:, 41 * 160 + 400 :] = 0.5
        assert torch.equal(model(**inputs, audio_mask=mask).audio_logits, short.audio_logits)


def test_losses_are_those_of_every_crop_and_sound():
    model = tiny(audio_weight=0.5)
    inputs = batch(model.config)
    frames, sounds = parts(model, inputs)
    labels = {"video_labels": torch.tensor([0, 1, -100]), "audio_labels": torch.tensor([1, -100, 0])}
    loss = model(**inputs, **labels).loss
    seen = torch.nn.functional.softplus(torch.cat([frames[0], -frames[1]])).mean()
    heard = torch.nn.functional.softplus(torch.stack([-sounds[0], sounds[2]])).mean()
    torch.testing.assert_close(loss.detach(), seen + 0.5 * heard)
    # A genuine clip's parts are genuine, whatever else is unknown.
    torch.testing.assert_close(
        model(**inputs, labels=torch.tensor([0, -100, -100])).loss.detach(),
        torch.nn.functional.softplus(frames[0]).mean() + 0.5 * torch.nn.functional.softplus(sounds[0]),
    )


def test_training_reaches_both_networks():
    model = tiny().train()
    inputs = batch(model.config)
    model(
        **inputs, video_labels=torch.tensor([0, 1, 1]), audio_labels=torch.tensor([1, 0, 1])
    ).loss.backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in model.picture_head.parameters())
    assert model.picture.conv_stem.weight.grad.any()
    assert all(weight.grad is not None for weight in model.sound.parameters())


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForAVDeepfakeDetection])
def test_half_precision_is_storage_only(auto, tmp_path):
    model = tiny(half_precision=True)
    model.save_pretrained(tmp_path)
    assert model.dtype == torch.float32
    assert {values.dtype for values in load_file(tmp_path / "model.safetensors").values()} <= {
        torch.float16,
        torch.int64,
    }
    assert isinstance(AutoConfig.from_pretrained(tmp_path), FaceVoiceConfig)
    loaded = auto.from_pretrained(tmp_path, dtype="auto").eval()
    assert isinstance(loaded, FaceVoiceForDeepfakeDetection)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    inputs = batch(model.config)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits, atol=2e-2, rtol=1e-2)
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "model.safetensors"
    ).read_bytes()


def test_sound_without_speech_is_not_judged(tmp_path):
    time = torch.arange(4 * 16_000) / 16_000
    hertz = 130 * 2 ** (
        0.3 * torch.sin(2 * torch.pi * 0.7 * time) + 0.15 * torch.sin(2 * torch.pi * 4 * time)
    )
    turns = 2 * torch.pi * hertz.double().cumsum(0) / 16_000
    voice = sum(torch.sin(k * turns) / k for k in range(1, 20)).float() * torch.sin(
        4 * torch.pi * time
    ).clamp(min=0)
    noise = torch.randn(4 * 16_000, generator=torch.Generator().manual_seed(0))
    FaceVoiceProcessor(speech_only=False).save_pretrained(tmp_path)
    for processor, heard in (
        (FaceVoiceProcessor(), False),
        (FaceVoiceProcessor.from_pretrained(tmp_path), True),
    ):
        for sound, judged in ((voice, True), (noise, heard)):
            row = processor.encode_media(Clip(None, None, 0.1 * sound, 0.0, 4.0, "sound"))
            assert bool(row["audio_mask"].any()) == judged
            torch.testing.assert_close(row["audio_values"], 0.1 * sound)


def test_impossible_sizes_are_refused():
    for options, text in (
        ({"image_size": 16}, "at least 32"),
        ({"clip_seconds": 1.2345}, "multiple of 0.01"),
        ({"video_scale": 0}, "video_scale must be above 0"),
    ):
        with pytest.raises(ValueError, match=text):
            FaceVoiceConfig(**options)
    model = tiny()
    with pytest.raises(ValueError, match="pixel_values has shape"):
        model(torch.zeros(1, 4, 3, 48, 48, dtype=torch.uint8))
    with pytest.raises(ValueError, match="pixel_values, audio_values or both"):
        model()


@torch.no_grad()
def test_the_type_stays_float32_and_fixed_filters_need_no_initialisation():
    model = tiny()
    with no_init_weights():
        other = FaceVoiceForDeepfakeDetection(model.config)
    other.load_state_dict(model.state_dict())
    inputs = batch(model.config)
    expected = model(**inputs).logits
    assert torch.equal(other.eval().to(torch.bfloat16)(**inputs).logits, expected)
    assert torch.equal(other.half()(**inputs).logits, expected)

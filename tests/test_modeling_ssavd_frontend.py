"""The front ends of SSAVD: filters, gradients, and agreement of the two."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from ssavd_factory import TINY, batch

from modeling_avlmm import SSAVDConfig, SSAVDForDeepfakeDetection
from modeling_avlmm.modeling_ssavd_frontend import AudioFrontEnd, LogMagnitude


def front_end(frontend: str) -> AudioFrontEnd:
    return SSAVDForDeepfakeDetection(
        SSAVDConfig(**{**TINY, "num_filters": 64, "filter_length": 251}, frontend=frontend)
    ).front_end


def test_filters_are_pairs_of_unit_gain_in_their_bands():
    bank = front_end("sinc").filterbank
    even, odd = bank().detach()
    assert torch.equal(even, even.flip(-1)) and torch.allclose(odd, -odd.flip(-1), atol=1e-7)
    low, band = bank.low_hz.detach(), bank.band_hz.detach()
    centres = 50 + low + (50 + band) / 2
    seconds = (torch.arange(251) - 125) / 16_000
    for k in (0, 10, 25, 31):
        tone = torch.exp(2j * math.pi * centres[k] * seconds)
        # The two differ by a quarter of a period and have equal gain.
        assert abs((even[k] * tone).sum().item()) == pytest.approx(abs((odd[k] * tone).sum().item()), rel=0.1)
        far = torch.exp(2j * math.pi * (centres[k] + 1500) * seconds)
        assert abs((even[k] * far).sum()) < 0.02 * abs((even[k] * tone).sum())
    # Adjacent from 30 Hz on, and equally wide on the mel scale.
    assert low[0].item() == pytest.approx(30) and torch.allclose(low[1:], (low + band)[:-1], rtol=1e-4)
    mel = 2595 * torch.log10(1 + torch.cat([low, (low + band)[-1:]]).double() / 700)
    assert torch.allclose(mel.diff(), mel.diff()[0], rtol=1e-3)


def normalised(model: AudioFrontEnd, wave: torch.Tensor) -> torch.Tensor:
    norm = model.normalise
    return F.instance_norm(wave[:, None], weight=norm.weight, bias=norm.bias, eps=norm.eps)


def test_published_front_end_equals_its_definition():
    model, audio = front_end("sinc"), batch(SSAVDConfig(**TINY))["audio_values"]
    with torch.no_grad():
        model.normalise.weight.fill_(1.5)
        model.normalise.bias.fill_(0.1)
        emphasised = audio - 0.97 * F.pad(audio[:, None], (1, 0), "reflect")[:, 0, :-1]
        wave = F.pad(normalised(model, emphasised), (125, 125)).double()
        even, odd = model.filterbank().double()
        for k, taps in ((0, even[0]), (31, even[31]), (32, odd[0]), (63, odd[31])):
            band = (wave.unfold(-1, 251, 1) @ taps)[:, 0]
            expected = torch.log(band.abs() + 1e-6)
            expected = expected - expected.mean(-1, keepdim=True)
            # Near zero crossings the logarithm magnifies rounding; the other values are close.
            off = (model(audio)[:, k].double() - expected).abs()
            assert off.median() < 1e-4 and off.quantile(0.999) < 0.05


def test_log_magnitude_has_its_own_gradient():
    values = torch.tensor([-2.0, -1e-3, 0.5, 30.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(LogMagnitude.apply, values, eps=1e-9, atol=1e-3)
    zero = torch.zeros(1, requires_grad=True)
    assert LogMagnitude.apply(zero).item() == pytest.approx(math.log(1e-6))
    assert torch.autograd.grad(LogMagnitude.apply(zero), zero)[0].item() == 0


def test_published_front_end_has_the_gradients_of_its_definition(monkeypatch):
    """This includes the norm's scale and shift, which are folded into the filters. The logarithm, which magnifies rounding, is left out."""
    monkeypatch.setattr(LogMagnitude, "apply", torch.abs)
    model, audio = front_end("sinc"), batch(SSAVDConfig(**TINY))["audio_values"]
    with torch.no_grad():
        model.normalise.weight.fill_(1.5)
        model.normalise.bias.fill_(0.1)
    emphasised = audio - 0.97 * F.pad(audio[:, None], (1, 0), "reflect")[:, 0, :-1]
    wave = F.pad(normalised(model, emphasised), (125, 125))
    bands = F.conv1d(wave, model.filterbank().reshape(-1, 1, 251)).abs()
    expected = bands - bands.mean(-1, keepdim=True)
    cotangent, weights = torch.randn_like(expected), list(model.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(model(audio), weights, cotangent),
        torch.autograd.grad(expected, weights, cotangent),
        strict=True,
    ):
        assert theirs.norm() > 0
        assert (ours - theirs).norm() < 1e-3 * theirs.norm()


def test_fast_front_end_is_the_envelope_of_the_same_filters():
    """It is every 16th value of the pairs' magnitude at stride 1, from sample 6 on."""
    model, audio = front_end("fast"), batch(SSAVDConfig(**TINY))["audio_values"]
    with torch.no_grad():
        emphasised = audio - 0.97 * F.pad(audio[:, None], (1, 0), "reflect")[:, 0, :-1]
        wave = normalised(model, emphasised)
        even, odd = F.conv1d(wave, model.filterbank().reshape(-1, 1, 251), padding=125).chunk(2, dim=1)
        expected = torch.log(torch.hypot(even, odd)[..., 6::16])
        torch.testing.assert_close(
            model(audio), expected - expected.mean(-1, keepdim=True), atol=1e-3, rtol=1e-4
        )


def test_fast_front_end_is_aligned_with_the_published_one():
    """A click is at the same step in the first stage of both."""
    audio = torch.zeros(1, 3200)
    audio[0, 2000] = 0.5
    for frontend in ("sinc", "fast"):
        bands = front_end(frontend)(audio).detach().exp()
        steps = bands[..., ::4] if frontend == "sinc" else F.interpolate(bands, size=800, mode="linear")
        weights = steps[0].mean(0)[450:551]
        centre = (weights * torch.arange(450, 551)).sum() / weights.sum()
        assert centre.item() == pytest.approx(500, abs=1), frontend


def test_silence_is_finite_and_has_finite_gradients():
    for frontend in ("sinc", "fast"):
        model = front_end(frontend)
        model(torch.zeros(2, 3200)).square().sum().backward()
        assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())

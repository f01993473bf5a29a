"""The front ends of SSAVD, which turn the waveform into bands."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers.utils.generic import maybe_autocast

from .configuration_ssavd import SAMPLING_RATE, SSAVDConfig

PRE_EMPHASIS = 0.97
HOP = 16
"""Samples from one envelope to the next in the fast front end."""

MIN_LOW_HZ = MIN_BAND_HZ = 50.0


class SincFilterbank(nn.Module):
    """
    Band-pass filters with learned edges (SincNet, Ravanelli & Bengio 2018), in pairs a quarter period apart (Pariente et
    al. 2020).

    Band `k` is `w(t) sinc(b_k t) cos(2 pi f_k t)` and the same with `sin`: an ideal band-pass of width `b_k` around `f_k`
    with unit gain, cut by a Hamming window. Initially the bands are equally wide on the mel scale. The rate is
    16 kHz, as in the authors' filterbank.

    Args:
        num_filters (`int`): Number of filters, two for each band.
        length (`int`): Taps of a filter; odd.
    """

    def __init__(self, num_filters: int, length: int):
        super().__init__()
        self.length = length
        self.low_hz = nn.Parameter(torch.empty(num_filters // 2))
        self.band_hz = nn.Parameter(torch.empty(num_filters // 2))

    def initial_bands(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return lower edges and widths in Hz of adjacent bands that are equally wide on the mel scale."""
        highest = SAMPLING_RATE / 2 - MIN_LOW_HZ - MIN_BAND_HZ
        low, high = (2595 * math.log10(1 + hz / 700) for hz in (30.0, highest))
        mel = torch.linspace(low, high, len(self.low_hz) + 1, dtype=torch.float64, device="cpu")
        edges = 700 * (10 ** (mel / 2595) - 1)
        return edges[:-1].float(), edges.diff().float()

    def forward(self) -> torch.Tensor:
        """Return the even and the odd filter of each band, shape `(2, num_filters / 2, length)`."""
        low = MIN_LOW_HZ + self.low_hz.float().abs()
        high = (low + MIN_BAND_HZ + self.band_hz.float().abs()).clamp(MIN_LOW_HZ, SAMPLING_RATE / 2)
        half = self.length // 2
        seconds = torch.arange(-half, half + 1, device=low.device, dtype=torch.float32) / SAMPLING_RATE
        window = 0.54 + 0.46 * torch.cos(seconds * (math.pi * SAMPLING_RATE / half))
        envelope = window * torch.sinc((high - low)[:, None] * seconds)
        angle = math.pi * (low + high)[:, None] * seconds
        return torch.stack([envelope * torch.cos(angle), envelope * torch.sin(angle)])


class LogMagnitude(torch.autograd.Function):
    """`log(|x| + 1e-6)`. Only `x` is kept for the backward pass, which saves memory: there are 256 bands at every sample."""

    @staticmethod
    def forward(ctx, bands: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(bands)
        return bands.abs().add_(1e-6).log_()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        (bands,) = ctx.saved_tensors
        magnitude = bands.abs().add_(1e-6)
        return torch.div(gradient, magnitude, out=magnitude).mul_(bands.sgn())


class WaveNorm(nn.InstanceNorm1d):
    """Instance normalisation of a waveform that leaves the learned scale and shift to its caller."""

    def forward(self, wave: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the normalised wave `(batch_size, 1, samples)`, and scale and shift, each `(1,)`, in float32."""
        return F.instance_norm(wave, eps=self.eps), self.weight.float(), self.bias.float()


class AudioFrontEnd(nn.Module):
    """
    The bands of a waveform: pre-emphasis, instance normalisation, filters and logarithm, minus the mean over time.

    `"sinc"` takes the absolute value of every filter's output at every sample, as published. `"fast"` (our own) takes the
    envelope of each pair, `sqrt(even^2 + odd^2)`, at every 16th sample. The widest initial band passes less than 500 Hz,
    including the main lobe of the window, so 1000 values a second hold its power without aliasing, at a sixteenth of the
    cost. Value `i` is centred at sample `16 i + 6`; after interpolation by 4, step `j` is at sample `4 j`, as published.

    Everything is computed in float32, whatever the model's type: edges in Hz need it.

    Args:
        config ([`SSAVDConfig`]): The configuration.
    """

    def __init__(self, config: SSAVDConfig):
        super().__init__()
        self.fast = config.frontend == "fast"
        self.normalise = WaveNorm(1, eps=1e-4, affine=True)
        self.filterbank = SincFilterbank(config.num_filters, config.filter_length)
        self.out_channels = config.num_filters // 2 if self.fast else config.num_filters

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """
        Compute the bands.

        Args:
            audio (`torch.Tensor` of shape `(batch_size, samples)`): Sound at 16 kHz in [-1, 1].

        Returns:
            `torch.Tensor` of shape `(batch_size, num_filters, samples)`, or for the fast front end
            `(batch_size, num_filters / 2, samples / 16)`: The bands in float32.
        """
        with maybe_autocast(audio.device.type, enabled=False):
            audio = audio.float()
            # By reflection, the sample before the first one is the second one.
            before = torch.cat([audio[:, 1:2], audio[:, :-1]], dim=1)
            wave = (audio - PRE_EMPHASIS * before)[:, None]
            bands = (self._envelopes if self.fast else self._oscillations)(
                *self.normalise(wave), self.filterbank()
            )
            bands += -bands.mean(dim=-1, keepdim=True)
            return bands

    def _oscillations(self, wave, scale, shift, filters: torch.Tensor) -> torch.Tensor:
        # The norm's scale and shift go into the filters: then the wave needs no gradient, which saves a third of the work.
        # Zeros around the sound are not shifted, so filters that reach beyond either end get less of the shift.
        filters, half = filters.flatten(0, 1), self.filterbank.length // 2
        bands = F.conv1d(wave, scale * filters[:, None], shift * filters.sum(dim=-1), padding=half)
        left = filters[:, :half].cumsum(dim=-1).flip(-1)
        right = filters[:, half + 1 :].flip(-1).cumsum(dim=-1)
        inside = filters.new_zeros(len(filters), wave.shape[-1] - 2 * half)
        bands += torch.cat([left, inside, right], dim=-1) * -shift
        return LogMagnitude.apply(bands)

    def _envelopes(self, wave, scale, shift, filters: torch.Tensor) -> torch.Tensor:
        # Blocks of 16 samples become channels. The products are those of a convolution of stride 16, but no sample is
        # copied sixteen times first.
        wave = wave * scale + shift
        length, centre = self.filterbank.length, self.filterbank.length // 2
        blocks = -(-length // HOP)
        before = centre - (HOP // 2 - 2)
        wave = F.pad(wave, (before, blocks * HOP - HOP - before))
        wave = wave.reshape(wave.shape[0], -1, HOP).transpose(1, 2)
        kernel = F.pad(filters.reshape(-1, length), (0, blocks * HOP - length))
        kernel = kernel.reshape(-1, blocks, HOP).transpose(1, 2)
        even, odd = F.conv1d(wave, kernel).chunk(2, dim=1)
        # Half the logarithm of the power is that of the envelope, and has a gradient at 0 too.
        return 0.5 * torch.log(even.square() + odd.square() + 1e-12)

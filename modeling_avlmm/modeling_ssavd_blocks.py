"""The layers of SSAVD. Frames are folded into the batch, `(B * T, C, H, W)` with channels last in memory.

So every convolution of single frames is a plain 2-D one and the fusion of frames is a matrix product. Libraries run these
many times faster than the `(1, k, k)` and `1 x 1 x 1` 3-D convolutions of the published definition.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_ssavd import WINDOW, SSAVDConfig

TOKEN_WIDTH = WINDOW * WINDOW


class FrameConv(nn.Conv2d):
    """A 3-D convolution with kernel `(1, k, k)` on folded frames, initialised like a 3-D one."""


class PointwiseConv(nn.Conv2d):
    """A 1 x 1 convolution as a matrix product; with channels last in memory nothing is copied."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_exporting():
            # Runtimes keep channels first, and optimise this themselves.
            return super().forward(frames)
        return F.linear(frames.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)


class DilatedDepthwiseConv(nn.Conv2d):
    """
    A depthwise convolution with dilation that keeps the size.

    CPU libraries are fast at depthwise convolutions without dilation only. There the image is split into `dilation^2`
    coarser ones, in which the taps are neighbours, and put together again. The sums are the same.
    """

    def __init__(self, channels: int, kernel_size: int, dilation: int):
        padding = dilation * (kernel_size // 2)
        super().__init__(channels, channels, kernel_size, padding=padding, dilation=dilation, groups=channels)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        if frames.device.type != "cpu" or torch.compiler.is_exporting():
            return super().forward(frames)
        count, channels, height, width = frames.shape
        step = self.dilation[0]
        rows, columns = -(-height // step), -(-width // step)
        frames = F.pad(frames.permute(0, 2, 3, 1), (0, 0, 0, columns * step - width, 0, rows * step - height))
        coarse = frames.view(count, rows, step, columns, step, channels).permute(0, 2, 4, 1, 3, 5)
        coarse = coarse.reshape(-1, rows, columns, channels).permute(0, 3, 1, 2)
        padding = self.padding[0] // step
        coarse = F.conv2d(coarse, self.weight, self.bias, padding=padding, groups=channels)
        parts = coarse.permute(0, 2, 3, 1).reshape(count, step, step, rows, columns, channels)
        frames = parts.permute(0, 3, 1, 4, 2, 5).reshape(count, rows * step, columns * step, channels)
        return frames[:, :height, :width].permute(0, 3, 1, 2)


class GatheringConv(nn.Conv1d):
    """
    A convolution of many channels to few, padded by half its kernel.

    Libraries are slow with few output channels, above all in the backward pass. Here one matrix product multiplies every
    tap's weights with every step; the products of one output step form a diagonal of the result, which is summed.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        if self.stride[0] > 1 and not torch.is_grad_enabled():
            # Computing the steps that the stride leaves out pays only with a backward pass.
            return super().forward(sound)
        taps, length = self.kernel_size[0], sound.shape[-1]
        taps_of_outputs = self.weight.transpose(1, 2).flatten(0, 1)
        # A product for each clip: with one for all, gradients would have another memory order, which slows the layers before.
        products = taps_of_outputs.expand(sound.shape[0], -1, -1).bmm(sound)
        products = F.pad(products, (self.padding[0], self.padding[0]))
        # One more value in each row turns diagonals into columns.
        rows = products.unflatten(1, (-1, taps)).flatten(2)
        diagonals = F.pad(rows, (0, taps)).unflatten(2, (taps, -1))
        return diagonals[..., : length : self.stride[0]].sum(dim=2) + self.bias[:, None]


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): drops rows with `probability` and scales up the others."""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        if not self.training or self.probability == 0:
            return branch
        kept = branch.new_empty(len(branch), *[1] * (branch.ndim - 1)).bernoulli_(1 - self.probability)
        return branch * kept / (1 - self.probability)


# -- picture -----------------------------------------------------------------------------------------------------------


class FrameFusion(nn.Module):
    """A T x T matrix that mixes a clip's frames, the same for every channel and pixel."""

    def __init__(self, num_frames: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_frames, num_frames))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        _, channels, height, width = frames.shape
        if torch.compiler.is_exporting():
            # Runtimes keep channels first in memory.
            flat = frames.reshape(-1, self.weight.shape[0], channels * height * width)
            return (self.weight @ flat).view(-1, channels, height, width)
        # A view, because channels are last in memory.
        flat = frames.permute(0, 2, 3, 1).reshape(-1, self.weight.shape[0], height * width * channels)
        return (self.weight @ flat).view(-1, height, width, channels).permute(0, 3, 1, 2)


class LargeKernelAttention(nn.Module):
    """
    Attention that weighs features by a receptive field of 23 pixels (Visual Attention Network, Guo et al. 2022).

    Args:
        channels (`int`): Channels of the frames.
        limit (`float`, *optional*): Limit of the normalised features; see `activation_limit` of [`SSAVDConfig`].
    """

    def __init__(self, channels: int, limit: float | None = None):
        super().__init__()
        self.limit = limit
        self.norm = nn.BatchNorm2d(channels)
        self.enter = PointwiseConv(channels, channels)
        self.near = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.far = DilatedDepthwiseConv(channels, 7, dilation=3)
        self.mix = PointwiseConv(channels, channels)
        self.leave = PointwiseConv(channels, channels)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        frames = self.norm(frames)
        if self.limit is not None:
            frames = frames.clamp(-self.limit, self.limit)
        inner = F.relu(self.enter(frames), inplace=True)
        return frames + self.leave(inner * self.mix(self.far(self.near(inner))))


class ConvMLP(nn.Module):
    """An MLP for each pixel with a depthwise 3 x 3 convolution in the middle."""

    def __init__(self, channels: int, ratio: int):
        super().__init__()
        width = channels * ratio
        self.norm = nn.BatchNorm2d(channels)
        self.enter = PointwiseConv(channels, width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.leave = PointwiseConv(width, channels)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.leave(F.relu(self.depthwise(self.enter(self.norm(frames))), inplace=True))


class SpatialBlock(nn.Module):
    """The video pre-processing module (VPM): fuses frames, processes each result, and spreads it back to the frames."""

    def __init__(self, channels: int, config: SSAVDConfig):
        super().__init__()
        self.fuse = FrameFusion(config.num_frames)
        self.attention = LargeKernelAttention(channels, config.activation_limit)
        self.mlp = ConvMLP(channels, config.mlp_ratio)
        self.attention_scale = nn.Parameter(torch.empty(channels))
        self.mlp_scale = nn.Parameter(torch.empty(channels))
        self.drop_path = DropPath(config.drop_path)
        self.spread = FrameFusion(config.num_frames)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        frames = self.fuse(frames)
        frames = torch.addcmul(
            frames, self.attention_scale[:, None, None], self.drop_path(self.attention(frames))
        )
        frames = torch.addcmul(frames, self.mlp_scale[:, None, None], self.drop_path(self.mlp(frames)))
        return self.spread(frames)


# -- picture and sound together ----------------------------------------------------------------------------------------


class TokenAttention(nn.Module):
    """
    Single-head self-attention whose queries, keys and values are the tokens themselves.

    Tokens get a learned position; each of their 49 entries is normalised over the sequence.
    """

    def __init__(self, num_tokens: int):
        super().__init__()
        self.position = nn.Parameter(torch.empty(num_tokens, TOKEN_WIDTH))
        self.norm = nn.LayerNorm(num_tokens)
        self.project = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = self.norm((tokens + self.position).transpose(1, 2)).transpose(1, 2)
        # Fused attention on CPUs needs an axis for heads, and contiguous rows.
        tokens = tokens.contiguous()[:, None]
        return self.project(F.scaled_dot_product_attention(tokens, tokens, tokens)[:, 0])


class AudioVisualBlock(nn.Module):
    """
    The self-attention audio-visual module (SAAVM): one attention over windows of the frames and segments of the sound.

    Picture and sound are reduced to one channel. Each 7 x 7 window of a frame is a token, and so is each frame's segment
    of sound, averaged to 49 values. The attention's output is added to both.

    Args:
        channels (`int`): Channels of picture and sound.
        size (`int`): Side of the frames.
        length (`int`): Length of the sound.
        config ([`SSAVDConfig`]): The configuration.
    """

    def __init__(self, channels: int, size: int, length: int, config: SSAVDConfig):
        super().__init__()
        self.num_frames, self.windows, self.length = config.num_frames, size // WINDOW, length
        self.interleave = config.interleave_windows
        self.video_in = nn.Sequential(
            FrameConv(channels, channels, 3, padding=1, groups=channels),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            FrameConv(channels, 1, 3, padding=1),
        )
        self.audio_in = nn.Sequential(
            nn.Conv1d(channels, channels, 3, padding=1),
            nn.BatchNorm1d(channels),
            nn.ReLU(inplace=True),
            GatheringConv(channels, 1, 33),
        )
        self.attention = TokenAttention(self.num_frames * (self.windows**2 + 1))
        self.video_out = FrameConv(1, channels, 3, padding=1)
        self.audio_out = nn.Conv1d(1, channels, 33, padding=16)
        self.video_scale = nn.Parameter(torch.empty(channels))
        self.audio_scale = nn.Parameter(torch.empty(channels))
        self.drop_path = DropPath(config.drop_path)
        # Adaptive average pooling as a product, which every exporter supports.
        self.register_buffer("segment_mean", self.initial_segment_mean(), persistent=False)

    def initial_segment_mean(self) -> torch.Tensor:
        """Return the weights `(samples, 49)` that average 49 overlapping parts of a segment."""
        samples = self.length // self.num_frames
        slots = torch.arange(TOKEN_WIDTH, device="cpu")
        first, last = slots * samples // TOKEN_WIDTH, -(-(slots + 1) * samples // TOKEN_WIDTH)
        place = torch.arange(samples, device="cpu")[:, None]
        return ((place >= first) & (place < last)) / (last - first).float()

    def forward(self, frames: torch.Tensor, sound: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        picture = self._cut(self.video_in(frames))
        segments = self.audio_in(sound).reshape(-1, self.num_frames, self.length // self.num_frames)
        tokens = torch.cat([picture, segments @ self.segment_mean.to(segments.dtype)], dim=1)
        tokens = tokens + self.attention(tokens)
        picture, segments = tokens.split([picture.shape[1], self.num_frames], dim=1)

        seen = self._drop_clips(self.video_out(self._join(picture)))
        segments = F.interpolate(segments, size=self.length // self.num_frames)
        heard = self.drop_path(self.audio_out(segments.reshape(-1, 1, self.length)))
        frames = torch.addcmul(frames, self.video_scale[:, None, None], seen)
        return frames, torch.addcmul(sound, self.audio_scale[:, None], heard)

    def _cut(self, frames: torch.Tensor) -> torch.Tensor:
        """Cut frames `(B * T, 1, H, W)` into windows `(B, T * P * P, 49)`."""
        parts = frames.reshape(-1, self.windows, WINDOW, self.windows, WINDOW).transpose(2, 3)
        return parts.reshape(-1, self.num_frames * self.windows**2, TOKEN_WIDTH)

    def _join(self, tokens: torch.Tensor) -> torch.Tensor:
        """Join windows `(B, T * P * P, 49)` to frames `(B * T, 1, H, W)`."""
        parts = tokens.reshape(-1, self.windows, self.windows, WINDOW, WINDOW)
        order = (0, 3, 1, 4, 2) if self.interleave else (0, 1, 3, 2, 4)
        side = self.windows * WINDOW
        return parts.permute(order).reshape(-1, 1, side, side)

    def _drop_clips(self, change: torch.Tensor) -> torch.Tensor:
        """Apply [`DropPath`] to whole clips: all frames of a clip, or none."""
        if not self.training:
            return change
        return self.drop_path(change.unflatten(0, (-1, self.num_frames))).flatten(0, 1)


# -- blocks and stages -------------------------------------------------------------------------------------------------


class SSAVDBlock(nn.Module):
    """Collaborative audio-visual learning (CAVL): first the picture alone, then picture and sound together."""

    def __init__(self, channels: int, size: int, length: int, config: SSAVDConfig):
        super().__init__()
        self.spatial = SpatialBlock(channels, config)
        self.spatial_norm = nn.BatchNorm2d(channels)
        self.joint = AudioVisualBlock(channels, size, length, config)
        self.video_norm = nn.BatchNorm2d(channels)
        self.audio_norm = nn.BatchNorm1d(channels)

    def forward(self, frames: torch.Tensor, sound: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames, sound = self.joint(self.spatial_norm(self.spatial(frames)), sound)
        return self.video_norm(frames), self.audio_norm(sound)


class SSAVDStage(nn.Module):
    """A stage: halves picture and sound (in the first stage by 4), runs its blocks and normalises."""

    def __init__(self, index: int, audio_channels: int, config: SSAVDConfig):
        super().__init__()
        channels, (size, length) = config.channels[index], config.stage_sizes()[index]
        self.length = length
        if index == 0:
            self.video_down = nn.Sequential(
                FrameConv(3, channels, 7, stride=2, padding=3, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(3, stride=2, padding=1),
            )
        else:
            self.video_down = nn.Sequential(
                FrameConv(config.channels[index - 1], channels, 3, stride=2, padding=1),
                nn.BatchNorm2d(channels),
            )
        if index == 0:
            down = GatheringConv(audio_channels, channels, 7, stride=1 if config.frontend == "fast" else 4)
        else:
            down = nn.Conv1d(audio_channels, channels, 3, stride=2, padding=1)
        self.audio_down = nn.Sequential(down, nn.BatchNorm1d(channels))
        self.blocks = nn.ModuleList(
            SSAVDBlock(channels, size, length, config) for _ in range(config.depths[index])
        )
        self.video_norm = nn.BatchNorm2d(channels)
        self.audio_norm = nn.BatchNorm1d(channels)

    def forward(self, frames: torch.Tensor, sound: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames, sound = self.video_down(frames), self.audio_down(sound)
        if sound.shape[-1] != self.length:
            # Envelopes come at 1 kHz; the published first stage has 4 values per millisecond.
            sound = F.interpolate(sound, size=self.length, mode="linear")
        for block in self.blocks:
            frames, sound = block(frames, sound)
        return self.video_norm(frames), self.audio_norm(sound)


class VideoPool(nn.Module):
    """
    Pooling of a clip's picture: a depthwise 3 x 3 x 3 convolution and the mean over time and space.

    Args:
        channels (`int`): Channels of the picture.
        rectified (`bool`, *optional*, defaults to `False`): Average positive values only; see [`SSAVDConfig`].
    """

    def __init__(self, channels: int, rectified: bool = False):
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, 3, padding=1, groups=channels)
        self.rectified = rectified

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        """Pool `(batch_size, channels, T, H, W)` to `(batch_size, channels)`."""
        video = self.conv(video)
        return (F.relu(video) if self.rectified else video).mean(dim=(2, 3, 4))


class AudioPool(nn.Module):
    """Pooling of a clip's sound: a depthwise convolution over 31 steps and the mean over time; see [`VideoPool`]."""

    def __init__(self, channels: int, rectified: bool = False):
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 31, padding=15, groups=channels)
        self.rectified = rectified

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        """Pool `(batch_size, channels, length)` to `(batch_size, channels)`."""
        sound = self.conv(sound)
        return (F.relu(sound) if self.rectified else sound).mean(dim=2)

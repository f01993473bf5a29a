"""The layers of SSAVD: equality with their plain definitions, and finite values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from ssavd_factory import TINY, batch, stir, tiny

from modeling_avlmm import SSAVDConfig
from modeling_avlmm.modeling_ssavd_blocks import (
    AudioPool,
    AudioVisualBlock,
    DilatedDepthwiseConv,
    DropPath,
    FrameFusion,
    GatheringConv,
    SpatialBlock,
    TokenAttention,
    VideoPool,
)

# -- the layers equal their plain definitions --------------------------------------------------------------------------


def folded(video: torch.Tensor) -> torch.Tensor:
    """Fold `(B, C, T, H, W)` as the layers need it."""
    return video.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def unfolded(frames: torch.Tensor, num_frames: int) -> torch.Tensor:
    return frames.unflatten(0, (-1, num_frames)).transpose(1, 2)


def norm(layer, features):
    return F.batch_norm(features, layer.running_mean, layer.running_var, layer.weight, layer.bias)


def plain_spatial(block: SpatialBlock, video: torch.Tensor) -> torch.Tensor:
    """Compute the block with 3-D convolutions: `1 x 1 x 1` over frames and `(1, k, k)` over pixels."""

    def conv(layer, features):
        dilation, padding = layer.dilation[0], layer.padding[0]
        return F.conv3d(
            features,
            layer.weight[:, :, None],
            layer.bias,
            padding=(0, padding, padding),
            dilation=(1, dilation, dilation),
            groups=layer.groups,
        )

    def over_frames(layer, features):
        return F.conv3d(features.transpose(1, 2), layer.weight[:, :, None, None, None]).transpose(1, 2)

    video = over_frames(block.fuse, video)
    attention, mlp = block.attention, block.mlp
    shortcut = norm(attention.norm, video)
    inner = conv(attention.enter, shortcut).relu()
    weighed = inner * conv(attention.mix, conv(attention.far, conv(attention.near, inner)))
    change = conv(attention.leave, weighed) + shortcut
    video = video + block.attention_scale[:, None, None, None] * change
    change = conv(mlp.leave, conv(mlp.depthwise, conv(mlp.enter, norm(mlp.norm, video))).relu())
    return over_frames(block.spread, video + block.mlp_scale[:, None, None, None] * change)


def plain_joint(block: AudioVisualBlock, video: torch.Tensor, sound: torch.Tensor):
    """Compute the block with 3-D convolutions, loops over windows, adaptive pooling and a written-out softmax."""

    def conv3d(layer, features):
        return F.conv3d(
            features, layer.weight[:, :, None], layer.bias, padding=(0, 1, 1), groups=layer.groups
        )

    def conv1d(layer, features):
        return F.conv1d(features, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)

    num_frames, windows = block.num_frames, block.windows
    picture = conv3d(block.video_in[3], norm(block.video_in[1], conv3d(block.video_in[0], video)).relu())
    tokens = [
        picture[:, 0, t, 7 * p : 7 * p + 7, 7 * q : 7 * q + 7].flatten(1)
        for t in range(num_frames)
        for p in range(windows)
        for q in range(windows)
    ]
    heard = conv1d(block.audio_in[3], norm(block.audio_in[1], conv1d(block.audio_in[0], sound)).relu())
    tokens += [F.adaptive_avg_pool1d(part, 49)[:, 0] for part in heard.chunk(num_frames, dim=2)]
    tokens = torch.stack(tokens, dim=1)

    attention = block.attention
    x = tokens + attention.position
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    x = (x - mean) / (variance + 1e-5).sqrt() * attention.norm.weight[:, None] + attention.norm.bias[:, None]
    weights = torch.softmax(x @ x.transpose(1, 2) / 7, dim=-1)
    tokens = tokens + weights @ x @ attention.project.weight.T

    joined = torch.empty_like(picture)
    index = 0
    for t in range(num_frames):
        for p in range(windows):
            for q in range(windows):
                window = tokens[:, index].unflatten(1, (7, 7))
                if block.interleave:
                    joined[:, 0, t, p::windows, q::windows] = window
                else:
                    joined[:, 0, t, 7 * p : 7 * p + 7, 7 * q : 7 * q + 7] = window
                index += 1
    length = block.length // num_frames
    places = torch.arange(length) * 49 // length
    waves = torch.cat([tokens[:, index + t, places] for t in range(num_frames)], dim=1)[:, None]
    video = video + block.video_scale[:, None, None, None] * conv3d(block.video_out, joined)
    return video, sound + block.audio_scale[:, None] * conv1d(block.audio_out, waves)


@pytest.fixture
def parts():
    """Return the picture `(2, 4, 4, 28, 28)` and sound `(2, 4, 800)` of a stage."""
    torch.manual_seed(3)
    return torch.randn(2, 4, 4, 28, 28), torch.randn(2, 4, 800)


def test_spatial_block_equals_its_definition(parts):
    block = SpatialBlock(4, SSAVDConfig(**TINY))
    for weight in block.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    stir(block.eval())
    video, _ = parts
    torch.testing.assert_close(
        unfolded(block(folded(video)), 4), plain_spatial(block, video), atol=1e-3, rtol=1e-4
    )


@pytest.mark.parametrize("interleave", [False, True])
def test_joint_block_equals_its_definition(parts, interleave):
    block = tiny(image_size=112, interleave_windows=interleave).stages[0].blocks[0].joint
    video, sound = parts
    frames, heard = block(folded(video), sound)
    expected_video, expected_sound = plain_joint(block, video, sound)
    torch.testing.assert_close(unfolded(frames, 4), expected_video, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(heard, expected_sound, atol=1e-4, rtol=1e-4)


def test_statistics_over_folded_frames_are_those_of_the_clip(parts):
    """A BatchNorm2d on folded frames learns what a BatchNorm3d learns on clips."""
    video, _ = parts
    flat, whole = torch.nn.BatchNorm2d(4), torch.nn.BatchNorm3d(4)
    torch.testing.assert_close(unfolded(flat(folded(video)), 4), whole(video))
    torch.testing.assert_close(flat.running_var, whole.running_var)


def test_frame_fusion_mixes_frames_and_nothing_else(parts):
    fuse = FrameFusion(4)
    with torch.no_grad():
        fuse.weight.copy_(torch.eye(4).roll(1, dims=0))
    video, _ = parts
    assert torch.equal(unfolded(fuse(folded(video)), 4), video.roll(1, dims=2))


@pytest.mark.parametrize("size", [7, 9, 14, 28])
def test_dilated_convolution_equals_a_convolution(size):
    torch.manual_seed(0)
    conv, frames = DilatedDepthwiseConv(5, 7, dilation=3), torch.randn(2, 5, size, size, requires_grad=True)
    expected = F.conv2d(frames, conv.weight, conv.bias, padding=9, dilation=3, groups=5)
    torch.testing.assert_close(conv(frames), expected, atol=1e-6, rtol=1e-5)
    gradients = [
        torch.autograd.grad(out.square().sum(), (frames, conv.weight)) for out in (conv(frames), expected)
    ]
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("outputs", "kernel", "stride"), [(1, 33, 1), (8, 7, 1), (3, 7, 4)])
def test_gathering_convolution_equals_a_convolution(parts, outputs, kernel, stride):
    torch.manual_seed(0)
    conv, sound = GatheringConv(4, outputs, kernel, stride), parts[1].clone().requires_grad_()
    inputs = sound, conv.weight, conv.bias
    expected = F.conv1d(*inputs, stride=stride, padding=kernel // 2)
    cotangent = torch.randn_like(expected)
    torch.testing.assert_close(conv(sound), expected, atol=1e-5, rtol=0)
    for ours, theirs in zip(
        torch.autograd.grad(conv(sound), inputs, cotangent),
        torch.autograd.grad(expected, inputs, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(conv(sound), expected, atol=1e-5, rtol=0)


def test_attention_knows_no_other_order_than_position():
    """Without positions and with one weight for all tokens, permuted tokens give permuted results."""
    torch.manual_seed(0)
    attention = TokenAttention(6)
    torch.nn.init.zeros_(attention.position)
    tokens, order = torch.randn(2, 6, 49), torch.randperm(6)
    torch.testing.assert_close(attention(tokens)[:, order], attention(tokens[:, order]), atol=1e-5, rtol=0)


def test_drop_path_leaves_rows_out_and_keeps_the_mean():
    torch.manual_seed(0)
    drop, ones = DropPath(0.25), torch.ones(4000, 2)
    dropped = drop(ones)
    assert dropped.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert torch.equal(dropped[:, 0], dropped[:, 1])
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert drop.eval()(ones) is ones


@pytest.mark.parametrize(
    ("kind", "shape", "conv"), [(VideoPool, (2, 3, 9, 24, 25), F.conv3d), (AudioPool, (2, 3, 400), F.conv1d)]
)
def test_features_are_the_mean_of_all_or_of_what_is_positive(kind, shape, conv):
    torch.manual_seed(0)
    features = torch.randn(shape)
    features -= features.flatten(2).mean(-1).reshape(*shape[:2], *[1] * (len(shape) - 2))
    changes = []
    for rectified in (False, True):
        pool = kind(3, rectified)
        seen = conv(features, pool.conv.weight, pool.conv.bias, padding=pool.conv.padding, groups=3)
        expected = (seen.clamp(min=0) if rectified else seen).flatten(2).mean(-1)
        torch.testing.assert_close(pool(features), expected)
        with torch.no_grad():
            pool.conv.bias.zero_()
        changes.append((pool(3 * features) - pool(features)).abs().min())
    # Fluctuations around zero show in the second one only; in the first one only their edges remain.
    assert changes[1] > 10 * changes[0]


# -- the limit of activations ------------------------------------------------------------------------------------------


def test_far_from_training_the_limit_keeps_the_network_finite():
    deep = {"depths": (1, 8)}
    free, limited = tiny(**deep), tiny(**deep, activation_limit=8.0)
    limited.load_state_dict(free.state_dict())
    inputs = batch(free.config)
    wild = {**inputs, "pixel_values": 1e3 * torch.randn(inputs["pixel_values"].shape)}
    with torch.no_grad():
        assert not free(**wild).logits.isfinite().all()
        assert limited(**wild).logits.isfinite().all()


def test_below_the_limit_nothing_changes():
    free, most = tiny(), []
    for module in free.modules():
        if isinstance(module, SpatialBlock):
            module.attention.norm.register_forward_hook(lambda m, i, out: most.append(out.abs().max().item()))
    inputs = batch(free.config)
    with torch.no_grad():
        expected = free(**inputs).logits
        for limit, equal in ((1.01 * max(most), True), (0.5 * max(most), False)):
            limited = tiny(activation_limit=limit)
            assert torch.equal(limited(**inputs).logits, expected) == equal
    with pytest.raises(ValueError, match="activation_limit must be above 0, not -1"):
        SSAVDConfig(activation_limit=-1)

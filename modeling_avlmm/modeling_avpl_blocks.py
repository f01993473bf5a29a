"""The trained parts of AVPL: prompts for two frozen encoders, alignment in time, heads."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPVisionModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from .configuration_avpl import TOKENS_PER_SECOND, AVPLConfig


class SequentialVisualPrompts(nn.Module):
    """
    Prompt tokens beside each frame's patches, at every layer of a frozen CLIP, which pass information from frame to frame.

    At layer `l` the prompts of frame `t` are `P_l + o_(l-1)(t) + C(o_(l-1)(t-1))`: learned vectors, plus the previous layer's
    output for this frame's prompts, plus that for the previous frame's prompts through a bottleneck `C`. So a layer
    processes all frames at once, and information moves by one frame per layer. (The paper says only that prompts are
    sequential; the form is our own. `C` starts at zero, so a new detector judges frames one by one.)

    A frame's feature is the mean of CLIP's class token and the prompts after the last layer, each normalised by CLIP.
    """

    def __init__(self, config: AVPLConfig):
        super().__init__()
        vision, count = config.vision_config, config.num_visual_prompts
        self.prompts = None
        if count:
            self.prompts = nn.Parameter(torch.empty(vision.num_hidden_layers, count, vision.hidden_size))
        self.carry_down = self.carry_up = None
        if count and config.sequential_prompts and vision.num_hidden_layers > 1:
            self.carry_down = nn.Linear(vision.hidden_size, config.carry_width)
            self.carry_up = nn.Linear(config.carry_width, vision.hidden_size)
        # Set by `gradient_checkpointing_enable`. The encoders' own switch works in training mode only.
        self.gradient_checkpointing = False

    def forward(
        self, frames: torch.Tensor, frame_mask: torch.Tensor, encoder: CLIPVisionModel
    ) -> torch.Tensor:
        """
        Encode frames.

        Args:
            frames (`torch.Tensor` of shape `(batch_size, num_frames, 3, height, width)`): Normalised frames.
            frame_mask (`torch.BoolTensor` of shape `(batch_size, num_frames)`): False for padding, which passes nothing on.
            encoder (`CLIPVisionModel`): The frozen encoder.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_frames, hidden_size)`: The frames' features.
        """
        tokens = encoder.pre_layrnorm(encoder.embeddings(frames.flatten(0, 1)))
        count = tokens.shape[1]
        handed_on = None
        for number, layer in enumerate(encoder.encoder.layers):
            if self.prompts is not None:
                prompts = self.prompts[number].expand(len(tokens), -1, -1)
                if handed_on is not None:
                    prompts = prompts + handed_on + self._carried(handed_on, frame_mask)
                tokens = torch.cat([tokens, prompts.to(tokens.dtype)], dim=1)
            if self.gradient_checkpointing and self.training:
                tokens = self._gradient_checkpointing_func(layer.__call__, tokens, None)
            else:
                tokens = layer(tokens, None)
            # A copy: a view would keep the layer's whole output until the backward pass.
            tokens, handed_on = tokens[:, :count], tokens[:, count:].clone()
        seen = encoder.post_layernorm(torch.cat([tokens[:, :1], handed_on], dim=1))
        return seen.mean(dim=1).unflatten(0, frame_mask.shape)

    def _carried(self, prompts: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor | float:
        """Return the additions to each frame's prompts from the previous frame's, `(batch_size * num_frames, count, hidden)`."""
        if self.carry_down is None:
            return 0.0
        carried = self.carry_up(F.gelu(self.carry_down(F.layer_norm(prompts, prompts.shape[-1:]))))
        carried = carried.unflatten(0, frame_mask.shape)
        carried = torch.where(frame_mask[:, :, None, None], carried, 0.0)
        carried = torch.cat([torch.zeros_like(carried[:, :1]), carried[:, :-1]], dim=1)
        return carried.flatten(0, 1)


class ShortTimeAudioPrompts(nn.Module):
    """
    A prompt for every short window of sound, mixed into its tokens before each layer of a frozen Whisper encoder.

    The prompt of a window is a learned vector plus the mean of the window's normalised tokens: the steady part of 100 ms,
    against which each step stands out. It is concatenated with every token of its window and projected back,
    `x + Linear([x, p])`, with weights for each layer. (The paper says that prompts are short-time; the concatenation is a
    third party's reading; window, content and residual are our own.)

    Whisper pads every clip to 30 s. Here a clip of `n` tokens takes the first `n` positions, and no token attends to the
    time after the sound. The tokens equal those of the padded computation with keys after the sound masked out, on two
    conditions: the spectra are the same (they are, because the extractor's limit depends on the loudest value, which is
    never padding), and there are two spectra for each token and one more, which the last token's convolution reaches.
    Stock Whisper does attend to its padding, so its tokens differ from both as far as attention falls on silence.
    """

    def __init__(self, config: AVPLConfig):
        super().__init__()
        audio = config.audio_config
        self.window = config.prompt_window
        self.prompts = self.mix = None
        if config.short_time_prompts:
            self.prompts = nn.Parameter(torch.empty(audio.encoder_layers, audio.d_model))
            self.mix = nn.ModuleList(
                nn.Linear(2 * audio.d_model, audio.d_model) for _ in range(audio.encoder_layers)
            )
        self.gradient_checkpointing = False

    def forward(
        self, input_features: torch.Tensor, audio_mask: torch.Tensor, encoder: WhisperEncoder
    ) -> torch.Tensor:
        """
        Encode sound.

        Args:
            input_features (`torch.Tensor` of shape `(batch_size, num_mel_bins, 2 * num_tokens + 1)`): Log-mel spectra.
            audio_mask (`torch.BoolTensor` of shape `(batch_size, num_tokens)`): False after the end of the sound.
            encoder (`WhisperEncoder`): The frozen encoder.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_tokens, d_model)`: The tokens.
        """
        count = audio_mask.shape[1]
        tokens = F.gelu(encoder.conv1(input_features))
        tokens = F.gelu(encoder.conv2(tokens)).transpose(1, 2)[:, :count]
        tokens = tokens + encoder.embed_positions(torch.arange(count, device=tokens.device))
        lowest = torch.finfo(tokens.dtype).min
        attention = torch.zeros_like(audio_mask, dtype=tokens.dtype).masked_fill(~audio_mask, lowest)
        attention = attention[:, None, None, :].expand(-1, 1, count, -1)
        for number, layer in enumerate(encoder.layers):
            if self.prompts is not None:
                tokens = tokens + self._prompted(number, tokens, audio_mask)
            if self.gradient_checkpointing and self.training:
                tokens = self._gradient_checkpointing_func(layer.__call__, tokens, attention)
            else:
                tokens = layer(tokens, attention)
        return encoder.layer_norm(tokens)

    def _prompted(self, number: int, tokens: torch.Tensor, audio_mask: torch.Tensor) -> torch.Tensor:
        tokens = F.layer_norm(tokens, tokens.shape[-1:])
        prompts = self.prompts[number] + window_means(tokens, audio_mask, self.window)
        return self.mix[number](torch.cat([tokens, prompts.to(tokens.dtype)], dim=-1))


def window_means(tokens: torch.Tensor, mask: torch.Tensor, window: int) -> torch.Tensor:
    """
    Return, for each token, the mean over its window; 0 for a window of padding.

    Args:
        tokens (`torch.Tensor` of shape `(batch_size, num_tokens, width)`): The tokens.
        mask (`torch.BoolTensor` of shape `(batch_size, num_tokens)`): False for padding.
        window (`int`): Tokens in a window; the last window may be shorter.
    """
    count = tokens.shape[1]
    fill = -count % window
    weights = F.pad(mask.to(tokens.dtype), (0, fill)).unflatten(1, (-1, window))[..., None]
    parts = F.pad(tokens, (0, 0, 0, fill)).unflatten(1, (-1, window))
    means = (parts * weights).sum(dim=2) / weights.sum(dim=2).clamp(min=1)
    return means.repeat_interleave(window, dim=1)[:, :count]


def heard_at(
    sound: torch.Tensor, audio_mask: torch.Tensor, times: torch.Tensor, reach: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return the sound of each frame: the mean of the audio features around its time, weighted by nearness.

    Token `k` is centred at `0.02 k` seconds. Its weight for a frame at `t` is `1 - |t - 0.02 k| / reach`, but not below 0.
    The spacing of the frames has no influence.

    Args:
        sound (`torch.Tensor` of shape `(batch_size, num_tokens, width)`): Audio features.
        audio_mask (`torch.BoolTensor` of shape `(batch_size, num_tokens)`): False after the end of the sound.
        times (`torch.FloatTensor` of shape `(batch_size, num_frames)`): Times of the frames in seconds.
        reach (`float`): Reach before and after a frame in seconds.

    Returns:
        `tuple`: The features `(batch_size, num_frames, width)`, zeros for frames without sound; and a mask
        `(batch_size, num_frames)`, True for frames with sound.
    """
    token_times = torch.arange(sound.shape[1], device=sound.device) / TOKENS_PER_SECOND
    weights = (1 - (times.float()[:, :, None] - token_times).abs() / reach).clamp(min=0)
    weights = weights * audio_mask[:, None, :]
    total = weights.sum(dim=-1, keepdim=True)
    # A token at the very edge of the reach has hardly any weight, and would be the only sound.
    heard = total[..., 0] > 1e-3
    weights = weights / total.clamp(min=1e-3)
    return weights.to(sound.dtype) @ sound * heard[..., None], heard


class Centre(nn.Module):
    """
    Subtracts the features' mean over the batch; in evaluation, the running mean of the last training batches.

    Most of the encoders' features is common to all frames and says nothing about which belong together: the cosine of any
    two frames is near 1, and the easiest way to lower a matching loss is to make all of them equal. (Our own.)
    """

    def __init__(self, width: int, momentum: float = 0.1):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(width))

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return features `(batch_size, num_frames, width)` in float32, minus the mean of those in `mask`."""
        features = features.float()
        if not self.training:
            return features - self.mean.float()
        count = mask.sum()
        mean = (features * mask[..., None]).sum(dim=(0, 1)) / count.clamp(min=1)
        with torch.no_grad():
            # A batch without a pair does not change it.
            self.mean += self.momentum * (count > 0) * (mean.to(self.mean.dtype) - self.mean)
        return features - mean


class PooledHead(nn.Module):
    """Two layers with the mean over time in between, from `(batch_size, steps, width)` to logits `(batch_size, 2)`."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.verdict = nn.Linear(hidden, 2)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.verdict(masked_mean(F.gelu(self.hidden(features)), mask)).float()


def masked_mean(features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean over the steps of `(batch_size, steps, width)` in `mask (batch_size, steps)`; 0 without any."""
    weights = mask.to(features.dtype)[..., None]
    return (features * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)

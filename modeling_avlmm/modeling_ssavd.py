"""SSAVD: a detector of 0.48 million parameters that processes picture and sound in one stream.

Method: "Lightweight Joint Audio-Visual Deepfake Detection via Single-Stream Multi-Modal Learning Framework" (SS-AVD, arXiv
2506.07358), implemented from the paper's description and the behaviour of its authors' code.
"""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.utils.generic import can_return_tuple

from .configuration_detector import IGNORE_INDEX
from .configuration_ssavd import SSAVDConfig
from .hub_mixin import AVDetectionHubMixin
from .modeling_outputs import AVDetectionOutput
from .modeling_precision import Float32PartsMixin
from .modeling_ssavd_blocks import (
    AudioPool,
    AudioVisualBlock,
    FrameConv,
    FrameFusion,
    SpatialBlock,
    SSAVDStage,
    TokenAttention,
    VideoPool,
)
from .modeling_ssavd_frontend import AudioFrontEnd, SincFilterbank
from .modeling_ssavd_training import (
    change_style,
    contrastive_loss,
    shuffled_labels,
    shuffled_rows,
    uniform_loss,
)
from .modeling_verdicts import (
    ClipLabels,
    check_shapes,
    classification_loss,
    complete_labels,
    masked_verdicts,
    normalized,
    verdicts_loss,
)

SCALE = 1e-2
"""Initial factor of a block's branches."""

STYLE_HEADS = ("video_style", "audio_style", "unused_style")


class SSAVDPreTrainedModel(Float32PartsMixin, AVDetectionHubMixin, PreTrainedModel):
    """Base of SSAVD: configuration, initialisation and loading of weights."""

    config_class = SSAVDConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    input_modalities = ("video", "audio")
    # Band edges are in Hz; bfloat16 would keep 8 bits of them.
    _keep_in_fp32_modules_strict = ["front_end"]
    # The attention multiplies features, and products above 65504 are infinite in float16: all of it is computed in float32.
    _keep_in_fp32_modules = [
        "stages",
        "video_pool",
        "audio_pool",
        "head",
        "video_head",
        "audio_head",
        *STYLE_HEADS,
    ]
    # A configuration without style heads loads weights that were trained with them.
    _keys_to_ignore_on_load_unexpected = [rf"^{name}\." for name in STYLE_HEADS]

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=0.02)
        elif isinstance(module, FrameConv | nn.Conv1d | nn.Conv3d):
            init.xavier_uniform_(module.weight, gain=2**0.5)
        elif isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.InstanceNorm1d | nn.LayerNorm):
            init.ones_(module.weight)
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                init.zeros_(module.running_mean)
                init.ones_(module.running_var)
                init.zeros_(module.num_batches_tracked)
        elif isinstance(module, FrameFusion):
            init.xavier_uniform_(module.weight, gain=2**0.5)
        elif isinstance(module, TokenAttention):
            init.xavier_normal_(module.position)
        elif isinstance(module, SpatialBlock):
            init.constant_(module.attention_scale, SCALE)
            init.constant_(module.mlp_scale, SCALE)
        elif isinstance(module, AudioVisualBlock):
            init.constant_(module.video_scale, SCALE)
            init.constant_(module.audio_scale, SCALE)
            init.copy_(module.segment_mean, module.initial_segment_mean())
        elif isinstance(module, SincFilterbank):
            low, band = module.initial_bands()
            init.copy_(module.low_hz, low)
            init.copy_(module.band_hz, band)
        for name, weight in module.named_parameters(recurse=False):
            if name == "bias":
                init.zeros_(weight)


class SSAVDForDeepfakeDetection(SSAVDPreTrainedModel):
    """
    Deepfake detector with one stream for picture and sound, and verdicts on each of them and on the clip.

    Args:
        config ([`SSAVDConfig`]): The configuration.

    Example:

    ```python
    >>> from modeling_avlmm import SSAVDConfig, SSAVDForDeepfakeDetection, SSAVDProcessor

    >>> config = SSAVDConfig(frontend="fast")
    >>> model, processor = SSAVDForDeepfakeDetection(config).eval(), SSAVDProcessor.from_config(config)
    >>> scores = model(**processor(["clip.mp4"])).scores
    ```
    """

    # The losses are averages, some of them over pairs: the trainer divides them by the accumulation steps.
    accepts_loss_kwargs = False

    def __init__(self, config: SSAVDConfig):
        super().__init__(config)
        self.front_end = AudioFrontEnd(config)
        widths = [self.front_end.out_channels, *config.channels]
        self.stages = nn.ModuleList(SSAVDStage(i, widths[i], config) for i in range(len(config.channels)))
        channels = config.channels[-1]
        self.video_pool = VideoPool(channels, config.rectified_pooling)
        self.audio_pool = AudioPool(channels, config.rectified_pooling)
        self.head = nn.Linear(2 * channels, 2, bias=False)
        if config.stream_heads:
            self.video_head = nn.Linear(channels, 2, bias=False)
            self.audio_head = nn.Linear(channels, 2, bias=False)
        if config.style_aug:
            self.video_style = nn.Sequential(VideoPool(channels), nn.Linear(channels, 2))
            self.audio_style = nn.Sequential(AudioPool(channels), nn.Linear(channels, 2))
            # The authors' network has a third one, which their code never calls. It is kept for the published size, without
            # a gradient that distributed training would wait for.
            self.unused_style = nn.Linear(channels, 2).requires_grad_(False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        audio_values: torch.FloatTensor | None = None,
        frame_mask: torch.Tensor | None = None,
        audio_mask: torch.Tensor | None = None,
        questions: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        video_labels: torch.LongTensor | None = None,
        audio_labels: torch.LongTensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> AVDetectionOutput:
        """
        Judge a batch of clips.

        The verdict on a clip without picture or without sound is that on its other part: `logits` are then its
        `video_logits` or `audio_logits`, and those of the absent part are NaN. In the network an absent part is zeros.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, 3, image_size, image_size)`, *optional*):
                RGB frames: uint8 in [0, 255], or floating point and normalised by ImageNet's mean and deviation. Without
                them no clip has a picture.
            audio_values (`torch.FloatTensor` of shape `(batch_size, audio_samples)`, *optional*):
                Sound at 16 kHz in [-1, 1], zeros after its end. Without it no clip has sound.
            frame_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
                1 for frames, 0 for padding, which the network sees as zeros. A clip without picture has a row of zeros.
            audio_mask (`torch.Tensor` of shape `(batch_size,)`, *optional*): 0 for a clip without sound.
            questions (`torch.Tensor` of shape `(batch_size, 3)`, *optional*):
                1 for the requested verdicts overall, video and audio; the others are NaN. Defaults to all.
            labels, video_labels, audio_labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                0 real, 1 fake, -100 unknown; labels that follow from others are filled in ([`complete_labels`]).
            num_items_in_batch (`int`, *optional*): Not used: the losses are averages over clips and pairs.
            return_dict (`bool`, *optional*): False for a tuple. Defaults to the configuration's.

        Returns:
            [`AVDetectionOutput`]: The verdicts, with a loss if there are labels. In training the loss is the sum of all
            terms, from features with mixed style; in evaluation it has only the classification terms, which are
            deterministic.

        Raises:
            ValueError: If there is neither picture nor sound, or a shape differs from the configuration's.
        """
        frames, sound, has_video, has_audio = self._inputs(pixel_values, audio_values, frame_mask, audio_mask)
        known = None
        if not (labels is None and video_labels is None and audio_labels is None):
            known = complete_labels(labels, video_labels, audio_labels, has_video, has_audio)

        for stage in self.stages:
            frames, sound = stage(frames, sound)
        video = frames.unflatten(0, (-1, self.config.num_frames)).transpose(1, 2)
        mixing = self.training and known is not None
        style_loss = None
        if mixing and self.config.style_aug:
            video, video_loss = self._mix_style(video, has_video, self.video_style, known.video)
            sound, audio_loss = self._mix_style(sound, has_audio, self.audio_style, known.audio)
            style_loss = video_loss + audio_loss
        seen, heard = self.video_pool(video), self.audio_pool(sound)
        both = torch.cat([seen, heard], dim=-1)
        logits = {"overall": self.head(both).float()}
        if self.config.stream_heads:
            logits["video"], logits["audio"] = self.video_head(seen).float(), self.audio_head(heard).float()

        loss = None
        if known is not None:
            weights = self.config.label_smoothing, self.config.video_weight, self.config.audio_weight
            loss = verdicts_loss(logits, known, has_video & has_audio, *weights)
            if mixing:
                loss = loss + self._mixed_losses(seen, heard, known, has_video, has_audio)
            if style_loss is not None:
                loss = loss + style_loss
        masked = (
            frame_mask is not None or audio_mask is not None or pixel_values is None or audio_values is None
        )
        if masked or questions is not None:
            logits = masked_verdicts(logits, has_video, has_audio, questions)
        return AVDetectionOutput(loss, logits["overall"], logits.get("video"), logits.get("audio"))

    # -- in and out --------------------------------------------------------------------------------------------------------

    def _inputs(self, pixel_values, audio_values, frame_mask, audio_mask) -> tuple[torch.Tensor, ...]:
        """Return normalised frames `(B * T, 3, H, W)`, the bands of the sound, and which clips have picture and sound."""
        config = self.config
        given = pixel_values if pixel_values is not None else audio_values
        if given is None:
            raise ValueError("SSAVDForDeepfakeDetection needs pixel_values, audio_values or both.")
        batch, device, dtype = given.shape[0], given.device, self.head.weight.dtype
        frame_shape = (batch, config.num_frames, 3, config.image_size, config.image_size)
        if pixel_values is None:
            pixel_values = torch.zeros(frame_shape, device=device, dtype=dtype)
            frame_mask = torch.zeros(frame_shape[:2], device=device, dtype=torch.bool)
        if audio_values is None:
            audio_values = torch.zeros(batch, config.audio_samples, device=device)
            audio_mask = torch.zeros(batch, device=device, dtype=torch.bool)
        check_shapes(
            {
                "pixel_values": (pixel_values, frame_shape),
                "audio_values": (audio_values, (batch, config.audio_samples)),
                "frame_mask": (frame_mask, frame_shape[:2]),
                "audio_mask": (audio_mask, (batch,)),
            },
            processor="SSAVDProcessor",
        )
        # Channels last comes first: so bytes are copied, not floats.
        frames = pixel_values.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        frames = normalized(frames, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        has_video = has_audio = torch.ones(batch, device=device, dtype=torch.bool)
        if frame_mask is not None:
            frame_mask = frame_mask.bool()
            has_video = frame_mask.any(dim=1)
            frames = torch.where(frame_mask.flatten()[:, None, None, None], frames, 0.0)
        if audio_mask is not None:
            has_audio = audio_mask.bool()
            audio_values = torch.where(has_audio[:, None], audio_values, 0.0)
        return frames.to(dtype), self.front_end(audio_values).to(dtype), has_video, has_audio

    # -- losses ------------------------------------------------------------------------------------------------------------

    def _mixed_losses(self, seen, heard, known: ClipLabels, has_video, has_audio) -> torch.Tensor:
        """Return the loss on shuffled sound plus the contrastive loss."""
        config, loss = self.config, seen.new_zeros((), dtype=torch.float32)
        if config.shuffle_av:
            order = shuffled_rows(has_audio)
            logits = self.head(torch.cat([seen, heard[order]], dim=-1))
            mixed = shuffled_labels(known.video, known.audio, order, config.mismatch_is_fake)
            loss = loss + classification_loss(logits, mixed, config.label_smoothing)
        if config.contrast_weight:
            margin = config.contrast_margin
            contrast = contrastive_loss(seen, known.video, margin)
            contrast = contrast + contrastive_loss(heard, known.audio, margin)
            if config.contrast_overall:
                overall = torch.where(has_video & has_audio, known.overall, IGNORE_INDEX)
                contrast = contrast + contrastive_loss(torch.cat([seen, heard], dim=-1), overall, margin)
            loss = loss + config.contrast_weight * contrast
        return loss

    def _mix_style(
        self, features: torch.Tensor, present: torch.Tensor, head: nn.Module, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return features with mixed style, and the losses of the style head.

        SagNet updates in turn: first the style head, on features that get no gradient, then the network against the style
        head, which is not updated. Here both are terms of one loss, for one backward pass and one optimiser step: the
        head's own loss gets detached features, and the network's loss passes through the head with detached weights. Each
        weight gets the gradients of its own step, but all are taken before the step.
        """
        order = shuffled_rows(present)
        mixed = change_style(features, features[order], torch.rand((), device=features.device))
        # Another clip's content in this clip's style: only the style goes with the label.
        styled = change_style(features[order], features, 0.0)
        loss = classification_loss(head(styled.detach()), labels)
        if self.config.adversarial_weight:
            frozen = {name: weight.detach() for name, weight in head.named_parameters()}
            logits = torch.func.functional_call(head, frozen, styled)
            loss = loss + self.config.adversarial_weight * uniform_loss(logits, present)
        return mixed, loss


__all__ = ["SSAVDForDeepfakeDetection", "SSAVDPreTrainedModel"]

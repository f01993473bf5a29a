"""facevoice: one network judges faces, frame by frame, another one the voice; the more suspicious part decides.

The picture network is made for training on genuine recordings alone, with self-blended images (Shiohara and Yamasaki, CVPR
2022) as fakes; the sound network learns from genuine and re-synthesised speech.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from timm import create_model
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import can_return_tuple

from .configuration_detector import IGNORE_INDEX
from .configuration_facevoice import HOP, FaceVoiceConfig
from .hub_mixin import AVDetectionHubMixin
from .modeling_facevoice_sound import SoundNetwork, SpectrogramBranch
from .modeling_outputs import AVDetectionOutput
from .modeling_precision import Float32PartsMixin
from .modeling_verdicts import check_shapes, complete_labels, normalized, part_verdicts


class FaceVoicePreTrainedModel(Float32PartsMixin, AVDetectionHubMixin, PreTrainedModel):
    """Base of facevoice: configuration, initialisation and loading of weights."""

    config_class = FaceVoiceConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    input_modalities = ("video", "audio")
    # The networks are small, and computed in float32 everywhere.
    _keep_in_fp32_modules_strict = ["picture", "picture_head", "sound"]

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Conv1d | nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)
        elif isinstance(module, SpectrogramBranch):
            for name, values in module.initial_buffers().items():
                init.copy_(module.get_buffer(name), values)
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and module.bias is not None:
            init.zeros_(module.bias)

    def save_pretrained(self, save_directory: str | Path, state_dict: dict | None = None, **kwargs) -> None:
        if self.config.half_precision:
            state_dict = self.state_dict() if state_dict is None else state_dict
            state_dict = {
                name: values.half() if values.is_floating_point() else values
                for name, values in state_dict.items()
            }
        super().save_pretrained(save_directory, state_dict=state_dict, **kwargs)


class FaceVoiceForDeepfakeDetection(FaceVoicePreTrainedModel):
    """
    Deepfake detector for talking faces: verdicts on the face and on the voice, and on the clip by the more suspicious one.

    Args:
        config ([`FaceVoiceConfig`]): The configuration.

    Example:

    ```python
    >>> from modeling_avlmm import FaceVoiceConfig, FaceVoiceForDeepfakeDetection, FaceVoiceProcessor

    >>> config = FaceVoiceConfig()
    >>> model, processor = FaceVoiceForDeepfakeDetection(config).eval(), FaceVoiceProcessor.from_config(config)
    >>> scores = model(**processor(["face_crops.mp4"])).scores
    ```
    """

    # The losses are averages: the trainer divides them by the accumulation steps.
    accepts_loss_kwargs = False

    def __init__(self, config: FaceVoiceConfig):
        super().__init__(config)
        # On the meta device there is nothing to initialise.
        empty = torch.get_default_device().type == "meta"
        with init.no_init_weights() if empty else nullcontext():
            self.picture = create_model(
                config.backbone, num_classes=0, global_pool="avg", drop_path_rate=config.drop_path
            )
        self.picture_head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(self.picture.num_features, 1))
        self.sound = SoundNetwork(config)
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
        Judge a batch of rows, each of one person's face crops and the sound.

        The log-odds of the picture are the mean over its crops. Those of picture and sound are calibrated, and the clip's
        are the larger ones. The verdict on a row without one part is that on the other; those of an absent part are NaN.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, 3, image_size, image_size)`, *optional*):
                RGB face crops: uint8 in [0, 255], or floating point and normalised as the configuration says. Without them
                no row has a picture.
            audio_values (`torch.FloatTensor` of shape `(batch_size, audio_samples)`, *optional*):
                Sound at 16 kHz in [-1, 1], zeros after its end. Without it no row has sound.
            frame_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
                1 for crops, 0 for padding. A row without a face has zeros.
            audio_mask (`torch.Tensor` of shape `(batch_size, audio_samples // 160)`, *optional*):
                1 for every 10 ms that hold sound. A row without speech has zeros.
            questions (`torch.Tensor` of shape `(batch_size, 3)`, *optional*):
                1 for the requested verdicts overall, video and audio; the others are NaN. Defaults to all.
            labels, video_labels, audio_labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                0 real, 1 fake, -100 unknown; labels that follow from others are filled in ([`complete_labels`]).
            num_items_in_batch (`int`, *optional*): Not used: the losses are averages over rows.
            return_dict (`bool`, *optional*): False for a tuple. Defaults to the configuration's.

        Returns:
            [`AVDetectionOutput`]: The verdicts and `frame_logits`, with a loss if there are labels: the cross-entropies of
            every crop and of the sound, before calibration, each averaged over the rows that have the label.

        Raises:
            ValueError: If there is neither picture nor sound, or a shape differs from the configuration's.
        """
        pixel_values, audio_values, frame_mask, audio_mask = self._inputs(
            pixel_values, audio_values, frame_mask, audio_mask
        )
        has_video, has_audio = frame_mask.any(dim=1), audio_mask.any(dim=1)
        frame_log_odds = _where_present(self.frame_log_odds, frame_mask, pixel_values)
        sound_log_odds = _where_present(self.sound_log_odds, has_audio, audio_values, audio_mask)
        output = part_verdicts(frame_log_odds, sound_log_odds, frame_mask, has_audio, self.config, questions)
        if not (labels is None and video_labels is None and audio_labels is None):
            known = complete_labels(labels, video_labels, audio_labels, has_video, has_audio)
            smoothing = self.config.label_smoothing
            each = _cross_entropy(frame_log_odds, known.video[:, None], smoothing)
            seen = torch.where(frame_mask, each, 0.0).sum(1) / frame_mask.sum(1).clamp(min=1)
            heard = _cross_entropy(sound_log_odds, known.audio, smoothing)
            output.loss = self.config.video_weight * _mean(seen, known.video) + (
                self.config.audio_weight * _mean(heard, known.audio)
            )
        return output

    def frame_log_odds(self, frames: torch.Tensor) -> torch.Tensor:
        """
        Return the log-odds that each face crop is fake, before calibration, shape `(N,)`, float32.

        Args:
            frames (`torch.Tensor` of shape `(N, 3, image_size, image_size)`): uint8, or normalised floating point.
        """
        frames = frames.contiguous(memory_format=torch.channels_last)
        frames = normalized(frames, self.config.image_mean, self.config.image_std)
        return (
            self.picture_head(self.picture(frames.to(self.picture_head[1].weight.dtype))).squeeze(-1).float()
        )

    def sound_log_odds(self, audio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the log-odds that the sound of each row is fake, before calibration, shape `(N,)`, float32."""
        return self.sound(audio, mask).float()

    def _inputs(self, pixel_values, audio_values, frame_mask, audio_mask) -> tuple[torch.Tensor, ...]:
        """Return all four inputs, with zeros for those that are missing, and masks as booleans."""
        config = self.config
        given = pixel_values if pixel_values is not None else audio_values
        if given is None:
            raise ValueError("FaceVoiceForDeepfakeDetection needs pixel_values, audio_values or both.")
        batch, device = len(given), given.device
        shape = (batch, config.num_frames, 3, config.image_size, config.image_size)
        heard_shape = (batch, config.audio_samples // HOP)
        check_shapes(
            {
                "pixel_values": (pixel_values, shape),
                "audio_values": (audio_values, (batch, config.audio_samples)),
                "frame_mask": (frame_mask, shape[:2]),
                "audio_mask": (audio_mask, heard_shape),
            },
            processor="FaceVoiceProcessor",
        )
        if frame_mask is None:
            frame_mask = torch.ones(shape[:2], device=device)
        if audio_mask is None:
            audio_mask = torch.ones(heard_shape, device=device)
        if pixel_values is None:
            pixel_values = torch.zeros((), dtype=torch.uint8, device=device).expand(shape)
            frame_mask = torch.zeros_like(frame_mask)
        if audio_values is None:
            audio_values = torch.zeros(batch, config.audio_samples, device=device)
            audio_mask = torch.zeros_like(audio_mask)
        return pixel_values, audio_values, frame_mask.bool(), audio_mask.bool()


def _where_present(
    network: Callable[..., torch.Tensor], present: torch.Tensor, *inputs: torch.Tensor
) -> torch.Tensor:
    """
    Return what a network says of the items that are present, in the shape of `present`, and 0 for the others.

    Padding is not computed, and does not count in batch norms.
    """
    if present.all():
        return network(*(values.flatten(0, present.ndim - 1) for values in inputs)).view(present.shape)
    log_odds = torch.zeros(present.shape, device=present.device)
    if not present.any():
        return log_odds
    return log_odds.masked_scatter(present, network(*(values[present] for values in inputs)))


def _cross_entropy(log_odds: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return the binary cross-entropy of every value, with labels broadcast to them; that of unknown labels is unused."""
    targets = labels.clamp(min=0).to(log_odds.dtype) * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(log_odds, targets.expand_as(log_odds), reduction="none")


def _mean(losses: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the average over the rows with a known label; 0 if there are none."""
    known = labels != IGNORE_INDEX
    return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)


__all__ = ["FaceVoiceForDeepfakeDetection", "FaceVoicePreTrainedModel"]

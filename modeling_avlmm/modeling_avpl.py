"""AVPL: a detector of prompts and small heads on two frozen foundation models, CLIP and Whisper.

Method: "Multi-task audio-visual prompt learning" (Miao, Guo, Liu, Wang, AAAI 2025, doi 10.1609/aaai.v39i1.32042), which has
no public code. Implemented from the abstract; details that it leaves open are our own and marked in place.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPVisionModel, PreTrainedModel
from transformers import initialization as init
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils import logging
from transformers.utils.generic import can_return_tuple

from .configuration_avpl import AVPLConfig
from .fingerprint import weights_fingerprint
from .hub_mixin import AVDetectionHubMixin, check_nothing_missing
from .modeling_avpl_blocks import (
    Centre,
    PooledHead,
    SequentialVisualPrompts,
    ShortTimeAudioPrompts,
    heard_at,
    masked_mean,
)
from .modeling_avpl_encoders import check_encoder, commit_of, load_encoder, place_modules
from .modeling_avpl_training import disagreement, distinct_sounds, matching_loss
from .modeling_outputs import AVDetectionOutput
from .modeling_verdicts import check_shapes, complete_labels, masked_verdicts, normalized, verdicts_loss

logger = logging.get_logger(__name__)

HUB_NAMES = ("token", "cache_dir", "local_files_only")
SPREADS = ("auto", "balanced", "balanced_low_0", "sequential")
PLACEMENT = ("device_map", "max_memory", "offload_folder", "offload_buffers")


class AVPLPreTrainedModel(AVDetectionHubMixin, PreTrainedModel):
    """Base of AVPL: configuration and initialisation of weights."""

    config_class = AVPLConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    input_modalities = ("video", "audio")
    supports_gradient_checkpointing = True
    _no_split_modules = ["CLIPEncoderLayer", "WhisperEncoderLayer"]
    _supports_sdpa = True
    # Prompts are handed the encoder: `accelerate` places it by itself.
    _skip_keys_device_placement = ["encoder"]

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=0.02)
            init.zeros_(module.bias)
        elif isinstance(module, Centre):
            init.zeros_(module.mean)
        elif isinstance(module, SequentialVisualPrompts):
            if module.prompts is not None:
                init.normal_(module.prompts, std=0.02)
            if module.carry_up is not None:
                init.zeros_(module.carry_up.weight)
        elif isinstance(module, ShortTimeAudioPrompts) and module.prompts is not None:
            init.normal_(module.prompts, std=0.02)
            # A new detector's audio tokens are Whisper's.
            for mix in module.mix:
                init.zeros_(mix.weight)


class AVPLForDeepfakeDetection(AVPLPreTrainedModel):
    """
    Deepfake detector of prompts, alignment and heads on a frozen CLIP and a frozen Whisper encoder.

    Everything outside `vision_encoder` and `audio_encoder` is trained, and only that is saved. The encoders are loaded from
    the ids in the configuration, in the revision and with the weights of the training.

    Args:
        config ([`AVPLConfig`]): The configuration. The encoders get random weights; see `from_encoders`.

    Example:

    ```python
    >>> from modeling_avlmm import AVPLForDeepfakeDetection, AVPLProcessor

    >>> model = AVPLForDeepfakeDetection.from_encoders("openai/clip-vit-base-patch16", "openai/whisper-base")
    >>> processor = AVPLProcessor.from_config(model.config)
    >>> output = model(**processor(["clip.mp4"]))
    >>> output.scores, output.frame_scores  # P(fake); disagreement of picture and sound over time
    ```
    """

    # The losses are averages, some of them over pairs: the trainer divides them by the accumulation steps.
    accepts_loss_kwargs = False

    def __init__(self, config: AVPLConfig):
        super().__init__(config)
        self.vision_encoder = CLIPVisionModel._from_config(config.vision_config)
        self.audio_encoder = WhisperEncoder._from_config(config.audio_config)
        self._freeze_encoders()
        self.visual_prompts = SequentialVisualPrompts(config)
        self.audio_prompts = ShortTimeAudioPrompts(config)
        # Trained parameters at the published size, ViT-B and Whisper-base, d_v = 768, d_a = D = 512:
        #   visual prompts  12 * 4 * 768 = 36,864     carry  768 * 32 + 32 + 32 * 768 + 768 = 49,952
        #   audio prompts   6 * (512 + 1024 * 512 + 512) = 3,151,872
        #   alignment       768 * 512 + 512 = 393,728 and 512 * 512 + 512 = 262,656
        #   heads           2 * (512 * 256 + 256 + 514) = 263,684 and 1025 * 256 + 256 + 514 = 263,170
        # together 4,421,926, the reported 4.4 million of the paper.
        width, hidden = config.align_width, config.head_width
        self.align_video = nn.Linear(config.vision_config.hidden_size, width)
        self.align_audio = nn.Linear(config.audio_config.d_model, width)
        self.centre_video, self.centre_audio = Centre(width), Centre(width)
        self.head = PooledHead(2 * width + 1, hidden)
        if config.multi_task:
            self.video_head, self.audio_head = PooledHead(width, hidden), PooledHead(width, hidden)
        self._keys_to_ignore_on_save = self._keys_not_stored()
        # These come from their own checkpoints; a warning names other keys that a file lacks.
        absent = {"vision", "audio"} - set(config.stored_encoders())
        self._keys_to_ignore_on_load_missing = [rf"^{part}_encoder\." for part in sorted(absent)]
        self.post_init()

    # -- making, loading, saving -------------------------------------------------------------------------------------------

    @classmethod
    def from_encoders(
        cls,
        vision_encoder: str,
        audio_encoder: str,
        vision_revision: str | None = None,
        audio_revision: str | None = None,
        **kwargs,
    ) -> "AVPLForDeepfakeDetection":
        """
        Return an untrained detector on two foundation models.

        Args:
            vision_encoder (`str`): Hub id or folder of a CLIP checkpoint, e.g. `"openai/clip-vit-base-patch16"`.
            audio_encoder (`str`): Hub id or folder of a Whisper checkpoint, e.g. `"openai/whisper-base"`.
            vision_revision, audio_revision (`str`, *optional*):
                Branch, tag or commit of each. The configuration keeps the commit.
            kwargs: Other fields of [`AVPLConfig`], and `token`, `cache_dir`, `local_files_only` for the Hub.

        Raises:
            EncoderError: If an encoder cannot be loaded or has another type.
        """
        hub = {name: kwargs.pop(name) for name in HUB_NAMES if name in kwargs}
        vision = load_encoder("vision", vision_encoder, revision=vision_revision, **hub)
        audio = load_encoder("audio", audio_encoder, revision=audio_revision, **hub)
        config = AVPLConfig(
            vision_encoder=vision_encoder,
            audio_encoder=audio_encoder,
            vision_revision=commit_of(vision_encoder, vision_revision, hub.get("cache_dir")),
            audio_revision=commit_of(audio_encoder, audio_revision, hub.get("cache_dir")),
            vision_config=vision.config.to_dict(),
            audio_config=audio.config.to_dict(),
            encoder_fingerprints={"vision": weights_fingerprint(vision), "audio": weights_fingerprint(audio)},
            **kwargs,
        )
        model = cls(config)
        model.vision_encoder.load_state_dict(vision.state_dict())
        model.audio_encoder.load_state_dict(audio.state_dict())
        return model.eval()

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """
        Load a detector and its encoders; see [`~transformers.PreTrainedModel.from_pretrained`].

        `vision_encoder` and `audio_encoder` (`str`) replace the ids in the configuration, for copies in another place.

        Raises:
            EncoderError: If an encoder cannot be loaded, or is not the one of the training.
            ValueError: If the file lacks weights that are in no encoder.
        """
        hub = {name: kwargs[name] for name in HUB_NAMES if kwargs.get(name) is not None}
        wanted = kwargs.pop("output_loading_info", False)
        # Weights can only be filled in where there is memory: modules are placed, and offloaded, after that.
        spread = isinstance(kwargs.get("device_map"), dict) or kwargs.get("device_map") in SPREADS
        placement = {name: kwargs.pop(name) for name in PLACEMENT if name in kwargs} if spread else {}
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        stored, filled = model.config.stored_encoders(), []
        for part, (source, _) in model.config.encoder_sources.items():
            # `save_encoders` may have been set after the file was written: weights that it lacks are still random here.
            missing = any(key.startswith(f"{part}_encoder.") for key in info["missing_keys"])
            if part not in stored or (missing and source is not None):
                model._load_encoder(part, **hub)
                filled.append(f"{part}_encoder.")
                if missing:
                    logger.warning(f"The {part} encoder, which is not in the file, was loaded from {source}.")
        if not wanted:
            check_nothing_missing(name for name in info["missing_keys"] if not name.startswith(tuple(filled)))
        model._freeze_encoders()
        if placement:
            place_modules(model, **placement)
        return (model, info) if wanted else model

    def _encoders(self) -> dict[str, nn.Module]:
        return {"vision": self.vision_encoder, "audio": self.audio_encoder}

    def _load_encoder(self, part: str, **hub) -> None:
        own, (source, revision) = self._encoders()[part], self.config.encoder_sources[part]
        loaded = load_encoder(part, source, revision=revision, **hub)
        check_encoder(part, source, loaded, own, (self.config.encoder_fingerprints or {}).get(part))
        # Into the existing weights, to keep their type and device.
        own.load_state_dict(loaded.state_dict())

    def save_pretrained(self, save_directory, **kwargs):
        """Save the trained part, and encoders that exist nowhere else or that `save_encoders` asks for."""
        self._keys_to_ignore_on_save = self._keys_not_stored()
        super().save_pretrained(save_directory, **kwargs)

    def _keys_not_stored(self) -> set[str]:
        """Return the names of the weights that are not stored, for saving and for a trainer that resumes."""
        stored = self.config.stored_encoders()
        return {
            f"{part}_encoder.{name}"
            for part, encoder in self._encoders().items()
            if part not in stored
            for name in encoder.state_dict()
        }

    # -- frozen ------------------------------------------------------------------------------------------------------------

    def _freeze_encoders(self) -> None:
        for encoder in self._encoders().values():
            encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "AVPLForDeepfakeDetection":
        """Switch the trained part to training mode; the encoders stay in evaluation mode."""
        super().train(mode)
        self.vision_encoder.eval()
        self.audio_encoder.eval()
        return self

    # -- forward -----------------------------------------------------------------------------------------------------------

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_features: torch.FloatTensor | None = None,
        frame_mask: torch.Tensor | None = None,
        frame_times: torch.FloatTensor | None = None,
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
        `video_logits` or `audio_logits`; those of the absent part and the clip's `frame_scores` are NaN.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_frames, 3, image_size, image_size)`, *optional*):
                RGB frames: uint8 in [0, 255], or floating point and normalised by CLIP's mean and deviation. Without them
                no clip has a picture.
            input_features (`torch.FloatTensor` of shape `(batch_size, num_mel_bins, 2 * num_tokens + 1)`, *optional*):
                Log-mel spectra of [`~transformers.WhisperFeatureExtractor`], one every 10 ms. Without them no clip has
                sound.
            frame_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
                1 for frames, 0 for padding. A clip without picture has a row of zeros.
            frame_times (`torch.FloatTensor` of shape `(batch_size, num_frames)`):
                Times at which frames are on screen, in seconds from the first sample of sound. Needed if there are both
                frames and sound.
            audio_mask (`torch.Tensor` of shape `(batch_size, num_tokens)`, *optional*):
                1 for audio tokens (20 ms), 0 after the end of the sound. A clip without sound has a row of zeros.
            questions (`torch.Tensor` of shape `(batch_size, 3)`, *optional*):
                1 for the requested verdicts overall, video and audio; the others are NaN. Defaults to all.
            labels, video_labels, audio_labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                0 real, 1 fake, -100 unknown; labels that follow from others are filled in ([`complete_labels`]).
            num_items_in_batch (`int`, *optional*): Not used: the losses are averages over clips and pairs.
            return_dict (`bool`, *optional*): False for a tuple. Defaults to the configuration's.

        Returns:
            [`AVDetectionOutput`]: The verdicts, with a loss if there are labels.

        Raises:
            ValueError: If there is neither picture nor sound, or a shape does not fit.
        """
        config = self.config
        frames, spectra, frame_mask, frame_times, audio_mask = self._inputs(
            pixel_values, input_features, frame_mask, frame_times, audio_mask
        )
        has_video, has_audio = frame_mask.any(dim=1), audio_mask.any(dim=1)
        width = config.align_width
        if frames is None:
            seen = spectra.new_zeros(*frame_mask.shape, width)
        else:
            seen = self.align_video(self.visual_prompts(frames, frame_mask, encoder=self.vision_encoder))
        if spectra is None:
            sound = seen.new_zeros(*audio_mask.shape, width)
        else:
            sound = self.align_audio(self.audio_prompts(spectra, audio_mask, encoder=self.audio_encoder))
        heard, audible = heard_at(sound, audio_mask, frame_times, config.align_seconds)
        matched = frame_mask & audible
        pair = self.centre_video(seen, matched), self.centre_audio(heard, matched)
        alike = torch.where(matched, F.cosine_similarity(*pair, dim=-1), 0.0)

        logits = {"overall": self._judge_both(seen, heard, alike, sound, frame_mask, audio_mask)}
        if config.multi_task:
            logits["video"] = self.video_head(seen, frame_mask)
            logits["audio"] = self.audio_head(sound, audio_mask)

        loss = None
        if not (labels is None and video_labels is None and audio_labels is None):
            known = complete_labels(labels, video_labels, audio_labels, has_video, has_audio)
            weights = config.label_smoothing, config.video_weight, config.audio_weight
            loss = verdicts_loss(logits, known, has_video & has_audio, *weights)
            if config.matching_weight and spectra is not None:
                loss = loss + config.matching_weight * matching_loss(
                    *pair,
                    frame_times,
                    matched,
                    known.overall,
                    distinct_sounds(spectra, audio_mask),
                    config.matching_margin,
                    config.shift_seconds,
                    config.matching_temperature,
                )
        logits = masked_verdicts(logits, has_video, has_audio, questions)
        frame_scores = None
        if config.gives_frame_scores:
            frame_scores = disagreement(*pair, matched, config.matching_margin)
        return AVDetectionOutput(
            loss, logits["overall"], logits.get("video"), logits.get("audio"), frame_scores
        )

    def _judge_both(self, seen, heard, alike, sound, frame_mask, audio_mask) -> torch.Tensor:
        """
        Return the logits of the joint head, which takes each frame's picture, its sound and their similarity.

        Without a picture there is one step, with the mean of the sound. (The similarity as an input is our own.)
        """
        both = torch.cat([seen, heard, alike[..., None].to(seen.dtype)], dim=-1)
        alone = masked_mean(sound, audio_mask)[:, None]
        alone = torch.cat([torch.zeros_like(alone), alone, torch.zeros_like(alone[..., :1])], dim=-1)
        steps = torch.cat([frame_mask, ~frame_mask.any(dim=1, keepdim=True)], dim=1)
        return self.head(torch.cat([both, alone], dim=1), steps)

    def _inputs(self, pixel_values, input_features, frame_mask, frame_times, audio_mask) -> tuple:
        """Return normalised frames and spectra (None if no clip has any), the frames' mask and times, and the tokens' mask."""
        config = self.config
        given = pixel_values if pixel_values is not None else input_features
        if given is None:
            raise ValueError("AVPLForDeepfakeDetection needs pixel_values, input_features or both.")
        batch, device, dtype = given.shape[0], given.device, self.vision_encoder.dtype
        num_frames = 1 if pixel_values is None else pixel_values.shape[1]
        num_tokens = 1 if input_features is None else input_features.shape[-1] // 2
        most = config.audio_config.max_source_positions
        if num_tokens > most:
            raise ValueError(f"input_features has {num_tokens} audio tokens, and the encoder at most {most}.")
        if frame_times is None and (pixel_values is None or input_features is None):
            frame_times = torch.zeros(batch, num_frames, device=device)
        if frame_times is None:
            raise ValueError(
                "frame_times are needed with pixel_values and input_features: they say what belongs together."
            )
        frame_shape = (batch, num_frames, 3, config.image_size, config.image_size)
        mels = config.audio_config.num_mel_bins
        spectra = () if input_features is None else (batch, mels, input_features.shape[-1])
        if pixel_values is None:
            frame_mask = torch.zeros(batch, num_frames, device=device)
            frame_times = torch.zeros(batch, num_frames, device=device)
        if input_features is None:
            audio_mask = torch.zeros(batch, num_tokens, device=device)
        check_shapes(
            {
                "pixel_values": (pixel_values, frame_shape),
                "input_features": (input_features, spectra),
                "frame_mask": (frame_mask, frame_shape[:2]),
                "frame_times": (frame_times, frame_shape[:2]),
                "audio_mask": (audio_mask, (batch, num_tokens)),
            },
            processor="AVPLProcessor",
        )
        if frame_mask is None:
            frame_mask = torch.ones(batch, num_frames, device=device)
        if audio_mask is None:
            audio_mask = torch.ones(batch, num_tokens, device=device)
        frame_mask, audio_mask = frame_mask.bool(), audio_mask.bool()
        frames = pixel_values
        if frames is not None:
            frames = normalized(frames, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
            frames = torch.where(frame_mask[:, :, None, None, None], frames, 0.0).to(dtype)
        if input_features is not None:
            input_features = torch.where(audio_mask.any(dim=1)[:, None, None], input_features, 0.0).to(dtype)
        return frames, input_features, frame_mask, frame_times.float(), audio_mask


__all__ = ["AVPLForDeepfakeDetection", "AVPLPreTrainedModel"]

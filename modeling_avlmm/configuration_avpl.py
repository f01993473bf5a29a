"""Configuration of AVPL: prompts, alignment and heads on frozen CLIP and Whisper encoders."""

from transformers import CLIPVisionConfig, WhisperConfig
from transformers.configuration_utils import PreTrainedConfig

from .configuration_detector import AVDetectorConfig

TOKENS_PER_SECOND = 50
"""Whisper's encoder gives a token for every two spectra; these are 10 ms apart."""

VIT_BASE = {"patch_size": 16}
"""Sizes of `openai/clip-vit-base-patch16` that differ from the defaults of `CLIPVisionConfig`."""

WHISPER_BASE = {
    "d_model": 512,
    "encoder_layers": 6,
    "encoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "decoder_layers": 6,
    "decoder_attention_heads": 8,
    "decoder_ffn_dim": 2048,
}
"""Sizes of `openai/whisper-base`."""


class AVPLConfig(AVDetectorConfig):
    """
    Configuration of [`AVPLForDeepfakeDetection`].

    The paper (AAAI 2025, doi 10.1609/aaai.v39i1.32042; there is no code) describes frozen CLIP and Whisper encoders,
    sequential visual prompts, short-time audio prompts, features aligned frame by frame, three tasks, a matching loss, and
    4.4 million trained parameters. All numbers below are our own choice; together they give 4.4 million.

    Args:
        vision_encoder, audio_encoder (`str`, *optional*):
            Hub id or folder of the CLIP and the Whisper checkpoint that the detector was trained on and loads. None: the
            encoder exists nowhere else and is stored with the detector.
        vision_revision, audio_revision (`str`, *optional*): Commit of each on the Hub.
        vision_config (`CLIPVisionConfig` or `dict`, *optional*): Defaults to that of `openai/clip-vit-base-patch16`.
        audio_config (`WhisperConfig` or `dict`, *optional*): Defaults to that of `openai/whisper-base`.
        encoder_fingerprints (`dict[str, str]`, *optional*):
            Hashes of the encoders' weights in training, `vision` and `audio` ([`weights_fingerprint`]); other weights are
            refused. Set by [`AVPLForDeepfakeDetection.from_encoders`].
        save_encoders (`bool`, *optional*, defaults to `False`):
            Store the encoders with the detector even if they have ids, so that it loads without them.
        num_frames (`int`, *optional*, defaults to 16): Largest number of frames in a clip, `T`.
        clip_seconds (`float`, *optional*, defaults to 1.0): Length of a clip in seconds.
        num_visual_prompts (`int`, *optional*, defaults to 4): Prompt tokens of each frame at each layer; 0 for none.
        sequential_prompts (`bool`, *optional*, defaults to `True`):
            Pass a frame's prompts on to the next frame, from layer to layer.
        carry_width (`int`, *optional*, defaults to 32): Width of the bottleneck that passes them on, shared by the layers.
        short_time_prompts (`bool`, *optional*, defaults to `True`): Use prompts in the audio encoder.
        prompt_window (`int`, *optional*, defaults to 5): Audio tokens (20 ms each) that share a prompt.
        align_width (`int`, *optional*, defaults to 512): Width `D` of the aligned features.
        align_seconds (`float`, *optional*, defaults to 0.06): Reach of a frame's sound before and after it, in seconds.
        head_width (`int`, *optional*, defaults to 256): Hidden width of the heads.
        multi_task (`bool`, *optional*, defaults to `True`):
            Use separate heads and losses for picture and sound. Without them there are no `video_logits` and `audio_logits`.
        label_smoothing (`float`, *optional*, defaults to 0.0): Label smoothing of the classification losses.
        video_weight, audio_weight (`float`, *optional*, default to 1.0):
            Weights of the losses of picture and sound; the overall loss has 1.
        matching_weight (`float`, *optional*, defaults to 1.0):
            Weight of the matching loss. 0 turns it off, and `frame_scores` too, which mean nothing without it.
        matching_margin (`float`, *optional*, defaults to 0.0): Cosine similarity that pairs which don't match may have.
        matching_temperature (`float`, *optional*, defaults to 0.1): Temperature of the matching loss's contrast.
        shift_seconds (`float`, *optional*, defaults to 0.2): Shortest time between a frame and sound of another moment.
        threshold, temperature, abstain_band, calibration, notice, training_summary (*optional*):
            See [`AVDetectorConfig`].

    Raises:
        ValueError: If sizes do not fit together.
    """

    model_type = "avpl"
    sub_configs = {"vision_config": CLIPVisionConfig, "audio_config": WhisperConfig}

    vision_encoder: str | None = None
    audio_encoder: str | None = None
    vision_revision: str | None = None
    audio_revision: str | None = None
    vision_config: dict | PreTrainedConfig | None = None
    audio_config: dict | PreTrainedConfig | None = None
    encoder_fingerprints: dict | None = None
    save_encoders: bool = False
    num_frames: int = 16
    clip_seconds: float = 1.0
    num_visual_prompts: int = 4
    sequential_prompts: bool = True
    carry_width: int = 32
    short_time_prompts: bool = True
    prompt_window: int = 5
    align_width: int = 512
    align_seconds: float = 0.06
    head_width: int = 256
    multi_task: bool = True
    label_smoothing: float = 0.0
    video_weight: float = 1.0
    audio_weight: float = 1.0
    matching_weight: float = 1.0
    matching_margin: float = 0.0
    matching_temperature: float = 0.1
    shift_seconds: float = 0.2

    def __post_init__(self, **kwargs):
        if not isinstance(self.vision_config, PreTrainedConfig):
            self.vision_config = CLIPVisionConfig(
                **(VIT_BASE if self.vision_config is None else self.vision_config)
            )
        if not isinstance(self.audio_config, PreTrainedConfig):
            self.audio_config = WhisperConfig(
                **(WHISPER_BASE if self.audio_config is None else self.audio_config)
            )
        super().__post_init__(**kwargs)
        for name, value in (
            ("num_frames", self.num_frames),
            ("prompt_window", self.prompt_window),
            ("align_width", self.align_width),
            ("head_width", self.head_width),
            ("carry_width", self.carry_width),
        ):
            if value < 1:
                raise ValueError(f"AVPLConfig: {name} must be at least 1, not {value}.")
        if self.num_visual_prompts < 0:
            raise ValueError(
                f"AVPLConfig: num_visual_prompts must not be negative, is {self.num_visual_prompts}."
            )
        longest = self.audio_config.max_source_positions
        if not 0 < self.clip_seconds * TOKENS_PER_SECOND <= longest + 1e-6:
            raise ValueError(
                f"AVPLConfig: clip_seconds must be above 0 and at most {longest / TOKENS_PER_SECOND:g}, for which the "
                f"audio encoder has positions, not {self.clip_seconds:g}."
            )
        if self.align_seconds < 1 / TOKENS_PER_SECOND:
            raise ValueError(
                f"AVPLConfig: align_seconds must be at least {1 / TOKENS_PER_SECOND:g}, the time from one audio token "
                f"to the next, not {self.align_seconds:g}."
            )
        if not -1 <= self.matching_margin < 1:
            raise ValueError(f"AVPLConfig: matching_margin must be in [-1, 1), not {self.matching_margin:g}.")

    @property
    def image_size(self) -> int:
        """Height and width of a frame, in pixels."""
        return self.vision_config.image_size

    @property
    def num_audio_tokens(self) -> int:
        """Number of audio tokens in a clip."""
        return round(self.clip_seconds * TOKENS_PER_SECOND)

    @property
    def gives_frame_scores(self) -> bool:
        """True if the detector was trained with the matching loss, which gives `frame_scores` their meaning."""
        return self.matching_weight > 0

    @property
    def encoder_sources(self) -> dict[str, tuple[str | None, str | None]]:
        """Id and revision of the two encoders, `vision` and `audio`."""
        return {
            "vision": (self.vision_encoder, self.vision_revision),
            "audio": (self.audio_encoder, self.audio_revision),
        }

    def stored_encoders(self) -> tuple[str, ...]:
        """Return the encoders that are stored with the detector, of `vision` and `audio`; the others load from their ids."""
        sources = self.encoder_sources.items()
        return tuple(part for part, (source, _) in sources if self.save_encoders or source is None)


__all__ = ["AVPLConfig"]

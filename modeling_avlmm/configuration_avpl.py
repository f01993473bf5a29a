"""Configuration of AVPL: prompts, alignment and heads on frozen CLIP and Whisper encoders."""

from transformers import CLIPVisionConfig, WhisperConfig
from transformers.configuration_utils import PreTrainedConfig

from .configuration_detector import AVDetectorConfig

TOKENS_PER_SECOND = 50
"""Whisper's encoder gives one token for every two spectra, which are 10 ms apart."""

VIT_BASE = {"patch_size": 16}
"""`openai/clip-vit-base-patch16`; the other sizes are the defaults of `CLIPVisionConfig`."""

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

    Published (AAAI 2025, doi 10.1609/aaai.v39i1.32042; there is no code): frozen CLIP and Whisper, sequential visual
    prompts, short-time audio prompts, features aligned frame by frame, three tasks, a matching loss, 4.4 million
    parameters that train. All numbers below are our own choice, made so that they give 4.4 million.

    Args:
        vision_encoder, audio_encoder (`str`, *optional*):
            Hub id or folder of the CLIP and the Whisper checkpoint that the detector was trained on, and is loaded with.
            None: the encoder has no other home and is stored with the detector.
        vision_revision, audio_revision (`str`, *optional*): Commit of each on the Hub.
        vision_config (`CLIPVisionConfig` or `dict`, *optional*): The visual encoder; that of `openai/clip-vit-base-patch16`.
        audio_config (`WhisperConfig` or `dict`, *optional*): The audio encoder; that of `openai/whisper-base`.
        encoder_fingerprints (`dict[str, str]`, *optional*):
            `vision` and `audio`: hashes of the encoders' weights in training ([`weights_fingerprint`]); other weights
            are refused. Set by [`AVPLForDeepfakeDetection.from_encoders`].
        save_encoders (`bool`, *optional*, defaults to `False`):
            Store the encoders with the detector although they have ids, so that it needs nothing else to load.
        num_frames (`int`, *optional*, defaults to 16): Most frames of a clip, `T`.
        clip_seconds (`float`, *optional*, defaults to 1.0): Length of a clip.
        num_visual_prompts (`int`, *optional*, defaults to 4): Prompt tokens of every frame at every layer; 0 for none.
        sequential_prompts (`bool`, *optional*, defaults to `True`):
            Hand the prompts of a frame on to the next frame, from layer to layer.
        carry_width (`int`, *optional*, defaults to 32): Width of the bottleneck that hands them on, shared by the layers.
        short_time_prompts (`bool`, *optional*, defaults to `True`): Prompts for the audio encoder; without, it is as it is.
        prompt_window (`int`, *optional*, defaults to 5): Audio tokens (20 ms) that share a prompt.
        align_width (`int`, *optional*, defaults to 512): Width `D` of the aligned features.
        align_seconds (`float`, *optional*, defaults to 0.06): How far from a frame, before and after, its sound reaches.
        head_width (`int`, *optional*, defaults to 256): Hidden width of the heads.
        multi_task (`bool`, *optional*, defaults to `True`):
            Heads and losses for picture and sound of their own. Without, there are no `video_logits` and `audio_logits`.
        label_smoothing (`float`, *optional*, defaults to 0.0): Of the classification losses.
        video_weight, audio_weight (`float`, *optional*, default to 1.0): Weights of their losses; the overall one has 1.
        matching_weight (`float`, *optional*, defaults to 1.0):
            Weight of the matching loss; 0 turns it off, and with it `frame_scores`, which it gives their meaning.
        matching_margin (`float`, *optional*, defaults to 0.0): Cosine similarity that what does not match may have.
        matching_temperature (`float`, *optional*, defaults to 0.1): Of the matching loss's contrast between moments.
        shift_seconds (`float`, *optional*, defaults to 0.2): Least time between a frame and sound that does not match it.
        threshold, temperature, abstain_band, calibration, notice, training_summary (*optional*):
            See [`AVDetectorConfig`].

    Raises:
        ValueError: for sizes that do not fit one another.
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
        for name in ("num_frames", "prompt_window", "align_width", "head_width", "carry_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"AVPLConfig: {name} must be at least 1, not {getattr(self, name)}.")
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
        """Height and width of a frame, pixels."""
        return self.vision_config.image_size

    @property
    def num_audio_tokens(self) -> int:
        """Audio tokens of a clip."""
        return round(self.clip_seconds * TOKENS_PER_SECOND)

    @property
    def gives_frame_scores(self) -> bool:
        """Whether the detector says when picture and sound disagree."""
        return self.matching_weight > 0

    def stored_encoders(self) -> tuple[str, ...]:
        """Which of `vision` and `audio` are part of a saved detector; the others come from their ids."""
        ids = {"vision": self.vision_encoder, "audio": self.audio_encoder}
        return tuple(name for name, source in ids.items() if self.save_encoders or source is None)


__all__ = ["AVPLConfig"]

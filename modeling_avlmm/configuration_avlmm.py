"""Configuration of AV-LMMDetect: an omni-modal language model that answers "Real" or "Fake"."""

from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from .configuration_detector import AVDetectorConfig

LABEL_WORDS = ("Real", "Fake")
"""The answer for each label: index 0 is real, index 1 is fake."""

HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only")
"""Options of `from_pretrained` that say where to load from."""

DEFAULT_PROMPTS = {
    "system": "You are a helpful assistant.",
    "prefix": "Given the video,",
    # The published question (AV-LMMDetect, arXiv 2602.23393, section 3).
    "overall": " please assess if it's Real or Fake? Only answer 'Real' or 'Fake'.",
    # Our own, in the same form, for corpora with labels of picture or sound.
    "video": " please assess if its picture is Real or Fake? Only answer 'Real' or 'Fake'.",
    "audio": " please assess if its sound is Real or Fake? Only answer 'Real' or 'Fake'.",
}


@dataclass(frozen=True)
class OmniBackbone:
    """
    The parts of an omni "thinker" of `transformers`. To support another backbone, add one of these.

    Args:
        thinker_class (`str`): Name in `transformers` of the class with language head, without talker or vocoder.
        processor_class (`str`): Name in `transformers` of its processor.
        language_model (`str`): Path of the language model inside the thinker.
        vision_encoder (`str`): Path of the vision encoder, projector included.
        vision_projector (`str`): Path of the vision projector.
        audio_encoder (`str`): Path of the audio encoder, projector included.
        audio_projector (`str`): Path of the audio projector.
        lora_targets (`str`): Regular expression of the language model's linear layers, for LoRA.
    """

    thinker_class: str
    processor_class: str
    language_model: str
    vision_encoder: str
    vision_projector: str
    audio_encoder: str
    audio_projector: str
    lora_targets: str


BACKBONES = {
    "qwen2_5_omni_thinker": OmniBackbone(
        thinker_class="Qwen2_5OmniThinkerForConditionalGeneration",
        processor_class="Qwen2_5OmniProcessor",
        language_model="model.language_model",
        vision_encoder="model.visual",
        vision_projector="model.visual.merger",
        audio_encoder="model.audio_tower",
        audio_projector="model.audio_tower.proj",
        lora_targets=r".*language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
    ),
}


def thinker_of(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the thinker's configuration of a detector or of an omni model; that of another model itself."""
    return config.thinker_config if "thinker_config" in config.sub_configs else config


def known_thinker(config: PreTrainedConfig, name: str) -> PreTrainedConfig:
    """
    Return the thinker's configuration of an omni model.

    Args:
        config (`PreTrainedConfig`): Configuration of an omni model or of its thinker.
        name (`str`): Hub id or folder, for the message.

    Raises:
        ValueError: If the thinker's `model_type` is not in `BACKBONES`.
    """
    thinker = thinker_of(config)
    if thinker.model_type not in BACKBONES:
        raise ValueError(
            f"{name!r} has model_type {config.model_type!r}, which is not a known omni model ({', '.join(BACKBONES)}). "
            "Its thinker can be added to BACKBONES in configuration_avlmm.py."
        )
    return thinker


def split_hub_options(kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the `HUB_OPTIONS` among keyword arguments, and the others."""
    hub = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
    return hub, {name: value for name, value in kwargs.items() if name not in hub}


class AVLMMConfig(AVDetectorConfig):
    """
    Configuration of [`AVLMMForDeepfakeDetection`].

    Args:
        thinker_config (`PreTrainedConfig` or `dict`, *optional*):
            Configuration of the omni thinker; its `model_type` must be in `BACKBONES`.
        label_token_ids (`list[int]`, *optional*):
            Vocabulary ids of the answers, ordered `real, fake`; 12768 and 52317 for Qwen2.5-Omni.
            [`AVLMMForDeepfakeDetection.from_backbone`] derives them from the tokenizer.
        prompts (`dict[str, str]`, *optional*):
            Texts that the weights were trained with: `system`, `prefix` (before the clip) and a question for each of
            `overall`, `video` and `audio` (after the clip). Defaults to the published prompts.
        analysis (`dict`, *optional*):
            Set if the weights were taught to talk about a clip: `tasks` with their shares, and `context`, True if
            conversations may begin with measured verdicts.
        threshold, temperature, abstain_band, calibration, notice, training_summary (*optional*):
            See [`AVDetectorConfig`].
    """

    model_type = "avlmm"
    sub_configs = {"thinker_config": AutoConfig}
    has_no_defaults_at_init = True

    thinker_config: dict | PreTrainedConfig | None = None
    label_token_ids: list[int] | None = None
    analysis: dict | None = None

    def __post_init__(self, **kwargs):
        if isinstance(self.thinker_config, dict):
            model_type = self.thinker_config.get("model_type", "qwen2_5_omni_thinker")
            self.thinker_config = AutoConfig.for_model(**{**self.thinker_config, "model_type": model_type})
        self.prompts = {**DEFAULT_PROMPTS, **(self.prompts or {})}
        super().__post_init__(**kwargs)

    @property
    def backbone(self) -> OmniBackbone:
        """The parts of this thinker.

        Raises:
            ValueError: If the thinker's `model_type` is not in `BACKBONES`.
        """
        model_type = None if self.thinker_config is None else self.thinker_config.model_type
        if model_type not in BACKBONES:
            raise ValueError(
                f"AVLMMConfig.thinker_config has model_type {model_type!r}, which is not a known omni thinker "
                f"({', '.join(BACKBONES)}). Pass the thinker's own configuration, or add it to BACKBONES."
            )
        return BACKBONES[model_type]

    def get_text_config(self, *args, **kwargs):
        """Return the language model's configuration, for `transformers` and TRL."""
        return (
            self.thinker_config.get_text_config(*args, **kwargs) if self.thinker_config is not None else self
        )

"""Configuration of AV-LMMDetect: an omni-modal language model that answers "Real" or "Fake"."""

from dataclasses import dataclass

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from .configuration_detector import AVDetectorConfig

LABEL_WORDS = ("Real", "Fake")
"""The answer of each label: index 0 is real, index 1 is fake."""

DEFAULT_PROMPTS = {
    "system": "You are a helpful assistant.",
    "prefix": "Given the video,",
    # The published question (AV-LMMDetect, arXiv 2602.23393, section 3).
    "overall": " please assess if it's Real or Fake? Only answer 'Real' or 'Fake'.",
    # Our own, in the same form, for the labels each corpus has for one modality.
    "video": " please assess if its picture is Real or Fake? Only answer 'Real' or 'Fake'.",
    "audio": " please assess if its sound is Real or Fake? Only answer 'Real' or 'Fake'.",
}


@dataclass(frozen=True)
class OmniBackbone:
    """
    Where the parts of an omni "thinker" of `transformers` are. Adding a backbone means adding one of these.

    Args:
        thinker_class (`str`): Name in `transformers` of the class with language head, without talker or vocoder.
        processor_class (`str`): Name in `transformers` of the processor that belongs to it.
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


class AVLMMConfig(AVDetectorConfig):
    """
    Configuration of [`AVLMMForDeepfakeDetection`].

    Args:
        thinker_config (`PreTrainedConfig` or `dict`, *optional*):
            Configuration of the omni thinker. Its `model_type` must be one of `BACKBONES`.
        label_token_ids (`list[int]`, *optional*):
            Vocabulary ids of the answers, ordered `real, fake`. Derived from the tokenizer by
            [`AVLMMForDeepfakeDetection.from_backbone`]; 12768 and 52317 for Qwen2.5-Omni.
        prompts (`dict[str, str]`, *optional*):
            The texts the weights were trained with: `system`, `prefix` (before the clip) and one question for each of
            `overall`, `video` and `audio` (after the clip). Defaults to the published prompt.
        analysis (`dict`, *optional*):
            Set where the weights were taught to talk about a clip: `tasks` with their shares, and `context`, whether
            conversations may begin with measured verdicts.
        threshold, temperature, abstain_band, calibration, notice, training_summary (*optional*):
            See [`AVDetectorConfig`].
    """

    model_type = "avlmm"
    sub_configs = {"thinker_config": AutoConfig}
    has_no_defaults_at_init = True

    thinker_config: dict | PreTrainedConfig | None = None
    label_token_ids: list[int] | None = None
    prompts: dict | None = None
    analysis: dict | None = None

    def __post_init__(self, **kwargs):
        if isinstance(self.thinker_config, dict):
            model_type = self.thinker_config.get("model_type", "qwen2_5_omni_thinker")
            self.thinker_config = AutoConfig.for_model(**{**self.thinker_config, "model_type": model_type})
        self.prompts = {**DEFAULT_PROMPTS, **(self.prompts or {})}
        super().__post_init__(**kwargs)

    @property
    def backbone(self) -> OmniBackbone:
        """Where the parts of this thinker are.

        Raises:
            ValueError: when the thinker's `model_type` is not in `BACKBONES`.
        """
        model_type = getattr(self.thinker_config, "model_type", None)
        if model_type not in BACKBONES:
            raise ValueError(
                f"AVLMMConfig.thinker_config has model_type {model_type!r}, which is not a known omni thinker "
                f"({', '.join(BACKBONES)}). Pass the thinker's own configuration, or add it to BACKBONES."
            )
        return BACKBONES[model_type]

    def get_text_config(self, *args, **kwargs):
        """The language model's configuration, which `transformers` and TRL ask for."""
        return (
            self.thinker_config.get_text_config(*args, **kwargs) if self.thinker_config is not None else self
        )

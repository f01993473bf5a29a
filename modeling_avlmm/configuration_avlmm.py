"""Configuration of AV-LMMDetect: an omni-modal language model that answers "Real" or "Fake"."""

from typing import Any

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from .backbone import Backbone
from .backbone_gemma4 import GEMMA4
from .backbone_qwen2_5_omni import QWEN2_5_OMNI
from .backbone_qwen3_omni import QWEN3_OMNI
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


BACKBONES: dict[str, Backbone] = {
    backbone.model_type: backbone for backbone in (QWEN2_5_OMNI, QWEN3_OMNI, GEMMA4)
}
"""The supported backbones by the `model_type` of their thinkers."""


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
        ValueError: If the thinker's `model_type` is not in `BACKBONES`, or the thinker lacks what its backbone needs.
    """
    thinker = thinker_of(config)
    if thinker.model_type not in BACKBONES:
        raise ValueError(
            f"{name!r} has model_type {config.model_type!r}, which is not a known omni model ({', '.join(BACKBONES)}). "
            "docs/backbones.md says how to add one."
        )
    BACKBONES[thinker.model_type].check(thinker, name)
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
    def backbone(self) -> Backbone:
        """The backbone that this thinker is.

        Raises:
            ValueError: If the thinker's `model_type` is not in `BACKBONES`.
        """
        model_type = None if self.thinker_config is None else self.thinker_config.model_type
        if model_type not in BACKBONES:
            raise ValueError(
                f"AVLMMConfig.thinker_config has model_type {model_type!r}, which is not a known omni thinker "
                f"({', '.join(BACKBONES)}). Pass the thinker's own configuration; docs/backbones.md says how to add one."
            )
        return BACKBONES[model_type]

    def get_text_config(self, *args, **kwargs):
        """Return the language model's configuration, for `transformers` and TRL."""
        return (
            self.thinker_config.get_text_config(*args, **kwargs) if self.thinker_config is not None else self
        )

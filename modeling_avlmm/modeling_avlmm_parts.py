"""Base of AV-LMMDetect: what `transformers` wants to know of the model, and the thinker's parts by their role."""

from torch import nn
from transformers import PreTrainedModel

from .configuration_avlmm import AVLMMConfig
from .hub_mixin import AVDetectionHubMixin


class AVLMMPreTrainedModel(AVDetectionHubMixin, PreTrainedModel):
    """Base of AV-LMMDetect: configuration and supported features."""

    config_class = AVLMMConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("video", "audio", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = []  # those of the thinker's parts are added to it
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def _init_weights(self, module):
        # The thinker initialises its own modules; there are no others.
        pass

    # -- the parts by role -------------------------------------------------------------------------------------------

    @property
    def language_model(self) -> nn.Module:
        """The language model, without its head."""
        return self.thinker.get_submodule(self.config.backbone.language_model)

    @property
    def vision_encoder(self) -> nn.Module:
        """The vision encoder."""
        return self.thinker.get_submodule(self.config.backbone.vision_encoder)

    @property
    def audio_encoder(self) -> nn.Module:
        """The audio encoder."""
        return self.thinker.get_submodule(self.config.backbone.audio_encoder)

    @property
    def vision_projectors(self) -> list[nn.Module]:
        """The projectors of the picture; some backbones have them inside the encoder."""
        return [self.thinker.get_submodule(path) for path in self.config.backbone.vision_projectors]

    @property
    def audio_projectors(self) -> list[nn.Module]:
        """The projectors of the sound; some backbones have them inside the encoder."""
        return [self.thinker.get_submodule(path) for path in self.config.backbone.audio_projectors]

    @property
    def projectors(self) -> list[nn.Module]:
        """The projectors of picture and sound."""
        return [*self.vision_projectors, *self.audio_projectors]

    def get_input_embeddings(self) -> nn.Module:
        return self.thinker.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.thinker.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.thinker.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module):
        self.thinker.set_output_embeddings(value)


__all__ = ["AVLMMPreTrainedModel"]

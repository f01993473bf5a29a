"""AV-LMMDetect: an omni-modal language model whose next token, Real or Fake, is the verdict on a clip.

Method: "Leveraging large multimodal models for audio-video deepfake detection: a pilot study" (arXiv 2602.23393).
Asking several questions about a clip in one pass is our own addition.
"""

import importlib

import torch
import torch.nn.functional as F
import transformers
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel

from .configuration_avlmm import BACKBONES, LABEL_WORDS, AVLMMConfig
from .configuration_detector import IGNORE_INDEX, PARTS
from .hub_mixin import AVDetectionHubMixin
from .modeling_outputs import AVDetectionOutput
from .modeling_packed_attention import TEXT_ATTENTION, attend_in_groups, pack_rows, packs
from .processing_patches import normalize_patches

ENCODER_INPUTS = ("input_features", "feature_attention_mask", "pixel_values_videos", "video_grid_thw")
POSITION_INPUTS = ("feature_attention_mask", "video_grid_thw", "video_second_per_grid", "use_audio_in_video")


class AVLMMPreTrainedModel(AVDetectionHubMixin, PreTrainedModel):
    config_class = AVLMMConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("video", "audio", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["Qwen2_5OmniDecoderLayer", "Qwen2_5OmniVisionBlock", "Qwen2_5OmniAudioEncoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def _init_weights(self, module):
        # The thinker initialises its own modules when it is built; there are none beside it.
        pass


class AVLMMForDeepfakeDetection(AVLMMPreTrainedModel):
    """
    Deepfake detector around the thinker of an omni-modal language model.

    The verdict is the pair of logits of the two label tokens (`Real`, `Fake`) at the answer position, from one forward
    pass and without generation. The language head is computed for those two rows and that position only. With `sdpa`
    attention, the default, padding is left out of the language model, and windows of one size are one call
    (modeling_packed_attention.py); results are the same up to rounding.

    Args:
        config ([`AVLMMConfig`]): Configuration; `thinker_config` and `label_token_ids` must be set.

    Example:

    ```python
    >>> from modeling_avlmm import AVLMMForDeepfakeDetection, AVLMMProcessor

    >>> model = AVLMMForDeepfakeDetection.from_backbone("Qwen/Qwen2.5-Omni-7B", dtype="bfloat16")
    >>> processor = AVLMMProcessor.from_backbone("Qwen/Qwen2.5-Omni-7B")
    >>> score = model(**processor(["clip.mp4"]).to(model.device)).scores
    ```
    """

    def __init__(self, config: AVLMMConfig):
        super().__init__(config)
        thinker_class = getattr(transformers, config.backbone.thinker_class)
        self.thinker = thinker_class._from_config(config.thinker_config)
        self._attend_in_groups()
        self.post_init()

    @classmethod
    def from_backbone(
        cls, backbone: str, prompts: dict | None = None, **kwargs
    ) -> "AVLMMForDeepfakeDetection":
        """
        Builds an untrained detector from an omni checkpoint; its talker and vocoder are never loaded.

        Args:
            backbone (`str`):
                Hub id or folder of an omni checkpoint, e.g. `"Qwen/Qwen2.5-Omni-7B"`, or of its thinker alone.
            prompts (`dict[str, str]`, *optional*):
                Replaces entries of the published prompts, see [`AVLMMConfig`].
            kwargs:
                Passed to the thinker's `from_pretrained`: `dtype`, `device_map`, `attn_implementation`, `revision`, ...

        Raises:
            ValueError: when the backbone is not a known omni model, or an answer is not a single token of its
                vocabulary.
        """
        hub_kwargs = {
            k: kwargs[k] for k in ("revision", "token", "cache_dir", "local_files_only") if k in kwargs
        }
        config = transformers.AutoConfig.from_pretrained(backbone, **hub_kwargs)
        thinker_config = getattr(config, "thinker_config", config)
        if thinker_config.model_type not in BACKBONES:
            raise ValueError(
                f"{backbone!r} has model_type {config.model_type!r}, which is not a known omni model "
                f"({', '.join(BACKBONES)}). Its thinker can be added to BACKBONES in configuration_avlmm.py."
            )
        tokenizer = AutoTokenizer.from_pretrained(backbone, **hub_kwargs)
        thinker_class = getattr(transformers, BACKBONES[thinker_config.model_type].thinker_class)
        thinker = thinker_class.from_pretrained(backbone, **kwargs)
        # Read first: the configuration around it, which has none yet, sets that of all inside to none.
        attention = thinker.config._attn_implementation
        detector_config = AVLMMConfig(
            thinker_config=thinker.config, label_token_ids=label_token_ids(tokenizer), prompts=prompts
        )
        detector_config.dtype = thinker.dtype
        detector_config._attn_implementation = attention
        with torch.device("meta"):
            model = cls(detector_config)
        model.thinker = thinker
        model.config.thinker_config = thinker.config
        model._attend_in_groups()
        return model.eval()

    def _attend_in_groups(self):
        attend_in_groups(self.language_model, (self.vision_encoder, self.audio_encoder))

    # -- the parts, by role ------------------------------------------------------------------------------------------

    @property
    def language_model(self) -> nn.Module:
        return self.thinker.get_submodule(self.config.backbone.language_model)

    @property
    def vision_encoder(self) -> nn.Module:
        """The vision encoder with its projector."""
        return self.thinker.get_submodule(self.config.backbone.vision_encoder)

    @property
    def audio_encoder(self) -> nn.Module:
        """The audio encoder with its projector."""
        return self.thinker.get_submodule(self.config.backbone.audio_encoder)

    @property
    def projectors(self) -> list[nn.Module]:
        """The vision and the audio projector."""
        backbone = self.config.backbone
        return [self.thinker.get_submodule(p) for p in (backbone.vision_projector, backbone.audio_projector)]

    def get_input_embeddings(self) -> nn.Module:
        return self.thinker.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.thinker.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.thinker.get_output_embeddings()

    # -- forward -----------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor,
        position_ids: torch.LongTensor | None = None,
        question_ids: torch.LongTensor | None = None,
        answer_positions: torch.LongTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        feature_attention_mask: torch.LongTensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_grid_thw: torch.LongTensor | None = None,
        audio_embeds: torch.FloatTensor | None = None,
        video_embeds: torch.FloatTensor | None = None,
        video_second_per_grid: torch.FloatTensor | None = None,
        use_audio_in_video: bool | None = None,
        labels: torch.LongTensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ) -> AVDetectionOutput:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
                Prompt with the clip's placeholder tokens, as made by [`AVLMMProcessor`] or the backbone's own
                processor. Padding may be on either side.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`):
                1 for tokens, 0 for padding.
            position_ids (`torch.LongTensor` of shape `(3, batch_size, sequence_length)`, *optional*):
                Time, height and width positions. Left out, the thinker computes them, which needs all clips of a batch
                to have the same modalities.
            question_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                0 for the clip and what comes before it, `k` for the tokens of the k-th question. Questions see the clip
                but not one another. Needed where a row holds more than one question; needs an attention implementation
                that takes a mask (`sdpa` or `eager`).
            answer_positions (`torch.LongTensor` of shape `(batch_size, 3)`, *optional*):
                Position whose next token is the answer, for the questions overall, video, audio; -1 where not asked.
                Defaults to the last token that is not padding, as the overall question.
            input_features, feature_attention_mask, pixel_values_videos, video_grid_thw:
                The clips' log-mel spectra and pixel patches, as for the thinker. Patches that are uint8, as
                [`AVLMMProcessor.collate`] gives them, are normalised here.
            audio_embeds, video_embeds (`torch.FloatTensor` of shape `(tokens, width)`, *optional*):
                What [`~AVLMMForDeepfakeDetection.encode_media`] made of them before, both or neither; the encoders are not
                run. Of a modality that no clip has: no tokens.
            video_second_per_grid, use_audio_in_video:
                Only used where `position_ids` is left out.
            labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                The answer's token ids at their positions, -100 elsewhere. The loss is the language-modelling loss on
                those tokens.
            num_items_in_batch (`int`, *optional*):
                Divisor of the summed loss (answer tokens of the whole optimiser step). Defaults to those given here.

        Returns:
            [`AVDetectionOutput`]
        """
        states, places = self._states(
            input_ids,
            attention_mask,
            position_ids,
            question_ids,
            input_features=input_features,
            feature_attention_mask=feature_attention_mask,
            pixel_values_videos=pixel_values_videos,
            video_grid_thw=video_grid_thw,
            audio_embeds=audio_embeds,
            video_embeds=video_embeds,
            video_second_per_grid=video_second_per_grid,
            use_audio_in_video=use_audio_in_video,
        )

        if answer_positions is None:
            steps = torch.arange(input_ids.shape[1], device=input_ids.device)
            answer_positions = (attention_mask.long() * steps).amax(dim=1, keepdim=True)
        verdicts = self._label_logits(states, places, answer_positions)

        loss = None
        if labels is not None:
            loss = self._answer_loss(states, places, labels, num_items_in_batch)
        return AVDetectionOutput(
            loss=loss, **dict(zip(("logits", "video_logits", "audio_logits"), verdicts, strict=False))
        )

    def _states(
        self, input_ids, attention_mask, position_ids, question_ids, **media
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Last hidden states `(tokens, width)`, and where among them each place `(batch_size, sequence_length)` is."""
        if position_ids is None and question_ids is not None:
            raise ValueError("`question_ids` needs `position_ids`: both come from AVLMMProcessor.")
        if position_ids is None or not packs(self.language_model):
            return self._padded_states(input_ids, attention_mask, position_ids, question_ids, **media)
        tokens, rows = pack_rows(attention_mask, question_ids)
        ids = input_ids[tokens][None]
        states = self.language_model(
            inputs_embeds=self._with_media(ids, **media),
            # Nothing to mask: what a token sees is in `packed_rows`.
            attention_mask={"full_attention": None},
            position_ids=position_ids[:, tokens][:, None],
            use_cache=False,
            packed_rows=rows,
        ).last_hidden_state
        return states[0], tokens.flatten().cumsum(0).view(tokens.shape) - 1

    def encode_media(
        self,
        input_features: torch.FloatTensor | None = None,
        feature_attention_mask: torch.LongTensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_grid_thw: torch.LongTensor | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """
        Runs the encoders and projectors alone.

        Args:
            input_features, feature_attention_mask, pixel_values_videos, video_grid_thw: As for `forward`.

        Returns:
            `tuple`: `audio_embeds` and `video_embeds` of `forward`, each `(tokens, width)`, clip after clip; None where not
            given.
        """
        thinker, sound, picture = self.thinker.model, None, None
        if input_features is not None:
            with gradients_if_needed(self.audio_encoder, input_features):
                sound = thinker.get_audio_features(
                    input_features, feature_attention_mask, return_dict=True
                ).last_hidden_state
        if pixel_values_videos is not None:
            with gradients_if_needed(self.vision_encoder, pixel_values_videos):
                pieces = thinker.get_video_features(
                    normalize_patches(pixel_values_videos), video_grid_thw, return_dict=True
                ).pooler_output
            picture = torch.cat(pieces)
        return sound, picture

    def _with_media(self, ids: torch.Tensor, audio_embeds=None, video_embeds=None, **media) -> torch.Tensor:
        """Embeddings of tokens, their placeholders replaced by what the encoders make, or made, of the clips."""
        embeds = self.get_input_embeddings()(ids)
        if audio_embeds is None and video_embeds is None:
            if torch.distributed.is_available() and torch.distributed.is_initialized() and self.training:
                embeds = embeds + self._absent_modalities(embeds, **media)
            audio_embeds, video_embeds = self.encode_media(**{name: media[name] for name in ENCODER_INPUTS})
        config = self.thinker.model.config
        for what, token, features in (
            ("sound", config.audio_token_id, audio_embeds),
            ("picture", config.video_token_id, video_embeds),
        ):
            if features is not None:
                places = (ids == token)[..., None]
                check_placeholders(what, places, features)
                embeds = embeds.masked_scatter(places, features.to(embeds.device, embeds.dtype))
        return embeds

    def _padded_states(
        self, input_ids, attention_mask, position_ids, question_ids, **media
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[`_states`] by the stock thinker's own way, for other attentions than `sdpa` and for positions it computes."""
        embeds = self._with_media(input_ids, **media)
        mask = attention_mask
        if question_ids is not None:
            attention = self.config.get_text_config()._attn_implementation or "eager"
            if attention not in ("eager", "sdpa", TEXT_ATTENTION):
                raise ValueError(
                    f"Several questions in one pass need attn_implementation 'sdpa' or 'eager', not {attention!r}: "
                    "load the model with one of those, or ask one question at a time."
                )
            mask = question_mask(attention_mask, question_ids, embeds.dtype)
        states = self.thinker.model(
            input_ids=input_ids,
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=position_ids,
            use_cache=False,
            # Of the clips only what positions are computed from: the encoders have run.
            **{name: media[name] for name in POSITION_INPUTS},
        ).last_hidden_state
        places = torch.arange(input_ids.numel(), device=states.device).view(input_ids.shape)
        return states.flatten(0, 1), places

    def _absent_modalities(self, embeds: torch.Tensor, **media) -> torch.Tensor:
        """Zero, computed through every encoder this batch does not use.

        In distributed training all ranks must run the same modules or the collectives of sharded weights and gradients
        wait for each other for ever; a rank whose batch has no sound still runs the audio encoder.
        """
        zero = embeds.new_zeros(())
        if media["input_features"] is None:
            bins = self.config.thinker_config.audio_config.num_mel_bins
            silence = embeds.new_zeros(bins, 8)
            lengths = torch.tensor([8], device=embeds.device)
            zero = zero + 0.0 * self.audio_encoder(silence, feature_lens=lengths).last_hidden_state.sum()
        if media["pixel_values_videos"] is None:
            vision = self.config.thinker_config.vision_config
            side = vision.spatial_merge_size
            size = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
            patches = embeds.new_zeros(side * side, size)
            grid = torch.tensor([[1, side, side]], device=embeds.device)
            zero = zero + 0.0 * self.vision_encoder(patches, grid_thw=grid).pooler_output.sum()
        return zero

    def _label_logits(
        self, states: torch.Tensor, places: torch.Tensor, answer_positions: torch.Tensor
    ) -> list[torch.Tensor | None]:
        """Logits `(batch_size, 2)` for each column of `answer_positions`; None where no clip was asked."""
        asked = answer_positions >= 0
        rows = torch.arange(len(places), device=places.device)[:, None].expand_as(answer_positions)
        answers = states[places[rows[asked], answer_positions[asked]]]
        ids = torch.tensor(self.config.label_token_ids, device=states.device)
        head = self.get_output_embeddings()
        if is_sharded(head.weight):
            # Sharded weights are gathered by the module's own forward, not by indexing.
            values = head(answers)[:, ids]
        else:
            values = F.linear(answers, head.weight[ids], None if head.bias is None else head.bias[ids])
        logits = values.new_full((*answer_positions.shape, 2), float("nan"), dtype=torch.float32)
        logits[asked] = values.float()
        return [logits[:, column] if asked[:, column].any() else None for column in range(asked.shape[1])]

    def _answer_loss(self, states, places, labels, num_items_in_batch) -> torch.Tensor:
        targets = labels[:, 1:]
        rows = targets != IGNORE_INDEX
        logits = self.get_output_embeddings()(states[places[:, :-1][rows]]).float()
        total = F.cross_entropy(logits, targets[rows], reduction="sum")
        count = rows.sum() if num_items_in_batch is None else num_items_in_batch
        return total / torch.as_tensor(count, device=total.device).clamp(min=1)


def gradients_if_needed(encoder: nn.Module, values: torch.Tensor) -> torch.set_grad_enabled:
    """
    Switches gradients off for an encoder in which nothing trains.

    `enable_input_require_grads`, which training with LoRA and recomputed activations calls, asks for gradients of the
    inputs of every encoder too, frozen or not: the backward pass would go through all of it, for nothing.

    Args:
        encoder (`nn.Module`): The encoder.
        values (`torch.Tensor`): Its input; where this needs a gradient, so does the encoder's output.
    """
    needed = values.requires_grad or any(weight.requires_grad for weight in encoder.parameters())
    return torch.set_grad_enabled(needed and torch.is_grad_enabled())


def check_placeholders(what: str, places: torch.Tensor, features: torch.Tensor) -> None:
    """
    Args:
        what (`str`): The media, for the message.
        places (`torch.BoolTensor` of shape `(1, tokens, 1)`): The placeholder tokens.
        features (`torch.Tensor` of shape `(tokens, width)`): What takes their place.

    Raises:
        ValueError: when a batch has more or fewer placeholders than its encoder gives features.
    """
    found = int(places.sum())
    if found != len(features):
        raise ValueError(
            f"The batch has {found} placeholder tokens for {what} but {len(features)} features: "
            "`input_ids` and media do not belong together. Both come from one call of AVLMMProcessor."
        )


def label_token_ids(tokenizer) -> list[int]:
    """
    Vocabulary ids of the answers, ordered `real, fake`.

    Raises:
        ValueError: when an answer is not exactly one token.
    """
    ids = []
    for word in LABEL_WORDS:
        tokens = tokenizer.encode(word, add_special_tokens=False)
        if len(tokens) != 1:
            raise ValueError(
                f"The answer {word!r} is {len(tokens)} tokens ({tokenizer.convert_ids_to_tokens(tokens)}) in this "
                "tokenizer's vocabulary, and the verdict needs it to be exactly one. Use a tokenizer that has it."
            )
        ids.append(tokens[0])
    return ids


def question_mask(
    attention_mask: torch.Tensor, question_ids: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """
    Additive attention mask under which each question sees the clip and itself, but no other question.

    Args:
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`): 1 for tokens, 0 for padding.
        question_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`): 0 for the clip, k for question k.
        dtype (`torch.dtype`): Type of the attention scores.

    Returns:
        `torch.Tensor` of shape `(batch_size, 1, sequence_length, sequence_length)`: 0 where a token is seen, the
        type's lowest value elsewhere.
    """
    length = question_ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=question_ids.device).tril()
    shared = question_ids[:, None, :] == 0
    same = question_ids[:, None, :] == question_ids[:, :, None]
    seen = causal & (shared | same) & attention_mask[:, None, :].bool()
    # A padding row that sees nothing would be 0 / 0.
    seen |= torch.eye(length, dtype=torch.bool, device=seen.device)
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def is_sharded(weight: torch.Tensor) -> bool:
    """Whether a weight is a shard of DeepSpeed ZeRO-3 or FSDP2, which cannot be indexed by rows."""
    if hasattr(weight, "ds_id"):
        return True
    distributed_tensor = (
        importlib.import_module("torch.distributed.tensor") if torch.distributed.is_available() else None
    )
    return distributed_tensor is not None and isinstance(weight, distributed_tensor.DTensor)


__all__ = ["PARTS", "AVLMMForDeepfakeDetection", "AVLMMPreTrainedModel"]

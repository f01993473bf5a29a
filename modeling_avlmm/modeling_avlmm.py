"""AV-LMMDetect: an omni-modal language model whose next token, Real or Fake, is the verdict on a clip.

Method: "Leveraging large multimodal models for audio-video deepfake detection: a pilot study" (arXiv 2602.23393).
Several questions about a clip in one pass are our own addition.
"""

import torch
import torch.nn.functional as F
import transformers
from transformers import AutoTokenizer
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_avlmm import BACKBONES, LABEL_WORDS, AVLMMConfig, known_thinker, split_hub_options
from .configuration_detector import IGNORE_INDEX, PARTS
from .modeling_avlmm_parts import AVLMMPreTrainedModel
from .modeling_avlmm_weights import (
    check_placeholders,
    check_positions,
    gradients_if_needed,
    in_rows,
    is_plain,
)
from .modeling_outputs import AVDetectionOutput
from .modeling_packed_attention import TEXT_ATTENTION, pack_rows

ENCODER_INPUTS = ("input_features", "feature_attention_mask", "pixel_values_videos", "video_grid_thw")


class AVLMMForDeepfakeDetection(AVLMMPreTrainedModel):
    """
    Deepfake detector around the thinker of an omni-modal language model.

    The verdict is the pair of logits of the two label tokens (`Real`, `Fake`) at the answer position, from one forward
    pass without generation. The language head is computed for these two tokens and this position only. With `sdpa`
    attention, the default, the language model skips padding, and windows of one size are one call
    (modeling_packed_attention.py); results are the same up to rounding.

    Args:
        config ([`AVLMMConfig`]): The configuration; `thinker_config` and `label_token_ids` must be set.

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
        config.backbone.settle_attention(config.thinker_config)
        self.thinker = thinker_class._from_config(config.thinker_config)
        self._attend_in_groups()
        self.post_init()
        # The thinker's classes name those of its siblings too, which distributed training would look for.
        self._no_split_modules &= {type(module).__name__ for module in self.modules()}

    @classmethod
    def from_backbone(
        cls, backbone: str, prompts: dict | None = None, **kwargs
    ) -> "AVLMMForDeepfakeDetection":
        """
        Return an untrained detector on an omni checkpoint; its talker and vocoder are not loaded.

        Args:
            backbone (`str`):
                Hub id or folder of an omni checkpoint, e.g. `"Qwen/Qwen2.5-Omni-7B"`, or of its thinker alone.
            prompts (`dict[str, str]`, *optional*):
                Replacements for entries of the published prompts, see [`AVLMMConfig`].
            kwargs:
                Options of the thinker's `from_pretrained`: `dtype`, `device_map`, `attn_implementation`, `revision`, ...

        Raises:
            ValueError: If the backbone is not a known omni model, or an answer is not a single token of its vocabulary.
        """
        hub, _ = split_hub_options(kwargs)
        thinker_config = known_thinker(transformers.AutoConfig.from_pretrained(backbone, **hub), backbone)
        tokenizer = AutoTokenizer.from_pretrained(backbone, **hub)
        omni = BACKBONES[thinker_config.model_type]
        if isinstance(kwargs.get("attn_implementation"), str):
            kwargs["attn_implementation"] = omni.attention(kwargs["attn_implementation"])
        thinker_class = getattr(transformers, omni.thinker_class)
        thinker = thinker_class.from_pretrained(backbone, **kwargs)
        # Read them now: the new configuration, where they are not set, would unset the thinker's.
        attention, experts = thinker.config._attn_implementation, thinker.config._experts_implementation
        detector_config = AVLMMConfig(
            thinker_config=thinker.config, label_token_ids=label_token_ids(tokenizer), prompts=prompts
        )
        detector_config.dtype = thinker.dtype
        detector_config._attn_implementation = attention
        with torch.device("meta"):
            model = cls(detector_config)
        model.thinker = thinker
        model.config.thinker_config = thinker.config
        thinker.config._experts_implementation = experts
        model._attend_in_groups()
        return model.eval()

    def _attend_in_groups(self):
        self.config.backbone.attend_in_groups(self.language_model, [self.vision_encoder, self.audio_encoder])

    # -- forward -----------------------------------------------------------------------------------------------------

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
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
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs,
    ) -> AVDetectionOutput:
        """
        Judge a batch of clips.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
                Prompt with the clip's placeholder tokens, from [`AVLMMProcessor`] or the backbone's own processor. Padding
                may be on either side.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                1 for tokens, 0 for padding. By default there is no padding.
            position_ids (`torch.Tensor` of shape `(3, batch_size, sequence_length)`, *optional*):
                Time, height and width positions, or the place alone, `(1, ...)`, as the backbone has it. By default the thinker computes them; then all clips of a batch must have
                the same modalities.
            question_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                0 for the clip and the text before it, `k` for the tokens of the k-th question. Questions see the clip but
                not one another. Needed if a row holds more than one question; the attention must take a mask (`sdpa` or
                `eager`).
            answer_positions (`torch.LongTensor` of shape `(batch_size, 3)`, *optional*):
                Position before the answer for the questions overall, video and audio; -1 if not asked. Defaults to the
                last token that is not padding, for the overall question.
            input_features, feature_attention_mask, pixel_values_videos, video_grid_thw:
                The clips' log-mel spectra and pixel patches, as for the thinker. uint8 patches, as from
                [`AVLMMProcessor.collate`], are normalised here.
            audio_embeds, video_embeds (`torch.FloatTensor` of shape `(tokens, width)`, *optional*):
                Results of [`~AVLMMForDeepfakeDetection.encode_media`], both or neither; then the encoders do not run. A
                modality that no clip has takes no tokens.
            video_second_per_grid, use_audio_in_video:
                Used only without `position_ids`.
            labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Token ids of the answers at their positions, -100 elsewhere. The loss is the language-modelling loss on
                these tokens.
            num_items_in_batch (`int`, *optional*):
                Divisor of the summed loss: the answer tokens of the whole optimiser step. Defaults to those in this batch.
            output_hidden_states (`bool` or `list[int]`, *optional*):
                Return the language model's hidden states too, or those of some layers. Defaults to the configuration's.
            output_attentions (`bool`, *optional*): Not available: the attention of packed rows is never a matrix.
            return_dict (`bool`, *optional*): False for a tuple. Defaults to the configuration's.

        Returns:
            [`AVDetectionOutput`]: The verdicts, with a loss if there are labels.

        Raises:
            ValueError: If the inputs do not belong together, or attentions are asked for.
        """
        if output_attentions or (output_attentions is None and self.config.output_attentions):
            raise ValueError("This model returns no attentions: set output_attentions=False.")
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        check_positions(position_ids)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        states, places, hidden_states = self._states(
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
            output_hidden_states=output_hidden_states,
        )

        if answer_positions is None:
            steps = torch.arange(input_ids.shape[1], device=input_ids.device)
            answer_positions = (attention_mask.long() * steps).amax(dim=1, keepdim=True)
        verdicts = self._label_logits(states, places, answer_positions)

        loss = None
        if labels is not None:
            loss = self._answer_loss(states, places, labels, num_items_in_batch)
        return AVDetectionOutput(
            loss=loss,
            **dict(zip(("logits", "video_logits", "audio_logits"), verdicts, strict=False)),
            hidden_states=hidden_states,
        )

    def _states(
        self, input_ids, attention_mask, position_ids, question_ids, output_hidden_states=False, **media
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...] | None]:
        """
        Return the last hidden states `(tokens, width)`, the index `(batch_size, sequence_length)` of each token's state, and on
        request the states after every layer, `(batch_size, sequence_length, width)`, 0 for padding.
        """
        if position_ids is None and question_ids is not None:
            raise ValueError("`question_ids` needs `position_ids`: both come from AVLMMProcessor.")
        backbone, text = self.config.backbone, self.language_model.config
        if position_ids is None or text._attn_implementation != TEXT_ATTENTION or not backbone.packs(text):
            output = self._padded_output(
                input_ids, attention_mask, position_ids, question_ids, output_hidden_states, **media
            )
            states = output.last_hidden_state
            places = torch.arange(input_ids.numel(), device=states.device).view(input_ids.shape)
            return states.flatten(0, 1), places, in_rows(output.hidden_states, places, attention_mask.bool())
        tokens, rows = pack_rows(attention_mask, question_ids)
        ids = input_ids[tokens][None]
        embeds, more = self._with_media(ids, **media)
        output = self.language_model(
            inputs_embeds=embeds,
            # No mask: `packed_rows` says what a token sees.
            attention_mask=backbone.packed_mask,
            position_ids=backbone.positions_for_model(position_ids[:, tokens][:, None]),
            use_cache=False,
            packed_rows=rows,
            output_hidden_states=output_hidden_states,
            **more,
        )
        places = tokens.flatten().cumsum(0).view(tokens.shape) - 1
        return output.last_hidden_state[0], places, in_rows(output.hidden_states, places, tokens)

    def encode_media(
        self,
        input_features: torch.FloatTensor | None = None,
        feature_attention_mask: torch.LongTensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_grid_thw: torch.LongTensor | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """
        Run only the encoders and projectors.

        Args:
            input_features, feature_attention_mask, pixel_values_videos, video_grid_thw: As for `forward`.

        Returns:
            `tuple`: `audio_embeds` `(tokens, width)` and `video_embeds` `(tokens, picture_width)` for `forward`, clip after clip;
            None for missing inputs.
        """
        backbone, sound, picture = self.config.backbone, None, None
        if input_features is not None:
            with gradients_if_needed([self.audio_encoder, *self.audio_projectors], input_features):
                sound = backbone.encode_sound(self.thinker, input_features, feature_attention_mask)
        if pixel_values_videos is not None:
            with gradients_if_needed([self.vision_encoder, *self.vision_projectors], pixel_values_videos):
                picture = backbone.encode_picture(self.thinker, pixel_values_videos, video_grid_thw)
        return sound, picture

    def _with_media(
        self, ids: torch.Tensor, audio_embeds=None, video_embeds=None, **media
    ) -> tuple[torch.Tensor, dict]:
        """
        Return the embeddings of tokens, with the clips' embeddings in place of placeholders, and what else the language model
        takes from them.
        """
        backbone = self.config.backbone
        embeds = backbone.embed(self.thinker, ids)
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
                first = features[..., : embeds.shape[-1]]
                embeds = embeds.masked_scatter(places, first.to(embeds.device, embeds.dtype))
        return embeds, backbone.language_inputs(self.thinker, ids, video_embeds)

    def _padded_output(
        self, input_ids, attention_mask, position_ids, question_ids, output_hidden_states, **media
    ) -> BaseModelOutput:
        """Return the output of the stock language model, for other attentions and for positions that the thinker computes."""
        backbone = self.config.backbone
        embeds, more = self._with_media(input_ids, **media)
        if position_ids is None:
            position_ids = backbone.stock_positions(self.thinker, input_ids, embeds, attention_mask, **media)
        mask = attention_mask
        if question_ids is not None:
            text = self.config.get_text_config()
            attention = text._attn_implementation or "eager"
            if attention not in ("eager", "sdpa", TEXT_ATTENTION):
                raise ValueError(
                    f"Several questions in one pass need attn_implementation 'sdpa' or 'eager', not {attention!r}: "
                    "load the model with one of those, or ask one question at a time."
                )
            mask = backbone.questions_mask(text, attention_mask, question_ids, position_ids, embeds.dtype)
        return self.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=backbone.positions_for_model(position_ids),
            use_cache=False,
            output_hidden_states=output_hidden_states,
            **more,
        )

    def _absent_modalities(self, embeds: torch.Tensor, **media) -> torch.Tensor:
        """Return zero, computed through every encoder that this batch does not use.

        In distributed training all ranks must run the same modules, or the collectives of sharded weights and gradients
        wait forever. So a rank whose batch has no sound runs the audio encoder too.
        """
        blank = {}
        if media["input_features"] is None:
            blank |= self.config.backbone.blank_media(self.config.thinker_config, sound=True)
        if media["pixel_values_videos"] is None:
            blank |= self.config.backbone.blank_media(self.config.thinker_config, sound=False)
        blank = {
            name: value.to(embeds.device, embeds.dtype)
            if value.is_floating_point()
            else value.to(embeds.device)
            for name, value in blank.items()
        }
        zero = embeds.new_zeros(())
        for found in self.encode_media(**blank):
            if found is not None:
                zero = zero + 0.0 * found.sum()
        return zero

    def _label_logits(
        self, states: torch.Tensor, places: torch.Tensor, answer_positions: torch.Tensor
    ) -> list[torch.Tensor | None]:
        """Return logits `(batch_size, 2)` for each column of `answer_positions`; None for a question that no clip was asked."""
        asked = answer_positions >= 0
        rows = torch.arange(len(places), device=places.device)[:, None].expand_as(answer_positions)
        answers = states[places[rows[asked], answer_positions[asked]]]
        ids = torch.tensor(self.config.label_token_ids, device=states.device)
        head = self.get_output_embeddings()
        if is_plain(head):
            values = F.linear(answers, head.weight[ids], None if head.bias is None else head.bias[ids])
        else:
            values = head(answers)[:, ids]
        values = self.config.backbone.finish_logits(self.config.get_text_config(), values)
        logits = values.new_full((*answer_positions.shape, 2), float("nan"), dtype=torch.float32)
        logits[asked] = values.to(logits.device, torch.float32)
        return [logits[:, column] if asked[:, column].any() else None for column in range(asked.shape[1])]

    def _answer_loss(self, states, places, labels, num_items_in_batch) -> torch.Tensor:
        targets = labels[:, 1:]
        rows = targets != IGNORE_INDEX
        logits = self.get_output_embeddings()(states[places[:, :-1][rows]])
        logits = self.config.backbone.finish_logits(self.config.get_text_config(), logits).float()
        total = F.cross_entropy(logits, targets[rows], reduction="sum")
        count = rows.sum() if num_items_in_batch is None else num_items_in_batch
        return total / torch.as_tensor(count, device=total.device).clamp(min=1)


def label_token_ids(tokenizer) -> list[int]:
    """
    Return the vocabulary ids of the answers, ordered `real, fake`.

    Raises:
        ValueError: If an answer is not exactly one token.
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


__all__ = ["PARTS", "AVLMMForDeepfakeDetection", "AVLMMPreTrainedModel"]

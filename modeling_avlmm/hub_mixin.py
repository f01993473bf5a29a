"""Save a detector together with its code, its pipeline entry and its Auto class."""

from collections.abc import Iterable
from pathlib import Path

PIPELINE_TASK = "av-deepfake-detection"


def custom_pipelines() -> dict:
    """
    Return the `custom_pipelines` entry of a published configuration, which `pipeline()` reads.

    `transformers` copies a model's file together with every file that it imports relatively, even inside a function.
    The import below is what makes the pipeline, and all that the pipeline needs, part of every saved detector.
    """
    from .pipeline_avd import AVDeepfakeDetectionPipeline

    module = AVDeepfakeDetectionPipeline.__module__.rpartition(".")[2]
    return {
        PIPELINE_TASK: {
            "impl": f"{module}.{AVDeepfakeDetectionPipeline.__name__}",
            # `transformers` looks this name up in itself, so it is AutoModel and not our own Auto class.
            "pt": ["AutoModel"],
            "type": "multimodal",
        }
    }


def check_nothing_missing(names: Iterable[str]) -> None:
    """Raise a `ValueError` for weights that a detector's file lacks: they would be random, and so would its verdicts."""
    if missing := sorted(names):
        raise ValueError(
            f"the file lacks {len(missing)} of the detector's weights, such as {missing[0]}: it is damaged, or was saved "
            "with other settings"
        )


class AVDetectionHubMixin:
    """
    Save a detector so that it loads from a folder or Hub repository, pipeline included, without this package.

    The processor is saved by its own `save_pretrained`, or together with the model by the pipeline's.
    """

    _auto_class = "AutoModel"  # what is saved names, and brings, its own code

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """
        Load a detector; see [`~transformers.PreTrainedModel.from_pretrained`].

        Raises:
            ValueError: If its file lacks weights, which would be random. With `output_loading_info`, it tells them instead.
        """
        wanted = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        if not wanted:
            check_nothing_missing(info["missing_keys"])
        return (model, info) if wanted else model

    def save_pretrained(self, save_directory: str | Path, **kwargs) -> None:
        # Names in the file are the modules' own: a trainer that resumes loads them without renaming.
        kwargs.setdefault("save_original_format", False)
        # Read from `vars`: a configuration has this field only while it is saved, or if it was loaded as remote code.
        before = vars(self.config).get("custom_pipelines")
        self.config.custom_pipelines = custom_pipelines()
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            if before is None:
                del self.config.custom_pipelines
            else:
                self.config.custom_pipelines = before

"""Save a detector together with its code, its pipeline entry and its Auto class."""

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


class AVDetectionHubMixin:
    """
    Save a detector so that it loads from a folder or Hub repository, pipeline included, without this package.

    The processor is saved by its own `save_pretrained`, or together with the model by the pipeline's.
    """

    _auto_class = "AutoModel"  # what is saved names, and brings, its own code

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

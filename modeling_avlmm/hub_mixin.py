"""What every detector needs to travel to the Hub: its code, its pipeline entry, its Auto class."""

PIPELINE_TASK = "av-deepfake-detection"


def custom_pipelines() -> dict:
    """The `custom_pipelines` entry of a published configuration, which `pipeline()` reads.

    `transformers` copies a model's file together with every file that it imports relatively, also inside a function:
    this import is what makes the pipeline, and all that it needs, part of every saved detector.
    """
    from .pipeline_avd import AVDeepfakeDetectionPipeline

    module = AVDeepfakeDetectionPipeline.__module__.rpartition(".")[2]
    return {
        PIPELINE_TASK: {
            "impl": f"{module}.{AVDeepfakeDetectionPipeline.__name__}",
            # Looked up by name in `transformers` itself, so this is AutoModel and not our own Auto class.
            "pt": ["AutoModel"],
            "type": "multimodal",
        }
    }


class AVDetectionHubMixin:
    """
    Saves a detector so that a folder or Hub repository loads, pipeline included, without this package.

    The processor is saved beside it by its own `save_pretrained`, or with the model by the pipeline's.
    """

    _auto_class = "AutoModel"  # what is saved names, and brings, its own code

    def save_pretrained(self, save_directory, **kwargs):
        # Names in the file are the modules' own: a trainer that resumes loads them without renaming.
        kwargs.setdefault("save_original_format", False)
        before = getattr(self.config, "custom_pipelines", None)
        self.config.custom_pipelines = custom_pipelines()
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            if before is None:
                del self.config.custom_pipelines
            else:
                self.config.custom_pipelines = before

"""What every detector needs to travel to the Hub: its code, its pipeline entry, its Auto class."""

import shutil
from pathlib import Path

PIPELINE_TASK = "av-deepfake-detection"

CUSTOM_PIPELINES = {
    PIPELINE_TASK: {
        "impl": "pipeline_avd.AVDeepfakeDetectionPipeline",
        # Looked up by name in `transformers` itself, so this is AutoModel and not our own Auto class.
        "pt": ["AutoModel"],
        "type": "multimodal",
    }
}


class AVDetectionHubMixin:
    """
    Saves a detector so that a folder or Hub repository loads without this package.

    `transformers` copies the model's own file and what it imports; the pipeline is a separate entry point, so this
    adds the rest of the published room and the `custom_pipelines` entry of the configuration.
    """

    def save_pretrained(self, save_directory, **kwargs):
        self.config.custom_pipelines = CUSTOM_PIPELINES
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            del self.config.custom_pipelines
        if self._auto_class is not None:
            copy_published_code(save_directory)


def copy_published_code(save_directory: str | Path) -> list[Path]:
    """Copies every module of the published room (the flat files beside this one) into `save_directory`."""
    copied = []
    for source in sorted(Path(__file__).parent.glob("*.py")):
        if source.name.startswith("_") or source.name in ("hub.py", "auto.py"):
            continue
        copied.append(Path(shutil.copyfile(source, Path(save_directory) / source.name)))
    return copied

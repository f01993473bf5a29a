"""Register the package with `transformers` without importing it.

Each registry of `transformers` gets our entries right after it was imported, or at once if it already is. They stand
for classes that are imported when they are first used: a hook can run in the middle of an import, ours included, and
must import nothing that is not ready yet. Configurations are the exception; they only need other configurations.
"""

from importlib import import_module
from types import ModuleType
from typing import Any

import wrapt

from ..hub_mixin import PIPELINE_TASK
from .default_model import default_model

PACKAGE = __name__.partition(".")[0]
SYSTEMS = {"avlmm": "AVLMM", "avpl": "AVPL", "ssavd": "SSAVD"}
"""The `model_type` of each detector, also the end of its modules' names -> the beginning of its classes' names."""


def register() -> None:
    """Make the package known to `AutoConfig`, `AutoModel`, `AutoProcessor` and `pipeline`, now or once they are imported."""
    wrapt.register_post_import_hook(_add_configurations, "transformers.models.auto.configuration_auto")
    wrapt.register_post_import_hook(_add_models, "transformers.models.auto.modeling_auto")
    wrapt.register_post_import_hook(_add_processors, "transformers.models.auto.processing_auto")
    wrapt.register_post_import_hook(_add_pipeline, "transformers.pipelines")


def _add_configurations(registry: ModuleType) -> None:
    for system, prefix in SYSTEMS.items():
        config = _later(f"configuration_{system}", f"{prefix}Config")
        registry.CONFIG_MAPPING.register(system, config, exist_ok=True)


def _add_models(registry: ModuleType) -> None:
    for system, prefix in SYSTEMS.items():
        model = _later(f"modeling_{system}", f"{prefix}ForDeepfakeDetection")
        registry.MODEL_MAPPING.register(_configuration(system), model, exist_ok=True)


def _add_processors(registry: ModuleType) -> None:
    for system, prefix in SYSTEMS.items():
        processor = _later(f"processing_{system}", f"{prefix}Processor")
        registry.PROCESSOR_MAPPING.register(_configuration(system), processor, exist_ok=True)


def _add_pipeline(registry: ModuleType) -> None:
    # As `register_pipeline` does it, which would also import the pipeline, to set an attribute that only its own
    # `save_pretrained` reads.
    registry.PIPELINE_REGISTRY.supported_tasks[PIPELINE_TASK] = {
        "impl": _later("inference.pipeline", "AVDeepfakeDetectionPipeline"),
        "pt": (_later("inference.auto", "AutoModelForAVDeepfakeDetection"),),
        # Name and revision of the default; the environment variable is read here, once.
        "default": {"model": (default_model(), None)},
        "type": "multimodal",
    }


def _later(module: str, name: str) -> Any:
    """Return a stand-in for one of our classes, which is imported when it is first used."""
    return wrapt.lazy_import(f"{PACKAGE}.{module}", name)


def _configuration(system: str) -> type:
    return getattr(import_module(f"{PACKAGE}.configuration_{system}"), f"{SYSTEMS[system]}Config")

"""Register the package with `transformers` without importing anything of either.

Each registry of `transformers` gets our entries right after it was imported, or at once if it already is. This can
happen in the middle of another import, ours included, so nothing may be imported then: entries stand for classes that
are imported when they are first used. Models and processors are listed under their configuration's class, and so have
to wait until that is imported. Nobody can have a configuration before.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import wrapt

from ..hub_mixin import PIPELINE_TASK
from .default_model import default_model

PACKAGE = __name__.partition(".")[0]
SYSTEMS = {"avlmm": "AVLMM", "avpl": "AVPL", "facevoice": "FaceVoice", "ssavd": "SSAVD"}
"""The `model_type` of each detector, in which its modules' names end -> what its classes' names begin with."""

CONFIGURATIONS = "transformers.models.auto.configuration_auto"
MODELS = "transformers.models.auto.modeling_auto"
PROCESSORS = "transformers.models.auto.processing_auto"
PIPELINES = "transformers.pipelines"


def register() -> None:
    """Make the package known to `AutoConfig`, `AutoModel`, `AutoProcessor` and `pipeline`, now or once they are imported."""
    wrapt.register_post_import_hook(_add_configurations, CONFIGURATIONS)
    wrapt.register_post_import_hook(_add_processor_names, PROCESSORS)
    wrapt.register_post_import_hook(_add_pipeline, PIPELINES)
    for module in (MODELS, PROCESSORS, *(f"{PACKAGE}.configuration_{system}" for system in SYSTEMS)):
        wrapt.register_post_import_hook(_add_models_and_processors, module)


def _add_configurations(registry: ModuleType) -> None:
    for system, prefix in SYSTEMS.items():
        config = _Later(f"configuration_{system}", f"{prefix}Config")
        registry.CONFIG_MAPPING.register(system, config, exist_ok=True)


def _add_processor_names(registry: ModuleType) -> None:
    # `AutoProcessor` looks for the class's name, which a checkpoint states, among all values; the key is never asked for.
    for system, prefix in SYSTEMS.items():
        processor = _Later(f"processing_{system}", f"{prefix}Processor")
        registry.PROCESSOR_MAPPING.register(system, processor, exist_ok=True)


def _add_models_and_processors(_: ModuleType) -> None:
    """List what belongs to the configurations that are imported by now, in the registries that are."""
    for system, prefix in SYSTEMS.items():
        config = _imported(f"{PACKAGE}.configuration_{system}", f"{prefix}Config")
        if config is None:
            continue
        if (models := _imported(MODELS, "MODEL_MAPPING")) is not None:
            model = _Later(f"modeling_{system}", f"{prefix}ForDeepfakeDetection")
            models.register(config, model, exist_ok=True)
        if (processors := _imported(PROCESSORS, "PROCESSOR_MAPPING")) is not None:
            processor = _Later(f"processing_{system}", f"{prefix}Processor")
            processors.register(config, processor, exist_ok=True)


def _add_pipeline(registry: ModuleType) -> None:
    # As `register_pipeline` does it, which would also import the pipeline, to set an attribute that only its own
    # `save_pretrained` reads.
    registry.PIPELINE_REGISTRY.supported_tasks[PIPELINE_TASK] = {
        "impl": _Later("inference.pipeline", "AVDeepfakeDetectionPipeline"),
        "pt": (_Later("inference.auto", "AutoModelForAVDeepfakeDetection"),),
        # Name and revision of the default; the environment variable is read here, once.
        "default": {"model": (default_model(), None)},
        "type": "multimodal",
    }


class _Later(wrapt.LazyObjectProxy):
    """A stand-in for one of our classes, which is imported when it is first used. Its name is known before."""

    def __new__(cls, module: str, name: str):
        return super().__new__(cls, interface=Callable)

    def __init__(self, module: str, name: str):
        super().__init__(lambda: getattr(import_module(f"{PACKAGE}.{module}"), name))
        self._self_name = name

    @property
    def __name__(self) -> str:
        return self._self_name


def _imported(module: str, name: str) -> Any:
    """Return an attribute of a module, or None while either is not there yet."""
    return getattr(sys.modules.get(module), name, None)

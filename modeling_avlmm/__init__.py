"""Audio-visual deepfake detection for the Hugging Face ecosystem.

Importing this package makes its models known to the Auto classes of `transformers`, its pipeline
`av-deepfake-detection` to `pipeline`, and its datasets to `load_dataset`. The import is cheap: `transformers` and
`datasets` are told once they are imported themselves, and the names below are imported when they are first used. Import it
before PyTorch, so that PyTorch's threads wait without spinning (`inference.threads`).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import dataset_scripts

from .inference import registration, threads

if TYPE_CHECKING:
    from .configuration_avlmm import AVLMMConfig
    from .configuration_avpl import AVPLConfig
    from .configuration_facevoice import FaceVoiceConfig
    from .configuration_ssavd import SSAVDConfig
    from .dialogue.analyst import AVAnalyst
    from .inference.auto import AutoModelForAVDeepfakeDetection
    from .inference.pipeline import AVDeepfakeDetectionPipeline
    from .media import Clip, MediaError, MediaReader
    from .modeling_avlmm import AVLMMForDeepfakeDetection
    from .modeling_avpl import AVPLForDeepfakeDetection
    from .modeling_facevoice import FaceVoiceForDeepfakeDetection
    from .modeling_outputs import AVDetectionOutput
    from .modeling_ssavd import SSAVDForDeepfakeDetection
    from .processing_avlmm import AVLMMProcessor, Question
    from .processing_avpl import AVPLProcessor
    from .processing_facevoice import FaceVoiceProcessor
    from .processing_ssavd import SSAVDProcessor

    __version__: str

__all__ = [
    "AVAnalyst",
    "AVDeepfakeDetectionPipeline",
    "AVDetectionOutput",
    "AVLMMConfig",
    "AVLMMForDeepfakeDetection",
    "AVLMMProcessor",
    "AVPLConfig",
    "AVPLForDeepfakeDetection",
    "AVPLProcessor",
    "AutoModelForAVDeepfakeDetection",
    "Clip",
    "FaceVoiceConfig",
    "FaceVoiceForDeepfakeDetection",
    "FaceVoiceProcessor",
    "MediaError",
    "MediaReader",
    "Question",
    "SSAVDConfig",
    "SSAVDForDeepfakeDetection",
    "SSAVDProcessor",
]

_MODULES = {
    "AVAnalyst": "dialogue.analyst",
    "AVDeepfakeDetectionPipeline": "inference.pipeline",
    "AVDetectionOutput": "modeling_outputs",
    "AVLMMConfig": "configuration_avlmm",
    "AVLMMForDeepfakeDetection": "modeling_avlmm",
    "AVLMMProcessor": "processing_avlmm",
    "AVPLConfig": "configuration_avpl",
    "AVPLForDeepfakeDetection": "modeling_avpl",
    "AVPLProcessor": "processing_avpl",
    "AutoModelForAVDeepfakeDetection": "inference.auto",
    "Clip": "media",
    "FaceVoiceConfig": "configuration_facevoice",
    "FaceVoiceForDeepfakeDetection": "modeling_facevoice",
    "FaceVoiceProcessor": "processing_facevoice",
    "MediaError": "media",
    "MediaReader": "media",
    "Question": "processing_avlmm",
    "SSAVDConfig": "configuration_ssavd",
    "SSAVDForDeepfakeDetection": "modeling_ssavd",
    "SSAVDProcessor": "processing_ssavd",
}
"""Module of each public name. The block for type checkers above says the same in their language."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value = import_module("importlib.metadata").version("modeling-avlmm")
    elif name in _MODULES:
        value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


threads.choose_threads()
registration.register()
dataset_scripts.register()

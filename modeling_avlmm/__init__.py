"""Audio-visual deepfake detection for the Hugging Face ecosystem.

Importing this package registers its models with the Auto classes of `transformers`, the pipeline
`av-deepfake-detection`, and its datasets with `load_dataset`.
"""

from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

import dataset_scripts

from .configuration_avlmm import AVLMMConfig
from .configuration_avpl import AVPLConfig
from .configuration_ssavd import SSAVDConfig
from .hub_mixin import PIPELINE_TASK
from .inference.auto import AutoModelForAVDeepfakeDetection, default_model
from .media import Clip, MediaError, MediaReader
from .modeling_avlmm import AVLMMForDeepfakeDetection
from .modeling_avpl import AVPLForDeepfakeDetection
from .modeling_outputs import AVDetectionOutput
from .modeling_ssavd import SSAVDForDeepfakeDetection
from .pipeline_avd import AVDeepfakeDetectionPipeline
from .processing_avlmm import AVLMMProcessor, Question
from .processing_avpl import AVPLProcessor
from .processing_ssavd import SSAVDProcessor

__version__ = "0.1.0"

for _config, _model, _processor in (
    (AVLMMConfig, AVLMMForDeepfakeDetection, AVLMMProcessor),
    (AVPLConfig, AVPLForDeepfakeDetection, AVPLProcessor),
    (SSAVDConfig, SSAVDForDeepfakeDetection, SSAVDProcessor),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)
    AutoModelForAVDeepfakeDetection.register(_config, _model, exist_ok=True)
    AutoProcessor.register(_config, _processor, exist_ok=True)
    # What is saved names its own code, so that it loads where this package is not installed.
    _config.register_for_auto_class()
    _model.register_for_auto_class("AutoModel")
    _processor.register_for_auto_class("AutoProcessor")

if PIPELINE_TASK not in PIPELINE_REGISTRY.supported_tasks:
    PIPELINE_REGISTRY.register_pipeline(
        PIPELINE_TASK,
        pipeline_class=AVDeepfakeDetectionPipeline,
        pt_model=AutoModelForAVDeepfakeDetection,
        # Name and revision of what is loaded where none is named; the environment is read here, once.
        default={"model": (default_model(), None)},
        type="multimodal",
    )

dataset_scripts.register()

__all__ = [
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
    "MediaError",
    "MediaReader",
    "Question",
    "SSAVDConfig",
    "SSAVDForDeepfakeDetection",
    "SSAVDProcessor",
]

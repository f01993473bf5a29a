"""One Auto class for every detector of this package, and the one that is taken where none is named."""

import os
from collections import OrderedDict
from pathlib import Path

from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping, auto_class_update
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

DEFAULT_MODEL = "AVLMM_DEFAULT_MODEL"
"""Environment variable that names the user's own default: a folder or Hub id."""

EMBEDDED_MODEL = Path(__file__).parents[1] / "default_model"
"""A small demonstration detector that is part of the package, for a first result without a download."""

MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


class AutoModelForAVDeepfakeDetection(_BaseAutoModelClass):
    _model_mapping = MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING


AutoModelForAVDeepfakeDetection = auto_class_update(
    AutoModelForAVDeepfakeDetection, head_doc="audio-visual deepfake detection"
)


def default_model() -> str:
    """Folder or Hub id of the detector that is used where none is named."""
    return os.environ.get(DEFAULT_MODEL) or str(EMBEDDED_MODEL)

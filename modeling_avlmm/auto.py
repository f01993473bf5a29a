"""One Auto class for every detector of this package."""

from collections import OrderedDict

from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping, auto_class_update
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


class AutoModelForAVDeepfakeDetection(_BaseAutoModelClass):
    _model_mapping = MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING


AutoModelForAVDeepfakeDetection = auto_class_update(
    AutoModelForAVDeepfakeDetection, head_doc="audio-visual deepfake detection"
)

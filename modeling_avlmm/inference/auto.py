"""`AutoModelForAVDeepfakeDetection`, which loads every detector of this package."""

from collections import OrderedDict

from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping, auto_class_update
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from ..configuration_avlmm import AVLMMConfig
from ..configuration_avpl import AVPLConfig
from ..configuration_facevoice import FaceVoiceConfig
from ..configuration_ssavd import SSAVDConfig
from ..modeling_avlmm import AVLMMForDeepfakeDetection
from ..modeling_avpl import AVPLForDeepfakeDetection
from ..modeling_facevoice import FaceVoiceForDeepfakeDetection
from ..modeling_ssavd import SSAVDForDeepfakeDetection

MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING = _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


class AutoModelForAVDeepfakeDetection(_BaseAutoModelClass):
    _model_mapping = MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING


AutoModelForAVDeepfakeDetection = auto_class_update(
    AutoModelForAVDeepfakeDetection, head_doc="audio-visual deepfake detection"
)
AutoModelForAVDeepfakeDetection.register(AVLMMConfig, AVLMMForDeepfakeDetection)
AutoModelForAVDeepfakeDetection.register(AVPLConfig, AVPLForDeepfakeDetection)
AutoModelForAVDeepfakeDetection.register(FaceVoiceConfig, FaceVoiceForDeepfakeDetection)
AutoModelForAVDeepfakeDetection.register(SSAVDConfig, SSAVDForDeepfakeDetection)

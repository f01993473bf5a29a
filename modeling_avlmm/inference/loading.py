"""Loading a detector by name, with errors that say what to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AutoConfig, pipeline
from transformers.utils import logging

from ..hub_mixin import PIPELINE_TASK
from ..modeling_avlmm import AVLMMForDeepfakeDetection
from ..pipeline_avd import AVDeepfakeDetectionPipeline
from ..processing_avlmm import AVLMMProcessor
from .auto import MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING
from .onnx_detector import graph_files
from .onnx_model import ONNXModel
from .places import DetectorError, faults_of_model, missing_folder

__all__ = ["DetectorError", "load_detector", "without_loading_bar"]


def load_detector(
    model: str,
    device: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    gate: str | None = None,
    gate_band: tuple[float, float] | None = None,
) -> tuple[AVDeepfakeDetectionPipeline, bool]:
    """
    Load the pipeline of a detector or of an untrained omni backbone, behind a gate if one is named.

    Args:
        model (`str`): Folder or Hub id of a detector, exported or not, or of an omni backbone.
        device (`str`, *optional*): Such as `"cpu"` or `"cuda:1"`. Defaults to an accelerator where there is one.
        dtype (`str`, *optional*, defaults to `"auto"`): Type of the weights, such as `"bfloat16"`.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run the code in the model's repository.
        gate (`str`, *optional*): Folder or Hub id of a small detector, see [`Gate`].
        gate_band (`tuple[float, float]`, *optional*): Scores outside of it are the gate's to answer.

    Returns:
        `tuple[AVDeepfakeDetectionPipeline, bool]`: the pipeline, and whether the model is a backbone that was never
        trained to detect anything.

    Raises:
        DetectorError: for a model that cannot be loaded, or an unknown device or type.
    """
    try:
        place = None if device is None else torch.device(device)
    except RuntimeError as error:
        raise DetectorError(f"device {device!r} is not known: use cpu, cuda, cuda:1, mps, ...") from error
    if dtype != "auto" and not _is_floating_type(dtype):
        raise DetectorError(f"dtype {dtype!r} is not known: use auto, float32, bfloat16 or float16.")
    if absent := missing_folder(model):
        raise DetectorError(absent)
    exported = bool(graph_files(model))
    if exported and place is not None and place.type != "cpu":
        raise DetectorError(f"{model} is an exported detector, which runs on the CPU: leave the device out.")
    with faults_of_model(model):
        config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
        options = {"device": place, "trust_remote_code": trust_remote_code or None}
        if gate is not None:
            first, _ = load_detector(gate, device, dtype, trust_remote_code)
            options |= {"gate": first, "gate_band": gate_band}
        known = {config_class.model_type for config_class in MODEL_FOR_AV_DEEPFAKE_DETECTION_MAPPING}
        if exported:
            network = ONNXModel(model)
            options["device"] = "cpu"
            return pipeline(
                PIPELINE_TASK, model=network, processor=network.detector.processor, **options
            ), False
        # A published configuration that the package does not know names its own pipeline.
        if config.model_type in known or "custom_pipelines" in vars(config):
            return pipeline(PIPELINE_TASK, model=str(model), dtype=dtype, **options), False
        detector = AVLMMForDeepfakeDetection.from_backbone(str(model), dtype=dtype)
        processor = AVLMMProcessor.from_backbone(str(model))
        return pipeline(PIPELINE_TASK, model=detector, processor=processor, **options), True


@contextmanager
def without_loading_bar() -> Iterator[None]:
    """Load a small network without the progress bar of `transformers`, which would be gone before it can be read."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _is_floating_type(name: str) -> bool:
    kind = getattr(torch, name, None)
    return isinstance(kind, torch.dtype) and kind.is_floating_point

"""The graphs of each system that is exported: from a batch to logits, without a network in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ..configuration_detector import LOGITS
from ..configuration_facevoice import FaceVoiceConfig
from ..configuration_ssavd import SSAVDConfig
from ..modeling_verdicts import part_verdicts
from .onnx_engines import Runner, open_graph

INPUTS = ("pixel_values", "audio_values", "frame_mask", "audio_mask")
CROPS = 5
"""Face crops that OpenVINO takes at once: one second of video, and none is computed in vain."""


class SSAVDGraph:
    """SSAVD: one graph from a batch to all logits."""

    files: ClassVar[tuple[str, ...]] = ("model.onnx",)

    def __init__(self, paths: Sequence[Path], config: SSAVDConfig, **options):
        self._run: Runner = open_graph(paths[0], output_names(config), **options)
        self.config = config

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return dict(zip(output_names(self.config), self._run(arrays(inputs)), strict=True))


class FaceVoiceGraphs:
    """facevoice: a graph for face crops and one for sounds, whose log-odds are pooled, calibrated and compared here."""

    files: ClassVar[tuple[str, ...]] = ("picture.onnx", "sound.onnx")

    def __init__(self, paths: Sequence[Path], config: FaceVoiceConfig, **options):
        self._picture: Runner = open_graph(paths[0], ["log_odds"], rows=CROPS, **options)
        self._sound: Runner = open_graph(paths[1], ["log_odds"], **options)
        self.config = config

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        given = arrays(inputs)
        frame_mask, heard = given["frame_mask"].astype(bool), given["audio_mask"].astype(bool)
        has_audio = heard.any(1)
        frames = np.zeros(frame_mask.shape, np.float32)
        sounds = np.zeros(len(frames), np.float32)
        if frame_mask.any():  # padding is not computed
            frames[frame_mask] = self._picture({"frames": given["pixel_values"][frame_mask]})[0]
        if has_audio.any():
            sounds[has_audio] = self._sound(
                {"audio": given["audio_values"][has_audio], "mask": heard[has_audio]}
            )[0]
        output = part_verdicts(
            *(torch.from_numpy(values) for values in (frames, sounds, frame_mask, has_audio)), self.config
        )
        return {name: output[name].numpy() for name in (*LOGITS.values(), "frame_logits")}


GRAPHS = {SSAVDConfig.model_type: SSAVDGraph, FaceVoiceConfig.model_type: FaceVoiceGraphs}
"""Of each system that can be exported."""


def output_names(config: SSAVDConfig) -> list[str]:
    """Return the names of SSAVD's outputs: without heads for picture and sound there is only `logits`."""
    return list(LOGITS.values()) if config.stream_heads else [LOGITS["overall"]]


def arrays(inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the inputs of a detector as arrays."""
    return {name: np.asarray(inputs[name]) for name in INPUTS}

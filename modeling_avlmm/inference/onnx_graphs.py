"""The graphs of each system that is exported: from a batch to logits on onnxruntime, without a network in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ..configuration_detector import LOGITS
from ..configuration_facevoice import FaceVoiceConfig
from ..configuration_ssavd import SSAVDConfig
from ..modeling_verdicts import part_verdicts
from .places import DetectorError

INPUTS = ("pixel_values", "audio_values", "frame_mask", "audio_mask")

Runner = Callable[[dict[str, np.ndarray]], list[np.ndarray]]
"""From arrays by name, of any number of rows, to the graph's outputs."""


class ONNXExportError(DetectorError):
    """An export that cannot be made or run, or that does not compute what the model computes."""


def open_graph(path: Path, outputs: Sequence[str], threads: int | None = None) -> Runner:
    """
    Return a function that runs a graph.

    Args:
        path (`Path`): The `.onnx` file.
        outputs (`Sequence[str]`): Names of the outputs, in the order in which they are returned.
        threads (`int`, *optional*): Threads of one pass. Defaults to PyTorch's number.

    Raises:
        ONNXExportError: If onnxruntime cannot be imported, or the file is no graph with these outputs.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ONNXExportError("onnxruntime cannot be imported. Run `pip install onnxruntime`.") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: its optimizer warns of every constant that it leaves alone
    options.intra_op_num_threads = threads or torch.get_num_threads()
    # Threads that spin while they wait take the cores from decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # As bytes: then it reads no other file, and its path may have any name.
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own types have no common base
        raise ONNXExportError(f"{path} cannot be loaded: {_first_line(error)}. Export it again.") from error
    found = {output.name for output in session.get_outputs()}
    if absent := sorted(set(outputs) - found):
        raise ONNXExportError(f"{path} is not the graph of this detector: it has no output {absent[0]!r}.")

    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        try:
            return session.run(list(outputs), inputs)
        except Exception as error:
            raise ONNXExportError(f"{path} cannot be run: {_first_line(error)}. Export it again.") from error

    return run


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


class SSAVDGraph:
    """SSAVD: one graph from a batch to all logits."""

    files: ClassVar[tuple[str, ...]] = ("model.onnx",)

    def __init__(self, paths: Sequence[Path], config: SSAVDConfig, threads: int | None = None):
        self._run: Runner = open_graph(paths[0], output_names(config), threads)
        self.config = config

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return dict(zip(output_names(self.config), self._run(arrays(inputs)), strict=True))


class FaceVoiceGraphs:
    """facevoice: a graph for face crops and one for sounds, whose log-odds are pooled, calibrated and compared here."""

    files: ClassVar[tuple[str, ...]] = ("picture.onnx", "sound.onnx")

    def __init__(self, paths: Sequence[Path], config: FaceVoiceConfig, threads: int | None = None):
        self._picture: Runner = open_graph(paths[0], ["log_odds"], threads)
        self._sound: Runner = open_graph(paths[1], ["log_odds"], threads)
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

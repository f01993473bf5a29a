"""A detector on onnxruntime or OpenVINO: SSAVD without a network in PyTorch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..configuration_detector import LOGITS
from ..configuration_ssavd import SSAVDConfig
from ..media import Clip
from ..modeling_outputs import score_columns
from ..pipeline_avd import calibrated_scores
from ..processing_ssavd import SSAVDProcessor

INPUTS = ("pixel_values", "audio_values", "frame_mask", "audio_mask")
MODEL_FILE, INT8_FILE = "model.onnx", "model_int8.onnx"
ENGINES = ("onnxruntime", "openvino")


class ONNXExportError(ValueError):
    """An export that cannot be made or run, or that does not compute what the model computes."""


class ONNXDetector:
    """
    A detector from a folder that [`export_onnx`] wrote. PyTorch loads no weights.

    ```python
    >>> from modeling_avlmm.inference.onnx_detector import ONNXDetector

    >>> detector = ONNXDetector("exported/ssavd", threads=2)
    >>> detector(["clip.mp4"])
    [{'score': 0.97, 'video_score': 0.99, 'audio_score': 0.12}]
    ```

    Args:
        folder (`str` or `Path`): The folder.
        int8 (`bool`, *optional*, defaults to `False`): Use `model_int8.onnx`.
        threads (`int`, *optional*): Threads of one pass. Defaults to the number of cores.
        engine (`str`, *optional*, defaults to `"onnxruntime"`):
            Engine that runs the network. `"openvino"` is about twice as fast on x86 processors, in float32 too
            (`benchmarks/ssavd_streaming.py`). It takes one clip at a time and no 8-bit weights.

    Raises:
        ONNXExportError: If the file is missing, or the engine is missing or unknown.
    """

    def __init__(
        self,
        folder: str | Path,
        int8: bool = False,
        threads: int | None = None,
        engine: str = "onnxruntime",
    ):
        if engine not in ENGINES:
            raise ONNXExportError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}.")
        if int8 and engine == "openvino":
            raise ONNXExportError("int8=True needs engine='onnxruntime'.")
        path = Path(folder) / (INT8_FILE if int8 else MODEL_FILE)
        if not path.is_file():
            how = "python -m modeling_avlmm onnx --model MODEL --to DIR" + " --int8" * int8
            raise ONNXExportError(f"{path}: there is no such file. Write it with `{how}`.")
        self.config = SSAVDConfig.from_pretrained(folder)
        self.processor = SSAVDProcessor.from_pretrained(folder)
        self._run = (_onnxruntime if engine == "onnxruntime" else _openvino)(path, self.config, threads)

    def logits(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """
        Run the network.

        Args:
            inputs (`Mapping`): Result of the processor, as tensors or arrays. `questions` is not needed.

        Returns:
            `dict[str, np.ndarray]`: `logits` and, with heads for them, `video_logits` and `audio_logits`, each `(B, 2)`.
        """
        return dict(zip(output_names(self.config), self._run(arrays(inputs)), strict=True))

    def scores(self, inputs: Mapping[str, Any]) -> dict[str, list[float | None]]:
        """Return P(fake) of each clip, not calibrated, under the pipeline's names; None for a part that is absent."""
        return score_columns(self.logits(inputs))

    def __call__(self, clips: list[Any | Clip], temperature: float | None = None) -> list[dict]:
        """
        Score clips in one batch, each at most `processor.max_seconds` long. [`StreamingDetector`] reads longer ones.

        Args:
            clips (`list`): Paths, bytes, arrays or [`Clip`]s, in any form that [`MediaReader`] opens.
            temperature (`float`, *optional*): Divisor of the log-odds. Defaults to the detector's own.

        Returns:
            `list[dict]`: `score`, `video_score` and `audio_score` of each clip, in [0, 1]; None for a part that is absent.
        """
        columns = self.scores(self.processor(list(clips)))
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        return [calibrated_scores(row, self.config, temperature) for row in rows]


Runner = Callable[[dict[str, np.ndarray]], list[np.ndarray]]


def _onnxruntime(path: Path, config: SSAVDConfig, threads: int | None) -> Runner:
    try:
        import onnxruntime
    except ImportError as error:
        raise ONNXExportError("onnxruntime cannot be imported. Run `pip install onnxruntime`.") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: its optimizer warns of every constant that it leaves alone
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = output_names(config)
    return lambda inputs: session.run(names, inputs)


def _openvino(path: Path, config: SSAVDConfig, threads: int | None) -> Runner:
    try:
        import openvino
    except ImportError as error:
        raise ONNXExportError("openvino cannot be imported. Run `pip install openvino`.") from error
    model = openvino.Core().read_model(path)
    # With a batch of any size every clip takes half as long again: known shapes are planned ahead.
    model.reshape({port: [1, *list(port.partial_shape)[1:]] for port in model.inputs})
    # By itself it would choose bfloat16 if the processor has it.
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.compile_model(model, "CPU", options)
    outputs = [compiled.output(name) for name in output_names(config)]

    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        rows = []
        for index in range(len(inputs["audio_mask"])):
            given = compiled({name: values[index : index + 1] for name, values in inputs.items()})
            rows.append([given[output].copy() for output in outputs])
        return [np.concatenate(column) for column in zip(*rows, strict=True)]

    return run


def output_names(config: SSAVDConfig) -> list[str]:
    """Return the names of the graph's outputs: without heads for picture and sound there is only `logits`."""
    return list(LOGITS.values()) if config.stream_heads else [LOGITS["overall"]]


def arrays(inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the graph's inputs as arrays."""
    return {name: np.asarray(inputs[name]) for name in INPUTS}


__all__ = ["ONNXDetector", "ONNXExportError"]

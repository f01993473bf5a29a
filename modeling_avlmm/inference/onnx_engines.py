"""The engines that run an exported graph: onnxruntime and OpenVINO."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

ENGINES = ("onnxruntime", "openvino")

Runner = Callable[[dict[str, np.ndarray]], list[np.ndarray]]
"""From arrays by name, of any number of rows, to the graph's outputs."""


class ONNXExportError(ValueError):
    """An export that cannot be made or run, or that does not compute what the model computes."""


def open_graph(
    path: Path, outputs: Sequence[str], engine: str = ENGINES[0], threads: int | None = None, rows: int = 1
) -> Runner:
    """
    Return a function that runs a graph.

    Args:
        path (`Path`): The `.onnx` file.
        outputs (`Sequence[str]`): Names of the outputs, in the order in which they are returned.
        engine (`str`, *optional*, defaults to `"onnxruntime"`): One of `ENGINES`.
        threads (`int`, *optional*): Threads of one pass. Defaults to the number of cores.
        rows (`int`, *optional*, defaults to 1):
            Rows that OpenVINO takes at once: known shapes are planned ahead, and with a batch of any size every row takes
            half as long again.

    Raises:
        ONNXExportError: If the engine cannot be imported.
    """
    if engine == "onnxruntime":
        return _onnxruntime(path, outputs, threads)
    return _openvino(path, outputs, threads, rows)


def _onnxruntime(path: Path, outputs: Sequence[str], threads: int | None) -> Runner:
    try:
        import onnxruntime
    except ImportError as error:
        raise ONNXExportError("onnxruntime cannot be imported. Run `pip install onnxruntime`.") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: its optimizer warns of every constant that it leaves alone
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(list(outputs), inputs)


def _openvino(path: Path, outputs: Sequence[str], threads: int | None, rows: int) -> Runner:
    try:
        import openvino
    except ImportError as error:
        raise ONNXExportError("openvino cannot be imported. Run `pip install openvino`.") from error
    model = openvino.Core().read_model(path)
    model.reshape({port: [rows, *list(port.partial_shape)[1:]] for port in model.inputs})
    # By itself it would choose bfloat16 if the processor has it.
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.compile_model(model, "CPU", options)
    ports = [compiled.output(name) for name in outputs]

    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        count = len(next(iter(inputs.values())))
        parts = []
        for start in range(0, count, rows):
            part = {name: values[start : start + rows] for name, values in inputs.items()}
            here = len(next(iter(part.values())))
            if here < rows:  # the last part is filled up with copies of its last row
                places = np.minimum(np.arange(rows), here - 1)
                part = {name: values[places] for name, values in part.items()}
            given = compiled(part)
            parts.append([given[port][:here].copy() for port in ports])
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    return run

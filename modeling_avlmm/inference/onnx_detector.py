"""A detector on onnxruntime: SSAVD or facevoice without a network in PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig, AutoProcessor

from ..media import Clip
from ..modeling_outputs import score_columns
from ..pipeline_results import calibrated_scores
from .onnx_graphs import GRAPHS, ONNXExportError
from .places import faults_of_model

MODEL_FILE, INT8_FILE = "model.onnx", "model_int8.onnx"
EXPORT = "python -m modeling_avlmm onnx --model MODEL --to DIR"


def graph_files(folder: str | Path) -> list[Path]:
    """Return the graphs of an exported detector; none for any other folder or name."""
    found = ([Path(folder) / name for name in graphs.files] for graphs in GRAPHS.values())
    return next((paths for paths in found if all(path.is_file() for path in paths)), [])


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
        int8 (`bool`, *optional*, defaults to `False`): Use `model_int8.onnx` (SSAVD only).
        threads (`int`, *optional*): Threads of one pass. Defaults to PyTorch's number.

    Raises:
        ONNXExportError: If a graph or onnxruntime is missing, or a graph is not one of this detector.
        DetectorError: If configuration or processor cannot be loaded.
    """

    def __init__(self, folder: str | Path, int8: bool = False, threads: int | None = None):
        paths = [Path(folder) / INT8_FILE] if int8 else graph_files(folder)
        if not paths or not paths[0].is_file():
            path = Path(folder) / (INT8_FILE if int8 else MODEL_FILE)
            how = EXPORT + " --int8" * int8
            raise ONNXExportError(f"{path}: there is no such file. Write it with `{how}`.")
        with faults_of_model(folder):
            self.config = AutoConfig.from_pretrained(folder)
            self.processor = AutoProcessor.from_pretrained(folder)
        kind = GRAPHS.get(self.config.model_type)
        if kind is None or not (int8 or [path.name for path in paths] == list(kind.files)):
            raise ONNXExportError(
                f"{folder} holds the configuration of a {self.config.model_type!r} detector, and other graphs. Export it again."
            )
        self._graphs = kind(paths, self.config, threads)

    def logits(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """
        Run the network.

        Args:
            inputs (`Mapping`): Result of the processor, as tensors or arrays. `questions` is not needed.

        Returns:
            `dict[str, np.ndarray]`: `logits` and, with heads for them, `video_logits` and `audio_logits`, each `(B, 2)`;
            from facevoice also `frame_logits (B, T)`.
        """
        return self._graphs(inputs)

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


__all__ = ["ONNXDetector", "graph_files"]

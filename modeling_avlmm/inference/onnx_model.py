"""An exported detector as a model of the pipeline, so that files, faces and long recordings are read as ever."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from ..configuration_detector import LOGITS, PARTS
from ..modeling_outputs import AVDetectionOutput
from .onnx_detector import ONNXDetector, graph_files


class ONNXModel(PreTrainedModel):
    """
    A model whose networks run on onnxruntime.

    Args:
        folder (`str` or `Path`): A folder that [`export_onnx`] wrote.
        options: Options of [`ONNXDetector`], such as `threads`.

    Raises:
        ONNXExportError: As [`ONNXDetector`].
    """

    main_input_name = "pixel_values"

    def __init__(self, folder: str | Path, **options):
        detector = ONNXDetector(folder, **options)
        super().__init__(detector.config)
        self.detector = detector
        self.name_or_path = detector.config.name_or_path = str(folder)
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in graph_files(folder))).digest()
        # The graphs' weights are not PyTorch's: their hash stands for them where weights are compared.
        self.graphs = nn.Parameter(
            torch.from_numpy(np.frombuffer(digest, np.uint8).astype(np.float32)), False
        )

    def forward(
        self,
        pixel_values: torch.Tensor,
        audio_values: torch.Tensor,
        frame_mask: torch.Tensor,
        audio_mask: torch.Tensor,
        questions: torch.Tensor | None = None,
    ) -> AVDetectionOutput:
        """Judge a batch, as the exported model does; all four inputs are needed."""
        given = {
            "pixel_values": pixel_values,
            "audio_values": audio_values,
            "frame_mask": frame_mask,
            "audio_mask": audio_mask,
        }
        output = {name: torch.from_numpy(values) for name, values in self.detector.logits(given).items()}
        if questions is not None:
            for column, part in enumerate(PARTS):
                if (name := LOGITS[part]) in output:
                    unasked = ~questions[:, column].bool()
                    output[name] = output[name].masked_fill(unasked[:, None], float("nan"))
        return AVDetectionOutput(**output)


__all__ = ["ONNXModel"]

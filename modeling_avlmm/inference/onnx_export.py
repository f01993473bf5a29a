"""Export SSAVD and facevoice to ONNX, check the result, and write 8-bit weights.

    python -m modeling_avlmm onnx --model runs/ssavd/model --to exported/ssavd --int8

This needs `pip install modeling-avlmm[onnx]`. The folder holds the graphs (`model.onnx` of SSAVD, `picture.onnx` and
`sound.onnx` of facevoice), `config.json` and `processor_config.json`; [`ONNXDetector`] reads nothing else.
"""

import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoProcessor, PreTrainedConfig, PreTrainedModel, ProcessorMixin

from ..configuration_detector import LOGITS
from ..configuration_facevoice import HOP, FaceVoiceConfig
from ..configuration_ssavd import SSAVDConfig
from ..modeling_facevoice import FaceVoiceForDeepfakeDetection
from ..modeling_ssavd import SSAVDForDeepfakeDetection
from .auto import AutoModelForAVDeepfakeDetection
from .loading import without_loading_bar
from .onnx_detector import INT8_FILE, ONNXDetector
from .onnx_graphs import GRAPHS, ONNXExportError, arrays, output_names
from .places import DetectorError, faults_of_model, missing_folder

TOLERANCES = {"ssavd": 1e-3, "facevoice": 1e-4}
"""Largest difference of a logit between PyTorch and onnxruntime; our own choice."""
OPSET = 18
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
"""Ends of the names of weights that an export would stand beside."""


@dataclass
class ONNXExport:
    """The files of an export, and their difference from the model.

    Attributes:
        path (`Path`): The folder.
        difference (`float`): Largest absolute difference of a logit between the graphs and PyTorch.
        tolerance (`float`): Largest one that is allowed.
        int8_difference (`float`, *optional*): Largest absolute difference of a *score*, in [0, 1], of `model_int8.onnx`.
        sizes (`dict[str, int]`): Bytes of each graph's file.
    """

    path: Path
    difference: float
    tolerance: float
    int8_difference: float | None
    sizes: dict[str, int]


@dataclass
class _Graph:
    """A part of a model as a function of tensors: a graph has neither optional inputs nor output classes."""

    module: torch.nn.Module
    inputs: dict[str, torch.Tensor]
    outputs: list[str]


class _Verdicts(torch.nn.Module):
    def __init__(self, model: SSAVDForDeepfakeDetection):
        super().__init__()
        self.model = model

    def forward(self, pixel_values, audio_values, frame_mask, audio_mask):
        output = self.model(pixel_values, audio_values, frame_mask=frame_mask, audio_mask=audio_mask)
        return tuple(output[name] for name in output_names(self.model.config))


class _Crops(torch.nn.Module):
    def __init__(self, model: FaceVoiceForDeepfakeDetection):
        super().__init__()
        self.model = model

    def forward(self, frames):
        return self.model.frame_log_odds(frames)


class _Sounds(torch.nn.Module):
    def __init__(self, model: FaceVoiceForDeepfakeDetection):
        super().__init__()
        self.model = model

    def forward(self, audio, mask):
        return self.model.sound_log_odds(audio, mask)


def export_onnx(
    model_dir: str | Path,
    output_dir: str | Path,
    opset: int = OPSET,
    int8: bool = False,
    calibration: Sequence[Any] = (),
) -> ONNXExport:
    """
    Write the graphs of a detector for batches of any size, and compare them with the PyTorch model.

    SSAVD's `model.onnx` has the inputs `pixel_values` uint8 `(B, T, 3, H, W)`, `audio_values` float32 `(B, S)`,
    `frame_mask` bool `(B, T)` and `audio_mask` bool `(B,)`. All are required: a clip without picture or sound has zeros in
    its mask. Its outputs are float32 `logits`, `video_logits`, `audio_logits`, `(B, 2)` in the order real, fake; NaN for a
    part that is absent.

    facevoice's `picture.onnx` has the input `frames` uint8 `(N, 3, H, W)`, face crops, and its `sound.onnx` `audio` float32
    `(N, S)` and `mask` bool `(N, S // 160)`. The output of both is `log_odds` float32 `(N,)`, of fake, before calibration.

    Args:
        model_dir (`str` or `Path`): Folder or Hub id of an SSAVD or facevoice detector with its processor.
        output_dir (`str` or `Path`): Folder to write; created if missing.
        opset (`int`, *optional*, defaults to 18): ONNX operator set.
        int8 (`bool`, *optional*, defaults to `False`):
            Also write `model_int8.onnx`, whose matrix products have 8-bit weights (see [`quantize`]). SSAVD only.
        calibration (sequence of media, *optional*):
            Clips for the processor, on which the 8-bit ranges are fitted. Without them, ranges are found at run time.

    Nothing is left in the folder unless the graphs compute what the model computes.

    Raises:
        DetectorError: If there is no such detector, or it cannot be loaded.
        ONNXExportError: If packages are missing, the folder to write holds another detector, or the logits differ by more
            than `TOLERANCES` allows. NaN in only one of the two is a difference, too.
    """
    _need_packages()
    model, processor = _load(model_dir)
    system = model.config.model_type
    if int8 and system != "ssavd":
        raise ONNXExportError(f"8-bit weights are for SSAVD only, and {model_dir} is a {system!r} detector.")
    clips = [dict(processor(clip)) for clip in calibration]
    output_dir = _opened(Path(output_dir), system)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=output_dir) as unfinished:
        made = _made_in(Path(unfinished), model, processor, opset, int8, clips)
        (output_dir / INT8_FILE).unlink(missing_ok=True)  # of an earlier export: it may be of other weights
        for path in sorted(made.path.iterdir()):
            path.replace(output_dir / path.name)
    return replace(made, path=output_dir)


def _opened(folder: Path, system: str) -> Path:
    """Return a folder for an export of a system, made if it is missing; one that holds another detector is refused."""
    if folder.exists() and not folder.is_dir():
        raise ONNXExportError(f"{folder} is a file: give a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    others = {name for kind, graphs in GRAPHS.items() if kind != system for name in graphs.files}
    held = sorted(path.name for path in folder.iterdir() if path.name in others or path.suffix in WEIGHTS)
    if held:
        raise ONNXExportError(
            f"{folder} holds a detector already ({held[0]}), which would be mixed with this one: give another folder."
        )
    return folder


def _made_in(
    folder: Path,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    opset: int,
    int8: bool,
    clips: Sequence[Mapping[str, torch.Tensor]],
) -> ONNXExport:
    """Write an export into an empty folder, and compare it with the model."""
    system = model.config.model_type
    paths = [folder / name for name in GRAPHS[system].files]
    for path, graph in zip(paths, _graphs(model), strict=True):
        _write_graph(graph, path, opset)
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)
    difference = largest_difference(model, ONNXDetector(folder))
    if not difference <= TOLERANCES[system]:
        raise ONNXExportError(
            f"The graphs' logits differ from PyTorch's by up to {difference:.3g}, more than {TOLERANCES[system]:g}, so nothing "
            "was written. Try another --opset, or torch and onnxruntime as in constraints.txt."
        )
    int8_difference = None
    if int8:
        paths.append(folder / INT8_FILE)
        quantize(paths[0], paths[1], clips)
        int8_difference = largest_difference(model, ONNXDetector(folder, int8=True), scores=True)
    sizes = {path.name: path.stat().st_size for path in paths}
    return ONNXExport(folder, difference, TOLERANCES[system], int8_difference, sizes)


def _need_packages() -> None:
    missing = []
    for name in ("onnx", "onnxruntime", "onnxscript"):
        try:
            __import__(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise ONNXExportError(
            f"{', '.join(missing)} cannot be imported. Run `pip install onnx onnxruntime onnxscript`."
        )


def _load(model_dir: str | Path) -> tuple[PreTrainedModel, ProcessorMixin]:
    if absent := missing_folder(model_dir):
        raise DetectorError(absent)
    with faults_of_model(model_dir):
        kind = PreTrainedConfig.get_config_dict(model_dir)[0].get("model_type")
        if kind not in list(GRAPHS):  # it may be anything, also what has no hash
            raise DetectorError(
                f"{model_dir} holds a {kind!r} model; only {' and '.join(map(repr, GRAPHS))} are exported."
            )
        with without_loading_bar():
            model = AutoModelForAVDeepfakeDetection.from_pretrained(model_dir, dtype=torch.float32)
        return model.eval(), AutoProcessor.from_pretrained(model_dir)


def _graphs(model: PreTrainedModel) -> list[_Graph]:
    """Return the parts of a model that become graphs, in the order of their files."""
    # Three rows: 1 would be taken for a constant, and 2 is the number of classes.
    example = example_inputs(model.config, 3)
    if isinstance(model, SSAVDForDeepfakeDetection):
        return [_Graph(_Verdicts(model), example, output_names(model.config))]
    frames = {"frames": example["pixel_values"][:, 0]}
    sounds = {"audio": example["audio_values"], "mask": example["audio_mask"]}
    return [_Graph(_Crops(model), frames, ["log_odds"]), _Graph(_Sounds(model), sounds, ["log_odds"])]


def _write_graph(graph: _Graph, path: Path, opset: int) -> None:
    from onnxscript import optimizer

    batch = torch.export.Dim("batch")
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter warns about its own internals
            program = torch.onnx.export(
                graph.module.eval(),
                tuple(graph.inputs.values()),
                input_names=list(graph.inputs),
                output_names=graph.outputs,
                opset_version=opset,
                dynamic_shapes=tuple({0: batch} for _ in graph.inputs),
                dynamo=True,
                optimize=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ONNXExportError(f"PyTorch cannot export the model: {str(error).splitlines()[0]}") from error
    finally:
        exporter.setLevel(level)
    # The exporter's own optimization, without its rewriting rules: one of them drops the 1e-12 under the logarithm of the
    # sound's power, so that silence becomes NaN.
    optimizer.inline(program.model)
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
    made = program.model_proto
    if made.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value"):
        raise ONNXExportError(
            "the exported graph takes one batch size only: the model's code fixes it somewhere"
        )
    _strip(made)
    path.write_bytes(made.SerializeToString())


def _strip(graph: Any) -> None:
    """Remove what the graph does not need to run."""
    # Shapes of intermediate values: quantization derives them again, and fails on those of weights that it transposed.
    del graph.graph.value_info[:]
    # Stack traces of the exporting machine, two thirds of the file.
    for node in graph.graph.node:
        del node.metadata_props[:]
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        del value.metadata_props[:]
    for function in graph.functions:
        for node in function.node:
            del node.metadata_props[:]


def example_inputs(
    config: SSAVDConfig | FaceVoiceConfig, batch_size: int, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Return the four inputs of a detector for clips with picture and sound: blotches and noise.

    The picture is not plain noise: that is too far from any training data and can overflow a network that works well.
    """
    generator = torch.Generator().manual_seed(seed)
    frames = (batch_size, config.num_frames, 3, config.image_size, config.image_size)
    blotches = 255 * torch.rand(batch_size * config.num_frames, 3, 8, 8, generator=generator)
    steps = (config.audio_samples // HOP,) if isinstance(config, FaceVoiceConfig) else ()
    pictures = F.interpolate(blotches, size=frames[-2:], mode="bilinear")
    return {
        "pixel_values": pictures.round().to(torch.uint8).view(frames),
        "audio_values": 0.1 * torch.randn(batch_size, config.audio_samples, generator=generator),
        "frame_mask": torch.ones(frames[:2], dtype=torch.bool),
        "audio_mask": torch.ones((batch_size, *steps), dtype=torch.bool),
    }


def check_inputs(config: SSAVDConfig | FaceVoiceConfig) -> list[dict[str, torch.Tensor]]:
    """Return two batches: a whole clip; and a whole one, one without picture, one without sound, one that ends early."""
    mixed = example_inputs(config, 4, seed=1)
    mixed["frame_mask"][1] = False
    mixed["audio_mask"][2] = False
    mixed["frame_mask"][3, config.num_frames // 2 :] = False
    mixed["audio_values"][3, config.audio_samples // 2 :] = 0
    if isinstance(config, FaceVoiceConfig):
        mixed["audio_mask"][3, config.audio_samples // HOP // 2 :] = False
    return [example_inputs(config, 1), mixed]


@torch.no_grad()
def largest_difference(model: PreTrainedModel, detector: ONNXDetector, scores: bool = False) -> float:
    """Return the largest absolute difference of a logit (or score) over [`check_inputs`]; infinite if only one is NaN.

    Raises:
        ONNXExportError: If the model itself gives NaN for a part that is there, so that there is nothing to compare.
    """
    worst = 0.0
    for inputs in check_inputs(model.config):
        output = model(**inputs)
        expected = {name: output[name] for name in LOGITS.values() if output.get(name) is not None}
        if not bool(expected["logits"].isfinite().all()):
            raise ONNXExportError(
                "the PyTorch model gives NaN or infinite logits; train it before exporting it."
            )
        given = detector.logits(inputs)
        for name, values in expected.items():
            values, other = values.double(), torch.from_numpy(given[name]).double()
            if not torch.equal(values.isnan(), other.isnan()):
                return float("inf")
            if scores:
                values, other = (torch.sigmoid(x[:, 1] - x[:, 0]) for x in (values, other))
            worst = max(worst, float((values - other).abs().nan_to_num(0).max()))
    return worst


# -- eight bits --------------------------------------------------------------------------------------------------------


def quantize(path: str | Path, target: str | Path, clips: Sequence[Mapping[str, torch.Tensor]] = ()) -> None:
    """
    Write a copy of a graph with 8-bit weights, by onnxruntime's quantization.

    Without clips, matrix products and fully connected layers are quantized, and the ranges of their inputs are found at
    run time. With clips, convolutions are quantized too, with ranges fitted on the clips. Whether either is faster than
    float32 depends on the processor: this network spends its time in depthwise convolutions of few channels
    (`benchmarks/ssavd_streaming.py` measures it).

    Args:
        path, target (`str` or `Path`): The float32 graph, and the file to write.
        clips (sequence of `dict`, *optional*): Encoded clips to calibrate on, as the processor returns them.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready = Path(target).with_suffix(".prepared.onnx")
    # onnxruntime recommends pre-processing through the root logger, even right after it was done.
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)
    try:
        quant_pre_process(str(path), str(ready), skip_symbolic_shape=True, skip_optimization=True)
        if not clips:
            kinds = ["MatMul", "Gemm"]
            quantize_dynamic(ready, target, op_types_to_quantize=kinds, weight_type=QuantType.QInt8)
            return

        class Clips(CalibrationDataReader):
            def __init__(self):
                self.rows = iter(clips)

            def get_next(self):
                row = next(self.rows, None)
                return None if row is None else arrays(row)

        quantize_static(
            ready,
            target,
            Clips(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
        ready.unlink(missing_ok=True)


__all__ = ["ONNXExport", "export_onnx", "quantize"]

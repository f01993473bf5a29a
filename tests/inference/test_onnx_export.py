"""ONNX: the same verdicts as PyTorch for every kind of clip, self-contained folders, eight bits, the command, bad input."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from media_factory import make_clip
from safetensors.torch import load
from safetensors.torch import save as dumped
from ssavd_factory import tiny

import modeling_avlmm.inference.onnx_export as onnx_export
from modeling_avlmm import SSAVDConfig, SSAVDForDeepfakeDetection, SSAVDProcessor
from modeling_avlmm.cli import onnx as onnx_command
from modeling_avlmm.inference.default_model import DEMONSTRATION_MODEL
from modeling_avlmm.inference.loading import load_detector
from modeling_avlmm.inference.onnx_detector import ONNXDetector
from modeling_avlmm.inference.onnx_export import check_inputs, example_inputs
from modeling_avlmm.inference.onnx_graphs import ONNXExportError, output_names
from modeling_avlmm.inference.places import DetectorError
from modeling_avlmm.inference.streaming import StreamingDetector

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package, reason=f"{package} is not installed (pip install modeling-avlmm[onnx])")
onnx = pytest.importorskip("onnx")

# The logarithm of sound that has next to nothing in a band magnifies what float32 rounds: up to 2e-4 in a logit here.
TOLERANCE = 5e-4
SCORES = ("score", "video_score", "audio_score")


def save(path, **options):
    """A tiny detector of 3 s windows, with scores that are neither 0 nor 1, and its folder."""
    model = tiny(num_frames=10, audio_samples=48_000, **options)
    with torch.no_grad():
        logits = model(**example_inputs(model.config, 4))
        for name, head in (
            ("logits", model.head),
            ("video_logits", "video_head"),
            ("audio_logits", "audio_head"),
        ):
            head = getattr(model, head, None) if isinstance(head, str) else head
            if head is not None:
                head.weight.div_(logits[name].abs().max())
    model.config.temperature = {"overall": 1.5}
    model.save_pretrained(path)
    SSAVDProcessor.from_config(model.config).save_pretrained(path)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The model, its folder and its 8-bit export."""
    root = tmp_path_factory.mktemp("onnx")
    model = save(root / "model", frontend="fast", activation_limit=4.0)
    made = onnx_export.export_onnx(root / "model", root / "exported", int8=True)
    return model, root / "model", root / "exported", made


@pytest.fixture(scope="module")
def detector(folders):
    return ONNXDetector(folders[2], threads=1)


def assert_same_logits(model, detector, inputs) -> None:
    with torch.no_grad():
        expected = model(**inputs)
    given = detector.logits(inputs)
    for name in output_names(model.config):
        np.testing.assert_allclose(
            given[name], expected[name].numpy(), atol=TOLERANCE, rtol=0, equal_nan=True
        )


def test_the_inputs_of_the_check_overflow_no_trained_network():
    shipped = SSAVDForDeepfakeDetection.from_pretrained(DEMONSTRATION_MODEL).eval()
    for inputs in check_inputs(shipped.config):
        with torch.no_grad():
            assert shipped(**inputs).logits.abs().max() < 20
        assert inputs["pixel_values"].float().std() > 30


def test_report_and_files(folders):
    _, _, exported, made = folders
    assert made.difference < TOLERANCE and made.int8_difference < 0.2
    for name in ("model.onnx", "model_int8.onnx", "config.json", "processor_config.json"):
        assert (exported / name).stat().st_size > 0
    assert made.sizes["model.onnx"] == (exported / "model.onnx").stat().st_size
    # Nothing of the exporting machine is in it.
    assert b"stack_trace" not in (exported / "model.onnx").read_bytes()
    assert not list(exported.glob("*prepared*")) and not list(exported.glob("*.data"))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_any_batch(folders, detector, batch_size):
    assert_same_logits(folders[0], detector, example_inputs(folders[0].config, batch_size, seed=batch_size))


def test_absent_parts_and_silence(folders, detector):
    model = folders[0]
    for inputs in check_inputs(model.config):
        assert_same_logits(model, detector, inputs)
    silent = example_inputs(model.config, 2)
    silent["audio_values"][:] = 0
    assert_same_logits(model, detector, silent)
    assert np.isfinite(detector.logits(silent)["logits"]).all()
    empty = example_inputs(model.config, 1)
    empty["audio_mask"][:], empty["frame_mask"][:] = False, False
    assert detector.scores(empty) == {name: [None] for name in SCORES}


def test_sinc_front_end_and_no_heads_for_the_parts(tmp_path):
    model = save(tmp_path / "model", frontend="sinc", stream_heads=False)
    made = onnx_export.export_onnx(tmp_path / "model", tmp_path / "exported")
    assert made.difference < TOLERANCE and made.int8_difference is None
    detector = ONNXDetector(tmp_path / "exported", threads=1)
    assert_same_logits(model, detector, example_inputs(model.config, 2, seed=5))
    scores = detector.scores(example_inputs(model.config, 2))
    assert scores["video_score"] == [None, None] and None not in scores["score"]


def test_clips_are_scored_as_the_pipeline_does(folders, detector, tmp_path):
    from modeling_avlmm import AVDeepfakeDetectionPipeline

    model, folder, _, _ = folders
    pipe = AVDeepfakeDetectionPipeline(model=model, processor=SSAVDProcessor.from_pretrained(folder))
    paths = [
        str(make_clip(tmp_path / "both.mp4", seconds=2.0)),
        str(make_clip(tmp_path / "seen.mp4", seconds=1.0, audio=False)),
    ]
    for row, other in zip(detector(paths), pipe(paths), strict=True):
        for name in SCORES:
            assert row[name] == (None if other[name] is None else pytest.approx(other[name], abs=1e-4))
    plain = detector(paths, temperature=1)
    assert plain[0]["score"] != detector(paths)[0]["score"]


def test_streaming_on_onnxruntime(folders, tmp_path):
    model, folder, exported, _ = folders
    path = make_clip(tmp_path / "clip.mkv", seconds=4.0)
    detector = StreamingDetector(exported, threads=1)
    windows = list(detector.stream_file(path, patience=0))
    expected = list(
        StreamingDetector(model, SSAVDProcessor.from_pretrained(folder)).stream_file(path, patience=0)
    )
    assert [window["start"] for window in windows] == [0, 1]
    for window, other in zip(windows, expected, strict=True):
        for name in SCORES:
            assert window[name] == pytest.approx(other[name], abs=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_decoding_beside_the_network_changes_nothing(folders, tmp_path, threads):
    path = make_clip(tmp_path / "clip.mkv", seconds=6.5)
    detector = StreamingDetector(folders[2], threads=threads)
    windows = list(detector.stream_file(path, patience=0))
    assert [window["start"] for window in windows] == [0, 1, 2, 3, 4]
    assert windows == list(StreamingDetector(folders[2]).stream_file(path, patience=0))
    # One window scored, the next decoded already: what is told is about the first.
    first = next(stream := detector.stream_file(path, patience=0))
    assert (first, detector.summary()["windows"], detector.summary()["seconds"]) == (windows[0], 1, 3.0)
    stream.close()


def test_int8_with_calibration(folders, tmp_path):
    model, _, exported, _ = folders
    clips = [example_inputs(model.config, 1, seed=seed) for seed in range(2)]
    onnx_export.quantize(exported / "model.onnx", tmp_path / "model_int8.onnx", clips)
    for name in ("config.json", "processor_config.json"):
        (tmp_path / name).write_bytes((exported / name).read_bytes())
    static = ONNXDetector(tmp_path, int8=True, threads=1)
    assert onnx_export.largest_difference(model, static, scores=True) < 0.5
    operators = {node.op_type for node in onnx.load(tmp_path / "model_int8.onnx").graph.node}
    assert "DequantizeLinear" in operators
    operators = {node.op_type for node in onnx.load(exported / "model_int8.onnx").graph.node}
    assert "MatMulInteger" in operators or "DynamicQuantizeMatMul" in operators


def test_difference_sees_a_wrong_graph(folders, detector):
    model = tiny(seed=1, frontend="fast", num_frames=10, audio_samples=48_000)
    assert onnx_export.largest_difference(model, detector) > onnx_export.TOLERANCES["ssavd"]
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(ONNXExportError, match="NaN"):
        onnx_export.largest_difference(model, detector)


def test_wrong_graph_is_an_error(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "_write_graph", lambda made, path, opset: path.write_bytes(graph))
    monkeypatch.setitem(onnx_export.TOLERANCES, "ssavd", -1.0)
    graph = (folders[2] / "model.onnx").read_bytes()
    with pytest.raises(ONNXExportError, match="differ from PyTorch's by up to"):
        onnx_export.export_onnx(folders[1], tmp_path)


def test_bad_folders(folders, tmp_path):
    with pytest.raises(ONNXExportError, match="there is no such file"):
        ONNXDetector(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(DetectorError, match="'bert' model"):
        onnx_export.export_onnx(tmp_path, tmp_path / "to")
    with pytest.raises(DetectorError, match="There is no folder"):
        onnx_export.export_onnx(tmp_path / "none", tmp_path / "to")


def test_command(folders, tmp_path, capsys, monkeypatch):
    parser = argparse.ArgumentParser()
    onnx_command.add_arguments(parser)
    graph = (folders[2] / "model.onnx").read_bytes()
    monkeypatch.setattr(onnx_export, "_write_graph", lambda made, path, opset: path.write_bytes(graph))
    given = ["--model", str(folders[1]), "--to", str(tmp_path / "to")]
    assert onnx_command.run(parser.parse_args([*given, "--int8"])) == 0
    output = capsys.readouterr().out
    assert "logits differ from PyTorch's by at most" in output and "model_int8.onnx" in output
    assert onnx_command.run(parser.parse_args([*given, "--calibration", "clip.mp4"])) == 2
    assert onnx_command.run(parser.parse_args(["--model", str(tmp_path), "--to", str(tmp_path / "to")])) == 2
    assert "avlmm:" in capsys.readouterr().err


def test_detector_loads_no_weights_into_torch(folders):
    """The folder is enough: a process without the model folder and the exporter can use it."""
    code = (
        "import sys; from modeling_avlmm.inference.onnx_detector import ONNXDetector; from modeling_avlmm.inference.onnx_export import example_inputs;"
        f"d = ONNXDetector({str(folders[2])!r}, threads=1);"
        "print(d.scores(example_inputs(d.config, 1))['score'][0] > 0, 'onnxscript' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["True", "False"]


# -- folders from somewhere else -----------------------------------------------------------------------------------------


def copied(source, to, **files):
    """A folder with some files replaced: bytes, a function of the old bytes, or None for none."""
    shutil.copytree(source, to)
    for name, content in files.items():
        path = to / name.replace("_json", ".json").replace("_onnx", ".onnx").replace(
            "_weights", ".safetensors"
        )
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content(path.read_bytes()) if callable(content) else content)
    return to


def changed(**values):
    """Return a function from a JSON object to one with other values."""
    return lambda old: json.dumps({**json.loads(old), **values}).encode()


def lacking(data: bytes) -> bytes:
    weights = load(data)
    weights.pop("head.weight")
    return dumped(weights, {"format": "pt"})


BROKEN = {
    "no JSON": {"config_json": b"{"},
    "JSON of a list": {"config_json": b"[]"},
    "no configuration": {"config_json": None},
    "a type that is a list": {"config_json": changed(model_type=["ssavd"])},
    "an unknown type": {"config_json": changed(model_type="../ssavd")},
    "sizes that are text": {"config_json": changed(channels="abcd")},
    "sizes without end": {"config_json": changed(num_frames=10**9, audio_samples=16 * 10**9)},
    "no frames": {"config_json": changed(num_frames=0)},
    "other sizes": {"config_json": changed(channels=[8, 16, 32, 32])},
    "cut weights": {"model_weights": lambda old: old[: len(old) // 2]},
    "no weights": {"model_weights": None},
    "weights that are zeros": {"model_weights": bytes(1000)},
    "a header without end": {"model_weights": b"\xff" * 8 + b"{}"},
    "one tensor too few": {"model_weights": lacking},
    "no processor": {"processor_config_json": None},
    "a processor of a list": {"processor_config_json": b"[1]"},
    "a processor without end": {"processor_config_json": changed(image_size=10**6, max_frames=10**6)},
    "an unknown processor": {"processor_config_json": changed(processor_class="Unknown")},
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_folder_is_told_in_a_line_and_nothing_is_written(folders, tmp_path, capsys, what):
    model = copied(folders[1], tmp_path / "model", **BROKEN[what])
    parser = argparse.ArgumentParser()
    onnx_command.add_arguments(parser)
    given = parser.parse_args(["--model", str(model), "--to", str(tmp_path / "to")])
    assert onnx_command.run(given) == 2
    said = capsys.readouterr().err
    assert said.startswith("avlmm: ") and str(model) in said and "Traceback" not in said
    assert not (tmp_path / "to").exists()
    with pytest.raises(DetectorError):  # of detect and all others
        load_detector(str(model), "cpu")


def elsewhere(graph: bytes) -> bytes:
    """A graph with weights that are said to be in another file of this machine."""
    model = onnx.load_from_string(graph)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "../../../../../../../../etc/passwd"), ("offset", "0"), ("length", "4")):
        weight.external_data.add(key=key, value=value)
    return model.SerializeToString()


def renamed(graph: bytes) -> bytes:
    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        node.output[:] = ["other" if name == "logits" else name for name in node.output]
        node.input[:] = ["other" if name == "logits" else name for name in node.input]
    model.graph.output[0].name = "other"
    return model.SerializeToString()


GRAPHS = {
    "no graph": {"model_onnx": b"no graph" * 100},
    "an empty graph": {"model_onnx": b""},
    "half a graph": {"model_onnx": lambda old: old[: len(old) // 2]},
    "weights in another file": {"model_onnx": elsewhere},
    "other outputs": {"model_onnx": renamed},
    "the configuration of another system": {"config_json": b'{"model_type": "facevoice"}'},
    "a damaged configuration": {"config_json": b"{"},
}


@pytest.mark.parametrize("what", GRAPHS)
def test_a_broken_export_is_told(folders, tmp_path, what):
    folder = copied(folders[2], tmp_path / "exported", **GRAPHS[what])
    with pytest.raises(DetectorError, match=str(folder)):
        load_detector(str(folder))
    with pytest.raises(DetectorError, match=str(folder)):
        StreamingDetector(folder)


def test_an_export_of_other_sizes_cannot_be_run(folders, tmp_path):
    folder = copied(folders[2], tmp_path / "exported", config_json=changed(audio_samples=24_000))
    detector = ONNXDetector(folder)
    with pytest.raises(ONNXExportError, match=r"model\.onnx cannot be run: .*Export it again"):
        detector.logits(example_inputs(detector.config, 1))


def test_places_to_write(folders, tmp_path, monkeypatch):
    graph = (folders[2] / "model.onnx").read_bytes()
    monkeypatch.setattr(onnx_export, "_write_graph", lambda made, path, opset: path.write_bytes(graph))
    with pytest.raises(ONNXExportError, match=r"holds a detector already \(model\.safetensors\)"):
        onnx_export.export_onnx(folders[1], folders[1])
    (tmp_path / "file").touch()
    with pytest.raises(ONNXExportError, match="is a file: give a folder"):
        onnx_export.export_onnx(folders[1], tmp_path / "file")
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "picture.onnx").touch()
    with pytest.raises(ONNXExportError, match=r"holds a detector already \(picture\.onnx\)"):
        onnx_export.export_onnx(folders[1], tmp_path / "mixed")
    # A name that is not UTF-8; and 8-bit weights of an earlier export, perhaps of another detector, do not stay.
    odd = tmp_path / os.fsdecode(b"\xb0 a b")
    odd.mkdir()
    (odd / "model_int8.onnx").write_bytes(b"old")
    made = onnx_export.export_onnx(folders[1], odd)
    assert {path.suffix for path in odd.iterdir()} <= {".onnx", ".json", ".py"} and made.path == odd
    assert not (odd / "model_int8.onnx").exists()
    assert ONNXDetector(odd).scores(example_inputs(made_config(odd), 1))["score"][0] is not None


def made_config(folder):
    return SSAVDConfig.from_dict(json.loads((folder / "config.json").read_text()))

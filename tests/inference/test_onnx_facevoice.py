"""facevoice as ONNX: the same verdicts as PyTorch, in the pipeline and by the commands."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from facevoice_factory import SMALL, save_tiny, tiny

from modeling_avlmm import FaceVoiceForDeepfakeDetection
from modeling_avlmm.__main__ import main
from modeling_avlmm.inference import onnx_export
from modeling_avlmm.inference.loading import DetectorError, load_detector
from modeling_avlmm.inference.onnx_detector import ONNXDetector
from modeling_avlmm.inference.onnx_graphs import ONNXExportError

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package, reason=f"{package} is not installed (pip install modeling-avlmm[onnx])")

CALIBRATION = {"video_scale": 2.0, "video_bias": -0.5, "audio_scale": 0.5, "audio_bias": 0.25}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("onnx")
    save_tiny(root / "model", **SMALL, **CALIBRATION)
    return root / "model", root / "exported", onnx_export.export_onnx(root / "model", root / "exported")


def test_logits_are_those_of_pytorch(folders):
    model = FaceVoiceForDeepfakeDetection.from_pretrained(folders[0]).eval()
    detector = ONNXDetector(folders[1], threads=1)
    for inputs in onnx_export.check_inputs(model.config):
        with torch.no_grad():
            expected = model(**inputs)
        given = detector.logits(inputs)
        for name in ("logits", "video_logits", "audio_logits", "frame_logits"):
            np.testing.assert_allclose(given[name], expected[name], atol=1e-4, rtol=0, equal_nan=True)
        assert np.ptp(given["frame_logits"][0]) > 1e-3


def test_report_and_bad_requests(folders, tmp_path):
    source, exported, made = folders
    assert made.difference < made.tolerance == 1e-4
    assert set(made.sizes) == {"picture.onnx", "sound.onnx"}
    assert all((exported / name).stat().st_size == size for name, size in made.sizes.items())
    with pytest.raises(ONNXExportError, match="8-bit weights are for SSAVD only"):
        onnx_export.export_onnx(source, tmp_path, int8=True)
    other = tiny(seed=1, **SMALL)
    assert onnx_export.largest_difference(other, ONNXDetector(exported, threads=1)) > made.tolerance


def test_the_commands_take_the_exported_folder(folders, clips, tmp_path, capsys):
    source, exported, _ = folders
    results = []
    for model in (source, exported):
        words = ["detect", str(clips["long"]), "--model", str(model), "--device", "cpu", "--json"]
        assert main(words) == 0
        results.append(json.loads(capsys.readouterr().out))
    for result, other in zip(*(r["windows"] for r in results), strict=True):
        for name in ("score", "audio_score"):
            assert result[name] == pytest.approx(other[name], abs=1e-5)
    assert len(results[0]["windows"]) == 5
    with pytest.raises(DetectorError, match="runs on the CPU"):
        load_detector(str(exported), device="cuda:0")
    assert main(["onnx", "--model", str(source), "--to", str(tmp_path / "to")]) == 0
    assert "sound.onnx" in capsys.readouterr().out

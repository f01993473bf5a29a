"""The detector that is used if no model is named, and the notice of demonstration models."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from ssavd_factory import SMALL
from transformers import AutoConfig, pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from modeling_avlmm import SSAVDConfig, SSAVDForDeepfakeDetection, SSAVDProcessor
from modeling_avlmm.__main__ import main
from modeling_avlmm.configuration_detector import DEMONSTRATION_NOTICE
from modeling_avlmm.inference import default_model as defaults
from modeling_avlmm.publishing.training_sources import training_sources

TASK = "av-deepfake-detection"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Path:
    """A folder like the package's `default_model`, with random weights."""
    torch.manual_seed(0)
    config = SSAVDConfig(**SMALL, notice=DEMONSTRATION_NOTICE)
    folder = tmp_path_factory.mktemp("package") / "default_model"
    SSAVDForDeepfakeDetection(config).save_pretrained(folder)
    SSAVDProcessor.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture
def default(embedded, monkeypatch) -> Path:
    """Put `embedded` in the place of the package's own default."""
    monkeypatch.delenv("AVLMM_DEFAULT_MODEL", raising=False)
    monkeypatch.setattr(defaults, "EMBEDDED_MODEL", embedded)
    monkeypatch.setitem(
        PIPELINE_REGISTRY.supported_tasks[TASK], "default", {"model": (defaults.default_model(), None)}
    )
    return embedded


def test_the_environment_names_the_default(embedded, monkeypatch):
    monkeypatch.delenv("AVLMM_DEFAULT_MODEL", raising=False)
    assert defaults.default_model() == str(defaults.EMBEDDED_MODEL)
    monkeypatch.setenv("AVLMM_DEFAULT_MODEL", "my-org/my-detector")
    assert defaults.default_model() == "my-org/my-detector"
    monkeypatch.setenv("AVLMM_DEFAULT_MODEL", "")
    assert defaults.default_model() == str(defaults.EMBEDDED_MODEL)


def test_a_first_result_without_naming_a_model(default, clips):
    with pytest.warns(UserWarning, match="demonstration model") as caught:
        detector = pipeline(TASK, device="cpu")
    assert [Path(w.filename).name for w in caught if w.category is UserWarning] == [Path(__file__).name]
    with pytest.warns(UserWarning, match="demonstration model"):
        named = pipeline(TASK, model=str(default), device="cpu")
    files = [str(clips[name]) for name in ("clip", "broken", "silent")]
    results = detector(files)
    assert results == named(files)
    assert [result["error"] is None for result in results] == [True, False, True]
    for result in results:
        assert result["warnings"][0] == DEMONSTRATION_NOTICE
    assert any("audio" in text for text in results[2]["warnings"][1:])


def test_a_process_of_its_own_takes_the_default_from_the_environment(embedded, clips, tmp_path):
    script = f"""
import json, sys
import modeling_avlmm
from transformers import pipeline
print(json.dumps(pipeline({TASK!r}, device="cpu")(sys.argv[1])))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    # Nothing in a cache and nothing to be fetched.
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "AVLMM_DEFAULT_MODEL": str(embedded)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(clips["short"])],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert 0 <= result["score"] <= 1 and result["warnings"] == [DEMONSTRATION_NOTICE]
    assert "UserWarning: demonstration model" in done.stderr and str(embedded) in done.stderr


def test_detect_uses_the_embedded_model_and_says_so(default, clips, capsys):
    assert main(["detect", str(clips["short"]), "--device", "cpu"]) == 0
    told = capsys.readouterr().err.splitlines()
    assert "no model was named" in told[0] and "AVLMM_DEFAULT_MODEL" in told[0]
    assert told[1:] == [f"avlmm: {DEMONSTRATION_NOTICE}"]


def test_detect_without_an_embedded_model_says_what_to_do(clips, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("AVLMM_DEFAULT_MODEL", raising=False)
    monkeypatch.setattr(defaults, "EMBEDDED_MODEL", tmp_path / "nowhere")
    assert main(["detect", str(clips["short"]), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "There is no folder" in error and "--model" in error


def test_a_gate_before_the_default_model(default, clips):
    with pytest.warns(UserWarning, match="demonstration model"):
        detector = pipeline(TASK, gate=str(default), gate_band=(0.0, 1.0), device="cpu")
    assert detector(str(clips["short"]))["decided_by"] == "model"


def test_the_notice_stays_with_the_weights(embedded, tmp_path, tiny_detector, clips):
    SSAVDForDeepfakeDetection.from_pretrained(embedded).save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).notice == DEMONSTRATION_NOTICE
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        other = pipeline(TASK, model=str(tiny_detector), device="cpu")
    assert other.model.config.notice is None and other(str(clips["short"]))["warnings"] == []


SHIPPED = defaults.EMBEDDED_MODEL != defaults.DEMONSTRATION_MODEL and defaults.EMBEDDED_MODEL.is_dir()
WILD = ROOT.parent / "shared" / "wild"


@pytest.mark.skipif(not SHIPPED, reason="the package has no detector beside the demonstration's")
def test_the_default_in_the_package(clips):
    folder = defaults.EMBEDDED_MODEL
    files = {file.name for file in folder.iterdir()}
    assert files >= {"config.json", "model.safetensors", "processor_config.json", "README.md", "sources.json"}
    assert not [name for name in files if name.endswith(".py")]
    assert (folder / "model.safetensors").stat().st_size <= 12_000_000
    config = AutoConfig.from_pretrained(folder)
    assert config.model_type == "facevoice" and config.half_precision
    assert config.notice and config.notice != DEMONSTRATION_NOTICE
    low, high = config.abstain_band
    assert 0 < low < high < 1 and 0 < config.threshold < 1
    with pytest.warns(UserWarning, match=re.escape(config.notice)):
        detector = pipeline(TASK, model=str(folder), device="cpu")
    result = detector(str(clips["silent"]))
    assert result["faces"] == [] and result["score"] is None
    weights = detector.model.state_dict().values()
    assert all(tensor.isfinite().all() for tensor in weights if tensor.is_floating_point())


@pytest.mark.skipif(not SHIPPED, reason="the package has no detector beside the demonstration's")
def test_the_default_was_trained_on_what_its_licences_allow():
    record = json.loads((defaults.EMBEDDED_MODEL / "sources.json").read_text())
    if not WILD.is_dir():
        pytest.skip(f"no recordings in {WILD}")
    assert record == training_sources(WILD, systems=record["systems"])  # refuses a row without train_ok=yes


@pytest.mark.skipif(
    not defaults.DEMONSTRATION_MODEL.is_dir(),
    reason="the demonstration checkpoint is not in this copy of the package",
)
def test_the_demonstration_in_the_package(clips):
    folder = defaults.DEMONSTRATION_MODEL
    files = {file.name for file in folder.iterdir()}
    assert files >= {"config.json", "model.safetensors", "processor_config.json", "README.md"}
    assert (folder / "model.safetensors").stat().st_size < 3_000_000
    with pytest.warns(UserWarning, match="demonstration model"):
        detector = pipeline(TASK, model=str(folder), device="cpu")
    assert detector(str(clips["short"]))["warnings"][0] == DEMONSTRATION_NOTICE
    weights = detector.model.state_dict().values()
    assert all(tensor.isfinite().all() for tensor in weights if tensor.is_floating_point())
    # Drawn faces are all that it knows, and of anything else it makes a number.
    noise = torch.randint(
        0, 256, (10, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        logits = detector.model(noise[None], torch.randn(1, 48_000)).logits
    assert logits.isfinite().all()

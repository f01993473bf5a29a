"""The package is cheap to import, and known to `transformers` and `datasets` whatever is imported first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import modeling_avlmm

ROOT = Path(__file__).parents[2]

REGISTERED = """
import datasets
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline
from transformers.models.auto.processing_auto import processor_class_from_name
from transformers.pipelines import PIPELINE_REGISTRY
import modeling_avlmm as ours

for system in ("AVLMM", "AVPL", "SSAVD"):
    config, model = getattr(ours, f"{system}Config"), getattr(ours, f"{system}ForDeepfakeDetection")
    assert type(AutoConfig.for_model(system.lower())) is config
    assert AutoModel._model_mapping[config] == ours.AutoModelForAVDeepfakeDetection._model_mapping[config] == model
    assert processor_class_from_name(f"{system}Processor") == getattr(ours, f"{system}Processor")
assert PIPELINE_REGISTRY.check_task("av-deepfake-detection")[1] == {
    "impl": ours.AVDeepfakeDetectionPipeline,
    "pt": (ours.AutoModelForAVDeepfakeDetection,),
    "default": {"model": ("my-org/my-default", None)},
    "type": "multimodal",
}
assert "fakeavceleb" in datasets.load._PACKAGED_DATASETS_MODULES
"""


def run(script: str) -> str:
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "AVLMM_DEFAULT_MODEL": "my-org/my-default",
    }
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_by(statement: str, packages: tuple[str, ...]) -> list[str]:
    """Return those of `packages` that a statement imports in a fresh interpreter."""
    script = f"{statement}\nimport sys\nprint(*(name for name in {packages!r} if name in sys.modules))"
    return run(script).split()


def test_importing_the_package_imports_no_framework():
    packages = ("torch", "transformers", "datasets", "numpy", "trl", "matplotlib", "sklearn")
    assert imported_by("import modeling_avlmm", packages) == []


def test_a_configuration_brings_no_trainer_and_no_plots():
    packages = ("trl", "peft", "datasets", "torchvision.transforms", "matplotlib", "sklearn")
    assert imported_by("from modeling_avlmm import SSAVDConfig", packages) == []


@pytest.mark.parametrize(
    "first",
    [
        "import modeling_avlmm",
        "import datasets; from transformers import AutoModel, AutoProcessor, pipeline; import modeling_avlmm",
        # Ours that import a registry in the middle of their own import, and one of transformers that does.
        "import modeling_avlmm.configuration_avpl, modeling_avlmm.pipeline_avd",
        "from modeling_avlmm.dialogue.analyst import AVAnalyst",
        "import modeling_avlmm; from transformers import CLIPVisionConfig",
    ],
)
def test_everything_is_registered_whatever_is_imported_first(first):
    run(first + REGISTERED)


@pytest.mark.parametrize("name", ["AutoConfig", "AutoModel", "AutoProcessor"])
def test_auto_classes_alone_load_a_detector(name, gate_folder):
    script = f"import modeling_avlmm; from transformers import {name}; "
    script += f"print(type({name}.from_pretrained({str(gate_folder)!r})).__module__)"
    module = {"AutoConfig": "configuration", "AutoModel": "modeling", "AutoProcessor": "processing"}[name]
    assert run(script).split() == [f"modeling_avlmm.{module}_ssavd"]


def test_every_public_name_is_there_and_listed_once():
    for name in modeling_avlmm.__all__:
        assert getattr(modeling_avlmm, name).__name__ == name
    assert set(modeling_avlmm._MODULES) == set(modeling_avlmm.__all__) <= set(dir(modeling_avlmm))
    assert modeling_avlmm.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'SSAVDetector'"):
        modeling_avlmm.SSAVDetector  # noqa: B018

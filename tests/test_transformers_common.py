"""
The common tests of `transformers` on every detector. Opt-in: they need the source distribution of the installed version,

    pip download --no-deps --no-binary transformers transformers==VERSION && tar xzf transformers-VERSION.tar.gz
    pip install parameterized
    pytest tests/test_transformers_common.py --transformers-source transformers-VERSION
"""

from __future__ import annotations

import importlib
import re
import sys
import types
import unittest
import unittest.mock
from pathlib import Path

import avpl_factory
import facevoice_factory
import pytest
import ssavd_factory
import torch
import transformers
from media_factory import random_clip

from modeling_avlmm import (
    AVLMMForDeepfakeDetection,
    AVLMMProcessor,
    AVPLProcessor,
    FaceVoiceProcessor,
    SSAVDProcessor,
)

ABSENT = {
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "utils.test_configuration_utils": {"config_common_kwargs": {}},
}
"""Modules that the common tests import and that are not in the source distribution. Ours neither export so nor generate."""
FETCHED = "fetch_hub_objects_for_ci"
"""A module of their repository that gives files of the Hub by address; here addresses stay addresses."""

SMALL = {"ssavd": ssavd_factory, "avpl": avpl_factory, "facevoice": facevoice_factory}
SYSTEMS = ("avlmm", *SMALL)
PROCESSORS = {"ssavd": SSAVDProcessor, "avpl": AVPLProcessor, "facevoice": FaceVoiceProcessor}


@pytest.fixture(scope="module")
def common(request):
    """Return a function that imports a module of the common tests."""
    given = request.config.getoption("--transformers-source")
    if given is None:
        pytest.skip("give the sources of transformers: --transformers-source DIR")
    pytest.importorskip("parameterized", reason="the common tests of transformers need `parameterized`")
    source = Path(given)
    about = source / "src" / "transformers" / "__init__.py"
    if not about.is_file() or f'__version__ = "{transformers.__version__}"' not in about.read_text():
        pytest.skip(f"{source} is not the source of transformers {transformers.__version__}")
    for mark in {
        mark
        for file in (source / "tests").glob("*.py")
        for mark in re.findall(r"mark\.(\w+)", file.read_text())
    }:
        request.config.addinivalue_line("markers", f"{mark}: of the common tests of transformers")
    sys.modules[FETCHED] = types.ModuleType(FETCHED)
    vars(sys.modules[FETCHED])["url_to_local_path"] = str
    name = "transformers_tests"
    package = types.ModuleType(name)
    package.__path__ = [str(source / "tests")]
    sys.modules[name] = package
    for module, contents in ABSENT.items():
        if not (source / "tests" / f"{module.replace('.', '/')}.py").is_file():
            folder, full = f"{name}.{module.partition('.')[0]}", f"{name}.{module}"
            sys.modules.setdefault(folder, types.ModuleType(folder)).__path__ = []
            sys.modules[full] = types.ModuleType(full)
            vars(sys.modules[full]).update(contents)
    return lambda module: importlib.import_module(f"{name}.{module}")


def failures(case: type[unittest.TestCase]) -> dict[str, str]:
    """Run all tests of a case, and return the last line of each failure by the name of its test."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    told = {test.id().rpartition(".")[2]: text for test, text in [*result.failures, *result.errors]}
    passed = result.testsRun - len(told) - len(result.skipped)
    print(f"{case.__name__}: {passed} passed, {len(result.skipped)} skipped, {len(told)} failed")
    for name, text in told.items():
        print(f"  {name}: {text.strip().splitlines()[-1][:300]}")
    return told


class ModelTester:
    """What the common tests ask for: a configuration and a batch of a detector."""

    batch_size, is_training, num_hidden_layers = 2, True, 2

    def __init__(self, config, inputs: dict, labels: dict):
        self.config, self.inputs, self.labels = config, inputs, labels

    def prepare_config_and_inputs_for_common(self):
        torch.manual_seed(0)
        copied = {
            name: value.clone() if torch.is_tensor(value) else value for name, value in self.inputs.items()
        }
        return type(self.config).from_dict(self.config.to_dict()), copied


@pytest.fixture(scope="module", params=SYSTEMS)
def detector(request):
    """Return a detector's name, class and tester."""
    if request.param in SMALL:
        factory = SMALL[request.param]
        model = factory.tiny(**({"save_encoders": True} if request.param == "avpl" else {}))
        labels = {"labels": torch.tensor([0, 1])}
        return request.param, type(model), ModelTester(model.config, factory.batch(model.config, 2), labels)
    model = request.getfixturevalue("tiny_model")
    processor = AVLMMProcessor.from_backbone(str(request.getfixturevalue("tiny_backbone")))
    batch = dict(processor([random_clip(frames=4, seconds=2.0, seed=seed) for seed in (1, 2)]))
    labels = torch.full_like(batch["input_ids"], -100)
    labels[:, -1] = torch.tensor(model.config.label_token_ids)
    return "avlmm", AVLMMForDeepfakeDetection, ModelTester(model.config, batch, {"labels": labels})


def test_models(common, detector):
    name, model_class, tester = detector

    class Models(common("test_modeling_common").ModelTesterMixin, unittest.TestCase):
        all_model_classes = (model_class,)
        model_tester = tester
        has_attentions = test_torch_exportable = False
        test_resize_embeddings = name == "avlmm"

        def _prepare_for_class(self, inputs, model_class, return_labels=False):
            return {**inputs, **(tester.labels if return_labels else {})}

    Models.__name__ = name
    assert set(failures(Models)) == set(MODELS_WITHOUT[name])


def test_configurations(common, detector):
    name, _, tester = detector
    given = {} if name == "avlmm" else {"num_frames": tester.config.num_frames}
    with unittest.mock.patch("transformers.utils.direct_transformers_import", lambda _: transformers):
        kind = common("test_configuration_common").ConfigTester
    checks = [check for check in vars(kind) if check.startswith(("create_and_test_", "check_"))]

    def test(check: str):
        def run(self):
            options = {"common_properties": [], "has_text_modality": False}
            getattr(kind(self, type(tester.config), **options, **given), check)()

        return run

    case = type(name, (unittest.TestCase,), {f"test_{check}": test(check) for check in checks})
    assert set(failures(case)) == set(CONFIGURATIONS_WITHOUT[name])


@pytest.mark.parametrize("system", SYSTEMS)
def test_processors(common, system, request):
    mixin = common("test_processing_common").ProcessorTesterMixin
    if system == "avlmm":
        made = AVLMMProcessor.from_backbone(str(request.getfixturevalue("tiny_backbone")))
    else:
        model = SMALL[system].tiny()
        made = PROCESSORS[system].from_config(model.config)

    class Processors(mixin, unittest.TestCase):
        processor_class = type(made)

        @classmethod
        def _setup_from_components(cls):
            return made

    Processors.__name__ = system
    assert set(failures(Processors)) == set(PROCESSORS_WITHOUT[system])


MODELS_WITHOUT: dict[str, dict[str, str]] = {system: {} for system in SYSTEMS}
PROCESSORS_WITHOUT: dict[str, dict[str, str]] = {system: {} for system in SYSTEMS}
CONFIGURATIONS_WITHOUT: dict[str, dict[str, str]] = {system: {} for system in SYSTEMS}

"""
The common tests of `transformers` on every detector. Opt-in: they need the source distribution of the installed version,

    pip download --no-deps --no-binary transformers transformers==VERSION && tar xzf transformers-VERSION.tar.gz
    pip install parameterized
    pytest tests/test_transformers_common.py --transformers-source transformers-VERSION

Their tests of pipelines are not in the source distribution, and are about models of the Hub; ours are in
test_pipeline_avd.py.
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

NO_LAYERS = "convolutions of many sizes have no hidden states that are alike from layer to layer"
NO_STATES = "the encoders' hidden states are not returned: prompts change them on the way"
NO_TOKENS = "it takes no tokens, so it has no embeddings"
NOT_MODELS = {
    **dict.fromkeys(
        (
            "test_hidden_states_output",
            "test_model_outputs_equivalence",
            "test_retain_grad_hidden_states_attentions",
        ),
        NO_LAYERS,
    ),
    "test_model_get_set_embeddings": NO_TOKENS,
}
OWN_RECOMPUTING = "the frozen encoders stay in evaluation mode, and the prompts recompute their layers"
MODELS_WITHOUT: dict[str, dict[str, str]] = {
    "avlmm": {
        "test_batching_equivalence": "rows of positions and of patches are not cut along the first axis",
        "test_capture_outputs_decorator": "the attention of packed rows is never a matrix",
        "test_hidden_states_output": "the states are as many as tokens, which depend on the clip",
        "test_retain_grad_hidden_states_attentions": "hidden states are copies in rows, beside the gradient's path",
        "test_reverse_loading_mapping": "files keep the modules' own names",
        "test_tied_weights_keys": "the thinker's head is not tied",
    },
    "ssavd": NOT_MODELS,
    "facevoice": NOT_MODELS,
    "avpl": {
        **dict.fromkeys(NOT_MODELS, NO_STATES),
        "test_model_get_set_embeddings": NO_TOKENS,
        "test_can_capture_specific_layers_hidden_states": NO_STATES,
        "test_capture_outputs_decorator": NO_STATES,
        "test_training_gradient_checkpointing": OWN_RECOMPUTING,
        "test_training_gradient_checkpointing_use_reentrant_false": OWN_RECOMPUTING,
        "test_training_gradient_checkpointing_use_reentrant_true": OWN_RECOMPUTING,
    },
}
"""Common tests that do not apply, with the reason; exactly these fail."""

LABELS = "the labels are always real and fake"
CONFIGURATIONS_WITHOUT = {
    system: {"test_create_and_test_config_with_num_labels": LABELS} for system in SYSTEMS
}

MEDIA_FIRST = "a processor is called with media, not with text, pictures and sound apart"
ITS_CODE = "a processor that was made names its code, for saving; one that was loaded has been saved"
OWN_OPTIONS = "options are declared on the class, with their defaults, and belong to the weights"
NOT_PROCESSORS = {
    "test_init_arguments_not_in_class_attributes": OWN_OPTIONS,
    "test_init_arguments_not_in_processor_kwargs": OWN_OPTIONS,
    "test_processor_from_and_save_pretrained": ITS_CODE,
    "test_processor_from_and_save_pretrained_as_nested_dict": ITS_CODE,
    "test_flat_kwarg_applied_when_modality_dict_lacks_it": MEDIA_FIRST,
    "test_model_input_names": MEDIA_FIRST,
}
PROCESSORS_WITHOUT = {
    **{
        system: {**NOT_PROCESSORS, "test_processor_from_pretrained_vs_from_components": ITS_CODE}
        for system in SMALL
    },
    "avlmm": {
        **NOT_PROCESSORS,
        "test_call_arguments_default_none": "the side of the padding has a default: left, as for generating",
        "test_call_arguments_not_in_processor_kwargs": "the side of the padding is an argument of its own",
        "test_chat_template_audio_from_video": "needs the network",
        **dict.fromkeys(
            (
                "test_apply_chat_template_assistant_mask",
                *(f"test_apply_chat_template_audio_{case}" for case in range(4)),
                "test_apply_chat_template_decoded_video_0",
                "test_apply_chat_template_video_0",
                "test_apply_chat_template_video_1",
                "test_apply_chat_template_video_frame_sampling",
                "test_doubly_passed_kwargs_1_videos",
                "test_processor_with_multiple_inputs",
                *(
                    f"test_{what}_{medium}"
                    for medium in ("1_videos", "2_audio")
                    for what in (
                        "kwargs_overrides_default_subprocessor_kwargs",
                        "overlapping_text_image_kwargs_handling",
                        "structured_kwargs_nested_from_dict",
                        "subprocessor_defaults_preserved_by_kwargs",
                        "unstructured_kwargs",
                        "unstructured_kwargs_batched",
                    )
                ),
            ),
            MEDIA_FIRST,
        ),
    },
}


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
    files = [*(source / "tests").glob("*.py"), about.with_name("testing_utils.py")]
    for mark in sorted({mark for file in files for mark in re.findall(r"mark\.(\w+)", file.read_text())}):
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
    told = {
        # The last name: that of this module begins alike.
        re.findall(r"\.(test_\w+)", test.id())[-1]: text
        for test, text in [*result.failures, *result.errors]
    }
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
        # The thinker's audio encoder has an embedding that it never uses.
        test_all_params_have_gradient = name != "avlmm"

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

"""Law 1 of the house: a file directly in `modeling_avlmm/` travels to the Hub with some detector, and nothing else does."""

from __future__ import annotations

import ast
from pathlib import Path

import avpl_factory
import facevoice_factory
import pytest

import modeling_avlmm
from modeling_avlmm import AVPLProcessor
from modeling_avlmm.publishing.card import reading_order

ROOM = Path(modeling_avlmm.__file__).parent
FLAT = {path.name for path in ROOM.glob("*.py")} - {"__init__.py", "__main__.py"}

SHARED = {
    "configuration_detector.py",
    "face_crops.py",
    "face_finder.py",
    "face_windows.py",
    "faces.py",
    "hub_mixin.py",
    "media.py",
    "media_clip.py",
    "media_containers.py",
    "media_errors.py",
    "media_files.py",
    "media_lengths.py",
    "media_links.py",
    "media_mp4.py",
    "media_opening.py",
    "media_silence.py",
    "media_sound.py",
    "media_sources.py",
    "media_tracks.py",
    "media_video.py",
    "media_windows.py",
    "modeling_outputs.py",
    "pipeline_avd.py",
    "pipeline_inputs.py",
    "pipeline_results.py",
    "pipeline_scores.py",
    "processing_clips.py",
    "reading_ahead.py",
}
PUBLISHED = {
    "avlmm": SHARED
    | {
        "backbone.py",
        "backbone_gemma4.py",
        "backbone_qwen2_5_omni.py",
        "backbone_qwen3_omni.py",
        "configuration_avlmm.py",
        "modeling_avlmm.py",
        "modeling_avlmm_parts.py",
        "modeling_avlmm_weights.py",
        "modeling_packed_attention.py",
        "processing_avlmm.py",
        "processing_avlmm_batch.py",
        "processing_patches.py",
    },
    "avpl": SHARED
    | {
        "configuration_avpl.py",
        "fingerprint.py",
        "modeling_avpl.py",
        "modeling_avpl_blocks.py",
        "modeling_avpl_encoders.py",
        "modeling_avpl_training.py",
        "modeling_verdicts.py",
        "processing_avpl.py",
    },
    "facevoice": SHARED
    | {
        "configuration_facevoice.py",
        "modeling_facevoice.py",
        "modeling_facevoice_sound.py",
        "modeling_precision.py",
        "modeling_verdicts.py",
        "processing_facevoice.py",
        "speech_activity.py",
    },
    "ssavd": SHARED
    | {
        "configuration_ssavd.py",
        "modeling_ssavd.py",
        "modeling_ssavd_blocks.py",
        "modeling_ssavd_frontend.py",
        "modeling_ssavd_training.py",
        "modeling_precision.py",
        "modeling_verdicts.py",
        "processing_ssavd.py",
    },
}
"""The code of each system's checkpoints, exactly: a new file is a new file that every user has to trust."""


@pytest.fixture(scope="module")
def folders(tiny_detector, gate_folder, tmp_path_factory) -> dict[str, Path]:
    avpl = tmp_path_factory.mktemp("avpl")
    model = avpl_factory.tiny(save_encoders=True)
    model.save_pretrained(avpl)
    AVPLProcessor.from_config(model.config).save_pretrained(avpl)
    facevoice = facevoice_factory.save_tiny(tmp_path_factory.mktemp("facevoice"))
    return {"avlmm": tiny_detector, "avpl": avpl, "facevoice": facevoice, "ssavd": gate_folder}


@pytest.mark.parametrize("system", PUBLISHED)
def test_a_checkpoint_holds_exactly_these_files(system, folders):
    assert {path.name for path in folders[system].rglob("*.py")} == PUBLISHED[system]


@pytest.mark.parametrize("system", PUBLISHED)
def test_the_files_to_read_first_are_in_it(system):
    files = [file for file, _ in reading_order(system)]
    assert len(set(files)) == 4 and set(files) <= PUBLISHED[system]


@pytest.mark.parametrize("system", PUBLISHED)
def test_the_code_is_this_packages_own(system, folders):
    for name in PUBLISHED[system]:
        assert (folders[system] / name).read_bytes() == (ROOM / name).read_bytes(), name


def test_every_flat_file_is_in_some_checkpoint():
    assert set.union(*PUBLISHED.values()) == FLAT


@pytest.mark.parametrize("name", sorted(FLAT))
def test_a_flat_file_imports_its_neighbours_and_public_packages_only(name):
    """`transformers` copies what it finds as `from .name import ...`, and no other form of a relative import."""
    for node in ast.walk(ast.parse((ROOM / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and f"{node.module}.py" in FLAT, node.lineno
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            tops = {name.partition(".")[0] for name in names}
            ours = {"modeling_avlmm", "dataset_scripts"}
            assert not tops & (ours | {"trl", "peft", "datasets", "evaluate"}), node.lineno


@pytest.mark.parametrize("system", PUBLISHED)
def test_every_import_of_a_checkpoint_is_in_it(system):
    for name in PUBLISHED[system]:
        for node in ast.walk(ast.parse((ROOM / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert f"{node.module}.py" in PUBLISHED[system], (name, node.module)

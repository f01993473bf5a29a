"""The clips of a run, the mark of a demonstration, and memory that is kept."""

import platform
import subprocess
import sys

import pytest
from dataset_factory import write_fakeavceleb

from modeling_avlmm import SSAVDConfig
from modeling_avlmm.configuration_detector import DEMONSTRATION_NOTICE
from modeling_avlmm.training.batches import load_split
from modeling_avlmm.training.recipe_parts import ClipsRecipe, DataRecipe
from modeling_avlmm.training.recipe_values import RecipeError
from modeling_avlmm.training.run_folder import name_demonstration


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_fakeavceleb(folder)
    return folder


@pytest.mark.parametrize("kind", [DataRecipe, ClipsRecipe])
def test_excluded_generators_are_in_no_split_by_picture_or_by_sound(corpus, kind):
    data = {"dataset": "fakeavceleb", "protocol": "identity_70_30", "data_dir": str(corpus)}
    for split in ("train", "validation"):
        everything = load_split(kind(**data), split)
        some = load_split(kind(**data, exclude_generators=["wav2lip", "rtvc"]), split)
        expected = [
            row["path"]
            for row in everything
            if row["generator"] != "wav2lip" and row["audio_generator"] != "rtvc"
        ]
        assert some["path"] == expected
        assert {"fsgan", "real"} <= set(some["generator"]) and len(some) < len(everything)
        assert sorted(set(some["label"])) == [0, 1]


def test_an_unknown_generator_is_told_with_those_that_there_are(corpus):
    data = DataRecipe("fakeavceleb", "identity_70_30", str(corpus), exclude_generators=["wav2lips"])
    with pytest.raises(RecipeError, match=r"split train has no wav2lips; it has .*fsgan.*rtvc"):
        load_split(data, "train")


def test_a_detector_knows_what_it_was_last_trained_on(tmp_path, monkeypatch):
    synthetic, real = tmp_path / "synthetic", tmp_path / "real"
    monkeypatch.setattr(
        "modeling_avlmm.training.run_folder.is_demonstration", lambda folder: folder == str(synthetic)
    )
    config = SSAVDConfig()
    for folder, notice in ((real, None), (synthetic, DEMONSTRATION_NOTICE), (real, None)):
        name_demonstration(config, DataRecipe(data_dir=str(folder)))
        assert config.notice == notice
    config.notice = "trained by me"
    for folder in (real, synthetic):
        name_demonstration(config, DataRecipe(data_dir=str(folder)))
        assert config.notice == "trained by me"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is told to keep memory is glibc")
def test_freed_memory_is_kept_for_the_next_tensor():
    script = """
import resource, sys, torch
from modeling_avlmm.training.run import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(16 * 2**20).fill_(1.0)  # 64 MB: 16,384 pages of 4 KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(sum([faults() for _ in range(12)][-8:]))  # the heap first grows to where it stays
"""
    counts = {
        mode: int(
            subprocess.run([sys.executable, "-c", script, mode], capture_output=True, check=True).stdout
        )
        for mode in ("give", "keep")
    }
    assert counts["keep"] < 16_384 < counts["give"]  # page faults

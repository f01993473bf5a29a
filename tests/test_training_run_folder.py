"""What a run trains on: the recipe's split, without the generators that it leaves out."""

import pytest
from dataset_factory import write_fakeavceleb

from modeling_avlmm import SSAVDConfig
from modeling_avlmm.configuration_detector import DEMONSTRATION_NOTICE
from modeling_avlmm.training.detector_recipe import ClipsRecipe
from modeling_avlmm.training.recipes import DataRecipe, RecipeError
from modeling_avlmm.training.run_folder import load_split, name_demonstration


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

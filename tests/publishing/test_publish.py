"""Publishing: what a folder holds, that it loads without this package, and that its card tells the truth."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, metadata_load, parse_eval_result_entries
from huggingface_hub.repocard_data import model_index_to_eval_results
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor, pipeline

import modeling_avlmm
from modeling_avlmm import AVLMMForDeepfakeDetection, AVLMMProcessor
from modeling_avlmm.inference.default_model import DEMONSTRATION_MODEL
from modeling_avlmm.inference.provenance import detector_identity
from modeling_avlmm.publishing import card
from modeling_avlmm.publishing.elsewhere import run_without_package
from modeling_avlmm.publishing.eval_results import eval_result_entries
from modeling_avlmm.publishing.publish import PublishError, Upload, publish

TASK = "av-deepfake-detection"
BESIDE_CODE = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
METRICS = {
    "auc": 0.91,
    "ap_fake": 0.92,
    "map_macro": 0.93,
    "eer": 0.12,
    "accuracy": 0.85,
    "balanced_accuracy": 0.84,
    "recall_fake": 0.8,
    "recall_real": 0.88,
    "prior_accuracy": 0.6,
    "n": 100,
    "n_real": 40,
    "n_fake": 60,
    "threshold": 0.4321,
}

LOADED_ELSEWHERE = """
import json, sys
folder, repository, clip, again = sys.argv[1:]
import torch
from transformers import AutoModel, AutoProcessor, pipeline

torch.set_num_threads(1)
detector = pipeline("av-deepfake-detection", model=folder, trust_remote_code=True, device="cpu")
result = detector([clip, "missing.mp4"])
model = AutoModel.from_pretrained(repository, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(repository, trust_remote_code=True)
with torch.no_grad():
    score = model(**processor([clip])).scores.item()
detector.save_pretrained(again)
print(json.dumps({"pipeline": result, "score": score, "module": type(detector).__module__}))
"""


@pytest.fixture(scope="module")
def published(tiny_detector, tmp_path_factory) -> Path:
    return publish(tiny_detector, tmp_path_factory.mktemp("out") / "tiny")


@pytest.fixture
def report(tiny_detector) -> dict:
    """A report of evaluate_avd.py about `tiny_detector`, with numbers that cannot come from anywhere else."""
    model = AVLMMForDeepfakeDetection.from_pretrained(tiny_detector)
    identity = detector_identity(model, AVLMMProcessor.from_pretrained(tiny_detector))
    return {
        "model": "tiny",
        "zero_shot": False,
        "detector": identity,
        "dataset": "mavos_dd",
        "protocol": "open_full",
        "split": "test",
        "synthetic": False,
        "notes": "",
        "clips": 101,
        "threshold": 0.4321,
        "threshold_source": "validation",
        "threshold_clips": 20,
        "unreadable": {"a.mp4": {"type": "MediaError", "message": "x"}},
        "cut_short": {},
        "missing": [],
        "temperature": None,
        "calibration": None,
        "overall": METRICS,
        "video": {**METRICS, "auc": None, "undefined": "all 3 clips are fake"},
        "audio": None,
        "groups": {"generator": {"memo": METRICS}},
        "environment": {"device": "a test", "torch": "2", "transformers": "5"},
        "date": "2026-01-01",
    }


def write(report: dict, folder: Path) -> Path:
    path = folder / "report.json"
    path.write_text(json.dumps(report), encoding="utf-8")
    return path


# -- the folder ------------------------------------------------------------------------------------------------------


def test_folder_holds_everything(published):
    assert {path.name for path in published.iterdir() if path.suffix != ".py"} == BESIDE_CODE
    config = json.loads((published / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_avlmm.AVLMMConfig",
        "AutoModel": "modeling_avlmm.AVLMMForDeepfakeDetection",
    }
    assert config["custom_pipelines"][TASK]["impl"] == "pipeline_avd.AVDeepfakeDetectionPipeline"
    processor = json.loads((published / "processor_config.json").read_text())
    assert processor["auto_map"] == {"AutoProcessor": "processing_avlmm.AVLMMProcessor"}
    assert {"feature_extractor", "video_processor"} <= processor.keys()


def test_weights_are_those_of_the_model(tiny_detector, published):
    before, after = load_file(tiny_detector / "model.safetensors"), load_file(published / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_saving_leaves_the_configuration_as_it_was(tiny_detector, tmp_path):
    model = AVLMMForDeepfakeDetection.from_pretrained(tiny_detector)
    model.save_pretrained(tmp_path)
    assert not hasattr(model.config, "custom_pipelines")
    assert "custom_pipelines" in json.loads((tmp_path / "config.json").read_text())


def test_pipeline_saves_itself_whole(tiny_detector, published, tmp_path):
    pipeline(TASK, model=str(tiny_detector), device="cpu").save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {p.name for p in published.iterdir()} - {"README.md"}


# -- loading ---------------------------------------------------------------------------------------------------------


def test_loads_without_the_package_and_gives_the_same_scores(published, clips, tmp_path):
    # The same files as a downloaded repository, from which `transformers` takes code in another way.
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--me--detector"
    shutil.copytree(published, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    words = [published, "me/detector", clips["clip"], tmp_path / "again"]
    places = {"folder": tmp_path, "HF_HUB_CACHE": str(tmp_path / "hub")}
    remote = run_without_package(LOADED_ELSEWHERE, *words, **places)
    assert remote["module"].startswith("transformers_modules.")

    # With the package there is no need to trust anything, although the folder holds code.
    local = pipeline(TASK, model=str(published), device="cpu")
    assert type(local) is modeling_avlmm.AVDeepfakeDetectionPipeline
    assert type(local.model) is AVLMMForDeepfakeDetection
    expected = local(str(clips["clip"]))
    result, missing = remote["pipeline"]
    for name in ("score", "video_score", "audio_score"):
        assert result[name] == pytest.approx(expected[name], abs=1e-5)
    assert remote["score"] == pytest.approx(expected["score"], abs=1e-5)
    assert missing["error"]["type"] == "MediaNotFoundError"
    # What was loaded from the folder saves itself again, code and pipeline included.
    assert {p.name for p in (tmp_path / "again").iterdir()} == {p.name for p in published.iterdir()} - {
        "README.md"
    }


def test_auto_classes_load_without_remote_code(published):
    assert type(AutoModel.from_pretrained(published)) is AVLMMForDeepfakeDetection
    assert (
        type(modeling_avlmm.AutoModelForAVDeepfakeDetection.from_pretrained(published))
        is AVLMMForDeepfakeDetection
    )
    assert type(AutoProcessor.from_pretrained(published)) is AVLMMProcessor


# -- the card --------------------------------------------------------------------------------------------------------


def test_card_without_numbers_claims_nothing(published):
    data = metadata_load(published / "README.md")
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "video-classification"
    assert TASK in data["tags"]
    assert "model-index" not in data and "metrics" not in data and "license" not in data
    text = (published / "README.md").read_text(encoding="utf-8")
    assert "has not been evaluated" in text and "Not measured" in text
    assert "{{" not in text and "{%" not in text and "None" not in text


def test_a_demonstration_stays_one_when_it_is_published_again(tmp_path):
    folder = publish(DEMONSTRATION_MODEL, tmp_path / "published")
    assert "**This is a demonstration.**" in (folder / "README.md").read_text(encoding="utf-8")
    assert json.loads((folder / "config.json").read_text())["training_summary"]["synthetic"]
    assert "datasets" not in metadata_load(folder / "README.md")


def test_card_names_the_four_files_to_read_first(published):
    text = (published / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"^\d\. `(.*)`: ", text, re.MULTILINE)
    assert named == ["pipeline_avd.py", "processing_avlmm.py", "processing_clips.py", "modeling_avlmm.py"]
    assert "`media*.py` decode video and sound and can be skipped" in text


def test_card_has_the_real_numbers(tiny_detector, report, tmp_path):
    folder = publish(
        tiny_detector,
        tmp_path / "published",
        metrics=write(report, tmp_path),
        metadata=card.CardMetadata("Qwen/Qwen2.5-Omni-7B", ["mavos_dd"], "apache-2.0", ["en", "de"]),
    )
    content = ModelCard.load(folder / "README.md")
    data = content.data.to_dict()
    assert data["base_model"] == "Qwen/Qwen2.5-Omni-7B"
    assert data["datasets"] == ["unibuc-cs/MAVOS-DD"]
    assert data["license"] == "apache-2.0" and data["language"] == ["en", "de"]
    name, results = model_index_to_eval_results(data["model-index"])
    assert name == "published"
    values = {result.metric_type: result.metric_value for result in results}
    assert values == {hub: METRICS[key] for key, (hub, _) in card.HUB_METRICS.items()}
    assert {(r.dataset_type, r.dataset_config, r.dataset_split) for r in results} == {
        ("unibuc-cs/MAVOS-DD", "open_full", "test")
    }
    assert "| overall | 100 | 60 | 0.9100 |" in content.text
    assert "| picture | 100 | 60 | not measured |" in content.text
    assert "| fake: memo | 100 |" in content.text
    assert "101 clips, 1 of them unreadable" in content.text
    assert "None" not in content.text
    # The same number in the Hub's newer form.
    (entry,) = parse_eval_result_entries(
        yaml.safe_load((folder / ".eval_results" / "mavos-dd.yaml").read_text())
    )
    assert (entry.dataset_id, entry.task_id, entry.value) == (
        "unibuc-cs/MAVOS-DD",
        "open_full",
        METRICS["auc"],
    )
    assert entry.date == "2026-01-01" and entry.source_url is None
    assert entry.notes == (
        "AUC of the overall score, fake against real; split test; 100 clips, 60 of them fake; 1 unreadable, in no number"
    )


def test_evaluation_results_are_of_datasets_on_the_hub_alone(report):
    unmeasured = {**report, "overall": {**METRICS, "auc": None}}
    others = [{**report, "dataset": "fakeavceleb"}, {**report, "synthetic": True}, unmeasured]
    assert eval_result_entries(others) == []
    validation = {**report, "protocol": "in_domain", "unreadable": {}}
    found = eval_result_entries([report, validation])
    assert [entry.task_id for entry in found] == ["open_full", "in_domain"]
    assert "unreadable" not in found[1].notes


def test_threshold_chosen_on_validation_is_published(tiny_detector, report, tmp_path):
    folder = publish(tiny_detector, tmp_path / "published", metrics=[write(report, tmp_path)])
    assert modeling_avlmm.AVLMMConfig.from_pretrained(folder).threshold == 0.4321
    assert json.loads((folder / "report.json").read_text()) == {**report, "model": "published"}
    assert "From 0.4321 on" in (folder / "README.md").read_text(encoding="utf-8")

    given = {**report, "threshold_source": "given", "threshold_clips": None}
    folder = publish(tiny_detector, tmp_path / "published", metrics=[write(given, tmp_path)])
    assert modeling_avlmm.AVLMMConfig.from_pretrained(folder).threshold == 0.5


def test_training_is_told(tiny_detector, tmp_path):
    run = tmp_path / "run"
    model_dir = run / "alignment" / "model"
    model_dir.parent.mkdir(parents=True)
    pipeline(TASK, model=str(tiny_detector), device="cpu").save_pretrained(model_dir)
    stages = [
        {"name": "alignment", "kind": "alignment", "learning_rate": 1e-4, "lora_rank": 64},
        {"name": "encoders", "kind": "encoders", "learning_rate": 1e-5, "lora_rank": 64},
    ]
    recipe = {
        "name": "mine",
        "output_dir": "/home/me/run",
        "model": {"backbone": "Qwen/Qwen2.5-Omni-7B"},
        "data": {
            "dataset": "fakeavceleb",
            "protocol": "identity_70_30",
            "data_dir": "/home/me/secret/Corpus",
        },
        "stages": stages,
    }
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    summary = {"stage": stages[0], "steps": 7, "clips": 56, "dropped": 2, "processes": 1}
    (model_dir / "stage.json").write_text(json.dumps(summary))

    folder = publish(model_dir, tmp_path / "published")
    data = metadata_load(folder / "README.md")
    assert data["base_model"] == "Qwen/Qwen2.5-Omni-7B" and data["datasets"] == ["fakeavceleb"]
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "7 steps, 56 clips drawn, 2 unreadable" in text and "LoRA of rank 64" in text
    assert "Stage 2" not in text  # this is the model after the first
    assert json.loads((folder / "stage.json").read_text()) == summary
    assert "/home/me" not in "".join(
        p.read_text() for p in folder.iterdir() if p.suffix in (".yaml", ".json", ".md")
    )
    assert str(tmp_path) not in text
    trained = modeling_avlmm.AVLMMConfig.from_pretrained(folder).training_summary
    assert trained["recipe"] == "mine" and len(trained["stages"]) == 1


def test_numbers_of_the_synthetic_benchmark_do_not_pass_for_those_of_the_corpus(
    tiny_detector, report, tmp_path
):
    synthetic = {**report, "dataset": "fakeavceleb", "synthetic": True}
    folder = publish(tiny_detector, tmp_path / "published", metrics=write(synthetic, tmp_path))
    _, results = model_index_to_eval_results(metadata_load(folder / "README.md")["model-index"])
    assert {result.dataset_type for result in results} == {"demonstration-benchmark"}
    assert (
        "### demonstration benchmark (synthetic, in the layout of fakeavceleb)"
        in (folder / "README.md").read_text()
    )


def test_pipeline_pushes_itself_whole(tiny_detector, published, monkeypatch):
    from transformers.utils import hub

    uploaded = set()

    class Api:
        def create_repo(self, repo_id, **options):
            return type("Repository", (), {"repo_id": repo_id})

    class Card:
        def save(self, path):
            Path(path).write_text("card")

    def upload(self, folder, repo_id, *args, **kwargs):
        uploaded.update(path.name for path in Path(folder).iterdir())

    monkeypatch.setattr(hub, "hf_api", Api)
    monkeypatch.setattr(hub, "create_and_tag_model_card", lambda *args, **kwargs: Card())
    detector = pipeline(TASK, model=str(tiny_detector), device="cpu")
    monkeypatch.setattr(type(detector), "_upload_modified_files", upload)
    detector.push_to_hub("me/detector")
    assert uploaded >= {path.name for path in published.iterdir()}


# -- what is refused, and the upload ---------------------------------------------------------------------------------


def test_numbers_of_another_detector_are_refused(tiny_detector, report, tmp_path):
    other = {**report, "detector": {**report["detector"], "weights": "0" * 16}}
    with pytest.raises(PublishError, match=r"another detector.*weights differ"):
        publish(tiny_detector, tmp_path / "published", metrics=write(other, tmp_path))
    assert not (tmp_path / "published").exists()


def test_wrong_places_are_refused(tiny_detector, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(PublishError, match="not a published detector"):
        publish(tiny_detector, mine)
    assert (mine / "thesis.tex").is_file()
    with pytest.raises(PublishError, match="own folder"):
        publish(tiny_detector, tiny_detector)
    with pytest.raises(PublishError, match=r"no config\.json"):
        publish(tmp_path / "nowhere", tmp_path / "published")
    with pytest.raises(PublishError, match="owner/name"):
        publish(tiny_detector, "not a/repository/name", upload=Upload())
    with pytest.raises(PublishError, match="no metrics at"):
        publish(tiny_detector, tmp_path / "published", metrics=tmp_path / "nothing.json")


def test_publishing_again_replaces_the_folder(tiny_detector, tmp_path):
    folder = publish(tiny_detector, tmp_path / "published")
    (folder / "model-00009-of-00009.safetensors").write_bytes(b"of a larger model")
    publish(tiny_detector, folder)
    assert not (folder / "model-00009-of-00009.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


@pytest.mark.parametrize("private", [True, False])
def test_push_uploads_the_whole_folder_privately_unless_told(tiny_detector, published, monkeypatch, private):
    calls = {}

    class Repository(str):
        repo_id = "me/detector"

    class Api:
        def __init__(self, token=None):
            calls["token"] = token

        def create_repo(self, repo_id, **options):
            calls["create"] = (repo_id, options)
            return Repository("https://huggingface.co/me/detector")

        def upload_folder(self, repo_id, folder_path, **options):
            calls["upload"] = (repo_id, {path.name for path in Path(folder_path).iterdir()})

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    options = {} if private else {"private": False}
    url = publish(tiny_detector, "me/detector", upload=Upload(token="hf_x", **options))
    assert url == "https://huggingface.co/me/detector"
    assert calls["token"] == "hf_x"
    assert calls["create"] == ("me/detector", {"private": private, "exist_ok": True})
    assert calls["upload"] == ("me/detector", {path.name for path in published.iterdir()})

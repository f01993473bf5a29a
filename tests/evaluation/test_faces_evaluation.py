"""Evaluation of a detector that crops faces: tracks kept beside the predictions, and clips without a face in the report."""

from __future__ import annotations

from pathlib import Path

import pytest
from face_factory import Person, face_clip
from media_factory import make_clip
from ssavd_factory import save_small

from modeling_avlmm import AutoModelForAVDeepfakeDetection, SSAVDProcessor
from modeling_avlmm.evaluation.evaluate import evaluate_protocol
from modeling_avlmm.evaluation.evaluation_options import EvaluationOptions
from modeling_avlmm.inference import face_cache


@pytest.fixture
def model(tmp_path) -> Path:
    """A small detector of faces."""
    folder = save_small(tmp_path / "model")
    config = AutoModelForAVDeepfakeDetection.from_pretrained(folder).config
    SSAVDProcessor.from_config(config, faces="largest").save_pretrained(folder)
    return folder


def test_faces_are_kept_and_clips_without_one_are_listed(model, tmp_path, monkeypatch, dataset_cache):
    for label, seen in (("real", True), ("fake", True), ("fake", False)):
        path = tmp_path / "corpus" / "test" / label / f"{seen}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        face_clip(path, [Person()], seconds=0.8) if seen else make_clip(path, seconds=0.8)
    looked_at = []
    find = face_cache.find_tracks

    def counting(reader, **options):
        looked_at.append(Path(reader.name).name)
        return find(reader, **options)

    monkeypatch.setattr(face_cache, "find_tracks", counting)
    options = EvaluationOptions(
        model=str(model),
        dataset="avfolder",
        data_dir=tmp_path / "corpus",
        output_dir=tmp_path / "out",
        n_resamples=0,
    )
    report, folder = evaluate_protocol(options)
    assert report["no_face"] == ["test/fake/False.mp4"] and report["clips"] == 3
    assert "no face\ttest/fake/False.mp4\t" in (folder / "dropped.txt").read_text()
    assert "1 of 3 clips show no face: " in (folder / "report.md").read_text()
    assert sorted(looked_at) == ["False.mp4", "True.mp4", "True.mp4"]
    assert len(list((folder / "faces").rglob("*.npz"))) == 3
    (folder / "predictions.parquet").unlink()
    again, _ = evaluate_protocol(options)
    assert len(looked_at) == 3 and again["overall"] == report["overall"]

"""Predictions that survive a kill, reports made from them alone, and the folder of an evaluation."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from transformers import pipeline

from modeling_avlmm import AVLMMForDeepfakeDetection, AVLMMProcessor
from modeling_avlmm.evaluation import (
    build_report,
    choose_threshold,
    predict,
    read_predictions,
    write_predictions,
)
from modeling_avlmm.evaluation.evaluate import evaluate_protocol, report_predictions
from modeling_avlmm.evaluation.evaluation_error import EvaluationError
from modeling_avlmm.evaluation.evaluation_options import EvaluationOptions, ReportOptions
from modeling_avlmm.evaluation.metrics_table import markdown_table, metrics_table
from modeling_avlmm.evaluation.predictions import PredictionsError, journals, read_journal
from modeling_avlmm.evaluation.proposals import ScoredTime, segment_proposals
from modeling_avlmm.evaluation.rendering import calibration_text, write_report
from modeling_avlmm.evaluation.report import published_rows, with_temperature
from modeling_avlmm.evaluation.segment_plot import shown_files
from modeling_avlmm.inference.loading import DetectorError
from modeling_avlmm.inference.provenance import detector_identity
from modeling_avlmm.media_windows import mean_over_time

# -- predictions -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector(tiny_detector):
    return pipeline("av-deepfake-detection", model=str(tiny_detector), device="cpu")


@pytest.fixture
def dataset(clips) -> Dataset:
    names = ("clip", "broken", "silent", "short", "sound")
    labels = {
        "label": [0, 0, 1, 1, 1],
        "video_label": [0, 0, 1, None, None],
        "audio_label": [0, 0, None, None, 1],
    }
    return Dataset.from_dict({"video": [str(clips[n]) for n in names], "path": list(names), **labels})


def test_predictions_are_one_line_a_clip(detector, dataset, tmp_path):
    predictions = predict(detector, dataset, tmp_path / "test", batch_size=2)
    assert [p["path"] for p in predictions] == dataset["path"]
    assert [p["score"] is None for p in predictions] == [False, True, False, False, False]
    assert predictions[1]["error"]["type"] == "UnreadableMediaError"
    assert [p["label"] for p in predictions] == dataset["label"]
    (journal,) = journals(tmp_path / "test")
    assert journal.name == "test.0of1.jsonl"
    assert list(read_journal(journal)) == dataset["path"]
    # The file's score is that of its windows.
    assert all(p["windows"][0]["score"] == p["score"] for p in predictions if p["score"] is not None)


@pytest.mark.parametrize("cut", [0, 1, 5, -2, None], ids=["empty", "byte", "few", "almost", "whole"])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_run_that_was_killed_goes_on_where_a_batch_began(
    detector, dataset, tmp_path, cut, batch_size, monkeypatch
):
    whole = predict(detector, dataset, tmp_path / "p", batch_size=batch_size)
    (file,) = journals(tmp_path / "p")
    text = file.read_text()
    lines = text.splitlines(keepends=True)
    kept = 3
    file.write_text("".join(lines[:kept]) + lines[kept][:cut])
    kept += cut is None

    opened = []
    own = type(detector).preprocess
    monkeypatch.setattr(
        type(detector),
        "preprocess",
        lambda self, source, **how: opened.append(source["path"]) or own(self, source, **how),
    )
    assert predict(detector, dataset, tmp_path / "p", batch_size=batch_size) == whole
    assert opened == dataset["path"][kept // batch_size * batch_size :]
    assert file.read_text() == text


def test_several_processes_leave_what_one_does(detector, dataset, tmp_path, monkeypatch):
    """Each process scores its share; a run resumed with another number of processes takes over what was scored."""
    from modeling_avlmm.evaluation import predictions as module

    alone = predict(detector, dataset, tmp_path / "alone")

    class Process:
        num_processes = 2

        def __init__(self, index):
            self.process_index, self.is_main_process = index, index == 0

        def wait_for_everyone(self):
            pass

    def run(index, processes=2):
        process = Process(index)
        process.num_processes = processes
        monkeypatch.setattr(module, "PartialState", lambda: process)
        return predict(detector, dataset, tmp_path / "shared")

    with pytest.raises(KeyError):  # the other process has done nothing yet
        run(0)
    assert run(1) == alone
    assert [list(read_journal(file)) for file in journals(tmp_path / "shared")] == [
        ["clip", "silent", "sound"],
        ["broken", "short"],
    ]
    monkeypatch.setattr(type(detector), "_rows", None)  # nothing is left to be scored
    assert run(0, processes=1) == alone


def test_a_changed_dataset_keeps_what_was_scored(detector, dataset, tmp_path):
    before = predict(detector, dataset.select([0, 2, 3]), tmp_path / "p", batch_size=2)
    corrected = dataset.remove_columns("label").add_column("label", [1, 1, 0, 0, 0])
    after = predict(detector, corrected, tmp_path / "p", batch_size=2)
    assert [p["label"] for p in after] == [1, 1, 0, 0, 0]
    assert [after[index]["score"] for index in (0, 2, 3)] == [p["score"] for p in before]


def test_two_clips_of_one_name_are_refused(detector, dataset, tmp_path):
    with pytest.raises(ValueError, match="same path"):
        predict(detector, dataset.select([0, 0]), tmp_path / "p")


def test_workers_score_as_one_process_does(detector, dataset, clips, tmp_path, monkeypatch):
    from modeling_avlmm import pipeline_inputs

    longer = Dataset.from_dict(
        {"video": [str(clips[n]) for n in ("long", "clip", "long")], "path": list("abc")}
    )
    options = {"window_seconds": 2.0, "batch_size": 4}
    monkeypatch.setattr(pipeline_inputs, "WORKER_WINDOWS", 4)  # fewer than the long file has
    alone = predict(detector, longer, tmp_path / "alone", **options)
    assert [len(p["windows"]) for p in alone] == [5, 1, 5]
    assert predict(detector, longer, tmp_path / "workers", num_workers=2, **options) == alone
    assert predict(detector, dataset, tmp_path / "few", num_workers=3) == predict(
        detector, dataset, tmp_path / "one"
    )


def test_scores_are_the_networks_own(tiny_detector, dataset, tmp_path):
    plain = pipeline("av-deepfake-detection", model=str(tiny_detector), device="cpu")
    warm = pipeline("av-deepfake-detection", model=str(tiny_detector), device="cpu")
    warm.model.config.temperature = {"overall": 2.0}
    expected = predict(plain, dataset, tmp_path / "plain")
    assert predict(warm, dataset, tmp_path / "warm") == expected


def test_predictions_file_keeps_everything(tmp_path):
    predictions = [
        entry("a", 0, 0.25, identity="id1", race="African", fake_segments=[]),
        entry("b", 1, None, error={"type": "MediaError", "message": "x|y\n"}, fake_segments=[[0.5, 1.0]]),
        entry(
            "c", 1, 1 / 3, warnings=["no audio track"], windows=[{"start": 0.0, "end": 2.0, "score": 1 / 3}]
        ),
    ]
    about = {"model": "m", "temperature": None, "notes": "Ünïcode"}
    write_predictions(tmp_path / "p.parquet", predictions, about)
    read, said = read_predictions(tmp_path / "p.parquet")
    assert said == about
    names = {name for p in predictions for name in p}
    assert read == [{**dict.fromkeys(names), **p} for p in predictions]
    # Anyone can read it.
    assert pq.read_table(tmp_path / "p.parquet").column("score").to_pylist() == [0.25, None, 1 / 3]

    (tmp_path / "text.parquet").write_text("no parquet")
    pq.write_table(
        pq.read_table(tmp_path / "p.parquet").replace_schema_metadata(None), tmp_path / "other.parquet"
    )
    for name, text in (("none", "no file"), ("text", "no Parquet file"), ("other", "not written by")):
        with pytest.raises(PredictionsError, match=text):
            read_predictions(tmp_path / f"{name}.parquet")


# -- the report ------------------------------------------------------------------------------------------------------


def entry(path: str, label: int, score: float | None, **more) -> dict:
    return {
        "split": "test",
        "path": path,
        "label": label,
        "video_label": None,
        "audio_label": None,
        "generator": None,
        "audio_generator": None,
        "language": None,
        "identity": None,
        "score": score,
        "video_score": score,
        "audio_score": None,
        "duration": None if score is None else 3.0,
        "windows": [],
        "warnings": [],
        "error": None,
        **more,
    }


def about(**more) -> dict:
    return {
        "model": "m",
        "zero_shot": False,
        "detector": {"weights": "0", "dtype": "float32"},
        "dataset": "avfolder",
        "protocol": "split",
        "synthetic": False,
        "split": "test",
        "validation_split": "validation",
        "model_threshold": 0.5,
        "temperature": None,
        "group_columns": [],
        "notes": "",
        "missing": [],
        "environment": {"python": "3"},
        "date": "2026-01-01",
        **more,
    }


def test_report_counts_what_it_leaves_out():
    bad = {"type": "UnreadableMediaError", "message": "x"}
    predictions = [
        entry("a", 0, 0.2, video_label=0, audio_label=0, generator="real"),
        entry("b", 1, 0.9, video_label=1, audio_label=0, generator="memo"),
        entry("c", 1, 0.1, video_label=0, audio_label=1, generator="real", audio_generator="rtvc"),
        entry("d", 1, 0.8, video_label=1, audio_label=1, generator="memo", audio_generator="rtvc", error=bad),
        entry("e", 0, None, video_label=0, error=bad),
        entry("f", 1, 0.0, split="validation"),
    ]
    report = build_report(predictions, about(missing=["g"]), n_resamples=0)
    assert report["unreadable"] == {"e": bad} and report["cut_short"] == {"d": bad}
    assert report["clips"] == 5
    assert report["class_mix"] == {
        "real": 1,
        "fake": 3,
        "FakeVideo-FakeAudio": 1,
        "FakeVideo-RealAudio": 1,
        "RealVideo-FakeAudio": 1,
        "RealVideo-RealAudio": 1,
    }
    assert report["overall"]["n"] == 4 and report["overall"]["auc"] == pytest.approx(2 / 3)
    assert report["video"]["n"] == 4 and report["audio"] is None
    assert {kind: m["n"] for kind, m in report["groups"]["generator"].items()} == {
        "memo": 2,
        "memo + rtvc": 2,
        "rtvc": 2,
    }
    assert report["groups"]["generator"]["rtvc"]["auc"] == 0.0
    assert set(report["groups"]["category"]) == set(report["class_mix"]) - {
        "real",
        "fake",
        "RealVideo-RealAudio",
    }
    assert (
        report["threshold"] == 0.5
        and "validation has no readable clips of both" in report["threshold_source"]
    )

    text = metrics_table(report)
    assert "1 of 5 clips could not be read" in text and "not on disk and in no number: 1" in text
    lines = [
        line for line in text.splitlines() if line.startswith(("overall ", "picture ", "sound ", "fake:"))
    ]
    assert len(lines) == 5 and len({len(line) for line in lines}) == 1
    assert markdown_table(report).count("\n") == 6


def scored(count: int, seed: int = 0, split: str = "test", sharp: float = 1.0, **more) -> list[dict]:
    """Return clips whose log-odds are `sharp` times the calibrated ones."""
    draw = torch.Generator().manual_seed(seed)
    odds = torch.randn(count, generator=draw) * 2
    labels = (torch.rand(count, generator=draw) < torch.sigmoid(odds)).long().tolist()
    scores = torch.sigmoid(odds.double() * sharp).tolist()
    return [
        entry(f"{split}/{index}", label, score, split=split, identity=f"id{index % 40}", **more)
        for index, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]


def test_sure_clips_are_ranked_by_their_log_odds():
    odds = {"a": (0, 40.0), "b": (1, 50.0), "c": (0, -0.85), "d": (1, 60.0)}
    sure = [
        entry(path, label, min(1.0, 1 / (1 + math.exp(-value))), log_odds=value, video_log_odds=None)
        for path, (label, value) in odds.items()
    ]
    report = build_report(sure, about(independent_parts=True), threshold=0.7, n_resamples=0)
    assert report["overall"]["auc"] == 1.0
    without = build_report([p | {"log_odds": None} for p in sure], about(), threshold=0.7, n_resamples=0)
    assert without["overall"]["auc"] == 3 / 4
    # the threshold of a detector that judges picture and sound apart is that of both
    parts = [p | {"video_label": p["label"]} for p in sure]
    assert build_report(parts, about(independent_parts=True), 0.7, n_resamples=0)["video"]["threshold"] == 0.7
    assert build_report(parts, about(), 0.7, n_resamples=0)["video"]["threshold"] == 0.5


def test_breakdowns_part_the_clips():
    predictions = scored(60)
    for index, p in enumerate(predictions):
        p |= {"language": ("en", "de", None)[index % 3], "race": ("a", "b")[index % 2], "duration": index}
    report = build_report(predictions, about(group_columns=["race"]), n_resamples=50)
    groups = report["groups"]
    assert list(groups) == ["generator", "language", "race", "duration"]
    assert {name: m["n"] for name, m in groups["language"].items()} == {"en": 20, "de": 20, "unknown": 20}
    assert {name: m["n"] for name, m in groups["duration"].items()} == {
        "00 to 02 s": 2,
        "02 to 05 s": 3,
        "05 to 10 s": 5,
        "10 to 30 s": 20,
        "30 to 60 s": 30,
    }
    assert sum(m["n"] for m in groups["race"].values()) == 60
    low, high = report["overall"]["ci"]["auc"]
    assert low < report["overall"]["auc"] < high

    for index, p in enumerate(predictions):
        p["num_faces"] = (0, 1, 2, 5, None)[index % 5]
    groups = build_report(predictions, about(), n_resamples=0)["groups"]["faces"]
    assert {name: m["n"] for name, m in groups.items()} == {
        "1 face": 12,
        "2 faces or more": 24,
        "no face": 12,
        "unknown": 12,
    }


def told(report: dict) -> str:
    return " ".join(calibration_text(report))


def test_threshold_and_temperature_are_fitted_on_validation_only():
    fitting, tested = scored(4000, 1, "validation", sharp=3.0), scored(500, 2, sharp=3.0)
    report = build_report(fitting + tested, about(), calibrate=True, coverage=0.9, n_resamples=0)
    assert report["temperature"]["overall"] == pytest.approx(3.0, rel=0.1)
    assert report["threshold_clips"] == 4000 == report["calibration"]["clips"]
    # Other test clips, the same fit.
    other = build_report(
        fitting + scored(300, 3, sharp=3.0), about(), calibrate=True, coverage=0.9, n_resamples=0
    )
    for key in ("temperature", "threshold"):
        assert other[key] == report[key]
    assert other["calibration"]["abstain_band"] == report["calibration"]["abstain_band"]

    plain = build_report(fitting + tested, about(), n_resamples=0)
    assert plain["temperature"] is None and plain["overall"]["auc"] == report["overall"]["auc"]
    assert report["overall"]["ece"] < plain["overall"]["ece"] / 3
    fitted = report["calibration"]
    low, high = fitted["abstain_band"]
    assert low <= report["threshold"] <= high
    assert 0 < fitted["abstained"] < 1
    assert fitted["real_called_fake"] < 0.17 and fitted["fake_called_real"] < 0.17
    assert fitted["fitted"] == ["overall"]
    assert f"Temperatures: overall {report['temperature']['overall']:.3f} (fitted on validation)" in told(
        report
    )
    # A band is fitted for scores with the model's own temperature.
    band = build_report(fitting + tested, about(temperature={"overall": 2.0}), coverage=0.9, n_resamples=0)
    assert band["calibration"]["abstain_band"] and "fitted on" not in told(band).partition("Brier")[0]
    assert "Temperatures: overall 2.000, picture 1.000, sound 1.000 (of the model)." in told(band)
    # The model's own temperature is applied without fitting.
    own = build_report(fitting + tested, about(temperature=report["temperature"]), n_resamples=0)
    assert own["overall"] == report["overall"]

    with pytest.raises(PredictionsError, match="validation split with readable clips of both"):
        build_report(tested, about(), calibrate=True)
    with pytest.raises(PredictionsError, match="at least"):
        build_report(scored(8, 1, "validation") + tested, about(), coverage=0.99)


def test_a_split_that_cannot_be_read_is_an_error():
    bad = {"type": "MediaError", "message": "no such codec"}
    with pytest.raises(PredictionsError, match="None of the 1 clips of test could be read"):
        build_report([entry("a", 0, None, error=bad)], about())


def test_published_rows_are_beside_a_report():
    (table,) = published_rows("mavos_dd", "open_full")
    assert table["rows"]["AV-LMMDetect"] == {"map_macro": 0.96, "auc": 0.92, "accuracy": 0.8509}
    assert any("87.72" in note for note in table["notes"])
    # The note's figure, computed from recalls and mix of the first release.
    assert round((0.851 * 24_116 + 0.925 * 13_183) / 37_299, 4) == 0.8772
    assert [t["rows"]["AV-LMMDetect"]["auc"] for t in published_rows("fakeavceleb", "identity_70_30")] == [
        0.992
    ]
    for protocol in ("in_domain", "open_model", "open_model_any", "open_language", "open_language_any"):
        assert len(published_rows("mavos_dd", protocol)) == 1
    assert published_rows("avfolder", "split") == []


# -- whose predictions they are --------------------------------------------------------------------------------------


def test_identity_tells_detectors_apart(tiny_detector):
    model, processor = (
        AVLMMForDeepfakeDetection.from_pretrained(tiny_detector),
        AVLMMProcessor.from_pretrained(tiny_detector),
    )
    identity = detector_identity(model, processor)
    again = detector_identity(AVLMMForDeepfakeDetection.from_pretrained(tiny_detector), processor)
    assert identity == again

    processor.min_face_size += 1
    assert detector_identity(model, processor) == identity  # whole frames
    processor.faces = "all"
    assert detector_identity(model, processor)["sampling"] != identity["sampling"]
    processor.faces, processor.fps = "off", 2.0
    changed = detector_identity(model, processor)
    assert {name for name in identity if identity[name] != changed[name]} == {"sampling"}
    for parameter in (
        next(model.audio_encoder.parameters()),
        model.language_model.layers[1].mlp.up_proj.weight,
    ):
        before = parameter.data.clone()
        parameter.data += 1e-4
        assert detector_identity(model, processor)["weights"] != identity["weights"]
        parameter.data = before
    assert detector_identity(model, processor)["weights"] == identity["weights"]


# -- a protocol ------------------------------------------------------------------------------------------------------


def evaluate(model, folder, output_dir, **options) -> dict:
    options = {"device": "cpu", "batch_size": 4, "n_resamples": 20, "data_dir": folder, **options}
    options = EvaluationOptions(model=str(model), dataset="avfolder", output_dir=output_dir, **options)
    report, where = evaluate_protocol(options)
    assert where == output_dir
    return report


def test_protocol_folder(tiny_detector, clip_folder, tmp_path):
    out = tmp_path / "out"
    report = evaluate(tiny_detector, clip_folder, out)
    assert json.loads((out / "report.json").read_text()) == report
    assert report["clips"] == 7 and report["overall"]["n"] == 6
    assert list(report["unreadable"]) == ["test/fake/beta/broken.mp4"]
    assert "unreadable\ttest/fake/beta/broken.mp4\tUnreadableMediaError" in (out / "dropped.txt").read_text()
    assert set(report["groups"]["generator"]) == {"alpha", "beta"} and report["environment"]["torch"]

    predictions, _ = read_predictions(out / "predictions.parquet")
    facts = {p["path"]: p["properties"] for p in predictions if p["split"] == "test"}
    assert facts.pop("test/fake/beta/broken.mp4") is None
    assert all(of["width"] and of["fps"] and of["duration"] for of in facts.values())
    fitting = [p for p in predictions if p["split"] == "validation"]
    chosen = choose_threshold([p["label"] for p in fitting], [p["score"] for p in fitting])
    assert report["threshold"] == chosen and report["threshold_source"] == "validation"
    assert report["threshold_clips"] == 6
    files = [
        "dropped.txt",
        "plots",
        "predictions.parquet",
        "report.html",
        "report.json",
        "report.md",
        "run.json",
    ]
    assert sorted(path.name for path in out.iterdir() if path.name != ".run.lock") == files

    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert page.count("<svg") == len(list((out / "plots").iterdir())) >= 4
    for shown in (page, text):
        assert f"{report['overall']['auc']:.4f}" in shown and "broken.mp4" in shown
    assert "{{" not in page + text
    for line in text.splitlines():
        if line.startswith("!["):
            assert (out / line.rpartition("(")[2].rstrip(")")).is_file()


def test_report_comes_from_the_predictions_file_alone(tiny_detector, clip_folder, tmp_path):
    report = evaluate(tiny_detector, clip_folder, tmp_path / "out")
    moved = tmp_path / "elsewhere" / "predictions.parquet"
    moved.parent.mkdir()
    shutil.copy(tmp_path / "out" / "predictions.parquet", moved)
    assert report_predictions(moved, ReportOptions(n_resamples=20), tmp_path / "again") == report
    for name in ("report.json", "report.md", "report.html", "dropped.txt"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert report_predictions(moved, ReportOptions(threshold="0.25"))["overall"]["threshold"] == 0.25
    with pytest.raises(EvaluationError, match="no file"):
        report_predictions(tmp_path / "nothing.parquet", ReportOptions())


def test_threshold_can_be_given(tiny_detector, clip_folder, tmp_path):
    out = tmp_path / "out"
    report = evaluate(tiny_detector, clip_folder, out, threshold="0.25")
    assert report["threshold"] == 0.25 == report["overall"]["threshold"]
    assert report["threshold_source"] == "given" and report["threshold_clips"] is None
    assert {p["split"] for p in read_predictions(out / "predictions.parquet")[0]} == {"test"}
    evaluate(tiny_detector, clip_folder, out)
    report = evaluate(tiny_detector, clip_folder, out, threshold="model")
    assert report["threshold"] == 0.5 and report["threshold_source"] == "the model's own"
    # Scores of an earlier report are not lost.
    assert {p["split"] for p in read_predictions(out / "predictions.parquet")[0]} == {"test", "validation"}


def test_nothing_is_scored_twice(tiny_detector, clip_folder, tmp_path, monkeypatch):
    from modeling_avlmm.pipeline_avd import AVDeepfakeDetectionPipeline

    report = evaluate(tiny_detector, clip_folder, tmp_path / "out")
    monkeypatch.setattr(AVDeepfakeDetectionPipeline, "_rows", None)
    assert evaluate(tiny_detector, clip_folder, tmp_path / "out") == report


def test_calibration_is_stored_and_used(tiny_detector, clip_folder, clips, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_detector, folder)
    before = pipeline("av-deepfake-detection", model=str(folder), device="cpu")(str(clips["clip"]))
    report = evaluate(folder, clip_folder, tmp_path / "out", calibrate=True, coverage=0.5)
    config = json.loads((folder / "config.json").read_text())
    assert config["threshold"] == report["threshold"] and config["temperature"] == report["temperature"]
    assert config["abstain_band"] == report["calibration"]["abstain_band"]
    assert config["calibration"]["coverage"] == 0.5

    detector = pipeline("av-deepfake-detection", model=str(folder), device="cpu")
    after = detector(str(clips["clip"]))
    odds = [torch.logit(torch.tensor(r["score"], dtype=torch.float64)) for r in (before, after)]
    assert float(odds[0] / odds[1]) == pytest.approx(report["temperature"]["overall"], rel=1e-6)
    assert after["threshold"] == report["threshold"]
    # Scored again, the report has the same numbers: predictions are the network's own scores.
    again = evaluate(folder, clip_folder, tmp_path / "again")
    assert again["overall"] == report["overall"] and again["temperature"] == report["temperature"]

    with pytest.raises(EvaluationError, match="not a local folder"):
        evaluate("someone/detector", clip_folder, tmp_path / "hub", calibrate=True)


def test_perturbations_and_the_audit_are_in_the_report(tiny_detector, clip_folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    options = {"perturb": ["mute", "h264"], "severities": [5], "audit": True}
    report = evaluate(tiny_detector, clip_folder, out, **options)
    conditions = {(c["perturbation"], c["severity"]): c for c in report["robustness"]["conditions"]}
    assert list(conditions) == [("h264", 5), ("mute", 1)]
    assert conditions["mute", 1]["n"] == 6 and conditions["mute", 1]["unreadable"] == 0
    assert report["robustness"]["threshold"] == report["threshold"]
    muted = {p["path"]: p for p in read_predictions(out / "robustness" / "mute_1.parquet")[0]}
    clean = {p["path"]: p for p in read_predictions(out / "predictions.parquet")[0] if p["split"] == "test"}
    assert muted.keys() == clean.keys()
    heard = [path for path, p in clean.items() if p["score"] is not None]
    assert all(muted[path]["audio_score"] != clean[path]["audio_score"] for path in heard)
    text = (out / "report.md").read_text()
    assert "digital silence" in text and "## Shortcuts and leaks in the data" in text
    assert (out / "plots" / "robustness.svg").is_file() and (out / "audit" / "audit.md").is_file()
    assert json.loads((out / "audit" / "audit.json").read_text())["summary"] == report["audit"]["summary"]

    monkeypatch.setattr("modeling_avlmm.pipeline_avd.AVDeepfakeDetectionPipeline._rows", None)
    assert evaluate(tiny_detector, clip_folder, out, **options)["robustness"] == report["robustness"]


def test_perturbed_clips_are_judged_by_calibrated_scores(tiny_detector, clip_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_detector, folder)
    config = json.loads((folder / "config.json").read_text())
    temperature = dict.fromkeys(("overall", "video", "audio"), 7.0)
    (folder / "config.json").write_text(json.dumps({**config, "temperature": temperature}))
    report = evaluate(folder, clip_folder, tmp_path / "out", perturb=["lossless"])
    (control,) = report["robustness"]["conditions"]
    assert report["temperature"] == temperature and control["flipped"] == 0
    for key in ("balanced_accuracy", "recall_fake", "recall_real"):
        assert control[key] == report["robustness"]["clean"][key] == report["overall"][key]


def test_predictions_of_two_models_are_never_mixed(tiny_detector, tiny_backbone, clip_folder, tmp_path):
    out = tmp_path / "out"
    evaluate(tiny_detector, clip_folder, out, threshold=0.5)
    evaluate(tiny_detector, clip_folder, out, threshold=0.5)  # the same one goes on
    before = (out / "predictions.parquet").read_bytes()
    with pytest.raises(EvaluationError, match=r"holds predictions of .* differs in sampling"):
        evaluate(tiny_backbone, clip_folder, out)
    with pytest.raises(EvaluationError, match=r"differs in .*dtype"):
        evaluate(tiny_detector, clip_folder, out, dtype="bfloat16")
    with pytest.raises(EvaluationError, match="differs in protocol"):
        evaluate(tiny_detector, clip_folder / "test", out, protocol="split")
    with pytest.raises(EvaluationError, match="differs in options"):
        evaluate(tiny_detector, clip_folder, out, window_seconds=0.5)
    assert (out / "predictions.parquet").read_bytes() == before
    (out / "run.json").unlink()
    with pytest.raises(EvaluationError, match=r"no run\.json"):
        evaluate(tiny_detector, clip_folder, out)


def test_an_untrained_backbone_is_scored_as_it_is(tiny_backbone, clip_folder, tmp_path):
    report = evaluate(tiny_backbone, clip_folder, tmp_path / "out", threshold="model")
    assert report["zero_shot"] and "Zero-shot" in metrics_table(report)
    assert report["overall"]["n"] == 6


def test_wrong_names_are_answered_with_the_right_ones(tiny_detector, clip_folder, tmp_path):
    for options, error, text in (
        ({"dataset": "avfoldr"}, EvaluationError, r"did you mean 'avfolder'.*fakeavceleb, mavos_dd"),
        ({"protocol": "splits"}, EvaluationError, r"'splits' not found.*'all', 'split'"),
        ({"split": "tset"}, EvaluationError, r"avfolder/.*no split 'tset'; it has .*validation"),
        ({"data_dir": str(tmp_path / "nowhere")}, EvaluationError, "nowhere"),
        ({"threshold": "high"}, EvaluationError, "threshold must be"),
        ({"threshold": "1.5"}, EvaluationError, "threshold must be"),
        ({"coverage": 1.5}, EvaluationError, "coverage must be"),
        ({"perturb": ["h265"]}, EvaluationError, "h265"),
        ({"model": str(tmp_path / "nowhere")}, DetectorError, "no folder .*nowhere"),
        ({"device": "gpu"}, DetectorError, "device 'gpu'"),
        ({"dtype": "int7"}, DetectorError, "dtype 'int7'"),
    ):
        arguments = {"model": str(tiny_detector), "dataset": "avfolder", "data_dir": clip_folder, **options}
        with pytest.raises(error, match=text):
            evaluate_protocol(EvaluationOptions(**arguments, output_dir=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# -- which seconds are fake ------------------------------------------------------------------------------------------


def windows(*scores: float | None) -> list[dict]:
    return [{"start": float(k), "end": k + 1.0, "score": score} for k, score in enumerate(scores)]


def test_segments_are_runs_of_high_scores():
    track = ScoredTime(windows(0.1, 0.9, 0.8, 0.2, None, 0.72))
    for level, spans in (
        (0.05, [(0.0, 4.0), (5.0, 6.0)]),  # unscored time ends a run
        (0.2, [(1.0, 4.0), (5.0, 6.0)]),
        (0.8, [(1.0, 3.0)]),
        (0.9, [(1.0, 2.0)]),
        (0.95, []),
    ):
        assert [(start, end) for _, start, end in track.segments(level)] == spans
    # The mean inside less the mean outside, times the geometric mean of the shares of the five seconds with scores.
    ((confidence, *_),) = track.segments(0.8)
    assert confidence == pytest.approx((0.85 - (0.1 + 0.2 + 0.72) / 3) * math.sqrt(2 * 3) / 5)
    assert confidence**2 == pytest.approx(  # the variance that is left when that within is taken away
        np.var([0.1, 0.9, 0.8, 0.2, 0.72]) - (2 * np.var([0.9, 0.8]) + 3 * np.var([0.1, 0.2, 0.72])) / 5
    )
    assert ScoredTime(windows(0.6, 0.8)).segments(0.5) == [[pytest.approx(0.3), 0.0, 2.0]]  # the whole file
    assert ScoredTime([]).segments(0.5) == ScoredTime(windows(None)).segments(0.5) == []


def test_proposals_are_ranked_and_do_not_overlap_much():
    proposals = segment_proposals(windows(0.1, 0.9, 0.8, 0.2, None, 0.72))
    # (1, 4) overlaps (1, 3) by 2/3 and is left out; (1, 2) and (0, 4) by no more than half.
    assert [tuple(span) for _, *span in proposals] == [(1.0, 3.0), (1.0, 2.0), (5.0, 6.0), (0.0, 4.0)]
    confidences = [confidence for confidence, *_ in proposals]
    assert confidences == sorted(confidences, reverse=True)
    assert segment_proposals(windows(0.01)) == segment_proposals([]) == []


def test_a_moment_has_the_mean_score_of_the_windows_over_it():
    overlapping = [
        {"start": k, "end": k + 2.0, "score": score} for k, score in enumerate((0.0, 1.0, 1.0, 0.0))
    ]
    track = ScoredTime(overlapping)
    assert track.borders.tolist() == [0, 1, 2, 3, 4, 5] and track.scores == [0, 0.5, 1, 0.5, 0]
    assert [span for _, *span in track.segments(0.5)] == [[1.0, 4.0]]
    assert [span for _, *span in track.segments(0.75)] == [[2.0, 3.0]]
    # The same mean over time as a verdict's.
    spans = [(w["start"], w["end"]) for w in overlapping]
    assert np.mean(track.scores) == pytest.approx(mean_over_time([0.0, 1.0, 1.0, 0.0], spans))


def test_the_report_plots_true_and_found_segments(tmp_path):
    predictions = [
        entry(
            f"clips/{k:02d}.mp4",
            k % 2,
            0.5,
            fake_segments=[[1.0, 2.0]] * (k % 2),
            windows=windows(0.1, 0.6 if k % 2 else 0.2, 0.2),
        )
        for k in range(24)
    ]
    shown = [p["path"] for p in shown_files(predictions)]
    assert [path[6:8] for path in shown] == [
        "01",
        "03",
        "05",
        "09",
        "11",
        "13",
        "17",
        "19",
        "21",
        "00",
        "08",
        "16",
    ]
    assert shown_files(predictions[::-1]) == shown_files(predictions)
    report = build_report(predictions, about(), threshold=0.55, n_resamples=0) | {
        "robustness": None,
        "audit": None,
    }
    assert report["localization"]["ap@0.95"] == pytest.approx(1, abs=0.1)
    write_report(report, predictions, tmp_path)
    drawn = (tmp_path / "plots" / "segments.svg").read_text()
    assert "clips/01.mp4" in drawn and "clips/07.mp4" not in drawn and "found (score from 0.55)" in drawn
    assert "True and found segments of 12 files" in (tmp_path / "report.html").read_text()
    assert "plots/segments.svg" in (tmp_path / "report.md").read_text()


def test_windows_are_calibrated_with_their_file():
    raw = entry("a", 1, 0.9, windows=windows(0.9, None))
    warm = with_temperature(raw, {"overall": 2.0})
    assert [w["score"] for w in warm["windows"]] == [warm["score"], None] and warm["score"] == pytest.approx(
        0.75
    )
    assert raw["windows"][0]["score"] == 0.9


def test_a_corpus_with_marked_seconds_gets_localization():
    real = entry("a", 0, 0.1, fake_segments=[], windows=windows(0.01, 0.02, 0.01))
    fake = entry("b", 1, 0.8, fake_segments=[[1.0, 3.0]], windows=windows(0.01, 0.9, 0.9, 0.01))
    report = build_report([real, fake], about(dataset="lav_df"), n_resamples=0)
    found = report["localization"]
    assert found["benchmark"] == "lav_df" and found["n_segments"] == 1 and found["ar@10"] == 1.0
    assert (
        build_report([real, {**fake, "fake_segments": None}], about(), n_resamples=0)["localization"] is None
    )
    assert build_report([real, entry("c", 1, 0.3)], about(), n_resamples=0)["localization"] is None

"""Leaderboards from files of predictions: who is in which table, ranks, the baseline, and files that are no good."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dataset_scripts.protocol_lists import split_fingerprint
from modeling_avlmm.__main__ import main
from modeling_avlmm.evaluation import measured_properties
from modeling_avlmm.evaluation.carried_properties import carried_properties
from modeling_avlmm.evaluation.comparison import ComparisonError
from modeling_avlmm.evaluation.leaderboard import make_leaderboard
from modeling_avlmm.evaluation.measured_properties import property_baseline
from modeling_avlmm.evaluation.predictions import read_predictions, write_predictions

N = 40
LABELS = np.arange(N) % 2
PATHS = [f"{number:02d}.mp4" for number in range(N)]
PEOPLE = [f"id{number // 4}" for number in range(N)]
ABOUT = {
    "dataset": "avfolder",
    "protocol": "split",
    "split": "test",
    "validation_split": None,
    "temperature": None,
    "model_threshold": 0.5,
    "detector": {"weights": "w"},
    "date": "2026-01-01",
}


def drawn(seed: int, gain: float) -> list[float]:
    """Return scores that are higher for fakes by `gain`."""
    return (np.random.default_rng(seed).uniform(0, 1 - gain, N) + gain * LABELS).tolist()


def properties(seed: int) -> list[dict]:
    """Return properties of files whose bit rate says a little about the label."""
    rates = np.random.default_rng(seed).uniform(1e5, 2e5, N) + 4e4 * LABELS
    plain = {"width": 640.0, "height": 480.0, "fps": 25.0, "duration": 4.0, "has_audio": 1.0}
    return [{**plain, "bitrate": float(rate)} for rate in rates]


FACTS = properties(9)


def write(file: Path, scores, paths=PATHS, labels=LABELS, facts=FACTS, **about) -> Path:
    rows = [
        {
            "split": "test",
            "path": path,
            "label": int(label),
            "video_label": int(label),
            "audio_label": 0,
            "identity": PEOPLE[place],
            "score": score,
            "video_score": score,
            "audio_score": None,
            **({"properties": facts[place]} if facts else {}),
        }
        for place, (path, label, score) in enumerate(zip(paths, labels, scores, strict=True))
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_predictions(file, rows, ABOUT | {"model": f"runs/{file.stem}"} | about)
    return file


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Fit logistic regression once, where the real thing fits two classifiers five times."""
    monkeypatch.setattr(measured_properties, "FOLD_DRAWS", 1)
    monkeypatch.setattr(measured_properties, "MODELS", ("logistic regression",))


def test_ranks_figures_and_the_baseline(tmp_path):
    scores = {"good": drawn(1, 0.5), "weak": drawn(2, 0.1)}
    # One file with properties is enough: they are of the clips and not of the detector.
    write(tmp_path / "a" / "weak.parquet", scores["weak"], facts=None)
    write(tmp_path / "b" / "good.parquet", scores["good"])
    report = make_leaderboard(tmp_path, n_resamples=100)
    (table,) = report["tables"]
    assert (report["unusable"], report["left_out"], table["notes"]) == ([], [], [])
    assert table["fingerprint"] == split_fingerprint(zip(PATHS, LABELS, strict=True))
    assert (table["clips"], table["n_fake"], table["people"], table["ranked_on"]) == (N, 20, 10, N)
    assert [(row["rank"], row["name"], row["file"]) for row in table["rows"]] == [
        (1, "runs/good", "b/good.parquet"),
        (2, "runs/weak", "a/weak.parquet"),
    ]
    baseline = property_baseline(FACTS, LABELS, [f"identity {person}" for person in PEOPLE])
    for row in table["rows"]:
        auc = roc_auc_score(LABELS, scores[row["name"].removeprefix("runs/")])
        assert row["auc"]["value"] == pytest.approx(auc, abs=1e-12)
        assert row["auc"]["ci"][0] < auc < row["auc"]["ci"][1] or auc == 1
        alone = row["baseline"]["auc"]["value"]
        assert alone == pytest.approx(roc_auc_score(LABELS, baseline["scores"]), abs=1e-12) and alone > 0.5
        assert row["over_baseline"]["value"] == pytest.approx(auc - alone, abs=1e-12)
        assert row["parts"]["audio"] is None and row["parts"]["video"]["auc"] == pytest.approx(auc)
        assert row["within"]["people"] == 10 and row["matched"]["pairs"] > 0
    first, second = table["rows"]
    gap = second["auc"]["value"] - first["auc"]["value"]
    assert first["to_first"] is None and second["to_first"]["value"] == pytest.approx(gap, abs=1e-12)
    assert second["to_first"]["ci"][1] < 0


def test_clip_sets_are_never_ranked_together(tmp_path):
    write(tmp_path / "whole.parquet", drawn(1, 0.3))
    write(tmp_path / "also.parquet", drawn(1, 0.3), model="other")  # equal scores: a copy
    write(tmp_path / "second.parquet", drawn(3, 0.3))
    partial = drawn(2, 0.9)
    partial[3] = None
    write(tmp_path / "partial.parquet", partial)
    relabelled = LABELS.copy()
    relabelled[0] = 1
    write(tmp_path / "relabelled.parquet", drawn(4, 0.5), labels=relabelled)
    write(tmp_path / "fewer.parquet", drawn(4, 0.5)[:-1], PATHS[:-1], LABELS[:-1])
    write(tmp_path / "corpus.parquet", drawn(4, 0.5), dataset="fakeavceleb", synthetic=True)
    report = make_leaderboard(tmp_path, n_resamples=0)
    ranks = {
        row["name"]: (table["fingerprint"], row["rank"])
        for table in report["tables"]
        for row in table["rows"]
    }
    assert len({fingerprint for fingerprint, _ in ranks.values()}) == 3  # the other corpus has the same paths
    assert [len(table["rows"]) for table in report["tables"]] == [3, 1, 1, 1]
    main_table = report["tables"][0]
    assert [row["rank"] for row in main_table["rows"]] == [1, 2, None]
    assert main_table["rows"][-1]["lacking"] == ["03.mp4"] and main_table["rows"][-1]["auc"]["value"] > 0.9
    assert any("partial is not ranked: it scored 39 of 40 clips" in note for note in main_table["notes"])
    assert sum("Not to be ranked with the table of fingerprint" in note for note in main_table["notes"]) == 2
    assert any("40 paths in common" in note for note in main_table["notes"])
    assert (
        "synthetic" in report["tables"][-1]["notes"][0] and report["tables"][-1]["dataset"] == "fakeavceleb"
    )
    (copy,) = report["left_out"]
    assert copy == {"file": "whole.parquet", "reason": "has the scores of also.parquet"}


def test_bad_files_are_named_and_do_not_end_the_run(tmp_path, capsys):
    write(tmp_path / "good.parquet", drawn(1, 0.5), outside={"higher_is": "fake"})
    write(tmp_path / "turned.parquet", (1 - np.array(drawn(1, 0.5))).tolist(), outside={"higher_is": "fake"})
    write(tmp_path / "odd.parquet", drawn(7, 0.2), model="a/$_{$ <b>|")
    write(tmp_path / "robustness" / "h264_3.parquet", drawn(2, 0.5), perturbation="h264_3")
    whole = (tmp_path / "good.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.parquet").write_text("no parquet")
    write(tmp_path / "range.parquet", [1.5, *drawn(1, 0.5)[1:]])
    write(tmp_path / "nan.parquet", [float("nan"), *drawn(1, 0.5)[1:]])
    write(tmp_path / "altered.parquet", drawn(1, 0.4), fingerprints={"test": "0" * 64})
    words = ["leaderboard", str(tmp_path), "--output-dir", str(tmp_path / "out"), "--resamples", "0"]
    assert main(words) == 1
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    reasons = {entry["file"]: entry["reason"] for entry in report["unusable"]}
    assert set(reasons) == {f"{name}.parquet" for name in ("cut", "text", "range", "nan", "altered")}
    assert "1.5, no number from 0 to 1" in reasons["range.parquet"]
    assert "says that its clips have the fingerprint 000000000000" in reasons["altered.parquet"]
    assert all(name in printed and str(tmp_path) + "/" + name not in reasons[name] for name in reasons)
    assert report["left_out"] == [
        {"file": "robustness/h264_3.parquet", "reason": "of perturbed clips (h264_3)"}
    ]
    page, text = (tmp_path / "out" / "report.html").read_text(), (tmp_path / "out" / "report.md").read_text()
    for shown in (printed, page, text):
        assert "1.\N{NO-BREAK SPACE}runs/good" in shown and "far below 0.5" in shown
    assert "$_{$ &lt;b&gt;|" in page and "$_{$ <b>\\|" in text
    assert "<svg" in page and "plots/table_1.svg" in text and report["tables"][0]["fingerprint"] in text
    assert "cut.parquet" in page and "h264_3.parquet" in page


def test_nothing_to_rank(tmp_path, capsys):
    with pytest.raises(ComparisonError, match="There is no folder"):
        make_leaderboard(tmp_path / "none")
    (tmp_path / "text.parquet").write_text("no parquet")
    assert main(["leaderboard", str(tmp_path), "--output-dir", str(tmp_path / "out")]) == 2
    assert "no predictions of untouched clips" in capsys.readouterr().err
    write(tmp_path / "fakes.parquet", [0.5, 0.6], ["a", "b"], [1, 1])
    (row,) = make_leaderboard(tmp_path)["tables"][0]["rows"]
    assert row["undefined"] == "all 2 clips are fake" and row["rank"] is None
    assert main(["leaderboard", str(tmp_path), "--output-dir", str(tmp_path / "out")]) == 1
    assert "all 2 clips are fake" in capsys.readouterr().out


def test_without_properties_the_table_says_so(tmp_path):
    write(tmp_path / "one.parquet", drawn(1, 0.5), facts=None)
    (table,) = make_leaderboard(tmp_path, n_resamples=0)["tables"]
    assert table["rows"][0]["baseline"] is None and "there is no baseline" in table["notes"][0]
    write(tmp_path / "one.parquet", drawn(1, 0.5), facts=[None, *FACTS[1:]])
    (table,) = make_leaderboard(tmp_path, n_resamples=0)["tables"]
    assert "known of 39 of 40 clips" in table["notes"][0] and table["rows"][0]["baseline"] is not None


def test_properties_survive_the_file(tmp_path):
    predictions, _ = read_predictions(write(tmp_path / "one.parquet", drawn(1, 0.5)))
    assert carried_properties(predictions) == {
        path: {name: facts[name] for name in ("width", "height", "fps", "bitrate", "duration", "has_audio")}
        for path, facts in zip(PATHS, FACTS, strict=True)
    }

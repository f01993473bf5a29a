"""The curve of a cascade, from predictions whose curve is known, and against the pipeline itself."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from modeling_avlmm.evaluation.predictions import write_predictions
from modeling_avlmm.inference.gate import Gate

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cascade_curve.py"
spec = importlib.util.spec_from_file_location("cascade_curve", SCRIPT)
cascade_curve = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cascade_curve)

ABOUT = {
    "model": "some/detector",
    "dataset": "avfolder",
    "protocol": "split",
    "synthetic": False,
    "split": "test",
    "validation_split": "validation",
    "temperature": None,
}
# The gate has one pair of clips the wrong way round, in the middle; the model has none.
LABELS = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
GATE = [0.02, 0.05, 0.1, 0.3, 0.62, 0.4, 0.7, 0.9, 0.95, 0.98]
MODEL = [0.2, 0.1, 0.2, 0.3, 0.1, 0.9, 0.8, 0.7, 0.8, 0.9]


def write(folder: Path, scores: list[float | None], labels=LABELS, validation=None, **more) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"split": split, "path": f"{split}/{number}.mp4", "label": label, "score": score}
        for split, column in (("test", scores), ("validation", validation or scores))
        for number, (label, score) in enumerate(zip(labels, column, strict=True))
    ]
    write_predictions(folder / "predictions.parquet", rows, ABOUT | more)
    return folder


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    return write(tmp_path / "gate", GATE), write(tmp_path / "model", MODEL)


def test_known_curve(folders):
    pair = cascade_curve.load(*folders, fit=False)
    assert pair.temperatures == {"gate": 1.0, "model": 1.0} and pair.left_out == 0
    # One clip is wrong either way, the real one at 0.62 or the fake one at 0.4; the former threshold is nearer to 0.5.
    assert pair.thresholds["gate"] == pytest.approx(0.35)
    assert pair.thresholds["model"] == pytest.approx(0.5)
    rows = cascade_curve.curve(pair, gate_cost=1.0, model_cost=10.0, steps=10)
    assert [row["who"] for row in rows] == ["gate", *["cascade"] * 11, "model"]
    # 25 pairs, of which the gate has one the wrong way round.
    assert rows[0]["auc"] == pytest.approx(24 / 25) and rows[0]["balanced_accuracy"] == pytest.approx(0.9)
    assert rows[-1]["auc"] == 1.0 and rows[-1]["balanced_accuracy"] == 1.0
    assert (rows[0]["cost"], rows[-1]["cost"]) == (1.0, 10.0)
    cascades = rows[1:-1]
    assert [row["share"] for row in cascades] == pytest.approx([step / 10 for step in range(11)])
    assert [row["cost"] for row in cascades] == pytest.approx([1.0 + step for step in range(11)])
    for key in ("auc", "balanced_accuracy"):
        assert cascades[0][key] == rows[0][key] and cascades[-1][key] == rows[-1][key]
    assert (cascades[-1]["low"], cascades[-1]["high"]) == (0.0, 1.0)
    # From the threshold outwards: 0.4 and 0.3 first; all clips are right once that at 0.62 is left to the model.
    distance = np.abs(np.log(np.array(GATE) / (1 - np.array(GATE))) - np.log(0.35 / 0.65))
    needed = int((distance <= distance[4]).sum())
    assert [row["balanced_accuracy"] for row in cascades] == [0.9] * needed + [1.0] * (11 - needed)
    chosen = cascade_curve.choose(rows, "balanced_accuracy", 0.0)
    assert chosen is cascades[needed] and chosen["low"] < 0.6 < chosen["high"]
    assert cascade_curve.choose(rows, "balanced_accuracy", 0.1) is cascades[0]
    assert cascade_curve.choose(rows, "balanced_accuracy", -0.1) is None


def test_clips_get_the_verdicts_that_the_pipeline_gives_them(folders):
    pair = cascade_curve.load(*folders)
    gate = Gate.__new__(Gate)  # the rule alone, without a detector
    shares = []
    for gate.band in cascade_curve.bands(pair.validation, pair.thresholds["gate"], 7):
        first = [{"score": score, "threshold": pair.thresholds["gate"]} for score in pair.test.gate]
        sure = [gate.is_sure(result) for result in first]
        second = [{"score": score, "threshold": pair.thresholds["model"]} for score in pair.test.model]
        results = [a if own else b for a, b, own in zip(first, second, sure, strict=True)]
        found = cascade_curve.cascade(pair.test, gate.band, pair.thresholds)
        shares.append(found["share"])
        assert found["share"] == pytest.approx(1 - np.mean(sure))
        assert found["auc"] == roc_auc_score(LABELS, [result["score"] for result in results])
        called_fake = [result["score"] >= result["threshold"] for result in results]
        assert found["balanced_accuracy"] == balanced_accuracy_score(LABELS, called_fake)
    assert shares[0] == 0 and shares[-1] == 1 and shares == sorted(shares)


def test_test_clips_choose_nothing(tmp_path):
    def chosen_on(labels_of_test):
        rows = []
        for name, scores in (("gate", GATE), ("model", MODEL)):
            flipped = [1 - s for s in scores] if labels_of_test else scores
            write(tmp_path / name, flipped, validation=scores)
        pair = cascade_curve.load(tmp_path / "gate", tmp_path / "model")
        rows = cascade_curve.curve(pair, 1.0, 10.0)
        values = [{k: v for k, v in row.items() if k[:3] in ("low", "hig", "val")} for row in rows]
        return pair.temperatures, pair.thresholds, values, [row["auc"] for row in rows]

    honest, mirrored = chosen_on(False), chosen_on(True)
    assert honest[:3] == mirrored[:3] and honest[3] != mirrored[3]
    assert mirrored[3][0] == pytest.approx(1 - 24 / 25)


def test_scores_are_calibrated_on_validation(tmp_path):
    from modeling_avlmm.evaluation.calibration import fit_temperature

    write(tmp_path / "gate", GATE, temperature={"overall": 3.0})
    write(tmp_path / "model", GATE)
    fitted = cascade_curve.load(tmp_path / "gate", tmp_path / "model")
    expected = fit_temperature(LABELS, GATE)
    assert fitted.temperatures == {"gate": expected, "model": expected}
    own = cascade_curve.load(tmp_path / "gate", tmp_path / "model", fit=False)
    assert own.temperatures == {"gate": 3.0, "model": 1.0}
    np.testing.assert_allclose(
        np.log(own.test.gate / (1 - own.test.gate)), np.log(own.test.model / (1 - own.test.model)) / 3
    )


def test_a_detector_without_a_temperature_that_fits(folders, capsys):
    # Every clip is on the right side of 0.5.
    assert cascade_curve.load(*folders).temperatures["model"] == 1.0
    assert "model: temperature 1, the detector's own. No temperature fits" in capsys.readouterr().err


def test_the_command_writes_table_and_plots(folders, tmp_path, capsys):
    unreadable = [None, *MODEL[1:]]
    write(folders[1], unreadable, validation=MODEL)
    words = ["--gate", str(folders[0]), "--model", str(folders[1]), "--to", str(tmp_path / "out" / "curve")]
    assert cascade_curve.main([*words, "--gate-cost", "2", "--model-cost", "100", "--steps", "5"]) == 0
    out = capsys.readouterr().out
    assert "9 clips; 10 of validation" in out and "1 clips that either could not read" in out
    assert "--gate-band" in out and "<- chosen" in out
    with open(tmp_path / "out" / "curve.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["who"] for row in rows] == ["gate", *["cascade"] * 6, "model"]
    assert {row["unit"] for row in rows} == {"GFLOPs"} and [r["chosen"] for r in rows].count("True") == 1
    assert [float(row["cost"]) for row in rows[1:-1]] == pytest.approx(
        [2 + 100 * float(row["share"]) for row in rows[1:-1]]
    )
    first = (tmp_path / "out" / "curve.svg").read_bytes()
    assert b"mean cost of a clip, GFLOPs" in first
    assert (tmp_path / "out" / "curve.png").read_bytes()[:4] == b"\x89PNG"
    cascade_curve.main([*words, "--gate-cost", "2", "--model-cost", "100", "--steps", "5"])
    assert (tmp_path / "out" / "curve.svg").read_bytes() == first


def test_costs_can_be_measured(tmp_path, tiny_detector, clips, capsys):
    for name, scores in (("gate", GATE), ("model", MODEL)):
        write(tmp_path / name, scores, model=str(tiny_detector))
    words = ["--gate", str(tmp_path / "gate"), "--model", str(tmp_path / "model"), "--device", "cpu"]
    words += ["--measure", str(clips["short"]), "--threads", "1", "--to", str(tmp_path / "curve")]
    assert cascade_curve.main(words) == 0
    with open(tmp_path / "curve.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["unit"] for row in rows} == {"seconds"} and all(row["measured_device"] for row in rows)
    assert 0 < float(rows[0]["cost"]) < 60 and 0 < float(rows[-1]["cost"]) < 60


def test_what_does_not_fit_together_is_told(folders, tmp_path, capsys):
    gate, model = folders
    words = ["--gate-cost", "1", "--model-cost", "10"]

    def said(one, other):
        assert cascade_curve.main(["--gate", str(one), "--model", str(other), *words]) == 2
        return capsys.readouterr().err

    assert "--model: There is no file" in said(gate, tmp_path / "none")
    other = write(tmp_path / "other", MODEL, protocol="else")
    assert "differ in protocol (split, else)" in said(gate, other)
    relabelled = write(tmp_path / "relabelled", MODEL, labels=[1, *LABELS[1:]])
    assert "differ in clips or labels, e.g. test/test/0.mp4" in said(gate, relabelled)
    half = [None if label else score for label, score in zip(LABELS, MODEL, strict=True)]
    one_class = write(tmp_path / "half", MODEL, validation=half)
    assert "readable real and fake clips of a validation split" in said(gate, one_class)
    for wrong in (["--gate-cost", "1"], [], [*words, "--measure", "x.mp4"], [*words, "--steps", "0"]):
        with pytest.raises(SystemExit) as stop:
            cascade_curve.main(["--gate", str(gate), "--model", str(model), *wrong])
        assert stop.value.code == 2

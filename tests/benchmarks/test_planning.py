"""The plan fills in what was measured or assumed, and leaves open what was not."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def planning(monkeypatch):
    """The script with one corpus of known work, as that of the 7B shape takes a minute to derive."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import planning

    work = [
        planning.Work("stage 1", 36_000, 8e13, 40.0, 41.0),
        planning.Work("scoring", 3_600, 4e13, 20.0, 20.0),
    ]
    monkeypatch.setattr(planning, "CORPORA", [planning.CorpusSize("corpus", "none.yaml", 36_000, 3_600)])
    monkeypatch.setattr(planning, "work_on", lambda corpus: work)
    return planning


def cells(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("| corpus")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines][1:]


def test_nothing_is_filled_in_that_was_not_measured(planning):
    stage, scoring = cells(planning.table({}, None, "H100"))
    assert stage[2:4] == ["36,000", "80.0"] and stage[4:8] == ["not measured"] * 4
    assert stage[8] == "40.0 alone, 41.0 with DDP, predicted" and scoring[8] == "20.0, predicted"


def test_an_assumption_is_called_one(planning):
    text = planning.table({}, 0.4, "A100")
    stage, scoring = cells(text)
    # 0.4 x 312 TFLOP/s over 80 TFLOP: 1.56 clips/s.
    assert stage[4] == "1.56, assumed" and scoring[4] == "3.12, assumed"
    assert stage[5:8] == [f"{36_000 / 1.56 / 3600 / gpus:.3g}" for gpus in (1, 8, 64)]
    assert "Assumption, not measured: MFU 0.4 of 312 TFLOP/s" in text


def test_what_was_measured_comes_first(planning, tmp_path):
    file = tmp_path / "gpu.csv"
    rows = [
        {"what": "scoring", "clips_per_s": "2", "peak_gib": "21.5", "device": "a GPU", "date": "2026-01-01"},
        {"what": "scoring", "clips_per_s": "4", "peak_gib": "25.5", "device": "a GPU", "date": "2026-01-01"},
        {"what": "something", "clips_per_s": "9", "peak_gib": "1", "device": "a GPU", "date": "2026-01-01"},
    ]
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    measured = planning.read_measured(file)
    text = planning.table(measured, None, "H100")
    stage, scoring = cells(text)
    assert scoring[4:9] == ["4, measured", "0.25", "0.0312", "0.00391", "25.5, measured"]
    assert stage[4] == "not measured" and "Measured scoring: a GPU, 2026-01-01." in text


def test_a_file_of_something_else_is_refused(planning, tmp_path):
    file = tmp_path / "other.csv"
    file.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no column what, clips_per_s, peak_gib"):
        planning.read_measured(file)
    file.write_text("what,clips_per_s,peak_gib\nother,1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no row whose"):
        planning.read_measured(file)

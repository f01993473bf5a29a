"""The speed benchmarks on a tiny shape: all ways compute the same, and missing figures have a reason."""

import csv
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import gpu  # noqa: E402
import omni_shapes  # noqa: E402
import scoring  # noqa: E402
import training  # noqa: E402
import turns  # noqa: E402

ABSENT = ("trl", "datasets", "torchcodec")


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return omni_shapes.processor_for(tmp_path_factory.mktemp("shapes"))


def test_the_7b_shape_is_that_of_the_7b_model(processor):
    from modeling_avlmm import AVLMMForDeepfakeDetection

    with torch.device("meta"):
        model = AVLMMForDeepfakeDetection(omni_shapes.detector_config("7b", processor))
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6, 1) == 8931.8


def test_every_way_of_scoring_gives_the_same_verdicts(processor):
    way = scoring.ScoringWays("tiny", processor, "cpu", torch.float32, 4096)
    rows = way.measure("mixed", [1.0, 2.0, 0.5], turns=1)
    assert [row["way"] for row in rows] == ["stock", "one pass", "ours"]
    assert rows[0]["clips_of_stock"] == 1 and rows[0]["logit_difference"] is None
    assert all(row["clips_per_s"] > 0 and row["logit_difference"] < 1e-4 for row in rows[1:])
    assert rows[0]["tokens"] < rows[0]["padded_tokens"]


@pytest.mark.parametrize("with_trl", [True, False])
@pytest.mark.parametrize("kind", training.STAGES)
def test_both_trainers_start_from_the_same_loss(processor, monkeypatch, kind, with_trl):
    monkeypatch.setattr(training, "WITH_TRL", with_trl)
    setting = training.Setting("tiny", [0.5, 1.0], 2, "cpu", lora_rank=4)
    ways = training.WAYS[kind]
    assert ("cached" in ways) == (kind == "alignment")
    rows = training.compare([training.train(way, kind, processor, setting) for way in ways])
    stock, ours = rows[:2]
    for cached in rows[2:]:
        assert cached["loss"] == pytest.approx(ours["loss"], abs=1e-5)
        assert cached["steps"] == 1 and 0 < cached["mfu"] < 1
    assert stock["loss"] == pytest.approx(ours["loss"], abs=2e-4)
    assert stock["trained_m"] == ours["trained_m"] > 0
    assert stock["tokens_of_stock"] == 1 and ours["tokens_of_stock"] > 0 and ours["steps"] == 1
    assert 0 < ours["mfu"] < 1
    assert ("Trainer (TRL" in stock["trainer"]) != with_trl


def test_turns_end_when_time_is_up_and_the_quickest_counts():
    waits = iter([0.0, 0.03, 0.01, 0.0])
    found = turns.take_turns({"it": lambda: time.sleep(next(waits))}, 2, "cpu")["it"]
    assert found["turns"] == 2 and 0.01 <= found["seconds"] < 0.03
    found = turns.take_turns({"it": lambda: None}, 5, "cpu", until=time.monotonic() - 1)["it"]
    assert found["turns"] == 1 and found["seconds"] is not None


def test_a_part_that_is_out_of_memory_has_no_figure():
    def fails():
        raise torch.cuda.OutOfMemoryError("too much")

    found = turns.take_turns({"large": fails, "small": lambda: None}, 1, "cpu")
    assert found["large"]["error"] == "out of memory" and found["large"]["seconds"] is None
    assert found["small"]["seconds"] is not None


def test_a_part_needs_the_time_of_the_longest_before_it():
    budget = gpu.Budget(100, reserve=10)
    assert budget.needed("scoring") == 10
    budget.longest["scoring"] = 50
    assert budget.needed("scoring") == 60 and budget.needed("stage 1") == 10


def test_a_part_that_fails_does_not_end_the_rest(processor, monkeypatch, tmp_path, capsys):
    def broken(*args, **kwargs):
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(scoring.ScoringWays, "measure", broken)
    monkeypatch.setattr(
        training, "train", lambda *a, **k: {"way": "ours", "tokens_per_s": 2.0, "peak_gib": 1.0}
    )
    monkeypatch.setattr(training, "show", lambda rows: None)
    monkeypatch.setattr(gpu, "processor_for", lambda work: processor)
    arguments = ["gpu.py", "--shape", "tiny", "--device", "cpu", "--output", str(tmp_path), "--seconds", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    gpu.main()
    rows = read(tmp_path)
    assert [row["what"] for row in rows] == ["scoring"] * 2 + ["stage 1"] * 2 + ["stage 2"] * 2
    assert rows[0]["note"] == "RuntimeError: no kernel for this" and rows[-1]["tokens_per_s"] == "2.0"


def test_it_runs_without_trl_datasets_and_torchcodec_and_says_what_it_did_not_begin(tmp_path):
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({ABSENT!r})); sys.path.insert(0, {str(BENCHMARKS)!r}); "
        "sys.argv[0] = 'gpu.py'; runpy.run_path(sys.path[0] + '/gpu.py', run_name='__main__')"
    )
    arguments = ["--shape", "tiny", "--device", "cpu", "--minutes", "0", "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=BENCHMARKS.parent,
    )
    assert done.returncode == 0, done.stderr
    rows = read(tmp_path)
    assert len(rows) == 7 and all(row["note"].startswith("not begun: ") for row in rows)


def read(folder: Path) -> list[dict]:
    (file,) = folder.glob("gpu_tiny_*.csv")
    with file.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_batches_have_all_lengths_in_turn():
    made = scoring.batches([4, 8, 16], 4)
    assert made == {"one": [8], "alike": [8] * 4, "mixed": [4, 8, 16, 4]}

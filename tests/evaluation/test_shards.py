"""`evaluate_avd.py --shard`: shares scored apart make the report of one run."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dataset_scripts.run_lock import InUseError, only_run_in
from modeling_avlmm.evaluation.evaluate import evaluate_protocol
from modeling_avlmm.evaluation.evaluation_error import EvaluationError
from modeling_avlmm.evaluation.evaluation_options import EvaluationOptions
from modeling_avlmm.evaluation.predictions import read_journal
from modeling_avlmm.evaluation.scored_elsewhere import ScoresOptions, evaluate_scores
from modeling_avlmm.inference.engine_options import RayOptions
from modeling_avlmm.inference.sharding import Shard


def test_shards_make_the_report_of_one_run(gate_folder, clip_folder, tmp_path, monkeypatch):
    def options(folder: str, **more) -> EvaluationOptions:
        about = {"model": str(gate_folder), "dataset": "avfolder", "data_dir": clip_folder, "device": "cpu"}
        return EvaluationOptions(**about, output_dir=tmp_path / folder, n_resamples=20, **more)

    whole, _ = evaluate_protocol(options("whole"))
    for number in (1, 2):
        report, folder = evaluate_protocol(options("out", shard=Shard(number, 2)))
        assert report is None and not (folder / "predictions.parquet").exists()
    shares = {name: read_journal(tmp_path / "out" / name) for name in ("test.0of2.jsonl", "test.1of2.jsonl")}
    scored = [path for share in shares.values() for path in share]
    assert len(scored) == len(set(scored)) == whole["clips"] and all(shares.values())

    # The last run has nothing to score.
    monkeypatch.setattr(
        "modeling_avlmm.inference.engines.LocalEngine.results", lambda self, sources, **_: iter(())
    )
    merged, folder = evaluate_protocol(options("out"))
    assert merged == whole
    for name in ("report.json", "report.md", "predictions.parquet"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list(folder.glob("*.jsonl"))
    assert json.loads((folder / "run.json").read_text())["dataset"] == "avfolder"


def test_shards_share_a_folder_and_the_whole_does_not(tmp_path):
    with only_run_in(tmp_path, "1of2"):
        with only_run_in(tmp_path, "2of2"):
            pass
        for share in (None, "1of2"):
            with pytest.raises(InUseError, match="is in use by"), only_run_in(tmp_path, share):
                pass
    with only_run_in(tmp_path), pytest.raises(InUseError), only_run_in(tmp_path, "2of2"):
        pass
    with only_run_in(tmp_path, "2of2"):
        pass


def test_what_belongs_to_the_whole_is_refused():
    about = {"model": "m", "dataset": "avfolder", "data_dir": "d"}
    with pytest.raises(EvaluationError, match="without --shard"):
        EvaluationOptions(**about, audit=True, shard=Shard(1, 2))
    with pytest.raises(EvaluationError, match="score them on Ray first"):
        EvaluationOptions(**about, perturb=["noise"], ray=RayOptions())


def test_scores_of_another_program_and_shares_of_a_detector_do_not_mix(gate_folder, clip_folder, tmp_path):
    corpus = {"dataset": "avfolder", "data_dir": clip_folder, "n_resamples": 0}
    share = EvaluationOptions(
        model=str(gate_folder), **corpus, output_dir=tmp_path / "shares", device="cpu", shard=Shard(2, 2)
    )
    evaluate_protocol(share)
    before = {path.name: path.read_bytes() for path in (tmp_path / "shares").iterdir()}
    table = tmp_path / "theirs.csv"
    clips = sorted(path.relative_to(clip_folder) for path in clip_folder.rglob("*") if path.is_file())
    table.write_text("path,score\n" + "".join(f"{clip},0.{n % 10}\n" for n, clip in enumerate(clips)))

    def theirs(folder: str) -> ScoresOptions:
        return ScoresOptions(scores=table, higher_is="fake", **corpus, output_dir=tmp_path / folder)

    with pytest.raises(EvaluationError, match="holds predictions of a detector"):
        evaluate_scores(theirs("shares"))
    after = {path.name: path.read_bytes() for path in (tmp_path / "shares").iterdir() if path.name in before}
    assert after == before

    report, folder = evaluate_scores(theirs("theirs"))
    for run in (replace(share, output_dir=folder), replace(share, output_dir=folder, shard=None)):
        with pytest.raises(EvaluationError, match="holds predictions of theirs"):
            evaluate_protocol(run)
    with only_run_in(folder), pytest.raises(InUseError):
        evaluate_scores(theirs("theirs"))
    assert evaluate_scores(theirs("theirs"))[0] == report  # made again

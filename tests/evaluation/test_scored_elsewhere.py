"""Scores of other programs: reading their tables, matching their paths, and the report."""

from __future__ import annotations

import json
import math
import runpy
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_trees.lav_df import write_lav_df

from modeling_avlmm.evaluation.evaluation_error import EvaluationError
from modeling_avlmm.evaluation.fingerprints import split_fingerprint
from modeling_avlmm.evaluation.path_matching import PathMatcher
from modeling_avlmm.evaluation.score_tables import read_table
from modeling_avlmm.evaluation.scored_elsewhere import ScoresOptions, evaluate_scores, match_rows

ROOT = Path(__file__).parents[2]
ROWS = {"x/a.mp4": 0.25, "x/b.mp4": 0.75}


def test_every_format_gives_the_same_rows(tmp_path):
    entries = [{"video_path": path, "score": score} for path, score in ROWS.items()]
    texts = {
        "a.csv": "video_path,score\n" + "".join(f"{p},{s}\n" for p, s in ROWS.items()),
        "a.txt": "".join(f"{p};{s}\n" for p, s in ROWS.items()),
        "a.jsonl": "".join(json.dumps(entry) + "\n" for entry in entries),
        "list.json": json.dumps(entries),
        "keyed.json": json.dumps(ROWS),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    pq.write_table(pa.Table.from_pylist(entries), tmp_path / "a.parquet")
    (tmp_path / "pairs.json").write_text(json.dumps({p: [s, 1 - s] for p, s in ROWS.items()}))
    tables = [read_table(tmp_path / name) for name in (*texts, "a.parquet")]
    tables.append(read_table(tmp_path / "pairs.json", score_column="0"))
    (tmp_path / "avff.json").write_text(
        json.dumps({p: {"pred": [s, 1 - s], "true": [0, 1]} for p, s in ROWS.items()})
    )
    tables.append(read_table(tmp_path / "avff.json", score_column="pred.0"))
    saved = [{"video_path": path, "label": 0, "logits": [1 - score, score]} for path, score in ROWS.items()]
    datasets.Dataset.from_list(saved).save_to_disk(tmp_path / "mrdf")
    tables.append(read_table(tmp_path / "mrdf", score_column="logits.1"))
    (tmp_path / "b.csv").write_text("video;score\n" + "".join(f"{p};{s}\n" for p, s in ROWS.items()))
    tables.append(read_table(tmp_path / "b.csv"))
    for table in tables:
        assert {table.name_in(row): table.score_in(where, row) for where, row in table.rows} == ROWS


def test_frames_are_averaged_to_clips(tmp_path):
    """As in DeepfakeBench's video AUC; a picture that is a clip of its own stays one."""
    lines = ["FF++/c23/frames/000_003/024.png,0.25", "FF++/c23/frames/000_003/048.png,0.75", "photo.png,0.5"]
    (tmp_path / "frames.csv").write_text("path,prob\n" + "\n".join(lines) + "\n")
    matched = match_rows(read_table(tmp_path / "frames.csv"), ["c23/000_003.mp4", "photo.png"])
    assert {path: of["score"] for path, of in matched.scores.items()} == {
        "c23/000_003.mp4": 0.5,
        "photo.png": 0.5,
    }
    assert matched.frames == 2 and matched.found == {"stem": 1, "exact": 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "path,prob,pred\na,1,1\n", "could be in prob or pred; name the column"),
        ("a.csv", "path,score\na,1,2\n", "line 2 has more cells"),
        ("a.json", '{"a.mp4": [[0.9, 1.0, 2.0]]}', "segments with a confidence each"),
        ("a.json", "{", "cannot be read"),
        ("a.jsonl", "3\n", "line 1 is no object"),
        ("a.xlsx", "", "must end in"),
        ("a.json", '{"a.mp4": {"pred": [0.9, 0.1]}}', "name the column of one, pred.0 or pred.1"),
        ("a.json", '{"predictions": [0.1], "labels": [1]}', "no paths, as DeepfakeBench-MM"),
        ("a.parquet", "no", "cannot be read"),
    ],
)
def test_wrong_tables(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(EvaluationError, match=message):
        read_table(tmp_path / name)


def test_paths_are_matched_by_the_longest_common_tail():
    matcher = PathMatcher(["train/a.mp4", "test/a.mp4", "test/b.mp4"])
    assert matcher.match("test/a.mp4") == ("test/a.mp4", "exact")
    assert matcher.match("D:\\corpus\\test\\a.mp4") == ("test/a.mp4", "tail")
    assert matcher.match("b.mp4") == ("test/b.mp4", "tail")
    assert matcher.match("crops/b.mp4") == ("test/b.mp4", "part")
    assert matcher.match("faces/test/b") == ("test/b.mp4", "stem")
    assert matcher.match("b.wav")[0] is None
    assert matcher.match("a.mp4")[0] is None
    assert matcher.match("c.mp4") == (None, "no clip of that name")


def test_a_fingerprint_is_of_clips_and_labels_in_any_order():
    # printf 'a\t0\nb\t1\n' | sha256sum
    known = "27a5556067d793ae78d892a88957ab5fe58af20e6ebabc27ea66b2aa1aa210f9"
    assert split_fingerprint([("a", 0), ("b", 1)]) == known
    assert split_fingerprint([("b", 1), ("a", 0)]) == known
    assert split_fingerprint([("a", 1), ("b", 0)]) != known


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, dataset_cache) -> tuple[Path, dict[str, int]]:
    """LAV-DF with its labels by path, `test` alone."""
    root = tmp_path_factory.mktemp("corpora") / "LAV-DF"
    rows = write_lav_df(root)
    return root, {row["file"]: int(row["n_fakes"] > 0) for row in rows if row["split"] == "test"}


def run(monkeypatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["evaluate_avd.py", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "evaluate_avd.py"), run_name="__main__")
    return end.value.code


@pytest.mark.filterwarnings("ignore::dataset_scripts.errors.CorpusWarning")
def test_a_report_with_coverage(corpus, tmp_path, monkeypatch, capsys):
    root, labels = corpus
    paths = list(labels)
    table = tmp_path / "theirs.csv"
    lines = [f"/data/{path},{0.1 + 0.8 * labels[path]}" for path in paths[1:]]
    lines += [lines[0], f"{paths[2]},0.5", "elsewhere.mp4,0.3"]
    table.write_text("file,score\n" + "\n".join(lines) + "\n")
    where = ["--scores", table, "--dataset", "lav_df", "--data-dir", root, "--resamples", 0]
    assert run(monkeypatch, *where, "--higher-is", "fake", "--output-dir", tmp_path / "out") == 1
    assert "2 of 8 clips of test have no score" in capsys.readouterr().err
    words = [*where, "--max-missing", 0.3, "--output-dir", tmp_path / "out", "--higher-is"]
    assert run(monkeypatch, *words, "fake") == 0
    shown = capsys.readouterr()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["overall"]["auc"] == 1 and report["overall"]["n"] == 6 and report["localization"] is None
    assert report["fingerprints"]["test"] == split_fingerprint(labels.items())
    assert report["fingerprints"]["test"] in (tmp_path / "out" / "report.md").read_text()
    counted = {name: report["outside"][name] for name in ("rows", "without_score", "double", "unknown")}
    assert counted == {"rows": 10, "without_score": 2, "double": 2, "unknown": 1}
    assert report["outside"]["matched"] == {"exact": 0, "tail": 7, "part": 0, "stem": 0}
    listed = (tmp_path / "out" / "score_rows.tsv").read_text().splitlines()
    assert [line.split("\t")[:2] for line in listed] == [
        ["no score", paths[0]],
        ["no score", paths[2]],
        ["double", paths[1]],
        ["double", paths[2]],
        ["unknown", "elsewhere.mp4"],
    ]
    assert "far below" not in shown.out + shown.err
    assert run(monkeypatch, *words, "real") == 0
    shown = capsys.readouterr()
    assert "evaluate_avd: The AUC is 0.0000, far below 0.5" in shown.err
    assert "give --higher-is fake" in (tmp_path / "out" / "report.md").read_text()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["overall"]["auc"] == 0


@pytest.mark.filterwarnings("ignore::dataset_scripts.errors.CorpusWarning")
def test_polarity_and_scale_keep_every_rank(corpus, tmp_path):
    """Log-odds far beyond what a probability can hold, and tiny probabilities of real, are ranked exactly."""
    root, labels = corpus
    steps = {path: 40.0 + index for index, path in enumerate(labels)}
    tables = {
        "fake": steps,
        "real": {path: math.exp(-step) for path, step in steps.items()},
    }
    found = []
    for higher_is, scores in tables.items():
        (tmp_path / f"{higher_is}.json").write_text(json.dumps(scores))
        options = {
            "dataset": "lav_df",
            "data_dir": root,
            "output_dir": tmp_path / higher_is,
            "n_resamples": 0,
        }
        report, _ = evaluate_scores(
            ScoresOptions(scores=tmp_path / f"{higher_is}.json", higher_is=higher_is, **options)
        )
        found.append(report["overall"]["auc"])
        assert report["outside"]["scale"] == ("log-odds" if higher_is == "fake" else "probabilities")
    won = [
        steps[a] > steps[b] for a in labels for b in labels if labels[a] == 1 and labels[b] == 0
    ]  # AUC by its definition
    assert found == [sum(won) / len(won)] * 2


TABLE = ["--scores", "a.csv", "--higher-is", "fake", "--dataset", "lav_df", "--data-dir", "x"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scores", "a.csv", "--dataset", "lav_df", "--data-dir", "x"], "--scores needs --higher-is"),
        (["--scores", "a.csv", "--model", "m"], "--model and --scores exclude each other"),
        ([*TABLE, "--engine", "ray"], "--engine and --shard are about scoring"),
        ([*TABLE, "--shard", "1/2"], "--engine and --shard are about scoring"),
        (["--predictions", "p.parquet", "--shard", "1/2"], "--engine and --shard are about scoring"),
        (["--higher-is", "fake"], "are about --scores"),
    ],
)
def test_options_that_do_not_go_together(monkeypatch, capsys, words, message):
    assert run(monkeypatch, *words) == 2
    assert message in capsys.readouterr().err

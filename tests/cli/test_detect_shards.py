"""`detect --output-dir` and `--shard`: Parquet, continuing, shares of the files, and putting them together."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ssavd_factory import save_small

from modeling_avlmm.__main__ import main
from modeling_avlmm.cli.detect.inputs import survey, walk
from modeling_avlmm.cli.detect.parquet import ResultParquet
from modeling_avlmm.inference.sharding import Shard


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return save_small(tmp_path_factory.mktemp("small"))


@pytest.fixture
def folder(tmp_path, clips) -> Path:
    """Six clips in two folders, and one that is no video."""
    place = tmp_path / "folder"
    for number, clip in enumerate(("short", "silent", "sound", "short", "silent", "short", "broken")):
        path = place / "ab"[number % 2] / f"d{number}{clips[clip].suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clips[clip], path)
    return place


def detect(capsys, *words: str | Path) -> tuple[int, list[dict], str]:
    """Run the command with `--json`; return its status, its results and the text on stderr."""
    status = main(["detect", *map(str, words), "--device", "cpu", "--json"])
    printed = capsys.readouterr()
    return status, [json.loads(line) for line in printed.out.splitlines()], printed.err


def rows(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def test_shares_are_a_partition_that_no_other_file_changes():
    names = [f"folder/{number}.mp4" for number in range(300)]
    shares = [[name for name in names if Shard(number, 7).holds(name)] for number in range(1, 8)]
    assert sorted(name for share in shares for name in share) == sorted(names)
    assert max(map(len, shares)) - min(map(len, shares)) < 40  # 43 each, by chance
    # The rule is fixed: shards of one archive may be scored months apart.
    held = [name for name in ("a.mp4", "b.mp4", "c.mp4", "é.mp4", "\udce9.mp4") if Shard(1, 4).holds(name)]
    assert held == ["a.mp4", "b.mp4", "é.mp4"]
    assert Shard.parse("3/16") == Shard(3, 16) and str(Shard(3, 16)) == "3of16"
    for text in ("0/4", "5/4", "4", "1/0", "a/b", "-1/4", "1/4/2"):
        with pytest.raises(ValueError, match="shard"):
            Shard.parse(text)


def test_a_share_of_a_folder_does_not_depend_on_where_it_is(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere)
    shard = Shard(1, 2)
    here, there = (
        [os.path.relpath(f, at) for f in walk([str(at)], shard=shard)] for at in (folder, elsewhere)
    )
    assert here == there
    found = survey([str(folder)], shard=shard)
    assert (found.files, found.elsewhere) == (len(here), 7 - len(here)) and 0 < len(here) < 7
    assert f"shard 1 of 2; {7 - len(here)} are in other shards" in next(found.lines())


def test_shards_put_together_are_the_whole(small, folder, tmp_path, capsys):
    words = (folder, "--model", small)
    status, whole, _ = detect(capsys, *words, "--output-dir", tmp_path / "whole")
    assert status == 1 and len(whole) == 7
    out = tmp_path / "out"
    parts = []
    for number in (1, 2, 3):
        _, part, err = detect(capsys, *words, "--output-dir", out, "--shard", f"{number}/3")
        table = rows(out / f"results.{number}of3.parquet")
        assert [{name: row[name] for name in result} for row, result in zip(table, part, strict=True)] == part
        assert f"shard {number} of 3" in err
        parts += part
    assert sorted(parts, key=lambda result: result["file"]) == sorted(whole, key=lambda r: r["file"])

    # A share that is done is not scored again, and shares of another number are refused.
    assert "were done before" in detect(capsys, *words, "--output-dir", out, "--shard", "1/3")[2]
    status, _, err = detect(capsys, *words, "--output-dir", out, "--shard", "1/2")
    assert status == 2 and "divide the files as before" in err

    status, merged, err = detect(capsys, *words, "--output-dir", out)
    assert (status, merged) == (1, whole)
    assert (
        "results of 3 shards were taken over" in err and "6 of 7 files were done before" in err
    )  # not the broken one
    assert sorted(path.name for path in out.iterdir() if path.suffix != ".lock") == [
        "journal.jsonl",
        "results.parquet",
    ]
    assert rows(out / "results.parquet") == rows(tmp_path / "whole" / "results.parquet")
    assert detect(capsys, *words, "--output-dir", out)[1] == whole


def test_a_stopped_run_leaves_a_journal_and_no_table(small, folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    add = ResultParquet.add

    def stopping(table, file, result):
        add(table, file, result)
        if len(table._rows) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ResultParquet, "add", stopping)
        assert detect(capsys, folder, "--model", small, "--output-dir", out)[0] == 130
    assert [path.name for path in out.iterdir() if path.suffix == ".parquet"] == []
    status, results, err = detect(capsys, folder, "--model", small, "--output-dir", out)
    assert status == 1 and len(results) == 7 and "3 of 7 files were done before" in err
    lines = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    assert sorted(line["file"] for line in lines if "result" in line) == sorted(r["file"] for r in results)


def test_the_table_keeps_what_it_has_no_column_for_and_names_that_are_no_text(tmp_path):
    result = {
        "label": "fake",
        "score": 0.5,
        "windows": [],
        "warnings": ["x\udce9"],
        "error": None,
        "own": [1, {"a": 2}],
    }
    with ResultParquet(tmp_path / "r.parquet") as table:
        table.add("caf\udce9.mp4", result)
        table.complete = True
    (row,) = rows(tmp_path / "r.parquet")
    assert (row["file"], row["warnings"]) == ("caf\\xe9.mp4", ["x\\xe9"])
    assert json.loads(row["more"]) == {"own": [1, {"a": 2}]} and row["has_video"] is None


def test_options_that_do_not_go_together(small, folder, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    for words, text in (
        (["--shard", "1/2"], "--shard keeps its results in a folder"),
        (["--engine", "ray"], "--engine ray keeps its results in a folder"),
        (["--output-dir", tmp_path / "o", "--resume", tmp_path / "j"], "leave --resume out"),
        (["--output-dir", file], "is a file"),
        (["--ray-workers", "2"], "--ray-workers is an option of --engine ray"),
        (
            ["--engine", "ray", "--shard", "1/2", "--output-dir", tmp_path / "o"],
            "divides the work without Ray",
        ),
    ):
        status, _, err = detect(capsys, folder, "--model", small, *words)
        assert status == 2 and text in err, err
    for words in (["--shard", "3/2"], ["--ray-workers", "4-2"], ["--ray-cpus", "0"]):
        with pytest.raises(SystemExit):
            main(["detect", "x.mp4", *words])
    assert not (tmp_path / "o").exists()

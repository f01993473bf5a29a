"""The benchmark of listing a corpus folder, on a small one."""

import sys
from pathlib import Path

import datasets

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import corpus_listing


def test_both_ways_list_the_same_files(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)  # no network
    rows = corpus_listing.compare(230)
    assert [(row["what"], row["files"]) for row in rows] == [
        ("import datasets", 0),
        ("stock factory", 230),
        ("corpus builders", 230),
    ]
    assert all(row["cpu_s"] >= 0 and row["wall_s"] >= 0 for row in rows)

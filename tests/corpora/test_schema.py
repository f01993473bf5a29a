"""The base of the builders, their splits, and their registration with `datasets`."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import datasets
import pytest
from dataset_factory import rows_of, touch
from datasets import load_dataset, load_dataset_builder
from torch.utils.data import DataLoader

import dataset_scripts
from dataset_scripts.corpus import MissingFiles, scan_files
from dataset_scripts.schema import FAKE, FEATURES, LABELS, REAL
from dataset_scripts.splits import split_twice, stable_order, stratified_split
from modeling_avlmm import configuration_detector

datasets.disable_progress_bars()
REPOSITORY = Path(dataset_scripts.__file__).parent.parent


def run_python(code: str) -> str:
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


def test_polarity():
    assert LABELS == ["real", "fake"] == list(configuration_detector.LABELS)
    assert (REAL, FAKE) == (0, 1)
    assert [FEATURES[name].str2int("fake") for name in ("label", "video_label", "audio_label")] == [1, 1, 1]


def test_columns():
    assert " ".join(FEATURES) == (
        "video audio label video_label audio_label generator audio_generator language identity source fake_segments path"
    )


def test_registration_waits_for_datasets():
    code = """
import sys, dataset_scripts
dataset_scripts.register()
dataset_scripts.register()
assert "datasets" not in sys.modules
from datasets import get_dataset_config_names
print(*[len(get_dataset_config_names(name)) for name in dataset_scripts.BUILDERS])
assert not any(name.startswith("modeling_avlmm") for name in sys.modules)
"""
    assert run_python(code) == "16 6 2 6 4 2 2 9 2 3 2 2 3 6 4 2 3"


def test_registering_twice_changes_nothing():
    import datasets.load

    dataset_scripts.register()
    factory, known = (
        datasets.load.PackagedDatasetModuleFactory,
        dict(datasets.load._PACKAGED_DATASETS_MODULES),
    )
    dataset_scripts.register()
    assert datasets.load.PackagedDatasetModuleFactory is factory
    assert known == datasets.load._PACKAGED_DATASETS_MODULES
    assert known.keys() >= dataset_scripts.BUILDERS.keys()


def test_the_formats_of_datasets_still_load(tmp_path):
    dataset_scripts.register()
    (tmp_path / "data.csv").write_text("a\n1\n")
    table = load_dataset("csv", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"), split="train")
    assert table[0] == {"a": 1}


@pytest.fixture
def folder(tmp_path) -> Path:
    dataset_scripts.register()
    for i in range(300):
        touch(tmp_path / "data" / ("real", "fake")[i % 2] / f"{i:03d}.mp4")
    return tmp_path / "data"


def test_worker_processes_read_each_row_once(folder, tmp_path):
    rows = load_dataset(
        "avfolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"), split="full", streaming=True
    )
    assert rows.num_shards == 2
    loader = DataLoader(rows.select_columns(["path", "label"]), batch_size=None, num_workers=2)
    assert Counter(row["path"] for row in loader) == Counter(scan_files(str(folder))[0])


def test_spawned_workers_need_no_registration(folder, tmp_path):
    rows = load_dataset(
        "avfolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"), split="full", streaming=True
    )
    (tmp_path / "rows.pickle").write_bytes(pickle.dumps(rows.select_columns(["path"])))
    code = f"""
import pickle
with open({str(tmp_path / "rows.pickle")!r}, "rb") as file:
    print(len({{row["path"] for row in pickle.load(file)}}))
"""
    assert run_python(code) == "300"


def test_loading_with_several_processes(folder, tmp_path):
    one = load_dataset("avfolder", data_dir=str(folder), cache_dir=str(tmp_path / "1"), split="full")
    two = load_dataset(
        "avfolder", data_dir=str(folder), cache_dir=str(tmp_path / "2"), split="full", num_proc=2
    )
    assert rows_of(one) == rows_of(two)


def test_builders_can_be_pickled(folder, tmp_path):
    builder = load_dataset_builder("avfolder", data_dir=str(folder), cache_dir=str(tmp_path))
    again = pickle.loads(pickle.dumps(builder))
    assert rows_of(again.as_streaming_dataset("full")) == rows_of(builder.as_streaming_dataset("full"))


def test_features_without_data(tmp_path):
    dataset_scripts.register()
    for name in dataset_scripts.BUILDERS:
        assert list(load_dataset_builder(name, cache_dir=str(tmp_path)).info.features)[
            : len(FEATURES)
        ] == list(FEATURES)


def test_scan_files(tmp_path):
    for path in ("b/2.mp4", "b/1.MP4", "a.mkv", "notes.txt", ".hidden.mp4", ".git/3.mp4"):
        touch(tmp_path / path)
    (tmp_path / "b" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert scan_files(str(tmp_path)) == (["a.mkv", "b/1.MP4", "b/2.mp4"], 1)
    assert scan_files(str(tmp_path), (".mp4",)) == (["b/1.MP4", "b/2.mp4"], 2)


def test_missing_files_summary():
    missing = MissingFiles()
    for i in range(4):
        missing.count(f"a/{i}", "a", present=i > 0)
        missing.count(f"b/{i}", "b", present=False)
        missing.count(f"c/{i}", "c", present=True)
    assert missing.summary() == "5 of 12 files are missing: all 4 of 'b', 1 of 4 of 'a'."


def test_stable_order_is_pinned():
    """A different order would be a different benchmark: a change here needs a new version of the builders."""
    assert stable_order(["a", "b", "c", "d", "e"], 0) == stable_order(["e", "d", "c", "b", "a"], 0)
    assert stable_order([f"id{i}" for i in range(6)], 0) == ["id2", "id0", "id1", "id3", "id4", "id5"]


@pytest.mark.parametrize(
    "shares", [{"a": 70, "b": 30}, {"a": 63, "b": 7, "c": 30}, {"a": 1, "b": 1, "c": 1, "d": 1}]
)
def test_stratified_split_meets_the_shares(shares):
    whole = sum(shares.values())
    for sizes in ([100] * 10, [1] * 57, [3, 50, 1, 1, 46], [7]):
        strata = {f"{s}-{i}": s for s, size in enumerate(sizes) for i in range(size)}
        dealt = stratified_split(strata, shares, seed=3)
        assert dealt.keys() == strata.keys()
        total = Counter(dealt.values())
        inside = Counter((strata[name], split) for name, split in dealt.items())
        for split, share in shares.items():
            assert abs(total[split] - share * len(strata) / whole) <= 1
            for s, size in enumerate(sizes):
                assert abs(inside[s, split] - share * size / whole) <= 2


def test_split_twice():
    strata = {f"n{i}": i % 4 for i in range(200)}
    one = split_twice(strata, 0, {"train": 63, "validation": 7, "test": 30})
    two = split_twice(strata, 0, {"train": 50, "validation": 20, "test": 30})
    assert Counter(one.values()) == {"train": 126, "validation": 14, "test": 60}
    assert [n for n in strata if one[n] == "test"] == [n for n in strata if two[n] == "test"]
    given = split_twice(strata, 0, {"train": 9, "validation": 1, "test": 0}, test=["n0", "n1"])
    assert [name for name, split in given.items() if split == "test"] == ["n0", "n1"]

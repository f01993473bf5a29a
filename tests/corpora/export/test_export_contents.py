"""Plain `datasets` reads from an export the builder's rows and the files' own bytes, each clip once."""

from __future__ import annotations

import tarfile
from collections import Counter
from hashlib import sha256
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import torch
from dataset_factory import rows_of, write_fakeavceleb
from datasets import load_dataset
from export_factory import FORMATS, builder_rows, export, exported_rows, fill
from torchcodec.decoders import VideoDecoder

from dataset_scripts.errors import CorpusWarning
from dataset_scripts.export import plan as export_plan
from dataset_scripts.export import shards as export_shards
from dataset_scripts.fakeavceleb import FakeAVCeleb
from modeling_avlmm.publishing.elsewhere import run_without_package

pytestmark = pytest.mark.filterwarnings("ignore::dataset_scripts.errors.CorpusWarning")


LOADED_ELSEWHERE = """
import hashlib, json, sys
folder, cache, clip_column = sys.argv[1:]
import datasets

found = {}
for protocol in datasets.get_dataset_config_names(folder):
    for streaming in (False, True):
        loaded = datasets.load_dataset(folder, protocol, streaming=streaming, cache_dir=cache)
        for split, rows in loaded.items():
            listed = []
            for row in rows.cast_column(clip_column, datasets.Video(decode=False)):
                content = row.pop(clip_column)["bytes"]
                plain = row.get("json", row)
                plain.pop("audio", None)
                listed.append({**plain, "bytes": hashlib.sha256(content).hexdigest()})
            found[f"{protocol} {split} {streaming}"] = listed
first = datasets.load_dataset(folder, cache_dir=cache)
decoder = first["train"][0][clip_column]
names = first["train"].features
names = names["json"] if "json" in names else names
print(json.dumps({
    "rows": found,
    "default": {split: len(rows) for split, rows in first.items()},
    "frames": decoder.get_frames_in_range(0, len(decoder)).data.sum().item(),
    "labels": [names[name].names for name in ("label", "video_label", "audio_label")],
}))
"""


def test_every_protocol_of_fakeavceleb_from_one_set_of_clips(clip, tmp_path):
    root = tmp_path / "FakeAVCeleb_v1.2"
    paths = {f"{r[5]}/{r[6]}/{r[7]}/{r[0]}/{r[8]}" for r in write_fakeavceleb(root)}
    fill(root, clip)
    folder = export("fakeavceleb", root, tmp_path / "out", protocols=None)
    stored = [
        row for f in (folder / "data").iterdir() for row in pq.read_table(f, columns=["path"]).to_pylist()
    ]
    assert Counter(row["path"] for row in stored) == Counter(paths)  # each clip once

    protocols = datasets.get_dataset_config_names(str(folder))
    builder = datasets.load_dataset_builder("fakeavceleb", data_dir=str(root))
    assert set(protocols) == set(builder.builder_configs) and len(protocols) == 16
    assert exported_rows(folder, "leave_out_fvfa_wl") == builder_rows(
        "fakeavceleb", root, "leave_out_fvfa_wl"
    )
    # All protocols, by the files that their patterns match.
    rows = {
        f.name: pq.read_table(f, columns=["path"])["path"].to_pylist() for f in (folder / "data").iterdir()
    }
    for protocol in protocols:
        named = datasets.load_dataset_builder(str(folder), protocol).config.data_files
        found = {
            split: Counter(p for f in files for p in rows[Path(f).name]) for split, files in named.items()
        }
        given = load_dataset("fakeavceleb", protocol, data_dir=str(root), streaming=True)
        assert found == {
            split: Counter(row["path"] for row in rows_of(rows)) for split, rows in given.items()
        }


@pytest.mark.parametrize("format", FORMATS)
def test_loads_without_the_package(format, mavos, tmp_path):
    protocols = ["open_full", "open_model", "open_language_any"]
    folder = export("mavos_dd", mavos, tmp_path / "out", protocols, format=format, max_shard_bytes="20KB")
    column = {"parquet": "video", "webdataset": "mp4"}[format]
    found = run_without_package(LOADED_ELSEWHERE, folder, tmp_path / "cache", column, folder=tmp_path)
    assert found["labels"] == [["real", "fake"]] * 3
    assert found["default"] == {"train": 24, "validation": 8, "test": 28}
    names = set()
    for protocol in protocols:
        for split, rows in builder_rows("mavos_dd", mavos, protocol).items():
            expected = {}
            for path, row in rows.items():
                content = row.pop("video")
                del row["audio"]
                expected[path] = {**row, "bytes": sha256(content).hexdigest()}
            for streaming in (False, True):
                name = f"{protocol} {split} {streaming}"
                names.add(name)
                assert {row["path"]: row for row in found["rows"][name]} == expected
                assert len(found["rows"][name]) == len(expected)
    assert names == set(found["rows"])
    source = next(mavos.rglob("*.mp4"))
    assert found["frames"] == VideoDecoder(source).get_frames_in_range(0, 5).data.sum().item() > 0


@pytest.mark.parametrize("format", FORMATS)
def test_sound_files_containers_and_names(format, odd, tmp_path, monkeypatch):
    monkeypatch.chdir(odd)  # where every file name of the export exists as a file
    folder = export("avfolder", odd, tmp_path / "out", ["all"], format=format)
    assert exported_rows(folder, "all") == builder_rows("avfolder", odd, "all")
    assert [f.name for f in (folder / "data").iterdir()] == [
        "full-00000-of-00001" + {"parquet": ".parquet", "webdataset": ".tar"}[format]
    ]
    rows = load_dataset(str(folder), "all", split="full", cache_dir=str(tmp_path / "cache"))
    for row in rows:
        path = row["path"] if format == "parquet" else row["json"]["path"]
        if format == "parquet":
            decoder, sound = row["video"], row["audio"]
        else:
            decoder = next(row[suffix] for suffix in ("mp4", "mkv", "mov") if row[suffix] is not None)
            sound = row["wav"] or row["flac"]
        expected = VideoDecoder(odd / path)
        count = len(expected)
        assert len(decoder) == count == 10
        frames = decoder.get_frames_in_range(0, count)
        assert torch.equal(frames.data, expected.get_frames_in_range(0, count).data)
        if path in ("a.mp4", "b.v2.mov"):
            assert sound["array"].shape == (8000,) and sound["sampling_rate"] == 16_000
        else:
            assert sound is None
    if format == "webdataset":
        with tarfile.open(next((folder / "data").iterdir())) as archive:
            names = archive.getnames()
        keys = {name.rsplit(".", 1)[0] for name in names}
        assert len(keys) == len({key.casefold() for key in keys}) == 5
        assert not any("." in key for key in keys)
        assert {name.partition(".")[2] for name in names} == {"mp4", "mkv", "mov", "wav", "flac", "json"}


def test_a_row_group_is_small(small, tmp_path, monkeypatch):
    size = (small / "train/real/1.mp4").stat().st_size
    monkeypatch.setattr(export_shards, "ROW_GROUP_BYTES", 2 * size)
    folder = export("avfolder", small, tmp_path / "out", ["all"])
    for name in ("train", "test"):
        file = pq.ParquetFile(folder / "data" / f"{name}-00000-of-00001.parquet")
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [2, 2, 2]
    # A clip larger than a group, or than a file, gets its own.
    monkeypatch.setattr(export_shards, "ROW_GROUP_BYTES", 1)
    folder = export("avfolder", small, tmp_path / "one", ["all"], max_shard_bytes=1)
    assert len(list((folder / "data").iterdir())) == 12
    assert exported_rows(folder, "all") == builder_rows("avfolder", small, "all")


def test_a_lost_file_is_noticed_when_loading(small, tmp_path):
    folder = export("avfolder", small, tmp_path / "out", max_shard_bytes="4KB")
    files = sorted((folder / "data").glob("train-*"))
    assert len(files) > 1
    files[0].unlink()
    with pytest.raises(datasets.exceptions.NonMatchingSplitsSizesError):
        load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))


def test_clips_that_protocols_describe_differently_are_kept_apart(small, tmp_path, monkeypatch):
    root = tmp_path / "corpus"
    write_fakeavceleb(root)
    fill(root, b"x")
    deal = FakeAVCeleb.deal

    def relabelled(self, rows):
        rows = [{**row, "language": "xx"} for row in rows] if self.config.name == "by_ethnicity" else rows
        return deal(self, rows)

    monkeypatch.setattr(FakeAVCeleb, "deal", relabelled)
    for format in FORMATS:
        folder = export("fakeavceleb", root, tmp_path / format, ["all", "by_ethnicity"], format=format)
        for protocol in ("all", "by_ethnicity"):
            given = builder_rows("fakeavceleb", root, protocol)
            assert exported_rows(folder, protocol) == given
            languages = {row["language"] for rows in given.values() for row in rows.values()}
            assert languages == {"en" if protocol == "all" else "xx"}
    assert "410 clips are stored once more" in (tmp_path / "parquet" / "README.md").read_text()


def test_many_cells_give_a_warning(tmp_path, monkeypatch):
    write_fakeavceleb(tmp_path / "corpus")
    fill(tmp_path / "corpus", b"x")
    monkeypatch.setattr(export_plan, "MANY_CELLS", 10)
    with pytest.warns(
        CorpusWarning, match=r"cut the 410 clips into 23 cells.*without random_70_30 there are 8"
    ):
        export(
            "fakeavceleb",
            tmp_path / "corpus",
            tmp_path / "out",
            ["identity_70_30", "random_70_30", "by_ethnicity"],
        )

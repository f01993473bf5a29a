"""Exports: that plain `datasets` reads the builder's rows and the files' own bytes, once each, whatever happens."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from hashlib import sha256
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from dataset_factory import mavos_rows, rows_of, write_clip, write_fakeavceleb, write_mavos
from datasets import load_dataset
from filelock import FileLock
from huggingface_hub import metadata_load
from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from media_factory import make_clip
from torchcodec.decoders import VideoDecoder

import dataset_scripts
from dataset_scripts.errors import CorpusNotFoundError, CorpusWarning, MissingFilesError, ProtocolError
from dataset_scripts.export import folder as export_folder
from dataset_scripts.export import plan as export_plan
from dataset_scripts.export import shards as export_shards
from dataset_scripts.export.export import export, main
from dataset_scripts.export.plan import ExportError
from dataset_scripts.fakeavceleb import FakeAVCeleb
from modeling_avlmm.publishing.elsewhere import run_without_package

ROOT = Path(__file__).parents[2]
FORMATS = ["parquet", "webdataset"]
dataset_scripts.register()
datasets.disable_progress_bars()
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

# Kills itself, as `kill -9` would, at the n-th clip that is read or the n-th file that gets its name.
KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from dataset_scripts import export_shards
from dataset_scripts.export.export import main

where, left = sys.argv[2], int(sys.argv[3])

def count():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

if where == "read":
    add = export_shards.Written.__setattr__
    export_shards.Written.__setattr__ = lambda self, name, value: (
        name == "rows" and value and count(), add(self, name, value)
    )
else:
    rename = os.replace
    os.replace = lambda *paths: (count(), rename(*paths))
sys.exit(main(sys.argv[4:]))
"""


def unique(clip: bytes, number: int) -> bytes:
    """The clip with a box at its end that players pass over, so that no two files are equal."""
    text = f"{number:08d}".encode()
    return clip + (8 + len(text)).to_bytes(4, "big") + b"free" + text


def fill(root: Path, clip: bytes) -> None:
    for number, path in enumerate(sorted(root.rglob("*.mp4"))):
        path.write_bytes(unique(clip, number))


def builder_rows(dataset: str, root: Path, protocol: str, **config) -> dict[str, dict[str, dict]]:
    """Split -> path -> row of the builder; what the disk has in place of the paths."""
    splits = load_dataset(dataset, protocol, data_dir=str(root), streaming=True, **config)
    found = {}
    for split, rows in splits.items():
        found[split] = {}
        for row in rows_of(rows):
            sound = row.pop("audio")
            row["video"] = Path(row["video"]["path"]).read_bytes()
            row["audio"] = None if sound is None else Path(sound).read_bytes()
            found[split][row["path"]] = row
    return found


def exported_rows(folder: Path, protocol: str) -> dict[str, dict[str, dict]]:
    """The same from an export, in either format."""
    found = {}
    for split, rows in load_dataset(str(folder), protocol, streaming=True).items():
        for name, feature in rows.features.items():
            if isinstance(feature, datasets.Video | datasets.Audio):
                rows = rows.cast_column(name, type(feature)(decode=False))
        found[split] = {}
        for row in rows:
            media = {
                name: value["bytes"]
                for name, value in row.items()
                if isinstance(value, dict) and name != "json"
            }
            if "json" in row:
                sounds = {name: value for name, value in media.items() if name in ("wav", "flac")}
                (video,) = (value for name, value in media.items() if name not in sounds)
                media = {"video": video, "audio": next(iter(sounds.values()), None)}
                row = row["json"]
            row = {**row, "audio": None, **media}
            assert row["path"] not in found[split]
            found[split][row["path"]] = row
    return found


def tree(folder: Path) -> dict[str, bytes]:
    """Every file; the day it was made is not compared."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    day = json.loads(files["export.json"])["started"].encode()
    return {
        name: data.replace(day, b"DAY") if not name.startswith("data/") else data
        for name, data in files.items()
    }


def run(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    variables = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, frames=5)
    return path.read_bytes()


@pytest.fixture(scope="module")
def mavos(clip, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("corpus") / "MAVOS-DD"
    write_mavos(root, release=2)
    fill(root, clip)
    return root


@pytest.fixture
def small(clip, tmp_path) -> Path:
    """A corpus of 12 clips in two splits, which a test may change."""
    root = tmp_path / "small"
    for split in ("train", "test"):
        for number in range(6):
            path = root / split / ("real" if number % 2 else "fake/swap") / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(clip)
    fill(root, clip)
    return root


# -- what is read back -----------------------------------------------------------------------------------------------


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
    # All of them, by which files their patterns name.
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


@pytest.fixture(scope="module")
def odd(clip, tmp_path_factory) -> Path:
    """Sound files beside the clips, several containers, and names that are hard on tar keys."""
    root = tmp_path_factory.mktemp("odd") / "clips"
    root.mkdir()
    make_clip(root / "a.mp4", seconds=0.4)
    make_clip(root / "b.v2.mov", seconds=0.4)
    make_clip(root / "x.mp4", seconds=0.4)
    shutil.copy(root / "x.mp4", root / "X.MP4")
    make_clip(root / "lies.mkv", seconds=0.4).rename(root / "lies.mp4")
    tone = (0.3 * torch.sin(torch.arange(8000) / 10)).numpy()
    for name in ("a.wav", "b.flac"):
        soundfile.write(root / name, tone, 16_000)
    lines = [
        {"file_name": "a.mp4", "label": "fake", "audio_file_name": "a.wav", "fake_segments": [[0.1, 0.2]]},
        {"file_name": "b.v2.mov", "label": "real", "audio_file_name": "b.flac", "language": "Klingon"},
        {"file_name": "x.mp4", "label": "real", "language": "fr", "identity": "p|1"},
        {"file_name": "X.MP4", "label": "fake", "source": "x.mp4", "generator": "swap"},
        {"file_name": "lies.mp4", "label": "fake", "generator": "swap"},
    ]
    (root / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


@pytest.mark.parametrize("format", FORMATS)
def test_sound_files_containers_and_names(format, odd, tmp_path, monkeypatch):
    monkeypatch.chdir(odd)  # where every file name in the export is also that of a file
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
    # A clip larger than a group, or than a file, has one of its own.
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


def test_many_cells_are_told(tmp_path, monkeypatch):
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


# -- stopping and starting again -------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("moment", ["manifest", "within a file", "eighth file", "card", "end"])
def test_killed_and_started_again(format, moment, mavos, tmp_path, dataset_cache):
    words = ["mavos_dd", "--data-dir", mavos, "--format", format, "--max-shard-size", "9KB"]
    whole, killed = tmp_path / "whole" / "out", tmp_path / "killed" / "out"
    export("mavos_dd", mavos, whole, format=format, max_shard_bytes="9KB")
    files = len(list((whole / "data").iterdir()))
    # The manifest gets its name before the first file; the card and the manifest again after the last.
    where, n, finished = {
        "manifest": ("rename", 1, 0),
        "within a file": ("read", 30, 8),  # the first eight have 28 clips
        "eighth file": ("rename", 9, 7),
        "card": ("rename", files + 2, files),
        "end": ("rename", files + 3, files),
    }[moment]
    cache = {"HF_DATASETS_CACHE": str(dataset_cache)}
    done = run("-c", KILLED, ROOT, where, n, *words, "--to", killed, cwd=tmp_path, **cache)
    assert done.returncode == -9, done.stderr
    before = {path: path.stat() for path in (killed / "data").iterdir() if path.suffix != ".partial"}
    assert len(before) == finished < len(list((killed / "data").iterdir())) + (where == "rename")
    export("mavos_dd", mavos, killed, format=format, max_shard_bytes="9KB")
    assert tree(killed) == tree(whole)
    for path, stat in before.items():  # what was whole has not been written again
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)


def test_a_finished_export_is_left_alone_but_for_its_card(small, tmp_path, monkeypatch):
    folder = export("avfolder", small, tmp_path / "out")
    first = tree(folder)
    monkeypatch.setattr(export_folder, "write_shard", lambda *_: pytest.fail("written again"))
    assert tree(export("avfolder", small, folder)) == first
    export("avfolder", small, folder, license="cc-by-4.0")
    assert metadata_load(folder / "README.md")["license"] == "cc-by-4.0"


def test_a_line_cut_short_is_no_finished_file(small, tmp_path):
    whole = export("avfolder", small, tmp_path / "whole", max_shard_bytes="4KB")
    folder = export("avfolder", small, tmp_path / "other" / "whole", max_shard_bytes="4KB")
    manifest = json.loads((folder / "export.json").read_text())
    files = manifest.pop("files")
    lines = [json.dumps({"name": name, **record}) for name, record in files.items()]
    (folder / "export.json").write_text(json.dumps({**manifest, "complete": False}))
    (folder / ".export-progress.jsonl").write_text("\n".join(lines)[:-5])
    (folder / "README.md").unlink()
    assert tree(export("avfolder", small, folder, max_shard_bytes="4KB")) == tree(whole)


def test_a_damaged_file_is_written_again(small, tmp_path):
    folder = export("avfolder", small, tmp_path / "out")
    first = tree(folder)
    (folder / "data" / "train-00000-of-00001.parquet").write_bytes(b"cut")
    (folder / "data" / "test-00000-of-00001.parquet").unlink()
    assert tree(export("avfolder", small, folder)) == first


def test_something_else_into_the_same_folder_is_refused(small, mavos, tmp_path):
    folder = export("avfolder", small, tmp_path / "out")
    first = tree(folder)
    with pytest.raises(ExportError, match="dataset was 'avfolder' and is 'mavos_dd'"):
        export("mavos_dd", mavos, folder)
    with pytest.raises(ExportError, match="format was 'parquet' and is 'webdataset'"):
        export("avfolder", small, folder, format="webdataset")
    with pytest.raises(ExportError, match="max_shard_bytes was 500000000 and is 4000"):
        export("avfolder", small, folder, max_shard_bytes="4KB")
    with pytest.raises(ExportError, match=r"config was \{\} and is \{'seed': 3\}"):
        export("avfolder", small, folder, seed=3)
    path = small / "train" / "real" / "1.mp4"
    content = path.read_bytes()
    path.write_bytes(content + b"more")
    with pytest.raises(ExportError, match="changed their size"):
        export("avfolder", small, folder)
    path.rename(small / "train" / "fake" / "1.mp4")
    with pytest.raises(ExportError, match="other clips, labels or splits"):
        export("avfolder", small, folder)
    assert tree(folder) == first


def test_folders_that_hold_something_else_are_refused(small, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match=r"holds something else \(thesis\.tex\)"):
        export("avfolder", small, mine)
    with pytest.raises(ExportError, match="is a file"):
        export("avfolder", small, mine / "thesis.tex")
    (mine / "thesis.tex").rename(mine / "README.md")
    with pytest.raises(ExportError, match=r"holds something else \(README\.md\)"):
        export("avfolder", small, mine)
    (mine / "README.md").unlink()
    (mine / "data").mkdir()
    (mine / "data" / "train-00000-of-00001.parquet").write_text("mine")
    with pytest.raises(ExportError, match=r"holds something else \(data/train-00000"):
        export("avfolder", small, mine)
    (mine / "data" / "train-00000-of-00001.parquet").unlink()
    (mine / "export.json").write_text("{}")
    with pytest.raises(ExportError, match="not the manifest of an export"):
        export("avfolder", small, mine)
    with pytest.raises(ExportError, match="inside the corpus"):
        export("avfolder", small, small / "out")
    folder = export("avfolder", small, tmp_path / "out")
    (folder / "data" / "train-00000-of-00007.parquet").write_text(
        "stale"
    )  # the pattern would name it as well
    with pytest.raises(ExportError, match=r"no part of this export: train-00000-of-00007\.parquet"):
        export("avfolder", small, folder)


def test_two_exports_into_one_folder_are_refused(small, tmp_path):
    folder = export("avfolder", small, tmp_path / "out")
    with (
        FileLock(folder / ".export.lock"),
        pytest.raises(ExportError, match="Another process is exporting into"),
    ):
        export("avfolder", small, folder)


# -- what cannot be read ---------------------------------------------------------------------------------------------


def test_unreadable_clips_are_counted_and_listed(small, tmp_path, monkeypatch):
    (small / "train/real/1.mp4").write_bytes(b"")
    with pytest.raises(ExportError, match=r"1 of 12 clips cannot be read \(train/real/1\.mp4: empty file\)"):
        export("avfolder", small, tmp_path / "out")
    assert not (tmp_path / "out").exists()

    vanishing = small / "test/fake/swap/0.mp4"
    content = vanishing.read_bytes()
    write_shard = export_folder.write_shard

    def vanish(*arguments):
        vanishing.unlink(missing_ok=True)
        return write_shard(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(export_folder, "write_shard", vanish)
        with pytest.raises(ExportError, match=r"2 of 12 clips .*test/fake/swap/0\.mp4: No such file"):
            export("avfolder", small, tmp_path / "strict", max_unreadable=0.1)
        vanishing.write_bytes(content)
        folder = export("avfolder", small, tmp_path / "out", max_unreadable=0.2)
    assert (folder / "unreadable_files.txt").read_text().splitlines() == [
        "test/fake/swap/0.mp4\tNo such file or directory",
        "train/real/1.mp4\tempty file",
    ]
    card = (folder / "README.md").read_text()
    assert "2 clips could not be read" in card and "10 clips, " in card
    assert json.loads((folder / "export.json").read_text())["unreadable"] == 2
    sizes = {split: len(rows) for split, rows in exported_rows(folder, "all").items()}
    assert sizes == {"train": 5, "test": 5}
    assert load_dataset(str(folder), cache_dir=str(tmp_path / "cache")).num_rows == sizes  # as the card says

    # Restored, the clip is taken in; the empty one stays out.
    vanishing.write_bytes(content)
    export("avfolder", small, folder, max_unreadable=0.2)
    assert (folder / "unreadable_files.txt").read_text() == "train/real/1.mp4\tempty file\n"
    assert len(exported_rows(folder, "all")["test"]) == 6


def test_a_file_of_nothing_but_unreadable_clips(small, tmp_path, monkeypatch):
    write_shard = export_folder.write_shard
    gone = small / "train/real/1.mp4"

    def vanish(*arguments):
        gone.unlink(missing_ok=True)
        return write_shard(*arguments)

    monkeypatch.setattr(export_folder, "write_shard", vanish)
    folder = export("avfolder", small, tmp_path / "out", max_shard_bytes=1, max_unreadable=0.1)
    assert len(list((folder / "data").iterdir())) == 11
    assert len(exported_rows(folder, "all")["train"]) == 5


def test_missing_files_are_listed(clip, tmp_path):
    root = tmp_path / "MAVOS-DD"
    rows = write_mavos(root)
    fill(root, clip)
    gone = str(rows[0]["video_path"])
    (root / gone).unlink()
    with pytest.raises(MissingFilesError, match="1 of 60 files are missing"):
        export("mavos_dd", root, tmp_path / "out")
    folder = export("mavos_dd", root, tmp_path / "out", max_missing=0.1)
    assert (folder / "missing_files.txt").read_text() == f"{gone}\n"
    card = (folder / "README.md").read_text()
    assert "1 files that the corpus lists were not on disk: `missing_files.txt`" in card
    assert str(tmp_path) not in card + (folder / "export.json").read_text()


def test_protocols_that_a_copy_does_not_allow(small, mavos, tmp_path):
    with pytest.warns(CorpusWarning, match="protocol split is left out: .*splits of its own"):
        folder = export("avfolder", small, tmp_path / "out")
    assert "- `split`: avfolder: this data has splits of its own" in (folder / "README.md").read_text()
    assert datasets.get_dataset_config_names(str(folder)) == ["all"]
    with pytest.raises(ProtocolError, match="splits of its own"):
        export("avfolder", small, tmp_path / "asked", ["all", "split"])
    assert not (tmp_path / "asked").exists()


def test_wrong_arguments(small, mavos, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ExportError, match=r"no dataset 'fakeavcelb'\. Did you mean 'fakeavceleb'"):
        export("fakeavcelb", small, out)
    with pytest.raises(ExportError, match=r"no protocol 'open_modle'\. Did you mean 'open_model'"):
        export("mavos_dd", mavos, out, ["open_modle"])
    with pytest.raises(ExportError, match=r"no format 'parket'\. Did you mean 'parquet'"):
        export("avfolder", small, out, format="parket")
    for size in ("many", 0, -1):
        with pytest.raises(ExportError, match="max_shard_bytes"):
            export("avfolder", small, out, max_shard_bytes=size)
    with pytest.raises(ExportError, match="max_unreadable is a share"):
        export("avfolder", small, out, max_unreadable=3)
    with pytest.raises(ExportError, match="doesn't have a 'sed' key"):
        export("avfolder", small, out, sed=1)
    with pytest.raises(CorpusNotFoundError, match="does not exist"):
        export("avfolder", tmp_path / "nowhere", out)
    assert not out.exists()


def test_a_clip_too_large_for_parquet_is_named(small, tmp_path, monkeypatch):
    monkeypatch.setattr(export_plan, "_PARQUET_CLIP", 100)
    with pytest.raises(
        ExportError, match=r"\.mp4 has .* bytes, too many for Parquet: take format='webdataset'"
    ):
        export("avfolder", small, tmp_path / "out")
    export("avfolder", small, tmp_path / "out", format="webdataset")


@pytest.mark.parametrize(
    ("content", "name", "suffix"),
    [
        (b"\0\0\0\x20ftypisom", "a.avi", "mp4"),
        (b"\0\0\0\x20ftypisom", "a.MOV", "mov"),
        (b"\0\0\0\x20ftypqt  ", "a.bin", "mov"),
        (b"\0\0\0\x20ftypM4A ", "a", "m4a"),
        (b"\x1aE\xdf\xa3\x01\x42\x82\x84webm", "a.mp4", "webm"),
        (b"\x1aE\xdf\xa3\x01\x42\x82\x88matroska", "a.mp4", "mkv"),
        (b"RIFF\0\0\0\0AVI LIST", "a.mp4", "avi"),
        (b"RIFF\0\0\0\0WAVEfmt ", "a.mp3", "wav"),
        (b"\0\0\x01\xba", "a.mpg", "mpeg"),
        (b"fLaC", "a.wav", "flac"),
        (b"OggS", "a", "ogg"),
        (b"ID3", "a", "mp3"),
        (b"what", "a.b.XYZ", "xyz"),
        (b"what", "noname", "bin"),
    ],
)
def test_suffix_of_the_true_container(content, name, suffix):
    assert export_shards.container_suffix(content, name) == suffix


# -- the card --------------------------------------------------------------------------------------------------------


def test_the_card_counts(mavos, tmp_path):
    folder = export("mavos_dd", mavos, tmp_path / "out", ["open_full", "in_domain"])
    data = metadata_load(folder / "README.md")
    assert data["license"] == "cc-by-nc-sa-4.0"
    assert data["task_categories"] == ["video-classification"]
    assert data["language"] == ["ar", "de", "en", "hi"] and data["size_categories"] == ["n<1K"]
    assert {c["config_name"]: c.get("default", False) for c in data["configs"]} == {
        "open_full": True,
        "in_domain": False,
    }
    rows = mavos_rows(2)
    text = (folder / "README.md").read_text()
    for split, count in Counter(row["split"] for row in rows).items():
        fake = sum(row["split"] == split and row["label"] == "fake" for row in rows)
        assert f"| `open_full` | {split} | {count} | {count - fake} | {fake} | - |" in text
    makers = Counter(row["generative_method"] if row["video_fake"] else "real" for row in rows)
    for maker in makers.keys() - {"real"}:
        assert f"| {maker} | {makers[maker]} | 0 | {makers[maker]} |" in text
    assert "60 rows, not the known 87,038" in text  # the builder's note on this copy
    assert "gated or for research only" in text and "Nothing: every clip" in text
    assert "`ee` | 12" in text and "`ex` | 16" in text
    assert str(mavos) not in text and str(tmp_path) not in text
    assert "None" not in text


def test_the_card_of_a_users_folder(odd, tmp_path):
    folder = export("avfolder", odd, tmp_path / "out", license="cc-by-4.0")
    data = metadata_load(folder / "README.md")
    assert data["license"] == "cc-by-4.0" and data["language"] == ["fr"]  # Klingon is no code the Hub takes
    text = (folder / "README.md").read_text()
    assert "| Klingon | 1 | 1 | 0 |" in text and "1 identities" in text


# -- the Hub ---------------------------------------------------------------------------------------------------------


class Hub:
    """What `HfApi` does, without a network."""

    endpoint = "https://huggingface.co"

    def __init__(
        self, exists: bool = False, private: bool = True, files: tuple[str, ...] = (), role: str = "write"
    ):
        self.exists, self.private, self.files, self.role = exists, private, files, role
        self.calls: list[tuple] = []
        self.errors: dict[str, Exception] = {}

    def __call__(self, token=None):
        self.token = token
        return self

    def _call(self, name, *arguments):
        self.calls.append((name, *arguments))
        if name in self.errors:
            raise self.errors.pop(name)

    def whoami(self):
        self._call("whoami")
        return {"name": "me", "auth": {"accessToken": {"role": self.role}}}

    def repo_info(self, repository, repo_type):
        assert repo_type == "dataset"
        if not self.exists:
            response = type("Response", (), {"headers": {}, "request": None, "status_code": 404})()
            raise RepositoryNotFoundError("404", response=response)
        return type("Info", (), {"private": self.private})()

    def list_repo_files(self, repository, repo_type):
        return list(self.files)

    def create_repo(self, repository, **options):
        self._call("create_repo", repository, options)
        if not self.exists:
            self.exists, self.private = True, options["private"]

    def upload_folder(self, **options):
        self._call("upload_folder", options)


@pytest.fixture
def hub(monkeypatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", hub)
    return hub


@pytest.mark.parametrize("private", [True, False])
def test_push(private, hub, small, tmp_path):
    options = {} if private else {"private": False}
    url = export("avfolder", small, tmp_path / "out", push_to="me/clips", token="hf_x", **options)
    assert url == "https://huggingface.co/datasets/me/clips"
    assert hub.token == "hf_x"
    assert [call[0] for call in hub.calls] == ["whoami", "create_repo", "upload_folder"]
    assert hub.calls[1][1:] == ("me/clips", {"repo_type": "dataset", "private": private, "exist_ok": True})
    upload = hub.calls[2][1]
    assert (upload["repo_id"], upload["repo_type"]) == ("me/clips", "dataset")
    assert upload["folder_path"] == tmp_path / "out"
    present = [str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()]
    kept = filter_repo_objects([*present, ".export.lock"], allow_patterns=upload["allow_patterns"])
    assert set(kept) == set(present) >= {"README.md", "export.json", "data/train-00000-of-00001.parquet"}
    assert "load_dataset('me/clips', 'all')" in (tmp_path / "out" / "README.md").read_text()


def test_a_stopped_upload_continues(hub, small, tmp_path, monkeypatch):
    hub.errors["upload_folder"] = HTTPError("connection reset")
    with pytest.raises(ExportError, match=r"connection reset.*continues the upload"):
        export("avfolder", small, tmp_path / "out", push_to="me/clips")
    hub.files = ("README.md", "data/train-00000-of-00001.parquet")  # some of it has arrived
    monkeypatch.setattr(export_folder, "write_shard", lambda *_: pytest.fail("written again"))
    assert export("avfolder", small, tmp_path / "out", push_to="me/clips").endswith("me/clips")


def response_error(status: int, message: str) -> HTTPError:
    error = HTTPError(message)
    error.response = type("Response", (), {"status_code": status})()
    return error


@pytest.mark.parametrize(
    ("state", "errors", "message"),
    [
        ({"exists": True, "private": False}, {}, "me/clips exists and is public.*private=False, or --public"),
        (
            {"exists": True, "files": ("data/train-0.parquet",)},
            {},
            r"data files of something else, such as data/train-0",
        ),
        ({"role": "read"}, {}, "token can only read"),
        ({}, {"whoami": LocalTokenNotFoundError("none")}, "no Hub token.*hf auth login"),
        ({}, {"whoami": response_error(401, "401")}, "token is not valid"),
        ({}, {"create_repo": response_error(403, "403")}, "may not write to me/clips"),
        ({}, {"whoami": HTTPError("no route to host")}, "no route to host.*nothing was exported"),
    ],
)
def test_what_the_hub_would_refuse_is_known_before_exporting(state, errors, message, hub, small, tmp_path):
    vars(hub).update(state, errors=errors)
    with pytest.raises(ExportError, match=message):
        export("avfolder", small, tmp_path / "out", push_to="me/clips")
    assert not (tmp_path / "out").exists()
    assert "upload_folder" not in [call[0] for call in hub.calls]


def test_a_repository_that_becomes_public_meanwhile_gets_nothing(hub, small, tmp_path, monkeypatch):
    write_shard = export_folder.write_shard

    def publish(*arguments):
        hub.private = False
        return write_shard(*arguments)

    monkeypatch.setattr(export_folder, "write_shard", publish)
    with pytest.raises(ExportError, match="has become public"):
        export("avfolder", small, tmp_path / "out", push_to="me/clips")
    assert "upload_folder" not in [call[0] for call in hub.calls]


@pytest.mark.parametrize("name", ["clips", "not a/name", "a/b/c"])
def test_repository_names(name, hub, small, tmp_path):
    with pytest.raises(ExportError, match="not a repository name: use owner/name"):
        export("avfolder", small, tmp_path / "out", push_to=name)
    assert hub.calls == []


# -- the command line ------------------------------------------------------------------------------------------------


def test_command_line(mavos, tmp_path, dataset_cache):
    cache = {"HF_DATASETS_CACHE": str(dataset_cache)}
    words = ["mavos_dd", "--data-dir", mavos, "--to", "out", "--protocols", "in_domain", "open_full"]
    more = ["--format", "webdataset", "--max-shard-size", "20KB", "--set", "languages=[arabic, english]"]
    more += ["--license", "cc-by-nc-sa-4.0"]
    done = run("-m", "dataset_scripts.export", *words, *more, cwd=tmp_path, **cache)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "Exported to out."
    # No progress bar where nobody looks, and the builder's notes in a line each.
    assert all(line.startswith("export: mavos_dd: ") for line in done.stderr.splitlines()) and done.stderr
    expected = builder_rows("mavos_dd", mavos, "in_domain", languages=["arabic", "english"])
    assert exported_rows(tmp_path / "out", "in_domain") == expected
    assert metadata_load(tmp_path / "out" / "README.md")["license"] == "cc-by-nc-sa-4.0"

    done = run("-m", "dataset_scripts.export", *words, cwd=tmp_path, **cache)
    assert done.returncode == 2
    assert "has another export: format was 'webdataset' and is 'parquet'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "languages"], "--set languages: expected NAME=VALUE."),
        (["--set", "languages=[a"], "the value is no YAML"),
        (["--seed", "1"], "mavos_dd: BuilderConfig"),
        (["--protocols", "in_domian"], "has no protocol 'in_domian'. Did you mean 'in_domain'?"),
        (["--max-shard-size", "much"], "'much' is no size"),
        (["--data-dir", "nowhere"], "nowhere does not exist"),
    ],
)
def test_wrong_use_is_answered_in_one_line(more, message, mavos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["mavos_dd", "--data-dir", str(mavos), "--to", "out", *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("export: ") and message in line
    assert not (tmp_path / "out").exists()


def test_progress_is_shown_to_those_who_look(small, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, pipe = Terminal(), io.StringIO()
    for number, stream in enumerate((terminal, pipe)):
        monkeypatch.setattr(sys, "stderr", stream)
        export("avfolder", small, tmp_path / str(number), ["all"])
    last = terminal.getvalue().split("\r")[-1]
    assert last.startswith("avfolder: 100%") and "12 of 12 clips" in last
    assert pipe.getvalue() == ""


def test_help_does_not_wait_for_datasets(tmp_path):
    code = "import sys; from dataset_scripts.export.export import main\ntry: main(['--help'])\nfinally: print('datasets' in sys.modules)"
    done = run("-c", code, cwd=tmp_path)
    assert done.returncode == 0 and "--push-to" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"

"""Clips that cannot be read, files that are missing, and wrong arguments."""

from __future__ import annotations

import json

import datasets
import pytest
from dataset_factory import write_mavos
from datasets import load_dataset
from export_factory import export, exported_rows, fill

from dataset_scripts.errors import CorpusNotFoundError, CorpusWarning, MissingFilesError, ProtocolError
from dataset_scripts.export import folder as export_folder
from dataset_scripts.export import plan as export_plan
from dataset_scripts.export import shards as export_shards
from dataset_scripts.export.plan import ExportError

pytestmark = pytest.mark.filterwarnings("ignore::dataset_scripts.errors.CorpusWarning")


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

    # The restored clip is stored now; the empty one stays out.
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

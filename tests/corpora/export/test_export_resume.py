"""An export that is stopped, killed or started twice."""

from __future__ import annotations

import json

import pytest
from export_factory import FORMATS, ROOT, export, run, tree
from huggingface_hub import metadata_load

from dataset_scripts.export import folder as export_folder
from dataset_scripts.export.plan import ExportError
from dataset_scripts.run_lock import InUseError, only_run_in

pytestmark = pytest.mark.filterwarnings("ignore::dataset_scripts.errors.CorpusWarning")


# A run that kills itself, like `kill -9`, at the n-th clip it reads or the n-th file it renames.
KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from dataset_scripts.export import shards
from dataset_scripts.export.command_line import main

where, left = sys.argv[2], int(sys.argv[3])

def count():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

if where == "read":
    add = shards.Written.__setattr__
    shards.Written.__setattr__ = lambda self, name, value: (
        name == "rows" and value and count(), add(self, name, value)
    )
else:
    rename = os.replace
    os.replace = lambda *paths: (count(), rename(*paths))
sys.exit(main(sys.argv[4:]))
"""


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("moment", ["manifest", "within a file", "eighth file", "card", "end"])
def test_killed_and_started_again(format, moment, mavos, tmp_path, dataset_cache):
    words = ["mavos_dd", "--data-dir", mavos, "--format", format, "--max-shard-size", "9KB"]
    whole, killed = tmp_path / "whole" / "out", tmp_path / "killed" / "out"
    export("mavos_dd", mavos, whole, format=format, max_shard_bytes="9KB")
    files = len(list((whole / "data").iterdir()))
    # The manifest is renamed before the first file; the card and the manifest again after the last.
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
    before = {path: path.stat() for path in (killed / "data").iterdir() if not path.name.startswith(".")}
    assert len(before) == finished < len(list((killed / "data").iterdir())) + (where == "rename")
    export("mavos_dd", mavos, killed, format=format, max_shard_bytes="9KB")
    assert tree(killed) == tree(whole)
    for path, stat in before.items():  # finished files were not written again
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)


def test_a_finished_export_is_left_alone_but_for_its_card(small, tmp_path, monkeypatch):
    folder = export("avfolder", small, tmp_path / "out")
    first = tree(folder)
    monkeypatch.setattr(export_folder, "write_shard", lambda *_: pytest.fail("written again"))
    assert tree(export("avfolder", small, folder)) == first
    export("avfolder", small, folder, license="cc-by-4.0")
    assert metadata_load(folder / "README.md")["license"] == "cc-by-4.0"


def test_a_line_cut_short_is_not_a_finished_file(small, tmp_path):
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
        only_run_in(folder),
        pytest.raises(InUseError, match=r"out is in use by process \d+ on "),
    ):
        export("avfolder", small, folder)

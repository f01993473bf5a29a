"""The command line of the export."""

from __future__ import annotations

import io
import sys

import pytest
from export_factory import builder_rows, export, exported_rows, run
from huggingface_hub import metadata_load

from dataset_scripts.export.command_line import main

pytestmark = pytest.mark.filterwarnings("ignore::dataset_scripts.errors.CorpusWarning")


def test_command_line(mavos, tmp_path, dataset_cache):
    cache = {"HF_DATASETS_CACHE": str(dataset_cache)}
    words = ["mavos_dd", "--data-dir", mavos, "--to", "out", "--protocols", "in_domain", "open_full"]
    more = ["--format", "webdataset", "--max-shard-size", "20KB", "--set", "languages=[arabic, english]"]
    more += ["--license", "cc-by-nc-sa-4.0"]
    done = run("-m", "dataset_scripts.export", *words, *more, cwd=tmp_path, **cache)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "Exported to out."
    # No progress bar, and one line for each of the builder's notes.
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
        (["--set", "languages=[a"], "the value is not YAML"),
        (["--seed", "1"], "mavos_dd: BuilderConfig"),
        (["--protocols", "in_domian"], "has no protocol 'in_domian'. Did you mean 'in_domain'?"),
        (["--max-shard-size", "much"], "'much' is not a size"),
        (["--data-dir", "nowhere"], "nowhere does not exist"),
    ],
)
def test_wrong_use_is_answered_in_one_line(more, message, mavos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["mavos_dd", "--data-dir", str(mavos), "--to", "out", *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("export: ") and message in line
    assert not (tmp_path / "out").exists()


def test_progress_is_shown_on_a_terminal_only(small, tmp_path, monkeypatch):
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
    code = "import sys; from dataset_scripts.export.command_line import main\ntry: main(['--help'])\nfinally: print('datasets' in sys.modules)"
    done = run("-c", code, cwd=tmp_path)
    assert done.returncode == 0 and "--push-to" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"

"""The command `instruct`: a corpus becomes a folder that plain `datasets` loads, and an upload."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
from huggingface_hub import DatasetCard
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from media_factory import make_clip

from dataset_scripts.protocol_lists import ProtocolList, SplitList, write_lists
from dataset_scripts.run_lock import only_run_in
from modeling_avlmm.cli import instruct as instructions_command
from modeling_avlmm.dialogue.instructions import FEATURES
from modeling_avlmm.explain.evidence_jobs import jobs_of


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """An `avfolder` corpus: genuine clips with fakes made from them, an unreadable fake, and one with an unreadable source."""
    root = tmp_path_factory.mktemp("corpus")
    lines = ["file_name,label,split,generator,video_label,audio_label,source"]
    for split in ("train", "test"):
        folder = root / split
        folder.mkdir()
        make_clip(folder / "real.mp4", seconds=1.0)
        make_clip(folder / "fake.mp4", seconds=1.0, flash_at=0.5)
        lines += [
            f"{split}/real.mp4,real,{split},,,,",
            f"{split}/fake.mp4,fake,{split},wav2lip,fake,real,{split}/real.mp4",
        ]
    (root / "test" / "broken.mp4").write_bytes(b"no video" * 40)
    (root / "test" / "lost.mp4").write_bytes(b"no video" * 41)
    shutil.copy(root / "test" / "fake.mp4", root / "test" / "orphan.mp4")
    lines += [
        "test/broken.mp4,fake,test,roop,fake,real,test/real.mp4",
        "test/lost.mp4,real,test,,,,",
        "test/orphan.mp4,fake,test,roop,fake,real,test/lost.mp4",
    ]
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def command(corpus: Path, to: Path, *more: str) -> int:
    parser = argparse.ArgumentParser()
    instructions_command.add_arguments(parser)
    options = ["--dataset", "avfolder", "--data-dir", str(corpus), "--to", str(to), *more]
    return instructions_command.run(parser.parse_args(options))


def test_the_command_writes_what_plain_datasets_loads(corpus, tmp_path, capsys):
    to = tmp_path / "out"
    assert command(corpus, to, "--per-clip", "2") == 1  # two clips cannot be read
    said = capsys.readouterr()
    assert "skipped: test/broken.mp4" in said.err and "described by its labels: test/orphan.mp4" in said.err
    assert "2 clips could not be read" in said.out
    loaded = datasets.load_dataset(str(to))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 2 * 4 * 2, "test": 3 * 4 * 2}
    row = loaded["train"][0]
    assert row["video"]["bytes"] == (corpus / row["path"]).read_bytes()
    assert list(row) == list(FEATURES) and row["messages"][0]["content"][0]["type"] == "video"
    assert json.loads(next(r for r in loaded["train"] if "fake" in r["path"])["facts"])["measured"]
    assert not json.loads(next(r for r in loaded["test"] if "orphan" in r["path"])["facts"])["measured"]
    card = (to / "README.md").read_text()
    assert "All texts are templates" in card and "not public" in card and "| detection |" in card
    listing = (to / "skipped_clips.txt").read_text()
    assert "test/broken.mp4\tskipped" in listing and "test/orphan.mp4\tnot measured" in listing
    assert str(corpus) not in card + listing + (to / "instructions.json").read_text()
    # The second run measures nothing and writes the same files.
    before = {path.name: path.read_bytes() for path in (to / "data").iterdir()}
    assert command(corpus, to, "--per-clip", "2") == 1
    assert "were examined in an earlier run" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (to / "data").iterdir()} == before


def test_a_clip_is_stored_once_for_all_conversations(corpus, tmp_path):
    sizes = []
    for per_clip in (1, 10):
        to = tmp_path / str(per_clip)
        command(corpus, to, "--per-clip", str(per_clip), "--no-evidence", "--tasks", "detection")
        sizes.append((to / "data" / "train-00000-of-00001.parquet").stat().st_size)
    media = sum((corpus / "train" / name).stat().st_size for name in ("real.mp4", "fake.mp4"))
    assert sizes[1] - sizes[0] < 0.5 * media


def test_media_can_be_left_out(corpus, tmp_path):
    to = tmp_path / "texts"
    assert command(corpus, to, "--no-media", "--no-evidence", "--limit", "2", "--tasks", "conversation") == 1
    loaded = datasets.load_dataset(str(to), split="train")
    assert [row["video"] for row in loaded] == [{"bytes": None, "path": row["path"]} for row in loaded]
    assert not (to / "evidence.jsonl").exists() and "does not hold" not in (to / "README.md").read_text()


class Hub:
    """An `HfApi` without a network: a repository that keeps the names of the files it was given."""

    endpoint = "https://huggingface.co"

    def __init__(self):
        self.private: bool | None = None
        self.files: set[str] = set()
        self.calls: list[str] = []
        self.failures = 0

    def __call__(self, token=None):
        self.token = token
        return self

    def whoami(self):
        return {"name": "me", "auth": {"accessToken": {"role": "write"}}}

    def repo_info(self, repository, repo_type):
        if self.private is None:
            response = SimpleNamespace(headers={}, request=None, status_code=404)
            raise RepositoryNotFoundError("404", response=response)
        return SimpleNamespace(private=self.private)

    def list_repo_files(self, repository, repo_type):
        return sorted(self.files)

    def create_repo(self, repository, repo_type, private, exist_ok):
        self.calls.append(f"create {repository} {repo_type}")
        self.private = private if self.private is None else self.private

    def upload_folder(self, repo_id, repo_type, folder_path, allow_patterns, commit_message):
        self.calls.append(f"upload {repo_id} {repo_type}")
        present = [str(p.relative_to(folder_path)) for p in Path(folder_path).rglob("*") if p.is_file()]
        self.files |= set(filter_repo_objects(present, allow_patterns=allow_patterns))
        if self.failures:
            self.failures -= 1
            raise HTTPError("connection reset")


@pytest.fixture
def hub(monkeypatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", hub)
    return hub


PUSH = ("--no-evidence", "--tasks", "detection", "--push-to", "me/talk", "--token", "hf_x")


@pytest.mark.parametrize("public", [False, True])
def test_the_folder_is_pushed_with_its_card_and_without_what_is_for_this_computer(
    public, hub, corpus, tmp_path, capsys
):
    to = tmp_path / "out"
    assert command(corpus, to, *PUSH, *(["--public"] if public else [])) == 1  # two clips cannot be read
    assert "Uploaded to https://huggingface.co/datasets/me/talk." in capsys.readouterr().out
    assert hub.token == "hf_x" and hub.private is not public
    assert hub.calls[-1] == "upload me/talk dataset" and hub.calls[0] == "create me/talk dataset"
    shards = {"data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"}
    assert hub.files == {"README.md", "instructions.json", "skipped_clips.txt", *shards}
    card = DatasetCard.load(to / "README.md")
    assert card.data.configs[0]["data_files"] == [
        {"split": split, "path": f"data/{split}-*.parquet"} for split in ("train", "test")
    ]
    assert 'load_dataset("me/talk", "all")' in card.text and "**Licence.**" in card.text


def test_measured_evidence_stays_here(hub, corpus, tmp_path):
    assert command(corpus, tmp_path / "out", "--limit", "2", *PUSH[1:]) == 1
    assert (tmp_path / "out" / "evidence.jsonl").is_file() and "evidence.jsonl" not in hub.files


def test_a_stopped_push_continues_and_what_it_would_be_mixed_with_is_refused(hub, corpus, tmp_path, capsys):
    hub.failures = 1
    assert command(corpus, tmp_path / "out", *PUSH) == 2
    assert "connection reset" in capsys.readouterr().err
    assert command(corpus, tmp_path / "out", *PUSH) == 1
    # The repository has files of an earlier, larger run, or of another folder.
    count = len(hub.calls)
    more = "data/test-00001-of-00002.parquet"
    shutil.copy(tmp_path / "out" / "data" / "test-00000-of-00001.parquet", tmp_path / "out" / more)
    hub.files.add(more)
    assert command(corpus, tmp_path / "out", *PUSH) == 2
    assert f"data files of something else, such as {more}" in capsys.readouterr().err
    assert command(corpus, tmp_path / "other", *PUSH) == 2
    assert "data files of something else" in capsys.readouterr().err
    assert not any(call.startswith("upload") for call in hub.calls[count:])
    assert not (tmp_path / "other" / "data").exists()


def test_a_public_repository_gets_nothing_unasked(hub, corpus, tmp_path, capsys):
    hub.private = False
    assert command(corpus, tmp_path / "out", *PUSH) == 2
    assert "me/talk exists and is public" in capsys.readouterr().err and not hub.files


def test_wrong_usage_is_explained(corpus, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep me")
    assert command(corpus, tmp_path) == 2 and "mine.txt" in capsys.readouterr().err
    assert command(corpus, corpus / "inside") == 2 and "inside the corpus" in capsys.readouterr().err
    assert (
        command(tmp_path / "nowhere", tmp_path / "new") == 2 and "does not exist" in capsys.readouterr().err
    )
    assert command(corpus, tmp_path / "new", "--max-shard-size", "big") == 2


# -- corpora and folders from somewhere else -----------------------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path) -> Path:
    """A corpus whose table and file names are made to do harm."""
    root = tmp_path / "corpus"
    (root / "test").mkdir(parents=True)
    make_clip(root / "test" / "real.mp4", seconds=1.0)
    fake = make_clip(root / "test" / "fake.mp4", seconds=1.0, flash_at=0.5).read_bytes()
    (root / "test" / "a\tb\x1b[2J\nc.mp4").write_bytes(b"no video" * 40)
    (root / "test" / "large.mp4").write_bytes(fake + bytes(100_000))
    rows = [
        ["test/real.mp4", "real", "", ""],
        ["test/fake.mp4", "fake", "x|y\x1b[2J\n\n# Title <script>", ""],
        ["test/a\tb\x1b[2J\nc.mp4", "fake", "roop", "test/real.mp4"],
        ["test/large.mp4", "fake", "roop", ""],
    ]
    with open(root / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file_name", "label", "generator", "source"], *rows])
    return root


def test_a_hostile_corpus_costs_its_own_clips(hostile, tmp_path, capsys, monkeypatch):
    to = tmp_path / "out"
    monkeypatch.setattr("dataset_scripts.files.MOST_CELL", (hostile / "test/large.mp4").stat().st_size - 1)
    assert command(hostile, to) == 1
    said = capsys.readouterr()
    assert "\x1b" not in said.err + said.out and "large.mp4: its" in said.err
    listed = (to / "skipped_clips.txt").read_text().splitlines()
    assert [line.split("\t")[:2] for line in listed] == [
        ["test/a\\tb\\x1b[2J\\nc.mp4", "skipped"],
        ["test/large.mp4", "skipped"],
    ]
    # No file outside of the corpus is compared with, whatever a table says.
    row = {"path": "test/fake.mp4", "video": str(hostile / "test/fake.mp4"), "label": 1}
    sources = [next(jobs_of([{**row, "source": name}], {})).source for name in ("../x.mp4", "test/x.mp4")]
    assert sources == [None, str(hostile / "test/x.mp4")]
    assert "# Title" not in (to / "README.md").read_text()
    rows = datasets.load_dataset(str(to), cache_dir=str(tmp_path / "cache"))["full"]
    assert {row["path"] for row in rows.remove_columns(["video", "audio"])} == {
        "test/real.mp4",
        "test/fake.mp4",
    }


def test_a_folder_in_use_or_with_a_damaged_journal_is_told(hostile, tmp_path, capsys):
    to = tmp_path / "out"
    with only_run_in(to):
        assert command(hostile, to) == 2
    assert "out is in use by process" in capsys.readouterr().err
    (to / "evidence.jsonl").write_text('{"path": "test/real.mp4"}\n')
    assert command(hostile, to) == 2
    assert "the line at byte 0 is no entry with evidence, key, path" in capsys.readouterr().err
    # An entry with other evidence than is written is measured again.
    assert command(hostile, tmp_path / "other") == 1
    lines = (tmp_path / "other" / "evidence.jsonl").read_text().splitlines()
    odd = [json.dumps({**json.loads(line), "evidence": {"picture": 3}}) for line in lines]
    (tmp_path / "other" / "evidence.jsonl").write_text("\n".join(odd) + "\n")
    assert command(hostile, tmp_path / "other") == 1
    assert (tmp_path / "other" / "evidence.jsonl").read_text().splitlines()[len(lines) :] == lines


def test_the_clips_of_a_frozen_list_alone(corpus, tmp_path):
    frozen, to = tmp_path / "mine.json", tmp_path / "out"
    listed = {"test/real.mp4": 0, "test/fake.mp4": 1}
    write_lists(frozen, [ProtocolList("avfolder", "mine", {"test": SplitList.of(listed)})])
    assert command(corpus, to, "--protocol", str(frozen), "--per-clip", "1") == 0
    rows = datasets.load_dataset(str(to), split="test")
    assert {row["path"] for row in rows} == set(listed)

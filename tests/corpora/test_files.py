"""Files written whole, their SHA-256, and journals that survive a kill."""

from __future__ import annotations

import hashlib
import os

import pytest

from dataset_scripts.corpus import scan_files
from dataset_scripts.files import (
    is_partial,
    sha256_of,
    unfit_for_cell,
    write_whole,
    written_whole,
)
from dataset_scripts.json_lines import DamagedJournalError, JSONLines, read_json_lines


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "below" / "report.json"
    write_whole(path, "old")
    with written_whole(path) as partial:
        partial.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"
        assert is_partial(partial) and partial.suffix == ".json"
    assert path.read_text(encoding="utf-8") == "new"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "report.json"
    write_whole(path, "old")
    with pytest.raises(KeyboardInterrupt), written_whole(path) as partial:
        partial.write_text("half", encoding="utf-8")
        raise KeyboardInterrupt
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_written_whole(tmp_path):
    with written_whole(tmp_path / "model") as partial:
        partial.mkdir()
        (partial / "config.json").write_text("{}", encoding="utf-8")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["config.json"]
    with pytest.raises(ValueError), written_whole(tmp_path / "other") as partial:
        partial.mkdir()
        raise ValueError
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_an_earlier_kill_left_is_removed(tmp_path):
    with written_whole(tmp_path / "model") as partial:
        partial.mkdir()
    (tmp_path / "model").rename(partial)
    (partial / "half").touch()
    with written_whole(tmp_path / "model") as partial:
        assert not partial.exists()
        partial.mkdir()
    assert list((tmp_path / "model").iterdir()) == []


def test_sha256_is_that_of_the_bytes_in_order(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"d" * 3_000_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    assert sha256_of(tmp_path / "a", tmp_path / "b") == hashlib.sha256(b"abc" + b"d" * 3_000_000).hexdigest()


def test_entries_come_back_in_order_and_by_place(tmp_path):
    with JSONLines(tmp_path / "below" / "journal.jsonl") as journal:
        places = [journal.append({"number": number}, sync=number == 1) for number in range(3)]
        assert [(place, entry["number"]) for place, entry in journal] == list(
            zip(places, range(3), strict=True)
        )
        assert journal.at(places[1]) == {"number": 1}
        journal.append({"number": 3})  # still at the end, after reading in the middle
    assert [entry["number"] for entry in read_json_lines(tmp_path / "below" / "journal.jsonl")] == [
        0,
        1,
        2,
        3,
    ]


@pytest.mark.parametrize("length", [10, 200_000], ids=["short", "longer than a block"])
def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path, length):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"number": 0}\n' + b'{"number": "' + b"1" * length)
    assert read_json_lines(path) == [{"number": 0}]
    with JSONLines(path) as journal:
        journal.append({"number": 2})
    assert path.read_bytes() == b'{"number": 0}\n{"number": 2}\n'


def test_a_journal_of_one_cut_line_is_empty(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"number')
    assert read_json_lines(path) == read_json_lines(tmp_path / "absent.jsonl") == []
    with JSONLines(path) as journal:
        assert list(journal) == []
        journal.append({"number": 1})
        journal.clear()
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"\x00\xff binary", "at byte 14 is no JSON"),
        (b"[" * 100_000, "at byte 14 is no JSON"),
        (b"[1, 2]", "at byte 14 is no entry with number"),
        (b'{"other": 1}', "at byte 14 is no entry with number"),
    ],
)
def test_a_journal_of_something_else_is_said_to_be_one(tmp_path, line, told):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"number": 0}\n' + line + b"\n")
    with (
        JSONLines(path, ["number"]) as journal,
        pytest.raises(DamagedJournalError, match=rf"journal\.jsonl: the line {told}\. .*remove it"),
    ):
        list(journal)


def test_what_is_no_file_is_not_listed_and_not_put_into_a_table(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    (tmp_path / "large.mp4").touch()
    os.truncate(tmp_path / "large.mp4", 2**31)  # takes no space
    (tmp_path / "clip.mp4").write_bytes(b"clip")
    assert scan_files(str(tmp_path)) == (["clip.mp4", "device.mp4", "large.mp4"], 1)
    assert unfit_for_cell(str(tmp_path / "clip.mp4")) is None
    assert unfit_for_cell(str(tmp_path / "device.mp4")) == "not a regular file"
    assert "2,147,483,648 bytes are more than a table's cell holds" in unfit_for_cell(
        str(tmp_path / "large.mp4")
    )

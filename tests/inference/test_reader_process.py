"""Reader processes: the same clips, and what crashes, stalls or overfills one costs one file."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from media_factory import make_clip
from torch.utils.data import DataLoader

from modeling_avlmm.evaluation.audit import property_jobs
from modeling_avlmm.inference import reader_process, reader_server
from modeling_avlmm.inference.reader_messages import Inbox, Outbox
from modeling_avlmm.inference.reader_process import (
    ReaderLimits,
    limits_in_use,
    reader_processes,
    start_worker,
)
from modeling_avlmm.media import MediaReader, MediaTooLargeError, UnreadableMediaError, read_clip
from modeling_avlmm.media_errors import DecoderCrashedError, DecoderStalledError, ReaderStartError


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("reader") / "clip.mp4", seconds=2, size=(320, 240))


@pytest.fixture
def apart():
    with reader_processes(ReaderLimits(seconds=60)):
        yield


def process_of(reader: MediaReader) -> int:
    assert reader.info.has_video  # opened
    return reader._video._opened._reader.process


def same(one, other) -> bool:
    return (
        torch.equal(one.frames, other.frames)
        and one.frames.stride() == other.frames.stride()
        and torch.equal(one.timestamps, other.timestamps)
        and torch.equal(one.audio, other.audio)
        and one.warnings == other.warnings
    )


def test_clips_are_the_same(clip_path, tmp_path):
    data = clip_path.read_bytes()
    sound = make_clip(tmp_path / "other.mp4", 1.5)
    expected, other = read_clip(clip_path, fps=25), read_clip(clip_path, audio=sound)
    with reader_processes():
        kept = [
            read_clip(source, fps=25) for source in (clip_path, data, io.BytesIO(data), {"bytes": data}) * 3
        ]
        assert all(same(clip, expected) for clip in kept)  # held at once, so no buffer is written twice
        assert same(read_clip(clip_path, audio=sound), other)
        with MediaReader(clip_path) as reader:
            assert process_of(reader) != os.getpid()
            assert same(reader.read(0.5, 1.5), MediaReader(clip_path).read(0.5, 1.5))
        (tmp_path / "text.mp4").write_text("This is not a video.\n" * 100)
        with pytest.raises(UnreadableMediaError, match="not readable as media"):
            read_clip(tmp_path / "text.mp4")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_costs_its_file_alone(apart, clip_path, number):
    expected = read_clip(clip_path)
    with MediaReader(clip_path) as reader, MediaReader(clip_path) as beside:
        reader.read(0, 1)
        beside.read(0, 1)
        os.kill(process_of(reader), number)
        for _ in range(2):
            with pytest.raises(
                DecoderCrashedError, match=rf"clip.mp4: its decoder crashed \({number.name}\)"
            ):
                reader.read(1, 2)
        assert len(beside.read(1, 2).frames) == 2
    assert same(read_clip(clip_path), expected)


def test_a_stalled_decoder_is_stopped(clip_path):
    with reader_processes(ReaderLimits(seconds=1)):
        with MediaReader(clip_path) as reader:
            _ = reader.info
            os.kill(process_of(reader), signal.SIGSTOP)
            with pytest.raises(DecoderStalledError, match="no answer for 1 s"):
                reader.read()
        assert read_clip(clip_path).has_video
    with (
        reader_processes(ReaderLimits(file_seconds=1e-6)),
        pytest.raises(DecoderStalledError, match="the limit is"),
    ):
        read_clip(clip_path)


def test_memory_is_bounded(tmp_path):
    large = make_clip(tmp_path / "large.mp4", 1, size=(1920, 1080))
    with reader_processes(ReaderLimits(memory_gib=0.1)):
        with pytest.raises(
            (MediaTooLargeError, DecoderCrashedError), match=r"large\.mp4: .*(memory|crashed)"
        ):
            read_clip(large, fps=25)
        assert read_clip(large, fps=1).has_video


def test_any_fault_of_one_file_is_that_files_error(monkeypatch, clip_path):
    def broken(*args):
        raise KeyError("codec")

    monkeypatch.setattr("modeling_avlmm.media_files.tracks_here", broken)
    with pytest.raises(UnreadableMediaError, match=r"clip\.mp4: cannot be decoded \(KeyError: 'codec'\)"):
        read_clip(clip_path)


class Paths(torch.utils.data.Dataset):
    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        with MediaReader(self.paths[index]) as reader:
            clip = reader.read()
            return process_of(reader), os.getpid(), len(clip.frames)


def test_workers_have_readers_of_their_own(apart, clip_path):
    read_clip(clip_path)
    rows = list(DataLoader(Paths([clip_path] * 8), num_workers=2, batch_size=None))
    owners = {reader: worker for reader, worker, _ in rows}
    assert len(owners) == len(set(owners.values())) == 2 and {count for _, _, count in rows} == {4}


def test_threads_read_at_once(apart, clip_path):
    expected, found = read_clip(clip_path), []
    threads = [threading.Thread(target=lambda: found.append(read_clip(clip_path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and all(same(clip, expected) for clip in found)


def test_buffers_are_used_again_when_their_tensors_are_gone():
    import socket

    mine, theirs = socket.socketpair()
    with mine, theirs:
        inbox, outbox = Inbox(), Outbox()
        picture = torch.randint(0, 255, (3, 64, 80, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        outbox.send(theirs, (picture, picture[:, :1], "note"))
        one, part, note = inbox.receive(mine)
        assert (
            torch.equal(one, picture)
            and one.stride() == picture.stride()
            and torch.equal(part, picture[:, :1])
        )
        outbox.freed(inbox.freed())
        outbox.send(theirs, picture)
        other = inbox.receive(mine)
        assert len(outbox._buffers) == 2 and other.data_ptr() != one.data_ptr()
        where = other.data_ptr()
        del other
        outbox.freed(inbox.freed())
        outbox.send(theirs, picture + 1)
        again = inbox.receive(mine)
        assert again.data_ptr() == where and torch.equal(again, picture + 1) and torch.equal(one, picture)
        assert len(outbox._buffers) == 2 and note == "note"


def test_limits_are_checked():
    with pytest.raises(ValueError, match="memory_gib must be above 0"):
        ReaderLimits(memory_gib=0)
    assert reader_server.ReaderLimits is ReaderLimits


def test_readers_may_be_forks_of_a_process_that_computed_nothing(clip_path):
    code = f"""
import os
from modeling_avlmm.inference.reader_process import reader_processes
from modeling_avlmm.media import MediaReader, read_clip
here = read_clip({str(clip_path)!r})
kept = os.pipe()
with reader_processes(forked=True), MediaReader({str(clip_path)!r}) as reader:
    clip = reader.read()
    process = reader._video._opened._reader.process
    parent = next(line.split()[1] for line in open(f"/proc/{{process}}/status") if line.startswith("PPid"))
    ours = next(line.split()[1] for line in open(f"/proc/{{parent}}/status") if line.startswith("PPid"))
    print(int(ours) == os.getpid(), os.listdir(f"/proc/{{parent}}/fd").__len__() <= 8, os.readlink(f"/proc/{{process}}/fd/1"))
    print(open(f"/proc/{{parent}}/cmdline").read() == open("/proc/self/cmdline").read())
    print((clip.frames == here.frames).all().item(), (clip.audio == here.audio).all().item())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["True", "True", "/dev/null", "True", "True", "True"], done.stderr


class Inline:
    """A pool of processes in the place of [`ProcessPoolExecutor`], which does everything here."""

    def __init__(self, count, mp_context, initializer, initargs):
        self.started = initializer, initargs

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def map(self, function, jobs, chunksize):
        return [(path, {"key": "", "record": self.started, "error": None}) for path, *_ in jobs]


def test_processes_that_are_spawned_have_readers_of_their_own(clip_path, tmp_path, monkeypatch):
    monkeypatch.setattr(property_jobs, "ProcessPoolExecutor", Inline)
    rows = [{"path": "clip.mp4", "video": str(clip_path), "audio": None}]
    limits = ReaderLimits(seconds=100)
    with reader_processes(limits):
        monkeypatch.setattr(property_jobs.JSONLines, "append", lambda self, entry: None)
        found, _ = property_jobs.read_properties(rows, tmp_path / "p.jsonl", num_workers=1)
    assert found["clip.mp4"] == (start_worker, (limits,)) and limits_in_use() is None
    ends = []
    monkeypatch.setattr("atexit.register", lambda function, *given: ends.append((function, given)))
    start_worker(None)
    assert limits_in_use() is None
    start_worker(limits)
    assert limits_in_use() == limits
    end, given = ends[-1]
    end(*given)
    assert limits_in_use() is None


@pytest.mark.parametrize(
    "command", ["audit", "bench", "detect", "instruct", "onnx", "stream", "train", "ui", "wild"]
)
def test_commands_that_decode_do_it_elsewhere_unless_told_not_to(command):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"modeling_avlmm.cli.{command}").add_arguments(parser)
    (here,) = (action for action in parser._actions if "--read-here" in action.option_strings)
    assert here.default is False


def test_a_file_is_forgotten_while_another_is_opened(clip_path, apart, monkeypatch):
    # Garbage collection gives a file's reader back at any moment, also in the thread that takes one.
    pool, taken = reader_process.readers_in_use(), []
    first = [pool.take()]
    nursery = reader_process._nursery

    def collecting():
        pool.give_back(first.pop(), os.getpid())
        monkeypatch.undo()
        return nursery()

    monkeypatch.setattr(reader_process, "_nursery", collecting)
    thread = threading.Thread(target=lambda: taken.append(pool.take()), daemon=True)
    thread.start()
    thread.join(60)
    pool.give_back(taken.pop(), os.getpid())
    assert len(pool._idle) == 2


@pytest.mark.parametrize(
    ("code", "told"),
    [("import time; time.sleep(60)", "started within 0.5 s"), ("pass", "ended as it started")],
)
def test_readers_that_cannot_be_started_are_not_the_fault_of_a_file(clip_path, monkeypatch, code, told):
    monkeypatch.setattr(reader_process, "_nurseries", [])
    monkeypatch.setattr(reader_process, "_CODE", f"import sys; {code} # {{}}")
    monkeypatch.setattr(reader_process, "START_SECONDS", 0.5)
    monkeypatch.setattr(reader_process._Nursery, "end", lambda self: self._orders.close())
    with reader_processes(), pytest.raises(ReaderStartError, match=f"{told}.*--read-here"):
        read_clip(clip_path)

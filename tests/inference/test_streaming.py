"""Streaming: the pipeline's windows and scores from growing files, pipes and pushed arrays; bounded memory; bad input."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from media_factory import ffmpeg, make_clip, make_truncated, remux
from ssavd_factory import tiny

from modeling_avlmm import AVDeepfakeDetectionPipeline, MediaError, MediaReader, SSAVDProcessor
from modeling_avlmm.cli import stream as streaming_command
from modeling_avlmm.inference import streaming
from modeling_avlmm.inference.growing_file import GrowingFile
from modeling_avlmm.inference.reader_messages import Outbox, send
from modeling_avlmm.inference.reader_process import ReaderLimits, _Reader, reader_processes
from modeling_avlmm.inference.reader_server import WAITING
from modeling_avlmm.inference.streaming import StreamingDetector
from modeling_avlmm.media_errors import DecoderCrashedError, UnreadableMediaError

HEAD_SCALE = 5e-8
SCORES = ("score", "video_score", "audio_score")


@pytest.fixture(scope="module")
def model():
    """Three-second windows as published, the rest tiny; calibrated, so that calibration shows."""
    model = tiny(frontend="fast", num_frames=10, audio_samples=48_000)
    with torch.no_grad():
        for head in (model.head, model.video_head, model.audio_head):
            head.weight.mul_(HEAD_SCALE)  # scores that are neither 0 nor 1
    model.config.temperature = {"overall": 1.5, "video": 2.0}
    return model


@pytest.fixture(scope="module")
def processor(model):
    return SSAVDProcessor.from_config(model.config)


@pytest.fixture(scope="module")
def pipe(model, processor):
    return AVDeepfakeDetectionPipeline(model=model, processor=processor)


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    """7.4 s of moving pattern and sweeping tone, 48 kHz AAC."""
    path = tmp_path_factory.mktemp("movie") / "movie.mp4"
    sound = "aevalsrc='0.4*sin(2*PI*(200+150*t)*t)*(0.6+0.4*sin(7*t))':s=48000:d=7.4"
    picture = "testsrc2=size=160x120:rate=25:duration=7.4"
    codecs = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    ffmpeg("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, *codecs, path)
    return path


def stream(model, processor, source, patience: float = 0.0, **options) -> tuple[list[dict], dict]:
    detector = StreamingDetector(model, processor, **options)
    return list(detector.stream_file(source, patience=patience)), detector.summary()


def assert_same(windows: list[dict], expected: list[dict], tolerance: float = 1e-5) -> None:
    assert len(windows) == len(expected)
    for window, other in zip(windows, expected, strict=True):
        assert window["start"] == pytest.approx(other["start"], abs=1e-9)
        # A header may end a track inside of its last packet of sound, 1024 samples long; a stream has no such header.
        assert window["end"] == pytest.approx(other["end"], abs=1024 / 16_000)
        for name in SCORES:
            if other[name] is None:
                assert window[name] is None
            else:
                assert window[name] == pytest.approx(other[name], abs=tolerance)


@pytest.mark.parametrize("hop", [1.0, 0.7, 1.5])
def test_windows_are_the_pipelines(model, processor, pipe, movie, hop):
    expected = pipe(str(movie), window_seconds=3, hop_seconds=hop)
    windows, summary = stream(model, processor, movie, hop_seconds=hop)
    assert_same(windows, expected["windows"])
    assert len({round(window["score"], 4) for window in windows}) > 1
    for name in SCORES:  # the mean is over time, and the end of the last window may differ: see above
        assert summary[name] == pytest.approx(expected[name], abs=1e-4)
    assert summary["label"] == expected["label"] and summary["windows"] == len(windows)
    largest = pipe(str(movie), window_seconds=3, hop_seconds=hop, aggregate="max")
    for name in SCORES:
        assert summary[f"max_{name}"] == pytest.approx(largest[name], abs=1e-5)


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".fragmented.mp4"])
def test_containers_that_are_written_front_to_back(model, processor, pipe, movie, tmp_path, suffix):
    options = ["-movflags", "frag_keyframe+empty_moov"] if suffix.endswith("mp4") else []
    path = tmp_path / f"movie{suffix}"
    # Matroska has milliseconds: packets of 64 ms, as they are at 16 kHz, are where they say. See the next test.
    ffmpeg(
        "-i",
        movie,
        "-c:v",
        "copy",
        *(["-ar", "16000"] if suffix == ".mkv" else ["-c:a", "copy"]),
        *options,
        path,
    )
    windows, _ = stream(model, processor, path)
    assert_same(windows, pipe(str(path), window_seconds=3, hop_seconds=1)["windows"])


def test_44100_hertz_and_variable_frame_rate(model, processor, pipe, movie, tmp_path):
    path = tmp_path / "odd.mp4"
    ffmpeg("-i", movie, "-vf", "select='not(eq(mod(n,3),1))'", "-fps_mode", "vfr", "-ar", "44100", path)
    windows, _ = stream(model, processor, path)
    expected = pipe(str(path), window_seconds=3, hop_seconds=1)["windows"]
    assert_same(windows, expected)


def test_recordings_joined_without_decoding(model, processor, movie, tmp_path):
    """The first frames of the second recording come before the last ones of the first."""
    once, twice = tmp_path / "once.ts", tmp_path / "twice.ts"
    ffmpeg("-i", movie, "-t", "4", "-c:v", "libx264", "-bf", "2", "-c:a", "aac", once)
    ffmpeg("-stream_loop", "1", "-i", once, "-c", "copy", twice)
    detector = StreamingDetector(model, processor)
    windows = list(detector.stream_file(twice, patience=0))
    assert [window["start"] for window in windows] == list(range(len(windows))) and len(windows) >= 5
    first = next(StreamingDetector(model, processor).stream_file(once, patience=0))
    assert windows[0]["score"] == pytest.approx(first["score"], abs=1e-5)
    told = [
        note for note in detector.summary()["warnings"] if "come after later ones and were left out" in note
    ]
    assert len(told) == 1


def test_times_rounded_to_milliseconds(model, processor, movie, tmp_path):
    """
    Packets of 21.33 ms in Matroska: the reader puts each window where its first packet says, up to a millisecond off;
    a stream goes on from sample to sample. Sound is the same but for that, and pictures exactly.
    """
    path = remux(movie, tmp_path / "movie.mkv")
    streamed = []
    detector = StreamingDetector(model, processor)
    encode = processor.encode
    processor.encode = lambda clip, *args: streamed.append(clip) or encode(clip, *args)
    try:
        list(detector.stream_file(path, patience=0))
    finally:
        del processor.encode
    with MediaReader(path) as reader:
        for clip in streamed:
            other = reader.read(clip.start, clip.end, fps=processor.fps, max_frames=processor.max_frames)
            small = torch.nn.functional.interpolate(other.frames, (56, 56), mode="bilinear", antialias=True)
            assert torch.equal(clip.frames, small) and torch.equal(clip.timestamps, other.timestamps)
            length = min(len(clip.audio), len(other.audio)) - 1400
            moved = [other.audio[100 + by : 100 + by + length] for by in range(-20, 21)]
            apart = [
                float((clip.audio[100 : 100 + length] - audio).square().mean().sqrt()) for audio in moved
            ]
            assert min(apart) < 0.06  # half a sample of a tone of up to 2.4 kHz, of 0.2


@pytest.mark.parametrize("gone", ["-an", "-vn"])
def test_one_track_only(model, processor, pipe, movie, tmp_path, gone):
    path = tmp_path / "one.mkv"
    ffmpeg("-i", movie, gone, "-c", "copy", path)
    windows, summary = stream(model, processor, path)
    assert_same(windows, pipe(str(path), window_seconds=3, hop_seconds=1)["windows"])
    absent = "audio_score" if gone == "-an" else "video_score"
    assert summary[absent] is None and all(window[absent] is None for window in windows)
    assert summary["score"] is not None


@pytest.mark.parametrize(("seconds", "audio_seconds"), [(1.3, 1.3), (5.0, 3.5), (3.0, 6.2)])
def test_short_files_and_tracks_of_different_length(model, processor, pipe, tmp_path, seconds, audio_seconds):
    path = make_clip(tmp_path / "clip.mkv", seconds=seconds, audio_seconds=audio_seconds)
    windows, _ = stream(model, processor, path)
    assert_same(windows, pipe(str(path), window_seconds=3, hop_seconds=1)["windows"])


def test_growing_file_and_incomplete_tail(model, processor, pipe, movie, tmp_path):
    """A writer appends uneven pieces; the stream gives what the pipeline gives for the finished file."""
    whole = remux(movie, tmp_path / "whole.ts").read_bytes()
    growing = tmp_path / "growing.ts"
    growing.write_bytes(b"")
    seen_at, first = [], threading.Event()

    def write():
        with growing.open("ab", buffering=0) as file:
            for begin in range(0, len(whole), 7_777):
                if begin + 7_777 >= len(whole):  # on a busy machine the writer would be done first
                    first.wait(timeout=30)
                file.write(whole[begin : begin + 7_777])
                time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    windows = []
    detector = StreamingDetector(model, processor)
    for window in detector.stream_file(growing, patience=1.0, poll=0.005):
        windows.append(window)
        seen_at.append(growing.stat().st_size)
        first.set()
    writer.join()
    assert_same(windows, pipe(str(growing), window_seconds=3, hop_seconds=1)["windows"])
    assert seen_at[0] < len(whole), "the first window was known before the last byte was written"

    cut = make_truncated(growing, tmp_path / "cut.ts", keep=0.61)
    windows, _ = stream(model, processor, cut)
    assert_same(windows[:2], pipe(str(growing), window_seconds=3, hop_seconds=1)["windows"][:2])
    assert 3.5 < windows[-1]["end"] < 5.5


def test_pipe(model, processor, pipe, movie, tmp_path):
    path = remux(movie, tmp_path / "movie.ts")
    reading, writing = os.pipe()
    data = path.read_bytes()

    def write():
        with os.fdopen(writing, "wb") as file:
            file.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(reading, "rb") as source:
        windows, _ = stream(model, processor, source)
    writer.join()
    assert_same(windows, pipe(str(path), window_seconds=3, hop_seconds=1)["windows"])


def test_pushed_pieces_are_the_files_windows(model, processor, pipe, tmp_path):
    """Frames and samples from memory, in pieces of random length, against the pipeline on the same arrays."""
    generator = torch.Generator().manual_seed(3)
    frames = torch.randint(0, 256, (26, 3, 40, 60), generator=generator, dtype=torch.uint8)
    frames = frames.repeat_interleave(4, dim=0)[:101]
    times = (torch.arange(101) / 20 + 0.011 * torch.rand(101, generator=generator)).double()
    times[0] = 0
    audio = 0.3 * torch.randn(round(5.05 * 16_000), generator=generator)
    audio = audio.clamp(-1, 1)
    expected = pipe(
        {"frames": frames, "timestamps": times, "audio": audio, "sampling_rate": 16_000},
        window_seconds=3,
        hop_seconds=1,
    )
    detector = StreamingDetector(model, processor)
    windows, frame, sample = [], 0, 0
    rng = np.random.default_rng(0)
    while frame < 101 or sample < len(audio):
        more, samples = int(rng.integers(0, 9)), int(rng.integers(0, 6000))
        windows += detector.push(
            frames[frame : frame + more], times[frame : frame + more], audio[sample : sample + samples]
        )
        frame, sample = frame + more, sample + samples
    windows += detector.finish()
    # How long the last frame stays is not known here: the end of the sound is the recording's.
    assert_same(windows[:-1], expected["windows"][: len(windows) - 1])
    assert detector.finish() == []
    with pytest.raises(ValueError, match="reset"):
        detector.push(audio=audio)
    detector.reset()
    assert detector.summary()["score"] is None and detector.summary()["windows"] == 0


def test_what_is_kept_does_not_grow(model, processor):
    detector = StreamingDetector(model, processor)
    frames = torch.zeros(25, 3, 60, 80, dtype=torch.uint8)
    kept = []
    for second in range(12):
        windows = detector.push(frames, torch.arange(25) / 25 + second, torch.zeros(16_000))
        assert len(windows) <= 1
        images = {id(image) for taken in detector.windows.frames.values() for image in taken}
        kept.append((len(images), detector.windows.sound.shape[1]))
    assert max(kept[6:]) <= max(kept[3:6])
    assert max(samples for _, samples in kept) <= 5 * 16_000
    assert max(images for images, _ in kept) <= 40


def test_a_track_that_falls_behind_is_not_waited_for(model, processor):
    detector = StreamingDetector(model, processor)
    detector.push(torch.zeros(10, 3, 56, 56, dtype=torch.uint8), torch.arange(10) / 10)
    windows = [window for _ in range(17) for window in detector.push(audio=0.1 * torch.ones(16_000))]
    assert [window["start"] for window in windows] == [0, 1, 2, 3]
    assert windows[0]["video_score"] is not None and windows[1]["video_score"] is None
    assert windows[3]["audio_score"] is not None


def test_numbers_that_overflow_are_told_once(processor):
    broken = tiny(frontend="fast", num_frames=10, audio_samples=48_000)
    with torch.no_grad():
        for weight in broken.parameters():
            weight.fill_(float("nan"))
    stream = StreamingDetector(broken, processor)
    rows = []
    for _ in range(6):
        rows += stream.push(audio=0.1 * torch.randn(16_000))
    rows += stream.finish()
    assert len(rows) > 1 and all(row["score"] is None for row in rows)
    summary = stream.summary()
    assert summary["label"] is None
    assert len([text for text in summary["warnings"] if "no number for some windows" in text]) == 1
    assert len(stream.warnings) == len(set(stream.warnings))


def test_bad_pushes(model, processor):
    detector = StreamingDetector(model, processor)
    frame = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="uint8 of shape"):
        detector.push(frame.float(), [0.0])
    with pytest.raises(ValueError, match="0 timestamps for 1 frames"):
        detector.push(frame)
    with pytest.raises(ValueError, match="floats of shape"):
        detector.push(audio=torch.zeros(1, 10))
    detector.push(frame, [1.0])
    with pytest.raises(ValueError, match="must rise"):
        detector.push(frame, [1.0])
    with pytest.raises(MediaError, match="jump"):
        detector.push(frame, [100.0])
    detector.reset(has_audio=False)
    with pytest.raises(ValueError, match="without sound"):
        detector.push(audio=torch.zeros(10))
    with pytest.raises(ValueError, match=r"at most 1\.5, half a window"):
        StreamingDetector(model, processor, hop_seconds=1.6)
    with pytest.raises(ValueError, match="SSAVDProcessor"):
        StreamingDetector(model)


def test_files_that_cannot_be_streamed(model, processor, movie, tmp_path):
    detector = StreamingDetector(model, processor)
    with pytest.raises(MediaError, match="cannot be opened"):
        list(detector.stream_file(tmp_path / "none.ts"))
    text = tmp_path / "text.ts"
    text.write_text("no video at all " * 100)
    with pytest.raises(MediaError, match="cannot be read as media"):
        list(detector.stream_file(text, patience=0))
    with pytest.raises(MediaError, match="fragmented mp4"):
        list(detector.stream_file(make_truncated(movie, tmp_path / "cut.mp4"), patience=0))


def test_growing_file_waits_and_tells_ffmpeg_of_short_answers(tmp_path):
    path = tmp_path / "bytes"
    path.write_bytes(b"abc")
    file = GrowingFile(path, patience=0.0)
    assert [file.read(10), file.read(10), file.read(10)] == [b"abc", b"", b""]
    with path.open("ab") as more:
        more.write(b"de")
    assert [file.read(1), file.seek(0), file.read(10)] == [b"d", 0, b"abcde"]
    assert file.seek(2**62) == -1 and file.seek(0, os.SEEK_END) == -1
    file.close()
    assert file.read(1) == b""
    with pytest.raises(ValueError, match="closed file"):
        file.check()


def test_opened_once_and_each_packet_decoded_once(model, processor, movie, monkeypatch):
    """No second look: neither a MediaReader nor a second demuxer is opened, whatever the number of windows."""
    import torchcodec.decoders

    opened = []
    demuxer = torchcodec.decoders.Demuxer
    monkeypatch.setattr(
        torchcodec.decoders, "Demuxer", lambda *args, **kwargs: opened.append(1) or demuxer(*args, **kwargs)
    )
    monkeypatch.setattr(MediaReader, "__init__", None)
    windows, _ = stream(model, processor, movie)
    assert len(windows) == 6 and opened == [1]


def test_what_was_decoded_before_an_error_is_scored_before_it_is_told(model, processor, monkeypatch):
    detector, decoded = StreamingDetector(model, processor, threads=2), []
    monkeypatch.setattr(detector, "_scored", lambda clips: [{"start": clip} for clip in clips])

    def groups():
        for number in range(20):
            decoded.append(number)
            if number == 6:
                raise UnreadableMediaError("recording.ts", "is damaged")
            yield [number]

    scored = []
    with pytest.raises(UnreadableMediaError, match="is damaged"):
        for window in detector._scored_beside(groups()):
            scored.append(window["start"])
    assert scored == [0, 1, 2, 3, 4, 5] and decoded == [0, 1, 2, 3, 4, 5, 6]


def test_who_stops_listening_does_not_wait_for_what_is_not_decoded_yet(model, processor, monkeypatch):
    detector, decoded = StreamingDetector(model, processor, threads=2), []
    monkeypatch.setattr(detector, "_scored", lambda clips: [{"start": clip} for clip in clips])
    waiting, more = threading.Event(), threading.Event()

    def groups():
        for number in range(20):
            if number == 2:
                waiting.set()
                more.wait()
            decoded.append(number)
            yield [number]

    class Executor(ThreadPoolExecutor):
        def shutdown(self, wait=True, **options):
            super().shutdown(wait=False, **options)
            more.set()
            super().shutdown(wait=wait)

    monkeypatch.setattr(streaming, "ThreadPoolExecutor", Executor)
    stream = detector._scored_beside(groups())
    assert next(stream) == {"start": 0}
    waiting.wait()
    # The group that is being waited for ends once it comes; none is begun after it.
    stream.close()
    assert decoded == [0, 1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decoding")]


def test_command(model, processor, pipe, movie, tmp_path, capsys):
    import argparse

    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    parser = argparse.ArgumentParser()
    streaming_command.add_arguments(parser)
    given = [str(movie), "--model", str(tmp_path / "model"), "--patience", "0"]
    assert streaming_command.run(parser.parse_args([*given, "--json"])) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = pipe(str(movie), window_seconds=3, hop_seconds=1)
    assert_same(rows[:-1], expected["windows"])
    assert rows[-1]["label"] == expected["label"]
    assert streaming_command.run(parser.parse_args(given)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and "picture" in lines[0] and lines[-1].startswith(expected["label"])
    assert streaming_command.run(parser.parse_args([str(tmp_path / "none"), *given[1:]])) == 1
    assert streaming_command.run(parser.parse_args([*given, "--hop-seconds", "9"])) == 2
    assert "at most 1.5" in capsys.readouterr().err


def test_channels_that_cancel_are_heard_as_in_the_pipeline(model, processor, pipe, movie, tmp_path):
    path = tmp_path / "cancel.mkv"
    ffmpeg("-i", movie, "-af", "pan=stereo|c0=c0|c1=-1*c0", "-c:v", "copy", "-c:a", "pcm_f32le", path)
    windows, summary = stream(model, processor, path)
    result = pipe(str(path), window_seconds=3, hop_seconds=1)
    assert_same(windows, result["windows"])
    told = "the sound's channels cancel each other: channel 1 stands for their mean"
    assert summary["warnings"].count(told) == result["warnings"].count(told) == 1
    assert all(window["audio_score"] is not None for window in windows)


# -- in a process of its own -------------------------------------------------------------------------------------------


def test_windows_from_a_reader_process_are_the_same(model, processor, movie, tmp_path):
    path = remux(movie, tmp_path / "movie.ts")
    expected, summary = stream(model, processor, path)
    with reader_processes():
        assert stream(model, processor, path) == (expected, summary)
        with open(path, "rb", buffering=0) as file:
            assert stream(model, processor, file)[0] == expected
        data = io.BytesIO(path.read_bytes())  # without a descriptor: decoded here
        assert stream(model, processor, data)[0] == expected
        (tmp_path / "text.ts").write_text("no video at all " * 100)
        with pytest.raises(MediaError, match=r"text\.ts: cannot be read as media"):
            stream(model, processor, tmp_path / "text.ts")


def test_a_decoder_that_dies_ends_its_stream_with_an_error(model, processor, movie):
    with reader_processes():
        detector = StreamingDetector(model, processor)
        detector._told, told, files = (lambda file: files.append(file) or told(file)), detector._told, []
        windows = detector.stream_file(movie, patience=0)
        assert next(windows)["start"] == 0
        os.kill(files[0]._opened._reader.process, signal.SIGSEGV)
        with pytest.raises(DecoderCrashedError, match=r"movie\.mp4: its decoder crashed \(SIGSEGV\)"):
            list(windows)
        assert detector.summary()["windows"] >= 1


def test_a_silent_pipe_is_no_stalled_decoder():
    out, into = os.pipe()
    heard = []
    with os.fdopen(out, "rb", buffering=0) as pipe, os.fdopen(into, "wb", buffering=0) as writer:
        file = GrowingFile(
            pipe, 0.0, 0.01, lambda: heard.append(1) or (len(heard) == 3 and writer.write(b"abc"))
        )
        assert file.read(10) == b"abc" and len(heard) == 3
    mine, theirs = socket.socketpair()
    with theirs:
        send(theirs, os.getpid())  # as a reader does when it begins
        reader = _Reader(mine, ReaderLimits(seconds=60))
        for answer in ((WAITING, []), (WAITING, []), ("a group", ["a note"])):
            Outbox().send(theirs, answer)
        assert reader.ask("pipe.ts", "group") == ("a group", ["a note"])
        reader.connection.close()

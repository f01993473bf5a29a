"""The audit finds what was planted, and nothing else."""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from media_factory import ffmpeg, make_clip, remux
from torchcodec.encoders import Encoder

from dataset_scripts.schema import make_row
from modeling_avlmm.cli.audit import add_arguments, run
from modeling_avlmm.evaluation.audit import property_jobs
from modeling_avlmm.evaluation.audit.dataset_audit import about_corpus, audit_dataset, write_audit
from modeling_avlmm.evaluation.audit.duplicates import (
    find_duplicates,
    picture_hashes,
    sound_hash,
    split_leaks,
)
from modeling_avlmm.evaluation.audit.file_properties import (
    NUMERIC,
    TITLES,
    AuditError,
    file_properties,
)
from modeling_avlmm.evaluation.audit.property_jobs import read_properties
from modeling_avlmm.evaluation.audit.summary import audit_summary
from modeling_avlmm.inference.reader_process import reader_processes
from modeling_avlmm.media import MediaError, MediaNotFoundError, MediaReader, UnreadableMediaError

RATE = 16_000
PEOPLE = 16
TESTED = 5  # of them


# -------------------------------------------------------------------------------------------- small corpora


def texture(seed: int, patch: int | None = None) -> torch.Tensor:
    """Return a smooth random picture that moves, (25, 3, 48, 64) uint8; `patch` seeds another lower half."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 8, generator=draw)
    if patch is not None:
        other = torch.rand(1, 3, 2, 8, generator=torch.Generator().manual_seed(patch))
        coarse[:, :, 4:] = other
    picture = torch.nn.functional.interpolate(coarse, (48, 64), mode="bicubic")[0].clamp(0, 1)
    return torch.stack([(picture.roll(step // 3, 2) * 255).to(torch.uint8) for step in range(25)])


def babble(seed: int) -> torch.Tensor:
    """Return a second of syllables, (16000,): noise of changing pitch and loudness that starts at once."""
    draw = np.random.default_rng([7, seed])
    time = np.arange(RATE) / RATE
    parts = []
    for _ in range(8):
        pitch, loud = draw.uniform(100, 250), draw.uniform(0.05, 0.4)
        tone = sum(draw.uniform(0.1, 1) * np.sin(2 * math.pi * pitch * k * time[:2000]) for k in range(1, 16))
        parts.append(loud * tone / 5 * np.hanning(4000)[1200:3200])
    return torch.from_numpy(np.concatenate(parts)).float().clamp(-1, 1)


def write(path: Path, frames: torch.Tensor, sound: torch.Tensor, crf: int = 23) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoder = Encoder()
    video = encoder.add_video(
        height=48, width=64, frame_rate=25, codec="libx264", pixel_format="yuv420p", crf=crf
    )
    audio = encoder.add_audio(sample_rate=RATE, num_channels=1)
    with encoder.open_file(str(path)):
        video.add_frames(frames)
        audio.add_samples(sound[None])
    return path


def row_of(path: Path, root: Path, person: int, label: int, **columns) -> dict:
    name = path.relative_to(root).as_posix()
    defaults = {"identity": f"p{person:02d}", "generator": "method" if label else None}
    return make_row(str(path), name, label, **{**defaults, **columns})


def split_of(person: int) -> str:
    return "test" if person < TESTED else "train"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> dict:
    """A genuine clip and a fake of each person, written alike: only the content tells them apart."""
    root = tmp_path_factory.mktemp("audit") / "corpus"
    rows = {"train": [], "test": []}
    for person in range(PEOPLE):
        real = write(root / "real" / f"{person}.mp4", texture(person), babble(person))
        fake = write(
            root / "fake" / f"{person}.mp4", texture(person, patch=900 + person), babble(500 + person)
        )
        source = real.relative_to(root).as_posix()
        rows[split_of(person)] += [
            row_of(real, root, person, 0),
            row_of(fake, root, person, 1, source=source),
        ]
    return {"root": root, "rows": rows, "cache": root.parent / "report" / "properties.jsonl"}


@pytest.fixture(scope="module")
def clean(corpus) -> dict:
    return audit_dataset(corpus["rows"], corpus["cache"])


@pytest.fixture(scope="module")
def shortcuts(corpus) -> dict:
    """The same genuine clips; the fakes in Matroska, at a lower bit rate, after 30 ms of silence."""
    root, rows = corpus["root"], {"train": [], "test": []}
    for person in range(PEOPLE):
        sound = babble(500 + person)
        sound[: round(0.03 * RATE)] = 0
        made = write(root / "planted" / f"{person}.mp4", texture(person, patch=900 + person), sound, crf=38)
        soundfile.write(made.with_suffix(".wav"), sound.numpy(), RATE)
        fake = made.with_suffix(".mkv")
        tracks = ["-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "flac"]
        ffmpeg("-i", made, "-i", made.with_suffix(".wav"), *tracks, fake)
        real = corpus["rows"][split_of(person)]
        rows[split_of(person)] += [
            next(row for row in real if row["identity"] == f"p{person:02d}" and row["label"] == 0),
            row_of(fake, root, person, 1),
        ]
    return audit_dataset(rows, corpus["cache"])


def flagged(report: dict, scope: int = 0) -> set[str]:
    return {entry["name"] for entry in report["shortcuts"]["scopes"][scope]["properties"] if entry["flagged"]}


# ------------------------------------------------------------------------------------------- whole audits


def test_nothing_is_found_in_a_clean_corpus(clean):
    assert clean["summary"] == [] and clean["found"] is False and clean["unreadable"] == {}
    assert flagged(clean) == set()
    scope = clean["shortcuts"]["scopes"][0]
    assert (scope["n_real"], scope["n_fake"], scope["groups"]) == (PEOPLE, PEOPLE, PEOPLE)
    assert not any(model["flagged"] for model in scope["combined"].values())
    assert {"container", "video_codec", "fps", "width", "channels", "sampling_rate"} <= set(scope["constant"])
    assert [leak["count"] for leak in clean["leaks"].values()] == [0, 0, 0]
    assert clean["duplicates"]["near"]["count"] == 0
    assert clean["duplicates"]["comparable"] == {"clips": 32, "picture": 32, "sound": 32}
    assert clean["splits"]["test"] == {"clips": 10, "real": 5, "fake": 5, "looked_at": 10, "read": 10}


def test_planted_shortcuts_are_found(shortcuts):
    found = flagged(shortcuts)
    assert {
        "container",
        "video_bitrate",
        "leading_silence",
        "leading_digital_silence",
        "audio_codec",
    } <= found
    properties = {entry["name"]: entry for entry in shortcuts["shortcuts"]["scopes"][0]["properties"]}
    assert properties["container"]["auc"] == properties["container"]["train_to_test"] == 1.0
    assert properties["leading_silence"]["fake"]["value"] == pytest.approx(0.03, abs=0.006)
    assert properties["leading_silence"]["larger_in"] == "fake"
    assert shortcuts["found"] and any(
        line.startswith("container alone separates real from fake with a held-out AUC of 1.00")
        for line in shortcuts["summary"]
    )
    assert any("All file properties together" in line for line in shortcuts["summary"])
    trimming = shortcuts["shortcuts"]["trimming"]
    assert trimming["leading_silence"]["before"]["auc"] > 0.95
    assert trimming["leading_silence"]["after"]["auc"] < 0.6
    assert trimming["seconds"]["fake"]["median"] == pytest.approx(0.03, abs=0.006)
    assert any("trim_leading_silence" in line for line in shortcuts["summary"])


def test_bit_rate_alone_is_found(corpus, tmp_path):
    """The fakes of the clean corpus again, written alike except for the rate factor."""
    rows = {"train": [], "test": []}
    for split, members in corpus["rows"].items():
        for row in members:
            if row["label"] == 1:
                person = int(row["identity"][1:])
                frames, sound = texture(person, patch=900 + person), babble(500 + person)
                path = write(tmp_path / f"{person}.mp4", frames, sound, crf=40)
                row = {**row, "video": str(path)}
            rows[split].append(row)
    report = audit_dataset(rows, tmp_path / "cache.jsonl")
    assert "video_bitrate" in flagged(report) <= {"video_bitrate", "bitrate", "file_size"}


def with_leaks(corpus: dict) -> tuple[dict[str, list[dict]], list[Path], str]:
    """
    Plant leaks in the clean corpus, and return its rows, the genuine training clips and the name of a donor.

    They are a person, a donor, a clip in another container, one encoded again, one with both labels, and a broken file.
    """
    root = corpus["root"]
    rows = {split: [dict(row) for row in members] for split, members in corpus["rows"].items()}
    donor = rows["train"][0]["identity"]
    rows["train"][1]["identity"] = "p00"
    rows["train"][1]["source"] = None
    rows["test"][3]["target_ids"] = [donor]
    train = [Path(row["video"]) for row in rows["train"] if row["label"] == 0]
    extra = root / "extra"
    extra.mkdir(exist_ok=True)
    copied = remux(train[1], extra / "copied.mkv")
    again = extra / "again.mp4"
    encode = ["-c:v", "libx264", "-crf", "34", "-vf", "scale=48:36", "-c:a", "aac", "-b:a", "32k"]
    ffmpeg("-i", train[2], *encode, again)
    twice = extra / "twice.mp4"
    shutil.copy(rows["test"][0]["video"], twice)
    broken = extra / "broken.mp4"
    broken.write_bytes(b"no video at all" * 50)
    rows["test"] += [
        row_of(copied, root, 70, 0),
        row_of(again, root, 71, 1, generator=None),
        row_of(twice, root, 0, 1),
        row_of(broken, root, 72, 0),
    ]
    return rows, train, donor


def test_leaks_and_duplicates_are_found(corpus, tmp_path):
    root = corpus["root"]
    rows, train, donor = with_leaks(corpus)
    report = audit_dataset(rows, corpus["cache"])

    assert report["leaks"]["identities"]["count"] == 1
    assert report["leaks"]["identities"]["examples"][0]["name"] == "p00"
    assert set(report["leaks"]["identities"]["clips"]) == {"train", "test"}
    assert report["leaks"]["sources"]["count"] == 0
    assert report["leaks"]["donors"]["examples"][0]["name"] == donor
    exact, near = report["duplicates"]["exact"], report["duplicates"]["near"]
    assert exact["file"]["count"] == 0 and exact["video"] == {
        "count": 1,
        "real_fake": 0,
        "examples": [
            {
                "clips": {"train": train[1].relative_to(root).as_posix(), "test": "extra/copied.mkv"},
                "labels": [0],
            }
        ],
    }
    # the same person's fake looks alike too, and is not nearer than what was encoded again
    assert near["examples"][0]["clips"] == {
        "train": train[2].relative_to(root).as_posix(),
        "test": "extra/again.mp4",
    }
    assert near["kinds"]["picture and sound"] == {"same_label": 0, "real_fake": 1}
    assert report["duplicates"]["conflicting"]["count"] == 1
    assert list(report["unreadable"]) == ["extra/broken.mp4"]
    assert report["unreadable"]["extra/broken.mp4"]["type"] == "UnreadableMediaError"
    assert report["splits"]["test"]["looked_at"] - report["splits"]["test"]["read"] == 1
    text = "\n".join(report["summary"])
    for part in (
        "1 identities",
        "donors",
        "pictures (frame by frame)",
        "nearly the same",
        "both as real and as fake",
    ):
        assert part in text
    assert "1 file could not be read" in text

    written = write_audit(report, about_corpus("avfolder", "all", root), tmp_path)
    assert json.loads((tmp_path / "audit.json").read_text()) == written
    assert audit_summary(json.loads((tmp_path / "audit.json").read_text())) == report["summary"]
    page = (tmp_path / "audit.md").read_text()
    assert page.index("identities are in more than one split") < page.index("## Clips")
    assert "extra/again.mp4" in page and "extra/broken.mp4" in page


def command(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


def test_command(corpus, clean, shortcuts, capsys):
    """Run it as a user does, on files that were measured before: statuses 0 and 1, files, and a sample."""
    root, folder = corpus["root"], corpus["cache"].parent
    base = ["--dataset", "avfolder", "--data-dir", root, "--output-dir", folder]

    def table(rows: dict[str, list[dict]]) -> None:
        names = ("file_name", "label", "identity", "generator", "source", "split")
        with open(root / "metadata.csv", "w", newline="") as file:
            lines = csv.DictWriter(file, names)
            lines.writeheader()
            for split, members in rows.items():
                for row in members:
                    shared = {name: row[name] for name in ("label", "identity", "generator", "source")}
                    lines.writerow({"file_name": row["path"], "split": split, **shared})

    table(corpus["rows"])
    assert run(command(*base)) == 0
    assert "looking at 32 files" in capsys.readouterr().out
    report = json.loads((folder / "audit.json").read_text())
    assert (report["dataset"], report["protocol"], report["synthetic"]) == ("avfolder", "all", False)
    assert report["shortcuts"] == clean["shortcuts"] and report["duplicates"] == clean["duplicates"]
    assert "Nothing was found" in (folder / "audit.md").read_text()

    planted = {
        split: [
            row_of(root / "planted" / f"{p}.mkv", root, p, 1) for p in range(PEOPLE) if split_of(p) == split
        ]
        + [row for row in members if row["label"] == 0]
        for split, members in corpus["rows"].items()
    }
    table(planted)
    assert run(command(*base)) == 1
    assert "container alone separates real from fake" in capsys.readouterr().out
    page = (folder / "audit.md").read_text()
    assert "| **container** | 1.000 |" in page

    assert run(command(*base, "--limit", 4, "--seed", 1)) == 0  # eight of each class: too few to say anything
    assert "looking at 16 files" in capsys.readouterr().out
    first = json.loads((folder / "audit.json").read_text())
    assert first["splits"]["train"]["looked_at"] == 8 and first["splits"]["train"]["clips"] == 22
    assert "a sample of 4 clips of each class and split" in (folder / "audit.md").read_text()


def test_wrong_usage(tmp_path, monkeypatch, capsys):
    assert run(command("--dataset", "avfoldr", "--data-dir", tmp_path)) == 2
    assert "did you mean 'avfolder'" in capsys.readouterr().err
    assert run(command("--dataset", "avfolder", "--data-dir", tmp_path / "none")) == 2
    assert "does not exist" in capsys.readouterr().err
    for bad in (["--limit", "0"], ["--max-auc", "1.2"]):
        with pytest.raises(SystemExit) as stop:
            command("--dataset", "avfolder", "--data-dir", tmp_path, *bad)
        assert stop.value.code == 2
    capsys.readouterr()
    for label in ("real", "fake"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "a.mp4").write_bytes(b"nothing" * 30)
    options = command("--dataset", "avfolder", "--data-dir", tmp_path, "--output-dir", tmp_path / "out")
    assert run(options) == 2
    assert "None of the 2 files could be read" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(options) == 2
    assert "ffprobe and ffmpeg cannot be found" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------- properties


def test_properties_of_a_known_file(tmp_path):
    path = tmp_path / "a.mp4"
    source = make_clip(tmp_path / "s.mp4", 2, 25, size=(64, 48), sampling_rate=44_100, channels=2, gop=10)
    ffmpeg(
        "-i", source, "-c:v", "copy", "-af", "volume=0:enable='lt(t,0.5)'", "-c:a", "aac", "-b:a", "64k", path
    )
    record = file_properties(str(path))
    assert set(record) == {*TITLES, "hashes", "trimmed"}
    expected = {
        "container": "mov,mp4,m4a,3gp,3g2,mj2",
        "video_codec": "h264",
        "pixel_format": "yuv420p",
        "audio_codec": "aac",
        "width": 64,
        "height": 48,
        "frames": 50,
        "fps": 25.0,
        "sampling_rate": 44_100,
        "channels": 2,
        "keyframe_seconds": pytest.approx(0.4, abs=0.05),
        "aspect": pytest.approx(4 / 3),
        "duration": pytest.approx(2.0, abs=0.05),
        "file_size": path.stat().st_size,
        "av_offset": pytest.approx(0.0, abs=0.001),
        "leading_silence": pytest.approx(0.5, abs=0.03),
        "trailing_silence": pytest.approx(0.0, abs=0.02),
        "peak": pytest.approx(20 * math.log10(0.4), abs=0.5),
        # three quarters of a sine of 0.4
        "loudness": pytest.approx(10 * math.log10(0.75 * 0.4**2 / 2), abs=0.5),
    }
    assert {name: record[name] for name in expected} == expected
    assert record["bitrate"] == pytest.approx(8 * path.stat().st_size / record["duration"], rel=0.01)
    assert record["trimmed"]["seconds"] == record["leading_silence"]
    assert record["trimmed"]["leading_silence"] == 0.0
    assert json.loads(json.dumps(record)) == record


def test_properties_without_sound_or_picture(tmp_path):
    mute = file_properties(str(make_clip(tmp_path / "m.mp4", 1, audio=False)))
    assert mute["video_codec"] == "h264" and mute["trimmed"] is None and mute["hashes"]["audio"] is None
    assert {mute[n] for n in ("audio_codec", "loudness", "leading_silence", "av_offset", "channels")} == {
        None
    }
    ffmpeg("-i", make_clip(tmp_path / "c.mp4", 1), "-vn", tmp_path / "s.wav")
    sound = file_properties(None, str(tmp_path / "s.wav"))
    assert (sound["audio_codec"], sound["sampling_rate"], sound["video_codec"]) == ("pcm_s16le", 16_000, None)
    assert sound["frames"] is None and sound["hashes"]["video"] is None
    both = file_properties(str(tmp_path / "m.mp4"), str(tmp_path / "s.wav"))
    assert (both["video_codec"], both["audio_codec"]) == ("h264", "pcm_s16le")
    assert both["av_length_difference"] == pytest.approx(0.0, abs=0.07)
    with pytest.raises(MediaError):
        file_properties(str(tmp_path / "none.mp4"))
    assert issubclass(MediaNotFoundError, MediaError)


def test_bandwidth(tmp_path):
    """White noise below 3 kHz."""
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=2 * RATE))
    spectrum[2 * 3000 :] = 0
    wave = np.fft.irfft(spectrum)
    soundfile.write(tmp_path / "n.wav", 0.2 * wave / np.abs(wave).max(), RATE, subtype="FLOAT")
    assert file_properties(None, str(tmp_path / "n.wav"))["audio_bandwidth"] == pytest.approx(3000, abs=200)


def test_records_are_kept_and_renewed(tmp_path, monkeypatch):
    paths = [make_clip(tmp_path / f"{n}.mp4", 1 + n / 10) for n in range(3)]
    rows = [row_of(path, tmp_path, 0, 0) for path in paths]
    cache = tmp_path / "out" / "properties.jsonl"
    first, errors = read_properties(rows, cache)
    assert errors == {} and len(cache.read_text().splitlines()) == 3
    measured = []
    measure = property_jobs._measure
    monkeypatch.setattr(
        property_jobs, "_measure", lambda how, job: measured.append(job[0]) or measure(how, job)
    )
    assert read_properties(rows, cache) == (first, {}) and measured == []
    cache.write_text(cache.read_text()[:-40])  # killed while writing the last line
    assert read_properties(rows, cache) == (first, {}) and measured == ["2.mp4"]
    make_clip(paths[0], 2.0)
    again, _ = read_properties(rows, cache)
    assert measured == ["2.mp4", "0.mp4"] and again["0.mp4"]["duration"] > 1.9
    paths[1].unlink()
    kept, gone = read_properties(rows, cache)
    assert set(kept) == {"0.mp4", "2.mp4"} and set(gone) == {"1.mp4"}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_kills_its_reader_costs_itself_alone(tmp_path, workers):
    rows = []
    for number in range(3):
        path = make_clip(tmp_path / f"{number}.mp4", 0.5)
        rows.append(row_of(path, tmp_path, 0, 0))
    with reader_processes():
        kept, errors = read_properties(
            rows, tmp_path / "properties.jsonl", num_workers=workers, measure=_crashing
        )
    assert kept == {"0.mp4": {"duration": 0.5}, "2.mp4": {"duration": 0.5}}
    assert errors["1.mp4"]["type"] == "DecoderCrashedError"
    broken, odd = (property_jobs._measure(how, ("1.mp4", "key", ("1.mp4", None))) for how in (_odd, _odd))
    assert broken == odd and odd[1]["error"]["type"] == "UnreadableMediaError"


def _odd(video, audio):
    raise IndexError("list index out of range")


def _crashing(video, audio):
    with MediaReader(video) as reader:
        assert reader.info.has_video
        if video.endswith("1.mp4"):
            os.kill(reader._video._opened._reader.process, signal.SIGSEGV)
        reader.read(with_audio=False)
    return {"duration": 0.5}


def test_what_a_manifest_names_is_not_opened(tmp_path):
    make_clip(tmp_path / "secret.mp4", 0.5)
    manifest = tmp_path / "clip.mp4"
    manifest.write_text(
        '<!-- --><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S"><Period>'
        '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1" codecs="avc1"><BaseURL>secret.mp4'
        "</BaseURL></Representation></AdaptationSet></Period></MPD>"
    )
    with pytest.raises(UnreadableMediaError, match="not readable as media"):
        file_properties(str(manifest))


def test_workers_find_the_same(tmp_path):
    rows = [row_of(make_clip(tmp_path / f"{n}.mp4", 1), tmp_path, 0, 0) for n in range(2)]
    (tmp_path / "bad.mp4").write_bytes(b"bad" * 99)
    rows.append(row_of(tmp_path / "bad.mp4", tmp_path, 0, 1))
    alone = read_properties(rows, tmp_path / "a.jsonl")
    assert read_properties(rows, tmp_path / "b.jsonl", num_workers=1) == alone
    assert set(alone[1]) == {"bad.mp4"}


# ------------------------------------------------------------------------------------------------ duplicates


def test_sources_and_donors_across_splits():
    splits = {
        "train": [{"path": "r", "identity": "a", "source": None}],
        "test": [{"path": "f", "identity": "b", "source": "r", "target_ids": ["a", None]}],
        "validation": [{"path": "r", "identity": "c", "source": None, "target_ids": ["z"]}],
    }
    leaks = split_leaks(splits)
    assert leaks["identities"] == {"known": True, "count": 0, "clips": {}, "examples": []}
    assert leaks["sources"]["count"] == 1 and leaks["sources"]["clips"] == {
        "train": 1,
        "test": 1,
        "validation": 1,
    }
    assert leaks["donors"]["examples"] == [{"name": "a", "clips": {"train": ["r"], "test": ["f"]}}]
    nothing = split_leaks({"train": [{"path": "x"}], "test": [{"path": "y"}]})
    assert [leak["known"] for leak in nothing.values()] == [False] * 3


def test_hashes():
    frames = texture(1)
    same, other = picture_hashes([frames[0], texture(2)[0]])
    louder = picture_hashes([(frames[0].float() * 0.8 + 20).to(torch.uint8)])[0]
    assert bin(int(same, 16) ^ int(louder, 16)).count("1") <= 2  # brightness and contrast
    assert bin(int(same, 16) ^ int(other, 16)).count("1") > 16
    assert picture_hashes([torch.full((3, 48, 64), 90, dtype=torch.uint8), None]) == [None, None]
    sound = babble(1).numpy()
    late = np.concatenate([np.zeros(800, np.float32), sound])
    differing = bin(int(sound_hash(sound), 16) ^ int(sound_hash(0.5 * late), 16)).count("1")
    assert differing <= 0.18 * 128 and len(sound_hash(sound)) == 32
    assert bin(int(sound_hash(sound), 16) ^ int(sound_hash(babble(2).numpy()), 16)).count("1") > 32
    assert sound_hash(np.zeros(RATE, np.float32)) is None and sound_hash(sound[:500]) is None
    tone = 0.3 * np.sin(2 * math.pi * 500 * np.arange(RATE) / RATE)
    assert sound_hash(tone) is None


def test_silence_and_black_are_no_duplicates():
    hashes = {"file": "1", "video": "black", "audio": "silence", "picture": [None] * 8, "sound": None}
    rows = {split: [{"path": split, "label": 0}] for split in ("train", "test")}
    records = {"train": {"hashes": hashes}, "test": {"hashes": {**hashes, "file": "2"}}}
    found = find_duplicates(rows, records)
    assert {kind: exact["count"] for kind, exact in found["exact"].items()} == {
        "file": 0,
        "video": 0,
        "audio": 0,
    }
    assert found["near"]["count"] == 0 and found["comparable"] == {"clips": 2, "picture": 0, "sound": 0}
    records["test"]["hashes"]["file"] = "1"
    assert find_duplicates(rows, records)["exact"]["file"]["count"] == 1


def test_near_pairs_equal_counting_bits(monkeypatch):
    """Compare blocks and matrix products with a plain count."""
    from modeling_avlmm.evaluation.audit import duplicates as audit_duplicates

    monkeypatch.setattr(audit_duplicates, "_BLOCK", 7)
    draw = np.random.default_rng(0)
    base = [[draw.bytes(8) for _ in range(8)] for _ in range(6)]

    def noisy(data: bytes, flips: int) -> str:
        bits = np.unpackbits(np.frombuffer(data, np.uint8))
        bits[draw.choice(len(bits), flips, replace=False)] ^= 1
        return np.packbits(bits).tobytes().hex()

    rows, records = {"train": [], "validation": [], "test": []}, {}
    for number in range(60):
        path, split = f"{number}", ("train", "validation", "test")[number % 3]
        picture = [noisy(part, int(draw.integers(0, 9))) for part in base[draw.integers(0, 6)]]
        picture = [None if draw.random() < 0.3 else part for part in picture]
        records[path] = {
            "hashes": {"file": path, "video": path, "audio": None, "picture": picture, "sound": None}
        }
        rows[split].append({"path": path, "label": int(draw.integers(0, 2))})
    expected = 0
    clips = [(split, row["path"]) for split, members in rows.items() for row in members]
    for i, (split, path) in enumerate(clips):
        for other_split, other in clips[i + 1 :]:
            pairs = [
                (int(a, 16) ^ int(b, 16)).bit_count()
                for a, b in zip(
                    records[path]["hashes"]["picture"], records[other]["hashes"]["picture"], strict=True
                )
                if a is not None and b is not None
            ]
            near = len(pairs) >= 4 and sum(pairs) / (64 * len(pairs)) <= 0.10
            expected += near and split != other_split
    near = find_duplicates(rows, records)["near"]
    assert near["count"] == sum(near["kinds"]["picture"].values()) == expected > 20
    assert len(near["examples"]) == 20
    nearest = [example["picture"] for example in near["examples"]]
    assert nearest == sorted(nearest)


def test_every_property_has_a_title():
    assert set(NUMERIC) < set(TITLES) and len(set(TITLES.values())) == len(TITLES)
    assert issubclass(AuditError, ValueError)

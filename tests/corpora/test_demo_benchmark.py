"""The demonstration benchmark: layout, reproducibility, synchrony, learnability, and no shortcuts in file properties."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.signal import stft
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torchcodec.decoders import AudioDecoder, VideoDecoder

from dataset_scripts.demo_benchmark import benchmark as demo
from dataset_scripts.demo_benchmark.face import FRAME_RATE, FRAME_SIZE, FRAMES, mouth_tracks
from dataset_scripts.demo_benchmark.forgery import DrawnClip, identity_of, render, truth
from dataset_scripts.demo_benchmark.layouts import plan_fakeavceleb, plan_mavos
from dataset_scripts.demo_benchmark.speech import CONTROL_RATE, LANGUAGES, SAMPLE_RATE, compose, vocode

SEED = 3
IDENTITIES = 30
PROJECT = Path(__file__).resolve().parents[2]


def decode(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return frames uint8 `(n, h, w, 3)` and mono sound of one file."""
    video = VideoDecoder(str(path))
    frames = video.get_frames_in_range(0, len(video)).data.permute(0, 2, 3, 1).numpy()
    sound = AudioDecoder(str(path)).get_all_samples()
    assert sound.sample_rate == SAMPLE_RATE and sound.data.shape[0] == 1
    return frames, sound.data[0].numpy()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Ten identities and the smallest MAVOS-DD copy, written through the command line."""
    output = tmp_path_factory.mktemp("demo")
    command = [
        sys.executable,
        "-m",
        "dataset_scripts.demo_benchmark",
        "--output-dir",
        str(output),
        "--seed",
        str(SEED),
    ]
    command += ["--identities", "10", "--mavos-scale", "0.1", "--workers", "2"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert "FakeAVCeleb_v1.2: 110 clips" in done.stdout and "clips written" in done.stdout
    assert "110/110" in done.stderr
    return output


def _rows(root: Path) -> list[list[str]]:
    with open(root / "FakeAVCeleb_v1.2" / "meta_data.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_fakeavceleb_layout_and_quirks(small):
    root = small / "FakeAVCeleb_v1.2"
    raw = (root / "meta_data.csv").read_bytes()
    assert raw.startswith(b"source,target1,target2,method,category,type,race,gender,path,\r\n")
    assert raw.count(b"\n") == raw.count(b"\r\n") and b'"' not in raw
    rows = _rows(small)[1:]
    paths = [row[9].removeprefix("FakeAVCeleb/") + "/" + row[8] for row in rows]
    assert all(row[9] == "FakeAVCeleb/" + "/".join([row[5], row[6], row[7], row[0]]) for row in rows)
    assert {*paths} == {str(file.relative_to(root)) for file in root.rglob("*.mp4")}
    assert len(paths) == len(set(paths)) + 1  # one file is listed twice, under two methods
    twice = next(path for path in paths if paths.count(path) == 2)
    assert {row[3] for row, path in zip(rows, paths, strict=True) if path == twice} == {
        "wav2lip",
        "faceswap-wav2lip",
    }
    assert twice.startswith("FakeVideo-FakeAudio/") and twice.endswith("_wavtolip.mp4")
    groups = [(row[6], row[7]) for row in rows if row[4] == "A"]
    assert len(set(groups)) == 10 and {groups.count(group) for group in groups} == {3}
    assert any("(" in race and " " in race for race, _ in groups)
    categories = {letter: sum(row[4] == letter for row in rows) for letter in "ABCD"}
    assert categories == {"A": 30, "B": 20, "C": 30, "D": 31}
    assert {row[1] for row in rows if row[4] == "B"} == {"fake.mp4"}
    junk = {row[1] for row in rows if row[3] == "faceswap"}
    assert any(value.endswith(".mp4") for value in junk) and any(value.startswith("id") for value in junk)
    for row, path in zip(rows, paths, strict=True):  # the genuine clip behind every file is there
        source = f"RealVideo-RealAudio/{row[6]}/{row[7]}/{row[0]}/{Path(row[8]).stem.split('_')[0]}.mp4"
        assert source in paths, path
    assert (
        len(list((root / "RealVideo-RealAudio").rglob("*.txt"))) == 10
        and len(list(root.rglob("*.txt"))) == 11
    )


def test_mavos_layout(small):
    table = Dataset.load_from_disk(str(small / "MAVOS-DD"))
    assert table.column_names == [
        "video_path",
        "label",
        "split",
        "open_set_model",
        "open_set_language",
        "language",
        "generative_method",
    ]
    people: dict[str, set[str]] = {}
    plan, _ = plan_mavos(SEED, 0.1)
    person = {clip.path: clip.person[0] for clip in plan}
    for row in table:
        assert (small / "MAVOS-DD" / row["video_path"]).is_file()
        assert row["video_path"].split("/")[:2] == [row["language"], row["generative_method"]]
        assert (row["label"] == "real") == (row["generative_method"] == "real")
        assert row["open_set_model"] == (row["generative_method"] in ("hififace", "roop", "sonic"))
        assert row["open_set_language"] == (row["language"] in ("german", "hindi"))
        assert row["split"] == "test" or not (row["open_set_model"] or row["open_set_language"])
        people.setdefault(row["split"], set()).add(person[row["video_path"]])
    assert {*people} == {"train", "validation", "test"}
    assert not people["train"] & people["test"] and not people["train"] & people["validation"]
    assert {row["label"] for row in table if row["split"] == "validation"} == {"real", "fake"}
    assert {*table["language"]} == {*LANGUAGES}
    full, rows = plan_mavos(0)
    assert 300 <= len(full) <= 400
    cells = {(row["open_set_model"], row["open_set_language"]) for row in rows if row["split"] == "test"}
    assert len(cells) == 4
    assert any(row["video_path"].endswith(".mp4.mp4") for row in rows)


def test_media_and_annotations(small):
    root = small / "FakeAVCeleb_v1.2"
    file = sorted(root.rglob("*.mp4"))[0]
    frames, sound = decode(file)
    assert frames.shape == (FRAMES, FRAME_SIZE, FRAME_SIZE, 3) and len(sound) >= 2 * SAMPLE_RATE
    metadata = VideoDecoder(str(file)).metadata
    assert metadata.codec == "h264" and metadata.average_fps == FRAME_RATE
    assert AudioDecoder(str(file)).metadata.codec == "aac"
    known = [json.loads(line) for line in (small / "real_annotations.jsonl").read_text().splitlines()]
    assert {item["path"] for item in known} == {
        str(path.relative_to(root)) for path in (root / "RealVideo-RealAudio").rglob("*.mp4")
    }
    for item in known:
        assert item["identity"] in item["path"] and item["language"] in LANGUAGES
        assert item["seconds"] == [round(0.1 * k, 3) for k in range(20)]
        assert all(len(item[name]) == 20 for name in ("mouth_open", "loudness", "pitch_hz"))
        assert min(item["mouth_open"]) >= 0 and 0.3 < max(item["mouth_open"]) <= 1
        assert all(pitch == 0 or 50 < pitch < 500 for pitch in item["pitch_hz"])


def test_same_seed_same_content_whatever_the_workers(small, tmp_path):
    clips = plan_fakeavceleb(SEED, 10)[0][:22:4]
    for number, clip in enumerate(clips):  # here in this process and alone, there by two workers in batches
        demo.write_clip(tmp_path / f"{number}.mp4", SEED, clip)
        one, two = decode(tmp_path / f"{number}.mp4"), decode(small / "FakeAVCeleb_v1.2" / clip.path)
        assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])
    clip = plan_fakeavceleb(SEED, 10)[0][0]
    assert not np.array_equal(render(SEED, clip).frames, render(SEED + 1, clip).frames)


def test_complete_is_skipped_partial_is_completed(small):
    options = {"seed": SEED, "identities": 10, "mavos_scale": 0.1, "workers": 1}
    before = {file: file.stat().st_mtime_ns for file in small.rglob("*.mp4")}
    assert demo.make_demo_benchmark(small, **options)["written"] == 0
    state = small / demo.MARK
    known = json.loads(state.read_text())
    assert known["complete"] == ["fakeavceleb", "mavos_dd"]
    # As an interrupted run leaves it: a clip is missing, the corpus is not marked complete.
    lost = sorted(before)[0]
    lost.unlink()
    state.write_text(json.dumps(known | {"complete": ["mavos_dd"]}))
    result = demo.make_demo_benchmark(small, **options)
    assert result["written"] == 1 and result["complete"] == ["fakeavceleb", "mavos_dd"]
    assert lost.is_file() and all(file.stat().st_mtime_ns == before[file] for file in before if file != lost)


def test_foreign_directories_and_wrong_arguments(tmp_path):
    (tmp_path / "FakeAVCeleb_v1.2").mkdir()
    with pytest.raises(FileExistsError, match="not made by this script"):
        demo.make_demo_benchmark(tmp_path, identities=10)
    with pytest.raises(ValueError, match="multiple of 10"):
        plan_fakeavceleb(0, 15)
    with pytest.raises(ValueError, match="only must be one of"):
        demo.make_demo_benchmark(tmp_path / "other", only="dfdc")


def _file_properties(path: Path, frames: np.ndarray, sound: np.ndarray) -> list[float]:
    """Return what a shortcut could use: size, counts, global statistics of picture and sound."""
    picture = frames.astype(np.float32) / 255
    grey = picture.mean(-1)
    edges = 4 * grey[::5, 1:-1, 1:-1] - grey[::5, :-2, 1:-1] - grey[::5, 2:, 1:-1]
    edges = edges - grey[::5, 1:-1, :-2] - grey[::5, 1:-1, 2:]
    steps, level = np.diff(grey, axis=0), grey.mean((1, 2))
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    frequency = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
    share = np.cumsum(spectrum) / spectrum.sum()
    rms = float(np.sqrt(np.mean(sound**2)))
    envelope = np.sqrt(np.convolve(sound**2, np.ones(160) / 160, "same"))
    loud = envelope > 0.1 * envelope.max()
    return [
        path.stat().st_size,
        len(frames),
        len(sound),
        *picture.mean((0, 1, 2)),
        *picture.std((0, 1, 2)),
        *(np.log(np.mean(field**2)) for field in (edges, steps)),
        *(np.log(np.mean(np.abs(field))) for field in (edges, steps)),
        level.std(),
        np.diff(level).std(),
        rms,
        np.abs(sound).max() / rms,
        np.mean(np.diff(np.sign(sound)) != 0),
        (frequency * spectrum).sum() / spectrum.sum(),
        *(frequency[np.searchsorted(share, part)] for part in (0.5, 0.85, 0.95)),
        np.argmax(loud) / SAMPLE_RATE,
        1 - loud.mean(),
    ]


def _log_mel(sound: np.ndarray) -> np.ndarray:
    """Return a 128-band log-mel `(time, 128)`, 25 ms windows every 10 ms."""
    frequency, _, spectrum = stft(sound[: 2 * SAMPLE_RATE], SAMPLE_RATE, nperseg=400, noverlap=240, nfft=512)
    mel = 2595 * np.log10(1 + frequency / 700)
    centres = np.linspace(0, mel[-1], 130)
    bank = np.clip(1 - np.abs(mel[:, None] - centres[None, 1:-1]) / centres[1], 0, None)
    return np.log(np.abs(spectrum.T) ** 2 @ bank + 1e-8)


def _face_features(frames: np.ndarray) -> np.ndarray:
    """Return local detail and colour of 64-pixel frames on an 8 x 8 grid, averaged over six frames."""
    picture = torch.from_numpy(frames[::9]).permute(0, 3, 1, 2).float() / 255
    picture = torch.nn.functional.interpolate(picture, size=(64, 64), mode="bilinear", antialias=True)
    detail = picture.mean(1, keepdim=True)
    fine = (detail - torch.nn.functional.avg_pool2d(detail, 3, 1, 1)).abs()
    maps = torch.cat(
        [
            torch.log(torch.nn.functional.avg_pool2d(fine, 8) + 1e-3),
            4 * torch.nn.functional.avg_pool2d(picture, 8),
        ],
        1,
    )
    return maps[..., 1:7, 1:7].mean(0).flatten().numpy()


def _mel_features(mel: np.ndarray) -> np.ndarray:
    """Return each band's roughness over time and over frequency, and its variation."""
    return np.concatenate(
        [
            np.abs(np.diff(mel, axis=0)).mean(0),
            np.abs(np.diff(mel, 2, axis=1)).mean(0),
            np.abs(mel[3:] - mel[:-3]).mean(0),
        ]
    )


def _mouth_pixels(frames: np.ndarray) -> np.ndarray:
    """Return grey pixels around the mouth at half resolution, minus their mean over time, `(frames, pixels)`."""
    mouth = frames[:FRAMES, 60:88, 26:70].astype(np.float32).mean(-1)
    mouth = mouth.reshape(FRAMES, 14, 2, 22, 2).mean((2, 4)).reshape(FRAMES, -1)
    return (mouth - mouth.mean(0)) / 32


def _envelope(sound: np.ndarray) -> np.ndarray:
    """Return the standardised loudness per video frame."""
    window = SAMPLE_RATE // FRAME_RATE
    power = np.sqrt(np.mean(sound[: FRAMES * window].reshape(FRAMES, window) ** 2, axis=1))
    power = np.convolve(power, np.ones(3) / 3, mode="same")
    return (power - power.mean()) / power.std()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> dict[str, np.ndarray]:
    """Features of 180 decoded clips of 30 identities: two genuine ones and one of each of four methods."""
    root = tmp_path_factory.mktemp("corpus")
    clips, _ = plan_fakeavceleb(SEED, IDENTITIES)
    chosen: list[DrawnClip] = []
    for start in range(0, len(clips), 11):
        own = clips[start : start + 11]
        chosen += [own[k] for k in (0, 2, 3, 5, 6, 7)]  # real, real, rtvc, faceswap, fsgan, wav2lip
    demo.write_clips(root, SEED, chosen, 2, "corpus")
    names = ("method", "identity", "properties", "face", "mel", "mouth", "envelope")
    table: dict[str, list] = {name: [] for name in names}
    for clip in chosen:
        frames, sound = decode(root / clip.path)
        table["method"].append(clip.method)
        table["identity"].append(clip.person[0])
        table["properties"].append(_file_properties(root / clip.path, frames, sound))
        table["face"].append(_face_features(frames))
        table["mel"].append(_mel_features(_log_mel(sound)))
        table["mouth"].append(_mouth_pixels(frames))
        table["envelope"].append(_envelope(sound))
    return {name: np.asarray(values) for name, values in table.items()}


def _auc(features: np.ndarray, fake: np.ndarray, identity: np.ndarray, strength: float) -> float:
    """Return the AUC of a logistic regression on unseen identities, five folds."""
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=3000)
    )
    scores = cross_val_predict(
        model, features, fake, groups=identity, cv=GroupKFold(5), method="predict_proba"
    )
    return float(roc_auc_score(fake, scores[:, 1]))


@pytest.mark.parametrize("method", ["faceswap", "fsgan", "wav2lip", "rtvc", "all"])
def test_file_properties_do_not_tell_real_from_fake(corpus, method):
    # For forged pictures, a clip with a genuine picture counts as genuine.
    genuine = ["real"] if method in ("rtvc", "all") else ["real", "rtvc"]
    keep = np.isin(corpus["method"], [*genuine, method]) | (method == "all")
    fake = ~np.isin(corpus["method"], genuine)[keep]
    auc = _auc(corpus["properties"][keep], fake, corpus["identity"][keep], 0.1)
    assert 0.35 < auc < 0.65, auc


@pytest.mark.parametrize("method", ["faceswap", "fsgan", "wav2lip"])
def test_forged_faces_are_learnable_from_local_evidence(corpus, method):
    keep = np.isin(corpus["method"], ["real", "rtvc", method])
    fake = (corpus["method"] == method)[keep]
    auc = _auc(corpus["face"][keep], fake, corpus["identity"][keep], 0.05)
    assert auc > 0.85, auc


def test_fake_audio_is_learnable_from_the_log_mel(corpus):
    fake = corpus["method"] == "rtvc"
    auc = _auc(corpus["mel"], fake, corpus["identity"], 0.05)
    assert auc > 0.95, auc


def test_mouth_opening_follows_loudness_in_the_annotations(small):
    known = [json.loads(line) for line in (small / "real_annotations.jsonl").read_text().splitlines()]
    agreement = [np.corrcoef(item["mouth_open"], item["loudness"])[0, 1] for item in known]
    assert np.mean(agreement) > 0.6


def test_mouth_pixels_follow_the_sound_unless_lips_were_driven_by_other_speech(corpus):
    """A ridge regression from mouth pixels to loudness is fitted on genuine clips and tested on other people."""
    people = np.unique(corpus["identity"])
    seen = np.isin(corpus["identity"], people[: len(people) // 2])
    fit = seen & (corpus["method"] == "real")
    pixels = np.concatenate(corpus["mouth"][fit])
    weights = np.linalg.solve(
        pixels.T @ pixels + 20 * np.eye(pixels.shape[1]), pixels.T @ np.concatenate(corpus["envelope"][fit])
    )

    def agreement(method: str) -> float:
        clips = np.flatnonzero(~seen & (corpus["method"] == method))
        return float(
            np.mean([np.corrcoef(corpus["mouth"][k] @ weights, corpus["envelope"][k])[0, 1] for k in clips])
        )

    real, driven = agreement("real"), agreement("wav2lip")
    assert real > 0.4 and real > driven + 0.25, (real, driven)


def test_speech_and_vocoder():
    rng = np.random.default_rng(0)
    plan = plan_fakeavceleb(SEED, 10)[0]
    voice = identity_of(SEED, plan[0].person)[1]
    utterance = compose(voice, "mandarin", rng, 2.0)
    assert len(utterance.pitch) == 2 * CONTROL_RATE
    assert utterance.opening.min() >= 0 and utterance.opening.max() <= 1
    opening, rounding = mouth_tracks(utterance, FRAMES)
    assert opening.shape == rounding.shape == (FRAMES,)
    assert np.allclose(opening[::5], np.asarray(truth(utterance, 0.2)["mouth_open"]), atol=1e-3)
    tone = np.sin(2 * np.pi * 500 * np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    fake = vocode(tone, rng)
    assert fake.shape == tone.shape
    assert np.argmax(np.abs(np.fft.rfft(fake))) / 2 == pytest.approx(500, abs=40)

"""The processor of AVPL, and the pipeline and publishing with a small AVPL."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from avpl_factory import TINY, save_tiny_encoders, stir
from media_factory import make_clip
from safetensors.torch import load_file
from transformers import AutoProcessor, WhisperFeatureExtractor, pipeline

from modeling_avlmm import (
    AVDeepfakeDetectionPipeline,
    AVPLForDeepfakeDetection,
    AVPLProcessor,
    Clip,
    MediaError,
)
from modeling_avlmm.__main__ import main
from modeling_avlmm.inference.loading import load_detector
from modeling_avlmm.media import UnreadableMediaError
from modeling_avlmm.modeling_outputs import fake_probability
from modeling_avlmm.pipeline_results import timeline
from modeling_avlmm.publishing.elsewhere import DETECT, run_without_package
from modeling_avlmm.publishing.publish import PublishError, publish

TASK = "av-deepfake-detection"
SCORES = ("score", "video_score", "audio_score")
OF_FACES = ("faces", "face_margin", "min_face_size")
FIELDS = ("fps", "max_frames", "max_seconds", "image_size", "trim_leading_silence", *OF_FACES)


def random_clip(seconds: float = 1.0, frames: int | None = 16, audio: bool = True, size: int = 48) -> Clip:
    generator = torch.Generator().manual_seed(0)
    picture = timestamps = None
    if frames:
        picture = torch.randint(0, 256, (frames, 3, size, size), generator=generator, dtype=torch.uint8)
        timestamps = torch.arange(frames, dtype=torch.float64) / 16
    sound = 0.1 * torch.randn(round(seconds * 16_000), generator=generator) if audio else None
    return Clip(picture, timestamps, sound, 0.0, seconds, "random")


@pytest.fixture(scope="module")
def processor():
    return AVPLProcessor(image_size=48)


def write_detector(folder, **options):
    """Save model and processor in one folder, with scores far from 0.5."""
    torch.manual_seed(0)
    model = AVPLForDeepfakeDetection.from_encoders(
        **save_tiny_encoders(folder / "encoders"), **{**TINY, **options}
    )
    stir(model).save_pretrained(folder / "model")
    AVPLProcessor.from_config(model.config).save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def small_detector(tmp_path_factory):
    return write_detector(tmp_path_factory.mktemp("avpl"))


@pytest.fixture(scope="module")
def detector(small_detector):
    return pipeline(TASK, model=str(small_detector), device="cpu")


# -- one clip ----------------------------------------------------------------------------------------------------------


def test_a_whole_clip(processor):
    clip = random_clip()
    encoded = processor.encode(clip)
    assert torch.equal(encoded["pixel_values"], clip.frames) and encoded["pixel_values"].dtype == torch.uint8
    assert encoded["frame_mask"].all() and encoded["audio_mask"].all()
    assert torch.equal(encoded["frame_times"], clip.timestamps.float())
    assert encoded["input_features"].shape == (80, 101) and encoded["audio_mask"].shape == (50,)
    assert encoded["questions"].tolist() == [True] * 3 and "labels" not in encoded


def test_spectra_are_those_of_the_stock_padding_to_30_seconds(processor):
    """The kept spectra are equal to the last bit: the loudest value, which sets the floor, is never padding."""
    stock = WhisperFeatureExtractor()
    for seconds in (1.0, 0.4137):
        clip = random_clip(seconds)
        whole = stock(clip.audio.numpy(), sampling_rate=16_000, return_tensors="pt")["input_features"][0]
        assert whole.shape == (80, 3000)
        encoded = processor.encode(clip)
        torch.testing.assert_close(encoded["input_features"], whole[:, :101], atol=1e-6, rtol=0)
        assert encoded["audio_mask"].sum() == math.ceil(seconds * 50)
    assert AVPLProcessor(WhisperFeatureExtractor(feature_size=128)).encode(clip)["input_features"].shape == (
        128,
        101,
    )


def test_frames_keep_their_uneven_times(processor):
    clip = random_clip(frames=5)
    clip.timestamps = torch.tensor([0.0, 0.04, 0.33, 0.5, 0.97], dtype=torch.float64)
    encoded = processor.encode(clip)
    assert encoded["frame_mask"].tolist() == [True] * 5 + [False] * 11
    assert encoded["frame_times"][:5].tolist() == pytest.approx([0.0, 0.04, 0.33, 0.5, 0.97])
    assert torch.equal(encoded["pixel_values"][:5], clip.frames) and not encoded["pixel_values"][5:].any()
    # A clip that was sampled more densely gives the frames on screen at this processor's times.
    dense = random_clip(frames=25)
    dense.timestamps = torch.arange(25, dtype=torch.float64) / 25
    encoded = processor.encode(dense)
    chosen = [int(k / 16 * 25 + 1e-6) for k in range(16)]
    assert torch.equal(encoded["pixel_values"], dense.frames[chosen])
    assert encoded["frame_times"].tolist() == pytest.approx([k / 25 for k in chosen])


def test_files_are_sampled_where_flash_and_click_meet(tmp_path):
    processor = AVPLProcessor(image_size=32, fps=10, max_frames=20, max_seconds=2.0)
    path = make_clip(tmp_path / "flash.mp4", seconds=2, fps=10, size=(56, 40), flash_at=1.2, click_at=1.2)
    batch = processor([path], return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 20, 3, 32, 32) and batch["input_features"].shape == (1, 80, 201)
    flash = int(batch["pixel_values"][0].float().mean((1, 2, 3)).argmax())
    click = float(batch["input_features"][0].mean(0).argmax()) * 0.01
    assert (
        batch["frame_times"][0, flash].item()
        == pytest.approx(1.2, abs=1e-6)
        == pytest.approx(click, abs=0.025)
    )


def test_absent_parts_and_labels_in_a_batch(processor):
    clips = [random_clip(), random_clip(audio=False), random_clip(frames=None)]
    encoded = [
        processor.encode(clips[0], ("overall",), label=1, audio_label=0),
        processor.encode(clips[1]),
        processor.encode(clips[2], label=0),
    ]
    batch = processor.collate(encoded)
    assert set(batch) == {*processor.model_input_names, "labels", "video_labels", "audio_labels"}
    assert batch["frame_mask"].any(1).tolist() == [True, True, False]
    assert batch["audio_mask"].any(1).tolist() == [True, False, True]
    assert batch["questions"].tolist() == [[True, False, False], [True] * 3, [True] * 3]
    assert batch["labels"].tolist() == [1, -100, 0] and batch["audio_labels"].tolist() == [0, -100, -100]
    assert "labels" not in processor.collate(encoded[1:2])


def test_wrong_use_is_explained(processor, tmp_path):
    with pytest.raises(UnreadableMediaError, match="neither sound nor picture"):
        processor.encode(random_clip(frames=None, audio=False))
    with pytest.raises(ValueError, match=r"1\.5 s is longer than one pass takes \(max_seconds=1\)"):
        processor.encode(random_clip(seconds=1.5))
    with pytest.raises(ValueError, match="longer than one pass"):
        processor.load(make_clip(tmp_path / "long.mp4", seconds=2, fps=5, size=(16, 16)))
    for questions in ((), ("smell",)):
        with pytest.raises(ValueError, match="questions must be of"):
            processor.encode(random_clip(), questions)
    with pytest.raises(MediaError):
        processor([str(tmp_path / "missing.mp4")])


def test_saves_and_loads_all_of_itself(tmp_path):
    changed = AVPLProcessor(
        WhisperFeatureExtractor(feature_size=128),
        fps=10,
        max_frames=20,
        max_seconds=2.0,
        trim_leading_silence=True,
        faces="largest",
        face_margin=2.0,
        min_face_size=10,
    )
    changed.save_pretrained(tmp_path)
    for loaded in (AVPLProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is AVPLProcessor and loaded.feature_extractor.feature_size == 128
        assert all(getattr(loaded, name) == getattr(changed, name) for name in FIELDS)


# -- the pipeline ------------------------------------------------------------------------------------------------------


def test_pipeline_equals_model_and_processor(detector, small_detector, clips):
    assert type(detector) is AVDeepfakeDetectionPipeline and type(detector.processor) is AVPLProcessor
    result = detector(str(clips["short"]))
    model, processor = (
        part.from_pretrained(small_detector) for part in (AVPLForDeepfakeDetection, AVPLProcessor)
    )
    inputs = processor([clips["short"]])
    with torch.no_grad():
        output = model(**inputs)
    expected = [
        fake_probability(logits).item()
        for logits in (output.logits, output.video_logits, output.audio_logits)
    ]
    assert [result[name] for name in SCORES] == pytest.approx(expected, abs=1e-6) and len(set(expected)) == 3
    times = [point["time"] for point in result["timeline"]]
    assert times == pytest.approx(inputs["frame_times"][0].tolist(), abs=1e-3) and times[1] > 0
    scores = [point["disagreement"] for point in result["timeline"]]
    assert scores == pytest.approx(output.frame_scores[0].tolist(), abs=1e-6)
    assert result["disagreement"] == pytest.approx(output.disagreement.item(), abs=1e-6)
    json.dumps(result)


def test_timeline_of_a_long_file_is_one(detector, clips):
    result = detector(str(clips["long"]))
    assert len(result["windows"]) == 10 and len(result["timeline"]) == 60
    times = [point["time"] for point in result["timeline"]]
    assert times == sorted(times) and times[6] == pytest.approx(1.0, abs=1e-3)
    assert set(result["windows"][0]) == {"start", "end", *SCORES}
    # Overlapping windows share moments, but each moment is in the timeline once.
    halves = detector(str(clips["long"]), window_seconds=1.0, hop_seconds=0.5)
    assert len({round(point["time"], 3) for point in halves["timeline"]}) == len(halves["timeline"])
    batches = detector([str(clips[name]) for name in ("long", "broken", "clip")], batch_size=4)
    assert batches[0]["disagreement"] == pytest.approx(result["disagreement"], abs=1e-5)
    assert batches[1]["error"] and batches[1]["timeline"] == [] and batches[1]["disagreement"] is None


def test_detect_hands_the_timeline_on(small_detector, detector, clips, capsys):
    assert (
        main(["detect", str(clips["long"]), "--model", str(small_detector), "--device", "cpu", "--json"]) == 0
    )
    told = json.loads(capsys.readouterr().out)
    result = detector(str(clips["long"]))
    assert told["timeline"] == result["timeline"] and told["disagreement"] == result["disagreement"]


def test_windows_that_overlap_are_averaged():
    windows = [{"frames": [(0.0, 0.2), (0.5, 0.4)]}, {"frames": [(0.5, 0.8), (1.0, 1.0)]}, {}]
    merged = timeline(windows)
    assert [(p["time"], pytest.approx(p["disagreement"])) for p in merged["timeline"]] == [
        (0.0, 0.2),
        (0.5, 0.6),
        (1.0, 1.0),
    ]
    assert merged["disagreement"] == pytest.approx(0.6)
    assert timeline([{}]) == {"disagreement": None, "timeline": []}


def test_pipeline_with_and_without_sound_and_picture(detector, clips):
    silent, sound = detector([str(clips[name]) for name in ("silent", "sound")])
    assert silent["audio_score"] is None and silent["score"] == silent["video_score"]
    assert sound["video_score"] is None and sound["score"] == sound["audio_score"]
    for result in (silent, sound):
        assert result["disagreement"] is None and result["timeline"] == []
    asked = detector(str(clips["short"]), questions=("overall", "audio"))
    assert asked["video_score"] is None and asked["audio_score"] is not None and asked["timeline"]


def test_without_matching_there_is_no_timeline(tmp_path, clips):
    detector = pipeline(TASK, model=str(write_detector(tmp_path, matching_weight=0.0)), device="cpu")
    assert not {"timeline", "disagreement"} & detector(str(clips["short"])).keys()


def test_evaluation_loads_it(small_detector, detector, clips):
    loaded, zero_shot = load_detector(str(small_detector), "cpu")
    assert not zero_shot and loaded(str(clips["short"]))["score"] == detector(str(clips["short"]))["score"]


# -- what travels ------------------------------------------------------------------------------------------------------


def test_publishes_the_trained_part_and_loads_without_the_package(small_detector, detector, clips, tmp_path):
    """Publishing refuses encoders in local folders; once stored with the detector, they are published too."""
    with pytest.raises(PublishError, match=r"vision encoder is the local folder .*set save_encoders to true"):
        publish(small_detector, tmp_path / "published")
    model = AVPLForDeepfakeDetection.from_pretrained(small_detector)
    model.config.save_encoders = True
    model.save_pretrained(tmp_path / "whole")
    detector.processor.save_pretrained(tmp_path / "whole")
    folder = publish(tmp_path / "whole", tmp_path / "published")
    config = json.loads((folder / "config.json").read_text())
    assert config["vision_encoder"] is None and config["audio_encoder"] is None
    assert str(tmp_path) not in (folder / "README.md").read_text() + json.dumps(config)
    assert "two frozen foundation models" in (folder / "README.md").read_text()
    assert load_file(folder / "model.safetensors").keys() == model.state_dict().keys()
    (remote,) = run_without_package(DETECT, folder, clips["short"], folder=tmp_path)
    here = detector(str(clips["short"]))
    assert remote["module"].startswith("transformers_modules.")
    assert remote["score"] == pytest.approx(here["score"], abs=1e-6)
    lines = ([point["disagreement"] for point in result["timeline"]] for result in (remote, here))
    assert next(lines) == pytest.approx(next(lines), abs=1e-6) and len(remote["timeline"]) == 6


def test_ids_of_the_hub_are_published_as_ids(small_detector, detector, clips, tmp_path, monkeypatch):
    """With public encoders only the trained part is published; a folder of that name stands in for the Hub."""
    monkeypatch.chdir(tmp_path)
    model = AVPLForDeepfakeDetection.from_pretrained(small_detector)
    for part in ("vision", "audio"):
        setattr(model.config, f"{part}_encoder", f"someone/{part}")
    model.save_pretrained(tmp_path / "model")
    detector.processor.save_pretrained(tmp_path / "model")
    hub = tmp_path / "hub"
    commit = "0123456789abcdef0123456789abcdef01234567"
    for part, folder in save_tiny_encoders(tmp_path / "made").items():
        name = part.removesuffix("_encoder")
        snapshot = hub / f"models--someone--{name}" / "snapshots" / commit
        snapshot.parent.mkdir(parents=True)
        (tmp_path / folder).rename(snapshot)
        (hub / f"models--someone--{name}" / "refs").mkdir()
        (hub / f"models--someone--{name}" / "refs" / "main").write_text(commit)
    script = (
        "import sys; from modeling_avlmm import AVPLForDeepfakeDetection; from modeling_avlmm.publishing.publish import publish;"
        f"m = AVPLForDeepfakeDetection.from_encoders('someone/vision', 'someone/audio', **{TINY!r});"
        "print(m.config.vision_revision);"
        "publish(sys.argv[1], sys.argv[2])"
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "HF_HUB_CACHE": str(hub),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(__import__("pathlib").Path(__file__).parents[1]),
    }
    command = [sys.executable, "-c", script, str(tmp_path / "model"), str(tmp_path / "published")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert commit in done.stdout
    config = json.loads((tmp_path / "published" / "config.json").read_text())
    assert config["vision_encoder"] == "someone/vision"
    keys = load_file(tmp_path / "published" / "model.safetensors").keys()
    assert keys and not any("_encoder." in key for key in keys)
    card = (tmp_path / "published" / "README.md").read_text()
    assert "someone/vision" in card and "someone/audio" in card.split("---")[1]

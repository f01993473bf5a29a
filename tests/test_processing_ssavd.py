"""The processor of SSAVD, and the pipeline and publishing with a small SSAVD."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from media_factory import make_clip
from ssavd_factory import save_small
from transformers import AutoProcessor, pipeline

from modeling_avlmm import (
    AVDeepfakeDetectionPipeline,
    Clip,
    MediaError,
    SSAVDConfig,
    SSAVDForDeepfakeDetection,
    SSAVDProcessor,
)
from modeling_avlmm.inference.loading import load_detector
from modeling_avlmm.media import UnreadableMediaError
from modeling_avlmm.modeling_outputs import fake_probability
from modeling_avlmm.publishing.elsewhere import DETECT, run_without_package

TASK = "av-deepfake-detection"
SCORES = ("score", "video_score", "audio_score")
OF_FACES = ("faces", "face_margin", "min_face_size")
FIELDS = ("fps", "max_frames", "max_seconds", "image_size", "trim_leading_silence", *OF_FACES)


def random_clip(seconds: float = 3.0, frames: int | None = 10, audio: bool = True, size: int = 64) -> Clip:
    generator = torch.Generator().manual_seed(0)
    picture = timestamps = None
    if frames:
        picture = torch.randint(0, 256, (frames, 3, size, size), generator=generator, dtype=torch.uint8)
        timestamps = torch.arange(frames, dtype=torch.float64) * 0.3
    sound = 0.1 * torch.randn(round(seconds * 16_000), generator=generator) if audio else None
    return Clip(picture, timestamps, sound, 0.0, seconds, "random")


@pytest.fixture(scope="module")
def processor():
    return SSAVDProcessor(image_size=56)


@pytest.fixture(scope="module")
def small_detector(tmp_path_factory):
    """Save a network of two stages for clips of 2 s and its processor in one folder."""
    return save_small(tmp_path_factory.mktemp("ssavd") / "model", channels=(4, 8))


@pytest.fixture(scope="module")
def detector(small_detector):
    return pipeline(TASK, model=str(small_detector), device="cpu")


# -- one clip ----------------------------------------------------------------------------------------------------------


def test_a_whole_clip(processor):
    clip = random_clip(size=56)
    encoded = processor.encode(clip)
    assert torch.equal(encoded["pixel_values"], clip.frames) and encoded["pixel_values"].dtype == torch.uint8
    assert encoded["frame_mask"].all() and encoded["audio_mask"]
    assert torch.equal(encoded["audio_values"], clip.audio) and encoded["audio_values"].shape == (48_000,)
    assert encoded["questions"].tolist() == [True] * 3 and "labels" not in encoded


def test_a_short_clip_is_filled_up_with_zeros(processor):
    clip = random_clip(seconds=1.0, frames=4, size=56)
    encoded = processor.encode(clip)
    assert encoded["frame_mask"].tolist() == [True] * 4 + [False] * 6
    assert torch.equal(encoded["pixel_values"][:4], clip.frames) and not encoded["pixel_values"][4:].any()
    assert torch.equal(encoded["audio_values"][:16_000], clip.audio)
    assert not encoded["audio_values"][16_000:].any()


def test_frames_are_resized_with_antialiasing(processor):
    clip = random_clip(size=224)
    expected = F.interpolate(clip.frames.float(), size=(56, 56), mode="bilinear", antialias=True)
    off = (processor.encode(clip)["pixel_values"].float() - expected).abs()
    assert off.max() <= 1.0  # rounding, of two passes
    wide = random_clip(size=64)
    wide.frames = wide.frames[:, :, :32]
    assert processor.encode(wide)["pixel_values"].shape == (10, 3, 56, 56)


def test_frames_are_placed_by_their_true_times(processor):
    """At any frame rate, a row holds the frames on screen at its times: at 25 frames a second 0, 7, 15, 22, ..."""
    clip = random_clip(frames=75, size=56)
    clip.timestamps = torch.arange(75, dtype=torch.float64) / 25
    expected = [int(0.3 * k * 25 + 1e-6) for k in range(10)]
    assert torch.equal(processor.encode(clip)["pixel_values"], clip.frames[expected])
    # If the picture starts late, the first places stay empty.
    late = random_clip(frames=5, size=56)
    late.timestamps = late.timestamps + 0.9
    encoded = processor.encode(late)
    assert encoded["frame_mask"].tolist() == [False] * 3 + [True] * 5 + [False] * 2
    assert torch.equal(encoded["pixel_values"][3:8], late.frames)


def test_files_are_sampled_where_flash_and_click_meet(tmp_path):
    """A white frame and a click at the same time are in the same tenth of the row."""
    processor = SSAVDProcessor(image_size=56)
    path = make_clip(tmp_path / "flash.mp4", seconds=3, fps=10, size=(56, 56), flash_at=1.8, click_at=1.85)
    batch = processor([path])
    assert batch["pixel_values"].shape == (1, 10, 3, 56, 56) and batch["audio_values"].shape == (1, 48_000)
    flash = int(batch["pixel_values"][0].float().mean((1, 2, 3)).argmax())
    click = int(batch["audio_values"][0].abs().argmax())
    assert flash == click // 4800 == 6


def test_absent_parts_and_labels_in_a_batch(processor):
    clips = [random_clip(), random_clip(audio=False), random_clip(frames=None)]
    encoded = [
        processor.encode(clips[0], ("overall",), label=1, audio_label=0),
        processor.encode(clips[1]),
        processor.encode(clips[2], video_label=None, label=0),
    ]
    batch = processor.collate(encoded)
    assert batch["frame_mask"].any(1).tolist() == [True, True, False]
    assert batch["audio_mask"].tolist() == [True, False, True]
    assert batch["questions"].tolist() == [[True, False, False], [True] * 3, [True] * 3]
    assert batch["labels"].tolist() == [1, -100, 0]
    assert batch["video_labels"].tolist() == [-100] * 3 and batch["audio_labels"].tolist() == [0, -100, -100]
    assert "labels" not in processor.collate(encoded[1:2])


def test_wrong_use_is_explained(processor, tmp_path):
    with pytest.raises(UnreadableMediaError, match="neither sound nor picture"):
        processor.encode(random_clip(frames=None, audio=False))
    with pytest.raises(ValueError, match=r"3\.5 s is longer than one pass takes \(max_seconds=3\)"):
        processor.encode(random_clip(seconds=3.5))
    with pytest.raises(ValueError, match="longer than one pass"):
        processor.load(make_clip(tmp_path / "long.mp4", seconds=4, fps=5, size=(16, 16)))
    for questions in ((), ("smell",)):
        with pytest.raises(ValueError, match="questions must be of"):
            processor.encode(random_clip(), questions)
    with pytest.raises(MediaError):
        processor([str(tmp_path / "missing.mp4")])


def test_a_picture_that_is_never_on_screen_is_told(processor):
    clip = random_clip(frames=1)
    clip.timestamps = clip.timestamps + 2.95
    encoded = processor.encode(clip)
    assert not encoded["frame_mask"].any() and "none of the sampled times" in clip.warnings[-1]
    clip.audio = None
    with pytest.raises(UnreadableMediaError, match="none of the sampled times"):
        processor.encode(clip)


def test_saves_and_loads_all_of_itself(tmp_path):
    config = SSAVDConfig(num_frames=5, audio_samples=32_000, image_size=448)
    faces = {"faces": "all", "face_margin": 1.5, "min_face_size": 20}
    changed = SSAVDProcessor.from_config(config, trim_leading_silence=True, **faces)
    assert (changed.fps, changed.max_frames, changed.max_seconds, changed.image_size) == (2.5, 5, 2.0, 448)
    changed.save_pretrained(tmp_path)
    for loaded in (SSAVDProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is SSAVDProcessor
        assert all(getattr(loaded, name) == getattr(changed, name) for name in FIELDS)
    default = SSAVDProcessor()
    default.save_pretrained(tmp_path)
    assert SSAVDProcessor.from_pretrained(tmp_path).fps == default.fps == 10 / 3
    assert default.faces == "off"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"faces": "some"}, "faces must be one of 'off', 'largest', 'all', not 'some'"),
        ({"face_margin": 0.9}, "face_margin must be from 1"),
        ({"min_face_size": -1}, "min_face_size must be at least 0"),
    ],
)
def test_wrong_settings_of_faces_are_told(options, text):
    with pytest.raises(ValueError, match=text):
        SSAVDProcessor(**options)
    assert SSAVDProcessor(faces=False).faces == "off"  # as YAML reads `faces: off`


# -- the pipeline ------------------------------------------------------------------------------------------------------


def test_pipeline_equals_model_and_processor(detector, small_detector, clips):
    assert type(detector) is AVDeepfakeDetectionPipeline and type(detector.processor) is SSAVDProcessor
    result = detector(str(clips["clip"]))
    model = SSAVDForDeepfakeDetection.from_pretrained(small_detector)
    processor = SSAVDProcessor.from_pretrained(small_detector)
    with torch.no_grad():
        output = model(**processor([clips["clip"]]))
    expected = [
        fake_probability(logits).item()
        for logits in (output.logits, output.video_logits, output.audio_logits)
    ]
    assert [result[name] for name in SCORES] == pytest.approx(expected, abs=1e-6)
    assert len(set(expected)) == 3 and result["num_frames"] == 8 and result["error"] is None


def test_pipeline_with_and_without_sound_and_picture(detector, clips):
    silent, sound, short = detector([str(clips[name]) for name in ("silent", "sound", "short")])
    assert silent["audio_score"] is None and silent["score"] == silent["video_score"]
    assert any("audio" in warning for warning in silent["warnings"])
    assert sound["video_score"] is None and sound["score"] == sound["audio_score"]
    assert None not in [short[name] for name in SCORES]
    asked = detector(str(clips["short"]), questions=("overall", "audio"))
    assert asked["video_score"] is None and asked["score"] == pytest.approx(short["score"], abs=1e-6)


def test_pipeline_reads_a_long_file_in_windows_and_batches(detector, clips):
    one = detector(str(clips["long"]))
    assert [window["start"] for window in one["windows"]] == [0.0, 2.0, 4.0, 6.0, 8.0]
    files = [str(clips[name]) for name in ("long", "silent", "broken", "clip")]
    batches, workers = detector(files, batch_size=3), detector(files, batch_size=3, num_workers=2)
    for results in (batches, workers):
        assert results[2]["error"]["type"] == "UnreadableMediaError"
        assert results[0]["score"] == pytest.approx(one["score"], abs=1e-5)
        assert math.isfinite(results[3]["score"])


def test_evaluation_loads_it(small_detector, detector, clips):
    loaded, zero_shot = load_detector(str(small_detector), "cpu")
    assert not zero_shot and loaded(str(clips["clip"]))["score"] == detector(str(clips["clip"]))["score"]


# -- what travels ------------------------------------------------------------------------------------------------------


def test_loads_without_the_package(detector, small_detector, clips, tmp_path):
    folder = tmp_path / "published"
    detector.save_pretrained(folder)
    (remote,) = run_without_package(DETECT, folder, clips["clip"], folder=tmp_path)
    assert remote["module"].startswith("transformers_modules.")
    assert remote["score"] == pytest.approx(detector(str(clips["clip"]))["score"], abs=1e-6)

"""Attribution of detectors with a known answer, through the real pipeline and processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from face_factory import Person, clip_with_faces, face_clip
from ssavd_factory import stir
from transformers import pipeline
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from modeling_avlmm import Clip, SSAVDConfig, SSAVDForDeepfakeDetection, SSAVDProcessor
from modeling_avlmm.explain.attribution import AttributionError, attribute
from modeling_avlmm.explain.attribution_maps import AttributionOptions, limits_of, log_odds
from modeling_avlmm.explain.covering import BAND_EDGES_HZ, Covering, band_sounds, without_detail
from modeling_avlmm.explain.gradients import noise_for
from modeling_avlmm.explain.regions import FACE_REGIONS, SOUND_BANDS, region_masks
from modeling_avlmm.modeling_outputs import AVDetectionOutput

TASK = "av-deepfake-detection"
SAMPLES = 32_000


def make(**options):
    """Return a small detector for 2 s and 8 frames of 56 x 56, so that nothing is resized."""
    torch.manual_seed(0)
    sizes = {"channels": (4, 4), "depths": (1, 1), "num_frames": 8, "image_size": 56}
    config = SSAVDConfig(**sizes, audio_samples=SAMPLES, frontend="fast", **options)
    model = SSAVDForDeepfakeDetection(config)
    stir(model)
    # Let the norms see noise, as in training: otherwise log-odds are in the millions and every score is 0 or 1.
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # the plain mean
    with torch.no_grad():
        frames = torch.randint(0, 256, (8, 8, 3, 56, 56), dtype=torch.uint8)
        model.train()(pixel_values=frames, audio_values=0.1 * torch.randn(8, SAMPLES))
    model.eval()
    return pipeline(TASK, model=model, processor=SSAVDProcessor.from_config(config), device="cpu")


def toy(detector, odds):
    """Replace the network by a known function from frames (B, 8, 3, 56, 56), floats from 0 to 255, and sound to log-odds."""

    def forward(pixel_values, audio_values, **_):
        frames = pixel_values
        if not frames.is_floating_point():
            frames = frames.float()
        else:
            std, mean = (
                torch.tensor(v)[:, None, None] for v in (IMAGENET_DEFAULT_STD, IMAGENET_DEFAULT_MEAN)
            )
            frames = (frames * std + mean) * 255
        value = odds(frames, audio_values)
        logits = torch.stack([torch.zeros_like(value), value], dim=1)
        return AVDetectionOutput(logits=logits, video_logits=logits, audio_logits=logits)

    detector.model.forward = forward
    return detector


@pytest.fixture
def clip() -> Clip:
    """A clip of noise in picture and sound."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (8, 3, 56, 56), generator=generator, dtype=torch.uint8)
    audio = 0.1 * torch.randn(SAMPLES, generator=generator)
    return Clip(frames, torch.arange(8, dtype=torch.float64) / 4, audio, 10.0, 12.0, "noise")


def strongest(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(values.argmax(), values.shape))


def test_the_cell_and_the_time_are_found(clip):
    def odds(frames, audio):
        return 0.05 * frames[:, 2:4, :, 16:24, 24:32].std((1, 2, 3, 4)) - 2

    found = attribute(toy(make(), odds), clip)
    assert found.picture.shape == (4, 7, 7) and strongest(found.picture) == (1, 2, 3)
    others = found.picture.copy()
    others[1, 2, 3] = 0
    assert np.abs(others).max() == 0 and np.abs(found.sound).max() == 0
    # This cell is all there is to cover, so covering it gives exactly the baseline.
    assert found.picture[1, 2, 3] == pytest.approx(found.score - found.baseline, abs=1e-6)
    assert found.score == pytest.approx(torch.sigmoid(odds(clip.frames[None].float(), None)).item(), abs=1e-6)
    assert found.frame_times.tolist() == [10.125, 10.625, 11.125, 11.625]
    assert found.frames.shape == (4, 56, 56, 3) and found.frames.dtype == np.uint8
    assert (found.frames[1] == clip.frames[3].permute(1, 2, 0).numpy()).all()


def test_the_region_is_found(clip):
    mask = torch.from_numpy(region_masks(56, 56)["mouth"])
    found = attribute(
        toy(make(), lambda frames, _: 0.05 * frames[..., mask].std((1, 2, 3)) - 2), clip, frame_steps=1
    )
    assert next(iter(found.regions)) == "mouth" and set(found.regions) == set(FACE_REGIONS)
    assert [name for name, drop in found.regions.items() if drop] == ["mouth"]
    # With the face in the upper left quarter, the mouth is elsewhere.
    moved = attribute(toy_of_mouth(mask), clip, frame_steps=1, face_box=(0, 0, 0.5, 0.5))
    assert next(iter(moved.regions)) == "outside"


def toy_of_mouth(mask):
    return toy(make(), lambda frames, _: 0.05 * frames[..., mask].std((1, 2, 3)) - 2)


def test_the_band_and_the_passage_are_found(clip):
    def odds(frames, audio):
        spectrum = torch.fft.rfft(audio[:, 20_000:24_000]).abs()  # passage 5 of 8; 4 Hz a bin
        return spectrum[:, 760:1115].mean(1) - 4  # 3040 to 4460 Hz

    found = attribute(toy(make(), odds), clip)
    assert found.sound.shape == (8, 8) and strongest(found.sound) == (BAND_EDGES_HZ.index(3000), 5)
    assert np.abs(found.picture).max() == 0
    assert int(found.passages.argmax()) == 5 and found.times[5] == 11.375
    assert next(iter(found.bands)) == "3_8_khz" and set(found.bands) == set(SOUND_BANDS)
    quiet = np.delete(found.passages, 5)
    assert np.abs(quiet).max() < 0.02 * found.passages[5]


def test_what_lowers_the_score_is_below_zero(clip):
    found = attribute(toy(make(), lambda f, a: 2 - 0.05 * f[:, :2, :, :8, :8].std((1, 2, 3, 4))), clip)
    assert found.picture.min() == found.picture[0, 0, 0] < 0 and found.picture.max() == 0


def test_bands_add_up_to_the_sound(clip):
    bands = band_sounds(clip.audio, BAND_EDGES_HZ)
    torch.testing.assert_close(bands.sum(0), clip.audio, atol=1e-5, rtol=0)
    tone = torch.sin(2 * torch.pi * 2000 * torch.arange(SAMPLES) / 16_000)
    energy = band_sounds(tone, BAND_EDGES_HZ).square().sum(1)
    assert energy[BAND_EDGES_HZ.index(1700)] > 0.999 * energy.sum()
    assert all(edge in BAND_EDGES_HZ for band in SOUND_BANDS.values() for edge in band)


def test_a_real_network_gives_the_same_every_time_and_in_any_batch(clip):
    detector = make(temperature={"overall": 2.0, "video": 1.0, "audio": 1.0})
    first, again = (attribute(detector, clip, batch_size=size) for size in (8, 5))
    np.testing.assert_allclose(first.picture, again.picture, atol=1e-6)
    np.testing.assert_allclose(first.sound, again.sound, atol=1e-6)
    assert (first.picture == attribute(detector, clip).picture).all()
    assert first.passes == 2 + 4 * 49 + 8 + 9 * 8 + 4 == 282
    # The score is that of the pipeline.
    frames = {"frames": clip.frames, "fps": 4, "audio": clip.audio, "sampling_rate": 16_000}
    assert first.score == pytest.approx(detector(frames)["score"], abs=1e-6)
    odds = attribute(detector, clip, measure="log_odds")
    np.testing.assert_allclose(
        odds.picture[0, 0, 0], log_odds(odds.score) - log_odds(odds.score - first.picture[0, 0, 0]), atol=1e-5
    )


def test_every_part_of_another_kind_of_detector(tiny_detector, clips):
    detector = pipeline(TASK, model=str(tiny_detector), device="cpu")
    passes = []
    found = attribute(
        detector,
        str(clips["clip"]),
        part="video",
        grid=2,
        frame_steps=2,
        sound_steps=2,
        on_progress=lambda done, total: passes.append((done, total)),
    )
    assert found.picture.shape == (2, 2, 2) and found.sound.shape == (8, 2)
    assert found.score == pytest.approx(detector(str(clips["clip"]))["video_score"], abs=1e-6)
    assert passes[-1] == (found.passes, found.passes)
    # A longer file: its window with the highest score, or the given one.
    small = {"grid": 1, "frame_steps": 1, "sound_steps": 1}
    windows = detector(str(clips["long"]))["windows"]
    best = max(windows, key=lambda window: window["score"])
    found = attribute(detector, str(clips["long"]), **small)
    assert (found.start, found.end) == (best["start"], best["end"])
    found = attribute(detector, str(clips["long"]), window=windows[1], **small)
    assert (found.start, found.end) == (4.0, 8.0)
    assert found.score == pytest.approx(windows[1]["score"], abs=1e-6)
    with pytest.raises(AttributionError, match="SSAVD"):
        attribute(detector, str(clips["clip"]), method="gradients")


def test_clips_without_sound_or_picture(clips):
    detector = make()
    silent = attribute(detector, str(clips["silent"]), grid=2)
    assert silent.sound is None and silent.bands == {} and silent.picture.shape == (4, 2, 2)
    sound = attribute(detector, str(clips["sound"]), grid=2)
    assert sound.picture is None and sound.frames is None and sound.sound.shape == (8, 8)
    with pytest.raises(AttributionError, match="no sound"):
        attribute(detector, str(clips["silent"]), part="audio")


def test_gradients_of_what_is_linear_are_exact(clip):
    torch.manual_seed(1)
    weights, other = 1e-5 * torch.randn(8, 3, 56, 56), 0.01 * torch.randn(SAMPLES)
    detector = toy(make(), lambda frames, audio: (frames * weights).sum((1, 2, 3, 4)) + audio @ other)
    found = attribute(detector, clip, method="gradients")
    moved = ((clip.frames.float() - without_detail(clip.frames, 7, "blur").float()) * weights).sum(1)
    cells = moved.reshape(4, 2, 7, 8, 7, 8).sum((1, 3, 5)).numpy()
    np.testing.assert_allclose(found.picture, cells, atol=1e-5)
    heard = ((clip.audio - noise_for(clip.audio)) * other).reshape(8, 4000).sum(1).numpy()
    np.testing.assert_allclose(found.passages, heard, atol=1e-5)
    total = found.picture.sum() + found.sound.sum()
    assert total == pytest.approx(log_odds(found.score) - log_odds(found.baseline), abs=1e-4)
    assert sum(found.regions.values()) == pytest.approx(found.picture.sum(), abs=1e-6)
    assert sum(found.bands.values()) == pytest.approx(found.sound.sum(), abs=1e-6)


def test_gradients_of_a_network_add_up(clip):
    found = attribute(make(), clip, method="gradients")
    total = found.picture.sum() + found.sound.sum()
    difference = log_odds(found.score) - log_odds(found.baseline)
    assert abs(difference) > 0.01
    # With 64 points on a network with kinks, the error is below a tenth.
    assert total == pytest.approx(difference, rel=0.1)
    assert not any("add up to" in line for line in found.limits)
    assert found.measure == "log_odds" and found.passes == 66


def test_gradients_that_do_not_add_up_say_so(clip, monkeypatch):
    monkeypatch.setattr("modeling_avlmm.explain.gradients.STEPS", 2)
    # On its way to 255 the pixel changes the answer only above 250, where neither of the two points lies.
    clip.frames[0, 0, 0, 0] = 255
    detector = toy(make(), lambda f, a: 2 * torch.relu(f[:, 0, 0, 0, 0] - 250) + 0 * a.sum(1))
    found = attribute(detector, clip, method="gradients")
    assert log_odds(found.score) - log_odds(found.baseline) == pytest.approx(10, abs=0.01)
    assert "add up to +0.00, and the log-odds changed by +10.00" in found.limits[-1]


def test_limits_are_told(clip):
    sure = attribute(toy(make(), lambda frames, _: 20 + 0 * frames.sum((1, 2, 3, 4))), clip, grid=1)
    assert any("log_odds" in line for line in sure.limits)
    assert any("says little" in line for line in sure.limits)
    assert "not proof" in sure.limits[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "picture"}, "part must be"),
        ({"method": "shapley"}, "method must be"),
        ({"grid": 0}, "grid must be at least 1"),
        ({"grid": 99}, "finer than the frames"),
        ({"max_passes": 281}, "282 passes, above max_passes=281"),
        ({"method": "gradients", "max_passes": 3}, "66 passes"),
    ],
)
def test_wrong_options(clip, options, message):
    with pytest.raises(AttributionError, match=message):
        attribute(make(), clip, **options)


def test_regions_follow_the_landmarks_of_a_face_and_the_limits_say_so():
    drawn = clip_with_faces(1.0, fps=4, people=[Person(0, (0.3, 0.5), (0.5, 0.5), height=0.5)])
    clip = Clip(drawn.frames, torch.from_numpy(drawn.times), None, 0.0, 1.0, "face")
    height, width = drawn.frames.shape[-2:]
    landmarks = drawn.landmarks[0] / [width, height]
    true = region_masks(height, width, landmarks=landmarks)
    covering = Covering(None, clip, AttributionOptions())
    assert covering.placed == "landmarks"
    for name in ("eyes", "mouth", "nose"):
        both, either = true[name] & covering.masks[name], true[name] | covering.masks[name]
        assert both.sum() / either.sum() > 0.5, name
    covered = covering.with_region_covered(covering.masks["mouth"]).frames
    changed = (covered != clip.frames).any(1).numpy()
    assert not (changed & ~covering.masks["mouth"]).any()
    found = covering.attribution(
        method="occlusion", measure="score", score=0.5, baseline=0.1, regions={"mouth": 0.4}
    )
    assert found.placed == "landmarks"
    assert "placed by five landmarks" in " ".join(limits_of(found))


def test_without_a_face_regions_fill_the_frame_and_the_limits_say_so():
    frames = torch.full((2, 3, 64, 64), 90, dtype=torch.uint8)
    covering = Covering(None, Clip(frames, torch.arange(2.0), None, 0.0, 2.0, "grey"), AttributionOptions())
    assert covering.placed == "frame"
    np.testing.assert_array_equal(covering.masks["mouth"], region_masks(64, 64)["mouth"])
    found = covering.attribution(
        method="occlusion", measure="score", score=0.5, baseline=0.1, regions={"mouth": 0.4}
    )
    assert "No face was found" in " ".join(limits_of(found))
    boxed = Covering(None, covering.clip, AttributionOptions(face_box=(0, 0, 0.5, 0.5)))
    assert boxed.placed == "box"


def test_a_detector_of_faces_is_explained_on_its_most_suspicious_face(tmp_path):
    """The toy calls light pictures fake: of two people, the one with light skin."""
    people = [Person(2, (0.25, 0.5), (0.25, 0.5)), Person(3, (0.75, 0.5), (0.75, 0.5))]
    path = face_clip(tmp_path / "two.mp4", people, seconds=2.0, fps=4)
    detector = toy(make(), lambda frames, _: frames.mean((1, 2, 3, 4)) / 20 - 6)
    detector.processor.set_faces("all", 1.3, 20)
    found = attribute(detector, str(path), part="video", grid=2, frame_steps=1, sound_steps=1)
    assert found.placed == "landmarks"
    assert found.frames.shape[1] == found.frames.shape[2]  # a crop
    assert found.frames.mean() > 110

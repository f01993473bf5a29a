"""Measured evidence: a planted change is found in its place and time, and a re-encoded copy is no evidence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from face_factory import Person, clip_with_faces
from media_factory import ffmpeg
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from torchcodec.encoders import Encoder

from dataset_scripts.json_lines import read_json_lines
from modeling_avlmm.explain.evidence import Evidence, measure_evidence, segments_of
from modeling_avlmm.explain.evidence_jobs import Job, examine
from modeling_avlmm.explain.evidence_sound import shift_of
from modeling_avlmm.explain.regions import (
    BAND_NAMES,
    FACE_REGIONS,
    LANDMARKS,
    REGION_NAMES,
    SOUND_BANDS,
    region_masks,
)
from modeling_avlmm.media import MediaError, MediaNotFoundError, read_clip

SIZE, FPS, SECONDS, RATE = 96, 25, 2.0, 16_000


def scene(seed: int = 0, seconds: float = SECONDS) -> np.ndarray:
    """Return a soft swaying pattern, float32 (T, SIZE, SIZE, 3) in 0..1."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=(SIZE + 20, SIZE + 20, 3)), (3, 3, 0))
    field = 0.5 + 0.15 * field / field.std()
    frames = []
    for k in range(round(seconds * FPS)):
        x, y = round(6 + 4 * np.sin(k / 5)), round(6 + 4 * np.cos(k / 7))
        frames.append(field[y : y + SIZE, x : x + SIZE])
    return np.clip(np.stack(frames), 0, 1).astype(np.float32)


def speech(seed: int = 0, seconds: float = SECONDS) -> np.ndarray:
    """Return noise whose loudness rises and falls as in speech, without pauses."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    loudness = gaussian_filter1d(rng.normal(size=count), 700)
    sound = rng.normal(size=count) * np.exp(loudness / loudness.std() * 0.5)
    spectrum = np.fft.rfft(sound)
    spectrum /= 1 + np.fft.rfftfreq(count, 1 / RATE) / 500
    sound = np.fft.irfft(spectrum, count)
    return (0.1 * sound / sound.std()).astype(np.float32).clip(-1, 1)


def media(frames: np.ndarray | None, sound: np.ndarray | None, fps: float = FPS) -> dict:
    source: dict = {}
    if frames is not None:
        pixels = torch.from_numpy((frames * 255 + 0.5).astype(np.uint8)).permute(0, 3, 1, 2).contiguous()
        source |= {"frames": pixels, "fps": fps}
    if sound is not None:
        source |= {"audio": torch.from_numpy(sound), "sampling_rate": RATE}
    return source


def change(frames: np.ndarray, region: str, start: float, end: float, shift: float = 0.15) -> np.ndarray:
    """Change the pattern well inside the box of a region between two times."""
    frames = frames.copy()
    left, top, right, bottom = (round(side * SIZE) for side in FACE_REGIONS[region])
    rows, columns = slice(top + 2, bottom - 2), slice(left + 2, right - 2)
    times = slice(round(start * FPS), round(end * FPS))
    frames[times, rows, columns] = np.clip(
        frames[times, rows, columns] + np.float32([shift, -shift, shift]), 0, 1
    )
    return frames


def boost(sound: np.ndarray, band: str, start: float, end: float, decibel: float = 15.0) -> np.ndarray:
    frequencies = np.fft.rfftfreq(len(sound), 1 / RATE)
    low, high = SOUND_BANDS[band]
    spectrum = np.fft.rfft(sound) * ((frequencies >= low) & (frequencies < high))
    part = np.fft.irfft(spectrum, len(sound)) * (10 ** (decibel / 20) - 1)
    time = np.arange(len(sound)) / RATE
    return (sound + part * ((time >= start) & (time < end))).astype(np.float32)


def write(path: Path, frames: np.ndarray, sound: np.ndarray) -> Path:
    encoder = Encoder()
    video = encoder.add_video(
        height=SIZE, width=SIZE, frame_rate=FPS, codec="libx264", pixel_format="yuv420p", crf=18
    )
    audio = encoder.add_audio(sample_rate=RATE, num_channels=1, bit_rate=96_000)
    with encoder.open_file(str(path)):
        video.add_frames(media(frames, None)["frames"])
        audio.add_samples(torch.from_numpy(sound)[None])
    return path


@pytest.fixture(scope="module")
def genuine() -> tuple[np.ndarray, np.ndarray]:
    return scene(), speech()


@pytest.fixture(scope="module")
def genuine_file(genuine, tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("evidence") / "genuine.mp4", *genuine)


def test_every_pixel_is_in_one_region_and_every_frequency_in_one_band():
    masks = region_masks(96, 120)
    assert list(masks) == list(FACE_REGIONS) == list(REGION_NAMES)
    assert (np.sum(list(masks.values()), axis=0) == 1).all() and all(mask.any() for mask in masks.values())
    edges = [edge for band in SOUND_BANDS.values() for edge in band]
    assert (
        edges[0] == 0
        and edges[-1] == 8000
        and edges[1:-1:2] == edges[2::2]
        and set(BAND_NAMES) == set(SOUND_BANDS)
    )


def test_a_face_box_moves_the_regions():
    boxed = region_masks(200, 200, (0.5, 0.5, 1.0, 1.0))
    whole = region_masks(100, 100)
    assert (boxed["mouth"][100:, 100:] == whole["mouth"]).all() and not boxed["mouth"][:100].any()
    assert boxed["outside"][:100].all()
    with pytest.raises(ValueError, match="face_box"):
        region_masks(10, 10, (0.5, 0.0, 0.4, 1.0))


def test_landmarks_place_the_regions():
    square = region_masks(100, 100)
    placed = region_masks(100, 100, landmarks=np.array(LANDMARKS))
    for name in FACE_REGIONS:
        np.testing.assert_array_equal(placed[name], square[name])
    # half the size, moved to a corner of a wide frame
    small = np.array(LANDMARKS) * [0.25, 0.5]
    corner = region_masks(100, 200, landmarks=small)
    np.testing.assert_array_equal(corner["mouth"][:50, :50], region_masks(50, 50)["mouth"])
    assert not corner["mouth"][50:].any() and not corner["mouth"][:, 50:].any()
    # on its side: the mouth is to the left of the eyes
    turned = region_masks(100, 100, landmarks=np.array([[1 - y, x] for x, y in LANDMARKS]))
    np.testing.assert_array_equal(turned["mouth"], np.rot90(square["mouth"], -1))
    several = region_masks(100, 100, landmarks=np.array([LANDMARKS, LANDMARKS]))
    assert several["nose"].shape == (2, 100, 100) and sum(several.values()).min() == 1


def test_regions_follow_a_face_that_is_found():
    drawn = clip_with_faces(
        2.0, fps=10, size=(240, 240), people=[Person(0, (0.35, 0.4), (0.42, 0.4), height=0.5)]
    )
    frames = drawn.frames.permute(0, 2, 3, 1).numpy() / 255
    mouth = region_masks(240, 240, landmarks=drawn.landmarks[0] / 240)["mouth"]
    fake = frames.copy()
    for k in range(8, 14):
        fake[k][mouth[k]] = 1 - fake[k][mouth[k]]
    found = measure_evidence(media(fake, None, 10), media(frames, None, 10))
    assert found.placed == "landmarks"
    assert found.regions[0] == "mouth" and found.picture[0].segments == [[0.8, 1.4]]
    assert Evidence.from_dict(found.to_dict()) == found
    boxed = measure_evidence(media(fake, None, 10), media(frames, None, 10), face_box=(0, 0, 1, 1))
    assert boxed.placed == "box"


@pytest.mark.parametrize("region", ["eyes", "mouth", "forehead", "nose"])
def test_a_planted_region_and_time_are_found(genuine, region):
    frames, sound = genuine
    fake = media(change(frames, region, 0.8, 1.4), sound)
    found = measure_evidence(fake, media(frames, sound))
    assert found.regions == [region]
    assert found.picture[0].segments == [[0.8, 1.4]]
    assert found.bands == [] and found.measured and found.found
    assert found.placed == "frame"  # there is no face in the pattern


@pytest.mark.parametrize("band", list(SOUND_BANDS))
def test_a_planted_band_and_time_are_found(genuine, band):
    frames, sound = genuine
    found = measure_evidence(media(frames, boost(sound, band, 0.6, 1.2)), media(frames, sound))
    assert found.bands == [band]
    assert found.sound[0].segments == [[0.6, 1.2]]
    assert found.regions == [] and not found.shifted


def test_another_voice_is_found_although_its_level_is_the_same(genuine):
    frames, sound = genuine
    other = speech(seed=5)
    found = measure_evidence(media(frames, other), media(frames, sound))
    assert {"300_1000_hz", "1_3_khz"} <= set(found.bands)


def test_another_level_light_or_copy_is_no_evidence(genuine):
    frames, sound = genuine
    x = np.linspace(0.8, 1.0, SIZE, dtype=np.float32)[None, None, :, None]
    found = measure_evidence(media(frames * x, 0.3 * sound), media(frames, sound))
    assert not found.found and found.measured
    same = measure_evidence(media(frames, sound), media(frames, sound))
    assert not same.found and max(map(max, same.picture_map.values())) == 0


@pytest.mark.parametrize(
    "options",
    [
        ("-c:v", "libx264", "-crf", "34", "-c:a", "aac", "-b:a", "32k"),
        (
            "-r",
            "15",
            "-vf",
            "scale=64:64",
            "-c:v",
            "libx264",
            "-crf",
            "28",
            "-c:a",
            "libmp3lame",
            "-b:a",
            "32k",
        ),
        ("-r", "30", "-c:v", "mpeg4", "-q:v", "6", "-c:a", "libopus", "-b:a", "24k"),
    ],
    ids=["bitrate", "15 fps, smaller", "30 fps, MPEG-4"],
)
def test_a_reencoded_copy_is_no_evidence(genuine_file, tmp_path, options):
    copy = tmp_path / "copy.mkv"
    ffmpeg("-i", genuine_file, *options, copy)
    found = measure_evidence(str(copy), str(genuine_file))
    assert found.measured and found.picture_map and found.sound_map
    assert found.regions == [] and found.bands == [] and not found.shifted


def test_a_planted_change_is_found_through_reencoding(genuine, genuine_file, tmp_path):
    frames, sound = genuine
    forged = write(
        tmp_path / "forged.mp4", change(frames, "mouth", 0.4, 1.2), boost(sound, "1_3_khz", 1.0, 1.8)
    )
    copy = tmp_path / "copy.mp4"
    ffmpeg("-i", forged, "-c:v", "libx264", "-crf", "28", "-c:a", "aac", "-b:a", "48k", copy)
    found = measure_evidence(str(copy), str(genuine_file))
    assert found.regions == ["mouth"] and found.picture[0].segments == [[0.4, 1.2]]
    assert found.bands == ["1_3_khz"] and found.sound[0].segments == [[1.0, 1.8]]


@pytest.mark.parametrize("delay", [0.12, -0.2])
def test_a_shift_of_the_sound_is_measured_and_is_no_difference(genuine, delay):
    frames, sound = genuine
    moved = np.roll(sound, round(delay * RATE))
    found = measure_evidence(media(frames, moved), media(frames, sound))
    assert found.offset == pytest.approx(delay, abs=0.006) and found.shifted
    assert found.regions == [] and not any(f.strength > 2 for f in found.sound)


def test_a_clip_that_begins_later_is_aligned_in_time():
    frames, sound = scene(seconds=3.0), speech(seconds=3.0)
    cut = media(frames[10:], sound[round(0.4 * RATE) :])
    found = measure_evidence(cut, media(frames, sound))
    assert found.picture_lag == pytest.approx(-0.4, abs=0.001)
    assert found.sound_lag == pytest.approx(-0.4, abs=0.006) and not found.shifted
    assert found.regions == [] and found.bands == []


def test_pictures_of_other_scenes_or_shapes_are_not_compared(genuine):
    frames, sound = genuine
    other = measure_evidence(media(scene(seed=9), sound), media(frames, sound))
    assert other.picture_map == {} and "same scene" in other.warnings[0]
    wide = measure_evidence(media(frames[:, :48], sound), media(frames, sound))
    assert wide.picture_map == {} and "96x48" in wide.warnings[0]


def test_tracks_that_only_one_has_are_told(genuine):
    frames, sound = genuine
    found = measure_evidence(media(frames, None), media(frames, sound))
    assert found.sound_map == {} and found.offset is None
    assert found.warnings == ["only the source has a sound"]
    silent = measure_evidence(media(frames, 0 * sound), media(frames, sound))
    assert silent.sound_map == {} and any("silence" in warning for warning in silent.warnings)


def test_without_a_source_nothing_is_claimed(genuine):
    found = measure_evidence(media(*genuine), None)
    assert not found.measured and not found.found and found.source is None and found.lip_sync is not None


def test_clips_in_memory_are_taken(genuine_file):
    clip = read_clip(str(genuine_file), fps=FPS)
    assert not measure_evidence(clip, str(genuine_file)).found


def test_evidence_survives_json(genuine):
    frames, sound = genuine
    found = measure_evidence(media(change(frames, "mouth", 0.4, 1.0), sound), media(frames, sound))
    assert Evidence.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    with pytest.raises(TypeError):
        Evidence.from_dict({"fake": "a", "colour": 1})


def test_single_cells_count_when_strong_and_gaps_are_closed():
    assert segments_of(np.array([0, 1.5, 0, 1.5, 0, 0]), 1.2) == [[0.2, 0.8]]
    assert segments_of(np.array([0, 0, 1.5, 0, 0, 0]), 1.2) == []
    assert segments_of(np.array([0, 0, 0, 0, 0, 2.5]), 1.1) == [[1.0, 1.1]]


def test_shift_is_that_of_what_overlaps():
    rng = np.random.default_rng(0)
    track = gaussian_filter1d(rng.normal(size=800), 3)
    lag, likeness = shift_of(track[:400], track)
    assert lag == pytest.approx(0, abs=1e-3) and likeness == pytest.approx(1)
    assert shift_of(track[40:440], track)[0] == pytest.approx(-0.2, abs=1e-3)
    assert shift_of(np.ones(400), track) == (pytest.approx(0, abs=1.0), 0.0)


def test_a_missing_file_is_named(genuine_file):
    with pytest.raises(MediaNotFoundError) as error:
        measure_evidence(str(genuine_file), "/nowhere.mp4")
    assert error.value.name == "/nowhere.mp4"
    with pytest.raises(MediaError):
        measure_evidence("/nowhere.mp4", str(genuine_file))


def test_examined_clips_are_kept_and_failures_tried_again(genuine_file, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 50)
    cache = tmp_path / "evidence.jsonl"
    good = str(genuine_file)
    jobs = [
        Job("a.mp4", good, source_path="s.mp4", source=good),
        Job("b.mp4", str(broken)),
        Job("c.mp4", good, source_path="gone.mp4", source=str(tmp_path / "gone.mp4")),
        Job("d.mp4", good),
    ]
    first = examine(jobs, cache)
    assert list(first.evidence) == ["a.mp4"] and first.evidence["a.mp4"].source == "s.mp4"
    assert list(first.unreadable) == ["b.mp4"] and list(first.unmeasured) == ["c.mp4"]
    with open(cache, "a") as file:
        file.write('{"path": "torn')
    second = examine(jobs, cache)
    assert second.reused == 2 and second.evidence == first.evidence and list(second.unreadable) == ["b.mp4"]
    assert [line["path"] for line in read_json_lines(cache)] == ["a.mp4", "d.mp4"]

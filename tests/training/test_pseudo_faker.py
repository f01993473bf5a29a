"""Pseudo-fakes as training draws them: labels of each kind, the kinds that a clip allows, and harmless processing."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from genuine_factory import SECONDS, assert_same, copy_of, face_frames, make, speech

from modeling_avlmm.modeling_verdicts import complete_labels
from modeling_avlmm.training.pseudo_fakes import pseudo_faker as pseudo_fakes
from modeling_avlmm.training.pseudo_fakes.altered_sound import level_dbfs
from modeling_avlmm.training.pseudo_fakes.pseudo_faker import KINDS, PseudoFaker, harmless

FACES = ["self_blended_faces", "upsampled_faces"]


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "video", "audio"),
    [
        ("other_audio", 0, 0),
        ("shifted_audio", 0, 0),
        ("self_blended_faces", 1, 0),
        ("upsampled_faces", 1, 0),
        ("resynthesised_speech", 0, 1),
        ("both", 1, 1),
    ],
)
def test_each_kind_has_its_labels_and_changes_only_the_tracks_it_names(kind, video, audio):
    clip, other = make(0), make(1)
    before, other_before = copy_of(clip), copy_of(other)
    faker = PseudoFaker({kind: 1.0})
    sample = faker(clip, other, np.random.default_rng(3))
    assert (sample.kind, sample.label, sample.video_label, sample.audio_label) == (kind, 1, video, audio)
    # the inputs are unchanged
    assert_same(clip, before)
    assert_same(other, other_before)
    # only the tracks that the kind names change; shapes, types, ranges and times stay
    made = sample.clip
    assert torch.equal(made.frames, clip.frames) == (kind not in (*FACES, "both"))
    assert torch.equal(made.audio, clip.audio) == (kind in FACES)
    assert made.frames.shape == clip.frames.shape and made.frames.dtype == torch.uint8
    assert made.audio.shape == clip.audio.shape and made.audio.dtype == torch.float32
    assert torch.equal(made.timestamps, clip.timestamps) and made.timestamps.dtype == torch.float64
    assert float(made.audio.abs().max()) <= 1
    assert (made.start, made.end, made.name, made.warnings) == (0.0, SECONDS, clip.name, ["a note"])
    # the same seed gives the same fake, another seed does not
    assert_same(faker(clip, other, np.random.default_rng(3)).clip, made)
    assert faker(clip, other, np.random.default_rng(3)).drawn == sample.drawn
    again = faker(clip, other, np.random.default_rng(4)).clip
    if kind != "other_audio":  # with sound of the same length nothing is drawn
        assert not (torch.equal(again.frames, made.frames) and torch.equal(again.audio, made.audio))


def test_the_tracks_of_a_mismatch_may_be_unknown():
    for kind, expected in (("other_audio", -100), ("shifted_audio", -100), ("self_blended_faces", None)):
        faker = PseudoFaker({kind: 1}, mismatch_tracks="unknown")
        sample = faker(make(0), make(1), np.random.default_rng(0))
        assert sample.label == 1
        if expected is None:
            assert (sample.video_label, sample.audio_label) == (1, 0)
        else:
            assert (sample.video_label, sample.audio_label) == (-100, -100)


@pytest.mark.parametrize(("mode", "tracks"), [("real", 0), ("unknown", -100)])
def test_a_model_that_completes_labels_draws_no_wrong_conclusion_from_a_mismatch(mode, tracks):
    sample = PseudoFaker({"shifted_audio": 1}, mismatch_tracks=mode)(make(), rng=np.random.default_rng(0))
    labels = (torch.tensor([v]) for v in (sample.label, sample.video_label, sample.audio_label))
    known = complete_labels(*labels, torch.tensor([True]), torch.tensor([True]))
    assert (known.overall.item(), known.video.item(), known.audio.item()) == (1, tracks, tracks)


# --- possible kinds ---------------------------------------------------------------------------------------------------


def test_kinds_that_lack_a_track_are_not_drawn():
    faker, other = PseudoFaker(), make(1)
    assert faker.possible_kinds(make(), other) == list(KINDS)
    assert faker.possible_kinds(make()) == [k for k in KINDS if k != "other_audio"]
    assert faker.possible_kinds(make(), make(1, audio=False)) == [k for k in KINDS if k != "other_audio"]
    assert faker.possible_kinds(make(audio=False), other) == FACES
    assert faker.possible_kinds(make(video=False), other) == ["resynthesised_speech"]
    silent = replace(make(), audio=torch.zeros(32000))
    assert faker.possible_kinds(silent, other) == FACES
    small = replace(make(), frames=face_frames((31, 96)))
    assert faker.possible_kinds(small, other) == ["other_audio", "shifted_audio", "resynthesised_speech"]
    one = replace(make(), frames=face_frames()[:1], timestamps=torch.zeros(1, dtype=torch.float64))
    assert faker.possible_kinds(one) == [*FACES, "resynthesised_speech", "both"]
    short = replace(make(), audio=speech(0, 0.3))  # no room for a shift of 0.2 s
    assert "shifted_audio" not in faker.possible_kinds(short)
    assert faker.possible_kinds(replace(make(), audio=speech(0, 0.2))) == FACES


def test_all_possible_kinds_are_drawn_in_proportion_to_their_weights():
    faker = PseudoFaker({"other_audio": 3, "shifted_audio": 1, "both": 0})
    clip, other, rng = make(0), make(1), np.random.default_rng(0)
    drawn = [faker(clip, other, rng).kind for _ in range(400)]
    assert set(drawn) == {"other_audio", "shifted_audio"}
    assert abs(drawn.count("other_audio") / 400 - 0.75) < 0.07  # three standard deviations
    # without another clip, the other kind is drawn
    assert {faker(clip, None, rng).kind for _ in range(5)} == {"shifted_audio"}


@pytest.mark.parametrize(
    ("weights", "expected"),
    [({"both": 1}, set(FACES)), ({"both": 1, "upsampled_faces": 1e-9}, {"upsampled_faces"})],
)
def test_both_has_a_face_of_a_wanted_kind(weights, expected, monkeypatch):
    made = []
    for name in FACES:
        whole = pseudo_fakes._FACES[name]
        monkeypatch.setitem(
            pseudo_fakes._FACES,
            name,
            lambda *given, name=name, whole=whole: (made.append(name), whole(*given))[1],
        )
    faker, rng = PseudoFaker(weights), np.random.default_rng(0)
    assert {faker(make(), rng=rng).kind for _ in range(12)} == {"both"}
    assert set(made) == expected


def test_a_clip_that_cannot_be_faked_stays_genuine():
    clip = make(video=False)
    sample = PseudoFaker({"self_blended_faces": 1})(clip, make(1), np.random.default_rng(0))
    assert (sample.kind, sample.label, sample.video_label, sample.audio_label) == ("genuine", 0, -100, 0)
    assert_same(sample.clip, clip)
    faces_only = PseudoFaker({"self_blended_faces": 1})(make(audio=False), None, np.random.default_rng(0))
    assert (faces_only.label, faces_only.video_label, faces_only.audio_label) == (1, 1, -100)
    speech_only = PseudoFaker()(clip, None, np.random.default_rng(0))
    assert (speech_only.label, speech_only.video_label, speech_only.audio_label) == (1, -100, 1)


def test_another_window_of_the_same_file_is_another_sound_only_without_an_overlap():
    whole = speech(5, 6.0)
    windows = {s: replace(make(), audio=whole[16000 * s :][:32000], start=s, end=s + 2.0) for s in range(5)}
    faker = PseudoFaker({"other_audio": 1})
    assert faker.possible_kinds(windows[0], windows[2]) == ["other_audio"]
    assert faker.possible_kinds(windows[0], windows[4]) == ["other_audio"]
    assert faker.possible_kinds(windows[0], windows[1]) == []
    assert faker.possible_kinds(windows[1], windows[0]) == []
    assert faker.possible_kinds(windows[0], windows[0]) == []
    # clips made from arrays may share name and times but not sound
    assert faker.possible_kinds(windows[0], replace(make(1), name=windows[0].name)) == ["other_audio"]


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"no kinds of pseudo-fakes: \['face_swap'\]"):
        PseudoFaker({"face_swap": 1})
    for weights in ({"both": 0.0}, {}, {"both": -1.0}, {"both": float("nan")}, {"both": float("inf")}):
        with pytest.raises(ValueError, match="weights"):
            PseudoFaker(weights)
    with pytest.raises(ValueError, match="fake_share"):
        PseudoFaker(fake_share=1.5)
    with pytest.raises(ValueError, match="mismatch_tracks"):
        PseudoFaker(mismatch_tracks="fake")
    for shift in ((0.0, 1.0), (0.5, 0.2)):
        with pytest.raises(ValueError, match="shift_seconds"):
            PseudoFaker(shift_seconds=shift)
    with pytest.raises(ValueError, match="rng"):
        PseudoFaker()(make())
    with pytest.raises(ValueError, match=r"'clip1\.mp4'.*wider window of 'clip0\.mp4'"):
        PseudoFaker()(make(), rng=np.random.default_rng(0), around=make(1))


# --- harmless processing ----------------------------------------------------------------------------------------------


def test_harmless_processing_is_mild_global_and_keeps_the_shape_of_a_clip():
    clip = make()
    before = copy_of(clip)
    changed_frames = changed_sound = 0
    for seed in range(30):
        made = harmless(clip, np.random.default_rng(seed))
        assert_same(replace(made, frames=clip.frames, audio=clip.audio), clip)
        assert made.frames.shape == clip.frames.shape and made.frames.dtype == torch.uint8
        assert made.audio.shape == clip.audio.shape and made.audio.dtype == torch.float32
        assert float(made.audio.abs().max()) <= 1
        assert_same(harmless(clip, np.random.default_rng(seed)), made)
        # mild: on average within 6 % and a shift of 5, apart from edges and noise
        means = made.frames.float().mean((0, 2, 3)) - clip.frames.float().mean((0, 2, 3))
        assert float(means.abs().max()) < 0.06 * 200 + 5 + 1
        assert abs(level_dbfs(made.audio) - level_dbfs(clip.audio)) < 7.1
        # in step: the sound moves by 15 ms at most
        score = torch.fft.irfft(
            torch.fft.rfft(made.audio) * torch.fft.rfft(clip.audio).conj(), len(clip.audio)
        )
        lag = int(score.argmax())
        assert min(lag, len(clip.audio) - lag) <= 240
        changed_frames += not torch.equal(made.frames, clip.frames)
        changed_sound += not torch.equal(made.audio, clip.audio)
    assert changed_frames >= 29 and changed_sound == 30
    assert_same(clip, before)


def test_harmless_processing_of_each_track_does_not_depend_on_the_other():
    whole, silent, blind = (
        harmless(make(**k), np.random.default_rng(5)) for k in ({}, {"audio": False}, {"video": False})
    )
    assert torch.equal(whole.frames, silent.frames) and silent.audio is None
    assert torch.equal(whole.audio, blind.audio) and blind.frames is None and blind.timestamps is None


# --- draws ------------------------------------------------------------------------------------------------------------


def test_seed_and_number_alone_decide_which_draws_are_fake():
    faker = PseudoFaker(fake_share=0.3, seed=7)
    first = [faker.is_fake(n) for n in range(2000)]
    worker = pickle.loads(pickle.dumps(faker))
    assert [worker.is_fake(n) for n in reversed(range(2000))] == first[::-1]
    assert abs(np.mean(first) - 0.3) < 0.031  # three standard deviations
    assert first != [PseudoFaker(fake_share=0.3, seed=8).is_fake(n) for n in range(2000)]
    assert not any(PseudoFaker(fake_share=0.0).is_fake(n) for n in range(100))
    assert all(PseudoFaker(fake_share=1.0).is_fake(n) for n in range(100))


def test_genuine_draws_and_fakes_get_the_same_harmless_processing():
    clip, other = make(0), make(1)
    genuine = PseudoFaker({"self_blended_faces": 1}, fake_share=0.0, seed=3)
    faces = PseudoFaker({"self_blended_faces": 1}, fake_share=1.0, seed=3)
    voices = PseudoFaker({"resynthesised_speech": 1}, fake_share=1.0, seed=3)
    for number in range(5):
        real, face, voice = (f.draw(number, clip, other) for f in (genuine, faces, voices))
        assert (real.kind, real.label, real.video_label, real.audio_label) == ("genuine", 0, 0, 0)
        assert (face.label, voice.label) == (1, 1)
        # the track that a fake leaves alone equals that of the genuine draw, which was processed
        assert torch.equal(face.clip.audio, real.clip.audio) and not torch.equal(real.clip.audio, clip.audio)
        assert torch.equal(voice.clip.frames, real.clip.frames)
        assert not torch.equal(face.clip.frames, real.clip.frames)
        assert not torch.equal(voice.clip.audio, real.clip.audio)
        assert_same(pickle.loads(pickle.dumps(faces)).draw(number, clip, other).clip, face.clip)
    assert not torch.equal(genuine.draw(0, clip).clip.audio, genuine.draw(1, clip).clip.audio)


def test_a_draw_that_cannot_be_faked_says_genuine():
    sample = PseudoFaker({"other_audio": 1}, fake_share=1.0).draw(0, make())
    assert (sample.kind, sample.label, sample.video_label, sample.audio_label) == ("genuine", 0, 0, 0)


def test_a_pair_differs_only_in_the_forgery():
    faker = PseudoFaker({"self_blended_faces": 1}, seed=3, pairs=True)
    clip = make(0)
    for number in (0, 6):
        real, fake = faker.draw(number, clip), faker.draw(number + 1, clip)
        assert (real.kind, real.label) == ("genuine", 0) and (fake.label, fake.video_label) == (1, 1)
        assert torch.equal(real.clip.audio, fake.clip.audio) and not torch.equal(real.clip.audio, clip.audio)
        # the corner is outside of the face: processed in both, faked in neither
        corner = (..., slice(8), slice(8))
        assert torch.equal(real.clip.frames[corner], fake.clip.frames[corner])
        assert not torch.equal(real.clip.frames[corner], clip.frames[corner])
        assert not torch.equal(real.clip.frames, fake.clip.frames)
    assert not torch.equal(faker.draw(0, clip).clip.audio, faker.draw(2, clip).clip.audio)
    assert not torch.equal(faker.draw(1, clip).clip.frames, faker.draw(3, clip).clip.frames)
    with pytest.raises(ValueError, match=r"fake_share must be 0.5 with them, not 0.3"):
        PseudoFaker(fake_share=0.3, pairs=True)

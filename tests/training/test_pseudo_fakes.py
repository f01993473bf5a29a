import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from modeling_avlmm.media import SAMPLING_RATE, Clip
from modeling_avlmm.modeling_verdicts import complete_labels
from modeling_avlmm.training.pseudo_fakes import pseudo_faker as pseudo_fakes
from modeling_avlmm.training.pseudo_fakes.altered_sound import (
    FADE_SECONDS,
    harmless_audio,
    is_audible,
    level_dbfs,
    match_level,
    other_audio,
    resynthesised_speech,
    shifted_audio,
)
from modeling_avlmm.training.pseudo_fakes.blended_faces import (
    FaceRegion,
    find_face,
    harmless_frames,
    self_blended_faces,
    upsampled_faces,
)
from modeling_avlmm.training.pseudo_fakes.pseudo_faker import KINDS, PseudoFaker, harmless

FADE = round(FADE_SECONDS * SAMPLING_RATE)
SECONDS, FPS = 2.0, 4
FACES = ["self_blended_faces", "upsampled_faces"]


def speech(seed: int, seconds: float = SECONDS, pitch: float = 140.0, level: float = 0.1) -> torch.Tensor:
    """A buzz of harmonics that comes and goes four times a second, with a little noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    phase = 2 * np.pi * pitch * (time + 0.01 * np.sin(2 * np.pi * 2.3 * time + seed))
    buzz = sum(np.sin(k * phase + k) / k for k in range(1, 30))
    loud = 0.1 + 0.9 * np.sin(2 * np.pi * 2 * time + rng.uniform(0, 6)) ** 2
    sound = loud * (buzz + 0.05 * rng.normal(size=len(time)))
    return torch.from_numpy((level * sound / np.sqrt(np.mean(sound**2))).astype(np.float32))


def face_frames(
    size: tuple[int, int] = (96, 96), at: tuple[float, float] | None = None, seed: int = 0
) -> torch.Tensor:
    """(T, 3, height, width) uint8: a skin-coloured textured disc with a mouth that moves, before a blue still wall."""
    height, width = size
    x0, y0 = at or (width / 2, height / 2)
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    count = round(SECONDS * FPS)
    wall = np.asarray([40, 60, 140])[:, None, None] + rng.normal(0, 6, size=(3, height, width))
    skin = np.asarray([200, 150, 120])[:, None, None] + rng.normal(0, 6, size=(3, height, width))
    radius = np.hypot(x - x0, (y - y0) / 1.2) / (0.3 * min(size))
    frames = np.stack([np.where(radius < 1, skin, wall)] * count)
    for k in range(count):
        mouth = (np.abs(y - y0 - 0.15 * height) < 1 + 3 * (k % 3)) & (np.abs(x - x0) < 0.1 * width)
        frames[k, :, mouth] = (90, 30, 30)
    return torch.from_numpy(frames.round().clip(0, 255).astype(np.uint8))


def make(seed: int = 0, video: bool = True, audio: bool = True) -> Clip:
    frames = face_frames(seed=seed) if video else None
    times = torch.arange(round(SECONDS * FPS), dtype=torch.float64) / FPS if video else None
    sound = speech(seed) if audio else None
    return Clip(frames, times, sound, 0.0, SECONDS, f"clip{seed}.mp4", ["a note"])


def copy_of(clip: Clip) -> Clip:
    return pickle.loads(pickle.dumps(clip))


def assert_same(first: Clip, second: Clip) -> None:
    for name in ("frames", "timestamps", "audio"):
        a, b = getattr(first, name), getattr(second, name)
        assert (a is None and b is None) or torch.equal(a, b), name
    assert (first.start, first.end, first.name) == (second.start, second.end, second.name)
    assert first.warnings == second.warnings


# --- labels and what is left alone -----------------------------------------------------------------------------------


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
def test_each_kind_has_its_labels_and_changes_only_what_it_says(kind, video, audio):
    clip, other = make(0), make(1)
    before, other_before = copy_of(clip), copy_of(other)
    faker = PseudoFaker({kind: 1.0})
    sample = faker(clip, other, np.random.default_rng(3))
    assert (sample.kind, sample.label, sample.video_label, sample.audio_label) == (kind, 1, video, audio)
    # the inputs are as they were
    assert_same(clip, before)
    assert_same(other, other_before)
    # exactly the tracks that the kind names are changed; shapes, types, ranges and times are kept
    made = sample.clip
    assert torch.equal(made.frames, clip.frames) == (kind not in (*FACES, "both"))
    assert torch.equal(made.audio, clip.audio) == (kind in FACES)
    assert made.frames.shape == clip.frames.shape and made.frames.dtype == torch.uint8
    assert made.audio.shape == clip.audio.shape and made.audio.dtype == torch.float32
    assert torch.equal(made.timestamps, clip.timestamps) and made.timestamps.dtype == torch.float64
    assert float(made.audio.abs().max()) <= 1
    assert (made.start, made.end, made.name, made.warnings) == (0.0, SECONDS, clip.name, ["a note"])
    # the same seed gives the same, another one does not
    assert_same(faker(clip, other, np.random.default_rng(3)).clip, made)
    assert faker(clip, other, np.random.default_rng(3)).drawn == sample.drawn
    again = faker(clip, other, np.random.default_rng(4)).clip
    if kind != "other_audio":  # whose sound of the same length leaves nothing to draw
        assert not (torch.equal(again.frames, made.frames) and torch.equal(again.audio, made.audio))


def test_the_tracks_of_a_mismatch_may_be_left_unknown():
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


# --- what can be made of what ---------------------------------------------------------------------------------------


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
    # without another clip, what is left is drawn
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


def test_a_clip_of_which_nothing_can_be_made_stays_genuine():
    clip = make(video=False)
    sample = PseudoFaker({"self_blended_faces": 1})(clip, make(1), np.random.default_rng(0))
    assert (sample.kind, sample.label, sample.video_label, sample.audio_label) == ("genuine", 0, -100, 0)
    assert_same(sample.clip, clip)
    faces_only = PseudoFaker({"self_blended_faces": 1})(make(audio=False), None, np.random.default_rng(0))
    assert (faces_only.label, faces_only.video_label, faces_only.audio_label) == (1, 1, -100)
    speech_only = PseudoFaker()(clip, None, np.random.default_rng(0))
    assert (speech_only.label, speech_only.video_label, speech_only.audio_label) == (1, -100, 1)


def test_another_window_of_the_same_file_is_another_sound_only_where_they_do_not_overlap():
    whole = speech(5, 6.0)
    windows = {s: replace(make(), audio=whole[16000 * s :][:32000], start=s, end=s + 2.0) for s in range(5)}
    faker = PseudoFaker({"other_audio": 1})
    assert faker.possible_kinds(windows[0], windows[2]) == ["other_audio"]
    assert faker.possible_kinds(windows[0], windows[4]) == ["other_audio"]
    assert faker.possible_kinds(windows[0], windows[1]) == []
    assert faker.possible_kinds(windows[1], windows[0]) == []
    assert faker.possible_kinds(windows[0], windows[0]) == []
    # clips of arrays may share a name and a clock without sharing a sound
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


# --- sound ----------------------------------------------------------------------------------------------------------


def test_level_matching():
    loud, quiet = speech(0, level=0.2), speech(1, level=0.03)
    assert level_dbfs(match_level(loud, quiet)) == pytest.approx(20 * np.log10(0.03), abs=1e-3)
    # by 20 dB at most, and never over full scale
    assert level_dbfs(match_level(speech(1, level=0.001), loud)) == pytest.approx(-40, abs=1e-2)
    click = torch.zeros(16000)
    click[100] = 0.5
    assert float(match_level(click, loud).max()) == pytest.approx(0.999)
    assert level_dbfs(torch.zeros(10)) == -np.inf
    assert is_audible(quiet) and not is_audible(speech(0, level=0.0005)) and not is_audible(None)


@pytest.mark.parametrize("seconds", [0.5, 2.0, 5.0])
def test_sound_of_another_clip(seconds):
    own, other = speech(0, level=0.05), speech(7, seconds, pitch=220.0, level=0.2)
    made = other_audio(own, other, np.random.default_rng(0))
    assert len(made) == len(own)
    assert level_dbfs(made) == pytest.approx(level_dbfs(own), abs=1e-3)
    # nothing but the other sound, at one gain: each stretch between joints is somewhere in it
    middle = made[-3200:-2800] if seconds >= 2 else made[:0]
    if len(middle):
        windows = other.unfold(0, 400, 1)
        gains = (windows @ middle) / windows.square().sum(1)
        errors = (windows * gains[:, None] - middle).abs().amax(1)
        assert float(errors.min()) < 1e-6
    else:  # repeated: what comes back after a period is the same
        period = len(other) - FADE
        torch.testing.assert_close(made[:-period], made[period:])


def test_sound_that_cannot_be_told_is_refused():
    with pytest.raises(ValueError, match=r"other has 0\.10 s of sound"):
        other_audio(speech(0), speech(1, 0.1), np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"audio has 2\.00 s of sound at -inf dBFS"):
        other_audio(torch.zeros(32000), speech(1), np.random.default_rng(0))
    for samples in (0, 16000, -20000):
        with pytest.raises(ValueError, match=f"a shift of {samples} samples"):
            shifted_audio(speech(0), samples)
    with pytest.raises(ValueError, match="too few"):
        resynthesised_speech(speech(0, 0.1), np.random.default_rng(0))


@pytest.mark.parametrize("samples", [3200, -3200, 15999, -1])
def test_a_shift_moves_the_sound_by_that_much_and_leaves_no_silence(samples):
    sound = speech(0)
    length = len(sound)
    made = shifted_audio(sound, samples)
    assert len(made) == length
    if samples > 0:  # late: what was at n is at n + samples
        assert torch.equal(made[samples + FADE :], sound[FADE : length - samples])
        assert torch.equal(made[:samples], sound[length - FADE - samples : length - FADE])
    else:
        kept = length - FADE + samples
        assert torch.equal(
            made[FADE if samples > -FADE else 0 : kept],
            sound[-samples:][FADE if samples > -FADE else 0 : kept],
        )
    assert float(made.unfold(0, 800, 400).square().mean(1).sqrt().min()) > 0.005  # no silence
    # no jump where the ends meet: those of a ramp are 1 apart
    ramp = torch.linspace(-0.5, 0.5, 32000)
    assert float(shifted_audio(ramp, samples).diff().abs().max()) < 0.01


def test_the_sound_around_a_clip_comes_in_where_it_is_known():
    whole = speech(3, 6.0)
    clip = replace(make(), audio=whole[32000:64000].clone(), start=2.0, end=4.0)
    around = Clip(None, None, whole[16000:80000], 1.0, 5.0, clip.name)
    faker = PseudoFaker({"shifted_audio": 1})
    shifts = []
    for seed in range(30):
        sample = faker(clip, rng=np.random.default_rng(seed), around=around)
        samples = round(sample.drawn["shift"] * SAMPLING_RATE)
        assert torch.equal(sample.clip.audio, whole[32000 - samples : 64000 - samples])
        shifts.append(sample.drawn["shift"])
    assert 0.2 <= min(map(abs, shifts)) < 0.3 and 0.8 < max(map(abs, shifts)) <= 1.0
    assert min(shifts) < 0 < max(shifts)
    # where it does not reach far enough, the ring
    near = Clip(None, None, whole[32000:64000], 2.0, 4.0, clip.name)
    sample = faker(clip, rng=np.random.default_rng(0), around=near)
    samples = round(sample.drawn["shift"] * SAMPLING_RATE)
    assert torch.equal(sample.clip.audio, shifted_audio(clip.audio, samples))


def octaves(sound: torch.Tensor) -> np.ndarray:
    """Level in dB of the octaves from 100 Hz on."""
    power = torch.fft.rfft(sound * torch.hann_window(len(sound))).abs().square().numpy()
    hertz = np.fft.rfftfreq(len(sound), 1 / SAMPLING_RATE)
    edges = [100, 200, 400, 800, 1600, 3200, 6400]
    return 10 * np.log10([power[(hertz >= a) & (hertz < b)].mean() for a, b in itertools.pairwise(edges)])


def loudness(sound: torch.Tensor) -> torch.Tensor:
    return sound.view(-1, 400).square().mean(1).sqrt()


def test_resynthesised_speech_sounds_alike_and_is_another_signal():
    sound = speech(0)
    before, kinds = sound.clone(), set()
    for seed in range(50):
        made, drawn = resynthesised_speech(sound, np.random.default_rng(seed))
        again, _ = resynthesised_speech(sound, np.random.default_rng(seed))
        assert torch.equal(made, again)
        assert len(made) == len(sound) and made.dtype == torch.float32 and bool(made.isfinite().all())
        # alike: level, tone of the whole, loudness over time
        assert level_dbfs(made) == pytest.approx(level_dbfs(sound), abs=0.01)
        assert np.abs(octaves(made) - octaves(sound)).max() < 6.0, drawn
        assert float(torch.corrcoef(torch.stack([loudness(made), loudness(sound)]))[0, 1]) > 0.9
        # another signal: the error is more than a twentieth of it, however it is scaled
        likeness = float(torch.corrcoef(torch.stack([made, sound]))[0, 1])
        assert likeness**2 < 0.95, drawn
        if drawn["phase_noise"] == pytest.approx(np.pi):
            assert abs(likeness) < 0.3, drawn  # phases are lost
        kinds.add((drawn["bands"] > 0, drawn["frequency_scale"] != 1))
    assert kinds == set(itertools.product((False, True), repeat=2))
    assert torch.equal(sound, before)


def test_pitch_and_formants_move_by_the_scale_that_is_drawn():
    """A rising tone comes out that many times as high at each moment."""
    time = torch.arange(48000) / SAMPLING_RATE
    rising = 0.1 * torch.sin(2 * torch.pi * (800 * time + 250 * time**2))  # 800 to 2300 Hz

    def track(sound: torch.Tensor) -> torch.Tensor:
        return (
            torch.stft(sound, 1024, window=torch.hann_window(1024), return_complex=True)
            .abs()
            .argmax(0)
            .float()
        )

    seen = set()
    for seed in range(100):
        made, drawn = resynthesised_speech(rising, np.random.default_rng(seed))
        if 0 < drawn["bands"] < 96:
            continue
        ratio = float((track(made) / track(rising))[10:-10].median())
        assert ratio == pytest.approx(drawn["frequency_scale"], abs=0.025), drawn
        seen.add(int(np.sign(drawn["frequency_scale"] - 1)))
    assert seen == {-1, 0, 1}


def test_resynthesis_keeps_the_tone_of_the_whole():
    """Noise without anything above 4 kHz: no pitch and no filterbank moves its edge."""
    spectrum = torch.fft.rfft(
        0.1 * torch.from_numpy(np.random.default_rng(0).normal(size=48000).astype(np.float32))
    )
    spectrum[12000:] *= 0.01
    dull = torch.fft.irfft(spectrum, 48000)

    def level(sound: torch.Tensor, low: float, high: float) -> float:
        power = torch.fft.rfft(sound * torch.hann_window(48000)).abs().square()
        return 10 * float(torch.log10(power[int(3 * low) : int(3 * high)].mean()))

    scales = set()
    for seed in range(40):
        made, drawn = resynthesised_speech(dull, np.random.default_rng(seed))
        scales.add(int(np.sign(drawn["frequency_scale"] - 1)))
        # from 4.3 kHz on the windows' own leakage counts
        for low, high, within in ((200, 3000, 1.0), (3500, 3850, 2.0), (4300, 4600, 8.0), (5000, 8000, 8.0)):
            assert level(made, low, high) == pytest.approx(level(dull, low, high), abs=within), (low, drawn)
    assert scales == {-1, 0, 1}


# --- picture --------------------------------------------------------------------------------------------------------


def test_an_enlarged_face_has_a_grid_that_repeats_inside_of_its_mask():
    flat = torch.full((4, 3, 128, 128), 128, dtype=torch.uint8)
    times, face, periods = torch.arange(4) / FPS, FaceRegion(64, 64, 44, 50), set()
    for seed in range(30):
        made, mask = upsampled_faces(flat, times, np.random.default_rng(seed), face)
        outside = (mask == 0)[:, None].expand_as(made)
        assert torch.equal(made[outside], flat[outside])
        core = (mask > 0.999).all(dim=0)
        rows = core.any(dim=1).nonzero().flatten()
        middle = (slice(int(rows.median()) - 8, int(rows.median()) + 8), slice(48, 80))
        assert core[middle].all()
        first, last = (made[(k, slice(None), *middle)] for k in (0, 3))
        assert torch.equal(first, last)  # it does not move
        grid = first.float() / 128 - 1
        repeats = [p for p in (4, 8, 16) if torch.equal(grid[..., p:], grid[..., :-p])]
        periods.add(repeats[0])
        assert grid.mean().abs() < 0.004 and 0.01 < grid.std() < 0.11
    assert periods == {4, 8, 16}


def test_an_enlarged_face_loses_detail_and_nothing_else_does():
    # Dark, so that the grid, which is in proportion to the brightness, hardly shows.
    grain = np.random.default_rng(0).normal(20, 5, size=(2, 3, 128, 128))
    frames = torch.from_numpy(grain.round().clip(0, 255).astype(np.uint8))
    before, face = frames.clone(), FaceRegion(64, 64, 44, 50)
    for seed in range(8):
        made, mask = upsampled_faces(frames, torch.arange(2) / FPS, np.random.default_rng(seed), face)
        outside = (mask == 0)[:, None].expand_as(made)
        assert torch.equal(made[outside], frames[outside])
        core = (mask > 0.999)[:, None, :, 2:].expand(-1, 3, -1, -1)
        fine, finer = (x.float().diff(n=2, dim=-1)[core].std() for x in (made, frames))
        assert 0.1 * finer < fine < 0.95 * finer
    assert torch.equal(frames, before)


@pytest.mark.parametrize("size", [(96, 96), (32, 32), (90, 160), (224, 128)])
def test_blending_stays_inside_of_a_soft_mask_inside_of_the_frame(size):
    frames = face_frames(size)
    times = torch.arange(len(frames), dtype=torch.float64) / FPS
    before, parts = frames.clone(), []
    for seed in range(12):
        made, mask = self_blended_faces(frames, times, np.random.default_rng(seed))
        assert mask.shape == (len(frames), *size)
        assert float(mask.min()) >= 0 and float(mask.max()) in (0.5, 0.75, 1.0)
        # inside the frame, with a rim
        rim = torch.cat([mask[:, 0], mask[:, -1], mask[..., 0], mask[..., -1]], dim=1)
        assert float(rim.max()) == 0
        # soft: from pixel to pixel nowhere a step of more than half
        steps = max(float(mask.diff(dim=d).abs().max()) for d in (1, 2))
        assert steps <= 0.5 * float(mask.max())
        assert int(((mask > 0) & (mask < mask.max())).sum()) > 0.1 * int((mask > 0).sum())
        # outside every pixel is as it was; inside something is changed in each frame
        outside = (mask == 0)[:, None].expand_as(frames)
        assert torch.equal(made[outside], frames[outside])
        changed = (made.int() - frames.int()).abs().amax(1).float()
        core = mask > 0.8 * mask.amax()
        for k in range(len(frames)):
            assert float(changed[k][core[k]].mean()) >= 1.5
        parts.append(int((mask[0] > 0).sum()))
    assert torch.equal(frames, before)
    assert max(parts) > 1.5 * min(parts)  # whole faces and parts


def test_one_mask_and_one_change_for_the_clip_that_wander_slowly():
    """On a still picture the change of neighbouring frames is far more alike than that of two draws."""
    frames = face_frames()[:1].repeat(16, 1, 1, 1)
    times = torch.arange(16, dtype=torch.float64) / 25  # 0.6 s
    steady, flickering = [], []
    for seed in range(30):
        made, mask = self_blended_faces(frames, times, np.random.default_rng(seed))
        assert float(mask.diff(dim=0).abs().max()) < 0.2
        assert float(mask.diff(dim=0).abs().sum()) > 0  # it does move
        steps = made.float().diff(dim=0)[:, :, mask.amin(0) > 0].abs().mean()
        (flickering if steps > 1.0 else steady).append(float(steps))
    # some clips flicker, most do not, and there is nothing in between
    assert 3 <= len(flickering) <= 16
    assert max(steady) < 0.75 * min(flickering)


def test_drift_follows_time_and_not_the_number_of_frames():
    frames = face_frames()[:1].repeat(5, 1, 1, 1)
    slow, fast = (torch.arange(5, dtype=torch.float64) * s for s in (0.5, 0.25))
    _, at_slow = self_blended_faces(frames, slow, np.random.default_rng(1))
    _, at_fast = self_blended_faces(frames, fast, np.random.default_rng(1))
    torch.testing.assert_close(at_slow[:3], at_fast[::2], atol=2e-4, rtol=0)


def test_the_region_is_found_where_skin_moves_and_given_ones_are_used():
    middle = find_face(face_frames((96, 96)))
    assert abs(middle.x - 48) < 4 and abs(middle.y - 48) < 6
    left = find_face(face_frames((96, 160), at=(64, 48)))
    assert left.x < 74  # of 80, the middle
    still = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)
    found = find_face(still)
    assert (found.x, found.y) == pytest.approx((32, 32), abs=0.6)
    frames, times = face_frames((96, 160)), torch.arange(8, dtype=torch.float64) / FPS
    for seed in range(6):
        _, mask = self_blended_faces(
            frames, times, np.random.default_rng(seed), FaceRegion(125.0, 48.0, 20.0, 26.0)
        )
        columns = mask.sum((0, 1))
        assert float((columns * torch.arange(160)).sum() / columns.sum()) == pytest.approx(125, abs=4)
        # a region that reaches over the edge is moved, not cut
        _, mask = self_blended_faces(
            frames, times, np.random.default_rng(seed), FaceRegion(155.0, 48.0, 20.0, 26.0)
        )
        assert float(mask[..., -1].max()) == 0 and float(mask.max()) >= 0.5
    clip = replace(make(), frames=frames, timestamps=times)
    made = {}
    for name, face_of in (("given", _right), ("none", _nowhere), ("guess", None)):
        faker = pickle.loads(pickle.dumps(PseudoFaker({"self_blended_faces": 1}, face_of=face_of)))
        made[name] = faker(clip, rng=np.random.default_rng(0)).clip.frames
    assert torch.equal(made["none"], made["guess"])
    assert torch.equal(made["given"][..., :80], frames[..., :80])  # the face on the right is blended
    assert not torch.equal(made["guess"][..., :80], frames[..., :80])


def _right(frames: torch.Tensor) -> FaceRegion:
    return FaceRegion(125.0, 48.0, 20.0, 26.0)


def _nowhere(frames: torch.Tensor) -> None:
    return None


def test_frames_too_small_for_a_face_and_regions_without_a_size_are_refused():
    with pytest.raises(ValueError, match="no region"):
        FaceRegion(10.0, 10.0, 0.0, 5.0)
    with pytest.raises(ValueError, match="no region"):
        FaceRegion(float("nan"), 10.0, 5.0, 5.0)
    with pytest.raises(ValueError, match="frames of 96x31 are too small"):
        self_blended_faces(face_frames((31, 96)), torch.arange(8.0), np.random.default_rng(0))


# --- genuine clips --------------------------------------------------------------------------------------------------


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
        # mild: within 6 % and a shift of 5 but for edges and noise, on the average of the picture
        means = made.frames.float().mean((0, 2, 3)) - clip.frames.float().mean((0, 2, 3))
        assert float(means.abs().max()) < 0.06 * 200 + 5 + 1
        assert abs(level_dbfs(made.audio) - level_dbfs(clip.audio)) < 7.1
        # in step: the sound is moved by no more than 15 ms
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


def test_harmless_sound_may_have_a_joint_but_no_silence():
    sound = speech(0)
    joints = 0
    for seed in range(60):
        made = harmless_audio(sound, np.random.default_rng(seed))
        lags = []
        for start in (300, len(sound) - 1100):  # both ends against the sound around them
            windows = sound[start - 300 : start + 1100].unfold(0, 800, 1)
            lags.append(int(((windows @ made[start : start + 800]) / windows.norm(dim=1)).argmax()) - 300)
        joints += lags[0] != lags[1]
        assert float(made.unfold(0, 800, 400).square().mean(1).min()) > 0
    assert 4 <= joints <= 30
    level = torch.full((32000,), 0.3)
    assert min(float(harmless_audio(level, np.random.default_rng(s)).min()) for s in range(30)) > 0.1
    assert torch.equal(harmless_audio(torch.zeros(0), np.random.default_rng(0)), torch.zeros(0))
    assert torch.equal(harmless_audio(torch.zeros(100), np.random.default_rng(0)), torch.zeros(100))


def test_harmless_frames_of_one_colour_stay_of_one_colour():
    """Nothing local is done: no edge, no spot, no vignette."""
    frames = torch.full((4, 3, 40, 56), 100, dtype=torch.uint8)
    for seed in range(20):
        made = harmless_frames(frames, np.random.default_rng(seed))
        assert bool((made == made[..., :1, :1]).all())
        assert int((made.int() - 100).abs().max()) <= 0.06 * 100 + 5 + 0.06 * 100 + 1


# --- draws ----------------------------------------------------------------------------------------------------------


def test_what_is_fake_depends_on_seed_and_number_alone():
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
        # the track that a fake leaves alone is what the genuine draw has, and it was processed
        assert torch.equal(face.clip.audio, real.clip.audio) and not torch.equal(real.clip.audio, clip.audio)
        assert torch.equal(voice.clip.frames, real.clip.frames)
        assert not torch.equal(face.clip.frames, real.clip.frames)
        assert not torch.equal(voice.clip.audio, real.clip.audio)
        assert_same(pickle.loads(pickle.dumps(faces)).draw(number, clip, other).clip, face.clip)
    assert not torch.equal(genuine.draw(0, clip).clip.audio, genuine.draw(1, clip).clip.audio)


def test_a_draw_that_cannot_be_faked_says_genuine():
    sample = PseudoFaker({"other_audio": 1}, fake_share=1.0).draw(0, make())
    assert (sample.kind, sample.label, sample.video_label, sample.audio_label) == ("genuine", 0, 0, 0)


def test_a_pair_differs_in_what_makes_the_fake_alone():
    faker = PseudoFaker({"self_blended_faces": 1}, seed=3, pairs=True)
    clip = make(0)
    for number in (0, 6):
        real, fake = faker.draw(number, clip), faker.draw(number + 1, clip)
        assert (real.kind, real.label) == ("genuine", 0) and (fake.label, fake.video_label) == (1, 1)
        assert torch.equal(real.clip.audio, fake.clip.audio) and not torch.equal(real.clip.audio, clip.audio)
        # Around the face, where both were processed and none was faked.
        corner = (..., slice(8), slice(8))
        assert torch.equal(real.clip.frames[corner], fake.clip.frames[corner])
        assert not torch.equal(real.clip.frames[corner], clip.frames[corner])
        assert not torch.equal(real.clip.frames, fake.clip.frames)
    assert not torch.equal(faker.draw(0, clip).clip.audio, faker.draw(2, clip).clip.audio)
    assert not torch.equal(faker.draw(1, clip).clip.frames, faker.draw(3, clip).clip.frames)
    with pytest.raises(ValueError, match=r"fake_share must be 0.5 with them, not 0.3"):
        PseudoFaker(fake_share=0.3, pairs=True)

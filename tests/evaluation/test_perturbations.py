"""Each perturbation, measured on its copies, does what it says and changes nothing else."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from media_factory import (
    ffmpeg,
    make_clip,
    make_corrupt,
    make_rotated,
    make_truncated,
    make_vfr,
    remux,
    shift_audio,
)
from torchcodec.decoders import VideoDecoder

from modeling_avlmm.evaluation.robustness.ffmpeg import PerturbationError
from modeling_avlmm.evaluation.robustness.perturbations import PERTURBATIONS, perturb
from modeling_avlmm.media import (
    MediaError,
    MediaNotFoundError,
    MediaReader,
    UnreadableMediaError,
    UnsupportedSourceError,
)

RATE = 16_000
PICTURE = [name for name, p in PERTURBATIONS.items() if p.tracks == ("video",) and name != "no_video"]
SOUND = [name for name, p in PERTURBATIONS.items() if p.tracks == ("audio",) and name != "no_audio"]


def lavfi(path: Path, picture: str | None, sound: str | None, *options: str) -> Path:
    """Make a clip of ffmpeg's own sources."""
    sources = [
        argument for source in (picture, sound) if source for argument in ("-f", "lavfi", "-i", source)
    ]
    ffmpeg(*sources, *options, path)
    return path


def white(seed: int = 1, seconds: float = 2.0, rate: int = RATE) -> str:
    return f"anoisesrc=color=white:amplitude=0.2:seed={seed}:sample_rate={rate}:duration={seconds}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("perturbations")


@pytest.fixture(scope="module")
def clip(folder) -> Path:
    """Two seconds of moving patterns, 96x64 at 25 frames per second, and white noise."""
    return lavfi(
        folder / "clip.mp4", "testsrc2=size=96x64:rate=25:duration=2", white(), "-pix_fmt", "yuv420p"
    )


@pytest.fixture(scope="module")
def grey(folder) -> Path:
    """42 frames of one dark grey, losslessly coded, and a tone."""
    picture = "color=color=0x606060:size=96x64:rate=25:duration=1.68"
    options = ("-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv420p")
    return lavfi(folder / "grey.mp4", picture, "sine=sample_rate=16000:duration=1.68", *options)


def level(name: str) -> int:
    """Return the mildest level."""
    return min(PERTURBATIONS[name].severities, key=abs)


def frames_of(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all frames and their times from the first one."""
    decoder = VideoDecoder(str(path))
    batch = decoder.get_frames_in_range(0, len(decoder))
    return batch.data, batch.pts_seconds - batch.pts_seconds[0]


def sound_of(path: Path, **options) -> torch.Tensor:
    with MediaReader(path, **options) as reader:
        return reader.read(with_video=False).audio


def info_of(path: Path):
    with MediaReader(path) as reader:
        return reader.info


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    error = (a.double() - b.double()).square().mean()
    return math.inf if error == 0 else float(10 * torch.log10(255**2 / error))


def lag(sound: torch.Tensor, reference: torch.Tensor) -> int:
    """Return the samples by which `sound` is later than `reference`: the peak of their cross-correlation."""
    size = len(sound) + len(reference)
    spectrum = np.fft.rfft(sound, size) * np.conj(np.fft.rfft(reference, size))
    place = int(np.argmax(np.fft.irfft(spectrum, size)))
    return place if place < size // 2 else place - size


def band_power(sound: torch.Tensor, low: float, high: float) -> float:
    power = np.abs(np.fft.rfft(sound)) ** 2
    frequency = np.fft.rfftfreq(len(sound), 1 / RATE)
    return float(power[(frequency >= low) & (frequency < high)].sum())


# -- nothing but what is named ---------------------------------------------------------------------------------------


def kinds_of_clip(folder: Path, kind: str, clip: Path) -> Path:
    made = folder / f"{kind}.mp4"
    if kind == "variable rate":
        return make_vfr(clip, made)
    if kind == "sound late":
        return shift_audio(clip, made, 0.3)
    if kind == "picture late":
        return shift_audio(clip, made, -0.3)
    if kind == "rotated":
        return make_rotated(clip, made)
    if kind == "10 bits":
        return make_clip(made, pixel_format="yuv420p10le")
    if kind == "odd size":
        return make_clip(made, size=(63, 65), pixel_format="yuv444p")
    if kind == "odd size, chroma halved":
        picture = "testsrc2=size=63x65:rate=25:duration=1"
        return lavfi(
            made.with_suffix(".avi"), picture, white(seconds=1), "-c:v", "mpeg4", "-c:a", "pcm_s16le"
        )
    if kind == "full range":
        options = ("-vf", "scale=out_range=full", "-pix_fmt", "yuvj420p", "-c:v", "libx264", "-c:a", "copy")
        ffmpeg("-i", clip, *options, made)
        return made
    if kind == "29.97":
        return make_clip(made, fps=30000 / 1001)
    if kind == "no sound":
        return make_clip(made, audio=False)
    if kind == "webm":
        ffmpeg("-i", clip, "-c:v", "libvpx", "-c:a", "libvorbis", made.with_suffix(".webm"))
        return made.with_suffix(".webm")
    if kind == "matroska":
        return remux(clip, made.with_suffix(".mkv"))
    return clip


KINDS = ["plain", "variable rate", "sound late", "picture late", "rotated", "10 bits", "odd size"]
KINDS += ["odd size, chroma halved", "full range", "29.97", "no sound", "webm", "matroska"]


@pytest.mark.parametrize("kind", KINDS)
def test_control_is_the_clip_itself(folder, clip, kind):
    source = kinds_of_clip(folder, kind, clip)
    copy = perturb(source, "lossless", 0, folder / "copy")
    (frames, times), (new_frames, new_times) = frames_of(source), frames_of(copy)
    assert torch.equal(new_frames, frames)
    assert torch.equal(new_times, times)
    before, after = info_of(source), info_of(copy)
    assert after.duration == pytest.approx(before.duration, abs=1e-3)
    assert after.av_offset == pytest.approx(before.av_offset, abs=1e-3)
    if kind == "no sound":
        assert not after.has_audio
    else:
        assert torch.equal(sound_of(copy), sound_of(source))


@pytest.mark.parametrize(
    "kind", ["rotated", "10 bits", "odd size", "odd size, chroma halved", "variable rate"]
)
@pytest.mark.parametrize("name", ["h264", "hevc", "resize", "brightness"])
def test_unusual_pictures_keep_size_and_times(folder, clip, kind, name):
    source = kinds_of_clip(folder, kind, clip)
    copy = perturb(source, name, level(name), folder / "copy")
    (frames, times), (new_frames, new_times) = frames_of(source), frames_of(copy)
    assert new_frames.shape == frames.shape
    assert torch.allclose(new_times, times, atol=1e-6)
    assert psnr(new_frames, frames) > (10 if name == "brightness" else 18)
    assert torch.equal(sound_of(copy), sound_of(source))


@pytest.mark.parametrize("name", PICTURE)
def test_picture_perturbation_keeps_the_sound(folder, clip, name):
    copy = perturb(clip, name, level(name), folder / "copy")
    before, after = info_of(clip), info_of(copy)
    assert torch.equal(sound_of(copy), sound_of(clip))
    assert (after.width, after.height) == (before.width, before.height)
    assert after.duration == pytest.approx(before.duration, abs=1e-3)
    assert after.av_offset == before.av_offset == 0
    assert after.audio_codec == "aac"  # copied, not coded again
    video = VideoDecoder(str(copy)).metadata
    assert video.end_stream_seconds - video.begin_stream_seconds == pytest.approx(2.0, abs=1e-6)
    if name == "frame_drop":
        assert after.num_frames < before.num_frames
    else:
        assert torch.equal(frames_of(copy)[1], frames_of(clip)[1])
        assert not torch.equal(frames_of(copy)[0], frames_of(clip)[0])


@pytest.mark.parametrize("name", SOUND)
def test_sound_perturbation_keeps_the_picture(folder, clip, grey, name):
    copy = perturb(clip, name, level(name), folder / "copy", other=grey)
    before, after = info_of(clip), info_of(copy)
    frames, times = frames_of(clip)
    new_frames, new_times = frames_of(copy)
    assert torch.equal(new_frames, frames) and torch.equal(new_times, times)
    assert after.duration == pytest.approx(before.duration, abs=1e-3)
    assert after.av_offset == pytest.approx(0, abs=1e-3)
    sound, reference = sound_of(copy), sound_of(clip)
    assert len(sound) == len(reference)
    assert not torch.equal(sound, reference)


@pytest.mark.parametrize("name", ["aac", "opus", "phone", "audio_noise"])
@pytest.mark.parametrize("kind", ["plain", "sound late", "picture late"])
def test_sound_stays_where_it_is(folder, clip, kind, name):
    source = kinds_of_clip(folder, kind, clip)
    copy = perturb(source, name, level(name), folder / "copy")
    # Coders may add some milliseconds before the first sample; what counts is that the rest does not move. Movie files
    # place a late track to 1 ms, and the filters of the telephone band delay by a quarter of one.
    tolerance = 16 if kind == "sound late" else 4 if name == "phone" else 1
    assert abs(lag(sound_of(copy), sound_of(source))) <= tolerance


# -- known answers: pictures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["h264", "hevc", "resize", "blur", "noise"])
def test_levels_rise_in_damage(folder, clip, name):
    reference, _ = frames_of(clip)
    quality = [
        psnr(frames_of(perturb(clip, name, severity, folder / "copy"))[0], reference)
        for severity in PERTURBATIONS[name].severities
    ]
    assert quality == sorted(quality, reverse=True)
    assert len(set(quality)) == len(quality) and quality[0] < 60


@pytest.mark.parametrize("severity", PERTURBATIONS["noise"].severities)
def test_noise_has_its_standard_deviation(folder, grey, severity):
    def luma(path: Path) -> np.ndarray:
        ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", "yuv420p", folder / "raw")
        planes = np.fromfile(folder / "raw", np.uint8).reshape(42, -1)
        return planes[:, : 64 * 96].astype(float)

    noise = luma(perturb(grey, "noise", severity, folder / "copy")) - luma(grey)
    expected = PERTURBATIONS["noise"].value(severity)
    assert noise.std() == pytest.approx(expected, rel=0.06)
    assert abs(noise.mean()) < 0.1 * expected
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 0.1  # another noise in each frame


@pytest.mark.parametrize("severity", PERTURBATIONS["brightness"].severities)
def test_brightness_is_a_factor(folder, grey, severity):
    reference, _ = frames_of(grey)
    frames, _ = frames_of(perturb(grey, "brightness", severity, folder / "copy"))
    factor = PERTURBATIONS["brightness"].value(severity)
    assert float(frames.float().mean()) == pytest.approx(factor * float(reference.float().mean()), abs=1.5)


def test_brightness_is_a_factor_at_10_bits(folder):
    options = ("-c:v", "libx265", "-x265-params", "lossless=1:log-level=error", "-pix_fmt", "yuv420p10le")
    source = lavfi(
        folder / "deep.mp4", "color=color=0x804020:size=64x64:rate=10:duration=0.5", None, *options
    )
    reference, _ = frames_of(source)
    frames, _ = frames_of(perturb(source, "brightness", -3, folder / "copy"))
    expected = 0.6 * reference.float().mean((0, 2, 3))
    assert torch.allclose(frames.float().mean((0, 2, 3)), expected, atol=2)


@pytest.mark.parametrize("severity", [1, 2, 3])
def test_blur_spreads_a_line_by_sigma(folder, severity):
    box = "color=color=black:size=96x64:rate=10:duration=0.3,drawbox=x=46:y=0:w=4:h=64:color=white:t=fill"
    options = ("-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv444p")
    source = lavfi(folder / "line.mp4", box, None, *options)

    def variance(path: Path) -> float:
        profile = frames_of(path)[0][0].double().mean((0, 1))
        place = torch.arange(len(profile), dtype=torch.float64)
        mean = (profile * place).sum() / profile.sum()
        return float((profile * (place - mean) ** 2).sum() / profile.sum())

    added = variance(perturb(source, "blur", severity, folder / "copy")) - variance(source)
    assert math.sqrt(added) == pytest.approx(PERTURBATIONS["blur"].value(severity), rel=0.2)


@pytest.mark.parametrize("severity", PERTURBATIONS["frame_drop"].severities)
def test_frame_drop_takes_its_share_and_holds_the_rest(folder, severity):
    # 42 frames: the first, four times ten, the last
    source = lavfi(
        folder / "counted.mp4", "testsrc2=size=64x64:rate=25:duration=1.68", None, "-pix_fmt", "yuv420p"
    )
    frames, times = frames_of(source)
    copy = perturb(source, "frame_drop", severity, folder / "copy", seed=5)
    kept, kept_times = frames_of(copy)
    share = PERTURBATIONS["frame_drop"].value(severity)
    assert len(frames) == 42 and len(kept) == 42 - round(40 * share)
    places = [int(torch.argmin((times - time).abs())) for time in kept_times]
    assert places[0] == 0 and places[-1] == 41
    assert torch.allclose(kept_times, times[places], atol=1e-6)
    assert torch.equal(kept, frames[places])
    # On screen at each old time: the last frame that was kept.
    with MediaReader(copy) as reader:
        shown = reader.read(fps=25).frames
    held = [max(place for place in places if place <= now) for now in range(42)]
    assert torch.equal(shown, frames[held])


# -- known answers: sound --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["aac", "opus"])
def test_bitrates_fall(folder, name):
    source = lavfi(folder / "sound.wav", None, white(rate=44_100, seconds=3))
    sizes = [
        perturb(source, name, severity, folder / "copy").stat().st_size
        for severity in PERTURBATIONS[name].severities
    ]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)
    for size, rate in zip(sizes, PERTURBATIONS[name].severities.values(), strict=True):
        assert size * 8 / 3000 == pytest.approx(rate, rel=0.35, abs=5)


def test_phone_band(folder, clip):
    copy = perturb(clip, "phone", 1, folder / "copy")
    assert info_of(copy).sampling_rate == 8000 and info_of(copy).audio_codec == "pcm_mulaw"
    reference, sound = sound_of(clip), sound_of(copy)
    assert band_power(sound, 600, 2400) == pytest.approx(band_power(reference, 600, 2400), rel=0.15)
    assert band_power(sound, 10, 120) < 0.05 * band_power(reference, 10, 120)
    assert band_power(sound, 4200, 8000) < 0.001 * band_power(reference, 4200, 8000)


@pytest.mark.parametrize("severity", PERTURBATIONS["audio_noise"].severities)
@pytest.mark.parametrize("channels", [1, 2])
def test_audio_noise_has_its_ratio(folder, severity, channels):
    source = make_clip(folder / "tone.mp4", seconds=3.0, channels=channels)
    reference, sound = sound_of(source), sound_of(perturb(source, "audio_noise", severity, folder / "copy"))
    noise = sound - reference
    ratio = 10 * math.log10(float(reference.square().mean() / noise.square().mean()))
    expected = PERTURBATIONS["audio_noise"].value(severity) + 10 * math.log10(
        channels
    )  # readers average channels
    # At the last level samples beyond 1 are clipped by the reader.
    assert ratio == pytest.approx(expected, abs=0.15 if severity < 4 else 0.6)
    low, high = band_power(noise, 100, 3900), band_power(noise, 4100, 7900)
    assert low / high == pytest.approx(1, abs=0.1 if severity < 4 else 0.2)  # white


def test_audio_noise_leaves_silence_silent(folder, clip):
    muted = perturb(clip, "mute", 1, folder / "muted")
    assert float(sound_of(muted).abs().max()) == 0
    assert float(sound_of(perturb(muted, "audio_noise", 5, folder / "copy")).abs().max()) == 0


@pytest.mark.parametrize("kind", ["plain", "picture late"])
@pytest.mark.parametrize("severity", PERTURBATIONS["delay"].severities)
def test_delay_moves_the_sound(folder, clip, kind, severity):
    source = kinds_of_clip(folder, kind, clip)
    reference, sound = sound_of(source), sound_of(perturb(source, "delay", severity, folder / "copy"))
    shift = round(PERTURBATIONS["delay"].value(severity) * RATE / 1000)
    assert lag(sound, reference) == shift
    if kind == "plain" and shift > 0:
        assert float(sound[:shift].abs().max()) == 0
        assert torch.equal(sound[shift:], reference[:-shift])
    elif kind == "plain":
        assert torch.equal(sound[:shift], reference[-shift:])
        assert float(sound[shift:].abs().max()) == 0


def test_delay_longer_than_the_sound_is_silence(folder):
    source = make_clip(folder / "brief.mp4", seconds=0.5)
    for severity in (5, -5):
        sound = sound_of(perturb(source, "delay", severity, folder / "copy"))
        assert len(sound) == len(sound_of(source)) and float(sound.abs().max()) == 0


@pytest.mark.parametrize("seconds", [0.7, 5.0])
def test_swap_repeats_or_cuts_the_other_sound(folder, clip, seconds):
    other = lavfi(folder / f"other{seconds}.wav", None, white(seed=9, seconds=seconds))
    given = sound_of(other)
    sound = sound_of(perturb(clip, "audio_swap", 1, folder / "copy", other=other))
    expected = given.repeat(3)[: len(sound)]
    assert len(sound) == len(sound_of(clip)) == 2 * RATE
    assert torch.equal(sound, expected)


def test_swap_between_rates_and_channels(folder, clip):
    other = make_clip(folder / "wide.mp4", seconds=3.0, channels=2, sampling_rate=44_100)
    sound = sound_of(perturb(clip, "audio_swap", 1, folder / "copy", other=other))
    given = sound_of(other)[: len(sound)]
    assert float((sound - given)[800:-800].abs().max()) < 0.01
    back = sound_of(perturb(other, "audio_swap", 1, folder / "copy", other=clip))
    assert len(back) == 3 * RATE
    inner = slice(800, 2 * RATE - 800)
    assert (
        float((back[inner] - sound_of(clip)[inner]).square().mean().sqrt()) < 0.03
    )  # the top octave may differ


def test_masked_tracks(folder, clip):
    without_sound = perturb(clip, "no_audio", 1, folder / "no_audio")
    without_picture = perturb(clip, "no_video", 1, folder / "no_video")
    assert not info_of(without_sound).has_audio and not info_of(without_picture).has_video
    assert torch.equal(frames_of(without_sound)[0], frames_of(clip)[0])
    assert torch.equal(sound_of(without_picture), sound_of(clip))


# -- a separate sound file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".wav", ".m4a"])
@pytest.mark.parametrize("kind", ["plain", "picture late", "no sound"])
def test_separate_sound_becomes_the_sound_track(folder, clip, kind, suffix):
    source = kinds_of_clip(folder, kind, clip)
    audio = lavfi((folder / "separate").with_suffix(suffix), None, white(seed=4))
    expected = sound_of(source, audio=audio)
    for name in ("lossless", "h264"):
        copy = perturb(source, name, level(name), folder / "copy", audio=audio)
        assert info_of(copy).av_offset == pytest.approx(0, abs=1e-3)
        assert torch.equal(sound_of(copy), expected)
    swapped = perturb(source, "delay", 2, folder / "copy", audio=audio)
    assert lag(sound_of(swapped), expected) == round(0.12 * RATE)


def test_sound_alone(folder):
    source = lavfi(folder / "alone.wav", None, white())
    assert torch.equal(sound_of(perturb(source, "lossless", 0, folder / "copy")), sound_of(source))
    assert lag(sound_of(perturb(source, "opus", 1, folder / "copy")), sound_of(source)) == 0


# -- seeds and errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["noise", "audio_noise", "frame_drop", "h264", "aac"])
def test_the_seed_decides(folder, clip, name):
    first, again, other = (
        perturb(clip, name, 3, folder / f"copy{number}", seed=seed).read_bytes()
        for number, seed in enumerate((7, 7, 8))
    )
    assert first == again
    assert (first == other) == (name in ("h264", "aac"))


def test_levels_are_in_order():
    for perturbation in PERTURBATIONS.values():
        assert set(perturbation.tracks) <= {"video", "audio"} and perturbation.how
        values = [perturbation.severities[level] for level in sorted(perturbation.severities)]
        if len(values) > 1:
            assert values in (sorted(values), sorted(values, reverse=True)) and perturbation.unit


@pytest.mark.parametrize(
    ("name", "severity", "message"),
    [("h265", 1, "no perturbation 'h265'"), ("h264", 9, "severities"), ("audio_swap", 1, "needs `other`")],
)
def test_wrong_arguments(folder, clip, name, severity, message):
    with pytest.raises(ValueError, match=message):
        perturb(clip, name, severity, folder / "copy")


def test_no_file_is_read_and_written(clip):
    before = clip.read_bytes()
    with pytest.raises(ValueError, match="read and written"):
        perturb(clip, "h264", 1, clip)
    assert clip.read_bytes() == before


@pytest.mark.parametrize("name", ["mute", "aac", "audio_swap", "no_video"])
def test_missing_sound_is_said(folder, clip, name):
    silent = kinds_of_clip(folder, "no sound", clip)
    with pytest.raises(PerturbationError, match=f"no sound track, so {name}"):
        perturb(silent, name, 1, folder / "none", other=clip)
    assert not (folder / "none").exists()


def test_missing_picture_is_said(folder, clip):
    sound = perturb(clip, "no_video", 1, folder / "sound_only")
    for name in ("h264", "no_audio", "frame_drop"):
        with pytest.raises(PerturbationError, match="no picture track"):
            perturb(sound, name, 1, folder / "none")


def test_bad_files(folder, clip):
    text, empty = folder / "text.mp4", folder / "empty.mp4"
    text.write_text("no video at all " * 50)
    empty.write_bytes(b"")
    playlist = folder / "list.mp4"
    playlist.write_text(f"ffconcat version 1.0\nfile {clip}\n")
    cases = {
        text: UnreadableMediaError,
        empty: UnreadableMediaError,
        folder / "absent.mp4": MediaNotFoundError,
    }
    for path, kind in {**cases, folder: UnsupportedSourceError, playlist: UnsupportedSourceError}.items():
        with pytest.raises(kind):
            perturb(path, "h264", 1, folder / "none")
        with pytest.raises(kind):
            perturb(clip, "audio_swap", 1, folder / "none", other=path)
    assert not (folder / "none").exists()


@pytest.mark.parametrize("name", ["lossless", "h264", "frame_drop", "audio_noise", "no_audio", "delay"])
def test_damaged_files_work_or_say_why(folder, clip, name):
    matroska = remux(clip, folder / "damaged.mkv")
    damaged = [make_corrupt(clip, folder / "corrupt.mp4"), make_truncated(matroska, folder / "cut.mkv")]
    damaged += [
        make_corrupt(matroska, folder / "corrupt.mkv", 0.05, 0.2),
        make_truncated(clip, folder / "cut.mp4"),
    ]
    for path in damaged:
        (folder / "damaged").unlink(missing_ok=True)
        try:
            copy = perturb(path, name, level(name), folder / "damaged")
        except MediaError as error:
            assert str(path) in str(error) and not (folder / "damaged").exists()
        else:
            assert info_of(copy).duration > 0
    with pytest.raises(UnreadableMediaError, match="not readable as media"):
        perturb(
            damaged[-1], name, level(name), folder / "damaged"
        )  # an MP4 file without its end has no index


def test_names_are_not_options(folder, clip):
    for name in ("-y.mp4", "concat:a|b.mp4", "a'b; $(c) %d.mp4"):
        odd = folder / name
        odd.write_bytes(clip.read_bytes())
        assert torch.equal(
            frames_of(perturb(odd, "lossless", 0, folder / f"{name}.copy"))[0], frames_of(clip)[0]
        )


def test_ffmpeg_failure_is_told_in_its_words(folder, clip, tmp_path, monkeypatch):
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\necho first >&2\nfor n in one two three; do echo line $n >&2; done\nexit 3\n")
    fake.chmod(fake.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    with pytest.raises(PerturbationError, match=r"line one \| line two \| line three"):
        perturb(clip, "h264", 1, tmp_path / "copy")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(PerturbationError, match="not installed"):
        perturb(clip, "h264", 1, tmp_path / "copy")


def test_time_limit(folder, clip):
    with pytest.raises(PerturbationError, match="not done after"):
        perturb(clip, "hevc", 1, folder / "none", timeout=0.001)
    assert not (folder / "none").exists()

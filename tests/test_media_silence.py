"""Leading silence: known onsets, and a reader that leaves it out of picture and sound alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from media_factory import ffmpeg, make_clip

from modeling_avlmm.media import SAMPLING_RATE, Clip, MediaReader, read_clip
from modeling_avlmm.media_silence import leading_silence, trailing_silence
from modeling_avlmm.processing_avlmm import AVLMMProcessor
from modeling_avlmm.training.batches import AVCollator, verdict_questions

RATE = SAMPLING_RATE


def tone(seconds: float, level: float = 0.3, rate: int = RATE) -> torch.Tensor:
    return level * torch.sin(2 * math.pi * 400 * torch.arange(round(seconds * rate)) / rate)


def noise(seconds: float, level: float) -> torch.Tensor:
    return level * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(0))


def silence(seconds: float) -> torch.Tensor:
    return torch.zeros(round(seconds * RATE))


# ------------------------------------------------------------------------------------------------ measuring


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.03, 0.1, 1.5])
def test_known_onset(seconds):
    sound = torch.cat([silence(seconds), tone(1.0)])
    assert leading_silence(sound) == pytest.approx(seconds, abs=1e-9)
    assert leading_silence(sound.numpy()) == leading_silence(sound.half()) == leading_silence(sound)
    assert trailing_silence(sound.flip(0)) == leading_silence(sound)
    assert trailing_silence(sound) == 0.0


def test_an_onset_between_frames_is_never_late():
    assert leading_silence(torch.cat([silence(0.0321), tone(1.0)])) == pytest.approx(0.030)


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_other_rates(rate):
    sound = torch.cat([torch.zeros(round(0.1 * rate)), tone(0.5, rate=rate)])
    assert leading_silence(sound, rate) == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize("gain", [1.0, 0.1, 0.01])
def test_the_threshold_goes_with_the_clip(gain):
    quiet = torch.cat([noise(0.2, 0.001), tone(1.0)]) * gain  # 46 dB below the tone
    assert leading_silence(quiet) == pytest.approx(0.2, abs=0.006)
    noisy = torch.cat([noise(0.2, 0.01), tone(1.0)]) * gain  # 27 dB below it: a noisy recording, not silence
    assert leading_silence(noisy) == 0.0


def test_quiet_is_not_digital_silence():
    sound = torch.cat([silence(0.03), noise(0.2, 0.001), tone(1.0)])
    assert leading_silence(sound) == pytest.approx(0.23, abs=0.006)
    assert leading_silence(sound, below_level_db=math.inf) == pytest.approx(0.03)
    # zeros after a lossy codec
    assert leading_silence(sound + noise(1.23, 2e-5), below_level_db=math.inf) == pytest.approx(0.03)


def test_a_click_is_no_onset():
    sound = torch.cat([silence(0.3), tone(1.0)])
    sound[1600:1680] = 0.9
    assert leading_silence(sound) == pytest.approx(0.3)
    alone = torch.cat([silence(0.1), 0.9 * torch.ones(80), silence(1.0), tone(0.01), silence(0.5)])
    assert leading_silence(alone) == len(alone) / RATE


def test_sound_at_the_very_end():
    assert leading_silence(torch.cat([silence(0.5), tone(0.01)])) == pytest.approx(0.5)
    assert leading_silence(torch.cat([silence(5.0), tone(0.5)])) == pytest.approx(
        5.0
    )  # after the level was measured


def test_nothing_to_hear():
    assert leading_silence(silence(0.7)) == pytest.approx(0.7)
    assert leading_silence(noise(0.7, 1e-5)) == pytest.approx(0.7)
    assert leading_silence(torch.zeros(0)) == 0.0
    assert leading_silence(torch.ones(7)) == 7 / RATE  # less than a frame
    with pytest.raises(ValueError, match=r"mono.*\(2, 100\)"):
        leading_silence(torch.zeros(2, 100))


# ------------------------------------------------------------------------------------------------- trimming


def test_flash_and_click_stay_together(tmp_path):
    """The clip begins with 0.4 s of silence; a white frame and a click come at 1.5 s of the file."""
    source = make_clip(tmp_path / "c.mp4", 3, 25, flash_at=1.52, click_at=1.52)
    path = tmp_path / "late.mp4"
    ffmpeg(
        "-i",
        source,
        "-af",
        "asetnsamples=160,volume=0:enable='lt(t,0.4)'",
        "-c:v",
        "copy",
        "-c:a",
        "aac",
        path,
    )
    plain, trimmed = MediaReader(path), MediaReader(path, trim_leading_silence=True)
    shift = trimmed.info.trimmed
    assert plain.info.trimmed == 0.0 and shift == pytest.approx(0.4, abs=0.02)
    assert trimmed.info.duration == pytest.approx(plain.info.duration - shift, abs=1e-9)
    assert any("leading silence are trimmed" in note for note in trimmed.warnings)
    before, after = plain.read(fps=200), trimmed.read(fps=200)
    moves = []
    for clip in (before, after):
        flash = clip.timestamps[(clip.frames.float().mean((1, 2, 3)) > 128).nonzero()[0, 0]]
        click = float((clip.audio.abs() > 0.3).nonzero()[0, 0]) / RATE
        moves.append((float(flash), click))
    # the sound is the same samples; the picture is exact to the 5 ms between the instants
    assert moves[0][1] - moves[1][1] == pytest.approx(shift, abs=1.5 / RATE)
    assert moves[0][0] - moves[1][0] == pytest.approx(shift, abs=1 / 200 + 1e-6)
    assert len(after.audio) == len(before.audio) - round(shift * RATE)
    assert (after.audio - before.audio[round(shift * RATE) :])[50:-50].abs().max() < 5e-4


def test_windows_of_a_trimmed_clip_equal_slices_of_the_whole():
    sound = torch.cat([silence(0.5), tone(5.5)])
    frames = torch.arange(60, dtype=torch.uint8)[:, None, None, None].expand(60, 3, 4, 4)
    source = {"frames": frames, "fps": 10, "audio": sound, "sampling_rate": RATE}
    with MediaReader(source, trim_leading_silence=True) as reader:
        assert (reader.info.trimmed, reader.info.duration) == (0.5, 5.5)
        assert reader.windows(2.0) == [(0, 2), (2, 4), (4, 5.5)]
        whole = reader.read(fps=10)
        assert whole.frames[:, 0, 0, 0].tolist() == list(range(5, 60))
        assert torch.equal(whole.audio, sound[8000:])
        for start, end in reader.windows(2.0):
            part = reader.read(start, end, fps=10)
            assert torch.equal(part.frames, whole.frames[round(start * 10) : round(end * 10)])
            assert torch.equal(part.audio, whole.audio[round(start * RATE) : round(end * RATE)])
        with pytest.raises(ValueError, match=r"5\.500 s of media"):
            reader.read(5.5)


def sound_of(*parts: torch.Tensor) -> dict:
    return {"audio": torch.cat(parts), "sampling_rate": RATE}


@pytest.mark.parametrize(
    ("source", "trimmed"),
    [
        (sound_of(tone(2.0)), 0.0),
        (sound_of(silence(3.0), tone(6.0)), 2.0),  # not more than 2 s
        (sound_of(silence(6.0), tone(6.0)), 2.0),  # sound after the first piece
        (sound_of(silence(0.9), tone(0.3)), 0.6),  # not more than half
        (sound_of(silence(9.0)), 0.0),  # silent throughout
        (sound_of(silence(0.03), tone(1.0)), 0.03),
    ],
)
def test_how_much_is_trimmed(source, trimmed):
    with MediaReader(source, trim_leading_silence=True) as reader:
        assert reader.info.trimmed == pytest.approx(trimmed, abs=1e-9)
        assert reader.info.duration == pytest.approx(len(source["audio"]) / RATE - trimmed)
        assert any("trimmed" in note for note in reader.warnings) == (trimmed >= 0.1)


def test_the_picture_is_never_trimmed_away(tmp_path):
    video = make_clip(tmp_path / "v.mp4", seconds=1.0, audio=False)
    with MediaReader(video, sound_of(silence(1.5), tone(2.0)), trim_leading_silence=True) as reader:
        assert reader.info.trimmed == pytest.approx(0.5)
        assert len(reader.read(fps=25).frames) in (12, 13)
    with MediaReader(video, trim_leading_silence=True) as reader:  # no sound
        assert (reader.info.trimmed, reader.info.duration) == (0.0, pytest.approx(1.0))


def test_an_hour_is_not_read_to_find_the_onset(monkeypatch):
    asked = []
    read = MediaReader._read_audio
    monkeypatch.setattr(
        MediaReader, "_read_audio", lambda self, a, b, n: asked.append((a, b)) or read(self, a, b, n)
    )
    source = {"audio": np.tile(tone(1.0).numpy(), 600), "sampling_rate": RATE}
    with MediaReader(source, trim_leading_silence=True) as reader:
        assert reader.info.trimmed == 0.0
    assert asked == [(0.0, 4.0)]


# ------------------------------------------------------------------------------------ the detector's setting


def test_the_setting_travels_with_the_processor(tiny_backbone, tmp_path):
    processor = AVLMMProcessor.from_backbone(str(tiny_backbone), trim_leading_silence=True)
    assert AVLMMProcessor.from_backbone(str(tiny_backbone)).trim_leading_silence is False
    processor.save_pretrained(tmp_path / "saved")
    loaded = AVLMMProcessor.from_pretrained(tmp_path / "saved")
    assert loaded.trim_leading_silence is True
    source = sound_of(silence(0.25), tone(1.0))
    assert len(read_clip(source).audio) == 20_000
    assert len(loaded.load(source).audio) == len(read_clip(source, trim_leading_silence=True).audio) == 16_000
    row = {"video": None, "audio": source, "path": "a.wav", "label": 0}
    assert len(AVCollator(loaded, verdict_questions(loaded)).read(row).audio) == 16_000


def test_training_and_pipeline_read_alike(tiny_model, tiny_backbone):
    from transformers import pipeline

    import modeling_avlmm  # noqa: F401 (registers the task)

    source = sound_of(silence(0.25), tone(1.0))
    for trim, seconds in ((True, 1.0), (False, 1.25)):
        processor = AVLMMProcessor.from_backbone(str(tiny_backbone), trim_leading_silence=trim)
        result = pipeline("av-deepfake-detection", model=tiny_model, processor=processor)({"audio": source})
        assert result["duration"] == pytest.approx(seconds)
        assert result["windows"][-1]["end"] == pytest.approx(seconds)
        assert any("trimmed" in note for note in result["warnings"]) == trim


def test_a_recipe_sets_it(tiny_backbone):
    from modeling_avlmm.training.avlmm_stages import load_to_train
    from modeling_avlmm.training.recipe_parts import ModelRecipe, StageRecipe
    from modeling_avlmm.training.recipes import AVLMMRecipe

    for trim in (True, False):
        recipe = AVLMMRecipe(
            name="r",
            output_dir="unused",
            model=ModelRecipe(str(tiny_backbone), dtype="float32", trim_leading_silence=trim),
            stages=[StageRecipe()],
        )
        assert load_to_train(str(tiny_backbone), recipe)[1].trim_leading_silence is trim


def test_a_clip_that_was_read_is_trimmed_no_further():
    clip = read_clip(sound_of(silence(0.2), tone(1.0)), trim_leading_silence=True)
    assert isinstance(clip, Clip) and len(read_clip(clip, trim_leading_silence=True).audio) == 16_000

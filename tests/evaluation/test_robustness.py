"""The suite with a scorer that measures something simple, so that its numbers are known beforehand."""

from __future__ import annotations

import json
import pickle
import tempfile
from pathlib import Path

import pytest
import torch
from datasets import Dataset, Video
from media_factory import ffmpeg, make_clip

from modeling_avlmm.evaluation.robustness.conditions import choose_conditions, run_robustness
from modeling_avlmm.evaluation.robustness.curves import plot_robustness, robustness_notes, robustness_rows
from modeling_avlmm.evaluation.robustness.ffmpeg import PerturbationError
from modeling_avlmm.evaluation.robustness.perturbations import PERTURBATIONS
from modeling_avlmm.evaluation.robustness.perturbed_rows import PerturbedFile, PerturbedRows, choose_donors
from modeling_avlmm.media import MediaError, read_clip


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[dict]:
    """Four genuine clips, without high frequencies in their sound, and four fakes with a loud 6 kHz tone."""
    folder = tmp_path_factory.mktemp("split")
    made = []
    for number in range(8):
        fake = number % 2
        path = folder / f"{number}.mp4"
        tone = f"aevalsrc='0.1*sin(2*PI*440*t)+{0.2 * fake}*sin(2*PI*6000*t)':sample_rate=16000:duration=1"
        picture = f"testsrc2=size=64x64:rate=10:duration=1,lutyuv=y='clip(val*{0.3 + 0.1 * number},16,235)'"
        # The coder's bit rate leaves the tone where it is.
        options = ("-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "96k")
        ffmpeg("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", tone, *options, path)
        made.append(
            {
                "video": str(path),
                "audio": None,
                "label": fake,
                "video_label": 0,
                "audio_label": fake,
                "identity": f"id{number // 2}",
                "source": None,
                "path": f"clips/{number}.mp4",
            }
        )
    return made


class HighTone:
    """A scorer by the share of a sound's power above 5 kHz, which remembers its calls."""

    def __init__(self):
        self.asked: list[str] = []

    def __call__(self, rows, name: str) -> list[dict]:
        self.asked.append(name)
        predictions = []
        for index in range(len(rows)):
            row = rows[index]
            entry = {key: row[key] for key in ("path", "label", "video_label", "audio_label")}
            try:
                clip = read_clip(row["video"], row["audio"])
            except MediaError as error:
                found = {"score": None, "video_score": None, "audio_score": None}
                error = {"type": type(error).__name__, "message": str(error)}
                predictions.append({**entry, **found, "error": error})
                continue
            share = 0.5
            if clip.audio is not None:
                power = torch.fft.rfft(clip.audio).abs().square()
                share = float(power[len(power) * 5 // 8 :].sum() / power.sum().clamp(min=1e-9))
            found = {"score": share, "video_score": 0.5 if clip.has_video else None}
            found["audio_score"] = share if clip.has_audio else None
            predictions.append({**entry, **found, "error": None})
        return predictions


@pytest.fixture(scope="module")
def outcome(rows, tmp_path_factory) -> tuple[dict, HighTone, Path]:
    """The suite under conditions whose effect on [`HighTone`] can be derived."""
    scorer, folder = HighTone(), tmp_path_factory.mktemp("robustness")
    names = ["phone", "mute", "no_audio", "no_video", "audio_swap", "h264", "lossless", "delay"]
    return run_robustness(scorer, rows, folder, names, severities=[1], threshold=0.5), scorer, folder


def condition(result: dict, name: str) -> dict:
    return next(c for c in result["conditions"] if c["perturbation"] == name)


def test_untouched_clips_are_told_apart(outcome):
    clean = outcome[0]["clean"]
    assert clean["auc"] == {"overall": 1.0, "video": None, "audio": 1.0}  # no fake pictures: undefined
    assert clean["balanced_accuracy"] == 1.0 and clean["unreadable"] == 0 and clean["n"] == 8


@pytest.mark.parametrize("name", ["lossless", "h264", "delay"])
def test_what_does_not_touch_the_tone_changes_nothing(outcome, name):
    found = condition(outcome[0], name)
    assert found["auc"]["overall"] == found["clean_auc"]["overall"] == 1.0
    assert found["balanced_accuracy"] == 1.0
    assert found["flipped"] == found["unreadable"] == found["failed"] == 0


@pytest.mark.parametrize("name", ["mute", "no_audio"])
def test_without_the_tone_all_scores_are_equal(outcome, name):
    found = condition(outcome[0], name)
    assert found["auc"]["overall"] == 0.5 and found["balanced_accuracy"] == 0.5
    # muted: all called real, so the four fakes flip; no track: the score is 0.5, so the four genuine clips do
    assert found["flipped"] == 0.5
    assert (found["recall_fake"], found["recall_real"]) == ((0, 1) if name == "mute" else (1, 0))
    assert found["auc"]["audio"] == (0.5 if name == "mute" else None)
    assert found["diagnosis"]


def test_telephone_takes_the_tone_away(outcome):
    found = condition(outcome[0], "phone")
    assert found["recall_fake"] == 0 and found["flipped"] == 0.5 and not found["diagnosis"]


def test_no_picture_leaves_the_sound(outcome):
    found = condition(outcome[0], "no_video")
    assert found["auc"] == {"overall": 1.0, "video": None, "audio": 1.0} and found["flipped"] == 0


def test_swap_moves_the_tone_with_the_sound(outcome, rows):
    donors = choose_donors(rows, seed=0)
    moved = [rows[donor]["label"] for donor in donors]
    labels = [row["label"] for row in rows]
    found = condition(outcome[0], "audio_swap")
    assert found["flipped"] == sum(a != b for a, b in zip(moved, labels, strict=True)) / 8
    assert found["recall_fake"] == sum(a and b for a, b in zip(moved, labels, strict=True)) / 4


def test_what_was_asked_and_written(outcome):
    result, scorer, folder = outcome
    expected = ["clean", "lossless_0", "h264_1", "phone_1", "delay_-1", "delay_1"]
    assert scorer.asked == [*expected, "audio_swap_1", "mute_1", "no_audio_1", "no_video_1"]
    assert json.loads((folder / "robustness.json").read_text()) == result
    assert condition(result, "h264")["value"] == 23 and condition(result, "h264")["unit"] == "CRF"


def test_table_has_every_condition(outcome):
    head, rows = robustness_rows(outcome[0])
    assert len(rows) == 1 + len(outcome[0]["conditions"])
    assert all(len(row) == len(head) == 10 for row in rows)
    muted = [
        "digital silence (diagnosis)",
        "",
        "8",
        "0.500",
        "-0.500",
        "-",
        "0.500",
        "0.500",
        "50.0%",
        "0.0%",
    ]
    assert muted in rows
    assert ["H.264", "23 CRF", "8", "1.000", "+0.000"] in [row[:5] for row in rows]


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_plot_is_written_and_stable(outcome, tmp_path, suffix):
    first = plot_robustness(outcome[0], tmp_path / f"a{suffix}").read_bytes()
    assert first == plot_robustness(outcome[0], tmp_path / f"b{suffix}").read_bytes()
    assert len(first) > 5000
    if suffix == ".svg":
        text = first.decode()
        assert all(f">{word}<" in text for word in ("H.264", "CRF", "23", "clean", "sound", "mute*"))
    with pytest.raises(ValueError, match="no conditions"):
        plot_robustness({**outcome[0], "conditions": []}, tmp_path / "c.png")


def test_failures_are_counted_and_end_nothing(rows, tmp_path):
    silent = make_clip(tmp_path / "silent.mp4", seconds=1.0, audio=False)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all" * 40)
    extra = [
        {**rows[0], "video": str(silent), "path": "silent.mp4"},
        {**rows[1], "video": str(broken), "path": "broken.mp4"},
    ]
    result = run_robustness(HighTone(), rows + extra, tmp_path, ["phone", "mute", "resize"], severities=[2])
    assert result["clean"]["unreadable"] == pytest.approx(0.1) and result["clean"]["n"] == 9
    for name in ("phone", "mute"):
        found = condition(result, name)
        assert found["n"] == 9 and found["unreadable"] == found["failed"] == pytest.approx(1 / 9)
        assert found["flipped"] == 0.5  # of the eight with both verdicts
    assert condition(result, "resize")["unreadable"] == 0
    assert "lack the track to perturb: phone 1: 11.1%, mute 1: 11.1%." in robustness_notes(result)[-1]


def test_predictions_are_matched_by_path(rows, tmp_path):
    def reversed_scorer(rows, name):
        return HighTone()(rows, name)[::-1]

    result = run_robustness(reversed_scorer, rows, tmp_path, "lossless")
    assert condition(result, "lossless")["flipped"] == 0
    with pytest.raises(ValueError, match="not those of the 8 clips"):
        run_robustness(lambda rows, name: HighTone()(rows, name)[1:], rows, tmp_path, "lossless")
    with pytest.raises(ValueError, match="same path"):
        run_robustness(HighTone(), [*rows, rows[0]], tmp_path, "lossless")


def test_clean_predictions_can_be_given(rows, tmp_path):
    scorer = HighTone()
    run_robustness(scorer, rows, tmp_path, ["mute"], clean=HighTone()(rows, "clean"))
    assert scorer.asked == ["mute_1"]
    unread = [{**p, "score": None} for p in HighTone()(rows, "clean")]
    with pytest.raises(ValueError, match="None of the 8"):
        run_robustness(scorer, rows, tmp_path, ["mute"], clean=unread)


def test_a_dataset_gives_what_rows_give(rows, tmp_path):
    table = Dataset.from_list(rows).cast_column("video", Video())
    assert run_robustness(HighTone(), table, tmp_path / "a", ["mute", "audio_swap"]) == run_robustness(
        HighTone(), rows, tmp_path / "b", ["mute", "audio_swap"]
    )


def test_the_pipeline_reads_perturbed_rows(rows, tiny_detector, tmp_path):
    from transformers import pipeline

    detector = pipeline("av-deepfake-detection", model=str(tiny_detector))
    silent = {
        **rows[0],
        "video": str(make_clip(tmp_path / "silent.mp4", seconds=1.0, audio=False)),
        "path": "s",
    }
    split = [*rows[:3], silent]
    clean = list(detector(PerturbedRows(split, "lossless", 0), on_error="return"))
    for workers in (0, 1):
        found = list(detector(PerturbedRows(split, "mute", 1), on_error="return", num_workers=workers))
        assert [result["error"] and result["error"]["type"] for result in found] == [None] * 3 + [
            "PerturbationError"
        ]
        assert "digital silence" in " ".join(found[0]["warnings"])
        assert all(
            result["score"] != before["score"] for result, before in zip(found[:3], clean, strict=False)
        )
    direct = list(detector(split, on_error="return"))
    assert [result["score"] for result in clean] == [result["score"] for result in direct]


# -- one file --------------------------------------------------------------------------------------------------------


def leftovers() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("perturbed-*")}


def test_file_is_made_when_read_and_gone_after(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = PerturbedRows(rows, "h264", 5)[0]["video"]
    assert not leftovers()
    head = file.read(100)
    assert len(head) == 100 and not leftovers()  # open, but without a name
    whole = head + file.read()
    assert file.read() == b"" == file.read(10)
    file.seek(0)
    assert file.read() == whole
    pieces = []
    file.seek(0)
    while piece := file.read(1000):
        pieces.append(piece)
    assert b"".join(pieces) == whole
    with pytest.raises(OSError, match="from its start only"):
        file.seek(5)


def test_file_travels_between_processes(rows):
    file = PerturbedRows(rows, "audio_noise", 2, seed=3)[1]["video"]
    begun = file.read(10)
    again = pickle.loads(pickle.dumps(file))
    assert again.read(10) == begun
    file.close()
    again.close()
    assert "1.mp4 (audio_noise, level 2)" in again.name


def test_seed_belongs_to_the_clip(rows):
    first = PerturbedRows(rows, "audio_noise", 1, seed=1)[2]["video"].read()
    assert first == PerturbedRows(rows[::-1], "audio_noise", 1, seed=1)[5]["video"].read()
    assert first != PerturbedRows(rows, "audio_noise", 1, seed=2)[2]["video"].read()


def test_bytes_and_separate_sound(rows, tmp_path):
    data = Path(rows[0]["video"]).read_bytes()
    expected = PerturbedFile(rows[0], "lossless", 0).read()
    held = {**rows[0], "video": {"path": None, "bytes": data}}
    assert PerturbedFile(held, "lossless", 0).read() == expected
    separate = {**rows[0], "audio": rows[1]["video"]}
    clip = read_clip(PerturbedRows([separate], "lossless", 0)[0]["video"])
    assert torch.equal(clip.audio, read_clip(rows[1]["video"]).audio)
    alone = {**rows[0], "video": None, "audio": rows[1]["video"]}
    assert read_clip(PerturbedFile(alone, "mute", 1)).audio.abs().max() == 0


def test_what_cannot_be_perturbed_is_said(rows):
    with pytest.raises(PerturbationError, match="only clip"):
        PerturbedFile(rows[0], "audio_swap", 1).read()
    with pytest.raises(PerturbationError, match="int cannot be perturbed"):
        PerturbedFile({**rows[0], "video": 7}, "mute", 1).read()
    with pytest.raises(PerturbationError, match="neither 'video' nor 'audio'"):
        PerturbedFile({**rows[0], "video": None}, "mute", 1).read()


# -- choices ---------------------------------------------------------------------------------------------------------


def test_conditions():
    every = choose_conditions()
    assert len(every) == sum(len(p.severities) for p in PERTURBATIONS.values())
    assert choose_conditions(None) == every
    names = [(p.name, level) for p, level in choose_conditions(["delay", "h264", "mute"], [1, 5])]
    assert names == [
        ("h264", 1),
        ("h264", 5),
        ("delay", -5),
        ("delay", -1),
        ("delay", 1),
        ("delay", 5),
        ("mute", 1),
    ]
    with pytest.raises(ValueError, match="Did you mean 'h264'"):
        choose_conditions(["h264x"])
    with pytest.raises(ValueError, match="none of \\[9\\]"):
        choose_conditions(["h264"], [9])
    with pytest.raises(ValueError, match="none of \\[2\\]"):
        choose_conditions(["brightness"], [2])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", [[1] * 7, [3, 3], [2, 1, 2, 1], [4, 2, 1, 1], [5, 1], [6]])
def test_donors_are_a_derangement_across_identities(seed, sizes):
    rows = [{"path": f"{g}/{i}", "identity": f"p{g}"} for g, size in enumerate(sizes) for i in range(size)]
    donors = choose_donors(rows, seed)
    assert sorted(donors) == list(range(len(rows)))
    assert all(donor != place for place, donor in enumerate(donors))
    if 2 * max(sizes) <= len(rows):
        assert all(rows[donor]["identity"] != rows[place]["identity"] for place, donor in enumerate(donors))
    assert donors == choose_donors(rows, seed)


def test_one_clip_has_no_donor(rows, tmp_path):
    assert choose_donors(rows[:1]) is None
    result = run_robustness(HighTone(), rows[:1], tmp_path, ["audio_swap"])
    assert (
        condition(result, "audio_swap")["failed"] == 1 and condition(result, "audio_swap")["flipped"] is None
    )

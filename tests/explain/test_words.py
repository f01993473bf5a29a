"""The words of a verdict, its labels, and segments of time."""

import subprocess
import sys

import pytest

from modeling_avlmm.configuration_detector import SCORE_NAMES, AVDetectorConfig
from modeling_avlmm.explain.attribution_maps import Attribution
from modeling_avlmm.explain.segments import join_segments
from modeling_avlmm.explain.words import (
    PART_NAMES,
    clock,
    count_of,
    describe_windows,
    hours,
    how_attributed,
    label_of,
    meaning,
    minutes,
    part_rows,
    verdict_line,
)

NOTICE = "demonstration model trained on drawn faces"


def verdict(**more) -> dict:
    result = {
        "label": "fake",
        "score": 0.93,
        "video_score": 0.12,
        "audio_score": 0.97,
        "threshold": 0.5,
        "windows": [{"start": 0.0, "end": 3.0, "score": 0.93, "video_score": 0.12, "audio_score": 0.97}],
        "has_video": True,
        "has_audio": True,
        "warnings": [],
        "error": None,
    }
    return {**result, **more}


def test_a_verdict_in_words():
    line = verdict_line(verdict(), AVDetectorConfig())
    assert line.startswith("The score of 0.93 is at or above 0.50") and "Its sound alone scores high." in line
    assert line.endswith("is not the chance that this one is fake (not calibrated).")
    # The notice stands at the top of a page, once.
    assert verdict_line(verdict(), AVDetectorConfig(notice=NOTICE)) == line
    uncertain = verdict_line(verdict(label="uncertain", abstain_band=[0.9, 0.95]), AVDetectorConfig())
    assert "lies between 0.90 and 0.95, where too many" in uncertain and "take it as no verdict" in uncertain
    assert "is below 0.95" in verdict_line(verdict(label="real", threshold=0.95), AVDetectorConfig())
    unread = verdict_line(verdict(label=None, score=None), AVDetectorConfig())
    assert unread == "The file could not be read, so there is no verdict."


def test_the_meaning_in_words():
    lines = meaning(
        verdict(),
        AVDetectorConfig(temperature={"overall": 2.0}, calibration={"dataset": "kodf", "clips": 44}),
    )
    assert lines[0] == "The score of 0.93 is at or above 0.50, from which this detector calls a file fake."
    assert (
        lines[1] == "The sound looks fake, the picture does not (0.12 for the picture, 0.97 for the sound)."
    )
    assert lines[2].startswith("Scores were calibrated on kodf, 44 clips:")
    assert "does not prove that a recording is genuine" in lines[-1]
    windows = [{"start": s, "end": s + 3.0, "score": v} for s, v in ((0.0, 0.1), (3.0, 0.9), (6.0, 0.5))]
    lines = meaning(verdict(windows=windows), AVDetectorConfig())
    assert "2 of 3 windows are called fake; the highest score is 0.90, from 0:03.0 to 0:06.0." in lines
    assert any("are not calibrated" in line for line in lines)
    lines = meaning(verdict(label="uncertain", score=0.5), AVDetectorConfig(abstain_band=[0.4, 0.6]))
    assert "between 0.40 and 0.60" in lines[0]


def test_how_an_attribution_was_made_in_words():
    ends = {"measure": "score", "start": 0.0, "end": 2.5, "name": "x", "score": 0.9, "baseline": 0.2}
    covered = how_attributed(Attribution(part="audio", method="occlusion", passes=282, **ends))
    assert covered == (
        "Parts of the 0:00.0 to 0:02.5 window were covered one after another, and the sound's score was computed again "
        "(282 passes). It is 0.900 as it stands, and 0.200 with everything covered."
    )
    added = how_attributed(Attribution(part="overall", method="gradients", passes=66, **ends))
    assert "one after another" not in added and "gradients of the score of the whole were added up" in added
    assert added.endswith("0.200 with the picture blurred and noise for its sound.")


def test_parts():
    rows = part_rows(verdict(video_score=None, has_video=False))
    assert [row["score"] for row in rows] == [0.93, None, 0.97]
    assert rows[1]["meaning"] == "The file has no picture." and rows[2]["meaning"].startswith(
        "More like the fakes"
    )


def test_times():
    times = {0: "0:00.0", 59.96: "1:00.0", 62.5: "1:02.5", 83.5: "1:23.5", 3600: "1:00:00.0"}
    assert {seconds: clock(seconds) for seconds in times} == times
    assert minutes(90) == "1 min 30 s" and minutes(0.2) == "0 s"
    assert hours(3725) == "1:02:05" and hours(59.6) == "0:01:00"


def test_a_number_with_its_noun():
    assert [count_of(number, "clip") for number in (0, 1, 1204)] == ["0 clips", "1 clip", "1,204 clips"]


def test_one_rule_gives_the_label_of_a_file_and_of_its_windows():
    result = {"threshold": 0.5, "abstain_band": [0.4, 0.6]}
    assert [label_of(score, result) for score in (None, 0.39, 0.4, 0.5, 0.6, 0.61)] == [
        None,
        "real",
        *["uncertain"] * 3,
        "fake",
    ]
    # The band is for the whole; picture and sound are called fake from half way.
    assert (
        label_of(0.45, result, "video") == "real"
        and label_of(0.5, {**result, "threshold": 0.9}, "audio") == "fake"
    )
    # Without `abstain`, and in results from before the key, there is no band.
    assert (
        label_of(0.45, {"threshold": 0.4})
        == label_of(0.45, {"threshold": 0.4, "abstain_band": None})
        == "fake"
    )


def test_windows_in_words():
    windows = [
        {"start": 2.0 * n, "end": 2.0 * n + 2, "score": score}
        for n, score in enumerate((0.1, 0.7, 0.55, None))
    ]
    result = verdict(windows=windows)
    assert describe_windows(result) == "Windows called fake: 0:02.0 to 0:04.0, 0:04.0 to 0:06.0."
    assert describe_windows(result, limit=1) == "Windows called fake: 0:02.0 to 0:04.0, and 1 more."
    banded = verdict(windows=windows, abstain_band=[0.5, 0.8])
    assert describe_windows(banded) == "No window is called fake. 2 are uncertain."


def test_parts_are_those_of_the_pipeline_and_the_words_load_no_library():
    assert list(PART_NAMES) == list(SCORE_NAMES)
    check = "import sys, modeling_avlmm.explain.words; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("segments", "gap", "joined"),
    [
        ([], 0.0, []),
        ([[3, 6], [0, 3], [8, 9]], 0.0, [[0, 6], [8, 9]]),
        ([(0, 5), (1, 2)], 0.0, [[0, 5]]),
        ([[0, 1], [1.2, 2]], 0.2, [[0, 2]]),
        ([[0, 1], [1.2, 2]], 0.1, [[0, 1], [1.2, 2]]),
        ([[0, 1], [1, 1], [4, 3]], 0.0, [[0, 1]]),
    ],
)
def test_segments_are_joined(segments, gap, joined):
    assert join_segments(segments, gap) == joined


def test_independent_parts_share_the_threshold_and_the_band():
    result = verdict(threshold=0.7, abstain_band=[0.6, 0.8])
    assert label_of(0.65, result, "video") == "fake" and label_of(0.65, result) == "uncertain"
    shared = {**result, "independent_parts": True}
    for score, label in ((0.55, "real"), (0.65, "uncertain"), (0.85, "fake")):
        assert [label_of(score, shared, part) for part in PART_NAMES] == [label] * 3
    assert [row["threshold"] for row in part_rows({**shared, "video_score": 0.6})] == [0.7] * 3
    assert [row["threshold"] for row in part_rows({**result, "video_score": 0.6})] == [0.7, 0.5, 0.5]


def test_a_picture_without_a_score_says_why():
    def words(**more):
        return part_rows(verdict(video_score=None, **more))[1]["meaning"]

    assert words() == "No verdict; this detector gives none on it."
    assert words(faces=[]) == "Not scored: no face was found."
    assert words(faces=[{"index": 0}]) == "Not scored: no face was large enough."
    assert words(has_video=False) == "The file has no picture."
    silent = part_rows(verdict(audio_score=None, independent_parts=True))
    assert silent[2]["meaning"] == "Not scored: see the warnings."

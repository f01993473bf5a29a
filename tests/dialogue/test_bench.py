"""The bench: arithmetic on hand-made answers, baselines, and a run that is stopped and continued."""

import argparse
import json

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score

from modeling_avlmm.cli import bench as bench_command
from modeling_avlmm.dialogue.bench import asking
from modeling_avlmm.dialogue.bench.answer_metrics import (
    calibrated_pointing,
    confusion,
    kappas,
    macro_f1,
    mean_balanced_accuracy,
    mean_kappa,
    most_frequent,
    pointing_chance,
    rouge_l,
    set_overlap,
    time_overlap,
)
from modeling_avlmm.dialogue.bench.answer_scores import QUESTIONS, bench_report
from modeling_avlmm.dialogue.bench.bench_run import BenchOptions, run_bench
from modeling_avlmm.dialogue.bench.report_pages import write_bench
from modeling_avlmm.evaluation.evaluation_error import EvaluationError


def clip(
    label=1, modalities=("picture",), family="face_swap", regions=(), bands=(), segments=(), reference="x"
):
    return {
        "label": label,
        "modalities": list(modalities),
        "family": family,
        "generator": None,
        "regions": list(regions),
        "bands": list(bands),
        "segments": [list(s) for s in segments],
        "offset": None,
        "measured": bool(regions),
        "reference": reference,
        "identity": None,
    }


def said(score, fake, real, family, description):
    return {
        "score": score,
        "label": "fake" if score >= 0.5 else "real",
        "error": None,
        "answers": {
            "asked_fake": fake,
            "asked_real": real,
            "classification": family,
            "description": description,
        },
    }


CLIPS = {
    "a": clip(regions=("eyes", "mouth"), segments=[(0, 2)], reference="The picture was manipulated."),
    "b": clip(
        family="voice", modalities=("sound",), bands=("below_300_hz",), reference="The sound was manipulated."
    ),
    "c": clip(0, (), "genuine", reference="Nothing was found."),
    "d": clip(regions=("mouth",), reference="The picture was manipulated."),
}
ANSWERS = {
    "a": said(0.9, "Yes.", "No.", "This is a face swap.", "The picture was manipulated. Look at the mouth and the nose. It is evident from 1 s to 2 s."),
    "b": said(0.4, "No.", "Yes.", "It is a case of reenactment.", "The picture was manipulated. Listen for it below 300 Hz."),
    "c": said(0.2, "No.", "Maybe.", "None. This clip is genuine.", "I find no artifacts. This clip appears to be genuine."),
    "d": said(0.8, "Purple.", "No.", "Purple.", "Purple."),
}  # fmt: skip


def values(report):
    return {name: measure["value"] for name, measure in report["measures"].items() if measure["n"]}


def test_measures_of_hand_made_answers():
    report = bench_report(CLIPS, ANSWERS, n_resamples=0)
    expected = {
        "verdict_asked_fake": 2 / 4,  # a and c; b is wrong, d cannot be read
        "verdict_asked_real": 2 / 4,  # a and d
        "verdict_both_ways": 1 / 4,
        "family_accuracy": 2 / 4,
        "family_macro_f1": (2 * 1 / (2 + 1) + 0 + 1) / 3,  # face_swap, voice, genuine
        "modality": 1 / 3,
        "clean_when_genuine": 1.0,
        # Only the eyes were changed in some clips and not in others, and no answer names them.
        "region_kappa": 0.0,
        "region_balanced_accuracy": 1 / 2,
        "pointing_region_calibrated": 0.0,  # the mouth was changed in both, so no pointing shows anything
        "strongest_region": 0.0,  # the eyes, and the mouth
        "region_f1": (0.5 + 0) / 2,
        "region_iou": (1 / 3 + 0) / 2,
        "pointing_region": 1 / 2,
        "band_f1": 1.0,
        "band_iou": 1.0,
        "pointing_band": 1.0,
        "time_f1": 2 / 3,
        "time_iou": 1 / 2,
    }
    got = values(report)
    assert got.pop("rouge_l") == pytest.approx(np.mean([rouge_l(ANSWERS[p]["answers"]["description"], CLIPS[p]["reference"]) for p in CLIPS]))  # fmt: skip
    assert got == pytest.approx(expected)
    measures = report["measures"]
    assert (
        measures["verdict_asked_fake"]["unparsable"] == 1
        and measures["verdict_asked_real"]["unparsable"] == 1
    )
    assert measures["family_macro_f1"]["unparsable"] == 1 and measures["modality"]["unparsable"] == 1
    assert report["confusion"] == {
        "face_swap": {"face_swap": 1, "unparsable": 1},
        "genuine": {"genuine": 1},
        "voice": {"reenactment": 1},
    }
    assert report["scored"]["auc"] == 1.0 and report["scored"]["accuracy"] == 3 / 4
    for name in ("band_kappa", "band_balanced_accuracy", "pointing_band_calibrated"):  # one clip
        assert measures[name]["n"] == 0 and measures[name]["value"] is None
    assert report["places"]["region"]["mouth"] == {"changed": 1.0, "named": 0.5, "kappa": None}
    assert report["places"]["region"]["eyes"] == {"changed": 0.5, "named": 0.0, "kappa": 0.0}
    assert list(report["places"]["band"]) == ["below_300_hz", "300_1000_hz", "1_3_khz", "3_8_khz"]
    assert report["pointing_chance"] == pytest.approx((2 / 8 + 1 / 8) / 2)


def test_baselines_are_the_commonest_answers():
    report = bench_report(CLIPS, ANSWERS, n_resamples=0)
    baselines = report["baselines"]
    assert (baselines["label"], baselines["family"], baselines["region"]) == ("fake", "face_swap", "mouth")
    base = {name: measure["baseline"] for name, measure in report["measures"].items() if measure["n"]}
    assert base["verdict_asked_fake"] == base["verdict_asked_real"] == 3 / 4
    assert base["family_accuracy"] == 2 / 4 and base["family_macro_f1"] == pytest.approx(2 * 2 / 6 / 3)
    assert base["pointing_region"] == 1.0  # the mouth was changed in both
    assert baselines["answers"]["description"] == (
        "The picture was manipulated. Look at the eyes and the mouth. Listen for it below 300 Hz. It is evident from 0 s to 2 s."
    )
    assert base["modality"] == 2 / 3 and base["band_f1"] == base["time_iou"] == 1.0
    assert base["region_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert base["clean_when_genuine"] == 0.0
    assert base["region_kappa"] == base["pointing_region_calibrated"] == 0.0
    assert base["region_balanced_accuracy"] == base["strongest_region"] == 0.5
    for measure in report["measures"].values():
        if measure["n"]:
            assert measure["difference"] == pytest.approx(measure["value"] - measure["baseline"])


def test_perfect_answers_score_one_with_intervals():
    clips = {f"{kind}{i}": c | {"identity": str(i)} for i in range(6) for kind, c in CLIPS.items()}
    perfect = {
        "a": said(0.9, "Yes.", "No.", "face swap", "The picture was manipulated. Look at the eyes and the mouth. From 0 s to 2 s."),
        "b": said(0.9, "Yes.", "No.", "voice conversion or cloned speech", "The sound was manipulated, below 300 Hz."),
        "c": said(0.1, "No.", "Yes.", "None. This clip is genuine.", "I find no artifacts."),
        "d": said(0.9, "Yes.", "No.", "face swap", "The picture was manipulated. Look at the mouth."),
    }  # fmt: skip
    report = bench_report(clips, {path: perfect[path[0]] for path in clips}, n_resamples=20)
    got = values(report)
    got.pop("rouge_l")
    assert got == pytest.approx(dict.fromkeys(got, 1.0))
    interval = report["measures"]["family_macro_f1"]["ci"]
    assert interval["value"] == [1.0, 1.0] and interval["difference"][0] > 0
    assert report["scored"]["ci_clusters"] == 6


def test_report_names_what_its_numbers_mean(tmp_path):
    about = dict.fromkeys(("model", "dataset", "protocol", "split", "notice", "date"), "x")
    about |= {
        "writes": True,
        "context": False,
        "detector": {},
        "environment": {},
        "questions": QUESTIONS,
    }
    write_bench(about | bench_report(CLIPS, ANSWERS, n_resamples=0), tmp_path)
    page = (tmp_path / "report.md").read_text()
    assert "| macro F1 over families | 4 | 0.5556 | 0.2222 | 0.3333 | 1 |" in page
    assert "| genuine | 0 | 1 | 0 | 0 |" in page  # confusion: face_swap, genuine, reenactment, unparsable
    assert "commonest region, mouth; pointing at random hits 0.188." in page
    assert "NaN" not in (tmp_path / "report.json").read_text()


def test_unreadable_clips_are_counted_and_in_no_number():
    broken = {
        "path": "e",
        "error": {"type": "UnreadableMediaError", "message": "no"},
        "answers": None,
        "score": None,
    }
    report = bench_report(CLIPS | {"e": clip()}, ANSWERS | {"e": broken}, n_resamples=0)
    assert report["clips"] == 5 and report["asked"] == 4 and list(report["unreadable"]) == ["e"]
    assert values(report) == values(bench_report(CLIPS, ANSWERS, n_resamples=0))
    with pytest.raises(EvaluationError, match="None of 1 clips could be read"):
        bench_report({"e": clip()}, {"e": broken}, n_resamples=0)


def test_metrics_have_known_values():
    assert rouge_l("The cat sat on the mat.", "the cat is on the mat") == pytest.approx(10 / 12)
    assert rouge_l("police killed the gunman", "the gunman kill police") == pytest.approx(4 / 8)
    assert rouge_l("", "a") == 0.0
    assert set_overlap({1, 2}, {2, 3}) == (1 / 3, 1 / 2) and set_overlap(set(), set()) == (1.0, 1.0)
    assert set_overlap({1}, set()) == (0.0, 0.0)
    assert time_overlap([(0, 1), (0.5, 2)], [(1, 3)]) == pytest.approx((1 / 3, 2 / 4))
    assert time_overlap([], [(0, 1)]) == (0.0, 0.0) and time_overlap([(1, 1)], []) == (1.0, 1.0)
    assert macro_f1(["a", "a", "b"], ["a", None, "c"]) == pytest.approx((2 / 3 + 0) / 2)
    assert macro_f1(["a", "b"], ["a", "a"], np.array([2.0, 0.0])) == 1.0
    assert macro_f1(["a"], ["a"], np.zeros(1)) is None
    assert confusion(["a", "a"], ["a", None]) == {"a": {"a": 1, "unparsable": 1}}
    assert pointing_chance([{"x"}, {"x", "y"}], ["x", "y", "z", "w"]) == 3 / 8
    assert most_frequent(["b", "a", "b", "a"]) == "a"


def test_kappa_and_balanced_accuracy_of_places_by_hand():
    names = ["eyes", "nose", "mouth", "jaw"]
    true = [{"mouth", "jaw"}, {"mouth"}, {"mouth", "eyes"}, {"mouth", "eyes"}]
    found = [{"jaw"}, {"jaw", "eyes"}, {"eyes", "nose"}, {"eyes"}]
    # Eyes: changed in 2 of 4, named in 3, agreed in 3; by chance 0.5 * 0.75 + 0.5 * 0.25. Jaw: changed in 1, named in 2.
    chance_of_jaw = 0.25 * 0.5 + 0.75 * 0.5
    expected = {"eyes": (3 / 4 - 1 / 2) / (1 / 2), "jaw": (3 / 4 - chance_of_jaw) / (1 - chance_of_jaw)}
    assert kappas(found, true, names) == pytest.approx(expected)  # nose and mouth are the same in all clips
    assert mean_kappa(found, true, names) == pytest.approx(np.mean(list(expected.values())))
    assert mean_balanced_accuracy(found, true, names) == pytest.approx(
        np.mean([(1 + 1 / 2) / 2, (1 + 2 / 3) / 2])
    )
    assert mean_kappa(true, true, names) == mean_balanced_accuracy(true, true, names) == 1.0
    always = [{"mouth", "eyes"}] * 4
    assert mean_kappa(always, true, names) == 0.0 and mean_balanced_accuracy(always, true, names) == 0.5
    # A weight of two is the clip twice; a weight of zero leaves it out.
    twice = [*found, found[1]], [*true, true[1]]
    weights = np.array([1, 2, 1, 1])
    assert kappas(found, true, names, weights) == pytest.approx(kappas(*twice, names))
    assert kappas(found, true, names, np.array([0, 0, 1, 1])) == {}
    assert mean_kappa(found, true, names, np.zeros(4)) is mean_balanced_accuracy([], [], names) is None


def test_kappa_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    true, found = (rng.random((50, 3)) < [0.3, 0.5, 0.9] for _ in range(2))
    found = np.where(rng.random((50, 3)) < 0.5, true, found)
    as_sets = [[set(np.flatnonzero(row)) for row in table] for table in (found, true)]
    weights = rng.random(50)
    expected = {i: cohen_kappa_score(true[:, i], found[:, i], sample_weight=weights) for i in range(3)}
    assert kappas(*as_sets, range(3), weights) == pytest.approx(expected)
    expected = np.mean(
        [balanced_accuracy_score(true[:, i], found[:, i], sample_weight=weights) for i in range(3)]
    )
    assert mean_balanced_accuracy(*as_sets, range(3), weights) == pytest.approx(expected)


def test_pointing_beyond_chance_by_hand():
    true = [{"mouth"}, {"mouth", "nose"}, {"nose"}, {"mouth"}]
    # The mouth was changed in 3 of 4 clips, the nose in 2: pointing at each half of the time hits 0.5 * (3 + 2) / 4 by chance.
    pointed = ["mouth", "nose", "nose", "mouth"]
    assert calibrated_pointing(pointed, true) == 1.0
    assert calibrated_pointing(["mouth", "nose", "mouth", "nose"], true) == pytest.approx(
        (0.5 - 5 / 8) / (3 / 8)
    )
    assert calibrated_pointing(["mouth"] * 4, true) == calibrated_pointing(["jaw"] * 4, true) == 0.0
    assert calibrated_pointing([None] * 4, true) == 0.0
    assert calibrated_pointing(["mouth"] * 2, true[:2]) == 0.0  # every pointing hits
    assert calibrated_pointing([*pointed[:3], None], true) == pytest.approx(
        (3 / 4 - (3 / 16 + 1 / 4)) / (9 / 16)
    )
    weights = np.array([1.0, 0.0, 1.0, 0.0])
    assert calibrated_pointing(["mouth", None, "mouth", None], true, weights) == 0.0
    assert calibrated_pointing(pointed, true, np.zeros(4)) is None
    assert calibrated_pointing(["mouth", "nose"], [{"mouth"}, {"mouth"}]) is None


def command(folder, model, out, *more):
    parser = argparse.ArgumentParser()
    bench_command.add_arguments(parser)
    words = ["--model", model, "--dataset", "avfolder", "--data-dir", folder, "--output-dir", out]
    words += ["--resamples", 10, "--max-new-tokens", 4, "--batch-size", 2, *more]
    return bench_command.run(parser.parse_args(list(map(str, words))))


def test_run_goes_on_where_it_was_stopped(clip_folder, tiny_detector, tmp_path, capsys, monkeypatch):
    assert command(clip_folder, tiny_detector, tmp_path / "whole") == 0
    out = capsys.readouterr().out
    assert "1 clip could not be read" in out and "verdict_both_ways" in out
    report = json.loads((tmp_path / "whole" / "report.json").read_text())
    assert report["clips"] == 7 and report["asked"] == 6 and report["writes"] is True

    generate, calls = asking.generate_answers, []

    def stops(*arguments):
        calls.append(1)
        if len(calls) > len(QUESTIONS):
            raise KeyboardInterrupt
        return generate(*arguments)

    monkeypatch.setattr(asking, "generate_answers", stops)
    assert command(clip_folder, tiny_detector, tmp_path / "stopped") == 130
    assert "stopped; the same command continues" in capsys.readouterr().err
    journal = tmp_path / "stopped" / "answers.jsonl"
    assert len(journal.read_text().splitlines()) == 2
    journal.write_text(journal.read_text() + '{"path": "half a li')
    monkeypatch.setattr(asking, "generate_answers", generate)
    assert command(clip_folder, tiny_detector, tmp_path / "stopped") == 0
    again = json.loads((tmp_path / "stopped" / "report.json").read_text())
    assert {k: v for k, v in again.items() if k != "date"} == {k: v for k, v in report.items() if k != "date"}
    page = (tmp_path / "whole" / "report.md").read_text()
    for shown in (
        "Verdict by score",
        "Technique",
        "Descriptions",
        "Clips that could not be read",
        "broken.mp4",
    ):
        assert shown in page
    assert "<table" in (tmp_path / "whole" / "report.html").read_text()

    assert command(clip_folder, tiny_detector, tmp_path / "whole", "--context") == 2
    assert "differs in context" in capsys.readouterr().err
    assert command(clip_folder, tiny_detector, tmp_path / "x", "--limit", 0) == 2
    assert command(clip_folder, tiny_detector, tmp_path / "x", "--split", "nowhere") == 2
    assert "has no split 'nowhere'" in capsys.readouterr().err


def test_detector_that_cannot_write_is_benched_by_composed_answers(clip_folder, tmp_path):
    from modeling_avlmm.inference.default_model import DEMONSTRATION_MODEL

    report, folder = run_bench(
        BenchOptions(
            str(DEMONSTRATION_MODEL),
            "avfolder",
            clip_folder,
            output_dir=tmp_path / "bench",
            limit=3,
            n_resamples=0,
        )
    )
    assert report["writes"] is False and report["clips"] == 3
    entries = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    read = next(entry for entry in entries if entry["error"] is None)
    assert f"{read['score']:.2f}" in read["answers"]["asked_fake"]
    assert "does not write" in (folder / "report.md").read_text()


def test_context_tells_each_clips_own_verdicts_before_every_question(
    clip_folder, tiny_detector, tmp_path, monkeypatch
):
    asked = []

    def record(detector, clips, conversations, max_new_tokens):
        asked.extend(turns[0][0] for turns in conversations)
        return ["No."] * len(conversations)

    monkeypatch.setattr(asking, "generate_answers", record)
    report, folder = run_bench(
        BenchOptions(
            str(tiny_detector),
            "avfolder",
            clip_folder,
            output_dir=tmp_path,
            batch_size=1,
            n_resamples=0,
            context=True,
        )
    )
    assert report["context"] is True
    assert "was told the detector's verdicts first" in (folder / "report.md").read_text()
    entries = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    expected = [
        f" Measured: clip {entry['label']} {entry['score']:.2f}"
        for entry in entries
        if entry["error"] is None
    ]
    assert len(expected) == 6 and len(asked) == 6 * len(QUESTIONS)
    for number, text in enumerate(asked):
        assert text.startswith(expected[number // len(QUESTIONS)])
        assert text.endswith(" " + list(QUESTIONS.values())[number % len(QUESTIONS)])


def test_batched_answers_are_those_of_one_clip_alone(tiny_detector, clips):
    from modeling_avlmm.inference.loading import load_detector

    detector, _ = load_detector(str(tiny_detector))
    loaded = [detector.processor.load(clips[name]) for name in ("clip", "silent", "sound")]
    turns = [[("Is this clip fake?", None)]] * 3
    together = asking.generate_answers(detector, loaded, turns, 6)
    alone = [asking.generate_answers(detector, [one], turns[:1], 6)[0] for one in loaded]
    assert together == alone

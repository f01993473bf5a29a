"""Comparing detectors on the same clips: DeLong's test by its definition, the bootstrap by explicit resampling."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from modeling_avlmm.__main__ import main
from modeling_avlmm.evaluation.comparison import ComparisonError, compare, read_entries
from modeling_avlmm.evaluation.comparison_statistics import delong_components, delong_test, paired_figures
from modeling_avlmm.evaluation.metrics import SureScores, resampled_weights
from modeling_avlmm.evaluation.predictions import read_predictions, write_predictions
from modeling_avlmm.evaluation.report import build_report

N = 48
LABELS = np.arange(N) % 3 % 2  # 0 1 0: a third is fake
IDENTITIES = [f"id{number // 4}" for number in range(N)]  # four clips of each of 12 people, both classes
ABOUT = {
    "dataset": "avfolder",
    "protocol": "split",
    "split": "test",
    "validation_split": "validation",
    "temperature": None,
    "model_threshold": 0.5,
}


def drawn(seed: int, gain: float) -> np.ndarray:
    """Return scores with two decimals, so that some are equal; higher for fakes by `gain`."""
    noise = np.random.default_rng(seed).uniform(0, 1 - gain, N)
    return np.round(noise + gain * LABELS, 2)


WEAK, STRONG = drawn(1, 0.1), drawn(2, 0.4)


def write(file: Path, scores, paths=None, labels=LABELS, columns=None, **about) -> Path:
    """Write predictions of the test clips, and four of a validation split whose threshold is 0.45."""
    paths = [f"{number:02d}.mp4" for number in range(len(scores))] if paths is None else paths
    rows = [
        {
            "split": "test",
            "path": path,
            "label": int(label),
            "video_label": int(label),
            "audio_label": 0,
            "generator": ("wav2lip", "faceswap")[place // 3 % 2] if label else None,
            "audio_generator": None,
            "language": ("en", "ro")[place // 4 % 2],
            "identity": IDENTITIES[place],
            "score": score,
            "video_score": None,
            "audio_score": None,
            "duration": 2.0,
            "error": None,
            **(columns or {}),
        }
        for place, (path, label, score) in enumerate(zip(paths, labels, scores, strict=True))
    ]
    fitting = [{**rows[0], "split": "validation", "path": f"v{n}", "label": n // 2, "score": s}
               for n, s in enumerate((0.1, 0.4, 0.5, 0.9))]  # fmt: skip
    write_predictions(file, rows + fitting, ABOUT | {"model": file.stem} | about)
    return file


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    return write(tmp_path / "strong.parquet", STRONG.tolist()), write(
        tmp_path / "weak.parquet", WEAK.tolist()
    )


def compared(*files: Path, n_resamples: int = 0) -> dict:
    return compare(read_entries([(None, [file]) for file in files]), n_resamples)


# -- DeLong's test ---------------------------------------------------------------------------------------------------


def delong_by_definition(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Return difference, standard error and p from the kernel of every pair, as the paper writes them."""
    reals, fakes = np.flatnonzero(LABELS == 0), np.flatnonzero(LABELS == 1)
    v10, v01, aucs = [], [], []
    for scores in (first, second):
        kernel = [
            [1.0 if scores[i] > scores[j] else 0.5 * (scores[i] == scores[j]) for j in reals] for i in fakes
        ]
        v10.append([sum(row) / len(reals) for row in kernel])
        v01.append([sum(row) / len(fakes) for row in zip(*kernel, strict=True)])
        aucs.append(np.mean(kernel))
    covariance = np.cov(v10) / len(fakes) + np.cov(v01) / len(reals)
    std_error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    difference = aucs[0] - aucs[1]
    return difference, std_error, 2 * norm.cdf(-abs(difference) / std_error)


def test_delong_equals_its_definition():
    first, second = (delong_components(LABELS, [scores]) for scores in (STRONG, WEAK))
    found = delong_test(first, second)
    difference, std_error, p = delong_by_definition(STRONG, WEAK)
    assert len(set(WEAK.tolist())) < N  # ties are part of the check
    assert first[0].mean() - second[0].mean() == pytest.approx(difference, abs=1e-12)
    assert first[1].mean() == pytest.approx(roc_auc_score(LABELS, STRONG), abs=1e-12)
    assert found["std_error"] == pytest.approx(std_error, rel=1e-10)
    assert found["p"] == pytest.approx(p, rel=1e-9, abs=0) and 0 < p < 0.05


def test_delong_without_variance():
    same = delong_components(LABELS, [WEAK])
    assert delong_test(same, same) == {"std_error": 0.0, "z": 0.0, "p": 1.0}
    perfect, reversed_ = (delong_components(LABELS, [scores]) for scores in (LABELS, 1 - LABELS))
    assert delong_test(perfect, reversed_) == {"std_error": 0.0, "z": None, "p": None}
    one_fake = delong_components([0, 0, 1], [[0.1, 0.2, 0.3]])
    assert delong_test(one_fake, one_fake)["p"] is None


def test_equal_scores_are_ranked_by_log_odds():
    sure = SureScores(np.ones(N), WEAK)
    for of_sure, of_plain in zip(
        delong_components(LABELS, [sure]), delong_components(LABELS, [WEAK]), strict=True
    ):
        np.testing.assert_array_equal(of_sure, of_plain)


# -- the bootstrap ---------------------------------------------------------------------------------------------------


def test_bootstrap_equals_explicit_resampling():
    """Copy the drawn clips, and compute each metric with scikit-learn."""
    found = paired_figures(LABELS, [[STRONG], [WEAK]], [[0.5], [0.45]], IDENTITIES, n_resamples=60, seed=3)
    cluster = np.arange(N) // 4
    differences = {"auc": [], "ap_fake": [], "balanced_accuracy": []}
    for weights in resampled_weights(cluster, 60, seed=3):
        drawn = np.repeat(np.arange(N), weights.astype(int))
        labels = LABELS[drawn]
        values = [
            (
                roc_auc_score(labels, scores[drawn]),
                average_precision_score(labels, scores[drawn]),
                balanced_accuracy_score(labels, scores[drawn] >= threshold),
            )
            for scores, threshold in ((STRONG, 0.5), (WEAK, 0.45))
        ]
        for name, first, second in zip(differences, *values, strict=True):
            differences[name].append(first - second)
    (pair,) = found["differences"]
    assert found["clusters"] == 12
    for name, of in differences.items():
        assert pair[name]["ci"] == pytest.approx(np.quantile(of, [0.025, 0.975]), abs=1e-12)
    assert found["winner"]["auc"] == 0


def test_nothing_differs_from_itself():
    """Identical scores, and the same order at other values: differences and intervals are exactly 0."""
    shifted = WEAK / 2 + 0.5
    found = paired_figures(LABELS, [[WEAK], [WEAK], [shifted]], [[0.5]] * 3, IDENTITIES, n_resamples=50)
    for pair in found["differences"]:
        for name in ("auc", "ap_fake"):
            assert pair[name]["value"] == 0 and pair[name]["ci"] == [0, 0]
        assert pair["auc"]["delong"]["p"] == 1
    same, to_shifted, _ = (pair["balanced_accuracy"] for pair in found["differences"])
    assert same["value"] == 0 and same["ci"] == [0, 0]
    # All clips of the shifted one are called fake.
    assert to_shifted["value"] == pytest.approx(balanced_accuracy_score(LABELS, WEAK >= 0.5) - 0.5, abs=1e-12)
    assert set(found["winner"].values()) == {None}


def test_fakes_moved_above_all_genuine_clips():
    found = paired_figures(
        LABELS, [[WEAK], [WEAK / 3 + LABELS / 2]], [[0.5], [0.5]], IDENTITIES, n_resamples=50
    )
    (pair,) = found["differences"]
    assert pair["auc"]["value"] == pytest.approx(roc_auc_score(LABELS, WEAK) - 1, abs=1e-12)
    assert found["entries"][1]["auc"]["ci"] == [1, 1] and pair["auc"]["ci"][1] < 0
    assert found["winner"] == dict.fromkeys(("auc", "ap_fake", "balanced_accuracy"), 1)


def test_runs_of_one_entry_are_a_mean_with_a_spread():
    found = paired_figures(LABELS, [[STRONG, WEAK], [WEAK]], [[0.5, 0.5], [0.5]], IDENTITIES, n_resamples=50)
    aucs = [roc_auc_score(LABELS, scores) for scores in (STRONG, WEAK)]
    entry = found["entries"][0]["auc"]
    assert entry["runs"] == pytest.approx(aucs, abs=1e-12)
    assert entry["value"] == pytest.approx(np.mean(aucs), abs=1e-12)
    assert entry["std"] == pytest.approx(abs(aucs[0] - aucs[1]) / np.sqrt(2), abs=1e-12)
    assert found["entries"][1]["auc"]["std"] is None
    # Half of the difference of the two: so is its error, and z and p are the same.
    test = found["differences"][0]["auc"]["delong"]
    difference, std_error, p = delong_by_definition(STRONG, WEAK)
    assert found["differences"][0]["auc"]["value"] == pytest.approx(difference / 2, abs=1e-12)
    assert (test["std_error"], test["p"]) == pytest.approx((std_error / 2, p), rel=1e-9)


def test_no_interval_and_no_values():
    few = paired_figures(LABELS, [[STRONG], [WEAK]], [[0.5], [0.5]], ["a", "b"] * (N // 2))
    assert few["differences"][0]["auc"]["ci"] is None and "fewer than 5 identities: 2" in few["no_interval"]
    assert few["winner"]["auc"] is None
    single = paired_figures([1, 1], [[[0.1, 0.2]], [[0.1, 0.3]]], [[0.5], [0.5]])
    assert single["undefined"] == "all 2 clips are fake" and single["differences"] == []


# -- files -----------------------------------------------------------------------------------------------------------


def test_values_are_those_of_each_report(files):
    found = compared(*files, n_resamples=0)
    rows = {(row["breakdown"], row["group"]): row for row in found["rows"]}
    assert set(rows) == {
        (None, "overall"),
        ("category", "FakeVideo-RealAudio"),
        ("generator", "faceswap"),
        ("generator", "wav2lip"),
        ("language", "en"),
        ("language", "ro"),
    }
    for place, file in enumerate(files):
        report = build_report(*read_predictions(file), n_resamples=0)
        assert report["threshold"] == pytest.approx(0.45) == found["coverage"][place]["threshold"]
        for (breakdown, group), row in rows.items():
            expected = report["overall"] if breakdown is None else report["groups"][breakdown][group]
            for metric, value in row["entries"][place].items():
                assert value["value"] == pytest.approx(expected[metric], abs=1e-12)


def test_coverage(files, tmp_path):
    scores = STRONG.tolist()
    scores[5] = None
    paths = [f"{number:02d}.mp4" for number in range(N)]
    paths[7] = "other.mp4"
    error = {"error": {"type": "MediaError", "message": "broken"}}
    third = write(tmp_path / "third.parquet", scores, paths, columns=error)
    found = compared(files[0], third)
    assert found["compared"] == N - 2 and found["left_out"] == ["05.mp4", "07.mp4", "other.mp4"]
    own, others = found["coverage"]
    assert (own["lacking"], own["without_score"]) == (["other.mp4"], [])
    assert (others["lacking"], others["without_score"]) == (["07.mp4"], ["05.mp4"])
    kept = [number for number in range(N) if number not in (5, 7)]
    auc = found["rows"][0]["entries"][0]["auc"]["value"]
    assert auc == pytest.approx(roc_auc_score(LABELS[kept], STRONG[kept]), abs=1e-12)


def test_what_cannot_be_compared(files, tmp_path):
    labels = LABELS.copy()
    labels[3] = 1 - labels[3]
    cases = {
        "relabelled": (write(tmp_path / "relabelled.parquet", WEAK, labels=labels), "labels of 1 clip .03.mp4."),
        "elsewhere": (write(tmp_path / "elsewhere.parquet", WEAK, [f"x{n}" for n in range(N)]), "No clip is scored"),
        "corpus": (write(tmp_path / "corpus.parquet", WEAK, dataset="fakeavceleb"), "different datasets"),
        "double": (write(tmp_path / "double.parquet", WEAK, ["00.mp4", *(f"{n:02d}.mp4" for n in range(N - 1))]),
                   "00.mp4. more than once"),
        "facts": (write(tmp_path / "facts.parquet", WEAK, model_threshold=None), "does not state model_threshold"),
    }  # fmt: skip
    for file, words in cases.values():
        with pytest.raises(ComparisonError, match=words):
            compared(files[0], file)
    with pytest.raises(ComparisonError, match="at least two"):
        compared(files[0])
    with pytest.raises(ComparisonError, match="a file twice"):
        read_entries([("a", [files[0], files[0]]), ("b", [files[1]])])
    with pytest.raises(ComparisonError, match="Two entries are called a"):
        read_entries([("a", [files[0]]), ("a", [files[1]])])


def test_command(files, tmp_path, capsys):
    strong, weak = files
    third = write(tmp_path / "third.parquet", drawn(5, 0.1).tolist()[:-1], labels=LABELS[:-1])
    folder = tmp_path / "out"
    words = [
        str(strong),
        "--entry",
        f"baseline={weak},{third}",
        "--output-dir",
        str(folder),
        "--resamples",
        "100",
    ]
    assert main(["compare", *words]) == 0
    printed = capsys.readouterr().out
    assert "strong and baseline on avfolder, split, test" in printed
    assert "Whole file: strong is best by AUC" in printed and "generator: wav2lip" in printed
    assert "47 clips of 48 are scored in all files." in printed and "lacks 1 clip." in printed
    report = json.loads((folder / "report.json").read_text())
    assert report["rows"][0]["winner"]["auc"] == 0 and len(report["coverage"]) == 3
    value = report["rows"][0]["entries"][1]["auc"]
    assert len(value["runs"]) == 2
    text = (folder / "report.md").read_text()
    assert f"{value['value']:.3f} ± {value['std']:.3f} [" in text and "plots/comparison.svg" in text
    assert "| language: ro |" in text and "## Whole file: who is better where" in text
    assert "47.mp4" in text and (folder / "left_out.txt").read_text() == f"47.mp4\tnot in {third}\n"
    assert "<svg" in (folder / "report.html").read_text()


def with_parts(file: Path, picture, sound, **columns) -> Path:
    """Write predictions whose picture is forged where the clip is fake, and whose sound every other time."""
    write(file, STRONG.tolist(), columns=columns)
    rows, about = read_predictions(file)
    for place, row in enumerate(rows[:N]):
        forged = place // 3 % 2 if row["label"] else 0
        row |= {"video_score": picture[place], "audio_score": sound[place], "audio_label": forged}
        row |= {"audio_generator": "tts" if forged else None}
    write_predictions(file, rows, about)
    return file


def test_picture_and_sound_are_compared_where_all_have_scores(tmp_path):
    """On the clips whose part every file has scored, with the part's labels, generators and threshold."""
    sounds = STRONG.tolist(), WEAK.tolist()
    faceless = [None, *WEAK.tolist()[1:]]
    files = [
        with_parts(tmp_path / "a.parquet", STRONG.tolist(), sounds[0]),
        with_parts(tmp_path / "b.parquet", faceless, sounds[1]),
    ]
    found = compared(*files)
    assert {part: of["compared"] for part, of in found["parts"].items()} == {"video": N - 1, "audio": N}
    picture, sound = found["parts"]["video"]["rows"], found["parts"]["audio"]["rows"]
    assert picture[0]["entries"][1]["auc"]["value"] == pytest.approx(
        roc_auc_score(LABELS[1:], WEAK[1:]), abs=1e-12
    )
    forged = LABELS * (np.arange(N) // 3 % 2)
    assert sound[0]["n_fake"] == forged.sum() < LABELS.sum()
    for place, scores in enumerate(sounds):
        entry = sound[0]["entries"][place]
        assert entry["auc"]["value"] == pytest.approx(roc_auc_score(forged, scores), abs=1e-12)
        # Picture and sound have no threshold of their own.
        called = np.array(scores) >= 0.5
        assert entry["balanced_accuracy"]["value"] == pytest.approx(
            balanced_accuracy_score(forged, called), abs=1e-12
        )
    assert [(row["breakdown"], row["group"]) for row in sound] == [
        (None, "overall"),
        ("generator", "tts"),
        ("language", "en"),
        ("language", "ro"),
    ]
    assert {row["group"] for row in picture if row["breakdown"] == "generator"} == {"faceswap", "wav2lip"}
    with_parts(tmp_path / "c.parquet", [None] * N, sounds[1])
    found = compared(files[0], tmp_path / "c.parquet")
    assert set(found["parts"]) == {"audio"}
    assert "Scores of the picture are not compared: c gave none." in found["notes"]


def test_command_with_wrong_files(files, tmp_path, capsys):
    (tmp_path / "text.parquet").write_text("no parquet")
    (tmp_path / "evaluation").mkdir()
    evaluation = write(tmp_path / "evaluation" / "predictions.parquet", WEAK.tolist())
    one = str(files[0])
    assert (
        main(
            [
                "compare",
                one,
                str(evaluation.parent),
                "--output-dir",
                str(tmp_path / "out"),
                "--resamples",
                "0",
            ]
        )
        == 0
    )
    capsys.readouterr()
    for words, said in (
        ([one], "at least two entries"),
        ([one, "--entry", "nameless"], "--entry is NAME=FILE"),
        ([one, str(tmp_path / "none.parquet")], "There is no file"),
        ([one, str(tmp_path / "text.parquet")], "no Parquet file"),
        ([one, str(files[1]), "--output-dir", str(evaluation.parent)], "folder of an evaluation"),
    ):
        assert main(["compare", *words]) == 2
        assert said in capsys.readouterr().err

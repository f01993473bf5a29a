"""The benchmark of real recordings: known answers on made tables, and the whole way on a drawn folder."""

from __future__ import annotations

import csv
import itertools
import json

import numpy as np
import pytest
import soundfile
from dataset_trees.wild import clip, write_table
from facevoice_factory import save_tiny
from media_factory import make_clip
from PIL import Image
from ssavd_factory import save_small

from dataset_scripts.run_lock import only_run_in
from modeling_avlmm.__main__ import main
from modeling_avlmm.evaluation import evaluate, measured_properties
from modeling_avlmm.evaluation.evaluation_error import EvaluationError
from modeling_avlmm.evaluation.measured_properties import (
    clip_properties,
    property_baseline,
    speech_properties,
)
from modeling_avlmm.evaluation.ranking import auc_of
from modeling_avlmm.evaluation.wild import matched_pairs
from modeling_avlmm.evaluation.wild.benchmark_tables import BASELINE, Detector, benchmark_tables, people_of
from modeling_avlmm.evaluation.wild.matched_pairs import match_pairs
from modeling_avlmm.evaluation.wild.outside_scores import read_scores
from modeling_avlmm.evaluation.wild.wild_pages import _cells, polarity_sentences
from modeling_avlmm.evaluation.wild.wild_run import WildOptions, run_wild

LIKE = {"width": 640, "height": 480, "fps": 25.0, "bitrate": 300_000.0, "duration": 6.0, "has_audio": 1.0}


# -- file properties and matched pairs -------------------------------------------------------------------------------


def test_measured_properties(tmp_path):
    path = make_clip(tmp_path / "a.mp4", 2.0, fps=20, size=(80, 64))
    found = clip_properties(str(path))
    assert (found["width"], found["height"], found["fps"], found["has_audio"]) == (80, 64, 20, 1)
    assert found["duration"] == pytest.approx(2.0, abs=0.1)
    assert found["bitrate"] == pytest.approx(8 * path.stat().st_size / found["duration"])
    assert clip_properties(str(make_clip(tmp_path / "b.mp4", 1.0, audio=False)))["has_audio"] == 0
    time = np.arange(16_000) / 16_000
    soundfile.write(tmp_path / "c.flac", 0.5 * np.sin(2 * np.pi * 1000 * time), 16_000)
    found = speech_properties(str(tmp_path / "c.flac"))
    assert found["loudness"] == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.05)
    assert found["peak"] == pytest.approx(20 * np.log10(0.5), abs=0.05)
    assert (found["duration"], found["audio_bandwidth"]) == (1.0, pytest.approx(1000, abs=150))
    assert speech_properties(str(tmp_path / "b.mp4"))["loudness"] is None


def records(*changes: dict) -> list[dict]:
    return [{**LIKE, **change} for change in changes]


@pytest.mark.parametrize(
    ("change", "paired"),
    [
        ({}, True),
        ({"width": 960}, True),
        ({"width": 961}, False),
        ({"height": 321}, True),
        ({"height": 319}, False),
        ({"bitrate": 600_000}, True),
        ({"bitrate": 149_000}, False),
        ({"duration": 12.1}, False),
        ({"fps": 23.976}, True),
        ({"fps": 30}, False),
        ({"has_audio": 0.0}, False),
        ({"width": None}, False),
    ],
)
def test_the_rule_of_pairs(change, paired):
    assert match_pairs(records({}, change), [0, 1], ["a", "b"]) == ([(1, 0)] if paired else [])


def test_pairs_are_the_best_assignment():
    generator = np.random.default_rng(0)
    widths = generator.integers(300, 700, 9).tolist()
    labels = [0, 1, 0, 1, 0, 1, 0, 1, 1]
    found = match_pairs(records(*({"width": w} for w in widths)), labels, [*"abcdefghi"])
    fakes, reals = [1, 3, 5, 7, 8], [0, 2, 4, 6]

    def worth(pairs) -> tuple[int, float]:
        apart = [abs(np.log(widths[f] / widths[r])) for f, r in pairs]
        return len(apart), -sum(apart)

    allowed = [
        [
            (f, r)
            for f, r in zip(chosen, reals, strict=True)
            if abs(np.log(widths[f] / widths[r])) <= np.log(1.5)
        ]
        for chosen in itertools.permutations(fakes, len(reals))
    ]
    best = max(allowed, key=worth)
    assert worth(found) == pytest.approx(worth(best))


def test_many_clips_are_drawn(monkeypatch):
    monkeypatch.setattr(matched_pairs, "MOST_CLIPS", 3)
    pairs = match_pairs(records(*[{}] * 20), [0, 1] * 10, [f"{i:02}.mp4" for i in range(20)])
    assert len(pairs) == 3
    assert match_pairs([], [], []) == []


def test_properties_alone():
    generator = np.random.default_rng(0)
    labels = np.array([0, 1] * 40)
    people = [f"p{number // 4}" for number in range(80)]
    telling = [{**LIKE, "fps": 25.0 + 5 * label} for label in labels]
    found = property_baseline(telling, labels, people)
    assert auc_of(labels, found["scores"]) == max(found["auc"].values()) == 1.0
    blind = [{**LIKE, "width": float(width)} for width in generator.integers(300, 700, 80)]
    assert auc_of(labels, property_baseline(blind, labels, people)["scores"]) == pytest.approx(0.5, abs=0.17)
    few = property_baseline(telling[:12], labels[:12], people[:12])
    assert few["scores"] is None and "6 real clips" in few["undefined"]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(measured_properties, "FOLD_DRAWS", 1)
    monkeypatch.setattr(measured_properties, "MODELS", ("logistic regression",))


# -- tables ----------------------------------------------------------------------------------------------------------


def row(path: str, label: int, identity: str | None, **more) -> dict:
    return {
        "path": path,
        "label": label,
        "identity": identity,
        "video_label": label,
        "audio_label": None,
        **more,
    }


def made() -> tuple[list[dict], dict]:
    """Return 24 genuine clips and 24 fakes; twelve people have one of each. Every other fake is from a place of its own."""
    rows, properties = [], {}
    for number in range(24):
        rows.append(row(f"r{number}", 0, f"p{number}", family="real", generator="real"))
        family = "lip sync" if number % 2 else "face swap"
        who = f"p{number}" if number < 12 else f"q{number}"
        rows.append(row(f"f{number}", 1, who, family=family, generator=f"tool {number % 4}"))
        properties[f"r{number}"] = dict(LIKE)
        # Half of the fakes have a frame rate of their own.
        properties[f"f{number}"] = {**LIKE, "fps": 25.0 if number % 2 else 16.0}
    return rows, properties


def detector(rows: list[dict], score_of, name: str = "made", **options) -> Detector:
    scores = {
        r["path"]: {"score": score_of(r), "video_score": score_of(r), "audio_score": None} for r in rows
    }
    return Detector(name, scores, **options)


def by_name(found: dict) -> dict[str, dict]:
    return {f"{t['title']}: {r['name']}": r for t in found["tables"] for r in t["rows"]}


def auc(found: dict, name: str, column: str = "made") -> float:
    return by_name(found)[name]["columns"][column]["auc"]


def test_tables_of_a_detector_that_knows_the_place():
    rows, properties = made()
    knows = detector(rows, lambda r: float(properties[r["path"]]["fps"] == 16.0))
    found = benchmark_tables(rows, [knows], properties, n_resamples=50)
    # All odd fakes tie with every genuine clip.
    assert auc(found, "Whole recording: all against all") == pytest.approx(0.75)
    assert auc(found, "Whole recording: within one person (12 people)") == pytest.approx(0.75)
    matched = by_name(found)["Whole recording: matched files (12 pairs)"]
    assert (matched["n_real"], matched["n_fake"]) == (12, 12)
    assert matched["columns"]["made"]["auc"] == 0.5
    assert matched["columns"][BASELINE]["auc"] == pytest.approx(0.5, abs=0.2)
    assert 0.6 < auc(found, "Whole recording: all against all", BASELINE) <= 0.75
    assert auc(found, "By family: lip sync") == 0.5 and auc(found, "By family: face swap") == 1.0
    assert auc(found, "By family: face swap, within one person (6 people)") == 1.0
    assert auc(found, "By generator: tool 2") == 1.0
    assert by_name(found)["By generator: tool 2"]["n_fake"] == 6
    # Every fake of a pair has the genuine clips' frame rate.
    assert all(properties[fake]["fps"] == 25.0 for fake, _ in found["pairs"])
    assert found["dropped"] == []


@pytest.mark.usefixtures("quick")
def test_tables_of_a_detector_that_knows_the_person():
    rows, properties = made()
    knows = detector(rows, lambda r: 1.0 if r["identity"].startswith("q") else 0.0)
    found = benchmark_tables(rows, [knows], properties, n_resamples=0)
    assert auc(found, "Whole recording: all against all") == pytest.approx((12 + 12 * 0.5) / 24)
    assert auc(found, "Whole recording: within one person (12 people)") == 0.5
    assert by_name(found)["Whole recording: all against all"]["columns"]["made"]["ci"] is None


@pytest.mark.usefixtures("quick")
def test_columns_are_of_the_same_files():
    rows, properties = made()
    first = detector(rows, lambda r: float(r["label"]), "first")
    second = detector(rows, lambda r: 0.5, "second", reasons={"r3": "unreadable"})
    second.scores["r3"] = dict.fromkeys(second.scores["r3"])
    del properties["f4"]
    del first.scores["f5"]
    found = benchmark_tables(rows, [first, second], properties, n_resamples=0)
    whole = by_name(found)["Whole recording: all against all"]
    assert (whole["n_real"], whole["n_fake"]) == (23, 22)
    assert [whole["columns"][name]["auc"] for name in ("first", "second")] == [1.0, 0.5]
    assert found["dropped"] == [
        {"path": "r3", "detector": "second", "reason": "unreadable"},
        {"path": "f4", "detector": BASELINE, "reason": "its properties could not be measured"},
        {"path": "f5", "detector": "first", "reason": "no score"},
    ]


@pytest.mark.usefixtures("quick")
def test_picture_and_sound_are_judged_apart():
    rows, properties = made()
    for number, entry in enumerate(rows):
        entry["audio_label"] = [0, 1, None][number % 3]
        if entry["audio_label"]:
            entry["label"] = 1
    made_up = detector(rows, lambda r: float(r["label"]))
    for entry in rows:
        scores = made_up.scores[entry["path"]]
        scores["audio_score"] = None if entry["path"] == "r0" else 1.0 - (entry["audio_label"] or 0)
    silent = detector(rows, lambda r: 0.5, "silent")
    found = benchmark_tables(rows, [made_up, silent], properties, n_resamples=0)
    sound = next(table for table in found["tables"] if table["part"] == "audio")
    assert sound["rows"][0]["columns"]["made"]["auc"] == 0.0 and "silent" not in sound["rows"][0]["columns"]
    assert (sound["rows"][0]["n_real"], sound["rows"][0]["n_fake"]) == (15, 16)
    assert sound["notes"] == [
        "17 files without a known label or a score of the sound are left out here.",
        "No scores of the sound: silent.",
    ]


@pytest.mark.usefixtures("quick")
def test_verdicts_at_the_detectors_own_threshold():
    rows, properties = made()
    place = {r["path"]: number for number, r in enumerate(rows)}
    made_up = detector(rows, lambda r: place[r["path"]] / 48, threshold=0.5, abstain_band=(0.25, 0.75))
    found = benchmark_tables(rows, [made_up], properties, n_resamples=100)["verdicts"][0]
    assert found["real"]["called_fake"]["share"] == 0.5 and found["real"]["called_fake"]["n"] == 24
    # 12/48 to 36/48, ends included.
    assert found["real"]["uncertain"]["share"] == 13 / 24 and found["fake"]["uncertain"]["share"] == 0.5
    assert found["real"]["called_fake_for_sure"]["share"] == 5 / 24
    low, high = found["real"]["called_fake"]["ci"]
    assert 0.2 < low < 0.5 < high < 0.8


def test_people():
    rows = [
        row("a", 0, "ann"),
        row("b", 1, None, source="a"),
        row("c", 1, None),
        row("d", 0, "bob", pair_id="x"),
        row("e", 1, None, pair_id="x"),
        row("f", 1, None, pair_id="y"),
        row("g", 0, None, pair_id="y"),
    ]
    assert people_of(rows) == [
        *["identity ann"] * 2,
        "clip c",
        *["identity bob"] * 2,
        *["pair y"] * 2,
    ]


@pytest.mark.usefixtures("quick")
def test_tables_of_speech():
    rows, properties = [], {}
    sound = {"audio_bandwidth": 8000.0, "loudness": -20.0, "peak": -3.0, "duration": 4.0}
    for number in range(12):
        for system in ("genuine", "old", "old", "new"):
            path = f"{len(rows)}"
            kind = {"genuine": "genuine", "old": "vocoder", "new": "tts"}[system]
            about = {"system": system, "kind": kind, "pair_id": f"s{number}"}
            rows.append(row(path, int(system != "genuine"), f"p{number}", **about))
            properties[path] = {**sound, "duration": 4.0 + number}
    for entry in rows:
        entry["video_label"], entry["audio_label"] = None, entry["label"]
    scores = {"genuine": 0.5, "old": 0.9, "new": 0.5}
    found = benchmark_tables(
        rows, [detector(rows, lambda r: scores[r["system"]])], properties, "speech", n_resamples=20
    )
    assert auc(found, "Whole recording: all against all") == pytest.approx((2 * 1.0 + 0.5) / 3)
    assert auc(found, "Whole recording: mean over systems") == 0.75
    assert auc(found, "Whole recording: within one sentence (12 sentences)") == pytest.approx(2.5 / 3)
    assert auc(found, "Whole recording: within one speaker (12 speakers)") == pytest.approx(2.5 / 3)
    assert auc(found, "By kind: vocoder") == 1.0 and auc(found, "By kind: tts") == 0.5
    assert auc(found, "By system: old, within one sentence (12 sentences)") == 1.0
    assert found["pairs"] == []


# -- scores from outside ---------------------------------------------------------------------------------------------


def test_scores_from_outside(tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("path,score,audio_score\nclips/a.mp4,-2.5,\nb.mp4,,0.25\nother.mp4,1,\n")
    found, strangers = read_scores(table, ["clips/a.mp4", "clips/b.mp4", "x/c.mp4", "y/c.mp4"])
    assert found == {
        "mine": {
            "clips/a.mp4": {"score": -2.5, "video_score": None, "audio_score": None},
            "clips/b.mp4": {"score": None, "video_score": None, "audio_score": 0.25},
        }
    }
    assert [entry["path"] for entry in strangers] == ["other.mp4"]
    table.write_text("detector,file_name,score\none,a.mp4,1\ntwo,a.mp4,2\n")
    assert set(read_scores(table, ["clips/a.mp4"])[0]) == {"one", "two"}


def test_scores_that_may_be_turned_are_pointed_out():
    columns = {"theirs": {"auc": 0.1}, "ours": {"auc": 0.1}, "good": {"auc": 0.9}, "none": {"auc": None}}
    detectors = {"theirs": {"scores": "a.csv"}, "ours": {"model": "m"}, "good": {"scores": "b.csv"}}
    report = {"tables": [{"rows": [{"columns": columns}]}], "detectors": detectors}
    (sentence,) = polarity_sentences(report)
    assert sentence.startswith("theirs: an AUC of 0.10 is far below 0.5.")
    assert polarity_sentences({"tables": [], "detectors": detectors}) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip,score\na.mp4,1\n", "has no column 'path'; it has clip, score"),
        ("path,scores\na.mp4,1\n", r"has no column 'score'; it has path, scores\. Did you mean 'scores'\?"),
        ("path,score\na.mp4,high\n", "line 2, column score: 'high' is no finite number"),
        ("path,score\na.mp4,nan\n", "'nan' is no finite number"),
        ("path,score\na.mp4,1\nclips/a.mp4,1\n", r"line 3: clips/a\.mp4 has a score already"),
        ("path,score\nz.mp4,1\n", r"names no file of the benchmark \(such as z\.mp4"),
        ("path,score\nc.mp4,1\n", "names no file of the benchmark"),
    ],
)
def test_wrong_scores(tmp_path, text, message):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(EvaluationError, match=message):
        read_scores(tmp_path / "s.csv", ["clips/a.mp4", "x/c.mp4", "y/c.mp4"])
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_scores(tmp_path / "none.csv", ["a"])


# -- the whole way ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with twelve genuine clips and twelve fakes of as many people, one file broken and one not there."""
    root = tmp_path_factory.mktemp("wild") / "drawn"
    rows = []
    for number in range(24):
        name, label = f"clips/{number:02}.mp4", ("real", "fake")[number % 2]
        family = ("lip sync", "face swap")[number // 2 % 2] if label == "fake" else "real"
        about = {"identity": f"p{number // 2}", "family": family, "generator": family, "split": "test"}
        rows.append(clip(name, label, **about))
        (root / "clips").mkdir(parents=True, exist_ok=True)
        size = (64, 64 + 2 * (number // 2))
        make_clip(root / name, 1.0, size=size, click_at=None if number % 3 else 0.5)
    rows += [clip(f"clips/{name}.mp4", "fake", "test") for name in ("broken", "gone")]
    (root / "clips" / "broken.mp4").write_bytes(b"no video at all, whatever its name says" * 40)
    write_table(root / "clips.csv", rows)
    return root


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return save_small(tmp_path_factory.mktemp("detector") / "small")


def read_csv(path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("quick")
@pytest.mark.filterwarnings("ignore::dataset_scripts.errors.CorpusWarning")
def test_the_whole_way(folder, small, tmp_path, dataset_cache, monkeypatch, capsys):
    out = tmp_path / "out"
    words = [
        "wild",
        "--data-dir",
        str(folder),
        "--output-dir",
        str(out),
        "--device",
        "cpu",
        "--resamples",
        "50",
    ]
    assert main([*words, "--model", str(small)]) == 0
    said = capsys.readouterr().out
    assert "Real recordings: drawn, clips, test\n25 files: 12 genuine, 13 fake; 12 people." in said
    assert "In no figure: 2 files; dropped.csv has each with its reason." in said
    report = json.loads((out / "report.json").read_text())
    assert {entry["path"]: entry["detector"] for entry in read_csv(out / "dropped.csv")} == {
        "clips/broken.mp4": small_name(report),
        "clips/gone.mp4": "",
    }
    lines = [line for line in read_csv(out / "predictions.csv") if line["score"]]
    labels = [int(line["label"]) for line in lines]
    assert len(lines) == 24
    whole = json.loads((out / "report.json").read_text())["tables"][0]["rows"]
    name = small_name(report)
    assert whole[0]["columns"][name]["auc"] == pytest.approx(
        auc_of(labels, [float(x["score"]) for x in lines])
    )
    assert whole[0]["columns"][BASELINE]["auc"] == pytest.approx(
        auc_of(labels, [float(line["file_properties"]) for line in lines])
    )
    wins = [
        (lambda fake, real: 1.0 if fake > real else 0.5 if fake == real else 0.0)(
            float(lines[i + 1]["score"]), float(lines[i]["score"])
        )
        for i in range(0, 24, 2)
    ]
    assert whole[1]["name"] == "within one person (12 people)"
    assert whole[1]["columns"][name]["auc"] == pytest.approx(np.mean(wins))
    page = (out / "report.md").read_text()
    assert (out / "plots" / "auc.svg").is_file() and "(plots/auc.svg)" in page
    assert "## By family" in page and "`clips/broken.mp4`: " in page and (out / "report.html").is_file()

    # A leaderboard of what the run left, without its footage, has the same figures.
    assert main(["leaderboard", str(out), "--output-dir", str(tmp_path / "board"), "--resamples", "50"]) == 0
    (table,) = json.loads((tmp_path / "board" / "report.json").read_text())["tables"]
    (row,) = table["rows"]
    assert (row["rank"], row["scored"], table["clips"]) == (1, 24, 25)
    for shown, found in (
        (whole[0], (row["auc"], row["baseline"]["auc"])),
        (whole[1], row["within"].values()),
    ):
        for column, value in zip((name, BASELINE), [f for f in found if isinstance(f, dict)], strict=True):
            assert value["value"] == pytest.approx(shown["columns"][column]["auc"], abs=1e-12)
            assert value["ci"] == pytest.approx(shown["columns"][column]["ci"], abs=1e-12)
    assert row["matched"]["detector"]["value"] == pytest.approx(whole[2]["columns"][name]["auc"], abs=1e-12)

    # Started again, nothing is scored; and the table of predictions gives the same figures.
    monkeypatch.setattr(
        evaluate,
        "predict",
        lambda *_, done, **__: pytest.fail("scored") if not done else [done[path] for path in done],
    )
    again = tmp_path / "again"
    words[words.index(str(out))] = str(again)
    assert main([*words, "--scores", str(out / "predictions.csv")]) == 0
    other = json.loads((again / "report.json").read_text())
    assert other["tables"] == json.loads((out / "report.json").read_text())["tables"]
    assert other["verdicts"] == [] and report["verdicts"][0]["threshold"] == 0.5


def small_name(report: dict) -> str:
    (name,) = report["detectors"]
    return name


@pytest.mark.usefixtures("quick")
@pytest.mark.filterwarnings("ignore::dataset_scripts.errors.CorpusWarning")
def test_wrong_usage(folder, tmp_path, dataset_cache, capsys):
    scores = tmp_path / "s.csv"
    scores.write_text("path,score\n" + "".join(f"{number:02}.mp4,{number}\n" for number in range(24)))
    words = ["wild", "--scores", str(scores), "--output-dir", str(tmp_path / "out"), "--resamples", "0"]
    for more, message in (
        (
            ["--data-dir", str(tmp_path / "none")],
            "does not exist. Looked for a folder with one of the tables",
        ),
        (
            ["--data-dir", str(folder), "--protocol", "speech"],
            "has no speech.csv, which the protocol speech reads",
        ),
        (["--data-dir", str(folder), "--split", "dev"], "wild/clips has no split 'dev'; it has test"),
        (["--data-dir", str(folder), "--scores", str(scores)], "Two detectors are named s"),
    ):
        assert main([*words, *more]) == 2
        assert message in capsys.readouterr().err
    with only_run_in(tmp_path / "out"):
        assert main([*words, "--data-dir", str(folder)]) == 2
    assert "out is in use by process" in capsys.readouterr().err
    with pytest.raises(EvaluationError, match="Give a detector"):
        WildOptions(data_dir=folder)
    report, _ = run_wild(
        WildOptions(data_dir=folder, scores=[scores], output_dir=tmp_path / "out", n_resamples=0)
    )
    assert report["tables"][0]["rows"][0]["columns"]["s"]["auc"] == pytest.approx(78 / 144)


def test_names_of_a_table_cannot_move_the_cursor_or_break_a_page():
    row = {"name": "lip sync\x1b[2J\n# Title", "n_real": 1, "n_fake": 2, "columns": {}}
    assert _cells({"title": "By family", "rows": [row]})[1] == ["lip sync\\x1b[2J\\n# Title", "1", "2"]


def test_clips_without_a_face_are_told(tmp_path, dataset_cache, capsys):
    pytest.importorskip("cv2")
    root = tmp_path / "blank"
    rows = [clip(f"{number}.mp4", ("real", "fake")[number % 2], "test") for number in range(4)]
    write_table(root / "clips.csv", rows)
    for number in range(4):
        make_clip(root / f"{number}.mp4", 1.0, audio=number < 3)
    model = save_tiny(tmp_path / "tiny")
    words = ["--output-dir", str(tmp_path / "out"), "--model", str(model), "--device", "cpu"]
    assert main(["wild", "--data-dir", str(root), *words]) == 0
    said = capsys.readouterr().out
    name = f"{tmp_path.name}/tiny"
    assert f"{name} found no face in 4 files: their picture has no score." in said
    (silent,) = read_csv(tmp_path / "out" / "dropped.csv")
    assert silent["path"] == "3.mp4" and "no face" in silent["reason"]


def test_photographs_have_false_alarms_only(tmp_path, small, dataset_cache, capsys):
    root = tmp_path / "faces"
    (root / "photos").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (64, 64), (80 * number, 90, 100)).save(root / f"photos/{number}.png")
    write_table(root / "photos.csv", [{"file_name": f"photos/{number}.png"} for number in range(3)])
    words = ["--output-dir", str(tmp_path / "out"), "--model", str(small), "--device", "cpu"]
    assert main(["wild", "--data-dir", str(root), *words]) == 0
    said = capsys.readouterr().out
    assert "There are no fakes with scores, so there is nothing to rank." in said
    assert "of 3 genuine files" in said and "no fake files" in said

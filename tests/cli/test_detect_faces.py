"""`python -m modeling_avlmm detect` with a detector for faces: a line for each person, CSV, `--faces`, resuming."""

from __future__ import annotations

import csv
import io
import json

import pytest
from face_factory import LEFT, RIGHT, face_clip
from ssavd_factory import save_small
from transformers import pipeline

from modeling_avlmm import SSAVDProcessor
from modeling_avlmm.__main__ import main
from modeling_avlmm.cli.detect import output
from modeling_avlmm.explain.words import headline, score_sentence
from modeling_avlmm.inference.credentials import with_credentials

TASK = "av-deepfake-detection"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = save_small(tmp_path_factory.mktemp("faces") / "model")
    processor = SSAVDProcessor.from_pretrained(folder)
    processor.faces = "all"
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("clips")
    face_clip(place / "two.mp4", [LEFT, RIGHT], seconds=4, size=(640, 360))
    face_clip(place / "mute.mp4", [], sound=False, seconds=2)
    return place


def detect(capsys, model, *words) -> tuple[int, str, str]:
    status = main(["detect", *map(str, words), "--model", str(model), "--device", "cpu"])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_a_line_for_each_person(model, folder, capsys):
    status, out, _ = detect(capsys, model, folder)
    assert status == 1  # one has nothing to score
    lines = out.splitlines()
    (mute,) = [line for line in lines if "mute.mp4  " in line]
    assert " no verdict " in mute
    assert "there is nothing to score" in out and "no face was found in the picture" in out
    people = [line for line in lines if line.startswith("  person ")]
    assert len(people) == 2 and {"(left)", "(right)"} == {line.split()[2].rstrip(",") for line in people}
    assert all(", 0:00.0 to 0:0" in line and "called fake, " in line for line in people)
    assert sum("a listener's lips" in line for line in lines) == 1


def test_csv_and_json(model, folder, capsys):
    _, out, _ = detect(capsys, model, folder, "--csv", "-")
    mute, two = csv.DictReader(io.StringIO(out))
    _, out, _ = detect(capsys, model, folder, "--json")
    results = {line["file"]: line for line in map(json.loads, out.splitlines())}
    worst = max(results[two["file"]]["faces"], key=lambda face: (face["score"], face["video_score"]))
    assert (two["faces"], mute["faces"]) == ("2", "0")
    assert float(two["highest_face_start"]) == worst["start"] == 0.0
    assert (
        float(two["highest_face_end"]) == worst["end"]
        and float(two["highest_face_score"]) == worst["video_score"]
    )
    assert mute["highest_face_start"] == mute["highest_face_score"] == mute["label"] == ""
    assert "there is nothing to score" in mute["error"]


def test_faces_can_be_switched(model, folder, capsys):
    clip = folder / "two.mp4"
    direct = pipeline(TASK, model=str(model), device="cpu")
    for faces, count in (("off", None), ("largest", 2), ("all", 2)):
        _, out, _ = detect(capsys, model, clip, "--json", "--faces", faces)
        result = json.loads(out)
        expected = with_credentials(str(clip), direct(str(clip), faces=faces))
        assert result == {"file": str(clip), **expected}
        assert (result["faces"] is None) if count is None else (len(result["faces"]) == count)
    _, out, _ = detect(capsys, model, clip, "--faces", "off")
    assert "person" not in out
    with pytest.raises(SystemExit):
        main(["detect", str(clip), "--faces", "some"])


def test_a_run_resumes_and_another_look_is_refused(model, folder, tmp_path, capsys):
    journal, clip = tmp_path / "j.jsonl", folder / "two.mp4"
    first = detect(capsys, model, clip, "--resume", journal)
    again = detect(capsys, model, clip, "--resume", journal)
    assert first[:2] == again[:2] and "person 2" in again[1]
    status, _, err = detect(capsys, model, clip, "--resume", journal, "--faces", "off")
    assert status == 2 and "settings.faces: none then, off now" in err


def test_many_people_are_counted(monkeypatch):
    monkeypatch.setattr(output, "MOST_PEOPLE", 1)
    box = {"time": 0.0, "box": [0.1, 0.1, 0.2, 0.2]}
    faces = [
        {
            "index": n,
            "start": 2.0 * n,
            "end": 2 * n + 1.0,
            "video_score": score,
            "score": score,
            "windows": [],
            "boxes": [box],
        }
        for n, score in enumerate((0.2, 0.9, None))
    ]
    result = {"faces": faces, "threshold": 0.5, "audio_score": None, "has_video": True}
    first, rest = output.people_lines(result)
    assert (
        first == "person 2, 0:02.0 to 0:03.0: called fake, 0.90"
        and rest == "and 2 faces with lower scores or none"
    )
    assert list(output.people_lines({**result, "faces": faces[:1]})) == []
    assert list(output.people_lines({**result, "faces": None})) == []


def test_a_file_without_anything_to_score_was_read():
    result = {
        "label": None,
        "error": {"type": "NoVerdictError", "message": "x.mp4: there is nothing to score"},
    }
    assert headline(result) == "No verdict"
    assert score_sentence(result, None) == "There is no verdict: x.mp4: there is nothing to score."
    result["error"]["type"] = "UnreadableMediaError"
    assert headline(result) == "Could not be read"


def test_without_the_face_finder_the_command_names_the_remedy(model, folder, capsys, monkeypatch):
    monkeypatch.setattr("modeling_avlmm.face_finder.importlib.util.find_spec", lambda name: None)
    status, _, err = detect(capsys, model, folder / "two.mp4")
    assert status == 2 and "pip install" in err

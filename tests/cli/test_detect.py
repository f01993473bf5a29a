"""`python -m modeling_avlmm detect`: its input, its output, resuming, and exit statuses."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import socket
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from media_factory import make_clip, remux
from ssavd_factory import SMALL, stir
from transformers import pipeline

from dataset_scripts.text_files import printable
from modeling_avlmm import SSAVDConfig, SSAVDForDeepfakeDetection, SSAVDProcessor
from modeling_avlmm.__main__ import main
from modeling_avlmm.cli.detect import output
from modeling_avlmm.cli.detect.detection_run import DetectionRun
from modeling_avlmm.cli.detect.inputs import columns, survey, walk
from modeling_avlmm.cli.detect.overview import Overview
from modeling_avlmm.cli.detect.resume import Journal, JournalError
from modeling_avlmm.inference.credentials import with_credentials

TASK = "av-deepfake-detection"


def save_small(folder: Path, seed: int = 0, **options) -> Path:
    torch.manual_seed(seed)
    config = SSAVDConfig(**SMALL, **options)
    model = SSAVDForDeepfakeDetection(config)
    stir(model)
    model.save_pretrained(folder)
    SSAVDProcessor.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A small detector with windows of 2 s."""
    return save_small(tmp_path_factory.mktemp("small"), abstain_band=[0.0, 1.0])


@pytest.fixture
def folder(tmp_path, clips) -> Path:
    """Three clips, one broken clip and three files that are not media, in three folders."""
    place = tmp_path / "folder"
    for name, clip in (
        ("b.mp4", "clip"),
        ("a/one.MP4", "short"),
        ("a/two.wav", "sound"),
        ("c/broken.mp4", "broken"),
    ):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clips[clip], place / name)
    for name in ("notes.txt", "a/._one.mp4", "README"):
        (place / name).write_bytes(b"nothing")
    return place


ORDER = ("b.mp4", "a/one.MP4", "a/two.wav", "c/broken.mp4")


def detect(capsys, model: Path, *words: str | Path) -> tuple[int, list[dict], str]:
    """Run the command with `--json`; return its status, its results and the text on stderr."""
    status = main(["detect", *map(str, words), "--model", str(model), "--device", "cpu", "--json"])
    printed = capsys.readouterr()
    return status, [json.loads(line) for line in printed.out.splitlines()], printed.err


# -- input ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_walked_in_order(folder):
    expected = [os.path.join(folder, name) for name in ORDER]
    assert list(walk([str(folder)])) == expected
    found = survey([str(folder), "https://example.org/x"])
    assert (found.files, found.folders, found.others) == (5, 1, {".txt": 1, "._*": 1, "no ending": 1})
    assert found.width == max(map(len, expected))
    assert len(list(walk([str(folder)], all_files=True))) == 7
    # A file that is given by name is taken, whatever its ending.
    assert list(walk([str(folder / "notes.txt")])) == [str(folder / "notes.txt")]


def test_names_that_would_garble_a_terminal_are_escaped():
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert printable(os.fsdecode(b"caf\xe9.mp4")) == "caf\\udce9.mp4"
    assert printable("中文.mp4") == "中文.mp4"


def test_results_of_a_folder_are_those_of_the_pipeline(small, folder, capsys):
    status, results, err = detect(capsys, small, folder)
    assert status == 1  # one is no video
    files = [str(folder / name) for name in ORDER]
    direct = pipeline(TASK, model=str(small), device="cpu")(files, abstain=True)
    expected = [with_credentials(file, result) for file, result in zip(files, direct, strict=True)]
    assert results == [{"file": file, **result} for file, result in zip(files, expected, strict=True)]
    assert "4 files to look at; 3 others left out" in err
    (folder / "c" / "broken.mp4").unlink()
    assert detect(capsys, small, folder)[0] == 0


def test_nothing_to_look_at_is_wrong_use(small, tmp_path, capsys):
    assert detect(capsys, small, tmp_path)[0] == 2
    for words, text in (
        (["--json", "--csv", "-"], "standard output"),
        (["--report", str(tmp_path / "no" / "r.html")], "there is no folder"),
        (["--csv", str(tmp_path)], "name a file"),
        (["--attribute"], "--case FOLDER"),
        (["--csv", "x.mp4"], "one of the files"),
        (["--gate-band", "0.1", "0.9"], "--gate MODEL"),
    ):
        assert main(["detect", "x.mp4", *words]) == 2
        assert text in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["detect", "x.mp4", "--batch-size", "0"])
    assert stop.value.code == 2 and "at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--private-links", "--no-private-links"])
def test_links_into_the_own_network_can_be_refused(small, capsys, word):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        link = f"http://127.0.0.1:{listener.getsockname()[1]}/a.mp4"
        thread = threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True)
        thread.start()
        status, (result,), _ = detect(capsys, small, link, word)
        thread.join()
    refused = "leads to 127.0.0.1, which is not a public address" in result["error"]["message"]
    assert status == 1 and refused == (word == "--no-private-links")


# -- output ----------------------------------------------------------------------------------------------------------


def test_detect_prints_a_table(tiny_detector, clips, capsys):
    files = [str(clips["clip"]), str(clips["long"])]
    assert main(["detect", *files, "--model", str(tiny_detector), "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["file", "verdict", "score", "picture", "sound", "seconds"]
    assert lines[1].split()[0] == files[0] and lines[1].split()[1] in ("real", "fake")
    assert lines[2].split()[0] == files[1]
    assert [line.split()[0] for line in lines[3:6]] == ["0.0", "4.0", "8.0"]

    assert main(["detect", str(clips["broken"]), "--model", str(tiny_detector), "--device", "cpu"]) == 1
    out = capsys.readouterr().out
    assert "unreadable" in out and "broken.mp4: " in out


def test_detect_options_reach_the_pipeline(tiny_detector, clips, capsys):
    words = [clips["long"], "--threshold", "1", "--window-seconds", "2", "--hop-seconds", "4"]
    status, (result,), _ = detect(capsys, tiny_detector, *words, "--aggregate", "max", "--batch-size", "3")
    assert status == 0
    assert result["threshold"] == 1.0 and result["label"] == "real"
    assert [window["start"] for window in result["windows"]][:2] == [0.0, 4.0]
    assert result["score"] == pytest.approx(max(window["score"] for window in result["windows"]))


def test_abstaining_is_on_where_the_detector_has_a_band(small, clips, tmp_path, capsys):
    for words, labels in (
        ((), {"uncertain"}),
        (("--abstain",), {"uncertain"}),
        (("--no-abstain",), {"real", "fake"}),
    ):
        _, (result,), _ = detect(capsys, small, clips["short"], *words)
        assert result["label"] in labels
    without = save_small(tmp_path / "without")
    _, (result,), _ = detect(capsys, without, clips["short"])
    assert result["label"] in ("real", "fake")
    status, _, err = detect(capsys, without, clips["short"], "--abstain")
    assert status == 2 and "needs a detector with an abstain_band" in err


def test_the_default_model_comes_from_the_environment(small, clips, capsys, monkeypatch):
    monkeypatch.setenv("AVLMM_DEFAULT_MODEL", str(small))
    assert main(["detect", str(clips["short"]), "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["error"] is None


def test_csv_has_what_json_has(small, folder, clips, tmp_path, capsys):
    words = ["detect", str(folder), str(clips["long"]), "--model", str(small), "--device", "cpu"]
    assert main([*words, "--csv", "-"]) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    _, results, _ = detect(capsys, small, folder, clips["long"], "--csv", tmp_path / "out.csv")
    assert list(csv.DictReader((tmp_path / "out.csv").read_text("utf-8").splitlines())) == rows
    assert [row["file"] for row in rows] == [result["file"] for result in results]
    for row, result in zip(rows, results, strict=True):
        assert row["label"] == (result["label"] or "")
        assert row["audio_score"] == ("" if result["audio_score"] is None else str(result["audio_score"]))
        assert row["error"] == (result["error"]["message"] if result["error"] else "")
    highest = max(results[-1]["windows"], key=lambda window: window["score"])
    assert float(rows[-1]["highest_window_start"]) == highest["start"]
    assert int(rows[-1]["windows"]) == len(results[-1]["windows"]) == 5


def test_no_cell_is_a_formula(small, clips, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(clips["short"], "=1+1.mp4")
    Path("@broken.mp4").write_bytes(b"nothing")
    main(["detect", "=1+1.mp4", "@broken.mp4", "--model", str(small), "--device", "cpu", "--csv", "-"])
    first, second = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert first["file"] == "'=1+1.mp4" and 0 <= float(first["score"]) <= 1
    assert second["file"] == "'@broken.mp4" and second["error"].startswith("'@broken.mp4: ")
    stream = io.StringIO()
    cells = output.ResultCSV(stream, gated=False)
    result = dict.fromkeys(output.CSV_COLUMNS)
    cells.add("a", {**result, "windows": [], "score": -0.5, "warnings": ["-2+3", "x"]})
    (row,) = csv.DictReader(io.StringIO(stream.getvalue()))
    assert (row["file"], row["score"], row["warnings"]) == ("a", "-0.5", "'-2+3; x")


def test_columns_of_wide_names_are_in_line():
    names = {"中文.mp4": 8, "e\u0301.mp4": 5, "\u1112\u1161\u11ab.mp4": 6, "\uff57": 2, "plain": 5}
    assert {name: columns(name) for name in names} == names
    lines = []
    table = output.ResultTable(lines.append, max(names.values()), gated=False)
    for name in names:
        result = {"label": "real", "score": 0.5, "video_score": 0.5, "audio_score": None, "duration": 1.0}
        table.add(name, {**result, "windows": [], "warnings": [], "error": None})
    assert {columns(line) for line in lines} == {columns(lines[0])}
    assert {columns(line[: line.index("real")]) for line in lines[1:]} == {10}


def test_a_very_long_name_does_not_widen_every_line():
    lines = []
    table = output.ResultTable(lines.append, 850, gated=False)
    result = {"label": "real", "score": 0.5, "video_score": 0.5, "audio_score": None, "duration": 1.0}
    for name in ("a" * 850, "b"):
        table.add(name, {**result, "windows": [], "warnings": [], "error": None})
    assert lines[1].startswith("a" * 850 + "  real") and len(lines[2]) == len(lines[0]) < 120


def test_progress_goes_to_stderr(small, folder, capsys, monkeypatch):
    monkeypatch.setattr(output, "EVERY", 2)
    _, results, err = detect(capsys, small, folder)
    assert len(results) == 4
    assert re.findall(r"(\d/\d) files, [\d.]+ files/s, ETA \d+:\d\d:\d\d", err) == ["2/4", "4/4"]
    _, _, err = detect(capsys, small, folder / "b.mp4")
    assert "files/s" not in err


# -- the page --------------------------------------------------------------------------------------------------------


def test_the_page_holds_every_file(small, folder, clips, tmp_path, capsys):
    evil = folder / "a" / "<img src=x>.mp4"
    shutil.copy(clips["long"], evil)
    _, results, _ = detect(capsys, small, folder, "--report", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<img" not in page and "&lt;img src=x&gt;.mp4" in page
    read = [result for result in results if result["label"]]
    assert page.count("<article") == len(read) == 4
    assert page.count("<figure") == 1  # one is longer than a window
    assert "1 unreadable" in page and "broken.mp4: is not readable" in page
    scores = [
        float(text)
        for text in re.findall(r'#file-\d+.*?</td>\s*<td class="number">([\d.]+)</td>', page, re.S)
    ]
    assert scores == sorted((round(result["score"], 3) for result in read), reverse=True)
    assert (
        not re.search(r'(?:src|href)="(?!#|data:)', page) and "@import" not in page and "<script" not in page
    )


def test_the_page_is_bounded(small, clips, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_avlmm.cli.detect.overview.MOST_FILES", 3)
    detector = pipeline(TASK, model=str(small), device="cpu")
    result = detector(str(clips["short"]))
    report = Overview(detector, survey(["x"]))
    for number in range(20):
        report.add(f"clip{number}.mp4", {**result, "score": (number * 7 % 20) / 20})
    report.write(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert re.findall(r"<h3>(clip\d+\.mp4)</h3>", page) == ["clip17.mp4", "clip14.mp4", "clip11.mp4"]
    assert "The other 17 are in" in page


def test_the_page_shows_where_picture_and_sound_disagree(small, tmp_path, clips):
    detector = pipeline(TASK, model=str(small), device="cpu")
    report = Overview(detector, survey(["x", "y"]))
    result = detector(str(clips["short"]))
    line = [{"time": 0.0, "disagreement": 0.2}, {"time": 0.5, "disagreement": 0.8}]
    report.add("x.mp4", {**result, "timeline": line, "disagreement": 0.5})
    report.add("y.mp4", result)
    report.write(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("<figure") == page.count("0.50 on average, highest at 0:00.5 (0.80)") == 1


def test_the_page_says_once_that_this_is_a_demonstration(tmp_path, clips):
    model = save_small(tmp_path / "demo", notice="demonstration model trained on drawn faces")
    with pytest.warns(UserWarning, match="demonstration"):
        detector = pipeline(TASK, model=str(model), device="cpu")
    report = Overview(detector, survey(["x", "y"]))
    for name in ("x.mp4", "y.mp4"):
        report.add(name, detector(str(clips["short"])))
    report.write(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.lower().count("trained on drawn faces") == 1 and page.count("<article") == 2


# -- resuming --------------------------------------------------------------------------------------------------------


class Counting:
    """Count the files that are decoded, and stop at one of them as Ctrl-C does."""

    def __init__(self, monkeypatch, stop_at: str = ""):
        from modeling_avlmm import pipeline_avd

        self.opened, real = [], pipeline_avd.MediaReader

        def reader(source, *arguments, **options):
            self.opened.append(Path(source).name)
            if stop_at and str(source).endswith(stop_at):
                raise KeyboardInterrupt
            return real(source, *arguments, **options)

        monkeypatch.setattr(pipeline_avd, "MediaReader", reader)


def test_a_stopped_run_goes_on(small, folder, tmp_path, capsys, monkeypatch):
    journal, page = tmp_path / "j.jsonl", tmp_path / "r.html"
    whole = detect(capsys, small, folder)
    with monkeypatch.context() as patch:
        Counting(patch, stop_at="two.wav")
        status, first, err = detect(capsys, small, folder, "--resume", journal, "--report", page)
    assert status == 130 and first == whole[1][:2]
    assert "stopped after 2 of 4 files. The same command goes on" in err
    assert "after 2 of 4 files" in page.read_text()
    with open(journal, "ab") as file:
        file.write(b'{"file": "cut o')  # a kill while a line was written
    with monkeypatch.context() as patch:
        counting = Counting(patch)
        status, again, err = detect(capsys, small, folder, "--resume", journal)
    assert counting.opened == ["two.wav", "broken.mp4"] and "2 of 4 files were done before" in err
    assert (status, again) == whole[:2]
    # Everything is done, but a broken file is tried again, and a file that changed is a new one.
    os.utime(folder / "b.mp4", ns=(1, 1))
    with monkeypatch.context() as patch:
        counting = Counting(patch)
        assert detect(capsys, small, folder, "--resume", journal)[1] == whole[1]
    assert counting.opened == ["b.mp4", "broken.mp4"]


def test_what_was_done_before_does_not_pile_up(small, folder, tmp_path, capsys, monkeypatch):
    journal = tmp_path / "j.jsonl"
    (folder / "c" / "broken.mp4").unlink()
    for number in range(20):
        shutil.copy(folder / "a" / "one.MP4", folder / f"z{number:02}.mp4")
    whole = detect(capsys, small, folder, "--resume", journal)
    os.utime(folder / "z10.mp4", ns=(1, 1))
    waiting, give = [], DetectionRun._hand_out

    def counted(run, *arguments, **options):
        waiting.append(len(run.waiting))
        give(run, *arguments, **options)

    monkeypatch.setattr(DetectionRun, "_hand_out", counted)
    assert detect(capsys, small, folder, "--resume", journal)[:2] == whole[:2]
    # Only results after the changed file wait for it, and only while it is read.
    assert len(waiting) == 23 and waiting[:3] == [0, 0, 0] and max(waiting) <= 10


def test_stopped_without_a_journal_it_says_how_to_go_on(small, folder, capsys, monkeypatch):
    Counting(monkeypatch, stop_at="one.MP4")
    status, results, err = detect(capsys, small, folder)
    assert status == 130 and len(results) == 1 and "--resume JOURNAL.jsonl" in err


def test_another_detector_or_option_is_refused(small, clips, tmp_path, capsys):
    journal = tmp_path / "j.jsonl"
    assert detect(capsys, small, clips["short"], "--resume", journal)[0] == 0
    before = journal.read_bytes()
    other = save_small(tmp_path / "other", seed=1)
    for model, words, what in (
        (other, (), "model.weights"),
        (small, ("--threshold", "0.9"), "settings.threshold: none then, 0.9 now"),
        (small, ("--gate", other, "--gate-band", "0.4", "0.6"), "gate: none then, another now"),
    ):
        status, results, err = detect(capsys, model, clips["short"], "--resume", journal, *words)
        assert status == 2 and results == [] and what in err and "name another journal" in err
    assert journal.read_bytes() == before
    status, _, err = detect(capsys, small, clips["short"], "--resume", clips["sound"])
    assert status == 2 and "is not a journal" in err
    assert clips["sound"].read_bytes()[:4] == b"RIFF"


def test_a_file_that_ends_the_process_twice_is_left_out(small, folder, tmp_path, capsys):
    journal = tmp_path / "j.jsonl"
    status, whole, _ = detect(capsys, small, folder / "b.mp4", "--resume", journal)
    head = journal.read_bytes().splitlines(keepends=True)[0]
    begun = journal.read_bytes().splitlines(keepends=True)[1]
    journal.write_bytes(head + begun)
    assert detect(capsys, small, folder / "b.mp4", "--resume", journal)[1] == whole  # once may be chance
    journal.write_bytes(head + begun + begun)
    status, (result,), _ = detect(capsys, small, folder / "b.mp4", "--resume", journal)
    assert status == 1 and result["error"]["type"] == "ProcessEnded" and result["label"] is None
    journal.write_bytes(head + begun + begun + b'{"stopped": true}\n')
    assert detect(capsys, small, folder / "b.mp4", "--resume", journal)[1] == whole


def test_one_file_never_ends_a_run(small, folder, tmp_path, capsys, monkeypatch):
    base = make_clip(folder / "base.mp4", 1)
    two = remux(
        base, folder / "d.avi", "-map", "0:v", "-map", "0:v", "-map", "0:a", "-c:v", "mpeg4", "-c:a", "mp2"
    )
    data = two.read_bytes()  # the codec of the first track is unknown
    two.write_bytes(data.replace(b"FMP4", b"ZZZZ", data.count(b"FMP4") // 2))
    make_clip(folder / "wide.mkv", 1, size=(4000, 16), codec="ffv1")
    encode = SSAVDProcessor.encode

    def broken(self, clip, *rest, **options):
        if clip.name.endswith("b.mp4"):
            raise ArithmeticError("a fault of ours")
        return encode(self, clip, *rest, **options)

    monkeypatch.setattr(SSAVDProcessor, "encode", broken)
    status, results, _ = detect(capsys, small, folder, "--resume", tmp_path / "j.jsonl")
    by_name = {Path(result["file"]).name: result for result in results}
    assert status == 1 and len(results) == 7 and by_name["one.MP4"]["label"] and by_name["wide.mkv"]["label"]
    assert by_name["b.mp4"]["error"]["message"].endswith(
        "cannot be scored (ArithmeticError: a fault of ours)"
    )
    assert by_name["d.avi"]["error"] is None or by_name["d.avi"]["error"]["message"].startswith(str(two))


def test_what_a_header_claims_but_does_not_hold_is_not_scored(small, tmp_path, capsys):
    base = make_clip(tmp_path / "base.mp4", 3)
    path = remux(base, tmp_path / "lie.mp4", "-movflags", "frag_keyframe+empty_moov+default_base_moof")
    data = bytearray(path.read_bytes())
    scale = data.index(b"mdhd") + 16  # ISO/IEC 14496-12, 8.4.2
    data[scale : scale + 4] = (1).to_bytes(4, "big")  # a frame every 512 s
    path.write_bytes(data)
    status, (result,), _ = detect(capsys, small, path)
    assert status == 0 and result["duration"] > 30_000 and 75 <= len(result["windows"]) <= 80
    assert any(re.search(r"there is nothing in \d+ of \d+ windows", text) for text in result["warnings"])


def test_a_file_that_ends_two_runs_with_an_error_is_left_out(small, folder, tmp_path, capsys, monkeypatch):
    journal = tmp_path / "j.jsonl"

    def broken(*_, **__):
        raise RuntimeError("the network failed")

    with monkeypatch.context() as patch:
        patch.setattr(SSAVDForDeepfakeDetection, "forward", broken)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="the network failed"):
                detect(capsys, small, folder / "b.mp4", "--resume", journal)
        patch.setattr(SSAVDForDeepfakeDetection, "forward", lambda *_, **__: 1 / 0)
        status, (result,), _ = detect(capsys, small, folder / "b.mp4", "--resume", journal)
    assert status == 1 and result["error"]["type"] == "ProcessEnded" and "b.mp4" in result["error"]["message"]


def test_a_journal_is_written_by_one_run(tmp_path):
    first = Journal(tmp_path / "j.jsonl", {"model": 1})
    with pytest.raises(JournalError, match="in use by process"):
        Journal(tmp_path / "j.jsonl", {"model": 1})
    first.close()
    Journal(tmp_path / "j.jsonl", {"model": 1}).close()


def test_a_gate_and_a_journal(small, folder, tmp_path, capsys):
    words = [folder, "--gate", save_small(tmp_path / "gate", seed=2), "--gate-band", "0.45", "0.55"]
    plain = detect(capsys, small, *words)
    journal = tmp_path / "j.jsonl"
    for _ in range(2):
        assert detect(capsys, small, *words, "--resume", journal, "--batch-size", "1")[:2] == plain[:2]
    assert {result["decided_by"] for result in plain[1]} <= {"gate", "model"}


def test_without_the_library_a_case_is_html_and_a_line_says_so(small, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "plutoprint", None)
    cases = tmp_path / "cases"
    status, _, err = detect(capsys, small, folder / "b.mp4", "--case", cases)
    assert status == 0 and [file.suffix for file in cases.iterdir()] == [".html"]
    assert err.count("written as HTML only. PDF needs PlutoPrint: pip install") == 1


def test_a_case_for_each_file(small, folder, tmp_path, capsys):
    pytest.importorskip("plutoprint", reason="PDF needs the `pdf` extra")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            detect(
                capsys, small, folder / "b.mp4", folder / "c" / "broken.mp4", "--case", tmp_path / "cases"
            )[0]
            == 1
        )
    made = sorted((tmp_path / "cases").iterdir())
    assert [re.sub("-[0-9a-f]{8}", "", file.name) for file in made] == ["b.mp4.html", "b.mp4.pdf"]

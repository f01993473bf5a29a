"""The hard level of the demonstration benchmark, and fake segments measured on its partly forged clips."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from ssavd_factory import save_small

from dataset_scripts.demo_benchmark import benchmark as demo
from dataset_scripts.demo_benchmark import layouts
from dataset_scripts.demo_benchmark.face import FRAME_RATE, draw_face, draw_motion, mouth_tracks
from dataset_scripts.demo_benchmark.forgery import DrawnClip, forge, identity_of, render, utterance_of
from dataset_scripts.demo_benchmark.levels import HARD, LEVELS, STANDARD
from dataset_scripts.demo_benchmark.speech import SAMPLE_RATE
from modeling_avlmm.evaluation.evaluate import evaluate_protocol
from modeling_avlmm.evaluation.evaluation_options import EvaluationOptions

SEED = 3
SECONDS = 2.4
PERSON, DONOR = ("one", "Asian (East)", "women"), ("two", "Asian (East)", "women")
FORGED_PICTURES = sorted(set(LEVELS[HARD].methods) - {"real", "rtvc"})


def clip_of(method: str, level: str = HARD, **options) -> DrawnClip:
    return DrawnClip("scene.mp4", "scene.mp4", PERSON, DONOR, "english", method, level=level, **options)


@pytest.fixture(scope="module")
def lav_df(tmp_path_factory) -> Path:
    """The smallest LAV-DF copy, of short clips: one person in each split."""
    output = tmp_path_factory.mktemp("hard")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "LAV_DF_SECONDS", SECONDS)
        patch.setattr(layouts, "FORGED_SECONDS", (0.8, 1.2))
        patch.setattr(layouts, "LAV_DF_SHARES", {"train": 1, "dev": 1, "test": 1})
        options = {"seed": SEED, "identities": 10, "workers": 1, "level": HARD}
        made = demo.make_demo_benchmark(output, **options, only="lav_df")
    assert made["written"] == 15 and made["complete"] == ["lav_df"]
    assert "| test real |" in (output / "README.md").read_text()
    return output / "LAV-DF"


@pytest.fixture(scope="module")
def report(lav_df, tmp_path_factory) -> tuple[dict, Path]:
    """The report of an untrained detector on the copy."""
    folder = tmp_path_factory.mktemp("report")
    model = save_small(folder / "model")
    return evaluate_protocol(
        EvaluationOptions(
            model=str(model),
            dataset="lav_df",
            data_dir=lav_df,
            window_seconds=0.8,
            hop_seconds=0.4,
            batch_size=8,
            n_resamples=0,
            output_dir=folder / "lav_df",
        )
    )


def test_a_few_seconds_of_each_fake_are_forged(lav_df):
    table = datasets.load_dataset("lav_df", data_dir=str(lav_df))
    assert {split: len(rows) for split, rows in table.items()} == {"train": 5, "validation": 5, "test": 5}
    for rows in table.values():
        rows = list(rows.cast_column("video", datasets.Video(decode=False)))
        kinds = ["real", "real", "visual_modified", "audio_modified", "both_modified"]
        assert [row["modify_type"] for row in rows] == kinds
        assert [row["source"] for row in rows] == [None, None] + [rows[0]["path"]] * 3
        for row in rows[2:]:
            ((start, end),) = row["fake_segments"]
            assert start >= 0.5 and 0.79 < end - start < 1.21 and end <= SECONDS - 0.49


def test_people_and_unseen_methods_are_in_one_split():
    clips, rows = layouts.plan_lav_df(SEED, 60)
    people: dict[str, set[str]] = {}
    methods: dict[str, set[str]] = {}
    for clip in clips:
        split = clip.path.split("/")[0]
        people.setdefault(split, set()).add(clip.person[0])
        methods.setdefault(split, set()).add(clip.method)
        assert (clip.forged is None) == (clip.path == clip.scene)
    assert {split: len(names) for split, names in people.items()} == {"train": 6, "dev": 6, "test": 12}
    assert not people["train"] & people["test"] and not people["dev"] & people["test"]
    assert methods["test"] - methods["train"] == {*layouts.OPEN_METHODS} == methods["test"] - methods["dev"]
    assert [row["file"] for row in rows] == [clip.path for clip in clips]


def _colour_error(method: str, level: str) -> float:
    """Return the largest change of a channel's mean over the forged pixels of the drawn face."""
    clip = clip_of(method, level, seconds=0.4)
    person, donor = identity_of(SEED, PERSON)[0], identity_of(SEED, DONOR)[0]
    utterance = utterance_of(SEED, clip)
    motion = draw_motion(utterance, np.random.default_rng(0), clip.frames)
    canvas = draw_face(person, motion)
    spec = LEVELS[level].methods[method]
    driven = mouth_tracks(utterance, clip.frames)
    change = (forge(canvas, person, donor, motion, driven, spec, np.random.default_rng(1)) - canvas)[..., :3]
    where = np.abs(change).sum(-1) > 0.003
    mean = change[where].mean(0)
    return float(np.abs(mean - mean.mean()).max())


@pytest.mark.parametrize("method", ["faceswap", "fsgan", "wav2lip"])
def test_forged_faces_have_no_colour_cast(method):
    assert _colour_error(method, HARD) < 0.012 < 0.025 < _colour_error(method, STANDARD)


@pytest.mark.parametrize("method", FORGED_PICTURES)
def test_no_method_leaves_a_grid_or_an_edge(method):
    spec = LEVELS[HARD].methods[method]
    assert (spec.grid, spec.flicker, spec.rim, spec.seam, set(spec.tint)) == (0, 0, 0, 0, {0})
    assert spec.low_res > 1 and LEVELS[STANDARD].methods[method].grid > 0


def test_only_the_marked_part_is_forged():
    def drawn(forged: tuple[float, float] | None):
        made = render(SEED, clip_of("fsgan-wav2lip", fake_audio=True, seconds=SECONDS, forged=forged))
        return made.frames.astype(np.float32), made.sound

    whole, part, never = drawn(None), drawn((0.8, 1.6)), drawn((5.0, 6.0))
    face = slice(40, 80), slice(30, 66)
    for seconds, like, unlike in ((0.4, never, whole), (1.2, whole, never), (2.0, never, whole)):
        frame = round(seconds * FRAME_RATE)

        def apart(one, two, frame=frame):
            return np.abs(one[0][frame][face] - two[0][frame][face]).mean()

        assert apart(part, like) < 0.2 * apart(part, unlike)
    # The random numbers of the sound are the same until the forged part begins.
    assert part[1].shape == never[1].shape == (round(SECONDS * SAMPLE_RATE),)
    edge = round(0.78 * SAMPLE_RATE)
    correlation = [
        np.corrcoef(part[1][span], never[1][span])[0, 1] for span in (slice(0, edge), slice(14_000, 24_000))
    ]
    assert correlation[0] > 0.95 and correlation[1] < 0.8


def test_wrong_levels_and_foreign_folders(tmp_path, capsys):
    with pytest.raises(ValueError, match="level must be one of standard, hard"):
        demo.make_demo_benchmark(tmp_path, level="harder")
    # Somebody's LAV-DF, alone and beside a benchmark.
    (tmp_path / "LAV-DF").mkdir()
    (tmp_path / "LAV-DF" / "metadata.min.json").write_text("[]")
    with pytest.raises(FileExistsError, match="LAV-DF was not made by this script"):
        demo.make_demo_benchmark(tmp_path, only="lav_df")
    (tmp_path / demo.MARK).write_text(json.dumps({"settings": {}, "complete": []}))
    with pytest.raises(SystemExit):
        demo.main(["--output-dir", str(tmp_path), "--level", "hard"])
    assert "LAV-DF was not made by this script" in capsys.readouterr().err
    settings = {"seed": 0, "identities": 60, "mavos_scale": 1.0, "code": demo._code_version()}
    (tmp_path / demo.MARK).write_text(json.dumps({"settings": settings, "complete": []}))
    with pytest.raises(FileExistsError, match="LAV-DF was not made by this script"):
        demo.make_demo_benchmark(tmp_path, only="lav_df")
    assert (tmp_path / "LAV-DF" / "metadata.min.json").read_text() == "[]"


def test_segments_are_measured_from_clip_to_report(report):
    result, folder = report
    found = result["localization"]
    assert (found["benchmark"], found["n_segments"], found["n_files"]) == ("lav_df", 3, 5)
    assert found["n_proposals"] > 0 and 0 <= found["ap@0.5"] <= 1 and 0 <= found["ar@10"] <= 1
    assert result["synthetic"] and result["overall"]["n"] == 5
    page = (folder / "report.html").read_text()
    assert "Which seconds are fake" in page and "True and found segments of 5 files" in page
    assert "test/000012.mp4" in (folder / "plots" / "segments.svg").read_text()


def test_the_layout_of_av_deepfake1m_gives_the_same(lav_df, report, tmp_path):
    """The same clips as `val` of AV-Deepfake1M, whose test split has no labels."""
    rows = [row for row in json.loads((lav_df / "metadata.min.json").read_text()) if row["split"] == "test"]
    entries = []
    for row in rows:
        kind = {(0, 0): "real", (1, 0): "visual_modified", (0, 1): "audio_modified", (1, 1): "both_modified"}[
            row["modify_video"], row["modify_audio"]
        ]
        file = f"id00001/clip/{Path(row['file']).name}"
        entries.append(
            {"file": file, "modify_type": kind, "fake_segments": row["fake_periods"], "original": None}
        )
        (tmp_path / "val" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "val" / file).symlink_to(lav_df / row["file"])
    (tmp_path / "val_metadata.json").write_text(json.dumps(entries))
    other, _ = evaluate_protocol(
        EvaluationOptions(
            model=report[0]["model"],
            dataset="av_deepfake1m",
            data_dir=tmp_path,
            split="validation",
            threshold="model",
            window_seconds=0.8,
            hop_seconds=0.4,
            batch_size=8,
            n_resamples=0,
            output_dir=tmp_path / "report",
        )
    )
    one, two = report[0]["localization"], other["localization"]
    assert two["benchmark"] == "av_deepfake1m" and "score" in two
    shared = {"ap@0.5", "ap@0.75", "ap@0.95", "ar@10", "ar@20", "ar@50", "n_segments", "n_proposals"}
    assert {name: two[name] for name in shared} == {name: one[name] for name in shared}

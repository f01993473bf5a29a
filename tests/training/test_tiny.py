"""The demonstration's pre-training: encoders trained by their command line, and dense questions about genuine clips."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dataset_factory import fakeavceleb_rows, write_fakeavceleb
from media_factory import make_clip
from transformers import CLIPVisionModel, WhisperModel

from modeling_avlmm.training.tiny.dense import digits, pitch_level
from modeling_avlmm.training.tiny.encoders import FRAMES, SECONDS, make_demo_encoders

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(tmp_path) -> Path:
    """Genuine clips of six people in the layout of the demonstration benchmark, with annotations."""
    folder = tmp_path / "data"
    corpus = folder / "FakeAVCeleb_v1.2"
    rows = write_fakeavceleb(corpus, [row for row in fakeavceleb_rows(3, fakes=False)[:12] if row[4] == "A"])
    times = [index * SECONDS / FRAMES for index in range(FRAMES)]
    tracks = {"seconds": times, "mouth_open": [t / 2 for t in times], "loudness": [t / 2 for t in times]}
    tracks["pitch_hz"] = [0.0, 140.0] * (FRAMES // 2)
    with open(folder / "real_annotations.jsonl", "w", encoding="utf-8") as file:
        for row in rows:
            path = "/".join((row[5], row[6], row[7], row[0], row[8]))
            make_clip(corpus / path, seconds=SECONDS, click_at=0.5)
            file.write(json.dumps({"path": path, **tracks}) + "\n")
    return folder


def test_encoders_are_trained_from_the_command_line(benchmark, tmp_path, dataset_cache, capsys):
    folder = tmp_path / "encoders"
    words = ["--data-dir", benchmark, "--output-dir", folder, "--steps", 2, "--batch-size", 2]
    done = subprocess.run(
        [sys.executable, "-m", "modeling_avlmm.training.tiny.encoders", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "HF_DATASETS_CACHE": str(dataset_cache), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "step 2/2" in done.stdout and f"wrote {folder}" in done.stdout
    assert CLIPVisionModel.from_pretrained(folder / "vision").config.hidden_size == 192
    assert WhisperModel.from_pretrained(folder / "audio").config.d_model == 128
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "encoders"]
    assert make_demo_encoders(benchmark, folder) == (folder / "vision", folder / "audio")
    assert "done before" in capsys.readouterr().out


def test_a_folder_with_other_files_is_left_alone(benchmark, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"make the benchmark with"):
        make_demo_encoders(tmp_path, tmp_path / "encoders")
    with pytest.raises(FileExistsError, match=r"holds other files"):
        make_demo_encoders(benchmark, benchmark)


def test_dense_answers_are_digits():
    assert digits([0.0, 0.19, 0.95, 1.0, -1.0]) == "01990"
    assert pitch_level(0.0) == 0 and pitch_level(70.0) == 0
    assert pitch_level(140.0) == pytest.approx(1 / 2.3)

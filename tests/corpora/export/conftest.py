"""Small corpora to export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
from dataset_factory import write_clip, write_mavos
from export_factory import fill
from media_factory import make_clip


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, frames=5)
    return path.read_bytes()


@pytest.fixture(scope="session")
def mavos(clip, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("corpus") / "MAVOS-DD"
    write_mavos(root, release=2)
    fill(root, clip)
    return root


@pytest.fixture
def small(clip, tmp_path) -> Path:
    """A corpus of 12 clips in two splits, which a test may change."""
    root = tmp_path / "small"
    for split in ("train", "test"):
        for number in range(6):
            path = root / split / ("real" if number % 2 else "fake/swap") / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(clip)
    fill(root, clip)
    return root


@pytest.fixture(scope="session")
def odd(clip, tmp_path_factory) -> Path:
    """A corpus with sound files beside the clips, several containers, and names that make bad tar keys."""
    root = tmp_path_factory.mktemp("odd") / "clips"
    root.mkdir()
    make_clip(root / "a.mp4", seconds=0.4)
    make_clip(root / "b.v2.mov", seconds=0.4)
    make_clip(root / "x.mp4", seconds=0.4)
    shutil.copy(root / "x.mp4", root / "X.MP4")
    make_clip(root / "lies.mkv", seconds=0.4).rename(root / "lies.mp4")
    tone = (0.3 * torch.sin(torch.arange(8000) / 10)).numpy()
    for name in ("a.wav", "b.flac"):
        soundfile.write(root / name, tone, 16_000)
    lines = [
        {"file_name": "a.mp4", "label": "fake", "audio_file_name": "a.wav", "fake_segments": [[0.1, 0.2]]},
        {"file_name": "b.v2.mov", "label": "real", "audio_file_name": "b.flac", "language": "Klingon"},
        {"file_name": "x.mp4", "label": "real", "language": "fr", "identity": "p|1"},
        {"file_name": "X.MP4", "label": "fake", "source": "x.mp4", "generator": "swap"},
        {"file_name": "lies.mp4", "label": "fake", "generator": "swap"},
    ]
    (root / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root

"""Fixtures of all tests: a tiny backbone, a detector made from it, and small clips."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from media_factory import make_clip

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--transformers-source",
        metavar="DIR",
        help="source distribution of the installed transformers, for its common tests (test_transformers_common.py)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Give each process of pytest-xdist folders of its own, for temporary files and for code that comes with checkpoints."""
    if (worker := os.environ.get("PYTEST_XDIST_WORKER")) is None:
        return
    folder = tempfile.mkdtemp(prefix=f"tests-{worker}-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    os.environ["HF_MODULES_CACHE"] = str(Path(folder) / "modules")


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory) -> Path:
    """An omni checkpoint of the real classes with 0.1 M random weights."""
    from modeling_avlmm.training.tiny.backbone import make_tiny_backbone

    return make_tiny_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def tiny_model(tiny_backbone):
    """The untrained detector around `tiny_backbone`, in memory; tests must not change it."""
    from modeling_avlmm import AVLMMForDeepfakeDetection

    return AVLMMForDeepfakeDetection.from_backbone(str(tiny_backbone))


@pytest.fixture(scope="session")
def tiny_detector(tiny_backbone, tmp_path_factory) -> Path:
    """A saved detector around `tiny_backbone`, model and processor, which reads 4 s at once."""
    from modeling_avlmm import AVLMMForDeepfakeDetection, AVLMMProcessor

    folder = tmp_path_factory.mktemp("detector") / "model"
    AVLMMForDeepfakeDetection.from_backbone(str(tiny_backbone)).save_pretrained(folder)
    options = {"fps": 5.0, "max_frames": 16, "min_pixels": 56 * 56, "max_pixels": 56 * 56, "max_seconds": 4.0}
    AVLMMProcessor.from_backbone(str(tiny_backbone), **options).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_vllm(tiny_detector, tmp_path_factory) -> Path:
    """`tiny_detector`, published for vLLM."""
    from modeling_avlmm.publishing.publish import publish

    return publish(tiny_detector, tmp_path_factory.mktemp("served") / "vllm", layout="vllm")


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> dict[str, Path]:
    """Small files: with and without sound, a longer one, sound alone, and one that isn't a video."""
    import soundfile

    folder = tmp_path_factory.mktemp("clips")
    made = {
        "short": make_clip(folder / "short.mp4", seconds=1.0),
        "clip": make_clip(folder / "clip.mp4", seconds=2.0, flash_at=0.5, click_at=0.5),
        "silent": make_clip(folder / "silent.mp4", seconds=1.5, audio=False),
        "long": make_clip(folder / "long.mp4", seconds=10.0),
        "sound": folder / "sound.wav",
        "broken": folder / "broken.mp4",
    }
    tone = 0.3 * torch.sin(2 * torch.pi * 300 * torch.arange(24_000) / 16_000)
    soundfile.write(made["sound"], tone.numpy(), 16_000)
    made["broken"].write_bytes(b"this is no video at all" * 40)
    return made


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """A small corpus for `avfolder`: validation and test, two kinds of fake, and a test file that isn't a video."""
    folder = tmp_path_factory.mktemp("corpus")
    for split in ("validation", "test"):
        for number, kind in enumerate(("real", "fake/alpha", "fake/beta")):
            for clip in range(2):
                path = folder / split / kind / f"{clip}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                make_clip(path, seconds=1.0 + 0.2 * clip, flash_at=0.1 + 0.2 * number, click_at=0.2)
    (folder / "test" / "fake" / "beta" / "broken.mp4").write_bytes(b"no video" * 20)
    return folder


@pytest.fixture(scope="session", autouse=True)
def dataset_cache(tmp_path_factory):
    """Let `datasets` write its tables to a folder of the test run, not to the user's cache."""
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")
    yield datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture(scope="session")
def gate_folder(tmp_path_factory) -> Path:
    """A small SSAVD for clips of 2 s, with scores that lie far apart."""
    from ssavd_factory import save_small

    return save_small(tmp_path_factory.mktemp("gate") / "model")

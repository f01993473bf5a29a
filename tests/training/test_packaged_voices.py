"""Synthetic speech of packages: one folder for each synthesiser that is installed."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from modeling_avlmm.training import packaged_voices
from modeling_avlmm.training.packaged_voices import VOICES, main, sentences


def test_sentences_are_drawn_by_the_seed():
    assert sentences(30) == sentences(30) != sentences(30, seed=1)
    assert all(
        6 < len(each.split()) < 22 and each[0].isupper() and each.endswith(".") for each in sentences(30)
    )


def test_a_folder_for_each_synthesiser_that_is_there(tmp_path, monkeypatch, capsys):
    spoken = []

    def beep(texts):
        spoken.extend(texts)
        yield from ((np.full(800, 0.25, np.float32), 8000) for _ in texts)

    monkeypatch.setattr(
        packaged_voices, "VOICES", {"here": (beep, lambda: True), "elsewhere": (None, lambda: False)}
    )
    assert main(["--output-dir", str(tmp_path / "voices"), "--sentences", "3"]) == 0
    assert capsys.readouterr().out.splitlines() == ["here: 3 files", "elsewhere: not installed"]
    files = sorted((tmp_path / "voices").rglob("*.wav"))
    assert [each.relative_to(tmp_path).as_posix() for each in files] == [
        f"voices/here/{n:03d}.wav" for n in range(3)
    ]
    sound, rate = soundfile.read(files[0])
    assert rate == 8000 and sound == pytest.approx(np.full(800, 0.25), abs=1e-4) and len(spoken) == 3
    assert main(["--output-dir", str(tmp_path / "voices"), "--voices", "elsewhere"]) == 1


@pytest.mark.parametrize("name", VOICES)
def test_a_real_synthesiser_speaks(tmp_path, name):
    if not VOICES[name][1]():
        pytest.skip(f"{name} is not installed")
    assert main(["--output-dir", str(tmp_path), "--voices", name, "--sentences", "2"]) == 0
    sounds = [soundfile.read(file)[0] for file in sorted((tmp_path / name).iterdir())]
    assert [len(each) > 10_000 and np.abs(each).max() > 0.05 for each in sounds] == [True, True]

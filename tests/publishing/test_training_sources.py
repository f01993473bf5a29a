"""The recordings behind the weights: counted by repository, and refused where training on them is not allowed."""

from __future__ import annotations

import csv
import json

import pytest

from modeling_avlmm.publishing.training_sources import SourcesError, main, training_sources

CLIPS = [
    {
        "file_name": "a.mp4",
        "split": "train",
        "train_ok": "yes",
        "identity": "ann",
        "licence": "MIT",
        "repo": "o/a",
    },
    {
        "file_name": "b.mp4",
        "split": "train",
        "train_ok": "yes",
        "identity": "ann",
        "licence": "MIT",
        "repo": "o/a",
    },
    {
        "file_name": "c.mp4",
        "split": "train",
        "train_ok": "yes",
        "identity": "bob",
        "licence": "CC0",
        "repo": "o/b",
    },
    {
        "file_name": "d.mp4",
        "split": "dev",
        "train_ok": "no",
        "identity": "eve",
        "licence": "none",
        "repo": "o/c",
    },
]
SPEECH = [
    {
        "file_name": "s.flac",
        "split": "train",
        "train_ok": "yes",
        "speaker": "VCTK_p225",
        "licence_corpus": "CC BY 4.0",
        "repo": "o/a",
    }
]
PHOTOS = [{"file_name": "p.jpg", "train_ok": "yes", "licence": "MIT", "repo": "o/a"}]


def write(folder, **tables) -> None:
    for name, rows in tables.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def test_known_counts(tmp_path, capsys):
    write(tmp_path, clips=CLIPS, speech=SPEECH, photos=PHOTOS)
    (tmp_path / "run").mkdir()
    main(["--data-dir", str(tmp_path), "--to", str(tmp_path / "run"), "--systems", "pyworld", "hibari-tts"])
    found = json.loads((tmp_path / "run" / "sources.json").read_text())
    assert found == {
        "counts": {"people": 3, "clips": 3, "photographs": 1, "sounds": 1},
        "systems": ["hibari-tts", "pyworld"],
        "sources": [
            {"repository": "o/a", "licence": "CC BY 4.0", "sounds": 1},
            {"repository": "o/a", "licence": "MIT", "clips": 2, "photographs": 1},
            {"repository": "o/b", "licence": "CC0", "clips": 1},
        ],
    }
    assert "3 people, 3 clips, 1 photographs, 1 sounds" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, message",
    [
        ({"train_ok": "no"}, "train_ok is 'no'"),
        ({"repo": ""}, "names no repository"),
        ({"licence": ""}, "names no licence"),
    ],
)
def test_what_must_not_be_trained_on_is_refused(tmp_path, change, message):
    write(tmp_path, clips=[*CLIPS[:2], {**CLIPS[2], **change}])
    with pytest.raises(SourcesError, match=message):
        training_sources(tmp_path)


def test_no_recordings(tmp_path, capsys):
    write(tmp_path, clips=CLIPS[3:])
    with pytest.raises(SourcesError, match="has no recordings of the split 'train'"):
        training_sources(tmp_path)
    with pytest.raises(SystemExit):
        main(["--data-dir", str(tmp_path), "--to", str(tmp_path)])
    assert "has no recordings" in capsys.readouterr().err

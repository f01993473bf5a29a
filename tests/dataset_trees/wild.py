"""A folder of real recordings in the layout of `wild`, with empty files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from dataset_factory import touch


def clip(name: str, label: str, split: str = "dev", **more: str) -> dict[str, str]:
    """Return a row of `clips.csv`."""
    return {"file_name": name, "split": split, "train_ok": "no", "label": label, "video_label": label, **more}


CLIPS = [
    clip("clips/a.mp4", "real", "train", train_ok="yes", audio_label="real", identity="p0", licence="MIT"),
    clip("clips/b.mp4", "real", identity="p1", has_audio="yes", repo="o/r", path="v/b.mp4", language="en"),
    clip("../more/c.mp4", "real", identity="p2", has_audio="no"),
    clip("clips/d.mp4", "fake", identity="p1", generator="Wav2Lip", family="lip sync", source="b.mp4"),
    clip("clips/e.mp4", "fake", identity="p1", generator="X", source="o/r:v/b.mp4", audio_label="unknown"),
    clip("clips/f.mp4", "fake", generator="X", source="elsewhere.mp4", language="unknown"),
]
SPEECH = [
    {"file_name": "speech/a.flac", "split": "dev", "label": "real", "system": "genuine", "kind": "genuine"},
    {"file_name": "speech/b.flac", "split": "dev", "label": "fake", "system": "vits", "kind": "tts"},
]
SPEECH[1] |= {"speaker": "s1", "pair_id": "t:1", "orig_rate": "22050", "licence_corpus": "CC0"}
PHOTOS = [{"file_name": "photos/a.jpg", "train_ok": "yes", "licence": "MIT", "dataset": "faces"}]


def write_table(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write rows as CSV, with every column that any of them has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_wild(root: Path, **tables: Sequence[dict[str, str]]) -> None:
    """Write a folder with the given tables (`clips`, `speech`, `photos`) and their files; all three if none is given."""
    for name, rows in (tables or {"clips": CLIPS, "speech": SPEECH, "photos": PHOTOS}).items():
        write_table(root / f"{name}.csv", rows)
        for row in rows:
            if row.get("file_name"):
                touch(root / row["file_name"])
